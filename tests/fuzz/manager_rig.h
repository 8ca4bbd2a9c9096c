/* SPDX-License-Identifier: MIT */
/*
 * The manager of umdevd inside a fuzz target: its loop and core, sockets in a private directory,
 * nothing mounted and nothing kept. Made once, because that is slow; what a session made must be
 * gone at its end.
 */
#ifndef TESTS_MANAGER_RIG_H
#define TESTS_MANAGER_RIG_H

#include "manager/manager.h"

struct manager_rig {
	struct manager m;
	struct loop_fd stop; /* its fd is owned */
	int lowest_fd;       /* that is free between sessions */
};

struct manager_rig *manager_rig_begin(void);
/* Removes all parents with their devices; asserts that nothing is left, not one descriptor. */
void manager_rig_end(struct manager_rig *rig);
/* Runs the loop until there is nothing more to do. */
void manager_rig_settle(struct manager_rig *rig);

#endif
