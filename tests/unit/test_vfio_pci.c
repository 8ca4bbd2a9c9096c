// SPDX-License-Identifier: MIT
/* Configuration space, resets and interrupts of the vfio-user server. */
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

#define CONFIG VFIO_REGION_CONFIG
#define ARM (VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_TRIGGER)
#define RELEASE (VUSER_IRQ_DATA_NONE | VUSER_IRQ_TRIGGER)
#define MASK (VUSER_IRQ_DATA_NONE | VUSER_IRQ_MASK)
#define UNMASK (VUSER_IRQ_DATA_NONE | VUSER_IRQ_UNMASK)

static int new_event(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

/* Offset of a capability, found as a guest does. */
static unsigned find_cap(struct rig *rig, uint8_t id)
{
	unsigned at = rig_read(rig, CONFIG, PCI_CAPABILITY_LIST, 1);

	assert_true(rig_read(rig, CONFIG, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
	for (int i = 0; at && i < 48; i++) {
		if (rig_read(rig, CONFIG, at, 1) == id)
			return at;
		at = rig_read(rig, CONFIG, at + 1, 1);
	}
	return 0;
}

static void bars_tell_their_sizes(void **state)
{
	struct rig rig;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	for (unsigned i = 0; i < 6; i++)
		rig_write(&rig, CONFIG, PCI_BASE_ADDRESS_0 + 4 * i, 4, 0xffffffff);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_0, 4), 0xffffff04);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_1, 4), 0xffffffff);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_2, 4), 0xffffc008);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_4, 4), 0xfffff000);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_5, 4), 0);
	rig_write(&rig, CONFIG, PCI_ROM_ADDRESS, 4, 0xffffffff);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_ROM_ADDRESS, 4), 0);
	rig_write(&rig, CONFIG, PCI_BASE_ADDRESS_1, 4, 0x12);
	rig_write(&rig, CONFIG, PCI_BASE_ADDRESS_0 + 3, 1, 0xab); /* one byte of it */
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_0, 8), 0x12abffff04);
	rig_fini(&rig);
	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	rig_write(&rig, CONFIG, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_BASE_ADDRESS_1, 4), 0xfffffff9);
	rig_fini(&rig);
}

static void identity_cannot_be_written(void **state)
{
	struct rig rig;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	for (unsigned at = 0; at < 256; at += 4) {
		if (at != PCI_COMMAND && at != 0x44)
			rig_write(&rig, CONFIG, at, 4, 0xffffffff);
	}
	assert_int_equal(rig_read(&rig, CONFIG, PCI_VENDOR_ID, 4), 0x56781234);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_CLASS_REVISION, 4), 0x07000203);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_INTERRUPT_LINE, 2), 0x1ff);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_CAPABILITY_LIST, 1), 0x40);
	rig_write(&rig, CONFIG, PCI_COMMAND, 4, 0xffffffff);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_COMMAND, 4), 0x00100547);
	rig_fini(&rig);
}

static void capabilities_can_be_walked(void **state)
{
	struct rig rig;
	unsigned at;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	assert_int_not_equal(find_cap(&rig, PCI_CAP_ID_PM), 0);
	assert_int_equal(find_cap(&rig, PCI_CAP_ID_MSI), 0);
	at = find_cap(&rig, PCI_CAP_ID_MSIX);
	assert_int_equal(rig_read(&rig, CONFIG, at + PCI_MSIX_FLAGS, 2), 69);
	assert_int_equal(rig_read(&rig, CONFIG, at + PCI_MSIX_PBA, 4), 0x804);
	at = find_cap(&rig, PCI_CAP_ID_EXP);
	assert_int_equal(rig_read(&rig, CONFIG, at + PCI_EXP_FLAGS, 2), 2);
	assert_true(rig_read(&rig, CONFIG, at + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR);
	assert_int_equal(rig_read(&rig, CONFIG, 0x100, 4), 0);
	assert_int_equal(rig_read(&rig, CONFIG, 0xffc, 4), 0);
	rig_fini(&rig);
	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	at = find_cap(&rig, PCI_CAP_ID_MSI);
	assert_int_equal(rig_read(&rig, CONFIG, at + PCI_MSI_FLAGS, 2), 0x84);
	assert_int_equal(find_cap(&rig, PCI_CAP_ID_EXP), 0);
	rig_fini(&rig);
}

/* ---- resets ---- */

static void function_level_reset_starts_over(void **state)
{
	struct rig rig;
	unsigned at;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	at = find_cap(&rig, PCI_CAP_ID_EXP) + PCI_EXP_DEVCTL;
	rig_write(&rig, 0, RIG_SCRATCH, 8, 0x1122334455667788);
	rig_write(&rig, CONFIG, PCI_COMMAND, 2, 6);
	rig_write(&rig, CONFIG, at, 2, 0x2810);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 8), 0x1122334455667788);
	rig_write(&rig, CONFIG, at, 2, 0x2810 | PCI_EXP_DEVCTL_BCR_FLR);
	assert_int_equal(rig_state(&rig)->last_reset, UMDEV_RESET_FUNCTION);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 8), 0);
	assert_int_equal(rig_read(&rig, CONFIG, PCI_COMMAND, 2), 0);
	assert_int_equal(rig_read(&rig, CONFIG, at, 2), 0x2810);
	rig_fini(&rig);
}

