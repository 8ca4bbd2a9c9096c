#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Definitions in mdevctl's form that umdevd starts by itself."""
from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

from lib import t
from lib.daemon import Daemon
from lib.vfio_user import Client

GAIN = 0x38


def name(n: int) -> str:
    return str(uuid.UUID(int=n))


@contextlib.contextmanager
def host(*parents: tuple[str, str]) -> Iterator[Daemon]:
    """A umdevd that is not started, with kept parents (name, driver)."""
    d = Daemon()
    (d.config / "parents.d").mkdir(parents=True)
    for parent, driver in parents or (("card0", "mtty"), ("t0", "test")):
        (d.config / "parents.d" / f"{parent}.json").write_text(json.dumps({"driver": driver}))
    yield d


def define(d: Daemon, parent: str, device: str, text: str) -> None:
    folder = d.config / "mdevctl.d" / parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / device).write_text(text)


def auto(kind: str, *attrs: tuple[str, str], start: str = "auto") -> str:
    return json.dumps({"mdev_type": kind, "start": start, "attrs": [{a: v} for a, v in attrs]},
                      indent=2)


def devices(d: Daemon) -> dict[str, dict[str, Any]]:
    with d.varlink() as v:
        return {x["uuid"]: x for x in v.call("List")["devices"]}


def value(d: Daemon, device: str, param: str) -> str:
    with d.varlink() as v:
        return next(p["value"] for p in v.call("Show", name=device)["params"]
                    if p["name"] == param)


def free(d: Daemon, kind: str) -> int:
    with d.varlink() as v:
        return next(x["available_instances"] for x in v.call("Types")["types"]
                    if x["name"] == kind)


@t.case
def auto_ones_are_started_in_order_with_their_attributes() -> None:
    with host(("b", "mtty"), ("a", "test")) as h:
        define(h, "b", name(1), auto("mtty-2", ("mdev/label/value", "first"),
                                     ("mdev/label/value", "second"),
                                     ("mdev/backend/value", "file")))
        define(h, "b", name(3), auto("mtty-1", start="manual"))
        define(h, "a", name(4), auto("test-regs"))
        define(h, "a", name(2), auto("test-regs", ("vendor/gain/value", "7")))
        define(h, "scripts.d", "notify", "#!/bin/sh")
        with h as d:
            t.equal(list(devices(d)), [name(2), name(4), name(1)], "devices")
            made = [line.split()[2].rstrip(":") for line in d.log().splitlines()
                    if ": made, " in line]
            t.equal(made, [name(2), name(4), name(1)], "order of creation")
            t.equal(value(d, name(1), "label"), "second", "label: attributes in order")
            t.equal((value(d, name(1), "backend"), value(d, name(2), "gain")), ("file", "7"),
                    "attributes")
            t.check("skipped" not in d.log() and "scripts" not in d.log(), d.log())
            with Client(d.socket(name(2))) as c:
                t.equal(c.read(0, GAIN, 4), b"\x07\0\0\0", "what the device has")


