// SPDX-License-Identifier: MIT
/*
 * One inbound message: judged against the command table, executed in a transaction, answered.
 *
 * Room for the largest answer is reserved before anything runs, so a client that does not read
 * stops its own commands and nothing else.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "base/err.h"
#include "vfio/internal.h"

/* Payload of the largest fixed answer: VERSION with its JSON. */
#define SMALL_REPLY 512

struct command {
	const char *name;
	uint32_t min, max; /* payload; 0xffffffff: what CONN_MSG_MAX allows */
	uint16_t max_fds;
	uint16_t states; /* 1 << enum vfio_state */
	uint32_t reply;  /* room for the payload of the reply, without data that was asked for */
	vfio_handler *handler;
};

#define ANY UINT32_MAX
#define IN_HELLO (1 << VFIO_HELLO)
#define IN_RUNNING (1 << VFIO_RUNNING)

static int version(struct vfio_server *s, struct vfio_request *rq)
{
	struct vfio_half *h = s->half;
	struct vuser_version v;

	if (vuser_get_version(rq->payload, rq->len, &v) || v.major != 0)
		return -EINVAL;
	h->client_fds = v.caps.max_msg_fds < VFIO_MAX_FDS ? v.caps.max_msg_fds : VFIO_MAX_FDS;
	h->client_data = v.caps.max_data_xfer_size < UMDEV_DMA_MESSAGE_MAX
				 ? v.caps.max_data_xfer_size
				 : UMDEV_DMA_MESSAGE_MAX;
	h->state = VFIO_RUNNING;
	if (v.minor > 1)
		v.minor = 1; /* the last one that we know */
	v.caps = (struct vuser_caps){ .max_msg_fds = VFIO_MAX_FDS,
				      .max_data_xfer_size = VFIO_MAX_DATA,
				      .max_dma_maps = DMA_MAX_MAPS,
				      .pgsizes = DMA_PAGE,
				      .write_multiple = true };
	vuser_put_version(&rq->reply, &v);
	return 0;
}

static int get_info(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_info i;

	if (vuser_get_info(rq->payload, rq->len, &i) || i.argsz < VUSER_INFO)
		return -EINVAL;
	i = (struct vuser_info){ VUSER_INFO, VUSER_INFO_RESET | VUSER_INFO_PCI, VFIO_REGIONS,
				 VFIO_IRQS };
	vuser_put_info(&rq->reply, &i);
	return 0;
}

static int reset(struct vfio_server *s, struct vfio_request *rq)
{
	vfio_reset_and_wait(s, UMDEV_RESET_CLIENT);
	return VFIO_LATER;
}

/* Indexed by number. Payloads may be longer than the struct: SPDK pads, and a descriptor on
 * DMA_UNMAP (SPDK) is closed and forgiven. */
