// SPDX-License-Identifier: MIT
/* Guest memory through the vfio-user server, and devices continued by another life. */
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
#define RW (VUSER_DMA_R | VUSER_DMA_W)
#define PAGE 4096

static struct rig_reply reply;

struct guest {
	struct rig rig;
	int fd;
	uint64_t *ram; /* 16 pages */
};

/* A connected device that may master the bus, and memory that is not mapped yet. */
static void guest_init(struct guest *g)
{
	g->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(g->fd, 16 * PAGE), 0);
	g->ram = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
	assert_ptr_not_equal(g->ram, MAP_FAILED);
	rig_init(&g->rig, &rig_plain);
	rig_hello(&g->rig);
	rig_write(&g->rig, CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
}

static void guest_fini(struct guest *g)
{
	rig_fini(&g->rig);
	munmap(g->ram, 16 * PAGE);
	close(g->fd);
}

/* Runs a command of the device at iova; its status. */
static unsigned device_dma(struct rig *rig, uint64_t iova, unsigned command)
{
	rig_write(rig, 0, RIG_IOVA, 8, iova);
	rig_write(rig, 0, RIG_COMMAND, 4, command);
	return rig_read(rig, 0, RIG_STATUS, 4);
}

/* ---- maps ---- */

static void device_reaches_mapped_memory(void **state)
{
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0x100000, 2 * PAGE, RW, g.fd, PAGE), 0);
	g.ram[PAGE / 8 + 1] = 0x1122334455667788;
	assert_int_equal(device_dma(&g.rig, 0x100008, RIG_DMA_READ), 0);
	assert_int_equal(rig_read(&g.rig, 0, RIG_DATA, 8), 0x1122334455667788);
	rig_write(&g.rig, 0, RIG_DATA, 8, 0xabcdef);
	assert_int_equal(device_dma(&g.rig, 0x101ff8, RIG_DMA_WRITE), 0);
	assert_int_equal(g.ram[3 * PAGE / 8 - 1], 0xabcdef);
	assert_int_equal(device_dma(&g.rig, 0x102000, RIG_DMA_READ), EFAULT);
	assert_int_equal(device_dma(&g.rig, 0x101ffc, RIG_DMA_WRITE), EFAULT);
	assert_int_equal(device_dma(&g.rig, UINT64_MAX - 3, RIG_DMA_READ), EFAULT);
	rig_write(&g.rig, CONFIG, PCI_COMMAND, 2, 0);
	assert_int_equal(device_dma(&g.rig, 0x100008, RIG_DMA_READ), EPERM);
	assert_int_equal(device_dma(&g.rig, 0x100008, RIG_DMA_WRITE), EPERM);
	assert_int_equal(device_dma(&g.rig, 0x100008, RIG_MESSAGE_READ), EPERM);
	guest_fini(&g);
}

static void protection_of_maps_is_honoured(void **state)
{
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, VUSER_DMA_R, g.fd, 0), 0);
	assert_int_equal(rig_map(&g.rig, PAGE, PAGE, VUSER_DMA_R, -1, 0), 0);
	assert_int_equal(device_dma(&g.rig, 0, RIG_DMA_WRITE), EFAULT);
	assert_int_equal(device_dma(&g.rig, 0, RIG_DMA_READ), 0);
	assert_int_equal(device_dma(&g.rig, PAGE, RIG_DMA_READ), EREMOTE);
	guest_fini(&g);
}

static void wrong_maps_are_refused(void **state)
{
	struct guest g;
	unsigned fds;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, RW, g.fd, 0), 0);
	fds = count_fds();
#define REFUSED(error, ...) assert_int_equal(rig_map(&g.rig, __VA_ARGS__), error)
	REFUSED(EEXIST, 0, PAGE, RW, g.fd, 0);
	REFUSED(EINVAL, PAGE, 0, RW, g.fd, 0);
	REFUSED(EINVAL, PAGE, 100, RW, g.fd, 0);
	REFUSED(EINVAL, PAGE + 1, PAGE, RW, g.fd, 0);
	REFUSED(EINVAL, UINT64_MAX - PAGE + 1, 2 * PAGE, RW, g.fd, 0);
	REFUSED(EINVAL, UINT64_MAX - PAGE + 1, 2 * PAGE, RW, -1, 0);
	REFUSED(EINVAL, PAGE, 0, RW, -1, 0);
	REFUSED(EOVERFLOW, PAGE, 17 * PAGE, RW, g.fd, 0);
	REFUSED(EOVERFLOW, PAGE, PAGE, RW, g.fd, 16 * PAGE);
	REFUSED(EINVAL, PAGE, PAGE, 0, g.fd, 0);
	REFUSED(EINVAL, PAGE, PAGE, 16 | RW, g.fd, 0);
