/* SPDX-License-Identifier: MIT */
/*
 * The methods of io.umdev: each finds its objects and ends in one call of the core or the tree,
 * as a write into the tree does.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/sock.h"
#include "base/str.h"
#include "base/uuid.h"
#include "core/core.h"
#include "manager/apply.h"
#include "manager/control.h"
#include "manager/definitions.h"
#include "manager/drivers.h"
#include "manager/lease.h"
#include "manager/manager.h"
#include "manager/upgrade.h"

#define MAX_SETTINGS 64 /* twice what a driver may declare */

/* *ret = { key: value }; takes value, NULL is no memory. */
static int give(json_t **ret, const char *key, json_t *value)
{
	*ret = value ? json_pack("{s:o}", key, value) : NULL;
	return *ret ? 0 : -ENOMEM;
}

int control_find_parent(struct manager *m, const char *name, struct umdev_parent **ret)
{
	*ret = parent_find(&m->core, name);
	if (!*ret)
		return err_set(-ENOENT, "there is no parent \"%s\": see umdev parent list", name);
	return 0;
}

int control_may_write(struct manager *m, const struct control_peer *peer, struct tree_node *node,
		      const char *path)
{
	struct tree *tree = &m->core.tree;
	struct tree_ref dir, ref;
	char name[TREE_NAME_MAX + 1], above[TREE_PATH_MAX] = "";
	int r = node ? 0 : -ENOENT;

	if (peer->trusted)
		return 0;
	if (node)
		ref = tree_ref_of(node);
	for (const char *at = path; r == 0 && *at; at += strspn(at, "/")) {
		size_t len = strcspn(at, "/");

		dir = ref;
		str_format(name, sizeof(name), "%.*s", (int)len, at);
		r = tree_lookup(tree, &dir, name, &ref);
		at += len;
	}
	if (r == 0 && tree_access(tree, &ref, W_OK, &peer->user) == 0)
		return 0;
	if (node) {
		dir = tree_ref_of(node);
		tree_path(&dir, above, sizeof(above));
	}
	return err_set(-EACCES,
		       "not allowed: that is for those who may write %s/%s in the tree (chown and "
		       "chmod there), for root, the user of umdevd and its control_group",
		       above, path);
}

/* ---- org.varlink.service ---- */

static int run_get_info(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	*ret = json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "umdev", "product", "umdevd",
			 "version", UMDEV_VERSION, "url", "https://varlink.org", "interfaces",
			 "org.varlink.service", "io.umdev");
	return *ret ? 0 : -ENOMEM;
}

static const char service_interface[] =
	"interface org.varlink.service\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, url: string, "
	"interfaces: []string)\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error InvalidParameter (parameter: string)\n"
	"error ExpectedMore ()\n";

static int run_describe(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	const char *name = varlink_text(params, "interface");

	if (strcmp(name, "io.umdev") == 0)
		return give(ret, "description", json_string(control_interface));
	if (strcmp(name, "org.varlink.service") == 0)
		return give(ret, "description", json_string(service_interface));
	return err_set(-ENOENT, "there is no interface \"%s\"", name);
}

/* ---- parents ---- */

static int run_drivers(struct manager *m, const struct control_peer *peer, json_t *params,
		       struct attr_wait *wait, json_t **ret)
{
	const struct drivers *drivers = m->options.drivers;
	json_t *array = json_array();

	for (unsigned i = 0; i < drivers->n; i++) {
		const struct umdev_parent_driver *d = drivers->table[i];

		control_append(&array, control_driver_json(d, drivers_file(drivers, d)));
	}
	return give(ret, "drivers", array);
}

/* "key=value" in place: the '=' becomes a NUL. copy is to be freed. */
static int split_setting(const char *text, char **copy, struct core_setting *ret)
{
	char *equals;

	*copy = strdup(text);
	if (!*copy)
		return -ENOMEM;
	equals = strchr(*copy, '=');
	if (!equals || equals == *copy)
		return err_set(-EINVAL, "\"%s\" is no setting: it must be key=value", text);
	*equals = '\0';
	*ret = (struct core_setting){ *copy, equals + 1 };
	return 0;
}

