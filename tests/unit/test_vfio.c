// SPDX-License-Identifier: MIT
/* The vfio-user server as a client sees it: QEMU's boot, every command in good and bad form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "../lib/vfio_rig.h"

#define CONFIG VFIO_REGION_CONFIG
#define ARM (VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_TRIGGER)
#define RELEASE (VUSER_IRQ_DATA_NONE | VUSER_IRQ_TRIGGER)

static struct rig_reply reply;

static int new_event(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int new_memory(size_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static int get_region_info(struct rig *rig, uint32_t index, uint32_t argsz,
			   struct vuser_region_info *ret)
{
	uint32_t request[8] = { argsz, 0, index };
	int r = rig_call(rig, VUSER_GET_REGION_INFO, request, sizeof(request), NULL, 0, &reply);

	if (!r)
		assert_int_equal(vuser_get_region_info(reply.payload, reply.len, ret), 0);
	return r;
}

static int get_irq_info(struct rig *rig, uint32_t index, struct vuser_info *ret)
{
	uint32_t request[4] = { 16, 0, index };
	int r = rig_call(rig, VUSER_GET_IRQ_INFO, request, sizeof(request), NULL, 0, &reply);

	if (!r)
		assert_int_equal(vuser_get_info(reply.payload, reply.len, ret), 0);
	return r;
}

/* ---- QEMU's sequence ---- */

static void boot_regions(struct rig *rig)
{
	struct vuser_region_info region;
	struct vuser_info info;
	uint32_t request[4] = { 16 };

	assert_int_equal(rig_call(rig, VUSER_GET_INFO, request, sizeof(request), NULL, 0, &reply),
			 0);
	assert_int_equal(vuser_get_info(reply.payload, reply.len, &info), 0);
	assert_int_equal(info.flags, VUSER_INFO_RESET | VUSER_INFO_PCI);
	assert_int_equal(info.index, 9);
	assert_int_equal(info.count, 5);
	for (uint32_t i = 0; i < 9; i++) {
		assert_int_equal(get_region_info(rig, i, 32, &region), 0);
		assert_int_equal(reply.len, region.argsz);
		assert_int_equal(region.index, i);
	}
	assert_int_equal(get_region_info(rig, CONFIG, 32, &region), 0);
	assert_int_equal(region.size, 256);
	assert_int_equal(region.flags, VUSER_REGION_R | VUSER_REGION_W);
	assert_int_equal(get_region_info(rig, 0, 32, &region), 0);
	assert_int_equal(region.size, RIG_BAR0);
}

