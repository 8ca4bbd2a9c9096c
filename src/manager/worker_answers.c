/* SPDX-License-Identifier: MIT */
/*
 * What a worker says: judged by the row of its frame (wire/mw: state and rate; direction and sizes
 * were judged when it was decoded) and by what the manager knows. Whatever does not fit ends it.
 */
#include "manager/worker_proc.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "base/err.h"
#include "base/log.h"
#include "core/core.h"
#include "manager/listener.h"
#include "manager/upgrade.h"

#define NS_PER_S 1000000000ull

/* The owner has left with its last connection: the worker goes, too. mdev may be freed. */
static void on_closed(struct worker *w, struct worker_member *member, const char *text)
{
	struct umdev_mdev *mdev = member->mdev;
	struct listener *l = mdev->manager;

	member->connected = false;
	w->n_connected--;
	loop_timer_cancel(&member->stop_deadline);
	log_info("device %s: client left: %s", mdev->uuid_text, *text ? text : "it hung up");
	listener_drop_client(l);
	listener_retry(l);
	if (w->n_connected == 0)
		worker_stop(w);
	core_closed(mdev);
}

/* An adopted worker has said that nobody is connected. */
static void on_greeted(struct worker_member *member)
{
	member->owes_closed = false;
	if (member->mdev)
		listener_retry(member->mdev->manager);
}

static void on_resumed(struct worker *w, int signal, unsigned lives)
{
	log_warning("group %u: its worker was killed by signal %d and goes on (life %u)", w->group,
		    signal, lives);
	for (unsigned i = 0; i < w->n_members; i++) {
		if (!w->members[i].mdev ||
		    (!w->members[i].connected && !w->members[i].mdev->started))
			continue;
		core_takeover(w->members[i].mdev);
		core_resumed(w->members[i].mdev);
	}
}

static void on_param_done(struct worker_member *member, int error)
{
	member->param_serial = 0;
	member->param_under_way = false;
	loop_timer_cancel(&member->param_deadline);
	core_param_done(member->mdev, error);
}

static void on_state(struct worker_member *member, enum mw_member_state state, const char *text)
{
	const char *uuid = member->mdev->uuid_text;

	if (state == MW_MEMBER_FAULTY)
		log_error("device %s: faulty: %s", uuid, text);
	else
		log_info("device %s: well again", uuid);
	core_faulty(member->mdev, state == MW_MEMBER_FAULTY ? text : "");
}

/* Within what its row allows? Counts. */
static bool is_allowed(struct worker *w, const struct mw_rule *rule)
{
	uint64_t now = loop_now_ns();
	unsigned i = rule->type - MW_READY_MSG;

	assert(i < sizeof(w->said) / sizeof(*w->said));
	if (now - w->rate_ns >= NS_PER_S) {
		memset(w->said, 0, sizeof(w->said));
		w->rate_ns = now;
	}
	if (rule->per_second && ++w->said[i] > rule->per_second)
		return false;
	return rule->states & (1u << w->state);
}

/* Frames about one member. -EPROTO: it may not be said. */
static int on_member_frame(struct worker *w, const struct mw_frame *f)
{
	struct worker_member *member = f->member < w->n_members ? &w->members[f->member] : NULL;
	enum mw_member_state state;
	struct mw_closed closed;
	char text[256];
	int r, error;

	if (!member)
		return -EPROTO;
	switch (f->type) {
	case MW_CLOSED:
		r = member->connected || member->owes_closed ? mw_get_closed(f, &closed) : -EPROTO;
		if (r == 0 && member->connected)
			on_closed(w, member, closed.text);
		else if (r == 0)
			on_greeted(member);
		return r;
	case MW_PARAM_DONE:
		r = mw_get_param_done(f, &error);
		if (r == 0 && (!f->serial || f->serial != member->param_serial || error < 0))
			r = -EPROTO;
		if (r == 0 && member->mdev)
			on_param_done(member, error);
		return r;
	case MW_RES_DONE:
		r = mw_get_res_done(f, &error);
		if (r == 0 && !worker_resource_done(member, f->serial, error))
			r = -EPROTO;
		return r;
	case MW_STATE:
		r = mw_get_state(f, &state, text);
		if (r == 0 && member->mdev)
			on_state(member, state, text);
		return r;
	default:
		return -EPROTO;
	}
}

static int on_frame(struct worker *w, const struct mw_frame *f)
{
	struct mw_restarted done;
	int r, signal;
	uint32_t lives;

	switch (f->type) {
	case MW_READY_MSG:
		worker_ready(w);
		return 0;
	case MW_RESUMED:
		r = mw_get_resumed(f, &signal, &lives);
		if (r == 0)
			on_resumed(w, signal, lives);
		return r;
	case MW_RESTARTED:
		r = mw_get_restarted(f, &done);
		return r < 0 ? r : upgrade_answered(w, f->serial, &done);
	case MW_PONG:
		w->pong_ns = loop_now_ns();
		loop_timer_cancel(&w->pong_deadline);
		return 0;
	default:
		return on_member_frame(w, f);
	}
}

void worker_frame_arrived(struct worker_link *link, const struct mw_frame *f)
{
	struct worker *w = container_of(link, struct worker, link);
	const struct mw_rule *rule = mw_rule(f->type);

	err_clear();
	if (!is_allowed(w, rule) || on_frame(w, f) < 0)
		worker_kill(w, "its worker broke the rules: %s in state %d", rule->name, w->state);
}
