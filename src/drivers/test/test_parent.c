/* SPDX-License-Identifier: MIT */
/* test, parent half: a pool of units and parameters of several kinds. See test.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <umdev/parent.h>
#include "test.h"
#include "test_parent.h"

static const char *const colors[] = { "red", "green", "blue", NULL };

static const struct umdev_param gain = {
	.name = "gain",
	.description = "a number that may change at any time; 13 and 14 are refused",
	.unit = "dB",
	.def = "1",
	.max = 100,
	.type = UMDEV_U32,
	.writable = UMDEV_W_LIVE,
};
static const struct umdev_param note = {
	.name = "note",
	.description = "a text that changes only while nobody uses the device",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param color = {
	.name = "color",
	.description = "one of a few words",
	.def = "green",
	.choices = colors,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_LIVE,
};
static const struct umdev_param *const params[] = { &gain, &note, &color, NULL };

enum medium { MEDIUM_MEMORY, MEDIUM_FILE, MEDIUM_DIRECT, MEDIUM_NULL, MEDIUM_NAMED };
static const char *const media[] = { "memory", "file", "direct", "null", "named", NULL };

static const struct umdev_param size = {
	.name = "size",
	.description = "size of the disk",
	.unit = "bytes",
	.def = "16M",
	.min = TEST_BLK_BLOCK,
	.max = 1 << 30,
	.step = TEST_BLK_BLOCK,
	.type = UMDEV_SIZE,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param medium = {
	.name = "medium",
	.description = "where the blocks are: gone with the last client, but for named",
	.def = "memory",
	.choices = media,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param *const blk_params[] = { &size, &medium, NULL };

static const struct umdev_param queue_threads = {
	.name = "queue_threads",
	.description = "threads that serve the queues; 0: the thread that serves everything else",
	.def = "0",
	.max = 8,
	.type = UMDEV_U32,
	.writable = UMDEV_W_FRESH,
};
static const struct umdev_param poll_us = {
	.name = "poll_us",
	.description = "how long a queue thread looks for more work before it sleeps, where that "
		       "pays; 0: never",
	.unit = "microseconds",
	.def = "50",
	.max = 1000,
	.type = UMDEV_U32,
	.writable = UMDEV_W_FRESH,
};
static const char *const doorbell_kinds[] = { "trapped", "mapped", NULL };
static const struct umdev_param doorbells = {
	.name = "doorbells",
	.description = "trapped: each tail is a message; mapped: the client maps a page of tails",
	.def = "trapped",
	.choices = doorbell_kinds,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_FRESH,
};
static const struct umdev_param *const queue_params[] = { &size,    &medium,    &queue_threads,
							  &poll_us, &doorbells, NULL };

static const struct umdev_param units = {
	.name = "units",
	.description = "what its devices share",
	.def = "64",
	.min = TEST_UNITS,
	.max = 1000000,
	.type = UMDEV_U32,
	.writable = UMDEV_W_CREATE,
};
static const struct umdev_param *const parent_params[] = { &units, NULL };

static int test_add(struct umdev_parent *parent)
{
	return umdev_pool_resize(parent, "units", umdev_parent_param(parent, "units")->u64);
}

static int judge_gain(const struct umdev_value *value)
{
	if (!value || value->u64 != TEST_GAIN_PARENT_REFUSES)
		return 0;
	umdev_explain("gain %u is refused, so that refusing can be tested",
		      TEST_GAIN_PARENT_REFUSES);
	return -EDOM;
}

/* A guest that may make any call of a worker is for tests only, whatever the sandbox is worth. */
static int judge_evil(void)
{
	if (getenv("UMDEV_TEST_EVIL"))
		return 0;
	umdev_explain("type evil is made only by a umdevd with UMDEV_TEST_EVIL in its environment");
	return -EPERM;
}

/* A file, mostly without a name; -1 and errno. */
static int open_medium(enum medium kind, uint64_t bytes)
{
	const char *dir = getenv("TMPDIR"), *name = getenv("UMDEV_TEST_MEDIUM");
	int fd;

	switch (kind) {
	case MEDIUM_NULL:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case MEDIUM_NAMED:
		return open(name ? name : "", O_RDWR | O_DIRECT | O_CLOEXEC);
	case MEDIUM_MEMORY:
		fd = memfd_create("test-blk", MFD_CLOEXEC);
		break;
	default:
		fd = open(dir ? dir : "/var/tmp",
			  O_TMPFILE | O_RDWR | O_CLOEXEC | (kind == MEDIUM_DIRECT ? O_DIRECT : 0),
			  0600);
	}
	if (fd < 0 || ftruncate(fd, (off_t)bytes) == 0)
		return fd;
	close(fd);
	return -1;
}

