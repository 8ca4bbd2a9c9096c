// SPDX-License-Identifier: MIT
/*
 * The requests of one device: the list that survives (struct device_request) and what they are in
 * this life (struct media_io). A request that is in the list has its memory pinned, in every life,
 * from the commit that asked for it to the one that tells its end.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/range.h"
#include "media/internal.h"

/* Held by a request without memory, so that who waits for all requests waits for it too. */
#define NO_ADDRESS UINT64_MAX

static unsigned n_requests(const struct umdev_device *dev)
{
	return dev->type->media_requests;
}

static struct umdev_seg *segs_of(const struct umdev_device *dev, unsigned index)
{
	return dev->segs + (size_t)index * UMDEV_MEDIA_SEGS;
}

/* Its bytes, or -EINVAL: no request that a device may have. */
static int64_t judge(const struct umdev_device *dev, const struct device_request *r,
		     const struct umdev_seg *segs)
{
	const struct device_medium *medium = &dev->media_list[r->medium];
	uint64_t len = 0;

	if (r->medium >= dev->n_media || !*medium->name || r->op < UMDEV_MEDIA_READ ||
	    r->op > UMDEV_MEDIA_FLUSH || (r->op == UMDEV_MEDIA_FLUSH) != (r->n_segs == 0) ||
	    r->n_segs > UMDEV_MEDIA_SEGS)
		return -EINVAL;
	for (unsigned i = 0; i < r->n_segs; i++) {
		if (!segs[i].len || segs[i].len > INT32_MAX - len ||
		    !range_is_sane(segs[i].addr.v, segs[i].len))
			return -EINVAL;
		len += segs[i].len;
	}
	return range_fits(r->offset, len, medium->length) ? (int64_t)len : -EINVAL;
}

/* ---- in a transaction ---- */

int media_submit(struct umdev_device *dev, unsigned medium, enum umdev_media_op op, uint64_t offset,
		 const struct umdev_seg *segs, unsigned n_segs, uint32_t tag)
{
	struct device_request *list = device_requests(dev, dev->half), *r = NULL;
	struct device_request wanted = { .offset = offset, .tag = tag };
	unsigned i;

	if (medium >= dev->n_media || !*dev->media_list[medium].name ||
	    dev->media_list[medium].leaves)
		return -ENODEV;
	if (n_segs > UMDEV_MEDIA_SEGS)
		return -EINVAL;
	wanted.op = (uint8_t)op;
	wanted.medium = (uint8_t)medium;
	wanted.n_segs = (uint8_t)n_segs;
	if (judge(dev, &wanted, segs) < 0)
		return -EINVAL;
	if (op == UMDEV_MEDIA_WRITE && !dev->media_list[medium].writable)
		return -EROFS;
	/* One that this transaction freed still is in the current half, with its segments. */
	for (i = 0; i < n_requests(dev) && !r; i++) {
		if (!list[i].op && dev->media->io[i].state == MEDIA_IO_FREE)
			r = &list[i];
	}
	if (!r)
		return -EBUSY;
	*r = wanted;
	if (n_segs)
		memcpy(segs_of(dev, (unsigned)(r - list)), segs, n_segs * sizeof(*segs));
	dev->media->asked = true;
	return 0;
}

void media_reset(struct umdev_device *dev)
{
	struct device_request *list = device_requests(dev, dev->half);

	for (unsigned i = 0; i < n_requests(dev); i++) {
		if (!list[i].op)
			continue;
		/* Asked for in this very transaction: nobody knows it yet. */
		if (dev->media->io[i].state == MEDIA_IO_FREE)
			list[i] = (struct device_request){ 0 };
		else
			list[i].dropped = 1;
	}
}

static void end_request(struct umdev_device *dev, struct media_io *io)
{
	struct device_request *r = device_requests(dev, dev->half) + io->index;
	uint32_t tag = r->tag;
	bool wanted = !r->dropped;

	*r = (struct device_request){ 0 };
	list_remove(&io->node);
	list_append(&io->media->ending, &io->node);
	if (wanted)
		dev->type->ops->media_done(dev, tag, io->status);
}

static int end_requests(struct umdev_device *dev, void *arg)
{
	struct media *m = dev->media;
	struct list_node *ended = arg;
	struct media_io *io = list_first(ended, struct media_io, node);

	do {
		end_request(dev, io);
		io = list_first(ended, struct media_io, node);
	} while (io && io->media == m && m->host->has_room(dev));
	return 0;
}

/* ---- in a life ---- */

static void pin(struct media_io *io, unsigned n, const struct umdev_seg *segs)
{
	struct dma_table *dma = io->media->dma;

	if (!n)
		dma_pin(dma, NULL, &io->pin[io->n_pins++], NO_ADDRESS, 1);
	for (unsigned i = 0; i < n; i++)
		dma_pin(dma, NULL, &io->pin[io->n_pins++], segs[i].addr.v, segs[i].len);
}

static void unpin(struct media_io *io)
{
	while (io->n_pins)
		dma_unpin(io->media->dma, NULL, &io->pin[--io->n_pins]);
}

