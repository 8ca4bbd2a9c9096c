/* SPDX-License-Identifier: MIT */
/*
 * A frame between manager and worker, as either end receives it. What decodes must encode to the
 * same bytes again. Input: a byte (bit 7: to the worker, rest: descriptors), then the frame.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "wire/mw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t again[MW_MAX];

static int repeat_config(const struct mw_frame *f)
{
	struct mw_config config;
	int len;

	if (mw_get_config(f, &config) < 0)
		return -1;
	len = mw_put_config(again, sizeof(again), &config);
	mw_config_free(&config);
	return len;
}

static int repeat_command(const struct mw_frame *f)
{
	struct mw_param param;
	struct mw_resource res;
	char name[32];
	enum mw_stop_mode mode;
	struct mw_versions versions;
	uint32_t deadline;
	uint64_t length;

	switch (f->type) {
	case MW_CONFIG:
		return repeat_config(f);
	case MW_PARAM_SET:
		if (mw_get_param_set(f, &param) < 0)
			return -1;
		return mw_put_param_set(again, sizeof(again), f->member, f->serial, &param);
	case MW_RES_ADD:
		if (mw_get_res_add(f, &res) < 0)
			return -1;
		return mw_put_res_add(again, sizeof(again), f->member, f->serial, &res);
	case MW_RES_DEL:
		if (mw_get_res_del(f, name) < 0)
			return -1;
		return mw_put_res_del(again, sizeof(again), f->member, f->serial, name);
	case MW_RES_SIZE:
		if (mw_get_res_size(f, name, &length) < 0)
			return -1;
		return mw_put_res_size(again, sizeof(again), f->member, f->serial, name, length);
	case MW_RESTART:
		if (mw_get_restart(f, &versions) < 0)
			return -1;
		return mw_put_restart(again, sizeof(again), f->serial, &versions);
	case MW_STOP:
		if (mw_get_stop(f, &mode, &deadline) < 0)
			return -1;
		return mw_put_stop(again, sizeof(again), f->member, mode, deadline);
	default:
		return mw_put_plain(again, sizeof(again), f->type, f->member, f->serial);
	}
}

static int repeat_answer(const struct mw_frame *f)
{
	struct mw_closed closed;
	struct mw_restarted restarted;
	enum mw_member_state state;
	char text[256];
	int number;
	uint32_t lives;

	switch (f->type) {
	case MW_CLOSED:
		if (mw_get_closed(f, &closed) < 0)
			return -1;
		return mw_put_closed(again, sizeof(again), f->member, &closed);
	case MW_PARAM_DONE:
		if (mw_get_param_done(f, &number) < 0)
			return -1;
		return mw_put_param_done(again, sizeof(again), f->member, f->serial, number);
	case MW_RES_DONE:
		if (mw_get_res_done(f, &number) < 0)
			return -1;
		return mw_put_res_done(again, sizeof(again), f->member, f->serial, number);
	case MW_STATE:
		if (mw_get_state(f, &state, text) < 0)
			return -1;
		return mw_put_state(again, sizeof(again), f->member, state, text);
	case MW_RESTARTED:
		if (mw_get_restarted(f, &restarted) < 0)
			return -1;
		return mw_put_restarted(again, sizeof(again), f->serial, &restarted);
	case MW_RESUMED:
		if (mw_get_resumed(f, &number, &lives) < 0)
			return -1;
		return mw_put_resumed(again, sizeof(again), number, lives);
	default:
		return mw_put_plain(again, sizeof(again), f->type, f->member, f->serial);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mw_frame f;
	bool to_worker;
	int64_t len;
	int got;

	if (size < 1)
		return 0;
	to_worker = data[0] & 0x80;
	len = mw_len(data + 1, size - 1);
	if (len <= 0 || (uint64_t)len > size - 1)
		return 0;
	if (mw_decode(data + 1, (size_t)len, data[0] & 0x7f, to_worker, &f) < 0)
		return 0;
	got = to_worker ? repeat_command(&f) : repeat_answer(&f);
	if (got < 0)
		return 0;
	/* Texts of workers may have been made printable, members and serials that mean nothing are
	 * not kept: the length always is, the payload of a command byte for byte. */
	if (got != len)
		abort();
	if (to_worker && memcmp(again + MW_HEADER, f.payload, f.len) != 0)
		abort();
	return 0;
}
