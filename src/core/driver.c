/* SPDX-License-Identifier: MIT */
/*
 * Is a driver's table one that the core can work with? Judged once, when the core starts, so that
 * nothing behind it asks again. Parameters outside D/vendor/ must be those that their class has in
 * common: a name means one thing for all drivers (docs/abi.md lists them).
 */
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

static const struct {
	const char *class_name, *name;
	enum umdev_param_type type;
} standard[] = {
	{ "block", "blk_size", UMDEV_U32 },
	{ "block", "capacity", UMDEV_SIZE },
	{ "block", "device_features", UMDEV_U64 },
	{ "block", "num_queues", UMDEV_U32 },
	{ "block", "read_only", UMDEV_BOOL },
	{ "block", "seg_max", UMDEV_U32 },
	{ "display", "vram", UMDEV_SIZE },
	{ "display", "xres", UMDEV_U32 },
	{ "display", "yres", UMDEV_U32 },
	{ "net", "device_features", UMDEV_U64 },
	{ "net", "mac_addr", UMDEV_MAC },
	{ "net", "max_vqp", UMDEV_U32 },
	{ "net", "mtu", UMDEV_U32 },
	{ "nvme", "blk_size", UMDEV_U32 },
	{ "nvme", "capacity", UMDEV_SIZE },
	{ "nvme", "num_io_queues", UMDEV_U32 },
	{ "nvme", "read_only", UMDEV_BOOL },
	{ "serial", "backend", UMDEV_ENUM },
	{ "serial", "num_ports", UMDEV_U32 },
};

/* Nothing is common to these: any name is theirs. */
#define FREE_CLASS "misc"

static bool is_class(const char *name)
{
	for (unsigned i = 0; i < sizeof(standard) / sizeof(standard[0]); i++)
		if (strcmp(standard[i].class_name, name) == 0)
			return true;
	return strcmp(name, FREE_CLASS) == 0;
}

static bool is_standard(const char *class_name, const struct umdev_param *desc)
{
	for (unsigned i = 0; i < sizeof(standard) / sizeof(standard[0]); i++)
		if (strcmp(standard[i].class_name, class_name) == 0 &&
		    strcmp(standard[i].name, desc->name) == 0)
			return standard[i].type == desc->type;
	return strcmp(class_name, FREE_CLASS) == 0;
}

static bool is_param_name(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";

	return name[0] >= 'a' && name[0] <= 'z' && strspn(name, letters) == strlen(name);
}

static bool has_pool(const struct umdev_parent_driver *driver, const char *name)
{
	for (const struct umdev_pool *p = driver->pools; p && p->name; p++)
		if (strcmp(p->name, name) == 0)
			return true;
	return false;
}

/* where: the type's name, or the driver's for a setting of its parents. */
static int check_param(const struct umdev_parent_driver *driver, const char *where,
		       const struct umdev_param *desc)
{
	struct umdev_value value;

	if (!desc->name || !is_param_name(desc->name))
		return err_set(-EINVAL, "%s: '%s' is no parameter name ([a-z][a-z0-9_]*)", where,
			       desc->name ? desc->name : "");
	if (desc->type == UMDEV_ENUM && (!desc->choices || !desc->choices[0]))
		return err_set(-EINVAL, "%s: %s has no choices", where, desc->name);
	if (desc->def && param_parse(desc, desc->def, strlen(desc->def), &value) < 0) {
		err_clear(); /* whose default it is matters more */
		return err_set(-EINVAL, "%s: the default '%s' of %s is not one of its values",
			       where, desc->def, desc->name);
	}
	if (desc->pool && (!value_is_numeric(desc) || !has_pool(driver, desc->pool)))
		return err_set(-EINVAL,
			       "%s: %s takes units of '%s', but is no number or there is no "
			       "such pool",
			       where, desc->name, desc->pool);
	return 0;
}

