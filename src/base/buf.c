/* SPDX-License-Identifier: MIT */
/* Text on the wire: u16 length, bytes, no NUL. */
#include "base/buf.h"

void buf_put_text(struct buf_writer *w, const char *text)
{
	size_t len = strlen(text);

	if (len > UINT16_MAX) {
		w->bad = true;
		return;
	}
	buf_put_u16(w, (uint16_t)len);
	buf_put_bytes(w, text, len);
}

void buf_get_text(struct buf_reader *r, char *ret, size_t size)
{
	size_t len = buf_get_u16(r);
	const char *p = buf_take(r, len);

	ret[0] = '\0';
	if (!p)
		return;
	if (len >= size || memchr(p, '\0', len)) {
		r->bad = true;
		return;
	}
	memcpy(ret, p, len);
	ret[len] = '\0';
}
