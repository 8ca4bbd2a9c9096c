/* SPDX-License-Identifier: MIT */
/*
 * Parents: a resource opened by a driver's parent half, its settings, and its directory with one
 * sub-directory per type. Built in private (settings, pools, driver) and published last.
 */
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

/* Settings that every parent has, in this order at the start of param_descs. */
enum { PARENT_PARAMS, PARENT_REMOVE, PARENT_LIBVIRT, PARENT_P2P_DOMAIN };

static const char *const on_off[] = { "on", "off", NULL };
static const char *const busy_wait[] = { "busy", "wait", NULL };

static const struct umdev_param parent_params[] = {
	[PARENT_PARAMS] = { .name = "params",
			    .description = "on: parameters in the tree and at create; off: exactly "
					   "a kernel's tree",
			    .type = UMDEV_ENUM,
			    .choices = on_off,
			    .writable = UMDEV_W_CREATE },
	[PARENT_REMOVE] = { .name = "remove",
			    .description = "removing a device in use: busy refuses it, wait asks "
					   "its client to go and waits",
			    .type = UMDEV_ENUM,
			    .choices = busy_wait,
			    .writable = UMDEV_W_CREATE },
	[PARENT_LIBVIRT] = { .name = "libvirt_compat",
			     .description = "yes: class mtty, the only one that libvirt accepts",
			     .type = UMDEV_BOOL,
			     .writable = UMDEV_W_CREATE },
	[PARENT_P2P_DOMAIN] = { .name = "p2p_domain",
				.description = "devices of parents with the same word may share a "
					       "group; the parent's name when not given",
				.type = UMDEV_STRING,
				.writable = UMDEV_W_CREATE },
};
#define N_PARENT_PARAMS (sizeof(parent_params) / sizeof(parent_params[0]))
_Static_assert(N_PARENT_PARAMS <= CORE_OWN_PARAMS, "driver.c counts on it");

/* ---- settings ---- */

unsigned parent_param_list(const struct umdev_parent_driver *driver,
			   const struct umdev_param *ret[CORE_MAX_PARAMS])
{
	const struct umdev_param *const *p = driver->params;
	unsigned n = 0;

	for (; n < N_PARENT_PARAMS; n++)
		ret[n] = &parent_params[n];
	for (; p && *p; p++) {
		assert(n < CORE_MAX_PARAMS);
		ret[n++] = *p;
	}
	return n;
}

static int find_param(const struct umdev_parent *parent, const char *key)
{
	const char *names[CORE_MAX_PARAMS + 1], *near;

	for (unsigned i = 0; i < parent->n_params; i++) {
		names[i] = parent->param_descs[i]->name;
		if (strcmp(names[i], key) == 0)
			return (int)i;
	}
	names[parent->n_params] = NULL;
	near = err_nearest(key, names);
	if (near)
		return err_set(-EINVAL, "driver %s has no parent setting '%s'; did you mean '%s'?",
			       parent->driver->name, key, near);
	return err_set(-EINVAL,
		       "driver %s has no parent setting '%s'; `umdev parent add --help` "
		       "lists them",
		       parent->driver->name, key);
}

static int apply_settings(struct umdev_parent *parent, const struct core_setting *settings,
			  unsigned n)
{
	uint32_t given = 0;

	for (unsigned i = 0; i < n; i++) {
		int index = find_param(parent, settings[i].key);

		if (index < 0)
			return index;
		if (given & UINT32_C(1) << index)
			return err_set(-EINVAL, "setting %s is given twice", settings[i].key);
		given |= UINT32_C(1) << index;
		if (param_parse(parent->param_descs[index], settings[i].value,
				strlen(settings[i].value), &parent->params[index]) < 0)
			return -EINVAL;
	}
	for (unsigned i = 0; i < parent->n_params; i++)
		if (parent->param_descs[i]->required && !(given & UINT32_C(1) << i))
			return err_set(-EINVAL, "driver %s needs the setting %s=...",
				       parent->driver->name, parent->param_descs[i]->name);
	return 0;
}

static int parent_configure(struct umdev_parent *parent, const struct core_setting *settings,
			    unsigned n)
{
	const char *domain;
	int error;

	parent->n_params = parent_param_list(parent->driver, parent->param_descs);
	parent->params = calloc(parent->n_params, sizeof(*parent->params));
	if (!parent->params)
		return -ENOMEM;
	for (unsigned i = 0; i < parent->n_params; i++)
		value_default(parent->param_descs[i], &parent->params[i]);
	error = apply_settings(parent, settings, n);
	if (error < 0)
		return error;
	domain = parent->params[PARENT_P2P_DOMAIN].text;
	parent->params_shown = parent->params[PARENT_PARAMS].u64 == 0;
	parent->remove_waits = parent->params[PARENT_REMOVE].u64 == 1;
	parent->p2p_domain = *domain ? domain : parent->name;
	parent->class_name = parent->driver->class_name ? parent->driver->class_name : "umdev";
	if (parent->params[PARENT_LIBVIRT].u64)
		parent->class_name = "mtty";
	for (const struct umdev_pool *p = parent->driver->pools; p && p->name; p++) {
		assert(parent->n_pools < UMDEV_MAX_POOLS);
		parent->pools[parent->n_pools].pool = p;
		parent->pools[parent->n_pools++].capacity = p->capacity;
	}
	return 0;
}

