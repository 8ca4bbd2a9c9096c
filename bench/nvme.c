/* SPDX-License-Identifier: MIT */
/*
 * bench-nvme SOCKET CPU OTHER-CPU FILE|- (the pids of keeper and worker on standard input, once it
 * is connected): a disk-nvme controller driven as fast as can be, by a client that looks at the
 * completion queue and never sleeps. Doorbells are written to the page that the controller offers
 * (doorbells=mapped), else sent as messages.
 *
 * Null media (FILE is -): the floor of one command is a cache line that goes to another processor
 * and comes back; the floor of many in flight is a ring of the same size in shared memory, served
 * by a loop that does nothing but copy. The file of a volume: the floor is this process with an
 * io_uring of its own. Device and floor take turns.
 */
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "client.h"

#define ROUNDS 151 /* short ones: most are not disturbed on a busy machine */
#define BLOCK 4096
#define ENTRIES 256
#define RAM_SIZE (16u << 20)
enum { ASQ_AT = 0, ACQ_AT = 4096, SQ_AT = 8192, CQ_AT = SQ_AT + 64 * ENTRIES, DATA_AT = 1 << 20 };
enum { CAP = 0, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, DOORBELLS = 0x1000 };

struct sqe {
	uint32_t op, nsid, r2, r3;
	uint64_t metadata, prp1, prp2;
	uint32_t d10, d11, d12, d13, d14, d15;
};
struct cqe {
	uint32_t result, r1;
	uint16_t head, sq, id, status; /* bit 0: phase */
};

struct queue {
	unsigned number, entries;
	struct sqe *sq;
	volatile struct cqe *cq;
	uint32_t tail, head;
	uint16_t phase, id;
};

struct nvme {
	struct client c;
	uint8_t *ram;
	volatile uint32_t *doorbells; /* NULL: by message */
	struct queue admin, io;
	uint64_t blocks;
	clockid_t worker; /* its CPU time */
};

static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		die("no CPU time of a process");
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

/* ---- the controller ---- */

static void put(struct nvme *n, uint32_t region, uint64_t offset, uint64_t value, uint32_t width)
{
	struct {
		uint64_t offset;
		uint32_t region, count;
		uint64_t value;
	} a = { offset, region, width, value };

	client_call(&n->c, CMD_WRITE, &a, 16 + width, -1, &a, 16);
}

static void ring(struct nvme *n, unsigned word, uint32_t value)
{
	if (n->doorbells)
		__atomic_store_n(&n->doorbells[word], value, __ATOMIC_RELEASE);
	else
		put(n, 0, DOORBELLS + 4 * word, value, 4);
}

/* The page of doorbells, if one is offered: GET_REGION_INFO with room for its sparse area. */
static void map_doorbells(struct nvme *n)
{
	struct {
		uint16_t id, command;
		uint32_t size, flags, error;
		uint32_t argsz, region_flags, index, cap;
		uint64_t length, offset;
		uint8_t caps[64];
	} m = { .id = ++n->c.id, .command = 5, .size = 48, .argsz = 96 };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	void *page;

	if (send(n->c.fd, &m, m.size, 0) != (ssize_t)m.size)
		die("cannot ask for the registers");
	msg.msg_control = control.bytes;
	msg.msg_controllen = sizeof(control.bytes);
	if (recvmsg(n->c.fd, &msg, 0) < 48 || m.error)
		die("no answer about the registers");
	if (!CMSG_FIRSTHDR(&msg))
		return;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
		    *(int *)CMSG_DATA(CMSG_FIRSTHDR(&msg)), (off_t)m.offset + DOORBELLS);
	if (page == MAP_FAILED)
		die("cannot map the doorbells");
	n->doorbells = page;
}

static struct sqe *next_entry(struct queue *q)
{
	struct sqe *e = &q->sq[q->tail];

	*e = (struct sqe){ .op = (uint32_t)++q->id << 16 };
	q->tail = q->tail + 1 == q->entries ? 0 : q->tail + 1;
	return e;
}

