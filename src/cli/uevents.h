/* SPDX-License-Identifier: MIT */
/*
 * uevents inside `umdev exec --uevents`: a child process hears of umdevd's devices over the control
 * socket and tells the listeners of udev in its network namespace. It ends with its parent, the
 * command; while umdevd is being replaced it waits for the next one.
 */
#ifndef CLI_UEVENTS_H
#define CLI_UEVENTS_H

#include "cli/cli.h"

/* Starts the child; when this returns, no event is missed from now on. */
enum cli_exit uevents_start(void);

#endif
