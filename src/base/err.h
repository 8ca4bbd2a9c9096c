/* SPDX-License-Identifier: MIT */
/*
 * Errors for people. A function returns -errno to the program; the place that knows why also
 * leaves one line ("the thing, the rule, the way out") here, where the front door (FUSE logs it,
 * the control socket sends it) picks it up. One line per operation: the first one set after
 * err_clear() stays, because it is nearest to the cause.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>

#define ERR_TEXT 512

void err_clear(void);
/* Remember the line unless one is set already; returns `error` (a -errno) for `return
 * err_set(...)`. */
int err_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
int err_vset(int error, const char *format, va_list args);
/* The line, or strerror of `error` when none was left. Valid until the next call of any err_*. */
const char *err_text(int error);
/* "EBUSY", "ENOENT" ...; "E<number>" for one we do not know. */
const char *err_name(int error);

/* The entry of `choices` (NULL-terminated) most like `word`, or NULL when nothing is near. */
const char *err_nearest(const char *word, const char *const *choices);

#endif
