#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a dead worker left under way on a slow medium: its successor waits for the end of it, and
nobody else does."""
from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, parent_of
from lib.slow_disk import SlowDisk
from lib.test_blk import WRITE, Disk, children_of_keeper, kill_all

SIZE = 4 << 20
LATE = 0.15  # seconds that a request of the dead takes
ROUNDS = 5


@contextlib.contextmanager
def slow(**env: str) -> Iterator[tuple[SlowDisk, Disk]]:
    """A disk on a slow medium, and its client."""
    with SlowDisk(SIZE) as medium, Daemon(env={"UMDEV_TEST_MEDIUM": str(medium.path), **env}) as d:
        d.umdev("parent", "add", "lab", "driver=test")
        disk = Disk(d, "named", SIZE)
        try:
            yield medium, disk
        finally:
            medium.go()
            disk.close()


def error_of(d: Disk) -> str:
    with d.daemon.varlink() as v:
        return v.call("Show", name=d.uuid)["device"].get("error", "")


def write_some(d: Disk) -> None:
    """16 blocks, always the same."""
    for block in range(0, 64, 4):
        d.queue(WRITE, block, 1)
    d.ring()


def leave_late_writes(medium: SlowDisk, d: Disk, n: int) -> None:
    """The worker dies with writes under way; its successor's are fast. Then all is written anew."""
    children = children_of_keeper(d)
    for _ in range(n):
        medium.delay(LATE)
        write_some(d)
        t.wait_for(lambda: medium.under_way() == 16, 2, "the writes")
        medium.delay(0)
        kill_all(children())
        d.drain()
        write_some(d)
        d.drain()
        time.sleep(1.5 * LATE)  # what is late, comes now
        d.check_all()


@t.case
def a_successor_is_not_overtaken_by_late_writes() -> None:
    with slow() as (medium, d):
        leave_late_writes(medium, d, ROUNDS)


@t.case
def without_a_fence_late_writes_are_noticed() -> None:
    """Could the case before this one fail?"""
    with slow(UMDEV_WORKER=str(t.BUILD / "tests/survive/umdev-worker-unfenced")) as (medium, d):
        try:
            leave_late_writes(medium, d, ROUNDS)
        except t.Failure as e:
            t.check("wanted generation" in str(e), f"something else is wrong: {e}")
        else:
            raise t.Failure("late writes went unnoticed")


@t.case
def the_fence_costs_little_more_than_the_drain() -> None:
    """From the end of what the dead left to the first end of what the successor asks."""
    with slow() as (medium, d):
        children, extra = children_of_keeper(d), []
        for _ in range(20):
            medium.delay(0.03)
            write_some(d)
            t.wait_for(lambda: medium.under_way() == 16, 2, "the writes")
            medium.delay(0)
            kill_all(children())
            drained = time.monotonic()
            while medium.under_way():
                drained = time.monotonic()
            d.drain()
            extra.append(d.ended[-16] - drained)
        extra.sort()
        t.fact(f"first end after the drain: median {extra[10] * 1000:.1f} ms, "
               f"max {extra[-1] * 1000:.1f} ms")
        t.check(extra[10] < 0.15, f"median {extra[10]} s")


@t.case
def a_medium_that_hangs_stalls_its_device_only() -> None:
    with slow() as (medium, d):
        other = Disk(d.daemon, "memory", 1 << 20)
        medium.hold()
        write_some(d)
        t.wait_for(lambda: medium.under_way() == 16, 2, "the writes")
        kill_all(children_of_keeper(d)())
        began = time.monotonic()
        while not error_of(d):
            t.check(time.monotonic() - began < 10, "it was never shown as faulty")
            other.queue_any()
            other.ring()
            other.drain()
            d.get(0)  # registers are served
        t.check(time.monotonic() - began > 2.5, "it was given up at once")
        t.check("do not end" in error_of(d), f"error: {error_of(d)}")
        t.equal((d.daemon.state_of(d.uuid), error_of(other)), ("connected", ""), "state, other device")
        t.check(other.client.slowest < 1, f"the other waited {other.client.slowest} s")
        # Another death changes nothing: what the first left is still waited for.
        kill_all(children_of_keeper(d)())
        d.get(0)
        time.sleep(1.5)  # longer than the ring is looked at
        t.equal((medium.under_way(), d.reap()), (16, 0), "requests under way, ends")
        medium.go()
        d.drain()
        t.wait_for(lambda: not error_of(d), 2, "the device to be well again")
        d.check_all()
        other.check_all()
        other.close()


