// SPDX-License-Identifier: MIT
#include "wire/vhost_user.h"
#include <errno.h>

#define VRING_INDEX 0xff
#define VRING_NO_FD (1 << 8)

static const struct vhu_rule rules[VHU_N_REQUESTS] = {
	[VHU_GET_FEATURES] = { "GET_FEATURES", VHU_NONE, 0, true },
	[VHU_SET_FEATURES] = { "SET_FEATURES", VHU_U64, 0, false },
	[VHU_SET_OWNER] = { "SET_OWNER", VHU_NONE, 0, false },
	[VHU_RESET_OWNER] = { "RESET_OWNER", VHU_NONE, 0, false },
	[VHU_SET_MEM_TABLE] = { "SET_MEM_TABLE", VHU_MEMORY, VHU_MAX_REGIONS, false },
	[VHU_SET_LOG_BASE] = { "SET_LOG_BASE", VHU_LOG, 1, true },
	[VHU_SET_LOG_FD] = { "SET_LOG_FD", VHU_NONE, 1, false },
	[VHU_SET_VRING_NUM] = { "SET_VRING_NUM", VHU_VRING, 0, false },
	[VHU_SET_VRING_ADDR] = { "SET_VRING_ADDR", VHU_ADDR, 0, false },
	[VHU_SET_VRING_BASE] = { "SET_VRING_BASE", VHU_VRING, 0, false },
	[VHU_GET_VRING_BASE] = { "GET_VRING_BASE", VHU_VRING, 0, true },
	[VHU_SET_VRING_KICK] = { "SET_VRING_KICK", VHU_VRING_FD, 1, false },
	[VHU_SET_VRING_CALL] = { "SET_VRING_CALL", VHU_VRING_FD, 1, false },
	[VHU_SET_VRING_ERR] = { "SET_VRING_ERR", VHU_VRING_FD, 1, false },
	[VHU_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", VHU_NONE, 0, true },
	[VHU_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", VHU_U64, 0, false },
	[VHU_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", VHU_NONE, 0, true },
	[VHU_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", VHU_VRING, 0, false },
	[VHU_SET_BACKEND_REQ_FD] = { "SET_BACKEND_REQ_FD", VHU_NONE, 1, false },
	[VHU_GET_CONFIG] = { "GET_CONFIG", VHU_CONFIG, 0, true },
	[VHU_SET_CONFIG] = { "SET_CONFIG", VHU_CONFIG, 0, false },
	[VHU_GET_INFLIGHT_FD] = { "GET_INFLIGHT_FD", VHU_INFLIGHT, 0, true },
	[VHU_SET_INFLIGHT_FD] = { "SET_INFLIGHT_FD", VHU_INFLIGHT, 1, false },
	[VHU_RESET_DEVICE] = { "RESET_DEVICE", VHU_NONE, 0, false },
	[VHU_GET_MAX_MEM_SLOTS] = { "GET_MAX_MEM_SLOTS", VHU_NONE, 0, true },
	[VHU_ADD_MEM_REG] = { "ADD_MEM_REG", VHU_REGION, 1, false },
	[VHU_REM_MEM_REG] = { "REM_MEM_REG", VHU_REGION, 1, false },
	[VHU_SET_STATUS] = { "SET_STATUS", VHU_U64, 0, false },
	[VHU_GET_STATUS] = { "GET_STATUS", VHU_NONE, 0, true },
	[VHU_SET_DEVICE_STATE_FD] = { "SET_DEVICE_STATE_FD", VHU_STATE_FD, 1, true },
	[VHU_CHECK_DEVICE_STATE] = { "CHECK_DEVICE_STATE", VHU_NONE, 0, true },
};

const struct vhu_rule *vhu_rule(uint32_t request)
{
	return request < VHU_N_REQUESTS && rules[request].name ? &rules[request] : NULL;
}

static bool header_is_sane(const struct vhu_header *h)
{
	return (h->flags & VHU_VERSION_MASK) == VHU_VERSION && h->size <= VHU_MAX_PAYLOAD;
}

static struct vhu_header take_header(struct buf_reader *r)
{
	struct vhu_header h;

	h.request = buf_get_u32(r);
	h.flags = buf_get_u32(r);
	h.size = buf_get_u32(r);
	return h;
}

int64_t vhu_len(const uint8_t *data, size_t have)
{
	struct buf_reader r = buf_read_from(data, have);
	struct vhu_header h = take_header(&r);

	if (r.bad)
		return 0;
	return header_is_sane(&h) ? VHU_HEADER + (int64_t)h.size : -EPROTO;
}

int vhu_get_header(const void *data, size_t len, struct vhu_header *ret)
{
	struct buf_reader r = buf_read_from(data, len);
	struct vhu_header h = take_header(&r);

	if (r.bad || !header_is_sane(&h) || h.size != r.left)
		return -EPROTO;
	*ret = h;
	return 0;
}

void vhu_put_header(struct buf_writer *w, const struct vhu_header *h)
{
	buf_put_u32(w, h->request);
	buf_put_u32(w, h->flags);
	buf_put_u32(w, h->size);
}

/* ---- requests ---- */

static struct vhu_region get_region(struct buf_reader *r)
{
	struct vhu_region region;

	region.guest = buf_get_u64(r);
	region.size = buf_get_u64(r);
	region.user = buf_get_u64(r);
	region.offset = buf_get_u64(r);
	return region;
}

/* One descriptor per region, in their order. */
static bool get_memory(struct buf_reader *r, unsigned n_fds, struct vhu_message *m)
{
	m->memory.n = buf_get_u32(r);
	buf_take(r, 4);
	if (m->memory.n > VHU_MAX_REGIONS || n_fds != m->memory.n)
		return false;
	for (unsigned i = 0; i < m->memory.n; i++)
		m->memory.region[i] = get_region(r);
	return true;
}

static bool get_one_region(struct buf_reader *r, unsigned n_fds, struct vhu_message *m)
{
	buf_take(r, 8);
	m->memory.n = 1;
	m->memory.region[0] = get_region(r);
	/* One that is taken away may come with its descriptor once more. */
	return n_fds == 1 || m->request == VHU_REM_MEM_REG;
}

static bool get_vring_fd(struct buf_reader *r, unsigned n_fds, struct vhu_message *m)
{
	uint64_t word = buf_get_u64(r);

	m->vring_fd.index = (uint8_t)(word & VRING_INDEX);
	m->vring_fd.has_fd = !(word & VRING_NO_FD);
	return !(word & ~(uint64_t)(VRING_INDEX | VRING_NO_FD)) && n_fds == m->vring_fd.has_fd;
}

static bool get_addr(struct buf_reader *r, struct vhu_message *m)
{
	m->addr.index = buf_get_u32(r);
	m->addr.flags = buf_get_u32(r);
	m->addr.desc = buf_get_u64(r);
	m->addr.used = buf_get_u64(r);
	m->addr.avail = buf_get_u64(r);
	m->addr.log = buf_get_u64(r);
	return true;
}

static bool get_config(struct buf_reader *r, struct vhu_message *m)
{
	m->config.offset = buf_get_u32(r);
	m->config.size = buf_get_u32(r);
	m->config.flags = buf_get_u32(r);
	if (!m->config.size || m->config.size > VHU_CONFIG_MAX ||
	    m->config.offset > VHU_CONFIG_MAX - m->config.size)
		return false;
	m->config.data = buf_take(r, m->config.size);
	return true;
}

/* Front-ends differ in whether they send the padding behind it. */
static bool get_inflight(struct buf_reader *r, struct vhu_message *m)
{
	m->inflight.mmap_size = buf_get_u64(r);
	m->inflight.mmap_offset = buf_get_u64(r);
	m->inflight.n_queues = buf_get_u16(r);
	m->inflight.queue_size = buf_get_u16(r);
	if (r->left == 4)
		buf_take(r, 4);
	return true;
}

static bool get_payload(struct buf_reader *r, enum vhu_payload payload, unsigned n_fds,
			struct vhu_message *m)
{
	switch (payload) {
	case VHU_NONE:
		return true;
	case VHU_U64:
		m->u64 = buf_get_u64(r);
		return true;
	case VHU_VRING:
		m->vring.index = buf_get_u32(r);
		m->vring.num = buf_get_u32(r);
		return true;
	case VHU_ADDR:
		return get_addr(r, m);
	case VHU_VRING_FD:
		return get_vring_fd(r, n_fds, m);
	case VHU_MEMORY:
		return get_memory(r, n_fds, m);
	case VHU_REGION:
		return get_one_region(r, n_fds, m);
	case VHU_CONFIG:
		return get_config(r, m);
	case VHU_INFLIGHT:
		return get_inflight(r, m);
	case VHU_LOG:
		m->log.mmap_size = buf_get_u64(r);
		m->log.mmap_offset = buf_get_u64(r);
		return true;
	case VHU_STATE_FD:
		m->state_fd.direction = buf_get_u32(r);
		m->state_fd.phase = buf_get_u32(r);
		return n_fds == 1;
	}
	return false;
}

int vhu_get(const void *data, size_t len, unsigned n_fds, struct vhu_message *ret)
{
	struct buf_reader r = buf_read_from(data, len);
	struct vhu_message m = { 0 };
	const struct vhu_rule *rule;
	struct vhu_header h;
	int error = vhu_get_header(data, len, &h);

	if (error < 0)
		return error;
	if (h.flags & VHU_REPLY)
		return -EPROTO;
	rule = vhu_rule(h.request);
	if (!rule)
		return -EOPNOTSUPP;
	m.request = h.request;
	m.need_reply = h.flags & VHU_NEED_REPLY;
	buf_take(&r, VHU_HEADER);
	if (n_fds > rule->max_fds || !get_payload(&r, rule->payload, n_fds, &m) || r.bad || r.left)
		return -EINVAL;
	*ret = m;
	return 0;
}

/* ---- answers ---- */

static void put_answer(struct buf_writer *w, uint32_t request, size_t size)
{
	vhu_put_header(w, &(struct vhu_header){ request, VHU_VERSION | VHU_REPLY, (uint32_t)size });
}

void vhu_put_u64(struct buf_writer *w, uint32_t request, uint64_t value)
{
	put_answer(w, request, sizeof(value));
	buf_put_u64(w, value);
}

void vhu_put_vring(struct buf_writer *w, uint32_t request, const struct vhu_vring_state *s)
{
	put_answer(w, request, 8);
	buf_put_u32(w, s->index);
	buf_put_u32(w, s->num);
}

void vhu_put_config(struct buf_writer *w, uint32_t request, const struct vhu_config *c)
{
	if (!c->data) {
		vhu_put_empty(w, request);
		return;
	}
	put_answer(w, request, 12 + c->size);
	buf_put_u32(w, c->offset);
	buf_put_u32(w, c->size);
	buf_put_u32(w, c->flags);
	buf_put_bytes(w, c->data, c->size);
}

void vhu_put_inflight(struct buf_writer *w, uint32_t request, const struct vhu_inflight *i)
{
	put_answer(w, request, 24);
	buf_put_u64(w, i->mmap_size);
	buf_put_u64(w, i->mmap_offset);
	buf_put_u16(w, i->n_queues);
	buf_put_u16(w, i->queue_size);
	buf_put_u32(w, 0);
}

void vhu_put_empty(struct buf_writer *w, uint32_t request)
{
	put_answer(w, request, 0);
}

void vhu_put_backend(struct buf_writer *w, enum vhu_backend_request request, bool need_reply)
{
	uint32_t flags = VHU_VERSION | (need_reply ? VHU_NEED_REPLY : 0);

	vhu_put_header(w, &(struct vhu_header){ request, flags, 0 });
}
