/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/str.h"
#include "core_fixture.h"

/* ---- drivers ---- */

static struct fixture *fixture_of(const struct umdev_mdev *mdev)
{
	return mdev->core->ops_arg;
}

static int mtty_show(const struct umdev_mdev *mdev, const char *name, char *buf, size_t size)
{
	return snprintf(buf, size, "This is MDEV %s\n", umdev_mdev_uuid(mdev));
}

static int mdpy_show(const struct umdev_mdev *mdev, const char *name, char *buf, size_t size)
{
	return snprintf(buf, size, "640x480\n");
}

static int mbochs_show(const struct umdev_mdev *mdev, const char *name, char *buf, size_t size)
{
	return snprintf(buf, size, "64 MB\n");
}

static const char *const mtty_vendor[] = { "sample_mdev_dev", NULL };
static const char *const mdpy_vendor[] = { "resolution", NULL };
static const char *const mbochs_vendor[] = { "memory", NULL };

static const struct umdev_pool mtty_pools[] = { { "ports", 24 }, { 0 } };
static const struct umdev_pool mdpy_pools[] = { { "instances", 4 }, { 0 } };
static const struct umdev_pool mbochs_pools[] = { { "megabytes", 256 }, { 0 } };

#define SAMPLE .device_api = "vfio-pci"

static const struct umdev_type mtty_types[] = {
	{ .name = "1",
	  .pretty = "Single port serial",
	  .class_name = "serial",
	  .label = true,
	  .pool = { { 1, 0 } },
	  SAMPLE },
	{ .name = "2",
	  .pretty = "Dual port serial",
	  .class_name = "serial",
	  .label = true,
	  .pool = { { 2, 0 } },
	  SAMPLE },
	{ 0 },
};

static const struct umdev_type mdpy_types[] = {
	{ .name = "vga",
	  .pretty = "mdpy-vga",
	  .description = "virtual display, 640x480 framebuffer",
	  .class_name = "display",
	  .pool = { { 1, 0 } },
	  SAMPLE },
	{ .name = "xga",
	  .pretty = "mdpy-xga",
	  .description = "virtual display, 1024x768 framebuffer",
	  .class_name = "display",
	  .pool = { { 1, 0 } },
	  SAMPLE },
	{ .name = "hd",
	  .pretty = "mdpy-hd",
	  .description = "virtual display, 1920x1080 framebuffer",
	  .class_name = "display",
	  .pool = { { 1, 0 } },
	  SAMPLE },
	{ 0 },
};

static const struct umdev_type mbochs_types[] = {
	{ .name = "small",
	  .pretty = "mbochs-small",
	  .description = "virtual display, 4 MB video memory",
	  .class_name = "display",
	  .pool = { { 4, 0 } },
	  SAMPLE },
	{ .name = "medium",
	  .pretty = "mbochs-medium",
	  .description = "virtual display, 16 MB video memory",
	  .class_name = "display",
	  .pool = { { 16, 0 } },
	  SAMPLE },
	{ .name = "large",
	  .pretty = "mbochs-large",
	  .description = "virtual display, 64 MB video memory",
	  .class_name = "display",
	  .pool = { { 64, 0 } },
	  SAMPLE },
	{ 0 },
};

static const struct umdev_parent_driver mtty_driver = {
	.abi = UMDEV_ABI,
	.name = "mtty",
	.class_name = "mtty",
	.types = mtty_types,
	.pools = mtty_pools,
	.vendor_attrs = mtty_vendor,
	.vendor_show = mtty_show,
};

static const struct umdev_parent_driver mdpy_driver = {
	.abi = UMDEV_ABI,
	.name = "mdpy",
	.class_name = "mdpy",
	.types = mdpy_types,
	.pools = mdpy_pools,
	.vendor_attrs = mdpy_vendor,
	.vendor_show = mdpy_show,
};

static const struct umdev_parent_driver mbochs_driver = {
	.abi = UMDEV_ABI,
	.name = "mbochs",
	.class_name = "mbochs",
	.types = mbochs_types,
	.pools = mbochs_pools,
	.vendor_attrs = mbochs_vendor,
	.vendor_show = mbochs_show,
};

