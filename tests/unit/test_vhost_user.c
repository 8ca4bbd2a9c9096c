/* SPDX-License-Identifier: MIT */
/* The table of vhost-user requests: bytes as front-ends send them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "wire/vhost_user.h"

static uint8_t bytes[VHU_HEADER + VHU_MAX_PAYLOAD];
static struct buf_writer w;

static void message(uint32_t request, uint32_t flags)
{
	w = buf_write_to(bytes, sizeof(bytes));
	vhu_put_header(&w, &(struct vhu_header){ request, flags, 0 });
}

static int get(unsigned n_fds, struct vhu_message *ret)
{
	uint32_t size = w.len - VHU_HEADER;

	memcpy(bytes + 8, &size, sizeof(size));
	return vhu_get(bytes, w.len, n_fds, ret);
}

static void a_memory_table_has_a_descriptor_per_region(void **state)
{
	struct vhu_message m;

	message(VHU_SET_MEM_TABLE, 0x9);
	buf_put_u32(&w, 2);
	buf_put_u32(&w, 0);
	for (unsigned i = 0; i < 8; i++)
		buf_put_u64(&w, 0x1000 + i);
	assert_int_equal(get(2, &m), 0);
	assert_true(m.need_reply);
	assert_int_equal(m.memory.n, 2);
	assert_int_equal(m.memory.region[0].guest, 0x1000);
	assert_int_equal(m.memory.region[0].size, 0x1001);
	assert_int_equal(m.memory.region[0].user, 0x1002);
	assert_int_equal(m.memory.region[1].offset, 0x1007);
	assert_int_equal(get(1, &m), -EINVAL);
	assert_int_equal(get(3, &m), -EINVAL);
	buf_put_u64(&w, 0);
	assert_int_equal(get(2, &m), -EINVAL);
}

static void more_regions_than_a_table_holds_are_refused(void **state)
{
	struct vhu_message m;

	message(VHU_SET_MEM_TABLE, 1);
	buf_put_u32(&w, 9);
	buf_put_u32(&w, 0);
	buf_space(&w, 9 * sizeof(uint64_t) * 4);
	assert_int_equal(get(8, &m), -EINVAL);
	assert_int_equal(get(9, &m), -EINVAL);
}

static void a_region_that_goes_may_come_with_its_descriptor(void **state)
{
	struct vhu_message m;

	for (unsigned request = VHU_ADD_MEM_REG; request <= VHU_REM_MEM_REG; request++) {
		message(request, 1);
		for (unsigned i = 0; i < 5; i++)
			buf_put_u64(&w, i);
		assert_int_equal(get(1, &m), 0);
		assert_int_equal(m.memory.region[0].guest, 1);
		assert_int_equal(get(0, &m), request == VHU_REM_MEM_REG ? 0 : -EINVAL);
	}
}

static void a_ring_descriptor_is_there_or_said_not_to_be(void **state)
{
	struct vhu_message m;

	message(VHU_SET_VRING_KICK, 1);
	buf_put_u64(&w, 3);
	assert_int_equal(get(1, &m), 0);
	assert_int_equal(m.vring_fd.index, 3);
	assert_int_equal(get(0, &m), -EINVAL);
	message(VHU_SET_VRING_CALL, 1);
	buf_put_u64(&w, 0x103);
	assert_int_equal(get(0, &m), 0);
	assert_false(m.vring_fd.has_fd);
	assert_int_equal(get(1, &m), -EINVAL);
	message(VHU_SET_VRING_ERR, 1);
	buf_put_u64(&w, 0x203);
	assert_int_equal(get(1, &m), -EINVAL);
}

/* 57 bytes is what QEMU asks for, 60 what libblkio does. */
static void configuration_is_asked_for_in_any_size(void **state)
{
	static const uint32_t sizes[][3] = { { 0, 57, 0 },        { 0, 60, 0 },
					     { 0, 256, 0 },       { 32, 1, 0 },
					     { 0, 0, -EINVAL },   { 0, 257, -EINVAL },
					     { 200, 57, -EINVAL } };
	struct vhu_message m;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		message(VHU_GET_CONFIG, 1);
		buf_put_u32(&w, sizes[i][0]);
		buf_put_u32(&w, sizes[i][1]);
		buf_put_u32(&w, 0);
		buf_space(&w, sizes[i][1]);
		assert_int_equal(get(0, &m), (int)sizes[i][2]);
	}
	message(VHU_GET_CONFIG, 1);
	buf_put_u32(&w, 0);
	buf_put_u32(&w, 57);
	buf_put_u32(&w, 0);
	assert_int_equal(get(0, &m), -EINVAL); /* and it does not lie about it */
}

