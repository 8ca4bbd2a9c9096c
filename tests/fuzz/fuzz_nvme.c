// SPDX-License-Identifier: MIT
/*
 * A hostile guest of an NVMe controller: registers, commands, rings, lists and shadow doorbells as
 * no good one has them; requests that fail; kills, and a state that another life has spoilt.
 *
 * Invariants: the core's rules (the rig asserts them), nothing goes round for ever, and a
 * controller that is disabled comes to rest.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "../lib/nvme_rig.h"
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 200
#define ENTRIES 8
#define QUEUES 4
/* Pages of memory by what is in them; the rest is data. */
#define SQ_AT(i) (RIG_IOVA + (uint64_t)(i)*NVME_PAGE)
#define CQ_AT(i) (RIG_IOVA + (uint64_t)(QUEUES + (i)) * NVME_PAGE)

enum op {
	OP_COMMAND,  /* queue, opcode, flags, nsid, page of data, some dwords */
	OP_DOORBELL, /* word, value */
	OP_REGISTER, /* offset / 4, value */
	OP_MEMORY,   /* page, offset / 8, eight bytes */
	OP_SETTLE,
	OP_KILL, /* at which call from now */
	OP_RESET,
	OP_FAIL,   /* errno of the next request */
	OP_BUSY,   /* requests end, or do not; MSI-X is enabled, or is not */
	OP_SPOIL,  /* which queue, offset, byte: and another life */
	OP_CHANGE, /* of the namespace */
	OPS,
};

static unsigned tail[QUEUES];

/* An address that is mostly good: a page by number, a few offsets, sometimes nowhere. */
static uint64_t address(struct buf_reader *in)
{
	uint8_t where = buf_get_u8(in), how = buf_get_u8(in);
	uint64_t at = RIG_IOVA + (uint64_t)where * NVME_PAGE;

	if (how & 0x80)
		at += (how & 15) * 4u;
	if (how & 0x40)
		at += NVME_PAGE - 16;
	return (how & 0x3f) == 0x3f ? UINT64_MAX - 8 : at;
}

/* A register, or a word of the page that the guest has mapped. */
static void ring(struct umdev_device *dev, unsigned word, uint32_t value)
{
	if (dev->doorbells.u64 == DISK_DOORBELLS_MAPPED && word < NVME_DOORBELL_WORDS)
		dev->doorbell[word] = value;
	else
		rig_set(dev, NVME_DOORBELLS + 4 * word, value);
}

static void do_command(struct umdev_device *dev, struct buf_reader *in)
{
	unsigned sq = buf_get_u8(in) % QUEUES;
	struct nvme_command cmd = {
		.opcode = buf_get_u8(in),
		.flags = buf_get_u8(in),
		.nsid = le32_set(buf_get_u8(in)),
	};

	cmd.cid = le16_set((uint16_t)rand());
	cmd.flags &= cmd.flags & 0x10 ? 0xff : 0;
	cmd.prp1 = le64_set(address(in));
	cmd.prp2 = le64_set(address(in));
	cmd.cdw10 = le32_set(buf_get_u32(in));
	cmd.cdw11 = le32_set(buf_get_u32(in));
	cmd.cdw12 = le32_set(buf_get_u16(in));
	memcpy(rig_at(dev, SQ_AT(sq) + sizeof(cmd) * tail[sq]), &cmd, sizeof(cmd));
	tail[sq] = (tail[sq] + 1) % ENTRIES;
	ring(dev, nvme_tail_word(sq), tail[sq]);
}

