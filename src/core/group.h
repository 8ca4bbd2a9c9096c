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
struct tree_node;

struct mdev_group {
	struct list_node node;    /* in core->groups, by number; owned by the core */
	struct list_node members; /* umdev_mdev.group_node */
	unsigned n_members;
	uint32_t number;          /* lowest free >= core->first_group */
	struct uuid p2p;          /* value of peer_to_peer_resource_uuid; random for a group of one */
	/* Owner: the process that holds the group, from its first connection to its last
	 * disconnect. n_connected 0: no owner, the fields are stale. */
	unsigned n_connected;
	struct sock_peer owner;   /* pidfd owned here */
	struct tree_node *dir;    /* /kernel/iommu_groups/<number> */
	void *manager;            /* struct worker of the manager, or NULL: no process */
};

/* A new group with mdev as its only member. 0 / -errno. */
int group_new_for(struct core *core, struct umdev_mdev *mdev);
/* Takes mdev out; the group goes with its last member. */
void group_leave(struct umdev_mdev *mdev);

#endif
