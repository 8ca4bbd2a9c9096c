// SPDX-License-Identifier: MIT
/*
 * Interrupts: which events the client wants to hear of, and through which eventfd.
 *
 *   INTx   a level. Signalled when it is asserted and neither masked by the client, disabled in
 *          COMMAND nor replaced by MSI; signalling masks it (automask), the client's unmask, by
 *          message or by an eventfd that it gave us, looks at the level again.
 *   MSI, MSI-X  events. One that cannot be signalled now (vector not armed, function masked) is
 *          pending until it can.
 *   REQ    "please release the device"; ERR is not offered (QEMU would stop the guest).
 *
 * Handlers see the table as it was when the transaction began plus the one record they write.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/range.h"
#include "base/sock.h"
#include "vfio/internal.h"

struct irq_kind {
	unsigned slot, count;
	uint32_t flags;
};

static struct irq_kind kind_of(const struct vfio_server *s, uint32_t index)
{
	const struct umdev_pci *pci = s->dev->type->pci;

	switch (index) {
	case VFIO_IRQ_INTX:
		return (struct irq_kind){ VFIO_SLOT_INTX, pci->intx,
					  VUSER_IRQ_EVENTFD | VUSER_IRQ_MASKABLE |
						  VUSER_IRQ_AUTOMASKED };
	case VFIO_IRQ_MSI:
		return (struct irq_kind){ VFIO_SLOT_MSI, pci->msi, VUSER_IRQ_EVENTFD };
	case VFIO_IRQ_MSIX:
		return (struct irq_kind){ VFIO_SLOT_MSIX, pci->msix, VUSER_IRQ_EVENTFD };
	case VFIO_IRQ_REQ:
		return (struct irq_kind){ VFIO_SLOT_REQ, 1, VUSER_IRQ_EVENTFD };
	default:
		return (struct irq_kind){ VFIO_SLOT_ERR, 0, VUSER_IRQ_EVENTFD };
	}
}

int vfio_get_irq_info(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_info i;
	struct irq_kind kind;

	if (vuser_get_info(rq->payload, rq->len, &i) || i.argsz < VUSER_INFO ||
	    i.index >= VFIO_IRQS)
		return -EINVAL;
	kind = kind_of(s, i.index);
	/* NORESIZE is clear: vectors are armed and released one by one. */
	i = (struct vuser_info){ VUSER_INFO, kind.flags, i.index, kind.count };
	vuser_put_info(&rq->reply, &i);
	return 0;
}

static bool is_armed(const struct vfio_server *s, unsigned slot)
{
	const struct vfio_irq_record *r = &s->effects->irq;

	if (r->op != VFIO_IRQ_OP_NONE && slot >= r->first && slot - r->first < r->count)
		return r->op == VFIO_IRQ_OP_ARM;
	return s->shared->irq_fd[slot] >= 0;
}

static void update_intx(struct vfio_server *s)
{
	struct vfio_half *h = s->half;
	unsigned slot;

	if (!h->intx_asserted || h->intx_masked || pci_intx_is_disabled(s) ||
	    pci_msi_vectors(s, &slot) || !is_armed(s, VFIO_SLOT_INTX))
		return;
	h->intx_masked = 1;
	bit_set(h->signal, VFIO_SLOT_INTX);
}

void irq_update(struct vfio_server *s)
{
	struct vfio_half *h = s->half;
	unsigned first, n;

	update_intx(s);
	n = pci_msi_vectors(s, &first);
	if (!n || pci_msi_is_masked(s))
		return;
	for (unsigned slot = first; slot < first + n; slot++) {
		if (bit_is_set(h->pending, slot) && is_armed(s, slot)) {
			bit_clear(h->pending, slot);
			bit_set(h->signal, slot);
		}
	}
}

void irq_raise(struct vfio_server *s, unsigned vector)
{
	unsigned first, n = pci_msi_vectors(s, &first);

	if (!n)
		return;
	/* A guest that gave fewer vectors than asked for shares them (PCI 3.0, 6.8.3.4). */
	first += vector % n;
	if (is_armed(s, first) && !pci_msi_is_masked(s))
		bit_set(s->half->signal, first);
	else
		bit_set(s->half->pending, first);
}

uint64_t irq_pending_word(const struct vfio_server *s, unsigned vector)
{
	uint64_t word = 0;

	for (unsigned i = 0; i < 64 && vector + i < s->dev->type->pci->msix; i++) {
		if (bit_is_set(s->half->pending, VFIO_SLOT_MSIX + vector + i))
			word |= (uint64_t)1 << i;
	}
	return word;
}

