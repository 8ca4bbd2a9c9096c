/* SPDX-License-Identifier: MIT */
/* UUIDs in the kernel's text form. */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_TEXT 37 /* 36 characters and a NUL */

struct uuid {
	uint8_t b[16];
};

/* The first 36 bytes of text: hex of either case, '-' at 8, 13, 18, 23. 0 / -EINVAL. The nil UUID
 * is a UUID. Nothing behind byte 36 is looked at. */
int uuid_parse(const char *text, size_t len, struct uuid *ret);
void uuid_format(const struct uuid *uuid, char ret[UUID_TEXT]); /* lower case */
int uuid_random(struct uuid *ret);                              /* version 4; 0 / -errno */
bool uuid_equal(const struct uuid *a, const struct uuid *b);

#endif
