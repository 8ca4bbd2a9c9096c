/* SPDX-License-Identifier: MIT */
/* The IOVA table: what it accepts, what it refuses, and that it agrees with a naive model. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <cmocka.h>
#include "dma_check.h"

#define RW (DMA_READ | DMA_WRITE)

struct fixture {
	struct dma_shared *shared;
	struct dma_table *t;
	int fd; /* 16 pages, file 0 */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->shared = dma_shared_new();
	f->fd = dma_memfd(0, 16);
	assert_int_equal(dma_table_new(f->shared, false, &f->t), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	dma_check_table(f->t);
	dma_unmap_all_now(f->t);
	dma_check_table(f->t);
	dma_table_free(f->t);
	close(f->fd);
	free(f->shared);
	free(f);
	return 0;
}

/* Another life: everything private is forgotten. */
static struct dma_table *reborn(struct dma_table *t, struct dma_shared *shared)
{
	struct dma_record none = { .op = DMA_OP_NONE };
	struct loop *loop = t->idle_loop;

	dma_table_free(t);
	assert_int_equal(dma_table_new(shared, true, &t), 0);
	dma_keep_idle(t, loop);
	assert_int_equal(dma_apply(t, &none), 0);
	return t;
}

static uint64_t read_word(struct dma_table *t, uint64_t iova)
{
	uint64_t v;

	assert_int_equal(dma_copy_from(t, (struct iova){ iova }, &v, sizeof(v)), 0);
	return v;
}

static void maps_are_refused_with_the_reason(void **state)
{
	struct fixture *f = *state;
	int ro = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), null = open("/dev/null", O_RDWR);
	int path = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	static const struct {
		uint64_t iova, size;
		unsigned prot;
		uint64_t offset;
		int error;
	} row[] = {
		{ 0, 0, RW, 0, -EINVAL },
		{ 1, PAGE, RW, 0, -EINVAL },
		{ 0, PAGE + 512, RW, 0, -EINVAL },
		{ 0, PAGE, RW, 8, -EINVAL },
		{ 0, PAGE, 0, 0, -EINVAL },
		{ 0, PAGE, 4 | RW, 0, -EINVAL },
		{ -PAGE, 2 * PAGE, RW, 0, -EINVAL },
		{ PAGE, -PAGE + PAGE, RW, 0, -EINVAL },
		{ 32 * PAGE, 17 * PAGE, RW, 0, -EOVERFLOW },
		{ 0, PAGE, RW, 16 * PAGE, -EOVERFLOW },
		{ 0, 2 * PAGE, RW, -PAGE, -EOVERFLOW },
		{ 4 * PAGE, PAGE, RW, 0, -EEXIST },
		{ 5 * PAGE, PAGE, RW, 0, -EEXIST },
		{ 3 * PAGE, 2 * PAGE, RW, 0, -EEXIST },
		{ 3 * PAGE, 9 * PAGE, RW, 0, -EEXIST },
		{ 7 * PAGE, PAGE, RW, 0, -EEXIST },
		{ 4 * PAGE, 4 * PAGE, RW, 0, -EEXIST },
	};

	assert_int_equal(dma_map_now(f->t, 4 * PAGE, 4 * PAGE, RW, f->fd, 0), 0);
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		assert_int_equal(dma_map_now(f->t, row[i].iova, row[i].size, row[i].prot, f->fd,
					     row[i].offset),
				 row[i].error);
	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, ro, 0), -EACCES);
	assert_int_equal(dma_map_now(f->t, 0, PAGE, DMA_READ, ro, 0), 0);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, RW, null, 0), -ENOTSUP);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, DMA_READ, path, 0), -EBADF);
	close(ro);
	close(null);
	close(path);
	assert_int_equal(dma_n_maps(f->t), 2);
}

