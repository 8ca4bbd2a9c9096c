// SPDX-License-Identifier: MIT
/*
 * One client of RFB 3.8 (RFC 6143), who may do anything. What it sends is looked at message by
 * message, each with a fixed bound; what is too long is passed over byte by byte, and never kept.
 * The screen is for looking: keys and pointer are read and forgotten.
 *
 * The picture is looked at only while the client waits for an update, 30 times a second at first
 * and less and less often while nothing changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <nettle/des.h>
#include <zlib.h>
#include "base/log.h"
#include "screen/screen.h"

#define SCAN_MS 33       /* between two looks, while things move ... */
#define SCAN_IDLE_MS 500 /* ... and while they do not */
#define HANDSHAKE_MS 10000
#define OUT_SIZE (RECT_MAX + RECT_MAX / 8 + 4096)
#define IN_SIZE 4096
#define CHALLENGE 16

/* What is legal; each is entered by the end of the one before it. */
enum viewer_state {
	VIEWER_VERSION,  /* 12 bytes */
	VIEWER_SECURITY, /* the kind, one byte (3.7 on) */
	VIEWER_PASSWORD, /* 16 bytes */
	VIEWER_INIT,     /* shared or not, one byte */
	VIEWER_RUNNING,  /* messages */
	VIEWER_DONE,     /* send what there is, then close */
};

enum { SECURITY_NONE = 1, SECURITY_VNC = 2 };
enum client_message {
	SET_PIXEL_FORMAT,
	SET_ENCODINGS = 2,
	UPDATE_REQUEST,
	KEY_EVENT,
	POINTER_EVENT,
	CUT_TEXT,
};
#define ENCODING_RAW 0
#define ENCODING_ZRLE 16
#define ENCODING_DESKTOP_SIZE (-223)

struct viewer {
	int fd, alive_fd;
	const struct screen_options *options;
	const char *password; /* NULL: none is asked for */
	enum viewer_state state;
	const char *why; /* its end, for the log; NULL: it left */
	unsigned minor;  /* of the protocol: 3, 7 or 8 */
	uint8_t challenge[CHALLENGE];
	struct frame frame;
	struct pixel_format format;
	bool zrle, resizes;     /* what it understands */
	uint32_t width, height; /* that it was told */
	uint64_t pass_over;     /* bytes of its message that are of no interest */
	uint32_t encodings;     /* of SET_ENCODINGS: so many to come */

	bool wants;        /* an update is owed ... */
	struct rect area;  /* ... of this */
	uint32_t row;      /* of the update being sent; frame.rows: none is */
	uint64_t scan_at;  /* ms: the next look */
	unsigned interval; /* ms */

