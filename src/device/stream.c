/* SPDX-License-Identifier: MIT */
/*
 * When a stream moves bytes; stream_io.c is how.
 *
 * One function, pump(), moves what can be moved and then tells the device once. It runs from the
 * loop only (an edge, a timer, or deferred by stream_kick), never inside a hook or a transaction,
 * so dev->half is the committed half there.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/ab.h"
#include "base/log.h"
#include "base/sock.h"
#include "device/device.h"

#define RETRY_MIN_NS 10000000ULL /* somebody who opens a pty sees output at once, for a person */
#define RETRY_MAX_NS 200000000ULL

static int kind_of(int fd, uint32_t flags, enum stream_kind *ret)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (flags & UMDEV_RES_PTY)
		*ret = STREAM_PTY;
	else if (S_ISSOCK(st.st_mode))
		*ret = STREAM_SOCKET;
	else
		*ret = S_ISREG(st.st_mode) ? STREAM_FILE : STREAM_PIPE;
	return (flags & UMDEV_RES_LISTEN) && *ret != STREAM_SOCKET ? -ENOTSOCK : 0;
}

int stream_init(struct stream *s, struct umdev_device *dev, unsigned index, const char *name,
		int fd, uint32_t flags, struct stream_shared *shared)
{
	int error;

	if (strlen(name) >= sizeof(s->name))
		return -ENOSPC;
	*s = (struct stream){ .dev = dev, .shared = shared, .index = index, .flags = flags };
	s->fd = fd;
	s->source = s->listen = (struct loop_fd)LOOP_FD_INIT;
	strcpy(s->name, name);
	error = kind_of(fd, flags, &s->kind);
	return error ? error : fd_set_nonblock(fd, true);
}

int stream_attach_fresh(struct stream *s)
{
	struct stream_shared *sh = s->shared;
	struct stat st;

	memset(sh, 0, offsetof(struct stream_shared, in));
	sh->peer_fd = -1;
	sh->in_head = s->dev->half->in_tail[s->index];
	sh->out_tail = s->dev->half->out_head[s->index];
	if (s->kind != STREAM_FILE)
		return 0;
	if (fstat(s->fd, &st))
		return -errno;
	/* pwrite() on an O_APPEND file ignores the offset: a repeated call would append twice. */
	if (fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_APPEND))
		return -errno;
	sh->file_at = st.st_size;
	return 0;
}

/* The descriptor that bytes pass through, or -1. */
static int data_fd(const struct stream *s)
{
	return s->flags & UMDEV_RES_LISTEN ? s->shared->peer_fd : s->fd;
}

static bool can_read(const struct stream *s)
{
	return s->readable && stream_in_space(s);
}

static bool can_write(const struct stream *s)
{
	return s->writable && (s->flags & UMDEV_RES_WRITE) && stream_out_pending(s);
}

/* A listener that accepts nobody although there is no peer: it could not. */
static bool is_deaf(const struct stream *s)
{
	return (s->flags & UMDEV_RES_LISTEN) && s->shared->peer_fd < 0 && s->listen.fd < 0;
}

/* Something waits for what no event announces. */
static bool must_retry(const struct stream *s)
{
	if (is_deaf(s))
		return true;
	return (s->flags & UMDEV_RES_WRITE) && !s->writable && stream_out_pending(s) &&
	       ((s->kind == STREAM_PTY && s->hung_up) || s->unpolled);
}

static void on_listen(struct loop_fd *source, uint32_t revents);
static void pump(struct stream *s);
static void arm_retry(struct stream *s);

static void on_pump(struct loop_defer *defer)
{
	pump(container_of(defer, struct stream, pump));
}

