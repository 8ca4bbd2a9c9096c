/* SPDX-License-Identifier: MIT */
/*
 * The bits of an ino, and what the files of this folder share: the way from a place in a kind's
 * tables to a number and back.
 */
#ifndef TREE_TABLE_H
#define TREE_TABLE_H

#include "tree/tree.h"

#define INO_ENTRY_BITS 6
#define INO_INDEX_BITS 7
#define INO_GROUP_BITS 7
#define INO_LOCAL_BITS (INO_ENTRY_BITS + INO_INDEX_BITS + INO_GROUP_BITS)
#define INO_MASK(bits) ((UINT64_C(1) << (bits)) - 1)

/* Entry numbers: the directory itself; a door's readdir may use 2 for ".."; files and links. */
#define INO_DIR 1
#define INO_FIRST_ENTRY 3

static inline unsigned ino_entry(uint64_t ino)
{
	return ino & INO_MASK(INO_ENTRY_BITS);
}

static inline unsigned ino_index(uint64_t ino)
{
	return ino >> INO_ENTRY_BITS & INO_MASK(INO_INDEX_BITS);
}

/* 0: the node itself, else 1 + the group's place in its kind, counted depth first. */
static inline unsigned ino_group(uint64_t ino)
{
	return ino >> (INO_ENTRY_BITS + INO_INDEX_BITS) & INO_MASK(INO_GROUP_BITS);
}

static inline uint64_t ino_id(uint64_t ino)
{
	return ino >> INO_LOCAL_BITS;
}

/* What chmod and chown changed of one entry of a node. */
struct tree_owner {
	struct tree_owner *next;
	uint64_t ino;
	mode_t mode;
	uid_t uid;
	gid_t gid;
};

/* Groups from the node down to a directory. */
struct table_path {
	unsigned n;
	struct {
		const struct tree_group *group;
		unsigned number;
	} step[TREE_MAX_NESTING];
};

/* The groups on the way to group `number` of a kind. 0 / -ENOENT (the kind has no such group). */
int table_path(const struct tree_kind *kind, unsigned number, struct table_path *ret);
/* Is the directory of a node that is not removed, which `path` leads to with `index`, there now? */
bool table_is_shown(struct tree_node *node, const struct table_path *path, unsigned index);
/* The entry `name` of the tables of directory dir. 0 / -ENOENT. */
int table_lookup(const struct tree_ref *dir, const char *name, struct tree_ref *ret);
/* The entry of node with number ino. 0 / -ENOENT. */
int table_find(struct tree_node *node, uint64_t ino, struct tree_ref *ret);
/* Entries of dir's tables behind `from`, by rising ino. false: fn has stopped. */
bool table_list(const struct tree_ref *dir, uint64_t from,
		bool (*fn)(void *arg, const char *name, const struct tree_ref *ref), void *arg);
unsigned table_count_dirs(const struct tree_ref *dir);
/* Name of a group's directory in a node that is not removed; buf has TREE_NAME_MAX + 1 bytes and
 * may stay unused. */
const char *table_name(struct tree_node *node, const struct tree_group *group, unsigned index,
		       char *buf);

struct tree_node *node_find(struct tree *t, uint64_t ino); /* by the id in ino, or NULL */

#endif
