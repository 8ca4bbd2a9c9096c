/* SPDX-License-Identifier: MIT */
/*
 * Mediated devices: made from a type, shown, bound, removed.
 *
 * A device is built in private and published last. mdev_unmake undoes whatever was done, in
 * reverse, and serves failure and removal alike: each step remembers that it was taken.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

static const char *const state_names[] = {
	[MDEV_NEW] = "new",           [MDEV_IDLE] = "idle",
	[MDEV_STARTED] = "started",   [MDEV_CONNECTED] = "connected",
	[MDEV_TAKEOVER] = "takeover", [MDEV_FAILED] = "failed",
	[MDEV_REMOVING] = "removing",
};

#define TO(state) (1u << (state))

/* The legal edges. MDEV_REMOVING ends with the object. */
static const unsigned edges[] = {
	[MDEV_NEW] = TO(MDEV_IDLE),
	[MDEV_IDLE] = TO(MDEV_STARTED) | TO(MDEV_CONNECTED) | TO(MDEV_FAILED) | TO(MDEV_REMOVING),
	[MDEV_STARTED] = TO(MDEV_IDLE) | TO(MDEV_CONNECTED) | TO(MDEV_TAKEOVER) | TO(MDEV_FAILED) |
			 TO(MDEV_REMOVING),
	[MDEV_CONNECTED] = TO(MDEV_IDLE) | TO(MDEV_STARTED) | TO(MDEV_TAKEOVER) | TO(MDEV_FAILED) |
			   TO(MDEV_REMOVING),
	[MDEV_TAKEOVER] = TO(MDEV_IDLE) | TO(MDEV_STARTED) | TO(MDEV_CONNECTED) | TO(MDEV_FAILED) |
			  TO(MDEV_REMOVING),
	[MDEV_FAILED] = TO(MDEV_IDLE) | TO(MDEV_STARTED) | TO(MDEV_REMOVING),
	[MDEV_REMOVING] = 0,
};

const char *mdev_state_name(enum mdev_state state)
{
	return state_names[state];
}

bool mdev_in_use(const struct umdev_mdev *mdev)
{
	return mdev->connected || mdev->start_set || mdev->state == MDEV_STARTED ||
	       mdev->state == MDEV_TAKEOVER;
}

bool mdev_is_served(const struct umdev_mdev *mdev)
{
	const struct core_ops *ops = mdev->core->ops;

	return mdev_in_use(mdev) || (ops->is_served && ops->is_served(mdev->core->ops_arg, mdev));
}

void mdev_event(const struct umdev_mdev *mdev, enum core_event_type type, const char *detail)
{
	const struct core_event event = {
		.type = type, .parent = mdev->parent, .mdev = mdev, .detail = detail
	};

	mdev->core->ops->event(mdev->core->ops_arg, &event);
}

void mdev_dirty(struct umdev_mdev *mdev)
{
	if (mdev->core->ops->dirty)
		mdev->core->ops->dirty(mdev->core->ops_arg, mdev);
}

void mdev_set_state(struct umdev_mdev *mdev, enum mdev_state state, const char *detail)
{
	assert(edges[mdev->state] & TO(state));
	mdev->state = state;
	mdev_event(mdev, CORE_MDEV_STATE, detail ? detail : state_names[state]);
	mdev_dirty(mdev);
}

/* ---- the tree ---- */

static int publish(struct umdev_mdev *mdev)
{
	struct core *core = mdev->core;
	const char *name = mdev->uuid_text;

	mdev->dir = tree_add(&core->tree, mdev->parent->dir, name,
			     mdev_shape_kind(mdev->type->info->shape), mdev);
	if (!mdev->dir || !tree_add_link_to(&core->tree, mdev->type->devices, name, mdev->dir) ||
	    !tree_add_link_to(&core->tree, core->bus_devices, name, mdev->dir))
		return -ENOMEM;
	return 0;
}

