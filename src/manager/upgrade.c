/* SPDX-License-Identifier: MIT */
/* The installed program is asked, then the workers one after the other; upgrade.h has the idea. */
#include "manager/upgrade.h"
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
#include "base/str.h"
#include "core/core.h"
#include "manager/control.h"
#include "manager/drivers.h"
#include "manager/listener.h"
#include "manager/manager.h"
#include "manager/worker_proc.h"

#define NS_PER_S 1000000000ull
#define ASK_S 5             /* exec and one line of text: some ms */
#define RESTART_S 5         /* exec, clone, check: some ms; a client of ours waits 5 s */
#define MAX_TEXT (32 << 10) /* what the program says; less than a pipe holds */

/* Of all types there may be. */
#define FRAME_MAX (MW_HEADER + 10 + 133 * MW_MAX_TYPES)

extern char **environ;

/* asking -> restarting (current, one after the other) -> freed */
struct upgrade { /* owned by the manager; one at a time */
	struct manager *manager;
	struct attr_wait *wait; /* the caller, or NULL: it left */
	pid_t pid;              /* the program that is asked; 0: it has answered */
	int pidfd, out_fd;      /* both owned; -1 after that */
	struct loop_fd exit_source;
	struct loop_timer deadline;
	struct worker *current; /* it was sent RESTART */
	unsigned n, n_failed;
	int error;           /* of the first failure ... */
	char text[ERR_TEXT]; /* ... and why */
	struct mw_versions versions;
};

static void end_of_asking(struct upgrade *u)
{
	loop_timer_cancel(&u->deadline);
	loop_remove(&u->exit_source);
	if (u->pidfd >= 0)
		close(take_fd(&u->pidfd));
	if (u->out_fd >= 0)
		close(take_fd(&u->out_fd));
	u->pid = 0;
}

static void note_failure(struct upgrade *u, int error, const char *text)
{
	if (!u->n_failed++) {
		u->error = error;
		str_format(u->text, sizeof(u->text), "%s", text);
	}
}

/* Answers the caller. Frees u. */
static void finish(struct upgrade *u)
{
	struct worker *w;

	end_of_asking(u);
	list_for_each(w, &u->manager->workers, node)
		w->restart_wanted = false;
	u->manager->upgrade = NULL;
	err_clear();
	if (u->n_failed && u->n > 1)
		err_set(u->error, "%u of %u groups were not restarted: %s", u->n_failed, u->n,
			u->text);
	else if (u->n_failed)
		err_set(u->error, "%s", u->text);
	attr_done(&u->wait, u->error);
	free(u);
}

/* ---- the workers ---- */

/* Of the current one. */
static void note_result(struct upgrade *u, int error, const char *text)
{
	const struct worker *w = TAKE(u->current);
	char line[ERR_TEXT];

	loop_timer_cancel(&u->deadline);
	if (!error) {
		log_info("group %u: its worker runs the installed program now", w->group);
		return;
	}
	str_format(line, sizeof(line), "group %u was not restarted: %s", w->group, text);
	log_error("%s", line);
	note_failure(u, error, line);
}

static void next_worker(struct upgrade *u);

static void no_answer(struct loop_timer *timer)
{
	struct upgrade *u = container_of(timer, struct upgrade, deadline);

	note_result(u, -ETIMEDOUT, "its worker has not answered yet");
	next_worker(u);
}

/* False: it cannot be asked. One that cannot be reached ends, and that is noticed. */
static bool ask_worker(struct upgrade *u, struct worker *w)
{
	uint8_t frame[FRAME_MAX];
	int len;

	u->current = w;
	if (w->restart_serial || w->link.fd < 0) {
		note_result(u, -EAGAIN, "its worker is busy with its start: try again");
		return false;
	}
	if (!++w->serial)
		++w->serial;
	w->restart_serial = w->serial;
	len = mw_put_restart(frame, sizeof(frame), w->serial, &u->versions);
	loop_timer_arm(&u->manager->loop, &u->deadline, RESTART_S * NS_PER_S, no_answer);
	worker_send(w, frame, len, NULL, 0);
	return true;
}

