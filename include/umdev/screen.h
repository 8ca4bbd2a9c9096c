/* SPDX-License-Identifier: MIT */
/*
 * What a display shows, for those who look at it (umdev-screen): a page of shared memory beside the
 * video memory. The device half writes it, others read; both memories belong to one guest, and a
 * reader believes nothing: it copies, checks that `turn` is even and did not move, and judges.
 */
#ifndef UMDEV_SCREEN_H
#define UMDEV_SCREEN_H

#include <stdint.h>

#define UMDEV_SCREEN_MAGIC 0x6e726373 /* "scrn" */

/* Resources (umdev/parent.h) of a device that can be looked at. */
#define UMDEV_SCREEN_VIDEO "bar0" /* its video memory */
#define UMDEV_SCREEN_MODE "mode"  /* struct umdev_screen */

struct umdev_screen {
	uint32_t magic;
	uint32_t turn;          /* odd: being written */
	uint32_t width, height; /* pixels; 0: nothing is shown */
	uint32_t stride;        /* bytes from line to line */
	uint32_t big_endian;    /* of pixels: 4 bytes, x r g b; else b g r x */
	uint64_t offset;        /* of the first pixel in the video memory */
};

#endif
