/* SPDX-License-Identifier: MIT */
/*
 * The NVMe model under kills: a scenario is run again and again, killed at its first call, at its
 * second, and so on. The host must not notice: each command is completed once, with the right
 * status and data, and a read returns what was written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "../lib/nvme_rig.h"

#define ENTRIES 8 /* of every queue: they wrap soon */
#define MAX_COMMANDS 64

struct host {
	struct umdev_device dev;
	uint64_t pages; /* next free */
	struct {
		uint64_t at;
		unsigned tail;
	} sq[4];
	struct {
		uint64_t at;
		unsigned head, phase;
	} cq[4];
	uint64_t shadow, event_index;
	uint16_t next_cid;
	uint8_t ended[MAX_COMMANDS]; /* how often */
	uint16_t status[MAX_COMMANDS];
	unsigned n_ended;
};

static uint64_t page(struct host *h)
{
	uint64_t at = h->pages;

	h->pages += NVME_PAGE;
	assert_true(at - RIG_IOVA < RIG_RAM);
	memset(rig_at(&h->dev, at), 0, NVME_PAGE);
	return at;
}

static void doorbell(struct host *h, unsigned word, uint32_t value)
{
	if (h->shadow && word > 1)
		memcpy(rig_at(&h->dev, h->shadow + 4 * word), &value, sizeof(value));
	rig_set(&h->dev, NVME_DOORBELLS + 4 * word, value);
}

static uint16_t submit(struct host *h, unsigned sq, struct nvme_command cmd)
{
	uint16_t cid = h->next_cid++;

	assert_in_range(cid, 0, MAX_COMMANDS - 1);
	cmd.cid = le16_set(cid);
	memcpy(rig_at(&h->dev, h->sq[sq].at + sizeof(cmd) * h->sq[sq].tail), &cmd, sizeof(cmd));
	h->sq[sq].tail = (h->sq[sq].tail + 1) % ENTRIES;
	doorbell(h, nvme_tail_word(sq), h->sq[sq].tail);
	return cid;
}

static void reap(struct host *h, unsigned cq)
{
	for (;;) {
		struct nvme_completion c;
		uint16_t status, cid;

		memcpy(&c, rig_at(&h->dev, h->cq[cq].at + sizeof(c) * h->cq[cq].head), sizeof(c));
		status = le16_get(c.status);
		cid = le16_get(c.cid);
		if ((status & 1) != h->cq[cq].phase)
			return;
		assert_in_range(cid, 0, h->next_cid - 1);
		h->ended[cid]++;
		h->n_ended++;
		h->status[cid] = status >> 1;
		h->cq[cq].head = (h->cq[cq].head + 1) % ENTRIES;
		if (!h->cq[cq].head)
			h->cq[cq].phase ^= 1;
		doorbell(h, nvme_head_word(cq), h->cq[cq].head);
	}
}

static void settle(struct host *h, unsigned n_cqs)
{
	unsigned before;

	do {
		before = h->n_ended;
		rig_settle(&h->dev);
		for (unsigned i = 0; i < n_cqs; i++)
			reap(h, i);
	} while (h->n_ended != before);
}

static void expect(struct host *h, uint16_t cid, uint16_t status)
{
	settle(h, 1);
	assert_int_equal(h->ended[cid], 1);
	assert_int_equal(h->status[cid] & 0x7ff, status);
}

static struct nvme_command command(uint8_t opcode, uint64_t prp1, uint32_t dw10, uint32_t dw11)
{
	return (struct nvme_command){ .opcode = opcode,
				      .prp1 = le64_set(prp1),
				      .cdw10 = le32_set(dw10),
				      .cdw11 = le32_set(dw11) };
}

static struct nvme_command transfer(uint8_t opcode, uint32_t block, uint32_t n, uint64_t prp1)
{
	struct nvme_command cmd = command(opcode, prp1, block, 0);

	cmd.nsid = le32_set(1);
	cmd.cdw12 = le32_set(n - 1);
	return cmd;
}

static void begin(struct host *h)
{
	memset(h, 0, sizeof(*h));
	h->pages = RIG_IOVA;
	for (unsigned i = 0; i < 4; i++) {
		h->sq[i].at = page(h);
		h->cq[i].at = page(h);
		h->cq[i].phase = 1;
	}
	h->dev.msi = true; /* with the pin there are no shadow doorbells */
	rig_init(&h->dev);
	rig_enable(&h->dev, h->sq[0].at, h->cq[0].at, ENTRIES);
}

static void create(struct host *h, unsigned sq, unsigned cq)
{
	expect(h,
	       submit(h, 0,
		      command(NVME_CREATE_SQ, h->sq[sq].at, sq | (ENTRIES - 1) << 16,
			      1 | cq << 16)),
	       NVME_OK);
}

/* Two submission queues on one completion queue, each command of every kind, and changes of what
 * the runner knows in between. Leaves the content of the disk in `model`. */
