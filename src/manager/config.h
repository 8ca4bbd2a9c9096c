/* SPDX-License-Identifier: MIT */
/*
 * What umdevd keeps over restarts ($UMDEV_CONFIG/parents.d/<name>.json), and the lock that makes it
 * the only one on its $UMDEV_RUN.
 */
#ifndef MANAGER_CONFIG_H
#define MANAGER_CONFIG_H

#include <stddef.h>
#include <sys/types.h>
#include "core/core.h"

struct config {                     /* owned by the manager */
	char *run_dir, *config_dir; /* config_dir NULL: nothing is kept (--one) */
	int lock_fd;
};
#define CONFIG_INIT           \
	{                     \
		.lock_fd = -1 \
	}

/* Takes the paths of the environment, makes $UMDEV_RUN and locks it. 0 / -errno (text left);
 * -EBUSY: another umdevd runs there. */
int config_open(struct config *c);
void config_close(struct config *c);

/* A path below $UMDEV_RUN, to be freed. NULL: ENOMEM */
char *config_run_path(const struct config *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Replaces a file: its text is on disk before it has its name; that the name is, too, is asked for.
 * 0 / -errno */
int config_replace(int dir_fd, const char *tmp, const char *name, const char *text, mode_t mode);

/* Keep a parent for the next start. 0 / -errno (text left), then the old file is as it was. */
int config_save_parent(const struct config *c, const char *name, const char *driver,
		       const struct core_setting *settings, unsigned n);
/* 0, also when it was not kept / -errno. */
int config_forget_parent(const struct config *c, const char *name);

/* Calls add for each kept parent, by name. A file that is no such description, or whose add
 * fails, is named in the log with the reason and skipped. */
typedef int config_parent_fn(void *arg, const char *name, const char *driver,
			     const struct core_setting *settings, unsigned n);
void config_load_parents(const struct config *c, config_parent_fn *add, void *arg);

#endif
