// SPDX-License-Identifier: MIT
/*
 * States of queues: changed in transactions (bytes of the half), made true after their commit
 * (orders to the runners), and ended by transactions again (queue_stopped, queue_event).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/ab.h"
#include <umdev/vfio.h>
#include "queue/internal.h"

#define DEFAULT_POLL_US 50
#define THREADS_WITHOUT_RING 2 /* at least */

static enum queue_state state_of(uint8_t byte)
{
	return (enum queue_state)(byte & QUEUE_STATE_MASK);
}

static unsigned config_of(uint8_t byte)
{
	return byte & QUEUE_CONFIG_1 ? 1 : 0;
}

static uint8_t *states(const struct umdev_device *dev)
{
	return device_queue_states(dev, dev->half);
}

/* ---- in a transaction ---- */

int umdev_queue_start(struct umdev_device *dev, unsigned index, enum umdev_queue_start how,
		      const void *config, size_t len)
{
	struct queue_set *set = dev->queues;
	uint8_t *byte, *to;

	if (index >= set->type->max || len > UMDEV_QUEUE_CONFIG_MAX)
		return -EINVAL;
	byte = &states(dev)[index];
	if (state_of(*byte) != QUEUE_STOPPED)
		return -EBUSY;
	*byte = (uint8_t)((~*byte & QUEUE_CONFIG_1) | QUEUE_RUNNING |
			  (how == UMDEV_QUEUE_KEEP ? QUEUE_KEPT : 0));
	/* Not the one that the current half means. */
	to = set->shared->slot[index].config[config_of(*byte)];
	memset(to, 0, UMDEV_QUEUE_CONFIG_MAX);
	if (len)
		memcpy(to, config, len);
	set->changed = true;
	return 0;
}

int umdev_queue_stop(struct umdev_device *dev, unsigned index, enum umdev_queue_stop how)
{
	struct queue_set *set = dev->queues;
	uint8_t *byte;

	if (index >= set->type->max)
		return -EINVAL;
	byte = &states(dev)[index];
	if (state_of(*byte) == QUEUE_STOPPED)
		return -EINVAL;
	if (state_of(*byte) == QUEUE_RUNNING || how == UMDEV_QUEUE_DROP)
		*byte = (uint8_t)((*byte & ~QUEUE_STATE_MASK) |
				  (how == UMDEV_QUEUE_DROP ? QUEUE_DROPPING : QUEUE_DRAINING));
	set->changed = true;
	return 0;
}

bool umdev_queue_is_stopped(const struct umdev_device *dev, unsigned index)
{
	assert(index < dev->queues->type->max);
	return state_of(states(dev)[index]) == QUEUE_STOPPED;
}

void umdev_queue_kick(struct umdev_device *dev, unsigned index)
{
	assert(index < dev->queues->type->max);
	dev->queues->kicks |= (uint64_t)1 << index;
}

const void *umdev_queue_peek(const struct umdev_device *dev, unsigned index)
{
	assert(index < dev->queues->type->max);
	return dev->queues->queue[index].state;
}

void umdev_doorbell_set(struct umdev_device *dev, unsigned word, uint32_t value)
{
	assert(word < dev->queues->type->doorbells);
	__atomic_store_n(&dev->queues->doorbells[word], value, __ATOMIC_RELEASE);
}

void queues_reset(struct umdev_device *dev)
{
	struct queue_set *set = dev->queues;

	if (!set)
		return;
	for (unsigned i = 0; i < set->type->max; i++)
		states(dev)[i] &= QUEUE_CONFIG_1;
	set->changed = true;
}

/* ---- orders ---- */

static void give_order(struct umdev_queue *q, uint64_t order)
{
	store(&q->order, order);
	store(&q->kicked, true);
	runner_order(q->runner, q);
}

/* The state is made ready for a start, once, whatever life does it. */
static enum umdev_init prepare(struct umdev_queue *q, uint8_t byte)
{
	struct queue_slot *slot = q->slot;

