/* SPDX-License-Identifier: MIT */
/* Arithmetic on numbers that came from outside. `a + b > c` is forbidden elsewhere. */
#ifndef BASE_RANGE_H
#define BASE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

/* Is [start, start + len) inside [0, size)? len 0 is inside when start <= size. */
static inline bool range_fits(uint64_t start, uint64_t len, uint64_t size)
{
	return start <= size && len <= size - start;
}

/* Does [start, start + len) end without wrapping past 2^64 - 1? (An end of exactly 2^64 is fine.)
 */
static inline bool range_is_sane(uint64_t start, uint64_t len)
{
	return len == 0 || start <= UINT64_MAX - (len - 1);
}

/* Do two sane, non-empty ranges share a byte? */
static inline bool range_overlaps(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return alen && blen && a <= b + (blen - 1) && b <= a + (alen - 1);
}

/* Is [in, in + inlen) inside [out, out + outlen)? Sane ranges. */
static inline bool range_contains(uint64_t out, uint64_t outlen, uint64_t in, uint64_t inlen)
{
	return in >= out && range_fits(in - out, inlen, outlen);
}

#endif
