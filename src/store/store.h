/* SPDX-License-Identifier: MIT */
/*
 * umdev-store: the slow work on volumes, one piece per process, for umdevd.
 *
 * Descriptor 3 is the directory of the records; in a store that is a directory the bytes lie there,
 * too. Descriptor 4 is a volume's bytes: a block device, or the open file of a volume that is
 * there.
 *
 *     NAME.making    a volume that is being made
 *     NAME.volume    a volume; what is written in it is umdevd's business
 *     NAME.deleting  a volume that is going; umdevd itself gives it that name
 *     NAME.raw       the bytes of one of these, in a directory
 *
 * One rename makes or unmakes a volume, so it is there or not, whatever is killed when: what is
 * behind the other two names is nobody's and is cleaned away. Bytes of a volume above its size are
 * zeros before its record tells of them.
 *
 * Every function returns 0 or -errno.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

enum { STORE_DIR_FD = 3, STORE_BYTES_FD = 4 };

/* ---- bytes.c ---- */

/* Bytes [from, to) of a volume come to be: they read as zeros, whatever was there. A file of a
 * directory becomes so long; a device (or a file that stands for one) has its own length. */
struct store_range {
	int fd;
	bool device, thin;
	uint64_t from, to;
};
int bytes_make(const struct store_range *range);

/* ---- record.c ---- */

int record_create(const char *name, bool device, bool thin, uint64_t size, const char *text);
int record_grow(const char *name, const struct store_range *range, const char *text);
int record_shrink(const char *name, bool device, uint64_t size, const char *text);
int record_delete(const char *name);
int record_clean(const char *name);

/* ---- sandbox.c ---- */

/* Nothing but the given descriptors and what is below the directory. */
int store_close_in(bool has_dir);

/* ---- main.c ---- */

void store_progress(uint64_t done, uint64_t all);

#endif
