/* SPDX-License-Identifier: MIT */
/*
 * Who may connect, and what connections do to the state of a device. The process of the first
 * connection owns the whole group until the last one is gone: its members share a worker.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "core/private.h"

int mdev_check_required(const struct umdev_mdev *mdev)
{
	const struct core_type *info = mdev->type->info;

	for (unsigned i = 0; i < info->n_params; i++)
		if (info->params[i]->required && !(mdev->params_set & UINT32_C(1) << i))
			return err_set(-EACCES, "%s: parameter %s must be set before it is used",
				       mdev->uuid_text, info->params[i]->name);
	return 0;
}

int core_may_connect(struct umdev_mdev *mdev, const struct sock_peer *peer)
{
	const struct mdev_group *group = mdev->group;

	if (mdev->state == MDEV_NEW || mdev->state == MDEV_REMOVING || !mdev->bound)
		return err_set(-ENODEV, "%s is %s", mdev->uuid_text,
			       mdev->bound ? mdev_state_name(mdev->state)
					   : "not bound to its driver");
	if (mdev->state == MDEV_FAILED)
		return err_set(-EIO, "%s failed: %s; unbind and bind it, or make it anew",
			       mdev->uuid_text,
			       mdev->fail_text ? mdev->fail_text : "no reason known");
	if (mdev->connected)
		return err_set(-EBUSY, "%s has a client already (process %d)", mdev->uuid_text,
			       (int)group->owner.pid);
	if (group->n_connected && !sock_peer_is_same(&group->owner, peer))
		return err_set(-EBUSY, "%s: group %u belongs to process %d until it disconnects",
			       mdev->uuid_text, group->number, (int)group->owner.pid);
	return mdev_check_required(mdev);
}

void core_connected(struct umdev_mdev *mdev, const struct sock_peer *peer)
{
	struct mdev_group *group = mdev->group;

	assert(!mdev->connected);
	if (group->n_connected++ == 0) {
		group->owner = *peer;
		group->owner.pidfd = -1;
		/* Without a copy (no descriptors left) the pid and its start time must do. */
		if (peer->pidfd >= 0)
			group->owner.pidfd = fcntl(peer->pidfd, F_DUPFD_CLOEXEC, 0);
	}
	mdev->connected = true;
	mdev->opened = true;
	mdev_set_state(mdev, MDEV_CONNECTED, NULL);
}

void mdev_disconnected(struct umdev_mdev *mdev)
{
	struct mdev_group *group = mdev->group;
	int fd;

	if (!mdev->connected)
		return;
	mdev->connected = false;
	if (--group->n_connected)
		return;
	fd = take_fd(&group->owner.pidfd);
	if (fd >= 0)
		close(fd);
}

void core_closed(struct umdev_mdev *mdev)
{
	mdev_disconnected(mdev);
	if (mdev->state == MDEV_REMOVING)
		mdev_finish_removal(mdev);
	else if (mdev->state == MDEV_CONNECTED || mdev->state == MDEV_TAKEOVER)
		mdev_set_state(mdev, mdev->started ? MDEV_STARTED : MDEV_IDLE, NULL);
}

void core_takeover(struct umdev_mdev *mdev)
{
	if (mdev->state != MDEV_REMOVING)
		mdev_set_state(mdev, MDEV_TAKEOVER, NULL);
}

void core_resumed(struct umdev_mdev *mdev)
{
	if (mdev->state != MDEV_REMOVING)
		mdev_set_state(mdev, mdev->connected ? MDEV_CONNECTED : MDEV_STARTED, NULL);
}

static void set_fail_text(struct umdev_mdev *mdev, const char *text)
{
	free(mdev->fail_text);
	mdev->fail_text = *text ? strdup(text) : NULL;
}

void core_failed(struct umdev_mdev *mdev, const char *text)
{
	mdev_disconnected(mdev);
	if (mdev->state == MDEV_REMOVING) {
		mdev_finish_removal(mdev);
		return;
	}
	if (mdev->start_set) {
		err_clear();
		err_set(-EIO, "%s failed: %s", mdev->uuid_text, text);
	}
	start_abandon(mdev, -EIO);
	set_fail_text(mdev, text);
	if (mdev->state != MDEV_FAILED)
		mdev_set_state(mdev, MDEV_FAILED, text);
}

void core_faulty(struct umdev_mdev *mdev, const char *text)
{
	set_fail_text(mdev, text);
	mdev_event(mdev, CORE_MDEV_STATE, *text ? text : mdev_state_name(mdev->state));
	mdev_dirty(mdev);
}
