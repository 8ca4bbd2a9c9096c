/* SPDX-License-Identifier: MIT */
/*
 * bench-access SOCKET CPU [read]: a register read, and a DMA map and unmap with a descriptor,
 * against a process that answers a message of the same size on a socket of the same kind.
 * Everything on one CPU (the caller pins the server), rounds of device and floor take turns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "client.h"

enum { ROUNDS = 15, PER_ROUND = 4000, READ_SIZE = 32, READ_REPLY = 40, MAX_MAPS = 60000 };
#define PAGE 4096ull
#define RAM_SIZE (MAX_MAPS * PAGE)

/* The floor: one recv and one send per message, nothing else. */
struct echo {
	int fd;
	pid_t pid;
};

static struct echo echo_start(size_t reply)
{
	struct echo e;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		die("socketpair failed");
	e.pid = fork();
	if (e.pid == 0) {
		char buf[256] = { 0 };

		close(pair[0]);
		while (recv(pair[1], buf, sizeof(buf), 0) > 0)
			send(pair[1], buf, reply, 0);
		_exit(0);
	}
	close(pair[1]);
	e.fd = pair[0];
	return e;
}

static void echo_stop(struct echo *e)
{
	close(e->fd);
	waitpid(e->pid, NULL, 0);
}

static void echo_once(struct echo *e, size_t request, size_t reply)
{
	char buf[256] = { 0 };

	if (send(e->fd, buf, request, 0) != (ssize_t)request ||
	    recv(e->fd, buf, reply, MSG_WAITALL) != (ssize_t)reply)
		die("the echo ended");
}

static double us_per(uint64_t begin, unsigned n)
{
	return (double)(now_ns() - begin) / 1000.0 / n;
}

static void bench_read(struct client *c)
{
	struct echo e = echo_start(READ_REPLY);
	double values[ROUNDS], floors[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t begin = now_ns();

		for (unsigned k = 0; k < PER_ROUND; k++)
			client_read(c, 0, 8, 8);
		values[i] = us_per(begin, PER_ROUND);
		begin = now_ns();
		for (unsigned k = 0; k < PER_ROUND; k++)
			echo_once(&e, READ_SIZE, READ_REPLY);
		floors[i] = us_per(begin, PER_ROUND);
	}
	echo_stop(&e);
	report("region-read", "us", values, floors, ROUNDS);
}

/* Pairs behind whatever the table holds already. The floor is two echoes. */
static void bench_map(struct client *c, const char *name, int ram)
{
	struct echo e = echo_start(16);
	double values[ROUNDS], floors[ROUNDS];
	uint64_t iova = 1ull << 40;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t begin = now_ns();

		for (unsigned k = 0; k < PER_ROUND / 4; k++) {
			client_map(c, iova, PAGE, 0, ram);
			client_unmap(c, iova, PAGE);
		}
		values[i] = us_per(begin, PER_ROUND / 4);
		begin = now_ns();
		for (unsigned k = 0; k < PER_ROUND / 4; k++) {
			echo_once(&e, 48, 16);
			echo_once(&e, 40, 16);
		}
		floors[i] = us_per(begin, PER_ROUND / 4);
	}
	echo_stop(&e);
	report(name, "us", values, floors, ROUNDS);
}

int main(int argc, char **argv)
{
	struct client c;
	int ram = memfd_create("ram", MFD_CLOEXEC);

	if (argc != 3 && argc != 4)
		die("usage: bench-access SOCKET CPU [read]");
	pin_to_cpu(atoi(argv[2]));
	if (ram < 0 || ftruncate(ram, (off_t)RAM_SIZE) < 0)
		die("no memory for a guest");
	client_open(&c, argv[1]);
	while (getchar() != '\n')
		; /* until our server is on this CPU, too */
	bench_read(&c);
	if (argc == 4)
		return 0;
	bench_map(&c, "map-unmap", ram);
	/* Every second page, backwards: nothing merges. */
	for (unsigned i = MAX_MAPS; i-- > 0;)
		client_map(&c, i * 2 * PAGE, PAGE, i * PAGE, ram);
	bench_map(&c, "map-unmap-60000", ram);
	return 0;
}
