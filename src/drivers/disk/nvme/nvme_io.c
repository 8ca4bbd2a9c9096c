/* SPDX-License-Identifier: MIT */
/*
 * nvme: a runner of I/O queues, and its journal.
 *
 * The worker may be killed between any two instructions here. What counts is in the queue's state,
 * and each step ends with one store that makes it true:
 *
 *	take	cmd, sequence -> slot	slot TAKEN	head and count of the submission queue
 *	end	status -> slot		slot ENDED
 *	post	place -> slot		slot POSTED	tail of the completion queue
 *		completion -> guest	slot FREE
 *
 * A successor finds a slot TAKEN whose sequence is the count: the head was not advanced, the
 *command will be taken again, so it is dropped. Else it was taken and did not end: it is carried
 *out again. A slot POSTED whose place is the tail was not posted; one just before the tail was,
 *perhaps without reaching the guest: it is written again, to the same place with the same bytes,
 *before anything else is. No other place is possible, because one completion is posted at a time.
 */
#include <errno.h>
#include <string.h>
#include "nvme.h"

static struct nvme_queue_state *state(struct umdev_queue *q)
{
	return umdev_queue_state(q);
}

static struct nvme_queue_priv *priv(struct umdev_queue *q)
{
	return umdev_queue_priv(q);
}

static const struct nvme_config *config(struct umdev_queue *q)
{
	return umdev_queue_config(q);
}

/* ---- stores that count ---- */

static void set_32(uint32_t *at, uint32_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
}

static void set_64(uint64_t *at, uint64_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
}

static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* Of a completion queue: the tail, and bit 16 in every other round. */
static uint32_t next_place(struct umdev_queue *q, uint32_t place)
{
	uint32_t tail = (place & 0xffff) + 1, round = place & 1 << 16;

	return tail == nvme_ring_entries(config(q)->ring) ? round ^ 1 << 16 : round | tail;
}

/* Of a submission queue: the head, and above it how many commands were taken. */
static uint64_t next_word(uint64_t word, uint64_t ring)
{
	uint64_t head = (word & 0xffff) + 1, taken = (word >> 16) + 1;

	return (head == nvme_ring_entries(ring) ? 0 : head) | taken << 16;
}

/* ---- rings and doorbells ---- */

static void broken(struct umdev_queue *q)
{
	if (!priv(q)->broken)
		umdev_queue_event(q, NVME_QUEUE_UNREACHABLE);
	priv(q)->broken = true;
}

static bool read_doorbell(struct umdev_queue *q, unsigned word, uint32_t *ret)
{
	if (!config(q)->has_shadow) {
		*ret = umdev_queue_doorbell(q, word);
		return true;
	}
	if (umdev_window_load32(q, &priv(q)->shadow, 4 * word, ret) == 0)
		return true;
	broken(q);
	return false;
}

/* An index as the guest gave it. False: it is no index of this ring, or cannot be read. */
static bool read_index(struct umdev_queue *q, unsigned word, uint64_t ring, uint32_t *ret)
{
	struct nvme_queue_priv *p = priv(q);

	if (!read_doorbell(q, word, ret))
		return false;
	if (*ret < nvme_ring_entries(ring))
		return true;
	if (!p->invalid_tail)
		umdev_queue_event(q, NVME_QUEUE_INVALID_TAIL);
	p->invalid_tail = true;
	return false;
}

static bool cq_is_full(struct umdev_queue *q)
{
	struct nvme_queue_state *st = state(q);

	return (next_place(q, st->cq) & 0xffff) == st->cq_head;
}

static void update_head(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);
	uint32_t head;

	if (!read_index(q, nvme_head_word(c->id), c->ring, &head) || head == state(q)->cq_head)
		return;
	set_32(&state(q)->cq_head, head);
	if (c->intx)
		umdev_queue_event(q, NVME_QUEUE_INTX);
}

/* ---- the end of a command ---- */

static int find_sq(const struct nvme_config *c, const struct nvme_slot *slot)
{
	for (unsigned i = 0; i < c->n_sqs; i++)
		if (c->sq_id[i] == slot->sq_id && c->sq_birth[i] == slot->sq_birth)
			return (int)i;
	return -1;
}

static void free_slot(struct umdev_queue *q, unsigned i)
{
	struct nvme_queue_priv *p = priv(q);

	set_32(&state(q)->slot[i].state, NVME_SLOT_FREE);
	p->free[p->n_free++] = (uint16_t)i;
}

