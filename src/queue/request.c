// SPDX-License-Identifier: MIT
/*
 * Requests of queues to media: memory resolved and pinned, carried out in the runner's ring (or,
 * where there is none, by the queue thread itself, a few per round), told to the driver.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/range.h"
#include "queue/internal.h"

#define ENDS_PER_ROUND 128
#define SYNC_PER_ROUND 4 /* calls that block: in queue threads, where there is no io_uring */
#define DIRECT_ALIGN 512 /* of memory; every disk takes it */
#define BOUNCE_ALIGN ((size_t)4096)
/* Held by a request without memory, so that who waits for all requests waits for it too. */
#define NO_ADDRESS UINT64_MAX

/* Host memory of a request before it is known how much room that takes. */
struct gather {
	unsigned n;
	struct iovec iov[QUEUE_IOVS];
	uint64_t first, last; /* guest addresses; what is pinned */
};

static bool moves(enum umdev_media_op op)
{
	return op == UMDEV_MEDIA_READ || op == UMDEV_MEDIA_WRITE;
}

static int judge(const struct device_medium *m, enum umdev_media_op op, uint64_t offset,
		 uint64_t len, unsigned n_segs)
{
	if (op < UMDEV_MEDIA_READ || op > UMDEV_MEDIA_DISCARD || n_segs > UMDEV_QUEUE_SEGS ||
	    moves(op) != (n_segs > 0) || (moves(op) && (!len || len > INT32_MAX)) ||
	    !range_fits(offset, len, m->length))
		return -EINVAL;
	if (op != UMDEV_MEDIA_READ && op != UMDEV_MEDIA_FLUSH && !m->writable)
		return -EROFS;
	return 0;
}

static int add_host(struct gather *g, const struct dma_seg *host, int n)
{
	for (int i = 0; i < n; i++) {
		struct iovec *last = g->n ? &g->iov[g->n - 1] : NULL;

		if (last && (uint8_t *)last->iov_base + last->iov_len == host[i].hva)
			last->iov_len += host[i].len;
		else if (g->n == QUEUE_IOVS)
			return -EFAULT;
		else
			g->iov[g->n++] = (struct iovec){ host[i].hva, host[i].len };
	}
	return 0;
}

/* Resolves the segments, which must be len bytes together. */
static int gather(struct gather *g, struct umdev_queue *q, enum umdev_media_op op, uint64_t len,
		  const struct umdev_seg *segs, unsigned n_segs)
{
	unsigned prot = op == UMDEV_MEDIA_READ ? DMA_WRITE : DMA_READ;
	struct dma_seg host[8];

	g->n = 0;
	g->first = UINT64_MAX;
	g->last = 0;
	if (n_segs && !q->set->may_dma)
		return -EFAULT;
	for (unsigned i = 0; i < n_segs; i++) {
		uint64_t at = segs[i].addr.v, n = segs[i].len;
		int r;

		if (!n || n > len)
			return -EINVAL;
		len -= n;
		r = dma_view_resolve(q->port->view, segs[i].addr, n, prot, host, 8);
		if (r < 0 || add_host(g, host, r))
			return -EFAULT;
		g->first = at < g->first ? at : g->first;
		g->last = at + (n - 1) > g->last ? at + (n - 1) : g->last;
	}
	return n_segs && len ? -EINVAL : 0;
}

/* ---- the queue's requests ---- */

static struct queue_request *take_request(struct umdev_queue *q)
{
	struct queue_request *rq = list_first(&q->free, struct queue_request, node);

	if (rq)
		list_remove(&rq->node);
	else if (q->n_used < q->set->type->requests)
		rq = &q->request[q->n_used++];
	return rq;
}

static void put_request(struct queue_request *rq)
{
	list_append(&rq->q->free, &rq->node);
}

static int put_iov(struct queue_request *rq, const struct gather *g)
{
	rq->call.iov = rq->few;
	rq->call.n_iov = rq->n_guest = g->n;
	if (g->n > QUEUE_SMALL_IOVS) {
		if (!rq->many)
			rq->many = malloc(QUEUE_IOVS * sizeof(*rq->many));
		if (!rq->many)
			return -ENOMEM;
		rq->call.iov = rq->many;
	}
	memcpy(rq->call.iov, g->iov, g->n * sizeof(g->iov[0]));
	return 0;
}

/* ---- memory that the disk cannot take as it is ---- */

