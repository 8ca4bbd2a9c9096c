// SPDX-License-Identifier: MIT
#include "vq_ring.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "vdpa/vq.h"

struct vq_ring *vq_ring_memory;

/* ---- what the queue gives a virtqueue ---- */

static uint8_t *guest(uint64_t iova, uint64_t len)
{
	uint64_t at = iova - VQ_RING_BASE;

	if (iova < VQ_RING_BASE || at > sizeof(vq_ring_memory->guest) ||
	    len > sizeof(vq_ring_memory->guest) - at)
		return NULL;
	return vq_ring_memory->guest + at;
}

static uint8_t *window(const struct umdev_window *w, uint64_t offset, uint64_t len)
{
	assert(offset <= w->len && len <= w->len - offset); /* the library's own bug */
	return guest(w->iova.v + offset, len);
}

int umdev_window_read(struct umdev_queue *q, struct umdev_window *w, uint64_t offset, void *to,
		      size_t len)
{
	uint8_t *p = window(w, offset, len);

	return p ? memcpy(to, p, len), 0 : -EFAULT;
}

int umdev_window_write(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
		       const void *from, size_t len)
{
	uint8_t *p = window(w, offset, len);

	assert(w->write);
	return p ? memcpy(p, from, len), 0 : -EFAULT;
}

int umdev_window_load16(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			uint16_t *ret)
{
	uint8_t *p = window(w, offset, 2);

	if (!p)
		return -EFAULT;
	*ret = __atomic_load_n((uint16_t *)(void *)p, __ATOMIC_ACQUIRE);
	return 0;
}

int umdev_window_store16(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			 uint16_t value)
{
	uint8_t *p = window(w, offset, 2);

	assert(w->write);
	if (!p)
		return -EFAULT;
	__atomic_store_n((uint16_t *)(void *)p, value, __ATOMIC_RELEASE);
	return 0;
}

int umdev_queue_read(struct umdev_queue *q, struct iova from, void *to, size_t len)
{
	uint8_t *p = guest(from.v, len);

	return p ? memcpy(to, p, len), 0 : -EFAULT;
}

void umdev_queue_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- the driver ---- */

#define TABLES 16384 /* offset of the indirect tables in guest[] */

struct split_avail {
	uint16_t flags, idx, ring[];
};

struct split_used {
	uint16_t flags, idx;
	struct {
		uint32_t id, len;
	} ring[];
};

void *vq_ring_at(struct vq_ring *r, struct iova at)
{
	return r->guest + (at.v - VQ_RING_BASE);
}

static bool is_packed(const struct vq_ring *r)
{
	return r->config.features >> UMDEV_VIRTIO_F_PACKED & 1;
}

void vq_ring_init(struct vq_ring *r, uint64_t features, uint16_t size)
{
	memset(r, 0, sizeof(*r));
	r->config = (struct umdev_vq_config){ .features = features, .size = size };
	r->config.desc.v = VQ_RING_BASE;
	r->config.driver.v = VQ_RING_BASE + 4096;
	r->config.device.v = VQ_RING_BASE + 8192;
	r->avail_wrap = r->used_wrap = true;
	if (is_packed(r))
		r->config.avail = r->config.used = 0x8000;
	r->slots_free = size;
	for (r->n_free = 0; r->n_free < size; r->n_free++)
		r->free[r->n_free] = size - 1 - r->n_free;
	vq_ring_memory = r;
}

static void fill(struct vq_posted *c, unsigned out, unsigned in, uint64_t serial)
{
	*c = (struct vq_posted){ .posted = true, .n_out = out, .n_in = in, .serial = serial };
	for (unsigned i = 0; i < out + in; i++)
		c->seg[i] = (struct umdev_seg){ { (serial << 20) + i * 8192 }, 1 + serial % 4096 };
}

static struct vq_desc desc_of(const struct vq_posted *c, unsigned i)
{
	return (struct vq_desc){ le64_set(c->seg[i].addr.v), le32_set((uint32_t)c->seg[i].len),
				 le16_set(0), le16_set(0) };
}

static uint16_t flags_of(const struct vq_posted *c, unsigned i)
{
	return (i >= c->n_out ? VQ_DESC_WRITE : 0) |
	       (i + 1U < c->n_out + c->n_in ? VQ_DESC_NEXT : 0);
}

static struct vq_desc make_table(struct vq_ring *r, unsigned name)
{
	struct vq_posted *c = &r->chain[name];
	struct iova at = { VQ_RING_BASE + TABLES + name * VQ_RING_SEGS * VQ_DESC_SIZE };
	struct vq_desc *table = vq_ring_at(r, at);
	unsigned n = c->n_out + c->n_in;

	for (unsigned i = 0; i < n; i++) {
		table[i] = desc_of(c, i);
		if (is_packed(r)) {
			table[i].next = le16_set(flags_of(c, i) & VQ_DESC_WRITE);
		} else {
			table[i].flags = le16_set(flags_of(c, i));
			table[i].next = le16_set(i + 1);
		}
	}
	return (struct vq_desc){ le64_set(at.v), le32_set(n * VQ_DESC_SIZE), le16_set(0),
				 le16_set(0) };
}

