// SPDX-License-Identifier: MIT
/* I/O queues behind a presentation that is nothing but callbacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "queue/internal.h"

#define PAGE 4096
#define DISK (64 * PAGE)
#define QUEUES 3

struct state {
	uint64_t value;
};

static struct world {
	struct loop loop;
	struct loop_timer stop;
	struct media_engine *engine;
	struct media_fence fence;
	struct queue_group *group;
	struct umdev_device dev;
	struct dma_shared *dma_shared;
	struct dma_table *dma;
	int ram_fd, disk_fd;
	uint8_t *ram; /* 8 pages */
	_Alignas(16) uint8_t half[1024];
	/* what the device saw */
	int (*body)(struct umdev_queue *q); /* of the next poll, in the runner */
	int result;
	enum umdev_init how;
	uint32_t first_config;
	int start_result;
	unsigned n_done, n_stopped, n_irqs, irq;
	int status;
	uint32_t events;
} w;

/* ---- the device ---- */

static int q_start(struct umdev_queue *q, enum umdev_init how)
{
	w.how = how;
	memcpy(&w.first_config, umdev_queue_config(q), sizeof(w.first_config));
	return w.start_result;
}

static bool q_poll(struct umdev_queue *q)
{
	int (*body)(struct umdev_queue *) = __atomic_exchange_n(&w.body, NULL, __ATOMIC_SEQ_CST);

	if (!body)
		return false;
	w.result = body(q);
	return true;
}

static void q_done(struct umdev_queue *q, uint32_t tag, int status)
{
	w.n_done++;
	w.status = status;
}

static void dev_stopped(struct umdev_device *dev, unsigned queue)
{
	w.n_stopped++;
}

static void dev_event(struct umdev_device *dev, unsigned queue, uint32_t bits)
{
	w.events |= bits;
}

static const struct umdev_queue_ops queue_ops = { .start = q_start,
						  .poll = q_poll,
						  .done = q_done };
static const struct umdev_queue_type queue_type = { .ops = &queue_ops,
						    .max = QUEUES,
						    .requests = 4,
						    .state_size = sizeof(struct state),
						    .state_version = 1,
						    .priv_size = sizeof(struct umdev_window),
						    .doorbells = 2 };
static const struct umdev_device_ops ops = { .queue_stopped = dev_stopped,
					     .queue_event = dev_event };
static const struct umdev_device_type type = { .name = "queues",
					       .ops = &ops,
					       .queues = &queue_type };

/* ---- its presentation ---- */

static int host_run(struct umdev_device *dev, int (*fn)(struct umdev_device *, void *), void *arg)
{
	int r = fn(dev, arg);

	queues_kick(dev);
	return r;
}

static void host_irq(struct umdev_device *dev, unsigned vector)
{
	w.n_irqs++;
	w.irq = vector;
}

static void host_stalled(struct umdev_device *dev, bool stalled)
{
}

static const struct queue_host host = { host_run, host_irq, host_stalled };

static void stop_loop(struct loop_timer *timer)
{
	loop_stop(timer->loop, 0);
}

/* Until `*what` is `value`. */
static void run_until(const unsigned *what, unsigned value)
{
	for (unsigned i = 0; *what != value && i < 500; i++) {
		loop_timer_arm(&w.loop, &w.stop, 10000000, stop_loop);
		assert_int_equal(loop_run(&w.loop), 0);
	}
	assert_int_equal(*what, value);
}

static void settle(void)
{
	loop_timer_arm(&w.loop, &w.stop, 2000000, stop_loop);
	assert_int_equal(loop_run(&w.loop), 0);
}

static void map(uint64_t iova, uint64_t pages, uint64_t from)
{
	struct dma_record record;

	assert_int_equal(dma_prepare_map(w.dma, iova, pages * PAGE, DMA_READ | DMA_WRITE, w.ram_fd,
					 from * PAGE, &record),
			 0);
	if (record.new_fd >= 0)
		record.new_fd = dup(w.ram_fd);
	assert_int_equal(dma_apply(w.dma, &record), 0);
}

static void unmap(uint64_t iova, uint64_t pages)
{
	struct dma_record record;

	assert_int_equal(dma_prepare_unmap(w.dma, iova, pages * PAGE, &record), 0);
	assert_int_equal(dma_apply(w.dma, &record), 0);
}

