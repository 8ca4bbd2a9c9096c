/* SPDX-License-Identifier: MIT */
/*
 * What workers lack on this machine, told once: the program that knows is asked while umdevd starts
 * (umdev-worker --sandbox), and writes its line, if any, where umdevd writes its own.
 */
#ifndef MANAGER_SANDBOX_REPORT_H
#define MANAGER_SANDBOX_REPORT_H

#include <sys/types.h>

pid_t sandbox_report_begin(const char *program); /* 0: it does not run */
void sandbox_report_end(pid_t pid);              /* waits for it, and ends it if it hangs */

#endif
