/* SPDX-License-Identifier: MIT */
/*
 * nvme: Identify (5.15), and what namespaces there are. Namespace n is the medium that the parent
 * half calls "ns<n>"; without such a medium it is inactive. What is allocated is attached.
 */
#include <errno.h>
#include <string.h>
#include <umdev/media.h>
#include "nvme.h"

#define MODEL "umdev NVMe controller"
#define SUBSYSTEM "nqn.2014-08.org.nvmexpress:uuid:"

/* ---- what is there ---- */

static uint64_t param(const struct umdev_device *dev, const char *name, uint64_t otherwise)
{
	const struct umdev_value *value = umdev_param(dev, name);

	return value ? value->u64 : otherwise;
}

unsigned nvme_block_shift(const struct umdev_device *dev)
{
	return param(dev, "blk_size", 512) == 4096 ? 12 : 9;
}

unsigned nvme_pairs(const struct umdev_device *dev)
{
	uint64_t n = param(dev, "aggregation", 1);
	unsigned most = nvme_is_mapped(dev) ? NVME_WATCHER : NVME_PAIRS;

	return n < most ? (unsigned)n : most;
}

bool nvme_is_mapped(const struct umdev_device *dev)
{
	return param(dev, "doorbells", DISK_DOORBELLS_TRAPPED) == DISK_DOORBELLS_MAPPED;
}

bool nvme_is_nsid(uint32_t nsid)
{
	return nsid >= 1 && nsid <= NVME_NAMESPACES;
}

/* DISK_MEDIUM_FORMAT, spelled out: a register model has no printf. */
int nvme_medium(struct umdev_device *dev, uint32_t nsid)
{
	const struct nvme_state *s = umdev_state(dev);
	const char name[] = { 'n', 's', (char)('0' + nsid), '\0' };

	_Static_assert(NVME_NAMESPACES < 10, "one digit");
	return s->leaving >> (nsid - 1) & 1 ? -ENOENT : umdev_media_find(dev, name);
}

void nvme_resource(struct umdev_device *dev, const char *name, enum umdev_resource_change change)
{
	struct nvme_state *s = umdev_state(dev);
	unsigned nsid = name[0] == 'n' && name[1] == 's' ? (unsigned)(name[2] - '0') : 0;

	if (!nvme_is_nsid(nsid) || name[3])
		return;
	s->changed |= 1u << (nsid - 1);
	s->leaving &= ~(1u << (nsid - 1));
	if (change == UMDEV_RESOURCE_REMOVED)
		s->leaving |= 1u << (nsid - 1);
	nvme_renew_all(dev);
	if (s->feature[NVME_FEAT_ASYNC] & NVME_ASYNC_NAMESPACE)
		nvme_event_raise(dev, NVME_EVENT_TYPE_NOTICE);
}

/* ---- pieces of a page ---- */

static void put(uint8_t *page, unsigned at, uint64_t value, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		page[at + i] = (uint8_t)(i < 8 ? value >> 8 * i : 0);
}

/* ASCII, padded with blanks. */
static void put_text(uint8_t *page, unsigned at, unsigned len, const char *text)
{
	for (unsigned i = 0; i < len; i++) {
		page[at + i] = *text ? (uint8_t)*text : ' ';
		text += *text != '\0';
	}
}

static void hex(char *out, const uint8_t *bytes, unsigned n)
{
	static const char digit[] = "0123456789abcdef";

	for (unsigned i = 0; i < n; i++) {
		out[2 * i] = digit[bytes[i] >> 4];
		out[2 * i + 1] = digit[bytes[i] & 15];
	}
}

static void put_serial(const struct umdev_device *dev, uint8_t *page)
{
	const struct umdev_value *value = umdev_param(dev, "serial");
	char text[NVME_SERIAL + 1] = "";

	/* Without a name: the device's UUID without its last digits, which fits. */
	hex(text, umdev_uuid(dev), NVME_SERIAL / 2);
	put_text(page, 4, NVME_SERIAL, value && *value->text ? value->text : text);
}

static void put_subsystem(const struct umdev_device *dev, uint8_t *page)
{
	const uint8_t *uuid = umdev_uuid(dev);
	char *out = (char *)page + 768;

	memcpy(out, SUBSYSTEM, sizeof(SUBSYSTEM));
	out += sizeof(SUBSYSTEM) - 1;
	hex(out, uuid, 4);
	out[8] = out[13] = out[18] = out[23] = '-';
	hex(out + 9, uuid + 4, 2);
	hex(out + 14, uuid + 6, 2);
	hex(out + 19, uuid + 8, 2);
	hex(out + 24, uuid + 10, 6);
}

/* ---- structures: figures 247 and 245 of the document ---- */

