#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Devices of one group reach each other's memory; devices of two groups do not; and what is taken
away is not touched any more once that was answered. One client with a connection to each device."""
from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator

from lib import nvme, t
from lib.daemon import Daemon, worker_of
from lib.sdk import Sdk
from lib.vfio_user import RESET, Client, Ram

GROUP = "peer_to_peer_resource_uuid=11111111-2222-3333-4444-555555555555"
OTHER_GROUP = "peer_to_peer_resource_uuid=11111111-2222-3333-4444-666666666666"
# Registers of test-dma (src/drivers/test/test.h).
IOVA, OFFSET, LEN, COMMAND, STATUS = 0x80, 0x88, 0x8c, 0x90, 0x94
FROM_GUEST, TO_GUEST, TELL = 1, 2, 4
REGS, MEMORY, MEMORY_SIZE = 0, 2, 65536
BAR2, CONFIG_COMMAND = 0x18, 4
PLACE, ELSEWHERE = 0xe000_0000, 0x40_0000_0000  # of the BAR; the second needs 64 bits
RAM = 1 << 20


class Device:
    """Made first, connected when all of its group are there: it does not change while in use."""

    c: Client

    def __init__(self, d: Daemon, kind: str, *settings: str) -> None:
        self.d = d
        self.uuid = d.create("lab", kind, *settings)

    def connect(self, ram: Ram) -> None:
        self.c = Client(self.d.socket(self.uuid))
        self.c.dma_map(0, RAM, ram.fd)
        self.c.dma_map(PLACE, MEMORY_SIZE)
        self.enable()

    def close(self) -> None:
        self.c.close()

    def get(self, register: int, size: int = 4) -> int:
        return int.from_bytes(self.c.read(REGS, register, size), "little")

    def put(self, register: int, value: int, size: int = 4) -> None:
        self.c.write(REGS, register, value.to_bytes(size, "little"))

    def place(self, address: int) -> None:
        self.c.set_config(BAR2, 8, address)

    def enable(self, bits: int = 6) -> None:
        """Memory space and bus master."""
        self.c.set_config(CONFIG_COMMAND, 2, bits)

    def move(self, what: int, address: int, offset: int, length: int) -> int:
        """Bytes between its memory and an address of the bus: 0 or the errno."""
        self.put(IOVA, address, 8)
        self.put(OFFSET, offset)
        self.put(LEN, length)
        self.put(COMMAND, what)
        return abs(ctypes.c_int32(self.get(STATUS)).value)


def equal_errno(got: int, want: int, what: str) -> None:
    t.equal(errno.errorcode.get(got, str(got)), errno.errorcode.get(want, str(want)), what)


class Lab:
    """Two engines A and B in the groups given, with guest memory at address 0, as a machine has it,
    and A's BAR at PLACE, which B is told of as QEMU does: without a descriptor."""

    def __init__(self, d: Daemon, *groups: str, disk: str = "", medium: str = "") -> None:
        self.d = d
        d.umdev("parent", "add", "lab", "driver=test")
        self.a, self.b = (Device(d, "test-dma", g) for g in groups)
        self.disk = Disk(d, disk, medium) if disk else None
        self.devices = [v for v in (self.a, self.b, self.disk) if v]
        self.ram = Ram(RAM)
        for device in self.devices:
            device.connect(self.ram)
        self.a.place(PLACE)
        info = self.a.c.region_info(MEMORY)
        self.bar = mmap.mmap(info.fds[0], MEMORY_SIZE, offset=info.offset)
        os.close(info.fds[0])

    def reaches(self) -> int:
        """B writes into A's memory: 0 when the bytes are there, else the errno."""
        data = os.urandom(16)
        self.b.c.write(MEMORY, 0, data)
        r = self.b.move(TO_GUEST, PLACE + 0x100, 0, 16)
        t.equal(self.bar[0x100:0x110] == data, r == 0, "the bytes are there")
        return r

    def messages(self) -> int:
        return len(self.a.c.device_messages) + len(self.b.c.device_messages)

    def close(self) -> None:
        for device in self.devices:
            device.close()
        self.bar.close()
        self.ram.close()


@contextlib.contextmanager
def lab(*groups: str, disk: str = "", medium: str = "") -> Iterator[Lab]:
    with Daemon() as d:
        one = Lab(d, *(groups or (GROUP, GROUP)), disk=disk, medium=medium)
        try:
            yield one
        finally:
            one.close()


