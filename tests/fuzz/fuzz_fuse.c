/* SPDX-License-Identifier: MIT */
/*
 * Whole sessions of the FUSE door: what programs do in the tree, as the kernel passes it on, while
 * nodes go and stores answer late.
 *
 * The kernel is believed: it sends only numbers and handles that it was given, and no release
 * during a write. Everything else is the input's: names, offsets, sizes, texts, who asks.
 * Invariants: one answer per request, held writes excepted; no handle or node is left behind.
 */
#include <assert.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/log.h"
#include "fuse/door.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 200
#define MAX_KNOWN 16

enum op {
	OP_LOOKUP,
	OP_LOOKUP_ANY,
	OP_GETATTR,
	OP_SETATTR,
	OP_READLINK,
	OP_ACCESS,
	OP_CHANGE, /* mkdir, unlink, rename ...: all refused */
	OP_OPEN,
	OP_READ,
	OP_WRITE,
	OP_RELEASE,
	OP_READDIR,
	OP_INTERRUPT, /* a signal for a writer that waits */
	OP_ANSWER,    /* a store that was late */
	OP_REMOVE,    /* a node */
	OPS,
};

struct opened {
	uint64_t ino, fh, writing; /* writing: unique of its write that is not answered, or 0 */
};

struct session {
	struct fuse_door door;
	struct tree tree;
	struct tree_node *node[3]; /* NULL: removed */
	struct attr_wait *late;
	struct buf_reader in;
	int kernel; /* its end of the channel */
	uint64_t unique, known[MAX_KNOWN];
	unsigned n_known, n_opened;
	struct opened opened[MAX_KNOWN];
	struct fuse_out_header reply; /* to the last request */
	union {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
		uint8_t bytes[80 * 1024];
	} out;
};

static struct session *session_of(struct tree_node *node)
{
	while (node->parent)
		node = node->parent;
	return container_of(node, struct session, tree.root);
}

/* ---- the tree ---- */

static int show(struct tree_node *node, const struct tree_attr *attr, unsigned index, char *buf)
{
	memset(buf, 'a' + (int)index, TREE_ATTR_SIZE);
	return attr->data ? TREE_ATTR_SIZE : 5;
}

static int store(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		 const char *text, size_t len, struct attr_wait *wait)
{
	assert(len && len <= TREE_ATTR_SIZE && !text[len]);
	return text[0] == 'x' ? -EINVAL : 0;
}

static int store_late(struct tree_node *node, const struct tree_attr *attr, unsigned index,
		      const char *text, size_t len, struct attr_wait *wait)
{
	struct session *s = session_of(node);

	if (s->late)
		return -EBUSY;
	attr_hold(&s->late, wait);
	if (text[0] == 'n')
		attr_done(&s->late, 0); /* already */
	return TREE_LATER;
}

static void remove_node(struct session *s, unsigned i)
{
	/* The second is a child of the first, the third a link to it. */
	if (i == 0)
		s->node[1] = NULL;
	tree_remove(&s->tree, s->node[i]);
	s->node[i] = NULL;
}

static int store_remove(struct tree_node *node, const struct tree_attr *attr, unsigned index,
			const char *text, size_t len, struct attr_wait *wait)
{
	struct session *s = session_of(node);

	for (unsigned i = 0; i < 3; i++)
		if (s->node[i] == node)
			remove_node(s, i);
	return 0;
}

static unsigned two(struct tree_node *node)
{
	return 2;
}

static void name_it(struct tree_node *node, unsigned index, char *buf)
{
	strcpy(buf, index ? "p1" : "p0");
}

static struct tree_node *to_parent(struct tree_node *node)
{
	return node->parent;
}

static const struct tree_attr attrs[] = {
	{ .name = "r", .mode = 0444, .show = show },
	{ .name = "rw", .mode = 0644, .show = show, .store = store, .data = "long" },
	{ .name = "w", .mode = 0200, .store = store },
	{ .name = "late", .mode = 0222, .store = store_late },
	{ .name = "remove", .mode = 0202, .store = store_remove },
	{ 0 },
};
static const struct tree_group counted[] = {
	{ .count = two, .name_of = name_it, .attrs = attrs },
	{ 0 },
};
static const struct tree_group groups[] = { { .name = "g", .attrs = attrs, .groups = counted },
					    { 0 } };
