/* SPDX-License-Identifier: MIT */
#ifndef TEST_BLK_H
#define TEST_BLK_H

#include <umdev/device.h>
#include <umdev/vfio.h>

struct test_blk_state {
	uint64_t sq, cq;
	uint32_t entries, vector;
	uint32_t tail, head, done, error, change;
};

extern const struct umdev_device_ops test_blk_ops;
extern const struct umdev_pci test_blk_pci;

#endif
