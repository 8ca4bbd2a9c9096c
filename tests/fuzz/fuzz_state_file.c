/* SPDX-License-Identifier: MIT */
/*
 * A state file, and the device that a successor makes of it, beside one that is there already. What
 * comes back must be written as something that comes back the same; units must be back at the end.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "manager/state_file.h"

#define THERE "00000000-0000-4000-8000-000000000001"
#define BACK "00000000-0000-4000-8000-000000000002"

static const struct umdev_param params[] = {
	{ .name = "gain", .type = UMDEV_U32, .max = 100, .writable = UMDEV_W_LIVE },
	{ .name = "size", .type = UMDEV_SIZE, .pool = "bytes", .writable = UMDEV_W_LIVE },
	{ .name = "mac", .type = UMDEV_MAC, .writable = UMDEV_W_ONCE },
	{ .name = "text", .type = UMDEV_STRING, .writable = UMDEV_W_IDLE },
};

static const struct umdev_param *const list[] = { &params[0], &params[1], &params[2], &params[3],
						  NULL };

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

static void unwanted(void *arg, struct umdev_mdev *mdev)
{
}

static const struct core_ops ops = { .stop = unwanted,
				     .mdev_listen = listen_nowhere,
				     .mdev_unlisten = unlisten,
				     .event = no_event };

/* Its file, read again, says the same. */
static void check_encoding(const struct umdev_mdev *mdev, const struct device_state *s)
{
	const struct worker_record *worker = s->has_worker ? &s->worker : NULL;
	char *text = device_state_encode(mdev, worker), *again;
	struct device_state copy;

	assert(text);
	assert(!device_state_decode(text, strlen(text), &copy));
	assert(copy.saved.bound == s->saved.bound && copy.has_worker == s->has_worker);
	assert(!copy.has_worker || memcmp(&copy.worker, &s->worker, sizeof(copy.worker)) == 0);
	again = json_dumps(copy.json, JSON_COMPACT);
	assert(again && strcmp(again, text) == 0);
	free(again);
	free(text);
	device_state_fini(&copy);
}

static void restore(struct umdev_parent *parent, const struct device_state *s)
{
	struct umdev_mdev *mdev;

	if (mdev_restore(&parent->types[0], &s->saved, &mdev) < 0)
		return;
	assert(parent->pools[0].used <= 4 && parent->pools[1].used <= 4096);
	check_encoding(mdev, s);
	if (s->connected) {
		core_connected(mdev, &s->owner);
		check_encoding(mdev, s);
		core_closed(mdev);
	}
	core_param_done(mdev, 0);
	core_stop_all(mdev->core);
	if (mdev_remove(mdev, MDEV_REMOVE, NULL) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char there[] = THERE ",mac=02:00:00:00:00:01";
	struct device_state s;
	struct umdev_parent *parent;
	struct umdev_mdev *mdev;
	struct core core;

	if (device_state_decode((const char *)data, size, &s) != NULL)
		return 0;
	uuid_parse(BACK, UUID_TEXT - 1, &s.saved.uuid);
	if (core_init(&core, drivers, &ops, NULL) < 0 ||
	    parent_add(&core, "p", "f", NULL, 0, &parent) < 0 ||
	    mdev_create(&parent->types[0], there, strlen(there), &mdev) < 0)
		abort();
	restore(parent, &s);
	device_state_fini(&s);
	if (mdev_remove(mdev, MDEV_REMOVE, NULL) < 0)
		abort();
	assert(parent->pools[0].used == 0 && parent->pools[1].used == 0);
	assert(core.mdevs.n == 0 && core.p2p_groups.n == 0);
	if (parent_remove(parent) < 0)
		abort();
	core_fini(&core);
	return 0;
}
