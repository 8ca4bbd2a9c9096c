/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of the driver `disk` agree on.
 *
 * A device is a controller in front of media. Each medium is a resource with UMDEV_RES_MEDIUM named
 * DISK_MEDIUM_FORMAT with the number of its namespace, 1 to DISK_MAX_NAMESPACES; numbers may be
 * missing. Its `length` is the size of the volume, a multiple of DISK_SIZE_STEP and so of every
 * block size. One without UMDEV_RES_WRITE is read-only. Media come, go and change their length
 * while the device is served (`resource` in umdev/device.h).
 */
#ifndef DISK_H
#define DISK_H

#define DISK_MAX_NAMESPACES 8 /* UMDEV_MAX_MEDIA */
#define DISK_MEDIUM_FORMAT "ns%u"
#define DISK_SIZE_STEP 4096
#define DISK_MAX_QUEUE_PAIRS 64 /* I/O queue pairs of one controller: its aggregation */

/* Choices of the parameter doorbells, by index. */
enum disk_doorbells { DISK_DOORBELLS_TRAPPED, DISK_DOORBELLS_MAPPED };

struct umdev_device_driver;
struct umdev_parent_driver;
extern const struct umdev_device_driver disk_device_driver;
extern const struct umdev_parent_driver disk_parent_driver;

#endif
