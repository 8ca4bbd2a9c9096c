/* SPDX-License-Identifier: MIT */
/* Finding and judging drivers' files; drivers.h has the idea. */
#include "manager/drivers.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <umdev/cleanup.h>
#include <umdev/device.h>
#include "base/err.h"
#include "base/log.h"
#include "base/plugin.h"
#include "base/str.h"
#include "manager/manager.h"
#include "wire/mw.h"

#define SUFFIX ".so"

struct driver_file { /* owned by struct drivers */
	struct driver_file *next;
	const struct umdev_parent_driver *driver;
	void *handle;
	char *path;
};

static void driver_file_free(struct driver_file *f)
{
	plugin_close(f->handle);
	free(f->path);
	free(f);
}

const char *drivers_file(const struct drivers *d, const struct umdev_parent_driver *driver)
{
	for (const struct driver_file *f = d->files; f; f = f->next) {
		if (f->driver == driver)
			return f->path;
	}
	return NULL;
}

static int append(struct drivers *d, const struct umdev_parent_driver *driver)
{
	const struct umdev_parent_driver **table = realloc(d->table,
							   (d->n + 2) * sizeof(*d->table));

	if (!table)
		return -ENOMEM;
	table[d->n++] = driver;
	table[d->n] = NULL;
	d->table = table;
	return 0;
}

int drivers_name_files(const struct drivers *d,
		       bool (*needs)(void *arg, const struct umdev_parent_driver *driver),
		       void *arg)
{
	_cleanup_free_ char *files = strdup("");

	unsetenv(MW_DRIVER_FILES);
	for (const struct driver_file *f = d->files; f && files; f = f->next) {
		char *longer;

		if (needs && !needs(arg, f->driver))
			continue;
		longer = str_printf("%s%s:", files, f->path);
		free(files);
		files = longer;
	}
	if (!files || (*files && setenv(MW_DRIVER_FILES, files, true) < 0))
		return -ENOMEM;
	return 0;
}

/* ---- one file ---- */

static int check_name(const struct drivers *d, const char *name)
{
	for (unsigned i = 0; i < d->n; i++) {
		const char *file = drivers_file(d, d->table[i]);

		if (strcmp(d->table[i]->name, name) == 0)
			return err_set(-EEXIST, "there is a driver '%s' already: %s", name,
				       file ? file : "it is built in");
	}
	return 0;
}

static bool has_type(const struct umdev_device_driver *device, const char *name)
{
	for (const struct umdev_device_type *t = device->types; t->name; t++) {
		if (strcmp(t->name, name) == 0)
			return true;
	}
	return false;
}

/* Found out here rather than by the first client. The worker judges the rest of its half. */
static int check_halves(const struct umdev_parent_driver *parent,
			const struct umdev_device_driver *device)
{
	if (!device->name || strcmp(device->name, parent->name) != 0 || !device->types)
		return err_set(-EINVAL, "its device half is not of driver '%s'", parent->name);
	for (const struct umdev_type *t = parent->types; t->name; t++) {
		if (!has_type(device, t->name))
			return err_set(-EINVAL, "type '%s' has no device half", t->name);
	}
	return 0;
}

static int load(struct drivers *d, struct driver_file *f)
{
	const void *parent, *device;
	int error = plugin_open(f->path, &f->handle);

	if (!error)
		error = plugin_table(f->handle, "umdev_parent_driver", &parent);
	if (!error)
		error = plugin_table(f->handle, "umdev_device_driver", &device);
	if (!error)
		error = core_check_driver(parent);
	if (!error)
		error = check_halves(parent, device);
	if (!error)
		error = check_name(d, ((const struct umdev_parent_driver *)parent)->name);
	if (!error)
		error = append(d, parent);
	if (!error)
		f->driver = parent;
	return error;
}

static int load_file(struct drivers *d, const char *dir, const char *name)
{
	struct driver_file *f = calloc(1, sizeof(*f));
	int error;

	if (!f)
		return -ENOMEM;
	f->path = str_printf("%s/%s", dir, name);
	err_clear();
	error = f->path ? load(d, f) : -ENOMEM;
	if (!error) {
		log_debug("driver %s: %s", f->driver->name, f->path);
		f->next = d->files;
		d->files = f;
		return 0;
	}
	if (f->path)
		log_error("driver file %s skipped: %s", f->path, err_text(error));
	driver_file_free(f);
	return error == -ENOMEM ? error : 0;
}

/* ---- directories ---- */

static int is_driver(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return *entry->d_name != '.' && len > strlen(SUFFIX) &&
	       strcmp(entry->d_name + len - strlen(SUFFIX), SUFFIX) == 0;
}

static int load_dir(struct drivers *d, const char *dir)
{
	struct dirent **entries;
	int n = scandir(dir, &entries, is_driver, alphasort), error = 0;

	if (n < 0) {
		if (errno != ENOENT)
			log_error("cannot read %s: %s", dir, strerror(errno));
		return errno == ENOMEM ? -ENOMEM : 0;
	}
	for (int i = 0; i < n; i++) {
		if (!error)
			error = load_file(d, dir, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return error;
}

int drivers_load(struct drivers *d)
{
	const char *given = getenv("UMDEV_DRIVERS");
	_cleanup_free_ char *dirs = strdup(given ? given : UMDEV_DRIVERDIR);
	int error = dirs ? 0 : -ENOMEM;
	char *rest = dirs, *dir;

	for (unsigned i = 0; parent_drivers[i] && !error; i++)
		error = append(d, parent_drivers[i]);
	while (!error && (dir = strsep(&rest, ":"))) {
		if (*dir)
			error = load_dir(d, dir);
	}
	return error;
}

void drivers_unload(struct drivers *d)
{
	while (d->files) {
		struct driver_file *f = d->files;

		d->files = f->next;
		driver_file_free(f);
	}
	free(TAKE(d->table));
	d->n = 0;
}
