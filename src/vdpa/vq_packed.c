// SPDX-License-Identifier: MIT
/*
 * Packed rings (virtio 1.2, 2.8).
 *
 * A used descriptor overwrites an available one, not always its own, so the journal holds copies:
 * one row per descriptor, linked into chains and into a list of free rows.
 *
 * Taking a chain fills free rows, then stores `inflight` in the first: that is the commit.
 * Giving it back: `free_head` names it; `used_idx` and `used_wrap` move; the descriptor is written;
 * `inflight` goes; the old position follows. A successor that finds the positions apart looks at
 * `inflight` and, if it is still set, at the ring: was the descriptor written or not? The list of
 * free rows and how far the ring was read follow from the chains in flight.
 */
#include <errno.h>
#include "vdpa/vq.h"

#define DESC_LEN 8
#define DESC_FLAGS 14
#define EVENT_OFFSET 0 /* of an event suppression area: position | wrap << 15 */
#define EVENT_FLAGS 2
#define EVENT_AREA 4
enum event_flags { EVENT_ENABLE, EVENT_DISABLE, EVENT_AT };

struct used_tail {
	le32 len;
	le16 id;
} __attribute__((packed));

static struct vq_packed_journal *journal_of(const struct umdev_vq *vq)
{
	return vq->journal;
}

static uint64_t counter_of(const struct umdev_vq *vq, uint16_t head)
{
	return journal_of(vq)->entry[head].counter;
}

static void advance(const struct umdev_vq *vq, uint16_t *pos, bool *wrap, unsigned n)
{
	unsigned at = *pos + n;

	if (at >= vq->config.size) {
		at -= vq->config.size;
		*wrap = !*wrap;
	}
	*pos = (uint16_t)at;
}

/* ---- recovery ---- */

static int read_flags(struct umdev_vq *vq, uint16_t pos, uint16_t *ret)
{
	return umdev_window_load16(vq->q, &vq->desc, (uint64_t)pos * VQ_DESC_SIZE + DESC_FLAGS,
				   ret);
}

/* The chain that a dead life was giving back: was it? */
static int settle(struct umdev_vq *vq)
{
	struct vq_packed_journal *j = journal_of(vq);
	uint16_t head = j->free_head, flags, pos = j->old_used_idx;
	bool wrap = j->old_used_wrap;
	int r;

	if (j->used_idx != pos || j->used_wrap != wrap) {
		if (head >= vq->config.size)
			return -EUCLEAN;
		if (j->entry[head].inflight) {
			r = read_flags(vq, pos, &flags);
			if (r < 0)
				return r;
			if (!(flags & VQ_DESC_USED) == wrap || !(flags & VQ_DESC_AVAIL) == wrap) {
				vq_store(&j->used_idx, pos); /* not: as if it had not begun */
				vq_store(&j->used_wrap, wrap);
			} else {
				vq_store(&j->entry[head].inflight, 0);
			}
		}
		vq_store(&j->old_used_idx, j->used_idx);
		vq_store(&j->old_used_wrap, j->used_wrap);
	}
	vq->next_used = j->used_idx;
	vq->used_wrap = j->used_wrap;
	return 0;
}

/* Marks the rows of a chain as taken. Their number, or -EUCLEAN. */
static int mark_chain(struct umdev_vq *vq, uint16_t head, uint8_t *taken)
{
	const struct vq_packed_entry *entry = journal_of(vq)->entry;
	uint16_t num = entry[head].num, row = head;

	if (!num || num > vq->config.size)
		return -EUCLEAN;
	for (unsigned i = 0; i < num; i++) {
		if (row >= vq->config.size || taken[row])
			return -EUCLEAN;
		taken[row] = 1;
		if (i == num - 1U && row != entry[head].last)
			return -EUCLEAN;
		row = entry[row].next;
	}
	return num;
}

static void link_free(struct umdev_vq *vq, const uint8_t *taken)
{
	struct vq_packed_journal *j = journal_of(vq);
	uint16_t *link = &j->free_head;

	for (uint16_t row = 0; row < vq->config.size; row++) {
		if (taken[row])
			continue;
		*link = row;
		link = &j->entry[row].next;
	}
	*link = vq->config.size; /* the end */
	vq_store(&j->old_free_head, j->free_head);
}

