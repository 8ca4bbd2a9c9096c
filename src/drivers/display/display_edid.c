// SPDX-License-Identifier: MIT
/*
 * An EDID 1.4 block (VESA E-EDID, release A2) of a digital monitor with one detailed timing: the
 * size it prefers, with reduced blanking as in CVT 1.2.
 */
#include "display_model.h"

#define HBLANK 160 /* pixels: 48 front, 32 sync, 80 back */
#define HFRONT 48
#define HSYNC 32
#define VFRONT 3 /* lines */
#define VSYNC 6
#define VBACK 20
#define VBLANK (VFRONT + VSYNC + VBACK)
#define DPI 96

enum edid {
	EDID_VENDOR = 8,
	EDID_PRODUCT = 10,
	EDID_YEAR = 17,
	EDID_VERSION = 18,
	EDID_INPUT = 20,
	EDID_SIZE = 21, /* cm */
	EDID_GAMMA = 23,
	EDID_FEATURES = 24,
	EDID_COLOURS = 25,
	EDID_ESTABLISHED = 35,
	EDID_STANDARD = 38,
	EDID_TIMING = 54, /* four descriptors of 18 bytes */
	EDID_CHECKSUM = 127,
};
#define DESCRIPTOR 18
#define YEAR_2026 (2026 - 1990)
#define INPUT_DIGITAL_8BIT 0xa0
#define FEATURES_RGB_PREFERRED 0x06 /* sRGB, and the first timing is the native one */

/* sRGB primaries and white, 10 bits each, as the standard packs them. */
static const uint8_t srgb[10] = { 0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54 };

static unsigned mm_of(unsigned pixels)
{
	return pixels * 254 / (DPI * 10);
}

/* 60 frames a second, or 30 where 16 bits of 10 kHz do not hold the clock. */
static unsigned clock_10khz(unsigned width, unsigned height)
{
	unsigned clock = (width + HBLANK) * (height + VBLANK) / 1000 * 6;

	return clock > UINT16_MAX ? clock / 2 : clock;
}

static void put_timing(uint8_t *d, unsigned width, unsigned height)
{
	unsigned clock = clock_10khz(width, height), w_mm = mm_of(width), h_mm = mm_of(height);

	d[0] = (uint8_t)clock;
	d[1] = (uint8_t)(clock >> 8);
	d[2] = (uint8_t)width;
	d[3] = HBLANK;
	d[4] = (uint8_t)(width >> 8 << 4);
	d[5] = (uint8_t)height;
	d[6] = VBLANK;
	d[7] = (uint8_t)(height >> 8 << 4);
	d[8] = HFRONT;
	d[9] = HSYNC;
	d[10] = VFRONT << 4 | VSYNC;
	d[12] = (uint8_t)w_mm;
	d[13] = (uint8_t)h_mm;
	d[14] = (uint8_t)(w_mm >> 8 << 4 | h_mm >> 8);
	d[17] = 0x1a; /* separate syncs, horizontal positive, vertical negative */
}

static void put_text(uint8_t *d, uint8_t kind, const char *text)
{
	unsigned i = 0;

	d[3] = kind;
	for (; text[i] && i < 12; i++)
		d[5 + i] = (uint8_t)text[i];
	d[5 + i++] = '\n';
	for (; i < 13; i++)
		d[5 + i] = ' ';
}

void display_edid(uint8_t ret[DISPLAY_EDID_LEN], unsigned width, unsigned height)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < DISPLAY_EDID_LEN; i++)
		ret[i] = i > 0 && i < 7 ? 0xff : 0;
	ret[EDID_VENDOR] = ('U' - '@') << 2 | ('M' - '@') >> 3;
	ret[EDID_VENDOR + 1] = (uint8_t)(('M' - '@') << 5 | ('D' - '@'));
	ret[EDID_PRODUCT] = 1;
	ret[EDID_YEAR] = YEAR_2026;
	ret[EDID_VERSION] = 1;
	ret[EDID_VERSION + 1] = 4;
	ret[EDID_INPUT] = INPUT_DIGITAL_8BIT;
	ret[EDID_SIZE] = (uint8_t)(mm_of(width) / 10);
	ret[EDID_SIZE + 1] = (uint8_t)(mm_of(height) / 10);
	ret[EDID_GAMMA] = 120; /* 2.2 */
	ret[EDID_FEATURES] = FEATURES_RGB_PREFERRED;
	for (unsigned i = 0; i < sizeof(srgb); i++)
		ret[EDID_COLOURS + i] = srgb[i];
	ret[EDID_ESTABLISHED] = 0x20; /* 640 x 480, 60 Hz */
	for (unsigned i = 0; i < 16; i++)
		ret[EDID_STANDARD + i] = 1; /* unused */
	put_timing(ret + EDID_TIMING, width, height);
	put_text(ret + EDID_TIMING + DESCRIPTOR, 0xfc, "umdev screen");
	put_text(ret + EDID_TIMING + 2 * DESCRIPTOR, 0xff, "1");
	ret[EDID_TIMING + 3 * DESCRIPTOR + 3] = 0x10; /* a descriptor that says nothing */
	for (unsigned i = 0; i < EDID_CHECKSUM; i++)
		sum = (uint8_t)(sum + ret[i]);
	ret[EDID_CHECKSUM] = (uint8_t)-sum;
}
