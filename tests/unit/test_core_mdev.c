/* SPDX-License-Identifier: MIT */
/* Create, remove, bind and connect: every errno of the kernel's sheet, states and owners. */
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core_fixture.h"

#define TYPE1 "class/mdev_bus/mtty/mdev_supported_types/mtty-1/"
#define DEVICE "bus/mdev/devices/" UUID_A "/"
#define THING "class/mdev_bus/thing/mdev_supported_types/thing-full/"

static void create_refuses_as_a_kernel(void **state)
{
	static const char *const bad[] = {
		"abc",
		"a0000000-0000-4000-8000-00000000000g",
		"a000000000004000800000000000000010000",
		UUID_A ",aggregate=2",
		UUID_A ",label=x",
		UUID_A ":0:0",
		UUID_A "XX",
	};
	struct fixture *f = fixture_new();
	char *before, *after;
	char big[5000];

	add_samples(f);
	before = dump(f, "");
	assert_int_equal(write_file(f, TYPE1 "create", ""), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(write_file(f, TYPE1 "create", bad[i]), -EINVAL);
		assert_non_null(strstr(err_text(-EINVAL), "create: "));
	}
	memset(big, 'a', sizeof(big));
	assert_int_equal(write_bytes(f, TYPE1 "create", big, sizeof(big), NULL), -EINVAL);
	assert_string_equal(read_file(f, TYPE1 "create"), "EACCES");
	after = dump(f, "");
	assert_string_equal(after, before);
	free(before);
	free(after);
	fixture_free(f);
}

static void uuid_is_unique_in_the_whole_system(void **state)
{
	struct fixture *f = fixture_new();

	add_samples(f);
	create(f, f->mtty, "mtty-1", UUID_A);
	assert_int_equal(try_create(f, f->mtty, "mtty-1", UUID_A), -EEXIST);
	assert_int_equal(try_create(f, f->mtty, "mtty-2", UUID_A "\n"), -EEXIST);
	assert_int_equal(try_create(f, f->mdpy, "mdpy-hd", UUID_A), -EEXIST);
	assert_string_equal(read_file(f, TYPE1 "available_instances"), "23\n");
	fixture_free(f);
}

static void instances_run_out_with_eusers_and_units_with_enospc(void **state)
{
	struct fixture *f = fixture_new();
	char uuid[40];

	add_samples(f);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(uuid, sizeof(uuid), "b0000000-0000-4000-8000-%012u", i);
		create(f, f->mdpy, i & 1 ? "mdpy-hd" : "mdpy-vga", uuid);
	}
	assert_int_equal(try_create(f, f->mdpy, "mdpy-xga", UUID_A), -EUSERS);
	/* EEXIST wins over EUSERS. */
	assert_int_equal(try_create(f, f->mdpy, "mdpy-xga", uuid), -EEXIST);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(uuid, sizeof(uuid), "c0000000-0000-4000-8000-%012u", i);
		create(f, f->mbochs, "mbochs-large", uuid);
	}
	assert_string_equal(read_file(f, "class/mdev_bus/mbochs/mdev_supported_types/mbochs-small/"
					 "available_instances"),
			    "16\n");
	create(f, f->mbochs, "mbochs-small", UUID_A);
	assert_int_equal(try_create(f, f->mbochs, "mbochs-large", UUID_B), -ENOSPC);
	assert_non_null(strstr(err_text(-ENOSPC), "60 of 256"));
	fixture_free(f);
}

static void failing_driver_or_listener_leaves_nothing(void **state)
{
	struct fixture *f = fixture_new();
	char *before, *after;

	add_plain_thing(f);
	before = dump(f, "");
	f->create_error = -EPERM;
	assert_int_equal(try_create(f, f->thing, "thing-full", UUID_A), -EPERM);
	f->create_error = 0;
	f->listen_error = -EMFILE;
	assert_int_equal(try_create(f, f->thing, "thing-pair", UUID_A), -EMFILE);
	f->listen_error = 0;
	assert_int_equal(f->n_listening, 0);
	after = dump(f, "");
	assert_string_equal(after, before);
	create(f, f->thing, "thing-pair", UUID_A);
	free(before);
	free(after);
	fixture_free(f);
}

