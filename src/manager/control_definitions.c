/* SPDX-License-Identifier: MIT */
/*
 * Definitions over the control socket, with mdevctl's meaning: a definition reserves nothing, and
 * changing one does not touch a device that runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"
#include "core/core.h"
#include "manager/control.h"
#include "manager/definition_store.h"
#include "manager/definitions.h"
#include "manager/manager.h"

static void definition_finip(struct definition *def)
{
	if (def->json)
		definition_fini(def);
}
#define _cleanup_definition_ _cleanup_(definition_finip)

/* The UUID that params name, or a random one where it may be absent. */
static int get_uuid(const json_t *params, struct uuid *ret)
{
	const char *text = varlink_text(params, "uuid");

	if (!text)
		return uuid_random(ret);
	if (strlen(text) != UUID_TEXT - 1 || uuid_parse(text, UUID_TEXT - 1, ret) < 0)
		return err_set(-EINVAL, "\"%.64s\" is no UUID", text);
	return 0;
}

/* Names of parents are names of directories. */
static int check_parent(const char *parent)
{
	return str_is_name(parent) ? 0
				   : err_set(-EINVAL, "\"%.64s\" is no name of a parent", parent);
}

/* The parent of a definition that is there: given, or the only one. To be freed. */
static int get_parent(struct manager *m, const json_t *params, const struct uuid *uuid, char **ret)
{
	const char *given = varlink_text(params, "parent");
	int r;

	if (!given)
		return definition_find(&m->config, uuid, ret);
	r = check_parent(given);
	*ret = r < 0 ? NULL : strdup(given);
	return r < 0 ? r : *ret ? 0 : -ENOMEM;
}

/* Takes json; what it says is judged as a file's text. */
static int parse_json(json_t *json, struct definition *ret)
{
	_cleanup_free_ char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	char why[ERR_TEXT];

	json_decref(json);
	if (!text)
		return -ENOMEM;
	if (definition_parse(text, strlen(text), ret, why, sizeof(why)) < 0)
		return err_set(-EINVAL, "%s", strstr(why, ": ") + 2);
	return 0;
}

/* A definition as a client sends it: its text, or only a type. */
static int parse_given(const json_t *params, const char *type, struct definition *ret)
{
	const char *text = varlink_text(params, "definition");
	char why[ERR_TEXT];

	if (!text)
		return parse_json(json_pack("{s:s, s:s, s:[]}", "mdev_type", type, "start",
					    "manual", "attrs"),
				  ret);
	if (definition_parse(text, strlen(text), ret, why, sizeof(why)) < 0)
		return err_set(-EINVAL, "the definition, %s", why);
	return 0;
}

/* Where the parent is there now, the type must be one of its. */
static int check_type(struct manager *m, const char *parent, const struct definition *def)
{
	struct umdev_parent *p = parent_find(&m->core, parent);

	return !p || type_find(p, def->type) ? 0 : -ENOENT;
}

static int set_text(json_t *json, const char *key, const char *text)
{
	return text && json_object_set_new(json, key, json_string(text)) < 0 ? -ENOMEM : 0;
}

static const char *start_word(const json_t *params)
{
	const json_t *value = json_object_get(params, "auto");

	return json_is_boolean(value) ? json_is_true(value) ? "auto" : "manual" : NULL;
}

/* ---- define, undefine ---- */

/* What is not given is taken from the device that has the UUID. */
static int get_place(struct manager *m, const json_t *params, const struct uuid *uuid,
		     const char **ret_parent, const char **ret_type)
{
	const struct umdev_mdev *mdev = mdev_find(&m->core, uuid);
	bool has_type = varlink_text(params, "definition") || varlink_text(params, "type");

	*ret_parent = varlink_text(params, "parent");
	*ret_type = varlink_text(params, "type");
	if (mdev && !*ret_parent)
		*ret_parent = mdev->parent->name;
	if (mdev && !has_type)
		*ret_type = mdev->type->info->name;
	if (!*ret_parent || (!has_type && !*ret_type))
		return err_set(-EINVAL, "without a parent and a type (or a definition) the UUID "
					"must be that of a device");
	return check_parent(*ret_parent);
}

