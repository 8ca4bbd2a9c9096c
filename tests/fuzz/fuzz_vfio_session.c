// SPDX-License-Identifier: MIT
/*
 * Whole sessions with the vfio-user server: a hostile client, descriptors of every kind, kills of
 * the worker between any two messages, and the host's side.
 *
 * Invariants: every command that is well framed is answered, in order, unless it is posted or the
 * connection ends; no descriptor is left behind; a successor always accepts the state.
 */
#include <assert.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "../lib/vfio_rig.h"
#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 64
#define MAX_EXPECTED 256

enum op {
	OP_COMMAND, /* framed: command, flags, descriptors, length, payload */
	OP_RAW,     /* bytes as they are */
	OP_REPLY,   /* to the last command of the server: flags, length, payload */
	OP_RESTART, /* the worker was killed */
	OP_CRASH,   /* of its own fault */
	OP_RECONNECT,
	OP_PIN,   /* something in flight uses memory; or does no more */
	OP_WRITE, /* well-formed register writes: one or many; region, offset, size, value */
	OPS,
};

struct session {
	struct rig rig;
	struct buf_reader in;
	uint16_t expected[MAX_EXPECTED];
	unsigned first, n_expected;
	bool framed; /* our stream is still in step: the order of answers can be checked */
	struct vuser_header asked; /* the last command of the server */
	struct dma_pin pin;
	bool pinned;
};

static void expect(struct session *s, uint32_t flags)
{
	if (!(flags & VUSER_NO_REPLY) && s->n_expected < MAX_EXPECTED)
		s->expected[(s->first + s->n_expected++) % MAX_EXPECTED] =
			s->rig.id + 1; /* that rig_send will use */
}

static void drain(struct session *s)
{
	static struct rig_reply reply;

	while (s->rig.client >= 0 && rig_receive(&s->rig, &reply)) {
		if (reply.fd >= 0)
			close(reply.fd);
		if ((reply.header.flags & VUSER_TYPE_MASK) == VUSER_TYPE_COMMAND) {
			s->asked = reply.header;
			continue;
		}
		if (!s->framed)
			continue;
		assert(s->n_expected && reply.header.id == s->expected[s->first]);
		s->first = (s->first + 1) % MAX_EXPECTED;
		s->n_expected--;
	}
	if (s->framed && vfio_server_state(s->rig.server) == VFIO_RUNNING && !s->pinned)
		assert(!s->n_expected);
}

static unsigned open_fds(struct session *s, int *fds)
{
	unsigned n = buf_get_u8(&s->in) % 20;
	uint8_t kind = buf_get_u8(&s->in);

	if (n > 18)
		n = 0; /* mostly few */
	for (unsigned i = 0; i < n; i++) {
		fds[i] = kind & 1 ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
				  : memfd_create("fuzz", MFD_CLOEXEC);
		if (!(kind & 1))
			assert(!ftruncate(fds[i], 0x10000));
	}
	return n;
}

static const uint8_t *payload(struct session *s, size_t *ret_len)
{
	size_t len = buf_get_u8(&s->in);
	const uint8_t *p;

	if (len > s->in.left)
		len = s->in.left;
	p = buf_take(&s->in, len);
	*ret_len = p ? len : 0;
	return p;
}

