#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A display as its client sees it: BARs, EDID, memory; what its parameters allow."""
from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess

from lib import t
from lib.daemon import Daemon, worker_of
from lib.vfio_user import Client

VIDEO, REGISTERS = 0, 2
MIB = 1 << 20


def parent(d: Daemon, *settings: str) -> None:
    d.umdev("parent", "add", "gpu", "driver=display", *settings)


def dispi(c: Client, index: int, value: int) -> None:
    c.write(REGISTERS, 0x500 + 2 * index, struct.pack("<H", value))


def dispi_of(c: Client, index: int) -> int:
    return struct.unpack("<H", c.read(REGISTERS, 0x500 + 2 * index, 2))[0]


@t.case
def the_memory_of_each_type_is_a_bar_that_the_client_maps() -> None:
    with Daemon() as d:
        parent(d, "memory=1G")
        for kind, settings, size in (("16m", (), 16), ("32m", (), 32), ("64m", (), 64),
                                     ("16m", ("aggregation=8",), 128)):
            uuid = d.create("gpu", f"display-{kind}", *settings)
            with Client(d.socket(uuid)) as c:
                t.equal(c.config(0), 0x11111234, "vendor and device")
                t.equal(c.config(8) >> 8, 0x038000, "class")
                info = c.region_info(VIDEO)
                t.equal(info.size, size * MIB, "size of the BAR")
                t.equal(dispi_of(c, 10), size * MIB >> 16, "memory register")
                with mmap.mmap(info.fds[0], info.size) as video:
                    t.equal(video[:64], bytes(64), "fresh memory")
                    video[0:4] = b"mine"
                    t.equal(c.read(VIDEO, 0, 4), b"mine", "what was written")
            t.wait_for(lambda: d.state_of(uuid) == "idle", 5, "idle")
            with Client(d.socket(uuid)) as c:
                t.equal(c.read(VIDEO, 0, 4), bytes(4), "memory of the owner before")


@t.case
def the_monitor_prefers_what_the_parameters_say() -> None:
    with Daemon() as d:
        parent(d)
        uuid = d.create("gpu", "display-16m", "xres=1280", "yres=800")
        with Client(d.socket(uuid)) as c:
            edid = c.read(REGISTERS, 0, 128)
        t.equal(sum(edid) % 256, 0, "checksum")
        p = subprocess.run(["edid-decode", "--check"], input=edid, capture_output=True)
        text = p.stdout.decode()
        t.check("1280x800" in text, text)
        t.check("Failures" not in text and p.returncode == 0, text)


@t.case
def a_picture_that_does_not_fit_is_refused_with_the_way_out() -> None:
    with Daemon() as d:
        parent(d)
        for settings, words in ((("xres=4080", "yres=4080"), "needs 64 MiB"),
                                (("aggregation=3",), "power of two")):
            p = d.umdev("create", "-p", "gpu", "-t", "display-16m", *settings, ok=False)
            t.check(p.returncode != 0 and words in p.stderr, p.stderr)
        uuid = d.create("gpu", "display-16m")
        p = d.umdev("param", "set", uuid, "xres=4080", "yres=4080", ok=False)
        t.check(p.returncode != 0 and "video memory" in p.stderr, p.stderr)


@t.case
def registers_and_picture_survive_a_killed_worker() -> None:
    with Daemon() as d:
        parent(d)
        uuid = d.create("gpu", "display-16m")
        with Client(d.socket(uuid)) as c:
            c.write(VIDEO, 0x1000, b"picture!")
            for index, value in ((4, 0), (3, 32), (1, 800), (2, 600), (6, 800), (4, 0x41)):
                dispi(c, index, value)
            os.kill(worker_of(d, uuid), signal.SIGKILL)
            t.equal([dispi_of(c, i) for i in (1, 2, 4, 6)], [800, 600, 0x41, 800], "registers")
            t.equal(c.read(VIDEO, 0x1000, 8), b"picture!", "picture")


t.main()
