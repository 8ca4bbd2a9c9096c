/* SPDX-License-Identifier: MIT */
/*
 * What the manager may tell a worker, one function per row of wire/mw.h. Each commits the frame
 * (the cursor moves) together with what it changes, and does the rest afterwards from the
 * committed half, where a successor finds it.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/internal.h"

#define FRAME_MAX 512

void commit_frame(struct worker *w, struct worker_half *next, const struct conn_msg *msg)
{
	conn_consume(&next->cursor, msg);
	worker_commit(w);
}

static int exec_config(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct worker_half *next;
	uint8_t ready[FRAME_MAX];

	if (w->half->config_len)
		return -EPROTO;
	err_clear();
	if (members_load(w, msg->data, msg->len, msg->fds)) {
		worker_fail(w, err_text(-EINVAL));
		return 0;
	}
	if (worker_media_start(w)) {
		worker_fail(w, "cannot watch what its media do");
		return 0;
	}
	memcpy(w->shared->config, msg->data, msg->len);
	next = worker_begin(w);
	next->config_len = msg->len;
	commit_frame(w, next, msg);
	if (members_attach(w, UMDEV_FRESH)) {
		worker_fail(w, err_text(-EINVAL));
		return 0;
	}
	next = worker_begin(w);
	next->ready = 1;
	channel_say(w, next, ready, mw_put_plain(ready, sizeof(ready), MW_READY_MSG, 0, 0));
	worker_commit(w);
	return 0;
}

/* The descriptor is named by the half until the presentation's own state names it. */
void take_connection(struct member *m)
{
	struct worker *w = m->worker;
	struct worker_half *next;
	int error = 0;

	if (vfio_server_state(m->dev.vfio) == VFIO_CLOSED)
		error = vfio_server_connect(m->dev.vfio, w->half->connect_fd[m->index]);
	if (error)
		strcpy(m->closed_text, strerror(-error));
	next = worker_begin(w);
	next->connect_fd[m->index] = -1;
	if (error)
		next->closed[m->index] = 1 + VFIO_CLOSE_FAULT;
	worker_commit(w);
}

static int exec_connect(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct worker_half *next;

	if (w->half->connected >> f->member & 1)
		return -EPROTO; /* one connection at a time, and its CLOSED comes first */
	next = worker_begin(w);
	next->connected |= 1u << f->member;
	next->connect_fd[f->member] = msg->fds[0];
	commit_frame(w, next, msg);
	take_connection(&w->members[f->member]);
	members_tell_group(w);
	return 0;
}

struct param_change {
	const struct umdev_param *desc;
	const struct umdev_value *value;
	struct conn *channel;
};

static int run_param_hook(struct umdev_device *dev, void *arg)
{
	const struct param_change *change = arg;
	int error = 0;

	if (dev->type->ops->param_set)
		error = dev->type->ops->param_set(dev, change->desc, change->value);
	conn_untry(change->channel); /* whatever we die of now, it was not the hook */
	return error;
}

/* The new value is kept for successors: CONFIG has the old one. */
static void store_param(struct member *m, struct device_param *p, const struct umdev_value *value)
{
	struct worker_param *slot = &m->shared->params[p - m->dev.params];
	uint32_t spare = slot->which == 1 ? 2 : 1;

	slot->value[spare - 1] = *value;
	ab_barrier();
	slot->which = spare;
	p->value = *value;
}

static int set_param(struct member *m, const struct mw_param *param)
{
	struct device_param *p = device_param_find(&m->dev, param->name);
	struct conn *channel = &m->worker->channel;
	struct param_change change = { .value = &param->value, .channel = channel };
	int error;

	if (!p)
		return -ENOENT;
	if (p->desc.type != param->type)
		return -EINVAL;
	/* A life died of this very change, or was killed because it hung: not once more. */
	if (conn_try(channel, &m->worker->half->cursor) > 1)
		return -EIO;
	change.desc = &p->desc;
	error = vfio_server_event(m->dev.vfio, run_param_hook, &change);
	if (!error)
		store_param(m, p, &param->value);
	return error;
}

/* A death between the hook's commit and ours sets the same value once more, which is harmless. */
static int exec_param_set(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct mw_param param;
	struct worker_half *next;
	uint8_t frame[FRAME_MAX];
	int error = mw_get_param_set(f, &param);

	if (error)
		return error;
	error = set_param(&w->members[f->member], &param);
	next = worker_begin(w);
	channel_say(w, next, frame,
		    mw_put_param_done(frame, sizeof(frame), f->member, f->serial, -error));
	commit_frame(w, next, msg);
	return 0;
}

