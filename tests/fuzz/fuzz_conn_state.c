/* SPDX-License-Identifier: MIT */
/*
 * A successor inherits conn state from a life that may have been taken over by its client: any
 * state is refused, or used without a step outside of it.
 * Input: cursor, slot numbers, the two current slots' headers, then received bytes.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t frame_len(const uint8_t *data, size_t have)
{
	uint32_t len;

	if (have < sizeof(len))
		return 0;
	memcpy(&len, data, sizeof(len));
	return len < sizeof(len) ? -1 : (int64_t)len;
}

static void take(const uint8_t **data, size_t *left, void *to, size_t len)
{
	size_t n = len < *left ? len : *left;

	memcpy(to, *data, n);
	*data += n;
	*left -= n;
}

static void visit(void *arg, int fd)
{
	if (fd < 0)
		abort();
	++*(unsigned *)arg;
}

/* What an owner does: take every message, answer it, receive more, send. */
static void use(struct conn *c, struct conn_cursor *cur)
{
	struct conn_msg msg;
	unsigned n = 0;

	conn_each_fd(c, cur, visit, &n);
	for (int i = 0; i < 64 && conn_peek(c, cur, &msg) == 1; i++) {
		uint8_t *reply = conn_reserve(c, cur, 100);

		if (reply)
			memset(reply, msg.data[msg.len - 1], 100);
		conn_try(c, cur);
		conn_consume(cur, &msg);
	}
	if (conn_peek(c, cur, &msg) == 0)
		conn_receive(c, cur);
	conn_flush(c, cur);
	n = 0;
	conn_each_fd(c, cur, visit, &n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conn_shared *shared;
	struct conn_cursor cur = CONN_CURSOR_INIT;
	struct conn c;
	int fds[2];

	if (!shared)
		shared = malloc(sizeof(*shared));
	if (!shared || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return 0;
	memset(shared, 0, sizeof(*shared));
	take(&data, &size, &cur, sizeof(cur));
	take(&data, &size, &shared->rxcur, 2 * sizeof(uint32_t));
	take(&data, &size, &shared->rx[shared->rxcur & 1], offsetof(struct conn_rx, buf));
	take(&data, &size, &shared->tx[shared->txcur & 1], sizeof(struct conn_tx));
	take(&data, &size, shared->rx[shared->rxcur & 1].buf, CONN_RX_SIZE);
	shared->fd = fds[0];
	if (cur.tx_fd >= 0)
		cur.tx_fd = fds[1]; /* a number that is open */
	if (!conn_attach_resume(&c, shared, &cur, frame_len))
		use(&c, &cur);
	close(fds[0]);
	close(fds[1]);
	return 0;
}
