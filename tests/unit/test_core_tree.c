/* SPDX-License-Identifier: MIT */
/* The tree and its uevents against what kernel 6.1 showed (tests/oracle), nothing masked. */
#include <stdio.h>
#include <stdlib.h>
#include "base/str.h"
#include "core_fixture.h"

/* The oracle's text from the line that begins with `from` to the next "#####", lines of a tree
 * dump only, and of them those below `path`. Sorted like dump(). */
static char *expected(const char *from, const char *path)
{
	FILE *file = fopen(ORACLE, "r"), *out;
	char line[1024], prefix[256], *text, *lines[1024];
	unsigned n = 0;
	bool in = false;
	size_t size;

	assert_non_null(file);
	str_format(prefix, sizeof(prefix), "/sys/%s", path);
	while (fgets(line, sizeof(line), file)) {
		const char *at = strstr(line, prefix);

		if (strncmp(line, "#####", 5) == 0)
			in = strncmp(line, from, strlen(from)) == 0;
		if (!in || !strchr("DFL", line[0]) || line[1] != ' ' || !at)
			continue;
		if ((at == strchr(line, '/')) && strchr("/ ", at[strlen(prefix)])) {
			assert_true(n < 1024);
			lines[n++] = strdup(line);
		}
	}
	fclose(file);
	assert_true(n > 0);
	out = open_memstream(&text, &size);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = i + 1; j < n; j++)
			if (strcmp(lines[j], lines[i]) < 0) {
				char *swap = lines[i];

				lines[i] = lines[j];
				lines[j] = swap;
			}
		fputs(lines[i], out);
		free(lines[i]);
	}
	fclose(out);
	return text;
}

static void assert_same(struct fixture *f, const char *section, const char *path)
{
	char *want = expected(section, path), *have = dump(f, path);

	assert_string_equal(have, want);
	free(want);
	free(have);
}

static void empty_bus_is_a_kernels(void **state)
{
	struct fixture *f = fixture_new();

	assert_same(f, "##### bus before any parent", "bus/mdev");
	fixture_free(f);
}

static void parents_are_a_kernels(void **state)
{
	static const char *const paths[] = { "class/mdev_bus",
					     "devices/virtual/mtty",
					     "devices/virtual/mdpy",
					     "devices/virtual/mbochs",
					     "bus/mdev",
					     "class/mtty" };
	struct fixture *f = fixture_new();

	add_samples(f);
	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		assert_same(f, "##### load mtty", paths[i]);
	fixture_free(f);
}

static void devices_are_a_kernels(void **state)
{
	static const char *const paths[] = { "devices/virtual/mtty", "bus/mdev",
					     "kernel/iommu_groups", "class/vfio" };
	struct fixture *f = fixture_new();

	add_samples(f);
	create(f, f->mtty, "mtty-1", UUID_A "\n");
	create(f, f->mtty, "mtty-1", "A0000000-0000-4000-8000-00000000000A");
	create(f, f->mtty, "mtty-1", UUID_C "X");
	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		assert_same(f, "##### tree with devices", paths[i]);
	create(f, f->mdpy, "mdpy-vga", "a0000000-0000-4000-8000-000000000005");
	assert_same(f, "##### mdpy max_instances 4",
		    "devices/virtual/mdpy/mdpy/a0000000-0000-4000-8000-000000000005");
	assert_string_equal(link_text(f, "class/vfio-dev/vfio3"),
			    "../../devices/virtual/mdpy/mdpy/"
			    "a0000000-0000-4000-8000-000000000005/vfio-dev/vfio3");
	fixture_free(f);
}

