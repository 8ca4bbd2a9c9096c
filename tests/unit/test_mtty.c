/* SPDX-License-Identifier: MIT */
/* The card of mtty behind a vfio-user server: what a guest and the host ends see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/serial_reg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "../lib/vfio_rig.h"
#include "drivers/mtty/mtty.h"

#define CONFIG VFIO_REGION_CONFIG
#define ARM (VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_TRIGGER)
#define UNMASK (VUSER_IRQ_DATA_NONE | VUSER_IRQ_UNMASK)
#define OPEN (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2)

static uint8_t in(struct rig *rig, unsigned port, unsigned reg)
{
	return rig_read(rig, port, reg, 1);
}

static void out(struct rig *rig, unsigned port, unsigned reg, uint8_t v)
{
	rig_write(rig, port, reg, 1, v);
}

static void start(struct rig *rig, const char *type, unsigned n_streams)
{
	rig_init_driver(rig, &mtty_device_driver, type, n_streams);
	rig_hello(rig);
}

static void open_port(struct rig *rig, unsigned port)
{
	out(rig, port, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_R_TRIG_10);
	out(rig, port, UART_LCR, UART_LCR_WLEN8);
	out(rig, port, UART_MCR, OPEN);
}

static size_t host_reads(struct rig *rig, unsigned port, void *buf, size_t len)
{
	ssize_t n;

	rig_settle(rig);
	n = recv(rig->host[port], buf, len, MSG_DONTWAIT);
	return n < 0 ? 0 : n;
}

static void host_writes(struct rig *rig, unsigned port, const void *data, size_t len)
{
	assert_int_equal(send(rig->host[port], data, len, MSG_DONTWAIT), len);
	rig_settle(rig);
}

static void check_config(struct rig *rig, unsigned n_ports)
{
	assert_int_equal(rig_read(rig, CONFIG, PCI_VENDOR_ID, 4), 0x32534348);
	assert_int_equal(rig_read(rig, CONFIG, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x32534348);
	assert_int_equal(rig_read(rig, CONFIG, PCI_CLASS_REVISION, 4), 0x07000210);
	assert_int_equal(rig_read(rig, CONFIG, PCI_INTERRUPT_PIN, 1), 1);
	for (unsigned bar = 0; bar < 6; bar++) {
		unsigned at = PCI_BASE_ADDRESS_0 + 4 * bar;

		rig_write(rig, CONFIG, at, 4, 0xffffffff);
		assert_int_equal(rig_read(rig, CONFIG, at, 4), bar < n_ports ? 0xfffffff9 : 0);
	}
}

static void the_card_looks_like_the_kernels_sample(void **state)
{
	struct rig rig;

	start(&rig, "1", 0);
	check_config(&rig, 1);
	rig_fini(&rig);
	start(&rig, "2", 0);
	check_config(&rig, 2);
	rig_fini(&rig);
}

static void a_type_that_is_not_ours_is_not_found(void **state)
{
	const struct umdev_device_driver *const drivers[] = { &mtty_device_driver, NULL };
	const struct umdev_device_driver *driver;
	const struct umdev_device_type *type;

	assert_int_equal(device_find_type(drivers, "mtty", "3", &driver, &type), -ENOENT);
	assert_int_equal(device_find_type(drivers, "mtty", "2", &driver, &type), 0);
	assert_true(type->state_size <= 256);
}

static void bytes_pass_both_ways_and_ports_do_not_mix(void **state)
{
	struct rig rig;
	char buf[16] = { 0 };

	start(&rig, "2", 2);
	open_port(&rig, 0);
	open_port(&rig, 1);
	for (const char *p = "to host 0"; *p; p++)
		out(&rig, 0, UART_TX, *p);
	out(&rig, 1, UART_TX, '!');
	assert_int_equal(host_reads(&rig, 0, buf, sizeof(buf)), 9);
	assert_memory_equal(buf, "to host 0", 9);
	assert_int_equal(host_reads(&rig, 1, buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], '!');
	host_writes(&rig, 1, "abc", 3);
	assert_false(in(&rig, 0, UART_LSR) & UART_LSR_DR);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(in(&rig, 1, UART_LSR) & UART_LSR_DR);
		assert_int_equal(in(&rig, 1, UART_RX), "abc"[i]);
	}
	assert_false(in(&rig, 1, UART_LSR) & UART_LSR_DR);
	rig_fini(&rig);
}

static void a_wide_access_is_narrow_ones_in_rising_order(void **state)
{
	struct rig rig;

	start(&rig, "1", 1);
	rig_write(&rig, 0, UART_LCR, 1, UART_LCR_DLAB);
	rig_write(&rig, 0, 0, 2, 0x1234);
	assert_int_equal(in(&rig, 0, UART_DLL), 0x34);
	assert_int_equal(in(&rig, 0, UART_DLM), 0x12);
	rig_write(&rig, 0, UART_SCR, 1, 0x77);
	assert_int_equal(rig_read(&rig, 0, 0, 8) >> 56, 0x77);
	assert_int_equal(rig_read(&rig, 0, 0, 2), 0x1234);
	rig_fini(&rig);
}

/* The host sends more than FIFO, ring and socket hold, and only then reads the guest. */
static void much_input_arrives_whole(void **state)
{
	struct rig rig;
	uint64_t sent = 0, received = 0;
	uint8_t block[256];

	start(&rig, "1", 1);
	open_port(&rig, 0);
	while (received < 65536) {
		for (unsigned i = 0; i < sizeof(block); i++)
			block[i] = (sent + i) * 7;
		for (ssize_t n = 1; sent < 65536 && n > 0;) {
			n = send(rig.host[0], block, sizeof(block), MSG_DONTWAIT);
			for (unsigned i = 0; n > 0 && i < sizeof(block); i++)
				block[i] += (uint8_t)(n * 7);
			sent += n > 0 ? n : 0;
		}
		rig_settle(&rig);
		assert_true(in(&rig, 0, UART_LSR) & UART_LSR_DR);
		while (in(&rig, 0, UART_LSR) & UART_LSR_DR)
			assert_int_equal(in(&rig, 0, UART_RX), (uint8_t)(received++ * 7));
	}
	assert_int_equal(in(&rig, 0, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	rig_fini(&rig);
}

/* A host that does not read stops the guest, and nothing is lost when it reads again. */
static void much_output_waits_for_the_host(void **state)
{
	struct rig rig;
	uint64_t sent = 0, received = 0;
	uint8_t buf[4096];

	start(&rig, "1", 1);
	open_port(&rig, 0);
	for (unsigned stalls = 0; stalls < 2; stalls++) {
		size_t n;

		/* 16 bytes at a go, as drivers do. Ends when ring and socket are full. */
		while (in(&rig, 0, UART_LSR) & UART_LSR_THRE)
			for (unsigned i = 0; i < 16; i++)
				out(&rig, 0, UART_TX, sent++ * 13);
		assert_true(sent - received > UMDEV_STREAM_BYTES);
		while ((n = host_reads(&rig, 0, buf, sizeof(buf))))
			for (size_t i = 0; i < n; i++)
				assert_int_equal(buf[i], (uint8_t)(received++ * 13));
		assert_int_equal(sent, received);
	}
	rig_fini(&rig);
}

static void intx_follows_the_port(void **state)
{
	struct rig rig;
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	start(&rig, "2", 2);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	open_port(&rig, 1);
	out(&rig, 1, UART_IER, UART_IER_RDI);
	assert_int_equal(take_events(event), 0);
	host_writes(&rig, 1, "x", 1);
	assert_int_equal(take_events(event), 1);
	assert_int_equal(in(&rig, 1, UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
	assert_int_equal(in(&rig, 1, UART_RX), 'x');
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 0);
	host_writes(&rig, 1, "y", 1);
	assert_int_equal(take_events(event), 1);
	/* Still there when the client unmasks. */
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 1);
	/* The gate closes: so does the pin. */
	out(&rig, 1, UART_MCR, UART_MCR_RTS);
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 0);
	close(event);
	rig_fini(&rig);
}

static void msi_comes_once_for_each_news(void **state)
{
	struct rig rig;
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	unsigned cap;

	start(&rig, "1", 1);
	for (cap = rig_read(&rig, CONFIG, PCI_CAPABILITY_LIST, 1);
	     cap && rig_read(&rig, CONFIG, cap, 1) != PCI_CAP_ID_MSI;)
		cap = rig_read(&rig, CONFIG, cap + PCI_CAP_LIST_NEXT, 1);
	assert_true(cap);
	rig_write(&rig, CONFIG, cap + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSI, 0, 1, &event, 1), 0);
	open_port(&rig, 0);
	out(&rig, 0, UART_IER, UART_IER_RDI);
	host_writes(&rig, 0, "abc", 3);
	assert_int_equal(take_events(event), 1);
	in(&rig, 0, UART_LSR);
	assert_int_equal(take_events(event), 0);
	out(&rig, 0, UART_IER, UART_IER_RDI | UART_IER_THRI);
	assert_int_equal(take_events(event), 1);
	for (unsigned i = 0; i < 3; i++)
		in(&rig, 0, UART_RX);
	assert_int_equal(in(&rig, 0, UART_IIR) & UART_IIR_ID, UART_IIR_THRI);
	assert_int_equal(take_events(event), 0);
	out(&rig, 0, UART_TX, 'x');
	assert_int_equal(take_events(event), 1);
	close(event);
	rig_fini(&rig);
}