static bool is_aligned(const struct gather *g)
{
	for (unsigned i = 0; i < g->n; i++)
		if (((uintptr_t)g->iov[i].iov_base | g->iov[i].iov_len) % DIRECT_ALIGN)
			return false;
	return true;
}

static struct iovec *guest_iov(struct queue_request *rq)
{
	return rq->n_guest > QUEUE_SMALL_IOVS ? rq->many : rq->few;
}

/* Between the guest's memory and ours. 0 or -EFAULT. */
static int copy_bounce(struct queue_request *rq, bool to_guest)
{
	const struct iovec *iov = guest_iov(rq);
	uint8_t *at = rq->bounce;
	int r = 0;

	for (unsigned i = 0; i < rq->n_guest && !r; at += iov[i++].iov_len)
		r = to_guest ? dma_guard_copy(iov[i].iov_base, at, iov[i].iov_len)
			     : dma_guard_copy(at, iov[i].iov_base, iov[i].iov_len);
	return r;
}

static void drop_bounce(struct queue_request *rq)
{
	free(rq->bounce);
	rq->bounce = NULL;
}

static int use_bounce(struct queue_request *rq)
{
	size_t len = rq->call.left;
	int r = 0;

	rq->bounce = aligned_alloc(BOUNCE_ALIGN, (len + BOUNCE_ALIGN - 1) & ~(BOUNCE_ALIGN - 1));
	if (!rq->bounce)
		return -ENOMEM;
	if (rq->call.op == UMDEV_MEDIA_WRITE)
		r = copy_bounce(rq, false);
	if (r) {
		drop_bounce(rq);
		return r;
	}
	rq->straight = (struct iovec){ rq->bounce, len };
	rq->call.iov = &rq->straight;
	rq->call.n_iov = 1;
	return 0;
}

static void pin(struct queue_request *rq, const struct gather *g)
{
	struct queue_set *set = rq->q->set;

	if (g->n)
		dma_pin(set->dma, rq->q->port->reader, &rq->pin, g->first,
			g->last - g->first == UINT64_MAX ? UINT64_MAX : g->last - g->first + 1);
	else
		dma_pin(set->dma, rq->q->port->reader, &rq->pin, NO_ADDRESS, 1);
}

/* What is in flight over a death goes on also when its medium leaves. */
static bool is_there(const struct umdev_queue *q, const struct device_medium *m)
{
	return (!load(&m->leaves) || q->phase == QUEUE_OFF) && *(const volatile char *)m->name;
}

static const struct device_medium *find_medium(struct umdev_queue *q, unsigned medium)
{
	const struct device_medium *m = &q->set->dev->media_list[medium % UMDEV_MAX_MEDIA];

	return medium < UMDEV_MAX_MEDIA && is_there(q, m) ? m : NULL;
}

static uint32_t *in_flight(struct umdev_queue *q, const struct device_medium *m)
{
	return &q->set->in_flight[m - q->set->dev->media_list];
}

/* Counted before it is asked whether the medium leaves: who takes it away looks the other way
 * round. False: it goes. */
static bool hold_medium(struct umdev_queue *q, const struct device_medium *m)
{
	__atomic_add_fetch(in_flight(q, m), 1, __ATOMIC_SEQ_CST);
	if (is_there(q, m))
		return true;
	__atomic_sub_fetch(in_flight(q, m), 1, __ATOMIC_SEQ_CST);
	return false;
}

static void put_medium(struct umdev_queue *q, const struct device_medium *m)
{
	__atomic_sub_fetch(in_flight(q, m), 1, __ATOMIC_SEQ_CST);
	if (load(&m->leaves)) {
		store(&q->set->leaving, true);
		q->runner->has_news = true;
	}
}

/* The control thread learns of it in the engine's turn, and looks at it in its own. */
static void on_end(struct ring_user *user, int result)
{
	struct queue_request *rq = container_of(user, struct queue_request, user);
	struct queue_runner *r = rq->q->runner;

	r->in_ring--;
	rq->result = result;
	list_append(&r->ended, &rq->node);
	if (!r->thread)
		runner_kick(r);
}

/* A request whose medium is held. 0, or -errno: nothing happened. */
static int submit(struct umdev_queue *q, const struct media_call *call, uint32_t tag,
		  const struct gather *g)
{
	struct queue_request *rq = take_request(q);
	int r;

	if (!rq)
		return -EBUSY;
	rq->user.ended = on_end;
	rq->q = q;
	rq->tag = tag;
	rq->serial = q->serial;
	rq->call = *call;
	r = put_iov(rq, g);
	if (!r && call->medium->direct && !is_aligned(g))
		r = use_bounce(rq);
	if (r) {
		put_request(rq);
		return r;
	}
	media_call_init(&rq->call);
	pin(rq, g);
	q->in_flight++;
	list_append(&q->runner->waiting, &rq->node);
	return 0;
}

