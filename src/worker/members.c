/* SPDX-License-Identifier: MIT */
/*
 * The devices of a group as CONFIG describes them, and where each one's state lies:
 * struct worker_member_shared, the queues' and the presentation's part, in whole pages, one member
 * behind the other. Sizes follow from the types alone, so a successor computes the same layout.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/internal.h"

static size_t whole_pages(size_t n)
{
	size_t page = sysconf(_SC_PAGESIZE);

	return (n + page - 1) / page * page;
}

static void on_closed(struct umdev_device *dev, enum vfio_close_reason reason, const char *text)
{
	struct member *m = container_of(dev, struct member, dev);
	struct worker *w = m->worker;
	struct worker_half *next;
	char uuid[UUID_TEXT];

	/* Said again by a successor: it is in the half or was sent. */
	if (!(w->half->connected >> m->index & 1) || w->half->closed[m->index])
		return;
	if (w->shared->channel.fd < 0) { /* else it is umdevd who says so */
		uuid_format(&dev->uuid, uuid);
		log_info("%s: disconnected: %s", uuid, text);
	}
	str_format(m->closed_text, sizeof(m->closed_text), "%s", text);
	next = worker_begin(w);
	next->closed[m->index] = 1 + reason;
	worker_commit(w);
	channel_serve_soon(w);
}

static void on_faulty(struct umdev_device *dev, const char *text)
{
	struct member *m = container_of(dev, struct member, dev);
	struct worker_half *next = worker_begin(m->worker);

	str_format(m->faulty, sizeof(m->faulty), "%s", text);
	channel_say_state(m->worker, next, m);
	worker_commit(m->worker);
	channel_serve_soon(m->worker);
}

static const struct vfio_server_ops server_ops = { .closed = on_closed, .faulty = on_faulty };

static int find_type(struct member *m, const struct mw_member *from)
{
	const struct umdev_device_driver *driver;
	const struct umdev_device_type *type;
	int error = device_find_type(worker_drivers, from->driver, from->type, &driver, &type);

	if (error)
		return err_set(error, "umdev-worker has no device half for type %s of driver %s",
			       from->type, from->driver);
	if (strcmp(from->presentation, "vfio-user") || !type->pci)
		return err_set(-EINVAL, "type %s of driver %s cannot be presented as %s",
			       from->type, from->driver, from->presentation);
	m->presentation_size = vfio_shared_size(type);
	return device_init(&m->dev, driver, type, &from->uuid);
}

static int find_types(struct worker *w, const struct mw_config *config)
{
	w->members = calloc(config->n_members, sizeof(*w->members));
	w->group.members = calloc(config->n_members, sizeof(*w->group.members));
	if (!w->members || !w->group.members)
		return -ENOMEM;
	w->n_members = w->group.n = config->n_members;
	w->members_size = 0;
	for (unsigned i = 0; i < w->n_members; i++) {
		struct member *m = &w->members[i];
		int error;

		m->worker = w;
		m->index = i;
		error = find_type(m, &config->members[i]);
		if (error)
			return error;
		m->dev.group = &w->group;
		m->dev.group_index = i;
		w->group.members[i] = &m->dev;
		w->members_size += whole_pages(sizeof(struct worker_member_shared)) +
				   whole_pages(queue_shared_size(m->dev.type)) +
				   whole_pages(m->presentation_size);
	}
	return 0;
}

/* Maps the members' part of the memfd, which becomes so long (and empty) when it is fresh. */
static int map_members(struct worker *w, bool fresh)
{
	off_t start = worker_shared_size(), end = start + w->members_size;
	struct stat st;
	uint8_t *at;

	if (fresh && (ftruncate(MW_FD_STATE, start) || ftruncate(MW_FD_STATE, end)))
		return -errno;
	if (fstat(MW_FD_STATE, &st))
		return -errno;
	if (st.st_size != end)
		return -EUCLEAN;
	at = mmap(NULL, w->members_size, PROT_READ | PROT_WRITE, MAP_SHARED, MW_FD_STATE, start);
	if (at == MAP_FAILED)
		return -errno;
	w->members_map = at;
	for (unsigned i = 0; i < w->n_members; i++) {
		w->members[i].shared = (struct worker_member_shared *)at;
		at += whole_pages(sizeof(struct worker_member_shared));
		w->members[i].dev.queue_shared = (struct queue_shared *)at;
		at += whole_pages(queue_shared_size(w->members[i].dev.type));
		w->members[i].presentation = at;
		at += whole_pages(w->members[i].presentation_size);
	}
	return 0;
}

static const int *put_resources(struct member *m, const struct mw_member *from, const int *fds)
{
	for (unsigned i = 0; i < MW_MAX_RESOURCES; i++) {
		struct worker_resource *r = &m->shared->resources[i];
		const struct mw_resource *f = &from->resources[i];

		*r = (struct worker_resource){ .fd = -1, .medium = -1 };
		if (i >= from->n_resources)
			continue;
		strcpy(r->name, f->name);
		r->flags = f->flags;
		r->offset = f->offset;
		r->length = f->length;
		r->fd = *fds++;
	}
	return fds;
}

