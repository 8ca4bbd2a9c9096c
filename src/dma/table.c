/* SPDX-License-Identifier: MIT */
/*
 * The slots that survive, and the changes to them.
 *
 * A slot is valid from the store of its kind, which comes last when it is filled and first when it
 * is freed; a file from the store of its fd. So a death at any instruction leaves slots that are
 * whole, and dma_apply() of the same record finishes what is missing.
 *
 * Nothing in the slots is believed at a rebuild: the process that wrote them may have been in the
 * hands of its guest.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include "base/range.h"
#include "dma/internal.h"

#define PROT_ALL (DMA_READ | DMA_WRITE)

/* Compiler order is all that matters between two lives of a process. */
#define order() __asm__ __volatile__("" ::: "memory")

static bool slot_is_used(const struct dma_table *t, unsigned slot)
{
	return t->used[slot / 64] >> (slot % 64) & 1;
}

static void slot_mark(struct dma_table *t, unsigned slot, bool used)
{
	uint64_t bit = 1ULL << (slot % 64);

	if (used)
		t->used[slot / 64] |= bit;
	else
		t->used[slot / 64] &= ~bit;
	if (!used && slot / 64 < t->used_hint)
		t->used_hint = slot / 64;
}

/* A free slot; there is one. */
static unsigned slot_find(struct dma_table *t)
{
	while (t->used[t->used_hint] == UINT64_MAX)
		t->used_hint++;
	return t->used_hint * 64 + (unsigned)__builtin_ctzll(~t->used[t->used_hint]);
}

static bool is_aligned(uint64_t v)
{
	return v % DMA_PAGE == 0;
}

/* What is true of every map, whoever names it. */
static bool map_is_sane(uint64_t iova, uint64_t size, unsigned prot, uint64_t offset)
{
	return size && is_aligned(iova) && is_aligned(size) && is_aligned(offset) &&
	       range_is_sane(iova, size) && prot && !(prot & ~(unsigned)PROT_ALL);
}

/* Could dma_prepare_map have made this slot, with `file` behind it? */
static bool slot_is_sane(const struct dma_slot *slot, const struct dma_file_slot *file)
{
	if (!map_is_sane(slot->iova, slot->size, slot->prot, slot->offset))
		return false;
	if (slot->kind == DMA_MESSAGE)
		return slot->file == -1;
	return slot->kind == DMA_FILE && slot->file >= 0 && slot->file < DMA_MAX_FILES &&
	       file->writable <= 1 && range_fits(slot->offset, slot->size, file->size) &&
	       (!(slot->prot & DMA_WRITE) || file->writable);
}

static struct dma_entry entry_of(const struct dma_table *t, unsigned slot,
				 const struct dma_slot *value)
{
	return (struct dma_entry){
		.iova = value->iova,
		.size = value->size,
		.offset = value->offset,
		.mapping = value->file < 0 ? NULL : t->files[value->file].mapping,
		.slot = (uint16_t)slot,
		.file = (int16_t)value->file,
		.kind = (uint8_t)value->kind,
		.prot = (uint8_t)value->prot,
	};
}

/* ---- prepare ---- */

/* Memory for the next dma_apply, so that it cannot fail. */
static int table_reserve(struct dma_table *t)
{
	int r = index_reserve(t);

	assert(!t->unswept);
	return r < 0 ? r : views_reserve(t);
}

static void staged_drop(struct dma_table *t)
{
	mapping_free(t->staged);
	t->staged = NULL;
}

/* The file with the identity of `file`, else a free place. -ENOSPC. */
static int file_find(const struct dma_table *t, const struct dma_file_slot *file)
{
	int place = t->n_files < DMA_MAX_FILES ? t->n_files : -ENOSPC;

	for (int i = 0; i < t->n_files; i++) {
		const struct dma_file_slot *f = &t->shared->files[i];

		if (f->fd < 0)
			place = i;
		else if (f->ino == file->ino && f->dev == file->dev &&
			 f->writable == file->writable)
			return i;
	}
	return place;
}

