/* SPDX-License-Identifier: MIT */
#include "manager/jobs.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "core/core.h"
#include "manager/manager.h"
#include "manager/worker_proc.h"

#define MAX_RUNNING 8 /* disks gain nothing from more */
#define MAX_ARGS 12
#define MAX_FDS 6
#define FIRST_FD 3
#define HIGH_FD 16 /* above where descriptors are placed */

extern char **environ;

/* Waits (pid 0), then runs. Owned by the list. */
struct job {
	struct list_node node;
	struct manager *manager;
	struct umdev_job *job;    /* NULL: nobody wants to know its end */
	char *args[MAX_ARGS + 2]; /* with the program's name and NULL; owned */
	int fds[MAX_FDS];         /* owned */
	unsigned n_fds;
	const char *path; /* of its program, borrowed */
	bool stays;       /* as long as what it serves: no work that others wait for */
	pid_t pid;
	int pidfd, progress_fd; /* owned */
	struct loop_fd exit_source, progress_source;
	struct loop_defer failed; /* it could not be run: -error is its end */
	int error;
};

static void job_free(struct job *j)
{
	loop_remove(&j->exit_source);
	loop_remove(&j->progress_source);
	loop_defer_cancel(&j->failed);
	list_remove(&j->node);
	for (char **arg = j->args; *arg; arg++)
		free(*arg);
	while (j->n_fds)
		close(j->fds[--j->n_fds]);
	if (j->pidfd >= 0)
		close(j->pidfd);
	if (j->progress_fd >= 0)
		close(j->progress_fd);
	free(j);
}

/* ---- what becomes of it ---- */

static void run_next(struct manager *m);

static void end(struct job *j, int error)
{
	struct manager *m = j->manager;
	struct umdev_job *job = j->job;

	m->jobs.n_running -= j->pid && !j->stays;
	job_free(j);
	err_clear();
	if (job) {
		job->manager = NULL;
		job->done(job, error);
	}
	run_next(m);
}

static void take_progress(struct job *j)
{
	uint8_t buf[128];
	ssize_t n = read(j->progress_fd, buf, sizeof(buf));

	if (n > 0 && j->job)
		j->job->percent = buf[n - 1] < 100 ? buf[n - 1] : 100;
	else if (n == 0)
		loop_remove(&j->progress_source);
}

static void on_progress(struct loop_fd *source, uint32_t revents)
{
	take_progress(container_of(source, struct job, progress_source));
}

static void on_exit_of(struct loop_fd *source, uint32_t revents)
{
	struct job *j = container_of(source, struct job, exit_source);
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)j->pid, &info, WEXITED | WNOHANG) < 0 || !info.si_pid)
		return;
	end(j, info.si_code == CLD_EXITED ? -info.si_status : -EINTR);
}

static void on_failed(struct loop_defer *defer)
{
	struct job *j = container_of(defer, struct job, failed);

	end(j, j->error);
}

/* ---- running it ---- */

static int set_actions(posix_spawn_file_actions_t *actions, const struct job *j, int progress_fd)
{
	int r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, progress_fd, 1);
	for (unsigned i = 0; i < j->n_fds && r == 0; i++)
		r = posix_spawn_file_actions_adddup2(actions, j->fds[i], FIRST_FD + (int)i);
	return r;
}

