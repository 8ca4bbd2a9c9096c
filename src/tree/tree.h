/* SPDX-License-Identifier: MIT */
/*
 * A user-space kobject tree with sysfs attributes. Knows nothing of devices or FUSE.
 *
 * Small per object: a node is an object (a directory) or a link. A node's files and fixed
 * sub-directories ("groups": power/, vendor/, mdev/<param>/) are not nodes but come from a static
 * table of the node's kind, looked up by (node, index). Modes and owners that a user changed are
 * kept in a side list of the node.
 *
 * Every door (FUSE, control socket, tests) walks, reads and stores through these calls, so they
 * cannot differ. Rules of sysfs that live here: notes in docs/abi.md, "Common rules".
 */
#ifndef TREE_TREE_H
#define TREE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include "base/list.h"

#define TREE_ATTR_SIZE 4096 /* st_size of every attribute and the most a show or store sees */
#define TREE_LATER 1        /* store: answered through attr_done() */

struct tree_node;
struct attr_wait;

/*
 * One file of a kind. `index` of a callback is what the entry's directory level was expanded with
 * (a parameter number, ...), 0 for plain tables.
 */
struct tree_attr {
	const char *name;
	uint16_t mode; /* permission bits */
	/* At most TREE_ATTR_SIZE bytes into buf; length or -errno. NULL: reading is EACCES. */
	int (*show)(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf);
	/* text is NUL-terminated behind len (<= TREE_ATTR_SIZE) bytes. 0, -errno, or TREE_LATER when
	 * attr_done(wait) follows. NULL: writing is EACCES. */
	int (*store)(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     const char *text, size_t len, struct attr_wait *wait);
	bool (*visible)(struct tree_node *node, unsigned index); /* NULL: always */
	uint16_t (*mode_of)(struct tree_node *node, unsigned index); /* NULL: mode */
	const void *data; /* for sharing callbacks */
};

/* A fixed sub-directory of a kind, shown once, or once per index when `count` is set. */
struct tree_group {
	const char *name; /* NULL with count: named by `name_of` */
	unsigned (*count)(struct tree_node *node); /* NULL: 1; 0: not shown */
	const char *(*name_of)(struct tree_node *node, unsigned index);
	const struct tree_attr *attrs;   /* ended by name == NULL; or NULL */
	const struct tree_group *groups; /* nested, ended by attrs, groups and name all NULL */
	const struct tree_fixed_link *links; /* ended by name == NULL; or NULL */
};

/* A link whose target is computed when it is read. */
struct tree_fixed_link {
	const char *name;
	int (*target)(struct tree_node *node, char *buf, size_t size); /* length or -errno */
};

struct tree_kind {
	const char *name; /* for tests and logs */
	const struct tree_attr *attrs;
	const struct tree_group *groups;
	const struct tree_fixed_link *links;
};

struct tree_node {
	char *name;                   /* owned */
	const struct tree_kind *kind; /* NULL: a link */
	char *target;                 /* link: text, owned */
	void *object;                 /* what the node shows; the owner outlives the node's removal */
	struct tree_node *parent;
	struct list_node sibling;
	struct list_node children;    /* in the order they were added */
	struct list_node hash;        /* by (parent, name) */
	uint64_t ino;                 /* unique for ever */
	unsigned refs;                /* of open handles; the node is freed at removed && refs == 0 */
	bool removed;                 /* answers ENODEV / ENOENT */
	struct tree_owner *owners;    /* changed modes and owners, or NULL */
};

struct tree {
	struct tree_node root;
	/* hash of (parent, name) and of ino; counters: private to tree.c */
	struct tree_private *priv;
	/* A directory changed (the FUSE door invalidates its caches); may be NULL. */
	void (*changed)(void *arg, struct tree_node *dir, const char *name);
	void *changed_arg;
};

int tree_init(struct tree *t); /* 0 / -ENOMEM */
void tree_fini(struct tree *t);

