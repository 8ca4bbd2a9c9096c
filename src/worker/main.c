/* SPDX-License-Identifier: MIT */
/* umdev-worker: the keeper's start. Descriptors and configuration come from umdevd. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "dma/dma.h"
#include "vfio/server.h"
#include "worker/sandbox.h"
#include "worker/worker.h"

static bool is_stream_socket(int fd)
{
	int type;
	socklen_t len = sizeof(type);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM;
}

static bool is_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0;
}

static bool is_fifo(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISFIFO(st.st_mode);
}

static bool has_descriptors(void)
{
	return is_stream_socket(MW_FD_CHANNEL) && is_stream_socket(MW_FD_RENDEZVOUS) &&
	       is_memory(MW_FD_STATE) && is_fifo(MW_FD_GRAVE);
}

/* Every member may hold as much as its client may make it hold, and none can take from another;
 * what a life opens for itself is little. */
#define MEMBER_FDS \
	(DMA_MAX_FILES + VFIO_IRQ_FDS + 2 * CONN_FDS + MW_MAX_RESOURCES + 2 * UMDEV_MAX_STREAMS)
#define MAX_FDS (64 + MW_MAX_MEMBERS * MEMBER_FDS)

/* Where the hard limit is lower, members of the group compete: they have one owner. */
static void limit_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max < MAX_FDS ? limit.rlim_max : MAX_FDS;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* As umdevd starts us: the keeper of a new group. */
static int start(const char *program)
{
	struct worker_shared *shared;
	int error;

	close_range(MW_FD_END, ~0U, 0);
	error = worker_state_create(MW_FD_STATE, MW_FD_CHANNEL, &shared);
	if (error) {
		log_error("state memory: %s", strerror(-error));
		return 1;
	}
	return keeper_run(shared, program, -1, false);
}

/* As a keeper starts us (restart.c). -1: it does not. */
static int take_over(int argc, char **argv)
{
	if (argc != 3 || !is_memory(MW_FD_STATE))
		return -1;
	if (!strcmp(argv[1], WORKER_CONTINUE))
		return restart_continue(argv[0], atoi(argv[2]));
	if (!strcmp(argv[1], WORKER_GO_BACK))
		return restart_gone_back(argv[0], atoi(argv[2]));
	return -1;
}

int main(int argc, char **argv)
{
	int status;

	log_init("umdev-worker", LOG_INFO);
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		printf("umdev-worker %s\n", UMDEV_VERSION);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--sandbox"))
		_exit(sandbox_report() ? 1 : 0); /* nothing more can be done in there */
	worker_load_drivers();
	if (argc == 2 && !strcmp(argv[1], "--state-versions"))
		return versions_print(worker_drivers) ? 1 : 0;
	limit_descriptors();
	prctl(PR_SET_NAME, "umdev-keeper"); /* who is who, for a person with ps and kill */
	/* The kernel sends it when the manager ends while one of us is stopped. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN); /* a stream's reader that went away is an error, not an end */
	status = argc == 1 && has_descriptors() ? start(argv[0]) : take_over(argc, argv);
	if (status < 0) {
		fprintf(stderr, "umdev-worker: umdevd starts this program; "
				"create and connect a device with umdev(1) instead\n");
		return 2;
	}
	return status;
}
