/* SPDX-License-Identifier: MIT */
/*
 * slow-disk DIRECTORY BYTES: mounts a file "disk" there, whose reads and writes take as long as it
 * is told, however their process ends meanwhile. Commands on standard input, each answered by a
 * line:
 *
 *     delay MS   each request from now on takes that long   ok
 *     hold       requests do not end                         ok
 *     go         they do again                               ok
 *     count      how many are under way                      N
 *
 * Its end (of standard input) ends all.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DISK = 2, MAX_IO = 1 << 20 };

struct request { /* owned by the list */
	struct request *next;
	fuse_req_t req;
	uint64_t due_ns;
	size_t at, len;
	bool write;
	uint8_t data[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct request *list; /* of all that are under way */
static unsigned n_requests;
static uint64_t delay_ns;
static bool held;
static uint8_t *content;
static size_t size;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- requests ---- */

static void carry_out(struct request *r)
{
	if (r->write) {
		memcpy(content + r->at, r->data, r->len);
		fuse_reply_write(r->req, r->len);
	} else {
		fuse_reply_buf(r->req, (char *)content + r->at, r->len);
	}
	free(r);
}

static void *work(void *unused)
{
	const struct timespec pause = { 0, 200000 };

	for (;;) {
		uint64_t now = now_ns();

		pthread_mutex_lock(&lock);
		for (struct request **p = &list; *p && !held;) {
			struct request *r = *p;

			if (r->due_ns > now) {
				p = &r->next;
				continue;
			}
			*p = r->next;
			n_requests--;
			carry_out(r);
		}
		pthread_mutex_unlock(&lock);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void add(fuse_req_t req, const char *data, size_t len, off_t at)
{
	struct request *r;

	if (at < 0 || (size_t)at > size || len > size - (size_t)at || len > MAX_IO) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	r = malloc(sizeof(*r) + len);
	if (!r) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*r = (struct request){ .req = req, .at = (size_t)at, .len = len, .write = data != NULL };
	if (data)
		memcpy(r->data, data, len);
	pthread_mutex_lock(&lock);
	r->due_ns = now_ns() + delay_ns;
	r->next = list;
	list = r;
	n_requests++;
	pthread_mutex_unlock(&lock);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t at, struct fuse_file_info *fi)
{
	add(req, NULL, len, at);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t at,
		     struct fuse_file_info *fi)
{
	add(req, data, len, at);
}

/* ---- the file ---- */

static struct stat attributes(fuse_ino_t ino)
{
	struct stat st = { .st_ino = ino, .st_nlink = 1 };

	st.st_mode = ino == DISK ? S_IFREG | 0600 : S_IFDIR | 0700;
	st.st_size = ino == DISK ? (off_t)size : 0;
	return st;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = DISK, .attr = attributes(DISK) };

	if (strcmp(name, "disk") != 0)
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = attributes(ino);

	fuse_reply_attr(req, &st, 1);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

static void do_init(void *unused, struct fuse_conn_info *conn)
{
	conn->max_background = 256;
}

static const struct fuse_lowlevel_ops ops = {
	.init = do_init,
	.lookup = do_lookup,
	.getattr = do_getattr,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fsync = do_fsync,
};

/* ---- commands ---- */

static void obey(const char *line)
{
	unsigned ms, n = 0;

	pthread_mutex_lock(&lock);
	if (sscanf(line, "delay %u", &ms) == 1)
		delay_ns = (uint64_t)ms * 1000000u;
	else if (!strcmp(line, "hold\n"))
		held = true;
	else if (!strcmp(line, "go\n"))
		held = false;
	n = n_requests;
	pthread_mutex_unlock(&lock);
	if (!strcmp(line, "count\n"))
		printf("%u\n", n);
	else
		puts("ok");
}

static void *listen_to_stdin(void *session)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin))
		obey(line);
	fuse_session_unmount(session); /* ends its loop */
	_exit(0);
}

int main(int argc, char **argv)
{
	char *fuse_argv[] = { argv[0], NULL };
	struct fuse_args args = { 1, fuse_argv, 0 };
	struct fuse_session *session;
	pthread_t thread;

	size = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	content = calloc(1, size ? size : 1);
	session = size && content ? fuse_session_new(&args, &ops, sizeof(ops), NULL) : NULL;
	if (!session || fuse_session_mount(session, argv[1]) != 0) {
		fprintf(stderr, "usage: slow-disk DIRECTORY BYTES\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (pthread_create(&thread, NULL, work, NULL) ||
	    pthread_create(&thread, NULL, listen_to_stdin, session))
		return 1;
	puts("ready");
	return fuse_session_loop(session) != 0;
}
