/* SPDX-License-Identifier: MIT */
/* umdev-store: command line, and how far the work is. store.h says what it is for. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/str.h"
#include "store/store.h"

static const char usage[] =
	"umdev-store: slow work for umdevd, which runs it; of no use by hand (umdev-store(8))\n"
	"\n"
	"  umdev-store create NAME file|device thick|thin SIZE RECORD\n"
	"  umdev-store grow NAME file|device thick|thin FROM TO RECORD\n"
	"  umdev-store shrink NAME file|device SIZE RECORD\n"
	"  umdev-store delete|clean NAME\n"
	"  umdev-store lock shared|alone\n";

/* One byte, the percentage, whenever it has changed. Who listens may be gone. */
void store_progress(uint64_t done, uint64_t all)
{
	static int last = -1;
	int percent = done < all ? (int)(done / (all / 100 + 1)) : 100;
	uint8_t byte = (uint8_t)percent;

	if (percent == last)
		return;
	last = percent;
	if (write(STDOUT_FILENO, &byte, 1) < 0)
		return;
}

static bool is(const char *text, const char *word)
{
	return text && strcmp(text, word) == 0;
}

static uint64_t number(const char *text)
{
	uint64_t n;

	return str_to_u64(text, strlen(text), &n) < 0 || n > INT64_MAX ? INT64_MAX : n;
}

/* Waits until nobody else has the file. Its description, and so the lock, is our parent's, too. */
static int lock(bool shared)
{
	while (flock(STORE_DIR_FD, shared ? LOCK_SH : LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Changes that must not go on alone: a successor cleans, and looks at what is there. */
static int die_with_parent(void)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0;
}

static int work(int n, char **arg)
{
	bool device = n > 2 && is(arg[2], "device"), thin = n > 3 && is(arg[3], "thin");

	if (n == 6 && is(arg[0], "create"))
		return record_create(arg[1], device, thin, number(arg[4]), arg[5]);
	if (n == 7 && is(arg[0], "grow")) {
		const struct store_range range = { .fd = STORE_BYTES_FD,
						   .device = device,
						   .thin = thin,
						   .from = number(arg[4]),
						   .to = number(arg[5]) };

		return record_grow(arg[1], &range, arg[6]);
	}
	if (n == 5 && is(arg[0], "shrink"))
		return record_shrink(arg[1], device, number(arg[3]), arg[4]);
	if (n == 2 && is(arg[0], "delete"))
		return record_delete(arg[1]);
	if (n == 2 && is(arg[0], "clean"))
		return record_clean(arg[1]);
	if (n == 2 && is(arg[0], "lock"))
		return lock(is(arg[1], "shared"));
	return -EINVAL;
}

int main(int argc, char **argv)
{
	bool locks = argc == 3 && is(argv[1], "lock");
	bool goes_on = argc == 3 && (is(argv[1], "delete") || is(argv[1], "clean"));
	int error = 0;

	if (argc < 2 || is(argv[1], "--help")) {
		fputs(usage, argc < 2 ? stderr : stdout);
		return argc < 2 ? EINVAL : 0;
	}
	signal(SIGPIPE, SIG_IGN);
	if (!goes_on)
		error = die_with_parent();
	if (!error)
		error = store_close_in(!locks);
	if (!error)
		error = work(argc - 1, argv + 1);
	_exit(-error); /* what else runs at an exit (a sanitizer) would need what was given up */
}