static void scenario(struct host *h)
{
	uint64_t data = page(h), ranges = page(h), back = page(h);
	struct nvme_dataset_range range = { .blocks = le32_set(2), .slba = le64_set(5) };
	struct nvme_command discard, buffer;
	uint16_t cid[12];
	unsigned n = 0;

	expect(h, submit(h, 0, command(NVME_CREATE_CQ, h->cq[1].at, 1 | (ENTRIES - 1) << 16, 3)),
	       NVME_OK);
	create(h, 1, 1);
	memset(rig_at(&h->dev, data), 0xa5, NVME_PAGE);
	memcpy(rig_at(&h->dev, ranges), &range, sizeof(range));
	cid[n++] = submit(h, 1, transfer(NVME_WRITE, 0, 8, data));
	cid[n++] = submit(h, 1, transfer(NVME_FLUSH, 0, 1, 0));
	settle(h, 2);
	h->shadow = page(h);
	h->event_index = page(h);
	for (unsigned i = 0; i < 4; i++) {
		uint32_t tail = h->sq[i].tail, head = h->cq[i].head;

		memcpy(rig_at(&h->dev, h->shadow + 4 * nvme_tail_word(i)), &tail, 4);
		memcpy(rig_at(&h->dev, h->shadow + 4 * nvme_head_word(i)), &head, 4);
	}
	buffer = command(NVME_DOORBELL_BUFFER, h->shadow, 0, 0);
	buffer.prp2 = le64_set(h->event_index);
	expect(h, submit(h, 0, buffer), NVME_OK);
	discard = command(NVME_DATASET, ranges, 0, NVME_DATASET_DEALLOCATE);
	discard.nsid = le32_set(1);
	cid[n++] = submit(h, 1, discard);
	create(h, 2, 1);
	cid[n++] = submit(h, 2, transfer(NVME_WRITE_ZEROES, 1, 2, 0));
	cid[n++] = submit(h, 1, transfer(NVME_READ, 4000, 1, back)); /* beyond the end */
	settle(h, 2);
	for (unsigned i = 0; i < 3; i++) {
		cid[n++] = submit(h, 1, transfer(NVME_WRITE, 16 + i, 1, data));
		cid[n++] = submit(h, 2, transfer(NVME_READ, 8 * i, 8, back));
		settle(h, 2);
	}
	expect(h, submit(h, 0, command(NVME_DELETE_SQ, 0, 1, 0)), NVME_OK);
	settle(h, 2);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(h->ended[cid[i]], 1);
}

static void check_scenario(struct host *h)
{
	uint8_t model[20 * 512];
	unsigned bad = 0;

	memset(model, 0, sizeof(model));
	memset(model, 0xa5, 8 * 512);
	memset(model + 512, 0, 2 * 512);
	memset(model + 5 * 512, 0, 2 * 512);
	memset(model + 16 * 512, 0xa5, 3 * 512);
	assert_memory_equal(h->dev.disk, model, sizeof(model));
	for (unsigned i = 0; i < h->next_cid; i++) {
		assert_int_equal(h->ended[i], 1);
		bad += h->status[i] != NVME_OK;
	}
	assert_int_equal(bad, 1);
	assert_int_equal(h->dev.log_lines, 0);
}

static void nothing_is_lost_or_repeated_wherever_the_worker_is_killed(void **state)
{
	struct host *h = calloc(1, sizeof(*h));
	long n;

	for (n = 1;; n++) {
		begin(h);
		h->dev.kill_in = n;
		scenario(h);
		check_scenario(h);
		if (h->dev.kill_in)
			break;
	}
	print_message("killed at each of %ld calls\n", n - 1);
	assert_in_range(n, 200, 100000);
	free(h);
}

/* Whatever is in a state that was inherited, a life begins with it or refuses it. */
static void garbage_in_an_inherited_state_is_survived(void **state)
{
	struct host *h = calloc(1, sizeof(*h));

	srand(5);
	for (unsigned round = 0; round < 2000; round++) {
		uint8_t *bytes;

		begin(h);
		h->dev.busy_media = round % 2;
		expect(h,
		       submit(h, 0,
			      command(NVME_CREATE_CQ, h->cq[1].at, 1 | (ENTRIES - 1) << 16, 3)),
		       NVME_OK);
		create(h, 1, 1);
		for (unsigned i = 0; i < 5; i++)
			submit(h, 1, transfer(NVME_WRITE, i, 1, h->pages));
		rig_settle(&h->dev);
		bytes = (uint8_t *)&h->dev.queue[0].state;
		for (unsigned i = rand() % 30; i; i--)
			bytes[rand() % (i % 2 ? sizeof(struct nvme_queue_state) : 1024 + 5 * 128)] =
				(uint8_t)rand();
		rig_restart(&h->dev);
		h->dev.busy_media = false;
		rig_settle(&h->dev);
		submit(h, 1, transfer(NVME_FLUSH, 0, 1, 0));
		rig_settle(&h->dev);
		rig_set(&h->dev, NVME_CC, 0);
		rig_settle(&h->dev);
		assert_int_equal(rig_get(&h->dev, NVME_CSTS), 0);
	}
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_or_repeated_wherever_the_worker_is_killed),
		cmocka_unit_test(garbage_in_an_inherited_state_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
