/* SPDX-License-Identifier: MIT */
/* Parameters: forms, limits, when they may change, pools, live changes, groups, create sugar. */
#include <stdio.h>
#include <stdlib.h>
#include "core_fixture.h"

#define DIR "bus/mdev/devices/" UUID_A "/"
#define FULL "class/mdev_bus/thing/mdev_supported_types/thing-full/"

static int set(struct umdev_mdev *mdev, const char *name, const char *text)
{
	err_clear();
	return param_set(mdev, name, text, strlen(text), NULL);
}

static const char *value(const struct umdev_mdev *mdev, const char *name)
{
	return umdev_mdev_param(mdev, name)->text;
}

static void directories_describe_a_parameter(void **state)
{
	static const char *const want[][2] = {
		{ "vendor/speed/value", "9600\n" },
		{ "vendor/speed/type", "u32\n" },
		{ "vendor/speed/min", "300\n" },
		{ "vendor/speed/max", "115200\n" },
		{ "vendor/speed/step", "300\n" },
		{ "vendor/speed/default", "9600\n" },
		{ "vendor/speed/unit", "bit/s\n" },
		{ "vendor/speed/writable", "idle\n" },
		{ "vendor/speed/required", "0\n" },
		{ "vendor/speed/description", "bits per second\n" },
		{ "vendor/speed/available", "ENOENT" },
		{ "vendor/speed/choices", "ENOENT" },
		{ "vendor/colour/choices", "red green blue\n" },
		{ "vendor/colour/min", "ENOENT" },
		{ "vendor/capacity/available", "65536\n" },
		{ "vendor/capacity/max", "18446744073709551615\n" },
		{ "mdev/aggregation/value", "1\n" },
		{ "mdev/aggregation/max", "8\n" },
		{ "mdev/aggregation/unit", "units\n" },
		{ "mdev/aggregation/available", "8\n" },
		{ "mdev/label/writable", "live\n" },
		{ "mdev/class", "misc\n" },
		{ "mdev/serial", "ENOENT" },
		{ "vendor/serial/value", "\n" },
		{ "vendor/serial/writable", "once\n" },
		{ "aggregated_instances", "1\n" },
		{ "peer_to_peer_resource_uuid", "ENOENT" },
		{ "mdev_type/class", "misc\n" },
		{ "mdev_type/aggregation", "8\n" },
		{ "mdev_type/params/speed/max", "115200\n" },
		{ "mdev_type/params/speed/value", "ENOENT" },
		{ "mdev_type/params/capacity/available", "ENOENT" },
		{ "mdev_type/params/serial/type", "string\n" },
		{ "mdev_type/params/num_ports/default", "2\n" },
	};
	struct fixture *f = fixture_new();
	char path[128];

	add_plain_thing(f);
	create(f, f->thing, "thing-full", UUID_A);
	for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		snprintf(path, sizeof(path), DIR "%s", want[i][0]);
		assert_string_equal(read_file(f, path), want[i][1]);
	}
	fixture_free(f);
}

static uint16_t mode(struct fixture *f, const char *path)
{
	struct tree_ref ref;
	struct stat st;

	assert_int_equal(tree_walk(&f->core.tree, path, true, &ref), 0);
	tree_stat(&f->core.tree, &ref, &st);
	return st.st_mode & 07777;
}

static void modes_say_who_may_write(void **state)
{
	struct fixture *f = fixture_new();

	add_plain_thing(f);
	create(f, f->thing, "thing-full", UUID_A);
	assert_int_equal(mode(f, DIR "vendor/speed/value"), 0644);
	assert_int_equal(mode(f, DIR "vendor/num_ports/value"), 0444);
	assert_int_equal(mode(f, DIR "vendor/read_only/value"), 0444);
	assert_int_equal(mode(f, DIR "vendor/key/value"), 0600);
	assert_int_equal(mode(f, DIR "vendor/speed/type"), 0444);
	assert_int_equal(write_file(f, DIR "vendor/num_ports/value", "2"), -EACCES);
	fixture_free(f);
}

