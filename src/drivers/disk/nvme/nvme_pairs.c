/* SPDX-License-Identifier: MIT */
/*
 * nvme: I/O queues as the controller sees them. A completion queue gets its runner with its first
 * submission queue. Whatever a runner must learn later (another submission queue, shadow doorbells,
 * a namespace, the write cache) is in its config: it is stopped, which lets requests in flight end,
 * and started with another config and the state that it had.
 */
#include <errno.h>
#include <string.h>
#include "nvme.h"

/* ---- runners ---- */

static bool is_watcher(const struct umdev_device *dev, unsigned index)
{
	return index == NVME_WATCHER && nvme_is_mapped(dev);
}

static void make_config(struct umdev_device *dev, unsigned index, struct nvme_config *c)
{
	const struct nvme_state *s = umdev_state(dev);
	const struct nvme_cq *cq = &s->cq[index];

	*c = (struct nvme_config){
		.ring = cq->ring,
		.shadow = s->shadow,
		.event_index = s->event_index,
		.id = (uint8_t)(index + 1),
		.vector = cq->vector,
		.interrupts = cq->interrupts,
		.intx = cq->interrupts && !umdev_msi_enabled(dev),
		.watcher = is_watcher(dev, index),
		.has_shadow = s->has_shadow,
		.write_through = !s->feature[NVME_FEAT_WRITE_CACHE],
		.block_shift = (uint8_t)nvme_block_shift(dev),
	};
	for (unsigned i = 0; i < NVME_NAMESPACES; i++) {
		int medium = nvme_medium(dev, i + 1);

		c->medium[i] = medium < 0 ? -1 : (int8_t)medium;
	}
	for (unsigned i = 0; i < NVME_PAIRS; i++) {
		if (!s->sq[i].exists || s->sq[i].cq != index + 1)
			continue;
		c->sq_id[c->n_sqs] = (uint8_t)(i + 1);
		c->sq_birth[c->n_sqs] = s->sq[i].birth;
		c->sq_ring[c->n_sqs++] = s->sq[i].ring;
	}
}

static void start(struct umdev_device *dev, unsigned index, enum umdev_queue_start how)
{
	struct nvme_state *s = umdev_state(dev);
	struct nvme_config config;

	make_config(dev, index, &config);
	if (!config.n_sqs && !config.watcher)
		return;
	if (how == UMDEV_QUEUE_NEW)
		nvme_collect_counters(dev, index);
	if (umdev_queue_start(dev, index, how, &config, sizeof(config)) < 0) {
		nvme_fail(dev, "a queue could not be started");
		return;
	}
	s->cq[index].started = s->cq[index].exists;
	s->running |= 1ull << index;
}

void nvme_start_watcher(struct umdev_device *dev)
{
	umdev_doorbell_set(dev, 0, 0);
	umdev_doorbell_set(dev, 1, 0);
	start(dev, NVME_WATCHER, UMDEV_QUEUE_NEW);
}

/* The runner of this queue, if it has one, gets another config. */
static void renew(struct umdev_device *dev, unsigned index)
{
	struct nvme_state *s = umdev_state(dev);

	if (!(s->running >> index & 1)) {
		start(dev, index, s->cq[index].started ? UMDEV_QUEUE_KEEP : UMDEV_QUEUE_NEW);
		return;
	}
	s->renew |= 1ull << index;
	umdev_queue_stop(dev, index, UMDEV_QUEUE_DRAIN);
}

void nvme_renew_all(struct umdev_device *dev)
{
	const struct nvme_state *s = umdev_state(dev);

	for (unsigned i = 0; i < NVME_PAIRS; i++)
		if (s->running >> i & 1)
			renew(dev, i);
}

void nvme_stop_all(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);

	s->renew = 0;
	for (unsigned i = 0; i < NVME_PAIRS; i++)
		if (s->running >> i & 1 && umdev_queue_stop(dev, i, UMDEV_QUEUE_DROP) < 0)
			s->running &= ~(1ull << i);
}

