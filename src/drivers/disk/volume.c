/* SPDX-License-Identifier: MIT */
/* The life of volumes: made, resized, deleted by umdev-store, one piece of work at a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "disk_parent.h"

#define UUID_LEN 36

static void job_done(struct umdev_job *job, int error);

static struct volume *volume_of(struct umdev_job *job)
{
	return (struct volume *)((char *)job - offsetof(struct volume, job));
}

struct volume *volume_new(struct store *s, const char *name)
{
	struct volume *v = calloc(1, sizeof(*v)), **at = &s->volumes;

	if (!v)
		return NULL;
	v->store = s;
	v->job.done = job_done;
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->object = umdev_object_add(s->parent, DISK_FOLDER, name, v);
	if (!v->object) {
		free(v);
		return NULL;
	}
	while (*at && strcmp((*at)->name, name) < 0)
		at = &(*at)->next;
	v->next = *at;
	*at = v;
	return v;
}

void volume_free(struct volume *v)
{
	struct volume **at = &v->store->volumes;

	while (*at != v)
		at = &(*at)->next;
	*at = v->next;
	umdev_answer(&v->wait, -ENODEV);
	if (v->state == VOLUME_DELETING)
		umdev_job_leave(v->store->parent, &v->job); /* nobody else would */
	else
		umdev_job_cancel(v->store->parent, &v->job);
	umdev_object_remove(v->object);
	free(v->device);
	free(v);
}

bool volume_is_private(const char *name)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (strlen(name) != UUID_LEN)
		return false;
	for (unsigned i = 0; i < UUID_LEN; i++)
		if (form[i] == '-' ? name[i] != '-' : !strchr("0123456789abcdef", name[i]))
			return false;
	return true;
}

bool volume_is_orphan(const struct volume *v)
{
	if (v->state == VOLUME_BROKEN)
		return true;
	return volume_is_private(v->name) && v->state == VOLUME_READY && !v->namespaces &&
	       !umdev_is_defined(v->store->parent, v->name);
}

int volume_open(const struct volume *v, bool writable)
{
	/* Whatever it has become meanwhile, we do not wait for it; who serves it does: a request
	 * to a file that is non-blocking would come back without being done. */
	int fd, flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
	char file[VOLUME_NAME + 16];

	snprintf(file, sizeof(file), "%s.raw", v->name);
	if (v->device)
		fd = open(v->device, flags);
	else
		fd = openat(v->store->dir_fd, file, flags | O_NOFOLLOW);
	if (fd < 0)
		return disk_failed(-errno, v->device ? "device" : "volume",
				   v->device ? v->device : v->name);
	fcntl(fd, F_SETFL, flags & O_ACCMODE);
	return fd;
}

/* ---- the ends of work ---- */

/* What the errno of the work means for this volume; the writer sees both. */
static int explain(const struct volume *v, int error)
{
	const char *parent = umdev_parent_name(v->store->parent);
	uint64_t size = v->state == VOLUME_MAKING ? v->size : v->new_size;

	if (error == -EDQUOT || error == -EFBIG)
		error = -ENOSPC;
	if (error == -ENOSPC)
		umdev_explain("the store of %s has no room for %llu bytes of volume %s: delete a "
			      "volume, make room, or use thin=yes",
			      parent, (unsigned long long)size, v->name);
	else if (error == -EBUSY)
		umdev_explain("volume %s is in use by another program; stop that first", v->name);
	else if (error == -EEXIST)
		umdev_explain("the store of %s has files of a volume %s already; choose another "
			      "name, or remove them",
			      parent, v->name);
	else if (error == -EINTR)
		umdev_explain("volume %s: the work on it was ended from outside; try again",
			      v->name);
	else
		umdev_explain("volume %s: %s", v->name, strerror(-error));
	return error == -EINTR ? -EIO : error;
}

/* Answers the writer and the device that waits, if any. */
static void answer(struct volume *v, int error)
{
	struct umdev_mdev *maker = TAKE(v->maker);

	umdev_answer(&v->wait, error);
	if (maker)
		disk_volume_made(maker, error);
}

