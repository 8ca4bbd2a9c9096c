#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Peers in one virtual machine: QEMU under -accel qtest maps what its devices decode, tells the others
without a descriptor, and devices of one group reach each other there without asking it."""
from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from lib import qemu, t
from lib.daemon import Daemon
from lib.qtest import Function, Qtest

GROUP = "peer_to_peer_resource_uuid=11111111-2222-3333-4444-555555555555"
OTHER_GROUP = "peer_to_peer_resource_uuid=11111111-2222-3333-4444-666666666666"
# test-dma (src/drivers/test/test.h): BAR 0 registers, BAR 2 (64 bits wide) 64 KiB of memory.
IOVA, OFFSET, LEN, COMMAND, STATUS = 0x80, 0x88, 0x8c, 0x90, 0x94
FROM_GUEST, TO_GUEST, TELL, BUSY = 1, 2, 4, 1
REGS, MEMORY = 0xfe00_0000, 0xe000_0000  # of the first device; the others follow
STEP = 0x10_0000
BAR0, BAR2 = 0, 2


class Card:
    def __init__(self, q: Qtest, slot: int, number: int) -> None:
        self.q = q
        self.function: Function = q.pci(slot)
        self.regs = REGS + number * 0x1000
        self.memory = MEMORY + number * STEP
        self.place()
        self.function.enable()

    def place(self) -> None:
        self.function.place(BAR0, self.regs)
        self.function.place(BAR2, self.memory)
        self.function.place(BAR2 + 1, 0)

    def move(self, what: int, address: int, offset: int, length: int) -> int:
        """As its guest would have it done: 0 or the errno."""
        self.q.writel(self.regs + IOVA, address)
        self.q.writel(self.regs + IOVA + 4, 0)
        self.q.writel(self.regs + OFFSET, offset)
        self.q.writel(self.regs + LEN, length)
        self.q.writel(self.regs + COMMAND, what)
        status = self.q.readl(self.regs + STATUS)
        return (1 << 32) - status if status >> 31 else status


@contextlib.contextmanager
def machine(*groups: str) -> Iterator[list[Card]]:
    with Daemon() as d:
        d.umdev("parent", "add", "lab", "driver=test")
        devices = [d.create("lab", "test-dma", g) for g in groups]
        arguments = [qemu.vfio_user(d.socket(u), addr=f"{3 + i:#x}")
                     for i, u in enumerate(devices)]
        with Qtest(arguments, d.dir) as q:
            yield [Card(q, 3 + i, i) for i in range(len(devices))]
            t.check(q.slowest < 1, f"an access took {q.slowest:.2f} s")


def reaches(a: Card, b: Card, offset: int = 0x40) -> int:
    """B writes 8 bytes into A's memory at A's address: 0 if they are there, else the errno."""
    data = os.urandom(8)
    a.q.write(b.memory, data)
    a.q.write(a.memory + offset, bytes(8))
    r = b.move(TO_GUEST, a.memory + offset, 0, 8)
    t.equal(a.q.read(a.memory + offset, 8) == data, r == 0, "the bytes are there")
    return r


@t.case
def devices_of_a_group_reach_each_other_in_a_machine() -> None:
    with machine(GROUP, GROUP) as (a, b):
        for one, other in ((a, b), (b, a)):
            t.equal(reaches(one, other), 0, "memory of the other")
        a.q.write(a.memory + 0xfff8, b"the last")
        t.equal(b.move(FROM_GUEST, a.memory + 0xfff8, 0x100, 8), 0, "a read")
        t.equal(b.q.read(b.memory + 0x100, 8), b"the last", "what was read")


@t.case
def devices_of_two_groups_have_no_path_of_ours() -> None:
    with machine(GROUP, OTHER_GROUP) as (a, b):
        t.equal(reaches(a, b), errno.EREMOTE, "memory of the other")
        # QEMU routes a message to the other device: what a VMM does inside of its VM is its own.
        a.q.write(b.memory, b"by QEMU!")
        b.move(TELL, a.memory + 0x80, 0, 8)
        t.wait_for(lambda: b.q.readl(b.regs + STATUS) != BUSY, 5, "the answer to the message")
        t.equal(a.q.read(a.memory + 0x80, 8), b"by QEMU!", "what QEMU did with the message")


@t.case
def a_bar_that_moves_is_reached_where_it_is() -> None:
    with machine(GROUP, GROUP) as (a, b):
        t.equal(reaches(a, b), 0, "before")
        was = a.memory
        for address in (MEMORY + 8 * STEP, MEMORY + 9 * STEP, was):
            before, a.memory = a.memory, address
            a.place()
            t.equal(reaches(a, b), 0, f"at {address:#x}")
            t.equal(b.move(FROM_GUEST, before, 0, 8), errno.EFAULT, f"no more at {before:#x}")


@t.case
def a_bar_that_is_switched_off_is_not_reached() -> None:
    with machine(GROUP, GROUP) as (a, b):
        t.equal(reaches(a, b), 0, "before")
        for _ in range(3):
            a.function.set_config(0x04, 4, 2)
            t.equal(b.move(FROM_GUEST, a.memory, 0, 8), errno.EFAULT, "decoding off")
            a.function.enable()
            t.equal(reaches(a, b), 0, "decoding on")


@t.case
def a_reset_of_the_machine_takes_the_bars_away() -> None:
    with machine(GROUP, GROUP) as (a, b):
        t.equal(reaches(a, b), 0, "before")
        a.q.qmp("system_reset")
        a.q.wait_event("RESET")
        b.place()
        b.function.enable()
        t.equal(b.move(FROM_GUEST, a.memory, 0, 8), errno.EFAULT, "after the reset")
        a.place()
        a.function.enable()
        t.equal(reaches(a, b), 0, "when firmware has placed it again")


t.main()