static int run_parent_add(struct manager *m, const struct control_peer *peer, json_t *params,
			  struct attr_wait *wait, json_t **ret)
{
	struct core_setting settings[MAX_SETTINGS];
	char *copies[MAX_SETTINGS];
	const json_t *array = json_object_get(params, "settings"), *item;
	unsigned n = 0;
	size_t i;
	int r = 0;

	if (json_array_size(array) > MAX_SETTINGS)
		return err_set(-E2BIG, "more than %d settings", MAX_SETTINGS);
	json_array_foreach(array, i, item) {
		r = split_setting(json_string_value(item), &copies[n], &settings[n]);
		n++;
		if (r < 0)
			break;
	}
	if (r == 0)
		r = manager_parent_add(m, varlink_text(params, "name"),
				       varlink_text(params, "driver"), settings, n);
	while (n)
		free(copies[--n]);
	return r;
}

static int run_parent_remove(struct manager *m, const struct control_peer *peer, json_t *params,
			     struct attr_wait *wait, json_t **ret)
{
	return manager_parent_remove(m, varlink_text(params, "name"));
}

static int run_parent_list(struct manager *m, const struct control_peer *peer, json_t *params,
			   struct attr_wait *wait, json_t **ret)
{
	const struct umdev_parent *parent;
	json_t *array = json_array();

	list_for_each(parent, &m->core.parents, node)
		control_append(&array, control_parent_json(parent));
	return give(ret, "parents", array);
}

/* Calls fn for the parent that params name, or for each. */
static int for_parents(struct manager *m, json_t *params,
		       void (*fn)(const struct umdev_parent *parent, json_t **array),
		       json_t **array)
{
	const char *name = varlink_text(params, "parent");
	struct umdev_parent *parent;
	int r;

	if (name) {
		r = control_find_parent(m, name, &parent);
		if (r == 0)
			fn(parent, array);
		return r;
	}
	list_for_each(parent, &m->core.parents, node)
		fn(parent, array);
	return 0;
}

static void add_types(const struct umdev_parent *parent, json_t **array)
{
	for (unsigned i = 0; i < parent->n_types; i++)
		control_append(array, control_type_json(&parent->types[i]));
}

static void add_devices(const struct umdev_parent *parent, json_t **array)
{
	const struct umdev_mdev *mdev;

	list_for_each(mdev, &parent->mdevs, parent_node) {
		if (mdev->dir)
			control_append(array, control_device_json(mdev));
	}
}

static int run_types(struct manager *m, const struct control_peer *peer, json_t *params,
		     struct attr_wait *wait, json_t **ret)
{
	json_t *array = json_array();
	int r = for_parents(m, params, add_types, &array);

	if (r < 0) {
		json_decref(array);
		return r;
	}
	return give(ret, "types", array);
}

/* ---- devices ---- */

static int run_list(struct manager *m, const struct control_peer *peer, json_t *params,
		    struct attr_wait *wait, json_t **ret)
{
	json_t *array = json_array();
	int r = for_parents(m, params, add_devices, &array);

	if (r < 0) {
		json_decref(array);
		return r;
	}
	definitions_failed_json(m->definitions, varlink_text(params, "parent"), &array);
	return give(ret, "devices", array);
}

/* What a shell would write to create: "UUID,key=value,...". NULL: no memory. */
static char *make_spec(const char *uuid, const json_t *settings)
{
	char *spec = strdup(uuid), *longer;
	const json_t *item;
	size_t i;

	json_array_foreach(settings, i, item) {
		longer = spec ? str_printf("%s,%s", spec, json_string_value(item)) : NULL;
		free(spec);
		spec = longer;
	}
	return spec;
}

