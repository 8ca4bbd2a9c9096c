/* SPDX-License-Identifier: MIT */
/*
 * Pools: counted units of a parent. What a device takes follows from its type and its values
 * alone, so it is computed when units are taken and again when they are given back; nothing else
 * is remembered that could differ. Invariant: sum of the costs of live mdevs = used <= capacity.
 */
#include <inttypes.h>
#include <string.h>
#include "base/err.h"
#include "core/private.h"

static const struct umdev_value *value_of(const struct core_type *info,
					  const struct umdev_mdev *mdev, unsigned i, int index,
					  const struct umdev_value *value)
{
	if ((int)i == index)
		return value;
	return mdev ? mdev_param(mdev, i) : &info->defaults[i];
}

/* The number of the pool of that name in driver->pools, or -1. */
static int pool_number(const struct umdev_parent_driver *driver, const char *name)
{
	for (int i = 0; driver->pools && driver->pools[i].name; i++)
		if (strcmp(driver->pools[i].name, name) == 0)
			return i;
	return -1;
}

int pool_cost(const struct core_type *info, const struct umdev_mdev *mdev, int index,
	      const struct umdev_value *value, struct pool_units *ret)
{
	uint64_t more = 0, scaled;

	if (info->aggregation >= 0)
		more = value_of(info, mdev, (unsigned)info->aggregation, index, value)->u64 - 1;
	for (unsigned p = 0; p < UMDEV_MAX_POOLS; p++)
		if (__builtin_mul_overflow(info->desc->pool[p].scale, more, &scaled) ||
		    __builtin_add_overflow(info->desc->pool[p].cost, scaled, &ret->n[p]))
			return -ENOSPC;
	for (unsigned i = 0; i < info->n_params; i++) {
		const struct umdev_param *desc = info->params[i];
		int p;

		if (!desc->pool || (int)i == info->aggregation)
			continue;
		p = pool_number(info->driver, desc->pool);
		assert(p >= 0);
		if (__builtin_add_overflow(ret->n[p], value_of(info, mdev, i, index, value)->u64,
					   &ret->n[p]))
			return -ENOSPC;
	}
	return 0;
}

static uint64_t pool_free(const struct umdev_parent *parent, unsigned p)
{
	return parent->pools[p].capacity - parent->pools[p].used;
}

int pool_change(struct umdev_parent *parent, const struct pool_units *from,
		const struct pool_units *to)
{
	for (unsigned p = 0; p < parent->n_pools; p++) {
		uint64_t free_units = pool_free(parent, p);
		const char *name = parent->pools[p].pool->name;

		if (to->n[p] <= from->n[p] || to->n[p] - from->n[p] <= free_units)
			continue;
		return err_set(strcmp(name, "instances") == 0 ? -EUSERS : -ENOSPC,
			       "%s: needs %" PRIu64 " more %s, %" PRIu64 " of %" PRIu64
			       " are free; remove a device or make one smaller",
			       parent->name, to->n[p] - from->n[p], name, free_units,
			       parent->pools[p].capacity);
	}
	for (unsigned p = 0; p < parent->n_pools; p++)
		parent->pools[p].used += to->n[p] - from->n[p];
	return 0;
}

uint64_t type_available(const struct mdev_type *type)
{
	struct pool_units cost;
	uint64_t available = UINT32_MAX; /* no pool limits it; the attribute is a %u */

	if (pool_cost(type->info, NULL, -1, NULL, &cost) < 0)
		return 0;
	for (unsigned p = 0; p < type->parent->n_pools; p++)
		if (cost.n[p] && pool_free(type->parent, p) / cost.n[p] < available)
			available = pool_free(type->parent, p) / cost.n[p];
	return available;
}

uint64_t param_available(const struct umdev_mdev *mdev, unsigned index)
{
	const struct core_type *info = mdev->type->info;
	const struct umdev_param *desc = info->params[index];
	uint64_t now = mdev_param(mdev, index)->u64, more = param_max(desc) - now;
	int backed = (int)index == info->aggregation ? -1 : pool_number(info->driver, desc->pool);

	for (unsigned p = 0; p < mdev->parent->n_pools; p++) {
		uint64_t per = backed < 0 ? info->desc->pool[p].scale : (int)p == backed;

		if (per && pool_free(mdev->parent, p) / per < more)
			more = pool_free(mdev->parent, p) / per;
	}
	if (desc->step > 1)
		more -= more % desc->step;
	return now + more;
}

int umdev_pool_resize(struct umdev_parent *parent, const char *pool, uint64_t capacity)
{
	int p = pool_number(parent->driver, pool);

	if (p < 0)
		return err_set(-ENOENT, "%s: no pool '%s'", parent->name, pool);
	assert(!parent->dir); /* in hooks->add only: nothing is taken yet */
	parent->pools[p].capacity = capacity;
	return 0;
}
