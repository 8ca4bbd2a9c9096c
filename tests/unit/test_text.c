/* SPDX-License-Identifier: MIT */
/* str, uuid, buf and err: everything of base that reads or writes text. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

struct number {
	const char *text;
	int error;
	uint64_t value;
};

static void numbers_are_read_as_the_kernel_does(void **state)
{
	static const struct number cases[] = {
		{ "0", 0, 0 },
		{ "1", 0, 1 },
		{ "1\n", 0, 1 },
		{ "+1", 0, 1 },
		{ "+0x10\n", 0, 16 },
		{ "0x1F", 0, 31 },
		{ "0X1f", 0, 31 },
		{ "010", 0, 8 },
		{ "00", 0, 0 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "0xffffffffffffffff", 0, UINT64_MAX },
		{ "01777777777777777777777", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE },
		{ "0x10000000000000000", -ERANGE },
		{ "99999999999999999999999", -ERANGE },
		{ "", -EINVAL },
		{ "\n", -EINVAL },
		{ "+", -EINVAL },
		{ "++1", -EINVAL },
		{ " 1", -EINVAL },
		{ "1 ", -EINVAL },
		{ "-1", -EINVAL },
		{ "abc", -EINVAL },
		{ "2abc", -EINVAL },
		{ "08", -EINVAL },
		{ "0x", -EINVAL },
		{ "0xg", -EINVAL },
		{ "1\n\n", -EINVAL },
		{ "1:", -EINVAL },
	};

	for (size_t i = 0; i < LEN(cases); i++) {
		uint64_t v = 77;

		assert_int_equal(str_to_u64(cases[i].text, strlen(cases[i].text), &v),
				 cases[i].error);
		assert_true(v == (cases[i].error ? 77 : cases[i].value));
	}
}

static void a_number_ends_at_its_length_not_at_a_nul(void **state)
{
	uint64_t v;

	assert_int_equal(str_to_u64("12345", 2, &v), 0);
	assert_int_equal(v, 12);
	assert_int_equal(str_to_u64("1\0", 2, &v), -EINVAL);
	assert_int_equal(str_to_u64("0x1", 2, &v), -EINVAL);
}

static void sizes_take_binary_suffixes(void **state)
{
	static const struct number cases[] = {
		{ "512", 0, 512 },
		{ "4k", 0, 4096 },
		{ "4K\n", 0, 4096 },
		{ "1KiB", 0, 1024 },
		{ "2MB", 0, 2 << 20 },
		{ "1g", 0, 1 << 30 },
		{ "3TiB", 0, 3ULL << 40 },
		{ "0x10M", 0, 16 << 20 },
		{ "16777215T", 0, 16777215ULL << 40 },
		{ "16777216T", -ERANGE },
		{ "K", -EINVAL },
		{ "1Ki", -EINVAL },
		{ "1KiBs", -EINVAL },
		{ "1KK", -EINVAL },
		{ "1P", -EINVAL },
		{ "512B", -EINVAL },
		{ "1 K", -EINVAL },
		{ "1.5G", -EINVAL },
	};

	for (size_t i = 0; i < LEN(cases); i++) {
		uint64_t v = 77;

		assert_int_equal(str_to_size(cases[i].text, strlen(cases[i].text), &v),
				 cases[i].error);
		assert_true(v == (cases[i].error ? 77 : cases[i].value));
	}
	uint64_t v;
	assert_int_equal(str_to_size("1\0", 2, &v), -EINVAL);
}

static void formatting_tells_what_fitted(void **state)
{
	char buf[4];

	assert_int_equal(str_format(buf, sizeof(buf), "ab"), 2);
	assert_int_equal(str_format(buf, sizeof(buf), "%s", "abcdef"), 3);
	assert_string_equal(buf, "abc");
	assert_int_equal(str_format(buf, 0, "x"), 0);
}

static void names_are_short_and_plain(void **state)
{
	char longest[65];

	memset(longest, 'a', 64);
	longest[64] = '\0';
	assert_false(str_is_name(longest));
	longest[63] = '\0';
	assert_true(str_is_name(longest));
	assert_true(str_is_name("card0") && str_is_name("0") && str_is_name("a-b-"));
	assert_false(str_is_name("") || str_is_name("-a") || str_is_name("a_b"));
	assert_false(str_is_name("Card") || str_is_name("a/b") || str_is_name("."));
}

static void clean_text_is_utf8_without_controls(void **state)
{
	static const char *const clean[] = { "",
					     "plain ~",
					     "gr\xc3\xbc\xc3\x9f",
					     "\xe2\x82\xac",
					     "\xf0\x9f\x98\x80",
					     "\xc2\xa0",
					     "\xf4\x8f\xbf\xbf" };
	static const char *const bad[] = {
		"a\nb",     "\x7f",         "\x1b[0m",      "\xc2\x85",         "\x80", "\xc3",
		"\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xe2\x82"
	};

	for (size_t i = 0; i < LEN(clean); i++)
		assert_true(str_is_clean(clean[i], strlen(clean[i])));
	for (size_t i = 0; i < LEN(bad); i++)
		assert_false(str_is_clean(bad[i], strlen(bad[i])));
	assert_false(str_is_clean("a\0b", 3));
	assert_false(str_is_clean("\xe2\x82\xac", 2)); /* cut by its length */
}

