/* SPDX-License-Identifier: MIT */
/*
 * mdev_start and mdev_stop: resources of several devices are committed before their first
 * connection, all or none. A set waits until every device of it is served; the first failure ends
 * it for all. Then each device is `started` until it is stopped or fails: it keeps a worker, also
 * between two owners.
 */
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

/* Owned by itself: freed when it has been answered. */
struct start_set {
	struct list_node node; /* in core->start_sets */
	struct core *core;
	struct attr_wait *wait;
	unsigned n_waiting; /* devices that are not served yet */
	unsigned n;
	struct umdev_mdev *list[]; /* their start_set is this */
};

/* ---- sets ---- */

static int set_add(struct mdev_set *set, struct umdev_mdev *mdev)
{
	for (unsigned i = 0; i < set->n; i++)
		if (set->list[i] == mdev)
			return 0;
	if (set->n == CORE_MAX_SET)
		return err_set(-ENOSPC, "more than %d devices at once", CORE_MAX_SET);
	set->list[set->n++] = mdev;
	return 0;
}

int mdev_set_add(struct core *core, const char *name, struct mdev_set *set)
{
	struct umdev_mdev *mdev;
	int error = mdev_find_name(core, name, &mdev);

	return error < 0 ? error : set_add(set, mdev);
}

int mdev_set_add_group(struct core *core, const struct uuid *p2p, struct mdev_set *set)
{
	const struct mdev_group *group = group_find(core, p2p);
	struct umdev_mdev *mdev;
	int error = 0;

	if (!group)
		return 0;
	list_for_each(mdev, &group->members, group_node)
		if (!error)
			error = set_add(set, mdev);
	return error;
}

/* ---- start ---- */

bool mdev_wants_worker(const struct umdev_mdev *mdev)
{
	return mdev->start_set || mdev->started;
}

int mdev_may_start(const struct umdev_mdev *mdev)
{
	if (mdev->state == MDEV_REMOVING || !mdev->bound)
		return err_set(-ENODEV, "%s is %s", mdev->uuid_text,
			       mdev->bound ? "being removed" : "not bound to its driver");
	if (mdev->start_set)
		return err_set(-EBUSY, "%s is being started", mdev->uuid_text);
	return mdev_check_required(mdev);
}

/* Nobody belongs to it any more. */
static void set_dissolve(struct start_set *set)
{
	for (unsigned i = 0; i < set->n; i++) {
		set->list[i]->start_set = NULL;
		set->list[i]->served_for_set = false;
	}
	list_remove(&set->node);
}

static void set_answer(struct start_set *set, int error)
{
	attr_done(&set->wait, error);
	free(set);
}

/* All are served: from now on they are started. */
static void set_commit(struct start_set *set)
{
	set_dissolve(set);
	for (unsigned i = 0; i < set->n; i++) {
		struct umdev_mdev *mdev = set->list[i];

		mdev->opened = true;
		mdev->started = true;
		if (mdev->state == MDEV_IDLE || mdev->state == MDEV_FAILED) {
			free(TAKE(mdev->fail_text));
			mdev_set_state(mdev, MDEV_STARTED, NULL);
		} else {
			mdev_dirty(mdev);
		}
	}
	set_answer(set, 0);
}

/* One cannot be served: none was started. */
static void set_fail(struct start_set *set, int error)
{
	const struct core_ops *ops = set->core->ops;

	set_dissolve(set);
	for (unsigned i = 0; i < set->n; i++)
		ops->stop(set->core->ops_arg, set->list[i]);
	set_answer(set, error);
}

int mdev_start(struct core *core, const struct mdev_set *asked, struct attr_wait *wait)
{
	struct start_set *set;
	int error = 0;

	for (unsigned i = 0; i < asked->n && !error; i++)
		error = mdev_may_start(asked->list[i]);
	if (error < 0)
		return error;
	set = calloc(1, sizeof(*set) + asked->n * sizeof(set->list[0]));
	if (!set)
		return -ENOMEM;
	for (unsigned i = 0; i < asked->n; i++)
		if (!asked->list[i]->started)
			set->list[set->n++] = asked->list[i];
	if (!set->n) {
		free(set);
		return 0;
	}
	set->core = core;
	set->n_waiting = set->n;
	list_append(&core->start_sets, &set->node);
	if (wait)
		attr_hold(&set->wait, wait);
	for (unsigned i = 0; i < set->n; i++) {
		set->list[i]->start_set = set;
		core->ops->start(core->ops_arg, set->list[i]);
	}
	return TREE_LATER;
}

void core_start_done(struct umdev_mdev *mdev, int error)
{
	struct start_set *set = mdev->start_set;

	if (set && error < 0) {
		set_fail(set, error);
	} else if (set && !mdev->served_for_set) {
		mdev->served_for_set = true;
		if (--set->n_waiting == 0)
			set_commit(set);
	} else if (error < 0 && mdev->started) {
		core_failed(mdev, err_text(error));
	}
}

