/* SPDX-License-Identifier: MIT */
/*
 * The IOVA table without memory: what fails, fails before anything changed, and what was prepared
 * goes through. Linked with --wrap of the allocator and of mmap.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "dma_check.h"

#define RW (DMA_READ | DMA_WRITE)

static unsigned fail_at; /* this allocation from now fails; 0: none */
static bool fail_all;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset);

static bool fails(void)
{
	return fail_all || (fail_at && --fail_at == 0);
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (fails()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return __real_mmap64(addr, len, prot, flags, fd, offset);
}

/* 600 maps in several chunks, which a published view refers to. */
struct fixture {
	struct dma_shared *shared, *copy;
	struct dma_table *t;
	struct dma_reader reader;
	const struct dma_view *view; /* entered at the start and held */
	int fd, other;
	int fresh; /* not mapped yet; the table's when it is */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->shared = dma_shared_new();
	f->copy = dma_shared_new();
	f->fd = dma_memfd(0, 4);
	f->other = dma_memfd(1, 4);
	f->fresh = -1;
	assert_int_equal(dma_table_new(f->shared, false, &f->t), 0);
	for (uint64_t i = 0; i < 600; i++)
		assert_int_equal(dma_map_now(f->t, 2 * i * PAGE, PAGE, RW, f->fd, 0), 0);
	assert_int_equal(dma_map_now(f->t, 700 * 2 * PAGE, PAGE, RW, f->other, 0), 0);
	assert_int_equal(dma_reader_add(f->t, &f->reader), 0);
	f->view = dma_view_enter(f->t, &f->reader);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	dma_check_table(f->t);
	dma_view_leave(f->t, &f->reader);
	dma_reader_remove(f->t, &f->reader);
	dma_unmap_all_now(f->t);
	dma_table_free(f->t);
	close(f->fd);
	close(f->other);
	free(f->shared);
	free(f->copy);
	free(f);
	return 0;
}

static int map_new_file(struct fixture *f, struct dma_record *record)
{
	if (f->fresh < 0)
		f->fresh = dma_memfd(2, 1);
	return dma_prepare_map(f->t, PAGE, PAGE, RW, f->fresh, 0, record);
}

static int map_grown_file(struct fixture *f, struct dma_record *record)
{
	assert_int_equal(ftruncate(f->other, 8 * PAGE), 0);
	return dma_prepare_map(f->t, PAGE, PAGE, RW, f->other, 7 * PAGE, record);
}

/* Into the middle of a full chunk that the view has. */
static int map_into_full_chunk(struct fixture *f, struct dma_record *record)
{
	return dma_prepare_map(f->t, 101 * PAGE, PAGE, RW, f->fd, 0, record);
}

static int unmap_one(struct fixture *f, struct dma_record *record)
{
	return dma_prepare_unmap(f->t, 2 * PAGE, PAGE, record);
}

static int unmap_all(struct fixture *f, struct dma_record *record)
{
	return dma_prepare_unmap_all(f->t, record);
}

typedef int prepare_fn(struct fixture *f, struct dma_record *record);

/* Fails at each allocation in turn, changing nothing; then works without any more memory. The
 * record's descriptor, if any, is the table's from then on. Returns how often it failed. */
static unsigned without_memory(struct fixture *f, prepare_fn *prepare)
{
	uint64_t generation = dma_generation(f->t);
	uint32_t n_maps = dma_n_maps(f->t);
	struct dma_record record;
	unsigned n = 0;
	int r;

	memcpy(f->copy, f->shared, sizeof(*f->copy));
	do {
		fail_at = ++n;
		r = prepare(f, &record);
		fail_at = 0;
		assert_true(r == 0 || r == -ENOMEM);
		assert_int_equal(dma_generation(f->t), generation);
		assert_int_equal(dma_n_maps(f->t), n_maps);
		assert_memory_equal(f->copy, f->shared, sizeof(*f->copy));
		dma_check_table(f->t);
	} while (r < 0);
	fail_all = true;
	r = dma_apply(f->t, &record);
	fail_all = false;
	assert_int_equal(r, 0);
	assert_true(dma_n_maps(f->t) != n_maps);
	dma_check_table(f->t);
	return n - 1;
}

/* The view that is held sees nothing of it. */
static void assert_view_is_old(struct fixture *f)
{
	struct dma_seg seg;

	for (uint64_t i = 0; i < 600; i++) {
		assert_int_equal(dma_view_resolve(f->view, (struct iova){ 2 * i * PAGE }, PAGE, RW,
						  &seg, 1),
				 1);
		assert_int_equal(dma_view_resolve(f->view, (struct iova){ (2 * i + 1) * PAGE }, 1,
						  DMA_READ, &seg, 1),
				 -EFAULT);
	}
}

static void a_map_of_a_new_file(void **state)
{
	assert_true(without_memory(*state, map_new_file) >= 2);
	assert_view_is_old(*state);
}

static void a_map_of_a_grown_file(void **state)
{
	assert_true(without_memory(*state, map_grown_file) >= 2);
	assert_view_is_old(*state);
}

static void a_map_that_splits_a_chunk(void **state)
{
	/* The first uses what was put aside before, so that the second must put aside anew. */
	without_memory(*state, map_into_full_chunk);
	assert_true(without_memory(*state, map_new_file) >= 3);
	assert_view_is_old(*state);
}

static void an_unmap(void **state)
{
	without_memory(*state, map_into_full_chunk);
	assert_true(without_memory(*state, unmap_one) >= 2);
	assert_view_is_old(*state);
}

static void an_unmap_of_everything(void **state)
{
	without_memory(*state, map_into_full_chunk);
	assert_true(without_memory(*state, unmap_all) >= 1);
	assert_view_is_old(*state);
}

static void another_reader(void **state)
{
	struct fixture *f = *state;
	struct dma_reader reader;
	unsigned n = 0;
	int r;

	dma_view_leave(f->t, &f->reader);
	dma_reader_remove(f->t, &f->reader);
	do {
		fail_at = ++n;
		r = dma_reader_add(f->t, &reader);
		fail_at = 0;
		assert_true(r == 0 || r == -ENOMEM);
	} while (r < 0);
	assert_true(n > 1);
	dma_reader_remove(f->t, &reader);
	assert_int_equal(dma_reader_add(f->t, &f->reader), 0);
	f->view = dma_view_enter(f->t, &f->reader);
}

static void a_table_that_is_rebuilt(void **state)
{
	struct fixture *f = *state;
	struct dma_record none = { .op = DMA_OP_NONE };
	struct dma_table *t;
	unsigned n = 0;
	uint64_t word;
	int r;

	memcpy(f->copy, f->shared, sizeof(*f->copy));
	do {
		fail_at = ++n;
		r = dma_table_new(f->copy, true, &t);
		fail_at = 0;
		assert_true(r == 0 || r == -ENOMEM);
		assert_memory_equal(f->copy, f->shared, sizeof(*f->copy));
		if (r == 0 && t->files[0].mapping && t->files[1].mapping)
			break;
		/* A file that could not be mapped: its maps are there and fault. */
		if (r == 0) {
			bool first = t->files[0].mapping;

			assert_int_equal(dma_n_maps(t), 601);
			assert_int_equal(dma_apply(t, &none), 0);
			assert_int_equal(dma_copy_from(t, (struct iova){ 0 }, &word, 8),
					 first ? 0 : -EFAULT);
			assert_int_equal(dma_copy_from(t, (struct iova){ 1400 * PAGE }, &word, 8),
					 first ? -EFAULT : 0);
			dma_table_free(t);
		}
	} while (true);
	assert_true(n > 8);
	assert_int_equal(dma_apply(t, &none), 0);
	dma_check_table(t);
	dma_table_free(t);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_map_of_a_new_file),       TEST(a_map_of_a_grown_file),
		TEST(a_map_that_splits_a_chunk), TEST(an_unmap),
		TEST(an_unmap_of_everything),    TEST(another_reader),
		TEST(a_table_that_is_rebuilt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
