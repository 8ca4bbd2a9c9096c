/* SPDX-License-Identifier: MIT */
/*
 * The messages between umdevd and its workers as bytes. Each has one encoding: what decodes is
 * byte for byte what its encoder makes of the result.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/str.h"
#include "wire/mw.h"

#define TEXT_SIZE 256 /* of what people read, with its NUL */
#define TEXT_MAX_LEN (2 + TEXT_SIZE - 1)
#define MAX_ERRNO 4095
#define MAX_SIGNAL 64

#define S(state) (1 << MW_##state)

/* Rate of an answer that breaks the rules when nobody asked: as fast as anybody can ask. */
#define ASKED UINT16_MAX

/* Rates are far above what an honest worker sends and far below what would starve the manager. */
static const struct mw_rule rules[] = {
	/* type, name, to worker, target, payload min and max, descriptors min and max, states, rate
	 */
	/* A connection may follow CONFIG at once: it waits in the channel until the worker serves.
	 */
	{ MW_CONFIG, "CONFIG", true, MW_NOBODY, 12, 0xffff, 0, MW_MAX_FDS, S(STARTING), 0 },
	{ MW_CONNECT, "CONNECT", true, MW_ONE, 0, 0, 1, 1, S(STARTING) | S(READY), 0 },
	{ MW_PARAM_SET, "PARAM_SET", true, MW_ONE, 13, 331, 0, 0, S(READY), 0 },
	{ MW_RES_ADD, "RES_ADD", true, MW_ONE, 22, 53, 1, 1, S(READY), 0 },
	{ MW_RES_DEL, "RES_DEL", true, MW_ONE, 2, 33, 0, 0, S(READY), 0 },
	{ MW_RES_SIZE, "RES_SIZE", true, MW_ONE, 10, 41, 0, 0, S(READY), 0 },
	/* Again while stopping: an abort may overtake a clean stop. */
	{ MW_STOP, "STOP", true, MW_ONE_OR_ALL, 8, 8, 0, 0, S(STARTING) | S(READY) | S(STOPPING),
	  0 },
	{ MW_PING, "PING", true, MW_NOBODY, 0, 0, 0, 0, S(READY) | S(STOPPING), 0 },
	/* It may follow CONFIG, as CONNECT may. */
	{ MW_RESTART, "RESTART", true, MW_NOBODY, 10, 10 + 133 * MW_MAX_TYPES, 0, 0,
	  S(STARTING) | S(READY), 0 },
	{ MW_HOLD, "HOLD", true, MW_NOBODY, 0, 0, 0, 0, S(READY), 0 },
	{ MW_READY_MSG, "READY", false, MW_NOBODY, 0, 0, 0, 0, S(STARTING), 1 },
	{ MW_CLOSED, "CLOSED", false, MW_ONE, 6, 4 + TEXT_MAX_LEN, 0, 0, S(READY) | S(STOPPING),
	  1000 },
	{ MW_PARAM_DONE, "PARAM_DONE", false, MW_ONE, 4, 4, 0, 0, S(READY) | S(STOPPING), ASKED },
	{ MW_RES_DONE, "RES_DONE", false, MW_ONE, 4, 4, 0, 0, S(READY) | S(STOPPING), ASKED },
	{ MW_STATE, "STATE", false, MW_ONE, 6, 4 + TEXT_MAX_LEN, 0, 0,
	  S(STARTING) | S(READY) | S(STOPPING), 100 }, /* also: why it could not start */
	/* A worker may die while it starts, too. */
	{ MW_RESUMED, "RESUMED", false, MW_NOBODY, 8, 8, 0, 0, S(STARTING) | S(READY) | S(STOPPING),
	  1000 },
	{ MW_PONG, "PONG", false, MW_NOBODY, 0, 0, 0, 0, S(READY) | S(STOPPING), 100 },
	{ MW_RESTARTED, "RESTARTED", false, MW_NOBODY, 6, 4 + TEXT_MAX_LEN, 0, 0,
	  S(READY) | S(STOPPING), 100 },
};

const struct mw_rule *mw_rule(uint16_t type)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].type == type)
			return &rules[i];
	return NULL;
}

