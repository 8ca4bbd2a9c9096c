/* SPDX-License-Identifier: MIT */
/* Mounts of `umdev exec`. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/str.h"
#include "cli/namespace.h"

#define MDEVCTL_DIR "/etc/mdevctl.d"

/* Directories that hold entries of the machine and of the tree; each after its parent. */
static const char *const spine[] = {
	"", "/bus", "/class", "/devices", "/devices/virtual", "/kernel", NULL,
};

static int fail(const char *what, const char *path)
{
	int error = errno;

	return err_set(-error, "cannot %s %s: %s", what, path, strerror(error));
}

/* Directories of the tree that come with the first parent of a class (docs/abi.md). */
static const char *const late[] = {
	"/class/mdev",
	"/class/mtty",
	"/class/umdev",
	"/devices/virtual/mtty",
	"/devices/virtual/umdev",
	NULL,
};

/* ---- entering ---- */

static int write_file(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return fail("write", path);
	return 0;
}

/* One user, one group, both keep their number. */
static int map_ids(uid_t uid, gid_t gid)
{
	char text[64];
	int r;

	r = write_file("/proc/self/setgroups", "deny");
	if (r < 0)
		return r;
	str_format(text, sizeof(text), "%u %u 1", uid, uid);
	r = write_file("/proc/self/uid_map", text);
	if (r < 0)
		return r;
	str_format(text, sizeof(text), "%u %u 1", gid, gid);
	return write_file("/proc/self/gid_map", text);
}

static int loopback_up(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return err_set(-errno, "cannot set up the loopback device: %s", strerror(errno));
	return 0;
}

