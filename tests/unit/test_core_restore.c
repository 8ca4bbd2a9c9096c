/* SPDX-License-Identifier: MIT */
/* Devices of a manager before this one: same numbers, values and units, checked as new ones are. */
#include <stdlib.h>
#include <unistd.h>
#include "core/number_set.h"
#include "core_fixture.h"

static struct mdev_saved saved(const char *uuid, uint32_t group, uint32_t vfio)
{
	struct mdev_saved s = { .order = 7, .bound = true, .group = group, .vfio = vfio };

	assert_int_equal(uuid_parse(uuid, UUID_TEXT - 1, &s.uuid), 0);
	return s;
}

static struct umdev_mdev *restore(struct umdev_parent *parent, const char *type,
				  const struct mdev_saved *s)
{
	struct umdev_mdev *mdev;

	err_clear();
	assert_int_equal(mdev_restore(type_find(parent, type), s, &mdev), 0);
	return mdev;
}

static int refused(struct umdev_parent *parent, const char *type, const struct mdev_saved *s)
{
	struct umdev_mdev *mdev;

	err_clear();
	return mdev_restore(type_find(parent, type), s, &mdev);
}

static void numbers_are_kept_and_gaps_stay_free(void **state)
{
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 3, 70), b = saved(UUID_B, 1, 0);
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	mdev = restore(f->thing, "thing-bare", &a);
	assert_int_equal(mdev->group->number, 3);
	assert_int_equal(mdev->vfio_number, 70);
	assert_true(exists(f, "class/vfio-dev/vfio70"));
	assert_string_equal(link_text(f, "kernel/iommu_groups/3/devices/" UUID_A),
			    "../../../../devices/virtual/umdev/thing/" UUID_A);
	assert_int_equal(restore(f->thing, "thing-bare", &b)->group->number, 1);
	mdev = create(f, f->thing, "thing-bare", UUID_C);
	assert_int_equal(mdev->group->number, 0);
	assert_int_equal(mdev->vfio_number, 1);
	assert_int_equal(mdev->order, 8);
	fixture_free(f);
}

static void a_number_that_is_taken_or_absurd_is_replaced(void **state)
{
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 12, 1), b = saved(UUID_B, 12, 1),
			  c = saved(UUID_C, 4, UINT32_MAX - 1);

	add_plain_thing(f);
	f->core.first_group = 10; /* the machine has groups up to 9 */
	assert_int_equal(restore(f->thing, "thing-bare", &a)->group->number, 12);
	assert_int_equal(restore(f->thing, "thing-bare", &b)->group->number, 10);
	assert_int_equal(restore(f->thing, "thing-bare", &c)->group->number, 11);
	assert_true(exists(f, "class/vfio-dev/vfio0"));
	assert_true(exists(f, "class/vfio-dev/vfio2"));
	fixture_free(f);
}

static void members_of_a_group_meet_again(void **state)
{
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 5, 0), b = saved(UUID_B, 5, 1);
	struct umdev_mdev *one, *two;

	add_plain_thing(f);
	a.n_settings = b.n_settings = 1;
	a.settings[0] = (struct core_setting){ "peer_to_peer_resource_uuid", UUID_C };
	b.settings[0] = a.settings[0];
	one = restore(f->thing, "thing-pair", &a);
	two = restore(f->thing, "thing-pair", &b);
	assert_ptr_equal(one->group, two->group);
	assert_int_equal(one->group->number, 5);
	fixture_free(f);
}

static void values_units_and_states_are_back(void **state)
{
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 0, 0), b = saved(UUID_B, 1, 1);
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	a.opened = true;
	a.n_settings = 3;
	a.settings[0] = (struct core_setting){ "aggregation", "4" };
	a.settings[1] = (struct core_setting){ "capacity", "8192" };
	a.settings[2] = (struct core_setting){ "serial", "X1" };
	mdev = restore(f->thing, "thing-full", &a);
	assert_int_equal(mdev->state, MDEV_IDLE);
	assert_int_equal(f->thing->pools[0].used, 5);
	assert_int_equal(f->thing->pools[1].used, 8192);
	assert_int_equal(param_set(mdev, "colour", "red", 3, NULL), -EBUSY); /* was opened */
	assert_int_equal(param_set(mdev, "serial", "X2", 2, NULL), -EBUSY);  /* was given */
	b.failed = "it broke";
	b.bound = false;
	mdev = restore(f->thing, "thing-bare", &b);
	assert_int_equal(mdev->state, MDEV_FAILED);
	assert_string_equal(mdev->fail_text, "it broke");
	assert_null(mdev->group);
	assert_int_equal(f->n_listening, 1);
	assert_int_equal(f->n_made, 2);
	assert_int_equal(mdev_bind(mdev), 0);
	assert_int_equal(mdev->state, MDEV_IDLE);
	fixture_free(f);
}

