/* SPDX-License-Identifier: MIT */
#include "manager_rig.h"
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/log.h"
#include "manager/control.h"
#include "manager/drivers.h"

static struct manager_rig *the_rig;
static struct drivers drivers;

static void remove_rig(void)
{
	manager_fini(&the_rig->m);
	drivers_unload(&drivers);
	rmdir(the_rig->m.config.run_dir);
}

static void on_stop(struct loop_fd *source, uint32_t revents)
{
	uint64_t n;

	if (read(source->fd, &n, sizeof(n)) == sizeof(n))
		loop_stop(source->loop, 0);
}

void manager_rig_settle(struct manager_rig *rig)
{
	struct pollfd p = { .fd = rig->m.loop.epoll_fd, .events = POLLIN };
	uint64_t one = 1;

	do {
		if (write(rig->stop.fd, &one, sizeof(one)) != sizeof(one))
			abort();
		loop_run(&rig->m.loop);
	} while (poll(&p, 1, 0) == 1);
}

static void make(void)
{
	static char dir[80];
	static struct manager_rig rig;
	const char *tmp = getenv("TMPDIR");

	log_init("fuzz", LOG_ERROR);
	rig.m = (struct manager)MANAGER_INIT;
	setenv("UMDEV_DRIVERS", "", true); /* those that are built in, whatever is installed */
	rig.m.options = (struct manager_options){
		.drivers = &drivers,
		.worker_path = "/nonexistent",
		.one = true,
	};
	if (snprintf(dir, sizeof(dir), "%s/umdev-fuzz.XXXXXX", tmp ?: "/tmp") >= (int)sizeof(dir))
		abort(); /* sockets need room behind it */
	rig.m.config.run_dir = mkdtemp(dir);
	if (!rig.m.config.run_dir || drivers_load(&drivers) < 0 || manager_init(&rig.m) < 0)
		abort();
	rig.stop = (struct loop_fd)LOOP_FD_INIT;
	if (loop_add(&rig.m.loop, &rig.stop, eventfd(0, EFD_CLOEXEC), EPOLLIN, on_stop) < 0 ||
	    control_open(&rig.m, &rig.m.control) < 0)
		abort();
	the_rig = &rig;
	atexit(remove_rig);
}

static int lowest_free_fd(void)
{
	int fd = dup(STDIN_FILENO);

	close(fd);
	return fd;
}

struct manager_rig *manager_rig_begin(void)
{
	if (!the_rig)
		make();
	the_rig->lowest_fd = lowest_free_fd();
	return the_rig;
}

void manager_rig_end(struct manager_rig *rig)
{
	struct core *core = &rig->m.core;

	manager_rig_settle(rig);
	while (!list_is_empty(&core->parents))
		if (parent_remove(list_first(&core->parents, struct umdev_parent, node)) < 0)
			abort();
	manager_rig_settle(rig);
	assert(core->mdevs.n == 0 && core->p2p_groups.n == 0 && list_is_empty(&core->groups));
	assert(list_is_empty(&rig->m.workers));
	assert(lowest_free_fd() == rig->lowest_fd);
}
