/* SPDX-License-Identifier: MIT */
/* Connections of the control socket: buffers, order, who may what. control.h has the rules. */
#include "manager/control.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "manager/manager.h"
#include "manager/service.h"

#define NS_PER_S 1000000000ull
#define MAX_CLIENTS 64                /* of other users, so that they cannot take all descriptors */
#define OUT_PAUSE (256u << 10)        /* unread answers: no further call is taken */
#define OUT_MAX (2 * VARLINK_MSG_MAX) /* unread events: the monitor is dropped */
#define MONITOR_MAX (1u << 20)
#define PAGE_ITEMS 500
#define GRACE_S 10 /* for a client to read why it is dropped */

/*
 * A connection. CLIENT_READY takes calls; the others keep what was sent in `in` for later.
 */
enum client_state {
	CLIENT_READY,    /* accepted; an answer was given. Ended by a call, hang-up */
	CLIENT_LATER,    /* the call's answer comes through `wait`. Ended by it */
	CLIENT_PAGES,    /* pages of `reply` are left; they follow as it reads. Ended by the last */
	CLIENT_MONITOR,  /* gets events until it hangs up or does not read */
	CLIENT_DROPPING, /* only what is in `out` is still sent; then, or after GRACE_S, closed */
};

struct client { /* owned by control->clients */
	struct list_node node;
	struct control *control;
	struct loop_fd source;
	int fd;
	struct control_peer peer;
	enum client_state state;
	bool oneway; /* the call under way wants no answer */
	struct attr_wait wait;
	/* Owned. CLIENT_LATER: what the answer will hold, or NULL. CLIENT_PAGES: all of it. */
	json_t *reply;
	const char *list; /* CLIENT_PAGES: the array in it ... */
	size_t n_given;   /* ... and how much of that was given */
	struct loop_timer grace;
	struct loop_defer more; /* calls are left in `in` and nothing else would wake us */
	size_t in_len, out_len, out_size;
	char *out; /* out_len bytes that are not sent yet */
	char in[VARLINK_CALL_MAX];
};

struct control { /* owned by the manager */
	struct manager *manager;
	int fd;
	bool inherited; /* fd: by the service manager, which owns the name, too */
	char *path;
	struct loop_fd source;
	struct list_node clients;
	unsigned n_others; /* clients that are not trusted */
	uint64_t full_ns;  /* when that they are too many was last logged */
};

static void client_free(struct client *c)
{
	if (c->state == CLIENT_LATER)
		attr_cancel(&c->wait);
	json_decref(c->reply);
	loop_timer_cancel(&c->grace);
	loop_defer_cancel(&c->more);
	loop_remove(&c->source);
	close(c->fd);
	list_remove(&c->node);
	if (!c->peer.trusted)
		c->control->n_others--;
	free((gid_t *)c->peer.user.groups);
	free(c->out);
	free(c);
}

/* ---- output ---- */

