/* SPDX-License-Identifier: MIT */
/*
 * test, parent half: types for the sake of their parameters. `kinds` has one of every type, every
 * `writable` and both pools; the types named after a class have all that the class has in common.
 * To a guest they are what `regs` is.
 */
#include <stddef.h>
#include "test_parent.h"

static const char *const paces[] = { "slow", "fast", NULL };

static const struct umdev_param number = {
	.name = "number",
	.description = "a number that is changed once",
	.unit = "apples",
	.def = "10",
	.min = 10,
	.max = 100,
	.step = 5,
	.type = UMDEV_U64,
	.writable = UMDEV_W_ONCE,
};
static const struct umdev_param flag = {
	.name = "flag",
	.description = "yes or no, until the first use",
	.type = UMDEV_BOOL,
	.writable = UMDEV_W_FRESH,
};
static const struct umdev_param memory = {
	.name = "memory",
	.description = "bytes of the pool, at any time",
	.unit = "bytes",
	.def = "4K",
	.pool = TEST_POOL_BYTES,
	.min = 4096,
	.max = TEST_BYTES,
	.step = 4096,
	.type = UMDEV_SIZE,
	.writable = UMDEV_W_LIVE,
};
static const struct umdev_param serial = {
	.name = "serial",
	.description = "a text that is given to create or never",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_CREATE,
};
static const struct umdev_param tag = {
	.name = "tag",
	.description = "a UUID",
	.type = UMDEV_UUID,
	.def = "00000000-0000-0000-0000-000000000000",
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param pace = {
	.name = "pace",
	.description = "one of two words",
	.choices = paces,
	.type = UMDEV_ENUM,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param port = {
	.name = "port",
	.description = "an address of Ethernet that everybody may see",
	.type = UMDEV_MAC,
	.writable = UMDEV_W_IDLE,
};
static const struct umdev_param letter = {
	.name = "letter",
	.description = "the first byte of the UUID's text: computed by the driver",
	.type = UMDEV_U32,
	.writable = UMDEV_W_NEVER,
};
static const struct umdev_param key = {
	.name = "key",
	.description = "a text that is nobody's business",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_IDLE,
	.secret = true,
};
const struct umdev_param *const test_kinds_params[] = { &number, &flag, &memory, &serial, &tag,
							&pace,   &port, &letter, &key,    NULL };

static const struct umdev_param backend_to_set = {
	.name = "backend",
	.description = "must be given before the first use",
	.type = UMDEV_STRING,
	.writable = UMDEV_W_IDLE,
	.required = true,
};
const struct umdev_param *const test_needy_params[] = { &backend_to_set, NULL };

#define STANDARD(name, ...) static const struct umdev_param name = { __VA_ARGS__ }

STANDARD(capacity, .id = UMDEV_PARAM_CAPACITY, .writable = UMDEV_W_LIVE, .step = 512);
STANDARD(blk_size, .id = UMDEV_PARAM_BLK_SIZE, .writable = UMDEV_W_IDLE, .def = "512", .min = 512,
	 .max = 4096);
STANDARD(num_queues, .id = UMDEV_PARAM_NUM_QUEUES, .writable = UMDEV_W_IDLE, .def = "1", .min = 1);
STANDARD(seg_max, .id = UMDEV_PARAM_SEG_MAX, .writable = UMDEV_W_IDLE, .def = "128");
STANDARD(read_only, .id = UMDEV_PARAM_READ_ONLY, .writable = UMDEV_W_IDLE);
STANDARD(features, .id = UMDEV_PARAM_DEVICE_FEATURES, .writable = UMDEV_W_CREATE);
STANDARD(num_io_queues, .id = UMDEV_PARAM_NUM_IO_QUEUES);
STANDARD(mac_addr, .id = UMDEV_PARAM_MAC_ADDR, .writable = UMDEV_W_IDLE);
STANDARD(mtu, .id = UMDEV_PARAM_MTU, .writable = UMDEV_W_IDLE, .def = "1500", .min = 68,
	 .max = 65535);
STANDARD(max_vqp, .id = UMDEV_PARAM_MAX_VQP, .writable = UMDEV_W_IDLE, .def = "1", .min = 1);
STANDARD(num_ports, .id = UMDEV_PARAM_NUM_PORTS, .def = "1");
STANDARD(backend, .id = UMDEV_PARAM_BACKEND, .writable = UMDEV_W_IDLE, .choices = paces);
STANDARD(xres, .id = UMDEV_PARAM_XRES, .writable = UMDEV_W_IDLE, .def = "1024");
STANDARD(yres, .id = UMDEV_PARAM_YRES, .writable = UMDEV_W_IDLE, .def = "768");
STANDARD(vram, .id = UMDEV_PARAM_VRAM, .writable = UMDEV_W_IDLE, .def = "16M");
STANDARD(numa_node, .id = UMDEV_PARAM_NUMA_NODE);

const struct umdev_param *const test_block_params[] = { &capacity,  &blk_size, &num_queues,
							&seg_max,   &features, &read_only,
							&numa_node, NULL };
const struct umdev_param *const test_nvme_params[] = { &capacity, &blk_size, &read_only,
						       &num_io_queues, NULL };
const struct umdev_param *const test_net_params[] = { &mac_addr, &mtu, &max_vqp, &features, NULL };
const struct umdev_param *const test_serial_params[] = { &num_ports, &backend, NULL };
const struct umdev_param *const test_display_params[] = { &xres, &yres, &vram, NULL };
