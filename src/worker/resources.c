/* SPDX-License-Identifier: MIT */
/*
 * Resources of a running member. The slot in the member's state is the truth: it is complete before
 * its descriptor is stored and the descriptor is closed after the slot gave it up, so a successor
 * finds each either wholly there or not at all. A frame that a death interrupted is executed again.
 *
 * A medium goes in steps: its slot says that it leaves, the device half is told, the frame is
 * committed with the RES_DONE that is owed, and when the last request has ended the descriptor is
 * closed and RES_DONE is said.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "media/media.h"
#include "queue/queue.h"
#include "worker/internal.h"

#define FRAME_MAX 64

/* By name, or (NULL) a free one. */
static struct worker_resource *find_slot(struct worker_member_shared *m, const char *name)
{
	for (unsigned i = 0; i < MW_MAX_RESOURCES; i++) {
		struct worker_resource *r = &m->resources[i];

		if (name ? r->fd >= 0 && !strcmp(r->name, name) : r->fd < 0)
			return r;
	}
	return NULL;
}

static void on_leaving(struct loop_defer *defer)
{
	struct worker *w = container_of(defer, struct worker, leaving);

	resources_release(w);
	channel_serve(w);
}

void resource_leaves(struct umdev_device *dev)
{
	struct member *m = container_of(dev, struct member, dev);

	loop_defer(&m->worker->loop, &m->worker->leaving, on_leaving);
}

int resource_attach(struct member *m, struct worker_resource *r)
{
	int medium = r->medium, error;

	error = device_add_resource(&m->dev, r->name, r->fd, r->flags, r->offset, r->length,
				    &medium);
	if (error)
		return error;
	r->medium = medium;
	if (r->leaves) {
		m->dev.media_list[medium].leaves = true;
		resource_leaves(&m->dev);
	}
	return 0;
}

struct resource_change {
	const char *name;
	enum umdev_resource_change what;
};

static int run_resource_hook(struct umdev_device *dev, void *arg)
{
	const struct resource_change *change = arg;

	dev->type->ops->resource(dev, change->name, change->what);
	return 0;
}

/* Of a medium. */
static void tell_device(struct member *m, const char *name, enum umdev_resource_change what)
{
	struct resource_change change = { .name = name, .what = what };

	if (m->dev.type->ops->resource)
		vfio_server_event(m->dev.vfio, run_resource_hook, &change);
}

static void commit_done(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg,
			int error)
{
	struct worker_half *next = worker_begin(w);
	uint8_t frame[FRAME_MAX];

	channel_say(w, next, frame,
		    mw_put_res_done(frame, sizeof(frame), f->member, f->serial, -error));
	commit_frame(w, next, msg);
}

/* ---- add ---- */

/* 0, or what is wrong with it; fd is the slot's then, else the caller's. */
static int add(struct member *m, const struct mw_resource *res, int fd)
{
	struct worker_resource *slot = find_slot(m->shared, NULL);
	int error;

	if (!slot)
		return -ENOSPC;
	if (res->flags & UMDEV_RES_MEDIUM && !m->dev.media && !m->dev.queues)
		return -EOPNOTSUPP;
	*slot = (struct worker_resource){
		.fd = -1,
		.medium = -1,
		.flags = res->flags,
		.offset = res->offset,
		.length = res->length,
	};
	strcpy(slot->name, res->name);
	ab_barrier();
	slot->fd = fd;
	error = resource_attach(m, slot);
	if (error)
		slot->fd = -1;
	return error;
}

/* Streams belong to a running device and do not change under it. */
int exec_res_add(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct member *m = &w->members[f->member];
	struct worker_resource *slot;
	struct mw_resource res;
	int fd = msg->fds[0], error = mw_get_res_add(f, &res);

	if (error)
		return error;
	if (res.flags & UMDEV_RES_STREAM)
		return -EPROTO;
	slot = find_slot(m->shared, res.name);
	if (slot && slot->leaves)
		error = -EBUSY;
	else if (!slot)
		error = add(m, &res, fd);
	if (!error && res.flags & UMDEV_RES_MEDIUM)
		tell_device(m, res.name, UMDEV_RESOURCE_ADDED);
	slot = find_slot(m->shared, res.name);
	commit_done(w, f, msg, error);
	if (!slot || slot->fd != fd)
		close(fd);
	return 0;
}

/* ---- remove ---- */

static bool is_leaving(const struct member *m)
{
	for (unsigned i = 0; i < MW_MAX_RESOURCES; i++)
		if (m->shared->resources[i].fd >= 0 && m->shared->resources[i].leaves)
			return true;
	return false;
}

static void release(struct member *m, struct worker_resource *slot)
{
	int fd = slot->fd;

	device_remove_resource(&m->dev, slot->name);
	slot->fd = -1;
	close(fd);
}

static void release_member(struct worker *w, struct member *m)
{
	struct worker_half *next;
	uint8_t frame[FRAME_MAX];

	for (unsigned i = 0; i < MW_MAX_RESOURCES; i++) {
		struct worker_resource *slot = &m->shared->resources[i];

		if (slot->fd >= 0 && slot->leaves &&
		    (!m->dev.media || media_is_idle(&m->dev, (unsigned)slot->medium)) &&
		    queues_medium_is_idle(&m->dev, (unsigned)slot->medium))
			release(m, slot);
	}
	if (!w->half->res_del[m->index] || is_leaving(m))
		return;
	next = worker_begin(w);
	if (!channel_say(w, next, frame,
			 mw_put_res_done(frame, sizeof(frame), m->index, next->res_del[m->index],
					 0)) &&
	    w->shared->channel.fd >= 0)
		return; /* no room now: again when the manager has read */
	next->res_del[m->index] = 0;
	worker_commit(w);
}

void resources_release(struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++)
		release_member(w, &w->members[i]);
}

int exec_res_del(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct member *m = &w->members[f->member];
	struct worker_resource *slot;
	struct worker_half *next;
	char name[32];
	int error = mw_get_res_del(f, name);

	if (error)
		return error;
	if (!f->serial || w->half->res_del[f->member])
		return -EPROTO; /* one at a time */
	slot = find_slot(m->shared, name);
	if (slot && slot->flags & UMDEV_RES_STREAM)
		return -EPROTO;
	if (slot && slot->medium < 0)
		release(m, slot);
	if (!slot || slot->fd < 0) {
		commit_done(w, f, msg, 0);
		return 0;
	}
	slot->leaves = 1;
	tell_device(m, name, UMDEV_RESOURCE_REMOVED);
	m->dev.media_list[slot->medium].leaves = true;
	next = worker_begin(w);
	next->res_del[f->member] = f->serial;
	commit_frame(w, next, msg);
	resource_leaves(&m->dev);
	return 0;
}

/* ---- resize ---- */

int exec_res_size(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct member *m = &w->members[f->member];
	struct worker_resource *slot;
	struct device_medium *medium;
	uint64_t length;
	char name[32];
	int error = mw_get_res_size(f, name, &length);

	if (error)
		return error;
	slot = find_slot(m->shared, name);
	if (!slot || slot->medium < 0 || slot->leaves) {
		commit_done(w, f, msg, -ENOENT);
		return 0;
	}
	medium = &m->dev.media_list[slot->medium];
	if (length < slot->length || length > INT64_MAX - slot->offset) {
		commit_done(w, f, msg, -EINVAL);
		return 0;
	}
	slot->length = length;
	device_find_resource(&m->dev, name)->length = length;
	medium->length = length;
	tell_device(m, name, UMDEV_RESOURCE_RESIZED);
	commit_done(w, f, msg, 0);
	return 0;
}
