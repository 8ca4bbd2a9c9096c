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
#include <sys/pidfd.h>
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
#include "manager/restart.h"
#include "manager/upgrade.h"

#ifndef PIDFD_SIGNAL_PROCESS_GROUP
#define PIDFD_SIGNAL_PROCESS_GROUP (1u << 2)
#endif

#define NS_PER_MS 1000000ull
#define STOP_MS 3000     /* as long as a quiesce may take */
#define FORCE_MS 2000    /* surprise removal */
#define ASK_MS 10000     /* between two requests to a client to leave */
#define PARAM_MS 2000    /* a hook never waits: no answer means that the worker hangs */
#define HANGUP_MS 1000   /* from the end of the channel to the end of the process */
#define SILENCE_MS 10000 /* twice what a client of ours would put up with */

/* ---- the end ---- */

/* Keeper and worker; by the descriptor where the kernel can (Linux 6.9), because the number of an
 * adopted one may belong to others once it is gone. */
static void kill_group(const struct worker *w)
{
	if (pidfd_send_signal(w->pidfd, SIGKILL, NULL, PIDFD_SIGNAL_PROCESS_GROUP) == 0 ||
	    errno == ESRCH)
		return;
	if (w->adopted)
		pidfd_send_signal(w->pidfd, SIGKILL, NULL, 0); /* its worker dies with it */
	else
		kill(-w->pid, SIGKILL);
}

/* How the process ended, for people. */
static void describe_exit(const struct worker *w, const siginfo_t *info, char *buf, size_t size)
{
	if (w->why[0])
		str_format(buf, size, "%s", w->why);
	else if (w->adopted)
		str_format(buf, size, "its worker, which an umdevd before this one started, ended");
	else if (info->si_code == CLD_EXITED)
		str_format(buf, size, "its worker exited with status %d", info->si_status);
	else
		str_format(buf, size, "its worker was killed by signal %d (%s)", info->si_status,
			   strsignal(info->si_status));
}

/* Who joined the group while its worker was ending is no member of that, but waits for it, too. */
static void retry_group(const struct umdev_mdev *mdev)
{
	const struct umdev_mdev *member;

	if (!mdev->group)
		return;
	list_for_each(member, &mdev->group->members, group_node)
		if (member->manager)
			listener_retry(member->manager);
}

/* Nothing of w is left: give mdev back, which may be freed here. */
static void release_member(struct worker *w, struct worker_member *member)
{
	struct umdev_mdev *mdev = member->mdev;
	_cleanup_free_ char *last_words = w->told && mdev->fail_text ? strdup(mdev->fail_text)
								     : NULL;
	struct listener *l = mdev->manager;
	/* Of one that we started and that was never ready: nobody can be served. */
	bool concerned = member->connected || (!w->pong_ns && !w->adopted) ||
			 (!w->clean && mdev_wants_worker(mdev));

	loop_timer_cancel(&member->param_deadline);
	loop_timer_cancel(&member->stop_deadline);
	member->connected = false;
	l->worker = NULL;
	worker_resources_drop(member);
	member->mdev = NULL;
	listener_drop_client(l);
	listener_retry(l);
	retry_group(mdev);
	if (member->has_resources)
		mdev_resources_end(mdev);
	if (member->param_under_way)
		core_param_done(mdev, EIO);
	if (w->stuck)
		core_faulty(mdev, "");
	restart_save(w->manager, mdev); /* before another worker can have this group's number */
	if (concerned && w->clean)
		core_closed(mdev);
	else if (concerned)
		core_failed(mdev, last_words ? last_words : w->end);
}

void worker_release(struct worker *w)
{
	struct manager *m = w->manager;
	_cleanup_free_ char *path = worker_rendezvous_path(m, w->group);
	bool clean = w->clean;

	if (path)
		unlink(path);
	worker_grave_remove(w);
	list_remove(&w->node);
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].mdev)
			release_member(w, &w->members[i]);
	}
	free(w);
	manager_worker_gone(m, clean);
}

static void forget_process(struct worker *w)
{
	w->state = MW_DEAD;
	link_close(&w->link);
	loop_defer_cancel(&w->idle);
	loop_remove(&w->exit_source);
	if (w->pidfd >= 0)
		close(take_fd(&w->pidfd));
	loop_timer_cancel(&w->deadline);
	loop_timer_cancel(&w->pong_deadline);
}

void worker_abandon(struct worker *w)
{
	forget_process(w);
	worker_release(w);
}

