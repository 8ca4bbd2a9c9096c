/* SPDX-License-Identifier: MIT */
/*
 * umdev-worker: one process pair per group (docs/architecture.md, "Keeper and worker").
 *
 *   keeper  exec'd by umdevd with fd 3 channel, 4 rendezvous listener, 5 state memfd, 6 grave.
 * Clones the worker with CLONE_FILES and waits. Never reads a byte of the channel or of a client.
 *           Worker killed or hung: reaps it, notes its I/O account, clones again. Worker exited
 *           to be restarted: becomes the installed program first. Exited: exits with its status.
 *   worker  executes CONFIG, enters the sandbox, answers READY, serves. A successor finds all it
 *           needs in the state memory and in the descriptor table, and begins with RESUMED.
 *
 * All frames on the channel are committed to one outbound stream by the worker that lives, also
 * those that tell of the keeper's doings (RESUMED, the last STATE of a group that is given up): so
 * a frame that a dead worker sent half is always completed first.
 *
 * Manager gone: ORPHAN. Served clients are served on; the worker exits when the last one leaves,
 * unless it is held: devices that were started keep what they have for the next manager.
 * A successor manager connects to the rendezvous socket and hears READY, then STATE of each faulty
 * member, then CLOSED of each member without a client (it may never have heard of that).
 *
 * The state memory (fd 5), everything by offset, checked as untrusted input at each start:
 *   struct worker_shared | per member: struct worker_member_shared, its queues' part
 *   (queue/queue.h), the presentation's part
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/ab.h"
#include "base/conn.h"
#include "device/device.h"
#include "device/stream.h"
#include "media/media.h"
#include "wire/mw.h"

#define WORKER_MAGIC 0x756d6465762d7732ULL
#ifndef WORKER_LAYOUT
#define WORKER_LAYOUT 8 /* of all structs below and what they contain; raise on every change */
#endif

/* Written by the worker as transactions; small, it is copied for each frame. */
struct worker_half {
	struct conn_cursor cursor; /* of the manager's channel */
	uint32_t config_len;       /* config[] holds an executed CONFIG; 0: none yet */
	uint32_t ready;            /* READY was committed: members are resumed, not made again */
	uint32_t greet;            /* a successor manager is to be told READY and what it missed */
	uint32_t told;             /* the life whose RESUMED was committed */
	uint32_t stopping;         /* STOP of all was executed */
	uint32_t connected;        /* bit per member: CONNECT executed, CLOSED not committed */
	uint32_t held;             /* HOLD: it stays although nobody is left */
	uint32_t group_open;       /* bit per member: its group_open ran, group_close did not */
	uint32_t restart;          /* serial of a RESTART whose RESTARTED is owed; 0: none */
	uint64_t stop_at_ns;       /* deadline of that STOP */
	/* per member: descriptor of CONNECT not yet given to the presentation, or -1 */
	int32_t connect_fd[MW_MAX_MEMBERS];
	/* per member: CLOSED to be sent (1 + reason), or 0 */
	uint32_t closed[MW_MAX_MEMBERS];
	/* per member: serial of a RES_DEL whose RES_DONE is owed; 0: none */
	uint32_t res_del[MW_MAX_MEMBERS];
};

#define WORKER_ASLEEP UINT64_MAX /* beat_ns of a worker that waits for events: it cannot hang */

struct worker_shared {
	uint64_t magic;
	uint32_t layout;
	uint32_t page; /* page size it was laid out for */

	/* written by the keeper before each clone */
	uint32_t lives;   /* workers cloned so far */
	int32_t signal;   /* that ended the life before this one */
	uint32_t blamed;  /* ... which was its own fault: a crash or a hang, not a plain kill */
	uint32_t give_up; /* too many crashes: this life only tells the manager */
	struct stream_last_life last;
	int32_t io_fd;   /* the keeper's /proc/self/io, or -1; in the common table, never closed */
	int32_t wake_fd; /* eventfd that wakes a sleeping keeper; in the common table likewise */
	int32_t old_program_fd; /* what a keeper on trial goes back to (restart.c), or -1 */
	uint32_t restart_error; /* errno of the last restart, also by the worker: not tried yet */

