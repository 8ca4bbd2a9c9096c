/* SPDX-License-Identifier: MIT */
/*
 * display, device half: video memory that the client maps, and the registers beside it. There is no
 * interrupt: the first INTx would take the map away from QEMU for good (umdev/vfio.h).
 *
 * Every change of what is shown goes to the page that viewers look at (umdev/screen.h). That is
 * right over a death: the page follows from the registers, and is written again by each life.
 */
#include <umdev/device.h>
#include <umdev/screen.h>
#include <umdev/vfio.h>
#include "display.h"
#include "display_model.h"

#define VENDOR 0x1234
#define DEVICE 0x1111
#define CLASS_DISPLAY_OTHER 0x038000
#define REVISION 2
#define SUBSYSTEM_VENDOR 0x1af4
#define SUBSYSTEM 0x1100

struct display_priv {
	struct umdev_screen *screen; /* NULL: nobody can look */
	struct display_mode shown;
	uint8_t edid[DISPLAY_EDID_LEN];
};

static unsigned pixels(const struct umdev_device *dev, const char *name, unsigned otherwise)
{
	const struct umdev_value *value = umdev_param(dev, name);
	uint64_t n = value ? value->u64 : otherwise;

	return n < DISPLAY_MIN ? DISPLAY_MIN : n > DISPLAY_MAX ? DISPLAY_MAX : (unsigned)n;
}

/* The seqlock of umdev/screen.h. A life that died in between left it odd. */
static void publish(struct umdev_screen *s, const struct display_mode *mode)
{
	uint32_t turn = __atomic_load_n(&s->turn, __ATOMIC_RELAXED) | 1;

	__atomic_store_n(&s->turn, turn, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	s->magic = UMDEV_SCREEN_MAGIC;
	s->width = mode->width;
	s->height = mode->height;
	s->stride = mode->stride;
	s->big_endian = mode->big_endian;
	s->offset = mode->offset;
	__atomic_store_n(&s->turn, turn + 1, __ATOMIC_RELEASE);
}

static bool is_same(const struct display_mode *a, const struct display_mode *b)
{
	return a->width == b->width && a->height == b->height && a->stride == b->stride &&
	       a->big_endian == b->big_endian && a->offset == b->offset;
}

static void show(struct umdev_device *dev, bool always)
{
	struct display_priv *priv = umdev_priv(dev);
	struct display_mode mode;

	display_mode(umdev_state(dev), umdev_bar_size(dev, DISPLAY_BAR_VIDEO), &mode);
	if (!always && is_same(&mode, &priv->shown))
		return;
	priv->shown = mode;
	if (priv->screen)
		publish(priv->screen, &mode);
}

static uint64_t bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	struct display_priv *priv = umdev_priv(dev);
	struct display_model *m = umdev_state(dev);
	uint64_t value = display_read(m, umdev_bar_size(dev, DISPLAY_BAR_VIDEO), priv->edid, offset,
				      len);

	display_read_effect(m, offset, len);
	return value;
}

static void bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
		      uint64_t value)
{
	struct display_model *m = umdev_state(dev);
	uint8_t refused = m->refused_bpp;

	display_write(m, offset, len, value);
	if (m->refused_bpp && m->refused_bpp != refused)
		umdev_log(dev, "the guest asked for %u bits per pixel: there are 32",
			  m->refused_bpp);
	show(dev, false);
}

static void reset(struct umdev_device *dev, enum umdev_reset why)
{
	display_reset(umdev_state(dev));
	show(dev, true);
}

static int init(struct umdev_device *dev, enum umdev_init how)
{
	struct display_priv *priv = umdev_priv(dev);
	uint64_t len = 0;

	priv->screen = umdev_resource_mem(dev, UMDEV_SCREEN_MODE, &len);
	if (len < sizeof(*priv->screen))
		priv->screen = (void *)0;
	display_edid(priv->edid, pixels(dev, "xres", DISPLAY_XRES),
		     pixels(dev, "yres", DISPLAY_YRES));
	if (how == UMDEV_FRESH)
		display_reset(umdev_state(dev));
	show(dev, true);
	return 0;
}

static const struct umdev_device_ops ops = {
	.init = init,
	.reset = reset,
	.bar_read = bar_read,
	.bar_write = bar_write,
};

static const struct umdev_pci pci = {
	.vendor = VENDOR,
	.device = DEVICE,
	.subsystem_vendor = SUBSYSTEM_VENDOR,
	.subsystem = SUBSYSTEM,
	.class_code = CLASS_DISPLAY_OTHER,
	.revision = REVISION,
	.express = true,
	.bar = {
		[DISPLAY_BAR_VIDEO] = { .size = DISPLAY_VRAM_MAX,
					.flags = UMDEV_BAR_64 | UMDEV_BAR_PREF | UMDEV_BAR_MMAP },
		[DISPLAY_BAR_REGISTERS] = { .size = DISPLAY_REGISTERS },
	},
};

#define TYPE(type_name)                                                         \
	{                                                                       \
		.name = type_name, .ops = &ops, .pci = &pci,                    \
		.state_size = sizeof(struct display_model), .state_version = 1, \
		.priv_size = sizeof(struct display_priv),                       \
	}

static const struct umdev_device_type types[] = {
	TYPE("16m"),
	TYPE("32m"),
	TYPE("64m"),
	{ .name = (void *)0 },
};

const struct umdev_device_driver display_device_driver = {
	.abi = UMDEV_ABI,
	.name = "display",
	.types = types,
};
