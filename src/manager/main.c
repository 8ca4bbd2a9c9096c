/* SPDX-License-Identifier: MIT */
/* umdevd: command line, signals, the service manager. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "manager/drivers.h"
#include "manager/manager.h"
#include "manager/one.h"
#include "manager/sandbox_report.h"
#include "manager/service.h"

enum { EXIT_USAGE = 2 };

static const char usage[] =
	"umdevd: mediated devices in user space\n"
	"\n"
	"  umdevd [--debug]\n"
	"      Runs in the foreground. SIGINT removes all devices; SIGTERM leaves them and their\n"
	"      clients to the next umdevd. Paths: $UMDEV_RUN, $UMDEV_CONFIG, $UMDEV_STATE; "
	"defaults\n"
	"      and everything else: umdevd(8).\n"
	"  umdevd --one DRIVER TYPE [KEY=VALUE...] --socket PATH | --fd N\n"
	"      Serves one device. --socket: to one client after the other, until it is told to\n"
	"      stop. --fd: to the client of that descriptor; exits when it leaves.\n"
	"  umdevd --print-capabilities | --help | --version\n";

struct command {
	bool debug, capabilities;
	struct manager_options manager;
	struct one_options one;
};

/* ---- the command line ---- */

static int bad_usage(const char *format, const char *what)
{
	fprintf(stderr, "umdevd: ");
	fprintf(stderr, format, what);
	fprintf(stderr, " (umdevd --help)\n");
	return EXIT_USAGE;
}

static int parse_fd(const char *text, int *ret)
{
	uint64_t fd;

	if (str_to_u64(text, strlen(text), &fd) < 0 || fd < 3 || fd > INT_MAX)
		return bad_usage("--fd %s: must be the number of an inherited descriptor", text);
	*ret = (int)fd;
	return 0;
}

/* What stands behind the options, and whether it all fits together. */
static int check_command(struct command *c, int argc, char **argv)
{
	if (!c->manager.one) {
		if (argc)
			return bad_usage("unexpected \"%s\"", argv[0]);
		if (c->manager.socket_path || c->manager.no_socket)
			return bad_usage("%s needs --one",
					 c->manager.no_socket ? "--fd" : "--socket");
		return 0;
	}
	if (argc < 2)
		return bad_usage("--one needs a driver and a type%s", "");
	if (!c->manager.socket_path == !c->manager.no_socket)
		return bad_usage("--one needs either --socket or --fd%s", "");
	c->one.driver = argv[0];
	c->one.type = argv[1];
	c->one.settings = argv + 2;
	c->one.n_settings = (unsigned)argc - 2;
	return 0;
}

static const struct option options[] = {
	{ "debug", no_argument, NULL, 'd' },
	{ "fd", required_argument, NULL, 'f' },
	{ "help", no_argument, NULL, 'h' },
	{ "one", no_argument, NULL, '1' },
	{ "print-capabilities", no_argument, NULL, 'c' },
	{ "socket", required_argument, NULL, 's' },
	{ "socket-path", required_argument, NULL, 's' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL },
};

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct command *c)
{
	int option, r;

	while ((option = getopt_long(argc, argv, "dhV", options, NULL)) >= 0) {
		switch (option) {
		case 'd':
			c->debug = true;
			break;
		case 'f':
			c->manager.no_socket = true;
			r = parse_fd(optarg, &c->one.fd);
			if (r)
				return r;
			break;
		case '1':
			c->manager.one = true;
			break;
		case 'c':
			c->capabilities = true;
			break;
		case 's':
			c->manager.socket_path = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("umdevd " UMDEV_VERSION);
			return 0;
		default:
			return EXIT_USAGE; /* getopt has said why */
		}
	}
	if (c->capabilities)
		return -1; /* "other options should be ignored" */
	r = check_command(c, argc - optind, argv + optind);
	return r ? r : -1;
}

/* ---- other programs ---- */

/* What the variable says; else the one beside this program, installed or in a build tree (folder);
 * else installed. NULL: no memory. */
