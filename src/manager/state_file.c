/* SPDX-License-Identifier: MIT */
/* State files as text; state_file.h shows one. */
#include "manager/state_file.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include "core/group.h"

#define VERSION 1

static void json_freep(json_t **json)
{
	json_decref(*json);
}
#define _cleanup_json_ _cleanup_(json_freep)

/* ---- out ---- */

/* Adds value (taken; NULL: no memory). After a failure nothing matters any more. */
static void put(json_t *object, const char *key, json_t *value, bool *bad)
{
	*bad |= json_object_set_new(object, key, value) < 0;
}

/* Those that were given, and the group that the core chose. */
static json_t *parameters(const struct umdev_mdev *mdev)
{
	const struct core_type *info = mdev->type->info;
	json_t *map = json_object();
	bool bad = !map;

	for (unsigned i = 0; i < info->n_params && !bad; i++)
		if ((int)i == info->p2p || mdev->params_set & UINT32_C(1) << i)
			put(map, info->params[i]->name, json_string(mdev_param(mdev, i)->text),
			    &bad);
	if (bad)
		json_decref(map);
	return bad ? NULL : map;
}

static json_t *pending(const struct umdev_mdev *mdev)
{
	const char *name = mdev->type->info->params[mdev->param_pending]->name;

	return json_pack("{s:s}", name, mdev->param_value->text);
}

static json_t *owner(const struct umdev_mdev *mdev)
{
	const struct sock_peer *peer = &mdev->group->owner;

	return json_pack("{s:I, s:I, s:I}", "pid", (json_int_t)peer->pid, "uid",
			 (json_int_t)peer->uid, "start", (json_int_t)peer->start);
}

static json_t *worker_json(const struct worker_record *w)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:b}", "messages", (json_int_t)w->messages,
			 "group", (json_int_t)w->group, "pid", (json_int_t)w->pid, "start",
			 (json_int_t)w->start, "member", (json_int_t)w->member, "stopping",
			 (int)w->stopping);
}

static json_t *describe(const struct umdev_mdev *mdev, const struct worker_record *worker)
{
	json_t *json = json_pack("{s:i, s:s, s:s, s:I}", "version", VERSION, "parent",
				 mdev->parent->name, "type", mdev->type->info->name, "order",
				 (json_int_t)mdev->order);
	bool bad = !json;

	put(json, "parameters", parameters(mdev), &bad);
	if (mdev->param_value && !mdev->param_checking)
		put(json, "pending", pending(mdev), &bad);
	if (mdev->bound)
		put(json, "bound",
		    json_pack("{s:I, s:I}", "group", (json_int_t)mdev->group->number, "vfio",
			      (json_int_t)mdev->vfio_number),
		    &bad);
	if (mdev->lease_pid)
		put(json, "lease",
		    json_pack("{s:I, s:I}", "pid", (json_int_t)mdev->lease_pid, "start",
			      (json_int_t)mdev->lease_start),
		    &bad);
	if (mdev->opened)
		put(json, "opened", json_true(), &bad);
	if (mdev->started)
		put(json, "started", json_true(), &bad);
	if (mdev->state == MDEV_REMOVING)
		put(json, "removing", json_true(), &bad);
	if (mdev->state == MDEV_FAILED)
		put(json, "failed", json_string(mdev->fail_text ? mdev->fail_text : ""), &bad);
	if (mdev->connected)
		put(json, "owner", owner(mdev), &bad);
	if (worker)
		put(json, "worker", worker_json(worker), &bad);
	if (bad)
		json_decref(json);
	return bad ? NULL : json;
}

char *device_state_encode(const struct umdev_mdev *mdev, const struct worker_record *worker)
{
	_cleanup_json_ json_t *json = describe(mdev, worker);

	return json ? json_dumps(json, JSON_COMPACT) : NULL;
}

/* ---- in ---- */

/* A number from 0 to max, or *bad. */
static uint64_t number(const json_t *object, const char *key, uint64_t max, bool *bad)
{
	const json_t *value = json_object_get(object, key);
	json_int_t n = json_integer_value(value);

	*bad |= !json_is_integer(value) || n < 0 || (uint64_t)n > max;
	return *bad ? 0 : (uint64_t)n;
}

/* A truth that is false when it is not there. */
static bool truth(const json_t *object, const char *key, bool *bad)
{
	const json_t *value = json_object_get(object, key);

	*bad |= value && !json_is_boolean(value);
	return json_is_true(value);
}