/* Is nobody holding the other end of the pty open? */
static bool pty_is_hung_up(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

static void on_retry(struct loop_timer *timer)
{
	struct stream *s = container_of(timer, struct stream, retry);

	s->retry_ns = s->retry_ns * 2 < RETRY_MAX_NS ? s->retry_ns * 2 : RETRY_MAX_NS;
	if (is_deaf(s)) {
		loop_add(s->loop, &s->listen, s->fd, EPOLLIN, on_listen);
		arm_retry(s);
		return;
	}
	if (s->kind == STREAM_PTY)
		s->hung_up = pty_is_hung_up(s->fd);
	s->writable = !s->hung_up;
	pump(s);
}

static void arm_retry(struct stream *s)
{
	if (s->retry.at_ns || !must_retry(s))
		return;
	if (!s->retry_ns)
		s->retry_ns = RETRY_MIN_NS;
	loop_timer_arm(s->loop, &s->retry, s->retry_ns, on_retry);
}

/* The other side of a socket is gone and all it sent was read. An accepted one makes room for the
 * next; its unsent output waits for that one. */
static void drop_peer(struct stream *s)
{
	int fd = s->shared->peer_fd;

	s->readable = s->writable = false;
	loop_remove(&s->source);
	if (!(s->flags & UMDEV_RES_LISTEN))
		return;
	s->hung_up = false;
	s->shared->peer_fd = -1;
	ab_barrier();
	close(fd);
	loop_add(s->loop, &s->listen, s->fd, EPOLLIN, on_listen); /* failed: pump() retries */
}

static void complain(struct stream *s, int error)
{
	if (!s->complained)
		log_warning("stream %s: %s; what it carries waits", s->name, strerror(-error));
	s->complained = true;
}

static bool move_in(struct stream *s)
{
	ssize_t n = stream_read_host(s, data_fd(s));

	if (n > 0)
		return true;
	s->readable = false; /* until the next edge */
	if (n == 0 || n == -EAGAIN)
		return false; /* end of a socket's input: its peer may still want our bytes */
	s->hung_up = true;    /* EIO of a pty: nobody has it open */
	s->writable = false;
	if (s->kind == STREAM_PIPE)
		complain(s, n);
	return false;
}

static bool move_out(struct stream *s)
{
	ssize_t n = stream_write_host(s, data_fd(s));

	if (n > 0) {
		s->retry_ns = 0;
		s->complained = false;
		return true;
	}
	s->writable = false;
	if (n == 0 || n == -EAGAIN)
		return false;
	if (s->kind != STREAM_SOCKET)
		complain(s, n);
	else if (s->flags & UMDEV_RES_READ)
		s->readable = true; /* what the peer had sent before it went */
	s->hung_up = !s->unpolled;
	return false;
}

/* Bounded by the rings: what the device takes or gives meanwhile is seen at the next kick. */
static void pump(struct stream *s)
{
	while (can_write(s))
		s->wake |= move_out(s);
	while (can_read(s))
		s->wake |= move_in(s);
	if (s->kind == STREAM_SOCKET && s->hung_up && !s->readable)
		drop_peer(s);
	arm_retry(s);
	if (!s->wake)
		return;
	s->wake = false;
	s->event(s);
}

static void on_source(struct loop_fd *source, uint32_t revents)
{
	struct stream *s = container_of(source, struct stream, source);
	bool gone = revents & (EPOLLHUP | EPOLLERR);

	s->hung_up = gone || (s->hung_up && s->kind == STREAM_SOCKET);
	if ((s->flags & UMDEV_RES_READ) && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		s->readable = true;
	s->writable = !s->hung_up && (s->writable || (revents & EPOLLOUT));
	pump(s);
}

static int add_source(struct stream *s)
{
	/* What the edges before us said is unknown: try both ways once. */
	s->readable = s->flags & UMDEV_RES_READ;
	s->hung_up = s->kind == STREAM_PTY && pty_is_hung_up(s->fd);
	s->writable = !s->hung_up;
	return loop_add(s->loop, &s->source, data_fd(s), EPOLLIN | EPOLLOUT | EPOLLET, on_source);
}

/* A regular file or a device that is always ready, which epoll refuses. */
static void add_unpolled(struct stream *s)
{
	s->unpolled = s->writable = true;
	s->readable = (s->flags & UMDEV_RES_READ) && s->kind != STREAM_FILE;
}

static void on_listen(struct loop_fd *source, uint32_t revents)
{
	struct stream *s = container_of(source, struct stream, listen);
	int fd = sock_accept(s->fd);

	if (fd == -EAGAIN)
		return;
	if (fd < 0) {
		complain(s, fd);
		loop_remove(&s->listen); /* else it would be ready again at once */
		arm_retry(s);
		return;
	}
	s->complained = false;
	s->shared->peer_fd = fd;
	loop_remove(&s->listen); /* one peer at a time, the next waits in the backlog */
	if (add_source(s))
		drop_peer(s);
	pump(s);
}

int stream_start(struct stream *s, struct loop *loop, void (*event)(struct stream *))
{
	int error = 0;

	s->loop = loop;
	s->event = event;
	if (data_fd(s) >= 0)
		error = add_source(s);
	else
		error = loop_add(loop, &s->listen, s->fd, EPOLLIN, on_listen);
	if (error == -EPERM) {
		add_unpolled(s);
		error = 0;
	}
	if (!error)
		loop_defer(loop, &s->pump, on_pump);
	return error;
}

void stream_stop(struct stream *s)
{
	if (!s->loop)
		return;
	loop_remove(&s->source);
	loop_remove(&s->listen);
	loop_defer_cancel(&s->pump);
	loop_timer_cancel(&s->retry);
	s->loop = NULL;
}

void stream_kick(struct stream *s)
{
	if (!s->loop)
		return;
	if (can_read(s) || can_write(s))
		loop_defer(s->loop, &s->pump, on_pump);
	else
		arm_retry(s);
}

void stream_reset(struct stream *s)
{
	s->dev->half->in_tail[s->index] = s->shared->in_head;
	s->dev->half->out_head[s->index] = s->shared->out_tail;
}
