/* SPDX-License-Identifier: MIT */
/* The device halves' surroundings: see device.h, and umdev/device.h for what drivers may call. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <umdev/queue.h>
#include "base/log.h"
#include "device/device.h"

#define LOG_LINES 10 /* per device and second: a guest must not fill the host's log */
#define SECOND_NS 1000000000ULL

/* Where in a half the requests in flight are. */
static size_t requests_at(const struct umdev_device_type *type)
{
	return (sizeof(struct device_half) + type->state_size + 15) & ~(size_t)15;
}

static size_t queues_at(const struct umdev_device_type *type)
{
	return requests_at(type) + type->media_requests * sizeof(struct device_request);
}

size_t device_half_size(const struct umdev_device_type *type)
{
	size_t n = queues_at(type) + (type->queues ? type->queues->max : 0);

	return (n + 15) & ~(size_t)15;
}

size_t device_segs_size(const struct umdev_device_type *type)
{
	return (size_t)type->media_requests * UMDEV_MEDIA_SEGS * sizeof(struct umdev_seg);
}

struct device_request *device_requests(const struct umdev_device *dev, struct device_half *half)
{
	return (struct device_request *)((uint8_t *)half + requests_at(dev->type));
}

uint8_t *device_queue_states(const struct umdev_device *dev, struct device_half *half)
{
	return (uint8_t *)half + queues_at(dev->type);
}

int device_find_type(const struct umdev_device_driver *const *drivers, const char *driver,
		     const char *type, const struct umdev_device_driver **ret_driver,
		     const struct umdev_device_type **ret_type)
{
	for (; *drivers; drivers++) {
		if (strcmp((*drivers)->name, driver))
			continue;
		if ((*drivers)->abi != UMDEV_ABI)
			return -EPROTO;
		for (const struct umdev_device_type *t = (*drivers)->types; t->name; t++) {
			if (strcmp(t->name, type))
				continue;
			*ret_driver = *drivers;
			*ret_type = t;
			return 0;
		}
	}
	return -ENOENT;
}

int device_init(struct umdev_device *dev, const struct umdev_device_driver *driver,
		const struct umdev_device_type *type, const struct uuid *uuid)
{
	*dev = (struct umdev_device){ .driver = driver, .type = type, .uuid = *uuid, .io_fd = -1 };
	dev->priv = calloc(1, type->priv_size ? type->priv_size : 1);
	return dev->priv ? 0 : -ENOMEM;
}

static void unmap_memory(struct device_resource *r)
{
	if (r->mem)
		munmap(r->mem, r->length);
	r->mem = NULL;
}

void device_fini(struct umdev_device *dev)
{
	device_streams_stop(dev);
	for (unsigned i = 0; i < dev->n_resources; i++)
		unmap_memory(&dev->resources[i]);
	free(dev->priv);
	dev->priv = NULL;
}

struct device_param *device_param_find(struct umdev_device *dev, const char *name)
{
	for (unsigned i = 0; i < dev->n_params; i++)
		if (!strcmp(dev->params[i].name, name))
			return &dev->params[i];
	return NULL;
}

int device_add_param(struct umdev_device *dev, const char *name, enum umdev_param_type type,
		     const struct umdev_value *value)
{
	struct device_param *p = &dev->params[dev->n_params];

	if (dev->n_params == DEVICE_MAX_PARAMS || strlen(name) >= sizeof(p->name))
		return -ENOSPC;
	if (device_param_find(dev, name))
		return -EEXIST;
	strcpy(p->name, name);
	p->value = *value;
	p->desc = (struct umdev_param){ .name = p->name, .type = type };
	dev->n_params++;
	return 0;
}

struct device_resource *device_find_resource(struct umdev_device *dev, const char *name)
{
	for (unsigned i = 0; i < dev->n_resources; i++)
		if (!strcmp(dev->resources[i].name, name))
			return &dev->resources[i];
	return NULL;
}

