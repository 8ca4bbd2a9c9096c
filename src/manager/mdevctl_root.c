/* SPDX-License-Identifier: MIT */
#include "manager/mdevctl_root.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/str.h"

#define MACHINES "/usr/lib/mdevctl"

/* Below usr/lib/mdevctl, each after what it holds. */
static const char *const scripts[] = { "/scripts.d/callouts", "/scripts.d/notifiers",
				       "/scripts.d" };

/* from leads to `to`, whatever it was before. */
static int make_link(const char *to, const char *from)
{
	if (symlink(to, from) == 0)
		return 0;
	if (errno == EEXIST && unlink(from) == 0 && symlink(to, from) == 0)
		return 0;
	return err_set(-errno, "cannot make %s: %s", from, strerror(errno));
}

static int make_etc(const struct config *c)
{
	_cleanup_free_ char *dir = config_run_path(c, "etc");
	_cleanup_free_ char *link = config_run_path(c, "etc/mdevctl.d");
	_cleanup_free_ char *definitions = str_printf("%s/mdevctl.d", c->config_dir);
	int r = dir && link && definitions ? path_make(dir) : -ENOMEM;

	if (r == 0)
		r = path_make(definitions);
	return r < 0 ? r : make_link(definitions, link);
}

static int make_usr(const struct config *c)
{
	_cleanup_free_ char *lib = config_run_path(c, "usr/lib");
	_cleanup_free_ char *top = config_run_path(c, "usr/lib/mdevctl");
	int r = lib && top ? path_make(lib) : -ENOMEM;

	if (r < 0)
		return r;
	if (access(MACHINES "/scripts.d/callouts", F_OK) == 0)
		return make_link(MACHINES, top);
	for (unsigned i = 0; i < 2 && r == 0; i++) {
		_cleanup_free_ char *path = str_printf("%s%s", top, scripts[i]);

		r = path ? path_make(path) : -ENOMEM;
	}
	return r;
}

void mdevctl_root_make(const struct config *c)
{
	int r;

	err_clear();
	r = make_etc(c);
	if (r == 0)
		r = make_usr(c);
	if (r < 0)
		log_warning("MDEVCTL_ENV_ROOT=%s is not prepared: %s", c->run_dir, err_text(r));
}

static void remove_dir(const struct config *c, const char *name)
{
	_cleanup_free_ char *path = config_run_path(c, "%s", name);

	if (path && unlink(path) < 0)
		rmdir(path); /* stays when somebody put something there */
}

void mdevctl_root_remove(const struct config *c)
{
	_cleanup_free_ char *top = config_run_path(c, "usr/lib/mdevctl");

	for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		_cleanup_free_ char *path = top ? str_printf("%s%s", top, scripts[i]) : NULL;

		if (path)
			rmdir(path);
	}
	remove_dir(c, "usr/lib/mdevctl");
	remove_dir(c, "usr/lib");
	remove_dir(c, "usr");
	remove_dir(c, "etc/mdevctl.d");
	remove_dir(c, "etc");
}
