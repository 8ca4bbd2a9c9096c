// SPDX-License-Identifier: MIT
/*
 * The life of one device's connection: transactions, their effects, recovery.
 *
 * Everything that must survive is in struct vfio_shared; struct vfio_server is one life's view of
 * it. The loop handlers below only receive, work through what is in the buffer, and send: one
 * recvmmsg and one sendmmsg however many requests came together.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "base/log.h"
#include "vfio/internal.h"

#define RETRY_CLOSE_MS 1000 /* between two tries to end requests that did not end in time */

enum vfio_state vfio_server_state(const struct vfio_server *s)
{
	return s->half->state;
}

bool vfio_is_connected(const struct vfio_server *s)
{
	return s->half->state == VFIO_HELLO || s->half->state == VFIO_RUNNING;
}

void vfio_complain(struct vfio_server *s, enum vfio_complaint what, const char *format, ...)
{
	char uuid[UUID_TEXT], text[256];
	va_list args;

	if (s->complained & 1u << what)
		return;
	s->complained |= 1u << what;
	uuid_format(&s->dev->uuid, uuid);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_warning("%s: %s", uuid, text);
}

/* ---- transactions ---- */

void vfio_begin(struct vfio_server *s)
{
	const struct vfio_half *from = s->half;

	assert(!s->in_transaction);
	s->in_transaction = true;
	vfio_work_on(s, ab_spare(&s->shared->ab));
	memcpy(s->half, from, s->half_size);
	s->effects->dma.op = DMA_OP_NONE;
	s->effects->irq.op = VFIO_IRQ_OP_NONE;
	s->effects->n_close = s->effects->n_redo = s->effects->redo_len = 0;
}

void vfio_abort(struct vfio_server *s)
{
	assert(s->in_transaction);
	s->in_transaction = false;
	vfio_work_on(s, s->shared->ab.cur);
}

static void close_dropped(struct vfio_effects *e)
{
	while (e->n_close) {
		int fd = e->close_fd[e->n_close - 1];

		/* Forgotten first: a successor must not close a number that is used again. */
		__atomic_store_n(&e->n_close, e->n_close - 1, __ATOMIC_RELAXED);
		ab_barrier();
		close(fd);
	}
}

/* The effects of the current half, each idempotent. Bytes and interrupts follow in push(). */
static void finish(struct vfio_server *s)
{
	struct vfio_effects *e = s->effects;

	if (e->dma.op != DMA_OP_NONE) {
		if (dma_apply(s->dma, &e->dma) < 0)
			vfio_complain(s, VFIO_COMPLAIN_DMA, "a map cannot be reached");
		ab_barrier();
		e->dma.op = DMA_OP_NONE;
	}
	redo_apply(s, e);
	irq_apply(s, &e->irq);
	close_dropped(e);
}

static int run_work_hook(struct umdev_device *dev, void *arg)
{
	dev->half->work = 0;
	dev->type->ops->work(dev);
	return 0;
}

static void on_work(struct loop_defer *defer)
{
	struct vfio_server *s = container_of(defer, struct vfio_server, work);

	if (vfio_device_half(s, s->half)->work)
		vfio_server_event(s, run_work_hook, NULL);
}

/* What the commit asked for begins. */
static void kick(struct vfio_server *s)
{
	device_streams_kick(s->dev);
	media_kick(s->dev);
	if (s->dev->half->work)
		loop_defer(s->loop, &s->work, on_work);
	if (!s->dev->queues)
		return;
	queues_allow_dma(s->dev, pci_is_bus_master(s));
	irq_publish(s);
	queues_kick(s->dev);
}

void vfio_commit(struct vfio_server *s)
{
	assert(s->in_transaction);
	ab_flip(&s->shared->ab);
	s->in_transaction = false;
	finish(s);
	if (s->config_written || s->bars == VFIO_BARS_HIDDEN)
		peer_show(s);
	kick(s);
}

void vfio_reset(struct vfio_server *s, enum umdev_reset why)
{
	memcpy(s->half->config, s->pci.init, VFIO_CONFIG);
	s->config_written = true;
	irq_reset(s);
	vfio_msix_reset(s);
	message_reset(s);
	media_reset(s->dev);
	queues_reset(s->dev);
	s->dev->half->work = 0;
	s->dev->type->ops->reset(s->dev, why);
}

void vfio_reset_and_wait(struct vfio_server *s, enum umdev_reset why)
{
	vfio_reset(s, why);
	s->half->wait = (struct vfio_wait){ .size = UINT64_MAX };
}

