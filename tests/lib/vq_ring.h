/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of a virtqueue, for tests: posts chains, takes them back, and says when one
 * comes back twice, wrongly or out of order. It lies in one piece of memory with everything that
 * the device's side may touch, so that a test can copy all of it; here umdev_window_* and
 * umdev_queue_read see that memory and nothing else.
 */
#ifndef TESTS_VQ_RING_H
#define TESTS_VQ_RING_H

#include <umdev/virtqueue.h>

#define VQ_RING_MAX 64           /* entries */
#define VQ_RING_SEGS 5           /* of a chain */
#define VQ_RING_BASE 0x100000ULL /* IOVA of guest[] */
#define VQ_RING_JOURNAL 4096

struct vq_posted {
	bool posted;
	uint16_t n_out, n_in, n_slots;
	uint64_t serial;
	struct umdev_seg seg[VQ_RING_SEGS];
	uint16_t slot[VQ_RING_SEGS]; /* split: descriptors */
};

struct vq_ring {
	_Alignas(64) uint8_t journal[VQ_RING_JOURNAL];
	_Alignas(64) uint8_t guest[32768];
	/* the driver's own */
	struct umdev_vq_config config;
	uint64_t serial, reaped; /* chains posted and taken back */
	uint16_t avail, used;    /* split: indices; packed: positions */
	bool avail_wrap, used_wrap;
	uint16_t n_free, free[VQ_RING_MAX]; /* split: descriptors; packed: ids */
	uint16_t slots_free;                /* packed */
	struct vq_posted chain[VQ_RING_MAX];
};

/* What umdev_queue_read and the windows look at. */
extern struct vq_ring *vq_ring_memory;

void vq_ring_init(struct vq_ring *r, uint64_t features, uint16_t size);
/* Posts a chain of out + in <= VQ_RING_SEGS segments. Its name, or -1: no room. */
int vq_ring_post(struct vq_ring *r, unsigned out, unsigned in, bool indirect);
/* Is it what was posted under that name, and what the device side saw of it? */
bool vq_ring_is(const struct vq_ring *r, unsigned name, const struct umdev_vq_chain *chain);
/* The name of a chain that comes back, and how much was written; -1: none; -2: what comes back was
 * not posted. */
int vq_ring_reap(struct vq_ring *r, uint32_t *ret_written);
/* The name that the device's head stands for. */
unsigned vq_ring_name(const struct vq_ring *r, const struct umdev_vq *vq, uint16_t head);
/* Raw access to the guest's side, for rings that break rules. */
void *vq_ring_at(struct vq_ring *r, struct iova at);

#endif
