/* SPDX-License-Identifier: MIT */
/*
 * The model: parents, types, pools, mdevs, groups, parameters, and the tree that shows them.
 *
 * Knows no process, socket or message: what must happen outside is asked through struct core_ops,
 * given at init by the manager (or by umdevd --one, or a test). Single-threaded. Every door (FUSE,
 * control socket, tests) ends in the same calls below.
 *
 * Errors: -errno as docs/abi.md lists them; the line for people is left with err_set().
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/parent.h>
#include "base/list.h"
#include "base/sock.h"
#include "base/uuid.h"
#include "core/number_set.h"
#include "core/uuid_map.h"
#include "tree/tree.h"

#define CORE_MAX_PARAMS 32
#define CORE_OWN_PARAMS 6   /* at most so many of them are the core's: of a parent, of an mdev */
#define CORE_MAX_MEMBERS 32 /* mdevs of one group */
#define CORE_MAX_SET 128    /* mdevs of one mdev_start; a write of 4096 bytes names 110 */

/*
 * State of an mdev. One function (mdev_set_state) changes it and asserts the edge. docs/states.md
 * has the picture and what is legal in each.
 */
enum mdev_state {
	/* By create, before it is visible: nobody can reach it. Until published or undone. */
	MDEV_NEW,
	/* By publishing, a close when not `started`, mdev_stop, a bind after a failure: units are
	 * held, the socket listens, no worker. Until connect, start, failure, remove. */
	MDEV_IDLE,
	/* By mdev_start, or by the close of a device that is `started`: a worker is READY (or on
	 * its way for the next owner), nobody connected; counts as use. Until connect, mdev_stop,
	 * failure, forced remove. */
	MDEV_STARTED,
	/* The owner's connection was handed to the worker. Until CLOSED from the worker, its death,
	 * failure, remove. */
	MDEV_CONNECTED,
	/* Its worker died, the keeper continues it; a pause for its client. Until RESUMED, CLOSED,
	 * failure, remove. */
	MDEV_TAKEOVER,
	/* The worker could not start, or crashed too often: fail_text says why. Units are held, a
	 * connect is refused. Until unbind and bind, start, remove. */
	MDEV_FAILED,
	/* By an accepted remove: links are gone, its UUID is EEXIST, units are held until the
	 * client has left. Ends with the object. */
	MDEV_REMOVING,
};

struct mdev_group; /* core/group.h */
struct core;

/*
 * A driver's type with what the core adds to it. Immutable; built by core_init for every driver,
 * lives as long as the core.
 */
struct core_type {
	const struct umdev_parent_driver *driver;
	const struct umdev_type *desc;
	char name[64]; /* "<driver>-<type>" */
	/* Parameters of an mdev: the core's own (label, aggregation, peer_to_peer_resource_uuid),
	 * which are the first n_standard, then the driver's, in order. */
	unsigned n_params, n_standard;
	const struct umdev_param *params[CORE_MAX_PARAMS];
	struct umdev_value *defaults;      /* n_params of them, owned */
	int uid, gid, mode;                /* index of these: every type has them */
	struct umdev_param owner_descs[2]; /* of uid and gid: the default is umdevd's own */
	char owner_defs[2][12];
	int label, aggregation, p2p; /* index of these, or -1 */
	int mirror;   /* index of num_io_queues, where it shows aggregation's value; or -1 */
	bool has_mac; /* a parameter of type UMDEV_MAC: unique among all devices */
	struct umdev_param *standard; /* completed copies of what the driver lists by id, owned */
	struct umdev_param aggregation_desc; /* what differs per type ... */
	char aggregation_text[160];          /* ... its description names what scales */
	struct mdev_shape *shape; /* tree tables of it and its mdevs; core/mdev_attr.c; owned */
};

/* A type as one parent gives it. Owned by the parent. */
struct mdev_type {
	const struct core_type *info;
	const struct umdev_type *desc; /* info->desc */
	struct umdev_parent *parent;
	struct tree_node *dir; /* P/mdev_supported_types/<name> */
	struct tree_node *devices;
};

