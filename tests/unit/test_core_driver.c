/* SPDX-License-Identifier: MIT */
/* What the core refuses in a driver's tables, and the descriptors that a driver hands over. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "core_fixture.h"
#include "core/private.h"
#include "core/resources.h"

static const char *const choices[] = { "a", "b", NULL };

static const struct umdev_param good = { .id = UMDEV_PARAM_CAPACITY, .pool = "bytes" };
static const struct umdev_param *const good_list[] = { &good, NULL };
static const struct umdev_pool pools[] = { { "bytes", 100 }, { 0 } };

/* Tables that are right; a test spoils one thing. */
struct tables {
	struct umdev_param param;
	const struct umdev_param *list[CORE_MAX_PARAMS + 2];
	struct umdev_type types[3];
	struct umdev_parent_driver driver;
};

static void tables_init(struct tables *t)
{
	*t = (struct tables){ .param = good };
	t->list[0] = &t->param;
	t->types[0] = (struct umdev_type){ .name = "disk",
					   .device_api = "vfio-pci",
					   .class_name = "block",
					   .params = t->list,
					   .pool = { { 1, 1 } } };
	t->driver = (struct umdev_parent_driver){
		.abi = UMDEV_ABI, .name = "x", .types = t->types, .pools = pools
	};
}

static void refuse(struct tables *t, const char *why)
{
	err_clear();
	assert_int_equal(core_check_driver(&t->driver), -EINVAL);
	assert_non_null(strstr(err_text(-EINVAL), why));
	tables_init(t);
	assert_int_equal(core_check_driver(&t->driver), 0);
}

static int show_nothing(const struct umdev_mdev *mdev, const char *name, char *buf, size_t size)
{
	return 0;
}

static void tables_of_drivers_are_judged(void **state)
{
	static const char *const vendor[] = { "text", NULL };
	struct tables t;

	tables_init(&t);
	t.driver.abi = UMDEV_ABI + 1;
	refuse(&t, "ABI");
	t.driver.name = "X";
	refuse(&t, "no name");
	t.driver.name = NULL;
	refuse(&t, "no name");
	t.driver.types = NULL;
	refuse(&t, "no types");
	t.types[1] = t.types[0];
	refuse(&t, "twice");
	t.param = (struct umdev_param){ 0 };
	refuse(&t, "parameter name");
	t.driver.vendor_attrs = vendor;
	refuse(&t, "vendor_show");
	t.driver.vendor_attrs = vendor;
	t.driver.vendor_show = show_nothing;
	assert_int_equal(core_check_driver(&t.driver), 0);
	tables_init(&t);
	t.types[0].class_name = "disk";
	refuse(&t, "no class");
	t.types[0].device_api = NULL;
	refuse(&t, "device_api");
	t.types[0].name = "a-name-that-does-not-fit-with-the-one-of-the-driver-into-64-bytes";
	refuse(&t, "too long");
	t.types[0].pool[1].cost = 1;
	refuse(&t, "pool 1");
	t.types[0].max_aggregation = 2;
	t.types[0].pool[0].scale = 0;
	refuse(&t, "aggregation");
	t.types[0].max_aggregation = 2;
	t.types[0].aggregation_writable = UMDEV_W_LIVE;
	refuse(&t, "once, fresh or idle");
}

static void parameters_of_drivers_are_judged(void **state)
{
	struct tables t;

	tables_init(&t);
	t.param = (struct umdev_param){ .name = "Sectors" };
	refuse(&t, "no parameter name");
	t.param = (struct umdev_param){ .name = "mode" };
	refuse(&t, "the core's");
	t.param = (struct umdev_param){ .name = "label", .type = UMDEV_STRING };
	refuse(&t, "the core's");
	t.param.pool = "rabbits";
	refuse(&t, "no such pool");
	t.param = (struct umdev_param){ .name = "s", .type = UMDEV_STRING, .pool = "bytes" };
	refuse(&t, "is no number");
	t.param.def = "1X";
	refuse(&t, "default");
	t.param.max = 10;
	t.param.def = "11";
	refuse(&t, "default");
	t.param = (struct umdev_param){ .name = "e", .type = UMDEV_ENUM };
	refuse(&t, "no choices");
	t.param = (struct umdev_param){ .name = "e", .type = UMDEV_ENUM, .choices = choices };
	assert_int_equal(core_check_driver(&t.driver), 0);
	t.list[1] = &t.param;
	refuse(&t, "twice");
	t.driver.params = good_list;
	refuse(&t, "has no id");
	t.param = (struct umdev_param){ .name = "bytes", .type = UMDEV_SIZE };
	t.driver.params = t.list;
	assert_int_equal(core_check_driver(&t.driver), 0);
	t.param = (struct umdev_param){ .name = "remove" };
	t.driver.params = t.list;
	refuse(&t, "the core's");
}

