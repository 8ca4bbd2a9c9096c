/* SPDX-License-Identifier: MIT */
/* device/stream against real ptys, sockets and files, one life: flow, back pressure, no spinning.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/sock.h"
#include "device/device.h"

#define RW (UMDEV_RES_STREAM | UMDEV_RES_READ | UMDEV_RES_WRITE)

static const struct umdev_device_type type = { .name = "t" };

struct fixture {
	struct loop loop;
	struct loop_timer stop;
	struct umdev_device dev;
	struct stream_shared shared[UMDEV_MAX_STREAMS];
	unsigned events;
	bool consume; /* the device takes input as it comes */
	uint8_t got[4 * UMDEV_STREAM_BYTES];
	size_t n_got;
	struct device_half half; /* last: the driver has no state */
};

static void on_event(struct stream *s)
{
	struct fixture *f = container_of(s->dev, struct fixture, dev);

	f->events++;
	while (f->consume && umdev_stream_avail(s->dev, s->index))
		f->n_got += umdev_stream_read(s->dev, s->index, f->got + f->n_got,
					      sizeof(f->got) - f->n_got);
	device_streams_kick(s->dev);
}

static struct fixture *fixture_new(int fd, uint32_t flags)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct uuid uuid = { { 1 } };

	assert_int_equal(loop_init(&f->loop), 0);
	assert_int_equal(device_init(&f->dev, NULL, &type, &uuid), 0);
	f->dev.stream_shared = f->shared;
	f->dev.half = &f->half;
	f->consume = true;
	assert_int_equal(device_add_resource(&f->dev, "port0", fd, flags, 0, 0, NULL), 0);
	assert_int_equal(device_streams_attach(&f->dev, UMDEV_FRESH, NULL), 0);
	assert_int_equal(device_streams_start(&f->dev, &f->loop, on_event), 0);
	return f;
}

static void fixture_free(struct fixture *f)
{
	if (f->shared[0].peer_fd > 0)
		close(f->shared[0].peer_fd);
	device_fini(&f->dev);
	loop_timer_cancel(&f->stop);
	loop_fini(&f->loop);
	free(f);
}

static void on_stop(struct loop_timer *timer)
{
	loop_stop(timer->loop, 0);
}

static void run_ms(struct fixture *f, unsigned ms)
{
	loop_timer_arm(&f->loop, &f->stop, ms * 1000000ULL, on_stop);
	assert_int_equal(loop_run(&f->loop), 0);
}

static size_t give(struct fixture *f, size_t len, uint8_t first)
{
	uint8_t data[2 * UMDEV_STREAM_BYTES];

	for (size_t i = 0; i < len; i++)
		data[i] = first + i;
	len = umdev_stream_write(&f->dev, 0, data, len);
	device_streams_kick(&f->dev);
	return len;
}

/* The device goes on between the reads: a pty holds less than a ring, how much is the kernel's. */
static void expect_bytes(struct fixture *f, int fd, size_t len, uint8_t first)
{
	uint8_t data[2 * UMDEV_STREAM_BYTES];
	unsigned waits = 0;
	size_t got = 0;

	while (got < len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (poll(&p, 1, 0) == 0) {
			assert_true(waits++ < 1000); /* else a byte was lost */
			run_ms(f, 10);
			continue;
		}
		n = read(fd, data + got, len - got);

		assert_true(n > 0);
		got += n;
	}
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], (uint8_t)(first + i));
}

