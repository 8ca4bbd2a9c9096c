/* SPDX-License-Identifier: MIT */
/*
 * Whole sessions of umdevd with a worker that was taken over: frames in any order and any state,
 * bytes that are no frames, hang-ups, exits, while clients come and go, parameters change and
 * devices are removed. The process is a pretended one; everything above it is umdevd's.
 *
 * Invariants: whatever the worker says ends at most itself; a worker that was killed is reaped; no
 * device, worker or descriptor is left.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/err.h"
#include "manager/listener.h"
#include "manager/worker_proc.h"
#include "manager_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 100
#define DEVICES 2
#define PID 0x7ffffff0 /* above pid_max of any Linux */

enum op {
	OP_CONNECT, /* a client of a device */
	OP_LEAVE,
	OP_READY,
	OP_CLOSED,
	OP_PARAM_DONE,
	OP_STATE,
	OP_RESUMED,
	OP_PONG,
	OP_FRAME, /* well framed: type, member, serial, payload */
	OP_RAW,   /* bytes as they are */
	OP_DEAF,  /* reads no more what it is told; or does again */
	OP_HANGUP,
	OP_EXIT,
	OP_PARAM, /* somebody changes one */
	OP_REMOVE,
	OPS,
};

struct session {
	struct manager_rig *rig;
	struct buf_reader in;
	int client[DEVICES]; /* ends of clients; -1: none */
	/* The process. */
	bool alive, dead; /* neither: there is none; dead: not reaped yet */
	bool deaf;
	int channel, exit_fd; /* -1: closed */
	siginfo_t end;
	uint32_t serial; /* of the last PARAM_SET that it read */
};

static struct session session;
static const char *const uuids[DEVICES] = { "a0000000-0000-4000-8000-000000000001",
					    "a0000000-0000-4000-8000-000000000002" };

/* ---- the process ---- */

int __real_kill(pid_t pid, int signal);
int __wrap_kill(pid_t pid, int signal);
int __real_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
int __wrap_pidfd_open(pid_t pid, unsigned flags);
int __real_pidfd_open(pid_t pid, unsigned flags);
int __wrap_pidfd_send_signal(int pidfd, int signal, siginfo_t *info, unsigned flags);
int __wrap_posix_spawn(pid_t *ret, const char *path, const posix_spawn_file_actions_t *actions,
		       const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int __real_sock_pair(int ret[2]);
int __wrap_sock_pair(int ret[2]);

static void hang_up(struct session *s)
{
	if (s->channel >= 0)
		close(s->channel);
	s->channel = -1;
}

static void die(struct session *s, int code, int status)
{
	if (!s->alive)
		return;
	s->alive = false;
	s->dead = true;
	s->end = (siginfo_t){ .si_code = code };
	s->end.si_pid = PID;
	s->end.si_status = status;
	hang_up(s);
	eventfd_write(s->exit_fd, 1);
	close(s->exit_fd);
}

int __wrap_kill(pid_t pid, int signal)
{
	if (pid != -PID)
		return __real_kill(pid, signal);
	die(&session, CLD_KILLED, signal);
	return 0;
}

int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	if (type != P_PID || id != PID)
		return __real_waitid(type, id, info, options);
	if (session.dead)
		*info = session.end;
	session.dead = false;
	return 0;
}

int __wrap_pidfd_send_signal(int pidfd, int signal, siginfo_t *info, unsigned flags)
{
	die(&session, CLD_KILLED, signal);
	return 0;
}

int __wrap_pidfd_open(pid_t pid, unsigned flags)
{
	return pid == PID ? dup(session.exit_fd) : __real_pidfd_open(pid, flags);
}

/* The channel of the worker that is about to be spawned. */
int __wrap_sock_pair(int ret[2])
{
	struct session *s = &session;
	int r = __real_sock_pair(ret);

	assert(!s->alive && !s->dead && s->channel < 0); /* one worker per group */
	if (r == 0)
		s->channel = dup(ret[1]);
	return r;
}