/* Puts the completion where the guest looks for it: the word with the phase tag last. */
static int write_completion(struct umdev_queue *q, const struct nvme_slot *slot)
{
	struct nvme_queue_state *st = state(q);
	struct umdev_window *w = &priv(q)->cq;
	uint64_t at = (uint64_t)(slot->place & 0xffff) << NVME_CQE_SHIFT;
	uint32_t phase = !(slot->place >> 16 & 1);
	struct nvme_completion c = {
		.sq_head = le16_set((uint16_t)st->sq[slot->sq_id - 1].word),
		.sq_id = le16_set(slot->sq_id),
	};
	int r = umdev_window_write(q, w, at, &c, offsetof(struct nvme_completion, cid));

	return r ? r
		 : umdev_window_store32(q, w, at + offsetof(struct nvme_completion, cid),
					le16_get(slot->cmd.cid) |
						((uint32_t)slot->status << 1 | phase) << 16);
}

static void signal_guest(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);

	if (c->interrupts && !c->intx)
		umdev_queue_irq(q, c->vector);
	else if (c->interrupts)
		umdev_queue_event(q, NVME_QUEUE_INTX);
}

/* There is room. */
static void post_one(struct umdev_queue *q, unsigned i)
{
	struct nvme_queue_state *st = state(q);
	struct nvme_slot *slot = &st->slot[i];

	slot->place = st->cq;
	set_32(&slot->state, NVME_SLOT_POSTED);
	set_32(&st->cq, next_place(q, st->cq));
	if (write_completion(q, slot) < 0)
		broken(q);
	free_slot(q, i);
}

static bool post(struct umdev_queue *q)
{
	struct nvme_queue_priv *p = priv(q);
	bool any = false;

	while (p->n_ended && !cq_is_full(q)) {
		unsigned i = p->ended[p->ended_first];

		p->ended_first = (uint16_t)((p->ended_first + 1) % NVME_SLOTS);
		p->n_ended--;
		post_one(q, i);
		any = true;
	}
	if (any)
		signal_guest(q);
	return any;
}

static void push_ended(struct nvme_queue_priv *p, unsigned i)
{
	p->ended[(p->ended_first + p->n_ended) % NVME_SLOTS] = (uint16_t)i;
	p->n_ended++;
}

static uint64_t slba(const struct nvme_command *cmd)
{
	return le32_get(cmd->cdw10) | (uint64_t)le32_get(cmd->cdw11) << 32;
}

static void note_error(struct umdev_queue *q, const struct nvme_slot *slot)
{
	struct nvme_queue_state *st = state(q);

	st->error[st->n_errors % NVME_QUEUE_ERRORS] = (struct nvme_error){
		.lba = slba(&slot->cmd),
		.nsid = le32_get(slot->cmd.nsid),
		.sq_id = slot->sq_id,
		.cid = le16_get(slot->cmd.cid),
		.status = slot->status,
	};
	set_32(&st->n_errors, st->n_errors + 1);
	if ((slot->status & 0x700) == (NVME_READ_ERROR & 0x700))
		count(&st->counters.media_errors, 1);
	umdev_queue_event(q, NVME_QUEUE_ERROR);
}

static void note_success(struct umdev_queue *q, const struct nvme_slot *slot)
{
	struct nvme_counters *c = &state(q)->counters;
	uint64_t sectors = (uint64_t)((le32_get(slot->cmd.cdw12) & 0xffff) + 1)
			   << (config(q)->block_shift - 9);

	if (slot->cmd.opcode == NVME_READ) {
		count(&c->reads, 1);
		count(&c->sectors_read, sectors);
	} else if (slot->cmd.opcode == NVME_WRITE) {
		count(&c->writes, 1);
		count(&c->sectors_written, sectors);
	}
}

/* What nvme_execute and nvme_continue said. */
static void take_result(struct umdev_queue *q, unsigned i, int result)
{
	struct nvme_slot *slot = &state(q)->slot[i];

	if (result < 0)
		return;
	slot->status = (uint16_t)result;
	if (result) {
		slot->status |= NVME_STATUS_MORE;
		note_error(q, slot);
	} else {
		note_success(q, slot);
	}
	set_32(&slot->state, NVME_SLOT_ENDED);
	push_ended(priv(q), i);
}

