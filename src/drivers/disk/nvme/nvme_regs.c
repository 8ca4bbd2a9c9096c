/* SPDX-License-Identifier: MIT */
/* nvme: registers (3.1) and the life of the controller (7.6). */
#include <string.h>
#include <umdev/media.h>
#include "nvme.h"

#define READY_TIMEOUT 20 /* of 500 ms: runners have 3 s to stop, and more than one deadline */

static uint64_t capabilities(void)
{
	return (NVME_MAX_ENTRIES - 1) | NVME_CAP_CQR |
	       (uint64_t)READY_TIMEOUT << NVME_CAP_TO_SHIFT | NVME_CAP_CSS_NVM;
}

/* The eight bytes at an aligned offset. */
static uint64_t read_8(const struct nvme_state *s, uint64_t offset)
{
	switch (offset) {
	case NVME_CAP:
		return capabilities();
	case NVME_VS:
		return NVME_VERSION | (uint64_t)s->intms << 32;
	case NVME_INTMC:
		return s->intms | (uint64_t)s->cc << 32;
	case NVME_CSTS - 4:
		return (uint64_t)s->csts << 32;
	case NVME_AQA - 4:
		return (uint64_t)s->aqa << 32;
	case NVME_ASQ:
		return s->asq;
	case NVME_ACQ:
		return s->acq;
	}
	return 0;
}

uint64_t nvme_bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	uint64_t value;

	if (bar != 0)
		return 0;
	value = read_8(umdev_state(dev), offset & ~7ull) >> 8 * (offset & 7);
	return len == 8 ? value : value & ((1ull << 8 * len) - 1);
}

/* The pin is shared by all vectors: it is what vector 0 is without MSI-X. */
void nvme_update_intx(struct umdev_device *dev)
{
	const struct nvme_state *s = umdev_state(dev);
	bool possible = !umdev_msi_enabled(dev) && !(s->intms & 1) && !nvme_is_mapped(dev);
	bool level = s->cq_head != s->cq_tail;

	for (unsigned i = 0; i < NVME_PAIRS && possible && !level; i++) {
		const struct nvme_queue_state *q;

		if (!s->cq[i].exists || !s->cq[i].interrupts)
			continue;
		q = umdev_queue_peek(dev, i);
		level = (uint16_t)__atomic_load_n(&q->cq, __ATOMIC_ACQUIRE) !=
			(s->has_shadow ? (uint16_t)__atomic_load_n(&q->cq_head, __ATOMIC_ACQUIRE)
				       : s->cq[i].head);
	}
	umdev_intx_set(dev, level && possible);
}

/* ---- life ---- */

static void queues_forget(struct nvme_state *s)
{
	s->sq_head = s->sq_tail = s->cq_head = s->cq_tail = 0;
	s->phase = 1;
	s->hold = NVME_HOLD_NONE;
	s->flushing = 0;
	s->renew = 0;
	s->has_shadow = false;
	s->n_aers = 0;
	s->event = s->masked = s->changed = 0;
	memset(s->sq, 0, sizeof(s->sq));
	memset(s->cq, 0, sizeof(s->cq));
}

/* What a controller reset leaves: the registers of the admin queue, counters, the error log. */
static void controller_reset(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);

	queues_forget(s);
	nvme_features_reset(s);
	s->csts = 0;
	s->life = NVME_DISABLED;
	nvme_update_intx(dev);
}

void nvme_reset(struct umdev_device *dev, enum umdev_reset why)
{
	struct nvme_state *s = umdev_state(dev);

	/* Runners were stopped; what they counted stays where it is. */
	s->running = 0;
	if (why == UMDEV_RESET_OPEN || why == UMDEV_RESET_CLOSE)
		memset(s, 0, sizeof(*s));
	s->cc = s->aqa = s->intms = 0;
	s->asq = s->acq = 0;
	controller_reset(dev);
}

