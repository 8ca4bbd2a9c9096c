/* SPDX-License-Identifier: MIT */
/* Autostart of definitions; definitions.h has the rules. */
#include "manager/definitions.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "base/uuid.h"
#include "core/core.h"
#include "manager/control.h"
#include "manager/definition_store.h"
#include "manager/manager.h"
#include "manager/restart.h"

#define UNFINISHED ".definition" /* in $UMDEV_RUN/state */

/* queued -> current -> gone, or failed */
struct start { /* owned by the list it is in */
	struct list_node node;
	char *parent;
	struct uuid uuid;
	char uuid_text[UUID_TEXT];
	struct definition def;
	unsigned next_attr;
	bool made;              /* its device is there and may be given attributes */
	json_t *old;            /* owned; of a device that is only changed: its values before */
	bool asked;             /* by a client: it is answered, and kept in no list */
	struct attr_wait *wait; /* of that client; NULL: it is gone */
	char why[ERR_TEXT];     /* of a failed one */
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
	attr_done(&s->wait, -ESHUTDOWN);
	if (s->def.json)
		definition_fini(&s->def);
	json_decref(s->old);
	free(s->parent);
	free(s);
}

/* def NULL: of a file that cannot be used. */
static struct start *start_new(const char *parent, const struct uuid *uuid, struct definition *def)
{
	struct start *s = calloc(1, sizeof(*s));

	if (s)
		s->parent = strdup(parent);
	if (!s || !s->parent) {
		free(s);
		return NULL;
	}
	s->uuid = *uuid;
	uuid_format(uuid, s->uuid_text);
	if (def) {
		s->def = *def;
		def->json = NULL;
	}
	return s;
}

static void load(void *arg, const char *parent, const struct uuid *uuid, struct definition *def)
{
	struct definitions *d = arg;
	struct start *s = NULL;

	if (def && !def->autostart)
		return;
	s = start_new(parent, uuid, def);
	if (s && !def) {
		/* Whether it was to be started nobody can tell: better shown than missed. */
		str_format(s->why, sizeof(s->why), "%s", err_text(-EINVAL));
		s->def.type = "";
	}
	if (s)
		list_append(def ? &d->queue : &d->failed, &s->node);
	else
		log_error("a device of %s is not started: %s", parent, strerror(ENOMEM));
}

/* ---- starting ---- */

static int create(struct definitions *d, const struct start *s)
{
	struct manager *m = d->manager;
	struct umdev_parent *parent = parent_find(&m->core, s->parent);
	struct mdev_type *type;
	struct umdev_mdev *mdev;
	int r;

	if (!parent)
		return err_set(-ENOENT, "there is no parent \"%s\": see umdev parent list",
			       s->parent);
	type = type_find(parent, s->def.type);
	if (!type)
		return -ENOENT;
	r = mdev_create(type, s->uuid_text, UUID_TEXT - 1, &mdev);
	if (r == TREE_LATER)
		attr_hold(&mdev->create_wait, &d->wait);
	return r;
}

/* The file of an attribute. 0 / -errno */
static int find_attr(struct manager *m, const struct umdev_mdev *mdev, const char *name,
		     struct tree_ref *ret)
{
	char path[TREE_PATH_MAX];
	int r;

	str_format(path, sizeof(path), "/devices/virtual/%s/%s/%s/%s", mdev->parent->class_name,
		   mdev->parent->name, mdev->uuid_text, name);
	r = tree_walk(&m->core.tree, path, true, ret);
	return r == 0 && ret->what != TREE_FILE ? -EISDIR : r;
}

/* What a file says now, null when it says nothing. 0 / -ENOMEM */
static int remember(json_t *old, const struct tree_ref *ref)
{
	char buf[TREE_ATTR_SIZE];
	int len = tree_show(ref, buf);
	json_t *text = len < 0 ? NULL : json_stringn(buf, (size_t)len);

	return json_array_append_new(old, text ? text : json_null()) < 0 ? -ENOMEM : 0;
}

