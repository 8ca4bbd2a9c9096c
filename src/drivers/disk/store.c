/* SPDX-License-Identifier: MIT */
/*
 * Where volumes are: a directory with a file for each, or devices of which each is one. Either way
 * a volume is known by its record, a small file of text in the directory, or for devices in
 * $UMDEV_STATE:
 *
 *     umdev volume 1
 *     size BYTES
 *     thin yes|no
 *     device PATH        (of devices)
 *
 * src/store/store.h has the names of files and what they promise. A record that cannot be used
 * makes a volume that is BROKEN: it is shown, and nothing but deleted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <umdev/cleanup.h>
#include "disk_parent.h"

#define MAGIC "umdev volume 1\n"
#define RECORD_MAX 4096

/* ---- records ---- */

char *store_record(const struct volume *v, uint64_t size)
{
	char *text;
	int n = asprintf(&text, MAGIC "size %llu\nthin %s\n%s%s%s", (unsigned long long)size,
			 v->thin ? "yes" : "no", v->device ? "device " : "",
			 v->device ? v->device : "", v->device ? "\n" : "");

	return n < 0 ? NULL : text;
}

/* The value of the line that begins with key, up to its end, which becomes a NUL. */
static char *line_of(char *text, const char *key)
{
	size_t len = strlen(key);
	char *next = NULL;

	for (char *line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			next++;
		if (strncmp(line, key, len) == 0 && line[len] == ' ' && next)
			return line + len + 1;
	}
	return NULL;
}

static bool take_text(char *text, const char *key, char **ret)
{
	const char *value = line_of(text, key);

	*ret = value ? strndup(value, strcspn(value, "\n")) : NULL;
	return *ret;
}

/* False: it is not what store_record writes. */
static bool parse_record(char *text, struct volume *v)
{
	_cleanup_free_ char *size = NULL, *thin = NULL, *device = NULL;
	char *end;

	if (strncmp(text, MAGIC, strlen(MAGIC)) != 0 || !take_text(text, "size", &size) ||
	    !take_text(text, "thin", &thin))
		return false;
	errno = 0;
	v->size = strtoull(size, &end, 10);
	v->thin = strcmp(thin, "yes") == 0;
	take_text(text, "device", &device);
	if (errno || *end || !v->size || v->size % DISK_SIZE_STEP || v->size > DISK_MAX_SIZE ||
	    !device != (v->store->kind == STORE_DIR))
		return false;
	free(v->device);
	v->device = TAKE(device);
	return true;
}

static bool read_record(struct volume *v)
{
	char file[VOLUME_NAME + 16], text[RECORD_MAX + 1];
	_cleanup_close_ int fd = -1;
	ssize_t n;

	snprintf(file, sizeof(file), "%s.volume", v->name);
	fd = openat(v->store->dir_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	n = fd < 0 ? -1 : read(fd, text, RECORD_MAX);
	if (n < 0)
		return false;
	text[n] = '\0';
	return parse_record(text, v);
}

/* Are there as many bytes as the record says? */
static bool has_bytes(const struct volume *v)
{
	char file[VOLUME_NAME + 16];
	uint64_t bytes;
	struct stat st;

	if (v->device) {
		for (unsigned i = 0; i < v->store->n_devices; i++)
			if (strcmp(v->store->devices[i], v->device) == 0)
				return store_device_bytes(v->device, &bytes) == 0 &&
				       bytes >= v->size;
		return false;
	}
	snprintf(file, sizeof(file), "%s.raw", v->name);
	return fstatat(v->store->dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode) && (uint64_t)st.st_size >= v->size;
}

void store_reload(struct volume *v)
{
	v->state = read_record(v) && has_bytes(v) ? VOLUME_READY : VOLUME_BROKEN;
}

/* ---- what is there ---- */

struct volume *store_find(struct store *s, const char *name)
{
	struct volume *v = s->volumes;

	while (v && strcmp(v->name, name) != 0)
		v = v->next;
	return v;
}

static bool is_name(const char *name, size_t len)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

	return len && len < VOLUME_NAME && name[0] != '-' && strspn(name, letters) >= len;
}