	if (slot->begun == 1 + config_of(byte))
		return UMDEV_RESUME;
	if (!(byte & QUEUE_KEPT))
		memset(q->state, 0, q->set->type->state_size);
	slot->events = slot->telling = slot->crashes = 0;
	ab_barrier();
	slot->begun = 1 + config_of(byte);
	return UMDEV_FRESH;
}

/* Tells the runner what the byte of the current half asks for. */
static void follow(struct umdev_queue *q, uint8_t byte)
{
	static const enum queue_order orders[] = { [QUEUE_STOPPED] = QUEUE_REST,
						   [QUEUE_RUNNING] = QUEUE_RUN,
						   [QUEUE_DRAINING] = QUEUE_DRAIN,
						   [QUEUE_DROPPING] = QUEUE_DROP };
	uint8_t start = byte | QUEUE_STATE_MASK; /* the same for all orders of one start */
	enum queue_order what = orders[state_of(byte)];
	uint64_t serial = ORDER_SERIAL(q->order);
	enum umdev_init how = ORDER_HOW(q->order);

	if (what == QUEUE_REST) {
		q->slot->begun = 0;
		start = 0;
	} else if (q->started != start) {
		how = prepare(q, byte);
		q->config = q->slot->config[config_of(byte)];
		serial++;
	}
	if (q->started == start && ORDER_WHAT(q->order) == what)
		return;
	q->started = start;
	give_order(q, ORDER(serial, how, what));
}

/* Who peeks at a queue that was started anew sees nothing old, also before it can run. */
static void prepare_all(struct queue_set *set)
{
	const uint8_t *bytes = states(set->dev);

	for (unsigned i = 0; i < set->type->max; i++) {
		if (state_of(bytes[i]) == QUEUE_STOPPED)
			set->queue[i].slot->begun = 0;
		else
			prepare(&set->queue[i], bytes[i]);
	}
}

static void follow_all(struct queue_set *set)
{
	const uint8_t *bytes = states(set->dev);

	set->changed = false;
	for (unsigned i = 0; i < set->type->max; i++)
		follow(&set->queue[i], bytes[i]);
}

void queues_kick(struct umdev_device *dev)
{
	struct queue_set *set = dev->queues;

	if (!set)
		return;
	if (set->fenced) { /* everything is looked at when the fence is passed */
		if (set->changed)
			prepare_all(set);
		return;
	}
	if (set->changed)
		follow_all(set);
	while (set->kicks) {
		struct umdev_queue *q = &set->queue[__builtin_ctzll(set->kicks)];

		set->kicks &= set->kicks - 1;
		store(&q->kicked, true);
		runner_kick(q->runner);
	}
}

void queues_hold(struct umdev_device *dev, bool untold)
{
	struct queue_set *set = dev->queues;

	if (!set)
		return;
	store(&set->held, true);
	if (!untold)
		return;
	store(&set->untold, true);
	group_attention(set->group);
}

void queues_release(struct umdev_device *dev)
{
	struct queue_set *set = dev->queues;

	if (!set || !set->held)
		return;
	store(&set->untold, false);
	store(&set->held, false);
	for (unsigned i = 0; i < set->type->max; i++)
		store(&set->queue[i].kicked, true);
	for (unsigned i = 0; i < set->type->max; i++)
		runner_kick(set->queue[i].runner);
}

bool queues_are_busy(const struct umdev_device *dev)
{
	const uint8_t *bytes;

	if (!dev->queues)
		return false;
	bytes = states(dev);
	for (unsigned i = 0; i < dev->queues->type->max; i++)
		if (state_of(bytes[i]) != QUEUE_STOPPED)
			return true;
	return false;
}

void queues_hide_vectors(struct umdev_device *dev)
{
	for (unsigned i = 0; i < QUEUE_VECTORS_MAX; i++)
		store(&dev->queues->vector[i], -1);
}

bool queues_have_threads(const struct umdev_device *dev)
{
	return dev->queues && dev->queues->n_threads;
}

bool queues_medium_is_idle(const struct umdev_device *dev, unsigned medium)
{
	const struct queue_set *set = dev->queues;

	return !set || (!list_is_linked(&set->fence.node) && !load(&set->in_flight[medium]));
}

