/* SPDX-License-Identifier: MIT */
/*
 * Isolation groups: mdevs with no isolation between them share one owner process, one worker, one
 * fault domain, one iommu group number. Every mdev is in exactly one; by default in one of its own.
 */
#ifndef CORE_GROUP_H
#define CORE_GROUP_H

#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"
#include "base/sock.h"
#include "base/uuid.h"

struct core;
struct umdev_mdev;
struct umdev_parent;
struct tree_node;

struct mdev_group {
	struct core *core;
	struct list_node node;      /* in core->groups; owned by the core */
	struct list_node hash_node; /* in core->p2p_groups; unlinked: its type knows no value */
	struct list_node members;   /* umdev_mdev.group_node */
	unsigned n_members;
	uint32_t number; /* lowest free >= core->first_group */
	struct uuid p2p; /* value of peer_to_peer_resource_uuid, if it is in that hash */
	/* Owner: the process that holds the group, from its first connection to its last
	 * disconnect. n_connected 0: no owner, the fields are stale. */
	unsigned n_connected;
	struct sock_peer owner; /* pidfd owned here */
	struct tree_node *dir;  /* /kernel/iommu_groups/<number> */
	struct tree_node *devices;
	struct tree_node *vfio, *class_link; /* /devices/virtual/vfio/<number>, /class/vfio/... */
};

/* The group of that value, or NULL. */
struct mdev_group *group_find(const struct core *core, const struct uuid *p2p);
/* Puts mdev in the group of its peer_to_peer_resource_uuid (which passed group_may_join), or in a
 * new one of its own, of that number if it is free. 0 / -ENOMEM, -ENOSPC. */
#define GROUP_ANY UINT32_MAX
int group_enter(struct umdev_mdev *mdev, uint32_t number);
/* Takes mdev out; the group goes with its last member. No-op when it is in none. */
void group_leave(struct umdev_mdev *mdev);
/* Would mdev be let into the group of this value? 0 when there is none yet; -EBUSY in use, -EXDEV
 * another p2p_domain, -ENOSPC CORE_MAX_MEMBERS or the max_members of a type. */
int group_may_join(const struct umdev_mdev *mdev, const struct uuid *p2p);
/* Moves mdev (bound, its own group idle) to the group of that value. 0 / -errno, nothing moved. */
int group_move(struct umdev_mdev *mdev, const struct uuid *p2p);
/* A member is served. */
bool group_in_use(const struct mdev_group *group);

#endif
