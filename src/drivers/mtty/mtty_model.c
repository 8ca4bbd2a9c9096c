/* SPDX-License-Identifier: MIT */
/*
 * A 16550A (National Semiconductor PC16550D data sheet), as far as software can tell.
 *
 * A byte takes no time: baud rate, word length and parity are kept and have no effect. What time
 * would tell is told by the queues instead:
 *  - the transmitter is empty when the host took everything; while it did not, THRE stays clear,
 *    and that is the guest's back pressure;
 *  - fewer bytes than the trigger level are a receiver time-out at once: more would be there if
 *    the host had any;
 *  - bytes are taken from the host only while there is room, and while RTS asks for them. A guest
 *    clears its FIFOs when it opens a port and raises RTS afterwards, so nothing that the host
 *    wrote before is lost. No overrun but in loopback.
 */
#include "mtty_model.h"

enum {
	REG_DATA, /* RBR, THR; DLL with DLAB */
	REG_IER,  /* DLM with DLAB */
	REG_IIR,  /* FCR when written */
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCR,
};

enum {
	IER_RX = 1 << 0,
	IER_TX = 1 << 1,
	IER_LINE = 1 << 2,
	IER_MODEM = 1 << 3,
	IER_ALL = 0x0f,

	IIR_NONE = 0x01,
	IIR_MODEM = 0x00,
	IIR_TX = 0x02,
	IIR_RX = 0x04,
	IIR_LINE = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFOS = 0xc0,

	FCR_ENABLE = 1 << 0,
	FCR_CLEAR_RX = 1 << 1,
	FCR_CLEAR_TX = 1 << 2,
	FCR_KEPT = 0xc9, /* enable, DMA mode, trigger */

	LCR_DLAB = 1 << 7,

	MCR_DTR = 1 << 0,
	MCR_RTS = 1 << 1,
	MCR_OUT1 = 1 << 2,
	MCR_OUT2 = 1 << 3,
	MCR_LOOP = 1 << 4,
	MCR_ALL = 0x1f,

	LSR_READY = 1 << 0,
	LSR_OVERRUN = 1 << 1,
	LSR_ERRORS = 0x1e, /* overrun, parity, framing, break */
	LSR_THRE = 1 << 5,
	LSR_TEMT = 1 << 6,

	MSR_DCTS = 1 << 0,
	MSR_DDSR = 1 << 1,
	MSR_TERI = 1 << 2,
	MSR_DDCD = 1 << 3,
	MSR_DELTAS = 0x0f,
	MSR_CTS = 1 << 4,
	MSR_DSR = 1 << 5,
	MSR_RI = 1 << 6,
	MSR_DCD = 1 << 7,
};

/* What the cable says: somebody is there and listens. */
#define MSR_CABLE (MSR_CTS | MSR_DSR | MSR_DCD)
#define DIVISOR_9600 12

/* ---- queues ---- */

static bool queue_is_sane(const struct mtty_queue *q)
{
	return q->head < MTTY_FIFO && q->n <= MTTY_FIFO;
}

static void queue_clear(struct mtty_queue *q)
{
	q->head = q->n = 0;
}

static uint8_t queue_at(const struct mtty_queue *q, unsigned i)
{
	return q->byte[(q->head + i) % MTTY_FIFO];
}

static void queue_push(struct mtty_queue *q, uint8_t byte)
{
	q->byte[(q->head + q->n++) % MTTY_FIFO] = byte;
}

static void queue_drop(struct mtty_queue *q, unsigned n)
{
	q->head = (q->head + n) % MTTY_FIFO;
	q->n -= n;
}

/* ---- parts ---- */

static bool has_fifos(const struct mtty_uart *u)
{
	return u->fcr & FCR_ENABLE;
}

static unsigned depth(const struct mtty_uart *u)
{
	return has_fifos(u) ? MTTY_FIFO : 1;
}

