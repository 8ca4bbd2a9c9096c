/* SPDX-License-Identifier: MIT */
/*
 * umdevd: the manager. One thread, one loop. It owns the model, the tree and the listening
 * sockets, starts one worker per group in use, and answers the control socket. It never reads a
 * byte that a guest or a device client sent; the only bytes of outsiders it parses are those of
 * the control socket (by peers of its own uid or root for changes), of FUSE, and the frames of
 * workers.
 */
#ifndef MANAGER_MANAGER_H
#define MANAGER_MANAGER_H

#include <stdbool.h>
#include "base/list.h"
#include "base/loop.h"
#include "core/core.h"
#include "manager/config.h"
#include "manager/jobs.h"
#include "manager/settings.h"

struct control;
struct definitions;
struct drivers;
struct fuse_door;
struct upgrade;

/* What the command line asks for. */
struct manager_options {
	const struct drivers *drivers; /* all that there are; borrowed */
	const char *worker_path;       /* program of the workers */
	const char *store_path;        /* program of slow work */
	const char *screen_path;       /* program that shows displays */
	bool one;                      /* --one: no control socket, no tree, nothing kept */
	bool no_socket;                /* --one --fd: the device does not listen */
	const char *socket_path; /* --one --socket: where it listens; NULL: in its directory */
};

struct manager {
	struct manager_options options;
	struct config config;
	struct settings settings;
	struct loop loop;
	struct core core;
	struct list_node workers;        /* struct worker.node: all that are not reaped */
	struct fuse_door *door;          /* NULL: the tree is not mounted */
	struct fuse_door *vfio;          /* $UMDEV_RUN/vfio, likewise */
	struct control *control;         /* NULL with --one */
	struct definitions *definitions; /* of autostart; NULL with --one */
	struct jobs jobs;                /* of drivers */
	struct list_node applies;        /* struct apply.node: transactions under way */
	struct upgrade *upgrade;         /* NULL: no worker is being restarted */
	int spare_fd;                    /* for the moment when no descriptor is free */
	uint64_t shed_ns;                /* when that was last logged */
	struct loop_timer farewell;      /* stopping: when the workers have had their time */
	int state_fd;                    /* $UMDEV_RUN/state; -1: nothing is kept for a successor */
	struct loop_defer owners;        /* modes and owners of the tree are to be written */
	int uevents_fd;                  /* -1: they are not sent (uevents.h) */
	uint64_t uevents_seqnum;
	bool uevents_failed; /* that was logged */
	bool restoring;      /* what happens is not news and is written already */
	bool keep;           /* devices and workers stay when this process ends */
	bool stopping;       /* no connection is admitted any more */
	int exit_code;       /* stopping: of the loop */
};
#define MANAGER_INIT                                                                      \
	{                                                                                 \
		.config = CONFIG_INIT, .loop = LOOP_INIT, .spare_fd = -1, .state_fd = -1, \
		.uevents_fd = -1                                                          \
	}

/* Drivers this umdevd was built with; manager/parents.c. NULL-terminated. All: drivers.h */
extern const struct umdev_parent_driver *const parent_drivers[];

/* Opens everything; kept parents and what an umdevd before us left are back, clients may come.
 * m->options is set and m->config is open. 0 / -errno (text left). */
int manager_init(struct manager *m);
/* Ends workers (clients see their connection close), then the loop with exit_code. May repeat. */
void manager_stop(struct manager *m, int exit_code);
/* Ends the loop; devices, workers and their clients stay for a successor. */
void manager_leave(struct manager *m);
/* After the loop: removes parents, devices, sockets and the mount; with m->keep only what a
 * successor makes anew, and the caller exits: the model is not taken apart, because drivers would
 * take back what must stay. Accepts a half-built one. */
void manager_fini(struct manager *m);
/* sock_accept; without a free descriptor the connection is closed instead of waking us for ever. */
int manager_accept(struct manager *m, int listen_fd);
/* By worker_proc: one was reaped. clean: it ended as it was told to. */
void manager_worker_gone(struct manager *m, bool clean);

/* For the control socket: as core's, and kept in $UMDEV_CONFIG. */
int manager_parent_add(struct manager *m, const char *name, const char *driver,
		       const struct core_setting *settings, unsigned n);
int manager_parent_remove(struct manager *m, const char *name);

#endif
