/* SPDX-License-Identifier: MIT */
/*
 * Requests of the kernel, answered from the tree.
 *
 * Whoever can reach the mount can send all of these; each does bounded work and waits for nobody.
 * The kernel checks no permission for us (default_permissions is off, because it would let root
 * open what sysfs refuses to root), so every request that names something is judged here.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "fuse/door.h"

#define MAX_GROUPS 1024         /* supplementary groups of a caller that are looked at */
#define MAX_READDIR (64 * 1024) /* per request */
#define OFF_DOT 1               /* readdir offsets below every ino in a directory */
#define OFF_DOT_DOT 2

static struct fuse_door *door_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static void reply_error(fuse_req_t req, int r)
{
	fuse_reply_err(req, r < 0 ? -r : 0);
}

static void reply_attr(fuse_req_t req, const struct tree_ref *ref)
{
	struct stat st;

	tree_stat(door_of(req)->tree, ref, &st);
	fuse_reply_attr(req, &st, 0);
}

/* Asks a rule of the tree about the caller; their groups are looked up only when those decide. */
static int judge(fuse_req_t req, const struct tree_ref *ref, int bits,
		 int (*rule)(struct tree *, const struct tree_ref *, int, const struct tree_user *))
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct tree_user user = { .uid = ctx->uid, .gid = ctx->gid };
	struct tree *tree = door_of(req)->tree;
	gid_t groups[MAX_GROUPS];
	struct stat st;
	int n, r;

	r = rule(tree, ref, bits, &user);
	if (r == 0)
		return 0;
	tree_stat(tree, ref, &st);
	if (user.uid == 0 || user.uid == st.st_uid || (st.st_mode >> 3 & bits) != (mode_t)bits)
		return r;
	n = ctx->pid ? fuse_req_getgroups(req, MAX_GROUPS, groups) : 0;
	if (n <= 0)
		return r;
	user.groups = groups;
	user.n_groups = n < MAX_GROUPS ? n : MAX_GROUPS;
	return rule(tree, ref, bits, &user);
}

/* The entry, when the caller may do `bits` with it by its mode. */
static int find(fuse_req_t req, fuse_ino_t ino, int bits, struct tree_ref *ret)
{
	int r = tree_find_ino(door_of(req)->tree, ino, ret);

	return r < 0 || !bits ? r : judge(req, ret, bits, tree_permission);
}

static void on_init(void *arg, struct fuse_conn_info *conn)
{
	/* More than a store sees: a longer write stays one request and is answered short. */
	conn->max_write = 2 * TREE_ATTR_SIZE;
	/* O_TRUNC comes as a setattr whose answer tells the kernel that the size is 4096 still;
	 * told by open it would take 0 for the size, and writers would exclude each other as they
	 * do where a file grows. */
	conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
	/* Nothing may be cached, so attributes sent along with names would be thrown away. */
	conn->want &= ~(unsigned)FUSE_CAP_READDIRPLUS;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { 0 };
	struct tree_ref dir, ref;
	int r;

	r = find(req, parent, X_OK, &dir);
	if (r == 0)
		r = tree_lookup(door_of(req)->tree, &dir, name, &ref);
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	entry.ino = ref.ino;
	tree_stat(door_of(req)->tree, &ref, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree_ref ref;
	int r = find(req, ino, 0, &ref);

	if (r < 0)
		reply_error(req, r);
	else
		reply_attr(req, &ref);
}

static bool in_groups(fuse_req_t req, gid_t gid)
{
	gid_t groups[MAX_GROUPS];
	int i, n;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	n = fuse_req_ctx(req)->pid ? fuse_req_getgroups(req, MAX_GROUPS, groups) : 0;
	for (i = 0; i < n && i < MAX_GROUPS; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/* May the caller change what `to_set` names to the values in attr? */
static int judge_setattr(fuse_req_t req, const struct tree_ref *ref, const struct stat *attr,
			 int to_set, bool opened)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	struct stat st;

	tree_stat(door_of(req)->tree, ref, &st);
	if ((to_set & FUSE_SET_ATTR_SIZE) && !opened)
		return judge(req, ref, W_OK, tree_permission);
	if ((to_set & FUSE_SET_ATTR_SIZE) || uid == 0)
		return 0;
	if (uid != st.st_uid)
		return -EPERM;
	if ((to_set & FUSE_SET_ATTR_UID) && attr->st_uid != st.st_uid)
		return -EPERM;
	if ((to_set & FUSE_SET_ATTR_GID) && attr->st_gid != st.st_gid &&
	    !in_groups(req, attr->st_gid))
		return -EPERM;
	return 0;
}

/* Modes and owners stick; sizes and times are accepted and stay what they are. */
static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct tree *tree = door_of(req)->tree;
	struct tree_ref ref;
	int r;

	r = find(req, ino, 0, &ref);
	if (r == 0)
		r = judge_setattr(req, &ref, attr, to_set, fi != NULL);
	if (r == 0 && (to_set & FUSE_SET_ATTR_MODE))
		r = tree_chmod(tree, &ref, attr->st_mode);
	if (r == 0 && (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		r = tree_chown(tree, &ref, to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
			       to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1);
	if (r < 0)
		reply_error(req, r);
	else
		reply_attr(req, &ref);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char text[TREE_PATH_MAX];
	struct tree_ref ref;
	int r;

	r = find(req, ino, 0, &ref);
	if (r == 0)
		r = tree_readlink(&ref, text, sizeof(text));
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_readlink(req, text);
}

static void on_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct tree_ref ref;

	reply_error(req, find(req, ino, mask, &ref));
}

/* Nothing can be made or unmade in sysfs: the directory's mode says EACCES, its kind EPERM. */
static void refuse_change(fuse_req_t req, fuse_ino_t dir_ino)
{
	struct tree_ref dir;
	int r = find(req, dir_ino, W_OK | X_OK, &dir);

	reply_error(req, r < 0 ? r : -EPERM);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	refuse_change(req, parent);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	refuse_change(req, parent);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent);
}

static void on_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	refuse_change(req, parent);
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent);
}