static void sleeping_device_answers_all_ones(void **state)
{
	struct rig rig;
	unsigned at;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	at = find_cap(&rig, PCI_CAP_ID_PM) + PCI_PM_CTRL;
	rig_write(&rig, 0, RIG_SCRATCH, 4, 5);
	rig_write(&rig, CONFIG, at, 2, 1); /* D1: not ours */
	assert_int_equal(rig_read(&rig, CONFIG, at, 2), 0);
	rig_write(&rig, CONFIG, at, 2, 3);
	assert_int_equal(rig_read(&rig, CONFIG, at, 2), 3);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 4), 0xffffffff);
	rig_write(&rig, 0, RIG_SCRATCH, 4, 6);
	rig_write(&rig, CONFIG, at, 2, 0);
	assert_int_equal(rig_state(&rig)->last_reset, UMDEV_RESET_FUNCTION);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 4), 0);
	rig_fini(&rig);
}

/* ---- INTx ---- */

static void intx_is_a_level(void **state)
{
	struct rig rig;
	int event = new_event();

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_true(rig_read(&rig, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	assert_int_equal(take_events(event), 1); /* was asserted before it was armed */
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 0); /* masked by the first one */
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 1); /* still asserted */
	rig_write(&rig, 0, RIG_INTX, 4, 0);
	assert_false(rig_read(&rig, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 0);
	assert_int_equal(rig_set_irqs(&rig, MASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 0);
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 1);
	assert_int_equal(rig_set_irqs(&rig, RELEASE, VFIO_IRQ_INTX, 0, 0, NULL, 0), 0);
	assert_int_equal(rig_set_irqs(&rig, UNMASK, VFIO_IRQ_INTX, 0, 1, NULL, 0), 0);
	assert_int_equal(take_events(event), 0);
	rig_fini(&rig);
	close(event);
}

static void intx_obeys_command_register(void **state)
{
	struct rig rig;
	int event = new_event();

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	rig_write(&rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 0);
	assert_true(rig_read(&rig, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	rig_write(&rig, CONFIG, PCI_COMMAND, 2, 0);
	assert_int_equal(take_events(event), 1);
	assert_int_equal(rig_call(&rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	assert_false(rig_read(&rig, CONFIG, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 1); /* armed still, the mask is gone */
	rig_fini(&rig);
	close(event);
}

static void intx_is_unmasked_by_eventfd(void **state)
{
	struct rig rig;
	int event = new_event(), unmask = new_event();
	uint64_t one = 1;
	unsigned fds;

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	fds = count_fds();
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	assert_int_equal(rig_set_irqs(&rig, VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_UNMASK,
				      VFIO_IRQ_INTX, 0, 1, &unmask, 1),
			 0);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 1);
	assert_int_equal(write(unmask, &one, sizeof(one)), sizeof(one));
	rig_settle(&rig);
	assert_int_equal(take_events(unmask), 0);
	assert_int_equal(take_events(event), 1); /* still asserted */
	rig_restart(&rig, false);                /* that may have lost an unmask */
	assert_int_equal(take_events(event), 1);
	rig_write(&rig, 0, RIG_INTX, 4, 0);
	assert_int_equal(write(unmask, &one, sizeof(one)), sizeof(one));
	rig_settle(&rig);
	assert_int_equal(take_events(event), 0);
	assert_int_equal(rig_set_irqs(&rig, VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_MASK, VFIO_IRQ_INTX,
				      0, 1, &unmask, 1),
			 ENOTTY);
	assert_int_equal(rig_set_irqs(&rig, RELEASE, VFIO_IRQ_INTX, 0, 0, NULL, 0), 0);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(write(unmask, &one, sizeof(one)), sizeof(one));
	rig_settle(&rig);
	assert_int_equal(take_events(unmask), 1); /* nobody listens any more */
	rig_fini(&rig);
	close(event);
	close(unmask);
}

static void client_is_asked_to_release_the_device(void **state)
{
	struct rig rig;
	int event = new_event();

	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	vfio_server_ask_release(rig.server); /* it does not listen */
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_REQ, 0, 1, &event, 1), 0);
	assert_int_equal(take_events(event), 0);
	vfio_server_ask_release(rig.server);
	assert_int_equal(take_events(event), 1);
	rig_fini(&rig);
	close(event);
}

/* ---- MSI, MSI-X ---- */

static void msi_shares_vectors_that_were_not_given(void **state)
{
	struct rig rig;
	int events[4];
	unsigned at;

	for (int i = 0; i < 4; i++)
		events[i] = new_event();
	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	at = find_cap(&rig, PCI_CAP_ID_MSI) + PCI_MSI_FLAGS;
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSI, 0, 4, events, 4), 0);
	rig_write(&rig, 0, RIG_RAISE, 4, 3); /* not enabled: no such event */
	rig_write(&rig, CONFIG, at, 2, PCI_MSI_FLAGS_ENABLE | 1 << 4); /* two of four */
	rig_write(&rig, 0, RIG_RAISE, 4, 3);
	rig_write(&rig, 0, RIG_RAISE, 4, 2);
	assert_int_equal(take_events(events[0]), 1);
	assert_int_equal(take_events(events[1]), 1);
	rig_write(&rig, CONFIG, at, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
	rig_write(&rig, 0, RIG_RAISE, 4, 3);
	assert_int_equal(take_events(events[3]), 1);
	assert_int_equal(take_events(events[1]), 0);
	rig_write(&rig, 0, RIG_INTX, 4, 1); /* no pin interrupt while MSI is on */
	rig_fini(&rig);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(take_events(events[i]), 0);
		close(events[i]);
	}
}

static void msix_keeps_what_it_cannot_deliver(void **state)
{
	struct rig rig;
	int event = new_event(), other = new_event();
	unsigned at;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	at = find_cap(&rig, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS;
	rig_write(&rig, CONFIG, at, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	/* As QEMU does: a vector without descriptor, then one at a time. */
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSIX, 0, 1, NULL, 0), 0);
	rig_write(&rig, CONFIG, at, 2, PCI_MSIX_FLAGS_ENABLE);
	rig_write(&rig, 0, RIG_RAISE, 4, 69);
	rig_write(&rig, 0, RIG_RAISE, 4, 2);
	assert_int_equal(rig_read(&rig, 4, 0x800, 8), 1 << 2);
	assert_int_equal(rig_read(&rig, 4, 0x808, 8), 1 << 5);
	assert_int_equal(rig_read(&rig, 4, 0x808, 1), 1 << 5);
	assert_int_equal(rig_read(&rig, 4, 0x80a, 2), 0);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSIX, 69, 1, &event, 1), 0);
	assert_int_equal(take_events(event), 1);
	assert_int_equal(rig_read(&rig, 4, 0x808, 8), 0);
	rig_write(&rig, CONFIG, at, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	rig_write(&rig, 0, RIG_RAISE, 4, 69);
	assert_int_equal(take_events(event), 0);
	rig_write(&rig, CONFIG, at, 2, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(take_events(event), 1);
	/* Released vector k > 0 does not fire; a new descriptor gets what happened meanwhile. */
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSIX, 69, 1, NULL, 0), 0);
	rig_write(&rig, 0, RIG_RAISE, 4, 69);
	assert_int_equal(take_events(event), 0);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSIX, 69, 1, &other, 1), 0);
	assert_int_equal(take_events(other), 1);
	/* Off and on again: what was pending is forgotten. */
	assert_int_equal(rig_read(&rig, 4, 0x800, 8), 1 << 2);
	rig_write(&rig, CONFIG, at, 2, 0);
	rig_write(&rig, CONFIG, at, 2, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(rig_read(&rig, 4, 0x800, 8), 0);
	rig_fini(&rig);
	close(event);
	close(other);
}