/* A busy machine, and a pty that is asked ever more rarely, take their time. */
static void expect_got(struct fixture *f, size_t len, uint8_t first)
{
	for (unsigned i = 0; i < 200 && f->n_got < len; i++)
		run_ms(f, 10);
	assert_int_equal(f->n_got, len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(f->got[i], (uint8_t)(first + i));
	f->n_got = 0;
}

static void send_bytes(int fd, size_t len, uint8_t first)
{
	uint8_t data[2 * UMDEV_STREAM_BYTES];

	for (size_t i = 0; i < len; i++)
		data[i] = first + i;
	assert_int_equal(write(fd, data, len), len);
}

static int pty_new(char name[64])
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY), slave;
	struct termios t;

	assert_true(fd >= 0 && !unlockpt(fd) && !ptsname_r(fd, name, 64));
	slave = open(name, O_RDWR | O_NOCTTY);
	assert_int_equal(tcgetattr(slave, &t), 0);
	cfmakeraw(&t);
	assert_int_equal(tcsetattr(slave, TCSANOW, &t), 0);
	close(slave);
	return fd;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void pty_carries_both_ways(void **state)
{
	char name[64];
	int fd = pty_new(name), slave = open(name, O_RDWR | O_NOCTTY);
	struct fixture *f = fixture_new(fd, RW | UMDEV_RES_PTY);

	assert_int_equal(give(f, 1000, 3), 1000);
	run_ms(f, 30);
	expect_bytes(f, slave, 1000, 3);
	send_bytes(slave, 500, 9);
	run_ms(f, 30);
	expect_got(f, 500, 9);
	close(slave);
	fixture_free(f);
	close(fd);
}

static void unopened_pty_keeps_output_up_to_the_ring_without_spinning(void **state)
{
	char name[64];
	int fd = pty_new(name), slave;
	struct fixture *f = fixture_new(fd, RW | UMDEV_RES_PTY);
	uint64_t cpu;

	assert_int_equal(give(f, UMDEV_STREAM_BYTES + 100, 0), UMDEV_STREAM_BYTES);
	run_ms(f, 50);
	assert_int_equal(umdev_stream_space(&f->dev, 0), 0); /* back pressure */
	cpu = cpu_ns();
	run_ms(f, 400);
	assert_true(cpu_ns() - cpu < 40000000); /* a tenth of a CPU is far above what is right */
	slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	run_ms(f, 300);
	assert_int_equal(give(f, 10, UMDEV_STREAM_BYTES % 256), 10);
	run_ms(f, 30);
	fcntl(slave, F_SETFL, 0);
	expect_bytes(f, slave, 4000, 0);
	run_ms(f, 30);
	expect_bytes(f, slave, UMDEV_STREAM_BYTES + 10 - 4000, 4000 % 256);
	close(slave);
	fixture_free(f);
	close(fd);
}

static void pty_that_was_closed_and_opened_again_goes_on(void **state)
{
	char name[64];
	int fd = pty_new(name);
	struct fixture *f = fixture_new(fd, RW | UMDEV_RES_PTY);

	for (int i = 0; i < 3; i++) {
		int slave = open(name, O_RDWR | O_NOCTTY);

		send_bytes(slave, 20, i);
		run_ms(f, 30);
		expect_got(f, 20, i);
		assert_int_equal(give(f, 30, i), 30);
		run_ms(f, 30);
		expect_bytes(f, slave, 30, i);
		close(slave);
		run_ms(f, 30);
	}
	fixture_free(f);
	close(fd);
}

static void input_that_nobody_takes_stays_with_the_sender(void **state)
{
	struct fixture *f;
	int fds[2], n = 0;
	uint8_t block[1000];
	uint64_t cpu;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f = fixture_new(fds[0], RW);
	f->consume = false;
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	memset(block, 7, sizeof(block));
	while (n < 5000 && write(fds[1], block, sizeof(block)) > 0)
		n++;
	assert_in_range(n, 20, 4999);
	run_ms(f, 30);
	assert_int_equal(umdev_stream_avail(&f->dev, 0), UMDEV_STREAM_BYTES);
	cpu = cpu_ns();
	run_ms(f, 200);
	assert_true(cpu_ns() - cpu < 20000000);
	assert_true(f->events < 5);
	fixture_free(f);
	close(fds[0]);
	close(fds[1]);
}

static void last_bytes_of_a_gone_peer_are_read_before_it_is_dropped(void **state)
{
	struct fixture *f;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f = fixture_new(fds[0], RW);
	f->consume = false;
	send_bytes(fds[1], UMDEV_STREAM_BYTES + 1000, 0);
	close(fds[1]);
	run_ms(f, 30);
	assert_int_equal(give(f, 10, 0), 10); /* meets EPIPE; must not throw the input away */
	run_ms(f, 30);
	f->consume = true;
	f->n_got = umdev_stream_read(&f->dev, 0, f->got, UMDEV_STREAM_BYTES);
	device_streams_kick(&f->dev);
	run_ms(f, 30);
	expect_got(f, UMDEV_STREAM_BYTES + 1000, 0);
	fixture_free(f);
	close(fds[0]);
}