/* open(2) with O_CREAT of a name that is not there. */
static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	fuse_reply_err(req, EACCES);
}

static int open_bits(int flags)
{
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return R_OK;
	case O_WRONLY:
		return W_OK;
	default:
		return R_OK | W_OK;
	}
}

static int open_handle(fuse_req_t req, fuse_ino_t ino, int flags, struct handle **ret)
{
	struct fuse_door *door = door_of(req);
	struct handle *handle;
	struct tree_ref ref;
	int r;

	r = find(req, ino, 0, &ref);
	if (r == 0)
		r = judge(req, &ref, open_bits(flags), tree_access);
	if (r < 0)
		return r;
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return -ENOMEM;
	handle->ref = ref;
	tree_get(ref.node);
	list_append(&door->handles, &handle->node);
	*ret = handle;
	return 0;
}

void handle_free(struct fuse_door *door, struct handle *handle)
{
	list_remove(&handle->node);
	tree_put(door->tree, handle->ref.node);
	free(handle->content);
	free(handle);
}

/*
 * The reply is made here because libfuse 3.14 has no name for parallel writes. Without them a
 * writer whose store answers late holds the file's lock, and a second one waits for it in a place
 * where no signal ends the wait. Kernels before 6.0 ignore the flag.
 */
static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out reply = { .open_flags = FOPEN_DIRECT_IO |
						     FOPEN_PARALLEL_DIRECT_WRITES };
	struct handle *handle;
	int r = open_handle(req, ino, fi->flags, &handle);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	reply.fh = (uintptr_t)handle;
	/* -ENOENT: the opener was interrupted, no release will come */
	if (fuse_reply_buf(req, (const char *)&reply, sizeof(reply)) == -ENOENT)
		handle_free(door_of(req), handle);
}

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	handle_free(door_of(req), handle_of(fi));
	fuse_reply_err(req, 0);
}

/*
 * As seq_file: content is made when a read begins at 0 or elsewhere than the last one ended, and
 * else the rest of it is given out. Only a rest is kept.
 */
static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct handle *handle = handle_of(fi);
	char fresh[TREE_ATTR_SIZE], *content = handle->content;
	size_t start = off;
	int r;

	if (handle->ref.node->removed) {
		fuse_reply_err(req, ENODEV);
		return;
	}
	if (off == 0 || start != handle->pos) {
		free(handle->content);
		handle->content = NULL;
		r = tree_show(&handle->ref, fresh);
		if (r < 0) {
			reply_error(req, r);
			return;
		}
		handle->len = r;
		content = fresh;
	}
	if (start >= handle->len)
		size = 0;
	else if (size > handle->len - start)
		size = handle->len - start;
	handle->pos = start + size;
	if (content == fresh && handle->pos < handle->len) {
		handle->content = malloc(handle->len);
		if (!handle->content) {
			fuse_reply_err(req, ENOMEM);
			return;
		}
		memcpy(handle->content, fresh, handle->len);
	}
	fuse_reply_buf(req, size ? content + start : NULL, size);
}

