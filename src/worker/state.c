/* SPDX-License-Identifier: MIT */
/* The state memory of a group: made once by the keeper, checked at the start of every life. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vfio/server.h"
#include "worker/worker.h"

size_t worker_shared_size(void)
{
	size_t page = sysconf(_SC_PAGESIZE);

	return (sizeof(struct worker_shared) + page - 1) / page * page;
}

int worker_state_create(int state_fd, int channel_fd, struct worker_shared **ret)
{
	struct worker_shared *shared;
	struct stat st;
	struct conn unused;

	if (fstat(state_fd, &st))
		return -errno;
	if (st.st_size)
		return -EEXIST;
	if (ftruncate(state_fd, worker_shared_size()))
		return -errno;
	shared = mmap(NULL, worker_shared_size(), PROT_READ | PROT_WRITE, MAP_SHARED, state_fd, 0);
	if (shared == MAP_FAILED)
		return -errno;
	shared->magic = WORKER_MAGIC;
	shared->layout = WORKER_LAYOUT;
	shared->page = sysconf(_SC_PAGESIZE);
	shared->old_program_fd = -1;
	shared->fence = (struct media_fence)MEDIA_FENCE_INIT;
	shared->half[0].cursor = (struct conn_cursor)CONN_CURSOR_INIT;
	memset(shared->half[0].connect_fd, -1, sizeof(shared->half[0].connect_fd));
	conn_attach_fresh(&unused, &shared->channel, &shared->half[0].cursor, channel_fd, mw_len);
	*ret = shared;
	return 0;
}

int worker_state_open(int state_fd, struct worker_shared **ret)
{
	struct worker_shared *shared;
	struct stat st;

	if (fstat(state_fd, &st))
		return -errno;
	if ((uint64_t)st.st_size < worker_shared_size())
		return -EUCLEAN;
	shared = mmap(NULL, worker_shared_size(), PROT_READ | PROT_WRITE, MAP_SHARED, state_fd, 0);
	if (shared == MAP_FAILED)
		return -errno;
	if (worker_state_check(shared)) {
		munmap(shared, worker_shared_size());
		return -EUCLEAN;
	}
	*ret = shared;
	return 0;
}

int worker_state_check(const struct worker_shared *shared)
{
	const struct worker_half *half = &shared->half[shared->ab.cur & 1];

	if (shared->magic != WORKER_MAGIC || shared->layout != WORKER_LAYOUT ||
	    shared->page != (uint32_t)sysconf(_SC_PAGESIZE) || shared->ab.cur > 1 ||
	    shared->queue_threads > QUEUE_THREADS_MAX || shared->fence.tomb < -1 ||
	    shared->fence.ring < -1)
		return -EUCLEAN;
	if (half->config_len > MW_MAX || (half->config_len && half->config_len < MW_HEADER))
		return -EUCLEAN;
	if (half->ready > 1 || half->greet > 1 || half->stopping > 1 || half->held > 1 ||
	    (half->ready && !half->config_len))
		return -EUCLEAN;
	_Static_assert(MW_MAX_MEMBERS <= 32, "a bit for each");
	for (unsigned i = 0; i < MW_MAX_MEMBERS; i++) {
		bool connected = half->connected >> i & 1;

		if (half->connect_fd[i] < -1 || half->closed[i] > 1 + VFIO_CLOSE_FAULT ||
		    (!connected && (half->connect_fd[i] >= 0 || half->closed[i])))
			return -EUCLEAN;
	}
	return 0;
}

static bool is_text(const char *text, size_t size)
{
	return memchr(text, 0, size) != NULL;
}

int worker_member_check(const struct worker_member_shared *m)
{
	for (unsigned i = 0; i < MW_MAX_RESOURCES; i++) {
		const struct worker_resource *r = &m->resources[i];

		if (r->fd < -1 || !is_text(r->name, sizeof(r->name)) || r->medium < -1 ||
		    r->medium >= UMDEV_MAX_MEDIA || r->leaves > 1 || (r->leaves && r->medium < 0))
			return -EUCLEAN;
	}
	for (unsigned i = 0; i < MW_MAX_PARAMS; i++) {
		const struct worker_param *p = &m->params[i];

		if (p->which > 2 ||
		    (p->which && !is_text(p->value[p->which - 1].text, sizeof(p->value[0].text))))
			return -EUCLEAN;
	}
	return 0;
}
