/* SPDX-License-Identifier: MIT */
/*
 * Cursors for wire data, host byte order. A reader or writer that ran over its end is `bad` for
 * good and yields zeros: decode a whole struct, then ask once.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf_reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

struct buf_writer {
	uint8_t *start;
	size_t len, size;
	bool bad;
};

static inline struct buf_reader buf_read_from(const void *data, size_t len)
{
	return (struct buf_reader){ .at = data, .left = len };
}

static inline struct buf_writer buf_write_to(void *data, size_t size)
{
	return (struct buf_writer){ .start = data, .size = size };
}

/* Pointer to len bytes that were passed over, or NULL. */
static inline const void *buf_take(struct buf_reader *r, size_t len)
{
	const uint8_t *p = r->at;

	if (r->bad || len > r->left) {
		r->bad = true;
		return NULL;
	}
	r->at += len;
	r->left -= len;
	return p;
}

/* Pointer to len bytes to fill, or NULL. */
static inline void *buf_space(struct buf_writer *w, size_t len)
{
	uint8_t *p = w->start + w->len;

	if (w->bad || len > w->size - w->len) {
		w->bad = true;
		return NULL;
	}
	w->len += len;
	return p;
}

#define BUF_NUMBER(bits)                                                           \
	static inline uint##bits##_t buf_get_u##bits(struct buf_reader *r)         \
	{                                                                          \
		uint##bits##_t v = 0;                                              \
		const void *p = buf_take(r, sizeof(v));                            \
                                                                                   \
		if (p)                                                             \
			memcpy(&v, p, sizeof(v));                                  \
		return v;                                                          \
	}                                                                          \
	static inline void buf_put_u##bits(struct buf_writer *w, uint##bits##_t v) \
	{                                                                          \
		void *p = buf_space(w, sizeof(v));                                 \
                                                                                   \
		if (p)                                                             \
			memcpy(p, &v, sizeof(v));                                  \
	}
BUF_NUMBER(8)
BUF_NUMBER(16)
BUF_NUMBER(32)
BUF_NUMBER(64)
#undef BUF_NUMBER

static inline void buf_put_bytes(struct buf_writer *w, const void *data, size_t len)
{
	void *p = buf_space(w, len);

	if (p && len)
		memcpy(p, data, len);
}

/* Text as u16 length and bytes, no NUL. */
void buf_put_text(struct buf_writer *w, const char *text);
/* Copies into ret (NUL-terminated); bad when it does not fit or holds a NUL. */
void buf_get_text(struct buf_reader *r, char *ret, size_t size);

#endif