/* What vanishes at once when a removal is accepted. */
static void unpublish_links(struct umdev_mdev *mdev)
{
	struct core *core = mdev->core;
	const char *name = mdev->uuid_text;

	tree_remove(&core->tree, tree_child(&core->tree, mdev->type->devices, name));
	tree_remove(&core->tree, tree_child(&core->tree, core->bus_devices, name));
}

static void vfio_name(const struct umdev_mdev *mdev, char *buf, size_t size)
{
	str_format(buf, size, "vfio%u", mdev->vfio_number);
}

/* What a device has while its driver is bound: group, number, links. saved: NULL, or whose numbers
 * are wanted. */
static int publish_bound(struct umdev_mdev *mdev, const struct mdev_saved *saved)
{
	struct core *core = mdev->core;
	struct umdev_parent *parent = mdev->parent;
	char name[24], target[256];
	int error;

	error = group_enter(mdev, saved ? saved->group : GROUP_ANY);
	if (!error)
		error = number_take_at(&core->vfio_numbers, saved ? saved->vfio : UINT32_MAX,
				       &mdev->vfio_number);
	if (error < 0)
		return error;
	mdev->bound = true;
	vfio_name(mdev, name, sizeof(name));
	str_format(target, sizeof(target), "../../devices/virtual/%s/%s/%s/vfio-dev/%s",
		   parent->class_name, parent->name, mdev->uuid_text, name);
	if (!tree_add_link(&core->tree, core->class_vfio_dev, name, target) ||
	    !tree_add_link_to(&core->tree, parent->bus_driver->dir, mdev->uuid_text, mdev->dir))
		return -ENOMEM;
	return 0;
}

static void unpublish_bound(struct umdev_mdev *mdev)
{
	struct core *core = mdev->core;
	struct tree_node *drivers = mdev->parent->bus_driver->dir;
	char name[24];

	if (mdev->bound) {
		vfio_name(mdev, name, sizeof(name));
		tree_remove(&core->tree, tree_child(&core->tree, core->class_vfio_dev, name));
		tree_remove(&core->tree, tree_child(&core->tree, drivers, mdev->uuid_text));
		number_put(&core->vfio_numbers, mdev->vfio_number);
		mdev->bound = false;
	}
	group_leave(mdev);
}

/* ---- making and unmaking ---- */

static int start_listening(struct umdev_mdev *mdev)
{
	int error = mdev->core->ops->mdev_listen(mdev->core->ops_arg, mdev);

	mdev->listening = !error;
	return error;
}

void mdev_close_dir(struct umdev_mdev *mdev)
{
	if (mdev->dir_fd >= 0)
		close(take_fd(&mdev->dir_fd));
}

static void stop_listening(struct umdev_mdev *mdev)
{
	if (mdev->listening)
		mdev->core->ops->mdev_unlisten(mdev->core->ops_arg, mdev);
	mdev->listening = false;
	mdev_close_dir(mdev);
	free(TAKE(mdev->dir_path));
}

static void mdev_free(struct umdev_mdev *mdev)
{
	if (mdev->params)
		for (unsigned i = 0; i < mdev->type->info->n_params; i++)
			free(mdev->params[i]);
	free(mdev->params);
	free(mdev->fail_text);
	free(mdev);
}

static void unpublish(struct umdev_mdev *mdev)
{
	unpublish_bound(mdev);
	unpublish_links(mdev);
	tree_remove(&mdev->core->tree, TAKE(mdev->dir));
}

/* Undoes everything except the memory. */
static void mdev_unmake(struct umdev_mdev *mdev)
{
	const struct umdev_parent_driver *driver = mdev->parent->driver;
	struct pool_units cost, nothing = { 0 };

	stop_listening(mdev); /* may still call the driver's resources_end */
	if (mdev->made && driver->mdev_destroy)
		driver->mdev_destroy(mdev);
	mdev->made = false;
	if (mdev->charged) {
		pool_cost(mdev->type->info, mdev, -1, NULL, &cost);
		pool_change(mdev->parent, &cost, &nothing);
		mdev->charged = false;
	}
	uuid_map_remove(&mdev->core->mdevs, &mdev->hash_node);
	if (list_is_linked(&mdev->parent_node)) {
		list_remove(&mdev->parent_node);
		mdev->parent->n_mdevs--;
	}
}