void nvme_stopped(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);

	if (s->life == NVME_RESETTING && !s->running)
		controller_reset(dev);
}

void nvme_fail(struct umdev_device *dev, const char *why)
{
	struct nvme_state *s = umdev_state(dev);

	if (s->csts & NVME_CSTS_CFS)
		return;
	s->csts |= NVME_CSTS_CFS;
	umdev_log(dev, "the controller has failed: %s; its guest must reset it", why);
	if (s->life == NVME_RESETTING)
		return;
	s->life = NVME_FAILED;
	nvme_stop_all(dev);
}

static const char *enable_problem(const struct nvme_state *s)
{
	uint32_t sq = s->aqa & 0xfff, cq = s->aqa >> 16 & 0xfff;

	if (NVME_CC_MPS(s->cc) || NVME_CC_CSS(s->cc) || NVME_CC_AMS(s->cc))
		return "it was enabled with a page size, a command set or an arbitration that it "
		       "does not have (CC)";
	if (!sq || !cq)
		return "it was enabled with an admin queue of one entry (AQA)";
	return NULL;
}

static void enable(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);
	const char *problem = enable_problem(s);

	if (s->life != NVME_DISABLED)
		return;
	if (problem) {
		nvme_fail(dev, problem);
		return;
	}
	s->life = NVME_READY;
	s->csts |= NVME_CSTS_RDY;
	if (nvme_is_mapped(dev))
		nvme_start_watcher(dev);
}

static void disable(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);

	if (s->life == NVME_DISABLED || s->life == NVME_RESETTING)
		return;
	s->life = NVME_RESETTING;
	nvme_stop_all(dev);
	nvme_stopped(dev);
}

