/* SPDX-License-Identifier: MIT */
/*
 * The way of a parameter write, the same for every door:
 *
 *   may it ever change? -> form -> no change? -> may it change now? -> limits -> group, pool,
 *   other devices -> driver -> the worker, if it serves and the parameter is live -> commit, tell
 *
 * A refusal at any step leaves the old value, the pools and the group as they were. Units are
 * taken before the driver is asked and, while a worker is being asked, cover both values.
 */
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

const struct umdev_value *mdev_param(const struct umdev_mdev *mdev, unsigned index)
{
	const struct core_type *info = mdev->type->info;
	const struct umdev_value *own;

	if ((int)index == info->mirror)
		index = (unsigned)info->aggregation;
	own = mdev->params[index];
	return own ? own : &info->defaults[index];
}

static int unknown_param(const struct core_type *type, const char *name)
{
	const char *names[CORE_MAX_PARAMS + 1], *near;
	char list[ERR_TEXT / 2] = "";
	size_t at = 0;

	for (unsigned i = 0; i < type->n_params; i++) {
		names[i] = type->params[i]->name;
		at += str_format(list + at, sizeof(list) - at, " %s", names[i]);
	}
	names[type->n_params] = NULL;
	near = err_nearest(name, names);
	if (near)
		return err_set(-ENOENT, "%s has no parameter '%s'; did you mean '%s'?", type->name,
			       name, near);
	return err_set(-ENOENT, "%s has no parameter '%s'; it has%s", type->name, name,
		       at ? list : " none");
}

int param_index(const struct core_type *type, const char *name)
{
	for (unsigned i = 0; i < type->n_params; i++)
		if (strcmp(type->params[i]->name, name) == 0)
			return (int)i;
	return unknown_param(type, name);
}

/* From here on param_store of this parameter cannot fail. */
static int param_reserve(struct umdev_mdev *mdev, unsigned index)
{
	struct umdev_value *value;

	if (mdev->params[index])
		return 0;
	value = malloc(sizeof(*value));
	if (!value)
		return -ENOMEM;
	*value = mdev->type->info->defaults[index];
	mdev->params[index] = value;
	return 0;
}

int param_keep(struct umdev_mdev *mdev, unsigned index, const struct umdev_value *value)
{
	int error = param_reserve(mdev, index);

	if (!error)
		*mdev->params[index] = *value;
	return error;
}

int param_store(struct umdev_mdev *mdev, unsigned index, const struct umdev_value *value)
{
	int error = param_keep(mdev, index, value);

	if (!error)
		mdev->params_set |= UINT32_C(1) << index;
	return error;
}

static bool is_set(const struct umdev_mdev *mdev, unsigned index)
{
	return mdev->params_set & UINT32_C(1) << index;
}

/* What the mode of its file says in the tree: before anything is read. 0 / -EACCES */
static int check_mode(const struct umdev_param *desc)
{
	if (desc->writable == UMDEV_W_NEVER)
		return err_set(-EACCES, "%s is read-only", desc->name);
	if (desc->writable == UMDEV_W_CREATE)
		return err_set(-EACCES, "%s can only be given when the device is created",
			       desc->name);
	return 0;
}

/* 0, or -EBUSY in this state. */
static int check_writable(const struct umdev_mdev *mdev, unsigned index)
{
	const struct umdev_param *desc = mdev->type->info->params[index];
	enum umdev_param_writable writable = desc->writable;

	if (writable == UMDEV_W_ONCE && is_set(mdev, index))
		return err_set(-EBUSY, "%s can be set once and was; create the device anew",
			       desc->name);
	if (writable <= UMDEV_W_FRESH && mdev->opened)
		return err_set(-EBUSY,
			       "%s cannot change after the first connection; create the "
			       "device anew",
			       desc->name);
	if (writable <= UMDEV_W_IDLE && mdev_in_use(mdev))
		return err_set(-EBUSY,
			       "%s cannot change while %s is %s; disconnect its client first",
			       desc->name, mdev->uuid_text, mdev_state_name(mdev->state));
	if (writable <= UMDEV_W_IDLE && mdev_is_served(mdev))
		return err_set(-EBUSY,
			       "%s cannot change while a worker serves the group of %s; "
			       "disconnect the clients of its other devices first",
			       desc->name, mdev->uuid_text);
	if (mdev->param_value)
		return err_set(-EBUSY, "%s: another change of %s is under way", desc->name,
			       mdev->uuid_text);
	return 0;
}

static int check_group(struct umdev_mdev *mdev, const struct uuid *p2p)
{
	if (mdev->group && group_in_use(mdev->group))
		return err_set(-EBUSY, "%s: a device of its group is in use; disconnect it first",
			       mdev->uuid_text);
	return group_may_join(mdev, p2p);
}

