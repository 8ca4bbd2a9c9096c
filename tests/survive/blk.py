#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Requests in flight to a disk while its worker is killed: each ends once, with the right bytes, and
nothing of a dead worker touches disk or guest memory after its successor went on.

Every block carries its number and the generation that was written last; the client never has two
requests under way that overlap, so what a read must return is always known."""
from __future__ import annotations

import collections
import contextlib
import os
import random
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lib import t
from lib.daemon import Daemon, worker_of
from lib.vfio_user import Client, Ram

BLOCKS, SQ, CQ, ENTRIES, VECTOR, TAIL, HEAD, DONE, ERROR = (
    0x00, 0x08, 0x10, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c)
READ, WRITE, FLUSH = 1, 2, 3
BLOCK, DEPTH, MAX_BLOCKS = 4096, 64, 32
BAR_REGS, CONFIG, CONFIG_COMMAND, MSIX = 0, 7, 4, 2
RINGS_IOVA, DATA_IOVA = 0x1000_0000, 0x1_0000_0000
SLOT = MAX_BLOCKS * BLOCK
DISK = 64 << 20
KILLS = int(os.environ.get("UMDEV_TEST_BLK_KILLS", "150"))
MAX_STOPS = 400
SOMEBODY = 61234  # who has no other processes
PAUSE_LIMIT = 0.15  # on top of what the medium takes to drain; drains here are short


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
KINDS = (BLK, QUEUE)


@contextlib.contextmanager
def disk(medium: str, size: int = DISK, user: int | None = None, kind: Kind = BLK) \
        -> Iterator[Disk]:
    with Daemon(user=user) as daemon:
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


# ---- killed at every system call ----

def read_blocks(d: Disk) -> None:
    d.queue(READ, d.random.randrange(d.n_blocks - 8), 8)


def write_blocks(d: Disk) -> None:
    d.queue(WRITE, d.random.randrange(d.n_blocks - 8), 8)


def flush(d: Disk) -> None:
    d.queue(FLUSH)


def many_at_once(d: Disk) -> None:
    for _ in range(24):
        d.queue_any()


def kill_at(d: Disk, request: Callable[[Disk], None], n: int) -> bool:
    """One request with the worker killed at stop n. False: it was over before."""
    d.drain()
    d.get(HEAD)  # answered by a worker that lives: the one before may have died after its answer
    tracer = subprocess.Popen([str(t.BUILD / "tests/survive/kill-at"), str(d.worker()), str(n)],
                              stdout=subprocess.PIPE, text=True)
    assert tracer.stdout
    try:
        # The worker sleeps: something must wake it for the first two stops.
        while not select.select([tracer.stdout], [], [], 0.02)[0]:
            d.get(HEAD)
        t.equal(tracer.stdout.readline(), "ready\n", "kill-at")
        request(d)
        d.ring()
        d.drain()
        return bool(select.select([tracer.stdout], [], [], 0.05)[0]) and \
            tracer.stdout.readline().startswith("killed")
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()


def _add_sweep(kind: Kind, request: Callable[[Disk], None]) -> None:
    def run() -> None:
        if os.geteuid():
            t.skip("a worker can be traced by root only")
        with disk("memory", 1 << 20, kind=kind) as d:
            for n in range(1, MAX_STOPS):
                if not kill_at(d, request, n):
                    break
            else:
                raise t.Failure(f"more than {MAX_STOPS} system calls")
            d.check_all()
            t.fact(f"{request.__name__}: {n - 1}/{n - 1} kills survived; slowest register "
                   f"{d.client.slowest * 1000:.1f} ms")
            t.check(n > 10, f"only {n - 1} stops: the request was not met")
    run.__name__ = f"{kind.name}_{request.__name__}_killed_at_every_system_call"
    t.case(run, seconds=60)


for _request in (read_blocks, write_blocks, flush, many_at_once):
    for _kind in KINDS:
        _add_sweep(_kind, _request)


# ---- killed at random ----

def load_under_kills(d: Disk, kills: int) -> tuple[list[float], int]:
    """Verified I/O with dozens of requests in flight. The kills' times, and requests done."""
    stop = threading.Event()
    times: list[float] = []
    children = children_of_keeper(d)

    def killer() -> None:
        rng = random.Random(2)
        while not stop.is_set() and len(times) < kills:
            time.sleep(0.02 + rng.expovariate(1 / 0.06))
            if kill_all(children()):
                times.append(time.monotonic())

    thread = threading.Thread(target=killer)
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


