/* SPDX-License-Identifier: MIT */
/*
 * A device that echoes its input is killed hundreds of times: not one byte is lost, repeated or
 * out of order, whatever the host's end is; with and without root, as in a worker (not dumpable).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <cmocka.h>
#include "base/ab.h"
#include "base/sock.h"
#include "device/device.h"
#include "kill.h"

#define RUN_MS 1200
#define MIN_KILLS 16     /* to mean something; some hundreds on an idle machine ... */
#define MAX_RUN_MS 20000 /* ... and a busy one gets more time for them */
#define KILL_US 8000
#define READ (UMDEV_RES_STREAM | UMDEV_RES_READ)
#define WRITE (UMDEV_RES_STREAM | UMDEV_RES_WRITE)

static const struct umdev_device_type type = { .name = "echo" };

/* Input of the first stream goes to the output of the last. */
struct echo {
	struct kill_ring ring;
	int fd[2];
	uint32_t flags[2];
	unsigned n;
	struct stream_shared stream[2];
	struct ab ab;
	struct device_half half[2];
	struct stream_last_life last;
	int io_fd;
	bool settled;
	uint32_t lost_accounts;
};

struct life {
	struct umdev_device dev;
	struct echo *echo;
};

/* As the keeper of a worker does. */
static void reap(void *arg, pid_t pid)
{
	struct echo *e = arg;
	struct stream_account before, after;
	int io_fd = open("/proc/self/io", O_RDONLY);

	if (!stream_account_read(io_fd, &before))
		e->lost_accounts++;
	waitpid(pid, NULL, 0);
	if (!stream_account_read(io_fd, &after))
		e->lost_accounts++;
	close(io_fd);
	if (!e->settled)
		return;
	e->settled = false;
	e->last.known = true;
	e->last.rchar = after.rchar - before.rchar_after;
	e->last.wchar = after.wchar - before.wchar;
}

static void on_event(struct stream *s)
{
	struct echo *e = container_of(s->dev, struct life, dev)->echo;
	unsigned out = s->dev->n_streams - 1;
	uint8_t data[777];
	size_t n;

	do {
		s->dev->half = &e->half[ab_spare(&e->ab)];
		memcpy(s->dev->half, &e->half[e->ab.cur], sizeof(e->half[0]));
		n = umdev_stream_space(s->dev, out);
		n = umdev_stream_read(s->dev, 0, data, n < sizeof(data) ? n : sizeof(data));
		if (umdev_stream_write(s->dev, out, data, n) != n)
			abort();
		ab_flip(&e->ab);
		s->dev->half = &e->half[e->ab.cur];
	} while (n);
	device_streams_kick(s->dev);
}

static void serve(void *arg, unsigned life)
{
	static struct life l;
	static struct loop loop;
	struct echo *e = arg;
	struct uuid uuid = { { 0 } };
	enum umdev_init how = e->ring.kills ? UMDEV_RESUME : UMDEV_FRESH;

	if (e->io_fd > 0)
		close(e->io_fd); /* the last life's; the table is common */
	e->io_fd = open("/proc/self/io", O_RDONLY);
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (e->io_fd < 0 || loop_init(&loop) || device_init(&l.dev, NULL, &type, &uuid))
		abort();
	l.echo = e;
	l.dev.io_fd = e->io_fd;
	l.dev.stream_shared = e->stream;
	l.dev.half = &e->half[e->ab.cur];
	for (unsigned i = 0; i < e->n; i++)
		if (device_add_resource(&l.dev, i ? "out" : "in", e->fd[i], e->flags[i], 0, 0,
					NULL))
			abort();
	/* A life that died before it settled began nothing: its successor starts from the same. */
	if (device_streams_attach(&l.dev, how, &e->last))
		abort();
	e->settled = true;
	if (device_streams_start(&l.dev, &loop, on_event))
		abort();
	loop_run(&loop);
	abort();
}

static struct echo *echo_new(bool as_nobody)
{
	struct echo *e = kill_shared_memory(sizeof(*e));

	e->ring.as_nobody = as_nobody && geteuid() == 0;
	e->ring.reap = reap;
	e->n = 1;
	return e;
}

static uint8_t byte_at(uint64_t i)
{
	return (i * 0x9e3779b97f4a7c15ULL) >> 53;
}

/* Begun at `begin`, may the run end? */
static bool is_enough(const struct echo *e, uint64_t begin)
{
	uint64_t ms = kill_now_ms() - begin;

	return ms >= MAX_RUN_MS || (ms >= RUN_MS && e->ring.kills >= MIN_KILLS);
}

/* Writes as much as goes, reads back as much as comes, until it is enough; then the rest. */
static uint64_t pump(const struct echo *e, int to, int from)
{
	uint64_t sent = 0, got = 0, begin = kill_now_ms();
	unsigned seed = 7;
	bool more = true;

	while (more || got < sent) {
		struct pollfd p[2] = { { .fd = from, .events = POLLIN },
				       { .fd = to, .events = POLLOUT } };
		uint8_t data[3000];
		ssize_t n;

		/* Nothing for ten seconds: a byte was lost. */
		assert_true(poll(p, more ? 2 : 1, 10000) > 0);
		if (more && p[1].revents & POLLOUT) {
			size_t len = 1 + rand_r(&seed) % sizeof(data);

			for (size_t i = 0; i < len; i++)
				data[i] = byte_at(sent + i);
			n = write(to, data, len);
			sent += n > 0 ? n : 0;
		}
		n = p[0].revents & POLLIN ? read(from, data, sizeof(data)) : 0;
		for (ssize_t i = 0; i < n; i++)
			if (data[i] != byte_at(got + i))
				fail_msg("byte %llu is wrong", (unsigned long long)(got + i));
		got += n > 0 ? n : 0;
		more = more && !is_enough(e, begin);
	}
	assert_int_equal(got, sent);
	return sent;
}

