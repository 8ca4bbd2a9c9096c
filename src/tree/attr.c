/* SPDX-License-Identifier: MIT */
/* What can be asked of an entry and done to it: stat, modes and owners, show, store. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tree/table.h"

static struct tree_owner *owner_of(const struct tree_ref *ref)
{
	struct tree_owner *owner = ref->node->owners;

	while (owner && owner->ino != ref->ino)
		owner = owner->next;
	return owner;
}

static mode_t default_mode(const struct tree_ref *ref)
{
	if (ref->what == TREE_DIR)
		return 0755;
	if (ref->what == TREE_LINK)
		return 0777;
	if (ref->attr->mode_of && !ref->node->removed)
		return ref->attr->mode_of(ref->node, ref->index);
	return ref->attr->mode;
}

/* The directory, or the group, may have gone while somebody held the node. */
static bool is_gone(const struct tree_ref *ref)
{
	struct table_path path;

	if (ref->node->removed)
		return true;
	if (!ref->group)
		return false;
	return table_path(ref->node->kind, ino_group(ref->ino), &path) < 0 ||
	       !table_is_shown(ref->node, &path, ref->index);
}

void tree_stat(struct tree *t, const struct tree_ref *ref, struct stat *ret)
{
	static const mode_t types[] = {
		[TREE_DIR] = S_IFDIR, [TREE_FILE] = S_IFREG, [TREE_LINK] = S_IFLNK
	};
	const struct tree_owner *owner = owner_of(ref);

	*ret = (struct stat){
		.st_ino = ref->ino,
		.st_mode = types[ref->what] | (owner ? owner->mode : default_mode(ref)),
		.st_uid = owner ? owner->uid : t->uid,
		.st_gid = owner ? owner->gid : t->gid,
		.st_nlink = ref->what == TREE_DIR ? 2 : 1,
		.st_size = ref->what == TREE_FILE ? TREE_ATTR_SIZE : 0,
		.st_blksize = TREE_ATTR_SIZE,
		.st_atim.tv_sec = ref->node->born,
		.st_mtim.tv_sec = ref->node->born,
		.st_ctim.tv_sec = ref->node->born,
	};
	if (ref->what != TREE_DIR || ref->node->removed)
		return;
	ret->st_nlink += table_count_dirs(ref) + (ref->group ? 0 : ref->node->n_dirs);
}

/* The entry of the side list, made if need be. */
static struct tree_owner *own(struct tree *t, const struct tree_ref *ref)
{
	struct tree_owner *owner = owner_of(ref);

	if (owner)
		return owner;
	owner = malloc(sizeof(*owner));
	if (!owner)
		return NULL;
	*owner = (struct tree_owner){
		.next = ref->node->owners,
		.ino = ref->ino,
		.mode = default_mode(ref),
		.uid = t->uid,
		.gid = t->gid,
	};
	ref->node->owners = owner;
	return owner;
}

static void tell(struct tree *t)
{
	if (t->owned_changed)
		t->owned_changed(t);
}

int tree_chmod(struct tree *t, const struct tree_ref *ref, mode_t mode)
{
	struct tree_owner *owner = own(t, ref);

	if (!owner)
		return -ENOMEM;
	owner->mode = mode & 07777;
	tell(t);
	return 0;
}

int tree_chown(struct tree *t, const struct tree_ref *ref, uid_t uid, gid_t gid)
{
	struct tree_owner *owner = own(t, ref);

	if (!owner)
		return -ENOMEM;
	if (uid != (uid_t)-1)
		owner->uid = uid;
	if (gid != (gid_t)-1)
		owner->gid = gid;
	tell(t);
	return 0;
}

void tree_each_owned(struct tree *t, void (*fn)(void *arg, const char *path, const struct stat *st),
		     void *arg)
{
	struct tree_node *node = &t->root, *next;

	/* Depth first, without a stack: up again by the parent. */
	while (node) {
		for (const struct tree_owner *o = node->owners; o; o = o->next) {
			char path[TREE_PATH_MAX];
			struct tree_ref ref;
			struct stat st;

			if (tree_find_ino(t, o->ino, &ref) < 0 ||
			    tree_path(&ref, path, sizeof(path)) < 0)
				continue; /* not shown now */
			tree_stat(t, &ref, &st);
			fn(arg, path, &st);
		}
		next = list_first(&node->children, struct tree_node, sibling);
		while (!next && node->parent) {
			struct list_node *sibling = node->sibling.next;

			node = node->parent;
			if (sibling != &node->children)
				next = container_of(sibling, struct tree_node, sibling);
		}
		node = next;
	}
}

bool tree_user_in_group(const struct tree_user *user, gid_t gid)
{
	unsigned i;

	if (user->gid == gid)
		return true;
	for (i = 0; i < user->n_groups; i++)
		if (user->groups[i] == gid)
			return true;
	return false;
}

int tree_permission(struct tree *t, const struct tree_ref *ref, int bits,
		    const struct tree_user *user)
{
	struct stat st;
	mode_t mode;

	tree_stat(t, ref, &st);
	/* root may all, but execute only what somebody may execute */
	if (user->uid == 0)
		return (bits & X_OK) && !(st.st_mode & 0111) ? -EACCES : 0;
	if (user->uid == st.st_uid)
		mode = st.st_mode >> 6;
	else if (tree_user_in_group(user, st.st_gid))
		mode = st.st_mode >> 3;
	else
		mode = st.st_mode;
	return (mode & bits) == (mode_t)bits ? 0 : -EACCES;
}

int tree_access(struct tree *t, const struct tree_ref *ref, int bits, const struct tree_user *user)
{
	struct stat st;

	if (ref->what == TREE_FILE) {
		tree_stat(t, ref, &st);
		if ((bits & R_OK) && (!ref->attr->show || !(st.st_mode & 0444)))
			return -EACCES;
		if ((bits & W_OK) && (!ref->attr->store || !(st.st_mode & 0222)))
			return -EACCES;
	}
	return tree_permission(t, ref, bits, user);
}

int tree_show(const struct tree_ref *ref, char *buf)
{
	int r;

	if (is_gone(ref))
		return -ENODEV;
	if (ref->what != TREE_FILE || !ref->attr->show)
		return -EACCES;
	r = ref->attr->show(ref->node, ref->attr, ref->index, buf);
	assert(r <= TREE_ATTR_SIZE);
	return r;
}

int tree_store(struct tree *t, const struct tree_ref *ref, const char *text, size_t len,
	       struct attr_wait *wait)
{
	char copy[TREE_ATTR_SIZE + 1];
	struct tree_node *node = ref->node;
	int r;

	if (is_gone(ref))
		return -ENODEV;
	if (ref->what != TREE_FILE || !ref->attr->store)
		return -EACCES;
	if (!len)
		return 0;
	if (len > TREE_ATTR_SIZE)
		len = TREE_ATTR_SIZE;
	memcpy(copy, text, len);
	copy[len] = 0;
	tree_get(node); /* "remove" removes it */
	r = ref->attr->store(node, ref->attr, ref->index, copy, len, wait);
	tree_put(t, node);
	return r;
}

void attr_hold(struct attr_wait **slot, struct attr_wait *wait)
{
	assert(!*slot);
	*slot = wait;
	if (wait)
		wait->slot = slot;
}

void attr_done(struct attr_wait **slot, int result)
{
	struct attr_wait *wait = *slot;

	if (!wait)
		return;
	*slot = NULL;
	wait->slot = NULL;
	wait->done(wait, result);
}

void attr_cancel(struct attr_wait *wait)
{
	if (wait->slot)
		*wait->slot = NULL;
	wait->slot = NULL;
}
