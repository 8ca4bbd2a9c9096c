/* SPDX-License-Identifier: MIT */
/* Text helpers: numbers as the kernel reads them, names, clean text. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/str.h"

/* 0..15, or 16 for what is no digit of any base. */
static unsigned digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

/* The leading number of text. Returns the bytes it takes, -EINVAL or -ERANGE. */
static int parse_number(const char *text, size_t len, uint64_t *ret)
{
	size_t at = len && text[0] == '+', first;
	unsigned base = 10;
	uint64_t v = 0;

	if (len - at > 1 && text[at] == '0') {
		base = 8;
		if (len - at > 2 && (text[at + 1] | 0x20) == 'x' &&
		    digit_value(text[at + 2]) < 16) {
			base = 16;
			at += 2;
		}
	}
	for (first = at; at < len && digit_value(text[at]) < base; at++)
		if (__builtin_mul_overflow(v, base, &v) ||
		    __builtin_add_overflow(v, digit_value(text[at]), &v))
			return -ERANGE;
	if (at == first)
		return -EINVAL;
	*ret = v;
	return (int)at;
}

static bool is_end(const char *text, size_t len, size_t at)
{
	return at == len || (at + 1 == len && text[at] == '\n');
}

int str_to_u64(const char *text, size_t len, uint64_t *ret)
{
	uint64_t v;
	int n = parse_number(text, len, &v);

	if (n < 0)
		return n;
	if (!is_end(text, len, (size_t)n))
		return -EINVAL;
	*ret = v;
	return 0;
}

int str_to_size(const char *text, size_t len, uint64_t *ret)
{
	static const char suffixes[] = "kmgt";
	const char *suffix = NULL;
	unsigned shift = 0;
	uint64_t v;
	size_t at;
	int n = parse_number(text, len, &v);

	if (n < 0)
		return n;
	at = (size_t)n;
	if (at < len && text[at])
		suffix = strchr(suffixes, text[at] | 0x20);
	if (suffix) {
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		at++;
		if (len - at >= 2 && memcmp(text + at, "iB", 2) == 0)
			at += 2;
		else if (at < len && text[at] == 'B')
			at++;
	}
	if (!is_end(text, len, at))
		return -EINVAL;
	if (v > UINT64_MAX >> shift)
		return -ERANGE;
	*ret = v << shift;
	return 0;
}

size_t str_format(char *buf, size_t size, const char *format, ...)
{
	va_list args;
	int n;

	if (!size)
		return 0;
	va_start(args, format);
	n = vsnprintf(buf, size, format, args);
	va_end(args);
	if (n < 0) {
		buf[0] = '\0';
		return 0;
	}
	return (size_t)n < size ? (size_t)n : size - 1;
}

bool str_is_name(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && len <= 63 && text[0] != '-' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

/* Bytes of the well-formed UTF-8 character at s that is no control character, or 0. */
static size_t clean_char(const unsigned char *s, size_t len)
{
	static const uint32_t smallest[] = { 0, 0, 0xa0, 0x800, 0x10000 };
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	uint32_t c;

	if (n == 1)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (s[0] < 0xc2 || s[0] > 0xf4 || n > len)
		return 0;
	c = s[0] & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	/* Too long a form, C1 controls, surrogates, beyond Unicode. */
	if (c < smallest[n] || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
		return 0;
	return n;
}

bool str_is_clean(const char *text, size_t len)
{
	for (size_t at = 0, n; at < len; at += n) {
		n = clean_char((const unsigned char *)text + at, len - at);
		if (!n)
			return false;
	}
	return true;
}

char *str_printf(const char *format, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	return n < 0 ? NULL : text;
}
