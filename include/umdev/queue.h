/* SPDX-License-Identifier: MIT */
/*
 * I/O queues: the fast path of a device half (NVMe queue pairs, virtqueues).
 *
 * Who runs a queue. Each queue belongs to one runner: the worker's control thread, or one of its
 * queue threads (the device's parameter queue_threads, 0: none). A runner goes round: it enters the
 * published view of guest memory, calls `poll` of the queues that may have work, submits to the
 * media in one batch, tells ends, signals interrupts once per vector, leaves the view. Between
 * rounds it sleeps, or looks again for a while when that pays (poll_us). So there is no lock, no
 * allocation and no system call per request, and whoever changes the view waits for one round.
 *
 * What survives. Hooks here are no transactions: a store to the queue's state counts at once, and
 * the worker may be killed between any two of them. A queue keeps a journal: it stores what it is
 * about to do, does it in a way that may be done again, then stores that it is done. After a death
 * the core waits until nothing of the dead can touch medium or memory any more, then calls `start`
 * with UMDEV_RESUME: the queue asks again for every request that its journal has in flight.
 * Example (NVMe): copy the command into slot s, then advance the head; at its end store the
 * completion and its place in the slot, then advance the tail, then write it to guest memory, then
 * free the slot.
 *
 * States of a queue, changed by the calls of hooks of device.h (with their commit) and by the core:
 *	STOPPED   -> umdev_queue_start -> RUNNING
 *	RUNNING   -> umdev_queue_stop  -> STOPPING: no more poll; waits for what is in flight
 *	STOPPING  -> (nothing in flight, no runner looks) queue_stopped -> STOPPED
 * A reset of the device, its close and its end stop every queue first, ends untold.
 *
 * Threads: hooks of umdev_queue_ops run in the runner's thread and may touch the queue's config,
 * state and private memory, and read parameters that cannot change while connected. Everything else
 * of the device belongs to the control thread; umdev_queue_event asks it for what it alone may do.
 */
#ifndef UMDEV_QUEUE_H
#define UMDEV_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/device.h>
#include <umdev/dma.h>
#include <umdev/media.h>

#define UMDEV_QUEUES_MAX 64          /* of a device */
#define UMDEV_QUEUE_REQUESTS_MAX 256 /* in flight to media, of a queue */
#define UMDEV_QUEUE_SEGS 264         /* of one request */
#define UMDEV_QUEUE_CONFIG_MAX 1024  /* bytes */

struct umdev_queue; /* owned by the core; fixed while the worker lives */

struct umdev_queue_ops {
	/* FRESH: config is new, state zeroed unless it was kept. RESUME: the state is what a killed
	 * or older worker left and may be anything: check it. 0, or -errno: the queue runs no more
	 * and queue_event(UMDEV_QUEUE_BROKEN) follows. */
	int (*start)(struct umdev_queue *q, enum umdev_init how);
	/* Take new work, at most about UMDEV_QUEUE_BATCH requests. True: there was some (the runner
	 * comes again in this or the next round). */
	bool (*poll)(struct umdev_queue *q);
	/* A request that umdev_queue_submit accepted with 0 ended: 0 or -errno. */
	void (*done)(struct umdev_queue *q, uint32_t tag, int status);
	/* The runner wants to sleep: have the guest notify us (event index, notification flag).
	 * True: there is work after all. Optional: each notification comes anyway. */
	bool (*arm)(struct umdev_queue *q);
	/* It came from sleep to polling: notifications are not needed now. Optional. */
	void (*disarm)(struct umdev_queue *q);
};
#define UMDEV_QUEUE_BATCH 32

/* Queues of a type: umdev_device_type.queues. Static and const. */
struct umdev_queue_type {
	const struct umdev_queue_ops *ops;
	uint32_t max;           /* queues, <= UMDEV_QUEUES_MAX */
	uint32_t requests;      /* in flight per queue, <= UMDEV_QUEUE_REQUESTS_MAX */
	uint32_t state_size;    /* bytes per queue that survive; 64-byte aligned */
	uint32_t state_version; /* of their layout; raise on every change */
	uint32_t priv_size;     /* bytes per queue, zeroed at each start of a worker */
	uint32_t doorbells;     /* words of the device's doorbell page, <= 1024; 0: none */
};

/*
 * In hooks of device.h. Effects take place after the hook's commit.
 */
