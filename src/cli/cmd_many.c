/* SPDX-License-Identifier: MIT */
/* Many devices made or removed; many.h has the rules. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/str.h"
#include "base/uuid.h"
#include "cli/client.h"
#include "cli/many.h"
#include "cli/print.h"

#define CALL_ITEMS 1000        /* as umdevd takes them */
#define CALL_BYTES (60u << 10) /* of items as JSON; the rest is the call's envelope */
#define LINES_MAX (1u << 20)   /* of standard input: no typing error makes us swallow a disk */
#define LINE_BYTES (4u << 10)  /* of one: what `create` takes */

struct many {
	const char *method, *key; /* of the call, and its parameter that holds the items */
	json_t *params;           /* the others; borrowed */
	json_t *items;            /* all of them, as texts; borrowed */
	json_t *failed;           /* owned: Failures, with their index in items */
	bool all;
	enum cli_exit status; /* of the first failure */
};

enum cli_exit many_check_uuids(const struct cli *cli)
{
	unsigned n = many_n_names(cli);
	struct uuid uuid;

	for (unsigned i = 0; i < n && strcmp(cli->args[0], "-") != 0; i++)
		if (strlen(cli->args[i]) != UUID_TEXT - 1 ||
		    uuid_parse(cli->args[i], UUID_TEXT - 1, &uuid) < 0)
			return cli_usage(cli->command,
					 "create: \"%s\" is neither a UUID nor KEY=VALUE",
					 cli->args[i]);
	if (n && cli_option(cli, "uuid"))
		return cli_usage(cli->command, "create: --uuid names one device; name all as "
					       "arguments");
	return CLI_OK;
}

unsigned many_n_names(const struct cli *cli)
{
	unsigned n = 0;

	while (n < cli->n_args && !strchr(cli->args[n], '='))
		n++;
	return n;
}

bool many_is_meant(const struct cli *cli)
{
	return cli->n_args && (many_n_names(cli) > 1 || strcmp(cli->args[0], "-") == 0);
}

/* ---- which ones ---- */

static enum cli_exit append(const struct cli *cli, json_t *items, const char *text, size_t line)
{
	if (json_array_append_new(items, json_string(text)) == 0)
		return CLI_OK;
	if (line)
		return cli_usage(cli->command, "%s: line %zu is not UTF-8 text", cli->command->name,
				 line);
	return cli_usage(cli->command, "%s: an argument is not UTF-8 text", cli->command->name);
}

/* Lines of standard input, without empty ones. */
static enum cli_exit read_lines(const struct cli *cli, json_t *items)
{
	char text[LINE_BYTES + 2];
	enum cli_exit status = CLI_OK;
	size_t line = 0;

	while (!status && fgets(text, sizeof(text), stdin)) {
		size_t len = strlen(text);

		line++;
		if (len == sizeof(text) - 1 && text[len - 1] != '\n')
			return cli_usage(cli->command, "%s: line %zu is longer than %u bytes",
					 cli->command->name, line, LINE_BYTES);
		if (line > LINES_MAX)
			return cli_usage(cli->command, "%s: more than %u lines", cli->command->name,
					 LINES_MAX);
		text[strcspn(text, "\r\n")] = '\0';
		if (*text)
			status = append(cli, items, text, line);
	}
	if (!status && ferror(stdin))
		return cli_fail(CLI_FAILURE, "standard input: %s", strerror(errno));
	return status;
}

/* The devices of the command line. NULL: said. */
static json_t *read_items(const struct cli *cli, unsigned n_names, enum cli_exit *ret_status)
{
	_cleanup_json_ json_t *items = json_array();
	bool from_stdin = n_names == 1 && strcmp(cli->args[0], "-") == 0;
	enum cli_exit status = from_stdin ? read_lines(cli, items) : CLI_OK;

	for (unsigned i = 0; !from_stdin && !status && i < n_names; i++)
		status = append(cli, items, cli->args[i], 0);
	*ret_status = status;
	return status ? NULL : TAKE(items);
}

/* ---- calls ---- */

/* Length of an item in a call. */
static size_t json_size(const json_t *item)
{
	return json_dumpb(item, NULL, 0, JSON_ENCODE_ANY) + 1;
}

/* As many from `first` on as fit into one call; returns how many. */
static size_t take_slice(const struct many *many, size_t first, json_t *slice)
{
	size_t n = 0, bytes = 0;
	json_t *item;

	while (n < CALL_ITEMS && (item = json_array_get(many->items, first + n))) {
		bytes += json_size(item);
		if (n && bytes > CALL_BYTES)
			break;
		json_array_append(slice, item);
		n++;
	}
	return n;
}

/* Says each failure of a call whose first item is `first`, and keeps it. */
static void keep_failures(struct many *many, json_t *reply, size_t first)
{
	json_t *failed = json_object_get(reply, "failed"), *failure;
	size_t i;

	json_array_foreach(failed, i, failure) {
		json_int_t at = json_integer_value(json_object_get(failure, "index"));
		const char *text = json_string_value(json_object_get(failure, "text"));
		const char *name;

		at += (json_int_t)first;
		name = json_string_value(json_array_get(many->items, (size_t)at));
		log_error("%.36s: %s", name ? name : "?", text ? text : "?");
		json_object_set_new(failure, "index", json_integer(at));
		json_array_append(many->failed, failure);
		if (!many->status)
			many->status = cli_exit_of(
				(int)json_integer_value(json_object_get(failure, "number")));
	}
}

