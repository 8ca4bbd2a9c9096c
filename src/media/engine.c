// SPDX-License-Identifier: MIT
/*
 * From the queue to the ring and back; the fence. See media.h.
 *
 * Nothing here runs inside a transaction of a device: requests are queued by its commit, started
 * at the end of the round, and their ends are told one by one from the loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "base/log.h"
#include "media/internal.h"

#define ENDS_PER_ROUND 64 /* then others get their turn */
#define TELLS_PER_ROUND 16
#define SYNC_PER_ROUND 4 /* calls that block, without a ring */

struct media_engine {
	struct loop *loop;
	struct media_ring *ring; /* owned; NULL: none here */
	struct media_ring *more[MEDIA_RINGS_MAX];
	unsigned n_more;
	int tomb; /* of our rings; owned until the state names it */
	bool open;
	struct fence fence;
	struct loop_fd ring_source;
	struct loop_defer work, well;
	struct list_node media;
	struct list_node watchers;     /* struct media_watcher */
	struct list_node queue, ended; /* struct media_io */
};

/* All of them register the write end of one pipe, and nothing else keeps it. */
static int make_rings(struct media_engine *e, unsigned n_more, int grave_fd)
{
	_cleanup_close_ int tomb = -1, write_end = -1;
	int fds[2], held[RING_HELD], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	tomb = fds[0];
	write_end = fds[1];
	held[0] = write_end;
	held[1] = grave_fd;
	/* A keeper that goes on as another program needs it. */
	if (fcntl(tomb, F_SETFD, 0) < 0)
		return -errno;
	r = ring_new(&e->ring, held, RING_OF_MAKER);
	while (r >= 0 && e->n_more < n_more) {
		r = ring_new(&e->more[e->n_more], held, RING_OF_OTHER_THREAD);
		e->n_more += r >= 0;
	}
	if (r >= 0)
		e->tomb = take_fd(&tomb);
	return r;
}

void media_engine_trim(struct media_engine *e, unsigned n_more)
{
	while (e->n_more > n_more)
		ring_free(e->more[--e->n_more]);
}

static void free_rings(struct media_engine *e)
{
	media_engine_trim(e, 0);
	ring_free(e->ring);
	e->ring = NULL;
}

int media_engine_new(struct media_engine **ret, unsigned n_more, int grave_fd)
{
	struct media_engine *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->tomb = -1;
	e->ring_source = (struct loop_fd)LOOP_FD_INIT;
	list_init(&e->media);
	list_init(&e->watchers);
	list_init(&e->queue);
	list_init(&e->ended);
	r = make_rings(e, n_more, grave_fd);
	if (r < 0) {
		log_debug("no io_uring (%d): media are read and written synchronously", r);
		free_rings(e);
	}
	*ret = e;
	return 0;
}

struct media_ring *media_engine_ring(const struct media_engine *e, unsigned index)
{
	if (!index)
		return e->ring;
	return index <= e->n_more ? e->more[index - 1] : NULL;
}

bool media_engine_is_open(const struct media_engine *e)
{
	return e->open;
}

bool media_engine_has_ring(const struct media_engine *e)
{
	return e->ring != NULL;
}

/* ---- requests ---- */

static void work_soon(struct media_engine *e);

static void take_result(struct media_engine *e, struct media_io *io, int result)
{
	int r = media_call_take(&io->call, result);

	if (r > 0)
		engine_queue(e, io);
	else
		engine_end(e, io, r);
}

static void start_queued(struct media_engine *e)
{
	unsigned budget = SYNC_PER_ROUND;
	struct media_io *io;

	while ((io = list_first(&e->queue, struct media_io, node))) {
		if (!e->ring && !budget--)
			break;
		if (e->ring && !ring_prepare(e->ring, &io->call, &io->user))
			break;
		list_remove(&io->node);
		io->state = MEDIA_IO_STARTED;
		if (!e->ring)
			take_result(e, io, media_call_now(&io->call));
	}
	if (e->ring)
		ring_submit(e->ring);
}

static void tell_ended(struct media_engine *e)
{
	for (unsigned i = 0; i < TELLS_PER_ROUND && !list_is_empty(&e->ended); i++)
		media_tell_ends(&e->ended);
}

static void on_work(struct loop_defer *defer)
{
	struct media_engine *e = container_of(defer, struct media_engine, work);

	tell_ended(e);
	if (!list_is_empty(&e->queue))
		start_queued(e);
	if (!list_is_empty(&e->queue) || !list_is_empty(&e->ended))
		work_soon(e);
}

