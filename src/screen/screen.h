/* SPDX-License-Identifier: MIT */
/*
 * umdev-screen: shows the screen of one display by VNC (RFB 3.8, RFC 6143), as long as the display
 * is served.
 *
 *   keeper  accepts, and clones a viewer for each client
 *   viewer  speaks with one client and reads the video memory, which it cannot write; a sandbox of
 *           its own. A client that breaks it has broken its own connection.
 *
 * No part of it speaks with the manager or the worker. It ends when the worker does: `alive` is the
 * read end of a pipe whose write end the worker holds.
 */
#ifndef SCREEN_SCREEN_H
#define SCREEN_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/screen.h>

/* Descriptors it is started with. */
enum screen_fd {
	SCREEN_FD_VIDEO = 3,
	SCREEN_FD_MODE,
	SCREEN_FD_ALIVE,
	SCREEN_FD_LISTEN,   /* UNIX socket: who may open it may look */
	SCREEN_FD_TCP,      /* with --tcp: loopback ... */
	SCREEN_FD_PASSWORD, /* ... and the password that it asks for */
};

#define SCREEN_VIEWERS 16 /* at once */
#define SCREEN_PASSWORD 8 /* bytes that VNC looks at */
#define SCREEN_MAX 4096   /* pixels in either direction */
#define SCREEN_TILE 64    /* pixels; what is compared and sent at once */

struct screen_options {
	const char *name; /* of the display, for the window's title */
	bool tcp;
	char password[SCREEN_PASSWORD]; /* padded with zeros */
};

/* ---- frame.c: the picture ---- */

/* A copy of what is shown, and which tiles of it changed since a viewer was told. */
struct frame {
	const uint8_t *video; /* mapped, read-only */
	uint64_t video_len;
	const struct umdev_screen *mode; /* mapped, read-only */
	uint32_t width, height;          /* of the copy */
	uint32_t big_endian;
	uint32_t *pixels; /* width * height, as the guest wrote them; owned */
	uint32_t cols, rows;
	uint8_t *dirty; /* cols * rows; owned */
};

/* 0 / -errno. */
int frame_open(struct frame *f);
enum frame_news { FRAME_SAME, FRAME_CHANGED, FRAME_RESIZED };
/* Looks at the memory. -ENOMEM. */
int frame_scan(struct frame *f);
void frame_touch(struct frame *f, uint32_t x, uint32_t y, uint32_t w, uint32_t h); /* all dirty */
/* 0xRRGGBB. Outside of the picture: black. */
static inline uint32_t frame_pixel(const struct frame *f, uint32_t x, uint32_t y)
{
	uint32_t p;

	if (x >= f->width || y >= f->height)
		return 0;
	p = f->pixels[(size_t)y * f->width + x];
	return f->big_endian ? __builtin_bswap32(p) & 0xffffff : p & 0xffffff;
}

/* ---- encode.c: rectangles as bytes ---- */

struct pixel_format {
	uint8_t bits; /* of a pixel: 8, 16 or 32 */
	uint8_t depth;
	bool big_endian;
	uint16_t max[3]; /* of red, green, blue */
	uint8_t shift[3];
};

struct rect {
	uint32_t x, y, w, h;
};

#define PIXEL_FORMAT_OURS                         \
	{                                         \
		32, 24, false, { 255, 255, 255 }, \
		{                                 \
			16, 8, 0                  \
		}                                 \
	}
#define RECT_MAX (SCREEN_MAX * SCREEN_TILE * 4) /* bytes of the largest rectangle, raw */

/* Both write at most RECT_MAX + RECT_MAX / 8 bytes to out and return how many. */
size_t encode_raw(const struct frame *f, const struct pixel_format *p, const struct rect *r,
		  uint8_t *out);
/* ZRLE before its compression: tiles of one colour, of few, or of pixels. */
size_t encode_tiles(const struct frame *f, const struct pixel_format *p, const struct rect *r,
		    uint8_t *out);

/* ---- viewer.c ---- */

/* Serves one client until it leaves or `alive` hangs up; returns the exit status. password: NULL:
 * none is asked for. */
int viewer_run(int fd, int alive_fd, const struct screen_options *options, const char *password);

/* ---- sandbox.c ---- */

/* Before anything of a stranger is read. 0 / -errno. */
int sandbox_keeper(void);
int sandbox_viewer(void);

#endif
