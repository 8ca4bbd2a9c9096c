/* SPDX-License-Identifier: MIT */
/*
 * The driver `test`: a device that does nothing useful and shows everything that the base does.
 *
 *   regs  BAR 0 and INTx
 *   dma   BAR 0, MSI-X with 16 vectors (table and PBA in BAR 4), 64 KiB of memory in BAR 2 that the
 *         client may map, and an engine that moves bytes between guest memory and BAR 2
 *   blk   a disk of 4096-byte blocks: BAR 0 with registers of its own (enum test_blk_register), two
 *         rings in guest memory, MSI-X with 16 vectors; many requests in flight
 *   queue rings of such a disk that are served without an access of a register, several of them
 *   evil  a device half in the hands of its guest: evil.h
 *
 * BAR 0 of regs and dma holds the registers below, little-endian. Each is read and written at its
 * own offset, in its own width or in less: a read gives the low bytes, a write clears the high
 * ones. Only SCRATCH can be accessed byte by byte. Whatever is not named reads 0 and ignores
 * writes. "RO" ignores writes. A reset clears everything except RESETS, LAST_RESET, GAIN and BAR 2.
 *
 * Refusals, to be tested: GAIN_PARENT_REFUSES is refused by the parent half, GAIN_DEVICE_REFUSES by
 * the device half of a device that is served.
 */
#ifndef TEST_H
#define TEST_H

#include <stdint.h>

#define TEST_UNITS                                                                               \
	64 /* the pool of a parent; regs takes 1 and 1 for each aggregated, dma 2 and 2, blk and \
	      queue 1 */

#define TEST_GAIN_PARENT_REFUSES 13 /* EDOM */
#define TEST_GAIN_DEVICE_REFUSES 14 /* ERANGE */
#define TEST_GAIN_DEVICE_HANGS 98   /* a device half that never comes back ... */
#define TEST_GAIN_DEVICE_TRAPS 99   /* ... and one that crashes */

#define TEST_VENDOR 0x1234 /* assigned to nobody; QEMU uses it for such devices too */
#define TEST_DEVICE_REGS 0x7e57
#define TEST_DEVICE_DMA 0x7e58
#define TEST_DEVICE_EVIL 0x7e59
#define TEST_DEVICE_BLK 0x7e5a
#define TEST_DEVICE_QUEUE 0x7e5b
#define TEST_MAGIC 0x74736574 /* "test" */

#define TEST_BAR_REGS 0
#define TEST_BAR_MEM 2
#define TEST_BAR_MSIX 4
#define TEST_BAR_REGS_SIZE 256
#define TEST_BAR_MEM_SIZE 65536
#define TEST_BAR_MSIX_SIZE 4096
#define TEST_VECTORS 16

enum test_register {
	TEST_REG_MAGIC = 0x00,   /* u32 RO: TEST_MAGIC */
	TEST_REG_UNITS = 0x04,   /* u32 RO: value of the parameter aggregation (1 without) */
	TEST_REG_SCRATCH = 0x08, /* u64: keeps what is written */
	TEST_REG_COUNTER = 0x10, /* u64: a read gives the value and adds 1 to it */
	TEST_REG_HASH = 0x18,    /* u64: a write is mixed in; the result depends on all writes and
				  * their order: hash = (hash ^ value) * TEST_HASH_PRIME */
	TEST_REG_ECHO = 0x20,    /* u64: the last value written; one that does not follow the one
				  * before it (by 1) counts in ... */
	TEST_REG_GAPS = 0x28,    /* u64 RO: ... this */
	TEST_REG_RESETS = 0x30,  /* u32 RO: resets so far */
	TEST_REG_LAST_RESET = 0x34, /* u32 RO: enum umdev_reset of the last */
	TEST_REG_GAIN = 0x38,       /* u32 RO: value of the parameter gain */
	TEST_REG_COLOR = 0x3c,      /* u32 RO: index of the choice of the parameter color */
	TEST_REG_INTX = 0x40,       /* u32, regs only: level of INTx, 0 or 1 */
	TEST_REG_CRASH = 0x48,      /* u32: writing 1 crashes the worker, 2 hangs it; reads 0 */
	TEST_REG_RAISE = 0x44,      /* u32, dma only: a write raises that vector; reads 0 */

	/* The engine, dma only. */
	TEST_REG_DMA_IOVA = 0x80,    /* u64: address in guest memory */
	TEST_REG_DMA_OFFSET = 0x88,  /* u32: place in BAR 2 */
	TEST_REG_DMA_LEN = 0x8c,     /* u32: bytes, 1..TEST_DMA_MAX */
	TEST_REG_DMA_COMMAND = 0x90, /* u32: a write of enum test_command starts it; reads 0 */
	TEST_REG_DMA_STATUS = 0x94,  /* u32 RO: 0, a negated errno, or TEST_DMA_BUSY, of the
				      * command that was started or ended last */
	TEST_REG_DMA_DONE = 0x98,    /* u32 RO: commands that ended */
	TEST_REG_DMA_VECTOR = 0x9c,  /* u32: vector raised by the end of a command; after a reset
				      * TEST_VECTORS: none */
};

enum test_command {
	TEST_DMA_FROM_GUEST = 1, /* mapped guest memory -> BAR 2, done when the write returns */
	TEST_DMA_TO_GUEST,       /* the other way; guest memory changes behind the write's commit */
	TEST_DMA_ASK,            /* as FROM_GUEST by a message to the client: TEST_DMA_BUSY first */
	TEST_DMA_TELL,           /* as TO_GUEST by a message */
};

