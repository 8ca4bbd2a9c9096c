#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a well-behaved vfio-user client gets: all commands, PCI rules, interrupts, bytes."""
from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, worker_of
from lib.vfio_user import Client, Ram

RBR = THR = 0
IER, IIR, FCR, MCR, LSR, SCR = 1, 2, 2, 4, 5, 7
THR_EMPTY, RTS, OUT2 = 2, 2, 8
PAGE = 4096


@contextlib.contextmanager
def session(kind: str = "mtty-2") -> Iterator[tuple[Client, Path]]:
    """A connected client and the device's directory."""
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", kind)
        with Client(d.socket(device)) as c:
            yield c, d.device_dir(device)


def put(c: Client, register: int, value: int, port: int = 0) -> None:
    c.write(port, register, bytes([value]))


def get(c: Client, register: int, port: int = 0) -> int:
    return c.read(port, register, 1)[0]


@t.case
def the_device_says_what_it_is() -> None:
    with session() as (c, _):
        flags, regions, irqs = c.info()
        t.equal(flags & 3, 3, "flags: can be reset, PCI")
        t.equal((regions, irqs), (9, 5), "regions and kinds of interrupts")
        sizes = [c.region_info(i).size for i in range(9)]
        t.equal(sizes[:7], [8, 8, 0, 0, 0, 0, 0], "sizes of BARs and ROM")
        t.check(sizes[7] in (256, 4096), f"size of configuration space: {sizes[7]}")
        for i in (0, 1, 7):
            r = c.region_info(i)
            t.equal((r.flags & 3, r.fds), (3, []), f"rights and descriptors of region {i}")
        t.equal(c.irq_info(vu.INTX), (vu_irq(eventfd=True, mask=True, automask=True), 1), "INTx")
        t.equal(c.irq_info(vu.MSI)[1], 1, "vectors of MSI")
        t.equal(c.irq_info(vu.MSIX)[1], 0, "vectors of MSI-X")
        t.equal(c.irq_info(vu.ERR)[1], 0, "ERR, which QEMU takes as the end of the machine")


def vu_irq(eventfd: bool, mask: bool, automask: bool) -> int:
    return eventfd * 1 | mask * 2 | automask * 4


@t.case
def a_short_reply_is_given_to_who_asks_for_one() -> None:
    with session() as (c, _):
        m = c.call(vu.GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 7, 0, 0, 0))
        t.equal(len(m.payload), 32, "payload of a region without capabilities")
        # SPDK sends and accepts 4064 bytes.
        m = c.call(vu.GET_REGION_INFO,
                   struct.pack("<IIIIQQ", 4064, 0, 0, 0, 0, 0) + b"\0" * 4032)
        t.equal(struct.unpack_from("<I", m.payload)[0], len(m.payload), "argsz of the reply")


@t.case
def configuration_space_obeys_the_rules_of_pci() -> None:
    with session() as (c, _):
        t.equal(c.config(0), 0x32534348, "vendor and device")
        c.set_config(0, 4, 0xffffffff)
        t.equal(c.config(0), 0x32534348, "vendor and device are read-only")
        c.set_config(0x10, 4, 0xffffffff)
        t.equal(c.config(0x10), 0xfffffff9, "BAR0 after all ones: 8 ports")
        c.set_config(0x10, 4, 0xc123)
        t.equal(c.config(0x10), 0xc121, "BAR0 after an address")
        c.set_config(0x30, 4, 0xffffffff)
        t.equal(c.config(0x30), 0, "no ROM")
        c.set_config(4, 2, 0xffff)
        t.equal(c.config(4, 2) & 7, 5, "command register: ports, bus master, no memory")
        t.equal(c.config(6, 2) & 0x10, 0x10, "status: has capabilities")
        for wanted in (0x01, 0x05):
            t.check(c.capability(wanted), f"no capability {wanted:#x}")
        c.set_config(0x3c, 1, 0x0b)
        t.equal(c.config(0x3c, 1), 0x0b, "interrupt line is memory")


