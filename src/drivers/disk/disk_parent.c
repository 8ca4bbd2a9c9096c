/* SPDX-License-Identifier: MIT */
/*
 * disk, parent half: a store of volumes and a number of I/O queue pairs become controllers.
 *
 * A device with capacity= has a volume of its own, named by its UUID. It goes with the device, or,
 * if the device is defined, with its definition. One that is left over (its definition was deleted
 * behind our back, the machine was restarted without one) is an orphan: it is shown, and neither
 * deleted nor given to a device by itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include "disk_parent.h"

static const struct umdev_param store = {
	.name = "store",
	.description = "directory in which each volume is a file",
	.type = UMDEV_STRING,
};
static const struct umdev_param devices = {
	.name = "devices",
	.description = "block devices that are a volume each: absolute paths, ':' between them",
	.type = UMDEV_STRING,
};
static const struct umdev_param queue_pairs = {
	.name = "queue_pairs",
	.description = "I/O queue pairs that its devices share",
	.unit = "queue-pairs",
	.def = "256",
	.min = 1,
	.max = 1 << 20,
	.type = UMDEV_U32,
};
static const struct umdev_param *const params[] = { &store, &devices, &queue_pairs, NULL };

int disk_failed(int error, const char *what, const char *name)
{
	umdev_explain("%s %s: %s", what, name, strerror(-error));
	return error;
}

static int disk_add(struct umdev_parent *parent)
{
	struct store *s;
	int r = umdev_pool_resize(parent, DISK_POOL,
				  umdev_parent_param(parent, "queue_pairs")->u64);

	if (r == 0)
		r = store_open(parent, &s);
	if (r == 0)
		umdev_parent_set_priv(parent, s);
	return r;
}

static void disk_remove(struct umdev_parent *parent)
{
	store_close(umdev_parent_priv(parent));
}

/* ---- devices ---- */

static struct controller *controller_new(struct umdev_mdev *mdev)
{
	struct controller *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->mdev = mdev;
	c->store = umdev_parent_priv(umdev_mdev_parent(mdev));
	c->creating = true;
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES; i++) {
		c->ns[i].controller = c;
		c->ns[i].lock_fd = -1;
	}
	umdev_mdev_set_priv(mdev, c);
	return c;
}

static void controller_free(struct controller *c)
{
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES; i++)
		if (c->ns[i].volume)
			namespace_detach(&c->ns[i]);
	umdev_mdev_set_priv(c->mdev, NULL);
	free(c);
}

bool disk_is_null(const struct umdev_mdev *mdev)
{
	return strcmp(umdev_mdev_param(mdev, "media")->text, "null") == 0;
}

bool disk_is_read_only(const struct umdev_mdev *mdev)
{
	return umdev_mdev_param(mdev, "read_only")->u64;
}

static int check_store(const struct controller *c)
{
	if (c->store->kind != STORE_NONE)
		return 0;
	umdev_explain("%s has no store: it gives devices with media=null only; add a parent with "
		      "store=DIRECTORY or devices=PATH",
		      umdev_parent_name(c->store->parent));
	return -EINVAL;
}

static int refuse_null(void)
{
	umdev_explain("media=null goes with capacity=SIZE and no volume");
	return -EINVAL;
}

/* Its own volume is there, and as large as v says. */
static int take_own(struct controller *c, struct volume *v)
{
	char text[24];
	int r = 0;

	if (!namespace_of(c, v->name))
		r = c->creating ? namespace_attach(c, 0, v) : namespace_assign(c, v);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)v->size);
	if (r >= 0 && c->creating)
		r = namespaces_tell(c);
	return r < 0 ? r : umdev_mdev_param_follows(c->mdev, "capacity", text);
}

/* Its own volume becomes that large: 0; UMDEV_LATER: disk_volume_made; -errno */
static int make_own(struct controller *c, uint64_t capacity)
{
	const char *uuid = umdev_mdev_uuid(c->mdev);
	struct volume *v = store_find(c->store, uuid);
	bool attached = v && namespace_of(c, uuid);
	int r;

	if (v && volume_is_orphan(v)) {
		umdev_explain("an orphan volume %s is there: `umdev volume delete` it, or give the "
			      "device volume=%s",
			      uuid, uuid);
		return -EEXIST;
	}
	if (v && v->state == VOLUME_READY && v->size >= capacity && !attached)
		return take_own(c, v); /* the definition's, which may have grown */
	if (v) {
		r = volume_resize(v, capacity, NULL);
		if (r <= 0)
			return r < 0 ? r : take_own(c, v);
	} else {
		r = volume_make(c->store, uuid, capacity, umdev_mdev_param(c->mdev, "thin")->u64,
				&v);
		if (r < 0)
			return r;
	}
	v->maker = c->mdev;
	return UMDEV_LATER;
}

