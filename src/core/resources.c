/* SPDX-License-Identifier: MIT */
/* The list of descriptors that a parent half hands to the device half. */
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"
#include "core/resources.h"

int umdev_resource_add(struct umdev_resources *list, const char *name, int fd, uint32_t flags,
		       uint64_t offset, uint64_t length)
{
	size_t len = strlen(name);

	if (len == 0 || len >= sizeof(list->item[0].name) || fd < 0) {
		if (fd >= 0)
			close(fd);
		return err_set(-EINVAL,
			       "resource '%s': not a name of at most %zu bytes, or no file", name,
			       sizeof(list->item[0].name) - 1);
	}
	if (list->n == UMDEV_MAX_RESOURCES) {
		close(fd);
		return err_set(-ENOSPC, "resource '%s': a device has at most %d", name,
			       UMDEV_MAX_RESOURCES);
	}
	memcpy(list->item[list->n].name, name, len + 1);
	list->item[list->n].fd = fd;
	list->item[list->n].flags = flags;
	list->item[list->n].offset = offset;
	list->item[list->n].length = length;
	list->n++;
	return 0;
}

void resources_fini(struct umdev_resources *list)
{
	for (unsigned i = 0; i < list->n; i++)
		if (list->item[i].fd >= 0)
			close(list->item[i].fd);
	list->n = 0;
}

int mdev_resources(struct umdev_mdev *mdev, struct umdev_resources *ret)
{
	const struct umdev_parent_driver *driver = mdev->parent->driver;
	int error;

	ret->n = 0;
	if (!driver->resources)
		return 0;
	error = driver->resources(mdev, ret);
	if (error < 0) {
		resources_fini(ret);
		mdev_close_dir(mdev);
	}
	return error;
}

void mdev_resources_end(struct umdev_mdev *mdev)
{
	if (mdev->parent->driver->resources_end)
		mdev->parent->driver->resources_end(mdev);
	mdev_close_dir(mdev);
}

/* ---- of a worker that runs ---- */

static int change(struct umdev_mdev *mdev, const struct core_resource *what)
{
	const struct core_ops *ops = mdev->core->ops;

	if (ops->resource)
		return ops->resource(mdev->core->ops_arg, mdev, what);
	if (what->fd >= 0)
		close(what->fd);
	return 0;
}

int umdev_resource_send(struct umdev_mdev *mdev, const char *name, int fd, uint32_t flags,
			uint64_t offset, uint64_t length)
{
	const struct core_resource what = { .call = UMDEV_RES_SEND,
					    .name = name,
					    .fd = fd,
					    .flags = flags,
					    .offset = offset,
					    .length = length };

	return change(mdev, &what);
}

int umdev_resource_withdraw(struct umdev_mdev *mdev, const char *name)
{
	const struct core_resource what = { .call = UMDEV_RES_WITHDRAW, .name = name, .fd = -1 };

	return change(mdev, &what);
}

int umdev_resource_grow(struct umdev_mdev *mdev, const char *name, uint64_t length)
{
	const struct core_resource what = {
		.call = UMDEV_RES_GROW, .name = name, .fd = -1, .length = length
	};

	return change(mdev, &what);
}

void core_resource_done(struct umdev_mdev *mdev, enum umdev_resource_call call, const char *name,
			int error)
{
	if (mdev->parent->driver->resource_done)
		mdev->parent->driver->resource_done(mdev, call, name, error);
}

void core_resources_resume(struct umdev_mdev *mdev)
{
	if (mdev->parent->driver->resources_resume)
		mdev->parent->driver->resources_resume(mdev);
}
