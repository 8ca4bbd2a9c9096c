/* SPDX-License-Identifier: MIT */
/*
 * The umdev command: a client of umdevd's control socket. It has no model of its own: what it
 * prints is what umdevd answered, what it refuses by itself is only its own command line.
 *
 * Every command is one row of the table in main.c; parsing and --help follow from the row.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <jansson.h>
#include <umdev/cleanup.h>

/* Exit statuses, part of the interface (umdev.1). */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILURE = 1,   /* anything else */
	CLI_USAGE = 2,     /* the command line, or a value on it, is wrong */
	CLI_NOT_FOUND = 3, /* what it names does not exist */
	CLI_BUSY = 4,      /* in use, taken, or nothing left */
	CLI_REFUSED = 5,   /* not allowed */
	CLI_NO_DAEMON = 6, /* nobody serves the control socket */
	CLI_TIMEOUT = 7,   /* it did not happen in time */
};

#define CLI_MAX_OPTIONS 14

struct cli_option {
	const char *name;  /* without the dashes; NULL ends the list */
	char letter;       /* 0: none */
	const char *value; /* what it is called in --help; NULL: a switch */
	const char *summary;
	bool required;
};

struct cli {
	const struct cli_command *command;
	const char *values[CLI_MAX_OPTIONS]; /* by index in command->options; switches: "" */
	bool json;
	char **args; /* borrowed from argv, ended by NULL */
	unsigned n_args;
};

struct cli_command {
	const char *name; /* "parent add" */
	const char *args; /* as --help shows them */
	const char *summary;
	const char *details; /* paragraphs of --help, or NULL */
	const struct cli_option *options;
	unsigned min_args, max_args;
	bool raw; /* the first argument ends the options: all behind it is another command's */
	enum cli_exit (*run)(struct cli *cli);
};

#define CLI_ANY_NUMBER 1000000

/* The option's value, "" for a switch, NULL when it was not given. */
const char *cli_option(const struct cli *cli, const char *name);

/* One line on standard error; returns status. */
enum cli_exit cli_fail(enum cli_exit status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The same for a wrong command line: adds how to get help. */
enum cli_exit cli_usage(const struct cli_command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Says what err_set() left. */
enum cli_exit cli_fail_errno(int error);
/* The status for an errno of umdevd. */
enum cli_exit cli_exit_of(int error);

/* The arguments from `first` on as an array of settings; NULL: one is not KEY=VALUE (said). */
json_t *cli_settings(const struct cli *cli, unsigned first);

/* `umdev list --defined`; cmd_define.c. */
enum cli_exit list_defined(const struct cli *cli);
/* `umdev show --attributes`; cmd_define.c. */
enum cli_exit show_attributes(const struct cli *cli);

static inline void json_freep(json_t **json)
{
	json_decref(*json);
}
#define _cleanup_json_ _cleanup_(json_freep)

#define COMMAND(name) enum cli_exit cmd_##name(struct cli *cli)
COMMAND(drivers);
COMMAND(parent_add);
COMMAND(parent_remove);
COMMAND(parent_list);
COMMAND(types);
COMMAND(list);
COMMAND(tree);
COMMAND(create);
COMMAND(remove);
COMMAND(show);
COMMAND(param_list);
COMMAND(param_show);
COMMAND(param_set);
COMMAND(define);
COMMAND(undefine);
COMMAND(modify);
COMMAND(start);
COMMAND(stop);
COMMAND(commit);
COMMAND(release);
COMMAND(restart);
COMMAND(attach);
COMMAND(wait);
COMMAND(apply);
COMMAND(screenshot);
COMMAND(screen);
COMMAND(exec);
COMMAND(monitor);
COMMAND(volume_create);
COMMAND(volume_list);
COMMAND(volume_resize);
COMMAND(volume_delete);
COMMAND(volume_orphans);
#undef COMMAND

#endif
