/* SPDX-License-Identifier: MIT */
/*
 * nvme: one command of an I/O queue. It is judged and becomes one request to a medium after the
 * other, mostly one. Begun again from its first request it has the same effect, so what it has done
 * so far is nobody's business but this life's.
 */
#include <errno.h>
#include <umdev/media.h>
#include "nvme.h"

/* One request of a command. */
struct request {
	unsigned medium;
	enum umdev_media_op op;
	uint64_t offset, len;
	unsigned n_segs, flags;
};

static const struct nvme_config *config(struct umdev_queue *q)
{
	return umdev_queue_config(q);
}

static uint16_t *step(struct umdev_queue *q, unsigned slot)
{
	return &((struct nvme_queue_priv *)umdev_queue_priv(q))->step[slot];
}

/* What an errno of a medium is to a guest. */
static uint16_t status_of(const struct nvme_command *cmd, int error)
{
	switch (error) {
	case -EFAULT:
	case -EPERM: /* bus mastering */
		return NVME_DATA_TRANSFER_ERROR;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return NVME_CAPACITY_EXCEEDED;
	case -EROFS:
		return nvme_refuse(NVME_WRITE_PROTECTED);
	case -ENODEV:
		return nvme_refuse(NVME_INVALID_NAMESPACE);
	case -EINVAL: /* the medium has become shorter than what was judged */
		return nvme_refuse(NVME_LBA_OUT_OF_RANGE);
	}
	return cmd->opcode == NVME_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
}

static uint16_t find_medium(struct umdev_queue *q, const struct nvme_command *cmd,
			    unsigned *ret_medium)
{
	uint32_t nsid = le32_get(cmd->nsid);
	int medium;

	if (nsid < 1 || nsid > NVME_NAMESPACES)
		return nvme_refuse(NVME_INVALID_NAMESPACE);
	medium = config(q)->medium[nsid - 1];
	if (medium < 0) /* a namespace that is not active */
		return nvme_refuse(NVME_INVALID_FIELD);
	*ret_medium = (unsigned)medium;
	return NVME_OK;
}

static uint16_t set_range(struct umdev_queue *q, struct request *r, uint64_t slba, uint64_t blocks)
{
	unsigned shift = config(q)->block_shift;
	uint64_t size = umdev_media_size(umdev_queue_device(q), r->medium) >> shift;

	if (slba > size || blocks > size - slba)
		return nvme_refuse(NVME_LBA_OUT_OF_RANGE);
	r->offset = slba << shift;
	r->len = blocks << shift;
	return NVME_OK;
}

static uint16_t set_blocks(struct umdev_queue *q, const struct nvme_command *cmd, struct request *r)
{
	uint64_t slba = le32_get(cmd->cdw10) | (uint64_t)le32_get(cmd->cdw11) << 32;
	uint32_t dw12 = le32_get(cmd->cdw12);

	if ((dw12 & NVME_RW_FUA && cmd->opcode != NVME_READ) || config(q)->write_through)
		r->flags |= UMDEV_SUBMIT_FUA;
	return set_range(q, r, slba, (dw12 & 0xffff) + 1);
}

static uint16_t transfer(struct umdev_queue *q, const struct nvme_command *cmd, struct request *r)
{
	uint16_t status;
	int n;

	r->op = cmd->opcode == NVME_READ ? UMDEV_MEDIA_READ : UMDEV_MEDIA_WRITE;
	status = set_blocks(q, cmd, r);
	if (r->op == UMDEV_MEDIA_READ)
		r->flags = 0;
	if (status)
		return status;
	if (r->len > NVME_MAX_TRANSFER ||
	    (r->op == UMDEV_MEDIA_WRITE && le32_get(cmd->cdw12) & NVME_RW_DIRECTIVE))
		return nvme_refuse(NVME_INVALID_FIELD);
	n = nvme_prp(q, cmd, r->len);
	if (n < 0)
		return (uint16_t)-n;
	r->n_segs = (unsigned)n;
	return NVME_OK;
}

static uint16_t write_zeroes(struct umdev_queue *q, const struct nvme_command *cmd,
			     struct request *r)
{
	r->op = UMDEV_MEDIA_WRITE_ZEROES;
	if (le32_get(cmd->cdw12) & NVME_RW_DEALLOCATE)
		r->flags |= UMDEV_SUBMIT_UNMAP;
	return set_blocks(q, cmd, r);
}

