/* SPDX-License-Identifier: MIT */
/*
 * What every device half is given, whatever presents it: state, parameters, resources, streams.
 *
 * One struct umdev_device per member of the group, in private memory of the worker. The parts that
 * must survive lie in the state memory: struct device_half inside the presentation's half (A/B,
 * base/ab.h), struct stream_shared once per stream.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <umdev/device.h>
#include "base/loop.h"
#include "base/uuid.h"
#include "device/stream.h"

#define DEVICE_MAX_PARAMS 32
#define DEVICE_MAX_RESOURCES 32

/* Copied with every transaction; the driver's state_size bytes follow it, 16-byte aligned. */
struct device_half {
	uint64_t in_tail[UMDEV_MAX_STREAMS];  /* bytes the device took from each stream */
	uint64_t out_head[UMDEV_MAX_STREAMS]; /* bytes the device gave to each stream */
	_Alignas(16) uint8_t state[];
};

struct device_param {
	struct umdev_param desc; /* name points into text; choices NULL: the index was sent */
	char name[64];
	struct umdev_value value;
};

struct device_resource {
	char name[32];
	int fd; /* owned; -1: none */
	uint32_t flags;
	uint64_t offset, length;
};

struct vfio_server;

struct umdev_device {
	const struct umdev_device_driver *driver;
	const struct umdev_device_type *type;
	struct uuid uuid;
	struct device_param params[DEVICE_MAX_PARAMS];
	unsigned n_params;
	struct device_resource resources[DEVICE_MAX_RESOURCES];
	unsigned n_resources;
	struct stream streams[UMDEV_MAX_STREAMS];
	unsigned n_streams;
	/* The half that hooks work on: the spare one during a transaction, else the current one.
	 * Set by the presentation. */
	struct device_half *half;
	void *priv; /* type->priv_size bytes, owned */
	struct vfio_server *vfio; /* presentation vfio-pci, or NULL */
	uint64_t log_at_ns; /* rate limit of umdev_log: start of the second ... */
	unsigned log_n;     /* ... and lines in it */
};

/* Size of the A/B part for a type: device_half and the driver's bytes, rounded to 16. */
size_t device_half_size(const struct umdev_device_type *type);
/* Looks up driver and type in the table of device halves. -ENOENT; -EPROTO: other ABI. */
int device_find_type(const struct umdev_device_driver *const *drivers, const char *driver,
		     const char *type, const struct umdev_device_driver **ret_driver,
		     const struct umdev_device_type **ret_type);
void device_fini(struct umdev_device *dev);

#endif
