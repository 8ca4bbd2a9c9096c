// SPDX-License-Identifier: MIT
/*
 * What a driver's hook may ask of its PCI presentation (umdev/vfio.h, dma.h, media.h). All of it is
 * recorded in the transaction under way; the drivers' own bugs are asserted here.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <umdev/media.h>
#include "vfio/internal.h"

/* The server, inside a hook. */
static struct vfio_server *in_hook(struct umdev_device *dev)
{
	assert(dev->vfio && dev->vfio->in_transaction);
	return dev->vfio;
}

void umdev_intx_set(struct umdev_device *dev, bool asserted)
{
	struct vfio_server *s = in_hook(dev);

	assert(dev->type->pci->intx);
	s->half->intx_asserted = asserted;
	if (asserted)
		irq_update(s);
}

bool umdev_msi_enabled(const struct umdev_device *dev)
{
	unsigned slot;

	return pci_msi_vectors(dev->vfio, &slot) > 0;
}

void umdev_irq_raise(struct umdev_device *dev, unsigned vector)
{
	const struct umdev_pci *pci = dev->type->pci;

	assert(vector < (pci->msix > pci->msi ? pci->msix : pci->msi));
	irq_raise(in_hook(dev), vector);
}

void *umdev_bar_mem(struct umdev_device *dev, unsigned bar)
{
	assert(bar < 6 && dev->vfio->bar_mem[bar]);
	return dev->vfio->bar_mem[bar];
}

uint64_t umdev_bar_size(const struct umdev_device *dev, unsigned bar)
{
	return dev->vfio->bar[bar].size;
}

bool umdev_bus_master(const struct umdev_device *dev)
{
	return pci_is_bus_master(dev->vfio);
}

bool umdev_is_connected(const struct umdev_device *dev)
{
	return vfio_is_connected(dev->vfio);
}

int umdev_dma_read(struct umdev_device *dev, struct iova from, void *to, size_t len)
{
	struct vfio_server *s = in_hook(dev);

	return pci_is_bus_master(s) ? dma_copy_from(s->dma, from, to, len) : -EPERM;
}

int umdev_dma_write(struct umdev_device *dev, struct iova to, const void *from, size_t len)
{
	struct vfio_server *s = in_hook(dev);
	struct vfio_effects *e = s->effects;
	int r;

	if (!pci_is_bus_master(s))
		return -EPERM;
	r = dma_check(s->dma, to, len, DMA_WRITE);
	if (r < 0 || !len)
		return r;
	if (e->n_redo == VFIO_REDO_ENTRIES || len > sizeof(e->redo_data) - e->redo_len)
		return -ENOSPC;
	memcpy(e->redo_data + e->redo_len, from, len);
	e->redo[e->n_redo].iova = to.v;
	e->redo[e->n_redo].len = len;
	e->redo_len += len;
	e->n_redo++;
	return 0;
}

int umdev_dma_message(struct umdev_device *dev, struct iova addr, const void *data, size_t len,
		      uint32_t tag)
{
	struct vfio_server *s = in_hook(dev);

	if (!len || len > UMDEV_DMA_MESSAGE_MAX || len > s->half->client_data)
		return -EINVAL;
	if (!pci_is_bus_master(s))
		return -EPERM;
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		struct vfio_message *m = &s->half->message[i];

		if (m->state != VFIO_MESSAGE_FREE)
			continue;
		*m = (struct vfio_message){ .iova = addr.v,
					    .len = len,
					    .tag = tag,
					    .state = VFIO_MESSAGE_QUEUED,
					    .write = data != NULL };
		if (data)
			memcpy(s->shared->message_data[i], data, len);
		return 0;
	}
	return -EBUSY;
}

int umdev_media_submit(struct umdev_device *dev, unsigned medium, enum umdev_media_op op,
		       uint64_t offset, const struct umdev_seg *segs, unsigned n_segs, uint32_t tag)
{
	if (!pci_is_bus_master(in_hook(dev)))
		return -EPERM;
	return media_submit(dev, medium, op, offset, segs, n_segs, tag);
}
