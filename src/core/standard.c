/* SPDX-License-Identifier: MIT */
/*
 * Parameters that a class of devices has in common: what each is called, its type, unit and meaning
 * stand here and nowhere else. Names are those of vDPA's netlink attributes and of devlink, where
 * they have one. A driver lists an id, and adds what is its own: limits, default, when it changes.
 */
#include <string.h>
#include "base/err.h"
#include "core/private.h"

/* Nothing is common to these but what every class has. */
#define FREE_CLASS "misc"
#define EVERY_CLASS "*"

static const struct standard {
	const char *class_name, *other_class; /* or NULL */
	const char *name, *description, *unit;
	enum umdev_param_type type;
	bool secret;
	bool never; /* nobody writes it */
} standard[UMDEV_PARAM_IDS] = {
	[UMDEV_PARAM_CAPACITY] = { "block", "nvme", "capacity", "size of the disk", "bytes",
				   UMDEV_SIZE },
	[UMDEV_PARAM_BLK_SIZE] = { "block", "nvme", "blk_size", "size of a logical block", "bytes",
				   UMDEV_U32 },
	[UMDEV_PARAM_READ_ONLY] = { "block", "nvme", "read_only", "the guest cannot write", NULL,
				    UMDEV_BOOL },
	[UMDEV_PARAM_NUM_QUEUES] = { "block", NULL, "num_queues", "request queues", "queues",
				     UMDEV_U32 },
	[UMDEV_PARAM_SEG_MAX] = { "block", NULL, "seg_max", "most segments of one request",
				  "segments", UMDEV_U32 },
	[UMDEV_PARAM_DEVICE_FEATURES] = { "block", "net", "device_features",
					  "virtio feature bits that the device may offer", NULL,
					  UMDEV_U64 },
	[UMDEV_PARAM_NUM_IO_QUEUES] = { "nvme", NULL, "num_io_queues",
					"I/O queue pairs: the value of aggregation", "queue-pairs",
					UMDEV_U32, .never = true },
	[UMDEV_PARAM_MAC_ADDR] = { "net", NULL, "mac_addr",
				   "address of the device; no two devices have the same", NULL,
				   UMDEV_MAC, .secret = true },
	[UMDEV_PARAM_MTU] = { "net", NULL, "mtu", "largest frame without its header", "bytes",
			      UMDEV_U32 },
	[UMDEV_PARAM_MAX_VQP] = { "net", NULL, "max_vqp", "most queue pairs", "queue-pairs",
				  UMDEV_U32 },
	[UMDEV_PARAM_NUM_PORTS] = { "serial", NULL, "num_ports", "serial ports of the device",
				    "ports", UMDEV_U32, .never = true },
	[UMDEV_PARAM_BACKEND] = { "serial", NULL, "backend", "host end of the port", NULL,
				  UMDEV_ENUM },
	[UMDEV_PARAM_XRES] = { "display", NULL, "xres", "width of the screen", "pixels",
			       UMDEV_U32 },
	[UMDEV_PARAM_YRES] = { "display", NULL, "yres", "height of the screen", "pixels",
			       UMDEV_U32 },
	[UMDEV_PARAM_VRAM] = { "display", NULL, "vram", "video memory", "bytes", UMDEV_SIZE },
	[UMDEV_PARAM_NUMA_NODE] = { EVERY_CLASS, NULL, "numa_node",
				    "NUMA node of the machine that the device is nearest to", NULL,
				    UMDEV_U32, .never = true },
};

static bool is_of(const struct standard *s, const char *class_name)
{
	return s->name &&
	       (strcmp(s->class_name, EVERY_CLASS) == 0 || strcmp(s->class_name, class_name) == 0 ||
		(s->other_class && strcmp(s->other_class, class_name) == 0));
}

bool standard_is_class(const char *name)
{
	for (unsigned id = 0; id < UMDEV_PARAM_IDS; id++)
		if (is_of(&standard[id], name) && id != UMDEV_PARAM_NUMA_NODE)
			return true;
	return strcmp(name, FREE_CLASS) == 0;
}

bool standard_has_name(const char *class_name, const char *name)
{
	for (unsigned id = 0; id < UMDEV_PARAM_IDS; id++)
		if (is_of(&standard[id], class_name) && strcmp(standard[id].name, name) == 0)
			return true;
	return false;
}

int standard_complete(const char *where, const char *class_name, const struct umdev_param *given,
		      struct umdev_param *ret)
{
	const struct standard *s = &standard[given->id < UMDEV_PARAM_IDS ? given->id : 0];

	*ret = *given;
	if (!given->id)
		return 0;
	if (!is_of(s, class_name))
		return err_set(-EINVAL, "%s: parameter %s (id %u) is not one of class %s", where,
			       s->name ? s->name : "?", given->id, class_name);
	if (given->name || given->unit || given->type)
		return err_set(-EINVAL, "%s: name, unit and type of %s are not the driver's", where,
			       s->name);
	if (s->never && given->writable != UMDEV_W_NEVER)
		return err_set(-EINVAL, "%s: %s is never written", where, s->name);
	ret->name = s->name;
	ret->unit = s->unit;
	ret->type = s->type;
	ret->secret = given->secret || (s->secret && !given->public);
	if (!given->description)
		ret->description = s->description;
	return 0;
}
