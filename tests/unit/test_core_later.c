/* SPDX-License-Identifier: MIT */
/*
 * Answers of a driver that come later, and its own files and objects: what others see meanwhile,
 * and who may give up when.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <string.h>
#include "base/err.h"
#include "core/core.h"

#define UUID_A "1a7e0000-0000-4000-8000-000000000001"
#define UUID_B "1a7e0000-0000-4000-8000-000000000002"
#define P "/class/mdev_bus/p/"

/* ---- a driver that lets others wait ---- */

static struct {
	bool later;              /* of the next create or check */
	struct umdev_mdev *mdev; /* that one of them is about */
	unsigned n_destroyed;
	char text[64];          /* of the one object, or "" */
	struct attr_wait *wait; /* of a write of it */
	struct umdev_object *object;
	char follows[64]; /* what a check makes of the value; "": nothing */
} driver;

static int note_show(const struct umdev_place *place, char *buf, size_t size)
{
	return snprintf(buf, size, "%s %s\n", umdev_parent_name(place->parent), driver.text);
}

static int note_store(const struct umdev_place *place, const char *text, size_t len,
		      struct attr_wait *wait)
{
	assert_ptr_equal(place->object, driver.object);
	assert_string_equal(umdev_object_priv(place->object), "priv");
	snprintf(driver.text, sizeof(driver.text), "%s", text);
	umdev_answer_hold(&driver.wait, wait);
	return UMDEV_LATER;
}

static int add_store(const struct umdev_place *place, const char *text, size_t len,
		     struct attr_wait *wait)
{
	assert_null(place->object);
	driver.object = umdev_object_add(place->parent, "notes", text, "priv");
	return driver.object ? 0 : -ENOMEM;
}

static int uuid_show(const struct umdev_place *place, char *buf, size_t size)
{
	return snprintf(buf, size, "%s\n", umdev_mdev_uuid(place->mdev));
}

static const struct umdev_attr folder_attrs[] = {
	{ .name = "add", .mode = 0200, .store = add_store },
	{ .name = NULL },
};
static const struct umdev_attr object_attrs[] = {
	{ .name = "note", .mode = 0644, .show = note_show, .store = note_store },
	{ .name = NULL },
};
static const struct umdev_folder folders[] = {
	{ .name = "notes", .attrs = folder_attrs, .object_attrs = object_attrs },
	{ .name = NULL },
};
static const struct umdev_attr mdev_attrs[] = {
	{ .name = "who", .mode = 0444, .show = uuid_show },
	{ .name = NULL },
};

static const struct umdev_param size = {
	.name = "size",
	.def = "1",
	.max = 100,
	.type = UMDEV_U32,
	.writable = UMDEV_W_LIVE,
	.pool = "units",
};
static const struct umdev_param *const params[] = { &size, NULL };
static const struct umdev_pool pools[] = { { .name = "units", .capacity = 100 }, { .name = NULL } };
static const struct umdev_type types[] = {
	{ .name = "x",
	  .device_api = "vfio-pci",
	  .class_name = "misc",
	  .params = params,
	  .attrs = mdev_attrs,
	  .label = true },
	{ .name = NULL },
};

static int late_add(struct umdev_parent *parent)
{
	/* Before the parent is published. */
	driver.object = umdev_object_add(parent, "notes", "first", "priv");
	return driver.object ? 0 : -ENOMEM;
}

static int late_create(struct umdev_mdev *mdev)
{
	driver.mdev = mdev;
	return driver.later ? UMDEV_LATER : 0;
}

static void late_destroy(struct umdev_mdev *mdev)
{
	driver.n_destroyed++;
}

static int late_check(struct umdev_mdev *mdev, const struct umdev_param *param,
		      const struct umdev_value *value)
{
	driver.mdev = mdev;
	if (*driver.follows)
		assert_int_equal(umdev_mdev_param_follows(mdev, "size", driver.follows), 0);
	return driver.later ? UMDEV_LATER : 0;
}

static const struct umdev_parent_driver late_driver = {
	.abi = UMDEV_ABI,
	.name = "late",
	.types = types,
	.pools = pools,
	.folders = folders,
	.add = late_add,
	.mdev_create = late_create,
	.mdev_destroy = late_destroy,
	.param_check = late_check,
};
static const struct umdev_parent_driver *const drivers[] = { &late_driver, NULL };

/* ---- the model around it ---- */

static int listen_nowhere(void *arg, struct umdev_mdev *mdev)
{
	mdev->dir_fd = -1;
	return 0;
}

static void unlisten(void *arg, struct umdev_mdev *mdev)
{
}

static void see_event(void *arg, const struct core_event *event)
{
}