static void forms_are_read_and_made_canonical(void **state)
{
	static const struct {
		const char *name, *text;
		int error;
		const char *canonical;
	} cases[] = {
		{ "speed", "600", 0, "600" },
		{ "speed", "0x258\n", 0, "600" },
		{ "speed", "+01130", 0, "600" },
		{ "speed", "", -EINVAL, NULL },
		{ "speed", "\n", -EINVAL, NULL },
		{ "speed", "600\n\n", -EINVAL, NULL },
		{ "speed", " 600", -EINVAL, NULL },
		{ "speed", "-600", -EINVAL, NULL },
		{ "speed", "600 ", -EINVAL, NULL },
		{ "speed", "99999999999999999999", -ERANGE, NULL },
		{ "speed", "4294967296", -ERANGE, NULL },
		{ "speed", "299", -ERANGE, NULL },
		{ "speed", "115500", -ERANGE, NULL },
		{ "speed", "601", -ERANGE, NULL },
		{ "capacity", "8K", 0, "8192" },
		{ "capacity", "8KiB\n", 0, "8192" },
		{ "capacity", "8X", -EINVAL, NULL },
		{ "capacity", "5000", -ERANGE, NULL },
		{ "colour", "blue\n", 0, "blue" },
		{ "colour", "Blue", -ERANGE, NULL },
		{ "colour", "bl\001e", -EINVAL, NULL },
		{ "label", "a b", 0, "a b" },
		{ "label", "a,b", -EINVAL, NULL },
		{ "label", "a\nb", -EINVAL, NULL },
		{ "mac_addr", "52:54:00:Ab:cD:eF\n", 0, "52:54:00:ab:cd:ef" },
		{ "mac_addr", "52:54:00:ab:cd", -EINVAL, NULL },
		{ "mac_addr", "52-54-00-ab-cd-ef", -EINVAL, NULL },
		{ "mac_addr", "52:54:00:ab:cd:eg", -EINVAL, NULL },
		{ "tag", "A0000000-0000-4000-8000-00000000000A\n", 0, UUID_B },
		{ "tag", UUID_B "X", -EINVAL, NULL },
		{ "num_ports", "3", -EACCES, NULL },
		{ "read_only", "yes", -EACCES, NULL },
		{ "sped", "600", -ENOENT, NULL },
	};
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;
	char before[UMDEV_VALUE_TEXT];

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct umdev_value *now = umdev_mdev_param(mdev, cases[i].name);

		if (now)
			strcpy(before, now->text);
		assert_int_equal(set(mdev, cases[i].name, cases[i].text), cases[i].error);
		if (cases[i].error) {
			assert_non_null(strstr(err_text(cases[i].error), cases[i].name));
			if (now)
				assert_string_equal(value(mdev, cases[i].name), before);
		} else {
			assert_string_equal(value(mdev, cases[i].name), cases[i].canonical);
		}
	}
	assert_int_equal(umdev_mdev_param(mdev, "mac_addr")->u64, 0x525400abcdef);
	assert_int_equal(umdev_mdev_param(mdev, "colour")->u64, 2);
	fixture_free(f);
}

static void unknown_names_are_answered_with_known_ones(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev, *bare;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-needy", UUID_A);
	bare = create(f, f->thing, "thing-bare", UUID_B);
	assert_int_equal(set(mdev, "backed", "x"), -ENOENT);
	assert_string_equal(err_text(-ENOENT),
			    "thing-needy has no parameter 'backed'; did you mean "
			    "'backend'?");
	assert_int_equal(set(mdev, "size", "x"), -ENOENT);
	assert_string_equal(err_text(-ENOENT),
			    "thing-needy has no parameter 'size'; it has uid gid mode backend");
	assert_int_equal(set(bare, "size", "x"), -ENOENT);
	assert_string_equal(err_text(-ENOENT),
			    "thing-bare has no parameter 'size'; it has uid gid mode");
	fixture_free(f);
}

static void bools_have_eight_words(void **state)
{
	static const struct umdev_param desc = { .name = "b", .type = UMDEV_BOOL };
	static const char *const words[] = {
		"0", "1", "no", "yes", "false", "true", "off", "on\n"
	};
	struct umdev_value v;

	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(param_parse(&desc, words[i], strlen(words[i]), &v), 0);
		assert_string_equal(v.text, i & 1 ? "yes" : "no");
		assert_int_equal(v.u64, i & 1);
	}
	assert_int_equal(param_parse(&desc, "maybe", 5, &v), -EINVAL);
}

