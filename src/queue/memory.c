// SPDX-License-Identifier: MIT
/* Guest memory of a queue's hooks: through the view of the round, every access guarded. */
#include <assert.h>
#include <errno.h>
#include "base/range.h"
#include "queue/internal.h"

/* Where `len` bytes at `offset` of the window are, or NULL: nowhere, or not in one piece. */
static uint8_t *window_at(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			  size_t len)
{
	const struct dma_view *view = q->port->view;
	uint64_t generation = dma_view_generation(view);
	struct dma_seg seg;
	int r;

	assert(range_fits(offset, len, w->len));
	if (!q->set->may_dma)
		return NULL;
	if (w->generation != generation) {
		r = dma_view_resolve(view, w->iova, w->len,
				     w->write ? DMA_READ | DMA_WRITE : DMA_READ, &seg, 1);
		w->hva = r == 1 ? seg.hva : NULL;
		w->generation = generation;
	}
	return w->hva ? w->hva + offset : NULL;
}

int umdev_window_read(struct umdev_queue *q, struct umdev_window *w, uint64_t offset, void *to,
		      size_t len)
{
	const uint8_t *at = window_at(q, w, offset, len);

	if (at) {
		__builtin_prefetch(at + len); /* the next one of a ring, from the guest's cache */
		return dma_guard_copy(to, at, len);
	}
	return umdev_queue_read(q, (struct iova){ w->iova.v + offset }, to, len);
}

int umdev_window_write(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
		       const void *from, size_t len)
{
	uint8_t *at = window_at(q, w, offset, len);

	assert(w->write);
	if (at)
		return dma_guard_copy(at, from, len);
	return umdev_queue_write(q, (struct iova){ w->iova.v + offset }, from, len);
}

/* A word of a window that is split over maps; maps begin at pages, so a word is in one of them. */
static void *word_at(struct umdev_queue *q, struct umdev_window *w, uint64_t offset, size_t len)
{
	struct iova iova = { w->iova.v + offset };
	unsigned prot = w->write ? DMA_READ | DMA_WRITE : DMA_READ;
	uint8_t *at = window_at(q, w, offset, len);
	struct dma_seg seg;

	assert(iova.v % len == 0);
	if (at || !q->set->may_dma)
		return at;
	return dma_view_resolve(q->port->view, iova, len, prot, &seg, 1) == 1 ? seg.hva : NULL;
}

int umdev_window_load16(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			uint16_t *ret)
{
	const void *at = word_at(q, w, offset, sizeof(*ret));

	return at ? dma_guard_load16(at, ret) : -EFAULT;
}

int umdev_window_store16(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			 uint16_t value)
{
	void *at = word_at(q, w, offset, sizeof(value));

	assert(w->write);
	return at ? dma_guard_store16(at, value) : -EFAULT;
}

int umdev_window_load32(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			uint32_t *ret)
{
	const void *at = word_at(q, w, offset, sizeof(*ret));

	return at ? dma_guard_load32(at, ret) : -EFAULT;
}

int umdev_window_store32(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			 uint32_t value)
{
	void *at = word_at(q, w, offset, sizeof(value));

	assert(w->write);
	return at ? dma_guard_store32(at, value) : -EFAULT;
}

void umdev_queue_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int umdev_queue_read(struct umdev_queue *q, struct iova from, void *to, size_t len)
{
	if (!q->set->may_dma || dma_view_copy_from(q->port->view, from, to, len) < 0)
		return -EFAULT;
	return 0;
}

int umdev_queue_write(struct umdev_queue *q, struct iova to, const void *from, size_t len)
{
	if (!q->set->may_dma || dma_view_copy_to(q->port->view, to, from, len) < 0)
		return -EFAULT;
	return 0;
}
