/* SPDX-License-Identifier: MIT */
/* The life of one worker: start, messages, deadlines, end. worker_proc.h has the states. */
#include "manager/worker_proc.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "core/core.h"
#include "core/group.h"
#include "core/resources.h"
#include "manager/listener.h"
#include "manager/manager.h"

#define NS_PER_MS 1000000ull
#define READY_MS 5000  /* exec, load, allocate: some ms; QEMU waits 5 s for its first answer */
#define STOP_MS 3000   /* as long as a quiesce may take */
#define FORCE_MS 2000  /* surprise removal */
#define ASK_MS 10000   /* between two requests to a client to leave */
#define PARAM_MS 2000  /* a hook never waits: no answer means that the worker hangs */
#define HANGUP_MS 1000 /* from the end of the channel to the end of the process */
#define PING_MS 2000
#define SILENCE_MS 10000 /* twice what a client of ours would put up with */

/* ---- the end ---- */

/* How the process ended, for people. */
static void describe_exit(const struct worker *w, const siginfo_t *info, char *buf, size_t size)
{
	if (w->why[0])
		str_format(buf, size, "%s", w->why);
	else if (info->si_code == CLD_EXITED)
		str_format(buf, size, "its worker exited with status %d", info->si_status);
	else
		str_format(buf, size, "its worker was killed by signal %d (%s)", info->si_status,
			   strsignal(info->si_status));
}

/* The process is gone: give mdev back. clean: it was asked to go. mdev may be freed here. */
static void release_member(struct worker *w, struct worker_member *member, bool clean,
			   const char *text)
{
	struct umdev_mdev *mdev = TAKE(member->mdev);
	struct listener *l = mdev->manager;
	bool concerned = member->connected || !w->pong_ns; /* never ready: nobody can be served */

	loop_timer_cancel(&member->param_deadline);
	loop_timer_cancel(&member->stop_deadline);
	member->connected = false;
	l->worker = NULL;
	listener_drop_client(l);
	listener_retry(l);
	if (member->has_resources)
		mdev_resources_end(mdev);
	if (member->param_under_way)
		core_param_done(mdev, EIO);
	if (concerned && clean)
		core_closed(mdev);
	else if (concerned)
		core_failed(mdev, text);
}

static void forget_process(struct worker *w)
{
	_cleanup_free_ char *path = worker_rendezvous_path(w->manager, w->group);

	if (path)
		unlink(path);
	link_close(&w->link);
	loop_defer_cancel(&w->idle);
	loop_remove(&w->exit_source);
	close(w->pidfd);
	loop_timer_cancel(&w->deadline);
	loop_timer_cancel(&w->watchdog);
	list_remove(&w->node);
}

static void reaped(struct loop_fd *source, uint32_t revents)
{
	struct worker *w = container_of(source, struct worker, exit_source);
	struct manager *m = w->manager;
	siginfo_t info = { 0 };
	char text[256];
	bool clean;

	kill(-w->pid, SIGKILL); /* a keeper that was killed leaves its worker behind */
	if (waitid(P_PID, (id_t)w->pid, &info, WEXITED | WNOHANG) < 0 || !info.si_pid)
		return;
	link_drain(&w->link); /* its last words */
	clean = w->state == MW_STOPPING;
	describe_exit(w, &info, text, sizeof(text));
	if (!clean)
		log_error("group %u: %s", w->group, text);
	forget_process(w);
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].mdev)
			release_member(w, &w->members[i], clean, text);
	}
	free(w);
	manager_worker_gone(m, clean);
}

void worker_kill(struct worker *w, const char *format, ...)
{
	va_list args;

	if (w->state == MW_DEAD)
		return;
	va_start(args, format);
	vsnprintf(w->why, sizeof(w->why), format, args);
	va_end(args);
	w->state = MW_DEAD;
	link_close(&w->link);
	loop_timer_cancel(&w->deadline);
	loop_timer_cancel(&w->watchdog);
	kill(-w->pid, SIGKILL);
}