static int recover(struct umdev_vq *vq)
{
	struct vq_packed_journal *j = journal_of(vq);
	uint8_t taken[UMDEV_VQ_SIZE_MAX] = { 0 };
	unsigned total = 0;
	int r;

	if (j->version != VQ_JOURNAL_VERSION || j->size != vq->config.size ||
	    j->used_idx >= j->size || j->old_used_idx >= j->size || j->used_wrap > 1 ||
	    j->old_used_wrap > 1)
		return -EUCLEAN;
	r = settle(vq);
	for (uint16_t head = 0; r >= 0 && head < vq->config.size; head++) {
		if (!j->entry[head].inflight)
			continue;
		vq->list[vq->n_again++] = head;
		r = mark_chain(vq, head, taken);
		total += r > 0 ? (unsigned)r : 0;
	}
	if (r < 0)
		return r;
	link_free(vq, taken);
	vq_sort_again(vq, counter_of);
	vq->next_avail = vq->next_used;
	vq->avail_wrap = vq->used_wrap;
	advance(vq, &vq->next_avail, &vq->avail_wrap, total);
	return 0;
}

static void begin(struct umdev_vq *vq)
{
	static const uint8_t none[UMDEV_VQ_SIZE_MAX];
	const struct umdev_vq_config *c = &vq->config;
	struct vq_packed_journal *j = journal_of(vq);

	vq->next_avail = c->avail & 0x7fff;
	vq->avail_wrap = c->avail >> 15;
	vq->next_used = c->used & 0x7fff;
	vq->used_wrap = c->used >> 15;
	j->features = c->features;
	j->size = c->size;
	j->used_idx = j->old_used_idx = vq->next_used;
	j->used_wrap = j->old_used_wrap = vq->used_wrap;
	link_free(vq, none);
	vq_store(&j->version, VQ_JOURNAL_VERSION);
}

int packed_init(struct umdev_vq *vq)
{
	const struct umdev_vq_config *c = &vq->config;
	uint16_t flags;

	vq->desc = (struct umdev_window){ .iova = c->desc,
					  .len = (uint64_t)VQ_DESC_SIZE * c->size,
					  .write = true };
	vq->driver = (struct umdev_window){ .iova = c->driver, .len = EVENT_AREA };
	vq->device = (struct umdev_window){ .iova = c->device, .len = EVENT_AREA, .write = true };
	if (journal_of(vq)->version)
		return recover(vq);
	begin(vq);
	return read_flags(vq, vq->next_avail, &flags); /* is the ring there? */
}

/* ---- taking ---- */

static int is_available(struct umdev_vq *vq, uint16_t pos, bool wrap)
{
	uint16_t flags;
	int r = read_flags(vq, pos, &flags);

	if (r < 0)
		return r;
	return !(flags & VQ_DESC_AVAIL) == !wrap && !(flags & VQ_DESC_USED) == wrap;
}

bool packed_is_new(struct umdev_vq *vq)
{
	int r = is_available(vq, vq->next_avail, vq->avail_wrap);

	if (r < 0)
		vq->error = r;
	return r > 0;
}

/* Copies one descriptor into a row. Its flags, or -errno. */
static int copy_desc(struct umdev_vq *vq, uint16_t pos, struct vq_packed_entry *row)
{
	struct vq_desc desc;
	int r;

	r = umdev_window_read(vq->q, &vq->desc, (uint64_t)pos * VQ_DESC_SIZE, &desc, sizeof(desc));
	if (r < 0)
		return r;
	row->inflight = 0;
	row->addr = le64_get(desc.addr);
	row->len = le32_get(desc.len);
	row->id = le16_get(desc.flags);
	row->flags = le16_get(desc.next);
	return row->flags;
}

int packed_take(struct umdev_vq *vq, uint16_t *ret_head)
{
	struct vq_packed_journal *j = journal_of(vq);
	uint16_t head = j->free_head, row = head, last, pos = vq->next_avail;
	int r = is_available(vq, pos, vq->avail_wrap);
	uint16_t num = 0;

	if (r <= 0)
		return r;
	do {
		if (row >= vq->config.size) /* more than the ring holds */
			return -EPROTO;
		r = copy_desc(vq, pos, &j->entry[row]);
		if (r < 0)
			return r;
		last = row;
		row = j->entry[row].next;
		num++;
		pos = pos + 1 == vq->config.size ? 0 : pos + 1;
	} while (r & VQ_DESC_NEXT);
	j->entry[head].num = num;
	j->entry[head].last = last;
	j->entry[head].counter = vq->counter++;
	vq_store(&j->entry[head].inflight, 1);
	vq_store(&j->free_head, row);
	vq_store(&j->old_free_head, row);
	advance(vq, &vq->next_avail, &vq->avail_wrap, num);
	*ret_head = head;
	return 1;
}

static int read_indirect(struct umdev_vq *vq, const struct vq_packed_entry *row,
			 struct umdev_vq_chain *chain)
{
	struct vq_desc table[UMDEV_VQ_SEGS];
	unsigned n;
	int r = vq_read_table(vq, row->addr, row->len, table, &n);