static void do_command(struct session *s)
{
	uint8_t command = buf_get_u8(&s->in) % 20, flags = buf_get_u8(&s->in) & VUSER_NO_REPLY;
	int fds[20];
	unsigned n = open_fds(s, fds);
	const uint8_t *p;
	size_t len;

	p = payload(s, &len);
	expect(s, flags);
	rig_send(&s->rig, command, flags, p, len, fds, n);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

static void do_reply(struct session *s)
{
	uint8_t data[VUSER_HEADER + 256], flags = buf_get_u8(&s->in) & VUSER_ERROR;
	struct buf_writer w = buf_write_to(data, sizeof(data));
	struct vuser_header h = s->asked;
	const uint8_t *p;
	size_t len;

	p = payload(s, &len);
	h.size = VUSER_HEADER + len;
	h.flags = VUSER_TYPE_REPLY | flags;
	h.error = flags ? 5 : 0;
	vuser_put_header(&w, &h);
	buf_put_bytes(&w, p, len);
	rig_send_raw(&s->rig, data, w.len, NULL, 0);
}

static void do_pin(struct session *s)
{
	if (s->pinned)
		dma_unpin(s->rig.server->dma, NULL, &s->pin);
	else
		dma_pin(s->rig.server->dma, NULL, &s->pin, buf_get_u16(&s->in) & 0xf000, 0x1000);
	s->pinned = !s->pinned;
	rig_settle(&s->rig);
}

static void do_restart(struct session *s, bool crashed)
{
	if (s->pinned)
		dma_unpin(s->rig.server->dma, NULL, &s->pin);
	s->pinned = false;
	rig_restart(&s->rig, crashed);
}

static void do_reconnect(struct session *s)
{
	if (s->pinned)
		do_pin(s);
	if (s->rig.client >= 0)
		close(s->rig.client);
	s->rig.client = -1;
	rig_settle(&s->rig);
	assert(vfio_server_state(s->rig.server) == VFIO_CLOSED);
	s->n_expected = 0;
	s->framed = true;
	if (buf_get_u8(&s->in) & 1)
		rig_connect(&s->rig);
	else
		rig_hello(&s->rig);
}

/* In one message, as QEMU sends those of a busy guest. */
static void do_many_writes(struct session *s, unsigned region)
{
	uint8_t data[8 + 4 * 24];
	struct buf_writer w = buf_write_to(data, sizeof(data));
	unsigned n = 1 + buf_get_u8(&s->in) % 4;

	buf_put_u64(&w, n);
	for (unsigned i = 0; i < n; i++) {
		struct vuser_access a = { .region = region };
		uint64_t value;

		a.offset = buf_get_u16(&s->in);
		a.count = buf_get_u8(&s->in) % 9;
		value = buf_get_u32(&s->in);
		vuser_put_access(&w, &a);
		buf_put_u64(&w, value << 32 | value);
	}
	rig_send(&s->rig, VUSER_REGION_WRITE_MULTI, VUSER_NO_REPLY, data, w.len, NULL, 0);
}

static void do_write(struct session *s)
{
	uint8_t data[VUSER_ACCESS + 8], how = buf_get_u8(&s->in);
	struct buf_writer w = buf_write_to(data, sizeof(data));
	struct vuser_access a = { .region = how % 8 };
	uint64_t value;

	if (how & 0x80) {
		do_many_writes(s, a.region);
		return;
	}
	a.offset = buf_get_u16(&s->in);
	a.count = 4;
	value = buf_get_u32(&s->in);
	vuser_put_access(&w, &a);
	buf_put_u32(&w, value);
	rig_send(&s->rig, VUSER_REGION_WRITE, VUSER_NO_REPLY, data, w.len, NULL, 0);
}

static void run_op(struct session *s)
{
	const uint8_t *p;
	size_t len;

	switch (buf_get_u8(&s->in) % OPS) {
	case OP_COMMAND:
		do_command(s);
		break;
	case OP_RAW:
		p = payload(s, &len);
		s->framed = false;
		rig_send_raw(&s->rig, p, len, NULL, 0);
		break;
	case OP_REPLY:
		do_reply(s);
		break;
	case OP_RESTART:
		do_restart(s, false);
		break;
	case OP_CRASH:
		do_restart(s, true);
		break;
	case OP_RECONNECT:
		do_reconnect(s);
		break;
	case OP_PIN:
		do_pin(s);
		break;
	case OP_WRITE:
		do_write(s);
		break;
	}
}

static int lowest_free_fd(void)
{
	int fd = dup(STDERR_FILENO);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session s;
	int before = lowest_free_fd();

	log_init("fuzz", LOG_ERROR);
	memset(&s, 0, sizeof(s));
	s.in = buf_read_from(data, size);
	s.framed = true;
	rig_init(&s.rig, buf_get_u8(&s.in) & 1 ? &rig_express : &rig_plain);
	rig_hello(&s.rig);
	rig_write(&s.rig, VFIO_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	for (unsigned i = 0; i < MAX_OPS && s.in.left; i++) {
		run_op(&s);
		drain(&s);
	}
	if (s.pinned)
		do_pin(&s);
	rig_fini(&s.rig);
	assert(lowest_free_fd() == before);
	return 0;
}