static void boot_interrupts(struct rig *rig, int event)
{
	struct vuser_info info;

	assert_int_equal(get_irq_info(rig, VFIO_IRQ_ERR, &info), 0);
	assert_int_equal(info.count, 0);
	assert_int_equal(get_irq_info(rig, VFIO_IRQ_INTX, &info), 0);
	assert_int_equal(info.count, 1);
	assert_int_equal(info.flags, VUSER_IRQ_EVENTFD | VUSER_IRQ_MASKABLE | VUSER_IRQ_AUTOMASKED);
	assert_int_equal(rig_read(rig, CONFIG, PCI_INTERRUPT_PIN, 1), 1);
	assert_int_equal(rig_set_irqs(rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
}

static void boot_machine_reset(struct rig *rig, int event)
{
	assert_int_equal(rig_set_irqs(rig, RELEASE, VFIO_IRQ_INTX, 0, 0, NULL, 0), 0);
	rig_write(rig, CONFIG, PCI_COMMAND, 2, 0);
	assert_int_equal(rig_read(rig, CONFIG, 0x44, 2) & 3, 0); /* D0 */
	assert_int_equal(rig_call(rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	assert_int_equal(rig_set_irqs(rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	rig_write(rig, CONFIG, PCI_BASE_ADDRESS_0, 4, 0);
}

static void boot_enumeration(struct rig *rig)
{
	rig_write(rig, CONFIG, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	assert_int_equal(rig_read(rig, CONFIG, PCI_BASE_ADDRESS_0, 4), 0xffffff00);
	rig_write(rig, CONFIG, PCI_BASE_ADDRESS_0, 4, 0xfe000000);
	assert_int_equal(rig_read(rig, CONFIG, PCI_BASE_ADDRESS_0, 4), 0xfe000000);
	rig_write(rig, CONFIG, PCI_COMMAND, 2, 0x507);
	assert_int_equal(rig_read(rig, CONFIG, PCI_COMMAND, 2), 0x507);
}

static void qemu_boots_with_intx(void **state)
{
	struct rig rig;
	int event = new_event(), ram = new_memory(1 << 20);
	uint8_t config[256];
	struct vuser_access whole = { .region = CONFIG, .count = 256 };
	struct buf_writer w = buf_write_to(config, sizeof(config));

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	assert_int_equal(rig_map(&rig, 0, 1 << 20, 3, ram, 0), 0);
	assert_int_equal(rig_map(&rig, 0xfffc0000, 0x40000, 1, -1, 0), 0);
	boot_regions(&rig);
	vuser_put_access(&w, &whole);
	assert_int_equal(rig_call(&rig, VUSER_REGION_READ, config, 16, NULL, 0, &reply), 0);
	assert_int_equal(reply.len, 16 + 256);
	assert_int_equal(reply.payload[16] | reply.payload[17] << 8, 0x1234);
	boot_interrupts(&rig, event);
	boot_machine_reset(&rig, event);
	assert_int_equal(rig_state(&rig)->last_reset, UMDEV_RESET_CLIENT);
	assert_int_equal(rig_unmap(&rig, 0, 1 << 20, 0), 0);
	assert_int_equal(rig_map(&rig, 0, 0xc3000, 3, ram, 0), 0);
	assert_int_equal(rig_map(&rig, 0xc3000, 0x3d000, 1, ram, 0xc3000), 0);
	boot_enumeration(&rig);
	rig_write(&rig, CONFIG, PCI_COMMAND, 2, 0x3);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 1);
	rig_write(&rig, 0, RIG_INTX, 4, 0);
	assert_int_equal(
		rig_set_irqs(&rig, VUSER_IRQ_DATA_NONE | VUSER_IRQ_UNMASK, 0, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 0);
	rig_fini(&rig);
	close(event);
	close(ram);
}

/* ---- framing, VERSION ---- */

static int hello(struct rig *rig, uint16_t major, uint16_t minor, const char *json, size_t len)
{
	uint8_t payload[4096];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));

	buf_put_u16(&w, major);
	buf_put_u16(&w, minor);
	buf_put_bytes(&w, json, len);
	return rig_call(rig, VUSER_VERSION, payload, w.len, NULL, 0, &reply);
}

static void version_is_negotiated(void **state)
{
	static const uint16_t minors[][2] = { { 0, 0 }, { 1, 1 }, { 7, 1 } };
	struct vuser_version v;
	struct rig rig;

	for (unsigned i = 0; i < 3; i++) {
		rig_init(&rig, &rig_plain);
		rig_connect(&rig);
		assert_int_equal(hello(&rig, 0, minors[i][0], NULL, 0), 0);
		assert_int_equal(vuser_get_version(reply.payload, reply.len, &v), 0);
		assert_int_equal(v.minor, minors[i][1]);
		assert_int_equal(v.caps.max_msg_fds, VFIO_MAX_FDS);
		assert_int_equal(v.caps.max_data_xfer_size, VFIO_MAX_DATA);
		assert_int_equal(v.caps.max_dma_maps, DMA_MAX_MAPS);
		assert_int_equal(v.caps.pgsizes, 4096);
		assert_true(v.caps.write_multiple);
		assert_int_equal(hello(&rig, 0, 0, NULL, 0), EINVAL); /* once is enough */
		rig_fini(&rig);
	}
}

static void version_of_another_kind_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{}{}",
		"{\"capabilities\":{},}",
		"{\"capabilities\":[]}",
		"{\"capabilities\":{\"max_msg_fds\":\"16\"}}",
		"{\"capabilities\":{\"max_msg_fds\":-1}}",
		"{\"capabilities\":{\"max_msg_fds\":1.5}}",
		"{\"capabilities\":{\"max_msg_fds\":01}}",
		"{\"capabilities\":{\"max_msg_fds\":18446744073709551616}}",
		"{\"capabilities\":{\"write_multiple\":1}}",
		"{\"a\":[[[[[[[[[[]]]]]]]]]]}",
		"{\"a\":\"\\x\"}",
		"{\"a\":\"\n\"}",
		"{\"a\":tru}",
		"{\"a\" 1}",
	};
	static const char odd_but_legal[] = " { \"x\" : [ 1, -2.5e+3, null, \"\\u00e9\\\"\" ] ,"
					    "\"capabilities\":{\"max_msg_fds\": 0 } } ";
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_connect(&rig);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(hello(&rig, 0, 0, bad[i], strlen(bad[i]) + 1), EINVAL);
	assert_int_equal(hello(&rig, 0, 0, "{}", 2), EINVAL);   /* not terminated */
	assert_int_equal(hello(&rig, 0, 0, "{}\0", 4), EINVAL); /* bytes behind the end */
	assert_int_equal(hello(&rig, 1, 0, NULL, 0), EINVAL);
	assert_int_equal(rig_call(&rig, VUSER_VERSION, "ab", 2, NULL, 0, NULL), EINVAL);
	assert_int_equal(hello(&rig, 0, 0, odd_but_legal, sizeof(odd_but_legal)), 0);
	assert_int_equal(rig.server->half->client_fds, 0);
	rig_fini(&rig);
}

static void silent_client_is_closed(void **state)
{
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_connect(&rig);
	rig_settle(&rig);
	assert_false(rig_is_hung_up(&rig));
	assert_true(rig.server->timer.at_ns <= loop_now_ns() + VFIO_HANDSHAKE_MS * 1000000ull);
	rig.server->timer.at_ns = 1; /* five seconds later */
	rig_settle(&rig);
	assert_true(rig_is_hung_up(&rig));
	assert_int_equal(rig.n_closed, 1);
	assert_int_equal(rig.reason, VFIO_CLOSE_PROTOCOL);
	rig_fini(&rig);
}

static void deadline_ends_with_version(void **state)
{
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	if (rig.server->timer.at_ns)
		rig.server->timer.at_ns = 1;
	rig_settle(&rig);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_VENDOR_ID, 2), 0x1234);
	assert_int_equal(rig.n_closed, 0);
	rig_fini(&rig);
}

static void framing_errors_end_the_connection(void **state)
{
	static const uint32_t bad[][4] = {
		{ 4 << 16, 15, 0, 0 },               /* shorter than its header */
		{ 4 << 16, 0, 0, 0 },                /* empty */
		{ 4 << 16, CONN_MSG_MAX + 1, 0, 0 }, /* longer than any */
		{ 4 << 16, UINT32_MAX, 0, 0 },
		{ 4 << 16, 16, 2, 0 },    /* neither command nor reply */
		{ 4 << 16, 16, 0x40, 0 }, /* no such flag */
		{ 11 << 16, 16, 1, 0 },   /* reply to nothing */
	};
	struct rig rig;

	rig_init(&rig, &rig_plain);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rig_hello(&rig);
		rig_send_raw(&rig, bad[i], sizeof(bad[i]), NULL, 0);
		assert_true(rig_is_hung_up(&rig));
		assert_int_equal(rig.n_closed, i + 1);
		assert_int_equal(rig.reason, VFIO_CLOSE_PROTOCOL);
		close(rig.client);
	}
	rig_connect(&rig);
	rig_send(&rig, VUSER_RESET, 0, NULL, 0, NULL, 0); /* before VERSION */
	assert_true(rig_is_hung_up(&rig));
	rig_fini(&rig);
}

