/* SPDX-License-Identifier: MIT */
/*
 * Where umdev lives: the same answer for umdevd and for every program that looks for it.
 *
 *               variable        root            others
 *   PATH_RUN    $UMDEV_RUN      /run/umdev      $XDG_RUNTIME_DIR/umdev
 *   PATH_CONFIG $UMDEV_CONFIG   /etc/umdev      $XDG_CONFIG_HOME/umdev, ~/.config/umdev
 *   PATH_STATE  $UMDEV_STATE    /var/lib/umdev  $XDG_STATE_HOME/umdev, ~/.local/state/umdev
 */
#ifndef BASE_PATHS_H
#define BASE_PATHS_H

enum path_root { PATH_RUN, PATH_CONFIG, PATH_STATE };

/* Absolute, to be freed. 0 / -ENOENT: no variable tells, -EINVAL: relative, -ENOMEM; with text. */
int path_root(enum path_root which, char **ret);
const char *path_variable(enum path_root which); /* "UMDEV_RUN" ... */

/* mkdir -p with mode 0755. 0 / -errno with text. */
int path_make(const char *path);

#endif
