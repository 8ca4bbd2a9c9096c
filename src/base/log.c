/* SPDX-License-Identifier: MIT */
/* Log lines. The level and the program's name are the only global state of src/base. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"

#define LINE_MAX_BYTES 1023

static const char *program_name = "umdev";
static enum log_level max_level = LOG_INFO;
static bool is_journal;

void log_init(const char *program, enum log_level level)
{
	program_name = program;
	max_level = level;
	is_journal = getenv("JOURNAL_STREAM") != NULL;
}

enum log_level log_level(void)
{
	return max_level;
}

/* Copies text with control characters as \xNN; returns the length, at most size. */
static size_t escape(char *out, size_t size, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		bool is_control = *c < 0x20 || *c == 0x7f;
		size_t need = is_control ? 4 : 1;

		if (need > size - n)
			break;
		if (is_control) {
			out[n++] = '\\';
			out[n++] = 'x';
			out[n++] = hex[*c >> 4];
			out[n++] = hex[*c & 15];
		} else {
			out[n++] = (char)*c;
		}
	}
	return n;
}

void log_line(enum log_level level, const char *format, ...)
{
	/* syslog's err, warning, info, debug */
	static const char *const prefix[] = { "<3>", "<4>", "<6>", "<7>" };
	char text[LINE_MAX_BYTES], line[LINE_MAX_BYTES + 1];
	va_list args;
	size_t n;

	if (level > max_level)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	n = (size_t)snprintf(line, 64, "%s%.32s: ", is_journal ? prefix[level] : "", program_name);
	n += escape(line + n, LINE_MAX_BYTES - 1 - n, text);
	line[n++] = '\n';
	/* Nobody is left to tell when standard error is gone. */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}
