/* SPDX-License-Identifier: MIT */
/* The group's I/O engine: made before the sandbox closes, kept when a member needs it. */
#include "worker/internal.h"

int worker_media_init(struct worker *w)
{
	if (w->half->config_len && !w->shared->media)
		return 0;
	return media_engine_new(&w->engine);
}

static bool has_media(const struct worker *w)
{
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->members[i].dev.type->media_requests)
			return true;
	return false;
}

int worker_media_start(struct worker *w)
{
	if (has_media(w)) {
		w->shared->media = 1; /* before CONFIG is committed: a successor asks for it then */
		return media_engine_start(w->engine, &w->loop, &w->shared->fence);
	}
	media_engine_free(w->engine);
	w->engine = NULL;
	return 0;
}
