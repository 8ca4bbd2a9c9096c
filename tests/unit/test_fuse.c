/* SPDX-License-Identifier: MIT */
/*
 * The FUSE door: a child process shows a small tree, this one uses it through system calls.
 * Exits 77 where nothing can be mounted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "fuse/fuse.h"

#define N_MANY 10000
#define MOUNT_POINT "/tmp/umdev-test-fuse-XXXXXX"

/* ---- the child: serves, and obeys one letter at a time ---- */

struct server {
	struct tree tree;
	struct loop loop;
	struct loop_fd commands;
	struct fuse_door *door;
	struct tree_node *thing, *many;
	struct attr_wait *slot;
	unsigned shown, stored, later;
	char last[16];
};

static int show_count(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      char *buf)
{
	return sprintf(buf, "shown %08u\n", ++((struct server *)node->object)->shown);
}

static int show_stored(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       char *buf)
{
	struct server *s = node->object;

	return sprintf(buf, "%u %s %u\n", s->stored, s->last, s->later);
}

static int show_full(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		     char *buf)
{
	memset(buf, 'f', TREE_ATTR_SIZE);
	return TREE_ATTR_SIZE;
}

static int store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		 const char *text, size_t len, struct attr_wait *wait)
{
	struct server *s = node->object;

	s->stored++;
	snprintf(s->last, sizeof(s->last), "%zu%.4s", len, text);
	return *text == 'E' ? -EUSERS : 0;
}

static int store_later(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		       const char *text, size_t len, struct attr_wait *wait)
{
	struct server *s = node->object;

	if (s->slot)
		return -EBUSY;
	s->later++;
	attr_hold(&s->slot, wait);
	if (*text == 'n') /* now: answers before the store returns */
		attr_done(&s->slot, 0);
	return TREE_LATER;
}

static const struct tree_attr attrs[] = {
	{ .name = "count", .mode = 0444, .show = show_count },
	{ .name = "stored", .mode = 0444, .show = show_stored },
	{ .name = "full", .mode = 0444, .show = show_full },
	{ .name = "create", .mode = 0200, .store = store },
	{ .name = "both", .mode = 0644, .show = show_stored, .store = store },
	{ .name = "later", .mode = 0200, .store = store_later },
	{ 0 },
};
static const struct tree_kind thing_kind = { .name = "thing", .attrs = attrs };
static const struct tree_kind dir_kind = { .name = "dir" };

static void on_command(struct loop_fd *source, uint32_t revents)
{
	struct server *s = container_of(source, struct server, commands);
	char c = 'q';

	if (read(source->fd, &c, 1) != 1)
		c = 'q';
	switch (c) {
	case 'r':
		tree_remove(&s->tree, s->thing);
		break;
	case 'a':
		s->thing = tree_add(&s->tree, &s->tree.root, "thing", &thing_kind, s);
		break;
	case 'd':
		attr_done(&s->slot, 0);
		break;
	case 'e':
		attr_done(&s->slot, -ENOSPC);
		break;
	case 'q':
		loop_stop(&s->loop, 0);
		return;
	}
	if (write(source->fd, &c, 1) != 1)
		loop_stop(&s->loop, 1);
}

static void fill_tree(struct server *s)
{
	char name[16];
	unsigned i;

	s->thing = tree_add(&s->tree, &s->tree.root, "thing", &thing_kind, s);
	tree_add_link_to(&s->tree, &s->tree.root, "link", s->thing);
	s->many = tree_add(&s->tree, &s->tree.root, "many", &dir_kind, NULL);
	for (i = 0; i < N_MANY; i++) {
		sprintf(name, "entry%u", i);
		tree_add(&s->tree, s->many, name, &thing_kind, s);
	}
}

