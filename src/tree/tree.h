/* SPDX-License-Identifier: MIT */
/*
 * A user-space kobject tree with sysfs attributes. Knows nothing of devices or FUSE.
 *
 * Small per object: a node is an object (a directory) or a link. A node's files and fixed
 * sub-directories ("groups": power/, vendor/, mdev/<param>/) are not nodes but come from a static
 * table of the node's kind. Modes and owners that a user changed are kept in a side list of the
 * node.
 *
 * Everything that a path can name has a number (ino) which is never given out again and from which
 * the thing is found without any state: the node's id in the high bits, below it the group's place
 * in the kind's table, its index, and the entry's place in the group. Entries of a directory are
 * listed by rising ino, so the last ino seen is a place to go on from that survives every change.
 *
 * Every door (FUSE, control socket, tests) walks, reads and stores through these calls, so they
 * cannot differ. Rules of sysfs that live here: docs/abi.md, "Common rules".
 */
#ifndef TREE_TREE_H
#define TREE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include "base/list.h"

#define TREE_ATTR_SIZE 4096 /* st_size of every attribute and the most a show or store sees */
#define TREE_NAME_MAX 255   /* a longer name does not exist */
#define TREE_PATH_MAX 1024  /* holds every path and every link of a tree, and the NUL */
#define TREE_LATER 1        /* store: answered through attr_done() */
#define TREE_ROOT_INO 1

/* Limits of a kind's tables, from the bits of an ino; asserted. */
#define TREE_MAX_GROUPS 127 /* of one kind, nested ones included */
#define TREE_MAX_INDEX 128  /* of one counted group */
#define TREE_MAX_ENTRIES 61 /* attributes and links of one directory */
#define TREE_MAX_NESTING 8  /* groups inside groups */

struct tree_node;
struct attr_wait;

/*
 * One file of a kind. `index` of a callback is what the counted group around it was expanded with
 * (a parameter number, ...), 0 for plain tables.
 */
struct tree_attr {
	const char *name;
	uint16_t mode; /* permission bits */
	/* At most TREE_ATTR_SIZE bytes into buf; length or -errno. NULL: reading is EACCES. */
	int (*show)(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		    char *buf);
	/* text is NUL-terminated behind len (1 .. TREE_ATTR_SIZE) bytes. 0, -errno, or TREE_LATER
	 * when attr_done follows. The node may be removed inside. NULL: writing is EACCES. */
	int (*store)(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     const char *text, size_t len, struct attr_wait *wait);
	bool (*visible)(struct tree_node *node, unsigned index);     /* NULL: always */
	uint16_t (*mode_of)(struct tree_node *node, unsigned index); /* NULL: mode */
	const void *data;                                            /* for sharing callbacks */
};

/*
 * A fixed sub-directory of a kind. Either named: shown once, unless count says 0. Or counted (name
 * is NULL): shown count times, named by name_of. Everything below a counted group gets its index;
 * counted groups do not nest in each other.
 */
struct tree_group {
	const char *name;
	unsigned (*count)(struct tree_node *node); /* NULL: 1 */
	/* Counted: writes the NUL-terminated name, at most TREE_NAME_MAX bytes, into buf. */
	void (*name_of)(struct tree_node *node, unsigned index, char *buf);
	const struct tree_attr *attrs;       /* ended by name == NULL; or NULL */
	const struct tree_group *groups;     /* nested, ended by name and name_of NULL; or NULL */
	const struct tree_fixed_link *links; /* ended by name == NULL; or NULL */
};

/* A link of a kind: where it leads is asked when it is looked up, read or listed. */
struct tree_fixed_link {
	const char *name;
	struct tree_node *(*to)(struct tree_node *node); /* NULL: not there now */
};

struct tree_kind {
	const char *name; /* for tests and logs */
	const struct tree_attr *attrs;
	const struct tree_group *groups;
	const struct tree_fixed_link *links;
};

struct tree_node {
	const char *name;             /* behind the struct */
	const struct tree_kind *kind; /* NULL: a link */
	union {
		void *object;     /* what a directory shows; valid until tree_remove */
		const char *text; /* link with fixed text, behind the name; or NULL and ... */
	};
	struct tree_node *to;     /* ... link to a node, held; NULL for others */
	struct tree_node *parent; /* held until this node is freed; NULL: the root */
	struct list_node sibling;
	struct list_node children;              /* in the order they were added: by rising ino */
	struct tree_node *name_next, *ino_next; /* hash chains */
	struct tree_owner *owners;              /* changed modes and owners, or NULL; owned */
	uint64_t ino;                           /* of the node itself */
	time_t born;
	unsigned refs;   /* the tree's until removal, open handles', children's, links' */
	unsigned n_dirs; /* children that are directories */
	bool removed;
};

/* Owned by whoever called tree_init; no node may be held at tree_fini. */
struct tree {
	struct tree_node root;
	struct tree_node **by_name, **by_ino; /* hash tables of n_buckets heads */
	unsigned n_buckets, n_nodes;
	uint64_t next_id;
	/* A changed mode or owner was set, or went with its node. May be called often; must not
	 * touch the tree. NULL: nobody asks. */
	void (*owned_changed)(struct tree *t);
	uid_t uid; /* owner of everything that was not chowned: who runs this process */
	gid_t gid;
};

int tree_init(struct tree *t); /* 0 / -ENOMEM */
void tree_fini(struct tree *t);

