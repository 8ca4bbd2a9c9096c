/* SPDX-License-Identifier: MIT */
/*
 * nvme: asynchronous events (5.2). An event is pending until it was told, then masked until the
 * host has read the log page that is about it. Telling takes one of the host's requests.
 */
#include "nvme.h"

void nvme_event_raise(struct umdev_device *dev, enum nvme_event_type type)
{
	struct nvme_state *s = umdev_state(dev);

	if (s->life != NVME_READY)
		return;
	s->event |= type;
	umdev_work_soon(dev);
}

void nvme_event_invalid_doorbell(struct umdev_device *dev, uint32_t event)
{
	struct nvme_state *s = umdev_state(dev);

	if ((s->event | s->masked) & NVME_EVENT_TYPE_ERROR)
		return;
	s->invalid = event;
	nvme_event_raise(dev, NVME_EVENT_TYPE_ERROR);
}

void nvme_event_unmask(struct umdev_device *dev, enum nvme_event_type type)
{
	struct nvme_state *s = umdev_state(dev);

	s->masked &= ~(uint32_t)type;
	umdev_work_soon(dev);
}

bool nvme_event_take(struct nvme_state *s, uint16_t *ret_cid, uint32_t *ret_result)
{
	uint32_t ready = s->event & ~s->masked, type = ready & -ready;

	if (!s->n_aers || !type)
		return false;
	*ret_result = type == NVME_EVENT_TYPE_ERROR   ? s->invalid
		      : type == NVME_EVENT_TYPE_SMART ? NVME_EVENT_TEMPERATURE
						      : NVME_EVENT_NAMESPACE;
	*ret_cid = s->aer[--s->n_aers];
	s->event &= ~type;
	s->masked |= type;
	return true;
}

uint16_t nvme_async_event(struct nvme_request *rq)
{
	struct nvme_state *s = rq->s;

	if (s->n_aers == NVME_AERS)
		return nvme_refuse(NVME_ASYNC_LIMIT);
	s->aer[s->n_aers++] = le16_get(rq->cmd.cid);
	rq->later = true;
	return NVME_OK;
}

/*
 * Commands of I/O queues are in the hands of their runner, or of the disk: they are not aborted,
 * which the command allows (5.1). An event request is: it comes back with ABORT_REQUESTED.
 */
uint16_t nvme_abort(struct nvme_request *rq)
{
	struct nvme_state *s = rq->s;
	uint32_t dw10 = le32_get(rq->cmd.cdw10);
	uint16_t cid = (uint16_t)(dw10 >> 16);

	rq->result = 1; /* not aborted */
	for (unsigned i = 0; i < s->n_aers && !(dw10 & 0xffff); i++) {
		if (s->aer[i] != cid)
			continue;
		s->aer[i] = s->aer[--s->n_aers];
		/* The one that was aborted is completed after this command. */
		s->aborted_cid = cid;
		s->aborted = true;
		rq->result = 0;
		break;
	}
	return NVME_OK;
}