/* ---- deadlines ---- */

static void ready_too_late(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, deadline);

	worker_kill(w, "its worker was not ready within %d s", READY_MS / 1000);
}

static void stop_too_late(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, deadline);

	log_warning("group %u: its worker did not stop within %d s: killed", w->group,
		    STOP_MS / 1000);
	kill(-w->pid, SIGKILL); /* still MW_STOPPING: the devices are not to blame */
}

static void exit_too_late(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, deadline);

	worker_kill(w, "its worker closed its channel and went on");
}

static void param_too_late(struct loop_timer *timer)
{
	struct worker_member *member = container_of(timer, struct worker_member, param_deadline);

	worker_kill(member->worker, "its worker did not answer a parameter change within %d s",
		    PARAM_MS / 1000);
}

static void force_too_late(struct loop_timer *timer)
{
	struct worker_member *member = container_of(timer, struct worker_member, stop_deadline);

	worker_kill(member->worker, "its worker did not disconnect a client within %d s",
		    FORCE_MS / 1000);
}

/* ---- sending ---- */

/* May be over when the next client comes. */
static bool is_shortage(int error)
{
	return error == -ENOMEM || error == -EAGAIN || error == -EMFILE || error == -ENFILE ||
	       error == -ENOSPC;
}

static void unreachable(struct worker *w, int error)
{
	if (!is_shortage(error)) {
		worker_kill(w, "its worker cannot be reached: %s", strerror(-error));
		return;
	}
	log_warning("group %u: its worker must go: %s", w->group, strerror(-error));
	w->state = MW_STOPPING; /* the devices are not to blame */
	kill(-w->pid, SIGKILL);
}

static void send_frame(struct worker *w, const uint8_t *frame, int len, const int *fds,
		       unsigned n_fds)
{
	int r = link_send(&w->link, frame, len, fds, n_fds);

	if (r < 0 && r != -ENOTCONN)
		unreachable(w, r);
}

static void watch(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, watchdog);
	uint8_t frame[MW_HEADER];
	int len;

	if (loop_now_ns() - w->pong_ns > SILENCE_MS * NS_PER_MS) {
		worker_kill(w, "its worker said nothing for %d s", SILENCE_MS / 1000);
		return;
	}
	loop_timer_arm(&w->manager->loop, &w->watchdog, PING_MS * NS_PER_MS, watch);
	len = mw_put_plain(frame, sizeof(frame), MW_PING, 0, ++w->serial);
	send_frame(w, frame, len, NULL, 0);
}

static struct worker_member *find_member(struct worker *w, const struct umdev_mdev *mdev)
{
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].mdev == mdev)
			return &w->members[i];
	}
	return NULL;
}

static unsigned member_index(const struct worker_member *member)
{
	return (unsigned)(member - member->worker->members);
}

bool worker_is_ready(const struct worker *w)
{
	return w->state == MW_READY;
}

bool worker_serves(const struct worker *w)
{
	return w->state == MW_STARTING || w->state == MW_READY;
}

static int hand_over(struct worker *w, const struct worker_member *member, int fd)
{
	uint8_t frame[MW_HEADER];
	int len, copy, r;

	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return err_set(-errno, "cannot hand the connection on: %s", strerror(errno));
	len = mw_put_plain(frame, sizeof(frame), MW_CONNECT, member_index(member), 0);
	r = link_send(&w->link, frame, len, &copy, 1);
	if (r < 0)
		return err_set(r, "its worker cannot be reached: %s", strerror(-r));
	return 0;
}

int worker_connect(struct worker *w, struct umdev_mdev *mdev, int fd)
{
	struct worker_member *member = find_member(w, mdev);
	int r;

	assert(member && w->state == MW_READY && !member->connected);
	r = hand_over(w, member, fd);
	if (r < 0)
		return r;
	member->connected = true;
	w->n_connected++;
	return 0;
}

