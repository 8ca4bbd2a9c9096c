/* SPDX-License-Identifier: MIT */
/* The tree: names, numbers, listing, links, modes, stores that answer later. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tree/tree.h"

/* A device with every construct that a kind can have. */
struct thing {
	unsigned n_params;
	bool bound, hidden;
	char stored[64];
	int stores;
	struct tree_node *bus; /* where `subsystem` leads */
	struct attr_wait *slot;
	struct tree *tree;
	struct tree_node *dir;
};

static int show_name(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf)
{
	return sprintf(buf, "%s %s %u\n", node->name, attr->name, index);
}

static int show_eio(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	return -EIO;
}

static int store_text(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait)
{
	struct thing *thing = node->object;

	assert_int_equal(strlen(text), len);
	snprintf(thing->stored, sizeof(thing->stored), "%u:%s", index, text);
	thing->stores++;
	return len > 100 ? -EINVAL : 0;
}

static int store_later(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       const char *text, size_t len, struct attr_wait *wait)
{
	struct thing *thing = node->object;

	attr_hold(&thing->slot, wait);
	return TREE_LATER;
}

static int store_remove(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			const char *text, size_t len, struct attr_wait *wait)
{
	struct thing *thing = node->object;

	tree_remove(thing->tree, thing->dir);
	return 0;
}

static bool is_not_hidden(struct tree_node *node, unsigned index)
{
	return !((struct thing *)node->object)->hidden;
}

static uint16_t odd_is_private(struct tree_node *node, unsigned index)
{
	return index % 2 ? 0600 : 0644;
}

static unsigned count_params(struct tree_node *node)
{
	return ((struct thing *)node->object)->n_params;
}

static unsigned count_bound(struct tree_node *node)
{
	return ((struct thing *)node->object)->bound;
}

static void param_name(struct tree_node *node, unsigned index, char *buf)
{
	sprintf(buf, "param%u", index);
}

static void vfio_name(struct tree_node *node, unsigned index, char *buf)
{
	strcpy(buf, "vfio7");
}

static struct tree_node *to_bus(struct tree_node *node)
{
	return ((struct thing *)node->object)->bus;
}

static struct tree_node *to_self(struct tree_node *node)
{
	return node;
}

static const struct tree_attr param_attrs[] = {
	{ .name = "value",
	  .mode = 0644,
	  .show = show_name,
	  .store = store_text,
	  .mode_of = odd_is_private },
	{ .name = "type", .mode = 0444, .show = show_name },
	{ 0 },
};
static const struct tree_attr power_attrs[] = {
	{ .name = "delay", .mode = 0644, .show = show_eio, .store = store_text },
	{ 0 },
};
static const struct tree_group param_groups[] = {
	{ .name = "power", .attrs = power_attrs },
	{ 0 },
};
static const struct tree_group mdev_groups[] = {
	{ .count = count_params,
	  .name_of = param_name,
	  .attrs = param_attrs,
	  .groups = param_groups },
	{ 0 },
};
static const struct tree_fixed_link vfio_links[] = {
	{ .name = "device", .to = to_self },
	{ 0 },
};
static const struct tree_group vfio_groups[] = {
	{ .count = count_bound, .name_of = vfio_name, .links = vfio_links },
	{ 0 },
};
static const struct tree_group thing_groups[] = {
	{ .name = "mdev", .groups = mdev_groups },
	{ .name = "vendor", .count = count_bound, .attrs = power_attrs },
	{ .name = "vfio-dev", .groups = vfio_groups },
	{ .name = "power", .attrs = power_attrs },
	{ 0 },
};
static const struct tree_attr thing_attrs[] = {
	{ .name = "remove", .mode = 0200, .store = store_remove },
	{ .name = "secret", .mode = 0444, .show = show_name, .visible = is_not_hidden },
	{ .name = "later", .mode = 0200, .store = store_later },
	{ .name = "text", .mode = 0644, .show = show_name, .store = store_text },
	{ 0 },
};
static const struct tree_fixed_link thing_links[] = {
	{ .name = "subsystem", .to = to_bus },
	{ 0 },
};
static const struct tree_kind thing_kind = {
	.name = "thing", .attrs = thing_attrs, .groups = thing_groups, .links = thing_links
};
static const struct tree_kind dir_kind = { .name = "dir" };

