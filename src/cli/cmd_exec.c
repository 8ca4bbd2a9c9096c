/* SPDX-License-Identifier: MIT */
/* `umdev exec`: become the command, in a mount namespace where /sys holds umdev's tree. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/paths.h"
#include "base/str.h"
#include "cli/client.h"
#include "cli/namespace.h"
#include "cli/uevents.h"

/* As env(1), sh(1) and others have it. */
enum { EXIT_CANNOT_RUN = 126, EXIT_NO_COMMAND = 127 };

/* Is the tree mounted, and ours to read? */
static enum cli_exit check_tree(const char *run_dir)
{
	_cleanup_free_ char *bus = str_printf("%s/sys/bus/mdev", run_dir);

	if (!bus)
		return cli_fail_errno(-ENOMEM);
	if (access(bus, X_OK) == 0)
		return CLI_OK;
	if (errno == EACCES)
		return cli_fail(CLI_REFUSED,
				"%s/sys: not allowed: only the user who runs umdevd (or, when that "
				"is root, everybody) sees its tree",
				run_dir);
	return cli_fail(CLI_NO_DAEMON,
			"%s/sys: no umdevd shows its tree there (%s): start umdevd, or set %s to "
			"where one runs",
			run_dir, strerror(errno), path_variable(PATH_RUN));
}

/* Makes what mdevctl insists on. 0 / -errno with text */
static int make_mdevctl_dirs(const char *dir)
{
	static const char *const parts[] = { "scripts.d/callouts", "scripts.d/notifiers" };

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		_cleanup_free_ char *path = str_printf("%s/%s", dir, parts[i]);
		int r = path ? path_make(path) : -ENOMEM;

		if (r < 0)
			return r;
	}
	return 0;
}

/* The command finds the same umdevd, whoever it becomes. */
static int pass_roots(void)
{
	for (enum path_root which = PATH_RUN; which <= PATH_STATE; which++) {
		_cleanup_free_ char *path = NULL;

		if (path_root(which, &path) < 0) {
			err_clear(); /* one that is not needed */
			continue;
		}
		if (setenv(path_variable(which), path, 1) < 0)
			return -errno;
	}
	/* libudev else refuses a /sys that is no sysfs. */
	return setenv("SYSTEMD_DEVICE_VERIFY_SYSFS", "0", 0) < 0 ? -errno : 0;
}

/* 0 / -errno with text */
static int prepare(const char *run_dir, const char *config_dir, bool network)
{
	_cleanup_free_ char *mdevctl = str_printf("%s/mdevctl.d", config_dir);
	char cwd[PATH_MAX];
	int r;

	if (!mdevctl)
		return -ENOMEM;
	if (!getcwd(cwd, sizeof(cwd)))
		strcpy(cwd, "/");
	r = make_mdevctl_dirs(mdevctl);
	if (r == 0)
		r = namespace_enter(network);
	if (r == 0)
		r = namespace_merge_sys(run_dir);
	if (r == 0)
		r = namespace_place_vfio(run_dir, network);
	if (r == 0)
		r = namespace_place_mdevctl(run_dir, mdevctl);
	if (r == 0)
		r = pass_roots();
	/* A working directory below /sys is now below the new one. */
	if (r == 0 && chdir(cwd) < 0)
		r = chdir("/") < 0 ? -errno : 0;
	return r;
}

enum cli_exit cmd_exec(struct cli *cli)
{
	_cleanup_free_ char *run_dir = NULL, *config_dir = NULL;
	bool uevents = cli_option(cli, "uevents");
	enum cli_exit status;
	int r;

	if (cli->json)
		return cli_usage(cli->command, "exec: --json does not go with it: the output is "
					       "the command's");
	status = client_run_dir(&run_dir);
	if (status)
		return status;
	status = check_tree(run_dir);
	if (status)
		return status;
	r = path_root(PATH_CONFIG, &config_dir);
	if (r == 0)
		r = prepare(run_dir, config_dir, uevents);
	if (r < 0)
		return cli_fail_errno(r);
	if (uevents)
		status = uevents_start();
	if (status)
		return status;
	execvp(cli->args[0], cli->args);
	r = errno;
	cli_fail(CLI_FAILURE, "%s: %s", cli->args[0], strerror(r));
	return (enum cli_exit)(r == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_RUN);
}
