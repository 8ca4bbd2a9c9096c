/* SPDX-License-Identifier: MIT */
/*
 * $UMDEV_CONFIG/umdev.conf: what an administrator decides about umdevd itself. Lines of
 * "key = value"; '#' begins a comment. A line that is not understood keeps umdevd from starting:
 * nobody should believe in a protection that a typing error took away.
 */
#ifndef MANAGER_SETTINGS_H
#define MANAGER_SETTINGS_H

#include <stdbool.h>
#include <sys/types.h>

struct settings {
	bool has_control_mode;
	mode_t control_mode; /* of the control socket */
	bool has_control_group;
	gid_t control_group; /* the socket's; its members may change what there is */
	bool uevents;        /* told to the machine's listeners of udev */
};

/* Without the file: nothing is set. 0 / -errno (text left: file, line, reason) */
int settings_read(const char *config_dir, struct settings *ret);

#endif
