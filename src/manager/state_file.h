/* SPDX-License-Identifier: MIT */
/*
 * $UMDEV_RUN/state/<uuid>: what a later umdevd must know of a device. JSON, one object:
 *
 *     { "version": 1, "parent": "card0", "type": "test-regs", "order": 7,
 *       "parameters": { "gain": "3" }, "pending": { "gain": "4" },
 *       "bound": { "group": 12, "vfio": 0 }, "lease": { "pid": 4709, "start": 123450 },
 *       "opened": true, "started": true, "removing": true,
 *       "failed": "why",
 *       "owner": { "pid": 4711, "uid": 0, "start": 123456 },
 *       "worker": { "messages": 1, "group": 12, "pid": 4712, "start": 123457, "member": 0,
 *                   "stopping": false } }
 *
 * bound, pending, lease (the process that it goes with), opened, started, removing, failed, owner
 * (of a connection) and worker only where they apply; unknown members are ignored. Text <-> struct
 * only. Nobody but our own user can write such a file, and what it says is judged all the same:
 * numbers here, the rest by mdev_restore.
 */
#ifndef MANAGER_STATE_FILE_H
#define MANAGER_STATE_FILE_H

#include <jansson.h>
#include <sys/types.h>
#include "core/core.h"
#include "wire/mw.h"

#define STATE_FILE_MAX (128u << 10) /* 32 parameters of 255 bytes, each escaped to 6 */

/* Where the process is that serves a device. */
struct worker_record {
	uint32_t messages; /* MW_VERSION of the umdevd that started it */
	uint32_t group;    /* names its rendezvous socket */
	pid_t pid;         /* of the keeper */
	uint64_t start;    /* its process_start() */
	unsigned member;   /* number of the device there, below MW_MAX_MEMBERS */
	bool stopping;     /* it was told to stop */
};

struct device_state {
	json_t *json; /* owned; all texts below lie in it */
	const char *parent, *type;
	struct mdev_saved saved;
	bool removing, has_worker;
	bool connected; /* by owner, which has no pidfd */
	struct sock_peer owner;
	struct worker_record worker;
};

/* Text to be freed, or NULL: no memory. worker: NULL for none. */
char *device_state_encode(const struct umdev_mdev *mdev, const struct worker_record *worker);
/* NULL and *ret, or why it cannot be used (valid until the next call). The UUID is the caller's. */
const char *device_state_decode(const char *text, size_t len, struct device_state *ret);
void device_state_fini(struct device_state *s); /* after success */

#endif
