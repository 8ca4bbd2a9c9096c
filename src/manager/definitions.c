/* SPDX-License-Identifier: MIT */
/* Autostart of definitions; definitions.h has the rules. */
#include "manager/definitions.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "base/uuid.h"
#include "core/core.h"
#include "manager/control.h"
#include "manager/definition_file.h"
#include "manager/manager.h"

#define SCRIPTS "scripts.d" /* mdevctl's own, beside the parents */

/* queued -> current -> gone, or failed */
struct start { /* owned by the list it is in */
	struct list_node node;
	char *parent;
	struct uuid uuid;
	char uuid_text[UUID_TEXT];
	struct definition def;
	unsigned next_attr;
	char why[ERR_TEXT]; /* of a failed one */
};

struct definitions { /* owned by the manager */
	struct manager *manager;
	struct list_node queue, failed; /* struct start */
	struct attr_wait wait;          /* of a store of the first in the queue */
	bool waiting;
	struct loop_defer more;
};

static void start_free(struct start *s)
{
	if (list_is_linked(&s->node))
		list_remove(&s->node);
	if (s->def.json)
		definition_fini(&s->def);
	free(s->parent);
	free(s);
}

/* ---- reading ---- */

/* Bytes read into a buffer of DEFINITION_MAX, or why not. */
static ssize_t read_file(int dir_fd, const char *name, char *buf, char *why, size_t size)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n = -1;

	if (fd >= 0 && fstat(fd, &st) == 0 &&
	    (!S_ISREG(st.st_mode) || st.st_size > DEFINITION_MAX)) {
		str_format(why, size, "it is not a small regular file");
		return -EINVAL;
	}
	if (fd >= 0)
		n = read(fd, buf, DEFINITION_MAX);
	if (n < 0)
		str_format(why, size, "%s", strerror(errno));
	return n;
}

