/* SPDX-License-Identifier: MIT */
/* nvme: how the controller is declared. */
#include <errno.h>
#include "nvme.h"

#define CLASS_NVME 0x010802
#define BAR_MSIX 4
#define BAR_MSIX_SIZE 4096
#define BAR_REGISTERS_SIZE 16384 /* the lower bits of the base address are reserved (2.1.10) */

_Static_assert(NVME_VECTORS * 16 <= BAR_MSIX_SIZE / 2, "table and PBA");

static void nvme_media_done(struct umdev_device *dev, uint32_t tag, int status)
{
	if (status < 0)
		umdev_log(dev, "a namespace was not flushed at shutdown: error %d", -status);
	nvme_flushed(dev, tag);
}

static int nvme_init(struct umdev_device *dev, enum umdev_init how)
{
	if (how == UMDEV_FRESH)
		nvme_reset(dev, UMDEV_RESET_OPEN);
	return nvme_is_sane(umdev_state(dev)) ? 0 : -EUCLEAN;
}

static const struct umdev_device_ops ops = {
	.init = nvme_init,
	.reset = nvme_reset,
	.bar_read = nvme_bar_read,
	.bar_write = nvme_bar_write,
	.media_done = nvme_media_done,
	.work = nvme_admin_step,
	.queue_stopped = nvme_queue_stopped,
	.queue_event = nvme_queue_event,
	.resource = nvme_resource,
};

static const struct umdev_pci pci = {
	.vendor = NVME_PCI_VENDOR,
	.device = NVME_PCI_DEVICE,
	.subsystem_vendor = NVME_PCI_VENDOR,
	.subsystem = NVME_PCI_DEVICE,
	.class_code = CLASS_NVME,
	.revision = 1,
	.express = true,
	.intx = true,
	.msix = NVME_VECTORS,
	.msix_bar = BAR_MSIX,
	.msix_table = 0,
	.msix_pba = BAR_MSIX_SIZE / 2,
	.bar = { [0] = { .size = BAR_REGISTERS_SIZE,
			 .flags = UMDEV_BAR_64 | UMDEV_BAR_DOORBELLS,
			 .mmap_offset = NVME_DOORBELLS,
			 .mmap_size = NVME_PAGE },
		 [BAR_MSIX] = { .size = BAR_MSIX_SIZE } },
};

static const struct umdev_device_type types[] = {
	{
		.name = "nvme",
		.ops = &ops,
		.pci = &pci,
		.state_size = sizeof(struct nvme_state),
		.state_version = 1,
		.priv_size = sizeof(struct nvme_priv),
		.media_requests = NVME_NAMESPACES,
		.queues = &nvme_queue_type,
	},
	{ .name = NULL },
};

const struct umdev_device_driver disk_device_driver = {
	.abi = UMDEV_ABI,
	.name = "disk",
	.types = types,
};
