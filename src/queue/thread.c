// SPDX-License-Identifier: MIT
/*
 * Queue threads: each makes rounds for the queues that it was given, looks for more while that
 * pays, and sleeps in its ring.
 *
 * A life makes all its threads before the sandbox closes; each enters it by itself, then waits to
 * be told whether it is needed (CONFIG is not known before).
 *
 * How long to look. Work that comes within `window` of the last is found without a sleep. After
 * each sleep the window is judged: it grows when the work came soon enough to have been found by
 * looking longer, up to what the device allows (poll_us), and it shrinks when it came much later.
 * A thread that had to wait for its CPU while it looked takes it from others who have use for it:
 * then it does not look at all for a while.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "queue/internal.h"

#define STACK_SIZE (256 * 1024)
#define FIRST_WINDOW_NS 10000
#define LOOKS_PER_CLOCK 32   /* reading it takes as long as some looks */
#define FAIRNESS_NS 2000000  /* of looking: then it is asked who waits */
#define BACK_OFF_NS 20000000 /* not looking, after somebody had to wait */
#define MAPPED_TICK_NS 50000 /* nobody tells us of a doorbell that is mapped */
#define MAPPED_TICK_MAX_NS 2000000

/* ---- begin and end ---- */

static bool wait_for(struct queue_group *g, const bool *flag, struct queue_thread *t)
{
	bool quit;

	pthread_mutex_lock(&g->lock);
	while (!*flag && !t->quit)
		pthread_cond_wait(&g->changed, &g->lock);
	quit = t->quit;
	pthread_mutex_unlock(&g->lock);
	return !quit;
}

