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
PLUGIN_OTHER_HALF(umdev_resource_mem);
PLUGIN_OTHER_HALF(umdev_state);
PLUGIN_OTHER_HALF(umdev_stream_avail);
PLUGIN_OTHER_HALF(umdev_stream_find);
PLUGIN_OTHER_HALF(umdev_stream_read);
PLUGIN_OTHER_HALF(umdev_stream_space);
PLUGIN_OTHER_HALF(umdev_stream_write);
PLUGIN_OTHER_HALF(umdev_uuid);
PLUGIN_OTHER_HALF(umdev_work_soon);
/* dma.h */
PLUGIN_OTHER_HALF(umdev_dma_message);
PLUGIN_OTHER_HALF(umdev_dma_read);
PLUGIN_OTHER_HALF(umdev_dma_write);
/* media.h */
PLUGIN_OTHER_HALF(umdev_media_find);
PLUGIN_OTHER_HALF(umdev_media_is_writable);
PLUGIN_OTHER_HALF(umdev_media_size);
PLUGIN_OTHER_HALF(umdev_media_submit);
/* queue.h */
PLUGIN_OTHER_HALF(umdev_doorbell_set);
PLUGIN_OTHER_HALF(umdev_queue_barrier);
PLUGIN_OTHER_HALF(umdev_queue_config);
PLUGIN_OTHER_HALF(umdev_queue_device);
PLUGIN_OTHER_HALF(umdev_queue_doorbell);
PLUGIN_OTHER_HALF(umdev_queue_event);
PLUGIN_OTHER_HALF(umdev_queue_index);
PLUGIN_OTHER_HALF(umdev_queue_irq);
PLUGIN_OTHER_HALF(umdev_queue_is_stopped);
PLUGIN_OTHER_HALF(umdev_queue_kick);
PLUGIN_OTHER_HALF(umdev_queue_peek);
PLUGIN_OTHER_HALF(umdev_queue_priv);
PLUGIN_OTHER_HALF(umdev_queue_read);
PLUGIN_OTHER_HALF(umdev_queue_start);
PLUGIN_OTHER_HALF(umdev_queue_state);
PLUGIN_OTHER_HALF(umdev_queue_stop);
PLUGIN_OTHER_HALF(umdev_queue_submit);
PLUGIN_OTHER_HALF(umdev_queue_write);
PLUGIN_OTHER_HALF(umdev_window_load16);
PLUGIN_OTHER_HALF(umdev_window_load32);
PLUGIN_OTHER_HALF(umdev_window_read);
PLUGIN_OTHER_HALF(umdev_window_store16);
PLUGIN_OTHER_HALF(umdev_window_store32);
PLUGIN_OTHER_HALF(umdev_window_write);
/* vfio.h */
PLUGIN_OTHER_HALF(umdev_bar_mem);
PLUGIN_OTHER_HALF(umdev_bar_size);
PLUGIN_OTHER_HALF(umdev_bus_master);
PLUGIN_OTHER_HALF(umdev_intx_set);
PLUGIN_OTHER_HALF(umdev_irq_raise);
PLUGIN_OTHER_HALF(umdev_msi_enabled);
/* virtqueue.h */
PLUGIN_OTHER_HALF(umdev_vq_arm);
PLUGIN_OTHER_HALF(umdev_vq_disarm);
PLUGIN_OTHER_HALF(umdev_vq_init);
PLUGIN_OTHER_HALF(umdev_vq_journal_size);
PLUGIN_OTHER_HALF(umdev_vq_pop);
PLUGIN_OTHER_HALF(umdev_vq_position);
PLUGIN_OTHER_HALF(umdev_vq_push);
PLUGIN_OTHER_HALF(umdev_vq_should_signal);
