/* SPDX-License-Identifier: MIT */
/*
 * $UMDEV_RUN as a root directory for mdevctl 1.3 and later: with MDEVCTL_ENV_ROOT=$UMDEV_RUN it
 * needs no namespace. sys/ is the tree; beside it this makes
 *
 *     etc/mdevctl.d    link to $UMDEV_CONFIG/mdevctl.d
 *     usr/lib/mdevctl  link to the machine's, or the empty directories that mdevctl insists on
 */
#ifndef MANAGER_MDEVCTL_ROOT_H
#define MANAGER_MDEVCTL_ROOT_H

#include "manager/config.h"

/* What cannot be made is logged: all else works without. */
void mdevctl_root_make(const struct config *c);
void mdevctl_root_remove(const struct config *c);

#endif