#define TEST_DMA_MAX 4096
#define TEST_DMA_BUSY 1
#define TEST_HASH_PRIME 0x100000001b3ULL

/*
 * blk. Little-endian, each register in its own width. A reset clears all but BLOCKS. Without a
 * medium BLOCKS is 0 and each request ends with ENODEV.
 *
 * Entry i of the submission ring is struct test_blk_entry number i % ENTRIES; the client fills
 * entries and writes TAIL. The device fetches them in order, as long as fewer than TEST_BLK_DEPTH
 * are in flight, and carries them out in any order. Each ends with one struct test_blk_completion,
 * number DONE % ENTRIES of the other ring, whose `sequence` is DONE + 1: so a client sees which are
 * new, and what is lost or repeated. The client has at most ENTRIES entries under way; a TAIL
 * further ahead is ignored.
 */
#define TEST_BLK_MEDIUM "medium" /* the resource */
#define TEST_BLK_BLOCK 4096
#define TEST_BLK_DEPTH 64
#define TEST_BLK_MAX_BLOCKS 32 /* of one entry */

enum test_blk_register {
	TEST_BLK_BLOCKS = 0x00, /* u64 RO: size of the disk */
	TEST_BLK_SQ = 0x08,     /* u64: address of the submission ring */
	TEST_BLK_CQ = 0x10,     /* u64: address of the completion ring */
	TEST_BLK_ENTRIES =
		0x18, /* u32: of both rings, 1..TEST_BLK_DEPTH; else no entry is fetched */
	TEST_BLK_VECTOR = 0x1c, /* u32: raised by each completion; TEST_VECTORS: none */
	TEST_BLK_TAIL = 0x20,   /* u32: entries submitted so far, modulo 2^32 */
	TEST_BLK_HEAD = 0x24,   /* u32 RO: entries fetched so far */
	TEST_BLK_DONE = 0x28,   /* u32 RO: entries that ended so far */
	TEST_BLK_ERROR = 0x2c,  /* u32 RO: errno of the ring access that failed last, or 0 */
	TEST_BLK_CHANGE = 0x30, /* u32 RO: what the hook `resource` was told last, or 0 */
};

#define TEST_BLK_CHANGED 0x100 /* | enum umdev_resource_change */

enum test_blk_op { TEST_BLK_READ = 1, TEST_BLK_WRITE, TEST_BLK_FLUSH };

/*
 * queue: TEST_QUEUES disks in one, each with rings as blk has, served by I/O queues
 * (umdev/queue.h). The registers of queue i are those of blk (without TAIL), TEST_QUEUE_STRIDE * i
 * further, and those below; its tail is word i of BAR 2, which the client maps when
 * doorbells=mapped. Entries may also be of enum test_queue_op, and have flags.
 */
#define TEST_QUEUES 4
#define TEST_QUEUE_STRIDE 0x40
#define TEST_BAR_DOORBELLS 2
#define TEST_QUEUE_WORK_STEPS 8

enum test_queue_register {
	TEST_QUEUE_COMMAND = 0x30, /* u32: enum test_queue_command; reads 0 */
	TEST_QUEUE_STATE = 0x34,   /* u32 RO: 0 stopped, 1 running or stopping */
	TEST_QUEUE_STOPS = 0x38,   /* u32 RO: how often it came to a stop */
	TEST_QUEUE_EVENTS = 0x3c,  /* u32 RO: its events, without TEST_QUEUE_ERRNO */
	TEST_QUEUE_WORKS = 0x20,   /* u32 RO: runs of the hook `work`, of the whole device */
};
enum test_queue_command {
	TEST_QUEUE_START = 1, /* from nothing; the tail is 0 */
	TEST_QUEUE_RESTART,   /* head, done and tail as they were */
	TEST_QUEUE_DRAIN,     /* stops */
	TEST_QUEUE_DROP,      /* stops; what is under way is never completed */
	TEST_QUEUE_WORK,      /* runs the hook `work` TEST_QUEUE_WORK_STEPS times */
};
enum test_queue_op {
	TEST_QUEUE_ZEROES = TEST_BLK_FLUSH + 1, /* n_blocks: any */
	TEST_QUEUE_DISCARD,
	TEST_QUEUE_CRASH = 99, /* crashes the worker whenever it is looked at */
};
#define TEST_QUEUE_ERRNO 0xffffU /* bits of an event: goes to TEST_BLK_ERROR */

struct test_blk_entry {
	uint32_t op; /* enum test_blk_op */
	uint32_t id; /* comes back in the completion */
	uint64_t block;
	uint64_t data;     /* address of the bytes */
	uint32_t n_blocks; /* 1..TEST_BLK_MAX_BLOCKS; FLUSH: 0 */
	uint32_t flags;    /* queue: enum umdev_submit_flags; blk ignores them */
};

struct test_blk_completion {
	uint32_t id;
	int32_t status; /* 0 or a negated errno */
	uint32_t sequence;
	uint32_t reserved;
};

struct umdev_device_driver;
struct umdev_parent_driver;
extern const struct umdev_device_driver test_device_driver;
extern const struct umdev_parent_driver test_parent_driver;

#endif
