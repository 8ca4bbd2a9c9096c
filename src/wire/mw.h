/* SPDX-License-Identifier: MIT */
/*
 * manager <-> worker messages: one table, states and rates included. Everything that needs to pass
 * between the two is a row here; nobody works around it.
 *
 * Frame: u32 size (header included), u16 type, u16 member, u32 serial, u32 zero; then the payload.
 * `member` is the index in CONFIG. Text is u16 length + bytes. Descriptors ride on the frame.
 * A frame outside the table (unknown type, wrong direction, wrong descriptors, illegal state, over
 * the rate) ends that worker, seen by the manager; seen by the worker, it is our bug.
 *
 * States are those of the worker as the manager sees it.
 */
#ifndef WIRE_MW_H
#define WIRE_MW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <umdev/param.h>
#include "base/uuid.h"

#define MW_VERSION 1
#define MW_HEADER 16
#define MW_MAX (64 * 1024)
#define MW_MAX_MEMBERS 32
#define MW_MAX_PARAMS 32
#define MW_MAX_RESOURCES 32
#define MW_MAX_FDS 253
#define MW_MAX_TYPES 64

/* Descriptors of a freshly exec'd keeper. */
enum {
	MW_FD_CHANNEL = 3,
	MW_FD_RENDEZVOUS,
	MW_FD_STATE,
	MW_FD_GRAVE, /* write end of a FIFO; every ring holds it, too (manager/worker_grave.c) */
	MW_FD_END,
};
#define MW_N_FDS (MW_FD_END - MW_FD_CHANNEL)
/* Its environment: files of the members' drivers that are not built in, ':' between them. */
#define MW_DRIVER_FILES "UMDEV_DRIVER_FILES"

enum mw_state {
	MW_STARTING, /* exec'd; CONFIG was sent, READY not seen. Deadline 5 s. */
	MW_READY,    /* serves */
	MW_STOPPING, /* STOP was sent; ends with the process. Deadline in STOP. */
	MW_DEAD,
};

enum mw_type {
	/* manager -> worker */
	MW_CONFIG = 1,    /* once, first: group, members, parameters, resources (all descriptors) */
	MW_CONNECT = 2,   /* member, one fd: an accepted connection */
	MW_PARAM_SET = 3, /* member, serial: name, value; answered by PARAM_DONE with the serial */
	/* A resource of a running member; each is answered by RES_DONE with the serial. What the
	 * worker has already (a manager that died may have sent it) is done. */
	MW_RES_ADD = 4,   /* member, serial, one fd */
	MW_RES_DEL = 5,   /* member, serial: name. Done when nothing uses its descriptor any more */
	MW_STOP = 6,      /* member or MW_ALL: mode, deadline */
	MW_PING = 7,      /* serial; answered by PONG */
	MW_RESTART = 8,   /* serial: versions that the installed program reads. RESTARTED follows */
	MW_HOLD = 9,      /* serial 1: without manager and clients it stays; 0: it goes then */
	MW_RES_SIZE = 10, /* member, serial: name, new length; as RES_ADD */
	/* worker -> manager */
	MW_READY_MSG = 32,  /* sandbox is closed, everything allocated */
	MW_CLOSED = 33,     /* member: reason, text. Sent once per CONNECT */
	MW_PARAM_DONE = 34, /* member, serial: errno (0: accepted) */
	MW_STATE = 35,      /* member: enum mw_member_state, text */
	MW_RESUMED = 36,    /* by the keeper: signal that killed the worker, number of lives */
	MW_PONG = 37,
	MW_RESTARTED = 38, /* serial: errno (0: the installed program serves), text */
	MW_RES_DONE = 39,  /* member, serial: errno (0: done) */
};
#define MW_ALL 0xffff

enum mw_stop_mode {
	MW_STOP_CLEAN, /* close the connection, answer CLOSED; MW_ALL: then exit 0 */
	MW_STOP_ABORT, /* surprise removal: the same without waiting for the client */
	MW_STOP_ASK,   /* one member: ask the client to release the device; it serves on */
};

enum mw_member_state { MW_MEMBER_OK, MW_MEMBER_FAULTY };

struct mw_frame {
	uint16_t type, member;
	uint32_t serial;
	const uint8_t *payload;
	size_t len;
};

struct mw_param {
	char name[64];
	enum umdev_param_type type;
	struct umdev_value value;
};

struct mw_resource {
	char name[32];
	uint32_t flags; /* enum umdev_resource_flags */
	uint64_t offset, length;
	/* its descriptor is the next one of the frame */
};

struct mw_member {
	struct uuid uuid;
	char driver[64], type[64], presentation[32];
	unsigned n_params, n_resources;
	struct mw_param params[MW_MAX_PARAMS];
	struct mw_resource resources[MW_MAX_RESOURCES];
};

struct mw_config {
	uint32_t version; /* MW_VERSION of the sender */
	uint32_t group;   /* iommu group number, for logs */
	unsigned n_members;
	struct mw_member *members; /* decode: allocated, owned by the config */
};

