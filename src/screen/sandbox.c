// SPDX-License-Identifier: MIT
/*
 * What umdev-screen gives up. Should: (keeper) accept and clone viewers; (viewer) read the picture,
 * talk to its client. Mustn't: open, connect, run, trace, signal, write to anything that it was not
 * given. The video memory is mapped from descriptors that cannot be written.
 */
#include <errno.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "screen/screen.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif

#define FS_OF_ABI_1 ((UINT64_C(1) << 13) - 1) /* all rights that the first landlock knows */
#define MEMORY (512ul << 20) /* address space of one viewer: picture, copy, buffers */

/* No path at all, where the kernel has landlock. */
static int close_paths(void)
{
	struct landlock_ruleset_attr rules = { .handled_access_fs = FS_OF_ABI_1 };
	_cleanup_close_ int fd = (int)syscall(SYS_landlock_create_ruleset, &rules,
					      sizeof(rules.handled_access_fs), 0);

	if (fd < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
	return syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
}

#ifndef SANITIZED
static const int viewer_calls[] = {
	SCMP_SYS(brk),        SCMP_SYS(clock_gettime), SCMP_SYS(close),        SCMP_SYS(exit),
	SCMP_SYS(exit_group), SCMP_SYS(mmap),          SCMP_SYS(mremap),       SCMP_SYS(munmap),
	SCMP_SYS(poll),       SCMP_SYS(read),          SCMP_SYS(rt_sigreturn), SCMP_SYS(write),
	SCMP_SYS(fstat),      SCMP_SYS(newfstatat),
};
/* Besides these, which its viewers give up again. */
static const int keeper_calls[] = {
	SCMP_SYS(accept4),        SCMP_SYS(clone),   SCMP_SYS(fcntl),           SCMP_SYS(getpid),
	SCMP_SYS(getrandom),      SCMP_SYS(gettid),  SCMP_SYS(prctl),           SCMP_SYS(prlimit64),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(seccomp), SCMP_SYS(set_robust_list), SCMP_SYS(wait4),
	SCMP_SYS(rseq),
};

static int close_calls(bool viewer)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = ctx ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof(viewer_calls) / sizeof(*viewer_calls) && !error; i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, viewer_calls[i], 0);
	for (size_t i = 0; i < sizeof(keeper_calls) / sizeof(*keeper_calls) && !error && !viewer;
	     i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, keeper_calls[i], 0);
	if (!error)
		error = seccomp_load(ctx);
	seccomp_release(ctx);
	return error;
}
#else
static int close_calls(bool viewer)
{
	return 0; /* a sanitizer needs more */
}
#endif

int sandbox_keeper(void)
{
	const struct rlimit none = { 0, 0 };
	int error;

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	error = close_paths();
	return error ? error : close_calls(false);
}

int sandbox_viewer(void)
{
#ifndef SANITIZED
	const struct rlimit memory = { MEMORY, MEMORY };

	if (setrlimit(RLIMIT_AS, &memory) < 0)
		return -errno;
#endif
	return close_calls(true);
}