void start_abandon(struct umdev_mdev *mdev, int error)
{
	mdev->started = false;
	if (mdev->start_set)
		set_fail(mdev->start_set, error);
}

void start_restore(struct umdev_mdev *mdev)
{
	mdev->started = true;
	mdev_set_state(mdev, MDEV_STARTED, NULL);
}

/* ---- stop ---- */

static int may_stop(const struct umdev_mdev *mdev)
{
	if (mdev->state == MDEV_REMOVING)
		return err_set(-ENODEV, "%s is being removed", mdev->uuid_text);
	if (mdev->start_set)
		return err_set(-EBUSY, "%s is being started", mdev->uuid_text);
	if (mdev->connected)
		return err_set(-EBUSY, "%s is %s; disconnect its client first", mdev->uuid_text,
			       mdev_state_name(mdev->state));
	return 0;
}

static void stop_one(struct umdev_mdev *mdev)
{
	mdev->started = false;
	if (mdev->state == MDEV_STARTED)
		mdev_set_state(mdev, MDEV_IDLE, NULL);
	mdev->core->ops->stop(mdev->core->ops_arg, mdev);
}

int mdev_stop(struct core *core, const struct mdev_set *set)
{
	int error = 0;

	for (unsigned i = 0; i < set->n && !error; i++)
		error = may_stop(set->list[i]);
	for (unsigned i = 0; i < set->n && !error; i++)
		if (set->list[i]->started)
			stop_one(set->list[i]);
	return error;
}

void core_stop_all(struct core *core)
{
	struct umdev_parent *parent;
	struct umdev_mdev *mdev;
	struct start_set *set;

	while ((set = list_first(&core->start_sets, struct start_set, node)))
		set_fail(set, -ESHUTDOWN);
	list_for_each(parent, &core->parents, node)
		list_for_each(mdev, &parent->mdevs, parent_node)
			if (mdev->started)
				stop_one(mdev);
}

/* ---- /class/mdev ---- */

static int add_word(struct core *core, const char *word, size_t len, struct mdev_set *set)
{
	struct umdev_mdev *mdev;
	struct uuid uuid;

	if (len != UUID_TEXT - 1 || uuid_parse(word, len, &uuid) < 0)
		return err_set(-EINVAL, "expected one peer_to_peer_resource_uuid, or UUIDs of "
					"devices separated by blanks");
	mdev = mdev_find(core, &uuid);
	if (!mdev)
		return err_set(-ENODEV, "there is no group and no device %.*s", (int)len, word);
	return set_add(set, mdev);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* What was written: one group, or devices. */
static int read_set(struct core *core, const char *text, size_t len, struct mdev_set *set)
{
	const char *end = text + len - (text[len - 1] == '\n'), *word = text;
	struct uuid uuid;
	int error = 0;

	set->n = 0;
	if (end - text == UUID_TEXT - 1 && uuid_parse(text, UUID_TEXT - 1, &uuid) == 0)
		error = mdev_set_add_group(core, &uuid, set);
	if (set->n)
		return error;
	for (; !error && text <= end; text++) {
		if (text < end && !is_blank(*text))
			continue;
		if (text > word)
			error = add_word(core, word, (size_t)(text - word), set);
		word = text + 1;
	}
	return !error && !set->n ? -EINVAL : error;
}

static int start_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       const char *text, size_t len, struct attr_wait *wait)
{
	struct mdev_set set;
	int error = read_set(node->object, text, len, &set);

	return error < 0 ? error : mdev_start(node->object, &set, wait);
}

static int stop_store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait)
{
	struct mdev_set set;
	int error = read_set(node->object, text, len, &set);

	return error < 0 ? error : mdev_stop(node->object, &set);
}

static int failed_show(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       char *buf)
{
	const struct core *core = node->object;
	const struct core_ops *ops = core->ops;

	return ops->failed_definitions ? ops->failed_definitions(core->ops_arg, buf) : 0;
}

static const struct tree_attr start_attrs[] = {
	{ .name = "mdev_failed", .mode = 0444, .show = failed_show },
	{ .name = "mdev_start", .mode = 0200, .store = start_store },
	{ .name = "mdev_stop", .mode = 0200, .store = stop_store },
	{ 0 },
};

static const struct tree_kind start_kind = { .name = "class_mdev", .attrs = start_attrs };

int start_files_get(struct umdev_parent *parent)
{
	struct core *core = parent->core;

	if (!core->class_mdev)
		core->class_mdev = tree_add(&core->tree, core->class_dir, "mdev", &start_kind,
					    core);
	if (!core->class_mdev)
		return -ENOMEM;
	core->n_class_mdev++;
	parent->has_start_files = true;
	return 0;
}

void start_files_put(struct umdev_parent *parent)
{
	struct core *core = parent->core;

	if (!parent->has_start_files)
		return;
	parent->has_start_files = false;
	if (--core->n_class_mdev == 0)
		tree_remove(&core->tree, TAKE(core->class_mdev));
}
