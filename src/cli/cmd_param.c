/* SPDX-License-Identifier: MIT */
/* Parameters: of a device, and of a type before any device exists. */
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "cli/client.h"
#include "cli/print.h"

#define MAX_NAMES 64 /* looked at for a near match; a type has half of them at most */

/* Of the device that is named. */
static enum cli_exit params_of_device(const char *name, json_t **ret)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_pack("{s:s}", "name", name);
	enum cli_exit status;

	if (!params)
		return cli_fail(CLI_USAGE, "param: the device's name is not UTF-8 text");
	status = client_once("Show", params, &reply);
	if (!status)
		*ret = json_incref(json_object_get(reply, "params"));
	return status;
}

/* Of the type of that parent. */
static enum cli_exit params_of_type(const char *parent, const char *type, json_t **ret)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_pack("{s:s}", "parent", parent), *row;
	enum cli_exit status;

	if (!params)
		return cli_fail(CLI_USAGE, "param: the parent's name is not UTF-8 text");
	status = client_once("Types", params, &reply);
	if (status)
		return status;
	row = print_find_row(json_object_get(reply, "types"), "type", type);
	if (!row)
		return CLI_NOT_FOUND;
	*ret = json_incref(json_object_get(row, "params"));
	return CLI_OK;
}

/* n words name something that has parameters: DEVICE, or PARENT TYPE. */
static enum cli_exit params_of(char *const *words, unsigned n, json_t **ret)
{
	return n == 1 ? params_of_device(words[0], ret) : params_of_type(words[0], words[1], ret);
}

enum cli_exit cmd_param_list(struct cli *cli)
{
	_cleanup_json_ json_t *params = NULL;
	enum cli_exit status = params_of(cli->args, cli->n_args, &params);

	if (status)
		return status;
	return cli->json ? print_json(params) : print_params(params, cli->n_args == 2);
}

enum cli_exit cmd_param_show(struct cli *cli)
{
	static const struct field fields[] = {
		{ "parameter", "name" },
		{ "value", "value" },
		{ "type", "type" },
		{ "min", "min" },
		{ "max", "max" },
		{ "step", "step" },
		{ "available", "available" },
		{ "default", "default" },
		{ "choices", "choices" },
		{ "unit", "unit" },
		{ "writable", "writable" },
		{ "required", "required" },
		{ "description", "description" },
		{ NULL },
	};
	_cleanup_json_ json_t *params = NULL;
	enum cli_exit status = params_of(cli->args, cli->n_args - 1, &params);
	json_t *param;

	if (status)
		return status;
	param = print_find_row(params, "parameter", cli->args[cli->n_args - 1]);
	if (!param)
		return CLI_NOT_FOUND;
	if (cli->json)
		return print_json(param);
	print_fields(param, fields);
	return CLI_OK;
}

/* Sends one key=value. */
static enum cli_exit set_one(struct client *c, const char *name, const char *setting)
{
	_cleanup_json_ json_t *reply = NULL;
	const char *equal = strchr(setting, '=');
	json_t *params = json_pack("{s:s, s:s%, s:s}", "name", name, "param", setting,
				   (size_t)(equal - setting), "value", equal + 1);

	if (!params)
		return cli_fail(CLI_USAGE, "param set: the device's name is not UTF-8 text");
	return client_call(c, "ParamSet", params, &reply);
}

enum cli_exit cmd_param_set(struct cli *cli)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	_cleanup_json_ json_t *settings = cli_settings(cli, 1), *done = NULL;
	const json_t *setting;
	enum cli_exit status;
	size_t i;

	if (!settings)
		return CLI_USAGE;
	status = client_open(&c);
	json_array_foreach(settings, i, setting) {
		if (!status)
			status = set_one(&c, cli->args[0], json_string_value(setting));
	}
	done = json_object();
	return !status && cli->json ? print_json(done) : status;
}
