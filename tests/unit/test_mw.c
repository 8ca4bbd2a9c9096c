/* SPDX-License-Identifier: MIT */
/*
 * Properties of the manager-worker messages, over random contents: what is encoded decodes to the
 * same, every shorter and every longer payload is refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "wire/mw.h"

#define ROUNDS 50

static uint64_t seed = 20261120;

/* xorshift: the same numbers in every run */
static uint32_t rnd(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 20) % below;
}

static void random_text(char *text, size_t size)
{
	size_t len = rnd(4) ? rnd((uint32_t)size) : size - 1;

	memset(text, 0, size);
	for (size_t i = 0; i < len; i++)
		text[i] = (char)(' ' + rnd(95));
}

/* In place and from zero: the tests compare memory, padding included. */
static void random_param(struct mw_param *p)
{
	memset(p, 0, sizeof(*p));
	p->type = rnd(UMDEV_ENUM + 1);
	random_text(p->name, sizeof(p->name));
	random_text(p->value.text, sizeof(p->value.text));
	p->value.u64 = seed;
}

static void random_resource(struct mw_resource *r)
{
	memset(r, 0, sizeof(*r));
	r->flags = rnd(32);
	r->offset = seed * 3;
	r->length = seed * 5;
	random_text(r->name, sizeof(r->name));
}

/* Decodes the frame as its receiver does. *ret is big enough for every message but CONFIG. */
static int get(const uint8_t *data, size_t len, unsigned n_fds, bool to_worker,
	       struct mw_frame *ret_frame, void *ret)
{
	struct {
		int a;
		uint32_t b;
		char text[256];
	} *plain = ret;
	struct mw_config config;
	int r = mw_decode(data, len, n_fds, to_worker, ret_frame);

	if (r < 0)
		return r;
	switch (ret_frame->type) {
	case MW_CONFIG:
		r = mw_get_config(ret_frame, &config);
		if (r == 0)
			mw_config_free(&config);
		return r;
	case MW_PARAM_SET:
		return mw_get_param_set(ret_frame, ret);
	case MW_RES_ADD:
		return mw_get_res_add(ret_frame, ret);
	case MW_RES_DEL:
		return mw_get_res_del(ret_frame, ret);
	case MW_RES_SIZE:
		return mw_get_res_size(ret_frame, plain->text, (uint64_t *)ret);
	case MW_RES_DONE:
		return mw_get_res_done(ret_frame, &plain->a);
	case MW_STOP:
		return mw_get_stop(ret_frame, (enum mw_stop_mode *)&plain->a, &plain->b);
	case MW_CLOSED:
		return mw_get_closed(ret_frame, ret);
	case MW_PARAM_DONE:
		return mw_get_param_done(ret_frame, &plain->a);
	case MW_STATE:
		return mw_get_state(ret_frame, (enum mw_member_state *)&plain->a, plain->text);
	case MW_RESTART:
		return mw_get_restart(ret_frame, ret);
	case MW_RESTARTED:
		return mw_get_restarted(ret_frame, ret);
	case MW_RESUMED:
		return mw_get_resumed(ret_frame, &plain->a, &plain->b);
	default:
		return 0;
	}
}

/* The frame is accepted as it is, and refused at every other length of its payload. */
static void check_lengths(uint8_t *frame, int len, unsigned n_fds, bool to_worker)
{
	_Alignas(16) uint8_t ret[4096];
	struct mw_frame f;
	uint32_t size;

	assert_true(len >= MW_HEADER);
	assert_int_equal(mw_len(frame, (size_t)len), len);
	assert_int_equal(get(frame, (size_t)len, n_fds, to_worker, &f, ret), 0);
	assert_int_equal(get(frame, (size_t)len, n_fds, !to_worker, &f, ret), -EPROTO);
	for (size = 0; size < (uint32_t)len; size++) {
		uint8_t *cut = malloc(size ? size : 1); /* a read past it is seen by ASan */

		memcpy(cut, frame, size);
		if (size >= sizeof(size))
			memcpy(cut, &size, sizeof(size));
		assert_int_equal(get(cut, size, n_fds, to_worker, &f, ret), -EPROTO);
		free(cut);
	}
	frame[len] = 0;
	size = (uint32_t)len + 1;
	memcpy(frame, &size, sizeof(size));
	assert_int_equal(get(frame, size, n_fds, to_worker, &f, ret), -EPROTO);
	size = (uint32_t)len;
	memcpy(frame, &size, sizeof(size));
}

