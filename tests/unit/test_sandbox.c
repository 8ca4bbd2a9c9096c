/* SPDX-License-Identifier: MIT */
/* The table of system calls: what it says, and what a process can still do behind it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "worker/sandbox.h"

static bool is_same(const struct sandbox_rule *a, const struct sandbox_rule *b)
{
	if (a->call != b->call)
		return false;
	if (!a->n_args || !b->n_args)
		return true; /* one without a condition makes the others meaningless */
	return a->arg.arg == b->arg.arg && a->arg.op == b->arg.op &&
	       a->arg.datum_a == b->arg.datum_a && a->arg.datum_b == b->arg.datum_b;
}

static void every_row_has_a_reason_and_a_call(void **state)
{
	assert_true(sandbox_n_rules > 50);
	for (size_t i = 0; i < sandbox_n_rules; i++) {
		const struct sandbox_rule *rule = &sandbox_rules[i];

		assert_int_not_equal(rule->call, __NR_SCMP_ERROR);
		assert_non_null(rule->reason);
		assert_true(strlen(rule->reason) >= 4);
		assert_true(rule->n_args <= 1);
	}
}

static void no_row_stands_twice(void **state)
{
	for (size_t i = 0; i < sandbox_n_rules; i++)
		for (size_t k = i + 1; k < sandbox_n_rules; k++)
			if (is_same(&sandbox_rules[i], &sandbox_rules[k]))
				fail_msg("rows %zu and %zu are the same call", i, k);
}

static bool has_row(int call, enum sandbox_verdict verdict)
{
	for (size_t i = 0; i < sandbox_n_rules; i++)
		if (sandbox_rules[i].call == call && sandbox_rules[i].verdict == verdict)
			return true;
	return false;
}

static void nothing_that_opens_connects_or_starts_is_allowed(void **state)
{
	static const int never[] = {
		SCMP_SYS(open),
		SCMP_SYS(openat),
		SCMP_SYS(openat2),
		SCMP_SYS(creat),
		SCMP_SYS(socket),
		SCMP_SYS(socketpair),
		SCMP_SYS(connect),
		SCMP_SYS(bind),
		SCMP_SYS(clone),
		SCMP_SYS(clone3),
		SCMP_SYS(fork),
		SCMP_SYS(vfork),
		SCMP_SYS(execve),
		SCMP_SYS(execveat),
		SCMP_SYS(kill),
		SCMP_SYS(tkill),
		SCMP_SYS(ptrace),
		SCMP_SYS(pidfd_send_signal),
		SCMP_SYS(pidfd_getfd),
		SCMP_SYS(pidfd_open),
		SCMP_SYS(io_uring_setup),
		SCMP_SYS(fchmod),
		SCMP_SYS(fchown),
		SCMP_SYS(chmod),
		SCMP_SYS(unlink),
		SCMP_SYS(unlinkat),
		SCMP_SYS(rename),
		SCMP_SYS(mount),
		SCMP_SYS(setns),
		SCMP_SYS(unshare),
		SCMP_SYS(process_vm_readv),
		SCMP_SYS(ioctl),
		SCMP_SYS(setuid),
		SCMP_SYS(rt_sigqueueinfo),
		SCMP_SYS(rt_tgsigqueueinfo),
	};

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (has_row(never[i], SANDBOX_ALLOW))
			fail_msg("call %d is allowed", never[i]);
}

/* How a child ends that enters the worker's stages and then runs fn: its exit status, or minus the
 * signal. */
static int run_inside(int (*fn)(void))
{
	struct sandbox sandbox = { 0 };
	int status;
	pid_t pid;

	assert_int_equal(sandbox_compile(&sandbox), 0);
	pid = fork();
	if (!pid) {
		/* landlock is the daemon tests' business: here the filter must do alone */
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sandbox_enter_worker(&sandbox))
			_exit(100);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int work(void)
{
	int fd = memfd_create("bar", MFD_CLOEXEC);
	void *at;

	if (fd < 0 || ftruncate(fd, 4096) || write(fd, "x", 1) != 1)
		return 1;
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return at == MAP_FAILED || munmap(at, 4096) || close(fd) ? 2 : 0;
}

static int map_code(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (at == MAP_FAILED)
		return 1;
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, flags, -1, 0) != MAP_FAILED)
		return 2;
	return mprotect(at, 4096, PROT_READ | PROT_EXEC) == 0 ? 3 : errno;
}

static int make_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : errno;
}

static int signal_another(void)
{
	return syscall(SYS_tgkill, getppid(), getppid(), 0) == 0 ? 0 : errno;
}

static int own_files_signals(void)
{
	return fcntl(0, F_SETOWN, 1) == 0 ? 0 : errno;
}

static int abort_itself(void)
{
	abort();
}

static int run_program(void)
{
	char *const none[] = { NULL };

	execve("/bin/true", none, none);
	return 0;
}

static void work_goes_on_inside(void **state)
{
	assert_int_equal(run_inside(work), 0);
}

static void code_sockets_and_signals_to_others_are_refused(void **state)
{
	assert_int_equal(run_inside(map_code), EPERM);
	assert_int_equal(run_inside(make_socket), EPERM);
	assert_int_equal(run_inside(signal_another), EPERM);
	assert_int_equal(run_inside(own_files_signals), EPERM);
}

static void an_abort_is_seen_as_one(void **state)
{
	assert_int_equal(run_inside(abort_itself), -SIGABRT);
}

static void running_a_program_ends_it(void **state)
{
	assert_int_equal(run_inside(run_program), -SIGSYS);
}

/* The stage before the filter, by itself. */
static int run_behind_landlock(int version, int (*fn)(void))
{
	struct sandbox sandbox = { .filter = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) },
				   .n_filter = 1,
				   .landlock = version };
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sandbox_enter_worker(&sandbox))
			_exit(100);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int open_a_file(void)
{
	return open("/etc/passwd", O_RDONLY) >= 0 ? 0 : errno;
}

static int signal_the_parent(void)
{
	return kill(getppid(), 0) == 0 ? 0 : errno;
}

static void landlock_alone_closes_paths(void **state)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);

	if (version < 1)
		skip();
	assert_int_equal(run_behind_landlock((int)version, open_a_file), EACCES);
	assert_int_equal(run_behind_landlock(0, open_a_file), 0);
	for (int older = 1; older < version; older++)
		assert_int_equal(run_behind_landlock(older, open_a_file), EACCES);
	if (version >= 6)
		assert_int_equal(run_behind_landlock((int)version, signal_the_parent), EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_has_a_reason_and_a_call),
		cmocka_unit_test(no_row_stands_twice),
		cmocka_unit_test(nothing_that_opens_connects_or_starts_is_allowed),
		cmocka_unit_test(work_goes_on_inside),
		cmocka_unit_test(code_sockets_and_signals_to_others_are_refused),
		cmocka_unit_test(an_abort_is_seen_as_one),
		cmocka_unit_test(running_a_program_ends_it),
		cmocka_unit_test(landlock_alone_closes_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
