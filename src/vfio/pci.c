// SPDX-License-Identifier: MIT
/*
 * PCI configuration space: 256 bytes with a mask of writable bits. The rest of the 4096 bytes of a
 * PCIe device is constant zero (a zero at 0x100 says that there is no extended capability).
 *
 * A write goes through the mask byte by byte, whatever its width, and then its consequences are
 * drawn by comparing before and after. Sections are those of PCI 3.0, PCI PM 1.2 and PCIe 3.0.
 */
#include <assert.h>
#include <linux/pci_regs.h>
#include <string.h>
#include "base/range.h"
#include "vfio/internal.h"

/* Capability sizes; offsets are handed out from 0x40 on in this order. */
#define CAP_START 0x40
#define CAP_PM_LEN 8
#define CAP_MSI_LEN 16
#define CAP_MSIX_LEN 12
#define CAP_PCIE_LEN 60

static uint32_t get(const uint8_t *config, unsigned at, unsigned len)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < len; i++)
		v |= (uint32_t)config[at + i] << (8 * i);
	return v;
}

static void put(uint8_t *config, unsigned at, unsigned len, uint32_t v)
{
	for (unsigned i = 0; i < len; i++)
		config[at + i] = v >> (8 * i);
}

/* Value and writable bits of one register. */
static void reg(struct pci_layout *p, unsigned at, unsigned len, uint32_t value, uint32_t mask)
{
	put(p->init, at, len, value);
	put(p->mask, at, len, mask);
}

/* Links a capability of `len` bytes behind the others and returns its offset. */
static uint8_t add_cap(struct pci_layout *p, unsigned *next, uint8_t *link, uint8_t id,
		       unsigned len)
{
	uint8_t at = *next;

	assert(at + len <= VFIO_CONFIG);
	p->init[at] = id;
	p->init[*link] = at;
	*link = at + 1;
	*next = (at + len + 3) & ~3u;
	return at;
}

static void init_bar(struct pci_layout *p, const struct umdev_bar *bar, unsigned i)
{
	uint64_t mask = ~(bar->size - 1);
	uint32_t type = 0;

	assert(!(bar->size & (bar->size - 1)) && bar->size >= (bar->flags & UMDEV_BAR_IO ? 4 : 16));
	assert(!((bar->mmap_offset | bar->mmap_size) % 4096) &&
	       range_fits(bar->mmap_offset, bar->mmap_size, bar->size));
	if (bar->flags & UMDEV_BAR_IO)
		type = PCI_BASE_ADDRESS_SPACE_IO;
	else if (bar->flags & UMDEV_BAR_64)
		type = PCI_BASE_ADDRESS_MEM_TYPE_64;
	if (bar->flags & UMDEV_BAR_PREF)
		type |= PCI_BASE_ADDRESS_MEM_PREFETCH;
	reg(p, PCI_BASE_ADDRESS_0 + 4 * i, 4, type, mask);
	if (bar->flags & UMDEV_BAR_64) {
		assert(i < 5);
		reg(p, PCI_BASE_ADDRESS_0 + 4 * (i + 1), 4, 0, mask >> 32);
	} else {
		assert(bar->size <= (uint64_t)1 << 31);
	}
}