struct umdev_parent {
	struct core *core;
	struct list_node node; /* in core->parents, by name */
	char name[64];
	const struct umdev_parent_driver *driver;
	const char *class_name; /* of the tree: driver's, or "mtty" with libvirt_compat */
	unsigned n_params;      /* as parent_param_list orders them */
	const struct umdev_param *param_descs[CORE_MAX_PARAMS];
	struct umdev_value *params; /* n_params of them, owned */
	bool params_shown;      /* params=on: mdev/, params/, create sugar; off: a kernel's tree */
	bool remove_waits;      /* remove=wait */
	bool has_start_files;   /* counted in core->n_class_mdev */
	const char *p2p_domain; /* text of that parameter, or the name: groups stay inside */
	struct {
		const struct umdev_pool *pool;
		uint64_t capacity, used;
	} pools[UMDEV_MAX_POOLS];
	unsigned n_pools;
	struct list_node mdevs; /* in order of creation */
	unsigned n_mdevs;
	void *priv;              /* the driver's */
	struct tree_node *dir;   /* /devices/virtual/<class>/<name>; NULL: not published yet */
	struct mdev_type *types; /* one per driver type, in order, owned */
	unsigned n_types;
	struct object_folder *folders; /* one per folder of the driver, owned; core/object.c */
	unsigned n_folders;
	struct bus_driver *bus_driver; /* /bus/mdev/drivers/<driver>, shared */
};

struct umdev_mdev {
	struct core *core;
	struct umdev_parent *parent;
	struct mdev_type *type;
	struct uuid uuid;
	char uuid_text[UUID_TEXT];
	uint64_t order; /* of creation, among all; kept over restarts of the manager */
	enum mdev_state state;
	char *fail_text; /* owned; MDEV_FAILED or a faulty device, else NULL */
	/* One per parameter of the type, owned; NULL entry: the default. Read by mdev_param(). */
	struct umdev_value **params;
	uint32_t params_set; /* bit per parameter: was given at or after create */
	bool opened;         /* was connected or started once (`fresh` is over) */
	bool started; /* by mdev_start, until mdev_stop or a failure: closes end in STARTED */
	bool served_for_set;         /* of start_set: its worker was READY */
	struct start_set *start_set; /* the mdev_start that waits for it, or NULL; core/start.c */
	bool bound;                  /* driver bound: listens when idle */
	/* What unmaking has to undo: units taken, ops->mdev_listen, hooks->mdev_create. */
	bool charged, listening, made;
	bool restored;            /* it was there before this manager */
	bool connected;           /* counted in group->n_connected; also in MDEV_REMOVING */
	struct mdev_group *group; /* NULL: not bound, or MDEV_NEW */
	struct list_node group_node, parent_node, hash_node;
	struct tree_node *dir;           /* D; NULL while MDEV_NEW */
	struct attr_wait *create_wait;   /* the writer of a create, while MDEV_NEW */
	struct attr_wait *remove_wait;   /* the writer of a removal that waits ... */
	struct attr_wait *force_wait;    /* ... and of the force that came on top of it */
	struct attr_wait *param_wait;    /* one live change at a time: EBUSY for a second */
	unsigned param_pending;          /* its parameter ... */
	struct umdev_value *param_value; /* ... and new value, owned; NULL: none */
	bool param_checking;             /* by the driver; no worker was asked yet */
	struct umdev_value *checked;     /* of param_pending, in the driver's hook: borrowed */
	uint32_t vfio_number;            /* vfio-dev/vfio<n> */
	char *dir_path; /* $RUN/dev/<uuid>, owned; set by ops->mdev_listen; NULL: none */
	int dir_fd;     /* of it, owned; while the driver uses it: umdev_mdev_dirfd(); -1 */
	void *priv;     /* the driver's */
	void *manager;  /* struct listener of the manager, or NULL */
	/* For the manager, which removes the device when that process ends; 0: it stays. */
	pid_t lease_pid;
	uint64_t lease_start; /* process_start() of it */
	void *lease;          /* struct lease of the manager, or NULL */
};

