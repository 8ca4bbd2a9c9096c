/* SPDX-License-Identifier: MIT */
/*
 * `umdev tree`: what is carved into what, and who has it.
 *
 *     card0 mtty
 *     |-mtty-1          [##........] 4 of 24
 *     | `-<uuid> left                         connected  12  4711  4700 qemu-system-x86
 *     `-mtty-2          [..........] 0 of 10
 *
 * The answers of umdevd are nested into one object first; that is what --json prints.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libsmartcols.h>
#include "base/str.h"
#include "cli/client.h"
#include "cli/print.h"

#define BAR 10 /* characters */

enum tree_column { COL_NAME, COL_USE, COL_STATE, COL_GROUP, COL_WORKER, COL_CLIENT };

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* ---- nesting ---- */

/* Devices of this parent and type; they come in the order in which they were made. */
static json_t *devices_of(json_t *devices, const json_t *type)
{
	json_t *list = json_array(), *device;
	size_t i;

	json_array_foreach(devices, i, device) {
		_cleanup_free_ char *command = NULL;

		if (strcmp(text_of(device, "parent"), text_of(type, "parent")) != 0 ||
		    strcmp(text_of(device, "type"), text_of(type, "name")) != 0)
			continue;
		command = print_command(json_object_get(device, "client"));
		if (command)
			json_object_set_new(device, "command", json_string(command));
		json_array_append(list, device);
	}
	return list;
}

/* Without definitions that could not be started. */
static json_int_t count_used(const json_t *devices)
{
	json_int_t n = 0;
	const json_t *device;
	size_t i;

	json_array_foreach(devices, i, device)
		n += *text_of(device, "path") != '\0';
	return n;
}

/* The types of a parent, each with its devices; without what only `types` shows. */
static json_t *types_of(const json_t *types, json_t *devices, const json_t *parent)
{
	static const char *const keys[] = { "name", "pretty", "device_api", "available_instances" };
	json_t *list = json_array(), *type;
	size_t i;

	json_array_foreach(types, i, type) {
		json_t *row, *its;

		if (strcmp(text_of(type, "parent"), text_of(parent, "name")) != 0)
			continue;
		row = json_object();
		its = devices_of(devices, type);
		for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
			json_object_set(row, keys[k], json_object_get(type, keys[k]));
		json_object_set_new(row, "used", json_integer(count_used(its)));
		json_object_set_new(row, "devices", its);
		json_array_append_new(list, row);
	}
	return list;
}

/* *ret: { "parents": [ { ..., "types": [ { ..., "devices": [] } ] } ] } */
static enum cli_exit ask(const struct cli *cli, json_t **ret)
{
	_cleanup_json_ json_t *parents = NULL, *types = NULL, *devices = NULL, *all = json_array();
	json_t *which = cli->n_args ? json_pack("{s:s}", "parent", cli->args[0]) : json_object();
	enum cli_exit status;
	json_t *parent;
	size_t i;

	if (!which)
		return cli_usage(cli->command, "tree: the parent's name is not UTF-8 text");
	status = client_once("Types", json_incref(which), &types);
	if (!status)
		status = client_list("List", json_incref(which), "devices", &devices);
	json_decref(which);
	if (!status)
		status = client_once("ParentList", NULL, &parents);
	if (status)
		return status;
	json_array_foreach(json_object_get(parents, "parents"), i, parent) {
		if (cli->n_args && strcmp(cli->args[0], text_of(parent, "name")) != 0)
			continue;
		json_object_set_new(parent, "types",
				    types_of(json_object_get(types, "types"),
					     json_object_get(devices, "devices"), parent));
		json_array_append(all, parent);
	}
	*ret = json_pack("{s:O}", "parents", all);
	return CLI_OK;
}

/* ---- printing ---- */

struct painter {
	struct libscols_table *table;
	bool bad; /* no memory */
};

/* Takes text (NULL: none, or no memory when it was made). */
static void put(struct painter *p, struct libscols_line *line, enum tree_column column, char *text)
{
	if (!text || scols_line_refer_data(line, column, text) < 0) {
		free(text);
		p->bad = true;
	}
}

