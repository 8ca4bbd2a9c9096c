// SPDX-License-Identifier: MIT
/*
 * The wait for the end of what a dead life left. media.h has the reason.
 *
 * Two signs, whichever comes first. The tombstone hangs up when the dead one's ring is gone, which
 * takes the kernel 25 ms and more. The ring itself tells earlier: it outlives its process in the
 * common table, requests go on to end into it, and each has exactly one completion: as many
 * completions as submissions mean that nothing is under way. But a ring that is kept open never
 * goes. So after a while it is closed (the kernel then cancels what it can), and the tombstone
 * alone decides.
 *
 * The counters are memory that a hostile worker could have written. All it gains is that its own
 * late requests overtake its successor's, on its own medium and in its own guest.
 */
#include <unistd.h>
#include <umdev/cleanup.h>
#include "media/internal.h"

#define PATIENCE_NS 1000000000ULL /* that a ring is looked at */
#define NS_PER_MS 1000000ULL

static void close_ring(struct fence *f)
{
	int fd = f->state->ring;

	loop_remove(&f->ring_source);
	loop_timer_cancel(&f->patience);
	ring_left_unmap(TAKE(f->left));
	if (fd < 0)
		return;
	/* Forgotten first: a successor must not close a number that is used again. */
	__atomic_store_n(&f->state->ring, -1, __ATOMIC_RELEASE);
	close(fd);
}

static void pass(struct fence *f)
{
	loop_remove(&f->tomb_source);
	loop_timer_cancel(&f->deadline);
	close_ring(f);
	f->passed(f);
}

static void on_tomb(struct loop_fd *source, uint32_t revents)
{
	pass(container_of(source, struct fence, tomb_source));
}

static void on_ring(struct loop_fd *source, uint32_t revents)
{
	struct fence *f = container_of(source, struct fence, ring_source);

	if (ring_left_is_done(f->left, f->state->ring))
		pass(f);
}

static void on_impatience(struct loop_timer *timer)
{
	struct fence *f = container_of(timer, struct fence, patience);

	if (ring_left_is_done(f->left, f->state->ring))
		pass(f);
	else
		close_ring(f);
}

static void on_deadline(struct loop_timer *timer)
{
	struct fence *f = container_of(timer, struct fence, deadline);

	f->stalled(f);
}

/* False: it is the tombstone's to tell. */
static bool watch_ring(struct fence *f, const struct media_ring *like)
{
	int fd = f->state->ring;

	f->left = fd >= 0 && like ? ring_left_map(like, fd) : NULL;
	if (!f->left || loop_add(f->loop, &f->ring_source, fd, EPOLLIN, on_ring) < 0)
		return false;
	loop_timer_arm(f->loop, &f->patience, PATIENCE_NS, on_impatience);
	return true;
}

int fence_wait(struct fence *f, struct loop *loop, struct media_fence *state,
	       const struct media_ring *like)
{
	f->loop = loop;
	f->state = state;
	f->tomb_source = f->ring_source = (struct loop_fd)LOOP_FD_INIT;
	if (state->tomb < 0) {
		pass(f);
		return 0;
	}
	if (!watch_ring(f, like)) {
		close_ring(f);
	} else if (ring_left_is_done(f->left, state->ring)) {
		pass(f);
		return 0;
	}
	loop_timer_arm(loop, &f->deadline, MEDIA_FENCE_MS * NS_PER_MS, on_deadline);
	return loop_add(loop, &f->tomb_source, state->tomb, 0, on_tomb); /* hang-up always counts */
}

void fence_end(struct fence *f)
{
	if (!f->loop)
		return;
	loop_remove(&f->tomb_source);
	loop_remove(&f->ring_source);
	loop_timer_cancel(&f->patience);
	loop_timer_cancel(&f->deadline);
	ring_left_unmap(TAKE(f->left));
}