static bool has_mac(const struct umdev_mdev *mdev, uint64_t mac)
{
	const struct core_type *info = mdev->type->info;

	for (unsigned i = 0; info->has_mac && i < info->n_params; i++)
		if (info->params[i]->type == UMDEV_MAC && mdev_param(mdev, i)->u64 == mac)
			return true;
	return false;
}

/* Asked for addresses only, which are given seldom: a walk over all devices will do. */
int param_check_unique(const struct umdev_mdev *mdev, unsigned index,
		       const struct umdev_value *value)
{
	const struct umdev_param *desc = mdev->type->info->params[index];
	const struct umdev_parent *parent;
	const struct umdev_mdev *other;

	if (desc->type != UMDEV_MAC || value->u64 == 0)
		return 0;
	list_for_each(parent, &mdev->core->parents, node)
		list_for_each(other, &parent->mdevs, parent_node)
			if (other != mdev && has_mac(other, value->u64))
				return err_set(-EADDRINUSE, "%s: it is the address of %s",
					       desc->name, other->uuid_text);
	return 0;
}

static void tell(struct umdev_mdev *mdev, unsigned index)
{
	const struct umdev_param *desc = mdev->type->info->params[index];
	char detail[2 * UMDEV_VALUE_TEXT];

	if (desc->secret)
		str_format(detail, sizeof(detail), "%s", desc->name);
	else
		str_format(detail, sizeof(detail), "%s=%s", desc->name,
			   mdev_param(mdev, index)->text);
	mdev_event(mdev, CORE_MDEV_PARAM, detail);
	mdev_dirty(mdev);
}

static struct pool_units units_max(const struct pool_units *a, const struct pool_units *b)
{
	struct pool_units max;

	for (unsigned p = 0; p < UMDEV_MAX_POOLS; p++)
		max.n[p] = a->n[p] > b->n[p] ? a->n[p] : b->n[p];
	return max;
}

/* A change whose checks have passed up to here. */
struct change {
	struct umdev_mdev *mdev;
	unsigned index;
	struct umdev_value *value;
	struct pool_units before, after, held; /* held: what is taken while it is undecided */
};

static int change_begin(struct change *c)
{
	const struct core_type *info = c->mdev->type->info;
	int error = pool_cost(info, c->mdev, -1, NULL, &c->before);

	if (!error)
		error = pool_cost(info, c->mdev, (int)c->index, c->value, &c->after);
	if (error < 0)
		return err_set(error, "%s: %s is more than any pool holds",
			       info->params[c->index]->name, c->value->text);
	c->held = units_max(&c->before, &c->after);
	return pool_change(c->mdev->parent, &c->before, &c->held);
}

static void change_end(struct change *c, bool committed)
{
	int error = pool_change(c->mdev->parent, &c->held, committed ? &c->after : &c->before);

	assert(error == 0); /* gives back only */
}

/* The value of parameter `at`, with `value` (or NULL) in the place of parameter `index`. */
static const struct umdev_value *with(const struct umdev_mdev *mdev, int at, int index,
				      const struct umdev_value *value)
{
	return value && at == index ? value : mdev_param(mdev, (unsigned)at);
}

static struct mdev_access access_with(const struct umdev_mdev *mdev, int index,
				      const struct umdev_value *value)
{
	static const mode_t modes[] = { 0600, 0660, 0666 };
	const struct core_type *info = mdev->type->info;

	return (struct mdev_access){
		.uid = (uid_t)with(mdev, info->uid, index, value)->u64,
		.gid = (gid_t)with(mdev, info->gid, index, value)->u64,
		.mode = modes[with(mdev, info->mode, index, value)->u64],
	};
}

bool mdev_access_of(const struct umdev_mdev *mdev, struct mdev_access *ret)
{
	const struct core_type *info = mdev->type->info;

	*ret = access_with(mdev, -1, NULL);
	return is_set(mdev, (unsigned)info->uid) || is_set(mdev, (unsigned)info->gid) ||
	       is_set(mdev, (unsigned)info->mode);
}

/* The socket first: a refusal (umdevd is not root) keeps the old value. */
static int change_access(const struct change *c)
{
	struct umdev_mdev *mdev = c->mdev;
	const struct core_type *info = mdev->type->info;
	const struct core_ops *ops = mdev->core->ops;
	int index = (int)c->index;
	struct mdev_access access;

	if (index != info->uid && index != info->gid && index != info->mode)
		return 0;
	if (!mdev->listening || !ops->mdev_access)
		return 0;
	access = access_with(mdev, index, c->value);
	return ops->mdev_access(mdev->core->ops_arg, mdev, &access);
}

