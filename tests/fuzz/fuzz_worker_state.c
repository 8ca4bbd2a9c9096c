/* SPDX-License-Identifier: MIT */
/*
 * A successor inherits a group's state from a life that may have been taken over by its client:
 * any state is refused, or used within its bounds.
 * Input: struct worker_shared up to the CONFIG frame, ring counters of two streams and what the
 * keeper learned, then the member's resources and parameters.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "device/device.h"
#include "worker/worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct umdev_device_type type = { .name = "fuzz" };

static void take(const uint8_t **data, size_t *left, void *to, size_t len)
{
	size_t n = len < *left ? len : *left;

	memcpy(to, *data, n);
	*data += n;
	*left -= n;
}

/* As worker/members.c does. Descriptors become one that does no harm. */
static void use(struct umdev_device *dev, struct worker_member_shared *m, int fd,
		const struct stream_last_life *last)
{
	uint8_t bytes[100];

	if (worker_member_check(m))
		return;
	for (unsigned i = 0; i < MW_MAX_PARAMS; i++) {
		struct worker_param *p = &m->params[i];
		char name[2] = { 'a' + i };

		if (p->which)
			device_add_param(dev, name, UMDEV_STRING, &p->value[p->which - 1]);
	}
	for (unsigned i = 0; i < MW_MAX_RESOURCES; i++)
		if (m->resources[i].fd >= 0)
			device_add_resource(dev, m->resources[i].name, fd, m->resources[i].flags, 0,
					    0, NULL);
	if (device_streams_attach(dev, UMDEV_RESUME, last))
		return;
	for (unsigned i = 0; i < dev->n_streams; i++) {
		struct stream *s = &dev->streams[i];

		umdev_stream_write(dev, i, bytes, umdev_stream_read(dev, i, bytes, sizeof(bytes)));
		if (stream_out_pending(s))
			stream_write_host(s, fd);
		if (stream_in_space(s))
			stream_read_host(s, fd);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct worker_shared *shared;
	static struct worker_member_shared *m;
	struct device_half half;
	struct umdev_device dev = { 0 };
	struct uuid uuid = { { 0 } };
	int fd = open("/dev/null", O_RDWR);

	if (!shared)
		shared = malloc(sizeof(*shared));
	if (!m)
		m = malloc(sizeof(*m));
	if (!shared || !m || fd < 0 || device_init(&dev, NULL, &type, &uuid))
		abort();
	memset(shared, 0, sizeof(*shared));
	memset(m, 0, sizeof(*m));
	memset(&half, 0, sizeof(half));
	take(&data, &size, shared, offsetof(struct worker_shared, config));
	take(&data, &size, &half, sizeof(half));
	for (int i = 0; i < 2; i++)
		take(&data, &size, &m->streams[i], offsetof(struct stream_shared, hdr));
	take(&data, &size, m->resources, sizeof(m->resources) + sizeof(m->params));
	dev.half = &half;
	dev.stream_shared = m->streams;
	if (!worker_state_check(shared))
		use(&dev, m, fd, &shared->last);
	device_fini(&dev);
	close(fd);
	return 0;
}
