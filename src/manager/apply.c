/* SPDX-License-Identifier: MIT */
/* Transactions; apply.h has the idea. */
#include "manager/apply.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "core/core.h"
#include "manager/manager.h"
#include "manager/restart.h"
#include "wire/varlink.h"

#define APPLY_MAX 500 /* changes; checked before anybody else has waited long */
#define UNDO_TRIES 3  /* of a value */
#define SPEC_MAX 4096 /* of a creation, as a write to create */

enum verb { CREATE, SET, COMMIT, REMOVE, N_VERBS };
static const char *const verbs[] = { "create", "set", "commit", "remove", NULL };

/* One thing to be undone. Owned by the transaction. */
struct undo {
	struct undo *next; /* done before it */
	enum verb what;
	struct uuid uuid;
	/* Of SET: name and value are owned; given: it was not the default then. */
	char *name, *value;
	unsigned index, tries;
	bool given;
};

/* APPLY_MAKING -> APPLY_COMMITTING -> done; any refusal -> APPLY_UNDOING -> done */
enum phase { APPLY_MAKING, APPLY_COMMITTING, APPLY_UNDOING };

struct apply { /* owned by manager->applies */
	struct list_node node;
	struct manager *manager;
	json_t *changes;          /* owned */
	struct attr_wait *client; /* NULL: it is gone */
	struct attr_wait step;    /* of what is under way, while `waiting` */
	bool waiting;
	struct loop_defer more;
	enum phase phase;
	size_t change, setting; /* what comes next, while making */
	struct undo *undo;
	int error; /* undoing: why */
	char why[ERR_TEXT];
};

/* ---- reading ---- */

static enum verb verb_of(const json_t *change)
{
	const char *word = varlink_text(change, "verb");
	enum verb verb = CREATE;

	while (word && verbs[verb] && strcmp(verbs[verb], word) != 0)
		verb++;
	return word ? verb : N_VERBS;
}

/* Which change it was, in front of the reason. */
static int explain(const json_t *changes, size_t i, int error)
{
	const json_t *change = json_array_get(changes, i);
	char why[ERR_TEXT];

	str_format(why, sizeof(why), "%s", err_text(error));
	err_clear();
	return err_set(error, "change %zu, %s %.64s: %s; nothing was changed", i + 1,
		       varlink_text(change, "verb"), varlink_text(change, "name"), why);
}

static int check_form(const json_t *change)
{
	static const struct varlink_field fields[] = {
		{ "verb", VARLINK_TEXT, false },     { "name", VARLINK_TEXT, false },
		{ "parent", VARLINK_TEXT, true },    { "type", VARLINK_TEXT, true },
		{ "settings", VARLINK_TEXTS, true }, { NULL },
	};
	const char *bad = json_is_object(change) ? varlink_check((json_t *)change, fields) : "it";
	enum verb verb;
	const char *near;

	if (bad)
		return err_set(-EINVAL, "\"%s\" is missing, unknown or of the wrong kind", bad);
	verb = verb_of(change);
	if (verb != N_VERBS)
		return verb == CREATE && (!varlink_text(change, "parent") ||
					  !varlink_text(change, "type"))
			       ? err_set(-EINVAL, "it needs a parent and a type")
			       : 0;
	near = err_nearest(varlink_text(change, "verb"), verbs);
	return err_set(-EINVAL, "\"%.32s\" is none of create, set, commit, remove%s%s",
		       varlink_text(change, "verb"), near ? "; did you mean " : "",
		       near ? near : "");
}

/* The type, and what would be written to its create. */
static int read_create(struct manager *m, const json_t *change, struct mdev_type **ret_type,
		       char spec[SPEC_MAX])
{
	const char *parent_name = varlink_text(change, "parent");
	struct umdev_parent *parent = parent_find(&m->core, parent_name);
	size_t len = str_format(spec, SPEC_MAX, "%s", varlink_text(change, "name")), i;
	const json_t *setting;

	if (!parent)
		return err_set(-ENOENT, "there is no parent \"%s\": see umdev parent list",
			       parent_name);
	*ret_type = type_find(parent, varlink_text(change, "type"));
	if (!*ret_type)
		return -ENOENT;
	json_array_foreach(json_object_get(change, "settings"), i, setting) {
		const char *text = json_string_value(setting);

		if (strpbrk(text, ",\n") || strlen(text) + 2 > SPEC_MAX - len)
			return err_set(-EINVAL,
				       "\"%.64s\": a setting holds neither a comma nor a line end",
				       text);
		len += str_format(spec + len, SPEC_MAX - len, ",%s", text);
	}
	return 0;
}