static int setup(void **state)
{
	memset(&w, 0, sizeof(w));
	w.loop = (struct loop)LOOP_INIT;
	w.fence = (struct media_fence)MEDIA_FENCE_INIT;
	assert_int_equal(loop_init(&w.loop), 0);
	assert_int_equal(media_engine_new(&w.engine, 0, -1), 0);
	assert_int_equal(queue_group_new(&w.group, 0), 0);
	assert_int_equal(queue_group_start(w.group, &w.loop, w.engine, 0), 0);
	assert_int_equal(media_engine_start(w.engine, &w.loop, &w.fence), 0);
	w.dma_shared = calloc(1, sizeof(*w.dma_shared));
	assert_int_equal(dma_table_new(w.dma_shared, false, &w.dma), 0);
	w.ram_fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(w.ram_fd, 8 * PAGE), 0);
	w.ram = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, w.ram_fd, 0);
	w.disk_fd = memfd_create("disk", MFD_CLOEXEC);
	assert_int_equal(ftruncate(w.disk_fd, DISK), 0);
	assert_int_equal(device_init(&w.dev, NULL, &type, &(struct uuid){ 0 }), 0);
	assert_int_equal(device_add_resource(&w.dev, "disk", w.disk_fd,
					     UMDEV_RES_READ | UMDEV_RES_WRITE | UMDEV_RES_MEDIUM, 0,
					     DISK, NULL),
			 0);
	assert_int_equal(device_add_resource(&w.dev, "rom", w.disk_fd,
					     UMDEV_RES_READ | UMDEV_RES_MEDIUM, 0, DISK, NULL),
			 0);
	assert_true(device_half_size(&type) <= sizeof(w.half));
	w.dev.half = (struct device_half *)w.half;
	w.dev.engine = w.engine;
	w.dev.queue_group = w.group;
	w.dev.queue_shared = aligned_alloc(64, (queue_shared_size(&type) + 63) & ~63ul);
	assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_FRESH, NULL), 0);
	queues_allow_dma(&w.dev, true);
	return 0;
}

static int teardown(void **state)
{
	queues_detach(&w.dev);
	queue_group_free(w.group);
	media_engine_free(w.engine);
	dma_table_free(w.dma);
	device_fini(&w.dev);
	free(w.dev.queue_shared);
	free(w.dma_shared);
	munmap(w.ram, 8 * PAGE);
	close(w.ram_fd);
	close(w.disk_fd);
	if (w.fence.tomb >= 0)
		close(w.fence.tomb);
	loop_timer_cancel(&w.stop);
	loop_fini(&w.loop);
	return 0;
}

static void start(unsigned index, enum umdev_queue_start how)
{
	uint32_t config = 0x1000 + index;

	assert_int_equal(umdev_queue_start(&w.dev, index, how, &config, sizeof(config)), 0);
	queues_kick(&w.dev);
	settle();
}

/* What body returns, in the runner of queue 0. */
static int in_queue(int (*body)(struct umdev_queue *q))
{
	w.body = body;
	w.result = INT32_MIN;
	umdev_queue_kick(&w.dev, 0);
	queues_kick(&w.dev);
	settle();
	assert_int_not_equal(w.result, INT32_MIN);
	return w.result;
}

/* ---- states ---- */

static int store_value(struct umdev_queue *q)
{
	((struct state *)umdev_queue_state(q))->value = 42;
	return 0;
}

static uint64_t value(unsigned index)
{
	return ((const struct state *)umdev_queue_peek(&w.dev, index))->value;
}