static void made(struct volume *v, int error)
{
	struct umdev_mdev *maker = v->maker;
	bool killed = error == -EINTR;

	if (error == 0) {
		v->state = VOLUME_READY;
		answer(v, 0);
		return;
	}
	error = explain(v, error);
	v->maker = NULL;
	umdev_answer(&v->wait, error);
	if (killed)
		volume_clean(v); /* something may be left */
	else
		volume_free(v);
	if (maker)
		disk_volume_made(maker, error);
}

static void resized(struct volume *v, int error)
{
	int r = error < 0 ? explain(v, error) : 0;

	v->state = VOLUME_READY;
	if (error < 0)
		store_reload(v); /* nobody knows how far it came */
	else
		v->size = v->new_size;
	if (v->state == VOLUME_READY)
		for (struct namespace *ns = v->namespaces; ns; ns = ns->next)
			namespace_grown(ns);
	answer(v, r);
}

static void deleted(struct volume *v, int error)
{
	if (error == 0) {
		umdev_answer(&v->wait, 0);
		volume_free(v);
		return;
	}
	store_reload(v); /* half gone; or, of one that was cleaned, finished by somebody else */
	answer(v, explain(v, error));
}

static void job_done(struct umdev_job *job, int error)
{
	struct volume *v = volume_of(job);

	switch (v->state) {
	case VOLUME_MAKING:
		made(v, error);
		break;
	case VOLUME_GROWING:
	case VOLUME_SHRINKING:
		resized(v, error);
		break;
	case VOLUME_DELETING:
		deleted(v, error);
		break;
	case VOLUME_READY:
	case VOLUME_BROKEN:
		break;
	}
}

/* ---- work ---- */

/* args end with NULL; fd: the bytes, or -1. */
static int start(struct volume *v, const char *const *args, int fd)
{
	const int fds[] = { v->store->dir_fd, fd };

	return umdev_job_start(v->store->parent, &v->job, args, fds, fd < 0 ? 1 : 2);
}

static void size_text(char buf[24], uint64_t size)
{
	snprintf(buf, 24, "%llu", (unsigned long long)size);
}

static int start_making(struct volume *v)
{
	_cleanup_free_ char *record = store_record(v, v->size);
	_cleanup_close_ int fd = -1;
	char size[24];
	const char *args[] = {
		"create", v->name, v->device ? "device" : "file", v->thin ? "thin" : "thick", size,
		record,   NULL
	};

	if (!record)
		return -ENOMEM;
	size_text(size, v->size);
	if (v->device) {
		/* Not one that is mounted, or that another claims. */
		fd = open(v->device, O_RDWR | O_CLOEXEC | O_EXCL);
		if (fd < 0 && errno == EBUSY)
			return disk_failed(-EBUSY, "mounted or claimed: device", v->device);
		if (fd < 0)
			return disk_failed(-errno, "device", v->device);
	}
	return start(v, args, fd);
}