int64_t mw_len(const uint8_t *data, size_t have)
{
	struct buf_reader r = buf_read_from(data, have);
	uint32_t size = buf_get_u32(&r);

	if (r.bad)
		return 0;
	return size < MW_HEADER || size > MW_MAX ? -EPROTO : (int64_t)size;
}

static bool is_target(uint16_t member, enum mw_target target)
{
	switch (target) {
	case MW_NOBODY:
		return true;
	case MW_ONE_OR_ALL:
		if (member == MW_ALL)
			return true;
		break;
	case MW_ONE:
		break;
	}
	return member < MW_MAX_MEMBERS;
}

int mw_decode(const uint8_t *data, size_t len, unsigned n_fds, bool to_worker, struct mw_frame *ret)
{
	struct buf_reader r = buf_read_from(data, len);
	uint32_t size = buf_get_u32(&r), zero;
	struct mw_frame f;
	const struct mw_rule *rule;

	f.type = buf_get_u16(&r);
	f.member = buf_get_u16(&r);
	f.serial = buf_get_u32(&r);
	zero = buf_get_u32(&r);
	f.payload = r.at;
	f.len = r.left;
	rule = mw_rule(f.type);
	if (r.bad || size != len || len > MW_MAX || zero || !rule)
		return -EPROTO;
	if (rule->to_worker != to_worker || !is_target(f.member, rule->target))
		return -EPROTO;
	if (f.len < rule->min_len || f.len > rule->max_len || n_fds < rule->min_fds ||
	    n_fds > rule->max_fds)
		return -EPROTO;
	*ret = f;
	return 0;
}

/* ---- encoders ---- */

static struct buf_writer begin(uint8_t *out, size_t size, enum mw_type type, unsigned member,
			       uint32_t serial)
{
	struct buf_writer w = buf_write_to(out, size < MW_MAX ? size : MW_MAX);

	assert(mw_rule((uint16_t)type) && member <= UINT16_MAX);
	buf_put_u32(&w, 0); /* size, by end() */
	buf_put_u16(&w, (uint16_t)type);
	buf_put_u16(&w, (uint16_t)member);
	buf_put_u32(&w, serial);
	buf_put_u32(&w, 0);
	return w;
}

static int end(const struct buf_writer *w)
{
	uint32_t size = (uint32_t)w->len;

	if (w->bad)
		return -EMSGSIZE;
	memcpy(w->start, &size, sizeof(size));
	return (int)size;
}

/* Text for people, cut to what the receiver takes. */
static void put_line(struct buf_writer *w, const char *text)
{
	size_t len = strnlen(text, TEXT_SIZE - 1);

	buf_put_u16(w, (uint16_t)len);
	buf_put_bytes(w, text, len);
}

static void put_param(struct buf_writer *w, const struct mw_param *param)
{
	buf_put_text(w, param->name);
	buf_put_u8(w, (uint8_t)param->type);
	buf_put_u64(w, param->value.u64);
	buf_put_text(w, param->value.text);
}

static void put_resource(struct buf_writer *w, const struct mw_resource *res)
{
	buf_put_text(w, res->name);
	buf_put_u32(w, res->flags);
	buf_put_u64(w, res->offset);
	buf_put_u64(w, res->length);
}

static void put_member(struct buf_writer *w, const struct mw_member *m)
{
	assert(m->n_params <= MW_MAX_PARAMS && m->n_resources <= MW_MAX_RESOURCES);
	buf_put_bytes(w, m->uuid.b, sizeof(m->uuid.b));
	buf_put_text(w, m->driver);
	buf_put_text(w, m->type);
	buf_put_text(w, m->presentation);
	buf_put_u16(w, (uint16_t)m->n_params);
	buf_put_u16(w, (uint16_t)m->n_resources);
	for (unsigned i = 0; i < m->n_params; i++)
		put_param(w, &m->params[i]);
	for (unsigned i = 0; i < m->n_resources; i++)
		put_resource(w, &m->resources[i]);
}

int mw_put_config(uint8_t *out, size_t size, const struct mw_config *config)
{
	struct buf_writer w = begin(out, size, MW_CONFIG, 0, 0);

	if (config->n_members > MW_MAX_MEMBERS || mw_config_fds(config) > MW_MAX_FDS)
		return -EMSGSIZE;
	buf_put_u32(&w, config->version);
	buf_put_u32(&w, config->group);
	buf_put_u32(&w, config->n_members);
	for (unsigned i = 0; i < config->n_members; i++)
		put_member(&w, &config->members[i]);
	return end(&w);
}

