/* SPDX-License-Identifier: MIT */
/* Numbers and layouts of NVM Express 1.4. Section numbers are those of that document. */
#ifndef NVME_SPEC_H
#define NVME_SPEC_H

#include <stdint.h>
#include <umdev/endian.h>

#define NVME_PAGE 4096u
#define NVME_NSID_ALL 0xffffffffu

/* Registers (3.1). */
enum nvme_register {
	NVME_CAP = 0x00,
	NVME_VS = 0x08,
	NVME_INTMS = 0x0c,
	NVME_INTMC = 0x10,
	NVME_CC = 0x14,
	NVME_CSTS = 0x1c,
	NVME_AQA = 0x24,
	NVME_ASQ = 0x28,
	NVME_ACQ = 0x30,
	NVME_DOORBELLS = 0x1000,
};

#define NVME_VERSION 0x00010400u

#define NVME_CAP_CQR (1ull << 16)
#define NVME_CAP_TO_SHIFT 24 /* of 500 ms */
#define NVME_CAP_CSS_NVM (1ull << 37)

#define NVME_CC_EN (1u << 0)
#define NVME_CC_CSS(cc) ((cc) >> 4 & 7)
#define NVME_CC_MPS(cc) ((cc) >> 7 & 15)
#define NVME_CC_AMS(cc) ((cc) >> 11 & 7)
#define NVME_CC_SHN(cc) ((cc) >> 14 & 3)
#define NVME_CC_IOSQES(cc) ((cc) >> 16 & 15)
#define NVME_CC_IOCQES(cc) ((cc) >> 20 & 15)
#define NVME_CC_WRITABLE 0x00fffff1u

#define NVME_CSTS_RDY (1u << 0)
#define NVME_CSTS_CFS (1u << 1)
#define NVME_CSTS_SHST_MASK (3u << 2)
#define NVME_CSTS_SHST_BUSY (1u << 2)
#define NVME_CSTS_SHST_DONE (2u << 2)

#define NVME_SQE_SHIFT 6
#define NVME_CQE_SHIFT 4

/* A command (4.2). */
struct nvme_command {
	uint8_t opcode, flags;
	le16 cid;
	le32 nsid;
	le32 cdw2, cdw3;
	le64 mptr, prp1, prp2;
	le32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct nvme_command) == 1 << NVME_SQE_SHIFT, "4.2");

/* A completion (4.6). The phase tag is bit 0 of `status`. */
struct nvme_completion {
	le32 result, reserved;
	le16 sq_head, sq_id, cid, status;
};
_Static_assert(sizeof(struct nvme_completion) == 1 << NVME_CQE_SHIFT, "4.6");

enum nvme_admin_opcode {
	NVME_DELETE_SQ = 0x00,
	NVME_CREATE_SQ = 0x01,
	NVME_GET_LOG_PAGE = 0x02,
	NVME_DELETE_CQ = 0x04,
	NVME_CREATE_CQ = 0x05,
	NVME_IDENTIFY = 0x06,
	NVME_ABORT = 0x08,
	NVME_SET_FEATURES = 0x09,
	NVME_GET_FEATURES = 0x0a,
	NVME_ASYNC_EVENT = 0x0c,
	NVME_DOORBELL_BUFFER = 0x7c,
};

enum nvme_io_opcode {
	NVME_FLUSH = 0x00,
	NVME_WRITE = 0x01,
	NVME_READ = 0x02,
	NVME_WRITE_ZEROES = 0x08,
	NVME_DATASET = 0x09,
};

#define NVME_FLAGS_FUSE 0x03
#define NVME_FLAGS_PSDT 0xc0
#define NVME_RW_FUA (1u << 30)
#define NVME_RW_DEALLOCATE (1u << 25)
#define NVME_RW_DIRECTIVE (0xfu << 20)
#define NVME_DATASET_DEALLOCATE (1u << 2)
#define NVME_DATASET_RANGES 256u

struct nvme_dataset_range {
	le32 attributes, blocks;
	le64 slba;
};

