// SPDX-License-Identifier: MIT
/*
 * State memory: its layout, its first content, and the check of what another life left. The dead
 * one may have been hostile, so nothing in it is believed that is used as an index or a length.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "base/range.h"
#include "vfio/internal.h"

static size_t page_round(size_t n)
{
	size_t page = sysconf(_SC_PAGESIZE);

	return (n + page - 1) / page * page;
}

size_t vfio_half_size(const struct umdev_device_type *type)
{
	size_t n = sizeof(struct vfio_half) + 16u * type->pci->msix + device_half_size(type);

	return (n + 63) & ~(size_t)63;
}

size_t vfio_shared_size(const struct umdev_device_type *type)
{
	return page_round(sizeof(struct vfio_shared) + 2 * vfio_half_size(type) +
			  device_segs_size(type));
}

struct device_half *vfio_device_half(const struct vfio_server *s, struct vfio_half *h)
{
	return (struct device_half *)(vfio_msix_table(h) + 16u * s->dev->type->pci->msix);
}

void vfio_work_on(struct vfio_server *s, unsigned which)
{
	s->half = vfio_half_at(s, which);
	s->effects = &s->shared->effects[which];
	s->dev->half = vfio_device_half(s, s->half);
}

void vfio_msix_reset(struct vfio_server *s)
{
	uint8_t *table = vfio_msix_table(s->half);

	for (unsigned i = 0; i < s->dev->type->pci->msix; i++) {
		memset(table + 16 * i, 0, 16);
		table[16 * i + 12] = 1; /* vector control: masked */
	}
}

size_t vfio_bar_bytes(const struct vfio_server *s, unsigned bar)
{
	return page_round(s->bar[bar].size);
}

static int bar_map(struct vfio_server *s, unsigned i)
{
	size_t size = vfio_bar_bytes(s, i);
	struct stat st;
	void *p;

	if (fstat(s->shared->bar_fd[i], &st) < 0 || (uint64_t)st.st_size != size)
		return -EUCLEAN;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->shared->bar_fd[i], 0);
	if (p == MAP_FAILED)
		return -errno;
	s->bar_mem[i] = p;
	return 0;
}

/* The resource that is the memory of a BAR, or NULL. */
static const struct device_resource *memory_of(const struct vfio_server *s, unsigned i)
{
	const char name[] = { 'b', 'a', 'r', (char)('0' + i), '\0' };
	const struct device_resource *r = device_find_resource(s->dev, name);

	return r && r->flags & UMDEV_RES_MEMORY ? r : NULL;
}

int vfio_bars_size(struct vfio_server *s)
{
	const struct umdev_value *instances = umdev_param(s->dev, "aggregation");

	memcpy(s->bar, s->dev->type->pci->bar, sizeof(s->bar));
	for (unsigned i = 0; i < 6; i++) {
		const struct device_resource *r = memory_of(s, i);

		if (s->bar[i].instances > (instances ? instances->u64 : 1))
			s->bar[i] = (struct umdev_bar){ 0 };
		if (!r)
			continue;
		if (!(s->bar[i].flags & UMDEV_BAR_MMAP) || s->bar[i].mmap_size ||
		    r->length > s->bar[i].size || r->length & (r->length - 1) ||
		    r->length != page_round(r->length))
			return -EINVAL;
		s->bar[i].size = r->length;
	}
	return 0;
}

