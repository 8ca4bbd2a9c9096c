/* SPDX-License-Identifier: MIT */
/* mdev_start and mdev_stop: sets of devices, all or none, and what being started means. */
#include <stdio.h>
#include <stdlib.h>
#include "core_fixture.h"

#define START "class/mdev/mdev_start"
#define STOP "class/mdev/mdev_stop"

static struct umdev_mdev *pair(struct fixture *f, const char *uuid, const char *p2p)
{
	char spec[128];

	snprintf(spec, sizeof(spec), "%s,peer_to_peer_resource_uuid=%s", uuid, p2p);
	return create(f, f->thing, "thing-pair", spec);
}

static int write_later(struct fixture *f, const char *path, const char *text, struct waiter *w)
{
	waiter_init(w);
	return write_bytes(f, path, text, strlen(text), &w->wait);
}

static void a_set_is_started_when_its_last_device_is_served(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b;
	struct waiter w;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-full", UUID_A);
	b = create(f, f->thing, "thing-bare", UUID_B);
	assert_int_equal(write_later(f, START, UUID_A "  " UUID_B "\t" UUID_A "\n", &w),
			 TREE_LATER);
	assert_int_equal(f->n_wanted, 2);
	core_start_done(a, 0);
	core_start_done(a, 0);
	assert_false(w.answered);
	assert_int_equal(a->state, MDEV_IDLE);
	assert_true(mdev_in_use(a));
	assert_int_equal(mdev_remove(a, MDEV_REMOVE, NULL), -EBUSY);
	assert_int_equal(write_file(f, START, UUID_A), -EBUSY);
	assert_int_equal(write_file(f, STOP, UUID_A), -EBUSY);
	core_start_done(b, 0);
	assert_true(w.answered);
	assert_int_equal(w.result, 0);
	assert_int_equal(a->state, MDEV_STARTED);
	assert_int_equal(b->state, MDEV_STARTED);
	assert_string_equal(read_file(f, "bus/mdev/devices/" UUID_A "/mdev_started"), "1\n");
	/* Again: they are. */
	assert_int_equal(write_file(f, START, UUID_B " " UUID_A), 0);
	assert_int_equal(param_set(a, "speed", "600", 3, NULL), -EBUSY);
	assert_int_equal(param_set(a, "colour", "red", 3, NULL), -EBUSY);
	assert_int_equal(mdev_unbind(a), -EBUSY);
	assert_int_equal(parent_remove(f->thing), -EBUSY);
	assert_int_equal(write_file(f, STOP, UUID_B " " UUID_A "\n"), 0);
	assert_int_equal(write_file(f, STOP, UUID_B " " UUID_A "\n"), 0);
	assert_int_equal(a->state, MDEV_IDLE);
	assert_string_equal(read_file(f, "bus/mdev/devices/" UUID_A "/mdev_started"), "0\n");
	assert_int_equal(param_set(a, "speed", "600", 3, NULL), 0);
	assert_int_equal(param_set(a, "colour", "red", 3, NULL), -EBUSY); /* `fresh` is over */
	fixture_free(f);
}

static void one_that_cannot_be_served_starts_none(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b;
	struct waiter w;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-bare", UUID_A);
	b = create(f, f->thing, "thing-bare", UUID_B);
	assert_int_equal(write_later(f, START, UUID_A " " UUID_B, &w), TREE_LATER);
	core_start_done(a, 0);
	core_failed(b, "no memory");
	assert_true(w.answered);
	assert_int_equal(w.result, -EIO);
	assert_int_equal(a->state, MDEV_IDLE);
	assert_int_equal(b->state, MDEV_FAILED);
	assert_int_equal(f->n_unwanted, 2);
	assert_false(mdev_wants_worker(a) || mdev_wants_worker(b));
	/* A failed one may be started; a shortage leaves it as it was. */
	assert_int_equal(write_later(f, START, UUID_B, &w), TREE_LATER);
	core_start_done(b, -ENOMEM);
	assert_int_equal(w.result, -ENOMEM);
	assert_int_equal(b->state, MDEV_FAILED);
	assert_int_equal(write_later(f, START, UUID_B, &w), TREE_LATER);
	core_start_done(b, 0);
	assert_int_equal(b->state, MDEV_STARTED);
	assert_null(b->fail_text);
	/* The worker of its next owner cannot be made. */
	core_start_done(b, -ENOMEM);
	assert_int_equal(b->state, MDEV_FAILED);
	assert_false(mdev_wants_worker(b));
	/* Force takes one out of a set that waits. */
	assert_int_equal(write_later(f, START, UUID_A " " UUID_B, &w), TREE_LATER);
	assert_int_equal(mdev_remove(b, MDEV_REMOVE_FORCE, NULL), 0);
	assert_int_equal(w.result, -ENODEV);
	/* A writer that goes away ends its wait, not the start. */
	assert_int_equal(write_later(f, START, UUID_A, &w), TREE_LATER);
	attr_cancel(&w.wait);
	core_start_done(a, 0);
	assert_false(w.answered);
	assert_int_equal(a->state, MDEV_STARTED);
	stop(a);
	fixture_free(f);
}