/* What happened, for `umdev monitor`, state files and uevents. Text is valid during the call. */
enum core_event_type {
	CORE_DRIVER_ADDED, /* on bus mdev; detail: its name */
	CORE_DRIVER_REMOVED,
	CORE_CLASS_ADDED, /* detail: its name */
	CORE_CLASS_REMOVED,
	CORE_PARENT_ADDED,
	CORE_PARENT_REMOVED,
	CORE_MDEV_ADDED,
	CORE_MDEV_BOUND,
	CORE_MDEV_UNBOUND,
	CORE_MDEV_REMOVED,
	CORE_MDEV_STATE, /* state changed; detail: its name or the failure */
	CORE_MDEV_PARAM, /* detail: name=value (secret: name only) */
	CORE_MDEV_GROUP, /* detail: number */
	CORE_UEVENT,     /* synthesised by a write to uevent; detail: the words */
};
/* Events come when what was added is complete, and while what goes can still be named. */
struct core_event {
	enum core_event_type type;
	const struct umdev_parent *parent; /* NULL for drivers, classes and their uevents */
	const struct umdev_mdev *mdev;     /* NULL for parent events */
	const char *detail;                /* or NULL */
	const char *devpath, *subsystem;   /* CORE_UEVENT only */
};

#define CORE_UEVENT_ENV 16

/* The kernel's messages that an event stands for (none for some). */
struct core_uevent {
	const char *action, *devpath, *subsystem;
	const char *env[CORE_UEVENT_ENV + 1]; /* further "KEY=VALUE", NULL-terminated; no SEQNUM */
};
/* Calls fn for each, in the kernel's order. MAJOR and MINOR are left out: there is no such node. */
void core_event_uevents(const struct core_event *event,
			void (*fn)(void *arg, const struct core_uevent *uevent), void *arg);

/* A resource that comes to, goes from, or grows in a worker that runs. */
struct core_resource {
	enum umdev_resource_call call;
	const char *name;
	int fd; /* SEND; else -1 */
	uint32_t flags;
	uint64_t offset, length;
};

/* Who may connect to a device, as far as its socket decides. */
struct mdev_access {
	uid_t uid;
	gid_t gid;
	mode_t mode;
};

/* Asked of the manager. Called inside core calls; must not call back into the core, but for
 * mdev_resources_end. */
struct core_ops {
	/* Make $RUN/dev/<uuid> and listen there: set mdev->dir_path, manager. 0 / -errno. */
	int (*mdev_listen)(void *arg, struct umdev_mdev *mdev);
	/* The device listens: give its socket another owner and mode. 0 / -errno. NULL: no socket
	 */
	int (*mdev_access)(void *arg, struct umdev_mdev *mdev, const struct mdev_access *access);
	/* Undo it. Idle or removed: no worker serves it any more. */
	void (*mdev_unlisten)(void *arg, struct umdev_mdev *mdev);
	/* Was a worker configured with mdev's values that can still serve it? It may have no
	 * connection yet, or those of other members of the group. NULL: only while in use. */
	bool (*is_served)(void *arg, const struct umdev_mdev *mdev);
	/* A `live` parameter of a served device: ask the worker; core_param_done() follows, later,
	 * exactly once (-EIO when the worker went). */
	int (*param_live)(void *arg, struct umdev_mdev *mdev, const struct umdev_param *param,
			  const struct umdev_value *value);
	/* Somebody waits for mdev to be served (mdev->start_set): core_start_done() follows, later,
	 * never from inside this call. */
	void (*start)(void *arg, struct umdev_mdev *mdev);
	/* Nobody does any more, nor is it started: its worker may go when no client is left. */
	void (*stop)(void *arg, struct umdev_mdev *mdev);
	/* Tell the worker that was configured with mdev, if there is one: 1, and
	 * core_resource_done() follows, later, exactly once; 0: there is none; -errno. fd of an
	 * added one is consumed always. NULL: never one. */
	int (*resource)(void *arg, struct umdev_mdev *mdev, const struct core_resource *change);
	/* As umdev_job_start and _cancel, _leave. NULL: nothing slow can be done. */
	int (*job_start)(void *arg, struct umdev_job *job, const char *const *args, const int *fds,
			 unsigned n_fds);
	void (*job_cancel)(void *arg, struct umdev_job *job, bool leave);
	/* Is there a definition? NULL: never. */
	bool (*is_defined)(void *arg, const struct umdev_parent *parent, const char *uuid);
	/* Definitions that could not be started, a line each, at most TREE_ATTR_SIZE bytes; their
	 * length. NULL: never one. */
	int (*failed_definitions)(void *arg, char *buf);
	/* Disconnect the client: core_closed() follows. force: surprise removal, deadline 2 s. */
	void (*disconnect)(void *arg, struct umdev_mdev *mdev, bool force);
	void (*event)(void *arg, const struct core_event *event);
	/* Something that a restart must know changed (params, group, state), before anybody is
	 * answered. NULL: nobody wants to know. */
	void (*dirty)(void *arg, struct umdev_mdev *mdev);
};

