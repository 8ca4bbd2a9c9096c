/* SPDX-License-Identifier: MIT */
/*
 * What an mdev's directory and a type's directory show. Most of it is static; the directories of
 * parameters and the vendor's files differ per type and are built once for each driver type.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

#define N_MDEV_GROUPS 4 /* mdev, power, vendor, vfio-dev */

struct mdev_shape {
	struct param_dir *device_dirs, *type_dirs; /* one per parameter each, owned */
	struct tree_attr *vendor_files;            /* of driver->vendor_attrs, owned */
	/* Ended by an empty one; owned. */
	struct tree_group *class_groups, *vendor_groups, *params_groups;
	struct tree_group mdev_groups[N_MDEV_GROUPS + 1], type_groups[2];
	struct tree_kind mdev_kind, type_kind;
};

/* ---- D ---- */

static int remove_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			const char *text, size_t len, struct attr_wait *wait)
{
	uint64_t value;
	int error = str_to_u64(text, len, &value);

	if (error < 0)
		return err_set(error, "remove: expected 1");
	return value ? mdev_remove(node->object, MDEV_REMOVE, wait) : 0;
}

static bool remove_visible(struct tree_node *node, unsigned index)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->state != MDEV_REMOVING;
}

static int mdev_uevent_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			    char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	if (!mdev->bound)
		return 0;
	return snprintf(buf, TREE_ATTR_SIZE, "DRIVER=%s\n", mdev->parent->driver->name);
}

static int mdev_uevent_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			     const char *text, size_t len, struct attr_wait *wait)
{
	const struct umdev_mdev *mdev = node->object;

	return uevent_store_node(mdev->core, mdev->parent, mdev, node, "mdev", text, len);
}

static int aggregated_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			   char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n",
			mdev_param(mdev, (unsigned)mdev->type->info->aggregation)->text);
}

static bool aggregated_visible(struct tree_node *node, unsigned index)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->parent->params_shown && mdev->type->info->aggregation >= 0;
}

static int p2p_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n",
			mdev_param(mdev, (unsigned)mdev->type->info->p2p)->text);
}

static int p2p_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     const char *text, size_t len, struct attr_wait *wait)
{
	struct umdev_mdev *mdev = node->object;

	return param_set_index(mdev, (unsigned)mdev->type->info->p2p, text, len, wait);
}

static bool p2p_visible(struct tree_node *node, unsigned index)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->parent->params_shown && mdev->type->info->p2p >= 0;
}

static int started_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%d\n", mdev->started);
}

static bool started_visible(struct tree_node *node, unsigned index)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->parent->params_shown;
}

static const struct tree_attr mdev_attrs[] = {
	{ .name = "aggregated_instances",
	  .mode = 0444,
	  .show = aggregated_show,
	  .visible = aggregated_visible },
	{ .name = "mdev_started", .mode = 0444, .show = started_show, .visible = started_visible },
	{ .name = "peer_to_peer_resource_uuid",
	  .mode = 0644,
	  .show = p2p_show,
	  .store = p2p_store,
	  .visible = p2p_visible },
	{ .name = "remove", .mode = 0200, .store = remove_store, .visible = remove_visible },
	{ .name = "uevent", .mode = 0644, .show = mdev_uevent_show, .store = mdev_uevent_store },
	{ 0 },
};

static struct tree_node *driver_link(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->bound ? mdev->parent->bus_driver->dir : NULL;
}

static struct tree_node *group_link(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->group ? mdev->group->dir : NULL;
}

static struct tree_node *type_link(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->state == MDEV_REMOVING ? NULL : mdev->type->dir;
}

static struct tree_node *mdev_subsystem(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->core->bus;
}

static const struct tree_fixed_link mdev_links[] = {
	{ .name = "driver", .to = driver_link },
	{ .name = "iommu_group", .to = group_link },
	{ .name = "mdev_type", .to = type_link },
	{ .name = "subsystem", .to = mdev_subsystem },
	{ 0 },
};

/* ---- D/vfio-dev ---- */

static unsigned is_bound(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->bound;
}

static void vfio_name(struct tree_node *node, unsigned index, char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	sprintf(buf, "vfio%u", mdev->vfio_number);
}

static int vfio_uevent_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			     const char *text, size_t len, struct attr_wait *wait)
{
	const struct umdev_mdev *mdev = node->object;
	const struct tree_ref ref = tree_ref_of(node);
	char dir[TREE_PATH_MAX], devpath[TREE_PATH_MAX + 32];
	int error = tree_path(&ref, dir, sizeof(dir));

	if (error < 0)
		return error;
	str_format(devpath, sizeof(devpath), "%s/vfio-dev/vfio%u", dir, mdev->vfio_number);
	return uevent_store(mdev->core, mdev->parent, mdev, devpath, "vfio-dev", text, len);
}