struct mw_closed {
	uint32_t reason; /* enum vfio_close_reason, opaque here */
	char text[256];
};

/* Of the state memory: what a worker's program reads and writes. */
struct mw_versions {
	uint32_t worker, vfio; /* layouts */
	unsigned n_types;
	struct {
		char name[128]; /* "<driver>-<type>" */
		uint32_t version;
	} types[MW_MAX_TYPES];
};

struct mw_restarted {
	uint32_t error; /* positive errno or 0 */
	char text[256]; /* why not */
};

/* What the frame's `member` may be; who receives it still compares it with its n_members. */
enum mw_target {
	MW_NOBODY,     /* means nothing, ignored */
	MW_ONE,        /* below MW_MAX_MEMBERS */
	MW_ONE_OR_ALL, /* or MW_ALL */
};

/* One row per type: what both ends check before they look at the payload. */
struct mw_rule {
	uint16_t type;
	const char *name;
	bool to_worker;
	enum mw_target target;
	uint16_t min_len, max_len; /* payload; max 0xffff: MW_MAX - MW_HEADER */
	uint16_t min_fds, max_fds;
	uint8_t states;      /* 1 << enum mw_state in which the manager sends / accepts it */
	uint16_t per_second; /* worker -> manager: more ends the worker; 0: no limit */
};
const struct mw_rule *mw_rule(uint16_t type); /* NULL: unknown */

/* For base/conn. */
int64_t mw_len(const uint8_t *data, size_t have);
/* 0 / -EPROTO. Checks the header against the rule: direction, sizes, descriptors and member, not
 * states or rates. */
int mw_decode(const uint8_t *data, size_t len, unsigned n_fds, bool to_worker,
	      struct mw_frame *ret);

/* Each returns the frame's length, or -EMSGSIZE. */
int mw_put_config(uint8_t *out, size_t size, const struct mw_config *config);
int mw_put_param_set(uint8_t *out, size_t size, unsigned member, uint32_t serial,
		     const struct mw_param *param);
int mw_put_res_add(uint8_t *out, size_t size, unsigned member, uint32_t serial,
		   const struct mw_resource *res);
int mw_put_res_del(uint8_t *out, size_t size, unsigned member, uint32_t serial, const char *name);
int mw_put_res_size(uint8_t *out, size_t size, unsigned member, uint32_t serial, const char *name,
		    uint64_t length);
int mw_put_stop(uint8_t *out, size_t size, unsigned member, enum mw_stop_mode mode,
		uint32_t deadline_ms);
int mw_put_closed(uint8_t *out, size_t size, unsigned member, const struct mw_closed *closed);
int mw_put_param_done(uint8_t *out, size_t size, unsigned member, uint32_t serial, int error);
int mw_put_res_done(uint8_t *out, size_t size, unsigned member, uint32_t serial, int error);
int mw_put_state(uint8_t *out, size_t size, unsigned member, enum mw_member_state state,
		 const char *text);
int mw_put_resumed(uint8_t *out, size_t size, int signal, uint32_t lives);
int mw_put_restart(uint8_t *out, size_t size, uint32_t serial, const struct mw_versions *versions);
int mw_put_restarted(uint8_t *out, size_t size, uint32_t serial, const struct mw_restarted *done);
int mw_put_plain(uint8_t *out, size_t size, enum mw_type type, unsigned member, uint32_t serial);

/* Each 0 / -EPROTO / -ENOMEM, *ret written only on success. Texts for people (of CLOSED, STATE,
 * RESTARTED) come out printable whatever the worker sent. */
int mw_get_config(const struct mw_frame *f, struct mw_config *ret);
void mw_config_free(struct mw_config *config);
/* Resources of all members: how many descriptors its frame must carry. */
unsigned mw_config_fds(const struct mw_config *config);
int mw_get_param_set(const struct mw_frame *f, struct mw_param *ret);
int mw_get_res_add(const struct mw_frame *f, struct mw_resource *ret);
int mw_get_res_del(const struct mw_frame *f, char ret_name[32]);
int mw_get_res_size(const struct mw_frame *f, char ret_name[32], uint64_t *ret_length);
int mw_get_stop(const struct mw_frame *f, enum mw_stop_mode *ret_mode, uint32_t *ret_deadline_ms);
int mw_get_closed(const struct mw_frame *f, struct mw_closed *ret);
int mw_get_param_done(const struct mw_frame *f, int *ret_error);
int mw_get_res_done(const struct mw_frame *f, int *ret_error);
int mw_get_state(const struct mw_frame *f, enum mw_member_state *ret, char ret_text[256]);
int mw_get_resumed(const struct mw_frame *f, int *ret_signal, uint32_t *ret_lives);
/* *ret is large, and written also on failure. */
int mw_get_restart(const struct mw_frame *f, struct mw_versions *ret);
int mw_get_restarted(const struct mw_frame *f, struct mw_restarted *ret);

#endif
