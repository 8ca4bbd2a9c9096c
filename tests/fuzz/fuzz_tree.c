/* SPDX-License-Identifier: MIT */
/*
 * Paths that a client of the control socket sends, and numbers that the kernel gives back to the
 * FUSE door. Whatever is found is found again by its number and by its path, and nothing outside
 * the tree is reached.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tree/tree.h"

static unsigned three(struct tree_node *node)
{
	return 3;
}

static void param_name(struct tree_node *node, unsigned index, char *buf)
{
	sprintf(buf, "p%u", index);
}

static struct tree_node *to_parent(struct tree_node *node)
{
	return node->parent;
}

static int show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	return sprintf(buf, "%s %u\n", attr->name, index);
}

static const struct tree_attr attrs[] = {
	{ .name = "value", .mode = 0444, .show = show },
	{ .name = "type", .mode = 0444, .show = show },
	{ 0 },
};
static const struct tree_group inner[] = { { .name = "power", .attrs = attrs }, { 0 } };
static const struct tree_group params[] = {
	{ .count = three, .name_of = param_name, .attrs = attrs, .groups = inner },
	{ 0 },
};
static const struct tree_group groups[] = {
	{ .name = "mdev", .groups = params },
	{ .name = "power", .attrs = attrs },
	{ 0 },
};
static const struct tree_fixed_link links[] = { { .name = "up", .to = to_parent }, { 0 } };
static const struct tree_kind kind = {
	.name = "thing", .attrs = attrs, .groups = groups, .links = links
};

static void fill(struct tree *t)
{
	struct tree_node *a = tree_add(t, &t->root, "a", &kind, NULL);
	struct tree_node *b = tree_add(t, a, "b", &kind, NULL);

	tree_add_link_to(t, &t->root, "l", b);
	tree_add_link_to(t, b, "m", a);
	tree_add_link(t, b, "x", "../../l/up/./mdev");
	tree_add_link(t, b, "loop", "loop/loop");
	tree_add_link(t, b, "out", "../../../../../etc");
	tree_add_link(t, b, "abs", "/etc");
}

static bool count_entry(void *arg, const char *name, const struct tree_ref *ref)
{
	return ++*(unsigned *)arg < 5;
}

static void check_found(struct tree *t, const struct tree_ref *ref)
{
	char buf[TREE_ATTR_SIZE], path[TREE_PATH_MAX];
	struct tree_ref again;
	unsigned n = 0;
	struct stat st;

	assert(tree_find_ino(t, ref->ino, &again) == 0);
	assert(again.node == ref->node && again.attr == ref->attr && again.group == ref->group);
	assert(tree_path(ref, path, sizeof(path)) > 0);
	assert(tree_walk(t, path, false, &again) == 0 && again.ino == ref->ino);
	tree_stat(t, ref, &st);
	assert((st.st_mode & S_IFMT) == (ref->what == TREE_DIR    ? S_IFDIR
					 : ref->what == TREE_FILE ? S_IFREG
								  : S_IFLNK));
	assert((tree_show(ref, buf) > 0) == (ref->what == TREE_FILE));
	assert((tree_readlink(ref, buf, sizeof(buf)) > 0) == (ref->what == TREE_LINK));
	assert((tree_list(t, ref, ref->ino, count_entry, &n) == 0) == (ref->what == TREE_DIR));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *path = malloc(size + 1);
	struct tree_ref ref;
	uint64_t ino = 0;
	struct tree t;

	assert(path && tree_init(&t) == 0);
	fill(&t);
	memcpy(path, data, size);
	path[size] = '\0';
	if (tree_walk(&t, path, true, &ref) == 0)
		check_found(&t, &ref);
	if (tree_walk(&t, path, false, &ref) == 0)
		check_found(&t, &ref);
	memcpy(&ino, data, size < sizeof(ino) ? size : sizeof(ino));
	if (tree_find_ino(&t, ino, &ref) == 0)
		check_found(&t, &ref);
	free(path);
	tree_fini(&t);
	return 0;
}
