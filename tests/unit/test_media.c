// SPDX-License-Identifier: MIT
/* The fence: when the tombstone of a ring hangs up, nothing of its dead process is under way. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "media/internal.h"

#define REQUESTS 16
#define BYTES (1 << 20) /* of one request */

/* Shared with the life that dies. */
struct life {
	int ring_fd, tomb;
	_Alignas(4096) uint8_t data[BYTES];
};

static int open_file(void)
{
	int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd < 0) /* no O_DIRECT here: late writes are rare then, the rules the same */
		fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, REQUESTS * BYTES), 0);
	return fd;
}

/* Submits requests, writes are of ones, and is killed with them under way. 77: no io_uring here. */
static void live(struct life *life, int fd, enum umdev_media_op op, unsigned n)
{
	struct device_medium medium = { .fd = fd, .length = REQUESTS * BYTES };
	struct media_call call;
	struct media_ring *ring;
	struct iovec iov = { life->data, BYTES };
	struct ring_user user;
	int fds[2], held[RING_HELD] = { -1, -1 };

	if (pipe(fds) < 0)
		_exit(77);
	held[0] = fds[1];
	if (ring_new(&ring, held, RING_OF_MAKER) < 0)
		_exit(77);
	close(fds[1]);
	life->tomb = fds[0];
	life->ring_fd = ring_fd(ring);
	for (unsigned i = 0; i < n; i++) {
		call = (struct media_call){ .op = op,
					    .medium = &medium,
					    .at = (uint64_t)i * BYTES,
					    .left = BYTES,
					    .iov = &iov,
					    .n_iov = 1 };
		media_call_init(&call);
		if (!ring_prepare(ring, &call, &user))
			_exit(1);
	}
	ring_submit(ring);
	raise(SIGKILL);
}

/* In our descriptor table, as a worker of a keeper. */
static void live_and_die(struct life *life, int fd, enum umdev_media_op op, unsigned n)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	int status;

	if (!pid)
		live(life, fd, op, n);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_true(WIFSIGNALED(status));
}