/* In a spec a comma ends a setting, so none may hold one. */
static int check_settings(const json_t *settings)
{
	const json_t *item;
	size_t i;

	json_array_foreach(settings, i, item) {
		if (strpbrk(json_string_value(item), ",\n"))
			return err_set(-EINVAL,
				       "\"%s\": a setting holds neither a comma nor a line end",
				       json_string_value(item));
	}
	return 0;
}

/* The process that the device is to go with; 0: none. */
static int get_owner(const json_t *params, pid_t *ret)
{
	const json_t *pid = json_object_get(params, "owner_pid");
	json_int_t n = json_integer_value(pid);

	*ret = 0;
	if (!json_is_integer(pid))
		return 0;
	if (n < 1 || n > INT_MAX || !process_start((pid_t)n))
		return err_set(-ESRCH, "there is no process %lld", (long long)n);
	*ret = (pid_t)n;
	return 0;
}

/* Its process cannot be watched (text left). made: what mdev_create returned. */
static int undo_create(struct umdev_mdev *mdev, int made)
{
	mdev->lease_pid = 0;
	if (made == 0)
		mdev_remove(mdev, MDEV_REMOVE, NULL);
	return -ESRCH;
}

static int run_create(struct manager *m, const struct control_peer *peer, json_t *params,
		      struct attr_wait *wait, json_t **ret)
{
	const json_t *settings = json_object_get(params, "settings");
	const char *given = varlink_text(params, "uuid");
	_cleanup_free_ char *spec = NULL;
	struct umdev_parent *parent;
	struct umdev_mdev *mdev;
	struct mdev_type *type;
	char uuid[UUID_TEXT];
	struct uuid random;
	pid_t owner = 0;
	int r;

	r = control_find_parent(m, varlink_text(params, "parent"), &parent);
	if (r == 0)
		r = check_settings(settings);
	if (r == 0)
		r = get_owner(params, &owner);
	if (r == 0 && !given)
		r = uuid_random(&random);
	if (r < 0)
		return r;
	type = type_find(parent, varlink_text(params, "type"));
	if (!type)
		return -ENOENT;
	r = control_may_write(m, peer, type->dir, "create");
	if (r < 0)
		return r;
	if (!given)
		uuid_format(&random, uuid);
	spec = make_spec(given ? given : uuid, settings);
	if (!spec)
		return -ENOMEM;
	r = mdev_create(type, spec, strlen(spec), &mdev);
	if (r < 0)
		return r;
	if (owner && lease_take(m, mdev, owner) < 0)
		return undo_create(mdev, r);
	if (give(ret, "uuid", json_string(mdev->uuid_text)) < 0) {
		if (r != TREE_LATER)
			mdev_remove(mdev, MDEV_REMOVE, NULL); /* nobody would know its name */
		return -ENOMEM;
	}
	if (r == TREE_LATER)
		attr_hold(&mdev->create_wait, wait);
	return r;
}

static int run_remove(struct manager *m, const struct control_peer *peer, json_t *params,
		      struct attr_wait *wait, json_t **ret)
{
	struct umdev_mdev *mdev;
	int r = mdev_find_name(&m->core, varlink_text(params, "name"), &mdev);

	if (r == 0)
		r = control_may_write(m, peer, mdev->dir, "remove");
	if (r < 0)
		return r;
	return mdev_remove(mdev, varlink_bool(params, "force") ? MDEV_REMOVE_FORCE : MDEV_REMOVE,
			   wait);
}

static int run_show(struct manager *m, const struct control_peer *peer, json_t *params,
		    struct attr_wait *wait, json_t **ret)
{
	static const struct tree_user root = { 0 };
	const struct tree_user *user = peer->trusted ? &root : &peer->user;
	const char *name = varlink_text(params, "name");
	struct umdev_mdev *mdev;
	int r = mdev_find_name(&m->core, name, &mdev);
	json_t *failed = r == -ENODEV || r == -ENOENT ? definitions_failed_one(m->definitions, name)
						      : NULL;

