/* SPDX-License-Identifier: MIT */
/* The parent half of the driver `test`, in the model. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/err.h"
#include "core/core.h"
#include "drivers/test/test.h"

#define UUID "7e570000-0000-4000-8000-0000000000"

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
static const struct umdev_parent_driver *const drivers[] = { &test_parent_driver, NULL };

struct model {
	struct core core;
	struct umdev_parent *parent;
	unsigned n;
};

static int setup(void **state)
{
	static struct model m;

	m = (struct model){ 0 };
	assert_int_equal(core_init(&m.core, drivers, &ops, NULL), 0);
	assert_int_equal(parent_add(&m.core, "t", "test", NULL, 0, &m.parent), 0);
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	struct model *m = *state;

	assert_int_equal(parent_remove(m->parent), 0);
	core_fini(&m->core);
	return 0;
}

/* settings: "" or ",key=value...". */
static int create(struct model *m, const char *type, const char *settings, struct umdev_mdev **ret)
{
	char spec[256];
	int len = snprintf(spec, sizeof(spec), UUID "%02x%s", m->n++, settings);

	return mdev_create(type_find(m->parent, type), spec, (size_t)len, ret);
}

static int set(struct umdev_mdev *mdev, const char *name, const char *text)
{
	err_clear();
	return param_set(mdev, name, text, strlen(text), NULL);
}

static void units_are_shared_by_both_types(void **state)
{
	struct model *m = *state;
	struct mdev_type *regs = type_find(m->parent, "test-regs");
	struct mdev_type *dma = type_find(m->parent, "test-dma");
	struct umdev_mdev *a, *b, *c;

	assert_int_equal(type_available(regs), TEST_UNITS);
	assert_int_equal(type_available(dma), TEST_UNITS / 2);
	assert_int_equal(create(m, "test-dma", ",aggregation=20", &a), 0);
	assert_int_equal(type_available(regs), TEST_UNITS - 40);
	assert_int_equal(create(m, "test-regs", ",aggregation=23", &b), 0);
	assert_int_equal(type_available(regs), 1);
	assert_int_equal(type_available(dma), 0);
	assert_int_equal(create(m, "test-dma", "", &c), -ENOSPC);
	assert_int_equal(mdev_remove(a, MDEV_REMOVE, NULL), 0);
	assert_int_equal(type_available(dma), 20);
}

static void refusals_are_explained(void **state)
{
	struct model *m = *state;
	struct umdev_mdev *mdev;

	assert_int_equal(create(m, "test-regs", ",gain=13", &mdev), -EDOM);
	assert_int_equal(create(m, "test-regs", ",gain=100,note=hello,color=blue", &mdev), 0);
	assert_int_equal(set(mdev, "gain", "13"), -EDOM);
	assert_non_null(strstr(err_text(-EDOM), "13"));
	assert_string_equal(umdev_mdev_param(mdev, "gain")->text, "100");
	assert_int_equal(set(mdev, "gain", "101"), -ERANGE);
	assert_int_equal(set(mdev, "gain", "14"), 0); /* nobody serves it, nobody refuses */
	assert_int_equal(set(mdev, "color", "pink"), -ERANGE);
	assert_int_equal(set(mdev, "note", "changed"), 0);
	assert_int_equal(umdev_mdev_param(mdev, "color")->u64, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(units_are_shared_by_both_types, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_are_explained, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
