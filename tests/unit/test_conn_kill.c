/* SPDX-License-Identifier: MIT */
/*
 * A server on base/conn that is killed hundreds of times while a client pipelines requests: every
 * request takes effect exactly once, every reply arrives once, whole and in order, and no
 * descriptor is lost or leaked.
 */
#include <poll.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <cmocka.h>
#include "base/ab.h"
#include "base/conn.h"
#include "kill.h"

#define RUN_MS 4000
#define BATCH 16
#define READ_MAX 60000
#define SERVER_FDS 900 /* the server's own table is swept below this number */

enum op {
	OP_ADD = 1, /* reply: the counter before it grew by arg */
	OP_MIX,     /* no reply: the hash depends on the order of all of these */
	OP_HASH,    /* reply: the hash */
	OP_FDS,     /* 1 to 3 descriptors; reply: sum of their inode numbers */
	OP_READ,    /* reply: arg bytes that follow from the counter */
};

struct request {
	uint32_t len, op;
	uint64_t arg;
	uint8_t pad[40]; /* some are longer than others */
};

struct reply {
	uint32_t len, serial;
	uint64_t value;
};

struct half {
	struct conn_cursor cursor;
	uint64_t counter, hash;
	uint32_t serial;
	int n_drop, drop[3]; /* descriptors that the commit made ours, to be closed */
};

struct server {
	struct kill_ring ring;
	struct ab ab;
	struct half half[2];
	int first_fd; /* descriptors below are not the server's */
	struct conn_shared conn;
};

static int64_t request_len(const uint8_t *data, size_t have)
{
	uint32_t len;

	if (have < sizeof(len))
		return 0;
	memcpy(&len, data, sizeof(len));
	return len < 16 || len > sizeof(struct request) ? -EPROTO : (int64_t)len;
}

static uint64_t mix(uint64_t hash, uint64_t arg)
{
	return (hash ^ arg) * 0x9e3779b97f4a7c15ULL + (hash >> 29);
}

static uint8_t read_byte(uint64_t counter, size_t i)
{
	return counter * 31 + i * 7 + (i >> 8);
}

/* Changes next only. */
static void execute(struct conn *c, struct half *next, const struct conn_msg *msg)
{
	struct request r = { 0 };
	struct reply *reply;
	size_t extra;

	memcpy(&r, msg->data, msg->len);
	if (r.op == OP_MIX) {
		next->hash = mix(next->hash, r.arg);
		return;
	}
	extra = r.op == OP_READ ? r.arg : 0;
	reply = conn_reserve(c, &next->cursor, sizeof(*reply) + extra);
	if (!reply)
		abort();
	*reply = (struct reply){ .len = sizeof(*reply) + extra, .serial = next->serial++ };
	reply->value = r.op == OP_HASH ? next->hash : next->counter;
	for (size_t i = 0; i < extra; i++)
		((uint8_t *)(reply + 1))[i] = read_byte(next->counter, i);
	if (r.op == OP_ADD)
		next->counter += r.arg;
	if (r.op == OP_FDS) {
		reply->value = 0;
		for (unsigned i = 0; i < msg->n_fds && i < 3; i++) {
			struct stat st;

			if (fstat(msg->fds[i], &st))
				abort();
			reply->value += st.st_ino * (i + 1);
			next->drop[next->n_drop++] = msg->fds[i];
		}
	}
}

static void finish(struct half *half)
{
	while (half->n_drop) {
		int fd = half->drop[half->n_drop - 1];

		half->n_drop--;
		ab_barrier();
		close(fd);
	}
}

static void name_fd(void *arg, int fd)
{
	if (fd < SERVER_FDS)
		((bool *)arg)[fd] = true;
}

/* Close what a life left behind between forgetting a descriptor and closing it. */
static void sweep(struct server *s, struct conn *c)
{
	bool named[SERVER_FDS] = { false };
	struct half *half = &s->half[s->ab.cur];

	conn_each_fd(c, &half->cursor, name_fd, named);
	for (int fd = s->first_fd; fd < SERVER_FDS; fd++)
		if (!named[fd])
			close(fd);
}

