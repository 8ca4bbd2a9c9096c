/* SPDX-License-Identifier: MIT */
/* The 16550A of mtty, register by register, and as drivers probe it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/mtty/mtty_model.h"

/* Names of <linux/serial_reg.h>, so that the sequences below read like the drivers they are of. */
#include <linux/serial_reg.h>
#define FCR7_64BYTE 0x20
#define IER_UUE 0x40

struct rig {
	struct mtty_uart u;
	uint8_t sent[4096]; /* what the host took */
	unsigned n_sent;
	bool stuck; /* the host takes nothing */
};

static void host_takes(struct rig *r)
{
	uint8_t bytes[MTTY_FIFO];
	unsigned n = mtty_uart_tx(&r->u, bytes);

	if (r->stuck)
		return;
	assert_true(r->n_sent + n <= sizeof(r->sent));
	memcpy(r->sent + r->n_sent, bytes, n);
	r->n_sent += n;
	mtty_uart_tx_done(&r->u, n);
}

static uint8_t in(struct rig *r, unsigned reg)
{
	uint8_t v = mtty_uart_read(&r->u, reg);

	host_takes(r);
	return v;
}

static void out(struct rig *r, unsigned reg, uint8_t v)
{
	mtty_uart_write(&r->u, reg, v);
	host_takes(r);
	assert_true(mtty_uart_is_sane(&r->u));
}

