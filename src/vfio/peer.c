// SPDX-License-Identifier: MIT
/*
 * BARs that devices of the group reach by DMA (dma/dma.h has the windows).
 *
 * A window is what a client maps of a memory BAR, at the address that is programmed, while the
 * device decodes it and is connected. All of it follows from committed configuration space, so the
 * windows of a group are computed anew after each commit that wrote there, and at the start of a
 * life; nothing of it is kept.
 *
 * A window that goes (decoding off, another address, a reset, the end of the connection) is taken
 * out of every table first, so that nothing new begins in it; then what is in flight there is
 * waited for; then the command is executed. A death in between undoes the first step, and the next
 * life repeats it.
 */
#include <errno.h>
#include <string.h>
#include "base/range.h"
#include "vfio/internal.h"

struct windows {
	struct dma_window w[DMA_MAX_WINDOWS];
	unsigned n;
};

/* The windows that the device has with that configuration space. */
static void add_windows(const struct vfio_server *s, const uint8_t config[VFIO_CONFIG],
			struct windows *ret)
{
	for (unsigned i = 0; i < 6 && ret->n < DMA_MAX_WINDOWS; i++) {
		const struct umdev_bar *bar = &s->bar[i];
		struct dma_window *w = &ret->w[ret->n];

		if (!(bar->flags & UMDEV_BAR_MMAP) || !s->bar_mem[i] ||
		    !pci_bar_is_decoded(&s->pci, config, i, &w->iova))
			continue;
		w->iova += bar->mmap_offset;
		w->size = bar->mmap_size ? bar->mmap_size : bar->size;
		w->hva = (uint8_t *)s->bar_mem[i] + bar->mmap_offset;
		ret->n += range_is_sane(w->iova, w->size); /* else it is being sized */
	}
}

static bool is_same(const struct windows *a, const struct dma_window *b, unsigned n)
{
	return a->n == n && memcmp(a->w, b, n * sizeof(*b)) == 0;
}

/* 0, or -ENOMEM: some members may have the new windows and others not. */
static int update(struct device_group *group)
{
	struct windows now = { .n = 0 };
	int r = 0;

	for (unsigned i = 0; i < group->n; i++) {
		const struct vfio_server *s = group->members[i]->vfio;

		if (s && vfio_is_connected(s) && s->bars == VFIO_BARS_SHOWN)
			add_windows(s, s->half->config, &now);
	}
	if (is_same(&now, group->windows, group->n_windows))
		return 0;
	for (unsigned i = 0; i < group->n; i++) {
		struct vfio_server *s = group->members[i]->vfio;
		int error = s ? dma_set_windows(s->dma, now.w, now.n) : 0;

		if (error < 0)
			r = error;
	}
	if (r < 0) {
		/* Whatever the members have: it is not known to be anything. */
		group->n_windows = DMA_MAX_WINDOWS + 1;
		return r;
	}
	memcpy(group->windows, now.w, now.n * sizeof(now.w[0]));
	group->n_windows = now.n;
	return 0;
}

void vfio_group_start(struct device_group *group)
{
	update(group); /* nobody reads yet: it cannot fail */
}

void peer_show(struct vfio_server *s)
{
	if (s->bars == VFIO_BARS_HIDING)
		return;
	s->bars = VFIO_BARS_SHOWN;
	/* Without memory for it the group asks the client instead; the next commit tries again. */
	s->config_written = s->dev->group && update(s->dev->group) < 0;
}

/* ---- taking windows away ---- */

/* From the lowest to the highest address of what is decoded now; false: nothing is. */
static bool range_of(const struct vfio_server *s, uint64_t *ret_iova, uint64_t *ret_size)
{
	struct windows now = { .n = 0 };
	uint64_t first = UINT64_MAX, last = 0;

	add_windows(s, s->half->config, &now);
	for (unsigned i = 0; i < now.n; i++) {
		uint64_t end = now.w[i].iova + (now.w[i].size - 1);

		first = now.w[i].iova < first ? now.w[i].iova : first;
		last = end > last ? end : last;
	}
	*ret_iova = first;
	*ret_size = last - first + 1;
	return now.n > 0;
}

