/* SPDX-License-Identifier: MIT */
/* Loading a driver's file; plugin.h has the idea. */
#include "base/plugin.h"
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <umdev/abi.h>
#include <umdev/cleanup.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"

#define MAX_SEGMENTS 64

/* Is every byte there that the loader will map? It does not look, and a file that was copied in
 * part would end us by SIGBUS. All else is for the loader to judge. */
static bool is_whole(int fd, uint64_t size)
{
	ElfW(Phdr) segments[MAX_SEGMENTS];
	ElfW(Ehdr) header;
	ssize_t len;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return false;
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
	    header.e_phentsize != sizeof(segments[0]) || header.e_phnum > MAX_SEGMENTS)
		return false;
	len = (ssize_t)(header.e_phnum * sizeof(segments[0]));
	if (pread(fd, segments, (size_t)len, (off_t)header.e_phoff) != len)
		return false;
	for (unsigned i = 0; i < header.e_phnum; i++) {
		if (segments[i].p_type == PT_LOAD &&
		    (segments[i].p_offset > size ||
		     segments[i].p_filesz > size - segments[i].p_offset))
			return false;
	}
	return true;
}

static int check_file(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(-errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(-ENOEXEC, "it is no regular file");
	if (!is_whole(fd, (uint64_t)st.st_size))
		return err_set(-ENOEXEC, "it is no shared object, or not all of one");
	return 0;
}

/* "PATH: why" -> "why" */
static const char *loader_error(const char *path)
{
	const char *text = dlerror();
	size_t len = strlen(path);

	if (!text)
		return "the loader says not why";
	return strncmp(text, path, len) == 0 && strncmp(text + len, ": ", 2) == 0 ? text + len + 2
										  : text;
}

int plugin_open(const char *path, void **ret)
{
	int error = check_file(path);
	void *handle;

	if (error)
		return error;
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return err_set(-ENOEXEC, "%s", loader_error(path));
	*ret = handle;
	return 0;
}

void plugin_close(void *handle)
{
	if (handle)
		dlclose(handle);
}

int plugin_table(void *handle, const char *symbol, const void **ret)
{
	const uint32_t *abi = dlsym(handle, symbol);

	if (!abi)
		return err_set(-ENOEXEC, "it has no %s", symbol);
	/* Before anything else of the table is looked at: only the number is where it always is. */
	if (*abi != UMDEV_ABI)
		return err_set(-ENOEXEC,
			       "%s was built for driver ABI %u, and this is %u: build it anew with "
			       "the headers of this version",
			       symbol, *abi, UMDEV_ABI);
	*ret = abi;
	return 0;
}

void plugin_other_half(const void *caller, const char *half)
{
	Dl_info info;

	log_error("%s calls in the wrong process what is for %s",
		  dladdr(caller, &info) && info.dli_fname ? info.dli_fname : "a driver", half);
	abort();
}
