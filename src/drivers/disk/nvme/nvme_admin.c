/* SPDX-License-Identifier: MIT */
/*
 * nvme: the admin queue. One step is one transaction: it writes one completion, or takes one
 * command and executes it. A command whose data goes to the guest is completed by the step after:
 * when the guest sees the completion, nothing can write the data again.
 */
#include <errno.h>
#include <string.h>
#include "nvme.h"

static const struct {
	uint8_t opcode;
	nvme_admin_fn *fn;
} commands[] = {
	{ NVME_DELETE_SQ, nvme_delete_sq },
	{ NVME_CREATE_SQ, nvme_create_sq },
	{ NVME_GET_LOG_PAGE, nvme_get_log },
	{ NVME_DELETE_CQ, nvme_delete_cq },
	{ NVME_CREATE_CQ, nvme_create_cq },
	{ NVME_IDENTIFY, nvme_identify },
	{ NVME_ABORT, nvme_abort },
	{ NVME_SET_FEATURES, nvme_set_features },
	{ NVME_GET_FEATURES, nvme_get_features },
	{ NVME_ASYNC_EVENT, nvme_async_event },
	{ NVME_DOORBELL_BUFFER, nvme_doorbell_buffer },
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void fail_for(struct umdev_device *dev, int error)
{
	nvme_fail(dev, error == -EREMOTE ? "its admin queue is in memory that is not shared"
		       : error == -EPERM ? "it is not allowed to master the bus"
					 : "its admin queue is not in memory");
}

static bool cq_is_full(const struct nvme_state *s)
{
	uint32_t entries = (s->aqa >> 16 & 0xfff) + 1;

	return (s->cq_tail + 1u) % entries == s->cq_head;
}

/* There is room. */
static void post(struct umdev_device *dev, uint16_t cid, uint16_t status, uint32_t result)
{
	struct nvme_state *s = umdev_state(dev);
	struct nvme_completion c = {
		.result = le32_set(result),
		.sq_head = le16_set(s->sq_head),
		.cid = le16_set(cid),
		.status = le16_set((uint16_t)(status << 1 | s->phase)),
	};
	struct iova at = { s->acq + sizeof(c) * s->cq_tail };
	int r = umdev_dma_write(dev, at, &c, sizeof(c));

	if (r < 0) {
		fail_for(dev, r);
		return;
	}
	if (s->cq_tail++ == (s->aqa >> 16 & 0xfff)) {
		s->cq_tail = 0;
		s->phase ^= 1;
	}
	nvme_update_intx(dev);
	umdev_irq_raise(dev, 0);
}

static void note_error(struct nvme_state *s, const struct nvme_command *cmd, uint16_t status)
{
	nvme_log_error(s, &(struct nvme_error){ .nsid = le32_get(cmd->nsid),
						.cid = le16_get(cmd->cid),
						.status = status });
}

static uint16_t dispatch(struct nvme_request *rq)
{
	for (unsigned i = 0; i < N_COMMANDS; i++) {
		if (commands[i].opcode != rq->cmd.opcode)
			continue;
		if (rq->cmd.flags & (NVME_FLAGS_FUSE | NVME_FLAGS_PSDT))
			return nvme_refuse(NVME_INVALID_FIELD);
		return commands[i].fn(rq);
	}
	return nvme_refuse(NVME_INVALID_OPCODE);
}

static void execute(struct nvme_request *rq)
{
	struct nvme_state *s = rq->s;
	uint16_t status = dispatch(rq), cid = le16_get(rq->cmd.cid);

	if (status != NVME_OK) {
		status |= NVME_STATUS_MORE;
		note_error(s, &rq->cmd, status);
		post(rq->dev, cid, status, 0);
	} else if (!rq->later) {
		post(rq->dev, cid, status, rq->result);
	} else if (s->hold) {
		s->hold_cid = cid;
		s->hold_status = NVME_OK;
		s->hold_result = rq->result;
	}
}

static void fetch(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);
	struct nvme_request rq = { .dev = dev, .s = s };
	struct iova at = { s->asq + sizeof(rq.cmd) * s->sq_head };
	int r = umdev_dma_read(dev, at, &rq.cmd, sizeof(rq.cmd));

	if (r < 0) {
		fail_for(dev, r);
		return;
	}
	s->sq_head = s->sq_head == (s->aqa & 0xfff) ? 0 : s->sq_head + 1;
	execute(&rq);
}

static bool hold_has_ended(const struct nvme_state *s)
{
	return s->hold == NVME_HOLD_LATE || (s->hold == NVME_HOLD_QUEUES && !s->renew);
}

void nvme_admin_step(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);
	uint32_t result;
	uint16_t cid;

	if (s->life != NVME_READY || cq_is_full(s))
		return;
	if (hold_has_ended(s)) {
		s->hold = NVME_HOLD_NONE;
		post(dev, s->hold_cid, s->hold_status, s->hold_result);
	} else if (s->aborted) {
		s->aborted = false;
		post(dev, s->aborted_cid, NVME_ABORT_REQUESTED, 0);
	} else if (nvme_event_take(s, &cid, &result)) {
		post(dev, cid, NVME_OK, result);
	} else if (!s->hold && s->sq_head != s->sq_tail) {
		fetch(dev);
	} else {
		return;
	}
	umdev_work_soon(dev);
}

/* ---- data to the guest ---- */

/* Where the second page of `transfer` bytes is: prp2, or the first entry of the list there. */
static uint16_t second_page(struct nvme_request *rq, uint64_t transfer, uint64_t first,
			    struct iova *ret)
{
	uint64_t prp2 = le64_get(rq->cmd.prp2);
	le64 entry;

	if (transfer - first > NVME_PAGE) {
		if (prp2 & 7)
			return nvme_refuse(NVME_PRP_OFFSET_INVALID);
		if (umdev_dma_read(rq->dev, (struct iova){ prp2 }, &entry, sizeof(entry)) < 0)
			return NVME_DATA_TRANSFER_ERROR;
		prp2 = le64_get(entry);
	}
	if (prp2 & (NVME_PAGE - 1))
		return nvme_refuse(NVME_PRP_OFFSET_INVALID);
	ret->v = prp2;
	return NVME_OK;
}

uint16_t nvme_reply(struct nvme_request *rq, const void *data, uint32_t len, uint64_t transfer)
{
	uint64_t prp1 = le64_get(rq->cmd.prp1), first = NVME_PAGE - (prp1 & (NVME_PAGE - 1));
	struct iova second = { 0 };
	uint16_t status;

	if (prp1 & 3)
		return nvme_refuse(NVME_PRP_OFFSET_INVALID);
	if (first > len)
		first = len;
	if (first < len) {
		status = second_page(rq, transfer, first, &second);
		if (status)
			return status;
	}
	if (umdev_dma_write(rq->dev, (struct iova){ prp1 }, data, first) < 0 ||
	    umdev_dma_write(rq->dev, second, (const uint8_t *)data + first, len - first) < 0)
		return NVME_DATA_TRANSFER_ERROR;
	rq->s->hold = NVME_HOLD_LATE;
	rq->later = true;
	return NVME_OK;
}
