/* SPDX-License-Identifier: MIT */
/*
 * What keeper and worker give up, in stages; sandbox.c lists for each what it should still do and
 * what it mustn't. The system calls of a worker are one table, in syscalls.c.
 *
 * The filter is compiled once, by the keeper (milliseconds), and inherited by every life as memory:
 * a take-over only installs it.
 */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <linux/filter.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>

/* Builds for tests: the sanitizer's own needs are allowed. */
#ifdef __SANITIZE_ADDRESS__
#define SANDBOX_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED
#endif
#endif

/* Any other call, and any other argument, fails with EPERM: a library that tries something new must
 * not end a device, and whoever broke in gains nothing from it. */
enum sandbox_verdict {
	SANDBOX_ALLOW,
	SANDBOX_KILL, /* no library does that by itself: SIGSYS. A successor that starts from
		       * checked state is better than a process that runs somebody else's code */
};

struct sandbox_rule {
	int call; /* SCMP_SYS(): negative where the machine has no such call */
	enum sandbox_verdict verdict;
	unsigned n_args;         /* 1: `arg` must match, too */
	struct scmp_arg_cmp arg; /* one argument; several rows for one call are alternatives */
	const char *reason;
};

/* syscalls.c */
extern const struct sandbox_rule sandbox_rules[];
extern const size_t sandbox_n_rules;
/* Stands in the filter for the pid of the process that installs it. No pid is that large. */
#define SANDBOX_OWN_PID 0x5e1fface

#define SANDBOX_MAX_FILTER 512 /* instructions; the table takes about 140 */

struct sandbox {
	struct sock_filter filter[SANDBOX_MAX_FILTER];
	unsigned short n_filter;
	int landlock;   /* ABI version of this kernel; 0: none */
	bool own_users; /* in a user namespace of its own */
};

/* Compiles the table. -errno; -E2BIG: it needs more instructions. */
int sandbox_compile(struct sandbox *sandbox);
/* The keeper's stage; compiles too. again: this process entered it before, in another program: a
 * user namespace in each would end at the 32nd. -errno: what cannot be done without. */
int sandbox_enter_keeper(struct sandbox *sandbox, bool again);
/* The worker's stages, in every life before it looks at anything that a client or the life before
 * it may have written. -errno: the life must end. */
int sandbox_enter_worker(struct sandbox *sandbox);
/* What of them is a thread's own: another thread of the worker, after the first one's. -errno. */
int sandbox_enter_thread(struct sandbox *sandbox);

/* Enters all stages and says in one line what this machine does without (umdev-worker --sandbox):
 * umdevd asks once, so that not each group has to tell. 0 / -errno: no worker could start. */
int sandbox_report(void);

#endif
