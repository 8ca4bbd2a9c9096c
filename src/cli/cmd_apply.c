/* SPDX-License-Identifier: MIT */
/* `umdev apply`: the file goes to umdevd as it is, which judges it. */
#include "cli/client.h"
#include "cli/print.h"

enum cli_exit cmd_apply(struct cli *cli)
{
	_cleanup_json_ json_t *reply = NULL;
	const char *path = cli->args[0];
	json_error_t error;
	json_t *changes = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	enum cli_exit status;

	if (!changes && error.line <= 0)
		return cli_fail(CLI_NOT_FOUND, "%s: %s", path, error.text);
	if (!changes)
		return cli_fail(CLI_USAGE, "%s: line %d: %s", path, error.line, error.text);
	for (size_t i = 0; i < json_array_size(changes) || !json_is_array(changes); i++) {
		if (json_is_object(json_array_get(changes, i)))
			continue;
		json_decref(changes);
		return cli_fail(CLI_USAGE, "%s: it must be a list of changes: [ { ... }, ... ]",
				path);
	}
	status = client_once("Apply",
			     json_pack("{s:o, s:b}", "changes", changes, "dry_run",
				       cli_option(cli, "dry-run") != NULL),
			     &reply);
	return !status && cli->json ? print_json(reply) : status;
}