static void changes_are_refused_in_the_wrong_state(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	assert_int_equal(set(mdev, "serial", "S1"), 0);
	assert_int_equal(set(mdev, "serial", "S2"), -EBUSY);
	assert_int_equal(set(mdev, "serial", "S1\n"), 0);
	assert_int_equal(set(mdev, "colour", "red"), 0);
	core_connected(mdev, &qemu);
	assert_int_equal(set(mdev, "speed", "300"), -EBUSY);
	assert_int_equal(set(mdev, "speed", "1"), -EBUSY);
	assert_int_equal(set(mdev, "speed", "x"), -EINVAL);
	assert_int_equal(set(mdev, "speed", "9600"), 0);
	assert_int_equal(set(mdev, "colour", "blue"), -EBUSY);
	assert_int_equal(set(mdev, "aggregation", "2"), -EBUSY);
	assert_int_equal(set(mdev, "label", "still writable"), 0);
	core_closed(mdev);
	assert_int_equal(set(mdev, "speed", "300"), 0);
	assert_int_equal(set(mdev, "colour", "blue"), -EBUSY);
	start(mdev);
	assert_int_equal(set(mdev, "speed", "600"), -EBUSY);
	core_failed(mdev, "crashed");
	assert_int_equal(set(mdev, "speed", "600"), 0);
	fixture_free(f);
}

static void change_is_told_and_secrets_are_not(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	f->log[0] = '\0';
	assert_int_equal(set(mdev, "speed", "300"), 0);
	assert_int_equal(set(mdev, "speed", "300"), 0);
	assert_int_equal(set(mdev, "key", "sesame"), 0);
	assert_string_equal(f->log, "param speed=300\nparam key\n");
	f->log[0] = '\0';
	f->log_uevents = true;
	assert_int_equal(set(mdev, "speed", "600"), 0);
	assert_non_null(strstr(f->log, "change@/devices/virtual/umdev/thing/" UUID_A "|"));
	assert_non_null(strstr(f->log, "|SUBSYSTEM=mdev|MDEV_PARAM=speed|DRIVER=thing|\n"));
	assert_int_equal(set(mdev, "key", "open,sesame"), -EINVAL);
	assert_null(strstr(err_text(-EINVAL), "sesame"));
	fixture_free(f);
}

static void driver_may_refuse_and_nothing_changes(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	f->check_error = -EPERM;
	assert_int_equal(set(mdev, "aggregation", "5"), -EPERM);
	assert_int_equal(set(mdev, "capacity", "64K"), -EPERM);
	assert_int_equal(set(mdev, "label", "is the core's own"), 0);
	assert_string_equal(value(mdev, "aggregation"), "1");
	assert_int_equal(f->thing->pools[0].used, 2);
	assert_int_equal(f->thing->pools[1].used, 4096);
	fixture_free(f);
}

static void aggregation_takes_and_gives_units(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-full", UUID_A ",aggregate=8");
	assert_string_equal(read_file(f, DIR "aggregated_instances"), "8\n");
	assert_int_equal(f->thing->pools[0].used, 9);
	b = create(f, f->thing, "thing-full", UUID_B);
	assert_int_equal(set(b, "aggregation", "9"), -ERANGE);
	assert_int_equal(set(b, "aggregation", "8"), 0);
	assert_string_equal(read_file(f, FULL "available_instances"), "1\n");
	assert_int_equal(try_create(f, f->thing, "thing-full", UUID_C ",aggregation=2"), -ENOSPC);
	create(f, f->thing, "thing-full", UUID_C);
	assert_int_equal(set(a, "aggregation", "3"), 0);
	assert_string_equal(read_file(f, FULL "available_instances"), "2\n");
	assert_int_equal(param_available(b, (unsigned)param_index(b->type->info, "aggregation")),
			 8);
	assert_int_equal(param_available(a, (unsigned)param_index(a->type->info, "aggregation")),
			 8);
	assert_int_equal(set(a, "capacity", "60K"), -ENOSPC);
	assert_int_equal(param_available(a, (unsigned)param_index(a->type->info, "capacity")),
			 57344);
	assert_int_equal(set(a, "capacity", "56K"), 0);
	assert_string_equal(read_file(f, FULL "available_instances"), "0\n");
	fixture_free(f);
}

