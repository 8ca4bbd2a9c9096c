// SPDX-License-Identifier: MIT
/*
 * A round of a runner: ends of requests, orders, new work, one batch to the medium, interrupts.
 * Nothing in it waits for anybody.
 *
 * The control thread's runner makes a round when it was woken or its ring has something, before the
 * loop sleeps; it never polls.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
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

void hook_begin(struct umdev_queue *q)
{
	q->port->shared->at_work = 1 + q->index;
	ab_barrier();
	crash_in(q->port->shared);
}

void hook_end(struct umdev_queue *q)
{
	crash_in(NULL);
	ab_barrier();
	q->port->shared->at_work = 0;
}

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
	if (q->armed || q->set->mapped) /* mapped: nobody would tell us */
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

static bool run_queue(struct umdev_queue *q, bool may_arm)
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
	hook_begin(q);
	if (q->serial != ORDER_SERIAL(order)) /* also while held: what is in flight must be known */
		take_start(q, order);
	if (ORDER_WHAT(order) == QUEUE_RUN && q->phase == QUEUE_ON && !load(&q->set->held))
		more = look(q) || (may_arm && arm(q));
	hook_end(q);
	if (ORDER_WHAT(order) != QUEUE_RUN)
		rest(q, order);
	return more;
}

/* ---- a round ---- */

void runner_enter(struct queue_runner *r, struct queue_port *port)
{
	if (port->view)
		return;
	port->view = port->reader ? dma_view_enter(port->set->dma, port->reader)
				  : dma_view_now(port->set->dma);
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

void runner_leave(struct queue_runner *r)
{
	struct queue_port *port;

	while ((port = list_first(&r->entered, struct queue_port, node))) {
		list_remove(&port->node);
		if (port->has_irq)
			signal_all(r, port);
		port->view = NULL;
		if (port->reader)
			dma_view_leave(port->set->dma, port->reader);
	}
}

static void take_mail(struct queue_runner *r)
{
	struct umdev_queue *q;

	pthread_mutex_lock(&r->lock);
	store(&r->mail, false);
	while ((q = list_first(&r->inbox, struct umdev_queue, mail))) {
		list_remove(&q->mail);
		if (!list_is_linked(&q->node))
			list_append(&r->active, &q->node);
	}
	pthread_mutex_unlock(&r->lock);
}

static void tell_control(struct queue_runner *r)
{
	r->has_news = false;
	if (r->thread)
		eventfd_write(r->group->news_fd, 1);
	else
		group_attention(r->group);
}

bool round_make(struct queue_runner *r, bool arm)
{
	struct umdev_queue *q, *next;
	bool more;

	if (load(&r->mail))
		take_mail(r);
	more = requests_reap(r);
	list_for_each_safe(q, next, &r->active, node)
		more |= run_queue(q, arm);
	more |= requests_start(r);
	runner_leave(r);
	if (r->has_news)
		tell_control(r);
	return more;
}

void runner_init(struct queue_runner *r, struct queue_group *g, unsigned number)
{
	r->group = g;
	r->number = number;
	pthread_mutex_init(&r->lock, NULL);
	list_init(&r->inbox);
	list_init(&r->active);
	list_init(&r->waiting);
	list_init(&r->ended);
	list_init(&r->entered);
}

void runner_fini(struct queue_runner *r)
{
	pthread_mutex_destroy(&r->lock);
}

/* ---- the control thread ---- */

static void on_work(struct loop_defer *defer)
{
	struct queue_group *g = container_of(defer, struct queue_group, work);

	if (round_make(&g->control, true))
		loop_defer(g->loop, &g->work, on_work);
}

static void on_news(struct loop_fd *source, uint32_t revents)
{
	struct queue_group *g = container_of(source, struct queue_group, news_source);
	eventfd_t n;

	eventfd_read(source->fd, &n);
	group_attention(g);
}

void runner_kick(struct queue_runner *r)
{
	if (r->thread)
		thread_kick(r->thread);
	else
		loop_defer(r->group->loop, &r->group->work, on_work);
}

void runner_order(struct queue_runner *r, struct umdev_queue *q)
{
	pthread_mutex_lock(&r->lock);
	if (!list_is_linked(&q->mail))
		list_append(&r->inbox, &q->mail);
	store(&r->mail, true);
	pthread_mutex_unlock(&r->lock);
	runner_kick(r);
}

int runner_start_control(struct queue_group *g)
{
	if (!g->n_threads)
		return 0;
	return loop_add(g->loop, &g->news_source, g->news_fd, EPOLLIN, on_news);
}

void control_stop(struct queue_group *g)
{
	loop_remove(&g->news_source);
	loop_defer_cancel(&g->work);
}
