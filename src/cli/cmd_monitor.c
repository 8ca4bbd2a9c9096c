/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <time.h>
#include "base/log.h"
#include "cli/client.h"
#include "cli/print.h"

/* "14:03:27 state card0 <uuid> connected" */
static void print_event(const json_t *event)
{
	static const char *const keys[] = { "what", "parent", "uuid", "detail" };
	time_t now = time(NULL);
	struct tm tm;
	char stamp[16];

	strftime(stamp, sizeof(stamp), "%H:%M:%S", localtime_r(&now, &tm));
	fputs(stamp, stdout);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *text = json_string_value(json_object_get(event, keys[i]));

		if (text && *text)
			printf(" %s", text);
	}
	putchar('\n');
}

enum cli_exit cmd_monitor(struct cli *cli)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	enum cli_exit status = client_open(&c);
	bool more = true;

	if (!status)
		status = client_send(&c, "Monitor", NULL, true);
	while (!status && more) {
		_cleanup_json_ json_t *reply = NULL;
		const json_t *event;

		status = client_receive(&c, &reply, &more);
		if (status)
			break;
		event = json_object_get(reply, "event");
		if (!json_is_object(event)) {
			log_info("monitoring %s", c.path);
			continue;
		}
		if (!cli->json)
			print_event(event);
		else if (json_dumpf(event, stdout, JSON_COMPACT) == 0)
			putchar('\n'); /* one object per line */
		if (fflush(stdout) != 0)
			break; /* main tells */
	}
	return status;
}
