/* SPDX-License-Identifier: MIT */
/*
 * The parent half of a driver: what runs in umdevd, the manager.
 *
 * It says which types a parent gives, what they cost, and opens what a device needs (files, ptys,
 * sockets). It is trusted code, runs in the manager's only thread, must never block and never sees
 * a byte that a guest or a device client sent.
 *
 * Order of calls for one parent:  add, { mdev_create, { param_check, resources }*, mdev_destroy }*,
 * remove. Every hook is optional unless it says "required".
 *
 * A manager may be killed or replaced at any point of that. Its successor calls add and mdev_create
 * again for what was there: what exists outside (a file, a name) is found then, not made anew. And
 * resources_end may come without `resources`, which was called by the manager before.
 */
#ifndef UMDEV_PARENT_H
#define UMDEV_PARENT_H

#include <stddef.h>
#include <stdint.h>
#include <umdev/abi.h>
#include <umdev/param.h>

#define UMDEV_MAX_POOLS 4
#define UMDEV_MAX_RESOURCES 32

struct umdev_parent; /* one resource, owned by the core */
struct umdev_mdev;   /* one mediated device, owned by the core */
struct umdev_object; /* something else that a parent has (a volume), owned by the core */
struct attr_wait;    /* somebody who waits for the answer to a write */

/* Of a store, and of mdev_create: the answer comes later. */
#define UMDEV_LATER 1

/* What a file belongs to; NULL: to nothing of that kind. */
struct umdev_place {
	struct umdev_parent *parent;
	struct umdev_mdev *mdev;
	struct umdev_object *object;
};

/* A file of the driver's own. Static and const. */
struct umdev_attr {
	const char *name;
	unsigned mode; /* permission bits */
	/* At most size bytes of text into buf, with a newline; its length or -errno. NULL: 02xx */
	int (*show)(const struct umdev_place *place, char *buf, size_t size);
	/* text is NUL-terminated behind len bytes. 0; -errno (explained); UMDEV_LATER: wait was
	 * given to umdev_answer_hold. The place may be gone afterwards. NULL: 04xx */
	int (*store)(const struct umdev_place *place, const char *text, size_t len,
		     struct attr_wait *wait);
};

/* P/<name>/: files of its own, and a directory of files for each object. */
struct umdev_folder {
	const char *name;
	const struct umdev_attr *attrs, *object_attrs; /* ended by name == NULL */
};

/* A counted resource of a parent. sum of the costs of live mdevs + free = capacity, always. */
struct umdev_pool {
	/* "ports", "queue-pairs": also the unit of aggregation. Exhausted: ENOSPC; "instances", the
	 * kernel's max_instances: EUSERS. */
	const char *name;
	uint64_t capacity; /* default; hooks->add may change it per parent */
};

/* A shape that a parent can give. Static and const. */
struct umdev_type {
	const char *name;        /* shown as <driver>-<name>, so "1" gives mtty-1 */
	const char *pretty;      /* the `name` attribute; NULL: name */
	const char *description; /* NULL: no description attribute */
	const char *device_api;  /* "vfio-pci"; for vDPA types the name of the virtio device */
	/* "serial" "block" "net" "nvme" "display" "misc": says what parameters may be called */
	const char *class_name;
	/* Another name of the device's socket in its directory, that clients look for; or NULL */
	const char *socket_alias;
	const struct umdev_param *const *params; /* NULL-terminated, or NULL */
	/* Units taken per device: cost + scale * (aggregation - 1). scale 0: does not scale. */
	struct {
		uint64_t cost, scale;
	} pool[UMDEV_MAX_POOLS];
	const struct umdev_attr *attrs; /* further files of D/vendor/, ended by name == NULL */
	uint32_t max_aggregation;       /* 0 or 1: no aggregation parameter */
	/* A driver that cannot make a device smaller, or larger again: UMDEV_W_ONCE, UMDEV_W_FRESH.
	 * 0: UMDEV_W_IDLE. */
	enum umdev_param_writable aggregation_writable;
	bool p2p;             /* devices have peer_to_peer_resource_uuid */
	uint32_t max_members; /* with p2p, of a group that has one of these in it; 0: no limit */
	bool label;           /* devices have the `label` parameter (most do) */
};

