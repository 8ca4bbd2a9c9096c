/* SPDX-License-Identifier: MIT */
/*
 * The manager's end of the channel to one worker: whole frames out, whole frames in, never
 * blocking. A worker that does not read fills a bounded queue and is then given up; descriptors
 * that a worker might send are not even received (plain recv).
 *
 * base/conn is not used here: its journal is for a process that another one continues after a
 * kill. A manager that dies loses what it had queued, and its successor asks anew.
 */
#ifndef MANAGER_WORKER_LINK_H
#define MANAGER_WORKER_LINK_H

#include <stddef.h>
#include <stdint.h>
#include "base/list.h"
#include "base/loop.h"
#include "wire/mw.h"

struct worker_link { /* embedded in its worker */
	struct loop_fd source;
	int fd;                 /* owned; -1: closed */
	struct list_node queue; /* struct frame, oldest first */
	unsigned n_queued;
	size_t rx_len;
	uint8_t rx[MW_MAX];
	/* A frame that passed its rule's sizes. May close the link. */
	void (*frame)(struct worker_link *link, const struct mw_frame *frame);
	/* The channel is of no more use: hang-up (-ECONNRESET), -EPROTO, -errno. */
	void (*broken)(struct worker_link *link, int error);
};

/* Takes fd. The callbacks are set already. 0 / -errno */
int link_open(struct worker_link *link, struct loop *loop, int fd);
/* Takes what the worker said before it died, without the loop. */
void link_drain(struct worker_link *link);
/* May repeat. */
void link_close(struct worker_link *link);

/* Queue one frame of `len` bytes (a negative one is an encoder's error and returned) with its
 * descriptors, which are taken always. -ENOBUFS: the worker does not read; -ENOTCONN: closed. */
int link_send(struct worker_link *link, const uint8_t *data, int len, const int *fds,
	      unsigned n_fds);

#endif