/* "thing" has a parameter of every type and of every `writable`. */
static const char *const colours[] = { "red", "green", "blue", NULL };

static const struct umdev_param speed = { .name = "speed",
					  .description = "bits per second",
					  .unit = "bit/s",
					  .def = "9600",
					  .min = 300,
					  .max = 115200,
					  .step = 300,
					  .type = UMDEV_U32,
					  .writable = UMDEV_W_IDLE };
static const struct umdev_param capacity = { .name = "capacity",
					     .description = "bytes",
					     .unit = "bytes",
					     .def = "4K",
					     .pool = "bytes",
					     .min = 4096,
					     .step = 4096,
					     .type = UMDEV_SIZE,
					     .writable = UMDEV_W_LIVE };
static const struct umdev_param colour = { .name = "colour",
					   .def = "green",
					   .choices = colours,
					   .type = UMDEV_ENUM,
					   .writable = UMDEV_W_FRESH };
static const struct umdev_param read_only = { .name = "read_only",
					      .type = UMDEV_BOOL,
					      .writable = UMDEV_W_CREATE };
static const struct umdev_param serial = { .name = "serial",
					   .type = UMDEV_STRING,
					   .writable = UMDEV_W_ONCE };
static const struct umdev_param mac = { .name = "mac_addr",
					.type = UMDEV_MAC,
					.writable = UMDEV_W_IDLE };
static const struct umdev_param tag = { .name = "tag",
					.type = UMDEV_UUID,
					.def = "00000000-0000-0000-0000-000000000000",
					.writable = UMDEV_W_IDLE };
static const struct umdev_param ports = {
	.name = "num_ports", .def = "2", .type = UMDEV_U64, .writable = UMDEV_W_NEVER
};
static const struct umdev_param secret = {
	.name = "key", .type = UMDEV_STRING, .writable = UMDEV_W_IDLE, .secret = true
};
static const struct umdev_param backend = {
	.name = "backend", .type = UMDEV_STRING, .writable = UMDEV_W_IDLE, .required = true
};

static const struct umdev_param *const full_params[] = { &speed,  &capacity, &colour, &read_only,
							 &serial, &mac,      &tag,    &ports,
							 &secret, NULL };
static const struct umdev_param *const needy_params[] = { &backend, NULL };

static const struct umdev_type thing_types[] = {
	{ .name = "full",
	  .class_name = "misc",
	  .params = full_params,
	  .pool = { { 2, 1 } },
	  .max_aggregation = 8,
	  .label = true,
	  SAMPLE },
	{ .name = "pair", .class_name = "misc", .p2p = true, .pool = { { 1, 0 } }, SAMPLE },
	{ .name = "needy", .class_name = "misc", .params = needy_params, SAMPLE },
	{ .name = "bare", .class_name = "misc", .pool = { { 1, 0 } }, SAMPLE },
	{ 0 },
};

static const struct umdev_pool thing_pools[] = { { "units", 20 }, { "bytes", 65536 }, { 0 } };

static const struct umdev_param flavour = { .name = "flavour", .type = UMDEV_STRING };
static const struct umdev_param units = { .name = "units", .type = UMDEV_U32, .def = "20" };
static const struct umdev_param *const thing_settings[] = { &flavour, &units, NULL };

static int thing_add(struct umdev_parent *parent)
{
	if (strcmp(umdev_parent_param(parent, "flavour")->text, "sour") == 0) {
		umdev_explain("sour things do not exist");
		return -ENXIO;
	}
	return umdev_pool_resize(parent, "units", umdev_parent_param(parent, "units")->u64);
}

static int thing_create(struct umdev_mdev *mdev)
{
	struct fixture *f = fixture_of(mdev);

	if (f->create_error)
		return f->create_error;
	f->n_made++;
	return 0;
}

static void thing_destroy(struct umdev_mdev *mdev)
{
	fixture_of(mdev)->n_made--;
}

static int thing_check(struct umdev_mdev *mdev, const struct umdev_param *param,
		       const struct umdev_value *value)
{
	return fixture_of(mdev)->check_error;
}

