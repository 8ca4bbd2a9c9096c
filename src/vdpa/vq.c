// SPDX-License-Identifier: MIT
/* What both ring layouts share: judging chains, order, what is given again after a death. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/range.h"
#include "vdpa/vq.h"

size_t umdev_vq_journal_size(uint16_t size, bool packed)
{
	size_t len =
		packed ? sizeof(struct vq_packed_journal) + size * sizeof(struct vq_packed_entry)
		       : sizeof(struct vq_split_journal) + size * sizeof(struct vq_split_entry);

	return (len + 63) & ~(size_t)63;
}

int vq_add_seg(struct umdev_vq_chain *chain, uint64_t addr, uint32_t len, bool write)
{
	unsigned n = chain->n_out + chain->n_in;

	if (!range_is_sane(addr, len) || (!write && chain->n_in) || n == UMDEV_VQ_SEGS)
		return -EPROTO;
	if (!len)
		return 0;
	chain->seg[n] = (struct umdev_seg){ { addr }, len };
	if (write) {
		chain->n_in++;
		chain->in_len += len;
	} else {
		chain->n_out++;
		chain->out_len += len;
	}
	return 0;
}

int vq_read_table(struct umdev_vq *vq, uint64_t addr, uint32_t len,
		  struct vq_desc table[static UMDEV_VQ_SEGS], unsigned *ret_n)
{
	if (!vq_has(vq, UMDEV_VIRTIO_F_INDIRECT) || !len || len % VQ_DESC_SIZE ||
	    len > UMDEV_VQ_SEGS * VQ_DESC_SIZE || !range_is_sane(addr, len))
		return -EPROTO;
	*ret_n = len / VQ_DESC_SIZE;
	return umdev_queue_read(vq->q, (struct iova){ addr }, table, len);
}

void vq_sort_again(struct umdev_vq *vq, uint64_t (*counter_of)(const struct umdev_vq *, uint16_t))
{
	for (unsigned i = 1; i < vq->n_again; i++) {
		uint16_t head = vq->list[i];
		unsigned k = i;

		for (; k && counter_of(vq, vq->list[k - 1]) > counter_of(vq, head); k--)
			vq->list[k] = vq->list[k - 1];
		vq->list[k] = head;
	}
	vq->counter = vq->n_again ? counter_of(vq, vq->list[vq->n_again - 1]) + 1 : 0;
}

static bool config_is_sane(const struct umdev_vq_config *c)
{
	bool packed = c->features >> UMDEV_VIRTIO_F_PACKED & 1;
	uint16_t mask = packed ? 0x7fff : 0;

	if (!c->size || c->size > UMDEV_VQ_SIZE_MAX)
		return false;
	if (!packed)
		return !(c->size & (c->size - 1));
	return (c->avail & mask) < c->size && (c->used & mask) < c->size;
}

int umdev_vq_init(struct umdev_vq *vq, struct umdev_queue *q, const struct umdev_vq_config *config,
		  void *journal)
{
	if (!config_is_sane(config))
		return -EINVAL;
	memset(vq, 0, sizeof(*vq));
	vq->q = q;
	vq->config = *config;
	vq->journal = journal;
	vq->must_signal = true;
	return vq_is_packed(vq) ? packed_init(vq) : split_init(vq);
}

/* The driver broke a rule, or its memory went: nothing of this ring is touched any more. */
static int fail(struct umdev_vq *vq, int error)
{
	vq->error = error;
	return error;
}

static void remember_order(struct umdev_vq *vq, uint16_t head)
{
	if (!vq_has(vq, UMDEV_VIRTIO_F_IN_ORDER))
		return;
	vq->order[(vq->first + vq->n++) % UMDEV_VQ_SIZE_MAX] = head;
	vq->state[head] = UMDEV_VQ_TAKEN;
}

int umdev_vq_pop(struct umdev_vq *vq, struct umdev_vq_chain *ret)
{
	uint16_t head;
	int r;

	if (vq->error)
		return vq->error;
	if (vq->again < vq->n_again) {
		head = vq->list[vq->again++];
	} else {
		r = vq_is_packed(vq) ? packed_take(vq, &head) : split_take(vq, &head);
		if (r <= 0)
			return r < 0 ? fail(vq, r) : 0;
	}
	ret->head = head;
	ret->n_out = ret->n_in = 0;
	ret->out_len = ret->in_len = 0;
	r = vq_is_packed(vq) ? packed_read(vq, head, ret) : split_read(vq, head, ret);
	if (r < 0)
		return fail(vq, r);
	remember_order(vq, head);
	return 1;
}

static int use(struct umdev_vq *vq, uint16_t head, uint32_t written)
{
	int r = vq_is_packed(vq) ? packed_use(vq, head, written) : split_use(vq, head, written);

	return r < 0 ? fail(vq, r) : 0;
}

/* Gives back what is done, as far as nothing before it is missing. */
static int use_in_order(struct umdev_vq *vq)
{
	while (vq->n) {
		uint16_t head = vq->order[vq->first];
		int r;

		if (vq->state[head] != UMDEV_VQ_DONE)
			break;
		vq->state[head] = 0;
		vq->first = (vq->first + 1) % UMDEV_VQ_SIZE_MAX;
		vq->n--;
		r = use(vq, head, vq->len[head]);
		if (r < 0)
			return r;
	}
	return 0;
}

int umdev_vq_push(struct umdev_vq *vq, uint16_t head, uint32_t written)
{
	if (vq->error)
		return vq->error;
	if (!vq_has(vq, UMDEV_VIRTIO_F_IN_ORDER))
		return use(vq, head, written);
	vq->len[head] = written;
	vq->state[head] = UMDEV_VQ_DONE;
	return use_in_order(vq);
}

bool umdev_vq_should_signal(struct umdev_vq *vq)
{
	bool yes;

	if (vq->error || (!vq->unsignalled && !vq->must_signal))
		return false;
	umdev_queue_barrier();
	yes = vq_is_packed(vq) ? packed_wants_signal(vq) : split_wants_signal(vq);
	yes |= vq->must_signal;
	vq->must_signal = false;
	vq->unsignalled = 0;
	return yes;
}

bool umdev_vq_arm(struct umdev_vq *vq)
{
	int r;

	if (vq->error)
		return false;
	r = vq_is_packed(vq) ? packed_ask(vq, true) : split_ask(vq, true);
	if (r < 0) {
		fail(vq, r);
		return false;
	}
	umdev_queue_barrier();
	return vq->again < vq->n_again || (vq_is_packed(vq) ? packed_is_new(vq) : split_is_new(vq));
}

void umdev_vq_disarm(struct umdev_vq *vq)
{
	int r;

	if (vq->error)
		return;
	r = vq_is_packed(vq) ? packed_ask(vq, false) : split_ask(vq, false);
	if (r < 0)
		fail(vq, r);
}

void umdev_vq_position(const struct umdev_vq_config *config, const void *journal,
		       uint16_t *ret_avail, uint16_t *ret_used)
{
	const struct vq_packed_journal *packed = journal;
	const struct vq_split_journal *split = journal;

	if (split->version != VQ_JOURNAL_VERSION) { /* it never began */
		*ret_avail = config->avail;
		*ret_used = config->used;
	} else if (config->features >> UMDEV_VIRTIO_F_PACKED & 1) {
		*ret_used = packed->used_idx | (uint16_t)(packed->used_wrap << 15);
		*ret_avail = *ret_used;
	} else {
		*ret_used = split->used_idx;
		*ret_avail = *ret_used;
	}
}