static const struct command commands[] = {
	[VUSER_VERSION] = { "VERSION", 4, 4096, 0, IN_HELLO, SMALL_REPLY, version },
	[VUSER_DMA_MAP] = { "DMA_MAP", 32, 4096, 1, IN_RUNNING, 0, vfio_dma_map },
	[VUSER_DMA_UNMAP] = { "DMA_UNMAP", 24, 4096, 1, IN_RUNNING, 24, vfio_dma_unmap },
	[VUSER_GET_INFO] = { "GET_INFO", 16, 4096, 0, IN_RUNNING, 16, get_info },
	[VUSER_GET_REGION_INFO] = { "GET_REGION_INFO", 32, 4096, 0, IN_RUNNING, 64,
				    vfio_get_region_info },
	[VUSER_GET_REGION_IO_FDS] = { "GET_REGION_IO_FDS", 16, 4096, 0, IN_RUNNING, 16,
				      vfio_get_region_io_fds },
	[VUSER_GET_IRQ_INFO] = { "GET_IRQ_INFO", 16, 4096, 0, IN_RUNNING, 16, vfio_get_irq_info },
	[VUSER_SET_IRQS] = { "SET_IRQS", 20, 4096, VFIO_MAX_FDS, IN_RUNNING, 0, vfio_set_irqs },
	[VUSER_REGION_READ] = { "REGION_READ", 16, 4096, 0, IN_RUNNING, 16, vfio_region_read },
	[VUSER_REGION_WRITE] = { "REGION_WRITE", 16, ANY, 0, IN_RUNNING, 16, vfio_region_write },
	[VUSER_RESET] = { "RESET", 0, 4096, 0, IN_RUNNING, 0, reset },
	[VUSER_REGION_WRITE_MULTI] = { "REGION_WRITE_MULTI", 8, 8 + VUSER_MULTI_MAX * 24, 0,
				       IN_RUNNING, 8, vfio_region_write_multi },
	[VUSER_DEVICE_FEATURE] = { "DEVICE_FEATURE", 8, ANY, 0, IN_RUNNING, 0,
				   vfio_device_feature },
	[VUSER_MIG_DATA_READ] = { "MIG_DATA_READ", 8, 4096, 0, IN_RUNNING, 0, vfio_mig_data },
	[VUSER_MIG_DATA_WRITE] = { "MIG_DATA_WRITE", 8, ANY, 0, IN_RUNNING, 0, vfio_mig_data },
};

static const struct command *find_command(uint16_t number)
{
	if (number >= sizeof(commands) / sizeof(commands[0]) || !commands[number].handler)
		return NULL;
	return &commands[number];
}

/* 0, or what the client is told without the handler. */
static int judge(const struct vfio_server *s, const struct command *c,
		 const struct vfio_request *rq)
{
	if (!c || rq->len < c->min || rq->len > c->max || rq->n_fds > c->max_fds ||
	    !(c->states & 1u << s->half->state))
		return -EINVAL;
	return 0;
}

/* Bytes that a read asks for; 0 for all else and for what will be refused. */
static uint32_t data_asked(const struct vfio_request *rq)
{
	struct vuser_access a;

	if (rq->header.command != VUSER_REGION_READ || vuser_get_read(rq->payload, rq->len, &a) ||
	    a.count > VFIO_MAX_DATA)
		return 0;
	return a.count;
}

/* A request that killed its executioner again and again: answered as a broken device would. */
static int answer_unexecuted(struct vfio_request *rq)
{
	struct vuser_access a;
	uint8_t *out;

	rq->poisoned = true;
	switch (rq->header.command) {
	case VUSER_REGION_READ:
		if (vuser_get_read(rq->payload, rq->len, &a))
			return -EINVAL;
		vuser_put_access(&rq->reply, &a);
		out = buf_space(&rq->reply, a.count);
		if (!out)
			return -EINVAL;
		memset(out, 0xff, a.count);
		return 0;
	case VUSER_REGION_WRITE:
		if (vuser_get_write(rq->payload, rq->len, &a))
			return -EINVAL;
		a.data = NULL;
		vuser_put_access(&rq->reply, &a);
		return 0;
	default:
		return -EIO;
	}
}

static int run(struct vfio_server *s, const struct command *c, struct vfio_request *rq)
{
	int r = judge(s, c, rq);

	if (r < 0)
		return r;
	if (conn_try(&s->conn, &s->half->cursor) > VFIO_POISON_TRIES)
		return answer_unexecuted(rq);
	return c->handler(s, rq);
}