static void bytes_may_come_one_by_one(void **state)
{
	uint32_t reset[4] = { 7 | VUSER_RESET << 16, 16, 0, 0 };
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	for (unsigned i = 0; i < 16; i++) {
		assert_false(rig_receive(&rig, &reply));
		rig_send_raw(&rig, (uint8_t *)reset + i, 1, NULL, 0);
	}
	assert_true(rig_receive(&rig, &reply));
	assert_int_equal(reply.header.id, 7);
	assert_int_equal(reply.header.flags, VUSER_TYPE_REPLY);
	rig_fini(&rig);
}

static void answers_come_in_order(void **state)
{
	uint8_t data[64 * 32];
	struct buf_writer w = buf_write_to(data, sizeof(data));
	struct vuser_access a = { .offset = RIG_COUNT, .count = 4 };
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	for (uint16_t i = 0; i < 64; i++) {
		/* Ids may repeat: SPDK always sends 0. */
		struct vuser_header h = { i % 3, VUSER_REGION_READ, 32, 0, 0 };

		vuser_put_header(&w, &h);
		vuser_put_access(&w, &a);
	}
	rig_send_raw(&rig, data, w.len, NULL, 0);
	for (uint16_t i = 0; i < 64; i++) {
		uint32_t v;

		assert_true(rig_receive(&rig, &reply));
		assert_int_equal(reply.header.id, i % 3);
		memcpy(&v, reply.payload + 16, 4);
		assert_int_equal(v, i);
	}
	rig_fini(&rig);
}

