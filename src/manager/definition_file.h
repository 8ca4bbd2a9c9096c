/* SPDX-License-Identifier: MIT */
/*
 * A persistent description of a device, as mdevctl writes it:
 *
 *     { "mdev_type": "mtty-2", "start": "auto", "attrs": [ { "mdev/label/value": "a" }, ... ] }
 *
 * attrs may be absent; other members are ignored. An attribute's name is a path below the device's
 * directory. Text -> struct only.
 */
#ifndef MANAGER_DEFINITION_FILE_H
#define MANAGER_DEFINITION_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>

#define DEFINITION_MAX (64u << 10) /* bytes of a file; a usual one has 200 */
#define DEFINITION_MAX_ATTRS 128

struct definition {
	json_t *json; /* owned; all texts lie in it */
	const char *type;
	bool autostart;
	unsigned n_attrs;
	struct {
		const char *name, *value;
	} attrs[DEFINITION_MAX_ATTRS];
};

/* 0, or -EINVAL: why ("line N: ...") is filled. */
int definition_parse(const char *text, size_t len, struct definition *ret, char *why, size_t size);
void definition_fini(struct definition *def); /* after success */

#endif
