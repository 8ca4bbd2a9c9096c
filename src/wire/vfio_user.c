// SPDX-License-Identifier: MIT
#include "wire/vfio_user.h"
#include <errno.h>

int64_t vuser_len(const uint8_t *data, size_t have)
{
	struct buf_reader r = buf_read_from(data, have);
	uint32_t size;

	buf_take(&r, 4);
	size = buf_get_u32(&r);
	if (r.bad)
		return 0;
	return size < VUSER_HEADER ? -EPROTO : (int64_t)size;
}

int vuser_get_header(const void *data, size_t len, struct vuser_header *ret)
{
	struct buf_reader r = buf_read_from(data, len);
	struct vuser_header h;

	h.id = buf_get_u16(&r);
	h.command = buf_get_u16(&r);
	h.size = buf_get_u32(&r);
	h.flags = buf_get_u32(&r);
	h.error = buf_get_u32(&r);
	if (r.bad || h.size != len || (h.flags & VUSER_TYPE_MASK) > VUSER_TYPE_REPLY ||
	    h.flags & ~(uint32_t)(VUSER_TYPE_MASK | VUSER_NO_REPLY | VUSER_ERROR))
		return -EPROTO;
	*ret = h;
	return 0;
}

void vuser_put_header(struct buf_writer *w, const struct vuser_header *h)
{
	buf_put_u16(w, h->id);
	buf_put_u16(w, h->command);
	buf_put_u32(w, h->size);
	buf_put_u32(w, h->flags);
	buf_put_u32(w, h->error);
}

int vuser_get_dma_map(const void *payload, size_t len, struct vuser_dma_map *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_dma_map m;

	m.argsz = buf_get_u32(&r);
	m.flags = buf_get_u32(&r);
	m.offset = buf_get_u64(&r);
	m.iova = buf_get_u64(&r);
	m.size = buf_get_u64(&r);
	if (r.bad)
		return -EINVAL;
	*ret = m;
	return 0;
}

int vuser_get_dma_unmap(const void *payload, size_t len, struct vuser_dma_unmap *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_dma_unmap m;

	m.argsz = buf_get_u32(&r);
	m.flags = buf_get_u32(&r);
	m.iova = buf_get_u64(&r);
	m.size = buf_get_u64(&r);
	if (r.bad)
		return -EINVAL;
	*ret = m;
	return 0;
}

void vuser_put_dma_unmap(struct buf_writer *w, const struct vuser_dma_unmap *m)
{
	buf_put_u32(w, m->argsz);
	buf_put_u32(w, m->flags);
	buf_put_u64(w, m->iova);
	buf_put_u64(w, m->size);
}

int vuser_get_dma_access(const void *payload, size_t len, struct vuser_dma_access *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_dma_access a;

	a.address = buf_get_u64(&r);
	a.count = buf_get_u64(&r);
	a.data = r.left ? r.at : NULL;
	if (r.bad || (r.left && r.left != a.count))
		return -EINVAL;
	*ret = a;
	return 0;
}

void vuser_put_dma_access(struct buf_writer *w, const struct vuser_dma_access *a)
{
	buf_put_u64(w, a->address);
	buf_put_u64(w, a->count);
	if (a->data)
		buf_put_bytes(w, a->data, a->count);
}

int vuser_get_info(const void *payload, size_t len, struct vuser_info *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_info i;

	i.argsz = buf_get_u32(&r);
	i.flags = buf_get_u32(&r);
	i.index = buf_get_u32(&r);
	i.count = buf_get_u32(&r);
	if (r.bad)
		return -EINVAL;
	*ret = i;
	return 0;
}

void vuser_put_info(struct buf_writer *w, const struct vuser_info *i)
{
	buf_put_u32(w, i->argsz);
	buf_put_u32(w, i->flags);
	buf_put_u32(w, i->index);
	buf_put_u32(w, i->count);
}

int vuser_get_region_info(const void *payload, size_t len, struct vuser_region_info *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_region_info i;

	i.argsz = buf_get_u32(&r);
	i.flags = buf_get_u32(&r);
	i.index = buf_get_u32(&r);
	i.cap_offset = buf_get_u32(&r);
	i.size = buf_get_u64(&r);
	i.offset = buf_get_u64(&r);
	if (r.bad)
		return -EINVAL;
	*ret = i;
	return 0;
}

void vuser_put_region_info(struct buf_writer *w, const struct vuser_region_info *i)
{
	buf_put_u32(w, i->argsz);
	buf_put_u32(w, i->flags);
	buf_put_u32(w, i->index);
	buf_put_u32(w, i->cap_offset);
	buf_put_u64(w, i->size);
	buf_put_u64(w, i->offset);
}

void vuser_put_sparse_area(struct buf_writer *w, uint64_t offset, uint64_t size)
{
	buf_put_u16(w, 1); /* sparse mmap */
	buf_put_u16(w, 1); /* version */
	buf_put_u32(w, 0); /* no capability follows */
	buf_put_u32(w, 1); /* areas */
	buf_put_u32(w, 0);
	buf_put_u64(w, offset);
	buf_put_u64(w, size);
}

static struct vuser_access get_access(struct buf_reader *r)
{
	struct vuser_access a = { 0 };

	a.offset = buf_get_u64(r);
	a.region = buf_get_u32(r);
	a.count = buf_get_u32(r);
	return a;
}

int vuser_get_read(const void *payload, size_t len, struct vuser_access *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_access a = get_access(&r);

	if (r.bad)
		return -EINVAL;
	*ret = a;
	return 0;
}

int vuser_get_write(const void *payload, size_t len, struct vuser_access *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_access a = get_access(&r);

	a.data = buf_take(&r, a.count);
	if (r.bad || r.left)
		return -EINVAL;
	*ret = a;
	return 0;
}

void vuser_put_access(struct buf_writer *w, const struct vuser_access *a)
{
	buf_put_u64(w, a->offset);
	buf_put_u32(w, a->region);
	buf_put_u32(w, a->count);
	if (a->data)
		buf_put_bytes(w, a->data, a->count);
}

int vuser_get_multi(const void *payload, size_t len, uint64_t *ret_count)
{
	struct buf_reader r = buf_read_from(payload, len);
	uint64_t count = buf_get_u64(&r);

	if (r.bad || r.left / VUSER_MULTI_ENTRY != count || r.left % VUSER_MULTI_ENTRY)
		return -EINVAL;
	*ret_count = count;
	return 0;
}

int vuser_get_multi_entry(const void *payload, size_t len, uint64_t index, struct vuser_access *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_access a;

	buf_take(&r, 8 + index * VUSER_MULTI_ENTRY);
	a = get_access(&r);
	a.data = buf_take(&r, 8);
	if (r.bad || a.count > 8)
		return -EINVAL;
	*ret = a;
	return 0;
}

int vuser_get_irq_set(const void *payload, size_t len, struct vuser_irq_set *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_irq_set s = { 0 };

	s.argsz = buf_get_u32(&r);
	s.flags = buf_get_u32(&r);
	s.index = buf_get_u32(&r);
	s.start = buf_get_u32(&r);
	s.count = buf_get_u32(&r);
	if ((s.flags & VUSER_IRQ_DATA_MASK) == VUSER_IRQ_DATA_BOOL)
		s.bools = buf_take(&r, s.count);
	if (r.bad)
		return -EINVAL;
	*ret = s;
	return 0;
}

int vuser_get_feature(const void *payload, size_t len, struct vuser_feature *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_feature f;

	f.argsz = buf_get_u32(&r);
	f.flags = buf_get_u32(&r);
	if (r.bad)
		return -EINVAL;
	*ret = f;
	return 0;
}
