/* SPDX-License-Identifier: MIT */
/*
 * bench-create-floor DIRECTORY N: what the system calls alone cost that an idle device needs: a
 * directory with a socket that listens in an epoll set, and a state file that is renamed into
 * place. Prints devices per second.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "client.h"

static void make(int epoll_fd, unsigned i)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct epoll_event event = { .events = EPOLLIN };
	char name[32], text[160];
	int fd;

	snprintf(name, sizeof(name), "dev/%u", i);
	snprintf(address.sun_path, sizeof(address.sun_path), "dev/%u/socket", i);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (mkdir(name, 0755) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(address.sun_path, 0600) < 0 || listen(fd, 128) < 0 ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		die("device %u: %m", i);
	memset(text, ' ', sizeof(text));
	fd = open("state/.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	snprintf(name, sizeof(name), "state/%u", i);
	if (write(fd, text, sizeof(text)) < 0 || close(fd) < 0 || rename("state/.tmp", name) < 0)
		die("state %u: %m", i);
}

int main(int argc, char **argv)
{
	unsigned n = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	uint64_t begin;

	if (!n || chdir(argv[1]) < 0 || mkdir("dev", 0755) < 0 || mkdir("state", 0755) < 0)
		die("usage: bench-create-floor DIRECTORY N");
	begin = now_ns();
	for (unsigned i = 0; i < n; i++)
		make(epoll_fd, i);
	printf("%.0f\n", n / ((double)(now_ns() - begin) / 1e9));
	return 0;
}
