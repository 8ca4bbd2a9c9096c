/* SPDX-License-Identifier: MIT */
/* What both halves of driver display agree on. */
#ifndef DISPLAY_H
#define DISPLAY_H

#define DISPLAY_BAR_VIDEO 0
#define DISPLAY_BAR_REGISTERS 2
#define DISPLAY_VRAM_MAX (256u << 20)

#define DISPLAY_XRES 1024 /* what the monitor prefers, unless told otherwise */
#define DISPLAY_YRES 768

extern const struct umdev_parent_driver display_parent_driver;
extern const struct umdev_device_driver display_device_driver;

#endif
