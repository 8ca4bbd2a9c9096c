/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/loop.h"

#define MS 1000000ULL

/* What ran, as letters in order. */
struct trace {
	struct loop loop;
	char ran[64];
};

struct node {
	struct trace *trace;
	struct node *other;
	char name;
	int fd;
	struct loop_fd source;
	struct loop_timer timer;
	struct loop_defer defer;
};

static void ran(struct node *n)
{
	size_t len = strlen(n->trace->ran);

	assert_true(len + 1 < sizeof(n->trace->ran));
	n->trace->ran[len] = n->name;
}

static int setup(void **state)
{
	struct trace *t = calloc(1, sizeof(*t));

	assert_int_equal(loop_init(&t->loop), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct trace *t = *state;

	loop_fini(&t->loop);
	free(t);
	return 0;
}

static struct node node_init(struct trace *t, char name)
{
	return (struct node){ .trace = t, .name = name, .fd = -1 };
}

static void on_timer(struct loop_timer *timer)
{
	ran(container_of(timer, struct node, timer));
}

static void on_timer_stop(struct loop_timer *timer)
{
	struct node *n = container_of(timer, struct node, timer);

	ran(n);
	loop_stop(&n->trace->loop, 7);
}

static void timers_fire_in_order_of_their_time(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b'), c = node_init(t, 'c');

	loop_timer_arm(&t->loop, &c.timer, 6 * MS, on_timer_stop);
	loop_timer_arm(&t->loop, &a.timer, 2 * MS, on_timer);
	loop_timer_arm(&t->loop, &b.timer, 4 * MS, on_timer);
	assert_int_equal(loop_run(&t->loop), 7);
	assert_string_equal(t->ran, "abc");
	assert_int_equal(a.timer.at_ns, 0);
}

static void timers_never_fire_early(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a');
	uint64_t start = loop_now_ns();

	loop_timer_arm(&t->loop, &a.timer, 3 * MS + 1, on_timer_stop);
	loop_run(&t->loop);
	assert_true(loop_now_ns() - start >= 3 * MS + 1);
}

static void rearming_a_timer_moves_it(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b');

	loop_timer_arm(&t->loop, &a.timer, 1 * MS, on_timer);
	loop_timer_arm(&t->loop, &b.timer, 3 * MS, on_timer);
	loop_timer_arm(&t->loop, &a.timer, 6 * MS, on_timer_stop);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "ba");
}

static void a_cancelled_timer_does_not_fire(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b');

	loop_timer_cancel(&a.timer); /* never armed */
	loop_timer_arm(&t->loop, &a.timer, 1 * MS, on_timer);
	loop_timer_arm(&t->loop, &b.timer, 3 * MS, on_timer_stop);
	loop_timer_cancel(&a.timer);
	loop_timer_cancel(&a.timer);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "b");
}

static void a_timer_for_ever_does_not_wrap(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b');

	loop_timer_arm(&t->loop, &a.timer, UINT64_MAX, on_timer);
	loop_timer_arm(&t->loop, &b.timer, 1 * MS, on_timer_stop);
	loop_run(&t->loop);
	loop_timer_cancel(&a.timer);
	assert_string_equal(t->ran, "b");
}

static void on_fd_remove_other(struct loop_fd *source, uint32_t revents)
{
	struct node *n = container_of(source, struct node, source);

	assert_true(revents & EPOLLIN);
	ran(n);
	loop_remove(&n->other->source);
	close(n->other->fd);
	n->other->fd = -1;
	loop_remove(source);
	loop_stop(&n->trace->loop, 0);
}

/* Both are ready in the same round; whichever runs first removes the other one and closes it. */
static void a_ready_source_removed_by_a_handler_does_not_run(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'x'), b = node_init(t, 'x');

	a.other = &b;
	b.other = &a;
	a.fd = eventfd(1, EFD_CLOEXEC);
	b.fd = eventfd(1, EFD_CLOEXEC);
	assert_int_equal(loop_add(&t->loop, &a.source, a.fd, EPOLLIN, on_fd_remove_other), 0);
	assert_int_equal(loop_add(&t->loop, &b.source, b.fd, EPOLLIN, on_fd_remove_other), 0);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "x");
	loop_remove(&a.source);
	loop_remove(&b.source);
	close(a.fd >= 0 ? a.fd : b.fd);
}

