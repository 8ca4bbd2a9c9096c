// SPDX-License-Identifier: MIT
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <umdev/dma.h>
#include <unistd.h>
#include "base/sock.h"
#include "vfio_rig.h"

#define QEMU_CAPS                                                                           \
	"{\"capabilities\":{\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096}," \
	"\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\"max_msg_fds\":16,"         \
	"\"pgsizes\":4096,\"write_multiple\":true}}"

const struct umdev_pci rig_plain = {
	.vendor = 0x1234,
	.device = 0x5678,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x070002,
	.revision = 3,
	.intx = true,
	.msi = 4,
	.bar = { { .size = RIG_BAR0 }, { .size = 8, .flags = UMDEV_BAR_IO } },
};

const struct umdev_pci rig_express = {
	.vendor = 0x1234,
	.device = 0x9abc,
	.class_code = 0x010802,
	.express = true,
	.msix = 70,
	.msix_bar = 4,
	.msix_table = 0,
	.msix_pba = 0x800,
	.bar = { { .size = RIG_BAR0, .flags = UMDEV_BAR_64 },
		 { 0 },
		 { .size = 0x4000,
		   .flags = UMDEV_BAR_MMAP | UMDEV_BAR_PREF,
		   .mmap_offset = 0x1000,
		   .mmap_size = 0x2000 },
		 { .size = 0x1000, .flags = UMDEV_BAR_MMAP },
		 { .size = 0x1000 } },
};

/* ---- the device ---- */

static int dev_init(struct umdev_device *dev, enum umdev_init how)
{
	struct rig_state *st = umdev_state(dev);

	if (how == UMDEV_FRESH)
		st->status = 77; /* power-on value that no other way leads to */
	return st->n_widths <= 64 ? 0 : -EUCLEAN;
}

static void dev_reset(struct umdev_device *dev, enum umdev_reset why)
{
	struct rig_state *st = umdev_state(dev);

	*st = (struct rig_state){ .resets = st->resets + 1, .last_reset = why };
}

static uint64_t dev_read(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len)
{
	struct rig_state *st = umdev_state(dev);

	if (bar)
		return 0xbb;
	switch (offset) {
	case RIG_SCRATCH:
		return st->scratch;
	case RIG_COUNT:
		return st->count++;
	case RIG_STATUS:
		return st->status;
	case RIG_DATA:
		return st->data;
	case RIG_DONE:
		return st->done;
	case RIG_MIX:
		return st->mix;
	case RIG_RESETS:
		return st->resets;
	default:
		return offset;
	}
}

uint64_t rig_mix(uint64_t mix, uint64_t v)
{
	return (mix ^ v) * 0x9e3779b97f4a7c15ULL + (mix >> 29);
}

static int add_one(struct umdev_device *dev, struct iova at)
{
	uint64_t v;
	int r = umdev_dma_read(dev, at, &v, sizeof(v));

	v++;
	return r < 0 ? r : umdev_dma_write(dev, at, &v, sizeof(v));
}

static int run_command(struct umdev_device *dev, struct rig_state *st, uint64_t command)
{
	struct iova at = { st->iova };
	uint8_t big[UMDEV_DMA_REDO_MAX];

	switch (command) {
	case RIG_DMA_READ:
		return umdev_dma_read(dev, at, &st->data, 8);
	case RIG_DMA_WRITE:
		return umdev_dma_write(dev, at, &st->data, 8);
	case RIG_MESSAGE_READ:
		return umdev_dma_message(dev, at, NULL, 8, 1);
	case RIG_MESSAGE_WRITE:
		return umdev_dma_message(dev, at, &st->data, 8, 2);
	case RIG_DMA_ADD:
		return add_one(dev, at);
	case RIG_DMA_WRITE_BIG:
		memset(big, (uint8_t)st->data, sizeof(big));
		return umdev_dma_write(dev, at, big, sizeof(big));
	default:
		return -EINVAL;
	}
}

