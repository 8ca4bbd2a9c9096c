/* SPDX-License-Identifier: MIT */
/* Definitions, by mdevctl's verbs and options. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include "cli/client.h"
#include "cli/print.h"

#define FILE_MAX (64u << 10) /* as umdevd takes them */

/* ---- options to parameters ---- */

static enum cli_exit put(const struct cli *cli, json_t *params, const char *key, json_t *value)
{
	if (json_object_set_new(params, key, value) == 0)
		return CLI_OK;
	return cli_usage(cli->command, "%s: the %s is not UTF-8 text", cli->command->name, key);
}

static void closep(FILE **file)
{
	if (*file)
		fclose(*file);
}

/* At most FILE_MAX bytes, NUL-terminated, to be freed. NULL: errno. */
static char *read_text(const char *path)
{
	_cleanup_(closep) FILE *file = fopen(path, "re");
	_cleanup_free_ char *text = malloc(FILE_MAX + 1);
	size_t n;

	if (!file || !text)
		return NULL;
	n = fread(text, 1, FILE_MAX + 1, file);
	if (ferror(file))
		return NULL;
	errno = EFBIG;
	if (n > FILE_MAX)
		return NULL;
	text[n] = '\0';
	return TAKE(text);
}

/* The text of the file, once it is JSON: else file, line and reason are told here. */
static enum cli_exit put_file(const struct cli *cli, json_t *params, const char *path)
{
	_cleanup_free_ char *text = read_text(path);
	json_error_t error;
	json_t *json;

	if (!text)
		return cli_fail(cli_exit_of(errno), "%s: %s", path, strerror(errno));
	json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	json_decref(json);
	if (!json)
		return cli_fail(CLI_USAGE, "%s: line %d: %s", path, error.line, error.text);
	return put(cli, params, "definition", json_string(text));
}

static enum cli_exit put_start(const struct cli *cli, json_t *params)
{
	bool automatic = cli_option(cli, "auto"), manual = cli_option(cli, "manual");

	if (automatic && manual)
		return cli_usage(cli->command, "%s: --auto or --manual, not both",
				 cli->command->name);
	return automatic || manual ? put(cli, params, "auto", json_boolean(automatic)) : CLI_OK;
}

/* What define, modify and start have in common; NULL (said): there is nothing to call with. */
static json_t *common_params(const struct cli *cli, enum cli_exit *ret)
{
	static const char *const keys[] = { "uuid", "parent", "type" };
	json_t *params = json_object();
	enum cli_exit status = CLI_OK;

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]) && !status; i++) {
		const char *value = cli_option(cli, keys[i]);

		if (value)
			status = put(cli, params, keys[i], json_string(value));
	}
	if (!status && cli_option(cli, "jsonfile"))
		status = put_file(cli, params, cli_option(cli, "jsonfile"));
	if (!status)
		status = put_start(cli, params);
	if (status) {
		json_decref(params);
		params = NULL;
	}
	*ret = status;
	return params;
}

static enum cli_exit put_attr(const struct cli *cli, json_t *params)
{
	const char *add = cli_option(cli, "addattr"), *value = cli_option(cli, "value");
	const char *index = cli_option(cli, "index");
	_cleanup_free_ char *text = NULL;
	enum cli_exit status = CLI_OK;
	uint64_t n;

	if (!add != !value)
		return cli_usage(cli->command, "modify: --addattr and --value go together");
	if (add && strchr(add, '='))
		return cli_usage(cli->command, "modify: \"%s\" is no path of an attribute", add);
	if (add) {
		text = str_printf("%s=%s", add, value);
		status = put(cli, params, "add", json_string(text ? text : ""));
	}
	if (!status && cli_option(cli, "delattr"))
		status = put(cli, params, "delete", json_true());
	if (status || !index)
		return status;
	if (str_to_u64(index, strlen(index), &n) < 0 || n > INT32_MAX)
		return cli_usage(cli->command, "modify: --index \"%s\" is no number", index);
	return put(cli, params, "index", json_integer((json_int_t)n));
}

/* ---- commands ---- */

static enum cli_exit finish(const struct cli *cli, const char *method, json_t *params)
{
	_cleanup_json_ json_t *reply = NULL;
	enum cli_exit status = client_once(method, params, &reply);
	const char *uuid = json_string_value(json_object_get(reply, "uuid"));

	if (status)
		return status;
	if (cli->json)
		return print_json(reply);
	if (uuid && !cli_option(cli, "uuid"))
		printf("%s\n", uuid);
	return CLI_OK;
}

static enum cli_exit call(struct cli *cli, const char *method)
{
	enum cli_exit status;
	json_t *params = common_params(cli, &status);

	return params ? finish(cli, method, params) : status;
}

enum cli_exit cmd_define(struct cli *cli)
{
	return call(cli, "Define");
}

enum cli_exit cmd_undefine(struct cli *cli)
{
	return call(cli, "Undefine");
}

enum cli_exit cmd_start(struct cli *cli)
{
	return call(cli, "Start");
}

