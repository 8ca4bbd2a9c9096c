// SPDX-License-Identifier: MIT
/*
 * Guest memory: the client's maps and unmaps, and DMA by message.
 *
 * A message DMA is sent when no command is left unanswered (QEMU holds its big lock while it waits
 * for a region access and would never serve us), and its reply is matched by id. The bytes of a
 * queued write lie outside the halves: a hook fills a slot that is free in the current half, which
 * nobody else looks at.
 */
#include <errno.h>
#include <string.h>
#include "base/range.h"
#include "vfio/internal.h"

int vfio_dma_map(struct vfio_server *s, struct vfio_request *rq)
{
	const uint32_t known = VUSER_DMA_R | VUSER_DMA_W | VUSER_DMA_HINTS;
	struct dma_record *record = &s->effects->dma;
	struct vuser_dma_map m;
	unsigned prot = 0;
	int r;

	if (vuser_get_dma_map(rq->payload, rq->len, &m) || m.argsz < 32 || m.flags & ~known)
		return -EINVAL;
	if (m.flags & VUSER_DMA_R)
		prot |= DMA_READ;
	if (m.flags & VUSER_DMA_W)
		prot |= DMA_WRITE;
	r = dma_prepare_map(s->dma, m.iova, m.size, prot, rq->n_fds ? rq->fds[0] : -1, m.offset,
			    record);
	if (r < 0)
		return r;
	rq->n_kept = record->new_fd >= 0;
	return 0;
}

/*
 * Requests in flight end before the unmap is executed, not only before it is answered: after a
 * death they are carried out again, and need the map for it.
 */
bool vfio_unmap_must_wait(struct vfio_server *s, const struct vfio_request *rq)
{
	struct vuser_dma_unmap m;

	if (rq->header.command != VUSER_DMA_UNMAP || vuser_get_dma_unmap(rq->payload, rq->len, &m))
		return false;
	if (m.flags & VUSER_UNMAP_ALL)
		m = (struct vuser_dma_unmap){ .size = UINT64_MAX };
	if (s->quiescing)
		return true; /* drained() comes back to it */
	if (!m.size || !range_is_sane(m.iova, m.size) || !dma_is_pinned(s->dma, m.iova, m.size))
		return false;
	vfio_drain(s, m.iova, m.size);
	return true;
}

/* An unmap of what is not mapped succeeds: QEMU also unmaps what a map was refused for. */
static int prepare_unmap(struct vfio_server *s, const struct vuser_dma_unmap *m)
{
	int r = dma_prepare_unmap(s->dma, m->iova, m->size, &s->effects->dma);

	if (r != -ENOENT)
		return r;
	s->effects->dma.op = DMA_OP_NONE;
	return dma_overlaps(s->dma, m->iova, m->size) ? -EINVAL : 0;
}

int vfio_dma_unmap(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_dma_unmap m;
	bool all;
	int r;

	if (vuser_get_dma_unmap(rq->payload, rq->len, &m) || m.argsz < 24 ||
	    m.flags & ~(uint32_t)VUSER_UNMAP_ALL)
		return -EINVAL;
	all = m.flags & VUSER_UNMAP_ALL;
	if (all && (m.iova || m.size))
		return -EINVAL;
	r = all ? dma_prepare_unmap_all(s->dma, &s->effects->dma) : prepare_unmap(s, &m);
	if (r < 0)
		return r;
	s->half->wait = (struct vfio_wait){ .iova = m.iova, .size = all ? UINT64_MAX : m.size };
	m.argsz = 24;
	vuser_put_dma_unmap(&rq->reply, &m);
	return VFIO_LATER;
}

void redo_apply(struct vfio_server *s, struct vfio_effects *e)
{
	const uint8_t *from = e->redo_data;

	for (uint32_t i = 0; i < e->n_redo; i++) {
		struct iova to = { e->redo[i].iova };

		/* Checked when it was asked for; what fails now is the guest's truncated file. */
		if (dma_copy_to(s->dma, to, from, e->redo[i].len) < 0)
			vfio_complain(s, VFIO_COMPLAIN_DMA, "guest memory at 0x%llx is gone",
				      (unsigned long long)to.v);
		from += e->redo[i].len;
	}
	ab_barrier();
	e->n_redo = e->redo_len = 0;
	ab_barrier();
}

