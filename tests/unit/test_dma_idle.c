/* SPDX-License-Identifier: MIT */
/* The file that stays open and mapped for a moment when its last map went. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/resource.h>
#include "dma_check.h"

#define RW (DMA_READ | DMA_WRITE)

struct fixture {
	struct dma_shared *shared;
	struct dma_table *t;
	struct loop loop;
	int fd[2]; /* files of 16 pages */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->shared = dma_shared_new();
	f->loop = (struct loop)LOOP_INIT;
	f->fd[0] = dma_memfd(0, 16);
	f->fd[1] = dma_memfd(1, 16);
	assert_int_equal(loop_init(&f->loop), 0);
	assert_int_equal(dma_table_new(f->shared, false, &f->t), 0);
	dma_keep_idle(f->t, &f->loop);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	dma_check_table(f->t);
	dma_unmap_all_now(f->t);
	assert_int_equal(f->t->mapped.used, 0);
	dma_table_free(f->t);
	loop_fini(&f->loop);
	close(f->fd[0]);
	close(f->fd[1]);
	free(f->shared);
	free(f);
	return 0;
}

static void *address(struct fixture *f, uint64_t iova)
{
	struct dma_seg seg;

	assert_int_equal(dma_resolve(f->t, (struct iova){ iova }, 1, DMA_READ, &seg, 1), 1);
	return seg.hva;
}

static unsigned open_files(const struct fixture *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DMA_MAX_FILES; i++)
		n += f->shared->files[i].fd >= 0;
	return n;
}

static void map(struct fixture *f, unsigned file)
{
	assert_int_equal(dma_map_now(f->t, file * 16 * PAGE, PAGE, RW, f->fd[file], 0), 0);
}

static void unmap(struct fixture *f, unsigned file)
{
	assert_int_equal(dma_unmap_now(f->t, file * 16 * PAGE, PAGE), 0);
}

static void a_file_that_comes_back_keeps_its_mapping(void **state)
{
	struct fixture *f = *state;
	void *before;

	map(f, 0);
	before = address(f, 0);
	for (unsigned i = 0; i < 3; i++) {
		unmap(f, 0);
		dma_check_table(f->t);
		/* It is kept, and no address leads to it. */
		assert_int_equal(open_files(f), 1);
		assert_int_equal(dma_check(f->t, (struct iova){ 0 }, 1, DMA_READ), -EFAULT);
		map(f, 0);
		assert_ptr_equal(address(f, 0), before);
	}
}

static void only_the_latest_is_kept(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		map(f, 0);
		unmap(f, 0);
		map(f, 1);
		assert_int_equal(open_files(f), 2);
		unmap(f, 1);
		assert_int_equal(open_files(f), 1);
		assert_int_equal(f->t->mapped.used, 16 * PAGE);
	}
}

static void stop(struct loop_timer *timer)
{
	loop_stop(timer->loop, 0);
}

static void it_goes_after_a_moment(void **state)
{
	struct fixture *f = *state;
	struct loop_timer later = { 0 };

	map(f, 0);
	unmap(f, 0);
	loop_timer_arm(&f->loop, &later, (DMA_IDLE_MS + 1) * 1000000ULL, stop);
	assert_int_equal(loop_run(&f->loop), 0);
	assert_int_equal(open_files(f), 0);
	assert_int_equal(f->t->mapped.used, 0);
	/* Mapped again in time, it stays. */
	map(f, 0);
	unmap(f, 0);
	map(f, 0);
	loop_timer_arm(&f->loop, &later, (DMA_IDLE_MS + 1) * 1000000ULL, stop);
	assert_int_equal(loop_run(&f->loop), 0);
	assert_int_equal(open_files(f), 1);
}

static void it_goes_with_an_unmap_of_everything(void **state)
{
	struct fixture *f = *state;

	map(f, 0);
	unmap(f, 0);
	dma_unmap_all_now(f->t);
	assert_int_equal(open_files(f), 0);
	map(f, 0);
	dma_unmap_all_now(f->t);
	assert_int_equal(open_files(f), 0);
}

static void a_successor_does_not_have_it(void **state)
{
	struct fixture *f = *state;
	struct dma_record none = { .op = DMA_OP_NONE };

	map(f, 0);
	unmap(f, 0);
	dma_table_free(f->t);
	assert_int_equal(dma_table_new(f->shared, true, &f->t), 0);
	assert_int_equal(dma_apply(f->t, &none), 0);
	assert_int_equal(open_files(f), 0);
}

/* Its place is free, but not for what follows in the same breath. */
static void it_makes_room_for_other_files(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit = { 4096, 4096 };
	int fd;

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		skip();
	for (unsigned i = 0; i < DMA_MAX_FILES; i++) {
		fd = dma_memfd(i, 1);
		assert_int_equal(dma_map_now(f->t, i * PAGE, PAGE, RW, fd, 0), 0);
		close(fd);
	}
	assert_int_equal(dma_unmap_now(f->t, 7 * PAGE, PAGE), 0);
	assert_int_equal(open_files(f), DMA_MAX_FILES);
	assert_int_equal(dma_map_now(f->t, 7 * PAGE, PAGE, RW, f->fd[1], 0), 0);
	assert_int_equal(open_files(f), DMA_MAX_FILES);
}

static void it_makes_room_for_other_bytes(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ftruncate(f->fd[i], DMA_MAX_MAPPED), 0);
	map(f, 0);
	unmap(f, 0);
	map(f, 1);
	assert_int_equal(open_files(f), 1);
	assert_int_equal(f->t->mapped.used, DMA_MAX_MAPPED);
}

/* It shrank and grew while it was idle: what is asked for is judged anew. */
static void a_file_that_was_cut_off_meanwhile_is_refused(void **state)
{
	struct fixture *f = *state;

	map(f, 0);
	unmap(f, 0);
	assert_int_equal(ftruncate(f->fd[0], 0), 0);
	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, f->fd[0], 0), -EOVERFLOW);
	assert_int_equal(ftruncate(f->fd[0], 32 * PAGE), 0);
	assert_int_equal(dma_map_now(f->t, 0, 32 * PAGE, RW, f->fd[0], 0), 0);
	assert_int_equal(*(char *)address(f, 31 * PAGE), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_that_comes_back_keeps_its_mapping),
		TEST(only_the_latest_is_kept),
		TEST(it_goes_after_a_moment),
		TEST(it_goes_with_an_unmap_of_everything),
		TEST(a_successor_does_not_have_it),
		TEST(it_makes_room_for_other_files),
		TEST(it_makes_room_for_other_bytes),
		TEST(a_file_that_was_cut_off_meanwhile_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
