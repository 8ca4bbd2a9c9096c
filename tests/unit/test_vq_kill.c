/* SPDX-License-Identifier: MIT */
/*
 * A worker that takes chains and gives them back is stopped after every single instruction.
 * Wherever anything changed that outlives it, a successor starts from a copy of what is there:
 * every chain that was posted must come back exactly once, as it was posted.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "../lib/vq_ring.h"

#define INDIRECT (1ULL << UMDEV_VIRTIO_F_INDIRECT)
#define PACKED (1ULL << UMDEV_VIRTIO_F_PACKED)
#define IN_ORDER (1ULL << UMDEV_VIRTIO_F_IN_ORDER)

static struct vq_ring copy;
static struct umdev_vq vq;
static struct umdev_vq_chain chain;

/* Chains were posted before it began; it may give back in any order. */
static void live(struct vq_ring *ring)
{
	uint16_t held[8];

	vq_ring_memory = ring;
	if (umdev_vq_init(&vq, NULL, &ring->config, ring->journal) < 0)
		_exit(1);
	for (unsigned i = 0; i < 4; i++) {
		if (umdev_vq_pop(&vq, &chain) != 1)
			_exit(2);
		held[i] = chain.head;
	}
	umdev_vq_push(&vq, held[2], 1);
	umdev_vq_push(&vq, held[0], 1);
	umdev_vq_pop(&vq, &chain);
	umdev_vq_push(&vq, chain.head, 1);
	umdev_vq_push(&vq, held[3], 1);
	umdev_vq_arm(&vq);
	_exit(0);
}

/* What a successor makes of it, or the next when that one dies as well. */
static void succeed_once(const struct vq_ring *ring, bool dies_too)
{
	uint32_t written;
	int name;

	copy = *ring;
	vq_ring_memory = &copy;
	if (dies_too) { /* having taken what there is, new chains in the place of old ones too */
		assert_int_equal(umdev_vq_init(&vq, NULL, &copy.config, copy.journal), 0);
		while (vq_ring_reap(&copy, &written) >= 0)
			;
		vq_ring_post(&copy, 1, 0, false);
		vq_ring_post(&copy, 0, 1, false);
		while (umdev_vq_pop(&vq, &chain) == 1)
			;
	}
	assert_int_equal(umdev_vq_init(&vq, NULL, &copy.config, copy.journal), 0);
	while (umdev_vq_pop(&vq, &chain) == 1) {
		assert_true(vq_ring_is(&copy, vq_ring_name(&copy, &vq, chain.head), &chain));
		assert_int_equal(umdev_vq_push(&vq, chain.head, 1), 0);
	}
	assert_int_equal(vq.error, 0);
	while ((name = vq_ring_reap(&copy, &written)) >= 0)
		;
	assert_int_equal(name, -1);
	assert_int_equal(copy.reaped, copy.serial);
	/* It goes on: the ring is as if nothing had happened. */
	assert_true(vq_ring_post(&copy, 1, 2, false) >= 0);
	assert_int_equal(umdev_vq_pop(&vq, &chain), 1);
	assert_int_equal(umdev_vq_push(&vq, chain.head, 1), 0);
	assert_true(vq_ring_reap(&copy, &written) >= 0);
}

static void succeed(const struct vq_ring *ring)
{
	succeed_once(ring, false);
	succeed_once(ring, true);
}

/* Moves the ring on by some chains of one descriptor. */
static void advance(struct vq_ring *ring, unsigned n)
{
	uint32_t written;

	assert_int_equal(umdev_vq_init(&vq, NULL, &ring->config, ring->journal), 0);
	while (n--) {
		assert_true(vq_ring_post(ring, 1, 0, false) >= 0);
		assert_int_equal(umdev_vq_pop(&vq, &chain), 1);
		assert_int_equal(umdev_vq_push(&vq, chain.head, 1), 0);
		assert_true(vq_ring_reap(ring, &written) >= 0);
	}
}

static void step_through(uint64_t features, uint16_t size, unsigned start)
{
	struct vq_ring *ring = mmap(NULL, sizeof(*ring), PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static struct vq_ring before;
	unsigned n_steps = 0, n_states = 0;
	int status;
	pid_t pid;

	assert_true(ring != MAP_FAILED);
	vq_ring_init(ring, features, size);
	advance(ring, start);
	for (unsigned i = 0; i < 6; i++)
		assert_true(vq_ring_post(ring, 1 + i % 2, i % 2, features & INDIRECT && i % 2) >=
			    0);
	pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		live(ring);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	before = *ring;
	succeed(ring);
	while (WIFSTOPPED(status)) {
		if (memcmp(ring, &before, sizeof(before))) {
			before = *ring;
			succeed(ring);
			n_states++;
		}
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(++n_steps < 200000);
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	succeed(ring);
	print_message("info: %u instructions, %u states\n", n_steps, n_states);
	assert_true(n_states >= 10);
	munmap(ring, sizeof(*ring));
}

static void a_split_ring_survives_any_death(void **state)
{
	step_through(0, 16, 12);
	step_through(INDIRECT, 16, 0);
}

static void a_packed_ring_survives_any_death(void **state)
{
	step_through(PACKED, 13, 0);
	step_through(PACKED, 13, 11); /* wraps within a chain */
	step_through(PACKED | INDIRECT, 9, 7);
}

static void order_survives_any_death(void **state)
{
	step_through(IN_ORDER, 16, 3);
	step_through(PACKED | IN_ORDER, 13, 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_split_ring_survives_any_death),
		cmocka_unit_test(a_packed_ring_survives_any_death),
		cmocka_unit_test(order_survives_any_death),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