static void submit(struct nvme *n, struct queue *q)
{
	ring(n, 2 * q->number, q->tail);
}

/* How many ended. */
static unsigned reap(struct nvme *n, struct queue *q)
{
	unsigned ended = 0;

	for (;; ended++) {
		volatile struct cqe *c = &q->cq[q->head];
		uint16_t status = __atomic_load_n(&c->status, __ATOMIC_ACQUIRE);

		if ((status & 1) == q->phase)
			break;
		if (status >> 1)
			die("command %u of queue %u: status 0x%x", c->id, q->number, status >> 1);
		if (++q->head == q->entries) {
			q->head = 0;
			q->phase ^= 1;
		}
	}
	if (ended)
		ring(n, 2 * q->number + 1, q->head);
	return ended;
}

static void run_admin(struct nvme *n)
{
	submit(n, &n->admin);
	while (!reap(n, &n->admin))
		sched_yield();
}

static void start(struct nvme *n, const char *path)
{
	int worker, fd = memfd_create("ram", MFD_CLOEXEC);
	struct sqe *e;

	if (fd < 0 || ftruncate(fd, RAM_SIZE) < 0)
		die("no memory for a guest");
	n->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (n->ram == MAP_FAILED)
		die("cannot map it");
	n->admin = (struct queue){ 0, 16, (struct sqe *)(n->ram + ASQ_AT),
				   (struct cqe *)(n->ram + ACQ_AT), 0 };
	n->io = (struct queue){ 1, ENTRIES, (struct sqe *)(n->ram + SQ_AT),
				(struct cqe *)(n->ram + CQ_AT), 0 };
	client_open(&n->c, path);
	if (scanf("%*d %d", &worker) != 1 || clock_getcpuclockid(worker, &n->worker))
		die("no worker on standard input");
	client_map(&n->c, 0, RAM_SIZE, 0, fd);
	put(n, 7, 4, 6, 2); /* memory and bus master of the command register */
	map_doorbells(n);
	put(n, 0, AQA, 15 << 16 | 15, 4);
	put(n, 0, ASQ, ASQ_AT, 8);
	put(n, 0, ACQ, ACQ_AT, 8);
	put(n, 0, CC, 4 << 20 | 6 << 16 | 1, 4);
	while (!(client_read(&n->c, 0, CSTS, 4) & 1))
		sched_yield();
	e = next_entry(&n->admin); /* create a completion queue, no interrupts */
	e->op |= 5;
	e->prp1 = CQ_AT;
	e->d10 = (ENTRIES - 1) << 16 | 1;
	e->d11 = 1;
	run_admin(n);
	e = next_entry(&n->admin); /* and its submission queue */
	e->op |= 1;
	e->prp1 = SQ_AT;
	e->d10 = (ENTRIES - 1) << 16 | 1;
	e->d11 = 1 << 16 | 1;
	run_admin(n);
	e = next_entry(&n->admin); /* identify namespace 1 */
	e->op |= 6;
	e->nsid = 1;
	e->prp1 = DATA_AT;
	run_admin(n);
	memcpy(&n->blocks, n->ram + DATA_AT, 8);
	n->blocks <<= n->ram[DATA_AT + 128 + 4 * (n->ram[DATA_AT + 26] & 15) + 2]; /* bytes */
	n->blocks /= BLOCK;
}

static void queue_read(struct nvme *n, unsigned slot, uint64_t block)
{
	struct sqe *e = next_entry(&n->io);
	uint64_t sectors = BLOCK / 512;

	e->op |= 2;
	e->nsid = 1;
	e->prp1 = DATA_AT + (uint64_t)slot * BLOCK;
	e->d10 = (uint32_t)(block * sectors);
	e->d12 = (uint32_t)sectors - 1;
}

