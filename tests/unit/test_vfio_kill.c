// SPDX-License-Identifier: MIT
/*
 * A vfio-user server that is killed again and again while its client pipelines everything there is:
 * register reads with side effects, plain and posted writes, maps and unmaps with descriptors,
 * guest memory changed by the device, DMA by message, interrupts. Each takes effect exactly once
 * (interrupts: at least once), each answer comes once, whole and in order, and no descriptor is
 * left behind.
 */
#include <poll.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <linux/pci_regs.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "../lib/vfio_rig.h"
#include "kill.h"

#define KILLS 150       /* enough to meet every window with some luck ... */
#define RUN_MS 15000    /* ... but a busy machine takes what it gets in this time */
#define MAX_US 4000     /* longest life */
#define ANSWER_MS 20000 /* a lost request would hang */
#define SERVER_FDS 900  /* the server's own table is swept below this number */
#define PAGE 4096
#define BATCH 24

struct kill_test {
	struct kill_ring ring;
	struct rig rig;
	int first_fd; /* descriptors below are not the server's */
};

/* ---- the server's lives ---- */

static void name_fd(void *arg, int fd)
{
	if (fd >= 0 && fd < SERVER_FDS)
		((bool *)arg)[fd] = true;
}

static void life(void *arg, unsigned n)
{
	struct kill_test *k = arg;
	bool named[SERVER_FDS] = { false };

	rig_succeed(&k->rig);
	vfio_each_fd(k->rig.server, name_fd, named);
	name_fd(named, k->rig.loop.epoll_fd);
	name_fd(named, k->rig.stop.fd);
	for (int fd = k->first_fd; fd < SERVER_FDS; fd++) {
		if (!named[fd])
			close(fd);
	}
	if (vfio_server_resume(k->rig.server, false))
		abort();
	loop_run(&k->rig.loop);
}

/* ---- the client ---- */

struct client {
	int fd, event, ram_fd;
	volatile uint64_t *ram;
	unsigned seed;
	uint16_t id;
	/* what must be true */
	uint64_t count, mix, added, done;
	unsigned n_maps;
	bool level;
	/* what was asked and not answered */
	struct {
		uint16_t id, command;
		uint64_t want; /* of a register read */
		uint8_t len;
	} asked[BATCH];
	unsigned n_asked;
	uint8_t out[64 * 1024];
	struct buf_writer w;
	unsigned long requests, interrupts;
};

static void receive_all(struct client *c, void *to, size_t len)
{
	size_t got = 0;

	while (got < len) {
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&p, 1, ANSWER_MS), 1);
		n = recv(c->fd, (char *)to + got, len - got, 0);
		assert_true(n > 0);
		got += n;
	}
}

static void send_now(struct client *c, const int *fds, unsigned n_fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { c->out, c->w.len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	assert_false(c->w.bad);
	if (n_fds) {
		struct cmsghdr head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };

		memcpy(control, &head, sizeof(head));
		memcpy(control + CMSG_LEN(0), fds, sizeof(int));
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
	}
	while (iov.iov_len) {
		ssize_t n = sendmsg(c->fd, &msg, 0);

		assert_true(n > 0);
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= n;
		msg.msg_controllen = 0;
	}
	c->w = buf_write_to(c->out, sizeof(c->out));
}

static void put_header(struct client *c, uint16_t command, uint32_t flags, size_t len)
{
	struct vuser_header h = { ++c->id, command, VUSER_HEADER + len, flags, 0 };

	vuser_put_header(&c->w, &h);
	c->requests++;
	if (flags & VUSER_NO_REPLY)
		return;
	c->asked[c->n_asked].id = c->id;
	c->asked[c->n_asked].len = 0;
	c->asked[c->n_asked++].command = command;
}

static void put_read(struct client *c, uint64_t offset, uint8_t len, uint64_t want)
{
	struct vuser_access a = { .offset = offset, .count = len };

	put_header(c, VUSER_REGION_READ, 0, VUSER_ACCESS);
	vuser_put_access(&c->w, &a);
	c->asked[c->n_asked - 1].want = want;
	c->asked[c->n_asked - 1].len = len;
}