@t.case
def a_bar_of_the_same_group_is_memory() -> None:
    with lab() as one:
        t.equal(one.reaches(), 0, "a write")
        one.bar[0xfff8:0x10000] = b"the last"
        t.equal(one.b.move(FROM_GUEST, PLACE + 0xfff8, 0x40, 8), 0, "a read")
        t.equal(one.b.c.read(MEMORY, 0x40, 8), b"the last", "what was read")
        one.a.c.write(MEMORY, 0, b"own")
        t.equal(one.a.move(TO_GUEST, PLACE + 0x20, 0, 3), 0, "a write to its own BAR")
        t.equal(one.bar[0x20:0x23], b"own", "its own BAR")
        equal_errno(one.b.move(FROM_GUEST, PLACE + 0xfff8, 0, 9), errno.EFAULT, "behind its end")
        t.equal(one.messages(), 0, "messages to the client")


@t.case
def between_groups_there_is_no_path() -> None:
    with lab(GROUP, OTHER_GROUP) as one:
        equal_errno(one.reaches(), errno.EREMOTE, "a write")
        equal_errno(one.b.move(FROM_GUEST, PLACE, 0, 4), errno.EREMOTE, "a read")
        t.equal(one.messages(), 0, "messages to the client")
        # What the client does with a message is its own decision, and not ours.
        one.b.move(TELL, PLACE, 0, 4)
        t.wait_for(lambda: one.b.get(STATUS) != 1, 5, "the client's answer")
        t.equal(one.b.c.device_messages[-1][1:], (PLACE, 4), "the message")


@t.case
def the_map_of_the_client_decides_what_is_there() -> None:
    with lab() as one:
        one.b.c.dma_unmap(PLACE, MEMORY_SIZE)
        equal_errno(one.reaches(), errno.EFAULT, "without a map")
        one.b.c.dma_map(PLACE + 0x1000, 0x1000)
        equal_errno(one.b.move(FROM_GUEST, PLACE + 0xff8, 0, 16), errno.EFAULT, "before a part")
        t.equal(one.b.move(FROM_GUEST, PLACE + 0x1000, 0, 0x1000), 0, "the part that is mapped")
        one.b.c.dma_unmap(PLACE + 0x1000, 0x1000)
        one.b.c.dma_map(PLACE, MEMORY_SIZE, flags=1)
        equal_errno(one.reaches(), errno.EFAULT, "a write where only reads are mapped")
        one.b.c.dma_unmap(PLACE, MEMORY_SIZE)
        one.b.c.dma_map(PLACE, MEMORY_SIZE, one.ram.fd)
        one.b.c.write(MEMORY, 0, b"ram first")
        t.equal(one.b.move(TO_GUEST, PLACE, 0, 9), 0, "where memory was laid over it")
        t.equal((one.ram.map[:9], one.bar[:9] == b"ram first"), (b"ram first", False), "who has it")


@t.case
def behind_an_iommu_addresses_of_bars_mean_nothing() -> None:
    with lab() as one:
        one.b.c.dma_unmap(0, RAM)
        equal_errno(one.reaches(), errno.EREMOTE, "no memory at its own address")
        one.b.c.dma_map(0, RAM - 4096, one.ram.fd, offset=4096)
        equal_errno(one.reaches(), errno.EREMOTE, "memory somewhere else")
        one.b.c.dma_unmap(0, RAM - 4096)
        one.b.c.dma_map(0, RAM, one.ram.fd)
        t.equal(one.reaches(), 0, "as before")


def _decode_off(one: Lab) -> None:
    one.a.enable(4)


def _sleep(one: Lab) -> None:
    one.a.c.set_config(one.a.c.capability(1) + 4, 2, 3)


def _function_reset(one: Lab) -> None:
    at = one.a.c.capability(0x10) + 8
    one.a.c.set_config(at, 2, one.a.c.config(at, 2) | 0x8000)


def _client_reset(one: Lab) -> None:
    one.a.c.call(RESET)


def _move(one: Lab) -> None:
    one.a.place(ELSEWHERE)


def _hang_up(one: Lab) -> None:
    one.a.close()
    t.wait_for(lambda: one.d.state_of(one.a.uuid) == "idle", 5, "the end of A's connection")


WAYS: tuple[Callable[[Lab], None], ...] = (_decode_off, _sleep, _function_reset, _client_reset,
                                           _move, _hang_up)