static void a_descriptor_that_is_closed_or_write_only_is_refused(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/umdev-dma-XXXXXX";
	struct dma_record record;
	int fd = mkstemp(path), wo = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(ftruncate(fd, PAGE), 0);
	unlink(path);
	assert_int_equal(dma_map_now(f->t, 0, PAGE, DMA_WRITE, wo, 0), -EACCES);
	close(wo);
	close(fd);
	assert_int_equal(dma_prepare_map(f->t, 0, PAGE, RW, fd, 0, &record), -EBADF);
}

static void the_last_page_of_the_address_space_can_be_mapped(void **state)
{
	struct fixture *f = *state;
	struct dma_seg seg;

	assert_int_equal(dma_map_now(f->t, -PAGE, PAGE, RW, f->fd, 3 * PAGE), 0);
	assert_int_equal(read_word(f->t, -8), dma_word(0, 4 * PAGE - 8));
	assert_int_equal(dma_resolve(f->t, (struct iova){ -PAGE }, PAGE, RW, &seg, 1), 1);
	assert_int_equal(dma_resolve(f->t, (struct iova){ -8 }, 9, RW, &seg, 1), -EFAULT);
	assert_int_equal(dma_unmap_now(f->t, -PAGE, PAGE), 0);
}

static void unmap_takes_whole_maps_without_holes(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(dma_map_now(f->t, 2 * i * PAGE, 2 * PAGE, RW, f->fd, 0), 0);
	assert_int_equal(dma_map_now(f->t, 10 * PAGE, PAGE, RW, -1, 0), 0);
	assert_int_equal(dma_unmap_now(f->t, 0, PAGE), -ENOENT);
	assert_int_equal(dma_unmap_now(f->t, PAGE, PAGE), -ENOENT);
	assert_int_equal(dma_unmap_now(f->t, 0, 3 * PAGE), -ENOENT);
	assert_int_equal(dma_unmap_now(f->t, 0, 11 * PAGE), -ENOENT);
	assert_int_equal(dma_unmap_now(f->t, 0, 0), -ENOENT);
	assert_int_equal(dma_unmap_now(f->t, 4 * PAGE, -PAGE), -ENOENT);
	assert_int_equal(dma_n_maps(f->t), 5);
	assert_int_equal(dma_unmap_now(f->t, 2 * PAGE, 4 * PAGE), 0);
	assert_int_equal(dma_n_maps(f->t), 3);
	assert_int_equal(dma_unmap_now(f->t, 10 * PAGE, PAGE), 0);
}

static void one_file_is_mapped_once_whatever_comes_of_it(void **state)
{
	struct fixture *f = *state;
	struct dma_seg seg[2];
	int other = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);

	assert_int_equal(dma_map_now(f->t, 0, 4 * PAGE, RW, f->fd, 0), 0);
	assert_int_equal(dma_map_now(f->t, 4 * PAGE, 4 * PAGE, DMA_READ, other, 4 * PAGE), 0);
	close(other);
	/* Adjacent in one mapping, so one segment. */
	assert_int_equal(dma_resolve(f->t, (struct iova){ 8 }, 8 * PAGE - 8, DMA_READ, seg, 1), 1);
	assert_int_equal(seg[0].len, 8 * PAGE - 8);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, 8 * PAGE, RW, seg, 2), -EFAULT);
	assert_int_equal(f->shared->files[1].fd, -1);
}

static void writing_obeys_the_map_and_not_the_file(void **state)
{
	struct fixture *f = *state;
	uint64_t v = 42;

	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, f->fd, 0), 0);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, DMA_READ, f->fd, PAGE), 0);
	assert_int_equal(dma_map_now(f->t, 2 * PAGE, PAGE, DMA_WRITE, f->fd, 2 * PAGE), 0);
	assert_int_equal(dma_copy_to(f->t, (struct iova){ PAGE }, &v, 8), -EFAULT);
	assert_int_equal(dma_copy_to(f->t, (struct iova){ PAGE - 4 }, &v, 8), -EFAULT);
	assert_int_equal(read_word(f->t, PAGE - 8), dma_word(0, PAGE - 8));
	assert_int_equal(dma_copy_from(f->t, (struct iova){ 2 * PAGE }, &v, 8), -EFAULT);
	assert_int_equal(dma_copy_to(f->t, (struct iova){ 2 * PAGE }, &v, 8), 0);
	assert_int_equal(dma_copy_to(f->t, (struct iova){ 16 }, &v, 8), 0);
	assert_int_equal(read_word(f->t, 16), 42);
}