static void addresses_are_unique(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-full", UUID_A ",mac_addr=52:54:00:00:00:01");
	assert_int_equal(try_create(f, f->thing, "thing-full",
				    UUID_B ",mac_addr=52:54:00:00:00:01"),
			 -EADDRINUSE);
	assert_non_null(strstr(err_text(-EADDRINUSE), UUID_A));
	b = create(f, f->thing, "thing-full", UUID_B);
	assert_int_equal(set(b, "mac_addr", "52:54:00:00:00:01"), -EADDRINUSE);
	assert_int_equal(set(b, "mac_addr", "52:54:00:00:00:02"), 0);
	/* None is no address: any number of devices have it. */
	assert_int_equal(set(a, "mac_addr", "00:00:00:00:00:00"), 0);
	assert_int_equal(set(b, "mac_addr", "00:00:00:00:00:00"), 0);
	assert_int_equal(set(b, "mac_addr", "52:54:00:00:00:01"), 0);
	fixture_free(f);
}

static void live_change_asks_the_worker(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;
	struct waiter w;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	core_connected(mdev, &qemu);
	waiter_init(&w);
	assert_int_equal(write_bytes(f, DIR "vendor/capacity/value", "16K", 3, &w.wait),
			 TREE_LATER);
	assert_int_equal(f->n_live, 1);
	/* Units cover both values until the answer. */
	assert_int_equal(f->thing->pools[1].used, 16384);
	assert_string_equal(value(mdev, "capacity"), "4096");
	assert_int_equal(set(mdev, "capacity", "8K"), -EBUSY);
	core_param_done(mdev, 0);
	assert_true(w.answered);
	assert_int_equal(w.result, 0);
	assert_string_equal(value(mdev, "capacity"), "16384");
	/* Smaller, refused by the device. */
	waiter_init(&w);
	assert_int_equal(param_set(mdev, "capacity", "4K", 2, &w.wait), TREE_LATER);
	assert_int_equal(f->thing->pools[1].used, 16384);
	core_param_done(mdev, EPERM);
	assert_int_equal(w.result, -EPERM);
	assert_string_equal(value(mdev, "capacity"), "16384");
	assert_int_equal(f->thing->pools[1].used, 16384);
	/* The writer goes, the change does not. */
	waiter_init(&w);
	assert_int_equal(param_set(mdev, "capacity", "4K", 2, &w.wait), TREE_LATER);
	attr_cancel(&w.wait);
	core_param_done(mdev, 0);
	assert_false(w.answered);
	assert_string_equal(value(mdev, "capacity"), "4096");
	assert_int_equal(f->thing->pools[1].used, 4096);
	/* The worker cannot even be asked. */
	f->live_error = -EIO;
	assert_int_equal(set(mdev, "capacity", "8K"), -EIO);
	assert_int_equal(f->thing->pools[1].used, 4096);
	f->live_error = 0;
	core_closed(mdev);
	assert_int_equal(set(mdev, "capacity", "8K"), 0);
	fixture_free(f);
}

/* r: a worker that starts, or serves another device of the group, has the values already. */
static void worker_without_our_client_counts_for_parameters_only(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *full, *pair_of_it, *other;
	struct waiter w;

	add_plain_thing(f);
	full = create(f, f->thing, "thing-full", UUID_A);
	f->served = full;
	assert_int_equal(set(full, "speed", "300"), -EBUSY);
	assert_int_equal(set(full, "label", "is not the worker's"), 0);
	waiter_init(&w);
	assert_int_equal(param_set(full, "capacity", "8K", 2, &w.wait), TREE_LATER);
	core_param_done(full, 0);
	assert_int_equal(w.result, 0);
	assert_int_equal(mdev_remove(full, MDEV_REMOVE, NULL), 0);
	pair_of_it = create(f, f->thing, "thing-pair",
			    UUID_B ",peer_to_peer_resource_uuid=" UUID_B);
	other = create(f, f->thing, "thing-pair", UUID_C);
	f->served = pair_of_it;
	assert_int_equal(set(pair_of_it, "peer_to_peer_resource_uuid", UUID_A), -EBUSY);
	assert_int_equal(set(other, "peer_to_peer_resource_uuid", UUID_B), -EBUSY);
	f->served = NULL;
	assert_int_equal(set(other, "peer_to_peer_resource_uuid", UUID_B), 0);
	fixture_free(f);
}

