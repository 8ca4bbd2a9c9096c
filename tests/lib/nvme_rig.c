// SPDX-License-Identifier: MIT
#include "nvme_rig.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct umdev_device_ops *ops(void)
{
	return disk_device_driver.types[0].ops;
}

static const struct umdev_queue_ops *queue_ops(void)
{
	return disk_device_driver.types[0].queues->ops;
}

/* Every call of the model comes by here. */
static void step(struct umdev_device *dev)
{
	if (!dev->kill_in || --dev->kill_in)
		return;
	dev->killed = true;
	longjmp(dev->out, 1);
}

/* ---- guest memory ---- */

static bool is_ram(uint64_t iova, uint64_t len)
{
	return iova >= RIG_IOVA && iova - RIG_IOVA <= RIG_RAM && len <= RIG_RAM - (iova - RIG_IOVA);
}

static int copy_from(struct umdev_device *dev, uint64_t iova, void *to, size_t len)
{
	if (!is_ram(iova, len))
		return -EFAULT;
	memcpy(to, rig_at(dev, iova), len);
	return 0;
}

static int copy_to(struct umdev_device *dev, uint64_t iova, const void *from, size_t len)
{
	if (!is_ram(iova, len))
		return -EFAULT;
	memcpy(rig_at(dev, iova), from, len);
	return 0;
}

int umdev_dma_read(struct umdev_device *dev, struct iova from, void *to, size_t len)
{
	assert(dev->in_hook);
	step(dev);
	return copy_from(dev, from.v, to, len);
}

int umdev_dma_write(struct umdev_device *dev, struct iova to, const void *from, size_t len)
{
	assert(dev->in_hook);
	step(dev);
	if (!is_ram(to.v, len) && len)
		return -EFAULT;
	if (!len)
		return 0;
	assert(dev->n_writes < 8 && len <= sizeof(dev->write_data) - dev->write_len);
	dev->write[dev->n_writes].iova = to.v;
	dev->write[dev->n_writes++].len = (uint32_t)len;
	memcpy(dev->write_data + dev->write_len, from, len);
	dev->write_len += (unsigned)len;
	assert(dev->write_len <= UMDEV_DMA_REDO_MAX);
	return 0;
}

/* ---- the device ---- */

void *umdev_state(struct umdev_device *dev)
{
	return &dev->half[dev->in_hook ? !dev->cur : dev->cur];
}

void *umdev_priv(struct umdev_device *dev)
{
	return &dev->priv;
}

const struct umdev_value *umdev_param(const struct umdev_device *dev, const char *name)
{
	if (!strcmp(name, "aggregation"))
		return &dev->aggregation;
	if (!strcmp(name, "blk_size"))
		return &dev->blk_size;
	if (!strcmp(name, "doorbells"))
		return &dev->doorbells;
	return !strcmp(name, "serial") ? &dev->serial : NULL;
}

const uint8_t *umdev_uuid(const struct umdev_device *dev)
{
	return (const uint8_t *)"0123456789abcdef";
}

void umdev_log(struct umdev_device *dev, const char *format, ...)
{
	dev->log_lines++;
}

void umdev_work_soon(struct umdev_device *dev)
{
	step(dev);
	dev->work_asked = true;
}

void umdev_intx_set(struct umdev_device *dev, bool asserted)
{
	step(dev);
	dev->intx = asserted;
}

bool umdev_msi_enabled(const struct umdev_device *dev)
{
	return dev->msi;
}

void umdev_irq_raise(struct umdev_device *dev, unsigned vector)
{
	assert(vector < NVME_VECTORS);
	step(dev);
	dev->irqs++;
}

/* ---- media ---- */

int umdev_media_find(const struct umdev_device *dev, const char *name)
{
	return strcmp(name, "ns1") ? -ENOENT : 0;
}

uint64_t umdev_media_size(const struct umdev_device *dev, unsigned medium)
{
	return RIG_DISK;
}

bool umdev_media_is_writable(const struct umdev_device *dev, unsigned medium)
{
	return true;
}

int umdev_media_submit(struct umdev_device *dev, unsigned medium, enum umdev_media_op op,
		       uint64_t offset, const struct umdev_seg *segs, unsigned n_segs, uint32_t tag)
{
	assert(op == UMDEV_MEDIA_FLUSH && medium == 0);
	step(dev);
	dev->flushes_asked++;
	dev->flush_tag = tag;
	return 0;
}

/* ---- queues, from the device ---- */

