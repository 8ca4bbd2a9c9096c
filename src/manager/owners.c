/* SPDX-License-Identifier: MIT */
/* Modes and owners over a restart; owners.h has the form. */
#include "manager/owners.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/log.h"
#include "base/str.h"
#include "manager/manager.h"
#include "manager/restart.h"

#define FILE_NAME ".owners"
#define NO_AUTOPROBE "drivers_autoprobe 0"
#define LINE_SIZE (TREE_PATH_MAX + 64) /* mode, uid, gid, path */

/* Not stdio's memory stream: that one crashes when memory is short. */
struct text {
	char *data; /* owned */
	size_t len, size;
	bool bad; /* no memory */
};

static void put_text(struct text *t, const char *line)
{
	if (t->size - t->len < LINE_SIZE) {
		size_t size = 2 * t->size + LINE_SIZE;
		char *data = realloc(t->data, size);

		t->bad |= !data;
		if (!data)
			return;
		t->data = data;
		t->size = size;
	}
	t->len += str_format(t->data + t->len, LINE_SIZE, "%s", line);
}

static void put_line(void *arg, const char *path, const struct stat *st)
{
	char line[LINE_SIZE];

	str_format(line, sizeof(line), "%o %u %u %s\n", st->st_mode & 07777, st->st_uid, st->st_gid,
		   path);
	put_text(arg, line);
}

static int write_all(struct manager *m)
{
	struct text t = { 0 };
	int r = -ENOMEM;

	tree_each_owned(&m->core.tree, put_line, &t);
	if (!m->core.drivers_autoprobe)
		put_text(&t, NO_AUTOPROBE "\n");
	if (!t.bad)
		r = restart_write(m, FILE_NAME, t.data ? t.data : "");
	free(t.data);
	return r;
}

static void write_now(struct loop_defer *defer)
{
	struct manager *m = container_of(defer, struct manager, owners);
	int r = write_all(m);

	if (r < 0)
		log_error("cannot write the modes and owners that were changed in the tree: %s",
			  strerror(-r));
}

static void changed(struct tree *t)
{
	struct manager *m = container_of(t, struct manager, core.tree);

	loop_defer(&m->loop, &m->owners, write_now);
}

/* One line; a path that is not there any more is no error. False: it is none of ours. */
static bool restore_line(struct tree *t, const char *line)
{
	unsigned mode, uid, gid;
	struct tree_ref ref;
	int at = 0;

	if (sscanf(line, "%o %u %u %n", &mode, &uid, &gid, &at) != 3 || line[at] != '/')
		return false;
	if (tree_walk(t, line + at, false, &ref) == 0 && ref.what != TREE_LINK) {
		tree_chown(t, &ref, uid, gid);
		tree_chmod(t, &ref, mode);
	}
	return true;
}

void owners_restore(struct manager *m)
{
	int fd = openat(m->state_fd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	FILE *in = fd >= 0 ? fdopen(fd, "r") : NULL;
	char line[LINE_SIZE];
	bool bad = false;

	while (in && fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, NO_AUTOPROBE) == 0)
			m->core.drivers_autoprobe = false;
		else
			bad |= !restore_line(&m->core.tree, line);
	}
	if (bad)
		log_error("%s/state/" FILE_NAME " has lines that umdevd does not write: skipped",
			  m->config.run_dir);
	if (in)
		fclose(in);
	else if (fd >= 0)
		close(fd);
	m->core.tree.owned_changed = changed;
}

void owners_flush(struct manager *m)
{
	if (!list_is_linked(&m->owners.node))
		return;
	loop_defer_cancel(&m->owners);
	write_now(&m->owners);
}

void owners_close(struct manager *m)
{
	loop_defer_cancel(&m->owners);
	m->core.tree.owned_changed = NULL;
	unlinkat(m->state_fd, FILE_NAME, 0);
}