/* Name, type, unit and meaning of a standard parameter are not the driver's. */
static void standard_parameters_are_listed_by_id_only(void **state)
{
	struct tables t;

	tables_init(&t);
	t.param.name = "capacity";
	refuse(&t, "not the driver's");
	t.param.unit = "sectors";
	refuse(&t, "not the driver's");
	t.param.type = UMDEV_U64;
	refuse(&t, "not the driver's");
	t.param = (struct umdev_param){ .name = "capacity", .type = UMDEV_SIZE };
	refuse(&t, "by its id");
	t.param = (struct umdev_param){ .id = UMDEV_PARAM_MTU };
	refuse(&t, "parameter mtu (id 9) is not one of class block");
	t.param.id = UMDEV_PARAM_IDS;
	refuse(&t, "is not one of class block");
	t.param = (struct umdev_param){ .id = UMDEV_PARAM_NUMA_NODE, .writable = UMDEV_W_IDLE };
	refuse(&t, "numa_node is never written");
	t.list[1] = &t.param;
	refuse(&t, "capacity is listed twice");
	/* The name of another class is anybody's. */
	t.param = (struct umdev_param){ .name = "mtu" };
	assert_int_equal(core_check_driver(&t.driver), 0);
}

static void private_is_what_its_id_or_the_driver_says(void **state)
{
	static const struct {
		struct umdev_param given;
		const char *class_name;
		bool secret;
	} cases[] = {
		{ { .id = UMDEV_PARAM_MAC_ADDR }, "net", true },
		{ { .id = UMDEV_PARAM_MAC_ADDR, .public = true }, "net", false },
		{ { .id = UMDEV_PARAM_MTU }, "net", false },
		{ { .id = UMDEV_PARAM_MTU, .secret = true }, "net", true },
		{ { .name = "key", .secret = true }, "misc", true },
	};
	struct umdev_param desc;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(
			standard_complete("x", cases[i].class_name, &cases[i].given, &desc), 0);
		assert_int_equal(desc.secret, cases[i].secret);
	}
}

static void too_many_parameters_are_refused(void **state)
{
	struct umdev_param many[CORE_MAX_PARAMS];
	char names[CORE_MAX_PARAMS][8];
	struct tables t;

	tables_init(&t);
	for (unsigned i = 0; i < CORE_MAX_PARAMS; i++) {
		snprintf(names[i], sizeof(names[i]), "p%u", i);
		many[i] = (struct umdev_param){ .name = names[i] };
	}
	for (unsigned i = 0; i < CORE_MAX_PARAMS - CORE_OWN_PARAMS; i++)
		t.list[i] = &many[i];
	assert_int_equal(core_check_driver(&t.driver), 0);
	t.list[CORE_MAX_PARAMS - CORE_OWN_PARAMS] = &many[CORE_MAX_PARAMS - 1];
	refuse(&t, "more than");
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void resources_are_owned_from_the_moment_they_are_added(void **state)
{
	struct umdev_resources list = { 0 };
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC), kept;

	assert_int_equal(umdev_resource_add(&list, "", fd, 0, 0, 0), -EINVAL);
	assert_false(is_open(fd));
	assert_int_equal(umdev_resource_add(&list, "disk", -1, 0, 0, 0), -EINVAL);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(umdev_resource_add(&list, "a name of 32 bytes and no room..", fd, 0, 0, 0),
			 -EINVAL);
	assert_false(is_open(fd));
	assert_int_equal(list.n, 0);
	for (unsigned i = 0; i < UMDEV_MAX_RESOURCES; i++)
		assert_int_equal(umdev_resource_add(&list, "disk",
						    open("/dev/null", O_RDWR | O_CLOEXEC),
						    UMDEV_RES_READ, 1, 2),
				 0);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(umdev_resource_add(&list, "disk", fd, 0, 0, 0), -ENOSPC);
	assert_false(is_open(fd));
	kept = list.item[5].fd;
	assert_int_equal(list.item[5].length, 2);
	list.item[6].fd = -1; /* taken by its new owner */
	resources_fini(&list);
	assert_false(is_open(kept));
	assert_int_equal(list.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_of_drivers_are_judged),
		cmocka_unit_test(parameters_of_drivers_are_judged),
		cmocka_unit_test(standard_parameters_are_listed_by_id_only),
		cmocka_unit_test(private_is_what_its_id_or_the_driver_says),
		cmocka_unit_test(too_many_parameters_are_refused),
		cmocka_unit_test(resources_are_owned_from_the_moment_they_are_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