static void client_that_does_not_read_is_not_served(void **state)
{
	uint32_t read[8] = { 1 | VUSER_REGION_READ << 16, 32, 0, 0, 0, 0, VFIO_REGION_CONFIG, 256 };
	unsigned sent = 0, got = 0, served;
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	while (send(rig.client, read, sizeof(read), MSG_DONTWAIT) == sizeof(read)) {
		sent++;
		rig_settle(&rig);
	}
	assert_true(rig.server->held);
	served = rig.server->half->cursor.tx_end / (32 + 256);
	assert_in_range(served, 500, sent - 1);
	while (got < sent) {
		if (rig_receive(&rig, &reply))
			got++;
		else
			rig_settle(&rig);
	}
	assert_false(rig_receive(&rig, &reply));
	assert_int_equal(rig_read(&rig, CONFIG, PCI_VENDOR_ID, 2), 0x1234);
	rig_fini(&rig);
}

/* ---- commands in good and bad form ---- */

static void unknown_commands_are_refused(void **state)
{
	static const uint16_t numbers[] = { 0, 11, 12, 14, 19, 255, 65535 };
	int file = new_memory(4096);
	unsigned fds;
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	fds = count_fds();
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		assert_int_equal(rig_call(&rig, numbers[i], "abcd", 4, &file, 1, NULL), EINVAL);
	assert_int_equal(count_fds(), fds);
	rig_fini(&rig);
	close(file);
}

static void short_payloads_are_refused(void **state)
{
	static const struct {
		uint16_t command;
		size_t min;
	} rows[] = {
		{ VUSER_DMA_MAP, 32 },           { VUSER_DMA_UNMAP, 24 },
		{ VUSER_GET_INFO, 16 },          { VUSER_GET_REGION_INFO, 32 },
		{ VUSER_GET_REGION_IO_FDS, 16 }, { VUSER_GET_IRQ_INFO, 16 },
		{ VUSER_SET_IRQS, 20 },          { VUSER_REGION_READ, 16 },
		{ VUSER_REGION_WRITE, 16 },      { VUSER_REGION_WRITE_MULTI, 8 },
		{ VUSER_DEVICE_FEATURE, 8 },     { VUSER_MIG_DATA_READ, 8 },
		{ VUSER_MIG_DATA_WRITE, 8 },
	};
	uint8_t ones[64];
	struct rig rig;

	memset(ones, 0xff, sizeof(ones));
	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t len = 0; len < rows[i].min; len++)
			assert_int_equal(rig_call(&rig, rows[i].command, ones, len, NULL, 0, NULL),
					 EINVAL);
		if (rows[i].command < VUSER_MIG_DATA_READ && rows[i].command != VUSER_GET_INFO)
			assert_int_equal(rig_call(&rig, rows[i].command, ones, 40, NULL, 0, NULL),
					 EINVAL);
	}
	rig_fini(&rig);
}

static void unexpected_descriptors_are_closed(void **state)
{
	uint32_t info[8] = { 32 };
	int many[20];
	unsigned fds;
	struct rig rig;

	for (int i = 0; i < 20; i++)
		many[i] = new_event();
	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	fds = count_fds();
	assert_int_equal(rig_call(&rig, VUSER_GET_INFO, info, 16, many, 1, NULL), EINVAL);
	assert_int_equal(rig_call(&rig, VUSER_RESET, NULL, 0, many, 20, NULL), EINVAL);
	assert_int_equal(rig_call(&rig, VUSER_DMA_MAP, info, 32, many, 2, NULL), EINVAL);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSI, 0, 4, many, 17), EINVAL);
	assert_int_equal(count_fds(), fds);
	rig_fini(&rig);
	for (int i = 0; i < 20; i++)
		close(many[i]);
}

