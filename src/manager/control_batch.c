/* SPDX-License-Identifier: MIT */
/*
 * Many devices in one call. Each item goes through the same call of the core as a single one; what
 * is saved is a message, a parse and a wake-up for each of them.
 *
 * A call has as many items as are done before anybody else has waited long; clients with more send
 * more calls.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"
#include "core/core.h"
#include "manager/control.h"
#include "manager/manager.h"

#define BATCH_MAX 1000 /* some 50 ms */

static int check_size(const json_t *items)
{
	if (json_array_size(items) <= BATCH_MAX)
		return 0;
	return err_set(-E2BIG, "%zu devices in one call: at most %d, then another call",
		       json_array_size(items), BATCH_MAX);
}

/* ---- what a call waits for ---- */

struct batch_item {
	struct batch *batch;
	struct attr_wait wait;
	bool is_made;
	struct uuid uuid; /* of what is made */
};

/*
 * A call under way. It owns itself: freed when its last item has ended, which is in the call itself
 * unless an item is answered later (a driver makes a volume, a client must leave).
 */
struct batch {
	struct manager *m;
	struct attr_wait *wait; /* of the call; NULL: its client has hung up, or it runs */
	json_t *failed;         /* a reference to the array of the reply; NULL: no memory */
	bool all;
	size_t n, pending; /* items that have not ended; and 1 while the call runs */
	int error;         /* all: why nothing must stay */
	char why[ERR_TEXT];
	struct loop_defer finish;
	struct batch_item items[];
};

static struct batch *batch_new(struct manager *m, size_t n, bool all)
{
	struct batch *b = calloc(1, sizeof(*b) + n * sizeof(b->items[0]));

	if (!b)
		return NULL;
	b->m = m;
	b->n = n;
	b->all = all;
	b->pending = 1;
	b->failed = json_array();
	return b;
}

static void batch_free(struct batch *b)
{
	json_decref(b->failed);
	free(b);
}

/* An item failed; takes the text that was left. */
static void batch_fail(struct batch *b, size_t index, int error)
{
	json_t *json;

	if (b->all && !b->error) {
		b->error = error;
		str_format(b->why, sizeof(b->why), "item %zu: %.400s; nothing was changed", index,
			   err_text(error));
		return;
	}
	json = control_error_json(error);
	if (json_object_set_new(json, "index", json_integer((json_int_t)index)) < 0) {
		json_decref(json);
		json = NULL;
	}
	control_append(&b->failed, json);
}

/* What was made goes again; meanwhile somebody may have connected to it. */
static void batch_undo(struct batch *b)
{
	for (size_t i = b->n; i--;) {
		const struct batch_item *item = &b->items[i];
		struct umdev_mdev *mdev = item->is_made ? mdev_find(&b->m->core, &item->uuid)
							: NULL;

		if (mdev)
			mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL);
	}
}

/* Every item has ended: the result of the call, with its text. */
static int batch_result(struct batch *b)
{
	err_clear();
	if (b->error) {
		if (!b->m->stopping)
			batch_undo(b);
		err_clear();
		return err_set(b->error, "%s", b->why);
	}
	return b->failed ? 0 : -ENOMEM;
}

static void batch_finish(struct loop_defer *defer)
{
	struct batch *b = container_of(defer, struct batch, finish);
	int r = batch_result(b);

	attr_done(&b->wait, r);
	batch_free(b);
}

static void item_ended(struct attr_wait *wait, int result)
{
	struct batch_item *item = container_of(wait, struct batch_item, wait);
	struct batch *b = item->batch;

	item->is_made = item->is_made && result == 0;
	if (result < 0)
		batch_fail(b, (size_t)(item - b->items), result);
	if (--b->pending)
		return;
	/* Not from inside the core, which may be going through its devices; and no loop runs then.
	 */
	if (b->m->stopping)
		batch_finish(&b->finish);
	else
		loop_defer(&b->m->loop, &b->finish, batch_finish);
}

/* The item's wait, for a call that may answer later. */
static struct attr_wait *item_begin(struct batch *b, size_t index)
{
	struct batch_item *item = &b->items[index];

	item->batch = b;
	item->wait.done = item_ended;
	b->pending++;
	return &item->wait;
}

/* It was answered at once with r < 0 or 0, or is answered later. */
static void item_result(struct batch *b, size_t index, int r)
{
	if (r == TREE_LATER)
		return;
	b->pending--;
	if (r < 0) {
		b->items[index].is_made = false;
		batch_fail(b, index, r);
	}
}

