/* SPDX-License-Identifier: MIT */
/*
 * What every device half is given, whatever presents it: state, parameters, resources, streams.
 *
 * One struct umdev_device per member of the group, in private memory of the worker. The parts that
 * must survive lie in the state memory: struct device_half inside the presentation's half (A/B,
 * base/ab.h), struct stream_shared once per stream.
 *
 * Order: device_init, device_add_param and device_add_resource as CONFIG says; the presentation
 * sets `half` and calls device_streams_attach and ops->init; device_streams_start.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <umdev/device.h>
#include <umdev/media.h>
#include "base/loop.h"
#include "base/uuid.h"
#include "device/stream.h"
#include "dma/dma.h"

#define DEVICE_MAX_PARAMS 32
#define DEVICE_MAX_RESOURCES 32

/*
 * A request to a medium between the commit that asked for it and the one that tells its end. Its
 * segments lie outside the halves, under the same index: a hook fills those of a request that is
 * free in the current half, which nobody looks at.
 */
struct device_request {
	uint64_t offset;
	uint32_t tag;
	uint8_t op; /* enum umdev_media_op; 0: free */
	uint8_t medium, n_segs;
	uint8_t dropped; /* a reset came: its end will interest nobody */
};

/* Copied with every transaction. The driver's state_size bytes follow it, 16-byte aligned, then the
 * type's media_requests, then one byte for each of its queues (queue/internal.h). */
struct device_half {
	uint64_t in_tail[UMDEV_MAX_STREAMS];  /* bytes the device took from each stream */
	uint64_t out_head[UMDEV_MAX_STREAMS]; /* bytes the device gave to each stream */
	uint32_t work;                        /* 1: umdev_work_soon was called */
	_Alignas(16) uint8_t state[];
};

struct device_param {
	struct umdev_param desc; /* name points at `name`; choices NULL: the index was sent */
	char name[64];
	struct umdev_value value;
};

struct device_resource {
	char name[32];
	int fd; /* owned by the worker's state memory; -1: none */
	uint32_t flags;
	uint64_t offset, length;
	int medium; /* its number, or -1 */
	void *mem;  /* UMDEV_RES_MEMORY: mapped, or NULL */
};

/* Its number is its place in the list: it stays when others go. */
struct device_medium {
	char name[32]; /* "": nobody has this number */
	int fd;        /* borrowed from the resource */
	uint64_t offset, length;
	bool writable;
	bool null;   /* nothing is moved */
	bool direct; /* O_DIRECT: memory must be aligned */
	bool leaves; /* takes no new request */
};

struct vfio_server;
struct media;
struct media_engine;
struct queue_group;
struct queue_set;
struct queue_shared;

/* The devices of a worker, in the order of CONFIG, which is the same in every life. Owned by the
 * worker; the arrays are the presentation's to fill. */
struct device_group {
	struct umdev_device **members; /* owned */
	unsigned n;
	struct dma_window windows[DMA_MAX_WINDOWS]; /* of all members, as their tables have them */
	unsigned n_windows;
};

struct umdev_device {
	const struct umdev_device_driver *driver;
	const struct umdev_device_type *type;
	struct uuid uuid;
	struct device_group *group; /* borrowed; NULL: it is alone */
	unsigned group_index;
	struct device_param params[DEVICE_MAX_PARAMS];
	unsigned n_params;
	struct device_resource resources[DEVICE_MAX_RESOURCES];
	unsigned n_resources;
	struct stream_shared *stream_shared; /* state memory for as many streams as there will be */
	struct stream streams[UMDEV_MAX_STREAMS];
	unsigned n_streams;
	struct device_medium media_list[UMDEV_MAX_MEDIA];
	unsigned n_media;            /* above the highest number in use */
	struct media_engine *engine; /* of the worker, borrowed; NULL: no media */
	struct umdev_seg
		*segs;       /* state memory: UMDEV_MEDIA_SEGS per request; by the presentation */
	struct media *media; /* of this life, made by the presentation; NULL: none */
	/* A request to a medium that leaves has ended. By the worker. */
	void (*medium_leaves)(struct umdev_device *dev);
	struct queue_shared *queue_shared; /* state memory (queue/queue.h); NULL: no queues */
	struct queue_group *queue_group;   /* of the worker, borrowed; NULL: none */
	struct queue_set *queues;          /* of this life, made by the presentation; NULL: none */
	int io_fd; /* /proc/self/io for the streams' journal, or -1; borrowed */
	/* The half that hooks work on: the spare one during a transaction, else the current one.
	 * Set by the presentation. */
	struct device_half *half;
	void *priv;               /* type->priv_size bytes, owned */
	struct vfio_server *vfio; /* presentation vfio-pci, or NULL */
	uint64_t log_at_ns;       /* rate limit of umdev_log: start of the second ... */
	unsigned log_n;           /* ... and lines in it */
};

