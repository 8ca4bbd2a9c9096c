/* SPDX-License-Identifier: MIT */
/*
 * I/O queues: what is behind umdev/queue.h, for whatever presents the device.
 *
 *   group   one per worker: its runners, each with a ring of its own (media/call.h)
 *   runner  the control thread, or a queue thread; owns the queues that it was given outright
 *   set     one per device: its queues in this life
 *
 * What survives of a queue
 *   in the half       one byte: its state, and which of two configurations is meant
 *   struct queue_shared, outside of the halves
 *       configurations  the one that the current half does not mean is free to be filled
 *       the queue's own state, which its runner changes without a transaction: a journal
 *       interrupts and events that are owed
 *
 * Who waits for whom. The control thread publishes orders, and views of guest memory (dma.h); a
 * runner reads both once per round. What takes something away (unmap, reset, close, stop) gives the
 * order to hold still, then waits with dma_quiesce() for views and pins that are older.
 *
 * Until the fence of a dead life is passed no queue runs, and a pin on all addresses stands for the
 * requests that the journals may have in flight.
 */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include <stdbool.h>
#include <umdev/queue.h>
#include "device/device.h"
#include "dma/dma.h"
#include "media/media.h"

#define QUEUE_THREADS_MAX 8 /* of a group */
#define QUEUE_SETS_MAX 64   /* devices of a group */
#define QUEUE_VECTORS_MAX 256
#define QUEUE_CRASHES 3 /* of its worker: then a queue is stopped for good */

struct queue_group;

/* ---- the worker ---- */

/* How many threads the device asks for, at most QUEUE_THREADS_MAX. */
unsigned queue_threads_wanted(const struct umdev_device *dev);
/* Before the sandbox: makes the threads, which wait. 0 / -errno */
int queue_group_new(struct queue_group **ret, unsigned n_threads);
/* After the control thread entered the sandbox: each thread does what else it takes, by `enter`.
 * 0, or -EPERM: one could not. */
int queue_group_enter(struct queue_group *g, int (*enter)(void *arg), void *arg);
/* CONFIG is known: n_threads serve, the others end. The engine has a ring for each of them, or none
 * at all. Before queues_attach(). */
int queue_group_start(struct queue_group *g, struct loop *loop, struct media_engine *engine,
		      unsigned n_threads);
/* The life before this one crashed, or hung: the queue that was at work gets the blame. Before
 * attach. */
void queue_group_blame(struct queue_group *g, bool hung);
/* What this life opened for itself. NULL: no-op. */
void queue_group_each_fd(const struct queue_group *g, void (*fn)(void *, int), void *arg);
void queue_group_free(struct queue_group *g); /* NULL: no-op; all sets are detached */

/* Bytes of state memory for a device of this type; 0: it has no queues. */
size_t queue_shared_size(const struct umdev_device_type *type);

/* ---- the presentation; all in the control thread ---- */

struct queue_host {
	/* Runs fn in a transaction of the device. 0, or what fn returned: nothing was committed. */
	int (*run)(struct umdev_device *dev, int (*fn)(struct umdev_device *, void *), void *arg);
	/* In such a transaction: the guest is to see interrupt `vector`. */
	void (*irq)(struct umdev_device *dev, unsigned vector);
	/* What a dead life left does not end; or it has, after all. */
	void (*stalled)(struct umdev_device *dev, bool stalled);
};

/*
 * dev->half, dev->queue_shared, dev->queue_group and dev->engine are set. doorbells: memory that
 * the presentation shows to the client, or NULL: nobody maps them. 0 and dev->queues (NULL: the
 * type has none); -EUCLEAN, -ENODEV (no group), -ENOMEM.
 */
int queues_attach(struct umdev_device *dev, struct dma_table *dma, const struct queue_host *host,
		  enum umdev_init how, uint32_t *doorbells);
/* Nothing of it may be in a ring. */
void queues_detach(struct umdev_device *dev);
/* After a commit of the device. Cheap when it did nothing to queues. */
void queues_kick(struct umdev_device *dev);
/* May queues touch guest memory (bus mastering)? */
void queues_allow_dma(struct umdev_device *dev, bool allowed);
/* Interrupt `vector` is this eventfd, -1: not now (masked, not armed): then host->irq. Borrowed;
 * it may be closed after a quiesce. */
void queues_set_vector(struct umdev_device *dev, unsigned vector, int fd);

/* Nothing of that medium is in flight, or may have to be asked for again. */
bool queues_medium_is_idle(const struct umdev_device *dev, unsigned medium);
/* Do other threads serve them? Then what takes something away from them must hold them, quiesce,
 * and do it then. */
bool queues_have_threads(const struct umdev_device *dev);
/* Every vector is -1, as queues_set_vector() says. */
void queues_hide_vectors(struct umdev_device *dev);
/* Does any queue run, or not yet rest? Then a reset must hold them first, and quiesce. */
bool queues_are_busy(const struct umdev_device *dev);
/* No queue takes new work from the next round of its runner on. untold: ends are not told either,
 * until the device was reset. */
void queues_hold(struct umdev_device *dev, bool untold);
void queues_release(struct umdev_device *dev); /* may repeat */
/* In a transaction, before ops->reset: every queue is STOPPED. They were held and quiesced. */
void queues_reset(struct umdev_device *dev);

#endif
