/* SPDX-License-Identifier: MIT */
/*
 * The vfio-user protocol as bytes and structs: sizes, numbers and flags, no I/O and no state.
 *
 * A message is a header of 16 bytes and a payload, in host byte order. A decoder takes a payload
 * and returns 0, or -EINVAL when the payload is too short for the struct or contradicts itself;
 * it does not judge values. What follows the fixed part of a request is ignored unless the struct
 * names it: clients pad (SPDK sends 4064 bytes to ask for a region).
 */
#ifndef WIRE_VFIO_USER_H
#define WIRE_VFIO_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"

#define VUSER_HEADER 16

enum vuser_command {
	VUSER_VERSION = 1,
	VUSER_DMA_MAP = 2,
	VUSER_DMA_UNMAP = 3,
	VUSER_GET_INFO = 4,
	VUSER_GET_REGION_INFO = 5,
	VUSER_GET_REGION_IO_FDS = 6,
	VUSER_GET_IRQ_INFO = 7,
	VUSER_SET_IRQS = 8,
	VUSER_REGION_READ = 9,
	VUSER_REGION_WRITE = 10,
	VUSER_DMA_READ = 11,  /* server to client */
	VUSER_DMA_WRITE = 12, /* server to client */
	VUSER_RESET = 13,
	VUSER_REGION_WRITE_MULTI = 15,
	VUSER_DEVICE_FEATURE = 16,
	VUSER_MIG_DATA_READ = 17,
	VUSER_MIG_DATA_WRITE = 18,
};

enum vuser_flags {
	VUSER_TYPE_MASK = 0xf,
	VUSER_TYPE_COMMAND = 0,
	VUSER_TYPE_REPLY = 1,
	VUSER_NO_REPLY = 1 << 4,
	VUSER_ERROR = 1 << 5,
};

struct vuser_header {
	uint16_t id, command;
	uint32_t size; /* of the whole message */
	uint32_t flags;
	uint32_t error; /* a positive errno, with VUSER_ERROR */
};

/* For base/conn: the size a header announces; -EPROTO below VUSER_HEADER. */
int64_t vuser_len(const uint8_t *data, size_t have);
/* -EPROTO: a type that is neither command nor reply, or flags that do not exist. */
int vuser_get_header(const void *data, size_t len, struct vuser_header *ret);
void vuser_put_header(struct buf_writer *w, const struct vuser_header *h);

/* ---- VERSION ---- */

/* What a client may send without saying otherwise. */
#define VUSER_DEFAULT_FDS 1
#define VUSER_DEFAULT_DATA (1024 * 1024)

/* The capabilities that concern a server; all others are skipped. */
struct vuser_caps {
	uint64_t max_msg_fds;
	uint64_t max_data_xfer_size;
	uint64_t max_dma_maps;
	uint64_t pgsizes;
	bool write_multiple;
};

struct vuser_version {
	uint16_t major, minor;
	struct vuser_caps caps; /* defaults where the client said nothing */
};

/* The JSON is optional; what is there must be one object, NUL-terminated, and well formed. */
int vuser_get_version(const void *payload, size_t len, struct vuser_version *ret);
void vuser_put_version(struct buf_writer *w, const struct vuser_version *v);

/* ---- DMA ---- */

enum vuser_dma_flags {
	VUSER_DMA_R = 1 << 0,
	VUSER_DMA_W = 1 << 1,
	VUSER_DMA_HINTS = 3 << 2, /* libvfio-user's clients: mappable, readable by pread */
	VUSER_UNMAP_ALL = 1 << 1,
};

struct vuser_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, iova, size;
};
struct vuser_dma_unmap {
	uint32_t argsz, flags;
	uint64_t iova, size;
};
int vuser_get_dma_map(const void *payload, size_t len, struct vuser_dma_map *ret);
int vuser_get_dma_unmap(const void *payload, size_t len, struct vuser_dma_unmap *ret);
void vuser_put_dma_unmap(struct buf_writer *w, const struct vuser_dma_unmap *m);