static void removal_answers_a_live_change_under_way(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;
	struct waiter w;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	core_connected(mdev, &qemu);
	waiter_init(&w);
	assert_int_equal(param_set(mdev, "capacity", "16K", 3, &w.wait), TREE_LATER);
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL), TREE_LATER);
	assert_int_equal(set(mdev, "speed", "300"), -ENODEV);
	core_closed(mdev);
	assert_int_equal(w.result, -ENODEV);
	assert_int_equal(f->thing->pools[1].used, 0);
	fixture_free(f);
}

static void required_parameter_keeps_clients_out(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *a, *b;

	add_plain_thing(f);
	a = create(f, f->thing, "thing-needy", UUID_A);
	b = create(f, f->thing, "thing-needy", UUID_B ",backend=file");
	err_clear();
	assert_int_equal(core_may_connect(a, &qemu), -EACCES);
	assert_non_null(strstr(err_text(-EACCES), "backend"));
	assert_int_equal(core_may_connect(b, &qemu), 0);
	/* Confirming the default is giving it. */
	assert_int_equal(set(a, "backend", "\n"), 0);
	assert_int_equal(core_may_connect(a, &qemu), 0);
	fixture_free(f);
}

static void create_takes_parameters_all_or_nothing(void **state)
{
	static const struct {
		const char *rest;
		int error;
	} bad[] = {
		{ ",speed", -EINVAL },
		{ ",=3", -EINVAL },
		{ ",speed=600,", -EINVAL },
		{ ",speed=600,speed=600", -EINVAL },
		{ ",aggregate=2,aggregation=2", -EINVAL },
		{ ",sped=600", -EINVAL },
		{ ",speed=x", -EINVAL },
		{ ",label=a\n,speed=600", -EINVAL },
		{ ":0:0,speed=600", -EINVAL },
		{ ",num_ports=2", -EACCES },
		{ ",speed=1", -ERANGE },
		{ ",colour=pink", -ERANGE },
		{ ",capacity=128K", -ENOSPC },
	};
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;
	char spec[256], big[4200], *before, *after;

	add_plain_thing(f);
	before = dump(f, "");
	f->log[0] = '\0';
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(spec, sizeof(spec), "%s%s", UUID_A, bad[i].rest);
		assert_int_equal(try_create(f, f->thing, "thing-full", spec), bad[i].error);
	}
	assert_int_equal(try_create(f, f->thing, "thing-bare", UUID_A ",label=x"), -EINVAL);
	snprintf(big, sizeof(big), "%s,label=%04096d", UUID_A, 0);
	assert_int_equal(try_create(f, f->thing, "thing-full", big), -EINVAL);
	assert_string_equal(f->log, "");
	after = dump(f, "");
	assert_string_equal(after, before);
	mdev = create(f, f->thing, "thing-full",
		      UUID_A ",speed=0x258,label=a b,read_only=on,serial=S,capacity=8K\n");
	assert_string_equal(value(mdev, "speed"), "600");
	assert_string_equal(value(mdev, "label"), "a b");
	assert_string_equal(value(mdev, "read_only"), "yes");
	assert_string_equal(f->log, "mdev+ \nbound \nstate idle\n");
	assert_int_equal(set(mdev, "serial", "T"), -EBUSY);
	/* EEXIST comes before what is wrong with a value. */
	assert_int_equal(try_create(f, f->thing, "thing-full", UUID_A ",speed=1"), -EEXIST);
	create(f, f->thing, "thing-bare", UUID_B ",");
	free(before);
	free(after);
	fixture_free(f);
}

