/* SPDX-License-Identifier: MIT */
/*
 * uevents in the machine's own network namespace (`uevents = yes` in umdev.conf), as udevd passes
 * them on: for programs that listen by libudev and have umdev's tree as their /sys. Off by default,
 * because all others hear of devices that they do not find. Needs CAP_NET_ADMIN.
 */
#ifndef MANAGER_UEVENTS_H
#define MANAGER_UEVENTS_H

struct core_event;
struct manager;

/* Failure is logged: all else works without. */
void uevents_open(struct manager *m);
void uevents_close(struct manager *m);
/* No-op unless open. */
void uevents_tell(struct manager *m, const struct core_event *event);

#endif
