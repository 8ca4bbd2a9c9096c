// SPDX-License-Identifier: MIT
/* All queues of a worker: its runners, and the order in which they come to be and end. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "queue/internal.h"

int queue_group_new(struct queue_group **ret, unsigned n_threads)
{
	struct queue_group *g = calloc(1, sizeof(*g));
	int r = 0;

	if (!g)
		return -ENOMEM;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
	g->news_source = (struct loop_fd)LOOP_FD_INIT;
	runner_init(&g->control, g, 0);
	g->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->news_fd < 0)
		r = -errno;
	while (r >= 0 && g->n_threads < n_threads) {
		r = thread_start(&g->thread[g->n_threads], g, 1 + g->n_threads);
		g->n_threads += r >= 0;
	}
	/* The user may have no more processes: those that there are, or the control thread, do it.
	 */
	if (r < 0 && r != -EAGAIN) {
		queue_group_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

int queue_group_enter(struct queue_group *g, int (*enter)(void *), void *arg)
{
	return threads_enter(g, enter, arg);
}

int queue_group_start(struct queue_group *g, struct loop *loop, struct media_engine *engine,
		      unsigned n_threads)
{
	int r;

	g->loop = loop;
	g->control.ring = media_engine_ring(engine, 0);
	for (unsigned i = 0; i < g->n_threads; i++)
		g->thread[i].runner.ring = media_engine_ring(engine, 1 + i);
	threads_need(g, n_threads);
	r = crash_watch();
	return r < 0 ? r : runner_start_control(g);
}

void queue_group_blame(struct queue_group *g, bool hung)
{
	g->blame = hung ? QUEUE_BLAME_CONTROL : QUEUE_BLAME_CULPRIT;
}

void queue_group_free(struct queue_group *g)
{
	if (!g)
		return;
	while (g->n_threads)
		thread_stop(&g->thread[--g->n_threads]);
	control_stop(g);
	loop_defer_cancel(&g->attention);
	runner_fini(&g->control);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->changed);
	if (g->news_fd >= 0)
		close(g->news_fd);
	free(g);
}

void queue_group_each_fd(const struct queue_group *g, void (*fn)(void *, int), void *arg)
{
	if (!g)
		return;
	fn(arg, g->news_fd);
	for (unsigned i = 0; i < g->n_threads; i++) {
		fn(arg, g->thread[i].kick_fd);
		if (g->thread[i].schedstat_fd >= 0)
			fn(arg, g->thread[i].schedstat_fd);
	}
}