/* The writer sees only the errno; the line for people goes to the log. */
static void log_refusal(const struct tree_ref *ref, int error)
{
	char path[TREE_PATH_MAX] = "a removed file";

	tree_path(ref, path, sizeof(path));
	log_info("write to %s: %s: %s", path, err_name(error), err_text(error));
}

void held_answer(struct held *held, int result)
{
	list_remove(&held->node);
	if (result < 0) {
		log_refusal(&held->ref, result);
		fuse_reply_err(held->req, -result);
	} else {
		fuse_reply_write(held->req, held->len);
	}
	tree_put(held->door->tree, held->ref.node);
	free(held);
}

static void on_late_answer(struct attr_wait *wait, int result)
{
	struct held *held = container_of(wait, struct held, wait);

	if (list_is_linked(&held->node)) {
		held_answer(held, result);
		return;
	}
	held->answered = true;
	held->result = result;
}

/* A signal for the writer: the wait ends, the change goes on. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct held *held = data;

	attr_cancel(&held->wait);
	err_clear();
	held_answer(held, -EINTR);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *text, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct fuse_door *door = door_of(req);
	struct held *held = calloc(1, sizeof(*held));
	int r;

	if (!held) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	held->wait.done = on_late_answer;
	held->door = door;
	held->req = req;
	held->ref = handle_of(fi)->ref;
	held->len = size < TREE_ATTR_SIZE ? size : TREE_ATTR_SIZE;
	tree_get(held->ref.node);
	err_clear();
	r = tree_store(door->tree, &held->ref, text, held->len, &held->wait);
	if (r == TREE_LATER && held->answered)
		r = held->result;
	if (r != TREE_LATER) {
		held_answer(held, r);
		return;
	}
	list_append(&door->held, &held->node);
	/* libfuse must not be given a function that answers at once: it would use req afterwards */
	if (fuse_req_interrupted(req))
		on_interrupt(req, held);
	else
		fuse_req_interrupt_func(req, on_interrupt, held);
}

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree_ref ref;
	int r = find(req, ino, R_OK, &ref);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_open(req, fi);
}

struct dirents {
	fuse_req_t req;
	char *buf;
	size_t len, size;
};

static bool add_dirent(struct dirents *d, const char *name, const struct tree_ref *ref, off_t off)
{
	static const mode_t types[] = {
		[TREE_DIR] = S_IFDIR, [TREE_FILE] = S_IFREG, [TREE_LINK] = S_IFLNK
	};
	struct stat st = { .st_ino = ref->ino, .st_mode = types[ref->what] };
	size_t need;

	need = fuse_add_direntry(d->req, d->buf + d->len, d->size - d->len, name, &st, off);
	if (need > d->size - d->len)
		return false;
	d->len += need;
	return true;
}

/* The offset of an entry is its ino: numbers rise within a directory and never return. */
static bool add_entry(void *arg, const char *name, const struct tree_ref *ref)
{
	return add_dirent(arg, name, ref, ref->ino);
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	struct dirents d = { .req = req, .size = size < MAX_READDIR ? size : MAX_READDIR };
	struct tree_ref dir, up;
	int r;

	r = find(req, ino, 0, &dir);
	d.buf = malloc(d.size);
	if (r == 0 && !d.buf)
		r = -ENOMEM;
	if (r < 0)
		goto out;
	up = tree_up(&dir);
	if ((off >= OFF_DOT || add_dirent(&d, ".", &dir, OFF_DOT)) &&
	    (off >= OFF_DOT_DOT || add_dirent(&d, "..", &up, OFF_DOT_DOT)))
		r = tree_list(door_of(req)->tree, &dir, off, add_entry, &d);
out:
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_buf(req, d.buf, d.len);
	free(d.buf);
}

static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	if (size)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_xattr(req, 0);
}

/* What is missing is answered ENOSYS by libfuse and turned into sysfs's answer by the kernel:
 * no xattrs (EOPNOTSUPP), no ioctl (ENOTTY), fsync is nothing, flush and forget need nothing. */
const struct fuse_lowlevel_ops door_ops = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.readlink = on_readlink,
	.access = on_access,
	.mknod = on_mknod,
	.mkdir = on_mkdir,
	.unlink = on_unlink,
	.rmdir = on_unlink,
	.symlink = on_symlink,
	.rename = on_rename,
	.link = on_link,
	.create = on_create,
	.open = on_open,
	.release = on_release,
	.read = on_read,
	.write = on_write,
	.opendir = on_opendir,
	.readdir = on_readdir,
	.listxattr = on_listxattr,
};
