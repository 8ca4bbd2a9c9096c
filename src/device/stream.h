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
 * The host's side is a system call whose count a kill could lose; `op` holds the call under way,
 * and a successor settles it:
 *  - sockets use recvmmsg and sendmmsg with the header in the state memory: the kernel stores the
 *    count there before a signal is acted on, as in base/conn;
 *  - regular files are written at an offset that follows from out_tail: repeating is harmless;
 *  - for ptys, pipes and the like rchar or wchar of /proc/self/io is noted before the call. What
 *    the life as a whole moved, the keeper learns when it reaps it: wait() adds a child's account
 *    to its parent's, so the keeper looks into its own before and after (a zombie's could be read
 *    by root only). The difference is what the lost call moved. Where there is no such account,
 *    what a killed call wrote is written again, and what it read is lost.
 *
 * A listening socket has one peer at a time, the next waits in the backlog. The one that is being
 * accepted in the instant of a death sees a hang-up.
 *
 * Sources are edge-triggered: a hang-up that lasts, or input that nobody takes, costs nothing.
 * Nobody has the pty open: output waits in the ring (what lies in the kernel's buffer is thrown
 * away by programs that flush when they open it) and the pty is asked again, ever more rarely.
 */
#ifndef DEVICE_STREAM_H
#define DEVICE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <umdev/device.h>
#include <umdev/parent.h> /* enum umdev_resource_flags: both halves speak of resources */
#include "base/loop.h"

enum stream_op {
	STREAM_IDLE,
	STREAM_READING, /* up to op_len bytes into in[], from stream offset op_at on */
	STREAM_WRITING, /* op_len bytes from out[], from stream offset op_at on */
};

struct stream_shared {
	uint64_t in_head, out_tail;
	uint32_t op; /* enum stream_op; stored last */
	uint32_t op_len;
	uint64_t op_at;
	uint64_t op_account; /* rchar or wchar before the call; UINT64_MAX: unknown */
	uint64_t file_at;    /* regular file: where byte 0 of the output lies */
	int32_t peer_fd;     /* LISTEN: the accepted connection, or -1; owned */
	uint32_t pad;
	struct mmsghdr hdr; /* sockets: msg_len is the journal of the call under way */
	struct iovec iov;
	uint8_t in[UMDEV_STREAM_BYTES];
	uint8_t out[UMDEV_STREAM_BYTES];
};

/*
 * What the keeper learned about the last life that had settled its streams: one that died before
 * that began no call, and what its predecessor left is still to be settled by that one's account.
 */
struct stream_last_life {
	uint32_t known;        /* 0: no account to be had */
	uint64_t rchar, wchar; /* totals of that process */
};

enum stream_kind {
	STREAM_PTY,
	STREAM_SOCKET,
	STREAM_FILE, /* regular file: output only, appended */
	STREAM_PIPE, /* whatever else read(2) and write(2) work on */
};

struct stream {
	struct umdev_device *dev; /* owner */
	struct stream_shared *shared;
	struct loop *loop;     /* NULL: not started */
	struct loop_fd source; /* the pty, pipe, socket or accepted peer */
	struct loop_fd listen; /* LISTEN, while there is no peer */
	struct loop_defer pump;
	struct loop_timer retry; /* output waits for somebody to open the pty, or for disk space */
	uint64_t retry_ns;
	char name[32];
	unsigned index; /* in the device's streams */
	uint32_t flags; /* enum umdev_resource_flags */
	int fd;         /* of the resource, borrowed */
	enum stream_kind kind;
	bool readable, writable; /* the last call did not meet EAGAIN */
	bool hung_up;            /* pty: nobody has it open; socket: the peer is gone for good */
	bool unpolled;           /* always ready as far as epoll knows */
	bool complained;         /* about an error, once until it works again */
	bool wake;               /* the device must look, whether or not something moves */
	/* Input arrived or space became free: runs ops->stream in a transaction. */
	void (*event)(struct stream *stream);
};

/* The device's streams as a whole (device.h) are what presentations use; these are its parts. */

/* Kind by what fd is; sets it non-blocking. 0 / -errno. */
int stream_init(struct stream *s, struct umdev_device *dev, unsigned index, const char *name,
		int fd, uint32_t flags, struct stream_shared *shared);
/* First use of shared: empty rings. */
int stream_attach_fresh(struct stream *s);
/* Settles the call under way. -EUCLEAN: the counters are impossible. */
int stream_attach_resume(struct stream *s, const struct stream_last_life *last);
int stream_start(struct stream *s, struct loop *loop, void (*event)(struct stream *));
void stream_stop(struct stream *s); /* may repeat */
void stream_kick(struct stream *s);
void stream_reset(struct stream *s);

/* One system call each, journaled. >0: bytes moved; 0: end of input; -EAGAIN; -errno. */
ssize_t stream_read_host(struct stream *s, int fd);
ssize_t stream_write_host(struct stream *s, int fd);
uint64_t stream_in_space(const struct stream *s);    /* bytes that may be read from the host */
uint64_t stream_out_pending(const struct stream *s); /* bytes to be written to the host */

/* One look into this process's open /proc/self/io. */
struct stream_account {
	uint64_t rchar, wchar;
	uint64_t rchar_after; /* looking is reading: rchar when this look is accounted itself */
};
bool stream_account_read(int io_fd, struct stream_account *ret);

#endif