/* Everything; a call that is refused as a whole ends it. */
static enum cli_exit run(struct cli *cli, struct many *many)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	size_t total = json_array_size(many->items), done = 0, n;
	enum cli_exit status = client_open(&c);

	while (!status && done < total) {
		_cleanup_json_ json_t *slice = json_array(), *reply = NULL;
		json_t *params = json_copy(many->params);

		n = take_slice(many, done, slice);
		json_object_set(params, many->key, slice);
		if (many->all && n < total) {
			json_decref(params);
			return cli_usage(cli->command,
					 "%s: --all takes what one call holds, %d devices or %u "
					 "bytes; these are %zu",
					 cli->command->name, CALL_ITEMS, CALL_BYTES, total);
		}
		status = client_call(&c, many->method, params, &reply);
		if (!status)
			keep_failures(many, reply, done);
		done += n;
	}
	return status;
}

/* ---- commands ---- */

/* The UUIDs of what was made: items without those in failed, which are in no order. */
static json_t *made(const struct many *many)
{
	_cleanup_free_ bool *has_failed = calloc(json_array_size(many->items) + 1, sizeof(bool));
	json_t *list = json_array(), *item;
	struct uuid uuid;
	char text[UUID_TEXT];
	size_t i;

	json_array_foreach(many->failed, i, item) {
		json_int_t index = json_integer_value(json_object_get(item, "index"));

		if (has_failed && index >= 0 && (size_t)index < json_array_size(many->items))
			has_failed[index] = true;
	}
	json_array_foreach(many->items, i, item) {
		if (!has_failed || has_failed[i] ||
		    uuid_parse(json_string_value(item), json_string_length(item), &uuid) < 0)
			continue;
		uuid_format(&uuid, text);
		json_array_append_new(list, json_string(text));
	}
	return list;
}

static enum cli_exit print_made(const struct cli *cli, const struct many *many)
{
	_cleanup_json_ json_t *uuids = made(many), *result = NULL;
	const json_t *item;
	size_t i;

	if (cli->json) {
		result = json_pack("{s:O, s:O}", "uuids", uuids, "failed", many->failed);
		return print_json(result);
	}
	json_array_foreach(uuids, i, item)
		puts(json_string_value(item));
	return CLI_OK;
}

/* "UUID,key=value" of "UUID": what stands behind the names is for each device. */
static enum cli_exit add_settings(const struct cli *cli, json_t *items, unsigned first)
{
	for (unsigned s = first; s < cli->n_args; s++) {
		if (strpbrk(cli->args[s], ",\n"))
			return cli_usage(cli->command,
					 "create: \"%s\": a setting holds neither a comma nor a "
					 "line end",
					 cli->args[s]);
		for (size_t i = 0; i < json_array_size(items); i++) {
			json_t *item = json_array_get(items, i);
			_cleanup_free_ char *text = str_printf("%s,%s", json_string_value(item),
							       cli->args[s]);

			if (!text || json_string_set(item, text) < 0)
				return cli_usage(cli->command, "create: \"%s\" is not UTF-8 text",
						 cli->args[s]);
		}
	}
	return CLI_OK;
}

enum cli_exit many_create(struct cli *cli)
{
	unsigned n_names = many_n_names(cli);
	_cleanup_json_ json_t *items = NULL, *params = NULL, *failed = json_array(),
			      *settings = cli_settings(cli, n_names);
	struct many many = { "CreateMany", "specs", .failed = failed };
	enum cli_exit status;

	if (!settings)
		return CLI_USAGE;
	items = read_items(cli, n_names, &status);
	if (!status)
		status = add_settings(cli, items, n_names);
	if (status)
		return status;
	many.all = cli_option(cli, "all");
	params = json_pack("{s:s, s:s, s:b}", "parent", cli_option(cli, "parent"), "type",
			   cli_option(cli, "type"), "all", (int)many.all);
	if (!params)
		return cli_usage(cli->command, "create: an option's value is not UTF-8 text");
	many.params = params;
	many.items = items;
	status = run(cli, &many);
	if (status)
		return status;
	status = print_made(cli, &many);
	return many.status ? many.status : status;
}

enum cli_exit many_remove(struct cli *cli)
{
	_cleanup_json_ json_t *items = NULL, *params = NULL, *result = NULL, *failed = json_array();
	struct many many = { "RemoveMany", "names", .failed = failed };
	enum cli_exit status;

	items = read_items(cli, cli->n_args, &status);
	if (status)
		return status;
	many.all = cli_option(cli, "all");
	params = json_pack("{s:b, s:b}", "force", !!cli_option(cli, "force"), "all", (int)many.all);
	if (!params)
		return cli_fail_errno(-ENOMEM);
	many.params = params;
	many.items = items;
	status = run(cli, &many);
	if (!status && cli->json) {
		result = json_pack("{s:O}", "failed", failed);
		status = print_json(result);
	}
	return many.status ? many.status : status;
}
