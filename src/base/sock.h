/* SPDX-License-Identifier: MIT */
/* UNIX sockets and descriptors: what the manager, the workers and the CLI share. */
#ifndef BASE_SOCK_H
#define BASE_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Listening stream socket, non-blocking, CLOEXEC, at `path` (any length: bound through
 * /proc/self/fd of its directory); an old socket of that name is replaced. fd / -errno. */
int sock_listen(const char *path, mode_t mode);
/* The same for a name that others may have open or be about to use: it leads to a socket at every
 * moment, and the new one has the mode and owner that the old one had been given. */
int sock_relisten(const char *path, mode_t mode);
int sock_connect(const char *path); /* blocking connect, CLOEXEC. fd / -errno */
int sock_accept(int listen_fd);     /* non-blocking, CLOEXEC. fd / -EAGAIN / -errno */
int sock_pair(int ret[2]);          /* stream, non-blocking, CLOEXEC */

/* Supplementary groups of the peer when it connected: *ret (to be freed, NULL for none). Returns
 * how many, or -errno. */
int sock_peer_groups(int fd, gid_t **ret);

/* Who is at the other end. pidfd -1 when the kernel has no SO_PEERPIDFD and none could be opened;
 * pid 0: a process of a foreign pid namespace. start: of /proc/<pid>/stat, 0 unknown. */
struct sock_peer {
	int pidfd; /* owned by the caller */
	pid_t pid;
	uid_t uid;
	gid_t gid;
	uint64_t start;
};
int sock_peer(int fd, struct sock_peer *ret); /* 0 / -errno */
/* When the process started, in ticks since boot. 0: there is none. */
uint64_t process_start(pid_t pid);
/* A peer that was met before, by another process of ours: its pidfd is opened anew, and is -1 when
 * that process is gone. */
void sock_peer_again(pid_t pid, uid_t uid, uint64_t start, struct sock_peer *ret);
/* Are two peers the same process? Decided by pidfd inode where the kernel gives one, else by pid
 * and start time. Never true for pid 0. */
bool sock_peer_is_same(const struct sock_peer *a, const struct sock_peer *b);
bool sock_peer_is_dead(const struct sock_peer *peer);

/* Blocking helpers for the CLI and for start-up: all bytes or -errno. */
int sock_write_all(int fd, const void *data, size_t len);

int fd_set_cloexec(int fd, bool on);
int fd_set_nonblock(int fd, bool on);
/* Kind of descriptor by /proc/self/fd link ("anon_inode:[eventfd]"). */
bool fd_is_eventfd(int fd);

#endif
