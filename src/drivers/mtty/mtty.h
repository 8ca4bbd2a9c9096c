/* SPDX-License-Identifier: MIT */
/* What the two halves of mtty agree on. */
#ifndef MTTY_H
#define MTTY_H

#define MTTY_MAX_PORTS 2
#define MTTY_STREAM_FORMAT "port%u" /* resource of a port; absent: the port has no host end */

struct umdev_device_driver;
extern const struct umdev_device_driver mtty_device_driver;

#endif