def _add_revocation(way: Callable[[Lab], None]) -> None:
    def run() -> None:
        with lab() as one:
            t.equal(one.reaches(), 0, "before")
            way(one)
            equal_errno(one.reaches(), errno.EREMOTE, "after")
            if way is _move:
                one.b.c.dma_map(ELSEWHERE, MEMORY_SIZE)
                one.b.c.write(MEMORY, 0, b"there")
                t.equal(one.b.move(TO_GUEST, ELSEWHERE + 8, 0, 5), 0, "where it is now")
                t.equal(one.bar[8:13], b"there", "the bytes")
            elif way is not _hang_up:
                if way is _sleep:  # and waking resets
                    one.a.c.set_config(one.a.c.capability(1) + 4, 2, 0)
                one.a.place(PLACE)
                one.a.enable()
                t.equal(one.reaches(), 0, "again")
    run.__name__ = f"not_reached_after{way.__name__}"
    t.case(run)


for _way in WAYS:
    _add_revocation(_way)


@t.case
def the_next_life_of_a_worker_finds_the_bars_where_they_are() -> None:
    with lab() as one:
        for _ in range(5):
            os.kill(worker_of(one.d, one.b.uuid), signal.SIGKILL)
            t.equal(one.reaches(), 0, "after a kill")
        one.a.enable(4)
        os.kill(worker_of(one.d, one.b.uuid), signal.SIGKILL)
        equal_errno(one.reaches(), errno.EREMOTE, "after it was taken away, and a kill")


# ---- a disk ----

SQ, CQ, ENTRIES, VECTOR, TAIL, DONE = 0x08, 0x10, 0x18, 0x1c, 0x20, 0x28
READ, WRITE = 1, 2
QUEUE_COMMAND, QUEUE_START, DOORBELLS = 0x30, 1, 2
BLOCK, DEPTH = 4096, 32
N_BLOCKS = MEMORY_SIZE // BLOCK


class Disk(Device):
    """test-blk, and queue 0 of test-queue: rings in guest memory, data wherever it is told."""

    def __init__(self, d: Daemon, kind: str, medium: str) -> None:
        super().__init__(d, kind, "size=16M", f"medium={medium}", GROUP)
        self.is_queue = kind == "test-queue"

    def connect(self, ram: Ram) -> None:
        super().connect(ram)
        self.ram = ram
        self.tail = 0
        for register, value, size in ((SQ, 0, 8), (CQ, 4096, 8), (ENTRIES, DEPTH, 4),
                                      (VECTOR, 16, 4)):
            self.put(register, value, size)
        if self.is_queue:
            self.put(QUEUE_COMMAND, QUEUE_START)

    def ring(self) -> None:
        if self.is_queue:
            self.c.write(DOORBELLS, 0, self.tail.to_bytes(4, "little"))
        else:
            self.put(TAIL, self.tail)

    def queue(self, op: int, block: int, address: int, n: int) -> None:
        struct.pack_into("<IIQQII", self.ram.map, self.tail % DEPTH * 32, op, self.tail, block,
                         address, n, 0)
        self.tail += 1

    def status(self, number: int) -> int:
        return -struct.unpack_from("<i", self.ram.map, 4096 + number % DEPTH * 16 + 4)[0]

    def run(self, op: int, block: int, address: int, n: int) -> int:
        self.queue(op, block, address, n)
        self.ring()
        t.wait_for(lambda: self.get(DONE) == self.tail, 10, "the end of a request")
        return self.status(self.tail - 1)


@contextlib.contextmanager
def disk(kind: str, medium: str) -> Iterator[tuple[Lab, Disk]]:
    with lab(disk=kind, medium=medium) as one:
        assert one.disk
        yield one, one.disk


def reads_into_and_writes_from_a_peers_bar(kind: str) -> None:
    with disk(kind, "memory") as (one, d):
        data = os.urandom(MEMORY_SIZE)
        one.bar[:] = data
        t.equal(d.run(WRITE, 3, PLACE, N_BLOCKS), 0, "a write to the disk")
        one.bar[:] = bytes(MEMORY_SIZE)
        t.equal(d.run(READ, 4, PLACE + BLOCK, 2), 0, "a read of two blocks")
        t.equal(one.bar[BLOCK:3 * BLOCK], data[BLOCK:3 * BLOCK], "the bytes")
        t.equal(one.bar[:BLOCK] + one.bar[3 * BLOCK:], bytes(MEMORY_SIZE - 2 * BLOCK), "the others")
        t.equal(d.run(READ, 3, 0x10000, 1), 0, "a read into guest memory")
        t.equal(one.ram.map[0x10000:0x11000], data[:BLOCK], "its bytes")
        one.a.enable(4)
        # A queue has no messages: to it that is not memory.
        equal_errno(d.run(READ, 3, PLACE, 1), errno.EFAULT if d.is_queue else errno.EREMOTE,
                    "when A decodes it no more")
        t.equal(one.bar[:BLOCK], bytes(BLOCK), "A's memory then")


