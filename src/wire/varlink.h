/* SPDX-License-Identifier: MIT */
/*
 * Varlink (varlink.org): JSON objects, each ended by a NUL byte, on a stream socket. Both ends of
 * the control socket use this: the manager decodes calls, the CLI decodes replies.
 *
 * Text <-> struct only: no socket, no state. What a peer sent is judged here: the framing, the
 * envelope, and by varlink_check() the parameters, from one table per method.
 */
#ifndef WIRE_VARLINK_H
#define WIRE_VARLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

/* Longest message with its NUL; a `Show` or `List` of thousands of devices fits. */
#define VARLINK_MSG_MAX (4u << 20)
/* Longest call: an attribute (4096 bytes, each maybe escaped to 6) and change. */
#define VARLINK_CALL_MAX (64u << 10)

#define VARLINK_INVALID_PARAMETER "org.varlink.service.InvalidParameter"
#define VARLINK_METHOD_NOT_FOUND "org.varlink.service.MethodNotFound"
#define VARLINK_EXPECTED_MORE "org.varlink.service.ExpectedMore"
#define VARLINK_INTERFACE_NOT_FOUND "org.varlink.service.InterfaceNotFound"

/*
 * Length of the message that starts with `have` bytes at `data`, its NUL included.
 * > 0: whole; 0: more bytes are needed; -EMSGSIZE: more than max bytes and no end.
 */
int64_t varlink_len(const char *data, size_t have, size_t max);

struct varlink_call {
	const char *method; /* "io.umdev.Create"; lies in `json` */
	json_t *params;     /* borrowed object of `json`, or NULL: none were sent */
	json_t *json;       /* owned */
	bool more, oneway;
};

struct varlink_reply {
	const char *error; /* its full name, or NULL */
	json_t *params;    /* borrowed object of `json`, or NULL */
	json_t *json;      /* owned */
	bool continues;
};

/* `len` without the NUL. 0 / -EPROTO: not JSON, or not this envelope (an upgrade is refused, too:
 * we have none). *ret needs the fini only after 0. */
int varlink_parse_call(const char *text, size_t len, struct varlink_call *ret);
int varlink_parse_reply(const char *text, size_t len, struct varlink_reply *ret);
void varlink_call_fini(struct varlink_call *call);
void varlink_reply_fini(struct varlink_reply *reply);

/* Whole messages with their NUL (*ret_len counts it), to be freed by the caller; NULL: ENOMEM.
 * params is consumed always; NULL means {}. */
char *varlink_call_text(const char *method, json_t *params, bool more, size_t *ret_len);
char *varlink_reply_text(json_t *params, bool continues, size_t *ret_len);
char *varlink_error_text(const char *error, json_t *params, size_t *ret_len);

/* Parameters of a method: what an implementation may rely on after the check. */
enum varlink_kind {
	VARLINK_TEXT,
	VARLINK_BOOL,
	VARLINK_INT,
	VARLINK_TEXTS,   /* [string, ...] */
	VARLINK_OBJECTS, /* [{...}, ...], whose members the caller judges */
};
struct varlink_field {
	const char *name; /* NULL ends the table */
	enum varlink_kind kind;
	bool optional; /* may be absent or null */
};
/* NULL: fine. Else the first parameter that is missing, of the wrong type, or not in the table;
 * lies in `fields` or `params`. Texts hold no NUL. */
const char *varlink_check(json_t *params, const struct varlink_field *fields);

/* After the check: NULL (false) when an optional one is absent. */
const char *varlink_text(const json_t *params, const char *name);
bool varlink_bool(const json_t *params, const char *name);

#endif
