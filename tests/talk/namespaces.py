#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Volumes of a device that is served: they come, grow and go under its host, one has them at a time,
and neither a killed worker nor a killed umdevd changes that."""
from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, parent_of, worker_of
from lib.nvme import INVALID_FIELD, OK, READ, WRITE, Host, rw
from lib.sysfs import write_result

MIB = 1 << 20
BLOCK = 512


class Rig:
    def __init__(self, d: Daemon) -> None:
        self.d = d
        self.store = d.dir / "store"
        self.store.mkdir()
        self.parent = d.sys / "class/mdev_bus/p"
        with d.varlink() as v:
            v.call("ParentAdd", name="p", driver="disk", settings=[f"store={self.store}"])

    def write(self, path: str, text: str) -> str:
        r = write_result(self.parent / path, text)
        return "ok" if r.isdigit() else r

    def read(self, path: str) -> str:
        return (self.parent / path).read_text().removesuffix("\n")

    def volume(self, name: str, size: str = "1M") -> None:
        t.equal(self.write("volumes/create", f"{name},size={size}"), "ok", "create")

    def device(self, *settings: str) -> str:
        return self.d.create("p", "disk-nvme", *settings)

    def states(self, device: str) -> list[str]:
        return [line.split()[3] for line in self.read(f"{device}/vendor/namespaces").splitlines()]

    def is_locked(self, volume: str) -> bool:
        """Against another program."""
        with open(self.store / f"{volume}.raw", "rb") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    with Daemon() as d:
        yield Rig(d)


def blocks(h: Host, nsid: int) -> int:
    """0: it is not active."""
    return int.from_bytes(h.identify(0, nsid)[:8], "little")


def active(h: Host) -> list[int]:
    page = h.identify(2)
    ids = [int.from_bytes(page[i:i + 4], "little") for i in range(0, 64, 4)]
    return [i for i in ids if i]


class Disk:
    """One namespace: blocks are written with a number and read back."""

    def __init__(self, h: Host, nsid: int) -> None:
        self.h, self.nsid = h, nsid
        self.sq = h.pair()
        self.page = h.page()

    def put(self, block: int, byte: int) -> int:
        self.h.put(self.page, bytes([byte]) * BLOCK)
        return self.h.call(self.sq, rw(WRITE, block, 1, self.nsid, prp1=self.page)).code

    def get(self, block: int) -> bytes:
        self.h.put(self.page, b"\xee" * BLOCK)
        t.equal(self.h.call(self.sq, rw(READ, block, 1, self.nsid, prp1=self.page)).code, OK, "read")
        return self.h.get(self.page, BLOCK)


@t.case
def volumes_come_grow_and_go_under_a_host() -> None:
    with rig() as r:
        r.volume("one")
        r.volume("two", "2M")
        device = r.device("volume=one")
        with Host(r.d, device) as h:
            t.equal((active(h), r.states(device)), ([1], ["served"]), "namespaces")
            t.equal(r.write(f"{device}/vendor/assign_namespace", "two"), "ok", "assign")
            t.equal((active(h), r.states(device)), ([1, 2], ["served", "served"]), "namespaces")
            t.equal(blocks(h, 2), 2 * MIB // BLOCK, "blocks")
            disk = Disk(h, 2)
            t.equal(disk.put(7, 0x77), OK, "write")
            t.equal(r.write("volumes/two/size", "4M"), "ok", "grow")
            t.equal(blocks(h, 2), 4 * MIB // BLOCK, "blocks")
            t.equal(disk.put(4 * MIB // BLOCK - 1, 0x55), OK, "write to what came")
            t.equal(disk.get(3 * MIB // BLOCK), bytes(BLOCK), "read of what came")
            t.check(r.is_locked("two"), "it is locked")
            t.equal(r.write("volumes/two/delete", "1"), "EBUSY", "delete")
            t.equal(r.write(f"{device}/vendor/unassign_namespace", "two"), "ok", "unassign")
            t.equal(active(h), [1], "namespaces")
            t.check(not r.is_locked("two"), "it is free")
            t.equal(disk.put(7, 0x66), INVALID_FIELD, "write to what has gone")
        raw = (r.store / "two.raw").read_bytes()
        t.equal(raw[7 * BLOCK:8 * BLOCK], b"\x77" * BLOCK, "what was written")


@t.case
def its_own_volume_grows_under_a_host() -> None:
    with rig() as r:
        device = r.device("capacity=1M")
        with Host(r.d, device) as h:
            t.equal(r.write(f"{device}/mdev/capacity/value", "2M"), "ok", "capacity")
            t.equal(blocks(h, 1), 2 * MIB // BLOCK, "blocks")
        null = r.device("media=null", "capacity=1G")
        with Host(r.d, null) as h:
            t.equal(blocks(h, 1), (1 << 30) // BLOCK, "blocks of a null medium")
            t.equal(r.write(f"{null}/mdev/capacity/value", "2G"), "ok", "capacity")
            t.equal(blocks(h, 1), (2 << 30) // BLOCK, "blocks of a null medium")
            t.equal(r.write(f"{null}/mdev/capacity/value", "1G"), "EBUSY", "smaller")


@t.case
def one_has_a_volume_at_a_time() -> None:
    with rig() as r:
        r.volume("data")
        first = r.device("volume=data")
        second = r.device("volume=data", "incoming=yes")
        t.equal(r.is_locked("data"), False, "an idle device locks nothing")
        h = Host(r.d, first)
        t.equal(Disk(h, 1).put(0, 0x11), OK, "write")
        with Host(r.d, second) as other:
            t.equal((active(other), r.states(second)), ([], ["waiting"]), "who waits")
            h.close()
            t.wait_for(lambda: r.states(second) == ["served"], 10, "the volume")
            t.equal(active(other), [1], "namespaces")
            t.equal(Disk(other, 1).get(0), b"\x11" * BLOCK, "what the other one wrote")
        t.wait_for(lambda: not r.is_locked("data"), 10, "the volume to be free")
        # Another program may have it, too.
        with open(r.store / "data.raw", "rb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            third = r.device()
            t.equal(r.write(f"{second}/remove", "1"), "ok", "remove")
            with contextlib.suppress(ConnectionError, t.Failure):
                Host(r.d, first).close()
            t.check("volume data is in use by another device or program" in r.d.log(), "refusal")
            t.equal(r.write(f"{first}/remove", "1"), "ok", "remove")
            with Host(r.d, third) as h:
                t.equal(r.write(f"{third}/vendor/assign_namespace", "data"), "EBUSY", "assign")
                t.equal((active(h), r.read(f"{third}/vendor/volume/value")), ([], ""), "nothing")


@t.case
def readers_are_served_together() -> None:
    with rig() as r:
        r.volume("data")
        devices = [r.device("volume=data", "read_only=yes") for _ in range(2)]
        with Host(r.d, devices[0]) as a, Host(r.d, devices[1]) as b:
            for h in (a, b):
                t.equal(Disk(h, 1).get(0), bytes(BLOCK), "read")
            t.check(r.is_locked("data"), "against a writer it is locked")


@t.case
def a_killed_umdevd_and_worker_change_nothing() -> None:
    with rig() as r:
        for name in ("one", "two", "three"):
            r.volume(name)
        device = r.device("volume=one")
        with Host(r.d, device) as h:
            t.equal(r.write(f"{device}/vendor/assign_namespace", "two"), "ok", "assign")
            t.equal(r.write("volumes/two/size", "2M"), "ok", "grow")
            os.kill(worker_of(r.d, device), signal.SIGKILL)
            t.equal(blocks(h, 2), 2 * MIB // BLOCK, "blocks after the death of the worker")
            r.d.kill()
            t.check(r.is_locked("two"), "it is locked")
            r.d.start()
            t.wait_for(lambda: r.states(device) == ["served", "served"], 10, "the namespaces")
            t.equal((active(h), blocks(h, 2)), ([1, 2], 2 * MIB // BLOCK), "namespaces")
            t.equal(r.write(f"{device}/vendor/unassign_namespace", "one"), "ok", "unassign")
            t.equal(r.write(f"{device}/vendor/assign_namespace", "three"), "ok", "assign")
            t.equal(active(h), [1, 2], "namespaces")
            t.check(not r.is_locked("one") and r.is_locked("three"), "locks")


@t.case
def r_an_answer_to_the_umdevd_before_is_none_to_this_one() -> None:
    with rig() as r:
        for name in ("one", "two"):
            r.volume(name)
        device = r.device("volume=one")
        with Host(r.d, device) as h:
            for old, new in (("one", "two"), ("two", "one")) * 3:
                r.d.kill()
                r.d.start()
                t.equal(r.write(f"{device}/vendor/unassign_namespace", old), "ok", "unassign")
                t.equal(r.write(f"{device}/vendor/assign_namespace", new), "ok", "assign")
                t.equal(active(h), [1], "namespaces")
                t.check(not r.is_locked(old) and r.is_locked(new), "locks")


@t.case
def r_media_are_not_opened_to_return_at_once() -> None:
    """io_uring gives such a request back undone on file systems that cannot poll: it would spin."""
    with rig() as r:
        r.volume("data")
        device = r.device("volume=data")
        with Host(r.d, device):
            keeper = parent_of(worker_of(r.d, device))
            found = [fd for fd in os.listdir(f"/proc/{keeper}/fd")
                     if os.readlink(f"/proc/{keeper}/fd/{fd}").endswith("data.raw")]
            t.equal(len(found), 1, "descriptors of the volume")
            info = Path(f"/proc/{keeper}/fdinfo/{found[0]}").read_text()
            flags = int(next(x for x in info.splitlines() if x.startswith("flags:")).split()[1], 8)
            t.equal(flags & os.O_NONBLOCK, 0, "O_NONBLOCK")


@t.case
def r_a_worker_may_answer_as_often_as_it_is_asked() -> None:
    """More than a thousand answers in a second were taken for an attack."""
    with rig() as r:
        r.volume("data")
        device = r.device()
        with Host(r.d, device) as h:
            n, end = 0, time.monotonic() + 1.2
            while time.monotonic() < end:
                for change in ("assign_namespace", "unassign_namespace"):
                    t.equal(r.write(f"{device}/vendor/{change}", "data"), "ok", change)
                    n += 1
            t.fact(f"{n / 1.2:.0f} changes per second")
            t.equal((active(h), r.d.state_of(device)), ([], "connected"), "afterwards")


def write_and_forget(r: Rig, device: str, change: str) -> None:
    with contextlib.suppress(OSError):
        r.write(f"{device}/vendor/{change}", "one")


@t.case
def a_composition_that_umdevd_died_in_is_completed() -> None:
    """What the model says and what the worker has are made the same by the next umdevd."""
    with rig() as r:
        r.volume("one")
        device = r.device()
        with Host(r.d, device) as h:
            for change, wanted in (("assign_namespace", [1]), ("unassign_namespace", [])):
                # The worker does not answer, so the change is under way when umdevd dies.
                worker = worker_of(r.d, device)
                keeper = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
                os.kill(keeper, signal.SIGSTOP)  # it would take a stopped worker for a hung one
                os.kill(worker, signal.SIGSTOP)
                writer = threading.Thread(target=write_and_forget, args=(r, device, change))
                writer.start()
                time.sleep(0.2)
                r.d.kill()
                writer.join(10)
                os.kill(worker, signal.SIGCONT)
                os.kill(keeper, signal.SIGCONT)
                r.d.start()
                t.wait_for(lambda: active(h) == wanted, 10, f"namespaces {wanted}")
                t.wait_for(lambda: r.states(device) == ["served"] * len(wanted), 10, "states")
                t.equal(r.is_locked("one"), bool(wanted), "locked")


@t.case
def namespaces_come_and_go_under_load() -> None:
    """Writes to one namespace while another comes and goes, and workers die."""
    with rig() as r:
        r.volume("base", "4M")
        r.volume("guest")
        device = r.device("volume=base")
        stop = threading.Event()
        failures: list[str] = []

        def compose() -> None:
            while not stop.is_set() and not failures:
                for change in ("assign_namespace", "unassign_namespace"):
                    said = r.write(f"{device}/vendor/{change}", "guest")
                    if said != "ok":
                        failures.append(f"{change}: {said}")

        with Host(r.d, device) as h:
            disk = Disk(h, 1)
            thread = threading.Thread(target=compose)
            thread.start()
            try:
                end = time.monotonic() + 3
                n = 0
                while time.monotonic() < end:
                    t.equal(disk.put(n % 8192, n & 0xff), OK, "write")
                    if n % 200 == 199:
                        os.kill(worker_of(r.d, device), signal.SIGKILL)
                    n += 1
            finally:
                stop.set()
                thread.join(20)
            t.equal(failures, [], "changes that failed")
            t.equal(active(h), [1], "namespaces")
            t.fact(f"{n} writes")


t.main()