static void states_of_a_queue(void **state)
{
	uint8_t big[UMDEV_QUEUE_CONFIG_MAX + 1] = { 0 };

	assert_int_equal(umdev_queue_start(&w.dev, QUEUES, UMDEV_QUEUE_NEW, NULL, 0), -EINVAL);
	assert_int_equal(umdev_queue_start(&w.dev, 0, UMDEV_QUEUE_NEW, big, sizeof(big)), -EINVAL);
	assert_int_equal(umdev_queue_stop(&w.dev, 0, UMDEV_QUEUE_DROP), -EINVAL);
	assert_true(umdev_queue_is_stopped(&w.dev, 0));
	start(0, UMDEV_QUEUE_NEW);
	assert_int_equal(w.how, UMDEV_FRESH);
	assert_int_equal(w.first_config, 0x1000);
	assert_int_equal(umdev_queue_start(&w.dev, 0, UMDEV_QUEUE_NEW, NULL, 0), -EBUSY);
	assert_int_equal(in_queue(store_value), 0);
	for (unsigned i = 1; i <= 2; i++) {
		assert_int_equal(umdev_queue_stop(&w.dev, 0, UMDEV_QUEUE_DRAIN), 0);
		assert_false(umdev_queue_is_stopped(&w.dev, 0));
		queues_kick(&w.dev);
		run_until(&w.n_stopped, i);
		assert_true(umdev_queue_is_stopped(&w.dev, 0));
		start(0, i == 1 ? UMDEV_QUEUE_KEEP : UMDEV_QUEUE_NEW);
		assert_int_equal(value(0), i == 1 ? 42 : 0);
	}
}

static void a_start_that_fails_is_told(void **state)
{
	w.start_result = -EINVAL;
	start(0, UMDEV_QUEUE_NEW);
	settle();
	assert_int_equal(w.events, UMDEV_QUEUE_BROKEN);
	assert_int_equal(umdev_queue_stop(&w.dev, 0, UMDEV_QUEUE_DRAIN), 0);
	queues_kick(&w.dev);
	run_until(&w.n_stopped, 1);
}

static void a_reset_stops_every_queue(void **state)
{
	for (unsigned i = 0; i < QUEUES; i++)
		start(i, UMDEV_QUEUE_NEW);
	assert_true(queues_are_busy(&w.dev));
	queues_reset(&w.dev);
	for (unsigned i = 0; i < QUEUES; i++)
		assert_true(umdev_queue_is_stopped(&w.dev, i));
	queues_kick(&w.dev);
	settle();
	assert_false(queues_are_busy(&w.dev));
	assert_int_equal(w.n_stopped, 0);
}

/* ---- guest memory ---- */

static struct umdev_window *window(struct umdev_queue *q)
{
	struct umdev_window *win = umdev_queue_priv(q);

	if (!win->len)
		*win = (struct umdev_window){ .iova = { PAGE }, .len = 2 * PAGE, .write = true };
	return win;
}

static int copy_over_the_seam(struct umdev_queue *q)
{
	uint8_t bytes[16];
	int r = umdev_window_read(q, window(q), PAGE - 8, bytes, sizeof(bytes));

	return r ? r : umdev_window_write(q, window(q), PAGE - 4, bytes, 8);
}

static int words_behind_the_seam(struct umdev_queue *q)
{
	uint32_t v32;
	uint16_t v16;
	int r = umdev_window_load32(q, window(q), PAGE, &v32);

	if (!r)
		r = umdev_window_load16(q, window(q), PAGE + 2, &v16);
	if (!r && v16 != v32 >> 16)
		return -EILSEQ;
	if (!r)
		r = umdev_window_store32(q, window(q), PAGE + 8, v32);
	return r ? r : umdev_window_store16(q, window(q), PAGE + 12, v16);
}

static void a_window_may_be_split_and_moves_with_the_map(void **state)
{
	for (unsigned i = 0; i < 8 * PAGE; i++)
		w.ram[i] = (uint8_t)(i * 7 + i / PAGE);
	start(0, UMDEV_QUEUE_NEW);
	assert_int_equal(in_queue(copy_over_the_seam), -EFAULT);
	map(PAGE, 1, 5);
	assert_int_equal(in_queue(copy_over_the_seam), -EFAULT);
	assert_int_equal(in_queue(words_behind_the_seam), -EFAULT);
	map(2 * PAGE, 1, 2);
	assert_int_equal(in_queue(words_behind_the_seam), 0);
	assert_memory_equal(w.ram + 2 * PAGE + 8, w.ram + 2 * PAGE, 4);
	assert_memory_equal(w.ram + 2 * PAGE + 12, w.ram + 2 * PAGE + 2, 2);
	assert_int_equal(in_queue(copy_over_the_seam), 0);
	assert_int_equal(w.ram[6 * PAGE - 4], (uint8_t)((6 * PAGE - 8) * 7 + 5));
	assert_int_equal(w.ram[2 * PAGE], (uint8_t)((6 * PAGE - 4) * 7 + 5));
	unmap(PAGE, 1);
	unmap(2 * PAGE, 1);
	assert_int_equal(in_queue(copy_over_the_seam), -EFAULT);
	map(PAGE, 2, 3);
	assert_int_equal(in_queue(copy_over_the_seam), 0);
	queues_allow_dma(&w.dev, false);
	assert_int_equal(in_queue(copy_over_the_seam), -EFAULT);
	assert_int_equal(in_queue(words_behind_the_seam), -EFAULT);
}

