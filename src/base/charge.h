/* SPDX-License-Identifier: MIT */
/*
 * What an outsider can make us allocate is charged to an account with a limit, and released with
 * the object. The account belongs to the connection (or control client) and is embedded there.
 */
#ifndef BASE_CHARGE_H
#define BASE_CHARGE_H

#include <stdbool.h>
#include <stdint.h>

struct charge {
	uint64_t used, limit;
};

/* true: taken. false: over the limit, nothing taken. */
static inline bool charge_take(struct charge *c, uint64_t n)
{
	if (n > c->limit - c->used)
		return false;
	c->used += n;
	return true;
}

static inline void charge_release(struct charge *c, uint64_t n)
{
	c->used -= n <= c->used ? n : c->used;
}

#endif
