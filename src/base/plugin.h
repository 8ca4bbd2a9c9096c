/* SPDX-License-Identifier: MIT */
/*
 * A driver in a file of its own (docs/writing-a-driver.md): one shared object with both halves,
 * each a table under a name of its own. umdevd and umdev-worker load the same file, each for its
 * half.
 *
 * The file needs the calls of both halves, and a loader that binds at once (which is how
 * distributions build) wants all of them. So each program also has the names of those calls that
 * only the other has; they end in plugin_other_half(). Names that begin with umdev_, and no others,
 * are what a file can see of the program (driver.exports).
 */
#ifndef BASE_PLUGIN_H
#define BASE_PLUGIN_H

#include <stdint.h>

/* Files are trusted as the program itself is; what is judged is whether one is whole and fits.
 * 0 and a handle for plugin_close, or -errno (text left, without the path). */
int plugin_open(const char *path, void **ret);
void plugin_close(void *handle); /* NULL is fine */

/* The table `symbol`, whose first member is its ABI number. 0, or -ENOEXEC (text left). */
int plugin_table(void *handle, const char *symbol, const void **ret);

/* The body of a call that is not ours: says which file called, and aborts. */
_Noreturn void plugin_other_half(const void *caller, const char *half);

/* In a file with `static void not_here(void)`, which calls plugin_other_half. */
#define PLUGIN_OTHER_HALF(name) extern void name(void) __attribute__((alias("not_here")))

#endif
