/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into umdevd by tests/fault: the nth allocation from now fails, once.
 *
 * The countdown is an int32 in the file $FAIL_ALLOC_FILE, mapped by both sides: 0 is off, a test
 * writes n, the failure leaves 0. Programs that umdevd starts do not open the file (it is theirs
 * by name only): the variable is for the process whose pid is in the second int32.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static volatile int32_t *countdown; /* [0] the count, [1] whose */

__attribute__((constructor)) static void attach(void)
{
	const char *path = getenv("FAIL_ALLOC_FILE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return;
	map = mmap(NULL, 2 * sizeof(int32_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return;
	countdown = map;
}

static int fails(void)
{
	if (!countdown || countdown[0] <= 0 || countdown[1] != getpid() || --countdown[0])
		return 0;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	return fails() ? NULL : __libc_realloc(old, size);
}