void nvme_queue_stopped(struct umdev_device *dev, unsigned index)
{
	struct nvme_state *s = umdev_state(dev);

	s->running &= ~(1ull << index);
	s->renew &= ~(1ull << index);
	nvme_collect_errors(dev, index);
	if (s->life == NVME_READY && (s->cq[index].exists || is_watcher(dev, index)))
		start(dev, index, UMDEV_QUEUE_KEEP);
	nvme_stopped(dev);
	umdev_work_soon(dev);
}

void nvme_queue_event(struct umdev_device *dev, unsigned index, uint32_t bits)
{
	const struct nvme_state *s = umdev_state(dev);
	const struct nvme_queue_state *q = umdev_queue_peek(dev, index);

	for (unsigned word = 0; word < 2 && bits & NVME_QUEUE_ADMIN; word++)
		nvme_admin_doorbell(dev, word, __atomic_load_n(&q->admin[word], __ATOMIC_ACQUIRE));
	if (!s->cq[index].exists)
		return;
	if (bits & NVME_QUEUE_ERROR)
		nvme_collect_errors(dev, index);
	if (bits & NVME_QUEUE_INVALID_TAIL)
		nvme_event_invalid_doorbell(dev, NVME_EVENT_INVALID_TAIL);
	if (bits & NVME_QUEUE_UNREACHABLE)
		nvme_fail(dev, "an I/O queue is not in memory");
	if (bits & UMDEV_QUEUE_BROKEN)
		nvme_fail(dev, "an I/O queue is broken");
	if (bits & NVME_QUEUE_INTX && umdev_msi_enabled(dev))
		umdev_irq_raise(dev, s->cq[index].vector);
	nvme_update_intx(dev);
}

/* ---- commands ---- */

/* Completed when no runner is being changed any more. */
static uint16_t when_renewed(struct nvme_request *rq)
{
	rq->s->hold = NVME_HOLD_QUEUES;
	rq->later = true;
	return NVME_OK;
}

/* What Create I/O Submission Queue and Completion Queue have in common. */
static uint16_t judge_ring(struct nvme_request *rq, bool exists, uint64_t *ret_ring)
{
	uint32_t dw10 = le32_get(rq->cmd.cdw10), entries = (dw10 >> 16) + 1;
	uint64_t base = le64_get(rq->cmd.prp1);

	if (exists)
		return nvme_refuse(NVME_INVALID_QID);
	if (entries < 2 || entries > NVME_MAX_ENTRIES)
		return nvme_refuse(NVME_INVALID_QUEUE_SIZE);
	if (!(le32_get(rq->cmd.cdw11) & 1)) /* not contiguous; CAP.CQR says that it must be */
		return nvme_refuse(NVME_INVALID_FIELD);
	if (base & (NVME_PAGE - 1))
		return nvme_refuse(NVME_PRP_OFFSET_INVALID);
	*ret_ring = nvme_ring(base, entries);
	return NVME_OK;
}

static bool is_qid(const struct nvme_request *rq, uint32_t id)
{
	return id >= 1 && id <= nvme_pairs(rq->dev);
}

uint16_t nvme_create_cq(struct nvme_request *rq)
{
	uint32_t id = le32_get(rq->cmd.cdw10) & 0xffff, dw11 = le32_get(rq->cmd.cdw11);
	struct nvme_cq *cq;
	uint64_t ring = 0;
	uint16_t status;

	if (!is_qid(rq, id))
		return nvme_refuse(NVME_INVALID_QID);
	cq = &rq->s->cq[id - 1];
	status = judge_ring(rq, cq->exists, &ring);
	if (status)
		return status;
	if (NVME_CC_IOCQES(rq->s->cc) != NVME_CQE_SHIFT)
		return nvme_refuse(NVME_INVALID_FIELD);
	if (dw11 >> 16 >= (umdev_msi_enabled(rq->dev) ? NVME_VECTORS : 1))
		return nvme_refuse(NVME_INVALID_VECTOR);
	*cq = (struct nvme_cq){ .ring = ring,
				.exists = true,
				.vector = (uint8_t)(dw11 >> 16),
				.interrupts = dw11 >> 1 & 1 };
	umdev_doorbell_set(rq->dev, nvme_head_word(id), 0);
	return NVME_OK;
}

