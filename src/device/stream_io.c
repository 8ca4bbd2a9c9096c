/* SPDX-License-Identifier: MIT */
/*
 * The host side's system calls, each with a journal that tells a successor how many bytes the call
 * moved when this process dies in it; stream.h says how for each kind of descriptor.
 *
 * Between op_begin and op_end everything is derived from op_at, so settling may itself be repeated.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/ab.h"
#include "device/device.h"

#define NO_ACCOUNT UINT64_MAX
#define IO_TEXT 512 /* /proc/<pid>/io is about 120 bytes */

static bool number_after(const char *text, const char *key, uint64_t *ret)
{
	const char *at = strstr(text, key);

	if (!at)
		return false;
	*ret = strtoull(at + strlen(key), NULL, 10);
	return true;
}

bool stream_account_read(int io_fd, struct stream_account *ret)
{
	struct stream_account a;
	char text[IO_TEXT];
	ssize_t n = io_fd < 0 ? -1 : pread(io_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return false;
	text[n] = 0;
	if (!number_after(text, "rchar: ", &a.rchar) || !number_after(text, "wchar: ", &a.wchar))
		return false;
	a.rchar_after = a.rchar + n;
	*ret = a;
	return true;
}

/* rchar or wchar as it is when the next call starts. */
static uint64_t account_before(const struct stream *s, enum stream_op op)
{
	struct stream_account a;

	if (s->kind == STREAM_SOCKET || s->kind == STREAM_FILE ||
	    !stream_account_read(s->dev->io_fd, &a))
		return NO_ACCOUNT;
	return op == STREAM_READING ? a.rchar_after : a.wchar;
}

static void op_begin(struct stream *s, enum stream_op op, uint64_t at, struct iovec run)
{
	struct stream_shared *sh = s->shared;

	sh->op_at = at;
	sh->op_len = run.iov_len;
	sh->op_account = account_before(s, op);
	sh->iov = run;
	sh->hdr = (struct mmsghdr){ .msg_hdr = { .msg_iov = &sh->iov, .msg_iovlen = 1 } };
	ab_barrier();
	sh->op = op;
	ab_barrier();
}

static void op_end(struct stream_shared *sh, uint64_t moved)
{
	uint64_t *counter = sh->op == STREAM_READING ? &sh->in_head : &sh->out_tail;

	*counter = sh->op_at + moved;
	ab_barrier();
	sh->op = STREAM_IDLE;
}

uint64_t stream_in_space(const struct stream *s)
{
	return UMDEV_STREAM_BYTES - (s->shared->in_head - s->dev->half->in_tail[s->index]);
}

uint64_t stream_out_pending(const struct stream *s)
{
	return s->dev->half->out_head[s->index] - s->shared->out_tail;
}

/* The part of a ring from stream offset `at` on that lies in one piece. */
static struct iovec ring_run(uint8_t *ring, uint64_t at, uint64_t len)
{
	uint64_t start = at % UMDEV_STREAM_BYTES, to_end = UMDEV_STREAM_BYTES - start;

	return (struct iovec){ ring + start, len < to_end ? len : to_end };
}

ssize_t stream_read_host(struct stream *s, int fd)
{
	struct stream_shared *sh = s->shared;
	struct iovec run = ring_run(sh->in, sh->in_head, stream_in_space(s));
	ssize_t n;

	op_begin(s, STREAM_READING, sh->in_head, run);
	if (s->kind == STREAM_SOCKET) {
		n = recvmmsg(fd, &sh->hdr, 1, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);
		n = n == 1 ? (ssize_t)sh->hdr.msg_len : -errno;
	} else {
		n = read(fd, run.iov_base, run.iov_len);
		n = n >= 0 ? n : -errno;
	}
	op_end(sh, n > 0 ? n : 0);
	return n == -EINTR ? -EAGAIN : n;
}

ssize_t stream_write_host(struct stream *s, int fd)
{
	struct stream_shared *sh = s->shared;
	struct iovec run = ring_run(sh->out, sh->out_tail, stream_out_pending(s));
	ssize_t n;

	op_begin(s, STREAM_WRITING, sh->out_tail, run);
	if (s->kind == STREAM_SOCKET) {
		n = sendmmsg(fd, &sh->hdr, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		n = n == 1 ? (ssize_t)sh->hdr.msg_len : -errno;
	} else {
		n = s->kind == STREAM_FILE
			    ? pwrite(fd, run.iov_base, run.iov_len, sh->file_at + sh->out_tail)
			    : write(fd, run.iov_base, run.iov_len);
		n = n >= 0 ? n : -errno;
	}
	op_end(sh, n > 0 ? n : 0);
	return n == -EINTR ? -EAGAIN : n;
}

/* Bytes that the call under way moved. */
static uint64_t op_moved(const struct stream *s, const struct stream_last_life *last)
{
	const struct stream_shared *sh = s->shared;
	uint64_t total = sh->op == STREAM_READING ? last->rchar : last->wchar;

	if (s->kind == STREAM_SOCKET)
		return sh->hdr.msg_len;
	if (s->kind == STREAM_FILE || !last->known || sh->op_account == NO_ACCOUNT)
		return 0;
	return total - sh->op_account;
}

static bool is_possible(const struct stream *s)
{
	const struct stream_shared *sh = s->shared;
	const struct device_half *half = s->dev->half;
	uint64_t counter = sh->op == STREAM_READING ? sh->in_head : sh->out_tail;

	return sh->in_head - half->in_tail[s->index] <= UMDEV_STREAM_BYTES &&
	       half->out_head[s->index] - sh->out_tail <= UMDEV_STREAM_BYTES &&
	       sh->op <= STREAM_WRITING && sh->peer_fd >= -1 && sh->file_at <= INT64_MAX / 2 &&
	       sh->out_tail <= INT64_MAX / 2 &&
	       (sh->op == STREAM_IDLE ||
		(sh->op_len <= UMDEV_STREAM_BYTES && counter - sh->op_at <= sh->op_len));
}

int stream_attach_resume(struct stream *s, const struct stream_last_life *last)
{
	struct stream_shared *sh = s->shared;
	uint64_t moved;

	if (!is_possible(s))
		return -EUCLEAN;
	s->wake = true;
	if (sh->op == STREAM_IDLE)
		return 0;
	moved = op_moved(s, last);
	if (moved > sh->op_len)
		return -EUCLEAN;
	op_end(sh, moved);
	return is_possible(s) ? 0 : -EUCLEAN;
}
