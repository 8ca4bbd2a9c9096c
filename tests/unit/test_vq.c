/* SPDX-License-Identifier: MIT */
/* Virtqueues against a driver that plays by the rules, and against one that does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../lib/vq_ring.h"
#include "vdpa/vq.h"

#define INDIRECT (1ULL << UMDEV_VIRTIO_F_INDIRECT)
#define EVENT_IDX (1ULL << UMDEV_VIRTIO_F_EVENT_IDX)
#define PACKED (1ULL << UMDEV_VIRTIO_F_PACKED)
#define IN_ORDER (1ULL << UMDEV_VIRTIO_F_IN_ORDER)

static struct vq_ring ring;
static struct umdev_vq vq;
static struct umdev_vq_chain chain;

static void begin(uint64_t features, uint16_t size)
{
	vq_ring_init(&ring, features, size);
	assert_int_equal(umdev_vq_init(&vq, NULL, &ring.config, ring.journal), 0);
}

/* ---- by the rules ---- */

static void play(uint64_t features, uint16_t size, unsigned seed)
{
	uint16_t held[VQ_RING_MAX], n_held = 0;
	unsigned names[VQ_RING_MAX];
	uint32_t written[VQ_RING_MAX] = { 0 }, got;

	begin(features, size);
	srand(seed);
	for (unsigned step = 0; step < 4000; step++) {
		unsigned in = rand() % 3, out = rand() % 3;
		int name;

		if (rand() % 2 && in + out)
			vq_ring_post(&ring, out, in, features & INDIRECT && rand() % 2);
		if (rand() % 2 && umdev_vq_pop(&vq, &chain) == 1) {
			names[n_held] = vq_ring_name(&ring, &vq, chain.head);
			assert_true(vq_ring_is(&ring, names[n_held], &chain));
			held[n_held++] = chain.head;
		}
		if (rand() % 2 && n_held) {
			unsigned k = rand() % n_held;

			written[names[k]] = step;
			assert_int_equal(umdev_vq_push(&vq, held[k], step), 0);
			held[k] = held[--n_held];
			names[k] = names[n_held];
		}
		name = vq_ring_reap(&ring, &got);
		assert_int_not_equal(name, -2);
		if (name >= 0)
			assert_int_equal(got, written[name]);
	}
	while (n_held)
		assert_int_equal(umdev_vq_push(&vq, held[--n_held], 0), 0);
	while (umdev_vq_pop(&vq, &chain) == 1)
		assert_int_equal(umdev_vq_push(&vq, chain.head, 0), 0);
	while (vq_ring_reap(&ring, &got) >= 0)
		;
	assert_int_equal(ring.reaped, ring.serial);
	assert_true(ring.serial > 300);
}

static void every_chain_comes_back_once(void **state)
{
	static const uint64_t layouts[] = { 0, PACKED };
	static const uint64_t more[] = { 0, INDIRECT, IN_ORDER, INDIRECT | IN_ORDER | EVENT_IDX };

	for (unsigned l = 0; l < 2; l++)
		for (unsigned m = 0; m < 4; m++)
			for (unsigned seed = 1; seed <= 4; seed++)
				play(layouts[l] | more[m], 1U << (seed + 2), seed);
	play(PACKED | INDIRECT, 13, 5); /* packed rings may have any size */
}

static void a_drained_ring_goes_on_where_it_stood(void **state)
{
	static const uint64_t layouts[] = { 0, PACKED };
	uint32_t written;

	for (unsigned l = 0; l < 2; l++) {
		begin(layouts[l], 8);
		for (unsigned i = 0; i < 100; i++) {
			vq_ring_post(&ring, 1, 2, false);
			assert_int_equal(umdev_vq_pop(&vq, &chain), 1);
			assert_int_equal(umdev_vq_push(&vq, chain.head, i), 0);
			assert_true(vq_ring_reap(&ring, &written) >= 0);
			umdev_vq_position(&ring.config, ring.journal, &ring.config.avail,
					  &ring.config.used);
			memset(ring.journal, 0, sizeof(ring.journal));
			assert_int_equal(umdev_vq_init(&vq, NULL, &ring.config, ring.journal), 0);
		}
	}
}

