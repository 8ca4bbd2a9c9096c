#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""umdevd where a container, or an old kernel, gives less: it serves all the same, and says once, at
its start, what its workers do without."""
from __future__ import annotations

import contextlib
import os
import platform
import shutil
import struct
import subprocess

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon
from lib.test_blk import QueueDisk
from lib.vfio_user import Client, Ram

CONFINED = str(t.ROOT / "tests/lib/confined")
SCR, PAGE, SOMEBODY = 7, 4096, 61235
# Registers and commands of test-blk, src/drivers/test/blk.h
SQ, CQ, ENTRIES, VECTOR, TAIL = 0x08, 0x10, 0x18, 0x1c, 0x20
READ, WRITE, FLUSH = 1, 2, 3


def needed(*programs: str) -> None:
    if platform.machine() != "x86_64" or not all(shutil.which(p) for p in programs):
        t.skip(f"needs x86-64 {' '.join(programs)}: run tools/setup")


def as_somebody(case: str) -> None:
    """This case once more, by an ordinary user."""
    p = subprocess.run(["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups",
                        "/usr/bin/python3", __file__, case], capture_output=True, text=True,
                       timeout=60, env={**os.environ, "PYTHONPATH": str(t.ROOT / "tests")},
                       check=False)
    print("\n".join(f"  as somebody: {line}" for line in (p.stdout + p.stderr).splitlines()))
    t.check(p.returncode == 0 and f"ok {case}" in p.stdout, "it failed for an ordinary user")


def writes_and_reads_a_disk(d: Daemon) -> None:
    disk = d.create("lab", "test-blk", "medium=file")
    with Client(d.socket(disk)) as c, contextlib.closing(Ram(16 * PAGE)) as ram:
        c.dma_map(0, 16 * PAGE, ram.fd)
        line = c.arm(vu.MSIX, 0)
        c.set_config(4, 2, 6)
        c.set_config(c.capability(0x11) + 2, 2, 0x8000)
        c.write(4, 12, bytes(4))
        for register, value, size in ((SQ, 0, 8), (CQ, PAGE, 8), (ENTRIES, 8, 4), (VECTOR, 0, 4)):
            c.write(0, register, value.to_bytes(size, "little"))
        ram.map[2 * PAGE:3 * PAGE] = b"w" * PAGE
        for i, (op, at) in enumerate(((WRITE, 2 * PAGE), (FLUSH, 0), (READ, 3 * PAGE))):
            struct.pack_into("<IIQQII", ram.map, i * 32, op, i, 5 if at else 0, at, 1 if at else 0, 0)
            c.write(0, TAIL, (i + 1).to_bytes(4, "little"))
            t.check(line.wait() > 0, f"operation {op} does not end")
            number, status = struct.unpack_from("<Ii", ram.map, PAGE + i * 16)
            t.equal((number, status), (i, 0), f"end of operation {op}")
        t.equal(ram.map[3 * PAGE:4 * PAGE], b"w" * PAGE, "what was read")


def serves(d: Daemon) -> None:
    d.umdev("parent", "add", "lab", "driver=test")
    d.add_card()
    for _ in range(2):
        port = d.create("card0", "mtty-1")
        with Client(d.socket(port)) as c:
            c.write(0, SCR, b"\x42")
            t.equal(c.read(0, SCR, 1), b"\x42", "scratch register")
    writes_and_reads_a_disk(d)
    reads_a_queue(d)


def reads_a_queue(d: Daemon) -> None:
    """The same by an I/O queue, which has a thread of its own where there is no io_uring."""
    disk = QueueDisk(d, "file", 1 << 20)
    try:
        for _ in range(20):
            for _ in range(16):
                disk.queue_any()
            disk.ring()
            disk.drain()
        disk.check_all()
    finally:
        disk.close()


def lacking(d: Daemon) -> list[str]:
    return [line for line in d.log().splitlines() if "go on without" in line]


@t.case
def a_container_without_landlock_and_io_uring_serves_and_says_so_once() -> None:
    needed("setpriv", "unshare")
    if os.geteuid() == 0:
        as_somebody(a_container_without_landlock_and_io_uring_serves_and_says_so_once.__name__)
        return
    # Root of a user namespace with mounts of its own, and an ordinary user outside.
    below = ("unshare", "--user", "--map-root-user", "--mount", CONFINED,
             "landlock_create_ruleset=ENOSYS", "io_uring_setup=EPERM", "--")
    with Daemon(below=below) as d:
        serves(d)
        t.equal(len(lacking(d)), 1, f"lines: {lacking(d)}")
        for word in (" landlock;", " io_uring "):
            t.check(word in lacking(d)[0], f"no{word}in {lacking(d)}")
        t.check("namespace" not in lacking(d)[0], f"said: {lacking(d)}")


@t.case
def where_no_user_namespace_can_be_made_devices_are_served() -> None:
    needed()
    if os.geteuid() != 0:
        t.skip("needs root: for others a filter would forbid fusermount3")
    with Daemon(below=(CONFINED, "unshare=EPERM", "--")) as d:
        serves(d)
        t.equal(len(lacking(d)), 1, f"lines: {lacking(d)}")
        t.check("user namespace;" in lacking(d)[0] and "landlock" not in lacking(d)[0],
                f"said: {lacking(d)}")


@t.case
def where_nothing_lacks_nothing_is_said() -> None:
    with Daemon() as d:
        t.equal(lacking(d), [], "lines")


t.main()