static int spawn(struct job *j, int progress_fd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = worker_spawn_attr(&attr);
	if (r == 0)
		r = set_actions(&actions, j, progress_fd);
	if (r == 0)
		r = posix_spawn(&j->pid, j->path, &actions, &attr, j->args, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (r != 0)
		log_error("cannot run %s: %s", j->path, strerror(r));
	return -r;
}

static int watch(struct job *j)
{
	struct loop *loop = &j->manager->loop;
	int r;

	j->pidfd = pidfd_open(j->pid, 0);
	r = j->pidfd < 0 ? -errno : loop_add(loop, &j->exit_source, j->pidfd, EPOLLIN, on_exit_of);
	if (r == 0)
		r = loop_add(loop, &j->progress_source, j->progress_fd, EPOLLIN, on_progress);
	if (r < 0) {
		kill(j->pid, SIGKILL);
		waitpid(j->pid, NULL, 0); /* dies at once */
		j->pid = 0;
	}
	return r;
}

static int run(struct job *j)
{
	_cleanup_close_ int write_fd = -1;
	int pair[2], r;

	if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	j->progress_fd = pair[0];
	write_fd = fcntl(pair[1], F_DUPFD_CLOEXEC, HIGH_FD);
	close(pair[1]);
	if (write_fd < 0)
		return -errno;
	r = spawn(j, write_fd);
	return r < 0 ? r : watch(j);
}

/* Its end is told from the loop in any case. */
static void run_or_fail(struct job *j)
{
	int r = run(j);

	if (r < 0) {
		j->error = r;
		loop_defer(&j->manager->loop, &j->failed, on_failed);
	} else {
		j->manager->jobs.n_running += !j->stays;
	}
}

static void run_next(struct manager *m)
{
	struct job *j;

	list_for_each(j, &m->jobs.list, node) {
		if (m->jobs.n_running >= MAX_RUNNING && !j->stays)
			continue;
		if (!j->pid && !list_is_linked(&j->failed.node))
			run_or_fail(j);
	}
}

/* ---- from drivers ---- */

void jobs_init(struct jobs *jobs)
{
	list_init(&jobs->list);
}

/* Programs that a driver may have run. */
static int choose(struct job *j, const char *program)
{
	const struct manager_options *options = &j->manager->options;

	j->stays = program;
	j->path = program ? options->screen_path : options->store_path;
	return program && strcmp(program, "umdev-screen") != 0 ? -EINVAL : 0;
}

static int fill(struct job *j, const char *const *args, const int *fds, unsigned n_fds)
{
	j->args[0] = strdup(j->stays ? "umdev-screen" : "umdev-store");
	for (unsigned i = 0; args[i] && j->args[i]; i++) {
		if (i == MAX_ARGS)
			return -E2BIG;
		j->args[i + 1] = strdup(args[i]);
		if (!j->args[i + 1])
			return -ENOMEM;
	}
	if (!j->args[0] || n_fds > MAX_FDS)
		return j->args[0] ? -E2BIG : -ENOMEM;
	for (; j->n_fds < n_fds; j->n_fds++) {
		j->fds[j->n_fds] = fcntl(fds[j->n_fds], F_DUPFD_CLOEXEC, HIGH_FD);
		if (j->fds[j->n_fds] < 0)
			return -errno;
	}
	return 0;
}

int jobs_start(void *arg, struct umdev_job *job, const char *const *args, const int *fds,
	       unsigned n_fds)
{
	struct manager *m = arg;
	struct job *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return -ENOMEM;
	j->manager = m;
	j->job = job;
	j->pidfd = j->progress_fd = -1;
	j->exit_source = j->progress_source = (struct loop_fd)LOOP_FD_INIT;
	r = choose(j, job->program);
	if (r == 0)
		r = fill(j, args, fds, n_fds);
	if (r < 0) {
		job_free(j);
		return r;
	}
	job->manager = j;
	job->percent = 0;
	list_append(&m->jobs.list, &j->node);
	run_next(m);
	return 0;
}

void jobs_cancel(void *arg, struct umdev_job *job, bool leave)
{
	struct job *j = job->manager;

	job->manager = NULL;
	j->job = NULL;
	if (j->pid && !leave)
		pidfd_send_signal(j->pidfd, SIGKILL, NULL, 0);
	else if (!j->pid && !leave)
		job_free(j);
	else if (!j->pid && !list_is_linked(&j->failed.node))
		run_or_fail(j); /* there may be no later */
}

void jobs_fini(struct manager *m)
{
	struct job *j;

	while (m->jobs.list.next && (j = list_first(&m->jobs.list, struct job, node))) {
		if (j->job)
			j->job->manager = NULL;
		job_free(j);
	}
}
