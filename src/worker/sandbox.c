/* SPDX-License-Identifier: MIT */
/*
 * What keeper and worker give up. Each stage can only be entered, and is inherited by clones.
 *
 * Stage `keeper`, at its start.
 *   Should: clone workers, wait for them, kill a worker that hangs, read /proc, run its own program
 *     again (an upgrade).
 *   Mustn't: gain rights by running a program (no_new_privs); use root's, here or in a user
 *     namespace that it could make later (no capabilities, also when umdevd runs as root).
 *
 * Stage `limits` of a worker.
 *   Should: keep using the descriptors it has and those it is sent; have heap for every map of
 *     every member; let the kernel make threads for its ring: they count as processes of the user,
 *     so that RLIMIT_NPROC has to stay.
 *   Mustn't: be read or traced by other processes of its user, or leave guest memory in a core file
 *     (not dumpable); grow without end (RLIMIT_DATA). Its /proc/self/io must be open before: not
 *     dumpable, its files in /proc are root's.
 *
 * Stage `paths` of a worker: landlock, as much as the kernel has.
 *   Should: nothing.
 *   Mustn't: open, make, remove, rename or run anything that has a path; use TCP; reach an abstract
 *     socket, or signal a process, outside.
 *
 * Stage `calls` of a worker: the filter.
 *   Should: what the table in syscalls.c allows, for the reason it gives.
 *   Mustn't: anything else, whatever the stages before do not know.
 *
 * `paths` and `calls` bind the thread that enters them: queue threads, which are made before, do so
 * by themselves before the worker goes on (sandbox_enter_thread).
 *
 * Without a user namespace or landlock (an old kernel, a container that forbids them) the other
 * stages hold the line alone; without a filter a worker does not start.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "worker/sandbox.h"

#ifdef SANDBOX_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

/* Private memory of a whole group. The index of a member with every map there can be is 6 MiB,
 * twice while it changes; guest memory and state are shared files and do not count. */
#define MAX_DATA (1ULL << 30)

/* ---- compiling the table ---- */

static int add_rules(scmp_filter_ctx ctx)
{
	for (size_t i = 0; i < sandbox_n_rules; i++) {
		const struct sandbox_rule *rule = &sandbox_rules[i];
		uint32_t action = rule->verdict == SANDBOX_ALLOW ? SCMP_ACT_ALLOW
								 : SCMP_ACT_KILL_PROCESS;
		int error = seccomp_rule_add_array(ctx, action, rule->call, rule->n_args,
						   &rule->arg);

		if (error)
			return error;
	}
	return 0;
}

/* libseccomp gives its program to a descriptor only. */
static int export_filter(scmp_filter_ctx ctx, struct sandbox *sandbox)
{
	_cleanup_close_ int fd = memfd_create("filter", MFD_CLOEXEC);
	int error = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
	ssize_t n;

	if (error)
		return error;
	n = pread(fd, sandbox->filter, sizeof(sandbox->filter), 0);
	if (n < 0)
		return -errno;
	if (n == (ssize_t)sizeof(sandbox->filter))
		return -E2BIG; /* and maybe there is more */
	sandbox->n_filter = n / sizeof(sandbox->filter[0]);
	return 0;
}

int sandbox_compile(struct sandbox *sandbox)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error;

	if (!ctx)
		return -ENOMEM;
	error = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!error)
		error = add_rules(ctx);
	if (!error)
		error = export_filter(ctx, sandbox);
	seccomp_release(ctx);
	return error;
}

/* ---- stage keeper ---- */

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	return syscall(SYS_capset, &header, none) ? -errno : 0;
}

static bool write_text(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* Our ids are the only ones there. Rights that a hole in the kernel gives count for nothing
 * outside. */
static bool enter_user_namespace(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char users[64], groups[64];

	snprintf(users, sizeof(users), "%u %u 1", uid, uid);
	snprintf(groups, sizeof(groups), "%u %u 1", gid, gid);
	return unshare(CLONE_NEWUSER) == 0 && write_text("/proc/self/uid_map", users) &&
	       write_text("/proc/self/setgroups", "deny") &&
	       write_text("/proc/self/gid_map", groups);
}

static int landlock_version(void)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_..._VERSION */);

	return version > 0 ? (int)version : 0;
}

