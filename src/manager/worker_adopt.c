/* SPDX-License-Identifier: MIT */
/*
 * Workers that a manager before us started: found by their records, met at their rendezvous
 * sockets.
 *
 * A worker may turn us away for a while: the manager that was killed may still be closing its
 * descriptors when its lock is ours already. So the meeting is tried again until the worker has
 * said READY or its time for that is over.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/sock.h"
#include "core/core.h"
#include "core/group.h"
#include "manager/listener.h"
#include "manager/manager.h"
#include "manager/worker_proc.h"

#define AGAIN_NS 20000000ull

static void meet(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, pong_deadline);
	_cleanup_free_ char *path = worker_rendezvous_path(w->manager, w->group);
	_cleanup_close_ int fd = -1;

	if (w->state != MW_STARTING)
		return;
	loop_timer_arm(&w->manager->loop, timer, AGAIN_NS, meet);
	if (!path || w->link.fd >= 0)
		return;
	fd = sock_connect(path);
	if (fd >= 0 && fd_set_nonblock(fd, true) == 0)
		link_open(&w->link, &w->manager->loop, take_fd(&fd));
}

static struct worker *find(struct manager *m, const struct worker_record *r)
{
	struct worker *w;

	list_for_each(w, &m->workers, node)
		if (w->adopted && w->group == r->group && w->pid == r->pid && w->start == r->start)
			return w;
	return NULL;
}

struct worker *worker_adopt(struct manager *m, const struct worker_record *record)
{
	struct worker *w = find(m, record);
	struct sock_peer process;

	if (w)
		return w;
	sock_peer_again(record->pid, 0, record->start, &process);
	if (sock_peer_is_dead(&process)) {
		if (process.pidfd >= 0)
			close(process.pidfd); /* of one that nobody has reaped */
		return NULL;
	}
	w = worker_new(m, record->group);
	if (w)
		w->adopted = true;
	if (!w || worker_watch(w, record->pid, process.pidfd) < 0) {
		close(process.pidfd);
		free(w);
		return NULL;
	}
	/* It may know more of them than there are now. */
	w->n_members = MW_MAX_MEMBERS;
	for (unsigned i = 0; i < w->n_members; i++)
		w->members[i].owes_closed = true;
	loop_timer_arm(&m->loop, &w->pong_deadline, 1, meet);
	return w;
}

/* Members of one worker are of one group, each in its own place. */
static bool is_possible(const struct worker *w, const struct worker_record *record,
			const struct umdev_mdev *mdev)
{
	if (!mdev->group || w->members[record->member].mdev)
		return false;
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->members[i].mdev && w->members[i].mdev->group != mdev->group)
			return false;
	return true;
}

int worker_adopt_member(struct worker *w, const struct worker_record *record,
			struct umdev_mdev *mdev, bool connected)
{
	struct worker_member *member = &w->members[record->member];
	struct listener *l = mdev->manager;

	if (!is_possible(w, record, mdev))
		return err_set(-EINVAL, "it cannot be member %u of worker %d", record->member,
			       (int)w->pid);
	member->mdev = mdev;
	member->has_resources = true;
	member->connected = connected;
	member->owes_closed = !connected;
	member->param_under_way = mdev->param_value;
	w->n_connected += connected;
	w->stop_wanted |= record->stopping;
	l->worker = w;
	return 0;
}

bool worker_describe(const struct umdev_mdev *mdev, struct worker_record *ret)
{
	const struct listener *l = mdev->manager;
	const struct worker *w = l ? l->worker : NULL;

	if (!w)
		return false;
	*ret = (struct worker_record){
		.group = w->group,
		.pid = w->pid,
		.start = w->start,
		.stopping = w->state == MW_STOPPING || w->stop_wanted,
	};
	while (w->members[ret->member].mdev != mdev)
		ret->member++;
	return true;
}