static void dev_write(struct umdev_device *dev, unsigned bar, uint64_t offset, unsigned len,
		      uint64_t value)
{
	struct rig_state *st = umdev_state(dev);

	if (bar)
		return;
	if (offset >= RIG_WIDTHS && offset < RIG_WIDTHS + 64 && st->n_widths < 64) {
		st->widths[st->n_widths][0] = offset - RIG_WIDTHS;
		st->widths[st->n_widths++][1] = len;
	}
	switch (offset) {
	case RIG_SCRATCH:
		st->scratch = value;
		break;
	case RIG_INTX:
		if (dev->type->pci->intx)
			umdev_intx_set(dev, value & 1);
		break;
	case RIG_RAISE:
		if (value < dev->type->pci->msix || value < dev->type->pci->msi)
			umdev_irq_raise(dev, value);
		break;
	case RIG_IOVA:
		st->iova = value;
		break;
	case RIG_MIX:
		st->mix = rig_mix(st->mix, value);
		break;
	case RIG_DATA:
		st->data = value;
		break;
	case RIG_COMMAND:
		st->status = -run_command(dev, st, value);
		break;
	}
}

static void dev_dma_done(struct umdev_device *dev, uint32_t tag, int status, const void *data,
			 size_t len)
{
	struct rig_state *st = umdev_state(dev);

	st->done++;
	st->status = -status;
	if (data && len == 8)
		memcpy(&st->data, data, 8);
}

static const struct umdev_device_ops dev_ops = {
	.init = dev_init,
	.reset = dev_reset,
	.bar_read = dev_read,
	.bar_write = dev_write,
	.dma_done = dev_dma_done,
};

struct rig_state *rig_state(struct rig *rig)
{
	return umdev_state(&rig->dev);
}

/* ---- the server's surroundings ---- */

static struct rig *rig_of(struct umdev_device *dev)
{
	return container_of(dev, struct rig, dev);
}

static void on_closed(struct umdev_device *dev, enum vfio_close_reason reason, const char *text)
{
	struct rig *rig = rig_of(dev);

	rig->n_closed++;
	rig->reason = reason;
	snprintf(rig->text, sizeof(rig->text), "%s", text);
}

static void on_faulty(struct umdev_device *dev, const char *text)
{
	rig_of(dev)->n_faulty += *text ? 1 : 0;
}

static const struct vfio_server_ops server_ops = { .closed = on_closed, .faulty = on_faulty };

static void on_stop(struct loop_fd *source, uint32_t revents)
{
	uint64_t n;

	if (read(source->fd, &n, sizeof(n)) == sizeof(n))
		loop_stop(source->loop, 0);
}

void rig_settle(struct rig *rig)
{
	struct pollfd p = { .fd = rig->loop.epoll_fd, .events = POLLIN };
	uint64_t one = 1;

	do {
		if (write(rig->stop.fd, &one, sizeof(one)) != sizeof(one))
			abort();
		loop_run(&rig->loop);
	} while (poll(&p, 1, 0) == 1);
}

static void new_server(struct rig *rig, enum umdev_init how)
{
	static const struct stream_last_life last;
	static const struct uuid uuid;

	if (device_init(&rig->dev, NULL, &rig->type, &uuid))
		abort();
	rig->dev.stream_shared = rig->stream_shared;
	for (unsigned i = 0; i < rig->n_streams; i++) {
		char name[16];

		snprintf(name, sizeof(name), "port%u", i);
		if (device_add_resource(&rig->dev, name, rig->stream_fd[i],
					UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_STREAM, 0, 0,
					NULL))
			abort();
	}
	if (vfio_server_new(&rig->dev, &rig->loop, rig->shared, rig->size, how, &last, &server_ops,
			    &rig->server))
		abort();
}

static void new_loop(struct rig *rig)
{
	rig->loop = (struct loop)LOOP_INIT;
	rig->stop = (struct loop_fd)LOOP_FD_INIT;
	if (loop_init(&rig->loop) ||
	    loop_add(&rig->loop, &rig->stop, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), EPOLLIN,
		     on_stop))
		abort();
}

static void init(struct rig *rig)
{
	rig->client = -1;
	rig->size = vfio_shared_size(&rig->type);
	rig->shared = mmap(NULL, rig->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			   0);
	if (rig->shared == MAP_FAILED)
		abort();
	new_loop(rig);
	new_server(rig, UMDEV_FRESH);
}

