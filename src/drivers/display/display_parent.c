/* SPDX-License-Identifier: MIT */
/*
 * display, parent half: memory of the host, handed out as the video memory of displays. It is taken
 * when a worker begins to serve one, and given back, with what was on the screen, when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include <umdev/parent.h>
#include <umdev/screen.h>
#include "display.h"
#include "display_model.h"

#define UNIT (16u << 20)  /* bytes of video memory: what the pool counts */
#define UNITS 16          /* of a parent, unless told otherwise */
#define SOCKET "vnc.sock" /* in the device's directory */

static const struct umdev_param xres = {
	.id = UMDEV_PARAM_XRES,
	.description = "width that the monitor prefers",
	.def = "1024",
	.min = 640,
	.max = DISPLAY_MAX,
	.step = 8,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param yres = {
	.id = UMDEV_PARAM_YRES,
	.description = "height that the monitor prefers",
	.def = "768",
	.min = 480,
	.max = DISPLAY_MAX,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param vnc_port = {
	.name = "vnc_port",
	.description = "port of the loopback interface for viewers with the password; 0: none",
	.type = UMDEV_U32,
	.max = 65535,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param vnc_password = {
	.name = "vnc_password",
	.description = "what viewers at vnc_port must know; VNC looks at 8 characters",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_IDLE,
	.secret = true,
};
static const struct umdev_param *const params[] = { &xres, &yres, &vnc_port, &vnc_password, NULL };

static const struct umdev_param memory = {
	.name = "memory",
	.description = "video memory of all displays together",
	.unit = "bytes",
	.type = UMDEV_SIZE,
	.def = "256M",
	.min = UNIT,
	.max = 1ULL << 40,
	.step = UNIT,
	.writable = UMDEV_W_CREATE,
};
static const struct umdev_param *const parent_params[] = { &memory, NULL };

static uint64_t vram_of(const struct umdev_mdev *mdev)
{
	const struct umdev_value *aggregation = umdev_mdev_param(mdev, "aggregation");

	return umdev_mdev_type(mdev)->pool[0].cost * UNIT * (aggregation ? aggregation->u64 : 1);
}

/* Of one device. */
struct screen {
	struct umdev_job job; /* umdev-screen, while a worker serves it */
};

/* A BAR is a power of two, and the screen must fit into it. */
static int judge(uint64_t vram, uint64_t width, uint64_t height)
{
	if (vram & (vram - 1) || vram > DISPLAY_VRAM_MAX) {
		umdev_explain("it would have %llu MiB of video memory: the total must be a power "
			      "of two and at most %u MiB",
			      (unsigned long long)vram >> 20, DISPLAY_VRAM_MAX >> 20);
		return -EINVAL;
	}
	if (width * height * 4 > vram) {
		umdev_explain("%llux%llu needs %llu MiB of video memory and there are %llu: take "
			      "a larger type or more aggregation",
			      (unsigned long long)width, (unsigned long long)height,
			      (unsigned long long)((width * height * 4 + (1 << 20) - 1) >> 20),
			      (unsigned long long)vram >> 20);
		return -EINVAL;
	}
	return 0;
}

/* Nobody looks from another account without being asked. */
static int judge_port(uint64_t port, const char *password)
{
	if (!port || *password)
		return 0;
	umdev_explain("vnc_port needs a vnc_password: set that first");
	return -EINVAL;
}

static void screen_ended(struct umdev_job *job, int error)
{
	/* Its log said why. The next worker gets another one. */
}

static int display_mdev_create(struct umdev_mdev *mdev)
{
	int r = judge(vram_of(mdev), umdev_mdev_param(mdev, "xres")->u64,
		      umdev_mdev_param(mdev, "yres")->u64);
	struct screen *screen;

	if (r == 0)
		r = judge_port(umdev_mdev_param(mdev, "vnc_port")->u64,
			       umdev_mdev_param(mdev, "vnc_password")->text);
	if (r < 0)
		return r;
	screen = calloc(1, sizeof(*screen));
	if (!screen)
		return -ENOMEM;
	screen->job.done = screen_ended;
	screen->job.program = "umdev-screen";
	umdev_mdev_set_priv(mdev, screen);
	return 0;
}

static void display_mdev_destroy(struct umdev_mdev *mdev)
{
	free(umdev_mdev_priv(mdev));
}

static int display_param_check(struct umdev_mdev *mdev, const struct umdev_param *param,
			       const struct umdev_value *value)
{
	uint64_t width = umdev_mdev_param(mdev, "xres")->u64;
	uint64_t height = umdev_mdev_param(mdev, "yres")->u64;
	uint64_t vram = vram_of(mdev);

	if (strcmp(param->name, "vnc_port") == 0)
		return judge_port(value->u64, umdev_mdev_param(mdev, "vnc_password")->text);
	if (strcmp(param->name, "vnc_password") == 0)
		return judge_port(umdev_mdev_param(mdev, "vnc_port")->u64, value->text);
	if (strcmp(param->name, "xres") == 0)
		width = value->u64;
	else if (strcmp(param->name, "yres") == 0)
		height = value->u64;
	else if (strcmp(param->name, "aggregation") == 0)
		vram = umdev_mdev_type(mdev)->pool[0].cost * UNIT * value->u64;
	return judge(vram, width, height);
}

static int display_add(struct umdev_parent *parent)
{
	return umdev_pool_resize(parent, "memory",
				 umdev_parent_param(parent, "memory")->u64 / UNIT);
}

static int failed(const char *what)
{
	int error = errno;

	umdev_explain("%s: %s", what, strerror(error));
	return -error;
}

/* The same memory, for somebody who must not write to it. */
static int open_read_only(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* Adds memory that the worker writes; *ret_fd: for a viewer. */
static int add_memory(struct umdev_resources *list, const char *name, uint64_t size, int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create("umdev-display", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return failed("no video memory");
	*ret_fd = open_read_only(fd);
	if (*ret_fd < 0)
		return failed("no view of its memory");
	return umdev_resource_add(list, name, take_fd(&fd),
				  UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_MEMORY, 0, size);
}

/* A pipe that hangs up when nobody of the worker's is left: *ret_fd is the end that notices. */
static int add_alive(struct umdev_resources *list, int *ret_fd)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return failed("no pipe");
	*ret_fd = pair[0];
	return umdev_resource_add(list, "alive", pair[1], UMDEV_RES_WRITE, 0, 0);
}

/* Through /proc the address is short, however long the path of the directory is. */
static int open_socket(const struct umdev_mdev *mdev)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int dir_fd = umdev_mdev_dirfd(mdev);

	if (fd < 0)
		return failed("no socket for viewers");
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SOCKET, dir_fd);
	unlinkat(dir_fd, SOCKET, 0);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    fchmodat(dir_fd, SOCKET, 0600, 0) < 0 || listen(fd, SOMAXCONN) < 0)
		return failed("cannot listen for viewers");
	return take_fd(&fd);
}

/* Loopback only. -errno */
static int open_port(uint16_t port)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		return failed("cannot listen on its vnc_port");
	return take_fd(&fd);
}