static void posted_commands_are_never_answered(void **state)
{
	uint32_t write[5] = { RIG_SCRATCH, 0, 0, 4, 4711 };
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	rig_send(&rig, VUSER_REGION_WRITE, VUSER_NO_REPLY, write, sizeof(write), NULL, 0);
	write[0] = 0xffffffff;
	rig_send(&rig, VUSER_REGION_WRITE, VUSER_NO_REPLY, write, sizeof(write), NULL, 0);
	rig_send(&rig, VUSER_RESET, VUSER_NO_REPLY, "x", 1, NULL, 0);
	rig_send(&rig, 99, VUSER_NO_REPLY, NULL, 0, NULL, 0);
	assert_false(rig_receive(&rig, &reply));
	assert_int_equal(rig_state(&rig)->last_reset, UMDEV_RESET_CLIENT);
	rig_fini(&rig);
}

static void sparse_region_comes_with_one_descriptor(void **state)
{
	struct vuser_region_info region;
	uint32_t padded[1016] = { 4064, 0, 2 }; /* as SPDK asks */
	uint64_t area[2];
	unsigned char *p;
	struct rig rig;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	assert_int_equal(get_region_info(&rig, 2, 32, &region), 0);
	assert_int_equal(reply.len, 32);
	assert_int_equal(reply.fd, -1);
	assert_int_equal(region.argsz, 64);
	assert_int_equal(region.flags, 7); /* no capability without its bytes */
	assert_int_equal(region.cap_offset, 0);
	assert_int_equal(rig_call(&rig, VUSER_GET_REGION_INFO, padded, 4064, NULL, 0, &reply), 0);
	assert_int_equal(reply.len, 64);
	assert_int_equal(reply.payload[4], 15);
	assert_int_equal(reply.payload[12], 32);
	memcpy(area, reply.payload + 48, 16);
	assert_int_equal(area[0], 0x1000);
	assert_int_equal(area[1], 0x2000);
	assert_true(reply.fd >= 0);
	p = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_SHARED, reply.fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_not_equal(ftruncate(reply.fd, 0), 0); /* it cannot pull it from under us */
	close(reply.fd);
	p[0x1004] = 0x5a;
	assert_int_equal(rig_read(&rig, 2, 0x1004, 1), 0x5a);
	rig_write(&rig, 2, 0x2ffe, 2, 0x1234);
	assert_int_equal(p[0x2fff], 0x12);
	assert_int_equal(rig_read(&rig, 2, 0xfff, 1), 0xbb); /* outside: the driver's */
	assert_int_equal(rig_read(&rig, 2, 0x3000, 4), 0xbb);
	assert_int_equal(get_region_info(&rig, 3, 32, &region), 0); /* mapped as a whole */
	assert_int_equal(region.argsz, 32);
	assert_int_equal(region.flags, 7);
	assert_true(reply.fd >= 0);
	close(reply.fd);
	rig_fini(&rig);
	munmap(p, 0x4000);
}

static void next_client_finds_mapped_memory_zeroed(void **state)
{
	struct rig rig;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	rig_write(&rig, 3, 0x10, 4, 0x12345678);
	close(rig.client);
	rig_settle(&rig);
	rig_hello(&rig);
	assert_int_equal(rig_read(&rig, 3, 0x10, 4), 0);
	rig_fini(&rig);
}

