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

/* The n-th of a list, completed and right by itself. class_name NULL: of a parent's settings. */
static int check_entry(const struct umdev_parent_driver *driver, const char *where,
		       const char *class_name, const struct umdev_param *given,
		       struct umdev_param *ret)
{
	int error;

	if (!class_name && given->id)
		return err_set(-EINVAL, "%s: a setting of a parent has no id", where);
	error = standard_complete(where, class_name, given, ret);
	if (!error)
		error = check_param(driver, where, ret);
	if (!error && !ret->id && class_name && standard_has_name(class_name, ret->name))
		return err_set(-EINVAL, "%s: %s is a name of class %s: list it by its id", where,
			       ret->name, class_name);
	return error;
}

static int check_list(const struct umdev_parent_driver *driver, const char *where,
		      const char *class_name, const struct umdev_param *const *list,
		      const char *const *taken)
{
	const char *names[CORE_MAX_PARAMS - CORE_OWN_PARAMS];
	struct umdev_param desc;

	for (unsigned n = 0; list && list[n]; n++) {
		int error = check_entry(driver, where, class_name, list[n], &desc);

		if (error < 0)
			return error;
		if (n == CORE_MAX_PARAMS - CORE_OWN_PARAMS)
			return err_set(-EINVAL, "%s: more than %d parameters", where, n);
		names[n] = desc.name;
		for (unsigned i = 0; i < n; i++)
			if (strcmp(names[i], desc.name) == 0)
				return err_set(-EINVAL, "%s: parameter %s is listed twice", where,
					       desc.name);
		for (unsigned i = 0; taken[i]; i++)
			if (strcmp(taken[i], desc.name) == 0)
				return err_set(-EINVAL, "%s: parameter %s is the core's", where,
					       desc.name);
	}
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
	if (type->aggregation_writable == UMDEV_W_CREATE ||
	    type->aggregation_writable == UMDEV_W_LIVE)
		return err_set(-EINVAL, "%s-%s: aggregation is once, fresh or idle", driver->name,
			       type->name);
	return 0;
}

static int check_type(const struct umdev_parent_driver *driver, const struct umdev_type *type)
{
	static const char *const own[] = { "label",
					   "uid",
					   "gid",
					   "mode",
					   "aggregation",
					   "aggregate",
					   "peer_to_peer_resource_uuid",
					   "class",
					   NULL };
	char where[sizeof(((struct core_type *)0)->name)];
	int error;

	if (str_format(where, sizeof(where), "%s-%s", driver->name, type->name) + 1 >=
	    sizeof(where))
		return err_set(-EINVAL, "%s: the name is too long", where);
	if (!type->device_api || !type->class_name || !standard_is_class(type->class_name))
		return err_set(-EINVAL, "%s: no device_api, or no class that there is", where);
	error = check_list(driver, where, type->class_name, type->params, own);
	return error ? error : check_costs(driver, type);
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
	error = check_list(driver, driver->name, NULL, driver->params, own);
	for (const struct umdev_type *t = driver->types; !error && t->name; t++) {
		error = check_type(driver, t);
		for (const struct umdev_type *other = driver->types; !error && other < t; other++)
			if (strcmp(other->name, t->name) == 0)
				error = err_set(-EINVAL, "driver %s: type %s is listed twice",
						driver->name, t->name);
	}
	return error;
}
