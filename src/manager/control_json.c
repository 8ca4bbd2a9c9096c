/* SPDX-License-Identifier: MIT */
/* The model as objects of interface io.umdev. What is NULL in C is left out. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/str.h"
#include "core/core.h"
#include "core/group.h"
#include "manager/control.h"
#include "manager/worker_proc.h"

/* What a call of VARLINK_CALL_MAX bytes becomes at most (150 bytes of list per "["), and a reply.
 * Never touched, so it costs address space only. */
#define RESERVE (16u << 20)

/* Global, because jansson's hook for memory has no argument. */
static void *reserve;

static void *json_malloc(size_t size)
{
	void *p = malloc(size);

	if (p || !reserve)
		return p;
	free(TAKE(reserve));
	return malloc(size);
}

int control_json_reserve(void)
{
	if (!reserve)
		reserve = malloc(RESERVE);
	json_set_alloc_funcs(json_malloc, free);
	return reserve ? 0 : -ENOMEM;
}

void control_json_release(void)
{
	free(TAKE(reserve));
}

/*
 * Building stops at the first failure: the object (array) becomes NULL and stays so, and the one
 * who asked for it sees "no memory". Values are taken.
 */
static void set(json_t **object, const char *key, json_t *value)
{
	if (json_object_set_new(*object, key, value) == 0)
		return;
	json_decref(*object);
	*object = NULL;
}

static void set_text(json_t **object, const char *key, const char *text)
{
	if (text)
		set(object, key, json_string(text));
}

/* 64-bit numbers are text here: JSON's are doubles to many a reader. */
static void set_number(json_t **object, const char *key, uint64_t number)
{
	set(object, key, json_sprintf("%" PRIu64, number));
}

void control_append(json_t **array, json_t *item)
{
	if (json_array_append_new(*array, item) == 0)
		return;
	json_decref(*array);
	*array = NULL;
}

json_t *control_error_json(int error)
{
	return json_pack("{s:s, s:i, s:s}", "errno", err_name(error), "number", -error, "text",
			 err_text(error));
}

/* ---- parameters ---- */

static json_t *choices_json(const char *const *choices)
{
	json_t *array = json_array();

	for (unsigned i = 0; choices[i]; i++)
		control_append(&array, json_string(choices[i]));
	return array;
}

static bool is_numeric(const struct umdev_param *desc)
{
	return desc->type == UMDEV_U32 || desc->type == UMDEV_U64 || desc->type == UMDEV_SIZE;
}

/* What is known without a device. */
static json_t *param_json(const struct umdev_param *desc, const char *def)
{
	json_t *json = json_object();

	set_text(&json, "name", desc->name);
	set_text(&json, "type", param_type_name(desc->type));
	set_text(&json, "default", def);
	set_text(&json, "description", desc->description);
	set_text(&json, "unit", desc->unit);
	set_text(&json, "writable", param_writable_name(desc->writable));
	set(&json, "required", json_boolean(desc->required));
	if (is_numeric(desc)) {
		set_number(&json, "min", desc->min);
		set_number(&json, "max", param_max(desc));
		set_number(&json, "step", desc->step ? desc->step : 1);
	}
	if (desc->type == UMDEV_ENUM)
		set(&json, "choices", choices_json(desc->choices));
	return json;
}

static json_t *type_params_json(const struct core_type *info)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < info->n_params; i++)
		control_append(&array, param_json(info->params[i], info->defaults[i].text));
	return array;
}

/* A private value is told to those who may read its file; where there is none (params=off, not
 * bound), to root and to our own user. */
static bool may_read(const struct umdev_mdev *mdev, unsigned index, const struct tree_user *user)
{
	const struct core_type *info = mdev->type->info;
	const struct umdev_param *desc = info->params[index];
	bool of_class = index < info->n_standard || desc->id;
	char path[TREE_PATH_MAX];
	struct tree_ref ref;

	if (!desc->secret)
		return true;
	str_format(path, sizeof(path), "/devices/virtual/%s/%s/%s/%s/%s/value",
		   mdev->parent->class_name, mdev->parent->name, mdev->uuid_text,
		   of_class ? "mdev" : "vendor", desc->name);
	if (tree_walk(&mdev->core->tree, path, true, &ref) == 0)
		return tree_access(&mdev->core->tree, &ref, R_OK, user) == 0;
	return user->uid == 0 || user->uid == geteuid();
}

