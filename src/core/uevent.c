/* SPDX-License-Identifier: MIT */
/*
 * The kernel's uevents for what happens in the model, in the kernel's order. A device's `add` comes
 * when its directory is complete (a kernel sends it earlier); no tool minds.
 */
#include <stdio.h>
#include <string.h>
#include "base/str.h"
#include "core/private.h"

#define PATH_SIZE 384

struct out {
	void (*fn)(void *arg, const struct core_uevent *uevent);
	void *arg;
};

static void emit(const struct out *out, const char *action, const char *devpath,
		 const char *subsystem, const char *env0, const char *env1)
{
	const struct core_uevent uevent = {
		.action = action, .devpath = devpath, .subsystem = subsystem, .env = { env0, env1 }
	};

	out->fn(out->arg, &uevent);
}

static void named(const struct out *out, const char *action, const char *directory,
		  const char *name, const char *subsystem)
{
	char path[PATH_SIZE];

	str_format(path, sizeof(path), "%s/%s", directory, name);
	emit(out, action, path, subsystem, NULL, NULL);
}

static void parent_path(const struct umdev_parent *parent, char *buf)
{
	str_format(buf, PATH_SIZE, "/devices/virtual/%s/%s", parent->class_name, parent->name);
}

static void mdev_path(const struct umdev_mdev *mdev, char *buf)
{
	str_format(buf, PATH_SIZE, "/devices/virtual/%s/%s/%s", mdev->parent->class_name,
		   mdev->parent->name, mdev->uuid_text);
}

static void parent_uevents(const struct out *out, const struct umdev_parent *parent, bool added)
{
	char path[PATH_SIZE];

	parent_path(parent, path);
	if (added)
		emit(out, "add", path, parent->class_name, NULL, NULL);
	emit(out, "change", path, parent->class_name,
	     added ? "MDEV_STATE=registered" : "MDEV_STATE=unregistered", NULL);
	if (!added)
		emit(out, "remove", path, parent->class_name, NULL, NULL);
}

/* The group comes with its first device and goes with its last. */
static void group_uevent(const struct out *out, const struct umdev_mdev *mdev, const char *action)
{
	char path[PATH_SIZE], devname[32];

	if (mdev->group->n_members > 1)
		return;
	str_format(path, sizeof(path), "/devices/virtual/vfio/%u", mdev->group->number);
	str_format(devname, sizeof(devname), "DEVNAME=vfio/%u", mdev->group->number);
	emit(out, action, path, "vfio", devname, NULL);
}

static void vfio_dev_uevent(const struct out *out, const struct umdev_mdev *mdev,
			    const char *action)
{
	char dir[PATH_SIZE], path[PATH_SIZE + 32];

	mdev_path(mdev, dir);
	str_format(path, sizeof(path), "%s/vfio-dev/vfio%u", dir, mdev->vfio_number);
	emit(out, action, path, "vfio-dev", NULL, NULL);
}

/* An uevent of the device itself. env: one more variable, or NULL. */
static void mdev_uevent(const struct out *out, const struct umdev_mdev *mdev, const char *action,
			const char *env, bool with_driver)
{
	char path[PATH_SIZE], driver[96];

	mdev_path(mdev, path);
	str_format(driver, sizeof(driver), "DRIVER=%s", mdev->parent->driver->name);
	if (!with_driver)
		emit(out, action, path, "mdev", env, NULL);
	else
		emit(out, action, path, "mdev", env ? env : driver, env ? driver : NULL);
}

static void bound_uevents(const struct out *out, const struct umdev_mdev *mdev)
{
	group_uevent(out, mdev, "add");
	vfio_dev_uevent(out, mdev, "add");
	mdev_uevent(out, mdev, "bind", NULL, true);
}

static void unbound_uevents(const struct out *out, const struct umdev_mdev *mdev)
{
	vfio_dev_uevent(out, mdev, "remove");
	group_uevent(out, mdev, "remove");
	mdev_uevent(out, mdev, "unbind", NULL, false);
}

static void param_uevent(const struct out *out, const struct core_event *event)
{
	char env[128];
	int name_len = (int)strcspn(event->detail, "=");

	str_format(env, sizeof(env), "MDEV_PARAM=%.*s", name_len, event->detail);
	mdev_uevent(out, event->mdev, "change", env, event->mdev->bound);
}

static void moved_uevent(const struct out *out, const struct core_event *event)
{
	char env[32];

	str_format(env, sizeof(env), "IOMMU_GROUP=%s", event->detail);
	mdev_uevent(out, event->mdev, "change", env, event->mdev->bound);
}

/* detail: action [UUID [KEY=VALUE]...], checked by uevent_store. */
static void synthetic_uevent(const struct out *out, const struct core_event *event)
{
	struct core_uevent uevent = { .devpath = event->devpath, .subsystem = event->subsystem };
	char words[TREE_ATTR_SIZE + 1], env[2 * TREE_ATTR_SIZE], driver[96];
	size_t at = 0;
	unsigned n = 0;
	char *save, *word;

	str_format(words, sizeof(words), "%s", event->detail);
	uevent.action = strtok_r(words, " ", &save);
	word = strtok_r(NULL, " ", &save);
	uevent.env[n++] = env;
	at += str_format(env, sizeof(env), "SYNTH_UUID=%s", word ? word : "0") + 1;
	while (word && (word = strtok_r(NULL, " ", &save))) {
		uevent.env[n++] = env + at;
		at += str_format(env + at, sizeof(env) - at, "SYNTH_ARG_%s", word) + 1;
	}
	if (event->mdev && event->mdev->bound && strcmp(event->subsystem, "mdev") == 0) {
		str_format(driver, sizeof(driver), "DRIVER=%s", event->mdev->parent->driver->name);
		uevent.env[n++] = driver;
	}
	out->fn(out->arg, &uevent);
}

void core_event_uevents(const struct core_event *event,
			void (*fn)(void *arg, const struct core_uevent *uevent), void *arg)
{
	const struct out out = { fn, arg };

	switch (event->type) {
	case CORE_DRIVER_ADDED:
	case CORE_DRIVER_REMOVED:
		named(&out, event->type == CORE_DRIVER_ADDED ? "add" : "remove",
		      "/bus/mdev/drivers", event->detail, "drivers");
		break;
	case CORE_CLASS_ADDED:
	case CORE_CLASS_REMOVED:
		named(&out, event->type == CORE_CLASS_ADDED ? "add" : "remove", "/class",
		      event->detail, "class");
		break;
	case CORE_PARENT_ADDED:
	case CORE_PARENT_REMOVED:
		parent_uevents(&out, event->parent, event->type == CORE_PARENT_ADDED);
		break;
	case CORE_MDEV_ADDED:
	case CORE_MDEV_REMOVED:
		mdev_uevent(&out, event->mdev, event->type == CORE_MDEV_ADDED ? "add" : "remove",
			    NULL, false);
		break;
	case CORE_MDEV_BOUND:
		bound_uevents(&out, event->mdev);
		break;
	case CORE_MDEV_UNBOUND:
		unbound_uevents(&out, event->mdev);
		break;
	case CORE_MDEV_PARAM:
		param_uevent(&out, event);
		break;
	case CORE_MDEV_GROUP:
		moved_uevent(&out, event);
		break;
	case CORE_UEVENT:
		synthetic_uevent(&out, event);
		break;
	case CORE_MDEV_STATE:
		break;
	}
}
