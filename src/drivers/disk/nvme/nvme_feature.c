/* SPDX-License-Identifier: MIT */
/* nvme: Get Features and Set Features (5.13, 5.21). No feature is saved over a reset. */
#include <string.h>
#include "nvme.h"

#define OVER_DEFAULT 343 /* kelvins: the warning temperature that Identify tells */
#define ARBITRATION_BITS 0xffffff07u
#define COALESCING_BITS 0x0000ffffu
#define VECTOR_DISABLED (1u << 16)
#define RECOVERY_BITS 0x0000ffffu /* without DULBE, which no namespace has */

/* Features that are a number and nothing more. */
static const struct row {
	uint8_t id;
	uint32_t bits; /* that mean something; others must be 0 */
	uint32_t def;
} rows[] = {
	{ NVME_FEAT_ARBITRATION, ARBITRATION_BITS, 0 },
	{ NVME_FEAT_POWER, 0xe0, 0 }, /* one power state; any workload hint */
	{ NVME_FEAT_WRITE_CACHE, 1, 1 },
	{ NVME_FEAT_COALESCING, COALESCING_BITS, 0 },
	{ NVME_FEAT_ATOMICITY, 1, 0 },
	{ NVME_FEAT_ASYNC, NVME_ASYNC_NAMESPACE | 0x1f, 0 },
};

static const struct row *row_find(unsigned id)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].id == id)
			return &rows[i];
	return NULL;
}

void nvme_features_reset(struct nvme_state *s)
{
	memset(s->feature, 0, sizeof(s->feature));
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		s->feature[rows[i].id] = rows[i].def;
	s->over = OVER_DEFAULT;
	s->under = 0;
	memset(s->recovery, 0, sizeof(s->recovery));
	memset(s->direct, 0, sizeof(s->direct));
}

bool nvme_is_hot(const struct nvme_state *s)
{
	return NVME_KELVIN >= s->over || NVME_KELVIN <= s->under;
}

/* ---- those with rules of their own. set: NULL to get ---- */

typedef uint16_t special_fn(struct nvme_request *rq, bool set, bool def, uint32_t value);

static uint16_t temperature(struct nvme_request *rq, bool set, bool def, uint32_t value)
{
	uint32_t sensor = value >> 16 & 15, kind = value >> 20 & 3;
	uint32_t *threshold = kind ? &rq->s->under : &rq->s->over;

	if (kind > 1 || (sensor && (sensor != 15 || !set)))
		return nvme_refuse(NVME_INVALID_FIELD);
	if (set) {
		*threshold = value & 0xffff;
		if (nvme_is_hot(rq->s) && rq->s->feature[NVME_FEAT_ASYNC] & NVME_ASYNC_TEMPERATURE)
			nvme_event_raise(rq->dev, NVME_EVENT_TYPE_SMART);
		return NVME_OK;
	}
	rq->result = !def ? *threshold : kind ? 0 : OVER_DEFAULT;
	return NVME_OK;
}

static uint16_t error_recovery(struct nvme_request *rq, bool set, bool def, uint32_t value)
{
	uint32_t nsid = le32_get(rq->cmd.nsid);

	if (!nvme_is_nsid(nsid) && !(set && nsid == NVME_NSID_ALL))
		return nvme_refuse(NVME_INVALID_NAMESPACE);
	if (!set) {
		rq->result = def ? 0 : rq->s->recovery[nsid - 1];
		return NVME_OK;
	}
	if (value & ~RECOVERY_BITS)
		return nvme_refuse(NVME_INVALID_FIELD);
	for (unsigned i = 0; i < NVME_NAMESPACES; i++)
		if (nsid == NVME_NSID_ALL || nsid == i + 1)
			rq->s->recovery[i] = value;
	return NVME_OK;
}

static bool has_queues(const struct nvme_state *s)
{
	for (unsigned i = 0; i < NVME_PAIRS; i++)
		if (s->cq[i].exists || s->sq[i].exists)
			return true;
	return false;
}

