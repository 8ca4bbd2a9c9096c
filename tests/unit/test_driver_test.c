/* SPDX-License-Identifier: MIT */
/* The driver `test`: what other tests rely on when they use it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "../lib/vfio_rig.h"
#include "drivers/test/test.h"

#define CONFIG VFIO_REGION_CONFIG
#define ARM (VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_TRIGGER)
#define RAM 0x10000 /* two pages there, of one file in reverse order */
#define PAGE 4096

static struct rig_reply reply;

static uint32_t in32(struct rig *rig, unsigned reg)
{
	return rig_read(rig, TEST_BAR_REGS, reg, 4);
}

static uint64_t in64(struct rig *rig, unsigned reg)
{
	return rig_read(rig, TEST_BAR_REGS, reg, 8);
}

static void out32(struct rig *rig, unsigned reg, uint32_t v)
{
	rig_write(rig, TEST_BAR_REGS, reg, 4, v);
}

static void out64(struct rig *rig, unsigned reg, uint64_t v)
{
	rig_write(rig, TEST_BAR_REGS, reg, 8, v);
}

static void start(struct rig *rig, const char *type)
{
	rig_init_driver(rig, &test_device_driver, type, 0);
	rig_hello(rig);
}

/* ---- registers ---- */

static void registers_do_what_their_header_says(void **state)
{
	struct rig rig;
	uint64_t hash = 0;

	start(&rig, "regs");
	assert_int_equal(in32(&rig, TEST_REG_MAGIC), TEST_MAGIC);
	assert_int_equal(in32(&rig, TEST_REG_UNITS), 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(in64(&rig, TEST_REG_COUNTER), i);
	out64(&rig, TEST_REG_COUNTER, 1ULL << 40);
	assert_int_equal(in32(&rig, TEST_REG_COUNTER), 0);
	assert_int_equal(in64(&rig, TEST_REG_COUNTER), (1ULL << 40) + 1);
	for (unsigned i = 5; i; i--) {
		out64(&rig, TEST_REG_HASH, i);
		hash = (hash ^ i) * TEST_HASH_PRIME;
	}
	assert_int_equal(in64(&rig, TEST_REG_HASH), hash);
	for (unsigned i = 1; i < 5; i++)
		out64(&rig, TEST_REG_ECHO, i);
	assert_int_equal(in64(&rig, TEST_REG_GAPS), 0);
	out64(&rig, TEST_REG_ECHO, 4);
	out64(&rig, TEST_REG_ECHO, 5);
	assert_int_equal(in64(&rig, TEST_REG_GAPS), 1);
	assert_int_equal(in64(&rig, TEST_REG_ECHO), 5);
	rig_fini(&rig);
}

static void scratch_takes_any_width(void **state)
{
	struct rig rig;

	start(&rig, "regs");
	out64(&rig, TEST_REG_SCRATCH, 0x1122334455667788);
	rig_write(&rig, 0, TEST_REG_SCRATCH + 3, 1, 0xaa);
	rig_write(&rig, 0, TEST_REG_SCRATCH + 4, 2, 0xbbcc);
	assert_int_equal(in64(&rig, TEST_REG_SCRATCH), 0x1122bbccaa667788);
	assert_int_equal(rig_read(&rig, 0, TEST_REG_SCRATCH + 6, 2), 0x1122);
	assert_int_equal(rig_read(&rig, 0, TEST_REG_SCRATCH + 4, 4), 0x1122bbcc);
	rig_fini(&rig);
}

static void the_other_types_registers_are_not_there(void **state)
{
	struct rig rig;

	start(&rig, "regs");
	for (unsigned reg = TEST_REG_DMA_IOVA; reg < TEST_BAR_REGS_SIZE; reg += 4) {
		out32(&rig, reg, 0xffffffff);
		assert_int_equal(in32(&rig, reg), 0);
	}
	out32(&rig, TEST_REG_RAISE, 1);
	rig_fini(&rig);
	start(&rig, "dma");
	out32(&rig, TEST_REG_INTX, 1);
	assert_int_equal(in32(&rig, TEST_REG_INTX), 0);
	rig_fini(&rig);
}

static void the_pin_follows_its_register(void **state)
{
	struct rig rig;
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	start(&rig, "regs");
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	out32(&rig, TEST_REG_INTX, 0xff);
	assert_int_equal(in32(&rig, TEST_REG_INTX), 1);
	assert_int_equal(take_events(event), 1);
	out32(&rig, TEST_REG_INTX, 0);
	assert_int_equal(take_events(event), 0);
	close(event);
	rig_fini(&rig);
}

static void a_reset_clears_all_but_what_counts_resets(void **state)
{
	struct rig rig;
	uint32_t before;

	start(&rig, "dma");
	before = in32(&rig, TEST_REG_RESETS);
	assert_int_equal(in32(&rig, TEST_REG_LAST_RESET), UMDEV_RESET_OPEN);
	out64(&rig, TEST_REG_SCRATCH, 1);
	out64(&rig, TEST_REG_HASH, 1);
	out32(&rig, TEST_REG_DMA_LEN, 1);
	out32(&rig, TEST_REG_DMA_VECTOR, 1);
	assert_int_equal(rig_call(&rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	assert_int_equal(in32(&rig, TEST_REG_RESETS), before + 1);
	assert_int_equal(in32(&rig, TEST_REG_LAST_RESET), UMDEV_RESET_CLIENT);
	assert_int_equal(in64(&rig, TEST_REG_SCRATCH), 0);
	assert_int_equal(in64(&rig, TEST_REG_HASH), 0);
	assert_int_equal(in32(&rig, TEST_REG_DMA_LEN), 0);
	assert_int_equal(in32(&rig, TEST_REG_DMA_VECTOR), TEST_VECTORS);
	rig_fini(&rig);
}

static void a_successor_goes_on_where_it_was(void **state)
{
	struct rig rig;

	start(&rig, "regs");
	out64(&rig, TEST_REG_HASH, 1);
	in64(&rig, TEST_REG_COUNTER);
	rig_restart(&rig, false);
	assert_int_equal(in64(&rig, TEST_REG_COUNTER), 1);
	assert_int_equal(in64(&rig, TEST_REG_HASH), TEST_HASH_PRIME);
	assert_int_equal(in32(&rig, TEST_REG_RESETS), 1);
	rig_fini(&rig);
}

/* ---- parameters ---- */

static int set_gain(struct umdev_device *dev, void *arg)
{
	static const struct umdev_param gain = { .name = "gain", .type = UMDEV_U32 };
	struct umdev_value value = { .u64 = *(uint32_t *)arg };

	return dev->type->ops->param_set(dev, &gain, &value);
}

static void gain_is_seen_and_may_be_refused(void **state)
{
	struct rig rig;
	uint32_t gain = 7, refused = TEST_GAIN_DEVICE_REFUSES;

	start(&rig, "regs");
	assert_int_equal(vfio_server_event(rig.server, set_gain, &gain), 0);
	assert_int_equal(in32(&rig, TEST_REG_GAIN), 7);
	assert_int_equal(vfio_server_event(rig.server, set_gain, &refused), -ERANGE);
	assert_int_equal(in32(&rig, TEST_REG_GAIN), 7);
	assert_int_equal(rig_call(&rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	assert_int_equal(in32(&rig, TEST_REG_GAIN), 7);
	rig_fini(&rig);
}

/* ---- the engine ---- */

struct guest {
	struct rig rig;
	uint8_t *ram, *mem; /* guest memory as the file lies; BAR 2 as the client maps it */
	int event;          /* vector 3 */
};

static void *map_region(struct rig *rig, uint32_t index)
{
	uint32_t request[8] = { 32, 0, index };
	struct vuser_region_info info;
	void *p;

	assert_int_equal(
		rig_call(rig, VUSER_GET_REGION_INFO, request, sizeof(request), NULL, 0, &reply), 0);
	assert_int_equal(vuser_get_region_info(reply.payload, reply.len, &info), 0);
	assert_int_equal(info.size, TEST_BAR_MEM_SIZE);
	assert_true(reply.fd >= 0);
	p = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, reply.fd, 0);
	assert_true(p != MAP_FAILED);
	close(reply.fd);
	return p;
}

static unsigned find_cap(struct rig *rig, uint8_t id)
{
	unsigned at = rig_read(rig, CONFIG, PCI_CAPABILITY_LIST, 1);

	while (at && rig_read(rig, CONFIG, at, 1) != id)
		at = rig_read(rig, CONFIG, at + PCI_CAP_LIST_NEXT, 1);
	assert_true(at);
	return at;
}

static void guest_init(struct guest *g)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	start(&g->rig, "dma");
	assert_int_equal(ftruncate(fd, 2 * PAGE), 0);
	g->ram = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(rig_map(&g->rig, RAM, PAGE, 3, fd, PAGE), 0);
	assert_int_equal(rig_map(&g->rig, RAM + PAGE, PAGE, 3, fd, 0), 0);
	close(fd);
	g->mem = map_region(&g->rig, TEST_BAR_MEM);
	rig_write(&g->rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	rig_write(&g->rig, CONFIG, find_cap(&g->rig, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS, 2,
		  PCI_MSIX_FLAGS_ENABLE);
	g->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(rig_set_irqs(&g->rig, ARM, VFIO_IRQ_MSIX, 3, 1, &g->event, 1), 0);
	out32(&g->rig, TEST_REG_DMA_VECTOR, 3);
}

static void guest_fini(struct guest *g)
{
	munmap(g->ram, 2 * PAGE);
	munmap(g->mem, TEST_BAR_MEM_SIZE);
	close(g->event);
	rig_fini(&g->rig);
}

static void begin(struct guest *g, enum test_command what, uint64_t iova, uint32_t offset,
		  uint32_t len)
{
	out64(&g->rig, TEST_REG_DMA_IOVA, iova);
	out32(&g->rig, TEST_REG_DMA_OFFSET, offset);
	out32(&g->rig, TEST_REG_DMA_LEN, len);
	out32(&g->rig, TEST_REG_DMA_COMMAND, what);
}

static uint32_t command(struct guest *g, enum test_command what, uint64_t iova, uint32_t offset,
			uint32_t len)
{
	begin(g, what, iova, offset, len);
	return in32(&g->rig, TEST_REG_DMA_STATUS);
}

static void it_copies_both_ways_over_pages(void **state)
{
	struct guest g;

	guest_init(&g);
	for (unsigned i = 0; i < 2 * PAGE; i++)
		g.ram[i] = i * 7 + i / PAGE;
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM + PAGE - 100, 0x300, 200), 0);
	assert_memory_equal(g.mem + 0x300, g.ram + 2 * PAGE - 100, 100);
	assert_memory_equal(g.mem + 0x300 + 100, g.ram, 100);
	assert_int_equal(take_events(g.event), 1);
	memset(g.mem + 0x8000, 'x', TEST_DMA_MAX);
	assert_int_equal(command(&g, TEST_DMA_TO_GUEST, RAM + 8, 0x8000, TEST_DMA_MAX), 0);
	assert_int_equal(g.ram[PAGE + 7], (uint8_t)((PAGE + 7) * 7 + 1));
	assert_int_equal(g.ram[PAGE + 8], 'x');
	assert_int_equal(g.ram[7], 'x');
	assert_int_equal(g.ram[8], 8 * 7);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_DONE), 2);
	guest_fini(&g);
}

static void its_errors_are_in_the_status(void **state)
{
	struct guest g;

	guest_init(&g);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM - 1, 0, 2), EFAULT);
	assert_int_equal(command(&g, TEST_DMA_TO_GUEST, RAM + 2 * PAGE - 1, 0, 2), EFAULT);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM, 0, 0), EINVAL);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM, 0, TEST_DMA_MAX + 1), EINVAL);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM, TEST_BAR_MEM_SIZE - 1, 2), EINVAL);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM, 0xffffffff, 2), EINVAL);
	assert_int_equal(command(&g, 99, RAM, 0, 2), EINVAL);
	assert_int_equal(rig_map(&g.rig, 0x80000, PAGE, 3, -1, 0), 0);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, 0x80000, 0, 2), EREMOTE);
	rig_write(&g.rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(command(&g, TEST_DMA_FROM_GUEST, RAM, 0, 2), EPERM);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_DONE), 9);
	assert_int_equal(take_events(g.event), 9);
	guest_fini(&g);
}