static void a_map_without_a_file_asks_for_messages(void **state)
{
	struct fixture *f = *state;
	struct dma_seg seg[4];
	uint64_t v;

	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, f->fd, 0), 0);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, DMA_READ, -1, 12345), 0);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, PAGE + 1, DMA_READ, seg, 4),
			 -EREMOTE);
	assert_int_equal(dma_check(f->t, (struct iova){ PAGE }, 1, DMA_READ), -EREMOTE);
	assert_int_equal(dma_check(f->t, (struct iova){ PAGE }, 1, DMA_WRITE), -EFAULT);
	assert_int_equal(dma_copy_from(f->t, (struct iova){ PAGE - 4 }, &v, 8), -EREMOTE);
	assert_int_equal(dma_check(f->t, (struct iova){ 2 * PAGE }, 0, RW), 0);
	assert_int_equal(dma_check(f->t, (struct iova){ 2 * PAGE }, 1, RW), -EFAULT);
}

static void too_many_segments_are_counted_before_they_are_written(void **state)
{
	struct fixture *f = *state;
	struct dma_seg seg[3] = { { 0 } };

	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(dma_map_now(f->t, i * PAGE, PAGE, RW, f->fd,
					     2 * (8 - i) * PAGE - 2 * PAGE),
				 0);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, 3 * PAGE, RW, seg, 2), -E2BIG);
	assert_null(seg[2].hva);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, 3 * PAGE, RW, seg, 3), 3);
	assert_int_equal(*(uint64_t *)seg[2].hva, dma_word(0, 10 * PAGE));
}

static void a_file_that_grew_keeps_its_old_addresses(void **state)
{
	struct fixture *f = *state;
	struct dma_seg before, after;
	uint64_t v = 7;

	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, f->fd, 0), 0);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, PAGE, RW, &before, 1), 1);
	assert_int_equal(ftruncate(f->fd, 64 * PAGE), 0);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, RW, f->fd, 63 * PAGE), 0);
	assert_int_equal(f->shared->files[0].size, 64 * PAGE);
	assert_int_equal(f->shared->files[1].fd, -1);
	assert_int_equal(dma_resolve(f->t, (struct iova){ 0 }, PAGE, RW, &after, 1), 1);
	assert_ptr_equal(before.hva, after.hva);
	assert_int_equal(dma_copy_to(f->t, (struct iova){ PAGE }, &v, 8), 0);
	assert_int_equal(read_word(f->t, PAGE), 7);
	f->t = reborn(f->t, f->shared);
	assert_int_equal(read_word(f->t, PAGE), 7);
	assert_int_equal(dma_unmap_now(f->t, 0, PAGE), 0);
	assert_int_equal(read_word(f->t, PAGE), 7);
}

static void descriptors_are_closed_with_the_last_map(void **state)
{
	struct fixture *f = *state;
	struct dma_record record;
	int own = fcntl(f->fd, F_DUPFD_CLOEXEC, 100);

	assert_int_equal(dma_prepare_map(f->t, 0, PAGE, RW, own, 0, &record), 0);
	assert_int_equal(record.new_fd, own);
	assert_int_equal(dma_apply(f->t, &record), 0);
	assert_int_equal(dma_prepare_map(f->t, PAGE, PAGE, RW, f->fd, PAGE, &record), 0);
	assert_int_equal(record.new_fd, -1);
	assert_int_equal(dma_apply(f->t, &record), 0);
	assert_int_equal(dma_unmap_now(f->t, 0, PAGE), 0);
	assert_true(fcntl(own, F_GETFD) >= 0);
	assert_int_equal(dma_unmap_now(f->t, PAGE, PAGE), 0);
	assert_int_equal(fcntl(own, F_GETFD), -1);
}

