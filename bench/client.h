/* SPDX-License-Identifier: MIT */
/*
 * A vfio-user client as small as can be, so that what is measured is the server. Blocking; exits
 * with a line on standard error when anything is not as it should be.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <stdint.h>

struct client {
	int fd;
	uint16_t id;
};

enum { CMD_VERSION = 1, CMD_MAP = 2, CMD_UNMAP = 3, CMD_READ = 9, CMD_WRITE = 10 };

void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void client_open(struct client *c, const char *path); /* connects and says VERSION */
/* One command and its reply, whose payload (behind the header) goes to `reply`. */
void client_call(struct client *c, unsigned command, const void *payload, uint32_t len, int fd,
		 void *reply, uint32_t reply_len);
uint64_t client_read(struct client *c, uint32_t region, uint64_t offset, uint32_t width);
void client_map(struct client *c, uint64_t iova, uint64_t size, uint64_t offset, int fd);
void client_unmap(struct client *c, uint64_t iova, uint64_t size);

uint64_t now_ns(void);
void pin_to_cpu(int cpu);
double median(double *values, unsigned n); /* sorts */
/* "bench NAME: value=V unit=U floor=F ratio=R spread=S%": medians of the rounds; the spread is the
 * distance between the quartiles of the value, as a part of its median. */
void report(const char *name, const char *unit, double *values, double *floors, unsigned n);

#endif
