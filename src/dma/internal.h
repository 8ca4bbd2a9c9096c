/* SPDX-License-Identifier: MIT */
/*
 * Inside of the IOVA table.
 *
 * The index is a sorted array of references to sorted chunks. A view is a copy of that array: the
 * chunks are shared, and a chunk that a published view refers to is never changed but replaced
 * (index.c). What a change takes out of use is retired under the first epoch in which nobody can
 * find it any more, and freed when no reader and no pin is older (view.c).
 */
#ifndef DMA_INTERNAL_H
#define DMA_INTERNAL_H

#include "base/charge.h"
#include "dma/dma.h"

/* Neighbours hold more than half a chunk together (index.c keeps it so): this many suffice. */
#define DMA_MAX_CHUNKS (2 * DMA_MAX_MAPS / (DMA_CHUNK / 2) + 2)
/* Chunks that one change may need: two edges become ours, or one does and is split. */
#define DMA_SPARES 2

/* First member of whatever is retired. */
struct dma_retired {
	struct list_node node;
	uint64_t epoch; /* nobody who entered in this epoch or later can reach it */
	void (*free)(struct dma_retired *retired);
};

/* One mmap(2) of a whole file. Owned by its file while it is current or an entry refers to it. */
struct dma_mapping {
	struct dma_retired retired;
	struct charge *charge; /* the table's, for len bytes */
	uint8_t *base;
	uint64_t len;
	uint32_t n_maps; /* entries that refer to it */
};

/* One map. Copied from its slot, with the addresses of this life. */
struct dma_entry {
	uint64_t iova, size, offset;
	struct dma_mapping *mapping; /* NULL: DMA_MESSAGE, or the file could not be mapped */
	uint16_t slot;
	int16_t file; /* or -1 */
	uint8_t kind, prot;
};

struct dma_chunk {
	struct dma_retired retired;
	uint64_t born; /* number of views published before it was made */
	unsigned n;    /* 1..DMA_CHUNK while it is in an index */
	struct dma_entry e[DMA_CHUNK];
};

struct dma_ref {
	uint64_t first; /* chunk->e[0].iova: the search stays in this array */
	struct dma_chunk *chunk;
};

/* The table's own index, and each published copy of it. */
struct dma_view {
	struct dma_retired retired;
	uint64_t generation; /* of the table as it shows it */
	unsigned n, size;    /* references in use, allocated */
	unsigned n_windows;
	struct dma_window window[DMA_MAX_WINDOWS];
	struct dma_ref ref[];
};

/* Position of an entry. c == view->n: behind the last. */
struct dma_pos {
	unsigned c, i;
};

/* A file of shared->files, in this life. */
struct dma_file {
	struct dma_mapping *mapping; /* current one; older, shorter ones hang off their entries */
	uint32_t n_maps;             /* entries of this file */
};

struct dma_table {
	struct dma_shared *shared; /* borrowed */
	struct dma_file files[DMA_MAX_FILES];
	uint64_t used[(DMA_MAX_MAPS + 63) / 64]; /* slots: bit set = not free */
	unsigned used_hint;                      /* no free slot in a word below this one */
	int n_files;                             /* places of shared->files in use or used */
	uint32_t n_maps;
	bool unswept;               /* rebuilt: files without maps may be left from a death */
	struct charge mapped;       /* bytes of all mappings, the staged and the retired included */
	struct dma_mapping *staged; /* made by a prepare, for the apply that follows it */
	struct loop *idle_loop;     /* borrowed; NULL: files go with their last map */
	int idle;                   /* file without maps that is kept, or -1 */
	struct loop_timer idle_end; /* its end */

	struct dma_view *index; /* of DMA_MAX_CHUNKS references */
	struct dma_chunk *spare[DMA_SPARES];
	unsigned n_spare;

	/* view.c */
	uint64_t epoch;              /* written here, read by readers */
	struct dma_view *published;  /* the same; NULL: no reader */
	struct dma_view *spare_view; /* for the next publication */
	uint64_t n_views;            /* published so far */
	bool changed;                /* the index differs from the published view */
	struct list_node readers;
	struct dma_reader control; /* holds the control thread's pins; not in `readers` */
	struct list_node retired;  /* by epoch, oldest first */
	struct list_node waiting;  /* struct dma_quiesce */
	unsigned n_waiting;        /* the same number, for readers: wake us when you leave */
	int wake_fd;               /* eventfd, owned */
	struct loop_fd wake;       /* in the loop while somebody waits */
};

static inline uint64_t entry_last(const struct dma_entry *e)
{
	return e->iova + (e->size - 1);
}

static inline struct dma_entry *pos_entry(const struct dma_view *v, struct dma_pos p)
{
	return p.c < v->n ? &v->ref[p.c].chunk->e[p.i] : NULL;
}

static inline struct dma_pos pos_next(const struct dma_view *v, struct dma_pos p)
{
	if (++p.i == v->ref[p.c].chunk->n)
		p = (struct dma_pos){ p.c + 1, 0 };
	return p;
}

/* index.c */
struct dma_view *view_new(unsigned size); /* NULL: no memory */
int index_reserve(struct dma_table *t);   /* chunks for one change; 0 / -ENOMEM */
/* Last entry that starts at or below iova. false: there is none. */
bool index_at(const struct dma_view *v, uint64_t iova, struct dma_pos *ret);
/* First entry that starts at or above iova. */
struct dma_pos index_from(const struct dma_view *v, uint64_t iova);
bool index_overlaps(const struct dma_view *v, uint64_t iova, uint64_t size);
void index_insert(struct dma_table *t, const struct dma_entry *entry);
/* Takes out every entry inside [iova, last] after gone(t, entry). */
void index_remove(struct dma_table *t, uint64_t iova, uint64_t last,
		  void (*gone)(struct dma_table *, const struct dma_entry *));
/* Builds the index from n sorted entries that do not overlap. 0 / -ENOMEM. */
int index_build(struct dma_table *t, const struct dma_entry *entries, unsigned n);
void index_fini(struct dma_table *t);

/* file.c */
/* Judges a descriptor that came with a map. 0 and *ret (fd set), or -errno. */
int file_judge(int fd, unsigned prot, uint64_t offset, uint64_t size, struct dma_file_slot *ret);
/* Does the slot still describe its descriptor? For inherited state. */
bool file_is_true(const struct dma_file_slot *slot);
int file_map(struct dma_table *t, const struct dma_file_slot *slot,
	     struct dma_mapping **ret);   /* 0 / -errno */
void mapping_free(struct dma_mapping *m); /* NULL: no-op */
/* Makes m (owned from now on) the mapping for new entries of a file. */
void file_set_mapping(struct dma_table *t, int file, struct dma_mapping *m);
void file_get(struct dma_table *t, const struct dma_entry *e); /* one more entry */
void file_put(struct dma_table *t, const struct dma_entry *e); /* the last one: closed, or idle */
/* Closes a file that has no entry. */
void file_close(struct dma_table *t, int file);
void file_close_idle(struct dma_table *t); /* may repeat; its mapping is retired */

/* view.c */
int views_init(struct dma_table *t);
void views_fini(struct dma_table *t);
int views_reserve(struct dma_table *t); /* memory for one publication; 0 / -ENOMEM */
void retire(struct dma_table *t, struct dma_retired *r, void (*free_it)(struct dma_retired *));
/* Readers that enter from now on see the table as it is. */
void views_publish(struct dma_table *t);

#endif