void vfio_set_faulty(struct vfio_server *s, enum vfio_fault fault, const char *text)
{
	if (s->half->faulty >= fault)
		return;
	s->half->faulty = fault;
	vfio_complain(s, VFIO_COMPLAIN_POISON, "%s", text);
	s->ops->faulty(s->dev, text);
}

/* ---- the end of a connection ---- */

static void stop_sources(struct vfio_server *s)
{
	loop_remove(&s->source);
	loop_remove(&s->unmask);
	loop_timer_cancel(&s->timer);
	device_streams_stop(s->dev);
	if (s->quiescing)
		dma_quiesce_cancel(&s->quiesce);
	s->quiescing = false;
	if (s->bars == VFIO_BARS_HIDING)
		s->bars = VFIO_BARS_HIDDEN;
}

static void report_closed(struct vfio_server *s)
{
	enum vfio_close_reason reason = s->half->reported - 1;

	s->ops->closed(s->dev, reason, s->shared->close_text);
	ab_barrier();
	s->half->reported = 0;
}

static void try_to_close(struct vfio_server *s);

/* Queue threads leave the eventfds alone after a quiesce; the next commit shows them again. */
static void hide_vectors(struct vfio_server *s)
{
	if (!queues_have_threads(s->dev))
		return;
	queues_hide_vectors(s->dev);
	s->irqs_changed = true;
}

static void try_again(struct loop_timer *timer)
{
	try_to_close(container_of(timer, struct vfio_server, timer));
}

/* Something may still use the client's memory. No time-out passes that fence. */
static void cannot_close(struct vfio_server *s, const char *why)
{
	vfio_begin(s);
	vfio_set_faulty(s, VFIO_FAULTY, why);
	vfio_commit(s);
	loop_timer_arm(s->loop, &s->timer, RETRY_CLOSE_MS * 1000000ull, try_again);
}

static void closed(struct dma_quiesce *q, int status)
{
	struct vfio_server *s = container_of(q, struct vfio_server, quiesce);
	struct conn_cursor cursor = s->half->cursor;

	s->quiescing = false;
	if (status < 0) {
		cannot_close(s, "requests in flight did not end");
		return;
	}
	vfio_begin(s);
	if (dma_prepare_unmap_all(s->dma, &s->effects->dma) < 0) {
		vfio_abort(s);
		cannot_close(s, "no memory to unmap the client's");
		return;
	}
	irq_release_all(&s->effects->irq);
	vfio_reset(s, UMDEV_RESET_CLOSE);
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++)
		s->half->message[i].state = VFIO_MESSAGE_FREE;
	s->half->wait = (struct vfio_wait){ 0 };
	s->half->progress = 0;
	s->half->state = VFIO_CLOSED;
	vfio_commit(s);
	queues_release(s->dev);
	conn_close(&s->conn, &cursor);
	report_closed(s);
}

static void peers_are_gone(struct vfio_server *s, int status)
{
	if (status < 0) {
		cannot_close(s, "requests of its peers in flight did not end");
		return;
	}
	s->quiescing = true;
	dma_quiesce(s->dma, s->loop, &s->quiesce, 0, UINT64_MAX, closed);
}

/* Peers first: what they have in flight may use our memory, what we have cannot use theirs for
 * longer than ourselves. */
static void try_to_close(struct vfio_server *s)
{
	queues_hold(s->dev, true);
	hide_vectors(s);
	peer_hide(s, peers_are_gone);
}

void vfio_server_disconnect(struct vfio_server *s, enum vfio_close_reason reason, const char *text)
{
	if (!vfio_is_connected(s))
		return;
	stop_sources(s);
	snprintf(s->shared->close_text, sizeof(s->shared->close_text), "%s", text);
	vfio_begin(s);
	s->half->state = VFIO_CLOSING;
	s->half->reported = 1 + reason;
	vfio_commit(s);
	/* What did not end in time may take for ever: the client need not wait for it, too. */
	if (reason == VFIO_CLOSE_FAULT)
		shutdown(s->shared->conn.fd, SHUT_RDWR);
	try_to_close(s);
}

static void hello_expired(struct loop_timer *timer)
{
	struct vfio_server *s = container_of(timer, struct vfio_server, timer);

	vfio_server_disconnect(s, VFIO_CLOSE_PROTOCOL, "it did not say VERSION in time");
}

/* ---- work ---- */

static void serve(struct vfio_server *s);