/* Appear. NULL: -ENOMEM or exists (asserted not to). name and target are copied. */
struct tree_node *tree_add(struct tree *t, struct tree_node *parent, const char *name,
			   const struct tree_kind *kind, void *object);
struct tree_node *tree_add_link(struct tree *t, struct tree_node *parent, const char *name,
				const char *target);
/* Relative link from `parent`/name to `to`, as sysfs writes it. */
struct tree_node *tree_add_link_to(struct tree *t, struct tree_node *parent, const char *name,
				   struct tree_node *to);
/* Disappears with everything below it; freed when the last handle goes. Accepts NULL. */
void tree_remove(struct tree *t, struct tree_node *node);
struct tree_node *tree_child(struct tree *t, struct tree_node *dir, const char *name);

/* One thing that a path leads to. Plain value; hold node with tree_get while kept. */
enum tree_what { TREE_DIR, TREE_FILE, TREE_LINK };
struct tree_ref {
	struct tree_node *node;
	const struct tree_group *group; /* inside a group of node, or NULL */
	unsigned index;                 /* the group's */
	const struct tree_attr *attr;   /* TREE_FILE */
	const struct tree_fixed_link *link; /* TREE_LINK of a table */
	enum tree_what what;
	uint64_t ino; /* unique among refs of live nodes */
};
void tree_get(struct tree_node *node);
void tree_put(struct tree *t, struct tree_node *node);

struct tree_ref tree_root(struct tree *t);
int tree_lookup(struct tree *t, const struct tree_ref *dir, const char *name,
		struct tree_ref *ret); /* 0 / -ENOENT / -ENODEV */
/* Walks an absolute or root-relative path ("class/mdev_bus/mtty"), following links when `follow`. */
int tree_walk(struct tree *t, const char *path, bool follow, struct tree_ref *ret);
void tree_stat(struct tree *t, const struct tree_ref *ref, struct stat *ret);
/* Entries of a directory in sysfs order of kind; fn returns false to stop. `from`: entries to skip. */
int tree_list(struct tree *t, const struct tree_ref *dir, uint64_t from,
	      bool (*fn)(void *arg, const char *name, const struct tree_ref *ref), void *arg);
int tree_readlink(struct tree *t, const struct tree_ref *ref, char *buf, size_t size);
int tree_path(const struct tree_ref *ref, char *buf, size_t size); /* "/devices/virtual/..." */
int tree_chmod(struct tree *t, const struct tree_ref *ref, mode_t mode);
int tree_chown(struct tree *t, const struct tree_ref *ref, uid_t uid, gid_t gid); /* -1: keep */
/* Would open(2) with these access bits (R_OK, W_OK) by this user succeed? 0 / -EACCES. Files that
 * have no show (store) refuse it to root, too. */
int tree_access(struct tree *t, const struct tree_ref *ref, int bits, uid_t uid, gid_t gid,
		const gid_t *groups, unsigned n_groups);

/* ENODEV when the node is gone. show: length / -errno; buf of TREE_ATTR_SIZE bytes. */
int tree_show(const struct tree_ref *ref, char *buf);

/*
 * A store that may answer later. The front door embeds struct attr_wait and gives it to
 * tree_store; when that returns TREE_LATER, exactly one call of wait->done follows, unless the
 * front door calls attr_cancel first (the writer vanished: the wait ends, the change does not).
 */
struct attr_wait {
	void (*done)(struct attr_wait *wait, int result); /* 0 / -errno */
	struct attr_wait **slot; /* where the store keeps it; set by attr_hold */
};
int tree_store(const struct tree_ref *ref, const char *text, size_t len, struct attr_wait *wait);
/* By the store: remember wait in *slot (one waiter per slot). */
void attr_hold(struct attr_wait **slot, struct attr_wait *wait);
/* By the store's completion: answers and clears *slot; nothing when it was cancelled. */
void attr_done(struct attr_wait **slot, int result);
/* By the front door. */
void attr_cancel(struct attr_wait *wait);

#endif