static void a_change_under_way_holds_its_units_until_it_is_answered(void **state)
{
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 0, 0);
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	a.pending = (struct core_setting){ "capacity", "12K" };
	mdev = restore(f->thing, "thing-full", &a);
	assert_int_equal(f->thing->pools[1].used, 12288);
	assert_string_equal(read_file(f, "bus/mdev/devices/" UUID_A "/vendor/capacity/value"),
			    "4096\n");
	assert_int_equal(f->n_live, 0);
	core_param_done(mdev, 0);
	assert_string_equal(read_file(f, "bus/mdev/devices/" UUID_A "/vendor/capacity/value"),
			    "12288\n");
	remove_idle(mdev);
	mdev = restore(f->thing, "thing-full", &a);
	core_param_done(mdev, EIO);
	assert_int_equal(f->thing->pools[1].used, 4096);
	fixture_free(f);
}

static void a_change_that_cannot_be_is_forgotten(void **state)
{
	static const struct core_setting changes[] = { { "capacity", "1M" },
						       { "capacity", "5" },
						       { "speed", "300" },
						       { "label", "x" },
						       { "nothing", "at all" } };
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 0, 0);

	add_plain_thing(f);
	for (unsigned i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		struct umdev_mdev *mdev;

		a.pending = changes[i];
		mdev = restore(f->thing, "thing-full", &a);
		assert_null(mdev->param_value);
		assert_int_equal(f->thing->pools[1].used, 4096);
		remove_idle(mdev);
	}
	fixture_free(f);
}

static void what_a_create_would_refuse_is_refused(void **state)
{
	struct fixture *f = fixture_new();
	struct mdev_saved a = saved(UUID_A, 0, 0), b = saved(UUID_B, 0, 0);

	add_plain_thing(f);
	create(f, f->thing, "thing-bare", UUID_A);
	assert_int_equal(refused(f->thing, "thing-bare", &a), -EEXIST);
	b.n_settings = 1;
	b.settings[0] = (struct core_setting){ "nothing", "1" };
	assert_int_equal(refused(f->thing, "thing-full", &b), -ENOENT);
	b.settings[0] = (struct core_setting){ "speed", "301" };
	assert_int_equal(refused(f->thing, "thing-full", &b), -ERANGE);
	b.settings[0] = (struct core_setting){ "num_ports", "2" };
	assert_int_equal(refused(f->thing, "thing-full", &b), -EACCES);
	b.settings[0] = (struct core_setting){ "capacity", "1M" };
	assert_int_equal(refused(f->thing, "thing-full", &b), -ENOSPC);
	b.n_settings = 0;
	f->create_error = -EDOM;
	assert_int_equal(refused(f->thing, "thing-full", &b), -EDOM);
	assert_int_equal(f->thing->pools[0].used, 1);
	fixture_free(f);
}

/* What a restart must know is told before the worker is asked, and when it has answered. */
static void a_live_change_is_told_before_and_after(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;
	unsigned before;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	f->served = mdev;
	before = f->n_dirty;
	assert_int_equal(param_set(mdev, "capacity", "8K", 2, NULL), TREE_LATER);
	assert_int_equal(f->n_dirty, before + 1);
	core_param_done(mdev, ERANGE);
	assert_int_equal(f->n_dirty, before + 2);
	f->served = NULL;
	fixture_free(f);
}

static void numbers_are_taken_where_asked(void **state)
{
	struct number_set set = { 0 };
	uint32_t n;

	assert_int_equal(number_take_at(&set, 1000, &n), 0);
	assert_int_equal(n, 1000);
	assert_int_equal(number_take_at(&set, 1000, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(number_take_at(&set, NUMBER_MAX, &n), 0);
	assert_int_equal(n, NUMBER_MAX);
	assert_int_equal(number_take_at(&set, NUMBER_MAX + 1, &n), 0);
	assert_int_equal(n, 1);
	number_put(&set, 1000);
	assert_int_equal(number_take_at(&set, 1000, &n), 0);
	assert_int_equal(n, 1000);
	for (uint32_t i = 2; i < 1000; i++) {
		assert_int_equal(number_take(&set, &n), 0);
		assert_int_equal(n, i);
	}
	assert_int_equal(number_take(&set, &n), 0);
	assert_int_equal(n, 1001);
	number_set_fini(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_kept_and_gaps_stay_free),
		cmocka_unit_test(a_number_that_is_taken_or_absurd_is_replaced),
		cmocka_unit_test(members_of_a_group_meet_again),
		cmocka_unit_test(values_units_and_states_are_back),
		cmocka_unit_test(a_change_under_way_holds_its_units_until_it_is_answered),
		cmocka_unit_test(a_change_that_cannot_be_is_forgotten),
		cmocka_unit_test(what_a_create_would_refuse_is_refused),
		cmocka_unit_test(a_live_change_is_told_before_and_after),
		cmocka_unit_test(numbers_are_taken_where_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
