/* SPDX-License-Identifier: MIT */
/* Messages of udevd to its listeners; the layout is that of libudev since 2011. */
#include "wire/udev.h"
#include <endian.h>
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC 0xfeedcafeu

struct header {
	char prefix[8]; /* "libudev" */
	uint32_t magic; /* big endian, as the filters are */
	uint32_t header_size, properties_off, properties_len;
	uint32_t subsystem_hash, devtype_hash;
	uint32_t tags_hi, tags_lo; /* bloom filter; 0: no tag */
};
_Static_assert(sizeof(struct header) == 40, "as libudev has it");

/* MurmurHash2 with seed 0, which the filters of listeners compare. */
static uint32_t hash(const char *text)
{
	const uint32_t m = 0x5bd1e995;
	size_t len = strlen(text), i = 0;
	uint32_t h = (uint32_t)len, k;

	for (; len - i >= 4; i += 4) {
		memcpy(&k, text + i, sizeof(k));
		k = le32toh(k) * m;
		k = (k ^ k >> 24) * m;
		h = h * m ^ k;
	}
	for (size_t left = len - i; left > 0; left--)
		h ^= (uint32_t)(uint8_t)text[i + left - 1] << 8 * (left - 1);
	if (len - i)
		h *= m;
	h = (h ^ h >> 13) * m;
	return h ^ h >> 15;
}

struct writer {
	uint8_t *buf;
	size_t len; /* above UDEV_MESSAGE_MAX: it does not fit */
};

static void put(struct writer *w, const char *text, size_t len)
{
	if (len <= UDEV_MESSAGE_MAX && w->len <= UDEV_MESSAGE_MAX - len)
		memcpy(w->buf + w->len, text, len);
	else
		len = UDEV_MESSAGE_MAX + 1;
	w->len = w->len > UDEV_MESSAGE_MAX ? w->len : w->len + len;
}

static void put_pair(struct writer *w, const char *key, const char *value)
{
	put(w, key, strlen(key));
	put(w, value, strlen(value) + 1);
}

static void put_number(struct writer *w, const char *key, uint64_t value)
{
	char text[24], *at = text + sizeof(text) - 1;

	*at = '\0';
	do
		*--at = (char)('0' + value % 10);
	while ((value /= 10));
	put_pair(w, key, at);
}

int udev_message(uint8_t buf[UDEV_MESSAGE_MAX], uint64_t seqnum, const char *action,
		 const char *devpath, const char *subsystem, const char *const *env)
{
	struct header header = {
		.prefix = "libudev",
		.magic = htobe32(MAGIC),
		.header_size = sizeof(header),
		.properties_off = sizeof(header),
		.subsystem_hash = htobe32(hash(subsystem)),
	};
	struct writer w = { .buf = buf, .len = sizeof(header) };

	put_pair(&w, "ACTION=", action);
	put_pair(&w, "DEVPATH=", devpath);
	put_pair(&w, "SUBSYSTEM=", subsystem);
	for (; *env; env++)
		put_pair(&w, *env, "");
	put_number(&w, "SEQNUM=", seqnum);
	if (w.len > UDEV_MESSAGE_MAX)
		return -EMSGSIZE;
	header.properties_len = (uint32_t)(w.len - sizeof(header));
	memcpy(buf, &header, sizeof(header));
	return (int)w.len;
}

int udev_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	return fd < 0 ? -errno : fd;
}

int udev_send(int fd, const uint8_t *message, int len)
{
	const struct sockaddr_nl to = { .nl_family = AF_NETLINK, .nl_groups = UDEV_GROUP };
	ssize_t n = sendto(fd, message, (size_t)len, 0, (const struct sockaddr *)&to, sizeof(to));

	return n < 0 && errno != ECONNREFUSED ? -errno : 0;
}
