/* SPDX-License-Identifier: MIT */
/*
 * Kinds as tables: from a directory and a name, or from a number, to an entry.
 *
 * Groups are numbered depth first, so a group's number is smaller than those of the groups in it
 * and of those behind it, and all inos of a directory's entries rise in the order in which they
 * are listed here: attributes, links, groups.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "tree/table.h"

static bool group_is_end(const struct tree_group *group)
{
	return !group->name && !group->name_of;
}

static unsigned count_groups(const struct tree_group *groups)
{
	unsigned n = 0;

	for (; groups && !group_is_end(groups); groups++)
		n += 1 + count_groups(groups->groups);
	return n;
}

static unsigned count_attrs(const struct tree_attr *attrs)
{
	unsigned n = 0;

	while (attrs && attrs[n].name)
		n++;
	return n;
}

static bool group_is_counted(const struct tree_group *group)
{
	return !group->name;
}

/* How often a group is shown in a node. */
static unsigned group_count(struct tree_node *node, const struct tree_group *group)
{
	unsigned n = group->count ? group->count(node) : 1;

	assert(n <= TREE_MAX_INDEX);
	return group_is_counted(group) ? n : !!n;
}

const char *table_name(struct tree_node *node, const struct tree_group *group, unsigned index,
		       char *buf)
{
	if (!group_is_counted(group))
		return group->name;
	group->name_of(node, index, buf);
	return buf;
}

int table_path(const struct tree_kind *kind, unsigned number, struct table_path *ret)
{
	const struct tree_group *g = kind->groups;
	unsigned at = 1, below;

	*ret = (struct table_path){ 0 };
	if (!number)
		return 0;
	while (g && !group_is_end(g)) {
		below = count_groups(g->groups);
		if (number > at + below) {
			at += 1 + below;
			g++;
			continue;
		}
		assert(ret->n < TREE_MAX_NESTING);
		ret->step[ret->n].group = g;
		ret->step[ret->n++].number = at;
		if (number == at)
			return 0;
		g = g->groups;
		at++;
	}
	return -ENOENT;
}

bool table_is_shown(struct tree_node *node, const struct table_path *path, unsigned index)
{
	bool counted = false;
	unsigned i, n;

	for (i = 0; i < path->n; i++) {
		n = group_count(node, path->step[i].group);
		counted |= group_is_counted(path->step[i].group);
		if (group_is_counted(path->step[i].group) ? index >= n : !n)
			return false;
	}
	return counted || !index;
}

/* The tables of one directory. */
struct level {
	const struct tree_attr *attrs;
	const struct tree_fixed_link *links;
	const struct tree_group *groups;
	unsigned n_attrs, number;
};

static struct level level_of(const struct tree_ref *dir)
{
	const struct tree_kind *kind = dir->node->kind;
	struct level level = {
		.attrs = dir->group ? dir->group->attrs : kind->attrs,
		.links = dir->group ? dir->group->links : kind->links,
		.groups = dir->group ? dir->group->groups : kind->groups,
		.number = ino_group(dir->ino),
	};

	level.n_attrs = count_attrs(level.attrs);
	return level;
}

static struct tree_ref entry_of(const struct tree_ref *dir, unsigned place)
{
	struct tree_ref ref = *dir;

	assert(place < TREE_MAX_ENTRIES);
	ref.ino = (dir->ino & ~INO_MASK(INO_ENTRY_BITS)) | (INO_FIRST_ENTRY + place);
	return ref;
}

static bool attr_is_visible(const struct tree_ref *dir, const struct tree_attr *attr)
{
	return !attr->visible || attr->visible(dir->node, dir->index);
}

static struct tree_ref attr_ref(const struct tree_ref *dir, const struct level *level, unsigned i)
{
	struct tree_ref ref = entry_of(dir, i);

	ref.what = TREE_FILE;
	ref.attr = &level->attrs[i];
	return ref;
}

static struct tree_ref link_ref(const struct tree_ref *dir, const struct level *level, unsigned i)
{
	struct tree_ref ref = entry_of(dir, level->n_attrs + i);

	ref.what = TREE_LINK;
	ref.link = &level->links[i];
	return ref;
}

/* index: of group when it is counted, else what it inherits. */
static struct tree_ref group_ref(struct tree_node *node, const struct tree_group *group,
				 unsigned number, unsigned index)
{
	uint64_t place = (uint64_t)number << INO_INDEX_BITS | index;

	assert(number <= TREE_MAX_GROUPS);
	return (struct tree_ref){
		.node = node,
		.group = group,
		.index = index,
		.what = TREE_DIR,
		.ino = ino_id(node->ino) << INO_LOCAL_BITS | place << INO_ENTRY_BITS | INO_DIR,
	};
}

