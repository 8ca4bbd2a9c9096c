/* SPDX-License-Identifier: MIT */
/*
 * Paths, the lock, and parents.d: one JSON file per parent,
 *     { "driver": "mtty", "settings": { "key": "value", ... } }
 * written beside its place and renamed into it, so that a reader or a crash never meets half.
 */
#include "manager/config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <jansson.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/sock.h"
#include "base/str.h"

#define SUFFIX ".json"
#define MAX_SETTINGS 64      /* twice what a driver may declare */
#define MAX_FILE (64 * 1024) /* a parent's file is below 1 KiB */

static void json_freep(json_t **json)
{
	json_decref(*json);
}
#define _cleanup_json_ _cleanup_(json_freep)

/* ---- paths and the lock ---- */

static int take_lock(struct config *c)
{
	_cleanup_free_ char *path = config_run_path(c, "lock");
	char pid[32] = "";
	int n;

	if (!path)
		return -ENOMEM;
	c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (c->lock_fd < 0)
		return err_set(-errno, "cannot open %s: %s", path, strerror(errno));
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		n = (int)read(c->lock_fd, pid, sizeof(pid) - 1);
		pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
		return err_set(-EBUSY,
			       "umdevd (pid %s) runs on %s already: stop it, or set UMDEV_RUN to "
			       "another directory",
			       *pid ? pid : "unknown", c->run_dir);
	}
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(c->lock_fd, 0) < 0 || pwrite(c->lock_fd, pid, (size_t)n, 0) != n)
		return err_set(-EIO, "cannot write %s", path);
	return 0;
}

int config_open(struct config *c)
{
	int r = path_root(PATH_RUN, &c->run_dir);

	if (r == 0)
		r = path_root(PATH_CONFIG, &c->config_dir);
	if (r == 0)
		r = path_make(c->run_dir);
	return r < 0 ? r : take_lock(c);
}

void config_close(struct config *c)
{
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	free(c->run_dir);
	free(c->config_dir);
	*c = (struct config)CONFIG_INIT;
}

char *config_run_path(const struct config *c, const char *format, ...)
{
	char name[NAME_MAX + 1];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	return str_printf("%s/%s", c->run_dir, name);
}

/* ---- parents.d ---- */

static char *parents_dir(const struct config *c)
{
	return str_printf("%s/parents.d", c->config_dir);
}

static json_t *describe(const char *driver, const struct core_setting *settings, unsigned n)
{
	_cleanup_json_ json_t *map = json_object();
	int bad = !map;

	for (unsigned i = 0; i < n && !bad; i++)
		bad = json_object_set_new(map, settings[i].key, json_string(settings[i].value));
	return bad ? NULL : json_pack("{s:s, s:O}", "driver", driver, "settings", map);
}

int config_replace(int dir_fd, const char *tmp, const char *name, const char *text, mode_t mode)
{
	_cleanup_close_ int fd =
		openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	int r;

	if (fd < 0)
		return -errno;
	r = sock_write_all(fd, text, strlen(text));
	if (r == 0 && (fsync(fd) < 0 || renameat(dir_fd, tmp, dir_fd, name) < 0))
		r = -errno;
	if (r < 0)
		unlinkat(dir_fd, tmp, 0);
	else if (fsync(dir_fd) < 0) /* done, and not to be undone */
		log_warning("%s is written, but may not outlive a loss of power: %s", name,
			    strerror(errno));
	return r;
}

int config_save_parent(const struct config *c, const char *name, const char *driver,
		       const struct core_setting *settings, unsigned n)
{
	_cleanup_free_ char *dir = parents_dir(c), *tmp = str_printf(".%s.tmp", name),
			    *file = str_printf("%s" SUFFIX, name), *text = NULL;
	_cleanup_json_ json_t *json = describe(driver, settings, n);
	_cleanup_close_ int dir_fd = -1;
	int r;

	if (json)
		text = json_dumps(json, JSON_INDENT(2));
	if (!dir || !tmp || !file || !text)
		return -ENOMEM;
	r = path_make(dir);
	if (r < 0)
		return r;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = dir_fd < 0 ? -errno : config_replace(dir_fd, tmp, file, text, 0600);
	if (r < 0)
		return err_set(r, "cannot write %s/%s: %s", dir, file, strerror(-r));
	return 0;
}

int config_forget_parent(const struct config *c, const char *name)
{
	_cleanup_free_ char *path = str_printf("%s/parents.d/%s" SUFFIX, c->config_dir, name);

	if (!path)
		return -ENOMEM;
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(-errno, "cannot remove %s: %s", path, strerror(errno));
	return 0;
}

/* Why the file cannot be used, or NULL and *ret. */
static const char *read_file(int dir_fd, const char *name, char *why, size_t size, json_t **ret)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	json_error_t error;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return strerror(errno);
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE)
		return "it is not a small regular file";
	*ret = json_loadfd(fd, JSON_REJECT_DUPLICATES, &error);
	if (*ret)
		return NULL;
	str_format(why, size, "line %d: %s", error.line, error.text);
	return why;
}

/* Same, for what the file says. */
static const char *use_file(json_t *json, const char *name, config_parent_fn *add, void *arg)
{
	struct core_setting settings[MAX_SETTINGS];
	const char *driver = json_string_value(json_object_get(json, "driver")), *key;
	json_t *map = json_object_get(json, "settings"), *value;
	unsigned n = 0;
	int r;

	if (!driver || (map && !json_is_object(map)))
		return "it must be { \"driver\": \"...\", \"settings\": { \"key\": \"value\" } }";
	if (json_object_size(map) > MAX_SETTINGS)
		return "it has too many settings";
	json_object_foreach(map, key, value) {
		if (!json_is_string(value))
			return "each setting must be text";
		settings[n++] = (struct core_setting){ key, json_string_value(value) };
	}
	err_clear();
	r = add(arg, name, driver, settings, n);
	return r < 0 ? err_text(r) : NULL;
}

/* "card0.json" -> "card0"; NULL: not one of ours (a temporary file, an editor's copy). */
static char *parent_of(const char *file)
{
	size_t len = strlen(file), suffix = strlen(SUFFIX);

	if (*file == '.' || len <= suffix || strcmp(file + len - suffix, SUFFIX) != 0)
		return NULL;
	return strndup(file, len - suffix);
}

static void load_parent(const char *dir, int dir_fd, const char *file, config_parent_fn *add,
			void *arg)
{
	_cleanup_free_ char *name = parent_of(file);
	_cleanup_json_ json_t *json = NULL;
	char buf[256];
	const char *why;

	if (!name)
		return;
	why = read_file(dir_fd, file, buf, sizeof(buf), &json);
	if (!why)
		why = use_file(json, name, add, arg);
	if (why)
		log_error("%s/%s skipped: %s", dir, file, why);
}

void config_load_parents(const struct config *c, config_parent_fn *add, void *arg)
{
	_cleanup_free_ char *dir = parents_dir(c);
	_cleanup_close_ int dir_fd = -1;
	struct dirent **entries;
	int n;

	if (!dir)
		return;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0) {
		if (errno != ENOENT)
			log_error("cannot read %s: %s", dir, strerror(errno));
		return;
	}
	n = scandir(dir, &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		load_parent(dir, dir_fd, entries[i]->d_name, add, arg);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}