void irq_reset(struct vfio_server *s)
{
	struct vfio_half *h = s->half;

	h->intx_asserted = h->intx_masked = 0;
	for (unsigned i = 0; i < VFIO_IRQ_WORDS; i++)
		h->signal[i] = h->pending[i] = 0;
}

/* ---- SET_IRQS ---- */

/* What was to be signalled through a descriptor that goes away happened while not armed. */
static void release(struct vfio_server *s, unsigned first, unsigned count)
{
	struct vfio_half *h = s->half;

	s->effects->irq = (struct vfio_irq_record){ VFIO_IRQ_OP_RELEASE, first, count };
	for (unsigned slot = first; slot < first + count; slot++) {
		if (slot == VFIO_SLOT_INTX)
			h->intx_masked = 0;
		else if (bit_is_set(h->signal, slot))
			bit_set(h->pending, slot);
		bit_clear(h->signal, slot);
	}
}

/* Descriptors for the slots, or without any: their release. */
static int arm(struct vfio_server *s, struct vfio_request *rq, unsigned first, unsigned count)
{
	struct vfio_irq_record *r = &s->effects->irq;

	if (!rq->n_fds) {
		release(s, first, count);
		return 0;
	}
	if (rq->n_fds != count || count > VFIO_MAX_FDS)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++) {
		if (!fd_is_eventfd(rq->fds[i]))
			return -EINVAL;
	}
	*r = (struct vfio_irq_record){ VFIO_IRQ_OP_ARM, first, count };
	for (unsigned i = 0; i < count; i++)
		r->fd[i] = rq->fds[i];
	rq->n_kept = count;
	if (first == VFIO_SLOT_INTX)
		s->half->intx_masked = 0;
	irq_update(s);
	return 0;
}

/* The client fires vectors itself, to test its own wiring. */
static void trigger(struct vfio_server *s, const struct irq_kind *kind,
		    const struct vuser_irq_set *set)
{
	for (uint32_t i = 0; i < set->count; i++) {
		unsigned slot = kind->slot + set->start + i;

		if ((!set->bools || set->bools[i]) && is_armed(s, slot))
			bit_set(s->half->signal, slot);
	}
}

/* Only INTx can be masked here; message vectors have their masks in PCI. */
static int mask(struct vfio_server *s, struct vfio_request *rq, const struct vuser_irq_set *set)
{
	if (set->index != VFIO_IRQ_INTX)
		return -ENOTTY;
	if (set->flags & VUSER_IRQ_DATA_EVENTFD)
		return set->flags & VUSER_IRQ_UNMASK ? arm(s, rq, VFIO_SLOT_UNMASK, 1) : -ENOTTY;
	if (set->bools && !set->bools[0])
		return 0;
	s->half->intx_masked = !(set->flags & VUSER_IRQ_UNMASK);
	irq_update(s);
	return 0;
}

static bool is_one_of(uint32_t bits)
{
	return bits && !(bits & (bits - 1));
}

static int check_set(const struct irq_kind *kind, const struct vuser_irq_set *set)
{
	const uint32_t known = VUSER_IRQ_DATA_MASK | VUSER_IRQ_ACTION_MASK;

	if (set->flags & ~known || !is_one_of(set->flags & VUSER_IRQ_DATA_MASK) ||
	    !is_one_of(set->flags & VUSER_IRQ_ACTION_MASK) ||
	    !range_fits(set->start, set->count, kind->count))
		return -EINVAL;
	/* Nothing, of no vector, is the way to release all. */
	if (!set->count && (set->flags != (VUSER_IRQ_DATA_NONE | VUSER_IRQ_TRIGGER) || set->start))
		return -EINVAL;
	return 0;
}

int vfio_set_irqs(struct vfio_server *s, struct vfio_request *rq)
{
	struct vuser_irq_set set;
	struct irq_kind kind;

	if (vuser_get_irq_set(rq->payload, rq->len, &set) || set.index >= VFIO_IRQS)
		return -EINVAL;
	kind = kind_of(s, set.index);
	if (check_set(&kind, &set) || (rq->n_fds && !(set.flags & VUSER_IRQ_DATA_EVENTFD)))
		return -EINVAL;
	if (!(set.flags & VUSER_IRQ_TRIGGER))
		return mask(s, rq, &set);
	if (set.flags & VUSER_IRQ_DATA_EVENTFD)
		return arm(s, rq, kind.slot + set.start, set.count);
	if (!set.count)
		release(s, kind.slot, set.index == VFIO_IRQ_INTX ? 2 : kind.count);
	else
		trigger(s, &kind, &set);
	return 0;
}

