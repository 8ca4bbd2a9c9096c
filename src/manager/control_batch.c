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

/* Of an item that failed; takes the text that was left. */
static void append_failure(json_t **failed, size_t index, int error)
{
	json_t *json = control_error_json(error);

	if (json_object_set_new(json, "index", json_integer((json_int_t)index)) < 0) {
		json_decref(json);
		json = NULL;
	}
	control_append(failed, json);
}

/* The error of an item as that of the whole call. */
static int fail_all(size_t index, const char *item, int error)
{
	char why[ERR_TEXT];

	strncpy(why, err_text(error), sizeof(why) - 1);
	why[sizeof(why) - 1] = '\0';
	err_clear();
	return err_set(error, "item %zu, \"%.64s\": %s; nothing was changed", index, item, why);
}

/* Takes failed. */
static int give_failed(json_t **ret, json_t *failed)
{
	*ret = failed ? json_pack("{s:o}", "failed", failed) : NULL;
	return *ret ? 0 : -ENOMEM;
}

/* ---- create ---- */

static int create_all(struct mdev_type *type, const json_t *specs)
{
	size_t n = json_array_size(specs), made = 0;
	struct umdev_mdev **list = calloc(n + 1, sizeof(struct umdev_mdev *));
	int r = list ? 0 : -ENOMEM;

	for (; made < n && r == 0; made += r == 0) {
		const char *spec = json_string_value(json_array_get(specs, made));

		r = mdev_create(type, spec, strlen(spec), &list[made]);
		if (r < 0)
			r = fail_all(made, spec, r);
	}
	/* Nobody else had a turn since: they are idle. */
	while (r < 0 && made)
		mdev_remove(list[--made], MDEV_REMOVE, NULL);
	free(list);
	return r;
}

static json_t *create_each(struct mdev_type *type, const json_t *specs)
{
	json_t *failed = json_array();
	const json_t *item;
	size_t i;

	json_array_foreach(specs, i, item) {
		const char *spec = json_string_value(item);
		struct umdev_mdev *mdev;
		int r;

		err_clear();
		r = mdev_create(type, spec, strlen(spec), &mdev);
		if (r < 0)
			append_failure(&failed, i, r);
	}
	return failed;
}

int control_create_many(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	const json_t *specs = json_object_get(params, "specs");
	struct umdev_parent *parent;
	struct mdev_type *type;
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
	if (!varlink_bool(params, "all"))
		return give_failed(ret, create_each(type, specs));
	r = create_all(type, specs);
	return r < 0 ? r : give_failed(ret, json_array());
}

/* ---- remove ---- */

struct removal_item {
	struct removal *removal;
	struct attr_wait wait;
};

/* Removals that wait for clients. Freed when the last of them has ended. */
struct removal {
	struct attr_wait *wait; /* of the call; NULL: its client has hung up */
	size_t pending;         /* items that have not ended; and 1 while the call runs */
	struct removal_item items[];
};

static void removal_put(struct removal *removal)
{
	if (--removal->pending)
		return;
	attr_done(&removal->wait, 0);
	free(removal);
}

/* An accepted removal succeeds. */
static void removed_later(struct attr_wait *wait, int result)
{
	removal_put(container_of(wait, struct removal_item, wait)->removal);
}

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

static int remove_one(const struct wish *w, const char *name, struct removal *removal, size_t index)
{
	struct removal_item *item = &removal->items[index];
	struct umdev_mdev *mdev;
	int r;

	err_clear();
	r = find(w, name, &mdev);
	if (r < 0)
		return r;
	item->removal = removal;
	item->wait.done = removed_later;
	removal->pending++;
	r = mdev_remove(mdev, w->how, &item->wait);
	if (r != TREE_LATER)
		removal->pending--;
	return r;
}

static int by_address(const void *a, const void *b)
{
	const struct umdev_mdev *const *x = a, *const *y = b;

	return (*x > *y) - (*x < *y);
}

/* Would every removal be accepted? */
static int may_remove_all(const struct wish *w, const json_t *names)
{
	size_t n = json_array_size(names);
	_cleanup_free_ struct umdev_mdev **list = calloc(n + 1, sizeof(struct umdev_mdev *));
	int r = list ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && r == 0; i++) {
		const char *name = json_string_value(json_array_get(names, i));

		r = find(w, name, &list[i]);
		if (r == 0)
			r = mdev_may_remove(list[i], w->how);
		if (r < 0)
			r = fail_all(i, name, r);
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
	json_t *failed;
	struct removal *removal;
	size_t i, n = json_array_size(names);
	int r = check_size(names);

	if (r == 0 && varlink_bool(params, "all"))
		r = may_remove_all(&wish, names);
	if (r < 0)
		return r;
	removal = calloc(1, sizeof(*removal) + n * sizeof(removal->items[0]));
	if (!removal)
		return -ENOMEM;
	removal->pending = 1;
	failed = json_array();
	json_array_foreach(names, i, item) {
		r = remove_one(&wish, json_string_value(item), removal, i);
		if (r < 0)
			append_failure(&failed, i, r);
	}
	r = give_failed(ret, failed);
	if (r == 0 && removal->pending > 1) {
		attr_hold(&removal->wait, wait);
		r = TREE_LATER;
	}
	removal_put(removal);
	return r;
}
