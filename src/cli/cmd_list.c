/* SPDX-License-Identifier: MIT */
/* `umdev list`: one line per device, with the columns that are wanted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/err.h"
#include "cli/client.h"
#include "cli/print.h"

/* All columns, by the names of LIST_COLUMNS. */
static const struct column all_columns[] = {
	{ "UUID", "uuid" },           { "LABEL", "label" },
	{ "PARENT", "parent" },       { "TYPE", "type" },
	{ "API", "device_api" },      { "GROUP", "group", true },
	{ "STATE", "state" },         { "ERROR", "error" },
	{ "SETTINGS", "settings" },   { "WORKER", "worker", true },
	{ "CLIENT", "client", true }, { "COMMAND", "command" },
	{ "PATH", "path" },           { NULL },
};
#define N_COLUMNS (sizeof(all_columns) / sizeof(all_columns[0]) - 1)
#define MAX_WANTED 32 /* more than there are: a column may be named twice */

static const char default_columns[] = "uuid,label,parent,type,group,state,error";

static enum cli_exit no_column(const struct cli *cli, const char *name)
{
	const char *names[N_COLUMNS + 1] = { NULL }, *near;
	char upper[32] = "";

	for (size_t i = 0; i < N_COLUMNS; i++)
		names[i] = all_columns[i].title;
	for (size_t i = 0; i < sizeof(upper) - 1 && name[i]; i++)
		upper[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]);
	near = err_nearest(upper, names);
	if (near)
		return cli_usage(cli->command, "list: no column \"%s\": did you mean \"%s\"", name,
				 near);
	return cli_usage(cli->command, "list: no column \"%s\": there are " LIST_COLUMNS, name);
}

/* Appends the columns that `names` lists to those in ret, which is ended by a title of NULL. */
static enum cli_exit add_columns(const struct cli *cli, const char *names, struct column *ret)
{
	_cleanup_free_ char *copy = strdup(names);
	char *rest = copy, *name;
	size_t n = 0, i;

	if (!copy)
		return cli_fail_errno(-ENOMEM);
	while (ret[n].title)
		n++;
	while ((name = strsep(&rest, ","))) {
		for (i = 0; i < N_COLUMNS && strcasecmp(all_columns[i].title, name) != 0; i++)
			;
		if (i == N_COLUMNS)
			return no_column(cli, name);
		if (n == MAX_WANTED)
			return cli_usage(cli->command, "list: more than %d columns", MAX_WANTED);
		ret[n++] = all_columns[i];
		ret[n].title = NULL;
	}
	return CLI_OK;
}

static enum cli_exit choose_columns(const struct cli *cli, struct column *ret)
{
	const char *wanted = cli_option(cli, "output");
	bool add = !wanted || *wanted == '+';
	enum cli_exit status = CLI_OK;

	if (add)
		status = add_columns(cli, default_columns, ret);
	if (!status && wanted)
		status = add_columns(cli, wanted + (*wanted == '+'), ret);
	return status;
}

/* What umdevd does not tell: the name of the client's program. */
static void add_commands(json_t *devices)
{
	json_t *device;
	size_t i;

	json_array_foreach(devices, i, device) {
		_cleanup_free_ char *name = print_command(json_object_get(device, "client"));

		if (name)
			json_object_set_new(device, "command", json_string(name));
	}
}

/* Devices with the wanted members only. */
static enum cli_exit print_chosen(const json_t *devices, const struct column *columns)
{
	_cleanup_json_ json_t *rows = json_array(), *result = NULL;
	json_t *device;
	size_t i;

	json_array_foreach(devices, i, device) {
		json_t *row = json_object(), *value;

		for (const struct column *c = columns; c->title; c++) {
			value = json_object_get(device, c->key);
			if (value)
				json_object_set(row, c->key, value);
		}
		json_array_append_new(rows, row);
	}
	result = json_pack("{s:O}", "devices", rows);
	return print_json(result);
}

enum cli_exit cmd_list(struct cli *cli)
{
	struct column columns[MAX_WANTED + 1] = { 0 };
	_cleanup_json_ json_t *reply = NULL;
	json_t *params, *devices;
	enum cli_exit status;

	if (cli_option(cli, "defined"))
		return list_defined(cli);
	params = json_object();
	status = choose_columns(cli, columns);
	if (!status && cli->n_args &&
	    json_object_set_new(params, "parent", json_string(cli->args[0])) < 0)
		status = cli_usage(cli->command, "list: the parent's name is not UTF-8 text");
	if (status) {
		json_decref(params);
		return status;
	}
	status = client_list("List", params, "devices", &reply);
	if (status)
		return status;
	if (cli->json && !cli_option(cli, "output"))
		return print_json(reply);
	devices = json_object_get(reply, "devices");
	add_commands(devices);
	return cli->json ? print_chosen(devices, columns) : print_table(devices, columns);
}
