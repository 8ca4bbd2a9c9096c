/* SPDX-License-Identifier: MIT */
/* The device halves: those that are linked in, one line each, then those of drivers' files. */
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/plugin.h"
#include "drivers/disk/disk.h"
#include "drivers/display/display.h"
#include "drivers/mtty/mtty.h"
#include "drivers/test/test.h"
#include "worker/internal.h"

#define MAX_FILES 256 /* a group needs a few; --state-versions tells of all that umdevd has */

static const struct umdev_device_driver *drivers[8 + MAX_FILES + 1] = {
	&disk_device_driver, &display_device_driver, &mtty_device_driver, &test_device_driver, NULL,
};

const struct umdev_device_driver *const *const worker_drivers = drivers;

static int load(const char *path, const struct umdev_device_driver **ret)
{
	const void *table;
	void *handle;
	int error = plugin_open(path, &handle);

	if (!error) {
		error = plugin_table(handle, "umdev_device_driver", &table);
		if (error)
			plugin_close(handle);
		else
			*ret = table; /* stays loaded while this process lives */
	}
	return error;
}

void worker_load_drivers(void)
{
	const char *given = getenv(MW_DRIVER_FILES);
	_cleanup_free_ char *files = given ? strdup(given) : NULL;
	char *rest = files, *path;
	unsigned n = 0;

	while (drivers[n])
		n++;
	while ((path = strsep(&rest, ":"))) {
		int error;

		if (!*path)
			continue;
		err_clear();
		if (n == sizeof(drivers) / sizeof(*drivers) - 1)
			error = -E2BIG;
		else
			error = load(path, &drivers[n]);
		if (error)
			log_error("driver file %s skipped: %s", path, err_text(error));
		else
			n++;
	}
}
