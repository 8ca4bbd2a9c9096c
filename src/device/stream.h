/* SPDX-License-Identifier: MIT */
/*
 * A device's byte stream to the host: two rings between the register model and a descriptor.
 *
 * Ring bytes lie once in the state memory; counters are 64-bit stream offsets that only grow:
 *    in_head  (here)          bytes read from the host      -> in_tail  (device_half)
 *    out_tail (here)          bytes written to the host     <- out_head (device_half)
 * A producer fills bytes behind its committed counter, where nobody looks, then advances it; so
 * the device's side is part of its transaction without any journal of its own.
 *
 * The host's side is a system call whose count a kill could lose. Sockets use recvmmsg/sendmmsg
 * with the header in struct stream_shared, as base/conn does. For ptys, pipes and files `op`
 * holds the call under way; the keeper reads rchar/wchar of the dead worker in /proc/<pid>/io
 * before it reaps it, and the difference to the count stored before the call is what the lost
 * call moved (struct stream_account; every read(2) and write(2) of the worker goes through it).
 * Where the kernel keeps no such account the call is repeated: at least once.
 */
#ifndef DEVICE_STREAM_H
#define DEVICE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <umdev/device.h>
#include "base/loop.h"

enum stream_op {
	STREAM_IDLE,
	STREAM_READING, /* read(2) of up to op_len bytes into in[in_head..] */
	STREAM_WRITING, /* write(2) of op_len bytes from out[out_tail..] */
};

struct stream_shared {
	uint64_t in_head, out_tail;
	uint32_t op;         /* enum stream_op; stored last */
	uint32_t op_len;
	uint64_t op_account; /* rchar or wchar before the call */
	int32_t peer_fd;     /* LISTEN: the accepted connection, or -1 */
	uint32_t txrx;       /* sockets: which of hdr[] is the journal of the call under way */
	struct mmsghdr hdr[2];
	struct iovec iov[2];
	uint8_t in[UMDEV_STREAM_BYTES];
	uint8_t out[UMDEV_STREAM_BYTES];
};

/* In the state memory, once per worker: bytes that read(2)/write(2) of this life moved. */
struct stream_account {
	uint64_t rchar, wchar;
};

struct stream {
	struct umdev_device *dev;  /* owner */
	struct stream_shared *shared;
	struct stream_account *account;
	struct loop *loop;
	struct loop_fd source;     /* the pty, pipe, socket or accepted peer */
	struct loop_fd listen;     /* LISTEN */
	struct loop_timer retry;   /* a pty that nobody has open is asked again, ever more rarely */
	char name[32];
	uint32_t flags;            /* enum umdev_resource_flags */
	int fd;                    /* of the resource, borrowed */
	bool writable;             /* the last write did not meet EAGAIN */
	/* Called by the loop when a hook of the device must run: runs ops->stream in a transaction. */
	void (*event)(struct stream *stream);
};

/* What the keeper learned about the life before this one. */
struct stream_last_life {
	bool known;            /* false: no account to be had, calls under way are repeated */
	uint64_t rchar, wchar; /* totals of that process */
};

/* Loop sources appear in stream_start, not before. */
void stream_init_fresh(struct stream *s, struct stream_shared *shared, int fd, uint32_t flags);
/* -EUCLEAN: counters are impossible against `half`. Settles the call under way. */
struct device_half;
int stream_init_resume(struct stream *s, unsigned index, struct stream_shared *shared, int fd,
		       uint32_t flags, const struct device_half *half,
		       const struct stream_last_life *last);
int stream_start(struct stream *s, struct loop *loop);
void stream_stop(struct stream *s);
/* After a commit of the device: the host side may go on (bytes to write, space to read into). */
void stream_kick(struct stream *s);
/* Drop what is buffered in both directions (reset at first open); half is the spare one. */
void stream_reset(struct stream *s, unsigned index, struct device_half *half);

/* Accounted system calls, for everything in the worker that is not a socket. */
ssize_t account_read(struct stream_account *a, int fd, void *buf, size_t len);
ssize_t account_write(struct stream_account *a, int fd, const void *buf, size_t len);

#endif
