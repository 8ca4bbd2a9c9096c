/* SPDX-License-Identifier: MIT */
/*
 * Volumes as namespaces of controllers: in the model, and in the worker that serves one.
 *
 * FREE -> IDLE (attach) -> SERVED when a worker starts; or WAITING first, where somebody else has
 * the lock and the device is `incoming`. A namespace that comes to a served device is SENDING until
 * the worker has answered; one that goes is LEAVING until the worker holds nothing of it. When the
 * worker ends all of them are IDLE, and what was LEAVING is FREE.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "disk_parent.h"

static unsigned nsid_of(const struct namespace *ns)
{
	return (unsigned)(ns - ns->controller->ns) + 1;
}

static void resource_name(const struct namespace *ns, char buf[16])
{
	snprintf(buf, 16, DISK_MEDIUM_FORMAT, nsid_of(ns));
}

static bool is_incoming(const struct controller *c)
{
	return umdev_mdev_param(c->mdev, "incoming")->u64;
}

/* ---- in the model ---- */

struct namespace *namespace_of(struct controller *c, const char *volume)
{
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES; i++)
		if (c->ns[i].volume && strcmp(c->ns[i].volume->name, volume) == 0)
			return &c->ns[i];
	return NULL;
}

static int refuse_attached(const struct volume *v, const char *uuid)
{
	umdev_explain("volume %s is attached to %s: detach it there (unassign_namespace), or give "
		      "read_only=yes to both",
		      v->name, uuid);
	return -EBUSY;
}

static int check_attach(const struct controller *c, const struct volume *v)
{
	if (v->state == VOLUME_BROKEN) {
		umdev_explain("volume %s is damaged: its record or its bytes are missing", v->name);
		return -EIO;
	}
	if (v->state != VOLUME_READY && v->state != VOLUME_GROWING) {
		umdev_explain("volume %s is being made, made smaller or deleted; wait for it",
			      v->name);
		return -EBUSY;
	}
	for (const struct namespace *ns = v->namespaces; ns; ns = ns->next) {
		const struct controller *other = ns->controller;

		if (other == c ||
		    (!(disk_is_read_only(c->mdev) && disk_is_read_only(other->mdev)) &&
		     !is_incoming(c) && !is_incoming(other)))
			return refuse_attached(v, umdev_mdev_uuid(other->mdev));
	}
	return 0;
}

int namespace_attach(struct controller *c, unsigned slot, struct volume *v)
{
	int r = check_attach(c, v);

	if (r < 0)
		return r;
	if (slot == NAMESPACE_ANY)
		for (slot = 0; slot < DISK_MAX_NAMESPACES && c->ns[slot].volume;)
			slot++;
	if (slot == DISK_MAX_NAMESPACES) {
		umdev_explain("%s has %d namespaces, more cannot be", umdev_mdev_uuid(c->mdev),
			      DISK_MAX_NAMESPACES);
		return -ENOSPC;
	}
	c->ns[slot].volume = v;
	c->ns[slot].state = NS_IDLE;
	c->ns[slot].next = v->namespaces;
	v->namespaces = &c->ns[slot];
	return 0;
}

void namespace_detach(struct namespace *ns)
{
	struct namespace **at = &ns->volume->namespaces;

	while (*at != ns)
		at = &(*at)->next;
	*at = ns->next;
	ns->volume = NULL;
	ns->state = NS_FREE;
}

static void detach_all(struct controller *c)
{
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES; i++)
		if (c->ns[i].volume)
			namespace_detach(&c->ns[i]);
}

int namespaces_replace(struct controller *c, const char *list)
{
	const char *uuid = umdev_mdev_uuid(c->mdev),
		   *old = umdev_mdev_param(c->mdev, "volume")->text;
	bool own = namespace_of(c, uuid);
	int r;

	detach_all(c);
	r = namespaces_attach(c, 0, list);
	if (r == 0 && own && !namespace_of(c, uuid)) {
		umdev_explain("volume: the device's own, %s, must stay among them", uuid);
		r = -EINVAL;
	}
	if (r < 0) {
		detach_all(c);
		namespaces_attach(c, 0, old); /* as it was: it was possible before */
	}
	return r;
}

int namespaces_judge_access(const struct controller *c, bool read_only)
{
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES && !read_only; i++) {
		const struct volume *v = c->ns[i].volume;

		for (const struct namespace *ns = v ? v->namespaces : NULL; ns; ns = ns->next)
			if (ns->controller != c && !is_incoming(c))
				return refuse_attached(v, umdev_mdev_uuid(ns->controller->mdev));
	}
	return 0;
}