/* ---- notifications ---- */

static void complete(unsigned n)
{
	uint32_t written;

	while (n--) {
		assert_true(vq_ring_post(&ring, 1, 1, false) >= 0);
		assert_int_equal(umdev_vq_pop(&vq, &chain), 1);
		assert_int_equal(umdev_vq_push(&vq, chain.head, 0), 0);
		assert_true(vq_ring_reap(&ring, &written) >= 0);
	}
}

static void a_new_life_signals_once(void **state)
{
	begin(0, 8);
	assert_true(umdev_vq_should_signal(&vq));
	assert_false(umdev_vq_should_signal(&vq));
}

static void a_driver_that_wants_no_interrupt_gets_none(void **state)
{
	uint16_t *flags;

	begin(0, 8);
	flags = vq_ring_at(&ring, ring.config.driver);
	umdev_vq_should_signal(&vq);
	complete(1);
	assert_true(umdev_vq_should_signal(&vq));
	*flags = 1;
	complete(1);
	assert_false(umdev_vq_should_signal(&vq));

	begin(PACKED, 8);
	flags = (uint16_t *)vq_ring_at(&ring, ring.config.driver) + 1;
	umdev_vq_should_signal(&vq);
	complete(1);
	assert_true(umdev_vq_should_signal(&vq));
	*flags = 1;
	complete(1);
	assert_false(umdev_vq_should_signal(&vq));
}

static void a_signal_comes_when_the_event_is_reached(void **state)
{
	uint16_t *event;

	begin(EVENT_IDX, 8);
	event = (uint16_t *)vq_ring_at(&ring, ring.config.driver) + 2 + 8;
	umdev_vq_should_signal(&vq);
	for (unsigned round = 0; round < 40; round++) {
		*event = ring.used + 2; /* tell me of the third */
		complete(2);
		assert_false(umdev_vq_should_signal(&vq));
		complete(1);
		assert_true(umdev_vq_should_signal(&vq));
	}

	begin(PACKED | EVENT_IDX, 7);
	event = vq_ring_at(&ring, ring.config.driver);
	event[1] = 2;
	umdev_vq_should_signal(&vq);
	for (unsigned round = 0; round < 40; round++) {
		unsigned at = ring.used + 4; /* chains have two descriptors */

		event[0] = at < 7 ? at | ring.used_wrap << 15 : (at - 7) | !ring.used_wrap << 15;
		complete(2);
		assert_false(umdev_vq_should_signal(&vq));
		complete(1);
		assert_true(umdev_vq_should_signal(&vq));
	}
}

static void a_notification_is_asked_for_before_sleep(void **state)
{
	static const uint64_t layouts[] = { 0, EVENT_IDX, PACKED, PACKED | EVENT_IDX };
	static const uint64_t none = 0;

	for (unsigned l = 0; l < 4; l++) {
		uint16_t *device;

		begin(layouts[l], 8);
		device = vq_ring_at(&ring, ring.config.device);
		umdev_vq_disarm(&vq);
		if (layouts[l] != EVENT_IDX)
			assert_memory_not_equal(device, &none, 4);
		complete(3);
		assert_false(umdev_vq_arm(&vq));
		if (layouts[l] == EVENT_IDX)
			assert_int_equal(device[2 + 4 * 8], 3);
		else if (layouts[l] == 0)
			assert_int_equal(device[0], 0);
		else
			assert_int_equal(device[1], layouts[l] & EVENT_IDX ? 2 : 0);
		if (layouts[l] == (PACKED | EVENT_IDX))
			assert_int_equal(device[0], 6 | 0x8000);
		vq_ring_post(&ring, 1, 0, false);
		assert_true(umdev_vq_arm(&vq)); /* it came in between */
	}
}

/* ---- against the rules ---- */