void queues_allow_dma(struct umdev_device *dev, bool allowed)
{
	if (dev->queues && dev->queues->may_dma != allowed)
		store(&dev->queues->may_dma, allowed);
}

void queues_set_vector(struct umdev_device *dev, unsigned vector, int fd)
{
	if (dev->queues && vector < QUEUE_VECTORS_MAX)
		store(&dev->queues->vector[vector], fd);
}

/* ---- what runners ask the control thread for ---- */

struct end {
	unsigned index;
	uint32_t bits;
};

static int tell_stopped(struct umdev_device *dev, void *arg)
{
	const struct end *end = arg;

	states(dev)[end->index] &= QUEUE_CONFIG_1;
	dev->queues->changed = true;
	if (dev->type->ops->queue_stopped)
		dev->type->ops->queue_stopped(dev, end->index);
	return 0;
}

static int tell_event(struct umdev_device *dev, void *arg)
{
	const struct end *end = arg;

	dev->type->ops->queue_event(dev, end->index, end->bits);
	return 0;
}

/* Each may commit and change anything: the caller looks afresh. */
static void take_events(struct umdev_queue *q)
{
	struct queue_slot *slot = q->slot;
	struct end end = { .index = q->index };

	slot->telling |= load(&slot->events);
	ab_barrier();
	__atomic_fetch_and(&slot->events, ~slot->telling, __ATOMIC_SEQ_CST);
	ab_barrier();
	end.bits = slot->telling;
	if (!end.bits)
		return;
	if (q->set->dev->type->ops->queue_event)
		q->set->host->run(q->set->dev, tell_event, &end);
	slot->telling = 0;
}

static bool is_stopping(const struct umdev_queue *q)
{
	uint8_t byte = states(q->set->dev)[q->index];

	return state_of(byte) == QUEUE_DRAINING || state_of(byte) == QUEUE_DROPPING;
}

static int raise_all(struct umdev_device *dev, void *arg)
{
	const uint64_t *irq = arg;

	for (unsigned v = 0; v < QUEUE_VECTORS_MAX; v++)
		if (irq[v / 64] >> (v % 64) & 1)
			dev->queues->host->irq(dev, v);
	return 0;
}

/* Interrupts that no eventfd stands for now: masked, not armed, or shared. */
static void take_irqs(struct queue_set *set, struct queue_port_shared *port)
{
	uint64_t irq[QUEUE_IRQ_WORDS], any = 0;

	for (unsigned i = 0; i < QUEUE_IRQ_WORDS; i++)
		any |= irq[i] = load(&port->irq[i]);
	if (!any || set->host->run(set->dev, raise_all, irq))
		return;
	for (unsigned i = 0; i < QUEUE_IRQ_WORDS; i++)
		__atomic_fetch_and(&port->irq[i], ~irq[i], __ATOMIC_SEQ_CST);
}

/* A medium may be what the last request of it was waited for. */
static void look_for_leaving(struct queue_set *set)
{
	struct umdev_device *dev = set->dev;

	for (unsigned i = 0; i < dev->n_media; i++)
		if (dev->media_list[i].leaves && queues_medium_is_idle(dev, i))
			dev->medium_leaves(dev);
}

/* The journals' requests were asked for again: from now on their own pins hold the memory. */
static void end_fence(struct queue_set *set)
{
	for (unsigned i = 0; i < set->type->max; i++) {
		const struct umdev_queue *q = &set->queue[i];

		if (q->started && load(&q->begun) != ORDER_SERIAL(q->order) && !set->untold)
			return; /* untold: it will be reset before it could start */
	}
	dma_unpin(set->dma, NULL, &set->fence);
	look_for_leaving(set);
}

static void attend(struct queue_set *set)
{
	struct end end;

	if (list_is_linked(&set->fence.node))
		end_fence(set);
	if (__atomic_exchange_n(&set->leaving, false, __ATOMIC_SEQ_CST))
		look_for_leaving(set);
	for (unsigned i = 0; i < QUEUE_RUNNERS_MAX; i++)
		take_irqs(set, &set->shared->port[i]);
	for (unsigned i = 0; i < set->type->max; i++) {
		struct umdev_queue *q = &set->queue[i];

		if (!q->started)
			continue;
		take_events(q);
		if (!q->started || !is_stopping(q) || load(&q->rest) != q->order)
			continue;
		end.index = i;
		set->host->run(set->dev, tell_stopped, &end);
	}
}