static void what_is_written_names_a_group_or_devices(void **state)
{
	static const char *const bad[] = {
		"\n",         " ",          "x",           (UUID_A UUID_B), (UUID_A "\n" UUID_B),
		(UUID_A "x"), (UUID_A ","), ("x " UUID_A),
	};
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b, *c;
	struct waiter w;

	add_plain_thing(f);
	a = pair(f, UUID_A, UUID_C);
	b = pair(f, UUID_B, UUID_C);
	c = create(f, f->thing, "thing-needy", UUID_C);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(write_file(f, START, bad[i]), -EINVAL);
		assert_int_equal(write_file(f, STOP, bad[i]), -EINVAL);
	}
	assert_int_equal(write_file(f, START, "a0000000-0000-4000-8000-0000000000ff"), -ENODEV);
	/* UUID_C is a group and a device: alone the group, else the device. */
	assert_int_equal(write_later(f, START, UUID_C "\n", &w), TREE_LATER);
	core_start_done(a, 0);
	core_start_done(b, 0);
	assert_int_equal(w.result, 0);
	assert_true(a->started && b->started && !c->started);
	assert_int_equal(write_file(f, START, UUID_C " " UUID_A), -EACCES); /* backend is unset */
	assert_int_equal(write_file(f, STOP, UUID_C), 0);
	assert_false(a->started || b->started);
	assert_int_equal(mdev_unbind(a), 0);
	assert_int_equal(write_file(f, START, UUID_A " " UUID_B), -ENODEV);
	assert_int_equal(write_file(f, STOP, UUID_A " " UUID_B), 0);
	fixture_free(f);
}

static void a_started_device_outlives_its_clients(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10), other = process(11);
	struct umdev_mdev *a, *b;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-bare", UUID_A);
	b = create(f, f->thing, "thing-bare", UUID_B);
	start(a);
	core_connected(a, &qemu);
	assert_int_equal(write_file(f, STOP, UUID_A " " UUID_B), -EBUSY);
	core_closed(a);
	assert_int_equal(a->state, MDEV_STARTED);
	assert_int_equal(core_may_connect(a, &other), 0);
	/* Started while connected: the client notices nothing. */
	core_connected(b, &qemu);
	start(b);
	assert_int_equal(b->state, MDEV_CONNECTED);
	core_closed(b);
	assert_int_equal(b->state, MDEV_STARTED);
	core_connected(b, &other);
	core_failed(b, "crashed");
	assert_false(b->started);
	/* Who ends the process is not kept waiting. */
	core_stop_all(&f->core);
	assert_int_equal(a->state, MDEV_IDLE);
	fixture_free(f);
}

static void its_files_are_there_while_a_parent_shows_parameters(void **state)
{
	struct fixture *f = fixture_new();
	struct waiter w;

	add_samples(f);
	assert_false(exists(f, "class/mdev"));
	add_plain_thing(f);
	assert_true(exists(f, START) && exists(f, STOP));
	create(f, f->mtty, "mtty-1", UUID_A);
	assert_false(exists(f, "bus/mdev/devices/" UUID_A "/mdev_started"));
	assert_int_equal(write_later(f, START, UUID_A, &w), TREE_LATER);
	core_stop_all(&f->core);
	assert_int_equal(w.result, -ESHUTDOWN);
	assert_int_equal(parent_remove(f->thing), 0);
	f->thing = NULL;
	assert_false(exists(f, "class/mdev"));
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set_is_started_when_its_last_device_is_served),
		cmocka_unit_test(one_that_cannot_be_served_starts_none),
		cmocka_unit_test(what_is_written_names_a_group_or_devices),
		cmocka_unit_test(a_started_device_outlives_its_clients),
		cmocka_unit_test(its_files_are_there_while_a_parent_shows_parameters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
