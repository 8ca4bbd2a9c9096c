/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "wire/varlink.h"

static int parse_call(const char *text, struct varlink_call *ret)
{
	return varlink_parse_call(text, strlen(text), ret);
}

static void test_a_message_ends_at_its_nul(void **state)
{
	assert_int_equal(varlink_len("{}\0{", 4, 100), 3);
	assert_int_equal(varlink_len("{}", 2, 100), 0);
	assert_int_equal(varlink_len("", 0, 100), 0);
	assert_int_equal(varlink_len("\0", 1, 100), 1);
}

static void test_a_message_without_end_is_refused_at_the_limit(void **state)
{
	assert_int_equal(varlink_len("aaaa", 3, 4), 0);
	assert_int_equal(varlink_len("aaaa", 4, 4), -EMSGSIZE);
	assert_int_equal(varlink_len("aaa\0", 4, 4), 4);
	assert_int_equal(varlink_len("aaaa\0", 5, 4), -EMSGSIZE);
}

static void test_a_call_is_decoded(void **state)
{
	struct varlink_call call;

	assert_int_equal(
		parse_call("{\"method\":\"a.b\",\"parameters\":{\"x\":\"y\"},\"more\":true}",
			   &call),
		0);
	assert_string_equal(call.method, "a.b");
	assert_string_equal(varlink_text(call.params, "x"), "y");
	assert_true(call.more);
	assert_false(call.oneway);
	varlink_call_fini(&call);
}

static void test_a_call_may_leave_out_everything_but_the_method(void **state)
{
	struct varlink_call call;

	assert_int_equal(
		parse_call("{\"method\":\"a.b\",\"parameters\":null,\"more\":null}", &call), 0);
	assert_null(call.params);
	assert_null(varlink_text(call.params, "x"));
	assert_false(call.more);
	varlink_call_fini(&call);
}

static void test_what_is_no_call_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"x",
		"[]",
		"{}",
		"{\"method\":1}",
		"{\"method\":\"a\"} x",
		"{\"method\":\"a\",\"method\":\"b\"}",
		"{\"method\":\"a\\u0000b\"}",
		"{\"method\":\"\xff\"}",
		"{\"method\":\"a\",\"parameters\":[]}",
		"{\"method\":\"a\",\"more\":1}",
		"{\"method\":\"a\",\"more\":true,\"oneway\":true}",
		"{\"method\":\"a\",\"upgrade\":true}",
	};
	struct varlink_call call;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(parse_call(bad[i], &call), -EPROTO);
}

static void test_a_reply_survives_the_way(void **state)
{
	struct varlink_reply reply;
	size_t len;
	char *text = varlink_reply_text(json_pack("{s:s}", "uuid", "u\n\"1"), true, &len);

	assert_non_null(text);
	assert_int_equal(varlink_len(text, len, VARLINK_MSG_MAX), len);
	assert_int_equal(varlink_parse_reply(text, len - 1, &reply), 0);
	assert_null(reply.error);
	assert_true(reply.continues);
	assert_string_equal(varlink_text(reply.params, "uuid"), "u\n\"1");
	varlink_reply_fini(&reply);
	free(text);
}

static void test_an_error_survives_the_way(void **state)
{
	struct varlink_reply reply;
	size_t len;
	char *text = varlink_error_text("io.umdev.Error", NULL, &len);

	assert_non_null(text);
	assert_int_equal(varlink_parse_reply(text, len - 1, &reply), 0);
	assert_string_equal(reply.error, "io.umdev.Error");
	assert_false(reply.continues);
	varlink_reply_fini(&reply);
	free(text);
	assert_int_equal(varlink_parse_reply("{\"error\":1}", 11, &reply), -EPROTO);
	assert_int_equal(varlink_parse_reply("[1]", 3, &reply), -EPROTO);
}

static void test_a_call_survives_the_way(void **state)
{
	struct varlink_call call;
	size_t len;
	char *text = varlink_call_text("io.umdev.List", NULL, true, &len);

	assert_non_null(text);
	assert_int_equal(varlink_parse_call(text, len - 1, &call), 0);
	assert_string_equal(call.method, "io.umdev.List");
	assert_true(call.more);
	varlink_call_fini(&call);
	free(text);
}

static const struct varlink_field fields[] = {
	{ "name", VARLINK_TEXT },
	{ "force", VARLINK_BOOL, .optional = true },
	{ "number", VARLINK_INT, .optional = true },
	{ "settings", VARLINK_TEXTS, .optional = true },
	{ NULL },
};

static void check(const char *params, const char *offender)
{
	json_t *json = json_loads(params, 0, NULL);
	const char *found = varlink_check(json, fields);

	if (offender) {
		assert_non_null(found);
		assert_string_equal(found, offender);
	} else {
		assert_null(found);
	}
	json_decref(json);
}

static void test_parameters_are_checked_against_the_table(void **state)
{
	check("{\"name\":\"a\"}", NULL);
	check("{\"name\":\"a\",\"force\":true,\"number\":-4,\"settings\":[\"a=b\",\"\"]}", NULL);
	check("{\"name\":\"a\",\"force\":null}", NULL);
	check("{}", "name");
	check("{\"name\":null}", "name");
	check("{\"name\":7}", "name");
	check("{\"name\":\"a\",\"force\":\"yes\"}", "force");
	check("{\"name\":\"a\",\"number\":1.5}", "number");
	check("{\"name\":\"a\",\"settings\":\"a\"}", "settings");
	check("{\"name\":\"a\",\"settings\":[1]}", "settings");
	check("{\"name\":\"a\",\"nmae\":\"b\"}", "nmae");
	assert_string_equal(varlink_check(NULL, fields), "name");
	assert_null(varlink_check(NULL, fields + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_message_ends_at_its_nul),
		cmocka_unit_test(test_a_message_without_end_is_refused_at_the_limit),
		cmocka_unit_test(test_a_call_is_decoded),
		cmocka_unit_test(test_a_call_may_leave_out_everything_but_the_method),
		cmocka_unit_test(test_what_is_no_call_is_refused),
		cmocka_unit_test(test_a_reply_survives_the_way),
		cmocka_unit_test(test_an_error_survives_the_way),
		cmocka_unit_test(test_a_call_survives_the_way),
		cmocka_unit_test(test_parameters_are_checked_against_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