static void msix_table_is_memory_without_effect(void **state)
{
	struct rig rig;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	assert_int_equal(rig_read(&rig, 4, 69 * 16 + 12, 4), 1); /* masked after reset */
	rig_write(&rig, 4, 16, 8, 0xfee0000012345678);
	rig_write(&rig, 4, 24, 4, 0x4041);
	rig_write(&rig, 4, 28, 1, 0);
	assert_int_equal(rig_read(&rig, 4, 16, 8), 0xfee0000012345678);
	assert_int_equal(rig_read(&rig, 4, 24, 8), 0x4041);
	rig_write(&rig, 4, 0x800, 8, 0xffffffffffffffff);
	assert_int_equal(rig_read(&rig, 4, 0x800, 8), 0);
	assert_int_equal(rig_read(&rig, 4, 70 * 16, 4), 0xbb); /* behind it: the driver's */
	assert_int_equal(rig_call(&rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	assert_int_equal(rig_read(&rig, 4, 24, 8), 1ull << 32);
	rig_fini(&rig);
}

static void client_fires_vectors_itself(void **state)
{
	struct rig rig;
	int events[2] = { new_event(), new_event() };
	struct {
		uint32_t head[5];
		uint8_t bools[4];
	} request = { { 22, VUSER_IRQ_DATA_BOOL | VUSER_IRQ_TRIGGER, VFIO_IRQ_MSIX, 3, 2 },
		      { 0, 1 } };

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_MSIX, 3, 2, events, 2), 0);
	assert_int_equal(rig_set_irqs(&rig, RELEASE, VFIO_IRQ_MSIX, 3, 2, NULL, 0), 0);
	assert_int_equal(take_events(events[0]), 1);
	assert_int_equal(take_events(events[1]), 1);
	assert_int_equal(rig_call(&rig, VUSER_SET_IRQS, &request, 22, NULL, 0, NULL), 0);
	assert_int_equal(take_events(events[0]), 0);
	assert_int_equal(take_events(events[1]), 1);
	assert_int_equal(rig_call(&rig, VUSER_SET_IRQS, &request, 21, NULL, 0, NULL), EINVAL);
	rig_fini(&rig);
	close(events[0]);
	close(events[1]);
}

