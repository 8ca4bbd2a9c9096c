/* SPDX-License-Identifier: MIT */
/* disk, parent half: parameters and types, and what no table can say about values. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "disk.h"
#include "disk_parent.h"

#define SERIAL_MAX 20 /* bytes, of NVM Express */

static const char *const media[] = { "file", "null", NULL };
static const char *const doorbells[] = { "trapped", "mapped", NULL };

static const struct umdev_param capacity = {
	.id = UMDEV_PARAM_CAPACITY,
	.description = "size of a volume of its own; 0: none. A larger one makes it grow",
	.def = "0",
	.max = DISK_MAX_SIZE,
	.writable = UMDEV_W_LIVE,
};
static const struct umdev_param blk_size = {
	.id = UMDEV_PARAM_BLK_SIZE,
	.description = "bytes of a block: 512 or 4096",
	.def = "512",
	.min = 512,
	.max = 4096,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param read_only = {
	.id = UMDEV_PARAM_READ_ONLY,
	.description = "no namespace can be written; several such devices may share a volume",
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param num_io_queues = { .id = UMDEV_PARAM_NUM_IO_QUEUES };
static const struct umdev_param medium = {
	.name = "media",
	.description = "file: volumes of the store; null: capacity bytes that read as zeros and "
		       "forget what is written, for measuring",
	.choices = media,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param thin = {
	.name = "thin",
	.description = "the volume of its own takes space when it is written, not when it is made",
	.type = UMDEV_BOOL,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param volume = {
	.name = "volume",
	.description = "volumes by name, ':' between them, that are its namespaces in this order",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param incoming = {
	.name = "incoming",
	.description = "a volume that somebody else has is waited for, not refused: for migration",
	.type = UMDEV_BOOL,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param serial = {
	.name = "serial",
	.description = "serial number that the guest sees, at most 20 bytes of ASCII; without: "
		       "made from the UUID",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param queue_threads = {
	.name = "queue_threads",
	.description = "threads that serve I/O queues; 0: the control thread does",
	.unit = "threads",
	.def = "0",
	.max = 8,
	.type = UMDEV_U32,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param poll_us = {
	.name = "poll_us",
	.description = "how long a queue that had work is polled for more before it sleeps; less "
		       "where that does not pay off; 0: never",
	.unit = "microseconds",
	.def = "50",
	.max = 1000,
	.type = UMDEV_U32,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param doorbell = {
	.name = "doorbells",
	.description = "trapped: each is a message unless the guest uses shadow doorbells; mapped: "
		       "a page that a polling client writes to",
	.choices = doorbells,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param *const nvme_params[] = {
	&capacity, &blk_size,      &read_only, &medium,   &thin,          &volume, &incoming,
	&serial,   &queue_threads, &poll_us,   &doorbell, &num_io_queues, NULL,
};

const struct umdev_type disk_types[] = {
	{
		.name = "nvme",
		.pretty = "NVMe controller",
		.description = "NVM Express controller; aggregation: its I/O queue pairs",
		.device_api = "vfio-pci",
		.class_name = "nvme",
		.socket_alias = "cntrl",
		.params = nvme_params,
		.attrs = namespace_attrs,
		.pool = { { .cost = 1, .scale = 1 } },
		.max_aggregation = DISK_MAX_QUEUE_PAIRS,
		.p2p = true,
		.label = true,
	},
	{ .name = NULL },
};

static int judge_blk_size(uint64_t value)
{
	if (value == 512 || value == 4096)
		return 0;
	umdev_explain("blk_size must be 512 or 4096, not %llu", (unsigned long long)value);
	return -EINVAL;
}

static int judge_serial(const char *text)
{
	size_t len = strlen(text);
	bool ascii = true;

	for (size_t i = 0; i < len; i++)
		ascii = ascii && text[i] >= ' ' && text[i] <= '~';
	if (ascii && len <= SERIAL_MAX)
		return 0;
	umdev_explain("serial: '%s' is not ASCII, or longer than %d bytes", text, SERIAL_MAX);
	return -EINVAL;
}

int disk_judge_size(const char *what, uint64_t size)
{
	if (size && size % DISK_SIZE_STEP == 0 && size <= DISK_MAX_SIZE)
		return 0;
	umdev_explain("%s: %llu bytes: a size is a multiple of %d, not 0, and at most %llu", what,
		      (unsigned long long)size, DISK_SIZE_STEP, DISK_MAX_SIZE);
	return -EINVAL;
}

int disk_judge_param(const struct umdev_param *param, const struct umdev_value *value)
{
	if (param->id == UMDEV_PARAM_BLK_SIZE)
		return judge_blk_size(value->u64);
	if (param == &serial)
		return judge_serial(value->text);
	if (param->id == UMDEV_PARAM_CAPACITY && value->u64)
		return disk_judge_size("capacity", value->u64);
	return 0;
}

int disk_judge_params(const struct umdev_mdev *mdev)
{
	uint64_t size = umdev_mdev_param(mdev, "capacity")->u64;
	int r = judge_blk_size(umdev_mdev_param(mdev, "blk_size")->u64);

	if (r == 0)
		r = judge_serial(umdev_mdev_param(mdev, "serial")->text);
	return r == 0 && size ? disk_judge_size("capacity", size) : r;
}
