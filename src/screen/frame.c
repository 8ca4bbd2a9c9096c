// SPDX-License-Identifier: MIT
/*
 * The picture. There is no telling which of the mapped memory a guest has written: it is compared,
 * tile by tile, with the copy, when somebody wants to know.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "screen/screen.h"

#define TRIES 64 /* of a page that is being written: some stores take no time */

static int map(int fd, uint64_t *ret_len, const void **ret)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return -errno;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret_len = (uint64_t)st.st_size;
	*ret = p;
	return 0;
}

int frame_open(struct frame *f)
{
	const void *video, *mode;
	uint64_t mode_len;
	int r;

	*f = (struct frame){ 0 };
	r = map(SCREEN_FD_VIDEO, &f->video_len, &video);
	if (r == 0)
		r = map(SCREEN_FD_MODE, &mode_len, &mode);
	if (r < 0)
		return r;
	if (mode_len < sizeof(*f->mode))
		return -EINVAL;
	f->video = video;
	f->mode = mode;
	return 0;
}

/* A worker that a guest took over may write anything here: every number is judged. */
static bool is_possible(const struct frame *f, const struct umdev_screen *s)
{
	uint64_t last;

	if (s->magic != UMDEV_SCREEN_MAGIC || !s->width || !s->height || s->width > SCREEN_MAX ||
	    s->height > SCREEN_MAX || s->stride / 4 < s->width || s->offset % 4 || s->stride % 4)
		return false;
	last = (uint64_t)s->stride * (s->height - 1) + s->width * 4ull;
	return last <= f->video_len && s->offset <= f->video_len - last;
}

/* False: nothing is shown, or what is written there makes no sense. */
static bool read_mode(const struct frame *f, struct umdev_screen *ret)
{
	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t turn = __atomic_load_n(&f->mode->turn, __ATOMIC_ACQUIRE);

		memcpy(ret, (const void *)f->mode, sizeof(*ret));
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (!(turn & 1) && turn == __atomic_load_n(&f->mode->turn, __ATOMIC_RELAXED))
			return is_possible(f, ret);
	}
	return false;
}

static int resize(struct frame *f, uint32_t width, uint32_t height)
{
	uint32_t cols = (width + SCREEN_TILE - 1) / SCREEN_TILE;
	uint32_t rows = (height + SCREEN_TILE - 1) / SCREEN_TILE;
	uint32_t *pixels = calloc((size_t)width * height, sizeof(*pixels));
	uint8_t *dirty = malloc((size_t)cols * rows);

	if (!pixels || !dirty) {
		free(pixels);
		free(dirty);
		return -ENOMEM;
	}
	free(f->pixels);
	free(f->dirty);
	f->pixels = pixels;
	f->dirty = dirty;
	f->width = width;
	f->height = height;
	f->cols = cols;
	f->rows = rows;
	memset(dirty, 1, (size_t)cols * rows);
	return 0;
}

/* One line of pixels; from NULL: black. */
static bool scan_line(struct frame *f, uint32_t y, const uint8_t *from)
{
	uint32_t *to = f->pixels + (size_t)y * f->width;
	uint8_t *dirty = f->dirty + (size_t)(y / SCREEN_TILE) * f->cols;
	static const uint32_t black[SCREEN_TILE];
	bool changed = false;

	for (uint32_t x = 0; x < f->width; x += SCREEN_TILE) {
		size_t n = f->width - x < SCREEN_TILE ? f->width - x : SCREEN_TILE;
		const void *now = from ? from + 4ull * x : (const void *)black;

		if (memcmp(to + x, now, n * 4) == 0)
			continue;
		memcpy(to + x, now, n * 4);
		dirty[x / SCREEN_TILE] = 1;
		changed = true;
	}
	return changed;
}

int frame_scan(struct frame *f)
{
	struct umdev_screen mode;
	bool is_on = read_mode(f, &mode), changed = false, resized = false;
	int r;

	/* A dark screen keeps its size, so that a window does not jump while a guest starts. */
	if (!f->width || (is_on && (mode.width != f->width || mode.height != f->height))) {
		r = resize(f, is_on ? mode.width : 640, is_on ? mode.height : 480);
		if (r < 0)
			return r;
		resized = true;
	}
	if (is_on && mode.big_endian != f->big_endian) {
		f->big_endian = mode.big_endian;
		frame_touch(f, 0, 0, f->width, f->height);
		changed = true;
	}
	for (uint32_t y = 0; y < f->height; y++)
		changed |= scan_line(
			f, y, is_on ? f->video + mode.offset + (uint64_t)y * mode.stride : NULL);
	return resized ? FRAME_RESIZED : changed ? FRAME_CHANGED : FRAME_SAME;
}

void frame_touch(struct frame *f, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	for (uint32_t row = y / SCREEN_TILE; row < f->rows && row * SCREEN_TILE < y + h; row++)
		for (uint32_t col = x / SCREEN_TILE; col < f->cols && col * SCREEN_TILE < x + w;
		     col++)
			f->dirty[row * f->cols + col] = 1;
}