static void wait_over(struct dma_quiesce *q, int status)
{
	struct vfio_server *s = container_of(q, struct vfio_server, quiesce);

	s->quiescing = false;
	if (status < 0) {
		vfio_server_disconnect(s, VFIO_CLOSE_FAULT, "requests in flight did not end");
		return;
	}
	vfio_answer_wait(s);
	serve(s);
}

static void start_wait(struct vfio_server *s)
{
	s->quiescing = true;
	dma_quiesce(s->dma, s->loop, &s->quiesce, s->half->wait.iova, s->half->wait.size,
		    wait_over);
}

void vfio_go_on(struct vfio_server *s, int status)
{
	if (status < 0)
		vfio_server_disconnect(s, VFIO_CLOSE_FAULT, "requests in flight did not end");
	else
		serve(s);
}

static void drained(struct dma_quiesce *q, int status)
{
	struct vfio_server *s = container_of(q, struct vfio_server, quiesce);

	s->quiescing = false;
	vfio_go_on(s, status);
}

void vfio_drain(struct vfio_server *s, uint64_t iova, uint64_t size)
{
	if (s->quiescing)
		return;
	queues_hold(s->dev, false);
	s->quiescing = true;
	dma_quiesce(s->dma, s->loop, &s->quiesce, iova, size, drained);
}

static void paused(struct dma_quiesce *q, int status)
{
	struct vfio_server *s = container_of(q, struct vfio_server, quiesce);

	s->quiescing = false;
	if (status < 0) {
		vfio_server_disconnect(s, VFIO_CLOSE_FAULT, "a queue did not pause");
		return;
	}
	s->paused = true;
	serve(s);
}

void vfio_pause(struct vfio_server *s)
{
	queues_hold(s->dev, false);
	hide_vectors(s);
	s->quiescing = true;
	dma_quiesce(s->dma, s->loop, &s->quiesce, 0, 0, paused); /* no pins, only readers */
}

/* Sends what is committed, signals, and asks the loop for what is needed next. */
static void push(struct vfio_server *s)
{
	int r = conn_flush(&s->conn, &s->half->cursor);
	uint32_t events = 0;

	irq_signal(s);
	if (r < 0) {
		vfio_server_disconnect(s, VFIO_CLOSE_HANGUP, "the client is gone");
		return;
	}
	if (r == 0)
		events |= EPOLLOUT;
	if (!s->held)
		events |= EPOLLIN;
	loop_set_events(&s->source, events);
}

/* One message. 1: go on; 0: no more now. */
static int step(struct vfio_server *s)
{
	const char *why = "it broke the framing";
	struct conn_msg msg;
	int r = conn_peek(&s->conn, &s->half->cursor, &msg);

	if (r > 0)
		r = vfio_execute(s, &msg, &why);
	if (r == -EMFILE)
		vfio_server_disconnect(s, VFIO_CLOSE_FAULT, "no room for its descriptors");
	else if (r < 0)
		vfio_server_disconnect(s, VFIO_CLOSE_PROTOCOL, why);
	return r > 0;
}

static void serve(struct vfio_server *s)
{
	if (s->serving)
		return; /* the caller below us goes on */
	s->serving = true;
	do {
		s->held = false;
		while (vfio_is_connected(s) && step(s) > 0) {
			if (s->half->wait.waiting && !s->quiescing)
				start_wait(s);
		}
		/* A command that only lacked room for its answer may have it now. */
	} while (vfio_is_connected(s) && s->held && !s->half->wait.waiting && !s->quiescing &&
		 conn_flush(&s->conn, &s->half->cursor) == 1);
	s->serving = false;
	if (vfio_is_connected(s) && !s->quiescing)
		queues_release(s->dev);
	if (s->half->state == VFIO_RUNNING)
		loop_timer_cancel(&s->timer);
	if (vfio_is_connected(s) && !s->held && !s->half->wait.waiting)
		message_send_queued(s);
	if (vfio_is_connected(s))
		push(s);
}

static void socket_ready(struct loop_fd *source, uint32_t revents)
{
	struct vfio_server *s = container_of(source, struct vfio_server, source);
	const uint32_t hangup = EPOLLHUP | EPOLLERR;
	int r = 1;

	if (s->held) {
		r = revents & hangup ? -ECONNRESET : 1;
	} else if (revents & (EPOLLIN | hangup)) {
		r = conn_receive(&s->conn, &s->half->cursor);
	}
	if (r == -ECONNRESET)
		vfio_server_disconnect(s, VFIO_CLOSE_HANGUP, "the client is gone");
	else if (r < 0)
		vfio_server_disconnect(s, VFIO_CLOSE_FAULT, strerror(-r));
	else
		serve(s);
}