/* To be read once: it stands in no argument and in no file. */
static int pass_password(const char *password)
{
	_cleanup_close_ int write_fd = -1;
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return failed("no pipe");
	write_fd = pair[1];
	if (write(write_fd, password, strlen(password)) < 0) { /* fits into any pipe */
		close(pair[0]);
		return failed("no pipe");
	}
	return pair[0];
}

/* In the order of umdev-screen's descriptors. */
enum { FD_VIDEO, FD_MODE, FD_ALIVE, FD_LISTEN, FD_TCP, FD_PASSWORD, N_FDS };

static int open_all(struct umdev_mdev *mdev, struct umdev_resources *list, int fds[N_FDS])
{
	uint64_t port = umdev_mdev_param(mdev, "vnc_port")->u64;
	int r = add_memory(list, UMDEV_SCREEN_VIDEO, vram_of(mdev), &fds[FD_VIDEO]);

	if (r == 0)
		r = add_memory(list, UMDEV_SCREEN_MODE, sizeof(struct umdev_screen), &fds[FD_MODE]);
	if (r == 0)
		r = add_alive(list, &fds[FD_ALIVE]);
	if (r == 0)
		r = fds[FD_LISTEN] = open_socket(mdev);
	if (r >= 0 && port)
		r = fds[FD_TCP] = open_port((uint16_t)port);
	if (r >= 0 && port)
		r = fds[FD_PASSWORD] = pass_password(umdev_mdev_param(mdev, "vnc_password")->text);
	return r < 0 ? r : 0;
}

static void display_resources_end(struct umdev_mdev *mdev)
{
	struct screen *screen = umdev_mdev_priv(mdev);

	umdev_job_cancel(umdev_mdev_parent(mdev), &screen->job);
	unlinkat(umdev_mdev_dirfd(mdev), SOCKET, 0);
}

static int display_resources(struct umdev_mdev *mdev, struct umdev_resources *list)
{
	const char *label = umdev_mdev_param(mdev, "label")->text;
	bool tcp = umdev_mdev_param(mdev, "vnc_port")->u64;
	const char *const args[] = { *label ? label : umdev_mdev_uuid(mdev), tcp ? "--tcp" : NULL,
				     NULL };
	struct screen *screen = umdev_mdev_priv(mdev);
	int fds[N_FDS] = { -1, -1, -1, -1, -1, -1 };
	int r = open_all(mdev, list, fds);

	if (r == 0)
		r = umdev_job_start(umdev_mdev_parent(mdev), &screen->job, args, fds,
				    tcp ? N_FDS : FD_TCP);
	for (unsigned i = 0; i < N_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (r < 0)
		display_resources_end(mdev);
	return r;
}

static int display_vendor_show(const struct umdev_mdev *mdev, const char *name, char *buf,
			       size_t size)
{
	return snprintf(buf, size, "%llu\n", (unsigned long long)vram_of(mdev));
}

static const char *const vendor_attrs[] = { "vram_bytes", NULL };

static const struct umdev_pool pools[] = {
	{ .name = "memory", .capacity = UNITS },
	{ .name = NULL },
};

#define TYPE(type_name, text, units)                                                               \
	{                                                                                          \
		.name = type_name, .pretty = text, .device_api = "vfio-pci",                       \
		.description = "bochs-compatible display; aggregation multiplies its memory",      \
		.class_name = "display", .params = params,                                         \
		.pool = { { .cost = units, .scale = units } }, .max_aggregation = 16, .p2p = true, \
		.label = true,                                                                     \
	}

static const struct umdev_type types[] = {
	TYPE("16m", "Display with 16 MiB", 1),
	TYPE("32m", "Display with 32 MiB", 2),
	TYPE("64m", "Display with 64 MiB", 4),
	{ .name = NULL },
};

const struct umdev_parent_driver display_parent_driver = {
	.abi = UMDEV_ABI,
	.name = "display",
	.summary = "displays that stock Linux drives (bochs-drm), seen by VNC or as pictures",
	.types = types,
	.pools = pools,
	.params = parent_params,
	.add = display_add,
	.mdev_create = display_mdev_create,
	.mdev_destroy = display_mdev_destroy,
	.param_check = display_param_check,
	.resources = display_resources,
	.resources_end = display_resources_end,
	.vendor_attrs = vendor_attrs,
	.vendor_show = display_vendor_show,
};