/* The reply that was reserved with room for `room` bytes of payload becomes final. */
static void put_reply(struct vfio_server *s, struct vfio_request *rq, uint8_t *start, uint32_t room,
		      int error)
{
	struct conn_cursor *cursor = &s->half->cursor;
	struct vuser_header h = { .id = rq->header.id,
				  .command = rq->header.command,
				  .flags = VUSER_TYPE_REPLY };
	struct buf_writer w = buf_write_to(start, VUSER_HEADER);

	conn_unreserve(cursor, VUSER_HEADER + room);
	if (rq->header.flags & VUSER_NO_REPLY)
		return;
	assert(!rq->reply.bad);
	h.size = VUSER_HEADER + (error ? 0 : rq->reply.len);
	if (error) {
		h.flags |= VUSER_ERROR;
		h.error = -error;
	}
	vuser_put_header(&w, &h);
	/* The same bytes again, now with their real length and descriptor; there was room. */
	if (!error && rq->reply_fd >= 0 && conn_reserve_fd(&s->conn, cursor, rq->reply_fd))
		assert(!"a descriptor waits although all was flushed");
	start = conn_reserve(&s->conn, cursor, h.size);
	assert(start == w.start);
}

static void close_unkept(struct vfio_server *s, const struct vfio_request *rq)
{
	struct vfio_effects *e = s->effects;

	for (unsigned i = rq->n_kept; i < rq->n_fds; i++)
		e->close_fd[e->n_close++] = rq->fds[i];
}

static void fill_wait(struct vfio_server *s, const struct vfio_request *rq)
{
	struct vfio_wait *wait = &s->half->wait;

	wait->waiting = 1;
	wait->id = rq->header.id;
	wait->command = rq->header.command;
	wait->header_flags = rq->header.flags;
	assert(!rq->reply.bad && rq->reply.len <= sizeof(wait->reply));
	wait->reply_len = rq->reply.len;
	memcpy(wait->reply, rq->reply.start, rq->reply.len);
}

/* Handler, answer and consumption, inside the transaction; true: the message is done with. */
static bool transact(struct vfio_server *s, const struct command *c, struct vfio_request *rq,
		     const struct conn_msg *msg, uint8_t *start, uint32_t room)
{
	int r = run(s, c, rq);

	if (r == VFIO_MORE) {
		conn_unreserve(&s->half->cursor, VUSER_HEADER + room);
		return false;
	}
	if (r < 0) {
		/* Nothing of a refused request stays, except that it was answered. */
		vfio_abort(s);
		vfio_begin(s);
		rq->n_kept = 0;
		rq->reply.len = 0;
		start = conn_reserve(&s->conn, &s->half->cursor, VUSER_HEADER + room);
		vfio_complain(s, VFIO_COMPLAIN_REFUSED, "refused %s: %s", c ? c->name : "a command",
			      err_name(r));
	}
	if (rq->poisoned)
		vfio_set_faulty(s, VFIO_FAULTY, VFIO_POISON_TEXT);
	if (r == VFIO_LATER) {
		fill_wait(s, rq);
		conn_unreserve(&s->half->cursor, VUSER_HEADER + room);
	} else {
		put_reply(s, rq, start, room, r);
	}
	s->half->progress = 0;
	close_unkept(s, rq);
	conn_consume(&s->half->cursor, msg);
	return true;
}

static bool writes_config(const struct vfio_request *rq)
{
	struct vuser_access a;
	uint64_t n = 0;

	if (rq->header.command == VUSER_REGION_WRITE)
		return !vuser_get_write(rq->payload, rq->len, &a) && a.region == VFIO_REGION_CONFIG;
	if (rq->header.command != VUSER_REGION_WRITE_MULTI ||
	    vuser_get_multi(rq->payload, rq->len, &n))
		return false;
	for (uint64_t i = 0; i < n && i < VUSER_MULTI_MAX; i++) {
		if (!vuser_get_multi_entry(rq->payload, rq->len, i, &a) &&
		    a.region == VFIO_REGION_CONFIG)
			return true;
	}
	return false;
}

/* What changes eventfds, masks, or all of the device is not done while a queue thread is in the
 * middle of a round: it may be about to signal, or to look at a doorbell that a reset clears. */