static void on_attention(struct loop_defer *defer)
{
	struct queue_group *g = container_of(defer, struct queue_group, attention);

	for (unsigned i = 0; i < QUEUE_SETS_MAX; i++)
		if (g->set[i] && !g->set[i]->fenced)
			attend(g->set[i]);
}

void group_attention(struct queue_group *g)
{
	loop_defer(g->loop, &g->attention, on_attention);
}

/* ---- the fence ---- */

static void on_open(struct media_watcher *w)
{
	struct queue_set *set = container_of(w, struct queue_set, watcher);

	set->fenced = false;
	follow_all(set);
	group_attention(set->group); /* what is owed from another life */
}

static void on_stalled(struct media_watcher *w, bool stalled)
{
	struct queue_set *set = container_of(w, struct queue_set, watcher);

	set->host->stalled(set->dev, stalled);
}

/* ---- a life of a set ---- */

static void init_queue(struct queue_set *set, unsigned index, struct queue_runner *runner)
{
	struct umdev_queue *q = &set->queue[index];

	q->set = set;
	q->index = index;
	q->runner = runner;
	q->port = &set->port[runner->number];
	q->slot = &set->shared->slot[index];
	q->state = shared_state(set->shared, index);
	q->priv = set->priv + (size_t)index * set->type->priv_size;
	q->request = set->requests + (size_t)index * set->type->requests;
	list_init(&q->free);
}

/* The life before this one died of its own fault. Of a crash: the thread that crashed has said
 * which it was (crash.c); else the control thread did not come back from what it did. */
static void blame(struct queue_set *set)
{
	for (unsigned i = 0; i < QUEUE_RUNNERS_MAX; i++) {
		struct queue_port_shared *port = &set->shared->port[i];
		bool guilty = set->group->blame == QUEUE_BLAME_CONTROL
				      ? i == 0
				      : set->group->blame == QUEUE_BLAME_CULPRIT && port->crashed;

		if (port->at_work && guilty)
			set->shared->slot[port->at_work - 1].crashes++;
		ab_barrier();
		port->at_work = port->crashed = 0;
	}
}

static int find_number(struct queue_group *g)
{
	for (unsigned i = 0; i < QUEUE_SETS_MAX; i++)
		if (!g->set[i])
			return (int)i;
	return -ENOSPC;
}

static void free_set(struct queue_set *set)
{
	free(set->requests);
	free(set->priv);
	free(set);
}

static int allocate(const struct umdev_device *dev, struct queue_set **ret)
{
	const struct umdev_queue_type *type = dev->type->queues;
	struct queue_set *set = calloc(1, sizeof(*set) + type->max * sizeof(set->queue[0]));

	if (!set)
		return -ENOMEM;
	set->priv = calloc(type->max, type->priv_size ? type->priv_size : 1);
	set->requests = calloc((size_t)type->max * type->requests, sizeof(*set->requests));
	if (!set->priv || !set->requests) {
		free_set(set);
		return -ENOMEM;
	}
	*ret = set;
	return 0;
}

static bool has_mapped_doorbells(const struct umdev_device *dev)
{
	const struct umdev_value *v = umdev_param(dev, "doorbells");

	return v && !strcmp(v->text, UMDEV_DOORBELLS_MAPPED);
}

unsigned queue_threads_wanted(const struct umdev_device *dev)
{
	const struct umdev_value *v = umdev_param(dev, "queue_threads");
	unsigned least = has_mapped_doorbells(dev); /* the control thread does not poll */

	/* Where there is no io_uring requests block the thread that carries them out. */
	if (dev->engine && !media_engine_has_ring(dev->engine))
		least = THREADS_WITHOUT_RING;
	if (!dev->type->queues || !v || v->u64 < least)
		return dev->type->queues ? least : 0;
	return v->u64 < QUEUE_THREADS_MAX ? (unsigned)v->u64 : QUEUE_THREADS_MAX;
}

