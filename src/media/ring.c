// SPDX-License-Identifier: MIT
/*
 * An io_uring of a worker. Submissions do not pass the seccomp filter: so the ring is made
 * disabled, restricted for good to what a medium needs, and only then enabled.
 *
 * Nothing here may be submitted that completes more or less than once (fence.c counts).
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "media/internal.h"

#define RING_ENTRIES 256

struct media_ring {
	struct io_uring uring;
	int watched;
};

static const uint8_t allowed[] = {
	IORING_OP_NOP,         IORING_OP_READV,        IORING_OP_WRITEV,    IORING_OP_READ,
	IORING_OP_WRITE,       IORING_OP_FSYNC,        IORING_OP_FALLOCATE, IORING_OP_POLL_ADD,
	IORING_OP_POLL_REMOVE, IORING_OP_ASYNC_CANCEL, IORING_OP_MSG_RING,
};
#define N_ALLOWED (sizeof(allowed) / sizeof(allowed[0]))

/* No IORING_SETUP_DEFER_TASKRUN: its dying rings take longer to go. */
static const unsigned wanted[] = {
	[RING_OF_MAKER] = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
	[RING_OF_OTHER_THREAD] = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
};

static int init(struct io_uring *uring, enum ring_use use)
{
	unsigned flags = IORING_SETUP_R_DISABLED;
	int r = io_uring_queue_init(RING_ENTRIES, uring, flags | wanted[use]);

	if (r == -EINVAL)
		r = io_uring_queue_init(RING_ENTRIES, uring, flags);
	return r;
}

/* liburing 2.3 has functions for these, but does not export them. */
static long control(const struct io_uring *uring, unsigned what, void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, uring->ring_fd, what, arg, n);
}

static int restrict_and_enable(struct io_uring *uring)
{
	struct io_uring_restriction res[N_ALLOWED] = { 0 };

	for (unsigned i = 0; i < N_ALLOWED; i++) {
		res[i].opcode = IORING_RESTRICTION_SQE_OP;
		res[i].sqe_op = allowed[i];
	}
	if (control(uring, IORING_REGISTER_RESTRICTIONS, res, N_ALLOWED) < 0 ||
	    control(uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return -errno;
	return 0;
}

int ring_new(struct media_ring **ret, const int held[RING_HELD], enum ring_use use)
{
	struct media_ring *ring = calloc(1, sizeof(*ring));
	int r;

	if (!ring)
		return -ENOMEM;
	r = init(&ring->uring, use);
	if (r < 0) {
		free(ring);
		return r;
	}
	r = io_uring_register_files(&ring->uring, held, RING_HELD);
	if (r >= 0)
		r = restrict_and_enable(&ring->uring);
	if (r < 0) {
		ring_free(ring);
		return r;
	}
	*ret = ring;
	return 0;
}

void ring_free(struct media_ring *r)
{
	if (!r)
		return;
	io_uring_queue_exit(&r->uring);
	free(r);
}

int ring_fd(const struct media_ring *r)
{
	return r->uring.ring_fd;
}

bool ring_prepare(struct media_ring *r, const struct media_call *call, struct ring_user *user)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe)
		return false;
	call_prepare(call, sqe);
	io_uring_sqe_set_data(sqe, user);
	return true;
}

void ring_submit(struct media_ring *r)
{
	/* What it could not take now stays in the ring and goes with the next. */
	io_uring_submit(&r->uring);
}

/* One request that completes for every event, as long as the kernel says so. */
static void watch(struct media_ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe) {
		io_uring_submit(&r->uring);
		sqe = io_uring_get_sqe(&r->uring);
	}
	if (!sqe)
		return;
	io_uring_prep_poll_multishot(sqe, r->watched, POLLIN);
	io_uring_sqe_set_data(sqe, NULL);
	io_uring_submit(&r->uring);
}

void ring_watch(struct media_ring *r, int fd)
{
	r->watched = fd;
	watch(r);
}

void ring_wait(struct media_ring *r, uint64_t max_ns)
{
	struct __kernel_timespec ts = { (int64_t)(max_ns / 1000000000),
					(int64_t)(max_ns % 1000000000) };
	struct io_uring_cqe *cqe;

	io_uring_wait_cqes(&r->uring, &cqe, 1, max_ns ? &ts : NULL, NULL);
}

bool ring_tell(struct media_ring *r)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&r->uring, &cqe) == 0) {
		struct ring_user *user = io_uring_cqe_get_data(cqe);
		uint32_t flags = cqe->flags;
		int result = cqe->res;

		io_uring_cqe_seen(&r->uring, cqe);
		if (user) {
			user->ended(user, result);
			return true;
		}
		if (!(flags & IORING_CQE_F_MORE))
			watch(r);
	}
	return false;
}

/* ---- of the dead ---- */

/* In front of a ring's memory, in the same places in all rings of a kernel. */
struct ring_left {
	uint8_t *page; /* owned; keeps the ring alive */
	const unsigned *submitted, *ended;
	unsigned *taken;
};

static const size_t page_size = 4096;

/* -1: not where we can map it. */
static ptrdiff_t place(const struct media_ring *r, const void *counter)
{
	ptrdiff_t at = (const uint8_t *)counter - (const uint8_t *)r->uring.sq.ring_ptr;

	return at >= 0 && at + sizeof(unsigned) <= page_size ? at : -1;
}

struct ring_left *ring_left_map(const struct media_ring *like, int fd)
{
	ptrdiff_t submitted = place(like, like->uring.sq.khead),
		  ended = place(like, like->uring.cq.ktail),
		  taken = place(like, like->uring.cq.khead);
	struct ring_left *left = calloc(1, sizeof(*left));

	if (!left || submitted < 0 || ended < 0 || taken < 0) {
		free(left);
		return NULL;
	}
	left->page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  IORING_OFF_SQ_RING);
	if (left->page == MAP_FAILED) {
		free(left);
		return NULL;
	}
	left->submitted = (unsigned *)(left->page + submitted);
	left->ended = (unsigned *)(left->page + ended);
	left->taken = (unsigned *)(left->page + taken);
	return left;
}

void ring_left_unmap(struct ring_left *left)
{
	if (!left)
		return;
	munmap(left->page, page_size);
	free(left);
}

bool ring_left_is_done(struct ring_left *left, int fd)
{
	unsigned ended;

	/* Those that found no room follow when there is some. */
	do {
		ended = io_uring_smp_load_acquire(left->ended);
		io_uring_smp_store_release(left->taken, ended);
		syscall(SYS_io_uring_enter, fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
	} while (ended != io_uring_smp_load_acquire(left->ended));
	return ended == io_uring_smp_load_acquire(left->submitted);
}
