/* SPDX-License-Identifier: MIT */
/*
 * Sorted chunks of entries, found through a sorted array of references.
 *
 * A change touches one chunk (or two edges and the chunks between them) and the array, so it costs
 * the same at any number of entries. Two neighbours that would fit into half a chunk are merged:
 * without that a client could leave one entry in each of 65,535 chunks.
 *
 * Memory for a change is put aside beforehand (index_reserve), so that a change never fails.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "dma/internal.h"

#define MERGE_AT (DMA_CHUNK / 2)

struct dma_view *view_new(unsigned size)
{
	struct dma_view *v = malloc(sizeof(*v) + size * sizeof(v->ref[0]));

	if (v) {
		v->n = v->n_windows = 0;
		v->size = size;
	}
	return v;
}

int index_reserve(struct dma_table *t)
{
	while (t->n_spare < DMA_SPARES) {
		struct dma_chunk *chunk = malloc(sizeof(*chunk));

		if (!chunk)
			return -ENOMEM;
		t->spare[t->n_spare++] = chunk;
	}
	return 0;
}

static struct dma_chunk *spare_take(struct dma_table *t)
{
	struct dma_chunk *chunk;

	assert(t->n_spare);
	chunk = t->spare[--t->n_spare];
	chunk->born = t->n_views;
	chunk->n = 0;
	return chunk;
}

static void chunk_free(struct dma_retired *retired)
{
	free(container_of(retired, struct dma_chunk, retired));
}

/* Is no published view looking at this chunk? */
static bool is_ours(const struct dma_table *t, const struct dma_chunk *chunk)
{
	return chunk->born == t->n_views;
}

/* Chunk c, to be changed. */
static struct dma_chunk *chunk_own(struct dma_table *t, unsigned c)
{
	struct dma_chunk *old = t->index->ref[c].chunk, *chunk;

	if (is_ours(t, old))
		return old;
	chunk = spare_take(t);
	chunk->n = old->n;
	memcpy(chunk->e, old->e, old->n * sizeof(old->e[0]));
	t->index->ref[c].chunk = chunk;
	retire(t, &old->retired, chunk_free);
	return chunk;
}

static void ref_insert(struct dma_view *v, unsigned c, struct dma_chunk *chunk)
{
	assert(v->n < v->size);
	memmove(&v->ref[c + 1], &v->ref[c], (v->n - c) * sizeof(v->ref[0]));
	v->ref[c].chunk = chunk;
	v->n++;
}

static void ref_remove(struct dma_view *v, unsigned c, unsigned n)
{
	memmove(&v->ref[c], &v->ref[c + n], (v->n - c - n) * sizeof(v->ref[0]));
	v->n -= n;
}

static void ref_renew(struct dma_view *v, unsigned c)
{
	v->ref[c].first = v->ref[c].chunk->e[0].iova;
}

bool index_at(const struct dma_view *v, uint64_t iova, struct dma_pos *ret)
{
	unsigned low = 0, high = v->n;
	const struct dma_chunk *chunk;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (v->ref[mid].first <= iova)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low)
		return false;
	ret->c = low - 1;
	chunk = v->ref[ret->c].chunk;
	low = 1;
	high = chunk->n;
	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (chunk->e[mid].iova <= iova)
			low = mid + 1;
		else
			high = mid;
	}
	ret->i = low - 1;
	return true;
}

struct dma_pos index_from(const struct dma_view *v, uint64_t iova)
{
	struct dma_pos pos;

	if (!index_at(v, iova, &pos))
		return (struct dma_pos){ 0, 0 };
	return pos_entry(v, pos)->iova == iova ? pos : pos_next(v, pos);
}

bool index_overlaps(const struct dma_view *v, uint64_t iova, uint64_t size)
{
	struct dma_pos pos;

	return index_at(v, iova + (size - 1), &pos) && entry_last(pos_entry(v, pos)) >= iova;
}

/* Makes room in chunk c, which is full, for an entry at *i; the new one may go into c + 1. */
static void chunk_split(struct dma_table *t, unsigned *c, unsigned *i)
{
	struct dma_view *v = t->index;
	struct dma_chunk *upper = spare_take(t), *chunk;
	unsigned keep = DMA_CHUNK / 2;

	/* Rising addresses are the usual case: leave full chunks behind, not half ones. */
	if (*i == DMA_CHUNK && *c + 1 == v->n) {
		keep = DMA_CHUNK;
	} else {
		chunk = chunk_own(t, *c);
		upper->n = chunk->n - keep;
		memcpy(upper->e, chunk->e + keep, upper->n * sizeof(upper->e[0]));
		chunk->n = keep;
	}
	ref_insert(v, *c + 1, upper);
	if (upper->n)
		ref_renew(v, *c + 1);
	if (*i >= keep && !(*i == keep && upper->n)) {
		*c += 1;
		*i -= keep;
	}
}

