/* SPDX-License-Identifier: MIT */
/*
 * An NVM Express controller as a register model (nvme_spec.h has the document's numbers).
 *
 * Two kinds of code. The controller: registers, the admin queue, everything that is rare. It runs
 * in the hooks of umdev/device.h, which are transactions over struct nvme_state; one admin command
 * is one transaction. And the I/O queues: runners of umdev/queue.h, perhaps in threads of their
 * own, which see nothing of that state. A runner is a completion queue with the submission queues
 * that use it; all it knows is its struct nvme_config. Whoever changes what is in there has the
 * runner drained and started again with another one (nvme_pairs.c): there is no second way.
 *
 *   nvme_regs.c      registers, life of the controller
 *   nvme_admin.c     admin queue: fetch, dispatch, complete
 *   nvme_identify.c  Identify, namespaces
 *   nvme_feature.c   Set Features, Get Features
 *   nvme_log.c       Get Log Page, counters, the error log
 *   nvme_event.c     asynchronous events
 *   nvme_pairs.c     I/O queues: create, delete, configure
 *   nvme_io.c        a runner: fetch, post, the journal
 *   nvme_rw.c        a runner: one command
 *   nvme_prp.c       a runner: where a command's data is
 */
#ifndef NVME_H
#define NVME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/device.h>
#include <umdev/dma.h>
#include <umdev/queue.h>
#include <umdev/vfio.h>
#include "drivers/disk/disk.h"
#include "nvme_spec.h"

#define NVME_PAIRS DISK_MAX_QUEUE_PAIRS
#define NVME_VECTORS (NVME_PAIRS + 1)
#define NVME_MAX_ENTRIES 4096
#define NVME_NAMESPACES DISK_MAX_NAMESPACES
#define NVME_MDTS 8 /* 2^8 pages: 1 MiB */
#define NVME_MAX_TRANSFER (NVME_PAGE << NVME_MDTS)
#define NVME_AERS 4
#define NVME_ERRORS 16 /* entries of the error log */
#define NVME_ABORTS 4
#define NVME_SERIAL 20
#define NVME_FIRMWARE "1       " /* 8 bytes */
#define NVME_PCI_VENDOR 0x1234   /* assigned to nobody */
#define NVME_PCI_DEVICE 0xe5d1
#define NVME_KELVIN 300 /* there is no thermometer: as if it were 27 degrees Celsius */

/*
 * Addresses of rings are page aligned and have at most 4096 entries: one word holds both.
 */
static inline uint64_t nvme_ring(uint64_t base, uint32_t entries)
{
	return base | (entries - 1);
}
static inline uint64_t nvme_ring_base(uint64_t ring)
{
	return ring & ~(uint64_t)(NVME_PAGE - 1);
}
static inline uint32_t nvme_ring_entries(uint64_t ring)
{
	return (uint32_t)(ring & (NVME_PAGE - 1)) + 1;
}

/* Doorbells: word of the page at NVME_DOORBELLS, also of a shadow doorbell buffer. */
static inline unsigned nvme_tail_word(unsigned sq)
{
	return 2 * sq;
}
static inline unsigned nvme_head_word(unsigned cq)
{
	return 2 * cq + 1;
}
#define NVME_DOORBELL_WORDS (2 * (NVME_PAIRS + 1))

/* Where the client writes doorbells to memory, nobody tells the controller of those of the admin
 * queue: then the last runner watches them, and there is one pair less. */
#define NVME_WATCHER (NVME_PAIRS - 1)

/* ---- what the controller knows ---- */

struct nvme_sq {
	uint64_t ring;
	uint8_t exists;
	uint8_t cq;    /* its completion queue, 1 ... */
	uint8_t birth; /* another number each time it is created */
	uint8_t pad[5];
};

struct nvme_cq {
	uint64_t ring;
	uint8_t exists;
	uint8_t vector;
	uint8_t interrupts;
	uint8_t errors_seen; /* of struct nvme_queue_state, modulo 256 */
	uint16_t head;       /* as it was written to its doorbell register */
	uint8_t started;     /* its runner's state is its own */
	uint8_t pad;
};