int namespaces_attach(struct controller *c, unsigned first, const char *list)
{
	char name[VOLUME_NAME];
	struct volume *v;
	int r = 0;

	for (unsigned i = first; *list && r == 0; i++) {
		size_t len = strcspn(list, ":");

		if (i >= DISK_MAX_NAMESPACES || len >= sizeof(name)) {
			umdev_explain("volume: at most %d names with ':' between them",
				      DISK_MAX_NAMESPACES);
			return -EINVAL;
		}
		memcpy(name, list, len);
		name[len] = '\0';
		list += len + (list[len] == ':');
		if (!len)
			continue;
		v = store_find(c->store, name);
		if (!v) {
			umdev_explain("%s has no volume %s: `umdev volume list` shows what it has",
				      umdev_parent_name(c->store->parent), name);
			return -ENOENT;
		}
		r = namespace_attach(c, i, v);
	}
	return r;
}

int namespaces_tell(struct controller *c)
{
	char text[DISK_MAX_NAMESPACES * VOLUME_NAME] = "";
	unsigned end = DISK_MAX_NAMESPACES;
	size_t at = 0;

	while (end && (!c->ns[end - 1].volume || c->ns[end - 1].state == NS_LEAVING))
		end--;
	for (unsigned i = 0; i < end; i++) {
		const struct volume *v = c->ns[i].state == NS_LEAVING ? NULL : c->ns[i].volume;

		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", i ? ":" : "",
				       v ? v->name : "");
	}
	if (at < UMDEV_VALUE_TEXT)
		return umdev_mdev_param_follows(c->mdev, "volume", text);
	umdev_explain("the names of its volumes are longer than %d bytes together",
		      UMDEV_VALUE_TEXT - 1);
	return -ENAMETOOLONG;
}

/* ---- with a worker ---- */

static uint32_t flags_of(const struct controller *c)
{
	return UMDEV_RES_MEDIUM | UMDEV_RES_READ |
	       (disk_is_read_only(c->mdev) ? 0 : UMDEV_RES_WRITE);
}

/* Its bytes with the lock; -EBUSY: somebody else has it, and *ret_waits the bytes without. */
static int open_locked(const struct namespace *ns, int *ret_waits)
{
	bool read_only = disk_is_read_only(ns->controller->mdev);
	_cleanup_close_ int fd = volume_open(ns->volume, !read_only);
	int error;

	if (fd < 0)
		return fd;
	if (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
		return take_fd(&fd);
	error = errno;
	if (error != EWOULDBLOCK)
		return disk_failed(-error, "lock of volume", ns->volume->name);
	*ret_waits = take_fd(&fd);
	umdev_explain("volume %s is in use by another device or program: wait until it is "
		      "released, or give this device incoming=yes",
		      ns->volume->name);
	return -EBUSY;
}

static void lock_done(struct umdev_job *job, int error);

/* Takes fd. */
static int wait_for_lock(struct namespace *ns, int fd)
{
	const char *args[] = { "lock", disk_is_read_only(ns->controller->mdev) ? "shared" : "alone",
			       NULL };
	int r;

	ns->lock_job.done = lock_done;
	r = umdev_job_start(ns->controller->store->parent, &ns->lock_job, args, &fd, 1);
	if (r < 0) {
		close(fd);
		return r;
	}
	ns->lock_fd = fd;
	ns->state = NS_WAITING;
	return 0;
}

/* 1: the worker is asked, 0: there is none. Takes fd. */
static int send(struct namespace *ns, int fd)
{
	char name[16];
	int r;

	resource_name(ns, name);
	r = umdev_resource_send(ns->controller->mdev, name, fd, flags_of(ns->controller), 0,
				ns->volume->size);
	if (r == 1)
		ns->state = NS_SENDING;
	return r;
}

static void lock_done(struct umdev_job *job, int error)
{
	struct namespace *ns =
		(struct namespace *)((char *)job - offsetof(struct namespace, lock_job));
	int fd = take_fd(&ns->lock_fd);

	ns->state = NS_IDLE;
	if (error < 0)
		close(fd);
	else
		error = send(ns, fd);
	if (error < 0)
		umdev_answer(&ns->wait, disk_failed(error, "lock of volume", ns->volume->name));
	else if (error == 0)
		umdev_answer(&ns->wait, 0);
}

static void stop_waiting(struct namespace *ns)
{
	if (ns->state != NS_WAITING)
		return;
	umdev_job_cancel(ns->controller->store->parent, &ns->lock_job);
	close(take_fd(&ns->lock_fd));
	ns->state = NS_IDLE;
}

void namespace_grown(struct namespace *ns)
{
	struct controller *c = ns->controller;
	char text[24], name[16];

	resource_name(ns, name);
	if (ns->state == NS_SENDING || ns->state == NS_SERVED)
		umdev_resource_grow(c->mdev, name, ns->volume->size);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)ns->volume->size);
	if (strcmp(ns->volume->name, umdev_mdev_uuid(c->mdev)) == 0)
		umdev_mdev_param_follows(c->mdev, "capacity", text);
}