int __wrap_posix_spawn(pid_t *ret, const char *path, const posix_spawn_file_actions_t *actions,
		       const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	session.exit_fd = eventfd(0, EFD_CLOEXEC);
	session.alive = true;
	session.deaf = false;
	*ret = PID;
	return 0;
}

/* Descriptors that ride along are not received. */
static void listen_to_manager(struct session *s)
{
	static uint8_t data[MW_MAX];
	struct buf_reader r;
	ssize_t n;

	while (s->channel >= 0 && !s->deaf &&
	       (n = recv(s->channel, data, MW_HEADER, MSG_DONTWAIT)) == MW_HEADER) {
		uint32_t size;
		uint16_t type;

		r = buf_read_from(data, MW_HEADER);
		size = buf_get_u32(&r);
		type = buf_get_u16(&r);
		buf_get_u16(&r);
		if (type == MW_PARAM_SET)
			s->serial = buf_get_u32(&r);
		if (recv(s->channel, data, size - MW_HEADER, MSG_DONTWAIT) < 0)
			return; /* no payload, or the rest comes later: out of step is as good */
	}
}

static void say(struct session *s, const void *data, int len)
{
	if (s->channel >= 0 && len > 0)
		send(s->channel, data, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- what it says ---- */

static const uint8_t *some_bytes(struct session *s, size_t *ret_len)
{
	size_t len = buf_get_u8(&s->in);
	const uint8_t *p;

	if (len > s->in.left)
		len = s->in.left;
	p = buf_take(&s->in, len);
	*ret_len = p ? len : 0;
	return p;
}

static void say_text(struct session *s, unsigned op)
{
	struct mw_closed closed = { .reason = buf_get_u8(&s->in) };
	uint8_t out[MW_HEADER + 512];
	unsigned member = buf_get_u8(&s->in) % 4;
	char text[256] = { 0 };
	const uint8_t *p;
	size_t len;

	p = some_bytes(s, &len);
	if (len)
		memcpy(text, p, len);
	memcpy(closed.text, text, sizeof(closed.text));
	if (op == OP_CLOSED)
		say(s, out, mw_put_closed(out, sizeof(out), member, &closed));
	else
		say(s, out, mw_put_state(out, sizeof(out), member, closed.reason % 3, text));
}

static void say_frame(struct session *s)
{
	uint8_t out[MW_HEADER + 255];
	struct buf_writer w = buf_write_to(out, sizeof(out));
	uint16_t type = buf_get_u8(&s->in) % 48, member = buf_get_u8(&s->in) % 4;
	uint32_t serial = buf_get_u8(&s->in);
	const uint8_t *p;
	size_t len;

	p = some_bytes(s, &len);
	buf_put_u32(&w, MW_HEADER + len);
	buf_put_u16(&w, type);
	buf_put_u16(&w, member == 3 ? MW_ALL : member);
	buf_put_u32(&w, serial == 0xff ? s->serial : serial);
	buf_put_u32(&w, 0);
	buf_put_bytes(&w, p, len);
	say(s, out, (int)w.len);
}

static void say_plain(struct session *s, unsigned op)
{
	uint8_t out[MW_HEADER + 64];
	unsigned a = buf_get_u8(&s->in), member = buf_get_u8(&s->in) % 4;
	int len;

	if (op == OP_READY)
		len = mw_put_plain(out, sizeof(out), MW_READY_MSG, 0, 0);
	else if (op == OP_PONG)
		len = mw_put_plain(out, sizeof(out), MW_PONG, 0, a);
	else if (op == OP_RESUMED)
		len = mw_put_resumed(out, sizeof(out), 1 + (int)a % 64, a + 1);
	else
		len = mw_put_param_done(out, sizeof(out), member, s->serial, (int)a % 40);
	say(s, out, len);
}

/* ---- the others ---- */

static struct umdev_mdev *device(struct session *s, unsigned i)
{
	struct uuid uuid;

	if (uuid_parse(uuids[i], strlen(uuids[i]), &uuid) < 0)
		abort();
	return mdev_find(&s->rig->m.core, &uuid);
}

static void leave(struct session *s, unsigned i)
{
	if (s->client[i] >= 0)
		close(s->client[i]);
	s->client[i] = -1;
}

static void connect_client(struct session *s, unsigned i)
{
	struct umdev_mdev *mdev = device(s, i);
	int pair[2];

	if (!mdev || mdev->state == MDEV_REMOVING || !mdev->manager || __real_sock_pair(pair) < 0)
		return;
	leave(s, i);
	s->client[i] = pair[0];
	listener_adopt(mdev->manager, pair[1]);
}

static void change(struct session *s)
{
	struct umdev_mdev *mdev = device(s, buf_get_u8(&s->in) % DEVICES);
	const uint8_t *text;
	size_t len;

	text = some_bytes(s, &len);
	if (!mdev || mdev->state == MDEV_REMOVING)
		return;
	if (len)
		param_set(mdev, "note", (const char *)text, len, NULL);
	else
		param_set(mdev, "gain", "7", 1, NULL);
}

static void remove_device(struct session *s)
{
	uint8_t how = buf_get_u8(&s->in);
	struct umdev_mdev *mdev = device(s, how % DEVICES);

	if (mdev)
		mdev_remove(mdev, how & 0x80 ? MDEV_REMOVE_FORCE : MDEV_REMOVE, NULL);
}

static void run_op(struct session *s)
{
	unsigned op = buf_get_u8(&s->in) % OPS;
	const uint8_t *p;
	size_t len;

	err_clear();
	switch ((enum op)op) {
	case OP_CONNECT:
		connect_client(s, buf_get_u8(&s->in) % DEVICES);
		break;
	case OP_LEAVE:
		leave(s, buf_get_u8(&s->in) % DEVICES);
		break;
	case OP_READY:
	case OP_PARAM_DONE:
	case OP_RESUMED:
	case OP_PONG:
		say_plain(s, op);
		break;
	case OP_CLOSED:
	case OP_STATE:
		say_text(s, op);
		break;
	case OP_FRAME:
		say_frame(s);
		break;
	case OP_RAW:
		p = some_bytes(s, &len);
		say(s, p, (int)len);
		break;
	case OP_DEAF:
		s->deaf = !s->deaf;
		break;
	case OP_HANGUP:
		hang_up(s);
		break;
	case OP_EXIT:
		die(s, buf_get_u8(&s->in) & 1 ? CLD_EXITED : CLD_KILLED, SIGSEGV);
		break;
	case OP_PARAM:
		change(s);
		break;
	case OP_REMOVE:
		remove_device(s);
		break;
	case OPS:
		break;
	}
	manager_rig_settle(s->rig);
	listen_to_manager(s);
}

/* ---- begin and end ---- */

static void begin(struct session *s)
{
	static const struct core_setting wait = { "remove", "wait" };
	bool waits = buf_get_u8(&s->in) & 1;
	struct umdev_parent *parent;
	struct umdev_mdev *mdev;

	s->rig = manager_rig_begin();
	s->channel = s->client[0] = s->client[1] = -1;
	if (parent_add(&s->rig->m.core, "p", "test", &wait, waits, &parent) < 0)
		abort();
	for (unsigned i = 0; i < DEVICES; i++) {
		char spec[160];

		snprintf(spec, sizeof(spec), "%s,peer_to_peer_resource_uuid=%s", uuids[i],
			 uuids[0]);
		if (mdev_create(type_find(parent, "test-dma"), spec, strlen(spec), &mdev) < 0)
			abort();
	}
}

static void end(struct session *s)
{
	for (unsigned i = 0; i < DEVICES; i++)
		leave(s, i);
	manager_rig_settle(s->rig);
	die(s, CLD_EXITED, 0);
	manager_rig_settle(s->rig); /* may start another one for who waited */
	die(s, CLD_EXITED, 0);
	manager_rig_settle(s->rig);
	assert(!s->alive && !s->dead);
	manager_rig_end(s->rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session *s = &session;

	memset(s, 0, sizeof(*s));
	s->in = buf_read_from(data, size);
	begin(s);
	for (unsigned i = 0; i < MAX_OPS && s->in.left; i++)
		run_op(s);
	end(s);
	return 0;
}
