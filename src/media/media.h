/* SPDX-License-Identifier: MIT */
/*
 * Media of device halves: asynchronous reads, writes and flushes between files and guest memory.
 *
 *   engine  one per worker: an io_uring, the fence, a queue that is submitted once per round
 *   media   one per device: its requests in flight (struct device_request, in the device's half)
 *           and what they are in this life: pinned memory, host addresses
 *
 * Fence. SIGKILL does not end what was submitted: requests of the dead go on for as long as the
 * disk takes, and would overwrite what the successor writes. So before a ring gets its first
 * request, the write end of a pipe, the tombstone, becomes a registered file of that ring, and
 * nothing else holds it. A successor closes the dead one's ring (worker/sweep.c) and waits for the
 * hang-up at the read end: the kernel drops registered files when the last request is done and
 * freed, for every operation, file system and flag. Until then nothing is submitted, and the
 * inherited requests stay in flight, their memory pinned: no unmap or reset is answered. A time-out
 * tells (the device is faulty meanwhile) but never passes the fence. The ring's own completions
 * usually tell earlier than the hang-up (fence.c).
 *
 * The state memory names one ring and its tombstone (struct media_fence): the last that may have
 * got a request. A life that dies waiting has submitted nothing and leaves them in place.
 *
 * Where io_uring is forbidden (containers often do), requests are carried out one after the other
 * by this thread. Such a call ends before its process does: it needs no fence.
 */
#ifndef MEDIA_MEDIA_H
#define MEDIA_MEDIA_H

#include <stdbool.h>
#include <umdev/media.h>
#include "base/loop.h"
#include "device/device.h"
#include "dma/dma.h"

#define MEDIA_FENCE_MS 3000 /* then a person is told */

struct media_engine;

/* In state memory; descriptors are owned by the state, -1: none. */
struct media_fence {
	int32_t tomb; /* read end; hangs up when all rings that have the other end are gone */
	/* The only ring that has it, if every submission to it has exactly one completion, so that
	 * they can be counted; else -1. */
	int32_t ring;
};
#define MEDIA_FENCE_INIT \
	{                \
		-1, -1   \
	}

/* 0 or -ENOMEM. Makes its ring and n_more for other threads, all with one tombstone: before the
 * sandbox. grave_fd: borrowed, a descriptor that they all hold as long as they have requests, and
 * others too; -1: none. */
int media_engine_new(struct media_engine **ret, unsigned n_more, int grave_fd);
#define MEDIA_RINGS_MAX 8
/* Borrowed; 0: its own, which the control thread may use, too (it tells all ends there); then those
 * for other threads. NULL: no such ring, or no io_uring here. */
struct media_ring *media_engine_ring(const struct media_engine *engine, unsigned index);
/* Gives back all but the first n_more for other threads. Before media_engine_start(): a life with a
 * single ring is continued sooner (fence.c). */
void media_engine_trim(struct media_engine *engine, unsigned n_more);
/*
 * Once what nothing names is closed: waits for the fence, then submits. fence: inherited, or
 * MEDIA_FENCE_INIT. 0 or -errno.
 */
int media_engine_start(struct media_engine *engine, struct loop *loop, struct media_fence *fence);
bool media_engine_is_open(const struct media_engine *engine); /* the fence is passed */
bool media_engine_has_ring(const struct media_engine *engine);
/* NULL: no-op. Ends what is in flight; a process that dies does without. */
void media_engine_free(struct media_engine *engine);
/* What this life opened for itself. NULL: no-op. */
void media_engine_each_fd(const struct media_engine *engine, void (*fn)(void *, int), void *arg);

/* Somebody else who has requests, and must not start them before the fence is passed. */
struct media_watcher {
	struct list_node node;
	void (*open)(struct media_watcher *w); /* it is passed, once */
	/* What a dead life left does not end; or it has, after all. */
	void (*stalled)(struct media_watcher *w, bool stalled);
};
void media_engine_watch(struct media_engine *engine, struct media_watcher *w);
void media_engine_unwatch(struct media_watcher *w); /* may repeat */

/* What a presentation does for media. */
struct media_host {
	/* Runs fn in a transaction of the device, which returns 0. */
	void (*run)(struct umdev_device *dev, int (*fn)(struct umdev_device *, void *), void *arg);
	/* In it: may one more hook run, with all that a hook may ask for? */
	bool (*has_room)(const struct umdev_device *dev);
	/* What a dead life left does not end; or it has, after all. */
	void (*stalled)(struct umdev_device *dev, bool stalled);
};

/*
 * dev->half, dev->segs, dev->engine are set. Looks at the requests that the half has in flight and
 * pins their memory. 0 and dev->media (NULL: the type has no requests), -EUCLEAN: impossible
 * requests, -ENODEV: no engine, -ENOMEM.
 */
int media_attach(struct umdev_device *dev, struct dma_table *dma, const struct media_host *host);
/* Nothing of it may be in a ring: the engine was freed, or all requests ended. */
void media_detach(struct umdev_device *dev);
/* umdev_media_submit without the question of bus mastering. In a transaction. */
int media_submit(struct umdev_device *dev, unsigned medium, enum umdev_media_op op, uint64_t offset,
		 const struct umdev_seg *segs, unsigned n_segs, uint32_t tag);
/* In a transaction: what is in flight will end, but interests nobody. */
void media_reset(struct umdev_device *dev);
/* Nothing of that medium is in flight (outside of a transaction). */
bool media_is_idle(const struct umdev_device *dev, unsigned medium);
/* After a commit of the device: what it asked for begins. Cheap when that is nothing. */
void media_kick(struct umdev_device *dev);

#endif
