/* SPDX-License-Identifier: MIT */
/* The manager as a whole: what the core asks for, start, stop. */
#include "manager/manager.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "fuse/fuse.h"
#include "manager/apply.h"
#include "manager/control.h"
#include "manager/definitions.h"
#include "manager/drivers.h"
#include "manager/lease.h"
#include "manager/listener.h"
#include "manager/mdevctl_root.h"
#include "manager/owners.h"
#include "manager/restart.h"
#include "manager/uevents.h"
#include "manager/upgrade.h"
#include "manager/worker_proc.h"

#define NS_PER_S 1000000000ull
#define FAREWELL_S 4 /* a worker's own deadline to stop, and a little */

/* ---- what the core asks for ---- */

static int op_listen(void *arg, struct umdev_mdev *mdev)
{
	return listener_open(arg, mdev);
}

static void op_unlisten(void *arg, struct umdev_mdev *mdev)
{
	listener_close(mdev->manager);
}

static int op_access(void *arg, struct umdev_mdev *mdev, const struct mdev_access *access)
{
	return listener_set_access(mdev->manager, access);
}

static bool op_is_served(void *arg, const struct umdev_mdev *mdev)
{
	const struct listener *l = mdev->manager;

	return l && l->worker && worker_serves(l->worker);
}

static int op_param_live(void *arg, struct umdev_mdev *mdev, const struct umdev_param *param,
			 const struct umdev_value *value)
{
	struct listener *l = mdev->manager;

	return worker_param_set(l->worker, mdev);
}

static void op_start(void *arg, struct umdev_mdev *mdev)
{
	listener_retry(mdev->manager);
}

static void op_stop(void *arg, struct umdev_mdev *mdev)
{
	struct listener *l = mdev->manager;

	if (l && l->worker)
		worker_check_idle(l->worker);
}

/* One that stops holds what it has until it has ended. */
static int op_resource(void *arg, struct umdev_mdev *mdev, const struct core_resource *change)
{
	struct listener *l = mdev->manager;
	struct worker_member *member = NULL;

	if (l && l->worker && (worker_serves(l->worker) || change->call == UMDEV_RES_WITHDRAW))
		member = worker_member_of(l->worker, mdev);
	if (member)
		return worker_resource(member, change);
	if (change->fd >= 0)
		close(change->fd);
	return 0;
}

static bool op_is_defined(void *arg, const struct umdev_parent *parent, const char *uuid)
{
	const struct manager *m = arg;
	_cleanup_free_ char *path = NULL;

	if (!m->config.config_dir)
		return false;
	path = str_printf("%s/mdevctl.d/%s/%s", m->config.config_dir, parent->name, uuid);
	return path && access(path, F_OK) == 0;
}

static int op_failed_definitions(void *arg, char *buf)
{
	const struct manager *m = arg;

	return definitions_failed_text(m->definitions, buf, TREE_ATTR_SIZE);
}

static void op_disconnect(void *arg, struct umdev_mdev *mdev, bool force)
{
	struct listener *l = mdev->manager;

	worker_disconnect(l->worker, mdev, force);
}

/* The life of devices, one line each. Connections are logged where their peer is known. */
static void log_event(const struct core_event *e)
{
	const char *parent = e->parent ? e->parent->name : "";
	const char *uuid = e->mdev ? e->mdev->uuid_text : "";

	switch (e->type) {
	case CORE_PARENT_ADDED:
		log_info("parent %s: added, driver %s", parent, e->parent->driver->name);
		break;
	case CORE_PARENT_REMOVED:
		log_info("parent %s: removed", parent);
		break;
	case CORE_MDEV_ADDED:
		log_info("device %s: made, %s of %s", uuid, e->mdev->type->info->name, parent);
		break;
	case CORE_MDEV_REMOVED:
		log_info("device %s: removed", uuid);
		break;
	case CORE_MDEV_PARAM:
		log_info("device %s: %s", uuid, e->detail);
		break;
	case CORE_MDEV_GROUP:
		log_info("device %s: in group %s", uuid, e->detail);
		break;
	case CORE_MDEV_STATE:
		log_debug("device %s: %s", uuid, e->detail);
		break;
	default:
		break;
	}
}

static void op_event(void *arg, const struct core_event *event)
{
	struct manager *m = arg;

	if (!m->options.one && !m->restoring)
		log_event(event);
	if (event->type == CORE_MDEV_ADDED)
		lease_watch(m, (struct umdev_mdev *)event->mdev); /* const for who looks only */
	if (event->type == CORE_MDEV_REMOVED)
		lease_end(event->mdev->lease);
	if (event->type == CORE_MDEV_REMOVED)
		restart_forget(m, event->mdev);
	if (!m->restoring)
		uevents_tell(m, event);
	if (m->control)
		control_event(m->control, event);
}

