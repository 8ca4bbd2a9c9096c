/* SPDX-License-Identifier: MIT */
/* The table of commands, the parser of command lines, and --help, which is made from the table. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/print.h"

static const struct cli_option no_options[] = { { NULL } };

static const struct cli_option apply_options[] = {
	{ "dry-run", 'n', NULL, "only check" },
	{ NULL },
};

static const struct cli_option wait_options[] = {
	{ "for", 0, "STATE", "connected, idle (no client) or gone", .required = true },
	{ "timeout", 0, "SECONDS", "give up then; without: never" },
	{ NULL },
};

static const struct cli_option exec_options[] = {
	{ "uevents", 'e', NULL,
	  "in a network namespace of its own, where libudev hears of devices" },
	{ NULL },
};

static const struct cli_option list_options[] = {
	{ "output", 'o', "COLUMNS", "which columns, separated by commas; + before them adds" },
	{ "defined", 'd', NULL, "definitions instead of devices" },
	{ "dumpjson", 0, NULL, "with -d: as mdevctl prints them" },
	{ NULL },
};

static const struct cli_option create_options[] = {
	{ "parent", 'p', "PARENT", "the parent that gives it", .required = true },
	{ "type", 't', "TYPE", "one of its types, as `umdev types` shows them", .required = true },
	{ "uuid", 'u', "UUID", "its name; without: a random one" },
	{ "all", 'a', NULL, "of many: all of them or, if one is not possible, none" },
	{ "owner-pid", 0, "PID", "the device is removed when this process ends" },
	{ NULL },
};

static const struct cli_option remove_options[] = {
	{ "force", 'f', NULL, "also when it is in use: its client sees it vanish" },
	{ "all", 'a', NULL, "of many: all of them or, if one is refused, none" },
	{ NULL },
};

static const struct cli_option attach_options[] = {
	{ "for", 0, "CLIENT", "who uses them: qemu (the default), qmp, libvirt or podman" },
	{ "memory", 'm', "SIZE", "memory of the guest, as in QEMU's -m; without: 1G" },
	{ "bus", 0, "BUS", "of the guest where they are plugged in, for qemu, qmp, libvirt" },
	{ NULL },
};

static const struct cli_option screen_options[] = {
	{ "text", 't', NULL, "in this terminal, by characters that every terminal has" },
	{ NULL },
};

static const struct cli_option restart_options[] = {
	{ "all", 'a', NULL, "of every device that is in use" },
	{ NULL },
};

#define UUID_OPTION                                     \
	{                                               \
		"uuid", 'u', "UUID", "the definition's" \
	}
#define PARENT_OPTION                                                                \
	{                                                                            \
		"parent", 'p', "PARENT", "needed when several have one of that UUID" \
	}
#define JSON_OPTION                                                                           \
	{                                                                                     \
		"jsonfile", 0, "FILE", "all of it, in mdevctl's form; /dev/stdin is one, too" \
	}

static const struct cli_option show_options[] = {
	{ "attributes", 0, NULL, "only what a definition of it would say, in mdevctl's form" },
	{ NULL },
};

static const struct cli_option define_options[] = {
	{ "uuid", 'u', "UUID", "its name; without: a random one, which is printed" },
	{ "parent", 'p', "PARENT", "without: that of the device of this UUID" },
	{ "type", 't', "TYPE", "without: that of the device of this UUID" },
	{ "auto", 'a', NULL, "umdevd starts it when it starts itself" },
	{ "manual", 'm', NULL, "it does not (the default)" },
	JSON_OPTION,
	{ NULL },
};

static const struct cli_option undefine_options[] = {
	{ "uuid", 'u', "UUID", "the definition's", .required = true },
	PARENT_OPTION,
	{ NULL },
};

static const struct cli_option modify_options[] = {
	{ "uuid", 'u', "UUID", "the definition's", .required = true },
	PARENT_OPTION,
	{ "type", 't', "TYPE", "another type" },
	{ "auto", 'a', NULL, "umdevd starts it when it starts itself" },
	{ "manual", 'm', NULL, "it does not" },
	{ "addattr", 0, "ATTRIBUTE",
	  "a path below the device's directory, to be written at start" },
	{ "value", 0, "VALUE", "what is written there" },
	{ "delattr", 0, NULL, "take an attribute away" },
	{ "index", 'i', "NUMBER", "where in the list, from 0; without: its end" },
	{ "live", 'l', NULL, "write the attributes to the device that is there" },
	{ "defined", 'd', NULL, "with --live: change the definition, too" },
	JSON_OPTION,
	{ NULL },
};

static const struct cli_option start_options[] = {
	UUID_OPTION,
	{ "parent", 'p', "PARENT", "with a type or a file: make it of these alone" },
	{ "type", 't', "TYPE", "its type; needs a parent" },
	JSON_OPTION,
	{ NULL },
};

static const struct cli_option stop_options[] = {
	{ "uuid", 'u', "UUID", "the device's", .required = true },
	{ NULL },
};

/* In the order of --help and of the manual page. */
static const struct cli_command commands[] = {
	{
		.name = "drivers",
		.args = "[DRIVER]",
		.summary = "list the drivers, or the settings that one takes for a parent",
		.options = no_options,
		.max_args = 1,
		.run = cmd_drivers,
	},
	{
		.name = "parent add",
		.args = "NAME driver=DRIVER [KEY=VALUE...]",
		.summary = "make a parent: a resource that gives devices",
		.details = "It is there again after a restart of umdevd. `umdev drivers DRIVER` "
			   "lists the keys.",
		.options = no_options,
		.min_args = 2,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_parent_add,
	},
	{
		.name = "parent remove",
		.args = "NAME",
		.summary = "remove a parent and its idle devices",
		.details = "Refused while one of them is in use.",
		.options = no_options,
		.min_args = 1,
		.max_args = 1,
		.run = cmd_parent_remove,
	},
	{
		.name = "parent list",
		.args = "",
		.summary = "list the parents",
		.options = no_options,
		.run = cmd_parent_list,
	},
	{
		.name = "types",
		.args = "[PARENT [TYPE]]",
		.summary = "list what the parents can give, or describe one type",
		.details = "With TYPE: the parameters that its devices have and that `umdev "
			   "create` takes.",
		.options = no_options,
		.max_args = 2,
		.run = cmd_types,
	},
	{
		.name = "list",
		.args = "[PARENT]",
		.summary = "list the devices, or the definitions",
		.details = "Columns: " LIST_COLUMNS ".",
		.options = list_options,
		.max_args = 1,
		.run = cmd_list,
	},
	{
		.name = "tree",
		.args = "[PARENT]",
		.summary =
			"show parents, their types and how much is used, devices and who has them",
		.options = no_options,
		.max_args = 1,
		.run = cmd_tree,
	},
	{
		.name = "create",
		.args = "[UUID...] [KEY=VALUE...]",
		.summary = "make devices and print their UUIDs",
		.details =
			"All of the parameters are set, or the device is not made. For the UUID - "
			"lines of standard input are read: each is a UUID, with parameters of its "
			"own behind it, as it could be written to `create` in the tree.",
		.options = create_options,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_create,
	},
	{
		.name = "remove",
		.args = "DEVICE...",
		.summary = "remove devices",
		.details = "DEVICE is here and below a UUID, or a label that only one device has; "
			   "for - the lines of standard input are read.",
		.options = remove_options,
		.min_args = 1,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_remove,
	},
	{
		.name = "show",
		.args = "DEVICE",
		.summary = "show a device, its parameters and where to connect to it",
		.options = show_options,
		.min_args = 1,
		.max_args = 1,
		.run = cmd_show,
	},
	{
		.name = "param list",
		.args = "DEVICE | PARENT TYPE",
		.summary = "list the parameters of a device, or those that a type's devices have",
		.options = no_options,
		.min_args = 1,
		.max_args = 2,
		.run = cmd_param_list,
	},
	{
		.name = "param show",
		.args = "DEVICE PARAMETER | PARENT TYPE PARAMETER",
		.summary = "show all that is known about one parameter",
		.options = no_options,
		.min_args = 2,
		.max_args = 3,
		.run = cmd_param_show,
	},
	{
		.name = "param set",
		.args = "DEVICE KEY=VALUE...",
		.summary = "change parameters of a device, one after the other",
		.details = "Stops at the first that is refused; those before it stay changed.",
		.options = no_options,
		.min_args = 2,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_param_set,
	},
	{
		.name = "define",
		.args = "",
		.summary = "describe a device that is to be made later",
		.details = "As mdevctl's: a definition reserves nothing. `umdev start` makes its "
			   "device, `umdev list --defined` shows it.",
		.options = define_options,
		.run = cmd_define,
	},
	{
		.name = "undefine",
		.args = "",
		.summary = "forget a definition",
		.details = "Its device, if it is there, stays.",
		.options = undefine_options,
		.run = cmd_undefine,
	},
	{
		.name = "modify",
		.args = "",
		.summary = "change a definition",
		.details =
			"Its device, if it is there, is not touched unless --live is given: then "
			"that is all that changes. When one of the attributes is refused, those "
			"before it get their old values back.",
		.options = modify_options,
		.run = cmd_modify,
	},
	{
		.name = "start",
		.args = "",
		.summary = "make the device of a definition",
		.details =
			"Its attributes are written in order; the first that is refused leaves no "
			"device.",
		.options = start_options,
		.run = cmd_start,
	},
	{
		.name = "stop",
		.args = "",
		.summary = "remove a device, as `umdev remove` does",
		.details = "Its definition, if there is one, stays.",
		.options = stop_options,
		.run = cmd_stop,
	},
	{
		.name = "apply",
		.args = "FILE",
		.summary = "make many changes, all or none",
		.details =
			"FILE holds a JSON list of changes, { \"verb\": \"create\", \"set\", "
			"\"commit\" or \"remove\", \"name\": UUID, \"parent\": ..., \"type\": "
			"..., \"settings\": [\"key=value\", ...] }. They are checked first; what "
			"is refused later all the same undoes what was done.",
		.options = apply_options,
		.min_args = 1,
		.max_args = 1,
		.run = cmd_apply,
	},
	{
		.name = "commit",
		.args = "DEVICE...",
		.summary = "make devices ready for their first client: resources and processes",
		.details = "All of them are served when it returns, or none was changed. They keep "
			   "what they have, over all clients, until `umdev release`. One "
			   "peer_to_peer_resource_uuid stands for its whole group. (To make a "
			   "device from a definition is another thing: `umdev start`.)",
		.options = no_options,
		.min_args = 1,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_commit,
	},
	{
		.name = "release",
		.args = "DEVICE...",
		.summary = "take back what `umdev commit` gave",
		.details = "Refused while one of them is connected.",
		.options = no_options,
		.min_args = 1,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_release,
	},
	{
		.name = "restart",
		.args = "[DEVICE]",
		.summary = "move devices in use to the umdev-worker that is installed now",
		.details = "Clients see a pause of some milliseconds. Refused, with nothing "
			   "touched, when that program cannot read the state of the running one. "
			   "Devices of one group move together.",
		.options = restart_options,
		.max_args = 1,
		.run = cmd_restart,
	},
	{
		.name = "wait",
		.args = "DEVICE",
		.summary =
			"wait until a client uses a device, until none does, or until it is gone",
		.details = "Exit status 0: it is so; 7: not within --timeout; 3: there is no such "
			   "device, or it was removed; 1: it has failed.",
		.options = wait_options,
		.min_args = 1,
		.max_args = 1,
		.run = cmd_wait,
	},
	{
		.name = "attach",
		.args = "DEVICE...",
		.summary = "print what gives devices to a virtual machine or a container",
		.details =
			"To be used as it is: words for the command line of QEMU or podman, lines "
			"for the QMP monitor of a QEMU that runs, or a domain for `virsh define`.",
		.options = attach_options,
		.min_args = 1,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_attach,
	},
	{
		.name = "screenshot",
		.args = "DEVICE FILE.png",
		.summary = "write what a display shows to a file",
		.details = "FILE - is standard output.",
		.options = no_options,
		.min_args = 2,
		.max_args = 2,
		.run = cmd_screenshot,
	},
	{
		.name = "screen",
		.args = "DEVICE",
		.summary = "look at a display",
		.details =
			"By remote-viewer or vncviewer where there is a desktop and one of them is "
			"installed; else the picture is drawn in this terminal.",
		.options = screen_options,
		.min_args = 1,
		.max_args = 1,
		.run = cmd_screen,
	},
	{
		.name = "exec",
		.args = "[--] COMMAND [ARGUMENT...]",
		.summary = "run a command that sees the devices in /sys",
		.details =
			"In a mount namespace of its own, and for an ordinary user also in a user "
			"namespace, /sys shows the machine's own entries and umdev's, and "
			"/etc/mdevctl.d is $UMDEV_CONFIG/mdevctl.d. The exit status is the "
			"command's; 126 and 127: it could not be run, or was not found.",
		.options = exec_options,
		.min_args = 1,
		.max_args = CLI_ANY_NUMBER,
		.raw = true,
		.run = cmd_exec,
	},
	{
		.name = "volume create",
		.args = "PARENT NAME [KEY=VALUE...]",
		.summary = "make a volume in the store of a parent",
		.details = "Keys: size=SIZE, needed where the store is a directory (of devices: "
			   "the smallest that is large enough is taken); thin=yes: it takes space "
			   "when it is written, not now. It reads as zeros whatever was there.",
		.options = no_options,
		.min_args = 2,
		.max_args = CLI_ANY_NUMBER,
		.run = cmd_volume_create,
	},
	{
		.name = "volume list",
		.args = "[PARENT]",
		.summary = "list the volumes",
		.options = no_options,
		.max_args = 1,
		.run = cmd_volume_list,
	},
	{
		.name = "volume resize",
		.args = "PARENT NAME SIZE",
		.summary = "make a volume larger, also in use, or smaller when nothing has it",
		.options = no_options,
		.min_args = 3,
		.max_args = 3,
		.run = cmd_volume_resize,
	},
	{
		.name = "volume delete",
		.args = "PARENT NAME",
		.summary = "delete a volume and what is in it",
		.details = "Refused while a device has it, or a definition.",
		.options = no_options,
		.min_args = 2,
		.max_args = 2,
		.run = cmd_volume_delete,
	},
	{
		.name = "volume orphans",
		.args = "[PARENT]",
		.summary = "list the volumes that nobody will ask for again, and damaged ones",
		.options = no_options,
		.max_args = 1,
		.run = cmd_volume_orphans,
	},
	{
		.name = "monitor",
		.args = "",
		.summary = "print what happens, one line per event, until it is stopped",
		.options = no_options,
		.run = cmd_monitor,
	},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* ---- saying what is wrong ---- */

enum cli_exit cli_fail(enum cli_exit status, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_error("%s", text);
	return status;
}

enum cli_exit cli_usage(const struct cli_command *command, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_error("%s; see umdev %s%s--help", text, command ? command->name : "",
		  command ? " " : "");
	return CLI_USAGE;
}

enum cli_exit cli_fail_errno(int error)
{
	return cli_fail(cli_exit_of(-error), "%s", err_text(error));
}

/* ---- --help ---- */

/* Text filled to 78 columns, each line after `indent` blanks. */
static void print_filled(const char *text, unsigned indent)
{
	unsigned column = 0;

	while (*text) {
		unsigned len = (unsigned)strcspn(text, " ");

		if (column && column + 1 + len > 78) {
			putchar('\n');
			column = 0;
		}
		column += (unsigned)printf("%*s%.*s", column ? 1 : (int)indent, "", (int)len, text);
		text += len;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void print_option(const struct cli_option *o)
{
	char left[64];

	str_format(left, sizeof(left), "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
		   o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
		   o->value ? " " : "", o->value ? o->value : "");
	printf("  %-24s %s\n", left, o->summary);
}

static void print_synopsis(const struct cli_command *c)
{
	printf("umdev %s", c->name);
	for (const struct cli_option *o = c->options; o->name; o++) {
		const char *open = o->required ? "" : "[", *close = o->required ? "" : "]";

		if (o->letter)
			printf(" %s-%c", open, o->letter);
		else
			printf(" %s--%s", open, o->name);
		printf("%s%s%s", o->value ? " " : "", o->value ? o->value : "", close);
	}
	printf("%s%s\n", *c->args ? " " : "", c->args);
}

static const struct cli_option common_options[] = {
	{ "json", 'j', NULL, "print JSON, as umdevd answered it" },
	{ "help", 'h', NULL, "print this" },
	{ NULL },
};

static void print_options(const struct cli_option *options)
{
	for (; options->name; options++)
		print_option(options);
}

static enum cli_exit help_command(const struct cli_command *c)
{
	printf("usage: ");
	print_synopsis(c);
	printf("\n%c%s.\n", c->summary[0] - 'a' + 'A', c->summary + 1);
	if (c->details) {
		putchar('\n');
		print_filled(c->details, 0);
	}
	printf("\noptions:\n");
	print_options(c->options);
	print_options(common_options);
	return CLI_OK;
}

static enum cli_exit help_all(void)
{
	printf("usage: umdev COMMAND [OPTION...] [ARGUMENT...]\n\n"
	       "Mediated devices in user space: commands for a running umdevd.\n\ncommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-15s %s\n", commands[i].name, commands[i].summary);
	printf("\noptions:\n");
	print_options(common_options);
	printf("  %-24s %s\n", "    --version", "print the version");
	printf("\n`umdev COMMAND --help` tells more, `man umdev` all.\n"
	       "Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 busy or exhausted, 5 "
	       "refused, 6 no umdevd, 7 time-out.\n");
	return CLI_OK;
}

/* ---- command lines ---- */

/* The longest name that argv begins with; *ret_words: how many words it has. */
static const struct cli_command *find_command(int argc, char **argv, int *ret_words)
{
	char two[128];

	str_format(two, sizeof(two), "%s %s", argv[0], argc > 1 ? argv[1] : "");
	for (size_t i = 0; i < N_COMMANDS; i++) {
		*ret_words = strchr(commands[i].name, ' ') ? 2 : 1;
		if (strcmp(commands[i].name, *ret_words == 2 ? two : argv[0]) == 0)
			return &commands[i];
	}
	return NULL;
}

/* The second words of the commands that begin with `word`, as a list; false: there are none. */
static bool words_behind(const char *word, char *buf, size_t size)
{
	size_t len = strlen(word), at = 0;

	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strncmp(commands[i].name, word, len) == 0 && commands[i].name[len] == ' ')
			at += str_format(buf + at, size - at, "%s%s", at ? ", " : "",
					 commands[i].name + len + 1);
	return at > 0;
}

static enum cli_exit unknown_command(int argc, char **argv)
{
	const char *names[N_COMMANDS + 1] = { NULL }, *near;
	char given[128], words[128];
	bool is_group = words_behind(argv[0], words, sizeof(words));

	for (size_t i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i].name;
	if (is_group && (argc < 2 || argv[1][0] == '-'))
		return cli_usage(NULL, "umdev %s: one of %s must follow", argv[0], words);
	str_format(given, sizeof(given), "%s%s%s", argv[0], is_group ? " " : "",
		   is_group ? argv[1] : "");
	near = err_nearest(given, names);
	if (near)
		return cli_usage(NULL, "no command \"%s\": did you mean \"%s\"", given, near);
	return cli_usage(NULL, "no command \"%s\"", given);
}

/* The option of the command or of all that has this name or letter; *ret_index -1: of all. */
static const struct cli_option *find_option(const struct cli_command *c, const char *name,
					    size_t len, int *ret_index)
{
	const struct cli_option *lists[] = { c->options, common_options };

	for (unsigned l = 0; l < 2; l++)
		for (const struct cli_option *o = lists[l]; o->name; o++)
			if (name[0] == '-' ? len == strlen(o->name) + 2 &&
						     !memcmp(name + 2, o->name, len - 2)
					   : o->letter == name[0]) {
				*ret_index = l ? -1 : (int)(o - lists[l]);
				return o;
			}
	return NULL;
}

static enum cli_exit unknown_option(const struct cli_command *c, const char *arg)
{
	const char *names[CLI_MAX_OPTIONS + 3], *near;
	unsigned n = 0;

	for (const struct cli_option *o = c->options; o->name; o++)
		names[n++] = o->name;
	for (const struct cli_option *o = common_options; o->name; o++)
		names[n++] = o->name;
	names[n] = NULL;
	near = arg[1] == '-' ? err_nearest(arg + 2, names) : NULL;
	if (near)
		return cli_usage(c, "%s: no option \"%s\": did you mean \"--%s\"", c->name, arg,
				 near);
	return cli_usage(c, "%s: no option \"%s\"", c->name, arg);
}

/* What parsing one option found. */
struct parsed {
	const struct cli_option *option;
	int index; /* in the command's options; -1: a common one */
	const char *value;
};

/* argv[*at] is an option; takes its value, also from the next word, which *at is moved to. */
static enum cli_exit parse_option(const struct cli_command *c, int argc, char **argv, int *at,
				  struct parsed *ret)
{
	const char *arg = argv[*at], *name = arg[1] == '-' ? arg : arg + 1;
	size_t len = arg[1] == '-' ? strcspn(arg, "=") : 1;
	const char *attached = name[len] ? name + len + (arg[1] == '-') : NULL;

	ret->option = find_option(c, name, len, &ret->index);
	if (!ret->option)
		return unknown_option(c, arg);
	ret->value = "";
	if (!ret->option->value) {
		if (attached)
			return cli_usage(c, "%s: option %s takes no value", c->name, arg);
		return CLI_OK;
	}
	ret->value = attached ? attached : *at + 1 < argc ? argv[++*at] : NULL;
	if (!ret->value)
		return cli_usage(c, "%s: option %s needs a %s", c->name, arg, ret->option->value);
	return CLI_OK;
}

static enum cli_exit missing(const struct cli_command *c, const struct cli_option *o)
{
	if (o->letter)
		return cli_usage(c, "%s: -%c %s is missing", c->name, o->letter, o->value);
	return cli_usage(c, "%s: --%s %s is missing", c->name, o->name, o->value);
}

/* Is it all there? */
static enum cli_exit check_line(const struct cli *cli)
{
	const struct cli_command *c = cli->command;

	for (unsigned i = 0; c->options[i].name; i++)
		if (c->options[i].required && !cli->values[i])
			return missing(c, &c->options[i]);
	if (cli->n_args < c->min_args)
		return cli_usage(c, "%s: too few arguments: it takes %s", c->name, c->args);
	if (cli->n_args > c->max_args)
		return cli_usage(c, "%s: \"%s\" is one argument too many", c->name,
				 cli->args[c->max_args]);
	return CLI_OK;
}

/* Fills cli from the words behind the command's name, which are reordered: arguments first. */
static enum cli_exit parse_line(struct cli *cli, int argc, char **argv, bool *ret_help)
{
	bool only_args = false;

	cli->args = argv;
	for (int i = 0; i < argc; i++) {
		struct parsed p = { 0 };
		enum cli_exit status;

		if (only_args || argv[i][0] != '-' || !argv[i][1]) {
			argv[cli->n_args++] = argv[i];
			only_args |= cli->command->raw;
			continue;
		}
		if (strcmp(argv[i], "--") == 0) {
			only_args = true;
			continue;
		}
		status = parse_option(cli->command, argc, argv, &i, &p);
		if (status)
			return status;
		if (p.index >= 0)
			cli->values[p.index] = p.value;
		else if (p.option->letter == 'j')
			cli->json = true;
		else
			*ret_help = true;
	}
	argv[cli->n_args] = NULL; /* at most argv[argc], which is NULL already */
	return CLI_OK;
}

const char *cli_option(const struct cli *cli, const char *name)
{
	for (unsigned i = 0; cli->command->options[i].name; i++)
		if (strcmp(cli->command->options[i].name, name) == 0)
			return cli->values[i];
	return NULL;
}

json_t *cli_settings(const struct cli *cli, unsigned first)
{
	_cleanup_json_ json_t *list = json_array();

	for (unsigned i = first; i < cli->n_args; i++) {
		const char *equal = strchr(cli->args[i], '=');

		if (!equal || equal == cli->args[i]) {
			cli_usage(cli->command, "%s: \"%s\" is not KEY=VALUE", cli->command->name,
				  cli->args[i]);
			return NULL;
		}
		if (json_array_append_new(list, json_string(cli->args[i])) < 0) {
			cli_usage(cli->command, "%s: argument %u is not UTF-8 text",
				  cli->command->name, i + 1);
			return NULL;
		}
	}
	return TAKE(list);
}

static enum cli_exit run(int argc, char **argv)
{
	struct cli cli = { 0 };
	bool wants_help = false;
	enum cli_exit status;
	int words;

	if (argc < 2)
		return cli_usage(NULL, "a command is missing");
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return help_all();
	if (strcmp(argv[1], "--version") == 0) {
		printf("umdev %s\n", UMDEV_VERSION);
		return CLI_OK;
	}
	if (argv[1][0] == '-')
		return cli_usage(NULL, "\"%s\" stands before the command: options follow it",
				 argv[1]);
	cli.command = find_command(argc - 1, argv + 1, &words);
	if (!cli.command)
		return unknown_command(argc - 1, argv + 1);
	status = parse_line(&cli, argc - 1 - words, argv + 1 + words, &wants_help);
	if (!status && wants_help)
		return help_command(cli.command);
	if (!status)
		status = check_line(&cli);
	return status ? status : cli.command->run(&cli);
}

int main(int argc, char **argv)
{
	enum cli_exit status;

	log_init("umdev", LOG_INFO);
	status = run(argc, argv);
	if (fflush(stdout) != 0 || ferror(stdout))
		return cli_fail(CLI_FAILURE, "standard output: %m");
	return status;
}