struct core {
	struct tree tree;
	const struct umdev_parent_driver *const *drivers; /* NULL-terminated */
	const struct core_ops *ops;
	void *ops_arg;
	struct core_type *types; /* of all drivers, owned */
	unsigned n_types;
	struct folder_shape *folder_shapes; /* likewise; core/object.c */
	unsigned n_folder_shapes;
	struct list_node parents;     /* by name */
	struct list_node driver_dirs; /* struct bus_driver: drivers shown on bus mdev */
	struct list_node groups;      /* struct mdev_group.node */
	struct uuid_map mdevs;        /* all mdevs by UUID, those being removed included */
	struct uuid_map p2p_groups;   /* groups by p2p, where the type has one */
	struct number_set group_numbers, vfio_numbers;
	uint64_t last_order;    /* given to an mdev */
	unsigned first_group;   /* lowest iommu group number we may use: above the host's */
	bool drivers_autoprobe; /* shown and kept; mdevs bind by create and bind only */
	/* fixed nodes of the tree */
	struct tree_node *devices_virtual, *class_dir, *mdev_bus, *bus, *bus_devices, *bus_drivers,
		*iommu_groups, *class_vfio, *class_vfio_dev, *virtual_vfio;
	struct tree_node *class_mdev; /* NULL: no parent has params=on; n_class_mdev have */
	unsigned n_class_mdev;
	struct list_node start_sets; /* struct start_set: mdev_starts that wait */
};

/* Can the core work with this driver's tables? 0 / -EINVAL, explained. */
int core_check_driver(const struct umdev_parent_driver *driver);
/* 0 / -ENOMEM, or -EINVAL: core_check_driver of one of them. */
int core_init(struct core *core, const struct umdev_parent_driver *const *drivers,
	      const struct core_ops *ops, void *ops_arg);
void core_fini(struct core *core); /* no parent may be left */

/* One key=value of a command line or definition. */
struct core_setting {
	const char *key, *value;
};

/* 0 and *ret, or: -EINVAL (name, key, value), -ENOENT (driver), -EEXIST, the driver's errno. */
int parent_add(struct core *core, const char *name, const char *driver,
	       const struct core_setting *settings, unsigned n_settings, struct umdev_parent **ret);
/* A definition of that parent was deleted. */
void core_undefined(struct umdev_parent *parent, const char *uuid);
/* Gives up every device that is still being made: the manager ends. */
void core_abandon_new(struct core *core);
/* Removes its idle mdevs too. -EBUSY: one is in use or being made (named in the text). */
int parent_remove(struct umdev_parent *parent);
struct umdev_parent *parent_find(struct core *core, const char *name);
/* The settings that a parent of this driver takes: the core's own, then the driver's. Returns how
 * many. */
unsigned parent_param_list(const struct umdev_parent_driver *driver,
			   const struct umdev_param *ret[CORE_MAX_PARAMS]);