int vfio_server_event(struct vfio_server *s, int (*fn)(struct umdev_device *dev, void *arg),
		      void *arg)
{
	int r;

	vfio_begin(s);
	r = fn(s->dev, arg);
	if (r) {
		vfio_abort(s);
		return r;
	}
	vfio_commit(s);
	if (vfio_is_connected(s))
		serve(s);
	return 0;
}

static int run_stream_hook(struct umdev_device *dev, void *arg)
{
	struct stream *stream = arg;

	dev->type->ops->stream(dev, stream - dev->streams);
	return 0;
}

static void stream_event(struct stream *stream)
{
	if (stream->dev->type->ops->stream)
		vfio_server_event(stream->dev->vfio, run_stream_hook, stream);
}

/* ---- media ---- */

static void run_for_media(struct umdev_device *dev, int (*fn)(struct umdev_device *, void *),
			  void *arg)
{
	vfio_server_event(dev->vfio, fn, arg);
}

static bool has_room(const struct umdev_device *dev)
{
	const struct vfio_effects *e = dev->vfio->effects;

	return e->n_redo <= VFIO_REDO_ENTRIES / 2 && e->redo_len <= VFIO_REDO_BYTES / 2;
}

static void media_stalled(struct umdev_device *dev, bool stalled)
{
	struct vfio_server *s = dev->vfio;

	if (!stalled && s->half->faulty != VFIO_STALLED)
		return;
	vfio_begin(s);
	if (stalled)
		vfio_set_faulty(s, VFIO_STALLED, VFIO_STALLED_TEXT);
	else
		s->half->faulty = VFIO_WELL;
	vfio_commit(s);
	if (!stalled)
		s->ops->faulty(dev, "");
}

static int run_for_queues(struct umdev_device *dev, int (*fn)(struct umdev_device *, void *),
			  void *arg)
{
	return vfio_server_event(dev->vfio, fn, arg);
}

static void raise_for_queues(struct umdev_device *dev, unsigned vector)
{
	irq_raise(dev->vfio, vector);
}

static const struct queue_host queue_host = { .run = run_for_queues,
					      .irq = raise_for_queues,
					      .stalled = media_stalled };
static const struct media_host media_host = {
	.run = run_for_media,
	.has_room = has_room,
	.stalled = media_stalled,
};

/* ---- connect ---- */

static void watch_hello(struct vfio_server *s)
{
	if (s->half->state == VFIO_HELLO)
		loop_timer_arm(s->loop, &s->timer, VFIO_HANDSHAKE_MS * 1000000ull, hello_expired);
}

static int start_sources(struct vfio_server *s, int fd)
{
	int r = loop_add(s->loop, &s->source, fd, EPOLLIN, socket_ready);

	if (r < 0)
		return r;
	r = device_streams_start(s->dev, s->loop, stream_event);
	if (r >= 0)
		r = irq_watch_unmask(s);
	if (r < 0)
		stop_sources(s);
	return r;
}

static void open_connection(struct vfio_server *s, int fd)
{
	struct vfio_half *h;

	vfio_begin(s);
	h = s->half;
	h->cursor = (struct conn_cursor)CONN_CURSOR_INIT;
	h->state = VFIO_HELLO;
	h->faulty = VFIO_WELL;
	conn_attach_fresh(&s->conn, &s->shared->conn, &h->cursor, fd, vuser_len);
	device_streams_reset(s->dev);
	vfio_reset(s, UMDEV_RESET_OPEN);
	vfio_commit(s);
}

int vfio_server_connect(struct vfio_server *s, int fd)
{
	_cleanup_close_ int owned = fd;
	bool was_faulty = s->half->faulty;
	int r;

	if (s->half->state != VFIO_CLOSED)
		return -EBUSY;
	r = vfio_bars_clear(s);
	if (r < 0)
		return r;
	r = start_sources(s, fd);
	if (r < 0)
		return r;
	s->complained = 0;
	s->held = s->paused = false;
	open_connection(s, take_fd(&owned));
	if (was_faulty)
		s->ops->faulty(s->dev, "");
	watch_hello(s);
	return 0;
}

/* ---- begin and end of a life ---- */

