#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What one connection can make a worker hold, and how much of its time it can take: each bound is
reached, the answer is an errno, and the other device of the same worker goes on."""
from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, parent_of, worker_of
from lib.vfio_user import Client

PAGE = 4096
TIB = 1 << 40
MAX_FILES, MAX_MAPPED = 1024, 2 * TIB  # src/dma/dma.h
SCRATCH, MAGIC = 8, 0  # registers of test-dma


class Pair:
    """Two devices of one group, in one worker: one that is flooded, one that must not notice."""

    def __init__(self, d: Daemon, victim: str, witness: str) -> None:
        self.daemon, self.victim_id = d, victim
        self.victim, self.witness = Client(d.socket(victim)), Client(d.socket(witness))
        self.witness.write(0, SCRATCH, b"\x42")
        self.worker = worker_of(d, victim)
        t.equal(worker_of(d, witness), self.worker, "the worker of both")

    def check(self) -> None:
        t.equal(self.witness.read(0, SCRATCH, 1), b"\x42", "scratch register of the other device")
        t.equal(worker_of(self.daemon, self.victim_id), self.worker, "pid of the worker")

    def descriptors(self) -> int:
        """The keeper shares the table, and shows it to its user."""
        return len(list(Path(f"/proc/{parent_of(self.worker)}/fd").iterdir()))

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])

    def mappings(self) -> int:
        """0: not for us to see."""
        if os.geteuid():
            return 0
        return len(Path(f"/proc/{self.worker}/maps").read_text().splitlines())


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    with Daemon() as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="lab", driver="test", settings=[])
        peers = f"peer_to_peer_resource_uuid={uuid.uuid4()}"
        victim, witness = (d.create("lab", "test-dma", peers) for _ in range(2))
        p = Pair(d, victim, witness)
        with p.witness:
            yield p
            p.check()
            p.victim.close()
            t.wait_for(lambda: d.state_of(victim) != "connected", 5, "the end of the connection")
            with Client(d.socket(victim)) as c:
                t.equal(c.read(0, MAGIC, 4), b"test", "magic, for the next client")
            p.check()


def sparse(size: int) -> int:
    fd = os.memfd_create("sparse", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def map_errno(c: Client, iova: int, size: int, fd: int, offset: int = 0) -> int:
    return c.errno_of(vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, offset, iova, size), [fd])


@t.case
def distinct_files_are_counted() -> None:
    with pair() as p:
        before = p.descriptors()
        for i in range(MAX_FILES + 20):
            fd = sparse(PAGE)
            wanted = 0 if i < MAX_FILES else errno.ENOSPC
            t.equal(map_errno(p.victim, i * PAGE, PAGE, fd), wanted, f"map of file {i}")
            os.close(fd)
        t.equal(p.descriptors() - before, MAX_FILES, "descriptors more")
        p.check()
        p.victim.dma_unmap(0, 0, 2)
        t.equal(p.descriptors(), before, "descriptors after the unmap")


@t.case
def sparse_memory_takes_no_address_space_from_others() -> None:
    with pair() as p:
        fds = [sparse(n) for n in (100 * TIB, MAX_MAPPED, PAGE)]
        try:
            t.equal(map_errno(p.victim, 0, PAGE, fds[0]), errno.ENOSPC, "a page of 100 TiB")
            t.equal(map_errno(p.victim, 0, MAX_MAPPED, fds[1]), 0, "all there may be")
            t.equal(map_errno(p.victim, 1 << 50, PAGE, fds[2]), errno.ENOSPC, "a page more")
            t.equal(map_errno(p.witness, 0, MAX_MAPPED, fds[1]), 0, "the other device's")
            p.victim.dma_unmap(0, 0, 2)
            t.equal(map_errno(p.victim, 1 << 50, PAGE, fds[2]), 0, "a page, after the unmap")
            p.witness.dma_unmap(0, 0, 2)
        finally:
            for fd in fds:
                os.close(fd)


@t.case
def seventy_thousand_maps_cost_bounded_memory() -> None:
    with pair() as p:
        fd = sparse(70000 * PAGE)
        before, mappings, done = p.memory_kib(), p.mappings(), 0
        for start in range(0, 70000, 500):
            tickets = [p.victim.send(vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, i * PAGE, i * 2 * PAGE,
                                                             PAGE), [fd])
                       for i in range(start, start + 500)]
            for ticket in tickets:
                try:
                    p.victim.wait(ticket)
                    done += 1
                except vu.VfioError as e:
                    t.equal(e.errno, errno.ENOSPC, "errno of one map too many")
        t.equal(done, 65535, "maps")
        more = p.memory_kib() - before
        t.check(more < 16 << 10, f"65535 maps took {more} KiB of heap")
        if mappings:
            t.check(p.mappings() < mappings + 50, "VMAs grow with the maps")
        os.close(fd)
        t.fact(f"65535 maps of one file: {more} KiB; slowest answer {p.victim.slowest * 1e3:.0f} ms")


@t.case
def descriptors_that_nobody_wants_do_not_stay() -> None:
    with pair() as p:
        before, fd = p.descriptors(), sparse(PAGE)
        get_info = struct.pack("<IIII", 16, 0, 0, 0)
        most = 0
        for _ in range(100):
            for n in (16, 17, 200):
                p.victim.errno_of(vu.GET_INFO, get_info, [fd] * n)
            most = max(most, p.descriptors())
        os.close(fd)
        t.equal(p.descriptors(), before, "descriptors after the flood")
        t.check(most <= before + 506, f"{most - before} descriptors were held at once")


@t.case
def a_worker_may_not_hold_more_than_its_members() -> None:
    with pair() as p:
        text = Path(f"/proc/{parent_of(p.worker)}/limits").read_text()
        line = next(x for x in text.splitlines() if x.startswith("Max open files"))
        soft = int(line.split()[3])
        t.check(MAX_FILES < soft <= 1 << 17 or
                soft == resource.getrlimit(resource.RLIMIT_NOFILE)[1], line)


def start_flood(c: Client) -> int:
    """Requests as fast as they are taken, in a process of their own."""
    read = struct.pack("<HHIII", 1, vu.REGION_READ, 32, 0, 0) + struct.pack("<QII", SCRATCH, 0, 8)
    pid = os.fork()
    if pid:
        return pid
    c.socket.settimeout(None)
    ends = c.socket.fileno()
    os.set_blocking(ends, False)
    while True:  # until it is killed
        select.select([ends], [ends], [])
        with contextlib.suppress(BlockingIOError):
            os.write(ends, read * 2000)
        with contextlib.suppress(BlockingIOError):
            os.read(ends, 1 << 18)


@t.case
def a_flood_of_messages_starves_nobody() -> None:
    with pair() as p:
        flood = start_flood(p.victim)
        try:
            times = []
            end = time.monotonic() + 3
            while time.monotonic() < end:
                begin = time.monotonic()
                t.equal(p.witness.read(0, SCRATCH, 1), b"\x42", "scratch register")
                times.append(time.monotonic() - begin)
            with p.daemon.varlink() as v:
                v.call("ParamSet", name=p.victim_id, param="gain", value="7")
            times.sort()
            median, slowest = times[len(times) // 2], times[-1]
            t.fact(f"{len(times)} answers in 3 s beside the flood: median {median * 1e3:.1f} ms, "
                   f"slowest {slowest * 1e3:.1f} ms")
            # A round of the loop works off one buffer of the flood; the rest is a busy machine.
            t.check(median < 0.1, f"the median answer took {median * 1e3:.0f} ms")
            t.check(slowest < 1, f"an answer took {slowest * 1e3:.0f} ms")
        finally:
            os.kill(flood, signal.SIGKILL)
            os.waitpid(flood, 0)


t.main()