/* May free u. */
static void next_worker(struct upgrade *u)
{
	struct worker *w;

	list_for_each(w, &u->manager->workers, node) {
		if (!w->restart_wanted)
			continue;
		w->restart_wanted = false;
		/* What is on its way out has nothing left to restart. */
		if (worker_serves(w) && ask_worker(u, w))
			return;
	}
	finish(u);
}

int upgrade_answered(struct worker *w, uint32_t serial, const struct mw_restarted *done)
{
	struct upgrade *u = w->manager->upgrade;

	if (!serial || serial != w->restart_serial)
		return -EPROTO;
	w->restart_serial = 0;
	if (u && u->current == w) {
		note_result(u, -(int)done->error, done->text);
		next_worker(u);
	}
	return 0;
}

void upgrade_worker_gone(struct worker *w, bool clean)
{
	struct upgrade *u = w->manager->upgrade;

	if (!u || u->current != w)
		return;
	if (clean)
		u->current = NULL;
	else
		note_result(u, -EIO, "its worker ended");
	loop_timer_cancel(&u->deadline);
	next_worker(u);
}

/* ---- the program ---- */

static int get_number(const json_t *json, const char *key, uint32_t *ret)
{
	const json_t *value = json_object_get(json, key);
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0 || number > UINT32_MAX)
		return -EPROTO;
	*ret = (uint32_t)number;
	return 0;
}

static int get_types(json_t *types, struct mw_versions *ret)
{
	const char *name;
	json_t *value;
	int r = 0;

	if (!json_is_object(types) || json_object_size(types) > MW_MAX_TYPES)
		return -EPROTO;
	json_object_foreach(types, name, value) {
		if (strlen(name) >= sizeof(ret->types[0].name))
			return -EPROTO;
		strcpy(ret->types[ret->n_types].name, name);
		r = get_number(types, name, &ret->types[ret->n_types++].version);
		if (r < 0)
			break;
	}
	return r;
}

static int read_versions(const char *text, size_t len, struct mw_versions *ret)
{
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	uint32_t messages;
	int r = json ? get_number(json, "messages", &messages) : -EPROTO;

	if (r == 0)
		r = get_number(json, "worker", &ret->worker);
	if (r == 0)
		r = get_number(json, "vfio", &ret->vfio);
	if (r == 0)
		r = get_types(json_object_get(json, "types"), ret);
	json_decref(json);
	if (r == 0 && messages != MW_VERSION)
		r = err_set(-EPROTO,
			    "the installed umdev-worker speaks version %u to umdevd, this umdevd "
			    "speaks version %d: restart umdevd first",
			    messages, MW_VERSION);
	return r;
}

/* What it has said, when it ended well. 0 / -errno (text left) */
static int take_answer(struct upgrade *u, const siginfo_t *info)
{
	const char *program = u->manager->options.worker_path;
	_cleanup_free_ char *text = malloc(MAX_TEXT);
	ssize_t n = text ? read(u->out_fd, text, MAX_TEXT) : -1;
	int r;

	if (info->si_code != CLD_EXITED || info->si_status)
		return err_set(-EIO, "%s --state-versions failed: nothing was restarted", program);
	r = n < 0 ? -errno : control_json_reserve();
	if (r == 0)
		r = read_versions(text, (size_t)n, &u->versions);
	if (r == -EPROTO)
		err_set(r, "%s does not say which state it reads: nothing was restarted", program);
	return r;
}

static void program_ended(struct loop_fd *source, uint32_t revents)
{
	struct upgrade *u = container_of(source, struct upgrade, exit_source);
	siginfo_t info = { 0 };
	int r;

	if (waitid(P_PID, (id_t)u->pid, &info, WEXITED | WNOHANG) < 0 || !info.si_pid)
		return;
	err_clear();
	r = take_answer(u, &info);
	if (r < 0) {
		log_error("%s", err_text(r));
		note_failure(u, r, err_text(r));
		u->n = 1;
		finish(u);
		return;
	}
	end_of_asking(u);
	next_worker(u);
}