/* file_map; an idle file makes room. */
static int map_now(struct dma_table *t, int file, const struct dma_file_slot *slot)
{
	int r = file_map(t, slot, &t->staged);

	if (r < 0 && t->idle >= 0 && t->idle != file) {
		dma_forget_idle(t);
		r = file_map(t, slot, &t->staged);
	}
	return r;
}

/* Fills the record's part about the file behind fd and has it mapped. */
static int prepare_file(struct dma_table *t, int fd, struct dma_record *record)
{
	struct dma_file_slot *file = &record->file_value;
	const struct dma_file_slot *known;
	const struct dma_mapping *m;
	int r = file_judge(fd, record->value.prot, record->value.offset, record->value.size, file);

	if (r < 0)
		return r;
	record->file = file_find(t, file);
	if (record->file < 0 && t->idle >= 0) {
		dma_forget_idle(t);
		record->file = file_find(t, file);
	}
	if (record->file < 0)
		return record->file;
	record->value.file = record->file;
	known = &t->shared->files[record->file];
	m = t->files[record->file].mapping;
	if (known->fd < 0)
		record->new_fd = fd;
	else if (m && range_fits(record->value.offset, record->value.size, m->len))
		file->size = known->size;
	else if (file->size < known->size)
		file->size = known->size; /* it shrank, but not below what is asked for */
	if (!m || m->len < file->size)
		r = map_now(t, record->file, file);
	file->fd = -1;
	return r;
}

int dma_prepare_map(struct dma_table *t, uint64_t iova, uint64_t size, unsigned prot, int fd,
		    uint64_t offset, struct dma_record *ret)
{
	struct dma_record record = { .op = DMA_OP_MAP, .file = -1, .new_fd = -1 };
	int r;

	staged_drop(t);
	if (fd < 0)
		offset = 0;
	if (!map_is_sane(iova, size, prot, offset))
		return -EINVAL;
	if (index_overlaps(t->index, iova, size))
		return -EEXIST;
	if (t->n_maps == DMA_MAX_MAPS)
		return -ENOSPC;
	record.slot = (int32_t)slot_find(t);
	record.value = (struct dma_slot){ .iova = iova,
					  .size = size,
					  .offset = offset,
					  .file = -1,
					  .kind = fd < 0 ? DMA_MESSAGE : DMA_FILE,
					  .prot = (uint16_t)prot };
	record.file_value.fd = -1;
	r = table_reserve(t);
	if (r == 0 && fd >= 0)
		r = prepare_file(t, fd, &record);
	if (r == 0)
		*ret = record;
	return r;
}

/* Do whole maps cover [iova, iova + size) without a hole? */
static bool is_run(const struct dma_view *v, uint64_t iova, uint64_t size)
{
	struct dma_pos pos = index_from(v, iova);
	const struct dma_entry *e;

	if (!size || !range_is_sane(iova, size))
		return false;
	while (size && (e = pos_entry(v, pos)) && e->iova == iova && e->size <= size) {
		iova += e->size;
		size -= e->size;
		pos = pos_next(v, pos);
	}
	return size == 0;
}

int dma_prepare_unmap(struct dma_table *t, uint64_t iova, uint64_t size, struct dma_record *ret)
{
	int r;

	staged_drop(t);
	if (!is_run(t->index, iova, size))
		return -ENOENT;
	r = table_reserve(t);
	if (r < 0)
		return r;
	*ret = (struct dma_record){ .op = DMA_OP_UNMAP,
				    .slot = -1,
				    .file = -1,
				    .new_fd = -1,
				    .value = { .iova = iova, .size = size, .file = -1 },
				    .file_value = { .fd = -1 } };
	return 0;
}

int dma_prepare_unmap_all(struct dma_table *t, struct dma_record *ret)
{
	int r;

	staged_drop(t);
	assert(!t->unswept);
	r = views_reserve(t); /* no chunk is needed to empty an index */
	if (r < 0)
		return r;
	*ret = (struct dma_record){ .op = DMA_OP_UNMAP_ALL,
				    .slot = -1,
				    .file = -1,
				    .new_fd = -1,
				    .value = { .file = -1 },
				    .file_value = { .fd = -1 } };
	return 0;
}

