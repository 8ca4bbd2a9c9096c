/* SPDX-License-Identifier: MIT */
/*
 * Nodes: how they appear, are found and disappear.
 *
 * A node is in the tables by_ino as long as it exists and in by_name until it is removed. It holds
 * its parent, and a link holds its target, so that names can be made of removed nodes' ancestors
 * without asking whether they still exist.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tree/table.h"

#define FIRST_BUCKETS 256 /* a tree without devices has about a hundred nodes */

static const struct tree_kind root_kind = { .name = "root" };

static unsigned hash_name(const struct tree_node *parent, const char *name)
{
	uint64_t h = parent->ino * UINT64_C(0x9e3779b97f4a7c15);

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
	return h >> 32;
}

/* Counted numbers fill the buckets evenly, and neighbours stay neighbours in the cache. */
static unsigned hash_ino(uint64_t ino)
{
	return (unsigned)ino_id(ino);
}

static struct tree_node **name_bucket(struct tree *t, const struct tree_node *parent,
				      const char *name)
{
	return &t->by_name[hash_name(parent, name) & (t->n_buckets - 1)];
}

static struct tree_node **ino_bucket(struct tree *t, uint64_t ino)
{
	return &t->by_ino[hash_ino(ino) & (t->n_buckets - 1)];
}

static void hash_insert(struct tree *t, struct tree_node *node)
{
	struct tree_node **head = ino_bucket(t, node->ino);

	node->ino_next = *head;
	*head = node;
	if (!node->parent || node->removed)
		return;
	head = name_bucket(t, node->parent, node->name);
	node->name_next = *head;
	*head = node;
}

static void hash_remove_name(struct tree *t, struct tree_node *node)
{
	struct tree_node **at = name_bucket(t, node->parent, node->name);

	while (*at != node)
		at = &(*at)->name_next;
	*at = node->name_next;
}

static void hash_remove_ino(struct tree *t, struct tree_node *node)
{
	struct tree_node **at = ino_bucket(t, node->ino);

	while (*at != node)
		at = &(*at)->ino_next;
	*at = node->ino_next;
}

/* Doubles the tables; without memory they stay as they are and only get slower. */
static void hash_grow(struct tree *t)
{
	struct tree_node **old = t->by_ino, *node, *next;
	unsigned i, n = t->n_buckets * 2;
	struct tree_node **by_name = calloc(n, sizeof(*by_name));
	struct tree_node **by_ino = calloc(n, sizeof(*by_ino));

	if (!by_name || !by_ino) {
		free(by_name);
		free(by_ino);
		return;
	}
	free(t->by_name);
	t->by_name = by_name;
	t->by_ino = by_ino;
	t->n_buckets = n;
	for (i = 0; i < n / 2; i++) {
		for (node = old[i]; node; node = next) {
			next = node->ino_next;
			hash_insert(t, node);
		}
	}
	free(old);
}

int tree_init(struct tree *t)
{
	*t = (struct tree){
		.n_buckets = FIRST_BUCKETS,
		.n_nodes = 1,
		.next_id = 1,
		.uid = geteuid(),
		.gid = getegid(),
		.root = { .name = "", .kind = &root_kind, .ino = TREE_ROOT_INO, .refs = 1 },
	};
	t->by_name = calloc(t->n_buckets, sizeof(*t->by_name));
	t->by_ino = calloc(t->n_buckets, sizeof(*t->by_ino));
	if (!t->by_name || !t->by_ino) {
		free(t->by_name);
		free(t->by_ino);
		return -ENOMEM;
	}
	t->root.born = time(NULL);
	list_init(&t->root.children);
	hash_insert(t, &t->root);
	return 0;
}

static void free_owners(struct tree_node *node)
{
	struct tree_owner *owner, *next;

	for (owner = node->owners; owner; owner = next) {
		next = owner->next;
		free(owner);
	}
	node->owners = NULL;
}