static void a_prepared_change_that_is_not_committed_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t generation = dma_generation(f->t);
	struct dma_record record;

	assert_int_equal(dma_prepare_map(f->t, 0, PAGE, RW, f->fd, 0, &record), 0);
	assert_int_equal(dma_prepare_map(f->t, 0, PAGE, RW, f->fd, 0, &record), 0);
	assert_int_equal(dma_prepare_unmap(f->t, 0, PAGE, &record), -ENOENT);
	assert_int_equal(dma_generation(f->t), generation);
	assert_int_equal(dma_n_maps(f->t), 0);
	assert_int_equal(f->shared->n_slots, 0);
}

static void applying_twice_is_applying_once(void **state)
{
	struct fixture *f = *state;
	struct dma_record record;
	int own = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);

	assert_int_equal(dma_prepare_map(f->t, 0, PAGE, RW, own, 0, &record), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(dma_apply(f->t, &record), 0);
		assert_int_equal(dma_n_maps(f->t), 1);
		dma_check_table(f->t);
	}
	dma_table_free(f->t);
	assert_int_equal(dma_table_new(f->shared, true, &f->t), 0);
	assert_int_equal(dma_apply(f->t, &record), 0);
	assert_int_equal(dma_n_maps(f->t), 1);
	assert_int_equal(dma_prepare_unmap(f->t, 0, PAGE, &record), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(dma_apply(f->t, &record), 0);
		assert_int_equal(dma_n_maps(f->t), 0);
	}
	dma_table_free(f->t);
	assert_int_equal(dma_table_new(f->shared, true, &f->t), 0);
	assert_int_equal(dma_apply(f->t, &record), 0);
}

static void a_record_that_fits_no_state_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dma_record good, bad;
	int own = fcntl(f->fd, F_DUPFD_CLOEXEC, 0), other = dma_memfd(1, 1);

	assert_int_equal(dma_prepare_map(f->t, PAGE, PAGE, RW, own, PAGE, &good), 0);
#define REFUSED(change)                                            \
	do {                                                       \
		bad = good;                                        \
		change;                                            \
		assert_int_equal(dma_apply(f->t, &bad), -EUCLEAN); \
	} while (0)
	REFUSED(bad.op = 99);
	REFUSED(bad.slot = -1);
	REFUSED(bad.slot = DMA_MAX_MAPS);
	REFUSED(bad.file = DMA_MAX_FILES; bad.value.file = DMA_MAX_FILES);
	REFUSED(bad.file = -1);
	REFUSED(bad.value.kind = 7);
	REFUSED(bad.value.kind = DMA_MESSAGE);
	REFUSED(bad.value.size = 0);
	REFUSED(bad.value.size = -PAGE);
	REFUSED(bad.value.offset = 16 * PAGE);
	REFUSED(bad.value.prot = 8);
	REFUSED(bad.new_fd = -1);
	REFUSED(bad.new_fd = other);
	REFUSED(bad.file_value.writable = 0);
	REFUSED(bad.file_value.ino++);
	assert_int_equal(dma_apply(f->t, &good), 0);
	REFUSED(bad.value.iova += PAGE);
	REFUSED(bad.slot++);
#undef REFUSED
	assert_int_equal(dma_n_maps(f->t), 1);
	close(other);
}

static void a_truncated_file_fails_the_copy_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[2 * PAGE];
	pid_t pid;
	int status;

	assert_int_equal(dma_guard_init(), 0);
	assert_int_equal(dma_map_now(f->t, 0, 16 * PAGE, RW, f->fd, 0), 0);
	assert_int_equal(ftruncate(f->fd, PAGE), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(dma_copy_from(f->t, (struct iova){ 0 }, buf, sizeof(buf)),
				 -EFAULT);
		assert_int_equal(dma_copy_to(f->t, (struct iova){ PAGE }, buf, 1), -EFAULT);
		assert_int_equal(read_word(f->t, 8), dma_word(0, 8));
	}
	pid = fork();
	if (pid == 0) {
		struct dma_seg seg;

		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		dma_resolve(f->t, (struct iova){ PAGE }, 1, DMA_READ, &seg, 1);
		_exit(*(volatile uint8_t *)seg.hva);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	signal(SIGBUS, SIG_DFL);
}

