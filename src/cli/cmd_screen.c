/* SPDX-License-Identifier: MIT */
/* Looking at a display: a picture of it in a file, a viewer's window, or in this terminal. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "cli/client.h"
#include "cli/picture.h"
#include "cli/print.h"

#define SIXEL_WIDTH 800
#define ANSWER_MS 200 /* of a terminal that is asked what it can */

/* The socket of umdev-screen, to be freed. */
static enum cli_exit screen_path(const char *name, char **ret)
{
	_cleanup_json_ json_t *reply = NULL;
	json_t *params = json_pack("{s:s}", "name", name);
	const char *socket, *slash;
	enum cli_exit status;

	if (!params)
		return cli_fail(CLI_USAGE, "the name is not UTF-8 text");
	status = client_once("Show", params, &reply);
	if (status)
		return status;
	socket = json_string_value(json_object_get(json_object_get(reply, "attach"), "socket"));
	slash = socket ? strrchr(socket, '/') : NULL;
	if (!slash)
		return cli_fail(CLI_FAILURE, "%s has no directory", name);
	return asprintf(ret, "%.*s/vnc.sock", (int)(slash - socket), socket) < 0
		       ? cli_fail_errno(-ENOMEM)
		       : CLI_OK;
}

static enum cli_exit fetch(const char *name, struct picture *ret)
{
	_cleanup_free_ char *path = NULL;
	enum cli_exit status = screen_path(name, &path);
	int r;

	if (status)
		return status;
	r = picture_fetch(path, ret);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return cli_fail(CLI_NOT_FOUND,
				"%s has no screen now: it is no display, or no client has it",
				name);
	return r < 0 ? cli_fail(CLI_FAILURE, "%s: no picture: %s", name, strerror(-r)) : CLI_OK;
}

enum cli_exit cmd_screenshot(struct cli *cli)
{
	const char *path = cli->args[1];
	struct picture picture;
	enum cli_exit status = fetch(cli->args[0], &picture);
	FILE *file;
	int r;

	if (status)
		return status;
	file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
	r = file ? picture_write_png(&picture, file) : -errno;
	picture_free(&picture);
	if (file && file != stdout && fclose(file) != 0 && r == 0)
		r = -EIO;
	return r < 0 ? cli_fail(CLI_FAILURE, "%s: %s", path, strerror(-r)) : CLI_OK;
}

/* ---- a window ---- */

/* Runs a viewer in our place; returns when there is none. */
static void run_viewer(const char *path)
{
	_cleanup_free_ char *uri = NULL;

	if (!getenv("DISPLAY") && !getenv("WAYLAND_DISPLAY"))
		return;
	if (asprintf(&uri, "vnc+unix://%s", path) < 0)
		return;
	execlp("remote-viewer", "remote-viewer", uri, NULL);
	execlp("vncviewer", "vncviewer", path, NULL);
}

/* ---- this terminal ---- */

/* Asked for its attributes (DA1), a terminal that knows sixels names 4 among them. */
static bool knows_sixels(void)
{
	struct termios before, raw;
	char answer[64] = "";
	size_t n = 0;

	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return false;
	raw = before;
	cfmakeraw(&raw);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	if (write(STDOUT_FILENO, "\033[c", 3) == 3) {
		struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

		while (n < sizeof(answer) - 1 && !strchr(answer, 'c') &&
		       poll(&p, 1, ANSWER_MS) == 1) {
			ssize_t got = read(STDIN_FILENO, answer + n, sizeof(answer) - 1 - n);

			if (got <= 0)
				break;
			n += (size_t)got;
			answer[n] = '\0';
		}
	}
	tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return strstr(answer, ";4;") || strstr(answer, ";4c");
}

enum cli_exit cmd_screen(struct cli *cli)
{
	struct winsize size = { .ws_col = 80, .ws_row = 24 };
	_cleanup_free_ char *path = NULL;
	struct picture picture;
	enum cli_exit status = screen_path(cli->args[0], &path);
	int r = 0;

	if (status)
		return status;
	if (!cli_option(cli, "text") && access(path, F_OK) == 0)
		run_viewer(path);
	status = fetch(cli->args[0], &picture);
	if (status)
		return status;
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	if (!cli_option(cli, "text") && isatty(STDOUT_FILENO) && knows_sixels())
		r = picture_print_sixels(&picture, SIXEL_WIDTH, stdout);
	else
		picture_print_blocks(&picture, size.ws_col ? size.ws_col : 80,
				     size.ws_row > 1 ? size.ws_row - 1u : 24, stdout);
	picture_free(&picture);
	return r < 0 ? cli_fail_errno(r) : CLI_OK;
}
