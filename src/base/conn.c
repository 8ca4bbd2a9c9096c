/* SPDX-License-Identifier: MIT */
/*
 * Exactly-once stream connection; conn.h has the idea and the owner's part.
 *
 * Two rules make every step here safe against SIGKILL:
 *  - a slot is filled while it is not current; one aligned store makes it current;
 *  - every receive and every send is one system call on the current slot, whose msg_len was 0
 *    before, so that what the call moved is in memory when the call is over.
 * A descriptor is first forgotten by the state and then closed: the number may be in use again
 * before a successor looks, and one that is named by nothing is closed by the owner's sweep.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/ab.h"
#include "base/conn.h"
#include "base/range.h"

static void make_current(uint32_t *which, uint32_t slot)
{
	ab_barrier();
	__atomic_store_n(which, slot, __ATOMIC_RELAXED);
	ab_barrier();
}

static struct conn_rx *rx_slot(const struct conn *c)
{
	return &c->shared->rx[c->shared->rxcur & 1];
}

static uint64_t rx_end(const struct conn_rx *rx)
{
	return rx->base + rx->prefix + rx->hdr.msg_len;
}

static uint64_t tx_sent(const struct conn *c)
{
	const struct conn_tx *tx = &c->shared->tx[c->shared->txcur & 1];

	return tx->base + tx->hdr.msg_len;
}

/* Descriptors in the control bytes of one receive; *ret has room for CONN_FDS. Inherited bytes are
 * not trusted to be what a kernel wrote. */
static unsigned control_fds(const struct conn_rx *rx, int *ret)
{
	size_t at = 0, size = rx->hdr.msg_hdr.msg_controllen;
	unsigned n = 0;

	if (!rx->hdr.msg_len)
		return 0; /* the call did not happen: the length is what it was given */
	while (size - at >= sizeof(struct cmsghdr)) {
		struct cmsghdr head;

		memcpy(&head, rx->control + at, sizeof(head));
		if (head.cmsg_len < CMSG_LEN(0) || head.cmsg_len > size - at)
			break;
		if (head.cmsg_level == SOL_SOCKET && head.cmsg_type == SCM_RIGHTS) {
			size_t count = (head.cmsg_len - CMSG_LEN(0)) / sizeof(int);

			if (count > CONN_FDS - n)
				count = CONN_FDS - n;
			memcpy(ret + n, rx->control + at + CMSG_LEN(0), count * sizeof(int));
			n += count;
		}
		if (CMSG_ALIGN(head.cmsg_len) > size - at)
			break;
		at += CMSG_ALIGN(head.cmsg_len);
	}
	return n;
}

void conn_attach_fresh(struct conn *c, struct conn_shared *shared, const struct conn_cursor *cur,
		       int fd, conn_len_fn *msg_len)
{
	assert(fd >= 0);
	shared->fd = -1;
	ab_barrier();
	shared->rxcur = shared->txcur = 0;
	shared->try_n = 0;
	shared->try_at = 0;
	memset(&shared->rx[0], 0, offsetof(struct conn_rx, buf));
	memset(&shared->tx[0], 0, sizeof(shared->tx[0]));
	shared->rx[0].base = cur->head;
	shared->tx[0].base = cur->tx_end;
	ab_barrier();
	shared->fd = fd;
	*c = (struct conn){ .shared = shared, .msg_len = msg_len, .last_start = cur->head };
}

static bool rx_is_possible(const struct conn_rx *rx, const struct conn_cursor *cur)
{
	return rx->prefix <= CONN_MSG_MAX && rx->hdr.msg_len <= CONN_RX_SIZE - rx->prefix &&
	       rx->n_carry <= CONN_FDS && rx->hdr.msg_hdr.msg_controllen <= sizeof(rx->control) &&
	       range_is_sane(rx->base, 2 * CONN_RX_SIZE) && cur->head >= rx->base &&
	       cur->head - rx->base <= rx->prefix + rx->hdr.msg_len && (!rx->n_carry || rx->prefix);
}

/* tx->base itself may lie before tx_base: the buffer starts again when all of it was sent. */
static bool tx_is_possible(const struct conn_tx *tx, const struct conn_cursor *cur)
{
	return range_is_sane(cur->tx_base, 2 * CONN_TX_SIZE) && cur->tx_end >= cur->tx_base &&
	       cur->tx_end - cur->tx_base <= CONN_TX_SIZE &&
	       range_fits(tx->base, tx->hdr.msg_len, cur->tx_end) &&
	       tx->base + tx->hdr.msg_len >= cur->tx_base && cur->tx_fd >= -1 &&
	       (cur->tx_fd < 0 || range_fits(cur->tx_fd_at, cur->tx_fd_len, cur->tx_end));
}

/* Everything that the state names: the socket first, then what was received and not consumed,
 * whether or not a message may have it. *ret has room for CONN_MAX_NAMED. */