/* "name=value": where the value begins, name in `ret`. NULL with text. */
static const char *split(const char *setting, char ret[64])
{
	const char *equals = strchr(setting, '=');

	if (!equals || equals == setting || equals - setting >= 64) {
		err_set(-EINVAL, "\"%.64s\" is no setting: it must be key=value", setting);
		return NULL;
	}
	str_format(ret, 64, "%.*s", (int)(equals - setting), setting);
	return equals + 1;
}

/* ---- the check ---- */

/* Devices that would be made, holding what they take. */
struct trial {
	struct manager *manager;
	struct umdev_mdev *made[APPLY_MAX]; /* by change; NULL: none */
};

static struct umdev_mdev *find_made(struct trial *t, const char *name)
{
	for (size_t i = 0; i < APPLY_MAX; i++)
		if (t->made[i] && strcasecmp(t->made[i]->uuid_text, name) == 0)
			return t->made[i];
	return NULL;
}

static int try_create(struct trial *t, size_t i, const json_t *change)
{
	char spec[SPEC_MAX];
	struct mdev_type *type;
	int r = read_create(t->manager, change, &type, spec);

	return r < 0 ? r : mdev_try_create(type, spec, strlen(spec), &t->made[i]);
}

static int try_settings(struct umdev_mdev *mdev, const json_t *settings)
{
	const json_t *setting;
	size_t i;
	int r = 0;

	json_array_foreach(settings, i, setting) {
		char name[64];
		const char *value = split(json_string_value(setting), name);

		if (!value)
			return -EINVAL;
		r = param_try(mdev, name, value, strlen(value));
		if (r < 0)
			break;
	}
	return r;
}

static int may_go(const struct umdev_mdev *mdev)
{
	int r = mdev_may_remove(mdev, MDEV_REMOVE);

	if (r == 0 && mdev_in_use(mdev)) /* remove=wait would wait */
		r = err_set(-EBUSY, "it is %s", mdev_state_name(mdev->state));
	return r;
}

static int try_change(struct trial *t, size_t i, const json_t *change)
{
	const char *name = varlink_text(change, "name");
	struct umdev_mdev *mdev;
	int r = check_form(change);

	if (r < 0)
		return r;
	if (verb_of(change) == CREATE)
		return try_create(t, i, change);
	mdev = find_made(t, name);
	if (!mdev)
		r = mdev_find_name(&t->manager->core, name, &mdev);
	if (r < 0)
		return r;
	switch (verb_of(change)) {
	case SET:
		return try_settings(mdev, json_object_get(change, "settings"));
	case COMMIT:
		return find_made(t, name) ? 0 : mdev_may_start(mdev);
	default:
		return find_made(t, name) ? err_set(-EINVAL, "it would have just been made")
					  : may_go(mdev);
	}
}

static int try_all(struct manager *m, const json_t *changes)
{
	size_t n = json_array_size(changes);
	struct trial *t;
	int r = 0;

	if (n > APPLY_MAX)
		return err_set(-E2BIG, "%zu changes: at most %d", n, APPLY_MAX);
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->manager = m;
	for (size_t i = 0; i < n && r == 0; i++) {
		const json_t *change = json_array_get(changes, i);

		r = try_change(t, i, change);
		if (r < 0)
			r = json_is_object(change) && varlink_text(change, "verb") &&
					    varlink_text(change, "name")
				    ? explain(changes, i, r)
				    : r;
	}
	for (size_t i = n; i-- > 0;)
		mdev_try_end(t->made[i]);
	free(t);
	return r;
}

/* ---- making ---- */