static void the_region_of_requests_in_flight_comes_with_or_without_padding(void **state)
{
	struct vhu_message m;

	message(VHU_GET_INFLIGHT_FD, 1);
	buf_put_u64(&w, 0);
	buf_put_u64(&w, 0);
	buf_put_u16(&w, 2);
	buf_put_u16(&w, 128);
	assert_int_equal(get(0, &m), 0);
	buf_put_u32(&w, 0);
	assert_int_equal(get(0, &m), 0);
	assert_int_equal(m.inflight.n_queues, 2);
	assert_int_equal(m.inflight.queue_size, 128);
	buf_put_u32(&w, 0);
	assert_int_equal(get(0, &m), -EINVAL);
}

static void framing_is_judged_before_anything_else(void **state)
{
	struct vhu_message m;

	message(VHU_SET_OWNER, 2); /* another version */
	assert_int_equal(get(0, &m), -EPROTO);
	assert_int_equal(vhu_len(bytes, VHU_HEADER), -EPROTO);
	message(VHU_SET_OWNER, 5); /* an answer that nobody asked for */
	assert_int_equal(get(0, &m), -EPROTO);
	message(VHU_SET_OWNER, 1);
	assert_int_equal(get(0, &m), 0);
	assert_int_equal(vhu_len(bytes, VHU_HEADER - 1), 0);
	assert_int_equal(vhu_len(bytes, VHU_HEADER), VHU_HEADER);
	buf_put_u32(&w, 4);
	assert_int_equal(get(0, &m), -EINVAL);
	w.len = VHU_HEADER + VHU_MAX_PAYLOAD + 1;
	assert_int_equal(vhu_get(bytes, VHU_HEADER, 0, &m), -EPROTO);
}

static void a_request_that_does_not_exist_is_told_apart(void **state)
{
	static const uint32_t unknown[] = { 0, 19, 28, 35, 41, 44, 1000, UINT32_MAX };
	struct vhu_message m;

	for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		message(unknown[i], 1);
		assert_int_equal(get(0, &m), -EOPNOTSUPP);
		assert_null(vhu_rule(unknown[i]));
	}
}

/* DPDK compares the flags of an answer with 5. */
static void an_answer_has_version_and_reply_and_nothing_else(void **state)
{
	static const uint8_t block[57] = { 1, 2, 3 };
	uint32_t flags, size;

	w = buf_write_to(bytes, sizeof(bytes));
	vhu_put_u64(&w, VHU_GET_FEATURES, 1);
	vhu_put_vring(&w, VHU_GET_VRING_BASE, &(struct vhu_vring_state){ 1, 2 });
	vhu_put_config(&w, VHU_GET_CONFIG, &(struct vhu_config){ 0, sizeof(block), 0, block });
	vhu_put_config(&w, VHU_GET_CONFIG, &(struct vhu_config){ 0 });
	vhu_put_inflight(&w, VHU_GET_INFLIGHT_FD, &(struct vhu_inflight){ 4096, 0, 1, 128 });
	vhu_put_empty(&w, VHU_SET_LOG_BASE);
	assert_false(w.bad);
	for (size_t at = 0; at < w.len; at += VHU_HEADER + size) {
		memcpy(&flags, bytes + at + 4, 4);
		memcpy(&size, bytes + at + 8, 4);
		assert_int_equal(flags, 5);
		assert_true(at + VHU_HEADER + size <= w.len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_memory_table_has_a_descriptor_per_region),
		cmocka_unit_test(more_regions_than_a_table_holds_are_refused),
		cmocka_unit_test(a_region_that_goes_may_come_with_its_descriptor),
		cmocka_unit_test(a_ring_descriptor_is_there_or_said_not_to_be),
		cmocka_unit_test(configuration_is_asked_for_in_any_size),
		cmocka_unit_test(the_region_of_requests_in_flight_comes_with_or_without_padding),
		cmocka_unit_test(framing_is_judged_before_anything_else),
		cmocka_unit_test(a_request_that_does_not_exist_is_told_apart),
		cmocka_unit_test(an_answer_has_version_and_reply_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
