/* SPDX-License-Identifier: MIT */
/*
 * The keeper: holds the descriptor table, clones workers into it, and watches.
 *
 * It does as little as possible, because nothing watches the keeper. It trusts no number in the
 * shared header (a worker may have been taken over by its client): all that a wrong one can do is
 * harm the same group.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "base/log.h"
#include "base/loop.h"
#include "worker/sandbox.h"
#include "worker/worker.h"

/*
 * A worker hangs when the round of its loop began HANG_NS ago and is not over: three tries of a
 * request that hangs must end before QEMU's 5 s do. But a worker that only waits for a CPU is no
 * worse off than we are, and must not be blamed for the request it is about to execute: that time
 * does not count.
 *
 * Nobody wakes up to watch a worker that sleeps: the keeper then says so (keeper_sleeps) and sleeps
 * too, and the worker's next round wakes it, once, by an eventfd. Each stores its own word before
 * it reads the other's, so one of them sees the other.
 */
#define WATCH_NS 400000000L      /* how often a worker that is not asleep is looked at */
#define CLOSE_WATCH_NS 50000000L /* while it is late */
#define LATE_NS 500000000ULL
#define HANG_NS 1000000000ULL
#define FAIR_NS 100000000ULL /* ample for a worker that only had to get a CPU to beat again */

/* Crashes that a guest could cause again and again; and plain kills, which are not our fault but
 * must not become a loop (the kernel out of memory). Within LIMIT_NS, then the group has failed. */
#define MAX_CRASHES 12
#define MAX_KILLS 4000
#define LIMIT_NS 10000000000ULL

#define CLONE_TRIES 40 /* 4 s: QEMU waits 5 */

struct rate {
	uint64_t since_ns;
	unsigned n;
};

struct keeper {
	struct worker_shared *shared;
	const char *program;
	int old_program_fd; /* a trial: what to go back to; -1: none */
	struct stat old_program;
	struct sandbox sandbox; /* of the workers */
	sigset_t child;         /* SIGCHLD, blocked: waited for with a time-out */
	struct rate crashes, kills;
	bool hung;              /* the worker was killed by us */
	uint64_t late_ns;       /* since when we watch closely, or 0 */
	uint64_t late_delay_ns; /* what the worker had waited for a CPU then */
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
	k->hung = false;
	k->late_ns = 0;
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid)
		return pid;
	/* Both or none: a worker without a keeper would end its devices at its first crash. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "umdev-worker");
	if (getppid() != keeper)
		_exit(1);
	_exit(worker_life(k->shared, &k->sandbox));
}

/* A machine out of memory or processes may recover while the client still waits. */
static pid_t clone_patiently(struct keeper *k)
{
	static const struct timespec pause = { 0, 100000000 };
	pid_t pid;

	k->shared->lives++;
	pid = clone_worker(k);
	for (int i = 0; pid < 0 && i < CLONE_TRIES; i++) {
		nanosleep(&pause, NULL);
		pid = clone_worker(k);
	}
	return pid;
}

/* How long the worker has been runnable without running, in all. 0: not known. */
static uint64_t run_delay_ns(pid_t pid)
{
	char path[64], text[128];
	_cleanup_close_ int fd = -1;
	unsigned long long delay;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return 0;
	text[n] = 0;
	return sscanf(text, "%*u %llu", &delay) == 1 ? delay : 0;
}

/* By a signal: it may sleep, but it will not wake. */
static bool is_stopped(pid_t pid)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static bool hangs(struct keeper *k, pid_t pid)
{
	uint64_t now = loop_now_ns(), beat = k->shared->beat_ns, waited;
	bool stopped = is_stopped(pid);

	if (!stopped && (now < beat || now - beat < LATE_NS)) {
		k->late_ns = 0;
		return false;
	}
	if (!k->late_ns) {
		k->late_ns = now;
		k->late_delay_ns = run_delay_ns(pid);
	}
	if (stopped)
		return now - k->late_ns >= HANG_NS;
	if (now - beat < HANG_NS)
		return false;
	waited = run_delay_ns(pid) - k->late_delay_ns;
	return now - k->late_ns >= waited + FAIR_NS;
}

/* By the worker's next round, or by SIGCHLD: it is let through here only, and has a handler so that
 * it ends the call. */
static void sleep_until_woken(struct keeper *k)
{
	struct pollfd wake = { .fd = k->shared->wake_fd, .events = POLLIN };
	eventfd_t rounds;
	sigset_t none;

	sigemptyset(&none);
	if (ppoll(&wake, 1, NULL, &none) == 1)
		eventfd_read(wake.fd, &rounds);
}

