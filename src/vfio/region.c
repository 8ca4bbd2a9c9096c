// SPDX-License-Identifier: MIT
/*
 * Regions: BARs 0-5, ROM and VGA (never there), configuration space.
 *
 * An access of any width and alignment is cut into naturally aligned pieces of 1, 2, 4 or 8 bytes
 * in rising order. Inside a BAR a piece belongs to the MSI-X table or its pending bits (ours), to
 * the part that the client maps (memory), or to the driver's hooks.
 */
#include <errno.h>
#include <string.h>
#include "base/range.h"
#include "vfio/internal.h"

static const struct umdev_bar *bar_of(const struct vfio_server *s, unsigned region)
{
	return region < 6 ? &s->bar[region] : NULL;
}

static bool is_upper_half(const struct vfio_server *s, unsigned region)
{
	return region > 0 && region < 6 && bar_of(s, region - 1)->flags & UMDEV_BAR_64;
}

uint64_t vfio_region_size(const struct vfio_server *s, unsigned region)
{
	if (region == VFIO_REGION_CONFIG)
		return s->pci.size;
	return region < 6 && !is_upper_half(s, region) ? bar_of(s, region)->size : 0;
}

static uint64_t mapped_size(const struct umdev_bar *bar)
{
	if (!(bar->flags & UMDEV_BAR_MMAP))
		return 0;
	return bar->mmap_size ? bar->mmap_size : bar->size;
}

/* What the client may map. */
static uint64_t offered_size(const struct vfio_server *s, const struct umdev_bar *bar)
{
	const struct umdev_value *how = umdev_param(s->dev, "doorbells");

	if (!(bar->flags & UMDEV_BAR_DOORBELLS))
		return mapped_size(bar);
	return how && !strcmp(how->text, UMDEV_DOORBELLS_MAPPED) ? bar->mmap_size : 0;
}

int vfio_get_region_info(struct vfio_server *s, struct vfio_request *rq)
{
	const struct umdev_bar *bar;
	struct vuser_region_info i;
	uint64_t mapped = 0;
	uint32_t argsz;

	if (vuser_get_region_info(rq->payload, rq->len, &i) || i.argsz < VUSER_REGION_INFO ||
	    i.index >= VFIO_REGIONS)
		return -EINVAL;
	argsz = i.argsz;
	bar = bar_of(s, i.index);
	i = (struct vuser_region_info){ .argsz = VUSER_REGION_INFO,
					.index = i.index,
					.size = vfio_region_size(s, i.index) };
	if (i.size)
		i.flags = VUSER_REGION_R | VUSER_REGION_W;
	if (bar && i.size && s->half->client_fds)
		mapped = offered_size(s, bar);
	if (mapped)
		i.flags |= VUSER_REGION_MMAP;
	if (mapped && mapped < i.size) {
		i.argsz += VUSER_SPARSE_AREA;
		if (argsz >= i.argsz) {
			i.flags |= VUSER_REGION_CAPS;
			i.cap_offset = VUSER_REGION_INFO;
		}
	}
	vuser_put_region_info(&rq->reply, &i);
	if (i.flags & VUSER_REGION_CAPS)
		vuser_put_sparse_area(&rq->reply, bar->mmap_offset, mapped);
	/* One descriptor for the whole region, and none with an answer that lacks the area: its
	 * reader would map too much. */
	if (mapped && argsz >= i.argsz)
		rq->reply_fd = s->shared->bar_fd[i.index];
	return 0;
}

int vfio_get_region_io_fds(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_info i;

	if (vuser_get_info(rq->payload, rq->len, &i) || i.argsz < VUSER_INFO || i.flags ||
	    i.index >= VFIO_REGIONS || i.count)
		return -EINVAL;
	/* No region has a doorbell that is an eventfd. */
	i.argsz = VUSER_INFO;
	vuser_put_info(&rq->reply, &i);
	return 0;
}

/* Largest naturally aligned piece at offset. */
static unsigned piece_len(uint64_t offset, uint32_t left)
{
	unsigned len = 8;

	while (len > left || offset % len)
		len /= 2;
	return len;
}

/* What of a BAR the piece at offset lies in. Pieces never straddle: tables are 8-aligned. */
enum part { PART_HOOKS, PART_MEMORY, PART_TABLE, PART_PENDING };

static enum part part_at(const struct vfio_server *s, unsigned region, uint64_t offset,
			 uint64_t *ret_inside)
{
	const struct umdev_pci *pci = s->dev->type->pci;
	const struct umdev_bar *bar = &s->bar[region];

	*ret_inside = offset;
	if (pci->msix && region == pci->msix_bar) {
		*ret_inside = offset - pci->msix_table;
		if (offset >= pci->msix_table && *ret_inside < 16u * pci->msix)
			return PART_TABLE;
		*ret_inside = offset - pci->msix_pba;
		if (offset >= pci->msix_pba && *ret_inside < 8u * ((pci->msix + 63) / 64))
			return PART_PENDING;
		*ret_inside = offset;
	}
	if (offset >= bar->mmap_offset && offset - bar->mmap_offset < mapped_size(bar))
		return PART_MEMORY;
	return PART_HOOKS;
}

static uint64_t load(const volatile void *p, unsigned len)
{
	switch (len) {
	case 1:
		return *(const volatile uint8_t *)p;
	case 2:
		return *(const volatile uint16_t *)p;
	case 4:
		return *(const volatile uint32_t *)p;
	default:
		return *(const volatile uint64_t *)p;
	}
}

