/* SPDX-License-Identifier: MIT */
/*
 * A server that is killed again and again: a keeper process clones it with a shared descriptor
 * table and shared memory, SIGKILLs it after a random time and clones the next, until told to stop.
 */
#ifndef TESTS_KILL_H
#define TESTS_KILL_H

#include <assert.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Shared by test, keeper and every life. */
struct kill_ring {
	volatile int stop;                  /* test -> keeper */
	bool as_nobody;                     /* keeper and lives give up root first */
	unsigned kills;                     /* lives that were ended by us */
	void (*reap)(void *arg, pid_t pid); /* the keeper's waitpid, or NULL */
};

typedef void kill_life_fn(void *arg, unsigned life); /* serves until killed */

static inline void *kill_shared_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

static inline void kill_keeper(struct kill_ring *ring, unsigned max_us, kill_life_fn *life,
			       void *arg)
{
	unsigned seed = getpid();

	if (ring->as_nobody && (setgid(65534) || setuid(65534) || prctl(PR_SET_DUMPABLE, 1)))
		_exit(3);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned n = 0; !ring->stop; n++) {
		struct timespec t = { 0, 1000L * (rand_r(&seed) % max_us) };
		siginfo_t info;
		pid_t pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			life(arg, n);
			_exit(1);
		}
		nanosleep(&t, NULL);
		kill(pid, SIGKILL);
		waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
		if (info.si_code != CLD_KILLED || info.si_status != SIGKILL)
			_exit(2); /* the life failed by itself */
		if (ring->reap)
			ring->reap(arg, pid);
		else
			waitpid(pid, NULL, 0);
		ring->kills++;
	}
	_exit(0);
}

/* The keeper's pid. It inherits every descriptor of the caller. */
static inline pid_t kill_start(struct kill_ring *ring, unsigned max_us, kill_life_fn *life,
			       void *arg)
{
	pid_t pid = fork();

	assert(pid >= 0);
	if (pid == 0)
		kill_keeper(ring, max_us, life, arg);
	return pid;
}

/* 0 when every life ended by our signal. */
static inline int kill_stop(struct kill_ring *ring, pid_t keeper)
{
	int status;

	ring->stop = 1;
	if (waitpid(keeper, &status, 0) != keeper || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static inline uint64_t kill_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

#endif