static struct umdev_mdev *mdev_new(struct mdev_type *type, const struct uuid *uuid)
{
	struct umdev_mdev *mdev = calloc(1, sizeof(*mdev));

	if (!mdev)
		return NULL;
	mdev->core = type->parent->core;
	mdev->parent = type->parent;
	mdev->type = type;
	mdev->state = MDEV_NEW;
	mdev->dir_fd = -1;
	mdev->uuid = *uuid;
	uuid_format(uuid, mdev->uuid_text);
	mdev->params = calloc(type->info->n_params + 1, sizeof(*mdev->params));
	if (!mdev->params) {
		mdev_free(mdev);
		return NULL;
	}
	return mdev;
}

static int parse_settings(struct umdev_mdev *mdev, const struct mdev_spec *spec)
{
	const struct core_type *info = mdev->type->info;
	struct umdev_value value;
	int error = 0;

	for (unsigned i = 0; i < spec->n_settings && !error; i++) {
		unsigned index = spec->settings[i].index;

		error = value_parse(info->params[index], spec->settings[i].text,
				    spec->settings[i].len, &value);
		if (!error)
			error = param_store(mdev, index, &value);
	}
	return error;
}

/* A device whose type knows groups gets a value of its own unless one was given. */
static int choose_p2p(struct umdev_mdev *mdev)
{
	int index = mdev->type->info->p2p;
	struct umdev_value value = { 0 };
	struct uuid uuid;
	int error;

	if (index < 0)
		return 0;
	if (mdev->params[index]) {
		uuid_parse(mdev->params[index]->text, UUID_TEXT - 1, &uuid);
		return group_may_join(mdev, &uuid);
	}
	error = uuid_random(&uuid);
	if (error < 0)
		return error;
	uuid_format(&uuid, value.text);
	return param_keep(mdev, (unsigned)index, &value);
}

static int check_settings(struct umdev_mdev *mdev)
{
	const struct core_type *info = mdev->type->info;
	int error = 0;

	if (uuid_map_find(&mdev->core->mdevs, &mdev->uuid))
		return err_set(-EEXIST, "%s exists already; choose another UUID or remove it first",
			       mdev->uuid_text);
	for (unsigned i = 0; i < info->n_params && !error; i++) {
		if (!mdev->params[i])
			continue;
		if (info->params[i]->writable == UMDEV_W_NEVER)
			return err_set(-EACCES, "%s is read-only", info->params[i]->name);
		error = value_check(info->params[i], mdev->params[i]);
	}
	return error ? error : choose_p2p(mdev);
}

static int take_units(struct umdev_mdev *mdev)
{
	struct pool_units cost, nothing = { 0 };
	int error = pool_cost(mdev->type->info, mdev, -1, NULL, &cost);

	if (!error)
		error = pool_change(mdev->parent, &nothing, &cost);
	mdev->charged = !error;
	return error;
}

static int check_unique(const struct umdev_mdev *mdev)
{
	int error = 0;

	for (unsigned i = 0; i < mdev->type->info->n_params && !error; i++)
		if (mdev->params[i])
			error = param_check_unique(mdev, i, mdev->params[i]);
	return error;
}

/* It is complete: it appears. */
static int mdev_show(struct umdev_mdev *mdev, const struct mdev_saved *saved)
{
	int error = publish(mdev);

	if (!error && (!saved || saved->bound))
		error = publish_bound(mdev, saved);
	if (error < 0 && mdev->dir)
		unpublish(mdev);
	return error;
}

