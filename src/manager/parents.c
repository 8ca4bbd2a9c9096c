/* SPDX-License-Identifier: MIT */
/* The parent halves that umdevd is built with: one line each. */
#include "manager/manager.h"

extern const struct umdev_parent_driver disk_parent_driver, display_parent_driver,
	mtty_parent_driver, test_parent_driver;

const struct umdev_parent_driver *const parent_drivers[] = {
	&disk_parent_driver, &display_parent_driver, &mtty_parent_driver, &test_parent_driver, NULL,
};
