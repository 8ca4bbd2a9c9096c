/* SPDX-License-Identifier: MIT */
/*
 * The device half, for umdev-worker: three registers of 32 bits in BAR 0.
 *
 *   0  SCRATCH  keeps what is written
 *   4  COUNTER  counts the writes to SCRATCH; writing it sets it
 *   8  LIMIT    INTx is asserted while LIMIT is not 0 and COUNTER has reached it
 */
#include <umdev/device.h>
#include <umdev/vfio.h>

#define N_REGS 3

enum { SCRATCH, COUNTER, LIMIT }; /* offset / 4 */

/* All that the device knows. Who continues it after a crash has this and nothing else. */
struct minimal_state {
	uint32_t reg[N_REGS];
};

static void update_intx(struct umdev_device *dev)
{
	const struct minimal_state *s = umdev_state(dev);

	umdev_intx_set(dev, s->reg[LIMIT] && s->reg[COUNTER] >= s->reg[LIMIT]);
}

static uint64_t minimal_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	const struct minimal_state *s = umdev_state(dev);

	return len == 4 && offset / 4 < N_REGS ? s->reg[offset / 4] : 0;
}

static void minimal_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			  uint64_t value)
{
	struct minimal_state *s = umdev_state(dev);

	if (len != 4 || offset / 4 >= N_REGS)
		return;
	s->reg[offset / 4] = (uint32_t)value;
	if (offset / 4 == SCRATCH)
		s->reg[COUNTER]++;
	update_intx(dev);
}

static void minimal_reset(struct umdev_device *dev, enum umdev_reset why)
{
	*(struct minimal_state *)umdev_state(dev) = (struct minimal_state){ 0 };
	umdev_intx_set(dev, false);
}

/* The power-on values are zero, and every value is a good one: nothing to set, nothing to check. */
static int minimal_init(struct umdev_device *dev, enum umdev_init how)
{
	return 0;
}

static const struct umdev_device_ops ops = {
	.init = minimal_init,
	.reset = minimal_reset,
	.bar_read = minimal_read,
	.bar_write = minimal_write,
};

static const struct umdev_pci pci = {
	.vendor = 0x1234, /* assigned to nobody */
	.device = 0xe001,
	.class_code = 0xff0000, /* none of the known ones */
	.intx = true,
	.bar = { [0] = { .size = 4096 } },
};

static const struct umdev_device_type types[] = {
	{
		.name = "1",
		.ops = &ops,
		.pci = &pci,
		.state_size = sizeof(struct minimal_state),
		.state_version = 1,
	},
	{ .name = NULL },
};

const struct umdev_device_driver umdev_device_driver = {
	.abi = UMDEV_ABI,
	.name = "minimal",
	.types = types,
};