static void init_msi(struct pci_layout *p, const struct umdev_pci *pci)
{
	unsigned at = p->msi, log2 = __builtin_ctz(pci->msi);

	assert(pci->msi <= 32 && !(pci->msi & (pci->msi - 1)));
	reg(p, at + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_64BIT | log2 << 1,
	    PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	reg(p, at + PCI_MSI_ADDRESS_LO, 4, 0, 0xfffffffc);
	reg(p, at + PCI_MSI_ADDRESS_HI, 4, 0, 0xffffffff);
	reg(p, at + PCI_MSI_DATA_64, 2, 0, 0xffff);
}

static void init_msix(struct pci_layout *p, const struct umdev_pci *pci)
{
	unsigned at = p->msix;

	uint64_t table = 16u * pci->msix, pba = 8u * ((pci->msix + 63) / 64);

	assert(pci->msix <= UMDEV_MSIX_MAX && pci->msix_bar < 6 && !(pci->msix_table % 8) &&
	       !(pci->msix_pba % 8) &&
	       !range_overlaps(pci->msix_table, table, pci->msix_pba, pba) &&
	       range_fits(pci->msix_table, table, pci->bar[pci->msix_bar].size) &&
	       range_fits(pci->msix_pba, pba, pci->bar[pci->msix_bar].size));
	reg(p, at + PCI_MSIX_FLAGS, 2, pci->msix - 1,
	    PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	reg(p, at + PCI_MSIX_TABLE, 4, pci->msix_table | pci->msix_bar, 0);
	reg(p, at + PCI_MSIX_PBA, 4, pci->msix_pba | pci->msix_bar, 0);
}

static void init_pcie(struct pci_layout *p)
{
	unsigned at = p->pcie;

	reg(p, at + PCI_EXP_FLAGS, 2, 2 /* version */ | PCI_EXP_TYPE_ENDPOINT << 4, 0);
	reg(p, at + PCI_EXP_DEVCAP, 4, PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR, 0);
	/* 512-byte read requests, relaxed ordering, no snoop: the defaults of 7.8.4. The FLR bit
	 * is acted upon, never stored. */
	reg(p, at + PCI_EXP_DEVCTL, 2,
	    PCI_EXP_DEVCTL_READRQ_512B | PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN,
	    0x78ff);
	reg(p, at + PCI_EXP_LNKCAP, 4, PCI_EXP_LNKCAP_SLS_2_5GB | 1 << 4 /* x1 */, 0);
	reg(p, at + PCI_EXP_LNKCTL, 2, 0,
	    PCI_EXP_LNKCTL_ASPMC | PCI_EXP_LNKCTL_RCB | PCI_EXP_LNKCTL_CCC | PCI_EXP_LNKCTL_ES);
	reg(p, at + PCI_EXP_LNKSTA, 2, PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1, 0);
	reg(p, at + PCI_EXP_LNKCTL2, 2, PCI_EXP_LNKCTL2_TLS_2_5GT, 0);
}

static void init_caps(struct pci_layout *p, const struct umdev_pci *pci)
{
	uint8_t link = PCI_CAPABILITY_LIST;
	unsigned next = CAP_START;

	p->pm = add_cap(p, &next, &link, PCI_CAP_ID_PM, CAP_PM_LEN);
	/* D0 and D3hot; leaving D3hot resets (No_Soft_Reset is 0). */
	reg(p, p->pm + PCI_PM_PMC, 2, 3 /* version */, 0);
	reg(p, p->pm + PCI_PM_CTRL, 2, 0, PCI_PM_CTRL_STATE_MASK);
	if (pci->msi) {
		p->msi = add_cap(p, &next, &link, PCI_CAP_ID_MSI, CAP_MSI_LEN);
		init_msi(p, pci);
	}
	if (pci->msix) {
		p->msix = add_cap(p, &next, &link, PCI_CAP_ID_MSIX, CAP_MSIX_LEN);
		init_msix(p, pci);
	}
	if (pci->express) {
		p->pcie = add_cap(p, &next, &link, PCI_CAP_ID_EXP, CAP_PCIE_LEN);
		init_pcie(p);
	}
}

void pci_layout_init(struct pci_layout *p, const struct umdev_pci *pci,
		     const struct umdev_bar bar[6])
{
	uint16_t command = PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
			   PCI_COMMAND_INTX_DISABLE;

	*p = (struct pci_layout){ .size = pci->express ? 4096 : VFIO_CONFIG };
	for (unsigned i = 0; i < 6; i++) {
		if (!bar[i].size)
			continue;
		assert(!(pci->intx && bar[i].flags & UMDEV_BAR_MMAP)); /* umdev/vfio.h */
		init_bar(p, &bar[i], i);
		command |= bar[i].flags & UMDEV_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	}
	reg(p, PCI_VENDOR_ID, 2, pci->vendor, 0);
	reg(p, PCI_DEVICE_ID, 2, pci->device, 0);
	reg(p, PCI_COMMAND, 2, 0, command);
	reg(p, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
	reg(p, PCI_REVISION_ID, 1, pci->revision, 0);
	reg(p, PCI_CLASS_PROG, 3, pci->class_code, 0);
	reg(p, PCI_CACHE_LINE_SIZE, 1, 0, 0xff);
	reg(p, PCI_LATENCY_TIMER, 1, 0, pci->express ? 0 : 0xff);
	reg(p, PCI_SUBSYSTEM_VENDOR_ID, 2, pci->subsystem_vendor, 0);
	reg(p, PCI_SUBSYSTEM_ID, 2, pci->subsystem, 0);
	reg(p, PCI_INTERRUPT_LINE, 1, 0, 0xff);
	reg(p, PCI_INTERRUPT_PIN, 1, pci->intx, 0);
	init_caps(p, pci);
}

bool pci_config_is_possible(const struct pci_layout *p, const uint8_t config[VFIO_CONFIG])
{
	for (unsigned i = 0; i < VFIO_CONFIG; i++) {
		if ((config[i] ^ p->init[i]) & ~p->mask[i])
			return false;
	}
	return true;
}

void pci_read(const struct vfio_server *s, uint64_t offset, uint32_t len, uint8_t *out)
{
	for (uint32_t i = 0; i < len; i++)
		out[i] = offset + i < VFIO_CONFIG ? s->half->config[offset + i] : 0;
	/* The level shows whether or not INTx is masked. */
	if (s->half->intx_asserted && offset <= PCI_STATUS && PCI_STATUS - offset < len)
		out[PCI_STATUS - offset] |= PCI_STATUS_INTERRUPT;
}

bool pci_is_bus_master(const struct vfio_server *s)
{
	return get(s->half->config, PCI_COMMAND, 2) & PCI_COMMAND_MASTER && !pci_is_asleep(s);
}

static bool is_asleep(const struct pci_layout *p, const uint8_t *config)
{
	return (config[p->pm + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK) == 3;
}

bool pci_is_asleep(const struct vfio_server *s)
{
	return is_asleep(&s->pci, s->half->config);
}

bool pci_intx_is_disabled(const struct vfio_server *s)
{
	return get(s->half->config, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE;
}

unsigned pci_msi_vectors(const struct vfio_server *s, unsigned *ret_slot)
{
	const struct pci_layout *p = &s->pci;
	const uint8_t *config = s->half->config;
	uint32_t flags;

	flags = p->msix ? get(config, p->msix + PCI_MSIX_FLAGS, 2) : 0;
	if (flags & PCI_MSIX_FLAGS_ENABLE) {
		*ret_slot = VFIO_SLOT_MSIX;
		return (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
	}
	flags = p->msi ? get(config, p->msi + PCI_MSI_FLAGS, 2) : 0;
	if (flags & PCI_MSI_FLAGS_ENABLE) {
		unsigned given = (flags & PCI_MSI_FLAGS_QSIZE) >> 4;
		unsigned asked = (flags & PCI_MSI_FLAGS_QMASK) >> 1;

		*ret_slot = VFIO_SLOT_MSI;
		return 1u << (given < asked ? given : asked);
	}
	return 0;
}

bool pci_msi_is_masked(const struct vfio_server *s)
{
	const uint16_t both = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;

	return s->pci.msix &&
	       (get(s->half->config, s->pci.msix + PCI_MSIX_FLAGS, 2) & both) == both;
}

/* A state that we do not have is not entered (PM 1.2, 3.2.4). */
static void refuse_d1_d2(const struct pci_layout *p, uint8_t *config, uint8_t before)
{
	uint8_t *now = &config[p->pm + PCI_PM_CTRL];
	unsigned state = *now & PCI_PM_CTRL_STATE_MASK;

	if (state == 1 || state == 2)
		*now = (*now & ~PCI_PM_CTRL_STATE_MASK) | (before & PCI_PM_CTRL_STATE_MASK);
}

/* The bytes themselves. True: the function is reset. */
static bool write_bytes(const struct pci_layout *p, uint8_t *config, uint64_t offset, uint32_t len,
			const uint8_t *in)
{
	unsigned flr = p->pcie ? p->pcie + PCI_EXP_DEVCTL + 1 : VFIO_CONFIG;
	uint8_t pm_before = config[p->pm + PCI_PM_CTRL];
	bool asleep = is_asleep(p, config);

	for (uint64_t at = offset; at < VFIO_CONFIG && at - offset < len; at++)
		config[at] = (config[at] & ~p->mask[at]) | (in[at - offset] & p->mask[at]);
	refuse_d1_d2(p, config, pm_before);
	if (asleep && !is_asleep(p, config))
		return true;
	return flr >= offset && flr - offset < len && flr < VFIO_CONFIG &&
	       in[flr - offset] & PCI_EXP_DEVCTL_BCR_FLR >> 8;
}

void pci_write(struct vfio_server *s, uint64_t offset, uint32_t len, const uint8_t *in)
{
	unsigned slot_before, slot, vectors_before = pci_msi_vectors(s, &slot_before);

	s->config_written = true;
	if (write_bytes(&s->pci, s->half->config, offset, len, in)) {
		vfio_reset_and_wait(s, UMDEV_RESET_FUNCTION);
		return;
	}
	/* Turning messages off forgets those that are pending. */
	if (vectors_before && (!pci_msi_vectors(s, &slot) || slot != slot_before))
		memset(s->half->pending, 0, sizeof(s->half->pending));
	irq_update(s);
}

void pci_imagine_write(const struct pci_layout *p, uint64_t offset, uint32_t len, const uint8_t *in,
		       uint8_t config[VFIO_CONFIG])
{
	if (write_bytes(p, config, offset, len, in))
		memcpy(config, p->init, VFIO_CONFIG);
}

bool pci_bar_is_decoded(const struct pci_layout *p, const uint8_t config[VFIO_CONFIG], unsigned bar,
			uint64_t *ret_address)
{
	unsigned at = PCI_BASE_ADDRESS_0 + 4 * bar;
	uint32_t low = get(config, at, 4);

	if (!(get(config, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY) || is_asleep(p, config))
		return false;
	*ret_address = low & PCI_BASE_ADDRESS_MEM_MASK;
	if (low & PCI_BASE_ADDRESS_MEM_TYPE_64)
		*ret_address |= (uint64_t)get(config, at + 4, 4) << 32;
	return true;
}
