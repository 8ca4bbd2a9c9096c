/* SPDX-License-Identifier: MIT */
/* The group's I/O engine and the runners of its queues: made before the sandbox closes, kept when a
 * member needs them. */
#include "worker/internal.h"

#define RINGS 1 /* of runners */

int worker_media_init(struct worker *w)
{
	int error;

	if (w->half->config_len && !w->shared->media)
		return 0;
	error = media_engine_new(&w->engine, RINGS);
	return error ? error : queue_group_new(&w->queues);
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
			queue_group_blame(w->queues);
		return queue_group_start(w->queues, &w->loop, w->engine);
	}
	queue_group_free(w->queues);
	w->queues = NULL;
	return 0;
}

int worker_media_start(struct worker *w)
{
	bool queues = has_queues(w), requests = has_requests(w);

	if (queues || requests) {
		w->shared->media = 1; /* before CONFIG is committed: a successor asks for it then */
		media_engine_trim(w->engine, requests, queues ? RINGS : 0);
		return media_engine_start(w->engine, &w->loop, &w->shared->fence);
	}
	media_engine_free(w->engine);
	w->engine = NULL;
	return 0;
}
