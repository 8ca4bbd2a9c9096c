/* SPDX-License-Identifier: MIT */
/*
 * Parameters: typed, described, range-checked settings of a device.
 *
 * A parameter is shown as a directory D/mdev/<name>/ (value, type, min, max, ...) and, without a
 * value, as <type>/params/<name>/, so that it can be read before a device exists. The text is
 * parsed once, by the manager's core, into a struct umdev_value; both halves of a driver see only
 * typed values that passed every static check.
 *
 * A parameter that devices of a class have in common is listed by its id: what it is called, its
 * type, unit and meaning are the core's (enum umdev_param_id), so that no two drivers can differ.
 * Everything else is the driver's own and shown under D/vendor/ by the same mechanism.
 */
#ifndef UMDEV_PARAM_H
#define UMDEV_PARAM_H

#include <stdbool.h>
#include <stdint.h>

/* Longest canonical text of a value, with its NUL. */
#define UMDEV_VALUE_TEXT 256

enum umdev_param_type {
	UMDEV_U32,    /* decimal, 0x.., 0.. */
	UMDEV_U64,    /* the same */
	UMDEV_BOOL,   /* 0 1 yes no true false on off; canonical "yes" "no" */
	UMDEV_STRING, /* no control characters, no comma */
	UMDEV_MAC,    /* aa:bb:cc:dd:ee:ff, kept in u64, first octet highest */
	UMDEV_UUID,   /* canonical lower case, kept as text */
	UMDEV_SIZE,   /* bytes; K M G T suffixes (powers of 1024); canonical: plain bytes */
	UMDEV_ENUM,   /* one of choices; u64 is its index */
};

/* When a value may change. Each one adds times to the one before it. */
enum umdev_param_writable {
	UMDEV_W_NEVER,  /* computed by the driver or the core */
	UMDEV_W_CREATE, /* only in the create write */
	UMDEV_W_ONCE,   /* one successful change, then as never */
	UMDEV_W_FRESH,  /* until the first client connects or mdev_start */
	UMDEV_W_IDLE,   /* whenever the device is neither connected nor started */
	UMDEV_W_LIVE,   /* always; a serving worker is asked first */
};

/*
 * Parameters that mean the same for every driver, by class (docs/abi.md). The number is no part of
 * any format; a hook tells parameters apart by it.
 */
enum umdev_param_id {
	UMDEV_PARAM_VENDOR, /* none of these: the driver's own */
	/* block and nvme; `capacity` also where a driver lets it grow while it is used */
	UMDEV_PARAM_CAPACITY,  /* size: bytes of the disk */
	UMDEV_PARAM_BLK_SIZE,  /* u32: bytes of a logical block */
	UMDEV_PARAM_READ_ONLY, /* bool: the guest cannot write */
	/* block */
	UMDEV_PARAM_NUM_QUEUES, /* u32: request queues */
	UMDEV_PARAM_SEG_MAX,    /* u32: most segments of one request */
	/* block and net */
	UMDEV_PARAM_DEVICE_FEATURES, /* u64: virtio feature bits that the device may offer */
	/* nvme */
	UMDEV_PARAM_NUM_IO_QUEUES, /* u32, never written: shows the value of aggregation */
	/* net */
	UMDEV_PARAM_MAC_ADDR, /* mac, private unless `public`: EADDRINUSE on a clash */
	UMDEV_PARAM_MTU,      /* u32: largest frame without its header */
	UMDEV_PARAM_MAX_VQP,  /* u32: most queue pairs */
	/* serial */
	UMDEV_PARAM_NUM_PORTS, /* u32, never written; the value of aggregation where there is one */
	UMDEV_PARAM_BACKEND,   /* enum of the driver's choices: host end of the (first) port */
	/* display */
	UMDEV_PARAM_XRES, /* u32 */
	UMDEV_PARAM_YRES, /* u32 */
	UMDEV_PARAM_VRAM, /* size: video memory */
	/* every class */
	UMDEV_PARAM_NUMA_NODE, /* u32, never written */
	UMDEV_PARAM_IDS,
};

struct umdev_value {
	uint64_t u64;                /* U32 U64 BOOL MAC SIZE, and the index of an ENUM */
	char text[UMDEV_VALUE_TEXT]; /* canonical text of every type, NUL-terminated */
};

/*
 * One parameter. Static and const; shared by all devices of the types that list it.
 * Numbers (min, max, step) are ignored for types that are not numeric.
 *
 * With an id, name, unit and type are left out; a description may say more than the standard one.
 * Hooks are then given a completed copy, and compare ids; of a parameter of its own a driver gets
 * what it listed.
 */
struct umdev_param {
	enum umdev_param_id id;     /* 0: the driver's own, shown under D/vendor/ */
	const char *name;           /* [a-z][a-z0-9_]* */
	const char *description;    /* one line */
	const char *unit;           /* "bytes", "ports"; NULL: no unit file */
	const char *def;            /* text of the default value; NULL: numeric 0 or "" */
	const char *const *choices; /* ENUM: NULL-terminated; choices[value.u64] */
	const char *pool;           /* the pool this parameter takes units of, or NULL */
	uint64_t min, max, step;    /* max 0: what the type holds; step 0 or 1: every number */
	enum umdev_param_type type;
	enum umdev_param_writable writable;
	bool required; /* connects are refused until it was set */
	bool secret; /* private: value file is 0600; never logged, told to those who may read it */
	bool public; /* with an id: not private although it is by default */
};

#endif
