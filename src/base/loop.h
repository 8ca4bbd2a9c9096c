/* SPDX-License-Identifier: MIT */
/*
 * One event loop per thread: level-triggered epoll, timers, deferred work.
 *
 * Sources are embedded in their owner; nothing is allocated after loop_init. A handler does
 * bounded work. Remove a source before closing its descriptor. A handler may free its owner (and
 * remove any other source, also one that is ready in the same round) only as its last act.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include "base/list.h"

struct loop_fd {
	int fd;          /* borrowed; -1: not in a loop */
	uint32_t events; /* EPOLLIN | EPOLLOUT ...; 0: only errors and hang-up */
	void (*handler)(struct loop_fd *source, uint32_t revents);
	struct loop *loop;
};
#define LOOP_FD_INIT     \
	{                \
		.fd = -1 \
	}

struct loop_timer {
	uint64_t at_ns; /* CLOCK_MONOTONIC; 0: not armed */
	void (*handler)(struct loop_timer *timer);
	struct list_node node;
	struct loop *loop;
};

/* Runs once, before the loop sleeps next; for what must not happen inside the caller. */
struct loop_defer {
	void (*handler)(struct loop_defer *defer);
	struct list_node node; /* linked: pending */
};

struct loop {
	int epoll_fd;
	bool stop;
	/* Around every wait for events; for a watcher that must know whether the thread is at work.
	 * NULL: nobody watches. */
	void (*sleeps)(struct loop *loop);
	void (*woke)(struct loop *loop);
	int exit_code;
	struct list_node timers; /* sorted, soonest first */
	struct list_node deferred;
	struct epoll_event ready[64]; /* of the round being handled */
	int n_ready;
};
#define LOOP_INIT              \
	{                      \
		.epoll_fd = -1 \
	}

int loop_init(struct loop *loop);  /* 0 / -errno */
void loop_fini(struct loop *loop); /* accepts LOOP_INIT; all sources must be removed */
int loop_add(struct loop *loop, struct loop_fd *source, int fd, uint32_t events,
	     void (*handler)(struct loop_fd *, uint32_t));    /* 0 / -errno */
int loop_set_events(struct loop_fd *source, uint32_t events); /* no system call when unchanged */
void loop_remove(struct loop_fd *source);                     /* may repeat */

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t after_ns,
		    void (*handler)(struct loop_timer *)); /* re-arms when armed */
void loop_timer_cancel(struct loop_timer *timer);          /* may repeat */

void loop_defer(struct loop *loop, struct loop_defer *defer,
		void (*handler)(struct loop_defer *)); /* no-op when pending */
void loop_defer_cancel(struct loop_defer *defer);      /* may repeat */

/* Runs until loop_stop(); returns its code, or -errno when epoll itself failed. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int exit_code);

uint64_t loop_now_ns(void); /* CLOCK_MONOTONIC */

#endif
