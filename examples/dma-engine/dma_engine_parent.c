/* SPDX-License-Identifier: MIT */
/*
 * The parent half: a parent has channels, each device takes one. How many there are is a setting of
 * the parent, how much one command moves a parameter of the device, which may change at any time.
 */
#include <errno.h>
#include <umdev/parent.h>
#include "dma_engine.h"

static const struct umdev_param channels = {
	.name = "channels",
	.description = "devices that there can be at once",
	.def = "8",
	.min = 1,
	.max = 64,
	.type = UMDEV_U32,
	.writable = UMDEV_W_CREATE,
};
static const struct umdev_param *const parent_params[] = { &channels, NULL };

static const struct umdev_param max_transfer = {
	.name = "max_transfer",
	.description = "most that one command moves",
	.unit = "bytes",
	.def = "4096",
	.min = 64,
	.max = ENGINE_MAX_TRANSFER,
	.step = 64,
	.type = UMDEV_U32,
	.writable = UMDEV_W_LIVE,
};
static const struct umdev_param *const params[] = { &max_transfer, NULL };

static int engine_add(struct umdev_parent *parent)
{
	return umdev_pool_resize(parent, "channels", umdev_parent_param(parent, "channels")->u64);
}

/* Not every multiple of 64 is as good as another: refusing is how a driver says so. */
static int check_max_transfer(const struct umdev_value *value)
{
	if ((value->u64 & (value->u64 - 1)) == 0)
		return 0;
	umdev_explain("max_transfer must be a power of two, not %s", value->text);
	return -EINVAL;
}

static int engine_mdev_create(struct umdev_mdev *mdev)
{
	return check_max_transfer(umdev_mdev_param(mdev, "max_transfer"));
}

static int engine_param_check(struct umdev_mdev *mdev, const struct umdev_param *param,
			      const struct umdev_value *value)
{
	return param == &max_transfer ? check_max_transfer(value) : 0;
}

static const struct umdev_pool pools[] = {
	{ .name = "channels", .capacity = 8 },
	{ .name = NULL },
};

static const struct umdev_type types[] = {
	{
		.name = "1",
		.pretty = "DMA engine",
		.description = "copies between guest memory, peers and 64 KiB of its own",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.params = params,
		.pool = { { .cost = 1 } },
		.p2p = true,
		.label = true,
	},
	{ .name = NULL },
};

const struct umdev_parent_driver umdev_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "dma-engine",
	.summary = "an engine that copies memory",
	.types = types,
	.pools = pools,
	.params = parent_params,
	.add = engine_add,
	.mdev_create = engine_mdev_create,
	.param_check = engine_param_check,
};