#undef REFUSED
	assert_int_equal(count_fds(), fds);
	assert_int_equal(dma_n_maps(g.rig.server->dma), 1);
	assert_int_equal(rig_map(&g.rig, PAGE, PAGE, RW, g.fd, 0), 0); /* same file: no new fd */
	assert_int_equal(count_fds(), fds);
	guest_fini(&g);
}

static void unmap_forms(void **state)
{
	struct vuser_dma_unmap m = { 24, 0, 0, PAGE };
	uint8_t payload[24];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	struct guest g;
	unsigned fds;

	guest_init(&g);
	fds = count_fds();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rig_map(&g.rig, i * PAGE, PAGE, RW, g.fd, i * PAGE), 0);
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(rig_unmap(&g.rig, 16 * PAGE, PAGE, 0), 0);  /* QEMU does: nothing there */
	assert_int_equal(rig_unmap(&g.rig, 0, PAGE / 2, 0), EINVAL); /* would split a map */
	assert_int_equal(rig_unmap(&g.rig, 3 * PAGE, 2 * PAGE, 0), EINVAL);
	assert_int_equal(rig_unmap(&g.rig, 0, 0, 4), EINVAL);
	assert_int_equal(rig_unmap(&g.rig, 0, PAGE, VUSER_UNMAP_ALL), EINVAL);
	assert_int_equal(dma_n_maps(g.rig.server->dma), 4);
	vuser_put_dma_unmap(&w, &m);
	assert_int_equal(rig_call(&g.rig, VUSER_DMA_UNMAP, payload, 24, &g.fd, 1, NULL), 0);
	assert_int_equal(dma_n_maps(g.rig.server->dma), 3);
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(rig_unmap(&g.rig, PAGE, 2 * PAGE, 0), 0); /* a run of maps */
	assert_int_equal(dma_n_maps(g.rig.server->dma), 1);
	assert_int_equal(rig_unmap(&g.rig, 0, 0, VUSER_UNMAP_ALL), 0);
	assert_int_equal(dma_n_maps(g.rig.server->dma), 0);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(rig_unmap(&g.rig, 0, 0, VUSER_UNMAP_ALL), 0);
	guest_fini(&g);
}

static void unmap_is_answered_when_nothing_uses_the_range(void **state)
{
	struct vuser_dma_unmap m = { 24, 0, 0, PAGE };
	uint8_t payload[24];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	uint32_t info[4] = { 16 };
	struct dma_pin pin;
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, RW, g.fd, 0), 0);
	dma_pin(g.rig.server->dma, NULL, &pin, 0, 8);
	vuser_put_dma_unmap(&w, &m);
	rig_send(&g.rig, VUSER_DMA_UNMAP, 0, payload, 24, NULL, 0);
	rig_send(&g.rig, VUSER_GET_INFO, 0, info, 16, NULL, 0);
	rig_send(&g.rig, VUSER_GET_INFO, 0, info, 16, NULL, 0);
	assert_false(rig_receive(&g.rig, &reply));
	dma_unpin(g.rig.server->dma, NULL, &pin);
	rig_settle(&g.rig);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_DMA_UNMAP);
	assert_int_equal(reply.header.flags, VUSER_TYPE_REPLY);
	assert_int_equal(reply.len, 24);
	assert_true(rig_receive(&g.rig, &reply));
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_GET_INFO);
	assert_int_equal(reply.header.id, g.rig.id);
	guest_fini(&g);
}

