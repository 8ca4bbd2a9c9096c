/* SPDX-License-Identifier: MIT */
/*
 * Registers of a bochs-style display, as stock Linux drives it (bochs-drm): the DISPI registers of
 * the Bochs VBE extension, what remains of a VGA card, an extension for the byte order, an EDID.
 */
#ifndef DISPLAY_MODEL_H
#define DISPLAY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Layout of the register BAR. */
#define DISPLAY_EDID 0x000 /* 1 KiB, the EDID and zeros */
#define DISPLAY_EDID_LEN 128
#define DISPLAY_VGA 0x400   /* I/O ports 3c0 to 3df */
#define DISPLAY_DISPI 0x500 /* one 16-bit register each, by index */
#define DISPLAY_QEXT 0x600  /* size of the extension, byte order */
#define DISPLAY_REGISTERS 0x1000

enum display_dispi {
	DISPI_ID,
	DISPI_XRES,
	DISPI_YRES,
	DISPI_BPP,
	DISPI_ENABLE,
	DISPI_BANK,
	DISPI_VIRT_WIDTH,
	DISPI_VIRT_HEIGHT,
	DISPI_X_OFFSET,
	DISPI_Y_OFFSET,
	DISPI_MEMORY, /* video memory, in units of 64 KiB */
	DISPI_REGISTERS,
};

enum display_enable {
	DISPI_ENABLED = 1 << 0,
	DISPI_GETCAPS = 1 << 1, /* sizes read as the largest possible */
	DISPI_8BIT_DAC = 1 << 5,
	DISPI_LFB = 1 << 6,
	DISPI_NOCLEAR = 1 << 7,
};

#define DISPLAY_MIN 64   /* pixels, in both directions */
#define DISPLAY_MAX 4080 /* the same; what 12 bits of an EDID hold, in whole units of 16 */

/* Portable and small: it is copied with every access. */
struct display_model {
	uint16_t dispi[DISPI_REGISTERS];
	uint8_t is_data;  /* the attribute port takes an index, then a value */
	uint8_t is_shown; /* bit 5 of that index: the screen is not blank */
	uint8_t big_endian;
	uint8_t refused_bpp; /* of the last mode that we do not have; 0: none since it was asked */
};

/* What is on the screen, judged: everything lies inside the video memory. */
struct display_mode {
	uint32_t width, height; /* pixels of 4 bytes, XRGB; 0: nothing is shown */
	uint32_t stride;        /* bytes from line to line */
	uint32_t big_endian;
	uint64_t offset; /* of the first pixel */
};

void display_reset(struct display_model *m);
/* An access inside the BAR; len 1, 2, 4 or 8, aligned. vram: bytes of video memory. */
uint64_t display_read(const struct display_model *m, uint64_t vram, const uint8_t *edid,
		      uint64_t offset, unsigned len);
/* Reading port 3da changes the attribute port. */
void display_read_effect(struct display_model *m, uint64_t offset, unsigned len);
void display_write(struct display_model *m, uint64_t offset, unsigned len, uint64_t value);
void display_mode(const struct display_model *m, uint64_t vram, struct display_mode *ret);

/* display_edid.c: a monitor that prefers width x height, both in DISPLAY_MIN .. DISPLAY_MAX. */
void display_edid(uint8_t ret[DISPLAY_EDID_LEN], unsigned width, unsigned height);

#endif