static int test_resources(struct umdev_mdev *mdev, struct umdev_resources *list)
{
	const struct umdev_value *kind = umdev_mdev_param(mdev, "medium");
	uint64_t bytes;
	int fd;

	if (!kind)
		return 0;
	bytes = umdev_mdev_param(mdev, "size")->u64;
	fd = open_medium((enum medium)kind->u64, bytes);
	if (fd < 0) {
		int error = -errno;

		umdev_explain("no medium '%s' of %llu bytes: %s", kind->text,
			      (unsigned long long)bytes, strerror(-error));
		return error;
	}
	return umdev_resource_add(list, TEST_BLK_MEDIUM, fd,
				  UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_MEDIUM, 0, bytes);
}

static int test_mdev_create(struct umdev_mdev *mdev)
{
	const char *type = umdev_mdev_type(mdev)->name;

	if (!strcmp(type, "evil"))
		return judge_evil();
	if (!strcmp(type, "kinds"))
		return umdev_mdev_set_number(mdev, "letter", (uint8_t)*umdev_mdev_uuid(mdev));
	return judge_gain(umdev_mdev_param(mdev, "gain"));
}

static int test_param_check(struct umdev_mdev *mdev, const struct umdev_param *param,
			    const struct umdev_value *value)
{
	return param == &gain ? judge_gain(value) : 0;
}

static const struct umdev_pool pools[] = {
	{ .name = "units", .capacity = TEST_UNITS },
	{ .name = TEST_POOL_BYTES, .capacity = TEST_BYTES },
	{ .name = NULL },
};

/* One of test_kinds.c. */
#define KIND(kind, class, list)                                                                    \
	.name = kind, .pretty = "Test parameters", .description = "registers, for its parameters", \
	.device_api = "vfio-pci", .class_name = class, .params = list, .label = true

static const struct umdev_type types[] = {
	{
		.name = "regs",
		.pretty = "Test registers",
		.description = "registers and INTx",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.params = params,
		.pool = { { .cost = 1, .scale = 1 } },
		.max_aggregation = TEST_UNITS,
		.label = true,
	},
	{
		.name = "dma",
		.pretty = "Test engine",
		.description = "registers, MSI-X, memory to map and DMA",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.params = params,
		.pool = { { .cost = 2, .scale = 2 } },
		.max_aggregation = TEST_UNITS / 2,
		.p2p = true,
		.label = true,
	},
	{
		.name = "evil",
		.pretty = "Test exploit",
		.description = "system calls of the worker, to order: for tests of its sandbox",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.pool = { { .cost = 1 } },
		.p2p = true, /* with a disk, whose worker has a ring */
	},
	{
		.name = "blk",
		.pretty = "Test disk",
		.description = "a disk with many requests in flight",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.params = blk_params,
		.pool = { { .cost = 1 } },
		.p2p = true,
		.label = true,
	},
	{
		.name = "queue",
		.pretty = "Test queues",
		.description = "disks behind I/O queues",
		.device_api = "vfio-pci",
		.class_name = "misc",
		.params = queue_params,
		.pool = { { .cost = 1 } },
		.p2p = true,
		.label = true,
	},
	{
		KIND("kinds", "misc", test_kinds_params),
		.pool = { { .cost = 2, .scale = 1 }, { .cost = 0, .scale = 1024 } },
		.max_aggregation = 8,
		.p2p = true,
		.max_members = 3,
	},
	{ KIND("needy", "misc", test_needy_params), .pool = { { .cost = 1 } } },
	{
		KIND("block", "block", test_block_params),
		.pool = { { .cost = 1, .scale = 1 } },
		.max_aggregation = 4,
		.aggregation_writable = UMDEV_W_ONCE,
	},
	{
		KIND("nvme", "nvme", test_nvme_params),
		.pool = { { .cost = 2, .scale = 1 } }, /* one for the administrator's queue */
		.max_aggregation = 16,
	},
	{
		KIND("net", "net", test_net_params),
		.pool = { { .cost = 1, .scale = 1 } },
		.max_aggregation = 4,
		.aggregation_writable = UMDEV_W_FRESH,
	},
	{ KIND("serial", "serial", test_serial_params), .pool = { { .cost = 1 } } },
	{ KIND("display", "display", test_display_params), .pool = { { .cost = 1 } } },
	{ .name = NULL },
};

const struct umdev_parent_driver test_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "test",
	.summary = "devices that exercise umdev itself",
	.types = types,
	.pools = pools,
	.params = parent_params,
	.add = test_add,
	.mdev_create = test_mdev_create,
	.param_check = test_param_check,
	.resources = test_resources,
};