static void kernel_tree_shows_no_parameters(void **state)
{
	static const char *const off[] = { "params=off", NULL };
	struct fixture *f = fixture_new();
	struct umdev_mdev *mdev;

	add_thing(f, off);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	create(f, f->thing, "thing-pair", UUID_B);
	assert_int_equal(try_create(f, f->thing, "thing-full", UUID_C ",speed=600"), -EINVAL);
	assert_false(exists(f, DIR "mdev"));
	assert_false(exists(f, DIR "vendor"));
	assert_false(exists(f, DIR "aggregated_instances"));
	assert_false(exists(f, FULL "params"));
	assert_false(exists(f, FULL "class"));
	assert_false(exists(f, FULL "aggregation"));
	assert_false(exists(f, "bus/mdev/devices/" UUID_B "/peer_to_peer_resource_uuid"));
	/* The control socket still reaches them. */
	assert_int_equal(set(mdev, "speed", "600"), 0);
	fixture_free(f);
}

/* ---- groups ---- */

static struct umdev_mdev *pair(struct fixture *f, struct umdev_parent *parent, unsigned n,
			       const char *p2p)
{
	char spec[128];

	snprintf(spec, sizeof(spec), "b0000000-0000-4000-8000-%012u%s%s", n,
		 p2p ? ",peer_to_peer_resource_uuid=" : "", p2p ? p2p : "");
	return create(f, parent, "thing-pair", spec);
}

static int move(struct umdev_mdev *mdev, const char *p2p)
{
	return set(mdev, "peer_to_peer_resource_uuid", p2p);
}

static void devices_begin_in_groups_of_their_own(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b;

	add_plain_thing(f);
	a = pair(f, f->thing, 1, NULL);
	b = pair(f, f->thing, 2, NULL);
	assert_true(a->group != b->group);
	assert_string_not_equal(value(a, "peer_to_peer_resource_uuid"),
				value(b, "peer_to_peer_resource_uuid"));
	assert_int_equal(strlen(read_file(f,
					  "bus/mdev/devices/b0000000-0000-4000-8000-000000000001/"
					  "peer_to_peer_resource_uuid")),
			 37);
	fixture_free(f);
}

static void value_joins_and_splits_groups(void **state)
{
	static const char file[] = "bus/mdev/devices/b0000000-0000-4000-8000-000000000002/"
				   "peer_to_peer_resource_uuid";
	struct fixture *f = fixture_new();
	struct umdev_mdev *a, *b, *c;

	add_plain_thing(f);
	a = pair(f, f->thing, 1, UUID_A);
	b = pair(f, f->thing, 2, NULL);
	c = pair(f, f->thing, 3, NULL);
	f->log[0] = '\0';
	assert_int_equal(write_file(f, file, UUID_A "\n"), 0);
	assert_ptr_equal(a->group, b->group);
	assert_int_equal(a->group->n_members, 2);
	assert_false(exists(f, "kernel/iommu_groups/1"));
	assert_string_equal(link_text(f, "bus/mdev/devices/b0000000-0000-4000-8000-000000000002/"
					 "iommu_group"),
			    "../../../../../kernel/iommu_groups/0");
	assert_true(
		exists(f, "kernel/iommu_groups/0/devices/b0000000-0000-4000-8000-000000000002"));
	assert_string_equal(f->log, "group 0\nparam peer_to_peer_resource_uuid=" UUID_A "\n");
	assert_int_equal(move(c, UUID_A), 0);
	assert_int_equal(a->group->n_members, 3);
	/* The split-off gets the lowest free number. */
	assert_int_equal(move(a, UUID_B), 0);
	assert_int_equal(a->group->number, 1);
	assert_int_equal(b->group->n_members, 2);
	/* Alone, it takes a new value along with its number. */
	assert_int_equal(move(a, UUID_C), 0);
	assert_int_equal(a->group->number, 1);
	assert_int_equal(move(c, UUID_B), 0);
	assert_int_equal(c->group->number, 2);
	assert_int_equal(write_file(f, file, "not a uuid"), -EINVAL);
	fixture_free(f);
}