@t.case
def posted_writes_are_done_before_a_read() -> None:
    with session() as (c, _):
        for i in range(200):
            c.write(0, SCR, bytes([i]), no_reply=True)
            if i % 10 == 0:
                t.equal(get(c, SCR), i, "scratch register")


@t.case
def many_writes_come_in_one_message() -> None:
    with session() as (c, _):
        c.write_multi([(0, SCR, bytes([i])) for i in range(199)] + [(1, SCR, b"\x77")])
        t.equal((get(c, SCR), get(c, SCR, 1)), (198, 0x77), "scratch registers")


@t.case
def no_ioeventfds_are_offered() -> None:
    with session() as (c, _):
        m = c.call(vu.GET_REGION_IO_FDS, struct.pack("<IIII", 4096, 0, 0, 0))
        t.equal(struct.unpack("<IIII", m.payload)[3], 0, "number of descriptors")


@t.case
def intx_is_masked_when_it_fires_and_fires_again_while_asserted() -> None:
    with session() as (c, _):
        line = c.arm(vu.INTX)
        put(c, MCR, OUT2)
        put(c, IER, THR_EMPTY)
        t.equal(line.wait(), 1, "signals")
        put(c, IER, 0)
        put(c, IER, THR_EMPTY)
        t.equal(line.wait(0.05), 0, "signals while masked")
        c.set_irqs(vu.INTX, vu.IRQ_NONE | vu.IRQ_UNMASK)
        t.equal(line.wait(), 1, "signals after the unmask, the cause being there")
        t.equal(get(c, IIR) & 0xf, THR_EMPTY, "cause")
        c.set_irqs(vu.INTX, vu.IRQ_NONE | vu.IRQ_UNMASK)
        t.equal(line.wait(0.05), 0, "signals when the cause was read")


@t.case
def a_released_vector_stays_silent() -> None:
    with session() as (c, _):
        line = c.arm(vu.INTX)
        c.set_irqs(vu.INTX, vu.IRQ_NONE | vu.IRQ_TRIGGER, 0, 0)
        put(c, MCR, OUT2)
        put(c, IER, THR_EMPTY)
        t.equal(line.wait(0.05), 0, "signals of a released line")
        line = c.arm(vu.INTX)
        t.equal(line.wait(), 1, "signals of a line armed while asserted")


@t.case
def msi_takes_the_place_of_intx() -> None:
    with session() as (c, _):
        at = c.capability(0x05)
        line = c.arm(vu.INTX)
        c.set_irqs(vu.INTX, vu.IRQ_NONE | vu.IRQ_TRIGGER, 0, 0)
        vector = c.arm(vu.MSI)
        c.set_config(at + 2, 2, c.config(at + 2, 2) | 1)
        put(c, MCR, OUT2)
        put(c, IER, THR_EMPTY)
        t.equal(vector.wait(), 1, "signals of MSI")
        t.equal(line.wait(0), 0, "signals of INTx")


@t.case
def reset_forgets_everything_but_the_connection() -> None:
    with session() as (c, _):
        put(c, SCR, 0x55)
        put(c, IER, 5)
        c.set_config(4, 2, 7)
        c.reset()
        t.equal(get(c, IER), 0, "interrupt enable register")
        t.equal(c.config(4, 2), 0, "command register")


@t.case
def a_new_client_meets_a_fresh_device() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-1")
        for _ in range(3):
            with Client(d.socket(device)) as c:
                t.equal(get(c, IER), 0, "interrupt enable register")
                t.equal(c.config(4, 2), 0, "command register")
                put(c, IER, 5)
                c.set_config(4, 2, 7)