static void remove_reads_numbers_as_a_kernel(void **state)
{
	static const char *const bad[] = { "abc", "2abc", "-1", " 0x2\n", "1 ", "\n" };
	static const char *const nothing[] = { "", "0", "0x0", "00\n" };
	struct fixture *f = fixture_new();

	add_samples(f);
	create(f, f->mtty, "mtty-1", UUID_A);
	assert_string_equal(read_file(f, DEVICE "remove"), "EACCES");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(write_file(f, DEVICE "remove", bad[i]), -EINVAL);
	for (unsigned i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++)
		assert_int_equal(write_file(f, DEVICE "remove", nothing[i]), 0);
	assert_true(exists(f, DEVICE "remove"));
	assert_int_equal(write_file(f, DEVICE "remove", "0x2\n"), 0);
	assert_false(exists(f, "bus/mdev/devices/" UUID_A));
	assert_string_equal(read_file(f, TYPE1 "available_instances"), "24\n");
	fixture_free(f);
}

static void handle_of_a_removed_device_answers_enodev(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;
	struct tree_ref remove, uevent;
	char buf[TREE_ATTR_SIZE];

	add_samples(f);
	mdev = create(f, f->mtty, "mtty-1", UUID_A);
	assert_int_equal(tree_walk(&f->core.tree, DEVICE "remove", true, &remove), 0);
	assert_int_equal(tree_walk(&f->core.tree, DEVICE "uevent", true, &uevent), 0);
	tree_get(remove.node);
	remove_idle(mdev);
	assert_int_equal(tree_store(&f->core.tree, &remove, "1", 1, NULL), -ENODEV);
	assert_int_equal(tree_show(&uevent, buf), -ENODEV);
	tree_put(&f->core.tree, remove.node);
	fixture_free(f);
}

static void open_device_refuses_removal(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;

	add_samples(f);
	mdev = create(f, f->mtty, "mtty-1", UUID_A);
	core_connected(mdev, &qemu);
	assert_int_equal(write_file(f, DEVICE "remove", "1"), -EBUSY);
	assert_non_null(strstr(err_text(-EBUSY), UUID_A " is connected"));
	assert_int_equal(parent_remove(f->mtty), -EBUSY);
	assert_int_equal(mdev->state, MDEV_CONNECTED);
	assert_int_equal(f->n_disconnects, 0);
	core_closed(mdev);
	assert_int_equal(write_file(f, DEVICE "remove", "1"), 0);
	fixture_free(f);
}

static void waiting_removal_hides_the_device_and_keeps_its_units(void **state)
{
	static const char *const wait[] = { "remove=wait", NULL };
	static const char dir[] = "devices/virtual/umdev/thing/" UUID_A;
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;
	struct tree_ref second;
	struct waiter w;

	add_thing(f, wait);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	assert_string_equal(read_file(f, THING "available_instances"), "9\n");
	core_connected(mdev, &qemu);
	assert_int_equal(tree_walk(&f->core.tree, DEVICE "remove", true, &second), 0);
	tree_get(second.node);
	waiter_init(&w);
	assert_int_equal(write_bytes(f, DEVICE "remove", "1", 1, &w.wait), TREE_LATER);
	assert_int_equal(f->n_disconnects, 1);
	assert_false(f->forced);
	assert_false(exists(f, "bus/mdev/devices/" UUID_A));
	assert_false(exists(f, THING "devices/" UUID_A));
	assert_true(exists(f, "devices/virtual/umdev/thing/" UUID_A "/iommu_group"));
	assert_false(exists(f, "devices/virtual/umdev/thing/" UUID_A "/remove"));
	assert_false(exists(f, "devices/virtual/umdev/thing/" UUID_A "/mdev_type"));
	assert_true(exists(f, "kernel/iommu_groups/0/devices/" UUID_A));
	assert_string_equal(read_file(f, THING "available_instances"), "9\n");
	assert_int_equal(try_create(f, f->thing, "thing-bare", UUID_A), -EEXIST);
	assert_int_equal(tree_store(&f->core.tree, &second, "1", 1, NULL), -ENODEV);
	tree_put(&f->core.tree, second.node);
	assert_int_equal(core_may_connect(mdev, &qemu), -ENODEV);
	assert_int_equal(parent_remove(f->thing), -EBUSY);
	assert_false(w.answered);
	core_closed(mdev);
	assert_true(w.answered);
	assert_int_equal(w.result, 0);
	assert_false(exists(f, dir));
	assert_string_equal(read_file(f, THING "available_instances"), "10\n");
	fixture_free(f);
}