/* One attribute, as a write into the tree. */
static int store(struct definitions *d, struct start *s, const struct umdev_mdev *mdev)
{
	const char *name = s->def.attrs[s->next_attr].name;
	const char *value = s->def.attrs[s->next_attr++].value;
	struct tree_ref ref;
	int r = find_attr(d->manager, mdev, name, &ref);

	if (r == 0 && s->old)
		r = remember(s->old, &ref);
	if (r == 0)
		r = tree_store(&d->manager->core.tree, &ref, value, strlen(value), &d->wait);
	return r;
}

static int apply(struct definitions *d, struct start *s)
{
	int r = 0;

	while (s->next_attr < s->def.n_attrs && r == 0) {
		const struct umdev_mdev *mdev = mdev_find(&d->manager->core, &s->uuid);

		if (!mdev || mdev->state == MDEV_REMOVING)
			return err_set(-ENODEV, "it was removed before attribute %s",
				       s->def.attrs[s->next_attr].name);
		r = store(d, s, mdev);
	}
	return r;
}

/* The attributes before the one that was refused get their old values, last first. Nobody waits for
 * a live one. */
static void restore(struct definitions *d, const struct start *s, const struct umdev_mdev *mdev)
{
	struct tree_ref ref;

	for (unsigned i = s->next_attr ? s->next_attr - 1 : 0; i-- > 0;) {
		const char *text = json_string_value(json_array_get(s->old, i));

		if (text && find_attr(d->manager, mdev, s->def.attrs[i].name, &ref) == 0 &&
		    tree_store(&d->manager->core.tree, &ref, text, strlen(text), NULL) < 0)
			log_warning("device %s: %s keeps its new value: %s", s->uuid_text,
				    s->def.attrs[i].name, err_text(-EIO));
	}
}

/* Why, for people; then all is as it was. */
static void unwind(struct definitions *d, struct start *s, int r)
{
	struct umdev_mdev *mdev = mdev_find(&d->manager->core, &s->uuid);
	const char *attr = s->next_attr ? s->def.attrs[s->next_attr - 1].name : NULL;

	str_format(s->why, sizeof(s->why), "%s%s%s", attr ? attr : "", attr ? ": " : "",
		   err_text(r));
	if (!s->made || !mdev || mdev->state == MDEV_REMOVING)
		return;
	err_clear();
	if (s->old)
		restore(d, s, mdev);
	else
		mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL);
}

/* Which device is being made, for a successor. */
static void note(const struct manager *m, const struct start *s)
{
	int r = m->state_fd < 0 ? 0 : restart_write(m, UNFINISHED, s->uuid_text);

	if (r < 0)
		log_warning("device %s: cannot note that it is being made: %s", s->uuid_text,
			    strerror(-r));
}

static void note_end(const struct manager *m)
{
	if (m->state_fd >= 0)
		unlinkat(m->state_fd, UNFINISHED, 0);
}