struct nvme_error {
	uint64_t lba;
	uint32_t nsid;
	uint16_t sq_id, cid, status, pad;
};

struct nvme_counters {
	uint64_t reads, writes;                 /* commands */
	uint64_t sectors_read, sectors_written; /* of 512 bytes */
	uint64_t media_errors;
};

enum nvme_life {
	NVME_DISABLED,  /* power on, or the end of a reset; CC.EN is 0 */
	NVME_READY,     /* CC.EN was set to good values; until it is cleared, or FAILED */
	NVME_RESETTING, /* CC.EN was cleared, queues still run; until the last one stopped */
	NVME_FAILED,    /* CSTS.CFS: until CC.EN is cleared */
};

/* What a command that is not answered at once waits for. */
enum nvme_hold {
	NVME_HOLD_NONE,
	NVME_HOLD_QUEUES, /* nvme_state.renew becomes 0 */
	NVME_HOLD_LATE,   /* nothing: its data is in guest memory now, its completion follows */
};

struct nvme_state {
	uint32_t life; /* enum nvme_life */
	uint32_t cc, csts, aqa, intms;
	uint64_t asq, acq;
	/* admin queue */
	uint16_t sq_head, sq_tail, cq_head, cq_tail;
	uint16_t phase;
	uint16_t hold; /* enum nvme_hold; then those of the command: */
	uint16_t hold_cid, hold_status;
	uint32_t hold_result;
	uint32_t flushing;  /* media that a shutdown still flushes */
	uint32_t shutdowns; /* so far: the tag of its flushes */
	/* I/O queues, [0] is number 1; bits of `running` and `renew` are completion queues */
	uint64_t running; /* has a runner */
	uint64_t renew;   /* runner is being stopped, to be started with another config */
	uint64_t counted; /* its counters are not in `total` */
	uint64_t shadow, event_index;
	bool has_shadow;
	uint8_t births;
	/* asynchronous events */
	uint8_t n_aers;
	bool aborted; /* one of them was; to be completed with that status */
	uint16_t aborted_cid;
	uint16_t aer[NVME_AERS];
	uint32_t event;   /* enum nvme_event_type: pending */
	uint32_t masked;  /* told; until the host has read the log page */
	uint32_t invalid; /* the event to be told for NVME_EVENT_TYPE_ERROR */
	uint32_t changed; /* namespaces, bit 0 is number 1 */
	uint32_t leaving; /* those whose medium goes, and may still be found */
	/* features */
	uint32_t feature[NVME_FEAT_ASYNC + 1];
	uint32_t over, under; /* temperature thresholds */
	uint32_t recovery[NVME_NAMESPACES];
	uint32_t direct[(NVME_VECTORS + 31) / 32]; /* vectors with coalescing disabled */
	/* logs */
	uint64_t error_count;
	struct nvme_error error[NVME_ERRORS]; /* [error_count % NVME_ERRORS] is the oldest */
	struct nvme_counters total;
	struct nvme_sq sq[NVME_PAIRS];
	struct nvme_cq cq[NVME_PAIRS];
};
_Static_assert(sizeof(struct nvme_state) <= UMDEV_STATE_MAX, "umdev/device.h");

struct nvme_priv {
	uint8_t page[NVME_PAGE]; /* of a reply, while it is made */
};

/* An admin command while it is executed. */
struct nvme_request {
	struct umdev_device *dev;
	struct nvme_state *s;
	struct nvme_command cmd;
	uint32_t result; /* dword 0 of the completion */
	bool later;      /* no completion now: hold, or an asynchronous event request */
};
/* NVME_OK or an error: nothing was changed. */
typedef uint16_t nvme_admin_fn(struct nvme_request *rq);

/* Bad input that means that the same again will fail again. */
static inline uint16_t nvme_refuse(enum nvme_status status)
{
	return (uint16_t)(status | NVME_STATUS_DNR);
}

/* nvme_regs.c */
uint64_t nvme_bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len);
void nvme_bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
		    uint64_t value);
