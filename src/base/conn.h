/* SPDX-License-Identifier: MIT */
/*
 * A stream connection whose every message is handled exactly once, even when the process that
 * handles it is killed at any instruction and another one continues (docs/architecture.md).
 *
 * What memory cannot tell after a kill is the return value of recv and send. recvmmsg and sendmmsg
 * with vlen 1 write the count into the mmsghdr inside the call, before a signal is acted on; with
 * that header in shared memory the kernel keeps our journal. Descriptors that arrive live in the
 * descriptor table, which a keeper process shares.
 *
 * Who owns what
 *  - struct conn_shared lies in the state memory: no pointers that matter (those inside mmsghdr
 *    are rebuilt before each call), checked as untrusted input by conn_attach(.., resume).
 *  - struct conn_cursor is part of the *owner's* half (base/ab.h): the owner commits it together
 *    with whatever the message changed. head only grows.
 *  - struct conn is private to one life of the process.
 *
 * The protocol, for the owner:
 *    r = conn_peek(c, cur, &msg)       1: a whole message at cur->head
 *    next = copy of cur half;          handler changes next only
 *    p = conn_reserve(c, next, n)      optional: reply bytes, invisible until the commit
 *    conn_consume(next, &msg)          next->head += msg.len
 *    ab_flip()                         COMMIT
 *    owner's effects, each idempotent; every msg.fds[] is now stored in a table or closed
 *    conn_flush(c, cur)                sends what is committed and unsent; batches
 *  and when conn_peek said 0:  conn_receive(c, cur).
 * After a death: conn_attach(resume), the owner's effects of the current half again, conn_flush,
 * then the loop above.
 *
 * A descriptor belongs to the last message that starts in the read that brought it. A read that
 * brings descriptors but starts no message is a protocol error, as is a second set for one message.
 */
#ifndef BASE_CONN_H
#define BASE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONN_MSG_MAX (68 * 1024)        /* 64 KiB of payload and every header we know */
#define CONN_RX_SIZE (2 * CONN_MSG_MAX) /* a whole message behind any tail that was carried */
#define CONN_TX_SIZE (256 * 1024)
#define CONN_FDS 253 /* SCM_MAX_FD of Linux */

struct conn_cursor {
	uint64_t head;      /* bytes of the inbound stream that are done with */
	uint64_t tx_base;   /* outbound stream offset of tx_buf[0] */
	uint64_t tx_end;    /* bytes of the outbound stream that are committed */
	uint64_t tx_fd_at;  /* tx_fd goes with the byte at this offset */
	int32_t tx_fd;      /* borrowed descriptor for the peer, or -1; a sent one may stay here */
	uint32_t tx_fd_len; /* length of the message that starts there: it travels alone */
};
#define CONN_CURSOR_INIT    \
	{                   \
		.tx_fd = -1 \
	}

struct conn_rx {
	uint64_t base;    /* stream offset of buf[0] */
	uint32_t prefix;  /* bytes of buf that the slot before this one had received */
	uint32_t n_carry; /* descriptors that came with those bytes */
	int32_t carry[CONN_FDS];
	struct mmsghdr hdr; /* msg_len, msg_controllen, msg_flags: the kernel's journal */
	struct iovec iov;
	_Alignas(16) uint8_t control[CMSG_SPACE(CONN_FDS * sizeof(int))];
	uint8_t buf[CONN_RX_SIZE];
};

struct conn_tx {
	uint64_t base; /* stream offset at which this send started */
	struct mmsghdr hdr;
	struct iovec iov;
	_Alignas(16) uint8_t control[CMSG_SPACE(sizeof(int))];
};

struct conn_shared {
	int32_t fd;            /* the socket, or -1; owned by the owner of this state */
	uint32_t rxcur, txcur; /* which slot is current; stored like ab.cur */
	uint32_t try_n;        /* executions of the message at try_at that were begun */
	uint64_t try_at;
	struct conn_rx rx[2];
	struct conn_tx tx[2];
	uint8_t tx_buf[CONN_TX_SIZE];
};