/* r: of the last step. The first in the queue is done with, well or not. */
static void end(struct definitions *d, struct start *s, int r)
{
	if (r < 0)
		unwind(d, s, r);
	if (!s->old)
		note_end(d->manager);
	if (s->asked) {
		err_clear();
		if (r < 0)
			err_set(r, "%s", s->why);
		attr_done(&s->wait, r);
	}
	if (s->asked || r == 0) {
		start_free(s);
		return;
	}
	log_error("device %s of %s: its definition cannot be started: %s", s->uuid_text, s->parent,
		  s->why);
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

/* What an umdevd before us was making when it ended: nobody was told that it is there. */
static void unmake(struct manager *m)
{
	_cleanup_close_ int fd = m->state_fd < 0
					 ? -1
					 : openat(m->state_fd, UNFINISHED,
						  O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char text[UUID_TEXT] = "";
	struct umdev_mdev *mdev;
	struct uuid uuid;

	if (fd < 0 || read(fd, text, UUID_TEXT - 1) != UUID_TEXT - 1 ||
	    uuid_parse(text, UUID_TEXT - 1, &uuid) < 0)
		return;
	mdev = mdev_find(&m->core, &uuid);
	if (!mdev)
		return;
	log_warning("device %s: removed: umdevd ended while it was made of its definition",
		    mdev->uuid_text);
	if (mdev->state != MDEV_REMOVING)
		mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL);
}

/* As far as it goes without waiting. */
static void go_on(struct definitions *d)
{
	struct start *s;
	int r;

	while ((s = list_first(&d->queue, struct start, node))) {
		err_clear();
		if (!s->asked && !s->made && is_there(d->manager, s)) {
			log_debug("device %s is there already", s->uuid_text);
			start_free(s);
			continue;
		}
		if (!s->made)
			note(d->manager, s);
		r = s->made ? 0 : create(d, s);
		s->made |= r >= 0;
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
	struct definitions *d = container_of(defer, struct definitions, more);

	if (!d->waiting)
		go_on(d);
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

static int ask(struct definitions *d, struct start *s, struct attr_wait *wait)
{
	if (!s)
		return -ENOMEM;
	s->asked = true;
	attr_hold(&s->wait, wait);
	list_append(&d->queue, &s->node);
	loop_defer(&d->manager->loop, &d->more, more);
	return TREE_LATER;
}

int definition_start(struct definitions *d, const char *parent, const struct uuid *uuid,
		     struct definition *def, struct attr_wait *wait)
{
	return ask(d, d ? start_new(parent, uuid, def) : NULL, wait);
}

int definition_apply(struct definitions *d, const struct umdev_mdev *mdev, struct definition *def,
		     struct attr_wait *wait)
{
	struct start *s = d ? start_new(mdev->parent->name, &mdev->uuid, def) : NULL;

	if (!s)
		return -ENOMEM;
	s->made = true;
	s->old = json_array();
	if (s->old)
		return ask(d, s, wait);
	start_free(s);
	return -ENOMEM;
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
	unmake(m);
	note_end(m);
	definition_each(&m->config, load, d);
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
	if (!d->manager->keep)
		note_end(d->manager);
	while ((s = list_first(&d->queue, struct start, node)))
		start_free(s);
	while ((s = list_first(&d->failed, struct start, node)))
		start_free(s);
	free(d);
}

/* Until a device of its UUID exists. */
static bool is_failed(const struct definitions *d, const struct start *s)
{
	return !mdev_find(&d->manager->core, &s->uuid);
}

static json_t *failed_json(const struct start *s)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:[]}", "uuid",
			 s->uuid_text, "label", "", "parent", s->parent, "type", s->def.type,
			 "device_api", "", "path", "", "group", -1, "state", "failed", "error",
			 s->why, "settings");
}

void definitions_failed_json(const struct definitions *d, const char *parent, json_t **array)
{
	struct start *s;

	if (!d)
		return;
	list_for_each(s, &d->failed, node) {
		if (is_failed(d, s) && (!parent || strcmp(parent, s->parent) == 0))
			control_append(array, failed_json(s));
	}
}

json_t *definitions_failed_one(const struct definitions *d, const char *uuid)
{
	struct start *s;

	if (!d)
		return NULL;
	list_for_each(s, &d->failed, node) {
		if (is_failed(d, s) && strcasecmp(uuid, s->uuid_text) == 0)
			return failed_json(s);
	}
	return NULL;
}

int definitions_failed_text(const struct definitions *d, char *buf, size_t size)
{
	size_t used = 0;
	struct start *s;

	if (!d)
		return 0;
	list_for_each(s, &d->failed, node) {
		_cleanup_free_ char *line = str_printf("%s %s %s\n", s->uuid_text, s->parent,
						       s->why);
		size_t len = line ? strlen(line) : 0;

		if (!is_failed(d, s) || len > size - used)
			continue;
		memcpy(buf + used, line, len);
		used += len;
	}
	return (int)used;
}
