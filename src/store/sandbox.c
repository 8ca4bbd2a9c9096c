/* SPDX-License-Identifier: MIT */
/*
 * What umdev-store gives up before it begins. It reads nothing that a stranger wrote: this is for
 * the day when that turns out to be wrong.
 *
 *   Should: make, rename and remove files in the one directory it was given, and change the bytes
 * of the descriptors it has. Mustn't: have any other descriptor; reach any other path (landlock,
 * where the kernel has it); run, trace or signal anything, or open a socket (seccomp).
 */
#include <errno.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "store/store.h"

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif

#define FS_OF_ABI_1 ((UINT64_C(1) << 13) - 1) /* all rights that the first landlock knows */

static int close_paths(bool has_dir)
{
	struct landlock_ruleset_attr rules = { .handled_access_fs = FS_OF_ABI_1 };
	const struct landlock_path_beneath_attr dir = {
		.parent_fd = STORE_DIR_FD,
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
				  LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
				  LANDLOCK_ACCESS_FS_REMOVE_FILE,
	};
	_cleanup_close_ int fd = (int)syscall(SYS_landlock_create_ruleset, &rules,
					      sizeof(rules.handled_access_fs), 0);

	if (fd < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
	if (has_dir && syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &dir, 0) < 0)
		return -errno;
	return syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
}

#ifndef SANITIZED
/* Whatever else a library tries fails with EPERM. */
static const int calls[] = {
	SCMP_SYS(brk),          SCMP_SYS(close),     SCMP_SYS(exit),       SCMP_SYS(exit_group),
	SCMP_SYS(faccessat),    SCMP_SYS(fadvise64), SCMP_SYS(faccessat2), SCMP_SYS(fallocate),
	SCMP_SYS(fdatasync),    SCMP_SYS(flock),     SCMP_SYS(fstat),      SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),    SCMP_SYS(mmap),      SCMP_SYS(munmap),     SCMP_SYS(newfstatat),
	SCMP_SYS(openat),       SCMP_SYS(pread64),   SCMP_SYS(pwrite64),   SCMP_SYS(read),
	SCMP_SYS(renameat),     SCMP_SYS(renameat2), SCMP_SYS(unlinkat),   SCMP_SYS(write),
	SCMP_SYS(rt_sigreturn),
};
static const uint64_t ioctls[] = { BLKZEROOUT, BLKDISCARD };

static int close_calls(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = ctx ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && !error; i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
	for (size_t i = 0; i < sizeof(ioctls) / sizeof(ioctls[0]) && !error; i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
					 SCMP_A1(SCMP_CMP_EQ, ioctls[i]));
	if (!error)
		error = seccomp_load(ctx);
	seccomp_release(ctx);
	return error;
}
#else
static int close_calls(void)
{
	return 0; /* a sanitizer needs more */
}
#endif

int store_close_in(bool has_dir)
{
	const struct rlimit none = { 0, 0 };
	int error;

	if (close_range(STORE_BYTES_FD + 1, ~0u, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	error = close_paths(has_dir);
	return error ? error : close_calls();
}