int umdev_queue_submit(struct umdev_queue *q, unsigned medium, enum umdev_media_op op,
		       uint64_t offset, uint64_t len, const struct umdev_seg *segs, unsigned n_segs,
		       unsigned flags, uint32_t tag)
{
	const struct device_medium *m = find_medium(q, medium);
	struct media_call call;
	struct gather g;
	int r;

	if (!m)
		return -ENODEV;
	r = judge(m, op, offset, len, n_segs);
	if (!r)
		r = gather(&g, q, op, len, segs, n_segs);
	if (r || m->null)
		return r ? r : 1;
	if (!hold_medium(q, m))
		return -ENODEV;
	call = (struct media_call){
		.medium = m, .op = op, .flags = flags, .at = m->offset + offset, .left = len
	};
	r = submit(q, &call, tag, &g);
	if (r)
		put_medium(q, m);
	return r;
}

void requests_fini(struct umdev_queue *q)
{
	for (uint32_t i = 0; i < q->n_used; i++) {
		struct queue_request *rq = &q->request[i];

		list_remove(&rq->node);
		if (list_is_linked(&rq->pin.node))
			dma_unpin(q->set->dma, q->port->reader, &rq->pin);
		free(rq->many);
		free(rq->bounce);
	}
}

/* ---- carrying them out ---- */

static void end_request(struct queue_request *rq, int status)
{
	struct umdev_queue *q = rq->q;
	enum queue_order what = ORDER_WHAT(load(&q->order));
	bool told = q->phase == QUEUE_ON && rq->serial == q->serial && !load(&q->set->untold) &&
		    (what == QUEUE_RUN || what == QUEUE_DRAIN);

	runner_enter(q->runner, q->port);
	if (rq->bounce) {
		if (rq->call.op == UMDEV_MEDIA_READ && !status)
			status = copy_bounce(rq, true);
		drop_bounce(rq);
	}
	if (told) {
		hook_begin(q);
		q->set->type->ops->done(q, rq->tag, status);
		hook_end(q);
	}
	dma_unpin(q->set->dma, q->port->reader, &rq->pin);
	put_medium(q, rq->call.medium);
	q->in_flight--;
	store(&q->kicked, true); /* it may have waited for this */
	put_request(rq);
}

static void take_result(struct queue_request *rq, int result)
{
	int r = media_call_take(&rq->call, result);

	if (r > 0)
		list_append(&rq->q->runner->waiting, &rq->node);
	else
		end_request(rq, r);
}

bool requests_reap(struct queue_runner *r)
{
	struct queue_request *rq;
	unsigned n;

	for (n = 0; r->thread && r->ring && n < ENDS_PER_ROUND && ring_tell(r->ring); n++)
		;
	for (n = 0; (rq = list_first(&r->ended, struct queue_request, node)); n++) {
		list_remove(&rq->node);
		take_result(rq, rq->result);
	}
	return n > 0;
}

static bool carry_out_some(struct queue_runner *r)
{
	for (unsigned i = 0; i < SYNC_PER_ROUND && !list_is_empty(&r->waiting); i++) {
		struct queue_request *rq = list_first(&r->waiting, struct queue_request, node);

		list_remove(&rq->node);
		runner_leave(r); /* who waits for readers does not wait for the disk */
		take_result(rq, media_call_now(&rq->call));
	}
	return !list_is_empty(&r->waiting);
}

bool requests_start(struct queue_runner *r)
{
	struct queue_request *rq;

	if (list_is_empty(&r->waiting))
		return false;
	if (!r->ring)
		return carry_out_some(r);
	while (r->in_ring < REQUESTS_IN_RING &&
	       (rq = list_first(&r->waiting, struct queue_request, node))) {
		if (!ring_prepare(r->ring, &rq->call, &rq->user)) {
			ring_submit(r->ring);
			if (!ring_prepare(r->ring, &rq->call, &rq->user))
				break;
		}
		list_remove(&rq->node);
		r->in_ring++;
	}
	ring_submit(r->ring);
	return false; /* the rest goes when some of those ended */
}
