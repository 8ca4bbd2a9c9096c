/* SPDX-License-Identifier: MIT */
/* Admission of connections to mdevs; listener.h has the idea. */
#include "manager/listener.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "core/core.h"
#include "core/group.h"
#include "manager/manager.h"
#include "manager/worker_proc.h"

#define NS_PER_MS 1000000ull
#define PREDECESSOR_MS 1000 /* a worker notices a hang-up in its next round; 1 s: it hangs */
#define REFUSED_LOG_MS 1000 /* one line per device and second about refused connections */
#define ACCEPT_BATCH 16     /* connections per round: others of the loop get their turn */

/* ---- whoever waits ---- */

/* The descriptors in *ret are the caller's from now on. */
static int take_waiting(struct listener *l, struct sock_peer *ret)
{
	*ret = l->waiting_peer;
	l->waiting_peer.pidfd = -1;
	return take_fd(&l->waiting_fd);
}

static void close_peer(int fd, struct sock_peer *peer)
{
	if (peer->pidfd >= 0)
		close(peer->pidfd);
	close(fd);
}

/* Closes the connection; says so unless this device had a line within the last second. */
static void refuse(struct listener *l, int fd, struct sock_peer *peer, int error)
{
	uint64_t now = loop_now_ns();

	if (now - l->refused_ns >= REFUSED_LOG_MS * NS_PER_MS) {
		log_warning("device %s: connection of pid %d (uid %u) refused: %s (%u more before)",
			    l->mdev->uuid_text, (int)peer->pid, (unsigned)peer->uid,
			    err_text(error), l->n_refused);
		l->refused_ns = now;
		l->n_refused = 0;
	} else {
		l->n_refused++;
	}
	close_peer(fd, peer);
	if (l->worker)
		worker_check_idle(l->worker);
}

static void waited_too_long(struct loop_timer *timer)
{
	struct listener *l = container_of(timer, struct listener, waiting_deadline);
	struct sock_peer peer;
	int fd = take_waiting(l, &peer);

	err_clear();
	err_set(-EBUSY, "the client before has hung up, but its worker does not let go of it");
	refuse(l, fd, &peer, -EBUSY);
}

/* ---- admission ---- */

static bool has_hung_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return fd >= 0 && poll(&p, 1, 0) > 0;
}

/* Will CLOSED from the worker make room? The client hung up, or the group's owner is dead. */
static bool is_room_near(const struct listener *l)
{
	const struct mdev_group *group = l->mdev->group;

	if (l->mdev->connected)
		/* Of a client that a manager before us let in, nothing is known: ask its worker. */
		return l->client_fd < 0 || has_hung_up(l->client_fd);
	return group && group->n_connected && sock_peer_is_dead(&group->owner);
}

/* The worker of the group, or NULL. A device that joined its group meanwhile is no member. */
static struct worker *group_worker(const struct mdev_group *group)
{
	const struct umdev_mdev *member;

	list_for_each(member, &group->members, group_node) {
		const struct listener *l = member->manager;

		if (l && l->worker)
			return l->worker;
	}
	return NULL;
}

/* The device is to be served, by a client or not. 1: it is; 0: it will be; -errno (text left) */
static int serve(struct listener *l)
{
	struct worker *w = group_worker(l->mdev->group);
	int r;

	if (!w) {
		r = worker_start(l->manager, l->mdev->group);
		return r < 0 ? r : 0;
	}
	return worker_takes(w, l->mdev);
}

