/* SPDX-License-Identifier: MIT */
/* base/conn over socket pairs: framing, descriptors, back pressure, inherited states. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/ab.h"
#include "base/conn.h"

/* Test frames: u32 length, header included, then bytes. */
static int64_t frame_len(const uint8_t *data, size_t have)
{
	uint32_t len;

	if (have < sizeof(len))
		return 0;
	memcpy(&len, data, sizeof(len));
	return len < sizeof(len) ? -EPROTO : (int64_t)len;
}

struct side {
	struct conn conn;
	struct conn_shared *shared;
	struct conn_cursor cur;
	int peer; /* the other end, plain */
};

static struct side *side_new(void)
{
	struct side *s = calloc(1, sizeof(*s));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	s->shared = calloc(1, sizeof(*s->shared));
	s->cur = (struct conn_cursor)CONN_CURSOR_INIT;
	s->peer = fds[1];
	conn_attach_fresh(&s->conn, s->shared, &s->cur, fds[0], frame_len);
	return s;
}

static void side_free(struct side *s)
{
	conn_close(&s->conn, &s->cur);
	close(s->peer);
	free(s->shared);
	free(s);
}

/* Another process takes over: only the shared memory and the committed cursor are left. */
static void side_succeed(struct side *s)
{
	memset(&s->conn, 0xee, sizeof(s->conn));
	assert_int_equal(conn_attach_resume(&s->conn, s->shared, &s->cur, frame_len), 0);
}

static size_t put_frame(uint8_t *at, uint32_t len, uint8_t fill)
{
	memcpy(at, &len, sizeof(len));
	memset(at + sizeof(len), fill, len - sizeof(len));
	return len;
}

static void peer_send(struct side *s, const void *data, size_t len, const int *fds, unsigned n_fds)
{
	_Alignas(16) uint8_t control[CMSG_SPACE(CONN_FDS * sizeof(int))];
	struct iovec iov = { (void *)data, len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *c;

		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(s->peer, &hdr, 0), len);
}

static struct conn_msg expect_frame(struct side *s, uint32_t len, uint8_t fill, unsigned n_fds)
{
	struct conn_msg msg;

	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), 1);
	assert_int_equal(msg.len, len);
	if (len > 4) {
		assert_int_equal(msg.data[4], fill);
		assert_int_equal(msg.data[len - 1], fill);
	}
	assert_int_equal(msg.n_fds, n_fds);
	conn_consume(&s->cur, &msg);
	return msg;
}

static void expect_nothing(struct side *s)
{
	struct conn_msg msg;

	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), 0);
}

static void close_fds(const struct conn_msg *msg)
{
	for (unsigned i = 0; i < msg->n_fds; i++)
		assert_int_equal(close(msg->fds[i]), 0);
}

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void message_arrives_byte_by_byte(void **state)
{
	struct side *s = side_new();
	uint8_t frame[20];

	put_frame(frame, sizeof(frame), 7);
	for (size_t i = 0; i < sizeof(frame); i++) {
		expect_nothing(s);
		peer_send(s, frame + i, 1, NULL, 0);
		assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
		side_succeed(s);
	}
	expect_frame(s, sizeof(frame), 7, 0);
	expect_nothing(s);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 0);
	side_free(s);
}

static void one_read_brings_many_messages_and_a_tail(void **state)
{
	struct side *s = side_new();
	uint8_t data[4096];
	size_t len = 0;

	for (int i = 0; i < 100; i++)
		len += put_frame(data + len, 4 + i % 7, i);
	put_frame(data + len, 50, 200);
	peer_send(s, data, len + 30, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	for (int i = 0; i < 100; i++)
		expect_frame(s, 4 + i % 7, i, 0);
	expect_nothing(s);
	peer_send(s, data + len + 30, 20, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, 50, 200, 0);
	side_free(s);
}

static void largest_message_passes_and_a_longer_one_does_not(void **state)
{
	struct side *s = side_new();
	uint8_t *data = malloc(CONN_MSG_MAX + 1);
	struct conn_msg msg;
	uint32_t len = CONN_MSG_MAX + 1;

	put_frame(data, CONN_MSG_MAX, 9);
	peer_send(s, data, CONN_MSG_MAX, NULL, 0);
	while (conn_peek(&s->conn, &s->cur, &msg) == 0)
		assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, CONN_MSG_MAX, 9, 0);
	peer_send(s, &len, sizeof(len), NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), -EMSGSIZE);
	free(data);
	side_free(s);
}