def pauses(kills: list[float], ended: list[float]) -> list[float]:
    """From each kill to the next end of a request, unless another kill came first."""
    found, i = [], 0
    for n, at in enumerate(kills):
        while i < len(ended) and ended[i] <= at + 0.002:  # those on their way to us at the kill
            i += 1
        if i < len(ended) and (n + 1 == len(kills) or ended[i] < kills[n + 1]):
            found.append(ended[i] - at)
    return found


def _add_load(kind: Kind, medium: str) -> None:
    def run() -> None:
        with disk(medium, kind=kind) as d:
            times, n = load_under_kills(d, KILLS)
            d.check_all()
            time.sleep(0.3)  # what is late, comes now
            d.check_all()
            p = pauses(times, d.ended)
            t.fact(f"{medium}: {len(times)} kills during {n} requests, 0 lost, repeated, late or "
                   f"torn; pause of I/O median {statistics.median(p) * 1000:.0f} ms, max "
                   f"{max(p) * 1000:.0f} ms; slowest register {d.client.slowest * 1000:.1f} ms")
            t.check(n > 500, f"only {n} requests")
    run.__name__ = f"{kind.name}_random_kills_with_dozens_in_flight_on_{medium}"
    t.case(run, seconds=100)


for _medium in ("memory", "file", "direct"):
    for _kind in KINDS:
        _add_load(_kind, _medium)


# ---- what takes memory away waits ----

def fill_disk(d: Disk) -> None:
    for block in range(0, DEPTH * MAX_BLOCKS, MAX_BLOCKS):
        d.queue(WRITE, block, MAX_BLOCKS)
    d.ring()
    d.drain()


def read_all(d: Disk) -> None:
    for block in range(0, DEPTH * MAX_BLOCKS, MAX_BLOCKS):
        d.queue(READ, block, MAX_BLOCKS)
    d.ring()
    d.wait_fetched()


def taken_away(kind: Kind, medium: str, rounds: int, kill: bool, take: Callable[[Disk], None],
               give: Callable[[Disk], None]) -> None:
    """Memory that was given back by `take` while 64 reads of it were under way changes no more."""
    with disk(medium, kind=kind) as d:
        fill_disk(d)
        children = children_of_keeper(d)
        for i in range(rounds):
            read_all(d)
            thread = threading.Timer(d.random.random() * 0.004, lambda: kill_all(children()))
            if kill:
                thread.start()
            take(d)
            d.data.map[:] = b"\xa5" * d.data.size
            time.sleep(0.05 if kill else 0.01)
            t.check(d.data.map[:] == b"\xa5" * d.data.size, f"round {i}: memory changed later")
            if kill:
                thread.join()
            give(d)
        d.check_all()


def unmap(d: Disk) -> None:
    d.client.dma_unmap(DATA_IOVA, d.data.size)
    d.reap()  # they ended before: with the right bytes
    t.equal(len(d.flying), 0, "requests that outlived the unmap of their memory")


def reset_by_client(d: Disk) -> None:
    d.client.reset()


FLR = (0x8000).to_bytes(2, "little")


def device_control(d: Disk) -> int:
    return d.client.capability(0x10) + 8


def function_level_reset(d: Disk) -> None:
    d.client.write(CONFIG, device_control(d), FLR)


def function_level_reset_among_others(d: Disk) -> None:
    """The write that resets is one of several in a message."""
    d.client.write_multi([(CONFIG, 0x0c, b"\x10"), (CONFIG, device_control(d), FLR),
                          (CONFIG, 0x3c, b"\x07")])
    t.equal(d.client.config(0x0c, 1), 0, "a register that was written before the reset")
    t.equal(d.client.config(0x3c, 1), 7, "a register that was written after the reset")


def wake_up(d: Disk) -> None:
    """From D3hot to D0: that resets, too."""
    control = d.client.capability(1) + 4
    d.client.set_config(control, 2, 3)
    d.client.set_config(control, 2, 0)


