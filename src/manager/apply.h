/* SPDX-License-Identifier: MIT */
/*
 * Many changes as one transaction (`umdev apply`): all of them, or everything is as it was.
 *
 * First every change is checked, with what those before it take being held, and nothing that
 * anybody could see. Then they are made: creations and values in order, then what is to be
 * committed (all at once, core/start.c), then the removals, which nothing can refuse any more. What
 * is refused after all (a driver, a worker, a client that came in between) ends it, and what was
 * done is undone, last first. So units that a removal frees are not there for a creation of the
 * same transaction.
 */
#ifndef MANAGER_APPLY_H
#define MANAGER_APPLY_H

#include <stdbool.h>
#include <jansson.h>

struct attr_wait;
struct manager;

/* changes: an array of the interface's Change. 0 (dry_run: it could be done), -errno (text left),
 * or TREE_LATER: wait is answered. */
int apply_start(struct manager *m, json_t *changes, bool dry_run, struct attr_wait *wait);
/* The manager ends: those under way stop where they are. */
void apply_close(struct manager *m);

#endif
