// SPDX-License-Identifier: MIT
/* The keeper: see screen.h. Started by umdevd, told everything by its arguments and descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"
#include "screen/screen.h"

/* The lines that came are one password; it is kept padded, as DES wants it. */
static int read_password(struct screen_options *o)
{
	char text[256];
	ssize_t n = read(SCREEN_FD_PASSWORD, text, sizeof(text));

	if (n < 0)
		return -errno;
	memcpy(o->password, text,
	       (size_t)n < sizeof(o->password) ? (size_t)n : sizeof(o->password));
	explicit_bzero(text, sizeof(text));
	close(SCREEN_FD_PASSWORD);
	return n ? 0 : -EINVAL;
}

static int parse(int argc, char **argv, struct screen_options *o)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--tcp") == 0)
			o->tcp = true;
		else if (argv[i][0] != '-' && !o->name)
			o->name = argv[i];
		else
			return -EINVAL;
	}
	if (!o->name)
		return -EINVAL;
	return o->tcp ? read_password(o) : 0;
}

static void serve(int listen_fd, const struct screen_options *o, unsigned *n_viewers)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	pid_t pid;

	if (fd < 0)
		return;
	if (*n_viewers == SCREEN_VIEWERS) {
		log_warning("%s: a viewer was refused: %u look already", o->name, SCREEN_VIEWERS);
		close(fd);
		return;
	}
	pid = fork();
	if (pid == 0) {
		close(SCREEN_FD_LISTEN);
		if (o->tcp)
			close(SCREEN_FD_TCP);
		_exit(viewer_run(fd, SCREEN_FD_ALIVE, o,
				 listen_fd == SCREEN_FD_TCP ? o->password : NULL));
	}
	*n_viewers += pid > 0;
	close(fd);
}

static void reap(unsigned *n_viewers)
{
	while (*n_viewers && waitpid(-1, NULL, WNOHANG) > 0)
		--*n_viewers;
}

static void wake_up(int signal)
{
}

/* Until nobody holds the write end of `alive`. */
static void run(const struct screen_options *o)
{
	struct pollfd fds[] = {
		{ .fd = SCREEN_FD_ALIVE },
		{ .fd = SCREEN_FD_LISTEN, .events = POLLIN },
		{ .fd = o->tcp ? SCREEN_FD_TCP : -1, .events = POLLIN },
	};
	unsigned n_viewers = 0;

	for (;;) {
		if (poll(fds, 3, -1) < 0 && errno != EINTR)
			return;
		reap(&n_viewers);
		if (fds[0].revents)
			return;
		for (unsigned i = 1; i < 3; i++) {
			if (fds[i].revents & POLLIN)
				serve(fds[i].fd, o, &n_viewers);
			fds[i].revents = 0;
		}
	}
}

int main(int argc, char **argv)
{
	const struct sigaction child = { .sa_handler = wake_up, .sa_flags = SA_NOCLDSTOP };
	struct screen_options options = { 0 };
	int r = parse(argc, argv, &options);

	log_init("umdev-screen", LOG_INFO);
	if (r < 0) {
		fprintf(stderr, "umdev-screen is run by umdevd; see umdev-screen in umdevd(8)\n");
		return 2;
	}
	sigaction(SIGCHLD, &child, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sandbox_keeper();
	if (r < 0) {
		log_error("%s: no sandbox: %s", options.name, strerror(-r));
		return 1;
	}
	run(&options);
	_exit(0); /* exit handlers would need what was given up */
}
