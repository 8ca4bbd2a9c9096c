/* SPDX-License-Identifier: MIT */
/*
 * The vhost-user protocol as bytes and structs: numbers, sizes and flags, no I/O and no state.
 *
 * A message is a header of 12 bytes and a payload, in the machine's byte order. One table says of
 * each request how long its payload and how many its descriptors may be, and what answers it
 * (vhu_rule); vhu_get() decodes what the table allows. Values are not judged here.
 */
#ifndef WIRE_VHOST_USER_H
#define WIRE_VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"

#define VHU_HEADER 12
#define VHU_MAX_PAYLOAD 4096
#define VHU_MAX_FDS 8
#define VHU_MAX_REGIONS 8 /* of one SET_MEM_TABLE */
#define VHU_CONFIG_MAX 256
#define VHU_MAX_QUEUES 256

enum vhu_request {
	VHU_GET_FEATURES = 1,
	VHU_SET_FEATURES = 2,
	VHU_SET_OWNER = 3,
	VHU_RESET_OWNER = 4,
	VHU_SET_MEM_TABLE = 5,
	VHU_SET_LOG_BASE = 6,
	VHU_SET_LOG_FD = 7,
	VHU_SET_VRING_NUM = 8,
	VHU_SET_VRING_ADDR = 9,
	VHU_SET_VRING_BASE = 10,
	VHU_GET_VRING_BASE = 11,
	VHU_SET_VRING_KICK = 12,
	VHU_SET_VRING_CALL = 13,
	VHU_SET_VRING_ERR = 14,
	VHU_GET_PROTOCOL_FEATURES = 15,
	VHU_SET_PROTOCOL_FEATURES = 16,
	VHU_GET_QUEUE_NUM = 17,
	VHU_SET_VRING_ENABLE = 18,
	VHU_SET_BACKEND_REQ_FD = 21,
	VHU_GET_CONFIG = 24,
	VHU_SET_CONFIG = 25,
	VHU_GET_INFLIGHT_FD = 31,
	VHU_SET_INFLIGHT_FD = 32,
	VHU_RESET_DEVICE = 34,
	VHU_GET_MAX_MEM_SLOTS = 36,
	VHU_ADD_MEM_REG = 37,
	VHU_REM_MEM_REG = 38,
	VHU_SET_STATUS = 39,
	VHU_GET_STATUS = 40,
	VHU_SET_DEVICE_STATE_FD = 42,
	VHU_CHECK_DEVICE_STATE = 43,
	VHU_N_REQUESTS,
};

/* What we send on the back-end channel. */
enum vhu_backend_request {
	VHU_BACKEND_CONFIG_CHANGE = 2,
};

enum vhu_flags {
	VHU_VERSION_MASK = 3,
	VHU_VERSION = 1,
	VHU_REPLY = 1 << 2,
	VHU_NEED_REPLY = 1 << 3,
};

/* Bit 30 of the features: there are protocol features. */
#define VHU_F_PROTOCOL_FEATURES 30
#define VHU_F_LOG_ALL 26

enum vhu_protocol_feature { /* bit numbers */
			    VHU_P_MQ = 0,
			    VHU_P_LOG_SHMFD = 1,
			    VHU_P_REPLY_ACK = 3,
			    VHU_P_BACKEND_REQ = 5,
			    VHU_P_CONFIG = 9,
			    VHU_P_INFLIGHT_SHMFD = 12,
			    VHU_P_RESET_DEVICE = 13,
			    VHU_P_INBAND_NOTIFICATIONS = 14,
			    VHU_P_CONFIGURE_MEM_SLOTS = 15,
			    VHU_P_STATUS = 16,
			    VHU_P_DEVICE_STATE = 19,
			    VHU_P_GET_VRING_BASE_INFLIGHT = 20,
};

struct vhu_header {
	uint32_t request, flags, size; /* size: of the payload */
};