int mw_put_param_set(uint8_t *out, size_t size, unsigned member, uint32_t serial,
		     const struct mw_param *param)
{
	struct buf_writer w = begin(out, size, MW_PARAM_SET, member, serial);

	put_param(&w, param);
	return end(&w);
}

int mw_put_res_add(uint8_t *out, size_t size, unsigned member, uint32_t serial,
		   const struct mw_resource *res)
{
	struct buf_writer w = begin(out, size, MW_RES_ADD, member, serial);

	put_resource(&w, res);
	return end(&w);
}

int mw_put_res_del(uint8_t *out, size_t size, unsigned member, uint32_t serial, const char *name)
{
	struct buf_writer w = begin(out, size, MW_RES_DEL, member, serial);

	buf_put_text(&w, name);
	return end(&w);
}

int mw_put_res_size(uint8_t *out, size_t size, unsigned member, uint32_t serial, const char *name,
		    uint64_t length)
{
	struct buf_writer w = begin(out, size, MW_RES_SIZE, member, serial);

	buf_put_text(&w, name);
	buf_put_u64(&w, length);
	return end(&w);
}

int mw_put_stop(uint8_t *out, size_t size, unsigned member, enum mw_stop_mode mode,
		uint32_t deadline_ms)
{
	struct buf_writer w = begin(out, size, MW_STOP, member, 0);

	buf_put_u32(&w, mode);
	buf_put_u32(&w, deadline_ms);
	return end(&w);
}

int mw_put_closed(uint8_t *out, size_t size, unsigned member, const struct mw_closed *closed)
{
	struct buf_writer w = begin(out, size, MW_CLOSED, member, 0);

	buf_put_u32(&w, closed->reason);
	put_line(&w, closed->text);
	return end(&w);
}

/* An errno, in answer to the frame of that serial. */
static int put_done(uint8_t *out, size_t size, enum mw_type type, unsigned member, uint32_t serial,
		    int error)
{
	struct buf_writer w = begin(out, size, type, member, serial);

	assert(error >= 0 && error <= MAX_ERRNO);
	buf_put_u32(&w, (uint32_t)error);
	return end(&w);
}

int mw_put_param_done(uint8_t *out, size_t size, unsigned member, uint32_t serial, int error)
{
	return put_done(out, size, MW_PARAM_DONE, member, serial, error);
}

int mw_put_res_done(uint8_t *out, size_t size, unsigned member, uint32_t serial, int error)
{
	return put_done(out, size, MW_RES_DONE, member, serial, error);
}

int mw_put_state(uint8_t *out, size_t size, unsigned member, enum mw_member_state state,
		 const char *text)
{
	struct buf_writer w = begin(out, size, MW_STATE, member, 0);

	buf_put_u32(&w, state);
	put_line(&w, text);
	return end(&w);
}

int mw_put_resumed(uint8_t *out, size_t size, int signal, uint32_t lives)
{
	struct buf_writer w = begin(out, size, MW_RESUMED, 0, 0);

	assert(signal >= 0 && signal <= MAX_SIGNAL);
	buf_put_u32(&w, (uint32_t)signal);
	buf_put_u32(&w, lives);
	return end(&w);
}

int mw_put_restart(uint8_t *out, size_t size, uint32_t serial, const struct mw_versions *versions)
{
	struct buf_writer w = begin(out, size, MW_RESTART, 0, serial);

	assert(versions->n_types <= MW_MAX_TYPES);
	buf_put_u32(&w, versions->worker);
	buf_put_u32(&w, versions->vfio);
	buf_put_u16(&w, (uint16_t)versions->n_types);
	for (unsigned i = 0; i < versions->n_types; i++) {
		buf_put_text(&w, versions->types[i].name);
		buf_put_u32(&w, versions->types[i].version);
	}
	return end(&w);
}

int mw_put_restarted(uint8_t *out, size_t size, uint32_t serial, const struct mw_restarted *done)
{
	struct buf_writer w = begin(out, size, MW_RESTARTED, 0, serial);

	assert(done->error <= MAX_ERRNO);
	buf_put_u32(&w, done->error);
	put_line(&w, done->text);
	return end(&w);
}