/* Waits for a request, or for room when replies are waiting. */
static void wait_for(struct server *s, bool flushed)
{
	struct pollfd p = { .fd = s->conn.fd, .events = flushed ? POLLIN : POLLOUT };

	poll(&p, 1, -1);
}

static void serve(void *arg, unsigned life)
{
	struct server *s = arg;
	struct conn c;
	int r;

	if (conn_attach_resume(&c, &s->conn, &s->half[s->ab.cur].cursor, request_len))
		abort();
	finish(&s->half[s->ab.cur]);
	sweep(s, &c);
	for (;;) {
		struct half *cur = &s->half[s->ab.cur], *next = &s->half[ab_spare(&s->ab)];
		struct conn_msg msg;

		r = conn_flush(&c, &cur->cursor);
		if (r < 0)
			abort();
		if (!r) {
			wait_for(s, false);
			continue;
		}
		r = conn_peek(&c, &cur->cursor, &msg);
		if (r < 0)
			abort();
		if (!r) {
			r = conn_receive(&c, &cur->cursor);
			if (r == 0)
				wait_for(s, true);
			else if (r < 0)
				pause(); /* the client is done */
			continue;
		}
		conn_try(&c, &cur->cursor);
		memcpy(next, cur, sizeof(*next));
		execute(&c, next, &msg);
		conn_consume(&next->cursor, &msg);
		ab_flip(&s->ab);
		finish(&s->half[s->ab.cur]);
	}
}

struct client {
	int fd;
	unsigned seed;
	uint64_t counter, hash, requests;
	uint32_t serial;
	struct reply want[BATCH];
	unsigned n_want;
};

static void send_request(struct client *c, struct request *r, const int *fds, unsigned n_fds)
{
	_Alignas(16) uint8_t control[CMSG_SPACE(3 * sizeof(int))];
	struct iovec iov = { r, r->len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *head = (struct cmsghdr *)control;

		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(head), fds, n_fds * sizeof(int));
	}
	/* In pieces now and then: a message that arrives in two reads. */
	if (!n_fds && rand_r(&c->seed) % 8 == 0) {
		iov.iov_len = 5;
		assert_int_equal(sendmsg(c->fd, &hdr, 0), 5);
		iov = (struct iovec){ (uint8_t *)r + 5, r->len - 5 };
	}
	assert_int_equal(sendmsg(c->fd, &hdr, 0), iov.iov_len);
	c->requests++;
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static void request_one(struct client *c)
{
	struct request r = { .op = OP_ADD + rand_r(&c->seed) % 5, .arg = rand_r(&c->seed) };
	struct reply *want = &c->want[c->n_want];
	int fds[3], n_fds = 0;

	r.len = 16 + rand_r(&c->seed) % 41;
	*want = (struct reply){ .len = sizeof(*want), .serial = c->serial };
	want->value = r.op == OP_HASH ? c->hash : c->counter;
	if (r.op == OP_READ)
		want->len += r.arg = r.arg % 4 ? r.arg % 64 : r.arg % READ_MAX;
	if (r.op == OP_ADD)
		c->counter += r.arg;
	if (r.op == OP_MIX)
		c->hash = mix(c->hash, r.arg);
	if (r.op == OP_FDS) {
		n_fds = 1 + r.arg % 3;
		want->value = 0;
		for (int i = 0; i < n_fds; i++) {
			fds[i] = memfd_create("passed", MFD_CLOEXEC);
			want->value += inode_of(fds[i]) * (i + 1);
		}
	}
	send_request(c, &r, fds, n_fds);
	for (int i = 0; i < n_fds; i++)
		close(fds[i]);
	if (r.op != OP_MIX) {
		c->n_want++;
		c->serial++;
	}
}

static void receive_all(int fd, void *data, size_t len)
{
	size_t got = 0;

	while (got < len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&p, 1, 10000), 1); /* a lost reply would hang us */
		n = recv(fd, (uint8_t *)data + got, len - got, 0);
		assert_true(n > 0);
		got += n;
	}
}