/* Reads of /dev/null end at once: not what a disk does. */
static bool is_null(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* The medium that gets this number, or (-1) the lowest that is free; NULL: there is none. */
static struct device_medium *free_medium(struct umdev_device *dev, int number)
{
	unsigned i = number < 0 ? 0 : (unsigned)number;

	while (number < 0 && i < UMDEV_MAX_MEDIA && *dev->media_list[i].name)
		i++;
	return i < UMDEV_MAX_MEDIA && !*dev->media_list[i].name ? &dev->media_list[i] : NULL;
}

static int add_medium(struct umdev_device *dev, const char *name, int fd, uint32_t flags,
		      uint64_t offset, uint64_t length, int *number)
{
	struct device_medium *m = free_medium(dev, *number);

	if (!m)
		return -ENOSPC;
	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return -EINVAL;
	*m = (struct device_medium){ .fd = fd, .offset = offset, .length = length };
	m->writable = flags & UMDEV_RES_WRITE;
	m->null = is_null(fd);
	m->direct = fcntl(fd, F_GETFL) & O_DIRECT;
	strcpy(m->name, name);
	*number = (int)(m - dev->media_list);
	if (dev->n_media < (unsigned)*number + 1)
		dev->n_media = (unsigned)*number + 1;
	return 0;
}

/* It comes from the manager, which sealed it; guests reach what lies in it, not its size. */
static int map_memory(struct device_resource *r, uint64_t length)
{
	int prot = PROT_READ | (r->flags & UMDEV_RES_WRITE ? PROT_WRITE : 0);
	int seals = fcntl(r->fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(r->fd, &st) < 0 || !length ||
	    length > (uint64_t)st.st_size)
		return -EINVAL;
	p = mmap(NULL, length, prot, MAP_SHARED, r->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	r->mem = p;
	return 0;
}

int device_add_resource(struct umdev_device *dev, const char *name, int fd, uint32_t flags,
			uint64_t offset, uint64_t length, int *medium)
{
	struct device_resource *r = &dev->resources[dev->n_resources];
	int any = -1;

	if (!medium)
		medium = &any;
	if (!*name)
		return -EINVAL;
	if (dev->n_resources == DEVICE_MAX_RESOURCES || strlen(name) >= sizeof(r->name))
		return -ENOSPC;
	if (device_find_resource(dev, name))
		return -EEXIST;
	if (flags & UMDEV_RES_STREAM) {
		unsigned i = dev->n_streams;
		int error;

		if (i == UMDEV_MAX_STREAMS)
			return -ENOSPC;
		error = stream_init(&dev->streams[i], dev, i, name, fd, flags,
				    dev->stream_shared + i);
		if (error)
			return error;
		dev->n_streams++;
	}
	if (flags & UMDEV_RES_MEDIUM) {
		int error = add_medium(dev, name, fd, flags, offset, length, medium);

		if (error)
			return error;
	} else {
		*medium = -1;
	}
	*r = (struct device_resource){ .fd = fd, .flags = flags, .offset = offset };
	if (flags & UMDEV_RES_MEMORY) {
		int error = map_memory(r, length);

		if (error)
			return error;
	}
	r->medium = *medium;
	r->length = length;
	strcpy(r->name, name);
	dev->n_resources++;
	return 0;
}

/* A queue thread may look at `leaves`, then at the name: whichever it sees, nothing is there. */
static void forget_medium(struct device_medium *m)
{
	m->name[0] = '\0';
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	*m = (struct device_medium){ .fd = -1 };
}

void device_remove_resource(struct umdev_device *dev, const char *name)
{
	struct device_resource *r = device_find_resource(dev, name);

	if (!r)
		return;
	assert(!(r->flags & UMDEV_RES_STREAM));
	unmap_memory(r);
	if (r->medium >= 0)
		forget_medium(&dev->media_list[r->medium]);
	while (dev->n_media && !*dev->media_list[dev->n_media - 1].name)
		dev->n_media--;
	*r = dev->resources[--dev->n_resources];
}

int device_streams_attach(struct umdev_device *dev, enum umdev_init how,
			  const struct stream_last_life *last)
{
	for (unsigned i = 0; i < dev->n_streams; i++) {
		struct stream *s = &dev->streams[i];
		int error = how == UMDEV_FRESH ? stream_attach_fresh(s)
					       : stream_attach_resume(s, last);

		if (error)
			return error;
	}
	return 0;
}

int device_streams_start(struct umdev_device *dev, struct loop *loop,
			 void (*event)(struct stream *))
{
	for (unsigned i = 0; i < dev->n_streams; i++) {
		int error = stream_start(&dev->streams[i], loop, event);

		if (error) {
			device_streams_stop(dev);
			return error;
		}
	}
	return 0;
}

void device_streams_stop(struct umdev_device *dev)
{
	for (unsigned i = 0; i < dev->n_streams; i++)
		stream_stop(&dev->streams[i]);
}

void device_streams_kick(struct umdev_device *dev)
{
	for (unsigned i = 0; i < dev->n_streams; i++)
		stream_kick(&dev->streams[i]);
}

void device_streams_reset(struct umdev_device *dev)
{
	for (unsigned i = 0; i < dev->n_streams; i++)
		stream_reset(&dev->streams[i]);
}

void device_streams_each_fd(struct umdev_device *dev, void (*fn)(void *, int), void *arg)
{
	for (unsigned i = 0; i < dev->n_streams; i++)
		if (dev->streams[i].shared->peer_fd >= 0)
			fn(arg, dev->streams[i].shared->peer_fd);
}

/* ---- what drivers call ---- */

void *umdev_state(struct umdev_device *dev)
{
	return dev->half->state;
}

void *umdev_priv(struct umdev_device *dev)
{
	return dev->priv;
}

void umdev_work_soon(struct umdev_device *dev)
{
	assert(dev->type->ops->work);
	dev->half->work = 1;
}

const struct umdev_value *umdev_param(const struct umdev_device *dev, const char *name)
{
	const struct device_param *p = device_param_find((struct umdev_device *)dev, name);

	return p ? &p->value : NULL;
}

void *umdev_resource_mem(struct umdev_device *dev, const char *name, uint64_t *ret_len)
{
	struct device_resource *r = device_find_resource(dev, name);

	if (!r || !r->mem)
		return NULL;
	*ret_len = r->length;
	return r->mem;
}

int umdev_resource_fd(const struct umdev_device *dev, const char *name)
{
	const struct device_resource *r = device_find_resource((struct umdev_device *)dev, name);

	return r && !(r->flags & UMDEV_RES_STREAM) ? r->fd : -ENOENT;
}

int umdev_media_find(const struct umdev_device *dev, const char *name)
{
	for (unsigned i = 0; i < dev->n_media && *name; i++)
		if (!strcmp(dev->media_list[i].name, name))
			return (int)i;
	return -ENOENT;
}

uint64_t umdev_media_size(const struct umdev_device *dev, unsigned medium)
{
	return dev->media_list[medium].length;
}

bool umdev_media_is_writable(const struct umdev_device *dev, unsigned medium)
{
	return dev->media_list[medium].writable;
}

const uint8_t *umdev_uuid(const struct umdev_device *dev)
{
	return dev->uuid.b;
}

int umdev_stream_find(const struct umdev_device *dev, const char *name)
{
	for (unsigned i = 0; i < dev->n_streams; i++)
		if (!strcmp(dev->streams[i].name, name))
			return i;
	return -ENOENT;
}

size_t umdev_stream_avail(const struct umdev_device *dev, unsigned stream)
{
	return dev->streams[stream].shared->in_head - dev->half->in_tail[stream];
}

size_t umdev_stream_space(const struct umdev_device *dev, unsigned stream)
{
	return UMDEV_STREAM_BYTES -
	       (dev->half->out_head[stream] - dev->streams[stream].shared->out_tail);
}

/* Bytes that can be moved at once from ring offset `at` on. */
static size_t run(uint64_t at, size_t len)
{
	size_t to_end = UMDEV_STREAM_BYTES - at % UMDEV_STREAM_BYTES;

	return len < to_end ? len : to_end;
}

size_t umdev_stream_read(struct umdev_device *dev, unsigned stream, void *buf, size_t len)
{
	const uint8_t *ring = dev->streams[stream].shared->in;
	uint64_t *tail = &dev->half->in_tail[stream];
	size_t avail = umdev_stream_avail(dev, stream);

	len = len < avail ? len : avail;
	for (size_t done = 0, n; done < len; done += n, *tail += n) {
		n = run(*tail, len - done);
		memcpy((uint8_t *)buf + done, ring + *tail % UMDEV_STREAM_BYTES, n);
	}
	return len;
}

size_t umdev_stream_write(struct umdev_device *dev, unsigned stream, const void *buf, size_t len)
{
	uint8_t *ring = dev->streams[stream].shared->out;
	uint64_t *head = &dev->half->out_head[stream];
	size_t space = umdev_stream_space(dev, stream);

	len = len < space ? len : space;
	for (size_t done = 0, n; done < len; done += n, *head += n) {
		n = run(*head, len - done);
		memcpy(ring + *head % UMDEV_STREAM_BYTES, (const uint8_t *)buf + done, n);
	}
	return len;
}

void umdev_log(struct umdev_device *dev, const char *format, ...)
{
	char text[512], uuid[UUID_TEXT];
	uint64_t now = loop_now_ns();
	va_list args;

	if (now - dev->log_at_ns >= SECOND_NS) {
		dev->log_at_ns = now;
		dev->log_n = 0;
	}
	if (dev->log_n++ >= LOG_LINES)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	uuid_format(&dev->uuid, uuid);
	log_info("%s: %s", uuid, text);
}

/* ---- the group ---- */

unsigned umdev_group_size(const struct umdev_device *dev)
{
	return dev->group ? dev->group->n : 1;
}

unsigned umdev_group_index(const struct umdev_device *dev)
{
	return dev->group_index;
}

struct umdev_device *umdev_group_member(const struct umdev_device *dev, unsigned index)
{
	assert(index < umdev_group_size(dev));
	return dev->group ? dev->group->members[index] : (struct umdev_device *)dev;
}

const struct umdev_device_type *umdev_device_type(const struct umdev_device *dev)
{
	return dev->type;
}

const char *umdev_driver_name(const struct umdev_device *dev)
{
	return dev->driver->name;
}