/* ---- against a naive model ---- */

#define SPACE 192 /* pages of the model's address space */
#define N_FILES 4

struct model_map {
	unsigned start, n;
	unsigned prot;
	int file; /* -1: message */
	unsigned offset;
};

struct model {
	struct model_map map[SPACE];
	unsigned n;
	int at[SPACE]; /* index of the map at each page, or -1 */
	int fd[N_FILES];
	unsigned pages[N_FILES];
	bool writable[N_FILES];
	uint64_t base; /* address of page 0 */
	unsigned seed;
};

static unsigned pick(struct model *m, unsigned n)
{
	return (unsigned)rand_r(&m->seed) % n;
}

static void model_index(struct model *m)
{
	memset(m->at, -1, sizeof(m->at));
	for (unsigned i = 0; i < m->n; i++)
		for (unsigned p = 0; p < m->map[i].n; p++)
			m->at[m->map[i].start + p] = (int)i;
}

static int model_map(struct model *m, const struct model_map *map)
{
	for (unsigned p = 0; p < map->n; p++)
		if (m->at[map->start + p] >= 0)
			return -EEXIST;
	if (map->file >= 0 && (map->prot & DMA_WRITE) && !m->writable[map->file])
		return -EACCES;
	if (map->file >= 0 && map->offset + map->n > m->pages[map->file])
		return -EOVERFLOW;
	m->map[m->n++] = *map;
	model_index(m);
	return 0;
}

static int model_unmap(struct model *m, unsigned start, unsigned n)
{
	unsigned kept = 0;

	for (unsigned p = start; p < start + n; p++) {
		const struct model_map *map = m->at[p] < 0 ? NULL : &m->map[m->at[p]];

		if (!map || map->start < start || map->start + map->n > start + n)
			return -ENOENT;
	}
	for (unsigned i = 0; i < m->n; i++)
		if (m->map[i].start < start || m->map[i].start >= start + n)
			m->map[kept++] = m->map[i];
	m->n = kept;
	model_index(m);
	return 0;
}

/* What reading [at, at + len) gives. */
static int model_read(const struct model *m, unsigned at, unsigned len)
{
	for (unsigned p = at / PAGE; p <= (at + len - 1) / PAGE; p++) {
		const struct model_map *map = m->at[p] < 0 ? NULL : &m->map[m->at[p]];

		if (!map || !(map->prot & DMA_READ))
			return -EFAULT;
		if (map->file < 0)
			return -EREMOTE;
	}
	return 0;
}

static uint8_t model_byte(const struct model *m, unsigned at)
{
	const struct model_map *map = &m->map[m->at[at / PAGE]];
	uint64_t offset = (map->offset + at / PAGE - map->start) * PAGE + at % PAGE;
	uint64_t word = dma_word((unsigned)map->file, offset & ~7ULL);

	return (uint8_t)(word >> (offset % 8 * 8));
}

static void try_map(struct model *m, struct dma_table *t)
{
	struct model_map map = { .start = pick(m, SPACE), .prot = 1 + pick(m, 3) };

	map.n = 1 + pick(m, SPACE - map.start < 9 ? SPACE - map.start : 9);
	map.file = (int)pick(m, N_FILES + 1) - 1;
	map.offset = map.file < 0 ? 0 : pick(m, m->pages[map.file]);
	assert_int_equal(dma_map_now(t, m->base + map.start * PAGE, map.n * PAGE, map.prot,
				     map.file < 0 ? -1 : m->fd[map.file], map.offset * PAGE),
			 model_map(m, &map));
}

