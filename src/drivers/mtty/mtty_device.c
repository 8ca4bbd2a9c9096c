/* SPDX-License-Identifier: MIT */
/*
 * mtty, device half: a PCI card of one or two 16550A, each behind an I/O BAR of its own, as the
 * kernel's sample driver of that name shows it. Linux's 8250_pci knows the card by its numbers (WCH
 * CH352) and takes port n to be in BAR n, clocked for 115200 baud.
 *
 * After each access the port's bytes are moved as far as they go, then the card's interrupt says
 * what the ports have pending.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/device.h>
#include <umdev/vfio.h>
#include "mtty.h"
#include "mtty_model.h"

#define VENDOR 0x4348
#define DEVICE 0x3253
#define CLASS_SERIAL_16550 0x070002
#define REVISION 0x10 /* of the kernel's sample */

/* Port 1 of a card with one port is never touched: it has no BAR and no host end. */
struct mtty_state {
	struct mtty_uart port[MTTY_MAX_PORTS];
	uint8_t raised[MTTY_MAX_PORTS]; /* sources (enum mtty_source) that were announced */
};

struct mtty_priv {
	int stream[MTTY_MAX_PORTS]; /* negative: the port has no host end */
};

/* Bytes out, bytes in. A port without a host end sends into nothing. */
static void port_move(struct umdev_device *dev, unsigned port)
{
	struct mtty_uart *u = &((struct mtty_state *)umdev_state(dev))->port[port];
	int stream = ((struct mtty_priv *)umdev_priv(dev))->stream[port];
	uint8_t bytes[MTTY_FIFO];
	unsigned n = mtty_uart_tx(u, bytes);

	if (stream < 0) {
		mtty_uart_tx_done(u, n);
		return;
	}
	if (n)
		mtty_uart_tx_done(u, umdev_stream_write(dev, stream, bytes, n));
	n = mtty_uart_rx_room(u);
	if (n)
		mtty_uart_rx(u, bytes, umdev_stream_read(dev, stream, bytes, n));
}

static void card_interrupt(struct umdev_device *dev)
{
	struct mtty_state *state = umdev_state(dev);
	bool asserted = false, news = false;

	for (unsigned i = 0; i < MTTY_MAX_PORTS; i++) {
		const struct mtty_uart *u = &state->port[i];
		unsigned pending = mtty_uart_is_gated_on(u) ? mtty_uart_pending(u) : 0;

		asserted |= pending != 0;
		news |= (pending & ~state->raised[i]) != 0;
		state->raised[i] = pending;
	}
	umdev_intx_set(dev, asserted);
	if (news && umdev_msi_enabled(dev))
		umdev_irq_raise(dev, 0);
}

static uint64_t mtty_bar_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	struct mtty_state *state = umdev_state(dev);
	uint64_t value = 0;

	/* A wide access is so many narrow ones, as on an 8-bit bus. */
	for (unsigned i = 0; i < len; i++) {
		value |= (uint64_t)mtty_uart_read(&state->port[bar], offset + i) << 8 * i;
		port_move(dev, bar);
	}
	card_interrupt(dev);
	return value;
}

static void mtty_bar_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
			   uint64_t value)
{
	struct mtty_state *state = umdev_state(dev);

	for (unsigned i = 0; i < len; i++) {
		mtty_uart_write(&state->port[bar], offset + i, value >> 8 * i);
		port_move(dev, bar);
	}
	card_interrupt(dev);
}

static void mtty_stream(struct umdev_device *dev, unsigned stream)
{
	const struct mtty_priv *priv = umdev_priv(dev);

	for (unsigned i = 0; i < MTTY_MAX_PORTS; i++)
		if (priv->stream[i] == (int)stream)
			port_move(dev, i);
	card_interrupt(dev);
}

static void state_reset(struct mtty_state *state)
{
	for (unsigned i = 0; i < MTTY_MAX_PORTS; i++) {
		mtty_uart_reset(&state->port[i]);
		state->raised[i] = 0;
	}
}

static void mtty_reset(struct umdev_device *dev, enum umdev_reset why)
{
	state_reset(umdev_state(dev));
	card_interrupt(dev);
}

static int mtty_init(struct umdev_device *dev, enum umdev_init how)
{
	/* MTTY_STREAM_FORMAT, spelled out: a register model has no printf. */
	static const char *const names[MTTY_MAX_PORTS] = { "port0", "port1" };
	struct mtty_state *state = umdev_state(dev);
	struct mtty_priv *priv = umdev_priv(dev);

	for (unsigned i = 0; i < MTTY_MAX_PORTS; i++)
		priv->stream[i] = umdev_stream_find(dev, names[i]);
	if (how == UMDEV_FRESH)
		state_reset(state);
	/* A port in an impossible state was not left so by us: it starts over. */
	for (unsigned i = 0; i < MTTY_MAX_PORTS; i++)
		if (!mtty_uart_is_sane(&state->port[i]))
			mtty_uart_reset(&state->port[i]);
	return 0;
}

static const struct umdev_device_ops ops = {
	.init = mtty_init,
	.reset = mtty_reset,
	.bar_read = mtty_bar_read,
	.bar_write = mtty_bar_write,
	.stream = mtty_stream,
};

static const struct umdev_pci pci_1 = {
	.vendor = VENDOR,
	.device = DEVICE,
	.subsystem_vendor = VENDOR,
	.subsystem = DEVICE,
	.class_code = CLASS_SERIAL_16550,
	.revision = REVISION,
	.intx = true,
	.msi = 1,
	.bar = { { .size = MTTY_REGISTERS, .flags = UMDEV_BAR_IO },
		 { .size = MTTY_REGISTERS, .flags = UMDEV_BAR_IO, .instances = 2 } },
};

static const struct umdev_pci pci_2 = {
	.vendor = VENDOR,
	.device = DEVICE,
	.subsystem_vendor = VENDOR,
	.subsystem = DEVICE,
	.class_code = CLASS_SERIAL_16550,
	.revision = REVISION,
	.intx = true,
	.msi = 1,
	.bar = { { .size = MTTY_REGISTERS, .flags = UMDEV_BAR_IO },
		 { .size = MTTY_REGISTERS, .flags = UMDEV_BAR_IO } },
};

static const struct umdev_device_type types[] = {
	{
		.name = "1",
		.ops = &ops,
		.pci = &pci_1,
		.state_size = sizeof(struct mtty_state),
		.state_version = 1,
		.priv_size = sizeof(struct mtty_priv),
	},
	{
		.name = "2",
		.ops = &ops,
		.pci = &pci_2,
		.state_size = sizeof(struct mtty_state),
		.state_version = 1,
		.priv_size = sizeof(struct mtty_priv),
	},
	{ .name = NULL },
};

const struct umdev_device_driver mtty_device_driver = {
	.abi = UMDEV_ABI,
	.name = "mtty",
	.types = types,
};
