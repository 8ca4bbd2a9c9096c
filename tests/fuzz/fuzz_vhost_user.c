// SPDX-License-Identifier: MIT
/* Requests of the vhost-user protocol: byte 0 is the number of descriptors, the rest a message.
 * What is accepted obeys the table and points inside the message. */
#include <assert.h>
#include "wire/vhost_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct vhu_message *m, unsigned n_fds, const uint8_t *data, size_t size)
{
	const struct vhu_rule *rule = vhu_rule(m->request);

	assert(rule && n_fds <= rule->max_fds);
	switch (rule->payload) {
	case VHU_MEMORY:
		assert(m->memory.n <= VHU_MAX_REGIONS && m->memory.n == n_fds);
		break;
	case VHU_VRING_FD:
		assert(m->vring_fd.has_fd == (n_fds == 1));
		break;
	case VHU_CONFIG:
		assert(m->config.size && m->config.offset + m->config.size <= VHU_CONFIG_MAX);
		assert(m->config.data >= data && m->config.data + m->config.size == data + size);
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhu_message m;
	int64_t len;

	if (size < 1)
		return 0;
	len = vhu_len(data + 1, size - 1);
	assert(len < 0 || (len == 0) == (size - 1 < VHU_HEADER));
	if (!vhu_get(data + 1, size - 1, data[0], &m)) {
		assert(len == (int64_t)size - 1);
		check(&m, data[0], data + 1, size - 1);
	}
	return 0;
}
