/* SPDX-License-Identifier: MIT */
/*
 * Volumes: a shorthand for the files below /sys/class/mdev_bus/PARENT/volumes, which it reads and
 * writes through umdevd as any program could.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/str.h"
#include "cli/client.h"
#include "cli/print.h"

#define PROGRESS_MS 200 /* between two looks */

/* ---- reading and writing files of the tree ---- */

static char *path_of(const char *parent, const char *volume, const char *file)
{
	return str_printf("/class/mdev_bus/%s/volumes%s%s%s%s", parent, volume ? "/" : "",
			  volume ? volume : "", *file ? "/" : "", file);
}

/* Text of a file without the newline at its end, to be freed. */
static enum cli_exit read_file(struct client *c, const char *parent, const char *volume,
			       const char *file, char **ret)
{
	_cleanup_free_ char *path = path_of(parent, volume, file);
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = path ? json_pack("{s:s}", "path", path) : NULL;
	enum cli_exit status;
	const char *text;

	if (!params)
		return cli_fail_errno(-ENOMEM);
	status = client_call(c, "Read", params, &reply);
	if (status)
		return status;
	text = json_string_value(json_object_get(reply, "value"));
	*ret = text ? strdup(text) : NULL;
	if (!*ret)
		return cli_fail_errno(-ENOMEM);
	if (**ret)
		(*ret)[strlen(*ret) - 1] = '\0';
	return CLI_OK;
}

/* As far as the work on a volume is, on a terminal; until the answer to `c` comes. */
static void show_progress(const struct client *c, const char *parent, const char *volume)
{
	_cleanup_client_ struct client other = CLIENT_INIT;
	struct pollfd answer = { .fd = c->fd, .events = POLLIN };
	bool shown = false;

	if (!isatty(STDERR_FILENO) || client_open(&other))
		return;
	other.quiet = true;
	while (poll(&answer, 1, PROGRESS_MS) == 0) {
		_cleanup_free_ char *percent = NULL;

		if (read_file(&other, parent, volume, "progress", &percent) == CLI_OK)
			shown |= fprintf(stderr, "\r%s: %s%%", volume, percent) > 0;
	}
	if (shown)
		fprintf(stderr, "\r%*s\r", (int)strlen(volume) + 6, "");
}

/* A write that may take long. */
static enum cli_exit write_file(struct cli *cli, const char *volume, bool of_folder,
				const char *file, const char *value)
{
	_cleanup_free_ char *path = path_of(cli->args[0], of_folder ? NULL : volume, file);
	_cleanup_client_ struct client c = CLIENT_INIT;
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = NULL;
	enum cli_exit status;
	bool more;

	if (path && value)
		params = json_pack("{s:s, s:s}", "path", path, "value", value);
	if (!params)
		return cli_usage(cli->command, "%s: an argument is not UTF-8 text",
				 cli->command->name);
	status = client_open(&c);
	if (status) {
		json_decref(params);
		return status;
	}
	status = client_send(&c, "Write", params, false);
	if (status)
		return status;
	show_progress(&c, cli->args[0], volume);
	status = client_receive(&c, &reply, &more);
	return !status && cli->json ? print_json(reply) : status;
}

enum cli_exit cmd_volume_create(struct cli *cli)
{
	_cleanup_free_ char *spec = strdup(cli->args[1]);
	_cleanup_json_ json_t *settings = cli_settings(cli, 2);
	const json_t *item;
	size_t i;

	if (!settings)
		return CLI_USAGE;
	json_array_foreach(settings, i, item) {
		char *longer = spec ? str_printf("%s,%s", spec, json_string_value(item)) : NULL;

		free(spec);
		spec = longer;
	}
	return write_file(cli, cli->args[1], true, "create", spec);
}

enum cli_exit cmd_volume_resize(struct cli *cli)
{
	return write_file(cli, cli->args[1], false, "size", cli->args[2]);
}

enum cli_exit cmd_volume_delete(struct cli *cli)
{
	return write_file(cli, cli->args[1], false, "delete", "1");
}

/* ---- listing ---- */

/* "16M"; "2.1G" where that is not exact. */
static json_t *size_for_people(json_int_t bytes)
{
	static const char units[] = "\0KMGTP";
	double size = (double)bytes;
	unsigned unit = 0;

	for (; size >= 1024 && units[unit + 1]; unit++)
		size /= 1024;
	return json_sprintf(size == (double)(json_int_t)size ? "%.0f%.1s" : "%.1f%.1s", size,
			    &units[unit]);
}

