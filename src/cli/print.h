/* SPDX-License-Identifier: MIT */
/* How answers of umdevd are printed. */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include "cli/cli.h"

/* The answer as it came, indented. */
enum cli_exit print_json(const json_t *json);

/* A column shows the member `key` of each row; absent and empty ones as "-". */
struct column {
	const char *title, *key; /* title NULL ends the list */
	bool right;              /* numbers */
};
enum cli_exit print_table(const json_t *rows, const struct column *columns);

/* Those that `list -o` knows, as its help says them; a test compares. */
#define LIST_COLUMNS                                                                               \
	"uuid, label, parent, type, api, group, state, error, settings, worker, client, command, " \
	"path"

/* The name of a process, to be freed; NULL: there is none. */
char *print_command(const json_t *pid);

/* "name  value" lines of the members that fields lists and that are there. */
struct field {
	const char *title, *key; /* title NULL ends the list */
};
void print_fields(const json_t *object, const struct field *fields);

/* The row of `rows` whose name is `name`; NULL: said, with the nearest one. */
json_t *print_find_row(const json_t *rows, const char *what, const char *name);

/* Parameters of a device, or (is_type) of a type or driver, which have no value. */
enum cli_exit print_params(json_t *params, bool is_type);
/* The same behind other lines. */
enum cli_exit print_more_params(json_t *params, bool is_type);

/* Text of a member, to be freed: numbers in decimal, lists joined by blanks, "" when absent. */
char *print_text(const json_t *value);

#endif
