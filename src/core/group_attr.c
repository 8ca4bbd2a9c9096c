/* SPDX-License-Identifier: MIT */
/* /kernel/iommu_groups/<n> and /devices/virtual/vfio/<n>. */
#include <stdio.h>
#include "base/err.h"
#include "core/private.h"

/* There is no IOMMU domain whose type could change. */
static int type_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait)
{
	return err_set(-EINVAL, "type: the group of a mediated device has no default domain");
}

static const struct tree_attr iommu_group_attrs[] = {
	{ .name = "name", .mode = 0444, .show = text_show, .data = "vfio-noiommu" },
	{ .name = "reserved_regions", .mode = 0444, .show = empty_show },
	{ .name = "type", .mode = 0644, .show = text_show, .store = type_store, .data = "unknown" },
	{ 0 },
};

const struct tree_kind iommu_group_kind = { .name = "iommu_group", .attrs = iommu_group_attrs };

/* No MAJOR and MINOR and no `dev`: /dev/vfio/<n> is no device node of this kernel. */
static int vfio_uevent_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			    char *buf)
{
	const struct mdev_group *group = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "DEVNAME=vfio/%u\n", group->number);
}

static int vfio_uevent_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			     const char *text, size_t len, struct attr_wait *wait)
{
	const struct mdev_group *group = node->object;

	return uevent_store_node(group->core, NULL, NULL, node, "vfio", text, len);
}

static struct tree_node *vfio_subsystem(struct tree_node *node)
{
	const struct mdev_group *group = node->object;

	return group->core->class_vfio;
}

static const struct tree_attr vfio_group_attrs[] = {
	{ .name = "uevent", .mode = 0644, .show = vfio_uevent_show, .store = vfio_uevent_store },
	{ 0 },
};

static const struct tree_group vfio_group_groups[] = {
	{ .name = "power", .attrs = power_attrs },
	{ 0 },
};

static const struct tree_fixed_link vfio_group_links[] = {
	{ .name = "subsystem", .to = vfio_subsystem },
	{ 0 },
};

const struct tree_kind vfio_group_kind = { .name = "vfio_group",
					   .attrs = vfio_group_attrs,
					   .groups = vfio_group_groups,
					   .links = vfio_group_links };
