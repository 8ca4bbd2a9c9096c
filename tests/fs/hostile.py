#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What any local user can do to the tree of root's umdevd: look, and be in nobody's way."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, is_sanitized
from lib.sysfs import probe, write_result

UUID = "d0000000-0000-4000-8000-%012d"
SLOWEST_ANSWER = 3.0  # seconds; a quiet machine needs hundredths, a busy one tenths

# Everything that a user may try on every path of the tree, until killed.
TRY_ALL = """
import os, sys
root = sys.argv[1]
kept = []
while True:
    for directory, names, files in os.walk(root):
        for name in files + names + ["nosuch"]:
            path = os.path.join(directory, name)
            for call in (lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC),
                         lambda: os.chmod(path, 0o777), lambda: os.chown(path, 65534, 65534),
                         lambda: os.unlink(path), lambda: os.mkdir(path), lambda: os.utime(path),
                         lambda: os.rename(path, path + "x"), lambda: os.truncate(path, 0),
                         lambda: os.setxattr(path, "user.x", b"x"), lambda: os.readlink(path)):
                try:
                    fd = call()
                    if isinstance(fd, int):
                        print("opened", path, flush=True)
                except OSError:
                    pass
            try:
                fd = os.open(path, os.O_RDONLY)
                os.read(fd, 1)
                kept.append(fd)
                if len(kept) > 500:
                    os.close(kept.pop(0))
            except OSError:
                pass
"""


@contextlib.contextmanager
def open_tree() -> Iterator[Daemon]:
    """Of root, with a card, reachable by everybody."""
    if os.geteuid() != 0:
        t.skip("needs root: an ordinary user's tree is theirs alone")
    with Daemon() as d:
        d.dir.chmod(0o755)
        d.run.chmod(0o755)
        d.add_card("card0")
        yield d


def types(d: Daemon) -> Path:
    return d.sys / "class/mdev_bus/card0/mdev_supported_types"


def rss(d: Daemon) -> int:
    status = Path(f"/proc/{d.process.pid}/status").read_text()
    return int(next(s for s in status.splitlines() if s.startswith("VmRSS")).split()[1])


@contextlib.contextmanager
def vandals(d: Daemon, n: int) -> Iterator[list[subprocess.Popen[str]]]:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3",
               "-c", TRY_ALL, str(d.sys)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    try:
        yield running
    finally:
        for p in running:
            p.kill()
            p.wait()


@t.case
def an_ordinary_user_changes_nothing_and_delays_nobody() -> None:
    with open_tree() as d:
        t.equal(write_result(types(d) / "mtty-1/create", UUID % 0), "36", "create")
        before = probe(d.sys, "/sys")
        slowest = 0.0
        with vandals(d, 2) as running:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                begin = time.monotonic()
                t.equal(write_result(types(d) / "mtty-2/create", UUID % 1), "36", "create")
                t.equal(write_result(d.sys / "bus/mdev/devices" / (UUID % 1) / "remove", "1"), "1",
                        "remove")
                slowest = max(slowest, time.monotonic() - begin)
            for p in running:
                t.equal(p.poll(), None, "end of a vandal")
        opened = "".join(p.stdout.read() for p in running)
        t.equal(opened, "", "opened by an ordinary user for writing")
        t.equal(probe(d.sys, "/sys"), before, "tree")
        t.fact(f"slowest create and remove beside two vandals: {slowest * 1000:.0f} ms")
        t.check(slowest < SLOWEST_ANSWER, f"a create and remove took {slowest:.2f} s")


@t.case
def killed_readers_leave_nothing() -> None:
    with open_tree() as d:
        with vandals(d, 2):
            time.sleep(1)  # the heap has its size of normal use then
        before = rss(d)
        for _ in range(3):
            with vandals(d, 2):
                time.sleep(0.5)
        # A sanitizer keeps what was freed, to see late uses.
        t.check(rss(d) < before + 1024 or is_sanitized(),
                f"umdevd grew from {before} to {rss(d)} KiB")


@t.case
def a_walk_survives_what_changes_under_it() -> None:
    """find beside creates and removes: each entry either complete or gone, never another error."""
    with open_tree() as d:
        find = subprocess.Popen(["sh", "-c", 'while :; do find "$0" -ls; done', str(d.sys)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)
        try:
            for i in range(100):
                kind, uuid = f"mtty-{1 + i % 2}", UUID % i
                t.equal(write_result(types(d) / kind / "create", uuid), "36", "create")
                if i >= 10:
                    remove = d.sys / "bus/mdev/devices" / (UUID % (i - 10)) / "remove"
                    t.equal(write_result(remove, "1"), "1", "remove")
        finally:
            os.killpg(find.pid, signal.SIGKILL)
        errors = [line for line in find.communicate()[1].splitlines()
                  if "No such file or directory" not in line]
        t.equal(errors, [], "errors of find")
        t.equal(len(os.listdir(d.sys / "bus/mdev/devices")), 10, "devices")


@t.case
def who_sits_inside_does_not_keep_umdevd_from_ending() -> None:
    with open_tree() as d:
        sitter = subprocess.Popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                   "sh", "-c", "exec < name; echo here; exec sleep 60"],
                                  cwd=types(d) / "mtty-1", stdout=subprocess.PIPE)
        try:
            t.equal(sitter.stdout.readline(), b"here\n", "word of the one inside")
            d.stop()
            d.start()
            t.equal((types(d) / "mtty-1/available_instances").read_text(), "24\n", "available")
            t.equal(sitter.poll(), None, "end of the one inside")
        finally:
            sitter.kill()
            sitter.wait()


t.main()
