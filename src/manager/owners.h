/* SPDX-License-Identifier: MIT */
/*
 * Modes and owners of the tree's entries that a user changed (chown of `create`, ...), kept for the
 * next umdevd in $UMDEV_RUN/state/.owners: a line "MODE UID GID PATH" each. Written as a whole,
 * from the loop: a chown -R is one write, not thousands.
 */
#ifndef MANAGER_OWNERS_H
#define MANAGER_OWNERS_H

struct manager;

/* Gives entries that are there again what the file says; from now on changes are written. */
void owners_restore(struct manager *m);
void owners_flush(struct manager *m); /* writes what is still to be written */
void owners_close(struct manager *m); /* nothing is kept */

#endif