/* Takes units, addresses and the UUID. */
static int mdev_reserve(struct umdev_mdev *mdev)
{
	int error = take_units(mdev);

	if (!error)
		error = check_unique(mdev);
	if (!error)
		error = uuid_map_add(&mdev->core->mdevs, &mdev->hash_node);
	if (error < 0)
		return error;
	list_append(&mdev->parent->mdevs, &mdev->parent_node);
	mdev->parent->n_mdevs++;
	return 0;
}

/* saved: NULL for a new device. One that was not bound gets no directory, group and number.
 * TREE_LATER: mdev_show is due when its driver is ready. */
static int mdev_make(struct umdev_mdev *mdev, const struct mdev_saved *saved)
{
	bool bound = !saved || saved->bound;
	const struct umdev_parent_driver *driver = mdev->parent->driver;
	int error = mdev_reserve(mdev);

	if (error < 0)
		return error;
	error = bound ? start_listening(mdev) : 0;
	if (!error && driver->mdev_create)
		error = driver->mdev_create(mdev);
	mdev->made = error >= 0;
	assert(error <= 0 || (error == UMDEV_LATER && !saved));
	return error ? error : mdev_show(mdev, saved);
}

/* After mdev_make, mdev_show. On failure mdev is freed. */
static int mdev_conclude(struct umdev_mdev *mdev, int error)
{
	if (error < 0) {
		mdev_unmake(mdev);
		mdev_free(mdev);
		return error;
	}
	mdev_event(mdev, CORE_MDEV_ADDED, NULL);
	if (mdev->bound)
		mdev_event(mdev, CORE_MDEV_BOUND, NULL);
	mdev_set_state(mdev, MDEV_IDLE, NULL);
	return 0;
}

/* error: of giving it its values. On failure mdev is freed. */
static int mdev_complete(struct umdev_mdev *mdev, const struct mdev_saved *saved, int error)
{
	if (mdev->order > mdev->core->last_order)
		mdev->core->last_order = mdev->order;
	if (!error)
		error = check_settings(mdev);
	if (!error)
		error = mdev_make(mdev, saved);
	return error == UMDEV_LATER ? TREE_LATER : mdev_conclude(mdev, error);
}

void umdev_mdev_created(struct umdev_mdev *mdev, int error)
{
	struct attr_wait *wait = mdev->create_wait, *slot = NULL;

	assert(mdev->state == MDEV_NEW && mdev->made);
	/* The answer outlives the device. */
	if (wait) {
		attr_cancel(wait);
		attr_hold(&slot, wait);
	}
	if (error < 0)
		mdev->made = false;
	else
		error = mdev_show(mdev, NULL);
	error = mdev_conclude(mdev, error);
	attr_done(&slot, error);
}

bool umdev_mdev_is_restored(const struct umdev_mdev *mdev)
{
	return mdev->restored;
}

void core_abandon_new(struct core *core)
{
	struct umdev_parent *parent;
	struct umdev_mdev *mdev, *next;

	list_for_each(parent, &core->parents, node)
		list_for_each_safe(mdev, next, &parent->mdevs, parent_node) {
			if (mdev->state != MDEV_NEW)
				continue;
			attr_done(&mdev->create_wait, -ESHUTDOWN);
			mdev_unmake(mdev);
			mdev_free(mdev);
		}
}

int mdev_create(struct mdev_type *type, const char *text, size_t len, struct umdev_mdev **ret)
{
	struct mdev_spec spec;
	struct umdev_mdev *mdev;
	int error = spec_parse(type, text, len, &spec);

	if (error < 0)
		return error;
	mdev = mdev_new(type, &spec.uuid);
	if (!mdev)
		return -ENOMEM;
	mdev->order = mdev->core->last_order + 1;
	error = mdev_complete(mdev, NULL, parse_settings(mdev, &spec));
	if (error >= 0)
		*ret = mdev;
	return error;
}

