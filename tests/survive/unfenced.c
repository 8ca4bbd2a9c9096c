/* SPDX-License-Identifier: MIT */
/* A worker that does not wait for what a dead one left: what tests of the fence must notice. */
#include "media/internal.h"

int __wrap_fence_wait(struct fence *f, struct loop *loop, struct media_fence *state,
		      const struct media_ring *like);

int __wrap_fence_wait(struct fence *f, struct loop *loop, struct media_fence *state,
		      const struct media_ring *like)
{
	f->loop = loop;
	f->state = state;
	f->tomb_source = f->ring_source = (struct loop_fd)LOOP_FD_INIT;
	f->passed(f);
	return 0;
}