static const struct umdev_parent_driver thing_driver = {
	.abi = UMDEV_ABI,
	.name = "thing",
	.types = thing_types,
	.pools = thing_pools,
	.params = thing_settings,
	.add = thing_add,
	.mdev_create = thing_create,
	.mdev_destroy = thing_destroy,
	.param_check = thing_check,
};

static const struct umdev_parent_driver *const drivers[] = { &mtty_driver, &mdpy_driver,
							     &mbochs_driver, &thing_driver, NULL };

/* ---- operations ---- */

static int op_listen(void *arg, struct umdev_mdev *mdev)
{
	struct fixture *f = arg;

	if (f->listen_error)
		return f->listen_error;
	mdev->dir_fd = open("/", O_PATH | O_CLOEXEC);
	mdev->dir_path = strdup("/");
	f->n_listening++;
	return 0;
}

static void op_unlisten(void *arg, struct umdev_mdev *mdev)
{
	struct fixture *f = arg;

	f->n_listening--;
}

static bool op_is_served(void *arg, const struct umdev_mdev *mdev)
{
	const struct fixture *f = arg;

	return f->served == mdev;
}

static int op_live(void *arg, struct umdev_mdev *mdev, const struct umdev_param *param,
		   const struct umdev_value *value)
{
	struct fixture *f = arg;

	if (f->live_error)
		return f->live_error;
	f->n_live++;
	f->asked = mdev;
	return 0;
}

static void op_start(void *arg, struct umdev_mdev *mdev)
{
	struct fixture *f = arg;

	f->n_wanted++;
}

static void op_stop(void *arg, struct umdev_mdev *mdev)
{
	struct fixture *f = arg;

	f->n_unwanted++;
}

static void op_disconnect(void *arg, struct umdev_mdev *mdev, bool force)
{
	struct fixture *f = arg;

	f->n_disconnects++;
	f->forced = force;
	f->asked = mdev;
}

static void log_uevent(void *arg, const struct core_uevent *u)
{
	struct fixture *f = arg;
	size_t at = strlen(f->log);

	at += str_format(f->log + at, sizeof(f->log) - at,
			 "%s@%s|ACTION=%s|DEVPATH=%s|SUBSYSTEM=%s|", u->action, u->devpath,
			 u->action, u->devpath, u->subsystem);
	for (unsigned i = 0; u->env[i]; i++)
		at += str_format(f->log + at, sizeof(f->log) - at, "%s|", u->env[i]);
	str_format(f->log + at, sizeof(f->log) - at, "\n");
}

static void op_event(void *arg, const struct core_event *event)
{
	static const char *const names[] = {
		[CORE_DRIVER_ADDED] = "driver+", [CORE_DRIVER_REMOVED] = "driver-",
		[CORE_CLASS_ADDED] = "class+",   [CORE_CLASS_REMOVED] = "class-",
		[CORE_PARENT_ADDED] = "parent+", [CORE_PARENT_REMOVED] = "parent-",
		[CORE_MDEV_ADDED] = "mdev+",     [CORE_MDEV_REMOVED] = "mdev-",
		[CORE_MDEV_BOUND] = "bound",     [CORE_MDEV_UNBOUND] = "unbound",
		[CORE_MDEV_STATE] = "state",     [CORE_MDEV_PARAM] = "param",
		[CORE_MDEV_GROUP] = "group",     [CORE_UEVENT] = "uevent",
	};
	struct fixture *f = arg;
	size_t at = strlen(f->log);

	if (f->log_off)
		return;
	if (f->log_uevents)
		core_event_uevents(event, log_uevent, f);
	else
		str_format(f->log + at, sizeof(f->log) - at, "%s %s\n", names[event->type],
			   event->detail ? event->detail : "");
}

static void op_dirty(void *arg, struct umdev_mdev *mdev)
{
	struct fixture *f = arg;

	f->n_dirty++;
}

static const struct core_ops ops = {
	.mdev_listen = op_listen,
	.mdev_unlisten = op_unlisten,
	.is_served = op_is_served,
	.param_live = op_live,
	.start = op_start,
	.stop = op_stop,
	.disconnect = op_disconnect,
	.event = op_event,
	.dirty = op_dirty,
};