/* Nanoseconds of one of n reads, so many in flight. */
static double run_reads(struct nvme *d, unsigned depth, unsigned n)
{
	uint64_t begin = now_ns();
	unsigned sent = 0, ended = 0;

	while (ended < n) {
		unsigned before = sent, more;

		for (; sent - ended < depth && sent < n; sent++)
			queue_read(d, sent % depth, (sent * 2654435761u) % d->blocks);
		if (sent != before)
			submit(d, &d->io);
		while (!(more = reap(d, &d->io)))
			relax();
		ended += more;
	}
	return (double)(now_ns() - begin) / n;
}

/* Of ROUNDS, nanoseconds of a read. */
static void show(const char *name, unsigned depth, double *values, double *floors)
{
	for (unsigned i = 0; i < ROUNDS && depth > 1; i++) {
		values[i] = 1e9 / values[i];
		floors[i] = 1e9 / floors[i];
	}
	report(name, depth > 1 ? "IOPS" : "ns", values, floors, ROUNDS);
}

/* ---- the floors of null media ---- */

struct shared {
	_Alignas(64) uint32_t there; /* a cache line that goes ... */
	_Alignas(64) uint32_t back;  /* ... and comes back */
	_Alignas(64) uint32_t tail;
	_Alignas(64) uint32_t awake;
	_Alignas(64) struct sqe sq[ENTRIES];
	struct cqe cq[ENTRIES];
};

static inline void use(const void *data)
{
	__asm__ __volatile__("" ::"r"(data) : "memory");
}

/* The other end, in a process that sleeps but when it is measured. */
static void serve_floor(struct shared *s, int wake_fd)
{
	uint32_t head = 0, echoed = 0;
	char byte;

	while (read(wake_fd, &byte, 1) == 1) {
		__atomic_store_n(&s->awake, 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&s->awake, __ATOMIC_ACQUIRE)) {
			uint32_t tail = __atomic_load_n(&s->tail, __ATOMIC_ACQUIRE);
			uint32_t there = __atomic_load_n(&s->there, __ATOMIC_ACQUIRE);

			if (there != echoed)
				__atomic_store_n(&s->back, echoed = there, __ATOMIC_RELEASE);
			for (; head != tail; head++) {
				struct sqe e = s->sq[head % ENTRIES];
				struct cqe *c = &s->cq[head % ENTRIES];

				use(&e); /* all 64 bytes were copied */
				c->result = c->r1 = 0;
				c->head = (uint16_t)head;
				c->sq = 1;
				c->id = (uint16_t)(e.op >> 16);
				__atomic_store_n(&c->status, (uint16_t)(head / ENTRIES + 1),
						 __ATOMIC_RELEASE);
			}
			relax();
		}
	}
	_exit(0);
}

struct floor {
	struct shared *s;
	int wake_fd;
};

static struct floor start_floor(int cpu)
{
	struct floor f;
	int fds[2];

	f.s = mmap(NULL, sizeof(*f.s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f.s == MAP_FAILED || pipe2(fds, O_CLOEXEC) < 0)
		die("no memory");
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[1]);
		pin_to_cpu(cpu);
		serve_floor(f.s, fds[0]);
	}
	close(fds[0]);
	f.wake_fd = fds[1];
	return f;
}

static void wake_floor(const struct floor *f)
{
	if (write(f->wake_fd, "", 1) != 1)
		die("the floor is gone");
	while (!__atomic_load_n(&f->s->awake, __ATOMIC_ACQUIRE))
		relax();
}

static double run_line(struct shared *s, unsigned n)
{
	uint64_t begin = now_ns();
	uint32_t value = s->there;

	for (unsigned i = 0; i < n; i++) {
		__atomic_store_n(&s->there, ++value, __ATOMIC_RELEASE);
		while (__atomic_load_n(&s->back, __ATOMIC_ACQUIRE) != value)
			relax();
	}
	return (double)(now_ns() - begin) / n;
}

