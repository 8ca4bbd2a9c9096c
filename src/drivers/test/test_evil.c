/* SPDX-License-Identifier: MIT */
/* test, type evil: system calls to order (evil.h). */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <umdev/device.h>
#include <unistd.h>
#include "evil.h"

/* The register at this offset, or NULL: none that keeps a value. */
static void *place_of(struct evil_state *s, uint64_t offset, unsigned len)
{
	if (offset >= EVIL_BUFFER)
		return s->buffer + (offset - EVIL_BUFFER);
	if (len != sizeof(uint64_t))
		return NULL;
	if (offset >= EVIL_ARG && offset < EVIL_POINTERS)
		return &s->arg[(offset - EVIL_ARG) / sizeof(uint64_t)];
	switch (offset) {
	case EVIL_CALL:
		return &s->call;
	case EVIL_POINTERS:
		return &s->pointers;
	case EVIL_RESULT:
		return &s->result;
	default:
		return NULL;
	}
}

static uint64_t argument(const struct evil_state *s, struct evil_priv *priv, unsigned i)
{
	if (s->pointers >> i & 1)
		return (uint64_t)(uintptr_t)(priv->buffer + s->arg[i] % EVIL_BUFFER_SIZE);
	return s->arg[i];
}

static void go(struct evil_state *s, struct evil_priv *priv)
{
	uint64_t arg[EVIL_ARGS];
	long r;

	for (unsigned i = 0; i < EVIL_ARGS; i++)
		arg[i] = argument(s, priv, i);
	memcpy(priv->buffer, s->buffer, sizeof(priv->buffer));
	r = syscall((long)s->call, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	s->result = (uint64_t)(r == -1 ? -errno : r);
	memcpy(s->buffer, priv->buffer, sizeof(s->buffer));
}

static uint64_t evil_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	struct evil_priv *priv = umdev_priv(dev);
	const void *place = place_of(umdev_state(dev), offset, len);
	uint64_t value = 0;

	if (place)
		memcpy(&value, place, len);
	else if (offset == EVIL_ADDRESS && len == sizeof(value))
		value = (uint64_t)(uintptr_t)priv->buffer;
	return value;
}

static void evil_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
		       uint64_t value)
{
	void *place = place_of(umdev_state(dev), offset, len);

	if (place)
		memcpy(place, &value, len);
	else if (offset == EVIL_GO)
		go(umdev_state(dev), umdev_priv(dev));
}

static void evil_reset(struct umdev_device *dev, enum umdev_reset why)
{
	*(struct evil_state *)umdev_state(dev) = (struct evil_state){ 0 };
}

static int evil_init(struct umdev_device *dev, enum umdev_init how)
{
	return 0; /* a fresh state is zero, an inherited one is whatever it is */
}

const struct umdev_device_ops evil_ops = {
	.init = evil_init,
	.reset = evil_reset,
	.bar_read = evil_read,
	.bar_write = evil_write,
};
