/* SPDX-License-Identifier: MIT */
/*
 * Scoped ownership of locals: _cleanup_(f) runs f(&local) at the end of the scope; TAKE() hands
 * the value over and leaves the local empty.
 */
#ifndef UMDEV_CLEANUP_H
#define UMDEV_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

static inline void umdev_freep(void *p)
{
	free(*(void **)p);
}
static inline void umdev_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define _cleanup_free_ _cleanup_(umdev_freep)
#define _cleanup_close_ _cleanup_(umdev_closep)

/* The value of pointer p, which becomes NULL. */
#define TAKE(p)                          \
	({                               \
		__typeof__(p) _took = p; \
		p = NULL;                \
		_took;                   \
	})

/* The descriptor in fd, which becomes -1. */
static inline int take_fd(int *fd)
{
	int took = *fd;

	*fd = -1;
	return took;
}

#endif