@t.case
def a_failure_is_shown_undone_and_stops_nothing() -> None:
    with host() as h:
        define(h, "card0", name(1), auto("mtty-2", ("mdev/label/value", "a"),
                                         ("mdev/backend/value", "teletype")))
        define(h, "card0", name(2), auto("mtty-2", ("mdev/nothing/value", "1")))
        define(h, "card0", name(3), auto("mtty-2", ("mdev", "1")))
        define(h, "card0", name(4), auto("mtty-3"))
        define(h, "nowhere", name(5), auto("mtty-1"))
        define(h, "card0", name(6), auto("mtty-1"))
        define(h, "t0", name(6), auto("test-regs"))
        define(h, "t0", name(7), auto("test-regs"))
        with h as d:
            shown = devices(d)
            t.equal(sorted(shown), [name(n) for n in range(1, 8)], "devices")
            for n, words in ((1, "mdev/backend/value: "), (2, "mdev/nothing/value: No such file"),
                             (3, "mdev: Is a directory"), (4, "no type 'mtty-3'"),
                             (5, 'no parent "nowhere"')):
                t.equal(shown[name(n)]["state"], "failed", f"state of {n}")
                t.check(words in shown[name(n)]["error"], shown[name(n)]["error"])
                t.equal(sum(name(n) in line and words in line for line in d.log().splitlines()), 1,
                        f"log lines of {n}")
            for n in (6, 7):
                t.equal(shown[name(n)]["state"], "idle", f"state of {n}")
            t.check(f"{name(6)} of t0" in d.log() and "exists already" in d.log(), d.log())
            t.equal(free(d, "mtty-1"), 23, "ports that are left")
            t.check("failed" in d.umdev("list", "card0").stdout, "umdev list")
            text = d.umdev("show", name(2)).stdout
            t.check("failed" in text and "mdev/nothing/value: No such file" in text, text)
            answer = json.loads(d.umdev("show", "-j", name(2)).stdout)
            t.equal(answer["device"], shown[name(2)], "show -j")
            t.check("none" in d.umdev("attach", name(2), ok=False).stderr, "umdev attach")
            failed = d.sys / "class/mdev/mdev_failed"
            t.equal(sorted(failed.read_text().splitlines()),
                    sorted(f"{u} {x['parent']} {x['error']}" for u, x in shown.items()
                           if x["state"] == "failed"), "mdev_failed")
            with d.varlink() as v:
                t.equal([x["uuid"] for x in v.call("List", parent="t0")["devices"]], [name(7)],
                        "of one parent")
                v.call("Create", parent="card0", type="mtty-2", uuid=name(1), settings=[])
            t.equal(devices(d)[name(1)]["state"], "idle", "made by hand")
            t.check(name(1) not in failed.read_text(), "it is still told as failed")
            t.equal(d.umdev("show", name(2), ok=False).returncode, 0, "show of another one")


@t.case(seconds=60)
def a_device_is_never_half_made_wherever_umdevd_is_killed() -> None:
    """Killed at every system call stop of `umdev start`; the next umdevd makes it of its definition,
    which is started by itself, with all attributes or, after the answer, lets it be."""
    if os.geteuid():
        t.skip("umdevd can be traced by root only")
    with host() as h:
        values = {"note": "a", "gain": "7", "color": "blue"}
        define(h, "t0", name(1), auto("test-regs", *((f"vendor/{param}/value", value)
                                                     for param, value in values.items())))
        with h as d:
            n, half = 0, 0
            while True:
                n += 1
                d.umdev("remove", name(1))
                assert d.process
                tracer = subprocess.Popen([t.BUILD / "tests/survive/kill-at", str(d.process.pid),
                                           str(n)], stdout=subprocess.PIPE, text=True)
                assert tracer.stdout
                while not select.select([tracer.stdout], [], [], 0.02)[0]:
                    with contextlib.suppress(OSError, EOFError):  # killed in what wakes it
                        devices(d)
                t.equal(tracer.stdout.readline(), "ready\n", "kill-at")
                answered = d.umdev("start", "--uuid", name(1), ok=False).returncode == 0
                killed = bool(select.select([tracer.stdout], [], [], 0.1 if answered else 5)[0])
                tracer.kill()
                tracer.wait()
                tracer.stdout.close()
                if not killed:
                    break
                d.process.wait()
                d.process = None
                before = d.log()
                d.start()
                half += "while it was made of its definition" in d.log()[len(before):]
                t.equal(set(devices(d)[name(1)]["settings"]),
                        {f"{param}={value}" for param, value in values.items()},
                        f"after a kill at stop {n}")
            t.check(answered and devices(d)[name(1)]["settings"], "not made without a kill")
            t.fact(f"{n - 1} kills, {half} devices were half made")
            t.check(half > 0, "none was half made")


