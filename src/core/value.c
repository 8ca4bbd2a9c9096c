/* SPDX-License-Identifier: MIT */
/*
 * Text of a parameter -> typed value with one canonical text. Syntax (EINVAL) and limits (ERANGE)
 * are separate steps, because writing the current value is a no-op in any state and a device that
 * is busy says so before it judges a number.
 */
#include <inttypes.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"
#include "core/private.h"

#define ENUM_UNKNOWN UINT64_MAX /* u64 of a word that is no choice */

static const char *const type_names[] = {
	[UMDEV_U32] = "u32",       [UMDEV_U64] = "u64",   [UMDEV_BOOL] = "bool",
	[UMDEV_STRING] = "string", [UMDEV_MAC] = "mac",   [UMDEV_UUID] = "uuid",
	[UMDEV_SIZE] = "size",     [UMDEV_ENUM] = "enum",
};

static const char *const writable_names[] = {
	[UMDEV_W_NEVER] = "never", [UMDEV_W_CREATE] = "create", [UMDEV_W_ONCE] = "once",
	[UMDEV_W_FRESH] = "fresh", [UMDEV_W_IDLE] = "idle",     [UMDEV_W_LIVE] = "live",
};

const char *param_type_name(enum umdev_param_type type)
{
	return type_names[type];
}

const char *param_writable_name(enum umdev_param_writable writable)
{
	return writable_names[writable];
}

bool value_is_numeric(const struct umdev_param *desc)
{
	return desc->type == UMDEV_U32 || desc->type == UMDEV_U64 || desc->type == UMDEV_SIZE;
}

uint64_t param_max(const struct umdev_param *desc)
{
	if (desc->max)
		return desc->max;
	return desc->type == UMDEV_U32 ? UINT32_MAX : UINT64_MAX;
}

/* What a message may show of a rejected text. */
static int invalid(const struct umdev_param *desc, const char *text, size_t len, const char *rule)
{
	if (desc->secret || len > 64 || !str_is_clean(text, len))
		return err_set(-EINVAL, "%s: %s", desc->name, rule);
	return err_set(-EINVAL, "%s: '%.*s': %s", desc->name, (int)len, text, rule);
}

static int parse_number(const struct umdev_param *desc, const char *text, size_t len,
			struct umdev_value *ret)
{
	bool size = desc->type == UMDEV_SIZE;
	int error = size ? str_to_size(text, len, &ret->u64) : str_to_u64(text, len, &ret->u64);

	if (error == -ERANGE)
		return err_set(-ERANGE, "%s: the number does not fit into 64 bits", desc->name);
	/* The caller took the one newline off that is allowed. */
	if (error < 0 || text[len - 1] == '\n')
		return invalid(desc, text, len,
			       size ? "expected bytes, such as 4096, 64M or 0x1000"
				    : "expected a number, such as 8 or 0x8");
	str_format(ret->text, sizeof(ret->text), "%" PRIu64, ret->u64);
	return 0;
}

static int parse_bool(const struct umdev_param *desc, const char *text, size_t len,
		      struct umdev_value *ret)
{
	static const char *const words[] = { "0", "1", "no", "yes", "false", "true", "off", "on" };

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strlen(words[i]) == len && memcmp(words[i], text, len) == 0) {
			ret->u64 = i & 1;
			strcpy(ret->text, ret->u64 ? "yes" : "no");
			return 0;
		}
	return invalid(desc, text, len, "expected yes or no");
}

static int parse_string(const struct umdev_param *desc, const char *text, size_t len,
			struct umdev_value *ret)
{
	if (len >= sizeof(ret->text))
		return err_set(-EINVAL, "%s: longer than %zu bytes", desc->name,
			       sizeof(ret->text) - 1);
	if (!str_is_clean(text, len) || memchr(text, ',', len))
		return invalid(desc, text, len, "control characters and commas are not allowed");
	memcpy(ret->text, text, len);
	ret->text[len] = '\0';
	ret->u64 = 0;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_mac(const struct umdev_param *desc, const char *text, size_t len,
		     struct umdev_value *ret)
{
	static const char rule[] = "expected a MAC address, such as 52:54:00:12:34:56";
	uint64_t mac = 0;

