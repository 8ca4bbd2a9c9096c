/* SPDX-License-Identifier: MIT */
/*
 * What the files of src/queue share. queue.h says what survives and who waits for whom.
 *
 *   queue.c    states of queues, in transactions and after them; what drivers call there
 *   group.c    begin and end of the runners
 *   shared.c   the state memory: layout, and the check of an inherited one
 *   runner.c   a round; the control thread's runner
 *   thread.c   queue threads
 *   request.c  from umdev_queue_submit to `done`
 *   memory.c   windows and other guest memory
 */
#ifndef QUEUE_INTERNAL_H
#define QUEUE_INTERNAL_H

#include <pthread.h>
#include "base/list.h"
#include "media/call.h"
#include "queue/queue.h"

#define QUEUE_RUNNERS_MAX (1 + QUEUE_THREADS_MAX) /* runner 0 is the control thread */
#define QUEUE_IRQ_WORDS (QUEUE_VECTORS_MAX / 64)
#define QUEUE_SMALL_IOVS 4                /* of a request without memory of its own */
#define QUEUE_IOVS (2 * UMDEV_QUEUE_SEGS) /* a segment may cross maps */

/* ---- in the half: one byte per queue ---- */

enum queue_state {
	QUEUE_STOPPED,
	QUEUE_RUNNING,
	QUEUE_DRAINING, /* STOPPING; ends are told */
	QUEUE_DROPPING, /* STOPPING; ends are not told */
};
#define QUEUE_STATE_MASK 3U
#define QUEUE_CONFIG_1 4U /* configuration 1 is meant, else 0; each start toggles it */
#define QUEUE_KEPT 8U     /* started with UMDEV_QUEUE_KEEP */

/* ---- in the state memory ---- */

struct queue_slot {
	_Alignas(64) uint8_t config[2][UMDEV_QUEUE_CONFIG_MAX];
	uint32_t begun;   /* 1 + the configuration whose start made the state ready; 0: none */
	uint32_t crashes; /* of workers while it was at work, since its start */
	uint32_t events;  /* asked for; its runner adds, the control thread takes ... */
	uint32_t telling; /* ... to here, until they were told */
};

/* What one runner does for one device. */
struct queue_port_shared {
	_Alignas(64) uint64_t irq[QUEUE_IRQ_WORDS]; /* owed; set by the runner */
	uint32_t at_work;                           /* 1 + the queue whose hook runs; 0: none */
	uint32_t crashed;                           /* in that hook */
};

struct queue_shared {
	uint32_t n, state_size, state_version, doorbells; /* facts of the type it was made for */
	struct queue_port_shared port[QUEUE_RUNNERS_MAX];
	struct queue_slot slot[]; /* n; then the states, then the doorbell words */
};

/* shared.c */
void *shared_state(struct queue_shared *s, unsigned index);
uint32_t *shared_doorbells(struct queue_shared *s);
void shared_init(struct queue_shared *s, const struct umdev_queue_type *type);
int shared_check(const struct queue_shared *s, const struct umdev_queue_type *type);
int shared_check_half(const struct umdev_device *dev); /* -EUCLEAN */

/* ---- in a life ---- */

struct queue_runner;

/* A runner's look at one device. Owned by the set, used by the runner. */
struct queue_port {
	struct queue_set *set;
	struct queue_port_shared *shared;
	struct dma_reader *reader;   /* NULL: the control thread */
	struct dma_reader own;       /* what it points at else */
	const struct dma_view *view; /* during a round in which it was entered */
	bool has_irq;                /* in this round */
	struct list_node node;       /* of the runner's list of those */
};

