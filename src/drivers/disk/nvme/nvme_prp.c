/* SPDX-License-Identifier: MIT */
/*
 * nvme: physical region pages (4.3), where a command's data is. A list is copied before it is
 * looked at, page by page; its pages may be anywhere. Pieces that follow each other become one
 * segment.
 */
#include "nvme.h"

#define ENTRIES (NVME_PAGE / 8)

struct walk {
	struct umdev_queue *q;
	struct nvme_queue_priv *p;
	uint64_t left;
	unsigned n;
};

static int add(struct walk *w, uint64_t address, uint64_t len)
{
	struct umdev_seg *last = w->n ? &w->p->segs[w->n - 1] : NULL;

	if (len > w->left)
		len = w->left;
	w->left -= len;
	if (last && last->addr.v + last->len == address && address) {
		last->len += len;
		return 0;
	}
	if (w->n == UMDEV_QUEUE_SEGS)
		return -NVME_INTERNAL_ERROR;
	w->p->segs[w->n].addr.v = address;
	w->p->segs[w->n++].len = len;
	return 0;
}

static int add_page(struct walk *w, uint64_t address)
{
	if (address & (NVME_PAGE - 1))
		return -nvme_refuse(NVME_PRP_OFFSET_INVALID);
	return add(w, address, NVME_PAGE);
}

/* The entries of one page of the list. *list becomes the next page, where there is one. */
static int add_list(struct walk *w, uint64_t *list)
{
	unsigned room = (unsigned)(NVME_PAGE - (*list & (NVME_PAGE - 1))) / 8;
	uint64_t pages = (w->left + NVME_PAGE - 1) / NVME_PAGE;
	bool chained = pages > room;
	unsigned n = chained ? room : (unsigned)pages;

	if (umdev_queue_read(w->q, (struct iova){ *list }, w->p->list, 8 * n) < 0)
		return -NVME_DATA_TRANSFER_ERROR;
	for (unsigned i = 0; i < n - chained; i++) {
		int r = add_page(w, UMDEV_LE(64, w->p->list[i]));

		if (r < 0)
			return r;
	}
	if (!chained)
		return 0;
	*list = UMDEV_LE(64, w->p->list[n - 1]);
	return *list & (NVME_PAGE - 1) ? -nvme_refuse(NVME_PRP_OFFSET_INVALID) : 0;
}

int nvme_prp(struct umdev_queue *q, const struct nvme_command *cmd, uint64_t len)
{
	struct walk w = { .q = q, .p = umdev_queue_priv(q), .left = len };
	uint64_t prp1 = le64_get(cmd->prp1), prp2 = le64_get(cmd->prp2);
	int r;

	if (prp1 & 3)
		return -nvme_refuse(NVME_PRP_OFFSET_INVALID);
	r = add(&w, prp1, NVME_PAGE - (prp1 & (NVME_PAGE - 1)));
	if (r == 0 && w.left && w.left <= NVME_PAGE)
		r = add_page(&w, prp2);
	else if (w.left && prp2 & 7)
		r = -nvme_refuse(NVME_PRP_OFFSET_INVALID);
	while (r == 0 && w.left)
		r = add_list(&w, &prp2);
	return r < 0 ? r : (int)w.n;
}