static struct tree_node *itself(struct tree_node *node)
{
	return node;
}

static struct tree_node *vfio_subsystem(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->core->class_vfio_dev;
}

static const struct tree_attr vfio_attrs[] = {
	{ .name = "uevent", .mode = 0644, .show = empty_show, .store = vfio_uevent_store },
	{ 0 },
};

static const struct tree_fixed_link vfio_links[] = {
	{ .name = "device", .to = itself },
	{ .name = "subsystem", .to = vfio_subsystem },
	{ 0 },
};

static const struct tree_group vfio_inner[] = {
	{ .name = "power", .attrs = power_attrs },
	{ 0 },
};

static const struct tree_group vfio_groups[] = {
	{ .count = is_bound,
	  .name_of = vfio_name,
	  .attrs = vfio_attrs,
	  .groups = vfio_inner,
	  .links = vfio_links },
	{ 0 },
};

/* ---- D/mdev, D/vendor ---- */

static int class_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n", mdev->type->desc->class_name);
}

static const struct tree_attr class_attrs[] = {
	{ .name = "class", .mode = 0444, .show = class_show },
	{ 0 },
};

static unsigned device_params_shown(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->parent->params_shown;
}

static int vendor_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return mdev->parent->driver->vendor_show(mdev, attr->name, buf, TREE_ATTR_SIZE);
}

static unsigned vendor_shown(struct tree_node *node)
{
	const struct umdev_mdev *mdev = node->object;
	const struct mdev_shape *shape = mdev->type->info->shape;

	return mdev->bound && (shape->vendor_files->name ||
			       (mdev->parent->params_shown && shape->vendor_groups->name));
}

/* ---- <type> ---- */

static int create_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			const char *text, size_t len, struct attr_wait *wait)
{
	struct umdev_mdev *mdev;
	int error = mdev_create(node->object, text, len, &mdev);

	if (error == TREE_LATER && wait)
		attr_hold(&mdev->create_wait, wait);
	return error;
}

static int available_instances_show(struct tree_node *node, const struct tree_attr *attr,
				    unsigned index, char *buf)
{
	const struct mdev_type *type = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%" PRIu64 "\n", type_available(type));
}

static int device_api_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			   char *buf)
{
	const struct mdev_type *type = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n", type->desc->device_api);
}

static int name_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf)
{
	const struct mdev_type *type = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n",
			type->desc->pretty ? type->desc->pretty : type->desc->name);
}

static int description_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			    char *buf)
{
	const struct mdev_type *type = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n", type->desc->description);
}

static bool description_visible(struct tree_node *node, unsigned index)
{
	const struct mdev_type *type = node->object;

	return type->desc->description;
}

static int type_class_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			   char *buf)
{
	const struct mdev_type *type = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%s\n", type->desc->class_name);
}

static bool type_class_visible(struct tree_node *node, unsigned index)
{
	const struct mdev_type *type = node->object;

	return type->parent->params_shown;
}

static int type_aggregation_show(struct tree_node *node, const struct tree_attr *attr,
				 unsigned index, char *buf)
{
	const struct mdev_type *type = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%" PRIu32 "\n", type->desc->max_aggregation);
}

static bool type_aggregation_visible(struct tree_node *node, unsigned index)
{
	const struct mdev_type *type = node->object;

	return type->parent->params_shown && type->info->aggregation >= 0;
}

static unsigned type_params_shown(struct tree_node *node)
{
	const struct mdev_type *type = node->object;

	return type->parent->params_shown && type->info->n_params;
}

static const struct tree_attr type_attrs[] = {
	{ .name = "aggregation",
	  .mode = 0444,
	  .show = type_aggregation_show,
	  .visible = type_aggregation_visible },
	{ .name = "available_instances", .mode = 0444, .show = available_instances_show },
	{ .name = "class", .mode = 0444, .show = type_class_show, .visible = type_class_visible },
	{ .name = "create", .mode = 0200, .store = create_store },
	{ .name = "description",
	  .mode = 0444,
	  .show = description_show,
	  .visible = description_visible },
	{ .name = "device_api", .mode = 0444, .show = device_api_show },
	{ .name = "name", .mode = 0444, .show = name_show },
	{ 0 },
};

/* ---- building ---- */

static unsigned vendor_count(const struct umdev_parent_driver *driver)
{
	unsigned n = 0;

	while (driver->vendor_attrs && driver->vendor_attrs[n])
		n++;
	return n;
}