/* What is left of out goes. 0 / -errno: the client is gone. */
static int flush(struct client *c)
{
	size_t sent = 0;
	uint32_t events = c->in_len < sizeof(c->in) ? EPOLLIN : 0;

	while (sent < c->out_len) {
		ssize_t n = send(c->fd, c->out + sent, c->out_len - sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			sent += (size_t)n;
	}
	if (sent)
		memmove(c->out, c->out + sent, c->out_len - sent);
	c->out_len -= sent;
	return loop_set_events(&c->source, c->out_len ? events | EPOLLOUT : events);
}

/* Appends a message (NULL: there was no memory for it). -ENOBUFS: over the bound. */
static int append(struct client *c, const char *text, size_t len)
{
	if (!text)
		return -ENOMEM;
	if (len > OUT_MAX - c->out_len)
		return -ENOBUFS;
	if (len > c->out_size - c->out_len) {
		size_t size = 2 * (c->out_len + len);
		char *out = realloc(c->out, size);

		if (!out)
			return -ENOMEM;
		c->out = out;
		c->out_size = size;
	}
	memcpy(c->out + c->out_len, text, len);
	c->out_len += len;
	return 0;
}

static int append_error(struct client *c, const char *name, json_t *params)
{
	size_t len = 0;
	_cleanup_free_ char *text = varlink_error_text(name, params, &len);

	return append(c, text, len);
}

/* Takes params. An answer that is too long becomes an error. */
static int append_reply(struct client *c, json_t *params, bool continues)
{
	size_t len = 0;
	_cleanup_free_ char *text = varlink_reply_text(params, continues, &len);

	if (text && len > VARLINK_MSG_MAX) {
		err_set(-EMSGSIZE, "the answer is longer than %u bytes: ask for less",
			VARLINK_MSG_MAX);
		return append_error(c, "io.umdev.Error", control_error_json(-EMSGSIZE));
	}
	return append(c, text, len);
}

/* The answer of the call under way. 0 / -errno: the client cannot be served any longer. */
static int answer(struct client *c, int result, json_t *params)
{
	if (c->oneway) {
		json_decref(params);
		return 0;
	}
	if (result < 0) {
		json_decref(params);
		return append_error(c, "io.umdev.Error", control_error_json(result));
	}
	return append_reply(c, params, c->state == CLIENT_MONITOR);
}

/* The next part of a list that was asked for with `more`. 1 / -errno: the client is lost. */
static int next_page(struct client *c)
{
	const json_t *all = json_object_get(c->reply, c->list);
	size_t end = c->n_given + PAGE_ITEMS, size = json_array_size(all);
	json_t *page;
	int r = control_json_reserve();

	if (r < 0)
		return r;
	page = json_array();
	for (; c->n_given < end && c->n_given < size; c->n_given++)
		control_append(&page, json_incref(json_array_get(all, c->n_given)));
	page = page ? json_pack("{s:o}", c->list, page) : NULL;
	if (!page)
		return -ENOMEM;
	r = append_reply(c, page, c->n_given < size);
	if (c->n_given == size) {
		json_decref(TAKE(c->reply));
		c->state = CLIENT_READY;
	}
	return r < 0 ? r : 1;
}

/* ---- calls ---- */

static void take_calls(struct client *c);

static void more_calls(struct loop_defer *defer)
{
	take_calls(container_of(defer, struct client, more));
}

static void answered_later(struct attr_wait *wait, int result)
{
	struct client *c = container_of(wait, struct client, wait);

	c->state = CLIENT_READY;
	if (answer(c, result, TAKE(c->reply)) < 0)
		c->state = CLIENT_DROPPING;
	/* Not from inside the core: the rest when it has returned. */
	loop_defer(&c->control->manager->loop, &c->more, more_calls);
}

static const struct control_method *find_method(const char *name)
{
	const struct control_method *method = control_methods;

	while (method->name && strcmp(method->name, name) != 0)
		method++;
	return method->name ? method : NULL;
}

static bool is_our_interface(const char *method)
{
	const char *dot = strrchr(method, '.');
	size_t len = dot ? (size_t)(dot - method) : 0;

	return (len == 8 && strncmp(method, "io.umdev", 8) == 0) ||
	       (len == 19 && strncmp(method, "org.varlink.service", 19) == 0);
}

static int refuse_method(struct client *c, const char *name)
{
	if (is_our_interface(name))
		return append_error(c, VARLINK_METHOD_NOT_FOUND,
				    json_pack("{s:s}", "method", name));
	return append_error(c, VARLINK_INTERFACE_NOT_FOUND, json_pack("{s:s}", "interface", name));
}

static int run_method(struct client *c, const struct control_method *method,
		      const struct varlink_call *call)
{
	json_t *reply = NULL;
	int r;

	err_clear();
	if (method->changes && !c->peer.trusted) {
		err_set(-EPERM, "only root, the user of umdevd and its control_group may do that");
		return answer(c, -EPERM, NULL);
	}
	c->wait = (struct attr_wait){ .done = answered_later };
	c->state = CLIENT_LATER;
	r = method->run(c->control->manager, &c->peer, call->params, &c->wait, &reply);
	if (r == TREE_LATER) {
		c->reply = reply;
		return 0;
	}
	if (r == 0 && method->list && call->more) {
		c->state = CLIENT_PAGES;
		c->reply = reply;
		c->list = method->list;
		c->n_given = 0;
		return 0;
	}
	c->state = method->stays && r == 0 ? CLIENT_MONITOR : CLIENT_READY;
	return answer(c, r, reply);
}

static int handle_call(struct client *c, const struct varlink_call *call)
{
	const struct control_method *method = find_method(call->method);
	const char *bad;

	c->oneway = call->oneway;
	if (!method)
		return c->oneway ? 0 : refuse_method(c, call->method);
	bad = varlink_check(call->params, method->params);
	if (bad)
		return c->oneway ? 0
				 : append_error(c, VARLINK_INVALID_PARAMETER,
						json_pack("{s:s}", "parameter", bad));
	if (method->stays && !call->more)
		return c->oneway ? 0 : append_error(c, VARLINK_EXPECTED_MORE, NULL);
	return run_method(c, method, call);
}

/* 1: a call was taken; 0: there is none; -errno: the client breaks the protocol. */
static int take_call(struct client *c)
{
	int64_t len = varlink_len(c->in, c->in_len, sizeof(c->in));
	struct varlink_call call;
	int r;

	if (len <= 0)
		return (int)len;
	r = control_json_reserve();
	if (r < 0)
		return r;
	r = varlink_parse_call(c->in, (size_t)len - 1, &call);
	c->in_len -= (size_t)len;
	memmove(c->in, c->in + len, c->in_len);
	if (r < 0)
		return r;
	r = handle_call(c, &call);
	varlink_call_fini(&call);
	return r < 0 ? r : 1;
}

static void grace_is_over(struct loop_timer *timer)
{
	client_free(container_of(timer, struct client, grace));
}

static void drop(struct client *c, const char *why)
{
	log_warning("control: client of uid %u dropped: %s", (unsigned)c->peer.user.uid, why);
	if (c->state == CLIENT_LATER)
		attr_cancel(&c->wait);
	c->state = CLIENT_DROPPING;
	c->in_len = 0;
	loop_timer_arm(&c->control->manager->loop, &c->grace, GRACE_S * NS_PER_S, grace_is_over);
}

static bool takes_more(const struct client *c)
{
	return c->state == CLIENT_READY || c->state == CLIENT_PAGES;
}

/* As many as may be taken now, then everything there is to send. May free c. */
static void take_calls(struct client *c)
{
	int r = 1;

	while (r > 0 && takes_more(c) && c->out_len < OUT_PAUSE)
		r = c->state == CLIENT_PAGES ? next_page(c) : take_call(c);
	if (r < 0)
		drop(c, r == -EPROTO ? "it sent something that is no Varlink call" : strerror(-r));
	if (flush(c) < 0 || (c->state == CLIENT_DROPPING && !c->out_len)) {
		client_free(c);
		return;
	}
	if (r > 0 && takes_more(c) && !c->out_len)
		loop_defer(&c->control->manager->loop, &c->more, more_calls);
}

/* ---- connections ---- */

static void client_event(struct loop_fd *source, uint32_t revents)
{
	struct client *c = container_of(source, struct client, source);
	ssize_t n = 0;

	if (revents & EPOLLIN) {
		n = recv(c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			client_free(c);
			return;
		}
		if (n > 0 && c->state != CLIENT_DROPPING)
			c->in_len += (size_t)n;
	} else if (revents & (EPOLLHUP | EPOLLERR)) {
		client_free(c);
		return;
	}
	take_calls(c);
}

/* Who it is; its groups are to be freed. 0 / -errno: it is dead already, or no memory. */
static int identify(const struct settings *settings, int fd, struct control_peer *ret)
{
	struct sock_peer peer;
	gid_t *groups;
	int n, r = sock_peer(fd, &peer);

	if (r < 0)
		return r;
	if (peer.pidfd >= 0)
		close(peer.pidfd);
	n = sock_peer_groups(fd, &groups);
	if (n < 0)
		return n;
	*ret = (struct control_peer){
		.user = { .uid = peer.uid,
			  .gid = peer.gid,
			  .groups = groups,
			  .n_groups = (unsigned)n },
		.trusted = peer.uid == 0 || peer.uid == geteuid(),
	};
	if (settings->has_control_group)
		ret->trusted |= tree_user_in_group(&ret->user, settings->control_group);
	return 0;
}

/* Takes what identify gave, when it succeeds. */
static struct client *client_new(struct control *control, int fd, const struct control_peer *peer)
{
	struct client *c;

	if (!peer->trusted && control->n_others >= MAX_CLIENTS)
		return NULL;
	c = malloc(sizeof(*c));
	if (!c)
		return NULL;
	*c = (struct client){
		.control = control,
		.source = LOOP_FD_INIT,
		.fd = fd,
		.peer = *peer,
	};
	if (loop_add(&control->manager->loop, &c->source, fd, EPOLLIN, client_event) < 0) {
		free(c);
		return NULL;
	}
	control->n_others += !peer->trusted;
	list_append(&control->clients, &c->node);
	return c;
}

static void accept_client(struct loop_fd *source, uint32_t revents)
{
	struct control *control = container_of(source, struct control, source);
	int fd = manager_accept(control->manager, control->fd);
	struct control_peer peer;
	uint64_t now;

	if (fd < 0)
		return;
	if (identify(&control->manager->settings, fd, &peer) < 0) {
		close(fd);
		return;
	}
	if (!client_new(control, fd, &peer)) {
		free((gid_t *)peer.user.groups);
		close(fd);
		now = loop_now_ns();
		if (now - control->full_ns >= NS_PER_S)
			log_warning("control: no room for a client of uid %u",
				    (unsigned)peer.user.uid);
		control->full_ns = now;
	}
}

static void tell(struct client *c, json_t *event)
{
	int r = c->out_len > MONITOR_MAX
			? -ENOBUFS
			: append_reply(c, json_pack("{s:O}", "event", event), true);

	if (r < 0) {
		err_clear();
		err_set(-ENOBUFS, "events were lost, because this client does not read them");
		append_error(c, "io.umdev.Error", control_error_json(-ENOBUFS));
		drop(c, "it monitors and does not read");
	}
	/* Events come from inside the core: nothing is freed here. */
	loop_defer(&c->control->manager->loop, &c->more, more_calls);
}

void control_event(struct control *control, const struct core_event *event)
{
	json_t *json = NULL;
	struct client *c;

	list_for_each(c, &control->clients, node) {
		if (c->state != CLIENT_MONITOR)
			continue;
		if (!json)
			json = control_event_json(event);
		if (!json)
			return;
		tell(c, json);
	}
	json_decref(json);
}

/* What umdev.conf says holds; without, what somebody gave the socket of the umdevd before us. A
 * socket of the service manager is its own to set. */
static int set_rights(const struct settings *s, const char *path)
{
	if (s->has_control_group && chown(path, (uid_t)-1, s->control_group) < 0)
		return -errno;
	if (s->has_control_mode && chmod(path, s->control_mode) < 0)
		return -errno;
	return 0;
}

int control_open(struct manager *m, struct control **ret)
{
	_cleanup_free_ char *path = config_run_path(&m->config, "control");
	struct control *control = path ? malloc(sizeof(*control)) : NULL;
	int r;

	if (!control)
		return -ENOMEM;
	*control = (struct control){ .manager = m, .source = LOOP_FD_INIT };
	list_init(&control->clients);
	control->fd = service_take_socket();
	control->inherited = control->fd >= 0;
	if (control->fd == -ENOENT)
		control->fd = sock_relisten(path, 0660);
	r = control->fd;
	if (r >= 0 && !control->inherited)
		r = set_rights(&m->settings, path);
	if (r >= 0)
		r = loop_add(&m->loop, &control->source, control->fd, EPOLLIN, accept_client);
	if (r < 0) {
		err_set(r, "cannot listen on %s: %s", path, strerror(-r));
		if (control->fd >= 0)
			close(control->fd);
		free(control);
		return r;
	}
	control->path = TAKE(path);
	*ret = control;
	return 0;
}

void control_close(struct control *control)
{
	struct client *c;

	if (!control)
		return;
	while ((c = list_first(&control->clients, struct client, node)))
		client_free(c);
	loop_remove(&control->source);
	close(control->fd);
	if (!control->inherited && !control->manager->keep)
		unlink(control->path);
	free(control->path);
	free(control);
	control_json_release();
}