/* To be undone from now on. 0 / -ENOMEM */
static int push(struct apply *a, enum verb what, const struct uuid *uuid, const char *name,
		const char *value)
{
	struct undo *undo = calloc(1, sizeof(*undo));

	if (!undo)
		return -ENOMEM;
	*undo = (struct undo){ .next = a->undo, .what = what, .uuid = *uuid };
	undo->name = name ? strdup(name) : NULL;
	undo->value = value ? strdup(value) : NULL;
	a->undo = undo;
	return (name && !undo->name) || (value && !undo->value) ? -ENOMEM : 0;
}

static void pop(struct apply *a)
{
	struct undo *undo = a->undo;

	a->undo = undo->next;
	free(undo->name);
	free(undo->value);
	free(undo);
}

static int make_create(struct apply *a, const json_t *change)
{
	char spec[SPEC_MAX];
	struct mdev_type *type;
	struct umdev_mdev *mdev;
	struct uuid uuid;
	int r = read_create(a->manager, change, &type, spec);

	if (r == 0 && uuid_parse(spec, strlen(spec), &uuid) == 0)
		r = push(a, CREATE, &uuid, NULL, NULL);
	if (r < 0)
		return r;
	r = mdev_create(type, spec, strlen(spec), &mdev);
	if (r < 0)
		pop(a); /* whoever has that UUID is not ours to remove */
	else
		a->change++;
	if (r == TREE_LATER)
		attr_hold(&mdev->create_wait, &a->step);
	return r;
}

static int make_setting(struct apply *a, const json_t *change)
{
	const json_t *setting = json_array_get(json_object_get(change, "settings"), a->setting);
	struct umdev_mdev *mdev;
	char name[64];
	const char *value;
	int r, index;

	if (!setting) {
		a->setting = 0;
		a->change++;
		return 0;
	}
	a->setting++;
	value = split(json_string_value(setting), name);
	r = mdev_find_name(&a->manager->core, varlink_text(change, "name"), &mdev);
	index = r == 0 && value ? param_index(mdev->type->info, name) : -EINVAL;
	if (r < 0 || index < 0)
		return r < 0 ? r : index;
	if (mdev->type->info->params[index]->writable == UMDEV_W_ONCE)
		return err_set(-EINVAL, "%s can be set once only, and could not be undone", name);
	r = push(a, SET, &mdev->uuid, name, mdev_param(mdev, (unsigned)index)->text);
	if (r == 0) {
		a->undo->index = (unsigned)index;
		a->undo->given = mdev->params_set & UINT32_C(1) << index;
	}
	return r < 0 ? r : param_set(mdev, name, value, strlen(value), &a->step);
}

static int commit_all(struct apply *a)
{
	struct mdev_set set = { 0 };
	const json_t *change;
	size_t i;
	int r = 0;

	a->phase = APPLY_COMMITTING;
	json_array_foreach(a->changes, i, change) {
		if (verb_of(change) == COMMIT && r == 0)
			r = mdev_set_add(&a->manager->core, varlink_text(change, "name"), &set);
	}
	for (unsigned k = 0; k < set.n && r == 0; k++)
		if (!set.list[k]->started)
			r = push(a, COMMIT, &set.list[k]->uuid, NULL, NULL);
	return r < 0 || !set.n ? r : mdev_start(&a->manager->core, &set, &a->step);
}

/* Nothing can go wrong once all may go: nobody else has a turn. */
static int remove_all(struct apply *a)
{
	struct umdev_mdev *mdev;
	const json_t *change;
	int r = 0;

	for (int pass = 0; pass < 2 && r == 0; pass++) {
		size_t i;

		json_array_foreach(a->changes, i, change) {
			if (r < 0 || verb_of(change) != REMOVE)
				continue;
			r = mdev_find_name(&a->manager->core, varlink_text(change, "name"), &mdev);
			if (r == 0 && pass == 0)
				r = may_go(mdev);
			else if (r == 0)
				mdev_remove(mdev, MDEV_REMOVE, NULL);
			else if (pass)
				r = 0; /* named twice */
		}
	}
	return r;
}

/* ---- undoing ---- */