struct fixture {
	struct tree tree;
	struct thing thing;
	struct tree_node *devices, *parent, *bus;
};

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	assert_int_equal(tree_init(&f->tree), 0);
	f->devices = tree_add(&f->tree, &f->tree.root, "devices", &dir_kind, NULL);
	f->parent = tree_add(&f->tree, f->devices, "mtty", &dir_kind, NULL);
	f->bus = tree_add(&f->tree, &f->tree.root, "bus", &dir_kind, NULL);
	f->thing = (struct thing){ .n_params = 3, .bound = true, .bus = f->bus, .tree = &f->tree };
	f->thing.dir = tree_add(&f->tree, f->parent, "thing", &thing_kind, &f->thing);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	tree_fini(&f->tree);
	test_free(f);
	return 0;
}

static struct tree_ref at(struct fixture *f, const char *path)
{
	struct tree_ref ref;

	if (tree_walk(&f->tree, path, false, &ref) < 0)
		fail_msg("no %s", path);
	return ref;
}

static int walk_error(struct fixture *f, const char *path)
{
	struct tree_ref ref;

	return tree_walk(&f->tree, path, true, &ref);
}

static void assert_path(const struct tree_ref *ref, const char *path)
{
	char buf[TREE_PATH_MAX];

	assert_int_equal(tree_path(ref, buf, sizeof(buf)), strlen(path));
	assert_string_equal(buf, path);
}

static bool is_same(const struct tree_ref *a, const struct tree_ref *b)
{
	return a->node == b->node && a->group == b->group && a->index == b->index &&
	       a->attr == b->attr && a->link == b->link && a->what == b->what && a->ino == b->ino;
}

static void a_path_leads_to_an_entry_and_back(void **state)
{
	static const char *const paths[] = {
		"/",
		"/devices/mtty/thing",
		"/devices/mtty/thing/remove",
		"/devices/mtty/thing/mdev",
		"/devices/mtty/thing/mdev/param2/value",
		"/devices/mtty/thing/mdev/param1/power/delay",
		"/devices/mtty/thing/vfio-dev/vfio7",
		"/devices/mtty/thing/vfio-dev/vfio7/device",
		"/devices/mtty/thing/power/delay",
		"/devices/mtty/thing/vendor/delay",
		"/devices/mtty/thing/subsystem",
	};
	struct tree_ref ref, found;
	unsigned i;

	for (i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		ref = at(*state, paths[i]);
		assert_path(&ref, paths[i]);
		assert_int_equal(tree_find_ino(&((struct fixture *)*state)->tree, ref.ino, &found),
				 0);
		assert_true(is_same(&ref, &found));
	}
}

static void what_is_not_there_is_ENOENT(void **state)
{
	struct fixture *f = *state;
	struct tree_ref ref;

	assert_int_equal(walk_error(f, "/devices/nosuch"), -ENOENT);
	assert_int_equal(walk_error(f, "/devices/mtty/thing/mdev/param3"), -ENOENT);
	assert_int_equal(walk_error(f, "/devices/mtty/thing/mdev/value"), -ENOENT);
	assert_int_equal(walk_error(f, "/devices/mtty/thing/remove/x"), -ENOTDIR);
	ref = at(f, "/devices/mtty/thing/mdev/param2/value");
	f->thing.n_params = 2;
	assert_int_equal(tree_find_ino(&f->tree, ref.ino, &ref), -ENOENT);
	assert_int_equal(tree_find_ino(&f->tree, UINT64_MAX, &ref), -ENOENT);
	assert_int_equal(tree_find_ino(&f->tree, f->parent->ino + 8, &ref), -ENOENT);
	assert_int_equal(tree_find_ino(&f->tree, 0, &ref), -ENOENT);
}