void nvme_reset(struct umdev_device *dev, enum umdev_reset why);
void nvme_stopped(struct umdev_device *dev);                    /* a runner has */
void nvme_flushed(struct umdev_device *dev, uint32_t shutdown); /* a medium is, for it */
/* Sets CSTS.CFS; one log line. */
void nvme_fail(struct umdev_device *dev, const char *why);
void nvme_update_intx(struct umdev_device *dev);
void nvme_admin_doorbell(struct umdev_device *dev, bool head, uint32_t value);
bool nvme_is_sane(const struct nvme_state *s);

/* nvme_admin.c */
void nvme_admin_step(struct umdev_device *dev); /* ops->work */
/* Writes len bytes to where the command wants `transfer` bytes. A status. */
uint16_t nvme_reply(struct nvme_request *rq, const void *data, uint32_t len, uint64_t transfer);

/* nvme_identify.c */
nvme_admin_fn nvme_identify;
bool nvme_is_nsid(uint32_t nsid);
int nvme_medium(struct umdev_device *dev, uint32_t nsid); /* -ENOENT */
unsigned nvme_block_shift(const struct umdev_device *dev);
unsigned nvme_pairs(const struct umdev_device *dev); /* of queues, that this controller has */
bool nvme_is_mapped(const struct umdev_device *dev); /* doorbells are */
void nvme_resource(struct umdev_device *dev, const char *name, enum umdev_resource_change change);

/* nvme_feature.c */
nvme_admin_fn nvme_set_features, nvme_get_features;
void nvme_features_reset(struct nvme_state *s);
bool nvme_is_hot(const struct nvme_state *s); /* beyond a threshold */

/* nvme_log.c */
nvme_admin_fn nvme_get_log;
void nvme_log_error(struct nvme_state *s, const struct nvme_error *e);
/* Errors that a runner noted. */
void nvme_collect_errors(struct umdev_device *dev, unsigned index);
/* Its counters become part of the total: before its state is zeroed. */
void nvme_collect_counters(struct umdev_device *dev, unsigned index);

/* nvme_event.c */
enum nvme_event_type {
	NVME_EVENT_TYPE_ERROR = 1 << 0,
	NVME_EVENT_TYPE_SMART = 1 << 1,
	NVME_EVENT_TYPE_NOTICE = 1 << 2,
};
nvme_admin_fn nvme_async_event, nvme_abort;
void nvme_event_raise(struct umdev_device *dev, enum nvme_event_type type);
void nvme_event_invalid_doorbell(struct umdev_device *dev, uint32_t event);
void nvme_event_unmask(struct umdev_device *dev, enum nvme_event_type type);
/* An event that can be told now: takes the request, fills in what completes it. */
bool nvme_event_take(struct nvme_state *s, uint16_t *ret_cid, uint32_t *ret_result);

/* nvme_pairs.c */
nvme_admin_fn nvme_create_cq, nvme_delete_cq, nvme_create_sq, nvme_delete_sq;
nvme_admin_fn nvme_doorbell_buffer;
/* Of the doorbells of the admin queue, where they are mapped. */
void nvme_start_watcher(struct umdev_device *dev);
/* Has all runners started again with what is true now. */
void nvme_renew_all(struct umdev_device *dev);
void nvme_stop_all(struct umdev_device *dev);
void nvme_queue_stopped(struct umdev_device *dev, unsigned index);
void nvme_queue_event(struct umdev_device *dev, unsigned index, uint32_t bits);

/* ---- what a runner knows ---- */

struct nvme_config {
	uint64_t ring;                /* of completions */
	uint64_t shadow, event_index; /* with has_shadow */
	uint8_t id;
	uint8_t vector;
	bool interrupts, intx, has_shadow;
	bool watcher;       /* of the admin queue's doorbells: no queue at all */
	bool write_through; /* a write is durable when it is completed */
	uint8_t block_shift;
	uint8_t n_sqs;
	int8_t medium[NVME_NAMESPACES]; /* -1: none */
	uint8_t sq_id[NVME_PAIRS], sq_birth[NVME_PAIRS];
	uint64_t sq_ring[NVME_PAIRS];
};
_Static_assert(sizeof(struct nvme_config) <= UMDEV_QUEUE_CONFIG_MAX, "umdev/queue.h");

