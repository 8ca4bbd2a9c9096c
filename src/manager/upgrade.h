/* SPDX-License-Identifier: MIT */
/*
 * `umdev restart`: workers go on in the program that is installed now.
 *
 * The program is asked first which state memory it reads (--state-versions); each worker compares
 * that with its own (MW_RESTART) and refuses before anything is touched. One worker after the
 * other, so that a pause is short however many there are.
 */
#ifndef MANAGER_UPGRADE_H
#define MANAGER_UPGRADE_H

#include <jansson.h>
#include "wire/mw.h"

struct attr_wait;
struct manager;
struct umdev_mdev;
struct worker;

/* Of mdev's worker, or of all (NULL). *ret: { devices: [...] }, those whose workers are asked.
 * 0: there was none; TREE_LATER: wait is answered; -errno (text left), -EBUSY: one is under way. */
int upgrade_start(struct manager *m, const struct umdev_mdev *mdev, struct attr_wait *wait,
		  json_t **ret);
/* By worker_answers: w said RESTARTED. -EPROTO: nobody had asked. */
int upgrade_answered(struct worker *w, uint32_t serial, const struct mw_restarted *done);
/* By worker_proc: w is reaped. clean: as it was told to, or its clients had left. */
void upgrade_worker_gone(struct worker *w, bool clean);
/* The manager ends; accepts that none is under way. */
void upgrade_close(struct manager *m);

#endif