static unsigned attr_count(const struct umdev_type *desc)
{
	unsigned n = 0;

	while (desc->attrs && desc->attrs[n].name)
		n++;
	return n;
}

static struct mdev_shape *shape_alloc(const struct core_type *info)
{
	unsigned n = info->n_params + 1;
	struct mdev_shape *shape = calloc(1, sizeof(*shape));

	if (!shape)
		return NULL;
	shape->device_dirs = calloc(n, sizeof(*shape->device_dirs));
	shape->type_dirs = calloc(n, sizeof(*shape->type_dirs));
	shape->class_groups = calloc(n, sizeof(*shape->class_groups));
	shape->vendor_groups = calloc(n, sizeof(*shape->vendor_groups));
	shape->params_groups = calloc(n, sizeof(*shape->params_groups));
	shape->vendor_files = calloc(vendor_count(info->driver) + attr_count(info->desc) + 1,
				     sizeof(*shape->vendor_files));
	if (shape->device_dirs && shape->type_dirs && shape->class_groups && shape->vendor_groups &&
	    shape->params_groups && shape->vendor_files)
		return shape;
	mdev_shape_free(shape);
	return NULL;
}

static void build_params(struct mdev_shape *shape, const struct core_type *info)
{
	struct tree_group *class_group = shape->class_groups, *vendor_group = shape->vendor_groups;

	for (unsigned i = 0; i < info->n_params; i++) {
		const struct umdev_param *desc = info->params[i];
		bool own = !desc->id && i >= info->n_standard;
		struct tree_group **group = own ? &vendor_group : &class_group;

		param_dir_init(&shape->device_dirs[i], desc, i, false);
		param_dir_init(&shape->type_dirs[i], desc, i, true);
		*(*group)++ = (struct tree_group){ .name = desc->name,
						   .count = device_params_shown,
						   .attrs = shape->device_dirs[i].files };
		shape->params_groups[i] = (struct tree_group){ .name = desc->name,
							       .attrs = shape->type_dirs[i].files };
	}
}

struct mdev_shape *mdev_shape_new(const struct core_type *info)
{
	struct mdev_shape *shape = shape_alloc(info);
	unsigned n;

	if (!shape)
		return NULL;
	n = vendor_count(info->driver);
	for (unsigned i = 0; i < n; i++)
		shape->vendor_files[i] = (struct tree_attr){ .name = info->driver->vendor_attrs[i],
							     .mode = 0444,
							     .show = vendor_show };
	for (unsigned i = 0; i < attr_count(info->desc); i++) {
		const struct umdev_attr *desc = &info->desc->attrs[i];

		shape->vendor_files[n + i] =
			(struct tree_attr){ .name = desc->name,
					    .mode = (uint16_t)desc->mode,
					    .show = desc->show ? driver_attr_show : NULL,
					    .store = desc->store ? driver_attr_store : NULL,
					    .data = desc };
	}
	build_params(shape, info);
	shape->mdev_groups[0] = (struct tree_group){ .name = "mdev",
						     .count = device_params_shown,
						     .attrs = class_attrs,
						     .groups = shape->class_groups };
	shape->mdev_groups[1] = (struct tree_group){ .name = "power", .attrs = power_attrs };
	shape->mdev_groups[2] = (struct tree_group){ .name = "vendor",
						     .count = vendor_shown,
						     .attrs = shape->vendor_files,
						     .groups = shape->vendor_groups };
	shape->mdev_groups[3] =
		(struct tree_group){ .name = "vfio-dev", .count = is_bound, .groups = vfio_groups };
	shape->type_groups[0] = (struct tree_group){ .name = "params",
						     .count = type_params_shown,
						     .groups = shape->params_groups };
	shape->mdev_kind = (struct tree_kind){ .name = "mdev",
					       .attrs = mdev_attrs,
					       .groups = shape->mdev_groups,
					       .links = mdev_links };
	shape->type_kind = (struct tree_kind){ .name = "mdev_type",
					       .attrs = type_attrs,
					       .groups = shape->type_groups };
	return shape;
}

void mdev_shape_free(struct mdev_shape *shape)
{
	if (!shape)
		return;
	free(shape->device_dirs);
	free(shape->type_dirs);
	free(shape->class_groups);
	free(shape->vendor_groups);
	free(shape->params_groups);
	free(shape->vendor_files);
	free(shape);
}

const struct tree_kind *mdev_shape_kind(const struct mdev_shape *shape)
{
	return &shape->mdev_kind;
}

const struct tree_kind *mdev_shape_type_kind(const struct mdev_shape *shape)
{
	return &shape->type_kind;
}
