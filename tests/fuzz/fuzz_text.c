/* SPDX-License-Identifier: MIT */
/*
 * Parsers of text that people and programs write: numbers against strtoull, sizes against numbers,
 * UUIDs against their own text, clean text against a decoder written from the table of RFC 3629,
 * wire text against its bytes. Input: one text.
 */
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_SIZE 256

static void require(bool condition)
{
	if (!condition)
		abort();
}

/* Newer C libraries read 0b101 as binary. */
static bool is_binary(const char *text)
{
	text += *text == '+';
	return text[0] == '0' && (text[1] | 0x20) == 'b';
}

/* strtoull takes blanks and signs that the kernel's parser does not; else they must agree. */
static void check_number(const char *text, size_t len)
{
	unsigned long long want;
	uint64_t got = 1;
	char *end;
	int r = str_to_u64(text, len, &got);

	errno = 0;
	want = strtoull(text, &end, 0);
	if (isspace((unsigned char)text[0]) || text[0] == '-' || strncmp(text, "+-", 2) == 0 ||
	    is_binary(text)) {
		require(r == -EINVAL);
	} else if (r == 0) {
		require(got == want && errno == 0);
		require((size_t)(end - text) == len || strcmp(end, "\n") == 0);
	} else if (r == -ERANGE) {
		require(errno == ERANGE);
	} else {
		require(r == -EINVAL && (end == text || (*end && strcmp(end, "\n") != 0)));
	}
}

/* What is a number is the same number of bytes. */
static void check_size(const char *text, size_t len)
{
	uint64_t number, bytes;

	if (str_to_u64(text, len, &number) == 0)
		require(str_to_size(text, len, &bytes) == 0 && bytes == number);
	else if (str_to_size(text, len, &bytes) == 0)
		require(bytes % 1024 == 0);
}

static void check_uuid(const char *text, size_t len)
{
	struct uuid uuid, again;
	char canonical[UUID_TEXT];

	if (uuid_parse(text, len, &uuid) < 0)
		return;
	uuid_format(&uuid, canonical);
	require(strncasecmp(canonical, text, UUID_TEXT - 1) == 0);
	require(uuid_parse(canonical, UUID_TEXT - 1, &again) == 0 && uuid_equal(&uuid, &again));
}

/* Length of the well-formed UTF-8 sequence at s, which has `left` bytes; 0: none. */
static size_t utf8(const uint8_t *s, size_t left)
{
	static const struct {
		uint8_t first_min, first_max, second_min, second_max;
		size_t len;
	} rows[] = {
		{ 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
		{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 },
		{ 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
		{ 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	if (s[0] < 0x80)
		return 1;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (s[0] < rows[i].first_min || s[0] > rows[i].first_max || left < rows[i].len)
			continue;
		if (s[1] < rows[i].second_min || s[1] > rows[i].second_max)
			return 0;
		for (size_t j = 2; j < rows[i].len; j++)
			if (s[j] < 0x80 || s[j] > 0xbf)
				return 0;
		return rows[i].len;
	}
	return 0;
}

static bool is_control(const uint8_t *s)
{
	return s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
}

static void check_clean(const char *text, size_t len)
{
	const uint8_t *s = (const uint8_t *)text;
	bool clean = true;

	for (size_t at = 0, n; at < len && clean; at += n) {
		n = utf8(s + at, len - at);
		clean = n > 0 && !is_control(s + at);
	}
	require(str_is_clean(text, len) == clean);
}

static void check_wire(const char *text)
{
	uint8_t wire[TEXT_SIZE + 2];
	char got[TEXT_SIZE];
	struct buf_writer w = buf_write_to(wire, sizeof(wire));
	struct buf_reader r;

	buf_put_text(&w, text);
	require(!w.bad);
	r = buf_read_from(wire, w.len);
	buf_get_text(&r, got, sizeof(got));
	require(!r.bad && !r.left && strcmp(got, text) == 0);
}

/* A word is nearest to itself. */
static void check_nearest(const char *text)
{
	const char *const choices[] = { "create", text, "remove", NULL };
	const char *near = err_nearest(text, choices);

	require(*text && strlen(text) < 64 ? near && strcmp(near, text) == 0 : !near);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[TEXT_SIZE];
	size_t len = size < sizeof(text) ? size : sizeof(text) - 1;

	memcpy(text, data, len);
	text[len] = '\0';
	check_clean(text, len);
	check_uuid(text, len);
	len = strlen(text); /* the rest compares with functions of C strings */
	check_number(text, len);
	check_size(text, len);
	check_wire(text);
	check_nearest(text);
	return 0;
}
