/* SPDX-License-Identifier: MIT */
/* From names, numbers and paths to entries and back. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tree/table.h"

#define MAX_LINKS 40 /* on one walk; as the kernel */

struct tree_ref tree_ref_of(struct tree_node *node)
{
	return (struct tree_ref){
		.node = node,
		.what = node->kind ? TREE_DIR : TREE_LINK,
		.ino = node->ino,
	};
}

struct tree_ref tree_root(struct tree *t)
{
	return tree_ref_of(&t->root);
}

int tree_find_ino(struct tree *t, uint64_t ino, struct tree_ref *ret)
{
	struct tree_node *node = node_find(t, ino);

	return node ? table_find(node, ino, ret) : -ENOENT;
}

int tree_lookup(struct tree *t, const struct tree_ref *dir, const char *name, struct tree_ref *ret)
{
	struct tree_node *child;

	if (dir->what != TREE_DIR)
		return -ENOTDIR;
	if (dir->node->removed)
		return -ENOENT;
	if (!dir->group && (child = tree_child(t, dir->node, name))) {
		*ret = tree_ref_of(child);
		return 0;
	}
	return table_lookup(dir, name, ret);
}

int tree_list(struct tree *t, const struct tree_ref *dir, uint64_t from,
	      bool (*fn)(void *arg, const char *name, const struct tree_ref *ref), void *arg)
{
	struct tree_node *node = dir->node, *child, *last;
	struct list_node *at = node->children.next;
	struct tree_ref ref;

	if (dir->what != TREE_DIR)
		return -ENOTDIR;
	if (node->removed)
		return -ENOENT;
	/* A child is younger than its parent: has a higher id than all entries of its tables. */
	if (ino_id(from) <= ino_id(dir->ino) && !table_list(dir, from, fn, arg))
		return 0;
	if (dir->group)
		return 0;
	last = node_find(t, from);
	if (last && last->parent == node && !last->removed)
		at = last->sibling.next;
	for (; at != &node->children; at = at->next) {
		child = container_of(at, struct tree_node, sibling);
		ref = tree_ref_of(child);
		if (ref.ino > from && !fn(arg, child->name, &ref))
			break;
	}
	return 0;
}

struct tree_ref tree_up(const struct tree_ref *ref)
{
	struct tree_ref up = tree_ref_of(ref->node);
	struct table_path path;
	unsigned i;

	if (ref->ino == up.ino)
		return tree_ref_of(ref->node->parent ? ref->node->parent : ref->node);
	table_path(ref->node->kind, ino_group(ref->ino), &path);
	if (ref->what == TREE_DIR)
		path.n--;
	if (!path.n)
		return up;
	up.group = path.step[path.n - 1].group;
	for (i = 0; i < path.n; i++)
		if (!path.step[i].group->name)
			up.index = ref->index;
	up.ino |= (uint64_t)up.index << INO_ENTRY_BITS |
		  (uint64_t)path.step[path.n - 1].number << (INO_ENTRY_BITS + INO_INDEX_BITS);
	return up;
}

/* Name of ref in its directory; its node is not removed unless ref is the node. */
static const char *name_of(const struct tree_ref *ref, char *buf)
{
	if (ref->attr)
		return ref->attr->name;
	if (ref->link)
		return ref->link->name;
	if (ref->group)
		return table_name(ref->node, ref->group, ref->index, buf);
	return ref->node->name;
}

/* Writes the path from its end backwards into the end of buf; where it begins, or NULL: too long.
 */
static const char *path_backwards(const struct tree_ref *ref, char *buf, size_t size)
{
	char name_buf[TREE_NAME_MAX + 1], *at = buf + size - 1;
	struct tree_ref here = *ref;
	const char *name;
	size_t len;

	*at = 0;
	while (here.group || here.attr || here.link || here.node->parent) {
		name = name_of(&here, name_buf);
		len = strlen(name);
		if (len + 1 > (size_t)(at - buf))
			return NULL;
		at -= len;
		memcpy(at, name, len);
		*--at = '/';
		here = tree_up(&here);
	}
	return at;
}

static int copy_text(const char *text, char *buf, size_t size)
{
	size_t len = strlen(text);

	if (len >= size)
		return -ENAMETOOLONG;
	memcpy(buf, text, len + 1);
	return len;
}