static void send_param(struct worker_member *member)
{
	const struct umdev_mdev *mdev = member->mdev;
	const struct umdev_param *param = mdev->type->info->params[mdev->param_pending];
	struct mw_param change = { .type = param->type, .value = *mdev->param_value };
	struct worker *w = member->worker;
	uint8_t frame[MW_HEADER + sizeof(change)];
	int len;

	str_format(change.name, sizeof(change.name), "%s", param->name);
	if (!++w->serial)
		++w->serial;
	member->param_serial = w->serial;
	loop_timer_arm(&w->manager->loop, &member->param_deadline, PARAM_MS * NS_PER_MS,
		       param_too_late);
	len = mw_put_param_set(frame, sizeof(frame), member_index(member), w->serial, &change);
	send_frame(w, frame, len, NULL, 0);
}

int worker_param_set(struct worker *w, struct umdev_mdev *mdev)
{
	struct worker_member *member = find_member(w, mdev);

	assert(member && worker_serves(w));
	assert(!member->param_under_way); /* the core lets one change through at a time */
	member->param_under_way = true;
	if (w->state == MW_READY)
		send_param(member);
	return 0;
}

/* As a kernel does it: again and again, until the client has let go or is forced to. */
static void ask(struct loop_timer *timer)
{
	struct worker_member *member = container_of(timer, struct worker_member, stop_deadline);
	struct worker *w = member->worker;
	uint8_t frame[MW_HEADER + 16];
	int len;

	loop_timer_arm(&w->manager->loop, timer, ASK_MS * NS_PER_MS, ask);
	len = mw_put_stop(frame, sizeof(frame), member_index(member), MW_STOP_ASK, 0);
	send_frame(w, frame, len, NULL, 0);
}

void worker_disconnect(struct worker *w, struct umdev_mdev *mdev, bool force)
{
	struct worker_member *member = find_member(w, mdev);
	uint8_t frame[MW_HEADER + 16];
	int len;

	assert(member);
	if (w->state != MW_READY || !member->connected)
		return; /* on its way down: CLOSED comes without us */
	if (!force) {
		ask(&member->stop_deadline);
		return;
	}
	loop_timer_arm(&w->manager->loop, &member->stop_deadline, FORCE_MS * NS_PER_MS,
		       force_too_late);
	len = mw_put_stop(frame, sizeof(frame), member_index(member), MW_STOP_ABORT, FORCE_MS);
	send_frame(w, frame, len, NULL, 0);
}

void worker_stop(struct worker *w)
{
	uint8_t frame[MW_HEADER + 16];
	int len;

	if (w->state != MW_STARTING && w->state != MW_READY)
		return;
	w->state = MW_STOPPING;
	loop_timer_cancel(&w->watchdog);
	loop_timer_arm(&w->manager->loop, &w->deadline, STOP_MS * NS_PER_MS, stop_too_late);
	len = mw_put_stop(frame, sizeof(frame), MW_ALL, MW_STOP_CLEAN, STOP_MS);
	send_frame(w, frame, len, NULL, 0);
}

static void stop_if_idle(struct loop_defer *defer)
{
	struct worker *w = container_of(defer, struct worker, idle);

	if (w->state != MW_READY || w->n_connected)
		return;
	for (unsigned i = 0; i < w->n_members; i++) {
		const struct listener *l = w->members[i].mdev ? w->members[i].mdev->manager : NULL;

		if (l && l->waiting_fd >= 0)
			return;
	}
	worker_stop(w);
}

void worker_check_idle(struct worker *w)
{
	loop_defer(&w->manager->loop, &w->idle, stop_if_idle);
}

void worker_forget(struct worker *w, struct umdev_mdev *mdev)
{
	struct worker_member *member = find_member(w, mdev);
	bool alone = true;

	assert(member && !member->connected);
	loop_timer_cancel(&member->param_deadline);
	loop_timer_cancel(&member->stop_deadline);
	if (member->has_resources)
		mdev_resources_end(mdev);
	((struct listener *)mdev->manager)->worker = NULL;
	member->mdev = NULL;
	for (unsigned i = 0; i < w->n_members; i++)
		alone = alone && !w->members[i].mdev;
	if (alone)
		worker_stop(w);
}

