/* SPDX-License-Identifier: MIT */
/* The process that tells of uevents; uevents.h has the idea. */
#include "cli/uevents.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "base/sock.h"
#include "base/str.h"
#include "cli/client.h"
#include "wire/udev.h"

#define MAX_ENV 16
#define AGAIN_NS 250000000

struct teller {
	int netlink_fd;
	int ready_fd; /* -1: the parent knows that we listen */
	uint64_t seqnum;
	uint8_t message[UDEV_MESSAGE_MAX];
};

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void tell(struct teller *t, const json_t *uevent)
{
	const json_t *list = json_object_get(uevent, "env"), *item;
	const char *env[MAX_ENV + 1] = { NULL };
	size_t i;
	int len;

	json_array_foreach(list, i, item) {
		if (i < MAX_ENV && json_is_string(item))
			env[i] = json_string_value(item);
	}
	len = udev_message(t->message, ++t->seqnum, text_of(uevent, "action"),
			   text_of(uevent, "devpath"), text_of(uevent, "subsystem"), env);
	if (len > 0)
		udev_send(t->netlink_fd, t->message, len);
}

static void ready(struct teller *t)
{
	if (t->ready_fd < 0)
		return;
	if (write(t->ready_fd, "", 1) == 1)
		close(t->ready_fd);
	t->ready_fd = -1;
}

/* Until umdevd hangs up. */
static enum cli_exit listen_once(struct teller *t)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	enum cli_exit status = client_open(&c);
	bool more = true;

	if (!status)
		status = client_send(&c, "Monitor", NULL, true);
	while (!status && more) {
		_cleanup_json_ json_t *reply = NULL;
		const json_t *uevents, *uevent;
		size_t i;

		status = client_receive(&c, &reply, &more);
		if (status)
			break;
		ready(t);
		uevents = json_object_get(json_object_get(reply, "event"), "uevents");
		json_array_foreach(uevents, i, uevent)
			tell(t, uevent);
	}
	return status;
}

static void wait_for_umdevd(void)
{
	const struct timespec again = { .tv_nsec = AGAIN_NS };
	_cleanup_free_ char *run = NULL, *path = NULL;
	int fd = -1;

	if (client_run_dir(&run))
		return;
	path = str_printf("%s/control", run);
	while (fd < 0) {
		nanosleep(&again, NULL);
		fd = path ? sock_connect(path) : -1;
	}
	close(fd);
}

static void run_child(int ready_fd, pid_t parent)
{
	struct teller t = { .netlink_fd = udev_open(), .ready_fd = ready_fd };
	enum cli_exit status;

	/* It may have gone before we asked to be told. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || t.netlink_fd < 0)
		_exit(CLI_FAILURE);
	signal(SIGINT, SIG_IGN); /* ^C is for the command */
	for (;;) {
		status = listen_once(&t);
		if (t.ready_fd >= 0 || status == CLI_REFUSED)
			_exit(status); /* it was never there: said */
		wait_for_umdevd();
	}
}

enum cli_exit uevents_start(void)
{
	pid_t parent = getpid(), child;
	int pipe_fds[2];
	char byte;
	ssize_t n;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return cli_fail_errno(-errno);
	child = fork();
	if (child == 0) {
		close(pipe_fds[0]);
		run_child(pipe_fds[1], parent);
	}
	close(pipe_fds[1]);
	n = child < 0 ? -1 : read(pipe_fds[0], &byte, 1);
	close(pipe_fds[0]);
	return n == 1 ? CLI_OK : cli_fail(CLI_FAILURE, "cannot tell of uevents");
}
