/* SPDX-License-Identifier: MIT */
/*
 * The device half of a driver: what runs in umdev-worker and speaks with one guest.
 *
 * A device is a register model: the core calls a hook, the hook changes the state it is given and
 * returns. A hook has no other effect of its own: interrupts, guest-memory writes and bytes for
 * the host are requested by calls below and take place after the hook's changes were committed.
 * That is what lets another process continue the device when this one is killed at any
 * instruction: before the commit a hook runs again from the same state, after it never.
 *
 * Rules for every hook
 *  - change umdev_state(dev) only (and dev's private memory, which holds nothing that matters);
 *  - never block, never wait, do bounded work; stack below 2 KiB; no globals written after init;
 *  - offsets, lengths and indices were checked against the facts declared in the tables here: the
 *    core checks before, the driver need not (and asserts only its own bugs).
 * All hooks run in the worker's control thread.
 *
 * A register model is portable C: it includes only <umdev/...> and its own folder, compiles with
 * -ffreestanding and refers to umdev_* and mem* only (tools/check-portable).
 */
#ifndef UMDEV_DEVICE_H
#define UMDEV_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/abi.h>
#include <umdev/param.h>

/* Registers and small tables; copied twice per access, so keep it small (352 B: 12 ns). */
#define UMDEV_STATE_MAX 4096
/* Streams (host ends) of one device. */
#define UMDEV_MAX_STREAMS 8
/* Bytes a stream holds in each direction before back pressure. Power of two. */
#define UMDEV_STREAM_BYTES 16384

struct umdev_device;
struct umdev_pci;
struct umdev_queue_type;

enum umdev_init {
	UMDEV_FRESH,  /* state is zeroed: set power-on values */
	UMDEV_RESUME, /* state is what a killed (or older) worker committed last, already checked
		       * for size and version: check every index in it, rebuild private memory;
		       * no effect may be requested */
};

enum umdev_reset {
	UMDEV_RESET_OPEN,     /* first connection */
	UMDEV_RESET_CLIENT,   /* the VMM asked (machine reset) */
	UMDEV_RESET_FUNCTION, /* the guest asked (function-level reset, PM D3hot -> D0) */
	UMDEV_RESET_CLOSE,    /* last disconnect */
	UMDEV_RESET_PARAM,    /* an `idle` parameter changed */
};

/* What happened to a resource of a device that is served. */
enum umdev_resource_change {
	UMDEV_RESOURCE_ADDED,   /* it can be found and used from now on */
	UMDEV_RESOURCE_REMOVED, /* nothing new may be asked of it; a medium's requests in flight
				 * end as they would have, and only then its file is closed */
	UMDEV_RESOURCE_RESIZED, /* a medium has become longer */
};

/*
 * Hooks. Required unless marked optional.
 */
struct umdev_device_ops {
	/* 0 or -errno (the worker reports it and the connection is refused). Parameters, resources
	 * and streams are in place. */
	int (*init)(struct umdev_device *dev, enum umdev_init how);
	/* optional: frees what hangs off private memory. Not called when the worker is killed. */
	void (*fini)(struct umdev_device *dev);
	/* Back to power-on values. Configuration space, interrupts and mappings are the core's. */
	void (*reset)(struct umdev_device *dev, enum umdev_reset why);
	/* One register access inside BAR `bar`: offset + len <= its size, offset % len == 0,
	 * len is 1, 2, 4 or 8. Wider or unaligned client accesses were split in rising order.
	 * Unused values: read 0, ignore writes. Optional for a device without such BARs. */
	uint64_t (*bar_read)(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len);
	void (*bar_write)(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			  uint64_t value);
	/* optional: input arrived on, or space became free in, stream `stream`. Level: called
	 * again only after more arrived or more was freed. */
	void (*stream)(struct umdev_device *dev, unsigned stream);
	/* optional: a message DMA completed. status 0 or -errno; data (reads) is valid during the
	 * call only. */
	void (*dma_done)(struct umdev_device *dev, uint32_t tag, int status, const void *data,
			 size_t len);
	/* with media_requests: a request to a medium ended, 0 or -errno (umdev/media.h). Not called
	 * for one that was in flight when the device was reset. */
	void (*media_done)(struct umdev_device *dev, uint32_t tag, int status);
	/* optional: umdev_work_soon was called; a transaction of its own. */
	void (*work)(struct umdev_device *dev);
	/* with queues (umdev/queue.h): STOPPING came to its end. */
	void (*queue_stopped)(struct umdev_device *dev, unsigned queue);
	/* with queues: a queue's runner asks for `bits`, perhaps again. */
	void (*queue_event)(struct umdev_device *dev, unsigned queue, uint32_t bits);
	/* optional: the first client of dev's group has connected (to any of its devices) / the
	 * last one has left. Called for every device of the group that has the hook, each in a
	 * transaction of its own, before a client's first message is executed / before any client
	 * comes again; over a worker's death maybe twice. What it keeps of the group is an index,
	 * which is the same in every life. A reset comes later to the devices whose client connects
	 * later. */
	void (*group_open)(struct umdev_device *dev);
	void (*group_close)(struct umdev_device *dev);
	/* optional: a `live` parameter changes. Return 0 to accept (state changed here commits
	 * with the acceptance) or -errno, which the writer sees. Absent: accepted. */
	int (*param_set)(struct umdev_device *dev, const struct umdev_param *param,
			 const struct umdev_value *value);
	/* optional: a medium came, goes, or has become longer while the device is served, with or
	 * without a connection. Its number (umdev_media_find) is valid in the hook, also for
	 * REMOVED, and is never another medium's while requests of it are in flight. May be told
	 * again after a death. */
	void (*resource)(struct umdev_device *dev, const char *name,
			 enum umdev_resource_change change);
};

