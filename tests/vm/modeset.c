// SPDX-License-Identifier: MIT
/*
 * modeset CARD WIDTH HEIGHT: shows a picture in that size on the first connector of a DRM card, and
 * stays. For guests of the tests; no library but the C library.
 */
#include <drm.h>
#include <drm_mode.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int card;

static void call(unsigned long request, void *arg, const char *what)
{
	if (ioctl(card, request, arg) < 0)
		err(1, "%s", what);
}

static uint32_t first_connector(uint32_t *ret_crtc)
{
	uint32_t crtcs[8] = { 0 }, connectors[8] = { 0 }, encoders[8];
	struct drm_mode_card_res res = {
		.crtc_id_ptr = (uintptr_t)crtcs,
		.connector_id_ptr = (uintptr_t)connectors,
		.encoder_id_ptr = (uintptr_t)encoders,
		.count_crtcs = 8,
		.count_connectors = 8,
		.count_encoders = 8,
	};

	call(DRM_IOCTL_MODE_GETRESOURCES, &res, "resources");
	*ret_crtc = crtcs[0];
	return connectors[0];
}

static struct drm_mode_modeinfo mode_of(uint32_t connector, unsigned width, unsigned height)
{
	static struct drm_mode_modeinfo modes[128];
	struct drm_mode_get_connector get = { .connector_id = connector };

	call(DRM_IOCTL_MODE_GETCONNECTOR, &get, "connector"); /* probes */
	get = (struct drm_mode_get_connector){ .connector_id = connector,
					       .modes_ptr = (uintptr_t)modes,
					       .count_modes = 128 };
	call(DRM_IOCTL_MODE_GETCONNECTOR, &get, "modes");
	for (unsigned i = 0; i < get.count_modes && i < 128; i++) {
		printf("mode %ux%u\n", modes[i].hdisplay, modes[i].vdisplay);
		if (modes[i].hdisplay == width && modes[i].vdisplay == height)
			return modes[i];
	}
	errx(1, "no mode %ux%u", width, height);
}

/* A picture of that size, pixel n of it n * 2654435761. Its frame buffer. */
static uint32_t draw(unsigned width, unsigned height)
{
	struct drm_mode_create_dumb dumb = { .width = width, .height = height, .bpp = 32 };
	struct drm_mode_fb_cmd fb = { .width = width, .height = height, .bpp = 32, .depth = 24 };
	struct drm_mode_map_dumb map = { 0 };
	uint32_t *p, n = 0;

	call(DRM_IOCTL_MODE_CREATE_DUMB, &dumb, "buffer");
	map.handle = fb.handle = dumb.handle;
	fb.pitch = dumb.pitch;
	call(DRM_IOCTL_MODE_MAP_DUMB, &map, "map");
	p = mmap(NULL, dumb.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, (off_t)map.offset);
	if (p == MAP_FAILED)
		err(1, "mmap");
	for (unsigned y = 0; y < height; y++)
		for (unsigned x = 0; x < width; x++)
			p[y * (dumb.pitch / 4) + x] = n++ * 2654435761u & 0xffffff;
	call(DRM_IOCTL_MODE_ADDFB, &fb, "frame buffer");
	return fb.fb_id;
}

int main(int argc, char **argv)
{
	struct drm_mode_crtc crtc = { .count_connectors = 1, .mode_valid = 1 };
	uint32_t connector;

	if (argc != 4)
		errx(2, "CARD WIDTH HEIGHT");
	card = open(argv[1], O_RDWR);
	if (card < 0)
		err(1, "%s", argv[1]);
	connector = first_connector(&crtc.crtc_id);
	crtc.mode = mode_of(connector, (unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
	crtc.fb_id = draw(crtc.mode.hdisplay, crtc.mode.vdisplay);
	crtc.set_connectors_ptr = (uintptr_t)&connector;
	call(DRM_IOCTL_MODE_SETCRTC, &crtc, "mode");
	puts("shown");
	fflush(stdout);
	for (;;)
		pause();
}
