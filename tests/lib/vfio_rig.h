/* SPDX-License-Identifier: MIT */
/*
 * A vfio-user server over a socketpair, with a small device behind it, and the client's end.
 *
 * Everything is one thread: rig_settle() runs the server's loop until nothing is left to do, then
 * the client looks at what came. The device is an ops table: registers of BAR 0 below.
 */
#ifndef TESTS_VFIO_RIG_H
#define TESTS_VFIO_RIG_H

#include "vfio/internal.h"

/* BAR 0. */
enum {
	RIG_SCRATCH = 0x00, /* 8 bytes, keeps what is written */
	RIG_COUNT = 0x08,   /* a read returns how often it was read before */
	RIG_INTX = 0x10,    /* write: level of INTx */
	RIG_RAISE = 0x14,   /* write: a message interrupt on that vector */
	RIG_IOVA = 0x18,    /* 8 bytes, for the commands */
	RIG_COMMAND = 0x20, /* write: enum rig_command */
	RIG_STATUS = 0x24,  /* negated errno of the last command, or of dma_done */
	RIG_DATA = 0x28,    /* 8 bytes: what a command reads and writes */
	RIG_DONE = 0x30,    /* number of dma_done calls */
	RIG_RESETS = 0x34,  /* number of resets since the start, never reset */
	RIG_MIX = 0x38,     /* 8 bytes: a hash of all that was written, in order */
	RIG_WIDTHS = 0x40,  /* 64 bytes; a write records offset and width in the log */
	RIG_BAR0 = 0x100,
};
enum rig_command {
	RIG_DMA_READ = 1,
	RIG_DMA_WRITE,
	RIG_MESSAGE_READ,
	RIG_MESSAGE_WRITE,
	RIG_DMA_ADD,       /* 1 to the 8 bytes there */
	RIG_DMA_WRITE_BIG, /* UMDEV_DMA_REDO_MAX bytes of RIG_DATA's first byte */
};

struct rig_state {
	uint64_t scratch, count, iova, data, mix;
	uint32_t status, done, resets, last_reset;
	uint32_t n_widths;
	uint8_t widths[64][2]; /* offset, width */
};

struct rig {
	struct loop loop;
	struct loop_fd stop;
	struct umdev_device dev;
	struct umdev_device_type type;
	struct umdev_pci pci;
	struct vfio_server *server;
	void *shared;
	size_t size;
	unsigned n_streams;
	struct stream_shared *stream_shared;
	int stream_fd[UMDEV_MAX_STREAMS], host[UMDEV_MAX_STREAMS]; /* ends of "port<n>" */
	int client; /* the client's end; -1: closed */
	uint16_t id;
	unsigned n_closed, n_faulty;
	enum vfio_close_reason reason;
	char text[128];
};

/* Facts of a conventional device with INTx and MSI, and of a PCIe one with MSI-X. */
extern const struct umdev_pci rig_plain, rig_express;

void rig_init(struct rig *rig, const struct umdev_pci *pci);
/* The device half of a driver instead, with host ends "port0" ... */
void rig_init_driver(struct rig *rig, const struct umdev_device_driver *driver, const char *type,
		     unsigned n_streams);
void rig_fini(struct rig *rig);
void rig_connect(struct rig *rig);
void rig_hello(struct rig *rig); /* connect, VERSION with QEMU's text, its reply */
void rig_settle(struct rig *rig);
struct rig_state *rig_state(struct rig *rig);
/* Another life on the same state memory, after a kill (crashed: of its own fault). */
void rig_restart(struct rig *rig, bool crashed);
/* The same in a cloned process: what the other life had open is not touched, and nothing runs yet
 * but what vfio_server_new does. */
void rig_succeed(struct rig *rig);
/* What RIG_MIX shows after v was written to it. */
uint64_t rig_mix(uint64_t mix, uint64_t v);

/* A message from the client: header and payload, with descriptors. Settles. */
void rig_send(struct rig *rig, uint16_t command, uint32_t flags, const void *payload, size_t len,
	      const int *fds, unsigned n_fds);
void rig_send_raw(struct rig *rig, const void *data, size_t len, const int *fds, unsigned n_fds);

struct rig_reply {
	struct vuser_header header;
	uint8_t payload[CONN_MSG_MAX];
	size_t len;
	int fd; /* owned by the test; -1: none came */
};
/* Next message from the server; false: nothing there (or hang-up). */
bool rig_receive(struct rig *rig, struct rig_reply *ret);
bool rig_is_hung_up(struct rig *rig);
/* Send and receive. Returns the errno of the reply, 0: success. */
int rig_call(struct rig *rig, uint16_t command, const void *payload, size_t len, const int *fds,
	     unsigned n_fds, struct rig_reply *ret);

uint64_t rig_read(struct rig *rig, uint32_t region, uint64_t offset, unsigned len);
void rig_write(struct rig *rig, uint32_t region, uint64_t offset, unsigned len, uint64_t value);
int rig_set_irqs(struct rig *rig, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		 const int *fds, unsigned n_fds);
int rig_map(struct rig *rig, uint64_t iova, uint64_t size, uint32_t flags, int fd, uint64_t offset);
int rig_unmap(struct rig *rig, uint64_t iova, uint64_t size, uint32_t flags);
unsigned count_fds(void);        /* descriptors of this process */
uint64_t take_events(int event); /* of a non-blocking eventfd; 0: none */

#endif
