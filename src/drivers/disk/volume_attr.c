/* SPDX-License-Identifier: MIT */
/* P/volumes/: the files of the folder and of each volume. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <umdev/cleanup.h>
#include "disk_parent.h"

static const struct umdev_param size_like = { .name = "size", .type = UMDEV_SIZE };
static const struct umdev_param thin_like = { .name = "thin", .type = UMDEV_BOOL };

/* ---- create ---- */

/* NAME,size=SIZE,thin=yes */
struct request {
	char name[VOLUME_NAME];
	uint64_t size;
	bool thin;
};

static int take_name(const char *text, size_t len, struct request *ret)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

	if (!len || len >= VOLUME_NAME || *text == '-' || strspn(text, letters) < len) {
		umdev_explain("volume name '%.*s': letters a-z, digits and '-', at most %d, not "
			      "beginning with '-'",
			      (int)(len < VOLUME_NAME ? len : VOLUME_NAME), text, VOLUME_NAME - 1);
		return -EINVAL;
	}
	memcpy(ret->name, text, len);
	ret->name[len] = '\0';
	if (!volume_is_private(ret->name))
		return 0;
	umdev_explain("volume name '%s': one in the form of a UUID is a device's own; choose "
		      "another",
		      ret->name);
	return -EINVAL;
}

static int take_setting(const char *text, size_t len, struct request *ret)
{
	struct umdev_value value;
	int r;

	if (len > 5 && strncmp(text, "size=", 5) == 0) {
		r = umdev_value_parse(&size_like, text + 5, len - 5, &value);
		if (r == 0)
			r = disk_judge_size("size", value.u64);
		ret->size = r == 0 ? value.u64 : 0;
		return r;
	}
	if (len > 5 && strncmp(text, "thin=", 5) == 0) {
		r = umdev_value_parse(&thin_like, text + 5, len - 5, &value);
		ret->thin = r == 0 && value.u64;
		return r;
	}
	umdev_explain("a volume is NAME,size=SIZE[,thin=yes], and nothing like '%.*s'",
		      (int)(len < VOLUME_NAME ? len : VOLUME_NAME), text);
	return -EINVAL;
}

static int parse_request(const char *text, size_t len, struct request *ret)
{
	size_t n = strcspn(text, ",\n");
	int r;

	*ret = (struct request){ 0 };
	len -= len && text[len - 1] == '\n';
	r = take_name(text, n < len ? n : len, ret);
	for (size_t at = n; at < len && r == 0; at += 1 + n) {
		n = strcspn(text + at + 1, ",\n");
		r = take_setting(text + at + 1, n, ret);
	}
	return r;
}

static int create_store(const struct umdev_place *place, const char *text, size_t len,
			struct attr_wait *wait)
{
	struct store *s = umdev_parent_priv(place->parent);
	struct request request;
	struct volume *v;
	int r;

	if (s->kind == STORE_NONE) {
		umdev_explain("%s has no store: add a parent with store=DIRECTORY or devices=PATH",
			      umdev_parent_name(place->parent));
		return -EOPNOTSUPP;
	}
	r = parse_request(text, len, &request);
	if (r < 0)
		return r;
	if (store_find(s, request.name)) {
		umdev_explain("volume %s exists already; choose another name or delete it",
			      request.name);
		return -EEXIST;
	}
	if (!request.size && s->kind == STORE_DIR) {
		umdev_explain("volume %s: size=SIZE is missing", request.name);
		return -EINVAL;
	}
	r = volume_make(s, request.name, request.size, request.thin, &v);
	if (r < 0)
		return r;
	umdev_answer_hold(&v->wait, wait);
	return UMDEV_LATER;
}

const struct umdev_attr volume_folder_attrs[] = {
	{ .name = "create", .mode = 0200, .store = create_store },
	{ .name = NULL },
};

/* ---- of one ---- */

static struct volume *volume_at(const struct umdev_place *place)
{
	return umdev_object_priv(place->object);
}

static int show_number(char *buf, size_t size, uint64_t number)
{
	return snprintf(buf, size, "%llu\n", (unsigned long long)number);
}

