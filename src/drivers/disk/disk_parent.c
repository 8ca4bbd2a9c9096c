/* SPDX-License-Identifier: MIT */
/* disk, parent half: a store of volumes and a number of I/O queue pairs become controllers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "disk_parent.h"

static const struct umdev_param store = {
	.name = "store",
	.description = "directory in which each volume is a file",
	.type = UMDEV_STRING,
};
static const struct umdev_param queue_pairs = {
	.name = "queue_pairs",
	.description = "I/O queue pairs that its devices share",
	.unit = "queue-pairs",
	.def = "256",
	.min = 1,
	.max = 1 << 20,
	.type = UMDEV_U32,
};
static const struct umdev_param *const params[] = { &store, &queue_pairs, NULL };

static int disk_add(struct umdev_parent *parent)
{
	return umdev_pool_resize(parent, DISK_POOL, umdev_parent_param(parent, "queue_pairs")->u64);
}

static int failed(const char *what, const char *name)
{
	int error = errno;

	umdev_explain("%s %s: %s", what, name, strerror(error));
	return -error;
}

static bool is_null(const struct umdev_mdev *mdev)
{
	return strcmp(umdev_mdev_param(mdev, "media")->text, "null") == 0;
}

static int open_store(struct umdev_mdev *mdev)
{
	const char *path = umdev_parent_param(umdev_mdev_parent(mdev), "store")->text;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? failed("store", path) : fd;
}

static int disk_mdev_create(struct umdev_mdev *mdev)
{
	uint64_t size = umdev_mdev_param(mdev, "capacity")->u64;
	const char *uuid = umdev_mdev_uuid(mdev);
	_cleanup_close_ int dir_fd = -1, fd = -1;
	int r = disk_judge_params(mdev);

	if (r < 0 || is_null(mdev) || !size)
		return r;
	dir_fd = open_store(mdev);
	if (dir_fd < 0)
		return dir_fd;
	fd = openat(dir_fd, uuid, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return failed("volume", uuid);
	return ftruncate(fd, (off_t)size) < 0 ? failed("volume", uuid) : 0;
}

static void disk_mdev_destroy(struct umdev_mdev *mdev)
{
	_cleanup_close_ int dir_fd = is_null(mdev) ? -1 : open_store(mdev);

	if (dir_fd >= 0)
		unlinkat(dir_fd, umdev_mdev_uuid(mdev), 0);
}

static int disk_resources(struct umdev_mdev *mdev, struct umdev_resources *list)
{
	uint64_t size = umdev_mdev_param(mdev, "capacity")->u64;
	bool writable = !umdev_mdev_param(mdev, "read_only")->u64;
	_cleanup_close_ int dir_fd = -1;
	uint32_t flags = UMDEV_RES_READ | UMDEV_RES_MEDIUM;
	char name[16];
	int fd;

	if (!size)
		return 0;
	if (is_null(mdev)) {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} else {
		dir_fd = open_store(mdev);
		fd = openat(dir_fd, umdev_mdev_uuid(mdev),
			    (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	}
	if (fd < 0)
		return failed("volume", umdev_mdev_uuid(mdev));
	if (writable)
		flags |= UMDEV_RES_WRITE;
	snprintf(name, sizeof(name), DISK_MEDIUM_FORMAT, 1);
	return umdev_resource_add(list, name, fd, flags, 0, size);
}

static int disk_param_check(struct umdev_mdev *mdev, const struct umdev_param *param,
			    const struct umdev_value *value)
{
	return disk_judge_param(param, value);
}

static const struct umdev_pool pools[] = {
	{ .name = DISK_POOL, .capacity = 256 },
	{ .name = NULL },
};

const struct umdev_parent_driver disk_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "disk",
	.summary = "volumes of a directory or of block devices, as NVMe controllers",
	.types = disk_types,
	.pools = pools,
	.params = params,
	.add = disk_add,
	.mdev_create = disk_mdev_create,
	.mdev_destroy = disk_mdev_destroy,
	.param_check = disk_param_check,
	.resources = disk_resources,
};