#define CONN_MAX_NAMED (1 + 2 * CONN_FDS)
static unsigned named_fds(const struct conn_shared *shared, const struct conn_cursor *cur, int *ret)
{
	const struct conn_rx *rx = &shared->rx[shared->rxcur & 1];
	unsigned n = 0;

	if (shared->fd < 0)
		return 0;
	ret[n++] = shared->fd;
	if (cur->head == rx->base)
		for (unsigned i = 0; i < rx->n_carry; i++)
			ret[n++] = rx->carry[i];
	if (cur->head < rx_end(rx))
		n += control_fds(rx, ret + n);
	return n;
}

int conn_attach_resume(struct conn *c, struct conn_shared *shared, const struct conn_cursor *cur,
		       conn_len_fn *msg_len)
{
	int fds[CONN_MAX_NAMED];
	unsigned n;

	if (shared->fd < -1)
		return -EUCLEAN;
	if (shared->fd >= 0 && (shared->rxcur > 1 || shared->txcur > 1 ||
				!rx_is_possible(&shared->rx[shared->rxcur], cur) ||
				!tx_is_possible(&shared->tx[shared->txcur], cur)))
		return -EUCLEAN;
	n = named_fds(shared, cur, fds);
	for (unsigned i = 0; i < n; i++)
		if (fds[i] < 0)
			return -EUCLEAN;
	*c = (struct conn){ .shared = shared, .msg_len = msg_len, .last_start = cur->head };
	return 0;
}

void conn_each_fd(struct conn *c, const struct conn_cursor *cur, void (*fn)(void *, int), void *arg)
{
	int fds[CONN_MAX_NAMED];
	unsigned n = named_fds(c->shared, cur, fds);

	for (unsigned i = 0; i < n; i++)
		fn(arg, fds[i]);
}