static int request_release(struct umdev_device *dev, void *arg)
{
	bit_set(dev->vfio->half->signal, VFIO_SLOT_REQ);
	return 0;
}

void vfio_server_ask_release(struct vfio_server *s)
{
	vfio_server_event(s, request_release, NULL);
}

/* ---- outside the transaction ---- */

void irq_release_all(struct vfio_irq_record *r)
{
	*r = (struct vfio_irq_record){ VFIO_IRQ_OP_RELEASE, 0, VFIO_IRQ_FDS };
}

int irq_unmask(struct umdev_device *dev, void *arg)
{
	dev->vfio->half->intx_masked = 0;
	irq_update(dev->vfio);
	return 0;
}

static void unmask_ready(struct loop_fd *source, uint32_t revents)
{
	struct vfio_server *s = container_of(source, struct vfio_server, unmask);
	uint64_t n;

	/* Taken first: an event that comes now is another one. One that a kill loses between here
	 * and the commit is made good by irq_watch_unmask() of the successor. */
	if (read(source->fd, &n, sizeof(n)) == sizeof(n))
		vfio_server_event(s, irq_unmask, NULL);
}

int irq_watch_unmask(struct vfio_server *s)
{
	int fd = s->shared->irq_fd[VFIO_SLOT_UNMASK];

	if (fd < 0)
		return 0;
	return loop_add(s->loop, &s->unmask, fd, EPOLLIN, unmask_ready);
}

void irq_apply(struct vfio_server *s, struct vfio_irq_record *r)
{
	if (r->op == VFIO_IRQ_OP_NONE)
		return;
	s->irqs_changed = true;
	for (unsigned i = 0; i < r->count; i++) {
		int32_t *at = &s->shared->irq_fd[r->first + i];
		int32_t old = *at, fd = r->op == VFIO_IRQ_OP_ARM ? r->fd[i] : -1;

		if (r->first + i == VFIO_SLOT_UNMASK)
			loop_remove(&s->unmask);
		/* Forgotten first, closed then: never closed twice. */
		__atomic_store_n(at, fd, __ATOMIC_RELAXED);
		ab_barrier();
		if (old >= 0 && old != fd)
			close(old);
		if (r->first + i == VFIO_SLOT_UNMASK && irq_watch_unmask(s) < 0)
			vfio_complain(s, VFIO_COMPLAIN_IRQ, "no memory to watch an eventfd");
	}
	ab_barrier();
	r->op = VFIO_IRQ_OP_NONE;
}

/* A vector that a queue may signal by itself; -1: through half->pending, or not at all. */
static int direct_fd(const struct vfio_server *s, unsigned vector)
{
	if (!s->irq_n || s->irq_masked)
		return -1;
	return s->shared->irq_fd[s->irq_first + vector % s->irq_n];
}

void irq_publish(struct vfio_server *s)
{
	const struct umdev_pci *pci = s->dev->type->pci;
	unsigned first = 0, n = pci_msi_vectors(s, &first);
	bool masked = pci_msi_is_masked(s);

	if (!s->dev->queues ||
	    (!s->irqs_changed && n == s->irq_n && first == s->irq_first && masked == s->irq_masked))
		return;
	s->irqs_changed = false;
	s->irq_n = n;
	s->irq_first = first;
	s->irq_masked = masked;
	for (unsigned v = 0; v < (pci->msix > pci->msi ? pci->msix : pci->msi); v++)
		queues_set_vector(s->dev, v, direct_fd(s, v));
}

/* The client owns the counter and may have filled it: then it has its wake-up already. */
static void signal_fd(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	uint64_t one = 1;

	if (poll(&p, 1, 0) == 1 && p.revents & POLLOUT && write(fd, &one, sizeof(one)) < 0)
		log_debug("eventfd %d: %s", fd, strerror(errno));
}

void irq_signal(struct vfio_server *s)
{
	struct vfio_half *h = s->half;

	for (unsigned word = 0; word < VFIO_IRQ_WORDS; word++) {
		while (h->signal[word]) {
			unsigned slot = word * 64 + __builtin_ctzll(h->signal[word]);

			if (s->shared->irq_fd[slot] >= 0)
				signal_fd(s->shared->irq_fd[slot]);
			bit_clear(h->signal, slot);
		}
	}
}
