/* SPDX-License-Identifier: MIT */
/*
 * What a service manager (systemd or one that speaks like it) and umdevd tell each other: state
 * (sd_notify(3)), an inherited control socket (sd_listen_fds(3)), a watchdog
 * (sd_watchdog_enabled(3)). No libsystemd: three environment variables and one datagram each.
 * Without a service manager all of it does nothing.
 */
#ifndef MANAGER_SERVICE_H
#define MANAGER_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/loop.h"

struct service {
	struct loop *loop;
	struct loop_timer
		watchdog;     /* not armed: nobody watches, and nothing wakes an idle daemon */
	uint64_t interval_ns; /* half of what was promised to the watcher */
	bool complained;      /* the notify socket failed and the log has it */
};

/* One datagram to $NOTIFY_SOCKET: "READY=1", "STOPPING=1", "RELOADING=1", ... */
void service_notify(struct service *s, const char *state);
/* Tells READY=1 and, when $WATCHDOG_USEC asks for it, WATCHDOG=1 again and again from the loop. */
void service_ready(struct service *s, struct loop *loop);
void service_fini(struct service *s);

/* The listening stream socket that was inherited, CLOEXEC and non-blocking from now on, or -ENOENT:
 * none. -EINVAL (text left): what was inherited is something else. Once per process. */
int service_take_socket(void);

#endif
