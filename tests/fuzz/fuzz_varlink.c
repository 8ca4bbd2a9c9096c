/* SPDX-License-Identifier: MIT */
/*
 * What a peer of the control socket sends: framing, then the bytes as a call and as a reply. What
 * is accepted must encode to a message that is accepted as the same one.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "wire/varlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LIMIT 4096 /* of a message here: reached by inputs of a fuzzer's usual size */

static void must(int condition)
{
	if (!condition)
		abort();
}

static void try_call(const char *text, size_t len)
{
	static const struct varlink_field fields[] = {
		{ "name", VARLINK_TEXT },
		{ "force", VARLINK_BOOL, .optional = true },
		{ "number", VARLINK_INT, .optional = true },
		{ "settings", VARLINK_TEXTS, .optional = true },
		{ NULL },
	};
	struct varlink_call call, again;
	size_t again_len;
	char *copy;

	if (varlink_parse_call(text, len, &call) < 0)
		return;
	if (!varlink_check(call.params, fields))
		must(varlink_text(call.params, "name") != NULL);
	copy = varlink_call_text(call.method, json_incref(call.params), call.more, &again_len);
	must(copy && varlink_len(copy, again_len, again_len) == (int64_t)again_len);
	must(varlink_parse_call(copy, again_len - 1, &again) == 0);
	must(strcmp(call.method, again.method) == 0 && call.more == again.more);
	must(!call.params || json_equal(call.params, again.params));
	free(copy);
	varlink_call_fini(&call);
	varlink_call_fini(&again);
}

static void try_reply(const char *text, size_t len)
{
	struct varlink_reply reply, again;
	size_t again_len;
	char *copy;

	if (varlink_parse_reply(text, len, &reply) < 0)
		return;
	if (reply.error)
		copy = varlink_error_text(reply.error, json_incref(reply.params), &again_len);
	else
		copy = varlink_reply_text(json_incref(reply.params), reply.continues, &again_len);
	must(copy && varlink_parse_reply(copy, again_len - 1, &again) == 0);
	must(!reply.error == !again.error && reply.continues == again.continues);
	must(!reply.params || json_equal(reply.params, again.params));
	free(copy);
	varlink_reply_fini(&reply);
	varlink_reply_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;

	while (size) {
		int64_t len = varlink_len(text, size, LIMIT);

		must(len == -EMSGSIZE || (len >= 0 && len <= LIMIT && (size_t)len <= size));
		if (len <= 0)
			break;
		must(text[len - 1] == '\0');
		try_call(text, (size_t)len - 1);
		try_reply(text, (size_t)len - 1);
		text += len;
		size -= (size_t)len;
	}
	return 0;
}
