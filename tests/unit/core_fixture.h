/* SPDX-License-Identifier: MIT */
/* Drivers, operations and a tree dump for the tests of core/. */
#ifndef TESTS_CORE_FIXTURE_H
#define TESTS_CORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/err.h"
#include "core/core.h"
#include "core/group.h"

#define UUID_A "a0000000-0000-4000-8000-000000000001"
#define UUID_B "a0000000-0000-4000-8000-00000000000a"
#define UUID_C "a0000000-0000-4000-8000-00000000000b"

/* Everything a test may look at or make fail. */
struct fixture {
	struct core core;
	struct umdev_parent *mtty, *mdpy, *mbochs, *thing;
	char log[65536]; /* events (uevents with log_uevents), one line each */
	bool log_uevents, log_off;
	const struct umdev_mdev *served; /* a worker has its values */
	int listen_error, live_error, check_error, create_error;
	unsigned n_listening, n_made, n_disconnects, n_live, n_dirty;
	unsigned n_wanted, n_unwanted; /* calls of ops->start and ops->stop */
	bool forced;                   /* the last disconnect */
	struct umdev_mdev *asked;      /* of the last disconnect or live change */
};

struct fixture *fixture_new(void);
void fixture_free(struct fixture *f); /* asserts that no device is left */

/* The kernel's three sample parents with params=off, and "thing" with settings (NULL-terminated
 * "key=value" texts). */
void add_samples(struct fixture *f);
void add_thing(struct fixture *f, const char *const *settings);
void add_plain_thing(struct fixture *f);

/* What a user does: paths relative to the root, through links. */
int write_file(struct fixture *f, const char *path, const char *text);
int write_bytes(struct fixture *f, const char *path, const void *text, size_t len,
		struct attr_wait *wait);
const char *read_file(struct fixture *f, const char *path); /* or "E<NAME>" */
bool exists(struct fixture *f, const char *path);
const char *link_text(struct fixture *f, const char *path); /* or "" */

/* Lines of the subtree in the form of tests/oracle, sorted. Owned by the caller. */
char *dump(struct fixture *f, const char *path);

/* Success asserted. spec: "UUID[,key=value]". */
struct umdev_mdev *create(struct fixture *f, struct umdev_parent *parent, const char *type,
			  const char *spec);
int try_create(struct fixture *f, struct umdev_parent *parent, const char *type, const char *spec);
void remove_idle(struct umdev_mdev *mdev);
/* mdev_start and its worker's READY; mdev_stop. */
void start(struct umdev_mdev *mdev);
void stop(struct umdev_mdev *mdev);

/* A process; different pids are different processes. */
struct sock_peer process(int pid);

/* The writer of a store that answers later. */
struct waiter {
	struct attr_wait wait;
	bool answered;
	int result;
};
void waiter_init(struct waiter *w);

#endif