int mdev_try_create(struct mdev_type *type, const char *text, size_t len, struct umdev_mdev **ret)
{
	struct mdev_spec spec;
	struct umdev_mdev *mdev;
	int error = spec_parse(type, text, len, &spec);

	if (error < 0)
		return error;
	mdev = mdev_new(type, &spec.uuid);
	if (!mdev)
		return -ENOMEM;
	error = parse_settings(mdev, &spec);
	if (!error)
		error = check_settings(mdev);
	if (!error)
		error = mdev_reserve(mdev);
	if (error < 0)
		mdev_try_end(mdev);
	else
		*ret = mdev;
	return error;
}

void mdev_try_end(struct umdev_mdev *mdev)
{
	if (!mdev)
		return;
	mdev_unmake(mdev);
	mdev_free(mdev);
}

static int restore_settings(struct umdev_mdev *mdev, const struct mdev_saved *saved)
{
	const struct core_type *info = mdev->type->info;
	struct umdev_value value;
	int error = 0;

	for (unsigned i = 0; i < saved->n_settings && !error; i++) {
		const struct core_setting *s = &saved->settings[i];
		int index = param_index(info, s->key);

		if (index < 0)
			return index;
		error = value_parse(info->params[index], s->value, strlen(s->value), &value);
		if (!error)
			error = param_store(mdev, (unsigned)index, &value);
	}
	return error;
}

int mdev_restore(struct mdev_type *type, const struct mdev_saved *saved, struct umdev_mdev **ret)
{
	struct umdev_mdev *mdev = mdev_new(type, &saved->uuid);
	int error;

	if (!mdev)
		return -ENOMEM;
	mdev->order = saved->order;
	mdev->restored = true;
	mdev->lease_pid = saved->lease_pid;
	mdev->lease_start = saved->lease_start;
	error = mdev_complete(mdev, saved, restore_settings(mdev, saved));
	if (error < 0)
		return error;
	mdev->opened = saved->opened;
	if (saved->started)
		start_restore(mdev);
	if (saved->failed)
		core_failed(mdev, saved->failed);
	if (saved->pending.key && param_restore_pending(mdev, &saved->pending) < 0)
		err_clear();
	*ret = mdev;
	return 0;
}

/* ---- removing ---- */

void mdev_finish_removal(struct umdev_mdev *mdev)
{
	assert(mdev->state == MDEV_REMOVING && !mdev->connected);
	param_abandon(mdev);
	if (mdev->bound)
		mdev_event(mdev, CORE_MDEV_UNBOUND, NULL);
	unpublish(mdev);
	mdev_unmake(mdev);
	mdev_event(mdev, CORE_MDEV_REMOVED, NULL);
	attr_done(&mdev->remove_wait, 0);
	attr_done(&mdev->force_wait, 0);
	mdev_free(mdev);
}

static int refuse_in_use(const struct umdev_mdev *mdev)
{
	if (mdev->start_set)
		return err_set(-EBUSY, "%s is being started; wait for it", mdev->uuid_text);
	return err_set(-EBUSY, "%s is %s; %s first, or use `umdev remove --force`", mdev->uuid_text,
		       mdev_state_name(mdev->state),
		       mdev->state == MDEV_STARTED ? "release it" : "disconnect its client");
}

static int remove_later(struct umdev_mdev *mdev, bool force, struct attr_wait **slot,
			struct attr_wait *wait)
{
	if (wait)
		attr_hold(slot, wait);
	mdev->core->ops->disconnect(mdev->core->ops_arg, mdev, force);
	return TREE_LATER;
}

int mdev_may_remove(const struct umdev_mdev *mdev, enum mdev_remove_how how)
{
	bool force = how == MDEV_REMOVE_FORCE;

	if (mdev->state == MDEV_REMOVING && (!force || mdev->force_wait))
		return err_set(-ENODEV, "%s is being removed", mdev->uuid_text);
	if (!force && mdev_in_use(mdev) && (!mdev->parent->remove_waits || !mdev->connected))
		return refuse_in_use(mdev);
	return 0;
}