/* "path=value" of each attribute of a definition's text; NULL: it is not in that form. */
static json_t *attrs_of(const char *definition)
{
	_cleanup_json_ json_t *json = json_loads(definition, 0, NULL), *texts = json_array();
	const json_t *item;
	json_t *value;
	const char *name;
	size_t i;

	json_array_foreach(json_object_get(json, "attrs"), i, item) {
		json_object_foreach((json_t *)item, name, value) {
			_cleanup_free_ char *text = NULL;

			if (!json_is_string(value))
				return NULL;
			text = str_printf("%s=%s", name, json_string_value(value));
			if (!text || json_array_append_new(texts, json_string(text)) < 0)
				return NULL;
		}
	}
	return TAKE(texts);
}

/* The device of the UUID takes the attributes of params. */
static enum cli_exit set_live(const struct cli *cli, const json_t *params)
{
	const char *definition = json_string_value(json_object_get(params, "definition"));
	const json_t *add = json_object_get(params, "add");
	_cleanup_json_ json_t *reply = NULL;
	json_t *attrs = definition ? attrs_of(definition) : json_array();

	if (!attrs)
		return cli_fail(CLI_USAGE, "%s: attrs: each must be { \"path\": \"value\" }",
				cli_option(cli, "jsonfile"));
	if (add)
		json_array_append(attrs, (json_t *)add);
	if (!json_array_size(attrs)) {
		json_decref(attrs);
		return cli_usage(cli->command, "modify: --live needs attributes");
	}
	return client_once("SetAttrs",
			   json_pack("{s:O, s:o}", "name", json_object_get(params, "uuid"), "attrs",
				     attrs),
			   &reply);
}

enum cli_exit cmd_modify(struct cli *cli)
{
	bool live = cli_option(cli, "live");
	enum cli_exit status;
	json_t *params = common_params(cli, &status);

	if (!params)
		return status;
	status = put_attr(cli, params);
	if (!status && live)
		status = set_live(cli, params);
	if (live && !cli_option(cli, "defined")) {
		json_decref(params);
		return status;
	}
	if (!status)
		return finish(cli, "Modify", params);
	json_decref(params);
	return status;
}

enum cli_exit cmd_stop(struct cli *cli)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_pack("{s:s, s:b}", "name", cli_option(cli, "uuid"), "force", 0);
	enum cli_exit status;

	if (!params)
		return cli_usage(cli->command, "stop: the UUID is not UTF-8 text");
	status = client_once("Remove", params, &reply);
	return !status && cli->json ? print_json(reply) : status;
}

/* ---- in mdevctl's form ---- */

/* "path=value" texts as [ { "path": "value" }, ... ]. */
static json_t *attrs_json(const json_t *texts)
{
	json_t *attrs = json_array();
	const json_t *text;
	size_t i;

	json_array_foreach(texts, i, text) {
		const char *name = json_string_value(text), *equals = strchr(name, '=');

		if (equals)
			json_array_append_new(attrs,
					      json_pack("{s%:s}", name, (size_t)(equals - name),
							equals + 1));
	}
	return attrs;
}

enum cli_exit show_attributes(const struct cli *cli)
{
	_cleanup_json_ json_t *reply = NULL, *attrs = NULL;
	json_t *params = json_pack("{s:s}", "name", cli->args[0]);
	enum cli_exit status;

	if (!params)
		return cli_usage(cli->command, "show: the device's name is not UTF-8 text");
	status = client_once("Attrs", params, &reply);
	if (status)
		return status;
	attrs = attrs_json(json_object_get(reply, "attrs"));
	return print_json(cli->json ? reply : attrs);
}

/* As mdevctl prints them: [ { parent: [ { uuid: definition }, ... ] }, ... ] */
static enum cli_exit dump(const json_t *definitions)
{
	_cleanup_json_ json_t *parents = json_array();
	const json_t *def;
	json_t *list = NULL;
	const char *last = "";
	size_t i;

	json_array_foreach(definitions, i, def) {
		const char *parent = json_string_value(json_object_get(def, "parent"));
		json_t *attrs = attrs_json(json_object_get(def, "attrs"));

		if (strcmp(parent, last) != 0) {
			list = json_array();
			json_array_append_new(parents, json_pack("{s:o}", parent, list));
			last = parent;
		}
		json_array_append_new(list,
				      json_pack("{s:{s:O, s:O, s:o}}",
						json_string_value(json_object_get(def, "uuid")),
						"mdev_type", json_object_get(def, "type"), "start",
						json_object_get(def, "start"), "attrs", attrs));
	}
	return print_json(parents);
}

enum cli_exit list_defined(const struct cli *cli)
{
	static const struct column columns[] = {
		{ "UUID", "uuid" },
		{ "PARENT", "parent" },
		{ "TYPE", "type" },
		{ "START", "start" },
		{ "ACTIVE", "active" },
		{ "ATTRIBUTES", "attrs" },
		{ NULL },
	};
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_object();
	enum cli_exit status = CLI_OK;

	if (cli->n_args)
		status = put(cli, params, "parent", json_string(cli->args[0]));
	if (status) {
		json_decref(params);
		return status;
	}
	status = client_once("Definitions", params, &reply);
	if (status)
		return status;
	if (cli_option(cli, "dumpjson"))
		return dump(json_object_get(reply, "definitions"));
	return cli->json ? print_json(reply)
			 : print_table(json_object_get(reply, "definitions"), columns);
}
