/* SPDX-License-Identifier: MIT */
/*
 * bench-fuse-floor MOUNTPOINT: the least that a file in FUSE can do, served by umdevd's loop: one
 * file, whose writes are accepted and forgotten. The floor of a write to an attribute. Says
 * "ready"; ends at the end of its standard input.
 */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/loop.h"

#define FILE_INO 2

struct floor {
	struct fuse_session *session;
	struct fuse_buf buf;
	struct loop loop;
	struct loop_fd requests, end;
};

static struct stat stat_of(fuse_ino_t ino)
{
	struct stat st = { .st_ino = ino, .st_nlink = 1 };

	st.st_mode = ino == FILE_INO ? S_IFREG | 0644 : S_IFDIR | 0755;
	st.st_size = ino == FILE_INO ? 4096 : 0;
	return st;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .ino = FILE_INO, .attr = stat_of(FILE_INO) };

	fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = stat_of(ino);

	fuse_reply_attr(req, &st, 0);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1; /* as umdevd's attributes */
	fuse_reply_open(req, fi);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	fuse_reply_write(req, size);
}

static void on_request(struct loop_fd *source, uint32_t revents)
{
	struct floor *f = container_of(source, struct floor, requests);

	if (fuse_session_receive_buf(f->session, &f->buf) > 0)
		fuse_session_process_buf(f->session, &f->buf);
}

static void on_end(struct loop_fd *source, uint32_t revents)
{
	loop_stop(source->loop, 0);
}

int main(int argc, char **argv)
{
	static const struct fuse_lowlevel_ops ops = {
		.lookup = on_lookup, .getattr = on_getattr, .open = on_open, .write = on_write
	};
	char *words[] = { argv[0], NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	struct floor f = { .requests = LOOP_FD_INIT, .end = LOOP_FD_INIT };

	if (argc != 2 || loop_init(&f.loop) < 0)
		return 2;
	f.session = fuse_session_new(&args, &ops, sizeof(ops), &f);
	if (!f.session || fuse_session_mount(f.session, argv[1]) < 0)
		return 1;
	if (loop_add(&f.loop, &f.requests, fuse_session_fd(f.session), EPOLLIN, on_request) < 0 ||
	    loop_add(&f.loop, &f.end, STDIN_FILENO, EPOLLIN, on_end) < 0)
		return 1;
	puts("ready");
	fflush(stdout);
	loop_run(&f.loop);
	loop_remove(&f.requests);
	loop_remove(&f.end);
	fuse_session_unmount(f.session);
	fuse_session_destroy(f.session);
	free(f.buf.mem);
	loop_fini(&f.loop);
	return 0;
}