/* Until the worker died or is to be looked at. The first wait is for its own sake: a worker under
 * load sleeps between any two requests, and must not have to wake us for each. */
static void wait_for_news(struct keeper *k)
{
	const struct timespec interval = { 0, k->late_ns ? CLOSE_WATCH_NS : WATCH_NS };
	struct worker_shared *shared = k->shared;

	if (sigtimedwait(&k->child, NULL, &interval) > 0 || k->late_ns)
		return;
	__atomic_store_n(&shared->keeper_sleeps, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&shared->beat_ns, __ATOMIC_SEQ_CST) == WORKER_ASLEEP)
		sleep_until_woken(k);
	__atomic_store_n(&shared->keeper_sleeps, 0, __ATOMIC_SEQ_CST);
}

/* Returns when the worker is dead; it is not reaped yet. */
static siginfo_t watch(struct keeper *k, pid_t pid)
{
	siginfo_t info = { 0 };

	for (;;) {
		waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT);
		if (info.si_pid == pid)
			return info;
		if (!k->hung && hangs(k, pid)) {
			log_warning("the worker hangs: killed");
			k->hung = true;
			kill(pid, SIGKILL);
		}
		wait_for_news(k);
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

static bool is_on_trial(const struct keeper *k)
{
	const struct worker_shared *shared = k->shared;

	return k->old_program_fd >= 0 && shared->half[shared->ab.cur & 1].restart;
}

/* The table is the worker's, too: what it put in that place is not run. */
static bool is_old_program(const struct keeper *k)
{
	struct stat st;

	return !fstat(k->old_program_fd, &st) && st.st_dev == k->old_program.st_dev &&
	       st.st_ino == k->old_program.st_ino;
}

/* By its own fault, not because somebody killed or stopped it. */
static bool failed(const struct keeper *k, const siginfo_t *info)
{
	if (info->si_code == CLD_EXITED)
		return info->si_status == 1;
	return k->hung || is_crash(info->si_status);
}

/* The life that was the trial is dead by its own fault: this program cannot do it. Returns when
 * there is no other. */
static void go_back(struct keeper *k)
{
	if (is_old_program(k))
		restart_go_back(k->program, k->old_program_fd, EUCLEAN);
	k->old_program_fd = -1;
}

/* Returns when the old program serves on. */
static void restart(struct keeper *k)
{
	struct worker_shared *shared = k->shared;

	shared->signal = 0;
	shared->blamed = 0;
	shared->restart_error = -restart_into(k->program);
	log_error("cannot run %s: %s", k->program, strerror(shared->restart_error));
}

/* A worker was killed: counts it, and decides what its successor is told. */
static void note_death(struct keeper *k, int signal)
{
	struct worker_shared *shared = k->shared;

	shared->signal = signal;
	shared->blamed = k->hung || is_crash(signal);
	shared->give_up = shared->blamed ? is_over(&k->crashes, MAX_CRASHES)
					 : is_over(&k->kills, MAX_KILLS);
}

static void on_child(int signal)
{
}

static int begin(struct keeper *k, bool again)
{
	int error;

	if (k->old_program_fd >= 0 && fstat(k->old_program_fd, &k->old_program))
		k->old_program_fd = -1;
	error = sandbox_enter_keeper(&k->sandbox, again);
	if (error) {
		log_error("cannot close the sandbox: %s", strerror(-error));
		return error;
	}
	/* Without it streams that are no sockets are not exactly once; all else is. */
	k->shared->io_fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC);
	k->shared->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (k->shared->wake_fd < 0) {
		log_error("cannot make an eventfd: %m");
		return -EMFILE;
	}
	signal(SIGCHLD, on_child);
	sigemptyset(&k->child);
	sigaddset(&k->child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &k->child, NULL);
	return 0;
}

int keeper_run(struct worker_shared *shared, const char *program, int old_program_fd, bool again)
{
	struct keeper k = { .shared = shared,
			    .program = program,
			    .old_program_fd = old_program_fd };

	if (begin(&k, again)) {
		if (is_on_trial(&k))
			go_back(&k);
		return 1;
	}
	for (;;) {
		pid_t pid = clone_patiently(&k);
		siginfo_t info;

		if (pid < 0) {
			log_error("cannot clone a worker: %m");
			return 1;
		}
		info = watch(&k, pid);
		reap(shared, pid);
		if (is_on_trial(&k) && failed(&k, &info))
			go_back(&k);
		if (info.si_code == CLD_EXITED && info.si_status == WORKER_EXIT_RESTART) {
			restart(&k);
			continue;
		}
		if (info.si_code == CLD_EXITED)
			return info.si_status;
		if (shared->give_up)
			return 1;
		note_death(&k, info.si_status);
	}
}