void namespace_grow_null(struct controller *c, uint64_t size)
{
	char name[16];

	resource_name(&c->ns[0], name);
	umdev_resource_grow(c->mdev, name, size);
}

/* ---- hooks ---- */

static int add_null(struct controller *c, struct umdev_resources *list)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	char name[16];

	if (fd < 0)
		return disk_failed(-errno, "medium", "/dev/null");
	resource_name(&c->ns[0], name);
	return umdev_resource_add(list, name, fd, flags_of(c), 0,
				  umdev_mdev_param(c->mdev, "capacity")->u64);
}

static int add_volume(struct namespace *ns, struct umdev_resources *list)
{
	int fd, waits = -1, r;
	char name[16];

	fd = open_locked(ns, &waits);
	if (fd == -EBUSY && is_incoming(ns->controller))
		return wait_for_lock(ns, waits);
	if (waits >= 0)
		close(waits);
	if (fd < 0)
		return fd;
	resource_name(ns, name);
	r = umdev_resource_add(list, name, fd, flags_of(ns->controller), 0, ns->volume->size);
	if (r == 0)
		ns->state = NS_SERVED;
	return r;
}

int disk_resources(struct umdev_mdev *mdev, struct umdev_resources *list)
{
	struct controller *c = umdev_mdev_priv(mdev);
	int r = 0;

	c->served = true;
	if (disk_is_null(mdev) && umdev_mdev_param(mdev, "capacity")->u64)
		r = add_null(c, list);
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES && r == 0; i++)
		if (c->ns[i].volume)
			r = add_volume(&c->ns[i], list);
	if (r < 0)
		disk_resources_end(mdev);
	return r;
}

void disk_resources_end(struct umdev_mdev *mdev)
{
	struct controller *c = umdev_mdev_priv(mdev);

	c->served = false;
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES; i++) {
		stop_waiting(&c->ns[i]);
		if (c->ns[i].volume)
			c->ns[i].state = NS_IDLE;
		umdev_answer(&c->ns[i].wait, 0); /* the next worker is given it */
	}
}

static void sent(struct namespace *ns, int error)
{
	if (error == 0 || error == -ENOTCONN) {
		ns->state = error == 0 ? NS_SERVED : NS_IDLE;
		umdev_answer(&ns->wait, 0);
		return;
	}
	namespace_detach(ns);
	namespaces_tell(ns->controller);
	umdev_answer(&ns->wait, disk_failed(error, "namespace is refused by",
					    umdev_mdev_uuid(ns->controller->mdev)));
}

void disk_resource_done(struct umdev_mdev *mdev, enum umdev_resource_call call, const char *name,
			int error)
{
	struct controller *c = umdev_mdev_priv(mdev);
	struct namespace *ns;
	unsigned nsid;

	if (sscanf(name, DISK_MEDIUM_FORMAT, &nsid) != 1 || nsid < 1 || nsid > DISK_MAX_NAMESPACES)
		return;
	ns = &c->ns[nsid - 1];
	/* Others are of disk_resources_resume: nobody waits for them. */
	if (call == UMDEV_RES_SEND && ns->state == NS_SENDING) {
		sent(ns, error);
	} else if (call == UMDEV_RES_WITHDRAW && ns->state == NS_LEAVING) {
		namespace_detach(ns);
		umdev_answer(&ns->wait, 0);
	}
}

/* The worker has what the manager before gave it, and with it the lock. What it lacks is not
 * locked, unless by somebody else. */
void disk_resources_resume(struct umdev_mdev *mdev)
{
	struct controller *c = umdev_mdev_priv(mdev);
	char name[16];

	c->served = true;
	for (unsigned i = 0; i < DISK_MAX_NAMESPACES; i++) {
		struct namespace *ns = &c->ns[i];
		int fd, waits = -1;

		resource_name(ns, name);
		if (!ns->volume) {
			if (!disk_is_null(mdev))
				umdev_resource_withdraw(mdev, name);
			continue;
		}
		fd = open_locked(ns, &waits);
		if (fd >= 0) {
			send(ns, fd);
			continue;
		}
		ns->state = NS_SERVED;
		umdev_resource_grow(mdev, name, ns->volume->size);
		if (waits >= 0 && is_incoming(c))
			wait_for_lock(ns, waits);
		else if (waits >= 0)
			close(waits);
	}
}

/* ---- composition ---- */