/* 1: it was handed to the worker; 0: it must wait; -errno (text left): it is refused. */
static int admit(struct listener *l, int fd, const struct sock_peer *peer)
{
	struct umdev_mdev *mdev = l->mdev;
	int r;

	err_clear();
	if (l->manager->stopping)
		return err_set(-ESHUTDOWN, "umdevd is stopping");
	r = core_may_connect(mdev, peer);
	if (r == -EBUSY && is_room_near(l)) {
		if (!l->waiting_deadline.at_ns)
			loop_timer_arm(&l->manager->loop, &l->waiting_deadline,
				       PREDECESSOR_MS * NS_PER_MS, waited_too_long);
		return 0;
	}
	if (r < 0)
		return r;
	loop_timer_cancel(&l->waiting_deadline);
	r = serve(l);
	if (r <= 0)
		return r;
	/* In this order: what is written down is never less than what the worker has. */
	core_connected(mdev, peer);
	r = worker_connect(l->worker, mdev, fd);
	if (r < 0) {
		core_closed(mdev);
		return r;
	}
	log_info("device %s: connected by pid %d (uid %u)", mdev->uuid_text, (int)peer->pid,
		 (unsigned)peer->uid);
	return 1;
}

/* Takes fd and the pidfd. Nobody waits. */
static void admit_or_wait(struct listener *l, int fd, struct sock_peer *peer)
{
	int r = admit(l, fd, peer);

	if (r == 1) {
		l->client_fd = fd;
		if (peer->pidfd >= 0)
			close(peer->pidfd);
	} else if (r == 0) {
		l->waiting_fd = fd;
		l->waiting_peer = *peer;
	} else {
		loop_timer_cancel(&l->waiting_deadline);
		refuse(l, fd, peer, r);
	}
}

/* mdev_start waits for it, or it is started and its last owner's worker is gone. */
static void serve_started(struct listener *l)
{
	int r;

	err_clear();
	r = serve(l);
	if (r == 1)
		worker_check_idle(l->worker); /* that it is to stay, too */
	if (r != 0)
		core_start_done(l->mdev, r < 0 ? r : 0);
}

static void retry_now(struct loop_defer *defer)
{
	struct listener *l = container_of(defer, struct listener, retry);
	struct sock_peer peer;
	int fd;

	if (mdev_wants_worker(l->mdev) && !l->manager->stopping)
		serve_started(l);
	if (l->waiting_fd < 0)
		return;
	fd = take_waiting(l, &peer);
	admit_or_wait(l, fd, &peer);
}

void listener_retry(struct listener *l)
{
	loop_defer(&l->manager->loop, &l->retry, retry_now);
}

void listener_adopt(struct listener *l, int fd)
{
	struct sock_peer peer;
	int r = sock_peer(fd, &peer);

	if (r < 0) {
		/* It was dead before we looked: nobody is there to be answered. */
		log_warning("device %s: a client left at once: %s", l->mdev->uuid_text,
			    strerror(-r));
		close(fd);
		return;
	}
	if (l->waiting_fd >= 0 && !has_hung_up(l->waiting_fd)) {
		err_clear();
		err_set(-EBUSY, "another client (pid %d) waits for it already",
			(int)l->waiting_peer.pid);
		refuse(l, fd, &peer, -EBUSY);
		return;
	}
	if (l->waiting_fd >= 0) {
		struct sock_peer gone;
		int gone_fd = take_waiting(l, &gone);

		close_peer(gone_fd, &gone);
	}
	admit_or_wait(l, fd, &peer);
}

static void accept_some(struct loop_fd *source, uint32_t revents)
{
	struct listener *l = container_of(source, struct listener, source);

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = manager_accept(l->manager, l->fd);

		if (fd < 0)
			return;
		listener_adopt(l, fd);
	}
}

void listener_drop_client(struct listener *l)
{
	if (l->client_fd >= 0)
		close(take_fd(&l->client_fd));
}

/* ---- the directory ---- */

/* What drivers left there, then the directory itself. Nothing of ours is a directory. */
void listener_remove_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (dir) {
		while ((entry = readdir(dir)))
			unlinkat(fd, entry->d_name, 0); /* "." and "..": EISDIR */
		closedir(dir);
	} else if (fd >= 0) {
		close(fd);
	}
	if (rmdir(path) < 0)
		log_warning("cannot remove %s: %s", path, strerror(errno));
}