static void what_hides_is_not_listed_nor_found(void **state)
{
	struct fixture *f = *state;

	f->thing.hidden = true;
	f->thing.bound = false;
	f->thing.bus = NULL;
	assert_int_equal(walk_error(f, "/devices/mtty/thing/secret"), -ENOENT);
	assert_int_equal(walk_error(f, "/devices/mtty/thing/vendor"), -ENOENT);
	assert_int_equal(walk_error(f, "/devices/mtty/thing/vfio-dev/vfio7"), -ENOENT);
	assert_int_equal(walk_error(f, "/devices/mtty/thing/subsystem"), -ENOENT);
}

struct listing {
	char names[1024];
	uint64_t last;
	unsigned stop_after;
	struct tree *tree;
};

static bool collect(void *arg, const char *name, const struct tree_ref *ref)
{
	struct listing *l = arg;

	assert_true(ref->ino > l->last);
	l->last = ref->ino;
	strcat(strcat(l->names, name), " ");
	return !l->stop_after || --l->stop_after;
}

static void assert_lists(struct fixture *f, const char *path, const char *names)
{
	struct tree_ref dir = at(f, path);
	struct listing l = { 0 };

	assert_int_equal(tree_list(&f->tree, &dir, 0, collect, &l), 0);
	assert_string_equal(l.names, names);
}

static void a_directory_lists_its_tables_then_its_children(void **state)
{
	struct fixture *f = *state;

	assert_non_null(tree_add(&f->tree, f->thing.dir, "child", &dir_kind, NULL));
	assert_lists(f, "/devices/mtty/thing",
		     "remove secret later text subsystem mdev vendor vfio-dev power child ");
	assert_lists(f, "/devices/mtty/thing/mdev", "param0 param1 param2 ");
	assert_lists(f, "/devices/mtty/thing/mdev/param1", "value type power ");
	assert_lists(f, "/devices/mtty/thing/vfio-dev", "vfio7 ");
	f->thing.bound = false;
	assert_lists(f, "/devices/mtty/thing/vfio-dev", "");
	assert_lists(f, "/", "devices bus ");
}

static void listing_goes_on_from_every_place_after_changes(void **state)
{
	struct fixture *f = *state;
	struct tree_ref dir = at(f, "/bus");
	struct tree_node *nodes[10];
	struct listing l = { .stop_after = 4 };
	char name[8];
	int i;

	for (i = 0; i < 10; i++) {
		sprintf(name, "n%d", i);
		nodes[i] = tree_add_link(&f->tree, f->bus, name, "x");
	}
	tree_list(&f->tree, &dir, 0, collect, &l);
	assert_string_equal(l.names, "n0 n1 n2 n3 ");
	tree_remove(&f->tree, nodes[1]); /* seen */
	tree_remove(&f->tree, nodes[3]); /* the place itself */
	tree_remove(&f->tree, nodes[5]); /* not yet seen */
	tree_add_link(&f->tree, f->bus, "n10", "x");
	*l.names = 0;
	tree_list(&f->tree, &dir, l.last, collect, &l);
	assert_string_equal(l.names, "n4 n6 n7 n8 n9 n10 ");
}

static void assert_link(struct fixture *f, const char *path, const char *text)
{
	struct tree_ref ref = at(f, path);
	char buf[TREE_PATH_MAX];

	assert_int_equal(ref.what, TREE_LINK);
	assert_int_equal(tree_readlink(&ref, buf, sizeof(buf)), strlen(text));
	assert_string_equal(buf, text);
}

static void links_are_written_as_sysfs_writes_them(void **state)
{
	struct fixture *f = *state;

	tree_add_link_to(&f->tree, f->bus, "thing", f->thing.dir);
	tree_add_link_to(&f->tree, f->parent, "type", f->thing.dir);
	tree_add_link_to(&f->tree, f->devices, "thing", f->thing.dir);
	tree_add_link_to(&f->tree, f->thing.dir, "mtty", f->parent);
	tree_add_link_to(&f->tree, &f->tree.root, "thing", f->thing.dir);
	tree_add_link_to(&f->tree, f->parent, "th", f->thing.dir);
	tree_add_link_to(&f->tree, f->parent, "root", &f->tree.root);
	tree_add_link(&f->tree, f->bus, "module", "../module/mtty");
	assert_link(f, "/bus/thing", "../devices/mtty/thing");
	assert_link(f, "/devices/mtty/type", "thing");
	assert_link(f, "/devices/thing", "mtty/thing");
	assert_link(f, "/devices/mtty/thing/mtty", "../../mtty");
	assert_link(f, "/thing", "devices/mtty/thing");
	assert_link(f, "/devices/mtty/th", "thing");
	assert_link(f, "/devices/mtty/root", "../../."); /* once read behind the root's path */
	assert_link(f, "/bus/module", "../module/mtty");
	assert_link(f, "/devices/mtty/thing/subsystem", "../../../bus");
	assert_link(f, "/devices/mtty/thing/vfio-dev/vfio7/device", "../../../thing");
}

