/* SPDX-License-Identifier: MIT */
/* Parents, the drivers they are made of, and the types they give. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "cli/client.h"
#include "cli/print.h"

enum cli_exit cmd_drivers(struct cli *cli)
{
	static const struct column columns[] = {
		{ "DRIVER", "name" }, { "DESCRIPTION", "summary" }, { "FILE", "file" }, { NULL }
	};
	static const struct field fields[] = {
		{ "driver", "name" }, { "description", "summary" }, { "file", "file" }, { NULL }
	};
	_cleanup_json_ json_t *reply = NULL;
	enum cli_exit status = client_once("Drivers", NULL, &reply);
	json_t *drivers = json_object_get(reply, "drivers"), *driver;

	if (status)
		return status;
	if (!cli->n_args)
		return cli->json ? print_json(reply) : print_table(drivers, columns);
	driver = print_find_row(drivers, "driver", cli->args[0]);
	if (!driver)
		return CLI_NOT_FOUND;
	if (cli->json)
		return print_json(driver);
	print_fields(driver, fields);
	return print_more_params(json_object_get(driver, "params"), true);
}

/* Takes the setting driver=... out of the list; a new reference to its value, or NULL. */
static json_t *take_driver(json_t *settings)
{
	static const char prefix[] = "driver=";
	const json_t *item;
	size_t i;

	json_array_foreach(settings, i, item) {
		const char *text = json_string_value(item);
		json_t *driver;

		if (strncmp(text, prefix, strlen(prefix)) != 0)
			continue;
		driver = json_string(text + strlen(prefix));
		json_array_remove(settings, i);
		return driver;
	}
	return NULL;
}

/* Done: nothing but {} is left to print. */
static enum cli_exit finish(const struct cli *cli, enum cli_exit status, const json_t *reply)
{
	return !status && cli->json ? print_json(reply) : status;
}

enum cli_exit cmd_parent_add(struct cli *cli)
{
	_cleanup_json_ json_t *settings = cli_settings(cli, 1), *reply = NULL, *driver = NULL;
	json_t *params;
	enum cli_exit status;

	if (!settings)
		return CLI_USAGE;
	driver = take_driver(settings);
	if (!driver)
		return cli_usage(cli->command, "parent add: driver=DRIVER is missing");
	params = json_pack("{s:s, s:O, s:O}", "name", cli->args[0], "driver", driver, "settings",
			   settings);
	if (!params)
		return cli_usage(cli->command, "parent add: the name is not UTF-8 text");
	status = client_once("ParentAdd", params, &reply);
	return finish(cli, status, reply);
}

enum cli_exit cmd_parent_remove(struct cli *cli)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_pack("{s:s}", "name", cli->args[0]);
	enum cli_exit status;

	if (!params)
		return cli_usage(cli->command, "parent remove: the name is not UTF-8 text");
	status = client_once("ParentRemove", params, &reply);
	return finish(cli, status, reply);
}

enum cli_exit cmd_parent_list(struct cli *cli)
{
	static const struct column columns[] = {
		{ "PARENT", "name" },           { "DRIVER", "driver" },     { "CLASS", "class" },
		{ "DEVICES", "devices", true }, { "SETTINGS", "settings" }, { NULL },
	};
	_cleanup_json_ json_t *reply = NULL;
	enum cli_exit status = client_once("ParentList", NULL, &reply);

	if (status)
		return status;
	return cli->json ? print_json(reply)
			 : print_table(json_object_get(reply, "parents"), columns);
}

/* One type in full. */
static enum cli_exit describe_type(const struct cli *cli, json_t *type)
{
	static const struct field fields[] = {
		{ "type", "name" },
		{ "parent", "parent" },
		{ "name", "pretty" },
		{ "description", "description" },
		{ "device API", "device_api" },
		{ "class", "class" },
		{ "available", "available_instances" },
		{ NULL },
	};

	if (!type)
		return CLI_NOT_FOUND;
	if (cli->json)
		return print_json(type);
	print_fields(type, fields);
	return print_more_params(json_object_get(type, "params"), true);
}

enum cli_exit cmd_types(struct cli *cli)
{
	static const struct column columns[] = {
		{ "PARENT", "parent" },
		{ "TYPE", "name" },
		{ "AVAILABLE", "available_instances", true },
		{ "API", "device_api" },
		{ "NAME", "pretty" },
		{ "DESCRIPTION", "description" },
		{ NULL },
	};
	_cleanup_json_ json_t *reply = NULL;
	json_t *types, *params = json_object();
	enum cli_exit status;

	if (cli->n_args && json_object_set_new(params, "parent", json_string(cli->args[0])) < 0) {
		json_decref(params);
		return cli_usage(cli->command, "types: the parent's name is not UTF-8 text");
	}
	status = client_once("Types", params, &reply);
	if (status)
		return status;
	types = json_object_get(reply, "types");
	if (cli->n_args == 2)
		return describe_type(cli, print_find_row(types, "type", cli->args[1]));
	return cli->json ? print_json(reply) : print_table(types, columns);
}