static void tree_is_as_before_when_all_is_removed(void **state)
{
	struct fixture *f = fixture_new();
	char *before = dump(f, ""), *after;

	add_samples(f);
	add_plain_thing(f);
	create(f, f->mtty, "mtty-2", UUID_A);
	create(f, f->thing, "thing-pair", UUID_B ",peer_to_peer_resource_uuid=" UUID_C);
	create(f, f->thing, "thing-pair", UUID_C ",peer_to_peer_resource_uuid=" UUID_C);
	while (!list_is_empty(&f->core.parents))
		assert_int_equal(
			parent_remove(list_first(&f->core.parents, struct umdev_parent, node)), 0);
	after = dump(f, "");
	assert_string_equal(after, before);
	free(before);
	free(after);
	fixture_free(f);
}

/* The n-th line of the oracle's uevents that contains `word`, without SEQNUM, MAJOR and MINOR. */
static void oracle_uevents(const char *word, unsigned n, char *out, size_t size)
{
	FILE *file = fopen(ORACLE, "r");
	char line[2048];
	size_t at = 0;

	assert_non_null(file);
	out[0] = '\0';
	while (n && fgets(line, sizeof(line), file)) {
		char *save, *field;

		if (strncmp(line, "UEVENT: ", 8) != 0 || !strstr(line, word) ||
		    strstr(line, "SUBSYSTEM=module"))
			continue;
		n--;
		for (field = strtok_r(line + 8, "|\n", &save); field;
		     field = strtok_r(NULL, "|\n", &save))
			if (strncmp(field, "SEQNUM=", 7) && strncmp(field, "MAJOR=", 6) &&
			    strncmp(field, "MINOR=", 6))
				at += str_format(out + at, size - at, "%s|", field);
		at += str_format(out + at, size - at, "\n");
	}
	fclose(file);
	assert_int_equal(n, 0);
}

static void uevents_are_a_kernels(void **state)
{
	static const struct core_setting off = { "params", "off" };
	struct fixture *f = fixture_new();
	struct umdev_mdev *nil;
	char want[8192], *at;

	f->log_uevents = true;
	assert_int_equal(parent_add(&f->core, "mtty", "mtty", &off, 1, &f->mtty), 0);
	oracle_uevents("mtty", 4, want, sizeof(want));
	assert_string_equal(f->log, want);
	f->log[0] = '\0';
	/* The nil device comes and goes: eight messages in a row, of vfio/0 two. */
	nil = create(f, f->mtty, "mtty-1", "00000000-0000-0000-0000-000000000000");
	remove_idle(nil);
	/* Behind the 12 of three drivers, classes and parents. */
	oracle_uevents("", 12 + 8, want, sizeof(want));
	at = strstr(want, "add@/devices/virtual/mtty/mtty/00000000");
	assert_non_null(at);
	assert_string_equal(f->log, at);
	fixture_free(f);
}

static void unregistering_tells_as_a_kernel(void **state)
{
	struct fixture *f = fixture_new();
	char want[4096];
	unsigned n = 0;

	add_samples(f);
	f->log_uevents = true;
	f->log[0] = '\0';
	assert_int_equal(parent_remove(f->mdpy), 0);
	/* The oracle's lines of mdpy itself begin with four of its registration. */
	oracle_uevents("SUBSYSTEM=mdpy|", 4, want, sizeof(want));
	for (char *at = want; *at && n < 2; at++)
		if (*at == '\n' && ++n == 2)
			memmove(want, at + 1, strlen(at + 1) + 1);
	assert_int_equal(strncmp(f->log, want, strlen(want)), 0);
	assert_non_null(strstr(f->log, "remove@/bus/mdev/drivers/mdpy|"));
	assert_non_null(strstr(f->log, "remove@/class/mdpy|"));
	fixture_free(f);
}

static void numbers_are_lowest_free_from_the_first(void **state)
{
	struct fixture *f = fixture_new();
	struct umdev_mdev *a;

	f->core.first_group = 40;
	add_samples(f);
	a = create(f, f->mtty, "mtty-1", UUID_A);
	create(f, f->mtty, "mtty-1", UUID_B);
	assert_true(exists(f, "kernel/iommu_groups/40"));
	assert_true(exists(f, "class/vfio/41"));
	remove_idle(a);
	assert_false(exists(f, "kernel/iommu_groups/40"));
	a = create(f, f->mtty, "mtty-1", UUID_C);
	assert_int_equal(a->group->number, 40);
	assert_int_equal(a->vfio_number, 0);
	fixture_free(f);
}

