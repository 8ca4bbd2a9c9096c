/* SPDX-License-Identifier: MIT */
/*
 * umdevd --one: one device for one program, without a daemon. The manager is the ordinary one, in
 * a private directory that goes with it; the worker is the ordinary one, too.
 */
#ifndef MANAGER_ONE_H
#define MANAGER_ONE_H

#include "manager/manager.h"

struct drivers;

struct one_options {
	const char *driver, *type; /* "2" or "mtty-2" */
	char *const *settings;     /* "key=value"; of the parent where it has that key */
	unsigned n_settings;
	int fd; /* a connection that we were started with; -1: m->options.socket_path */
};

/* m->options is set. Makes the device; it serves from now on. 0 / -errno (text left). */
int one_init(struct manager *m, const struct one_options *options);
/* After manager_fini: the private directory. */
void one_fini(struct manager *m);
/* What QEMU's conventions for back-end programs ask for, on standard output. 0 / -errno */
int one_print_capabilities(const struct drivers *drivers);

#endif
