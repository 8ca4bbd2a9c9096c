/* SPDX-License-Identifier: MIT */
/*
 * Random operations against a model, the same operations without memory, and what many devices
 * cost. Linked with --wrap of the allocator.
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "core_fixture.h"

/* ---- allocations that fail ---- */

static unsigned fail_at; /* this allocation from now fails; 0: none */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool fails(void)
{
	return fail_at && --fail_at == 0;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

typedef int operation(struct fixture *f);

/* Runs op with its first, second ... allocation failing until it succeeds. Each failure is
 * -ENOMEM and leaves the tree as it was. */
static void without_memory(struct fixture *f, operation *op)
{
	unsigned n = 0;
	int error;

	do {
		char *before = dump(f, ""), *after;

		fail_at = ++n;
		error = op(f);
		fail_at = 0;
		after = dump(f, "");
		if (error) {
			assert_int_equal(error, -ENOMEM);
			assert_string_equal(after, before);
		}
		free(before);
		free(after);
	} while (error);
	assert_true(n > 1);
}

static int add_parent(struct fixture *f)
{
	return parent_add(&f->core, "thing", "thing", NULL, 0, &f->thing);
}

static int create_with_settings(struct fixture *f)
{
	return try_create(f, f->thing, "thing-full", UUID_A ",label=a,speed=600,aggregation=2");
}

static int create_in_group(struct fixture *f)
{
	return try_create(f, f->thing, "thing-pair", UUID_B ",peer_to_peer_resource_uuid=" UUID_B);
}

static int create_second_in_group(struct fixture *f)
{
	return try_create(f, f->thing, "thing-pair", UUID_C ",peer_to_peer_resource_uuid=" UUID_B);
}

static struct umdev_mdev *named(struct fixture *f, const char *uuid)
{
	struct umdev_mdev *mdev;

	assert_int_equal(mdev_find_name(&f->core, uuid, &mdev), 0);
	return mdev;
}

static int leave_group(struct fixture *f)
{
	return param_set(named(f, UUID_C), "peer_to_peer_resource_uuid", UUID_C, 36, NULL);
}

static int set_capacity(struct fixture *f)
{
	return param_set(named(f, UUID_A), "capacity", "8K", 2, NULL);
}

static int bind_again(struct fixture *f)
{
	struct umdev_mdev *mdev = named(f, UUID_B);

	if (mdev->bound)
		assert_int_equal(mdev_unbind(mdev), 0);
	return mdev_bind(mdev);
}

static void lack_of_memory_leaves_all_as_it_was(void **state)
{
	struct fixture *f = fixture_new();

	without_memory(f, add_parent);
	without_memory(f, create_with_settings);
	without_memory(f, create_in_group);
	without_memory(f, create_second_in_group);
	without_memory(f, leave_group);
	without_memory(f, set_capacity);
	assert_int_equal(mdev_unbind(named(f, UUID_B)), 0);
	without_memory(f, bind_again);
	/* Removing needs none. */
	fail_at = 1;
	assert_int_equal(parent_remove(f->thing), 0);
	assert_int_equal(fail_at, 1);
	fail_at = 0;
	fixture_free(f);
}

/* r: a change that the worker had accepted was lost for want of memory to keep it. */
static void accepted_change_needs_no_memory(void **state)
{
	struct fixture *f = fixture_new();
	const struct sock_peer qemu = process(10);
	struct umdev_mdev *mdev;
	int result;

	add_plain_thing(f);
	mdev = create(f, f->thing, "thing-full", UUID_A);
	core_connected(mdev, &qemu);
	for (unsigned n = 1;; n++) {
		fail_at = n;
		result = set_capacity(f);
		fail_at = 0;
		if (result == TREE_LATER)
			break;
		assert_int_equal(result, -ENOMEM);
		assert_int_equal(f->n_live, 0);
	}
	fail_at = 1;
	core_param_done(mdev, 0);
	assert_int_equal(fail_at, 1);
	fail_at = 0;
	assert_int_equal(umdev_mdev_param(mdev, "capacity")->u64, 8192);
	core_closed(mdev);
	fixture_free(f);
}

/* ---- the model ---- */

#define SLOTS 24
#define GROUP_VALUES 4

struct slot {
	struct umdev_mdev *mdev; /* NULL: free */
	bool full;               /* thing-full, else thing-pair */
	bool in_use, bound;
	unsigned aggregation, blocks; /* of 4 KiB */
	unsigned group;               /* thing-pair: index of its value */
};

struct model {
	struct fixture *f;
	struct slot slot[SLOTS];
	uint64_t seed;
};

static unsigned pick(struct model *m, unsigned n)
{
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(m->seed >> 33) % n;
}

static uint64_t used_units(const struct model *m)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		if (m->slot[i].mdev)
			n += m->slot[i].full ? 2 + (m->slot[i].aggregation - 1) : 1;
	return n;
}

