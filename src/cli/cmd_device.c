/* SPDX-License-Identifier: MIT */
/* Devices: made, listed, shown, changed, removed. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "base/paths.h"
#include "base/str.h"
#include "cli/client.h"
#include "cli/many.h"
#include "cli/print.h"

/* params of a call whose one argument is the device's name. NULL: said. */
static json_t *params_of_name(const struct cli *cli)
{
	json_t *params = json_pack("{s:s}", "name", cli->args[0]);

	if (!params)
		cli_usage(cli->command, "%s: the name is not UTF-8 text", cli->command->name);
	return params;
}

enum cli_exit cmd_create(struct cli *cli)
{
	unsigned n_names = many_n_names(cli);
	_cleanup_json_ json_t *settings = NULL, *reply = NULL;
	const char *uuid = cli_option(cli, "uuid"), *owner = cli_option(cli, "owner-pid");
	uint64_t pid = 0;
	json_t *params;
	enum cli_exit status;

	status = many_check_uuids(cli);
	if (status)
		return status;
	if (many_is_meant(cli) && owner)
		return cli_usage(cli->command, "create: --owner-pid goes with one device");
	if (many_is_meant(cli))
		return many_create(cli);
	settings = cli_settings(cli, n_names);
	if (!settings)
		return CLI_USAGE;
	if (owner && (str_to_u64(owner, strlen(owner), &pid) < 0 || pid < 1 || pid > INT_MAX))
		return cli_usage(cli->command, "create: --owner-pid \"%s\" is no process", owner);
	params = json_pack("{s:s, s:s, s:s*, s:O, s:o*}", "parent", cli_option(cli, "parent"),
			   "type", cli_option(cli, "type"), "uuid", n_names ? cli->args[0] : uuid,
			   "settings", settings, "owner_pid",
			   owner ? json_integer((json_int_t)pid) : NULL);
	if (!params)
		return cli_usage(cli->command, "create: an option's value is not UTF-8 text");
	status = client_once("Create", params, &reply);
	if (status)
		return status;
	if (cli->json)
		return print_json(reply);
	printf("%s\n", json_string_value(json_object_get(reply, "uuid")));
	return CLI_OK;
}

enum cli_exit cmd_remove(struct cli *cli)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params;
	enum cli_exit status;

	if (cli->n_args > 1 || strcmp(cli->args[0], "-") == 0)
		return many_remove(cli);
	params = params_of_name(cli);
	if (!params)
		return CLI_USAGE;
	json_object_set_new(params, "force", json_boolean(cli_option(cli, "force")));
	status = client_once("Remove", params, &reply);
	return !status && cli->json ? print_json(reply) : status;
}

/* Where the device is in the file system: $UMDEV_RUN/sys/devices/... */
static void print_path(const json_t *device)
{
	const char *path = json_string_value(json_object_get(device, "path"));
	_cleanup_free_ char *run = NULL;

	if (path && *path && path_root(PATH_RUN, &run) == 0)
		printf("%-12s %s/sys%s\n", "path", run, path);
}

enum cli_exit cmd_show(struct cli *cli)
{
	static const struct field device_fields[] = {
		{ "uuid", "uuid" },   { "label", "label" },           { "parent", "parent" },
		{ "type", "type" },   { "device API", "device_api" }, { "state", "state" },
		{ "error", "error" }, { "group", "group" },           { NULL },
	};
	static const struct field attach_fields[] = {
		{ "presented as", "presentation" },
		{ "socket", "socket" },
		{ "directory", "directory" },
		{ "owner pid", "owner" },
		{ NULL },
	};
	_cleanup_json_ json_t *reply = NULL;
	enum cli_exit status;
	json_t *params;

	if (cli_option(cli, "attributes"))
		return show_attributes(cli);
	params = params_of_name(cli);
	if (!params)
		return CLI_USAGE;
	status = client_once("Show", params, &reply);
	if (status)
		return status;
	if (cli->json)
		return print_json(reply);
	print_fields(json_object_get(reply, "device"), device_fields);
	print_path(json_object_get(reply, "device"));
	print_fields(json_object_get(reply, "attach"), attach_fields);
	return print_more_params(json_object_get(reply, "params"), false);
}

static enum cli_exit call_with_names(struct cli *cli, const char *method)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *names = json_array();
	enum cli_exit status;

	for (unsigned i = 0; i < cli->n_args; i++) {
		if (json_array_append_new(names, json_string(cli->args[i])) == 0)
			continue;
		json_decref(names);
		return cli_usage(cli->command, "%s: a device's name is not UTF-8 text",
				 cli->command->name);
	}
	status = client_once(method, json_pack("{s:o}", "names", names), &reply);
	return !status && cli->json ? print_json(reply) : status;
}

enum cli_exit cmd_commit(struct cli *cli)
{
	return call_with_names(cli, "Commit");
}

enum cli_exit cmd_release(struct cli *cli)
{
	return call_with_names(cli, "Release");
}

enum cli_exit cmd_restart(struct cli *cli)
{
	_cleanup_json_ json_t *reply = NULL;
	bool all = cli_option(cli, "all");
	const json_t *devices, *device;
	enum cli_exit status;
	json_t *params;
	size_t i;

	if (all == (cli->n_args == 1))
		return cli_usage(cli->command, "restart: name one DEVICE, or give --all");
	params = all ? json_object() : params_of_name(cli);
	if (!params)
		return CLI_USAGE;
	status = client_once("Restart", params, &reply);
	if (status)
		return status;
	if (cli->json)
		return print_json(reply);
	devices = json_object_get(reply, "devices");
	json_array_foreach(devices, i, device)
		printf("%s\n", json_string_value(device));
	if (!json_array_size(devices))
		fprintf(stderr,
			"umdev: nothing to do: %s not in use, and the next client gets the "
			"installed program\n",
			all ? "devices are" : "the device is");
	return CLI_OK;
}