/* Lines become an array, numbers numbers. */
static json_t *value_of(const char *file, char *text)
{
	json_t *array;
	char *line;

	if (strcmp(file, "size") == 0 || strcmp(file, "allocated") == 0 ||
	    strcmp(file, "progress") == 0)
		return json_integer(atoll(text));
	if (strcmp(file, "thin") == 0)
		return json_boolean(strcmp(text, "yes") == 0);
	if (strcmp(file, "attached") != 0)
		return json_string(text);
	array = json_array();
	while ((line = strsep(&text, "\n")))
		if (*line)
			json_array_append_new(array, json_string(line));
	return array;
}

static enum cli_exit describe(struct client *c, const char *parent, const char *volume,
			      bool for_people, json_t *rows)
{
	static const char *const files[] = { "size",  "allocated", "thin",   "state",
					     "owner", "attached",  "device", "progress" };
	json_t *row = json_pack("{s:s, s:s}", "parent", parent, "name", volume);
	enum cli_exit status = row ? CLI_OK : cli_fail_errno(-ENOMEM);

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && !status; i++) {
		_cleanup_free_ char *text = NULL;
		json_t *value;

		status = read_file(c, parent, volume, files[i], &text);
		if (status)
			break;
		value = value_of(files[i], text);
		if (for_people && json_is_integer(value)) {
			json_int_t bytes = json_integer_value(value);

			json_decref(value);
			value = size_for_people(bytes);
		}
		json_object_set_new(row, files[i], value);
	}
	json_array_append_new(rows, row);
	return status;
}

static enum cli_exit add_parent(struct client *c, const char *parent, bool for_people, json_t *rows)
{
	_cleanup_free_ char *path = path_of(parent, NULL, "");
	_cleanup_json_ json_t *reply = NULL;
	json_t *entry;
	enum cli_exit status;
	size_t i;

	status = client_call(c, "ListDir", json_pack("{s:s}", "path", path ? path : ""), &reply);
	json_array_foreach(json_object_get(reply, "entries"), i, entry) {
		const char *kind = json_string_value(json_object_get(entry, "kind"));
		const char *name = json_string_value(json_object_get(entry, "name"));

		if (!status && name && kind && strcmp(kind, "directory") == 0)
			status = describe(c, parent, name, for_people, rows);
	}
	return status;
}

/* Of the parent that was named, or of all that have a store. */
static enum cli_exit collect(const struct cli *cli, json_t *rows)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	_cleanup_json_ json_t *reply = NULL;
	json_t *parent;
	enum cli_exit status = client_open(&c);
	size_t i;

	if (!status && cli->n_args)
		return add_parent(&c, cli->args[0], !cli->json, rows);
	if (!status)
		status = client_call(&c, "ParentList", NULL, &reply);
	json_array_foreach(json_object_get(reply, "parents"), i, parent) {
		const char *driver = json_string_value(json_object_get(parent, "driver"));
		const char *name = json_string_value(json_object_get(parent, "name"));

		if (!status && driver && name && strcmp(driver, "disk") == 0)
			status = add_parent(&c, name, !cli->json, rows);
	}
	return status;
}

static enum cli_exit list(const struct cli *cli, bool orphans)
{
	static const struct column columns[] = {
		{ "PARENT", "parent" },
		{ "VOLUME", "name" },
		{ "SIZE", "size", true },
		{ "ALLOCATED", "allocated", true },
		{ "THIN", "thin" },
		{ "STATE", "state" },
		{ "OWNER", "owner" },
		{ "ATTACHED", "attached" },
		{ NULL },
	};
	_cleanup_json_ json_t *rows = json_array(), *reply = NULL;
	enum cli_exit status = collect(cli, rows);

	for (size_t i = json_array_size(rows); i-- > 0 && orphans;) {
		const json_t *owner = json_object_get(json_array_get(rows, i), "owner");

		if (!owner || strcmp(json_string_value(owner), "orphan") != 0)
			json_array_remove(rows, i);
	}
	if (status)
		return status;
	if (!cli->json)
		return print_table(rows, columns);
	reply = json_pack("{s:O}", "volumes", rows);
	return reply ? print_json(reply) : cli_fail_errno(-ENOMEM);
}

enum cli_exit cmd_volume_list(struct cli *cli)
{
	return list(cli, false);
}

enum cli_exit cmd_volume_orphans(struct cli *cli)
{
	return list(cli, true);
}
