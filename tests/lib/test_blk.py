# SPDX-License-Identifier: MIT
"""A client of a disk of driver test that verifies every byte.

Every block carries its number and the generation that was written last; the client never has two
requests under way that overlap, so what a read must return is always known."""
from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from . import t
from .daemon import Daemon, worker_of
from .vfio_user import Client, Ram

BLOCKS, SQ, CQ, ENTRIES, VECTOR, TAIL, HEAD, DONE, ERROR = (
    0x00, 0x08, 0x10, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c)
READ, WRITE, FLUSH = 1, 2, 3
BLOCK, DEPTH, MAX_BLOCKS = 4096, 64, 32
BAR_REGS, CONFIG, CONFIG_COMMAND, MSIX = 0, 7, 4, 2
RINGS_IOVA, DATA_IOVA = 0x1000_0000, 0x1_0000_0000
SLOT = MAX_BLOCKS * BLOCK
DISK = 64 << 20


def content(block: int, generation: int) -> bytes:
    return struct.pack("<QQ", block, generation) * (BLOCK // 16)


class Disk:
    """A client of a test-blk device, and what its blocks must hold."""

    TYPE = "test-blk"

    def __init__(self, daemon: Daemon, medium: str, size: int = DISK, *parameters: str) -> None:
        self.daemon = daemon
        self.uuid = daemon.create("lab", self.TYPE, f"size={size}", f"medium={medium}",
                                  *parameters)
        self.client = Client(daemon.socket(self.uuid))
        self.random = random.Random(7)
        self.rings, self.data = Ram(8192), Ram(DEPTH * SLOT)
        self.client.dma_map(RINGS_IOVA, self.rings.size, self.rings.fd)
        self.map_data()
        self.vector = self.client.arm(MSIX, 0)
        self.start()
        t.equal(self.get(BLOCKS, 8), size // BLOCK, "blocks")
        self.n_blocks = size // BLOCK
        self.generation = 0
        self.expected: dict[int, int] = {}
        self.ended: list[float] = []

    def map_data(self) -> None:
        self.client.dma_map(DATA_IOVA, self.data.size, self.data.fd)

    def start(self) -> None:
        """After power-on or a reset."""
        self.client.set_config(CONFIG_COMMAND, 2, 6)
        self.client.set_config(self.client.capability(0x11) + 2, 2, 0x8000)
        self.client.write(4, 12, bytes(4))
        self.rings.map[:] = bytes(self.rings.size)
        self.put(SQ, RINGS_IOVA, 8)
        self.put(CQ, RINGS_IOVA + 4096, 8)
        self.put(ENTRIES, DEPTH)
        self.put(VECTOR, 0)
        self.start_queue()
        self.tail = self.done = 0
        self.flying: dict[int, tuple[int, int, int, int]] = {}  # id: op, block, n, generation
        self.busy: set[int] = set()
        self.free = collections.deque(range(DEPTH))

    def start_queue(self) -> None:
        """It needs no more."""

    def wait_fetched(self) -> None:
        """A write of the tail fetches."""

    def check_reset(self) -> None:
        t.equal(self.get(DONE), 0, "requests that ended after a reset")

    def close(self) -> None:
        self.client.close()
        self.vector.close()
        self.rings.close()
        self.data.close()

    def worker(self) -> int:
        def ask() -> int:
            try:
                return worker_of(self.daemon, self.uuid)
            except (t.Failure, OSError, ValueError):
                return 0
        return t.wait_for(ask, 5, "a worker")

    def get(self, register: int, size: int = 4) -> int:
        return int.from_bytes(self.client.read(BAR_REGS, register, size), "little")

    def put(self, register: int, value: int, size: int = 4) -> None:
        self.client.write(BAR_REGS, register, value.to_bytes(size, "little"))

    def buffer(self, number: int, n: int) -> memoryview:
        return memoryview(self.data.map)[number * SLOT:number * SLOT + n * BLOCK]

    def queue(self, op: int, block: int = 0, n: int = 0) -> int:
        """Fills an entry; ring() makes the device see it."""
        number = self.free.popleft()
        self.generation += 1
        with self.buffer(number, n) as data:
            for i in range(n):
                g = self.generation if op == WRITE else 2**64 - 1
                data[i * BLOCK:(i + 1) * BLOCK] = content(block + i, g)
        struct.pack_into("<IIQQII", self.rings.map, self.tail % DEPTH * 32, op, number, block,
                         DATA_IOVA + number * SLOT, n, 0)
        self.tail += 1
        self.flying[number] = op, block, n, self.generation
        self.busy.update(range(block, block + n))
        return number

    def ring(self) -> None:
        self.put(TAIL, self.tail % 2**32)

    def queue_any(self) -> None:
        op = self.random.choices([READ, WRITE, FLUSH], [45, 50, 5])[0]
        if op == FLUSH:
            self.queue(op)
            return
        while True:
            n = self.random.choice([1, 1, 2, 4, 8, 32])
            block = self.random.randrange(self.n_blocks - n)
            if self.busy.isdisjoint(range(block, block + n)):
                self.queue(op, block, n)
                return

    def reap(self) -> int:
        """Takes what has ended, in the order of the ring."""
        n = 0
        while self.flying:
            at = 4096 + self.done % DEPTH * 16
            sequence = struct.unpack_from("<I", self.rings.map, at + 8)[0]  # before the rest
            if sequence != (self.done + 1) % 2**32:
                t.check(sequence == 0 or (self.done + 1 - sequence) % DEPTH == 0,
                        f"completion {self.done} has sequence {sequence}")
                break
            number, status = struct.unpack_from("<Ii", self.rings.map, at)
            t.check(number in self.flying, f"request {number} ended that was not under way")
            t.equal(status, 0, f"status of request {self.flying[number]}")
            self.done += 1
            n += 1
            self.ended.append(time.monotonic())
            self._judge(number, *self.flying.pop(number))
            self.free.append(number)
        return n

    def _judge(self, number: int, op: int, block: int, n: int, generation: int) -> None:
        self.busy.difference_update(range(block, block + n))
        for i in range(n):
            if op == WRITE:
                self.expected[block + i] = generation
                continue
            want = self.expected.get(block + i)
            with self.buffer(number, n) as data:
                got = bytes(data[i * BLOCK:(i + 1) * BLOCK])
            if got != (content(block + i, want) if want else bytes(BLOCK)):
                raise t.Failure(f"block {block + i}: wanted generation {want}, "
                                f"got {struct.unpack_from('<QQ', got)}")

    def drain(self, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while self.flying:
            self.vector.wait(0.05)
            self.reap()
            t.check(time.monotonic() < deadline, f"{len(self.flying)} requests never ended")

    def check_all(self) -> None:
        """Reads every block that was ever written."""
        for block in sorted(self.expected):
            if not self.free:
                self.ring()
                self.drain()
            self.queue(READ, block, 1)
        self.ring()
        self.drain()
        t.equal(self.get(DONE), self.done % 2**32, "requests that ended")
        t.equal(self.get(ERROR), 0, "errors of the rings")


class QueueDisk(Disk):
    """The same of queue 1 of a test-queue device, which is served without a register access."""

    TYPE = "test-queue"
    QUEUE, STRIDE, DOORBELLS = 1, 0x40, 2
    COMMAND, STATE, STOPS, EVENTS, WORKS = 0x30, 0x34, 0x38, 0x3c, 0x20
    START, RESTART, DRAIN, DROP, WORK = 1, 2, 3, 4, 5

    def get(self, register: int, size: int = 4) -> int:
        return super().get(self.QUEUE * self.STRIDE + register, size)

    def put(self, register: int, value: int, size: int = 4) -> None:
        super().put(self.QUEUE * self.STRIDE + register, value, size)

    def start_queue(self) -> None:
        self.put(self.COMMAND, self.START)

    def wait_fetched(self) -> None:
        t.wait_for(lambda: self.get(HEAD) == self.tail % 2**32, 5, "the last entry to be fetched")

    def check_reset(self) -> None:
        t.equal(self.get(self.STATE), 0, "state of a queue after a reset")

    def ring(self) -> None:
        self.client.write(self.DOORBELLS, self.QUEUE * 4, (self.tail % 2**32).to_bytes(4, "little"))


class Kind(NamedTuple):
    """A device that all of this is asked of. Another driver joins with a row."""

    name: str
    make: type[Disk] = Disk
    parameters: tuple[str, ...] = ()


BLK = Kind("blk")
QUEUE = Kind("queue", QueueDisk)
THREAD = Kind("thread", QueueDisk, ("queue_threads=2",))
KINDS = (BLK, QUEUE, THREAD)


@contextlib.contextmanager
def disk(medium: str, size: int = DISK, user: int | None = None, kind: Kind = BLK,
         below: Sequence[str] = ()) -> Iterator[Disk]:
    with Daemon(user=user, below=below) as daemon:
        daemon.umdev("parent", "add", "lab", "driver=test")
        d = kind.make(daemon, medium, size, *kind.parameters)
        try:
            yield d
        finally:
            d.close()


def children_of_keeper(d: Disk) -> Callable[[], list[int]]:
    keeper = int([line for line in open(f"/proc/{d.worker()}/status")
                  if line.startswith("PPid")][0].split()[1])
    path = f"/proc/{keeper}/task/{keeper}/children"

    def children() -> list[int]:
        with open(path) as f:
            return [int(pid) for pid in f.read().split()]
    return children


def kill_all(pids: list[int]) -> int:
    n = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # dead already, not yet reaped
            os.kill(pid, signal.SIGKILL)
            n += 1
    return n


def load_under(d: Disk, strike: Callable[[], bool], n: int) -> tuple[list[float], int]:
    """Verified I/O with dozens of requests in flight while `strike` hits n times (True: it did).
    When it did, and requests done."""
    stop = threading.Event()
    times: list[float] = []

    def disturb() -> None:
        rng = random.Random(2)
        while not stop.is_set() and len(times) < n:
            time.sleep(0.02 + rng.expovariate(1 / 0.06))
            if strike():
                times.append(time.monotonic())

    thread = threading.Thread(target=disturb)
    thread.start()
    before = len(d.ended)
    try:
        while thread.is_alive():
            while len(d.free) > 8:
                d.queue_any()
            d.ring()
            d.vector.wait(0.02)
            d.reap()
    finally:
        stop.set()
        thread.join()
    d.drain()
    return times, len(d.ended) - before
