/* SPDX-License-Identifier: MIT */
#ifndef MEDIA_INTERNAL_H
#define MEDIA_INTERNAL_H

#include "base/list.h"
#include "media/call.h"
#include "media/media.h"

/* A segment may cross maps. */
#define MEDIA_IOVS (2 * UMDEV_MEDIA_SEGS)

/* Of one request in flight, in this life; its memory is pinned. */
enum media_io_state {
	MEDIA_IO_FREE,    /* ended by the commit of a request under this index */
	MEDIA_IO_WAITING, /* for the fence */
	MEDIA_IO_QUEUED,  /* in the engine's queue, for the end of this round */
	MEDIA_IO_STARTED, /* in the ring */
	MEDIA_IO_ENDED,   /* its end is to be told: in the engine's list, or being told */
};

struct media_io {
	struct ring_user user; /* its end is for the engine */
	struct list_node node; /* of the engine's queue or its list of ended ones, or of `ending` */
	struct media *media;   /* owner */
	enum media_io_state state;
	unsigned index; /* of the struct device_request */
	int status;     /* ENDED */
	struct media_call call;
	struct iovec iov[MEDIA_IOVS];
	unsigned n_pins;
	struct dma_pin pin[UMDEV_MEDIA_SEGS];
};

/* One device in this life. */
struct media {
	struct list_node node; /* of the engine */
	struct umdev_device *dev;
	struct dma_table *dma;
	const struct media_host *host;
	bool asked;              /* a hook called media_submit since the last kick */
	struct list_node ending; /* struct media_io: their end is being committed */
	struct media_io io[];    /* type->media_requests */
};

/* media.c, called by the engine */
void media_open(struct media *m); /* the fence is passed */
/* The first of the list, and those behind it of the same device as far as there is room: ENDED ->
 * FREE, in one transaction. */
void media_tell_ends(struct list_node *ended);

/* engine.c */
void engine_add(struct media_engine *e, struct media *m);
void engine_remove(struct media *m);
void engine_queue(struct media_engine *e, struct media_io *io); /* -> QUEUED */
void engine_io_ended(struct ring_user *user, int result);
void engine_end(struct media_engine *e, struct media_io *io, int status); /* -> ENDED */

/* fence.c */
struct fence {
	struct loop *loop; /* NULL: not waited for yet */
	struct media_fence *state;
	struct loop_fd tomb_source, ring_source;
	struct loop_timer patience, deadline;
	struct ring_left *left; /* owned; NULL: the tombstone alone decides */
	void (*passed)(
		struct fence *f); /* may come inside fence_wait; the tombstone is still there */
	void (*stalled)(struct fence *f); /* MEDIA_FENCE_MS are over */
};
/* like: a ring of this life, or NULL. 0 or -errno. */
int fence_wait(struct fence *f, struct loop *loop, struct media_fence *state,
	       const struct media_ring *like);
void fence_end(struct fence *f); /* may repeat */

/* call.c */
struct io_uring_sqe;
void call_prepare(const struct media_call *call, struct io_uring_sqe *sqe);

/* ring.c */
/* The counters of a ring that a dead life left. like: one of ours. NULL: cannot be seen. */
struct ring_left;
struct ring_left *ring_left_map(const struct media_ring *like, int fd);
void ring_left_unmap(struct ring_left *left); /* NULL: no-op */
/* Takes its completions. Has everything ended that was submitted? */
bool ring_left_is_done(struct ring_left *left, int fd);

#endif
