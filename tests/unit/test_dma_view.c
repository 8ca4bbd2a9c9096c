/* SPDX-License-Identifier: MIT */
/* Readers in other threads, pins, and waiting for both. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "dma_check.h"

#define RW (DMA_READ | DMA_WRITE)

struct wait {
	struct dma_quiesce q;
	unsigned n_done;
	int status;
	struct loop *stop; /* stopped by the completion */
};

static void on_done(struct dma_quiesce *q, int status)
{
	struct wait *w = container_of(q, struct wait, q);

	w->n_done++;
	w->status = status;
	if (w->stop)
		loop_stop(w->stop, 0);
}

struct fixture {
	struct dma_shared *shared;
	struct dma_table *t;
	struct loop loop;
	int fd;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->shared = dma_shared_new();
	f->fd = dma_memfd(0, 64);
	assert_int_equal(loop_init(&f->loop), 0);
	assert_int_equal(dma_table_new(f->shared, false, &f->t), 0);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(dma_map_now(f->t, i * PAGE, PAGE, RW, f->fd, i * PAGE), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	dma_check_table(f->t);
	dma_unmap_all_now(f->t);
	dma_table_free(f->t);
	loop_fini(&f->loop);
	close(f->fd);
	free(f->shared);
	free(f);
	return 0;
}

static void start(struct fixture *f, struct wait *w, uint64_t iova, uint64_t len)
{
	*w = (struct wait){ 0 };
	dma_quiesce(f->t, &f->loop, &w->q, iova, len, on_done);
	w->stop = &f->loop;
}

/* Runs the loop until w is done. */
static void finish(struct fixture *f, struct wait *w)
{
	while (!w->n_done)
		assert_int_equal(loop_run(&f->loop), 0);
	assert_int_equal(w->n_done, 1);
}

/* The loop has nothing to say for 20 ms. */
static void on_timer(struct loop_timer *timer)
{
	loop_stop(timer->loop, 1);
}

static void assert_still_waiting(struct fixture *f, struct wait *w)
{
	struct loop_timer timer = { 0 };

	assert_int_equal(w->n_done, 0);
	loop_timer_arm(&f->loop, &timer, 20 * 1000000, on_timer);
	assert_int_equal(loop_run(&f->loop), 1);
	assert_int_equal(w->n_done, 0);
}

static void with_nobody_there_it_is_quiet_at_once(void **state)
{
	struct wait w;

	start(*state, &w, 0, UINT64_MAX);
	assert_int_equal(w.n_done, 1);
	assert_int_equal(w.status, 0);
	dma_quiesce_cancel(&w.q);
	dma_quiesce_cancel(&w.q);
}

static void a_reader_keeps_its_view_until_it_leaves(void **state)
{
	struct fixture *f = *state;
	const struct dma_view *old, *new;
	struct dma_reader a, b;
	struct dma_seg seg;
	struct wait w;

	assert_int_equal(dma_reader_add(f->t, &a), 0);
	assert_int_equal(dma_reader_add(f->t, &b), 0);
	old = dma_view_enter(f->t, &a);
	assert_int_equal(dma_unmap_now(f->t, 2 * PAGE, PAGE), 0);
	assert_int_equal(dma_map_now(f->t, 100 * PAGE, PAGE, RW, f->fd, 9 * PAGE), 0);
	new = dma_view_enter(f->t, &b);
	assert_int_equal(dma_view_resolve(old, (struct iova){ 2 * PAGE }, 8, RW, &seg, 1), 1);
	assert_int_equal(*(uint64_t *)seg.hva, dma_word(0, 2 * PAGE));
	assert_int_equal(dma_view_resolve(old, (struct iova){ 100 * PAGE }, 8, RW, &seg, 1),
			 -EFAULT);
	assert_int_equal(dma_view_resolve(new, (struct iova){ 2 * PAGE }, 8, RW, &seg, 1), -EFAULT);
	assert_int_equal(dma_view_resolve(new, (struct iova){ 100 * PAGE }, 8, RW, &seg, 1), 1);
	dma_view_leave(f->t, &b);

	start(f, &w, 2 * PAGE, PAGE);
	assert_still_waiting(f, &w);
	dma_view_enter(f->t, &b); /* a new one is in nobody's way */
	assert_still_waiting(f, &w);
	dma_view_leave(f->t, &a);
	finish(f, &w);
	assert_int_equal(w.status, 0);
	dma_view_leave(f->t, &b);
	dma_reader_remove(f->t, &a);
	dma_reader_remove(f->t, &b);
}

static void memory_stays_while_an_old_view_has_it(void **state)
{
	struct fixture *f = *state;
	const struct dma_view *old;
	struct dma_reader r;
	struct dma_seg seg;

	assert_int_equal(dma_reader_add(f->t, &r), 0);
	old = dma_view_enter(f->t, &r);
	dma_unmap_all_now(f->t);
	assert_int_equal(dma_view_resolve(old, (struct iova){ 0 }, 8 * PAGE, RW, &seg, 1), 1);
	assert_int_equal(*(uint64_t *)seg.hva, dma_word(0, 0));
	dma_view_leave(f->t, &r);
	dma_reader_remove(f->t, &r);
}

static void a_pin_in_the_range_holds_it_and_no_other_does(void **state)
{
	struct fixture *f = *state;
	struct dma_pin in, out, late;
	struct dma_reader r;
	struct wait w, elsewhere, all;

	assert_int_equal(dma_reader_add(f->t, &r), 0);
	dma_view_enter(f->t, &r);
	dma_pin(f->t, &r, &in, 2 * PAGE + 512, 512);
	dma_view_leave(f->t, &r);
	dma_pin(f->t, NULL, &out, PAGE, PAGE);

	start(f, &elsewhere, 3 * PAGE, PAGE);
	assert_int_equal(elsewhere.n_done, 1);
	start(f, &w, 2 * PAGE, PAGE);
	start(f, &all, 0, UINT64_MAX);
	dma_view_enter(f->t, &r);
	dma_pin(f->t, &r, &late, 2 * PAGE, PAGE); /* younger than the wait: does not starve it */
	dma_view_leave(f->t, &r);
	assert_still_waiting(f, &w);
	dma_unpin(f->t, &r, &in);
	finish(f, &w);
	assert_still_waiting(f, &all);
	dma_unpin(f->t, NULL, &out);
	finish(f, &all);
	dma_unpin(f->t, &r, &late);
	dma_reader_remove(f->t, &r);
}

static void a_pin_of_the_last_byte_counts(void **state)
{
	struct fixture *f = *state;
	struct dma_pin pin;
	struct wait w;

	dma_pin(f->t, NULL, &pin, UINT64_MAX, 1);
	start(f, &w, 0, UINT64_MAX);
	assert_still_waiting(f, &w);
	dma_unpin(f->t, NULL, &pin);
	finish(f, &w);
}

static void pins_keep_the_memory_of_an_unmapped_file(void **state)
{
	struct fixture *f = *state;
	struct dma_pin pin;
	struct dma_seg seg;
	struct wait w;

	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, 8, RW, &seg, 1), 1);
	dma_pin(f->t, NULL, &pin, 0, 8);
	dma_unmap_all_now(f->t);
	start(f, &w, 0, UINT64_MAX);
	assert_still_waiting(f, &w);
	assert_int_equal(*(uint64_t *)seg.hva, dma_word(0, 0));
	dma_unpin(f->t, NULL, &pin);
	finish(f, &w);
}