static int listen_new(struct fixture **ret, char path[80])
{
	char dir[] = "/tmp/umdev-stream-XXXXXX";
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, 80, "%s/s", dir);
	fd = sock_listen(path, 0600);
	assert_true(fd >= 0);
	*ret = fixture_new(fd, RW | UMDEV_RES_LISTEN);
	return fd;
}

static void remove_path(char *path)
{
	unlink(path);
	*strrchr(path, '/') = 0;
	assert_int_equal(rmdir(path), 0);
}

static void listening_socket_serves_one_peer_after_the_other(void **state)
{
	char path[80];
	struct fixture *f;
	int fd = listen_new(&f, path), one = sock_connect(path), two = sock_connect(path);

	send_bytes(two, 20, 50);
	send_bytes(one, 10, 1);
	run_ms(f, 30);
	expect_got(f, 10, 1); /* the second waits */
	assert_int_equal(give(f, 5, 5), 5);
	run_ms(f, 30);
	expect_bytes(f, one, 5, 5);
	close(one);
	run_ms(f, 30);
	expect_got(f, 20, 50);
	assert_int_equal(give(f, 6, 6), 6);
	run_ms(f, 30);
	expect_bytes(f, two, 6, 6);
	close(two);
	run_ms(f, 30);
	assert_int_equal(f->shared[0].peer_fd, -1);
	fixture_free(f);
	close(fd);
	remove_path(path);
}

