/* SPDX-License-Identifier: MIT */
/*
 * How a device looks on a PCI bus, and its interrupts (presentation vfio-pci).
 *
 * A driver declares facts; configuration space, capabilities, BAR sizing, masks and the interrupt
 * rules of PCI 3.0 and PCIe are the core's.
 */
#ifndef UMDEV_VFIO_H
#define UMDEV_VFIO_H

#include <stdbool.h>
#include <stdint.h>
#include <umdev/device.h>

enum umdev_bar_flags {
	UMDEV_BAR_IO = 1 << 0,   /* I/O ports; else memory */
	UMDEV_BAR_64 = 1 << 1,   /* takes this and the next BAR slot */
	UMDEV_BAR_PREF = 1 << 2, /* prefetchable */
	UMDEV_BAR_MMAP = 1 << 3, /* backed by a memfd that the client maps; see umdev_bar_mem().
				  * Outside [mmap_offset, +mmap_size) accesses go to the hooks. */
	UMDEV_BAR_DOORBELLS = 1 << 4, /* instead: [mmap_offset, +mmap_size) is the doorbell page of
				       * the device's queues (queue.h). The client maps it when the
				       * parameter `doorbells` is "mapped"; accesses that come as
				       * messages go to the hooks all the same. */
};

struct umdev_bar {
	uint64_t size;        /* power of two, >= 16 (memory) or 4 (I/O); 0: no such BAR */
	uint32_t flags;       /* enum umdev_bar_flags */
	uint64_t mmap_offset; /* page aligned; one area per BAR */
	uint64_t mmap_size;   /* 0 with UMDEV_BAR_MMAP: the whole BAR */
	uint32_t instances;   /* it is there when the aggregation is so much or more; 0: always */
};

/* Static and const. */
struct umdev_pci {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code; /* base << 16 | sub << 8 | programming interface */
	uint8_t revision;
	bool express;        /* PCIe endpoint: 4096 bytes of configuration space, FLR */
	bool intx;           /* pin INTA; not together with UMDEV_BAR_MMAP (the first INTx would
			      * unmap the BAR in QEMU for good) */
	uint8_t msi;         /* vectors: 0, 1, 2, 4, 8, 16 or 32 */
	uint16_t msix;       /* vectors, 0..UMDEV_MSIX_MAX */
	uint8_t msix_bar;    /* BAR that holds table and PBA (both the core's) ... */
	uint32_t msix_table; /* ... at these offsets, 8-byte aligned, not overlapping */
	uint32_t msix_pba;
	struct umdev_bar bar[6];
};

#define UMDEV_MSIX_MAX 256

/* Choices of the parameter `doorbells`. */
#define UMDEV_DOORBELLS_MAPPED "mapped"
#define UMDEV_DOORBELLS_TRAPPED "trapped"

/*
 * Interrupts. May be called from any hook. The event reaches the guest after the hook's changes
 * were committed; over a worker's death it may come twice, never not at all.
 */
/* INTx is a level: says what the device asserts now. The core does masking, DisIntx and unmask. */
void umdev_intx_set(struct umdev_device *dev, bool asserted);
/* Is MSI or MSI-X enabled by the guest (then INTx is not delivered)? */
bool umdev_msi_enabled(const struct umdev_device *dev);
/* One message-signalled event. vector < the number declared; a vector that is not armed or is
 * masked is remembered as pending. A guest that gave MSI fewer vectors than declared shares them.
 * No effect while neither MSI nor MSI-X is enabled. */
void umdev_irq_raise(struct umdev_device *dev, unsigned vector);

/* Memory behind a UMDEV_BAR_MMAP BAR: `size` bytes, zeroed at first open, kept over take-over.
 * Fixed while the worker lives. Shared with the client: read once, then check, then use. */
void *umdev_bar_mem(struct umdev_device *dev, unsigned bar);
/* Bytes of a BAR: what was declared, or less when its memory is a resource (parent.h). */
uint64_t umdev_bar_size(const struct umdev_device *dev, unsigned bar);

/* Does the guest let the device master the bus (COMMAND bit 2)? DMA calls obey it themselves. */
bool umdev_bus_master(const struct umdev_device *dev);

#endif