/* `spec` is what is written to create: UUID[,key=value...] (docs/abi.md has the grammar).
 * TREE_LATER: *ret is MDEV_NEW, and (*ret)->create_wait, which the caller may hold, is answered;
 * after a failure it is gone. */
int mdev_create(struct mdev_type *type, const char *spec, size_t len, struct umdev_mdev **ret);

/* Could it be made now, as far as the core can tell? *ret holds what it would take, unseen, until
 * mdev_try_end, which must come before anybody else has a turn. Errors as of mdev_create. */
int mdev_try_create(struct mdev_type *type, const char *spec, size_t len, struct umdev_mdev **ret);
void mdev_try_end(struct umdev_mdev *mdev); /* accepts NULL */

/* A device as its manager knew it when it ended. The texts are borrowed. */
struct mdev_saved {
	struct uuid uuid;
	uint64_t order;
	bool bound, opened, started;
	uint32_t group, vfio; /* numbers, if bound; another one when it is taken */
	const char *failed;   /* MDEV_FAILED, and why; or NULL */
	unsigned n_settings;
	struct core_setting settings[CORE_MAX_PARAMS];
	pid_t lease_pid; /* as in umdev_mdev */
	uint64_t lease_start;
	struct core_setting pending; /* a live change that a worker was asked for; or key NULL */
};
/* mdev_create of a device that was there before: same checks, same numbers, idle or failed. The
 * pending change is held as it was, and core_param_done is owed for it (ops->param_live is not
 * called); one that is not possible any more is forgotten. */
int mdev_restore(struct mdev_type *type, const struct mdev_saved *saved, struct umdev_mdev **ret);

enum mdev_remove_how {
	MDEV_REMOVE,       /* EBUSY while in use, or waits with remove=wait */
	MDEV_REMOVE_FORCE, /* surprise removal */
};
/* 0, or the errno with which mdev_remove would refuse. */
int mdev_may_remove(const struct umdev_mdev *mdev, enum mdev_remove_how how);
/* 0, -EBUSY, -ENODEV (is being removed), or TREE_LATER: answered through wait (may be NULL). */
int mdev_remove(struct umdev_mdev *mdev, enum mdev_remove_how how, struct attr_wait *wait);
/* Devices that mdev_start or mdev_stop is asked for, each once. */
struct mdev_set {
	unsigned n;
	struct umdev_mdev *list[CORE_MAX_SET];
};
/* Adds the device of that UUID or label. -ENOENT, -EINVAL, -ENOSPC: too many. */
int mdev_set_add(struct core *core, const char *name, struct mdev_set *set);
/* Adds all members of the group of that value; 0 members when there is none. */
int mdev_set_add_group(struct core *core, const struct uuid *p2p, struct mdev_set *set);
/* Commits resources before the first connection: every device of the set is served by a worker that
 * is READY, or nothing changed. 0 (all were started), -ENODEV (being removed, not bound), -EBUSY
 * (somebody else is starting one), -EACCES (a required parameter), or TREE_LATER: answered through
 * wait (may be NULL) with 0 or the errno of the first that failed. */
int mdev_start(struct core *core, const struct mdev_set *set, struct attr_wait *wait);
/* The opposite. -EBUSY: one is connected or being started; then nothing changed. */
int mdev_stop(struct core *core, const struct mdev_set *set);
/* mdev_start's check of one: 0, -ENODEV, -EBUSY, -EACCES. */
int mdev_may_start(const struct umdev_mdev *mdev);
/* Is it to be served though nobody is connected? */
bool mdev_wants_worker(const struct umdev_mdev *mdev);
/* The end of this process is near: what waits is answered, nothing is started any more. */
void core_stop_all(struct core *core);

