/* SPDX-License-Identifier: MIT */
/*
 * nvme: Get Log Page (5.14). Counters are what the runners counted: those of runners that were
 * started anew since are in `total`, the others are read from the runners' states.
 */
#include <string.h>
#include "nvme.h"

#define SECTORS_PER_UNIT 1000 /* the unit of the data counters, in 512 bytes */

void nvme_log_error(struct nvme_state *s, const struct nvme_error *e)
{
	s->error[s->error_count++ % NVME_ERRORS] = *e;
}

void nvme_collect_errors(struct umdev_device *dev, unsigned index)
{
	struct nvme_state *s = umdev_state(dev);
	const struct nvme_queue_state *q = umdev_queue_peek(dev, index);
	uint8_t *seen = &s->cq[index].errors_seen;
	uint8_t n = (uint8_t)__atomic_load_n(&q->n_errors, __ATOMIC_ACQUIRE);

	if (!s->cq[index].started)
		return;
	if ((uint8_t)(n - *seen) > NVME_QUEUE_ERRORS) {
		s->error_count += (uint8_t)(n - *seen) - NVME_QUEUE_ERRORS;
		*seen = n - NVME_QUEUE_ERRORS;
	}
	for (; *seen != n; ++*seen)
		nvme_log_error(s, &q->error[*seen % NVME_QUEUE_ERRORS]);
}

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void add(struct nvme_counters *sum, const struct nvme_counters *c)
{
	sum->reads += load(&c->reads);
	sum->writes += load(&c->writes);
	sum->sectors_read += load(&c->sectors_read);
	sum->sectors_written += load(&c->sectors_written);
	sum->media_errors += load(&c->media_errors);
}

void nvme_collect_counters(struct umdev_device *dev, unsigned index)
{
	struct nvme_state *s = umdev_state(dev);
	const struct nvme_queue_state *q = umdev_queue_peek(dev, index);

	if (s->counted >> index & 1)
		add(&s->total, &q->counters);
	s->counted |= 1ull << index;
	s->cq[index].errors_seen = 0;
}

/* ---- pages ---- */

static void put(uint8_t *page, unsigned at, uint64_t value, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		page[at + i] = (uint8_t)(value >> 8 * i);
}

static uint32_t errors(struct umdev_device *dev, uint8_t *page)
{
	const struct nvme_state *s = umdev_state(dev);

	for (uint64_t i = 0; i < NVME_ERRORS && i < s->error_count; i++) {
		const struct nvme_error *e = &s->error[(s->error_count - 1 - i) % NVME_ERRORS];
		struct nvme_error_entry entry = {
			.count = le64_set(s->error_count - i),
			.sq_id = le16_set(e->sq_id),
			.cid = le16_set(e->cid),
			.status = le16_set((uint16_t)(e->status << 1)),
			.location = le16_set(0xffff), /* no one parameter of the command */
			.lba = le64_set(e->lba),
			.nsid = le32_set(e->nsid),
		};

		if (!e->status) /* came faster than it could be noted */
			continue;
		memcpy(page + i * sizeof(entry), &entry, sizeof(entry));
	}
	return NVME_ERRORS * sizeof(struct nvme_error_entry);
}

static uint32_t smart(struct umdev_device *dev, uint8_t *page)
{
	const struct nvme_state *s = umdev_state(dev);
	struct nvme_counters sum = s->total;

	for (unsigned i = 0; i < NVME_PAIRS; i++)
		if (s->counted >> i & 1)
			add(&sum,
			    &((const struct nvme_queue_state *)umdev_queue_peek(dev, i))->counters);
	page[0] = (uint8_t)(nvme_is_hot(s) << 1);
	put(page, 1, NVME_KELVIN, 2);
	page[3] = 100; /* percent of the spares are there ... */
	page[4] = 10;  /* ... and this is where to worry */
	put(page, 32, (sum.sectors_read + SECTORS_PER_UNIT - 1) / SECTORS_PER_UNIT, 8);
	put(page, 48, (sum.sectors_written + SECTORS_PER_UNIT - 1) / SECTORS_PER_UNIT, 8);
	put(page, 64, sum.reads, 8);
	put(page, 80, sum.writes, 8);
	put(page, 112, 1, 8); /* power cycles: the one that we are in */
	put(page, 160, sum.media_errors, 8);
	put(page, 176, s->error_count, 8);
	return 512;
}

