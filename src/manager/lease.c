/* SPDX-License-Identifier: MIT */
#include "manager/lease.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/sock.h"
#include "core/core.h"
#include "manager/manager.h"
#include "manager/restart.h"

struct lease { /* owned by its mdev: mdev->lease */
	struct umdev_mdev *mdev;
	int pidfd; /* -1: the process was gone when we looked */
	struct loop_fd source;
	struct loop_defer over;
};

/* The process has ended. Not from inside the core, and the lease goes with the device. */
static void over(struct loop_defer *defer)
{
	const struct lease *lease = container_of(defer, struct lease, over);

	log_info("device %s: process %d, which it was made for, has ended", lease->mdev->uuid_text,
		 (int)lease->mdev->lease_pid);
	err_clear();
	mdev_remove(lease->mdev, MDEV_REMOVE_FORCE, NULL);
}

static void ended(struct loop_fd *source, uint32_t revents)
{
	struct lease *lease = container_of(source, struct lease, source);

	loop_remove(&lease->source); /* the client may take a while to go */
	over(&lease->over);
}

/* 0 / -errno */
static int watch(struct manager *m, struct umdev_mdev *mdev)
{
	struct lease *lease = malloc(sizeof(*lease));
	struct sock_peer process;
	int r = 0;

	if (!lease)
		return -ENOMEM;
	*lease = (struct lease){ .mdev = mdev, .source = LOOP_FD_INIT };
	sock_peer_again(mdev->lease_pid, 0, mdev->lease_start, &process);
	lease->pidfd = process.pidfd;
	if (lease->pidfd >= 0)
		r = loop_add(&m->loop, &lease->source, lease->pidfd, EPOLLIN, ended);
	if (r < 0) {
		close(lease->pidfd);
		free(lease);
		return r;
	}
	mdev->lease = lease;
	if (lease->pidfd < 0)
		loop_defer(&m->loop, &lease->over, over);
	return 0;
}

int lease_take(struct manager *m, struct umdev_mdev *mdev, pid_t pid)
{
	uint64_t start = process_start(pid);
	int r;

	if (!start)
		return err_set(-ESRCH, "there is no process %d", (int)pid);
	mdev->lease_pid = pid;
	mdev->lease_start = start;
	if (mdev->state == MDEV_NEW)
		return 0; /* lease_watch follows */
	r = watch(m, mdev);
	if (r == 0)
		restart_save(m, mdev);
	return r < 0 ? err_set(r, "cannot watch process %d: %s", (int)pid, strerror(-r)) : 0;
}

void lease_watch(struct manager *m, struct umdev_mdev *mdev)
{
	int r = mdev->lease_pid && !mdev->lease ? watch(m, mdev) : 0;

	if (r < 0)
		log_error("device %s: cannot watch process %d: %s; the device will stay",
			  mdev->uuid_text, (int)mdev->lease_pid, strerror(-r));
}

void lease_end(struct lease *lease)
{
	if (!lease)
		return;
	lease->mdev->lease = NULL;
	loop_remove(&lease->source);
	loop_defer_cancel(&lease->over);
	if (lease->pidfd >= 0)
		close(lease->pidfd);
	free(lease);
}
