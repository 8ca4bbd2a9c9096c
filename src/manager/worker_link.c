/* SPDX-License-Identifier: MIT */
/* Frames of the manager <-> worker channel; worker_link.h has the idea. */
#include "manager/worker_link.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A worker has at most CONFIG, and per member CONNECT, STOP, one PARAM_SET, and a PING: more are
 * unread only when it hangs. */
#define MAX_QUEUED (3 * MW_MAX_MEMBERS + 8)

struct frame { /* in the queue: owned by it, with fds and then data behind the struct */
	struct list_node node;
	size_t len, sent;
	const uint8_t *data;
	unsigned n_fds;
	const int *fds; /* the descriptors are owned until the first byte was sent */
};

static void close_fds(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

static void frame_free(struct worker_link *link, struct frame *f)
{
	list_remove(&f->node);
	link->n_queued--;
	close_fds(f->fds, f->n_fds);
	free(f);
}

static void put_fds(struct msghdr *msg, void *control, const struct frame *f)
{
	struct cmsghdr *cmsg;

	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(f->n_fds * sizeof(int));
	cmsg = CMSG_FIRSTHDR(msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(f->n_fds * sizeof(int));
	memcpy(CMSG_DATA(cmsg), f->fds, f->n_fds * sizeof(int));
}

/* Of a call on the channel: not now. A shortage passes, and the loop comes back. */
static bool is_for_now(int error)
{
	return error == EAGAIN || error == EINTR || error == ENOMEM || error == ENOBUFS;
}

/* 1: all of it; 0: the socket is full; -errno */
static int send_frame(int fd, struct frame *f)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(MW_MAX_FDS * sizeof(int))];
	struct iovec iov = { (uint8_t *)f->data + f->sent, f->len - f->sent };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (f->n_fds) {
		memset(control, 0, sizeof(control));
		put_fds(&msg, control, f);
	}
	n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return is_for_now(errno) ? 0 : -errno;
	close_fds(f->fds, f->n_fds); /* they went with the first byte */
	f->n_fds = 0;
	f->sent += (size_t)n;
	return f->sent == f->len;
}

static int flush(struct worker_link *link)
{
	struct frame *f;

	while ((f = list_first(&link->queue, struct frame, node))) {
		int r = send_frame(link->fd, f);

		if (r < 0)
			return r;
		if (r == 0)
			return loop_set_events(&link->source, EPOLLIN | EPOLLOUT);
		frame_free(link, f);
	}
	return loop_set_events(&link->source, EPOLLIN);
}

/* What is left of a frame. 0 / -errno: it stays the caller's. */
static int enqueue(struct worker_link *link, const struct frame *from)
{
	size_t len = from->len - from->sent;
	struct frame *f;
	int *fds;

	if (link->n_queued >= MAX_QUEUED)
		return -ENOBUFS;
	f = malloc(sizeof(*f) + from->n_fds * sizeof(int) + len);
	if (!f)
		return -ENOMEM;
	fds = (int *)(f + 1);
	if (from->n_fds)
		memcpy(fds, from->fds, from->n_fds * sizeof(int));
	memcpy(fds + from->n_fds, from->data + from->sent, len);
	*f = (struct frame){
		.len = len, .data = (uint8_t *)(fds + from->n_fds), .n_fds = from->n_fds, .fds = fds
	};
	list_append(&link->queue, &f->node);
	link->n_queued++;
	return 0;
}

/* Memory is needed only for what the socket does not take at once. */
int link_send(struct worker_link *link, const uint8_t *data, int len, const int *fds,
	      unsigned n_fds)
{
	struct frame f = { .len = (size_t)len, .data = data, .n_fds = n_fds, .fds = fds };
	int r = 0;

	assert(n_fds <= MW_MAX_FDS);
	if (len < 0)
		r = len;
	else if (link->fd < 0)
		r = -ENOTCONN;
	else if (list_is_empty(&link->queue))
		r = send_frame(link->fd, &f);
	if (r > 0)
		return 0;
	if (r == 0)
		r = enqueue(link, &f);
	if (r == 0)
		return flush(link);
	close_fds(f.fds, f.n_fds);
	return r;
}

/* Hands out every whole frame in rx, until the link is closed or a frame is malformed. */
static void take_frames(struct worker_link *link)
{
	size_t at = 0;

	while (link->fd >= 0) {
		int64_t len = mw_len(link->rx + at, link->rx_len - at);
		struct mw_frame frame;

		if (len == 0 || (len > 0 && (size_t)len > link->rx_len - at)) {
			memmove(link->rx, link->rx + at, link->rx_len - at);
			link->rx_len -= at;
			return;
		}
		if (len < 0 || mw_decode(link->rx + at, (size_t)len, 0, false, &frame) < 0) {
			link->broken(link, -EPROTO);
			return;
		}
		at += (size_t)len;
		link->frame(link, &frame);
	}
}

/* Did anything come? May close the link. */
static bool receive(struct worker_link *link)
{
	ssize_t n = recv(link->fd, link->rx + link->rx_len, sizeof(link->rx) - link->rx_len,
			 MSG_DONTWAIT);

	if (n < 0 && is_for_now(errno))
		return false;
	if (n <= 0) {
		link->broken(link, n < 0 ? -errno : -ECONNRESET);
		return false;
	}
	link->rx_len += (size_t)n;
	take_frames(link);
	return true;
}

void link_drain(struct worker_link *link)
{
	while (link->fd >= 0 && receive(link))
		;
}

static void handle(struct loop_fd *source, uint32_t revents)
{
	struct worker_link *link = container_of(source, struct worker_link, source);
	int r;

	if (revents & EPOLLOUT) {
		r = flush(link);
		if (r < 0) {
			link->broken(link, r);
			return;
		}
	}
	if (revents & ~(uint32_t)EPOLLOUT)
		receive(link);
}

int link_open(struct worker_link *link, struct loop *loop, int fd)
{
	int r = loop_add(loop, &link->source, fd, EPOLLIN, handle);

	if (r < 0) {
		close(fd);
		return r;
	}
	link->fd = fd;
	link->rx_len = 0;
	link->n_queued = 0;
	list_init(&link->queue);
	return 0;
}

void link_close(struct worker_link *link)
{
	struct frame *f;

	if (link->fd < 0)
		return;
	loop_remove(&link->source);
	close(link->fd);
	link->fd = -1;
	while ((f = list_first(&link->queue, struct frame, node)))
		frame_free(link, f);
}
