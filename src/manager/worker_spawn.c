/* SPDX-License-Identifier: MIT */
/* The start of a worker: its process with three descriptors, and its CONFIG. */
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
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "core/core.h"
#include "core/group.h"
#include "core/resources.h"
#include "manager/drivers.h"
#include "manager/listener.h"
#include "manager/manager.h"
#include "manager/restart.h"
#include "manager/worker_proc.h"

/* Descriptors on their way to MW_FD_*: above all of those, so that placing one overwrites none. */
#define HIGH_FD 16

extern char **environ;

struct child {
	pid_t pid;
	int pidfd, channel_fd; /* owned by the caller */
};

/* The frame of CONFIG for the members, and its descriptors. */
struct config_frame {
	uint8_t data[MW_MAX];
	int len;
	unsigned n_fds;
	int fds[MW_MAX_FDS]; /* owned */
};

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
int worker_spawn_attr(posix_spawnattr_t *attr)
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
static int set_actions(posix_spawn_file_actions_t *actions, const int fds[MW_N_FDS])
{
	int r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDWR, 0);

	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, 0, 1);
	for (int i = 0; i < MW_N_FDS && r == 0; i++)
		r = posix_spawn_file_actions_adddup2(actions, fds[i], MW_FD_CHANNEL + i);
	return r;
}

/* fds: what becomes MW_FD_CHANNEL and those behind it. */
static int run(const char *program, const int fds[MW_N_FDS], pid_t *ret)
{
	_cleanup_(actions_destroyp) posix_spawn_file_actions_t actions;
	_cleanup_(spawnattr_destroyp) posix_spawnattr_t attr;
	char *argv[] = { (char *)program, NULL }; /* restart_into() finds it there again */
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = worker_spawn_attr(&attr);
	if (r == 0)
		r = set_actions(&actions, fds);
	if (r == 0)
		r = posix_spawn(ret, program, &actions, &attr, argv, environ);
	if (r != 0)
		return err_set(-r, "cannot run %s: %s", program, strerror(r));
	return 0;
}

static bool needs_driver(void *arg, const struct umdev_parent_driver *driver)
{
	const struct worker *w = arg;

	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].mdev->parent->driver == driver)
			return true;
	}
	return false;
}

char *worker_rendezvous_path(struct manager *m, uint32_t group)
{
	return config_run_path(&m->config, "worker/%u", group);
}

/* Its descriptors from MW_FD_CHANNEL on, -1 where there is none yet. channel_fd is taken. */
static int make_fds(struct worker *w, const char *path, int channel_fd, int fds[MW_N_FDS])
{
	int state_fd = memfd_create("umdev-state", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;

	fds[MW_FD_CHANNEL - MW_FD_CHANNEL] = lift(channel_fd);
	fds[MW_FD_STATE - MW_FD_CHANNEL] = lift(state_fd < 0 ? -errno : state_fd);
	r = lift(sock_listen(path, 0600));
	fds[MW_FD_RENDEZVOUS - MW_FD_CHANNEL] = r;
	if (r < 0)
		return err_set(r, "cannot listen on %s: %s", path, strerror(-r));
	fds[MW_FD_GRAVE - MW_FD_CHANNEL] = lift(worker_grave_make(w));
	for (int i = 0; i < MW_N_FDS; i++)
		if (fds[i] < 0)
			return fds[i];
	return 0;
}

static void close_fds(const int fds[MW_N_FDS])
{
	for (int i = 0; i < MW_N_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* The process. 0 / -errno (text left): there is none */
static int run_in_group(struct worker *w, const char *path, struct child *ret)
{
	int pair[2], fds[MW_N_FDS], r = sock_pair(pair);

	if (r < 0)
		return r;
	memset(fds, -1, sizeof(fds));
	ret->channel_fd = pair[0];
	r = make_fds(w, path, pair[1], fds);
	if (r == 0)
		r = run(w->manager->options.worker_path, fds, &ret->pid);
	close_fds(fds);
	if (r < 0)
		return r;
	ret->pidfd = pidfd_open(ret->pid, 0);
	if (ret->pidfd < 0) {
		r = -errno;
		kill(-ret->pid, SIGKILL);
		waitpid(ret->pid, NULL, 0); /* dies at once */
	}
	return r;
}

/* 0 / -errno (text left) */
static int spawn(struct worker *w, struct child *ret)
{
	_cleanup_free_ char *path = worker_rendezvous_path(w->manager, w->group);
	int r = path ? run_in_group(w, path, ret) : -ENOMEM;

	if (r < 0 && path)
		unlink(path);
	if (r < 0 && ret->channel_fd >= 0)
		close(take_fd(&ret->channel_fd));
	return r;
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
			 struct config_frame *config)
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
		      struct config_frame *config)
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

/* Resources of members are marked. 0 / -errno (text left) */
static int make_config(struct worker *w, struct config_frame *ret)
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

/* ---- both ---- */

/* Nothing came of it: the drivers take back what they had opened. */
static void worker_undo(struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].has_resources)
			mdev_resources_end(w->members[i].mdev);
	}
	worker_grave_remove(w);
	free(w);
}

/* The process runs; from here on its end is what cleans up. 0 / -errno, then there is none. */
static int keep_child(struct worker *w, const struct child *child)
{
	int r = worker_watch(w, child->pid, child->pidfd);

	if (r < 0) {
		kill(-child->pid, SIGKILL);
		waitpid(child->pid, NULL, 0); /* dies at once */
		close(child->pidfd);
		close(child->channel_fd);
		return r;
	}
	for (unsigned i = 0; i < w->n_members; i++) {
		((struct listener *)w->members[i].mdev->manager)->worker = w;
		restart_save(w->manager, w->members[i].mdev); /* before it has a client */
	}
	r = link_open(&w->link, &w->manager->loop, child->channel_fd);
	if (r < 0)
		worker_unreachable(w, r);
	return 0;
}

/* The program cannot be run: no connection will change that. */
static void fail_members(struct mdev_group *group, int error)
{
	struct umdev_mdev *mdev, *next;
	char text[ERR_TEXT];

	str_format(text, sizeof(text), "%s", err_text(error));
	log_error("group %u: %s", group->number, text);
	list_for_each_safe(mdev, next, &group->members, group_node)
		core_failed(mdev, text);
	err_clear();
	err_set(error, "%s", text);
}

int worker_start(struct manager *m, struct mdev_group *group)
{
	_cleanup_free_ struct config_frame *config = malloc(sizeof(*config));
	struct worker *w = worker_new(m, group->number);
	struct child child = { .pidfd = -1, .channel_fd = -1 };
	struct umdev_mdev *mdev;
	int r;

	if (!w || !config) {
		free(w);
		return -ENOMEM;
	}
	list_for_each(mdev, &group->members, group_node)
		w->members[w->n_members++].mdev = mdev;
	r = make_config(w, config);
	if (r < 0) {
		worker_undo(w);
		return r;
	}
	/* Only what the group needs: one driver's code is not in another's process. */
	r = drivers_name_files(m->options.drivers, needs_driver, w);
	if (r == 0)
		r = spawn(w, &child);
	if (r == 0)
		r = keep_child(w, &child);
	else if (!worker_is_shortage(r))
		fail_members(group, r);
	if (r < 0) {
		while (config->n_fds)
			close(config->fds[--config->n_fds]);
		worker_undo(w);
		return r;
	}
	log_debug("group %u: worker %d started", w->group, (int)child.pid);
	worker_send(w, config->data, config->len, config->fds, config->n_fds);
	return 0;
}