/*
 * Something opened by the manager and handed to the device half, found there by its name
 * (umdev_resource_fd, umdev_stream_*). The descriptor is consumed by umdev_resource_add.
 */
enum umdev_resource_flags {
	UMDEV_RES_READ = 1 << 0,
	UMDEV_RES_WRITE = 1 << 1,
	UMDEV_RES_STREAM =
		1 << 2, /* a byte stream: pty master, socket, pipe, plain file (append) */
	UMDEV_RES_LISTEN = 1 << 3, /* with STREAM: a listening socket, one peer at a time */
	UMDEV_RES_PTY = 1 << 4,    /* with STREAM: a pty master; EIO means "nobody has it open" */
	UMDEV_RES_MEDIUM = 1 << 5, /* a file or block device, `length` bytes from `offset` on
				    * (umdev/media.h); /dev/null moves nothing, successfully */
	/* A sealed memfd (F_SEAL_SHRINK), `length` bytes from its start, mapped for the device half
	 * (umdev_resource_mem). Named "bar<n>" it is the memory of that UMDEV_BAR_MMAP BAR, whose
	 * size is `length` then: a power of two, at most what the device half declares. */
	UMDEV_RES_MEMORY = 1 << 6,
};

/* What was asked of a worker that runs: umdev_resource_send, _withdraw, _grow. */
enum umdev_resource_call { UMDEV_RES_SEND, UMDEV_RES_WITHDRAW, UMDEV_RES_GROW };

struct umdev_resources;
/* Returns 0 or -errno (EINVAL name, ENOSPC more than UMDEV_MAX_RESOURCES); fd is consumed always.
 */
int umdev_resource_add(struct umdev_resources *list, const char *name, int fd, uint32_t flags,
		       uint64_t offset, uint64_t length);

/*
 * The driver. Static, const. All hooks run in the manager and return 0 or -errno; the errno is
 * what the writer of the attribute sees, the line given to umdev_explain() what a person sees.
 */
struct umdev_parent_driver {
	uint32_t abi;                   /* UMDEV_ABI */
	const char *name;               /* "mtty": also the vendor driver's name on bus mdev */
	const char *class_name;         /* class of parents in the tree; NULL: "umdev" */
	const char *summary;            /* one line for `umdev parent add --help` */
	const struct umdev_type *types; /* array, ended by name == NULL */
	const struct umdev_pool *pools; /* array, ended by name == NULL; NULL: no pools */
	const struct umdev_param *const *params; /* of the parent: parent add key=value; or NULL */

