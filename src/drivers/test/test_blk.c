/* SPDX-License-Identifier: MIT */
/*
 * test, device half of type blk: a disk that is as simple as one with many requests in flight can
 * be (test.h). All that it must know of a request in flight is its id, which is the tag.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <umdev/dma.h>
#include <umdev/media.h>
#include "test.h"
#include "test_blk.h"

static uint64_t n_blocks(const struct umdev_device *dev)
{
	return umdev_media_size(dev, 0) / TEST_BLK_BLOCK;
}

static bool has_rings(const struct test_blk_state *s)
{
	return s->entries && s->entries <= TEST_BLK_DEPTH;
}

static void complete(struct umdev_device *dev, uint32_t id, int status)
{
	struct test_blk_state *s = umdev_state(dev);
	struct test_blk_completion c = { .id = id, .status = status, .sequence = s->done + 1 };
	struct iova at = { 0 };
	int r = -EINVAL;

	if (has_rings(s)) {
		at.v = s->cq + sizeof(c) * (s->done % s->entries);
		r = umdev_dma_write(dev, at, &c, sizeof(c));
	}
	if (r < 0)
		s->error = (uint32_t)-r;
	s->done++;
	if (s->vector < TEST_VECTORS)
		umdev_irq_raise(dev, s->vector);
}

static int start(struct umdev_device *dev, const struct test_blk_entry *e)
{
	struct umdev_seg segs[TEST_BLK_MAX_BLOCKS];

	if (e->op < TEST_BLK_READ || e->op > TEST_BLK_FLUSH || e->n_blocks > TEST_BLK_MAX_BLOCKS ||
	    (e->op == TEST_BLK_FLUSH) != (e->n_blocks == 0) || e->block > n_blocks(dev))
		return -EINVAL;
	for (unsigned i = 0; i < e->n_blocks; i++) {
		segs[i].addr.v = e->data + (uint64_t)i * TEST_BLK_BLOCK;
		segs[i].len = TEST_BLK_BLOCK;
	}
	return umdev_media_submit(dev, 0, (enum umdev_media_op)e->op, e->block * TEST_BLK_BLOCK,
				  segs, e->n_blocks, e->id);
}

/* At most TEST_BLK_DEPTH entries are under way: this is bounded, and so are its completions. */
static void fetch(struct umdev_device *dev)
{
	struct test_blk_state *s = umdev_state(dev);

	if (!has_rings(s) || s->tail - s->head > s->entries - (s->head - s->done))
		return;
	while (s->head != s->tail) {
		struct iova at = { s->sq + sizeof(struct test_blk_entry) * (s->head % s->entries) };
		struct test_blk_entry e;
		int r = umdev_dma_read(dev, at, &e, sizeof(e));

		if (r < 0) {
			s->error = (uint32_t)-r;
			return;
		}
		s->head++;
		r = start(dev, &e);
		if (r < 0)
			complete(dev, e.id, r);
	}
}

static void blk_media_done(struct umdev_device *dev, uint32_t tag, int status)
{
	complete(dev, tag, status);
}

static uint64_t blk_bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	const struct test_blk_state *s = umdev_state(dev);

	if (bar != TEST_BAR_REGS)
		return 0;
	switch (offset) {
	case TEST_BLK_BLOCKS:
		return n_blocks(dev);
	case TEST_BLK_SQ:
		return s->sq;
	case TEST_BLK_CQ:
		return s->cq;
	case TEST_BLK_ENTRIES:
		return s->entries;
	case TEST_BLK_VECTOR:
		return s->vector;
	case TEST_BLK_TAIL:
		return s->tail;
	case TEST_BLK_HEAD:
		return s->head;
	case TEST_BLK_DONE:
		return s->done;
	case TEST_BLK_ERROR:
		return s->error;
	case TEST_BLK_CHANGE:
		return s->change;
	}
	return 0;
}

static void blk_bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			  uint64_t value)
{
	struct test_blk_state *s = umdev_state(dev);

	if (bar != TEST_BAR_REGS)
		return;
	switch (offset) {
	case TEST_BLK_SQ:
		s->sq = value;
		break;
	case TEST_BLK_CQ:
		s->cq = value;
		break;
	case TEST_BLK_ENTRIES:
		s->entries = (uint32_t)value;
		break;
	case TEST_BLK_VECTOR:
		s->vector = (uint32_t)value;
		break;
	case TEST_BLK_TAIL:
		s->tail = (uint32_t)value;
		fetch(dev);
		break;
	}
}

static void blk_reset(struct umdev_device *dev, enum umdev_reset why)
{
	struct test_blk_state *s = umdev_state(dev);

	*s = (struct test_blk_state){ .vector = TEST_VECTORS };
}

/* Nothing in an inherited state is used unchecked. */
static int blk_init(struct umdev_device *dev, enum umdev_init how)
{
	if (how == UMDEV_FRESH)
		blk_reset(dev, UMDEV_RESET_OPEN);
	return 0;
}

static void blk_resource(struct umdev_device *dev, const char *name,
			 enum umdev_resource_change change)
{
	struct test_blk_state *s = umdev_state(dev);

	if (umdev_media_find(dev, name) == 0)
		s->change = TEST_BLK_CHANGED | (uint32_t)change;
}

const struct umdev_device_ops test_blk_ops = {
	.init = blk_init,
	.reset = blk_reset,
	.bar_read = blk_bar_read,
	.bar_write = blk_bar_write,
	.media_done = blk_media_done,
	.resource = blk_resource,
};

const struct umdev_pci test_blk_pci = {
	.vendor = TEST_VENDOR,
	.device = TEST_DEVICE_BLK,
	.subsystem_vendor = TEST_VENDOR,
	.subsystem = TEST_DEVICE_BLK,
	.class_code = 0x018000, /* mass storage, other */
	.revision = 1,
	.express = true,
	.msix = TEST_VECTORS,
	.msix_bar = TEST_BAR_MSIX,
	.msix_table = 0,
	.msix_pba = TEST_BAR_MSIX_SIZE / 2,
	.bar = { [TEST_BAR_REGS] = { .size = TEST_BAR_REGS_SIZE },
		 [TEST_BAR_MSIX] = { .size = TEST_BAR_MSIX_SIZE } },
};
