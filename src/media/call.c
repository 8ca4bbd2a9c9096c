// SPDX-License-Identifier: MIT
/* What the system is asked for, step by step. See call.h. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>
#include "media/internal.h"

#define ZEROS (256 * 1024) /* written at once where a file system cannot zero a range */

static const uint8_t zeros[ZEROS];

static int fallocate_mode(const struct media_call *call)
{
	if (call->op == UMDEV_MEDIA_DISCARD || call->flags & UMDEV_SUBMIT_UNMAP)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

static size_t zeros_len(const struct media_call *call)
{
	return call->left < ZEROS ? call->left : ZEROS;
}

static int sync_flag(const struct media_call *call)
{
	return call->flags & UMDEV_SUBMIT_FUA ? RWF_DSYNC : 0;
}

void media_call_init(struct media_call *call)
{
	switch (call->op) {
	case UMDEV_MEDIA_FLUSH:
		call->step = MEDIA_STEP_SYNC;
		break;
	case UMDEV_MEDIA_WRITE_ZEROES:
	case UMDEV_MEDIA_DISCARD:
		call->step = MEDIA_STEP_ALLOCATE;
		break;
	default:
		call->step = MEDIA_STEP_MOVE;
	}
}

int media_call_now(struct media_call *call)
{
	int fd = call->medium->fd;
	ssize_t r;

	if (call->medium->null)
		return 0;
	switch (call->step) {
	case MEDIA_STEP_MOVE:
		if (call->op == UMDEV_MEDIA_READ)
			r = preadv(fd, call->iov, (int)call->n_iov, call->at);
		else
			r = pwritev2(fd, call->iov, (int)call->n_iov, call->at, sync_flag(call));
		break;
	case MEDIA_STEP_ALLOCATE:
		r = fallocate(fd, fallocate_mode(call), call->at, call->left);
		break;
	case MEDIA_STEP_ZEROS:
		r = pwrite(fd, zeros, zeros_len(call), call->at);
		break;
	default:
		r = fdatasync(fd);
	}
	return r < 0 ? -errno : (int)r;
}

/* Memory in one piece needs no list that the kernel would have to copy. */
static void prepare_move(const struct media_call *call, struct io_uring_sqe *sqe)
{
	const struct iovec *iov = call->iov;
	int fd = call->medium->fd;

	if (call->op == UMDEV_MEDIA_READ && call->n_iov == 1)
		io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, call->at);
	else if (call->op == UMDEV_MEDIA_READ)
		io_uring_prep_readv(sqe, fd, iov, call->n_iov, call->at);
	else if (call->n_iov == 1)
		io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, call->at);
	else
		io_uring_prep_writev(sqe, fd, iov, call->n_iov, call->at);
	sqe->rw_flags = call->op == UMDEV_MEDIA_WRITE ? sync_flag(call) : 0;
}

void call_prepare(const struct media_call *call, struct io_uring_sqe *sqe)
{
	int fd = call->medium->fd;

	if (call->medium->null) {
		io_uring_prep_nop(sqe);
		return;
	}
	switch (call->step) {
	case MEDIA_STEP_MOVE:
		prepare_move(call, sqe);
		break;
	case MEDIA_STEP_ALLOCATE:
		io_uring_prep_fallocate(sqe, fd, fallocate_mode(call), call->at, call->left);
		break;
	case MEDIA_STEP_ZEROS:
		io_uring_prep_write(sqe, fd, zeros, (unsigned)zeros_len(call), call->at);
		break;
	default:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	}
}

static void advance_iov(struct media_call *call, size_t n)
{
	for (; call->n_iov && n >= call->iov->iov_len; call->iov++, call->n_iov--)
		n -= call->iov->iov_len;
	if (n) {
		call->iov->iov_base = (uint8_t *)call->iov->iov_base + n;
		call->iov->iov_len -= n;
	}
}

/* All bytes of a step are done. */
static int next_step(struct media_call *call)
{
	if (call->step == MEDIA_STEP_MOVE || call->step == MEDIA_STEP_SYNC ||
	    !(call->flags & UMDEV_SUBMIT_FUA))
		return 0;
	call->step = MEDIA_STEP_SYNC;
	return 1;
}

int media_call_take(struct media_call *call, int result)
{
	if (result == -ECANCELED) /* by no one: the ring got no thread that could wait for it */
		result = media_call_now(call);
	if (result == -EINTR || result == -EAGAIN)
		return 1;
	/* EINVAL: a range that is no multiple of the block size of a disk or file system. */
	if (call->step == MEDIA_STEP_ALLOCATE && (result == -EOPNOTSUPP || result == -EINVAL)) {
		call->step = MEDIA_STEP_ZEROS;
		return 1;
	}
	if (result < 0)
		return result;
	if (call->medium->null)
		return 0;
	if (call->step == MEDIA_STEP_ALLOCATE || call->step == MEDIA_STEP_SYNC)
		return next_step(call);
	if (result == 0) /* the file is shorter than its medium */
		return -EIO;
	if ((uint64_t)result >= call->left)
		return next_step(call);
	call->at += result;
	call->left -= result;
	if (call->step == MEDIA_STEP_MOVE)
		advance_iov(call, result);
	return 1;
}