	if (failed) {
		*ret = json_pack("{s:o, s:[], s:{s:s, s:s, s:s}}", "device", failed, "params",
				 "attach", "presentation", "none", "socket", "", "directory", "");
		return *ret ? 0 : -ENOMEM;
	}
	if (r < 0)
		return r;
	if (!mdev->dir)
		return err_set(-ENODEV, "%s is being removed", mdev->uuid_text);
	*ret = json_pack("{s:o, s:o, s:o}", "device", control_device_json(mdev), "params",
			 control_params_json(mdev, user), "attach", control_attach_json(mdev));
	return *ret ? 0 : -ENOMEM;
}

/* By the mode of the parameter's file. One that does not exist is not for everybody to know. */
static int may_set(struct manager *m, const struct control_peer *peer, struct umdev_mdev *mdev,
		   const char *name)
{
	_cleanup_free_ char *common = str_printf("mdev/%s/value", name),
			    *own = str_printf("vendor/%s/value", name);
	int r;

	if (!common || !own)
		return -ENOMEM;
	if (control_may_write(m, peer, mdev->dir, common) == 0)
		return 0;
	r = control_may_write(m, peer, mdev->dir, own);
	if (r == 0)
		err_clear();
	return r;
}

static int run_param_set(struct manager *m, const struct control_peer *peer, json_t *params,
			 struct attr_wait *wait, json_t **ret)
{
	const char *value = varlink_text(params, "value"), *name = varlink_text(params, "param");
	struct umdev_mdev *mdev;
	int r = mdev_find_name(&m->core, varlink_text(params, "name"), &mdev);

	if (r == 0 && !peer->trusted)
		r = may_set(m, peer, mdev, name);
	if (r < 0)
		return r;
	return param_set(mdev, name, value, strlen(value), wait);
}

/* The devices of those names; of one name that is a group's, the group. */
static int find_set(struct manager *m, const json_t *names, struct mdev_set *ret)
{
	const char *only = json_string_value(json_array_get(names, 0));
	const json_t *name;
	struct uuid uuid;
	size_t i;
	int r = 0;

	ret->n = 0;
	if (json_array_size(names) == 1 && strlen(only) == UUID_TEXT - 1 &&
	    uuid_parse(only, UUID_TEXT - 1, &uuid) == 0)
		r = mdev_set_add_group(&m->core, &uuid, ret);
	if (ret->n)
		return r;
	json_array_foreach(names, i, name) {
		if (r == 0)
			r = mdev_set_add(&m->core, json_string_value(name), ret);
	}
	return r;
}

static int run_commit(struct manager *m, const struct control_peer *peer, json_t *params,
		      struct attr_wait *wait, json_t **ret)
{
	struct mdev_set set;
	int r = find_set(m, json_object_get(params, "names"), &set);

	return r < 0 ? r : mdev_start(&m->core, &set, wait);
}

static int run_release(struct manager *m, const struct control_peer *peer, json_t *params,
		       struct attr_wait *wait, json_t **ret)
{
	struct mdev_set set;
	int r = find_set(m, json_object_get(params, "names"), &set);

	return r < 0 ? r : mdev_stop(&m->core, &set);
}

static int run_apply(struct manager *m, const struct control_peer *peer, json_t *params,
		     struct attr_wait *wait, json_t **ret)
{
	return apply_start(m, json_object_get(params, "changes"), varlink_bool(params, "dry_run"),
			   wait);
}

static int run_restart(struct manager *m, const struct control_peer *peer, json_t *params,
		       struct attr_wait *wait, json_t **ret)
{
	const char *name = varlink_text(params, "name");
	struct umdev_mdev *mdev = NULL;
	int r = name ? mdev_find_name(&m->core, name, &mdev) : 0;

	return r < 0 ? r : upgrade_start(m, mdev, wait, ret);
}

/* ---- the tree ---- */

/* What path names, if that user may do `bits` with it. */
static int find_path(struct manager *m, const struct control_peer *peer, const char *path,
		     enum tree_what what, int bits, struct tree_ref *ret)
{
	static const struct tree_user root = { 0 };
	int r;

