/* SPDX-License-Identifier: MIT */
/* What the files of core/ share among themselves. */
#ifndef CORE_PRIVATE_H
#define CORE_PRIVATE_H

#include <assert.h>
#include <umdev/cleanup.h>
#include "core/core.h"
#include "core/group.h"

/* ---- value.c ---- */

/* Syntax only: 0 / -EINVAL (-ERANGE: beyond 64 bits). One trailing newline is allowed. */
int value_parse(const struct umdev_param *desc, const char *text, size_t len,
		struct umdev_value *ret);
/* min, max, step, choices: 0 / -ERANGE. */
int value_check(const struct umdev_param *desc, const struct umdev_value *value);
bool value_is_numeric(const struct umdev_param *desc);

/* ---- pool.c ---- */

struct pool_units {
	uint64_t n[UMDEV_MAX_POOLS];
};
/* Units that a device takes: with the defaults (mdev NULL) or its values, and with `value` in the
 * place of parameter `index` (-1: none). 0 / -ENOSPC: more than any number. */
int pool_cost(const struct core_type *info, const struct umdev_mdev *mdev, int index,
	      const struct umdev_value *value, struct pool_units *ret);
/* Gives `from` back and takes `to`, or refuses and changes nothing. -ENOSPC, -EUSERS. */
int pool_change(struct umdev_parent *parent, const struct pool_units *from,
		const struct pool_units *to);

/* ---- standard.c ---- */

bool standard_is_class(const char *name);
/* Does a standard parameter of that class have this name? */
bool standard_has_name(const char *class_name, const char *name);
/* What a driver listed, with what its id stands for. 0 / -EINVAL: not of this class, or the driver
 * says itself what is not its to say; where: for the message. */
int standard_complete(const char *where, const char *class_name, const struct umdev_param *given,
		      struct umdev_param *ret);

/* ---- type.c ---- */

int core_types_init(struct core *core); /* 0 / -ENOMEM */
void core_types_fini(struct core *core);
/* The type that core_types_init built for it. */
const struct core_type *core_type_of(const struct core *core, const struct umdev_type *desc);

/* ---- spec.c ---- */

/* What was written to create. Borrows the text. */
struct mdev_spec {
	struct uuid uuid;
	unsigned n_settings;
	struct {
		unsigned index; /* of the parameter */
		const char *text;
		size_t len;
	} settings[CORE_MAX_PARAMS];
};
/* -EINVAL: the grammar, an unknown key, a key given twice. */
int spec_parse(const struct mdev_type *type, const char *text, size_t len, struct mdev_spec *ret);

/* ---- param.c ---- */

/* Keeps a copy of value as the current one. 0 / -ENOMEM. */
int param_keep(struct umdev_mdev *mdev, unsigned index, const struct umdev_value *value);
/* As param_keep, and notes that it was given. */
int param_store(struct umdev_mdev *mdev, unsigned index, const struct umdev_value *value);
/* -EADDRINUSE: another device has this address. */
int param_check_unique(const struct umdev_mdev *mdev, unsigned index,
		       const struct umdev_value *value);
/* param_set for a parameter that was looked up. */
int param_set_index(struct umdev_mdev *mdev, unsigned index, const char *text, size_t len,
		    struct attr_wait *wait);
/* Holds a change that waited for a worker when the manager ended. 0 / -errno */
int param_restore_pending(struct umdev_mdev *mdev, const struct core_setting *pending);
/* The device goes away: a change that waits for a worker is answered. */
void param_abandon(struct umdev_mdev *mdev);

/* ---- mdev.c, connection.c ---- */

/* The only place that changes mdev->state. Asserts the edge, tells. detail: NULL: the name. */
void mdev_set_state(struct umdev_mdev *mdev, enum mdev_state state, const char *detail);
/* The last step of a removal that waited. Frees mdev. */
void mdev_finish_removal(struct umdev_mdev *mdev);
/* -EACCES: a parameter that must be set before use is not. */
int mdev_check_required(const struct umdev_mdev *mdev);
/* Forgets the connection; the owner goes with the last one of the group. */
void mdev_disconnected(struct umdev_mdev *mdev);
/* mdev.c: opened again by who asks for it. */
void mdev_close_dir(struct umdev_mdev *mdev);
/* Takes the nodes of a device that is going, or was never complete, out of the tree. */
void mdev_unpublish(struct umdev_mdev *mdev);
void mdev_event(const struct umdev_mdev *mdev, enum core_event_type type, const char *detail);
void mdev_dirty(struct umdev_mdev *mdev);