static void op_dirty(void *arg, struct umdev_mdev *mdev)
{
	restart_save(arg, mdev);
}

static const struct core_ops core_ops = {
	.mdev_listen = op_listen,
	.mdev_unlisten = op_unlisten,
	.mdev_access = op_access,
	.is_served = op_is_served,
	.param_live = op_param_live,
	.start = op_start,
	.stop = op_stop,
	.resource = op_resource,
	.job_start = jobs_start,
	.job_cancel = jobs_cancel,
	.is_defined = op_is_defined,
	.failed_definitions = op_failed_definitions,
	.disconnect = op_disconnect,
	.event = op_event,
	.dirty = op_dirty,
};

/* ---- parents that are kept ---- */

int manager_parent_add(struct manager *m, const char *name, const char *driver,
		       const struct core_setting *settings, unsigned n)
{
	struct umdev_parent *parent;
	int r = parent_add(&m->core, name, driver, settings, n, &parent);

	if (r < 0 || m->options.one)
		return r;
	r = config_save_parent(&m->config, name, driver, settings, n);
	if (r < 0)
		parent_remove(parent); /* it has no device yet */
	return r;
}

int manager_parent_remove(struct manager *m, const char *name)
{
	struct umdev_parent *parent = parent_find(&m->core, name);
	int r;

	if (!parent)
		return err_set(-ENOENT, "there is no parent \"%s\": see umdev parent list", name);
	r = parent_remove(parent);
	return r < 0 ? r : config_forget_parent(&m->config, name);
}

/* Back from parents.d: it is kept already. */
static int restore_parent(void *arg, const char *name, const char *driver,
			  const struct core_setting *settings, unsigned n)
{
	struct manager *m = arg;
	struct umdev_parent *parent;

	return parent_add(&m->core, name, driver, settings, n, &parent);
}

/* ---- start ---- */

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* A link to what the machine has at /sys/<dir>/<name>, if it is there. 0 / -ENOMEM */
static int show_host_entry(struct manager *m, struct tree_node *parent, const char *dir,
			   const char *name)
{
	_cleanup_free_ char *path = str_printf("/sys/%s/%s", dir, name);
	_cleanup_free_ char *target = config_run_path(&m->config, "hostsys/%s/%s", dir, name);

	if (!path || !target)
		return -ENOMEM;
	if (access(path, F_OK) < 0)
		return 0;
	return tree_add_link(&m->core.tree, parent, name, target) ? 0 : -ENOMEM;
}

/*
 * The machine's iommu groups: ours begin above them, and each is a link to where `umdev exec` shows
 * the machine's own /sys, so that both are seen there.
 */
static int show_host_groups(struct manager *m)
{
	_cleanup_(closedirp) DIR *dir = opendir("/sys/kernel/iommu_groups");
	const struct dirent *entry;
	uint64_t number;

	while (dir && (entry = readdir(dir))) {
		if (str_to_u64(entry->d_name, strlen(entry->d_name), &number) < 0 ||
		    number >= UINT32_MAX / 2)
			continue;
		if (number >= m->core.first_group)
			m->core.first_group = (unsigned)number + 1;
		if (show_host_entry(m, m->core.iommu_groups, "kernel/iommu_groups", entry->d_name) <
			    0 ||
		    show_host_entry(m, m->core.class_vfio, "class/vfio", entry->d_name) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int make_run_dir(struct manager *m, const char *name)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "%s", name);

	if (!path)
		return -ENOMEM;
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_set(-errno, "cannot make %s: %s", path, strerror(errno));
	return 0;
}

/* The tree is a view: where it cannot be mounted (no fusermount3, no /dev/fuse) all else works. */
static void mount_tree(struct manager *m)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "sys");
	int r = path ? make_run_dir(m, "sys") : -ENOMEM;

	err_clear();
	if (r == 0)
		r = fuse_door_open(&m->core.tree, &m->loop, path, &m->door);
	if (r < 0)
		log_warning("the tree is not mounted at %s: %s; the control socket has it all the "
			    "same",
			    path ? path : "sys", err_text(r));
}

