/* SPDX-License-Identifier: MIT */
/*
 * What a driver adds to the tree by itself: folders of its parents with objects in them, and files
 * of its devices. They are ordinary nodes and files, so every door has them.
 */
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "core/private.h"

/* Tables of one folder of a driver. They live as long as the core: a program may hold a file open
 * for longer than its parent is there. */
struct folder_shape {
	const struct umdev_folder *desc;
	struct tree_attr *attrs, *object_attrs; /* owned */
	struct tree_kind kind, object_kind;
};

/* P/<folder>. Objects may come before it is published, and have no directory until then. */
struct object_folder {
	const struct folder_shape *shape;
	struct umdev_parent *parent;
	struct tree_node *node; /* NULL: not published yet */
	struct list_node objects;
};

struct umdev_object {
	struct object_folder *folder;
	struct list_node node;
	char *name; /* owned */
	struct tree_node *dir;
	void *priv;
};

/* ---- files ---- */

static struct umdev_place folder_place(const struct tree_node *node)
{
	const struct object_folder *folder = node->object;

	return (struct umdev_place){ .parent = folder->parent };
}

static struct umdev_place object_place(const struct tree_node *node)
{
	struct umdev_object *object = node->object;

	return (struct umdev_place){ .parent = object->folder->parent, .object = object };
}

static struct umdev_place mdev_place(const struct tree_node *node)
{
	struct umdev_mdev *mdev = node->object;

	return (struct umdev_place){ .parent = mdev->parent, .mdev = mdev };
}

#define SHOW_AND_STORE(show_name, store_name, place_of)                                            \
	show_name(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf) \
	{                                                                                          \
		const struct umdev_attr *desc = attr->data;                                        \
		const struct umdev_place place = place_of(node);                                   \
                                                                                                   \
		return desc->show(&place, buf, TREE_ATTR_SIZE);                                    \
	}                                                                                          \
	store_name(struct tree_node *node, const struct tree_attr *attr, unsigned index,           \
		   const char *text, size_t len, struct attr_wait *wait)                           \
	{                                                                                          \
		const struct umdev_attr *desc = attr->data;                                        \
		const struct umdev_place place = place_of(node);                                   \
                                                                                                   \
		return desc->store(&place, text, len, wait);                                       \
	}
SHOW_AND_STORE(static int folder_show, static int folder_store, folder_place)
SHOW_AND_STORE(static int object_show, static int object_store, object_place)
SHOW_AND_STORE(int driver_attr_show, int driver_attr_store, mdev_place)

/* NULL: no memory. */
static struct tree_attr *make_table(const struct umdev_attr *desc, const struct tree_attr *like)
{
	struct tree_attr *table;
	unsigned n = 0;

	while (desc && desc[n].name)
		n++;
	table = calloc(n + 1, sizeof(*table));
	for (unsigned i = 0; table && i < n; i++)
		table[i] = (struct tree_attr){ .name = desc[i].name,
					       .mode = (uint16_t)desc[i].mode,
					       .show = desc[i].show ? like->show : NULL,
					       .store = desc[i].store ? like->store : NULL,
					       .data = &desc[i] };
	return table;
}

/* ---- shapes ---- */

static unsigned count_folders(const struct umdev_parent_driver *driver)
{
	unsigned n = 0;

	while (driver->folders && driver->folders[n].name)
		n++;
	return n;
}

static int shape_init(struct folder_shape *shape, const struct umdev_folder *desc)
{
	static const struct tree_attr of_folder = { .show = folder_show, .store = folder_store };
	static const struct tree_attr of_object = { .show = object_show, .store = object_store };

	shape->desc = desc;
	shape->attrs = make_table(desc->attrs, &of_folder);
	shape->object_attrs = make_table(desc->object_attrs, &of_object);
	shape->kind = (struct tree_kind){ .name = "folder", .attrs = shape->attrs };
	shape->object_kind = (struct tree_kind){ .name = "object", .attrs = shape->object_attrs };
	return shape->attrs && shape->object_attrs ? 0 : -ENOMEM;
}

int core_folders_init(struct core *core)
{
	unsigned n = 0;
	int error = 0;

	for (const struct umdev_parent_driver *const *d = core->drivers; *d; d++)
		n += count_folders(*d);
	core->folder_shapes = calloc(n + 1, sizeof(*core->folder_shapes));
	if (!core->folder_shapes)
		return -ENOMEM;
	for (const struct umdev_parent_driver *const *d = core->drivers; *d; d++)
		for (unsigned i = 0; i < count_folders(*d) && !error; i++)
			error = shape_init(&core->folder_shapes[core->n_folder_shapes++],
					   &(*d)->folders[i]);
	return error;
}