static uint64_t used_blocks(const struct model *m)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		if (m->slot[i].mdev && m->slot[i].full)
			n += m->slot[i].blocks;
	return n;
}

static unsigned members(const struct model *m, unsigned group)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		n += m->slot[i].mdev && !m->slot[i].full && m->slot[i].bound &&
		     m->slot[i].group == group;
	return n;
}

static bool group_busy(const struct model *m, unsigned group)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (m->slot[i].mdev && !m->slot[i].full && m->slot[i].in_use &&
		    m->slot[i].group == group)
			return true;
	return false;
}

static void slot_uuid(unsigned i, char *buf)
{
	sprintf(buf, "d0000000-0000-4000-8000-%012u", i);
}

static void group_value(unsigned group, char *buf)
{
	sprintf(buf, "e0000000-0000-4000-8000-%012u", group);
}

static void check(const struct model *m)
{
	struct fixture *f = m->f;
	uint64_t units = 20 - used_units(m), blocks = 16 - used_blocks(m), fit;

	assert_int_equal(f->thing->pools[0].used, used_units(m));
	assert_int_equal(f->thing->pools[1].used, used_blocks(m) * 4096);
	fit = units / 2 < blocks ? units / 2 : blocks;
	assert_int_equal(type_available(type_find(f->thing, "thing-full")), fit);
	assert_int_equal(type_available(type_find(f->thing, "thing-pair")), units);
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct slot *s = &m->slot[i];

		if (!s->mdev)
			continue;
		assert_int_equal(mdev_in_use(s->mdev), s->in_use);
		assert_int_equal(s->mdev->bound, s->bound);
		if (s->bound && !s->full)
			assert_int_equal(s->mdev->group->n_members, members(m, s->group));
		else if (s->bound)
			assert_int_equal(s->mdev->group->n_members, 1);
	}
}

static int random_create(struct model *m, struct slot *s, unsigned i)
{
	struct slot want = { .full = pick(m, 2), .bound = true };
	char spec[256], uuid[40], value[40];
	int error = 0;

	slot_uuid(i, uuid);
	want.aggregation = 1 + pick(m, 8);
	want.blocks = 1 + pick(m, 6);
	want.group = pick(m, GROUP_VALUES);
	group_value(want.group, value);
	if (want.full)
		snprintf(spec, sizeof(spec), "%s,aggregation=%u,capacity=%uK", uuid,
			 want.aggregation, 4 * want.blocks);
	else
		snprintf(spec, sizeof(spec), "%s,peer_to_peer_resource_uuid=%s", uuid, value);
	if (s->mdev)
		error = -EEXIST;
	else if (!want.full && group_busy(m, want.group))
		error = -EBUSY;
	else if (want.full &&
		 (used_units(m) + 1 + want.aggregation > 20 || used_blocks(m) + want.blocks > 16))
		error = -ENOSPC;
	else if (!want.full && used_units(m) == 20)
		error = -ENOSPC;
	else if (m->f->listen_error)
		error = m->f->listen_error;
	else if (m->f->create_error)
		error = m->f->create_error;
	assert_int_equal(try_create(m->f, m->f->thing, want.full ? "thing-full" : "thing-pair",
				    spec),
			 error);
	if (error)
		return error;
	want.mdev = named(m->f, uuid);
	*s = want;
	return 0;
}

