/* SPDX-License-Identifier: MIT */
/*
 * The drivers that umdevd knows: those it was built with, then those it finds as files *.so, in
 * the directories of $UMDEV_DRIVERS (separated by ':'; set and empty: nowhere) or else where
 * drivers are installed. Loaded once, at the start.
 *
 * A file that cannot be used is named in the log with the reason, and skipped: a driver is not
 * worth a daemon. Code of a file is trusted as umdevd's own: it runs while it is loaded.
 */
#ifndef MANAGER_DRIVERS_H
#define MANAGER_DRIVERS_H

#include "core/core.h"

struct driver_file;

struct drivers {                                  /* owned by the manager */
	const struct umdev_parent_driver **table; /* all, NULL-terminated, as core wants them */
	unsigned n;
	struct driver_file *files; /* owned; a list */
};

/* 0 / -ENOMEM */
int drivers_load(struct drivers *d);
/* Nothing of a driver may be in use any more. */
void drivers_unload(struct drivers *d);
/* Path of its file, borrowed. NULL: umdevd was built with it. */
const char *drivers_file(const struct drivers *d, const struct umdev_parent_driver *driver);

/* Names the files of those drivers in the environment of programs that are started next: a
 * umdev-worker loads them. needs NULL: of all. 0 / -ENOMEM */
int drivers_name_files(const struct drivers *d,
		       bool (*needs)(void *arg, const struct umdev_parent_driver *driver),
		       void *arg);

#endif
