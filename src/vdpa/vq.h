/* SPDX-License-Identifier: MIT */
/*
 * Inside of the virtqueue library. vq.c: what both layouts share; vq_split.c and vq_packed.c: one
 * ring layout each, with its journal.
 *
 * Journals. Numbers are the machine's own (the memory never leaves it). Every store that another
 * life may have to believe is a release: a killed life leaves a prefix of its stores.
 */
#ifndef VDPA_VQ_H
#define VDPA_VQ_H

#include <umdev/endian.h>
#include <umdev/virtqueue.h>

#define VQ_JOURNAL_VERSION 1

/* 2.7.5; indirect tables of both layouts have this size of entries. */
struct vq_desc {
	le64 addr;
	le32 len;
	le16 flags; /* packed: id */
	le16 next;  /* packed: flags */
};
#define VQ_DESC_SIZE 16
#define VQ_DESC_NEXT 1
#define VQ_DESC_WRITE 2
#define VQ_DESC_INDIRECT 4
#define VQ_DESC_AVAIL (1 << 7) /* packed */
#define VQ_DESC_USED (1 << 15)

/* A row of an in-flight region, split. */
struct vq_split_entry {
	uint8_t inflight;
	uint8_t pad[5];
	uint16_t next; /* of the last batch */
	uint64_t counter;
};

struct vq_split_journal {
	uint64_t features;
	uint16_t version, size;
	uint16_t last_head; /* pushed last */
	uint16_t used_idx;  /* everything before this index is settled */
	struct vq_split_entry entry[];
};

/* A row of an in-flight region, packed: a copy of a descriptor; the first of a chain also tells of
 * the chain. */
struct vq_packed_entry {
	uint8_t inflight;
	uint8_t pad;
	uint16_t next; /* row of the chain, or of the free ones */
	uint16_t last; /* row of the chain */
	uint16_t num;  /* rows of the chain */
	uint64_t counter;
	uint16_t id, flags;
	uint32_t len;
	uint64_t addr;
};

struct vq_packed_journal {
	uint64_t features;
	uint16_t version, size;
	uint16_t free_head, old_free_head;
	uint16_t used_idx, old_used_idx; /* old: everything before it is settled */
	uint8_t used_wrap, old_used_wrap;
	uint8_t pad[10];
	struct vq_packed_entry entry[];
};

#define vq_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)

static inline bool vq_has(const struct umdev_vq *vq, unsigned feature)
{
	return vq->config.features >> feature & 1;
}

static inline bool vq_is_packed(const struct umdev_vq *vq)
{
	return vq_has(vq, UMDEV_VIRTIO_F_PACKED);
}

/* Has `event` been reached by the step from `old` to `now`? (2.7.10) */
static inline bool vq_passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* One descriptor's memory. -EPROTO: order of reading and writing, too many, wraps. */
int vq_add_seg(struct umdev_vq_chain *chain, uint64_t addr, uint32_t len, bool write);
/* Reads an indirect table of `len` bytes. 0 and its number of entries. -EPROTO, -EFAULT. */
int vq_read_table(struct umdev_vq *vq, uint64_t addr, uint32_t len,
		  struct vq_desc table[static UMDEV_VQ_SEGS], unsigned *ret_n);
/* Rows in flight in the order in which they were taken: to be given again. */
void vq_sort_again(struct umdev_vq *vq, uint64_t (*counter_of)(const struct umdev_vq *, uint16_t));

/* vq_split.c */
int split_init(struct umdev_vq *vq);
bool split_is_new(struct umdev_vq *vq); /* false on error too: vq->error */
int split_take(struct umdev_vq *vq, uint16_t *ret_head);
int split_read(struct umdev_vq *vq, uint16_t head, struct umdev_vq_chain *chain);
int split_use(struct umdev_vq *vq, uint16_t head, uint32_t written);
bool split_wants_signal(struct umdev_vq *vq);
int split_ask(struct umdev_vq *vq, bool notify);

/* vq_packed.c */
int packed_init(struct umdev_vq *vq);
bool packed_is_new(struct umdev_vq *vq);
int packed_take(struct umdev_vq *vq, uint16_t *ret_head);
int packed_read(struct umdev_vq *vq, uint16_t head, struct umdev_vq_chain *chain);
int packed_use(struct umdev_vq *vq, uint16_t head, uint32_t written);
bool packed_wants_signal(struct umdev_vq *vq);
int packed_ask(struct umdev_vq *vq, bool notify);

#endif
