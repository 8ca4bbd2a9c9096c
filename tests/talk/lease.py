#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Devices that go with a process, and `umdev wait`."""
from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

from lib import t
from lib.daemon import Daemon, program
from lib.vfio_user import Client

GONE, TIMEOUT, FAILED = 3, 7, 1


@contextlib.contextmanager
def card() -> Iterator[Daemon]:
    with Daemon() as d:
        d.add_card("card0")
        yield d


@contextlib.contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as p:
        yield p
        p.kill()


def made_for(d: Daemon, pid: int) -> str:
    return d.umdev("create", "-p", "card0", "-t", "mtty-2", "--owner-pid", str(pid)).stdout.strip()


def devices(d: Daemon) -> list[str]:
    with d.varlink() as v:
        return [x["uuid"] for x in v.call("List")["devices"]]


@t.case
def a_device_goes_with_its_process() -> None:
    with card() as d, process() as p, process() as other:
        a, b, c = made_for(d, p.pid), made_for(d, other.pid), d.create("card0", "mtty-1")
        with d.varlink() as v:
            t.equal(v.call("Show", name=a)["device"]["owner_pid"], p.pid, "owner_pid")
        p.kill()
        p.wait()
        t.wait_for(lambda: a not in devices(d), 5, "the end of the device")
        t.equal(devices(d), [b, c], "the others")
        # In use, or started: by force.
        with Client(d.socket(b)):
            d.umdev("commit", b)
            other.kill()
            other.wait()
            t.wait_for(lambda: b not in devices(d), 5, "the end of the device in use")
        t.wait_for(lambda: not d.workers(), 5, "the end of its worker")
        t.equal(d.umdev("create", "-p", "card0", "-t", "mtty-2", "--owner-pid", str(p.pid),
                        ok=False).returncode, 3, "status for a process that is gone")
        t.equal(d.umdev("create", "-p", "card0", "-t", "mtty-2", "--owner-pid", "x",
                        ok=False).returncode, 2, "status for no process")
        t.equal(devices(d), [c], "what was refused")


@t.case
def a_restart_of_umdevd_does_not_forget_it() -> None:
    with card() as d, process() as p, process() as q:
        a, b = made_for(d, p.pid), made_for(d, q.pid)
        for end in (d.kill, d.leave):
            end()
            d.start()
            t.equal(devices(d), [a, b], "devices after a restart")
        p.kill()
        p.wait()
        t.wait_for(lambda: devices(d) == [b], 5, "the end of the device")
        # It ends while no umdevd runs.
        d.leave()
        q.kill()
        q.wait()
        d.start()
        t.wait_for(lambda: devices(d) == [], 5, "the end of the other one")


@t.case
def another_process_of_the_same_number_is_not_it() -> None:
    """The start time tells: the file is given that of an earlier process."""
    with card() as d, process() as p:
        a = made_for(d, p.pid)
        d.leave()
        path = d.run / "state" / a
        text = path.read_text()
        start = text.split('"lease":{')[1].split('"start":')[1].split("}")[0]
        path.write_text(text.replace(f'"start":{start}', f'"start":{int(start) - 1}'))
        d.start()
        t.wait_for(lambda: devices(d) == [], 5, "the end of the device")
        t.equal(p.poll(), None, "the process itself")


def waiting(d: Daemon, device: str, goal: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([str(program("umdev")), "wait", device, "--for", goal, *more],
                            env=d.env, text=True, stderr=subprocess.PIPE)


def ends(p: subprocess.Popen[str], status: int) -> str:
    said = p.communicate(timeout=10)[1]
    t.equal(p.returncode, status, f"status of wait ({said.strip()})")
    return said


@t.case
def wait_ends_when_it_is_so() -> None:
    with card() as d:
        a = d.create("card0", "mtty-1", "label=one")
        ends(waiting(d, "one", "idle"), 0)
        p, q, r = (waiting(d, x, g) for x, g in ((a, "connected"), ("one", "gone"), (a, "idle")))
        ends(r, 0)
        time.sleep(0.2)
        t.equal([p.poll(), q.poll()], [None, None], "those that wait")
        with Client(d.socket(a)):
            ends(p, 0)
            ends(waiting(d, a, "connected", "--timeout", "0"), 0)
            r = waiting(d, a.upper(), "idle", "--timeout=20")
        ends(r, 0)
        d.umdev("commit", a)
        ends(waiting(d, a, "idle"), 0)
        d.umdev("release", a)
        p = waiting(d, a, "connected")
        time.sleep(0.2)
        d.umdev("remove", a)
        t.check("removed" in ends(p, GONE), "why it waits no more")
        ends(q, 0)
        ends(waiting(d, a, "gone"), 0)


@t.case
def wait_says_why_not() -> None:
    with card() as d:
        a = d.create("card0", "mtty-1")
        before = time.monotonic()
        t.check("connected" in ends(waiting(d, a, "connected", "--timeout", "0.3"), TIMEOUT), "text")
        t.check(0.3 <= time.monotonic() - before < 5, "time that it took")
        ends(waiting(d, "nobody", "idle"), GONE)
        for words in (("--for", "x"), ("--for", "idle", "--timeout", "x"), (),
                      ("--for", "idle", "--timeout", "-1")):
            p = d.umdev("wait", a, *words, ok=False)
            t.equal((p.returncode, len(p.stderr.splitlines())), (2, 1), f"wait {words}: {p.stderr}")
        p = waiting(d, a, "gone")
        time.sleep(0.2)
        d.leave()
        ends(p, 6)
        d.start()
    with Daemon(env={"UMDEV_WORKER": "/bin/false"}) as d:
        d.add_card("card0")
        a = d.create("card0", "mtty-1")
        p = waiting(d, a, "connected")
        time.sleep(0.2)
        d.umdev("commit", a, ok=False)
        t.check("failed" in ends(p, FAILED), "why it will not be connected")
        ends(waiting(d, a, "idle"), FAILED)


t.main()