/* What it takes of its store now. */
static int allocated_show(const struct umdev_place *place, char *buf, size_t size)
{
	const struct volume *v = volume_at(place);
	char file[VOLUME_NAME + 16];
	struct stat st;

	if (v->device)
		return show_number(buf, size, v->size);
	snprintf(file, sizeof(file), "%s.raw", v->name);
	if (fstatat(v->store->dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return show_number(buf, size, 0);
	return show_number(buf, size, (uint64_t)st.st_blocks * 512);
}

static int attached_show(const struct umdev_place *place, char *buf, size_t size)
{
	const struct volume *v = volume_at(place);
	size_t at = 0;

	for (const struct namespace *ns = v->namespaces; ns && at < size; ns = ns->next) {
		unsigned nsid = (unsigned)(ns - ns->controller->ns) + 1;

		at += (size_t)snprintf(buf + at, size - at, "%s %u\n",
				       umdev_mdev_uuid(ns->controller->mdev), nsid);
	}
	return (int)(at < size ? at : size);
}

static int device_show(const struct umdev_place *place, char *buf, size_t size)
{
	const struct volume *v = volume_at(place);

	return snprintf(buf, size, "%s\n", v->device ? v->device : "");
}

static int owner_show(const struct umdev_place *place, char *buf, size_t size)
{
	const struct volume *v = volume_at(place);
	const char *owner = "nobody";

	if (volume_is_orphan(v))
		owner = "orphan";
	else if (volume_is_private(v->name))
		owner = umdev_is_defined(place->parent, v->name) ? "definition" : "device";
	return snprintf(buf, size, "%s\n", owner);
}

static int progress_show(const struct umdev_place *place, char *buf, size_t size)
{
	const struct volume *v = volume_at(place);

	return show_number(buf, size, v->job.manager ? v->job.percent : 100);
}

static int size_show(const struct umdev_place *place, char *buf, size_t size)
{
	return show_number(buf, size, volume_at(place)->size);
}

static int state_show(const struct umdev_place *place, char *buf, size_t size)
{
	static const char *const names[] = {
		[VOLUME_MAKING] = "making",     [VOLUME_READY] = "ready",
		[VOLUME_GROWING] = "growing",   [VOLUME_SHRINKING] = "shrinking",
		[VOLUME_DELETING] = "deleting", [VOLUME_BROKEN] = "broken",
	};

	return snprintf(buf, size, "%s\n", names[volume_at(place)->state]);
}

static int thin_show(const struct umdev_place *place, char *buf, size_t size)
{
	return snprintf(buf, size, "%s\n", volume_at(place)->thin ? "yes" : "no");
}

static int size_store(const struct umdev_place *place, const char *text, size_t len,
		      struct attr_wait *wait)
{
	struct umdev_value value;
	int r = umdev_value_parse(&size_like, text, len, &value);

	if (r == 0)
		r = volume_resize(volume_at(place), value.u64, wait);
	return r == 1 ? UMDEV_LATER : r;
}

static int delete_store(const struct umdev_place *place, const char *text, size_t len,
			struct attr_wait *wait)
{
	struct volume *v = volume_at(place);
	int r;

	if (strcmp(text, "1") != 0 && strcmp(text, "1\n") != 0) {
		umdev_explain("delete: expected 1");
		return -EINVAL;
	}
	if (volume_is_private(v->name) && umdev_is_defined(place->parent, v->name)) {
		umdev_explain("volume %s belongs to the definition of that name: undefine it",
			      v->name);
		return -EBUSY;
	}
	r = volume_delete(v, wait);
	return r == 1 ? UMDEV_LATER : r;
}

const struct umdev_attr volume_attrs[] = {
	{ .name = "allocated", .mode = 0444, .show = allocated_show },
	{ .name = "attached", .mode = 0444, .show = attached_show },
	{ .name = "delete", .mode = 0200, .store = delete_store },
	{ .name = "device", .mode = 0444, .show = device_show },
	{ .name = "owner", .mode = 0444, .show = owner_show },
	{ .name = "progress", .mode = 0444, .show = progress_show },
	{ .name = "size", .mode = 0644, .show = size_show, .store = size_store },
	{ .name = "state", .mode = 0444, .show = state_show },
	{ .name = "thin", .mode = 0444, .show = thin_show },
	{ .name = NULL },
};