def fill(d: Disk, generation: int) -> None:
    """What a read brings can be told from what the client writes."""
    for block in range(0, DEPTH * N_BLOCKS, N_BLOCKS):
        at = 0x20000
        d.ram.map[at:at + MEMORY_SIZE] = bytes([generation]) * MEMORY_SIZE
        t.equal(d.run(WRITE, block, at, N_BLOCKS), 0, "filling the disk")


def _add_in_flight(kind: str, way: Callable[[Lab], None]) -> None:
    def run() -> None:
        caught = 0
        with disk(kind, "direct") as (one, d):
            fill(d, 0xdd)
            rounds = 1 if way is _hang_up else 12
            for _ in range(rounds):
                for n in range(DEPTH):
                    d.queue(READ, n * N_BLOCKS, PLACE, N_BLOCKS)
                d.ring()
                left = d.tail - d.get(DONE)
                way(one)
                caught += left > 0
                # It was answered: the memory is the client's alone.
                one.bar[:] = b"\x11" * MEMORY_SIZE
                time.sleep(0.05)
                t.equal(one.bar[:].count(0x11), MEMORY_SIZE, "bytes nobody wrote over")
                t.wait_for(lambda: d.get(DONE) == d.tail, 10, "the end of all requests")
                if way is not _hang_up:
                    if way is _sleep:
                        one.a.c.set_config(one.a.c.capability(1) + 4, 2, 0)
                    one.a.place(PLACE)
                    one.a.enable()
        t.fact(f"{caught} of {rounds} times with requests in flight")
    run.__name__ = f"requests_of_{kind[5:]}_end_before{way.__name__}_is_answered"
    t.case(run, seconds=60)


def reads_into_a_peers_bar_and_survives_its_worker(kind: str) -> None:
    with disk(kind, "direct") as (one, d):
        fill(d, 0xdd)
        for _ in range(5):
            one.bar[:] = bytes(MEMORY_SIZE)
            for n in range(DEPTH):
                d.queue(READ, n * N_BLOCKS, PLACE, N_BLOCKS)
            d.ring()
            os.kill(worker_of(one.d, d.uuid), signal.SIGKILL)
            t.wait_for(lambda: d.get(DONE) == d.tail, 10, "the end of all requests")
            t.equal([d.status(i) for i in range(DEPTH)], [0] * DEPTH, "statuses")
            t.equal(one.bar[:].count(0xdd), MEMORY_SIZE, "bytes read")


def _add_disk_case(f: Callable[[str], None], kind: str) -> None:
    def run() -> None:
        f(kind)
    run.__name__ = f"{kind[5:]}_{f.__name__}"
    t.case(run)


for _kind, _ways in (("test-blk", (_decode_off, _move, _function_reset, _hang_up)),
                     ("test-queue", (_decode_off, _hang_up))):
    _add_disk_case(reads_into_and_writes_from_a_peers_bar, _kind)
    _add_disk_case(reads_into_a_peers_bar_and_survives_its_worker, _kind)
    for _way in _ways:
        _add_in_flight(_kind, _way)


# ---- an NVMe controller ----

@contextlib.contextmanager
def nvme_beside_memory(*settings: str) -> Iterator[tuple[nvme.Host, Device, mmap.mmap]]:
    """A controller with its host's memory also at address 0, and an engine of another driver and
    parent whose memory is at PLACE."""
    with nvme.disk("capacity=4M", GROUP, *settings, store=("p2p_domain=lab",)) as (d, uuid):
        d.umdev("parent", "add", "lab", "driver=test")
        a = Device(d, "test-dma", GROUP)
        with nvme.Host(d, uuid) as h:
            h.client.dma_map(0, h.ram.size, h.ram.fd)
            h.client.dma_map(PLACE, MEMORY_SIZE)
            a.connect(h.ram)
            a.place(PLACE)
            info = a.c.region_info(MEMORY)
            bar = mmap.mmap(info.fds[0], MEMORY_SIZE, offset=info.offset)
            os.close(info.fds[0])
            yield h, a, bar
            bar.close()
            a.close()