static void written_uevents_are_judged_and_sent(void **state)
{
	static const char dir[] = "bus/mdev/devices/" UUID_A "/uevent";
	struct fixture *f = fixture_new();

	add_samples(f);
	create(f, f->mtty, "mtty-1", UUID_A);
	f->log_uevents = true;
	f->log[0] = '\0';
	assert_int_equal(write_file(f, dir, "bogus"), -EINVAL);
	assert_int_equal(write_file(f, dir, "change nouuid"), -EINVAL);
	assert_int_equal(write_file(f, dir, "change " UUID_A " X"), -EINVAL);
	assert_int_equal(write_file(f, dir, "change " UUID_A " =1"), -EINVAL);
	assert_string_equal(f->log, "");
	assert_int_equal(write_file(f, dir, "add\n"), 0);
	assert_int_equal(write_file(f, dir, "change " UUID_A " X=1 Y=2"), 0);
	assert_non_null(strstr(f->log, "add@/devices/virtual/mtty/mtty/" UUID_A "|"));
	assert_non_null(strstr(f->log, "|SUBSYSTEM=mdev|SYNTH_UUID=0|DRIVER=mtty|\n"));
	assert_non_null(strstr(f->log, "|SYNTH_UUID=" UUID_A
				       "|SYNTH_ARG_X=1|SYNTH_ARG_Y=2|DRIVER=mtty|\n"));
	f->log[0] = '\0';
	assert_int_equal(write_file(f, "bus/mdev/drivers/mtty/uevent", "change"), 0);
	assert_int_equal(write_file(f, "bus/mdev/uevent", "change"), 0);
	assert_int_equal(write_file(f, "class/mtty/mtty/uevent", "change"), 0);
	assert_int_equal(write_file(f, "class/vfio/0/uevent", "change"), 0);
	assert_int_equal(
		write_file(f, "bus/mdev/devices/" UUID_A "/vfio-dev/vfio0/uevent", "change"), 0);
	assert_non_null(strstr(f->log, "change@/bus/mdev/drivers/mtty|"));
	assert_non_null(strstr(f->log, "change@/bus/mdev|"));
	assert_non_null(strstr(f->log, "change@/devices/virtual/mtty/mtty|"));
	assert_non_null(strstr(f->log, "change@/devices/virtual/vfio/0|"));
	assert_non_null(strstr(f->log, "/vfio-dev/vfio0|ACTION=change|"));
	fixture_free(f);
}

static void power_files_are_a_fixed_picture(void **state)
{
	struct fixture *f = fixture_new();

	add_samples(f);
	assert_string_equal(read_file(f, "class/mtty/mtty/power/autosuspend_delay_ms"), "EIO");
	assert_int_equal(write_file(f, "class/mtty/mtty/power/autosuspend_delay_ms", "1"), -EIO);
	assert_int_equal(write_file(f, "class/mtty/mtty/power/control", "auto\n"), 0);
	assert_int_equal(write_file(f, "class/mtty/mtty/power/control", "on"), -EINVAL);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty_bus_is_a_kernels),
		cmocka_unit_test(parents_are_a_kernels),
		cmocka_unit_test(devices_are_a_kernels),
		cmocka_unit_test(tree_is_as_before_when_all_is_removed),
		cmocka_unit_test(uevents_are_a_kernels),
		cmocka_unit_test(unregistering_tells_as_a_kernel),
		cmocka_unit_test(numbers_are_lowest_free_from_the_first),
		cmocka_unit_test(written_uevents_are_judged_and_sent),
		cmocka_unit_test(power_files_are_a_fixed_picture),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