/* The first byte to the parent is 'o', or the errno. */
static int serve(const char *mount_point, int fd)
{
	static struct server s = { .loop = LOOP_INIT, .commands = LOOP_FD_INIT };
	char first = 'o';
	int r;

	log_init("test-fuse", LOG_ERROR);
	if (tree_init(&s.tree) < 0 || loop_init(&s.loop) < 0)
		return 1;
	fill_tree(&s);
	r = fuse_door_open(&s.tree, &s.loop, mount_point, &s.door);
	if (r < 0)
		first = -r;
	if (write(fd, &first, 1) == 1 && r == 0) {
		loop_add(&s.loop, &s.commands, fd, EPOLLIN, on_command);
		r = loop_run(&s.loop);
		loop_remove(&s.commands);
	}
	fuse_door_close(s.door);
	loop_fini(&s.loop);
	tree_fini(&s.tree);
	return r ? 1 : 0;
}

/* ---- this process ---- */

struct fixture {
	char dir[sizeof(MOUNT_POINT)];
	char path[256];
	pid_t pid;
	int fd;
};

/* 'o', or the errno with which the child could not mount. */
static char start(struct fixture *f)
{
	int pair[2];
	char first = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->pid = fork();
	if (f->pid == 0) {
		close(pair[0]);
		exit(serve(f->dir, pair[1]));
	}
	close(pair[1]);
	f->fd = pair[0];
	assert_int_equal(read(f->fd, &first, 1), 1);
	return first;
}

static int stop(struct fixture *f)
{
	int status;

	send(f->fd, "q", 1, MSG_NOSIGNAL); /* it may be dead already */
	close(f->fd);
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	return status;
}

static void command(struct fixture *f, char c)
{
	assert_int_equal(write(f->fd, &c, 1), 1);
	assert_int_equal(read(f->fd, &c, 1), 1);
}

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));
	char first;

	strcpy(f->dir, MOUNT_POINT);
	assert_non_null(mkdtemp(f->dir));
	first = start(f);
	if (first != 'o') {
		print_message("cannot mount: %s\n", err_name(-first));
		rmdir(f->dir);
		exit(77);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(stop(f), 0);
	assert_int_equal(rmdir(f->dir), 0);
	test_free(f);
	return 0;
}

static const char *at(struct fixture *f, const char *path)
{
	snprintf(f->path, sizeof(f->path), "%s/%s", f->dir, path);
	return f->path;
}

/* Descriptor, or -errno. */
static int open_at(struct fixture *f, const char *path, int flags)
{
	int fd = open(at(f, path), flags | O_CLOEXEC, 0666);

	return fd < 0 ? -errno : fd;
}

static int write_text(struct fixture *f, const char *path, const char *text)
{
	int r, fd = open_at(f, path, O_WRONLY);

	if (fd < 0)
		return fd;
	r = write(fd, text, strlen(text));
	if (r < 0)
		r = -errno;
	close(fd);
	return r;
}

static void assert_reads(struct fixture *f, const char *path, const char *text)
{
	int fd = open_at(f, path, O_RDONLY);
	char buf[TREE_ATTR_SIZE + 1];
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, buf, sizeof(buf));
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, n);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	close(fd);
}

#define assert_fails(call, error)               \
	do {                                    \
		errno = 0;                      \
		assert_int_equal(call, -1);     \
		assert_int_equal(errno, error); \
	} while (0)

