/* SPDX-License-Identifier: MIT */
/*
 * A successor inherits an IOVA table and a committed record from a life that may have been taken
 * over by its guest: any content is refused, or used without a step outside of it.
 * Input: number of slots, then {what, number} pairs that fill files, slots and the record from the
 * bytes behind them. Descriptors can only be those of two small files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "dma/dma.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_OWN 8 /* places at either end of the arrays that the input can reach */
#define PAGES 4

struct input {
	const uint8_t *at;
	size_t left;
	int fd[2];
	struct stat st[2];
};

static void take(struct input *in, void *to, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	memset(to, 0, len);
	memcpy(to, in->at, n);
	in->at += n;
	in->left -= n;
}

static uint8_t take_u8(struct input *in)
{
	uint8_t v;

	take(in, &v, 1);
	return v;
}

/* A small number, or now and then any. */
static uint64_t take_number(struct input *in, uint64_t unit)
{
	uint8_t v = take_u8(in);
	uint64_t any;

	if (v < 0xf0)
		return v % 16 * unit;
	if (v < 0xf8)
		return 0 - (v % 8 * unit);
	take(in, &any, sizeof(any));
	return any;
}

static int open_one(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, PAGES * DMA_PAGE) < 0)
		abort();
	return fd;
}

static int take_fd(struct input *in)
{
	uint8_t v = take_u8(in);

	return v < 0xf0 ? in->fd[v % 2] : -(int)(v % 4);
}

static void take_file(struct input *in, struct dma_file_slot *file)
{
	uint8_t which = take_u8(in);
	const struct stat *st = &in->st[which % 2];

	*file = (struct dma_file_slot){ .fd = take_fd(in),
					.writable = (uint32_t)take_number(in, 1),
					.dev = st->st_dev,
					.ino = st->st_ino + (which > 0xf0),
					.size = take_number(in, DMA_PAGE) };
}

static void take_slot(struct input *in, struct dma_slot *slot)
{
	slot->iova = take_number(in, DMA_PAGE);
	slot->size = take_number(in, DMA_PAGE);
	slot->offset = take_number(in, DMA_PAGE);
	slot->file = (int32_t)take_number(in, 1) - 1;
	slot->kind = (uint16_t)(take_u8(in) % 4);
	slot->prot = (uint16_t)(take_u8(in) % 5);
}

static unsigned take_place(struct input *in, unsigned n)
{
	unsigned v = take_u8(in) % (2 * N_OWN);

	return v < N_OWN ? v : n - 2 * N_OWN + v;
}

static void fill(struct input *in, struct dma_shared *shared, struct dma_record *record)
{
	shared->n_slots = take_u8(in);
	if (shared->n_slots > 0xf0)
		shared->n_slots = DMA_MAX_MAPS + shared->n_slots % 2;
	for (unsigned i = 0; i < DMA_MAX_FILES; i++)
		shared->files[i].fd = -1;
	record->op = take_u8(in) % 6;
	record->slot = (int32_t)take_number(in, 1);
	record->file = (int32_t)take_number(in, 1) - 1;
	record->new_fd = take_fd(in);
	take_slot(in, &record->value);
	take_file(in, &record->file_value);
	record->file_value.fd = -1;
	while (in->left) {
		if (take_u8(in) % 2)
			take_file(in, &shared->files[take_place(in, DMA_MAX_FILES)]);
		else
			take_slot(in, &shared->slots[take_place(in, DMA_MAX_MAPS)]);
	}
}

static void use(struct dma_table *t, const struct dma_record *record)
{
	uint8_t buf[3 * DMA_PAGE];
	struct dma_record all;

	if (dma_apply(t, record) == -EUCLEAN) {
		struct dma_record none = { .op = DMA_OP_NONE };

		dma_apply(t, &none);
	}
	dma_apply(t, record);
	for (uint64_t at = 0; at < 32; at++) {
		dma_copy_from(t, (struct iova){ at * DMA_PAGE - 8 * DMA_PAGE }, buf, sizeof(buf));
		dma_copy_to(t, (struct iova){ at * DMA_PAGE - 8 * DMA_PAGE }, buf, 100);
	}
	if (dma_prepare_unmap_all(t, &all) < 0 || dma_apply(t, &all) < 0 || dma_n_maps(t))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size, .fd = { open_one(), open_one() } };
	struct dma_shared *shared = calloc(1, sizeof(*shared));
	struct dma_record record;
	struct dma_table *t;

	if (!shared || dma_guard_init() < 0)
		abort();
	for (unsigned i = 0; i < 2; i++)
		if (fstat(in.fd[i], &in.st[i]) < 0)
			abort();
	fill(&in, shared, &record);
	if (dma_table_new(shared, true, &t) == 0) {
		use(t, &record);
		dma_table_free(t);
	}
	close(in.fd[0]);
	close(in.fd[1]);
	free(shared);
	return 0;
}