static struct libscols_line *add_line(struct painter *p, struct libscols_line *above, char *name)
{
	struct libscols_line *line = scols_table_new_line(p->table, above);

	if (!line) {
		free(name);
		p->bad = true;
		return NULL;
	}
	put(p, line, COL_NAME, name);
	return line;
}

/* "[##........] 4 of 24": of what its parent could give if all went to this type. */
static char *bar(json_int_t used, json_int_t available)
{
	json_int_t total = used + available, full;
	char text[BAR + 1];

	if (available >= UINT32_MAX) /* nothing limits it */
		return str_printf("%" JSON_INTEGER_FORMAT, used);
	full = total ? used * BAR / total : 0;
	full += used && !full;
	for (json_int_t i = 0; i < BAR; i++)
		text[i] = i < full ? '#' : '.';
	text[BAR] = '\0';
	return str_printf("[%s] %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT, text, used,
			  total);
}

static void add_device(struct painter *p, struct libscols_line *above, const json_t *device)
{
	const char *label = text_of(device, "label"), *command = text_of(device, "command");
	const json_t *worker = json_object_get(device, "worker");
	const json_t *client = json_object_get(device, "client");
	struct libscols_line *line = add_line(
		p, above, str_printf("%s%s%s", text_of(device, "uuid"), *label ? " " : "", label));

	if (!line)
		return;
	put(p, line, COL_STATE, strdup(text_of(device, "state")));
	if (json_integer_value(json_object_get(device, "group")) >= 0)
		put(p, line, COL_GROUP, print_text(json_object_get(device, "group")));
	if (worker)
		put(p, line, COL_WORKER, print_text(worker));
	if (client)
		put(p, line, COL_CLIENT,
		    str_printf("%" JSON_INTEGER_FORMAT "%s%s", json_integer_value(client),
			       *command ? " " : "", command));
}

static void add_type(struct painter *p, struct libscols_line *above, const json_t *type)
{
	struct libscols_line *line = add_line(p, above, strdup(text_of(type, "name")));
	const json_t *device;
	size_t i;

	if (!line)
		return;
	put(p, line, COL_USE,
	    bar(json_integer_value(json_object_get(type, "used")),
		json_integer_value(json_object_get(type, "available_instances"))));
	json_array_foreach(json_object_get(type, "devices"), i, device)
		add_device(p, line, device);
}

static void add_parent(struct painter *p, const json_t *parent)
{
	struct libscols_line *line = add_line(
		p, NULL, str_printf("%s (%s)", text_of(parent, "name"), text_of(parent, "driver")));
	const json_t *type;
	size_t i;

	json_array_foreach(json_object_get(parent, "types"), i, type) {
		if (line)
			add_type(p, line, type);
	}
}

static enum cli_exit print_tree(const json_t *parents)
{
	static const struct {
		const char *title;
		int flags;
	} columns[] = {
		[COL_NAME] = { "NAME", SCOLS_FL_TREE },
		[COL_USE] = { "USED", 0 },
		[COL_STATE] = { "STATE", 0 },
		[COL_GROUP] = { "GROUP", SCOLS_FL_RIGHT },
		[COL_WORKER] = { "WORKER", SCOLS_FL_RIGHT },
		[COL_CLIENT] = { "CLIENT", 0 },
	};
	struct painter p = { .table = scols_new_table() };
	const json_t *parent;
	size_t i;
	int r;

	p.bad = !p.table;
	for (i = 0; !p.bad && i < sizeof(columns) / sizeof(columns[0]); i++)
		p.bad = !scols_table_new_column(p.table, columns[i].title, 0, columns[i].flags);
	json_array_foreach(parents, i, parent) {
		if (!p.bad)
			add_parent(&p, parent);
	}
	r = p.bad ? -ENOMEM : scols_print_table(p.table);
	scols_unref_table(p.table);
	return r < 0 ? cli_fail_errno(-ENOMEM) : CLI_OK;
}

enum cli_exit cmd_tree(struct cli *cli)
{
	_cleanup_json_ json_t *all = NULL;
	enum cli_exit status = ask(cli, &all);

	if (status)
		return status;
	return cli->json ? print_json(all) : print_tree(json_object_get(all, "parents"));
}
