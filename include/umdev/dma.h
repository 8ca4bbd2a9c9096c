/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as a device sees it: I/O virtual addresses of its own connection.
 *
 * In this order: memory of the guest that came with a file; the BAR of a device of the group that
 * is decoded at that address, where the client says that something is; else the client is asked
 * (umdev_dma_message). Devices of other groups are reached by asking, if at all: that is the
 * client's decision.
 *
 * Guest memory changes under the reader: copy once, check the copy, use the copy. No pointer into
 * it survives a return from a hook.
 */
#ifndef UMDEV_DMA_H
#define UMDEV_DMA_H

#include <stddef.h>
#include <stdint.h>
#include <umdev/device.h>

/* An address on the device's side of the (virtual) IOMMU. */
struct iova {
	uint64_t v;
};

/* Most that one hook may write to guest memory through umdev_dma_write. */
#define UMDEV_DMA_REDO_MAX 4096
/* Largest message DMA. */
#define UMDEV_DMA_MESSAGE_MAX 4096
/* Message DMAs of one device that may be under way. */
#define UMDEV_DMA_MESSAGES 16

/*
 * Copy from mapped guest memory, over as many maps as it takes.
 * 0, or -EFAULT: not mapped (or not readable); -EREMOTE: mapped without a file, and no
 * memory of a peer: ask with umdev_dma_message; -EPERM: the guest has not enabled bus mastering.
 */
int umdev_dma_read(struct umdev_device *dev, struct iova from, void *to, size_t len);
/*
 * Copy to mapped guest memory after the hook's commit. Checked now, same errors; -ENOSPC: more
 * than UMDEV_DMA_REDO_MAX in one hook. Reads in the same hook do not see it.
 */
int umdev_dma_write(struct umdev_device *dev, struct iova to, const void *from, size_t len);
/*
 * Move len bytes by asking the client (which may translate and refuse). `data` non-NULL: write,
 * NULL: read. dma_done(tag) follows, exactly once, unless the device is reset or closed first.
 * 0, -EINVAL (len 0 or too large), -EPERM (bus mastering), -EBUSY (UMDEV_DMA_MESSAGES under way).
 */
int umdev_dma_message(struct umdev_device *dev, struct iova addr, const void *data, size_t len,
		      uint32_t tag);

#endif
