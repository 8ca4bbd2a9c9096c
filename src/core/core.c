/* SPDX-License-Identifier: MIT */
/* The whole: fixed directories of the tree, and what parent halves may ask (umdev/parent.h). */
#include <fcntl.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include "base/err.h"
#include "base/paths.h"
#include "base/str.h"
#include "base/str.h"
#include "core/private.h"

/* Makes directory `name` in `parent`; after one failure (*error set) nothing any more. */
static struct tree_node *dir(struct core *core, struct tree_node *parent, const char *name,
			     const struct tree_kind *kind, int *error)
{
	struct tree_node *node = NULL;

	if (!*error) {
		node = tree_add(&core->tree, parent, name, kind, core);
		*error = node ? 0 : -ENOMEM;
	}
	return node;
}

static int fixed_dirs(struct core *core)
{
	struct tree_node *root = &core->tree.root;
	const struct tree_kind *plain = &core_dir_kind;
	struct tree_node *bus, *class, *devices, *kernel;
	int error = 0;

	bus = dir(core, root, "bus", plain, &error);
	class = dir(core, root, "class", plain, &error);
	devices = dir(core, root, "devices", plain, &error);
	kernel = dir(core, root, "kernel", plain, &error);
	core->class_dir = class;
	core->bus = dir(core, bus, "mdev", &bus_kind, &error);
	core->bus_devices = dir(core, core->bus, "devices", plain, &error);
	core->bus_drivers = dir(core, core->bus, "drivers", plain, &error);
	core->mdev_bus = dir(core, class, "mdev_bus", plain, &error);
	core->class_vfio = dir(core, class, "vfio", plain, &error);
	core->class_vfio_dev = dir(core, class, "vfio-dev", plain, &error);
	core->devices_virtual = dir(core, devices, "virtual", plain, &error);
	core->virtual_vfio = dir(core, core->devices_virtual, "vfio", plain, &error);
	core->iommu_groups = dir(core, kernel, "iommu_groups", plain, &error);
	return error;
}

int core_init(struct core *core, const struct umdev_parent_driver *const *drivers,
	      const struct core_ops *ops, void *ops_arg)
{
	int error = 0;

	for (const struct umdev_parent_driver *const *d = drivers; *d && !error; d++)
		error = core_check_driver(*d);
	if (error < 0)
		return error;
	*core = (struct core){
		.drivers = drivers,
		.ops = ops,
		.ops_arg = ops_arg,
		.mdevs = UUID_MAP_INIT(struct umdev_mdev, hash_node, uuid),
		.p2p_groups = UUID_MAP_INIT(struct mdev_group, hash_node, p2p),
		.drivers_autoprobe = true,
	};
	list_init(&core->parents);
	list_init(&core->driver_dirs);
	list_init(&core->groups);
	list_init(&core->start_sets);
	error = tree_init(&core->tree);
	if (error < 0)
		return error;
	error = fixed_dirs(core);
	if (!error)
		error = core_types_init(core);
	if (!error)
		error = core_folders_init(core);
	if (error < 0)
		core_fini(core);
	return error;
}

void core_fini(struct core *core)
{
	assert(list_is_empty(&core->parents) && list_is_empty(&core->start_sets));
	tree_fini(&core->tree);
	core_types_fini(core);
	core_folders_fini(core);
	uuid_map_fini(&core->mdevs);
	uuid_map_fini(&core->p2p_groups);
	number_set_fini(&core->group_numbers);
	number_set_fini(&core->vfio_numbers);
}

void *umdev_parent_priv(const struct umdev_parent *parent)
{
	return parent->priv;
}

void umdev_parent_set_priv(struct umdev_parent *parent, void *priv)
{
	parent->priv = priv;
}

void *umdev_mdev_priv(const struct umdev_mdev *mdev)
{
	return mdev->priv;
}

void umdev_mdev_set_priv(struct umdev_mdev *mdev, void *priv)
{
	mdev->priv = priv;
}

bool umdev_is_defined(const struct umdev_parent *parent, const char *uuid)
{
	const struct core_ops *ops = parent->core->ops;

	return ops->is_defined && ops->is_defined(parent->core->ops_arg, parent, uuid);
}

void core_undefined(struct umdev_parent *parent, const char *uuid)
{
	if (parent->driver->undefined)
		parent->driver->undefined(parent, uuid);
}

int umdev_parent_state_dir(const struct umdev_parent *parent)
{
	_cleanup_free_ char *root = NULL, *path = NULL;
	int error = path_root(PATH_STATE, &root);

	if (!error) {
		path = str_printf("%s/parents/%s", root, parent->name);
		error = path ? path_make(path) : -ENOMEM;
	}
	if (error < 0)
		return error;
	error = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return error < 0 ? err_set(-errno, "cannot open %s: %s", path, strerror(errno)) : error;
}

int umdev_job_start(struct umdev_parent *parent, struct umdev_job *job, const char *const *args,
		    const int *fds, unsigned n_fds)
{
	const struct core_ops *ops = parent->core->ops;

	if (!ops->job_start)
		return err_set(-EOPNOTSUPP, "slow work is not done here");
	return ops->job_start(parent->core->ops_arg, job, args, fds, n_fds);
}

void umdev_job_cancel(struct umdev_parent *parent, struct umdev_job *job)
{
	if (job->manager)
		parent->core->ops->job_cancel(parent->core->ops_arg, job, false);
}

void umdev_job_leave(struct umdev_parent *parent, struct umdev_job *job)
{
	if (job->manager)
		parent->core->ops->job_cancel(parent->core->ops_arg, job, true);
}

const char *umdev_parent_name(const struct umdev_parent *parent)
{
	return parent->name;
}

struct umdev_parent *umdev_mdev_parent(const struct umdev_mdev *mdev)
{
	return mdev->parent;
}

const struct umdev_type *umdev_mdev_type(const struct umdev_mdev *mdev)
{
	return mdev->type->desc;
}

const char *umdev_mdev_uuid(const struct umdev_mdev *mdev)
{
	return mdev->uuid_text;
}

const struct umdev_value *umdev_mdev_param(const struct umdev_mdev *mdev, const char *name)
{
	const struct core_type *info = mdev->type->info;

	for (unsigned i = 0; i < info->n_params; i++)
		if (strcmp(info->params[i]->name, name) == 0)
			return mdev_param(mdev, i);
	return NULL;
}

int umdev_mdev_set_number(struct umdev_mdev *mdev, const char *name, uint64_t number)
{
	int index = param_index(mdev->type->info, name);
	struct umdev_value value = { .u64 = number };
	int error;

	assert(index >= 0 && !mdev->dir); /* in hooks->mdev_create only */
	assert(mdev->type->info->params[index]->writable == UMDEV_W_NEVER);
	assert(value_is_numeric(mdev->type->info->params[index]));
	str_format(value.text, sizeof(value.text), "%" PRIu64, number);
	error = value_check(mdev->type->info->params[index], &value);
	return error ? error : param_keep(mdev, (unsigned)index, &value);
}

/* Opened by who asks first and closed with the resources: idle devices are many. */
int umdev_mdev_dirfd(const struct umdev_mdev *mdev)
{
	int *fd = (int *)&mdev->dir_fd; /* what it is does not change, only whether it is open */

	if (*fd < 0 && mdev->dir_path)
		*fd = open(mdev->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return *fd;
}

const char *umdev_mdev_dir(const struct umdev_mdev *mdev)
{
	return mdev->dir_path;
}

void umdev_explain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	err_vset(0, format, args);
	va_end(args);
}