static void program_hangs(struct loop_timer *timer)
{
	struct upgrade *u = container_of(timer, struct upgrade, deadline);

	pidfd_send_signal(u->pidfd, SIGKILL, NULL, 0); /* its end is noticed */
}

static int run_program(const char *program, int out_fd, pid_t *ret)
{
	char *argv[] = { (char *)program, (char *)"--state-versions", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = worker_spawn_attr(&attr);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
	if (r == 0)
		r = posix_spawn(ret, program, &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (r != 0)
		return err_set(-r, "cannot run %s: %s: nothing was restarted", program,
			       strerror(r));
	return 0;
}

static int ask_program(struct upgrade *u)
{
	_cleanup_close_ int in_fd = -1;
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	u->out_fd = pipe_fds[0];
	in_fd = pipe_fds[1];
	r = fd_set_nonblock(u->out_fd, true);
	if (r == 0)
		r = drivers_name_files(u->manager->options.drivers, NULL, NULL);
	if (r == 0)
		r = run_program(u->manager->options.worker_path, in_fd, &u->pid);
	if (r < 0)
		return r;
	u->pidfd = pidfd_open(u->pid, 0);
	r = u->pidfd < 0 ? -errno
			 : loop_add(&u->manager->loop, &u->exit_source, u->pidfd, EPOLLIN,
				    program_ended);
	if (r < 0) {
		kill(u->pid, SIGKILL);
		waitpid(u->pid, NULL, 0); /* dies at once */
		return r;
	}
	loop_timer_arm(&u->manager->loop, &u->deadline, ASK_S * NS_PER_S, program_hangs);
	return 0;
}

/* ---- the call ---- */

/* Marks the workers that are meant and names their devices. NULL: no memory. */
static json_t *choose(struct manager *m, const struct umdev_mdev *mdev, unsigned *ret_n)
{
	const struct listener *l = mdev ? mdev->manager : NULL;
	json_t *devices = json_array();
	struct worker *w;

	list_for_each(w, &m->workers, node) {
		w->restart_wanted = worker_serves(w) && (!mdev || (l && l->worker == w));
		*ret_n += w->restart_wanted;
		for (unsigned i = 0; w->restart_wanted && i < w->n_members; i++)
			if (w->members[i].mdev)
				control_append(&devices,
					       json_string(w->members[i].mdev->uuid_text));
	}
	return devices;
}

int upgrade_start(struct manager *m, const struct umdev_mdev *mdev, struct attr_wait *wait,
		  json_t **ret)
{
	struct upgrade *u;
	int r;

	if (m->upgrade)
		return err_set(-EBUSY, "workers are being restarted already: wait for that");
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct upgrade){ .manager = m, .pidfd = -1, .out_fd = -1 };
	u->exit_source = (struct loop_fd)LOOP_FD_INIT;
	*ret = json_pack("{s:o}", "devices", choose(m, mdev, &u->n));
	if (!*ret || u->n == 0) {
		r = *ret ? 0 : -ENOMEM;
		free(u);
		return r;
	}
	r = ask_program(u);
	if (r < 0) {
		json_decref(TAKE(*ret));
		end_of_asking(u);
		free(u);
		return r;
	}
	m->upgrade = u;
	attr_hold(&u->wait, wait);
	return TREE_LATER;
}

void upgrade_close(struct manager *m)
{
	struct upgrade *u = TAKE(m->upgrade);

	if (!u)
		return;
	if (u->pid) {
		kill(u->pid, SIGKILL);
		waitpid(u->pid, NULL, 0); /* dies at once */
	}
	end_of_asking(u);
	if (u->wait)
		attr_cancel(u->wait);
	free(u);
}
