/* SPDX-License-Identifier: MIT */
/*
 * Two halves and one aligned store: how state changes atomically under SIGKILL.
 *
 * SIGKILL stops user code at an instruction boundary and stores made before it stay in a shared
 * memfd. So: copy the current half to the spare one, change the spare one, store `cur`. Before
 * that store the change never happened, after it it did. Compiler barriers suffice between the
 * lives of one worker.
 */
#ifndef BASE_AB_H
#define BASE_AB_H

#include <stdint.h>
#include <string.h>

/* In shared memory. The halves lie wherever the owner put them. */
struct ab {
	uint32_t cur; /* 0 or 1; anything else in an inherited state is corruption */
	uint32_t pad;
};

#define ab_barrier() __asm__ __volatile__("" ::: "memory")

static inline uint32_t ab_spare(const struct ab *ab)
{
	return (ab->cur & 1) ^ 1;
}

/* Make the spare half current. */
static inline void ab_flip(struct ab *ab)
{
	ab_barrier();
	__atomic_store_n(&ab->cur, (ab->cur & 1) ^ 1, __ATOMIC_RELAXED);
	ab_barrier();
}

#endif
