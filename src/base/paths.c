/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/paths.h"
#include "base/str.h"

static const struct {
	const char *variable;
	const char *system;
	const char *xdg;
	const char *home; /* below $HOME, or NULL: no such default */
} roots[] = {
	[PATH_RUN] = { "UMDEV_RUN", "/run/umdev", "XDG_RUNTIME_DIR", NULL },
	[PATH_CONFIG] = { "UMDEV_CONFIG", "/etc/umdev", "XDG_CONFIG_HOME", ".config" },
	[PATH_STATE] = { "UMDEV_STATE", "/var/lib/umdev", "XDG_STATE_HOME", ".local/state" },
};

/* NULL: unset or empty. */
static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

const char *path_variable(enum path_root which)
{
	return roots[which].variable;
}

int path_root(enum path_root which, char **ret)
{
	const char *own = variable(roots[which].variable), *xdg = variable(roots[which].xdg);
	const char *home = roots[which].home ? variable("HOME") : NULL;
	_cleanup_free_ char *path = NULL;

	if (own)
		path = strdup(own);
	else if (geteuid() == 0)
		path = strdup(roots[which].system);
	else if (xdg)
		path = str_printf("%s/umdev", xdg);
	else if (home)
		path = str_printf("%s/%s/umdev", home, roots[which].home);
	else
		return err_set(-ENOENT, "neither %s nor %s is set: set one to a directory of yours",
			       roots[which].variable, roots[which].xdg);
	if (!path)
		return -ENOMEM;
	if (*path != '/')
		return err_set(-EINVAL, "%s is \"%s\": the path must begin with \"/\"",
			       own ? roots[which].variable : roots[which].xdg, path);
	*ret = TAKE(path);
	return 0;
}

int path_make(const char *path)
{
	_cleanup_free_ char *part = strdup(path);

	if (!part)
		return -ENOMEM;
	for (char *at = part + 1;; at++) {
		char c = *at;

		if (c && c != '/')
			continue;
		*at = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return err_set(-errno, "cannot make %s: %s", part, strerror(errno));
		if (!c)
			return 0;
		*at = c;
	}
}
