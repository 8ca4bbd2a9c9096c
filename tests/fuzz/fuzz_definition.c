/* SPDX-License-Identifier: MIT */
/* A definition's file: refused with a line number, or taken apart into what its rules allow. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "manager/definition_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of its exact size, so that a read behind it is seen. */
	char *text = malloc(size ? size : 1), why[256] = "";
	struct definition def;

	memcpy(text, data, size);
	if (definition_parse(text, size, &def, why, sizeof(why)) < 0) {
		assert(strncmp(why, "line ", 5) == 0);
		free(text);
		return 0;
	}
	assert(*def.type && def.n_attrs <= DEFINITION_MAX_ATTRS);
	for (unsigned i = 0; i < def.n_attrs; i++) {
		const char *name = def.attrs[i].name;

		assert(*name && *name != '/' && !strstr(name, "//") && !strstr(name, "/../"));
		assert(strcmp(name, "..") != 0 && strncmp(name, "../", 3) != 0);
		assert(strlen(def.attrs[i].value) <= 4096);
	}
	definition_fini(&def);
	free(text);
	return 0;
}