static int compose(struct controller *c)
{
	uint64_t capacity = umdev_mdev_param(c->mdev, "capacity")->u64;
	const char *volume = umdev_mdev_param(c->mdev, "volume")->text;
	bool own = capacity && !umdev_mdev_is_restored(c->mdev);
	int r = 0;

	if (disk_is_null(c->mdev))
		return *volume ? refuse_null() : 0;
	if (capacity || *volume)
		r = check_store(c);
	if (r == 0)
		r = namespaces_attach(c, own ? 1 : 0, volume);
	if (r == 0 && own)
		r = make_own(c, capacity);
	return r;
}

static int disk_mdev_create(struct umdev_mdev *mdev)
{
	struct controller *c = controller_new(mdev);
	int r = c ? disk_judge_params(mdev) : -ENOMEM;

	if (r == 0)
		r = compose(c);
	if (r < 0 && c)
		controller_free(c);
	if (r == 0)
		c->creating = false;
	return r;
}

void disk_volume_made(struct umdev_mdev *mdev, int error)
{
	struct controller *c = umdev_mdev_priv(mdev);

	if (error == 0)
		error = take_own(c, store_find(c->store, umdev_mdev_uuid(mdev)));
	if (!c->creating) {
		umdev_mdev_param_checked(mdev, error);
		return;
	}
	c->creating = false;
	if (error < 0)
		controller_free(c);
	umdev_mdev_created(mdev, error);
}

/* ---- changes of parameters ---- */

static int check_capacity(struct controller *c, uint64_t capacity)
{
	uint64_t old = umdev_mdev_param(c->mdev, "capacity")->u64;

	if (disk_is_null(c->mdev)) {
		if (c->served && (!old || capacity < old)) {
			umdev_explain("capacity: a null medium in use can only grow");
			return -EBUSY;
		}
		if (c->served)
			namespace_grow_null(c, capacity);
		return 0;
	}
	if (capacity < old) {
		umdev_explain("capacity: the device has its volume attached, which can only grow");
		return -EBUSY;
	}
	return check_store(c) < 0 ? -EINVAL : make_own(c, capacity);
}

static int check_media(struct controller *c, bool null)
{
	if (null && *umdev_mdev_param(c->mdev, "volume")->text)
		return refuse_null();
	if (!null && umdev_mdev_param(c->mdev, "capacity")->u64) {
		umdev_explain("media: set capacity=0 first");
		return -EINVAL;
	}
	return 0;
}

static int check_volume(struct controller *c, const char *list)
{
	if (disk_is_null(c->mdev) && *list)
		return refuse_null();
	return *list && check_store(c) < 0 ? -EINVAL : namespaces_replace(c, list);
}

static int disk_param_check(struct umdev_mdev *mdev, const struct umdev_param *param,
			    const struct umdev_value *value)
{
	struct controller *c = umdev_mdev_priv(mdev);
	int r = disk_judge_param(param, value);

	if (r < 0)
		return r;
	if (param->id == UMDEV_PARAM_CAPACITY)
		return check_capacity(c, value->u64);
	if (param->id == UMDEV_PARAM_READ_ONLY)
		return namespaces_judge_access(c, value->u64);
	if (strcmp(param->name, "media") == 0)
		return check_media(c, strcmp(value->text, "null") == 0);
	if (strcmp(param->name, "volume") == 0)
		return check_volume(c, value->text);
	return 0;
}

/* A volume of its own that nobody will ask for again. */
static void drop_own(struct store *s, const char *uuid)
{
	struct volume *v = store_find(s, uuid);

	if (!v || v->namespaces || umdev_is_defined(s->parent, uuid))
		return;
	if (v->state == VOLUME_READY)
		volume_delete(v, NULL);
	else if (v->state == VOLUME_MAKING) {
		umdev_job_cancel(s->parent, &v->job);
		volume_clean(v);
	}
}

static void disk_mdev_destroy(struct umdev_mdev *mdev)
{
	struct controller *c = umdev_mdev_priv(mdev);
	struct store *s = c->store;
	struct volume *v = store_find(s, umdev_mdev_uuid(mdev));
	bool own = v && (v->maker == mdev || namespace_of(c, v->name));

	if (v && v->maker == mdev)
		v->maker = NULL;
	controller_free(c);
	if (own)
		drop_own(s, umdev_mdev_uuid(mdev));
}

static void disk_undefined(struct umdev_parent *parent, const char *uuid)
{
	drop_own(umdev_parent_priv(parent), uuid);
}

static const struct umdev_pool pools[] = {
	{ .name = DISK_POOL, .capacity = 256 },
	{ .name = NULL },
};

static const struct umdev_folder folders[] = {
	{ .name = DISK_FOLDER, .attrs = volume_folder_attrs, .object_attrs = volume_attrs },
	{ .name = NULL },
};

const struct umdev_parent_driver disk_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "disk",
	.summary = "volumes of a directory or of block devices, as NVMe controllers",
	.types = disk_types,
	.pools = pools,
	.params = params,
	.folders = folders,
	.add = disk_add,
	.remove = disk_remove,
	.mdev_create = disk_mdev_create,
	.mdev_destroy = disk_mdev_destroy,
	.undefined = disk_undefined,
	.param_check = disk_param_check,
	.resources = disk_resources,
	.resources_end = disk_resources_end,
	.resource_done = disk_resource_done,
	.resources_resume = disk_resources_resume,
};
