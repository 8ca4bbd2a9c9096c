/* SPDX-License-Identifier: MIT */
/*
 * test, device half: registers whose values tell which accesses arrived, and how (test.h).
 *
 * Registers that only keep a value are rows of a table; those that do something are in the two
 * switches behind it.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <umdev/device.h>
#include <umdev/dma.h>
#include <umdev/vfio.h>
#include "evil.h"
#include "test.h"
#include "test_blk.h"
#include "test_queue.h"

struct test_state {
	uint64_t scratch, counter, hash, echo, gaps;
	uint64_t dma_iova;
	uint32_t dma_offset, dma_len, dma_status, dma_done, dma_vector;
	uint32_t intx;
	/* kept over a reset */
	uint32_t gain, color, resets, last_reset;
};

struct test_priv {
	bool has_engine; /* type dma */
};

/* ---- registers ---- */

struct reg {
	uint16_t at, field; /* offset in BAR 0, in struct test_state */
	uint8_t width;
	bool read_only;
	bool engine; /* type dma only */
};

#define FIELD(name) offsetof(struct test_state, name), sizeof(((struct test_state *)0)->name)

static const struct reg regs[] = {
	{ TEST_REG_COUNTER, FIELD(counter) },
	{ TEST_REG_HASH, FIELD(hash), .read_only = true },
	{ TEST_REG_ECHO, FIELD(echo) },
	{ TEST_REG_GAPS, FIELD(gaps), .read_only = true },
	{ TEST_REG_RESETS, FIELD(resets), .read_only = true },
	{ TEST_REG_LAST_RESET, FIELD(last_reset), .read_only = true },
	{ TEST_REG_GAIN, FIELD(gain), .read_only = true },
	{ TEST_REG_COLOR, FIELD(color), .read_only = true },
	{ TEST_REG_INTX, FIELD(intx), .read_only = true },
	{ TEST_REG_DMA_IOVA, FIELD(dma_iova), .engine = true },
	{ TEST_REG_DMA_OFFSET, FIELD(dma_offset), .engine = true },
	{ TEST_REG_DMA_LEN, FIELD(dma_len), .engine = true },
	{ TEST_REG_DMA_STATUS, FIELD(dma_status), .read_only = true, .engine = true },
	{ TEST_REG_DMA_DONE, FIELD(dma_done), .read_only = true, .engine = true },
	{ TEST_REG_DMA_VECTOR, FIELD(dma_vector), .engine = true },
};

static bool has_engine(struct umdev_device *dev)
{
	return ((struct test_priv *)umdev_priv(dev))->has_engine;
}

static const struct reg *reg_find(struct umdev_device *dev, uint64_t offset)
{
	for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++)
		if (regs[i].at == offset)
			return !regs[i].engine || has_engine(dev) ? &regs[i] : NULL;
	return NULL;
}

static uint64_t reg_get(const struct test_state *s, const struct reg *reg)
{
	uint32_t narrow;
	uint64_t wide;

	if (reg->width == sizeof(wide)) {
		memcpy(&wide, (const uint8_t *)s + reg->field, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, (const uint8_t *)s + reg->field, sizeof(narrow));
	return narrow;
}

static void reg_set(struct test_state *s, const struct reg *reg, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	if (reg->width == sizeof(value))
		memcpy((uint8_t *)s + reg->field, &value, sizeof(value));
	else
		memcpy((uint8_t *)s + reg->field, &narrow, sizeof(narrow));
}

/* The low `len` bytes of a value. */
static uint64_t low_bytes(uint64_t value, unsigned len)
{
	return len == 8 ? value : value & ((1ULL << 8 * len) - 1);
}

static bool is_scratch(uint64_t offset)
{
	return offset >= TEST_REG_SCRATCH && offset < TEST_REG_SCRATCH + 8;
}

/* ---- the engine ---- */

static void raise_vector(struct umdev_device *dev, uint64_t vector)
{
	if (vector < TEST_VECTORS)
		umdev_irq_raise(dev, (unsigned)vector);
}

static void engine_ended(struct umdev_device *dev, int r)
{
	struct test_state *s = umdev_state(dev);

	s->dma_status = (uint32_t)-r;
	s->dma_done++;
	raise_vector(dev, s->dma_vector);
}

/* Where in BAR 2 [offset, offset + len) is, or NULL: outside. */
static uint8_t *engine_memory(struct umdev_device *dev, uint32_t offset, uint64_t len)
{
	if (offset > TEST_BAR_MEM_SIZE || len > TEST_BAR_MEM_SIZE - offset)
		return NULL;
	return (uint8_t *)umdev_bar_mem(dev, TEST_BAR_MEM) + offset;
}

static void engine_start(struct umdev_device *dev, uint64_t command)
{
	struct test_state *s = umdev_state(dev);
	struct iova iova = { s->dma_iova };
	uint8_t *mem = engine_memory(dev, s->dma_offset, s->dma_len);
	int r = -EINVAL;

	if (!mem || !s->dma_len || s->dma_len > TEST_DMA_MAX)
		command = 0;
	switch (command) {
	case TEST_DMA_FROM_GUEST:
		r = umdev_dma_read(dev, iova, mem, s->dma_len);
		break;
	case TEST_DMA_TO_GUEST:
		r = umdev_dma_write(dev, iova, mem, s->dma_len);
		break;
	case TEST_DMA_ASK:
	case TEST_DMA_TELL:
		/* The tag is the place that the answer belongs to. */
		r = umdev_dma_message(dev, iova, command == TEST_DMA_TELL ? mem : NULL, s->dma_len,
				      s->dma_offset);
		if (r == 0) {
			s->dma_status = TEST_DMA_BUSY;
			return;
		}
		break;
	}
	engine_ended(dev, r);
}

static void test_dma_done(struct umdev_device *dev, uint32_t tag, int status, const void *data,
			  size_t len)
{
	uint8_t *mem = engine_memory(dev, tag, len);

	if (data && mem)
		memcpy(mem, data, len);
	engine_ended(dev, status);
}

/* ---- accesses ---- */

static uint64_t units(const struct umdev_device *dev)
{
	const struct umdev_value *value = umdev_param(dev, "aggregation");

	return value ? value->u64 : 1;
}

static uint64_t regs_read(struct umdev_device *dev, uint64_t offset)
{
	struct test_state *s = umdev_state(dev);
	const struct reg *reg = reg_find(dev, offset);
	uint64_t value = reg ? reg_get(s, reg) : 0;

	switch (offset) {
	case TEST_REG_MAGIC:
		return TEST_MAGIC;
	case TEST_REG_UNITS:
		return units(dev);
	case TEST_REG_COUNTER:
		s->counter++;
		break;
	}
	return value;
}

static uint64_t test_bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	const struct test_state *s = umdev_state(dev);

	if (bar != TEST_BAR_REGS)
		return 0;
	if (is_scratch(offset))
		return low_bytes(s->scratch >> 8 * (offset - TEST_REG_SCRATCH), len);
	return low_bytes(regs_read(dev, offset), len);
}