static void unmap_that_never_quiesces_fails_the_device(void **state)
{
	struct vuser_dma_unmap m = { 24, 0, 0, PAGE };
	uint8_t payload[24];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	struct dma_pin pin;
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, RW, g.fd, 0), 0);
	dma_pin(g.rig.server->dma, NULL, &pin, 0, 8);
	vuser_put_dma_unmap(&w, &m);
	rig_send(&g.rig, VUSER_DMA_UNMAP, 0, payload, 24, NULL, 0);
	g.rig.server->quiesce.deadline.at_ns = 1; /* three seconds later */
	rig_settle(&g.rig);
	assert_int_equal(vfio_server_state(g.rig.server), VFIO_CLOSING);
	assert_int_equal(g.rig.n_closed, 0); /* no time-out passes the fence */
	g.rig.server->quiesce.deadline.at_ns = 1;
	rig_settle(&g.rig);
	assert_int_equal(g.rig.n_faulty, 1);
	assert_int_equal(vfio_server_connect(g.rig.server, dup(g.fd)), -EBUSY);
	dma_unpin(g.rig.server->dma, NULL, &pin);
	rig_settle(&g.rig);
	assert_int_equal(g.rig.n_closed, 0);
	g.rig.server->timer.at_ns = 1; /* it tries once a second */
	rig_settle(&g.rig);
	assert_int_equal(g.rig.n_closed, 1);
	assert_int_equal(g.rig.reason, VFIO_CLOSE_FAULT);
	assert_true(rig_is_hung_up(&g.rig));
	guest_fini(&g);
}

static void hang_up_while_an_unmap_waits(void **state)
{
	struct vuser_dma_unmap m = { 24, 0, 0, PAGE };
	uint8_t payload[24];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	struct dma_pin pin;
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, RW, g.fd, 0), 0);
	dma_pin(g.rig.server->dma, NULL, &pin, 0, 8);
	vuser_put_dma_unmap(&w, &m);
	rig_send(&g.rig, VUSER_DMA_UNMAP, 0, payload, 24, NULL, 0);
	rig_send(&g.rig, VUSER_RESET, 0, NULL, 0, NULL, 0);
	close(g.rig.client);
	g.rig.client = -1;
	rig_settle(&g.rig);
	assert_int_equal(g.rig.n_closed, 0);
	dma_unpin(g.rig.server->dma, NULL, &pin);
	rig_settle(&g.rig);
	assert_int_equal(g.rig.n_closed, 1);
	guest_fini(&g);
}

/* Each hook has all the room it was promised, however many run in one message. */
static void every_hook_may_write_guest_memory(void **state)
{
	static uint8_t payload[8 + 24 * 40];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	struct guest g;
	uint64_t n = 20;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, 16 * PAGE, RW, g.fd, 0), 0);
	buf_put_u64(&w, 2 * n);
	for (uint64_t i = 0; i < n; i++) {
		struct vuser_access iova = { RIG_IOVA, 0, 8, NULL };
		struct vuser_access command = { RIG_COMMAND, 0, 4, NULL };

		vuser_put_access(&w, &iova);
		buf_put_u64(&w, i % 16 * PAGE);
		vuser_put_access(&w, &command);
		buf_put_u64(&w, RIG_DMA_WRITE_BIG);
	}
	rig_write(&g.rig, 0, RIG_DATA, 8, 0x5a);
	assert_int_equal(rig_call(&g.rig, VUSER_REGION_WRITE_MULTI, payload, w.len, NULL, 0, NULL),
			 0);
	assert_int_equal(rig_read(&g.rig, 0, RIG_STATUS, 4), 0);
	for (unsigned i = 0; i < 16 * PAGE / 8; i++)
		assert_int_equal(g.ram[i], 0x5a5a5a5a5a5a5a5a);
	assert_int_equal(g.rig.n_faulty, 0);
	guest_fini(&g);
}

/* ---- DMA by message ---- */

static void answer(struct rig *rig, uint32_t flags, uint32_t error, const void *payload, size_t len)
{
	uint8_t data[256];
	struct buf_writer w = buf_write_to(data, sizeof(data));
	struct vuser_header h = { reply.header.id, reply.header.command, VUSER_HEADER + len,
				  VUSER_TYPE_REPLY | flags, error };

	vuser_put_header(&w, &h);
	buf_put_bytes(&w, payload, len);
	rig_send_raw(rig, data, w.len, NULL, 0);
}