static uint16_t number_of_queues(struct nvme_request *rq, bool set, bool def, uint32_t value)
{
	uint32_t n = nvme_pairs(rq->dev) - 1;

	if (set && ((value & 0xffff) == 0xffff || value >> 16 == 0xffff))
		return nvme_refuse(NVME_INVALID_FIELD);
	if (set && has_queues(rq->s))
		return nvme_refuse(NVME_SEQUENCE_ERROR);
	rq->result = n << 16 | n;
	return NVME_OK;
}

static uint16_t vector(struct nvme_request *rq, bool set, bool def, uint32_t value)
{
	uint32_t v = value & 0xffff, bit = 1u << (v % 32);
	uint32_t *word = &rq->s->direct[v / 32 % (sizeof(rq->s->direct) / sizeof(uint32_t))];

	if (v > nvme_pairs(rq->dev))
		return nvme_refuse(NVME_INVALID_FIELD);
	if (!set)
		rq->result = v | (!def && *word & bit ? VECTOR_DISABLED : 0);
	else if (value & VECTOR_DISABLED)
		*word |= bit;
	else
		*word &= ~bit;
	return NVME_OK;
}

static special_fn *special_find(unsigned id)
{
	switch (id) {
	case NVME_FEAT_TEMPERATURE:
		return temperature;
	case NVME_FEAT_ERROR_RECOVERY:
		return error_recovery;
	case NVME_FEAT_QUEUES:
		return number_of_queues;
	case NVME_FEAT_VECTOR:
		return vector;
	}
	return NULL;
}

/* ---- commands ---- */

static uint16_t set_row(struct nvme_request *rq, const struct row *row, uint32_t value)
{
	struct nvme_state *s = rq->s;
	uint32_t old = s->feature[row->id];

	if (value & ~row->bits)
		return nvme_refuse(NVME_INVALID_FIELD);
	s->feature[row->id] = value;
	if (row->id == NVME_FEAT_WRITE_CACHE && value != old) {
		nvme_renew_all(rq->dev);
		s->hold = NVME_HOLD_QUEUES;
		rq->later = true;
	}
	return NVME_OK;
}

uint16_t nvme_set_features(struct nvme_request *rq)
{
	uint32_t dw10 = le32_get(rq->cmd.cdw10), nsid = le32_get(rq->cmd.nsid);
	unsigned id = dw10 & 0xff;
	special_fn *special = special_find(id);
	const struct row *row = row_find(id);

	if (!special && !row)
		return nvme_refuse(NVME_INVALID_FIELD);
	if (dw10 & NVME_SET_SAVE)
		return nvme_refuse(NVME_NOT_SAVEABLE);
	if (id != NVME_FEAT_ERROR_RECOVERY && nsid && nsid != NVME_NSID_ALL)
		return nvme_refuse(nvme_is_nsid(nsid) ? NVME_NOT_NAMESPACE
						      : NVME_INVALID_NAMESPACE);
	return special ? special(rq, true, false, le32_get(rq->cmd.cdw11))
		       : set_row(rq, row, le32_get(rq->cmd.cdw11));
}

uint16_t nvme_get_features(struct nvme_request *rq)
{
	uint32_t dw10 = le32_get(rq->cmd.cdw10);
	unsigned id = dw10 & 0xff, select = dw10 >> 8 & 7;
	special_fn *special = special_find(id);
	const struct row *row = row_find(id);

	if ((!special && !row) || select > NVME_CAPABILITIES)
		return nvme_refuse(NVME_INVALID_FIELD);
	if (select == NVME_CAPABILITIES) {
		rq->result = NVME_FEATURE_CHANGEABLE;
		if (id == NVME_FEAT_ERROR_RECOVERY)
			rq->result |= NVME_FEATURE_NAMESPACE;
		return NVME_OK;
	}
	if (special)
		return special(rq, false, select != NVME_CURRENT, le32_get(rq->cmd.cdw11));
	rq->result = select == NVME_CURRENT ? rq->s->feature[id] : row->def;
	return NVME_OK;
}