/* Up to n bytes that count up from *next, as many as the receiver takes. */
static unsigned host_gives(struct rig *r, unsigned n, uint8_t *next)
{
	uint8_t bytes[MTTY_FIFO];
	unsigned room = mtty_uart_rx_room(&r->u);

	n = n < room ? n : room;
	for (unsigned i = 0; i < n; i++)
		bytes[i] = (*next)++;
	mtty_uart_rx(&r->u, bytes, n);
	return n;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	mtty_uart_reset(&r->u);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

/* FIFOs on, the guest listens, the interrupt pin is let through. */
static void open_port(struct rig *r, uint8_t trigger)
{
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | trigger);
	out(r, UART_LCR, UART_LCR_WLEN8);
	out(r, UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
}

static void power_on_values(void **state)
{
	struct rig *r = *state;

	assert_int_equal(in(r, UART_IER), 0);
	assert_int_equal(in(r, UART_IIR), UART_IIR_NO_INT);
	assert_int_equal(in(r, UART_LCR), 0);
	assert_int_equal(in(r, UART_MCR), 0);
	assert_int_equal(in(r, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(r, UART_MSR), UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD);
	assert_true(mtty_uart_is_sane(&r->u));
	assert_false(mtty_uart_is_gated_on(&r->u));
}

static void registers_keep_the_bits_they_have(void **state)
{
	struct rig *r = *state;

	out(r, UART_IER, 0xff);
	assert_int_equal(in(r, UART_IER), 0x0f);
	out(r, UART_MCR, 0xff);
	assert_int_equal(in(r, UART_MCR), 0x1f);
	out(r, UART_MCR, 0);
	out(r, UART_SCR, 0xa5);
	assert_int_equal(in(r, UART_SCR), 0xa5);
	out(r, UART_LCR, 0x7f);
	assert_int_equal(in(r, UART_LCR), 0x7f);
	out(r, UART_LSR, 0xff);
	assert_int_equal(in(r, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	in(r, UART_MSR);
	out(r, UART_MSR, 0xff);
	assert_int_equal(in(r, UART_MSR), UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD);
}

static void the_divisor_hides_behind_dlab(void **state)
{
	struct rig *r = *state;

	out(r, UART_IER, UART_IER_RDI);
	out(r, UART_LCR, UART_LCR_DLAB);
	out(r, UART_DLL, 0x34);
	out(r, UART_DLM, 0x12);
	assert_int_equal(in(r, UART_DLL), 0x34);
	assert_int_equal(in(r, UART_DLM), 0x12);
	out(r, UART_LCR, 0);
	assert_int_equal(in(r, UART_IER), UART_IER_RDI);
	assert_int_equal(r->n_sent, 0);
	out(r, UART_LCR, UART_LCR_DLAB);
	assert_int_equal(in(r, UART_DLL), 0x34);
}

/* ---- as drivers probe it ---- */

enum found { NOTHING, NO_LOOPBACK, CHIP_8250, CHIP_16450, CHIP_16550, CHIP_16550A, OTHER };

/* How deep the FIFO is, by what loopback keeps of 256 bytes. */
static unsigned probe_fifo_size(struct rig *r)
{
	uint8_t old_lcr = in(r, UART_LCR), old_mcr, old_dll, old_dlm;
	unsigned count = 0;

	out(r, UART_LCR, 0);
	old_mcr = in(r, UART_MCR);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	out(r, UART_MCR, UART_MCR_LOOP);
	out(r, UART_LCR, UART_LCR_DLAB);
	old_dll = in(r, UART_DLL);
	old_dlm = in(r, UART_DLM);
	out(r, UART_DLL, 1);
	out(r, UART_DLM, 0);
	out(r, UART_LCR, UART_LCR_WLEN8);
	for (unsigned i = 0; i < 256; i++)
		out(r, UART_TX, i);
	while (in(r, UART_LSR) & UART_LSR_DR && count < 256) {
		assert_int_equal(in(r, UART_RX), count);
		count++;
	}
	out(r, UART_MCR, old_mcr);
	out(r, UART_LCR, UART_LCR_DLAB);
	out(r, UART_DLL, old_dll);
	out(r, UART_DLM, old_dlm);
	out(r, UART_LCR, old_lcr);
	return count;
}

static bool exists(struct rig *r)
{
	uint8_t old = in(r, UART_IER), low, high;

	out(r, UART_IER, 0);
	low = in(r, UART_IER) & 0x0f;
	out(r, UART_IER, 0x0f);
	high = in(r, UART_IER) & 0x0f;
	out(r, UART_IER, old);
	return low == 0 && high == 0x0f;
}

/* Later chips that look like a 16550A at first: enhanced features, banks, a deeper FIFO, a bit
 * more in IER. */
static bool is_more_than_16550a(struct rig *r)
{
	uint8_t mcr, id, old;

	out(r, UART_LCR, UART_LCR_CONF_MODE_A);
	if (in(r, UART_EFR) == 0)
		return true;
	out(r, UART_LCR, UART_LCR_CONF_MODE_B);
	if (in(r, UART_EFR) == 0)
		return true;
	out(r, UART_LCR, 0);
	mcr = in(r, UART_MCR);
	out(r, UART_LCR, 0xe0);
	id = in(r, 2);
	if (!((id ^ mcr) & UART_MCR_LOOP)) {
		out(r, UART_LCR, 0);
		out(r, UART_MCR, mcr ^ UART_MCR_LOOP);
		out(r, UART_LCR, 0xe0);
		id = in(r, 2);
		out(r, UART_LCR, 0);
		out(r, UART_MCR, mcr);
		if ((id ^ mcr) & UART_MCR_LOOP)
			return true;
	}
	out(r, UART_LCR, 0);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | FCR7_64BYTE);
	if (in(r, UART_IIR) >> 5 == 7)
		return true;
	out(r, UART_LCR, UART_LCR_CONF_MODE_A);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | FCR7_64BYTE);
	id = in(r, UART_IIR) >> 5;
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO);
	out(r, UART_LCR, 0);
	if (id == 7)
		return true;
	old = in(r, UART_IER);
	out(r, UART_IER, old | IER_UUE);
	id = in(r, UART_IER);
	out(r, UART_IER, old);
	return id & IER_UUE;
}

/* What Linux's 8250 driver takes the chip for. */
static enum found probe(struct rig *r)
{
	uint8_t mcr, lcr, id, a, b;

	if (!exists(r))
		return NOTHING;
	mcr = in(r, UART_MCR);
	lcr = in(r, UART_LCR);
	out(r, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	a = in(r, UART_MSR) & 0xf0;
	out(r, UART_MCR, mcr);
	if (a != (UART_MSR_DCD | UART_MSR_CTS))
		return NO_LOOPBACK;
	out(r, UART_LCR, UART_LCR_CONF_MODE_B);
	out(r, UART_EFR, 0);
	out(r, UART_LCR, 0);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO);
	id = in(r, UART_IIR) >> 6;
	if (id == 3) {
		bool more = is_more_than_16550a(r);

		out(r, UART_LCR, lcr);
		return more ? OTHER : CHIP_16550A;
	}
	out(r, UART_SCR, 0xa5);
	a = in(r, UART_SCR);
	out(r, UART_SCR, 0x5a);
	b = in(r, UART_SCR);
	return id == 2 ? CHIP_16550 : a == 0xa5 && b == 0x5a ? CHIP_16450 : CHIP_8250;
}

static void linux_finds_a_16550a_with_16_bytes(void **state)
{
	struct rig *r = *state;

	assert_int_equal(probe(r), CHIP_16550A);
	assert_int_equal(probe_fifo_size(r), 16);
	assert_int_equal(r->n_sent, 0);
	assert_int_equal(in(r, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

/* Its two tests for chips that forget an interrupt. */
static void linux_finds_no_transmitter_bug(void **state)
{
	struct rig *r = *state;
	uint8_t lsr, id, again;

	open_port(r, 0);
	out(r, UART_IER, UART_IER_THRI);
	lsr = in(r, UART_LSR);
	id = in(r, UART_IIR);
	out(r, UART_IER, 0);
	assert_true(lsr & UART_LSR_TEMT);
	assert_false(id & UART_IIR_NO_INT);

	out(r, UART_IER, UART_IER_THRI);
	id = in(r, UART_IIR);
	out(r, UART_IER, 0);
	out(r, UART_IER, UART_IER_THRI);
	again = in(r, UART_IIR);
	out(r, UART_IER, 0);
	assert_int_equal(id & UART_IIR_ID, UART_IIR_THRI);
	assert_int_equal(again & UART_IIR_ID, UART_IIR_THRI);
}

static void nothing_is_lost_while_linux_opens_the_port(void **state)
{
	struct rig *r = *state;
	uint8_t next = 1;

	out(r, UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(host_gives(r, 10, &next), 0);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	out(r, UART_FCR, 0);
	in(r, UART_LSR);
	in(r, UART_RX);
	in(r, UART_IIR);
	in(r, UART_MSR);
	out(r, UART_LCR, UART_LCR_WLEN8);
	out(r, UART_MCR, UART_MCR_OUT2);
	in(r, UART_RX);
	out(r, UART_IER, UART_IER_RLSI | UART_IER_RDI);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_R_TRIG_10);
	assert_int_equal(host_gives(r, 10, &next), 0);
	out(r, UART_MCR, UART_MCR_OUT2 | UART_MCR_DTR | UART_MCR_RTS);
	assert_int_equal(host_gives(r, 10, &next), 10);
	assert_int_equal(in(r, UART_RX), 1);
}

/* ---- interrupts ---- */

static void the_most_urgent_source_is_named_first(void **state)
{
	struct rig *r = *state;
	uint8_t next = 0;

	open_port(r, UART_FCR_R_TRIG_00);
	out(r, UART_IER, 0x0f);
	host_gives(r, 1, &next);
	/* An overrun and a changed line, by loopback. */
	out(r, UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
	for (unsigned i = 0; i < 16; i++)
		out(r, UART_TX, i);
	out(r, UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	assert_int_equal(in(r, UART_IIR), 0xc0 | UART_IIR_RLSI);
	assert_int_equal(in(r, UART_LSR),
			 UART_LSR_OE | UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(r, UART_IIR), 0xc0 | UART_IIR_RDI);
	for (unsigned i = 0; i < 16; i++)
		in(r, UART_RX);
	assert_int_equal(in(r, UART_IIR), 0xc0 | UART_IIR_THRI);
	assert_int_equal(in(r, UART_IIR), 0xc0 | UART_IIR_MSI);
	assert_int_equal(in(r, UART_IIR), 0xc0 | UART_IIR_MSI);
	assert_int_equal(in(r, UART_MSR) & 0x0f, UART_MSR_DDCD | UART_MSR_DDSR);
	assert_int_equal(in(r, UART_IIR), 0xc0 | UART_IIR_NO_INT);
	assert_int_equal(mtty_uart_pending(&r->u), 0);
}

static void reading_the_id_leaves_an_empty_transmitter_pending_behind_others(void **state)
{
	struct rig *r = *state;
	uint8_t next = 0;

	open_port(r, UART_FCR_R_TRIG_00);
	out(r, UART_IER, UART_IER_THRI | UART_IER_RDI);
	host_gives(r, 1, &next);
	assert_int_equal(in(r, UART_IIR) & UART_IIR_ID, UART_IIR_RDI);
	in(r, UART_RX);
	assert_int_equal(in(r, UART_IIR) & UART_IIR_ID, UART_IIR_THRI);
	assert_int_equal(in(r, UART_IIR), 0xc1);
	out(r, UART_TX, 'x');
	assert_int_equal(in(r, UART_IIR) & UART_IIR_ID, UART_IIR_THRI);
}

static void each_trigger_level_is_met_exactly(void **state)
{
	static const struct {
		uint8_t fcr, level;
	} row[] = { { UART_FCR_R_TRIG_00, 1 },
		    { UART_FCR_R_TRIG_01, 4 },
		    { UART_FCR_R_TRIG_10, 8 },
		    { UART_FCR_R_TRIG_11, 14 } };
	struct rig *r = *state;
	uint8_t next = 0;

	open_port(r, 0);
	out(r, UART_IER, UART_IER_RDI);
	for (unsigned i = 0; i < 4; i++) {
		out(r, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | row[i].fcr);
		assert_int_equal(in(r, UART_IIR), 0xc1);
		for (unsigned n = 1; n <= 16; n++) {
			assert_int_equal(host_gives(r, 1, &next), 1);
			/* Fewer than the level, and nothing more for now: a time-out. */
			assert_int_equal(in(r, UART_IIR),
					 0xc0 | (n < row[i].level ? UART_IIR_RX_TIMEOUT
								  : UART_IIR_RDI));
		}
		assert_int_equal(host_gives(r, 1, &next), 0);
	}
}

static void the_pin_reaches_the_bus_through_out2(void **state)
{
	struct rig *r = *state;

	out(r, UART_IER, UART_IER_THRI);
	assert_int_equal(mtty_uart_pending(&r->u), MTTY_IRQ_TX_EMPTY);
	assert_false(mtty_uart_is_gated_on(&r->u));
	out(r, UART_MCR, UART_MCR_OUT2);
	assert_true(mtty_uart_is_gated_on(&r->u));
	out(r, UART_MCR, UART_MCR_OUT2 | UART_MCR_LOOP);
	assert_false(mtty_uart_is_gated_on(&r->u));
}

/* ---- bytes ---- */

static void without_fifos_there_is_room_for_one(void **state)
{
	struct rig *r = *state;
	uint8_t next = 7;

	out(r, UART_MCR, UART_MCR_RTS);
	out(r, UART_IER, UART_IER_RDI);
	assert_int_equal(host_gives(r, 5, &next), 1);
	assert_int_equal(in(r, UART_IIR), UART_IIR_RDI);
	assert_int_equal(in(r, UART_RX), 7);
	assert_int_equal(host_gives(r, 5, &next), 1);
	r->stuck = true;
	out(r, UART_TX, 'a');
	out(r, UART_TX, 'b');
	r->stuck = false;
	host_takes(r);
	assert_memory_equal(r->sent, "a", 1);
	assert_int_equal(r->n_sent, 1);
}

static void input_waits_for_rts_and_for_the_end_of_a_loopback(void **state)
{
	struct rig *r = *state;
	uint8_t next = 0;

	open_port(r, 0);
	assert_int_equal(host_gives(r, 3, &next), 3);
	out(r, UART_MCR, UART_MCR_DTR | UART_MCR_OUT2);
	assert_int_equal(host_gives(r, 3, &next), 0);
	assert_int_equal(in(r, UART_RX), 0);
	out(r, UART_MCR, UART_MCR_RTS | UART_MCR_LOOP);
	assert_int_equal(host_gives(r, 3, &next), 0);
	out(r, UART_MCR, UART_MCR_RTS);
	assert_int_equal(host_gives(r, 99, &next), 14);
	for (unsigned i = 1; i < 17; i++)
		assert_int_equal(in(r, UART_RX), i);
	assert_false(in(r, UART_LSR) & UART_LSR_DR);
}

static void a_stuck_host_holds_the_transmitter(void **state)
{
	struct rig *r = *state;
	uint8_t bytes[MTTY_FIFO];

	open_port(r, 0);
	out(r, UART_IER, UART_IER_THRI);
	in(r, UART_IIR);
	r->stuck = true;
	for (unsigned i = 0; i < 16; i++)
		out(r, UART_TX, 'a' + i);
	assert_int_equal(in(r, UART_LSR), 0);
	assert_int_equal(mtty_uart_pending(&r->u), 0);
	out(r, UART_TX, '!'); /* written without looking */
	assert_int_equal(mtty_uart_tx(&r->u, bytes), 16);
	assert_memory_equal(bytes, "abcdefghijklmnop", 16);
	mtty_uart_tx_done(&r->u, 15);
	assert_int_equal(in(r, UART_LSR), 0);
	mtty_uart_tx_done(&r->u, 0);
	assert_int_equal(mtty_uart_pending(&r->u), 0);
	mtty_uart_tx_done(&r->u, 1);
	assert_int_equal(in(r, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(mtty_uart_pending(&r->u), MTTY_IRQ_TX_EMPTY);
}

static void clearing_a_fifo_empties_that_one(void **state)
{
	struct rig *r = *state;
	uint8_t next = 0;

	open_port(r, 0);
	r->stuck = true;
	out(r, UART_TX, 'x');
	host_gives(r, 4, &next);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	assert_int_equal(in(r, UART_LSR), 0);
	host_gives(r, 4, &next);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_XMIT);
	assert_int_equal(in(r, UART_LSR), UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
	out(r, UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(r, UART_LSR), UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
	out(r, UART_FCR, 0); /* switching empties both */
	assert_int_equal(in(r, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(r, UART_IIR), UART_IIR_NO_INT);
	out(r, UART_FCR, UART_FCR_CLEAR_XMIT | UART_FCR_R_TRIG_11); /* nothing without enable */
	assert_int_equal(r->u.fcr, 0);
}

/* ---- loopback and modem lines ---- */

static void in_loopback_the_outputs_are_the_inputs(void **state)
{
	struct rig *r = *state;

	for (unsigned mcr = 0; mcr < 16; mcr++) {
		uint8_t lines = 0;

		lines |= mcr & UART_MCR_RTS ? UART_MSR_CTS : 0;
		lines |= mcr & UART_MCR_DTR ? UART_MSR_DSR : 0;
		lines |= mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0;
		lines |= mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0;
		out(r, UART_MCR, UART_MCR_LOOP | mcr);
		assert_int_equal(in(r, UART_MSR) & 0xf0, lines);
		assert_int_equal(in(r, UART_MSR), lines);
	}
}

static void changes_of_lines_are_reported_once(void **state)
{
	struct rig *r = *state;

	out(r, UART_MCR, UART_MCR_LOOP);
	in(r, UART_MSR);
	out(r, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1);
	assert_int_equal(in(r, UART_MSR), UART_MSR_RI); /* the start of a ring is no news */
	out(r, UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
	assert_int_equal(in(r, UART_MSR), UART_MSR_CTS | UART_MSR_DCTS | UART_MSR_TERI);
	assert_int_equal(in(r, UART_MSR), UART_MSR_CTS);
	out(r, UART_MCR, UART_MCR_LOOP);
	out(r, UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
	assert_int_equal(in(r, UART_MSR), UART_MSR_CTS | UART_MSR_DCTS);
}

static void loopback_sends_nothing_out(void **state)
{
	struct rig *r = *state;

	open_port(r, 0);
	out(r, UART_MCR, UART_MCR_LOOP);
	for (unsigned i = 0; i < 17; i++)
		out(r, UART_TX, 'a' + i);
	assert_int_equal(r->n_sent, 0);
	assert_true(in(r, UART_LSR) & UART_LSR_OE);
	assert_false(in(r, UART_LSR) & UART_LSR_OE);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(r, UART_RX), 'a' + i);
	assert_false(in(r, UART_LSR) & UART_LSR_DR);
	out(r, UART_FCR, 0);
	out(r, UART_TX, 'x');
	out(r, UART_TX, 'y'); /* the single register is overwritten */
	assert_true(in(r, UART_LSR) & UART_LSR_OE);
	assert_int_equal(in(r, UART_RX), 'y');
}

/* ---- at random ---- */

/* Whatever is done to the registers, bytes come in order, none twice and none from nowhere; only
 * clearing a FIFO or writing into a full one loses any. */
static void order_survives_any_access(void **state)
{
	struct rig *r = *state;
	uint8_t to_guest = 0, from_guest = 0, expected_in = 0, expected_out = 0;
	unsigned seed = 1, n_in = 0, n_out = 0;

	open_port(r, 0);
	for (unsigned i = 0; i < 300000; i++) {
		unsigned what = rand_r(&seed) % 100;

		r->n_sent = 0;
		r->stuck = rand_r(&seed) % 8 != 0;
		if (what < 30 && in(r, UART_LSR) & UART_LSR_THRE) {
			for (unsigned n = rand_r(&seed) % 17; n; n--)
				out(r, UART_TX, from_guest++);
		} else if (what < 60) {
			host_gives(r, rand_r(&seed) % 20, &to_guest);
		} else if (what < 90 && in(r, UART_LSR) & UART_LSR_DR) {
			assert_int_equal(in(r, UART_RX), expected_in);
			expected_in++;
			n_in++;
		} else if (what < 94) {
			out(r, UART_MCR, rand_r(&seed) % 16);
		} else {
			static const uint8_t reg[] = { UART_IER, UART_SCR, UART_LSR, UART_MSR };

			out(r, reg[rand_r(&seed) % 4], rand_r(&seed));
			in(r, UART_IIR);
			in(r, UART_MSR);
			out(r, UART_FCR, UART_FCR_ENABLE_FIFO | (rand_r(&seed) & 0xc8));
		}
		for (unsigned n = 0; n < r->n_sent; n++, n_out++)
			assert_int_equal(r->sent[n], expected_out++);
	}
	assert_true(n_in > 10000 && n_out > 10000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(power_on_values),
		TEST(registers_keep_the_bits_they_have),
		TEST(the_divisor_hides_behind_dlab),
		TEST(linux_finds_a_16550a_with_16_bytes),
		TEST(linux_finds_no_transmitter_bug),
		TEST(nothing_is_lost_while_linux_opens_the_port),
		TEST(the_most_urgent_source_is_named_first),
		TEST(reading_the_id_leaves_an_empty_transmitter_pending_behind_others),
		TEST(each_trigger_level_is_met_exactly),
		TEST(the_pin_reaches_the_bus_through_out2),
		TEST(without_fifos_there_is_room_for_one),
		TEST(input_waits_for_rts_and_for_the_end_of_a_loopback),
		TEST(a_stuck_host_holds_the_transmitter),
		TEST(clearing_a_fifo_empties_that_one),
		TEST(in_loopback_the_outputs_are_the_inputs),
		TEST(changes_of_lines_are_reported_once),
		TEST(loopback_sends_nothing_out),
		TEST(order_survives_any_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
