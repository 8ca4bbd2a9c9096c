/* SPDX-License-Identifier: MIT */
/* What is written for a successor, and what it makes of it; restart.h has the idea. */
#include "manager/restart.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "core/group.h"
#include "core/resources.h"
#include "manager/control.h"
#include "manager/listener.h"
#include "manager/manager.h"
#include "manager/owners.h"
#include "manager/state_file.h"
#include "manager/worker_proc.h"

/* ---- writing ---- */

int restart_open(struct manager *m)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "state");

	if (!path)
		return -ENOMEM;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_set(-errno, "cannot make %s: %s", path, strerror(errno));
	m->state_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (m->state_fd < 0)
		return err_set(-errno, "cannot open %s: %s", path, strerror(errno));
	return 0;
}

void restart_close(struct manager *m)
{
	if (m->state_fd < 0)
		return;
	owners_close(m);
	unlinkat(m->state_fd, STATE_TMP, 0); /* of one that was killed while it wrote */
	close(take_fd(&m->state_fd));
}

/* The whole text of the file that fd is; what it was before does not matter. */
static int write_whole(int fd, const char *text)
{
	size_t len = strlen(text);
	ssize_t n = write(fd, text, len);
	struct stat st;

	if (n < 0 || (size_t)n < len)
		return n < 0 ? -errno : -ENOSPC;
	if (fstat(fd, &st) < 0)
		return -errno;
	return (size_t)st.st_size > len && ftruncate(fd, n) < 0 ? -errno : 0;
}

/* Exchanged with the file before it, which is written the next time: that spares the kernel an
 * inode made and one destroyed. A new file, and a file system that cannot, take the ordinary way.
 */
