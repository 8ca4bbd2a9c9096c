/* SPDX-License-Identifier: MIT */
/* Registers of the display: what bochs-drm does with them, and what nobody should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/display/display_model.h"

#define VRAM (16u << 20)

static struct display_model m;
static uint8_t edid[DISPLAY_EDID_LEN];

static void dispi(unsigned index, uint16_t value)
{
	display_write(&m, DISPLAY_DISPI + 2 * index, 2, value);
}

static uint16_t dispi_of(unsigned index)
{
	return (uint16_t)display_read(&m, VRAM, edid, DISPLAY_DISPI + 2 * index, 2);
}

static struct display_mode shown(void)
{
	struct display_mode mode;

	display_mode(&m, VRAM, &mode);
	return mode;
}

/* As recorded from a Linux 6.1 guest. */
static void set_mode(uint16_t width, uint16_t height)
{
	display_read_effect(&m, DISPLAY_VGA + 0x1a, 1);
	display_write(&m, DISPLAY_VGA, 1, 0x20);
	dispi(DISPI_ENABLE, 0);
	dispi(DISPI_BPP, 32);
	dispi(DISPI_XRES, width);
	dispi(DISPI_YRES, height);
	dispi(DISPI_BANK, 0);
	dispi(DISPI_VIRT_WIDTH, width);
	dispi(DISPI_VIRT_HEIGHT, VRAM / (4 * width));
	dispi(DISPI_X_OFFSET, 0);
	dispi(DISPI_Y_OFFSET, 0);
	dispi(DISPI_ENABLE, DISPI_ENABLED | DISPI_LFB);
}

static void linux_finds_the_card_it_knows(void **state)
{
	display_reset(&m);
	assert_int_equal(dispi_of(DISPI_ID) & 0xfff0, 0xb0c0);
	assert_int_equal(dispi_of(DISPI_MEMORY), VRAM >> 16);
	assert_int_equal(display_read(&m, VRAM, edid, DISPLAY_QEXT, 4), 8);
	display_write(&m, DISPLAY_QEXT + 4, 4, 0x1e1e1e1e);
	assert_int_equal(display_read(&m, VRAM, edid, DISPLAY_QEXT + 4, 4), 0x1e1e1e1e);
}

static void a_mode_is_shown_when_it_is_complete(void **state)
{
	struct display_mode mode;

	display_reset(&m);
	assert_int_equal(shown().width, 0);
	set_mode(1024, 768);
	mode = shown();
	assert_int_equal(mode.width, 1024);
	assert_int_equal(mode.height, 768);
	assert_int_equal(mode.stride, 4096);
	assert_int_equal(mode.offset, 0);
	dispi(DISPI_ENABLE, 0);
	assert_int_equal(shown().width, 0);
}

static void a_flip_moves_the_first_pixel(void **state)
{
	display_reset(&m);
	set_mode(1024, 768);
	dispi(DISPI_Y_OFFSET, 768);
	assert_int_equal(shown().offset, 768 * 4096);
	dispi(DISPI_VIRT_WIDTH, 1280);
	dispi(DISPI_X_OFFSET, 16);
	assert_int_equal(shown().stride, 5120);
	assert_int_equal(shown().offset, 768 * 5120 + 64);
}

static void a_blank_screen_shows_nothing(void **state)
{
	display_reset(&m);
	set_mode(640, 480);
	display_read_effect(&m, DISPLAY_VGA + 0x1a, 1);
	display_write(&m, DISPLAY_VGA, 1, 0);
	assert_int_equal(shown().width, 0);
	display_write(&m, DISPLAY_VGA, 1, 0x20); /* the value of the index: nothing */
	assert_int_equal(shown().width, 0);
	display_write(&m, DISPLAY_VGA, 1, 0x20);
	assert_int_equal(shown().width, 640);
}

static void depths_other_than_32_are_refused_visibly(void **state)
{
	static const uint16_t others[] = { 0, 8, 15, 16, 24, 64 };

	display_reset(&m);
	for (unsigned i = 0; i < sizeof(others) / sizeof(*others); i++) {
		dispi(DISPI_BPP, others[i]);
		assert_int_equal(dispi_of(DISPI_BPP), 32);
		assert_int_equal(m.refused_bpp, others[i]);
	}
	dispi(DISPI_BPP, 32);
	assert_int_equal(m.refused_bpp, 0);
}