/* The first of the list is undone, or cannot be. */
static void undone(struct apply *a, int r)
{
	struct umdev_mdev *mdev = mdev_find(&a->manager->core, &a->undo->uuid);

	/* The worker that was asked is on its way out: now, or soon, nobody has to be asked. */
	if (r == -EIO && a->undo->tries++ < UNDO_TRIES)
		return;
	if (r < 0)
		log_warning("%s keeps a value of a transaction that failed: %s", a->undo->name,
			    err_text(r));
	if (r == 0 && mdev && a->undo->what == SET && !a->undo->given) {
		mdev->params_set &= ~(UINT32_C(1) << a->undo->index);
		restart_save(a->manager, mdev);
	}
	pop(a);
}

static int undo_step(struct apply *a)
{
	struct umdev_mdev *mdev = mdev_find(&a->manager->core, &a->undo->uuid);
	int r = 0;

	if (mdev && a->undo->what == SET)
		r = param_set(mdev, a->undo->name, a->undo->value, strlen(a->undo->value),
			      &a->step);
	else if (mdev && a->undo->what == COMMIT)
		mdev_stop(&a->manager->core, &(struct mdev_set){ .n = 1, .list = { mdev } });
	else if (mdev)
		mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL);
	if (r != TREE_LATER)
		undone(a, r);
	return r == TREE_LATER ? r : 0;
}

static void fail(struct apply *a, int error)
{
	str_format(a->why, sizeof(a->why), "%s", err_text(error));
	a->error = error;
	a->phase = APPLY_UNDOING;
}

/* ---- as far as it goes without waiting ---- */

static void apply_free(struct apply *a)
{
	if (a->waiting)
		attr_cancel(&a->step);
	loop_defer_cancel(&a->more);
	while (a->undo)
		pop(a);
	list_remove(&a->node);
	json_decref(a->changes);
	free(a);
}

static void finish(struct apply *a)
{
	err_clear();
	if (a->error)
		err_set(a->error, "%s", a->why);
	attr_done(&a->client, a->error);
	apply_free(a);
}

/* 0: go on; TREE_LATER; -errno; 1 + TREE_LATER: all is done. */
#define ALL_DONE (TREE_LATER + 1)

static int make_step(struct apply *a)
{
	const json_t *change = json_array_get(a->changes, a->change);
	int r;

	if (a->phase == APPLY_COMMITTING) {
		r = remove_all(a);
		return r < 0 ? r : ALL_DONE;
	}
	if (!change)
		return commit_all(a);
	r = 0;
	if (verb_of(change) == CREATE)
		r = make_create(a, change);
	else if (verb_of(change) == SET)
		r = make_setting(a, change);
	else
		a->change++;
	return r < 0 ? explain(a->changes, a->change, r) : r;
}

static void go_on(struct loop_defer *defer)
{
	struct apply *a = container_of(defer, struct apply, more);
	int r = 0;

	while (r >= 0 && r != TREE_LATER && r != ALL_DONE) {
		err_clear();
		if (a->phase == APPLY_UNDOING && !a->undo)
			break;
		r = a->phase == APPLY_UNDOING ? undo_step(a) : make_step(a);
		if (r < 0) {
			fail(a, r);
			r = 0;
		}
	}
	a->waiting = r == TREE_LATER;
	if (!a->waiting)
		finish(a);
}

static void step_done(struct attr_wait *wait, int result)
{
	struct apply *a = container_of(wait, struct apply, step);

	a->waiting = false;
	if (a->phase == APPLY_UNDOING) {
		undone(a, result);
		result = 0;
	}
	if (result < 0 && a->phase == APPLY_MAKING && a->undo->what == CREATE)
		pop(a); /* it is gone */
	if (result < 0)
		fail(a, result);
	loop_defer(&a->manager->loop, &a->more, go_on); /* not from inside the core */
}

int apply_start(struct manager *m, json_t *changes, bool dry_run, struct attr_wait *wait)
{
	struct apply *a;
	int r = try_all(m, changes);

	if (r < 0 || dry_run)
		return r;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->manager = m;
	a->changes = json_incref(changes);
	a->step.done = step_done;
	list_append(&m->applies, &a->node);
	attr_hold(&a->client, wait);
	loop_defer(&m->loop, &a->more, go_on);
	return TREE_LATER;
}

void apply_close(struct manager *m)
{
	struct apply *a;

	while (m->applies.next && (a = list_first(&m->applies, struct apply, node))) {
		attr_done(&a->client, -ESHUTDOWN);
		apply_free(a);
	}
}