static void nvme_done(struct umdev_queue *q, uint32_t tag, int status)
{
	take_result(q, tag, nvme_continue(q, tag, status));
	if (!priv(q)->broken)
		post(q);
}

/* ---- the beginning of a command ---- */

/* Takes the command at the head. False: its queue cannot be read. */
static bool take(struct umdev_queue *q, unsigned k)
{
	const struct nvme_config *c = config(q);
	struct nvme_queue_priv *p = priv(q);
	unsigned i = p->free[p->n_free - 1], id = c->sq_id[k];
	struct nvme_slot *slot = &state(q)->slot[i];
	uint64_t *word = &state(q)->sq[id - 1].word;

	if (umdev_window_read(q, &p->sq[k], (uint64_t)(*word & 0xffff) << NVME_SQE_SHIFT,
			      &slot->cmd, sizeof(slot->cmd)) < 0) {
		broken(q);
		return false;
	}
	p->n_free--;
	slot->sq_id = (uint8_t)id;
	slot->sq_birth = c->sq_birth[k];
	slot->sequence = *word >> 16;
	set_32(&slot->state, NVME_SLOT_TAKEN);
	set_64(word, next_word(*word, c->sq_ring[k]));
	take_result(q, i, nvme_execute(q, i));
	return true;
}

/* Commands of one submission queue, at most `budget`. How many there were. */
static unsigned take_some(struct umdev_queue *q, unsigned k, unsigned budget)
{
	const struct nvme_config *c = config(q);
	const uint64_t *word = &state(q)->sq[c->sq_id[k] - 1].word;
	unsigned n = 0;
	uint32_t tail;

	if (!read_index(q, nvme_tail_word(c->sq_id[k]), c->sq_ring[k], &tail))
		return 0;
	while (n < budget && (*word & 0xffff) != tail && priv(q)->n_free && take(q, k))
		n++;
	return n;
}

static bool watch(struct umdev_queue *q)
{
	bool news = false;

	for (unsigned word = 0; word < 2; word++) {
		uint32_t now = umdev_queue_doorbell(q, word);

		if (now == state(q)->admin[word])
			continue;
		set_32(&state(q)->admin[word], now);
		news = true;
	}
	if (news)
		umdev_queue_event(q, NVME_QUEUE_ADMIN);
	return news;
}

static bool nvme_poll(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);
	struct nvme_queue_priv *p = priv(q);
	unsigned left = UMDEV_QUEUE_BATCH;
	bool any;

	if (c->watcher)
		return watch(q);
	if (p->broken)
		return false;
	update_head(q);
	any = post(q);
	for (unsigned n = 0; n < c->n_sqs && left && !p->broken; n++) {
		left -= take_some(q, p->next_sq, left);
		p->next_sq = (uint16_t)((p->next_sq + 1) % c->n_sqs);
	}
	return post(q) || left < UMDEV_QUEUE_BATCH || any;
}

/* ---- sleep: shadow doorbells ---- */

/* Asks for a register write when this index moves on from `seen`. True: it has moved. */
static bool arm_one(struct umdev_queue *q, unsigned word, uint32_t seen)
{
	uint32_t now;

	if (umdev_window_store32(q, &priv(q)->event_index, 4 * word, seen) < 0) {
		broken(q);
		return false;
	}
	umdev_queue_barrier();
	return read_doorbell(q, word, &now) && now != seen;
}

static bool nvme_arm(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);
	struct nvme_queue_state *st = state(q);
	bool work = false;

	if (!c->has_shadow || priv(q)->broken)
		return false;
	for (unsigned k = 0; k < c->n_sqs; k++) {
		uint32_t head = (uint32_t)(st->sq[c->sq_id[k] - 1].word & 0xffff);

		/* With no slot free, or an index that is none, only the guest can go on. */
		work |= arm_one(q, nvme_tail_word(c->sq_id[k]), head) && priv(q)->n_free &&
			!priv(q)->invalid_tail;
	}
	/* The head matters when we wait for room, and when the pin must fall. */
	if (priv(q)->n_ended || c->intx)
		work |= arm_one(q, nvme_head_word(c->id), st->cq_head) && !priv(q)->invalid_tail;
	return work;
}

/* ---- start ---- */

static void window(struct umdev_window *w, uint64_t iova, uint64_t len, bool write)
{
	*w = (struct umdev_window){ .iova = { iova }, .len = len, .write = write };
}

