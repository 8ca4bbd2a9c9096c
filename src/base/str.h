/* SPDX-License-Identifier: MIT */
/* Small text helpers. Parsers accept exactly what they document, whole input or nothing. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kernel kstrtoull, base 0: decimal, 0x, 0 octal, optional '+', one optional trailing newline.
 * 0 / -EINVAL / -ERANGE. `text` need not be NUL-terminated. */
int str_to_u64(const char *text, size_t len, uint64_t *ret);
/* As above with an optional suffix K M G T (powers of 1024, either case, optional "iB" or "B"). */
int str_to_size(const char *text, size_t len, uint64_t *ret);
/* printf into a bounded buffer; returns the length (as if cut off), never more than size - 1. */
size_t str_format(char *buf, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* [a-z0-9-]+, starts with a letter or digit, at most 63 bytes: names of parents and volumes. */
bool str_is_name(const char *text);
/* Printable UTF-8 or ASCII without control characters. */
bool str_is_clean(const char *text, size_t len);

/* strdup/asprintf that return NULL on ENOMEM only. */
char *str_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
