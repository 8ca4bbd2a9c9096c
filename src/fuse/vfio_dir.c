/* SPDX-License-Identifier: MIT */
/*
 * A directory in the place of /dev/vfio: a file per iommu group of ours, which cannot be opened
 * while a client holds the group, as on a kernel. libvirt opens it to learn whether a device is in
 * use. There is nothing to read or to ask: devices are reached through their sockets.
 *
 * What the machine's own /dev/vfio has is shown as links to where `umdev exec` shows that.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/str.h"
#include "core/core.h"
#include "core/group.h"
#include "fuse/door.h"
#include "fuse/fuse.h"

#define MACHINES "/dev/vfio"
#define FIRST_INO 2 /* of group 0; the machine's entries have UINT64_MAX / 2 and above */
#define LINK_INO (UINT64_MAX / 2)

static struct fuse_door *door_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct mdev_group *find_group(const struct core *core, uint64_t ino)
{
	struct mdev_group *group;

	list_for_each(group, &core->groups, node)
		if (group->number == ino - FIRST_INO)
			return group;
	return NULL;
}

/* The number in the name of one of the machine's entries: "vfio" is the largest. */
static bool machines_number(const char *name, uint64_t *ret)
{
	if (strcmp(name, "vfio") == 0)
		*ret = UINT32_MAX;
	else if (str_to_u64(name, strlen(name), ret) < 0 || *ret >= UINT32_MAX)
		return false;
	return true;
}

static void machines_name(uint64_t ino, char buf[16])
{
	if (ino - LINK_INO == UINT32_MAX)
		strcpy(buf, "vfio");
	else
		snprintf(buf, 16, "%u", (unsigned)(ino - LINK_INO));
}

/* 0 / -ENOENT */
static int get_stat(const struct core *core, fuse_ino_t ino, struct stat *ret)
{
	*ret = (struct stat){
		.st_ino = ino, .st_nlink = 1, .st_uid = core->tree.uid, .st_gid = core->tree.gid
	};
	if (ino == FUSE_ROOT_ID)
		ret->st_mode = S_IFDIR | 0755;
	else if (ino >= LINK_INO)
		ret->st_mode = S_IFLNK | 0777;
	else if (find_group(core, ino))
		ret->st_mode = S_IFREG | 0600;
	else
		return -ENOENT;
	return 0;
}

static int find_name(const struct core *core, const char *name, fuse_ino_t *ret)
{
	_cleanup_free_ char *path = str_printf(MACHINES "/%s", name);
	uint64_t number;

	if (!path)
		return -ENOMEM;
	if (!machines_number(name, &number))
		return -ENOENT;
	*ret = number + FIRST_INO;
	if (find_group(core, *ret))
		return 0;
	*ret = number + LINK_INO;
	return access(path, F_OK) == 0 ? 0 : -ENOENT;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct core *core = door_of(req)->core;
	struct fuse_entry_param e = { 0 };
	int r = parent == FUSE_ROOT_ID ? find_name(core, name, &e.ino) : -ENOTDIR;

	if (r == 0)
		r = get_stat(core, e.ino, &e.attr);
	if (r == 0)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, -r);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int r = get_stat(door_of(req)->core, ino, &st);

	if (r == 0)
		fuse_reply_attr(req, &st, 0);
	else
		fuse_reply_err(req, -r);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
	const struct fuse_door *door = door_of(req);
	_cleanup_free_ char *target = NULL;
	char name[16];

	if (ino < LINK_INO) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	machines_name(ino, name);
	/* Beside our mount point. */
	target = str_printf("%.*s/hostdev/vfio/%s",
			    (int)(strrchr(door->mount_point, '/') - door->mount_point),
			    door->mount_point, name);
	if (target)
		fuse_reply_readlink(req, target);
	else
		fuse_reply_err(req, ENOMEM);
}

/* A client holds the group: as for a second one on a kernel. */
static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct mdev_group *group = find_group(door_of(req)->core, ino);

	if (!group)
		fuse_reply_err(req, ENODEV);
	else if (group->n_connected)
		fuse_reply_err(req, EBUSY);
	else
		fuse_reply_open(req, fi);
}

struct listing {
	fuse_req_t req;
	char *buf;
	size_t size, len;
	off_t skip, at;
};

/* False: no more fits. */
static bool add(struct listing *l, const char *name, fuse_ino_t ino, mode_t mode)
{
	const struct stat st = { .st_ino = ino, .st_mode = mode };
	size_t n;

	if (l->at++ < l->skip)
		return true;
	n = fuse_add_direntry(l->req, l->buf + l->len, l->size - l->len, name, &st, l->at);
	if (n > l->size - l->len)
		return false;
	l->len += n;
	return true;
}

static bool add_machines(struct listing *l)
{
	DIR *dir = opendir(MACHINES);
	const struct dirent *d;
	uint64_t number;
	bool more = true;

	while (dir && more && (d = readdir(dir)))
		if (machines_number(d->d_name, &number))
			more = add(l, d->d_name, number + LINK_INO, S_IFLNK);
	if (dir)
		closedir(dir);
	return more;
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	const struct core *core = door_of(req)->core;
	_cleanup_free_ char *buf = malloc(size);
	struct listing l = { .req = req, .buf = buf, .size = size, .skip = offset };
	const struct mdev_group *group;
	char name[16];
	bool more;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	more = add(&l, ".", FUSE_ROOT_ID, S_IFDIR) && add(&l, "..", FUSE_ROOT_ID, S_IFDIR) &&
	       add_machines(&l);
	list_for_each(group, &core->groups, node) {
		snprintf(name, sizeof(name), "%u", group->number);
		more = more && add(&l, name, group->number + FIRST_INO, S_IFREG);
	}
	fuse_reply_buf(req, buf, l.len);
}

static const struct fuse_lowlevel_ops vfio_dir_ops = {
	.lookup = on_lookup,
	.getattr = on_getattr,
	.readlink = on_readlink,
	.open = on_open,
	.readdir = on_readdir,
};

int fuse_vfio_open(struct core *core, struct loop *loop, const char *mount_point,
		   struct fuse_door **ret)
{
	return door_open(&vfio_dir_ops, &core->tree, core, loop, mount_point, ret);
}