static void ask_peers(struct vfio_server *s);

static void peer_is_quiet(struct dma_quiesce *q, int status)
{
	struct vfio_server *s = container_of(q, struct vfio_server, quiesce);

	s->quiescing = false;
	if (status < 0) {
		s->bars = VFIO_BARS_HIDDEN;
		s->hidden(s, status);
	} else if (!s->is_asking) {
		ask_peers(s);
	}
}

/* One table after the other, our own among them: a device may reach its own BAR. */
static void ask_peers(struct vfio_server *s)
{
	struct device_group *group = s->dev->group;
	uint64_t iova, size;

	range_of(s, &iova, &size);
	s->is_asking = true;
	while (s->next_peer < group->n && s->bars == VFIO_BARS_HIDING && !s->quiescing) {
		struct vfio_server *peer = group->members[s->next_peer++]->vfio;

		if (!peer)
			continue;
		s->quiescing = true;
		dma_quiesce(peer->dma, s->loop, &s->quiesce, iova, size, peer_is_quiet);
	}
	s->is_asking = false;
	if (s->quiescing || s->bars != VFIO_BARS_HIDING)
		return;
	s->bars = VFIO_BARS_HIDDEN;
	s->hidden(s, 0);
}

void peer_hide(struct vfio_server *s, void (*then)(struct vfio_server *s, int status))
{
	uint64_t iova, size;
	int r;

	if (!s->dev->group || !range_of(s, &iova, &size)) {
		then(s, 0);
		return;
	}
	s->bars = VFIO_BARS_HIDING;
	s->hidden = then;
	s->next_peer = 0;
	r = update(s->dev->group);
	if (r < 0) {
		s->bars = VFIO_BARS_HIDDEN;
		then(s, r);
		return;
	}
	ask_peers(s);
}

/* Configuration space after the write, if it is one. */
static void imagine(const struct vfio_server *s, const struct vuser_access *a,
		    uint8_t config[VFIO_CONFIG])
{
	if (a->region == VFIO_REGION_CONFIG)
		pci_imagine_write(&s->pci, a->offset, a->count, a->data, config);
}

static void imagine_request(const struct vfio_server *s, const struct vfio_request *rq,
			    uint8_t config[VFIO_CONFIG])
{
	struct vuser_access a;
	uint64_t count;

	switch (rq->header.command) {
	case VUSER_RESET:
		memcpy(config, s->pci.init, VFIO_CONFIG);
		break;
	case VUSER_REGION_WRITE:
		if (vuser_get_write(rq->payload, rq->len, &a) == 0)
			imagine(s, &a, config);
		break;
	case VUSER_REGION_WRITE_MULTI:
		if (vuser_get_multi(rq->payload, rq->len, &count))
			break;
		for (uint64_t i = 0; i < count && i < VUSER_MULTI_MAX; i++)
			if (vuser_get_multi_entry(rq->payload, rq->len, i, &a) == 0)
				imagine(s, &a, config);
		break;
	}
}

bool peer_must_wait(struct vfio_server *s, const struct vfio_request *rq)
{
	struct windows now = { .n = 0 }, then = { .n = 0 };
	uint8_t config[VFIO_CONFIG];

	if (!s->dev->group || s->bars != VFIO_BARS_SHOWN)
		return s->bars == VFIO_BARS_HIDING;
	add_windows(s, s->half->config, &now);
	if (!now.n)
		return false;
	memcpy(config, s->half->config, VFIO_CONFIG);
	imagine_request(s, rq, config);
	add_windows(s, config, &then);
	if (is_same(&now, then.w, then.n))
		return false;
	peer_hide(s, vfio_go_on);
	return s->bars != VFIO_BARS_HIDDEN || !vfio_is_connected(s);
}