int umdev_queue_start(struct umdev_device *dev, unsigned index, enum umdev_queue_start how,
		      const void *config, size_t len)
{
	assert(index < NVME_PAIRS && len <= UMDEV_QUEUE_CONFIG_MAX && dev->in_hook);
	step(dev);
	if (dev->queue[index].order != RIG_STOPPED && dev->ask[index].order != 1 + RIG_STOPPED)
		return -EBUSY;
	dev->ask[index].order = 1 + RIG_RUNNING;
	dev->ask[index].keep = how == UMDEV_QUEUE_KEEP;
	memset(dev->ask[index].config, 0, UMDEV_QUEUE_CONFIG_MAX);
	memcpy(dev->ask[index].config, config, len);
	return 0;
}

int umdev_queue_stop(struct umdev_device *dev, unsigned index, enum umdev_queue_stop how)
{
	struct umdev_queue *q = &dev->queue[index];

	assert(index < NVME_PAIRS && dev->in_hook);
	step(dev);
	if (q->order == RIG_STOPPED)
		return -EINVAL;
	if (how == UMDEV_QUEUE_DROP || q->order == RIG_RUNNING)
		dev->ask[index].order = 1 + (how == UMDEV_QUEUE_DROP ? RIG_DROPPING : RIG_DRAINING);
	return 0;
}

void umdev_queue_kick(struct umdev_device *dev, unsigned index)
{
	assert(index < NVME_PAIRS);
}

const void *umdev_queue_peek(const struct umdev_device *dev, unsigned index)
{
	assert(index < NVME_PAIRS);
	return &dev->queue[index].state;
}

void umdev_doorbell_set(struct umdev_device *dev, unsigned word, uint32_t value)
{
	assert(word < NVME_DOORBELL_WORDS);
	step(dev);
	dev->doorbell[word] = value;
}

/* ---- transactions ---- */

static void begin(struct umdev_device *dev)
{
	dev->half[!dev->cur] = dev->half[dev->cur];
	dev->work_asked = false;
	dev->n_writes = dev->write_len = dev->flushes_asked = 0;
	memset(dev->ask, 0, sizeof(dev->ask));
	dev->in_hook = true;
}

static void follow(struct umdev_device *dev, unsigned i)
{
	struct umdev_queue *q = &dev->queue[i];

	if (!dev->ask[i].order)
		return;
	q->order = dev->ask[i].order - 1;
	if (q->order == RIG_STOPPED)
		q->begun = false;
	if (q->order != RIG_RUNNING)
		return;
	memcpy(q->config, dev->ask[i].config, sizeof(q->config));
	if (!dev->ask[i].keep)
		memset(&q->state, 0, sizeof(q->state));
	q->begun = false;
	q->fresh = true;
}

static void commit(struct umdev_device *dev)
{
	const uint8_t *data = dev->write_data;

	dev->in_hook = false;
	dev->cur = !dev->cur;
	for (unsigned i = 0; i < dev->n_writes; i++) {
		copy_to(dev, dev->write[i].iova, data, dev->write[i].len);
		data += dev->write[i].len;
	}
	for (unsigned i = 0; i < NVME_PAIRS; i++)
		follow(dev, i);
	dev->flushes += dev->flushes_asked;
	dev->work |= dev->work_asked;
}

void rig_reset(struct umdev_device *dev, enum umdev_reset why)
{
	for (unsigned i = 0; i < NVME_PAIRS; i++) {
		dev->queue[i].order = RIG_STOPPED;
		dev->queue[i].begun = false;
		dev->queue[i].in_flight = 0;
		dev->queue[i].events = 0;
	}
	dev->n_requests = dev->flushes = 0;
	dev->work = false;
	if (setjmp(dev->out))
		rig_restart(dev);
	begin(dev);
	ops()->reset(dev, why);
	commit(dev);
}

void rig_change(struct umdev_device *dev, const char *name, enum umdev_resource_change change)
{
	if (setjmp(dev->out))
		rig_restart(dev);
	begin(dev);
	ops()->resource(dev, name, change);
	commit(dev);
}

void rig_init(struct umdev_device *dev)
{
	dev->aggregation.u64 = 8;
	dev->blk_size.u64 = 512;
	for (unsigned i = 0; i < NVME_PAIRS; i++) {
		dev->queue[i].dev = dev;
		dev->queue[i].index = i;
	}
	begin(dev);
	assert(ops()->init(dev, UMDEV_FRESH) == 0);
	commit(dev);
}

uint32_t rig_get(struct umdev_device *dev, uint64_t reg)
{
	return (uint32_t)ops()->bar_read(dev, 0, reg, 4);
}

