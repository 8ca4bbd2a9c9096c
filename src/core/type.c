/* SPDX-License-Identifier: MIT */
/* Types: a driver's tables completed with the parameters that belong to the core. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

#define NAMES 32 /* that a wrong word is compared with */

static const struct umdev_param label_desc = {
	.name = "label",
	.description = "a name for people; commands find the device by it when it is unique",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_LIVE,
};

static const char *const modes[] = { "0600", "0660", "0666", NULL };

static const struct umdev_param mode_desc = {
	.name = "mode",
	.description = "mode of the socket that clients connect to",
	.def = "0600",
	.choices = modes,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_LIVE,
};

static const struct umdev_param p2p_desc = {
	.name = "peer_to_peer_resource_uuid",
	.description = "devices with the same value share one owner, worker and group; "
		       "random when not given",
	.type = UMDEV_UUID,
	.writable = UMDEV_W_IDLE,
};

static const struct umdev_param aggregation_desc = {
	.name = "aggregation",
	.def = "1",
	.min = 1,
	.type = UMDEV_U32,
	.writable = UMDEV_W_IDLE,
};

static int add_param(struct core_type *info, const struct umdev_param *desc)
{
	assert(info->n_params < CORE_MAX_PARAMS);
	info->has_mac |= desc->type == UMDEV_MAC;
	info->params[info->n_params] = desc;
	return (int)info->n_params++;
}

/* uid and gid: who owns the socket that clients connect to. */
static void add_owner(struct core_type *info)
{
	static const char *const names[] = { "uid", "gid" };
	static const char *const descriptions[] = { "user that owns the socket",
						    "group of the socket" };
	const unsigned defs[] = { geteuid(), getegid() };
	int *const indexes[] = { &info->uid, &info->gid };

	for (unsigned i = 0; i < 2; i++) {
		str_format(info->owner_defs[i], sizeof(info->owner_defs[i]), "%u", defs[i]);
		info->owner_descs[i] = (struct umdev_param){
			.name = names[i],
			.description = descriptions[i],
			.def = info->owner_defs[i],
			.max = UINT32_MAX - 1, /* the last one means "leave it" to chown(2) */
			.type = UMDEV_U32,
			.writable = UMDEV_W_LIVE,
		};
		*indexes[i] = add_param(info, &info->owner_descs[i]);
	}
}

/* "how many instances ...; scales queue-pairs (4 each), megabytes (16 each)". */
static void describe_aggregation(struct core_type *info)
{
	char *text = info->aggregation_text;
	size_t size = sizeof(info->aggregation_text);
	size_t at = str_format(text, size, "how many instances of the type this device is made of");

	for (unsigned p = 0, n = 0; p < UMDEV_MAX_POOLS; p++)
		if (info->desc->pool[p].scale)
			at += str_format(text + at, size - at, "%s%s (%" PRIu64 " each)",
					 n++ ? ", " : "; scales ", info->driver->pools[p].name,
					 info->desc->pool[p].scale);
}

static void add_aggregation(struct core_type *info)
{
	struct umdev_param *desc = &info->aggregation_desc;

	*desc = aggregation_desc;
	describe_aggregation(info);
	desc->description = info->aggregation_text;
	desc->max = info->desc->max_aggregation;
	if (info->desc->aggregation_writable)
		desc->writable = info->desc->aggregation_writable;
	for (unsigned p = UMDEV_MAX_POOLS; p-- > 0;)
		if (info->desc->pool[p].scale)
			desc->pool = info->driver->pools[p].name;
	desc->unit = desc->pool;
	info->aggregation = add_param(info, desc);
}

static bool shows_aggregation(const struct umdev_param *desc)
{
	return desc->id == UMDEV_PARAM_NUM_IO_QUEUES || desc->id == UMDEV_PARAM_NUM_PORTS;
}

/* What the driver lists. core_check_driver went through it. */
static int add_listed(struct core_type *info, const struct umdev_param *const *list)
{
	unsigned n = 0;

	while (list && list[n])
		n++;
	info->standard = calloc(n + 1, sizeof(*info->standard));
	if (!info->standard)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		struct umdev_param *copy = &info->standard[i];
		int error = standard_complete(info->name, info->desc->class_name, list[i], copy);

		assert(error == 0);
		if (shows_aggregation(copy) && info->aggregation >= 0) {
			copy->def = aggregation_desc.def;
			copy->min = aggregation_desc.min;
			copy->max = info->desc->max_aggregation;
			info->mirror = (int)info->n_params;
		}
		/* Of its own the driver is given what it listed: it may compare pointers. */
		add_param(info, copy->id ? copy : list[i]);
	}
	return 0;
}

static int type_init(struct core_type *info, const struct umdev_parent_driver *driver,
		     const struct umdev_type *desc)
{
	int error;

	info->driver = driver;
	info->desc = desc;
	str_format(info->name, sizeof(info->name), "%s-%s", driver->name, desc->name);
	info->label = info->aggregation = info->p2p = info->mirror = -1;
	if (desc->label)
		info->label = add_param(info, &label_desc);
	if (desc->max_aggregation > 1)
		add_aggregation(info);
	if (desc->p2p)
		info->p2p = add_param(info, &p2p_desc);
	add_owner(info);
	info->mode = add_param(info, &mode_desc);
	info->n_standard = info->n_params;
	error = add_listed(info, desc->params);
	if (error < 0)
		return error;
	info->defaults = calloc(info->n_params + 1, sizeof(*info->defaults));
	if (!info->defaults)
		return -ENOMEM;
	for (unsigned i = 0; i < info->n_params; i++)
		value_default(info->params[i], &info->defaults[i]);
	info->shape = mdev_shape_new(info);
	return info->shape ? 0 : -ENOMEM;
}

int core_types_init(struct core *core)
{
	unsigned n = 0;
	int error = 0;

	for (const struct umdev_parent_driver *const *d = core->drivers; *d; d++)
		for (const struct umdev_type *t = (*d)->types; t->name; t++)
			n++;
	core->types = calloc(n + 1, sizeof(*core->types));
	if (!core->types)
		return -ENOMEM;
	for (const struct umdev_parent_driver *const *d = core->drivers; *d; d++)
		for (const struct umdev_type *t = (*d)->types; t->name && !error; t++)
			error = type_init(&core->types[core->n_types++], *d, t);
	return error;
}

void core_types_fini(struct core *core)
{
	for (unsigned i = 0; i < core->n_types; i++) {
		mdev_shape_free(core->types[i].shape);
		free(core->types[i].defaults);
		free(core->types[i].standard);
	}
	free(core->types);
	core->types = NULL;
	core->n_types = 0;
}

const struct core_type *core_type_of(const struct core *core, const struct umdev_type *desc)
{
	for (unsigned i = 0; i < core->n_types; i++)
		if (core->types[i].desc == desc)
			return &core->types[i];
	return NULL;
}

struct mdev_type *type_find(struct umdev_parent *parent, const char *full_name)
{
	const char *names[NAMES + 1], *near;
	unsigned n = 0;

	for (unsigned i = 0; i < parent->n_types; i++) {
		if (strcmp(parent->types[i].info->name, full_name) == 0)
			return &parent->types[i];
		if (n < NAMES)
			names[n++] = parent->types[i].info->name;
	}
	names[n] = NULL;
	near = err_nearest(full_name, names);
	if (near)
		err_set(-ENOENT, "%s has no type '%s'; did you mean '%s'?", parent->name, full_name,
			near);
	else
		err_set(-ENOENT, "%s has no type '%s'; `umdev types` lists them", parent->name,
			full_name);
	return NULL;
}
