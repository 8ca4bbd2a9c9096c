#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Commands of an NVMe controller in flight while its worker is killed: each ends once, with the right
status and data; a discarded block stays discarded, a written one written."""
from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from lib import nvme, t
from lib.daemon import Daemon, parent_of, worker_of
from lib.nvme import (DATASET, DELETE_CQ, DELETE_SQ, FLUSH, GET_LOG, IDENTIFY,
                      PAGE, READ, WRITE, WRITE_ZEROES, Host, command)
from lib.nvme_initiator import Initiator
from lib.nvme_load import Load

SIZE = 8 << 20
KILLS = int(os.environ.get("UMDEV_TEST_NVME_KILLS", "100"))
MAX_STOPS = 400


class Disk:
    def __init__(self, daemon: Daemon, *settings: str, pairs: int = 2) -> None:
        self.d = daemon
        polls = "doorbells=mapped" in settings
        self.uuid = daemon.create("pool", "disk-nvme", f"capacity={SIZE}", f"aggregation={pairs}",
                                  *settings)
        self.h = Initiator(daemon.socket(self.uuid), daemon, self.uuid) if polls else \
            Host(daemon, self.uuid)
        if polls:
            self.h.enable()
        self.vector = self.h.arm(0)
        self.sqs = [self.h.pair(i + 1, 64, 0) for i in range(pairs)]
        self.load = Load(self.h, self.sqs, SIZE // 512, 512)

    def worker(self) -> int:
        def ask() -> int:
            try:
                return worker_of(self.d, self.uuid)
            except (t.Failure, OSError, ValueError):
                return 0
        return t.wait_for(ask, 5, "a worker")

    def children(self) -> Callable[[], list[int]]:
        keeper = parent_of(self.worker())
        path = f"/proc/{keeper}/task/{keeper}/children"

        def children() -> list[int]:
            with open(path) as f:
                return [int(pid) for pid in f.read().split()]
        return children


@contextlib.contextmanager
def disk(*settings: str, pairs: int = 2) -> Iterator[Disk]:
    with Daemon() as d:
        folder = d.dir / "store"
        folder.mkdir()
        d.umdev("parent", "add", "pool", "driver=disk", f"store={folder}")
        one = Disk(d, *settings, pairs=pairs)
        try:
            yield one
        finally:
            one.h.close()


def kill_all(pids: list[int]) -> int:
    n = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            n += 1
    return n


# ---- killed at every system call ----

def reads(d: Disk) -> None:
    d.load.submit(d.sqs[0], READ)


def writes(d: Disk) -> None:
    d.load.submit(d.sqs[0], WRITE)


def zeroes_and_discards(d: Disk) -> None:
    d.load.submit(d.sqs[0], WRITE_ZEROES)
    d.load.submit(d.sqs[1], DATASET)


def everything_at_once(d: Disk) -> None:
    for sq in d.sqs * 10:
        d.load.submit(sq, ring=False)
    for sq in d.sqs:
        d.load.ring(sq)


def admin_commands(d: Disk) -> None:
    h, at = d.h, d.h.page(2)
    h.admin(IDENTIFY, 0, at + 512, at + PAGE, cdw10=1)
    t.equal(h.get(at + 512 + 77, 1)[0], 8, "MDTS")
    h.admin(GET_LOG, 0, at, cdw10=1 | 15 << 16)
    h.admin(0x7f, want=nvme.INVALID_OPCODE)
    h.give_back(at, 2)


def queues_made_and_deleted(d: Disk) -> None:
    h, sq = d.h, d.sqs.pop()
    d.load.submit(d.sqs[0])
    h.admin(DELETE_SQ, cdw10=sq.id)
    h.admin(DELETE_CQ, cdw10=sq.id)
    h.give_back(sq.at)
    h.give_back(sq.cq.at)
    again = h.create_sq(sq.id, h.create_cq(sq.id, 64, 0), 64)
    d.sqs.append(again)
    t.equal(h.call(again, command(FLUSH, 1)).status, 0, "flush on a new queue")


def kill_at(d: Disk, request: Callable[[Disk], None], n: int) -> bool:
    """The request with the worker killed at stop n. False: it was over before."""
    d.load.drain()
    d.h.reg(nvme.CSTS)  # answered by a worker that lives
    tracer = subprocess.Popen([str(t.BUILD / "tests/survive/kill-at"), str(d.worker()), str(n)],
                              stdout=subprocess.PIPE, text=True)
    assert tracer.stdout
    try:
        while not select.select([tracer.stdout], [], [], 0.02)[0]:
            d.h.reg(nvme.CSTS)
        t.equal(tracer.stdout.readline(), "ready\n", "kill-at")
        request(d)
        d.load.drain()
        return bool(select.select([tracer.stdout], [], [], 0.05)[0]) and \
            tracer.stdout.readline().startswith("killed")
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()


def _add_sweep(request: Callable[[Disk], None]) -> None:
    def run() -> None:
        if os.geteuid():
            t.skip("a worker can be traced by root only")
        with disk() as d:
            for n in range(1, MAX_STOPS):
                if not kill_at(d, request, n):
                    break
            else:
                raise t.Failure(f"more than {MAX_STOPS} system calls")
            d.load.check_all()
            t.check(not d.h.is_failed(), "the controller has failed")
            t.fact(f"{request.__name__}: {n - 1}/{n - 1} kills survived; slowest register "
                   f"{d.h.client.slowest * 1000:.1f} ms")
            t.check(n > 6, f"only {n - 1} stops: the request was not met")
    run.__name__ = f"{request.__name__}_killed_at_every_system_call"
    t.case(run, seconds=60)


for _request in (reads, writes, zeroes_and_discards, everything_at_once, admin_commands,
                 queues_made_and_deleted):
    _add_sweep(_request)


# ---- killed at random ----

def under_kills(d: Disk, kills: int) -> tuple[list[float], list[float]]:
    """Verified I/O, dozens in flight. The times of the kills and of the ends of commands."""
    stop = threading.Event()
    times: list[float] = []
    ended: list[float] = []
    children = d.children()

    def killer() -> None:
        rng = random.Random(3)
        while not stop.is_set() and len(times) < kills:
            time.sleep(0.02 + rng.expovariate(1 / 0.06))
            if kill_all(children()):
                times.append(time.monotonic())

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        while thread.is_alive():
            for sq in d.sqs:
                while len(sq.flying) < 16:
                    d.load.submit(sq, ring=False)
                d.load.ring(sq)
            d.vector.wait(0.02)
            ended += [time.monotonic()] * d.load.reap()
    finally:
        stop.set()
        thread.join()
    d.load.drain()
    return times, ended


def pauses(kills: list[float], ended: list[float]) -> list[float]:
    found, i = [], 0
    for n, at in enumerate(kills):
        while i < len(ended) and ended[i] <= at + 0.002:
            i += 1
        if i < len(ended) and (n + 1 == len(kills) or ended[i] < kills[n + 1]):
            found.append(ended[i] - at)
    return found


def _add_load(name: str, shadow: bool, *settings: str) -> None:
    def run() -> None:
        with disk(*settings, pairs=4) as d:
            if shadow:
                d.h.use_shadow()
            times, ended = under_kills(d, KILLS)
            d.load.check_all()
            time.sleep(0.3)  # what is late, comes now
            d.load.check_all()
            t.check(not d.h.is_failed(), "the controller has failed")
            p = pauses(times, ended)
            t.fact(f"{name}: {len(times)} kills during {len(ended)} commands, 0 lost, repeated or "
                   f"torn; pause of I/O median {statistics.median(p) * 1000:.0f} ms, max "
                   f"{max(p) * 1000:.0f} ms; slowest register "
                   f"{d.h.client.slowest * 1000:.1f} ms")
            t.check(len(ended) > 500, f"only {len(ended)} commands")
    run.__name__ = f"random_kills_with_dozens_in_flight_{name}"
    t.case(run, seconds=100)


_add_load("trapped", False)
_add_load("with_shadow_doorbells", True)
_add_load("with_queue_threads", True, "queue_threads=2")
_add_load("with_mapped_doorbells", False, "doorbells=mapped")


# ---- everything is killed ----

@t.case
def what_was_acknowledged_is_there_when_everything_was_killed() -> None:
    with Daemon() as daemon:
        folder = daemon.dir / "store"
        folder.mkdir()
        daemon.umdev("parent", "add", "pool", "driver=disk", f"store={folder}")
        d = Disk(daemon)
        d.load.run(300, 8)
        for sq in d.sqs * 10:
            d.load.submit(sq)
        d.load.reap()
        for pid in [*daemon.workers(), daemon.process.pid]:
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError, EOFError):  # nobody takes the doorbell
            d.load.reap()
        unknown = set(d.load.busy)
        model = d.load.model
        d.h.client.close()
        daemon.kill()
        t.wait_for(lambda: not daemon.workers(), 10, "the end of those that were killed")
        daemon.start()
        t.wait_for(lambda: daemon.state_of(d.uuid) == "idle", 5, "idle")
        with Host(daemon, d.uuid) as h:
            sq = h.pair()
            page = h.page(16)
            prp1, prp2 = h.prps([page + i * PAGE for i in range(16)])
            for at in range(0, SIZE // 512, 128):
                c = h.call(sq, nvme.rw(READ, at, 128, prp1=prp1, prp2=prp2))
                t.equal(c.status, 0, "status of a read")
                got = h.get(page, 16 * PAGE)
                for i in range(128):
                    if at + i not in unknown:
                        t.check(got[512 * i:512 * (i + 1)] ==
                                model[512 * (at + i):512 * (at + i + 1)],
                                f"block {at + i} is not what was acknowledged")


t.main()