static void entries_look_as_in_sysfs(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(stat(at(f, "thing/create"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0200);
	assert_int_equal(st.st_size, 4096);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_blksize, 4096);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(stat(at(f, ""), &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	assert_int_equal(st.st_nlink, 4);
	assert_int_equal(lstat(at(f, "link"), &st), 0);
	assert_int_equal(st.st_mode, S_IFLNK | 0777);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(listxattr(at(f, "thing/both"), NULL, 0), 0);
}

static void what_sysfs_refuses_is_refused(void **state)
{
	struct fixture *f = *state;
	char other[256];

	assert_int_equal(open_at(f, "thing/create", O_RDONLY), -EACCES);
	assert_int_equal(open_at(f, "thing/create", O_RDWR), -EACCES);
	assert_int_equal(open_at(f, "thing/count", O_WRONLY), -EACCES);
	assert_int_equal(open_at(f, "thing/count", O_RDWR), -EACCES);
	assert_int_equal(open_at(f, "thing/nosuch", O_RDONLY), -ENOENT);
	assert_int_equal(open_at(f, "thing/nosuch", O_WRONLY | O_CREAT), -EACCES);
	assert_int_equal(open_at(f, "thing/both", O_WRONLY | O_CREAT | O_EXCL), -EEXIST);
	assert_fails(mkdir(at(f, "thing/new"), 0755), EPERM);
	assert_fails(rmdir(at(f, "thing")), EPERM);
	assert_fails(rmdir(at(f, "link")), ENOTDIR);
	assert_fails(unlink(at(f, "link")), EPERM);
	assert_fails(symlink("x", at(f, "thing/new")), EPERM);
	strcpy(other, at(f, "thing/new"));
	assert_fails(link(at(f, "thing/both"), other), EPERM);
	assert_fails(rename(at(f, "thing/both"), other), EPERM);
	assert_fails(readlink(at(f, "thing"), other, sizeof(other)), EINVAL);
}

static void mdevctl_may_open_as_it_does(void **state)
{
	struct fixture *f = *state;
	int fd = open_at(f, "thing/create", O_WRONLY | O_CREAT | O_TRUNC);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "abc", 3), 3);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 4096);
	assert_int_equal(ftruncate(fd, 10), 0);
	close(fd);
	assert_int_equal(truncate(at(f, "thing/both"), 0), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, 4096);
	assert_reads(f, "thing/stored", "1 3abc 0\n");
}

static void content_is_made_once_per_pass(void **state)
{
	struct fixture *f = *state;
	int fd = open_at(f, "thing/count", O_RDONLY);
	char buf[32] = { 0 };

	assert_int_equal(read(fd, buf, 12), 12);
	assert_int_equal(read(fd, buf + 12, 20), 3);
	assert_string_equal(buf, "shown 00000001\n");
	assert_int_equal(read(fd, buf, 10), 0);
	assert_int_equal(pread(fd, buf, 32, 0), 15);
	assert_string_equal(buf, "shown 00000002\n");
	assert_int_equal(pread(fd, buf, 32, 13), 2);
	assert_memory_equal(buf, "3\n", 2);
	assert_int_equal(pread(fd, buf, 32, 15), 0);
	assert_int_equal(pread(fd, buf, 32, 5000), 0);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(errno, ENODEV);
	close(fd);
}

static void one_write_is_one_store(void **state)
{
	struct fixture *f = *state;
	int fd = open_at(f, "thing/both", O_RDWR);
	char *big = test_malloc(200000);

	memset(big, 'b', 200000);
	assert_int_equal(write(fd, "", 0), 0);
	assert_reads(f, "thing/stored", "0  0\n");
	assert_int_equal(pwrite(fd, "offs", 4, 100), 4);
	assert_reads(f, "thing/stored", "1 4offs 0\n");
	assert_int_equal(write(fd, big, 5000), 4096);
	assert_reads(f, "thing/stored", "2 4096bbbb 0\n");
	assert_int_equal(write(fd, big, 200000), 4096);
	assert_reads(f, "thing/stored", "3 4096bbbb 0\n");
	assert_fails(write(fd, "Error", 5), EUSERS);
	assert_reads(f, "thing/stored", "4 5Erro 0\n");
	close(fd);
	fd = open_at(f, "thing/full", O_RDONLY);
	assert_int_equal(read(fd, big, 200000), 4096);
	assert_int_equal(read(fd, big, 200000), 0);
	close(fd);
	test_free(big);
}

