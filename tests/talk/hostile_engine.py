#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A hostile client of a device with DMA and MSI-X: its memory shrinks, its eventfds are traps, it
answers late or dies. Its own device suffers, in the worker that it has; another goes on, fast."""
from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, worker_of
from lib.vfio_user import Client, Ram

PAGE = 4096
SCRATCH, RAISE = 0x08, 0x44
DMA_IOVA, DMA_OFFSET, DMA_LEN, DMA_COMMAND, DMA_STATUS, DMA_DONE = 0x80, 0x88, 0x8c, 0x90, 0x94, 0x98
FROM_GUEST, TO_GUEST, ASK, TELL = 1, 2, 3, 4
BUSY = 1
FAR = 0x1_0000_0000


@dataclass
class Engine:
    """A device of the driver test, its client, and the witness: a client of another device."""
    daemon: Daemon
    uuid: str
    client: Client
    witness: Client

    def get(self, register: int, size: int = 4) -> int:
        return int.from_bytes(self.client.read(0, register, size), "little")

    def put(self, register: int, value: int, size: int = 4, no_reply: bool = False) -> None:
        self.client.write(0, register, value.to_bytes(size, "little"), no_reply)

    def start(self, command: int, iova: int, length: int = 64) -> None:
        self.put(DMA_IOVA, iova, 8)
        self.put(DMA_OFFSET, 0)
        self.put(DMA_LEN, length)
        self.put(DMA_COMMAND, command)

    def run(self, command: int, iova: int, length: int = 64) -> int:
        """0, or the errno that the device met."""
        self.start(command, iova, length)
        return (1 << 32) - s if (s := self.get(DMA_STATUS)) else 0

    def msix(self) -> None:
        """Message interrupts on, as a guest's driver does it."""
        self.client.set_config(self.client.capability(0x11) + 2, 2, 0x8000)
        for vector in range(16):
            self.client.write(4, 16 * vector + 12, bytes(4))


@contextlib.contextmanager
def engines() -> Iterator[Engine]:
    with Daemon() as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="lab", driver="test", settings=[])
        victim, other = d.create("lab", "test-dma"), d.create("lab", "test-dma")
        with Client(d.socket(other)) as witness:
            witness.write(0, SCRATCH, b"\x42")
            c = Client(d.socket(victim))
            c.set_config(4, 2, 6)
            yield Engine(d, victim, c, witness)
            c.close()
            t.equal(witness.read(0, SCRATCH, 1), b"\x42", "scratch register of the other device")
            t.check(witness.slowest < 0.5 * t.slowness(),
                    f"the other client waited {witness.slowest:.2f} s")
            with Client(d.socket(victim)) as after:
                after.write(0, SCRATCH, b"\x24")
                t.equal(after.read(0, SCRATCH, 1), b"\x24", "scratch register of the next client")


# ---- memory ----

@t.case
def memory_that_was_cut_off_faults_and_the_worker_lives() -> None:
    with engines() as e, contextlib.closing(Ram(16 * PAGE)) as ram, \
            contextlib.closing(Ram(PAGE)) as whole:
        e.client.dma_map(FAR, 16 * PAGE, ram.fd)
        e.client.dma_map(2 * FAR, PAGE, whole.fd)
        t.equal(e.run(FROM_GUEST, FAR + 8 * PAGE), 0, "a read before")
        worker = worker_of(e.daemon, e.uuid)
        os.ftruncate(ram.fd, PAGE)
        t.check(e.run(FROM_GUEST, FAR + 8 * PAGE) != 0, "memory was read that is gone")
        e.run(TO_GUEST, FAR + 8 * PAGE)  # posted, as on a real bus: nobody is told
        for command in (FROM_GUEST, TO_GUEST):
            t.equal(e.run(command, FAR), 0, f"command {command} in what is left of the file")
            t.equal(e.run(command, 2 * FAR), 0, f"command {command} in another file")
        t.equal(worker_of(e.daemon, e.uuid), worker, "the worker")
        t.equal(e.daemon.log().count("is gone\n"), 1, "lines in the log")
        e.client.dma_unmap(FAR, 16 * PAGE)
        os.ftruncate(ram.fd, 16 * PAGE)
        e.client.dma_map(FAR, 16 * PAGE, ram.fd)
        t.equal(e.run(FROM_GUEST, FAR + 8 * PAGE), 0, "a read when it is mapped anew")


@t.case
def seventy_thousand_maps_of_one_file_are_refused_beyond_the_offer() -> None:
    with engines() as e, contextlib.closing(Ram(PAGE)) as ram:
        limit = int(str(e.client.capabilities["max_dma_maps"]))
        refused, tickets = 0, []
        for i in range(70000):
            tickets.append(e.client.send(
                vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, i * 2 * PAGE, PAGE), [ram.fd]))
            if len(tickets) < 32 and i < 69999:
                continue
            e.witness.read(0, SCRATCH, 1)
            for ticket in tickets:
                try:
                    e.client.wait(ticket)
                except vu.VfioError as error:
                    refused += 1
                    t.equal(error.errno, errno.ENOSPC, "errno of one map too many")
            tickets = []
        t.equal(refused, 70000 - limit, "maps refused")
        t.equal(e.run(FROM_GUEST, 60000 * 2 * PAGE), 0, "a read through one of the last maps")
        t.fact(f"{limit} maps of one file; slowest answer {e.client.slowest * 1000:.1f} ms, of the "
               f"other device {e.witness.slowest * 1000:.1f} ms")


# ---- interrupts ----