	/* written by the worker, and by the keeper before a clone */
	uint64_t beat_ns; /* when the round of its loop began, or WORKER_ASLEEP */

	/* written by both */
	uint32_t keeper_sleeps; /* until it is woken by wake_fd; see keeper.c */

	/* written by the worker */
	uint32_t settled;       /* the life that settled all streams: `last` was used up */
	uint32_t media;         /* 0: no member of CONFIG needs a ring */
	uint32_t queue_threads; /* how many CONFIG asks for */
	uint32_t pad2;
	struct media_fence fence;

	struct ab ab;
	struct worker_half half[2];
	uint8_t config[MW_MAX]; /* the CONFIG frame, kept for successors */
	struct conn_shared channel;
};

struct worker_resource {
	char name[32];
	uint32_t flags;
	int32_t fd;      /* -1: free slot; stored last */
	int32_t medium;  /* its number as a medium, or -1 */
	uint32_t leaves; /* RES_DEL: requests to the medium are still in flight */
	uint64_t offset, length;
};

/* A parameter that was changed since CONFIG. */
struct worker_param {
	uint32_t which; /* 0: as in CONFIG; else value[which - 1] */
	uint32_t pad;
	struct umdev_value value[2];
};

struct worker_member_shared {
	struct worker_resource resources[MW_MAX_RESOURCES];
	struct worker_param params[MW_MAX_PARAMS]; /* in the order of CONFIG */
	struct stream_shared streams[UMDEV_MAX_STREAMS];
};

struct sandbox;

/* state.c */
size_t worker_shared_size(void); /* sizeof(struct worker_shared) in whole pages */
/* Keeper: lays out the fresh memfd. -EEXIST: it is not empty; -errno. */
int worker_state_create(int state_fd, int channel_fd, struct worker_shared **ret);
/* -EUCLEAN: not a state that a worker of this build leaves. Channel and members are checked by
 * those who attach to them. */
int worker_state_check(const struct worker_shared *shared);
/* -EUCLEAN likewise. */
int worker_member_check(const struct worker_member_shared *m);

/* Takes over the state memory of a running group. -EUCLEAN: not one of this build. */
int worker_state_open(int state_fd, struct worker_shared **ret);

/* keeper.c: returns the exit status. program: its path, for a restart. old_program_fd: what it was
 * before, as long as that may be gone back to; -1: this is no trial. again: this process was the
 * group's keeper before, in another program. */
int keeper_run(struct worker_shared *shared, const char *program, int old_program_fd, bool again);

/* restart.c: the keeper becomes another program; descriptors keep their numbers. Both return on
 * failure only. */
#define WORKER_CONTINUE "--continue" /* FD: of the program before it */
#define WORKER_GO_BACK "--go-back"   /* ERRNO: the other program could not continue */
/* What is at `program` now. -errno */
int restart_into(const char *program);
int restart_go_back(const char *program, int old_program_fd, int error);
/* What this program was started as by one of the above: makes the table as it should be and
 * returns the exit status of the keeper. */
int restart_continue(const char *program, int old_program_fd);
int restart_gone_back(const char *program, int error);

/* devices.c: the device halves, NULL-terminated. */
extern const struct umdev_device_driver *const *const worker_drivers;
/* Loads the files of the group's drivers, before anything else is done: what a successor runs is
 * what the keeper has in its memory, whatever became of the files. One that cannot be used is
 * logged; a device that needs it will say so. */
void worker_load_drivers(void);

/* versions.c */
/* Can the program that reads those versions go on with a group, with a device of that type in it?
 * 0, or -EPROTO (text left). */
int versions_check(const struct mw_versions *versions);
int versions_check_type(const struct mw_versions *versions, const char *driver,
			const struct umdev_device_type *type);
/* As JSON on standard output, for umdevd. 0 / -EIO */
int versions_print(const struct umdev_device_driver *const *drivers);

#define WORKER_EXIT_RESTART 3 /* of a worker: between two requests, as RESTART asks */
/* worker.c: one life; returns the exit status. */
int worker_life(struct worker_shared *shared, struct sandbox *sandbox);

#endif
