/* SPDX-License-Identifier: MIT */
/*
 * A uevent in the form in which udevd passes it on to its listeners (libudev's monitors, group
 * "udev" of NETLINK_KOBJECT_UEVENT): a header with hashes for their socket filters, then
 * "KEY=VALUE" texts.
 */
#ifndef WIRE_UDEV_H
#define WIRE_UDEV_H

#include <stddef.h>
#include <stdint.h>

#define UDEV_MESSAGE_MAX 8192
#define UDEV_GROUP 2 /* multicast group, as a bit mask */

/* env: further "KEY=VALUE", NULL-terminated. Listeners want a seqnum that is not 0. The message's
 * length / -EMSGSIZE */
int udev_message(uint8_t buf[UDEV_MESSAGE_MAX], uint64_t seqnum, const char *action,
		 const char *devpath, const char *subsystem, const char *const *env);
/* A socket that may send them in the network namespace of the caller. -errno */
int udev_open(void);
/* To whoever listens; nobody is no error. 0 / -errno */
int udev_send(int fd, const uint8_t *message, int len);

#endif
