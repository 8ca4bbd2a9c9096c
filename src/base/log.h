/* SPDX-License-Identifier: MIT */
/*
 * Log lines on standard error: "<level>umdevd: text" (with systemd's level prefix when
 * $JOURNAL_STREAM is set), one write(2) per line, at most 1023 bytes, control characters escaped.
 * Log where the fact is known and the action ends; base, wire, tree, dma never above debug.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level {
	LOG_ERROR,   /* something does not work and somebody must act */
	LOG_WARNING, /* an outsider misbehaved, or we go on with less */
	LOG_INFO,    /* the life of devices */
	LOG_DEBUG,
};

void log_init(const char *program, enum log_level level); /* program: borrowed for ever */
enum log_level log_level(void);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
