/* SPDX-License-Identifier: MIT */
/* Mounting, unmounting, and the kernel's requests in our loop. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "fuse/door.h"
#include "fuse/fuse.h"

#define BATCH 64           /* requests per round of the loop: other sources get their turn */
#define MAX_DEAD_MOUNTS 16 /* on top of each other */

static void log_from_fuse(enum fuse_log_level level, const char *format, va_list args)
{
	char line[512];

	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = 0;
	if (level <= FUSE_LOG_WARNING)
		log_warning("libfuse: %s", line);
	else
		log_debug("libfuse: %s", line);
}

/* Takes a mount away without waiting for anybody who uses it. */
static int unmount_lazily(const char *path)
{
	char *argv[] = { "fusermount3", "-u", "-z", "-q", "--", (char *)path, NULL };
	int r, status;
	pid_t pid;

	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	r = -errno;
	if (r != -EPERM || posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
		return r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : r;
}

/* Makes `path` an ordinary directory to mount on: a server that was killed leaves a mount behind
 * on which everything fails with ENOTCONN. */
static int clear_mount_point(const char *path)
{
	struct statfs fs;
	unsigned i;
	int r;

	if (mkdir(path, 0755) < 0 && errno != EEXIST && errno != ENOTCONN)
		return err_set(-errno, "cannot make the directory %s: %s", path, strerror(errno));
	for (i = 0; statfs(path, &fs) < 0; i++) {
		if (errno != ENOTCONN || i == MAX_DEAD_MOUNTS)
			return err_set(-errno, "cannot mount at %s: %s", path, strerror(errno));
		log_info("%s: a dead mount is in the way and goes", path);
		r = unmount_lazily(path);
		if (r < 0)
			return err_set(r, "a dead mount at %s does not go: try umount -l %s", path,
				       path);
	}
	if (fs.f_type == FUSE_SUPER_MAGIC)
		return err_set(-EBUSY,
			       "%s: a live tree is mounted here; is another umdevd running?", path);
	return 0;
}

static int mount_session(struct fuse_door *door, const struct fuse_lowlevel_ops *ops)
{
	char options[] = "fsname=umdev,subtype=umdev,nosuid,nodev,noexec,allow_other";
	char *argv[] = { "umdevd", "-o", options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int r;

	/* For the owner alone where only root may open a mount to others. */
	if (geteuid() != 0)
		*strrchr(options, ',') = 0;
	if (access("/dev/fuse", R_OK | W_OK) < 0) {
		r = -errno;
		return err_set(r,
			       "cannot use /dev/fuse: %s; load the module fuse, or allow its use",
			       strerror(-r));
	}
	fuse_set_log_func(log_from_fuse);
	door->session = fuse_session_new(&args, ops, sizeof(*ops), door);
	fuse_opt_free_args(&args);
	if (!door->session)
		return err_set(-ENOMEM, "libfuse cannot start a session");
	if (fuse_session_mount(door->session, door->mount_point) < 0) {
		fuse_session_destroy(TAKE(door->session));
		return err_set(-EPERM,
			       "mounting %s was refused: be root, or install fusermount3 (Debian "
			       "package fuse3)",
			       door->mount_point);
	}
	return 0;
}

static void on_requests(struct loop_fd *source, uint32_t revents)
{
	struct fuse_door *door = container_of(source, struct fuse_door, source);
	unsigned i;
	int r;

	for (i = 0; i < BATCH; i++) {
		r = fuse_session_receive_buf(door->session, &door->buf);
		if (r == -EINTR)
			continue;
		if (r == -EAGAIN)
			return;
		if (r <= 0) {
			/* 0: unmounted. The rest does not pass by itself. */
			log_warning("%s: the tree is no longer served: %s", door->mount_point,
				    r ? strerror(-r) : "somebody unmounted it");
			loop_remove(&door->source);
			return;
		}
		fuse_session_process_buf(door->session, &door->buf);
	}
}

int door_open(const struct fuse_lowlevel_ops *ops, struct tree *tree, struct core *core,
	      struct loop *loop, const char *mount_point, struct fuse_door **ret)
{
	struct fuse_door *door = calloc(1, sizeof(*door));
	int r, fd;

	if (!door)
		return -ENOMEM;
	door->tree = tree;
	door->core = core;
	door->source = (struct loop_fd)LOOP_FD_INIT;
	list_init(&door->handles);
	list_init(&door->held);
	door->mount_point = strdup(mount_point);
	r = door->mount_point ? clear_mount_point(mount_point) : -ENOMEM;
	if (r == 0)
		r = mount_session(door, ops);
	if (r == 0) {
		fd = fuse_session_fd(door->session);
		r = fd_set_cloexec(fd, true);
		if (r == 0)
			r = fd_set_nonblock(fd, true);
		if (r == 0)
			r = loop_add(loop, &door->source, fd, EPOLLIN, on_requests);
	}
	if (r < 0) {
		fuse_door_close(door);
		return r;
	}
	*ret = door;
	return 0;
}

int fuse_door_open(struct tree *tree, struct loop *loop, const char *mount_point,
		   struct fuse_door **ret)
{
	return door_open(&door_ops, tree, NULL, loop, mount_point, ret);
}

void fuse_door_close(struct fuse_door *door)
{
	struct handle *handle;
	struct held *held;

	if (!door)
		return;
	loop_remove(&door->source);
	while ((held = list_first(&door->held, struct held, node))) {
		attr_cancel(&held->wait);
		err_clear();
		held_answer(held, -ENODEV);
	}
	if (door->session) {
		fuse_session_unmount(door->session);
		fuse_session_destroy(door->session);
	}
	while ((handle = list_first(&door->handles, struct handle, node)))
		handle_free(door, handle);
	free(door->buf.mem);
	free(door->mount_point);
	free(door);
}