static void message_read_and_write(void **state)
{
	uint64_t data[3];
	struct guest g;

	guest_init(&g);
	rig_write(&g.rig, 0, RIG_IOVA, 8, 0x5000);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_DMA_READ);
	assert_int_equal(reply.len, 16);
	memcpy(data, reply.payload, 16);
	assert_int_equal(data[0], 0x5000);
	assert_int_equal(data[1], 8);
	data[2] = 0x123456789a;
	answer(&g.rig, 0, 0, data, 24);
	assert_int_equal(rig_read(&g.rig, 0, RIG_DONE, 4), 1);
	assert_int_equal(rig_read(&g.rig, 0, RIG_STATUS, 4), 0);
	assert_int_equal(rig_read(&g.rig, 0, RIG_DATA, 8), 0x123456789a);
	/* Three forms of the answer to a write are in use. */
	for (unsigned i = 0; i < 3; i++) {
		static const size_t lens[] = { 16, 12, 0 };

		rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_WRITE);
		assert_true(rig_receive(&g.rig, &reply));
		assert_int_equal(reply.header.command, VUSER_DMA_WRITE);
		assert_int_equal(reply.len, 24);
		memcpy(data, reply.payload, 24);
		assert_int_equal(data[2], 0x123456789a);
		answer(&g.rig, 0, 0, data, lens[i]);
		assert_int_equal(rig_read(&g.rig, 0, RIG_DONE, 4), 2 + i);
	}
	guest_fini(&g);
}

static void message_errors_reach_the_device(void **state)
{
	uint64_t data[3] = { 0x5000, 4, 0 };
	struct guest g;

	guest_init(&g);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	answer(&g.rig, VUSER_ERROR, ENODEV, NULL, 0);
	assert_int_equal(rig_read(&g.rig, 0, RIG_STATUS, 4), ENODEV);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	answer(&g.rig, 0, 0, data, 20); /* four bytes instead of eight */
	assert_int_equal(rig_read(&g.rig, 0, RIG_STATUS, 4), EIO);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	answer(&g.rig, VUSER_ERROR, 0, NULL, 0);
	assert_int_equal(rig_read(&g.rig, 0, RIG_STATUS, 4), EIO);
	assert_int_equal(rig_read(&g.rig, 0, RIG_DONE, 4), 3);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	reply.header.command = VUSER_DMA_WRITE; /* the right number, the wrong kind */
	answer(&g.rig, 0, 0, NULL, 0);
	assert_true(rig_is_hung_up(&g.rig));
	guest_fini(&g);
}

static void messages_are_bounded_and_interleave(void **state)
{
	uint16_t ids[UMDEV_DMA_MESSAGES];
	uint64_t data[3] = { 0, 8, 0 };
	struct guest g;

	guest_init(&g);
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
		assert_true(rig_receive(&g.rig, &reply));
		ids[i] = reply.header.id;
	}
	assert_int_equal(device_dma(&g.rig, 0, RIG_MESSAGE_READ), EBUSY);
	for (unsigned i = UMDEV_DMA_MESSAGES; i-- > 0;) { /* in another order */
		data[2] = 1000 + i;
		reply.header.id = ids[i];
		reply.header.command = VUSER_DMA_READ;
		answer(&g.rig, 0, 0, data, 24);
		assert_int_equal(rig_read(&g.rig, 0, RIG_DATA, 8), 1000 + i);
	}
	assert_int_equal(rig_read(&g.rig, 0, RIG_DONE, 4), UMDEV_DMA_MESSAGES);
	guest_fini(&g);
}

/* The answer of an access leaves before a message that the access caused. */
static void message_follows_the_answer(void **state)
{
	uint32_t write[5] = { RIG_COMMAND, 0, 0, 4, RIG_MESSAGE_READ };
	struct guest g;

	guest_init(&g);
	rig_send(&g.rig, VUSER_REGION_WRITE, 0, write, sizeof(write), NULL, 0);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_REGION_WRITE);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_DMA_READ);
	guest_fini(&g);
}

static void ids_of_messages_never_collide(void **state)
{
	uint64_t data[3] = { 0, 8, 0 };
	struct guest g;
	uint16_t first;

	guest_init(&g);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	first = reply.header.id; /* not answered for 65,536 messages */
	for (unsigned i = 0; i < 65540; i++) {
		rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
		assert_true(rig_receive(&g.rig, &reply));
		assert_int_not_equal(reply.header.id, first);
		answer(&g.rig, 0, 0, data, 24);
	}
	guest_fini(&g);
}