static const struct core_ops ops = {
	.mdev_listen = listen_nowhere,
	.mdev_unlisten = unlisten,
	.event = see_event,
};

struct writer {
	struct attr_wait wait;
	int result; /* 1: not answered */
};

static void answered(struct attr_wait *wait, int result)
{
	container_of(wait, struct writer, wait)->result = result;
}

static struct core core;
static struct umdev_parent *parent;

static int setup(void **state)
{
	memset(&driver, 0, sizeof(driver));
	assert_int_equal(core_init(&core, drivers, &ops, NULL), 0);
	assert_int_equal(parent_add(&core, "p", "late", NULL, 0, &parent), 0);
	return 0;
}

static int teardown(void **state)
{
	driver.later = false;
	if (parent)
		assert_int_equal(parent_remove(parent), 0);
	core_fini(&core);
	return 0;
}

/* writer NULL: nobody waits. */
static int put(const char *path, const char *text, struct writer *writer)
{
	struct tree_ref ref;
	int error = tree_walk(&core.tree, path, true, &ref);

	err_clear();
	if (writer)
		*writer = (struct writer){ .wait.done = answered, .result = 1 };
	return error ? error
		     : tree_store(&core.tree, &ref, text, strlen(text),
				  writer ? &writer->wait : NULL);
}

static const char *get(const char *path)
{
	static char buf[TREE_ATTR_SIZE + 1];
	struct tree_ref ref;
	int n = tree_walk(&core.tree, path, true, &ref);

	if (n == 0)
		n = tree_show(&ref, buf);
	if (n < 0)
		return err_name(n);
	buf[n] = '\0';
	return buf;
}

static bool exists(const char *path)
{
	struct tree_ref ref;

	return tree_walk(&core.tree, path, true, &ref) == 0;
}

#define CREATE P "mdev_supported_types/late-x/create"

static struct umdev_mdev *make(const char *uuid)
{
	driver.later = false;
	assert_int_equal(put(CREATE, uuid, NULL), 0);
	return driver.mdev;
}

/* ---- devices ---- */

static void a_device_that_takes_time_is_nowhere_until_it_is_complete(void **state)
{
	struct umdev_mdev *found;
	struct writer writer;

	driver.later = true;
	assert_int_equal(put(CREATE, UUID_A ",size=7,label=tom", &writer), TREE_LATER);
	assert_false(exists(P UUID_A));
	assert_false(exists("/bus/mdev/devices/" UUID_A));
	assert_int_equal(mdev_find_name(&core, UUID_A, &found), -ENOENT);
	assert_int_equal(mdev_find_name(&core, "tom", &found), -ENOENT);
	assert_int_equal(put(CREATE, UUID_A, NULL), -EEXIST);
	assert_int_equal(put("/bus/mdev/drivers/late/bind", UUID_A, NULL), -ENODEV);
	assert_int_equal(parent_remove(parent), -EBUSY);
	assert_int_equal(parent->pools[0].used, 7);
	assert_int_equal(writer.result, 1);
	umdev_mdev_created(driver.mdev, 0);
	assert_int_equal(writer.result, 0);
	assert_string_equal(get(P UUID_A "/vendor/who"), UUID_A "\n");
	assert_true(exists("/bus/mdev/devices/" UUID_A));
	assert_int_equal(mdev_find_name(&core, "tom", &found), 0);
	assert_int_equal(driver.n_destroyed, 0);
}

static void a_device_that_cannot_be_made_leaves_nothing(void **state)
{
	struct writer writer;

	driver.later = true;
	assert_int_equal(put(CREATE, UUID_A ",size=7", &writer), TREE_LATER);
	umdev_mdev_created(driver.mdev, -ENOSPC);
	assert_int_equal(writer.result, -ENOSPC);
	assert_int_equal(driver.n_destroyed, 0); /* it has undone it itself */
	assert_int_equal(parent->pools[0].used, 0);
	make(UUID_A);
}

static void who_stops_waiting_does_not_stop_a_device(void **state)
{
	struct writer writer;

	driver.later = true;
	assert_int_equal(put(CREATE, UUID_A, &writer), TREE_LATER);
	attr_cancel(&writer.wait);
	umdev_mdev_created(driver.mdev, 0);
	assert_int_equal(writer.result, 1);
	assert_true(exists(P UUID_A));
}

static void a_device_is_given_up_at_the_end(void **state)
{
	struct writer writer;

	make(UUID_B);
	driver.later = true;
	assert_int_equal(put(CREATE, UUID_A, &writer), TREE_LATER);
	core_abandon_new(&core);
	assert_int_equal(writer.result, -ESHUTDOWN);
	assert_int_equal(driver.n_destroyed, 1);
	assert_true(exists(P UUID_B));
}

