/* SPDX-License-Identifier: MIT */
/*
 * What a virtual machine monitor must be told to use devices. One line for a shell: each word is
 * quoted, so that `eval "qemu-system-x86_64 ... $(umdev attach UUID)"` works, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
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

/* Appends "-device" and its JSON for one device; its Attach goes to `devices`. */
static enum cli_exit add_device(struct client *c, const char *name, json_t *words, json_t *devices)
{
	_cleanup_json_ json_t *reply = NULL, *device = NULL;
	_cleanup_free_ char *text = NULL;
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
	device = json_pack("{s:s, s:{s:s, s:O}}", "driver", "vfio-user-pci", "socket", "type",
			   "unix", "path", json_object_get(attach, "socket"));
	text = device ? json_dumps(device, JSON_COMPACT) : NULL;
	if (!text || json_array_append_new(words, json_string("-device")) < 0 ||
	    json_array_append_new(words, json_string(text)) < 0 ||
	    json_array_append(devices, attach) < 0)
		return cli_fail_errno(-ENOMEM);
	return CLI_OK;
}

/* Guest memory that other processes can map: devices reach it without a message per access. */
static json_t *qemu_words(uint64_t mib)
{
	return json_pack("[s, o, s, s]", "-object",
			 json_sprintf("memory-backend-memfd,id=umdev-memory,size=%" PRIu64
				      "M,share=on",
				      mib),
			 "-machine", "memory-backend=umdev-memory");
}

static enum cli_exit print_words(const json_t *words)
{
	const json_t *word;
	size_t i;

	json_array_foreach(words, i, word) {
		if (i)
			putchar(' ');
		print_quoted(json_string_value(word));
	}
	putchar('\n');
	return CLI_OK;
}

enum cli_exit cmd_attach(struct cli *cli)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	_cleanup_json_ json_t *words = NULL, *devices = json_array(), *result = NULL;
	const char *who = cli_option(cli, "for");
	uint64_t mib = memory_mib(cli);
	enum cli_exit status;

	if (!mib)
		return CLI_USAGE;
	if (who && strcmp(who, "qemu") != 0)
		return cli_usage(cli->command, "attach: no client \"%s\": it knows qemu", who);
	words = qemu_words(mib);
	if (!words || !devices)
		return cli_fail_errno(-ENOMEM);
	status = client_open(&c);
	for (unsigned i = 0; !status && i < cli->n_args; i++)
		status = add_device(&c, cli->args[i], words, devices);
	if (status)
		return status;
	if (!cli->json)
		return print_words(words);
	result = json_pack("{s:O, s:O}", "arguments", words, "devices", devices);
	return print_json(result);
}
