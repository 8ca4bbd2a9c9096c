/* SPDX-License-Identifier: MIT */
/* Intrusive hash of objects that embed a list node and a UUID. Owns its buckets only. */
#ifndef CORE_UUID_MAP_H
#define CORE_UUID_MAP_H

#include <stddef.h>
#include <sys/types.h>
#include "base/list.h"
#include "base/uuid.h"

struct uuid_map {
	struct list_node
		*buckets; /* size of them, a power of two; NULL: no object was ever added */
	size_t size, n;
	ptrdiff_t key; /* bytes from an object's list node to its UUID */
};
#define UUID_MAP_INIT(type, node, uuid)                                                  \
	{                                                                                \
		.key = (ptrdiff_t)offsetof(type, uuid) - (ptrdiff_t)offsetof(type, node) \
	}

/* 0 / -ENOMEM. The UUID must not change while the node is in the map. */
int uuid_map_add(struct uuid_map *map, struct list_node *node);
void uuid_map_remove(struct uuid_map *map, struct list_node *node); /* may repeat */
/* The node of the object with that UUID, or NULL. */
struct list_node *uuid_map_find(const struct uuid_map *map, const struct uuid *uuid);
void uuid_map_fini(struct uuid_map *map);

#endif
