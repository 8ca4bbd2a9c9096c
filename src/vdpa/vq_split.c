// SPDX-License-Identifier: MIT
/*
 * Split rings (virtio 1.2, 2.7).
 *
 * Journal. Taking a chain: its counter, then `inflight`. Giving it back: `last_head`, the element
 * of the used ring, the used index, then `inflight` and `used_idx`. A successor that finds the
 * ring's used index past `used_idx` knows that the chain `last_head` was given back. How far the
 * available ring was read needs no field: everything taken is used or in flight.
 */
#include <errno.h>
#include "vdpa/vq.h"

#define RING_FLAGS 0
#define RING_IDX 2
#define AVAIL_RING(i) (4 + 2 * (uint64_t)(i))
#define USED_RING(i) (4 + 8 * (uint64_t)(i))
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

struct used_elem {
	le32 id, len;
};

static struct vq_split_journal *journal_of(const struct umdev_vq *vq)
{
	return vq->journal;
}

static uint64_t counter_of(const struct umdev_vq *vq, uint16_t head)
{
	return journal_of(vq)->entry[head].counter;
}

/* The last chains that a dead life gave back, without having noted it. */
static int settle(struct umdev_vq *vq, uint16_t used_idx)
{
	struct vq_split_journal *j = journal_of(vq);
	uint16_t n = used_idx - j->used_idx, head = j->last_head;

	if (n > vq->config.size)
		return -EUCLEAN;
	for (; n; n--) {
		if (head >= vq->config.size)
			return -EUCLEAN;
		vq_store(&j->entry[head].inflight, 0);
		head = j->entry[head].next;
	}
	vq_store(&j->used_idx, used_idx);
	return 0;
}

static int recover(struct umdev_vq *vq, uint16_t used_idx)
{
	struct vq_split_journal *j = journal_of(vq);
	int r;

	if (j->version != VQ_JOURNAL_VERSION || j->size != vq->config.size)
		return -EUCLEAN;
	r = settle(vq, used_idx);
	if (r < 0)
		return r;
	for (uint16_t head = 0; head < vq->config.size; head++)
		if (j->entry[head].inflight)
			vq->list[vq->n_again++] = head;
	vq_sort_again(vq, counter_of);
	vq->next_avail = used_idx + vq->n_again;
	return 0;
}

int split_init(struct umdev_vq *vq)
{
	const struct umdev_vq_config *c = &vq->config;
	struct vq_split_journal *j = journal_of(vq);
	uint16_t used_idx;
	int r = 0;

	vq->desc = (struct umdev_window){ .iova = c->desc, .len = VQ_DESC_SIZE * c->size };
	vq->driver = (struct umdev_window){ .iova = c->driver, .len = AVAIL_RING(c->size) + 2 };
	vq->device = (struct umdev_window){ .iova = c->device,
					    .len = USED_RING(c->size) + 2,
					    .write = true };
	r = umdev_window_load16(vq->q, &vq->device, RING_IDX, &used_idx);
	if (r < 0)
		return r;
	if (j->version) {
		r = recover(vq, used_idx);
	} else {
		vq->next_avail = c->avail;
		j->features = c->features;
		j->size = c->size;
		j->used_idx = used_idx;
		vq_store(&j->version, VQ_JOURNAL_VERSION);
	}
	vq->next_used = used_idx;
	vq->seen_avail = vq->next_avail;
	return r;
}

/* How many chains are to be taken; -EPROTO, -EFAULT. */
static int n_new(struct umdev_vq *vq)
{
	int r = 0;

	if (vq->seen_avail == vq->next_avail)
		r = umdev_window_load16(vq->q, &vq->driver, RING_IDX, &vq->seen_avail);
	if (r < 0)
		return r;
	r = (uint16_t)(vq->seen_avail - vq->next_avail);
	return r > vq->config.size ? -EPROTO : r;
}

bool split_is_new(struct umdev_vq *vq)
{
	int n = n_new(vq);

	if (n < 0)
		vq->error = n;
	return n > 0;
}