/* Status of a completion (4.6.1) without the phase tag: type << 8 | code, and flags. */
enum nvme_status {
	NVME_OK = 0x000,
	NVME_INVALID_OPCODE = 0x001,
	NVME_INVALID_FIELD = 0x002,
	NVME_DATA_TRANSFER_ERROR = 0x004,
	NVME_INTERNAL_ERROR = 0x006,
	NVME_ABORT_REQUESTED = 0x007,
	NVME_INVALID_NAMESPACE = 0x00b,
	NVME_SEQUENCE_ERROR = 0x00c,
	NVME_PRP_OFFSET_INVALID = 0x013,
	NVME_WRITE_PROTECTED = 0x020,
	NVME_LBA_OUT_OF_RANGE = 0x080,
	NVME_CAPACITY_EXCEEDED = 0x081,
	NVME_CQ_INVALID = 0x100,
	NVME_INVALID_QID = 0x101,
	NVME_INVALID_QUEUE_SIZE = 0x102,
	NVME_ASYNC_LIMIT = 0x105,
	NVME_INVALID_VECTOR = 0x108,
	NVME_INVALID_LOG = 0x109,
	NVME_INVALID_DELETION = 0x10c,
	NVME_NOT_SAVEABLE = 0x10d,
	NVME_NOT_CHANGEABLE = 0x10e,
	NVME_NOT_NAMESPACE = 0x10f,
	NVME_WRITE_FAULT = 0x280,
	NVME_READ_ERROR = 0x281,
};
#define NVME_STATUS_MORE (1u << 13) /* the error log has an entry about it */
#define NVME_STATUS_DNR (1u << 14)  /* the same again would fail again */

/* Identify (5.15). */
enum nvme_cns {
	NVME_CNS_NAMESPACE = 0x00,
	NVME_CNS_CONTROLLER = 0x01,
	NVME_CNS_ACTIVE_LIST = 0x02,
	NVME_CNS_DESCRIPTORS = 0x03,
	NVME_CNS_ALLOCATED_LIST = 0x10,
	NVME_CNS_ALLOCATED = 0x11,
	NVME_CNS_ATTACHED_CONTROLLERS = 0x12,
	NVME_CNS_CONTROLLERS = 0x13,
};
#define NVME_NIDT_UUID 3

enum nvme_log {
	NVME_LOG_ERROR = 1,
	NVME_LOG_SMART,
	NVME_LOG_FIRMWARE,
	NVME_LOG_CHANGED,
	NVME_LOG_EFFECTS,
};
#define NVME_LOG_RETAIN (1u << 15)

/* An entry of the error log (5.14.1.1). */
struct nvme_error_entry {
	le64 count;
	le16 sq_id, cid, status, location;
	le64 lba;
	le32 nsid;
	uint8_t vendor, transport, reserved[2];
	le64 specific;
	uint8_t rest[24];
};
_Static_assert(sizeof(struct nvme_error_entry) == 64, "5.14.1.1");

#define NVME_EFFECTS_SUPPORTED (1u << 0)
#define NVME_EFFECTS_CONTENT (1u << 1)

enum nvme_feature {
	NVME_FEAT_ARBITRATION = 0x01,
	NVME_FEAT_POWER = 0x02,
	NVME_FEAT_TEMPERATURE = 0x04,
	NVME_FEAT_ERROR_RECOVERY = 0x05,
	NVME_FEAT_WRITE_CACHE = 0x06,
	NVME_FEAT_QUEUES = 0x07,
	NVME_FEAT_COALESCING = 0x08,
	NVME_FEAT_VECTOR = 0x09,
	NVME_FEAT_ATOMICITY = 0x0a,
	NVME_FEAT_ASYNC = 0x0b,
};
#define NVME_SET_SAVE (1u << 31)
enum nvme_select { NVME_CURRENT, NVME_DEFAULT, NVME_SAVED, NVME_CAPABILITIES };
#define NVME_FEATURE_CHANGEABLE (1u << 2)
#define NVME_FEATURE_NAMESPACE (1u << 1)

/* Asynchronous events (5.2): type | information << 8 | log page << 16. */
#define NVME_EVENT_INVALID_DOORBELL 0x010000u
#define NVME_EVENT_INVALID_TAIL 0x010100u
#define NVME_EVENT_TEMPERATURE 0x020101u
#define NVME_EVENT_NAMESPACE 0x040002u
#define NVME_ASYNC_TEMPERATURE (1u << 1)
#define NVME_ASYNC_NAMESPACE (1u << 8)

#endif
