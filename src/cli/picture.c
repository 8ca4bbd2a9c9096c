/* SPDX-License-Identifier: MIT */
#include "cli/picture.h"
#include <errno.h>
#include <poll.h>
#include <png.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/sock.h"

#define PATIENCE_MS 10000
#define MAX_SIDE 16384
#define HALF_BLOCK "\xe2\x96\x80" /* the upper half, in the foreground's colour */

/* ---- the least of RFB 3.8 that asks for one picture ---- */

static int take(int fd, void *to, size_t len)
{
	while (len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n = poll(&p, 1, PATIENCE_MS) == 1 ? recv(fd, to, len, 0) : -1;

		if (n <= 0)
			return n == 0 ? -ECONNRESET : -ETIMEDOUT;
		to = (uint8_t *)to + n;
		len -= (size_t)n;
	}
	return 0;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)(p[0] << 8 | p[1]);
}

/* Passes over what has no interest. */
static int skip(int fd, size_t len)
{
	uint8_t rest[256];

	while (len) {
		size_t n = len < sizeof(rest) ? len : sizeof(rest);
		int r = take(fd, rest, n);

		if (r < 0)
			return r;
		len -= n;
	}
	return 0;
}

static int greet(int fd, struct picture *p)
{
	uint8_t head[32];
	int r = take(fd, head, 12);

	if (r < 0 || memcmp(head, "RFB 003.", 8) != 0)
		return r < 0 ? r : -EPROTO;
	/* Version, no security, shared: there is nothing to choose. */
	r = sock_write_all(fd, "RFB 003.008\n\1\1", 14);
	if (r == 0)
		r = take(fd, head, 2);
	if (r == 0 && (head[0] != 1 || head[1] != 1))
		return -EPROTO;
	if (r == 0)
		r = take(fd, head, 4); /* the result: welcome */
	if (r == 0)
		r = take(fd, head, 24);
	if (r < 0)
		return r;
	p->width = get16(head);
	p->height = get16(head + 2);
	return skip(fd, (size_t)get16(head + 20) << 16 | get16(head + 22)); /* the name */
}

/* Pixels as we keep them, in the order of this machine's bytes; Raw; all of the screen. */
static int ask(int fd, const struct picture *p)
{
	const bool big = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
	const uint8_t words[] = {
		0,
		0,
		0,
		0,
		32,
		24,
		big,
		1,
		0,
		255,
		0,
		255,
		0,
		255,
		16,
		8,
		0,
		0,
		0,
		0, /* format */
		2,
		0,
		0,
		1,
		0,
		0,
		0,
		0, /* encodings */
		3,
		0,
		0,
		0,
		0,
		0,
		(uint8_t)(p->width >> 8),
		(uint8_t)p->width,
		(uint8_t)(p->height >> 8),
		(uint8_t)p->height,
	};

	return sock_write_all(fd, words, sizeof(words));
}

static int take_rect(int fd, struct picture *p)
{
	uint8_t head[12];
	unsigned x, y, w, h;
	int r = take(fd, head, sizeof(head));

	if (r < 0)
		return r;
	x = get16(head);
	y = get16(head + 2);
	w = get16(head + 4);
	h = get16(head + 6);
	if (x + w > p->width || y + h > p->height || get16(head + 8) || get16(head + 10))
		return -EPROTO;
	for (unsigned i = 0; i < h && r == 0; i++)
		r = take(fd, p->pixels + (size_t)(y + i) * p->width + x, w * 4ul);
	return r;
}

static int take_picture(int fd, struct picture *p)
{
	uint8_t head[4];
	int r = take(fd, head, sizeof(head));

	if (r == 0 && head[0] != 0)
		r = -EPROTO;
	for (unsigned i = 0, n = get16(head + 2); r == 0 && i < n; i++)
		r = take_rect(fd, p);
	return r;
}

int picture_fetch(const char *socket_path, struct picture *ret)
{
	_cleanup_close_ int fd = sock_connect(socket_path);
	struct picture p = { 0 };
	int r = fd < 0 ? fd : greet(fd, &p);

	if (r < 0)
		return r;
	if (!p.width || !p.height || p.width > MAX_SIDE || p.height > MAX_SIDE)
		return -EPROTO;
	p.pixels = calloc((size_t)p.width * p.height, sizeof(*p.pixels));
	if (!p.pixels)
		return -ENOMEM;
	r = ask(fd, &p);
	if (r == 0)
		r = take_picture(fd, &p);
	if (r < 0)
		picture_free(&p);
	else
		*ret = p;
	return r;
}

void picture_free(struct picture *p)
{
	free(p->pixels);
	p->pixels = NULL;
}

/* ---- PNG ---- */