uint16_t nvme_create_sq(struct nvme_request *rq)
{
	uint32_t id = le32_get(rq->cmd.cdw10) & 0xffff, cq = le32_get(rq->cmd.cdw11) >> 16;
	struct nvme_state *s = rq->s;
	uint64_t ring = 0;
	uint16_t status;

	if (!is_qid(rq, id) || !is_qid(rq, cq))
		return nvme_refuse(NVME_INVALID_QID);
	if (!s->cq[cq - 1].exists)
		return nvme_refuse(NVME_CQ_INVALID);
	status = judge_ring(rq, s->sq[id - 1].exists, &ring);
	if (status)
		return status;
	if (NVME_CC_IOSQES(s->cc) != NVME_SQE_SHIFT)
		return nvme_refuse(NVME_INVALID_FIELD);
	s->sq[id - 1] = (struct nvme_sq){
		.ring = ring, .exists = true, .cq = (uint8_t)cq, .birth = ++s->births
	};
	umdev_doorbell_set(rq->dev, nvme_tail_word(id), 0);
	renew(rq->dev, cq - 1);
	return when_renewed(rq);
}

uint16_t nvme_delete_sq(struct nvme_request *rq)
{
	uint32_t id = le32_get(rq->cmd.cdw10) & 0xffff;
	unsigned cq;

	if (!is_qid(rq, id) || !rq->s->sq[id - 1].exists)
		return nvme_refuse(NVME_INVALID_QID);
	cq = rq->s->sq[id - 1].cq - 1u;
	rq->s->sq[id - 1].exists = false;
	renew(rq->dev, cq);
	return when_renewed(rq);
}

uint16_t nvme_delete_cq(struct nvme_request *rq)
{
	uint32_t id = le32_get(rq->cmd.cdw10) & 0xffff;
	struct nvme_state *s = rq->s;

	if (!is_qid(rq, id) || !s->cq[id - 1].exists)
		return nvme_refuse(NVME_INVALID_QID);
	for (unsigned i = 0; i < NVME_PAIRS; i++)
		if (s->sq[i].exists && s->sq[i].cq == id)
			return nvme_refuse(NVME_INVALID_DELETION);
	/* Its runner went with its last submission queue. */
	s->cq[id - 1].exists = false;
	nvme_update_intx(rq->dev);
	return NVME_OK;
}

/* A VMM takes the next access to a register for the end of a pin's interrupt: there must be one. */
static bool needs_registers(const struct nvme_request *rq)
{
	for (unsigned i = 0; i < NVME_PAIRS; i++)
		if (rq->s->cq[i].exists && rq->s->cq[i].interrupts && !umdev_msi_enabled(rq->dev))
			return true;
	return false;
}

uint16_t nvme_doorbell_buffer(struct nvme_request *rq)
{
	uint64_t shadow = le64_get(rq->cmd.prp1), event_index = le64_get(rq->cmd.prp2);

	if (nvme_is_mapped(rq->dev))
		return nvme_refuse(NVME_INVALID_OPCODE);
	if (!shadow || !event_index || (shadow | event_index) & (NVME_PAGE - 1))
		return nvme_refuse(NVME_INVALID_FIELD);
	if (needs_registers(rq))
		return nvme_refuse(NVME_SEQUENCE_ERROR);
	rq->s->shadow = shadow;
	rq->s->event_index = event_index;
	rq->s->has_shadow = true;
	nvme_renew_all(rq->dev);
	return when_renewed(rq);
}