static double run_ring(struct shared *s, unsigned depth, unsigned n)
{
	uint64_t begin = now_ns();
	uint32_t first = s->tail, sent = 0, ended = 0;

	while (ended < n) {
		uint32_t before = sent;

		for (; sent - ended < depth && sent < n; sent++)
			s->sq[(first + sent) % ENTRIES] = (struct sqe){ .op = sent << 16 | 2 };
		if (sent != before)
			__atomic_store_n(&s->tail, first + sent, __ATOMIC_RELEASE);
		while (ended < sent && __atomic_load_n(&s->cq[(first + ended) % ENTRIES].status,
						       __ATOMIC_ACQUIRE) ==
					       (uint16_t)((first + ended) / ENTRIES + 1))
			ended++;
	}
	return (double)(now_ns() - begin) / n;
}

static void with_floor(struct nvme *d, const struct floor *f, const char *name, unsigned depth,
		       unsigned n)
{
	static double values[ROUNDS], floors[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		wake_floor(f);
		floors[i] = depth == 1 ? run_line(f->s, n) : run_ring(f->s, depth, n);
		__atomic_store_n(&f->s->awake, 0, __ATOMIC_RELEASE);
		run_reads(d, depth, n / 4); /* the controller looks for work again */
		values[i] = run_reads(d, depth, n);
	}
	show(name, depth, values, floors);
}

/* ---- the floor of a file ---- */

static double run_local(struct io_uring *uring, int fd, uint8_t *data, uint64_t blocks,
			unsigned depth, unsigned n)
{
	uint64_t begin = now_ns();
	unsigned sent = 0, ended = 0;

	while (ended < n) {
		struct io_uring_cqe *cqe;

		for (; sent - ended < depth && sent < n; sent++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(uring);

			io_uring_prep_read(sqe, fd, data + (size_t)(sent % depth) * BLOCK, BLOCK,
					   (sent * 2654435761u) % blocks * BLOCK);
		}
		io_uring_submit(uring);
		while (io_uring_peek_cqe(uring, &cqe) == 0) {
			if (cqe->res != BLOCK)
				die("a local read: %d", cqe->res);
			io_uring_cqe_seen(uring, cqe);
			ended++;
		}
	}
	return (double)(now_ns() - begin) / n;
}

static void against_file(struct nvme *d, const char *path, const char *name, unsigned depth,
			 unsigned n)
{
	static double values[ROUNDS], floors[ROUNDS];
	struct io_uring uring;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || io_uring_queue_init(ENTRIES, &uring, 0) < 0)
		die("no local reads of %s", path);
	run_local(&uring, fd, d->ram + DATA_AT, d->blocks, depth, n);
	for (unsigned i = 0; i < ROUNDS; i++) {
		floors[i] = run_local(&uring, fd, d->ram + DATA_AT, d->blocks, depth, n);
		run_reads(d, depth, n / 8);
		values[i] = run_reads(d, depth, n);
	}
	show(name, depth, values, floors);
	io_uring_queue_exit(&uring);
	close(fd);
}

static void report_cpu(struct nvme *d, unsigned n)
{
	static double values[ROUNDS], none[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t begin = cpu_ns(d->worker);

		run_reads(d, 32, n);
		values[i] = none[i] = (double)(cpu_ns(d->worker) - begin) / n;
	}
	report("nvme-worker-cpu-per-read", "ns", values, none, ROUNDS);
}

int main(int argc, char **argv)
{
	struct nvme d = { 0 };
	int other;

	if (argc != 5)
		die("usage: bench-nvme SOCKET CPU OTHER-CPU FILE|-");
	pin_to_cpu(atoi(argv[2]));
	other = atoi(argv[3]);
	start(&d, argv[1]);
	if (!strcmp(argv[4], "-")) {
		struct floor f = start_floor(other);

		with_floor(&d, &f, "nvme-null-qd1", 1, 2000);
		with_floor(&d, &f, "nvme-null-qd32", 32, 8000);
		with_floor(&d, &f, "nvme-null-qd128", 128, 8000);
	} else {
		against_file(&d, argv[4], "nvme-file-qd1", 1, 1000);
		against_file(&d, argv[4], "nvme-file-qd32", 32, 4000);
	}
	report_cpu(&d, 8000);
	return 0;
}