static void on_fd_free_owner(struct loop_fd *source, uint32_t revents)
{
	struct node *n = container_of(source, struct node, source);
	struct trace *t = n->trace;

	ran(n);
	loop_remove(source);
	close(n->fd);
	loop_stop(&t->loop, 0);
	free(n); /* AddressSanitizer tells when the loop looks at it again */
}

static void a_handler_may_free_its_owner(void **state)
{
	struct trace *t = *state;
	struct node *n = malloc(sizeof(*n));

	*n = node_init(t, 'f');
	n->fd = eventfd(1, EFD_CLOEXEC);
	loop_add(&t->loop, &n->source, n->fd, EPOLLIN, on_fd_free_owner);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "f");
}

static void on_fd_quiet(struct loop_fd *source, uint32_t revents)
{
	ran(container_of(source, struct node, source));
	loop_set_events(source, 0);
}

static void a_source_without_events_is_silent(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b');

	a.fd = eventfd(1, EFD_CLOEXEC);
	loop_add(&t->loop, &a.source, a.fd, EPOLLIN, on_fd_quiet);
	loop_timer_arm(&t->loop, &b.timer, 2 * MS, on_timer_stop);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "ab");
	loop_remove(&a.source);
	close(a.fd);
}

static void adding_what_epoll_refuses_leaves_the_source_unused(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a');
	FILE *f = tmpfile();

	assert_int_equal(loop_add(&t->loop, &a.source, fileno(f), EPOLLIN, on_fd_quiet), -EPERM);
	assert_null(a.source.loop);
	loop_remove(&a.source);
	fclose(f);
}

static void on_defer(struct loop_defer *defer)
{
	ran(container_of(defer, struct node, defer));
}

static void on_defer_again(struct loop_defer *defer)
{
	struct node *n = container_of(defer, struct node, defer);

	ran(n);
	if (strlen(n->trace->ran) < 6)
		loop_defer(&n->trace->loop, defer, on_defer_again);
	else
		loop_stop(&n->trace->loop, 0);
}

static void on_defer_cancel_other(struct loop_defer *defer)
{
	struct node *n = container_of(defer, struct node, defer);

	ran(n);
	loop_defer_cancel(&n->other->defer);
	loop_stop(&n->trace->loop, 0);
}

static void deferred_work_runs_once_and_in_order(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b'), c = node_init(t, 'c');

	loop_defer(&t->loop, &a.defer, on_defer);
	loop_defer(&t->loop, &b.defer, on_defer);
	loop_defer(&t->loop, &a.defer, on_defer);
	loop_timer_arm(&t->loop, &c.timer, 1 * MS, on_timer_stop);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "abc");
}

static void deferred_work_can_be_cancelled_by_its_neighbour(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a'), b = node_init(t, 'b');

	a.other = &b;
	loop_defer(&t->loop, &a.defer, on_defer_cancel_other);
	loop_defer(&t->loop, &b.defer, on_defer);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "a");
}

/* A handler that defers itself for ever must not keep descriptors from their turn. */
static void deferring_again_leaves_room_for_descriptors(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'd'), b = node_init(t, 'f');

	b.fd = eventfd(1, EFD_CLOEXEC);
	loop_add(&t->loop, &b.source, b.fd, EPOLLIN, on_fd_quiet);
	loop_defer(&t->loop, &a.defer, on_defer_again);
	loop_run(&t->loop);
	assert_string_equal(t->ran, "dfdddd");
	loop_remove(&b.source);
	close(b.fd);
}

static void the_loop_can_run_again_after_a_stop(void **state)
{
	struct trace *t = *state;
	struct node a = node_init(t, 'a');

	loop_stop(&t->loop, 3);
	assert_int_equal(loop_run(&t->loop), 3);
	loop_timer_arm(&t->loop, &a.timer, 0, on_timer_stop);
	assert_int_equal(loop_run(&t->loop), 7);
	assert_string_equal(t->ran, "a");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(timers_fire_in_order_of_their_time),
		T(timers_never_fire_early),
		T(rearming_a_timer_moves_it),
		T(a_cancelled_timer_does_not_fire),
		T(a_timer_for_ever_does_not_wrap),
		T(a_ready_source_removed_by_a_handler_does_not_run),
		T(a_handler_may_free_its_owner),
		T(a_source_without_events_is_silent),
		T(adding_what_epoll_refuses_leaves_the_source_unused),
		T(deferred_work_runs_once_and_in_order),
		T(deferred_work_can_be_cancelled_by_its_neighbour),
		T(deferring_again_leaves_room_for_descriptors),
		T(the_loop_can_run_again_after_a_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