static void forced_removal_may_follow_a_waiting_one(void **state)
{
	static const char *const wait[] = { "remove=wait", NULL };
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;
	struct waiter first, second;

	add_thing(f, wait);
	mdev = create(f, f->thing, "thing-bare", UUID_A);
	core_connected(mdev, &qemu);
	waiter_init(&first);
	waiter_init(&second);
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE, &first.wait), TREE_LATER);
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE, NULL), -ENODEV);
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE_FORCE, &second.wait), TREE_LATER);
	assert_true(f->forced);
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL), -ENODEV);
	/* The first writer gave up: its wait ends, the removal does not. */
	attr_cancel(&first.wait);
	core_closed(mdev);
	assert_false(first.answered);
	assert_true(second.answered);
	assert_int_equal(f->core.mdevs.n, 0);
	fixture_free(f);
}

static void forced_removal_ends_started_and_failing_devices(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *a, *b;
	struct waiter w;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-bare", UUID_A);
	b = create(f, f->thing, "thing-bare", UUID_B);
	start(a);
	assert_int_equal(mdev_remove(a, MDEV_REMOVE, NULL), -EBUSY);
	waiter_init(&w);
	assert_int_equal(mdev_remove(a, MDEV_REMOVE_FORCE, &w.wait), 0);
	start(b);
	core_connected(b, &qemu);
	waiter_init(&w);
	assert_int_equal(mdev_remove(b, MDEV_REMOVE_FORCE, &w.wait), TREE_LATER);
	core_failed(b, "the worker crashed while it was told to go");
	assert_true(w.answered);
	assert_int_equal(w.result, 0);
	assert_int_equal(f->core.mdevs.n, 0);
	fixture_free(f);
}

static void unbound_device_keeps_its_units_and_can_be_bound_again(void **state)
{
	struct fixture *f = fixture_new();
	char *before, *after;

	add_samples(f);
	create(f, f->mtty, "mtty-1", UUID_A);
	before = dump(f, "");
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/unbind", "nosuch"), -ENODEV);
	assert_int_equal(write_file(f, "bus/mdev/drivers/mdpy/unbind", UUID_A), -ENODEV);
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/bind", UUID_A), -EBUSY);
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/unbind", UUID_A "\n"), 0);
	assert_int_equal(f->n_listening, 0);
	assert_false(exists(f, "bus/mdev/drivers/mtty/" UUID_A));
	assert_false(exists(f, "kernel/iommu_groups/0"));
	assert_false(exists(f, "class/vfio/0"));
	assert_false(exists(f, DEVICE "driver"));
	assert_false(exists(f, DEVICE "iommu_group"));
	assert_false(exists(f, DEVICE "vfio-dev"));
	assert_false(exists(f, DEVICE "vendor"));
	assert_true(exists(f, DEVICE "mdev_type"));
	assert_true(exists(f, DEVICE "remove"));
	assert_string_equal(read_file(f, DEVICE "uevent"), "");
	assert_string_equal(read_file(f, TYPE1 "available_instances"), "23\n");
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/unbind", UUID_A), -ENODEV);
	assert_int_equal(write_file(f, "bus/mdev/drivers_probe", UUID_A), 0);
	assert_int_equal(write_file(f, "bus/mdev/drivers_probe", "nosuch"), -ENODEV);
	assert_false(exists(f, DEVICE "driver"));
	assert_int_equal(write_file(f, "bus/mdev/drivers/mdpy/bind", UUID_A), -ENODEV);
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/bind", UUID_A), 0);
	assert_int_equal(f->n_listening, 1);
	after = dump(f, "");
	assert_string_equal(after, before);
	free(before);
	free(after);
	fixture_free(f);
}

