/* SPDX-License-Identifier: MIT */
#include "client.h"
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct header {
	uint16_t id, command;
	uint32_t size, flags, error;
};

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("bench: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void read_all(int fd, void *data, size_t len)
{
	for (size_t n = 0; n < len;) {
		ssize_t r = recv(fd, (char *)data + n, len - n, 0);

		if (r <= 0)
			die("the device hung up");
		n += (size_t)r;
	}
}

static void send_message(int fd, const void *data, size_t len, int passed)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (passed >= 0) {
		struct cmsghdr *head;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		head = CMSG_FIRSTHDR(&msg);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), &passed, sizeof(int));
	}
	if (sendmsg(fd, &msg, 0) != (ssize_t)len)
		die("cannot send: %s", strerror(errno));
}

void client_call(struct client *c, unsigned command, const void *payload, uint32_t len, int fd,
		 void *reply, uint32_t reply_len)
{
	struct {
		struct header h;
		char data[512];
	} m = { .h = { ++c->id, (uint16_t)command, (uint32_t)sizeof(struct header) + len, 0, 0 } };

	memcpy(m.data, payload, len);
	send_message(c->fd, &m, m.h.size, fd);
	/* Header and payload in one piece: the server sends them so. */
	read_all(c->fd, &m, sizeof(m.h) + reply_len);
	if (m.h.id != c->id || m.h.command != command || m.h.error)
		die("command %u: reply to %u, errno %u", command, m.h.command, m.h.error);
	memcpy(reply, m.data, reply_len);
}

void client_open(struct client *c, const char *path)
{
	static const uint32_t version[] = { 0 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct {
		struct header h;
		char data[4096];
	} m = { .h = { 1, CMD_VERSION, sizeof(m.h) + sizeof(version), 0, 0 } };

	if (strlen(path) >= sizeof(address.sun_path))
		die("%s: too long", path);
	memcpy(address.sun_path, path, strlen(path));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("cannot connect to %s: %s", path, strerror(errno));
	memcpy(m.data, version, sizeof(version));
	send_message(c->fd, &m, m.h.size, -1);
	read_all(c->fd, &m.h, sizeof(m.h));
	if (m.h.error || m.h.size < sizeof(m.h) || m.h.size > sizeof(m))
		die("VERSION: errno %u, size %u", m.h.error, m.h.size);
	read_all(c->fd, m.data, m.h.size - sizeof(m.h));
	c->id = 1;
}

struct region_access {
	uint64_t offset;
	uint32_t region, count;
};

uint64_t client_read(struct client *c, uint32_t region, uint64_t offset, uint32_t width)
{
	struct region_access a = { offset, region, width };
	struct {
		struct region_access a;
		uint64_t value;
	} reply = { .value = 0 };

	client_call(c, CMD_READ, &a, sizeof(a), -1, &reply, (uint32_t)sizeof(a) + width);
	return reply.value;
}

void client_map(struct client *c, uint64_t iova, uint64_t size, uint64_t offset, int fd)
{
	struct {
		uint32_t argsz, flags;
		uint64_t offset, iova, size;
	} m = { 32, 3, offset, iova, size };

	client_call(c, CMD_MAP, &m, sizeof(m), fd, NULL, 0);
}

void client_unmap(struct client *c, uint64_t iova, uint64_t size)
{
	struct {
		uint32_t argsz, flags;
		uint64_t iova, size;
	} m = { 24, 0, iova, size };

	client_call(c, CMD_UNMAP, &m, sizeof(m), -1, &m, sizeof(m));
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("cannot run on CPU %d: %s", cpu, strerror(errno));
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), by_value);
	return values[n / 2];
}

void report(const char *name, const char *unit, double *values, double *floors, unsigned n)
{
	double value = median(values, n), floor = median(floors, n);
	double spread = (values[n * 3 / 4] - values[n / 4]) / value * 100;

	printf("bench %s: value=%.4g unit=%s floor=%.4g ratio=%.3f spread=%.0f%%\n", name, value,
	       unit, floor, value / floor, spread);
	fflush(stdout);
}