json_t *control_params_json(const struct umdev_mdev *mdev, const struct tree_user *user)
{
	const struct core_type *info = mdev->type->info;
	json_t *array = json_array();

	for (unsigned i = 0; i < info->n_params; i++) {
		json_t *json = param_json(info->params[i], info->defaults[i].text);

		if (may_read(mdev, i, user))
			set_text(&json, "value", mdev_param(mdev, i)->text);
		if (info->params[i]->pool)
			set_number(&json, "available", param_available(mdev, i));
		control_append(&array, json);
	}
	return array;
}

/* ---- drivers, parents, types ---- */

json_t *control_driver_json(const struct umdev_parent_driver *driver, const char *file)
{
	const struct umdev_param *descs[CORE_MAX_PARAMS];
	unsigned n = parent_param_list(driver, descs);
	json_t *params = json_array(), *json = json_object();
	struct umdev_value def;

	for (unsigned i = 0; i < n; i++) {
		value_default(descs[i], &def);
		control_append(&params, param_json(descs[i], def.text));
	}
	set_text(&json, "name", driver->name);
	set_text(&json, "summary", driver->summary ? driver->summary : "");
	if (file)
		set_text(&json, "file", file);
	set(&json, "params", params);
	return json;
}

/* "key=value" of everything that is not its default. */
static json_t *settings_json(const struct umdev_parent *parent)
{
	json_t *array = json_array();
	struct umdev_value def;

	for (unsigned i = 0; i < parent->n_params; i++) {
		const struct umdev_param *desc = parent->param_descs[i];
		const char *text = parent->params[i].text;

		value_default(desc, &def);
		if (strcmp(text, def.text) != 0 && !desc->secret)
			control_append(&array, json_sprintf("%s=%s", desc->name, text));
	}
	return array;
}

/* Made of names, because a device that is told of may have left the tree already. */
static json_t *parent_path(const struct umdev_parent *parent)
{
	return json_sprintf("/devices/virtual/%s/%s", parent->class_name, parent->name);
}

static json_t *mdev_path(const struct umdev_mdev *mdev)
{
	return json_sprintf("/devices/virtual/%s/%s/%s", mdev->parent->class_name,
			    mdev->parent->name, mdev->uuid_text);
}

json_t *control_parent_json(const struct umdev_parent *parent)
{
	json_t *json = json_object();

	set_text(&json, "name", parent->name);
	set_text(&json, "driver", parent->driver->name);
	set_text(&json, "class", parent->class_name);
	set(&json, "path", parent_path(parent));
	set(&json, "settings", settings_json(parent));
	set(&json, "devices", json_integer(parent->n_mdevs));
	return json;
}

json_t *control_type_json(const struct mdev_type *type)
{
	const struct umdev_type *desc = type->desc;
	json_t *json = json_object();

	set_text(&json, "parent", type->parent->name);
	set_text(&json, "name", type->info->name);
	set_text(&json, "pretty", desc->pretty ? desc->pretty : desc->name);
	set_text(&json, "description", desc->description);
	set_text(&json, "device_api", desc->device_api);
	set_text(&json, "class", desc->class_name);
	set(&json, "available_instances", json_integer((json_int_t)type_available(type)));
	set(&json, "params", type_params_json(type->info));
	return json;
}

/* ---- devices ---- */

static const char *label_of(const struct umdev_mdev *mdev)
{
	int index = mdev->type->info->label;

	return index < 0 ? "" : mdev_param(mdev, (unsigned)index)->text;
}

/* "key=value" of what was given at create or later, but for secrets; and the group that was chosen
 * for it, which is as good as given from then on: a restart keeps it. */
