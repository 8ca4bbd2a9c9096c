/* SPDX-License-Identifier: MIT */
/*
 * Virtqueues (virtio 1.2, 2.7 split and 2.8 packed): a library that a queue's hooks pull from.
 *
 * Belongs to one queue (umdev/queue.h) and runs in its runner's thread. Nothing in a ring is
 * believed: indices, lengths and chains are judged here once, and a ring that breaks a rule is
 * broken for good (-EPROTO), one whose memory went away too (-EFAULT).
 *
 * What survives is the journal: which chains were taken and not given back. Its layout is that of
 * vhost-user's in-flight region, so that it may lie in memory that a front-end keeps for us, or in
 * the queue's state. It is untrusted either way. A successor's umdev_vq_pop first gives, in their
 * order, the chains that a dead worker had taken, then new ones: a device need not tell the
 * difference. A chain is given back exactly once, whenever the worker is killed.
 */
#ifndef UMDEV_VIRTQUEUE_H
#define UMDEV_VIRTQUEUE_H

#include <umdev/queue.h>

#define UMDEV_VQ_SIZE_MAX 1024 /* entries of a ring */
#define UMDEV_VQ_SEGS 256      /* of a chain, tables of indirect descriptors included */

/* Ring features, numbered as virtio does. */
#define UMDEV_VIRTIO_F_INDIRECT 28
#define UMDEV_VIRTIO_F_EVENT_IDX 29
#define UMDEV_VIRTIO_F_PACKED 34
#define UMDEV_VIRTIO_F_IN_ORDER 35

/* Addresses are of the connection's space; in a queue's config or private memory. */
struct umdev_vq_config {
	uint64_t features; /* negotiated, the low 64 */
	struct iova desc, driver, device;
	uint16_t size; /* entries; a power of two when split */
	/* Where to begin with a fresh journal. Split: the available index; the used index stands in
	 * the ring. Packed: position | wrap counter << 15, of both. */
	uint16_t avail, used;
};

/* A buffer that the driver made available. */
struct umdev_vq_chain {
	uint16_t head;        /* names it for umdev_vq_push */
	uint16_t n_out, n_in; /* seg[0 .. n_out) are for reading, n_in more for writing */
	uint64_t out_len, in_len;
	struct umdev_seg seg[UMDEV_VQ_SEGS];
};

enum umdev_vq_order { UMDEV_VQ_TAKEN = 1, UMDEV_VQ_DONE };

/* Zeroed private memory of the queue; fields are the library's. */
struct umdev_vq {
	struct umdev_queue *q;
	struct umdev_vq_config config;
	struct umdev_window desc, driver, device;
	void *journal;
	int error; /* the ring is broken: -errno, for good */
	uint64_t counter;
	/* Split: running indices. Packed: positions, with their wrap counters beside. */
	uint16_t next_avail, next_used, seen_avail;
	bool avail_wrap, used_wrap;
	uint16_t unsignalled; /* entries used since the driver was last told */
	bool must_signal;     /* a life before may have died between use and call */
	/* Chains of a dead life to be given again: list[again .. n_again) */
	uint16_t again, n_again;
	/* IN_ORDER: chains not given back, in order of availability: list[first .. first + n) */
	uint16_t first, n;
	uint16_t list[UMDEV_VQ_SIZE_MAX];
	uint16_t order[UMDEV_VQ_SIZE_MAX];
	uint32_t len[UMDEV_VQ_SIZE_MAX];  /* by head, of those DONE */
	uint8_t state[UMDEV_VQ_SIZE_MAX]; /* by head; enum umdev_vq_order */
};

/* Bytes of a journal for rings of at most `size` entries; 64-byte aligned. */
size_t umdev_vq_journal_size(uint16_t size, bool packed);
/*
 * journal: zeroed (fresh), or what a life before left. 0; -EINVAL (size, features); -EUCLEAN: an
 * impossible journal; -EFAULT, -EPROTO: the ring.
 */
int umdev_vq_init(struct umdev_vq *vq, struct umdev_queue *q, const struct umdev_vq_config *config,
		  void *journal);
/* 1: *ret is the next chain; 0: none; -EPROTO, -EFAULT. */
int umdev_vq_pop(struct umdev_vq *vq, struct umdev_vq_chain *ret);
/* Gives a chain back: `written` bytes of it were. 0, -EFAULT. */
int umdev_vq_push(struct umdev_vq *vq, uint16_t head, uint32_t written);
/* Is the driver to be told of what was pushed since the last question? */
bool umdev_vq_should_signal(struct umdev_vq *vq);
/* For umdev_queue_ops.arm: asks for a notification. True: there is a new chain already. */
bool umdev_vq_arm(struct umdev_vq *vq);
void umdev_vq_disarm(struct umdev_vq *vq);
/*
 * Where a ring stands whose chains were all given back, from its journal: as `avail` and `used` of
 * the config. config: what it ran with.
 */
void umdev_vq_position(const struct umdev_vq_config *config, const void *journal,
		       uint16_t *ret_avail, uint16_t *ret_used);

#endif