static int change_commit(struct change *c)
{
	struct umdev_mdev *mdev = c->mdev;
	struct uuid p2p;
	int error = 0;

	/* A group's value was stored when the device was made: keeping it cannot fail after the
	 * move. */
	if ((int)c->index == mdev->type->info->p2p && mdev->group) {
		uuid_parse(c->value->text, UUID_TEXT - 1, &p2p);
		error = group_move(mdev, &p2p);
	}
	if (!error)
		error = param_reserve(mdev, c->index);
	if (!error)
		error = change_access(c);
	if (!error)
		error = param_store(mdev, c->index, c->value);
	change_end(c, !error);
	if (!error)
		tell(mdev, c->index);
	return error;
}

/* Must a worker agree? The core's own parameters mean nothing to a device half. */
static bool asks_worker(const struct umdev_mdev *mdev, unsigned index)
{
	return mdev_is_served(mdev) && index >= mdev->type->info->n_standard;
}

/* The change waits for an answer; c->value is the device's from now on. */
static void change_hold(struct change *c)
{
	c->mdev->param_value = c->value;
	c->mdev->param_pending = c->index;
}

/* The value is taken. */
static int change_ask(struct change *c)
{
	struct umdev_mdev *mdev = c->mdev;
	int error;

	change_hold(c);
	mdev_dirty(mdev); /* first: a restart must know what the worker may be told */
	error = mdev->core->ops->param_live(mdev->core->ops_arg, mdev,
					    mdev->type->info->params[c->index], mdev->param_value);
	if (error < 0) {
		free(TAKE(mdev->param_value));
		change_end(c, false);
		mdev_dirty(mdev);
		return error;
	}
	return TREE_LATER;
}

/* The driver needs time. The value is taken. */
static int change_park(struct change *c)
{
	change_hold(c);
	c->mdev->param_checking = true;
	return TREE_LATER;
}

static int change_check(struct umdev_mdev *mdev, unsigned index, const struct umdev_value *value)
{
	const struct core_type *info = mdev->type->info;
	struct uuid p2p;
	int error = check_writable(mdev, index);

	if (!error)
		error = value_check(info->params[index], value);
	if (!error && (int)index == info->p2p) {
		uuid_parse(value->text, UUID_TEXT - 1, &p2p);
		error = check_group(mdev, &p2p);
	}
	return error;
}

/* Of the core's own parameters only aggregation means something to a driver. */
static int ask_driver(const struct change *c)
{
	const struct core_type *info = c->mdev->type->info;
	const struct umdev_parent_driver *driver = c->mdev->parent->driver;
	bool concerned = c->index >= info->n_standard || (int)c->index == info->aggregation;
	int error;

	if (!driver->param_check || !concerned)
		return 0;
	c->mdev->param_pending = c->index;
	c->mdev->checked = c->value;
	error = driver->param_check(c->mdev, info->params[c->index], c->value);
	c->mdev->checked = NULL;
	return error;
}

/* Other devices and the driver; the units are held. */
static int change_agree(struct change *c)
{
	int error = param_check_unique(c->mdev, c->index, c->value);

	if (!error)
		error = param_reserve(c->mdev, c->index);
	if (!error)
		error = ask_driver(c);
	if (error < 0)
		change_end(c, false);
	return error;
}

int param_set_index(struct umdev_mdev *mdev, unsigned index, const char *text, size_t len,
		    struct attr_wait *wait)
{
	const struct umdev_param *desc = mdev->type->info->params[index];
	_cleanup_free_ struct umdev_value *value = malloc(sizeof(*value));
	struct change c = { .mdev = mdev, .index = index, .value = value };
	int error;

	if (mdev->state == MDEV_REMOVING)
		return err_set(-ENODEV, "%s is being removed", mdev->uuid_text);
	error = check_mode(desc);
	if (!error)
		error = value ? value_parse(desc, text, len, value) : -ENOMEM;
	if (error < 0)
		return error;
	if (strcmp(value->text, mdev_param(mdev, index)->text) == 0) {
		/* Confirming the default of a required parameter is giving it. */
		if (desc->required)
			mdev->params_set |= UINT32_C(1) << index;
		return 0;
	}
	error = change_check(mdev, index, value);
	if (!error)
		error = change_begin(&c);
	if (!error)
		error = change_agree(&c);
	if (error >= 0 && (error == UMDEV_LATER || asks_worker(mdev, index))) {
		TAKE(value);
		error = error == UMDEV_LATER ? change_park(&c) : change_ask(&c);
	} else if (!error) {
		error = change_commit(&c);
	}
	if (error == TREE_LATER && wait)
		attr_hold(&mdev->param_wait, wait);
	return error;
}