static int init_device(struct vfio_server *s, enum umdev_init how)
{
	int r;

	/* A resumed device is looked at as it is: what its half still owes comes later. */
	if (how == UMDEV_RESUME) {
		r = s->dev->type->ops->init(s->dev, how);
	} else {
		vfio_begin(s);
		r = s->dev->type->ops->init(s->dev, how);
		if (r < 0)
			vfio_abort(s);
		else
			vfio_commit(s);
	}
	s->initialised = r >= 0;
	return r;
}

static int life_init(struct vfio_server *s, enum umdev_init how, size_t size,
		     const struct stream_last_life *last)
{
	int r = vfio_bars_size(s);

	if (r < 0)
		return r;
	pci_layout_init(&s->pci, s->dev->type->pci, s->bar);
	if (how == UMDEV_FRESH)
		vfio_state_init(s, size);
	else
		r = vfio_state_check(s, size);
	if (r >= 0)
		r = vfio_bars_init(s, how);
	if (r >= 0)
		r = dma_table_new(&s->shared->dma, how == UMDEV_RESUME, &s->dma);
	if (r >= 0 && how == UMDEV_RESUME) {
		r = dma_apply(s->dma, &s->effects->dma);
		if (r != -EUCLEAN)
			r = 0; /* a file that cannot be mapped any more: those addresses fault */
		s->effects->dma.op = DMA_OP_NONE;
	}
	if (r >= 0)
		dma_keep_idle(s->dma, s->loop);
	if (r >= 0)
		r = media_attach(s->dev, s->dma, &media_host);
	if (r >= 0)
		r = queues_attach(s->dev, s->dma, &queue_host, how, vfio_doorbells(s));
	if (r < 0)
		return r;
	queues_allow_dma(s->dev, pci_is_bus_master(s));
	irq_publish(s);
	r = device_streams_attach(s->dev, how, last);
	return r < 0 ? r : init_device(s, how);
}

int vfio_server_new(struct umdev_device *dev, struct loop *loop, void *shared, size_t size,
		    enum umdev_init how, const struct stream_last_life *last,
		    const struct vfio_server_ops *ops, struct vfio_server **ret)
{
	struct vfio_server *s = calloc(1, sizeof(*s));
	int r;

	assert(size >= vfio_shared_size(dev->type));
	if (!s)
		return -ENOMEM;
	s->dev = dev;
	s->loop = loop;
	s->ops = ops;
	s->shared = shared;
	s->half_size = vfio_half_size(dev->type);
	s->source = s->unmask = (struct loop_fd)LOOP_FD_INIT;
	dev->segs = (struct umdev_seg *)((uint8_t *)(s->shared + 1) + 2 * s->half_size);
	dev->vfio = s;
	r = life_init(s, how, size, last);
	if (r < 0) {
		if (how == UMDEV_FRESH)
			vfio_bars_close(s);
		vfio_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void vfio_server_free(struct vfio_server *s)
{
	if (!s)
		return;
	stop_sources(s);
	if (s->initialised && s->dev->type->ops->fini)
		s->dev->type->ops->fini(s->dev);
	loop_defer_cancel(&s->work);
	queues_detach(s->dev);
	media_detach(s->dev);
	dma_table_free(s->dma);
	for (unsigned i = 0; i < 6; i++) {
		if (s->bar_mem[i])
			munmap(s->bar_mem[i], vfio_bar_bytes(s, i));
	}
	s->dev->vfio = NULL;
	free(s);
}

int vfio_server_resume(struct vfio_server *s, bool crashed)
{
	int r;

	finish(s);
	if (s->dev->half->work)
		loop_defer(s->loop, &s->work, on_work);
	if (s->half->faulty)
		s->ops->faulty(s->dev, s->half->faulty == VFIO_STALLED ? VFIO_STALLED_TEXT
								       : VFIO_POISON_TEXT);
	if (s->half->state == VFIO_CLOSED && s->half->reported)
		report_closed(s);
	if (s->half->state == VFIO_CLOSING)
		try_to_close(s);
	if (!vfio_is_connected(s))
		return 0;
	if (!crashed)
		conn_untry(&s->conn);
	r = start_sources(s, s->shared->conn.fd);
	if (r < 0) {
		vfio_server_disconnect(s, VFIO_CLOSE_FAULT, strerror(-r));
		return r;
	}
	watch_hello(s);
	if (s->half->wait.waiting)
		start_wait(s);
	if (s->unmask.fd >= 0)
		vfio_server_event(s, irq_unmask, NULL);
	serve(s);
	return 0;
}
