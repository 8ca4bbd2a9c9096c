/* SPDX-License-Identifier: MIT */
/*
 * Commands on many devices: given as several arguments, or one per line of standard input for the
 * argument "-". They go to umdevd in calls of as many as it takes; each that fails is one line on
 * standard error, and the status is that of the first.
 */
#ifndef CLI_MANY_H
#define CLI_MANY_H

#include "cli/cli.h"

/* The arguments that stand before the first KEY=VALUE. */
unsigned many_n_names(const struct cli *cli);
/* The names of new devices have the form of UUIDs, or it was said. */
enum cli_exit many_check_uuids(const struct cli *cli);
/* Is it more than one device, or "-"? */
bool many_is_meant(const struct cli *cli);
enum cli_exit many_create(struct cli *cli);
enum cli_exit many_remove(struct cli *cli);

#endif