static void a_file_that_was_cut_short_is_an_error(void **state)
{
	assert_int_equal(dma_guard_init(), 0); /* in place of cmocka's handler */
	map(PAGE, 2, 0);
	start(0, UMDEV_QUEUE_NEW);
	assert_int_equal(in_queue(copy_over_the_seam), 0);
	assert_int_equal(ftruncate(w.ram_fd, PAGE), 0);
	assert_int_equal(in_queue(copy_over_the_seam), -EFAULT);
	assert_int_equal(in_queue(words_behind_the_seam), -EFAULT);
}

/* ---- requests ---- */

static int submit(struct umdev_queue *q, unsigned medium, enum umdev_media_op op, uint64_t len)
{
	struct umdev_seg segs[2] = { { { PAGE }, 512 }, { { 2 * PAGE + 512 }, 512 } };

	return umdev_queue_submit(q, medium, op, PAGE, len, segs, 2, 0, 5);
}

static int read_two(struct umdev_queue *q)
{
	return submit(q, 0, UMDEV_MEDIA_READ, 1024);
}

static int write_rom(struct umdev_queue *q)
{
	return submit(q, 1, UMDEV_MEDIA_WRITE, 1024);
}

static int read_nothing(struct umdev_queue *q)
{
	return submit(q, 3, UMDEV_MEDIA_READ, 1024);
}

static int read_less(struct umdev_queue *q)
{
	return submit(q, 0, UMDEV_MEDIA_READ, 1025);
}

static int flush_with_memory(struct umdev_queue *q)
{
	return submit(q, 0, UMDEV_MEDIA_FLUSH, 1024);
}

static int read_behind_the_end(struct umdev_queue *q)
{
	struct umdev_seg seg = { { PAGE }, 512 };

	return umdev_queue_submit(q, 0, UMDEV_MEDIA_READ, DISK - 511, 512, &seg, 1, 0, 5);
}

static int read_too_many(struct umdev_queue *q)
{
	int r = 0;

	for (unsigned i = 0; i < 4 && !r; i++)
		r = read_two(q);
	return r ? r : read_two(q);
}

static void requests_are_judged(void **state)
{
	uint8_t want[1024];

	for (unsigned i = 0; i < sizeof(want); i++)
		want[i] = (uint8_t)(i ^ i >> 5);
	assert_int_equal(pwrite(w.disk_fd, want, sizeof(want), PAGE), sizeof(want));
	start(0, UMDEV_QUEUE_NEW);
	assert_int_equal(in_queue(read_two), -EFAULT);
	map(PAGE, 2, 0);
	assert_int_equal(in_queue(read_less), -EINVAL);
	assert_int_equal(in_queue(flush_with_memory), -EINVAL);
	assert_int_equal(in_queue(read_behind_the_end), -EINVAL);
	assert_int_equal(in_queue(read_nothing), -ENODEV);
	assert_int_equal(in_queue(write_rom), -EROFS);
	assert_int_equal(w.n_done, 0);
	assert_int_equal(in_queue(read_two), 0);
	run_until(&w.n_done, 1);
	assert_int_equal(w.status, 0);
	assert_memory_equal(w.ram, want, 512);
	assert_memory_equal(w.ram + PAGE + 512, want + 512, 512);
	assert_int_equal(in_queue(read_too_many), -EBUSY);
	run_until(&w.n_done, 5);
	assert_false(dma_is_pinned(w.dma, 0, UINT64_MAX));
	assert_true(queues_medium_is_idle(&w.dev, 0));
}

