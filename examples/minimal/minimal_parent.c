/* SPDX-License-Identifier: MIT */
/* The parent half, for umdevd: which devices there are to be had. */
#include <umdev/parent.h>

static const struct umdev_pool pools[] = {
	{ .name = "instances", .capacity = 16 },
	{ .name = NULL },
};

static const struct umdev_type types[] = {
	{
		.name = "1",
		.description = "a scratch register, a counter and an interrupt",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.pool = { { .cost = 1 } },
		.label = true,
	},
	{ .name = NULL },
};

const struct umdev_parent_driver umdev_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "minimal",
	.summary = "the smallest device that does something",
	.types = types,
	.pools = pools,
};
