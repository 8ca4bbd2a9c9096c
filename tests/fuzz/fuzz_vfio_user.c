// SPDX-License-Identifier: MIT
/* Decoders of the vfio-user protocol: the first byte chooses one, the rest is its payload. What was
 * accepted must lie inside the payload and survive being encoded and decoded again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "wire/vfio_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const uint8_t *p, uint64_t n, const uint8_t *payload, size_t len)
{
	assert(!p ||
	       (p >= payload && (size_t)(p - payload) <= len && n <= len - (size_t)(p - payload)));
}

static void version(const uint8_t *payload, size_t len)
{
	struct vuser_version v, again;
	uint8_t out[512];
	struct buf_writer w = buf_write_to(out, sizeof(out));

	if (vuser_get_version(payload, len, &v))
		return;
	vuser_put_version(&w, &v);
	assert(!w.bad && !vuser_get_version(out, w.len, &again));
	assert(again.major == v.major && again.minor == v.minor &&
	       again.caps.max_msg_fds == v.caps.max_msg_fds &&
	       again.caps.max_data_xfer_size == v.caps.max_data_xfer_size &&
	       again.caps.max_dma_maps == v.caps.max_dma_maps &&
	       again.caps.pgsizes == v.caps.pgsizes &&
	       again.caps.write_multiple == v.caps.write_multiple);
}

static void header(const uint8_t *payload, size_t len)
{
	struct vuser_header h;
	uint8_t out[VUSER_HEADER];
	struct buf_writer w = buf_write_to(out, sizeof(out));
	int64_t told = vuser_len(payload, len);

	assert(told == -71 /* EPROTO */ || told == 0 || told >= VUSER_HEADER);
	if (vuser_get_header(payload, len, &h))
		return;
	assert((size_t)told == len);
	vuser_put_header(&w, &h);
	assert(!w.bad && !memcmp(out, payload, VUSER_HEADER));
}

static void multi(const uint8_t *payload, size_t len)
{
	struct vuser_access a;
	uint64_t count;

	if (vuser_get_multi(payload, len, &count))
		return;
	for (uint64_t i = 0; i < count; i++) {
		if (!vuser_get_multi_entry(payload, len, i, &a))
			check_inside(a.data, a.count, payload, len);
	}
}

static void access_and_irqs(const uint8_t *payload, size_t len)
{
	struct vuser_dma_access dma;
	struct vuser_irq_set set;
	struct vuser_access a;

	if (!vuser_get_write(payload, len, &a))
		check_inside(a.data, a.count, payload, len);
	if (!vuser_get_read(payload, len, &a))
		assert(!a.data);
	if (!vuser_get_dma_access(payload, len, &dma))
		check_inside(dma.data, dma.count, payload, len);
	if (!vuser_get_irq_set(payload, len, &set))
		check_inside(set.bools, set.count, payload, len);
}

static void fixed(const uint8_t *payload, size_t len)
{
	struct vuser_region_info region;
	struct vuser_dma_unmap unmap;
	struct vuser_feature feature;
	struct vuser_dma_map map;
	struct vuser_info info;

	assert(!vuser_get_dma_map(payload, len, &map) == (len >= 32));
	assert(!vuser_get_dma_unmap(payload, len, &unmap) == (len >= 24));
	assert(!vuser_get_info(payload, len, &info) == (len >= 16));
	assert(!vuser_get_region_info(payload, len, &region) == (len >= 32));
	assert(!vuser_get_feature(payload, len, &feature) == (len >= 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const uint8_t *, size_t) = { version, header, multi,
								    access_and_irqs, fixed };
	uint8_t *payload;

	if (!size)
		return 0;
	payload = malloc(size - 1 ? size - 1 : 1); /* of its own, to see a byte too much */
	memcpy(payload, data + 1, size - 1);
	targets[data[0] % 5](payload, size - 1);
	free(payload);
	return 0;
}