static int list_types(struct umdev_parent *parent)
{
	const struct umdev_type *desc = parent->driver->types;
	unsigned n = 0;

	while (desc[n].name)
		n++;
	parent->types = calloc(n + 1, sizeof(*parent->types));
	if (!parent->types)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		parent->types[i].info = core_type_of(parent->core, &desc[i]);
		parent->types[i].desc = &desc[i];
		parent->types[i].parent = parent;
	}
	parent->n_types = n;
	return 0;
}

/* ---- the tree ---- */

static void class_event(struct core *core, enum core_event_type type, const char *name)
{
	const struct core_event event = { .type = type, .detail = name };

	core->ops->event(core->ops_arg, &event);
}

/* /class/<class> and /devices/virtual/<class> come with the first parent of a class. */
static int class_get(struct core *core, const char *name, struct tree_node **ret_class,
		     struct tree_node **ret_virtual)
{
	struct tree_node *class = tree_child(&core->tree, core->class_dir, name);
	struct tree_node *virtual = tree_child(&core->tree, core->devices_virtual, name);

	if (!class) {
		class = tree_add(&core->tree, core->class_dir, name, &core_dir_kind, NULL);
		if (class)
			class_event(core, CORE_CLASS_ADDED, name);
	}
	if (!virtual)
		virtual = tree_add(&core->tree, core->devices_virtual, name, &core_dir_kind, NULL);
	*ret_class = class;
	*ret_virtual = virtual;
	return class && virtual ? 0 : -ENOMEM;
}

/* ... and go when they are empty. */
static void class_put(struct core *core, const char *name)
{
	struct tree_node *class = tree_child(&core->tree, core->class_dir, name);
	struct tree_node *virtual = tree_child(&core->tree, core->devices_virtual, name);

	if (virtual && list_is_empty(&virtual->children))
		tree_remove(&core->tree, virtual);
	if (class && list_is_empty(&class->children)) {
		class_event(core, CORE_CLASS_REMOVED, name);
		tree_remove(&core->tree, class);
	}
}

static int publish_types(struct umdev_parent *parent)
{
	struct tree *tree = &parent->core->tree;
	struct tree_node *dir = tree_add(tree, parent->dir, "mdev_supported_types", &core_dir_kind,
					 NULL);

	if (!dir)
		return -ENOMEM;
	for (unsigned i = 0; i < parent->n_types; i++) {
		struct mdev_type *type = &parent->types[i];

		type->dir = tree_add(tree, dir, type->info->name,
				     mdev_shape_type_kind(type->info->shape), type);
		if (type->dir)
			type->devices = tree_add(tree, type->dir, "devices", &core_dir_kind, NULL);
		if (!type->devices)
			return -ENOMEM;
	}
	return 0;
}

static int parent_publish(struct umdev_parent *parent)
{
	struct core *core = parent->core;
	struct tree_node *class, *virtual;

	parent->bus_driver = bus_driver_get(core, parent->driver);
	if (!parent->bus_driver || class_get(core, parent->class_name, &class, &virtual) < 0)
		return -ENOMEM;
	parent->dir = tree_add(&core->tree, virtual, parent->name, &parent_kind, parent);
	if (!parent->dir || publish_types(parent) < 0 || objects_publish(parent) < 0 ||
	    (parent->params_shown && start_files_get(parent) < 0) ||
	    !tree_add_link_to(&core->tree, class, parent->name, parent->dir) ||
	    !tree_add_link_to(&core->tree, core->mdev_bus, parent->name, parent->dir))
		return -ENOMEM;
	return 0;
}

static void parent_unpublish(struct umdev_parent *parent)
{
	struct core *core = parent->core;
	struct tree_node *class = tree_child(&core->tree, core->class_dir, parent->class_name);

	if (parent->dir) {
		objects_unpublish(parent);
		tree_remove(&core->tree, tree_child(&core->tree, core->mdev_bus, parent->name));
		tree_remove(&core->tree, tree_child(&core->tree, class, parent->name));
		tree_remove(&core->tree, TAKE(parent->dir));
	}
	start_files_put(parent);
	bus_driver_put(TAKE(parent->bus_driver));
	class_put(core, parent->class_name);
}

/* ---- life ---- */

static void parent_free(struct umdev_parent *parent)
{
	objects_fini(parent);
	free(parent->types);
	free(parent->params);
	free(parent);
}