/* What the control thread wants of a queue, in one word that its runner loads once per round. */
enum queue_order {
	QUEUE_REST,  /* nothing; nobody looks at it */
	QUEUE_RUN,   /* start it if need be, and poll */
	QUEUE_DRAIN, /* start it if need be, do not poll; ends are told */
	QUEUE_DROP,  /* neither; ends are not told */
};
/* serial: of the start that the order belongs to. */
#define ORDER(serial, how, what) ((uint64_t)(serial) << 8 | (uint64_t)(how) << 4 | (what))
#define ORDER_WHAT(order) ((enum queue_order)((order)&15))
#define ORDER_HOW(order) ((enum umdev_init)((order) >> 4 & 15))
#define ORDER_SERIAL(order) ((order) >> 8)

/* Where a queue is, for its runner. */
enum queue_phase {
	QUEUE_OFF,    /* not started since the last order to */
	QUEUE_ON,     /* `start` succeeded */
	QUEUE_BROKEN, /* it failed, or the queue crashed too many workers */
};

struct umdev_queue {
	/* fixed */
	struct queue_set *set;
	struct queue_runner *runner;
	struct queue_port *port;
	unsigned index;
	struct queue_slot *slot;
	void *state, *priv;
	/* by the control thread */
	uint64_t order;  /* ORDER(), atomic */
	uint8_t started; /* byte of the half that the order is for; 0: none */
	/* by the runner */
	uint64_t rest;   /* the order to stop that was carried out, atomic */
	uint64_t begun;  /* serial of the last start that was carried out, atomic */
	uint64_t serial; /* of the start that `phase` is about */
	enum queue_phase phase;
	bool armed;            /* the guest notifies us: a look without a kick is useless */
	bool kicked;           /* atomic, also by the control thread */
	const uint8_t *config; /* in the slot */
	uint32_t in_flight;
	struct list_node node;         /* of the runner's active ones */
	struct list_node mail;         /* of its inbox */
	struct queue_request *request; /* type->requests of them */
	struct list_node free;         /* requests that were used before ... */
	uint32_t n_used;               /* ... of these; the rest is untouched memory */
};

struct queue_request {
	struct ring_user user;
	struct list_node node; /* of the queue's free ones, or the runner's to be submitted */
	struct umdev_queue *q;
	uint32_t tag;
	int result;      /* of its last step, while it is in `ended` */
	uint64_t serial; /* of the start that it belongs to */
	struct media_call call;
	struct dma_pin pin;
	uint8_t *bounce;       /* owned; instead of memory that is not aligned, or NULL */
	struct iovec straight; /* the same */
	unsigned n_guest;      /* iovecs of the guest's memory, in `few` or `many` */
	struct iovec *many;    /* owned, kept for the next; NULL: never needed */
	struct iovec few[QUEUE_SMALL_IOVS];
};

struct queue_set {
	struct umdev_device *dev;
	const struct umdev_queue_type *type;
	struct queue_group *group;
	struct dma_table *dma;
	const struct queue_host *host;
	struct queue_shared *shared;
	uint32_t *doorbells;
	unsigned number; /* in the group */
	struct media_watcher watcher;
	struct dma_pin fence; /* on everything, until the fence is passed */
	bool fenced;
	/* by hooks, looked at after their commit */
	bool changed;
	uint64_t kicks; /* bit per queue */
	/* by runners, atomic */
	uint32_t in_flight[UMDEV_MAX_MEDIA];
	bool leaving; /* a request to a medium that leaves has ended */
	/* by the control thread, atomic */
	bool held, untold, may_dma;
	/* fixed: parameters of the device */
	unsigned n_threads; /* that serve it; 0: the control thread does */
	uint64_t poll_ns;
	bool mapped; /* the client may ring doorbells without our knowing */
	int32_t vector[QUEUE_VECTORS_MAX];
	uint8_t *priv;
	struct queue_request *requests;
	struct queue_port port[QUEUE_RUNNERS_MAX];
	struct umdev_queue queue[];
};

struct queue_thread;

