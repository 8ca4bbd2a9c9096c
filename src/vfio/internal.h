/* SPDX-License-Identifier: MIT */
/*
 * What the files of the vfio-user server share. server.h says what a transaction is.
 *
 *   server.c   life of a connection, transactions, finish, recovery
 *   state.c    the state memory: layout, first content, check of an inherited one
 *   command.c  the command table: judging and answering one message
 *   region.c   region accesses, split for the hooks
 *   pci.c      configuration space
 *   irq.c      interrupt table, masks, pending bits
 *   memory.c   maps, unmaps, DMA by message
 *   peer.c     BARs that devices of the group reach by DMA
 *   migrate.c  device features
 *   device.c   what a driver calls
 *
 * A handler works on s->half and s->effects, which are the spare ones then, and changes nothing
 * else that another life could see.
 */
#ifndef VFIO_INTERNAL_H
#define VFIO_INTERNAL_H

#include "base/buf.h"
#include "vfio/server.h"
#include "wire/vfio_user.h"

#define VFIO_MAGIC 0x6f6966762d646d75ULL

enum vfio_region {
	VFIO_REGION_ROM = 6, /* below: the BARs */
	VFIO_REGION_CONFIG = 7,
};

enum vfio_irq { VFIO_IRQ_INTX, VFIO_IRQ_MSI, VFIO_IRQ_MSIX, VFIO_IRQ_ERR, VFIO_IRQ_REQ };

/* A vector of any kind has one slot: index into irq_fd and the bit sets. */
#define VFIO_SLOT_INTX 0
#define VFIO_SLOT_UNMASK 1 /* an eventfd by which the client (KVM) unmasks INTx */
#define VFIO_SLOT_MSI 2
#define VFIO_SLOT_MSIX (VFIO_SLOT_MSI + 32)
#define VFIO_SLOT_ERR (VFIO_SLOT_MSIX + UMDEV_MSIX_MAX)
#define VFIO_SLOT_REQ (VFIO_SLOT_ERR + 1)
#define VFIO_IRQ_WORDS ((VFIO_IRQ_FDS + 63) / 64)

#define VFIO_CONFIG 256 /* all that is not constant zero, also for a PCIe device */
/* Writes to guest memory of one transaction: one hook's, and as much again for those that share it
 * with others (ends of requests to media). */
#define VFIO_REDO_ENTRIES 128
#define VFIO_REDO_BYTES (2 * UMDEV_DMA_REDO_MAX)
#define VFIO_STALLED_TEXT "requests of the worker that died do not end"
#define VFIO_POISON_TEXT "a request crashed the device again and again"

/* A DMA by message. Its bytes (writes) lie in vfio_shared.message_data under the same index. */
enum vfio_message_state {
	VFIO_MESSAGE_FREE,
	VFIO_MESSAGE_QUEUED,  /* a hook asked; ended by the send or a reset */
	VFIO_MESSAGE_SENT,    /* ended by the client's reply, or by a reset */
	VFIO_MESSAGE_DROPPED, /* sent, and a reset came: the reply will interest nobody */
};
struct vfio_message {
	uint64_t iova;
	uint32_t len, tag;
	uint16_t id; /* on the wire, since SENT */
	uint8_t state;
	uint8_t write;
	uint32_t pad;
};

/* A command that was carried out and is answered when nothing in the range is in use any more.
 * Commands behind it wait, replies do not. */
struct vfio_wait {
	uint32_t waiting; /* 0 or 1 */
	uint16_t id, command;
	uint32_t header_flags;
	uint32_t reply_len;
	uint64_t iova, size; /* 0 and UINT64_MAX: everything; size 0: nobody asked for a wait */
	uint8_t reply[24];   /* payload of the answer */
};

/* Why a device that serves is shown as faulty. */
enum vfio_fault {
	VFIO_WELL,
	VFIO_STALLED, /* requests of a dead worker do not end; until they have */
	VFIO_FAULTY,  /* a poisoned request or a missed deadline; until the next open */
};

