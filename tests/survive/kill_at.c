/* SPDX-License-Identifier: MIT */
/*
 * kill-at PID N: traces a sleeping process, prints "ready", and kills it at its Nth system call
 * stop from then on. Every call stops twice: before it is carried out (odd N) and after (even N),
 * before the process sees the result. Prints "killed NUMBER before|after" of that call, or "gone"
 * when the process ended by itself. Killed itself, it lets the process go on.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define SYSCALL_STOP (SIGTRAP | 0x80)

/* Waits for the next stop. 0: it has ended. */
static int next_stop(pid_t pid, int request, int *status)
{
	if (ptrace(request, pid, NULL, NULL) < 0 && errno != ESRCH)
		return 0;
	return waitpid(pid, status, __WALL) == pid && WIFSTOPPED(*status);
}

static long call_number(pid_t pid)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0)
		return -1;
	return info.op == PTRACE_SYSCALL_INFO_ENTRY ? (long)info.entry.nr : -1;
}

static int kill_at(pid_t pid, long n)
{
	long number = -1;
	int status;

	for (long i = 0; i < n;) {
		if (!next_stop(pid, PTRACE_SYSCALL, &status)) {
			puts("gone");
			return 0;
		}
		if (WSTOPSIG(status) != SYSCALL_STOP)
			continue;
		i++;
		if (call_number(pid) >= 0)
			number = call_number(pid);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, __WALL); /* the keeper hears of it when we have */
	printf("killed %ld %s\n", number, n % 2 ? "before" : "after");
	return 0;
}

int main(int argc, char **argv)
{
	pid_t pid = argc == 3 ? atoi(argv[1]) : 0;
	int status;

	if (pid <= 0) {
		fprintf(stderr, "usage: kill-at PID N\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACESYSGOOD) < 0 ||
	    !next_stop(pid, PTRACE_INTERRUPT, &status)) {
		fprintf(stderr, "kill-at: cannot trace %d: %s\n", (int)pid, strerror(errno));
		return 1;
	}
	/* It sleeps in a call: that one's end, and the begin of the next sleep, are not of
	 * interest. */
	for (int stops = 0; stops < 2;) {
		if (!next_stop(pid, PTRACE_SYSCALL, &status))
			return 1;
		stops += WSTOPSIG(status) == SYSCALL_STOP;
	}
	puts("ready");
	return kill_at(pid, atol(argv[2]));
}
