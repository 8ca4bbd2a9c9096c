/* SPDX-License-Identifier: MIT */
/*
 * A program for the guest: a PCI device's BARs and DMA engine without a kernel driver.
 *
 *   pci read DEVICE BAR OFFSET          prints the 32 bits there
 *   pci write DEVICE BAR OFFSET VALUE
 *   pci dma DEVICE                      examples/dma-engine: a page into the device and out again
 *   pci peer DEVICE ADDRESS             its memory to a peer's, which is at ADDRESS
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../../examples/dma-engine/dma_engine.h"

#define PAGE 4096
#define COMMAND_REGISTER 4
#define MEMORY_AND_MASTER 6

static const char *device;

static int open_file(const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", device, name);
	fd = open(path, flags);
	if (fd < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

static volatile uint8_t *map_bar(int bar)
{
	char name[16];
	struct stat st;
	void *p;
	int fd;

	snprintf(name, sizeof(name), "resource%d", bar);
	fd = open_file(name, O_RDWR);
	p = MAP_FAILED;
	if (fstat(fd, &st) == 0)
		p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror(name);
		exit(1);
	}
	close(fd);
	return p;
}

static void set32(volatile uint8_t *bar, unsigned at, uint32_t value)
{
	*(volatile uint32_t *)(bar + at) = value;
}

static uint32_t get32(volatile uint8_t *bar, unsigned at)
{
	return *(volatile uint32_t *)(bar + at);
}

static void enable(void)
{
	uint16_t command = MEMORY_AND_MASTER;
	int fd = open_file("config", O_RDWR);

	if (pwrite(fd, &command, sizeof(command), COMMAND_REGISTER) != sizeof(command))
		exit(1);
	close(fd);
}

/* Where a locked page of ours is for the device: there is no IOMMU. */
static uint64_t bus_address(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	if (pread(fd, &entry, 8, (off_t)((uintptr_t)page / PAGE * 8)) != 8 || !(entry >> 63)) {
		perror("pagemap");
		exit(1);
	}
	close(fd);
	return (entry & ((1ULL << 55) - 1)) * PAGE;
}

/* The engine's registers are accessed whole, and a 64-bit store of the guest arrives as one. */
static uint32_t run(volatile uint8_t *regs, uint32_t command, uint64_t source, uint64_t target)
{
	*(volatile uint64_t *)(regs + ENGINE_SOURCE) = source;
	*(volatile uint64_t *)(regs + ENGINE_TARGET) = target;
	set32(regs, ENGINE_LENGTH, PAGE);
	set32(regs, ENGINE_COMMAND, command);
	while (get32(regs, ENGINE_STATUS) == ENGINE_BUSY)
		usleep(1000);
	return get32(regs, ENGINE_STATUS);
}

static int dma(void)
{
	volatile uint8_t *regs = map_bar(0), *memory = map_bar(2);
	uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
	uint32_t in, out;

	for (unsigned i = 0; i < PAGE; i++)
		pages[i] = (uint8_t)(i * 7 + (i >> 8));
	pages[PAGE] = 1; /* a page of its own, not the common zero page */
	in = run(regs, ENGINE_LOAD, bus_address(pages), 2 * PAGE);
	printf("load %u, memory %s\n", in,
	       memcmp((const void *)(memory + 2 * PAGE), pages, PAGE) ? "differs" : "equal");
	memory[2 * PAGE] ^= 0xff;
	out = run(regs, ENGINE_STORE, 2 * PAGE, bus_address(pages + PAGE));
	pages[0] ^= 0xff;
	printf("store %u, memory %s\n", out,
	       memcmp(pages, pages + PAGE, PAGE) ? "differs" : "equal");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	device = argc > 2 ? argv[2] : "";
	if (*what)
		enable();
	if (!strcmp(what, "dma"))
		return dma();
	if (!strcmp(what, "peer") && argc == 4) {
		printf("%u\n", run(map_bar(0), ENGINE_STORE, 0, strtoull(argv[3], NULL, 0)));
		return 0;
	}
	if (!strcmp(what, "read") && argc == 5) {
		printf("%#x\n", get32(map_bar(atoi(argv[3])), (unsigned)strtoul(argv[4], NULL, 0)));
		return 0;
	}
	if (!strcmp(what, "write") && argc == 6) {
		set32(map_bar(atoi(argv[3])), (unsigned)strtoul(argv[4], NULL, 0),
		      (uint32_t)strtoul(argv[5], NULL, 0));
		return 0;
	}
	return 2;
}