/* Posts one chain of three segments, breaks it, and wants the ring to be broken by it, for good. */
static void breaks(uint64_t features, bool indirect, void (*harm)(struct vq_desc *d), int error)
{
	struct iova at;
	int name;

	begin(features, 8);
	complete(1);
	at = ring.config.desc;
	name = vq_ring_post(&ring, 2, 1, indirect);
	if (indirect)
		at.v = VQ_RING_BASE + 16384 + name * VQ_RING_SEGS * VQ_DESC_SIZE;
	else if (features & PACKED)
		at.v += (ring.avail + 5) % 8 * VQ_DESC_SIZE;
	else
		at.v += name * VQ_DESC_SIZE;
	harm(vq_ring_at(&ring, at));
	assert_int_equal(umdev_vq_pop(&vq, &chain), error);
	assert_int_equal(umdev_vq_pop(&vq, &chain), error);
	assert_int_equal(umdev_vq_push(&vq, 0, 0), error);
}

static void set_flags(struct vq_desc *d, uint16_t set, uint16_t clear)
{
	le16 *flags = vq.config.features & PACKED ? &d->next : &d->flags;

	*flags = le16_set((le16_get(*flags) | set) & ~clear);
}

static void harm_write_first(struct vq_desc *d)
{
	set_flags(d, VQ_DESC_WRITE, 0);
}
static void harm_wrap(struct vq_desc *d)
{
	d->addr = le64_set(UINT64_MAX);
}
static void harm_loop(struct vq_desc *d)
{
	struct vq_desc *ring_of = vq_ring_at(&ring, ring.config.desc);

	d->next = le16_set(d - ring_of);
}
static void harm_table_loop(struct vq_desc *d)
{
	d->next = le16_set(0);
}
static void harm_next(struct vq_desc *d)
{
	d->next = le16_set(8);
}
static void harm_indirect(struct vq_desc *d)
{
	set_flags(d, VQ_DESC_INDIRECT, 0);
}
static void harm_table_len(struct vq_desc *d)
{
	set_flags(d, VQ_DESC_INDIRECT, VQ_DESC_NEXT);
	d->len = le32_set(24);
}
static void harm_table_long(struct vq_desc *d)
{
	set_flags(d, VQ_DESC_INDIRECT, VQ_DESC_NEXT);
	d->len = le32_set(16 * (UMDEV_VQ_SEGS + 1));
}
static void harm_table_nowhere(struct vq_desc *d)
{
	set_flags(d, VQ_DESC_INDIRECT, VQ_DESC_NEXT);
	d->addr = le64_set(8);
	d->len = le32_set(16);
}

static void a_chain_that_breaks_a_rule_breaks_the_ring(void **state)
{
	for (unsigned l = 0; l < 2; l++) {
		uint64_t features = l ? PACKED : 0;

		breaks(features, false, harm_write_first, -EPROTO);
		breaks(features, false, harm_wrap, -EPROTO);
		breaks(features, false, harm_indirect, -EPROTO); /* with NEXT, not negotiated */
		breaks(features | INDIRECT, false, harm_indirect, -EPROTO); /* with NEXT */
		breaks(features | INDIRECT, false, harm_table_len, -EPROTO);
		breaks(features | INDIRECT, false, harm_table_long, -EPROTO);
		breaks(features | INDIRECT, false, harm_table_nowhere, -EFAULT);
		breaks(features | INDIRECT, true, harm_write_first, -EPROTO);
		breaks(features | INDIRECT, true, harm_wrap, -EPROTO);
		breaks(features | INDIRECT, true, harm_indirect, -EPROTO); /* table in a table */
	}
	breaks(0, false, harm_loop, -EPROTO);
	breaks(0, false, harm_next, -EPROTO);
	breaks(INDIRECT, true, harm_table_loop, -EPROTO);
	breaks(INDIRECT, true, harm_next, -EPROTO);
}

static void an_available_index_that_jumps_breaks_the_ring(void **state)
{
	begin(0, 8);
	((uint16_t *)vq_ring_at(&ring, ring.config.driver))[1] = 9;
	assert_int_equal(umdev_vq_pop(&vq, &chain), -EPROTO);
	begin(0, 8);
	((uint16_t *)vq_ring_at(&ring, ring.config.driver))[1] = 1;
	((uint16_t *)vq_ring_at(&ring, ring.config.driver))[2] = 8; /* no such descriptor */
	assert_int_equal(umdev_vq_pop(&vq, &chain), -EPROTO);
}