int restart_write(const struct manager *m, const char *name, const char *text)
{
	_cleanup_close_ int fd = openat(m->state_fd, STATE_TMP,
					O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = write_whole(fd, text);
	if (r < 0)
		return r;
	if (renameat2(m->state_fd, STATE_TMP, m->state_fd, name, RENAME_EXCHANGE) == 0)
		return 0;
	return renameat(m->state_fd, STATE_TMP, m->state_fd, name) < 0 ? -errno : 0;
}

void restart_save(struct manager *m, const struct umdev_mdev *mdev)
{
	_cleanup_free_ char *text = NULL;
	struct worker_record record;
	int r;

	if (m->state_fd < 0 || m->restoring)
		return;
	if (mdev->state == MDEV_REMOVING && !mdev->connected)
		return; /* its file goes in a moment */
	r = control_json_reserve();
	if (r == 0)
		text = device_state_encode(mdev, worker_describe(mdev, &record) ? &record : NULL);
	if (r == 0)
		r = text ? restart_write(m, mdev->uuid_text, text) : -ENOMEM;
	if (r < 0)
		log_error("device %s: cannot write its state: %s; a restart of umdevd would not "
			  "know of the last change",
			  mdev->uuid_text, strerror(-r));
}

void restart_forget(struct manager *m, const struct umdev_mdev *mdev)
{
	if (m->state_fd >= 0)
		unlinkat(m->state_fd, mdev->uuid_text, 0);
}

/* ---- reading ---- */

/* A device on its way back. */
struct entry {
	char name[UUID_TEXT];
	struct device_state state;
	struct umdev_mdev *mdev; /* NULL: it could not be made */
	struct worker *served;   /* by the worker that it had; NULL: it has none */
};

struct entries {
	struct entry *list; /* owned */
	size_t n, size;
};

/* Why it cannot be read, or NULL and *ret (to be freed) of *ret_len bytes. */
static const char *read_text(int dir_fd, const char *name, char **ret, size_t *ret_len)
{
	_cleanup_close_ int fd = openat(dir_fd, name,
					O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return strerror(errno);
	if (!S_ISREG(st.st_mode) || st.st_size > STATE_FILE_MAX)
		return "it is not a small regular file";
	*ret = malloc(STATE_FILE_MAX);
	if (!*ret)
		return strerror(ENOMEM);
	n = read(fd, *ret, STATE_FILE_MAX);
	*ret_len = n < 0 ? 0 : (size_t)n;
	return n < 0 ? strerror(errno) : NULL;
}

static const char *read_entry(int dir_fd, const char *name, struct entry *ret)
{
	_cleanup_free_ char *text = NULL;
	struct uuid uuid;
	const char *why;
	size_t len = 0;

	if (strlen(name) != UUID_TEXT - 1 || uuid_parse(name, UUID_TEXT - 1, &uuid) < 0)
		return "its name is no UUID";
	*ret = (struct entry){ 0 };
	uuid_format(&uuid, ret->name);
	if (strcmp(ret->name, name) != 0)
		return "its name is not in lower case";
	why = read_text(dir_fd, name, &text, &len);
	if (!why)
		why = device_state_decode(text, len, &ret->state);
	ret->state.saved.uuid = uuid;
	return why;
}

static void skipped(const struct manager *m, const char *name, const char *why)
{
	log_error("%s/state/%s skipped: %s", m->config.run_dir, name, why);
}

/* False: no memory. */
static bool append(struct entries *all, const struct entry *entry)
{
	if (all->n == all->size) {
		size_t size = all->size ? 2 * all->size : 64;
		struct entry *list = reallocarray(all->list, size, sizeof(*list));

		if (!list)
			return false;
		all->list = list;
		all->size = size;
	}
	all->list[all->n++] = *entry;
	return true;
}

static int by_order(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->state.saved.order != y->state.saved.order)
		return x->state.saved.order < y->state.saved.order ? -1 : 1;
	return strcmp(x->name, y->name);
}

static DIR *open_list(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

static void read_all(const struct manager *m, struct entries *all)
{
	DIR *dir = open_list(m->state_fd);
	const struct dirent *d;
	struct entry entry;

	while (dir && (d = readdir(dir))) {
		const char *why;

		if (d->d_name[0] == '.')
			continue; /* a file that was being written, too */
		why = read_entry(m->state_fd, d->d_name, &entry);
		if (!why && !append(all, &entry)) {
			device_state_fini(&entry.state);
			why = strerror(ENOMEM);
		}
		if (why)
			skipped(m, d->d_name, why);
	}
	if (dir)
		closedir(dir);
	if (all->n)
		qsort(all->list, all->n, sizeof(*all->list), by_order);
}

/* ---- devices ---- */

static int make_device(struct manager *m, struct entry *e)
{
	struct umdev_parent *parent = parent_find(&m->core, e->state.parent);
	struct mdev_type *type;

	if (!parent)
		return err_set(-ENOENT, "there is no parent \"%s\"", e->state.parent);
	type = type_find(parent, e->state.type);
	return type ? mdev_restore(type, &e->state.saved, &e->mdev) : -ENOENT;
}

/* Its worker, if it lives, is told the rest when it says READY. */
static void adopt(struct manager *m, struct entry *e)
{
	const struct device_state *s = &e->state;
	struct worker *w = worker_adopt(m, &s->worker);

	err_clear();
	if (w && worker_adopt_member(w, &s->worker, e->mdev, s->connected) < 0)
		skipped(m, e->name, err_text(-EINVAL));
	else
		e->served = w;
}

/* A client holds it. */
static void reconnect(struct entry *e)
{
	struct sock_peer peer;

	sock_peer_again(e->state.owner.pid, e->state.owner.uid, e->state.owner.start, &peer);
	core_connected(e->mdev, &peer);
	if (peer.pidfd >= 0)
		close(peer.pidfd);
}

/* Its client is asked again, or forced: what removed it may have been either. */
static void go_on_removing(struct entry *e)
{
	struct umdev_mdev *mdev = e->mdev;
	bool wait = mdev->connected && mdev->parent->remove_waits;

	if (mdev_remove(mdev, wait ? MDEV_REMOVE : MDEV_REMOVE_FORCE, NULL) != TREE_LATER)
		e->mdev = NULL;
}

/* Nobody serves it any more. */
static void lost_worker(struct entry *e)
{
	mdev_resources_end(e->mdev);
	core_param_done(e->mdev, EIO);
	if (e->state.connected)
		log_warning("device %s: its worker ended while no umdevd ran", e->name);
}

static void settle(struct entry *e)
{
	if (e->served)
		core_resources_resume(e->mdev);
	if (e->served && e->state.connected)
		reconnect(e);
	else if (!e->served && e->state.has_worker)
		lost_worker(e);
	else if (!e->served)
		core_param_done(e->mdev, EIO); /* if one was under way */
	if (e->served && !worker_serves(e->served))
		core_param_done(e->mdev, EIO);
	if (e->served)
		worker_adopt_explain(e->served, e->mdev);
	if (e->state.removing)
		go_on_removing(e);
	else if (e->mdev->started)
		listener_retry(e->mdev->manager);
}

/* ---- what is left of others ---- */

/* Directories of devices that were never complete, or not removed to the end. */
static void sweep_devices(struct manager *m)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "dev");
	DIR *dir = path ? opendir(path) : NULL;
	const struct dirent *d;
	struct uuid uuid;

	while (dir && (d = readdir(dir))) {
		_cleanup_free_ char *one = str_printf("%s/%s", path, d->d_name);
		const struct umdev_mdev *mdev;

		if (!one || strlen(d->d_name) != UUID_TEXT - 1 ||
		    uuid_parse(d->d_name, UUID_TEXT - 1, &uuid) < 0)
			continue;
		mdev = mdev_find(&m->core, &uuid);
		if (mdev ? !mdev->bound : faccessat(m->state_fd, d->d_name, F_OK, 0) < 0)
			listener_remove_dir(one);
	}
	if (dir)
		closedir(dir);
}

