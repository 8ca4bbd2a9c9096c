/* SPDX-License-Identifier: MIT */
/*
 * The directory of one parameter: D/mdev/<param>/, D/vendor/<param>/ and <type>/params/<param>/.
 * Its table is built once per type with just the files that this parameter has.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "core/private.h"

static const struct umdev_param *desc_of(const struct tree_attr *attr)
{
	const struct param_dir *dir = attr->data;

	return dir->desc;
}

static unsigned index_of(const struct tree_attr *attr)
{
	const struct param_dir *dir = attr->data;

	return dir->index;
}

static int line(char *buf, const char *text)
{
	return snprintf(buf, TREE_ATTR_SIZE, "%s\n", text);
}

static int number(char *buf, uint64_t n)
{
	return snprintf(buf, TREE_ATTR_SIZE, "%" PRIu64 "\n", n);
}

static int value_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return line(buf, mdev_param(mdev, index_of(attr))->text);
}

static int value_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       const char *text, size_t len, struct attr_wait *wait)
{
	return param_set_index(node->object, index_of(attr), text, len, wait);
}

static int available_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			  char *buf)
{
	const struct umdev_mdev *mdev = node->object;

	return number(buf, param_available(mdev, index_of(attr)));
}

static int type_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf)
{
	return line(buf, param_type_name(desc_of(attr)->type));
}

static int min_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	return number(buf, desc_of(attr)->min);
}

static int max_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	return number(buf, param_max(desc_of(attr)));
}

static int step_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf)
{
	return number(buf, desc_of(attr)->step ? desc_of(attr)->step : 1);
}

static int default_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			char *buf)
{
	struct umdev_value value;

	value_default(desc_of(attr), &value);
	return line(buf, value.text);
}

static int choices_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			char *buf)
{
	const char *const *choice = desc_of(attr)->choices;
	int at = 0;

	for (; *choice && at < TREE_ATTR_SIZE - 1; choice++)
		at += snprintf(buf + at, (size_t)(TREE_ATTR_SIZE - at), "%s%c", *choice,
			       choice[1] ? ' ' : '\n');
	return at < TREE_ATTR_SIZE ? at : TREE_ATTR_SIZE - 1;
}

static int unit_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf)
{
	return line(buf, desc_of(attr)->unit);
}

static int writable_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			 char *buf)
{
	return line(buf, param_writable_name(desc_of(attr)->writable));
}

static int required_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			 char *buf)
{
	return number(buf, desc_of(attr)->required);
}

static int description_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			    char *buf)
{
	const char *text = desc_of(attr)->description;

	return line(buf, text ? text : "");
}

static bool has_choices(const struct umdev_param *desc)
{
	return desc->type == UMDEV_ENUM;
}

static bool has_unit(const struct umdev_param *desc)
{
	return desc->unit;
}

static bool has_pool(const struct umdev_param *desc)
{
	return desc->pool;
}

/* In the order of the sheet; has: NULL: always. */
static const struct {
	const char *name;
	int (*show)(struct tree_node *, const struct tree_attr *, unsigned, char *);
	bool (*has)(const struct umdev_param *desc);
	bool device_only;
} files[] = {
	{ "value", value_show, NULL, true },
	{ "type", type_show, NULL, false },
	{ "min", min_show, value_is_numeric, false },
	{ "max", max_show, value_is_numeric, false },
	{ "step", step_show, value_is_numeric, false },
	{ "available", available_show, has_pool, true },
	{ "default", default_show, NULL, false },
	{ "choices", choices_show, has_choices, false },
	{ "unit", unit_show, has_unit, false },
	{ "writable", writable_show, NULL, false },
	{ "required", required_show, NULL, false },
	{ "description", description_show, NULL, false },
};
_Static_assert(sizeof(files) / sizeof(files[0]) <= PARAM_DIR_FILES, "a param_dir holds them all");

static uint16_t value_mode(const struct umdev_param *desc)
{
	uint16_t mode = desc->writable <= UMDEV_W_CREATE ? 0444 : 0644;

	return desc->secret ? mode & 0600 : mode;
}

void param_dir_init(struct param_dir *dir, const struct umdev_param *desc, unsigned index,
		    bool of_type)
{
	struct tree_attr *attr = dir->files;

	memset(dir, 0, sizeof(*dir));
	dir->desc = desc;
	dir->index = index;
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if ((files[i].device_only && of_type) || (files[i].has && !files[i].has(desc)))
			continue;
		*attr = (struct tree_attr){
			.name = files[i].name, .mode = 0444, .show = files[i].show, .data = dir
		};
		if (files[i].show == value_show) {
			attr->mode = value_mode(desc);
			attr->store = attr->mode & 0200 ? value_store : NULL;
		}
		attr++;
	}
}