int tree_path(const struct tree_ref *ref, char *buf, size_t size)
{
	char tmp[TREE_PATH_MAX];
	const char *path;

	if (ref->node->removed)
		return -ENOENT;
	path = path_backwards(ref, tmp, sizeof(tmp));
	return path ? copy_text(*path ? path : "/", buf, size) : -ENAMETOOLONG;
}

/* As sysfs: up to the deepest directory that holds both, never to the target itself. The root's
 * path is "". */
static int relative(const char *from, const char *to, char *buf, size_t size)
{
	size_t i, common = 0, len = 0;
	char text[TREE_PATH_MAX];
	const char *rest;

	for (i = 0; from[i] == to[i] && to[i]; i++)
		if (to[i] == '/')
			common = i;
	/* "/a" is on the way to "/a/b", not to "/ab" */
	if (!from[i] && to[i] == '/')
		common = i;
	rest = to[common] ? to + common + 1 : ".";
	for (i = common; from[i]; i++)
		if (from[i] == '/')
			len += 3;
	if (len + strlen(rest) >= sizeof(text))
		return -ENAMETOOLONG;
	for (i = 0; i < len; i += 3)
		memcpy(text + i, "../", 3);
	strcpy(text + len, rest);
	return copy_text(text, buf, size);
}

/* Where a link leads: NULL when it is a fixed text. */
static struct tree_node *link_to(const struct tree_ref *ref)
{
	return ref->link ? ref->link->to(ref->node) : ref->node->to;
}

int tree_readlink(const struct tree_ref *ref, char *buf, size_t size)
{
	char from_buf[TREE_PATH_MAX], to_buf[TREE_PATH_MAX];
	const char *from_path, *to_path;
	struct tree_ref from, to;
	struct tree_node *node;

	if (ref->what != TREE_LINK)
		return -EINVAL;
	if (ref->node->removed)
		return -ENOENT;
	node = link_to(ref);
	if (!node)
		return ref->link ? -ENOENT : copy_text(ref->node->text, buf, size);
	from = tree_up(ref);
	to = tree_ref_of(node);
	from_path = path_backwards(&from, from_buf, sizeof(from_buf));
	to_path = path_backwards(&to, to_buf, sizeof(to_buf));
	return from_path && to_path ? relative(from_path, to_path, buf, size) : -ENAMETOOLONG;
}

/* Puts text in front of what is left of a path. */
static int prepend(char rest[TREE_PATH_MAX], const char *text)
{
	size_t len = strlen(text), left = strlen(rest);

	if (len + 1 + left + 1 > TREE_PATH_MAX)
		return -ENAMETOOLONG;
	memmove(rest + len + 1, rest, left + 1);
	memcpy(rest, text, len);
	rest[len] = '/';
	return 0;
}

/* One component: what `here`/`name` is. */
static int step(struct tree *t, const struct tree_ref *here, const char *name, struct tree_ref *ret)
{
	if (here->what != TREE_DIR)
		return -ENOTDIR;
	if (!strcmp(name, ".."))
		*ret = tree_up(here);
	else if (!strcmp(name, "."))
		*ret = *here;
	else
		return tree_lookup(t, here, name, ret);
	return 0;
}

int tree_walk(struct tree *t, const char *path, bool follow, struct tree_ref *ret)
{
	char rest[TREE_PATH_MAX], name[TREE_PATH_MAX], text[TREE_PATH_MAX];
	struct tree_ref here = tree_root(t), next;
	unsigned links = 0;
	size_t len;
	int r;

	r = copy_text(path, rest, sizeof(rest));
	while (r >= 0) {
		size_t skip = strspn(rest, "/");

		memmove(rest, rest + skip, strlen(rest + skip) + 1);
		if (!*rest) {
			*ret = here;
			return 0;
		}
		len = strcspn(rest, "/");
		memcpy(name, rest, len);
		name[len] = 0;
		memmove(rest, rest + len, strlen(rest + len) + 1);
		r = step(t, &here, name, &next);
		if (r < 0)
			break;
		if (next.what != TREE_LINK || (!*rest && !follow)) {
			here = next;
			continue;
		}
		if (++links > MAX_LINKS)
			return -ELOOP;
		r = tree_readlink(&next, text, sizeof(text));
		if (r > 0 && *text == '/')
			return -ENOENT; /* leaves the tree */
		if (r > 0)
			r = prepend(rest, text);
	}
	return r;
}
