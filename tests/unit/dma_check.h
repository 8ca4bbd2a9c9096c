/* SPDX-License-Identifier: MIT */
/* What must be true of an IOVA table at any time, looked at from inside. */
#ifndef TESTS_DMA_CHECK_H
#define TESTS_DMA_CHECK_H

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "dma/internal.h"

#define PAGE ((uint64_t)DMA_PAGE)

static inline void dma_check_table(const struct dma_table *t)
{
	const struct dma_view *v = t->index;
	unsigned n = 0, n_used = 0;
	uint64_t last = 0;

	for (unsigned c = 0; c < v->n; c++) {
		const struct dma_chunk *chunk = v->ref[c].chunk;

		assert(chunk->n && chunk->n <= DMA_CHUNK);
		assert(v->ref[c].first == chunk->e[0].iova);
		assert(!c || chunk->n + v->ref[c - 1].chunk->n > DMA_CHUNK / 2);
		for (unsigned i = 0; i < chunk->n; i++, n++) {
			const struct dma_entry *e = &chunk->e[i];
			const struct dma_slot *s = &t->shared->slots[e->slot];

			assert(!n || e->iova > last);
			last = entry_last(e);
			assert(s->iova == e->iova && s->size == e->size && s->kind == e->kind &&
			       s->prot == e->prot && s->file == e->file);
			assert(e->slot < t->shared->n_slots);
		}
	}
	assert(n == dma_n_maps(t));
	for (unsigned i = 0; i < t->shared->n_slots; i++)
		n_used += t->shared->slots[i].kind != DMA_FREE;
	assert(n_used == n);
	for (int i = 0; i < DMA_MAX_FILES; i++)
		assert((t->shared->files[i].fd >= 0) == (t->files[i].n_maps > 0 || i == t->idle));
}

static inline struct dma_shared *dma_shared_new(void)
{
	struct dma_shared *shared = calloc(1, sizeof(*shared));

	assert(shared);
	return shared;
}

/* Maps for good. The descriptor stays the caller's. */
static inline int dma_map_now(struct dma_table *t, uint64_t iova, uint64_t size, unsigned prot,
			      int fd, uint64_t offset)
{
	int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	struct dma_record record;
	int r = dma_prepare_map(t, iova, size, prot, own, offset, &record);

	if (r == 0)
		r = dma_apply(t, &record);
	if (own >= 0 && (r < 0 || record.new_fd < 0))
		close(own);
	return r;
}

static inline int dma_unmap_now(struct dma_table *t, uint64_t iova, uint64_t size)
{
	struct dma_record record;
	int r = dma_prepare_unmap(t, iova, size, &record);

	return r < 0 ? r : dma_apply(t, &record);
}

static inline void dma_unmap_all_now(struct dma_table *t)
{
	struct dma_record record;

	assert(dma_prepare_unmap_all(t, &record) == 0);
	assert(dma_apply(t, &record) == 0);
}

/* A memfd whose 64-bit words say which file they belong to and where. */
static inline uint64_t dma_word(unsigned file, uint64_t offset)
{
	return (uint64_t)(file + 1) << 40 | offset;
}

static inline int dma_memfd(unsigned file, uint64_t n_pages)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert(fd >= 0 && ftruncate(fd, (off_t)(n_pages * PAGE)) == 0);
	for (uint64_t at = 0; at < n_pages * PAGE; at += PAGE) {
		uint64_t words[PAGE / 8];

		for (unsigned i = 0; i < PAGE / 8; i++)
			words[i] = dma_word(file, at + 8 * i);
		assert(pwrite(fd, words, PAGE, (off_t)at) == (ssize_t)PAGE);
	}
	return fd;
}

#endif