static int random_remove(struct model *m, struct slot *s)
{
	int error = s->in_use ? -EBUSY : 0;

	assert_int_equal(mdev_remove(s->mdev, MDEV_REMOVE, NULL), error);
	if (!error)
		s->mdev = NULL;
	return error;
}

static int random_force(struct model *m, struct slot *s)
{
	struct umdev_mdev *mdev = s->mdev;

	if (!s->in_use)
		return 0;
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE_FORCE, NULL), TREE_LATER);
	core_closed(mdev);
	s->mdev = NULL;
	return 0;
}

static int random_connect(struct model *m, struct slot *s)
{
	const struct sock_peer qemu = process(1 + (int)pick(m, 2));

	if (s->in_use) {
		if (pick(m, 3) == 0)
			core_failed(s->mdev, "chance");
		else
			core_closed(s->mdev);
		s->in_use = false;
	} else if (core_may_connect(s->mdev, &qemu) == 0) {
		core_connected(s->mdev, &qemu);
		s->in_use = true;
	} else if (s->bound && s->mdev->state == MDEV_FAILED) {
		start(s->mdev);
		stop(s->mdev);
	}
	return 0;
}

static int random_number(struct model *m, struct slot *s)
{
	bool blocks = pick(m, 2);
	unsigned n = 1 + pick(m, blocks ? 17 : 8), now = blocks ? s->blocks : s->aggregation;
	uint64_t used = blocks ? used_blocks(m) : used_units(m);
	char text[16];
	int error = 0;

	if (!s->full || (s->in_use && blocks))
		return 0;
	snprintf(text, sizeof(text), blocks ? "%u" : "%u", blocks ? n * 4096 : n);
	if (n != now) {
		if (s->in_use)
			error = -EBUSY;
		else if (used - now + n > (blocks ? 16 : 20))
			error = -ENOSPC;
		else
			error = m->f->check_error;
	}
	assert_int_equal(param_set(s->mdev, blocks ? "capacity" : "aggregation", text, strlen(text),
				   NULL),
			 error);
	if (!error)
		*(blocks ? &s->blocks : &s->aggregation) = n;
	return error;
}

static int random_move(struct model *m, struct slot *s)
{
	unsigned group = pick(m, GROUP_VALUES);
	char value[40];
	int error = 0;

	if (s->full)
		return 0;
	if (group != s->group && ((s->bound && group_busy(m, s->group)) || group_busy(m, group)))
		error = -EBUSY;
	group_value(group, value);
	assert_int_equal(param_set(s->mdev, "peer_to_peer_resource_uuid", value, 36, NULL), error);
	if (!error)
		s->group = group;
	return error;
}

static int random_bind(struct model *m, struct slot *s)
{
	int error = 0;

	if (s->bound) {
		error = s->in_use ? -EBUSY : 0;
		assert_int_equal(mdev_unbind(s->mdev), error);
	} else {
		if (!s->full && group_busy(m, s->group))
			error = -EBUSY;
		else
			error = m->f->listen_error;
		assert_int_equal(mdev_bind(s->mdev), error);
	}
	if (!error)
		s->bound = !s->bound;
	return error;
}

static int random_step(struct model *m)
{
	unsigned i = pick(m, SLOTS);
	struct slot *s = &m->slot[i];

	m->f->listen_error = pick(m, 12) ? 0 : -EMFILE;
	m->f->create_error = pick(m, 12) ? 0 : -EPERM;
	m->f->check_error = pick(m, 6) ? 0 : -EPERM;
	if (!s->mdev)
		return random_create(m, s, i);
	switch (pick(m, 8)) {
	case 0:
		return random_create(m, s, i);
	case 1:
		return random_remove(m, s);
	case 2:
		return random_force(m, s);
	case 3:
		return random_move(m, s);
	case 4:
		return random_bind(m, s);
	case 5:
	case 6:
		return random_connect(m, s);
	default:
		return random_number(m, s);
	}
}

