/* SPDX-License-Identifier: MIT */
/*
 * UNIX sockets. sun_path holds 107 bytes, the paths of devices may be longer: such a socket is
 * reached through /proc/self/fd/<directory>/<name>.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/sock.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#define PIDFS_MAGIC 0x50494446 /* Linux 6.9: a pidfd's inode number names the process */

/* Enough for every device being connected to at once by one VMM. */
#define BACKLOG 128

/* Opens the directory of path; *ret_name points into path. fd / -errno */
static int open_dir_of(const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *dir = NULL;
	int fd;

	*ret_name = slash ? slash + 1 : path;
	if (!slash)
		dir = strdup(".");
	else
		dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	if (!dir)
		return -ENOMEM;
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The address of path; a path that is too long for one is reached through its directory, which
 * stays open in *ret_dir_fd (else -1) until the address was used. */
static int make_address(const char *path, struct sockaddr_un *ret, int *ret_dir_fd)
{
	const char *name;
	int n, fd;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_dir_fd = -1;
	if (!*path || path[strlen(path) - 1] == '/')
		return -EINVAL;
	n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", path);
	if ((size_t)n < sizeof(ret->sun_path))
		return 0;
	fd = open_dir_of(path, &name);
	if (fd < 0)
		return fd;
	n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", fd, name);
	if ((size_t)n >= sizeof(ret->sun_path)) {
		close(fd);
		return -ENAMETOOLONG;
	}
	*ret_dir_fd = fd;
	return 0;
}

/* -EADDRINUSE: something has that name. */
static int listen_at(const char *path, mode_t mode)
{
	_cleanup_close_ int fd = -1, dir_fd = -1;
	struct sockaddr_un address;
	int r = make_address(path, &address, &dir_fd);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	/* Nobody can connect before listen(), so the umask's rights were never in force. */
	if (chmod(address.sun_path, mode) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		unlink(address.sun_path);
		return r;
	}
	return take_fd(&fd);
}

int sock_listen(const char *path, mode_t mode)
{
	int fd = listen_at(path, mode);
	struct stat st;

	if (fd != -EADDRINUSE || lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return fd;
	return unlink(path) < 0 ? -errno : listen_at(path, mode);
}

int sock_relisten(const char *path, mode_t mode)
{
	_cleanup_close_ int fd = listen_at(path, mode);
	_cleanup_free_ char *tmp = NULL;
	struct stat st;
	int r;

	if (fd != -EADDRINUSE)
		return take_fd(&fd);
	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EADDRINUSE;
	if (asprintf(&tmp, "%s.new", path) < 0)
		return -ENOMEM;
	fd = sock_listen(tmp, st.st_mode & 07777);
	if (fd < 0)
		return fd;
	r = lchown(tmp, st.st_uid, st.st_gid);
	if (r == 0 || errno == EPERM) /* given by root, and we are not */
		r = rename(tmp, path);
	if (r < 0) {
		r = -errno;
		unlink(tmp);
		return r;
	}
	return take_fd(&fd);
}

int sock_connect(const char *path)
{
	_cleanup_close_ int fd = -1, dir_fd = -1;
	struct sockaddr_un address;
	int r = make_address(path, &address, &dir_fd);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	do
		r = connect(fd, (struct sockaddr *)&address, sizeof(address));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : take_fd(&fd);
}

int sock_accept(int listen_fd)
{
	int fd;

	do
		fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd >= 0)
		return fd;
	return errno == ECONNABORTED ? -EAGAIN : -errno; /* it hung up while it waited */
}

int sock_pair(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) < 0)
		return -errno;
	return 0;
}

/* Field 22 of its stat file. */
uint64_t process_start(pid_t pid)
{
	char path[32], text[1024], *at;
	unsigned long long start = 0;
	_cleanup_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	at = strrchr(text, ')'); /* ends field 2, which may hold anything */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at)
		start = strtoull(at, NULL, 10);
	return start;
}

int sock_peer(int fd, struct sock_peer *ret)
{
	struct ucred cred;
	socklen_t len = sizeof(cred), pidfd_len = sizeof(int);
	int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &pidfd_len) < 0) {
		pidfd = -1;
		if (errno != ENOPROTOOPT)
			return -errno; /* ESRCH, EINVAL: it is dead and reaped */
		if (cred.pid > 0)
			pidfd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	}
	*ret = (struct sock_peer){
		.pidfd = pidfd,
		.pid = cred.pid,
		.uid = cred.uid,
		.gid = cred.gid,
		.start = cred.pid > 0 ? process_start(cred.pid) : 0,
	};
	return 0;
}

int sock_peer_groups(int fd, gid_t **ret)
{
	_cleanup_free_ gid_t *groups = NULL;
	socklen_t len = 0;

	*ret = NULL;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
		return len ? -errno : 0;
	groups = malloc(len);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return -errno;
	*ret = TAKE(groups);
	return (int)(len / sizeof(gid_t));
}

void sock_peer_again(pid_t pid, uid_t uid, uint64_t start, struct sock_peer *ret)
{
	int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	/* In this order: the process that has the pidfd is the one that is looked at. */
	if (pidfd >= 0 && (!start || process_start(pid) != start)) {
		close(pidfd);
		pidfd = -1;
	}
	*ret = (struct sock_peer){ .pidfd = pidfd, .pid = pid, .uid = uid, .start = start };
}

/* Do inode numbers of pidfds name processes here? */
static bool is_pidfs(int pidfd)
{
	struct statfs fs;

	return fstatfs(pidfd, &fs) == 0 && fs.f_type == PIDFS_MAGIC;
}

bool sock_peer_is_same(const struct sock_peer *a, const struct sock_peer *b)
{
	struct stat sa, sb;

	if (!a->pid || a->pid != b->pid)
		return false;
	if (a->pidfd >= 0 && b->pidfd >= 0 && is_pidfs(a->pidfd) && fstat(a->pidfd, &sa) == 0 &&
	    fstat(b->pidfd, &sb) == 0)
		return sa.st_ino == sb.st_ino;
	return a->start && a->start == b->start;
}

bool sock_peer_is_dead(const struct sock_peer *peer)
{
	struct pollfd p = { .fd = peer->pidfd, .events = POLLIN };

	if (peer->pidfd >= 0)
		return poll(&p, 1, 0) > 0;
	return peer->pid && process_start(peer->pid) != peer->start;
}

static ssize_t write_some(int fd, const char *data, size_t len)
{
	ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

	return n < 0 && errno == ENOTSOCK ? write(fd, data, len) : n;
}

int sock_write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = write_some(fd, at, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			poll(&p, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		} else if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int change_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);

	if (flags < 0)
		return -errno;
	if (fcntl(fd, set, on ? flags | flag : flags & ~flag) < 0)
		return -errno;
	return 0;
}

int fd_set_cloexec(int fd, bool on)
{
	return change_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int fd_set_nonblock(int fd, bool on)
{
	return change_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

bool fd_is_eventfd(int fd)
{
	char path[40], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return false;
	link[n] = '\0';
	return strcmp(link, "anon_inode:[eventfd]") == 0;
}
