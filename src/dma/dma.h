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
 * no reader holds an older view and no older pin is left in the range. Without readers nothing is
 * published and none of this costs anything.
 *
 * Threads: everything belongs to the control thread except dma_view_enter, dma_view_resolve,
 * dma_view_leave, and dma_pin/dma_unpin with a reader of one's own.
 */
#ifndef DMA_DMA_H
#define DMA_DMA_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/dma.h>
#include "base/list.h"
#include "base/loop.h"

#define DMA_MAX_MAPS 65535 /* what clients assume when nothing was negotiated */
#define DMA_MAX_FILES 1024 /* distinct files; more fds of a known file cost nothing */
/* Bytes of address space: files are mapped whole, and sparse ones cost a client nothing. 64 tables
 * share the 47 bits of a process. */
#define DMA_MAX_MAPPED (1ULL << 41)
#define DMA_CHUNK 128
#define DMA_PAGE 4096 /* smallest unit of a map; the pgsizes that are offered */
#define DMA_QUIESCE_MS 3000
#define DMA_IDLE_MS 500 /* a guest that maps page by page is back within microseconds */

enum dma_prot {
	DMA_READ = 1 << 0,
	DMA_WRITE = 1 << 1,
};

enum dma_kind {
	DMA_FREE,
	DMA_FILE,    /* memory behind file `file` */
	DMA_MESSAGE, /* no descriptor came with the map: a window, or reached by message */
};

struct dma_slot {
	uint64_t iova, size, offset; /* offset into the file */
	int32_t file;                /* index into files[], or -1 */
	uint16_t kind;               /* enum dma_kind */
	uint16_t prot;               /* enum dma_prot */
};

/* Identity is {dev, ino, writable}: a file that came read-only and later writable is two. */
struct dma_file_slot {
	int32_t fd;        /* owned by the table; -1: free */
	uint32_t writable; /* the descriptor allows PROT_WRITE: 0 or 1 */
	uint64_t dev, ino;
	uint64_t size; /* bytes that may be mapped, from fstat; only grows */
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
	uint32_t op;  /* enum dma_op */
	int32_t slot; /* MAP: slot to fill; UNMAP frees every slot inside value.iova, value.size */
	int32_t file; /* MAP: file index, or -1 */
	int32_t new_fd; /* MAP: descriptor to put into files[file], or -1: file is known or none */
	struct dma_slot value;
	struct dma_file_slot file_value; /* MAP of a file: what files[file] is to be, fd apart */
};

struct dma_table;

/*
 * Memory of devices of the same group that is decoded at guest addresses: their BARs, as far as
 * clients map them. It is reached where the client has a map without a file, which is how it tells
 * of a peer's BAR, and only from a table whose addresses are the bus's own: behind a (virtual)
 * IOMMU an address says nothing about a BAR. dma_is_identity() says how that is known.
 */
struct dma_window {
	uint64_t iova, size;
	uint8_t *hva; /* fixed while the worker lives */
};
#define DMA_MAX_WINDOWS 64 /* what is beyond is reached by message */

/* A piece of guest memory in our address space. */
struct dma_seg {
	void *hva;
	size_t len;
};

/* 0 and *ret. resume: rebuilds from shared and closes nothing; the next call must be dma_apply() of
 * the current half's record, DMA_OP_NONE too. -EUCLEAN (impossible content), -ENOMEM, -EMFILE. */
int dma_table_new(struct dma_shared *shared, bool resume, struct dma_table **ret);
/* Unmaps; descriptors stay named by shared. No reader, pin or quiesce may be left. NULL: no-op. */
void dma_table_free(struct dma_table *t);
/*
 * From now on one file whose last map went stays open and mapped, as long as it is the latest, for
 * DMA_IDLE_MS: mapping it again costs no mmap and no page faults. No address leads to it: the
 * memory is not touched, but not freed either. It goes at once with an unmap of everything, and
 * when its place or its bytes are needed; a successor does not have it.
 */
void dma_keep_idle(struct dma_table *t, struct loop *loop);
void dma_forget_idle(struct dma_table *t); /* now; may repeat */
/* Every descriptor in use: the files of the state, and what this life opened for itself. */
void dma_each_fd(const struct dma_table *t, void (*fn)(void *, int), void *arg);

/*
 * Prepare a change; nothing that anybody can see is changed but *ret.
 *
 * MAP: fd is borrowed, -1: none. When ret->new_fd is -1 the table has no use for it (the file is
 * known): the caller closes it after the commit, else the table owns it from then on. Errors:
 * -EINVAL (size 0, not multiples of DMA_PAGE, wraps, prot), -EEXIST (overlaps another map; an
 * identical one too), -ENOSPC (maps, files, bytes of files), -EBADF, -ENOTSUP (not a plain file or
 * memfd), -EACCES (the descriptor cannot be read, or cannot be written and prot says so),
 * -EOVERFLOW (the file is shorter than offset + size), -ENOMEM and what else mmap(2) said.
 *
 * UNMAP: exactly one map, or a run of whole maps that covers the range without holes; -ENOENT
 * otherwise (whether a client is told so is the caller's decision). -ENOMEM.
 */
int dma_prepare_map(struct dma_table *t, uint64_t iova, uint64_t size, unsigned prot, int fd,
		    uint64_t offset, struct dma_record *ret);
int dma_prepare_unmap(struct dma_table *t, uint64_t iova, uint64_t size, struct dma_record *ret);
int dma_prepare_unmap_all(struct dma_table *t, struct dma_record *ret); /* 0 without readers */
/*
 * Carry out a committed record; idempotent, in this life and the next; closes descriptors that are
 * named no more. 0. Only a successor may see: -EUCLEAN (the record fits no state that could have
 * led to it; nothing changed) or the errno of mmap(2) (the map is there and resolves to -EFAULT).
 */