int split_take(struct umdev_vq *vq, uint16_t *ret_head)
{
	struct vq_split_entry *entry;
	uint16_t at = vq->next_avail & (vq->config.size - 1);
	le16 head;
	int r = n_new(vq);

	if (r <= 0)
		return r;
	r = umdev_window_read(vq->q, &vq->driver, AVAIL_RING(at), &head, sizeof(head));
	if (r < 0)
		return r;
	*ret_head = le16_get(head);
	if (*ret_head >= vq->config.size)
		return -EPROTO;
	entry = &journal_of(vq)->entry[*ret_head];
	if (entry->inflight) /* available twice */
		return -EPROTO;
	entry->counter = vq->counter++;
	vq_store(&entry->inflight, 1);
	vq->next_avail++;
	return 1;
}

static int read_indirect(struct umdev_vq *vq, const struct vq_desc *desc,
			 struct umdev_vq_chain *chain)
{
	struct vq_desc table[UMDEV_VQ_SEGS];
	unsigned n, i = 0;
	int r = vq_read_table(vq, le64_get(desc->addr), le32_get(desc->len), table, &n);

	for (unsigned steps = 0; r == 0; steps++) {
		unsigned flags;

		if (i >= n || steps == n)
			return -EPROTO;
		flags = le16_get(table[i].flags);
		if (flags & VQ_DESC_INDIRECT)
			return -EPROTO;
		r = vq_add_seg(chain, le64_get(table[i].addr), le32_get(table[i].len),
			       flags & VQ_DESC_WRITE);
		if (!(flags & VQ_DESC_NEXT))
			break;
		i = le16_get(table[i].next);
	}
	return r;
}

int split_read(struct umdev_vq *vq, uint16_t head, struct umdev_vq_chain *chain)
{
	uint16_t at = head;

	for (unsigned steps = 0; steps < vq->config.size; steps++) {
		struct vq_desc desc;
		unsigned flags;
		int r;

		r = umdev_window_read(vq->q, &vq->desc, (uint64_t)at * VQ_DESC_SIZE, &desc,
				      sizeof(desc));
		if (r < 0)
			return r;
		flags = le16_get(desc.flags);
		if (flags & VQ_DESC_INDIRECT)
			return flags & VQ_DESC_NEXT ? -EPROTO : read_indirect(vq, &desc, chain);
		r = vq_add_seg(chain, le64_get(desc.addr), le32_get(desc.len),
			       flags & VQ_DESC_WRITE);
		if (r < 0)
			return r;
		if (!(flags & VQ_DESC_NEXT))
			return 0;
		at = le16_get(desc.next);
		if (at >= vq->config.size)
			return -EPROTO;
	}
	return -EPROTO; /* a loop */
}

int split_use(struct umdev_vq *vq, uint16_t head, uint32_t written)
{
	struct vq_split_journal *j = journal_of(vq);
	struct used_elem elem = { le32_set(head), le32_set(written) };
	uint16_t at = vq->next_used & (vq->config.size - 1);
	int r;

	j->entry[head].next = j->last_head;
	vq_store(&j->last_head, head);
	r = umdev_window_write(vq->q, &vq->device, USED_RING(at), &elem, sizeof(elem));
	if (r < 0)
		return r;
	vq->next_used++;
	r = umdev_window_store16(vq->q, &vq->device, RING_IDX, vq->next_used);
	if (r < 0)
		return r;
	vq_store(&j->entry[head].inflight, 0);
	vq_store(&j->used_idx, vq->next_used);
	vq->unsignalled++;
	return 0;
}

bool split_wants_signal(struct umdev_vq *vq)
{
	uint16_t now = vq->next_used, old = now - vq->unsignalled, word;
	bool event_idx = vq_has(vq, UMDEV_VIRTIO_F_EVENT_IDX);
	int r;

	r = umdev_window_load16(vq->q, &vq->driver,
				event_idx ? AVAIL_RING(vq->config.size) : RING_FLAGS, &word);
	if (r < 0)
		return true; /* one too many harms nobody */
	return event_idx ? vq_passed(word, now, old) : !(word & AVAIL_NO_INTERRUPT);
}

int split_ask(struct umdev_vq *vq, bool notify)
{
	if (!vq_has(vq, UMDEV_VIRTIO_F_EVENT_IDX))
		return umdev_window_store16(vq->q, &vq->device, RING_FLAGS,
					    notify ? 0 : USED_NO_NOTIFY);
	if (!notify) /* the event stays behind */
		return 0;
	return umdev_window_store16(vq->q, &vq->device, USED_RING(vq->config.size), vq->next_avail);
}