int param_set(struct umdev_mdev *mdev, const char *name, const char *text, size_t len,
	      struct attr_wait *wait)
{
	int index = param_index(mdev->type->info, name);

	return index < 0 ? index : param_set_index(mdev, (unsigned)index, text, len, wait);
}

int param_try(struct umdev_mdev *mdev, const char *name, const char *text, size_t len)
{
	int index = param_index(mdev->type->info, name);
	_cleanup_free_ struct umdev_value *value = malloc(sizeof(*value));
	struct change c = { .mdev = mdev, .index = (unsigned)index, .value = value };
	int error;

	if (index < 0 || !value)
		return index < 0 ? index : -ENOMEM;
	if (mdev->state == MDEV_REMOVING)
		return err_set(-ENODEV, "%s is being removed", mdev->uuid_text);
	error = check_mode(mdev->type->info->params[index]);
	if (!error)
		error = value_parse(mdev->type->info->params[index], text, len, value);
	if (error < 0 || strcmp(value->text, mdev_param(mdev, c.index)->text) == 0)
		return error;
	error = change_check(mdev, c.index, value);
	if (!error)
		error = change_begin(&c);
	if (error < 0)
		return error;
	error = param_check_unique(mdev, c.index, value);
	change_end(&c, false);
	return error;
}

int umdev_mdev_param_follows(struct umdev_mdev *mdev, const char *name, const char *text)
{
	int index = param_index(mdev->type->info, name);
	bool pending = (mdev->checked || mdev->param_value) && (int)mdev->param_pending == index;
	struct umdev_value value;
	int error;

	assert(index >= 0);
	error = param_parse(mdev->type->info->params[index], text, strlen(text), &value);
	if (!error && pending)
		*(mdev->checked ? mdev->checked : mdev->param_value) = value;
	else if (!error)
		error = param_store(mdev, (unsigned)index, &value);
	if (!error && !pending && mdev->state != MDEV_NEW)
		tell(mdev, (unsigned)index);
	return error;
}

/* The pending change, with its units as change_begin left them. */
static void change_resume(struct change *c, struct umdev_mdev *mdev)
{
	*c = (struct change){ .mdev = mdev,
			      .index = mdev->param_pending,
			      .value = mdev->param_value };
	pool_cost(mdev->type->info, mdev, -1, NULL, &c->before);
	pool_cost(mdev->type->info, mdev, (int)c->index, c->value, &c->after);
	c->held = units_max(&c->before, &c->after);
}

void core_param_done(struct umdev_mdev *mdev, int error)
{
	_cleanup_free_ struct umdev_value *value = NULL;
	struct change c;
	int result;

	if (!mdev->param_value)
		return; /* the device was abandoned meanwhile */
	change_resume(&c, mdev);
	value = TAKE(mdev->param_value);
	if (error) {
		change_end(&c, false);
		mdev_dirty(mdev);
		result = -error;
	} else {
		result = change_commit(&c);
	}
	attr_done(&mdev->param_wait, result);
}

void umdev_mdev_param_checked(struct umdev_mdev *mdev, int error)
{
	struct change c;

	assert(mdev->param_checking && mdev->param_value);
	mdev->param_checking = false;
	if (error < 0 || !asks_worker(mdev, mdev->param_pending)) {
		core_param_done(mdev, -error);
		return;
	}
	change_resume(&c, mdev);
	error = change_ask(&c);
	if (error != TREE_LATER)
		attr_done(&mdev->param_wait, error);
}

int param_restore_pending(struct umdev_mdev *mdev, const struct core_setting *pending)
{
	const struct core_type *info = mdev->type->info;
	_cleanup_free_ struct umdev_value *value = calloc(1, sizeof(*value));
	struct change c = { .mdev = mdev, .value = value };
	int error, index = value ? param_index(info, pending->key) : -ENOMEM;

	if (index < 0)
		return index;
	if (info->params[index]->writable != UMDEV_W_LIVE || (unsigned)index < info->n_standard)
		return err_set(-EINVAL, "%s cannot change while it is used", pending->key);
	c.index = (unsigned)index;
	error = param_parse(info->params[index], pending->value, strlen(pending->value), value);
	if (!error)
		error = param_reserve(mdev, c.index);
	if (!error)
		error = change_begin(&c);
	if (error < 0)
		return error;
	mdev->param_pending = c.index;
	mdev->param_value = TAKE(value);
	return 0;
}

void param_abandon(struct umdev_mdev *mdev)
{
	mdev->param_checking = false;
	if (mdev->param_value)
		core_param_done(mdev, ENODEV);
}