static void work_soon(struct media_engine *e)
{
	loop_defer(e->loop, &e->work, on_work);
}

static void on_ring(struct loop_fd *source, uint32_t revents)
{
	struct media_engine *e = container_of(source, struct media_engine, ring_source);

	for (unsigned i = 0; i < ENDS_PER_ROUND && ring_tell(e->ring); i++)
		;
}

void engine_io_ended(struct ring_user *user, int result)
{
	struct media_io *io = container_of(user, struct media_io, user);

	take_result(io->media->dev->engine, io, result);
}

void engine_queue(struct media_engine *e, struct media_io *io)
{
	io->state = MEDIA_IO_QUEUED;
	list_append(&e->queue, &io->node);
	work_soon(e);
}

void engine_end(struct media_engine *e, struct media_io *io, int status)
{
	io->state = MEDIA_IO_ENDED;
	io->status = status;
	list_append(&e->ended, &io->node);
	work_soon(e);
}

void media_engine_watch(struct media_engine *e, struct media_watcher *w)
{
	list_append(&e->watchers, &w->node);
}

void media_engine_unwatch(struct media_watcher *w)
{
	list_remove(&w->node);
}

void engine_add(struct media_engine *e, struct media *m)
{
	list_append(&e->media, &m->node);
}

void engine_remove(struct media *m)
{
	list_remove(&m->node);
}

/* ---- the fence ---- */

static void tell_stalled(struct media_engine *e, bool stalled)
{
	struct media_watcher *w;
	struct media *m;

	list_for_each(m, &e->media, node)
		m->host->stalled(m->dev, stalled);
	list_for_each(w, &e->watchers, node)
		w->stalled(w, stalled);
}

/* From here on our rings may have requests. The tombstone that is replaced is closed by us, or by a
 * successor as a descriptor that nothing names; the ring is named when its tombstone is. */
static void name_ours(struct media_engine *e)
{
	struct media_fence *state = e->fence.state;
	int old = state->tomb;

	__atomic_store_n(&state->tomb, take_fd(&e->tomb), __ATOMIC_RELEASE);
	if (e->ring && !e->n_more) /* else its completions alone tell nothing */
		__atomic_store_n(&state->ring, ring_fd(e->ring), __ATOMIC_RELEASE);
	if (old >= 0)
		close(old);
}

/* Later: a device that is not resumed yet has no transactions. */
static void on_well(struct loop_defer *defer)
{
	tell_stalled(container_of(defer, struct media_engine, well), false);
}

/* Nothing of a dead life can touch anything any more. */
static void on_passed(struct fence *f)
{
	struct media_engine *e = container_of(f, struct media_engine, fence);
	struct media_watcher *w;
	struct media *m;

	name_ours(e);
	e->open = true;
	loop_defer(e->loop, &e->well, on_well);
	list_for_each(m, &e->media, node)
		media_open(m);
	list_for_each(w, &e->watchers, node)
		w->open(w);
}

static void on_stalled(struct fence *f)
{
	log_error("requests of the worker that died do not end; waiting for them");
	tell_stalled(container_of(f, struct media_engine, fence), true);
}

int media_engine_start(struct media_engine *e, struct loop *loop, struct media_fence *fence)
{
	int r = 0;

	e->loop = loop;
	e->fence.passed = on_passed;
	e->fence.stalled = on_stalled;
	if (e->ring)
		r = loop_add(loop, &e->ring_source, ring_fd(e->ring), EPOLLIN, on_ring);
	return r < 0 ? r : fence_wait(&e->fence, loop, fence, e->ring);
}

void media_engine_free(struct media_engine *e)
{
	if (!e)
		return;
	loop_remove(&e->ring_source);
	fence_end(&e->fence);
	loop_defer_cancel(&e->work);
	loop_defer_cancel(&e->well);
	free_rings(e);
	if (e->tomb >= 0)
		close(e->tomb);
	free(e);
}

void media_engine_each_fd(const struct media_engine *e, void (*fn)(void *, int), void *arg)
{
	if (e && e->ring)
		fn(arg, ring_fd(e->ring));
	for (unsigned i = 0; e && i < e->n_more; i++)
		fn(arg, ring_fd(e->more[i]));
	if (e && e->tomb >= 0)
		fn(arg, e->tomb);
}