@t.case
def maps_are_exact() -> None:
    with session() as (c, _), contextlib.closing(Ram(16 * PAGE)) as ram:
        c.dma_map(0x10000, 4 * PAGE, ram.fd)
        c.dma_map(0x20000, 4 * PAGE)
        c.dma_unmap(0x80000, PAGE)  # of nothing: QEMU unmaps what it could not map, too
        for iova, size, flags, wanted in (
                (0x10000, 4 * PAGE, 3, errno.EEXIST), (0x11000, PAGE, 3, errno.EEXIST),
                (0xf000, 2 * PAGE, 3, errno.EEXIST)):
            got = c.errno_of(vu.DMA_MAP, struct.pack("<IIQQQ", 32, flags, 0, iova, size), [ram.fd])
            t.equal(got, wanted, f"map of {size:#x} at {iova:#x}")
        for iova, size in ((0x10000, PAGE), (0x11000, 3 * PAGE), (0x10000, 8 * PAGE)):
            t.check(c.errno_of(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, iova, size)),
                    f"unmap of {size:#x} at {iova:#x} was accepted")
        c.dma_unmap(0x10000, 4 * PAGE)
        c.dma_map(0x10000, 2 * PAGE, ram.fd, PAGE)
        c.dma_unmap(0, 0, 2)
        c.dma_map(0x10000, 4 * PAGE, ram.fd)


@t.case
def whole_memory_may_come_and_go_like_a_storm() -> None:
    with session() as (c, _), contextlib.closing(Ram(256 << 20)) as ram:
        for _ in range(300):
            c.dma_map(0, 256 << 20, ram.fd)
            c.dma_unmap(0, 256 << 20)
        tickets = []
        for i in range(300):  # as QEMU does: not waiting for the answers
            tickets.append(c.send(vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0, 256 << 20),
                                  [ram.fd]))
            tickets.append(c.send(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0, 256 << 20)))
        for ticket in tickets:
            c.wait(ticket)


@t.case
def features_are_probed_truthfully() -> None:
    probe, unknown = 1 << 18, 1000
    with session() as (c, _):
        for feature in (*range(1, 16), unknown):
            for action in (1 << 16, 1 << 17):
                supported = c.errno_of(vu.DEVICE_FEATURE,
                                       struct.pack("<II", 8, probe | action | feature)) == 0
                if feature == unknown:
                    t.check(not supported, "an unknown feature is supported")
                elif not supported:
                    t.check(c.errno_of(vu.DEVICE_FEATURE,
                                       struct.pack("<II", 16, action | feature) + b"\0" * 8),
                            f"feature {feature} is not supported, but works")


@t.case
def bytes_of_both_ports_reach_their_own_pty() -> None:
    with session() as (c, directory):
        for port in (0, 1):
            put(c, FCR, 7, port)
            put(c, MCR, RTS, port)  # ready to receive
            fd = os.open(directory / f"tty{port}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            text = b"port %d here" % port
            for byte in text:
                put(c, THR, byte, port)
            got = b""
            while len(got) < len(text) and select.select([fd], [], [], 5)[0]:
                got += os.read(fd, 100)
            t.equal(got, text, "bytes at the pty")
            os.write(fd, text)
            back = b""
            while len(back) < len(text):
                t.wait_for(lambda p=port: get(c, LSR, p) & 1, 5, "data ready")
                back += bytes([get(c, RBR, port)])
            t.equal(back, text, "bytes at the card")
            os.close(fd)


@t.case
def killed_workers_are_not_noticed() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        with Client(d.socket(device)) as c, contextlib.closing(Ram(64 * PAGE)) as ram:
            line = c.arm(vu.INTX)
            put(c, MCR, OUT2)
            for i in range(30):
                put(c, SCR, i)
                c.dma_map(i * PAGE, PAGE, ram.fd, i * PAGE)
                worker = worker_of(d, device)
                ticket = c.send(vu.REGION_READ, struct.pack("<QII", SCR, 0, 1))
                os.kill(worker, signal.SIGKILL)
                t.equal(c.wait(ticket).payload[16:], bytes([i]), "scratch register")
                t.equal(get(c, SCR), i, "scratch register, asked again")
            for i in range(30):
                c.dma_unmap(i * PAGE, PAGE)
            put(c, IER, THR_EMPTY)
            t.check(line.wait() > 0, "no interrupt after the kills")
            t.fact(f"30 kills; slowest answer {c.slowest * 1000:.1f} ms")


t.main()
