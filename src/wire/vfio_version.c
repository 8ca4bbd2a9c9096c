// SPDX-License-Identifier: MIT
/*
 * The payload of VERSION: two numbers and, maybe, {"capabilities":{...}} as JSON text.
 *
 * The reader is strict (RFC 8259 without \u escapes in the keys we know, depth bounded) and small
 * on purpose: it stands in front of every hostile client, before anything else was agreed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "wire/vfio_user.h"

#define JSON_DEPTH 8 /* clients nest three deep */

struct json {
	const char *at, *end;
};

typedef int json_member_fn(struct json *j, const char *key, size_t key_len, void *arg);

static int skip_value(struct json *j, int depth);

static char peek(struct json *j)
{
	while (j->at < j->end &&
	       (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
		j->at++;
	return j->at < j->end ? *j->at : '\0';
}

static bool accept(struct json *j, char c)
{
	if (j->at >= j->end || peek(j) != c || j->at >= j->end)
		return false;
	j->at++;
	return true;
}

static bool accept_word(struct json *j, const char *word)
{
	size_t len = strlen(word);

	peek(j);
	if ((size_t)(j->end - j->at) < len || memcmp(j->at, word, len))
		return false;
	j->at += len;
	return true;
}

static bool is_digit(struct json *j)
{
	return j->at < j->end && *j->at >= '0' && *j->at <= '9';
}

static int skip_digits(struct json *j)
{
	if (!is_digit(j))
		return -EINVAL;
	while (is_digit(j))
		j->at++;
	return 0;
}

/* One escape behind its backslash. */
static int skip_escape(struct json *j)
{
	if (j->at >= j->end || !*j->at || !strchr("\"\\/bfnrtu", *j->at))
		return -EINVAL;
	if (*j->at++ != 'u')
		return 0;
	for (int i = 0; i < 4; i++, j->at++) {
		if (j->at >= j->end || !*j->at || !strchr("0123456789abcdefABCDEF", *j->at))
			return -EINVAL;
	}
	return 0;
}

/* The raw bytes between the quotes; escapes are checked, not resolved. */
static int get_string(struct json *j, const char **ret, size_t *ret_len)
{
	const char *start;

	if (!accept(j, '"'))
		return -EINVAL;
	start = j->at;
	while (j->at < j->end && *j->at != '"') {
		unsigned char c = (unsigned char)*j->at++;

		if (c < 0x20 || (c == '\\' && skip_escape(j)))
			return -EINVAL;
	}
	if (j->at >= j->end)
		return -EINVAL;
	*ret = start;
	*ret_len = (size_t)(j->at++ - start);
	return 0;
}

static int skip_number(struct json *j)
{
	if (j->at < j->end && *j->at == '-')
		j->at++;
	if (is_digit(j) && *j->at == '0')
		j->at++;
	else if (skip_digits(j))
		return -EINVAL;
	if (j->at < j->end && *j->at == '.') {
		j->at++;
		if (skip_digits(j))
			return -EINVAL;
	}
	if (j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
		j->at++;
		if (j->at < j->end && (*j->at == '+' || *j->at == '-'))
			j->at++;
		return skip_digits(j);
	}
	return 0;
}

/* A whole number that fits u64. */
static int get_u64(struct json *j, uint64_t *ret)
{
	const char *start;
	uint64_t v = 0;

	peek(j);
	start = j->at;
	if (skip_number(j))
		return -EINVAL;
	for (; start < j->at; start++) {
		if (*start < '0' || *start > '9' || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*start - '0'), &v))
			return -EINVAL;
	}
	*ret = v;
	return 0;
}

static int get_bool(struct json *j, bool *ret)
{
	if (accept_word(j, "true"))
		*ret = true;
	else if (accept_word(j, "false"))
		*ret = false;
	else
		return -EINVAL;
	return 0;
}

static int get_object(struct json *j, json_member_fn *fn, void *arg)
{
	const char *key;
	size_t len;

	if (!accept(j, '{'))
		return -EINVAL;
	if (accept(j, '}'))
		return 0;
	do {
		if (get_string(j, &key, &len) || !accept(j, ':') || fn(j, key, len, arg))
			return -EINVAL;
	} while (accept(j, ','));
	return accept(j, '}') ? 0 : -EINVAL;
}

