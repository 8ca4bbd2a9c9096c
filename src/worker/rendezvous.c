/* SPDX-License-Identifier: MIT */
/* Where a successor of a manager that died finds its workers: it connects and is the manager. */
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "base/sock.h"
#include "umdev/cleanup.h"
#include "worker/internal.h"

static bool is_ours(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.uid == geteuid();
}

/* Is there a manager? One that died may be found out here first. */
static bool has_manager(const struct worker *w)
{
	struct pollfd p = { .fd = w->shared->channel.fd };

	return p.fd >= 0 && !(poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)));
}

static void adopt(struct worker *w, int fd)
{
	struct worker_half *next;

	channel_finish(w);
	if (w->loop.stop) {
		close(fd);
		return;
	}
	next = worker_begin(w);
	next->greet = 1; /* before there is somebody to be greeted: else a death here forgets it */
	worker_commit(w);
	conn_attach_fresh(&w->channel, &w->shared->channel, &w->half->cursor, fd, mw_len);
	if (channel_start(w)) {
		log_error("cannot watch the new manager's channel: %m");
		loop_stop(&w->loop, 1);
		return;
	}
	log_info("a new manager has come");
	channel_serve(w);
}

static void on_rendezvous(struct loop_fd *source, uint32_t revents)
{
	struct worker *w = container_of(source, struct worker, rendezvous_source);

	/* Edge-triggered: a table without room for the next must not make us spin. */
	for (;;) {
		_cleanup_close_ int fd = sock_accept(MW_FD_RENDEZVOUS);

		if (fd < 0)
			return;
		if (!is_ours(fd))
			log_warning("refused a manager of another user");
		else if (has_manager(w))
			log_warning("refused a second manager");
		else if (w->half->ready && !w->loop.stop)
			adopt(w, take_fd(&fd));
	}
}

int rendezvous_start(struct worker *w)
{
	int error = fd_set_nonblock(MW_FD_RENDEZVOUS, true);

	if (error)
		return error;
	return loop_add(&w->loop, &w->rendezvous_source, MW_FD_RENDEZVOUS, EPOLLIN | EPOLLET,
			on_rendezvous);
}