static void open_device_refuses_unbind_and_a_failed_one_is_cured_by_it(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;

	add_samples(f);
	mdev = create(f, f->mtty, "mtty-1", UUID_A);
	core_connected(mdev, &qemu);
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/unbind", UUID_A), -EBUSY);
	core_failed(mdev, "it crashed three times");
	err_clear();
	assert_int_equal(core_may_connect(mdev, &qemu), -EIO);
	assert_non_null(strstr(err_text(-EIO), "it crashed three times"));
	assert_int_equal(mdev_unbind(mdev), 0);
	assert_int_equal(core_may_connect(mdev, &qemu), -ENODEV);
	assert_int_equal(mdev_bind(mdev), 0);
	assert_int_equal(core_may_connect(mdev, &qemu), 0);
	assert_null(mdev->fail_text);
	fixture_free(f);
}

static void second_client_and_other_processes_are_refused(void **state)
{
	static const char *const pair = ",peer_to_peer_resource_uuid=" UUID_C;
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10), other = process(11), foreign = process(0);
	struct umdev_mdev *a, *b, *alone;
	char spec[128];

	add_plain_thing(f);
	snprintf(spec, sizeof(spec), "%s%s", UUID_A, pair);
	a = create(f, f->thing, "thing-pair", spec);
	snprintf(spec, sizeof(spec), "%s%s", UUID_B, pair);
	b = create(f, f->thing, "thing-pair", spec);
	alone = create(f, f->thing, "thing-pair", UUID_C);
	assert_int_equal(core_may_connect(a, &qemu), 0);
	core_connected(a, &qemu);
	assert_int_equal(core_may_connect(a, &qemu), -EBUSY);
	assert_int_equal(core_may_connect(b, &other), -EBUSY);
	assert_int_equal(core_may_connect(b, &foreign), -EBUSY);
	assert_int_equal(core_may_connect(alone, &other), 0);
	assert_int_equal(core_may_connect(b, &qemu), 0);
	core_connected(b, &qemu);
	core_closed(a);
	assert_int_equal(core_may_connect(a, &other), -EBUSY);
	core_closed(b);
	assert_int_equal(core_may_connect(a, &other), 0);
	/* From a foreign pid namespace the connection itself is the owner: nobody joins it. */
	core_connected(a, &foreign);
	assert_int_equal(core_may_connect(b, &foreign), -EBUSY);
	core_closed(a);
	core_closed(a);
	assert_int_equal(a->state, MDEV_IDLE);
	fixture_free(f);
}

