/* SPDX-License-Identifier: MIT */
/* One line per thread that explains the error in flight; and "did you mean". */
#include <stdio.h>
#include <string.h>
#include "base/err.h"

#define WORD_MAX 63 /* longer words have no near match */

static _Thread_local char line[ERR_TEXT];
static _Thread_local char name_buf[16];

void err_clear(void)
{
	line[0] = '\0';
}

int err_vset(int error, const char *format, va_list args)
{
	if (!line[0])
		vsnprintf(line, sizeof(line), format, args);
	return error;
}

int err_set(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	err_vset(error, format, args);
	va_end(args);
	return error;
}

const char *err_text(int error)
{
	const char *text;

	if (line[0])
		return line;
	text = strerrordesc_np(-error);
	return text ? text : "unknown error";
}

const char *err_name(int error)
{
	const char *name = strerrorname_np(-error);

	if (name)
		return name;
	snprintf(name_buf, sizeof(name_buf), "E%d", -error);
	return name_buf;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b; both at most WORD_MAX long. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned row[3][WORD_MAX + 1];
	unsigned *before = row[0], *above = row[1], *now = row[2], *free_row;

	for (unsigned j = 0; j <= b_len; j++)
		above[j] = j;
	for (unsigned i = 1; i <= a_len; i++) {
		now[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			unsigned differs = a[i - 1] != b[j - 1];

			now[j] = min3(above[j] + 1, now[j - 1] + 1, above[j - 1] + differs);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    before[j - 2] + 1 < now[j])
				now[j] = before[j - 2] + 1;
		}
		free_row = before;
		before = above;
		above = now;
		now = free_row;
	}
	return above[b_len];
}

const char *err_nearest(const char *word, const char *const *choices)
{
	size_t len = strlen(word);
	const char *best = NULL;
	/* A third of the letters may be wrong, and one of a short word. */
	unsigned limit = len < 6 ? 1 : (unsigned)len / 3;

	if (len == 0 || len > WORD_MAX)
		return NULL;
	for (; *choices; choices++) {
		size_t choice_len = strlen(*choices);
		unsigned d;

		if (choice_len > WORD_MAX)
			continue;
		d = distance(word, len, *choices, choice_len);
		if (d > limit && len >= 2 && strncmp(word, *choices, len) == 0)
			d = limit; /* the beginning of a choice */
		if (d <= limit && (!best || d < limit)) {
			best = *choices;
			limit = d;
		}
	}
	return best;
}