int dma_apply(struct dma_table *t, const struct dma_record *record);

/*
 * Segments of [iova, iova+len) with all of prot, in order. >=0: their number (adjacent host ranges
 * are merged; 0 for len 0); -EFAULT: hole, prot or wrap; -EREMOTE: reaches a map without a file
 * where no window is; -E2BIG: more than max. The first reason in order of address counts.
 */
int dma_resolve(struct dma_table *t, struct iova iova, size_t len, unsigned prot,
		struct dma_seg *ret, unsigned max);
/* The same judgement without segments: 0 or -errno. */
int dma_check(struct dma_table *t, struct iova iova, size_t len, unsigned prot);
/* Checked copies: nothing is copied unless all of it is mapped. A SIGBUS in a truncated file
 * becomes -EFAULT after part was copied (dma_guard_init below). */
int dma_copy_from(struct dma_table *t, struct iova from, void *to, size_t len);
int dma_copy_to(struct dma_table *t, struct iova to, const void *from, size_t len);

/*
 * Puts these windows (a copy) in the place of those before. 0, or -ENOMEM: as before; not without
 * readers. Whoever takes a window away waits for those who use it: dma_quiesce of its range.
 */
int dma_set_windows(struct dma_table *t, const struct dma_window *windows, unsigned n);
/* Does the client map its memory at the addresses of the bus? Known by a file's first byte at
 * address 0: no IOMMU's driver hands that address out. */
bool dma_is_identity(const struct dma_table *t);

uint32_t dma_n_maps(const struct dma_table *t);
/* Does any map reach into [iova, iova+size)? */
bool dma_overlaps(const struct dma_table *t, uint64_t iova, uint64_t size);
/* Changes with every map, unmap and change of windows: caches of resolved addresses compare it. */
uint64_t dma_generation(const struct dma_table *t);

/* ---- other threads ---- */

/* One per reading thread and connection, embedded in its owner, best beside that thread's data. */
struct dma_reader {
	uint64_t seen;        /* epoch entered; UINT64_MAX: outside */
	pthread_mutex_t lock; /* of pins: taken by the reader, and by a quiesce that scans */
	struct list_node pins;
	struct list_node node;
};
/* 0 or -ENOMEM. */
int dma_reader_add(struct dma_table *t, struct dma_reader *r);
/* It must be outside and hold no pin. */
void dma_reader_remove(struct dma_table *t, struct dma_reader *r);
struct dma_view; /* immutable; valid until dma_view_leave */
const struct dma_view *dma_view_enter(struct dma_table *t, struct dma_reader *r);
void dma_view_leave(struct dma_table *t, struct dma_reader *r);
int dma_view_resolve(const struct dma_view *v, struct iova iova, size_t len, unsigned prot,
		     struct dma_seg *ret, unsigned max);

int dma_view_copy_from(const struct dma_view *v, struct iova from, void *to, size_t len);
int dma_view_copy_to(const struct dma_view *v, struct iova to, const void *from, size_t len);
uint64_t dma_view_generation(const struct dma_view *v);
/* For the control thread, which needs no reader: the table as it is. Valid until a change. */
const struct dma_view *dma_view_now(const struct dma_table *t);

/* A request in flight holds memory of [iova, iova+len), len > 0. Embedded in the request. */
struct dma_pin {
	uint64_t iova, len;
	uint64_t epoch; /* a quiesce waits for older ones only: new requests cannot starve it */
	struct list_node node;
};
/* r: the calling thread's reader, inside a view; NULL: the control thread. Unpin with the same r.
 */
void dma_pin(struct dma_table *t, struct dma_reader *r, struct dma_pin *pin, uint64_t iova,
	     uint64_t len);
void dma_unpin(struct dma_table *t, struct dma_reader *r, struct dma_pin *pin);

/* Does anybody hold a pin in [iova, iova+len)? 0 and UINT64_MAX: anywhere. */
bool dma_is_pinned(struct dma_table *t, uint64_t iova, uint64_t len);

/* A wait, embedded in its owner. */
struct dma_quiesce {
	void (*done)(struct dma_quiesce *q, int status);
	struct dma_table *table;
	struct list_node node;
	struct loop_timer deadline;
	uint64_t epoch, iova, len;
};
/*
 * Waits until nobody uses the table as it was before this call in [iova, iova+len); 0 and
 * UINT64_MAX: everything; len 0: until no reader does, whatever is pinned. `done` runs once, before
 * the return when nothing is in the way, else from the loop. status 0; -ETIMEDOUT after
 * DMA_QUIESCE_MS, or -errno when waiting is impossible: then something may still use the memory,
 * and the device must fail. q may be reused inside `done`.
 */
void dma_quiesce(struct dma_table *t, struct loop *loop, struct dma_quiesce *q, uint64_t iova,
		 uint64_t len, void (*done)(struct dma_quiesce *, int));
void dma_quiesce_cancel(struct dma_quiesce *q); /* may repeat */

/* ---- SIGBUS ---- */

/* Installs the handler, once per worker. A SIGBUS inside dma_copy_*, dma_view_copy_* and
 * dma_guard_* ends that access with -EFAULT, in whatever thread; anywhere else the process dies of
 * it, as without a handler. 0 or -errno. */
int dma_guard_init(void);
int dma_guard_copy(void *to, const void *from, size_t len); /* 0 / -EFAULT */
/* One aligned word in one access; loads acquire, stores release. */
int dma_guard_load16(const void *from, uint16_t *ret);
int dma_guard_load32(const void *from, uint32_t *ret);
int dma_guard_store16(void *to, uint16_t value);
int dma_guard_store32(void *to, uint32_t value);

#endif