void core_folders_fini(struct core *core)
{
	for (unsigned i = 0; i < core->n_folder_shapes; i++) {
		free(core->folder_shapes[i].attrs);
		free(core->folder_shapes[i].object_attrs);
	}
	free(TAKE(core->folder_shapes));
	core->n_folder_shapes = 0;
}

static const struct folder_shape *shape_of(const struct core *core, const struct umdev_folder *desc)
{
	unsigned i = 0;

	while (core->folder_shapes[i].desc != desc)
		i++;
	return &core->folder_shapes[i];
}

/* ---- folders ---- */

int objects_init(struct umdev_parent *parent)
{
	unsigned n = count_folders(parent->driver);

	parent->folders = calloc(n + 1, sizeof(*parent->folders));
	if (!parent->folders)
		return -ENOMEM;
	for (; parent->n_folders < n; parent->n_folders++) {
		struct object_folder *folder = &parent->folders[parent->n_folders];

		folder->parent = parent;
		folder->shape = shape_of(parent->core, &parent->driver->folders[parent->n_folders]);
		list_init(&folder->objects);
	}
	return 0;
}

static int object_publish(struct umdev_object *object)
{
	const struct object_folder *folder = object->folder;

	if (folder->node)
		object->dir = tree_add(&folder->parent->core->tree, folder->node, object->name,
				       &folder->shape->object_kind, object);
	return folder->node && !object->dir ? -ENOMEM : 0;
}

int objects_publish(struct umdev_parent *parent)
{
	struct umdev_object *object;

	for (unsigned i = 0; i < parent->n_folders; i++) {
		struct object_folder *folder = &parent->folders[i];

		folder->node = tree_add(&parent->core->tree, parent->dir, folder->shape->desc->name,
					&folder->shape->kind, folder);
		if (!folder->node)
			return -ENOMEM;
		list_for_each(object, &folder->objects, node)
			if (object_publish(object) < 0)
				return -ENOMEM;
	}
	return 0;
}

void objects_unpublish(struct umdev_parent *parent)
{
	struct umdev_object *object;

	for (unsigned i = 0; i < parent->n_folders; i++) {
		struct object_folder *folder = &parent->folders[i];

		list_for_each(object, &folder->objects, node)
			tree_remove(&parent->core->tree, TAKE(object->dir));
		tree_remove(&parent->core->tree, TAKE(folder->node));
	}
}

void objects_fini(struct umdev_parent *parent)
{
	struct umdev_object *object, *next;

	for (unsigned i = 0; i < parent->n_folders; i++)
		list_for_each_safe(object, next, &parent->folders[i].objects, node)
			umdev_object_remove(object);
	free(TAKE(parent->folders));
	parent->n_folders = 0;
}

/* ---- what drivers call ---- */

static struct object_folder *find_folder(struct umdev_parent *parent, const char *name)
{
	unsigned i = 0;

	while (strcmp(parent->folders[i].shape->desc->name, name) != 0) {
		i++;
		assert(i < parent->n_folders);
	}
	return &parent->folders[i];
}

struct umdev_object *umdev_object_add(struct umdev_parent *parent, const char *folder,
				      const char *name, void *priv)
{
	struct umdev_object *object = calloc(1, sizeof(*object));

	if (!object)
		return NULL;
	object->folder = find_folder(parent, folder);
	object->priv = priv;
	object->name = strdup(name);
	if (!object->name || object_publish(object) < 0) {
		free(object->name);
		free(object);
		return NULL;
	}
	list_append(&object->folder->objects, &object->node);
	return object;
}

void umdev_object_remove(struct umdev_object *object)
{
	if (!object)
		return;
	tree_remove(&object->folder->parent->core->tree, object->dir);
	list_remove(&object->node);
	free(object->name);
	free(object);
}

void *umdev_object_priv(const struct umdev_object *object)
{
	return object->priv;
}

int umdev_value_parse(const struct umdev_param *like, const char *text, size_t len,
		      struct umdev_value *ret)
{
	return param_parse(like, text, len, ret);
}

void umdev_answer_hold(struct attr_wait **slot, struct attr_wait *wait)
{
	attr_hold(slot, wait);
}

void umdev_answer(struct attr_wait **slot, int result)
{
	attr_done(slot, result);
}