static void tell(struct queue_group *g, int *at, int value)
{
	pthread_mutex_lock(&g->lock);
	*at = value;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

/* ---- looking ---- */

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

/* Nanoseconds that this thread was ready to run and did not. */
static uint64_t waited_ns(const struct queue_thread *t)
{
	unsigned long long delay = 0;
	char text[64];
	ssize_t n = t->schedstat_fd < 0 ? -1 : pread(t->schedstat_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	return sscanf(text, "%*u %llu", &delay) == 1 ? delay : 0;
}

static void check_fairness(struct queue_thread *t, uint64_t now)
{
	uint64_t waited;

	if (now - t->asked_ns < FAIRNESS_NS)
		return;
	t->asked_ns = now;
	waited = waited_ns(t);
	if (waited > t->waited_ns + FAIRNESS_NS / 16)
		t->not_before_ns = now + BACK_OFF_NS;
	t->waited_ns = waited;
}

/* The longest that a device of this thread's allows, and whether one cannot notify us. */
static uint64_t bound_ns(const struct queue_runner *r, bool *ret_mapped)
{
	uint64_t bound = 0;
	struct umdev_queue *q;

	*ret_mapped = false;
	list_for_each(q, &r->active, node) {
		bound = q->set->poll_ns > bound ? q->set->poll_ns : bound;
		*ret_mapped |= q->set->mapped;
	}
	return bound;
}

/* Looks until there is work (true) or the window is over. */
static bool look_for_work(struct queue_thread *t)
{
	uint64_t start = loop_now_ns(), now = start;

	if (!t->window_ns || start < t->not_before_ns)
		return false;
	while (now - start < t->window_ns) {
		for (unsigned i = 0; i < LOOKS_PER_CLOCK; i++) {
			if (round_make(&t->runner, false))
				return true;
			cpu_relax();
		}
		now = loop_now_ns();
		check_fairness(t, now);
		if (now < t->not_before_ns)
			return false;
	}
	return false;
}

/* Work came, or something else, this long after the last. */
static void judge_window(struct queue_thread *t, uint64_t pause_ns, uint64_t bound)
{
	if (pause_ns > bound)
		t->window_ns /= 2;
	else if (pause_ns > t->window_ns)
		t->window_ns = t->window_ns ? 2 * t->window_ns : FIRST_WINDOW_NS;
	if (t->window_ns < FIRST_WINDOW_NS / 8)
		t->window_ns = 0;
	if (t->window_ns > bound)
		t->window_ns = bound;
}

/* ---- sleeping ---- */

static void sleep_without_ring(struct queue_thread *t, uint64_t max_ns)
{
	struct timespec ts = { (time_t)(max_ns / 1000000000), (long)(max_ns % 1000000000) };
	struct pollfd p = { .fd = t->kick_fd, .events = POLLIN };
	eventfd_t n;

	if (ppoll(&p, 1, max_ns ? &ts : NULL, NULL) > 0)
		eventfd_read(t->kick_fd, &n);
}

/* max_ns 0: until something comes. */
static void sleep_until_kick(struct queue_thread *t, uint64_t max_ns)
{
	if (t->runner.ring)
		ring_wait(t->runner.ring, max_ns);
	else
		sleep_without_ring(t, max_ns);
}

/* How long to sleep at most; 0: any time. */
static uint64_t next_tick(struct queue_thread *t, bool mapped)
{
	uint64_t tick = t->tick_ns ? t->tick_ns : MAPPED_TICK_NS;

	if (!mapped)
		return 0;
	t->tick_ns = 2 * tick > MAPPED_TICK_MAX_NS ? MAPPED_TICK_MAX_NS : 2 * tick;
	return tick;
}

/* Until there was no work, and then until something came. */
static void serve(struct queue_thread *t)
{
	uint64_t start, bound;
	bool mapped;

	while (round_make(&t->runner, false) || look_for_work(t))
		t->tick_ns = 0;
	start = loop_now_ns();
	bound = bound_ns(&t->runner, &mapped);
	/* Said before the last look: what comes after that is a kick. */
	store(&t->asleep, true);
	if (!round_make(&t->runner, true) && !load(&t->runner.mail) && !load(&t->quit)) {
		sleep_until_kick(t, next_tick(t, mapped));
		if (round_make(&t->runner, false)) {
			judge_window(t, loop_now_ns() - start, bound);
			t->tick_ns = 0;
		}
	}
	store(&t->asleep, false);
}

static void *run(void *arg)
{
	struct queue_thread *t = arg;
	struct queue_group *g = t->runner.group;

	t->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	if (!wait_for(g, &g->may_enter, t))
		return NULL;
	tell(g, &t->entered, g->enter(g->enter_arg) ? QUEUE_THREAD_OUTSIDE : QUEUE_THREAD_INSIDE);
	if (!wait_for(g, &t->needed, t))
		return NULL;
	if (t->runner.ring)
		ring_watch(t->runner.ring, t->kick_fd);
	while (!load(&t->quit))
		serve(t);
	return NULL;
}

int thread_start(struct queue_thread *t, struct queue_group *g, unsigned number)
{
	pthread_attr_t attr;
	int r;

	runner_init(&t->runner, g, number);
	t->runner.thread = t;
	t->schedstat_fd = -1;
	t->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->kick_fd < 0)
		return -errno;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	r = -pthread_create(&t->id, &attr, run, t);
	pthread_attr_destroy(&attr);
	if (r < 0)
		close(t->kick_fd);
	return r;
}

void thread_kick(struct queue_thread *t)
{
	if (load(&t->asleep))
		eventfd_write(t->kick_fd, 1);
}

void thread_stop(struct queue_thread *t)
{
	struct queue_group *g = t->runner.group;

	pthread_mutex_lock(&g->lock);
	store(&t->quit, true);
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	eventfd_write(t->kick_fd, 1);
	pthread_join(t->id, NULL);
	runner_fini(&t->runner);
	close(t->kick_fd);
	if (t->schedstat_fd >= 0)
		close(t->schedstat_fd);
}

int threads_enter(struct queue_group *g, int (*enter)(void *), void *arg)
{
	bool outside = false;

	pthread_mutex_lock(&g->lock);
	g->enter = enter;
	g->enter_arg = arg;
	g->may_enter = true;
	pthread_cond_broadcast(&g->changed);
	for (unsigned i = 0; i < g->n_threads; i++) {
		while (!g->thread[i].entered)
			pthread_cond_wait(&g->changed, &g->lock);
		outside |= g->thread[i].entered == QUEUE_THREAD_OUTSIDE;
	}
	pthread_mutex_unlock(&g->lock);
	return outside ? -EPERM : 0;
}

void threads_need(struct queue_group *g, unsigned n)
{
	while (g->n_threads > n)
		thread_stop(&g->thread[--g->n_threads]);
	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < g->n_threads; i++)
		g->thread[i].needed = true;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}