static unsigned trigger(const struct mtty_uart *u)
{
	static const uint8_t level[] = { 1, 4, 8, 14 };

	return has_fifos(u) ? level[u->fcr >> 6] : 1;
}

static bool is_looped(const struct mtty_uart *u)
{
	return u->mcr & MCR_LOOP;
}

/* The modem lines after a change of MCR: of the cable, or in loopback our own outputs. */
static void lines_update(struct mtty_uart *u)
{
	uint8_t lines = MSR_CABLE, changed;

	if (is_looped(u))
		lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
			(u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
	changed = (u->msr ^ lines) & ~MSR_DELTAS;
	/* Each delta bit is four below its line; of RI only the end of a ring counts. */
	if (lines & MSR_RI)
		changed &= ~MSR_RI;
	u->msr = lines | (u->msr & MSR_DELTAS) | changed >> 4;
}

static void transmitter_emptied(struct mtty_uart *u)
{
	u->tx_irq = 1;
}

static void fifo_control(struct mtty_uart *u, uint8_t value)
{
	bool switched = (value ^ u->fcr) & FCR_ENABLE;

	u->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
	if (switched || (value & FCR_ENABLE && value & FCR_CLEAR_RX))
		queue_clear(&u->rx);
	if (u->tx.n && (switched || (value & FCR_ENABLE && value & FCR_CLEAR_TX))) {
		queue_clear(&u->tx);
		transmitter_emptied(u);
	}
}

static void transmit(struct mtty_uart *u, uint8_t byte)
{
	u->tx_irq = 0;
	if (!is_looped(u)) {
		/* More than fits was written without looking at THRE: lost, as on the chip. */
		if (u->tx.n < depth(u))
			queue_push(&u->tx, byte);
		return;
	}
	if (u->rx.n < depth(u)) {
		queue_push(&u->rx, byte);
	} else {
		u->lsr |= LSR_OVERRUN;
		/* A FIFO keeps what it has; the single register is overwritten. */
		if (!has_fifos(u))
			u->rx.byte[u->rx.head] = byte;
	}
	if (!u->tx.n)
		transmitter_emptied(u);
}

static uint8_t receive(struct mtty_uart *u)
{
	uint8_t byte = queue_at(&u->rx, 0);

	if (u->rx.n)
		queue_drop(&u->rx, 1);
	return byte;
}

static uint8_t line_status(struct mtty_uart *u)
{
	uint8_t v = u->lsr | (u->rx.n ? LSR_READY : 0) | (u->tx.n ? 0 : LSR_THRE | LSR_TEMT);

	u->lsr &= ~LSR_ERRORS;
	return v;
}

static uint8_t modem_status(struct mtty_uart *u)
{
	uint8_t v = u->msr;

	u->msr &= ~MSR_DELTAS;
	return v;
}

/* The pending source of the highest priority; reading it acknowledges an empty transmitter. */
static uint8_t interrupt_id(struct mtty_uart *u)
{
	uint8_t fifos = has_fifos(u) ? IIR_FIFOS : 0;
	unsigned pending = mtty_uart_pending(u);

	if (pending & MTTY_IRQ_LINE_STATUS)
		return fifos | IIR_LINE;
	if (pending & MTTY_IRQ_RX)
		return fifos | IIR_RX;
	if (pending & MTTY_IRQ_RX_TIMEOUT)
		return fifos | IIR_TIMEOUT;
	if (pending & MTTY_IRQ_TX_EMPTY) {
		u->tx_irq = 0;
		return fifos | IIR_TX;
	}
	if (pending & MTTY_IRQ_MODEM)
		return fifos | IIR_MODEM;
	return fifos | IIR_NONE;
}

static void interrupt_enable(struct mtty_uart *u, uint8_t value)
{
	/* Enabling it while the transmitter is empty tells so once more. */
	if (value & ~u->ier & IER_TX && !u->tx.n)
		transmitter_emptied(u);
	u->ier = value & IER_ALL;
}

/* ---- what the owner calls ---- */

void mtty_uart_reset(struct mtty_uart *u)
{
	*u = (struct mtty_uart){ .dll = DIVISOR_9600, .msr = MSR_CABLE };
}

bool mtty_uart_is_sane(const struct mtty_uart *u)
{
	return queue_is_sane(&u->rx) && queue_is_sane(&u->tx) && u->rx.n <= depth(u) &&
	       u->tx.n <= depth(u) && !(u->ier & ~IER_ALL) && !(u->mcr & ~MCR_ALL) &&
	       !(u->fcr & ~FCR_KEPT) && (has_fifos(u) || !u->fcr) && !(u->lsr & ~LSR_ERRORS) &&
	       u->tx_irq <= 1;
}

uint8_t mtty_uart_read(struct mtty_uart *u, unsigned reg)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		return dlab ? u->dll : receive(u);
	case REG_IER:
		return dlab ? u->dlm : u->ier;
	case REG_IIR:
		return interrupt_id(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return line_status(u);
	case REG_MSR:
		return modem_status(u);
	default:
		return u->scr;
	}
}

