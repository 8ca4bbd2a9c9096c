/* SPDX-License-Identifier: MIT */
/*
 * Definitions on disk: $UMDEV_CONFIG/mdevctl.d/<parent>/<uuid>, which mdevctl under `umdev exec`
 * reads and writes, too. A file is replaced as a whole, so nobody meets half of one of ours; hidden
 * files (of one that is being written) are nobody's.
 */
#ifndef MANAGER_DEFINITION_STORE_H
#define MANAGER_DEFINITION_STORE_H

#include "base/uuid.h"
#include "manager/config.h"
#include "manager/definition_file.h"

/* 0 and *ret, -ENOENT, or -EINVAL: it is none (text: file, line, reason). */
int definition_load(const struct config *c, const char *parent, const struct uuid *uuid,
		    struct definition *ret);
/* The one parent that has a definition of that UUID, to be freed. -ENOENT, -EINVAL: several. */
int definition_find(const struct config *c, const struct uuid *uuid, char **ret_parent);
/* Replaces what is there. 0 / -errno (text left) */
int definition_save(const struct config *c, const char *parent, const struct uuid *uuid,
		    const json_t *json);
/* 0 / -ENOENT, -errno (text left) */
int definition_delete(const struct config *c, const char *parent, const struct uuid *uuid);

/* Calls fn for each definition, by parent, then UUID. def: fn may take it (its json becomes NULL).
 * A file that cannot be used is logged; so that it can be shown, fn is told its UUID with def NULL
 * and the reason in err_text(). */
typedef void definition_fn(void *arg, const char *parent, const struct uuid *uuid,
			   struct definition *def);
void definition_each(const struct config *c, definition_fn *fn, void *arg);

#endif