static void full_descriptor_table_delays_a_peer_without_spinning(void **state)
{
	char path[80];
	struct fixture *f;
	int fd = listen_new(&f, path), peer = sock_connect(path);
	struct rlimit limit, none;
	uint64_t cpu;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 3;
	send_bytes(peer, 10, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	cpu = cpu_ns();
	run_ms(f, 200);
	cpu = cpu_ns() - cpu;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(cpu < 40000000);
	assert_int_equal(f->n_got, 0);
	run_ms(f, 300);
	expect_got(f, 10, 1);
	close(peer);
	fixture_free(f);
	close(fd);
	remove_path(path);
}

static void output_waits_for_a_peer(void **state)
{
	char path[80];
	struct fixture *f;
	int fd = listen_new(&f, path), peer;

	assert_int_equal(give(f, 100, 4), 100);
	run_ms(f, 30);
	peer = sock_connect(path);
	run_ms(f, 30);
	expect_bytes(f, peer, 100, 4);
	/* A peer that sends no more may still listen. */
	shutdown(peer, SHUT_WR);
	run_ms(f, 30);
	assert_int_equal(give(f, 50, 9), 50);
	run_ms(f, 30);
	expect_bytes(f, peer, 50, 9);
	close(peer);
	fixture_free(f);
	close(fd);
	remove_path(path);
}

static void file_is_appended(void **state)
{
	char path[] = "/tmp/umdev-stream-XXXXXX";
	int fd = mkstemp(path), again;
	struct fixture *f;

	send_bytes(fd, 10, 0);
	fcntl(fd, F_SETFL, O_APPEND);
	f = fixture_new(fd, UMDEV_RES_STREAM | UMDEV_RES_WRITE);
	assert_int_equal(give(f, UMDEV_STREAM_BYTES, 10), UMDEV_STREAM_BYTES);
	run_ms(f, 30);
	assert_int_equal(give(f, 20, (10 + UMDEV_STREAM_BYTES) % 256), 20);
	run_ms(f, 30);
	again = open(path, O_RDONLY);
	expect_bytes(f, again, UMDEV_STREAM_BYTES + 30, 0);
	assert_int_equal(read(again, &(char){ 0 }, 1), 0);
	close(again);
	fixture_free(f);
	close(fd);
	unlink(path);
}

static void full_disk_is_back_pressure(void **state)
{
	int fd = open("/dev/full", O_WRONLY);
	struct fixture *f = fixture_new(fd, UMDEV_RES_STREAM | UMDEV_RES_WRITE);

	assert_int_equal(give(f, 100, 1), 100);
	run_ms(f, 50);
	assert_int_equal(umdev_stream_space(&f->dev, 0), UMDEV_STREAM_BYTES - 100);
	fixture_free(f);
	close(fd);
}

static void reset_drops_what_is_buffered(void **state)
{
	struct fixture *f;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f = fixture_new(fds[0], RW);
	f->consume = false;
	send_bytes(fds[1], 100, 1);
	run_ms(f, 30);
	assert_int_equal(give(f, 100, 1), 100);
	device_streams_reset(&f->dev);
	assert_int_equal(umdev_stream_avail(&f->dev, 0), 0);
	assert_int_equal(umdev_stream_space(&f->dev, 0), UMDEV_STREAM_BYTES);
	assert_int_equal(give(f, 20, 77), 20);
	run_ms(f, 30);
	expect_bytes(f, fds[1], 20, 77);
	fixture_free(f);
	close(fds[0]);
	close(fds[1]);
}

static void successor_wakes_the_device_once(void **state)
{
	struct fixture *f;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f = fixture_new(fds[0], RW);
	f->consume = false;
	send_bytes(fds[1], 100, 1);
	run_ms(f, 30);
	device_streams_stop(&f->dev);
	f->events = 0;
	assert_int_equal(
		device_streams_attach(&f->dev, UMDEV_RESUME, &(struct stream_last_life){ 0 }), 0);
	assert_int_equal(device_streams_start(&f->dev, &f->loop, on_event), 0);
	f->consume = true;
	run_ms(f, 30);
	assert_int_equal(f->events, 1);
	expect_got(f, 100, 1);
	fixture_free(f);
	close(fds[0]);
	close(fds[1]);
}

static void impossible_states_are_refused(void **state)
{
	struct stream_last_life last = { .known = true, .rchar = 1000, .wchar = 1000 };
	struct fixture *f;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	f = fixture_new(fds[0], RW);
	device_streams_stop(&f->dev);
#define REFUSED(...)                                                                             \
	do {                                                                                     \
		struct stream_shared good = f->shared[0];                                        \
		struct stream_shared *sh = &f->shared[0];                                        \
		__VA_ARGS__;                                                                     \
		assert_int_equal(device_streams_attach(&f->dev, UMDEV_RESUME, &last), -EUCLEAN); \
		*sh = good;                                                                      \
		assert_int_equal(device_streams_attach(&f->dev, UMDEV_RESUME, &last), 0);        \
	} while (0)
	REFUSED(sh->in_head = UMDEV_STREAM_BYTES + 1);
	REFUSED(sh->out_tail = 1);
	REFUSED(sh->op = 3);
	REFUSED(sh->peer_fd = -2);
	REFUSED(sh->file_at = UINT64_MAX);
	REFUSED(sh->op = STREAM_READING; sh->op_len = UINT32_MAX);
	REFUSED(sh->op = STREAM_READING; sh->op_len = 10; sh->op_at = 11);
	REFUSED(sh->op = STREAM_READING; sh->op_len = 10; sh->op_account = 989);
	REFUSED(sh->op = STREAM_WRITING; sh->op_len = 10; sh->op_account = 995);
#undef REFUSED
	fixture_free(f);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pty_carries_both_ways),
		cmocka_unit_test(unopened_pty_keeps_output_up_to_the_ring_without_spinning),
		cmocka_unit_test(pty_that_was_closed_and_opened_again_goes_on),
		cmocka_unit_test(input_that_nobody_takes_stays_with_the_sender),
		cmocka_unit_test(last_bytes_of_a_gone_peer_are_read_before_it_is_dropped),
		cmocka_unit_test(listening_socket_serves_one_peer_after_the_other),
		cmocka_unit_test(full_descriptor_table_delays_a_peer_without_spinning),
		cmocka_unit_test(output_waits_for_a_peer),
		cmocka_unit_test(file_is_appended),
		cmocka_unit_test(full_disk_is_back_pressure),
		cmocka_unit_test(reset_drops_what_is_buffered),
		cmocka_unit_test(successor_wakes_the_device_once),
		cmocka_unit_test(impossible_states_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