static int make_dir(struct manager *m, struct umdev_mdev *mdev)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "dev/%s", mdev->uuid_text);
	struct stat st;
	int r = 0;

	if (!path)
		return -ENOMEM;
	if (mkdir(path, 0755) < 0)
		r = -errno;
	if (r == -EEXIST && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
		r = 0; /* of a umdevd before us */
	if (r < 0)
		return err_set(r, "cannot make %s: %s", path, strerror(-r));
	mdev->dir_path = TAKE(path);
	return 0;
}

static int make_alias(const struct umdev_mdev *mdev)
{
	const char *alias = mdev->type->desc->socket_alias;
	_cleanup_free_ char *path = alias ? str_printf("%s/%s", mdev->dir_path, alias) : NULL;

	if (!alias)
		return 0;
	if (!path)
		return -ENOMEM;
	if (symlink("socket", path) < 0 && errno != EEXIST) /* of a umdevd before us */
		return -errno;
	return 0;
}

/* NULL: no memory */
static char *socket_path(const struct listener *l)
{
	const char *own = l->manager->options.socket_path;

	return own ? strdup(own) : str_printf("%s/socket", l->mdev->dir_path);
}

int listener_set_access(struct listener *l, const struct mdev_access *access)
{
	_cleanup_free_ char *path = socket_path(l);
	struct stat old;
	int r = path ? 0 : -ENOMEM;

	if (r < 0 || l->fd < 0)
		return r; /* --one --fd listens nowhere */
	/* Closed to others first: nobody is let in whom neither the old nor the new rights admit.
	 */
	if (lstat(path, &old) < 0 || chmod(path, 0600) < 0)
		r = -errno;
	else if (lchown(path, access->uid, access->gid) < 0) {
		r = -errno;
		chmod(path, old.st_mode & 07777);
	} else if (chmod(path, access->mode) < 0)
		r = -errno;
	if (r < 0)
		return err_set(r, "cannot give %s to uid %u, gid %u: %s", path,
			       (unsigned)access->uid, (unsigned)access->gid, strerror(-r));
	return 0;
}

static int start_listening(struct listener *l)
{
	_cleanup_free_ char *path = socket_path(l);
	struct mdev_access access;
	int r;

	if (!path)
		return -ENOMEM;
	l->fd = l->manager->options.socket_path ? sock_listen(path, 0600)
						: sock_relisten(path, 0600);
	r = l->fd;
	if (r >= 0 && !l->manager->options.socket_path)
		r = make_alias(l->mdev);
	if (r >= 0)
		r = loop_add(&l->manager->loop, &l->source, l->fd, EPOLLIN, accept_some);
	if (r < 0)
		return err_set(r, "cannot listen on %s: %s", path, strerror(-r));
	/* Not given: it stays as somebody made it who had the socket of the umdevd before us. */
	return mdev_access_of(l->mdev, &access) ? listener_set_access(l, &access) : 0;
}

int listener_open(struct manager *m, struct umdev_mdev *mdev)
{
	struct listener *l = malloc(sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	*l = (struct listener){
		.manager = m,
		.mdev = mdev,
		.fd = -1,
		.source = LOOP_FD_INIT,
		.client_fd = -1,
		.waiting_fd = -1,
		.waiting_peer.pidfd = -1,
	};
	mdev->manager = l;
	r = make_dir(m, mdev);
	if (r == 0 && !m->options.no_socket)
		r = start_listening(l);
	if (r < 0)
		listener_close(l);
	return r;
}

void listener_close(struct listener *l)
{
	struct umdev_mdev *mdev;

	if (!l)
		return;
	mdev = l->mdev;
	if (l->worker)
		worker_forget(l->worker, mdev);
	loop_remove(&l->source);
	if (l->fd >= 0)
		close(l->fd);
	if (l->fd >= 0 && l->manager->options.socket_path)
		unlink(l->manager->options.socket_path);
	loop_defer_cancel(&l->retry);
	loop_timer_cancel(&l->waiting_deadline);
	if (l->waiting_fd >= 0)
		close_peer(l->waiting_fd, &l->waiting_peer);
	listener_drop_client(l);
	if (mdev->dir_path)
		listener_remove_dir(mdev->dir_path);
	mdev->manager = NULL;
	free(l);
}