static void random_member(struct mw_member *m)
{
	for (unsigned i = 0; i < sizeof(m->uuid.b); i++)
		m->uuid.b[i] = (uint8_t)rnd(256);
	random_text(m->driver, sizeof(m->driver));
	random_text(m->type, sizeof(m->type));
	random_text(m->presentation, sizeof(m->presentation));
	m->n_params = rnd(4);
	m->n_resources = rnd(4);
	for (unsigned i = 0; i < m->n_params; i++)
		random_param(&m->params[i]);
	for (unsigned i = 0; i < m->n_resources; i++)
		random_resource(&m->resources[i]);
}

static void config_survives_the_wire(void **state)
{
	static uint8_t frame[MW_MAX + 1];

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct mw_config in = { .version = MW_VERSION, .group = rnd(1000) }, out;
		struct mw_frame f;
		int len;

		in.n_members = rnd(round == 0 ? 1 : 4);
		in.members = calloc(in.n_members + 1, sizeof(*in.members));
		for (unsigned i = 0; i < in.n_members; i++)
			random_member(&in.members[i]);
		len = mw_put_config(frame, sizeof(frame), &in);
		assert_int_equal(mw_decode(frame, (size_t)len, 5, true, &f), 0);
		assert_int_equal(mw_get_config(&f, &out), 0);
		assert_int_equal(out.group, in.group);
		assert_int_equal(out.n_members, in.n_members);
		assert_memory_equal(out.members, in.members, in.n_members * sizeof(*in.members));
		assert_int_equal(mw_config_fds(&out), mw_config_fds(&in));
		mw_config_free(&out);
		if (round < 5)
			check_lengths(frame, len, 0, true);
		free(in.members);
	}
}

static void params_survive_the_wire(void **state)
{
	uint8_t frame[512];

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct mw_param in, out = { 0 };
		struct mw_frame f;
		int len;

		random_param(&in);
		len = mw_put_param_set(frame, sizeof(frame), round % MW_MAX_MEMBERS, round, &in);
		assert_int_equal(get(frame, (size_t)len, 0, true, &f, &out), 0);
		assert_int_equal(f.type, MW_PARAM_SET);
		assert_int_equal(f.member, round % MW_MAX_MEMBERS);
		assert_int_equal(f.serial, round);
		assert_string_equal(out.name, in.name);
		assert_int_equal(out.type, in.type);
		assert_true(out.value.u64 == in.value.u64);
		assert_string_equal(out.value.text, in.value.text);
		check_lengths(frame, len, 0, true);
	}
}

static void resources_survive_the_wire(void **state)
{
	uint8_t frame[512];
	char name[32];

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct mw_resource in, out;
		struct mw_frame f;
		int len;

		random_resource(&in);
		len = mw_put_res_add(frame, sizeof(frame), 3, 17, &in);
		assert_int_equal(get(frame, (size_t)len, 1, true, &f, &out), 0);
		assert_string_equal(out.name, in.name);
		assert_int_equal(out.flags, in.flags);
		assert_true(out.offset == in.offset && out.length == in.length);
		check_lengths(frame, len, 1, true);
		len = mw_put_res_del(frame, sizeof(frame), 3, 18, in.name);
		assert_int_equal(get(frame, (size_t)len, 0, true, &f, name), 0);
		assert_string_equal(name, in.name);
		check_lengths(frame, len, 0, true);
		len = mw_put_res_size(frame, sizeof(frame), 3, 19, in.name, in.length);
		assert_int_equal(mw_decode(frame, (size_t)len, 0, true, &f), 0);
		assert_int_equal(mw_get_res_size(&f, name, &out.length), 0);
		assert_string_equal(name, in.name);
		assert_true(out.length == in.length);
		check_lengths(frame, len, 0, true);
	}
}

static void commands_survive_the_wire(void **state)
{
	uint8_t frame[512];
	enum mw_stop_mode mode;
	uint32_t deadline;
	struct mw_frame f;
	int len = mw_put_stop(frame, sizeof(frame), MW_ALL, MW_STOP_ABORT, 2000);

	assert_int_equal(mw_decode(frame, (size_t)len, 0, true, &f), 0);
	assert_int_equal(f.member, MW_ALL);
	assert_int_equal(mw_get_stop(&f, &mode, &deadline), 0);
	assert_int_equal(mode, MW_STOP_ABORT);
	assert_int_equal(deadline, 2000);
	check_lengths(frame, len, 0, true);
	len = mw_put_plain(frame, sizeof(frame), MW_CONNECT, 31, 0);
	check_lengths(frame, len, 1, true);
	len = mw_put_plain(frame, sizeof(frame), MW_PING, 0, 0xfffffffe);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, true, &f), 0);
	assert_int_equal(f.serial, 0xfffffffe);
	check_lengths(frame, len, 0, true);
}