static void data_write(struct mtty_uart *u, uint8_t value)
{
	if (u->lcr & LCR_DLAB)
		u->dll = value;
	else
		transmit(u, value);
}

static void enable_write(struct mtty_uart *u, uint8_t value)
{
	if (u->lcr & LCR_DLAB)
		u->dlm = value;
	else
		interrupt_enable(u, value);
}

void mtty_uart_write(struct mtty_uart *u, unsigned reg, uint8_t value)
{
	switch (reg) {
	case REG_DATA:
		data_write(u, value);
		break;
	case REG_IER:
		enable_write(u, value);
		break;
	case REG_IIR:
		fifo_control(u, value);
		break;
	case REG_LCR:
		u->lcr = value;
		break;
	case REG_MCR:
		u->mcr = value & MCR_ALL;
		lines_update(u);
		break;
	case REG_LSR:
	case REG_MSR:
		break; /* for the factory only */
	default:
		u->scr = value;
		break;
	}
}

unsigned mtty_uart_rx_room(const struct mtty_uart *u)
{
	if (is_looped(u) || !(u->mcr & MCR_RTS))
		return 0;
	return depth(u) - u->rx.n;
}

void mtty_uart_rx(struct mtty_uart *u, const uint8_t *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		queue_push(&u->rx, bytes[i]);
}

unsigned mtty_uart_tx(const struct mtty_uart *u, uint8_t ret[MTTY_FIFO])
{
	for (unsigned i = 0; i < u->tx.n; i++)
		ret[i] = queue_at(&u->tx, i);
	return u->tx.n;
}

void mtty_uart_tx_done(struct mtty_uart *u, unsigned n)
{
	if (!n)
		return;
	queue_drop(&u->tx, n);
	if (!u->tx.n)
		transmitter_emptied(u);
}

unsigned mtty_uart_pending(const struct mtty_uart *u)
{
	unsigned pending = 0;

	if (u->ier & IER_LINE && u->lsr & LSR_ERRORS)
		pending |= MTTY_IRQ_LINE_STATUS;
	if (u->ier & IER_RX && u->rx.n)
		pending |= u->rx.n >= trigger(u) ? MTTY_IRQ_RX : MTTY_IRQ_RX_TIMEOUT;
	if (u->ier & IER_TX && u->tx_irq && !u->tx.n)
		pending |= MTTY_IRQ_TX_EMPTY;
	if (u->ier & IER_MODEM && u->msr & MSR_DELTAS)
		pending |= MTTY_IRQ_MODEM;
	return pending;
}

bool mtty_uart_is_gated_on(const struct mtty_uart *u)
{
	return u->mcr & MCR_OUT2 && !is_looped(u);
}
