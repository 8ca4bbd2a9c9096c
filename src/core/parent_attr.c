/* SPDX-License-Identifier: MIT */
/* /devices/virtual/<class>/<parent>; its types are nodes of their own. */
#include "core/private.h"

static int uevent_write(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			const char *text, size_t len, struct attr_wait *wait)
{
	const struct umdev_parent *parent = node->object;

	return uevent_store_node(parent->core, parent, NULL, node, parent->class_name, text, len);
}

static struct tree_node *subsystem(struct tree_node *node)
{
	const struct umdev_parent *parent = node->object;

	return tree_child(&parent->core->tree, parent->core->class_dir, parent->class_name);
}

static const struct tree_attr parent_attrs[] = {
	{ .name = "uevent", .mode = 0644, .show = empty_show, .store = uevent_write },
	{ 0 },
};

static const struct tree_group parent_groups[] = {
	{ .name = "power", .attrs = power_attrs },
	{ 0 },
};

static const struct tree_fixed_link parent_links[] = {
	{ .name = "subsystem", .to = subsystem },
	{ 0 },
};

const struct tree_kind parent_kind = {
	.name = "parent", .attrs = parent_attrs, .groups = parent_groups, .links = parent_links
};
