/* SPDX-License-Identifier: MIT */
/*
 * The keeper: holds the descriptor table, clones workers into it, and watches.
 *
 * It does as little as possible, because nothing watches the keeper. It trusts no number in the
 * shared header (a worker may have been taken over by its client): all that a wrong one can do is
 * harm the same group.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"
#include "base/loop.h"
#include "worker/worker.h"

#define WATCH_NS 400000000L   /* how often the heartbeat is looked at */
#define HANG_NS 1000000000ULL /* three tries of a request that hangs end before QEMU's 5 s do */

/* Crashes that a guest could cause again and again; and plain kills, which are not our fault but
 * must not become a loop (the kernel out of memory). Within LIMIT_NS, then the group has failed. */
#define MAX_CRASHES 12
#define MAX_KILLS 4000
#define LIMIT_NS 10000000000ULL

struct rate {
	uint64_t since_ns;
	unsigned n;
};

struct keeper {
	struct worker_shared *shared;
	sigset_t child; /* SIGCHLD, blocked: waited for with a time-out */
	struct rate crashes, kills;
	bool hung; /* the worker was killed by us */
};

static bool is_over(struct rate *r, unsigned max)
{
	uint64_t now = loop_now_ns();

	if (now - r->since_ns > LIMIT_NS)
		*r = (struct rate){ .since_ns = now };
	return ++r->n > max;
}

static pid_t clone_worker(struct keeper *k)
{
	pid_t keeper = getpid(), pid;

	k->shared->beat_ns = loop_now_ns();
	k->shared->lives++;
	k->hung = false;
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid)
		return pid;
	/* Both or none: a worker without a keeper would end its devices at its first crash. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper)
		_exit(1);
	_exit(worker_life(k->shared));
}

/* Returns when the worker is dead; it is not reaped yet. */
static siginfo_t watch(struct keeper *k, pid_t pid)
{
	static const struct timespec interval = { 0, WATCH_NS };
	siginfo_t info = { 0 };

	for (;;) {
		uint64_t now = loop_now_ns(), beat = k->shared->beat_ns;

		waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT);
		if (info.si_pid == pid)
			return info;
		if (now > beat && now - beat > HANG_NS && !k->hung) {
			log_warning("the worker hangs: killed");
			k->hung = true;
			kill(pid, SIGKILL);
		}
		sigtimedwait(&k->child, NULL, &interval);
	}
}

/* Reaping adds the dead worker's I/O account to ours: the difference is what it moved. */
static void reap(struct worker_shared *shared, pid_t pid)
{
	struct stream_account before, after;
	bool known = stream_account_read(shared->io_fd, &before);

	waitpid(pid, NULL, 0);
	known = known && stream_account_read(shared->io_fd, &after);
	if (shared->settled != shared->lives)
		return; /* it began no call; what its predecessor left is still to be settled */
	shared->last = (struct stream_last_life){ .known = known };
	if (known) {
		shared->last.rchar = after.rchar - before.rchar_after;
		shared->last.wchar = after.wchar - before.wchar;
	}
}

static bool is_crash(int signal)
{
	return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGABRT ||
	       signal == SIGFPE || signal == SIGSYS || signal == SIGTRAP;
}

int keeper_run(struct worker_shared *shared)
{
	struct keeper k = { .shared = shared };

	/* Without it streams that are no sockets are not exactly once; all else is. */
	shared->io_fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC);
	sigemptyset(&k.child);
	sigaddset(&k.child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &k.child, NULL);
	for (;;) {
		pid_t pid = clone_worker(&k);
		siginfo_t info;

		if (pid < 0) {
			log_error("cannot clone a worker: %m");
			return 1;
		}
		info = watch(&k, pid);
		reap(shared, pid);
		if (info.si_code == CLD_EXITED)
			return info.si_status;
		if (shared->give_up)
			return 1;
		shared->signal = info.si_status;
		shared->blamed = k.hung || is_crash(info.si_status);
		shared->give_up = shared->blamed ? is_over(&k.crashes, MAX_CRASHES)
						 : is_over(&k.kills, MAX_KILLS);
	}
}