static void try_unmap(struct model *m, struct dma_table *t)
{
	unsigned start = pick(m, SPACE), n = 1 + pick(m, SPACE - start);

	if (m->n && pick(m, 4)) {
		const struct model_map *map = &m->map[pick(m, m->n)];

		start = map->start;
		n = map->n;
		/* Sometimes with what follows. */
		while (pick(m, 2) && start + n < SPACE && m->at[start + n] >= 0)
			n += m->map[m->at[start + n]].n;
	}
	assert_int_equal(dma_unmap_now(t, m->base + start * PAGE, n * PAGE),
			 model_unmap(m, start, n));
}

static void try_read(struct model *m, struct dma_table *t)
{
	unsigned at = pick(m, SPACE * PAGE), len = 1 + pick(m, 5 * PAGE);
	static uint8_t buf[5 * PAGE];
	int expected;

	if (len > SPACE * PAGE - at)
		len = SPACE * PAGE - at;
	expected = model_read(m, at, len);
	assert_int_equal(dma_copy_from(t, (struct iova){ m->base + at }, buf, len), expected);
	for (unsigned i = 0; expected == 0 && i < len; i += 1 + pick(m, 64))
		assert_int_equal(buf[i], model_byte(m, at + i));
}

/* Every page, by resolving. */
static void compare_all(struct model *m, struct dma_table *t)
{
	for (unsigned p = 0; p < SPACE; p++) {
		struct dma_seg seg;
		int r = dma_resolve(t, (struct iova){ m->base + p * PAGE }, PAGE, DMA_READ, &seg,
				    1);
		int expected = model_read(m, p * PAGE, PAGE);

		assert_int_equal(r, expected == 0 ? 1 : expected);
		if (r == 1)
			assert_int_equal(*(uint8_t *)seg.hva, model_byte(m, p * PAGE));
	}
}

static void forget_all(struct model *m, struct dma_table *t)
{
	dma_unmap_all_now(t);
	m->n = 0;
	model_index(m);
}

/* The same file by a descriptor that cannot write. Takes fd. */
static int read_only(int fd)
{
	char path[64];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ro >= 0);
	close(fd);
	return ro;
}

static void run_model(struct dma_table **t, struct dma_shared *shared, uint64_t base, unsigned seed)
{
	struct model m = { .base = base, .seed = seed };

	model_index(&m);
	for (unsigned i = 0; i < N_FILES; i++) {
		m.pages[i] = 4 + 9 * i;
		m.writable[i] = i != 2;
		m.fd[i] = dma_memfd(i, m.pages[i]);
		if (!m.writable[i])
			m.fd[i] = read_only(m.fd[i]);
	}
	for (unsigned i = 0; i < 20000; i++) {
		unsigned what = pick(&m, 100);

		if (what < 40)
			try_map(&m, *t);
		else if (what < 60)
			try_unmap(&m, *t);
		else if (what < 97)
			try_read(&m, *t);
		else if (what < 99)
			*t = reborn(*t, shared);
		else
			forget_all(&m, *t);
		assert_int_equal(dma_n_maps(*t), m.n);
		if (i % 64 == 0) {
			dma_check_table(*t);
			compare_all(&m, *t);
		}
	}
	dma_unmap_all_now(*t);
	for (unsigned i = 0; i < N_FILES; i++)
		close(m.fd[i]);
}

static void it_agrees_with_a_naive_model(void **state)
{
	struct fixture *f = *state;
	struct loop loop = LOOP_INIT;

	assert_int_equal(loop_init(&loop), 0);
	for (unsigned seed = 1; seed <= 3; seed++) {
		dma_keep_idle(f->t, seed == 2 ? NULL : &loop); /* which never runs */
		run_model(&f->t, f->shared, 0, seed);
		run_model(&f->t, f->shared, 0xc3000, seed + 100);
		run_model(&f->t, f->shared, -SPACE * PAGE, seed + 200);
	}
	dma_forget_idle(f->t);
	loop_fini(&loop);
}

/* ---- many ---- */

/* 0..n-1 in an order that looks random and visits each once: n a power of two, odd step. */
static uint64_t shuffled(uint64_t i, uint64_t n)
{
	return (i * 0x9e3779b1 + 12345) & (n - 1);
}