static uint32_t firmware(struct umdev_device *dev, uint8_t *page)
{
	page[0] = 1;
	memcpy(page + 8, NVME_FIRMWARE, 8);
	return 512;
}

static uint32_t changed(struct umdev_device *dev, uint8_t *page)
{
	const struct nvme_state *s = umdev_state(dev);
	unsigned n = 0;

	for (unsigned i = 0; i < NVME_NAMESPACES; i++)
		if (s->changed >> i & 1)
			put(page, 4 * n++, i + 1, 4);
	return 4096;
}

static uint32_t effects(struct umdev_device *dev, uint8_t *page)
{
	static const uint8_t admin[] = { NVME_DELETE_SQ,  NVME_CREATE_SQ,    NVME_GET_LOG_PAGE,
					 NVME_DELETE_CQ,  NVME_CREATE_CQ,    NVME_IDENTIFY,
					 NVME_ABORT,      NVME_SET_FEATURES, NVME_GET_FEATURES,
					 NVME_ASYNC_EVENT };
	static const uint8_t changing[] = { NVME_WRITE, NVME_WRITE_ZEROES, NVME_DATASET };

	for (unsigned i = 0; i < sizeof(admin); i++)
		put(page, 4 * admin[i], NVME_EFFECTS_SUPPORTED, 4);
	if (!nvme_is_mapped(dev))
		put(page, 4 * NVME_DOORBELL_BUFFER, NVME_EFFECTS_SUPPORTED, 4);
	put(page, 1024 + 4 * NVME_FLUSH, NVME_EFFECTS_SUPPORTED, 4);
	put(page, 1024 + 4 * NVME_READ, NVME_EFFECTS_SUPPORTED, 4);
	for (unsigned i = 0; i < sizeof(changing); i++)
		put(page, 1024 + 4 * changing[i], NVME_EFFECTS_SUPPORTED | NVME_EFFECTS_CONTENT, 4);
	return 4096;
}

static const struct log {
	uint32_t (*fill)(struct umdev_device *dev, uint8_t *page); /* its size */
	enum nvme_event_type event;                                /* that reading it unmasks */
} logs[] = {
	[NVME_LOG_ERROR] = { errors, NVME_EVENT_TYPE_ERROR },
	[NVME_LOG_SMART] = { smart, NVME_EVENT_TYPE_SMART },
	[NVME_LOG_FIRMWARE] = { firmware },
	[NVME_LOG_CHANGED] = { changed, NVME_EVENT_TYPE_NOTICE },
	[NVME_LOG_EFFECTS] = { effects },
};
#define N_LOGS (sizeof(logs) / sizeof(logs[0]))

uint16_t nvme_get_log(struct nvme_request *rq)
{
	uint8_t *page = ((struct nvme_priv *)umdev_priv(rq->dev))->page;
	uint32_t dw10 = le32_get(rq->cmd.cdw10), nsid = le32_get(rq->cmd.nsid), size;
	uint64_t dwords = (dw10 >> 16 | (uint64_t)(le32_get(rq->cmd.cdw11) & 0xffff) << 16) + 1;
	uint64_t offset = le32_get(rq->cmd.cdw12) | (uint64_t)le32_get(rq->cmd.cdw13) << 32;
	const struct log *log = &logs[(dw10 & 0xff) < N_LOGS ? dw10 & 0xff : 0];
	uint16_t status;

	if (!log->fill)
		return nvme_refuse(NVME_INVALID_LOG);
	if (4 * dwords > NVME_MAX_TRANSFER || offset & 3 || (nsid && nsid != NVME_NSID_ALL))
		return nvme_refuse(NVME_INVALID_FIELD);
	memset(page, 0, NVME_PAGE);
	size = log->fill(rq->dev, page);
	if (offset >= size)
		return nvme_refuse(NVME_INVALID_FIELD);
	size -= (uint32_t)offset;
	status = nvme_reply(rq, page + offset, 4 * dwords < size ? 4 * (uint32_t)dwords : size,
			    4 * dwords);
	if (status || dw10 & NVME_LOG_RETAIN || !log->event)
		return status;
	if (log->event == NVME_EVENT_TYPE_NOTICE)
		rq->s->changed = 0;
	nvme_event_unmask(rq->dev, log->event);
	return NVME_OK;
}
