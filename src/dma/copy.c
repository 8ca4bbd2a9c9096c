/* SPDX-License-Identifier: MIT */
/* From addresses of the guest to memory of ours: by arithmetic, for the table and for a view. */
#include <errno.h>
#include "base/range.h"
#include "dma/internal.h"

/* A walk over [at, at + left). */
struct walk {
	const struct dma_view *view;
	struct dma_pos pos;
	uint64_t at;
	size_t left;
	unsigned prot;
};

/* 0, or -EFAULT: not even the first byte is there. */
static int walk_start(struct walk *w, const struct dma_view *view, struct iova iova, size_t len,
		      unsigned prot)
{
	*w = (struct walk){ .view = view, .at = iova.v, .left = len, .prot = prot };
	if (!range_is_sane(iova.v, len))
		return -EFAULT;
	return !len || index_at(view, iova.v, &w->pos) ? 0 : -EFAULT;
}

static bool view_is_identity(const struct dma_view *v)
{
	const struct dma_entry *first = pos_entry(v, (struct dma_pos){ 0, 0 });

	return first && first->iova == 0 && first->kind == DMA_FILE && first->offset == 0;
}

bool dma_is_identity(const struct dma_table *t)
{
	return view_is_identity(t->index);
}

/* Memory at w->at of a map that has no file, as far as one window reaches. */
static int window_next(const struct walk *w, struct dma_seg *ret)
{
	const struct dma_window *win = w->view->window, *end = win + w->view->n_windows;

	while (win < end && (w->at < win->iova || w->at - win->iova >= win->size))
		win++;
	if (win == end || !view_is_identity(w->view))
		return -EREMOTE;
	ret->hva = win->hva + (w->at - win->iova);
	ret->len = win->size - (w->at - win->iova);
	return 0;
}

/* The next piece, while w->left. */
static int walk_next(struct walk *w, struct dma_seg *ret)
{
	const struct dma_entry *e = pos_entry(w->view, w->pos);
	uint64_t into;
	int r = 0;

	if (!e || w->at < e->iova || w->at - e->iova >= e->size || w->prot & ~e->prot)
		return -EFAULT;
	into = w->at - e->iova;
	if (e->kind == DMA_MESSAGE)
		r = window_next(w, ret);
	else if (e->mapping)
		*ret = (struct dma_seg){ e->mapping->base + e->offset + into, e->size - into };
	else
		r = -EFAULT;
	if (r < 0)
		return r;
	if (ret->len > e->size - into)
		ret->len = e->size - into;
	if (ret->len > w->left)
		ret->len = w->left;
	w->at += ret->len;
	w->left -= ret->len;
	if (ret->len == e->size - into)
		w->pos = pos_next(w->view, w->pos);
	return 0;
}

int dma_view_resolve(const struct dma_view *v, struct iova iova, size_t len, unsigned prot,
		     struct dma_seg *ret, unsigned max)
{
	struct walk w;
	struct dma_seg seg;
	unsigned n = 0;
	int r = walk_start(&w, v, iova, len, prot);

	while (r == 0 && w.left) {
		r = walk_next(&w, &seg);
		if (r < 0)
			break;
		if (n && (uint8_t *)ret[n - 1].hva + ret[n - 1].len == seg.hva)
			ret[n - 1].len += seg.len;
		else if (n == max)
			r = -E2BIG;
		else
			ret[n++] = seg;
	}
	return r < 0 ? r : (int)n;
}

int dma_resolve(struct dma_table *t, struct iova iova, size_t len, unsigned prot,
		struct dma_seg *ret, unsigned max)
{
	return dma_view_resolve(t->index, iova, len, prot, ret, max);
}

static int view_check(const struct dma_view *v, struct iova iova, size_t len, unsigned prot)
{
	struct walk w;
	struct dma_seg seg;
	int r = walk_start(&w, v, iova, len, prot);

	while (r == 0 && w.left)
		r = walk_next(&w, &seg);
	return r;
}

int dma_check(struct dma_table *t, struct iova iova, size_t len, unsigned prot)
{
	return view_check(t->index, iova, len, prot);
}

int dma_view_copy_from(const struct dma_view *v, struct iova from, void *to, size_t len)
{
	struct walk w;
	struct dma_seg seg;
	uint8_t *at = to;
	int r = view_check(v, from, len, DMA_READ);

	if (r == 0)
		r = walk_start(&w, v, from, len, DMA_READ);
	while (r == 0 && w.left) {
		r = walk_next(&w, &seg);
		if (r == 0)
			r = dma_guard_copy(at, seg.hva, seg.len);
		at += seg.len;
	}
	return r;
}

int dma_view_copy_to(const struct dma_view *v, struct iova to, const void *from, size_t len)
{
	struct walk w;
	struct dma_seg seg;
	const uint8_t *at = from;
	int r = view_check(v, to, len, DMA_WRITE);

	if (r == 0)
		r = walk_start(&w, v, to, len, DMA_WRITE);
	while (r == 0 && w.left) {
		r = walk_next(&w, &seg);
		if (r == 0)
			r = dma_guard_copy(seg.hva, at, seg.len);
		at += seg.len;
	}
	return r;
}

int dma_copy_from(struct dma_table *t, struct iova from, void *to, size_t len)
{
	return dma_view_copy_from(t->index, from, to, len);
}

int dma_copy_to(struct dma_table *t, struct iova to, const void *from, size_t len)
{
	return dma_view_copy_to(t->index, to, from, len);
}