static int post_split(struct vq_ring *r, unsigned out, unsigned in, bool indirect)
{
	struct vq_desc *ring = vq_ring_at(r, r->config.desc);
	struct split_avail *avail = vq_ring_at(r, r->config.driver);
	unsigned n = indirect ? 1 : out + in, name;
	struct vq_posted *c;

	if (r->n_free < n)
		return -1;
	name = r->free[r->n_free - 1];
	c = &r->chain[name];
	fill(c, out, in, r->serial++);
	c->n_slots = n;
	for (unsigned i = 0; i < n; i++)
		c->slot[i] = r->free[--r->n_free];
	for (unsigned i = 0; i < n; i++) {
		struct vq_desc *d = &ring[c->slot[i]];

		*d = indirect ? make_table(r, name) : desc_of(c, i);
		d->flags = le16_set(indirect ? VQ_DESC_INDIRECT : flags_of(c, i));
		d->next = le16_set(i + 1 < n ? c->slot[i + 1] : 0xffff);
	}
	avail->ring[r->avail % r->config.size] = name;
	__atomic_store_n(&avail->idx, ++r->avail, __ATOMIC_RELEASE);
	return name;
}

static int post_packed(struct vq_ring *r, unsigned out, unsigned in, bool indirect)
{
	struct vq_desc *ring = vq_ring_at(r, r->config.desc);
	unsigned n = indirect ? 1 : out + in, name, head = r->avail;
	uint16_t head_flags = 0;
	struct vq_posted *c;

	if (r->slots_free < n || !r->n_free)
		return -1;
	name = r->free[--r->n_free];
	r->slots_free -= n;
	c = &r->chain[name];
	fill(c, out, in, r->serial++);
	c->n_slots = n;
	for (unsigned i = 0; i < n; i++) {
		struct vq_desc *d = &ring[r->avail], new = desc_of(c, i);
		uint16_t flags = indirect ? VQ_DESC_INDIRECT : flags_of(c, i);

		flags |= r->avail_wrap ? VQ_DESC_AVAIL : VQ_DESC_USED;
		if (indirect)
			new = make_table(r, name);
		new.flags = le16_set(name);
		new.next = i ? le16_set(flags) : d->next;
		*d = new;
		if (!i)
			head_flags = flags;
		if (++r->avail == r->config.size) {
			r->avail = 0;
			r->avail_wrap = !r->avail_wrap;
		}
	}
	__atomic_store_n(&ring[head].next.raw, head_flags, __ATOMIC_RELEASE);
	return name;
}

int vq_ring_post(struct vq_ring *r, unsigned out, unsigned in, bool indirect)
{
	return is_packed(r) ? post_packed(r, out, in, indirect) : post_split(r, out, in, indirect);
}

bool vq_ring_is(const struct vq_ring *r, unsigned name, const struct umdev_vq_chain *chain)
{
	const struct vq_posted *c = &r->chain[name];

	return c->posted && chain->n_out == c->n_out && chain->n_in == c->n_in &&
	       !memcmp(chain->seg, c->seg, (c->n_out + c->n_in) * sizeof(c->seg[0])) &&
	       chain->out_len == c->n_out * (1 + c->serial % 4096) &&
	       chain->in_len == c->n_in * (1 + c->serial % 4096);
}

unsigned vq_ring_name(const struct vq_ring *r, const struct umdev_vq *vq, uint16_t head)
{
	const struct vq_packed_journal *j = vq->journal;

	return is_packed(r) ? j->entry[j->entry[head].last].id : head;
}

static int give_back(struct vq_ring *r, uint32_t name)
{
	struct vq_posted *c = name < r->config.size ? &r->chain[name] : NULL;
	bool in_order = r->config.features >> UMDEV_VIRTIO_F_IN_ORDER & 1;

	if (!c || !c->posted || (in_order && c->serial != r->reaped))
		return -2;
	c->posted = false;
	r->reaped++;
	if (is_packed(r))
		r->free[r->n_free++] = name;
	for (unsigned i = 0; !is_packed(r) && i < c->n_slots; i++)
		r->free[r->n_free++] = c->slot[i];
	return (int)name;
}

static int reap_split(struct vq_ring *r, uint32_t *ret_written)
{
	struct split_used *used = vq_ring_at(r, r->config.device);
	unsigned at = r->used % r->config.size;

	if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == r->used)
		return -1;
	r->used++;
	*ret_written = used->ring[at].len;
	return give_back(r, used->ring[at].id);
}

static int reap_packed(struct vq_ring *r, uint32_t *ret_written)
{
	struct vq_desc *d = (struct vq_desc *)vq_ring_at(r, r->config.desc) + r->used;
	uint16_t flags = __atomic_load_n(&d->next.raw, __ATOMIC_ACQUIRE);
	unsigned name = le16_get(d->flags);
	int given;

	if (!(flags & VQ_DESC_AVAIL) == r->used_wrap || !(flags & VQ_DESC_USED) == r->used_wrap)
		return -1;
	*ret_written = le32_get(d->len);
	given = give_back(r, name);
	if (given < 0)
		return given;
	r->slots_free += r->chain[name].n_slots;
	r->used += r->chain[name].n_slots;
	if (r->used >= r->config.size) {
		r->used -= r->config.size;
		r->used_wrap = !r->used_wrap;
	}
	return given;
}

int vq_ring_reap(struct vq_ring *r, uint32_t *ret_written)
{
	return is_packed(r) ? reap_packed(r, ret_written) : reap_split(r, ret_written);
}