int sandbox_enter_keeper(struct sandbox *sandbox, bool again)
{
	int error = sandbox_compile(sandbox);

	if (error)
		return error;
	sandbox->landlock = landlock_version();
	sandbox->own_users = again || enter_user_namespace();
#ifdef SANDBOX_SANITIZED
	__sanitizer_sandbox_arguments unused = { 0 };

	__sanitizer_sandbox_on_notify(&unused); /* reads /proc while it can, for reports */
#endif
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return drop_capabilities();
}

/* ---- stages of a worker ---- */

static int set_limits(void)
{
	static const struct {
		int which;
		struct rlimit limit;
	} limits[] = {
		{ RLIMIT_CORE, { 0, 0 } },
		{ RLIMIT_MSGQUEUE, { 0, 0 } },
#ifndef SANDBOX_SANITIZED /* it counts the shadow memory of a sanitizer, too */
		{ RLIMIT_DATA, { MAX_DATA, MAX_DATA } },
#endif
	};

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct rlimit now, limit = limits[i].limit;

		if (getrlimit(limits[i].which, &now))
			return -errno;
		if (limit.rlim_max > now.rlim_max)
			limit = (struct rlimit){ now.rlim_max, now.rlim_max };
		if (setrlimit(limits[i].which, &limit))
			return -errno;
	}
	return prctl(PR_SET_DUMPABLE, 0) ? -errno : 0;
}

/* struct landlock_ruleset_attr as of ABI 6; older kernels take the part they know. */
struct landlock_rules {
	uint64_t fs, net, scoped;
};

/* By ABI version: bits that exist, and bytes of the struct. */
static const struct {
	unsigned fs_bits, net_bits, scope_bits;
	size_t size;
} landlock_abi[] = {
	[1] = { 13, 0, 0, 8 },  [2] = { 14, 0, 0, 8 }, /* REFER */
	[3] = { 15, 0, 0, 8 },                         /* TRUNCATE */
	[4] = { 15, 2, 0, 16 },                        /* bind, connect of TCP */
	[5] = { 16, 2, 0, 16 },                        /* IOCTL_DEV */
	[6] = { 16, 2, 2, 24 },                        /* abstract sockets, signals */
};
#define LANDLOCK_KNOWN (sizeof(landlock_abi) / sizeof(landlock_abi[0]) - 1)

static int close_paths(int version)
{
	unsigned known = version > (int)LANDLOCK_KNOWN ? LANDLOCK_KNOWN : (unsigned)version;
	struct landlock_rules rules = {
		.fs = (1ULL << landlock_abi[known].fs_bits) - 1,
		.net = (1ULL << landlock_abi[known].net_bits) - 1,
		.scoped = (1ULL << landlock_abi[known].scope_bits) - 1,
	};
	_cleanup_close_ int fd = -1;

	if (!known)
		return 0;
	/* Everything is ruled, and no rule allows anything. */
	fd = syscall(SYS_landlock_create_ruleset, &rules, landlock_abi[known].size, 0);
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0))
		return -errno;
	return 0;
}

static int install_filter(struct sandbox *sandbox)
{
	struct sock_fprog program = { sandbox->n_filter, sandbox->filter };

	for (unsigned i = 0; i < sandbox->n_filter; i++)
		if (sandbox->filter[i].k == SANDBOX_OWN_PID)
			sandbox->filter[i].k = getpid();
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? -errno : 0;
}

int sandbox_enter_thread(struct sandbox *sandbox)
{
	int error = close_paths(sandbox->landlock);

	return error ? error : install_filter(sandbox);
}

int sandbox_enter_worker(struct sandbox *sandbox)
{
	int error = set_limits();

	return error ? error : sandbox_enter_thread(sandbox);
}
