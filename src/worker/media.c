/* SPDX-License-Identifier: MIT */
/* The group's I/O engine and the runners of its queues: made before the sandbox closes, kept when a
 * member needs them. */
#include <signal.h>
#include "worker/internal.h"
#include "worker/sandbox.h"

int worker_media_init(struct worker *w)
{
	unsigned n;
	int error;

	if (w->half->config_len && !w->shared->media)
		return 0;
	/* A new group does not know yet what it needs. */
	n = w->half->config_len ? w->shared->queue_threads : QUEUE_THREADS_MAX;
	error = media_engine_new(&w->engine, n, MW_FD_GRAVE);
	return error ? error : queue_group_new(&w->queues, n);
}

static int enter(void *arg)
{
	return sandbox_enter_thread(arg);
}

int worker_queues_enter(struct worker *w, struct sandbox *sandbox)
{
	return w->queues ? queue_group_enter(w->queues, enter, sandbox) : 0;
}

static unsigned n_threads(const struct worker *w)
{
	unsigned most = 0;

	for (unsigned i = 0; i < w->n_members; i++) {
		unsigned n = queue_threads_wanted(&w->members[i].dev);

		most = n > most ? n : most;
	}
	return most;
}

static bool has_queues(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->members[i].dev.type->queues)
			return true;
	return false;
}

static bool has_requests(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->members[i].dev.type->media_requests)
			return true;
	return false;
}

int worker_queues_start(struct worker *w)
{
	if (has_queues(w)) {
		if (w->crashed)
			queue_group_blame(w->queues, w->shared->signal == SIGKILL);
		return queue_group_start(w->queues, &w->loop, w->engine, n_threads(w));
	}
	queue_group_free(w->queues);
	w->queues = NULL;
	return 0;
}

int worker_media_start(struct worker *w)
{
	if (has_queues(w) || has_requests(w)) {
		w->shared->media = 1; /* before CONFIG is committed: a successor asks for it then */
		w->shared->queue_threads = n_threads(w);
		media_engine_trim(w->engine, n_threads(w));
		return media_engine_start(w->engine, &w->loop, &w->shared->fence);
	}
	media_engine_free(w->engine);
	w->engine = NULL;
	return 0;
}
