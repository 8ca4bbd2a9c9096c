/* SPDX-License-Identifier: MIT */
/*
 * What keeper and worker left under way when both are gone. The kernel goes on with what they asked
 * of a disk, and would overwrite what the next owner of the same volume writes.
 *
 * $UMDEV_RUN/worker/<group>.grave is a FIFO. Its write end is inherited by keeper and worker, and
 * registered in every io_uring before that gets a request: it hangs up when both are gone and each
 * request has ended. A manager after us opens it anew, by its name. Until then the devices are as
 * they were: in use, so that they cannot be removed and nothing else gets their resources.
 *
 * A worker that its client took over could have passed the write end on. Then this waits for that
 * client, too, and who waits is its own device.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "core/core.h"
#include "manager/manager.h"
#include "manager/worker_proc.h"

#define GRAVE_NS 3000000000ull /* then a person is told, once; and it is looked at anew */
#define PIPE_READS 32          /* more than a FIFO holds, if somebody wrote into it */

static char *grave_path(const struct worker *w)
{
	return config_run_path(&w->manager->config, "worker/%u" WORKER_GRAVE, w->group);
}

static void open_grave(struct worker *w, const char *path)
{
	w->grave_fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
}

int worker_grave_make(struct worker *w)
{
	_cleanup_free_ char *path = grave_path(w);
	int fd = -1;

	if (!path)
		return -ENOMEM;
	unlink(path);
	if (mkfifo(path, 0600) == 0) {
		open_grave(w, path);
		fd = w->grave_fd < 0 ? -1 : open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	}
	return fd < 0 ? err_set(-errno, "cannot make %s: %s", path, strerror(errno)) : fd;
}

void worker_grave_find(struct worker *w)
{
	_cleanup_free_ char *path = grave_path(w);

	if (path)
		open_grave(w, path);
}

void worker_grave_remove(struct worker *w)
{
	_cleanup_free_ char *path = grave_path(w);

	loop_remove(&w->grave_source);
	loop_timer_cancel(&w->grave_deadline);
	if (w->grave_fd < 0)
		return;
	close(take_fd(&w->grave_fd));
	if (path)
		unlink(path);
}

bool worker_grave_is_quiet(const struct worker *w)
{
	char buf[4096];
	ssize_t n = 1;

	if (w->grave_fd < 0)
		return true;
	/* Nobody has the other end: 0. poll(2) would not tell us if nobody had it when we opened.
	 */
	for (int i = 0; i < PIPE_READS && n > 0; i++)
		n = read(w->grave_fd, buf, sizeof(buf));
	return n == 0;
}

static void hung_up(struct loop_fd *source, uint32_t revents)
{
	struct worker *w = container_of(source, struct worker, grave_source);

	if (worker_grave_is_quiet(w))
		worker_release(w);
}

static void show(struct worker *w)
{
	w->stuck = true;
	log_error("group %u: " WORKER_STUCK_TEXT "; waiting for them", w->group);
	for (unsigned i = 0; i < w->n_members; i++)
		if (w->members[i].mdev)
			core_faulty(w->members[i].mdev, WORKER_STUCK_TEXT);
}

static void look_again(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, grave_deadline);

	if (worker_grave_is_quiet(w)) {
		worker_release(w);
		return;
	}
	if (!w->stuck)
		show(w);
	loop_timer_arm(&w->manager->loop, timer, GRAVE_NS, look_again);
}

void worker_grave_wait(struct worker *w)
{
	int r = loop_add(&w->manager->loop, &w->grave_source, w->grave_fd, 0, hung_up);

	if (r < 0)
		log_warning("group %u: cannot watch what its worker left: %s", w->group,
			    strerror(-r));
	loop_timer_arm(&w->manager->loop, &w->grave_deadline, GRAVE_NS, look_again);
}
