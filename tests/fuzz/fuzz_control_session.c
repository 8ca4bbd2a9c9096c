/* SPDX-License-Identifier: MIT */
/*
 * Whole sessions with the control socket: clients that send calls of every method with words that
 * mean something, bytes that mean nothing, do not read, and hang up.
 *
 * Invariants: what a client gets is Varlink, one final reply per call at most; a call of a client
 * that only sent whole ones is answered before the next one; nothing of it is left at the end.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/buf.h"
#include "manager/control.h"
#include "manager_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OPS 100
#define CLIENTS 2

enum op { OP_CALL, OP_CALL_AGAIN, OP_READ, OP_RAW, OP_HANGUP, OPS };

struct client {
	int fd; /* -1: not connected */
	unsigned calls;
	bool in_step; /* it sent nothing but whole calls */
};

struct session {
	struct manager_rig *rig;
	struct buf_reader in;
	struct client client[CLIENTS];
};

#define UUID_A "a0000000-0000-4000-8000-000000000001"
#define UUID_B "a0000000-0000-4000-8000-000000000002"

static const char *const words[] = {
	"p",
	"q",
	"test",
	"mtty",
	"test-regs",
	"test-dma",
	"mtty-1",
	"mtty-2",
	UUID_A,
	UUID_B,
	"label=web",
	"label",
	"web",
	"gain",
	"gain=7",
	"13",
	"note",
	"color",
	"red",
	"backend=none",
	"backend",
	"socket",
	"params=off",
	"remove=wait",
	"aggregation=2",
	"aggregation",
	"peer_to_peer_resource_uuid=" UUID_A,
	"peer_to_peer_resource_uuid",
	"1",
	"",
	"/",
	"/class/mdev_bus/p/mdev_supported_types/test-regs/create",
	"/class/mdev_bus/q/mdev_supported_types/mtty-2/create",
	"/bus/mdev/devices/" UUID_A "/remove",
	"/bus/mdev/devices/" UUID_A "/vendor/gain/value",
	"/bus/mdev/devices",
	"/bus/mdev/drivers/vfio_mdev/unbind",
	"/bus/mdev/devices/" UUID_B,
	"io.umdev",
	"org.varlink.service",
};
#define N_WORDS (sizeof(words) / sizeof(words[0]))

static struct client *any_client(struct session *s)
{
	static const char name[] = "control";
	struct client *c = &s->client[buf_get_u8(&s->in) % CLIENTS];
	char path[128];

	if (c->fd >= 0)
		return c;
	snprintf(path, sizeof(path), "%s/%s", s->rig->m.config.run_dir, name);
	*c = (struct client){ .fd = sock_connect(path), .in_step = true };
	if (c->fd < 0 || fd_set_nonblock(c->fd, true) < 0)
		abort();
	return c;
}