static void put_write(struct client *c, uint32_t flags, uint32_t region, uint64_t offset,
		      uint32_t len, uint64_t value)
{
	struct vuser_access a = { offset, region, len, (uint8_t *)&value };

	put_header(c, VUSER_REGION_WRITE, flags, VUSER_ACCESS + len);
	vuser_put_access(&c->w, &a);
}

/* Takes one message; true: it answered something. */
static bool take_message(struct client *c)
{
	uint8_t head[VUSER_HEADER], payload[4096];
	struct vuser_header h;
	uint64_t v = 0;

	receive_all(c, head, sizeof(head));
	memcpy(&h.id, head, 2);
	memcpy(&h.command, head + 2, 2);
	memcpy(&h.size, head + 4, 4);
	memcpy(&h.flags, head + 8, 4);
	assert_in_range(h.size, VUSER_HEADER, sizeof(payload));
	receive_all(c, payload, h.size - VUSER_HEADER);
	if ((h.flags & VUSER_TYPE_MASK) == VUSER_TYPE_COMMAND) {
		assert_int_equal(h.command, VUSER_DMA_READ);
		h.flags = VUSER_TYPE_REPLY;
		h.error = 0;
		h.size = VUSER_HEADER + VUSER_DMA_ACCESS + 8;
		vuser_put_header(&c->w, &h);
		buf_put_bytes(&c->w, payload, VUSER_DMA_ACCESS);
		buf_put_u64(&c->w, c->done);
		c->done++;
		send_now(c, NULL, 0);
		return false;
	}
	assert_int_equal(h.flags, VUSER_TYPE_REPLY);
	assert_int_equal(h.id, c->asked[0].id);
	assert_int_equal(h.command, c->asked[0].command);
	if (c->asked[0].len) {
		memcpy(&v, payload + VUSER_ACCESS, c->asked[0].len);
		assert_int_equal(v, c->asked[0].want);
	}
	memmove(&c->asked[0], &c->asked[1], --c->n_asked * sizeof(c->asked[0]));
	return true;
}

static void finish_batch(struct client *c)
{
	if (c->w.len)
		send_now(c, NULL, 0);
	while (c->n_asked)
		take_message(c);
}

static unsigned roll(struct client *c, unsigned n)
{
	return rand_r(&c->seed) % n;
}

static void registers(struct client *c)
{
	for (unsigned i = roll(c, BATCH); i-- > 0;) {
		uint64_t v = roll(c, 1000000);

		switch (roll(c, 4)) {
		case 0:
			put_read(c, RIG_COUNT, 4, c->count++);
			break;
		case 1:
			put_read(c, RIG_MIX, 8, c->mix);
			break;
		case 2:
			put_write(c, 0, 0, RIG_MIX, 8, v);
			c->mix = rig_mix(c->mix, v);
			break;
		case 3:
			put_write(c, VUSER_NO_REPLY, 0, RIG_MIX, 8, v);
			c->mix = rig_mix(c->mix, v);
			break;
		}
	}
	finish_batch(c);
}

static void map_one(struct client *c, uint64_t iova)
{
	put_header(c, VUSER_DMA_MAP, 0, 32);
	buf_put_u32(&c->w, 32);
	buf_put_u32(&c->w, VUSER_DMA_R | VUSER_DMA_W);
	buf_put_u64(&c->w, 0);
	buf_put_u64(&c->w, iova);
	buf_put_u64(&c->w, PAGE);
	send_now(c, &c->ram_fd, 1);
	finish_batch(c);
}

/* Also the last map of the file goes now and then: its descriptor with it. */
static void maps(struct client *c)
{
	struct vuser_dma_unmap m = { 24, 0, 0, PAGE };

	if (c->n_maps < 8 && roll(c, 2)) {
		map_one(c, c->n_maps++ * PAGE);
		return;
	}
	if (!c->n_maps)
		return;
	m.iova = --c->n_maps * PAGE;
	put_header(c, VUSER_DMA_UNMAP, 0, 24);
	vuser_put_dma_unmap(&c->w, &m);
	finish_batch(c);
}

static void guest_memory(struct client *c)
{
	if (!c->n_maps)
		return;
	put_write(c, 0, 0, RIG_IOVA, 8, (c->n_maps - 1) * PAGE);
	for (unsigned i = 0; i < 4; i++)
		put_write(c, roll(c, 2) ? VUSER_NO_REPLY : 0, 0, RIG_COMMAND, 4, RIG_DMA_ADD);
	put_read(c, RIG_STATUS, 4, 0);
	finish_batch(c);
	c->added += 4;
	assert_int_equal(c->ram[0], c->added);
}

