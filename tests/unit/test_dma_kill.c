/* SPDX-License-Identifier: MIT */
/*
 * A worker is stopped after every single instruction of dma_apply(). Wherever the shared state or
 * the descriptor table changed, a successor starts from what is there, applies the record again,
 * and must find what an undisturbed apply gives.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <cmocka.h>
#include "dma_check.h"

#define RW (DMA_READ | DMA_WRITE)
#define FD_A 60 /* descriptors whose closing is watched */
#define FD_B 61

/* Shared by the test, the life that is stepped and its successors. Only the first slots and files
 * are in use, so they are what is compared. */
struct scene {
	struct dma_record record;
	struct dma_shared shared;
};

struct watched {
	uint32_t n_slots;
	struct dma_file_slot files[4];
	struct dma_slot slots[8];
	bool a_open, b_open;
};

static struct watched watch(const struct scene *s)
{
	struct watched w = { .n_slots = s->shared.n_slots };

	memcpy(w.files, s->shared.files, sizeof(w.files));
	memcpy(w.slots, s->shared.slots, sizeof(w.slots));
	w.a_open = fcntl(FD_A, F_GETFD) >= 0;
	w.b_open = fcntl(FD_B, F_GETFD) >= 0;
	return w;
}

/* What is left of a state in the end: its maps in order of slots, its files. */
static bool same_end(const struct dma_table *t, unsigned n_maps, bool a_named, bool b_named)
{
	bool a = false, b = false;

	for (int i = 0; i < DMA_MAX_FILES; i++) {
		a |= t->shared->files[i].fd == FD_A;
		b |= t->shared->files[i].fd == FD_B;
	}
	return dma_n_maps(t) == n_maps && a == a_named && b == b_named;
}

struct expected {
	unsigned n_maps;
	bool a_named, b_named;
};

/* In a process of its own, with copies of the state and of the descriptors. */
static void succeed(const struct scene *s, const struct expected *expected)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct dma_shared *shared = dma_shared_new();
		struct dma_table *t;

		memcpy(shared, &s->shared, sizeof(*shared));
		if (dma_table_new(shared, true, &t) != 0)
			_exit(1);
		if (dma_apply(t, &s->record) != 0)
			_exit(2);
		dma_check_table(t);
		if (!same_end(t, expected->n_maps, expected->a_named, expected->b_named))
			_exit(3);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A life that applies the record, one instruction at a time. Its descriptors are ours. */
static void step_through(struct scene *s, struct dma_table *t, const struct expected *expected)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);
	struct watched before = watch(s), now;
	unsigned n_steps = 0, n_states = 0;
	int status;

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		dma_apply(t, &s->record);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	succeed(s, expected);
	while (WIFSTOPPED(status)) {
		now = watch(s);
		if (memcmp(&now, &before, sizeof(now))) {
			succeed(s, expected);
			n_states++;
			before = now;
		}
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(++n_steps < 200000);
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	print_message("info: %u instructions, %u states\n", n_steps, n_states);
	assert_true(n_states >= 2);
	succeed(s, expected);
}

static struct scene *scene_new(struct dma_table **t)
{
	struct scene *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			       -1, 0);

	assert_true(s != MAP_FAILED);
	assert_int_equal(dma_table_new(&s->shared, false, t), 0);
	return s;
}

/* Maps page `at` of a new file with its descriptor at `fd`. */
static void map_file(struct dma_table *t, uint64_t at, int fd)
{
	int made = dma_memfd(0, 4);
	struct dma_record record;

	assert_int_equal(dup3(made, fd, O_CLOEXEC), fd);
	close(made);
	assert_int_equal(dma_prepare_map(t, at * PAGE, PAGE, RW, fd, 0, &record), 0);
	assert_int_equal(dma_apply(t, &record), 0);
}

static void scene_free(struct scene *s, struct dma_table *t)
{
	dma_table_free(t);
	munmap(s, sizeof(*s));
	close(FD_A);
	close(FD_B);
}

static void a_map_of_a_new_file_survives_any_death(void **state)
{
	struct dma_table *t;
	struct scene *s = scene_new(&t);
	int made = dma_memfd(1, 4);

	map_file(t, 0, FD_A);
	assert_int_equal(dup3(made, FD_B, O_CLOEXEC), FD_B);
	close(made);
	assert_int_equal(dma_prepare_map(t, 5 * PAGE, PAGE, RW, FD_B, 0, &s->record), 0);
	step_through(s, t, &(struct expected){ 2, true, true });
	scene_free(s, t);
}

static void a_map_of_a_file_that_grew_survives_any_death(void **state)
{
	struct dma_table *t;
	struct scene *s = scene_new(&t);

	map_file(t, 0, FD_A);
	assert_int_equal(ftruncate(FD_A, 8 * PAGE), 0);
	assert_int_equal(dma_prepare_map(t, 5 * PAGE, PAGE, RW, FD_A, 7 * PAGE, &s->record), 0);
	step_through(s, t, &(struct expected){ 2, true, false });
	scene_free(s, t);
}

static void an_unmap_of_two_files_survives_any_death(void **state)
{
	struct dma_table *t;
	struct scene *s = scene_new(&t);

	map_file(t, 0, FD_A);
	map_file(t, 1, FD_B);
	assert_int_equal(dma_map_now(t, 2 * PAGE, PAGE, RW, FD_B, PAGE), 0);
	assert_int_equal(dma_map_now(t, 3 * PAGE, PAGE, RW, -1, 0), 0);
	assert_int_equal(dma_prepare_unmap(t, 0, 3 * PAGE, &s->record), 0);
	step_through(s, t, &(struct expected){ 1, false, false });
	scene_free(s, t);
}

static void unmapping_everything_survives_any_death(void **state)
{
	struct dma_table *t;
	struct scene *s = scene_new(&t);

	map_file(t, 0, FD_A);
	map_file(t, 1, FD_B);
	assert_int_equal(dma_map_now(t, 2 * PAGE, PAGE, RW, -1, 0), 0);
	assert_int_equal(dma_prepare_unmap_all(t, &s->record), 0);
	step_through(s, t, &(struct expected){ 0, false, false });
	scene_free(s, t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_map_of_a_new_file_survives_any_death),
		cmocka_unit_test(a_map_of_a_file_that_grew_survives_any_death),
		cmocka_unit_test(an_unmap_of_two_files_survives_any_death),
		cmocka_unit_test(unmapping_everything_survives_any_death),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