static void several_waits_end_one_after_the_other(void **state)
{
	struct fixture *f = *state;
	struct wait w[5], cancelled;
	struct dma_pin pin;

	dma_pin(f->t, NULL, &pin, 0, PAGE);
	for (unsigned i = 0; i < 5; i++)
		start(f, &w[i], 0, PAGE);
	start(f, &cancelled, 0, PAGE);
	dma_quiesce_cancel(&cancelled.q);
	dma_unpin(f->t, NULL, &pin);
	for (unsigned i = 0; i < 5; i++)
		finish(f, &w[i]);
	assert_int_equal(cancelled.n_done, 0);
}

static void a_wait_ends_at_its_deadline_as_a_failure(void **state)
{
	struct fixture *f = *state;
	struct dma_pin pin;
	struct wait w;
	uint64_t before = loop_now_ns();

	dma_pin(f->t, NULL, &pin, 0, PAGE);
	start(f, &w, 0, PAGE);
	finish(f, &w);
	assert_int_equal(w.status, -ETIMEDOUT);
	assert_true(loop_now_ns() - before >= DMA_QUIESCE_MS * 1000000ULL);
	dma_unpin(f->t, NULL, &pin);
}

/* The owner may end everything inside the completion. */
struct owner {
	struct dma_quiesce q;
	struct fixture *f;
};

