/* SPDX-License-Identifier: MIT */
/*
 * Zeros, quickly. A file that grows is zeros by itself. A device is zeroed by the kernel, which may
 * have the disk do it; what the disk made of it is read back, because a discard promises nothing
 * and some disks do not keep what they promise.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "store/store.h"

#define PIECE (1u << 20) /* read and written at once */
#define CHUNK                                                                              \
	(64u << 20) /* asked of the kernel at once: some tenths of a second, then progress \
		     */

static uint8_t piece[PIECE];

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int write_zeros(int fd, uint64_t at, uint64_t len)
{
	memset(piece, 0, sizeof(piece));
	while (len) {
		ssize_t n = pwrite(fd, piece, smaller(len, PIECE), (off_t)at);

		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? (uint64_t)n : 0;
		len -= n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* 1: all zeros, 0: not. */
static int check_zeros(int fd, uint64_t at, uint64_t len)
{
	posix_fadvise(fd, (off_t)at, (off_t)len, POSIX_FADV_DONTNEED);
	while (len) {
		ssize_t n = pread(fd, piece, smaller(len, PIECE), (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		if (!is_zero(piece, (size_t)n))
			return 0;
		at += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 1;
}

/* ---- devices ---- */

static int zero_out(int fd, bool block, uint64_t at, uint64_t len)
{
	uint64_t range[2] = { at, len };

	if (block ? ioctl(fd, BLKZEROOUT, range) == 0
		  : fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			      (off_t)len) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOTTY)
		return -errno;
	return write_zeros(fd, at, len);
}

static void discard(int fd, bool block, uint64_t at, uint64_t len)
{
	uint64_t range[2] = { at, len };

	if (block)
		ioctl(fd, BLKDISCARD, range);
	else
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len);
}

static int zero_chunk(const struct store_range *r, bool block, uint64_t at, uint64_t len)
{
	int error, zeros = 0;

	if (r->thin) {
		discard(r->fd, block, at, len);
		if (fdatasync(r->fd) < 0)
			return -errno;
		zeros = check_zeros(r->fd, at, len);
	}
	if (zeros)
		return zeros < 0 ? zeros : 0;
	error = zero_out(r->fd, block, at, len);
	if (!error && fdatasync(r->fd) < 0)
		error = -errno;
	if (error)
		return error;
	zeros = check_zeros(r->fd, at, len);
	return zeros == 1 ? 0 : zeros < 0 ? zeros : -EIO;
}

/* ---- files ---- */

static int allocate_chunk(int fd, uint64_t at, uint64_t len)
{
	if (fallocate(fd, 0, (off_t)at, (off_t)len) == 0)
		return 0;
	return errno == EOPNOTSUPP ? write_zeros(fd, at, len) : -errno;
}

/* What a growth that was killed left behind goes first. */
static int prepare_file(const struct store_range *r)
{
	if (ftruncate(r->fd, (off_t)r->from) < 0 || ftruncate(r->fd, (off_t)r->to) < 0)
		return -errno;
	return 0;
}

int bytes_make(const struct store_range *r)
{
	struct stat st;
	int error = fstat(r->fd, &st) < 0 ? -errno : 0;
	bool block = !error && S_ISBLK(st.st_mode);

	if (!error && !r->device)
		error = prepare_file(r);
	for (uint64_t at = r->from, len; at < r->to && !error; at += len) {
		len = smaller(r->to - at, CHUNK);
		if (r->device)
			error = zero_chunk(r, block, at, len);
		else if (!r->thin)
			error = allocate_chunk(r->fd, at, len);
		store_progress(at + len - r->from, r->to - r->from);
	}
	if (!error && fsync(r->fd) < 0)
		error = -errno;
	if (error && !r->device && ftruncate(r->fd, (off_t)r->from) < 0)
		return error; /* the next growth begins with it */
	return error;
}
