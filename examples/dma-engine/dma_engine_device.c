/* SPDX-License-Identifier: MIT */
/*
 * The device half. A command is a fetch and a store, each of which is done at once when the address
 * leads to memory that we can reach, and else by asking the client: then the device is busy until
 * engine_dma_done is called. What a command needs meanwhile is in the state, so it may begin in one
 * process and end in the next.
 */
#include <errno.h>
#include <string.h>
#include <umdev/device.h>
#include <umdev/dma.h>
#include <umdev/vfio.h>
#include "dma_engine.h"

#define BAR_REGS 0
#define BAR_MEMORY 2
#define BAR_MSIX 4

/* Tags of messages: which half of the command the client was asked for. */
enum { FETCH, STORE };

struct engine_state {
	uint64_t source, target;
	uint32_t length, command, status, ended;
	uint32_t limit;  /* a copy, so that a change commits with what the guest sees of it */
	uint32_t moving; /* bytes of the command under way: LENGTH may be written meanwhile */
	uint32_t peers;
};

/* Bytes between a fetch and a store of one hook. Nobody relies on it between two hooks. */
struct engine_priv {
	uint8_t buffer[ENGINE_MAX_TRANSFER];
};

/* ---- commands ---- */

static void end(struct umdev_device *dev, int r)
{
	struct engine_state *s = umdev_state(dev);

	s->status = (uint32_t)-r;
	s->ended++;
	umdev_irq_raise(dev, r ? ENGINE_VECTOR_FAILED : ENGINE_VECTOR_DONE);
}

/* Where [offset, + len) of our memory is. The guest chose both: NULL when it is outside. */
static uint8_t *memory_at(struct umdev_device *dev, uint64_t offset, uint32_t len)
{
	if (offset > ENGINE_MEMORY || len > ENGINE_MEMORY - offset)
		return NULL;
	return (uint8_t *)umdev_bar_mem(dev, BAR_MEMORY) + offset;
}

/* 0: done. 1: engine_dma_done comes later. */
static int store(struct umdev_device *dev, const void *data)
{
	struct engine_state *s = umdev_state(dev);
	struct iova target = { s->target };
	uint8_t *own;
	int r;

	if (s->command == ENGINE_LOAD) {
		own = memory_at(dev, s->target, s->moving);
		if (!own)
			return -EFAULT;
		memcpy(own, data, s->moving);
		return 0;
	}
	r = umdev_dma_write(dev, target, data, s->moving);
	if (r != -EREMOTE)
		return r;
	r = umdev_dma_message(dev, target, data, s->moving, STORE);
	return r ? r : 1;
}

static int fetch(struct umdev_device *dev, const void **ret)
{
	struct engine_state *s = umdev_state(dev);
	struct engine_priv *priv = umdev_priv(dev);
	struct iova source = { s->source };
	int r;

	if (s->command == ENGINE_STORE) {
		*ret = memory_at(dev, s->source, s->moving);
		return *ret ? 0 : -EFAULT;
	}
	*ret = priv->buffer;
	r = umdev_dma_read(dev, source, priv->buffer, s->moving);
	if (r != -EREMOTE)
		return r;
	r = umdev_dma_message(dev, source, NULL, s->moving, FETCH);
	return r ? r : 1;
}

static void start(struct umdev_device *dev, uint32_t command)
{
	struct engine_state *s = umdev_state(dev);
	const void *data;
	int r;

	if (s->status == ENGINE_BUSY)
		return;
	s->command = command;
	s->moving = s->length;
	if (command < ENGINE_LOAD || command > ENGINE_COPY || !s->length || s->length > s->limit) {
		end(dev, -EINVAL);
		return;
	}
	r = fetch(dev, &data);
	if (r == 0)
		r = store(dev, data);
	if (r == 1)
		s->status = ENGINE_BUSY;
	else
		end(dev, r);
}

static void engine_dma_done(struct umdev_device *dev, uint32_t tag, int status, const void *data,
			    size_t len)
{
	if (status == 0 && tag == FETCH)
		status = store(dev, data);
	if (status != 1)
		end(dev, status);
}

/* ---- registers ---- */