/* A file of the directory tells of a volume. 0 / -ENOMEM */
static int meet_file(struct store *s, const char *file)
{
	static const char *const suffixes[] = { ".volume", ".making", ".deleting", ".raw" };
	const char *dot = strchr(file, '.');
	char name[VOLUME_NAME];
	struct volume *v;
	unsigned what = 0;

	if (!dot || !is_name(file, (size_t)(dot - file)))
		return 0;
	while (what < 4 && strcmp(dot, suffixes[what]) != 0)
		what++;
	if (what == 4)
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(dot - file), file);
	v = store_find(s, name);
	if (!v) {
		v = volume_new(s, name);
		if (!v)
			return -ENOMEM;
		v->state = VOLUME_BROKEN; /* bytes alone; a record will say more */
	}
	if (what == 0)
		store_reload(v);
	else if (what < 3 && v->state == VOLUME_BROKEN)
		v->state = VOLUME_DELETING;
	return 0;
}

static int scan(struct store *s)
{
	struct dirent **entries;
	int r = 0, n = scandirat(s->dir_fd, ".", &entries, NULL, alphasort);

	if (n < 0)
		return disk_failed(-errno, "store of", umdev_parent_name(s->parent));
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = meet_file(s, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	for (struct volume *v = s->volumes; v && r == 0; v = v->next)
		if (v->state == VOLUME_DELETING)
			volume_clean(v);
	return r;
}

/* ---- devices ---- */

int store_device_bytes(const char *path, uint64_t *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		*ret = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return -ENOTBLK;
	else if (ioctl(fd, BLKGETSIZE64, ret) < 0)
		return -errno;
	*ret -= *ret % DISK_SIZE_STEP;
	return 0;
}

static bool is_taken(const struct store *s, const char *device)
{
	for (const struct volume *v = s->volumes; v; v = v->next)
		if (v->device && strcmp(v->device, device) == 0)
			return true;
	return false;
}

int store_free_device(struct store *s, uint64_t size, const char **ret, uint64_t *ret_bytes)
{
	uint64_t bytes, best = 0;

	for (unsigned i = 0; i < s->n_devices; i++) {
		if (is_taken(s, s->devices[i]) || store_device_bytes(s->devices[i], &bytes) < 0 ||
		    !bytes || bytes < size)
			continue;
		if (best && bytes >= best)
			continue;
		best = bytes;
		*ret = s->devices[i];
	}
	if (best) {
		*ret_bytes = best;
		return 0;
	}
	umdev_explain("%s: no device of at least %llu bytes is free: delete a volume, or add a "
		      "parent with more devices",
		      umdev_parent_name(s->parent), (unsigned long long)size);
	return -ENOSPC;
}

/* Absolute paths, ":/" between them: a ':' that no '/' follows belongs to a name. */
static int take_devices(struct store *s, const char *list)
{
	uint64_t bytes;
	int r;

	while (*list) {
		const char *end = strstr(list, ":/");
		size_t len = end ? (size_t)(end - list) : strlen(list);

		if (s->n_devices == DISK_MAX_DEVICES || *list != '/') {
			umdev_explain("devices: at most %d absolute paths with ':' between them",
				      DISK_MAX_DEVICES);
			return -EINVAL;
		}
		s->devices[s->n_devices] = strndup(list, len);
		if (!s->devices[s->n_devices])
			return -ENOMEM;
		r = store_device_bytes(s->devices[s->n_devices++], &bytes);
		if (r < 0)
			return disk_failed(r, "device", s->devices[s->n_devices - 1]);
		list += len + (end != NULL);
	}
	return 0;
}

/* ---- both ---- */

static int open_dir(struct store *s)
{
	const char *dir = umdev_parent_param(s->parent, "store")->text;
	const char *devices = umdev_parent_param(s->parent, "devices")->text;

	if (*dir && *devices) {
		umdev_explain("either store=DIRECTORY or devices=PATH:PATH..., not both");
		return -EINVAL;
	}
	if (*dir) {
		s->kind = STORE_DIR;
		s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return s->dir_fd < 0 ? disk_failed(-errno, "store", dir) : 0;
	}
	if (!*devices)
		return 0;
	s->kind = STORE_DEVICES;
	s->dir_fd = umdev_parent_state_dir(s->parent);
	return s->dir_fd < 0 ? s->dir_fd : take_devices(s, devices);
}

int store_open(struct umdev_parent *parent, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	s->parent = parent;
	s->dir_fd = -1;
	r = open_dir(s);
	if (r == 0 && s->dir_fd >= 0)
		r = scan(s);
	if (r < 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	while (s->volumes)
		volume_free(s->volumes);
	for (unsigned i = 0; i < s->n_devices; i++)
		free(s->devices[i]);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s);
}
