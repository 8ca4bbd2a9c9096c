/* SPDX-License-Identifier: MIT */
/*
 * One request to a medium as calls of the system: asynchronous ones through a ring, or synchronous
 * ones where there is none. A call may do less than all (a short read, an operation that the file
 * system lacks); media_call_take() then says what the next one is.
 *
 * And the ring itself: an io_uring of one thread that can do nothing but this.
 */
#ifndef MEDIA_CALL_H
#define MEDIA_CALL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <umdev/queue.h>
#include "device/device.h"

/* What the next call of the system is. */
enum media_step {
	MEDIA_STEP_MOVE,     /* READ, WRITE: iov */
	MEDIA_STEP_ALLOCATE, /* WRITE_ZEROES, DISCARD: the file system zeroes, or gives back */
	MEDIA_STEP_ZEROS,    /* it cannot: zeros are written */
	MEDIA_STEP_SYNC,     /* FLUSH, and the end of zeroing with FUA */
};

struct media_call {
	const struct device_medium *medium;
	enum umdev_media_op op;
	unsigned flags; /* enum umdev_submit_flags */
	enum media_step step;
	uint64_t at, left; /* where in the file, and how much */
	struct iovec *iov; /* owned by the caller; advanced and changed */
	unsigned n_iov;
};

/* medium, op, flags, at, left, iov are set. */
void media_call_init(struct media_call *call);
/* Carries out the step, and blocks for it: what the system said, >= 0 or -errno. */
int media_call_now(struct media_call *call);
/* Takes what the system said. 0 or -errno: the request ended so; 1: it goes on. */
int media_call_take(struct media_call *call, int result);

/* Whoever asked, embedded there: how it ended. */
struct ring_user {
	void (*ended)(struct ring_user *user, int result);
};

struct media_ring;
enum ring_use {
	RING_OF_MAKER,        /* only the thread that makes it submits */
	RING_OF_OTHER_THREAD, /* one other thread does, which also looks for ends without sleeping
			       */
};
/* held: descriptors that are registered with the ring (media.h: tombstone and grave), -1: none; the
 * caller keeps its own. -errno: no io_uring here. */
#define RING_HELD 2
int ring_new(struct media_ring **ret, const int held[RING_HELD], enum ring_use use);
void ring_free(struct media_ring *r); /* NULL: no-op; waits for what is in flight */
int ring_fd(const struct media_ring *r);
/* Prepares the step of a call. False: full, submit first. */
bool ring_prepare(struct media_ring *r, const struct media_call *call, struct ring_user *user);
void ring_submit(struct media_ring *r);
/* The owner sleeps in the ring, too: an event on fd wakes it. */
void ring_watch(struct media_ring *r, int fd);
/* Sleeps until something ends, fd of ring_watch() has an event, or max_ns (0: any time) are over.
 */
void ring_wait(struct media_ring *r, uint64_t max_ns);
/* Tells the next one that ended; false: none has. No system call. */
bool ring_tell(struct media_ring *r);

#endif