static void store(volatile void *p, unsigned len, uint64_t value)
{
	switch (len) {
	case 1:
		*(volatile uint8_t *)p = value;
		break;
	case 2:
		*(volatile uint16_t *)p = value;
		break;
	case 4:
		*(volatile uint32_t *)p = value;
		break;
	default:
		*(volatile uint64_t *)p = value;
		break;
	}
}

static uint64_t bar_read(struct vfio_server *s, unsigned region, uint64_t offset, unsigned len)
{
	const struct umdev_device_ops *ops = s->dev->type->ops;
	uint64_t inside;

	switch (part_at(s, region, offset, &inside)) {
	case PART_TABLE:
		return load(vfio_msix_table(s->half) + inside, len);
	case PART_PENDING:
		return irq_pending_word(s, inside / 8 * 64) >> (inside % 8 * 8);
	case PART_MEMORY:
		return load((uint8_t *)s->bar_mem[region] + inside, len);
	default:
		return ops->bar_read ? ops->bar_read(s->dev, region, offset, len) : 0;
	}
}

static void bar_write(struct vfio_server *s, unsigned region, uint64_t offset, unsigned len,
		      uint64_t value)
{
	const struct umdev_device_ops *ops = s->dev->type->ops;
	uint64_t inside;

	switch (part_at(s, region, offset, &inside)) {
	case PART_TABLE: /* kept for the reader; vectors are masked by the client's own table */
		store(vfio_msix_table(s->half) + inside, len, value);
		break;
	case PART_PENDING: /* read-only */
		break;
	case PART_MEMORY:
		store((uint8_t *)s->bar_mem[region] + inside, len, value);
		break;
	default:
		if (ops->bar_write)
			ops->bar_write(s->dev, region, offset, len, value);
		break;
	}
}

static int check_access(const struct vfio_server *s, const struct vuser_access *a)
{
	if (a->region >= VFIO_REGIONS || !a->count || a->count > VFIO_MAX_DATA ||
	    !range_fits(a->offset, a->count, vfio_region_size(s, a->region)))
		return -EINVAL;
	return 0;
}

static void read_bar(struct vfio_server *s, const struct vuser_access *a, uint8_t *out)
{
	for (uint32_t at = 0; at < a->count;) {
		unsigned len = piece_len(a->offset + at, a->count - at);
		uint64_t v = bar_read(s, a->region, a->offset + at, len);

		memcpy(out + at, &v, len);
		at += len;
	}
}

int vfio_region_read(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_access a;
	uint8_t *out;

	if (vuser_get_read(rq->payload, rq->len, &a) || check_access(s, &a))
		return -EINVAL;
	vuser_put_access(&rq->reply, &a);
	out = buf_space(&rq->reply, a.count);
	if (!out)
		return -EINVAL;
	if (a.region == VFIO_REGION_CONFIG)
		pci_read(s, a.offset, a.count, out);
	else if (pci_is_asleep(s))
		memset(out, 0xff, a.count);
	else
		read_bar(s, &a, out);
	return 0;
}

/*
 * Bytes [from, count) of a write; returns how far it came. It stops between two pieces when a hook
 * asked for writes to guest memory: their room is promised to every hook anew.
 */
static uint32_t write_bar(struct vfio_server *s, const struct vuser_access *a, uint32_t from)
{
	uint32_t at = from;

	while (at < a->count && !s->effects->n_redo) {
		unsigned len = piece_len(a->offset + at, a->count - at);
		uint64_t v = 0;

		memcpy(&v, a->data + at, len);
		bar_write(s, a->region, a->offset + at, len, v);
		at += len;
	}
	return at;
}

static uint32_t write_region(struct vfio_server *s, const struct vuser_access *a, uint32_t from)
{
	if (a->region == VFIO_REGION_CONFIG)
		pci_write(s, a->offset, a->count, a->data);
	else if (!pci_is_asleep(s))
		return write_bar(s, a, from);
	return a->count;
}

/* A write is done when its effect is: after a reset of the function nothing of before may still
 * write guest memory or the disk. */
static int answer_write(const struct vfio_server *s)
{
	return s->half->wait.size ? VFIO_LATER : 0;
}

int vfio_region_write(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_access a;

	if (vuser_get_write(rq->payload, rq->len, &a) || check_access(s, &a))
		return -EINVAL;
	s->half->progress = write_region(s, &a, s->half->progress);
	if (s->half->progress < a.count)
		return VFIO_MORE;
	a.data = NULL;
	vuser_put_access(&rq->reply, &a);
	return answer_write(s);
}

/* All entries are judged before the first one is executed. */
static int check_multi(struct vfio_server *s, struct vfio_request *rq, uint64_t *ret_count)
{
	struct vuser_access a;

	if (vuser_get_multi(rq->payload, rq->len, ret_count) || *ret_count > VUSER_MULTI_MAX)
		return -EINVAL;
	for (uint64_t i = 0; i < *ret_count; i++) {
		if (vuser_get_multi_entry(rq->payload, rq->len, i, &a) || check_access(s, &a))
			return -EINVAL;
	}
	return 0;
}

int vfio_region_write_multi(struct vfio_server *s, struct vfio_request *rq)
{
	struct vfio_half *h = s->half;
	struct vuser_access a;
	uint64_t count;

	if (check_multi(s, rq, &count))
		return -EINVAL;
	while (h->progress / 8 < count) {
		uint32_t entry = h->progress / 8, done;

		vuser_get_multi_entry(rq->payload, rq->len, entry, &a);
		done = write_region(s, &a, h->progress % 8);
		h->progress = done < a.count ? entry * 8 + done : (entry + 1) * 8;
		if (s->effects->n_redo && h->progress / 8 < count)
			return VFIO_MORE;
	}
	buf_put_u64(&rq->reply, count);
	return answer_write(s);
}
