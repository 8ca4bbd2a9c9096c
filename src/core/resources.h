/* SPDX-License-Identifier: MIT */
/* What a parent half opened for a device that is about to be served. */
#ifndef CORE_RESOURCES_H
#define CORE_RESOURCES_H

#include <umdev/parent.h>

struct umdev_resources {
	unsigned n;
	struct {
		char name[32];
		int fd; /* owned */
		uint32_t flags;
		uint64_t offset, length;
	} item[UMDEV_MAX_RESOURCES];
};

/* Calls the driver's hook; on failure the list is empty. */
int mdev_resources(struct umdev_mdev *mdev, struct umdev_resources *ret);
void mdev_resources_end(struct umdev_mdev *mdev);
void resources_fini(struct umdev_resources *list); /* closes what is left */

#endif