/* A volume's name, with or without a newline, which is in ret then. */
static int take_name(const char *text, size_t len, char ret[VOLUME_NAME])
{
	len -= len && text[len - 1] == '\n';
	if (len && len < VOLUME_NAME && !memchr(text, '\n', len)) {
		memcpy(ret, text, len);
		ret[len] = '\0';
		return 0;
	}
	umdev_explain("expected the name of one volume");
	return -EINVAL;
}

/* The worker that serves is given it: as disk_resources would. 1: it is waited for. */
static int hand_over(struct namespace *ns)
{
	int fd, waits = -1;

	fd = open_locked(ns, &waits);
	if (fd >= 0)
		return send(ns, fd);
	if (fd == -EBUSY && is_incoming(ns->controller)) {
		fd = wait_for_lock(ns, waits);
		return fd < 0 ? fd : 1;
	}
	if (waits >= 0)
		close(waits);
	return fd;
}

int namespace_assign(struct controller *c, struct volume *v)
{
	struct namespace *ns;
	int r = namespace_attach(c, NAMESPACE_ANY, v);

	if (r < 0)
		return r;
	ns = namespace_of(c, v->name);
	/* First: a restart must not know less than the worker. */
	r = namespaces_tell(c);
	if (r == 0 && c->served)
		r = hand_over(ns);
	if (r < 0) {
		namespace_detach(ns);
		namespaces_tell(c);
	}
	return r;
}

static int assign_store(const struct umdev_place *place, const char *text, size_t len,
			struct attr_wait *wait)
{
	struct controller *c = umdev_mdev_priv(place->mdev);
	char name[VOLUME_NAME];
	struct volume *v;
	int r = take_name(text, len, name);

	if (r < 0)
		return r;
	v = store_find(c->store, name);
	if (!v || disk_is_null(c->mdev)) {
		umdev_explain("%s has no volume %s%s", umdev_parent_name(place->parent), name,
			      v ? " for a device with media=null" : "");
		return v ? -EINVAL : -ENOENT;
	}
	r = namespace_assign(c, v);
	if (r == 1)
		umdev_answer_hold(&namespace_of(c, name)->wait, wait);
	return r == 1 ? UMDEV_LATER : r;
}

static int unassign_store(const struct umdev_place *place, const char *text, size_t len,
			  struct attr_wait *wait)
{
	struct controller *c = umdev_mdev_priv(place->mdev);
	char name[VOLUME_NAME], resource[16];
	struct namespace *ns;
	int r = take_name(text, len, name);

	if (r < 0)
		return r;
	ns = namespace_of(c, name);
	if (!ns || ns->state == NS_LEAVING) {
		umdev_explain("volume %s is no namespace of %s", name, umdev_mdev_uuid(c->mdev));
		return -ENOENT;
	}
	if (strcmp(name, umdev_mdev_uuid(c->mdev)) == 0) {
		umdev_explain("volume %s is the device's own: it goes with it", name);
		return -EPERM;
	}
	if (ns->state == NS_SENDING || ns->wait) {
		umdev_explain("volume %s is just being assigned; wait for it", name);
		return -EBUSY;
	}
	stop_waiting(ns);
	resource_name(ns, resource);
	r = c->served ? umdev_resource_withdraw(c->mdev, resource) : 0;
	if (r < 0)
		return r;
	ns->state = NS_LEAVING;
	if (r == 0)
		namespace_detach(ns);
	else
		umdev_answer_hold(&ns->wait, wait);
	namespaces_tell(c);
	return r == 0 ? 0 : UMDEV_LATER;
}

static int namespaces_show(const struct umdev_place *place, char *buf, size_t size)
{
	static const char *const states[] = {
		[NS_FREE] = "",          [NS_IDLE] = "idle",     [NS_WAITING] = "waiting",
		[NS_SENDING] = "coming", [NS_SERVED] = "served", [NS_LEAVING] = "leaving",
	};
	const struct controller *c = umdev_mdev_priv(place->mdev);
	size_t at = 0;

	for (unsigned i = 0; i < DISK_MAX_NAMESPACES && at < size; i++)
		if (c->ns[i].volume)
			at += (size_t)snprintf(buf + at, size - at, "%u %s %llu %s\n", i + 1,
					       c->ns[i].volume->name,
					       (unsigned long long)c->ns[i].volume->size,
					       states[c->ns[i].state]);
	return (int)(at < size ? at : size);
}

const struct umdev_attr namespace_attrs[] = {
	{ .name = "assign_namespace", .mode = 0200, .store = assign_store },
	{ .name = "namespaces", .mode = 0444, .show = namespaces_show },
	{ .name = "unassign_namespace", .mode = 0200, .store = unassign_store },
	{ .name = NULL },
};