int control_define(struct manager *m, const struct control_peer *peer, json_t *params,
		   struct attr_wait *wait, json_t **ret)
{
	_cleanup_definition_ struct definition def = { 0 }, old = { 0 };
	const char *parent = NULL, *type = NULL;
	char text[UUID_TEXT];
	struct uuid uuid;
	int r = get_uuid(params, &uuid);

	if (r == 0)
		r = get_place(m, params, &uuid, &parent, &type);
	if (r == 0)
		r = parse_given(params, type, &def);
	if (r == 0)
		r = set_text(def.json, "mdev_type", varlink_text(params, "type"));
	if (r == 0)
		r = set_text(def.json, "start", start_word(params));
	if (r < 0)
		return r;
	uuid_format(&uuid, text);
	if (definition_load(&m->config, parent, &uuid, &old) != -ENOENT) {
		err_clear();
		return err_set(-EEXIST, "%s of %s is defined already: see umdev modify", text,
			       parent);
	}
	err_clear();
	def.type = json_string_value(json_object_get(def.json, "mdev_type"));
	r = check_type(m, parent, &def);
	if (r == 0)
		r = definition_save(&m->config, parent, &uuid, def.json);
	if (r == 0)
		*ret = json_pack("{s:s}", "uuid", text);
	return r == 0 && !*ret ? -ENOMEM : r;
}

int control_undefine(struct manager *m, const struct control_peer *peer, json_t *params,
		     struct attr_wait *wait, json_t **ret)
{
	_cleanup_free_ char *parent = NULL;
	struct umdev_parent *found;
	char text[UUID_TEXT];
	struct uuid uuid;
	int r = get_uuid(params, &uuid);

	if (r == 0)
		r = get_parent(m, params, &uuid, &parent);
	if (r == 0)
		r = definition_delete(&m->config, parent, &uuid);
	found = r == 0 ? parent_find(&m->core, parent) : NULL;
	uuid_format(&uuid, text);
	if (found)
		core_undefined(found, text);
	return r;
}

/* ---- modify ---- */

/* "path=value" -> { "path": "value" }, or NULL with text. */
static json_t *attr_json(const char *text)
{
	const char *equals = strchr(text, '=');

	if (!equals) {
		err_set(-EINVAL, "\"%.64s\" is no attribute: it must be path=value", text);
		return NULL;
	}
	return json_pack("{s%:s}", text, (size_t)(equals - text), equals + 1);
}

static int bad_index(json_int_t index, size_t n)
{
	return err_set(-EINVAL, "there is no attribute %lld: it has %zu", (long long)index, n);
}

/* One attribute more or less, at index, by default the end. */
static int change_attrs(json_t *json, const json_t *params)
{
	const char *add = varlink_text(params, "add");
	const json_t *index = json_object_get(params, "index");
	json_t *attrs = json_object_get(json, "attrs"), *item;
	size_t n = json_array_size(attrs);
	json_int_t at = json_is_integer(index) ? json_integer_value(index)
			: add                  ? (json_int_t)n
					       : (json_int_t)n - 1;

	if (!add && !varlink_bool(params, "delete"))
		return json_is_integer(index)
			       ? err_set(-EINVAL, "an index goes with add or delete only")
			       : 0;
	if (add && varlink_bool(params, "delete"))
		return err_set(-EINVAL, "add or delete, not both");
	if (!attrs && json_object_set_new(json, "attrs", json_array()) < 0)
		return -ENOMEM;
	attrs = json_object_get(json, "attrs");
	if (at < 0 || (size_t)at >= n + !!add)
		return bad_index(at, n);
	if (!add)
		return json_array_remove(attrs, (size_t)at) < 0 ? -ENOMEM : 0;
	item = attr_json(add);
	if (!item)
		return strchr(add, '=') ? -ENOMEM : -EINVAL;
	return json_array_insert_new(attrs, (size_t)at, item) < 0 ? -ENOMEM : 0;
}