static void as_many_maps_as_clients_assume(void **state)
{
	struct fixture *f = *state;
	uint64_t n = 0;

	for (uint64_t i = 0; i < 65536; i++) {
		uint64_t at = 2 * shuffled(i, 65536) * PAGE;
		int r = dma_map_now(f->t, at, PAGE, RW, i % 3 ? f->fd : -1, i % 16 * PAGE);

		assert_int_equal(r, i < DMA_MAX_MAPS ? 0 : -ENOSPC);
	}
	dma_check_table(f->t);
	f->t = reborn(f->t, f->shared);
	dma_check_table(f->t);
	for (uint64_t i = 0; i < DMA_MAX_MAPS; i++) {
		uint64_t at = 2 * shuffled(i, 65536) * PAGE;

		if (i % 3)
			assert_int_equal(read_word(f->t, at), dma_word(0, i % 16 * PAGE));
		assert_int_equal(dma_check(f->t, (struct iova){ at + PAGE }, 1, DMA_READ), -EFAULT);
		assert_int_equal(dma_unmap_now(f->t, at, PAGE), 0);
		if (++n % 4096 == 0)
			dma_check_table(f->t);
	}
	assert_int_equal(dma_n_maps(f->t), 0);
}

/* A client that leaves one map of each neighbourhood must not make us keep a chunk for each. */
static void sparse_leftovers_do_not_pile_up(void **state)
{
	struct fixture *f = *state;

	for (uint64_t round = 0; round < 64; round++) {
		for (uint64_t i = 0; i < DMA_CHUNK; i++)
			assert_int_equal(dma_map_now(f->t, (round * DMA_CHUNK + i) * PAGE, PAGE, RW,
						     f->fd, 0),
					 0);
		assert_int_equal(
			dma_unmap_now(f->t, round * DMA_CHUNK * PAGE, (DMA_CHUNK - 1) * PAGE), 0);
	}
	dma_check_table(f->t);
	assert_int_equal(dma_n_maps(f->t), 64);
	assert_true(f->t->index->n <= 2);
}

static void more_files_than_we_hold_are_refused(void **state)
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
	fd = dma_memfd(0, 1);
	assert_int_equal(dma_map_now(f->t, DMA_MAX_FILES * PAGE, PAGE, RW, fd, 0), -ENOSPC);
	assert_int_equal(dma_unmap_now(f->t, 77 * PAGE, PAGE), 0);
	assert_int_equal(dma_map_now(f->t, 77 * PAGE, PAGE, RW, fd, 0), 0);
	close(fd);
	f->t = reborn(f->t, f->shared);
	assert_int_equal(read_word(f->t, 1023 * PAGE + 8), dma_word(1023, 8));
}

/* A sparse file costs its owner nothing, and us address space. */
static void more_bytes_than_we_map_are_refused(void **state)
{
	struct fixture *f = *state;
	int fd[3];

	for (unsigned i = 0; i < 3; i++) {
		fd[i] = memfd_create("sparse", MFD_CLOEXEC);
		assert_int_equal(ftruncate(fd[i], DMA_MAX_MAPPED / 2), 0);
	}
	assert_int_equal(dma_map_now(f->t, 0, PAGE, RW, fd[0], 0), 0);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, RW, fd[1], 0), 0);
	assert_int_equal(dma_map_now(f->t, 2 * PAGE, PAGE, RW, fd[2], 0), -ENOSPC);
	assert_int_equal(dma_map_now(f->t, 2 * PAGE, PAGE, RW, fd[0], PAGE), 0);
	assert_int_equal(dma_unmap_now(f->t, PAGE, PAGE), 0);
	assert_int_equal(dma_map_now(f->t, PAGE, PAGE, RW, fd[2], 0), 0);
	f->t = reborn(f->t, f->shared);
	assert_int_equal(f->t->mapped.used, DMA_MAX_MAPPED);
	assert_int_equal(dma_unmap_now(f->t, 0, PAGE), 0);
	assert_int_equal(dma_unmap_now(f->t, 2 * PAGE, PAGE), 0);
	assert_int_equal(f->t->mapped.used, DMA_MAX_MAPPED / 2);
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
}