/* ---- fixture ---- */

struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(core_init(&f->core, drivers, &ops, f), 0);
	return f;
}

void fixture_free(struct fixture *f)
{
	while (!list_is_empty(&f->core.parents))
		assert_int_equal(
			parent_remove(list_first(&f->core.parents, struct umdev_parent, node)), 0);
	assert_int_equal(f->core.mdevs.n, 0);
	assert_int_equal(f->core.p2p_groups.n, 0);
	assert_true(list_is_empty(&f->core.groups));
	assert_true(list_is_empty(&f->core.driver_dirs));
	assert_int_equal(f->n_listening, 0);
	assert_int_equal(f->n_made, 0);
	core_fini(&f->core);
	free(f);
}

void add_samples(struct fixture *f)
{
	static const struct core_setting off = { "params", "off" };

	assert_int_equal(parent_add(&f->core, "mtty", "mtty", &off, 1, &f->mtty), 0);
	assert_int_equal(parent_add(&f->core, "mdpy", "mdpy", &off, 1, &f->mdpy), 0);
	assert_int_equal(parent_add(&f->core, "mbochs", "mbochs", &off, 1, &f->mbochs), 0);
}

void add_thing(struct fixture *f, const char *const *settings)
{
	struct core_setting list[8];
	char text[8][64];
	unsigned n = 0;

	for (; settings[n]; n++) {
		char *equal;

		str_format(text[n], sizeof(text[n]), "%s", settings[n]);
		equal = strchr(text[n], '=');
		*equal = '\0';
		list[n] = (struct core_setting){ text[n], equal + 1 };
	}
	assert_int_equal(parent_add(&f->core, "thing", "thing", list, n, &f->thing), 0);
}

void add_plain_thing(struct fixture *f)
{
	static const char *const none[] = { NULL };

	add_thing(f, none);
}

int write_bytes(struct fixture *f, const char *path, const void *text, size_t len,
		struct attr_wait *wait)
{
	static const struct tree_user root = { 0 };
	struct tree_ref ref;
	int error = tree_walk(&f->core.tree, path, true, &ref);

	err_clear();
	if (!error)
		error = tree_access(&f->core.tree, &ref, W_OK, &root);
	if (error < 0)
		return error;
	tree_get(ref.node);
	error = tree_store(&f->core.tree, &ref, text, len, wait);
	tree_put(&f->core.tree, ref.node);
	return error;
}

int write_file(struct fixture *f, const char *path, const char *text)
{
	return write_bytes(f, path, text, strlen(text), NULL);
}

const char *read_file(struct fixture *f, const char *path)
{
	static char buf[TREE_ATTR_SIZE + 1];
	static const struct tree_user root = { 0 };
	struct tree_ref ref;
	int n = tree_walk(&f->core.tree, path, true, &ref);

	if (n == 0)
		n = tree_access(&f->core.tree, &ref, R_OK, &root);
	if (n == 0)
		n = tree_show(&ref, buf);
	if (n < 0)
		return err_name(n);
	buf[n] = '\0';
	return buf;
}

bool exists(struct fixture *f, const char *path)
{
	struct tree_ref ref;

	return tree_walk(&f->core.tree, path, false, &ref) == 0;
}

const char *link_text(struct fixture *f, const char *path)
{
	static char buf[TREE_PATH_MAX];
	struct tree_ref ref;

	if (tree_walk(&f->core.tree, path, false, &ref) < 0 ||
	    tree_readlink(&ref, buf, sizeof(buf)) < 0)
		return "";
	return buf;
}

/* ---- dump ---- */

struct dump {
	struct fixture *f;
	FILE *out;
	const char *path;
};