static uint64_t engine_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	const struct engine_state *s = umdev_state(dev);

	if (bar != BAR_REGS)
		return 0;
	switch (offset) {
	case ENGINE_LIMIT:
		return s->limit;
	case ENGINE_LENGTH:
		return s->length;
	case ENGINE_SOURCE:
		return s->source;
	case ENGINE_TARGET:
		return s->target;
	case ENGINE_COMMAND:
		return s->command;
	case ENGINE_STATUS:
		return s->status;
	case ENGINE_ENDED:
		return s->ended;
	case ENGINE_PEERS:
		return s->peers;
	}
	return 0;
}

static void engine_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			 uint64_t value)
{
	struct engine_state *s = umdev_state(dev);

	if (bar != BAR_REGS || s->status == ENGINE_BUSY)
		return;
	switch (offset) {
	case ENGINE_LENGTH:
		s->length = (uint32_t)value;
		break;
	case ENGINE_SOURCE:
		s->source = value;
		break;
	case ENGINE_TARGET:
		s->target = value;
		break;
	case ENGINE_COMMAND:
		start(dev, (uint32_t)value);
		break;
	}
}

/* ---- life ---- */

static void power_on(struct umdev_device *dev)
{
	struct engine_state *s = umdev_state(dev);

	/* Who is in the group does not depend on a reset. */
	*s = (struct engine_state){
		.limit = (uint32_t)umdev_param(dev, "max_transfer")->u64,
		.peers = s->peers,
	};
}

static int engine_init(struct umdev_device *dev, enum umdev_init how)
{
	const struct engine_state *s = umdev_state(dev);

	if (how == UMDEV_FRESH)
		power_on(dev);
	/* Whoever had taken over the process before us may have left anything here. */
	if (s->limit > ENGINE_MAX_TRANSFER || s->moving > ENGINE_MAX_TRANSFER)
		return -EUCLEAN;
	return 0;
}

static void engine_reset(struct umdev_device *dev, enum umdev_reset why)
{
	power_on(dev);
}

static void engine_group_open(struct umdev_device *dev)
{
	struct engine_state *s = umdev_state(dev);

	s->peers = 0;
	for (unsigned i = 0; i < umdev_group_size(dev); i++)
		if (umdev_device_type(umdev_group_member(dev, i)) == umdev_device_type(dev))
			s->peers++;
}

static void engine_group_close(struct umdev_device *dev)
{
	((struct engine_state *)umdev_state(dev))->peers = 0;
}

static int engine_param_set(struct umdev_device *dev, const struct umdev_param *param,
			    const struct umdev_value *value)
{
	struct engine_state *s = umdev_state(dev);

	if (s->status == ENGINE_BUSY)
		return -EBUSY;
	s->limit = (uint32_t)value->u64; /* the only parameter that is live */
	return 0;
}

static const struct umdev_device_ops ops = {
	.init = engine_init,
	.reset = engine_reset,
	.bar_read = engine_read,
	.bar_write = engine_write,
	.dma_done = engine_dma_done,
	.group_open = engine_group_open,
	.group_close = engine_group_close,
	.param_set = engine_param_set,
};

static const struct umdev_pci pci = {
	.vendor = 0x1234, /* assigned to nobody */
	.device = 0xe002,
	.class_code = 0x088000, /* a system peripheral like no other */
	.express = true,
	.msix = ENGINE_VECTORS,
	.msix_bar = BAR_MSIX,
	.msix_table = 0,
	.msix_pba = 2048,
	.bar = { [BAR_REGS] = { .size = 4096 },
		 [BAR_MEMORY] = { .size = ENGINE_MEMORY,
				  .flags = UMDEV_BAR_64 | UMDEV_BAR_PREF | UMDEV_BAR_MMAP },
		 [BAR_MSIX] = { .size = 4096 } },
};

static const struct umdev_device_type types[] = {
	{
		.name = "1",
		.ops = &ops,
		.pci = &pci,
		.state_size = sizeof(struct engine_state),
		.state_version = 2,
		.priv_size = sizeof(struct engine_priv),
	},
	{ .name = NULL },
};

const struct umdev_device_driver umdev_device_driver = {
	.abi = UMDEV_ABI,
	.name = "dma-engine",
	.types = types,
};
