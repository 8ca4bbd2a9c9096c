/* SPDX-License-Identifier: MIT */
#include "manager/definition_file.h"
#include <errno.h>
#include <string.h>
#include "base/str.h"
#include "tree/tree.h"

#define TYPE_MAX 127 /* "<driver>-<type>" */

/* What is being judged, for the line of a refusal. */
struct place {
	const char *text;
	size_t len;
	char *why;
	size_t size;
};

/* jansson tells lines of syntax errors only: for the rest, where the key first stands. */
static unsigned line_of(const struct place *p, const char *key)
{
	size_t key_len = strlen(key);
	const char *at = p->text;
	unsigned line = 1;

	while ((at = memmem(at, p->len - (size_t)(at - p->text), key, key_len))) {
		if (at > p->text && at[-1] == '"' && at + key_len < p->text + p->len &&
		    at[key_len] == '"')
			break;
		at++;
	}
	for (const char *c = p->text; at && c < at; c++)
		line += *c == '\n';
	return line;
}

static int refuse(const struct place *p, const char *key, const char *rule)
{
	str_format(p->why, p->size, "line %u: \"%s\": %s", line_of(p, key), key, rule);
	return -EINVAL;
}

/* A path that stays below the directory it starts from, as far as it follows no link. */
static bool is_attr_path(const char *name)
{
	size_t len;

	if (strlen(name) > TREE_NAME_MAX)
		return false;
	for (;; name += len + 1) {
		len = strcspn(name, "/");
		if (len == 0 || (len == 1 && name[0] == '.') ||
		    (len == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		if (!name[len])
			return true;
	}
}

static int get_attr(const struct place *p, json_t *item, struct definition *def)
{
	const char *name, *text;
	json_t *value;

	if (!json_is_object(item) || json_object_size(item) != 1)
		return refuse(p, "attrs", "each must be { \"name\": \"value\" }");
	json_object_foreach(item, name, value) {
		text = json_string_value(value);
		if (!is_attr_path(name))
			return refuse(p, name, "no path below the device's directory");
		if (!text || strlen(text) > TREE_ATTR_SIZE)
			return refuse(p, name, "its value must be a text of at most 4096 bytes");
		def->attrs[def->n_attrs].name = name;
		def->attrs[def->n_attrs++].value = text;
	}
	return 0;
}

static int get_attrs(const struct place *p, const json_t *list, struct definition *def)
{
	json_t *item;
	size_t i;
	int r;

	if (list && !json_is_array(list))
		return refuse(p, "attrs", "it must be a list");
	if (json_array_size(list) > DEFINITION_MAX_ATTRS)
		return refuse(p, "attrs", "more than 128");
	json_array_foreach(list, i, item) {
		r = get_attr(p, item, def);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_all(const struct place *p, struct definition *def)
{
	const char *start = json_string_value(json_object_get(def->json, "start"));

	if (!json_is_object(def->json))
		return refuse(p, "mdev_type", "it is missing: this is no object");
	def->type = json_string_value(json_object_get(def->json, "mdev_type"));
	if (!def->type || !*def->type || strlen(def->type) > TYPE_MAX)
		return refuse(p, "mdev_type", "it must name a type");
	if (!start || (strcmp(start, "auto") != 0 && strcmp(start, "manual") != 0))
		return refuse(p, "start", "it must be \"auto\" or \"manual\"");
	def->autostart = strcmp(start, "auto") == 0;
	return get_attrs(p, json_object_get(def->json, "attrs"), def);
}

int definition_parse(const char *text, size_t len, struct definition *ret, char *why, size_t size)
{
	struct place place = { .text = text, .len = len, .why = why, .size = size };
	json_error_t error;
	int r;

	*ret = (struct definition){ 0 };
	ret->json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (!ret->json) {
		str_format(why, size, "line %d: %s", error.line > 0 ? error.line : 1, error.text);
		return -EINVAL;
	}
	r = get_all(&place, ret);
	if (r < 0)
		definition_fini(ret);
	return r;
}

void definition_fini(struct definition *def)
{
	json_decref(def->json);
	*def = (struct definition){ 0 };
}