static void bad_framing_is_reported_behind_good_messages(void **state)
{
	struct side *s = side_new();
	struct conn_msg msg;
	uint8_t data[64];
	size_t len = put_frame(data, 10, 1);
	uint32_t bad = 3;

	memcpy(data + len, &bad, sizeof(bad));
	peer_send(s, data, len + sizeof(bad), NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, 10, 1, 0);
	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), -EPROTO);
	side_free(s);
}

static void hang_up_is_seen_after_the_last_message(void **state)
{
	struct side *s = side_new();
	uint8_t frame[8];

	put_frame(frame, sizeof(frame), 3);
	peer_send(s, frame, sizeof(frame), NULL, 0);
	shutdown(s->peer, SHUT_WR);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, sizeof(frame), 3, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), -ECONNRESET);
	assert_int_equal(conn_receive(&s->conn, &s->cur), -ECONNRESET);
	side_free(s);
}

static void descriptors_belong_to_the_last_message_of_the_read(void **state)
{
	struct side *s = side_new();
	int fds[2] = { STDIN_FILENO, STDOUT_FILENO };
	unsigned before = open_fds();
	uint8_t data[64];
	struct conn_msg msg;
	size_t len = put_frame(data, 10, 1);

	len += put_frame(data + len, 12, 2);
	peer_send(s, data, len, NULL, 0);
	put_frame(data, 14, 3);
	peer_send(s, data, 14, fds, 2); /* one read brings all three */
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, 10, 1, 0);
	side_succeed(s);
	expect_frame(s, 12, 2, 0);
	msg = expect_frame(s, 14, 3, 2);
	assert_true(fcntl(msg.fds[0], F_GETFD) & FD_CLOEXEC);
	close_fds(&msg);
	assert_int_equal(open_fds(), before);
	side_free(s);
}

static void descriptors_wait_for_the_rest_of_their_message(void **state)
{
	struct side *s = side_new();
	int fds[3] = { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO };
	uint8_t data[64];
	struct conn_msg msg;
	size_t len = put_frame(data, 20, 1);

	put_frame(data + len, 10, 2);
	peer_send(s, data, 3, fds, 3);
	for (size_t i = 3; i < 20; i += 4) {
		assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
		side_succeed(s);
		expect_nothing(s);
		peer_send(s, data + i, i + 4 < 20 ? 4 : 20 - i, NULL, 0);
	}
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	peer_send(s, data + len, 10, fds, 1);
	msg = expect_frame(s, 20, 1, 3);
	close_fds(&msg);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	msg = expect_frame(s, 10, 2, 1);
	close_fds(&msg);
	side_free(s);
}

static void as_many_descriptors_as_the_kernel_passes(void **state)
{
	struct side *s = side_new();
	unsigned before = open_fds();
	int fds[CONN_FDS];
	uint8_t data[8];
	struct conn_msg msg;

	for (int i = 0; i < CONN_FDS; i++)
		fds[i] = STDIN_FILENO;
	put_frame(data, 8, 1);
	peer_send(s, data, 8, fds, CONN_FDS);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	msg = expect_frame(s, 8, 1, CONN_FDS);
	close_fds(&msg);
	assert_int_equal(open_fds(), before);
	side_free(s);
}

static void descriptors_without_a_message_break_the_rule(void **state)
{
	struct side *s = side_new();
	unsigned before = open_fds();
	int fd = STDIN_FILENO;
	uint8_t data[64];
	struct conn_msg msg;

	put_frame(data, 20, 1);
	peer_send(s, data, 10, &fd, 1);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_nothing(s);
	peer_send(s, data + 10, 5, &fd, 1); /* a second set for the same message */
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), -EPROTO);
	side_succeed(s);
	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), -EPROTO);
	conn_close(&s->conn, &s->cur); /* closes the socket and both descriptors */
	assert_int_equal(open_fds(), before - 1);
	side_free(s);
}