	if (*path != '/')
		return err_set(-EINVAL, "%s: a path begins with \"/\", the root of the tree", path);
	r = tree_walk(&m->core.tree, path, true, ret);
	if (r < 0)
		return err_set(r, "%s: %s", path, strerror(-r));
	if (ret->what != what)
		r = what == TREE_DIR ? -ENOTDIR : -EISDIR;
	if (r == 0)
		r = tree_access(&m->core.tree, ret, bits, peer->trusted ? &root : &peer->user);
	return r < 0 ? err_set(r, "%s: %s", path, strerror(-r)) : 0;
}

static int run_read(struct manager *m, const struct control_peer *peer, json_t *params,
		    struct attr_wait *wait, json_t **ret)
{
	const char *path = varlink_text(params, "path");
	char buf[TREE_ATTR_SIZE];
	struct tree_ref ref;
	int r = find_path(m, peer, path, TREE_FILE, R_OK, &ref);

	if (r == 0)
		r = tree_show(&ref, buf);
	if (r < 0)
		return err_set(r, "%s: %s", path, strerror(-r));
	return give(ret, "value", json_stringn(buf, (size_t)r));
}

static int run_write(struct manager *m, const struct control_peer *peer, json_t *params,
		     struct attr_wait *wait, json_t **ret)
{
	const char *value = varlink_text(params, "value");
	struct tree_ref ref;
	int r = find_path(m, peer, varlink_text(params, "path"), TREE_FILE, W_OK, &ref);

	return r < 0 ? r : tree_store(&m->core.tree, &ref, value, strlen(value), wait);
}

struct entries {
	struct tree *tree;
	json_t *array;
};

static bool add_entry(void *arg, const char *name, const struct tree_ref *ref)
{
	static const char *const kinds[] = {
		[TREE_DIR] = "directory",
		[TREE_FILE] = "file",
		[TREE_LINK] = "link",
	};
	struct entries *e = arg;
	char target[TREE_PATH_MAX];
	struct stat st;
	json_t *json;

	tree_stat(e->tree, ref, &st);
	if (ref->what != TREE_LINK || tree_readlink(ref, target, sizeof(target)) < 0)
		target[0] = '\0';
	json = json_pack("{s:s, s:s, s:i, s:s*}", "name", name, "kind", kinds[ref->what], "mode",
			 (int)(st.st_mode & 07777), "target", *target ? target : NULL);
	control_append(&e->array, json);
	return e->array;
}

static int run_list_dir(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret)
{
	struct entries e = { .tree = &m->core.tree };
	struct tree_ref ref;
	int r = find_path(m, peer, varlink_text(params, "path"), TREE_DIR, R_OK, &ref);

	if (r < 0)
		return r;
	e.array = json_array();
	tree_list(&m->core.tree, &ref, 0, add_entry, &e);
	return give(ret, "entries", e.array);
}

/* Events come from now on; the first answer says so. */
static int run_monitor(struct manager *m, const struct control_peer *peer, json_t *params,
		       struct attr_wait *wait, json_t **ret)
{
	return 0;
}

