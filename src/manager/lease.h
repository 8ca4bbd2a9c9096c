/* SPDX-License-Identifier: MIT */
/*
 * Devices that are bound to the life of a process (`umdev create --owner-pid`): when it ends, the
 * device is removed by force. The process is known by its pid and start time, so another one of the
 * same number is not taken for it, also by a later umdevd; a pidfd tells of its end.
 */
#ifndef MANAGER_LEASE_H
#define MANAGER_LEASE_H

#include <sys/types.h>

struct lease;
struct manager;
struct umdev_mdev;

/* Binds mdev, which may still be MDEV_NEW. 0 / -ESRCH, -errno (text left) */
int lease_take(struct manager *m, struct umdev_mdev *mdev, pid_t pid);
/* mdev is there (again): its process is watched from now on, if it has one. One that is gone
 * already takes the device along, from the loop. */
void lease_watch(struct manager *m, struct umdev_mdev *mdev);
/* Its device is gone. Accepts NULL. */
void lease_end(struct lease *lease);

#endif
