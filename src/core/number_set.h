/* SPDX-License-Identifier: MIT */
/* Numbers in use; hands out the lowest free one. A bitmap and a hint where it may begin. */
#ifndef CORE_NUMBER_SET_H
#define CORE_NUMBER_SET_H

#include <stdint.h>

struct number_set {
	uint64_t *words;
	unsigned n_words;
	unsigned hint; /* no word below it has a free bit */
};

/* Lowest free number. 0 / -ENOMEM. */
int number_take(struct number_set *set, uint32_t *ret);
/* `number` if it is free and at most NUMBER_MAX, else the lowest free one. 0 / -ENOMEM. */
#define NUMBER_MAX (1u << 20)
int number_take_at(struct number_set *set, uint32_t number, uint32_t *ret);
void number_put(struct number_set *set, uint32_t number);
void number_set_fini(struct number_set *set);

#endif