/* Message DMA: the request, and the reply of a read (of a write it may lack the payload). */
#define VUSER_DMA_ACCESS 16
struct vuser_dma_access {
	uint64_t address, count;
	const uint8_t *data; /* count bytes, or NULL: none follow */
};
/* -EINVAL: count and the bytes that follow disagree. */
int vuser_get_dma_access(const void *payload, size_t len, struct vuser_dma_access *ret);
void vuser_put_dma_access(struct buf_writer *w, const struct vuser_dma_access *a);

/* ---- device, regions ---- */

#define VUSER_INFO 16
enum { VUSER_INFO_RESET = 1 << 0, VUSER_INFO_PCI = 1 << 1 };
/* GET_INFO, GET_REGION_IO_FDS and GET_IRQ_INFO share one shape, in requests and in replies. */
struct vuser_info {
	uint32_t argsz, flags;
	uint32_t index; /* GET_INFO: number of regions */
	uint32_t count; /* GET_INFO: number of interrupt kinds */
};
int vuser_get_info(const void *payload, size_t len, struct vuser_info *ret);
void vuser_put_info(struct buf_writer *w, const struct vuser_info *i);

#define VUSER_REGION_INFO 32
#define VUSER_SPARSE_AREA 32 /* capability header, count, pad and one area */
enum vuser_region_flags {
	VUSER_REGION_R = 1 << 0,
	VUSER_REGION_W = 1 << 1,
	VUSER_REGION_MMAP = 1 << 2,
	VUSER_REGION_CAPS = 1 << 3,
};
struct vuser_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};
int vuser_get_region_info(const void *payload, size_t len, struct vuser_region_info *ret);
void vuser_put_region_info(struct buf_writer *w, const struct vuser_region_info *i);
/* The sparse-mmap capability with one area, last in its chain. */
void vuser_put_sparse_area(struct buf_writer *w, uint64_t offset, uint64_t size);

#define VUSER_ACCESS 16
struct vuser_access {
	uint64_t offset;
	uint32_t region, count;
	const uint8_t *data; /* count bytes in a write, NULL in a read */
};
int vuser_get_read(const void *payload, size_t len, struct vuser_access *ret);
int vuser_get_write(const void *payload, size_t len, struct vuser_access *ret);
void vuser_put_access(struct buf_writer *w, const struct vuser_access *a);

#define VUSER_MULTI_ENTRY 24
#define VUSER_MULTI_MAX 200 /* what QEMU sends at most */
/* Number of entries (all of them are there). */
int vuser_get_multi(const void *payload, size_t len, uint64_t *ret_count);
/* Entry `index` below that number; -EINVAL: count above 8. */
int vuser_get_multi_entry(const void *payload, size_t len, uint64_t index,
			  struct vuser_access *ret);

/* ---- interrupts ---- */

enum vuser_irq_info_flags {
	VUSER_IRQ_EVENTFD = 1 << 0,
	VUSER_IRQ_MASKABLE = 1 << 1,
	VUSER_IRQ_AUTOMASKED = 1 << 2,
	VUSER_IRQ_NORESIZE = 1 << 3,
};
enum vuser_irq_set_flags {
	VUSER_IRQ_DATA_NONE = 1 << 0,
	VUSER_IRQ_DATA_BOOL = 1 << 1,
	VUSER_IRQ_DATA_EVENTFD = 1 << 2,
	VUSER_IRQ_DATA_MASK = 7,
	VUSER_IRQ_MASK = 1 << 3,
	VUSER_IRQ_UNMASK = 1 << 4,
	VUSER_IRQ_TRIGGER = 1 << 5,
	VUSER_IRQ_ACTION_MASK = 7 << 3,
};
struct vuser_irq_set {
	uint32_t argsz, flags, index, start, count;
	const uint8_t *bools; /* count bytes with DATA_BOOL, else NULL */
};
int vuser_get_irq_set(const void *payload, size_t len, struct vuser_irq_set *ret);

/* ---- features, migration ---- */

enum vuser_feature_flags {
	VUSER_FEATURE_MASK = 0xffff,
	VUSER_FEATURE_GET = 1 << 16,
	VUSER_FEATURE_SET = 1 << 17,
	VUSER_FEATURE_PROBE = 1 << 18,
};
struct vuser_feature {
	uint32_t argsz, flags;
};
int vuser_get_feature(const void *payload, size_t len, struct vuser_feature *ret);

#endif