/* ---- parameters ---- */

#define SIZE P UUID_A "/vendor/size/value"

static void a_check_that_takes_time_holds_the_change(void **state)
{
	struct umdev_mdev *mdev = make(UUID_A);
	struct writer writer;

	driver.later = true;
	assert_int_equal(put(SIZE, "40", &writer), TREE_LATER);
	assert_string_equal(get(SIZE), "1\n");
	assert_int_equal(parent->pools[0].used, 40);
	assert_int_equal(put(SIZE, "50", NULL), -EBUSY);
	umdev_mdev_param_checked(mdev, 0);
	assert_int_equal(writer.result, 0);
	assert_string_equal(get(SIZE), "40\n");
	assert_int_equal(put(SIZE, "60", &writer), TREE_LATER);
	umdev_mdev_param_checked(mdev, -ENOSPC);
	assert_int_equal(writer.result, -ENOSPC);
	assert_string_equal(get(SIZE), "40\n");
	assert_int_equal(parent->pools[0].used, 40);
}

static void a_device_that_goes_ends_its_check(void **state)
{
	struct umdev_mdev *mdev = make(UUID_A);
	struct writer writer;

	driver.later = true;
	assert_int_equal(put(SIZE, "40", &writer), TREE_LATER);
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE, NULL), 0);
	assert_int_equal(writer.result, -ENODEV);
	assert_int_equal(parent->pools[0].used, 0);
	assert_int_equal(driver.n_destroyed, 1);
}

static void a_value_may_follow_from_something_else(void **state)
{
	struct umdev_mdev *mdev = make(UUID_A);
	struct writer writer;

	assert_int_equal(umdev_mdev_param_follows(mdev, "size", "1"), 0);
	strcpy(driver.follows, "9");
	assert_int_equal(put(SIZE, "5", &writer), 0);
	assert_string_equal(get(SIZE), "9\n");
	*driver.follows = '\0';
	driver.later = true;
	assert_int_equal(put(SIZE, "5", &writer), TREE_LATER);
	assert_int_equal(umdev_mdev_param_follows(mdev, "size", "8"), 0);
	assert_string_equal(get(SIZE), "9\n");
	umdev_mdev_param_checked(mdev, 0);
	assert_string_equal(get(SIZE), "8\n");
	assert_int_equal(umdev_mdev_param_follows(mdev, "size", "many"), -EINVAL);
}

/* ---- objects ---- */

static void objects_have_files_of_their_own(void **state)
{
	struct writer writer;
	struct tree_ref held;
	char buf[TREE_ATTR_SIZE];

	assert_string_equal(get(P "notes/first/note"), "p \n");
	assert_int_equal(put(P "notes/add", "second", NULL), 0);
	assert_int_equal(put(P "notes/second/note", "hello", &writer), TREE_LATER);
	assert_int_equal(writer.result, 1);
	umdev_answer(&driver.wait, -EXDEV);
	assert_int_equal(writer.result, -EXDEV);
	assert_string_equal(get(P "notes/second/note"), "p hello\n");
	assert_int_equal(tree_walk(&core.tree, P "notes/second/note", true, &held), 0);
	tree_get(held.node);
	umdev_object_remove(driver.object);
	assert_false(exists(P "notes/second"));
	assert_int_equal(tree_show(&held, buf), -ENODEV);
	assert_true(exists(P "notes/first"));
	tree_put(&core.tree, held.node);
}

static void a_file_may_be_held_longer_than_its_parent(void **state)
{
	struct tree_ref held;
	char buf[TREE_ATTR_SIZE];
	struct stat st;

	assert_int_equal(tree_walk(&core.tree, P "notes/first/note", true, &held), 0);
	tree_get(held.node);
	assert_int_equal(parent_remove(parent), 0);
	parent = NULL;
	assert_int_equal(tree_show(&held, buf), -ENODEV);
	tree_stat(&core.tree, &held, &st); /* as a program that has it open */
	assert_int_equal(st.st_mode & 0777, 0644);
	tree_put(&core.tree, held.node);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_device_that_takes_time_is_nowhere_until_it_is_complete),
		TEST(a_device_that_cannot_be_made_leaves_nothing),
		TEST(who_stops_waiting_does_not_stop_a_device),
		TEST(a_device_is_given_up_at_the_end),
		TEST(a_check_that_takes_time_holds_the_change),
		TEST(a_device_that_goes_ends_its_check),
		TEST(a_value_may_follow_from_something_else),
		TEST(objects_have_files_of_their_own),
		TEST(a_file_may_be_held_longer_than_its_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
