/* SPDX-License-Identifier: MIT */
/*
 * bench-write CPU ATTRIBUTE FLOOR: a write that changes an attribute, against the same write to a
 * file that forgets it. Both are open; they take turns.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "client.h"

enum { ROUNDS = 41, WRITES = 200 };

static double round_us(int fd)
{
	uint64_t begin = now_ns();

	for (unsigned i = 0; i < WRITES; i++)
		if (pwrite(fd, i % 2 ? "left\n" : "over\n", 5, 0) != 5)
			die("write: %m");
	return (double)(now_ns() - begin) / 1e3 / WRITES;
}

int main(int argc, char **argv)
{
	static double attribute[ROUNDS], plain[ROUNDS];
	cpu_set_t cpus;
	int fd, floor_fd;

	if (argc != 4)
		die("usage: bench-write CPU ATTRIBUTE FLOOR");
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	fd = open(argv[2], O_WRONLY | O_CLOEXEC);
	floor_fd = open(argv[3], O_WRONLY | O_CLOEXEC);
	if (fd < 0 || floor_fd < 0)
		die("open: %m");
	for (unsigned i = 0; i < ROUNDS; i++) {
		attribute[i] = round_us(fd);
		plain[i] = round_us(floor_fd);
	}
	report("param-write", "us", attribute, plain, ROUNDS);
	return 0;
}