	z_stream z;
	uint8_t in[IN_SIZE];
	size_t n_in;
	uint8_t *out, *tiles; /* owned */
	size_t n_out, sent;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void put(struct viewer *v, const void *data, size_t len)
{
	memcpy(v->out + v->n_out, data, len); /* OUT_SIZE has room for all that is put at once */
	v->n_out += len;
}

static void put8(struct viewer *v, unsigned n)
{
	v->out[v->n_out++] = (uint8_t)n;
}

static void put16(struct viewer *v, unsigned n)
{
	put8(v, n >> 8);
	put8(v, n);
}

static void put32(struct viewer *v, uint32_t n)
{
	put16(v, n >> 16);
	put16(v, n);
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void end(struct viewer *v, const char *why)
{
	v->state = VIEWER_DONE;
	v->why = why;
}

/* ---- handshake ---- */

static void put_text(struct viewer *v, const char *text)
{
	put32(v, (uint32_t)strlen(text));
	put(v, text, strlen(text));
}

static void take_version(struct viewer *v, const uint8_t *p)
{
	if (memcmp(p, "RFB 003.", 8) != 0 || p[11] != '\n') {
		end(v, "it speaks no RFB 3");
		return;
	}
	v->minor = memcmp(p + 8, "008", 3) == 0 ? 8 : memcmp(p + 8, "007", 3) == 0 ? 7 : 3;
	v->state = VIEWER_SECURITY;
	if (v->minor > 3) {
		put8(v, 1);
		put8(v, v->password ? SECURITY_VNC : SECURITY_NONE);
		return;
	}
	put32(v, v->password ? SECURITY_VNC : SECURITY_NONE);
	v->state = v->password ? VIEWER_PASSWORD : VIEWER_INIT;
	if (v->password)
		put(v, v->challenge, CHALLENGE);
}

static void take_security(struct viewer *v, const uint8_t *p)
{
	if (p[0] != (v->password ? SECURITY_VNC : SECURITY_NONE)) {
		end(v, "it chose a kind of security that was not offered");
		return;
	}
	if (v->password) {
		put(v, v->challenge, CHALLENGE);
		v->state = VIEWER_PASSWORD;
		return;
	}
	if (v->minor == 8)
		put32(v, 0);
	v->state = VIEWER_INIT;
}

static uint8_t mirror(uint8_t byte)
{
	uint8_t out = 0;

	for (unsigned i = 0; i < 8; i++)
		out |= (uint8_t)((byte >> i & 1) << (7 - i));
	return out;
}

/* DES, with the bits of the key in VNC's order. Compared in constant time. */
static bool knows_password(const struct viewer *v, const uint8_t *answer)
{
	uint8_t key[SCREEN_PASSWORD], wanted[CHALLENGE], differ = 0;
	struct des_ctx des;

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = mirror((uint8_t)v->password[i]);
	des_set_key(&des, key);
	des_encrypt(&des, CHALLENGE, wanted, v->challenge);
	for (unsigned i = 0; i < CHALLENGE; i++)
		differ |= wanted[i] ^ answer[i];
	return !differ;
}

static void take_password(struct viewer *v, const uint8_t *p)
{
	bool ok = knows_password(v, p);

	put32(v, !ok);
	if (ok) {
		v->state = VIEWER_INIT;
		return;
	}
	if (v->minor == 8)
		put_text(v, "wrong password");
	end(v, "wrong password");
}

static void put_format(struct viewer *v)
{
	const struct pixel_format *p = &v->format;

	put8(v, p->bits);
	put8(v, p->depth);
	put8(v, p->big_endian);
	put8(v, 1); /* true colour */
	for (unsigned i = 0; i < 3; i++)
		put16(v, p->max[i]);
	put(v, p->shift, 3);
	put(v, "\0\0", 3);
}

static void take_init(struct viewer *v)
{
	if (frame_scan(&v->frame) < 0) {
		end(v, "no memory for the picture");
		return;
	}
	v->width = v->frame.width;
	v->height = v->frame.height;
	v->row = v->frame.rows;
	put16(v, v->width);
	put16(v, v->height);
	put_format(v);
	put_text(v, v->options->name);
	v->state = VIEWER_RUNNING;
}

/* ---- messages ---- */

static void take_format(struct viewer *v, const uint8_t *p)
{
	struct pixel_format f = { .bits = p[0], .depth = p[1], .big_endian = p[2] };

	for (unsigned i = 0; i < 3; i++) {
		f.max[i] = (uint16_t)get16(p + 4 + 2 * i);
		f.shift[i] = p[10 + i];
		if (f.shift[i] >= f.bits || !f.max[i] ||
		    (uint64_t)f.max[i] << f.shift[i] >> f.bits) {
			end(v, "it asked for pixels that cannot be");
			return;
		}
	}
	if ((f.bits != 8 && f.bits != 16 && f.bits != 32) || !p[3]) {
		end(v, "it asked for pixels that are not true colours of 8, 16 or 32 bits");
		return;
	}
	v->format = f;
	if (v->frame.width)
		frame_touch(&v->frame, 0, 0, v->frame.width, v->frame.height);
}

static void take_encoding(struct viewer *v, const uint8_t *p)
{
	int32_t encoding = (int32_t)get32(p);

	v->zrle |= encoding == ENCODING_ZRLE;
	v->resizes |= encoding == ENCODING_DESKTOP_SIZE;
}

static void take_request(struct viewer *v, const uint8_t *p)
{
	struct rect r = { get16(p + 1), get16(p + 3), get16(p + 5), get16(p + 7) };

	v->wants = true;
	v->area = r;
	v->interval = SCAN_MS;
	if (!p[0]) {
		frame_touch(&v->frame, r.x, r.y, r.w, r.h);
		v->scan_at = 0;
	}
}

/* Bytes of the message that begins at p with `have` of them; 0: more are needed to tell, or it is
 * not complete. Its tail that nobody reads is passed over. */
static size_t take_message(struct viewer *v, const uint8_t *p, size_t have)
{
	static const uint8_t lengths[] = {
		[SET_PIXEL_FORMAT] = 20, [SET_ENCODINGS] = 4, [UPDATE_REQUEST] = 10,
		[KEY_EVENT] = 8,         [POINTER_EVENT] = 6, [CUT_TEXT] = 8,
	};
	size_t len = p[0] < sizeof(lengths) ? lengths[p[0]] : 0;

	if (!len) {
		end(v, "it sent a message that does not exist");
		return 0;
	}
	if (have < len)
		return 0;
	switch (p[0]) {
	case SET_PIXEL_FORMAT:
		take_format(v, p + 4);
		break;
	case SET_ENCODINGS:
		v->encodings = get16(p + 2);
		v->zrle = v->resizes = false;
		break;
	case UPDATE_REQUEST:
		take_request(v, p + 1);
		break;
	case CUT_TEXT:
		v->pass_over = get32(p + 4);
		break;
	default:
		break;
	}
	return len;
}

/* One piece of what came. Bytes that are done with; 0: no piece is complete. */
static size_t take_piece(struct viewer *v, const uint8_t *p, size_t have)
{
	static const uint8_t lengths[] = {
		[VIEWER_VERSION] = 12,
		[VIEWER_SECURITY] = 1,
		[VIEWER_PASSWORD] = CHALLENGE,
		[VIEWER_INIT] = 1,
	};

	if (v->pass_over) {
		size_t n = have < v->pass_over ? have : (size_t)v->pass_over;

		v->pass_over -= n;
		return n;
	}
	if (v->state == VIEWER_RUNNING) {
		if (!v->encodings)
			return have ? take_message(v, p, have) : 0;
		if (have < 4)
			return 0;
		v->encodings--;
		take_encoding(v, p);
		return 4;
	}
	if (v->state == VIEWER_DONE || have < lengths[v->state])
		return 0;
	have = lengths[v->state];
	if (v->state == VIEWER_VERSION)
		take_version(v, p);
	else if (v->state == VIEWER_SECURITY)
		take_security(v, p);
	else if (v->state == VIEWER_PASSWORD)
		take_password(v, p);
	else
		take_init(v);
	return have;
}

/* What came, as long as what it leads to has room: answers are not piled up. */
static void take_input(struct viewer *v)
{
	size_t at = 0, n;

	while (v->state != VIEWER_DONE && v->n_out < IN_SIZE) {
		n = take_piece(v, v->in + at, v->n_in - at);
		if (!n)
			break;
		at += n;
	}
	memmove(v->in, v->in + at, v->n_in - at);
	v->n_in -= at;
}

/* ---- updates ---- */

static bool overlaps(const struct viewer *v, uint32_t col, uint32_t row)
{
	uint32_t x = col * SCREEN_TILE, y = row * SCREEN_TILE;

	return x < v->area.x + v->area.w && v->area.x < x + SCREEN_TILE &&
	       y < v->area.y + v->area.h && v->area.y < y + SCREEN_TILE && x < v->width &&
	       y < v->height;
}

/* The next run of dirty tiles in a row, from *col on. */
static bool next_run(const struct viewer *v, uint32_t row, uint32_t *col, uint32_t *ret_n)
{
	const uint8_t *dirty = v->frame.dirty + (size_t)row * v->frame.cols;

	while (*col < v->frame.cols && !(dirty[*col] && overlaps(v, *col, row)))
		++*col;
	for (*ret_n = 0; *col + *ret_n < v->frame.cols; ++*ret_n)
		if (!dirty[*col + *ret_n] || !overlaps(v, *col + *ret_n, row))
			break;
	return *ret_n > 0;
}

static unsigned count_runs(const struct viewer *v)
{
	unsigned n = 0;
	uint32_t len;

	for (uint32_t row = 0; row < v->frame.rows; row++)
		for (uint32_t col = 0; next_run(v, row, &col, &len); col += len)
			n++;
	return n;
}

static void put_rect_header(struct viewer *v, const struct rect *r, int32_t encoding)
{
	put16(v, r->x);
	put16(v, r->y);
	put16(v, r->w);
	put16(v, r->h);
	put32(v, (uint32_t)encoding);
}

static void put_zrle(struct viewer *v, const struct rect *r)
{
	size_t length_at = v->n_out;

	put32(v, 0);
	v->z.next_in = v->tiles;
	v->z.avail_in = (uInt)encode_tiles(&v->frame, &v->format, r, v->tiles);
	v->z.next_out = v->out + v->n_out;
	v->z.avail_out = (uInt)(OUT_SIZE - v->n_out);
	if (deflate(&v->z, Z_SYNC_FLUSH) != Z_OK || v->z.avail_in) {
		end(v, "its picture could not be compressed");
		return;
	}
	v->n_out = OUT_SIZE - v->z.avail_out;
	for (unsigned i = 0; i < 4; i++)
		v->out[length_at + i] = (uint8_t)((v->n_out - length_at - 4) >> (24 - 8 * i));
}

static void put_run(struct viewer *v, uint32_t row, uint32_t col, uint32_t n)
{
	struct rect r = { col * SCREEN_TILE, row * SCREEN_TILE, n * SCREEN_TILE, SCREEN_TILE };

	/* Within what the client was told: the picture may have grown since. */
	r.w = r.x + r.w > v->width ? v->width - r.x : r.w;
	r.h = r.y + r.h > v->height ? v->height - r.y : r.h;
	memset(v->frame.dirty + (size_t)row * v->frame.cols + col, 0, n);
	put_rect_header(v, &r, v->zrle ? ENCODING_ZRLE : ENCODING_RAW);
	if (v->zrle)
		put_zrle(v, &r);
	else
		v->n_out += encode_raw(&v->frame, &v->format, &r, v->out + v->n_out);
}

/* The rest of an update, a row of tiles at a time: as much as one client may hold of our memory. */
static void go_on(struct viewer *v)
{
	uint32_t n;

	for (uint32_t col = 0; v->state == VIEWER_RUNNING && next_run(v, v->row, &col, &n);
	     col += n)
		put_run(v, v->row, col, n);
	v->row++;
}

static void begin_update(struct viewer *v, unsigned n_rects)
{
	put8(v, 0);
	put8(v, 0);
	put16(v, n_rects);
	v->wants = false;
}

static void tell_size(struct viewer *v)
{
	struct rect r = { 0, 0, v->frame.width, v->frame.height };

	begin_update(v, 1);
	put_rect_header(v, &r, ENCODING_DESKTOP_SIZE);
	v->width = r.w;
	v->height = r.h;
	v->row = v->frame.rows;
}

static void look(struct viewer *v)
{
	int news = frame_scan(&v->frame);
	unsigned n;

	if (news < 0) {
		end(v, "no memory for the picture");
		return;
	}
	v->interval = news != FRAME_SAME               ? SCAN_MS
		      : 2 * v->interval < SCAN_IDLE_MS ? 2 * v->interval
						       : SCAN_IDLE_MS;
	v->scan_at = now_ms() + v->interval;
	v->row = v->frame.rows;
	if (v->resizes && (v->frame.width != v->width || v->frame.height != v->height)) {
		tell_size(v);
		return;
	}
	n = count_runs(v);
	if (n) {
		begin_update(v, n);
		v->row = 0;
	}
}

/* ---- the loop ---- */

/* False: it is gone. */
static bool receive(struct viewer *v)
{
	ssize_t n = read(v->fd, v->in + v->n_in, IN_SIZE - v->n_in);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		return false;
	v->n_in += n > 0 ? (size_t)n : 0;
	return true;
}

static bool flush(struct viewer *v)
{
	ssize_t n = write(v->fd, v->out + v->sent, v->n_out - v->sent);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	v->sent += n > 0 ? (size_t)n : 0;
	if (v->sent == v->n_out)
		v->sent = v->n_out = 0;
	return true;
}

/* Fills the empty output: an update that has begun, or a look when it is time. */
static void produce(struct viewer *v)
{
	if (v->state != VIEWER_RUNNING || v->n_out)
		return;
	if (v->row < v->frame.rows)
		go_on(v);
	else if (v->wants && now_ms() >= v->scan_at)
		look(v);
}

/* ms to sleep; -1: until something happens. */
static int patience(const struct viewer *v, uint64_t deadline)
{
	uint64_t now = now_ms();

	if (v->state != VIEWER_RUNNING)
		return deadline > now ? (int)(deadline - now) : 0;
	if (v->n_out || !v->wants)
		return v->n_out || v->row == v->frame.rows ? -1 : 0;
	return v->row < v->frame.rows || v->scan_at <= now ? 0 : (int)(v->scan_at - now);
}

/* False: over. */
static bool round_of(struct viewer *v, uint64_t deadline)
{
	struct pollfd fds[] = { { .fd = v->fd }, { .fd = v->alive_fd } };

	if (v->state == VIEWER_DONE && !v->n_out)
		return false;
	if (v->n_in < IN_SIZE && v->state != VIEWER_DONE)
		fds[0].events |= POLLIN;
	if (v->n_out)
		fds[0].events |= POLLOUT;
	if (poll(fds, 2, patience(v, deadline)) < 0 && errno != EINTR)
		return false;
	if (fds[1].revents || (v->state != VIEWER_RUNNING && now_ms() >= deadline))
		return false;
	if (fds[0].revents & ~POLLOUT && !receive(v))
		return false;
	take_input(v);
	produce(v);
	return !v->n_out || flush(v);
}

int viewer_run(int fd, int alive_fd, const struct screen_options *options, const char *password)
{
	struct viewer *v = calloc(1, sizeof(*v));
	uint64_t deadline = now_ms() + HANDSHAKE_MS;

	if (!v || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return 1;
	v->fd = fd;
	v->alive_fd = alive_fd;
	v->options = options;
	v->password = password;
	v->format = (struct pixel_format)PIXEL_FORMAT_OURS;
	v->interval = SCAN_MS;
	v->out = malloc(OUT_SIZE);
	v->tiles = malloc(OUT_SIZE);
	if (!v->out || !v->tiles || deflateInit(&v->z, 1) != Z_OK || frame_open(&v->frame) < 0 ||
	    getrandom(v->challenge, sizeof(v->challenge), 0) != sizeof(v->challenge))
		return 1;
	if (sandbox_viewer() < 0)
		return 1;
	put(v, "RFB 003.008\n", 12);
	while (round_of(v, deadline))
		;
	if (v->why)
		log_warning("%s: a viewer was sent away: %s", options->name, v->why);
	return 0;
}