void rig_init(struct rig *rig, const struct umdev_pci *pci)
{
	*rig = (struct rig){ .pci = *pci };
	rig->type = (struct umdev_device_type){ .name = "rig",
						.ops = &dev_ops,
						.pci = &rig->pci,
						.state_size = sizeof(struct rig_state),
						.state_version = 1 };
	init(rig);
}

void rig_init_driver(struct rig *rig, const struct umdev_device_driver *driver, const char *type,
		     unsigned n_streams)
{
	const struct umdev_device_driver *const drivers[] = { driver, NULL };
	const struct umdev_device_type *found;

	*rig = (struct rig){ .n_streams = n_streams };
	if (device_find_type(drivers, driver->name, type, &driver, &found))
		abort();
	rig->type = *found;
	rig->stream_shared = calloc(n_streams + 1, sizeof(*rig->stream_shared));
	for (unsigned i = 0; i < n_streams; i++) {
		int pair[2];

		if (sock_pair(pair))
			abort();
		rig->stream_fd[i] = pair[0];
		rig->host[i] = pair[1];
	}
	init(rig);
}

void rig_connect(struct rig *rig)
{
	int pair[2];

	if (sock_pair(pair) || vfio_server_connect(rig->server, pair[0]))
		abort();
	rig->client = pair[1];
}

void rig_restart(struct rig *rig, bool crashed)
{
	vfio_server_free(rig->server);
	device_fini(&rig->dev);
	new_server(rig, UMDEV_RESUME);
	if (vfio_server_resume(rig->server, crashed))
		abort();
	rig_settle(rig);
}

void rig_succeed(struct rig *rig)
{
	new_loop(rig);
	new_server(rig, UMDEV_RESUME);
}

static void close_it(void *arg, int fd)
{
	close(fd);
}

void rig_fini(struct rig *rig)
{
	int stop = rig->stop.fd;

	vfio_server_disconnect(rig->server, VFIO_CLOSE_STOPPED, "the test is over");
	rig_settle(rig);
	vfio_each_fd(rig->server, close_it, NULL);
	vfio_server_free(rig->server);
	device_fini(&rig->dev);
	loop_remove(&rig->stop);
	close(stop);
	loop_fini(&rig->loop);
	munmap(rig->shared, rig->size);
	free(rig->stream_shared);
	for (unsigned i = 0; i < rig->n_streams; i++) {
		close(rig->stream_fd[i]);
		close(rig->host[i]);
	}
	if (rig->client >= 0)
		close(rig->client);
}

/* ---- the client ---- */

