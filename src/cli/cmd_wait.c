/* SPDX-License-Identifier: MIT */
/* `umdev wait`: until a device is as it should be. Events are heard first, then the device is
 * looked at, so nothing that happens in between is missed. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/str.h"
#include "cli/client.h"

#define NS_PER_S INT64_C(1000000000)

enum goal { CONNECTED, IDLE, GONE };
static const char *const goals[] = { "connected", "idle", "gone", NULL };

struct waiting {
	enum goal goal;
	char uuid[64];     /* "": not looked at yet */
	int64_t end_ns;    /* of the time-out; INT64_MAX: none */
	struct client ear; /* events */
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* Seconds, with a fraction. */
static bool get_timeout(const char *text, int64_t *ret_end_ns)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0 && seconds <= 1e9))
		return false;
	*ret_end_ns = now_ns() + (int64_t)(seconds * (double)NS_PER_S);
	return true;
}

/* What its state means for the goal: true, it is reached or (*ret) never will be. */
static bool judge(const struct waiting *w, const json_t *device, enum cli_exit *ret)
{
	const char *state = json_string_value(json_object_get(device, "state"));
	const char *error = json_string_value(json_object_get(device, "error"));

	*ret = CLI_OK;
	if (w->goal == GONE)
		return false;
	if (state && strcmp(state, "failed") == 0) {
		*ret = cli_fail(CLI_FAILURE, "%s failed: %s", w->uuid, error ? error : "");
		return true;
	}
	if (w->goal == CONNECTED)
		return state && (strcmp(state, "connected") == 0 || strcmp(state, "takeover") == 0);
	return state && (strcmp(state, "idle") == 0 || strcmp(state, "started") == 0);
}

/* The device as it is now. True: there is nothing to wait for any more. */
static bool look(struct waiting *w, const char *name, enum cli_exit *ret)
{
	_cleanup_json_ json_t *list = NULL;
	const json_t *device;
	size_t i;

	*ret = client_list("List", json_object(), "devices", &list);
	if (*ret)
		return true;
	json_array_foreach(json_object_get(list, "devices"), i, device) {
		const char *uuid = json_string_value(json_object_get(device, "uuid"));
		const char *label = json_string_value(json_object_get(device, "label"));
		const char *path = json_string_value(json_object_get(device, "path"));

		/* A definition that could not be started has no path. */
		if (!uuid || !path || !*path ||
		    (strcasecmp(uuid, name) != 0 && (!label || strcmp(label, name) != 0)))
			continue;
		str_format(w->uuid, sizeof(w->uuid), "%s", uuid);
		return judge(w, device, ret);
	}
	*ret = CLI_OK;
	if (w->goal != GONE)
		*ret = cli_fail(CLI_NOT_FOUND, w->uuid[0] ? "%s was removed" : "no device %s",
				w->uuid[0] ? w->uuid : name);
	return true;
}

/* The next event of the device. */
static enum cli_exit hear(struct waiting *w)
{
	struct pollfd p = { .fd = w->ear.fd, .events = POLLIN };
	const char *uuid = NULL;

	while (!uuid || strcmp(uuid, w->uuid) != 0) {
		_cleanup_json_ json_t *reply = NULL;
		int64_t left_ms = w->end_ns == INT64_MAX ? -1 : (w->end_ns - now_ns()) / 1000000;
		enum cli_exit status;
		bool more;

		if (!client_has_message(&w->ear)) {
			if (w->end_ns != INT64_MAX && left_ms <= 0)
				return cli_fail(CLI_TIMEOUT, "%s is not %s yet", w->uuid,
						goals[w->goal]);
			if (poll(&p, 1, (int)(left_ms > 1000000 ? 1000000 : left_ms)) <= 0)
				continue;
		}
		status = client_receive(&w->ear, &reply, &more);
		if (status)
			return status;
		uuid = json_string_value(json_object_get(json_object_get(reply, "event"), "uuid"));
		if (uuid && strcmp(uuid, w->uuid) == 0)
			break; /* uuid goes with reply */
		uuid = NULL;
	}
	return CLI_OK;
}

static enum cli_exit wait_for(struct waiting *w, const char *name)
{
	_cleanup_json_ json_t *first = NULL;
	enum cli_exit status = client_open(&w->ear);
	bool more;

	if (!status)
		status = client_send(&w->ear, "Monitor", NULL, true);
	if (!status)
		status = client_receive(&w->ear, &first, &more);
	while (!status && !look(w, w->uuid[0] ? w->uuid : name, &status) && !status)
		status = hear(w);
	return status;
}

enum cli_exit cmd_wait(struct cli *cli)
{
	const char *goal = cli_option(cli, "for"), *timeout = cli_option(cli, "timeout");
	struct waiting w = { .end_ns = INT64_MAX, .ear = CLIENT_INIT };
	enum cli_exit status;

	while (goals[w.goal] && strcmp(goals[w.goal], goal) != 0)
		w.goal++;
	if (!goals[w.goal])
		return cli_usage(cli->command, "wait: --for \"%s\": connected, idle or gone", goal);
	if (timeout && !get_timeout(timeout, &w.end_ns))
		return cli_usage(cli->command, "wait: --timeout \"%s\" is no number of seconds",
				 timeout);
	status = wait_for(&w, cli->args[0]);
	client_close(&w.ear);
	return status;
}