/* What firmware does to a guest's RAM: pieces at odd multiples of 4 KiB, again and again. */
static void a_firmware_storm_leaves_what_it_found(void **state)
{
	struct fixture *f = *state;
	static const uint64_t cut[] = { 0, 0xa0, 0xc0, 0xc3, 0xe8, 0xf0, 0x100, 0x4000 };
	int ram;

	ram = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(ram, 0x4000 * PAGE), 0);
	for (unsigned round = 0; round < 500; round++) {
		for (unsigned i = 0; i + 1 < sizeof(cut) / sizeof(cut[0]); i++)
			assert_int_equal(dma_map_now(f->t, cut[i] * PAGE,
						     (cut[i + 1] - cut[i]) * PAGE,
						     i % 2 ? DMA_READ : RW, ram, cut[i] * PAGE),
					 0);
		assert_int_equal(dma_check(f->t, (struct iova){ 0 }, 0x4000 * PAGE, DMA_READ), 0);
		assert_int_equal(dma_unmap_now(f->t, 0, 0x4000 * PAGE), 0);
		assert_int_equal(dma_map_now(f->t, 0, 0x4000 * PAGE, RW, ram, 0), 0);
		assert_int_equal(dma_unmap_now(f->t, 0, 0x4000 * PAGE), 0);
	}
	close(ram);
}

/* For information: nothing is asserted about time. */
static void measure(struct fixture *f, uint64_t n_maps)
{
	uint64_t n = 0, start, pairs = 20000;

	assert_int_equal(dma_map_now(f->t, 1ULL << 60, PAGE, RW, f->fd, 0), 0);
	for (; n < n_maps; n++)
		assert_int_equal(dma_map_now(f->t, 2 * shuffled(n, 65536) * PAGE, PAGE, RW, -1, 0),
				 0);
	start = loop_now_ns();
	for (uint64_t i = 0; i < pairs; i++) {
		uint64_t at = (2 * shuffled(i, 65536) + 1) * PAGE;
		struct dma_record record;

		assert_int_equal(dma_prepare_map(f->t, at, PAGE, RW, f->fd, 0, &record), 0);
		assert_int_equal(dma_apply(f->t, &record), 0);
		assert_int_equal(dma_unmap_now(f->t, at, PAGE), 0);
	}
	print_message("info: %5u maps: %llu map+unmap pairs per second\n", (unsigned)n_maps,
		      (unsigned long long)(pairs * 1000000000ULL / (loop_now_ns() - start)));
	dma_unmap_all_now(f->t);
}

static void the_cost_of_a_map_is_printed(void **state)
{
	measure(*state, 64);
	measure(*state, 60000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(maps_are_refused_with_the_reason),
		TEST(a_descriptor_that_is_closed_or_write_only_is_refused),
		TEST(the_last_page_of_the_address_space_can_be_mapped),
		TEST(unmap_takes_whole_maps_without_holes),
		TEST(one_file_is_mapped_once_whatever_comes_of_it),
		TEST(writing_obeys_the_map_and_not_the_file),
		TEST(a_map_without_a_file_asks_for_messages),
		TEST(too_many_segments_are_counted_before_they_are_written),
		TEST(a_file_that_grew_keeps_its_old_addresses),
		TEST(descriptors_are_closed_with_the_last_map),
		TEST(a_prepared_change_that_is_not_committed_leaves_nothing),
		TEST(applying_twice_is_applying_once),
		TEST(a_record_that_fits_no_state_is_refused),
		TEST(a_truncated_file_fails_the_copy_and_nothing_else),
		TEST(it_agrees_with_a_naive_model),
		TEST(as_many_maps_as_clients_assume),
		TEST(sparse_leftovers_do_not_pile_up),
		TEST(more_files_than_we_hold_are_refused),
		TEST(more_bytes_than_we_map_are_refused),
		TEST(a_firmware_storm_leaves_what_it_found),
		TEST(the_cost_of_a_map_is_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
