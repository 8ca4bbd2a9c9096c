/* SPDX-License-Identifier: MIT */
/*
 * bench-blk SOCKET CPU (and the pids of keeper and worker on standard input, once it is connected):
 * requests per second of a test-blk disk with DEPTH requests of one block in flight. No interrupts:
 * the client looks at the completion ring and lets the worker run when there is nothing new.
 *
 * Client and worker share one CPU; the seconds are those that the two had of it, so what else runs
 * there does not count.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "client.h"
#include "drivers/test/test.h"

enum { DEPTH = 32, ROUNDS = 5, PER_ROUND = 60000, BLOCKS = 256 };
#define PAGE 4096u
#define SQ_AT 0u
#define CQ_AT PAGE
#define DATA_AT (2 * PAGE)
#define RAM_SIZE (DATA_AT + (size_t)DEPTH * TEST_BLK_BLOCK)

struct disk {
	struct client c;
	uint8_t *ram;
	volatile struct test_blk_completion *cq;
	struct test_blk_entry *sq;
	uint32_t tail, done;
	clockid_t worker; /* its CPU time */
};

static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		die("no CPU time of a process");
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void put(struct disk *d, uint32_t region, uint64_t offset, uint64_t value, uint32_t width)
{
	struct {
		uint64_t offset;
		uint32_t region, count;
		uint64_t value;
	} m = { offset, region, width, value };

	client_call(&d->c, CMD_WRITE, &m, 16 + width, -1, &m, 16);
}

static void start(struct disk *d, const char *path, int cpu)
{
	int worker, fd = memfd_create("ram", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)RAM_SIZE) < 0)
		die("no memory for a guest");
	d->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (d->ram == MAP_FAILED)
		die("cannot map it");
	d->sq = (struct test_blk_entry *)(d->ram + SQ_AT);
	d->cq = (struct test_blk_completion *)(d->ram + CQ_AT);
	pin_to_cpu(cpu);
	client_open(&d->c, path);
	/* Comes when our server is on this CPU, too. */
	if (scanf("%*d %d", &worker) != 1 || clock_getcpuclockid(worker, &d->worker))
		die("no worker on standard input");
	client_map(&d->c, 0, RAM_SIZE, 0, fd);
	put(d, 7, 4, 6, 2); /* memory and bus master of the command register */
	put(d, 0, TEST_BLK_SQ, SQ_AT, 8);
	put(d, 0, TEST_BLK_CQ, CQ_AT, 8);
	put(d, 0, TEST_BLK_ENTRIES, TEST_BLK_DEPTH, 4);
}

static void submit(struct disk *d)
{
	uint32_t first = d->tail;

	while (d->tail - d->done < DEPTH) {
		d->sq[d->tail % TEST_BLK_DEPTH] = (struct test_blk_entry){
			.op = d->tail % 2 ? TEST_BLK_READ : TEST_BLK_WRITE,
			.id = d->tail,
			.block = d->tail % BLOCKS,
			.data = DATA_AT + (uint64_t)(d->tail % DEPTH) * TEST_BLK_BLOCK,
			.n_blocks = 1,
		};
		d->tail++;
	}
	if (d->tail != first)
		put(d, 0, TEST_BLK_TAIL, d->tail, 4);
}

static unsigned reap(struct disk *d)
{
	unsigned n = 0;

	while (d->done != d->tail) {
		volatile struct test_blk_completion *c = &d->cq[d->done % TEST_BLK_DEPTH];

		if (c->sequence != d->done + 1)
			break;
		if (c->status)
			die("request %u ended with %d", c->id, c->status);
		d->done++;
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	double rates[ROUNDS], unused[ROUNDS];
	struct disk d = { 0 };

	if (argc != 3)
		die("usage: bench-blk SOCKET CPU");
	start(&d, argv[1], atoi(argv[2]));
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t begin = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) + cpu_ns(d.worker), end;
		unsigned n = 0;

		while (n < PER_ROUND) {
			unsigned ended;

			submit(&d);
			ended = reap(&d);
			if (!ended)
				sched_yield();
			n += ended;
		}
		end = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) + cpu_ns(d.worker);
		rates[i] = unused[i] = n * 1e9 / (double)(end - begin);
	}
	report("blk-qd32", "IOPS", rates, unused, ROUNDS);
	return 0;
}
