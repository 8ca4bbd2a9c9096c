/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of the door share: door.c mounts and reads requests, ops.c answers them.
 *
 * The numbers of the tree are the kernel's node ids. They name an entry for ever, so nothing is
 * kept for what the kernel looked up and forgets; state exists only for open files and for writes
 * whose answer is late.
 */
#ifndef FUSE_DOOR_H
#define FUSE_DOOR_H

#define FUSE_USE_VERSION 35

#include <fuse_lowlevel.h>
#include "base/list.h"
#include "base/loop.h"
#include "tree/tree.h"

struct core;

struct fuse_door {
	struct tree *tree; /* borrowed */
	struct core *core; /* borrowed; of the directory of groups (vfio_dir.c) */
	struct fuse_session *session;
	struct loop_fd source;
	struct fuse_buf buf; /* of one request; grown by libfuse, freed by us */
	struct list_node handles, held;
	char *mount_point;
};

/* An open file; owned by the door, freed by its release. */
struct handle {
	struct list_node node; /* in door->handles */
	struct tree_ref ref;   /* ref.node is held */
	char *content;         /* what show said, when a read took only a part of it; owned */
	size_t len;            /* of what show said last */
	uint64_t pos;          /* behind the last read; elsewhere show is asked again */
};

/* A write whose store answers later; owned by the door, freed by its answer. */
struct held {
	struct list_node node; /* in door->held, once the store said TREE_LATER */
	struct attr_wait wait;
	struct fuse_door *door;
	fuse_req_t req;
	struct tree_ref ref; /* for the log; its node is held */
	size_t len;
	int result;    /* when answered inside the store */
	bool answered; /* so */
};

extern const struct fuse_lowlevel_ops door_ops;

/* fuse_door_open for those operations. */
int door_open(const struct fuse_lowlevel_ops *ops, struct tree *tree, struct core *core,
	      struct loop *loop, const char *mount_point, struct fuse_door **ret);

/* Ends a held write: the writer gets `result`. */
void held_answer(struct held *held, int result);
void handle_free(struct fuse_door *door, struct handle *handle);

#endif