static void a_node_that_went_is_ENODEV_to_who_has_it_open(void **state)
{
	struct fixture *f = *state;
	int fd = open_at(f, "thing/both", O_RDWR), seen = open_at(f, "thing/both", O_RDONLY);
	struct stat st;
	char buf[4];

	assert_int_equal(read(seen, buf, 2), 2);
	command(f, 'r');
	assert_fails(read(fd, buf, 4), ENODEV);
	assert_fails(read(seen, buf, 4), ENODEV);
	assert_fails(write(fd, "x", 1), ENODEV);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(open_at(f, "thing/both", O_RDONLY), -ENOENT);
	command(f, 'a');
	assert_fails(read(fd, buf, 4), ENODEV);
	assert_int_equal(write_text(f, "thing/both", "new"), 3);
	close(fd);
	close(seen);
}

/* Exits with 0 or the errno of the write. */
static pid_t write_in_child(struct fixture *f, const char *text)
{
	pid_t pid = fork();
	int r;

	if (pid == 0) {
		r = write_text(f, "thing/later", text);
		_exit(r < 0 ? -r : 0);
	}
	return pid;
}

/* Until n writes have reached the store. */
static void wait_for_writer(struct fixture *f, unsigned n)
{
	char text[16], want[16];
	int i, fd;
	ssize_t len;

	sprintf(want, "0  %u\n", n);
	for (i = 0; i < 5000; i++) {
		fd = open_at(f, "thing/stored", O_RDONLY);
		len = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[len < 0 ? 0 : len] = 0;
		if (!strcmp(text, want))
			return;
		poll(NULL, 0, 1);
	}
	fail_msg("no writer");
}

static int exit_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void a_late_store_holds_its_writer_and_nobody_else(void **state)
{
	struct fixture *f = *state;
	pid_t pid = write_in_child(f, "1");

	wait_for_writer(f, 1);
	assert_reads(f, "thing/count", "shown 00000001\n");
	assert_int_equal(write_text(f, "thing/later", "1"), -EBUSY);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	command(f, 'e');
	assert_int_equal(exit_of(pid), ENOSPC);
	assert_int_equal(write_text(f, "thing/later", "now"), 3);
}

static void nothing(int signal)
{
}

static void a_signal_ends_the_wait_and_not_the_change(void **state)
{
	struct fixture *f = *state;
	struct sigaction action = { .sa_handler = nothing };
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		sigaction(SIGUSR1, &action, NULL);
		_exit(-write_text(f, "thing/later", "1"));
	}
	wait_for_writer(f, 1);
	kill(pid, SIGUSR1);
	assert_int_equal(exit_of(pid), EINTR);
	pid = write_in_child(f, "1"); /* the slot was emptied */
	wait_for_writer(f, 2);
	command(f, 'd');
	assert_int_equal(exit_of(pid), 0);
	pid = write_in_child(f, "1");
	wait_for_writer(f, 3);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void closing_the_door_frees_who_waits(void **state)
{
	struct fixture *f = *state;
	pid_t pid = write_in_child(f, "1");

	wait_for_writer(f, 1);
	assert_int_equal(stop(f), 0);
	assert_int_equal(exit_of(pid), ENODEV);
	assert_int_equal(access(at(f, "thing"), F_OK), -1);
	assert_int_equal(start(f), 'o');
}

static void a_long_directory_is_listed_once_each_while_it_changes(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0, i;
	struct dirent *d;
	bool *seen = test_calloc(N_MANY, sizeof(*seen));
	DIR *dir = opendir(at(f, "many"));

	assert_non_null(dir);
	while ((d = readdir(dir))) {
		if (sscanf(d->d_name, "entry%u", &i) != 1)
			continue;
		assert_int_equal(d->d_type, DT_DIR);
		assert_true(i < N_MANY && !seen[i]);
		seen[i] = true;
		n++;
	}
	assert_int_equal(n, N_MANY);
	closedir(dir);
	test_free(seen);
}