static const struct tree_fixed_link links[] = { { .name = "up", .to = to_parent }, { 0 } };
static const struct tree_kind kind = {
	.name = "thing", .attrs = attrs, .groups = groups, .links = links
};
static const char *const names[] = { "a", "b",  "l",  "g",    "p0",     "p1",  "r",
				     "w", "rw", "up", "late", "remove", "none" };

/* ---- the kernel ---- */

static unsigned number(struct session *s, unsigned n)
{
	return buf_get_u8(&s->in) % n;
}

static uint64_t any_known(struct session *s)
{
	return s->known[number(s, s->n_known)];
}

static struct opened *any_opened(struct session *s)
{
	return s->n_opened ? &s->opened[number(s, s->n_opened)] : NULL;
}

/* Takes all replies; true: one was to the last request. Others are to writes that waited. */
static bool receive(struct session *s)
{
	struct fuse_out_header h;
	struct iovec iov[2] = { { &h, sizeof(h) }, { &s->out, sizeof(s->out) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	bool answered = false;
	ssize_t n;

	while ((n = recvmsg(s->kernel, &msg, MSG_DONTWAIT)) > 0) {
		unsigned i = 0;

		assert((size_t)n >= sizeof(h) && h.len == (size_t)n && h.error <= 0);
		while (i < s->n_opened && s->opened[i].writing != h.unique)
			i++;
		if (i < s->n_opened) {
			s->opened[i].writing = 0;
			continue;
		}
		assert(h.unique == s->unique && !answered);
		s->reply = h;
		answered = true;
	}
	return answered;
}

static void process(struct session *s, uint32_t opcode, uint64_t ino, const void *args, size_t len,
		    const void *more, size_t more_len)
{
	static uint8_t request[64 * 1024];
	struct fuse_in_header h = { .opcode = opcode, .unique = ++s->unique, .nodeid = ino };
	struct fuse_buf buf = { .mem = request };

	h.uid = number(s, 4) ? 0 : 1000;
	h.gid = h.uid;
	h.len = sizeof(h) + len + more_len;
	assert(h.len <= sizeof(request));
	memcpy(request, &h, sizeof(h));
	if (len)
		memcpy(request + sizeof(h), args, len);
	if (more_len)
		memcpy(request + sizeof(h) + len, more, more_len);
	buf.size = h.len;
	fuse_session_process_buf(s->door.session, &buf);
}

/* 0, or the negative errno of its answer. */
static int ask(struct session *s, uint32_t opcode, uint64_t ino, const void *args, size_t len,
	       const void *more, size_t more_len)
{
	process(s, opcode, ino, args, len, more, more_len);
	if (!receive(s))
		assert(!"a request without an answer");
	return s->reply.error;
}

/* ---- what programs do ---- */

static void do_lookup(struct session *s, const char *name, size_t len)
{
	uint64_t dir = any_known(s);

	if (ask(s, FUSE_LOOKUP, dir, NULL, 0, name, len) < 0 || !s->out.entry.nodeid)
		return;
	if (s->n_known < MAX_KNOWN)
		s->known[s->n_known++] = s->out.entry.nodeid;
	else
		s->known[1 + s->unique % (MAX_KNOWN - 1)] = s->out.entry.nodeid;
}

/* No program can name anything with a slash or a NUL in it. */
static void do_lookup_any(struct session *s)
{
	char name[300] = { 0 };
	unsigned len = number(s, 256);

	for (unsigned i = 0; i < len; i++) {
		name[i] = (char)buf_get_u8(&s->in);
		if (!name[i] || name[i] == '/')
			name[i] = '.';
	}
	do_lookup(s, name, strlen(name) + 1);
}

static void do_setattr(struct session *s)
{
	struct fuse_setattr_in in = { .valid = buf_get_u32(&s->in) & ~(uint32_t)FATTR_FH };

	in.size = buf_get_u16(&s->in);
	in.mode = buf_get_u16(&s->in);
	in.uid = number(s, 3) * 1000;
	in.gid = number(s, 3) * 1000;
	ask(s, FUSE_SETATTR, any_known(s), &in, sizeof(in), NULL, 0);
}

static void do_change(struct session *s)
{
	static const struct {
		uint32_t opcode;
		size_t args;
	} changes[] = {
		{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in) },
		{ FUSE_MKNOD, sizeof(struct fuse_mknod_in) },
		{ FUSE_UNLINK, 0 },
		{ FUSE_RMDIR, 0 },
		{ FUSE_SYMLINK, 0 },
		{ FUSE_LINK, sizeof(struct fuse_link_in) },
		{ FUSE_RENAME, sizeof(struct fuse_rename_in) },
		{ FUSE_CREATE, sizeof(struct fuse_create_in) },
	};
	unsigned i = number(s, sizeof(changes) / sizeof(changes[0]));
	const uint64_t args[4] = { any_known(s) };

	if (ask(s, changes[i].opcode, any_known(s), args, changes[i].args, "x\0y", 4) == 0)
		assert(!"something was made or unmade");
}

static void do_open(struct session *s)
{
	struct fuse_open_in in = { .flags = number(s, 3) };
	uint64_t ino = any_known(s);

	/* As a kernel, which opens files only. */
	if (s->n_opened == MAX_KNOWN || ask(s, FUSE_GETATTR, ino, &(struct fuse_getattr_in){ 0 },
					    sizeof(struct fuse_getattr_in), NULL, 0) < 0)
		return;
	if (!S_ISREG(((struct fuse_attr_out *)&s->out)->attr.mode) ||
	    ask(s, FUSE_OPEN, ino, &in, sizeof(in), NULL, 0) < 0)
		return;
	s->opened[s->n_opened++] = (struct opened){ .ino = ino, .fh = s->out.open.fh };
}

static void do_read(struct session *s)
{
	struct opened *o = any_opened(s);
	struct fuse_read_in in = { .offset = buf_get_u16(&s->in), .size = buf_get_u16(&s->in) };

	if (!o)
		return;
	in.fh = o->fh;
	if (ask(s, FUSE_READ, o->ino, &in, sizeof(in), NULL, 0) == 0)
		assert(s->reply.len <= sizeof(s->reply) + in.size);
}

static void do_write(struct session *s)
{
	static const char text[2 * TREE_ATTR_SIZE] = { 0 };
	struct opened *o = any_opened(s);
	struct fuse_write_in in = { .offset = buf_get_u16(&s->in) };
	uint8_t first = buf_get_u8(&s->in);
	char bytes[sizeof(text)];

	in.size = buf_get_u16(&s->in) % sizeof(text) + 1;
	if (!o || o->writing)
		return;
	in.fh = o->fh;
	memset(bytes, 'y', sizeof(bytes));
	bytes[0] = (char)first;
	process(s, FUSE_WRITE, o->ino, &in, sizeof(in), bytes, in.size);
	if (!receive(s)) {
		o->writing = s->unique;
		assert(s->late);
	} else if (s->reply.error == 0) {
		assert(((struct fuse_write_out *)&s->out)->size <= in.size);
	}
}

static void do_release(struct session *s)
{
	struct opened *o = any_opened(s);
	struct fuse_release_in in = { 0 };

	if (!o || o->writing)
		return;
	in.fh = o->fh;
	if (ask(s, FUSE_RELEASE, o->ino, &in, sizeof(in), NULL, 0) < 0)
		assert(!"a release was refused");
	*o = s->opened[--s->n_opened];
}

static void do_readdir(struct session *s)
{
	struct fuse_open_in open = { 0 };
	struct fuse_read_in in = { .size = buf_get_u16(&s->in), .offset = buf_get_u16(&s->in) };
	uint64_t ino = any_known(s);

	if (number(s, 2))
		in.offset = any_known(s);
	if (ask(s, FUSE_OPENDIR, ino, &open, sizeof(open), NULL, 0) < 0)
		return;
	if (ask(s, FUSE_READDIR, ino, &in, sizeof(in), NULL, 0) == 0)
		assert(s->reply.len <= sizeof(s->reply) + in.size);
	ask(s, FUSE_RELEASEDIR, ino, &(struct fuse_release_in){ 0 }, sizeof(struct fuse_release_in),
	    NULL, 0);
}

static void do_interrupt(struct session *s)
{
	const struct opened *o = any_opened(s);
	struct fuse_interrupt_in in = { .unique = o ? o->writing : 0 };

	if (!in.unique)
		return;
	process(s, FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0);
	receive(s);
	assert(!o->writing);
}

static void do_access(struct session *s)
{
	struct fuse_access_in in = { .mask = number(s, 8) };

	ask(s, FUSE_ACCESS, any_known(s), &in, sizeof(in), NULL, 0);
}

static void run_op(struct session *s)
{
	unsigned i;

	switch (buf_get_u8(&s->in) % OPS) {
	case OP_LOOKUP:
		i = number(s, sizeof(names) / sizeof(names[0]));
		do_lookup(s, names[i], strlen(names[i]) + 1);
		break;
	case OP_LOOKUP_ANY:
		do_lookup_any(s);
		break;
	case OP_GETATTR:
		ask(s, FUSE_GETATTR, any_known(s), &(struct fuse_getattr_in){ 0 },
		    sizeof(struct fuse_getattr_in), NULL, 0);
		break;
	case OP_SETATTR:
		do_setattr(s);
		break;
	case OP_READLINK:
		ask(s, FUSE_READLINK, any_known(s), NULL, 0, NULL, 0);
		break;
	case OP_ACCESS:
		do_access(s);
		break;
	case OP_CHANGE:
		do_change(s);
		break;
	case OP_OPEN:
		do_open(s);
		break;
	case OP_READ:
		do_read(s);
		break;
	case OP_WRITE:
		do_write(s);
		break;
	case OP_RELEASE:
		do_release(s);
		break;
	case OP_READDIR:
		do_readdir(s);
		break;
	case OP_INTERRUPT:
		do_interrupt(s);
		break;
	case OP_ANSWER:
		attr_done(&s->late, number(s, 2) ? -EIO : 0);
		receive(s);
		break;
	case OP_REMOVE:
		i = number(s, 3);
		if (s->node[i])
			remove_node(s, i);
		break;
	}
}

/* ---- begin and end ---- */

static void begin(struct session *s)
{
	const struct fuse_init_in init = { .major = 7, .minor = 31, .max_readahead = 4096 };
	char *argv[] = { "fuzz", NULL }, path[32];
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int fds[2];

	assert(tree_init(&s->tree) == 0 && !socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds));
	s->node[0] = tree_add(&s->tree, &s->tree.root, "a", &kind, NULL);
	s->node[1] = tree_add(&s->tree, s->node[0], "b", &kind, NULL);
	s->node[2] = tree_add_link_to(&s->tree, &s->tree.root, "l", s->node[0]);
	s->kernel = fds[1];
	s->door.tree = &s->tree;
	list_init(&s->door.handles);
	list_init(&s->door.held);
	s->door.session = fuse_session_new(&args, &door_ops, sizeof(door_ops), &s->door);
	fuse_opt_free_args(&args);
	sprintf(path, "/dev/fd/%d", fds[0]); /* libfuse takes the channel from there */
	assert(s->door.session && fuse_session_mount(s->door.session, path) == 0);
	s->known[s->n_known++] = FUSE_ROOT_ID;
	if (ask(s, FUSE_INIT, 0, &init, sizeof(init), NULL, 0) < 0)
		assert(!"FUSE_INIT was refused");
}

static void end(struct session *s)
{
	attr_done(&s->late, 0);
	receive(s);
	assert(list_is_empty(&s->door.held));
	while (s->n_opened) {
		struct fuse_release_in in = { .fh = s->opened[--s->n_opened].fh };

		ask(s, FUSE_RELEASE, s->opened[s->n_opened].ino, &in, sizeof(in), NULL, 0);
	}
	assert(list_is_empty(&s->door.handles));
	fuse_session_destroy(s->door.session); /* closes its end */
	close(s->kernel);
	for (unsigned i = 3; i-- > 0;)
		if (s->node[i])
			remove_node(s, i);
	tree_fini(&s->tree); /* asserts that no node is held */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session s;

	log_init("fuzz", LOG_ERROR);
	memset(&s, 0, sizeof(s));
	s.in = buf_read_from(data, size);
	begin(&s);
	for (unsigned i = 0; i < MAX_OPS && s.in.left; i++)
		run_op(&s);
	end(&s);
	return 0;
}