/* Whatever a shutdown is called, it ends when what was written is durable. */
static void shut_down(struct umdev_device *dev)
{
	struct nvme_state *s = umdev_state(dev);

	s->csts = (s->csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_BUSY;
	s->shutdowns++;
	for (unsigned i = 1; i <= NVME_NAMESPACES; i++) {
		int medium = nvme_medium(dev, i);

		if (medium >= 0 && umdev_media_submit(dev, medium, UMDEV_MEDIA_FLUSH, 0, NULL, 0,
						      s->shutdowns) == 0)
			s->flushing++;
	}
	s->flushing++;
	nvme_flushed(dev, s->shutdowns);
}

void nvme_flushed(struct umdev_device *dev, uint32_t shutdown)
{
	struct nvme_state *s = umdev_state(dev);

	/* Of one that a reset has ended meanwhile? */
	if (shutdown != s->shutdowns || !s->flushing || --s->flushing)
		return;
	s->csts = (s->csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_DONE;
}

static void write_cc(struct umdev_device *dev, uint32_t value)
{
	struct nvme_state *s = umdev_state(dev);
	uint32_t old = s->cc;

	s->cc = value & NVME_CC_WRITABLE;
	if (NVME_CC_SHN(s->cc) && !NVME_CC_SHN(old) && !(s->csts & NVME_CSTS_SHST_MASK))
		shut_down(dev);
	if (!NVME_CC_SHN(s->cc) && NVME_CC_SHN(old) && !s->flushing)
		s->csts &= ~NVME_CSTS_SHST_MASK;
	if (s->cc & ~old & NVME_CC_EN)
		enable(dev);
	if (old & ~s->cc & NVME_CC_EN)
		disable(dev);
}

/* ---- doorbells ---- */

void nvme_admin_doorbell(struct umdev_device *dev, bool head, uint32_t value)
{
	struct nvme_state *s = umdev_state(dev);
	uint32_t entries = (head ? s->aqa >> 16 & 0xfff : s->aqa & 0xfff) + 1;

	if (s->life != NVME_READY)
		return;
	if (value >= entries) {
		nvme_event_invalid_doorbell(dev, NVME_EVENT_INVALID_TAIL);
		return;
	}
	*(head ? &s->cq_head : &s->sq_tail) = (uint16_t)value;
	nvme_update_intx(dev);
	umdev_work_soon(dev);
}

static void doorbell(struct umdev_device *dev, unsigned word, uint32_t value)
{
	struct nvme_state *s = umdev_state(dev);
	unsigned i = word / 2 - 1;
	bool head = word & 1;
	uint64_t ring;

	if (word < 2) {
		umdev_doorbell_set(dev, word, value);
		nvme_admin_doorbell(dev, head, value);
		return;
	}
	if (s->life != NVME_READY)
		return;
	if (word >= NVME_DOORBELL_WORDS || !(head ? s->cq[i].exists : s->sq[i].exists)) {
		nvme_event_invalid_doorbell(dev, NVME_EVENT_INVALID_DOORBELL);
		return;
	}
	ring = head ? s->cq[i].ring : s->sq[i].ring;
	if (value >= nvme_ring_entries(ring)) {
		nvme_event_invalid_doorbell(dev, NVME_EVENT_INVALID_TAIL);
		return;
	}
	umdev_doorbell_set(dev, word, value);
	if (head)
		s->cq[i].head = (uint16_t)value;
	else
		i = s->sq[i].cq - 1u;
	if (s->running >> i & 1)
		umdev_queue_kick(dev, i);
	nvme_update_intx(dev);
}

/* ---- accesses ---- */

static void set_half(uint64_t *reg, uint64_t offset, uint32_t value)
{
	unsigned shift = offset & 4 ? 32 : 0;

	*reg = (*reg & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
	*reg &= ~(uint64_t)(NVME_PAGE - 1);
}

static void write_4(struct umdev_device *dev, uint64_t offset, uint32_t value)
{
	struct nvme_state *s = umdev_state(dev);

	switch (offset) {
	case NVME_INTMS:
		s->intms |= value;
		nvme_update_intx(dev);
		break;
	case NVME_INTMC:
		s->intms &= ~value;
		nvme_update_intx(dev);
		break;
	case NVME_CC:
		write_cc(dev, value);
		break;
	case NVME_AQA:
		if (s->life == NVME_DISABLED)
			s->aqa = value & 0x0fff0fff;
		break;
	case NVME_ASQ:
	case NVME_ASQ + 4:
		if (s->life == NVME_DISABLED)
			set_half(&s->asq, offset, value);
		break;
	case NVME_ACQ:
	case NVME_ACQ + 4:
		if (s->life == NVME_DISABLED)
			set_half(&s->acq, offset, value);
		break;
	}
	if (offset >= NVME_DOORBELLS)
		doorbell(dev, (unsigned)(offset - NVME_DOORBELLS) / 4, value);
}

void nvme_bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
		    uint64_t value)
{
	if (bar != 0 || len < 4)
		return;
	write_4(dev, offset, (uint32_t)value);
	if (len == 8)
		write_4(dev, offset + 4, (uint32_t)(value >> 32));
}

/* ---- an inherited state ---- */

static bool rings_are_sane(const struct nvme_state *s)
{
	for (unsigned i = 0; i < NVME_PAIRS; i++) {
		const struct nvme_sq *sq = &s->sq[i];

		if (sq->exists && (!sq->cq || sq->cq > NVME_PAIRS || !s->cq[sq->cq - 1].exists))
			return false;
		if (s->cq[i].exists && s->cq[i].vector >= NVME_VECTORS)
			return false;
	}
	return true;
}

bool nvme_is_sane(const struct nvme_state *s)
{
	uint32_t sq = s->aqa & 0xfff, cq = s->aqa >> 16 & 0xfff;

	return s->life <= NVME_FAILED && s->sq_head <= sq && s->sq_tail <= sq && s->cq_head <= cq &&
	       s->cq_tail <= cq && s->phase <= 1 && s->hold <= NVME_HOLD_LATE &&
	       s->n_aers <= NVME_AERS && s->flushing <= NVME_NAMESPACES && rings_are_sane(s);
}