static void a_walk_follows_links(void **state)
{
	struct fixture *f = *state;
	struct tree_ref ref;

	tree_add_link_to(&f->tree, f->bus, "thing", f->thing.dir);
	tree_add_link(&f->tree, f->bus, "loop", "loop");
	tree_add_link(&f->tree, f->bus, "away", "/etc/passwd");
	tree_add_link(&f->tree, f->bus, "out", "../../../module/mtty");
	assert_int_equal(tree_walk(&f->tree, "bus/thing/remove", true, &ref), 0);
	assert_path(&ref, "/devices/mtty/thing/remove");
	assert_int_equal(tree_walk(&f->tree, "/bus/thing", true, &ref), 0);
	assert_path(&ref, "/devices/mtty/thing");
	assert_int_equal(tree_walk(&f->tree, "/bus/thing", false, &ref), 0);
	assert_path(&ref, "/bus/thing");
	assert_int_equal(
		tree_walk(&f->tree, "/bus/thing/mdev/param1/../param2/./power/..", true, &ref), 0);
	assert_path(&ref, "/devices/mtty/thing/mdev/param2");
	assert_int_equal(walk_error(f, "/bus/loop"), -ELOOP);
	assert_int_equal(walk_error(f, "/bus/away"), -ENOENT);
	assert_int_equal(walk_error(f, "/bus/out"), -ENOENT);
}

static void stat_says_what_sysfs_says(void **state)
{
	struct fixture *f = *state;
	struct tree_ref ref;
	struct stat st;

	ref = at(f, "/devices/mtty/thing");
	tree_stat(&f->tree, &ref, &st);
	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	assert_int_equal(st.st_nlink, 2 + 4);
	assert_int_equal(st.st_size, 0);
	ref = at(f, "/devices/mtty/thing/mdev");
	tree_stat(&f->tree, &ref, &st);
	assert_int_equal(st.st_nlink, 2 + 3);
	ref = at(f, "/");
	tree_stat(&f->tree, &ref, &st);
	assert_int_equal(st.st_nlink, 2 + 2);
	ref = at(f, "/devices/mtty/thing/remove");
	tree_stat(&f->tree, &ref, &st);
	assert_int_equal(st.st_mode, S_IFREG | 0200);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_size, 4096);
	assert_int_equal(st.st_blksize, 4096);
	assert_int_equal(st.st_blocks, 0);
	ref = at(f, "/devices/mtty/thing/subsystem");
	tree_stat(&f->tree, &ref, &st);
	assert_int_equal(st.st_mode, S_IFLNK | 0777);
	assert_int_equal(st.st_size, 0);
	ref = at(f, "/devices/mtty/thing/mdev/param1/value");
	tree_stat(&f->tree, &ref, &st);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
}

static void every_entry_has_its_own_number(void **state)
{
	struct fixture *f = *state;
	struct tree_ref a = at(f, "/devices/mtty/thing/mdev/param1/power/delay");
	struct tree_ref b = at(f, "/devices/mtty/thing/mdev/param2/power/delay");
	uint64_t ino;

	assert_true(a.ino != b.ino && a.index == 1 && b.index == 2);
	ino = tree_add(&f->tree, f->bus, "x", &dir_kind, NULL)->ino;
	tree_remove(&f->tree, tree_child(&f->tree, f->bus, "x"));
	assert_true(tree_add(&f->tree, f->bus, "x", &dir_kind, NULL)->ino > ino);
}

