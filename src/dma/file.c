/* SPDX-License-Identifier: MIT */
/*
 * The files behind the maps: judged once when a descriptor comes, mapped once and whole.
 *
 * A file that grew is mapped again at its new length for maps made from then on; entries (and what
 * other threads resolved through them) keep the mapping they were made with.
 *
 * One file may be idle: its last map went, but it stays open and mapped for a moment, because who
 * maps page by page (a guest behind an IOMMU) comes back with the same file. No address leads to
 * it, so nothing of it is touched.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/range.h"
#include "dma/internal.h"

/* What descriptor fd is, as far as it can be said without a map. */
static int file_examine(int fd, struct dma_file_slot *ret)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || (flags & O_PATH) || fstat(fd, &st) < 0)
		return -EBADF;
	if (!S_ISREG(st.st_mode))
		return -ENOTSUP;
	if ((flags & O_ACCMODE) == O_WRONLY)
		return -EACCES;
	*ret = (struct dma_file_slot){
		.fd = fd,
		.writable = (flags & O_ACCMODE) == O_RDWR,
		.dev = st.st_dev,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
	};
	return 0;
}

int file_judge(int fd, unsigned prot, uint64_t offset, uint64_t size, struct dma_file_slot *ret)
{
	struct dma_file_slot file;
	int r = file_examine(fd, &file);

	if (r < 0)
		return r;
	if ((prot & DMA_WRITE) && !file.writable)
		return -EACCES;
	if (!range_fits(offset, size, file.size))
		return -EOVERFLOW;
	*ret = file;
	return 0;
}

bool file_is_true(const struct dma_file_slot *slot)
{
	struct dma_file_slot file;

	/* Its length may be anything by now: a client may truncate a file, see guard.c. */
	return file_examine(slot->fd, &file) == 0 && file.dev == slot->dev &&
	       file.ino == slot->ino && file.writable == slot->writable;
}

int file_map(struct dma_table *t, const struct dma_file_slot *slot, struct dma_mapping **ret)
{
	int prot = PROT_READ | (slot->writable ? PROT_WRITE : 0);
	struct dma_mapping *m = calloc(1, sizeof(*m));
	void *base;

	if (!m)
		return -ENOMEM;
	if (!charge_take(&t->mapped, slot->size)) {
		free(m);
		return -ENOSPC;
	}
	base = mmap(NULL, slot->size, prot, MAP_SHARED | MAP_NORESERVE, slot->fd, 0);
	if (base == MAP_FAILED) {
		int r = -errno;

		charge_release(&t->mapped, slot->size);
		free(m);
		return r;
	}
	m->charge = &t->mapped;
	m->base = base;
	m->len = slot->size;
	*ret = m;
	return 0;
}

void mapping_free(struct dma_mapping *m)
{
	if (!m)
		return;
	munmap(m->base, m->len);
	charge_release(m->charge, m->len);
	free(m);
}

static void mapping_free_retired(struct dma_retired *retired)
{
	mapping_free(container_of(retired, struct dma_mapping, retired));
}

static void mapping_retire(struct dma_table *t, struct dma_mapping *m)
{
	retire(t, &m->retired, mapping_free_retired);
}

void file_set_mapping(struct dma_table *t, int file, struct dma_mapping *m)
{
	struct dma_mapping *old = t->files[file].mapping;

	if (old && !old->n_maps)
		mapping_retire(t, old);
	t->files[file].mapping = m;
}

void file_get(struct dma_table *t, const struct dma_entry *e)
{
	if (e->file < 0)
		return;
	if (e->file == t->idle) {
		t->idle = -1;
		loop_timer_cancel(&t->idle_end);
	}
	t->files[e->file].n_maps++;
	if (e->mapping)
		e->mapping->n_maps++;
}

static void idle_ends(struct loop_timer *timer)
{
	dma_forget_idle(container_of(timer, struct dma_table, idle_end));
}

/* Its last map went. */
static void file_rest(struct dma_table *t, int file)
{
	if (!t->idle_loop || !t->files[file].mapping) {
		file_close(t, file);
		return;
	}
	file_close_idle(t);
	t->idle = file;
	loop_timer_arm(t->idle_loop, &t->idle_end, DMA_IDLE_MS * 1000000ULL, idle_ends);
}

void file_put(struct dma_table *t, const struct dma_entry *e)
{
	struct dma_file *file;

	if (e->file < 0)
		return;
	file = &t->files[e->file];
	if (e->mapping && --e->mapping->n_maps == 0 && e->mapping != file->mapping)
		mapping_retire(t, e->mapping);
	assert(file->n_maps);
	if (--file->n_maps == 0)
		file_rest(t, e->file);
}

void file_close(struct dma_table *t, int file)
{
	struct dma_file_slot *slot = &t->shared->files[file];
	int fd = slot->fd;

	file_set_mapping(t, file, NULL);
	/* Forgotten first: a successor may find the number in use for something else. One that is
	 * left open by a death in between is named nowhere, and closed with all such. */
	__atomic_store_n(&slot->fd, -1, __ATOMIC_RELEASE);
	if (fd >= 0)
		close(fd);
}

void file_close_idle(struct dma_table *t)
{
	int file = t->idle;

	loop_timer_cancel(&t->idle_end);
	t->idle = -1;
	if (file >= 0)
		file_close(t, file);
}