static void reaped(struct loop_fd *source, uint32_t revents)
{
	struct worker *w = container_of(source, struct worker, exit_source);
	siginfo_t info = { 0 };

	kill_group(w); /* a keeper that was killed leaves its worker behind */
	if (!w->adopted &&
	    (waitid(P_PID, (id_t)w->pid, &info, WEXITED | WNOHANG) < 0 || !info.si_pid))
		return;
	link_drain(&w->link); /* its last words */
	/* One that nobody managed goes when its last client does. */
	w->clean = w->state == MW_STOPPING || (w->adopted && !w->pong_ns && !w->why[0]);
	w->told = !w->why[0] && info.si_code == CLD_EXITED && info.si_status == 1;
	describe_exit(w, &info, w->end, sizeof(w->end));
	if (!w->clean)
		log_error("group %u: %s", w->group, w->end);
	else if (w->adopted && !w->pong_ns && !worker_is_foreign(w))
		log_warning("group %u: its worker ended while no umdevd ran", w->group);
	forget_process(w);
	upgrade_worker_gone(w, w->clean);
	if (worker_grave_is_quiet(w))
		worker_release(w);
	else
		worker_grave_wait(w);
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
	loop_timer_cancel(&w->pong_deadline);
	kill_group(w);
}

/* ---- deadlines ---- */

static void ready_too_late(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, deadline);

	worker_kill(w, "its worker was not ready within %d s", WORKER_READY_MS / 1000);
}

static void stop_too_late(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, deadline);

	log_warning("group %u: its worker did not stop within %d s: killed", w->group,
		    STOP_MS / 1000);
	kill_group(w); /* still MW_STOPPING: the devices are not to blame */
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

void worker_unreachable(struct worker *w, int error)
{
	if (!worker_is_shortage(error)) {
		worker_kill(w, "its worker cannot be reached: %s", strerror(-error));
		return;
	}
	log_warning("group %u: its worker must go: %s", w->group, strerror(-error));
	w->state = MW_STOPPING; /* the devices are not to blame */
	kill_group(w);
}

void worker_send(struct worker *w, const uint8_t *frame, int len, const int *fds, unsigned n_fds)
{
	int r = link_send(&w->link, frame, len, fds, n_fds);

	/* It has hung up: what it said last is still to be read, and tells more than that. */
	if (r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN)
		return;
	if (r < 0)
		worker_unreachable(w, r);
}

static void pong_too_late(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, pong_deadline);

	worker_kill(w, "its worker said nothing for %d s", SILENCE_MS / 1000);
}

/* Is it there? Asked when something was handed over that has no answer of its own; a worker that
 * hangs later is its keeper's business, so that nobody wakes up for an idle one. */
static void ping(struct worker *w)
{
	uint8_t frame[MW_HEADER];
	int len = mw_put_plain(frame, sizeof(frame), MW_PING, 0, ++w->serial);

	loop_timer_arm(&w->manager->loop, &w->pong_deadline, SILENCE_MS * NS_PER_MS, pong_too_late);
	worker_send(w, frame, len, NULL, 0);
}

struct worker_member *worker_member_of(struct worker *w, const struct umdev_mdev *mdev)
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

bool worker_takes(struct worker *w, const struct umdev_mdev *mdev)
{
	const struct worker_member *member = worker_member_of(w, mdev);

	return w->state == MW_READY && member && !member->owes_closed;
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
	struct worker_member *member = worker_member_of(w, mdev);
	int r;

	assert(member && w->state == MW_READY && !member->connected);
	r = hand_over(w, member, fd);
	if (r < 0)
		return r;
	member->connected = true;
	w->n_connected++;
	ping(w);
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
	worker_send(w, frame, len, NULL, 0);
}

int worker_param_set(struct worker *w, struct umdev_mdev *mdev)
{
	struct worker_member *member = worker_member_of(w, mdev);

	assert(member && !member->param_under_way); /* the core lets one through at a time */
	if (!worker_serves(w))
		return err_set(-EIO, "its worker %s",
			       worker_is_foreign(w) ? "is of another version of umdev"
						    : "is about to end");
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
	worker_send(w, frame, len, NULL, 0);
}

void worker_disconnect(struct worker *w, struct umdev_mdev *mdev, bool force)
{
	struct worker_member *member = worker_member_of(w, mdev);
	uint8_t frame[MW_HEADER + 16];
	int len;

	assert(member);
	if (w->adopted && w->state == MW_STARTING) {
		member->leaves = true;
		member->forced |= force;
		return;
	}
	if (worker_is_foreign(w) && force)
		kill_group(w);
	if (w->state != MW_READY || !member->connected)
		return; /* on its way down: CLOSED comes without us */
	if (!force) {
		ask(&member->stop_deadline);
		return;
	}
	loop_timer_arm(&w->manager->loop, &member->stop_deadline, FORCE_MS * NS_PER_MS,
		       force_too_late);
	len = mw_put_stop(frame, sizeof(frame), member_index(member), MW_STOP_ABORT, FORCE_MS);
	worker_send(w, frame, len, NULL, 0);
}