/* Copied for every transaction. Followed by the MSI-X table and the device's half. */
struct vfio_half {
	_Alignas(16) struct conn_cursor cursor; /* what follows is aligned so, too */
	uint32_t state;                         /* enum vfio_state */
	uint32_t faulty;                        /* enum vfio_fault */
	uint32_t reported;                      /* ops->closed is owed with reason `reported` - 1 */
	uint32_t progress; /* bytes (MULTI: 8 per entry) of the write at the head that are done */
	uint32_t intx_asserted, intx_masked;
	uint32_t client_data; /* largest payload of a message DMA that the client takes */
	uint32_t client_fds;  /* descriptors per message that the client takes */
	uint16_t message_id;  /* the next one, unless it is in use */
	uint16_t pad[3];
	struct vfio_wait wait;
	struct vfio_message message[UMDEV_DMA_MESSAGES];
	uint64_t signal[VFIO_IRQ_WORDS];  /* to be signalled; cleared after it was */
	uint64_t pending[VFIO_IRQ_WORDS]; /* happened while masked or not armed */
	uint8_t config[VFIO_CONFIG];
};

enum vfio_irq_op { VFIO_IRQ_OP_NONE, VFIO_IRQ_OP_ARM, VFIO_IRQ_OP_RELEASE };
struct vfio_irq_record {
	uint32_t op; /* enum vfio_irq_op */
	uint32_t first, count;
	int32_t fd[VFIO_MAX_FDS]; /* ARM */
};

/* What a commit makes true besides the half itself; each done by vfio_finish() and then erased. */
struct vfio_effects {
	struct dma_record dma;
	struct vfio_irq_record irq;
	uint32_t n_close; /* descriptors of the message that nobody wants */
	uint32_t n_redo, redo_len;
	int32_t close_fd[CONN_FDS];
	struct {
		uint64_t iova;
		uint32_t len, pad;
	} redo[VFIO_REDO_ENTRIES];
	uint8_t redo_data[VFIO_REDO_BYTES];
};

/* State memory of one device. The halves follow it. */
struct vfio_shared {
	uint64_t magic;
	uint32_t layout, half_size, state_version, pad;
	uint64_t size;
	struct ab ab;
	char close_text[128];         /* why the connection ends, for ops->closed */
	int32_t bar_fd[6];            /* memfds of UMDEV_BAR_MMAP, or -1 */
	int32_t irq_fd[VFIO_IRQ_FDS]; /* armed eventfds, or -1; changed by vfio_finish() only */
	struct vfio_effects effects[2];
	uint8_t message_data[UMDEV_DMA_MESSAGES][UMDEV_DMA_MESSAGE_MAX];
	struct conn_shared conn;
	struct dma_shared dma;
};

/* Where things are in configuration space, and what of it can be written. */
struct pci_layout {
	uint16_t size;               /* 256 or 4096 */
	uint8_t pm, msi, msix, pcie; /* offsets of the capabilities; 0: none */
	uint8_t init[VFIO_CONFIG];   /* power-on values */
	uint8_t mask[VFIO_CONFIG];   /* writable bits */
};

/* What went wrong on this connection: one log line each. */
enum vfio_complaint {
	VFIO_COMPLAIN_REFUSED,
	VFIO_COMPLAIN_POISON,
	VFIO_COMPLAIN_DMA,
	VFIO_COMPLAIN_IRQ,
};

/* Of the BARs that peers reach. Private to a life. */
enum vfio_bars {
	VFIO_BARS_SHOWN,  /* in the tables of the group, as far as they are decoded */
	VFIO_BARS_HIDING, /* taken away: waiting for those who use them */
	VFIO_BARS_HIDDEN, /* nobody uses them; ended by the next commit */
};

struct vfio_server {
	struct umdev_device *dev;
	struct loop *loop;
	const struct vfio_server_ops *ops;
	struct vfio_shared *shared;
	size_t half_size;
	struct vfio_half *half;       /* spare in a transaction, else current */
	struct vfio_effects *effects; /* those of half */
	bool in_transaction;
	bool initialised; /* ops->init succeeded, ops->fini is due */
	bool serving;     /* the buffer is being worked through: do not start again */
	bool held;      /* the command at the head cannot run now: waiting, or no room to answer */
	bool quiescing; /* for half->wait, or to close */
	uint32_t complained;     /* 1 << enum vfio_complaint */
	struct umdev_bar bar[6]; /* as declared, with the sizes of this device */
	struct pci_layout pci;
	void *bar_mem[6];
	struct dma_table *dma;
	struct conn conn;
	struct loop_fd source;
	struct loop_fd unmask;   /* of the eventfd in VFIO_SLOT_UNMASK */
	struct loop_timer timer; /* HELLO: until VERSION; CLOSING: until the next try to quiesce */
	struct dma_quiesce quiesce;
	bool config_written; /* in the transaction under way, or not told to the group yet */
	enum vfio_bars bars;
	unsigned next_peer; /* HIDING: whose table is waited for next ... */
	bool is_asking;     /* ... and its answer may come before the question returns */
	void (*hidden)(struct vfio_server *s, int status); /* HIDING: what then */
	struct loop_defer work;                            /* ops->work is due */
	bool paused; /* no queue thread looks at the device until the command at the head ran */
	bool irqs_changed;         /* eventfds, since irq_publish() */
	unsigned irq_n, irq_first; /* what it told: vectors in use and the slot of the first */
	bool irq_masked;
};

