/* SPDX-License-Identifier: MIT */
/*
 * The socket of one mdev: $UMDEV_RUN/dev/<uuid>/socket. Accepts, asks the core who may come in,
 * hands the connection to the group's worker. Never reads.
 *
 * A connection that may come in but cannot yet waits here, one at a time:
 *  - for the worker to be ready (it was just started, or the last owner's is still leaving);
 *  - for the worker to notice that the client before has hung up, at most PREDECESSOR_MS. Without
 *    that a VMM that is killed and started again at once would be refused.
 * Everything that may end a wait calls listener_retry, and the admission runs again from the start.
 * So does a device that is to be served without a client (mdev_wants_worker).
 */
#ifndef MANAGER_LISTENER_H
#define MANAGER_LISTENER_H

#include <stdint.h>
#include "base/loop.h"
#include "base/sock.h"

struct manager;
struct mdev_access;
struct umdev_mdev;
struct worker;

struct listener { /* owned by its mdev: mdev->manager */
	struct manager *manager;
	struct umdev_mdev *mdev;
	int fd; /* listening; -1: --one with a connection that was inherited */
	struct loop_fd source;

	struct worker *worker; /* that has mdev as a member, or NULL */
	int client_fd;         /* ours of the connection being served: only asked for hang-up; -1 */

	int waiting_fd; /* -1: nobody waits */
	struct sock_peer waiting_peer;
	struct loop_timer waiting_deadline;
	struct loop_defer retry;

	uint64_t refused_ns; /* when a refusal was last logged */
	unsigned n_refused;  /* since then, silently */
};

/* Makes the directory and the socket; sets mdev->dir_path, manager. 0 / -errno (text). */
int listener_open(struct manager *m, struct umdev_mdev *mdev);
/* Removes socket and directory; whoever waits is closed. Accepts NULL. */
void listener_close(struct listener *l);

/* Removes the directory of a device and what drivers left there. */
void listener_remove_dir(const char *path);

/* Owner and mode of the socket. 0 / -errno (text left), then it is closed to others. */
int listener_set_access(struct listener *l, const struct mdev_access *access);
/* Takes a connection that came another way (umdevd --one --fd). */
void listener_adopt(struct listener *l, int fd);
/* The worker, the owner or the state changed, or a worker is wanted: look at who waits again, from
 * the loop. */
void listener_retry(struct listener *l);
/* The connection is over for the worker: drop ours, so that the client sees the end. */
void listener_drop_client(struct listener *l);

#endif
