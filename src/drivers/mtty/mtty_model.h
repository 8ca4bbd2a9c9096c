/* SPDX-License-Identifier: MIT */
/*
 * Registers of a 16550A. Knows no streams, interrupts lines or time: the owner moves bytes in and
 * out after each access, and asks what is pending.
 */
#ifndef MTTY_MODEL_H
#define MTTY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MTTY_FIFO 16
#define MTTY_REGISTERS 8 /* bytes that a port takes of its address space */

/* Sources of an interrupt, in order of priority. */
enum mtty_source {
	MTTY_IRQ_LINE_STATUS = 1 << 0,
	MTTY_IRQ_RX = 1 << 1,         /* trigger level reached */
	MTTY_IRQ_RX_TIMEOUT = 1 << 2, /* fewer, and no more to come for now */
	MTTY_IRQ_TX_EMPTY = 1 << 3,
	MTTY_IRQ_MODEM = 1 << 4,
};

struct mtty_queue {
	uint8_t byte[MTTY_FIFO];
	uint8_t head, n; /* head: oldest byte */
};

/* Part of the device's state: no pointers. */
struct mtty_uart {
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t lsr; /* the error bits, cleared by reading; the others are computed */
	uint8_t msr;
	uint8_t tx_irq; /* "transmitter empty" was not acknowledged yet */
	struct mtty_queue rx, tx;
};

void mtty_uart_reset(struct mtty_uart *u);
/* Is it a state that this code can leave? For inherited state. */
bool mtty_uart_is_sane(const struct mtty_uart *u);

/* reg < MTTY_REGISTERS. */
uint8_t mtty_uart_read(struct mtty_uart *u, unsigned reg);
void mtty_uart_write(struct mtty_uart *u, unsigned reg, uint8_t value);

/* Bytes that the receiver has room for. 0 while the guest does not ask for any (RTS). */
unsigned mtty_uart_rx_room(const struct mtty_uart *u);
void mtty_uart_rx(struct mtty_uart *u, const uint8_t *bytes, unsigned n); /* n <= room */
/* Bytes that wait to be sent, copied in order; then how many of them are. */
unsigned mtty_uart_tx(const struct mtty_uart *u, uint8_t ret[MTTY_FIFO]);
void mtty_uart_tx_done(struct mtty_uart *u, unsigned n);

/* Enabled sources that are pending: a set of enum mtty_source. */
unsigned mtty_uart_pending(const struct mtty_uart *u);
/* Does the port's interrupt pin reach the bus? On a PC OUT2 is the gate. */
bool mtty_uart_is_gated_on(const struct mtty_uart *u);

#endif