/* A request of the client is executed again by the next life when it was not committed. */
void rig_set(struct umdev_device *dev, uint64_t reg, uint32_t value)
{
	if (setjmp(dev->out))
		rig_restart(dev);
	begin(dev);
	ops()->bar_write(dev, 0, reg, 4, value);
	commit(dev);
}

/* ---- queues, from their runner ---- */

unsigned umdev_queue_index(const struct umdev_queue *q)
{
	return q->index;
}

const struct umdev_device *umdev_queue_device(const struct umdev_queue *q)
{
	return q->dev;
}

const void *umdev_queue_config(const struct umdev_queue *q)
{
	return q->config;
}

void *umdev_queue_state(struct umdev_queue *q)
{
	return &q->state;
}

void *umdev_queue_priv(struct umdev_queue *q)
{
	return &q->priv;
}

uint32_t umdev_queue_doorbell(const struct umdev_queue *q, unsigned word)
{
	assert(word < NVME_DOORBELL_WORDS);
	step(q->dev);
	return q->dev->doorbell[word];
}

/* Where in guest memory a piece of a window is. */
static uint64_t in_window(struct umdev_queue *q, const struct umdev_window *w, uint64_t offset,
			  size_t len)
{
	assert(offset <= w->len && len <= w->len - offset);
	step(q->dev);
	return w->iova.v + offset;
}

int umdev_window_read(struct umdev_queue *q, struct umdev_window *w, uint64_t offset, void *to,
		      size_t len)
{
	return copy_from(q->dev, in_window(q, w, offset, len), to, len);
}

int umdev_window_write(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
		       const void *from, size_t len)
{
	assert(w->write);
	return copy_to(q->dev, in_window(q, w, offset, len), from, len);
}

int umdev_window_load32(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			uint32_t *ret)
{
	return copy_from(q->dev, in_window(q, w, offset, sizeof(*ret)), ret, sizeof(*ret));
}

int umdev_window_store32(struct umdev_queue *q, struct umdev_window *w, uint64_t offset,
			 uint32_t value)
{
	assert(w->write);
	return copy_to(q->dev, in_window(q, w, offset, sizeof(value)), &value, sizeof(value));
}

void umdev_queue_barrier(void)
{
}

int umdev_queue_read(struct umdev_queue *q, struct iova from, void *to, size_t len)
{
	step(q->dev);
	return copy_from(q->dev, from.v, to, len);
}

void umdev_queue_irq(struct umdev_queue *q, unsigned vector)
{
	assert(vector < NVME_VECTORS);
	q->dev->irqs++;
}

void umdev_queue_event(struct umdev_queue *q, uint32_t bits)
{
	q->events |= bits;
	step(q->dev);
}

static bool segs_are_ram(const struct umdev_seg *segs, unsigned n, uint64_t len)
{
	for (unsigned i = 0; i < n; i++) {
		if (!is_ram(segs[i].addr.v, segs[i].len))
			return false;
		len -= segs[i].len;
	}
	assert(!len); /* the segments are those of the transfer, to the byte */
	return true;
}

int umdev_queue_submit(struct umdev_queue *q, unsigned medium, enum umdev_media_op op,
		       uint64_t offset, uint64_t len, const struct umdev_seg *segs, unsigned n_segs,
		       unsigned flags, uint32_t tag)
{
	struct umdev_device *dev = q->dev;
	struct rig_request *rq = &dev->request[dev->n_requests];
	bool moves = op == UMDEV_MEDIA_READ || op == UMDEV_MEDIA_WRITE;

	assert(medium == 0 && offset <= RIG_DISK && len <= RIG_DISK - offset);
	assert(n_segs <= UMDEV_QUEUE_SEGS && tag < NVME_SLOTS && moves == (n_segs > 0));
	step(dev);
	if (moves && !segs_are_ram(segs, n_segs, len))
		return -EFAULT;
	assert(dev->n_requests < RIG_REQUESTS && q->in_flight < NVME_SLOTS);
	*rq = (struct rig_request){ q, op, offset, len, n_segs, tag, { { { 0 }, 0 } } };
	if (n_segs)
		memcpy(rq->segs, segs, n_segs * sizeof(*segs));
	dev->n_requests++;
	q->in_flight++;
	return 0;
}

static void carry_out(struct umdev_device *dev, const struct rig_request *rq)
{
	uint64_t at = rq->offset;

	if (rq->op == UMDEV_MEDIA_WRITE_ZEROES || rq->op == UMDEV_MEDIA_DISCARD)
		memset(dev->disk + at, 0, rq->len);
	for (unsigned i = 0; i < rq->n_segs; i++) {
		if (rq->op == UMDEV_MEDIA_READ)
			memcpy(rig_at(dev, rq->segs[i].addr.v), dev->disk + at, rq->segs[i].len);
		else
			memcpy(dev->disk + at, rig_at(dev, rq->segs[i].addr.v), rq->segs[i].len);
		at += rq->segs[i].len;
	}
}