/* In the place of /dev/vfio; only for those who ask there whether a device is in use. */
static void mount_vfio(struct manager *m)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "vfio");

	err_clear();
	if (m->door && path && fuse_vfio_open(&m->core, &m->loop, path, &m->vfio) < 0)
		log_warning("%s is not mounted: %s", path, err_text(-EIO));
}

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* A client costs up to four descriptors; the soft limit is often 1024. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int manager_accept(struct manager *m, int listen_fd)
{
	int fd = sock_accept(listen_fd);
	uint64_t now;

	if (fd != -EMFILE && fd != -ENFILE)
		return fd;
	now = loop_now_ns();
	if (now - m->shed_ns > NS_PER_S)
		log_error("no descriptor is free: connections are closed; raise ulimit -n");
	m->shed_ns = now;
	close(m->spare_fd);
	fd = sock_accept(listen_fd);
	if (fd >= 0)
		close(fd);
	m->spare_fd = open_spare();
	return -EAGAIN;
}

int manager_init(struct manager *m)
{
	int r;

	m->keep = !m->options.one;
	raise_limits();
	m->spare_fd = open_spare();
	list_init(&m->workers);
	list_init(&m->applies);
	jobs_init(&m->jobs);
	r = loop_init(&m->loop);
	if (r == 0)
		r = core_init(&m->core, m->options.drivers->table, &core_ops, m);
	if (r < 0)
		return r;
	r = show_host_groups(m);
	if (r == 0)
		r = make_run_dir(m, "dev");
	if (r == 0)
		r = make_run_dir(m, "worker");
	if (r < 0 || m->options.one)
		return r;
	r = restart_open(m);
	if (r < 0)
		return r;
	if (m->settings.uevents)
		uevents_open(m);
	config_load_parents(&m->config, restore_parent, m);
	restart_restore(m);
	owners_restore(m);
	m->definitions = definitions_start(m);
	mount_tree(m);
	mount_vfio(m);
	mdevctl_root_make(&m->config);
	return control_open(m, &m->control);
}

/* ---- stop ---- */

/* What was killed is gone by now, but for what the kernel does not let go of. */
static void gave_up(struct loop_timer *timer)
{
	struct manager *m = container_of(timer, struct manager, farewell);
	struct worker *w, *next;

	list_for_each_safe(w, next, &m->workers, node) {
		log_error("group %u: " WORKER_STUCK_TEXT ": umdevd stops all the same", w->group);
		worker_abandon(w);
	}
}

static void waited_enough(struct loop_timer *timer)
{
	struct manager *m = container_of(timer, struct manager, farewell);
	struct worker *w, *next;

	list_for_each_safe(w, next, &m->workers, node)
		worker_kill(w, "umdevd stops");
	loop_timer_arm(&m->loop, timer, NS_PER_S, gave_up);
}

void manager_stop(struct manager *m, int exit_code)
{
	struct worker *w;

	if (m->stopping)
		return;
	m->stopping = true;
	m->keep = false;
	m->exit_code = exit_code;
	core_stop_all(&m->core);
	list_for_each(w, &m->workers, node)
		worker_stop(w);
	if (list_is_empty(&m->workers))
		loop_stop(&m->loop, exit_code);
	else
		loop_timer_arm(&m->loop, &m->farewell, FAREWELL_S * NS_PER_S, waited_enough);
}

void manager_leave(struct manager *m)
{
	if (m->stopping)
		return;
	m->stopping = true;
	loop_stop(&m->loop, 0);
}

void manager_worker_gone(struct manager *m, bool clean)
{
	if (m->options.no_socket) /* its only client has left */
		manager_stop(m, clean ? 0 : 1);
	if (m->stopping && list_is_empty(&m->workers))
		loop_stop(&m->loop, m->exit_code);
}

static void remove_run_dir(struct manager *m, const char *name)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "%s", name);

	if (path)
		rmdir(path); /* stays when a daemon before us left something there */
}

void manager_fini(struct manager *m)
{
	struct umdev_parent *parent, *next;

	if (m->loop.epoll_fd < 0)
		return;
	loop_timer_cancel(&m->farewell);
	upgrade_close(m);
	uevents_close(m);
	apply_close(m);
	definitions_free(TAKE(m->definitions));
	control_close(TAKE(m->control));
	fuse_door_close(TAKE(m->vfio));
	fuse_door_close(TAKE(m->door));
	if (m->keep) {
		owners_flush(m);
		return;
	}
	if (m->core.ops) {
		core_abandon_new(&m->core);
		list_for_each_safe(parent, next, &m->core.parents, node)
			parent_remove(parent);
		jobs_fini(m);
		core_fini(&m->core);
	}
	remove_run_dir(m, "dev");
	remove_run_dir(m, "worker");
	remove_run_dir(m, "sys");
	remove_run_dir(m, "vfio");
	if (!m->options.one)
		mdevctl_root_remove(&m->config);
	restart_close(m);
	remove_run_dir(m, "state");
	loop_fini(&m->loop);
	close(m->spare_fd);
}
