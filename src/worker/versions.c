/* SPDX-License-Identifier: MIT */
/* Which state memory this program reads: told to umdevd, and compared before a restart. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "vfio/server.h"
#include "worker/worker.h"

static int check(const char *what, uint32_t theirs, uint32_t ours)
{
	if (theirs == ours)
		return 0;
	return err_set(-EPROTO,
		       "the installed umdev-worker reads version %u of %s, the running one writes "
		       "version %u: it takes over when the clients have left",
		       theirs, what, ours);
}

int versions_check_type(const struct mw_versions *versions, const char *driver,
			const struct umdev_device_type *type)
{
	char name[sizeof(versions->types[0].name)], what[sizeof(name) + 32];

	str_format(name, sizeof(name), "%s-%s", driver, type->name);
	for (unsigned i = 0; i < versions->n_types; i++) {
		if (strcmp(versions->types[i].name, name) != 0)
			continue;
		str_format(what, sizeof(what), "the state of type %s", name);
		return check(what, versions->types[i].version, type->state_version);
	}
	return err_set(-EPROTO,
		       "the installed umdev-worker has no type %s: it was built without "
		       "that driver",
		       name);
}

int versions_check(const struct mw_versions *versions)
{
	int error = check("the group's state", versions->worker, WORKER_LAYOUT);

	return error ? error : check("the vfio-user state", versions->vfio, VFIO_LAYOUT);
}

int versions_print(const struct umdev_device_driver *const *drivers)
{
	const char *separator = "";

	printf("{\"messages\": %d, \"worker\": %d, \"vfio\": %d, \"types\": {", MW_VERSION,
	       WORKER_LAYOUT, VFIO_LAYOUT);
	for (; *drivers; drivers++) {
		const struct umdev_device_type *type = (*drivers)->types;

		for (; type->name; type++, separator = ", ")
			printf("%s\"%s-%s\": %u", separator, (*drivers)->name, type->name,
			       type->state_version);
	}
	return puts("}}") < 0 || fflush(stdout) ? -EIO : 0;
}
