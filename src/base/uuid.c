/* SPDX-License-Identifier: MIT */
/* UUIDs, accepted and written as the kernel's mdev core does. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include "base/uuid.h"

#define UUID_CHARS 36

static bool is_dash_at(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int uuid_parse(const char *text, size_t len, struct uuid *ret)
{
	struct uuid uuid = { 0 };
	unsigned digit = 0;

	if (len < UUID_CHARS)
		return -EINVAL;
	for (size_t i = 0; i < UUID_CHARS; i++) {
		int v;

		if (is_dash_at(i)) {
			if (text[i] != '-')
				return -EINVAL;
			continue;
		}
		v = hex_value(text[i]);
		if (v < 0)
			return -EINVAL;
		uuid.b[digit / 2] = (uint8_t)(uuid.b[digit / 2] << 4 | v);
		digit++;
	}
	*ret = uuid;
	return 0;
}

void uuid_format(const struct uuid *uuid, char ret[UUID_TEXT])
{
	static const char hex[] = "0123456789abcdef";
	unsigned digit = 0;

	for (size_t i = 0; i < UUID_CHARS; i++) {
		if (is_dash_at(i)) {
			ret[i] = '-';
			continue;
		}
		ret[i] = hex[uuid->b[digit / 2] >> (digit % 2 ? 0 : 4) & 15];
		digit++;
	}
	ret[UUID_CHARS] = '\0';
}

int uuid_random(struct uuid *ret)
{
	struct uuid uuid;
	ssize_t n;

	do
		n = getrandom(uuid.b, sizeof(uuid.b), 0);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(uuid.b))
		return n < 0 ? -errno : -EIO;
	uuid.b[6] = (uint8_t)((uuid.b[6] & 0x0f) | 0x40); /* version 4 */
	uuid.b[8] = (uint8_t)((uuid.b[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
	*ret = uuid;
	return 0;
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}