def start_again(d: Disk) -> None:
    d.check_reset()
    d.start()


def _add_taken(kind: Kind, take: Callable[[Disk], None], give: Callable[[Disk], None],
               kill: bool) -> None:
    def run() -> None:
        taken_away(kind, "direct", 25 if kill else 10, kill, take, give)
    run.__name__ = f"{kind.name}_{take.__name__}_waits_for_requests_in_flight" + \
        ("_also_over_kills" if kill else "")
    t.case(run, seconds=60)


for _take, _give in ((unmap, Disk.map_data), (reset_by_client, start_again),
                     (function_level_reset, start_again),
                     (function_level_reset_among_others, start_again), (wake_up, start_again)):
    for _kind in KINDS:
        for _kill in (False, True):
            _add_taken(_kind, _take, _give, _kill)


# ---- the rest ----

def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@t.case
def an_idle_disk_costs_no_cpu() -> None:
    with disk("memory") as d:
        for _ in range(32):
            d.queue_any()
        d.ring()
        d.drain()
        kill_all(children_of_keeper(d)())
        d.queue(FLUSH)
        d.ring()
        d.drain()
        worker = d.worker()
        before = cpu_ticks(worker)
        time.sleep(2)
        t.check(cpu_ticks(worker) - before <= 1, f"{cpu_ticks(worker) - before} ticks in 2 s")


@t.case
def a_null_disk_ends_everything_and_moves_nothing() -> None:
    with disk("null") as d:
        for _ in range(100):
            for _ in range(DEPTH):
                d.queue(WRITE, d.random.randrange(d.n_blocks - 1), 1)
            d.ring()
            d.drain()
        number = d.queue(READ, 5, 1)
        d.flying[number] = FLUSH, 0, 0, 0  # nothing to be judged
        d.ring()
        d.drain()
        with d.buffer(number, 1) as data:
            t.equal(bytes(data), content(5, 2**64 - 1), "memory of a read")


@t.case
def what_a_disk_cannot_do_is_refused() -> None:
    with disk("memory", 1 << 20) as d:
        for op, block, n in ((0, 0, 1), (4, 0, 1), (READ, 0, 0), (READ, 0, 33), (WRITE, 256, 1),
                             (WRITE, 255, 2), (READ, 2**64 - 1, 1), (FLUSH, 0, 1)):
            struct.pack_into("<IIQQII", d.rings.map, d.tail % DEPTH * 32, op, 9, block, DATA_IOVA,
                             n, 0)
            d.tail += 1
            d.ring()
            entry = struct.unpack_from("<IiII", d.rings.map, 4096 + d.done % DEPTH * 16)
            d.done += 1
            t.equal(entry[:3], (9, -22, d.done), f"completion of {op, block, n}")
        # Memory that is not mapped: told when it is tried.
        struct.pack_into("<IIQQII", d.rings.map, d.tail % DEPTH * 32, READ, 9, 0, 64, 1, 0)
        d.tail += 1
        d.ring()
        t.check(d.vector.wait() > 0, "no interrupt")
        t.wait_for(lambda: d.get(DONE) == d.done + 1, 2, "its end")
        entry = struct.unpack_from("<IiII", d.rings.map, 4096 + d.done % DEPTH * 16)
        t.equal(entry[:3], (9, -14, d.done + 1), "completion")


@t.case
def an_ordinary_users_disk_is_read_written_and_flushed() -> None:
    """What blocks is done by threads of the ring, which count as that user's processes. They were
    refused: every flush ended with ECANCELED. Where the user has too many, the worker blocks."""
    if os.geteuid() != 0 or not shutil.which("fusermount3"):
        t.skip("needs root and fusermount3")
    for processes in (1000, 3):  # umdevd, keeper and worker
        limits = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, limits[1]))
        try:
            with disk("file", user=SOMEBODY) as d:
                for _ in range(10):
                    for _ in range(DEPTH // 2):
                        d.queue_any()
                    d.queue(FLUSH)
                    d.ring()
                    d.drain()
                d.check_all()
        finally:
            resource.setrlimit(resource.RLIMIT_NPROC, limits)


t.main()