void index_insert(struct dma_table *t, const struct dma_entry *entry)
{
	struct dma_view *v = t->index;
	struct dma_pos at = { 0, 0 };
	struct dma_chunk *chunk;

	if (!v->n)
		ref_insert(v, 0, spare_take(t));
	else if (index_at(v, entry->iova, &at))
		at.i++;
	if (v->ref[at.c].chunk->n == DMA_CHUNK)
		chunk_split(t, &at.c, &at.i);
	chunk = chunk_own(t, at.c);
	memmove(&chunk->e[at.i + 1], &chunk->e[at.i], (chunk->n - at.i) * sizeof(chunk->e[0]));
	chunk->e[at.i] = *entry;
	chunk->n++;
	ref_renew(v, at.c);
	t->changed = true;
}

/* Joins chunks c and c + 1 when both exist and are small together. */
static void chunk_merge(struct dma_table *t, unsigned c)
{
	struct dma_view *v = t->index;
	struct dma_chunk *a, *b;

	if (c >= v->n || c + 1 >= v->n)
		return;
	a = v->ref[c].chunk;
	b = v->ref[c + 1].chunk;
	if (a->n + b->n > MERGE_AT)
		return;
	if (is_ours(t, b) && !is_ours(t, a)) {
		memmove(&b->e[a->n], b->e, b->n * sizeof(b->e[0]));
		memcpy(b->e, a->e, a->n * sizeof(a->e[0]));
		b->n += a->n;
		retire(t, &a->retired, chunk_free);
		ref_remove(v, c, 1);
	} else {
		a = chunk_own(t, c);
		memcpy(&a->e[a->n], b->e, b->n * sizeof(b->e[0]));
		a->n += b->n;
		retire(t, &b->retired, chunk_free);
		ref_remove(v, c + 1, 1);
	}
	ref_renew(v, c);
}

/* Takes entries [i, end) out of chunk c. true: the chunk itself is gone too. */
static bool chunk_cut(struct dma_table *t, unsigned c, unsigned i, unsigned end)
{
	struct dma_chunk *chunk = t->index->ref[c].chunk;

	if (i == 0 && end == chunk->n) {
		retire(t, &chunk->retired, chunk_free);
		return true;
	}
	chunk = chunk_own(t, c);
	memmove(&chunk->e[i], &chunk->e[end], (chunk->n - end) * sizeof(chunk->e[0]));
	chunk->n -= end - i;
	ref_renew(t->index, c);
	return false;
}

void index_remove(struct dma_table *t, uint64_t iova, uint64_t last,
		  void (*gone)(struct dma_table *, const struct dma_entry *))
{
	struct dma_view *v = t->index;
	struct dma_pos from = index_from(v, iova);
	unsigned first = from.c + (from.i ? 1 : 0), n_gone = 0, c = from.c, i = from.i;

	for (bool more = true; more && c < v->n; c++, i = 0) {
		const struct dma_chunk *chunk = v->ref[c].chunk;
		unsigned end = i;

		while (end < chunk->n && entry_last(&chunk->e[end]) <= last)
			gone(t, &chunk->e[end++]);
		more = end == chunk->n;
		if (end > i && chunk_cut(t, c, i, end))
			n_gone++;
	}
	ref_remove(v, first, n_gone);
	/* Neighbours of what was cut are now around `first`; the last pair goes first, so that an
	 * index that a merge removes is not used again. */
	chunk_merge(t, first);
	if (first)
		chunk_merge(t, first - 1);
	if (first > 1)
		chunk_merge(t, first - 2);
	t->changed = true;
}

int index_build(struct dma_table *t, const struct dma_entry *entries, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (index_reserve(t) < 0)
			return -ENOMEM;
		index_insert(t, &entries[i]);
	}
	return index_reserve(t);
}

void index_fini(struct dma_table *t)
{
	for (unsigned c = 0; t->index && c < t->index->n; c++)
		free(t->index->ref[c].chunk);
	free(t->index);
	while (t->n_spare)
		free(t->spare[--t->n_spare]);
}