static int add_all(struct member *m, const struct mw_member *from)
{
	int error = worker_member_check(m->shared);

	m->dev.stream_shared = m->shared->streams;
	m->dev.io_fd = m->worker->io_fd;
	m->dev.engine = m->worker->engine;
	m->dev.medium_leaves = resource_leaves;
	m->dev.queue_group = m->worker->queues;
	for (unsigned i = 0; i < from->n_params && !error; i++) {
		const struct worker_param *p = &m->shared->params[i];

		error = device_add_param(&m->dev, from->params[i].name, from->params[i].type,
					 p->which ? &p->value[p->which - 1]
						  : &from->params[i].value);
	}
	for (unsigned i = 0; i < MW_MAX_RESOURCES && !error; i++) {
		if (m->shared->resources[i].fd >= 0)
			error = resource_attach(m, &m->shared->resources[i]);
	}
	if (error)
		err_set(error, "parameters or resources of a device cannot be used: %s",
			strerror(-error));
	return error;
}

static int load(struct worker *w, const struct mw_config *config, const int *resources)
{
	int error = find_types(w, config);

	if (error)
		return err_set(error, "%s", strerror(-error));
	error = map_members(w, resources != NULL);
	if (error)
		return err_set(error, "state memory of %zu bytes: %s", w->members_size,
			       strerror(-error));
	for (unsigned i = 0; i < w->n_members; i++) {
		if (resources)
			resources = put_resources(&w->members[i], &config->members[i], resources);
		error = add_all(&w->members[i], &config->members[i]);
		if (error)
			return error;
	}
	return 0;
}

int members_load(struct worker *w, const uint8_t *frame, size_t len, const int *resources)
{
	struct mw_config config;
	struct mw_frame f;
	int error = mw_decode(frame, len, 0, true, &f);

	if (!error && f.type != MW_CONFIG)
		error = -EPROTO;
	if (!error)
		error = mw_get_config(&f, &config);
	if (error)
		return err_set(error, "the group's configuration is damaged");
	str_format(w->log_name, sizeof(w->log_name), "umdev-worker group %u", config.group);
	log_init(w->log_name, log_level());
	if (config.version != MW_VERSION)
		error = err_set(-EPROTO,
				"umdevd speaks version %u to its workers, this one %u; "
				"restart umdevd after an upgrade",
				config.version, MW_VERSION);
	else
		error = load(w, &config, resources);
	mw_config_free(&config);
	return error;
}

int members_attach(struct worker *w, enum umdev_init how)
{
	int started = worker_queues_start(w);

	if (started)
		return err_set(started, "I/O queues: %s", strerror(-started));
	for (unsigned i = 0; i < w->n_members; i++) {
		struct member *m = &w->members[i];
		int error = vfio_server_new(&m->dev, &w->loop, m->presentation,
					    m->presentation_size, how, &w->shared->last,
					    &server_ops, &m->dev.vfio);

		if (error == -EUCLEAN)
			return err_set(error, "its state was damaged by the worker that died");
		if (error)
			return err_set(error, "the device could not start: %s", strerror(-error));
	}
	vfio_group_start(&w->group);
	return 0;
}

static int run_group_hook(struct umdev_device *dev, void *arg)
{
	const struct umdev_device_ops *ops = dev->type->ops;
	const bool *open = arg;

	(*open ? ops->group_open : ops->group_close)(dev);
	return 0;
}

/* A death between the hook's commit and ours runs the hook once more. */
static void tell_group(struct worker *w, struct member *m, bool open)
{
	const struct umdev_device_ops *ops = m->dev.type->ops;
	struct worker_half *next;

	if (open ? ops->group_open != NULL : ops->group_close != NULL)
		vfio_server_event(m->dev.vfio, run_group_hook, &open);
	next = worker_begin(w);
	next->group_open ^= 1u << m->index;
	worker_commit(w);
}

void members_tell_group(struct worker *w)
{
	bool open = false;

	for (unsigned i = 0; i < w->n_members; i++)
		open |= vfio_server_state(w->members[i].dev.vfio) != VFIO_CLOSED;
	for (unsigned i = 0; i < w->n_members; i++)
		if ((w->half->group_open >> i & 1) != open)
			tell_group(w, &w->members[i], open);
}

void members_each_fd(struct worker *w, void (*fn)(void *, int), void *arg)
{
	for (unsigned i = 0; i < w->n_members; i++) {
		struct member *m = &w->members[i];

		for (unsigned k = 0; k < MW_MAX_RESOURCES; k++)
			if (m->shared->resources[k].fd >= 0)
				fn(arg, m->shared->resources[k].fd);
		device_streams_each_fd(&m->dev, fn, arg);
		if (m->dev.vfio)
			vfio_each_fd(m->dev.vfio, fn, arg);
	}
}
