/* SPDX-License-Identifier: MIT */
/*
 * A server that is killed again and again: a keeper process clones it with a shared descriptor
 * table and shared memory, SIGKILLs it after a random time and clones the next, until told to stop.
 */
#ifndef TESTS_KILL_H
#define TESTS_KILL_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Shared by test, keeper and every life. */
struct kill_ring {
	volatile int stop; /* test -> keeper */
	unsigned kills;    /* lives that were ended by us */
	bool account_known;
	uint64_t rchar, wchar; /* of the life before this one */
};

typedef void kill_life_fn(void *arg, unsigned life); /* serves until killed */

static inline void *kill_shared_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

static inline bool kill_read_account(pid_t pid, struct kill_ring *ring)
{
	char path[64], text[512];
	unsigned long long r, w;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	if (sscanf(text, "rchar: %llu\nwchar: %llu", &r, &w) != 2)
		return false;
	ring->rchar = r;
	ring->wchar = w;
	return true;
}

static inline void kill_keeper(struct kill_ring *ring, unsigned max_us, kill_life_fn *life,
			       void *arg)
{
	unsigned seed = getpid();

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
		ring->account_known = kill_read_account(pid, ring);
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