static void free_table(struct dma_quiesce *q, int status)
{
	struct owner *owner = container_of(q, struct owner, q);

	assert_int_equal(status, 0);
	dma_table_free(owner->f->t);
	owner->f->t = NULL;
	loop_stop(&owner->f->loop, 0);
}

static void the_table_may_go_in_the_completion(void **state)
{
	struct fixture *f = *state;
	struct dma_record none = { .op = DMA_OP_NONE };
	struct owner owner = { .f = f };
	struct dma_pin pin;

	dma_pin(f->t, NULL, &pin, 0, PAGE);
	dma_quiesce(f->t, &f->loop, &owner.q, 0, UINT64_MAX, free_table);
	dma_unpin(f->t, NULL, &pin);
	assert_int_equal(loop_run(&f->loop), 0);
	assert_null(f->t);
	assert_int_equal(dma_table_new(f->shared, true, &f->t), 0);
	assert_int_equal(dma_apply(f->t, &none), 0);
}

/* ---- threads ---- */

#define POISON 0xdeadULL
#define ROUNDS 3000

struct thread {
	struct dma_table *t;
	struct dma_reader reader;
	pthread_t id;
	bool stop; /* atomic */
	bool pins;
	uint64_t n_hits;
};

/* Whatever a view resolves must not be reused while the view, or a pin taken from it, is held. */
static void *read_all_the_time(void *arg)
{
	struct thread *me = arg;

	while (!__atomic_load_n(&me->stop, __ATOMIC_RELAXED)) {
		const struct dma_view *v = dma_view_enter(me->t, &me->reader);
		struct dma_seg seg;
		struct dma_pin pin;
		bool hit = dma_view_resolve(v, (struct iova){ 0 }, 8, DMA_READ, &seg, 1) == 1;

		if (hit && me->pins) {
			dma_pin(me->t, &me->reader, &pin, 0, 8);
			dma_view_leave(me->t, &me->reader);
		}
		for (unsigned i = 0; hit && i < 50; i++)
			assert(__atomic_load_n((uint64_t *)seg.hva, __ATOMIC_RELAXED) != POISON);
		me->n_hits += hit;
		if (hit && me->pins)
			dma_unpin(me->t, &me->reader, &pin);
		else
			dma_view_leave(me->t, &me->reader);
		if (!hit)
			sched_yield();
	}
	return NULL;
}

static void nothing_is_reused_under_a_reader(void **state)
{
	struct fixture *f = *state;
	struct thread thread[2] = { { .t = f->t }, { .t = f->t, .pins = true } };
	uint64_t value = 1, poison = POISON, round = 0;

	dma_unmap_all_now(f->t);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(dma_reader_add(f->t, &thread[i].reader), 0);
		assert_int_equal(pthread_create(&thread[i].id, NULL, read_all_the_time, &thread[i]),
				 0);
	}
	/* One page is given and taken back, and is ours alone in between. */
	for (; round < ROUNDS; round++) {
		struct wait w;

		assert_int_equal(pwrite(f->fd, &value, 8, 0), 8);
		assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, f->fd, 0), 0);
		if (round % 64 == 0)
			usleep(100);
		assert_int_equal(dma_unmap_now(f->t, 0, PAGE), 0);
		start(f, &w, 0, PAGE);
		finish(f, &w);
		assert_int_equal(w.status, 0);
		assert_int_equal(pwrite(f->fd, &poison, 8, 0), 8);
	}
	for (unsigned i = 0; i < 2; i++) {
		__atomic_store_n(&thread[i].stop, true, __ATOMIC_RELAXED);
		pthread_join(thread[i].id, NULL);
		assert_true(thread[i].n_hits > 0);
		dma_reader_remove(f->t, &thread[i].reader);
	}
}

