// SPDX-License-Identifier: MIT
/*
 * A round of a runner: ends of requests, orders, new work, one batch to the medium, interrupts.
 *
 * The control thread's runner makes a round when it was woken or its ring has something, before the
 * loop sleeps; it never polls.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "base/ab.h"
#include "queue/internal.h"

/* ---- what hooks call ---- */

unsigned umdev_queue_index(const struct umdev_queue *q)
{
	return q->index;
}

const struct umdev_device *umdev_queue_device(const struct umdev_queue *q)
{
	return q->set->dev;
}

const void *umdev_queue_config(const struct umdev_queue *q)
{
	return q->config;
}

void *umdev_queue_state(struct umdev_queue *q)
{
	return q->state;
}

void *umdev_queue_priv(struct umdev_queue *q)
{
	return q->priv;
}

uint32_t umdev_queue_doorbell(const struct umdev_queue *q, unsigned word)
{
	assert(word < q->set->type->doorbells);
	return __atomic_load_n(&q->set->doorbells[word], __ATOMIC_ACQUIRE);
}

/* Owed from here on, whoever is killed. */
void umdev_queue_irq(struct umdev_queue *q, unsigned vector)
{
	uint64_t *word = &q->port->shared->irq[vector / 64], bit = (uint64_t)1 << vector % 64;

	assert(vector < QUEUE_VECTORS_MAX);
	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
	q->port->has_irq = true;
}

void umdev_queue_event(struct umdev_queue *q, uint32_t bits)
{
	__atomic_fetch_or(&q->slot->events, bits, __ATOMIC_SEQ_CST);
	q->runner->has_news = true;
}

/* ---- one queue ---- */

static void begin(struct umdev_queue *q, enum umdev_init how)
{
	int r = -EIO;

	if (q->slot->crashes < QUEUE_CRASHES)
		r = q->set->type->ops->start(q, how);
	q->phase = r < 0 ? QUEUE_BROKEN : QUEUE_ON;
	if (r < 0)
		umdev_queue_event(q, UMDEV_QUEUE_BROKEN);
}

/* An order that belongs to another start than the last one. */
static void take_start(struct umdev_queue *q, uint64_t order)
{
	q->phase = QUEUE_OFF;
	q->armed = false;
	q->serial = ORDER_SERIAL(order);
	if (ORDER_WHAT(order) != QUEUE_DROP)
		begin(q, ORDER_HOW(order));
	store(&q->begun, q->serial);
	q->runner->has_news = true;
}

/* True: there was work. */
static bool look(struct umdev_queue *q)
{
	if (!__atomic_exchange_n(&q->kicked, false, __ATOMIC_SEQ_CST) && q->armed)
		return false;
	if (q->armed && q->set->type->ops->disarm)
		q->set->type->ops->disarm(q);
	q->armed = false;
	return q->set->type->ops->poll(q);
}

/* The runner wants to sleep. True: there is work after all. */
static bool arm(struct umdev_queue *q)
{
	if (q->armed)
		return false;
	q->armed = true;
	if (!q->set->type->ops->arm || !q->set->type->ops->arm(q))
		return false;
	store(&q->kicked, true);
	return true;
}

static void rest(struct umdev_queue *q, uint64_t order)
{
	if (q->in_flight || load(&q->rest) == order)
		return;
	store(&q->rest, order);
	q->runner->has_news = true;
}

static bool run_queue(struct umdev_queue *q)
{
	uint64_t order = load(&q->order);
	bool more = false;

	if (ORDER_WHAT(order) == QUEUE_REST) {
		q->phase = QUEUE_OFF;
		list_remove(&q->node);
		return false;
	}
	runner_enter(q->runner, q->port);
	if (load(&q->set->untold))
		return false;
	q->port->shared->at_work = 1 + q->index;
	ab_barrier();
	if (q->serial != ORDER_SERIAL(order)) /* also while held: what is in flight must be known */
		take_start(q, order);
	if (ORDER_WHAT(order) == QUEUE_RUN && q->phase == QUEUE_ON && !load(&q->set->held))
		more = look(q) || arm(q);
	ab_barrier();
	q->port->shared->at_work = 0;
	if (ORDER_WHAT(order) != QUEUE_RUN)
		rest(q, order);
	return more;
}

/* ---- a round ---- */

void runner_enter(struct queue_runner *r, struct queue_port *port)
{
	if (port->view)
		return;
	port->view = dma_view_now(port->set->dma);
	list_append(&r->entered, &port->node);
}

/* The client owns the counter and may have filled it: then it has its wake-up already. */
static void signal_fd(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	uint64_t one = 1;

	if (poll(&p, 1, 0) == 1 && p.revents & POLLOUT && write(fd, &one, sizeof(one)) < 0)
		return; /* closed by its owner, or full since */
}

static void signal_all(struct queue_runner *r, struct queue_port *port)
{
	port->has_irq = false;
	for (unsigned i = 0; i < QUEUE_IRQ_WORDS; i++) {
		uint64_t word = load(&port->shared->irq[i]);

		for (uint64_t left = word; left; left &= left - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(left);
			int fd = load(&port->set->vector[i * 64 + bit]);

			if (fd < 0) {
				r->has_news = true;
				continue;
			}
			signal_fd(fd);
			__atomic_fetch_and(&port->shared->irq[i], ~((uint64_t)1 << bit),
					   __ATOMIC_SEQ_CST);
		}
	}
}

static void leave_all(struct queue_runner *r)
{
	struct queue_port *port;

	while ((port = list_first(&r->entered, struct queue_port, node))) {
		list_remove(&port->node);
		if (port->has_irq)
			signal_all(r, port);
		port->view = NULL;
	}
}

/* True: another one is due. */
static bool make_round(struct queue_runner *r)
{
	struct umdev_queue *q, *next;
	bool more = requests_reap(r);

	list_for_each_safe(q, next, &r->active, node)
		more |= run_queue(q);
	more |= requests_start(r);
	leave_all(r);
	if (r->has_news)
		group_attention(r->group);
	r->has_news = false;
	return more;
}

/* ---- the control thread ---- */

static void on_work(struct loop_defer *defer)
{
	struct queue_group *g = container_of(defer, struct queue_group, work);

	if (make_round(&g->control))
		loop_defer(g->loop, &g->work, on_work);
}

static void on_ring(struct loop_fd *source, uint32_t revents)
{
	struct queue_group *g = container_of(source, struct queue_group, ring_source);

	loop_defer(g->loop, &g->work, on_work);
}

void runner_wake(struct queue_runner *r, struct umdev_queue *q)
{
	if (!list_is_linked(&q->node))
		list_append(&r->active, &q->node);
	loop_defer(r->group->loop, &r->group->work, on_work);
}

static void runner_init(struct queue_runner *r, struct queue_group *g, unsigned number,
			struct media_ring *ring)
{
	r->group = g;
	r->number = number;
	r->ring = ring;
	list_init(&r->active);
	list_init(&r->waiting);
	list_init(&r->entered);
}

int runners_start(struct queue_group *g, struct media_engine *engine)
{
	g->ring_source = (struct loop_fd)LOOP_FD_INIT;
	runner_init(&g->control, g, 0, media_engine_ring(engine, 0));
	if (!g->control.ring)
		return 0;
	return loop_add(g->loop, &g->ring_source, ring_fd(g->control.ring), EPOLLIN, on_ring);
}

void runners_stop(struct queue_group *g)
{
	loop_remove(&g->ring_source);
	loop_defer_cancel(&g->work);
}