static void hang_up(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void send_bytes(struct client *c, const void *data, size_t len)
{
	if (send(c->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
		c->in_step = false; /* it was dropped, or does not read itself */
}

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

/* How well the number of an input fits a name. */
static uint32_t fit(const char *name, uint16_t number)
{
	uint32_t hash = 2166136261u ^ number;

	for (const char *c = name; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	hash ^= hash >> 15;
	hash *= 0x2c1b3c6du;
	return hash ^ hash >> 12;
}

/*
 * Names are chosen by what they are, not by where they stand: to a number belongs the name that
 * fits it best. One more name takes its share of the numbers, and all others keep theirs, so that
 * the corpus goes on meaning what it did when a method or a word is added.
 */
static const struct control_method *any_method(struct session *s)
{
	uint16_t number = buf_get_u16(&s->in);
	const struct control_method *best = control_methods;

	for (const struct control_method *m = control_methods + 1; m->name; m++)
		if (fit(m->name, number) > fit(best->name, number))
			best = m;
	return best;
}

static const char *any_word(uint16_t number)
{
	unsigned best = 0;

	for (unsigned i = 1; i < N_WORDS; i++)
		if (fit(words[i], number) > fit(words[best], number))
			best = i;
	return words[best];
}

/* A word, or any text. */
static json_t *any_text(struct session *s)
{
	uint16_t number = buf_get_u16(&s->in);
	const uint8_t *p;
	size_t len;

	if (number < 0xf000)
		return json_string(any_word(number));
	p = some_bytes(s, &len);
	return json_stringn((const char *)p, len);
}

static json_t *any_value(struct session *s, enum varlink_kind kind)
{
	json_t *array;

	switch (kind) {
	case VARLINK_TEXT:
		return any_text(s);
	case VARLINK_BOOL:
		return json_boolean(buf_get_u8(&s->in) & 1);
	case VARLINK_INT:
		return json_integer(buf_get_u8(&s->in));
	case VARLINK_TEXTS:
		array = json_array();
		for (unsigned n = buf_get_u8(&s->in) % 4; n; n--)
			json_array_append_new(array, any_text(s));
		return array;
	case VARLINK_OBJECTS:
		array = json_array();
		for (unsigned n = buf_get_u8(&s->in) % 4; n; n--)
			json_array_append_new(array,
					      json_pack("{s:o, s:o, s:o*, s:o*, s:[o*]}", "verb",
							any_text(s), "name", any_text(s), "parent",
							any_text(s), "type", any_text(s),
							"settings", any_text(s)));
		return array;
	}
	return NULL;
}

static void call(struct session *s, struct client *c)
{
	const struct control_method *method;
	const struct varlink_field *f;
	unsigned flags;
	json_t *params = json_object(), *message;
	char *text;

	method = any_method(s);
	flags = buf_get_u8(&s->in);
	for (f = method->params; f->name; f++)
		if (!(flags & 0x80) || !f->optional) /* json_null() would be as good */
			json_object_set_new(params, f->name, any_value(s, f->kind));
	message = json_pack("{s:s, s:o, s:b, s:b}", "method", method->name, "parameters", params,
			    "more", (flags & 3) == 3, "oneway", (flags & 7) == 4);
	text = json_dumps(message, JSON_COMPACT);
	send_bytes(c, text, strlen(text) + 1);
	c->calls++;
	free(text);
	json_decref(message);
}

/* Whole messages out of data; the rest stays. */
static size_t judge(struct client *c, const char *data, size_t len)
{
	struct varlink_reply reply;
	const char *nul;
	size_t at = 0;

	while ((nul = memchr(data + at, 0, len - at))) {
		size_t one = (size_t)(nul - data) - at;

		if (varlink_parse_reply(data + at, one, &reply) < 0)
			assert(!"what came is no Varlink");
		if (!reply.continues && c->in_step)
			assert(c->calls-- > 0);
		varlink_reply_fini(&reply);
		at += one + 1;
	}
	return at;
}

static void read_all(struct session *s, struct client *c)
{
	static char data[2 * VARLINK_MSG_MAX];
	size_t have = 0, done;
	ssize_t n;

	do {
		manager_rig_settle(s->rig);
		n = recv(c->fd, data + have, sizeof(data) - have, MSG_DONTWAIT);
		if (n <= 0)
			break;
		have += (size_t)n;
		done = judge(c, data, have);
		memmove(data, data + done, have - done);
		have -= done;
	} while (true);
	assert(have == 0 || n == 0); /* whole messages, if it was not dropped */
	if (n == 0)
		hang_up(c);
}

static void run_op(struct session *s)
{
	unsigned op = buf_get_u8(&s->in) % OPS;
	struct client *c = any_client(s);
	const uint8_t *p;
	size_t len;

	switch ((enum op)op) {
	case OP_CALL:
	case OP_CALL_AGAIN:
		call(s, c);
		break;
	case OP_READ:
		read_all(s, c);
		break;
	case OP_RAW:
		p = some_bytes(s, &len);
		c->in_step = false;
		if (len)
			send_bytes(c, p, len);
		break;
	case OP_HANGUP:
		hang_up(c);
		break;
	case OPS:
		break;
	}
	manager_rig_settle(s->rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session s;

	memset(&s, 0, sizeof(s));
	s.in = buf_read_from(data, size);
	s.rig = manager_rig_begin();
	for (unsigned i = 0; i < CLIENTS; i++)
		s.client[i].fd = -1;
	for (unsigned i = 0; i < MAX_OPS && s.in.left; i++)
		run_op(&s);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (s.client[i].fd >= 0)
			read_all(&s, &s.client[i]);
		hang_up(&s.client[i]);
	}
	manager_rig_end(s.rig);
	return 0;
}
