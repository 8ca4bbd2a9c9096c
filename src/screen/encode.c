// SPDX-License-Identifier: MIT
/* Rectangles in the encodings Raw and ZRLE (RFC 6143, 7.7.1 and 7.7.6), without compression. */
#include <string.h>
#include "screen/screen.h"

#define PALETTE 16 /* colours of a packed tile */
enum tile_kind { TILE_RAW, TILE_SOLID };

static uint32_t convert(const struct pixel_format *p, uint32_t rgb)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t c = rgb >> (16 - 8 * i) & 0xff;

		value |= (c * p->max[i] + 127) / 255 << p->shift[i];
	}
	return value;
}

static uint8_t *put(uint8_t *out, const struct pixel_format *p, uint32_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		*out++ = (uint8_t)(value >> 8 * (p->big_endian ? bytes - 1 - i : i));
	return out;
}

static bool is_ours(const struct pixel_format *p)
{
	static const struct pixel_format ours = PIXEL_FORMAT_OURS;

	return p->bits == ours.bits && !p->big_endian &&
	       memcmp(p->max, ours.max, sizeof(ours.max)) == 0 &&
	       memcmp(p->shift, ours.shift, sizeof(ours.shift)) == 0;
}

size_t encode_raw(const struct frame *f, const struct pixel_format *p, const struct rect *r,
		  uint8_t *out)
{
	bool as_is = is_ours(p) && !f->big_endian && r->x + r->w <= f->width &&
		     r->y + r->h <= f->height;
	uint8_t *start = out;

	for (uint32_t y = r->y; y < r->y + r->h; y++) {
		if (as_is) {
			memcpy(out, f->pixels + (size_t)y * f->width + r->x, r->w * 4ull);
			out += r->w * 4ull;
			continue;
		}
		for (uint32_t x = r->x; x < r->x + r->w; x++)
			out = put(out, p, convert(p, frame_pixel(f, x, y)), p->bits / 8);
	}
	return (size_t)(out - start);
}

/* A CPIXEL: of 32 bits with 24 that matter, the three bytes that hold them. */
static uint8_t *put_cpixel(uint8_t *out, const struct pixel_format *p, uint32_t value)
{
	uint32_t used = 0;

	if (p->bits != 32 || p->depth > 24)
		return put(out, p, value, p->bits / 8);
	for (unsigned i = 0; i < 3; i++)
		used |= (uint32_t)p->max[i] << p->shift[i];
	if (!(used >> 24))
		return put(out, p, value, 3);
	return used & 0xff ? put(out, p, value, 4) : put(out, p, value >> 8, 3);
}

struct palette {
	uint32_t colour[PALETTE];
	unsigned n; /* PALETTE + 1: too many */
};

static unsigned index_of(const struct palette *palette, uint32_t rgb)
{
	unsigned i = 0;

	while (i < palette->n && palette->colour[i] != rgb)
		i++;
	return i;
}

static void count_colours(const struct frame *f, const struct rect *t, struct palette *ret)
{
	ret->n = 0;
	for (uint32_t y = t->y; y < t->y + t->h; y++) {
		for (uint32_t x = t->x; x < t->x + t->w; x++) {
			uint32_t rgb = frame_pixel(f, x, y);
			unsigned i = index_of(ret, rgb);

			if (i < ret->n)
				continue;
			if (ret->n == PALETTE) {
				ret->n = PALETTE + 1;
				return;
			}
			ret->colour[ret->n++] = rgb;
		}
	}
}

/* Indices of 1, 2 or 4 bits; each line begins with a byte. */
static uint8_t *put_packed(uint8_t *out, const struct frame *f, const struct rect *t,
			   const struct palette *palette)
{
	unsigned bits = palette->n <= 2 ? 1 : palette->n <= 4 ? 2 : 4;

	for (uint32_t y = t->y; y < t->y + t->h; y++) {
		unsigned byte = 0, filled = 0;

		for (uint32_t x = t->x; x < t->x + t->w; x++) {
			byte = byte << bits | index_of(palette, frame_pixel(f, x, y));
			filled += bits;
			if (filled == 8) {
				*out++ = (uint8_t)byte;
				byte = filled = 0;
			}
		}
		if (filled)
			*out++ = (uint8_t)(byte << (8 - filled));
	}
	return out;
}

static uint8_t *put_tile(uint8_t *out, const struct frame *f, const struct pixel_format *p,
			 const struct rect *t)
{
	struct palette palette;

	count_colours(f, t, &palette);
	if (palette.n <= PALETTE) {
		*out++ = palette.n == 1 ? TILE_SOLID : (uint8_t)palette.n;
		for (unsigned i = 0; i < palette.n; i++)
			out = put_cpixel(out, p, convert(p, palette.colour[i]));
		return palette.n == 1 ? out : put_packed(out, f, t, &palette);
	}
	*out++ = TILE_RAW;
	for (uint32_t y = t->y; y < t->y + t->h; y++)
		for (uint32_t x = t->x; x < t->x + t->w; x++)
			out = put_cpixel(out, p, convert(p, frame_pixel(f, x, y)));
	return out;
}

size_t encode_tiles(const struct frame *f, const struct pixel_format *p, const struct rect *r,
		    uint8_t *out)
{
	uint8_t *start = out;

	for (uint32_t y = r->y; y < r->y + r->h; y += SCREEN_TILE) {
		for (uint32_t x = r->x; x < r->x + r->w; x += SCREEN_TILE) {
			struct rect t = { x, y, r->x + r->w - x, r->y + r->h - y };

			t.w = t.w < SCREEN_TILE ? t.w : SCREEN_TILE;
			t.h = t.h < SCREEN_TILE ? t.h : SCREEN_TILE;
			out = put_tile(out, f, p, &t);
		}
	}
	return (size_t)(out - start);
}