const struct control_method control_methods[] = {
	{ "org.varlink.service.GetInfo", .run = run_get_info },
	{ "org.varlink.service.GetInterfaceDescription", .run = run_describe,
	  .params = { { "interface", VARLINK_TEXT } } },
	{ "io.umdev.Drivers", .run = run_drivers },
	{ "io.umdev.ParentAdd", .run = run_parent_add, .changes = true,
	  .params = { { "name", VARLINK_TEXT },
		      { "driver", VARLINK_TEXT },
		      { "settings", VARLINK_TEXTS } } },
	{ "io.umdev.ParentRemove", .run = run_parent_remove, .changes = true,
	  .params = { { "name", VARLINK_TEXT } } },
	{ "io.umdev.ParentList", .run = run_parent_list },
	{ "io.umdev.Types", .run = run_types,
	  .params = { { "parent", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Create", .run = run_create,
	  .params = { { "parent", VARLINK_TEXT },
		      { "type", VARLINK_TEXT },
		      { "uuid", VARLINK_TEXT, .optional = true },
		      { "settings", VARLINK_TEXTS },
		      { "owner_pid", VARLINK_INT, .optional = true } } },
	{ "io.umdev.CreateMany", .run = control_create_many,
	  .params = { { "parent", VARLINK_TEXT },
		      { "type", VARLINK_TEXT },
		      { "specs", VARLINK_TEXTS },
		      { "all", VARLINK_BOOL } } },
	{ "io.umdev.RemoveMany", .run = control_remove_many,
	  .params = { { "names", VARLINK_TEXTS },
		      { "force", VARLINK_BOOL },
		      { "all", VARLINK_BOOL } } },
	{ "io.umdev.Remove", .run = run_remove,
	  .params = { { "name", VARLINK_TEXT }, { "force", VARLINK_BOOL } } },
	{ "io.umdev.List", .run = run_list, .list = "devices",
	  .params = { { "parent", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Show", .run = run_show, .params = { { "name", VARLINK_TEXT } } },
	{ "io.umdev.ParamSet", .run = run_param_set,
	  .params = { { "name", VARLINK_TEXT },
		      { "param", VARLINK_TEXT },
		      { "value", VARLINK_TEXT } } },
	{ "io.umdev.Commit", .run = run_commit, .changes = true,
	  .params = { { "names", VARLINK_TEXTS } } },
	{ "io.umdev.Release", .run = run_release, .changes = true,
	  .params = { { "names", VARLINK_TEXTS } } },
	{ "io.umdev.Define", .run = control_define, .changes = true,
	  .params = { { "uuid", VARLINK_TEXT, .optional = true },
		      { "parent", VARLINK_TEXT, .optional = true },
		      { "type", VARLINK_TEXT, .optional = true },
		      { "auto", VARLINK_BOOL, .optional = true },
		      { "definition", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Undefine", .run = control_undefine, .changes = true,
	  .params = { { "uuid", VARLINK_TEXT }, { "parent", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Modify", .run = control_modify, .changes = true,
	  .params = { { "uuid", VARLINK_TEXT },
		      { "parent", VARLINK_TEXT, .optional = true },
		      { "type", VARLINK_TEXT, .optional = true },
		      { "auto", VARLINK_BOOL, .optional = true },
		      { "add", VARLINK_TEXT, .optional = true },
		      { "delete", VARLINK_BOOL, .optional = true },
		      { "index", VARLINK_INT, .optional = true },
		      { "definition", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Start", .run = control_start_defined, .changes = true,
	  .params = { { "uuid", VARLINK_TEXT, .optional = true },
		      { "parent", VARLINK_TEXT, .optional = true },
		      { "type", VARLINK_TEXT, .optional = true },
		      { "definition", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.SetAttrs", .run = control_set_attrs, .changes = true,
	  .params = { { "name", VARLINK_TEXT }, { "attrs", VARLINK_TEXTS } } },
	{ "io.umdev.Attrs", .run = control_attrs, .params = { { "name", VARLINK_TEXT } } },
	{ "io.umdev.Definitions", .run = control_definitions,
	  .params = { { "parent", VARLINK_TEXT, .optional = true },
		      { "uuid", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Apply", .run = run_apply, .changes = true,
	  .params = { { "changes", VARLINK_OBJECTS }, { "dry_run", VARLINK_BOOL } } },
	{ "io.umdev.Restart", .run = run_restart, .changes = true,
	  .params = { { "name", VARLINK_TEXT, .optional = true } } },
	{ "io.umdev.Read", .run = run_read, .params = { { "path", VARLINK_TEXT } } },
	{ "io.umdev.Write", .run = run_write,
	  .params = { { "path", VARLINK_TEXT }, { "value", VARLINK_TEXT } } },
	{ "io.umdev.ListDir", .run = run_list_dir, .params = { { "path", VARLINK_TEXT } } },
	{ "io.umdev.Monitor", .run = run_monitor, .stays = true },
	{ NULL },
};