static void open_windows(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);
	struct nvme_queue_priv *p = priv(q);

	window(&p->cq, nvme_ring_base(c->ring),
	       (uint64_t)nvme_ring_entries(c->ring) << NVME_CQE_SHIFT, true);
	for (unsigned k = 0; k < c->n_sqs; k++)
		window(&p->sq[k], nvme_ring_base(c->sq_ring[k]),
		       (uint64_t)nvme_ring_entries(c->sq_ring[k]) << NVME_SQE_SHIFT, false);
	window(&p->shadow, c->shadow, 4 * NVME_DOORBELL_WORDS, false);
	window(&p->event_index, c->event_index, 4 * NVME_DOORBELL_WORDS, true);
}

/* Whatever was written here: indices are inside their rings. */
static bool indices_are_possible(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);
	const struct nvme_queue_state *st = state(q);
	bool possible = c->n_sqs >= 1 && c->n_sqs <= NVME_PAIRS &&
			(st->cq & 0xffff) < nvme_ring_entries(c->ring) && st->cq >> 17 == 0 &&
			st->cq_head < nvme_ring_entries(c->ring);

	for (unsigned k = 0; possible && k < c->n_sqs; k++)
		possible = (st->sq[c->sq_id[k] - 1].word & 0xffff) <
			   nvme_ring_entries(c->sq_ring[k]);
	return possible;
}

static void begin_new_queues(struct umdev_queue *q)
{
	const struct nvme_config *c = config(q);

	for (unsigned k = 0; k < c->n_sqs; k++) {
		uint64_t *birth = &state(q)->sq[c->sq_id[k] - 1].birth;

		if (*birth == c->sq_birth[k])
			continue;
		set_64(&state(q)->sq[c->sq_id[k] - 1].word, 0);
		set_64(birth, c->sq_birth[k]);
	}
}

/* What becomes of a slot of the life before. */
static enum nvme_slot_state judge_slot(struct umdev_queue *q, const struct nvme_slot *slot)
{
	const struct nvme_queue_state *st = state(q);

	if (slot->state == NVME_SLOT_FREE || find_sq(config(q), slot) < 0)
		return NVME_SLOT_FREE;
	if (slot->state == NVME_SLOT_TAKEN && slot->sequence == st->sq[slot->sq_id - 1].word >> 16)
		return NVME_SLOT_FREE;
	if (slot->state == NVME_SLOT_POSTED && slot->place == st->cq)
		return NVME_SLOT_ENDED;
	if (slot->state == NVME_SLOT_POSTED && next_place(q, slot->place) != st->cq)
		return NVME_SLOT_FREE;
	return slot->state <= NVME_SLOT_POSTED ? slot->state : NVME_SLOT_FREE;
}

static void recover_slot(struct umdev_queue *q, unsigned i)
{
	struct nvme_slot *slot = &state(q)->slot[i];
	enum nvme_slot_state now = judge_slot(q, slot);

	set_32(&slot->state, now);
	switch (now) {
	case NVME_SLOT_POSTED:
		if (write_completion(q, slot) < 0)
			broken(q);
		free_slot(q, i);
		break;
	case NVME_SLOT_FREE:
		free_slot(q, i);
		break;
	case NVME_SLOT_ENDED:
		push_ended(priv(q), i);
		break;
	case NVME_SLOT_TAKEN:
		take_result(q, i, nvme_execute(q, i));
		break;
	}
}

static int nvme_start(struct umdev_queue *q, enum umdev_init how)
{
	if (config(q)->watcher)
		return 0;
	memset(priv(q), 0, sizeof(*priv(q)));
	open_windows(q);
	begin_new_queues(q);
	if (!indices_are_possible(q))
		return -EUCLEAN;
	for (unsigned i = NVME_SLOTS; i--;)
		recover_slot(q, i);
	/* The life before may have written a completion and not told of it. */
	if (how == UMDEV_RESUME)
		signal_guest(q);
	return 0;
}

static const struct umdev_queue_ops ops = {
	.start = nvme_start,
	.poll = nvme_poll,
	.done = nvme_done,
	.arm = nvme_arm,
};

const struct umdev_queue_type nvme_queue_type = {
	.ops = &ops,
	.max = NVME_PAIRS,
	.requests = NVME_SLOTS,
	.state_size = sizeof(struct nvme_queue_state),
	.state_version = 1,
	.priv_size = sizeof(struct nvme_queue_priv),
	.doorbells = NVME_DOORBELL_WORDS,
};