static void descriptors_lost_to_a_full_table_are_an_error_and_no_leak(void **state)
{
	struct side *s = side_new();
	unsigned before = open_fds();
	struct rlimit limit, tight;
	int fds[4] = { 0 }, next = dup(0);
	struct conn_msg msg;
	uint8_t data[8];

	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	tight = limit;
	tight.rlim_cur = next + 2; /* room for two of the four */
	put_frame(data, 8, 1);
	peer_send(s, data, 8, fds, 4);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(open_fds() > before);
	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), -EMFILE);
	side_succeed(s);
	assert_int_equal(conn_peek(&s->conn, &s->cur, &msg), -EMFILE);
	conn_close(&s->conn, &s->cur);
	assert_int_equal(open_fds(), before - 1);
	side_free(s);
}

static void count_fd(void *arg, int fd)
{
	assert_true(fcntl(fd, F_GETFD) >= 0);
	++*(unsigned *)arg;
}

static void state_names_exactly_what_is_not_consumed(void **state)
{
	struct side *s = side_new();
	int fds[2] = { STDIN_FILENO, STDIN_FILENO };
	struct conn_msg msg;
	uint8_t data[16];
	unsigned n = 0;

	put_frame(data, 16, 1);
	peer_send(s, data, 8, fds, 2);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	conn_each_fd(&s->conn, &s->cur, count_fd, &n);
	assert_int_equal(n, 3);
	expect_nothing(s);
	peer_send(s, data + 8, 8, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	n = 0;
	conn_each_fd(&s->conn, &s->cur, count_fd, &n);
	assert_int_equal(n, 3);
	msg = expect_frame(s, 16, 1, 2);
	n = 0;
	conn_each_fd(&s->conn, &s->cur, count_fd, &n);
	assert_int_equal(n, 1);
	close_fds(&msg);
	side_free(s);
}

/* One transaction that commits a reply of len bytes. False: no room. */
static bool reply(struct side *s, size_t len, uint8_t first, int fd)
{
	struct conn_cursor next = s->cur;
	uint8_t *p;

	if (fd >= 0 && conn_reserve_fd(&s->conn, &next, fd))
		return false;
	p = conn_reserve(&s->conn, &next, len);
	if (!p)
		return false;
	for (size_t i = 0; i < len; i++)
		p[i] = first + i * 7;
	s->cur = next;
	return true;
}

static void peer_expects(struct side *s, size_t len, uint8_t first)
{
	uint8_t *got = malloc(len);

	assert_int_equal(recv(s->peer, got, len, MSG_WAITALL), len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(got[i], (uint8_t)(first + i * 7));
	free(got);
}

static void partial_sends_resume_byte_exact(void **state)
{
	struct side *s = side_new();
	int small = 4608, partial = 0, r;
	const size_t len = 200000;
	uint8_t *got = malloc(len);
	size_t have = 0;

	setsockopt(s->shared->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	assert_true(reply(s, len, 11, -1));
	while ((r = conn_flush(&s->conn, &s->cur)) == 0) {
		ssize_t n;

		assert_false(conn_is_flushed(&s->conn, &s->cur));
		side_succeed(s);
		while ((n = recv(s->peer, got + have, 1000, MSG_DONTWAIT)) > 0)
			have += n;
		partial++;
	}
	assert_int_equal(r, 1);
	assert_true(partial > 10);
	while (have < len)
		have += recv(s->peer, got + have, len - have, 0);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(got[i], (uint8_t)(11 + i * 7));
	assert_int_equal(recv(s->peer, got, 1, MSG_DONTWAIT), -1);
	free(got);
	side_free(s);
}

static void full_buffer_refuses_until_flushed(void **state)
{
	struct side *s = side_new();

	assert_true(reply(s, CONN_TX_SIZE - 100, 1, -1));
	assert_false(reply(s, 200, 2, -1));
	assert_true(reply(s, 100, 2, -1));
	assert_false(reply(s, 1, 3, -1));
	while (conn_flush(&s->conn, &s->cur) == 0) {
		static uint8_t sink[4096];

		assert_true(recv(s->peer, sink, sizeof(sink), 0) > 0);
	}
	assert_true(reply(s, CONN_TX_SIZE, 3, -1));
	side_free(s);
}

static void shortened_reply_leaves_nothing_behind(void **state)
{
	struct side *s = side_new();
	struct conn_cursor next = s->cur;
	uint8_t *p = conn_reserve(&s->conn, &next, 100);

	memset(p, 42, 100);
	conn_unreserve(&next, 90);
	s->cur = next;
	assert_true(reply(s, 5, 60, -1));
	assert_int_equal(conn_flush(&s->conn, &s->cur), 1);
	uint8_t got[16];
	assert_int_equal(recv(s->peer, got, sizeof(got), 0), 15);
	assert_int_equal(got[9], 42);
	assert_int_equal(got[10], 60);
	side_free(s);
}

static void uncommitted_reply_is_never_sent(void **state)
{
	struct side *s = side_new();
	struct conn_cursor next = s->cur;

	memset(conn_reserve(&s->conn, &next, 10), 1, 10);
	side_succeed(s);
	assert_int_equal(conn_flush(&s->conn, &s->cur), 1);
	for (int i = 0; i < 3; i++) {
		assert_true(reply(s, 10, 50 + i, -1));
		side_succeed(s);
		assert_int_equal(conn_flush(&s->conn, &s->cur), 1);
		side_succeed(s);
		peer_expects(s, 10, 50 + i);
	}
	side_free(s);
}

/* Length of the message and number of descriptors that one recvmsg of the peer brings. */
static ssize_t peer_recv(struct side *s, unsigned *ret_fds)
{
	_Alignas(16) uint8_t control[CMSG_SPACE(4 * sizeof(int))];
	uint8_t data[256];
	struct iovec iov = { data, sizeof(data) };
	struct msghdr hdr = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(s->peer, &hdr, MSG_DONTWAIT);

	*ret_fds = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&hdr); c; c = CMSG_NXTHDR(&hdr, c)) {
		int fd;

		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		assert_int_equal(close(fd), 0);
		*ret_fds += (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	}
	return n;
}

static void descriptor_travels_with_its_message_alone(void **state)
{
	struct side *s = side_new();
	unsigned n_fds;

	assert_true(reply(s, 10, 1, -1));
	assert_true(reply(s, 20, 2, STDIN_FILENO));
	assert_true(reply(s, 30, 3, -1));
	assert_false(reply(s, 40, 4, STDIN_FILENO)); /* one is waiting */
	assert_int_equal(conn_flush(&s->conn, &s->cur), 1);
	assert_true(reply(s, 40, 4, STDIN_FILENO));
	assert_int_equal(conn_flush(&s->conn, &s->cur), 1);
	/* A read ends behind the bytes that carried a descriptor, so each read tells. */
	assert_int_equal(peer_recv(s, &n_fds), 30);
	assert_int_equal(n_fds, 1);
	assert_int_equal(peer_recv(s, &n_fds), 70);
	assert_int_equal(n_fds, 1);
	side_free(s);
}

static void peer_that_is_gone_is_an_error_not_a_signal(void **state)
{
	struct side *s = side_new();

	shutdown(s->peer, SHUT_RD);
	assert_true(reply(s, 10, 1, -1));
	assert_int_equal(conn_flush(&s->conn, &s->cur), -EPIPE);
	side_free(s);
}

static void executions_are_counted_per_message(void **state)
{
	struct side *s = side_new();
	uint8_t data[16];

	put_frame(data, 8, 1);
	put_frame(data + 8, 8, 2);
	peer_send(s, data, 16, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	assert_int_equal(conn_try(&s->conn, &s->cur), 1);
	side_succeed(s);
	assert_int_equal(conn_try(&s->conn, &s->cur), 2);
	side_succeed(s);
	conn_untry(&s->conn);
	assert_int_equal(conn_try(&s->conn, &s->cur), 2);
	expect_frame(s, 8, 1, 0);
	assert_int_equal(conn_try(&s->conn, &s->cur), 1);
	side_free(s);
}

static void next_connection_counts_on(void **state)
{
	struct side *s = side_new();
	uint8_t data[8];
	int fds[2];

	put_frame(data, 8, 1);
	peer_send(s, data, 8, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, 8, 1, 0);
	assert_true(reply(s, 10, 1, -1)); /* never sent */
	conn_close(&s->conn, &s->cur);
	side_succeed(s); /* a state without a socket can be inherited */
	close(s->peer);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	conn_attach_fresh(&s->conn, s->shared, &s->cur, fds[0], frame_len);
	s->peer = fds[1];
	peer_send(s, data, 8, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	expect_frame(s, 8, 1, 0);
	assert_true(reply(s, 12, 77, -1));
	assert_int_equal(conn_flush(&s->conn, &s->cur), 1);
	peer_expects(s, 12, 77);
	side_free(s);
}

static void impossible_states_are_refused(void **state)
{
	struct side *s = side_new();
	struct conn_shared *sh = s->shared;
	struct conn_shared *good = malloc(sizeof(*good));
	const struct conn_cursor cur = s->cur;
	uint8_t data[8];

	put_frame(data, 8, 1);
	peer_send(s, data, 8, NULL, 0);
	assert_int_equal(conn_receive(&s->conn, &s->cur), 1);
	memcpy(good, sh, sizeof(*good));
#define REFUSED(change)                                                                           \
	do {                                                                                      \
		change;                                                                           \
		assert_int_equal(conn_attach_resume(&s->conn, sh, &s->cur, frame_len), -EUCLEAN); \
		memcpy(sh, good, sizeof(*good));                                                  \
		s->cur = cur;                                                                     \
		assert_int_equal(conn_attach_resume(&s->conn, sh, &s->cur, frame_len), 0);        \
	} while (0)
	REFUSED(sh->fd = -2);
	REFUSED(sh->rxcur = 2);
	REFUSED(sh->txcur = 7);
	REFUSED(sh->rx[sh->rxcur].base = 1);
	REFUSED(sh->rx[sh->rxcur].prefix = UINT32_MAX);
	REFUSED(sh->rx[sh->rxcur].hdr.msg_len = CONN_RX_SIZE + 1);
	REFUSED(sh->rx[sh->rxcur].n_carry = 1);
	REFUSED(sh->rx[sh->rxcur].n_carry = CONN_FDS + 1);
	REFUSED(sh->rx[sh->rxcur].hdr.msg_hdr.msg_controllen = 100000);
	REFUSED(sh->rx[sh->rxcur].prefix = 1; sh->rx[sh->rxcur].n_carry = 1;
		sh->rx[sh->rxcur].carry[0] = -7);
	REFUSED(sh->rx[sh->rxcur].base = UINT64_MAX; s->cur.head = UINT64_MAX);
	REFUSED(s->cur.head = 9);
	REFUSED(s->cur.tx_base = 1);
	REFUSED(s->cur.tx_end = CONN_TX_SIZE + 1);
	REFUSED(s->cur.tx_fd = 3; s->cur.tx_fd_at = 1);
	REFUSED(s->cur.tx_fd = 3; s->cur.tx_fd_len = 1);
	REFUSED(sh->tx[sh->txcur].hdr.msg_len = 1);
#undef REFUSED
	free(good);
	side_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(message_arrives_byte_by_byte),
		cmocka_unit_test(one_read_brings_many_messages_and_a_tail),
		cmocka_unit_test(largest_message_passes_and_a_longer_one_does_not),
		cmocka_unit_test(bad_framing_is_reported_behind_good_messages),
		cmocka_unit_test(hang_up_is_seen_after_the_last_message),
		cmocka_unit_test(descriptors_belong_to_the_last_message_of_the_read),
		cmocka_unit_test(descriptors_wait_for_the_rest_of_their_message),
		cmocka_unit_test(as_many_descriptors_as_the_kernel_passes),
		cmocka_unit_test(descriptors_without_a_message_break_the_rule),
		cmocka_unit_test(descriptors_lost_to_a_full_table_are_an_error_and_no_leak),
		cmocka_unit_test(state_names_exactly_what_is_not_consumed),
		cmocka_unit_test(partial_sends_resume_byte_exact),
		cmocka_unit_test(full_buffer_refuses_until_flushed),
		cmocka_unit_test(shortened_reply_leaves_nothing_behind),
		cmocka_unit_test(uncommitted_reply_is_never_sent),
		cmocka_unit_test(descriptor_travels_with_its_message_alone),
		cmocka_unit_test(peer_that_is_gone_is_an_error_not_a_signal),
		cmocka_unit_test(executions_are_counted_per_message),
		cmocka_unit_test(next_connection_counts_on),
		cmocka_unit_test(impossible_states_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