/* ---- apply ---- */

/* Is the MAP done already, or would it go through as prepared? 1, 0, -EUCLEAN. */
static int map_judge(const struct dma_table *t, const struct dma_record *r)
{
	const struct dma_slot *value = &r->value;
	const struct dma_file_slot *known;
	struct dma_file_slot probe;

	if (r->slot < 0 || r->slot >= DMA_MAX_MAPS || value->file != r->file ||
	    !slot_is_sane(value, &r->file_value))
		return -EUCLEAN;
	if (slot_is_used(t, (unsigned)r->slot))
		return memcmp(&t->shared->slots[r->slot], value, sizeof(*value)) ? -EUCLEAN : 1;
	if (index_overlaps(t->index, value->iova, value->size))
		return -EUCLEAN;
	if (r->file < 0)
		return 0;
	if (r->file_value.fd != -1)
		return -EUCLEAN;
	known = &t->shared->files[r->file];
	if (known->fd >= 0) {
		/* Known before, or by the first part of this very record. */
		bool same = known->dev == r->file_value.dev && known->ino == r->file_value.ino &&
			    known->writable == r->file_value.writable &&
			    known->size <= r->file_value.size &&
			    (r->new_fd < 0 || r->new_fd == known->fd);

		return same ? 0 : -EUCLEAN;
	}
	probe = r->file_value;
	probe.fd = r->new_fd;
	return file_is_true(&probe) ? 0 : -EUCLEAN;
}

static void file_store(struct dma_table *t, const struct dma_record *r)
{
	struct dma_file_slot *file = &t->shared->files[r->file];

	if (file->fd >= 0) {
		__atomic_store_n(&file->size, r->file_value.size, __ATOMIC_RELAXED);
		return;
	}
	*file = r->file_value;
	order();
	__atomic_store_n(&file->fd, r->new_fd, __ATOMIC_RELAXED);
	if (t->n_files <= r->file)
		t->n_files = r->file + 1;
}

static void slot_store(struct dma_table *t, unsigned slot, const struct dma_slot *value)
{
	struct dma_slot *s = &t->shared->slots[slot];

	__atomic_store_n(&s->kind, (uint16_t)DMA_FREE, __ATOMIC_RELAXED);
	order();
	*s = (struct dma_slot){ .iova = value->iova,
				.size = value->size,
				.offset = value->offset,
				.file = value->file,
				.kind = DMA_FREE,
				.prot = value->prot };
	order();
	__atomic_store_n(&s->kind, value->kind, __ATOMIC_RELAXED);
	order();
	if (t->shared->n_slots <= slot)
		__atomic_store_n(&t->shared->n_slots, slot + 1, __ATOMIC_RELAXED);
}

static int apply_map(struct dma_table *t, const struct dma_record *record)
{
	struct dma_mapping *m;
	struct dma_entry entry;
	int r = map_judge(t, record);

	if (r != 0)
		return r < 0 ? r : 0;
	if (record->file >= 0) {
		file_store(t, record);
		m = t->files[record->file].mapping;
		if (t->staged) {
			file_set_mapping(t, record->file, TAKE(t->staged));
		} else if (!m || m->len < record->file_value.size) {
			r = file_map(t, &t->shared->files[record->file], &m);
			file_set_mapping(t, record->file, r < 0 ? NULL : m);
		}
	}
	slot_store(t, (unsigned)record->slot, &record->value);
	slot_mark(t, (unsigned)record->slot, true);
	entry = entry_of(t, (unsigned)record->slot, &record->value);
	index_insert(t, &entry);
	file_get(t, &entry);
	t->n_maps++;
	t->index->generation++;
	return r;
}