int volume_make(struct store *s, const char *name, uint64_t size, bool thin, struct volume **ret)
{
	const char *device = NULL;
	uint64_t bytes = 0;
	struct volume *v;
	int r = 0;

	if (s->kind == STORE_DEVICES)
		r = store_free_device(s, size, &device, &bytes);
	if (r == 0)
		r = disk_judge_size(name, size ? size : bytes);
	v = r == 0 ? volume_new(s, name) : NULL;
	if (!v)
		return r ? r : -ENOMEM;
	v->state = VOLUME_MAKING;
	v->size = size ? size : bytes;
	v->thin = thin;
	v->device = device ? strdup(device) : NULL;
	r = device && !v->device ? -ENOMEM : start_making(v);
	if (r < 0) {
		volume_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

static int busy(const struct volume *v)
{
	static const char *const doing[] = {
		[VOLUME_MAKING] = "is being made; wait for it",
		[VOLUME_GROWING] = "is being resized; wait for it",
		[VOLUME_SHRINKING] = "is being resized; wait for it",
		[VOLUME_DELETING] = "is being deleted",
	};

	umdev_explain("volume %s %s", v->name, doing[v->state]);
	return -EBUSY;
}

static int refuse_attached(const struct volume *v, const char *what)
{
	umdev_explain("volume %s is attached to %s: detach it there before it is %s", v->name,
		      umdev_mdev_uuid(v->namespaces->controller->mdev), what);
	return -EBUSY;
}

static int check_resize(const struct volume *v, uint64_t size)
{
	uint64_t bytes;
	int r = disk_judge_size(v->name, size);

	if (r < 0)
		return r;
	if (v->state == VOLUME_BROKEN)
		return disk_failed(-EIO, "volume is damaged:", v->name);
	if (v->state != VOLUME_READY)
		return busy(v);
	if (size < v->size && v->namespaces)
		return refuse_attached(v, "made smaller");
	if (!v->device || size <= v->size)
		return 0;
	r = store_device_bytes(v->device, &bytes);
	if (r < 0)
		return disk_failed(r, "device", v->device);
	if (size > bytes) {
		umdev_explain("volume %s: its device %s has %llu bytes", v->name, v->device,
			      (unsigned long long)bytes);
		return -ENOSPC;
	}
	return 0;
}

int volume_resize(struct volume *v, uint64_t size, struct attr_wait *wait)
{
	_cleanup_free_ char *record = NULL;
	_cleanup_close_ int fd = -1;
	char from[24], to[24];
	const char *kind = v->device ? "device" : "file";
	const char *grow[] = { "grow", v->name, kind, v->thin ? "thin" : "thick",
			       from,   to,      NULL, NULL };
	const char *shrink[] = { "shrink", v->name, kind, to, NULL, NULL };
	int r = check_resize(v, size);

	if (r < 0 || size == v->size)
		return r;
	record = store_record(v, size);
	if (!record)
		return -ENOMEM;
	fd = volume_open(v, true);
	if (fd < 0)
		return fd;
	size_text(from, v->size);
	size_text(to, size);
	grow[6] = shrink[4] = record;
	v->new_size = size;
	r = start(v, size > v->size ? grow : shrink, fd);
	if (r < 0)
		return r;
	v->state = size > v->size ? VOLUME_GROWING : VOLUME_SHRINKING;
	umdev_answer_hold(&v->wait, wait);
	return 1;
}

/* From here on it is gone, whatever becomes of us. *ret: its bytes, locked; -1: there are none. */
static int mark_deleted(const struct volume *v, int *ret)
{
	char file[VOLUME_NAME + 16], deleting[VOLUME_NAME + 16];
	_cleanup_close_ int fd = -1;

	if (v->state == VOLUME_READY) {
		fd = volume_open(v, false);
		if (fd < 0)
			return fd;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return explain(v, errno == EWOULDBLOCK ? -EBUSY : -errno);
	}
	snprintf(file, sizeof(file), "%s.volume", v->name);
	snprintf(deleting, sizeof(deleting), "%s.deleting", v->name);
	if (renameat(v->store->dir_fd, file, v->store->dir_fd, deleting) < 0 &&
	    (errno != ENOENT || v->state == VOLUME_READY))
		return explain(v, -errno);
	*ret = take_fd(&fd);
	return 0;
}

int volume_delete(struct volume *v, struct attr_wait *wait)
{
	const char *args[] = { "delete", v->name, NULL };
	_cleanup_close_ int fd = -1;
	int r;

	if (v->namespaces)
		return refuse_attached(v, "deleted");
	if (v->state != VOLUME_READY && v->state != VOLUME_BROKEN)
		return busy(v);
	r = mark_deleted(v, &fd);
	if (r < 0)
		return r;
	v->state = VOLUME_DELETING;
	r = start(v, args, fd);
	if (r < 0) {
		v->state = VOLUME_BROKEN; /* the next start cleans */
		return r;
	}
	umdev_answer_hold(&v->wait, wait);
	return 1;
}

void volume_clean(struct volume *v)
{
	const char *args[] = { "clean", v->name, NULL };

	v->state = VOLUME_DELETING;
	if (start(v, args, -1) < 0)
		v->state = VOLUME_BROKEN;
}