static void full_counter_never_blocks_us(void **state)
{
	struct rig rig;
	int event = eventfd(0, EFD_CLOEXEC); /* blocking */
	uint64_t full = UINT64_MAX - 1;

	assert_int_equal(write(event, &full, sizeof(full)), sizeof(full));
	rig_init(&rig, &rig_plain);
	rig_hello(&rig);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	rig_write(&rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(rig_read(&rig, 0, RIG_SCRATCH, 4), 0);
	rig_fini(&rig);
	close(event);
}

static void wrong_interrupt_requests_are_refused(void **state)
{
	struct rig rig;
	int event = new_event(), file = memfd_create("x", MFD_CLOEXEC);
	int many[3] = { event, event, event };
	unsigned fds;

	rig_init(&rig, &rig_express);
	rig_hello(&rig);
	fds = count_fds();
#define REFUSED(error, ...) assert_int_equal(rig_set_irqs(&rig, __VA_ARGS__), error)
	REFUSED(EINVAL, ARM, 5, 0, 1, &event, 1);              /* no such kind */
	REFUSED(EINVAL, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1);  /* no pin */
	REFUSED(EINVAL, ARM, VFIO_IRQ_ERR, 0, 1, &event, 1);   /* none of them */
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, 70, 1, &event, 1); /* behind the last */
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, 69, 2, many, 2);
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, UINT32_MAX, 2, many, 2); /* wraps */
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, 0, 2, many, 3);
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, 0, 3, many, 2);
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, 0, 1, &file, 1); /* not an eventfd */
	REFUSED(EINVAL, ARM, VFIO_IRQ_MSIX, 0, 0, NULL, 0);
	REFUSED(EINVAL, RELEASE, VFIO_IRQ_MSIX, 1, 0, NULL, 0);
	REFUSED(EINVAL, RELEASE, VFIO_IRQ_MSIX, 0, 1, &event, 1);
	REFUSED(EINVAL, RELEASE | VUSER_IRQ_DATA_BOOL, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
	REFUSED(EINVAL, RELEASE | VUSER_IRQ_MASK, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
	REFUSED(EINVAL, VUSER_IRQ_DATA_NONE, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
	REFUSED(EINVAL, VUSER_IRQ_TRIGGER, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
	REFUSED(EINVAL, RELEASE | 64, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
	REFUSED(ENOTTY, MASK, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
	REFUSED(ENOTTY, UNMASK, VFIO_IRQ_MSIX, 0, 1, NULL, 0);
#undef REFUSED
	assert_int_equal(count_fds(), fds);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_REQ, 0, 1, &event, 1), 0);
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(rig_set_irqs(&rig, ARM, VFIO_IRQ_REQ, 0, 1, &event, 1), 0);
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(rig_set_irqs(&rig, RELEASE, VFIO_IRQ_REQ, 0, 0, NULL, 0), 0);
	assert_int_equal(count_fds(), fds);
	rig_fini(&rig);
	close(event);
	close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bars_tell_their_sizes),
		cmocka_unit_test(identity_cannot_be_written),
		cmocka_unit_test(capabilities_can_be_walked),
		cmocka_unit_test(function_level_reset_starts_over),
		cmocka_unit_test(sleeping_device_answers_all_ones),
		cmocka_unit_test(intx_is_a_level),
		cmocka_unit_test(intx_obeys_command_register),
		cmocka_unit_test(intx_is_unmasked_by_eventfd),
		cmocka_unit_test(client_is_asked_to_release_the_device),
		cmocka_unit_test(msi_shares_vectors_that_were_not_given),
		cmocka_unit_test(msix_keeps_what_it_cannot_deliver),
		cmocka_unit_test(msix_table_is_memory_without_effect),
		cmocka_unit_test(client_fires_vectors_itself),
		cmocka_unit_test(full_counter_never_blocks_us),
		cmocka_unit_test(wrong_interrupt_requests_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
