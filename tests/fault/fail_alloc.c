/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into umdevd and its workers by tests/fault: the nth allocation from now fails, once.
 *
 * The countdown is an int32 in the file $FAIL_ALLOC_FILE, mapped by all: 0 is off, a test writes n,
 * the failure leaves 0. It counts in the process whose pid is in the second int32; a negative one
 * means every process but that.
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
static pid_t self;                  /* of a clone that executes no program: who cloned it */

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
	self = getpid();
	countdown = map;
}

static int fails(void)
{
	if (!countdown || countdown[0] <= 0)
		return 0;
	if (countdown[1] >= 0 ? countdown[1] != self : -countdown[1] == self)
		return 0;
	if (--countdown[0])
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
