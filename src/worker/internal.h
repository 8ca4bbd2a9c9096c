/* SPDX-License-Identifier: MIT */
/* One life of a worker: private memory, gone with it. */
#ifndef WORKER_INTERNAL_H
#define WORKER_INTERNAL_H

#include "base/loop.h"
#include "device/device.h"
#include "vfio/server.h"
#include "worker/worker.h"

struct member {
	struct umdev_device dev;
	struct worker *worker; /* owner */
	unsigned index;
	struct worker_member_shared *shared;
	void *presentation; /* its part of the state memory */
	size_t presentation_size;
	char faulty[256];      /* why, or "" */
	char closed_text[256]; /* of the last end of a connection */
};

struct worker {
	struct worker_shared *shared; /* the keeper's mapping, inherited */
	struct worker_half *half;     /* the current one */
	struct loop loop;
	struct conn channel;
	struct loop_fd channel_source, rendezvous_source;
	struct loop_defer serve, leaving;
	struct loop_timer stop_deadline;
	struct media_engine *engine; /* owned; NULL: no member needs it */
	struct queue_group *queues;  /* owned; NULL: no member has I/O queues */
	int io_fd;
	char log_name[32];    /* says which group speaks */
	bool goes_on;         /* what was owed by the life before this one is done */
	bool crashed;         /* the life before this one died by its own fault */
	uint8_t *members_map; /* state memory behind struct worker_shared */
	size_t members_size;
	struct member *members; /* owned */
	unsigned n_members;
	struct device_group group; /* the same devices, as they see each other */
};

/* worker.c */
/* A transaction of the worker's own half: change what _begin returns, then commit. Not nested. */
struct worker_half *worker_begin(struct worker *w);
void worker_commit(struct worker *w);
/* Exits when there is nothing left to do: stopped, or orphaned and idle. */
void worker_check_done(struct worker *w);
/* Tells the manager why each member fails, as far as it listens, and ends the loop with status 1.
 */
void worker_fail(struct worker *w, const char *text);

/* channel.c */
int channel_start(struct worker *w); /* 0 / -errno; repeatable after channel_lost */
/* The manager is dead: executes what it still said, then forgets it. */
void channel_finish(struct worker *w);
void channel_tell(struct worker *w); /* only what is owed to the manager */
void channel_serve(struct worker *w);
void channel_serve_soon(struct worker *w);
/* Appends a frame (len > 0) to a transaction. False: there is no manager, or no room. */
bool channel_say(struct worker *w, struct worker_half *next, const uint8_t *frame, int len);
void channel_say_state(struct worker *w, struct worker_half *next, const struct member *m);
void channel_flush_for(struct worker *w, unsigned ms); /* last words: waits for the manager */

/* commands.c: executes one frame and commits it. -EPROTO: not in the table. */
int worker_execute(struct worker *w, const struct conn_msg *msg);
void take_connection(struct member *m); /* gives connect_fd to the presentation */
void stop_all(struct worker *w);        /* of half->stopping; may repeat */

/* resources.c: those of a running member. Each executes one frame and commits it. -EPROTO. */
int exec_res_add(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg);
int exec_res_del(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg);
int exec_res_size(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg);
/* Gives what the state has to the device. 0 / -errno */
int resource_attach(struct member *m, struct worker_resource *r);
/* device.medium_leaves */
void resource_leaves(struct umdev_device *dev);
/* Closes media that leave and are idle; what is owed for them is said. */
void resources_release(struct worker *w);

/* commands.c */
void commit_frame(struct worker *w, struct worker_half *next, const struct conn_msg *msg);

/* members.c */
/* Life-long: what fails ends the worker. Decodes a CONFIG frame, maps the members' state memory,
 * allocates w->members. resources: fresh descriptors in the order of the frame, or NULL: the state
 * has them. err_set on failure. */
int members_load(struct worker *w, const uint8_t *frame, size_t len, const int *resources);
/* Attaches every member to its state. err_set on failure. */
int members_attach(struct worker *w, enum umdev_init how);
void members_each_fd(struct worker *w, void (*fn)(void *, int), void *arg);
/* Runs group_open or group_close where it is due: when the first connection is there, the last one
 * has gone. */
void members_tell_group(struct worker *w);

/* rendezvous.c */
int rendezvous_start(struct worker *w);

/* media.c */
/* Before the sandbox: a ring, unless it is known that nobody will need one. 0 / -errno. */
int worker_media_init(struct worker *w);
/* After the control thread: the queue threads enter the sandbox. 0 / -errno. */
int worker_queues_enter(struct worker *w, struct sandbox *sandbox);
/* CONFIG is known: makes what the members' queues need, or gives it up. 0 / -errno. */
int worker_queues_start(struct worker *w);
/* The same for the engine, when what nothing names is closed. 0 / -errno. */
int worker_media_start(struct worker *w);

/* sweep.c: closes every descriptor that no state and nothing of this life names. */
void worker_sweep(struct worker *w);

#endif