	/* Open the resource. May call umdev_pool_resize. Failure: the parent does not appear. */
	int (*add)(struct umdev_parent *parent);
	/* No mdev is left. Must succeed. */
	void (*remove)(struct umdev_parent *parent);
	/* Units are taken, parameters hold their values (those given at create are judged here:
	 * param_check is for later changes); not yet visible. Undo all on failure. UMDEV_LATER:
	 * umdev_mdev_created follows, unless mdev_destroy comes first; not for a device that
	 * umdev_mdev_is_restored. */
	int (*mdev_create)(struct umdev_mdev *mdev);
	/* Not connected, not visible any more. Must succeed. */
	void (*mdev_destroy)(struct umdev_mdev *mdev);
	/* `value` passed the static checks and is about to become current: refuse here, with no
	 * effect on failure. Called before a serving worker is asked. UMDEV_LATER:
	 * umdev_mdev_param_checked follows, unless mdev_destroy comes first. */
	int (*param_check)(struct umdev_mdev *mdev, const struct umdev_param *param,
			   const struct umdev_value *value);
	/* A worker starts: open what the device half needs and add it to the list. On failure what
	 * was added is closed by the caller and the connection is refused. */
	int (*resources)(struct umdev_mdev *mdev, struct umdev_resources *list);
	/* The worker is gone: take back what `resources` left outside (links, sockets' names). */
	void (*resources_end)(struct umdev_mdev *mdev);
	/* The answer to a umdev_resource_* call that returned 1: 0; -errno; -ENOTCONN: the worker
	 * went before it answered, and holds nothing any more. */
	void (*resource_done)(struct umdev_mdev *mdev, enum umdev_resource_call call,
			      const char *name, int error);
	/* optional: a worker that the manager before started serves mdev. What it has may be a
	 * change behind the model's: tell it again. */
	void (*resources_resume)(struct umdev_mdev *mdev);
	/* Directories of its own in a parent's; array, ended by name == NULL; or NULL. */
	const struct umdev_folder *folders;
	/* optional: the definition of that UUID, of a device of this parent, was deleted. */
	void (*undefined)(struct umdev_parent *parent, const char *uuid);
	/* Text of a driver's own read-only attribute of D/vendor/, at most 4096 bytes. Returns its
	 * length or -errno. `name` is one of vendor_attrs. */
	const char *const *vendor_attrs; /* NULL-terminated, or NULL */
	int (*vendor_show)(const struct umdev_mdev *mdev, const char *name, char *buf, size_t size);
};

/* Of a driver in a file of its own: what umdevd looks up. */
extern const struct umdev_parent_driver umdev_parent_driver UMDEV_SYMBOL;

/* Called by parent halves. No call keeps a pointer it was given. */

/* The driver's own pointer, NULL until set. Freed by the driver in remove / mdev_destroy. */
void *umdev_parent_priv(const struct umdev_parent *parent);
void umdev_parent_set_priv(struct umdev_parent *parent, void *priv);
void *umdev_mdev_priv(const struct umdev_mdev *mdev);
void umdev_mdev_set_priv(struct umdev_mdev *mdev, void *priv);

const char *umdev_parent_name(const struct umdev_parent *parent);
struct umdev_parent *umdev_mdev_parent(const struct umdev_mdev *mdev);
const struct umdev_type *umdev_mdev_type(const struct umdev_mdev *mdev);
const char *umdev_mdev_uuid(const struct umdev_mdev *mdev); /* 36 characters, lower case */

/* Current values. NULL when the type (the driver) does not list the parameter. Valid until the
 * parameter changes next. */
const struct umdev_value *umdev_mdev_param(const struct umdev_mdev *mdev, const char *name);
const struct umdev_value *umdev_parent_param(const struct umdev_parent *parent, const char *name);

/* In `mdev_create` only: the value of a numeric parameter that nobody writes (UMDEV_W_NEVER). 0,
 * -ERANGE (its min, max, step), -ENOMEM. */
int umdev_mdev_set_number(struct umdev_mdev *mdev, const char *name, uint64_t number);

/*
 * Media of a device that is served come, go and grow. 1: the worker is asked, resource_done follows
 * (never inside the call); 0: no worker has mdev, so its next one hears of it from `resources`;
 * -errno: nothing happened. Telling a worker what it knows already is no error.
 */
int umdev_resource_send(struct umdev_mdev *mdev, const char *name, int fd, uint32_t flags,
			uint64_t offset, uint64_t length); /* fd is consumed always */
int umdev_resource_withdraw(struct umdev_mdev *mdev, const char *name);
int umdev_resource_grow(struct umdev_mdev *mdev, const char *name, uint64_t length);

/* Descriptor of the device's directory ($RUN/dev/<uuid>), borrowed, no longer than until the end of
 * resources or of the hook: for openat, symlinkat, ... The directory goes
 * with the device's binding to its driver: -1 (and NULL below) while not bound. */
