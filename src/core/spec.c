/* SPDX-License-Identifier: MIT */
/*
 * Grammar of a write to create:
 *
 *    UUID [any one byte]                       as a kernel; all there is with params=off
 *    UUID "," key "=" value { "," ... } ["\n"] at most SPEC_MAX bytes
 *
 * Here only its form is judged and keys are looked up; values keep pointing into the text.
 */
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

#define SPEC_MAX 4095
#define UUID_LEN (UUID_TEXT - 1)
#define KEY_MAX 64

/* Older proposals' word for aggregation. */
#define AGGREGATE_ALIAS "aggregate"

static int spec_key(const struct core_type *info, const char *text, size_t len)
{
	char key[KEY_MAX];

	if (len == 0 || len >= sizeof(key) || memchr(text, '\0', len))
		return err_set(-EINVAL,
			       "create: a setting is key=value with a key of 1 to %d bytes",
			       KEY_MAX - 1);
	memcpy(key, text, len);
	key[len] = '\0';
	if (info->aggregation >= 0 && strcmp(key, AGGREGATE_ALIAS) == 0)
		return info->aggregation;
	return param_index(info, key);
}

static int spec_setting(const struct core_type *info, const char *text, size_t len,
			struct mdev_spec *spec)
{
	const char *equal = memchr(text, '=', len);
	int index;

	if (!equal)
		return err_set(-EINVAL,
			       "create: expected UUID,key=value,...: a setting has no '='");
	index = spec_key(info, text, (size_t)(equal - text));
	if (index < 0)
		return -EINVAL;
	for (unsigned i = 0; i < spec->n_settings; i++)
		if (spec->settings[i].index == (unsigned)index)
			return err_set(-EINVAL, "create: %s is given twice",
				       info->params[index]->name);
	spec->settings[spec->n_settings].index = (unsigned)index;
	spec->settings[spec->n_settings].text = equal + 1;
	spec->settings[spec->n_settings].len = len - (size_t)(equal + 1 - text);
	spec->n_settings++;
	return 0;
}

/* Names what was given when it is short and printable. */
static int no_uuid(const char *text, size_t len)
{
	len -= len && text[len - 1] == '\n';
	if (len > UUID_LEN || !str_is_clean(text, len))
		return err_set(-EINVAL, "create: expected a UUID, such as the output of uuidgen");
	return err_set(-EINVAL, "create: '%.*s' is no UUID: give one such as the output of uuidgen",
		       (int)len, text);
}

int spec_parse(const struct mdev_type *type, const char *text, size_t len, struct mdev_spec *ret)
{
	bool settings = type->parent->params_shown && type->info->n_params;
	size_t at = UUID_LEN + 1, end = len;

	ret->n_settings = 0;
	if (len < UUID_LEN || uuid_parse(text, UUID_LEN, &ret->uuid) < 0)
		return no_uuid(text, len);
	if (len <= UUID_LEN + 1)
		return 0;
	if (!settings)
		return err_set(-EINVAL, "create: %s of %s takes a UUID and nothing else",
			       type->info->name, type->parent->name);
	if (len > SPEC_MAX || text[UUID_LEN] != ',')
		return err_set(-EINVAL, "create: expected UUID,key=value,... of at most %d bytes",
			       SPEC_MAX);
	if (text[end - 1] == '\n')
		end--;
	if (memchr(text, '\n', end))
		return err_set(-EINVAL, "create: a newline may only end the line");
	for (;;) {
		const char *comma = memchr(text + at, ',', end - at);
		size_t n = comma ? (size_t)(comma - text) - at : end - at;
		int error = spec_setting(type->info, text + at, n, ret);

		if (error < 0)
			return error;
		if (!comma)
			return 0;
		at += n + 1;
	}
}