static void scratch_write(struct test_state *s, uint64_t offset, unsigned len, uint64_t value)
{
	unsigned shift = 8 * (unsigned)(offset - TEST_REG_SCRATCH);
	uint64_t mask = low_bytes(UINT64_MAX, len) << shift;

	s->scratch = (s->scratch & ~mask) | (value << shift & mask);
}

static void intx_write(struct umdev_device *dev, bool level)
{
	if (has_engine(dev))
		return;
	((struct test_state *)umdev_state(dev))->intx = level;
	umdev_intx_set(dev, level);
}

/* A driver with a bug: what becomes of its device, and of its neighbours? */
enum { CRASH_TRAP = 1, CRASH_HANG };

static void crash(uint64_t how)
{
	if (how == CRASH_TRAP)
		__builtin_trap();
	while (how == CRASH_HANG)
		__asm__ __volatile__("" ::: "memory");
}

static void regs_write(struct umdev_device *dev, uint64_t offset, uint64_t value)
{
	struct test_state *s = umdev_state(dev);
	const struct reg *reg = reg_find(dev, offset);

	switch (offset) {
	case TEST_REG_HASH:
		s->hash = (s->hash ^ value) * TEST_HASH_PRIME;
		break;
	case TEST_REG_ECHO:
		s->gaps += value != s->echo + 1;
		break;
	case TEST_REG_INTX:
		intx_write(dev, value & 1);
		break;
	case TEST_REG_CRASH:
		crash(value);
		break;
	case TEST_REG_RAISE:
		if (has_engine(dev))
			raise_vector(dev, value);
		break;
	case TEST_REG_DMA_COMMAND:
		if (has_engine(dev))
			engine_start(dev, value);
		break;
	}
	if (reg && !reg->read_only)
		reg_set(s, reg, value);
}

static void test_bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			   uint64_t value)
{
	if (bar != TEST_BAR_REGS)
		return;
	if (is_scratch(offset))
		scratch_write(umdev_state(dev), offset, len, value);
	else
		regs_write(dev, offset, low_bytes(value, len));
}

/* ---- life ---- */

static uint32_t param_number(const struct umdev_device *dev, const char *name)
{
	const struct umdev_value *value = umdev_param(dev, name);

	return value ? (uint32_t)value->u64 : 0;
}

static void test_reset(struct umdev_device *dev, enum umdev_reset why)
{
	struct test_state *s = umdev_state(dev);

	*s = (struct test_state){
		.dma_vector = TEST_VECTORS,
		.gain = s->gain,
		.color = s->color,
		.resets = s->resets + 1,
		.last_reset = why,
	};
	intx_write(dev, false);
}

static int init(struct umdev_device *dev, enum umdev_init how, bool engine)
{
	struct test_priv *priv = umdev_priv(dev);
	struct test_state *s = umdev_state(dev);

	priv->has_engine = engine;
	/* Nothing in an inherited state is used unchecked: no check is needed here. */
	if (how == UMDEV_FRESH)
		*s = (struct test_state){
			.dma_vector = TEST_VECTORS,
			.gain = param_number(dev, "gain"),
			.color = param_number(dev, "color"),
		};
	return 0;
}