static void the_largest_size_can_be_asked_for(void **state)
{
	display_reset(&m);
	set_mode(640, 480);
	dispi(DISPI_ENABLE, DISPI_GETCAPS);
	assert_int_equal(dispi_of(DISPI_XRES), DISPLAY_MAX);
	assert_int_equal(dispi_of(DISPI_YRES), DISPLAY_MAX);
	dispi(DISPI_ENABLE, 0);
	assert_int_equal(dispi_of(DISPI_XRES), 640);
}

static void the_byte_order_of_pixels_is_kept(void **state)
{
	display_reset(&m);
	set_mode(640, 480);
	display_write(&m, DISPLAY_QEXT + 4, 4, 0xbebebebe);
	assert_true(shown().big_endian);
	display_write(&m, DISPLAY_QEXT + 4, 4, 0x12345678); /* no such order */
	assert_true(shown().big_endian);
}

static void what_does_not_change_is_not_changed(void **state)
{
	display_reset(&m);
	dispi(DISPI_MEMORY, 1);
	assert_int_equal(dispi_of(DISPI_MEMORY), VRAM >> 16);
	dispi(DISPI_ID, 0x1234);
	assert_int_equal(dispi_of(DISPI_ID), 0xb0c5);
	dispi(DISPI_ID, 0xb0c4);
	assert_int_equal(dispi_of(DISPI_ID), 0xb0c4);
	dispi(DISPI_BANK, 7);
	assert_int_equal(dispi_of(DISPI_BANK), 0);
}

/* Whatever a guest writes, what is shown lies inside its memory. */
static void nothing_outside_of_the_memory_is_ever_shown(void **state)
{
	unsigned n_shown = 0;

	srand(3);
	display_reset(&m);
	for (unsigned i = 0; i < 400000; i++) {
		uint64_t vram = 1ull << (16 + rand() % 10);
		unsigned len = 1u << rand() % 4;
		uint64_t offset = rand() % 2 ? DISPLAY_DISPI + rand() % 32 : rand() % 0x1000;
		uint64_t value = (uint64_t)rand() << 32 | (unsigned)rand();
		struct display_mode mode;

		if (rand() % 3)
			value %= 5000;
		display_write(&m, offset & ~(uint64_t)(len - 1), len, value);
		display_read(&m, vram, edid, offset & ~(uint64_t)(len - 1), len);
		display_mode(&m, vram, &mode);
		if (!mode.width)
			continue;
		n_shown++;
		assert_true(mode.width <= DISPLAY_MAX && mode.height <= DISPLAY_MAX);
		assert_true(mode.stride >= mode.width * 4);
		assert_true(mode.offset + (uint64_t)mode.stride * (mode.height - 1) +
				    mode.width * 4 <=
			    vram);
	}
	assert_true(n_shown > 100);
}

static void every_edid_is_whole(void **state)
{
	for (unsigned width = 640; width <= DISPLAY_MAX; width += 16) {
		uint8_t sum = 0;

		display_edid(edid, width, width * 3 / 4);
		for (unsigned i = 0; i < sizeof(edid); i++)
			sum = (uint8_t)(sum + edid[i]);
		assert_int_equal(sum, 0);
		assert_int_equal(edid[54 + 2] | (edid[54 + 4] & 0xf0) << 4, width);
		assert_int_equal(edid[54 + 5] | (edid[54 + 7] & 0xf0) << 4, width * 3 / 4);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linux_finds_the_card_it_knows),
		cmocka_unit_test(a_mode_is_shown_when_it_is_complete),
		cmocka_unit_test(a_flip_moves_the_first_pixel),
		cmocka_unit_test(a_blank_screen_shows_nothing),
		cmocka_unit_test(depths_other_than_32_are_refused_visibly),
		cmocka_unit_test(the_largest_size_can_be_asked_for),
		cmocka_unit_test(the_byte_order_of_pixels_is_kept),
		cmocka_unit_test(what_does_not_change_is_not_changed),
		cmocka_unit_test(nothing_outside_of_the_memory_is_ever_shown),
		cmocka_unit_test(every_edid_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
