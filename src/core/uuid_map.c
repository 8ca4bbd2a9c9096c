/* SPDX-License-Identifier: MIT */
/* Chained hash that doubles at a load of one. Keys come from administrators: no secret seed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/uuid_map.h"

#define FIRST_SIZE 64

static const struct uuid *key_of(const struct uuid_map *map, const struct list_node *node)
{
	return (const void *)((const char *)node + map->key);
}

/* Mixes every bit into the low ones: names made by counting differ in one place only. */
static uint64_t mix(uint64_t h)
{
	h ^= h >> 33;
	h *= UINT64_C(0x9e3779b97f4a7c15);
	h ^= h >> 29;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 32;
}

static struct list_node *bucket_of(const struct uuid_map *map, const struct uuid *uuid)
{
	uint64_t half[2];

	memcpy(half, uuid->b, sizeof(half));
	return &map->buckets[mix(mix(half[0]) ^ half[1]) & (map->size - 1)];
}

static int grow(struct uuid_map *map)
{
	struct list_node *old = map->buckets;
	size_t old_size = map->size, size = old_size ? 2 * old_size : FIRST_SIZE;
	struct list_node *buckets = malloc(size * sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < size; i++)
		list_init(&buckets[i]);
	map->buckets = buckets;
	map->size = size;
	for (size_t i = 0; i < old_size; i++)
		while (!list_is_empty(&old[i])) {
			struct list_node *node = old[i].next;

			list_remove(node);
			list_append(bucket_of(map, key_of(map, node)), node);
		}
	free(old);
	return 0;
}

int uuid_map_add(struct uuid_map *map, struct list_node *node)
{
	if (map->n == map->size && grow(map) < 0)
		return -ENOMEM;
	list_append(bucket_of(map, key_of(map, node)), node);
	map->n++;
	return 0;
}

void uuid_map_remove(struct uuid_map *map, struct list_node *node)
{
	if (!list_is_linked(node))
		return;
	list_remove(node);
	map->n--;
}

struct list_node *uuid_map_find(const struct uuid_map *map, const struct uuid *uuid)
{
	struct list_node *bucket;

	if (!map->size)
		return NULL;
	bucket = bucket_of(map, uuid);
	for (struct list_node *at = bucket->next; at != bucket; at = at->next)
		if (uuid_equal(key_of(map, at), uuid))
			return at;
	return NULL;
}

void uuid_map_fini(struct uuid_map *map)
{
	free(map->buckets);
	map->buckets = NULL;
	map->size = map->n = 0;
}