/* ---- start.c ---- */

/* It is going, or failed (error < 0): the mdev_start that waits for it fails, and it is not started
 * any more. No-op otherwise. */
void start_abandon(struct umdev_mdev *mdev, int error);
/* As they were before the manager was restarted: STARTED. */
void start_restore(struct umdev_mdev *mdev);
/* /class/mdev comes and goes with the parents that show parameters. 0 / -ENOMEM */
int start_files_get(struct umdev_parent *parent);
void start_files_put(struct umdev_parent *parent); /* no-op without get */

/* ---- object.c ---- */

int core_folders_init(struct core *core); /* 0 / -ENOMEM */
void core_folders_fini(struct core *core);
/* The folders of the parent's driver. Objects may be added from init to fini, which removes those
 * that are left; their directories are there from publish to unpublish. 0 / -ENOMEM */
int objects_init(struct umdev_parent *parent);
int objects_publish(struct umdev_parent *parent);
void objects_unpublish(struct umdev_parent *parent);
void objects_fini(struct umdev_parent *parent);
/* attr->data: the struct umdev_attr, of a device. */
int driver_attr_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf);
int driver_attr_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait);

/* ---- bus_attr.c ---- */

/* A vendor driver on bus mdev: there while it has a parent. Owned by the core's list. */
struct bus_driver {
	struct list_node node; /* in core->driver_dirs */
	struct core *core;
	const struct umdev_parent_driver *driver;
	struct tree_node *dir;
	unsigned n_parents;
};
extern const struct tree_kind core_dir_kind; /* nothing but children */
extern const struct tree_kind bus_kind;      /* object: struct core */
/* The driver's directory, made for its first parent and gone with its last. NULL: no memory. */
struct bus_driver *bus_driver_get(struct core *core, const struct umdev_parent_driver *driver);
void bus_driver_put(struct bus_driver *bus_driver);

/* ---- device_attr.c: files that a kernel gives to every device ---- */

extern const struct tree_attr power_attrs[];
/* A write to a uevent file. parent, mdev: NULL where the device is no such thing. */
int uevent_store(struct core *core, const struct umdev_parent *parent,
		 const struct umdev_mdev *mdev, const char *devpath, const char *subsystem,
		 const char *text, size_t len);
/* As uevent_store for a node; its path is the device's. */
int uevent_store_node(struct core *core, const struct umdev_parent *parent,
		      const struct umdev_mdev *mdev, struct tree_node *node, const char *subsystem,
		      const char *text, size_t len);
int empty_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf);
/* "<text>\n" of a constant: attr->data. */
int text_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf);

/* ---- parent_attr.c, group_attr.c, mdev_attr.c, param_attr.c ---- */

extern const struct tree_kind parent_kind;      /* object: struct umdev_parent */
extern const struct tree_kind iommu_group_kind; /* object: struct mdev_group */
extern const struct tree_kind vfio_group_kind;  /* object: struct mdev_group */

/* Tables of one type's nodes. */
struct mdev_shape *mdev_shape_new(const struct core_type *info); /* NULL: no memory */
void mdev_shape_free(struct mdev_shape *shape);
const struct tree_kind *mdev_shape_kind(const struct mdev_shape *shape);      /* of an mdev */
const struct tree_kind *mdev_shape_type_kind(const struct mdev_shape *shape); /* of mdev_type */

/* The directory of one parameter. */
#define PARAM_DIR_FILES 12
struct param_dir {
	const struct umdev_param *desc;
	unsigned index;
	struct tree_attr
		files[PARAM_DIR_FILES + 1]; /* ended by name == NULL; data: the param_dir */
};
/* of_type: without what only a device has (value, available). */
void param_dir_init(struct param_dir *dir, const struct umdev_param *desc, unsigned index,
		    bool of_type);

#endif