/* Queues that work, so that not every input must find its way there first. */
static void do_create(struct umdev_device *dev, unsigned sq, unsigned cq)
{
	struct nvme_command cmd = { .opcode = NVME_CREATE_CQ,
				    .prp1 = le64_set(CQ_AT(cq)),
				    .cdw10 = le32_set(cq | (ENTRIES - 1) << 16),
				    .cdw11 = le32_set(3) };

	for (unsigned i = 0; i < 2; i++) {
		memcpy(rig_at(dev, SQ_AT(0) + sizeof(cmd) * tail[0]), &cmd, sizeof(cmd));
		tail[0] = (tail[0] + 1) % ENTRIES;
		ring(dev, 0, tail[0]);
		rig_settle(dev);
		cmd.opcode = NVME_CREATE_SQ;
		cmd.prp1 = le64_set(SQ_AT(sq));
		cmd.cdw10 = le32_set(sq | (ENTRIES - 1) << 16);
		cmd.cdw11 = le32_set(1 | cq << 16);
	}
}

static void do_memory(struct umdev_device *dev, struct buf_reader *in)
{
	uint64_t at = (uint64_t)buf_get_u8(in) * NVME_PAGE + buf_get_u16(in) % (NVME_PAGE / 8) * 8;
	uint64_t value = address(in);

	if (at + 8 <= RIG_RAM)
		memcpy(dev->ram + at, &value, 8);
}

static void do_spoil(struct umdev_device *dev, struct buf_reader *in)
{
	struct umdev_queue *q = &dev->queue[buf_get_u8(in) % QUEUES];
	size_t at = buf_get_u16(in) % sizeof(q->state);

	((uint8_t *)&q->state)[at] = buf_get_u8(in);
	rig_restart(dev);
}

static void do_change(struct umdev_device *dev, struct buf_reader *in)
{
	rig_change(dev, buf_get_u8(in) & 1 ? "ns1" : "ns9",
		   (enum umdev_resource_change)(buf_get_u8(in) % 3));
}

static void do_op(struct umdev_device *dev, struct buf_reader *in)
{
	uint32_t where;

	switch ((enum op)(buf_get_u8(in) % OPS)) {
	case OP_COMMAND:
		do_command(dev, in);
		break;
	case OP_DOORBELL:
		where = buf_get_u8(in);
		ring(dev, where, buf_get_u8(in));
		break;
	case OP_REGISTER:
		where = buf_get_u8(in) % 16;
		rig_set(dev, 4 * where, buf_get_u32(in));
		rig_get(dev, 4 * where);
		break;
	case OP_MEMORY:
		do_memory(dev, in);
		break;
	case OP_KILL:
		dev->kill_in = buf_get_u8(in) + 1;
		break;
	case OP_RESET:
		rig_reset(dev, (enum umdev_reset)(buf_get_u8(in) % (UMDEV_RESET_PARAM + 1)));
		memset(tail, 0, sizeof(tail));
		rig_enable(dev, SQ_AT(0), CQ_AT(0), ENTRIES);
		break;
	case OP_FAIL:
		dev->fail = buf_get_u8(in);
		break;
	case OP_BUSY:
		where = buf_get_u8(in);
		dev->busy_media = where & 1;
		dev->msi = where & 2;
		break;
	case OP_SPOIL:
		do_spoil(dev, in);
		break;
	case OP_CHANGE:
		do_change(dev, in);
		break;
	case OP_SETTLE:
	case OPS:
		rig_settle(dev);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct umdev_device dev;
	struct buf_reader in = buf_read_from(data, size);

	memset(&dev, 0, sizeof(dev));
	memset(tail, 0, sizeof(tail));
	srand(1);
	if (size && data[size - 1] & 1) /* the last byte serves for this, too */
		dev.doorbells.u64 = DISK_DOORBELLS_MAPPED;
	rig_init(&dev);
	rig_enable(&dev, SQ_AT(0), CQ_AT(0), ENTRIES);
	do_create(&dev, 1, 1);
	do_create(&dev, 2, 1);
	for (unsigned i = 0; i < MAX_OPS && in.left; i++)
		do_op(&dev, &in);
	dev.busy_media = false;
	rig_settle(&dev);
	rig_set(&dev, NVME_CC, 0);
	rig_settle(&dev);
	assert(!(rig_get(&dev, NVME_CSTS) & (NVME_CSTS_RDY | NVME_CSTS_CFS)));
	return 0;
}