static void what_is_dropped_is_not_told(void **state)
{
	map(PAGE, 2, 0);
	start(0, UMDEV_QUEUE_NEW);
	queues_hold(&w.dev, false);
	w.body = read_two;
	umdev_queue_kick(&w.dev, 0);
	queues_kick(&w.dev);
	settle();
	assert_ptr_equal(w.body, read_two); /* held: it does not look */
	queues_release(&w.dev);
	settle();
	assert_null(w.body);
	run_until(&w.n_done, 1);
	assert_int_equal(in_queue(read_two), 0);
	queues_hold(&w.dev, true);
	settle();
	assert_true(w.n_done <= 2);
}

/* ---- interrupts, events ---- */

static int ask(struct umdev_queue *q)
{
	umdev_queue_irq(q, 5);
	umdev_queue_irq(q, 5);
	umdev_queue_event(q, 1);
	umdev_queue_event(q, 4);
	return 0;
}

static void interrupts_and_events_are_told(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	eventfd_t n;

	start(0, UMDEV_QUEUE_NEW);
	assert_int_equal(in_queue(ask), 0);
	run_until(&w.n_irqs, 1); /* nobody signals it directly */
	assert_int_equal(w.irq, 5);
	assert_int_equal(w.events, 5);
	queues_set_vector(&w.dev, 5, fd);
	assert_int_equal(in_queue(ask), 0);
	assert_int_equal(eventfd_read(fd, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(w.n_irqs, 1);
	close(fd);
}

/* ---- another life ---- */

static void a_successor_resumes_or_refuses(void **state)
{
	struct queue_shared *shared = w.dev.queue_shared;
	uint8_t *byte = device_queue_states(&w.dev, w.dev.half);

	start(0, UMDEV_QUEUE_NEW);
	assert_int_equal(in_queue(store_value), 0);
	queues_detach(&w.dev);
	assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_RESUME, NULL), 0);
	settle();
	assert_int_equal(w.how, UMDEV_RESUME);
	assert_int_equal(value(0), 42);
	queues_detach(&w.dev);
	*byte |= 0x80;
	assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_RESUME, NULL), -EUCLEAN);
	*byte &= 0x7f;
	shared->port[0].at_work = QUEUES + 1;
	assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_RESUME, NULL), -EUCLEAN);
	shared->port[0].at_work = 0;
	shared->n++;
	assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_RESUME, NULL), -EUCLEAN);
	shared->n--;
	assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_RESUME, NULL), 0);
}

static void the_queue_that_was_at_work_is_blamed(void **state)
{
	start(0, UMDEV_QUEUE_NEW);
	start(1, UMDEV_QUEUE_NEW);
	queue_group_blame(w.group, false);
	for (unsigned i = 1; i <= QUEUE_CRASHES; i++) {
		assert_int_equal(w.events, 0);
		queues_detach(&w.dev);
		w.dev.queue_shared->port[0].at_work = 1 + 1;
		w.dev.queue_shared->port[0].crashed = 1;
		w.dev.queue_shared->port[1].at_work = 1 + 0; /* at work, and not guilty */
		assert_int_equal(queues_attach(&w.dev, w.dma, &host, UMDEV_RESUME, NULL), 0);
		settle();
	}
	assert_int_equal(w.events, UMDEV_QUEUE_BROKEN);
	assert_int_equal(in_queue(store_value), 0); /* queue 0 goes on */
	assert_int_equal(umdev_queue_stop(&w.dev, 1, UMDEV_QUEUE_DROP), 0);
	queues_kick(&w.dev);
	run_until(&w.n_stopped, 1);
	w.how = UMDEV_RESUME;
	start(1, UMDEV_QUEUE_NEW);
	assert_int_equal(w.how, UMDEV_FRESH); /* forgiven */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(states_of_a_queue),
		TEST(a_start_that_fails_is_told),
		TEST(a_reset_stops_every_queue),
		TEST(a_window_may_be_split_and_moves_with_the_map),
		TEST(a_file_that_was_cut_short_is_an_error),
		TEST(requests_are_judged),
		TEST(what_is_dropped_is_not_told),
		TEST(interrupts_and_events_are_told),
		TEST(a_successor_resumes_or_refuses),
		TEST(the_queue_that_was_at_work_is_blamed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