/* Bits of umdev_queue_event. */
enum nvme_queue_event {
	NVME_QUEUE_ERROR = 1 << 0,        /* there is more in `error` */
	NVME_QUEUE_INTX = 1 << 1,         /* the level may have changed */
	NVME_QUEUE_UNREACHABLE = 1 << 2,  /* the memory of a ring is not there */
	NVME_QUEUE_INVALID_TAIL = 1 << 3, /* a doorbell has an impossible value */
	NVME_QUEUE_ADMIN = 1 << 4,        /* doorbells of the admin queue, in `admin` */
};

enum nvme_slot_state {
	NVME_SLOT_FREE,
	NVME_SLOT_TAKEN,  /* cmd is that of entry `sequence` of its queue; until it ended */
	NVME_SLOT_ENDED,  /* with `status`; waits for room in the completion queue */
	NVME_SLOT_POSTED, /* at `place`; until its completion is in guest memory */
};

/* A command between fetch and completion: the journal (nvme_io.c). */
struct nvme_slot {
	struct nvme_command cmd;
	uint32_t state; /* enum nvme_slot_state */
	uint32_t place;
	uint64_t sequence;
	uint16_t status;
	uint8_t sq_id, sq_birth;
	uint8_t pad[44];
};

_Static_assert(sizeof(struct nvme_slot) == 128, "cache lines");

#define NVME_SLOTS UMDEV_QUEUE_REQUESTS_MAX
#define NVME_QUEUE_ERRORS 8

struct nvme_queue_state {
	/* tail | 1 << 16 while it is in an odd round; so the zero of a new queue is its beginning
	 */
	uint32_t cq;
	uint32_t cq_head; /* the last one that was possible */
	struct {
		uint64_t word; /* head | number of commands taken << 16 */
		uint64_t birth;
	} sq[NVME_PAIRS];
	uint32_t admin[2]; /* of the watcher: what it saw last */
	uint32_t n_errors; /* the last NVME_QUEUE_ERRORS are in `error` */
	struct nvme_error error[NVME_QUEUE_ERRORS];
	struct nvme_counters counters;
	struct nvme_slot slot[NVME_SLOTS] __attribute__((aligned(64)));
};

struct nvme_queue_priv {
	struct umdev_window cq, sq[NVME_PAIRS], shadow, event_index;
	uint16_t free[NVME_SLOTS], n_free;                /* slots, as a stack */
	uint16_t ended[NVME_SLOTS], ended_first, n_ended; /* slots, as a ring */
	uint16_t next_sq;                                 /* where the next round begins */
	bool broken;                                      /* told */
	bool invalid_tail;                                /* told */
	uint16_t step[NVME_SLOTS]; /* of commands that take several requests */
	struct umdev_seg segs[UMDEV_QUEUE_SEGS];
	uint64_t list[NVME_PAGE / 8]; /* a page of a PRP list */
};

extern const struct umdev_queue_type nvme_queue_type;

/* nvme_io.c */
static inline const struct nvme_slot *nvme_slot(struct umdev_queue *q, unsigned i)
{
	return &((const struct nvme_queue_state *)umdev_queue_state(q))->slot[i];
}

/* nvme_rw.c */
#define NVME_PENDING (-1) /* a request with tag `slot` is under way */
#define NVME_LATER (-2)   /* the runner takes no request, it stops: begin again when it starts */
/* Begins a command, or goes on with it after its request ended with `status`. A status of NVMe, or
 * one of the above. */
int nvme_execute(struct umdev_queue *q, unsigned slot);
int nvme_continue(struct umdev_queue *q, unsigned slot, int status);

/* nvme_prp.c */
/* Segments of the command's `len` bytes, in q's private memory. Their number, or -status. */
int nvme_prp(struct umdev_queue *q, const struct nvme_command *cmd, uint64_t len);

#endif
