// SPDX-License-Identifier: MIT
/*
 * Which queue crashed the worker. The thread that crashes says so in the state memory, because
 * others are at work at the same moment and did nothing wrong. Like dma/guard.c this needs a
 * variable outside of objects: a signal handler is given nothing else to find anything by.
 */
#include <errno.h>
#include <signal.h>
#include "queue/internal.h"

static _Thread_local struct queue_port_shared *current;

void crash_in(struct queue_port_shared *port)
{
	current = port;
}

/* Back in its place, the instruction faults again, or abort() goes on: then for good. */
static void on_crash(int signal_number)
{
	if (current)
		current->crashed = 1;
}

int crash_watch(void)
{
	/* Not SIGBUS, which has a handler (dma/guard.c). */
	static const int signals[] = { SIGSEGV, SIGILL, SIGABRT, SIGFPE, SIGTRAP };
	struct sigaction action = { .sa_handler = on_crash, .sa_flags = SA_RESETHAND | SA_NODEFER };

	sigemptyset(&action.sa_mask);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sigaction(signals[i], &action, NULL) < 0)
			return -errno;
	return 0;
}
