/* SPDX-License-Identifier: MIT */
/* Conversation with the service manager; service.h says what about. */
#include "manager/service.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"

#define NS_PER_US 1000ull
#define FIRST_FD 3 /* SD_LISTEN_FDS_START */

static int send_to(const char *path, const char *state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	_cleanup_close_ int fd = -1;

	if (len >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, len);
	if (*path == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 ||
	    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		return -errno;
	return 0;
}

void service_notify(struct service *s, const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	int r = path && *path ? send_to(path, state) : 0;

	if (r < 0 && !s->complained) {
		s->complained = true;
		log_warning("cannot notify %s: %s", path, strerror(-r));
	}
}

/* A variable that is a number; 0 when it is not there or for another process. */
static uint64_t number(const char *variable, const char *pid_variable)
{
	const char *text = getenv(variable), *pid_text = getenv(pid_variable);
	uint64_t value, pid;

	if (!text || str_to_u64(text, strlen(text), &value) < 0)
		return 0;
	if (pid_text &&
	    (str_to_u64(pid_text, strlen(pid_text), &pid) < 0 || pid != (uint64_t)getpid()))
		return 0;
	return value;
}

static void alive(struct loop_timer *timer)
{
	struct service *s = container_of(timer, struct service, watchdog);

	service_notify(s, "WATCHDOG=1");
	loop_timer_arm(s->loop, timer, s->interval_ns, alive);
}

void service_ready(struct service *s, struct loop *loop)
{
	s->loop = loop;
	s->interval_ns = number("WATCHDOG_USEC", "WATCHDOG_PID") * NS_PER_US / 2;
	service_notify(s, "READY=1");
	if (s->interval_ns)
		alive(&s->watchdog);
}

void service_fini(struct service *s)
{
	loop_timer_cancel(&s->watchdog);
}

static bool is_listening_stream(int fd)
{
	int domain, type, listening;
	socklen_t len = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

int service_take_socket(void)
{
	uint64_t n = getenv("LISTEN_PID") ? number("LISTEN_FDS", "LISTEN_PID") : 0;
	int r;

	unsetenv("LISTEN_FDS"); /* not for workers, and not for a second call */
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDNAMES");
	if (!n)
		return -ENOENT;
	if (n > 1 || !is_listening_stream(FIRST_FD))
		return err_set(-EINVAL,
			       "$LISTEN_FDS: wants one listening UNIX stream socket as descriptor "
			       "%d; see umdevd.socket",
			       FIRST_FD);
	r = fd_set_cloexec(FIRST_FD, true);
	if (r == 0)
		r = fd_set_nonblock(FIRST_FD, true);
	return r < 0 ? r : FIRST_FD;
}