static void dump_file(struct dump *d, const char *path, const struct tree_ref *ref,
		      const struct stat *st)
{
	char buf[TREE_ATTR_SIZE + 1];
	int n;

	fprintf(d->out, "F %04o sz=%ld /sys/%s", st->st_mode & 07777, (long)st->st_size, path);
	if (st->st_mode & 0444) {
		n = tree_show(ref, buf);
		if (n < 0) {
			fprintf(d->out, " read:%s", err_name(n));
		} else {
			fprintf(d->out, " = \"");
			for (int i = 0; i < n; i++)
				if (buf[i] == '\n')
					fputs("\\n", d->out);
				else
					fputc(buf[i], d->out);
			fputc('"', d->out);
		}
	}
	fputc('\n', d->out);
}

static bool dump_entry(void *arg, const char *name, const struct tree_ref *ref)
{
	struct dump *d = arg;
	char path[TREE_PATH_MAX], text[TREE_PATH_MAX];
	struct dump below = { d->f, d->out, path };
	struct stat st;

	str_format(path, sizeof(path), "%s%s%s", d->path, *name ? "/" : "", name);
	tree_stat(&d->f->core.tree, ref, &st);
	if (S_ISREG(st.st_mode)) {
		dump_file(d, path, ref, &st);
	} else if (S_ISLNK(st.st_mode)) {
		assert_true(tree_readlink(ref, text, sizeof(text)) > 0);
		fprintf(d->out, "L %04o /sys/%s -> %s\n", st.st_mode & 07777, path, text);
	} else {
		fprintf(d->out, "D %04o nlink=%lu /sys/%s/\n", st.st_mode & 07777,
			(unsigned long)st.st_nlink, path);
		tree_list(&d->f->core.tree, ref, 0, dump_entry, &below);
	}
	return true;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *sorted(char *text)
{
	char *lines[8192], *out = malloc(strlen(text) + 1), *save;
	unsigned n = 0;

	assert_non_null(out);
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		assert_true(n < 8192);
		lines[n++] = l;
	}
	qsort(lines, n, sizeof(*lines), compare);
	*out = '\0';
	for (unsigned i = 0, at = 0; i < n; i++)
		at += (unsigned)sprintf(out + at, "%s\n", lines[i]);
	return out;
}

char *dump(struct fixture *f, const char *path)
{
	struct dump d = { .f = f, .path = path };
	struct tree_ref ref;
	char *text, *out;
	size_t size;

	d.out = open_memstream(&text, &size);
	if (tree_walk(&f->core.tree, path, false, &ref) == 0)
		dump_entry(&d, "", &ref);
	fclose(d.out);
	out = sorted(text);
	free(text);
	return out;
}

/* ---- devices ---- */

int try_create(struct fixture *f, struct umdev_parent *parent, const char *type, const char *spec)
{
	struct umdev_mdev *mdev;
	struct mdev_type *t = type_find(parent, type);

	assert_non_null(t);
	err_clear();
	return mdev_create(t, spec, strlen(spec), &mdev);
}

struct umdev_mdev *create(struct fixture *f, struct umdev_parent *parent, const char *type,
			  const char *spec)
{
	struct umdev_mdev *mdev;
	struct mdev_type *t = type_find(parent, type);

	assert_non_null(t);
	assert_int_equal(mdev_create(t, spec, strlen(spec), &mdev), 0);
	return mdev;
}

void remove_idle(struct umdev_mdev *mdev)
{
	assert_int_equal(mdev_remove(mdev, MDEV_REMOVE, NULL), 0);
}

struct sock_peer process(int pid)
{
	return (struct sock_peer){ .pidfd = -1, .pid = pid, .start = 1 };
}

static void waiter_done(struct attr_wait *wait, int result)
{
	struct waiter *w = container_of(wait, struct waiter, wait);

	assert_false(w->answered);
	w->answered = true;
	w->result = result;
}

void waiter_init(struct waiter *w)
{
	*w = (struct waiter){ .wait.done = waiter_done };
}

void start(struct umdev_mdev *mdev)
{
	const struct mdev_set set = { .n = 1, .list = { mdev } };

	assert_int_equal(mdev_start(mdev->core, &set, NULL), TREE_LATER);
	core_start_done(mdev, 0);
}

void stop(struct umdev_mdev *mdev)
{
	const struct mdev_set set = { .n = 1, .list = { mdev } };

	assert_int_equal(mdev_stop(mdev->core, &set), 0);
}
