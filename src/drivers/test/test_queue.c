/* SPDX-License-Identifier: MIT */
/*
 * test, device half of type queue: rings of entries, each carried out by its runner (test.h). The
 * smallest thing that keeps a journal, as umdev/queue.h asks for:
 *
 *   fetch  entry into a free slot, slot TAKEN, head advanced
 *   end    status and place into the slot, slot ENDED, `done` advanced, completion written, slot
 *          FREE
 *
 * Whichever store is the last one of a dead worker, start(RESUME) finds the next.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "test_queue.h"

enum slot_state {
	SLOT_FREE,  /* `end`, last */
	SLOT_TAKEN, /* by `fetch`, when it holds all of the entry */
	SLOT_ENDED, /* by `end`, when it holds status and place */
};

struct slot {
	uint32_t state;
	uint32_t number, place; /* of the entry; of its completion */
	int32_t status;
	struct test_blk_entry entry;
};

/* Of one queue; survives. */
struct journal {
	uint32_t head, done;
	struct slot slot[TEST_BLK_DEPTH];
};

/* Of one queue and life. */
struct ring {
	struct umdev_window sq, cq;
};

/* Compiler barriers suffice between the lives of a worker. */
#define set(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELEASE)

static const struct test_queue_regs *config(const struct umdev_queue *q)
{
	return umdev_queue_config(q);
}

static void complain(struct umdev_queue *q, int error)
{
	umdev_queue_event(q, (uint32_t)-error & TEST_QUEUE_ERRNO);
}

/* ---- in the runner ---- */

static void publish(struct umdev_queue *q, struct slot *s)
{
	struct ring *ring = umdev_queue_priv(q);
	struct journal *j = umdev_queue_state(q);
	struct test_blk_completion c = { .id = s->entry.id, .status = s->status };
	uint64_t at = sizeof(c) * (s->place % config(q)->entries);
	int r;

	set(j->done, s->place + 1);
	r = umdev_window_write(q, &ring->cq, at, &c,
			       offsetof(struct test_blk_completion, sequence));
	if (!r) /* last: that is what the client looks at */
		r = umdev_window_store32(q, &ring->cq,
					 at + offsetof(struct test_blk_completion, sequence),
					 s->place + 1);
	if (r)
		complain(q, r);
	if (config(q)->vector < TEST_VECTORS)
		umdev_queue_irq(q, config(q)->vector);
	set(s->state, SLOT_FREE);
}

static void end(struct umdev_queue *q, struct slot *s, int status)
{
	struct journal *j = umdev_queue_state(q);

	s->status = status;
	s->place = j->done;
	set(s->state, SLOT_ENDED);
	publish(q, s);
}

static void carry_out(struct umdev_queue *q, struct slot *s)
{
	struct journal *j = umdev_queue_state(q);
	const struct test_blk_entry *e = &s->entry;
	struct umdev_seg segs[TEST_BLK_MAX_BLOCKS];
	bool moves = e->op == TEST_BLK_READ || e->op == TEST_BLK_WRITE;
	uint64_t blocks = umdev_media_size(umdev_queue_device(q), 0) / TEST_BLK_BLOCK;
	int r = -EINVAL;

	if (e->op == TEST_QUEUE_CRASH)
		__builtin_trap();
	if (e->op >= TEST_BLK_READ && e->op <= TEST_QUEUE_DISCARD && e->block <= blocks &&
	    (!moves || e->n_blocks <= TEST_BLK_MAX_BLOCKS)) {
		for (unsigned i = 0; moves && i < e->n_blocks; i++)
			segs[i] = (struct umdev_seg){ { e->data + (uint64_t)i * TEST_BLK_BLOCK },
						      TEST_BLK_BLOCK };
		r = umdev_queue_submit(q, 0, (enum umdev_media_op)e->op, e->block * TEST_BLK_BLOCK,
				       (uint64_t)e->n_blocks * TEST_BLK_BLOCK, segs,
				       moves ? e->n_blocks : 0, e->flags, (uint32_t)(s - j->slot));
	}
	if (r)
		end(q, s, r < 0 ? r : 0);
}

static struct slot *find_free(struct journal *j)
{
	for (unsigned i = 0; i < TEST_BLK_DEPTH; i++)
		if (j->slot[i].state == SLOT_FREE)
			return &j->slot[i];
	return NULL;
}

