/* SPDX-License-Identifier: MIT */
/* What a worker starts with: its process with three descriptors, and its CONFIG. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/sock.h"
#include "base/str.h"
#include "core/core.h"
#include "core/resources.h"
#include "manager/manager.h"
#include "manager/worker_proc.h"

/* Descriptors on their way to MW_FD_*: above all of those, so that placing one overwrites none. */
#define HIGH_FD 16

extern char **environ;

/* Consumes fd (-errno passes through). */
static int lift(int fd)
{
	int high;

	if (fd < 0)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
	if (high < 0)
		high = -errno;
	close(fd);
	return high;
}

static void spawnattr_destroyp(posix_spawnattr_t *attr)
{
	posix_spawnattr_destroy(attr);
}
static void actions_destroyp(posix_spawn_file_actions_t *actions)
{
	posix_spawn_file_actions_destroy(actions);
}

/* A process group of its own: ^C in our terminal is for us, and one kill reaches keeper and worker.
 * Signals as after a login. */
static int set_attr(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &all);
	posix_spawnattr_setpgroup(attr, 0);
	return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
}

/* Standard error stays ours; everything that is not named here is CLOEXEC. 0 / errno */
static int set_actions(posix_spawn_file_actions_t *actions, int channel_fd, int rendezvous_fd,
		       int state_fd)
{
	int r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDWR, 0);

	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, 0, 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, channel_fd, MW_FD_CHANNEL);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, rendezvous_fd, MW_FD_RENDEZVOUS);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, state_fd, MW_FD_STATE);
	return r;
}

static int run(const char *program, int channel_fd, int rendezvous_fd, int state_fd, pid_t *ret)
{
	_cleanup_(actions_destroyp) posix_spawn_file_actions_t actions;
	_cleanup_(spawnattr_destroyp) posix_spawnattr_t attr;
	char *argv[] = { (char *)"umdev-worker", NULL };
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = set_attr(&attr);
	if (r == 0)
		r = set_actions(&actions, channel_fd, rendezvous_fd, state_fd);
	if (r == 0)
		r = posix_spawn(ret, program, &actions, &attr, argv, environ);
	if (r != 0)
		return err_set(-r, "cannot run %s: %s", program, strerror(r));
	return 0;
}

char *worker_rendezvous_path(struct manager *m, uint32_t group)
{
	return config_run_path(&m->config, "worker/%u", group);
}

int worker_spawn(struct manager *m, uint32_t group, struct worker_child *ret)
{
	_cleanup_free_ char *path = worker_rendezvous_path(m, group);
	_cleanup_close_ int ours = -1, theirs = -1, rendezvous_fd = -1, state_fd = -1;
	int pair[2], r;
	pid_t pid;

	if (!path)
		return -ENOMEM;
	r = sock_pair(pair);
	if (r < 0)
		return r;
	ours = pair[0];
	theirs = lift(pair[1]);
	rendezvous_fd = lift(sock_listen(path, 0600));
	if (rendezvous_fd < 0)
		return err_set(rendezvous_fd, "cannot listen on %s: %s", path,
			       strerror(-rendezvous_fd));
	state_fd = memfd_create("umdev-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	state_fd = lift(state_fd < 0 ? -errno : state_fd);
	if (theirs < 0 || state_fd < 0)
		return theirs < 0 ? theirs : state_fd;
	r = run(m->options.worker_path, theirs, rendezvous_fd, state_fd, &pid);
	if (r < 0) {
		unlink(path);
		return r;
	}
	*ret = (struct worker_child){ .pid = pid, .pidfd = pidfd_open(pid, 0) };
	if (ret->pidfd < 0) {
		r = -errno;
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0); /* dies at once */
		unlink(path);
		return r;
	}
	ret->channel_fd = take_fd(&ours);
	return 0;
}

/* ---- CONFIG ---- */

static void put_params(const struct umdev_mdev *mdev, struct mw_member *out)
{
	const struct core_type *type = mdev->type->info;

	out->n_params = type->n_params;
	for (unsigned i = 0; i < type->n_params; i++) {
		str_format(out->params[i].name, sizeof(out->params[i].name), "%s",
			   type->params[i]->name);
		out->params[i].type = type->params[i]->type;
		out->params[i].value = *mdev_param(mdev, i);
	}
}

/* Moves the descriptors of list into config. */
static int put_resources(struct umdev_resources *list, struct mw_member *out,
			 struct worker_config *config)
{
	for (unsigned i = 0; i < list->n; i++) {
		struct mw_resource *res = &out->resources[out->n_resources++];

		if (config->n_fds == MW_MAX_FDS)
			return err_set(-ENOSPC, "its group needs more than %d descriptors",
				       MW_MAX_FDS);
		*res = (struct mw_resource){
			.flags = list->item[i].flags,
			.offset = list->item[i].offset,
			.length = list->item[i].length,
		};
		memcpy(res->name, list->item[i].name, sizeof(res->name));
		config->fds[config->n_fds++] = take_fd(&list->item[i].fd);
	}
	return 0;
}

static int put_member(struct worker_member *member, struct mw_member *out,
		      struct worker_config *config)
{
	struct umdev_mdev *mdev = member->mdev;
	struct umdev_resources list;
	int r;

	*out = (struct mw_member){ .uuid = mdev->uuid };
	str_format(out->driver, sizeof(out->driver), "%s", mdev->parent->driver->name);
	str_format(out->type, sizeof(out->type), "%s", mdev->type->desc->name);
	str_format(out->presentation, sizeof(out->presentation), "vfio-user");
	put_params(mdev, out);
	r = mdev_resources(mdev, &list);
	if (r < 0)
		return r;
	member->has_resources = true;
	r = put_resources(&list, out, config);
	resources_fini(&list);
	return r;
}

int worker_make_config(struct worker *w, struct worker_config *ret)
{
	_cleanup_free_ struct mw_member *members = calloc(w->n_members, sizeof(*members));
	struct mw_config config = {
		.version = MW_VERSION,
		.group = w->group,
		.n_members = w->n_members,
		.members = members,
	};
	int r = members ? 0 : -ENOMEM;

	ret->n_fds = 0;
	for (unsigned i = 0; i < w->n_members && r == 0; i++)
		r = put_member(&w->members[i], &members[i], ret);
	if (r == 0) {
		ret->len = mw_put_config(ret->data, sizeof(ret->data), &config);
		r = ret->len < 0 ? ret->len : 0;
	}
	while (r < 0 && ret->n_fds)
		close(ret->fds[--ret->n_fds]);
	return r;
}
