/* SPDX-License-Identifier: MIT */
/*
 * The NVMe model behind a core of a few lines: guest memory is an array, the medium is another one,
 * a transaction is a copy of the state, and the worker can be killed at any call of the model.
 *
 * Nothing happens by itself: rig_settle() does what is to be done until there is nothing left.
 */
#ifndef TESTS_NVME_RIG_H
#define TESTS_NVME_RIG_H

#include <setjmp.h>
#include <umdev/media.h>
#include "drivers/disk/nvme/nvme.h"

#define RIG_IOVA 0x100000000ull
#define RIG_RAM (1u << 20)
#define RIG_DISK (1u << 20)
#define RIG_REQUESTS 512

struct umdev_queue {
	struct umdev_device *dev;
	unsigned index;
	enum { RIG_STOPPED, RIG_RUNNING, RIG_DRAINING, RIG_DROPPING } order;
	bool begun; /* start succeeded in this life */
	bool fresh; /* not yet started with this configuration, in any life */
	_Alignas(16) uint8_t config[UMDEV_QUEUE_CONFIG_MAX];
	uint32_t events;
	unsigned in_flight;
	struct nvme_queue_state state __attribute__((aligned(64)));
	struct nvme_queue_priv priv;
};

struct rig_request {
	struct umdev_queue *q;
	enum umdev_media_op op;
	uint64_t offset, len;
	unsigned n_segs;
	uint32_t tag;
	struct umdev_seg segs[UMDEV_QUEUE_SEGS];
};

struct umdev_device {
	struct nvme_state half[2];
	unsigned cur; /* the one that is current; the other one in a transaction */
	bool in_hook;
	struct nvme_priv priv;
	struct umdev_value aggregation, blk_size, serial, doorbells;
	uint32_t doorbell[NVME_DOORBELL_WORDS];
	struct umdev_queue queue[NVME_PAIRS];
	/* asked for in the hook; after its commit */
	bool work, work_asked;
	uint8_t write_data[2 * UMDEV_DMA_REDO_MAX];
	struct {
		uint64_t iova;
		uint32_t len;
	} write[8];
	unsigned n_writes, write_len;
	struct {
		uint8_t order; /* 1 + of struct umdev_queue, 0: as before */
		bool keep;
		_Alignas(16) uint8_t config[UMDEV_QUEUE_CONFIG_MAX];
	} ask[NVME_PAIRS];
	unsigned flushes, flushes_asked;
	uint32_t flush_tag;
	/* the world */
	uint8_t ram[RIG_RAM], disk[RIG_DISK];
	struct rig_request request[RIG_REQUESTS];
	unsigned n_requests;
	unsigned irqs, log_lines;
	bool intx, msi, busy_media; /* nothing ends while it is set */
	int fail;                   /* errno of the next request, 0: none */
	/* kills */
	long kill_in; /* calls until then; 0: never */
	bool killed;
	unsigned rounds;
	jmp_buf out;
};

void rig_init(struct umdev_device *dev); /* zeroed before */
uint32_t rig_get(struct umdev_device *dev, uint64_t reg);
void rig_set(struct umdev_device *dev, uint64_t reg, uint32_t value);
/* Everything that is due. A kill ends the life; another one goes on. */
void rig_settle(struct umdev_device *dev);
void rig_restart(struct umdev_device *dev); /* as after SIGKILL between two calls */
void rig_reset(struct umdev_device *dev, enum umdev_reset why);
void rig_change(struct umdev_device *dev, const char *name, enum umdev_resource_change change);

/* The host's side. */
void rig_enable(struct umdev_device *dev, uint64_t sq, uint64_t cq, unsigned entries);
static inline void *rig_at(struct umdev_device *dev, uint64_t iova)
{
	return dev->ram + (iova - RIG_IOVA);
}

#endif
