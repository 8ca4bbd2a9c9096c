/* SPDX-License-Identifier: MIT */
/*
 * What is written to create, and to a parameter. The first byte says where the second part, written
 * to every parameter of a device that came to be, begins. Units must be back at the end.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "core/core.h"

static const char *const colours[] = { "red", "green", NULL };

static const struct umdev_param params[] = {
	{ .name = "number", .type = UMDEV_U32, .max = 1000, .step = 5, .writable = UMDEV_W_IDLE },
	{ .name = "size", .type = UMDEV_SIZE, .pool = "bytes", .writable = UMDEV_W_LIVE },
	{ .name = "flag", .type = UMDEV_BOOL, .writable = UMDEV_W_CREATE },
	{ .name = "mac", .type = UMDEV_MAC, .writable = UMDEV_W_ONCE },
	{ .name = "tag", .type = UMDEV_UUID, .writable = UMDEV_W_FRESH },
	{ .name = "colour", .type = UMDEV_ENUM, .choices = colours, .writable = UMDEV_W_IDLE },
	{ .name = "text", .type = UMDEV_STRING, .writable = UMDEV_W_IDLE },
};

static const struct umdev_param *const list[] = { &params[0], &params[1], &params[2], &params[3],
						  &params[4], &params[5], &params[6], NULL };

static const struct umdev_type types[] = {
	{ .name = "t",
	  .device_api = "vfio-pci",
	  .class_name = "misc",
	  .params = list,
	  .pool = { { 1, 1 } },
	  .max_aggregation = 8,
	  .p2p = true,
	  .label = true },
	{ 0 },
};

static const struct umdev_pool pools[] = { { "units", 4 }, { "bytes", 4096 }, { 0 } };

static const struct umdev_parent_driver driver = {
	.abi = UMDEV_ABI, .name = "f", .types = types, .pools = pools
};
static const struct umdev_parent_driver *const drivers[] = { &driver, NULL };

static int listen_nowhere(void *arg, struct umdev_mdev *mdev)
{
	return 0;
}

static void unlisten(void *arg, struct umdev_mdev *mdev)
{
}

static void no_event(void *arg, const struct core_event *event)
{
}

static const struct core_ops ops = { .mdev_listen = listen_nowhere,
				     .mdev_unlisten = unlisten,
				     .event = no_event };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct umdev_parent *parent;
	struct umdev_mdev *mdev;
	struct core core;
	size_t len;

	if (size < 1 || core_init(&core, drivers, &ops, NULL) < 0)
		return 0;
	len = data[0] < size - 1 ? data[0] : size - 1;
	data++;
	size--;
	if (parent_add(&core, "p", "f", NULL, 0, &parent) < 0)
		abort();
	if (mdev_create(&parent->types[0], (const char *)data, len, &mdev) == 0) {
		for (unsigned i = 0; i < mdev->type->info->n_params; i++)
			param_set(mdev, mdev->type->info->params[i]->name, (const char *)data + len,
				  size - len, NULL);
		assert(parent->pools[0].used <= 4 && parent->pools[1].used <= 4096);
		if (mdev_remove(mdev, MDEV_REMOVE, NULL) < 0)
			abort();
	}
	assert(parent->pools[0].used == 0 && parent->pools[1].used == 0);
	assert(core.mdevs.n == 0 && core.p2p_groups.n == 0);
	if (parent_remove(parent) < 0)
		abort();
	core_fini(&core);
	return 0;
}