	if (len != 17)
		return invalid(desc, text, len, rule);
	for (unsigned i = 0; i < 17; i += 3) {
		int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

		if (high < 0 || low < 0 || (i < 15 && text[i + 2] != ':'))
			return invalid(desc, text, len, rule);
		mac = mac << 8 | (unsigned)(high << 4 | low);
	}
	ret->u64 = mac;
	str_format(ret->text, sizeof(ret->text), "%02x:%02x:%02x:%02x:%02x:%02x",
		   (unsigned)(mac >> 40) & 0xff, (unsigned)(mac >> 32) & 0xff,
		   (unsigned)(mac >> 24) & 0xff, (unsigned)(mac >> 16) & 0xff,
		   (unsigned)(mac >> 8) & 0xff, (unsigned)mac & 0xff);
	return 0;
}

static int parse_uuid(const struct umdev_param *desc, const char *text, size_t len,
		      struct umdev_value *ret)
{
	struct uuid uuid;

	if (len != UUID_TEXT - 1 || uuid_parse(text, len, &uuid) < 0)
		return invalid(desc, text, len, "expected a UUID");
	uuid_format(&uuid, ret->text);
	ret->u64 = 0;
	return 0;
}

static int parse_enum(const struct umdev_param *desc, const char *text, size_t len,
		      struct umdev_value *ret)
{
	int error = parse_string(desc, text, len, ret);

	if (error < 0)
		return error;
	ret->u64 = ENUM_UNKNOWN;
	for (unsigned i = 0; desc->choices[i]; i++)
		if (strcmp(desc->choices[i], ret->text) == 0)
			ret->u64 = i;
	return 0;
}

int value_parse(const struct umdev_param *desc, const char *text, size_t len,
		struct umdev_value *ret)
{
	if (len && text[len - 1] == '\n')
		len--;
	switch (desc->type) {
	case UMDEV_U32:
	case UMDEV_U64:
	case UMDEV_SIZE:
		return parse_number(desc, text, len, ret);
	case UMDEV_BOOL:
		return parse_bool(desc, text, len, ret);
	case UMDEV_STRING:
		return parse_string(desc, text, len, ret);
	case UMDEV_MAC:
		return parse_mac(desc, text, len, ret);
	case UMDEV_UUID:
		return parse_uuid(desc, text, len, ret);
	case UMDEV_ENUM:
		return parse_enum(desc, text, len, ret);
	}
	return -EINVAL;
}

static int check_choice(const struct umdev_param *desc, const struct umdev_value *value)
{
	const char *near = err_nearest(value->text, desc->choices);
	char list[256];
	size_t at = 0;

	if (value->u64 != ENUM_UNKNOWN)
		return 0;
	list[0] = '\0';
	for (unsigned i = 0; desc->choices[i]; i++)
		at += str_format(list + at, sizeof(list) - at, " %s", desc->choices[i]);
	if (near)
		return err_set(-ERANGE, "%s: no choice '%s'; did you mean '%s'? Choices:%s",
			       desc->name, value->text, near, list);
	return err_set(-ERANGE, "%s: no choice '%s'. Choices:%s", desc->name, value->text, list);
}

static int check_number(const struct umdev_param *desc, const struct umdev_value *value)
{
	uint64_t max = param_max(desc);

	if (value->u64 < desc->min || value->u64 > max)
		return err_set(-ERANGE, "%s: %" PRIu64 " is not in %" PRIu64 " .. %" PRIu64,
			       desc->name, value->u64, desc->min, max);
	if (desc->step > 1 && (value->u64 - desc->min) % desc->step)
		return err_set(-ERANGE,
			       "%s: %" PRIu64 " is not %" PRIu64 " plus a multiple of %" PRIu64,
			       desc->name, value->u64, desc->min, desc->step);
	return 0;
}

int value_check(const struct umdev_param *desc, const struct umdev_value *value)
{
	int error = 0;

	if (desc->type == UMDEV_ENUM)
		error = check_choice(desc, value);
	else if (value_is_numeric(desc))
		error = check_number(desc, value);
	if (error < 0 && desc->secret) {
		err_clear(); /* the line quotes the value */
		return err_set(error, "%s: not a value that it may have", desc->name);
	}
	return error;
}

int param_parse(const struct umdev_param *desc, const char *text, size_t len,
		struct umdev_value *ret)
{
	struct umdev_value value;
	int error = value_parse(desc, text, len, &value);

	if (!error)
		error = value_check(desc, &value);
	if (!error)
		*ret = value;
	return error;
}

void value_default(const struct umdev_param *desc, struct umdev_value *ret)
{
	int error;

	*ret = (struct umdev_value){ 0 };
	if (desc->def) {
		error = param_parse(desc, desc->def, strlen(desc->def), ret);
		assert(error == 0);
	} else if (value_is_numeric(desc)) {
		strcpy(ret->text, "0");
	} else if (desc->type == UMDEV_BOOL) {
		strcpy(ret->text, "no");
	} else if (desc->type == UMDEV_ENUM) {
		strcpy(ret->text, desc->choices[0]);
	}
}
