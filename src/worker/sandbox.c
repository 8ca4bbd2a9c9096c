/* SPDX-License-Identifier: MIT */
/*
 * What a worker gives up before it reads the first byte of a client.
 *
 * Should: keep using the descriptors it has, and those it is sent.
 * Mustn't: gain rights by running a program (no_new_privs); use root's (no capabilities, also when
 * umdevd runs as root); be read or traced by other processes of its user, or leave guest memory in
 * a core file (not dumpable). Its /proc/self/io must be open before: not dumpable, its files in
 * /proc are root's.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "worker/internal.h"

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	return syscall(SYS_capset, &header, none) ? -errno : 0;
}

int worker_enter_sandbox(void)
{
	static const struct rlimit no_core = { 0, 0 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || setrlimit(RLIMIT_CORE, &no_core) ||
	    prctl(PR_SET_DUMPABLE, 0))
		return -errno;
	return drop_capabilities();
}