/* The end of the call: what it answers, now or later. b is not the caller's any more. */
static int batch_end(struct batch *b, struct attr_wait *wait, json_t **ret)
{
	int r = 0;

	b->pending--;
	*ret = b->failed ? json_pack("{s:O}", "failed", b->failed) : NULL;
	if (b->pending) {
		attr_hold(&b->wait, wait);
		return TREE_LATER;
	}
	r = batch_result(b);
	batch_free(b);
	if (r < 0)
		json_decref(TAKE(*ret));
	return r == 0 && !*ret ? -ENOMEM : r;
}

/* ---- create ---- */

static int create_one(struct batch *b, size_t index, struct mdev_type *type, const char *spec)
{
	struct attr_wait *wait = item_begin(b, index);
	struct umdev_mdev *mdev;
	int r = mdev_create(type, spec, strlen(spec), &mdev);

	if (r >= 0) {
		b->items[index].uuid = mdev->uuid;
		b->items[index].is_made = true;
	}
	if (r == TREE_LATER)
		attr_hold(&mdev->create_wait, wait);
	return r;
}

int control_create_many(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	const json_t *specs = json_object_get(params, "specs"), *item;
	struct umdev_parent *parent;
	struct mdev_type *type;
	struct batch *b;
	size_t i;
	int r = check_size(specs);

	if (r == 0)
		r = control_find_parent(m, varlink_text(params, "parent"), &parent);
	if (r < 0)
		return r;
	type = type_find(parent, varlink_text(params, "type"));
	if (!type)
		return -ENOENT;
	r = control_may_write(m, peer, type->dir, "create");
	if (r < 0)
		return r;
	b = batch_new(m, json_array_size(specs), varlink_bool(params, "all"));
	if (!b)
		return -ENOMEM;
	json_array_foreach(specs, i, item) {
		err_clear();
		item_result(b, i, create_one(b, i, type, json_string_value(item)));
		if (b->error)
			break;
	}
	return batch_end(b, wait, ret);
}

/* ---- remove ---- */

/* Who asks for what. */
struct wish {
	struct manager *m;
	const struct control_peer *peer;
	enum mdev_remove_how how;
};

static int find(const struct wish *w, const char *name, struct umdev_mdev **ret)
{
	int r = mdev_find_name(&w->m->core, name, ret);

	return r < 0 ? r : control_may_write(w->m, w->peer, (*ret)->dir, "remove");
}

static int remove_one(const struct wish *w, struct batch *b, size_t index, const char *name)
{
	struct attr_wait *wait = item_begin(b, index);
	struct umdev_mdev *mdev;
	int r;

	err_clear();
	r = find(w, name, &mdev);
	return r < 0 ? r : mdev_remove(mdev, w->how, wait);
}

static int by_address(const void *a, const void *b)
{
	const struct umdev_mdev *const *x = a, *const *y = b;

	return (*x > *y) - (*x < *y);
}

/* The error of an item as that of the whole call. */
static int refuse_all(size_t index, int error)
{
	char why[ERR_TEXT];

	str_format(why, sizeof(why), "%s", err_text(error));
	err_clear();
	return err_set(error, "item %zu: %.400s; nothing was changed", index, why);
}

/* Would every removal be accepted? */
static int may_remove_all(const struct wish *w, const json_t *names)
{
	size_t n = json_array_size(names);
	_cleanup_free_ struct umdev_mdev **list = calloc(n + 1, sizeof(struct umdev_mdev *));
	int r = list ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && r == 0; i++) {
		r = find(w, json_string_value(json_array_get(names, i)), &list[i]);
		if (r == 0)
			r = mdev_may_remove(list[i], w->how);
		if (r < 0)
			r = refuse_all(i, r);
	}
	if (r < 0)
		return r;
	qsort(list, n, sizeof(list[0]), by_address);
	for (size_t i = 1; i < n; i++)
		if (list[i] == list[i - 1])
			return err_set(-EINVAL, "%s is named twice; nothing was changed",
				       list[i]->uuid_text);
	return 0;
}

int control_remove_many(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	const struct wish wish = { m, peer,
				   varlink_bool(params, "force") ? MDEV_REMOVE_FORCE
								 : MDEV_REMOVE };
	const json_t *names = json_object_get(params, "names"), *item;
	struct batch *b;
	size_t i;
	int r = check_size(names);

	if (r == 0 && varlink_bool(params, "all"))
		r = may_remove_all(&wish, names);
	if (r < 0)
		return r;
	b = batch_new(m, json_array_size(names), false);
	if (!b)
		return -ENOMEM;
	json_array_foreach(names, i, item)
		item_result(b, i, remove_one(&wish, b, i, json_string_value(item)));
	return batch_end(b, wait, ret);
}
