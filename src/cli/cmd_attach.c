/* SPDX-License-Identifier: MIT */
/*
 * What a client must be told to use devices, ready to be used as it is printed:
 *
 *    qemu      words of a command line, quoted for a shell
 *    qmp       lines for the monitor of a QEMU that runs
 *    libvirt   a domain, for `virsh define /dev/stdin`; libvirt has no element for vfio-user, so
 * the devices are arguments that it passes on podman    words of a command line: the container
 * finds the device where the host has it
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/str.h"
#include "cli/client.h"
#include "cli/print.h"

#define MIB (1ULL << 20)

static void print_quoted(const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "@%_+=:,./-";

	if (*word && strspn(word, plain) == strlen(word)) {
		fputs(word, stdout);
		return;
	}
	putchar('\'');
	for (; *word; word++)
		if (*word == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*word);
	putchar('\'');
}

/* Guest memory in MiB, read as QEMU's -m does: a number alone is MiB. 0: said why not. */
static uint64_t memory_mib(const struct cli *cli)
{
	const char *text = cli_option(cli, "memory");
	uint64_t n, bytes;

	if (!text)
		text = "1G";
	if (str_to_u64(text, strlen(text), &n) == 0 && n > 0 && n <= UINT64_MAX / MIB)
		return n;
	if (str_to_size(text, strlen(text), &bytes) == 0 && bytes > 0 && bytes % MIB == 0)
		return bytes / MIB;
	cli_usage(cli->command, "attach: memory \"%s\" is no size in whole MiB, like 512M or 4G",
		  text);
	return 0;
}

/* What every form is made of. */
struct attach {
	const struct cli *cli;
	json_t *devices; /* owned: Attach of each, with its uuid */
	json_t *result;  /* owned: of --json, but for the devices */
	uint64_t mib;    /* of the guest */
};

/* The Attach of one device goes to `devices`. */
static enum cli_exit add_device(struct client *c, const char *name, json_t *devices)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_pack("{s:s}", "name", name), *attach;
	const char *presentation;
	enum cli_exit status;

	if (!params)
		return cli_fail(CLI_USAGE, "attach: the name is not UTF-8 text");
	status = client_call(c, "Show", params, &reply);
	if (status)
		return status;
	attach = json_object_get(reply, "attach");
	presentation = json_string_value(json_object_get(attach, "presentation"));
	if (!presentation || strcmp(presentation, "vfio-user") != 0)
		return cli_fail(CLI_REFUSED, "%s: presented as %s: attach knows only vfio-user",
				name, presentation ? presentation : "nothing");
	json_object_set(attach, "uuid", json_object_get(json_object_get(reply, "device"), "uuid"));
	return json_array_append(devices, attach) < 0 ? cli_fail_errno(-ENOMEM) : CLI_OK;
}

/* The properties of QEMU's device; bus and id only where they are given. */
static json_t *qemu_device(const struct attach *a, const json_t *device, const char *id)
{
	return json_pack("{s:s, s:s*, s:s*, s:{s:s, s:O}}", "driver", "vfio-user-pci", "id", id,
			 "bus", cli_option(a->cli, "bus"), "socket", "type", "unix", "path",
			 json_object_get(device, "socket"));
}

/* The same as one word. NULL: no memory. */
static json_t *qemu_device_word(const struct attach *a, const json_t *device)
{
	_cleanup_json_ json_t *properties = qemu_device(a, device, NULL);
	_cleanup_free_ char *text = properties ? json_dumps(properties, JSON_COMPACT) : NULL;

	return json_string(text);
}

/* Words for a shell, or (--json) the list of them. */
static enum cli_exit print_words(struct attach *a, json_t *words)
{
	const json_t *word;
	size_t i;

	if (a->cli->json)
		return json_object_set(a->result, "arguments", words) < 0 ? cli_fail_errno(-ENOMEM)
									  : CLI_OK;
	json_array_foreach(words, i, word) {
		if (i)
			putchar(' ');
		print_quoted(json_string_value(word));
	}
	putchar('\n');
	return CLI_OK;
}

/* Guest memory that other processes can map: devices reach it without a message per access. */
static enum cli_exit for_qemu(struct attach *a)
{
	_cleanup_json_ json_t *words = json_pack(
		"[s, o, s, s]", "-object",
		json_sprintf("memory-backend-memfd,id=umdev-memory,size=%" PRIu64 "M,share=on",
			     a->mib),
		"-machine", "memory-backend=umdev-memory");
	const json_t *device;
	size_t i;

	json_array_foreach(a->devices, i, device) {
		if (json_array_append_new(words, json_string("-device")) < 0 ||
		    json_array_append_new(words, qemu_device_word(a, device)) < 0)
			return cli_fail_errno(-ENOMEM);
	}
	return print_words(a, words);
}

/* Each line is a command; device_del takes the same id. */
static enum cli_exit for_qmp(struct attach *a)
{
	_cleanup_json_ json_t *commands = json_array();
	json_t *device, *command;
	size_t i;