static json_t *given_json(const struct umdev_mdev *mdev)
{
	const struct core_type *info = mdev->type->info;
	json_t *array = json_array();

	for (unsigned i = 0; i < info->n_params; i++) {
		const struct umdev_param *desc = info->params[i];

		if (((int)i == info->p2p || mdev->params_set & UINT32_C(1) << i) && !desc->secret)
			control_append(&array, json_sprintf("%s=%s", desc->name,
							    mdev_param(mdev, i)->text));
	}
	return array;
}

/* The process that holds the device; 0: none, or none that can be named. */
static pid_t client_of(const struct umdev_mdev *mdev)
{
	return mdev->connected ? mdev->group->owner.pid : 0;
}

json_t *control_device_json(const struct umdev_mdev *mdev)
{
	struct worker_record worker;
	json_t *json = json_object();

	set_text(&json, "uuid", mdev->uuid_text);
	set_text(&json, "label", label_of(mdev));
	set_text(&json, "parent", mdev->parent->name);
	set_text(&json, "type", mdev->type->info->name);
	set_text(&json, "device_api", mdev->type->desc->device_api);
	set(&json, "path", mdev_path(mdev));
	set(&json, "group", json_integer(mdev->group ? (json_int_t)mdev->group->number : -1));
	set_text(&json, "state", mdev_state_name(mdev->state));
	set_text(&json, "error", mdev->fail_text);
	set(&json, "settings", given_json(mdev));
	if (worker_describe(mdev, &worker))
		set(&json, "worker", json_integer(worker.pid));
	if (client_of(mdev))
		set(&json, "client", json_integer(client_of(mdev)));
	if (mdev->lease_pid)
		set(&json, "owner_pid", json_integer(mdev->lease_pid));
	return json;
}

json_t *control_attach_json(const struct umdev_mdev *mdev)
{
	const char *dir = mdev->dir_path ? mdev->dir_path : "";
	json_t *json = json_object();

	set_text(&json, "presentation", "vfio-user");
	set(&json, "socket", json_sprintf("%s/socket", dir));
	set_text(&json, "directory", dir);
	if (client_of(mdev))
		set(&json, "owner", json_integer(client_of(mdev)));
	return json;
}

/* ---- events ---- */

/* Names of enum core_event_type in the interface; what has none is of the tree only. */
static const char *const event_names[] = {
	[CORE_PARENT_ADDED] = "parent_added", [CORE_PARENT_REMOVED] = "parent_removed",
	[CORE_MDEV_ADDED] = "added",          [CORE_MDEV_BOUND] = "bound",
	[CORE_MDEV_UNBOUND] = "unbound",      [CORE_MDEV_REMOVED] = "removed",
	[CORE_MDEV_STATE] = "state",          [CORE_MDEV_PARAM] = "param",
	[CORE_MDEV_GROUP] = "group",          [CORE_UEVENT] = "uevent",
};

static void add_uevent(void *arg, const struct core_uevent *uevent)
{
	json_t **list = arg;
	json_t *json = json_object(), *env = json_array();

	for (unsigned i = 0; uevent->env[i]; i++)
		control_append(&env, json_string(uevent->env[i]));
	set_text(&json, "action", uevent->action);
	set_text(&json, "devpath", uevent->devpath);
	set_text(&json, "subsystem", uevent->subsystem);
	set(&json, "env", env);
	control_append(list, json);
}

json_t *control_event_json(const struct core_event *event)
{
	json_t *json, *uevents;

	if (!event_names[event->type] || !event->parent)
		return NULL;
	json = json_object();
	uevents = json_array();
	set_text(&json, "what", event_names[event->type]);
	set_text(&json, "parent", event->parent->name);
	if (event->mdev)
		set_text(&json, "uuid", event->mdev->uuid_text);
	set(&json, "path", event->mdev ? mdev_path(event->mdev) : parent_path(event->parent));
	set_text(&json, "detail", event->detail);
	core_event_uevents(event, add_uevent, &uevents);
	set(&json, "uevents", uevents);
	return json;
}
