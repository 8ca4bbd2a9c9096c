/* SPDX-License-Identifier: MIT */
/* umdev.conf; settings.h has its form. One row per key. */
#include "manager/settings.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/str.h"

#define NAME "umdev.conf"
#define LINE_SIZE 512

static int set_control_mode(struct settings *s, const char *value)
{
	char *end;
	unsigned long mode = strtoul(value, &end, 8);

	if (!isdigit((unsigned char)*value) || *end || mode > 0777 || (mode & 0111))
		return err_set(-EINVAL, "control_mode \"%s\" is no mode of a socket, like 0660",
			       value);
	s->control_mode = (mode_t)mode;
	s->has_control_mode = true;
	return 0;
}

static int set_control_group(struct settings *s, const char *value)
{
	const struct group *group = getgrnam(value);
	uint64_t number;

	if (group)
		s->control_group = group->gr_gid;
	else if (str_to_u64(value, strlen(value), &number) == 0 && number < (gid_t)-1)
		s->control_group = (gid_t)number;
	else
		return err_set(-EINVAL, "control_group: there is no group \"%s\"", value);
	s->has_control_group = true;
	return 0;
}

static int set_uevents(struct settings *s, const char *value)
{
	s->uevents = strcmp(value, "yes") == 0;
	return s->uevents || strcmp(value, "no") == 0
		       ? 0
		       : err_set(-EINVAL, "uevents \"%s\" is neither yes nor no", value);
}

static const struct {
	const char *key;
	int (*set)(struct settings *s, const char *value);
} keys[] = {
	{ "control_mode", set_control_mode },
	{ "control_group", set_control_group },
	{ "uevents", set_uevents },
};
#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\n");
	len = strlen(text);
	while (len && strchr(" \t\n", text[len - 1]))
		text[--len] = '\0';
	return text;
}

static int unknown_key(const char *key)
{
	const char *names[N_KEYS + 1] = { NULL }, *near;

	for (size_t i = 0; i < N_KEYS; i++)
		names[i] = keys[i].key;
	near = err_nearest(key, names);
	if (near)
		return err_set(-EINVAL, "no key \"%s\": did you mean \"%s\"?", key, near);
	return err_set(-EINVAL, "no key \"%s\"; umdev.conf(5) lists them", key);
}

/* line is taken apart. 0 / -EINVAL (text left) */
static int read_line(struct settings *s, char *line)
{
	char *key, *value;

	line[strcspn(line, "#")] = '\0';
	key = trim(line);
	if (!*key)
		return 0;
	value = strchr(key, '=');
	if (!value)
		return err_set(-EINVAL, "\"%s\" is not \"key = value\"", key);
	*value++ = '\0';
	key = trim(key);
	value = trim(value);
	for (size_t i = 0; i < N_KEYS; i++)
		if (strcmp(keys[i].key, key) == 0)
			return keys[i].set(s, value);
	return unknown_key(key);
}

static int read_all(struct settings *s, FILE *in, const char *path)
{
	char line[LINE_SIZE], why[ERR_TEXT];

	for (unsigned n = 1; fgets(line, sizeof(line), in); n++) {
		int r = strlen(line) == sizeof(line) - 1 ? err_set(-EINVAL, "the line is too long")
							 : read_line(s, line);

		if (r < 0) {
			str_format(why, sizeof(why), "%s", err_text(r));
			err_clear();
			return err_set(r, "%s, line %u: %s", path, n, why);
		}
	}
	return ferror(in) ? err_set(-EIO, "cannot read %s", path) : 0;
}

int settings_read(const char *config_dir, struct settings *ret)
{
	_cleanup_free_ char *path = str_printf("%s/" NAME, config_dir);
	struct settings s = { 0 };
	FILE *in;
	int r;

	if (!path)
		return -ENOMEM;
	*ret = s;
	in = fopen(path, "re");
	if (!in)
		return errno == ENOENT
			       ? 0
			       : err_set(-errno, "cannot read %s: %s", path, strerror(errno));
	r = read_all(&s, in, path);
	fclose(in);
	if (r == 0)
		*ret = s;
	return r;
}
