/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target over the files of its corpus, once each, with any compiler: every input that
 * ever found a bug stays a test. Arguments are files or folders (not searched deeper). One line per
 * input, so that the runner can count them; a crash is the failure. An empty corpus is an error.
 */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (4 * 1024 * 1024) /* far above any message we accept */

static int replay_file(const char *path)
{
	uint8_t *buf = NULL, *exact = NULL;
	FILE *f = fopen(path, "rb");
	size_t len = 0;
	int ok = 0;

	buf = malloc(INPUT_MAX);
	if (f && buf) {
		len = fread(buf, 1, INPUT_MAX, f);
		/* A block of exactly this size lets the sanitizer see one byte too much. */
		exact = malloc(len ? len : 1);
		ok = !ferror(f) && exact;
	}
	if (ok) {
		memcpy(exact, buf, len);
		LLVMFuzzerTestOneInput(exact, len);
		printf("ok %s\n", strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
	} else {
		printf("not ok %s: cannot be read\n", path);
	}
	if (f)
		fclose(f);
	free(exact);
	free(buf);
	return ok ? 0 : 1;
}

static int replay_folder(const char *path, unsigned *n_files)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	int failed = 0;

	if (!dir)
		return 1;
	while ((e = readdir(dir))) {
		char name[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		failed |= replay_file(name);
		(*n_files)++;
	}
	closedir(dir);
	return failed;
}

int main(int argc, char **argv)
{
	unsigned n_files = 0;
	int failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
			failed |= replay_folder(argv[i], &n_files);
		} else {
			failed |= replay_file(argv[i]);
			n_files++;
		}
	}
	if (n_files == 0) {
		printf("not ok corpus: no input given\n");
		failed = 1;
	}
	return failed;
}