struct queue_runner {
	struct queue_group *group;
	struct queue_thread *thread; /* NULL: the control thread */
	unsigned number;
	/* queues with a new order, from the control thread */
	pthread_mutex_t lock;
	struct list_node inbox;
	bool mail; /* atomic: the inbox is not empty */
	/* the runner's own */
	struct media_ring *ring; /* borrowed; the control thread's is the engine's; NULL: none */
	unsigned in_ring;
	struct list_node ended;   /* requests, told and not looked at yet */
	struct list_node active;  /* queues that have an order */
	struct list_node waiting; /* requests to be submitted */
	struct list_node entered; /* ports, in this round */
	bool has_news;            /* for the control thread */
};

enum queue_blame {
	QUEUE_BLAME_NOBODY,
	QUEUE_BLAME_CULPRIT, /* who said that it crashed */
	QUEUE_BLAME_CONTROL, /* what the control thread was at */
};

enum { QUEUE_THREAD_INSIDE = 1, QUEUE_THREAD_OUTSIDE }; /* of the sandbox */

struct queue_thread {
	struct queue_runner runner;
	pthread_t id;
	int kick_fd;       /* eventfd, owned */
	int schedstat_fd;  /* what it waited for a CPU, owned; -1: not known */
	int entered;       /* under the group's lock; 0: not yet */
	bool needed;       /* likewise */
	bool quit, asleep; /* atomic */
	/* the thread's own */
	uint64_t window_ns; /* how long it looks for work before it sleeps */
	uint64_t not_before_ns, asked_ns, waited_ns;
	uint64_t tick_ns; /* of its last sleep, with mapped doorbells */
};

struct queue_group {
	struct loop *loop;
	enum queue_blame blame;
	struct queue_set *set[QUEUE_SETS_MAX];
	struct queue_runner control;
	struct loop_fd news_source;
	int news_fd; /* eventfd, owned: a thread has something for the control thread */
	struct loop_defer work, attention;
	struct queue_thread thread[QUEUE_THREADS_MAX];
	unsigned n_threads;
	/* the start of threads */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool may_enter;
	int (*enter)(void *);
	void *enter_arg;
};

/* queue.c */
/* A runner has something for the control thread: a rest, an event, an interrupt. */
void group_attention(struct queue_group *g);

/* runner.c */
void runner_init(struct queue_runner *r, struct queue_group *g, unsigned number);
void runner_fini(struct queue_runner *r);
/* q has a new order, or was kicked. In the control thread. */
void runner_order(struct queue_runner *r, struct umdev_queue *q);
void runner_kick(struct queue_runner *r);
/* Around hooks of a queue: whom a crash is blamed on. */
void hook_begin(struct umdev_queue *q);
void hook_end(struct umdev_queue *q);
/* The port's view may be used until the end of the round. */
void runner_enter(struct queue_runner *r, struct queue_port *port);
void runner_leave(struct queue_runner *r); /* all ports; what is owed is signalled */
/* True: there was work, another round is due. arm: the runner wants to sleep. */
bool round_make(struct queue_runner *r, bool arm);
int runner_start_control(struct queue_group *g);
void control_stop(struct queue_group *g);

/* crash.c */
/* A hook of a queue of this port runs from now on in this thread; NULL: none does. */
void crash_in(struct queue_port_shared *port);
int crash_watch(void); /* 0 / -errno; may repeat */

/* thread.c */
int thread_start(struct queue_thread *t, struct queue_group *g, unsigned number);
void thread_stop(struct queue_thread *t); /* and waits for its end */
void thread_kick(struct queue_thread *t);
int threads_enter(struct queue_group *g, int (*enter)(void *), void *arg);
/* The first n are to serve; the others end. */
void threads_need(struct queue_group *g, unsigned n);

/* request.c */
#define REQUESTS_IN_RING 512 /* what its completion queue has room for */
/* Ends of the ring. True: there was one. */
bool requests_reap(struct queue_runner *r);
/* Submits what waits. True: some must wait on. */
bool requests_start(struct queue_runner *r);
void requests_fini(struct umdev_queue *q);

#define load(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

#endif
