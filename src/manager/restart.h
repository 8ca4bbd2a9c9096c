/* SPDX-License-Identifier: MIT */
/*
 * One umdevd after the other: nothing changes for clients.
 *
 * Every change of a device is written to its state file before anybody is answered, so a file never
 * says less than what was promised. A successor makes the same devices again, with the same
 * numbers, listens where its predecessor listened, and adopts the workers that it finds.
 * Connections do not notice: they are the workers'.
 *
 * What is under way when a manager ends: a device whose creation was not answered may be there or
 * not; a removal goes on; a live parameter change is asked for again and agrees in worker, tree and
 * pools; a client that was not handed to its worker yet sees its connection close.
 *
 * Without a state directory (umdevd --one) all of it does nothing.
 */
#ifndef MANAGER_RESTART_H
#define MANAGER_RESTART_H

struct manager;
struct umdev_mdev;

/* Makes $UMDEV_RUN/state. 0 / -errno (text left) */
int restart_open(struct manager *m);
/* Nothing is left to restart; no device is there any more. */
void restart_close(struct manager *m);

#define STATE_TMP ".tmp" /* in $UMDEV_RUN/state: a file that is being written */
/* Replaces a file there: a reader, or a kill, never meets half of it. 0 / -errno */
int restart_write(const struct manager *m, const char *name, const char *text);

/* Writes mdev's state file now. Failure is logged: the device works, a restart forgets it. */
void restart_save(struct manager *m, const struct umdev_mdev *mdev);
/* mdev is gone. */
void restart_forget(struct manager *m, const struct umdev_mdev *mdev);

/* Brings back every device that has a state file, and its worker; removes what is left of others.
 * A file that cannot be used is named in the log and stays. Parents are back already. */
void restart_restore(struct manager *m);

#endif
