/* SPDX-License-Identifier: MIT */
/*
 * The type `evil` of the driver `test`: a device half in the hands of its guest. It makes any
 * system call that its client asks for, so that tests can try what an exploit would.
 *
 * BAR 0, all registers 8 bytes wide: a call and its arguments are written, then GO; RESULT is what
 * the call gave. An argument whose bit is set in POINTERS is an offset in the buffer and is passed
 * as an address; for pointers inside of structures, ADDRESS tells where the buffer is in this life
 * of the worker. A call that ends the worker leaves RESULT as it was.
 */
#ifndef TEST_EVIL_H
#define TEST_EVIL_H

#include <stdint.h>
#include <umdev/device.h>

#define EVIL_BAR_SIZE 4096
#define EVIL_BUFFER_SIZE 2048
#define EVIL_ARGS 6

enum evil_register {
	EVIL_CALL = 0x00,
	EVIL_ARG = 0x08,      /* 6 of them */
	EVIL_POINTERS = 0x38, /* bit per argument */
	EVIL_RESULT = 0x40,   /* return value or -errno */
	EVIL_ADDRESS = 0x48,  /* RO */
	EVIL_GO = 0x50,
	EVIL_BUFFER = 0x800,
};

struct evil_state {
	uint64_t call, arg[EVIL_ARGS], pointers, result;
	uint8_t buffer[EVIL_BUFFER_SIZE];
};

/* What the kernel is given: at one place as long as the worker lives. */
struct evil_priv {
	uint8_t buffer[EVIL_BUFFER_SIZE];
};

extern const struct umdev_device_ops evil_ops;

#endif