static void entry_gone(struct dma_table *t, const struct dma_entry *e)
{
	__atomic_store_n(&t->shared->slots[e->slot].kind, (uint16_t)DMA_FREE, __ATOMIC_RELAXED);
	slot_mark(t, e->slot, false);
	t->n_maps--;
	file_put(t, e);
}

/* Files of a rebuilt table that no map names: their closing was cut short by a death. */
static void sweep(struct dma_table *t)
{
	for (int i = 0; i < t->n_files; i++)
		if (t->shared->files[i].fd >= 0 && !t->files[i].n_maps)
			file_close(t, i);
	t->unswept = false;
}

int dma_apply(struct dma_table *t, const struct dma_record *record)
{
	uint64_t iova = record->value.iova, size = record->value.size;
	int r = 0;

	switch (record->op) {
	case DMA_OP_NONE:
		break;
	case DMA_OP_MAP:
		r = apply_map(t, record);
		break;
	case DMA_OP_UNMAP:
		if (!size || !range_is_sane(iova, size))
			return -EUCLEAN;
		index_remove(t, iova, iova + (size - 1), entry_gone);
		t->index->generation++;
		break;
	case DMA_OP_UNMAP_ALL:
		index_remove(t, 0, UINT64_MAX, entry_gone);
		file_close_idle(t); /* who lets everything go means it */
		t->shared->n_slots = 0;
		t->index->generation++;
		break;
	default:
		return -EUCLEAN;
	}
	if (r == -EUCLEAN)
		return r;
	staged_drop(t);
	if (t->unswept)
		sweep(t);
	views_publish(t);
	return r;
}

/* ---- life ---- */

static int compare_entries(const void *a, const void *b)
{
	const struct dma_entry *x = a, *y = b;

	return x->iova < y->iova ? -1 : x->iova > y->iova;
}

static int compare_files(const void *a, const void *b)
{
	const struct dma_file_slot *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->writable < y->writable ? -1 : x->writable > y->writable;
}

/* Each file slot describes its descriptor, and no two of them the same file. */
static int files_judge(const struct dma_shared *shared)
{
	_cleanup_free_ struct dma_file_slot *sorted = malloc(sizeof(shared->files));
	size_t n = 0;

	if (!sorted)
		return -ENOMEM;
	for (int i = 0; i < DMA_MAX_FILES; i++)
		if (shared->files[i].fd >= 0)
			sorted[n++] = shared->files[i];
	qsort(sorted, n, sizeof(*sorted), compare_files);
	for (size_t i = 0; i < n; i++)
		if (!file_is_true(&sorted[i]) ||
		    (i && compare_files(&sorted[i - 1], &sorted[i]) == 0))
			return -EUCLEAN;
	return 0;
}

/* The used slots as sorted entries without mappings; they do not overlap. */
static int slots_judge(const struct dma_table *t, struct dma_entry *ret, unsigned *ret_n)
{
	const struct dma_shared *shared = t->shared;
	unsigned n = 0;

	for (unsigned i = 0; i < shared->n_slots; i++) {
		const struct dma_slot *s = &shared->slots[i];
		const struct dma_file_slot *file = NULL;

		if (s->kind == DMA_FREE)
			continue;
		if (s->kind == DMA_FILE && (s->file < 0 || s->file >= DMA_MAX_FILES))
			return -EUCLEAN;
		if (s->kind == DMA_FILE)
			file = &shared->files[s->file];
		if (!slot_is_sane(s, file) || (file && file->fd < 0))
			return -EUCLEAN;
		ret[n++] = entry_of(t, i, s);
	}
	qsort(ret, n, sizeof(*ret), compare_entries);
	for (unsigned i = 1; i < n; i++)
		if (entry_last(&ret[i - 1]) >= ret[i].iova)
			return -EUCLEAN;
	*ret_n = n;
	return 0;
}

