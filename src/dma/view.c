/* SPDX-License-Identifier: MIT */
/*
 * What other threads see of a table, and how the control thread waits for them.
 *
 * Epochs count publications. A reader stores the epoch before it loads the view; the control
 * thread stores the new view and epoch before it loads what readers stored. All four are
 * sequentially consistent, so either the control thread sees the reader, or the reader sees the
 * new view. A reader that shows epoch s can hold what was retired under an epoch above s, nothing
 * else; the same holds for a pin, which shows the epoch of the view it was taken from.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/range.h"
#include "dma/internal.h"

#define OUTSIDE UINT64_MAX

#define load(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

static void reader_init(struct dma_reader *r)
{
	*r = (struct dma_reader){ .seen = OUTSIDE };
	pthread_mutex_init(&r->lock, NULL);
	list_init(&r->pins);
}

int views_init(struct dma_table *t)
{
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake_fd < 0)
		return -errno;
	t->wake = (struct loop_fd)LOOP_FD_INIT;
	t->epoch = 1;
	reader_init(&t->control);
	list_init(&t->readers);
	list_init(&t->retired);
	list_init(&t->waiting);
	return 0;
}

/* ---- retiring ---- */

void retire(struct dma_table *t, struct dma_retired *r, void (*free_it)(struct dma_retired *))
{
	r->epoch = t->epoch + 1;
	r->free = free_it;
	list_append(&t->retired, &r->node);
}

/* The lower of `oldest` and the epochs of r's pins that meet the range. */
static uint64_t older_pin(struct dma_reader *r, uint64_t iova, uint64_t len, uint64_t oldest)
{
	struct dma_pin *pin;

	pthread_mutex_lock(&r->lock);
	list_for_each(pin, &r->pins, node)
		if (pin->epoch < oldest &&
		    (len == UINT64_MAX || range_overlaps(iova, len, pin->iova, pin->len)))
			oldest = pin->epoch;
	pthread_mutex_unlock(&r->lock);
	return oldest;
}

/* The lowest epoch that anybody shows who may still use [iova, iova + len). */
static uint64_t oldest_user(struct dma_table *t, uint64_t iova, uint64_t len)
{
	uint64_t oldest = UINT64_MAX;
	struct dma_reader *r;

	/* Readers before pins: a pin is in its list before its reader leaves the view. */
	list_for_each(r, &t->readers, node) {
		uint64_t seen = load(&r->seen);

		if (seen < oldest)
			oldest = seen;
	}
	list_for_each(r, &t->readers, node)
		oldest = older_pin(r, iova, len, oldest);
	return older_pin(&t->control, iova, len, oldest);
}

static void reclaim(struct dma_table *t)
{
	struct dma_retired *r;
	uint64_t oldest;

	if (list_is_empty(&t->retired))
		return;
	oldest = oldest_user(t, 0, UINT64_MAX);
	while ((r = list_first(&t->retired, struct dma_retired, node)) && r->epoch <= oldest) {
		list_remove(&r->node);
		r->free(r);
	}
}

/* ---- views ---- */

static void view_free(struct dma_retired *retired)
{
	free(container_of(retired, struct dma_view, retired));
}

int views_reserve(struct dma_table *t)
{
	/* A change adds one chunk at most. */
	unsigned size = t->index->n + 1;

	if (list_is_empty(&t->readers) || (t->spare_view && t->spare_view->size >= size))
		return 0;
	free(t->spare_view);
	t->spare_view = view_new(size + size / 8);
	return t->spare_view ? 0 : -ENOMEM;
}

/* Puts `view` (or NULL) in the place of the published one. */
static void view_replace(struct dma_table *t, struct dma_view *view)
{
	struct dma_view *old = t->published;

	store(&t->published, view);
	if (old)
		retire(t, &old->retired, view_free);
}

void views_publish(struct dma_table *t)
{
	if (t->changed && !list_is_empty(&t->readers)) {
		struct dma_view *view = t->spare_view;

		assert(view && view->size >= t->index->n);
		t->spare_view = NULL;
		view->generation = t->index->generation;
		view->n = t->index->n;
		memcpy(view->ref, t->index->ref, view->n * sizeof(view->ref[0]));
		view->n_windows = t->index->n_windows;
		memcpy(view->window, t->index->window, view->n_windows * sizeof(view->window[0]));
		view_replace(t, view);
		t->n_views++;
		t->changed = false;
	}
	store(&t->epoch, t->epoch + 1);
	reclaim(t);
}

int dma_set_windows(struct dma_table *t, const struct dma_window *windows, unsigned n)
{
	int r = views_reserve(t);

	if (r < 0)
		return r;
	t->index->n_windows = n < DMA_MAX_WINDOWS ? n : DMA_MAX_WINDOWS;
	if (n)
		memcpy(t->index->window, windows, t->index->n_windows * sizeof(*windows));
	t->changed = true;
	t->index->generation++;
	views_publish(t);
	return 0;
}