static void printed_text_is_allocated(void **state)
{
	char *text = str_printf("%s-%d", "mtty", 2);

	assert_string_equal(text, "mtty-2");
	free(text);
}

#define U "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

static void uuids_of_either_case_become_lower_case(void **state)
{
	char text[UUID_TEXT];
	struct uuid a, b;

	assert_int_equal(uuid_parse(U, 36, &a), 0);
	uuid_format(&a, text);
	assert_string_equal(text, U);
	assert_int_equal(uuid_parse("83B8F4F2-509F-382F-3C1E-E6BFE0FA1001", 36, &b), 0);
	assert_true(uuid_equal(&a, &b));
	assert_int_equal(a.b[0], 0x83);
	assert_int_equal(a.b[15], 0x01);
}

static void the_nil_uuid_is_a_uuid(void **state)
{
	struct uuid nil, other = { .b = { [15] = 1 } };

	assert_int_equal(uuid_parse("00000000-0000-0000-0000-000000000000", 36, &nil), 0);
	assert_false(uuid_equal(&nil, &other));
}

static void nothing_behind_the_uuid_is_read(void **state)
{
	struct uuid uuid;

	assert_int_equal(uuid_parse(U "X", 37, &uuid), 0);
	assert_int_equal(uuid_parse(U "\n", 37, &uuid), 0);
}

static void what_is_no_uuid_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"83b8f4f2-509f-382f-3c1e-e6bfe0fa100",
		"83b8f4f2-509f-382f-3c1e-e6bfe0fa100g",
		"83b8f4f2 509f-382f-3c1e-e6bfe0fa1001",
		"83b8f4f25-09f-382f-3c1e-e6bfe0fa1001",
		"83b8f4f2-509f-382f-3c1e+e6bfe0fa1001",
		"{83b8f4f2-509f-382f-3c1e-e6bfe0fa100",
		"-3b8f4f2-509f-382f-3c1e-e6bfe0fa1001",
	};

	for (size_t i = 0; i < LEN(bad); i++) {
		struct uuid uuid = { .b = { 9 } };

		assert_int_equal(uuid_parse(bad[i], strlen(bad[i]), &uuid), -EINVAL);
		assert_int_equal(uuid.b[0], 9);
	}
}

static void random_uuids_are_version_4_and_differ(void **state)
{
	struct uuid a, b;
	char text[UUID_TEXT];

	assert_int_equal(uuid_random(&a), 0);
	assert_int_equal(uuid_random(&b), 0);
	assert_false(uuid_equal(&a, &b));
	uuid_format(&a, text);
	assert_int_equal(text[14], '4');
	assert_non_null(strchr("89ab", text[19]));
}

static void text_crosses_the_wire(void **state)
{
	uint8_t wire[64];
	char text[8];
	struct buf_writer w = buf_write_to(wire, sizeof(wire));
	struct buf_reader r;

	buf_put_text(&w, "1234567");
	buf_put_text(&w, "");
	assert_false(w.bad);
	r = buf_read_from(wire, w.len);
	buf_get_text(&r, text, sizeof(text));
	assert_string_equal(text, "1234567");
	buf_get_text(&r, text, sizeof(text));
	assert_string_equal(text, "");
	assert_false(r.bad);
	assert_int_equal(r.left, 0);
}

