// SPDX-License-Identifier: MIT
/* The state memory of a device's queues. The dead life may have been hostile: what is used as an
 * index is checked; the queues' own states are their drivers' to judge. */
#include <errno.h>
#include <string.h>
#include "queue/internal.h"

static size_t line(size_t n)
{
	return (n + 63) & ~(size_t)63;
}

static size_t states_at(uint32_t n)
{
	return sizeof(struct queue_shared) + n * sizeof(struct queue_slot);
}

static size_t doorbells_at(uint32_t n, uint32_t state_size)
{
	return states_at(n) + n * line(state_size);
}

size_t queue_shared_size(const struct umdev_device_type *type)
{
	const struct umdev_queue_type *t = type->queues;

	return t ? doorbells_at(t->max, t->state_size) + line(4 * t->doorbells) : 0;
}

void *shared_state(struct queue_shared *s, unsigned index)
{
	return (uint8_t *)s + states_at(s->n) + index * line(s->state_size);
}

uint32_t *shared_doorbells(struct queue_shared *s)
{
	return (uint32_t *)((uint8_t *)s + doorbells_at(s->n, s->state_size));
}

void shared_init(struct queue_shared *s, const struct umdev_queue_type *type)
{
	memset(s, 0, doorbells_at(type->max, type->state_size) + line(4 * type->doorbells));
	s->n = type->max;
	s->state_size = type->state_size;
	s->state_version = type->state_version;
	s->doorbells = type->doorbells;
}

int shared_check(const struct queue_shared *s, const struct umdev_queue_type *type)
{
	if (s->n != type->max || s->state_size != type->state_size ||
	    s->state_version != type->state_version || s->doorbells != type->doorbells)
		return -EUCLEAN;
	for (unsigned i = 0; i < QUEUE_RUNNERS_MAX; i++)
		if (s->port[i].at_work > s->n)
			return -EUCLEAN;
	for (unsigned i = 0; i < s->n; i++)
		if (s->slot[i].begun > 2)
			return -EUCLEAN;
	return 0;
}

int shared_check_half(const struct umdev_device *dev)
{
	const uint8_t *states = device_queue_states(dev, dev->half);

	for (unsigned i = 0; i < dev->type->queues->max; i++)
		if (states[i] > (QUEUE_STATE_MASK | QUEUE_CONFIG_1 | QUEUE_KEPT))
			return -EUCLEAN;
	return 0;
}
