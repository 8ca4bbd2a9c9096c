/* SPDX-License-Identifier: MIT */
/* What the files of the parent half share. */
#ifndef DISK_PARENT_H
#define DISK_PARENT_H

#include <stdbool.h>
#include <stdint.h>
#include <umdev/parent.h>
#include "disk.h"

#define DISK_POOL "queue-pairs"
#define DISK_MAX_SIZE (1ull << 60) /* what offsets of files and blocks of 512 hold easily */

/* ---- disk_params.c ---- */

extern const struct umdev_type disk_types[];
/* What the tables of parameters cannot say. 0 / -EINVAL (explained) */
int disk_judge_param(const struct umdev_param *param, const struct umdev_value *value);
int disk_judge_params(const struct umdev_mdev *mdev);
int disk_judge_size(const char *what, uint64_t size);

#endif