void worker_stop(struct worker *w)
{
	uint8_t frame[MW_HEADER + 16];
	int len;

	if (worker_is_foreign(w) && w->state == MW_STOPPING)
		kill_group(w);
	if (w->state != MW_STARTING && w->state != MW_READY)
		return;
	if (w->adopted && w->state == MW_STARTING) {
		w->stop_wanted = true;
		return;
	}
	w->state = MW_STOPPING;
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].mdev)
			restart_save(w->manager, w->members[i].mdev);
	}
	loop_timer_cancel(&w->pong_deadline);
	loop_timer_arm(&w->manager->loop, &w->deadline, STOP_MS * NS_PER_MS, stop_too_late);
	len = mw_put_stop(frame, sizeof(frame), MW_ALL, MW_STOP_CLEAN, STOP_MS);
	worker_send(w, frame, len, NULL, 0);
}

static bool is_wanted(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++) {
		if (w->members[i].mdev && mdev_wants_worker(w->members[i].mdev))
			return true;
	}
	return false;
}

static bool is_waited_for(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++) {
		const struct listener *l = w->members[i].mdev ? w->members[i].mdev->manager : NULL;

		if (l && l->waiting_fd >= 0)
			return true;
	}
	return false;
}

/* Should it stay when we and all clients are gone? */
static void hold(struct worker *w, bool held)
{
	uint8_t frame[MW_HEADER];
	int len = mw_put_plain(frame, sizeof(frame), MW_HOLD, 0, held);

	w->held = held;
	worker_send(w, frame, len, NULL, 0);
}

static void stop_if_idle(struct loop_defer *defer)
{
	struct worker *w = container_of(defer, struct worker, idle);
	bool wanted = is_wanted(w);

	if (w->state != MW_READY)
		return;
	if (wanted != w->held)
		hold(w, wanted);
	if (!wanted && !w->n_connected && !is_waited_for(w))
		worker_stop(w);
}

void worker_check_idle(struct worker *w)
{
	loop_defer(&w->manager->loop, &w->idle, stop_if_idle);
}

void worker_forget(struct worker *w, struct umdev_mdev *mdev)
{
	struct worker_member *member = worker_member_of(w, mdev);
	bool alone = true;

	assert(member && !member->connected);
	loop_timer_cancel(&member->param_deadline);
	loop_timer_cancel(&member->stop_deadline);
	((struct listener *)mdev->manager)->worker = NULL;
	worker_resources_drop(member);
	if (member->has_resources)
		mdev_resources_end(mdev);
	member->mdev = NULL;
	retry_group(mdev);
	for (unsigned i = 0; i < w->n_members; i++)
		alone = alone && !w->members[i].mdev;
	if (alone)
		worker_stop(w);
}

/* ---- what becomes of it ---- */

void worker_ready(struct worker *w)
{
	w->state = MW_READY;
	loop_timer_cancel(&w->deadline);
	w->pong_ns = loop_now_ns();
	for (unsigned i = 0; i < w->n_members; i++) {
		if (!w->members[i].mdev)
			continue;
		if (w->members[i].param_under_way)
			send_param(&w->members[i]);
		worker_resources_go_on(&w->members[i]);
		if (w->members[i].leaves)
			worker_disconnect(w, w->members[i].mdev, w->members[i].forced);
		listener_retry(w->members[i].mdev->manager);
	}
	if (w->adopted)
		log_info("group %u: its worker %d goes on with %u clients", w->group, (int)w->pid,
			 w->n_connected);
	w->held = w->adopted && !is_wanted(w); /* what one of ours is told is not known */
	if (w->adopted && (w->stop_wanted || (!w->n_connected && !is_wanted(w))))
		worker_stop(w);
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
	if (w->adopted && w->state == MW_STARTING)
		return; /* it did not want us yet: we are still trying */
	if (w->state != MW_STOPPING)
		loop_timer_arm(&w->manager->loop, &w->deadline, HANGUP_MS * NS_PER_MS,
			       exit_too_late);
}

/* ---- the beginning ---- */

struct worker *worker_new(struct manager *m, uint32_t group)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->manager = m;
	w->group = group;
	for (unsigned i = 0; i < MW_MAX_MEMBERS; i++) {
		w->members[i].worker = w;
		list_init(&w->members[i].changes);
	}
	w->state = MW_STARTING;
	w->messages = MW_VERSION;
	w->pidfd = w->grave_fd = -1;
	w->grave_source = (struct loop_fd)LOOP_FD_INIT;
	w->link = (struct worker_link){
		.source = LOOP_FD_INIT,
		.fd = -1,
		.frame = worker_frame_arrived,
		.broken = link_broken,
	};
	w->exit_source = (struct loop_fd)LOOP_FD_INIT;
	return w;
}

int worker_watch(struct worker *w, pid_t pid, int pidfd)
{
	int r = loop_add(&w->manager->loop, &w->exit_source, pidfd, EPOLLIN, reaped);

	if (r < 0)
		return r;
	w->pid = pid;
	w->start = process_start(pid);
	w->pidfd = pidfd;
	list_append(&w->manager->workers, &w->node);
	loop_timer_arm(&w->manager->loop, &w->deadline, WORKER_READY_MS * NS_PER_MS,
		       ready_too_late);
	return 0;
}
