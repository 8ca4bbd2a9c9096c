/* SPDX-License-Identifier: MIT */
/*
 * What the files of the parent half share.
 *
 *   store       of a parent: where its volumes are, and a list of them
 *   volume      a record and its bytes, which are a file or a device; at most one piece of slow
 * work at a time (umdev-store does it) controller  of an mdev: its namespaces, each of which has a
 * volume attached
 *
 * Attached once: in the model, so that a write is refused at once (EBUSY); and by flock(2) of the
 * bytes from the start to the end of the worker that serves the device, which holds against
 * everybody else, too. The lock lies in the descriptor that the worker is given, so it outlives us.
 */
#ifndef DISK_PARENT_H
#define DISK_PARENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/parent.h>
#include "disk.h"

#define DISK_POOL "queue-pairs"
#define DISK_FOLDER "volumes"
#define DISK_MAX_SIZE (1ull << 60) /* what offsets of files and blocks of 512 hold easily */
#define DISK_MAX_DEVICES 32
#define VOLUME_NAME 64 /* with its NUL */

enum store_kind {
	STORE_NONE, /* media=null only */
	STORE_DIR,
	STORE_DEVICES,
};

struct volume;

/* Owned by the parent (priv). */
struct store {
	struct umdev_parent *parent;
	enum store_kind kind;
	int dir_fd;                      /* of records; -1: STORE_NONE */
	char *devices[DISK_MAX_DEVICES]; /* owned paths */
	unsigned n_devices;
	struct volume *volumes; /* by next; owned */
};

enum volume_state {
	VOLUME_MAKING, /* by create. Its work is under way; no record yet. To READY, or gone */
	VOLUME_READY,
	VOLUME_GROWING, /* by resize. `size` is the old one, and is what everybody uses */
	VOLUME_SHRINKING,
	VOLUME_DELETING, /* by delete, or found half-made or half-deleted. To gone */
	VOLUME_BROKEN,   /* found: record or bytes are missing or wrong. It can be deleted only */
};

struct namespace;

struct volume {
	struct volume *next;
	struct store *store;
	char name[VOLUME_NAME]; /* of a device's own: its UUID */
	enum volume_state state;
	bool thin;
	uint64_t size, new_size; /* new_size: GROWING, SHRINKING */
	char *device;            /* path, owned; NULL: a file of the directory */
	struct umdev_object *object;
	struct umdev_job job;
	struct attr_wait *wait;       /* the writer of what is under way */
	struct umdev_mdev *maker;     /* the device whose creation waits for it */
	struct namespace *namespaces; /* that it is attached to, by next */
};

enum namespace_state {
	NS_FREE,    /* no volume */
	NS_IDLE,    /* attached; no worker */
	NS_WAITING, /* a worker serves, somebody else has the lock, and we wait for it (incoming) */
	NS_SENDING, /* the worker is being given it */
	NS_SERVED,  /* the worker has it */
	NS_LEAVING, /* the worker was asked to let go */
};

struct controller;

struct namespace
{
	struct namespace *next; /* of the volume */
	struct controller *controller;
	struct volume *volume;
	enum namespace_state state;
	struct umdev_job lock_job;
	int lock_fd;            /* WAITING */
	struct attr_wait *wait; /* the writer of assign or unassign */
};

/* Owned by the mdev (priv). */
struct controller {
	struct umdev_mdev *mdev;
	struct store *store;
	bool creating; /* mdev_create has not answered yet */
	bool served;   /* between resources and resources_end */
	struct namespace ns[DISK_MAX_NAMESPACES];
};

/* The errno, explained as "WHAT NAME: its text". */
int disk_failed(int error, const char *what, const char *name);

/* ---- disk_params.c ---- */

extern const struct umdev_type disk_types[];
/* What the tables of parameters cannot say. 0 / -EINVAL (explained) */
int disk_judge_param(const struct umdev_param *param, const struct umdev_value *value);
int disk_judge_params(const struct umdev_mdev *mdev);
int disk_judge_size(const char *what, uint64_t size);