/* The vendor driver on bus mdev. bind: -EBUSY is bound. unbind: -ENODEV is not, -EBUSY in use. */
int mdev_bind(struct umdev_mdev *mdev);
int mdev_unbind(struct umdev_mdev *mdev);
/* Not one that is still being made. */
struct umdev_mdev *mdev_find(struct core *core, const struct uuid *uuid);
/* By UUID text or, when `label` is unique, by label. -ENOENT / -EINVAL (ambiguous). */
int mdev_find_name(struct core *core, const char *name, struct umdev_mdev **ret);
const char *mdev_state_name(enum mdev_state state); /* "idle", "connected", ... */
/* Connected, being taken over, or started: what removal and unbind refuse. */
bool mdev_in_use(const struct umdev_mdev *mdev);
/* In use, or a worker has its values: what `idle` parameters and moves between groups refuse. */
bool mdev_is_served(const struct umdev_mdev *mdev);

/* Types of a parent. NULL with a line for people (nearest match) when there is none. */
struct mdev_type *type_find(struct umdev_parent *parent, const char *full_name);
uint64_t type_available(const struct mdev_type *type);

/* Current value of parameter `index` (of type->info->params); valid until it changes. */
const struct umdev_value *mdev_param(const struct umdev_mdev *mdev, unsigned index);
/* Of its parameters uid, gid and mode. Returns whether any of them was given. */
bool mdev_access_of(const struct umdev_mdev *mdev, struct mdev_access *ret);
int param_index(const struct core_type *type, const char *name); /* or -ENOENT, explained */
/* Text (with or without one "\n") -> value; static checks only. -EINVAL, -ERANGE. */
int param_parse(const struct umdev_param *desc, const char *text, size_t len,
		struct umdev_value *ret);
/* Its default. Asserts that the driver's text for it is valid. */
void value_default(const struct umdev_param *desc, struct umdev_value *ret);
/* Its largest value, of a number. */
uint64_t param_max(const struct umdev_param *desc);
const char *param_type_name(enum umdev_param_type type);             /* "u32" ... */
const char *param_writable_name(enum umdev_param_writable writable); /* "idle" ... */
/* Largest value of a pool-backed parameter that the free units allow now. */
uint64_t param_available(const struct umdev_mdev *mdev, unsigned index);
/* The whole path of DESIGN "parameter write". 0, -errno, or TREE_LATER (wait may be NULL). */
int param_set(struct umdev_mdev *mdev, const char *name, const char *text, size_t len,
	      struct attr_wait *wait);
/* Would it pass the core's checks now? Changes nothing. */
int param_try(struct umdev_mdev *mdev, const char *name, const char *text, size_t len);
/* By the manager: the worker answered (error 0 or a positive errno). */
void core_param_done(struct umdev_mdev *mdev, int error);

/* By the manager: the answer to ops->resource. 0 / -errno; -ENOTCONN: the worker went. */
void core_resource_done(struct umdev_mdev *mdev, enum umdev_resource_call call, const char *name,
			int error);
/* By the manager: mdev is back, and its worker lives. */
void core_resources_resume(struct umdev_mdev *mdev);

/* ---- the life of connections, told by the manager ---- */

/* May this process connect to mdev now? 0, or -EBUSY (another owner, or connected already),
 * -EACCES (a required parameter is unset), -EIO (failed: text), -ENODEV. Changes nothing. */
int core_may_connect(struct umdev_mdev *mdev, const struct sock_peer *peer);
/* Its connection was handed to a worker. peer is copied; the pidfd stays the caller's. */
void core_connected(struct umdev_mdev *mdev, const struct sock_peer *peer);
/* The worker said CLOSED (or is gone for good). The last one of a group releases its owner; a
 * removal that waits is carried out: mdev may be freed. No-op when not connected. */
void core_closed(struct umdev_mdev *mdev);
/* ops->start's answer: its worker is READY, or (error < 0, text left) there will be none. A device
 * that was started already, and whose next worker that is, fails. */
void core_start_done(struct umdev_mdev *mdev, int error);
void core_takeover(struct umdev_mdev *mdev); /* CONNECTED, STARTED -> TAKEOVER */
void core_resumed(struct umdev_mdev *mdev);  /* TAKEOVER -> what it was */
/* Anything but REMOVING -> FAILED; counts as closed. */
void core_failed(struct umdev_mdev *mdev, const char *text);
void core_faulty(struct umdev_mdev *mdev, const char *text); /* "" : well again; no state change */

#endif