static int access_by(struct fixture *f, const char *path, int bits, uid_t uid, gid_t gid)
{
	struct tree_ref ref = at(f, path);
	struct tree_user user = { .uid = uid, .gid = 77, .groups = &gid, .n_groups = 1 };

	return tree_access(&f->tree, &ref, bits, &user);
}

static void what_cannot_be_shown_is_refused_to_root_too(void **state)
{
	struct fixture *f = *state;
	const char *create = "/devices/mtty/thing/remove", *name = "/devices/mtty/thing/secret";
	struct tree_ref ref = at(f, create);
	struct tree_user root = { 0 };

	f->tree.uid = f->tree.gid = 0;
	assert_int_equal(access_by(f, create, R_OK, 0, 0), -EACCES);
	assert_int_equal(access_by(f, create, R_OK | W_OK, 0, 0), -EACCES);
	assert_int_equal(access_by(f, create, W_OK, 0, 0), 0);
	assert_int_equal(access_by(f, name, W_OK, 0, 0), -EACCES);
	assert_int_equal(access_by(f, name, R_OK, 1000, 1000), 0);
	assert_int_equal(access_by(f, create, W_OK, 1000, 1000), -EACCES);
	assert_int_equal(tree_chmod(&f->tree, &ref, 0666), 0);
	assert_int_equal(access_by(f, create, R_OK, 0, 0), -EACCES);
	assert_int_equal(tree_permission(&f->tree, &ref, R_OK, &root), 0);
	ref = at(f, name);
	assert_int_equal(tree_chmod(&f->tree, &ref, 0), 0);
	assert_int_equal(access_by(f, name, R_OK, 0, 0), -EACCES);
}

static void changed_modes_and_owners_stick_while_the_node_lives(void **state)
{
	struct fixture *f = *state;
	const char *path = "/devices/mtty/thing/text";
	struct tree_ref ref = at(f, path);

	assert_int_equal(tree_chown(&f->tree, &ref, 1000, -1), 0);
	assert_int_equal(tree_chown(&f->tree, &ref, -1, 50), 0);
	assert_int_equal(tree_chmod(&f->tree, &ref, 0640), 0);
	assert_int_equal(access_by(f, path, R_OK | W_OK, 1000, 1000), 0);
	assert_int_equal(access_by(f, path, R_OK, 1001, 50), 0);
	assert_int_equal(access_by(f, path, W_OK, 1001, 50), -EACCES);
	assert_int_equal(access_by(f, path, R_OK, 1001, 51), -EACCES);
	assert_int_equal(access_by(f, "/devices/mtty/thing/later", W_OK, 1000, 50), -EACCES);
	tree_remove(&f->tree, f->thing.dir);
	f->thing.dir = tree_add(&f->tree, f->parent, "thing", &thing_kind, &f->thing);
	assert_int_equal(access_by(f, path, W_OK, 1000, 1000), -EACCES);
}

static void show_and_store_reach_the_attribute(void **state)
{
	struct fixture *f = *state;
	struct tree_ref ref = at(f, "/devices/mtty/thing/mdev/param2/value");
	char buf[TREE_ATTR_SIZE], *big = test_malloc(6000);

	assert_int_equal(tree_show(&ref, buf), strlen("thing value 2\n"));
	assert_memory_equal(buf, "thing value 2\n", 14);
	assert_int_equal(tree_store(&f->tree, &ref, "abc\n!", 4, NULL), 0);
	assert_string_equal(f->thing.stored, "2:abc\n");
	assert_int_equal(tree_store(&f->tree, &ref, "", 0, NULL), 0);
	assert_int_equal(f->thing.stores, 1);
	memset(big, 'x', 6000);
	assert_int_equal(tree_store(&f->tree, &ref, big, 6000, NULL), -EINVAL);
	test_free(big);
	ref = at(f, "/devices/mtty/thing/power/delay");
	assert_int_equal(tree_show(&ref, buf), -EIO);
	ref = at(f, "/devices/mtty/thing/remove");
	assert_int_equal(tree_show(&ref, buf), -EACCES);
	ref = at(f, "/devices/mtty/thing/secret");
	assert_int_equal(tree_store(&f->tree, &ref, "1", 1, NULL), -EACCES);
}