static void a_chain_that_is_available_twice_breaks_the_ring(void **state)
{
	uint16_t *avail;
	int name;

	begin(0, 8);
	avail = vq_ring_at(&ring, ring.config.driver);
	name = vq_ring_post(&ring, 1, 0, false);
	assert_int_equal(umdev_vq_pop(&vq, &chain), 1);
	avail[2 + 1] = name;
	avail[1] = 2;
	assert_int_equal(umdev_vq_pop(&vq, &chain), -EPROTO);
}

static void a_packed_chain_without_end_breaks_the_ring(void **state)
{
	struct vq_desc *d;

	begin(PACKED, 8);
	d = vq_ring_at(&ring, ring.config.desc);
	for (unsigned i = 0; i < 8; i++)
		d[i] = (struct vq_desc){ le64_set(4096), le32_set(1), le16_set(0),
					 le16_set(VQ_DESC_NEXT | VQ_DESC_AVAIL) };
	assert_int_equal(umdev_vq_pop(&vq, &chain), -EPROTO);
}

static void a_ring_without_memory_does_not_start(void **state)
{
	for (unsigned l = 0; l < 2; l++) {
		vq_ring_init(&ring, l ? PACKED : 0, 8);
		ring.config.desc.v = ring.config.device.v = 64;
		assert_int_equal(umdev_vq_init(&vq, NULL, &ring.config, ring.journal), -EFAULT);
	}
}

static void an_impossible_ring_is_refused(void **state)
{
	static const struct {
		uint64_t features;
		uint16_t size, avail, used;
	} bad[] = { { 0, 0, 0, 0 },      { 0, 12, 0, 0 },         { 0, 2048, 0, 0 },
		    { PACKED, 0, 0, 0 }, { PACKED, 1025, 0, 0 },  { PACKED, 8, 8, 0 },
		    { PACKED, 8, 0, 8 }, { PACKED, 8, 0x8008, 0 } };

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		vq_ring_init(&ring, 0, 8);
		ring.config.features = bad[i].features;
		ring.config.size = bad[i].size;
		ring.config.avail = bad[i].avail;
		ring.config.used = bad[i].used;
		assert_int_equal(umdev_vq_init(&vq, NULL, &ring.config, ring.journal), -EINVAL);
	}
}

/* A journal of anything: refused, or believed as far as memory is safe (built with sanitizers). */
static void an_impossible_journal_is_refused_or_harmless(void **state)
{
	unsigned refused = 0;

	srand(7);
	for (unsigned round = 0; round < 4000; round++) {
		bool packed = round & 1;
		unsigned n = 1 + rand() % 6;

		begin((packed ? PACKED : 0) | (round & 2 ? IN_ORDER : 0), 8);
		for (unsigned i = 0; i < 4; i++)
			vq_ring_post(&ring, 1, 1, false);
		umdev_vq_pop(&vq, &chain);
		while (n--)
			ring.journal[rand() % 300] = rand();
		if (umdev_vq_init(&vq, NULL, &ring.config, ring.journal) < 0) {
			refused++;
			continue;
		}
		for (unsigned i = 0; i < 20 && umdev_vq_pop(&vq, &chain) == 1; i++)
			umdev_vq_push(&vq, chain.head, 0);
	}
	assert_true(refused > 400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_chain_comes_back_once),
		cmocka_unit_test(a_drained_ring_goes_on_where_it_stood),
		cmocka_unit_test(a_new_life_signals_once),
		cmocka_unit_test(a_driver_that_wants_no_interrupt_gets_none),
		cmocka_unit_test(a_signal_comes_when_the_event_is_reached),
		cmocka_unit_test(a_notification_is_asked_for_before_sleep),
		cmocka_unit_test(a_chain_that_breaks_a_rule_breaks_the_ring),
		cmocka_unit_test(an_available_index_that_jumps_breaks_the_ring),
		cmocka_unit_test(a_chain_that_is_available_twice_breaks_the_ring),
		cmocka_unit_test(a_packed_chain_without_end_breaks_the_ring),
		cmocka_unit_test(a_ring_without_memory_does_not_start),
		cmocka_unit_test(an_impossible_ring_is_refused),
		cmocka_unit_test(an_impossible_journal_is_refused_or_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