static struct queue_runner *runner_of(struct queue_set *set, unsigned index)
{
	if (!set->n_threads)
		return &set->group->control;
	return &set->group->thread[index % set->n_threads].runner;
}

static void take_params(struct queue_set *set)
{
	const struct umdev_value *poll = umdev_param(set->dev, "poll_us");

	set->poll_ns = 1000 * (poll ? poll->u64 : DEFAULT_POLL_US);
	set->mapped = has_mapped_doorbells(set->dev);
	set->n_threads = queue_threads_wanted(set->dev);
	if (set->n_threads > set->group->n_threads)
		set->n_threads = set->group->n_threads;
}

static void init_set(struct queue_set *set, struct umdev_device *dev, uint32_t *doorbells)
{
	set->dev = dev;
	set->type = dev->type->queues;
	set->group = dev->queue_group;
	set->shared = dev->queue_shared;
	set->doorbells = doorbells ? doorbells : shared_doorbells(set->shared);
	memset(set->vector, -1, sizeof(set->vector));
	for (unsigned i = 0; i < QUEUE_RUNNERS_MAX; i++) {
		set->port[i].set = set;
		set->port[i].shared = &set->shared->port[i];
	}
	take_params(set);
	for (unsigned i = 0; i < set->type->max; i++)
		init_queue(set, i, runner_of(set, i));
}

static void remove_readers(struct queue_set *set)
{
	for (unsigned i = 0; i < QUEUE_RUNNERS_MAX; i++)
		if (set->port[i].reader)
			dma_reader_remove(set->dma, set->port[i].reader);
}

static int add_readers(struct queue_set *set)
{
	for (unsigned i = 0; i < set->n_threads; i++) {
		struct queue_port *port = &set->port[1 + i];
		int r = dma_reader_add(set->dma, &port->own);

		if (r < 0) {
			remove_readers(set);
			return r;
		}
		port->reader = &port->own;
	}
	return 0;
}

int queues_attach(struct umdev_device *dev, struct dma_table *dma, const struct queue_host *host,
		  enum umdev_init how, uint32_t *doorbells)
{
	const struct umdev_queue_type *type = dev->type->queues;
	struct queue_set *set;
	int number, r;

	dev->queues = NULL;
	if (!type)
		return 0;
	assert(type->max <= UMDEV_QUEUES_MAX && type->requests <= UMDEV_QUEUE_REQUESTS_MAX);
	if (!dev->queue_group || !dev->engine)
		return -ENODEV;
	if (how == UMDEV_FRESH)
		shared_init(dev->queue_shared, type);
	else if (shared_check(dev->queue_shared, type) || shared_check_half(dev))
		return -EUCLEAN;
	number = find_number(dev->queue_group);
	r = number < 0 ? number : allocate(dev, &set);
	if (r < 0)
		return r;
	set->dma = dma;
	set->host = host;
	init_set(set, dev, doorbells);
	/* Doorbells that nobody polls are not heard. */
	r = set->mapped && !set->n_threads ? -EAGAIN : add_readers(set);
	if (r < 0) {
		free_set(set);
		return r;
	}
	set->number = (unsigned)number;
	set->group->set[number] = set;
	dev->queues = set;
	blame(set);
	set->watcher = (struct media_watcher){ .open = on_open, .stalled = on_stalled };
	media_engine_watch(dev->engine, &set->watcher);
	set->fenced = true;
	dma_pin(dma, NULL, &set->fence, 0, UINT64_MAX);
	if (media_engine_is_open(dev->engine))
		on_open(&set->watcher);
	return 0;
}

void queues_detach(struct umdev_device *dev)
{
	struct queue_set *set = dev->queues;

	if (!set)
		return;
	for (unsigned i = 0; i < set->type->max; i++) {
		list_remove(&set->queue[i].node);
		requests_fini(&set->queue[i]);
	}
	if (list_is_linked(&set->fence.node))
		dma_unpin(set->dma, NULL, &set->fence);
	dev->queues = NULL;
	media_engine_unwatch(&set->watcher);
	set->group->set[set->number] = NULL;
	remove_readers(set);
	free_set(set);
}
