/* SPDX-License-Identifier: MIT */
/* What the files of the parent half share. */
#ifndef TEST_PARENT_H
#define TEST_PARENT_H

#include <umdev/parent.h>

#define TEST_POOL_BYTES "bytes"
#define TEST_BYTES (1 << 20)

/* test_kinds.c: NULL-terminated */
extern const struct umdev_param *const test_kinds_params[];
extern const struct umdev_param *const test_needy_params[];
extern const struct umdev_param *const test_block_params[];
extern const struct umdev_param *const test_nvme_params[];
extern const struct umdev_param *const test_net_params[];
extern const struct umdev_param *const test_serial_params[];
extern const struct umdev_param *const test_display_params[];

#endif