static void queries_out_of_range_are_refused(void **state)
{
	struct vuser_region_info region;
	uint32_t io[4] = { 16, 0, 0, 0 };
	struct vuser_info info;
	struct rig rig;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	assert_int_equal(get_region_info(&rig, 9, 32, &region), EINVAL);
	assert_int_equal(get_region_info(&rig, 0, 31, &region), EINVAL);
	assert_int_equal(get_irq_info(&rig, 5, &info), EINVAL);
	assert_int_equal(get_region_info(&rig, 1, 32, &region), 0); /* upper half of BAR 0 */
	assert_int_equal(region.size, 0);
	assert_int_equal(region.flags, 0);
	assert_int_equal(get_region_info(&rig, CONFIG, 32, &region), 0);
	assert_int_equal(region.size, 4096);
	assert_int_equal(get_irq_info(&rig, VFIO_IRQ_REQ, &info), 0);
	assert_int_equal(info.count, 1);
	assert_int_equal(get_irq_info(&rig, VFIO_IRQ_MSIX, &info), 0);
	assert_int_equal(info.count, 70);
	assert_int_equal(info.flags, VUSER_IRQ_EVENTFD);
	assert_int_equal(rig_call(&rig, VUSER_GET_REGION_IO_FDS, io, 16, NULL, 0, &reply), 0);
	assert_int_equal(reply.len, 16);
	assert_int_equal(reply.payload[12], 0);
	io[2] = 9;
	assert_int_equal(rig_call(&rig, VUSER_GET_REGION_IO_FDS, io, 16, NULL, 0, NULL), EINVAL);
	rig_fini(&rig);
}

static void accesses_are_split_by_alignment(void **state)
{
	static const uint8_t want[][2] = { { 1, 1 },  { 2, 2 },  { 4, 4 },  { 8, 8 },
					   { 16, 8 }, { 24, 4 }, { 28, 2 }, { 30, 1 } };
	struct vuser_access a = { .offset = RIG_WIDTHS + 1, .count = 30 };
	uint8_t payload[64] = { 0 };
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	vuser_put_access(&w, &a);
	assert_int_equal(rig_call(&rig, VUSER_REGION_WRITE, payload, 46, NULL, 0, &reply), 0);
	assert_int_equal(reply.len, 16);
	assert_int_equal(rig_state(&rig)->n_widths, 8);
	assert_memory_equal(rig_state(&rig)->widths, want, sizeof(want));
	/* Hooks answer with their offset: what a wide read shows. */
	assert_int_equal(rig_read(&rig, 0, RIG_WIDTHS + 6, 4), 0x480046);
	rig_fini(&rig);
}

static void accesses_out_of_bounds_are_refused(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t region, count;
	} bad[] = {
		{ 0, 0, 0 },
		{ RIG_BAR0, 0, 1 },
		{ RIG_BAR0 - 1, 0, 2 },
		{ UINT64_MAX, 0, 1 },
		{ UINT64_MAX - 3, 0, 8 },
		{ 0, VFIO_REGION_ROM, 4 },
		{ 0, 2, 4 },
		{ 0, 8, 1 },
		{ 0, 9, 1 },
		{ 0, UINT32_MAX, 1 },
		{ 256, CONFIG, 1 },
		{ 0, CONFIG, 257 },
		{ 0, CONFIG, VFIO_MAX_DATA + 1 },
		{ 0, 0, UINT32_MAX },
	};
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vuser_access a = { bad[i].offset, bad[i].region, bad[i].count, NULL };
		uint8_t payload[16 + 512] = { 0 };
		struct buf_writer w = buf_write_to(payload, 16);
		size_t data = a.count < 512 ? a.count : 512;

		vuser_put_access(&w, &a);
		assert_int_equal(rig_call(&rig, VUSER_REGION_READ, payload, 16, NULL, 0, NULL),
				 EINVAL);
		assert_int_equal(rig_call(&rig, VUSER_REGION_WRITE, payload, 16 + data, NULL, 0,
					  NULL),
				 EINVAL);
	}
	rig_fini(&rig);
}

static size_t put_multi(uint8_t *payload, uint64_t count, unsigned entries, uint64_t offset)
{
	struct buf_writer w = buf_write_to(payload, 8 + 24 * entries);

	buf_put_u64(&w, count);
	for (unsigned i = 0; i < entries; i++) {
		uint64_t value = 100 + i;
		struct vuser_access a = { offset, 0, 4, NULL };

		vuser_put_access(&w, &a);
		buf_put_u64(&w, value);
	}
	return w.len;
}