static int table_rebuild(struct dma_table *t)
{
	_cleanup_free_ struct dma_entry *entries = NULL;
	unsigned n;
	int r;

	if (t->shared->n_slots > DMA_MAX_MAPS)
		return -EUCLEAN;
	r = files_judge(t->shared);
	if (r < 0)
		return r;
	for (int i = 0; i < DMA_MAX_FILES; i++)
		if (t->shared->files[i].fd >= 0)
			t->n_files = i + 1;
	entries = malloc((t->shared->n_slots + 1) * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	r = slots_judge(t, entries, &n);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++) {
		struct dma_entry *e = &entries[i];

		/* A file that cannot be mapped now: its maps are there and resolve to -EFAULT. */
		if (e->file >= 0 && !t->files[e->file].n_maps)
			file_map(t, &t->shared->files[e->file], &t->files[e->file].mapping);
		if (e->file >= 0)
			e->mapping = t->files[e->file].mapping;
		file_get(t, e);
		slot_mark(t, e->slot, true);
	}
	t->n_maps = n;
	t->unswept = true;
	return index_build(t, entries, n);
}

static void shared_init(struct dma_shared *shared)
{
	shared->n_slots = 0;
	shared->pad = 0;
	for (int i = 0; i < DMA_MAX_FILES; i++)
		shared->files[i] = (struct dma_file_slot){ .fd = -1 };
}

static void mappings_free(struct dma_table *t)
{
	struct dma_pos pos = { 0, 0 };
	const struct dma_entry *e;

	/* Older mappings of files that grew hang off their entries only. */
	for (; t->index && (e = pos_entry(t->index, pos)); pos = pos_next(t->index, pos))
		if (e->mapping && --e->mapping->n_maps == 0 &&
		    e->mapping != t->files[e->file].mapping)
			mapping_free(e->mapping);
	for (int i = 0; i < DMA_MAX_FILES; i++)
		mapping_free(t->files[i].mapping);
}

void dma_table_free(struct dma_table *t)
{
	if (!t)
		return;
	loop_timer_cancel(&t->idle_end);
	views_fini(t);
	staged_drop(t);
	mappings_free(t);
	index_fini(t);
	free(t);
}

int dma_table_new(struct dma_shared *shared, bool resume, struct dma_table **ret)
{
	struct dma_table *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->shared = shared;
	t->idle = -1;
	t->mapped.limit = DMA_MAX_MAPPED;
	/* Slot numbers end before the bitmap does. */
	t->used[DMA_MAX_MAPS / 64] = ~0ULL << (DMA_MAX_MAPS % 64);
	r = views_init(t);
	if (r < 0) {
		free(t);
		return r;
	}
	t->index = view_new(DMA_MAX_CHUNKS);
	r = t->index ? index_reserve(t) : -ENOMEM;
	if (r == 0)
		t->index->generation = 1; /* 0 is what a cache that knows nothing compares */
	if (r == 0 && resume)
		r = table_rebuild(t);
	else if (r == 0)
		shared_init(shared);
	if (r < 0) {
		dma_table_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void dma_keep_idle(struct dma_table *t, struct loop *loop)
{
	t->idle_loop = loop;
}

void dma_forget_idle(struct dma_table *t)
{
	assert(!t->changed || list_is_empty(&t->readers));
	file_close_idle(t);
	views_publish(t);
}

void dma_each_fd(const struct dma_table *t, void (*fn)(void *, int), void *arg)
{
	fn(arg, t->wake_fd);
	for (int i = 0; i < DMA_MAX_FILES; i++)
		if (t->shared->files[i].fd >= 0)
			fn(arg, t->shared->files[i].fd);
}

uint32_t dma_n_maps(const struct dma_table *t)
{
	return t->n_maps;
}

bool dma_overlaps(const struct dma_table *t, uint64_t iova, uint64_t size)
{
	return size && range_is_sane(iova, size) && index_overlaps(t->index, iova, size);
}

const struct dma_view *dma_view_now(const struct dma_table *t)
{
	return t->index;
}

uint64_t dma_view_generation(const struct dma_view *v)
{
	return v->generation;
}

uint64_t dma_generation(const struct dma_table *t)
{
	return t->index->generation;
}