/* ---- the start ---- */

void worker_ready(struct worker *w)
{
	w->state = MW_READY;
	loop_timer_cancel(&w->deadline);
	w->pong_ns = loop_now_ns();
	loop_timer_arm(&w->manager->loop, &w->watchdog, PING_MS * NS_PER_MS, watch);
	for (unsigned i = 0; i < w->n_members; i++) {
		if (!w->members[i].mdev)
			continue;
		if (w->members[i].param_under_way)
			send_param(&w->members[i]);
		listener_retry(w->members[i].mdev->manager);
	}
	worker_check_idle(w); /* after those */
}

static void link_broken(struct worker_link *link, int error)
{
	struct worker *w = container_of(link, struct worker, link);

	if (error != -ECONNRESET && error != -EPIPE) {
		worker_kill(w, "its worker broke the rules: %s", strerror(-error));
		return;
	}
	/* It has just exited or is about to: its status says more than we could. */
	link_close(link);
	if (w->state != MW_STOPPING)
		loop_timer_arm(&w->manager->loop, &w->deadline, HANGUP_MS * NS_PER_MS,
			       exit_too_late);
}

static struct worker *worker_new(struct manager *m, struct mdev_group *group)
{
	struct worker *w = calloc(1, sizeof(*w));
	struct umdev_mdev *mdev;

	if (!w)
		return NULL;
	w->manager = m;
	w->group = group->number;
	w->state = MW_STARTING;
	w->link = (struct worker_link){
		.source = LOOP_FD_INIT,
		.fd = -1,
		.frame = worker_frame_arrived,
		.broken = link_broken,
	};
	w->exit_source = (struct loop_fd)LOOP_FD_INIT;
	list_for_each(mdev, &group->members, group_node) {
		struct worker_member *member = &w->members[w->n_members++];

		member->worker = w;
		member->mdev = mdev;
	}
	return w;
}

/* Nothing came of it: the drivers take back what they had opened. */
static void worker_undo(struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].has_resources)
			mdev_resources_end(w->members[i].mdev);
	}
	free(w);
}

/* The process runs; from here on its end is what cleans up. 0 / -errno, then there is none. */
static int adopt_child(struct worker *w, const struct worker_child *child)
{
	struct loop *loop = &w->manager->loop;
	int r = loop_add(loop, &w->exit_source, child->pidfd, EPOLLIN, reaped);

	if (r < 0) {
		kill(-child->pid, SIGKILL);
		waitpid(child->pid, NULL, 0); /* dies at once */
		close(child->pidfd);
		close(child->channel_fd);
		return r;
	}
	w->pid = child->pid;
	w->pidfd = child->pidfd;
	list_append(&w->manager->workers, &w->node);
	for (unsigned i = 0; i < w->n_members; i++)
		((struct listener *)w->members[i].mdev->manager)->worker = w;
	loop_timer_arm(loop, &w->deadline, READY_MS * NS_PER_MS, ready_too_late);
	r = link_open(&w->link, loop, child->channel_fd);
	if (r < 0)
		unreachable(w, r);
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
	_cleanup_free_ struct worker_config *config = malloc(sizeof(*config));
	struct worker *w = worker_new(m, group);
	struct worker_child child;
	int r;

	if (!w || !config) {
		free(w);
		return -ENOMEM;
	}
	r = worker_make_config(w, config);
	if (r < 0) {
		worker_undo(w);
		return r;
	}
	r = worker_spawn(m, w->group, &child);
	if (r == 0)
		r = adopt_child(w, &child);
	else if (!is_shortage(r))
		fail_members(group, r);
	if (r < 0) {
		while (config->n_fds)
			close(config->fds[--config->n_fds]);
		worker_undo(w);
		return r;
	}
	log_debug("group %u: worker %d started", w->group, (int)child.pid);
	send_frame(w, config->data, config->len, config->fds, config->n_fds);
	return 0;
}