static void groups_in_use_do_not_change(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *a, *b, *c;

	add_plain_thing(f);
	a = pair(f, f->thing, 1, UUID_A);
	b = pair(f, f->thing, 2, UUID_A);
	c = pair(f, f->thing, 3, UUID_C);
	core_connected(a, &qemu);
	assert_int_equal(move(a, UUID_A), 0);
	assert_int_equal(move(a, UUID_B), -EBUSY);
	assert_int_equal(move(b, UUID_B), -EBUSY);
	assert_int_equal(move(c, UUID_A), -EBUSY);
	assert_int_equal(try_create(f, f->thing, "thing-pair",
				    UUID_B ",peer_to_peer_resource_uuid=" UUID_A),
			 -EBUSY);
	/* An idle member may go. */
	remove_idle(b);
	core_closed(a);
	start(c);
	assert_int_equal(move(a, UUID_C), -EBUSY);
	stop(c);
	assert_int_equal(move(a, UUID_C), 0);
	fixture_free(f);
}

static void groups_stay_inside_a_domain_and_a_size(void **state)
{
	static const struct core_setting domain = { "p2p_domain", "thing" };
	struct fixture *f = fixture_new();
	struct umdev_parent *same, *other;
	struct umdev_mdev *mdev;

	add_plain_thing(f);
	assert_int_equal(parent_add(&f->core, "other", "thing", NULL, 0, &other), 0);
	assert_int_equal(parent_add(&f->core, "same", "thing", &domain, 1, &same), 0);
	pair(f, f->thing, 1, UUID_A);
	mdev = pair(f, other, 2, NULL);
	assert_int_equal(move(mdev, UUID_A), -EXDEV);
	assert_int_equal(try_create(f, other, "thing-pair",
				    UUID_B ",peer_to_peer_resource_uuid=" UUID_A),
			 -EXDEV);
	remove_idle(mdev);
	for (unsigned i = 2; i < CORE_MAX_MEMBERS; i++)
		pair(f, i & 1 ? f->thing : same, 100 + i, UUID_A);
	mdev = pair(f, same, 1000, NULL);
	assert_int_equal(move(mdev, UUID_A), 0);
	mdev = pair(f, same, 1001, NULL);
	assert_int_equal(move(mdev, UUID_A), -ENOSPC);
	fixture_free(f);
}

static void unbound_device_keeps_its_group_value(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *a, *b;

	add_plain_thing(f);
	a = pair(f, f->thing, 1, UUID_A);
	b = pair(f, f->thing, 2, UUID_A);
	assert_int_equal(mdev_unbind(b), 0);
	assert_null(b->group);
	assert_int_equal(move(b, UUID_B), 0);
	assert_int_equal(move(b, UUID_A), 0);
	core_connected(a, &qemu);
	assert_int_equal(mdev_bind(b), -EBUSY);
	core_closed(a);
	assert_int_equal(mdev_bind(b), 0);
	assert_ptr_equal(a->group, b->group);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(directories_describe_a_parameter),
		cmocka_unit_test(modes_say_who_may_write),
		cmocka_unit_test(forms_are_read_and_made_canonical),
		cmocka_unit_test(unknown_names_are_answered_with_known_ones),
		cmocka_unit_test(bools_have_eight_words),
		cmocka_unit_test(changes_are_refused_in_the_wrong_state),
		cmocka_unit_test(change_is_told_and_secrets_are_not),
		cmocka_unit_test(driver_may_refuse_and_nothing_changes),
		cmocka_unit_test(aggregation_takes_and_gives_units),
		cmocka_unit_test(addresses_are_unique),
		cmocka_unit_test(live_change_asks_the_worker),
		cmocka_unit_test(worker_without_our_client_counts_for_parameters_only),
		cmocka_unit_test(removal_answers_a_live_change_under_way),
		cmocka_unit_test(required_parameter_keeps_clients_out),
		cmocka_unit_test(create_takes_parameters_all_or_nothing),
		cmocka_unit_test(kernel_tree_shows_no_parameters),
		cmocka_unit_test(devices_begin_in_groups_of_their_own),
		cmocka_unit_test(value_joins_and_splits_groups),
		cmocka_unit_test(groups_in_use_do_not_change),
		cmocka_unit_test(groups_stay_inside_a_domain_and_a_size),
		cmocka_unit_test(unbound_device_keeps_its_group_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