static int regs_init(struct umdev_device *dev, enum umdev_init how)
{
	return init(dev, how, false);
}

static int dma_init(struct umdev_device *dev, enum umdev_init how)
{
	return init(dev, how, true);
}

static int test_param_set(struct umdev_device *dev, const struct umdev_param *param,
			  const struct umdev_value *value)
{
	struct test_state *s = umdev_state(dev);

	if (!strcmp(param->name, "gain")) {
		if (value->u64 == TEST_GAIN_DEVICE_REFUSES)
			return -ERANGE;
		if (value->u64 == TEST_GAIN_DEVICE_HANGS || value->u64 == TEST_GAIN_DEVICE_TRAPS)
			crash(value->u64 == TEST_GAIN_DEVICE_TRAPS ? CRASH_TRAP : CRASH_HANG);
		s->gain = (uint32_t)value->u64;
	} else if (!strcmp(param->name, "color")) {
		s->color = (uint32_t)value->u64;
	}
	return 0;
}

static const struct umdev_device_ops regs_ops = {
	.init = regs_init,
	.reset = test_reset,
	.bar_read = test_bar_read,
	.bar_write = test_bar_write,
	.param_set = test_param_set,
};

static const struct umdev_device_ops dma_ops = {
	.init = dma_init,
	.reset = test_reset,
	.bar_read = test_bar_read,
	.bar_write = test_bar_write,
	.dma_done = test_dma_done,
	.param_set = test_param_set,
};

#define CLASS_OTHER 0xff0000

static const struct umdev_pci regs_pci = {
	.vendor = TEST_VENDOR,
	.device = TEST_DEVICE_REGS,
	.subsystem_vendor = TEST_VENDOR,
	.subsystem = TEST_DEVICE_REGS,
	.class_code = CLASS_OTHER,
	.revision = 1,
	.intx = true,
	.bar = { [TEST_BAR_REGS] = { .size = TEST_BAR_REGS_SIZE } },
};

static const struct umdev_pci dma_pci = {
	.vendor = TEST_VENDOR,
	.device = TEST_DEVICE_DMA,
	.subsystem_vendor = TEST_VENDOR,
	.subsystem = TEST_DEVICE_DMA,
	.class_code = CLASS_OTHER,
	.revision = 1,
	.express = true,
	.msix = TEST_VECTORS,
	.msix_bar = TEST_BAR_MSIX,
	.msix_table = 0,
	.msix_pba = TEST_BAR_MSIX_SIZE / 2,
	.bar = { [TEST_BAR_REGS] = { .size = TEST_BAR_REGS_SIZE },
		 [TEST_BAR_MEM] = { .size = TEST_BAR_MEM_SIZE,
				    .flags = UMDEV_BAR_64 | UMDEV_BAR_PREF | UMDEV_BAR_MMAP },
		 [TEST_BAR_MSIX] = { .size = TEST_BAR_MSIX_SIZE } },
};

static const struct umdev_pci evil_pci = {
	.vendor = TEST_VENDOR,
	.device = TEST_DEVICE_EVIL,
	.subsystem_vendor = TEST_VENDOR,
	.subsystem = TEST_DEVICE_EVIL,
	.class_code = CLASS_OTHER,
	.revision = 1,
	.intx = true,
	.bar = { { .size = EVIL_BAR_SIZE } },
};

/* Of the types of test_kinds.c, too: they differ in their parameters only. */
#define REGS(type_name)                                                      \
	{                                                                    \
		.name = type_name, .ops = &regs_ops, .pci = &regs_pci,       \
		.state_size = sizeof(struct test_state), .state_version = 1, \
		.priv_size = sizeof(struct test_priv),                       \
	}

static const struct umdev_device_type types[] = {
	REGS("regs"),
	REGS("kinds"),
	REGS("needy"),
	REGS("block"),
	REGS("nvme"),
	REGS("net"),
	REGS("serial"),
	REGS("display"),
	{
		.name = "dma",
		.ops = &dma_ops,
		.pci = &dma_pci,
		.state_size = sizeof(struct test_state),
		.state_version = 1,
		.priv_size = sizeof(struct test_priv),
	},
	{
		.name = "evil",
		.ops = &evil_ops,
		.pci = &evil_pci,
		.state_size = sizeof(struct evil_state),
		.state_version = 1,
		.priv_size = sizeof(struct evil_priv),
	},
	{
		.name = "blk",
		.ops = &test_blk_ops,
		.pci = &test_blk_pci,
		.state_size = sizeof(struct test_blk_state),
		.state_version = 2,
		.media_requests = TEST_BLK_DEPTH,
	},
	{
		.name = "queue",
		.ops = &test_queue_ops,
		.pci = &test_queue_pci,
		.state_size = sizeof(struct test_queues_state),
		.state_version = 1,
		.queues = &test_queue_type,
	},
	{ .name = NULL },
};

const struct umdev_device_driver test_device_driver = {
	.abi = UMDEV_ABI,
	.name = "test",
	.types = types,
};