int picture_write_png(const struct picture *p, FILE *file)
{
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
	png_infop info = png ? png_create_info_struct(png) : NULL;

	if (!info || setjmp(png_jmpbuf(png))) {
		png_destroy_write_struct(&png, &info);
		return -EIO;
	}
	png_init_io(png, file);
	png_set_IHDR(png, info, p->width, p->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_set_compression_level(png, 1); /* consoles are flat: more costs time and wins little */
	png_set_filter(png, 0, PNG_FILTER_NONE);
	png_write_info(png, info);
	png_set_bgr(png);
	png_set_filler(png, 0, PNG_FILLER_AFTER);
	for (uint32_t y = 0; y < p->height; y++)
		png_write_row(png, (png_const_bytep)(p->pixels + (size_t)y * p->width));
	png_write_end(png, NULL);
	png_destroy_write_struct(&png, &info);
	return fflush(file) == 0 ? 0 : -EIO;
}

/* ---- terminals ---- */

/* The mean of the pixels that one of a w x h copy stands for. */
static uint32_t sample(const struct picture *p, unsigned w, unsigned h, unsigned x, unsigned y)
{
	uint32_t x0 = (uint32_t)((uint64_t)x * p->width / w);
	uint32_t x1 = (uint32_t)((uint64_t)(x + 1) * p->width / w);
	uint32_t y0 = (uint32_t)((uint64_t)y * p->height / h);
	uint32_t y1 = (uint32_t)((uint64_t)(y + 1) * p->height / h);
	uint64_t red = 0, green = 0, blue = 0, n;

	x1 = x1 > x0 ? x1 : x0 + 1;
	y1 = y1 > y0 ? y1 : y0 + 1;
	for (uint32_t j = y0; j < y1; j++) {
		for (uint32_t i = x0; i < x1; i++) {
			uint32_t rgb = p->pixels[(size_t)j * p->width + i];

			red += rgb >> 16 & 0xff;
			green += rgb >> 8 & 0xff;
			blue += rgb & 0xff;
		}
	}
	n = (uint64_t)(x1 - x0) * (y1 - y0);
	return (uint32_t)(red / n << 16 | green / n << 8 | blue / n);
}

static void fit(const struct picture *p, unsigned max_w, unsigned max_h, unsigned *w, unsigned *h)
{
	*w = max_w < p->width ? max_w : p->width;
	*h = (unsigned)((uint64_t)p->height * *w / p->width);
	if (*h > max_h) {
		*h = max_h;
		*w = (unsigned)((uint64_t)p->width * *h / p->height);
	}
	*w = *w ? *w : 1;
	*h = *h ? *h : 1;
}

void picture_print_blocks(const struct picture *p, unsigned columns, unsigned rows, FILE *out)
{
	unsigned w, h;

	fit(p, columns, 2 * rows, &w, &h);
	for (unsigned y = 0; y < h; y += 2) {
		for (unsigned x = 0; x < w; x++) {
			uint32_t up = sample(p, w, h, x, y);
			uint32_t down = y + 1 < h ? sample(p, w, h, x, y + 1) : 0;

			fprintf(out, "\033[38;2;%u;%u;%um\033[48;2;%u;%u;%um" HALF_BLOCK,
				up >> 16 & 255, up >> 8 & 255, up & 255, down >> 16 & 255,
				down >> 8 & 255, down & 255);
		}
		fputs("\033[0m\n", out);
	}
}

#define LEVELS 6 /* of each colour: 216 registers, which every sixel terminal has */

static unsigned sixel_colour(uint32_t rgb)
{
	unsigned index = 0;

	for (int shift = 16; shift >= 0; shift -= 8)
		index = index * LEVELS + ((rgb >> shift & 255) * (LEVELS - 1) + 127) / 255;
	return index;
}

static void put_palette(FILE *out)
{
	for (unsigned i = 0; i < LEVELS * LEVELS * LEVELS; i++)
		fprintf(out, "#%u;2;%u;%u;%u", i, i / LEVELS / LEVELS * 100 / (LEVELS - 1),
			i / LEVELS % LEVELS * 100 / (LEVELS - 1), i % LEVELS * 100 / (LEVELS - 1));
}

/* Six rows: for each colour in them, which of the six pixels of each column have it. */
static void put_band(const uint8_t *band, unsigned w, unsigned rows, FILE *out)
{
	for (unsigned colour = 0; colour < LEVELS * LEVELS * LEVELS; colour++) {
		if (!memchr(band, (int)colour, (size_t)w * rows))
			continue;
		fprintf(out, "#%u", colour);
		for (unsigned x = 0; x < w; x++) {
			unsigned bits = 0;

			for (unsigned row = 0; row < rows; row++)
				bits |= (unsigned)(band[row * w + x] == colour) << row;
			fputc('?' + (int)bits, out);
		}
		fputc('$', out);
	}
	fputc('-', out);
}

int picture_print_sixels(const struct picture *p, unsigned max_width, FILE *out)
{
	_cleanup_free_ uint8_t *band = NULL;
	unsigned w, h;

	fit(p, max_width, MAX_SIDE, &w, &h);
	band = malloc(6ul * w);
	if (!band)
		return -ENOMEM;
	fputs("\033Pq", out);
	put_palette(out);
	for (unsigned y = 0; y < h; y += 6) {
		unsigned rows = h - y < 6 ? h - y : 6;

		for (unsigned i = 0; i < rows * w; i++)
			band[i] = (uint8_t)sixel_colour(sample(p, w, h, i % w, y + i / w));
		put_band(band, w, rows, out);
	}
	fputs("\033\\\n", out);
	return 0;
}