	for (unsigned i = 0; r == 0 && i < n; i++) {
		unsigned flags = le16_get(table[i].next); /* of packed descriptors */

		if (flags & VQ_DESC_INDIRECT)
			return -EPROTO;
		r = vq_add_seg(chain, le64_get(table[i].addr), le32_get(table[i].len),
			       flags & VQ_DESC_WRITE);
	}
	return r;
}

int packed_read(struct umdev_vq *vq, uint16_t head, struct umdev_vq_chain *chain)
{
	struct vq_packed_journal *j = journal_of(vq);
	uint16_t row = head, num = j->entry[head].num;

	for (unsigned i = 0; i < num; i++) {
		struct vq_packed_entry entry;
		int r;

		if (row >= vq->config.size || i == vq->config.size)
			return -EPROTO;
		entry = j->entry[row];
		if (entry.flags & VQ_DESC_INDIRECT) /* alone in its chain: 2.8.19 */
			return num > 1 ? -EPROTO : read_indirect(vq, &entry, chain);
		r = vq_add_seg(chain, entry.addr, entry.len, entry.flags & VQ_DESC_WRITE);
		if (r < 0)
			return r;
		row = entry.next;
	}
	return 0;
}

/* ---- giving back ---- */

/* The used descriptor: everything, and then the flags that make it one. */
static int write_used(struct umdev_vq *vq, uint16_t id, uint32_t written)
{
	struct used_tail tail = { le32_set(written), le16_set(id) };
	uint64_t at = (uint64_t)vq->next_used * VQ_DESC_SIZE;
	uint16_t flags = vq->used_wrap ? VQ_DESC_AVAIL | VQ_DESC_USED : 0;
	int r;

	if (written)
		flags |= VQ_DESC_WRITE;
	r = umdev_window_write(vq->q, &vq->desc, at + DESC_LEN, &tail, sizeof(tail));
	if (r < 0)
		return r;
	return umdev_window_store16(vq->q, &vq->desc, at + DESC_FLAGS, flags);
}

int packed_use(struct umdev_vq *vq, uint16_t head, uint32_t written)
{
	struct vq_packed_journal *j = journal_of(vq);
	struct vq_packed_entry *entry = &j->entry[head];
	uint16_t num = entry->num, last = entry->last, pos = vq->next_used;
	bool wrap = vq->used_wrap;
	int r;

	if (!num || num > vq->config.size || last >= vq->config.size)
		return -EPROTO; /* somebody else writes the journal */
	advance(vq, &pos, &wrap, num);
	j->entry[last].next = j->free_head;
	vq_store(&j->free_head, head);
	vq_store(&j->used_idx, pos);
	vq_store(&j->used_wrap, wrap);
	r = write_used(vq, j->entry[last].id, written);
	if (r < 0)
		return r;
	vq_store(&entry->inflight, 0);
	vq_store(&j->old_free_head, head);
	vq_store(&j->old_used_idx, pos);
	vq_store(&j->old_used_wrap, wrap);
	vq->next_used = pos;
	vq->used_wrap = wrap;
	vq->unsignalled += num;
	return 0;
}

bool packed_wants_signal(struct umdev_vq *vq)
{
	uint16_t flags, at, event;
	int r = umdev_window_load16(vq->q, &vq->driver, EVENT_FLAGS, &flags);

	if (r == 0)
		r = umdev_window_load16(vq->q, &vq->driver, EVENT_OFFSET, &at);
	if (r < 0)
		return true; /* one too many harms nobody */
	if (flags != EVENT_AT || !vq_has(vq, UMDEV_VIRTIO_F_EVENT_IDX))
		return flags != EVENT_DISABLE;
	event = at & 0x7fff;
	if (at >> 15 != vq->used_wrap)
		event -= vq->config.size;
	return vq_passed(event, vq->next_used, vq->next_used - vq->unsignalled);
}

int packed_ask(struct umdev_vq *vq, bool notify)
{
	bool at = notify && vq_has(vq, UMDEV_VIRTIO_F_EVENT_IDX);
	int r = 0;

	if (at)
		r = umdev_window_store16(vq->q, &vq->device, EVENT_OFFSET,
					 vq->next_avail | (uint16_t)(vq->avail_wrap << 15));
	if (r < 0)
		return r;
	return umdev_window_store16(vq->q, &vq->device, EVENT_FLAGS,
				    !notify ? EVENT_DISABLE
				    : at    ? EVENT_AT
					    : EVENT_ENABLE);
}
