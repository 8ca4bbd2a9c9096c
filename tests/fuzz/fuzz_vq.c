// SPDX-License-Identifier: MIT
/*
 * A virtqueue whose ring, tables and journal are anything: bytes 0 and 1 choose layout, features
 * and size, the rest is laid over guest memory and journal of a ring with some chains in it.
 */
#include <string.h>
#include "../lib/vq_ring.h"

#define CHAINS 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint64_t layouts[] = { 0, 1ULL << UMDEV_VIRTIO_F_PACKED };

static void overlay(struct vq_ring *ring, const uint8_t *data, size_t size)
{
	/* Pieces: where (2 bytes), how many (1 byte), bytes. */
	while (size > 3) {
		size_t at = (data[0] | data[1] << 8) %
			    (sizeof(ring->journal) + sizeof(ring->guest));
		size_t len = data[2];

		data += 3;
		size -= 3;
		len = len < size ? len : size;
		if (len > sizeof(ring->journal) + sizeof(ring->guest) - at)
			len = sizeof(ring->journal) + sizeof(ring->guest) - at;
		memcpy((uint8_t *)ring + at, data, len);
		data += len;
		size -= len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vq_ring ring;
	static struct umdev_vq vq;
	static struct umdev_vq_chain chain;
	uint64_t features;

	_Static_assert(offsetof(struct vq_ring, guest) == sizeof(ring.journal), "one piece");
	if (size < 2)
		return 0;
	features = layouts[data[0] & 1] | (uint64_t)(data[0] >> 1 & 3) << UMDEV_VIRTIO_F_INDIRECT |
		   (uint64_t)(data[0] >> 3 & 1) << UMDEV_VIRTIO_F_IN_ORDER;
	vq_ring_init(&ring, features, 1 << (data[1] & 3));
	for (unsigned i = 0; i < 4; i++)
		vq_ring_post(&ring, 1, 1, features >> UMDEV_VIRTIO_F_INDIRECT & i & 1);
	overlay(&ring, data + 2, size - 2);
	if (umdev_vq_init(&vq, NULL, &ring.config, ring.journal) < 0)
		return 0;
	for (unsigned i = 0; i < CHAINS && umdev_vq_pop(&vq, &chain) == 1; i++) {
		if (i % 3)
			umdev_vq_push(&vq, chain.head, i);
		umdev_vq_should_signal(&vq);
	}
	umdev_vq_arm(&vq);
	umdev_vq_disarm(&vq);
	umdev_vq_position(&ring.config, ring.journal, &ring.config.avail, &ring.config.used);
	return 0;
}
