/* SPDX-License-Identifier: MIT */
/*
 * display, parent half: memory of the host, handed out as the video memory of displays. It is taken
 * when a worker begins to serve one, and given back, with what was on the screen, when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include <umdev/parent.h>
#include <umdev/screen.h>
#include "display.h"
#include "display_model.h"

#define UNIT (16u << 20) /* bytes of video memory: what the pool counts */
#define UNITS 16         /* of a parent, unless told otherwise */

static const struct umdev_param xres = {
	.id = UMDEV_PARAM_XRES,
	.description = "width that the monitor prefers",
	.def = "1024",
	.min = 640,
	.max = DISPLAY_MAX,
	.step = 8,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param yres = {
	.id = UMDEV_PARAM_YRES,
	.description = "height that the monitor prefers",
	.def = "768",
	.min = 480,
	.max = DISPLAY_MAX,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param *const params[] = { &xres, &yres, NULL };

static const struct umdev_param memory = {
	.name = "memory",
	.description = "video memory of all displays together",
	.unit = "bytes",
	.type = UMDEV_SIZE,
	.def = "256M",
	.min = UNIT,
	.max = 1ULL << 40,
	.step = UNIT,
	.writable = UMDEV_W_CREATE,
};
static const struct umdev_param *const parent_params[] = { &memory, NULL };

static uint64_t vram_of(const struct umdev_mdev *mdev)
{
	const struct umdev_value *aggregation = umdev_mdev_param(mdev, "aggregation");

	return umdev_mdev_type(mdev)->pool[0].cost * UNIT * (aggregation ? aggregation->u64 : 1);
}

/* A BAR is a power of two, and the screen must fit into it. */
static int judge(uint64_t vram, uint64_t width, uint64_t height)
{
	if (vram & (vram - 1) || vram > DISPLAY_VRAM_MAX) {
		umdev_explain("it would have %llu MiB of video memory: the total must be a power "
			      "of two and at most %u MiB",
			      (unsigned long long)vram >> 20, DISPLAY_VRAM_MAX >> 20);
		return -EINVAL;
	}
	if (width * height * 4 > vram) {
		umdev_explain("%llux%llu needs %llu MiB of video memory and there are %llu: take "
			      "a larger type or more aggregation",
			      (unsigned long long)width, (unsigned long long)height,
			      (unsigned long long)((width * height * 4 + (1 << 20) - 1) >> 20),
			      (unsigned long long)vram >> 20);
		return -EINVAL;
	}
	return 0;
}

static int display_mdev_create(struct umdev_mdev *mdev)
{
	return judge(vram_of(mdev), umdev_mdev_param(mdev, "xres")->u64,
		     umdev_mdev_param(mdev, "yres")->u64);
}

static int display_param_check(struct umdev_mdev *mdev, const struct umdev_param *param,
			       const struct umdev_value *value)
{
	uint64_t width = umdev_mdev_param(mdev, "xres")->u64;
	uint64_t height = umdev_mdev_param(mdev, "yres")->u64;
	uint64_t vram = vram_of(mdev);

	if (strcmp(param->name, "xres") == 0)
		width = value->u64;
	else if (strcmp(param->name, "yres") == 0)
		height = value->u64;
	else if (strcmp(param->name, "aggregation") == 0)
		vram = umdev_mdev_type(mdev)->pool[0].cost * UNIT * value->u64;
	return judge(vram, width, height);
}

static int display_add(struct umdev_parent *parent)
{
	return umdev_pool_resize(parent, "memory",
				 umdev_parent_param(parent, "memory")->u64 / UNIT);
}

static int add_memory(struct umdev_resources *list, const char *name, uint64_t size)
{
	_cleanup_close_ int fd = memfd_create("umdev-display", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		umdev_explain("no video memory: %s", strerror(errno));
		return -errno;
	}
	return umdev_resource_add(list, name, take_fd(&fd),
				  UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_MEMORY, 0, size);
}

static int display_resources(struct umdev_mdev *mdev, struct umdev_resources *list)
{
	int r = add_memory(list, UMDEV_SCREEN_VIDEO, vram_of(mdev));

	return r < 0 ? r : add_memory(list, UMDEV_SCREEN_MODE, sizeof(struct umdev_screen));
}

static int display_vendor_show(const struct umdev_mdev *mdev, const char *name, char *buf,
			       size_t size)
{
	return snprintf(buf, size, "%llu\n", (unsigned long long)vram_of(mdev));
}

static const char *const vendor_attrs[] = { "vram_bytes", NULL };

static const struct umdev_pool pools[] = {
	{ .name = "memory", .capacity = UNITS },
	{ .name = NULL },
};

#define TYPE(type_name, text, units)                                                               \
	{                                                                                          \
		.name = type_name, .pretty = text, .device_api = "vfio-pci",                       \
		.description = "bochs-compatible display; aggregation multiplies its memory",      \
		.class_name = "display", .params = params,                                         \
		.pool = { { .cost = units, .scale = units } }, .max_aggregation = 16, .p2p = true, \
		.label = true,                                                                     \
	}

static const struct umdev_type types[] = {
	TYPE("16m", "Display with 16 MiB", 1),
	TYPE("32m", "Display with 32 MiB", 2),
	TYPE("64m", "Display with 64 MiB", 4),
	{ .name = NULL },
};

const struct umdev_parent_driver display_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "display",
	.summary = "displays that stock Linux drives (bochs-drm), seen by VNC or as pictures",
	.types = types,
	.pools = pools,
	.params = parent_params,
	.add = display_add,
	.mdev_create = display_mdev_create,
	.param_check = display_param_check,
	.resources = display_resources,
	.vendor_attrs = vendor_attrs,
	.vendor_show = display_vendor_show,
};