enum umdev_queue_start {
	UMDEV_QUEUE_NEW,  /* the state is zeroed */
	UMDEV_QUEUE_KEEP, /* the state stays as it was when the queue stopped */
};
enum umdev_queue_stop {
	UMDEV_QUEUE_DRAIN, /* ends are told by `done` */
	UMDEV_QUEUE_DROP,  /* ends are not told, nothing of it writes guest memory afterwards */
};
/* 0; -EINVAL (index, len); -EBUSY (not STOPPED: in queue_stopped it is). */
int umdev_queue_start(struct umdev_device *dev, unsigned index, enum umdev_queue_start how,
		      const void *config, size_t len);
/* 0, also for one that is STOPPING (DROP wins); -EINVAL: it is STOPPED. */
int umdev_queue_stop(struct umdev_device *dev, unsigned index, enum umdev_queue_stop how);
bool umdev_queue_is_stopped(const struct umdev_device *dev, unsigned index);
/* The guest notified this queue: its runner looks at it. */
void umdev_queue_kick(struct umdev_device *dev, unsigned index);
/* State of a queue as its runner writes it (counters): read with atomics, believe nothing. */
const void *umdev_queue_peek(const struct umdev_device *dev, unsigned index);
/*
 * Doorbells: words of a page that the client maps (UMDEV_BAR_MMAP) or the device sets from its
 * bar_write hook. Any value at any time.
 */
void umdev_doorbell_set(struct umdev_device *dev, unsigned word, uint32_t value);

/*
 * In hooks of umdev_queue_ops.
 */
unsigned umdev_queue_index(const struct umdev_queue *q);
const struct umdev_device *umdev_queue_device(const struct umdev_queue *q); /* params, media */
const void *umdev_queue_config(const struct umdev_queue *q);
void *umdev_queue_state(struct umdev_queue *q);
void *umdev_queue_priv(struct umdev_queue *q);
uint32_t umdev_queue_doorbell(const struct umdev_queue *q, unsigned word); /* acquire */

/*
 * A window is a piece of guest memory that a queue looks at again and again: a ring. Resolved when
 * first used and again whenever the guest's memory map changed; it may be split over maps.
 * Accesses are checked; -EFAULT: not mapped, or the file behind it was truncated.
 * A window lies in the queue's private memory; set iova, len and write, zero the rest.
 */
struct umdev_window {
	struct iova iova;
	uint64_t len;
	bool write;
	/* the core's */
	uint8_t *hva; /* NULL: not resolved, or not in one piece */
	uint64_t generation;
};
int umdev_window_read(struct umdev_queue *q, struct umdev_window *w, uint64_t offset, void *to,
		      size_t len);
int umdev_window_write(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
		       const void *from, size_t len);
/* Aligned, little endian in memory; load acquires, store releases. */
int umdev_window_load16(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			uint16_t *ret);
int umdev_window_store16(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			 uint16_t value);
int umdev_window_load32(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			uint32_t *ret);
int umdev_window_store32(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			 uint32_t value);
/* Full barrier between "I asked to be notified" and "is there work?" */
void umdev_queue_barrier(void);
/* Any guest memory, now. 0 or -EFAULT. */
int umdev_queue_read(struct umdev_queue *q, struct iova from, void *to, size_t len);
int umdev_queue_write(struct umdev_queue *q, struct iova to, const void *from, size_t len);

/*
 * A request to a medium (media.h), memory held until its end.
 * 0: `done` follows, not from inside this call. 1: it ended, successfully, already; `done` is not
 * called. -ENODEV -EINVAL -EROFS as umdev_media_submit; -EFAULT: memory; -ENOMEM: ours; -EBUSY:
 * `requests` are in flight. The tag is the driver's. In start(RESUME) a medium that goes still
 * takes what is in flight over the death.
 */
int umdev_queue_submit(struct umdev_queue *q, unsigned medium, enum umdev_media_op op,
		       uint64_t offset, uint64_t len, const struct umdev_seg *segs, unsigned n_segs,
		       unsigned flags, uint32_t tag);
enum umdev_submit_flags {
	UMDEV_SUBMIT_FUA = 1 << 0,   /* WRITE, WRITE_ZEROES: durable at its end */
	UMDEV_SUBMIT_UNMAP = 1 << 1, /* WRITE_ZEROES: may give the space back */
};

/* Interrupt `vector` (of a virtqueue: any), at the end of the round, once however often asked. */
void umdev_queue_irq(struct umdev_queue *q, unsigned vector);
/* ops->queue_event(dev, index, bits) will run in the control thread, at least once. The details
 * stand in the queue's state (umdev_queue_peek). */
void umdev_queue_event(struct umdev_queue *q, uint32_t bits);
#define UMDEV_QUEUE_BROKEN (1U << 31) /* the core's: `start` failed, or the queue crashed us */

#endif