static void a_held_entry_of_a_removed_node_is_ENODEV(void **state)
{
	struct fixture *f = *state;
	struct tree_ref text = at(f, "/devices/mtty/thing/text"), found;
	struct tree_ref vendor = at(f, "/devices/mtty/thing/vendor/delay");
	struct tree_ref dir = at(f, "/devices/mtty/thing");
	struct tree_ref gone = at(f, "/devices/mtty/thing/remove");
	struct listing l = { 0 };
	char buf[TREE_ATTR_SIZE];
	struct stat st;

	tree_get(text.node);
	f->thing.bound = false;
	assert_int_equal(tree_show(&vendor, buf), -ENODEV);
	assert_int_equal(tree_store(&f->tree, &vendor, "1", 1, NULL), -ENODEV);
	assert_int_equal(tree_store(&f->tree, &gone, "1", 1, NULL), 0);
	memset(&f->thing, 0xff, sizeof(f->thing)); /* nobody may ask the object any more */
	assert_int_equal(tree_show(&text, buf), -ENODEV);
	assert_int_equal(tree_store(&f->tree, &text, "1", 1, NULL), -ENODEV);
	assert_int_equal(walk_error(f, "/devices/mtty/thing"), -ENOENT);
	assert_int_equal(tree_list(&f->tree, &dir, 0, collect, &l), -ENOENT);
	assert_int_equal(tree_lookup(&f->tree, &dir, "text", &found), -ENOENT);
	assert_int_equal(tree_path(&text, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(tree_find_ino(&f->tree, text.ino, &found), 0);
	tree_stat(&f->tree, &found, &st);
	assert_int_equal(st.st_mode, S_IFREG | 0644);
	tree_put(&f->tree, text.node);
	assert_int_equal(tree_find_ino(&f->tree, text.ino, &found), -ENOENT);
}

static void a_subtree_goes_at_once_and_its_memory_with_the_last_holder(void **state)
{
	struct fixture *f = *state;
	unsigned before = f->tree.n_nodes;
	struct tree_node *dir = tree_add(&f->tree, f->bus, "dir", &dir_kind, NULL);
	struct tree_node *sub = tree_add(&f->tree, dir, "sub", &dir_kind, NULL);
	struct tree_node *leaf = tree_add_link_to(&f->tree, sub, "leaf", f->thing.dir);
	struct tree_ref ref = tree_ref_of(leaf);
	char buf[64];

	tree_get(leaf);
	tree_remove(&f->tree, f->thing.dir);
	tree_remove(&f->tree, dir);
	assert_int_equal(walk_error(f, "/bus/dir/sub"), -ENOENT);
	assert_int_equal(tree_readlink(&ref, buf, sizeof(buf)), -ENOENT);
	/* still there: dir and sub above leaf, thing below it */
	assert_int_equal(f->tree.n_nodes, before + 3);
	tree_put(&f->tree, leaf);
	assert_int_equal(f->tree.n_nodes, before - 1);
}

static void ten_thousand_nodes_are_found_and_go(void **state)
{
	struct fixture *f = *state;
	unsigned before = f->tree.n_nodes, i;
	struct tree_node *node;
	char name[40];

	for (i = 0; i < 10000; i++) {
		sprintf(name, "a0000000-0000-4000-8000-%012u", i);
		node = tree_add(&f->tree, f->bus, name, &thing_kind, &f->thing);
		assert_non_null(node);
	}
	assert_true(f->tree.n_buckets >= 10000);
	for (i = 0; i < 10000; i += 7) {
		sprintf(name, "a0000000-0000-4000-8000-%012u", i);
		node = tree_child(&f->tree, f->bus, name);
		assert_non_null(node);
		assert_string_equal(node->name, name);
		tree_remove(&f->tree, node);
		assert_null(tree_child(&f->tree, f->bus, name));
	}
	while ((node = list_first(&f->bus->children, struct tree_node, sibling)))
		tree_remove(&f->tree, node);
	assert_int_equal(f->tree.n_nodes, before);
}

struct writer {
	struct attr_wait wait;
	int answers, result;
};

static void answered(struct attr_wait *wait, int result)
{
	struct writer *w = container_of(wait, struct writer, wait);

	w->answers++;
	w->result = result;
}

static void a_late_answer_reaches_its_writer_once(void **state)
{
	struct fixture *f = *state;
	struct tree_ref ref = at(f, "/devices/mtty/thing/later");
	struct writer w = { .wait.done = answered };

	assert_int_equal(tree_store(&f->tree, &ref, "1", 1, &w.wait), TREE_LATER);
	assert_int_equal(w.answers, 0);
	attr_done(&f->thing.slot, -EBUSY);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.result, -EBUSY);
	attr_done(&f->thing.slot, 0);
	assert_int_equal(w.answers, 1);
}

static void a_vanished_writer_is_not_answered(void **state)
{
	struct fixture *f = *state;
	struct tree_ref ref = at(f, "/devices/mtty/thing/later");
	struct writer w = { .wait.done = answered };

	assert_int_equal(tree_store(&f->tree, &ref, "1", 1, &w.wait), TREE_LATER);
	attr_cancel(&w.wait);
	attr_cancel(&w.wait);
	attr_done(&f->thing.slot, 0);
	assert_int_equal(w.answers, 0);
	assert_int_equal(tree_store(&f->tree, &ref, "1", 1, NULL), TREE_LATER);
	attr_done(&f->thing.slot, 0);
}

static unsigned n_changes;

static void count_change(struct tree *t)
{
	n_changes++;
}

static void put_owned(void *arg, const char *path, const struct stat *st)
{
	char line[256];

	snprintf(line, sizeof(line), "%o %d %d %s\n", st->st_mode & 07777, (int)st->st_uid,
		 (int)st->st_gid, path);
	strcat(arg, line);
}

static void what_was_changed_is_told_and_listed_until_it_goes(void **state)
{
	struct fixture *f = *state;
	struct tree_ref text = at(f, "/devices/mtty/thing/text"), dir = at(f, "/devices");
	char list[1024] = "";

	n_changes = 0;
	f->tree.owned_changed = count_change;
	assert_int_equal(tree_chown(&f->tree, &text, 1000, 50), 0);
	assert_int_equal(tree_chmod(&f->tree, &text, 0640), 0);
	assert_int_equal(tree_chmod(&f->tree, &dir, 0700), 0);
	assert_int_equal(tree_chown(&f->tree, &dir, 0, 0), 0);
	assert_int_equal(n_changes, 4);
	tree_each_owned(&f->tree, put_owned, list);
	assert_string_equal(list, "700 0 0 /devices\n640 1000 50 /devices/mtty/thing/text\n");
	tree_remove(&f->tree, f->thing.dir);
	assert_int_equal(n_changes, 5);
	list[0] = '\0';
	tree_each_owned(&f->tree, put_owned, list);
	assert_string_equal(list, "700 0 0 /devices\n");
	f->thing.dir = tree_add(&f->tree, f->parent, "thing", &thing_kind, &f->thing);
	assert_int_equal(n_changes, 5);
	f->tree.owned_changed = NULL;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_path_leads_to_an_entry_and_back),
		T(what_is_not_there_is_ENOENT),
		T(what_hides_is_not_listed_nor_found),
		T(a_directory_lists_its_tables_then_its_children),
		T(listing_goes_on_from_every_place_after_changes),
		T(links_are_written_as_sysfs_writes_them),
		T(a_walk_follows_links),
		T(stat_says_what_sysfs_says),
		T(every_entry_has_its_own_number),
		T(what_cannot_be_shown_is_refused_to_root_too),
		T(changed_modes_and_owners_stick_while_the_node_lives),
		T(what_was_changed_is_told_and_listed_until_it_goes),
		T(show_and_store_reach_the_attribute),
		T(a_held_entry_of_a_removed_node_is_ENODEV),
		T(a_subtree_goes_at_once_and_its_memory_with_the_last_holder),
		T(ten_thousand_nodes_are_found_and_go),
		T(a_late_answer_reaches_its_writer_once),
		T(a_vanished_writer_is_not_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