static int check_list(const struct umdev_parent_driver *driver, const char *where,
		      const struct umdev_param *const *list, const char *const *taken)
{
	unsigned n = 0;

	for (; list && list[n]; n++) {
		int error = check_param(driver, where, list[n]);

		if (error < 0)
			return error;
		for (unsigned i = 0; i < n; i++)
			if (strcmp(list[i]->name, list[n]->name) == 0)
				return err_set(-EINVAL, "%s: parameter %s is listed twice", where,
					       list[n]->name);
		for (unsigned i = 0; taken[i]; i++)
			if (strcmp(taken[i], list[n]->name) == 0)
				return err_set(-EINVAL, "%s: parameter %s is the core's", where,
					       list[n]->name);
	}
	if (n > CORE_MAX_PARAMS - CORE_OWN_PARAMS)
		return err_set(-EINVAL, "%s: more than %d parameters", where,
			       CORE_MAX_PARAMS - CORE_OWN_PARAMS);
	return 0;
}

static unsigned count_pools(const struct umdev_parent_driver *driver)
{
	unsigned n = 0;

	while (driver->pools && driver->pools[n].name)
		n++;
	return n;
}

static int check_costs(const struct umdev_parent_driver *driver, const struct umdev_type *type)
{
	unsigned n = count_pools(driver);
	bool scales = false;

	for (unsigned p = 0; p < UMDEV_MAX_POOLS; p++) {
		if (p >= n && (type->pool[p].cost || type->pool[p].scale))
			return err_set(-EINVAL, "%s-%s: costs units of pool %u, which is not there",
				       driver->name, type->name, p);
		scales |= type->pool[p].scale;
	}
	if (type->max_aggregation > 1 && !scales)
		return err_set(-EINVAL, "%s-%s: aggregation takes no units of any pool",
			       driver->name, type->name);
	return 0;
}

static int check_type(const struct umdev_parent_driver *driver, const struct umdev_type *type)
{
	static const char *const own[] = { "label",     "aggregation",
					   "aggregate", "peer_to_peer_resource_uuid",
					   "class",     NULL };
	char where[sizeof(((struct core_type *)0)->name)];
	int error;

	if (str_format(where, sizeof(where), "%s-%s", driver->name, type->name) + 1 >=
	    sizeof(where))
		return err_set(-EINVAL, "%s: the name is too long", where);
	if (!type->device_api || !type->class_name || !is_class(type->class_name))
		return err_set(-EINVAL, "%s: no device_api, or no class that there is", where);
	error = check_list(driver, where, type->params, own);
	if (!error)
		error = check_costs(driver, type);
	for (unsigned i = 0; !error && type->params && type->params[i]; i++) {
		const struct umdev_param *desc = type->params[i];

		if (!desc->vendor && !is_standard(type->class_name, desc))
			error = err_set(-EINVAL,
					"%s: %s is not a parameter of class %s (of that "
					"type): make it a vendor parameter",
					where, desc->name, type->class_name);
	}
	return error;
}

int core_check_driver(const struct umdev_parent_driver *driver)
{
	static const char *const own[] = { "params", "remove", "libvirt_compat", "p2p_domain",
					   NULL };
	int error;

	if (driver->abi != UMDEV_ABI) /* not its name: it may be anywhere */
		return err_set(-EINVAL, "a driver was built for ABI %u, this umdevd has %d",
			       driver->abi, UMDEV_ABI);
	if (!driver->name || !str_is_name(driver->name))
		return err_set(-EINVAL, "driver '%s': no name of letters, digits and '-'",
			       driver->name ? driver->name : "");
	if (!driver->types)
		return err_set(-EINVAL, "driver %s: it has no types", driver->name);
	if (count_pools(driver) > UMDEV_MAX_POOLS)
		return err_set(-EINVAL, "driver %s: more than %d pools", driver->name,
			       UMDEV_MAX_POOLS);
	if (driver->vendor_attrs && !driver->vendor_show)
		return err_set(-EINVAL, "driver %s: vendor_attrs without vendor_show",
			       driver->name);
	error = check_list(driver, driver->name, driver->params, own);
	for (const struct umdev_type *t = driver->types; !error && t->name; t++) {
		error = check_type(driver, t);
		for (const struct umdev_type *other = driver->types; !error && other < t; other++)
			if (strcmp(other->name, t->name) == 0)
				error = err_set(-EINVAL, "driver %s: type %s is listed twice",
						driver->name, t->name);
	}
	return error;
}
