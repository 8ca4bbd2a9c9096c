#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Volumes while what works on them is killed or fails: one is there, whole, or it is not there; no
byte of it was anybody's.

umdev-store is killed at, and each kind of error given to, every system call of every piece of work.
umdevd is killed at random moments while it makes, resizes and deletes.
"""
from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon
from lib.sysfs import write_result

OLD, NEW = 64 << 10, 192 << 10
PATTERN = b"\x5a"
KILLS = 15


def record(size: int) -> str:
    return f"umdev volume 1\nsize {size}\nthin no\n"


class Store:
    """A directory, and umdev-store in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store"
        self.log = folder / "log"
        self.raw = self.path / "data.raw"
        self.volume = self.path / "data.volume"

    def empty(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()

    def full(self) -> None:
        """One volume of OLD bytes, written by its tenant."""
        self.empty()
        self.raw.write_bytes(PATTERN * OLD)
        self.volume.write_text(record(OLD))

    def going(self) -> None:
        """The same, and umdevd has just decided to delete it."""
        self.full()
        self.volume.rename(self.path / "data.deleting")

    def run(self, *arguments: str, inject: str = "") -> int:
        """Exit status; negative: the signal."""
        command = [str(t.BUILD / "src/store/umdev-store"), *arguments]
        if inject:
            command = ["strace", "-o", str(self.log), "-e", f"inject={inject}", *command]
        fds = [os.open(self.path, os.O_RDONLY)]
        fds.append(os.open(self.raw, os.O_RDWR) if self.raw.exists() else
                   os.open("/dev/null", os.O_RDWR))

        def place() -> None:
            for i, fd in enumerate(fds):
                os.dup2(os.dup(fd), 20 + i)
            for i in range(2):
                os.dup2(20 + i, 3 + i)
        p = subprocess.run(command, preexec_fn=place, stdin=subprocess.DEVNULL, close_fds=False,
                           capture_output=True)
        for fd in fds:
            os.close(fd)
        return p.returncode

    def calls(self, *arguments: str) -> list[str]:
        """Names of the system calls that the work makes once it is closed in."""
        t.equal(self.run(*arguments, inject="close_range:delay_enter=0"), 0, "undisturbed")
        names = [line.split("(")[0] for line in self.log.read_text().splitlines() if "(" in line]
        return names[:names.index("exit_group") + 1]

    def size(self) -> int:
        """What the record says; -1: there is no volume."""
        if not self.volume.exists():
            return -1
        lines = self.volume.read_text().splitlines()
        t.equal(lines[0], "umdev volume 1", "record")
        return int(lines[1].split()[1])

    def clean(self) -> None:
        t.equal(self.run("clean", "data"), 0, "clean")
        t.equal(os.listdir(self.path), [], "what is left after cleaning")


CREATE = ("create", "data", "file", "thick", str(NEW), record(NEW))
GROW = ("grow", "data", "file", "thick", str(OLD), str(NEW), record(NEW))
SHRINK = ("shrink", "data", "file", "4096", record(4096))
DELETE = ("delete", "data")


def created(s: Store, done: bool) -> None:
    if s.size() < 0:
        t.check(not done, "it is not there")
        s.clean()
        return
    t.equal(s.size(), NEW, "size")
    t.equal(s.raw.read_bytes(), bytes(NEW), "bytes")


def grown(s: Store, done: bool) -> None:
    t.check(s.size() == NEW or (not done and s.size() == OLD), f"size {s.size()}")
    data = s.raw.read_bytes()
    t.check(len(data) >= s.size(), f"{len(data)} bytes")
    t.equal(data[:OLD], PATTERN * OLD, "what was there")
    t.equal(data[OLD:s.size()], bytes(s.size() - OLD), "what came")
    if s.size() == OLD:
        t.equal(s.run(*GROW), 0, "growing again")
        t.equal(s.raw.read_bytes(), PATTERN * OLD + bytes(NEW - OLD), "bytes")


def shrunk(s: Store, done: bool) -> None:
    t.check(s.size() == 4096 or (not done and s.size() == OLD), f"size {s.size()}")
    t.equal(s.raw.read_bytes()[:s.size()], PATTERN * s.size(), "bytes")
    t.equal(s.run("grow", "data", "file", "thick", str(s.size()), str(NEW), record(NEW)), 0, "grow")
    t.equal(s.raw.read_bytes().rstrip(b"\0"), PATTERN * s.raw.read_bytes().count(PATTERN), "bytes")


def deleted(s: Store, done: bool) -> None:
    t.equal(s.size(), -1, "size")
    t.check(not done or not os.listdir(s.path), "it is still there")
    s.clean()


# What is done, from which state, and what may be found then.
WORK: list[tuple[tuple[str, ...], Callable[[Store], None], Callable[[Store, bool], None]]] = [
    (CREATE, Store.empty, created), (GROW, Store.full, grown), (SHRINK, Store.full, shrunk),
    (DELETE, Store.going, deleted)]


@contextlib.contextmanager
def stores() -> Iterator[Store]:
    if not shutil.which("strace"):
        t.skip("no strace here: run tools/setup")
    with t.TempDir() as folder:
        yield Store(folder)


def at_each_call(fault: Callable[[int, str], str], may_be_well: bool) -> int:
    """fault: what strace injects at the nth call, of that name among those."""
    n_faults = 0
    with stores() as s:
        for arguments, prepare, check in WORK:
            prepare(s)
            names = s.calls(*arguments)
            first = names.index("close_range") + 1
            for n in range(first, len(names)):
                nth = names[:n + 1].count(names[n])
                prepare(s)
                status = s.run(*arguments, inject=fault(nth, names[n]))
                t.check(may_be_well or status, f"{arguments[0]}: fault at {names[n]} {nth}")
                try:
                    check(s, status == 0)
                except t.Failure as e:
                    raise t.Failure(f"{arguments[0]}, {names[n]} number {nth}, status {status}: "
                                    f"{e}") from None
                n_faults += 1
    return n_faults


@t.case
def killed_at_every_system_call() -> None:
    n = at_each_call(lambda nth, name: f"{name}:signal=KILL:when={nth}", False)
    t.fact(f"{n} kills")
    t.check(n > 60, f"only {n} kills")


@t.case
def every_system_call_may_fail() -> None:
    n = at_each_call(lambda nth, name: f"{name}:error={'EIO' if nth % 2 else 'ENOSPC'}:when={nth}",
                     True)
    t.check(n > 60, f"only {n} failures")


# ---- umdevd ----

class Tenant(threading.Thread):
    """Makes, grows and deletes a volume of its own again and again, and knows what was answered."""

    def __init__(self, volumes: Path, name: str, stop: threading.Event) -> None:
        super().__init__()
        self.volumes, self.name_, self.stop = volumes, name, stop
        self.there: bool | None = False  # None: the answer did not come
        self.start()

    def step(self, path: str, text: str, then: bool) -> bool:
        try:
            r = write_result(self.volumes / path, text)
        except OSError:
            r = "gone"
        if r.isdigit():
            self.there = then
            return True
        self.there = None
        return False

    def run(self) -> None:
        while not self.stop.is_set():
            if not (self.step("create", f"{self.name_},size={OLD}", True) and
                    self.step(f"{self.name_}/size", str(NEW), True) and
                    self.step(f"{self.name_}/delete", "1", False)):
                return


def state(volume: Path) -> str:
    try:
        return (volume / "state").read_text().strip()
    except OSError:
        return "gone"


@t.case
def umdevd_is_killed_at_any_moment() -> None:
    rng = random.Random(5)
    half = 0
    with Daemon() as d:
        path = d.dir / "store"
        path.mkdir()
        with d.varlink() as v:
            v.call("ParentAdd", name="p", driver="disk", settings=[f"store={path}"])
        volumes = d.sys / "class/mdev_bus/p/volumes"
        for round_ in range(KILLS):
            stop = threading.Event()
            tenants = [Tenant(volumes, f"t{round_}-{i}", stop) for i in range(3)]
            time.sleep(rng.uniform(0.005, 0.15))
            stop.set()
            d.kill()
            for x in tenants:
                x.join(10)
            half += sum(n.endswith((".making", ".deleting")) for n in os.listdir(path))
            d.start()
            t.wait_for(lambda: all(state(volumes / n) == "ready" for n in os.listdir(volumes)
                                   if n != "create"), 10, "all volumes ready")
            found = {n for n in os.listdir(volumes) if n != "create"}
            for x in tenants:
                t.check(x.there is None or x.there == (x.name_ in found),
                        f"{x.name_} was answered {x.there}: {found}")
            for name in found:
                size = int((volumes / name / "size").read_text())
                data = (path / f"{name}.raw").read_bytes()
                t.check(size in (OLD, NEW) and data[:size] == bytes(size), f"{name}: {size}")
                t.check(write_result(volumes / name / "delete", "1").isdigit(), "delete")
            t.equal(os.listdir(path), [], "store")
    t.fact(f"{KILLS} kills of umdevd, {half} volumes half made or half deleted")


t.main()
