/* SPDX-License-Identifier: MIT */
/*
 * The number that a driver and the programs that load it must have in common.
 *
 * It is raised with every change of what these headers declare: there is no stable ABI yet, a
 * driver is built anew for each release. A file that has another number is refused, and the refusal
 * names both. The build compares the headers with what had the number before (tools/check-abi).
 */
#ifndef UMDEV_ABI_H
#define UMDEV_ABI_H

#define UMDEV_ABI 13

/* The two symbols that are looked up in a driver's file: see parent.h and device.h. */
#define UMDEV_SYMBOL __attribute__((visibility("default")))

#endif
