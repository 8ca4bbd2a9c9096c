/* SPDX-License-Identifier: MIT */
/* Tables by libsmartcols, which knows the terminal's width and escapes what is not printable. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libsmartcols.h>
#include "base/err.h"
#include "base/str.h"
#include "cli/print.h"

#define MAX_NAMES 256 /* looked at for a near match */

static void unref_tablep(struct libscols_table **table)
{
	scols_unref_table(*table);
}

enum cli_exit print_json(const json_t *json)
{
	if (json_dumpf(json, stdout, JSON_INDENT(2)) < 0)
		return cli_fail_errno(-ENOMEM);
	putchar('\n');
	return CLI_OK;
}

/* Takes `head`. NULL: ENOMEM. */
static char *join(char *head, const char *tail)
{
	_cleanup_free_ char *left = head;

	return left ? str_printf("%s%s%s", left, *left ? " " : "", tail) : NULL;
}

char *print_text(const json_t *value)
{
	char *text;
	const json_t *item;
	size_t i;

	if (json_is_integer(value))
		return str_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	if (!json_is_array(value))
		return strdup(json_is_string(value) ? json_string_value(value) : "");
	text = strdup("");
	json_array_foreach(value, i, item)
		text = join(text, json_is_string(item) ? json_string_value(item) : "?");
	return text;
}

/* 0 / -ENOMEM */
static int add_line(struct libscols_table *table, const json_t *row, const struct column *columns)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);

	if (!line)
		return -ENOMEM;
	for (size_t i = 0; columns[i].title; i++) {
		_cleanup_free_ char *text = print_text(json_object_get(row, columns[i].key));

		if (!text || scols_line_set_data(line, i, *text ? text : "-") < 0)
			return -ENOMEM;
	}
	return 0;
}

enum cli_exit print_table(const json_t *rows, const struct column *columns)
{
	_cleanup_(unref_tablep) struct libscols_table *table = scols_new_table();
	const json_t *row;
	size_t i;

	if (!table)
		return cli_fail_errno(-ENOMEM);
	for (const struct column *c = columns; c->title; c++)
		if (!scols_table_new_column(table, c->title, 0, c->right ? SCOLS_FL_RIGHT : 0))
			return cli_fail_errno(-ENOMEM);
	json_array_foreach(rows, i, row) {
		if (add_line(table, row, columns) < 0)
			return cli_fail_errno(-ENOMEM);
	}
	return scols_print_table(table) < 0 ? cli_fail_errno(-ENOMEM) : CLI_OK;
}

char *print_command(const json_t *pid)
{
	char path[64], text[32] = "";
	FILE *in;

	if (!json_is_integer(pid))
		return NULL;
	str_format(path, sizeof(path), "/proc/%" JSON_INTEGER_FORMAT "/comm",
		   json_integer_value(pid));
	in = fopen(path, "re");
	if (!in)
		return NULL;
	if (!fgets(text, sizeof(text), in))
		text[0] = '\0';
	fclose(in);
	text[strcspn(text, "\n")] = '\0';
	return *text ? strdup(text) : NULL;
}

void print_fields(const json_t *object, const struct field *fields)
{
	for (const struct field *f = fields; f->title; f++) {
		_cleanup_free_ char *text = print_text(json_object_get(object, f->key));

		if (text && *text)
			printf("%-12s %s\n", f->title, text);
	}
}

/* What a parameter may be: "1..24", "pty socket file none". */
static json_t *range_of(const json_t *param)
{
	const char *min = json_string_value(json_object_get(param, "min"));
	const char *max = json_string_value(json_object_get(param, "max"));
	_cleanup_free_ char *choices = print_text(json_object_get(param, "choices"));

	if (min && max)
		return json_sprintf("%s..%s", min, max);
	return json_string(choices ? choices : "");
}

enum cli_exit print_params(json_t *params, bool is_type)
{
	static const struct column of_device[] = {
		{ "PARAMETER", "name" },
		{ "VALUE", "value" },
		{ "TYPE", "type" },
		{ "RANGE", "range" },
		{ "CHANGES", "writable" },
		{ "DESCRIPTION", "description" },
		{ NULL },
	};
	static const struct column of_type[] = {
		{ "PARAMETER", "name" },
		{ "DEFAULT", "default" },
		{ "TYPE", "type" },
		{ "RANGE", "range" },
		{ "CHANGES", "writable" },
		{ "DESCRIPTION", "description" },
		{ NULL },
	};
	json_t *param;
	size_t i;

	if (json_array_size(params) == 0)
		return CLI_OK;
	json_array_foreach(params, i, param)
		json_object_set_new(param, "range", range_of(param));
	return print_table(params, is_type ? of_type : of_device);
}

enum cli_exit print_more_params(json_t *params, bool is_type)
{
	if (json_array_size(params))
		putchar('\n');
	return print_params(params, is_type);
}

json_t *print_find_row(const json_t *rows, const char *what, const char *name)
{
	const char *names[MAX_NAMES + 1] = { NULL }, *near;
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row) {
		const char *row_name = json_string_value(json_object_get(row, "name"));

		if (row_name && strcmp(row_name, name) == 0)
			return row;
		if (row_name && i < MAX_NAMES)
			names[i] = row_name;
	}
	near = err_nearest(name, names);
	if (near)
		cli_fail(CLI_NOT_FOUND, "no %s \"%s\": did you mean \"%s\"?", what, name, near);
	else
		cli_fail(CLI_NOT_FOUND, "no %s \"%s\"", what, name);
	return NULL;
}