static void reset_forgets_messages(void **state)
{
	uint64_t data[3] = { 0, 8, 0 };
	struct vuser_header asked;
	struct guest g;

	guest_init(&g);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	asked = reply.header;
	assert_int_equal(rig_call(&g.rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), 0);
	reply.header = asked;
	answer(&g.rig, 0, 0, data, 24); /* late, legal, unheard */
	assert_int_equal(rig_read(&g.rig, 0, RIG_DONE, 4), 0);
	reply.header = asked;
	answer(&g.rig, 0, 0, data, 24); /* twice is not */
	assert_true(rig_is_hung_up(&g.rig));
	guest_fini(&g);
}

/* ---- another life ---- */

static void successor_goes_on(void **state)
{
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t data[3] = { 0, 8, 77 };
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, RW, g.fd, 0), 0);
	assert_int_equal(rig_set_irqs(&g.rig, ARM, VFIO_IRQ_INTX, 0, 1, &event, 1), 0);
	rig_write(&g.rig, 0, RIG_SCRATCH, 8, 4711);
	rig_write(&g.rig, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	assert_true(rig_receive(&g.rig, &reply));
	rig_restart(&g.rig, false);
	answer(&g.rig, 0, 0, data, 24);
	assert_int_equal(rig_read(&g.rig, 0, RIG_DATA, 8), 77);
	assert_int_equal(rig_read(&g.rig, 0, RIG_SCRATCH, 8), 4711);
	assert_int_equal(rig_read(&g.rig, CONFIG, PCI_COMMAND, 2), PCI_COMMAND_MASTER);
	g.ram[1] = 99;
	assert_int_equal(device_dma(&g.rig, 8, RIG_DMA_READ), 0);
	assert_int_equal(rig_read(&g.rig, 0, RIG_DATA, 8), 99);
	rig_write(&g.rig, 0, RIG_INTX, 4, 1);
	assert_int_equal(take_events(event), 1);
	close(g.rig.client);
	rig_settle(&g.rig);
	assert_int_equal(g.rig.n_closed, 1);
	rig_restart(&g.rig, false); /* closed: nothing to go on with */
	rig_hello(&g.rig);
	guest_fini(&g);
	close(event);
}

static void waiting_unmap_is_answered_by_the_successor(void **state)
{
	struct vuser_dma_unmap m = { 24, 0, 0, PAGE };
	uint8_t payload[24];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	struct dma_pin pin;
	struct guest g;

	guest_init(&g);
	assert_int_equal(rig_map(&g.rig, 0, PAGE, RW, g.fd, 0), 0);
	dma_pin(g.rig.server->dma, NULL, &pin, 0, 8);
	vuser_put_dma_unmap(&w, &m);
	rig_send(&g.rig, VUSER_DMA_UNMAP, 0, payload, 24, NULL, 0);
	assert_false(rig_receive(&g.rig, &reply));
	dma_quiesce_cancel(&g.rig.server->quiesce);
	dma_unpin(g.rig.server->dma, NULL, &pin);
	rig_restart(&g.rig, false);
	assert_true(rig_receive(&g.rig, &reply));
	assert_int_equal(reply.header.command, VUSER_DMA_UNMAP);
	guest_fini(&g);
}

static void poisoned_request_is_answered_unexecuted(void **state)
{
	struct guest g;

	guest_init(&g);
	rig_write(&g.rig, 0, RIG_SCRATCH, 8, 1);
	for (unsigned i = 0; i < VFIO_POISON_TRIES; i++)
		conn_try(&g.rig.server->conn, &g.rig.server->half->cursor); /* three crashes */
	rig_restart(&g.rig, true);
	rig_write(&g.rig, 0, RIG_SCRATCH, 8, 2);
	assert_int_equal(g.rig.n_faulty, 1);
	assert_int_equal(rig_read(&g.rig, 0, RIG_SCRATCH, 8), 1); /* dropped */
	for (unsigned i = 0; i < VFIO_POISON_TRIES; i++)
		conn_try(&g.rig.server->conn, &g.rig.server->half->cursor);
	assert_int_equal(rig_read(&g.rig, 0, RIG_SCRATCH, 4), 0xffffffff);
	for (unsigned i = 0; i < VFIO_POISON_TRIES; i++)
		conn_try(&g.rig.server->conn, &g.rig.server->half->cursor);
	assert_int_equal(rig_call(&g.rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), EIO);
	assert_int_equal(g.rig.n_faulty, 1); /* said once */
	close(g.rig.client);
	rig_settle(&g.rig);
	rig_hello(&g.rig);
	for (unsigned i = 0; i < VFIO_POISON_TRIES; i++)
		conn_try(&g.rig.server->conn, &g.rig.server->half->cursor);
	assert_int_equal(rig_call(&g.rig, VUSER_RESET, NULL, 0, NULL, 0, NULL), EIO);
	assert_int_equal(g.rig.n_faulty, 2); /* also by a request that is refused */
	assert_int_equal(g.rig.server->half->faulty, VFIO_FAULTY);
	rig_write(&g.rig, 0, RIG_SCRATCH, 8, 1);
	/* One count is taken back when the life before was killed without fault of its own. */
	for (unsigned i = 0; i < VFIO_POISON_TRIES; i++)
		conn_try(&g.rig.server->conn, &g.rig.server->half->cursor);
	rig_restart(&g.rig, false);
	assert_int_equal(rig_read(&g.rig, 0, RIG_SCRATCH, 8), 1);
	guest_fini(&g);
}

