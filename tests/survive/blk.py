#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Requests in flight to a disk while its worker is killed: each ends once, with the right bytes, and
nothing of a dead worker touches disk or guest memory after its successor went on."""
from __future__ import annotations

import os
import platform
import resource
import select
import shutil
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable

from lib import t
from lib.test_blk import (CONFIG, DATA_IOVA, DEPTH, DONE, FLUSH, HEAD, KINDS, MAX_BLOCKS, READ, WRITE,
                          Disk, Kind, children_of_keeper, content, disk, kill_all,
                          load_under)

KILLS = int(os.environ.get("UMDEV_TEST_BLK_KILLS", "100"))
RESTARTS = 20
MAX_STOPS = 400
SOMEBODY = 61234  # who has no other processes
PAUSE_LIMIT = 0.15  # on top of what the medium takes to drain; drains here are short


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
            children = children_of_keeper(d)
            times, n = load_under(d, lambda: kill_all(children()) > 0, KILLS)
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


def _add_without_ring(kind: Kind) -> None:
    def run() -> None:
        if os.geteuid() or platform.machine() != "x86_64":
            t.skip("needs root and x86-64: a filter forbids the call")
        below = (str(t.ROOT / "tests/lib/confined"), "io_uring_setup=EPERM", "--")
        with disk("direct", kind=kind, below=below) as d:
            t.check("io_uring" in d.daemon.log(), "io_uring is not forbidden")
            children = children_of_keeper(d)
            times, n = load_under(d, lambda: kill_all(children()) > 0, KILLS // 3)
            d.check_all()
            t.fact(f"{len(times)} kills during {n} requests, 0 lost, repeated, late or torn")
            t.check(n > 100, f"only {n} requests")
    run.__name__ = f"{kind.name}_random_kills_where_io_uring_is_forbidden"
    t.case(run, seconds=60)


def _add_restarts(kind: Kind) -> None:
    def run() -> None:
        with disk("direct", kind=kind) as d:
            worker = d.worker()

            def restart() -> bool:
                t.equal(d.daemon.umdev("restart", d.uuid).stdout.split(), [d.uuid], "moved")
                return True
            times, n = load_under(d, restart, RESTARTS)
            d.check_all()
            t.fact(f"{len(times)} restarts during {n} requests, 0 lost, repeated, late or torn")
            t.equal(len(times), RESTARTS, "restarts")
            t.check(d.worker() != worker and n > 100, f"{n} requests, worker {worker}")
    run.__name__ = f"{kind.name}_restarts_with_dozens_in_flight"
    t.case(run, seconds=60)


for _kind in KINDS:
    _add_without_ring(_kind)
    _add_restarts(_kind)


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