@t.case
def a_full_counter_that_blocks_holds_up_nobody() -> None:
    with engines() as e:
        e.msix()
        trap = os.eventfd(0, os.EFD_CLOEXEC)  # blocking: a write to a full one sleeps
        os.eventfd_write(trap, (1 << 64) - 2)
        e.client.set_irqs(vu.MSIX, vu.IRQ_EVENTFD | vu.IRQ_TRIGGER, 2, 1, fds=[trap])
        for _ in range(100):
            e.put(RAISE, 2)
            e.witness.read(0, SCRATCH, 1)
        begin = time.monotonic()
        e.get(SCRATCH)
        t.check(time.monotonic() - begin < 1, "the device waits for its client")
        t.equal(os.eventfd_read(trap), (1 << 64) - 2, "the counter")
        e.put(RAISE, 2)
        e.get(SCRATCH)
        t.check(os.eventfd_read(trap) >= 1, "no signal when there was room")
        os.close(trap)


@t.case
def a_released_vector_above_0_stays_silent() -> None:
    with engines() as e:
        e.msix()
        five, six = e.client.arm(vu.MSIX, 5), e.client.arm(vu.MSIX, 6)
        e.put(RAISE, 5)
        t.equal(five.wait(), 1, "signals of vector 5")
        e.client.set_irqs(vu.MSIX, vu.IRQ_EVENTFD | vu.IRQ_TRIGGER, 5, 1)
        six.clear()
        e.put(RAISE, 5)
        e.put(RAISE, 6)
        e.get(SCRATCH)
        t.equal(five.wait(0), 0, "signals of vector 5 when it was released")
        t.check(six.wait() > 0, "vector 6 fell silent, too")


# ---- messages ----

@t.case
def a_descriptor_belongs_to_the_message_that_brought_it() -> None:
    """Sent in one piece, an unmap without and a map with a descriptor may arrive in one receive."""
    with engines() as e, contextlib.closing(Ram(PAGE)) as ram:
        ram.map[:5] = b"right"
        for i in range(20):
            first = struct.pack("<HHIII", 1, vu.DMA_MAP, 48, 0, 0) + \
                struct.pack("<IIQQQ", 32, 3, 0, FAR, PAGE)  # by messages only
            second = struct.pack("<HHIII", 2, vu.DMA_MAP, 48, 0, 0) + \
                struct.pack("<IIQQQ", 32, 3, 0, 2 * FAR, PAGE)
            e.client.send_raw(first)
            e.client.send_raw(second, [ram.fd])
            t.equal([(m.id, m.flags) for m in (e.client.receive(), e.client.receive())],
                    [(1, vu.F_REPLY), (2, vu.F_REPLY)], "replies")
            t.equal(e.run(FROM_GUEST, 2 * FAR), 0, "a read of the map with a file")
            t.equal(e.client.read(2, 0, 5), b"right", "bytes")
            t.check(e.run(FROM_GUEST, FAR) != 0, "the map without a file has got one")
            e.client.dma_unmap(0, 0, 2)


@t.case
def a_flood_of_descriptors_is_closed() -> None:
    with engines() as e, contextlib.closing(Ram(PAGE)) as ram:
        def descriptors() -> int:
            e.get(SCRATCH)
            pid = worker_of(e.daemon, e.uuid)
            return len(os.listdir(f"/proc/{pid}/fd")) if os.geteuid() == 0 else 0

        before = descriptors()
        for _ in range(20):
            t.check(e.client.errno_of(vu.RESET, b"", [ram.fd] * 253) != 0, "253 were accepted")
            e.witness.read(0, SCRATCH, 1)
        t.equal(descriptors(), before, "descriptors of the worker")
        # With each byte of one message: that breaks the rule, at once.
        with contextlib.suppress(ConnectionError):
            for byte in struct.pack("<HHIII", 1, vu.GET_INFO, 32, 0, 0):
                e.client.socket.sendmsg([bytes([byte])], [
                    (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ram.fd] * 253))])
        t.check(e.client.is_closed(), "the connection goes on")


@t.case
def messages_of_the_device_cross_those_of_the_client() -> None:
    with engines() as e:
        e.client.memory[FAR] = bytearray(range(256)) * 16
        e.client.dma_map(FAR, PAGE)
        read = struct.pack("<QII", SCRATCH, 0, 8)
        for _ in range(10):
            done = e.get(DMA_DONE)
            e.start(ASK, FAR, 256)
            tickets = [e.client.send(vu.REGION_READ, read) for _ in range(50)]
            for ticket in tickets:  # the device's own request comes in between
                e.client.wait(ticket)
            t.wait_for(lambda d=done: (e.client.poll_device(0), e.get(DMA_DONE) == d + 1)[1], 5,
                       "the end of the command")
            t.equal((e.get(DMA_STATUS), e.client.read(2, 0, 256)), (0, bytes(range(256))),
                    "status and bytes")


@t.case
def a_client_that_answers_nothing_keeps_its_own_device_busy_only() -> None:
    with engines() as e:
        e.client.dma_map(FAR, PAGE)
        e.start(ASK, FAR)
        m = e.client.receive()
        t.equal(m.command, vu.DMA_READ, "what the device asks")
        for _ in range(50):
            t.equal(e.get(DMA_STATUS), BUSY, "status")  # its other requests are served
            e.witness.read(0, SCRATCH, 1)


@t.case
def a_client_that_dies_in_an_unmap_that_waits_leaves_nothing() -> None:
    for _ in range(5):
        with engines() as e, contextlib.closing(Ram(PAGE)) as ram:
            e.client.dma_map(FAR, PAGE)
            e.client.dma_map(2 * FAR, PAGE, ram.fd)
            e.start(ASK, FAR)
            e.client.send(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 2, 0, 0))
            e.client.close()


t.main()
