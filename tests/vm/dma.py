#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The test device behind the real client (QEMU under -accel qtest): memory BARs, one of them mapped
by QEMU, MSI-X, and DMA in both directions, through mapped memory and by messages."""
from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator

from lib import qemu, t
from lib.daemon import Daemon
from lib.qtest import Function, Qtest

REGS, MEM, MSIX = 0xe0000000, 0xe0100000, 0xe0200000  # where BAR 0, 2 and 4 go
MAGIC, SCRATCH, RESETS, RAISE = 0x00, 0x08, 0x30, 0x44
IOVA, OFFSET, LEN, COMMAND, STATUS, DONE = 0x80, 0x88, 0x8c, 0x90, 0x94, 0x98
FROM_GUEST, TO_GUEST, ASK, TELL = 1, 2, 3, 4
RAM = 0x300000
MESSAGE = 0x200000  # where MSI-X writes go: memory, so that they can be seen


@contextlib.contextmanager
def device() -> Iterator[tuple[Qtest, Function]]:
    with Daemon() as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="bench0", driver="test", settings=[])
        u = d.create("bench0", "test-dma")
        with Qtest([qemu.vfio_user(d.socket(u), addr="0x3")], d.dir) as q:
            card = q.pci(3)
            for bar, address in ((0, REGS), (2, MEM), (4, MSIX)):
                card.place(bar, address)
            card.enable()
            yield q, card
            t.check(q.slowest < 1, f"an access took {q.slowest:.2f} s")
            t.equal(d.state_of(u), "connected", "state")


def dma(q: Qtest, command: int, iova: int, offset: int, length: int) -> int:
    """Runs one command of the engine; its status (0 or an errno)."""
    before = q.readl(REGS + DONE)
    q.writel(REGS + IOVA, iova)
    q.writel(REGS + IOVA + 4, 0)
    q.writel(REGS + OFFSET, offset)
    q.writel(REGS + LEN, length)
    q.writel(REGS + COMMAND, command)
    t.wait_for(lambda: q.readl(REGS + DONE) == before + 1, 5, "end of the DMA command")
    return q.readl(REGS + STATUS)


@t.case
def registers_and_mapped_memory_answer() -> None:
    with device() as (q, card):
        t.equal(card.config(0), 0x7e581234, "vendor and device")
        t.equal(q.readl(REGS + MAGIC), 0x74736574, "magic")
        q.writel(REGS + SCRATCH, 0xcafe)
        t.equal(q.readl(REGS + SCRATCH), 0xcafe, "scratch register")
        q.write(MEM + 0x100, b"kept by the device")
        t.equal(q.read(MEM + 0x100, 18), b"kept by the device", "memory of BAR 2")


@t.case
def dma_moves_bytes_both_ways() -> None:
    with device() as (q, _):
        for come, go in ((FROM_GUEST, TO_GUEST), (ASK, TELL)):
            data = os.urandom(4096)
            q.write(RAM, data)
            t.equal(dma(q, come, RAM, 0x1000, 4096), 0, f"status of command {come}")
            t.equal(q.read(MEM + 0x1000, 4096), data, "memory of the device")
            t.equal(dma(q, go, RAM + 0x2345, 0x1000, 4096), 0, f"status of command {go}")
            t.equal(q.read(RAM + 0x2345, 4096), data, "memory of the guest")


@t.case
def dma_obeys_the_bus_master_bit_and_the_map() -> None:
    with device() as (q, card):
        t.equal(dma(q, FROM_GUEST, 0xd0000000, 0, 64), errno.EFAULT, "status, nothing being there")
        card.set_config(4, 2, 2)  # memory, but no bus master
        q.write(RAM, b"unchanged")
        t.check(dma(q, TO_GUEST, RAM, 0, 9) != 0, "DMA without the right to master the bus")
        t.equal(q.read(RAM, 9), b"unchanged", "memory of the guest")
        card.set_config(4, 6, 2)
        t.equal(dma(q, FROM_GUEST, RAM, 0, 9), 0, "status with the right")


@t.case
def each_msix_vector_arrives_where_its_entry_says() -> None:
    with device() as (q, card):
        at = card.capability(0x11)
        t.check(at, "no MSI-X capability")
        t.equal(card.config(at + 2, 2) & 0x7ff, 15, "vectors less one")
        table = MSIX + (card.config(at + 4) & ~7)
        for vector in range(16):
            q.write(table + 16 * vector, struct.pack("<IIII", MESSAGE + 4 * vector, 0,
                                                     0x1000 + vector, 0))
        card.set_config(at + 2, 0x8000 | card.config(at + 2, 2), 2)
        for vector in (0, 7, 15):
            q.writel(REGS + RAISE, vector)
            t.wait_for(lambda v=vector: q.readl(MESSAGE + 4 * v) == 0x1000 + v, 5,
                       f"message of vector {vector}")
        t.equal(q.readl(MESSAGE + 4), 0, "message of a vector that was not raised")


@t.case
def a_masked_vector_waits() -> None:
    with device() as (q, card):
        at = card.capability(0x11)
        table = MSIX + (card.config(at + 4) & ~7)
        q.write(table, struct.pack("<IIII", MESSAGE, 0, 0x77, 1))
        card.set_config(at + 2, 0x8000 | card.config(at + 2, 2), 2)
        q.writel(REGS + RAISE, 0)
        t.equal((q.readl(REGS + MAGIC), q.readl(MESSAGE)), (0x74736574, 0), "a masked message")
        q.writel(table + 12, 0)
        t.wait_for(lambda: q.readl(MESSAGE) == 0x77, 5, "the message when unmasked")


@t.case
def a_function_level_reset_is_one() -> None:
    with device() as (q, card):
        at = card.capability(0x10)
        if not at or not card.config(at + 4) & 1 << 28:
            t.check(q.readl(REGS + RESETS) >= 1, "no reset at the first open")
            return
        before = q.readl(REGS + RESETS)
        q.writel(REGS + SCRATCH, 1)
        card.set_config(at + 8, card.config(at + 8, 2) | 0x8000, 2)
        card.place(0, REGS)
        card.enable()
        t.equal((q.readl(REGS + RESETS), q.readl(REGS + SCRATCH)), (before + 1, 0),
                "resets, and the scratch register after one")


t.main()