/* name: of its rendezvous socket, or its grave */
static bool is_adopted(const struct manager *m, const char *name)
{
	const struct worker *w;
	char *end;
	unsigned long group = strtoul(name, &end, 10);

	list_for_each(w, &m->workers, node)
		if (end != name && w->group == group && (!*end || !strcmp(end, WORKER_GRAVE)))
			return true;
	return false;
}

/* Rendezvous sockets where nobody listens, and graves. A worker that is not adopted goes with its
 * clients. */
static void sweep_workers(struct manager *m)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "worker");
	DIR *dir = path ? opendir(path) : NULL;
	const struct dirent *d;

	while (dir && (d = readdir(dir))) {
		_cleanup_free_ char *one = str_printf("%s/%s", path, d->d_name);
		int fd = -EAGAIN;

		if (one && d->d_name[0] != '.' && !is_adopted(m, d->d_name))
			fd = sock_connect(one);
		if (fd >= 0)
			close(fd);
		else if (fd == -ECONNREFUSED)
			unlink(one);
	}
	if (dir)
		closedir(dir);
}

/* ---- all together ---- */

static void log_summary(const struct entries *all)
{
	unsigned n = 0, n_connected = 0;

	for (size_t i = 0; i < all->n; i++) {
		n += all->list[i].mdev != NULL;
		n_connected += all->list[i].mdev && all->list[i].mdev->connected;
	}
	if (all->n)
		log_info("%u devices of an umdevd before this one are back, %u of them connected",
			 n, n_connected);
}

/* Did restoring change what its file says? */
static bool is_stale(const struct entry *e)
{
	const struct mdev_saved *saved = &e->state.saved;
	const struct umdev_mdev *mdev = e->mdev;

	if (mdev->bound &&
	    (mdev->group->number != saved->group || mdev->vfio_number != saved->vfio))
		return true;
	return (e->state.has_worker && !e->served) || (saved->pending.key && !mdev->param_value);
}

void restart_restore(struct manager *m)
{
	struct entries all = { 0 };

	m->restoring = true;
	read_all(m, &all);
	for (size_t i = 0; i < all.n; i++) {
		struct entry *e = &all.list[i];
		int r;

		err_clear();
		r = make_device(m, e);
		if (r < 0)
			skipped(m, e->name, err_text(r));
	}
	/* Then their workers: a group that is served takes no more members. */
	for (size_t i = 0; i < all.n; i++)
		if (all.list[i].mdev && all.list[i].state.has_worker)
			adopt(m, &all.list[i]);
	for (size_t i = 0; i < all.n; i++)
		if (all.list[i].mdev)
			settle(&all.list[i]);
	m->restoring = false;
	for (size_t i = 0; i < all.n; i++)
		if (all.list[i].mdev && is_stale(&all.list[i]))
			restart_save(m, all.list[i].mdev);
	log_summary(&all);
	for (size_t i = 0; i < all.n; i++)
		device_state_fini(&all.list[i].state);
	free(all.list);
	sweep_devices(m);
	sweep_workers(m);
}
