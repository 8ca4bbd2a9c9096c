/* SPDX-License-Identifier: MIT */
/*
 * Little-endian numbers that cannot be mixed up with the machine's own. PCI, NVMe and virtio 1.x
 * registers and rings are little-endian.
 */
#ifndef UMDEV_ENDIAN_H
#define UMDEV_ENDIAN_H

#include <stdint.h>

typedef struct {
	uint16_t raw;
} le16;
typedef struct {
	uint32_t raw;
} le32;
typedef struct {
	uint64_t raw;
} le64;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define UMDEV_LE(bits, v) (v)
#else
#define UMDEV_LE(bits, v) __builtin_bswap##bits(v)
#endif

static inline uint16_t le16_get(le16 v)
{
	return UMDEV_LE(16, v.raw);
}
static inline uint32_t le32_get(le32 v)
{
	return UMDEV_LE(32, v.raw);
}
static inline uint64_t le64_get(le64 v)
{
	return UMDEV_LE(64, v.raw);
}
static inline le16 le16_set(uint16_t v)
{
	return (le16){ UMDEV_LE(16, v) };
}
static inline le32 le32_set(uint32_t v)
{
	return (le32){ UMDEV_LE(32, v) };
}
static inline le64 le64_set(uint64_t v)
{
	return (le64){ UMDEV_LE(64, v) };
}

#endif