static int edit(struct manager *m, const char *parent, const json_t *params, json_t *json)
{
	_cleanup_definition_ struct definition def = { 0 };
	int r = set_text(json, "mdev_type", varlink_text(params, "type"));

	if (r == 0)
		r = set_text(json, "start", start_word(params));
	if (r == 0)
		r = change_attrs(json, params);
	if (r == 0)
		r = parse_json(json_incref(json), &def);
	return r < 0 ? r : check_type(m, parent, &def);
}

int control_modify(struct manager *m, const struct control_peer *peer, json_t *params,
		   struct attr_wait *wait, json_t **ret)
{
	_cleanup_definition_ struct definition def = { 0 };
	_cleanup_free_ char *parent = NULL;
	struct uuid uuid;
	int r = get_uuid(params, &uuid);

	if (r == 0)
		r = get_parent(m, params, &uuid, &parent);
	if (r == 0)
		r = definition_load(&m->config, parent, &uuid, &def);
	if (r == 0 && varlink_text(params, "definition")) {
		definition_fini(&def);
		r = parse_given(params, NULL, &def);
	}
	if (r == 0)
		r = edit(m, parent, params, def.json);
	return r < 0 ? r : definition_save(&m->config, parent, &uuid, def.json);
}

/* ---- start ---- */

int control_start_defined(struct manager *m, const struct control_peer *peer, json_t *params,
			  struct attr_wait *wait, json_t **ret)
{
	const char *given = varlink_text(params, "parent"), *type = varlink_text(params, "type");
	bool whole = type || varlink_text(params, "definition");
	_cleanup_definition_ struct definition def = { 0 };
	_cleanup_free_ char *parent = NULL;
	char text[UUID_TEXT];
	struct uuid uuid;
	int r = get_uuid(params, &uuid);

	if (r == 0 && (whole ? !given : !varlink_text(params, "uuid")))
		r = err_set(-EINVAL, "name the UUID of a definition, or a parent with a type or a "
				     "definition");
	if (r == 0)
		r = get_parent(m, params, &uuid, &parent);
	if (r == 0)
		r = whole ? parse_given(params, type, &def)
			  : definition_load(&m->config, parent, &uuid, &def);
	if (r == 0)
		r = set_text(def.json, "mdev_type", type);
	if (r < 0)
		return r;
	def.type = json_string_value(json_object_get(def.json, "mdev_type"));
	uuid_format(&uuid, text);
	*ret = json_pack("{s:s}", "uuid", text);
	return *ret ? definition_start(m->definitions, parent, &uuid, &def, wait) : -ENOMEM;
}

/* ---- attributes of a device that is there ---- */

static int find_mdev(struct manager *m, const json_t *params, struct umdev_mdev **ret)
{
	int r = mdev_find_name(&m->core, varlink_text(params, "name"), ret);

	return r == 0 && !(*ret)->dir ? err_set(-ENODEV, "it is being removed") : r;
}

int control_set_attrs(struct manager *m, const struct control_peer *peer, json_t *params,
		      struct attr_wait *wait, json_t **ret)
{
	_cleanup_definition_ struct definition def = { 0 };
	const json_t *texts = json_object_get(params, "attrs"), *text;
	json_t *attrs = json_array();
	struct umdev_mdev *mdev;
	size_t i;
	int r = find_mdev(m, params, &mdev);