/* Range `i` of Dataset Management, copied when its turn comes. */
static uint16_t dataset(struct umdev_queue *q, const struct nvme_command *cmd, struct request *r,
			unsigned i)
{
	struct nvme_queue_priv *p = umdev_queue_priv(q);
	unsigned n = (le32_get(cmd->cdw10) & 0xff) + 1;
	struct nvme_dataset_range range;
	uint64_t at = i * sizeof(range);
	int segs = nvme_prp(q, cmd, n * sizeof(range));

	r->op = UMDEV_MEDIA_DISCARD;
	if (segs < 0)
		return (uint16_t)-segs;
	/* The list may begin at any multiple of 4: a range may lie in two pages. */
	for (size_t done = 0; done < sizeof(range);) {
		const struct umdev_seg *seg = p->segs;
		uint64_t offset = at + done, len;

		for (; offset >= seg->len; seg++)
			offset -= seg->len;
		len = seg->len - offset;
		if (len > sizeof(range) - done)
			len = sizeof(range) - done;
		if (umdev_queue_read(q, (struct iova){ seg->addr.v + offset },
				     (uint8_t *)&range + done, len) < 0)
			return NVME_DATA_TRANSFER_ERROR;
		done += len;
	}
	return set_range(q, r, le64_get(range.slba), le32_get(range.blocks));
}

/* The request that is due: number `i` of the command. False: there is none, or *status is bad. */
static bool next_request(struct umdev_queue *q, const struct nvme_command *cmd, unsigned i,
			 struct request *r, uint16_t *status)
{
	bool dataset_ends = i > (le32_get(cmd->cdw10) & 0xff) ||
			    !(le32_get(cmd->cdw11) & NVME_DATASET_DEALLOCATE);
	bool fua_read = cmd->opcode == NVME_READ && le32_get(cmd->cdw12) & NVME_RW_FUA;

	*status = NVME_OK;
	*r = (struct request){ .medium = r->medium };
	switch (cmd->opcode) {
	case NVME_DATASET:
		if (dataset_ends)
			return false;
		*status = dataset(q, cmd, r, i);
		break;
	case NVME_READ:
		if (i > fua_read)
			return false;
		*status = transfer(q, cmd, r);
		if (i < fua_read) { /* durable first: what is read will not be lost */
			r->op = UMDEV_MEDIA_FLUSH;
			r->offset = r->len = r->n_segs = 0;
		}
		break;
	case NVME_WRITE:
		if (i)
			return false;
		*status = transfer(q, cmd, r);
		break;
	case NVME_WRITE_ZEROES:
		if (i)
			return false;
		*status = write_zeroes(q, cmd, r);
		break;
	case NVME_FLUSH:
		if (i)
			return false;
		r->op = UMDEV_MEDIA_FLUSH;
		break;
	}
	return *status == NVME_OK;
}

/* Requests until one is under way, all are done, or one fails. */
static int go_on(struct umdev_queue *q, unsigned slot)
{
	const struct nvme_command *cmd = &nvme_slot(q, slot)->cmd;
	const struct nvme_queue_priv *p = umdev_queue_priv(q);
	uint16_t *i = step(q, slot), status;
	struct request r = { 0 };

	status = find_medium(q, cmd, &r.medium);
	if (status)
		return status;
	for (; next_request(q, cmd, *i, &r, &status); ++*i) {
		int error = 1;

		if (r.len || r.op == UMDEV_MEDIA_FLUSH)
			error = umdev_queue_submit(q, r.medium, r.op, r.offset, r.len, p->segs,
						   r.n_segs, r.flags, slot);
		if (error == 0 || error == -EBUSY)
			return error ? NVME_LATER : NVME_PENDING;
		if (error < 0)
			return status_of(cmd, error);
	}
	return status;
}

static bool is_known(uint8_t opcode)
{
	return opcode <= NVME_READ || opcode == NVME_WRITE_ZEROES || opcode == NVME_DATASET;
}

int nvme_execute(struct umdev_queue *q, unsigned slot)
{
	const struct nvme_command *cmd = &nvme_slot(q, slot)->cmd;

	*step(q, slot) = 0;
	if (!is_known(cmd->opcode))
		return nvme_refuse(NVME_INVALID_OPCODE);
	if (cmd->flags & (NVME_FLAGS_FUSE | NVME_FLAGS_PSDT))
		return nvme_refuse(NVME_INVALID_FIELD);
	return go_on(q, slot);
}

int nvme_continue(struct umdev_queue *q, unsigned slot, int status)
{
	if (status < 0)
		return status_of(&nvme_slot(q, slot)->cmd, status);
	++*step(q, slot);
	return go_on(q, slot);
}
