/* SPDX-License-Identifier: MIT */
/*
 * The control socket: $UMDEV_RUN/control, interface io.umdev (src/wire/io.umdev.varlink).
 *
 * Each client has bounded buffers; its calls are taken one after the other, so answers come in
 * order. An answer that comes later (a live parameter, a removal that waits) holds back that
 * client's further calls and nobody else's.
 *
 * Whoever may open the socket may look. What exists in the tree as a file (create, remove, the
 * value of a parameter) may be done by those who could write that file; root, the user of umdevd
 * and members of control_group (umdev.conf) may do everything.
 */
#ifndef MANAGER_CONTROL_H
#define MANAGER_CONTROL_H

#include <stddef.h>
#include <sys/types.h>
#include <jansson.h>
#include "base/list.h"
#include "base/loop.h"
#include "core/core.h"
#include "wire/varlink.h"

struct manager;
struct control;

/* 0 / -errno (text left) */
int control_open(struct manager *m, struct control **ret);
void control_close(struct control *control); /* accepts NULL */
/* To everybody who monitors. */
void control_event(struct control *control, const struct core_event *event);

/* ---- between control.c (connections) and control_methods.c ---- */

struct control_peer {
	struct tree_user user; /* its groups are owned by the connection */
	bool trusted;          /* may do everything */
};
/* May it write the file at `path` below node ("mdev/label/value")? 0 / -EACCES (text left) */
int control_may_write(struct manager *m, const struct control_peer *peer, struct tree_node *node,
		      const char *path);

/* 0 and *ret (NULL: nothing to say); -errno (text left); TREE_LATER: attr_done(wait) follows, *ret
 * is its reply when it went well. params passed the check. */
typedef int control_run(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret);

struct control_method {
	const char *name; /* full */
	bool changes;     /* refused to those who are not trusted; others are judged by run */
	bool stays;       /* answered again and again: only with `more` */
	const char *list; /* the reply is this array; with `more` it comes in parts */
	struct varlink_field params[9];
	control_run *run;
};
extern const struct control_method control_methods[]; /* ended by name == NULL */
extern const char control_interface[]; /* text of io.umdev.varlink; made by interface.sed */

int control_find_parent(struct manager *m, const char *name, struct umdev_parent **ret);

/* ---- control_definitions.c ---- */

int control_define(struct manager *m, const struct control_peer *peer, json_t *params,
		   struct attr_wait *wait, json_t **ret);
int control_undefine(struct manager *m, const struct control_peer *peer, json_t *params,
		     struct attr_wait *wait, json_t **ret);
int control_modify(struct manager *m, const struct control_peer *peer, json_t *params,
		   struct attr_wait *wait, json_t **ret);
int control_start_defined(struct manager *m, const struct control_peer *peer, json_t *params,
			  struct attr_wait *wait, json_t **ret);
int control_definitions(struct manager *m, const struct control_peer *peer, json_t *params,
			struct attr_wait *wait, json_t **ret);
int control_set_attrs(struct manager *m, const struct control_peer *peer, json_t *params,
		      struct attr_wait *wait, json_t **ret);
int control_attrs(struct manager *m, const struct control_peer *peer, json_t *params,
		  struct attr_wait *wait, json_t **ret);

/* ---- control_batch.c ---- */

control_run control_create_many, control_remove_many;

/* ---- control_json.c: objects of the interface; NULL: no memory ---- */

/* jansson ends the program, or drops characters, when memory is short while it reads or writes:
 * this puts memory aside for it before each call. -ENOMEM: there is none to put aside. */
int control_json_reserve(void);
void control_json_release(void);

/* Takes item; when it is NULL or there is no memory, the array becomes NULL for good. */
void control_append(json_t **array, json_t *item);

/* An io.umdev.Error with the text that err_set left. */
json_t *control_error_json(int error);
/* file: where it was loaded from; NULL: built in. */
json_t *control_driver_json(const struct umdev_parent_driver *driver, const char *file);
json_t *control_parent_json(const struct umdev_parent *parent);
json_t *control_type_json(const struct mdev_type *type);
json_t *control_device_json(const struct umdev_mdev *mdev);
/* user: who asks; without the private values that are not for its eyes. */
json_t *control_params_json(const struct umdev_mdev *mdev, const struct tree_user *user);
json_t *control_attach_json(const struct umdev_mdev *mdev);
json_t *control_event_json(const struct core_event *event); /* also NULL: not for clients */

#endif
