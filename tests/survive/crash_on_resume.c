/* SPDX-License-Identifier: MIT */
/* Linked with --wrap=vfio_state_check: a worker that crashes when it looks at inherited state. */
#include <stdlib.h>

int __wrap_vfio_state_check(void);
int __wrap_vfio_state_check(void)
{
	abort();
}
