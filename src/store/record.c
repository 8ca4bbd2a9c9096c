/* SPDX-License-Identifier: MIT */
/*
 * Volumes come, change and go: store.h has the names and the rule.
 *
 * Several umdevd may share a directory. Whoever changes something there shares the lock of the
 * directory; whoever cleans has it alone: what is half-made then is nobody's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "store/store.h"

#define DIR STORE_DIR_FD

/* NAME + suffix; name is one of a volume. */
#define FILE_NAME(buf, name, suffix) \
	char buf[NAME_MAX + 1];      \
	snprintf(buf, sizeof(buf), "%s%s", name, suffix)

static int lock_dir(int how)
{
	/* A description of its own: the one we were given is everybody's. */
	int fd = openat(DIR, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (flock(fd, how) < 0)
		if (errno != EINTR)
			return -errno;
	return 0; /* held until this process ends */
}

static int sync_dir(void)
{
	return fsync(DIR) < 0 ? -errno : 0;
}

static int write_text(const char *file, int flags, const char *text)
{
	_cleanup_close_ int fd = openat(DIR, file, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
	size_t len = strlen(text);

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len)
		return errno ? -errno : -EIO;
	return fsync(fd) < 0 ? -errno : 0;
}

/* The record becomes another one, at once. */
static int replace(const char *name, const char *text)
{
	FILE_NAME(tmp, name, ".new");
	FILE_NAME(file, name, ".volume");
	int error = write_text(tmp, O_TRUNC, text);

	if (!error && renameat(DIR, tmp, DIR, file) < 0)
		error = -errno;
	return error ? error : sync_dir();
}

static int remove_file(const char *file)
{
	return unlinkat(DIR, file, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* Nobody serves it; kept until this process ends. fd < 0: it has no bytes any more. */
static int lock_bytes(int fd)
{
	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return 0;
}

/* ---- create ---- */

static int create_bytes(const char *name, struct store_range *range)
{
	FILE_NAME(raw, name, ".raw");

	range->fd = STORE_BYTES_FD;
	if (!range->device)
		range->fd = openat(DIR, raw, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (range->fd < 0)
		return -errno;
	return range->device ? lock_bytes(range->fd) : 0;
}

/* The volume is there, and stays; or it is still being made. */
static int sync_made(const char *file, const char *making)
{
	int error = sync_dir();

	if (error)
		renameat(DIR, file, DIR, making);
	return error;
}

static void undo_create(const char *name, const struct store_range *range)
{
	FILE_NAME(raw, name, ".raw");
	FILE_NAME(making, name, ".making");

	/* A file that was there before us is somebody's. */
	if (!range->device && range->fd >= 0)
		remove_file(raw);
	remove_file(making);
}

int record_create(const char *name, bool device, bool thin, uint64_t size, const char *text)
{
	struct store_range range = { .fd = -1, .device = device, .thin = thin, .to = size };
	FILE_NAME(making, name, ".making");
	FILE_NAME(file, name, ".volume");
	int error = lock_dir(LOCK_SH);

	if (!error && faccessat(DIR, file, F_OK, 0) == 0)
		error = -EEXIST;
	if (!error)
		error = write_text(making, O_EXCL, text);
	if (error)
		return error;
	error = sync_dir();
	if (!error)
		error = create_bytes(name, &range);
	if (!error)
		error = bytes_make(&range);
	if (!error && renameat2(DIR, making, DIR, file, RENAME_NOREPLACE) < 0)
		error = -errno;
	else if (!error)
		error = sync_made(file, making);
	if (error)
		undo_create(name, &range);
	return error;
}

/* ---- change ---- */

int record_grow(const char *name, const struct store_range *range, const char *text)
{
	int error = lock_dir(LOCK_SH);

	if (!error)
		error = bytes_make(range);
	return error ? error : replace(name, text);
}

int record_shrink(const char *name, bool device, uint64_t size, const char *text)
{
	int error = lock_dir(LOCK_SH);

	if (!error)
		error = lock_bytes(STORE_BYTES_FD);
	if (!error)
		error = replace(name, text);
	/* The rest is beyond the volume already; a growth would begin with this. */
	if (!error && !device && ftruncate(STORE_BYTES_FD, (off_t)size) < 0)
		error = -errno;
	return error;
}

/* ---- delete ---- */

static int remove_all(const char *name, const char *suffix)
{
	FILE_NAME(raw, name, ".raw");
	FILE_NAME(tmp, name, ".new");
	FILE_NAME(record, name, suffix);
	int error = sync_dir(); /* it goes for good, then its bytes do */

	if (!error)
		error = remove_file(raw);
	if (!error)
		error = remove_file(tmp);
	if (!error)
		error = sync_dir();
	if (!error)
		error = remove_file(record);
	return error ? error : sync_dir();
}

/* umdevd has renamed the record, under the lock of the bytes that we were given. */
int record_delete(const char *name)
{
	int error = lock_dir(LOCK_SH);

	return error ? error : remove_all(name, ".deleting");
}

int record_clean(const char *name)
{
	FILE_NAME(file, name, ".volume");
	int error = lock_dir(LOCK_EX);

	if (error)
		return error;
	if (faccessat(DIR, file, F_OK, 0) == 0)
		return -EEXIST; /* somebody else has just finished it */
	error = remove_all(name, ".making");
	return error ? error : remove_all(name, ".deleting");
}
