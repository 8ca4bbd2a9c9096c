/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"
#include "base/sock.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

struct dir {
	char path[64], sock[512];
};

static int setup(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	strcpy(d->path, "/tmp/umdev-sock-XXXXXX");
	assert_non_null(mkdtemp(d->path));
	snprintf(d->sock, sizeof(d->sock), "%s/s", d->path);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct dir *d = *state;

	unlink(d->sock);
	rmdir(d->path);
	free(d);
	return 0;
}

static void a_new_listener_replaces_an_old_socket(void **state)
{
	struct dir *d = *state;
	int old = sock_listen(d->sock, 0600), new = sock_listen(d->sock, 0640), fd;
	struct stat st;

	assert_true(old >= 0 && new >= 0);
	assert_int_equal(stat(d->sock, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	fd = sock_connect(d->sock);
	assert_true(fd >= 0);
	assert_int_equal(sock_accept(old), -EAGAIN);
	close(old);
	old = sock_accept(new);
	assert_true(old >= 0);
	assert_true(fcntl(old, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(old, F_GETFD) & FD_CLOEXEC);
	assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(old);
	close(fd);
	close(new);
}

/* As an administrator may have changed it, for a client that never finds the name missing. */
static void a_listener_that_comes_again_keeps_mode_and_name(void **state)
{
	struct dir *d = *state;
	int old = sock_listen(d->sock, 0600), fd, again;
	char tmp[sizeof(d->sock) + 8];
	struct stat st;

	assert_true(old >= 0);
	assert_int_equal(chmod(d->sock, 0666), 0);
	close(old);
	assert_int_equal(sock_connect(d->sock), -ECONNREFUSED);
	again = sock_relisten(d->sock, 0600);
	assert_true(again >= 0);
	assert_int_equal(stat(d->sock, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	snprintf(tmp, sizeof(tmp), "%s.new", d->sock);
	assert_int_equal(access(tmp, F_OK), -1);
	fd = sock_connect(d->sock);
	assert_true(fd >= 0);
	close(fd);
	close(again);
	unlink(d->sock);
	again = sock_relisten(d->sock, 0600);
	assert_int_equal(stat(d->sock, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	close(again);
}

static void a_process_is_met_again_unless_its_pid_is_anothers(void **state)
{
	struct sock_peer peer;
	uint64_t start = process_start(getpid());

	sock_peer_again(getpid(), 5, start, &peer);
	assert_true(peer.pidfd >= 0);
	assert_int_equal(peer.uid, 5);
	assert_false(sock_peer_is_dead(&peer));
	close(peer.pidfd);
	sock_peer_again(getpid(), 5, start + 1, &peer);
	assert_int_equal(peer.pidfd, -1);
	assert_true(sock_peer_is_dead(&peer));
	sock_peer_again(0, 5, 0, &peer);
	assert_int_equal(peer.pidfd, -1);
	assert_false(sock_peer_is_dead(&peer)); /* of a foreign pid namespace: nobody knows */
}

static void a_file_is_not_replaced(void **state)
{
	struct dir *d = *state;
	int fd = open(d->sock, O_CREAT | O_WRONLY, 0600);
	struct stat st;

	assert_int_equal(sock_listen(d->sock, 0600), -EADDRINUSE);
	assert_int_equal(stat(d->sock, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	close(fd);
}

static void a_path_may_be_longer_than_sun_path(void **state)
{
	struct dir *d = *state;
	char dir[200], path[256];
	int listener, fd;

	snprintf(dir, sizeof(dir), "%s/%0*d", d->path, 120, 0);
	assert_int_equal(mkdir(dir, 0700), 0);
	snprintf(path, sizeof(path), "%s/socket", dir);
	listener = sock_listen(path, 0600);
	assert_true(listener >= 0);
	fd = sock_connect(path);
	assert_true(fd >= 0);
	close(fd);
	close(listener);
	unlink(path);
	rmdir(dir);
}

static void a_path_without_a_socket_is_an_error(void **state)
{
	struct dir *d = *state;
	char path[256];

	assert_int_equal(sock_connect(d->sock), -ENOENT);
	snprintf(path, sizeof(path), "%s/none/s", d->path);
	assert_int_equal(sock_connect(path), -ENOENT);
	assert_int_equal(sock_listen(path, 0600), -ENOENT);
	assert_int_equal(sock_listen("", 0600), -EINVAL);
	assert_int_equal(sock_listen("/", 0600), -EINVAL);
	snprintf(path, sizeof(path), "%s/%0*d", d->path, 120, 0);
	assert_int_equal(sock_listen(path, 0600), -ENAMETOOLONG);
	close(sock_listen(d->sock, 0600));
	assert_int_equal(sock_connect(d->sock), -ECONNREFUSED);
}

/* A process that makes two connections and lives until it is killed. */
static pid_t spawn_client(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (sock_connect(path) < 0 || sock_connect(path) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	return pid;
}

static int accept_peer(int listener, struct sock_peer *ret)
{
	int fd, r;

	while ((fd = sock_accept(listener)) == -EAGAIN)
		usleep(1000);
	assert_true(fd >= 0);
	r = sock_peer(fd, ret);
	close(fd);
	return r;
}

static void kill_and_reap(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void drop_pidfd(struct sock_peer *peer)
{
	close(peer->pidfd);
	peer->pidfd = -1;
}

/* With pidfds, then by pid and start time alone. */
static void a_process_is_known_again_and_missed_when_dead(void **state)
{
	struct dir *d = *state;
	int listener = sock_listen(d->sock, 0600);
	struct sock_peer a1, a2, b;
	pid_t one, two;

	fcntl(listener, F_SETFL, 0);
	one = spawn_client(d->sock);
	assert_int_equal(accept_peer(listener, &a1), 0);
	assert_int_equal(accept_peer(listener, &a2), 0);
	two = spawn_client(d->sock);
	assert_int_equal(accept_peer(listener, &b), 0);
	assert_int_equal(a1.pid, one);
	assert_int_equal(a1.uid, getuid());
	assert_int_equal(a1.gid, getgid());
	assert_true(a1.pidfd >= 0 && a1.start > 0);
	assert_true(sock_peer_is_same(&a1, &a2));
	assert_false(sock_peer_is_same(&a1, &b));
	drop_pidfd(&a2);
	drop_pidfd(&b);
	assert_true(sock_peer_is_same(&a1, &a2));
	assert_false(sock_peer_is_same(&a1, &b));
	assert_false(sock_peer_is_dead(&a1) || sock_peer_is_dead(&a2) || sock_peer_is_dead(&b));
	kill_and_reap(one);
	assert_true(sock_peer_is_dead(&a1) && sock_peer_is_dead(&a2));
	assert_false(sock_peer_is_dead(&b));
	kill_and_reap(two);
	assert_true(sock_peer_is_dead(&b));
	close(a1.pidfd);
	close(listener);
}

static void a_pid_that_was_used_again_is_another_process(void **state)
{
	struct sock_peer old = { .pidfd = -1, .pid = getpid(), .start = 1 }, now = old;

	now.start = 2;
	assert_false(sock_peer_is_same(&old, &now));
	assert_true(sock_peer_is_dead(&old));
	old.start = now.start = 0;
	assert_false(sock_peer_is_same(&old, &now));
}

static void a_foreign_process_is_never_the_same(void **state)
{
	struct sock_peer a = { .pidfd = -1 }, b = { .pidfd = -1 };

	assert_false(sock_peer_is_same(&a, &b));
	assert_false(sock_peer_is_dead(&a));
}

/* Makes getsockopt(SO_PEERPIDFD) answer ENOPROTOOPT, as Linux before 6.5 does. */
static int hide_peerpidfd(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsockopt, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_PEERPIDFD, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0 ? -errno : 0;
}

/* Returns the number of the check that failed, 0: none. */
static int check_on_old_kernel(const char *path)
{
	struct sock_peer a, b;
	int listener, pidfd;
	socklen_t len = sizeof(pidfd);
	pid_t pid;

	if (hide_peerpidfd() < 0)
		return 1;
	listener = sock_listen(path, 0600);
	fcntl(listener, F_SETFL, 0);
	if (getsockopt(listener, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
		return 2;
	pid = spawn_client(path);
	if (accept_peer(listener, &a) < 0 || accept_peer(listener, &b) < 0)
		return 3;
	if (a.pid != pid || a.pidfd < 0 || !a.start)
		return 4;
	if (!sock_peer_is_same(&a, &b) || sock_peer_is_dead(&a))
		return 5;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return sock_peer_is_dead(&a) ? 0 : 6;
}

static void without_so_peerpidfd_the_pid_is_opened(void **state)
{
	struct dir *d = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(check_on_old_kernel(d->sock));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void write_all_outlasts_a_full_buffer(void **state)
{
	static char data[4 << 20];
	char buf[65536];
	size_t total = 0;
	int pair[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(sock_pair(pair), 0);
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		_exit(sock_write_all(pair[1], data, sizeof(data)) == 0 ? 0 : 1);
	}
	close(pair[1]);
	fd_set_nonblock(pair[0], false);
	while ((n = read(pair[0], buf, sizeof(buf))) > 0)
		total += (size_t)n;
	assert_int_equal(total, sizeof(data));
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	close(pair[0]);
}

/* No SIGPIPE: the test would not survive it. Files are served, too. */
static void write_all_reports_a_closed_peer(void **state)
{
	int pair[2], fd = memfd_create("x", MFD_CLOEXEC);

	assert_int_equal(sock_pair(pair), 0);
	close(pair[0]);
	assert_int_equal(sock_write_all(pair[1], "x", 1), -EPIPE);
	close(pair[1]);
	assert_int_equal(sock_write_all(fd, "abc", 3), 0);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 3);
	close(fd);
}

static void descriptor_flags_are_set_and_cleared(void **state)
{
	int fd = eventfd(0, 0);

	assert_int_equal(fd_set_cloexec(fd, true), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fd_set_cloexec(fd, false), 0);
	assert_false(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fd_set_nonblock(fd, true), 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
	assert_int_equal(fd_set_nonblock(fd, true), -EBADF);
}

static void an_eventfd_is_told_from_other_descriptors(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), pair[2];

	assert_int_equal(pipe(pair), 0);
	assert_true(fd_is_eventfd(fd));
	assert_false(fd_is_eventfd(pair[0]));
	close(fd);
	close(pair[0]);
	close(pair[1]);
	assert_false(fd_is_eventfd(fd));
}

/* Logs one line into a pipe that stands for standard error. */
static void log_into(char *ret, size_t size, enum log_level level, const char *text)
{
	int pair[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(pair), 0);
	dup2(pair[1], STDERR_FILENO);
	log_line(level, "%s", text);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pair[1]);
	n = read(pair[0], ret, size - 1);
	assert_true(n >= 0);
	ret[n] = '\0';
	close(pair[0]);
}

static void a_log_line_is_one_escaped_line(void **state)
{
	char got[2048], *text = malloc(5001);

	unsetenv("JOURNAL_STREAM");
	log_init("umdevd", LOG_INFO);
	log_into(got, sizeof(got), LOG_WARNING, "guest says\n\x1b[31mred \xc3\xbc");
	assert_string_equal(got, "umdevd: guest says\\x0a\\x1b[31mred \xc3\xbc\n");
	log_into(got, sizeof(got), LOG_DEBUG, "not at this level");
	assert_string_equal(got, "");
	memset(text, '\n', 5000);
	text[5000] = '\0';
	log_into(got, sizeof(got), LOG_ERROR, text);
	assert_true(strlen(got) <= 1023);
	assert_ptr_equal(strchr(got, '\n'), got + strlen(got) - 1);
	free(text);
}

static void the_journal_gets_levels(void **state)
{
	char got[64];

	setenv("JOURNAL_STREAM", "1:2", 1);
	log_init("umdevd", LOG_DEBUG);
	log_into(got, sizeof(got), LOG_ERROR, "e");
	assert_string_equal(got, "<3>umdevd: e\n");
	log_into(got, sizeof(got), LOG_DEBUG, "d");
	assert_string_equal(got, "<7>umdevd: d\n");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_new_listener_replaces_an_old_socket),
		T(a_listener_that_comes_again_keeps_mode_and_name),
		cmocka_unit_test(a_process_is_met_again_unless_its_pid_is_anothers),
		T(a_file_is_not_replaced),
		T(a_path_may_be_longer_than_sun_path),
		T(a_path_without_a_socket_is_an_error),
		T(a_process_is_known_again_and_missed_when_dead),
		cmocka_unit_test(a_pid_that_was_used_again_is_another_process),
		cmocka_unit_test(a_foreign_process_is_never_the_same),
		T(without_so_peerpidfd_the_pid_is_opened),
		cmocka_unit_test(write_all_outlasts_a_full_buffer),
		cmocka_unit_test(write_all_reports_a_closed_peer),
		cmocka_unit_test(descriptor_flags_are_set_and_cleared),
		cmocka_unit_test(an_eventfd_is_told_from_other_descriptors),
		cmocka_unit_test(a_log_line_is_one_escaped_line),
		cmocka_unit_test(the_journal_gets_levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