static bool poll(struct umdev_queue *q)
{
	struct ring *ring = umdev_queue_priv(q);
	struct journal *j = umdev_queue_state(q);
	uint32_t tail = umdev_queue_doorbell(q, umdev_queue_index(q)), n = tail - j->head;

	if (n > config(q)->entries)
		return false; /* no client of ours; or one that is just being reset */
	for (uint32_t i = 0; i < n && i < UMDEV_QUEUE_BATCH; i++) {
		struct slot *s = find_free(j);
		int r;

		if (!s)
			return false; /* `done` comes first */
		r = umdev_window_read(q, &ring->sq,
				      sizeof(s->entry) * (j->head % config(q)->entries), &s->entry,
				      sizeof(s->entry));
		if (r) {
			complain(q, r);
			return false;
		}
		s->number = j->head;
		set(s->state, SLOT_TAKEN);
		set(j->head, s->number + 1);
		carry_out(q, s);
	}
	return n > 0;
}

static void done(struct umdev_queue *q, uint32_t tag, int status)
{
	struct journal *j = umdev_queue_state(q);

	end(q, &j->slot[tag], status);
}

static int start(struct umdev_queue *q, enum umdev_init how)
{
	struct ring *ring = umdev_queue_priv(q);
	struct journal *j = umdev_queue_state(q);
	const struct test_queue_regs *c = config(q);

	if (!c->entries || c->entries > TEST_BLK_DEPTH)
		return -EINVAL;
	*ring = (struct ring){
		.sq = { { c->sq }, c->entries * sizeof(struct test_blk_entry), .write = false },
		.cq = { { c->cq }, c->entries * sizeof(struct test_blk_completion), .write = true },
	};
	for (unsigned i = 0; i < TEST_BLK_DEPTH && how == UMDEV_RESUME; i++) {
		struct slot *s = &j->slot[i];

		if (s->state == SLOT_ENDED) {
			publish(q, s);
		} else if (s->state == SLOT_TAKEN) {
			if (s->number == j->head)
				set(j->head, s->number + 1);
			carry_out(q, s);
		} else if (s->state != SLOT_FREE) {
			return -EUCLEAN;
		}
	}
	return 0;
}

static const struct umdev_queue_ops ring_ops = { .start = start, .poll = poll, .done = done };

const struct umdev_queue_type test_queue_type = {
	.ops = &ring_ops,
	.max = TEST_QUEUES,
	.requests = TEST_BLK_DEPTH,
	.state_size = sizeof(struct journal),
	.state_version = 1,
	.priv_size = sizeof(struct ring),
	.doorbells = TEST_QUEUES,
};

/* ---- in the control thread ---- */

static uint32_t state_of(const struct umdev_device *dev, unsigned index)
{
	return umdev_queue_is_stopped(dev, index) ? 0 : 1;
}

static uint64_t queue_bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset,
			       unsigned len)
{
	const struct test_queues_state *state = umdev_state(dev);
	unsigned index = (unsigned)(offset / TEST_QUEUE_STRIDE);
	const struct test_queue_regs *r = &state->queue[index % TEST_QUEUES];
	const struct journal *j;

	if (bar != TEST_BAR_REGS || index >= TEST_QUEUES)
		return 0;
	j = umdev_queue_peek(dev, index);
	switch (offset % TEST_QUEUE_STRIDE) {
	case TEST_BLK_BLOCKS:
		return umdev_media_size(dev, 0) / TEST_BLK_BLOCK;
	case TEST_BLK_SQ:
		return r->sq;
	case TEST_BLK_CQ:
		return r->cq;
	case TEST_BLK_ENTRIES:
		return r->entries;
	case TEST_BLK_VECTOR:
		return r->vector;
	case TEST_BLK_HEAD:
		return __atomic_load_n(&j->head, __ATOMIC_RELAXED);
	case TEST_BLK_DONE:
		return __atomic_load_n(&j->done, __ATOMIC_RELAXED);
	case TEST_BLK_ERROR:
		return r->error;
	case TEST_QUEUE_STATE:
		return state_of(dev, index);
	case TEST_QUEUE_STOPS:
		return r->stops;
	case TEST_QUEUE_EVENTS:
		return r->events;
	case TEST_QUEUE_WORKS:
		return state->works;
	}
	return 0;
}