struct conn_msg {
	const uint8_t *data; /* whole message; valid until the next conn_receive */
	size_t len;
	const int *fds; /* in order; owned by the receive slot until the commit, then the owner's */
	unsigned n_fds;
};

/*
 * Length of the message that starts with `have` bytes at `data`.
 * >0: its whole length (header included); 0: more bytes are needed to tell; -EPROTO: not a message.
 */
typedef int64_t conn_len_fn(const uint8_t *data, size_t have);

struct conn {
	struct conn_shared *shared;
	conn_len_fn *msg_len;
	int fds[CONN_FDS];   /* of the message that conn_peek returned last */
	uint64_t last_start; /* cache: a message starts here, and how far the buffer was walked */
};

/*
 * Starts to use `shared`. Descriptors arrive CLOEXEC.
 * fresh: takes fd (owned by shared from now on; an older one must have been closed). The streams
 * count on from *cur, so the owner may, but need not, begin with CONN_CURSOR_INIT; what *cur had
 * committed and not sent is dropped. May be repeated for the same fd before the first receive.
 * resume: -EUCLEAN when it is not a state that this code could have left, nothing changed. A state
 * without a socket is fine: shared->fd is -1 and only conn_close and conn_attach_fresh are legal.
 */
void conn_attach_fresh(struct conn *c, struct conn_shared *shared, const struct conn_cursor *cur,
		       int fd, conn_len_fn *msg_len);
int conn_attach_resume(struct conn *c, struct conn_shared *shared, const struct conn_cursor *cur,
		       conn_len_fn *msg_len);
/* Calls fn for every descriptor that the state names (socket, unconsumed ones). */
void conn_each_fd(struct conn *c, const struct conn_cursor *cur, void (*fn)(void *, int),
		  void *arg);
/* Closes the socket and what was received and not consumed; repeatable. */
void conn_close(struct conn *c, const struct conn_cursor *cur);

/* 1: *ret is the message at cur->head. 0: incomplete. -EPROTO: framing or descriptor rule broken;
 * -EMSGSIZE: longer than CONN_MSG_MAX; -EMFILE: descriptors were lost because the table of this
 * process is full. After an error only conn_close is legal. */
int conn_peek(struct conn *c, const struct conn_cursor *cur, struct conn_msg *ret);
/* One recvmmsg; legal when conn_peek said 0 for this cursor. 1: something came; 0: nothing now;
 * -ECONNRESET: hang-up; -errno. */
int conn_receive(struct conn *c, const struct conn_cursor *cur);
/* Counts one more execution of the message at head; returns the count (1 the first time). */
unsigned conn_try(struct conn *c, const struct conn_cursor *cur);
/* A plain SIGKILL is nobody's fault: takes one count back (called by a successor). */
void conn_untry(struct conn *c);
void conn_consume(struct conn_cursor *next, const struct conn_msg *msg);

/* Room for len outbound bytes at next->tx_end (which grows), contiguous; NULL: flush first (never
 * NULL when everything committed was sent and len <= CONN_TX_SIZE). */
void *conn_reserve(struct conn *c, struct conn_cursor *next, size_t len);
/* Attach a borrowed descriptor to the message reserved next, by one conn_reserve. -EAGAIN: one is
 * waiting, flush first. */
int conn_reserve_fd(struct conn *c, struct conn_cursor *next, int fd);
/* Give back the last n bytes reserved since the copy of the half (a reply became shorter). */
void conn_unreserve(struct conn_cursor *next, size_t n);

/* Sends [sent, cur->tx_end). 1: all sent; 0: the peer does not read (wait for POLLOUT); -errno. */
int conn_flush(struct conn *c, const struct conn_cursor *cur);
bool conn_is_flushed(const struct conn *c, const struct conn_cursor *cur);

#endif