int mdev_remove(struct umdev_mdev *mdev, enum mdev_remove_how how, struct attr_wait *wait)
{
	bool force = how == MDEV_REMOVE_FORCE;
	int error = mdev_may_remove(mdev, how);

	if (error < 0)
		return error;
	if (mdev->state == MDEV_REMOVING)
		return remove_later(mdev, true, &mdev->force_wait, wait);
	start_abandon(mdev, -ENODEV);
	mdev_set_state(mdev, MDEV_REMOVING, NULL);
	if (!mdev->connected) {
		mdev_finish_removal(mdev);
		return 0;
	}
	unpublish_links(mdev);
	return remove_later(mdev, force, &mdev->remove_wait, wait);
}

/* ---- the vendor driver ---- */

int mdev_unbind(struct umdev_mdev *mdev)
{
	if (!mdev->bound || mdev->state == MDEV_REMOVING)
		return err_set(-ENODEV, "%s is not bound", mdev->uuid_text);
	if (mdev_in_use(mdev))
		return refuse_in_use(mdev);
	mdev_event(mdev, CORE_MDEV_UNBOUND, NULL);
	unpublish_bound(mdev);
	stop_listening(mdev);
	mdev_dirty(mdev);
	return 0;
}

int mdev_bind(struct umdev_mdev *mdev)
{
	int index = mdev->type->info->p2p;
	struct uuid p2p;
	int error = 0;

	if (mdev->state == MDEV_REMOVING)
		return err_set(-ENODEV, "%s is being removed", mdev->uuid_text);
	if (mdev->bound)
		return err_set(-EBUSY, "%s is bound already", mdev->uuid_text);
	if (index >= 0) {
		uuid_parse(mdev_param(mdev, (unsigned)index)->text, UUID_TEXT - 1, &p2p);
		error = group_may_join(mdev, &p2p);
	}
	if (!error)
		error = start_listening(mdev);
	if (!error)
		error = publish_bound(mdev, NULL);
	if (error < 0) {
		unpublish_bound(mdev);
		stop_listening(mdev);
		return error;
	}
	if (mdev->state == MDEV_FAILED) {
		free(TAKE(mdev->fail_text));
		mdev_set_state(mdev, MDEV_IDLE, NULL);
	}
	mdev_event(mdev, CORE_MDEV_BOUND, NULL);
	mdev_dirty(mdev);
	return 0;
}

/* ---- finding ---- */

struct umdev_mdev *mdev_find(struct core *core, const struct uuid *uuid)
{
	struct list_node *node = uuid_map_find(&core->mdevs, uuid);
	struct umdev_mdev *mdev = node ? container_of(node, struct umdev_mdev, hash_node) : NULL;

	return mdev && mdev->state != MDEV_NEW ? mdev : NULL;
}

static bool has_label(const struct umdev_mdev *mdev, const char *label)
{
	int index = mdev->type->info->label;

	return index >= 0 && strcmp(mdev_param(mdev, (unsigned)index)->text, label) == 0;
}

int mdev_find_name(struct core *core, const char *name, struct umdev_mdev **ret)
{
	struct umdev_mdev *mdev, *found = NULL;
	struct umdev_parent *parent;
	struct uuid uuid;

	if (strlen(name) == UUID_TEXT - 1 && uuid_parse(name, UUID_TEXT - 1, &uuid) == 0) {
		found = mdev_find(core, &uuid);
		if (!found)
			return err_set(-ENOENT, "no mdev %s; `umdev list` shows what is there",
				       name);
		*ret = found;
		return 0;
	}
	list_for_each(parent, &core->parents, node)
		list_for_each(mdev, &parent->mdevs, parent_node) {
			if (!*name || mdev->state == MDEV_NEW || !has_label(mdev, name))
				continue;
			if (found)
				return err_set(-EINVAL,
					       "'%s' is the label of %s and of %s; use the "
					       "UUID",
					       name, found->uuid_text, mdev->uuid_text);
			found = mdev;
		}
	if (!found)
		return err_set(-ENOENT,
			       "no mdev has the UUID or the label '%s'; `umdev list` shows "
			       "what is there",
			       name);
	*ret = found;
	return 0;
}