/* ---- state.c ---- */

size_t vfio_half_size(const struct umdev_device_type *type);
struct device_half *vfio_device_half(const struct vfio_server *s, struct vfio_half *h);
void vfio_work_on(struct vfio_server *s, unsigned which); /* a half and its effects */
void vfio_state_init(struct vfio_server *s, size_t size);
int vfio_state_check(struct vfio_server *s, size_t size);         /* -EUCLEAN */
size_t vfio_bar_bytes(const struct vfio_server *s, unsigned bar); /* whole pages */
/* Fills s->bar. -EINVAL: memory that does not suit its BAR. */
int vfio_bars_size(struct vfio_server *s);
int vfio_bars_init(struct vfio_server *s, enum umdev_init how);
void vfio_bars_close(struct vfio_server *s);           /* a life that could not begin */
uint32_t *vfio_doorbells(const struct vfio_server *s); /* or NULL: in no BAR */
/* Erases what an earlier connection left in memory that the next client will map. */
int vfio_bars_clear(struct vfio_server *s);
void vfio_msix_reset(struct vfio_server *s);

/* ---- server.c ---- */

void vfio_begin(struct vfio_server *s);
void vfio_abort(struct vfio_server *s);
void vfio_commit(struct vfio_server *s); /* and finish */
bool vfio_is_connected(const struct vfio_server *s);
/* Goes on with the message at the head: what it waited for is over, or failed. */
void vfio_go_on(struct vfio_server *s, int status);
/* Comes back to the message at the head, maybe before it returns, with s->paused: no queue thread
 * looks at the device, or uses an eventfd of it. */
