/* SPDX-License-Identifier: MIT */
/*
 * One life of a worker, from the clone to the kill.
 *
 * A start and a take-over are the same path: what the state says was done is not done again. The
 * order matters: check, attach (streams settle the call that was under way), close what nothing
 * names, and only then continue what the committed halves still owe.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/internal.h"
#include "worker/sandbox.h"

#define LAST_WORDS_MS 1000 /* a manager that does not read them in time reads our status */

struct worker_half *worker_begin(struct worker *w)
{
	struct worker_half *next = &w->shared->half[ab_spare(&w->shared->ab)];

	memcpy(next, w->half, sizeof(*next));
	return next;
}

void worker_commit(struct worker *w)
{
	ab_flip(&w->shared->ab);
	w->half = &w->shared->half[w->shared->ab.cur];
}

static bool is_serving(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->half->connect_fd[i] >= 0 ||
		    vfio_server_state(w->members[i].dev.vfio) != VFIO_CLOSED)
			return true;
	return false;
}

static bool owes_closed(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->half->closed[i])
			return true;
	return false;
}

void worker_check_done(struct worker *w)
{
	bool orphan = w->shared->channel.fd < 0;

	if (w->loop.stop || is_serving(w))
		return;
	if ((orphan && !w->half->held) || (w->half->stopping && !owes_closed(w) &&
					   conn_is_flushed(&w->channel, &w->half->cursor)))
		loop_stop(&w->loop, 0);
}

void worker_fail(struct worker *w, const char *text)
{
	struct worker_half *next = worker_begin(w);

	log_error("%s", text);
	for (unsigned i = 0; i < w->n_members; i++) {
		str_format(w->members[i].faulty, sizeof(w->members[i].faulty), "%s", text);
		channel_say_state(w, next, &w->members[i]);
	}
	worker_commit(w);
	channel_flush_for(w, LAST_WORDS_MS);
	loop_stop(&w->loop, 1);
}

/* The heartbeat: a round of the loop that takes too long hangs. keeper.c has the other half. */
static void loop_sleeps(struct loop *loop)
{
	struct worker *w = container_of(loop, struct worker, loop);

	__atomic_store_n(&w->shared->beat_ns, WORKER_ASLEEP, __ATOMIC_RELAXED);
}

static void loop_woke(struct loop *loop)
{
	struct worker *w = container_of(loop, struct worker, loop);

	__atomic_store_n(&w->shared->beat_ns, loop_now_ns(), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&w->shared->keeper_sleeps, __ATOMIC_SEQ_CST)) {
		w->shared->keeper_sleeps = 0;
		eventfd_write(w->shared->wake_fd, 1);
	}
}

/* What the life before this one left in the group's devices becomes ours. */
static int inherit(struct worker *w)
{
	int error;

	if (w->half->config_len) {
		err_clear();
		error = members_load(w, w->shared->config, w->half->config_len, NULL);
		if (!error)
			error = members_attach(w, w->half->ready ? UMDEV_RESUME : UMDEV_FRESH);
		if (error && w->half->restart && !w->shared->restart_error)
			log_error("%s", err_text(error)); /* a trial: the keeper goes back */
		else if (error)
			worker_fail(w, err_text(error));
		if (error)
			return error;
	}
	w->shared->settled = w->shared->lives;
	return 0;
}

/* CONFIG was executed but its READY was not committed. */
static void say_ready(struct worker *w)
{
	struct worker_half *next;
	uint8_t frame[MW_HEADER];

	if (!w->half->config_len || w->half->ready)
		return;
	next = worker_begin(w);
	next->ready = 1;
	channel_say(w, next, frame, mw_put_plain(frame, sizeof(frame), MW_READY_MSG, 0, 0));
	worker_commit(w);
}

static void go_on(struct worker *w)
{
	if (!w->crashed)
		conn_untry(&w->channel);
	say_ready(w);
	channel_tell(w); /* of the death first: what follows may be what this life dies of */
	for (unsigned i = 0; i < w->n_members; i++) {
		struct member *m = &w->members[i];

		vfio_server_resume(m->dev.vfio, w->crashed);
		if (w->half->connect_fd[i] >= 0)
			take_connection(m);
		/* It ended, and the life that knew why died with it. */
		if (w->half->connected >> i & 1 && vfio_server_state(m->dev.vfio) == VFIO_CLOSED &&
		    !w->half->closed[i]) {
			struct worker_half *next = worker_begin(w);

			next->closed[i] = 1 + VFIO_CLOSE_HANGUP;
			worker_commit(w);
		}
	}
	w->goes_on = true;
	members_tell_group(w);
	if (w->half->stopping)
		stop_all(w);
	channel_serve(w);
}

/* Too many crashes: say so for every member, and that is all. */
static int last_words(struct worker *w)
{
	char text[128];

	str_format(text, sizeof(text), "its worker crashed again and again (signal %d: %s)",
		   w->shared->signal, strsignal(w->shared->signal));
	if (w->half->config_len)
		members_load(w, w->shared->config, w->half->config_len, NULL);
	worker_fail(w, text);
	return 1;
}

static int start_sources(struct worker *w)
{
	int error = channel_start(w);

	if (!error)
		error = rendezvous_start(w);
	if (!error && w->half->config_len)
		error = worker_media_start(w);
	return error;
}

static int run(struct worker *w)
{
	int error;

	if (w->shared->give_up)
		return last_words(w);
	if (inherit(w))
		return 1;
	worker_sweep(w);
	error = start_sources(w);
	if (error) {
		log_error("cannot start: %s", strerror(-error));
		return 1;
	}
	go_on(w);
	return loop_run(&w->loop);
}

int worker_life(struct worker_shared *shared, struct sandbox *sandbox)
{
	struct worker *w = calloc(1, sizeof(*w));
	int error = w ? worker_state_check(shared) : -ENOMEM;

	if (!error) {
		w->shared = shared;
		w->half = &shared->half[shared->ab.cur];
		w->crashed = shared->blamed;
		w->loop = (struct loop)LOOP_INIT;
		w->channel_source = w->rendezvous_source = (struct loop_fd)LOOP_FD_INIT;
		w->io_fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC); /* -1: see keeper.c */
		error = loop_init(&w->loop);
		w->loop.sleeps = loop_sleeps;
		w->loop.woke = loop_woke;
	}
	if (!error)
		error = worker_media_init(w);
	if (!error)
		error = sandbox_enter_worker(sandbox);
	if (!error)
		error = worker_queues_enter(w, sandbox);
	if (!error)
		error = dma_guard_init();
	if (!error)
		error = conn_attach_resume(&w->channel, &shared->channel, &w->half->cursor, mw_len);
	if (error) {
		log_error("cannot start: %s", strerror(-error));
		return 1;
	}
	return run(w);
}
