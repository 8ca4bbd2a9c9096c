/* SPDX-License-Identifier: MIT */
#ifndef TEST_QUEUE_H
#define TEST_QUEUE_H

#include <umdev/queue.h>
#include <umdev/vfio.h>
#include "test.h"

/* The device's own state, of one queue. */
struct test_queue_regs {
	uint64_t sq, cq;
	uint32_t entries, vector;
	uint32_t stops, events, error;
	uint32_t pad;
};
struct test_queues_state {
	struct test_queue_regs queue[TEST_QUEUES];
	uint32_t works, pad[3];
};

extern const struct umdev_device_ops test_queue_ops;
extern const struct umdev_pci test_queue_pci;
extern const struct umdev_queue_type test_queue_type;

#endif