	json_array_foreach(a->devices, i, device) {
		_cleanup_free_ char *id =
			str_printf("umdev-%s", json_string_value(json_object_get(device, "uuid")));

		command = json_pack("{s:s, s:o}", "execute", "device_add", "arguments",
				    id ? qemu_device(a, device, id) : NULL);
		if (json_array_append_new(commands, command) < 0)
			return cli_fail_errno(-ENOMEM);
	}
	if (a->cli->json)
		return json_object_set(a->result, "commands", commands) < 0
			       ? cli_fail_errno(-ENOMEM)
			       : CLI_OK;
	json_array_foreach(commands, i, command) {
		if (json_dumpf(command, stdout, JSON_COMPACT) < 0)
			return cli_fail_errno(-ENOMEM);
		putchar('\n');
	}
	return CLI_OK;
}

/* Text as the value of an XML attribute in ''. */
static void print_xml(FILE *out, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '\'':
			fputs("&apos;", out);
			break;
		default:
			putc(*text, out);
		}
}

/* To open it is the only question that has an answer. */
static bool has_kvm(void)
{
	_cleanup_close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	return fd >= 0;
}

static void print_domain(const struct attach *a, const char *name, FILE *out)
{
	const json_t *device;
	size_t i;

	fprintf(out,
		"<domain type='%s' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
		"  <name>umdev-%.8s</name>\n"
		"  <memory unit='MiB'>%" PRIu64 "</memory>\n"
		"  <memoryBacking>\n"
		"    <source type='memfd'/>\n"
		"    <access mode='shared'/>\n"
		"  </memoryBacking>\n"
		"  <vcpu>1</vcpu>\n"
		"  <os>\n"
		"    <type arch='x86_64' machine='q35'>hvm</type>\n"
		"  </os>\n"
		"  <features>\n"
		"    <acpi/>\n"
		"  </features>\n"
		"  <qemu:commandline>\n",
		has_kvm() ? "kvm" : "qemu", name, a->mib);
	json_array_foreach(a->devices, i, device) {
		_cleanup_json_ json_t *word = qemu_device_word(a, device);

		fputs("    <qemu:arg value='-device'/>\n    <qemu:arg value='", out);
		print_xml(out, word ? json_string_value(word) : "");
		fputs("'/>\n", out);
	}
	fputs("  </qemu:commandline>\n</domain>\n", out);
}

static enum cli_exit for_libvirt(struct attach *a)
{
	const json_t *first = json_array_get(a->devices, 0);
	const char *name = json_string_value(json_object_get(first, "uuid"));
	_cleanup_free_ char *text = NULL;
	size_t size;
	FILE *out = a->cli->json ? open_memstream(&text, &size) : stdout;
	int r = 0;

	if (!out)
		return cli_fail_errno(-ENOMEM);
	print_domain(a, name ? name : "", out);
	if (a->cli->json) {
		r = fclose(out);
		r |= json_object_set_new(a->result, "domain", json_string(text));
	}
	return r ? cli_fail_errno(-ENOMEM) : CLI_OK;
}

/* The directory and not the socket: another socket of that name is seen, too. */
static enum cli_exit for_podman(struct attach *a)
{
	_cleanup_json_ json_t *words = json_array();
	const json_t *device;
	size_t i;

	json_array_foreach(a->devices, i, device) {
		const char *dir = json_string_value(json_object_get(device, "directory"));

		if (!dir || strchr(dir, ':') || strchr(dir, ','))
			return cli_fail(CLI_REFUSED,
					"attach: podman takes no directory with \":\" or \",\" in "
					"its name: %s",
					dir ? dir : "");
		if (json_array_append_new(words, json_string("--volume")) < 0 ||
		    json_array_append_new(words, json_sprintf("%s:%s", dir, dir)) < 0)
			return cli_fail_errno(-ENOMEM);
	}
	return print_words(a, words);
}

static const struct {
	const char *name;
	bool has_memory, has_bus; /* options that it takes */
	enum cli_exit (*print)(struct attach *a);
} clients[] = {
	{ "qemu", true, true, for_qemu },
	{ "qmp", false, true, for_qmp },
	{ "libvirt", true, true, for_libvirt },
	{ "podman", false, false, for_podman },
};
#define N_CLIENTS (sizeof(clients) / sizeof(clients[0]))

/* Its row, or N_CLIENTS: said why not. */
static size_t find_client(const struct cli *cli)
{
	const char *who = cli_option(cli, "for");
	size_t i = 0;

	while (who && i < N_CLIENTS && strcmp(clients[i].name, who) != 0)
		i++;
	if (i == N_CLIENTS) {
		cli_usage(cli->command,
			  "attach: no client \"%s\": it knows qemu, qmp, libvirt, "
			  "podman",
			  who);
		return i;
	}
	if ((cli_option(cli, "memory") && !clients[i].has_memory) ||
	    (cli_option(cli, "bus") && !clients[i].has_bus)) {
		cli_usage(cli->command, "attach: --memory and --bus say nothing to %s",
			  clients[i].name);
		return N_CLIENTS;
	}
	return i;
}

enum cli_exit cmd_attach(struct cli *cli)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	_cleanup_json_ json_t *devices = json_array(), *result = json_object();
	struct attach a = { cli, devices, result, memory_mib(cli) };
	size_t who = find_client(cli);
	enum cli_exit status;

	if (!a.mib || who == N_CLIENTS)
		return CLI_USAGE;
	status = client_open(&c);
	for (unsigned i = 0; !status && i < cli->n_args; i++)
		status = add_device(&c, cli->args[i], devices);
	if (!status)
		status = clients[who].print(&a);
	if (status || !cli->json)
		return status;
	return json_object_set(result, "devices", devices) < 0 ? cli_fail_errno(-ENOMEM)
							       : print_json(result);
}
