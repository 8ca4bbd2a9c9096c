/* SPDX-License-Identifier: MIT */
/* The connection to umdevd: blocking Varlink calls. Every failure is said before it is returned. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <stddef.h>
#include "cli/cli.h"

struct client {
	int fd;
	char *path; /* of the control socket; owned */
	char *buf;  /* owned; [0, len) was received, [0, used) is the message handled last */
	size_t len, size, used;
	bool quiet; /* what umdevd refuses is not said */
};
#define CLIENT_INIT      \
	{                \
		.fd = -1 \
	}

/* $UMDEV_RUN, to be freed. */
enum cli_exit client_run_dir(char **ret);

enum cli_exit client_open(struct client *c);
void client_close(struct client *c); /* accepts CLIENT_INIT */

/* params is consumed; *ret is a new reference, {} when the reply had none. */
enum cli_exit client_call(struct client *c, const char *method, json_t *params, json_t **ret);

/* A call with `more`: send it, then take one reply after the other. *ret_more: another follows. */
enum cli_exit client_send(struct client *c, const char *method, json_t *params, bool more);
enum cli_exit client_receive(struct client *c, json_t **ret, bool *ret_more);

/* Open, call a method whose reply is a list with `more`, close: *ret has the parts joined. */
enum cli_exit client_list(const char *method, json_t *params, const char *list, json_t **ret);

/* Was the next reply received already? Then client_receive does not wait. */
bool client_has_message(const struct client *c);

/* Open, call once, close. */
enum cli_exit client_once(const char *method, json_t *params, json_t **ret);

#define _cleanup_client_ _cleanup_(client_close)

#endif
