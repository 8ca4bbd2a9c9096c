/* SPDX-License-Identifier: MIT */
/* Lowest free number by bitmap; the hint makes a run of takes linear in what it hands out. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/number_set.h"

static int grow(struct number_set *set)
{
	unsigned n = set->n_words ? 2 * set->n_words : 4;
	uint64_t *words = realloc(set->words, n * sizeof(*words));

	if (!words)
		return -ENOMEM;
	memset(words + set->n_words, 0, (n - set->n_words) * sizeof(*words));
	set->words = words;
	set->n_words = n;
	return 0;
}

int number_take(struct number_set *set, uint32_t *ret)
{
	unsigned bit;

	while (set->hint < set->n_words && set->words[set->hint] == UINT64_MAX)
		set->hint++;
	if (set->hint == set->n_words && grow(set) < 0)
		return -ENOMEM;
	bit = (unsigned)__builtin_ctzll(~set->words[set->hint]);
	set->words[set->hint] |= UINT64_C(1) << bit;
	*ret = set->hint * 64 + bit;
	return 0;
}

int number_take_at(struct number_set *set, uint32_t number, uint32_t *ret)
{
	uint64_t bit = UINT64_C(1) << (number % 64);

	if (number > NUMBER_MAX)
		return number_take(set, ret);
	while (number / 64 >= set->n_words)
		if (grow(set) < 0)
			return -ENOMEM;
	if (set->words[number / 64] & bit)
		return number_take(set, ret);
	set->words[number / 64] |= bit;
	*ret = number;
	return 0;
}

void number_put(struct number_set *set, uint32_t number)
{
	uint64_t bit = UINT64_C(1) << (number % 64);

	assert(number / 64 < set->n_words && (set->words[number / 64] & bit));
	set->words[number / 64] &= ~bit;
	if (number / 64 < set->hint)
		set->hint = number / 64;
}

void number_set_fini(struct number_set *set)
{
	free(set->words);
	*set = (struct number_set){ 0 };
}