void conn_close(struct conn *c, const struct conn_cursor *cur)
{
	int fds[CONN_MAX_NAMED];
	unsigned n = named_fds(c->shared, cur, fds);

	c->shared->fd = -1; /* forgets the slots too */
	ab_barrier();
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* Start of the last message that starts before `end`; head < end. Remembers where it got to, so a
 * buffer full of small messages is walked once and not once per message. */
static uint64_t last_message(struct conn *c, const struct conn_cursor *cur, uint64_t end)
{
	const struct conn_rx *rx = rx_slot(c);
	uint64_t at = c->last_start > cur->head ? c->last_start : cur->head;

	for (;;) {
		int64_t len = c->msg_len(rx->buf + (at - rx->base), end - at);

		if (len <= 0 || (uint64_t)len >= end - at)
			break;
		at += len;
	}
	c->last_start = at;
	return at;
}

/* c->fds becomes what belongs to the message at cur->head, which starts before the received end.
 * The number of them or -errno. */
static int message_fds(struct conn *c, const struct conn_cursor *cur)
{
	const struct conn_rx *rx = rx_slot(c);
	uint64_t last, end = rx_end(rx);
	unsigned n = 0;

	if (cur->head == rx->base) {
		n = rx->n_carry;
		memcpy(c->fds, rx->carry, n * sizeof(int));
	}
	if (!rx->hdr.msg_len)
		return n;
	if (rx->hdr.msg_hdr.msg_flags & MSG_CTRUNC)
		return -EMFILE; /* our table was full: which message lost some is unknown */
	if (rx->hdr.msg_hdr.msg_controllen < CMSG_LEN(0))
		return n;
	last = last_message(c, cur, end);
	if (last < rx->base + rx->prefix)
		return -EPROTO;
	return last == cur->head ? (int)control_fds(rx, c->fds) : (int)n;
}

int conn_peek(struct conn *c, const struct conn_cursor *cur, struct conn_msg *ret)
{
	const struct conn_rx *rx = rx_slot(c);
	uint64_t have = rx_end(rx) - cur->head;
	const uint8_t *data = rx->buf + (cur->head - rx->base);
	int64_t len;
	int n_fds;

	if (!have)
		return 0;
	len = c->msg_len(data, have);
	if (len < 0)
		return len;
	if (len > CONN_MSG_MAX || (!len && have >= CONN_MSG_MAX))
		return -EMSGSIZE;
	n_fds = message_fds(c, cur);
	if (n_fds < 0)
		return n_fds;
	if (!len || (uint64_t)len > have)
		return 0;
	*ret = (struct conn_msg){ .data = data, .len = len, .fds = c->fds, .n_fds = n_fds };
	return 1;
}

/* The spare slot continues the current one: its unconsumed bytes and their descriptors. */
static struct conn_rx *next_rx(struct conn *c, const struct conn_cursor *cur)
{
	const struct conn_rx *rx = rx_slot(c);
	struct conn_rx *next = &c->shared->rx[(c->shared->rxcur & 1) ^ 1];
	size_t tail = rx_end(rx) - cur->head;
	int n_fds = tail ? message_fds(c, cur) : 0;

	assert(n_fds >= 0 && tail < CONN_MSG_MAX); /* else conn_peek did not say 0 */
	next->base = cur->head;
	next->prefix = tail;
	memcpy(next->buf, rx->buf + (cur->head - rx->base), tail);
	next->n_carry = n_fds;
	memcpy(next->carry, c->fds, n_fds * sizeof(int));
	next->iov = (struct iovec){ next->buf + tail, CONN_RX_SIZE - tail };
	next->hdr = (struct mmsghdr){ .msg_hdr = { .msg_iov = &next->iov,
						   .msg_iovlen = 1,
						   .msg_control = next->control,
						   .msg_controllen = sizeof(next->control) } };
	return next;
}

int conn_receive(struct conn *c, const struct conn_cursor *cur)
{
	struct conn_rx *rx = next_rx(c, cur);

	make_current(&c->shared->rxcur, rx - c->shared->rx);
	if (recvmmsg(c->shared->fd, &rx->hdr, 1, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL) == 1)
		return rx->hdr.msg_len ? 1 : -ECONNRESET;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

unsigned conn_try(struct conn *c, const struct conn_cursor *cur)
{
	struct conn_shared *s = c->shared;

	if (s->try_at != cur->head) {
		s->try_n = 0;
		ab_barrier();
		s->try_at = cur->head;
	}
	ab_barrier();
	s->try_n++;
	ab_barrier();
	return s->try_n;
}

void conn_untry(struct conn *c)
{
	if (c->shared->try_n)
		c->shared->try_n--;
}

void conn_consume(struct conn_cursor *next, const struct conn_msg *msg)
{
	next->head += msg->len;
}

void *conn_reserve(struct conn *c, struct conn_cursor *next, size_t len)
{
	if (tx_sent(c) == next->tx_end)
		next->tx_base = next->tx_end; /* nothing waits: start the buffer again */
	if (!range_fits(next->tx_end - next->tx_base, len, CONN_TX_SIZE))
		return NULL;
	if (next->tx_fd >= 0 && next->tx_fd_at == next->tx_end)
		next->tx_fd_len = len;
	next->tx_end += len;
	return c->shared->tx_buf + (next->tx_end - len - next->tx_base);
}

int conn_reserve_fd(struct conn *c, struct conn_cursor *next, int fd)
{
	if (next->tx_fd >= 0 && tx_sent(c) <= next->tx_fd_at && next->tx_fd_at < next->tx_end)
		return -EAGAIN;
	next->tx_fd = fd;
	next->tx_fd_at = next->tx_end;
	next->tx_fd_len = 0;
	return 0;
}

void conn_unreserve(struct conn_cursor *next, size_t n)
{
	next->tx_end -= n;
	if (next->tx_fd < 0)
		return;
	if (next->tx_end < next->tx_fd_at)
		next->tx_fd = -1;
	else if (next->tx_end - next->tx_fd_at < next->tx_fd_len)
		next->tx_fd_len = next->tx_end - next->tx_fd_at;
}

/* Fills the spare slot with what one call may send from `sent` on: a message with a descriptor
 * travels in a call of its own, because the receiver gives it to the last message of a read. */
static struct conn_tx *next_tx(struct conn *c, const struct conn_cursor *cur, uint64_t sent)
{
	struct conn_tx *tx = &c->shared->tx[(c->shared->txcur & 1) ^ 1];
	uint64_t end = cur->tx_end;
	bool with_fd = cur->tx_fd >= 0 && sent == cur->tx_fd_at;

	if (cur->tx_fd >= 0 && sent < cur->tx_fd_at && cur->tx_fd_at < end)
		end = cur->tx_fd_at;
	else if (cur->tx_fd >= 0 && sent >= cur->tx_fd_at && sent - cur->tx_fd_at < cur->tx_fd_len)
		end = cur->tx_fd_at + cur->tx_fd_len;
	tx->base = sent;
	tx->iov = (struct iovec){ c->shared->tx_buf + (sent - cur->tx_base), end - sent };
	tx->hdr = (struct mmsghdr){ .msg_hdr = { .msg_iov = &tx->iov, .msg_iovlen = 1 } };
	if (with_fd) {
		struct cmsghdr head = { .cmsg_len = CMSG_LEN(sizeof(int)),
					.cmsg_level = SOL_SOCKET,
					.cmsg_type = SCM_RIGHTS };

		memcpy(tx->control, &head, sizeof(head));
		memcpy(tx->control + CMSG_LEN(0), &cur->tx_fd, sizeof(int));
		tx->hdr.msg_hdr.msg_control = tx->control;
		tx->hdr.msg_hdr.msg_controllen = sizeof(tx->control);
	}
	return tx;
}

int conn_flush(struct conn *c, const struct conn_cursor *cur)
{
	while (!conn_is_flushed(c, cur)) {
		struct conn_tx *tx = next_tx(c, cur, tx_sent(c));

		make_current(&c->shared->txcur, tx - c->shared->tx);
		if (sendmmsg(c->shared->fd, &tx->hdr, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	}
	return 1;
}

bool conn_is_flushed(const struct conn *c, const struct conn_cursor *cur)
{
	return tx_sent(c) == cur->tx_end;
}