static int skip_member(struct json *j, const char *key, size_t key_len, void *arg)
{
	return skip_value(j, *(int *)arg);
}

static int skip_array(struct json *j, int depth)
{
	if (!accept(j, '['))
		return -EINVAL;
	if (accept(j, ']'))
		return 0;
	do {
		if (skip_value(j, depth))
			return -EINVAL;
	} while (accept(j, ','));
	return accept(j, ']') ? 0 : -EINVAL;
}

static int skip_value(struct json *j, int depth)
{
	const char *s;
	size_t len;

	if (depth-- == 0)
		return -EINVAL;
	switch (peek(j)) {
	case '{':
		return get_object(j, skip_member, &depth);
	case '[':
		return skip_array(j, depth);
	case '"':
		return get_string(j, &s, &len);
	case 't':
		return accept_word(j, "true") ? 0 : -EINVAL;
	case 'f':
		return accept_word(j, "false") ? 0 : -EINVAL;
	case 'n':
		return accept_word(j, "null") ? 0 : -EINVAL;
	default:
		return skip_number(j);
	}
}

static bool is_key(const char *key, size_t len, const char *name)
{
	return len == strlen(name) && !memcmp(key, name, len);
}

static int caps_member(struct json *j, const char *key, size_t len, void *arg)
{
	struct vuser_caps *caps = arg;

	if (is_key(key, len, "max_msg_fds"))
		return get_u64(j, &caps->max_msg_fds);
	if (is_key(key, len, "max_data_xfer_size"))
		return get_u64(j, &caps->max_data_xfer_size);
	if (is_key(key, len, "max_dma_maps"))
		return get_u64(j, &caps->max_dma_maps);
	if (is_key(key, len, "pgsizes"))
		return get_u64(j, &caps->pgsizes);
	if (is_key(key, len, "write_multiple"))
		return get_bool(j, &caps->write_multiple);
	return skip_value(j, JSON_DEPTH);
}

static int top_member(struct json *j, const char *key, size_t len, void *arg)
{
	if (is_key(key, len, "capabilities"))
		return get_object(j, caps_member, arg);
	return skip_value(j, JSON_DEPTH);
}

int vuser_get_version(const void *payload, size_t len, struct vuser_version *ret)
{
	struct buf_reader r = buf_read_from(payload, len);
	struct vuser_version v = {
		.caps = { .max_msg_fds = VUSER_DEFAULT_FDS,
			  .max_data_xfer_size = VUSER_DEFAULT_DATA,
			  .max_dma_maps = 65535,
			  .pgsizes = 4096 },
	};
	struct json j;

	v.major = buf_get_u16(&r);
	v.minor = buf_get_u16(&r);
	if (r.bad)
		return -EINVAL;
	if (r.left) {
		j = (struct json){ .at = (const char *)r.at, .end = (const char *)r.at + r.left };
		if (*--j.end != '\0' || get_object(&j, top_member, &v.caps) || peek(&j) ||
		    j.at != j.end)
			return -EINVAL;
	}
	*ret = v;
	return 0;
}

void vuser_put_version(struct buf_writer *w, const struct vuser_version *v)
{
	char text[256];
	int n = snprintf(text, sizeof(text),
			 "{\"capabilities\":{\"max_msg_fds\":%llu,\"max_data_xfer_size\":%llu,"
			 "\"max_dma_maps\":%llu,\"pgsizes\":%llu,\"write_multiple\":%s}}",
			 (unsigned long long)v->caps.max_msg_fds,
			 (unsigned long long)v->caps.max_data_xfer_size,
			 (unsigned long long)v->caps.max_dma_maps,
			 (unsigned long long)v->caps.pgsizes,
			 v->caps.write_multiple ? "true" : "false");

	buf_put_u16(w, v->major);
	buf_put_u16(w, v->minor);
	buf_put_bytes(w, text, (size_t)n + 1);
}
