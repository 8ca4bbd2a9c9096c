/* SPDX-License-Identifier: MIT */
/* Files that a kernel gives to every device: power/ (a fixed picture: nothing here sleeps), uevent.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/uuid.h"
#include "core/private.h"

int empty_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	return 0;
}

int text_show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	return snprintf(buf, TREE_ATTR_SIZE, "%s\n", (const char *)attr->data);
}

/* The state cannot be changed: writing what is there succeeds, as on a kernel. */
static int text_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait)
{
	const char *now = attr->data;

	if (text[len - 1] == '\n')
		len--;
	if (len == strlen(now) && memcmp(text, now, len) == 0)
		return 0;
	return err_set(-EINVAL, "%s: a mediated device has no power states; only '%s' is accepted",
		       attr->name, now);
}

static int no_autosuspend_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			       char *buf)
{
	return -EIO;
}

static int no_autosuspend_store(struct tree_node *node, const struct tree_attr *attr,
				unsigned index, const char *text, size_t len,
				struct attr_wait *wait)
{
	return -EIO;
}

#define FIXED(file, text)                                                   \
	{                                                                   \
		.name = file, .mode = 0444, .show = text_show, .data = text \
	}
#define FIXED_RW(file, text)                                                                     \
	{                                                                                        \
		.name = file, .mode = 0644, .show = text_show, .store = text_store, .data = text \
	}

const struct tree_attr power_attrs[] = {
	FIXED_RW("async", "disabled"),
	{ .name = "autosuspend_delay_ms",
	  .mode = 0644,
	  .show = no_autosuspend_show,
	  .store = no_autosuspend_store },
	FIXED_RW("control", "auto"),
	FIXED("runtime_active_kids", "0"),
	FIXED("runtime_active_time", "0"),
	FIXED("runtime_enabled", "disabled"),
	FIXED("runtime_status", "unsupported"),
	FIXED("runtime_suspended_time", "0"),
	FIXED("runtime_usage", "0"),
	{ 0 },
};

static bool is_action(const char *text, size_t len)
{
	static const char *const actions[] = { "add",    "remove",  "change", "move",
					       "online", "offline", "bind",   "unbind" };

	for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strlen(actions[i]) == len && memcmp(actions[i], text, len) == 0)
			return true;
	return false;
}

static size_t alnum_span(const char *text, const char *end)
{
	const char *at = text;

	while (at < end &&
	       ((*at >= '0' && *at <= '9') || ((*at | 0x20) >= 'a' && (*at | 0x20) <= 'z')))
		at++;
	return (size_t)(at - text);
}

/* UUID { " " KEY "=" VALUE }, keys and values of letters and digits; with SYNTH_UUID and DRIVER
 * they fit into a core_uevent. */
static bool are_arguments(const char *text, const char *end)
{
	unsigned room = CORE_UEVENT_ENV - 2;
	struct uuid uuid;

	if (uuid_parse(text, (size_t)(end - text), &uuid) < 0)
		return false;
	text += UUID_TEXT - 1;
	while (text < end) {
		size_t key, value;

		if (*text++ != ' ' || room-- == 0)
			return false;
		key = alnum_span(text, end);
		text += key;
		if (!key || text == end || *text++ != '=')
			return false;
		value = alnum_span(text, end);
		text += value;
		if (!value)
			return false;
	}
	return true;
}

int uevent_store(struct core *core, const struct umdev_parent *parent,
		 const struct umdev_mdev *mdev, const char *devpath, const char *subsystem,
		 const char *text, size_t len)
{
	struct core_event event = { .type = CORE_UEVENT,
				    .parent = parent,
				    .mdev = mdev,
				    .devpath = devpath,
				    .subsystem = subsystem };
	char words[TREE_ATTR_SIZE + 1];
	const char *space;

	if (text[len - 1] == '\n')
		len--;
	space = memchr(text, ' ', len);
	if (!is_action(text, space ? (size_t)(space - text) : len) ||
	    (space && !are_arguments(space + 1, text + len)))
		return err_set(-EINVAL, "uevent: expected add, remove, change, move, online, "
					"offline, bind or unbind [UUID [KEY=VALUE]...]");
	memcpy(words, text, len);
	words[len] = '\0';
	event.detail = words;
	core->ops->event(core->ops_arg, &event);
	return 0;
}

int uevent_store_node(struct core *core, const struct umdev_parent *parent,
		      const struct umdev_mdev *mdev, struct tree_node *node, const char *subsystem,
		      const char *text, size_t len)
{
	const struct tree_ref ref = tree_ref_of(node);
	char devpath[TREE_PATH_MAX];
	int error = tree_path(&ref, devpath, sizeof(devpath));

	if (error < 0)
		return error;
	return uevent_store(core, parent, mdev, devpath, subsystem, text, len);
}
