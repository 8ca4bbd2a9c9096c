/* SPDX-License-Identifier: MIT */
/* The device halves that are linked in: one line each. */
#include "drivers/mtty/mtty.h"
#include "drivers/test/test.h"
#include "worker/internal.h"

const struct umdev_device_driver *const worker_drivers[] = {
	&mtty_device_driver,
	&test_device_driver,
	NULL,
};
