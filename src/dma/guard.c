/* SPDX-License-Identifier: MIT */
/*
 * Copies that survive a file that became shorter than its mapping.
 *
 * A client can truncate a memfd that it gave us; the next access is a SIGBUS in the thread that
 * copies. That thread has said beforehand where to go on. The only mutable state outside of objects
 * in this layer: a signal handler is given nothing else to find it by.
 *
 * sigsetjmp without saving the mask costs some nanoseconds per copy; the handler is installed with
 * SA_NODEFER, so leaving it by siglongjmp leaves no signal blocked.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include "dma/internal.h"

static _Thread_local struct {
	volatile sig_atomic_t armed;
	sigjmp_buf env;
} guard;

static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
	/* si_code <= 0: somebody sent it; that is no fault of a copy. */
	if (guard.armed && info->si_code > 0) {
		guard.armed = 0;
		siglongjmp(guard.env, 1);
	}
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

#define GUARDED(access)                                \
	do {                                           \
		if (sigsetjmp(guard.env, 0))           \
			return -EFAULT;                \
		guard.armed = 1;                       \
		__asm__ __volatile__("" ::: "memory"); \
		access;                                \
		__asm__ __volatile__("" ::: "memory"); \
		guard.armed = 0;                       \
		return 0;                              \
	} while (0)

int dma_guard_copy(void *to, const void *from, size_t len)
{
	GUARDED(memcpy(to, from, len));
}

int dma_guard_load16(const void *from, uint16_t *ret)
{
	GUARDED(*ret = __atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE));
}

int dma_guard_load32(const void *from, uint32_t *ret)
{
	GUARDED(*ret = __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE));
}

int dma_guard_store16(void *to, uint16_t value)
{
	GUARDED(__atomic_store_n((uint16_t *)to, value, __ATOMIC_RELEASE));
}

int dma_guard_store32(void *to, uint32_t value)
{
	GUARDED(__atomic_store_n((uint32_t *)to, value, __ATOMIC_RELEASE));
}

int dma_guard_init(void)
{
	struct sigaction action = { .sa_sigaction = on_sigbus,
				    .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}