void tree_fini(struct tree *t)
{
	struct tree_node *child;

	while ((child = list_first(&t->root.children, struct tree_node, sibling)))
		tree_remove(t, child);
	assert(t->n_nodes == 1 && t->root.refs == 1);
	free_owners(&t->root);
	free(t->by_name);
	free(t->by_ino);
}

/* name, and behind it text unless that is NULL, are copied. */
static struct tree_node *add(struct tree *t, struct tree_node *parent, const char *name,
			     const struct tree_kind *kind, const char *text)
{
	size_t name_size = strlen(name) + 1, text_size = text ? strlen(text) + 1 : 0;
	struct tree_node *node;

	assert(parent->kind && !parent->removed && !tree_child(t, parent, name));
	assert(name_size > 1 && name_size <= TREE_NAME_MAX + 1 && !strchr(name, '/'));
	node = malloc(sizeof(*node) + name_size + text_size);
	if (!node)
		return NULL;
	*node = (struct tree_node){
		.name = memcpy(node + 1, name, name_size),
		.kind = kind,
		.parent = parent,
		.ino = t->next_id++ << INO_LOCAL_BITS | INO_DIR,
		.born = time(NULL),
		.refs = 1,
	};
	if (text)
		node->text = memcpy((char *)(node + 1) + name_size, text, text_size);
	list_init(&node->children);
	list_append(&parent->children, &node->sibling);
	parent->n_dirs += !!kind;
	tree_get(parent);
	if (++t->n_nodes > t->n_buckets)
		hash_grow(t);
	hash_insert(t, node);
	return node;
}

struct tree_node *tree_add(struct tree *t, struct tree_node *parent, const char *name,
			   const struct tree_kind *kind, void *object)
{
	struct tree_node *node = add(t, parent, name, kind, NULL);

	if (node)
		node->object = object;
	return node;
}

struct tree_node *tree_add_link(struct tree *t, struct tree_node *parent, const char *name,
				const char *target)
{
	return add(t, parent, name, NULL, target);
}

struct tree_node *tree_add_link_to(struct tree *t, struct tree_node *parent, const char *name,
				   struct tree_node *to)
{
	struct tree_node *node = add(t, parent, name, NULL, NULL);

	if (!node)
		return NULL;
	node->to = to;
	tree_get(to);
	return node;
}

void tree_remove(struct tree *t, struct tree_node *node)
{
	struct tree_node *child;

	if (!node || node->removed)
		return;
	assert(node->parent);
	while ((child = list_first(&node->children, struct tree_node, sibling)))
		tree_remove(t, child);
	hash_remove_name(t, node);
	list_remove(&node->sibling);
	node->parent->n_dirs -= !!node->kind;
	node->removed = true;
	if (node->owners && t->owned_changed)
		t->owned_changed(t);
	tree_put(t, node);
}

void tree_get(struct tree_node *node)
{
	node->refs++;
}

void tree_put(struct tree *t, struct tree_node *node)
{
	struct tree_node *parent;

	/* A loop: the last reference of a node may be the last but one of its ancestors. */
	for (; node; node = parent) {
		assert(node->refs);
		if (--node->refs)
			return;
		assert(node->removed);
		parent = node->parent;
		if (node->to)
			tree_put(t, node->to);
		hash_remove_ino(t, node);
		t->n_nodes--;
		free_owners(node);
		free(node);
	}
}

struct tree_node *tree_child(struct tree *t, const struct tree_node *dir, const char *name)
{
	struct tree_node *node = *name_bucket(t, dir, name);

	while (node && (node->parent != dir || strcmp(node->name, name)))
		node = node->name_next;
	return node;
}

struct tree_node *node_find(struct tree *t, uint64_t ino)
{
	struct tree_node *node = *ino_bucket(t, ino);

	while (node && ino_id(node->ino) != ino_id(ino))
		node = node->ino_next;
	return node;
}