static void many_writes_in_one_message(void **state)
{
	uint8_t payload[8 + 24 * 201];
	size_t len = put_multi(payload, 200, 200, RIG_SCRATCH);
	uint64_t n;
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	assert_int_equal(rig_call(&rig, VUSER_REGION_WRITE_MULTI, payload, len, NULL, 0, &reply),
			 0);
	assert_int_equal(reply.len, 8);
	memcpy(&n, reply.payload, 8);
	assert_int_equal(n, 200);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 4), 299);
	len = put_multi(payload, 1, 1, RIG_SCRATCH);
	rig_send(&rig, VUSER_REGION_WRITE_MULTI, VUSER_NO_REPLY, payload, len, NULL, 0);
	assert_false(rig_receive(&rig, &reply));
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 4), 100);
#define REFUSED(...)                                                                            \
	len = put_multi(payload, __VA_ARGS__);                                                  \
	assert_int_equal(rig_call(&rig, VUSER_REGION_WRITE_MULTI, payload, len, NULL, 0, NULL), \
			 EINVAL)
	REFUSED(201, 201, RIG_SCRATCH);
	REFUSED(2, 1, RIG_SCRATCH);
	REFUSED(1, 2, RIG_SCRATCH);
	REFUSED(UINT64_MAX, 1, RIG_SCRATCH);
	REFUSED(1, 1, RIG_BAR0 - 2);
	len = put_multi(payload, 2, 2, RIG_SCRATCH);
	payload[8 + 24 + 12] = 9; /* the second entry has nine bytes: none is written */
	assert_int_equal(rig_call(&rig, VUSER_REGION_WRITE_MULTI, payload, len, NULL, 0, NULL),
			 EINVAL);
#undef REFUSED
	len = put_multi(payload, 0, 0, 0);
	assert_int_equal(rig_call(&rig, VUSER_REGION_WRITE_MULTI, payload, len, NULL, 0, NULL), 0);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 4), 100);
	rig_fini(&rig);
}

static void features_are_denied_truthfully(void **state)
{
	uint32_t request[3] = { 12 };
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	for (uint32_t feature = 0; feature < 12; feature++) {
		request[1] = feature | VUSER_FEATURE_GET | VUSER_FEATURE_PROBE;
		assert_int_equal(rig_call(&rig, VUSER_DEVICE_FEATURE, request, 12, NULL, 0, NULL),
				 ENOTTY);
		request[1] = feature | VUSER_FEATURE_SET;
		assert_int_equal(rig_call(&rig, VUSER_DEVICE_FEATURE, request, 12, NULL, 0, NULL),
				 ENOTTY);
	}
	request[1] = 1;
	assert_int_equal(rig_call(&rig, VUSER_DEVICE_FEATURE, request, 12, NULL, 0, NULL), EINVAL);
	request[1] = 1 | VUSER_FEATURE_GET | VUSER_FEATURE_SET;
	assert_int_equal(rig_call(&rig, VUSER_DEVICE_FEATURE, request, 12, NULL, 0, NULL), EINVAL);
	assert_int_equal(rig_call(&rig, VUSER_MIG_DATA_READ, request, 8, NULL, 0, NULL),
			 EOPNOTSUPP);
	assert_int_equal(rig_call(&rig, VUSER_MIG_DATA_WRITE, request, 8, NULL, 0, NULL),
			 EOPNOTSUPP);
	rig_fini(&rig);
}

/* ---- life of a connection ---- */

