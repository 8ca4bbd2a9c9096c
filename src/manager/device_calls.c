/* SPDX-License-Identifier: MIT */
/* What device halves may call, as umdevd has it: not at all (base/plugin.h). */
#include "base/plugin.h"

static void not_here(void)
{
	plugin_other_half(__builtin_return_address(0), "device halves");
}

/* device.h */
PLUGIN_OTHER_HALF(umdev_device_type);
PLUGIN_OTHER_HALF(umdev_driver_name);
PLUGIN_OTHER_HALF(umdev_group_index);
PLUGIN_OTHER_HALF(umdev_group_member);
PLUGIN_OTHER_HALF(umdev_group_size);
PLUGIN_OTHER_HALF(umdev_is_connected);
PLUGIN_OTHER_HALF(umdev_log);
PLUGIN_OTHER_HALF(umdev_param);
PLUGIN_OTHER_HALF(umdev_priv);
PLUGIN_OTHER_HALF(umdev_resource_fd);
PLUGIN_OTHER_HALF(umdev_state);
PLUGIN_OTHER_HALF(umdev_stream_avail);
PLUGIN_OTHER_HALF(umdev_stream_find);
PLUGIN_OTHER_HALF(umdev_stream_read);
PLUGIN_OTHER_HALF(umdev_stream_space);
PLUGIN_OTHER_HALF(umdev_stream_write);
PLUGIN_OTHER_HALF(umdev_uuid);
/* dma.h */
PLUGIN_OTHER_HALF(umdev_dma_message);
PLUGIN_OTHER_HALF(umdev_dma_read);
PLUGIN_OTHER_HALF(umdev_dma_write);
/* media.h */
PLUGIN_OTHER_HALF(umdev_media_find);
PLUGIN_OTHER_HALF(umdev_media_is_writable);
PLUGIN_OTHER_HALF(umdev_media_size);
PLUGIN_OTHER_HALF(umdev_media_submit);
/* vfio.h */
PLUGIN_OTHER_HALF(umdev_bar_mem);
PLUGIN_OTHER_HALF(umdev_bar_size);
PLUGIN_OTHER_HALF(umdev_resource_mem);
PLUGIN_OTHER_HALF(umdev_bus_master);
PLUGIN_OTHER_HALF(umdev_intx_set);
PLUGIN_OTHER_HALF(umdev_irq_raise);
PLUGIN_OTHER_HALF(umdev_msi_enabled);
