/* SPDX-License-Identifier: MIT */
/* /bus/mdev and its drivers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

const struct tree_kind core_dir_kind = { .name = "dir" };

/* The mdev of that exact name (one newline may follow), as the bus knows it. */
static struct umdev_mdev *find_device(struct core *core, const char *text, size_t len)
{
	struct umdev_mdev *mdev = NULL;
	struct uuid uuid;

	if (text[len - 1] == '\n')
		len--;
	if (len == UUID_TEXT - 1 && uuid_parse(text, len, &uuid) == 0)
		mdev = mdev_find(core, &uuid);
	if (mdev && (mdev->state == MDEV_REMOVING || memcmp(mdev->uuid_text, text, len) != 0))
		mdev = NULL;
	if (!mdev)
		err_set(-ENODEV,
			"no device of that name on bus mdev; names are UUIDs in lower case");
	return mdev;
}

static int autoprobe_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			  char *buf)
{
	const struct core *core = node->object;

	return snprintf(buf, TREE_ATTR_SIZE, "%d\n", core->drivers_autoprobe);
}

static int autoprobe_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			   const char *text, size_t len, struct attr_wait *wait)
{
	struct core *core = node->object;

	core->drivers_autoprobe = text[0] != '0';
	if (core->tree.owned_changed) /* kept with what else was set in the tree */
		core->tree.owned_changed(&core->tree);
	return 0;
}

/* No driver of the bus matches by itself: nothing is bound, as on a kernel. */
static int probe_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       const char *text, size_t len, struct attr_wait *wait)
{
	return find_device(node->object, text, len) ? 0 : -ENODEV;
}

static int bus_uevent_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			    const char *text, size_t len, struct attr_wait *wait)
{
	return uevent_store_node(node->object, NULL, NULL, node, "bus", text, len);
}

static const struct tree_attr bus_attrs[] = {
	{ .name = "drivers_autoprobe",
	  .mode = 0644,
	  .show = autoprobe_show,
	  .store = autoprobe_store },
	{ .name = "drivers_probe", .mode = 0200, .store = probe_store },
	{ .name = "uevent", .mode = 0200, .store = bus_uevent_store },
	{ 0 },
};

const struct tree_kind bus_kind = { .name = "bus", .attrs = bus_attrs };

static int bind_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait)
{
	const struct bus_driver *driver = node->object;
	struct umdev_mdev *mdev = find_device(driver->core, text, len);

	if (!mdev)
		return -ENODEV;
	if (mdev->parent->bus_driver != driver)
		return err_set(-ENODEV, "%s belongs to driver %s", mdev->uuid_text,
			       mdev->parent->driver->name);
	return mdev_bind(mdev);
}

static int unbind_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			const char *text, size_t len, struct attr_wait *wait)
{
	const struct bus_driver *driver = node->object;
	struct umdev_mdev *mdev = find_device(driver->core, text, len);

	if (!mdev)
		return -ENODEV;
	if (mdev->parent->bus_driver != driver)
		return err_set(-ENODEV, "%s belongs to driver %s", mdev->uuid_text,
			       mdev->parent->driver->name);
	return mdev_unbind(mdev);
}

static int driver_uevent_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			       const char *text, size_t len, struct attr_wait *wait)
{
	const struct bus_driver *driver = node->object;

	return uevent_store_node(driver->core, NULL, NULL, node, "drivers", text, len);
}

static const struct tree_attr driver_attrs[] = {
	{ .name = "bind", .mode = 0200, .store = bind_store },
	{ .name = "uevent", .mode = 0200, .store = driver_uevent_store },
	{ .name = "unbind", .mode = 0200, .store = unbind_store },
	{ 0 },
};

static const struct tree_kind driver_kind = { .name = "driver", .attrs = driver_attrs };

static void driver_event(const struct bus_driver *driver, enum core_event_type type)
{
	const struct core_event event = { .type = type, .detail = driver->driver->name };

	driver->core->ops->event(driver->core->ops_arg, &event);
}

static struct bus_driver *bus_driver_new(struct core *core,
					 const struct umdev_parent_driver *driver)
{
	struct bus_driver *d = calloc(1, sizeof(*d));
	char module[128];

	if (!d)
		return NULL;
	d->core = core;
	d->driver = driver;
	str_format(module, sizeof(module), "../../../../module/%s", driver->name);
	d->dir = tree_add(&core->tree, core->bus_drivers, driver->name, &driver_kind, d);
	if (!d->dir || !tree_add_link(&core->tree, d->dir, "module", module)) {
		tree_remove(&core->tree, d->dir);
		free(d);
		return NULL;
	}
	list_append(&core->driver_dirs, &d->node);
	driver_event(d, CORE_DRIVER_ADDED);
	return d;
}

struct bus_driver *bus_driver_get(struct core *core, const struct umdev_parent_driver *driver)
{
	struct bus_driver *d;

	list_for_each(d, &core->driver_dirs, node)
		if (d->driver == driver) {
			d->n_parents++;
			return d;
		}
	d = bus_driver_new(core, driver);
	if (d)
		d->n_parents = 1;
	return d;
}

void bus_driver_put(struct bus_driver *driver)
{
	if (!driver || --driver->n_parents)
		return;
	driver_event(driver, CORE_DRIVER_REMOVED);
	tree_remove(&driver->core->tree, driver->dir);
	list_remove(&driver->node);
	free(driver);
}