/* Where the memory of a request is in this life. */
static int resolve(struct media_io *io, const struct device_request *r,
		   const struct umdev_seg *segs)
{
	struct media_call *call = &io->call;
	unsigned prot = r->op == UMDEV_MEDIA_READ ? DMA_WRITE : DMA_READ;
	struct dma_seg host[MEDIA_IOVS];

	for (unsigned i = 0; i < r->n_segs; i++) {
		int n = dma_resolve(io->media->dma, segs[i].addr, segs[i].len, prot, host,
				    MEDIA_IOVS - call->n_iov);

		if (n < 0)
			return n;
		for (int k = 0; k < n; k++)
			io->iov[call->n_iov++] = (struct iovec){ host[k].hva, host[k].len };
	}
	return 0;
}

static void start(struct media_io *io)
{
	struct umdev_device *dev = io->media->dev;
	const struct device_request *r = device_requests(dev, dev->half) + io->index;
	const struct umdev_seg *segs = segs_of(dev, io->index);
	int64_t len = judge(dev, r, segs);
	int error;

	io->call = (struct media_call){ .op = r->op,
					.medium = &dev->media_list[r->medium],
					.left = len > 0 ? len : 0,
					.iov = io->iov };
	io->call.at = io->call.medium->offset + r->offset;
	media_call_init(&io->call);
	error = r->dropped ? -ECANCELED : resolve(io, r, segs);
	if (error < 0)
		engine_end(dev->engine, io, error);
	else
		engine_queue(dev->engine, io);
}

static void take_up(struct media *m, unsigned index)
{
	struct device_request *r = device_requests(m->dev, m->dev->half) + index;
	struct media_io *io = &m->io[index];

	io->state = MEDIA_IO_WAITING;
	pin(io, r->n_segs, segs_of(m->dev, index));
	if (media_engine_is_open(m->dev->engine))
		start(io);
}

void media_kick(struct umdev_device *dev)
{
	const struct device_request *list;
	struct media_io *ended;

	if (!dev->media)
		return;
	while ((ended = list_first(&dev->media->ending, struct media_io, node))) {
		list_remove(&ended->node);
		unpin(ended);
		ended->state = MEDIA_IO_FREE;
		if (ended->call.medium && ended->call.medium->leaves)
			dev->medium_leaves(dev);
	}
	if (!dev->media->asked)
		return;
	dev->media->asked = false;
	list = device_requests(dev, dev->half);
	for (unsigned i = 0; i < n_requests(dev); i++) {
		if (list[i].op && dev->media->io[i].state == MEDIA_IO_FREE)
			take_up(dev->media, i);
	}
}

void media_open(struct media *m)
{
	for (unsigned i = 0; i < n_requests(m->dev); i++) {
		if (m->io[i].state == MEDIA_IO_WAITING)
			start(&m->io[i]);
	}
}

void media_tell_ends(struct list_node *ended)
{
	struct media *m = list_first(ended, struct media_io, node)->media;

	m->host->run(m->dev, end_requests, ended);
}

bool media_is_idle(const struct umdev_device *dev, unsigned medium)
{
	const struct device_request *list = device_requests(dev, dev->half);

	for (unsigned i = 0; i < n_requests(dev); i++) {
		/* The one that ends is still ENDED in the hook of its end. */
		if (list[i].op && list[i].medium == medium)
			return false;
	}
	return true;
}

static int check_inherited(const struct umdev_device *dev)
{
	const struct device_request *list = device_requests(dev, dev->half);

	for (unsigned i = 0; i < n_requests(dev); i++) {
		if (list[i].op &&
		    (list[i].dropped > 1 || judge(dev, &list[i], segs_of(dev, i)) < 0))
			return -EUCLEAN;
	}
	return 0;
}

int media_attach(struct umdev_device *dev, struct dma_table *dma, const struct media_host *host)
{
	unsigned n = n_requests(dev);
	struct media *m;

	dev->media = NULL;
	if (!n)
		return 0;
	assert(n <= UMDEV_MEDIA_REQUESTS_MAX && dev->type->ops->media_done);
	if (!dev->engine)
		return -ENODEV;
	if (check_inherited(dev))
		return -EUCLEAN;
	m = calloc(1, sizeof(*m) + n * sizeof(m->io[0]));
	if (!m)
		return -ENOMEM;
	m->dev = dev;
	m->dma = dma;
	m->host = host;
	list_init(&m->ending);
	for (unsigned i = 0; i < n; i++) {
		m->io[i].media = m;
		m->io[i].user.ended = engine_io_ended;
		m->io[i].index = i;
	}
	dev->media = m;
	engine_add(dev->engine, m);
	m->asked = true;
	media_kick(dev);
	return 0;
}

void media_detach(struct umdev_device *dev)
{
	struct media *m = dev->media;

	if (!m)
		return;
	for (unsigned i = 0; i < n_requests(dev); i++)
		unpin(&m->io[i]);
	engine_remove(m);
	free(m);
	dev->media = NULL;
}
