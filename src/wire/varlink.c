/* SPDX-License-Identifier: MIT */
/* Varlink messages: framing, envelopes, and the check of parameters against a table. */
#include "wire/varlink.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int64_t varlink_len(const char *data, size_t have, size_t max)
{
	const char *end = memchr(data, 0, have < max ? have : max);

	if (end)
		return end - data + 1;
	return have >= max ? -EMSGSIZE : 0;
}

/* The object in text, or NULL. Embedded NULs are refused: texts end up in C strings. */
static json_t *parse_object(const char *text, size_t len)
{
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

	if (json_is_object(json))
		return json;
	json_decref(json);
	return NULL;
}

/* Optional boolean member; false in *ok when it is something else. */
static bool get_flag(const json_t *json, const char *name, bool *ok)
{
	const json_t *v = json_object_get(json, name);

	if (v && !json_is_boolean(v) && !json_is_null(v))
		*ok = false;
	return json_is_true(v);
}

/* Optional "parameters" object. */
static json_t *get_params(const json_t *json, bool *ok)
{
	json_t *v = json_object_get(json, "parameters");

	if (json_is_object(v))
		return v;
	if (v && !json_is_null(v))
		*ok = false;
	return NULL;
}

int varlink_parse_call(const char *text, size_t len, struct varlink_call *ret)
{
	json_t *json = parse_object(text, len);
	struct varlink_call call = { .json = json };
	bool ok = json != NULL, upgrade;

	call.method = json_string_value(json_object_get(json, "method"));
	call.params = get_params(json, &ok);
	call.more = get_flag(json, "more", &ok);
	call.oneway = get_flag(json, "oneway", &ok);
	upgrade = get_flag(json, "upgrade", &ok);
	if (!ok || !call.method || upgrade || (call.more && call.oneway)) {
		json_decref(json);
		return -EPROTO;
	}
	*ret = call;
	return 0;
}

int varlink_parse_reply(const char *text, size_t len, struct varlink_reply *ret)
{
	json_t *json = parse_object(text, len);
	const json_t *error = json_object_get(json, "error");
	struct varlink_reply reply = { .json = json };
	bool ok = json != NULL;

	if (error && !json_is_null(error) && !json_is_string(error))
		ok = false;
	reply.error = json_string_value(error);
	reply.params = get_params(json, &ok);
	reply.continues = get_flag(json, "continues", &ok);
	if (!ok || (reply.error && reply.continues)) {
		json_decref(json);
		return -EPROTO;
	}
	*ret = reply;
	return 0;
}

void varlink_call_fini(struct varlink_call *call)
{
	json_decref(call->json);
	*call = (struct varlink_call){ 0 };
}

void varlink_reply_fini(struct varlink_reply *reply)
{
	json_decref(reply->json);
	*reply = (struct varlink_reply){ 0 };
}

/* Consumes json. json_dumps ends its text with the NUL that ends a message. */
static char *finish(json_t *json, size_t *ret_len)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	if (text)
		*ret_len = strlen(text) + 1;
	return text;
}

/* {first: name, "parameters": params, flag: true}. first and flag may be NULL. */
static char *envelope(const char *first, const char *name, json_t *params, const char *flag,
		      size_t *ret_len)
{
	json_t *json = json_object();
	int bad = 0;

	if (first)
		bad |= json_object_set_new(json, first, json_string(name));
	bad |= json_object_set_new(json, "parameters", params ? params : json_object());
	if (flag)
		bad |= json_object_set_new(json, flag, json_true());
	if (bad) {
		json_decref(json);
		return NULL;
	}
	return finish(json, ret_len);
}

char *varlink_call_text(const char *method, json_t *params, bool more, size_t *ret_len)
{
	return envelope("method", method, params, more ? "more" : NULL, ret_len);
}

char *varlink_reply_text(json_t *params, bool continues, size_t *ret_len)
{
	return envelope(NULL, NULL, params, continues ? "continues" : NULL, ret_len);
}

char *varlink_error_text(const char *error, json_t *params, size_t *ret_len)
{
	return envelope("error", error, params, NULL, ret_len);
}

static bool is_kind(const json_t *v, enum varlink_kind kind)
{
	size_t i;
	const json_t *item;

	switch (kind) {
	case VARLINK_TEXT:
		return json_is_string(v);
	case VARLINK_BOOL:
		return json_is_boolean(v);
	case VARLINK_INT:
		return json_is_integer(v);
	case VARLINK_TEXTS:
	case VARLINK_OBJECTS:
		if (!json_is_array(v))
			return false;
		json_array_foreach(v, i, item) {
			if (kind == VARLINK_TEXTS ? !json_is_string(item) : !json_is_object(item))
				return false;
		}
		return true;
	}
	return false;
}

const char *varlink_check(json_t *params, const struct varlink_field *fields)
{
	const struct varlink_field *f;
	const char *name;
	json_t *v;

	for (f = fields; f->name; f++) {
		v = json_object_get(params, f->name);
		if (!v || json_is_null(v) ? !f->optional : !is_kind(v, f->kind))
			return f->name;
	}
	json_object_foreach(params, name, v) {
		for (f = fields; f->name && strcmp(f->name, name) != 0; f++)
			;
		if (!f->name)
			return name;
	}
	return NULL;
}

const char *varlink_text(const json_t *params, const char *name)
{
	return json_string_value(json_object_get(params, name));
}

bool varlink_bool(const json_t *params, const char *name)
{
	return json_is_true(json_object_get(params, name));
}
