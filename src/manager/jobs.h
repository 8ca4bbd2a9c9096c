/* SPDX-License-Identifier: MIT */
/*
 * Slow work for drivers (struct umdev_job): processes of umdev-store, a few at once, the rest in a
 * queue. One is told what to do by its arguments, has the descriptors it is given and nothing else,
 * says on its standard output how far it is (a byte for each percent), and by its exit status how
 * it ended: 0, or an errno.
 */
#ifndef MANAGER_JOBS_H
#define MANAGER_JOBS_H

#include <stdbool.h>
#include "base/list.h"

struct manager;
struct umdev_job;

struct jobs {                  /* embedded in the manager */
	struct list_node list; /* struct job: those that run, then those that wait */
	unsigned n_running;
};

void jobs_init(struct jobs *jobs);
/* Of core_ops. */
int jobs_start(void *arg, struct umdev_job *job, const char *const *args, const int *fds,
	       unsigned n_fds);
void jobs_cancel(void *arg, struct umdev_job *job, bool leave);
/* What runs is on its own; what waits is forgotten. */
void jobs_fini(struct manager *m);

#endif
