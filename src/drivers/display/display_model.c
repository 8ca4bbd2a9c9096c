// SPDX-License-Identifier: MIT
#include "display_model.h"

#define ID_FIRST 0xb0c0
#define ID_LAST 0xb0c5
#define ENABLE_KEPT (DISPI_ENABLED | DISPI_GETCAPS | DISPI_8BIT_DAC | DISPI_LFB | DISPI_NOCLEAR)
#define BPP 32

#define VGA_ATTRIBUTE (DISPLAY_VGA + 0x00) /* port 3c0 */
#define VGA_STATUS (DISPLAY_VGA + 0x1a)    /* port 3da */
#define ATTRIBUTE_SHOWN 0x20

#define QEXT_SIZE (DISPLAY_QEXT + 0)
#define QEXT_ORDER (DISPLAY_QEXT + 4)
#define QEXT_LEN 8
#define ORDER_LITTLE 0x1e1e1e1e
#define ORDER_BIG 0xbebebebe

void display_reset(struct display_model *m)
{
	*m = (struct display_model){ .is_shown = 1 };
	m->dispi[DISPI_ID] = ID_LAST;
	m->dispi[DISPI_BPP] = BPP;
}

static uint16_t dispi_read(const struct display_model *m, uint64_t vram, unsigned index)
{
	bool caps = m->dispi[DISPI_ENABLE] & DISPI_GETCAPS;

	if (index >= DISPI_REGISTERS)
		return 0;
	if (index == DISPI_MEMORY)
		return (uint16_t)(vram >> 16);
	if (caps && (index == DISPI_XRES || index == DISPI_YRES))
		return DISPLAY_MAX;
	return m->dispi[index];
}

static void dispi_write(struct display_model *m, unsigned index, uint16_t value)
{
	switch (index) {
	case DISPI_ID:
		if (value >= ID_FIRST && value <= ID_LAST)
			m->dispi[index] = value;
		break;
	case DISPI_BPP:
		m->refused_bpp = value == BPP ? 0 : (uint8_t)value; /* reads back as 32 */
		break;
	case DISPI_ENABLE:
		m->dispi[index] = value & ENABLE_KEPT;
		break;
	case DISPI_XRES:
	case DISPI_YRES:
	case DISPI_VIRT_WIDTH:
	case DISPI_VIRT_HEIGHT:
	case DISPI_X_OFFSET:
	case DISPI_Y_OFFSET:
		m->dispi[index] = value;
		break;
	default: /* the memory is what it is, and there is one bank */
		break;
	}
}

static uint8_t byte_of(uint32_t value, uint64_t at)
{
	return (uint8_t)(value >> 8 * (at & 3));
}

static uint8_t read_byte(const struct display_model *m, uint64_t vram, const uint8_t *edid,
			 uint64_t at)
{
	if (at < DISPLAY_EDID_LEN)
		return edid[at];
	if (at >= DISPLAY_DISPI && at < DISPLAY_DISPI + 2 * DISPI_REGISTERS)
		return (uint8_t)(dispi_read(m, vram, (unsigned)(at - DISPLAY_DISPI) / 2) >>
				 8 * (at & 1));
	if (at >= QEXT_SIZE && at < QEXT_SIZE + 4)
		return byte_of(QEXT_LEN, at);
	if (at >= QEXT_ORDER && at < QEXT_ORDER + 4)
		return byte_of(m->big_endian ? ORDER_BIG : ORDER_LITTLE, at);
	return 0;
}

uint64_t display_read(const struct display_model *m, uint64_t vram, const uint8_t *edid,
		      uint64_t offset, unsigned len)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < len; i++)
		value |= (uint64_t)read_byte(m, vram, edid, offset + i) << 8 * i;
	return value;
}

void display_read_effect(struct display_model *m, uint64_t offset, unsigned len)
{
	if (offset <= VGA_STATUS && VGA_STATUS - offset < len)
		m->is_data = 0;
}

static void write_attribute(struct display_model *m, uint8_t value)
{
	if (!m->is_data)
		m->is_shown = !!(value & ATTRIBUTE_SHOWN);
	m->is_data = !m->is_data;
}

static void write_order(struct display_model *m, uint32_t value)
{
	if (value == ORDER_BIG)
		m->big_endian = 1;
	else if (value == ORDER_LITTLE)
		m->big_endian = 0;
}

void display_write(struct display_model *m, uint64_t offset, unsigned len, uint64_t value)
{
	if (offset == VGA_ATTRIBUTE)
		write_attribute(m, (uint8_t)value);
	else if (offset == QEXT_ORDER && len == 4)
		write_order(m, (uint32_t)value);
	/* The registers have 16 bits: a wide write is several, a byte none. */
	for (unsigned i = 0; i + 2 <= len; i += 2) {
		if (offset + i >= DISPLAY_DISPI)
			dispi_write(m, (unsigned)(offset + i - DISPLAY_DISPI) / 2,
				    (uint16_t)(value >> 8 * i));
	}
}

void display_mode(const struct display_model *m, uint64_t vram, struct display_mode *ret)
{
	uint32_t width = m->dispi[DISPI_XRES], height = m->dispi[DISPI_YRES];
	uint32_t line = m->dispi[DISPI_VIRT_WIDTH] > width ? m->dispi[DISPI_VIRT_WIDTH] : width;
	uint64_t offset, end;

	*ret = (struct display_mode){ 0 };
	if (!(m->dispi[DISPI_ENABLE] & DISPI_ENABLED) || !m->is_shown || width < DISPLAY_MIN ||
	    height < DISPLAY_MIN || width > DISPLAY_MAX || height > DISPLAY_MAX)
		return;
	offset = (uint64_t)m->dispi[DISPI_Y_OFFSET] * line * 4 + m->dispi[DISPI_X_OFFSET] * 4ull;
	end = offset + (uint64_t)(height - 1) * line * 4 + width * 4ull;
	if (end > vram)
		return;
	*ret = (struct display_mode){ .width = width,
				      .height = height,
				      .stride = line * 4,
				      .big_endian = m->big_endian,
				      .offset = offset };
}