static void check_replies(struct client *c)
{
	static uint8_t data[READ_MAX];

	for (unsigned i = 0; i < c->n_want; i++) {
		const struct reply *want = &c->want[i];
		struct reply got;

		receive_all(c->fd, &got, sizeof(got));
		assert_memory_equal(&got, want, sizeof(got));
		receive_all(c->fd, data, got.len - sizeof(got));
		for (size_t k = 0; k < got.len - sizeof(got); k++)
			assert_int_equal(data[k], read_byte(want->value, k));
	}
	c->n_want = 0;
}

static unsigned fds_from(int first)
{
	unsigned n = 0;

	for (int fd = first; fd < SERVER_FDS; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void killed_server_serves_exactly_once(void **state)
{
	struct server *s = kill_shared_memory(sizeof(*s));
	struct client c = { .seed = 1 };
	int fds[2], small = 4608;
	uint64_t end = kill_now_ms() + RUN_MS;
	struct conn conn;
	pid_t keeper;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	c.fd = fds[0];
	for (int i = 0; i < 2; i++)
		s->half[i].cursor = (struct conn_cursor)CONN_CURSOR_INIT;
	conn_attach_fresh(&conn, &s->conn, &s->half[0].cursor, fds[1], request_len);
	s->first_fd = fds[1] + 1;
	keeper = kill_start(&s->ring, 12000, serve, s);
	close(fds[1]);
	/* A busy machine needs longer for kills enough. */
	while (kill_now_ms() < end || (s->ring.kills <= 100 && kill_now_ms() < end + 30000)) {
		for (unsigned n = 1 + rand_r(&c.seed) % BATCH; n; n--)
			request_one(&c);
		check_replies(&c);
	}
	/* The last question is answered after everything before it. */
	c.want[c.n_want++] = (struct reply){ sizeof(struct reply), c.serial++, c.hash };
	send_request(&c, &(struct request){ .len = 16, .op = OP_HASH }, NULL, 0);
	check_replies(&c);
	assert_int_equal(kill_stop(&s->ring, keeper), 0);
	assert_true(s->ring.kills > 100);
	assert_int_equal(s->half[s->ab.cur].counter, c.counter);
	assert_int_equal(s->half[s->ab.cur].n_drop, 0);
	print_message("%u kills, %llu requests\n", s->ring.kills, (unsigned long long)c.requests);
	close(c.fd);
}

/* The sweep of the successors is complete: nothing but the socket is left in a quiet server. */
static void probe_fds(void *arg, unsigned life)
{
	struct server *s = arg;
	struct conn c;

	if (conn_attach_resume(&c, &s->conn, &s->half[s->ab.cur].cursor, request_len))
		abort();
	finish(&s->half[s->ab.cur]);
	sweep(s, &c);
	s->ring.stop = 1;
	_exit(fds_from(s->first_fd) ? 1 : 0);
}

static void sweep_closes_what_no_state_names(void **state)
{
	struct server *s = kill_shared_memory(sizeof(*s));
	struct half *half = &s->half[0];
	struct request r = { .len = 16, .op = OP_FDS };
	struct client c = { .seed = 1 };
	int fds[2], passed[3] = { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO }, status;
	struct conn conn;
	struct conn_msg msg;
	unsigned before;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	c.fd = fds[0];
	half->cursor = (struct conn_cursor)CONN_CURSOR_INIT;
	conn_attach_fresh(&conn, &s->conn, &half->cursor, fds[1], request_len);
	s->first_fd = (fds[1] > fds[0] ? fds[1] : fds[0]) + 1;
	before = fds_from(s->first_fd); /* whatever started us may have left some open */
	send_request(&c, &r, passed, 3);
	assert_int_equal(conn_receive(&conn, &half->cursor), 1);
	assert_int_equal(fds_from(s->first_fd), before + 3); /* named by the receive slot */
	assert_int_equal(conn_peek(&conn, &half->cursor, &msg), 1);
	conn_consume(&half->cursor, &msg); /* committed, and the owner died before it took them */
	pid = fork();
	if (!pid)
		probe_fds(s, 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (unsigned i = 0; i < msg.n_fds; i++)
		close(msg.fds[i]);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_server_serves_exactly_once),
		cmocka_unit_test(sweep_closes_what_no_state_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