int umdev_mdev_dirfd(const struct umdev_mdev *mdev);
/* Path of that directory, for messages and for addresses of sockets. */
const char *umdev_mdev_dir(const struct umdev_mdev *mdev);

/* The end of an mdev_create that answered UMDEV_LATER; not inside of it. error: 0, or -errno and
 * all is undone: mdev is gone. */
void umdev_mdev_created(struct umdev_mdev *mdev, int error);
/* The end of a param_check that answered UMDEV_LATER; not inside of it. error: 0, or -errno and
 * nothing was changed. */
void umdev_mdev_param_checked(struct umdev_mdev *mdev, int error);
/* It was there before this manager was started. */
bool umdev_mdev_is_restored(const struct umdev_mdev *mdev);
/* A parameter follows from something that changed elsewhere: text is its new value, which is told
 * and kept as if it had been given; while it is being checked, the value that was asked for becomes
 * that. 0; -EINVAL; -ENOMEM. */
int umdev_mdev_param_follows(struct umdev_mdev *mdev, const char *name, const char *text);
/* Is a device of that UUID defined for this parent? */
bool umdev_is_defined(const struct umdev_parent *parent, const char *uuid);

/* Text (one newline at its end is allowed) as the value of a parameter like that. 0; -EINVAL,
 * -ERANGE (explained). */
int umdev_value_parse(const struct umdev_param *like, const char *text, size_t len,
		      struct umdev_value *ret);

/* Remember who waits in the empty *slot (NULL: nobody does), which is emptied when they give up. */
void umdev_answer_hold(struct attr_wait **slot, struct attr_wait *wait);
/* Answer, if somebody still waits: 0 or -errno (explained just before). */
void umdev_answer(struct attr_wait **slot, int result);

/* Objects come and go at any time between add and remove; those that are left at the end go by
 * themselves. priv is the driver's. folder: one of the driver's names. NULL: no memory; the name
 * must be free there. */
struct umdev_object *umdev_object_add(struct umdev_parent *parent, const char *folder,
				      const char *name, void *priv);
void umdev_object_remove(struct umdev_object *object);
void *umdev_object_priv(const struct umdev_object *object);

/* $UMDEV_STATE/parents/<parent>: for what must be known after the machine was restarted. A
 * descriptor for the caller, or -errno (explained). */
int umdev_parent_state_dir(const struct umdev_parent *parent);

/*
 * Work that takes time is done by the program umdev-store, in a process of its own, from a few
 * descriptors and nothing else (umdev-store(8)). A few run at once, others wait their turn. What
 * the work has changed when it is killed, or the manager is, its driver must be able to tell.
 */
struct umdev_job {
	/* 0; -errno: what the program exited with; -EINTR: it was killed. May start the next. */
	void (*done)(struct umdev_job *job, int error);
	unsigned percent; /* as far as it has come; for the driver to show */
	/* NULL: umdev-store. "umdev-screen": shows a display (umdev/screen.h) as long as it is
	 * served; runs at once, beside all others. */
	const char *program;
	void *manager; /* NULL: not under way */
};
/* args: NULL-terminated, the first is the kind of work. fds are borrowed, and 3, 4 ... there. 0 or
 * -errno. job must stay until done or umdev_job_cancel. */
int umdev_job_start(struct umdev_parent *parent, struct umdev_job *job, const char *const *args,
		    const int *fds, unsigned n_fds);
/* It ends at once, and done is not called. No-op when it is not under way. */
void umdev_job_cancel(struct umdev_parent *parent, struct umdev_job *job);
/* It goes on, whatever becomes of us; done is not called. */
void umdev_job_leave(struct umdev_parent *parent, struct umdev_job *job);

/* In `add` only. -ENOENT: no such pool. */
int umdev_pool_resize(struct umdev_parent *parent, const char *pool, uint64_t capacity);

/* Remember one line that explains the errno about to be returned. printf-like, no newline. */
void umdev_explain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