static void message(struct client *c)
{
	uint64_t before = c->done;

	put_write(c, 0, 0, RIG_COMMAND, 4, RIG_MESSAGE_READ);
	finish_batch(c);
	while (c->done == before)
		assert_false(take_message(c));
	put_read(c, RIG_DONE, 4, c->done);
	put_read(c, RIG_DATA, 8, before);
	finish_batch(c);
}

static void interrupt(struct client *c)
{
	struct pollfd p = { .fd = c->event, .events = POLLIN };
	uint32_t unmask[5] = { 20, VUSER_IRQ_DATA_NONE | VUSER_IRQ_UNMASK, VFIO_IRQ_INTX, 0, 1 };
	uint64_t n;

	put_write(c, VUSER_NO_REPLY, 0, RIG_INTX, 4, 1);
	send_now(c, NULL, 0);
	assert_int_equal(poll(&p, 1, ANSWER_MS), 1); /* not lost */
	put_write(c, 0, 0, RIG_INTX, 4, 0);
	finish_batch(c);
	assert_int_equal(read(c->event, &n, sizeof(n)), sizeof(n));
	c->interrupts += n;
	put_header(c, VUSER_SET_IRQS, 0, sizeof(unmask));
	buf_put_bytes(&c->w, unmask, sizeof(unmask));
	finish_batch(c);
}

static void arm(struct client *c)
{
	uint32_t set[5] = { 20, VUSER_IRQ_DATA_EVENTFD | VUSER_IRQ_TRIGGER, VFIO_IRQ_INTX, 0, 1 };

	put_header(c, VUSER_SET_IRQS, 0, sizeof(set));
	buf_put_bytes(&c->w, set, sizeof(set));
	send_now(c, &c->event, 1);
	finish_batch(c);
}

static void say_hello(struct client *c)
{
	put_header(c, VUSER_VERSION, 0, 4);
	buf_put_u32(&c->w, 0);
	finish_batch(c);
	put_write(c, 0, VFIO_REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	finish_batch(c);
	arm(c);
}

static void client_run(struct client *c, const struct kill_ring *ring)
{
	static void (*const actions[])(struct client *) = { registers, registers,    maps,
							    maps,      guest_memory, message,
							    interrupt, arm };
	uint64_t end = kill_now_ms() + RUN_MS;

	say_hello(c);
	while (kill_now_ms() < end && *(volatile const unsigned *)&ring->kills < KILLS)
		actions[roll(c, 8)](c);
	while (c->n_maps) /* none is left: nor are descriptors */
		maps(c);
}

static unsigned fds_of(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* The server that is made here lives on in the keeper's process, and the lives write theirs over
 * the pointers to it: nobody is left to free this process' copy. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

static void every_effect_happens_once(void **state)
{
	struct kill_test *k = kill_shared_memory(sizeof(*k));
	static struct client c;
	int pair[2];
	unsigned fds;
	pid_t keeper;

	k->first_fd = dup(0);
	close(k->first_fd);
	rig_init(&k->rig, &rig_plain);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(vfio_server_connect(k->rig.server, pair[0]), 0);
	keeper = kill_start(&k->ring, MAX_US, life, k);
	close(pair[0]);
	c = (struct client){ .fd = pair[1], .seed = 1 };
	c.w = buf_write_to(c.out, sizeof(c.out));
	c.event = eventfd(0, EFD_CLOEXEC);
	c.ram_fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(c.ram_fd, PAGE), 0);
	c.ram = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, c.ram_fd, 0);
	client_run(&c, &k->ring);
	fds = fds_of(keeper);
	print_message("%u kills, %lu requests, %lu interrupts, %u descriptors\n", k->ring.kills,
		      c.requests, c.interrupts, fds);
	assert_int_equal(kill_stop(&k->ring, keeper), 0);
	assert_true(k->ring.kills > 0);
	assert_in_range(fds, 1, 24);
	close(c.fd);
	close(c.event);
	close(c.ram_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_effect_happens_once) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
