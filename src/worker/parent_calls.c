/* SPDX-License-Identifier: MIT */
/* What parent halves may call, as umdev-worker has it: not at all (base/plugin.h). */
#include "base/plugin.h"

static void not_here(void)
{
	plugin_other_half(__builtin_return_address(0), "parent halves");
}

PLUGIN_OTHER_HALF(umdev_answer);
PLUGIN_OTHER_HALF(umdev_answer_hold);
PLUGIN_OTHER_HALF(umdev_explain);
PLUGIN_OTHER_HALF(umdev_is_defined);
PLUGIN_OTHER_HALF(umdev_job_cancel);
PLUGIN_OTHER_HALF(umdev_job_leave);
PLUGIN_OTHER_HALF(umdev_job_start);
PLUGIN_OTHER_HALF(umdev_mdev_created);
PLUGIN_OTHER_HALF(umdev_mdev_dir);
PLUGIN_OTHER_HALF(umdev_mdev_dirfd);
PLUGIN_OTHER_HALF(umdev_mdev_is_restored);
PLUGIN_OTHER_HALF(umdev_mdev_param);
PLUGIN_OTHER_HALF(umdev_mdev_param_checked);
PLUGIN_OTHER_HALF(umdev_mdev_param_follows);
PLUGIN_OTHER_HALF(umdev_mdev_parent);
PLUGIN_OTHER_HALF(umdev_mdev_priv);
PLUGIN_OTHER_HALF(umdev_mdev_set_number);
PLUGIN_OTHER_HALF(umdev_mdev_set_priv);
PLUGIN_OTHER_HALF(umdev_mdev_type);
PLUGIN_OTHER_HALF(umdev_mdev_uuid);
PLUGIN_OTHER_HALF(umdev_object_add);
PLUGIN_OTHER_HALF(umdev_object_priv);
PLUGIN_OTHER_HALF(umdev_object_remove);
PLUGIN_OTHER_HALF(umdev_parent_name);
PLUGIN_OTHER_HALF(umdev_parent_param);
PLUGIN_OTHER_HALF(umdev_parent_priv);
PLUGIN_OTHER_HALF(umdev_parent_set_priv);
PLUGIN_OTHER_HALF(umdev_parent_state_dir);
PLUGIN_OTHER_HALF(umdev_pool_resize);
PLUGIN_OTHER_HALF(umdev_resource_add);
PLUGIN_OTHER_HALF(umdev_resource_grow);
PLUGIN_OTHER_HALF(umdev_resource_send);
PLUGIN_OTHER_HALF(umdev_resource_withdraw);
PLUGIN_OTHER_HALF(umdev_value_parse);