static void controller(const struct umdev_device *dev, uint8_t *page)
{
	put(page, 0, NVME_PCI_VENDOR, 2);
	put(page, 2, NVME_PCI_VENDOR, 2);
	put_serial(dev, page);
	put_text(page, 24, 40, MODEL);
	put_text(page, 64, 8, NVME_FIRMWARE);
	page[77] = NVME_MDTS;
	put(page, 78, 1, 2); /* controller ID */
	put(page, 80, NVME_VERSION, 4);
	put(page, 92, NVME_ASYNC_NAMESPACE, 4);               /* events that can be asked for */
	page[111] = 1;                                        /* an I/O controller */
	put(page, 256, nvme_is_mapped(dev) ? 0 : 1u << 8, 2); /* Doorbell Buffer Config */
	page[258] = NVME_ABORTS - 1;
	page[259] = NVME_AERS - 1;
	page[260] = 1 | 1 << 1;      /* one firmware slot, read-only */
	page[261] = 1 << 1 | 1 << 2; /* log: effects; offsets and long lengths */
	page[262] = NVME_ERRORS - 1;
	put(page, 266, 343, 2); /* warning and critical temperature, kelvins */
	put(page, 268, 363, 2);
	page[512] = NVME_SQE_SHIFT << 4 | NVME_SQE_SHIFT;
	page[513] = NVME_CQE_SHIFT << 4 | NVME_CQE_SHIFT;
	put(page, 516, NVME_NAMESPACES, 4);
	put(page, 520, 1 << 2 | 1 << 3 | 1 << 4, 2); /* Dataset Management, Write Zeroes, Select */
	page[525] = 1 | 2 << 1; /* a write cache; Flush takes one namespace at a time */
	put_subsystem(dev, page);
}

static void namespace(const struct umdev_device *dev, int medium, uint8_t *page)
{
	unsigned shift = nvme_block_shift(dev);
	uint64_t bytes = umdev_media_size(dev, (unsigned)medium);

	put(page, 0, bytes >> shift, 8); /* size, capacity, utilization */
	put(page, 8, bytes >> shift, 8);
	put(page, 16, bytes >> shift, 8);
	page[33] = 1 | 1 << 3; /* what is deallocated reads as zeros, and Write Zeroes can do it */
	put(page, 48, bytes, 16);
	page[99] = !umdev_media_is_writable(dev, (unsigned)medium);
	put(page, 128, (uint64_t)shift << 16, 4); /* the only format */
}

/* Namespace UUID descriptor: that of the controller with the number in its last byte. */
static void descriptors(const struct umdev_device *dev, uint32_t nsid, uint8_t *page)
{
	page[0] = NVME_NIDT_UUID;
	page[1] = 16;
	memcpy(page + 4, umdev_uuid(dev), 16);
	page[4 + 6] = (page[4 + 6] & 0x0f) | 0x80; /* version 8: made by a rule of our own */
	page[4 + 15] ^= (uint8_t)nsid;
}

static uint16_t list(const struct nvme_request *rq, uint32_t above, uint8_t *page)
{
	unsigned n = 0;

	if (above >= NVME_NSID_ALL - 1)
		return nvme_refuse(NVME_INVALID_NAMESPACE);
	for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES; nsid++)
		if (nsid > above && nvme_medium(rq->dev, nsid) >= 0)
			put(page, 4 * n++, nsid, 4);
	return NVME_OK;
}

/* About a namespace; `all`: what all have in common may be asked for, too. */
static uint16_t one(const struct nvme_request *rq, uint8_t *page)
{
	uint32_t nsid = le32_get(rq->cmd.nsid);
	int medium;

	if (!nvme_is_nsid(nsid))
		return nvme_refuse(NVME_INVALID_NAMESPACE);
	medium = nvme_medium(rq->dev, nsid);
	switch (le32_get(rq->cmd.cdw10) & 0xff) {
	case NVME_CNS_DESCRIPTORS:
		if (medium < 0)
			return nvme_refuse(NVME_INVALID_NAMESPACE);
		descriptors(rq->dev, nsid, page);
		break;
	case NVME_CNS_ATTACHED_CONTROLLERS:
		put(page, 0, medium >= 0, 2);
		put(page, 2, 1, 2);
		break;
	default: /* zeros for an inactive one */
		if (medium >= 0)
		namespace
		(rq->dev, medium, page);
	}
	return NVME_OK;
}

static uint16_t fill(const struct nvme_request *rq, uint8_t *page)
{
	uint32_t dw10 = le32_get(rq->cmd.cdw10);

	switch (dw10 & 0xff) {
	case NVME_CNS_NAMESPACE:
	case NVME_CNS_ALLOCATED:
	case NVME_CNS_DESCRIPTORS:
	case NVME_CNS_ATTACHED_CONTROLLERS:
		return one(rq, page);
	case NVME_CNS_CONTROLLER:
		controller(rq->dev, page);
		return NVME_OK;
	case NVME_CNS_ACTIVE_LIST:
	case NVME_CNS_ALLOCATED_LIST:
		return list(rq, le32_get(rq->cmd.nsid), page);
	case NVME_CNS_CONTROLLERS:
		put(page, 0, dw10 >> 16 <= 1, 2);
		put(page, 2, dw10 >> 16 <= 1, 2);
		return NVME_OK;
	}
	return nvme_refuse(NVME_INVALID_FIELD);
}

uint16_t nvme_identify(struct nvme_request *rq)
{
	uint8_t *page = ((struct nvme_priv *)umdev_priv(rq->dev))->page;
	uint16_t status;

	memset(page, 0, NVME_PAGE);
	status = fill(rq, page);
	return status ? status : nvme_reply(rq, page, NVME_PAGE, NVME_PAGE);
}