static bool must_pause(struct vfio_server *s, const struct vfio_request *rq)
{
	if (!queues_have_threads(s->dev) || s->paused)
		return false;
	if (rq->header.command != VUSER_RESET && rq->header.command != VUSER_SET_IRQS &&
	    !writes_config(rq))
		return false;
	if (!s->quiescing) /* else the end of that comes back to it */
		vfio_pause(s);
	return !s->paused;
}

static int execute_command(struct vfio_server *s, struct vfio_request *rq,
			   const struct conn_msg *msg)
{
	const struct command *c = find_command(rq->header.command);
	uint32_t room = (c ? c->reply : 0) + data_asked(rq);
	uint8_t *start;
	bool done;

	/* A descriptor of ours needs the way to be free. */
	if (rq->header.command == VUSER_GET_REGION_INFO &&
	    !conn_is_flushed(&s->conn, &s->half->cursor))
		return 0;
	if (vfio_unmap_must_wait(s, rq) || peer_must_wait(s, rq) || must_pause(s, rq))
		return 0;
	do {
		vfio_begin(s);
		start = conn_reserve(&s->conn, &s->half->cursor, VUSER_HEADER + room);
		if (!start) {
			vfio_abort(s);
			return 0;
		}
		rq->reply = buf_write_to(start + VUSER_HEADER, room);
		done = transact(s, c, rq, msg, start, room);
		vfio_commit(s);
		if (!done)
			conn_untry(&s->conn);
	} while (!done);
	s->paused = false;
	return 1;
}

static int execute_reply(struct vfio_server *s, struct vfio_request *rq, const struct conn_msg *msg)
{
	int r = 0;

	vfio_begin(s);
	if (conn_try(&s->conn, &s->half->cursor) > VFIO_POISON_TRIES)
		vfio_set_faulty(s, VFIO_FAULTY, VFIO_POISON_TEXT);
	else
		r = message_reply(s, &rq->header, rq->payload, rq->len);
	if (r < 0) {
		vfio_abort(s);
		return r;
	}
	close_unkept(s, rq);
	conn_consume(&s->half->cursor, msg);
	vfio_commit(s);
	return 1;
}

int vfio_execute(struct vfio_server *s, const struct conn_msg *msg, const char **ret_why)
{
	struct vfio_request rq = { .fds = msg->fds, .n_fds = msg->n_fds, .reply_fd = -1 };
	int r;

	*ret_why = "malformed header";
	if (vuser_get_header(msg->data, msg->len, &rq.header))
		return -EPROTO;
	rq.payload = msg->data + VUSER_HEADER;
	rq.len = msg->len - VUSER_HEADER;
	if ((rq.header.flags & VUSER_TYPE_MASK) == VUSER_TYPE_REPLY) {
		*ret_why = "reply to nothing that was asked";
		return execute_reply(s, &rq, msg);
	}
	s->held = true; /* until it ran */
	if (s->half->wait.waiting)
		return 0;
	*ret_why = "a command before VERSION";
	if (s->half->state == VFIO_HELLO && rq.header.command != VUSER_VERSION)
		return -EPROTO;
	r = execute_command(s, &rq, msg);
	if (r > 0)
		s->held = false;
	return r;
}

void vfio_answer_wait(struct vfio_server *s)
{
	struct vfio_wait wait = s->half->wait;
	struct vfio_request rq = {
		.header = { .id = wait.id, .command = wait.command, .flags = wait.header_flags },
		.reply_fd = -1
	};
	uint8_t *start;

	vfio_begin(s);
	s->half->wait = (struct vfio_wait){ 0 };
	/* There was room when it began to wait, and nothing was added since. */
	start = conn_reserve(&s->conn, &s->half->cursor, VUSER_HEADER + wait.reply_len);
	assert(start);
	rq.reply = buf_write_to(start + VUSER_HEADER, wait.reply_len);
	buf_put_bytes(&rq.reply, wait.reply, wait.reply_len);
	put_reply(s, &rq, start, wait.reply_len, 0);
	vfio_commit(s);
}