@t.case
def a_file_that_cannot_be_used_is_named_with_line_and_reason() -> None:
    with host() as h:
        define(h, "card0", name(1), '{\n  "mdev_type": "mtty-2",\n  "star')
        define(h, "card0", name(2), '{ "mdev_type": "mtty-2",\n\n "start": "sometimes" }')
        define(h, "card0", name(3), auto("mtty-2", ("../" + name(4) + "/remove", "1")))
        define(h, "card0", name(4), '{ "mdev_type": "mtty-2", "start": "auto",\n"attrs": {} }')
        define(h, "card0", name(5), '{ "start": "auto" }')
        define(h, "card0", "notes.txt", "x")
        define(h, "card0", name(6), " " * 70000)
        define(h, "card0", ".hidden", "x")
        define(h, "card0", name(8), auto("mtty-1"))
        (h.config / "mdevctl.d" / "card0" / name(7)).mkdir()
        with h as d:
            t.equal([u for u, x in devices(d).items() if x["state"] != "failed"], [name(8)],
                    "devices")
            for n, words in ((1, "line 3: "), (2, 'line 3: "start": it must be'),
                             (3, 'line 6: "../'), (4, 'line 2: "attrs": it must be a list'),
                             (5, 'line 1: "mdev_type": it must name a type'),
                             (6, "not a small regular file"), (7, "not a small regular file")):
                lines = [x for x in d.log().splitlines() if f"card0/{name(n)} skipped" in x]
                t.check(len(lines) == 1 and words in lines[0], f"{n}: {lines}")
                t.equal(d.state_of(name(n)), "failed", "state of what cannot be used")
                shown = [x for x in (d.sys / "class/mdev/mdev_failed").read_text().splitlines()
                         if x.startswith(f"{name(n)} card0 ")]
                t.check(len(shown) == 1 and words in shown[0], f"{n}: {shown}")
            t.check("notes.txt skipped: its name is no UUID" in d.log(), d.log())
            t.check("hidden" not in d.log(), d.log())


@t.case
def what_is_there_is_left_as_it_is() -> None:
    """Killed: the devices are back with their values. Stopped for good: they are made anew."""
    with host() as h:
        define(h, "t0", name(1), auto("test-regs", ("vendor/gain/value", "7")))
        with h as d:
            d.umdev("param", "set", name(1), "gain=9")
            d.kill()
            d.start()
            t.equal(value(d, name(1), "gain"), "9", "value after a kill")
            t.check("cannot be started" not in d.log(), d.log())
            assert d.process
            d.process.send_signal(signal.SIGINT)
            d.process.wait(10)
            d.process = None
            d.start()
            t.equal(value(d, name(1), "gain"), "7", "value after a stop")


@t.case
def a_store_that_is_answered_later_is_awaited() -> None:
    """Through a link it changes a device whose worker must agree, and that is not met yet when
    definitions are started."""
    with host() as h:
        with h as d:
            with d.varlink() as v:
                other = v.call("Create", parent="t0", type="test-regs", settings=[])["uuid"]
            with Client(d.socket(other)) as c:
                path = f"subsystem/devices/{other}/vendor/gain/value"
                define(d, "t0", name(1), auto("test-regs", (path, "5"), ("mdev/label/value", "x")))
                define(d, "t0", name(2),
                       auto("test-regs", ("vendor/gain/value", "3"), (path, "1000000")))
                define(d, "t0", name(3), auto("test-regs"))
                d.kill()
                d.start()
                t.wait_for(lambda: name(3) in devices(d), 10, "the last one")
                shown = devices(d)
                t.equal(value(d, name(1), "label"), "x", "what comes after it")
                t.equal(c.read(0, GAIN, 4), b"\x05\0\0\0", "what the other device has")
                t.equal(shown[name(2)]["state"], "failed", "one whose late store is refused")


t.main()