static void without_a_host_end_output_goes_nowhere(void **state)
{
	struct rig rig;

	start(&rig, "2", 1); /* the second port has none */
	open_port(&rig, 1);
	for (unsigned i = 0; i < 20000; i++) {
		if (i % 1000 == 0)
			assert_true(in(&rig, 1, UART_LSR) & UART_LSR_THRE);
		out(&rig, 1, UART_TX, i);
	}
	assert_int_equal(in(&rig, 1, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	rig_fini(&rig);
}

static void reset_is_power_on(void **state)
{
	struct rig rig;
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	start(&rig, "1", 1);
	open_port(&rig, 0);
	out(&rig, 0, UART_IER, UART_IER_THRI);
	assert_int_equal(rig_call(&rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	assert_int_equal(in(&rig, 0, UART_IER), 0);
	assert_int_equal(in(&rig, 0, UART_MCR), 0);
	assert_int_equal(in(&rig, 0, UART_IIR), UART_IIR_NO_INT);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	assert_int_equal(take_events(event), 0);
	close(event);
	rig_fini(&rig);
}

static void a_port_goes_on_after_a_take_over(void **state)
{
	struct rig rig;
	char buf[8];

	start(&rig, "1", 1);
	open_port(&rig, 0);
	out(&rig, 0, UART_SCR, 0x42);
	host_writes(&rig, 0, "0123456789abcdefgh", 18);
	assert_int_equal(in(&rig, 0, UART_RX), '0');
	out(&rig, 0, UART_TX, 'x');
	rig_restart(&rig, false);
	out(&rig, 0, UART_TX, 'y');
	assert_int_equal(in(&rig, 0, UART_SCR), 0x42);
	for (const char *p = "123456789abcdefgh"; *p; p++)
		assert_int_equal(in(&rig, 0, UART_RX), *p);
	assert_int_equal(host_reads(&rig, 0, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "xy", 2);
	rig_fini(&rig);
}

/* The state begins with the registers of port 0; garbage there must not be used as an index. */
static void a_port_in_an_impossible_state_starts_over(void **state)
{
	struct rig rig;

	start(&rig, "2", 2);
	open_port(&rig, 0);
	open_port(&rig, 1);
	out(&rig, 1, UART_SCR, 0x42);
	memset(rig.dev.half->state, 0xff, 16);
	rig_restart(&rig, true);
	assert_int_equal(in(&rig, 0, UART_MCR), 0);
	assert_int_equal(in(&rig, 0, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(&rig, 1, UART_MCR), OPEN);
	assert_int_equal(in(&rig, 1, UART_SCR), 0x42);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_card_looks_like_the_kernels_sample),
		cmocka_unit_test(a_type_that_is_not_ours_is_not_found),
		cmocka_unit_test(bytes_pass_both_ways_and_ports_do_not_mix),
		cmocka_unit_test(a_wide_access_is_narrow_ones_in_rising_order),
		cmocka_unit_test(much_input_arrives_whole),
		cmocka_unit_test(much_output_waits_for_the_host),
		cmocka_unit_test(intx_follows_the_port),
		cmocka_unit_test(msi_comes_once_for_each_news),
		cmocka_unit_test(without_a_host_end_output_goes_nowhere),
		cmocka_unit_test(reset_is_power_on),
		cmocka_unit_test(a_port_goes_on_after_a_take_over),
		cmocka_unit_test(a_port_in_an_impossible_state_starts_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