static void run(struct echo *e, int to, int from, const char *what)
{
	pid_t keeper = kill_start(&e->ring, KILL_US, serve, e);
	uint64_t bytes = pump(e, to, from);
	struct pollfd p = { .fd = from, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 30), 0); /* and not one byte more */
	assert_int_equal(kill_stop(&e->ring, keeper), 0);
	print_message("%s: %u kills, %llu bytes\n", what, e->ring.kills, (unsigned long long)bytes);
	assert_true(e->ring.kills >= MIN_KILLS && bytes > 100000);
	assert_int_equal(e->lost_accounts, 0);
}

static void pty(bool as_nobody)
{
	struct echo *e = echo_new(as_nobody);
	char name[64];
	struct termios t;
	int slave;

	e->fd[0] = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	e->flags[0] = READ | WRITE | UMDEV_RES_PTY;
	assert_true(!unlockpt(e->fd[0]) && !ptsname_r(e->fd[0], name, sizeof(name)));
	slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_int_equal(tcgetattr(slave, &t), 0);
	cfmakeraw(&t);
	assert_int_equal(tcsetattr(slave, TCSANOW, &t), 0);
	run(e, slave, slave, as_nobody ? "pty, without root" : "pty");
	close(slave);
	close(e->fd[0]);
}

static void pty_is_exactly_once(void **state)
{
	pty(false);
}

static void pty_is_exactly_once_without_root(void **state)
{
	pty(true);
}

static void pipes_are_exactly_once(void **state)
{
	struct echo *e = echo_new(true);
	int in[2], out[2];

	assert_true(!pipe2(in, O_NONBLOCK) && !pipe2(out, O_NONBLOCK));
	e->fd[0] = in[0];
	e->fd[1] = out[1];
	e->flags[0] = READ;
	e->flags[1] = WRITE;
	e->n = 2;
	run(e, in[1], out[0], "pipes");
	for (int i = 0; i < 2; i++) {
		close(in[i]);
		close(out[i]);
	}
}

static void socket_is_exactly_once(void **state)
{
	struct echo *e = echo_new(true);
	int fds[2], small = 4608;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	e->fd[0] = fds[0];
	e->flags[0] = READ | WRITE;
	run(e, fds[1], fds[1], "socket");
	close(fds[0]);
	close(fds[1]);
}

static void accepted_connection_is_exactly_once(void **state)
{
	struct echo *e = echo_new(true);
	char dir[] = "/tmp/umdev-stream-XXXXXX", path[64];
	int peer;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	e->fd[0] = sock_listen(path, 0666);
	e->flags[0] = READ | WRITE | UMDEV_RES_LISTEN;
	peer = sock_connect(path);
	assert_true(e->fd[0] >= 0 && peer >= 0);
	assert_int_equal(fd_set_nonblock(peer, true), 0);
	run(e, peer, peer, "accepted connection");
	close(peer);
	close(e->fd[0]);
	unlink(path);
	rmdir(dir);
}

static void file_gets_every_byte_once(void **state)
{
	struct echo *e = echo_new(true);
	char path[] = "/tmp/umdev-stream-XXXXXX";
	uint64_t sent = 0, begin = kill_now_ms(), end;
	int fds[2], file = mkstemp(path);
	struct stat st = { 0 };
	uint8_t data[5000];
	pid_t keeper;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	e->fd[0] = fds[0];
	e->fd[1] = file;
	e->flags[0] = READ;
	e->flags[1] = WRITE;
	e->n = 2;
	keeper = kill_start(&e->ring, KILL_US, serve, e);
	while (!is_enough(e, begin)) {
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = byte_at(sent + i);
		assert_int_equal(write(fds[1], data, sizeof(data)), sizeof(data));
		sent += sizeof(data);
	}
	end = kill_now_ms() + 10000;
	while ((uint64_t)st.st_size < sent && kill_now_ms() < end) {
		poll(NULL, 0, 5);
		assert_int_equal(fstat(file, &st), 0);
	}
	poll(NULL, 0, 30);
	assert_int_equal(kill_stop(&e->ring, keeper), 0);
	assert_int_equal(fstat(file, &st), 0);
	assert_int_equal(st.st_size, sent);
	for (uint64_t at = 0; at < sent; at += sizeof(data)) {
		assert_int_equal(pread(file, data, sizeof(data), at), sizeof(data));
		for (size_t i = 0; i < sizeof(data); i++)
			assert_int_equal(data[i], byte_at(at + i));
	}
	assert_true(e->ring.kills >= MIN_KILLS);
	print_message("file: %u kills, %llu bytes\n", e->ring.kills, (unsigned long long)sent);
	close(fds[0]);
	close(fds[1]);
	close(file);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pty_is_exactly_once),
		cmocka_unit_test(pty_is_exactly_once_without_root),
		cmocka_unit_test(pipes_are_exactly_once),
		cmocka_unit_test(socket_is_exactly_once),
		cmocka_unit_test(accepted_connection_is_exactly_once),
		cmocka_unit_test(file_gets_every_byte_once),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
