/* SPDX-License-Identifier: MIT */
/*
 * A descriptor is forgotten by the state before it is closed, and received before it is stored; a
 * death in between leaves it open in the table that keeper and workers share. Each successor closes
 * whatever nothing names. What a life opens for itself before that must be named as well: every
 * _each_fd of the worker's parts does so.
 */
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "worker/internal.h"

struct names {
	int *fd;
	size_t n, size;
	bool failed;
};

static void add(void *arg, int fd)
{
	struct names *names = arg;

	if (names->n == names->size && !names->failed) {
		size_t size = names->size ? 2 * names->size : 64;
		int *more = realloc(names->fd, size * sizeof(*more));

		if (more) {
			names->fd = more;
			names->size = size;
		}
		names->failed = !more;
	}
	if (!names->failed)
		names->fd[names->n++] = fd;
}

static int compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

static void close_gaps(const struct names *names)
{
	unsigned next = 0;

	for (size_t i = 0; i < names->n; i++) {
		unsigned fd = names->fd[i];

		if (fd > next)
			close_range(next, fd - 1, 0);
		if (fd >= next)
			next = fd + 1;
	}
	close_range(next, ~0U, 0);
}

void worker_sweep(struct worker *w)
{
	struct names names = { 0 };

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		add(&names, fd);
	add(&names, MW_FD_RENDEZVOUS);
	add(&names, MW_FD_STATE);
	add(&names, MW_FD_GRAVE);
	add(&names, w->loop.epoll_fd);
	if (w->io_fd >= 0)
		add(&names, w->io_fd);
	if (w->shared->io_fd >= 0)
		add(&names, w->shared->io_fd);
	add(&names, w->shared->wake_fd);
	if (w->shared->old_program_fd >= 0)
		add(&names, w->shared->old_program_fd);
	if (w->shared->fence.tomb >= 0)
		add(&names, w->shared->fence.tomb);
	if (w->shared->fence.ring >= 0)
		add(&names, w->shared->fence.ring);
	media_engine_each_fd(w->engine, add, &names);
	queue_group_each_fd(w->queues, add, &names);
	for (unsigned i = 0; i < MW_MAX_MEMBERS; i++)
		if (w->half->connect_fd[i] >= 0)
			add(&names, w->half->connect_fd[i]);
	conn_each_fd(&w->channel, &w->half->cursor, add, &names);
	members_each_fd(w, add, &names);
	qsort(names.fd, names.n, sizeof(*names.fd), compare);
	if (names.failed)
		log_error("out of memory: descriptors of the life before this one stay open");
	else
		close_gaps(&names);
	free(names.fd);
}