/* ---- messages ---- */

static bool is_id_used(const struct vfio_half *h, uint16_t id)
{
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		if (h->message[i].state >= VFIO_MESSAGE_SENT && h->message[i].id == id)
			return true;
	}
	return false;
}

/* A reset leaves messages whose replies may take for ever: their ids stay taken. */
static uint16_t new_id(struct vfio_half *h)
{
	while (is_id_used(h, h->message_id))
		h->message_id++;
	return h->message_id++;
}

static bool send_one(struct vfio_server *s, unsigned index)
{
	struct vfio_half *h = s->half;
	struct vfio_message *m = &h->message[index];
	struct vuser_header header = { .command = m->write ? VUSER_DMA_WRITE : VUSER_DMA_READ };
	struct vuser_dma_access a = { m->iova, m->len,
				      m->write ? s->shared->message_data[index] : NULL };
	struct buf_writer w;
	uint8_t *p;

	header.size = VUSER_HEADER + VUSER_DMA_ACCESS + (m->write ? m->len : 0);
	header.id = new_id(h);
	p = conn_reserve(&s->conn, &h->cursor, header.size);
	if (!p)
		return false;
	w = buf_write_to(p, header.size);
	vuser_put_header(&w, &header);
	vuser_put_dma_access(&w, &a);
	m->id = header.id;
	m->state = VFIO_MESSAGE_SENT;
	return true;
}

static bool has_queued(const struct vfio_half *h)
{
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		if (h->message[i].state == VFIO_MESSAGE_QUEUED)
			return true;
	}
	return false;
}

void message_send_queued(struct vfio_server *s)
{
	if (!has_queued(s->half))
		return;
	vfio_begin(s);
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		if (s->half->message[i].state == VFIO_MESSAGE_QUEUED && !send_one(s, i))
			break; /* the rest when the client has read */
	}
	vfio_commit(s);
}

void message_reset(struct vfio_server *s)
{
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		struct vfio_message *m = &s->half->message[i];

		if (m->state == VFIO_MESSAGE_QUEUED)
			m->state = VFIO_MESSAGE_FREE;
		else if (m->state == VFIO_MESSAGE_SENT)
			m->state = VFIO_MESSAGE_DROPPED;
	}
}

/* 0, or why the device does not get its bytes. QEMU before 10.2 answers with a layout of its own,
 * which looks like a reply of the wrong length. */
static int reply_status(const struct vuser_header *h, const struct vfio_message *m,
			const uint8_t *payload, size_t len, const uint8_t **ret_data)
{
	struct vuser_dma_access a;

	*ret_data = NULL;
	if (h->flags & VUSER_ERROR)
		return h->error && h->error < 4096 ? -(int)h->error : -EIO;
	if (m->write)
		return 0;
	if (vuser_get_dma_access(payload, len, &a) || a.count != m->len || !a.data)
		return -EIO;
	*ret_data = a.data;
	return 0;
}

int message_reply(struct vfio_server *s, const struct vuser_header *h, const uint8_t *payload,
		  size_t len)
{
	const struct umdev_device_ops *ops = s->dev->type->ops;

	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		struct vfio_message *m = &s->half->message[i];
		bool wanted = m->state == VFIO_MESSAGE_SENT;
		uint32_t tag = m->tag, n = m->len;
		const uint8_t *data;
		int status;

		if ((!wanted && m->state != VFIO_MESSAGE_DROPPED) || m->id != h->id ||
		    h->command != (m->write ? VUSER_DMA_WRITE : VUSER_DMA_READ))
			continue;
		status = reply_status(h, m, payload, len, &data);
		m->state = VFIO_MESSAGE_FREE;
		if (wanted && ops->dma_done)
			ops->dma_done(s->dev, tag, status, data, data ? n : 0);
		return 0;
	}
	return -EPROTO;
}
