/* SPDX-License-Identifier: MIT */
/*
 * Definitions become devices, one at a time. Autostart: $UMDEV_CONFIG/mdevctl.d/<parent>/<uuid>
 * with "start": "auto" becomes a device when umdevd starts, by parent, then by UUID, one after the
 * other: it is created, then its attributes are written in order, as mdevctl would. One that fails
 * leaves no device: what was made of it is removed, the log says why, and List, Show and
 * /sys/class/mdev/mdev_failed tell it until a device of its UUID exists. What is there already
 * (umdevd was restarted) is left as it is, unless it is half made: $UMDEV_RUN/state/.definition
 * names the device whose attributes are being written, so that a successor removes it, and makes it
 * anew where that is its business.
 */
#ifndef MANAGER_DEFINITIONS_H
#define MANAGER_DEFINITIONS_H

#include <jansson.h>

#include "core/core.h"

struct definition;
struct definitions;
struct manager;

/* Starts all that can be started now; what has to wait for a store goes on from the loop. Parents
 * and devices of an umdevd before us are back already. NULL: no memory (logged). */
struct definitions *definitions_start(struct manager *m);
/* Makes a device of def (taken) and writes its attributes, after those that are queued already, or
 * leaves nothing of it. -ENOMEM, or TREE_LATER: wait is answered. */
int definition_start(struct definitions *d, const char *parent, const struct uuid *uuid,
		     struct definition *def, struct attr_wait *wait);
/* Writes def's attributes (taken) to a device that is there, in order; when one is refused, those
 * before it get their old values back. As definition_start. */
int definition_apply(struct definitions *d, const struct umdev_mdev *mdev, struct definition *def,
		     struct attr_wait *wait);
void definitions_free(struct definitions *d); /* accepts NULL */
/* Appends the failed ones, as devices of the interface; parent NULL: of all. d may be NULL. */
void definitions_failed_json(const struct definitions *d, const char *parent, json_t **array);
/* The failed one of that UUID as a device of the interface, or NULL. d may be NULL. */
json_t *definitions_failed_one(const struct definitions *d, const char *uuid);
/* "UUID PARENT REASON\n" for each, as far as there is room; their length. d may be NULL. */
int definitions_failed_text(const struct definitions *d, char *buf, size_t size);

#endif
