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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(qemu_boots_with_intx),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
