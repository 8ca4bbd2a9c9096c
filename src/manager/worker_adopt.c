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
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
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

static struct worker *new_adopted(struct manager *m, const struct worker_record *record)
{
	struct worker *w = worker_new(m, record->group);

	if (!w)
		return NULL;
	w->adopted = true;
	w->messages = record->messages;
	w->pid = record->pid;
	w->start = record->start;
	worker_grave_find(w);
	/* It may know more of them than there are now. */
	w->n_members = MW_MAX_MEMBERS;
	for (unsigned i = 0; i < w->n_members; i++)
		w->members[i].owes_closed = true;
	return w;
}

/* It is gone. NULL: so is all that it had under way. */
static struct worker *adopt_grave(struct manager *m, const struct worker_record *record)
{
	struct worker *w = new_adopted(m, record);

	if (!w || worker_grave_is_quiet(w)) {
		if (w)
			worker_grave_remove(w);
		free(w);
		return NULL;
	}
	log_warning("group %u: its worker ended while no umdevd ran; waiting for the end of its "
		    "requests",
		    w->group);
	w->state = MW_DEAD;
	w->clean = true;
	list_append(&m->workers, &w->node);
	worker_grave_wait(w);
	return w;
}

/* Its clients do not notice. */
static void refuse(struct worker *w)
{
	loop_timer_cancel(&w->deadline);
	w->state = MW_STOPPING;
	w->stuck = true;
	log_warning("group %u: its worker %d speaks version %u of the messages, this umdevd %d: it "
		    "serves its clients on, and nothing else",
		    w->group, (int)w->pid, w->messages, MW_VERSION);
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
		return adopt_grave(m, record);
	}
	w = new_adopted(m, record);
	if (!w || worker_watch(w, record->pid, process.pidfd) < 0) {
		close(process.pidfd);
		if (w)
			close(w->grave_fd);
		free(w);
		return NULL;
	}
	if (worker_is_foreign(w))
		refuse(w);
	else
		loop_timer_arm(&m->loop, &w->pong_deadline, 1, meet);
	return w;
}

void worker_adopt_explain(const struct worker *w, struct umdev_mdev *mdev)
{
	_cleanup_free_ char *text = NULL;

	if (!worker_is_foreign(w))
		return;
	text = str_printf("its worker speaks version %u of the messages, this umdevd %d: its "
			  "client is served on; it can be removed by force only",
			  w->messages, MW_VERSION);
	core_faulty(mdev, text ? text : strerror(ENOMEM));
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
	member->param_under_way = mdev->param_value && worker_serves(w);
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
		.messages = w->messages,
		.group = w->group,
		.pid = w->pid,
		.start = w->start,
		.stopping = w->state == MW_STOPPING || w->stop_wanted,
	};
	while (w->members[ret->member].mdev != mdev)
		ret->member++;
	return true;
}