/* The oldest request ends; requests of queues that were told to drop end untold. */
static void end_one(struct umdev_device *dev)
{
	struct rig_request rq = dev->request[0];
	int status = -dev->fail;

	dev->fail = 0;
	if (status == 0)
		carry_out(dev, &rq);
	memmove(dev->request, dev->request + 1, --dev->n_requests * sizeof(rq));
	rq.q->in_flight--;
	if (rq.q->order != RIG_DROPPING)
		queue_ops()->done(rq.q, rq.tag, status);
}

void rig_restart(struct umdev_device *dev)
{
	/* What was in flight may have been done before the fence: it is, here. */
	for (unsigned i = 0; i < dev->n_requests; i++)
		carry_out(dev, &dev->request[i]);
	dev->n_requests = 0;
	dev->in_hook = false;
	dev->killed = false;
	dev->kill_in = 0;
	memset(&dev->priv, 0, sizeof(dev->priv));
	for (unsigned i = 0; i < NVME_PAIRS; i++) {
		dev->queue[i].begun = false;
		dev->queue[i].in_flight = 0;
		memset(&dev->queue[i].priv, 0, sizeof(dev->queue[i].priv));
	}
	begin(dev);
	assert(ops()->init(dev, UMDEV_RESUME) == 0);
	dev->in_hook = false;
}

static void start(struct umdev_device *dev, struct umdev_queue *q)
{
	enum umdev_init how = q->fresh ? UMDEV_FRESH : UMDEV_RESUME;

	q->fresh = false;
	q->begun = true;
	if (queue_ops()->start(q, how) < 0)
		q->events |= UMDEV_QUEUE_BROKEN;
}

static bool run_queue(struct umdev_device *dev, struct umdev_queue *q)
{
	if (q->order == RIG_STOPPED)
		return false;
	if (q->order == RIG_RUNNING || q->order == RIG_DRAINING) {
		if (!q->begun) {
			start(dev, q);
			return true;
		}
		if (q->events & UMDEV_QUEUE_BROKEN)
			return false;
		if (q->order == RIG_RUNNING)
			return queue_ops()->poll(q) || queue_ops()->arm(q);
	}
	return false;
}

static bool attend(struct umdev_device *dev, struct umdev_queue *q)
{
	uint32_t bits = q->events;

	if (bits) {
		begin(dev);
		ops()->queue_event(dev, q->index, bits);
		commit(dev);
		q->events &= ~bits;
		return true;
	}
	if ((q->order != RIG_DRAINING && q->order != RIG_DROPPING) || q->in_flight)
		return false;
	begin(dev);
	dev->ask[q->index].order = 1 + RIG_STOPPED;
	ops()->queue_stopped(dev, q->index);
	commit(dev);
	return true;
}

static bool settle_once(struct umdev_device *dev)
{
	bool any = false;

	if (dev->work) {
		begin(dev);
		ops()->work(dev);
		dev->work = false;
		commit(dev);
		any = true;
	}
	for (unsigned i = 0; i < NVME_PAIRS; i++) {
		any = run_queue(dev, &dev->queue[i]) || any;
		any = attend(dev, &dev->queue[i]) || any;
	}
	if (dev->n_requests && !dev->busy_media) {
		end_one(dev);
		any = true;
	}
	if (dev->flushes) {
		begin(dev);
		ops()->media_done(dev, dev->flush_tag, 0);
		dev->flushes--;
		commit(dev);
		any = true;
	}
	return any;
}

void rig_settle(struct umdev_device *dev)
{
	dev->rounds = 0;
	if (setjmp(dev->out))
		rig_restart(dev);
	while (settle_once(dev))
		assert(++dev->rounds < 100000); /* nothing goes round for ever */
}

void rig_enable(struct umdev_device *dev, uint64_t sq, uint64_t cq, unsigned entries)
{
	rig_set(dev, NVME_AQA, (entries - 1) << 16 | (entries - 1));
	rig_set(dev, NVME_ASQ, (uint32_t)sq);
	rig_set(dev, NVME_ASQ + 4, (uint32_t)(sq >> 32));
	rig_set(dev, NVME_ACQ, (uint32_t)cq);
	rig_set(dev, NVME_ACQ + 4, (uint32_t)(cq >> 32));
	rig_set(dev, NVME_CC, NVME_CC_EN | 6 << 16 | 4 << 20);
	rig_settle(dev);
}
