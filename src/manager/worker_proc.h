/* SPDX-License-Identifier: MIT */
/*
 * One worker of one group, as the manager sees it: the process, its messages, its deadlines.
 *
 * A worker serves one ownership: it is started for the first connection of an owner, or before it
 * for a device that is started (mdev_start), and stopped after the last, so that nothing an owner
 * did to it meets the next one. Started devices then get another one at once. What it says is
 * judged by the rows of wire/mw (direction, sizes, state, rate) and by what the manager knows (is
 * that member connected?); a worker that says something else is ended, and with it its group only.
 *
 *   worker_start -> MW_STARTING -> READY -> MW_READY -> worker_stop -> MW_STOPPING -> exit
 *                        any of them -> worker_kill (deadline, broken rule) -> MW_DEAD -> exit
 * The struct lives until the process was reaped and all that it had under way has ended
 * (worker_grave.c); only then its devices may be served anew.
 *
 * A worker outlives a manager that is killed or replaced. Its successor adopts it: same states,
 * from MW_STARTING on, but it is met at its rendezvous socket, has its CONFIG, and says READY and
 * which members have no client. It is no child of ours: nobody tells us how it ended. One that
 * speaks another version of the messages is not spoken to: it serves its clients on, is shown as
 * faulty, and is MW_STOPPING from the beginning, since it ends with the last of them.
 */
#ifndef MANAGER_WORKER_PROC_H
#define MANAGER_WORKER_PROC_H

#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/list.h"
#include "base/loop.h"
#include "manager/state_file.h"
#include "manager/worker_link.h"
#include "wire/mw.h"

struct manager;
struct mdev_group;
struct umdev_mdev;

/* A device as one worker knows it; its place in worker.members is the `member` of frames. */
struct worker_member {
	struct worker *worker;
	struct umdev_mdev *mdev;  /* NULL: it was removed or unbound meanwhile */
	bool connected;           /* CONNECT was sent, CLOSED not seen */
	bool has_resources;       /* the driver's resources_end is owed */
	bool param_under_way;     /* core_param_done is owed; sent when the worker is READY */
	uint32_t param_serial;    /* of the PARAM_SET that was sent and not answered; 0: none */
	struct list_node changes; /* of resources: asked for and not answered */
	uint32_t res_serial;      /* of the first of them, when it was sent; 0: it was not */
	struct loop_timer param_deadline, stop_deadline;
	/* Of an adopted worker only: */
	bool owes_closed; /* it will say CLOSED though nobody is connected; CONNECT waits for it */
	bool leaves, forced; /* worker_disconnect was called before it was READY */
};

struct worker { /* owned by manager->workers */
	struct list_node node;
	struct manager *manager;
	uint32_t group; /* its number */
	enum mw_state state;
	pid_t pid;         /* also its process group */
	uint64_t start;    /* process_start() of it */
	uint32_t messages; /* MW_VERSION of the umdevd that started it */
	bool adopted;      /* a manager before us started it */
	bool stop_wanted;  /* adopted: to be stopped when it is READY */
	bool held;         /* HOLD: it was told to stay without a manager and without clients */
	int pidfd;
	struct loop_fd exit_source;
	struct loop_timer deadline; /* of READY, of STOP, of the exit after a hang-up */
	struct loop_timer
		pong_deadline; /* before READY of an adopted one: to try again to meet it */
	struct loop_defer idle;
	uint64_t pong_ns; /* last sign of life; 0: it was never ready */
	uint32_t serial;
	uint64_t rate_ns;  /* start of the second that said[] counts */
	uint16_t said[16]; /* frames per type, from MW_READY_MSG on */
	char why[256];     /* the reason we ended it for; "": we did not */
	/* It ended. clean: as it was asked to; told: it said itself why; else `end` does. */
	bool clean, told;
	char end[256];
	int grave_fd; /* owned; -1: none */
	struct loop_fd grave_source;
	struct loop_timer grave_deadline;
	bool stuck;              /* its members are shown as faulty for that */
	bool restart_wanted;     /* upgrade.c: its turn comes */
	uint32_t restart_serial; /* of the RESTART that was sent and not answered; 0: none */
	struct worker_link link;
	unsigned n_members, n_connected;
	struct worker_member members[MW_MAX_MEMBERS];
};

/* A worker for all members of the group; each listener's `worker` is set. READY comes later, by
 * listener_retry. 0 / -errno (text left): nothing changed, except that a program which cannot be
 * run makes the members FAILED. */
