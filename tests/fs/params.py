#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Parameters from the file that is written to the register of the device that shows them: the
driver `test` with a client connected, and without one."""
from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, program
from lib.sysfs import write_result
from lib.vfio_user import Client

UUID = "d0000000-0000-4000-8000-000000000001"
OTHER = "d0000000-0000-4000-8000-000000000002"
BAR0 = 0
UNITS, GAIN, COLOR = 0x04, 0x38, 0x3C  # registers of the driver, src/drivers/test/test.h
PARENT_REFUSES, DEVICE_REFUSES, DEVICE_HANGS, DEVICE_TRAPS = "13", "14", "98", "99"
SCRATCH = 0x08


@contextlib.contextmanager
def parent() -> Iterator[tuple[Daemon, Path]]:
    """A parent, and the directory of its type with registers."""
    program("umdev-worker")
    with Daemon() as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="p", driver="test", settings=[])
        yield d, d.sys / "class/mdev_bus/p/mdev_supported_types/test-regs"


def device(d: Daemon) -> Path:
    return d.sys / "bus/mdev/devices" / UUID


def read(path: Path) -> str:
    return path.read_text().rstrip("\n")


def register(c: Client, offset: int) -> int:
    return struct.unpack("<I", c.read(BAR0, offset, 4))[0]


@contextlib.contextmanager
def client(d: Daemon) -> Iterator[Client]:
    with Client(d.socket(UUID)) as c:
        t.wait_for(lambda: d.state_of(UUID) == "connected", 5, "the client")
        yield c
    t.wait_for(lambda: d.state_of(UUID) == "idle", 5, "the client's end")


@t.case
def a_live_change_reaches_the_device_that_is_used() -> None:
    with parent() as (d, kind):
        t.equal(write_result(kind / "create", UUID), "36", "create")
        gain, color = device(d) / "vendor/gain/value", device(d) / "vendor/color/value"
        with client(d) as c:
            t.equal(register(c, GAIN), 1, "the default")
            t.equal(write_result(gain, "0x10\n"), "5", "a change")
            t.equal(register(c, GAIN), 16, "the register")
            t.equal(read(gain), "16", "the file")
            t.equal(write_result(color, "blue"), "4", "a vendor parameter")
            t.equal(register(c, COLOR), 2, "its register")
        with client(d) as c:
            t.equal(register(c, GAIN), 16, "the register for the next client")


@t.case
def a_refusal_by_either_half_keeps_the_value() -> None:
    with parent() as (d, kind):
        t.equal(write_result(kind / "create", UUID), "36", "create")
        gain = device(d) / "vendor/gain/value"
        with client(d) as c:
            for text, error in ((PARENT_REFUSES, "EDOM"), (DEVICE_REFUSES, "ERANGE"),
                                ("101", "ERANGE"), ("loud", "EINVAL"), ("-1", "EINVAL")):
                t.equal(write_result(gain, text), error, text)
                t.equal(register(c, GAIN), 1, f"the register after {text}")
                t.equal(read(gain), "1", f"the file after {text}")
        t.equal(write_result(gain, PARENT_REFUSES), "EDOM", "while nobody uses it")


@t.case
def a_change_that_the_device_dies_of_is_refused_and_the_client_stays() -> None:
    with parent() as (d, kind):
        t.equal(write_result(kind / "create", UUID), "36", "create")
        gain = device(d) / "vendor/gain/value"
        with client(d) as c:
            c.write(BAR0, SCRATCH, b"remember")
            for text in (DEVICE_TRAPS, DEVICE_HANGS):
                begin = time.monotonic()
                t.equal(write_result(gain, text), "EIO", text)
                took = time.monotonic() - begin
                t.check(took < 2.5 * t.slowness(), f"{text}: after {took:.1f} s")
                t.equal(read(gain), "1", f"the file after {text}")
                t.equal(register(c, GAIN), 1, f"the register after {text}")
                t.equal(c.read(BAR0, SCRATCH, 8), b"remember", f"another register after {text}")
            t.equal(write_result(gain, "5"), "1", "a change that is harmless")
            t.equal(register(c, GAIN), 5, "the register")
        t.equal(d.log().count("killed by signal"), 2, "lives that ended")


@t.case
def an_idle_parameter_waits_for_the_client_to_leave() -> None:
    with parent() as (d, kind):
        t.equal(write_result(kind / "create", UUID), "36", "create")
        note, units = device(d) / "vendor/note/value", device(d) / "mdev/aggregation/value"
        with client(d) as c:
            t.equal(write_result(note, "now"), "EBUSY", "while it is used")
            t.equal(write_result(units, "3"), "EBUSY", "aggregation while it is used")
            t.equal(write_result(units, "1"), "1", "what it is already")
            t.equal(register(c, UNITS), 1, "the register")
        t.equal(write_result(note, "then"), "4", "while nobody uses it")
        t.equal(write_result(units, "3"), "1", "aggregation")
        with client(d) as c:
            t.equal(register(c, UNITS), 3, "the register for the next client")


@t.case
def units_are_shared_by_all_devices() -> None:
    with parent() as (d, kind):
        free = int(read(kind / "available_instances"))
        t.equal(write_result(kind / "create", f"{UUID},aggregation={free - 1}"), str(36 + 13 +
                len(str(free - 1))), "create")
        t.equal(read(kind / "available_instances"), "1", "what is left")
        t.equal(write_result(kind / "create", f"{OTHER},aggregate=2"), "ENOSPC", "too much")
        t.equal(write_result(kind / "create", OTHER), "36", "the last")
        units = device(d) / "mdev/aggregation"
        t.equal(read(units / "available"), str(free - 1), "what it can have")
        t.equal(write_result(units / "value", str(free)), "ENOSPC", "one more")
        t.equal(write_result(units / "value", "1"), "1", "less")
        t.equal(read(kind / "available_instances"), str(free - 2), "what is left now")
        t.equal(read(device(d) / "aggregated_instances"), "1", "the other name")


@t.case
def create_is_all_or_nothing() -> None:
    with parent() as (d, kind):
        for settings, error in (("gain=2,gain=2", "EINVAL"), ("gian=2", "EINVAL"),
                                ("gain=101", "ERANGE"), ("color=pink", "ERANGE"),
                                (f"note=x,gain={PARENT_REFUSES}", "EDOM")):
            t.equal(write_result(kind / "create", f"{UUID},{settings}"), error, settings)
            t.equal(os.listdir(d.sys / "bus/mdev/devices"), [], f"devices after {settings}")
        line = f"{UUID},gain=7,color=red,label=first of two\n"
        t.equal(write_result(kind / "create", line), str(len(line)), "create")
        t.equal(read(device(d) / "mdev/label/value"), "first of two", "label")
        t.equal(read(device(d) / "vendor/color/value"), "red", "color")
        t.check(UUID in d.umdev("show", "first of two").stdout, "not found by its label")
        with client(d) as c:
            t.equal(register(c, GAIN), 7, "the register")


t.main()
