/* SPDX-License-Identifier: MIT */
/*
 * bench-takeover SOCKET KILLS (and the keeper's pid on standard input, once it is connected): from
 * the SIGKILL of a worker to the next answer, on the register path. The floor is the same read with
 * nobody killed. A counter that a read increments shows that each read was carried out once.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "client.h"

enum { COUNTER = 0x10, MAX_KILLS = 100000 };

static pid_t child_of(int children_fd)
{
	char buf[64];
	ssize_t n = pread(children_fd, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	return atoi(buf);
}

static void nap(long ns)
{
	struct timespec ts = { 0, ns };

	nanosleep(&ts, NULL);
}

int main(int argc, char **argv)
{
	static double pauses[MAX_KILLS], plain[MAX_KILLS];
	unsigned kills = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
	uint64_t wanted = 0, worst = 0;
	struct client c;
	char path[64];
	int children, keeper;

	if (!kills || kills > MAX_KILLS)
		die("usage: bench-takeover SOCKET KILLS");
	client_open(&c, argv[1]);
	if (scanf("%d", &keeper) != 1)
		die("no keeper on standard input");
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", keeper, keeper);
	children = open(path, O_RDONLY | O_CLOEXEC);
	if (children < 0)
		die("no keeper %d", keeper);
	srand(1);
	for (unsigned i = 0; i < kills; i++) {
		pid_t worker;
		uint64_t begin;

		nap(1000000 + rand() % 3000000);
		begin = now_ns();
		if (client_read(&c, 0, COUNTER, 8) != wanted++)
			die("a read was lost or repeated before kill %u", i);
		plain[i] = (double)(now_ns() - begin) / 1e6;
		worker = child_of(children);
		if (worker <= 0)
			die("no worker before kill %u", i);
		begin = now_ns();
		kill(worker, SIGKILL);
		if (client_read(&c, 0, COUNTER, 8) != wanted++)
			die("a read was lost or repeated at kill %u", i);
		pauses[i] = (double)(now_ns() - begin) / 1e6;
		if (now_ns() - begin > worst)
			worst = now_ns() - begin;
	}
	report("takeover-pause", "ms", pauses, plain, kills);
	printf("bench takeover-pause-max: value=%.3g unit=ms floor=%.4g ratio=%.3f spread=0%%\n",
	       (double)worst / 1e6, plain[kills / 2], (double)worst / 1e6 / plain[kills / 2]);
	return 0;
}