static void random_operations_follow_the_model(void **state)
{
	struct model m = { .f = fixture_new(), .seed = 1 };
	char *empty, *before, *after;
	unsigned refusals = 0;

	add_plain_thing(m.f);
	m.f->log_off = true;
	empty = dump(m.f, "");
	for (unsigned step = 0; step < 20000; step++) {
		bool compare = step % 64 == 0;

		before = compare ? dump(m.f, "") : NULL;
		if (random_step(&m) < 0) {
			refusals++;
			if (compare) {
				after = dump(m.f, "");
				assert_string_equal(after, before);
				free(after);
			}
		}
		free(before);
		check(&m);
	}
	assert_true(refusals > 1000);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (m.slot[i].mdev && m.slot[i].in_use)
			core_closed(m.slot[i].mdev);
		if (m.slot[i].mdev)
			remove_idle(m.slot[i].mdev);
	}
	after = dump(m.f, "");
	assert_string_equal(after, empty);
	free(after);
	free(empty);
	fixture_free(m.f);
}

/* ---- many ---- */

struct keyed {
	struct list_node node;
	struct uuid uuid;
};

/* r: UUIDs that differ in their last byte only once shared one bucket. */
static void counted_uuids_spread_over_the_hash(void **state)
{
	enum { N = 4096 };
	struct uuid_map map = UUID_MAP_INIT(struct keyed, node, uuid);
	struct keyed *keys = calloc(N, sizeof(*keys));

	assert_non_null(keys);
	for (unsigned byte = 0; byte < 15; byte++) {
		for (unsigned i = 0; i < N; i++) {
			keys[i] = (struct keyed){ 0 };
			keys[i].uuid.b[byte] = (uint8_t)(i >> 8);
			keys[i].uuid.b[byte + 1] = (uint8_t)i;
			assert_null(uuid_map_find(&map, &keys[i].uuid));
			assert_int_equal(uuid_map_add(&map, &keys[i].node), 0);
			assert_ptr_equal(uuid_map_find(&map, &keys[i].uuid), &keys[i].node);
		}
		for (size_t b = 0; b < map.size; b++) {
			unsigned length = 0;

			for (struct list_node *at = map.buckets[b].next; at != &map.buckets[b];
			     at = at->next)
				length++;
			assert_true(length <= 12);
		}
		for (unsigned i = 0; i < N; i++)
			uuid_map_remove(&map, &keys[i].node);
	}
	uuid_map_fini(&map);
	free(keys);
}

#define MANY 10000

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void many_idle_devices_are_small_and_quick(void **state)
{
	static const char *const settings[] = { "units=40000", NULL };
	struct fixture *f = fixture_new();
	size_t heap;
	double start, made, gone;
	char uuid[40];

	add_thing(f, settings);
	f->log_off = true;
	heap = mallinfo2().uordblks;
	start = seconds();
	for (unsigned i = 0; i < MANY; i++) {
		slot_uuid(i, uuid);
		create(f, f->thing, "thing-bare", uuid);
	}
	made = seconds();
	heap = mallinfo2().uordblks - heap;
	assert_int_equal(parent_remove(f->thing), 0);
	gone = seconds();
	print_message("%u devices: %zu bytes each, %.0f created/s, %.0f removed/s\n", MANY,
		      heap / MANY, MANY / (made - start), MANY / (gone - made));
	/* The target is 4 KiB with the manager's listener. */
	assert_true(heap / MANY <= 3072);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lack_of_memory_leaves_all_as_it_was),
		cmocka_unit_test(accepted_change_needs_no_memory),
		cmocka_unit_test(random_operations_follow_the_model),
		cmocka_unit_test(counted_uuids_spread_over_the_hash),
		cmocka_unit_test(many_idle_devices_are_small_and_quick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
