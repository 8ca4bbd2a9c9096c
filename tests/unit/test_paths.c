/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/paths.h"

static int setup(void **state)
{
	clearenv();
	err_clear();
	return 0;
}

static void expect(enum path_root which, const char *want)
{
	char *got = NULL;

	assert_int_equal(path_root(which, &got), 0);
	assert_string_equal(got, want);
	free(got);
}

static void the_variable_decides(void **state)
{
	setenv("UMDEV_RUN", "/a", 1);
	setenv("UMDEV_CONFIG", "/b", 1);
	setenv("UMDEV_STATE", "/c", 1);
	expect(PATH_RUN, "/a");
	expect(PATH_CONFIG, "/b");
	expect(PATH_STATE, "/c");
	assert_string_equal(path_variable(PATH_STATE), "UMDEV_STATE");
}

static void a_relative_path_is_refused(void **state)
{
	char *got = NULL;

	setenv("UMDEV_RUN", "run", 1);
	assert_int_equal(path_root(PATH_RUN, &got), -EINVAL);
	assert_null(got);
	assert_string_equal(err_text(-EINVAL),
			    "UMDEV_RUN is \"run\": the path must begin with \"/\"");
}

/* Exit status 0 when an ordinary user gets what is documented. */
static int check_user(void)
{
	char *run = NULL, *config = NULL, *state = NULL;

	if (geteuid() == 0 && setuid(65534) < 0)
		return 1;
	if (path_root(PATH_RUN, &run) != -ENOENT)
		return 2;
	setenv("HOME", "/home/u", 1);
	if (path_root(PATH_RUN, &run) != -ENOENT) /* never below HOME: it outlives the boot */
		return 3;
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	if (path_root(PATH_RUN, &run) || path_root(PATH_CONFIG, &config) ||
	    path_root(PATH_STATE, &state))
		return 4;
	if (strcmp(run, "/run/user/7/umdev") != 0 || strcmp(config, "/home/u/.config/umdev") != 0 ||
	    strcmp(state, "/home/u/.local/state/umdev") != 0)
		return 5;
	return 0;
}

static void users_have_their_own_places(void **state)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(check_user());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void root_has_the_system_places(void **state)
{
	if (geteuid() != 0)
		skip();
	expect(PATH_RUN, "/run/umdev");
	expect(PATH_CONFIG, "/etc/umdev");
	expect(PATH_STATE, "/var/lib/umdev");
}

static void directories_are_made_with_their_parents(void **state)
{
	char dir[] = "/tmp/umdev-paths-XXXXXX", path[64], below[72];
	struct stat st;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a/b", dir);
	assert_int_equal(path_make(path), 0);
	assert_int_equal(path_make(path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	rmdir(path);
	f = fopen(path, "w"); /* a file in the way */
	fclose(f);
	snprintf(below, sizeof(below), "%s/c", path);
	assert_int_equal(path_make(below), -ENOTDIR);
	unlink(path);
	snprintf(path, sizeof(path), "%s/a", dir);
	rmdir(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_variable_decides, setup),
		cmocka_unit_test_setup(a_relative_path_is_refused, setup),
		cmocka_unit_test_setup(users_have_their_own_places, setup),
		cmocka_unit_test_setup(root_has_the_system_places, setup),
		cmocka_unit_test_setup(directories_are_made_with_their_parents, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
