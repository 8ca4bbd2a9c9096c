/* SPDX-License-Identifier: MIT */
/*
 * dma-engine: a PCI Express device that copies bytes.
 *
 *   BAR 0  registers, below; little-endian, each accessed whole
 *   BAR 2  64 KiB of memory, which the client maps
 *   BAR 4  MSI-X table and pending bits. Vector 0: a command ended well. Vector 1: it failed
 *
 * A write to COMMAND copies LENGTH bytes from SOURCE to TARGET. Guest addresses may lead to memory
 * of the guest or to BAR 2 of a peer; other addresses are offsets in our own BAR 2.
 */
#ifndef DMA_ENGINE_H
#define DMA_ENGINE_H

#define ENGINE_MEMORY 65536
#define ENGINE_MAX_TRANSFER 4096 /* what umdev_dma_write takes in one hook */

enum engine_register {
	ENGINE_LIMIT = 0x00,   /* u32, read only: the parameter max_transfer */
	ENGINE_LENGTH = 0x04,  /* u32 */
	ENGINE_SOURCE = 0x08,  /* u64 */
	ENGINE_TARGET = 0x10,  /* u64 */
	ENGINE_COMMAND = 0x18, /* u32, enum engine_command; reads the last one */
	ENGINE_STATUS = 0x1c,  /* u32, read only: 0, an errno, or ENGINE_BUSY */
	ENGINE_ENDED = 0x20,   /* u32, read only: commands that ended */
	ENGINE_PEERS = 0x24,   /* u32, read only: engines of the group while it is in use */
};

enum engine_command {
	ENGINE_LOAD = 1,  /* guest address -> BAR 2 */
	ENGINE_STORE = 2, /* BAR 2 -> guest address */
	ENGINE_COPY = 3,  /* guest address -> guest address */
};

#define ENGINE_BUSY 0xffffffffu

enum { ENGINE_VECTOR_DONE, ENGINE_VECTOR_FAILED, ENGINE_VECTORS };

#endif
