/* SPDX-License-Identifier: MIT */
/* State memory of a group: made once, judged as untrusted input at each start. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "vfio/server.h"
#include "worker/worker.h"

struct fixture {
	int memory, fds[2];
	struct worker_shared *shared;
};

static struct fixture fixture_new(void)
{
	struct fixture f = { .memory = memfd_create("state", 0) };

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, f.fds), 0);
	assert_int_equal(worker_state_create(f.memory, f.fds[0], &f.shared), 0);
	return f;
}

static void fixture_free(struct fixture *f)
{
	munmap(f->shared, worker_shared_size());
	close(f->memory);
	close(f->fds[0]);
	close(f->fds[1]);
}

static void fresh_state_is_possible_and_names_the_channel(void **state)
{
	struct fixture f = fixture_new();

	assert_int_equal(worker_state_check(f.shared), 0);
	assert_int_equal(f.shared->channel.fd, f.fds[0]);
	assert_int_equal(f.shared->half[0].connect_fd[MW_MAX_MEMBERS - 1], -1);
	fixture_free(&f);
}

static void memory_that_holds_something_is_not_taken_over(void **state)
{
	struct worker_shared *again;
	struct fixture f = fixture_new();

	assert_int_equal(worker_state_create(f.memory, f.fds[0], &again), -EEXIST);
	fixture_free(&f);
}

static void impossible_states_are_refused(void **state)
{
	struct fixture f = fixture_new();
	struct worker_shared *s = f.shared;
	struct worker_half *half = &s->half[0];
	const struct worker_half good = *half;

#define REFUSED(change, undo)                                      \
	do {                                                       \
		change;                                            \
		assert_int_equal(worker_state_check(s), -EUCLEAN); \
		undo;                                              \
		*half = good;                                      \
		assert_int_equal(worker_state_check(s), 0);        \
	} while (0)
	REFUSED(s->magic++, s->magic--);
	REFUSED(s->layout++, s->layout--);
	REFUSED(s->page *= 2, s->page /= 2);
	REFUSED(s->ab.cur = 2, s->ab.cur = 0);
	REFUSED(half->config_len = MW_MAX + 1, );
	REFUSED(half->config_len = MW_HEADER - 1, );
	REFUSED(half->ready = 1, );
	REFUSED(half->ready = 2; half->config_len = 100, );
	REFUSED(half->greet = 2, );
	REFUSED(half->stopping = 2, );
	REFUSED(half->held = 2, );
	REFUSED(half->connect_fd[3] = -2, );
	REFUSED(half->connect_fd[3] = 7, );
	REFUSED(half->closed[31] = 1, );
	REFUSED(half->connected = 1; half->closed[0] = 2 + VFIO_CLOSE_FAULT, );
#undef REFUSED
	half->connected = 1u << 31;
	half->closed[31] = 1 + VFIO_CLOSE_FAULT;
	assert_int_equal(worker_state_check(s), 0);
	fixture_free(&f);
}

static void impossible_members_are_refused(void **state)
{
	struct worker_member_shared *m = calloc(1, sizeof(*m));
	struct worker_param *p = &m->params[MW_MAX_PARAMS - 1];
	struct worker_resource *r = &m->resources[MW_MAX_RESOURCES - 1];

	assert_int_equal(worker_member_check(m), 0);
	p->which = 3;
	assert_int_equal(worker_member_check(m), -EUCLEAN);
	p->which = 2;
	assert_int_equal(worker_member_check(m), 0);
	memset(p->value[1].text, 'x', sizeof(p->value[1].text));
	assert_int_equal(worker_member_check(m), -EUCLEAN);
	p->which = 1;
	assert_int_equal(worker_member_check(m), 0);
	memset(r->name, 'x', sizeof(r->name));
	assert_int_equal(worker_member_check(m), -EUCLEAN);
	r->name[5] = 0;
	assert_int_equal(worker_member_check(m), 0);
	r->fd = -2;
	assert_int_equal(worker_member_check(m), -EUCLEAN);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fresh_state_is_possible_and_names_the_channel),
		cmocka_unit_test(memory_that_holds_something_is_not_taken_over),
		cmocka_unit_test(impossible_states_are_refused),
		cmocka_unit_test(impossible_members_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