/* At most max pairs of an object that may be missing; returns how many. */
static unsigned settings(const json_t *object, const char *key, unsigned max,
			 struct core_setting *ret, bool *bad)
{
	json_t *map = json_object_get(object, key), *value;
	const char *name;
	unsigned n = 0;

	*bad |= map && (!json_is_object(map) || json_object_size(map) > max);
	if (*bad)
		return 0;
	json_object_foreach(map, name, value) {
		*bad |= !json_is_string(value);
		ret[n++] = (struct core_setting){ name, json_string_value(value) };
	}
	return n;
}

static void decode_bound(const json_t *json, struct mdev_saved *saved, bool *bad)
{
	const json_t *bound = json_object_get(json, "bound");

	saved->bound = bound;
	if (!bound)
		return;
	saved->group = (uint32_t)number(bound, "group", UINT32_MAX - 1, bad);
	saved->vfio = (uint32_t)number(bound, "vfio", UINT32_MAX - 1, bad);
}

static void decode_lease(const json_t *json, struct mdev_saved *saved, bool *bad)
{
	const json_t *lease = json_object_get(json, "lease");

	if (!lease)
		return;
	saved->lease_pid = (pid_t)number(lease, "pid", INT_MAX, bad);
	saved->lease_start = number(lease, "start", INT64_MAX, bad);
	*bad |= saved->lease_pid < 1;
}

/* A client holds a device that is bound and served, and only such a one. */
static void decode_service(const json_t *json, struct device_state *s, bool *bad)
{
	const json_t *peer = json_object_get(json, "owner");
	const json_t *w = json_object_get(json, "worker");

	s->connected = peer;
	s->has_worker = w;
	if (peer)
		s->owner = (struct sock_peer){
			.pidfd = -1,
			.pid = (pid_t)number(peer, "pid", INT_MAX, bad),
			.uid = (uid_t)number(peer, "uid", UINT32_MAX, bad),
			.start = number(peer, "start", INT64_MAX, bad),
		};
	if (w)
		s->worker = (struct worker_record){
			.messages = (uint32_t)number(w, "messages", UINT32_MAX, bad),
			.group = (uint32_t)number(w, "group", UINT32_MAX - 1, bad),
			.pid = (pid_t)number(w, "pid", INT_MAX, bad),
			.start = number(w, "start", INT64_MAX, bad),
			.member = (unsigned)number(w, "member", MW_MAX_MEMBERS - 1, bad),
			.stopping = truth(w, "stopping", bad),
		};
	/* 0 and 1 are nobody that we ever started, and must never be signalled. */
	*bad |= w && s->worker.pid < 2;
	*bad |= (peer && !w) || (w && !s->saved.bound);
}

static void decode_texts(json_t *json, struct device_state *s, bool *bad)
{
	json_t *failed = json_object_get(json, "failed");

	s->parent = json_string_value(json_object_get(json, "parent"));
	s->type = json_string_value(json_object_get(json, "type"));
	s->saved.failed = json_string_value(failed);
	*bad |= !s->parent || !s->type || (failed && !s->saved.failed);
	s->saved.n_settings = settings(json, "parameters", CORE_MAX_PARAMS, s->saved.settings, bad);
	settings(json, "pending", 1, &s->saved.pending, bad);
}

static const char *decode(json_t *json, struct device_state *s)
{
	bool bad = false;

	if (!json_is_object(json) || number(json, "version", INT_MAX, &bad) != VERSION)
		return "it is not of the version that this umdevd writes";
	decode_texts(json, s, &bad);
	decode_bound(json, &s->saved, &bad);
	decode_lease(json, &s->saved, &bad);
	decode_service(json, s, &bad);
	s->saved.order = number(json, "order", INT64_MAX, &bad);
	s->saved.opened = truth(json, "opened", &bad);
	s->saved.started = truth(json, "started", &bad);
	s->removing = truth(json, "removing", &bad);
	bad |= s->connected && s->saved.failed;
	bad |= s->saved.started && (s->saved.failed || s->removing || !s->saved.bound);
	return bad ? "it is not what umdevd writes" : NULL;
}

const char *device_state_decode(const char *text, size_t len, struct device_state *ret)
{
	_cleanup_json_ json_t *json = NULL;
	struct device_state s = { 0 };
	json_error_t error;
	const char *why;

	if (len > STATE_FILE_MAX)
		return "it is too long";
	json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		return "it is no JSON";
	why = decode(json, &s);
	if (why)
		return why;
	s.json = TAKE(json);
	*ret = s;
	return NULL;
}

void device_state_fini(struct device_state *s)
{
	json_decref(TAKE(s->json));
}