/* Does `name` name group; with which index? */
static bool group_matches(const struct tree_ref *dir, const struct tree_group *group,
			  const char *name, unsigned *ret_index)
{
	char buf[TREE_NAME_MAX + 1];
	unsigned i, n;

	*ret_index = dir->index;
	if (!group_is_counted(group))
		return !strcmp(name, group->name) && group_count(dir->node, group);
	n = group_count(dir->node, group);
	for (i = 0; i < n; i++) {
		*ret_index = i;
		if (!strcmp(name, table_name(dir->node, group, i, buf)))
			return true;
	}
	return false;
}

int table_lookup(const struct tree_ref *dir, const char *name, struct tree_ref *ret)
{
	struct level level = level_of(dir);
	const struct tree_group *g;
	unsigned i, index, number = level.number + 1;

	for (i = 0; i < level.n_attrs; i++) {
		if (strcmp(name, level.attrs[i].name) || !attr_is_visible(dir, &level.attrs[i]))
			continue;
		*ret = attr_ref(dir, &level, i);
		return 0;
	}
	for (i = 0; level.links && level.links[i].name; i++) {
		if (strcmp(name, level.links[i].name) || !level.links[i].to(dir->node))
			continue;
		*ret = link_ref(dir, &level, i);
		return 0;
	}
	for (g = level.groups; g && !group_is_end(g); g++) {
		if (group_matches(dir, g, name, &index)) {
			*ret = group_ref(dir->node, g, number, index);
			return 0;
		}
		number += 1 + count_groups(g->groups);
	}
	return -ENOENT;
}

/* The file or link of directory dir with this entry number. */
static int find_entry(const struct tree_ref *dir, unsigned entry, struct tree_ref *ret)
{
	struct level level = level_of(dir);
	bool removed = dir->node->removed;
	unsigned i, place = entry - INO_FIRST_ENTRY;

	if (entry < INO_FIRST_ENTRY)
		return -ENOENT;
	if (place < level.n_attrs) {
		if (!removed && !attr_is_visible(dir, &level.attrs[place]))
			return -ENOENT;
		*ret = attr_ref(dir, &level, place);
		return 0;
	}
	place -= level.n_attrs;
	for (i = 0; level.links && level.links[i].name && i < place; i++)
		;
	if (!level.links || !level.links[i].name || (!removed && !level.links[i].to(dir->node)))
		return -ENOENT;
	*ret = link_ref(dir, &level, i);
	return 0;
}

int table_find(struct tree_node *node, uint64_t ino, struct tree_ref *ret)
{
	struct tree_ref dir = tree_ref_of(node);
	unsigned index = ino_index(ino);
	struct table_path path;

	if (ino == node->ino) {
		*ret = dir;
		return 0;
	}
	if (!node->kind || table_path(node->kind, ino_group(ino), &path) < 0)
		return -ENOENT;
	if (!node->removed && !table_is_shown(node, &path, index))
		return -ENOENT;
	if (path.n)
		dir = group_ref(node, path.step[path.n - 1].group, ino_group(ino), index);
	if (ino != dir.ino)
		return find_entry(&dir, ino_entry(ino), ret);
	*ret = dir;
	return 0;
}

static bool list_groups(const struct tree_ref *dir, const struct level *level, uint64_t from,
			bool (*fn)(void *arg, const char *name, const struct tree_ref *ref),
			void *arg)
{
	unsigned i, n, number = level->number + 1;
	const struct tree_group *g;
	char buf[TREE_NAME_MAX + 1];
	struct tree_ref ref;

	for (g = level->groups; g && !group_is_end(g); g++) {
		n = group_count(dir->node, g);
		for (i = 0; i < n; i++) {
			ref = group_ref(dir->node, g, number, group_is_counted(g) ? i : dir->index);
			if (ref.ino > from && !fn(arg, table_name(dir->node, g, i, buf), &ref))
				return false;
		}
		number += 1 + count_groups(g->groups);
	}
	return true;
}

bool table_list(const struct tree_ref *dir, uint64_t from,
		bool (*fn)(void *arg, const char *name, const struct tree_ref *ref), void *arg)
{
	struct level level = level_of(dir);
	struct tree_ref ref;
	unsigned i;

	for (i = 0; i < level.n_attrs; i++) {
		ref = attr_ref(dir, &level, i);
		if (ref.ino > from && attr_is_visible(dir, ref.attr) &&
		    !fn(arg, ref.attr->name, &ref))
			return false;
	}
	for (i = 0; level.links && level.links[i].name; i++) {
		ref = link_ref(dir, &level, i);
		if (ref.ino > from && ref.link->to(dir->node) && !fn(arg, ref.link->name, &ref))
			return false;
	}
	return list_groups(dir, &level, from, fn, arg);
}

unsigned table_count_dirs(const struct tree_ref *dir)
{
	struct level level = level_of(dir);
	const struct tree_group *g;
	unsigned n = 0;

	for (g = level.groups; g && !group_is_end(g); g++)
		n += group_count(dir->node, g);
	return n;
}