static struct life *new_life(void)
{
	struct life *life = mmap(NULL, sizeof(*life), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(life, MAP_FAILED);
	memset(life->data, 1, BYTES);
	return life;
}

static bool hangs_up(int tomb, int ms)
{
	struct pollfd p = { .fd = tomb };

	return poll(&p, 1, ms) == 1 && (p.revents & POLLHUP);
}

static void nothing_of_the_dead_is_written_after_the_hang_up(void **state)
{
	uint8_t *two = aligned_alloc(4096, BYTES);
	struct life *life = new_life();
	int fd = open_file();

	memset(two, 2, BYTES);
	live_and_die(life, fd, UMDEV_MEDIA_WRITE, REQUESTS);
	/* The ring outlives its process in the common table, and what is in it. */
	assert_false(hangs_up(life->tomb, 100));
	close(life->ring_fd);
	assert_true(hangs_up(life->tomb, 10000));

	for (unsigned i = 0; i < REQUESTS; i++)
		assert_int_equal(pwrite(fd, two, BYTES, (off_t)i * BYTES), BYTES);
	usleep(300000);
	for (unsigned i = 0; i < REQUESTS; i++) {
		assert_int_equal(pread(fd, life->data, BYTES, (off_t)i * BYTES), BYTES);
		assert_memory_equal(life->data, two, BYTES);
	}
	close(life->tomb);
	close(fd);
	free(two);
	munmap(life, sizeof(*life));
}

/* An engine that waits behind a fence opens when that hangs up, not before, and the state names the
 * new tombstone from then on. */
static void stop(struct loop_timer *timer)
{
	loop_stop(timer->loop, 0);
}

static void run_for(struct loop *loop, unsigned ms)
{
	struct loop_timer timer = { 0 };

	loop_timer_arm(loop, &timer, ms * 1000000ULL, stop);
	assert_int_equal(loop_run(loop), 0);
}

static void an_engine_waits_for_the_hang_up(void **state)
{
	struct media_engine *engine;
	struct loop loop = LOOP_INIT;
	struct media_fence fence = MEDIA_FENCE_INIT;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	fence.tomb = fds[0];
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(media_engine_new(&engine, 0, -1), 0);
	assert_int_equal(media_engine_start(engine, &loop, &fence), 0);
	run_for(&loop, 50);
	assert_false(media_engine_is_open(engine));
	assert_int_equal(fence.tomb, fds[0]);
	close(fds[1]);
	run_for(&loop, 50);
	assert_true(media_engine_is_open(engine));
	assert_int_equal(fence.tomb >= 0, media_engine_has_ring(engine));
	assert_int_equal(fence.ring >= 0, media_engine_has_ring(engine));
	if (fence.tomb >= 0)
		assert_false(hangs_up(fence.tomb, 0));
	media_engine_free(engine);
	if (fence.tomb >= 0) {
		assert_true(hangs_up(fence.tomb, 3000));
		close(fence.tomb);
	}
	loop_fini(&loop);
}

/* The kernel takes 25 ms and more to let a ring go. A successor need not wait for that: the ring is
 * held here, so that its tombstone cannot hang up. */
static void an_engine_waits_for_completions_and_not_for_the_hang_up(void **state)
{
	struct life *life = new_life();
	struct media_engine *engine;
	struct loop loop = LOOP_INIT;
	struct media_fence fence;
	int fds[2], held;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	live_and_die(life, fds[0], UMDEV_MEDIA_READ, 2); /* of a pipe that is empty */
	held = dup(life->ring_fd);
	fence = (struct media_fence){ life->tomb, life->ring_fd };
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(media_engine_new(&engine, 0, -1), 0);
	assert_int_equal(media_engine_start(engine, &loop, &fence), 0);
	assert_false(media_engine_is_open(engine));
	assert_int_equal(fence.ring, life->ring_fd);
	close(fds[1]);
	for (unsigned i = 0; i < 100 && !media_engine_is_open(engine); i++)
		run_for(&loop, 10);
	assert_true(media_engine_is_open(engine));
	assert_int_not_equal(fence.ring, life->ring_fd);
	media_engine_free(engine);
	close(fence.tomb);

	/* One that had nothing under way costs no wait at all. */
	live_and_die(life, fds[0], UMDEV_MEDIA_READ, 0);
	close(held);
	held = dup(life->ring_fd);
	fence = (struct media_fence){ life->tomb, life->ring_fd };
	assert_int_equal(media_engine_new(&engine, 0, -1), 0);
	assert_int_equal(media_engine_start(engine, &loop, &fence), 0);
	assert_true(media_engine_is_open(engine));
	media_engine_free(engine);
	close(fence.tomb);
	close(held);
	close(fds[0]);
	loop_fini(&loop);
	munmap(life, sizeof(*life));
}

/* What it says about itself is not worth more than the hang-up. */
static void a_ring_that_never_counts_up_is_given_up(void **state)
{
	struct life *life = new_life();
	struct media_engine *engine;
	struct loop loop = LOOP_INIT;
	struct media_fence fence;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	live_and_die(life, fds[0], UMDEV_MEDIA_READ, 1);
	fence = (struct media_fence){ life->tomb, life->ring_fd };
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(media_engine_new(&engine, 0, -1), 0);
	assert_int_equal(media_engine_start(engine, &loop, &fence), 0);
	run_for(&loop, 500);
	assert_false(media_engine_is_open(engine));
	for (unsigned i = 0; i < 300 && !media_engine_is_open(engine); i++)
		run_for(&loop, 10);
	assert_true(media_engine_is_open(engine));
	media_engine_free(engine);
	close(fence.tomb);
	close(fds[0]);
	close(fds[1]);
	loop_fini(&loop);
	munmap(life, sizeof(*life));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_of_the_dead_is_written_after_the_hang_up),
		cmocka_unit_test(an_engine_waits_for_the_hang_up),
		cmocka_unit_test(an_engine_waits_for_completions_and_not_for_the_hang_up),
		cmocka_unit_test(a_ring_that_never_counts_up_is_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