int dma_reader_add(struct dma_table *t, struct dma_reader *r)
{
	reader_init(r);
	list_append(&t->readers, &r->node);
	if (views_reserve(t) < 0)
		goto no_memory;
	if (!t->published) {
		t->changed = true;
		views_publish(t);
		if (views_reserve(t) < 0)
			goto no_memory;
	}
	return 0;
no_memory:
	dma_reader_remove(t, r);
	return -ENOMEM;
}

void dma_reader_remove(struct dma_table *t, struct dma_reader *r)
{
	assert(load(&r->seen) == OUTSIDE && list_is_empty(&r->pins));
	list_remove(&r->node);
	pthread_mutex_destroy(&r->lock);
	if (list_is_empty(&t->readers)) {
		view_replace(t, NULL);
		views_publish(t);
	}
}

const struct dma_view *dma_view_enter(struct dma_table *t, struct dma_reader *r)
{
	assert(r->seen == OUTSIDE);
	store(&r->seen, load(&t->epoch));
	return load(&t->published);
}

/* Tells the control thread, if it waits, that one reason less may be left. */
static void wake_control(struct dma_table *t)
{
	if (load(&t->n_waiting))
		eventfd_write(t->wake_fd, 1);
}

void dma_view_leave(struct dma_table *t, struct dma_reader *r)
{
	store(&r->seen, OUTSIDE);
	wake_control(t);
}

void dma_pin(struct dma_table *t, struct dma_reader *r, struct dma_pin *pin, uint64_t iova,
	     uint64_t len)
{
	pin->epoch = r ? r->seen : t->epoch;
	pin->iova = iova;
	pin->len = len;
	assert(pin->epoch != OUTSIDE);
	if (!r)
		r = &t->control;
	pthread_mutex_lock(&r->lock);
	list_append(&r->pins, &pin->node);
	pthread_mutex_unlock(&r->lock);
}

void dma_unpin(struct dma_table *t, struct dma_reader *r, struct dma_pin *pin)
{
	if (!r)
		r = &t->control;
	pthread_mutex_lock(&r->lock);
	list_remove(&pin->node);
	pthread_mutex_unlock(&r->lock);
	wake_control(t);
}

bool dma_is_pinned(struct dma_table *t, uint64_t iova, uint64_t len)
{
	struct dma_reader *r;

	list_for_each(r, &t->readers, node)
		if (older_pin(r, iova, len, UINT64_MAX) != UINT64_MAX)
			return true;
	return older_pin(&t->control, iova, len, UINT64_MAX) != UINT64_MAX;
}

/* ---- quiesce ---- */

static bool is_quiet(const struct dma_quiesce *q)
{
	return oldest_user(q->table, q->iova, q->len) >= q->epoch;
}

static void quiesce_end(struct dma_quiesce *q, int status)
{
	dma_quiesce_cancel(q);
	q->done(q, status);
}

static void on_wake(struct loop_fd *source, uint32_t revents)
{
	struct dma_table *t = container_of(source, struct dma_table, wake);
	struct dma_quiesce *q;
	eventfd_t n;

	eventfd_read(t->wake_fd, &n);
	reclaim(t);
	list_for_each(q, &t->waiting, node) {
		if (!is_quiet(q))
			continue;
		/* `done` may free the table: one per round, and the rest is looked at next. */
		if (t->n_waiting > 1)
			eventfd_write(t->wake_fd, 1);
		quiesce_end(q, 0);
		return;
	}
}

static void on_deadline(struct loop_timer *timer)
{
	quiesce_end(container_of(timer, struct dma_quiesce, deadline), -ETIMEDOUT);
}

void dma_quiesce(struct dma_table *t, struct loop *loop, struct dma_quiesce *q, uint64_t iova,
		 uint64_t len, void (*done)(struct dma_quiesce *, int))
{
	int r = 0;

	views_publish(t);
	*q = (struct dma_quiesce){
		.done = done, .table = t, .epoch = t->epoch, .iova = iova, .len = len
	};
	/* Counted before the look: who leaves after it wakes us. */
	list_append(&t->waiting, &q->node);
	store(&t->n_waiting, t->n_waiting + 1);
	if (is_quiet(q)) {
		quiesce_end(q, 0);
		return;
	}
	if (t->wake.fd < 0)
		r = loop_add(loop, &t->wake, t->wake_fd, EPOLLIN, on_wake);
	if (r < 0)
		quiesce_end(q, r);
	else
		loop_timer_arm(loop, &q->deadline, DMA_QUIESCE_MS * 1000000ULL, on_deadline);
}

void dma_quiesce_cancel(struct dma_quiesce *q)
{
	struct dma_table *t = q->table;

	if (!list_is_linked(&q->node))
		return;
	list_remove(&q->node);
	loop_timer_cancel(&q->deadline);
	store(&t->n_waiting, t->n_waiting - 1);
	if (!t->n_waiting)
		loop_remove(&t->wake);
}

void views_fini(struct dma_table *t)
{
	struct dma_retired *r;

	assert(list_is_empty(&t->readers) && list_is_empty(&t->waiting));
	assert(list_is_empty(&t->control.pins));
	while ((r = list_first(&t->retired, struct dma_retired, node))) {
		list_remove(&r->node);
		r->free(r);
	}
	free(t->spare_view);
	pthread_mutex_destroy(&t->control.lock);
	close(t->wake_fd);
}