static void a_dead_mount_is_replaced_and_a_live_one_is_not(void **state)
{
	struct fixture *f = *state, second = *f;

	assert_int_equal(start(&second), EBUSY);
	assert_int_equal(WEXITSTATUS(stop(&second)), 1);
	assert_reads(f, "thing/count", "shown 00000001\n");
	kill(f->pid, SIGKILL);
	stop(f);
	assert_int_equal(open_at(f, "thing/count", O_RDONLY), -ENOTCONN);
	assert_int_equal(start(f), 'o');
	assert_reads(f, "thing/count", "shown 00000001\n");
}

/* -errno or 0 of opening for writing as this user. */
static int open_as(struct fixture *f, uid_t uid, gid_t gid, gid_t group, const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (setgroups(group ? 1 : 0, &group) || setresgid(gid, gid, gid) ||
		    setresuid(uid, uid, uid))
			_exit(200);
		_exit(open_at(f, path, O_WRONLY) < 0 ? errno : 0);
	}
	return -exit_of(pid);
}

static void modes_and_owners_are_checked_and_stick(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	if (geteuid() != 0)
		skip();
	chmod(f->dir, 0755);
	assert_int_equal(open_as(f, 1000, 1000, 0, "thing/create"), -EACCES);
	assert_int_equal(chown(at(f, "thing/create"), 1000, -1), 0);
	assert_int_equal(chmod(f->path, 0220), 0);
	assert_int_equal(chown(f->path, -1, 50), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0220);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_gid, 50);
	assert_int_equal(open_as(f, 1000, 1000, 0, "thing/create"), 0);
	assert_int_equal(open_as(f, 1001, 50, 0, "thing/create"), 0);
	assert_int_equal(open_as(f, 1001, 1001, 50, "thing/create"), 0);
	assert_int_equal(open_as(f, 1001, 1001, 51, "thing/create"), -EACCES);
	assert_int_equal(open_as(f, 1000, 1000, 0, "thing/later"), -EACCES);
	assert_int_equal(chmod(at(f, "thing"), 0700), 0);
	assert_int_equal(open_as(f, 1000, 1000, 0, "thing/create"), -EACCES);
}

/* In a mount namespace in which /dev/fuse is something else. */
static int open_without_fuse(const char *dir)
{
	struct tree tree;
	struct loop loop = LOOP_INIT;
	struct fuse_door *door;
	int r;

	log_init("test-fuse", LOG_ERROR);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("/dev/null", "/dev/fuse", NULL, MS_BIND, NULL) < 0)
		return 77;
	if (tree_init(&tree) < 0 || loop_init(&loop) < 0 || !freopen("/dev/null", "w", stderr))
		return 2;
	r = fuse_door_open(&tree, &loop, dir, &door);
	loop_fini(&loop);
	tree_fini(&tree);
	return r == -EPERM && strstr(err_text(r), "install fusermount3") ? 0 : 1;
}

static void where_nothing_can_be_mounted_the_error_says_what_to_do(void **state)
{
	struct fixture *f = *state;
	char dir[] = MOUNT_POINT;
	pid_t pid;
	int r;

	assert_non_null(mkdtemp(dir));
	pid = fork();
	if (pid == 0) {
		close(f->fd);
		_exit(open_without_fuse(dir));
	}
	r = exit_of(pid);
	rmdir(dir);
	if (r == 77)
		skip();
	assert_int_equal(r, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(entries_look_as_in_sysfs),
		T(what_sysfs_refuses_is_refused),
		T(mdevctl_may_open_as_it_does),
		T(content_is_made_once_per_pass),
		T(one_write_is_one_store),
		T(a_node_that_went_is_ENODEV_to_who_has_it_open),
		T(a_late_store_holds_its_writer_and_nobody_else),
		T(a_signal_ends_the_wait_and_not_the_change),
		T(closing_the_door_frees_who_waits),
		T(a_long_directory_is_listed_once_each_while_it_changes),
		T(a_dead_mount_is_replaced_and_a_live_one_is_not),
		T(modes_and_owners_are_checked_and_stick),
		T(where_nothing_can_be_mounted_the_error_says_what_to_do),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
