/* SPDX-License-Identifier: MIT */
/* One device without a daemon; one.h has the idea. */
#include "manager/one.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <jansson.h>
#include <umdev/cleanup.h>
#include "base/err.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "base/uuid.h"
#include "manager/control.h"
#include "manager/drivers.h"
#include "manager/listener.h"

#define PARENT_NAME "one"

static const struct umdev_parent_driver *find_driver(const struct drivers *d, const char *name)
{
	const struct umdev_parent_driver *const *driver = d->table;

	while (*driver && strcmp((*driver)->name, name) != 0)
		driver++;
	return *driver;
}

static bool is_parent_setting(const struct umdev_parent_driver *driver, const char *text)
{
	const struct umdev_param *descs[CORE_MAX_PARAMS];
	unsigned n = driver ? parent_param_list(driver, descs) : 0;
	size_t len = strcspn(text, "=");

	for (unsigned i = 0; i < n; i++) {
		if (strlen(descs[i]->name) == len && strncmp(descs[i]->name, text, len) == 0)
			return true;
	}
	return false;
}

static int check_setting(const char *text)
{
	if (*text == '=' || !strchr(text, '='))
		return err_set(-EINVAL, "\"%s\" is no setting: it must be key=value", text);
	if (strpbrk(text, ",\n"))
		return err_set(-EINVAL, "\"%s\": a setting holds neither a comma nor a line end",
			       text);
	return 0;
}

/* Sorts the settings: the parent's into *parent (its keys are cut off their '='), the device's
 * behind the UUID in *spec. */
static int sort_settings(const struct manager *m, const struct one_options *o,
			 struct core_setting *parent, unsigned *ret_n, char **spec)
{
	const struct umdev_parent_driver *driver = find_driver(m->options.drivers, o->driver);
	int r;

	for (unsigned i = 0; i < o->n_settings; i++) {
		char *text = o->settings[i], *longer;

		r = check_setting(text);
		if (r < 0)
			return r;
		if (is_parent_setting(driver, text)) {
			if (*ret_n == CORE_MAX_PARAMS)
				return err_set(-E2BIG, "too many settings");
			text[strcspn(text, "=")] = '\0';
			parent[(*ret_n)++] = (struct core_setting){ text, text + strlen(text) + 1 };
			continue;
		}
		longer = str_printf("%s,%s", *spec, text);
		if (!longer)
			return -ENOMEM;
		free(*spec);
		*spec = longer;
	}
	return 0;
}

static int make_device(struct manager *m, const struct one_options *o, struct umdev_mdev **ret)
{
	struct core_setting settings[CORE_MAX_PARAMS];
	size_t prefix = strlen(o->driver);
	_cleanup_free_ char *spec = malloc(UUID_TEXT), *name = NULL;
	struct umdev_parent *parent;
	struct mdev_type *type;
	struct uuid uuid;
	unsigned n = 0;
	int r = uuid_random(&uuid);

	if (r < 0 || !spec)
		return r < 0 ? r : -ENOMEM;
	uuid_format(&uuid, spec);
	r = sort_settings(m, o, settings, &n, &spec);
	if (r == 0)
		r = manager_parent_add(m, PARENT_NAME, o->driver, settings, n);
	if (r < 0)
		return r;
	parent = parent_find(&m->core, PARENT_NAME);
	if (strncmp(o->type, o->driver, prefix) == 0 && o->type[prefix] == '-')
		name = strdup(o->type);
	else
		name = str_printf("%s-%s", o->driver, o->type);
	if (!name)
		return -ENOMEM;
	type = type_find(parent, name);
	return type ? mdev_create(type, spec, strlen(spec), ret) : -ENOENT;
}

/* The connection that QEMU's conventions call --fd. */
static int adopt(struct umdev_mdev *mdev, int fd)
{
	struct listener *l = mdev->manager;
	int type = 0, domain = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
		return err_set(-ENOTSOCK, "--fd %d: it is no connected UNIX stream socket", fd);
	fd_set_cloexec(fd, true);
	fd_set_nonblock(fd, true);
	listener_adopt(l, fd);
	if (l->waiting_fd < 0)
		return err_set(-ECONNREFUSED, "the connection was refused");
	return 0;
}

/* Somebody who waits for a device that takes time to make. */
struct making {
	struct attr_wait wait;
	struct manager *manager;
	int result;
};

static void made(struct attr_wait *wait, int result)
{
	struct making *making = container_of(wait, struct making, wait);

	making->result = result;
	loop_stop(&making->manager->loop, 0);
}

static int wait_until_made(struct manager *m, struct umdev_mdev *mdev)
{
	struct making making = { .wait.done = made, .manager = m };
	int r;

	attr_hold(&mdev->create_wait, &making.wait);
	r = loop_run(&m->loop);
	return r < 0 ? r : making.result;
}

int one_init(struct manager *m, const struct one_options *o)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	struct umdev_mdev *mdev;
	int r;

	m->config.run_dir = str_printf("%s/umdevd-one.XXXXXX", base && *base ? base : "/tmp");
	if (!m->config.run_dir)
		return -ENOMEM;
	if (!mkdtemp(m->config.run_dir))
		return err_set(-errno, "cannot make %s: %s", m->config.run_dir, strerror(errno));
	r = manager_init(m);
	if (r == 0)
		r = make_device(m, o, &mdev);
	if (r == TREE_LATER)
		r = wait_until_made(m, mdev);
	if (r < 0)
		return r;
	log_info("device %s: its directory is %s", mdev->uuid_text, mdev->dir_path);
	return o->fd >= 0 ? adopt(mdev, o->fd) : 0;
}

void one_fini(struct manager *m)
{
	if (m->config.run_dir)
		rmdir(m->config.run_dir);
}

int one_print_capabilities(const struct drivers *drivers)
{
	json_t *devices = json_array(), *json;
	int r = -ENOMEM;

	for (unsigned i = 0; i < drivers->n; i++) {
		const struct umdev_type *type = drivers->table[i]->types;

		for (; type->name; type++)
			control_append(&devices,
				       json_sprintf("%s-%s", drivers->table[i]->name, type->name));
	}
	json = json_pack("{s:s, s:o}", "type", "vfio-user", "devices", devices);
	if (json)
		r = json_dumpf(json, stdout, JSON_INDENT(2)) < 0 || puts("") == EOF ? -EIO : 0;
	json_decref(json);
	return r;
}