static void answers_survive_the_wire(void **state)
{
	struct mw_closed in = { .reason = 4, .text = "client hung up" }, out;
	uint8_t frame[512];
	struct mw_frame f;
	int error, signal, len = mw_put_closed(frame, sizeof(frame), 2, &in);
	uint32_t lives;

	assert_int_equal(get(frame, (size_t)len, 0, false, &f, &out), 0);
	assert_int_equal(out.reason, 4);
	assert_string_equal(out.text, in.text);
	check_lengths(frame, len, 0, false);
	len = mw_put_param_done(frame, sizeof(frame), 2, 9, ENOSPC);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(mw_get_param_done(&f, &error), 0);
	assert_int_equal(error, ENOSPC);
	assert_int_equal(f.serial, 9);
	check_lengths(frame, len, 0, false);
	len = mw_put_res_done(frame, sizeof(frame), 3, 10, EBUSY);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(mw_get_res_done(&f, &error), 0);
	assert_int_equal(error, EBUSY);
	assert_int_equal(f.serial, 10);
	check_lengths(frame, len, 0, false);
	len = mw_put_resumed(frame, sizeof(frame), 9, 3);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(mw_get_resumed(&f, &signal, &lives), 0);
	assert_int_equal(signal, 9);
	assert_int_equal(lives, 3);
	check_lengths(frame, len, 0, false);
	len = mw_put_plain(frame, sizeof(frame), MW_READY_MSG, 0, 0);
	check_lengths(frame, len, 0, false);
}

static void a_restart_and_its_answer_survive(void **state)
{
	static uint8_t frame[MW_MAX];
	static struct mw_versions in = { .worker = 2, .vfio = 3, .n_types = MW_MAX_TYPES }, out;
	struct mw_restarted done = { .error = EPROTO, .text = "why" }, told;
	struct mw_frame f;
	int len;

	for (unsigned i = 0; i < in.n_types; i++) {
		memset(in.types[i].name, 'a' + (int)i % 26, sizeof(in.types[i].name) - 1);
		in.types[i].version = 100 + i;
	}
	len = mw_put_restart(frame, sizeof(frame), 8, &in);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, true, &f), 0);
	assert_int_equal(f.serial, 8);
	assert_int_equal(mw_get_restart(&f, &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	for (f.len = 10; f.len + MW_HEADER < (size_t)len; f.len++)
		assert_int_equal(mw_get_restart(&f, &out), -EPROTO);
	frame[MW_HEADER + 8]++; /* one type more than there may be */
	assert_int_equal(mw_get_restart(&f, &out), -EPROTO);
	len = mw_put_restarted(frame, sizeof(frame), 8, &done);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(f.serial, 8);
	assert_int_equal(mw_get_restarted(&f, &told), 0);
	assert_int_equal(told.error, EPROTO);
	assert_string_equal(told.text, "why");
	check_lengths(frame, len, 0, false);
}

/* A worker's text is shown to people: what it may not hold is replaced, what is too long is cut. */
static void texts_of_workers_come_out_printable(void **state)
{
	char text[256], longer[400];
	enum mw_member_state member_state;
	uint8_t frame[512];
	struct mw_frame f;
	int len = mw_put_state(frame, sizeof(frame), 0, MW_MEMBER_FAULTY, "a\x1b[2Jb\xff \xc3\xbc");

	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(mw_get_state(&f, &member_state, text), 0);
	assert_int_equal(member_state, MW_MEMBER_FAULTY);
	assert_string_equal(text, "a?[2Jb? ??");
	check_lengths(frame, len, 0, false);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	len = mw_put_state(frame, sizeof(frame), 0, MW_MEMBER_OK, longer);
	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(mw_get_state(&f, &member_state, text), 0);
	assert_int_equal(strlen(text), 255);
	len = mw_put_state(frame, sizeof(frame), 0, MW_MEMBER_OK, "gr\xc3\xbc\xc3\x9f");
	assert_int_equal(mw_decode(frame, (size_t)len, 0, false, &f), 0);
	assert_int_equal(mw_get_state(&f, &member_state, text), 0);
	assert_string_equal(text, "gr\xc3\xbc\xc3\x9f");
}

/* Frames that are right but for one number. */
static void numbers_outside_their_range_are_refused(void **state)
{
	const struct {
		int offset; /* of the u32 */
		uint32_t value;
	} cases[] = {
		{ 0, MW_MAX + 1 },
		{ 4, 0 },
		{ 4, 99 },
		{ 4, MW_PONG },
		{ 4, MW_STOP | 32 << 16 },
		{ 12, 1 },
		{ 16, MW_STOP_ASK + 1 },
		{ 4, MW_CONNECT },
	};
	_Alignas(16) uint8_t ret[4096];
	uint8_t frame[64];
	struct mw_frame f;
	int len;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		len = mw_put_stop(frame, sizeof(frame), 0, MW_STOP_CLEAN, 1);
		memcpy(frame + cases[i].offset, &cases[i].value, 4);
		assert_int_equal(get(frame, (size_t)len, 0, true, &f, ret), -EPROTO);
	}
	len = mw_put_plain(frame, sizeof(frame), MW_READY_MSG, 0, 0);
	assert_int_equal(get(frame, (size_t)len, 1, false, &f, ret), -EPROTO); /* descriptors */
	len = mw_put_plain(frame, sizeof(frame), MW_CONNECT, MW_ALL, 0);
	assert_int_equal(get(frame, (size_t)len, 1, true, &f, ret), -EPROTO);
	assert_int_equal(get(frame, (size_t)len, 0, true, &f, ret), -EPROTO);
}