/* Answers the message in `reply`. */
static void answer(struct rig *rig, uint32_t error, const void *data, size_t len)
{
	uint8_t buf[256];
	struct buf_writer w = buf_write_to(buf, sizeof(buf));
	struct vuser_header h = { reply.header.id, reply.header.command, VUSER_HEADER,
				  VUSER_TYPE_REPLY | (error ? VUSER_ERROR : 0), error };

	h.size += error ? 0 : 16 + len;
	vuser_put_header(&w, &h);
	if (!error) {
		buf_put_bytes(&w, reply.payload, 16);
		buf_put_bytes(&w, data, len);
	}
	rig_send_raw(rig, buf, w.len, NULL, 0);
}

static void it_asks_and_tells_by_message(void **state)
{
	struct guest g;

	guest_init(&g);
	begin(&g, TEST_DMA_ASK, 0x123456, 0x40, 5);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_DMA_READ);
	assert_int_equal(take_events(g.event), 0);
	answer(&g.rig, 0, "hello", 5);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_STATUS), 0);
	assert_memory_equal(g.mem + 0x40, "hello", 6);
	assert_int_equal(take_events(g.event), 1);
	begin(&g, TEST_DMA_TELL, 0x123456, 0x40, 5);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_DMA_WRITE);
	assert_memory_equal(reply.payload + 16, "hello", 5);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_DONE), 1);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_STATUS), TEST_DMA_BUSY);
	answer(&g.rig, ENODEV, NULL, 0);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_STATUS), ENODEV);
	assert_int_equal(in32(&g.rig, TEST_REG_DMA_DONE), 2);
	guest_fini(&g);
}

