/* SPDX-License-Identifier: MIT */
#include "manager/sandbox_report.h"
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <umdev/cleanup.h>
#include <unistd.h>

#define ANSWER_MS 5000 /* it takes some ms */

extern char **environ;

pid_t sandbox_report_begin(const char *program)
{
	char *const argv[] = { (char *)program, "--sandbox", NULL };
	pid_t pid;

	return posix_spawn(&pid, program, NULL, NULL, argv, environ) ? 0 : pid;
}

void sandbox_report_end(pid_t pid)
{
	_cleanup_close_ int pidfd = pid ? pidfd_open(pid, 0) : -1;
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	if (!pid)
		return;
	if (pidfd < 0 || poll(&p, 1, ANSWER_MS) != 1)
		kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