typedef void spoil_fn(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e);

static void spoil_magic(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	shared->magic++;
}
static void spoil_cur(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	shared->ab.cur = 2;
}
static void spoil_state(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	h->state = 17;
}
static void spoil_config(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	h->config[0] ^= 1;
}
static void spoil_irqs(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	e->irq = (struct vfio_irq_record){ VFIO_IRQ_OP_RELEASE, UINT32_MAX, 2 };
}
static void spoil_close(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	e->n_close = CONN_FDS + 1;
}
static void spoil_redo(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	e->n_redo = 1;
	e->redo[0].len = e->redo_len + 1;
}
static void spoil_signal(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	bit_set(h->signal, 64 * VFIO_IRQ_WORDS - 1);
}
static void spoil_cursor(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	h->cursor.head += 1000;
}
static void spoil_device(struct vfio_shared *shared, struct vfio_half *h, struct vfio_effects *e)
{
	struct device_half *d = (struct device_half *)(h + 1);

	((struct rig_state *)d->state)->n_widths = 65;
}

static void impossible_state_is_refused(void **state)
{
	static spoil_fn *const spoils[] = { spoil_magic,  spoil_cur,   spoil_state, spoil_config,
					    spoil_irqs,   spoil_close, spoil_redo,  spoil_signal,
					    spoil_cursor, spoil_device };
	static const struct vfio_server_ops no_ops;
	static const struct stream_last_life last;

	for (unsigned i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
		struct vfio_server *none = NULL;
		struct guest g;
		void *copy;

		guest_init(&g);
		copy = malloc(g.rig.size);
		memcpy(copy, g.rig.shared, g.rig.size);
		spoils[i](g.rig.shared, g.rig.server->half, g.rig.server->effects);
		vfio_server_free(g.rig.server);
		assert_int_equal(vfio_server_new(&g.rig.dev, &g.rig.loop, g.rig.shared, g.rig.size,
						 UMDEV_RESUME, &last, &no_ops, &none),
				 -EUCLEAN);
		assert_null(none);
		memcpy(g.rig.shared, copy, g.rig.size);
		free(copy);
		assert_int_equal(vfio_server_new(&g.rig.dev, &g.rig.loop, g.rig.shared, g.rig.size,
						 UMDEV_RESUME, &last, &no_ops, &g.rig.server),
				 0);
		rig_restart(&g.rig, false);
		guest_fini(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_reaches_mapped_memory),
		cmocka_unit_test(protection_of_maps_is_honoured),
		cmocka_unit_test(wrong_maps_are_refused),
		cmocka_unit_test(unmap_forms),
		cmocka_unit_test(unmap_is_answered_when_nothing_uses_the_range),
		cmocka_unit_test(unmap_that_never_quiesces_fails_the_device),
		cmocka_unit_test(hang_up_while_an_unmap_waits),
		cmocka_unit_test(every_hook_may_write_guest_memory),
		cmocka_unit_test(message_read_and_write),
		cmocka_unit_test(message_errors_reach_the_device),
		cmocka_unit_test(messages_are_bounded_and_interleave),
		cmocka_unit_test(message_follows_the_answer),
		cmocka_unit_test(ids_of_messages_never_collide),
		cmocka_unit_test(reset_forgets_messages),
		cmocka_unit_test(successor_goes_on),
		cmocka_unit_test(waiting_unmap_is_answered_by_the_successor),
		cmocka_unit_test(poisoned_request_is_answered_unexecuted),
		cmocka_unit_test(impossible_state_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
