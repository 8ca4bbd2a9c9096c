/* SPDX-License-Identifier: MIT */
/* Varlink calls to umdevd, and what its errors mean for the exit status. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/err.h"
#include "base/paths.h"
#include "base/sock.h"
#include "base/str.h"
#include "cli/client.h"
#include "wire/varlink.h"

#define INTERFACE "io.umdev."
#define CHUNK 65536

enum cli_exit cli_exit_of(int error)
{
	switch (error) {
	case EINVAL:
	case ERANGE:
	case E2BIG:
	case ENAMETOOLONG:
		return CLI_USAGE;
	case ENOENT:
	case ESRCH:
	case ENODEV:
		return CLI_NOT_FOUND;
	case EBUSY:
	case EEXIST:
	case EADDRINUSE:
	case EAGAIN:
	case ENOSPC:
	case EUSERS:
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return CLI_BUSY;
	case EACCES:
	case EPERM:
	case EXDEV:
	case EROFS:
		return CLI_REFUSED;
	default:
		return CLI_FAILURE;
	}
}

static enum cli_exit no_daemon(const struct client *c, int error)
{
	if (error == -EACCES || error == -EPERM)
		return cli_fail(CLI_REFUSED,
				"%s: not allowed: umdevd belongs to another user; run as that "
				"user, or set %s to a umdevd of yours",
				c->path, path_variable(PATH_RUN));
	return cli_fail(CLI_NO_DAEMON,
			"%s: no umdevd answers (%s): start umdevd, or set %s to where one runs",
			c->path, strerror(-error), path_variable(PATH_RUN));
}

enum cli_exit client_run_dir(char **ret)
{
	int r = path_root(PATH_RUN, ret);

	/* Nothing says where one could be. */
	if (r == -ENOENT)
		return cli_fail(CLI_NO_DAEMON, "no umdevd: %s", err_text(r));
	return r < 0 ? cli_fail_errno(r) : CLI_OK;
}

enum cli_exit client_open(struct client *c)
{
	_cleanup_free_ char *run = NULL;
	enum cli_exit status = client_run_dir(&run);

	if (status)
		return status;
	c->path = str_printf("%s/control", run);
	if (!c->path)
		return cli_fail_errno(-ENOMEM);
	c->fd = sock_connect(c->path);
	if (c->fd < 0)
		return no_daemon(c, c->fd);
	return CLI_OK;
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c->buf);
	*c = (struct client)CLIENT_INIT;
}

enum cli_exit client_send(struct client *c, const char *method, json_t *params, bool more)
{
	_cleanup_free_ char *text = NULL, *name = str_printf(INTERFACE "%s", method);
	size_t len;
	int r;

	if (!name) {
		json_decref(params);
		return cli_fail_errno(-ENOMEM);
	}
	text = varlink_call_text(name, params, more, &len);
	if (!text)
		return cli_fail_errno(-ENOMEM);
	if (len > VARLINK_CALL_MAX)
		return cli_fail(CLI_USAGE, "the command line is too long: umdevd takes %u bytes",
				VARLINK_CALL_MAX);
	r = sock_write_all(c->fd, text, len);
	return r < 0 ? no_daemon(c, r) : CLI_OK;
}

/* 1: got some, 0: hung up, or -errno. */
static int read_more(struct client *c)
{
	ssize_t n;

	if (c->size - c->len < CHUNK) {
		char *grown = realloc(c->buf, c->len + 2 * CHUNK);

		if (!grown)
			return -ENOMEM;
		c->buf = grown;
		c->size = c->len + 2 * CHUNK;
	}
	do
		n = recv(c->fd, c->buf + c->len, c->size - c->len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c->len += (size_t)n;
	return n > 0;
}

/* What umdevd refused, in its own words. */
static enum cli_exit say_error(const struct varlink_reply *reply)
{
	const char *text = varlink_text(reply->params, "text");
	json_int_t number = json_integer_value(json_object_get(reply->params, "number"));

	if (strcmp(reply->error, INTERFACE "Error") == 0 && text)
		return cli_fail(cli_exit_of((int)number), "%s", text);
	return cli_fail(CLI_FAILURE,
			"umdevd answered %s %s: it is of another version, restart umdevd",
			reply->error,
			varlink_text(reply->params, "parameter")
				? varlink_text(reply->params, "parameter")
				: "");
}

static enum cli_exit take_reply(const struct client *c, json_t **ret, bool *ret_more)
{
	struct varlink_reply reply;
	enum cli_exit status = CLI_OK;

	if (varlink_parse_reply(c->buf, c->used - 1, &reply) < 0)
		return cli_fail(CLI_FAILURE,
				"%s: the answer is not Varlink: something else than "
				"umdevd listens there",
				c->path);
	if (reply.error) {
		status = c->quiet ? CLI_FAILURE : say_error(&reply);
	} else {
		*ret = reply.params ? json_incref(reply.params) : json_object();
		*ret_more = reply.continues;
	}
	varlink_reply_fini(&reply);
	return status;
}

bool client_has_message(const struct client *c)
{
	return c->len > c->used &&
	       varlink_len(c->buf + c->used, c->len - c->used, VARLINK_MSG_MAX) != 0;
}

enum cli_exit client_receive(struct client *c, json_t **ret, bool *ret_more)
{
	int64_t len = 0;
	int r;

	if (c->used)
		memmove(c->buf, c->buf + c->used, c->len - c->used);
	c->len -= c->used;
	c->used = 0;
	while (!c->len || (len = varlink_len(c->buf, c->len, VARLINK_MSG_MAX)) == 0) {
		r = read_more(c);
		if (r == -ENOMEM)
			return cli_fail_errno(r);
		if (r <= 0)
			return cli_fail(CLI_NO_DAEMON, "%s: umdevd hung up: its log says why",
					c->path);
	}
	if (len < 0)
		return cli_fail(CLI_FAILURE, "%s: the answer is longer than %u bytes", c->path,
				VARLINK_MSG_MAX);
	c->used = (size_t)len;
	return take_reply(c, ret, ret_more);
}

enum cli_exit client_call(struct client *c, const char *method, json_t *params, json_t **ret)
{
	enum cli_exit status = client_send(c, method, params, false);
	bool more;

	return status ? status : client_receive(c, ret, &more);
}

enum cli_exit client_once(const char *method, json_t *params, json_t **ret)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	enum cli_exit status = client_open(&c);

	if (status) {
		json_decref(params);
		return status;
	}
	return client_call(&c, method, params, ret);
}

enum cli_exit client_list(const char *method, json_t *params, const char *list, json_t **ret)
{
	_cleanup_client_ struct client c = CLIENT_INIT;
	_cleanup_json_ json_t *all = json_array();
	enum cli_exit status = client_open(&c);
	bool more = true;

	if (status)
		json_decref(params);
	else
		status = client_send(&c, method, params, true);
	while (!status && more) {
		_cleanup_json_ json_t *part = NULL;

		status = client_receive(&c, &part, &more);
		if (!status && json_array_extend(all, json_object_get(part, list)) < 0)
			status = cli_fail(CLI_FAILURE, "%s: the answer has no %s", c.path, list);
	}
	if (!status)
		*ret = json_pack("{s:O}", list, all);
	return status;
}
