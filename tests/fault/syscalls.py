#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""System calls of umdevd fail, one after the other, while a device is made and removed.

strace is attached to umdevd and lets the nth call of one kind fail. The write to create then either
succeeds or names that errno, and leaves nothing behind; a removal cannot fail.
"""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, program
from lib.sysfs import probe, write_result
from lib.vfio_user import Client

UUID = "f0000000-0000-4000-8000-000000000001"
ERROR = "EDQUOT"  # nothing here returns it by itself
# What making a device's directory and socket may call; not those of the loop and the FUSE door.
CALLS = ("mkdir", "mkdirat", "open", "openat", "socket", "bind", "listen", "fchmodat", "chmod",
         "epoll_ctl", "newfstatat", "fstat", "rename", "renameat", "symlinkat", "unlinkat", "rmdir")
CONNECT_CALLS = ("accept4", "socketpair", "socket", "bind", "listen", "memfd_create", "fcntl",
                 "openat", "clone3", "pidfd_open", "epoll_ctl", "sendmsg", "symlinkat")
MOST = 12  # calls of one kind for one request


@contextlib.contextmanager
def injected(pid: int, call: str, n: int, log: Path, error: str = ERROR) -> Iterator[None]:
    """The nth of these calls from now fails, once."""
    p = subprocess.Popen(["strace", "-q", "-o", str(log), "-p", str(pid), "-e", f"trace={call}",
                          "-e", f"inject={call}:error={error}:when={n}"],
                         stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{pid}/status")
    try:
        t.wait_for(lambda: p.poll() is not None or f"TracerPid:\t{p.pid}" in status.read_text(), 5,
                   "strace")
        if p.poll() is not None:
            t.skip(f"strace cannot attach: {p.stderr.read().strip()}")
        yield
    finally:
        p.send_signal(signal.SIGTERM)
        p.wait()


@contextlib.contextmanager
def card() -> Iterator[Daemon]:
    if not shutil.which("strace"):
        t.skip("no strace here: run tools/setup")
    with Daemon() as d:
        d.add_card("card0")
        yield d


def create(d: Daemon) -> str:
    path = d.sys / "class/mdev_bus/card0/mdev_supported_types/mtty-2/create"
    return write_result(path, UUID)


def remove(d: Daemon) -> str:
    return write_result(d.sys / "bus/mdev/devices" / UUID / "remove", "1")


def hits(log: Path) -> int:
    return log.read_text().count("(INJECTED)")


@t.case
def a_device_is_made_or_says_why_not() -> None:
    refused = []
    with card() as d:
        log = d.dir / "strace"
        before = probe(d.sys, "/sys")
        for call in CALLS:
            for n in range(1, MOST):
                with injected(d.process.pid, call, n, log):
                    answer = create(d)
                if not hits(log):
                    t.equal(answer, "36", "create")
                elif answer != "36":
                    t.equal(answer, ERROR, f"create with {call} {n} failing")
                    t.equal(probe(d.sys, "/sys"), before, f"tree after {call} {n} failed")
                    t.check(not d.device_dir(UUID).exists(), f"{call} {n} left the directory")
                    refused.append(f"{call}:{n}")
                    t.equal(create(d), "36", f"create after {call} {n} failed")
                t.equal(remove(d), "1", "remove")
                if not hits(log):
                    break
    t.fact(f"refused: {' '.join(refused)}")
    t.check(len(refused) >= 5, "hardly a call was refused")


@t.case
def a_removal_succeeds_whatever_fails() -> None:
    with card() as d:
        log = d.dir / "strace"
        for call in CALLS:
            for n in range(1, MOST):
                t.equal(create(d), "36", f"create before {call} {n}")
                with injected(d.process.pid, call, n, log):
                    t.equal(remove(d), "1", f"remove with {call} {n} failing")
                t.equal(os.listdir(d.sys / "bus/mdev/devices"), [], "devices")
                if not hits(log):
                    break


def connect(d: Daemon) -> str:
    try:
        with Client(d.socket(UUID)) as c:
            c.info()
    except (EOFError, ConnectionError):
        return "refused"
    finally:
        t.wait_for(lambda: not d.workers(), 10, "the end of the worker")
    return "served"


@t.case
def a_client_is_served_or_refused() -> None:
    """With a shortage, which passes: the next client is served."""
    program("umdev-worker")
    refused = []
    with card() as d:
        log = d.dir / "strace"
        t.equal(create(d), "36", "create")
        for call in CONNECT_CALLS:
            for n in range(1, MOST):
                with injected(d.process.pid, call, n, log, "ENOMEM"):
                    answer = connect(d)
                if answer == "refused":
                    t.check(hits(log), f"refused, and no {call} failed")
                    t.equal(connect(d), "served", f"the next client after {call} {n} failed")
                    refused.append(f"{call}:{n}")
                if not hits(log):
                    break
        t.equal(d.state_of(UUID), "idle", "state")
    t.fact(f"refused: {' '.join(refused)}")
    t.check(len(refused) >= 4, "hardly a call was refused")


t.main()