int namespace_enter(bool network)
{
	int namespaces = CLONE_NEWNS | (network ? CLONE_NEWNET : 0);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r;

	if (unshare(namespaces) < 0) {
		if (errno != EPERM)
			return err_set(-errno, "cannot make a mount namespace: %s",
				       strerror(errno));
		if (unshare(CLONE_NEWUSER | namespaces) < 0)
			return err_set(-errno,
				       "cannot make a user namespace: %s: allow it (sysctl "
				       "user.max_user_namespaces, AppArmor) or run as root",
				       strerror(errno));
		r = map_ids(uid, gid);
		if (r < 0)
			return r;
	}
	/* Mounts of the machine still arrive here, ours stay here. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return errno == EINVAL ? err_set(-EINVAL,
						 "/ is no mount point, as in a chroot: make it one "
						 "(mount --bind DIR DIR) before the chroot")
				       : fail("make private", "/");
	return network ? loopback_up() : 0;
}

/* ---- small steps ---- */

static int make_dir(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? fail("make", path) : 0;
}

static int bind_dir(const char *from, const char *to)
{
	return mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0 ? fail("bind", to) : 0;
}

static int cover(const char *path)
{
	if (mount("umdev", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") < 0)
		return fail("cover", path);
	return 0;
}

/* What is made there later would be lost without a word: refuse it. */
static int make_read_only(const char *path)
{
	unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	return mount(NULL, path, NULL, flags, NULL) < 0 ? fail("make read-only", path) : 0;
}

static int copy_link(const char *from, const char *to)
{
	char target[PATH_MAX];
	ssize_t n = readlink(from, target, sizeof(target) - 1);

	if (n < 0)
		return fail("read", from);
	target[n] = '\0';
	return symlink(target, to) < 0 ? fail("make", to) : 0;
}

/* Shows `from` at `to`, which does not exist yet. */
static int place(const char *from, const char *to)
{
	struct stat st;
	int fd;

	if (lstat(from, &st) < 0)
		return errno == ENOENT ? 0 : fail("look at", from); /* gone meanwhile */
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to);
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(to, 0755) < 0)
			return fail("make", to);
	} else {
		fd = open(to, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
		if (fd < 0)
			return fail("make", to);
		close(fd);
	}
	return bind_dir(from, to);
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* Calls fn for each entry of `from`; stops at the first failure. */
static int each_entry(const char *from, int (*fn)(const char *name, void *arg), void *arg)
{
	_cleanup_(closedirp) DIR *dir = opendir(from);
	struct dirent *e;
	int r = 0;

	if (!dir)
		return fail("read", from);
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = fn(e->d_name, arg);
	return r;
}

/* ---- /sys ---- */

static bool is_spine(const char *path)
{
	for (const char *const *s = spine; *s; s++)
		if (strcmp(*s, path) == 0)
			return true;
	return false;
}

struct merge {
	const char *root; /* where the entries come from */
	const char *path; /* directory below root and below /sys */
};

static int merge_entry(const char *name, void *arg)
{
	const struct merge *m = arg;
	char path[PATH_MAX], from[PATH_MAX], to[PATH_MAX];
	struct stat st;

	str_format(path, sizeof(path), "%s/%s", m->path, name);
	str_format(from, sizeof(from), "%s%s", m->root, path);
	str_format(to, sizeof(to), "/sys%s", path);
	if (is_spine(path))
		return make_dir(to); /* its entries follow */
	return lstat(to, &st) == 0 ? 0 : place(from, to);
}

static int merge_from(const char *root)
{
	for (const char *const *s = spine; *s; s++) {
		char from[PATH_MAX];
		struct merge m = { .root = root, .path = *s };
		int r;

		str_format(from, sizeof(from), "%s%s", root, *s);
		r = access(from, F_OK) < 0 ? 0 : each_entry(from, merge_entry, &m);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * What does not exist cannot be bound, but its place can be held by a link. A device found through
 * it has a path outside /sys: enough for mdevctl, not for libudev.
 */
static int link_late(const char *tree)
{
	for (const char *const *l = late; *l; l++) {
		char from[PATH_MAX], to[PATH_MAX];

		str_format(from, sizeof(from), "%s%s", tree, *l);
		str_format(to, sizeof(to), "/sys%s", *l);
		if (symlink(from, to) < 0 && errno != EEXIST)
			return fail("make", to);
	}
	return 0;
}

int namespace_merge_sys(const char *run_dir)
{
	_cleanup_free_ char *host = str_printf("%s/hostsys", run_dir);
	_cleanup_free_ char *tree = str_printf("%s/sys", run_dir);
	int r;

	if (!host || !tree)
		return -ENOMEM;
	r = make_dir(host);
	if (r == 0)
		r = bind_dir("/sys", host);
	if (r == 0)
		r = cover("/sys");
	/* First come, first shown: the tree hides what the machine has of the same name. */
	if (r == 0)
		r = merge_from(tree);
	if (r == 0)
		r = merge_from(host);
	if (r == 0)
		r = link_late(tree);
	return r < 0 ? r : make_read_only("/sys");
}

/* ---- /dev/vfio ---- */

#define VFIO_DIR "/dev/vfio"

static int place_device(const char *name, void *arg)
{
	const char *host = arg;
	char from[PATH_MAX], to[PATH_MAX];

	str_format(from, sizeof(from), "%s/%s", host, name);
	str_format(to, sizeof(to), "/dev/%s", name);
	return place(from, to);
}

/* libudev takes a /dev that is no devtmpfs, on a machine without udevd, for a container's, and
 * hears of nothing there. */
static bool may_cover_dev(bool uevents)
{
	return !uevents || access("/run/udev/control", F_OK) == 0;
}

int namespace_place_vfio(const char *run_dir, bool uevents)
{
	_cleanup_free_ char *host = str_printf("%s/hostdev", run_dir);
	_cleanup_free_ char *vfio = str_printf("%s/vfio", run_dir);
	int r;

	if (!host || !vfio)
		return -ENOMEM;
	if (access(vfio, X_OK) < 0)
		return 0; /* umdevd could not mount it, and said so */
	r = make_dir(host);
	if (r == 0)
		r = bind_dir("/dev", host);
	if (r == 0 && access(VFIO_DIR, F_OK) < 0 && !may_cover_dev(uevents))
		return 0;
	if (r == 0 && access(VFIO_DIR, F_OK) < 0) {
		r = cover("/dev");
		if (r == 0)
			r = each_entry(host, place_device, host);
		if (r == 0)
			r = make_dir(VFIO_DIR);
	}
	return r < 0 ? r : bind_dir(vfio, VFIO_DIR);
}

/* ---- /etc/mdevctl.d ---- */

/* An entry of the machine's /etc as a link into hostetc, so that it stays the machine's. */
static int link_entry(const char *name, void *arg)
{
	const char *host = arg;
	char from[PATH_MAX], to[PATH_MAX];
	struct stat st;

	str_format(from, sizeof(from), "%s/%s", host, name);
	str_format(to, sizeof(to), "/etc/%s", name);
	if (lstat(from, &st) == 0 && S_ISLNK(st.st_mode))
		return copy_link(from, to);
	return symlink(from, to) < 0 ? fail("make", to) : 0;
}

/* Makes the mount point where the machine has none. */
static int make_mdevctl_dir(const char *run_dir)
{
	_cleanup_free_ char *host = str_printf("%s/hostetc", run_dir);
	int r;

	if (!host)
		return -ENOMEM;
	r = make_dir(host);
	if (r == 0)
		r = bind_dir("/etc", host);
	if (r == 0)
		r = cover("/etc");
	if (r == 0)
		r = each_entry(host, link_entry, host);
	if (r == 0)
		r = make_dir(MDEVCTL_DIR);
	return r < 0 ? r : make_read_only("/etc");
}

int namespace_place_mdevctl(const char *run_dir, const char *dir)
{
	/* `dir` may be below /etc, which may be covered before it is bound. */
	_cleanup_close_ int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char path[64];
	int r = 0;

	if (fd < 0)
		return fail("open", dir);
	if (access(MDEVCTL_DIR, F_OK) < 0)
		r = make_mdevctl_dir(run_dir);
	str_format(path, sizeof(path), "/proc/self/fd/%d", fd);
	return r < 0 ? r : bind_dir(path, MDEVCTL_DIR);
}