void vfio_pause(struct vfio_server *s);
/* Comes back to the message at the head when no request is in flight in this range. */
void vfio_drain(struct vfio_server *s, uint64_t iova, uint64_t size);
/* Log, once per connection and kind of complaint. */
void vfio_complain(struct vfio_server *s, enum vfio_complaint what, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* In a transaction. Only what is worse than before is told. */
void vfio_set_faulty(struct vfio_server *s, enum vfio_fault fault, const char *text);
/* Back to power-on values, inside a transaction. */
void vfio_reset(struct vfio_server *s, enum umdev_reset why);
/* The same for one who is told when it is done: the command is answered (VFIO_LATER) when nothing
 * of before is in flight any more. */
void vfio_reset_and_wait(struct vfio_server *s, enum umdev_reset why);

/* ---- command.c ---- */

/* Executes the whole message in a transaction of its own. 1: go on with the next; 0: not now (it
 * waits for a quiesce, or for room to answer); -errno: the connection must end, *ret_why says why.
 */
int vfio_execute(struct vfio_server *s, const struct conn_msg *msg, const char **ret_why);
/* Answers half->wait, in a transaction of its own. */
void vfio_answer_wait(struct vfio_server *s);

/* One command while it is executed. */
struct vfio_request {
	struct vuser_header header;
	const uint8_t *payload;
	size_t len;
	const int *fds;
	unsigned n_fds;
	unsigned n_kept;         /* fds[0..n_kept) found an owner, the others are closed */
	struct buf_writer reply; /* payload of the reply */
	int reply_fd;            /* borrowed; -1: none */
	bool poisoned;           /* answered without being executed */
};

/* What a handler returns besides 0 (reply) and -errno (error reply, nothing changed). */
enum {
	VFIO_LATER = 1, /* half->wait was filled: the answer follows a quiesce */
	VFIO_MORE = 2,  /* half->progress grew: commit and call again */
};
typedef int vfio_handler(struct vfio_server *s, struct vfio_request *rq);

/* ---- region.c ---- */

vfio_handler vfio_get_region_info, vfio_get_region_io_fds;
vfio_handler vfio_region_read, vfio_region_write, vfio_region_write_multi;
uint64_t vfio_region_size(const struct vfio_server *s, unsigned region);

/* ---- pci.c ---- */

void pci_layout_init(struct pci_layout *p, const struct umdev_pci *pci,
		     const struct umdev_bar bar[6]);
/* Is it one that this device could have written? */
bool pci_config_is_possible(const struct pci_layout *p, const uint8_t config[VFIO_CONFIG]);
void pci_read(const struct vfio_server *s, uint64_t offset, uint32_t len, uint8_t *out);
void pci_write(struct vfio_server *s, uint64_t offset, uint32_t len, const uint8_t *in);
/* What configuration space would be after that write. */
void pci_imagine_write(const struct pci_layout *p, uint64_t offset, uint32_t len, const uint8_t *in,
		       uint8_t config[VFIO_CONFIG]);
/* Does memory BAR `bar` answer, and where? */
bool pci_bar_is_decoded(const struct pci_layout *p, const uint8_t config[VFIO_CONFIG], unsigned bar,
			uint64_t *ret_address);
bool pci_is_bus_master(const struct vfio_server *s);
bool pci_is_asleep(const struct vfio_server *s); /* D3hot */
bool pci_intx_is_disabled(const struct vfio_server *s);
/* Message-signalled vectors that the guest enabled; 0: none. *ret_slot: that of vector 0. */
unsigned pci_msi_vectors(const struct vfio_server *s, unsigned *ret_slot);
bool pci_msi_is_masked(const struct vfio_server *s); /* by the MSI-X function mask */

/* ---- irq.c ---- */

vfio_handler vfio_get_irq_info, vfio_set_irqs;
void irq_raise(struct vfio_server *s, unsigned vector);
void irq_update(struct vfio_server *s); /* level, masks or enables may have changed */
void irq_reset(struct vfio_server *s);
/* Bits [first, first + 64) of what is pending. */
uint64_t irq_pending_word(const struct vfio_server *s, unsigned vector);
void irq_apply(struct vfio_server *s, struct vfio_irq_record *r); /* idempotent; erases it */
void irq_signal(struct vfio_server *s);                           /* half->signal, outside */
void irq_publish(struct vfio_server *s); /* which vector is which eventfd: to the queues */
void irq_release_all(struct vfio_irq_record *r);
/* For vfio_server_event(). */
int irq_unmask(struct umdev_device *dev, void *arg);
int irq_watch_unmask(struct vfio_server *s); /* 0 / -errno; loop_remove(&s->unmask) ends it */

static inline bool bit_is_set(const uint64_t *words, unsigned bit)
{
	return words[bit / 64] >> (bit % 64) & 1;
}
static inline void bit_set(uint64_t *words, unsigned bit)
{
	words[bit / 64] |= (uint64_t)1 << (bit % 64);
}
static inline void bit_clear(uint64_t *words, unsigned bit)
{
	words[bit / 64] &= ~((uint64_t)1 << (bit % 64));
}

/* ---- memory.c ---- */

vfio_handler vfio_dma_map, vfio_dma_unmap;
/* Does it take memory away that a request in flight uses? Then it has been given to vfio_drain. */
bool vfio_unmap_must_wait(struct vfio_server *s, const struct vfio_request *rq);
/* A reply of the client. -EPROTO: to nothing that we asked. */
int message_reply(struct vfio_server *s, const struct vuser_header *h, const uint8_t *payload,
		  size_t len);
void message_send_queued(struct vfio_server *s);
void message_reset(struct vfio_server *s);
void redo_apply(struct vfio_server *s, struct vfio_effects *e);

/* ---- peer.c ---- */

/* The committed configuration space becomes what the group sees. */
void peer_show(struct vfio_server *s);
/* Takes all BARs away from the group; then() comes when nobody uses them: maybe before the return.
 * status: 0, or -errno: somebody may use them for ever. */
void peer_hide(struct vfio_server *s, void (*then)(struct vfio_server *s, int status));
/* Does it take a BAR away that a peer uses? Then vfio_go_on will come. */
bool peer_must_wait(struct vfio_server *s, const struct vfio_request *rq);

/* ---- migrate.c ---- */

vfio_handler vfio_device_feature, vfio_mig_data;

static inline struct vfio_half *vfio_half_at(const struct vfio_server *s, unsigned which)
{
	return (struct vfio_half *)((uint8_t *)(s->shared + 1) + which * s->half_size);
}
/* The MSI-X table inside a half: 16 bytes per vector. */
static inline uint8_t *vfio_msix_table(struct vfio_half *h)
{
	return (uint8_t *)(h + 1);
}

#endif