static void owner_is_remembered_by_a_pidfd_of_its_own(void **state)
{
	struct fixture *f = fixture_new();
	struct sock_peer me = process((int)getpid());
	struct umdev_mdev *mdev;
	int fd;

	add_samples(f);
	mdev = create(f, f->mtty, "mtty-1", UUID_A);
	me.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	assert_true(me.pidfd >= 0);
	core_connected(mdev, &me);
	fd = mdev->group->owner.pidfd;
	assert_true(fd >= 0 && fd != me.pidfd);
	close(me.pidfd);
	core_closed(mdev);
	assert_int_equal(mdev->group->owner.pidfd, -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	fixture_free(f);
}

static void states_follow_the_life_of_a_client(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;

	add_samples(f);
	f->log[0] = '\0';
	mdev = create(f, f->mtty, "mtty-1", UUID_A);
	start(mdev);
	core_takeover(mdev);
	core_resumed(mdev);
	assert_int_equal(mdev->state, MDEV_STARTED);
	core_connected(mdev, &qemu);
	core_takeover(mdev);
	assert_true(mdev_in_use(mdev));
	core_resumed(mdev);
	assert_int_equal(mdev->state, MDEV_CONNECTED);
	core_faulty(mdev, "three crashes at one request");
	assert_int_equal(mdev->state, MDEV_CONNECTED);
	core_faulty(mdev, "");
	assert_null(mdev->fail_text);
	core_closed(mdev);
	core_failed(mdev, "no memory");
	start(mdev);
	stop(mdev);
	assert_string_equal(f->log, "mdev+ \nbound \nstate idle\nstate started\nstate takeover\n"
				    "state started\nstate connected\nstate takeover\n"
				    "state connected\nstate three crashes at one request\n"
				    "state connected\nstate started\nstate no memory\n"
				    "state started\nstate idle\n");
	fixture_free(f);
}

static void parents_are_checked(void **state)
{
	struct fixture *f = fixture_new();
	const struct core_setting typo = { "flavor", "sweet" }, sour = { "flavour", "sour" };
	const struct core_setting twice[] = { { "params", "on" }, { "params", "off" } };
	const struct core_setting wrong = { "params", "offf" },
				  compat = { "libvirt_compat", "yes" };
	struct umdev_parent *p;
	char *before = dump(f, ""), *after;

	assert_int_equal(parent_add(&f->core, "a_b", "thing", NULL, 0, &p), -EINVAL);
	err_clear();
	assert_int_equal(parent_add(&f->core, "x", "thin", NULL, 0, &p), -ENOENT);
	assert_non_null(strstr(err_text(-ENOENT), "did you mean 'thing'?"));
	err_clear();
	assert_int_equal(parent_add(&f->core, "x", "thing", &typo, 1, &p), -EINVAL);
	assert_non_null(strstr(err_text(-EINVAL), "did you mean 'flavour'?"));
	assert_int_equal(parent_add(&f->core, "x", "thing", twice, 2, &p), -EINVAL);
	err_clear();
	assert_int_equal(parent_add(&f->core, "x", "thing", &wrong, 1, &p), -EINVAL);
	assert_non_null(strstr(err_text(-EINVAL), "did you mean 'off'?"));
	err_clear();
	assert_int_equal(parent_add(&f->core, "x", "thing", &sour, 1, &p), -ENXIO);
	assert_string_equal(err_text(-ENXIO), "sour things do not exist");
	after = dump(f, "");
	assert_string_equal(after, before);
	assert_int_equal(parent_add(&f->core, "x", "thing", &compat, 1, &p), 0);
	assert_true(exists(f, "devices/virtual/mtty/x"));
	assert_int_equal(parent_add(&f->core, "x", "mtty", NULL, 0, &p), -EEXIST);
	assert_int_equal(parent_add(&f->core, "m", "mtty", NULL, 0, &p), 0);
	assert_ptr_equal(parent_find(&f->core, "m"), p);
	err_clear();
	assert_null(type_find(p, "mtty-3"));
	assert_non_null(strstr(err_text(-ENOENT), "did you mean 'mtty-"));
	free(before);
	free(after);
	fixture_free(f);
}

static void devices_are_found_by_uuid_or_unique_label(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b, *found;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-full", UUID_A ",label=vm1 console");
	b = create(f, f->thing, "thing-full", UUID_B);
	assert_int_equal(mdev_find_name(&f->core, "A0000000-0000-4000-8000-00000000000A", &found),
			 0);
	assert_ptr_equal(found, b);
	assert_int_equal(mdev_find_name(&f->core, "vm1 console", &found), 0);
	assert_ptr_equal(found, a);
	assert_int_equal(mdev_find_name(&f->core, "", &found), -ENOENT);
	assert_int_equal(mdev_find_name(&f->core, UUID_C, &found), -ENOENT);
	assert_int_equal(param_set(b, "label", "vm1 console", 11, NULL), 0);
	assert_int_equal(mdev_find_name(&f->core, "vm1 console", &found), -EINVAL);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(create_refuses_as_a_kernel),
		cmocka_unit_test(uuid_is_unique_in_the_whole_system),
		cmocka_unit_test(instances_run_out_with_eusers_and_units_with_enospc),
		cmocka_unit_test(failing_driver_or_listener_leaves_nothing),
		cmocka_unit_test(remove_reads_numbers_as_a_kernel),
		cmocka_unit_test(handle_of_a_removed_device_answers_enodev),
		cmocka_unit_test(open_device_refuses_removal),
		cmocka_unit_test(waiting_removal_hides_the_device_and_keeps_its_units),
		cmocka_unit_test(forced_removal_may_follow_a_waiting_one),
		cmocka_unit_test(forced_removal_ends_started_and_failing_devices),
		cmocka_unit_test(unbound_device_keeps_its_units_and_can_be_bound_again),
		cmocka_unit_test(open_device_refuses_unbind_and_a_failed_one_is_cured_by_it),
		cmocka_unit_test(second_client_and_other_processes_are_refused),
		cmocka_unit_test(owner_is_remembered_by_a_pidfd_of_its_own),
		cmocka_unit_test(states_follow_the_life_of_a_client),
		cmocka_unit_test(parents_are_checked),
		cmocka_unit_test(devices_are_found_by_uuid_or_unique_label),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