def kill_keeper(d: Disk) -> None:
    """And with it the worker: nobody of the group is left."""
    keeper = parent_of(d.worker())
    os.kill(keeper, signal.SIGKILL)
    t.wait_for(lambda: not os.path.exists(f"/proc/{keeper}") or "Z" in
               Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2][:3], 2, "its death")


def is_still_taken(medium: SlowDisk, d: Disk, under_way: int) -> None:
    """Nothing else gets the medium while what the dead asked of it is under way."""
    t.equal(medium.under_way(), under_way, "requests under way")
    t.equal(d.daemon.state_of(d.uuid), "connected", "state")
    t.check(d.daemon.umdev("remove", d.uuid, ok=False).returncode != 0, "it was removed")


@t.case
def the_death_of_all_is_waited_for_by_umdevd() -> None:
    with slow() as (medium, d):
        medium.hold()
        write_some(d)
        t.wait_for(lambda: medium.under_way() == 16, 2, "the writes")
        kill_keeper(d)
        began = time.monotonic()
        while not error_of(d):
            is_still_taken(medium, d, 16)
            t.check(time.monotonic() - began < 10, "it was never shown as faulty")
            time.sleep(0.1)
        t.check(time.monotonic() - began > 2.5, "it was given up at once")
        is_still_taken(medium, d, 16)
        medium.go()
        t.wait_for(lambda: d.daemon.state_of(d.uuid) == "failed", 5, "the end of the wait")
        t.equal(medium.under_way(), 0, "requests under way")
        t.check("signal 9" in error_of(d), f"error: {error_of(d)}")
        d.daemon.umdev("remove", d.uuid)
        t.equal(list((d.daemon.run / "worker").iterdir()), [], "sockets and graves")
        # The next owner of the volume.
        with contextlib.closing(Disk(d.daemon, "named", SIZE)) as n:
            write_some(n)
            n.drain()
            n.check_all()


@t.case
def the_death_of_all_and_of_umdevd_is_waited_for_by_the_next() -> None:
    with slow() as (medium, d):
        medium.hold()
        write_some(d)
        t.wait_for(lambda: medium.under_way() == 16, 2, "the writes")
        d.daemon.kill()
        for pid in d.daemon.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        t.wait_for(lambda: not d.daemon.workers(), 2, "their death")
        for _ in range(2):  # its own end changes nothing
            d.daemon.start()
            is_still_taken(medium, d, 16)
            t.check("waiting for the end of its requests" in d.daemon.log(), "nothing was said")
            d.daemon.kill()
        d.daemon.start()
        is_still_taken(medium, d, 16)
        medium.go()
        t.wait_for(lambda: d.daemon.state_of(d.uuid) == "idle", 5, "the end of the wait")
        t.equal((medium.under_way(), error_of(d)), (0, ""), "requests under way, error")
        t.equal(list((d.daemon.run / "worker").iterdir()), [], "sockets and graves")


@t.case
def umdevd_stops_all_the_same() -> None:
    """^C, in the end, whatever hangs."""
    with slow() as (medium, d):
        medium.hold()
        write_some(d)
        t.wait_for(lambda: medium.under_way() == 16, 2, "the writes")
        kill_keeper(d)
        d.daemon.stop()
        t.check("umdevd stops all the same" in d.daemon.log(), d.daemon.log()[-500:])


t.main()
