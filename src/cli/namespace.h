/* SPDX-License-Identifier: MIT */
/*
 * A private view of the file system in which umdev's tree is part of /sys.
 *
 * sysfs has no mkdir, so nothing can be mounted beside its entries. Instead a tmpfs covers /sys,
 * and the entries of the machine and of the tree are bound into it. Where both have a directory of
 * the same name the tree's is shown, except for the few that hold both (the spine in namespace.c),
 * which are merged entry by entry. What is bound is live: devices come and go in it.
 *
 * The machine's own /sys stays at $UMDEV_RUN/hostsys, its /etc, if it had to be covered for
 * /etc/mdevctl.d, at $UMDEV_RUN/hostetc. Nothing of this is seen outside.
 *
 * All return 0 / -errno with the text left by err_set().
 */
#ifndef CLI_NAMESPACE_H
#define CLI_NAMESPACE_H

#include <stdbool.h>

/* A mount namespace of our own, and a network namespace that has only a loopback device when
 * `network`; without CAP_SYS_ADMIN in a user namespace that maps only us. */
int namespace_enter(bool network);

/* /sys is the machine's and $UMDEV_RUN/sys. */
int namespace_merge_sys(const char *run_dir);

/* /dev/vfio is $UMDEV_RUN/vfio, where umdevd shows it; the machine's /dev is at hostdev. Where it
 * has no /dev/vfio, its entries are bound into a new /dev: what comes later is not seen. That is
 * left undone where it would keep uevents from libudev. */
int namespace_place_vfio(const char *run_dir, bool uevents);

/* /etc/mdevctl.d is `dir`. */
int namespace_place_mdevctl(const char *run_dir, const char *dir);

#endif
