/* SPDX-License-Identifier: MIT */
#include "manager/uevents.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/log.h"
#include "core/core.h"
#include "manager/manager.h"
#include "wire/udev.h"

void uevents_open(struct manager *m)
{
	int fd = udev_open();

	if (fd < 0)
		log_error("uevents are not sent: %s", strerror(-fd));
	else
		m->uevents_fd = fd;
}

void uevents_close(struct manager *m)
{
	if (m->uevents_fd >= 0)
		close(take_fd(&m->uevents_fd));
}

static void tell(void *arg, const struct core_uevent *uevent)
{
	struct manager *m = arg;
	uint8_t message[UDEV_MESSAGE_MAX];
	int len = udev_message(message, ++m->uevents_seqnum, uevent->action, uevent->devpath,
			       uevent->subsystem, uevent->env);
	int r = len < 0 ? len : udev_send(m->uevents_fd, message, len);

	if (r == 0 || m->uevents_failed)
		return;
	m->uevents_failed = true; /* once is enough */
	log_error("uevents are not heard: %s", strerror(-r));
}

void uevents_tell(struct manager *m, const struct core_event *event)
{
	if (m->uevents_fd >= 0)
		core_event_uevents(event, tell, m);
}