static int load(struct start *s, int dir_fd, const char *name)
{
	_cleanup_free_ char *buf = malloc(DEFINITION_MAX);
	ssize_t n;

	if (!buf || control_json_reserve() < 0) {
		str_format(s->why, sizeof(s->why), "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	if (strlen(name) != UUID_TEXT - 1 || uuid_parse(name, UUID_TEXT - 1, &s->uuid) < 0) {
		str_format(s->why, sizeof(s->why), "its name is no UUID");
		return -EINVAL;
	}
	uuid_format(&s->uuid, s->uuid_text);
	n = read_file(dir_fd, name, buf, s->why, sizeof(s->why));
	return n < 0 ? -EINVAL : definition_parse(buf, (size_t)n, &s->def, s->why, sizeof(s->why));
}

static void load_file(struct definitions *d, const char *parent, int dir_fd, const char *name)
{
	struct start *s = calloc(1, sizeof(*s));
	const char *why = strerror(ENOMEM);

	if (s)
		s->parent = strdup(parent);
	if (s && s->parent && load(s, dir_fd, name) == 0) {
		if (s->def.autostart)
			list_append(&d->queue, &s->node);
		else
			start_free(s);
		return;
	}
	if (s && *s->why)
		why = s->why;
	log_error("%s/mdevctl.d/%s/%s skipped: %s", d->manager->config.config_dir, parent, name,
		  why);
	if (s)
		start_free(s);
}

/* Calls fn for each entry that is not hidden, by name. */
static void each_entry(struct definitions *d, const char *parent, int dir_fd,
		       void (*fn)(struct definitions *, const char *parent, int, const char *))
{
	struct dirent **entries;
	int n = scandirat(dir_fd, ".", &entries, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.')
			fn(d, parent, dir_fd, entries[i]->d_name);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

static void load_parent(struct definitions *d, const char *unused, int dir_fd, const char *name)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (strcmp(name, SCRIPTS) == 0)
		return;
	if (!str_is_clean(name, strlen(name)))
		log_error("%s/mdevctl.d: a directory whose name cannot be shown is skipped",
			  d->manager->config.config_dir);
	else if (fd >= 0)
		each_entry(d, name, fd, load_file);
	else if (errno != ENOTDIR)
		log_error("cannot read %s/mdevctl.d/%s: %s", d->manager->config.config_dir, name,
			  strerror(errno));
}

static void load_all(struct definitions *d)
{
	const char *config_dir = d->manager->config.config_dir;
	_cleanup_free_ char *path = str_printf("%s/mdevctl.d", config_dir);
	_cleanup_close_ int fd = -1;

	if (path)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		each_entry(d, NULL, fd, load_parent);
	else if (!path || errno != ENOENT)
		log_error("cannot read %s/mdevctl.d: %s", config_dir,
			  strerror(path ? errno : ENOMEM));
}

/* ---- starting ---- */

static int create(struct manager *m, const struct start *s)
{
	struct umdev_parent *parent = parent_find(&m->core, s->parent);
	struct mdev_type *type;
	struct umdev_mdev *mdev;

	if (!parent)
		return err_set(-ENOENT, "there is no parent \"%s\": see umdev parent list",
			       s->parent);
	type = type_find(parent, s->def.type);
	return type ? mdev_create(type, s->uuid_text, UUID_TEXT - 1, &mdev) : -ENOENT;
}

/* One attribute, as a write into the tree. */
static int store(struct definitions *d, const struct umdev_mdev *mdev, const char *name,
		 const char *value)
{
	struct tree *tree = &d->manager->core.tree;
	char path[TREE_PATH_MAX];
	struct tree_ref ref;
	int r;

	str_format(path, sizeof(path), "/devices/virtual/%s/%s/%s/%s", mdev->parent->class_name,
		   mdev->parent->name, mdev->uuid_text, name);
	r = tree_walk(tree, path, true, &ref);
	if (r == 0 && ref.what != TREE_FILE)
		r = -EISDIR;
	if (r == 0)
		r = tree_store(tree, &ref, value, strlen(value), &d->wait);
	return r;
}

static int apply(struct definitions *d, struct start *s)
{
	int r = 0;

	while (s->next_attr < s->def.n_attrs && r == 0) {
		const char *name = s->def.attrs[s->next_attr].name;
		const struct umdev_mdev *mdev = mdev_find(&d->manager->core, &s->uuid);

		if (!mdev || mdev->state == MDEV_REMOVING)
			return err_set(-ENODEV, "it was removed before attribute %s", name);
		r = store(d, mdev, name, s->def.attrs[s->next_attr++].value);
	}
	return r;
}

/* r: of the last step. The first in the queue is done with, well or not. */
static void end(struct definitions *d, struct start *s, int r)
{
	struct umdev_mdev *mdev = mdev_find(&d->manager->core, &s->uuid);
	const char *attr = s->next_attr ? s->def.attrs[s->next_attr - 1].name : NULL;

	if (r == 0) {
		start_free(s);
		return;
	}
	str_format(s->why, sizeof(s->why), "its definition cannot be started: %s%s%s",
		   attr ? attr : "", attr ? ": " : "", err_text(r));
	log_error("device %s of %s: %s", s->uuid_text, s->parent, s->why);
	if (attr && mdev && mdev->state != MDEV_REMOVING)
		mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL);
	list_remove(&s->node);
	list_append(&d->failed, &s->node);
}

/* Brought back from an umdevd before us, with its own values. */
static bool is_there(struct manager *m, const struct start *s)
{
	const struct umdev_mdev *mdev = mdev_find(&m->core, &s->uuid);

	return mdev && strcmp(mdev->parent->name, s->parent) == 0 &&
	       strcmp(mdev->type->info->name, s->def.type) == 0;
}

/* As far as it goes without waiting. */
static void go_on(struct definitions *d)
{
	struct start *s;
	int r;

	while ((s = list_first(&d->queue, struct start, node))) {
		err_clear();
		if (!s->next_attr && is_there(d->manager, s)) {
			log_debug("device %s is there already", s->uuid_text);
			start_free(s);
			continue;
		}
		r = s->next_attr ? 0 : create(d->manager, s);
		if (r == 0)
			r = apply(d, s);
		if (r == TREE_LATER) {
			d->waiting = true;
			return;
		}
		end(d, s, r);
	}
}

static void more(struct loop_defer *defer)
{
	go_on(container_of(defer, struct definitions, more));
}

static void stored(struct attr_wait *wait, int result)
{
	struct definitions *d = container_of(wait, struct definitions, wait);

	d->waiting = false;
	if (result < 0)
		end(d, list_first(&d->queue, struct start, node), result);
	/* Not from inside the core. */
	loop_defer(&d->manager->loop, &d->more, more);
}

struct definitions *definitions_start(struct manager *m)
{
	struct definitions *d = calloc(1, sizeof(*d));

	if (!d) {
		log_error("definitions are not started: %s", strerror(ENOMEM));
		return NULL;
	}
	d->manager = m;
	d->wait.done = stored;
	list_init(&d->queue);
	list_init(&d->failed);
	load_all(d);
	go_on(d);
	return d;
}

void definitions_free(struct definitions *d)
{
	struct start *s;

	if (!d)
		return;
	if (d->waiting)
		attr_cancel(&d->wait);
	loop_defer_cancel(&d->more);
	while ((s = list_first(&d->queue, struct start, node)))
		start_free(s);
	while ((s = list_first(&d->failed, struct start, node)))
		start_free(s);
	free(d);
}

void definitions_failed_json(const struct definitions *d, const char *parent, json_t **array)
{
	struct start *s;

	if (!d)
		return;
	list_for_each(s, &d->failed, node) {
		if ((parent && strcmp(parent, s->parent) != 0) ||
		    mdev_find(&d->manager->core, &s->uuid))
			continue;
		control_append(array,
			       json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:[]}",
					 "uuid", s->uuid_text, "label", "", "parent", s->parent,
					 "type", s->def.type, "device_api", "", "path", "", "group",
					 -1, "state", "failed", "error", s->why, "settings"));
	}
}