void rig_send_raw(struct rig *rig, const void *data, size_t len, const int *fds, unsigned n_fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(CONN_FDS * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){ CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	while (iov.iov_len) {
		ssize_t n = sendmsg(rig->client, &msg, MSG_NOSIGNAL);

		if (n < 0)
			break; /* the server hung up: the test sees that */
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= n;
		msg.msg_controllen = 0;
		msg.msg_control = NULL;
	}
	rig_settle(rig);
}

void rig_send(struct rig *rig, uint16_t command, uint32_t flags, const void *payload, size_t len,
	      const int *fds, unsigned n_fds)
{
	static uint8_t data[2 * CONN_MSG_MAX];
	struct buf_writer w = buf_write_to(data, sizeof(data));
	struct vuser_header h = {
		.id = ++rig->id, .command = command, .size = VUSER_HEADER + len, .flags = flags
	};

	vuser_put_header(&w, &h);
	buf_put_bytes(&w, payload, len);
	assert(!w.bad);
	rig_send_raw(rig, data, w.len, fds, n_fds);
}

static ssize_t receive_some(struct rig *rig, void *to, size_t len, int *ret_fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { to, len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(rig->client, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	if (c)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return n;
}

bool rig_receive(struct rig *rig, struct rig_reply *ret)
{
	uint8_t head[VUSER_HEADER];
	uint32_t size;
	size_t got = 0;

	ret->fd = -1;
	if (receive_some(rig, head, sizeof(head), &ret->fd) != sizeof(head))
		return false;
	memcpy(&size, head + 4, 4);
	ret->len = size - VUSER_HEADER;
	while (got < ret->len) {
		ssize_t n = receive_some(rig, ret->payload + got, ret->len - got, &ret->fd);

		if (n > 0)
			got += n;
		else
			rig_settle(rig);
	}
	memcpy(&ret->header.id, head, 2);
	memcpy(&ret->header.command, head + 2, 2);
	memcpy(&ret->header.flags, head + 8, 4);
	memcpy(&ret->header.error, head + 12, 4);
	ret->header.size = size;
	return true;
}

bool rig_is_hung_up(struct rig *rig)
{
	char c;

	return recv(rig->client, &c, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

int rig_call(struct rig *rig, uint16_t command, const void *payload, size_t len, const int *fds,
	     unsigned n_fds, struct rig_reply *ret)
{
	static struct rig_reply own;
	struct rig_reply *reply = ret ? ret : &own;

	rig_send(rig, command, 0, payload, len, fds, n_fds);
	if (!rig_receive(rig, reply) || reply->header.id != rig->id ||
	    reply->header.command != command ||
	    (reply->header.flags & VUSER_TYPE_MASK) != VUSER_TYPE_REPLY)
		return -1;
	if (reply->header.flags & VUSER_ERROR)
		return reply->len ? -1 : (int)reply->header.error;
	return 0;
}

void rig_hello(struct rig *rig)
{
	char payload[4 + sizeof(QEMU_CAPS)] = { 0 };

	rig_connect(rig);
	memcpy(payload + 4, QEMU_CAPS, sizeof(QEMU_CAPS));
	if (rig_call(rig, VUSER_VERSION, payload, sizeof(payload), NULL, 0, NULL))
		abort();
}

uint64_t rig_read(struct rig *rig, uint32_t region, uint64_t offset, unsigned len)
{
	static struct rig_reply reply;
	struct vuser_access a = { .offset = offset, .region = region, .count = len };
	uint8_t payload[VUSER_ACCESS];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	uint64_t v = 0;

	vuser_put_access(&w, &a);
	if (rig_call(rig, VUSER_REGION_READ, payload, w.len, NULL, 0, &reply) ||
	    reply.len != VUSER_ACCESS + len)
		return 0xdeaddeaddeaddead;
	memcpy(&v, reply.payload + VUSER_ACCESS, len);
	return v;
}

void rig_write(struct rig *rig, uint32_t region, uint64_t offset, unsigned len, uint64_t value)
{
	struct vuser_access a = {
		.offset = offset, .region = region, .count = len, .data = (uint8_t *)&value
	};
	uint8_t payload[VUSER_ACCESS + 8];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));

	vuser_put_access(&w, &a);
	if (rig_call(rig, VUSER_REGION_WRITE, payload, w.len, NULL, 0, NULL))
		abort();
}

int rig_set_irqs(struct rig *rig, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		 const int *fds, unsigned n_fds)
{
	uint32_t payload[5] = { 20 + 4 * n_fds, flags, index, start, count };

	return rig_call(rig, VUSER_SET_IRQS, payload, sizeof(payload), fds, n_fds, NULL);
}

int rig_map(struct rig *rig, uint64_t iova, uint64_t size, uint32_t flags, int fd, uint64_t offset)
{
	uint8_t payload[32];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));

	buf_put_u32(&w, 32);
	buf_put_u32(&w, flags);
	buf_put_u64(&w, offset);
	buf_put_u64(&w, iova);
	buf_put_u64(&w, size);
	return rig_call(rig, VUSER_DMA_MAP, payload, w.len, &fd, fd >= 0, NULL);
}

int rig_unmap(struct rig *rig, uint64_t iova, uint64_t size, uint32_t flags)
{
	struct vuser_dma_unmap m = { 24, flags, iova, size };
	static struct rig_reply reply;
	uint8_t payload[24];
	struct buf_writer w = buf_write_to(payload, sizeof(payload));
	int r;

	vuser_put_dma_unmap(&w, &m);
	r = rig_call(rig, VUSER_DMA_UNMAP, payload, w.len, NULL, 0, &reply);
	if (!r && (reply.len != 24 || memcmp(reply.payload, payload, 24)))
		return -1;
	return r;
}

unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

uint64_t take_events(int event)
{
	uint64_t n = 0;

	return read(event, &n, sizeof(n)) == sizeof(n) ? n : 0;
}