static void a_config_of_another_version_is_refused(void **state)
{
	struct mw_config config = { .version = MW_VERSION + 1 };
	uint8_t frame[64];
	struct mw_frame f;
	int len = mw_put_config(frame, sizeof(frame), &config);

	assert_int_equal(mw_decode(frame, (size_t)len, 0, true, &f), 0);
	assert_int_equal(mw_get_config(&f, &config), -EPROTO);
}

static void the_length_is_known_after_four_bytes(void **state)
{
	const uint32_t sizes[] = { 0, MW_HEADER - 1, MW_HEADER, MW_MAX, MW_MAX + 1, UINT32_MAX };
	const int64_t want[] = { -EPROTO, -EPROTO, MW_HEADER, MW_MAX, -EPROTO, -EPROTO };
	uint8_t data[4];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		memcpy(data, &sizes[i], 4);
		assert_int_equal(mw_len(data, 3), 0);
		assert_int_equal(mw_len(data, 4), want[i]);
	}
}

static void what_does_not_fit_is_not_sent(void **state)
{
	static struct mw_member members[MW_MAX_MEMBERS];
	static uint8_t frame[2 * MW_MAX];
	struct mw_config config = { .version = MW_VERSION, .members = members };
	struct mw_resource res = { .name = "image" };

	for (unsigned i = 0; i < MW_MAX_MEMBERS; i++) {
		members[i].n_params = MW_MAX_PARAMS;
		for (unsigned j = 0; j < MW_MAX_PARAMS; j++)
			memset(members[i].params[j].value.text, 'v', 255);
	}
	config.n_members = MW_MAX_MEMBERS;
	assert_int_equal(mw_put_config(frame, sizeof(frame), &config), -EMSGSIZE);
	config.n_members = 1;
	assert_true(mw_put_config(frame, sizeof(frame), &config) > 0);
	for (unsigned i = 0; i < MW_MAX_MEMBERS; i++) {
		members[i].n_params = 0;
		members[i].n_resources = MW_MAX_RESOURCES;
	}
	config.n_members = 8; /* 256 descriptors */
	assert_int_equal(mw_put_config(frame, sizeof(frame), &config), -EMSGSIZE);
	for (size_t size = 0; size < 43; size++)
		assert_int_equal(mw_put_res_add(frame, size, 0, 0, &res), -EMSGSIZE);
	assert_int_equal(mw_put_res_add(frame, 43, 0, 0, &res), 43);
}

static void every_rule_is_whole(void **state)
{
	unsigned n = 0;

	for (unsigned type = 0; type <= UINT16_MAX; type++) {
		const struct mw_rule *rule = mw_rule((uint16_t)type);

		if (!rule)
			continue;
		n++;
		assert_int_equal(rule->type, type);
		assert_int_equal(rule->to_worker, type < MW_READY_MSG);
		assert_true(rule->min_len <= rule->max_len && rule->min_fds <= rule->max_fds);
		assert_true(rule->states && rule->states < 1 << MW_DEAD);
		assert_true(rule->to_worker || rule->per_second); /* workers are not trusted */
		assert_true(rule->to_worker || rule->max_fds == 0);
	}
	assert_int_equal(n, 18);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(config_survives_the_wire),
		cmocka_unit_test(params_survive_the_wire),
		cmocka_unit_test(resources_survive_the_wire),
		cmocka_unit_test(commands_survive_the_wire),
		cmocka_unit_test(answers_survive_the_wire),
		cmocka_unit_test(a_restart_and_its_answer_survive),
		cmocka_unit_test(texts_of_workers_come_out_printable),
		cmocka_unit_test(numbers_outside_their_range_are_refused),
		cmocka_unit_test(a_config_of_another_version_is_refused),
		cmocka_unit_test(the_length_is_known_after_four_bytes),
		cmocka_unit_test(what_does_not_fit_is_not_sent),
		cmocka_unit_test(every_rule_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
