/* SPDX-License-Identifier: MIT */
/*
 * Block media: files and block devices that a device reads and writes asynchronously, straight
 * from and to guest memory.
 *
 * A request is asked for in a hook and belongs to the hook's commit. From then on until its end it
 * stands in the list of requests in flight, which is part of the device's state: when the worker
 * dies, the next one waits until nothing of the dead can touch medium or memory any more, and
 * carries out again what is in the list. That is right because a request names its place: done
 * twice it has the effect of once, provided that a guest does not ask for two overlapping requests
 * at the same time (their order is not defined without a death either).
 *
 * media_done tells the end, once, in a transaction that also takes the request off the list.
 */
#ifndef UMDEV_MEDIA_H
#define UMDEV_MEDIA_H

#include <stdbool.h>
#include <stdint.h>
#include <umdev/device.h>
#include <umdev/dma.h>

/* Largest umdev_device_type.media_requests: each costs 16 bytes of what every access copies. */
#define UMDEV_MEDIA_REQUESTS_MAX 128
#define UMDEV_MEDIA_SEGS 64
#define UMDEV_MAX_MEDIA 8

enum umdev_media_op {
	UMDEV_MEDIA_READ = 1, /* medium -> guest memory */
	UMDEV_MEDIA_WRITE,    /* guest memory -> medium */
	UMDEV_MEDIA_FLUSH,    /* what was written and is done is durable; no segments */
	/* of queues (umdev/queue.h) only; no segments */
	UMDEV_MEDIA_WRITE_ZEROES, /* reads as zeros afterwards */
	UMDEV_MEDIA_DISCARD,      /* content is of no interest: reads as zeros here */
};

struct umdev_seg {
	struct iova addr;
	uint64_t len;
};

/* Number of the resource `name` with UMDEV_RES_MEDIUM, or -ENOENT. It is that medium's for as long
 * as the device has it, over deaths too. */
int umdev_media_find(const struct umdev_device *dev, const char *name);
uint64_t umdev_media_size(const struct umdev_device *dev, unsigned medium); /* bytes */
bool umdev_media_is_writable(const struct umdev_device *dev, unsigned medium);
/*
 * Ask for a request at byte `offset` of the medium; segments are used in order. The memory is held
 * until the end: an unmap of it waits. What is wrong with the memory is told by media_done.
 * 0; -ENODEV (no such medium, or it goes); -EINVAL (op, no or too many segments, outside of the
 * medium); -EROFS; -EPERM (bus mastering);
 * -EBUSY (media_requests are in flight; in media_done those that end now are still counted).
 */
int umdev_media_submit(struct umdev_device *dev, unsigned medium, enum umdev_media_op op,
		       uint64_t offset, const struct umdev_seg *segs, unsigned n_segs,
		       uint32_t tag);

#endif
