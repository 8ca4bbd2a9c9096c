// SPDX-License-Identifier: MIT
/*
 * Device features. The device has none yet: no migration, no dirty log. VERSION does not offer
 * migration, and a client that asks is told the truth.
 */
#include <errno.h>
#include "vfio/internal.h"

int vfio_device_feature(struct vfio_server *s, struct vfio_request *rq)
{
	const uint32_t verbs = VUSER_FEATURE_GET | VUSER_FEATURE_SET | VUSER_FEATURE_PROBE;
	struct vuser_feature f;

	if (vuser_get_feature(rq->payload, rq->len, &f) || f.argsz < 8 || !(f.flags & verbs) ||
	    f.flags & ~(verbs | VUSER_FEATURE_MASK))
		return -EINVAL;
	/* GET and SET together only make sense as a question. */
	if ((f.flags & verbs) == (VUSER_FEATURE_GET | VUSER_FEATURE_SET))
		return -EINVAL;
	return -ENOTTY;
}

int vfio_mig_data(struct vfio_server *s, struct vfio_request *rq)
{
	return -EOPNOTSUPP;
}
