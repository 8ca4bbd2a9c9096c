/* SPDX-License-Identifier: MIT */
/*
 * A guest and a host that do anything to a 16550A: its state stays one that it can be in, it sends
 * and takes no more than it may, and an interrupt is named exactly when one is pending.
 * Input: pairs of bytes, an action and its value.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "drivers/mtty/mtty_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IIR 2
#define LSR 5
#define READY 0x01
#define THRE 0x20

static void check(struct mtty_uart u)
{
	unsigned pending = mtty_uart_pending(&u);
	uint8_t id, status, bytes[MTTY_FIFO];

	if (!mtty_uart_is_sane(&u))
		abort();
	status = mtty_uart_read(&u, LSR);
	if (!(status & THRE) != (mtty_uart_tx(&u, bytes) > 0))
		abort();
	if (!(status & READY) && pending & (MTTY_IRQ_RX | MTTY_IRQ_RX_TIMEOUT))
		abort();
	if (mtty_uart_rx_room(&u) > MTTY_FIFO)
		abort();
	/* Errors were read away above; what else was pending still is. */
	pending &= ~MTTY_IRQ_LINE_STATUS;
	id = mtty_uart_read(&u, IIR);
	if ((id & 1) != !pending)
		abort();
}

static void act(struct mtty_uart *u, uint8_t action, uint8_t value)
{
	uint8_t bytes[MTTY_FIFO] = { value };
	unsigned n;

	switch (action / 16 % 4) {
	case 0:
		mtty_uart_read(u, action % MTTY_REGISTERS);
		break;
	case 1:
		mtty_uart_write(u, action % MTTY_REGISTERS, value);
		break;
	case 2:
		n = mtty_uart_rx_room(u);
		mtty_uart_rx(u, bytes, value < n ? value : n);
		break;
	default:
		n = mtty_uart_tx(u, bytes);
		mtty_uart_tx_done(u, value < n ? value : n);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mtty_uart u;

	mtty_uart_reset(&u);
	for (; size >= 2; data += 2, size -= 2) {
		act(&u, data[0], data[1]);
		check(u);
	}
	return 0;
}
