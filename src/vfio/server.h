/* SPDX-License-Identifier: MIT */
/*
 * The vfio-user server of one device: at most one connection, PCI configuration space, regions,
 * interrupts, DMA. The only code that reads what a vfio-user client sends.
 *
 * A message is executed in a transaction: the handler changes the spare half and fills one struct
 * vfio_effects; the commit makes both true; vfio_finish() applies the effects in a fixed order,
 * each of them idempotent, and is also the whole recovery of a successor:
 *     IOVA table -> guest memory redo -> interrupt table -> descriptors closed -> reply bytes ->
 *     interrupts signalled.
 * Host events (stream, param_set, reset at open and close) run through the same transaction
 * without a message.
 *
 * Judging input: a row of the command table (sizes, descriptors, states), then the handler's own
 * checks, then the driver. A framing error closes the connection; any other mistake of the client
 * is answered with its errno.
 */
#ifndef VFIO_SERVER_H
#define VFIO_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <umdev/vfio.h>
#include "base/ab.h"
#include "base/conn.h"
#include "base/loop.h"
#include "device/device.h"
#include "dma/dma.h"
#include "media/media.h"
#include "queue/queue.h"

#ifndef VFIO_LAYOUT
#define VFIO_LAYOUT \
	5 /* of all in vfio/internal.h that lies in state memory; raise on every change */
#endif
#define VFIO_MAX_FDS 16           /* per message; QEMU refuses to start with more */
#define VFIO_MAX_DATA (64 * 1024) /* max_data_xfer_size that we offer */
#define VFIO_HANDSHAKE_MS 5000    /* a connection that says nothing is closed */
#define VFIO_POISON_TRIES 3       /* executions that ended in a crash before we answer unexecuted */
#define VFIO_REGIONS 9
#define VFIO_IRQS 5
#define VFIO_IRQ_FDS (2 + 32 + UMDEV_MSIX_MAX + 1 + 1) /* INTx and unmask, MSI, MSI-X, ERR, REQ */

/* Who enters it; what is legal; what ends it. */
enum vfio_state {
	VFIO_CLOSED,  /* init, disconnect. No descriptor, no maps. Ended by vfio_server_connect. */
	VFIO_HELLO,   /* connect. Only VERSION is legal; deadline VFIO_HANDSHAKE_MS. */
	VFIO_RUNNING, /* VERSION answered. Everything but VERSION. */
	VFIO_CLOSING, /* hang-up, protocol error, stop: quiescing; nothing is read or answered. */
};

enum vfio_close_reason {
	VFIO_CLOSE_HANGUP,
	VFIO_CLOSE_PROTOCOL, /* the client broke a rule; text says which */
	VFIO_CLOSE_STOPPED,  /* we were told to */
	VFIO_CLOSE_FAULT,    /* our side failed (memory, quiesce deadline) */
};

/* What the worker is told. Both may free nothing and may not call back into the server. */
struct vfio_server_ops {
	/* The connection is gone, the device was reset (UMDEV_RESET_CLOSE). Once; over a worker's
	 * death maybe twice. */
	void (*closed)(struct umdev_device *dev, enum vfio_close_reason reason, const char *text);
	/* The device became faulty (poisoned request, quiesce deadline) or well again (text ""). */
	void (*faulty)(struct umdev_device *dev, const char *text);
};

struct vfio_server; /* private memory; vfio/internal.h */

/* Bytes of state memory for one device of this type: its struct vfio_shared. Page multiple. */
size_t vfio_shared_size(const struct umdev_device_type *type);
/* Binds dev (dev->vfio and dev->half are set) to its state memory. resume: -EUCLEAN when the state
 * is impossible. The device's streams are attached (`last` is for them) and its init hook runs
 * here. */
int vfio_server_new(struct umdev_device *dev, struct loop *loop, void *shared, size_t size,
		    enum umdev_init how, const struct stream_last_life *last,
		    const struct vfio_server_ops *ops, struct vfio_server **ret);
void vfio_server_free(struct vfio_server *s);
/* When every member of the group has its server, and none was resumed yet: what each one's BARs are
 * becomes known to all. */
void vfio_group_start(struct device_group *group);

/* Takes fd (closed on failure). -EBUSY: there is a connection. Resets the device
 * (UMDEV_RESET_OPEN) and drops what its streams hold. Streams run while there is a connection. */
int vfio_server_connect(struct vfio_server *s, int fd);
/* Starts to close; ops->closed follows (maybe before the return when nothing is in flight). */
void vfio_server_disconnect(struct vfio_server *s, enum vfio_close_reason reason, const char *text);
/* Asks the client to give the device up (interrupt REQ, if it is armed). It may not hear. */
void vfio_server_ask_release(struct vfio_server *s);
enum vfio_state vfio_server_state(const struct vfio_server *s);
/* Successor: finish what was committed and go on. Call once the loop sources may run. */
int vfio_server_resume(struct vfio_server *s, bool crashed);

/* Run a hook in a transaction of its own; on non-zero return of fn nothing is committed. */
int vfio_server_event(struct vfio_server *s, int (*fn)(struct umdev_device *dev, void *arg),
		      void *arg);
/* Every descriptor in use: those the state names, and what this life opened for itself. */
void vfio_each_fd(struct vfio_server *s, void (*fn)(void *, int), void *arg);

#endif
