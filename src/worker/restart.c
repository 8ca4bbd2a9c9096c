/* SPDX-License-Identifier: MIT */
/*
 * A keeper becomes the installed program (`umdev restart`). It has no worker then: that one ended
 * between two requests, all it knew is in the state memory, and every descriptor is still in the
 * table, which survives an exec where nothing in it is CLOEXEC.
 *
 * The keeper keeps all that is open, because it believes no number that a worker could have
 * written; the sweep of the next life closes what nothing names.
 *
 * Which program: the path that umdevd once started. A descriptor from the channel would come
 * through the worker's hands, and a worker that its client took over must not choose what runs
 * outside its sandbox.
 *
 * The first life in the new program is a trial: until it has said RESTARTED, its failure makes the
 * keeper go back to the program before it, which serves on.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "worker/worker.h"

static int keep_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (fd > STDERR_FILENO && fd != dirfd(dir))
			fcntl(fd, F_SETFD, 0);
	}
	closedir(dir);
	return 0;
}

/* Nothing is passed on by accident. */
static void unkeep_descriptors(void)
{
	close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
}

int restart_into(const char *program)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int error = fd < 0 ? -errno : keep_descriptors();
	char number[16];
	char *argv[] = { (char *)program, (char *)WORKER_CONTINUE, number, NULL };

	if (!error) {
		snprintf(number, sizeof(number), "%d", fd);
		execv(program, argv);
		error = -errno;
		unkeep_descriptors();
	}
	if (fd >= 0)
		close(fd);
	return error;
}

int restart_go_back(const char *program, int old_program_fd, int error)
{
	char number[16];
	char *argv[] = { (char *)program, (char *)WORKER_GO_BACK, number, NULL };

	snprintf(number, sizeof(number), "%d", error < 0 ? -error : error);
	log_error("%s cannot go on with this group: back to the program before it", program);
	if (!keep_descriptors())
		fexecve(old_program_fd, argv, environ);
	error = -errno;
	unkeep_descriptors();
	log_error("cannot go back: %s", strerror(-error));
	return error;
}

int restart_continue(const char *program, int old_program_fd)
{
	struct worker_shared *shared;
	int error;

	unkeep_descriptors();
	error = worker_state_open(MW_FD_STATE, &shared);
	if (error) {
		restart_go_back(program, old_program_fd, error);
		return 1;
	}
	shared->restart_error = 0;
	shared->old_program_fd = old_program_fd;
	return keeper_run(shared, program, old_program_fd, true);
}

int restart_gone_back(const char *program, int error)
{
	struct worker_shared *shared;

	unkeep_descriptors();
	if (worker_state_open(MW_FD_STATE, &shared)) {
		log_error("the state memory is damaged");
		return 1;
	}
	shared->old_program_fd = -1; /* closed by the sweep */
	shared->restart_error = error > 0 ? error : EIO;
	return keeper_run(shared, program, -1, true);
}