static char *find_program(const char *variable, const char *folder, const char *name)
{
	const char *given = getenv(variable);
	char self[PATH_MAX];
	ssize_t n;
	int dir;

	if (given && *given)
		return strdup(given);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = '\0';
	dir = n > 0 ? (int)(strrchr(self, '/') - self) : 0;
	for (unsigned i = 0; n > 0 && i < 2; i++) {
		char *path = str_printf("%.*s/%s%s%s%s", dir, self, i ? "../" : "", i ? folder : "",
					i ? "/" : "", name);

		if (!path || access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return str_printf(UMDEV_LIBEXECDIR "/%s", name);
}

/* ---- signals ---- */

struct signals {
	struct manager *manager;
	struct service *service;
	struct loop_fd source;
	int fd;
};

/* ^C ends everything. A service manager that stops us, or a terminal that closes, ends us alone. */
static void stop_by_signal(struct loop_fd *source, uint32_t revents)
{
	struct signals *s = container_of(source, struct signals, source);
	struct signalfd_siginfo info;

	if (read(s->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (!s->manager->stopping) {
		log_info("stopping: %s", strsignal((int)info.ssi_signo));
		service_notify(s->service, "STOPPING=1");
	}
	if (info.ssi_signo == SIGINT || s->manager->options.one)
		manager_stop(s->manager, 0);
	else
		manager_leave(s->manager);
}

static int catch_signals(struct signals *s, struct manager *m)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->manager = m;
	s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->fd < 0)
		return -errno;
	return loop_add(&m->loop, &s->source, s->fd, EPOLLIN, stop_by_signal);
}

/* ---- all together ---- */

static int start(struct manager *m, const struct command *c, struct signals *signals)
{
	int r = 0;

	if (c->manager.one) {
		r = one_init(m, &c->one);
	} else {
		r = config_open(&m->config);
		if (r == 0)
			r = settings_read(m->config.config_dir, &m->settings);
		if (r == 0)
			r = manager_init(m);
	}
	if (r == 0)
		r = catch_signals(signals, m);
	return r;
}

static int run(const struct command *c)
{
	struct signals signals = { .source = LOOP_FD_INIT, .fd = -1 };
	struct manager m = MANAGER_INIT;
	struct service service = { 0 };
	pid_t report;
	int r;

	signals.service = &service;
	m.options = c->manager;
	err_clear();
	report = sandbox_report_begin(c->manager.worker_path);
	r = start(&m, c, &signals);
	sandbox_report_end(report);
	if (r < 0) {
		log_error("%s", err_text(r));
	} else {
		log_info("ready: %s", m.config.run_dir);
		service_ready(&service, &m.loop);
		r = loop_run(&m.loop);
	}
	service_fini(&service);
	loop_remove(&signals.source);
	if (signals.fd >= 0)
		close(signals.fd);
	manager_fini(&m);
	if (c->manager.one)
		one_fini(&m);
	config_close(&m.config);
	r = r ? EXIT_FAILURE : EXIT_SUCCESS;
	if (m.keep)
		exit(r); /* with the model as it is */
	return r;
}

static int run_with_drivers(struct command *c)
{
	struct drivers drivers = { 0 };
	int r = drivers_load(&drivers);

	if (r < 0) {
		log_error("%s", strerror(-r));
		r = EXIT_FAILURE;
	} else if (c->capabilities) {
		r = one_print_capabilities(&drivers) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	} else {
		c->manager.drivers = &drivers;
		r = run(c);
	}
	drivers_unload(&drivers);
	return r;
}

int main(int argc, char **argv)
{
	struct command c = { .one.fd = -1 };
	_cleanup_free_ char *worker = NULL, *store = NULL, *screen = NULL;
	int r = parse(argc, argv, &c);

	if (r >= 0)
		return r;
	log_init("umdevd", c.debug ? LOG_DEBUG : LOG_INFO);
	worker = find_program("UMDEV_WORKER", "worker", "umdev-worker");
	store = find_program("UMDEV_STORE", "store", "umdev-store");
	screen = find_program("UMDEV_SCREEN", "screen", "umdev-screen");
	if (!worker || !store || !screen) {
		log_error("%s", strerror(ENOMEM));
		return EXIT_FAILURE;
	}
	c.manager.worker_path = worker;
	c.manager.store_path = store;
	c.manager.screen_path = screen;
	return run_with_drivers(&c);
}