	json_array_foreach(texts, i, text) {
		json_t *attr = r == 0 ? attr_json(json_string_value(text)) : NULL;

		if (r == 0 && (!attr || json_array_append_new(attrs, attr) < 0))
			r = strchr(json_string_value(text), '=') ? -ENOMEM : -EINVAL;
	}
	if (r == 0)
		r = parse_json(json_pack("{s:s, s:s, s:O}", "mdev_type", mdev->type->info->name,
					 "start", "manual", "attrs", attrs),
			       &def);
	json_decref(attrs);
	return r < 0 ? r : definition_apply(m->definitions, mdev, &def, wait);
}

/* What a definition would have to say to make such a device: values that can be written and are
 * not the default. peer: those that are secret are for the trusted. */
static bool is_worth_saying(const struct umdev_mdev *mdev, unsigned i,
			    const struct control_peer *peer)
{
	const struct core_type *info = mdev->type->info;
	const struct umdev_param *desc = info->params[i];

	if (desc->writable == UMDEV_W_NEVER || desc->writable == UMDEV_W_CREATE)
		return false;
	if (desc->secret && !peer->trusted)
		return false;
	return (mdev->params_set & UINT32_C(1) << i) &&
	       strcmp(mdev_param(mdev, i)->text, info->defaults[i].text) != 0;
}

int control_attrs(struct manager *m, const struct control_peer *peer, json_t *params,
		  struct attr_wait *wait, json_t **ret)
{
	struct umdev_mdev *mdev;
	json_t *array;
	int r = find_mdev(m, params, &mdev);

	if (r < 0)
		return r;
	array = json_array();
	for (unsigned i = 0; mdev->parent->params_shown && i < mdev->type->info->n_params; i++) {
		const struct umdev_param *desc = mdev->type->info->params[i];
		bool own = !desc->id && i >= mdev->type->info->n_standard;
		_cleanup_free_ char *text = NULL;

		if (!is_worth_saying(mdev, i, peer))
			continue;
		text = str_printf("%s/%s/value=%s", own ? "vendor" : "mdev", desc->name,
				  mdev_param(mdev, i)->text);
		control_append(&array, text ? json_string(text) : NULL);
	}
	*ret = array ? json_pack("{s:o}", "attrs", array) : NULL;
	return *ret ? 0 : -ENOMEM;
}

/* ---- list ---- */

struct listing {
	struct manager *manager;
	const char *parent; /* NULL: all */
	const char *uuid;   /* NULL: all; in lower case */
	json_t *array;
};

static json_t *attrs_json(const struct definition *def)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < def->n_attrs; i++) {
		_cleanup_free_ char *text = str_printf("%s=%s", def->attrs[i].name,
						       def->attrs[i].value);

		control_append(&list, text ? json_string(text) : NULL);
	}
	return list;
}

static void add_definition(void *arg, const char *parent, const struct uuid *uuid,
			   struct definition *def)
{
	struct listing *l = arg;
	const struct umdev_mdev *mdev = mdev_find(&l->manager->core, uuid);
	char text[UUID_TEXT];

	uuid_format(uuid, text);
	if (!def || (l->parent && strcmp(l->parent, parent) != 0) ||
	    (l->uuid && strcmp(l->uuid, text) != 0))
		return;
	control_append(&l->array,
		       json_pack("{s:s, s:s, s:s, s:s, s:o, s:b}", "uuid", text, "parent", parent,
				 "type", def->type, "start", def->autostart ? "auto" : "manual",
				 "attrs", attrs_json(def), "active",
				 mdev && strcmp(mdev->parent->name, parent) == 0));
}

int control_definitions(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	struct listing l = { .manager = m, .parent = varlink_text(params, "parent") };
	char text[UUID_TEXT];
	struct uuid uuid;
	int r;

	if (varlink_text(params, "uuid")) {
		r = get_uuid(params, &uuid);
		if (r < 0)
			return r;
		uuid_format(&uuid, text);
		l.uuid = text;
	}
	l.array = json_array();
	definition_each(&m->config, add_definition, &l);
	*ret = l.array ? json_pack("{s:o}", "definitions", l.array) : NULL;
	return *ret ? 0 : -ENOMEM;
}