def _add_nvme(threads: int) -> None:
    def run() -> None:
        with nvme_beside_memory(f"queue_threads={threads}", "aggregation=2") as (h, a, bar):
            sq = h.pair(1)
            data = os.urandom(2 * nvme.PAGE)
            bar[:2 * nvme.PAGE] = data
            c = h.call(sq, nvme.rw(nvme.WRITE, 0, 16, prp1=PLACE, prp2=PLACE + nvme.PAGE))
            t.equal(c.code, nvme.OK, "a write from the peer's memory")
            c = h.call(sq, nvme.rw(nvme.READ, 0, 16, prp1=PLACE + 0x8000, prp2=PLACE + 0x9000))
            t.equal(c.code, nvme.OK, "a read into the peer's memory")
            t.equal(bar[0x8000:0xa000], data, "the bytes")
            own = h.page()
            t.equal(h.call(sq, nvme.rw(nvme.READ, 8, 8, prp1=own)).code, nvme.OK, "a read of its own")
            t.equal(h.get(own, nvme.PAGE), data[nvme.PAGE:], "its bytes")
            for _ in range(20):
                for i in range(32):
                    h.submit(sq, nvme.rw(nvme.READ, 0, 8, prp1=PLACE + 0x1000 * (i % 16)))
                a.enable(4)
                bar[:] = b"\x11" * MEMORY_SIZE
                h.wait(sq.cq, 32)
                t.equal(bar[:].count(0x11), MEMORY_SIZE, "bytes nobody wrote over")
                c = h.call(sq, nvme.rw(nvme.READ, 0, 8, prp1=PLACE))
                t.equal(c.code, nvme.DATA_TRANSFER, "what is not decoded")
                a.enable()
            c = h.call(sq, nvme.rw(nvme.READ, 8, 8, prp1=PLACE))
            t.equal((c.code, bar[:nvme.PAGE] == data[nvme.PAGE:]), (nvme.OK, True), "decoded again")
    run.__name__ = f"nvme_reads_into_a_peers_bar_with_{threads}_queue_threads"
    t.case(run, seconds=60)


for _threads in (0, 2):
    _add_nvme(_threads)


# ---- the example of the SDK ----

ENGINE_LENGTH, ENGINE_SOURCE, ENGINE_TARGET, ENGINE_COMMAND, ENGINE_STATUS, ENGINE_PEERS = (
    0x04, 0x08, 0x10, 0x18, 0x1c, 0x24)
STORE = 2


@contextlib.contextmanager
def engines(*groups: str) -> Iterator[list[Device]]:
    with t.TempDir() as folder:
        sdk = Sdk(folder)
        sdk.build_engine()
        with Daemon(env={"UMDEV_DRIVERS": str(sdk.drivers)}) as d:
            d.umdev("parent", "add", "lab", "driver=dma-engine")
            found = [Device(d, "dma-engine-1", g) for g in groups]
            ram = Ram(RAM)
            for device in found:
                device.connect(ram)
            yield found
            for device in found:
                device.close()
            ram.close()


def store(one: Device, data: bytes) -> int:
    one.c.write(MEMORY, 0, data)
    one.put(ENGINE_LENGTH, len(data))
    one.put(ENGINE_SOURCE, 0, 8)
    one.put(ENGINE_TARGET, PLACE + 0x40, 8)
    one.put(ENGINE_COMMAND, STORE)
    t.wait_for(lambda: one.get(ENGINE_STATUS) != 0xffffffff, 5, "the end of the command")
    return one.get(ENGINE_STATUS)


def _engine_case(groups: tuple[str, str], same: bool) -> None:
    with engines(*groups) as (a, b):
        a.place(PLACE)
        status = store(b, b"from B to A")
        got = a.c.read(MEMORY, 0x40, 11)
        t.equal((status == 0, got == b"from B to A"), (same, same), "status, the bytes")
        t.equal(len(b.c.device_messages), 0 if same else 1, "messages to the client")
        t.equal([one.get(ENGINE_PEERS) for one in (a, b)], [2, 2] if same else [1, 1], "peers")


@t.case
def engines_of_one_group_reach_each_other_without_the_client() -> None:
    _engine_case((GROUP, GROUP), True)


@t.case
def engines_of_two_groups_ask_the_client() -> None:
    _engine_case((GROUP, OTHER_GROUP), False)


@t.case
def the_hooks_of_a_group_run_for_its_first_and_last_client() -> None:
    with engines(GROUP, GROUP) as (a, b):
        t.equal([a.get(ENGINE_PEERS), b.get(ENGINE_PEERS)], [2, 2], "both are used")
        b.c.call(RESET)
        t.equal(b.get(ENGINE_PEERS), 2, "after a reset")
        os.kill(worker_of(b.d, b.uuid), signal.SIGKILL)
        t.equal([a.get(ENGINE_PEERS), b.get(ENGINE_PEERS)], [2, 2], "after a kill")
        a.close()
        t.equal(b.get(ENGINE_PEERS), 2, "one is left")


t.main()
