/* SPDX-License-Identifier: MIT */
/*
 * The worker's end of the channel: what is owed to the manager is told first, then one frame is
 * executed at a time, and none while the manager does not read.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/str.h"
#include "worker/internal.h"

#define FRAME_MAX 512 /* of what a worker sends */

bool channel_say(struct worker *w, struct worker_half *next, const uint8_t *frame, int len)
{
	void *room;

	if (w->shared->channel.fd < 0)
		return false;
	room = conn_reserve(&w->channel, &next->cursor, len);
	if (room)
		memcpy(room, frame, len);
	return room != NULL;
}

void channel_say_state(struct worker *w, struct worker_half *next, const struct member *m)
{
	enum mw_member_state state = *m->faulty ? MW_MEMBER_FAULTY : MW_MEMBER_OK;
	uint8_t frame[FRAME_MAX];

	channel_say(w, next, frame, mw_put_state(frame, sizeof(frame), m->index, state, m->faulty));
}

/* There is no way back to the program before this one any more. */
static void trial_over(struct worker *w)
{
	int fd = w->shared->old_program_fd;

	w->shared->old_program_fd = -1;
	if (fd >= 0)
		close(fd);
}

/* A life after a death begins with it. */
static void tell_resumed(struct worker *w)
{
	struct worker_half *next = worker_begin(w);
	uint8_t frame[FRAME_MAX];

	next->told = w->shared->lives;
	channel_say(w, next, frame,
		    mw_put_resumed(frame, sizeof(frame), w->shared->signal, w->shared->lives));
	worker_commit(w);
}

/* False: no room now. */
static bool tell_closed(struct worker *w, unsigned index)
{
	const struct member *m = &w->members[index];
	struct worker_half *next = worker_begin(w);
	struct mw_closed closed = { .reason = next->closed[index] - 1 };
	uint8_t frame[FRAME_MAX];

	strcpy(closed.text, *m->closed_text ? m->closed_text : "the connection ended");
	if (!channel_say(w, next, frame, mw_put_closed(frame, sizeof(frame), index, &closed)))
		return false;
	next->closed[index] = 0;
	next->connected &= ~(1u << index);
	worker_commit(w);
	return true;
}

/* The next life after a RESTART, in whichever program. False: no room now. */
static bool tell_restarted(struct worker *w)
{
	struct worker_half *next = worker_begin(w);
	struct mw_restarted done = { .error = w->shared->restart_error };
	uint8_t frame[FRAME_MAX];

	if (done.error)
		str_format(done.text, sizeof(done.text),
			   "the installed umdev-worker could not take over (%s): the old one "
			   "serves on",
			   strerror(done.error));
	if (!channel_say(w, next, frame,
			 mw_put_restarted(frame, sizeof(frame), next->restart, &done)))
		return false;
	next->restart = 0;
	if (!w->shared->signal)
		next->told = w->shared->lives;
	worker_commit(w);
	trial_over(w);
	return true;
}

/* To a successor manager: READY, and what it may have missed. */
static void greet(struct worker *w)
{
	struct worker_half *next = worker_begin(w);
	uint8_t frame[FRAME_MAX];

	next->greet = 0;
	next->restart = 0; /* another one asked */
	memset(next->res_del, 0, sizeof(next->res_del));
	next->told = w->shared->lives; /* deaths before its time are not its business */
	channel_say(w, next, frame, mw_put_plain(frame, sizeof(frame), MW_READY_MSG, 0, 0));
	for (unsigned i = 0; i < w->n_members; i++) {
		if (*w->members[i].faulty)
			channel_say_state(w, next, &w->members[i]);
		if (!(next->connected >> i & 1)) {
			next->connected |= 1u << i;
			next->closed[i] = 1 + VFIO_CLOSE_HANGUP;
		}
	}
	worker_commit(w);
	trial_over(w);
}

static void tell(struct worker *w)
{
	if (w->half->greet)
		greet(w);
	if (w->half->restart && !w->loop.stop && !tell_restarted(w))
		return;
	if (w->half->told != w->shared->lives && w->shared->lives > 1)
		tell_resumed(w);
	/* Who hears of the last end may send another client. */
	if (w->goes_on && w->half->ready)
		members_tell_group(w);
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->half->closed[i] && !tell_closed(w, i))
			break;
	resources_release(w);
}

void channel_tell(struct worker *w)
{
	if (w->shared->channel.fd < 0)
		return;
	tell(w);
	conn_flush(&w->channel, &w->half->cursor); /* an error is met again when it is served */
}

/* The manager is gone. Who is served does not notice. */
static void channel_lost(struct worker *w)
{
	loop_remove(&w->channel_source);
	conn_close(&w->channel, &w->half->cursor);
	log_warning("the manager is gone; what is connected is served on");
}

/* Executes what has arrived; returns what to wait for next. */
static uint32_t work_through(struct worker *w)
{
	struct conn_msg msg;
	int r;

	for (;;) {
		tell(w);
		r = conn_flush(&w->channel, &w->half->cursor);
		if (r == 0)
			return EPOLLIN | EPOLLOUT; /* its next frame waits until it reads */
		if (r > 0)
			r = conn_peek(&w->channel, &w->half->cursor, &msg);
		else
			channel_lost(w);
		if (r == 0 || w->shared->channel.fd < 0)
			return EPOLLIN;
		if (r > 0)
			r = worker_execute(w, &msg);
		if (r < 0)
			worker_fail(w, "the manager broke the rules of the channel");
		if (w->loop.stop)
			return 0;
	}
}

void channel_serve(struct worker *w)
{
	if (w->shared->channel.fd >= 0 && !w->loop.stop) {
		uint32_t events = work_through(w);

		if (w->shared->channel.fd >= 0)
			loop_set_events(&w->channel_source, events);
	}
	worker_check_done(w);
}

static void on_serve(struct loop_defer *defer)
{
	channel_serve(container_of(defer, struct worker, serve));
}

void channel_serve_soon(struct worker *w)
{
	loop_defer(&w->loop, &w->serve, on_serve);
}

static void on_channel(struct loop_fd *source, uint32_t revents)
{
	struct worker *w = container_of(source, struct worker, channel_source);
	struct conn_msg msg;
	int r = 1;

	/* What waits for room to answer stays where it is. */
	if ((revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) &&
	    conn_peek(&w->channel, &w->half->cursor, &msg) == 0)
		r = conn_receive(&w->channel, &w->half->cursor);
	if (r < 0)
		channel_lost(w);
	channel_serve(w);
}

void channel_finish(struct worker *w)
{
	while (w->shared->channel.fd >= 0 && !w->loop.stop)
		on_channel(&w->channel_source, EPOLLIN);
}

int channel_start(struct worker *w)
{
	if (w->shared->channel.fd < 0)
		return 0;
	return loop_add(&w->loop, &w->channel_source, w->shared->channel.fd, EPOLLIN, on_channel);
}

void channel_flush_for(struct worker *w, unsigned ms)
{
	uint64_t end = loop_now_ns() + ms * 1000000ULL;
	struct pollfd p = { .fd = w->shared->channel.fd, .events = POLLOUT };

	while (p.fd >= 0 && conn_flush(&w->channel, &w->half->cursor) == 0 && loop_now_ns() < end)
		poll(&p, 1, 100);
}
