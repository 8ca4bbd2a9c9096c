/* SPDX-License-Identifier: MIT */
/*
 * Resources of a device while its worker runs: the changes that a driver asked for go to the worker
 * one after the other, per member, when it is READY; each is answered once. A worker that ends
 * answers them all: nobody holds anything then.
 *
 * Taking a medium back has no deadline: it is answered when the last request has ended, and a
 * worker that hangs is its keeper's business.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/str.h"
#include "core/core.h"
#include "manager/worker_proc.h"

/* Owned by the member's list. The first one may be under way. */
struct change {
	struct list_node node;
	char name[32];
	struct core_resource what;
};

static int encode(const struct worker_member *member, const struct change *c, uint8_t *frame,
		  size_t size)
{
	unsigned index = (unsigned)(member - member->worker->members);
	struct mw_resource res = { .flags = c->what.flags, .offset = c->what.offset };

	switch (c->what.call) {
	case UMDEV_RES_WITHDRAW:
		return mw_put_res_del(frame, size, index, member->res_serial, c->name);
	case UMDEV_RES_GROW:
		return mw_put_res_size(frame, size, index, member->res_serial, c->name,
				       c->what.length);
	case UMDEV_RES_SEND:
		break;
	}
	res.length = c->what.length;
	memcpy(res.name, c->name, sizeof(res.name));
	return mw_put_res_add(frame, size, index, member->res_serial, &res);
}

void worker_resources_go_on(struct worker_member *member)
{
	struct worker *w = member->worker;
	struct change *c;
	uint8_t frame[128];
	int fd;

	if (w->state != MW_READY || member->res_serial || list_is_empty(&member->changes))
		return;
	c = list_first(&member->changes, struct change, node);
	if (!++w->serial)
		++w->serial;
	member->res_serial = w->serial;
	fd = take_fd(&c->what.fd);
	worker_send(w, frame, encode(member, c, frame, sizeof(frame)), &fd, fd >= 0);
}

int worker_resource(struct worker_member *member, const struct core_resource *what)
{
	struct change *c = malloc(sizeof(*c));

	if (!c) {
		if (what->fd >= 0)
			close(what->fd);
		return -ENOMEM;
	}
	*c = (struct change){ .what = *what };
	str_format(c->name, sizeof(c->name), "%s", what->name);
	list_append(&member->changes, &c->node);
	worker_resources_go_on(member);
	return 1;
}

/* The first change is over. */
static void answer(struct worker_member *member, int error)
{
	struct change *c = list_first(&member->changes, struct change, node);

	list_remove(&c->node);
	if (c->what.fd >= 0)
		close(c->what.fd);
	member->res_serial = 0;
	core_resource_done(member->mdev, c->what.call, c->name, error);
	free(c);
}

bool worker_resource_done(struct worker_member *member, uint32_t serial, int error)
{
	if (!serial || serial != member->res_serial)
		return false;
	if (list_is_empty(&member->changes)) { /* of a device that has gone meanwhile */
		member->res_serial = 0;
		return true;
	}
	answer(member, -error);
	worker_resources_go_on(member);
	return true;
}

void worker_resources_drop(struct worker_member *member)
{
	uint32_t serial = member->res_serial;

	while (!list_is_empty(&member->changes))
		answer(member, -ENOTCONN);
	member->res_serial = serial; /* the worker may still answer, once */
}
