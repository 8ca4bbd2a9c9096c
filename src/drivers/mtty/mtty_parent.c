/* SPDX-License-Identifier: MIT */
/*
 * mtty, parent half: a card of 24 serial ports, handed out as one- and two-port devices, and the
 * host ends of their ports. A host end exists while a worker serves the device: it is opened for
 * the first connection and its name is taken back after the last.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include <umdev/parent.h>
#include "mtty.h"

#define CARD_PORTS 24 /* of the kernel's sample driver */

enum backend { BACKEND_PTY, BACKEND_SOCKET, BACKEND_FILE, BACKEND_NONE };

static const char *const backends[] = { "pty", "socket", "file", "none", NULL };
static const char *const backends1[] = { "same", "pty", "socket", "file", "none", NULL };

static const struct umdev_param num_ports_1 = { .id = UMDEV_PARAM_NUM_PORTS };
static const struct umdev_param num_ports_2 = {
	.id = UMDEV_PARAM_NUM_PORTS,
	.def = "2",
	.min = 2,
	.max = 2,
	.writable = UMDEV_W_NEVER,
};
static const struct umdev_param backend_0 = {
	.id = UMDEV_PARAM_BACKEND,
	.description =
		"host end of the port: tty0, port0.sock or port0.log in the device directory",
	.def = "pty",
	.choices = backends,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param backend_1 = {
	.name = "backend1",
	.description = "host end of the second port; same: as backend says",
	.def = "same",
	.choices = backends1,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param *const params_1[] = { &num_ports_1, &backend_0, &backend_1, NULL };
static const struct umdev_param *const params_2[] = { &num_ports_2, &backend_0, &backend_1, NULL };

static enum backend backend_of(const struct umdev_mdev *mdev, unsigned port)
{
	const struct umdev_value *first = umdev_mdev_param(mdev, "backend");
	const struct umdev_value *second = port ? umdev_mdev_param(mdev, "backend1") : NULL;

	if (second && second->u64 > 0)
		return (enum backend)(second->u64 - 1); /* backends1 begins with "same" */
	return (enum backend)first->u64;
}

/* The errno of the call that failed, explained. */
static int failed(const char *what, unsigned port)
{
	int error = errno;

	umdev_explain("port %u: %s: %s", port, what, strerror(error));
	return -error;
}

/* A new pty in raw mode, so that bytes pass unchanged before anybody set it up; only for the user
 * who runs umdevd. Its name changes with each opening: the link tty<port> follows it. */
static int open_pty(const struct umdev_mdev *mdev, unsigned port, uint32_t *ret_flags)
{
	_cleanup_close_ int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios t;
	char path[64], link[16];

	if (fd < 0)
		return failed("cannot make a pty", port);
	if (grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, path, sizeof(path)) != 0 ||
	    tcgetattr(fd, &t) < 0)
		return failed("cannot set up the pty", port);
	cfmakeraw(&t);
	if (tcsetattr(fd, TCSANOW, &t) < 0 || chmod(path, 0600) < 0)
		return failed("cannot set up the pty", port);
	snprintf(link, sizeof(link), "tty%u", port);
	unlinkat(umdev_mdev_dirfd(mdev), link, 0);
	if (symlinkat(path, umdev_mdev_dirfd(mdev), link) < 0)
		return failed("cannot make the link to the pty", port);
	*ret_flags = UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_STREAM | UMDEV_RES_PTY;
	return take_fd(&fd);
}

/* Through /proc the address is short, however long the path of the directory is. */
static int open_socket(const struct umdev_mdev *mdev, unsigned port, uint32_t *ret_flags)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int dir_fd = umdev_mdev_dirfd(mdev);
	char name[16];

	if (fd < 0)
		return failed("cannot make a socket", port);
	snprintf(name, sizeof(name), "port%u.sock", port);
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
	unlinkat(dir_fd, name, 0);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return failed("cannot make its socket", port);
	if (fchmodat(dir_fd, name, 0600, 0) < 0 || listen(fd, 1) < 0)
		return failed("cannot listen on its socket", port);
	*ret_flags = UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_STREAM | UMDEV_RES_LISTEN;
	return take_fd(&fd);
}

static int open_file(const struct umdev_mdev *mdev, unsigned port, uint32_t *ret_flags)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "port%u.log", port);
	fd = openat(umdev_mdev_dirfd(mdev), name,
		    O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return failed("cannot open its log file", port);
	*ret_flags = UMDEV_RES_WRITE | UMDEV_RES_STREAM;
	return fd;
}

static int add_port(struct umdev_mdev *mdev, struct umdev_resources *list, unsigned port)
{
	uint32_t flags = 0;
	char name[16];
	int fd = -1;

	switch (backend_of(mdev, port)) {
	case BACKEND_PTY:
		fd = open_pty(mdev, port, &flags);
		break;
	case BACKEND_SOCKET:
		fd = open_socket(mdev, port, &flags);
		break;
	case BACKEND_FILE:
		fd = open_file(mdev, port, &flags);
		break;
	case BACKEND_NONE:
		return 0;
	}
	if (fd < 0)
		return fd;
	snprintf(name, sizeof(name), MTTY_STREAM_FORMAT, port);
	return umdev_resource_add(list, name, fd, flags, 0, 0);
}

static void mtty_resources_end(struct umdev_mdev *mdev)
{
	static const char *const names[] = { "tty0", "tty1", "port0.sock", "port1.sock" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
		unlinkat(umdev_mdev_dirfd(mdev), names[i], 0);
}

static int mtty_resources(struct umdev_mdev *mdev, struct umdev_resources *list)
{
	uint64_t n = umdev_mdev_param(mdev, "num_ports")->u64;
	int r;

	for (unsigned port = 0; port < n; port++) {
		r = add_port(mdev, list, port);
		if (r < 0) {
			mtty_resources_end(mdev);
			return r;
		}
	}
	return 0;
}

static int mtty_vendor_show(const struct umdev_mdev *mdev, const char *name, char *buf, size_t size)
{
	return snprintf(buf, size, "This is MDEV %s\n", umdev_mdev_uuid(mdev));
}

static const char *const vendor_attrs[] = { "sample_mdev_dev", NULL };

static const struct umdev_pool pools[] = {
	{ .name = "ports", .capacity = CARD_PORTS },
	{ .name = NULL },
};

static const struct umdev_type types[] = {
	{
		.name = "1",
		.pretty = "Single port serial",
		.device_api = "vfio-pci",
		.class_name = "serial",
		.params = params_1,
		.pool = { { .cost = 1, .scale = 1 } },
		.max_aggregation = MTTY_MAX_PORTS,
		.label = true,
	},
	{
		.name = "2",
		.pretty = "Dual port serial",
		.device_api = "vfio-pci",
		.class_name = "serial",
		.params = params_2,
		.pool = { { .cost = 2 } },
		.label = true,
	},
	{ .name = NULL },
};

const struct umdev_parent_driver mtty_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "mtty",
	.class_name = "mtty",
	.summary = "serial card with 24 ports, each a pty, a socket or a file of the host",
	.types = types,
	.pools = pools,
	.resources = mtty_resources,
	.resources_end = mtty_resources_end,
	.vendor_attrs = vendor_attrs,
	.vendor_show = mtty_vendor_show,
};