int mw_put_plain(uint8_t *out, size_t size, enum mw_type type, unsigned member, uint32_t serial)
{
	struct buf_writer w = begin(out, size, type, member, serial);

	assert(mw_rule((uint16_t)type)->min_len == 0);
	return end(&w);
}

/* ---- decoders ---- */

static struct buf_reader payload(const struct mw_frame *f, enum mw_type type)
{
	assert(f->type == type);
	return buf_read_from(f->payload, f->len);
}

/* 0, or -EPROTO when something was missing or is left over. */
static int finish(const struct buf_reader *r)
{
	return r->bad || r->left ? -EPROTO : 0;
}

/* A number that must not be above max. */
static uint32_t get_number(struct buf_reader *r, uint32_t max)
{
	uint32_t v = buf_get_u32(r);

	if (v > max)
		r->bad = true;
	return v;
}

static void get_line(struct buf_reader *r, char ret[TEXT_SIZE])
{
	buf_get_text(r, ret, TEXT_SIZE);
	if (str_is_clean(ret, strlen(ret)))
		return;
	for (char *c = ret; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
}

static void get_param(struct buf_reader *r, struct mw_param *ret)
{
	uint8_t type;

	buf_get_text(r, ret->name, sizeof(ret->name));
	type = buf_get_u8(r);
	if (type > UMDEV_ENUM)
		r->bad = true;
	ret->type = type;
	ret->value.u64 = buf_get_u64(r);
	buf_get_text(r, ret->value.text, sizeof(ret->value.text));
}

static void get_resource(struct buf_reader *r, struct mw_resource *ret)
{
	buf_get_text(r, ret->name, sizeof(ret->name));
	ret->flags = buf_get_u32(r);
	ret->offset = buf_get_u64(r);
	ret->length = buf_get_u64(r);
}

static void get_member(struct buf_reader *r, struct mw_member *ret)
{
	const uint8_t *uuid = buf_take(r, sizeof(ret->uuid.b));

	if (uuid)
		memcpy(ret->uuid.b, uuid, sizeof(ret->uuid.b));
	buf_get_text(r, ret->driver, sizeof(ret->driver));
	buf_get_text(r, ret->type, sizeof(ret->type));
	buf_get_text(r, ret->presentation, sizeof(ret->presentation));
	ret->n_params = buf_get_u16(r);
	ret->n_resources = buf_get_u16(r);
	if (ret->n_params > MW_MAX_PARAMS || ret->n_resources > MW_MAX_RESOURCES)
		r->bad = true;
	for (unsigned i = 0; i < ret->n_params && !r->bad; i++)
		get_param(r, &ret->params[i]);
	for (unsigned i = 0; i < ret->n_resources && !r->bad; i++)
		get_resource(r, &ret->resources[i]);
}

int mw_get_config(const struct mw_frame *f, struct mw_config *ret)
{
	struct buf_reader r = payload(f, MW_CONFIG);
	struct mw_config config = { .version = buf_get_u32(&r) };

	config.group = buf_get_u32(&r);
	config.n_members = get_number(&r, MW_MAX_MEMBERS);
	if (r.bad || config.version != MW_VERSION)
		return -EPROTO;
	config.members = calloc(config.n_members ? config.n_members : 1, sizeof(*config.members));
	if (!config.members)
		return -ENOMEM;
	for (unsigned i = 0; i < config.n_members && !r.bad; i++)
		get_member(&r, &config.members[i]);
	if (finish(&r) < 0 || mw_config_fds(&config) > MW_MAX_FDS) {
		mw_config_free(&config);
		return -EPROTO;
	}
	*ret = config;
	return 0;
}

void mw_config_free(struct mw_config *config)
{
	free(config->members);
	config->members = NULL;
	config->n_members = 0;
}

unsigned mw_config_fds(const struct mw_config *config)
{
	unsigned n = 0;

	for (unsigned i = 0; i < config->n_members; i++)
		n += config->members[i].n_resources;
	return n;
}

int mw_get_param_set(const struct mw_frame *f, struct mw_param *ret)
{
	struct buf_reader r = payload(f, MW_PARAM_SET);
	struct mw_param param;

	get_param(&r, &param);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = param;
	return 0;
}

int mw_get_res_add(const struct mw_frame *f, struct mw_resource *ret)
{
	struct buf_reader r = payload(f, MW_RES_ADD);
	struct mw_resource res;

	get_resource(&r, &res);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = res;
	return 0;
}

int mw_get_res_del(const struct mw_frame *f, char ret_name[32])
{
	struct buf_reader r = payload(f, MW_RES_DEL);
	char name[32];

	buf_get_text(&r, name, sizeof(name));
	if (finish(&r) < 0)
		return -EPROTO;
	memcpy(ret_name, name, sizeof(name));
	return 0;
}

int mw_get_res_size(const struct mw_frame *f, char ret_name[32], uint64_t *ret_length)
{
	struct buf_reader r = payload(f, MW_RES_SIZE);
	uint64_t length;
	char name[32];

	buf_get_text(&r, name, sizeof(name));
	length = buf_get_u64(&r);
	if (finish(&r) < 0)
		return -EPROTO;
	memcpy(ret_name, name, sizeof(name));
	*ret_length = length;
	return 0;
}

int mw_get_stop(const struct mw_frame *f, enum mw_stop_mode *ret_mode, uint32_t *ret_deadline_ms)
{
	struct buf_reader r = payload(f, MW_STOP);
	uint32_t mode = get_number(&r, MW_STOP_ASK), deadline_ms = buf_get_u32(&r);

	if (finish(&r) < 0)
		return -EPROTO;
	*ret_mode = mode;
	*ret_deadline_ms = deadline_ms;
	return 0;
}

int mw_get_closed(const struct mw_frame *f, struct mw_closed *ret)
{
	struct buf_reader r = payload(f, MW_CLOSED);
	struct mw_closed closed = { .reason = buf_get_u32(&r) };

	get_line(&r, closed.text);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = closed;
	return 0;
}

static int get_done(const struct mw_frame *f, enum mw_type type, int *ret_error)
{
	struct buf_reader r = payload(f, type);
	uint32_t error = get_number(&r, MAX_ERRNO);

	if (finish(&r) < 0)
		return -EPROTO;
	*ret_error = (int)error;
	return 0;
}

int mw_get_param_done(const struct mw_frame *f, int *ret_error)
{
	return get_done(f, MW_PARAM_DONE, ret_error);
}

int mw_get_res_done(const struct mw_frame *f, int *ret_error)
{
	return get_done(f, MW_RES_DONE, ret_error);
}

int mw_get_state(const struct mw_frame *f, enum mw_member_state *ret, char ret_text[256])
{
	struct buf_reader r = payload(f, MW_STATE);
	uint32_t state = get_number(&r, MW_MEMBER_FAULTY);
	char text[TEXT_SIZE];

	get_line(&r, text);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = state;
	memcpy(ret_text, text, sizeof(text));
	return 0;
}

int mw_get_resumed(const struct mw_frame *f, int *ret_signal, uint32_t *ret_lives)
{
	struct buf_reader r = payload(f, MW_RESUMED);
	uint32_t signal = get_number(&r, MAX_SIGNAL), lives = buf_get_u32(&r);

	if (finish(&r) < 0)
		return -EPROTO;
	*ret_signal = (int)signal;
	*ret_lives = lives;
	return 0;
}

int mw_get_restart(const struct mw_frame *f, struct mw_versions *ret)
{
	struct buf_reader r = payload(f, MW_RESTART);

	ret->worker = buf_get_u32(&r);
	ret->vfio = buf_get_u32(&r);
	ret->n_types = buf_get_u16(&r);
	if (ret->n_types > MW_MAX_TYPES)
		return -EPROTO;
	for (unsigned i = 0; i < ret->n_types && !r.bad; i++) {
		buf_get_text(&r, ret->types[i].name, sizeof(ret->types[i].name));
		ret->types[i].version = buf_get_u32(&r);
	}
	return finish(&r);
}

int mw_get_restarted(const struct mw_frame *f, struct mw_restarted *ret)
{
	struct buf_reader r = payload(f, MW_RESTARTED);
	struct mw_restarted done = { .error = get_number(&r, MAX_ERRNO) };

	get_line(&r, done.text);
	if (finish(&r) < 0)
		return -EPROTO;
	*ret = done;
	return 0;
}