static void one_client_at_a_time(void **state)
{
	unsigned fds = count_fds();
	int event = new_event(), ram = new_memory(4096);
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	assert_int_equal(vfio_server_connect(rig.server, new_event()), -EBUSY);
	assert_int_equal(rig_map(&rig, 0, 4096, 3, ram, 0), 0);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 1);
	close(rig.client);
	rig_settle(&rig);
	assert_int_equal(rig.n_closed, 1);
	assert_int_equal(rig.reason, VFIO_CLOSE_HANGUP);
	assert_int_equal(rig_state(&rig)->last_reset, UMDEV_RESET_CLOSE);
	assert_int_equal(dma_n_maps(rig.server->dma), 0);
	assert_int_equal(vfio_server_state(rig.server), VFIO_CLOSED);
	rig_hello(&rig);
	assert_int_equal(rig_state(&rig)->last_reset, UMDEV_RESET_OPEN);
	assert_false(rig_read(&rig, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	rig_fini(&rig);
	assert_int_equal(rig.n_closed, 2);
	assert_int_equal(rig.reason, VFIO_CLOSE_STOPPED);
	close(event);
	close(ram);
	assert_int_equal(count_fds(), fds);
}

static void descriptors_of_half_a_message_are_closed(void **state)
{
	uint32_t half[5] = { VUSER_DMA_MAP << 16, 48, 0, 0, 32 };
	int ram = new_memory(4096);
	unsigned fds = count_fds();
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	rig_send_raw(&rig, half, sizeof(half), &ram, 1);
	close(rig.client);
	rig.client = -1;
	rig_settle(&rig);
	assert_int_equal(rig.n_closed, 1);
	rig_fini(&rig);
	assert_int_equal(count_fds(), fds);
	close(ram);
}

static int add_one(struct umdev_device *dev, void *arg)
{
	((struct rig_state *)umdev_state(dev))->scratch += 1;
	umdev_intx_set(dev, true);
	return *(int *)arg;
}

static void host_events_are_transactions(void **state)
{
	int event = new_event(), verdict = 0;
	struct rig rig;

	rig_init(&rig, &rig_plain);
	assert_int_equal(vfio_server_event(rig.server, add_one, &verdict), 0);
	assert_int_equal(rig_state(&rig)->scratch, 1);
	rig_hello(&rig);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	assert_int_equal(vfio_server_event(rig.server, add_one, &verdict), 0);
	assert_int_equal(rig_state(&rig)->scratch, 1);
	assert_int_equal(take_events(event), 1);
	verdict = -ERANGE;
	assert_int_equal(vfio_server_event(rig.server, add_one, &verdict), -ERANGE);
	assert_int_equal(rig_state(&rig)->scratch, 1);
	rig_fini(&rig);
	close(event);
}

static int refuse(struct umdev_device *dev, enum umdev_init how)
{
	return -ENODEV;
}

static void device_that_refuses_leaves_nothing(void **state)
{
	static const struct stream_last_life last;
	static const struct vfio_server_ops none;
	unsigned fds = count_fds();
	int (*accept)(struct umdev_device *, enum umdev_init);
	struct umdev_device_ops ops;
	struct vfio_server *server;
	struct rig rig;

	rig_init(&rig, &rig_express);
	ops = *rig.type.ops;
	accept = ops.init;
	ops.init = refuse;
	rig.type.ops = &ops;
	vfio_server_disconnect(rig.server, VFIO_CLOSE_STOPPED, "");
	vfio_bars_close(rig.server);
	vfio_server_free(rig.server);
	assert_int_equal(vfio_server_new(&rig.dev, &rig.loop, rig.shared, rig.size, UMDEV_FRESH,
					 &last, &none, &server),
			 -ENODEV);
	assert_null(rig.dev.vfio);
	ops.init = accept;
	assert_int_equal(vfio_server_new(&rig.dev, &rig.loop, rig.shared, rig.size, UMDEV_FRESH,
					 &last, &none, &rig.server),
			 0);
	rig_fini(&rig);
	assert_int_equal(count_fds(), fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(qemu_boots_with_intx),
		cmocka_unit_test(version_is_negotiated),
		cmocka_unit_test(version_of_another_kind_is_refused),
		cmocka_unit_test(silent_client_is_closed),
		cmocka_unit_test(deadline_ends_with_version),
		cmocka_unit_test(framing_errors_end_the_connection),
		cmocka_unit_test(bytes_may_come_one_by_one),
		cmocka_unit_test(answers_come_in_order),
		cmocka_unit_test(client_that_does_not_read_is_not_served),
		cmocka_unit_test(unknown_commands_are_refused),
		cmocka_unit_test(short_payloads_are_refused),
		cmocka_unit_test(unexpected_descriptors_are_closed),
		cmocka_unit_test(posted_commands_are_never_answered),
		cmocka_unit_test(sparse_region_comes_with_one_descriptor),
		cmocka_unit_test(next_client_finds_mapped_memory_zeroed),
		cmocka_unit_test(queries_out_of_range_are_refused),
		cmocka_unit_test(accesses_are_split_by_alignment),
		cmocka_unit_test(accesses_out_of_bounds_are_refused),
		cmocka_unit_test(many_writes_in_one_message),
		cmocka_unit_test(features_are_denied_truthfully),
		cmocka_unit_test(one_client_at_a_time),
		cmocka_unit_test(descriptors_of_half_a_message_are_closed),
		cmocka_unit_test(host_events_are_transactions),
		cmocka_unit_test(device_that_refuses_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