static void command(struct umdev_device *dev, unsigned index, struct test_queue_regs *r,
		    uint64_t value)
{
	int error = -EINVAL;

	switch (value) {
	case TEST_QUEUE_START:
		umdev_doorbell_set(dev, index, 0);
		error = umdev_queue_start(dev, index, UMDEV_QUEUE_NEW, r, sizeof(*r));
		break;
	case TEST_QUEUE_RESTART:
		error = umdev_queue_start(dev, index, UMDEV_QUEUE_KEEP, r, sizeof(*r));
		break;
	case TEST_QUEUE_DRAIN:
		error = umdev_queue_stop(dev, index, UMDEV_QUEUE_DRAIN);
		break;
	case TEST_QUEUE_DROP:
		error = umdev_queue_stop(dev, index, UMDEV_QUEUE_DROP);
		break;
	case TEST_QUEUE_WORK:
		umdev_work_soon(dev);
		error = 0;
		break;
	}
	if (error)
		r->error = (uint32_t)-error;
}

static void queue_bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			    uint64_t value)
{
	struct test_queues_state *state = umdev_state(dev);
	unsigned index = (unsigned)(offset / TEST_QUEUE_STRIDE);
	struct test_queue_regs *r = &state->queue[index % TEST_QUEUES];

	if (bar == TEST_BAR_DOORBELLS && offset / 4 < TEST_QUEUES) {
		umdev_doorbell_set(dev, (unsigned)(offset / 4), (uint32_t)value);
		umdev_queue_kick(dev, (unsigned)(offset / 4));
	}
	if (bar != TEST_BAR_REGS || index >= TEST_QUEUES)
		return;
	switch (offset % TEST_QUEUE_STRIDE) {
	case TEST_BLK_SQ:
		r->sq = value;
		break;
	case TEST_BLK_CQ:
		r->cq = value;
		break;
	case TEST_BLK_ENTRIES:
		r->entries = (uint32_t)value;
		break;
	case TEST_BLK_VECTOR:
		r->vector = (uint32_t)value;
		break;
	case TEST_QUEUE_COMMAND:
		command(dev, index, r, value);
		break;
	}
}

static void queue_stopped(struct umdev_device *dev, unsigned index)
{
	struct test_queues_state *state = umdev_state(dev);

	state->queue[index].stops++;
}

static void queue_event(struct umdev_device *dev, unsigned index, uint32_t bits)
{
	struct test_queues_state *state = umdev_state(dev);

	state->queue[index].events |= bits & ~TEST_QUEUE_ERRNO;
	if (bits & TEST_QUEUE_ERRNO)
		state->queue[index].error = bits & TEST_QUEUE_ERRNO;
}

static void queue_work(struct umdev_device *dev)
{
	struct test_queues_state *state = umdev_state(dev);

	if (++state->works % TEST_QUEUE_WORK_STEPS)
		umdev_work_soon(dev);
}

static void queue_reset(struct umdev_device *dev, enum umdev_reset why)
{
	struct test_queues_state *state = umdev_state(dev);

	*state = (struct test_queues_state){ 0 };
	for (unsigned i = 0; i < TEST_QUEUES; i++) {
		state->queue[i].vector = TEST_VECTORS;
		umdev_doorbell_set(dev, i, 0);
	}
}

/* Nothing in an inherited state is used unchecked. */
static int queue_init(struct umdev_device *dev, enum umdev_init how)
{
	if (umdev_media_find(dev, TEST_BLK_MEDIUM) != 0)
		return -ENOENT;
	if (how == UMDEV_FRESH)
		queue_reset(dev, UMDEV_RESET_OPEN);
	return 0;
}

const struct umdev_device_ops test_queue_ops = {
	.init = queue_init,
	.reset = queue_reset,
	.bar_read = queue_bar_read,
	.bar_write = queue_bar_write,
	.work = queue_work,
	.queue_stopped = queue_stopped,
	.queue_event = queue_event,
};

const struct umdev_pci test_queue_pci = {
	.vendor = TEST_VENDOR,
	.device = TEST_DEVICE_QUEUE,
	.subsystem_vendor = TEST_VENDOR,
	.subsystem = TEST_DEVICE_QUEUE,
	.class_code = 0x018000, /* mass storage, other */
	.revision = 1,
	.express = true,
	.msix = TEST_VECTORS,
	.msix_bar = TEST_BAR_MSIX,
	.msix_table = 0,
	.msix_pba = TEST_BAR_MSIX_SIZE / 2,
	.bar = { [TEST_BAR_REGS] = { .size = TEST_BAR_REGS_SIZE },
		 [TEST_BAR_DOORBELLS] = { .size = 4096,
					  .flags = UMDEV_BAR_DOORBELLS,
					  .mmap_size = 4096 },
		 [TEST_BAR_MSIX] = { .size = TEST_BAR_MSIX_SIZE } },
};