static void on_stop_deadline(struct loop_timer *timer)
{
	struct worker *w = container_of(timer, struct worker, stop_deadline);

	log_error("could not stop in time: requests in flight did not end");
	loop_stop(&w->loop, 1);
}

void stop_all(struct worker *w)
{
	uint64_t now = loop_now_ns();

	loop_timer_arm(&w->loop, &w->stop_deadline,
		       w->half->stop_at_ns > now ? w->half->stop_at_ns - now : 1, on_stop_deadline);
	for (unsigned i = 0; i < w->n_members; i++)
		vfio_server_disconnect(w->members[i].dev.vfio, VFIO_CLOSE_STOPPED,
				       "the device was stopped");
}

static int exec_stop(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct worker_half *next;
	enum mw_stop_mode mode;
	uint32_t deadline_ms;
	int error = mw_get_stop(f, &mode, &deadline_ms);

	if (error || (f->member == MW_ALL && mode == MW_STOP_ASK))
		return -EPROTO;
	next = worker_begin(w);
	if (f->member == MW_ALL) {
		next->stopping = 1;
		next->stop_at_ns = loop_now_ns() + deadline_ms * 1000000ULL;
	}
	commit_frame(w, next, msg);
	if (f->member == MW_ALL)
		stop_all(w);
	else if (mode == MW_STOP_ASK)
		vfio_server_ask_release(w->members[f->member].dev.vfio);
	else
		vfio_server_disconnect(w->members[f->member].dev.vfio, VFIO_CLOSE_STOPPED,
				       "the device was stopped");
	return 0;
}

static int may_restart(struct worker *w, const struct mw_versions *versions)
{
	int error;

	err_clear();
	error = versions_check(versions);
	for (unsigned i = 0; i < w->n_members && !error; i++)
		error = versions_check_type(versions, w->members[i].dev.driver->name,
					    w->members[i].dev.type);
	return error;
}

/* The reason not to; else this life ends here, between two requests, and the next one answers. */
static int exec_restart(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct mw_restarted done = { 0 };
	struct mw_versions versions;
	struct worker_half *next;
	uint8_t frame[FRAME_MAX];
	int error = mw_get_restart(f, &versions);

	if (error || !f->serial || !w->half->ready)
		return -EPROTO;
	error = may_restart(w, &versions);
	next = worker_begin(w);
	if (error) {
		done.error = -error;
		str_format(done.text, sizeof(done.text), "%s", err_text(error));
		channel_say(w, next, frame,
			    mw_put_restarted(frame, sizeof(frame), f->serial, &done));
	} else {
		w->shared->restart_error = ECANCELED; /* until the keeper has tried */
		next->restart = f->serial;
		loop_stop(&w->loop, WORKER_EXIT_RESTART);
	}
	commit_frame(w, next, msg);
	return 0;
}

static int exec_ping(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct worker_half *next = worker_begin(w);
	uint8_t frame[FRAME_MAX];

	channel_say(w, next, frame, mw_put_plain(frame, sizeof(frame), MW_PONG, 0, f->serial));
	commit_frame(w, next, msg);
	return 0;
}

static int exec_hold(struct worker *w, const struct mw_frame *f, const struct conn_msg *msg)
{
	struct worker_half *next;

	if (f->serial > 1)
		return -EPROTO;
	next = worker_begin(w);
	next->held = f->serial;
	commit_frame(w, next, msg);
	return 0;
}

static const struct {
	int (*exec)(struct worker *, const struct mw_frame *, const struct conn_msg *);
	bool member; /* the frame is for one member, which must exist */
} commands[] = {
	[MW_CONFIG] = { exec_config, false },      [MW_CONNECT] = { exec_connect, true },
	[MW_PARAM_SET] = { exec_param_set, true }, [MW_RES_ADD] = { exec_res_add, true },
	[MW_RES_DEL] = { exec_res_del, true },     [MW_STOP] = { exec_stop, false },
	[MW_PING] = { exec_ping, false },          [MW_RESTART] = { exec_restart, false },
	[MW_HOLD] = { exec_hold, false },          [MW_RES_SIZE] = { exec_res_size, true },
};

int worker_execute(struct worker *w, const struct conn_msg *msg)
{
	struct mw_frame f;
	int error = mw_decode(msg->data, msg->len, msg->n_fds, true, &f);
	bool for_all = !error && f.type == MW_STOP && f.member == MW_ALL;

	if (error)
		return error;
	if ((commands[f.type].member || f.type == MW_STOP) && !for_all && f.member >= w->n_members)
		return -EPROTO;
	return commands[f.type].exec(w, &f, msg);
}
