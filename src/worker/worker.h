/* SPDX-License-Identifier: MIT */
/*
 * umdev-worker: one process pair per group (docs/architecture.md, "Keeper and worker").
 *
 *   keeper  exec'd by umdevd with fd 3 channel, 4 rendezvous listener, 5 state memfd. Loads the
 *           device halves, clones the worker with CLONE_FILES and waits. Never reads a byte of
 *           the channel or of a client. Worker killed: reads its I/O account, reaps it, clones
 *           again. Worker exited 0: exits 0.
 *   worker  executes CONFIG, answers READY, closes the sandbox, serves.
 *
 * The state memory (fd 5), everything by offset, checked as untrusted input at each start:
 *   struct worker_shared | per member, at its slot: struct vfio_shared, then its streams
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdint.h>
#include "base/ab.h"
#include "base/conn.h"
#include "device/stream.h"
#include "wire/mw.h"

#define WORKER_MAGIC 0x756d6465762d7732ULL
#define WORKER_LAYOUT 1 /* of struct worker_shared and all it contains; raise on every change */

struct worker_half {
	struct conn_cursor cursor; /* of the manager's channel */
	uint32_t configured;       /* config[] below holds an executed CONFIG of config_len bytes */
	uint32_t config_len;
	uint32_t ready_sent;
	uint32_t stopping;
	/* per member: descriptor of CONNECT not yet given to the presentation, or -1 */
	int32_t connect_fd[MW_MAX_MEMBERS];
	/* per member: CLOSED to be sent (1 + reason), or 0 */
	uint32_t closed[MW_MAX_MEMBERS];
};

struct worker_shared {
	uint64_t magic;
	uint32_t layout;
	uint32_t page; /* page size it was laid out for */
	uint64_t size;
	uint64_t beat_ns; /* heartbeat: CLOCK_MONOTONIC of the last round of the loop */
	uint32_t lives;   /* workers cloned so far */
	uint32_t pad;
	struct stream_account account;
	struct ab ab;
	struct worker_half half[2];
	int32_t resource_fd[MW_MAX_MEMBERS][MW_MAX_RESOURCES];
	uint8_t config[MW_MAX]; /* the CONFIG frame, kept for successors */
	struct conn_shared channel;
};

#endif