int worker_start(struct manager *m, struct mdev_group *group);
/* It is ready, and can be given a connection to mdev, one of its members. */
bool worker_takes(struct worker *w, const struct umdev_mdev *mdev);
/* It was configured and is not on its way out: what it was told is what a client will get. */
bool worker_serves(const struct worker *w);
/* Hands a duplicate of fd to mdev's member. 0 / -errno (text left) */
int worker_connect(struct worker *w, struct umdev_mdev *mdev, int fd);
/* core_ops.param_live (the change is mdev->param_pending, param_value) and .disconnect. */
int worker_param_set(struct worker *w, struct umdev_mdev *mdev);
void worker_disconnect(struct worker *w, struct umdev_mdev *mdev, bool force);
/* core_ops.resource; NULL: w has no such member. */
struct core_resource;
struct worker_member *worker_member_of(struct worker *w, const struct umdev_mdev *mdev);
int worker_resource(struct worker_member *member, const struct core_resource *what);
/* mdev (not connected) goes away; the worker's last member takes it with it. */
void worker_forget(struct worker *w, struct umdev_mdev *mdev);
/* Who is to be served may have changed (a connection was refused, a device is started or no
 * longer): it is told, or stopped when nobody is left, from the loop. */
void worker_check_idle(struct worker *w);
/* Ask all members' connections to close and the process to exit. No-op when it was asked. */
void worker_stop(struct worker *w);
/* SIGKILL now; the rest follows when it is reaped. */
void worker_kill(struct worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The worker of that record, which a manager before us started; its members are added before the
 * loop runs. NULL: it is gone, or no memory. */
struct worker *worker_adopt(struct manager *m, const struct worker_record *record);
/* Why mdev, which w serves, is not as it should be. */
void worker_adopt_explain(const struct worker *w, struct umdev_mdev *mdev);
/* connected: its client was served. -EINVAL (text left): the record cannot be true. */
int worker_adopt_member(struct worker *w, const struct worker_record *record,
			struct umdev_mdev *mdev, bool connected);
/* False: no worker has mdev as a member. */
bool worker_describe(const struct umdev_mdev *mdev, struct worker_record *ret);

/* May it be spoken to? */
static inline bool worker_is_foreign(const struct worker *w)
{
	return w->messages != MW_VERSION;
}

/* Between the files of it: worker_spawn.c makes the process, worker_adopt.c finds one,
 * worker_proc.c owns its life, worker_resources.c gives and takes resources while it runs,
 * worker_answers.c judges what it says. */
void worker_resources_go_on(struct worker_member *member);
/* RES_DONE. False: nothing of that serial was asked. */
bool worker_resource_done(struct worker_member *member, uint32_t serial, int error);
void worker_resources_drop(struct worker_member *member); /* it is gone: all are answered */
void worker_ready(struct worker *w);                      /* MW_STARTING -> MW_READY */
void worker_frame_arrived(struct worker_link *link, const struct mw_frame *f);
#define WORKER_READY_MS \
	5000 /* exec, load, allocate: some ms; QEMU waits 5 s for its first answer */
struct worker *worker_new(struct manager *m, uint32_t group); /* NULL: no memory */
/* Queues a frame; fds are taken. A worker that cannot be sent to is ended. */
void worker_send(struct worker *w, const uint8_t *frame, int len, const int *fds, unsigned n_fds);
/* May an error be over when the next client comes? */
static inline bool worker_is_shortage(int error)
{
	return error == -ENOMEM || error == -EAGAIN || error == -EMFILE || error == -ENFILE ||
	       error == -ENOSPC;
}
/* Neither our fault nor its: ends it, by a failure of its devices or not. */
void worker_unreachable(struct worker *w, int error);
/* A process group and signals of its own. 0 / errno */
int worker_spawn_attr(posix_spawnattr_t *attr);
/* From now on its end is noticed and cleans up. 0 / -errno */
int worker_watch(struct worker *w, pid_t pid, int pidfd);
char *worker_rendezvous_path(struct manager *m, uint32_t group);
/* Process and grave are gone: the devices are given back. Frees w. */
void worker_release(struct worker *w);
/* The same without waiting for that; the end of this process is near. */
void worker_abandon(struct worker *w);

/* worker_grave.c */
#define WORKER_GRAVE ".grave" /* behind the group, in $UMDEV_RUN/worker */
#define WORKER_STUCK_TEXT "requests of its worker, which is dead, do not end"
int worker_grave_make(struct worker *w);  /* write end for the worker, or -errno (text left) */
void worker_grave_find(struct worker *w); /* that a manager before us made */
bool worker_grave_is_quiet(const struct worker *w);
void worker_grave_wait(struct worker *w); /* worker_release comes from the loop */
void worker_grave_remove(struct worker *w);

#endif
