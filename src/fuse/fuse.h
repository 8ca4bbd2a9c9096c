/* SPDX-License-Identifier: MIT */
/*
 * Shows any struct tree at a mount point, through libfuse's low-level interface and our loop.
 *
 * A dead mount at that place (its server was killed) is lazily unmounted first. As root the mount
 * is allow_other and open to everybody by the modes of the tree; otherwise fusermount3 is used
 * and the tree is the user's own. Kernel caches are off (direct_io, timeouts 0): show and store
 * see every read and write. The door makes sysfs's answers where FUSE would give others
 * (docs/abi.md, "Common rules").
 */
#ifndef FUSE_FUSE_H
#define FUSE_FUSE_H

#include "base/loop.h"
#include "tree/tree.h"

struct core;
struct fuse_door;

/* Makes the directory mount_point when it is missing. 0 / -errno (text left with err_set); -EBUSY:
 * a live tree is mounted there. The tree must outlive the door. */
int fuse_door_open(struct tree *tree, struct loop *loop, const char *mount_point,
		   struct fuse_door **ret);
/* The same for a directory like /dev/vfio (vfio_dir.c). */
int fuse_vfio_open(struct core *core, struct loop *loop, const char *mount_point,
		   struct fuse_door **ret);
/* Unmounts. Requests that wait are answered -ENODEV. Accepts NULL. */
void fuse_door_close(struct fuse_door *door);

#endif
