/* SPDX-License-Identifier: MIT */
/*
 * IOVA table of one connection, the files behind it, and the view that other threads read.
 *
 * A file is mapped once (found by device and inode), an entry is {iova, size, file, offset, prot};
 * addresses are resolved by arithmetic. So map and unmap cost no system call after the first map
 * of a file, do not grow the number of VMAs, and cost the same at 10 and at 65,535 entries.
 *
 * Two copies
 *  - struct dma_shared in the state memory: unordered slots, the truth that survives. Changed only
 *    by dma_apply() of a record that was chosen in a handler and committed: idempotent.
 *  - struct dma_table private: sorted chunks of at most DMA_CHUNK entries, rebuilt from the slots
 *    by a successor.
 *
 * Readers in other threads never look into the table: they take the published view once per round
 * (dma_view_enter/leave) and pin what a request in flight points to. dma_quiesce() completes when
 * no reader holds an older view and no pin is left in the range.
 */
#ifndef DMA_DMA_H
#define DMA_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <umdev/dma.h>
#include "base/list.h"
#include "base/loop.h"

#define DMA_MAX_MAPS 65535 /* what clients assume when nothing was negotiated */
#define DMA_MAX_FILES 1024 /* distinct files; more fds of a known file cost nothing */
#define DMA_CHUNK 128
#define DMA_QUIESCE_MS 3000

enum dma_prot {
	DMA_READ = 1 << 0,
	DMA_WRITE = 1 << 1,
};

enum dma_kind {
	DMA_FREE,
	DMA_FILE,    /* memory behind file `file` */
	DMA_MESSAGE, /* no descriptor came with the map: reached by message only */
};

struct dma_slot {
	uint64_t iova, size, offset; /* offset into the file */
	int32_t file;                /* index into files[], or -1 */
	uint16_t kind;               /* enum dma_kind */
	uint16_t prot;               /* enum dma_prot */
};

struct dma_file_slot {
	int32_t fd; /* owned by the table; -1: free */
	uint32_t n_maps;
	uint64_t dev, ino; /* identity */
	uint64_t size;     /* bytes that may be mapped, from fstat */
	uint32_t writable; /* the descriptor allows PROT_WRITE */
	uint32_t pad;
};

struct dma_shared {
	uint32_t n_slots; /* slots in use or freed below this number */
	uint32_t pad;
	struct dma_file_slot files[DMA_MAX_FILES];
	struct dma_slot slots[DMA_MAX_MAPS];
};

/* One committed change, part of the owner's effects. */
enum dma_op { DMA_OP_NONE, DMA_OP_MAP, DMA_OP_UNMAP, DMA_OP_UNMAP_ALL };
struct dma_record {
	uint32_t op;   /* enum dma_op */
	int32_t slot;  /* MAP: slot to fill; UNMAP frees every slot inside value.iova, value.size */
	int32_t file;  /* MAP: file index, or -1 */
	int32_t new_fd; /* MAP: descriptor to put into files[file], or -1: file is known or none */
	struct dma_slot value;
	struct dma_file_slot file_value;
};

struct dma_table;

/* A piece of guest memory in our address space. */
struct dma_seg {
	void *hva;
	size_t len;
};

/* NULL: -ENOMEM. resume: rebuilds from shared; on -EUCLEAN (impossible content) *ret untouched. */
int dma_table_new(struct dma_shared *shared, bool resume, struct dma_table **ret);
void dma_table_free(struct dma_table *t); /* unmaps; descriptors stay named by shared */
void dma_each_fd(const struct dma_shared *shared, void (*fn)(void *, int), void *arg);

/*
 * Prepare a change; nothing is changed but *ret. MAP: fd borrowed, -1: none; offset and size in
 * bytes. Errors: -EINVAL (size 0, not page aligned, wraps, prot), -EEXIST (overlaps another map;
 * an identical one too), -ENOSPC (maps or files), -EBADF/-EOVERFLOW (file shorter than the map),
 * -EACCES (write to a read-only file), -ENOTSUP (not a file that can be mapped).
 * UNMAP: exact match of one map or of a run of whole maps that covers the range without holes;
 * -ENOENT otherwise.
 */
int dma_prepare_map(struct dma_table *t, uint64_t iova, uint64_t size, unsigned prot, int fd,
		    uint64_t offset, struct dma_record *ret);
int dma_prepare_unmap(struct dma_table *t, uint64_t iova, uint64_t size, struct dma_record *ret);
int dma_prepare_unmap_all(struct dma_table *t, struct dma_record *ret);
/* Carry out a committed record; idempotent; closes descriptors that are named no more. 0, or
 * -ENOMEM/-errno when the file could not be mapped (the entry then resolves to -EFAULT). */
int dma_apply(struct dma_table *t, const struct dma_record *record);

/*
 * Segments of [iova, iova+len) with all of prot. >0: their number (adjacent host ranges are
 * merged); -EFAULT: hole or prot; -EREMOTE: reaches a message-only map; -E2BIG: more than max.
 */
int dma_resolve(struct dma_table *t, struct iova iova, size_t len, unsigned prot,
		struct dma_seg *ret, unsigned max);
/* Copies; a SIGBUS in a truncated file becomes -EFAULT (dma_guard below). */
int dma_copy_from(struct dma_table *t, struct iova from, void *to, size_t len);
int dma_copy_to(struct dma_table *t, struct iova to, const void *from, size_t len);

uint32_t dma_n_maps(const struct dma_table *t);
/* Changes with every map and unmap: caches of resolved addresses compare it. */
uint64_t dma_generation(const struct dma_table *t);

/* ---- other threads ---- */

/* One per reading thread and connection, embedded in its owner. */
struct dma_reader {
	uint64_t seen; /* epoch entered; UINT64_MAX: outside */
	struct list_node node;
};
void dma_reader_add(struct dma_table *t, struct dma_reader *r);    /* control thread */
void dma_reader_remove(struct dma_table *t, struct dma_reader *r); /* control thread */
struct dma_view; /* immutable */
const struct dma_view *dma_view_enter(struct dma_table *t, struct dma_reader *r);
void dma_view_leave(struct dma_table *t, struct dma_reader *r);
int dma_view_resolve(const struct dma_view *v, struct iova iova, size_t len, unsigned prot,
		     struct dma_seg *ret, unsigned max);

/* A request in flight holds memory of [iova, iova+len): control thread or a reader inside a view. */
struct dma_pin {
	uint64_t iova, len;
	struct list_node node;
};

/* Completion of a quiesce. status 0, or -ETIMEDOUT after DMA_QUIESCE_MS: the device must fail. */
struct dma_quiesce {
	void (*done)(struct dma_quiesce *q, int status);
	struct list_node node;
	struct loop_timer deadline;
	uint64_t epoch, iova, len;
};
void dma_pin(struct dma_table *t, struct dma_pin *pin, uint64_t iova, uint64_t len);
void dma_unpin(struct dma_table *t, struct dma_pin *pin);
/* Publishes the table as it is now; `done` runs at once (before return) when nobody is older and
 * nothing is pinned in the range, else from the loop. len UINT64_MAX with iova 0: everything. */
void dma_quiesce(struct dma_table *t, struct loop *loop, struct dma_quiesce *q, uint64_t iova,
		 uint64_t len, void (*done)(struct dma_quiesce *, int));
void dma_quiesce_cancel(struct dma_quiesce *q);

/* ---- SIGBUS ---- */

/* Installed once per worker. A SIGBUS inside dma_copy_* ends that copy with -EFAULT; elsewhere in
 * a mapped file it ends the worker with `reason` on the channel. */
int dma_guard_init(void);

#endif