static void text_that_does_not_fit_is_bad(void **state)
{
	static const uint8_t cut[] = { 3, 0, 'a', 'b' }, nul[] = { 2, 0, 'a', 0 },
			     too_long[] = { 4, 0, 'a', 'b', 'c', 'd' };
	struct {
		const uint8_t *data;
		size_t len;
	} cases[] = { { cut, sizeof(cut) }, { nul, sizeof(nul) }, { too_long, sizeof(too_long) } };
	uint8_t wire[3];
	struct buf_writer w = buf_write_to(wire, sizeof(wire));

	for (size_t i = 0; i < LEN(cases); i++) {
		struct buf_reader r = buf_read_from(cases[i].data, cases[i].len);
		char text[4] = "zzz";

		buf_get_text(&r, text, sizeof(text));
		assert_true(r.bad);
		assert_string_equal(text, "");
		assert_int_equal(buf_get_u8(&r), 0);
	}
	buf_put_text(&w, "ab");
	assert_true(w.bad);
}

static void the_first_line_of_an_error_stays(void **state)
{
	err_clear();
	assert_string_equal(err_text(-ENOENT), "No such file or directory");
	assert_int_equal(err_set(-EBUSY, "%s is in use by %d", "card0", 42), -EBUSY);
	err_set(-EIO, "later and farther from the cause");
	assert_string_equal(err_text(-EBUSY), "card0 is in use by 42");
	err_clear();
	assert_string_equal(err_text(-99999), "unknown error");
}

static void errors_have_names(void **state)
{
	assert_string_equal(err_name(-EBUSY), "EBUSY");
	assert_string_equal(err_name(-ENOSPC), "ENOSPC");
	assert_string_equal(err_name(-4095), "E4095");
}

static void the_nearest_word_is_found(void **state)
{
	static const char *const words[] = { "create", "remove", "list",   "show", "parent",
					     "types",  "mtty-1", "mtty-2", NULL };

	assert_string_equal(err_nearest("craete", words), "create");
	assert_string_equal(err_nearest("remvoe", words), "remove");
	assert_string_equal(err_nearest("lst", words), "list");
	assert_string_equal(err_nearest("type", words), "types");
	assert_string_equal(err_nearest("mtty-2x", words), "mtty-2");
	assert_string_equal(err_nearest("par", words), "parent");
	assert_null(err_nearest("destroy", words));
	assert_null(err_nearest("x", words));
	assert_null(err_nearest("", words));
}

static void nearness_has_a_longest_word(void **state)
{
	char word[80];
	const char *const words[] = { word, "list", NULL };

	memset(word, 'a', sizeof(word) - 1);
	word[sizeof(word) - 1] = '\0';
	assert_null(err_nearest(word, words));
	assert_string_equal(err_nearest("lisst", words), "list");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_read_as_the_kernel_does),
		cmocka_unit_test(a_number_ends_at_its_length_not_at_a_nul),
		cmocka_unit_test(sizes_take_binary_suffixes),
		cmocka_unit_test(formatting_tells_what_fitted),
		cmocka_unit_test(names_are_short_and_plain),
		cmocka_unit_test(clean_text_is_utf8_without_controls),
		cmocka_unit_test(printed_text_is_allocated),
		cmocka_unit_test(uuids_of_either_case_become_lower_case),
		cmocka_unit_test(the_nil_uuid_is_a_uuid),
		cmocka_unit_test(nothing_behind_the_uuid_is_read),
		cmocka_unit_test(what_is_no_uuid_is_refused),
		cmocka_unit_test(random_uuids_are_version_4_and_differ),
		cmocka_unit_test(text_crosses_the_wire),
		cmocka_unit_test(text_that_does_not_fit_is_bad),
		cmocka_unit_test(the_first_line_of_an_error_stays),
		cmocka_unit_test(errors_have_names),
		cmocka_unit_test(the_nearest_word_is_found),
		cmocka_unit_test(nearness_has_a_longest_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