/* Size of the A/B part for a type: device_half and the driver's bytes, rounded to 16. */
size_t device_half_size(const struct umdev_device_type *type);
/* Bytes of state memory for the segments of a type's requests. */
size_t device_segs_size(const struct umdev_device_type *type);
uint8_t *device_queue_states(const struct umdev_device *dev, struct device_half *half);
struct device_request *device_requests(const struct umdev_device *dev, struct device_half *half);
/* Looks up driver and type in the table of device halves (NULL-terminated). -ENOENT; -EPROTO:
 * other ABI. */
int device_find_type(const struct umdev_device_driver *const *drivers, const char *driver,
		     const char *type, const struct umdev_device_driver **ret_driver,
		     const struct umdev_device_type **ret_type);

/* -ENOMEM. Clears *dev; stream_shared and io_fd are the caller's to set before resources come. */
int device_init(struct umdev_device *dev, const struct umdev_device_driver *driver,
		const struct umdev_device_type *type, const struct uuid *uuid);
/* Stops the streams, frees private memory; closes no descriptor. Accepts zeroed memory. */
void device_fini(struct umdev_device *dev);
/* -ENOSPC; -EEXIST. */
int device_add_param(struct umdev_device *dev, const char *name, enum umdev_param_type type,
		     const struct umdev_value *value);
struct device_param *device_param_find(struct umdev_device *dev, const char *name); /* or NULL */
/* A resource with UMDEV_RES_STREAM is the next stream; one with UMDEV_RES_MEDIUM gets the number
 * *medium, or the lowest free one when that is -1 or medium is NULL. *medium: -1 for what is none.
 * -ENOSPC; -EEXIST; -errno. */
int device_add_resource(struct umdev_device *dev, const char *name, int fd, uint32_t flags,
			uint64_t offset, uint64_t length, int *medium);
struct device_resource *device_find_resource(struct umdev_device *dev, const char *name);
/* Not of a stream. Of a medium: no request of it is in flight. Closes nothing. */
void device_remove_resource(struct umdev_device *dev, const char *name);

/*
 * All streams of the device, called by the presentation.
 */
/* dev->half is set. `last` matters for UMDEV_RESUME only. -EUCLEAN: impossible state. */
int device_streams_attach(struct umdev_device *dev, enum umdev_init how,
			  const struct stream_last_life *last);
/* Loop sources appear here and not before. `event` runs ops->stream in a transaction; it comes once
 * for each stream at once after a resume, because the life before may have died before it. */
int device_streams_start(struct umdev_device *dev, struct loop *loop,
			 void (*event)(struct stream *));
void device_streams_stop(struct umdev_device *dev); /* may repeat */
/* After a commit of the device: the host side may go on. Does no I/O itself, cheap. */
void device_streams_kick(struct umdev_device *dev);
/* In a transaction (dev->half is the spare one): drop what is buffered in both directions. */
void device_streams_reset(struct umdev_device *dev);
/* Every descriptor that the streams' state names and that is no resource. */
void device_streams_each_fd(struct umdev_device *dev, void (*fn)(void *, int), void *arg);

#endif