/* For base/conn: the size a header announces; -EPROTO: a version or a size that cannot be. */
int64_t vhu_len(const uint8_t *data, size_t have);
/* -EPROTO: likewise, or len is not header and payload. */
int vhu_get_header(const void *data, size_t len, struct vhu_header *ret);
void vhu_put_header(struct buf_writer *w, const struct vhu_header *h);

/* ---- payloads ---- */

struct vhu_region {
	uint64_t guest, size; /* guest-physical address */
	uint64_t user;        /* the front-end's address of the same memory */
	uint64_t offset;      /* into the descriptor's file */
};

/* A ring's number and a number about it. */
struct vhu_vring_state {
	uint32_t index, num;
};

enum { VHU_VRING_F_LOG = 1 << 0 };
struct vhu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used,
		avail; /* front-end addresses; packed: ring, device area, driver area */
	uint64_t log;  /* guest-physical address of the used ring */
};

/* KICK, CALL, ERR: a ring and whether a descriptor came. */
struct vhu_vring_fd {
	uint8_t index;
	bool has_fd;
};

struct vhu_config {
	uint32_t offset, size, flags;
	const uint8_t *data; /* size bytes; inside the message */
};

struct vhu_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t n_queues, queue_size;
};

struct vhu_log {
	uint64_t mmap_size, mmap_offset;
};

enum { VHU_STATE_SAVE = 0, VHU_STATE_LOAD = 1 };
struct vhu_state_fd {
	uint32_t direction, phase;
};

/* A request. Which member is meant follows from `request` (vhu_rule().payload). */
struct vhu_message {
	uint32_t request;
	bool need_reply;
	union {
		uint64_t u64;
		struct vhu_vring_state vring;
		struct vhu_vring_addr addr;
		struct vhu_vring_fd vring_fd;
		struct {
			uint32_t n;
			struct vhu_region region[VHU_MAX_REGIONS];
		} memory; /* SET_MEM_TABLE, and ADD and REM with n 1 */
		struct vhu_config config;
		struct vhu_inflight inflight;
		struct vhu_log log;
		struct vhu_state_fd state_fd;
	};
};

enum vhu_payload {
	VHU_NONE,
	VHU_U64,
	VHU_VRING,
	VHU_ADDR,
	VHU_VRING_FD,
	VHU_MEMORY,
	VHU_REGION,
	VHU_CONFIG,
	VHU_INFLIGHT,
	VHU_LOG,
	VHU_STATE_FD,
};

struct vhu_rule {
	const char *name;
	enum vhu_payload payload;
	uint8_t max_fds; /* what MEMORY and VRING_FD announce must be there exactly */
	bool answers;    /* has an answer of its own, whatever need_reply says */
};
/* NULL: a request that does not exist, or that we do not speak. */
const struct vhu_rule *vhu_rule(uint32_t request);

/*
 * Decodes a whole message with its n_fds descriptors. 0; -EPROTO: framing; -EOPNOTSUPP: no such
 * request; -EINVAL: payload or descriptors are not what the table says.
 */
int vhu_get(const void *data, size_t len, unsigned n_fds, struct vhu_message *ret);

/* Answers, header included: flags are version and reply, nothing else. */
void vhu_put_u64(struct buf_writer *w, uint32_t request, uint64_t value);
void vhu_put_vring(struct buf_writer *w, uint32_t request, const struct vhu_vring_state *s);
/* data NULL: an empty payload, which tells that there is no such configuration. */
void vhu_put_config(struct buf_writer *w, uint32_t request, const struct vhu_config *c);
void vhu_put_inflight(struct buf_writer *w, uint32_t request, const struct vhu_inflight *i);
void vhu_put_empty(struct buf_writer *w, uint32_t request);
/* A request of ours, on the back-end channel. */
void vhu_put_backend(struct buf_writer *w, enum vhu_backend_request request, bool need_reply);

#endif