static void views_follow_many_changes(void **state)
{
	struct fixture *f = *state;
	struct dma_reader r;

	dma_unmap_all_now(f->t);
	assert_int_equal(dma_reader_add(f->t, &r), 0);
	for (uint64_t i = 0; i < 4000; i++) {
		uint64_t at = (i * 2654435761u & 4095) * PAGE,
			 at_then = ((i - 1500) * 2654435761u & 4095) * PAGE;
		const struct dma_view *old = dma_view_enter(f->t, &r);
		struct dma_seg seg;

		assert_int_equal(dma_map_now(f->t, at, PAGE, RW, f->fd, i % 64 * PAGE), 0);
		assert_int_equal(dma_view_resolve(old, (struct iova){ at }, 8, RW, &seg, 1),
				 -EFAULT);
		if (i >= 1500) {
			assert_int_equal(dma_unmap_now(f->t, at_then, PAGE), 0);
			assert_int_equal(
				dma_view_resolve(old, (struct iova){ at_then }, 8, RW, &seg, 1), 1);
		}
		dma_view_leave(f->t, &r);
		if (i % 500 == 0)
			dma_check_table(f->t);
	}
	dma_check_table(f->t);
	dma_reader_remove(f->t, &r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* ---- windows ---- */

#define BAR 0x100000
static uint8_t memory[2 * PAGE];

/* A map without a file over what the windows show and more. */
static void map_bar(struct fixture *f)
{
	assert_int_equal(dma_map_now(f->t, BAR, 4 * PAGE, RW, -1, 0), 0);
}

static int resolve_at(const struct dma_view *v, uint64_t iova, size_t len, struct dma_seg *ret)
{
	return dma_view_resolve(v, (struct iova){ iova }, len, RW, ret, 4);
}

static void windows_show_where_a_map_has_no_file(void **state)
{
	const struct dma_window two[] = { { BAR + PAGE, PAGE, memory },
					  { BAR + 2 * PAGE, 100, memory + PAGE } };
	struct fixture *f = *state;
	struct dma_seg seg[4];
	struct iova at = { BAR + PAGE };
	uint64_t before = dma_generation(f->t);

	assert_int_equal(dma_resolve(f->t, at, 1, RW, seg, 4), -EFAULT);
	assert_int_equal(dma_set_windows(f->t, two, 2), 0);
	assert_true(dma_generation(f->t) > before);
	assert_int_equal(dma_resolve(f->t, at, 1, RW, seg, 4), -EFAULT);
	map_bar(f);
	assert_int_equal(dma_resolve(f->t, at, PAGE + 100, RW, seg, 4), 1);
	assert_ptr_equal(seg[0].hva, memory);
	assert_int_equal(seg[0].len, PAGE + 100);
	assert_int_equal(dma_resolve(f->t, at, PAGE + 101, RW, seg, 4), -EREMOTE);
	at.v = BAR + PAGE - 1;
	assert_int_equal(dma_resolve(f->t, at, 2, RW, seg, 4), -EREMOTE);
	assert_int_equal(dma_copy_to(f->t, (struct iova){ BAR + PAGE + 8 }, "here", 5), 0);
	assert_string_equal(memory + 8, "here");
	/* A file where a window is: the file has it. */
	assert_int_equal(dma_set_windows(f->t, &(struct dma_window){ 0, PAGE, memory }, 1), 0);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, PAGE, RW, seg, 4), 1);
	assert_ptr_not_equal(seg[0].hva, memory);
	assert_int_equal(dma_set_windows(f->t, NULL, 0), 0);
	assert_int_equal(dma_resolve(f->t, (struct iova){ BAR }, 1, RW, seg, 4), -EREMOTE);
}