/* A number of its own for the memory, whoever made it. */
static int bar_create(struct vfio_server *s, unsigned i)
{
	const struct device_resource *given = memory_of(s, i);
	_cleanup_close_ int fd = -1;

	if (given) {
		s->shared->bar_fd[i] = fcntl(given->fd, F_DUPFD_CLOEXEC, 0);
		return s->shared->bar_fd[i] < 0 ? -errno : bar_map(s, i);
	}
	fd = memfd_create("umdev-bar", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, vfio_bar_bytes(s, i)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	s->shared->bar_fd[i] = take_fd(&fd);
	return bar_map(s, i);
}

int vfio_bars_init(struct vfio_server *s, enum umdev_init how)
{
	for (unsigned i = 0; i < 6; i++) {
		bool wanted = s->bar[i].flags & (UMDEV_BAR_MMAP | UMDEV_BAR_DOORBELLS);
		int r = 0;

		if (wanted)
			r = how == UMDEV_FRESH ? bar_create(s, i) : bar_map(s, i);
		else if (how == UMDEV_RESUME && s->shared->bar_fd[i] != -1)
			r = -EUCLEAN;
		if (r < 0)
			return r;
	}
	return 0;
}

uint32_t *vfio_doorbells(const struct vfio_server *s)
{
	for (unsigned i = 0; i < 6; i++) {
		const struct umdev_bar *bar = &s->dev->type->pci->bar[i];

		if (bar->flags & UMDEV_BAR_DOORBELLS)
			return (uint32_t *)((uint8_t *)s->bar_mem[i] + bar->mmap_offset);
	}
	return NULL;
}

void vfio_state_init(struct vfio_server *s, size_t size)
{
	struct vfio_shared *shared = s->shared;

	shared->magic = VFIO_MAGIC;
	shared->layout = VFIO_LAYOUT;
	shared->half_size = s->half_size;
	shared->state_version = s->dev->type->state_version;
	shared->size = size;
	shared->ab = (struct ab){ 0 };
	memset(shared->effects, 0, sizeof(shared->effects));
	memset(shared->bar_fd, -1, sizeof(shared->bar_fd));
	memset(shared->irq_fd, -1, sizeof(shared->irq_fd));
	shared->conn.fd = -1;
	memset(vfio_half_at(s, 0), 0, 2 * s->half_size);
	vfio_work_on(s, 0);
	s->half->cursor = (struct conn_cursor)CONN_CURSOR_INIT;
	memcpy(s->half->config, s->pci.init, VFIO_CONFIG);
	vfio_msix_reset(s);
}

static bool effects_are_possible(const struct vfio_effects *e)
{
	uint64_t bytes = 0;

	if (e->irq.op > VFIO_IRQ_OP_RELEASE || e->n_close > CONN_FDS ||
	    e->n_redo > VFIO_REDO_ENTRIES || e->redo_len > sizeof(e->redo_data) ||
	    !range_fits(e->irq.first, e->irq.count, VFIO_IRQ_FDS) ||
	    (e->irq.op == VFIO_IRQ_OP_ARM && e->irq.count > VFIO_MAX_FDS))
		return e->irq.op == VFIO_IRQ_OP_NONE && !e->n_close && !e->n_redo;
	for (uint32_t i = 0; i < e->n_redo; i++)
		bytes += e->redo[i].len;
	return bytes <= e->redo_len;
}

static bool half_is_possible(const struct vfio_server *s, const struct vfio_half *h)
{
	for (unsigned i = 0; i < UMDEV_DMA_MESSAGES; i++) {
		if (h->message[i].state > VFIO_MESSAGE_DROPPED ||
		    h->message[i].len > UMDEV_DMA_MESSAGE_MAX)
			return false;
	}
	for (unsigned slot = VFIO_IRQ_FDS; slot < 64 * VFIO_IRQ_WORDS; slot++) {
		if (bit_is_set(h->signal, slot))
			return false;
	}
	return h->state <= VFIO_CLOSING && h->faulty <= VFIO_FAULTY &&
	       h->reported <= 1 + VFIO_CLOSE_FAULT && (h->state != VFIO_CLOSING || h->reported) &&
	       h->wait.waiting <= 1 && h->wait.reply_len <= sizeof(h->wait.reply) &&
	       h->client_fds <= VFIO_MAX_FDS && pci_config_is_possible(&s->pci, h->config);
}

int vfio_state_check(struct vfio_server *s, size_t size)
{
	struct vfio_shared *shared = s->shared;

	if (shared->magic != VFIO_MAGIC || shared->layout != VFIO_LAYOUT ||
	    shared->half_size != s->half_size || shared->size != size ||
	    shared->state_version != s->dev->type->state_version || shared->ab.cur > 1)
		return -EUCLEAN;
	vfio_work_on(s, shared->ab.cur);
	shared->close_text[sizeof(shared->close_text) - 1] = '\0';
	for (unsigned i = 0; i < VFIO_IRQ_FDS; i++) {
		if (shared->irq_fd[i] < -1)
			return -EUCLEAN;
	}
	if (!half_is_possible(s, s->half) || !effects_are_possible(s->effects))
		return -EUCLEAN;
	if (s->half->state != VFIO_CLOSED)
		return conn_attach_resume(&s->conn, &shared->conn, &s->half->cursor, vuser_len);
	/* Whoever asked for a connection that was not opened yet still has its socket. */
	shared->conn.fd = -1;
	return 0;
}

/* What an earlier connection left in memory that the next client will map. */
void vfio_bars_close(struct vfio_server *s)
{
	for (unsigned i = 0; i < 6; i++) {
		int fd = s->shared->bar_fd[i];

		s->shared->bar_fd[i] = -1;
		if (fd >= 0)
			close(fd);
	}
}

int vfio_bars_clear(struct vfio_server *s)
{
	for (unsigned i = 0; i < 6; i++) {
		if (s->bar_mem[i] &&
		    fallocate(s->shared->bar_fd[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			      vfio_bar_bytes(s, i)) < 0)
			return -errno;
	}
	return 0;
}

void vfio_each_fd(struct vfio_server *s, void (*fn)(void *, int), void *arg)
{
	const struct vfio_effects *e = s->effects;

	if (s->half->state != VFIO_CLOSED)
		conn_each_fd(&s->conn, &s->half->cursor, fn, arg);
	dma_each_fd(s->dma, fn, arg);
	for (unsigned i = 0; i < 6; i++) {
		if (s->shared->bar_fd[i] >= 0)
			fn(arg, s->shared->bar_fd[i]);
	}
	for (unsigned i = 0; i < VFIO_IRQ_FDS; i++) {
		if (s->shared->irq_fd[i] >= 0)
			fn(arg, s->shared->irq_fd[i]);
	}
	for (unsigned i = 0; e->irq.op == VFIO_IRQ_OP_ARM && i < e->irq.count; i++)
		fn(arg, e->irq.fd[i]);
	for (unsigned i = 0; i < e->n_close; i++)
		fn(arg, e->close_fd[i]);
}