static void a_vector_is_raised_by_number(void **state)
{
	struct guest g;

	guest_init(&g);
	out32(&g.rig, TEST_REG_RAISE, 3);
	assert_int_equal(take_events(g.event), 1);
	out32(&g.rig, TEST_REG_RAISE, 2);
	out32(&g.rig, TEST_REG_RAISE, TEST_VECTORS);
	out32(&g.rig, TEST_REG_RAISE, 0xffffffff);
	assert_int_equal(take_events(g.event), 0);
	assert_int_equal(rig_read(&g.rig, TEST_BAR_MSIX, TEST_BAR_MSIX_SIZE / 2, 8), 1 << 2);
	guest_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers_do_what_their_header_says),
		cmocka_unit_test(scratch_takes_any_width),
		cmocka_unit_test(the_other_types_registers_are_not_there),
		cmocka_unit_test(the_pin_follows_its_register),
		cmocka_unit_test(a_reset_clears_all_but_what_counts_resets),
		cmocka_unit_test(a_successor_goes_on_where_it_was),
		cmocka_unit_test(gain_is_seen_and_may_be_refused),
		cmocka_unit_test(it_copies_both_ways_over_pages),
		cmocka_unit_test(its_errors_are_in_the_status),
		cmocka_unit_test(it_asks_and_tells_by_message),
		cmocka_unit_test(a_vector_is_raised_by_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