static void windows_need_memory_at_its_own_address(void **state)
{
	const struct dma_window one = { BAR, PAGE, memory };
	struct fixture *f = *state;
	struct dma_seg seg[4];

	map_bar(f);
	assert_int_equal(dma_set_windows(f->t, &one, 1), 0);
	assert_true(dma_is_identity(f->t));
	assert_int_equal(dma_resolve(f->t, (struct iova){ BAR }, PAGE, RW, seg, 4), 1);
	assert_int_equal(dma_unmap_now(f->t, 0, PAGE), 0);
	assert_false(dma_is_identity(f->t));
	assert_int_equal(dma_resolve(f->t, (struct iova){ BAR }, PAGE, RW, seg, 4), -EREMOTE);
	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, f->fd, PAGE), 0);
	assert_false(dma_is_identity(f->t));
}

static void a_window_that_goes_is_waited_for(void **state)
{
	const struct dma_window one = { BAR, PAGE, memory };
	struct fixture *f = *state;
	const struct dma_view *v;
	struct dma_reader reader;
	struct dma_seg seg[4];
	struct wait w;

	map_bar(f);
	assert_int_equal(dma_reader_add(f->t, &reader), 0);
	assert_int_equal(dma_set_windows(f->t, &one, 1), 0);
	v = dma_view_enter(f->t, &reader);
	assert_int_equal(resolve_at(v, BAR, PAGE, seg), 1);
	assert_int_equal(dma_set_windows(f->t, NULL, 0), 0);
	assert_int_equal(resolve_at(v, BAR, PAGE, seg), 1);
	start(f, &w, BAR, PAGE);
	assert_still_waiting(f, &w);
	dma_view_leave(f->t, &reader);
	finish(f, &w);
	v = dma_view_enter(f->t, &reader);
	assert_int_equal(resolve_at(v, BAR, PAGE, seg), -EREMOTE);
	dma_view_leave(f->t, &reader);
	dma_reader_remove(f->t, &reader);
}

static void windows_beyond_the_table_are_left_out(void **state)
{
	static struct dma_window many[DMA_MAX_WINDOWS + 1];
	struct fixture *f = *state;
	struct dma_seg seg[4];

	assert_int_equal(dma_map_now(f->t, BAR, sizeof(many) / sizeof(many[0]) * PAGE, RW, -1, 0),
			 0);
	for (unsigned i = 0; i <= DMA_MAX_WINDOWS; i++)
		many[i] = (struct dma_window){ BAR + i * PAGE, PAGE, memory };
	assert_int_equal(dma_set_windows(f->t, many, DMA_MAX_WINDOWS + 1), 0);
	assert_int_equal(dma_resolve(f->t, (struct iova){ BAR + (DMA_MAX_WINDOWS - 1) * PAGE },
				     PAGE, RW, seg, 4),
			 1);
	assert_int_equal(dma_resolve(f->t, (struct iova){ BAR + DMA_MAX_WINDOWS * PAGE }, PAGE, RW,
				     seg, 4),
			 -EREMOTE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(windows_show_where_a_map_has_no_file, setup,
						teardown),
		cmocka_unit_test_setup_teardown(windows_need_memory_at_its_own_address, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_window_that_goes_is_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(windows_beyond_the_table_are_left_out, setup,
						teardown),
		TEST(with_nobody_there_it_is_quiet_at_once),
		TEST(a_reader_keeps_its_view_until_it_leaves),
		TEST(memory_stays_while_an_old_view_has_it),
		TEST(a_pin_in_the_range_holds_it_and_no_other_does),
		TEST(a_pin_of_the_last_byte_counts),
		TEST(pins_keep_the_memory_of_an_unmapped_file),
		TEST(several_waits_end_one_after_the_other),
		TEST(a_wait_ends_at_its_deadline_as_a_failure),
		TEST(the_table_may_go_in_the_completion),
		TEST(nothing_is_reused_under_a_reader),
		TEST(views_follow_many_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