/* Device side of one type; `name` is umdev_type.name of the parent half. */
struct umdev_device_type {
	const char *name;
	const struct umdev_device_ops *ops;
	const struct umdev_pci *pci; /* presentation vfio-pci (vfio.h) */
	uint32_t state_size;         /* bytes, <= UMDEV_STATE_MAX */
	uint32_t state_version;      /* of the layout of those bytes; raise on every change */
	uint32_t priv_size;          /* bytes of private memory, zeroed at each start of a worker */
	uint32_t media_requests;     /* that may be in flight at once (umdev/media.h); 0: none */
	const struct umdev_queue_type *queues; /* I/O queues (umdev/queue.h), or NULL */
};

struct umdev_device_driver {
	uint32_t abi; /* UMDEV_ABI */
	const char *name;
	const struct umdev_device_type *types; /* array, ended by name == NULL */
};

/* Of a driver in a file of its own: what umdev-worker looks up. */
extern const struct umdev_device_driver umdev_device_driver UMDEV_SYMBOL;

/*
 * What a hook may call. None blocks, none allocates.
 */

/* state_size bytes. Valid during the hook only: it moves between two hooks. 16-byte aligned. */
void *umdev_state(struct umdev_device *dev);
/* priv_size bytes. Fixed while the worker lives, zeroed when another continues. */
void *umdev_priv(struct umdev_device *dev);

/* The 16 bytes of the device's UUID. */
const uint8_t *umdev_uuid(const struct umdev_device *dev);
/* NULL: the type does not list it. Valid until it changes. */
const struct umdev_value *umdev_param(const struct umdev_device *dev, const char *name);
/* Borrowed descriptor of a resource that is not a stream, or -ENOENT. */
int umdev_resource_fd(const struct umdev_device *dev, const char *name);
/* A resource with UMDEV_RES_MEMORY that is no BAR's: `*ret_len` bytes of it, fixed while the worker
 * lives, or NULL. Others look at it, too: a store counts at once, before any commit, so only what
 * is the same when the hook runs again may be stored. */
void *umdev_resource_mem(struct umdev_device *dev, const char *name, uint64_t *ret_len);

/*
 * Streams: the host end of a port. Exactly once in both directions, also over a worker's death
 * (docs/architecture.md says how). The ring is the back pressure: what does not fit is refused.
 */
/* Index of the stream resource `name`, or -ENOENT when the device was given none. */
int umdev_stream_find(const struct umdev_device *dev, const char *name);
/* Bytes that can be read / written now. */
size_t umdev_stream_avail(const struct umdev_device *dev, unsigned stream);
size_t umdev_stream_space(const struct umdev_device *dev, unsigned stream);
/* Take up to len bytes; returns how many. */
size_t umdev_stream_read(struct umdev_device *dev, unsigned stream, void *buf, size_t len);
/* Hand over up to len bytes; returns how many were accepted. */
size_t umdev_stream_write(struct umdev_device *dev, unsigned stream, const void *buf, size_t len);

/* ops->work runs in a transaction of its own, soon; asked for and run over a death too. For what is
 * too much for one hook. */
void umdev_work_soon(struct umdev_device *dev);

/*
 * The devices of the group: all that one owner may use together, this one among them. They stay the
 * same from group_open to group_close; one that is removed meanwhile never connects again.
 * What a hook may do with a peer of its own driver: read its facts, and umdev_bar_mem(), which is
 * memory of both. Its state and parameters are its own hooks' business. Memory of any peer that has
 * a BAR for it is reached by DMA, at the address that the guest gave it (umdev/dma.h).
 */
unsigned umdev_group_size(const struct umdev_device *dev);
unsigned umdev_group_index(const struct umdev_device *dev); /* of dev itself */
struct umdev_device *umdev_group_member(const struct umdev_device *dev, unsigned index);
const struct umdev_device_type *umdev_device_type(const struct umdev_device *dev);
const char *umdev_driver_name(const struct umdev_device *dev);
bool umdev_is_connected(const struct umdev_device *dev);

/* One line about this device in the worker's log, rate limited per device. printf-like. */
void umdev_log(struct umdev_device *dev, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
