/* SPDX-License-Identifier: MIT */
/* A picture of a display's screen: fetched by VNC, written as PNG or drawn in a terminal. */
#ifndef CLI_PICTURE_H
#define CLI_PICTURE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct picture {
	uint32_t width, height;
	uint32_t *pixels; /* 0x??RRGGBB, row by row; owned */
};

/* From umdev-screen's socket. 0; -EPROTO: what answers is no screen; -errno. */
int picture_fetch(const char *socket_path, struct picture *ret);
void picture_free(struct picture *p);
int picture_write_png(const struct picture *p, FILE *file); /* 0 / -EIO */

/* In at most so many columns and rows of characters: two pixels in each, one above the other. */
void picture_print_blocks(const struct picture *p, unsigned columns, unsigned rows, FILE *out);
/* For terminals that know sixels; at most max_width pixels wide. */
int picture_print_sixels(const struct picture *p, unsigned max_width, FILE *out); /* 0 / -ENOMEM */

#endif