/* Appear. NULL: out of memory. The name must be free (asserted). name and target are copied. */
struct tree_node *tree_add(struct tree *t, struct tree_node *parent, const char *name,
			   const struct tree_kind *kind, void *object);
struct tree_node *tree_add_link(struct tree *t, struct tree_node *parent, const char *name,
				const char *target);
/* Relative link from `parent`/name to `to`, as sysfs writes it. */
struct tree_node *tree_add_link_to(struct tree *t, struct tree_node *parent, const char *name,
				   struct tree_node *to);
/* Disappears with everything below it; freed when the last handle goes. Accepts NULL. */
void tree_remove(struct tree *t, struct tree_node *node);
/* The child node (not an entry of a table) of that name, or NULL. */
struct tree_node *tree_child(struct tree *t, const struct tree_node *dir, const char *name);

/* One thing that a path leads to. Plain value; hold node with tree_get while kept. */
enum tree_what { TREE_DIR, TREE_FILE, TREE_LINK };
struct tree_ref {
	struct tree_node *node;
	const struct tree_group *group;     /* inside a group of node, or NULL */
	unsigned index;                     /* of the counted group around it, or 0 */
	const struct tree_attr *attr;       /* TREE_FILE */
	const struct tree_fixed_link *link; /* TREE_LINK of a table; NULL: node is the link */
	enum tree_what what;
	uint64_t ino;
};
void tree_get(struct tree_node *node);
void tree_put(struct tree *t, struct tree_node *node);

struct tree_ref tree_root(struct tree *t);
struct tree_ref tree_ref_of(struct tree_node *node); /* the node itself */
/* The directory that holds ref; of the root the root. */
struct tree_ref tree_up(const struct tree_ref *ref);
/* 0 / -ENOENT. A removed node is found as long as it is held. */
int tree_find_ino(struct tree *t, uint64_t ino, struct tree_ref *ret);
int tree_lookup(struct tree *t, const struct tree_ref *dir, const char *name,
		struct tree_ref *ret); /* 0 / -ENOENT / -ENOTDIR */
/* Walks a path from the root ("class/mdev_bus/mtty", a leading '/' is allowed) through links; a
 * link at the end is followed when `follow`. 0 / -ENOENT / -ENOTDIR / -ELOOP / -ENAMETOOLONG. */
int tree_walk(struct tree *t, const char *path, bool follow, struct tree_ref *ret);
void tree_stat(struct tree *t, const struct tree_ref *ref, struct stat *ret);
/* Calls fn for each entry with an ino above `from` (0: all), by rising ino, until it returns false.
 * fn must not change the tree. 0 / -ENOENT (removed) / -ENOTDIR. */
int tree_list(struct tree *t, const struct tree_ref *dir, uint64_t from,
	      bool (*fn)(void *arg, const char *name, const struct tree_ref *ref), void *arg);
/* The following two: length without the NUL, or -ENOENT / -EINVAL (no link) / -ENAMETOOLONG. */
int tree_readlink(const struct tree_ref *ref, char *buf, size_t size);
int tree_path(const struct tree_ref *ref, char *buf, size_t size); /* "/devices/virtual/..." */

/* Sticky for as long as the node lives. 0 / -ENOMEM. */
int tree_chmod(struct tree *t, const struct tree_ref *ref, mode_t mode);
int tree_chown(struct tree *t, const struct tree_ref *ref, uid_t uid, gid_t gid); /* -1: keep */

/* Calls fn for each entry of which these were changed, with its path. fn must not touch the tree.
 */
void tree_each_owned(struct tree *t, void (*fn)(void *arg, const char *path, const struct stat *st),
		     void *arg);

struct tree_user {
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* borrowed */
	unsigned n_groups;
};
bool tree_user_in_group(const struct tree_user *user, gid_t gid);
/* By mode and owner alone, as access(2): R_OK, W_OK, X_OK. 0 / -EACCES. uid 0 may. */
int tree_permission(struct tree *t, const struct tree_ref *ref, int bits,
		    const struct tree_user *user);
/* As open(2): in addition a file without show (store), or whose mode lets nobody read (write),
 * refuses it to root, too. 0 / -EACCES. */
int tree_access(struct tree *t, const struct tree_ref *ref, int bits, const struct tree_user *user);

/* Length, or -ENODEV when the node (or the group it was in) is gone, -EACCES, or show's errno.
 * buf has TREE_ATTR_SIZE bytes. */
int tree_show(const struct tree_ref *ref, char *buf);

/*
 * A store that may answer later. The front door embeds struct attr_wait and gives it to
 * tree_store; when that returns TREE_LATER, exactly one call of wait->done follows, unless the
 * front door calls attr_cancel first (the writer vanished: the wait ends, the change does not).
 */
struct attr_wait {
	void (*done)(struct attr_wait *wait, int result); /* 0 / -errno; may free wait */
	struct attr_wait **slot; /* where the store keeps it; set by attr_hold */
};
/* 0, TREE_LATER or -errno as above. An empty text is 0 and not stored; of a longer one than
 * TREE_ATTR_SIZE the store sees the beginning. wait may be NULL: nobody wants the late answer. */
int tree_store(struct tree *t, const struct tree_ref *ref, const char *text, size_t len,
	       struct attr_wait *wait);
/* By the store: remember wait in the empty *slot. */
void attr_hold(struct attr_wait **slot, struct attr_wait *wait);
/* By the store's completion: empties *slot and answers; nothing when it was cancelled. */
void attr_done(struct attr_wait **slot, int result);
/* By the front door. */
void attr_cancel(struct attr_wait *wait);

#endif
