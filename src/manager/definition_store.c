/* SPDX-License-Identifier: MIT */
/* Files of definitions; definition_store.h has the rules. */
#include "manager/definition_store.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/str.h"
#include "manager/control.h"

#define SCRIPTS "scripts.d" /* mdevctl's own, beside the parents */

/* ---- one ---- */

/* Bytes read into a buffer of DEFINITION_MAX, or -errno and why not. */
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
	if (n >= 0)
		return n;
	n = -errno;
	str_format(why, size, "%s", strerror(errno));
	return n;
}

/* 0, or -errno and why. */
static int load(int dir_fd, const char *name, struct definition *ret, char *why, size_t size)
{
	_cleanup_free_ char *buf = malloc(DEFINITION_MAX);
	ssize_t n;

	if (!buf || control_json_reserve() < 0) {
		str_format(why, size, "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	n = read_file(dir_fd, name, buf, why, size);
	return n < 0 ? (int)n : definition_parse(buf, (size_t)n, ret, why, size);
}

static char *parent_dir(const struct config *c, const char *parent)
{
	return str_printf("%s/mdevctl.d/%s", c->config_dir, parent);
}

/* A descriptor, or -errno. */
static int open_dir(const char *path)
{
	int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return fd >= 0 ? fd : path ? -errno : -ENOMEM;
}

static int not_defined(const char *parent, const char *uuid)
{
	return err_set(-ENOENT, "there is no definition of %s%s%s: see umdev list --defined", uuid,
		       parent ? " on " : "", parent ? parent : "");
}

int definition_load(const struct config *c, const char *parent, const struct uuid *uuid,
		    struct definition *ret)
{
	_cleanup_free_ char *path = parent_dir(c, parent);
	_cleanup_close_ int fd = open_dir(path);
	char name[UUID_TEXT], why[ERR_TEXT];
	int r = fd;

	uuid_format(uuid, name);
	if (fd >= 0)
		r = load(fd, name, ret, why, sizeof(why));
	if (r == -ENOENT)
		return not_defined(parent, name);
	if (fd >= 0 && r < 0)
		return err_set(r, "%s/%s: %s", path, name, why);
	return r < 0 ? err_set(r, "cannot read %s: %s", path ? path : parent, strerror(-r)) : 0;
}

/* ---- all ---- */

/* Calls fn for each entry that is not hidden, by name. */
static void each_entry(int dir_fd, void (*fn)(void *arg, int dir_fd, const char *name), void *arg)
{
	struct dirent **entries;
	int n = scandirat(dir_fd, ".", &entries, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.')
			fn(arg, dir_fd, entries[i]->d_name);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

struct visit {
	const struct config *config;
	const char *parent;
	definition_fn *fn;
	void *arg;
};

static void visit_file(void *arg, int dir_fd, const char *name)
{
	const struct visit *v = arg;
	struct definition def = { 0 };
	char why[ERR_TEXT];
	struct uuid uuid;
	int r = -EINVAL;

	if (strlen(name) != UUID_TEXT - 1 || uuid_parse(name, UUID_TEXT - 1, &uuid) < 0)
		str_format(why, sizeof(why), "its name is no UUID");
	else
		r = load(dir_fd, name, &def, why, sizeof(why));
	if (r < 0) {
		log_error("%s/mdevctl.d/%s/%s skipped: %s", v->config->config_dir, v->parent, name,
			  why);
		err_clear();
		err_set(r, "its definition cannot be used: %s", why);
		if (strlen(name) == UUID_TEXT - 1 && uuid_parse(name, UUID_TEXT - 1, &uuid) == 0)
			v->fn(v->arg, v->parent, &uuid, NULL);
		return;
	}
	v->fn(v->arg, v->parent, &uuid, &def);
	if (def.json)
		definition_fini(&def);
}

static void visit_parent(void *arg, int dir_fd, const char *name)
{
	struct visit v = *(const struct visit *)arg;
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (strcmp(name, SCRIPTS) == 0)
		return;
	v.parent = name;
	if (!str_is_clean(name, strlen(name)))
		log_error("%s/mdevctl.d: a directory whose name cannot be shown is skipped",
			  v.config->config_dir);
	else if (fd >= 0)
		each_entry(fd, visit_file, &v);
	else if (errno != ENOTDIR)
		log_error("cannot read %s/mdevctl.d/%s: %s", v.config->config_dir, name,
			  strerror(errno));
}

void definition_each(const struct config *c, definition_fn *fn, void *arg)
{
	struct visit v = { .config = c, .fn = fn, .arg = arg };
	_cleanup_free_ char *path = str_printf("%s/mdevctl.d", c->config_dir);
	_cleanup_close_ int fd = open_dir(path);

	if (fd >= 0)
		each_entry(fd, visit_parent, &v);
	else if (fd != -ENOENT)
		log_error("cannot read %s/mdevctl.d: %s", c->config_dir, strerror(-fd));
}

struct search {
	char name[UUID_TEXT];
	char *parent; /* owned */
	unsigned n;
};

static void search_parent(void *arg, int dir_fd, const char *parent)
{
	struct search *s = arg;
	_cleanup_free_ char *path = str_printf("%s/%s", parent, s->name);

	if (!path || strcmp(parent, SCRIPTS) == 0 || faccessat(dir_fd, path, F_OK, 0) < 0)
		return;
	if (s->n++ == 0)
		s->parent = strdup(parent);
}

int definition_find(const struct config *c, const struct uuid *uuid, char **ret_parent)
{
	_cleanup_free_ char *path = str_printf("%s/mdevctl.d", c->config_dir);
	_cleanup_close_ int fd = open_dir(path);
	struct search s = { 0 };

	uuid_format(uuid, s.name);
	if (fd >= 0)
		each_entry(fd, search_parent, &s);
	if (s.n == 0)
		return not_defined(NULL, s.name);
	if (s.n > 1) {
		free(s.parent);
		return err_set(-EINVAL, "%s is defined for %u parents: say which one", s.name, s.n);
	}
	*ret_parent = s.parent;
	return s.parent ? 0 : -ENOMEM;
}

/* ---- changing ---- */

int definition_save(const struct config *c, const char *parent, const struct uuid *uuid,
		    const json_t *json)
{
	_cleanup_free_ char *dir = parent_dir(c, parent), *tmp = NULL;
	_cleanup_free_ char *text = json_dumps(json, JSON_INDENT(2));
	_cleanup_close_ int fd = -1;
	char name[UUID_TEXT];
	int r = dir && text ? path_make(dir) : -ENOMEM;

	uuid_format(uuid, name);
	tmp = str_printf(".%s.tmp", name);
	if (r < 0 || !tmp)
		return r < 0 ? r : -ENOMEM;
	fd = open_dir(dir);
	r = fd < 0 ? fd : config_replace(fd, tmp, name, text, 0644);
	return r < 0 ? err_set(r, "cannot write %s/%s: %s", dir, name, strerror(-r)) : 0;
}

int definition_delete(const struct config *c, const char *parent, const struct uuid *uuid)
{
	_cleanup_free_ char *dir = parent_dir(c, parent), *path = NULL;
	char name[UUID_TEXT];

	uuid_format(uuid, name);
	path = dir ? str_printf("%s/%s", dir, name) : NULL;
	if (!path)
		return -ENOMEM;
	if (unlink(path) == 0)
		return 0;
	return errno == ENOENT ? not_defined(parent, name)
			       : err_set(-errno, "cannot remove %s: %s", path, strerror(errno));
}