/* ---- store.c ---- */

/* With the volumes that are there; what is half-made is being cleaned away. 0 / -errno (explained)
 */
int store_open(struct umdev_parent *parent, struct store **ret);
void store_close(struct store *s);                            /* NULL: no-op */
struct volume *store_find(struct store *s, const char *name); /* or NULL */
/* What is written into a volume's record, to be freed. NULL: no memory. */
char *store_record(const struct volume *v, uint64_t size);
/* Reads v's record again: READY or BROKEN. */
void store_reload(struct volume *v);
/* A device without volume of at least size bytes (0: any), and how many it has. -ENOSPC */
int store_free_device(struct store *s, uint64_t size, const char **ret, uint64_t *ret_bytes);
int store_device_bytes(const char *path, uint64_t *ret); /* 0 / -errno */

/* ---- volume.c ---- */

struct volume *volume_new(struct store *s, const char *name); /* NULL: no memory */
void volume_free(struct volume *v);                           /* and its object */
/* Starts to make one. size 0: all of a device. 0 and *ret; -errno (explained). */
int volume_make(struct store *s, const char *name, uint64_t size, bool thin, struct volume **ret);
/* 0: nothing to do, 1: it goes on, and wait (may be NULL) is answered; -errno (explained). */
int volume_resize(struct volume *v, uint64_t size, struct attr_wait *wait);
int volume_delete(struct volume *v, struct attr_wait *wait);
/* Found half-made or half-deleted, or its maker gave up. */
void volume_clean(struct volume *v);
/* A device's own: named by a UUID. */
bool volume_is_private(const char *name);
bool volume_is_orphan(const struct volume *v);
/* Opens its bytes. fd / -errno (explained) */
int volume_open(const struct volume *v, bool writable);

extern const struct umdev_attr volume_folder_attrs[], volume_attrs[]; /* volume_attr.c */

/* ---- namespace.c ---- */

struct namespace *namespace_of(struct controller *c, const char *volume); /* or NULL */
#define NAMESPACE_ANY DISK_MAX_NAMESPACES /* slot: the first that is free */
/* In the model. 0 / -errno (explained) */
int namespace_attach(struct controller *c, unsigned slot, struct volume *v);
/* And in the worker that serves it, if any, as a restart will find it. 0; 1: that goes on, and
 * ns->wait may be held; -errno (explained), and it is detached again. */
int namespace_assign(struct controller *c, struct volume *v);
void namespace_detach(struct namespace *ns);
/* The parameter `volume` says again what is attached. 0 / -errno (explained) */
int namespaces_tell(struct controller *c);
/* What the parameter says is attached, from slot `first` on. 0 / -errno (explained) */
int namespaces_attach(struct controller *c, unsigned first, const char *list);
/* Another composition, of a device that is not served. As before after a failure. */
int namespaces_replace(struct controller *c, const char *list);
/* May all of them be attached with (or without) write access? 0 / -EBUSY (explained) */
int namespaces_judge_access(const struct controller *c, bool read_only);
/* Its volume became longer. */
void namespace_grown(struct namespace *ns);
/* The null medium of a served device becomes longer. */
void namespace_grow_null(struct controller *c, uint64_t size);

int disk_resources(struct umdev_mdev *mdev, struct umdev_resources *list);
void disk_resources_end(struct umdev_mdev *mdev);
void disk_resource_done(struct umdev_mdev *mdev, enum umdev_resource_call call, const char *name,
			int error);
void disk_resources_resume(struct umdev_mdev *mdev);

extern const struct umdev_attr namespace_attrs[];

/* ---- disk_parent.c ---- */

bool disk_is_null(const struct umdev_mdev *mdev);
bool disk_is_read_only(const struct umdev_mdev *mdev);
/* The volume of its own is there, or as large as wanted (0), or cannot be. */
void disk_volume_made(struct umdev_mdev *mdev, int error);

#endif