static const struct umdev_parent_driver *find_driver(struct core *core, const char *name)
{
	const char *names[64], *near;
	unsigned n = 0;

	for (const struct umdev_parent_driver *const *d = core->drivers; *d; d++) {
		if (strcmp((*d)->name, name) == 0)
			return *d;
		if (n < 63)
			names[n++] = (*d)->name;
	}
	names[n] = NULL;
	near = err_nearest(name, names);
	if (near)
		err_set(-ENOENT, "no driver '%s'; did you mean '%s'?", name, near);
	else
		err_set(-ENOENT, "no driver '%s'; `umdev parent add --help` lists them", name);
	return NULL;
}

struct umdev_parent *parent_find(struct core *core, const char *name)
{
	struct umdev_parent *parent;

	list_for_each(parent, &core->parents, node)
		if (strcmp(parent->name, name) == 0)
			return parent;
	return NULL;
}

static void insert_by_name(struct umdev_parent *parent)
{
	struct umdev_parent *at;

	list_for_each(at, &parent->core->parents, node)
		if (strcmp(at->name, parent->name) > 0)
			break;
	list_insert_before(&at->node, &parent->node);
}

static void parent_event(const struct umdev_parent *parent, enum core_event_type type)
{
	const struct core_event event = { .type = type, .parent = parent };

	parent->core->ops->event(parent->core->ops_arg, &event);
}

static int parent_start(struct umdev_parent *parent)
{
	const struct umdev_parent_driver *driver = parent->driver;
	int error = objects_init(parent);

	if (!error && driver->add)
		error = driver->add(parent);
	if (error < 0)
		return error;
	error = parent_publish(parent);
	if (error < 0) {
		parent_unpublish(parent);
		if (driver->remove)
			driver->remove(parent);
	}
	return error;
}

static int check_name(struct core *core, const char *name)
{
	if (!str_is_name(name))
		return err_set(-EINVAL,
			       "parent name '%s': letters a-z, digits and '-', at most 63, "
			       "not beginning with '-'",
			       name);
	if (parent_find(core, name))
		return err_set(-EEXIST,
			       "parent %s exists already; choose another name or "
			       "`umdev parent remove %s`",
			       name, name);
	return 0;
}

int parent_add(struct core *core, const char *name, const char *driver_name,
	       const struct core_setting *settings, unsigned n_settings, struct umdev_parent **ret)
{
	const struct umdev_parent_driver *driver;
	struct umdev_parent *parent;
	int error = check_name(core, name);

	if (error < 0)
		return error;
	driver = find_driver(core, driver_name);
	if (!driver)
		return -ENOENT;
	parent = calloc(1, sizeof(*parent));
	if (!parent)
		return -ENOMEM;
	parent->core = core;
	parent->driver = driver;
	list_init(&parent->mdevs);
	str_format(parent->name, sizeof(parent->name), "%s", name);
	error = parent_configure(parent, settings, n_settings);
	if (!error)
		error = list_types(parent);
	if (!error)
		error = parent_start(parent);
	if (error < 0) {
		parent_free(parent);
		return error;
	}
	insert_by_name(parent);
	parent_event(parent, CORE_PARENT_ADDED);
	*ret = parent;
	return 0;
}

static int check_idle(const struct umdev_parent *parent)
{
	const struct umdev_mdev *mdev;

	list_for_each(mdev, &parent->mdevs, parent_node)
		if (mdev->state == MDEV_NEW)
			return err_set(-EBUSY, "%s: its device %s is being made; wait for it",
				       parent->name, mdev->uuid_text);
		else if (mdev_in_use(mdev) || mdev->state == MDEV_REMOVING)
			return err_set(-EBUSY,
				       "%s: its device %s is %s; disconnect its client "
				       "first, or use `umdev remove --force`",
				       parent->name, mdev->uuid_text, mdev_state_name(mdev->state));
	return 0;
}

int parent_remove(struct umdev_parent *parent)
{
	struct umdev_mdev *mdev, *next;
	int error = check_idle(parent);

	if (error < 0)
		return error;
	list_for_each_safe(mdev, next, &parent->mdevs, parent_node) {
		error = mdev_remove(mdev, MDEV_REMOVE, NULL);
		assert(error == 0);
	}
	parent_event(parent, CORE_PARENT_REMOVED);
	list_remove(&parent->node);
	parent_unpublish(parent);
	if (parent->driver->remove)
		parent->driver->remove(parent);
	parent_free(parent);
	return 0;
}

const struct umdev_value *umdev_parent_param(const struct umdev_parent *parent, const char *name)
{
	for (unsigned i = 0; i < parent->n_params; i++)
		if (strcmp(parent->param_descs[i]->name, name) == 0)
			return &parent->params[i];
	return NULL;
}
