/* SPDX-License-Identifier: MIT */
/*
 * The event loop. A round is: deferred work, timers that are due, then every descriptor that one
 * epoll_wait reported. What a handler removes is struck from the rest of the round, so that no
 * handler runs for a source that is gone.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>
#include "base/loop.h"

#define NS_PER_MS 1000000ULL

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

int loop_init(struct loop *loop)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -errno;
	*loop = (struct loop){ .epoll_fd = fd };
	list_init(&loop->timers);
	list_init(&loop->deferred);
	return 0;
}

void loop_fini(struct loop *loop)
{
	if (loop->epoll_fd < 0)
		return;
	assert(list_is_empty(&loop->timers) && list_is_empty(&loop->deferred));
	close(loop->epoll_fd);
	loop->epoll_fd = -1;
}

int loop_add(struct loop *loop, struct loop_fd *source, int fd, uint32_t events,
	     void (*handler)(struct loop_fd *, uint32_t))
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	assert(!source->loop);
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	*source = (struct loop_fd){ .fd = fd, .events = events, .handler = handler, .loop = loop };
	return 0;
}

int loop_set_events(struct loop_fd *source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	assert(source->loop);
	if (source->events == events)
		return 0;
	if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) < 0)
		return -errno;
	source->events = events;
	return 0;
}

void loop_remove(struct loop_fd *source)
{
	struct loop *loop = source->loop;

	if (!loop)
		return;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (int i = 0; i < loop->n_ready; i++)
		if (loop->ready[i].data.ptr == source)
			loop->ready[i].data.ptr = NULL;
	source->loop = NULL;
	source->fd = -1;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t after_ns,
		    void (*handler)(struct loop_timer *))
{
	uint64_t now = loop_now_ns();
	struct loop_timer *pos;
	struct list_node *where = &loop->timers;

	loop_timer_cancel(timer);
	timer->at_ns = after_ns > UINT64_MAX - now ? UINT64_MAX : now + after_ns;
	timer->handler = handler;
	timer->loop = loop;
	/* Behind all that are due no later, so equal times fire in the order they were armed. */
	list_for_each(pos, &loop->timers, node) {
		if (pos->at_ns > timer->at_ns) {
			where = &pos->node;
			break;
		}
	}
	list_insert_before(where, &timer->node);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	list_remove(&timer->node);
	timer->at_ns = 0;
}

void loop_defer(struct loop *loop, struct loop_defer *defer, void (*handler)(struct loop_defer *))
{
	if (list_is_linked(&defer->node))
		return;
	defer->handler = handler;
	list_append(&loop->deferred, &defer->node);
}

void loop_defer_cancel(struct loop_defer *defer)
{
	list_remove(&defer->node);
}

/* What is deferred by a deferred handler waits for the next round: descriptors get their turn. */
static void run_deferred(struct loop *loop)
{
	struct list_node mark;

	list_append(&loop->deferred, &mark);
	while (loop->deferred.next != &mark) {
		struct loop_defer *defer = list_first(&loop->deferred, struct loop_defer, node);

		list_remove(&defer->node);
		defer->handler(defer);
	}
	list_remove(&mark);
}

static void run_timers(struct loop *loop)
{
	uint64_t now;

	if (list_is_empty(&loop->timers))
		return;
	now = loop_now_ns();
	while (!list_is_empty(&loop->timers)) {
		struct loop_timer *timer = list_first(&loop->timers, struct loop_timer, node);

		if (timer->at_ns > now)
			break;
		loop_timer_cancel(timer);
		timer->handler(timer);
	}
}

/* Milliseconds to sleep, rounded up: a timer never fires early and never spins. */
static int sleep_ms(struct loop *loop)
{
	uint64_t now, at, ms;

	if (!list_is_empty(&loop->deferred))
		return 0;
	if (list_is_empty(&loop->timers))
		return -1;
	now = loop_now_ns();
	at = list_first(&loop->timers, struct loop_timer, node)->at_ns;
	if (at <= now)
		return 0;
	ms = (at - now - 1) / NS_PER_MS + 1;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void run_ready(struct loop *loop)
{
	for (int i = 0; i < loop->n_ready; i++) {
		struct loop_fd *source = loop->ready[i].data.ptr;

		if (source)
			source->handler(source, loop->ready[i].events);
	}
	loop->n_ready = 0;
}

int loop_run(struct loop *loop)
{
	const int max = sizeof(loop->ready) / sizeof(loop->ready[0]);
	int n, error;

	for (;;) {
		run_deferred(loop);
		run_timers(loop);
		if (loop->stop)
			break;
		if (loop->sleeps)
			loop->sleeps(loop);
		n = epoll_wait(loop->epoll_fd, loop->ready, max, sleep_ms(loop));
		error = n < 0 ? errno : 0;
		if (loop->woke)
			loop->woke(loop);
		if (error && error != EINTR)
			return -error;
		loop->n_ready = n < 0 ? 0 : n;
		run_ready(loop);
	}
	loop->stop = false;
	return loop->exit_code;
}

void loop_stop(struct loop *loop, int exit_code)
{
	loop->stop = true;
	loop->exit_code = exit_code;
}
