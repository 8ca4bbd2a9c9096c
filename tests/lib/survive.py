# SPDX-License-Identifier: MIT
"""Kills of a worker at every system call of a request. A device joins by a class with the members
of Served and a list of requests."""
from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable
from typing import Protocol

from . import t
from .daemon import Daemon, worker_of

MAX_STOPS = 400


class Served(Protocol):
    """A device with a client, and what the client knows about it."""

    daemon: Daemon
    uuid: str

    def wake(self) -> None:
        """Makes the worker do something."""

    def check(self) -> None:
        """Fails when anything was lost, repeated or torn so far."""

    def close(self) -> None: ...


def living_worker(device: Served) -> int:
    def find() -> int:
        try:
            return worker_of(device.daemon, device.uuid)
        except (t.Failure, OSError, ValueError):
            return 0  # between two lives
    return t.wait_for(find, 5, "a worker")


def kill_at(d: Served, request: Callable[[], None], n: int) -> bool:
    """One request with the worker killed at stop n (see kill_at.c). False: it was over before."""
    tracer = subprocess.Popen([str(t.BUILD / "tests/survive/kill-at"), str(living_worker(d)),
                               str(n)], stdout=subprocess.PIPE, text=True)
    assert tracer.stdout
    try:
        # The worker sleeps: something must wake it for the first two stops.
        while not select.select([tracer.stdout], [], [], 0.02)[0]:
            d.wake()
        t.equal(tracer.stdout.readline(), "ready\n", "kill-at")
        request()
        d.check()
        return bool(select.select([tracer.stdout], [], [], 0.05)[0]) and \
            tracer.stdout.readline().startswith("killed")
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()


def sweep(d: Served, request: Callable[[], None]) -> int:
    """How many stops there were; the request was repeated for each."""
    for n in range(1, MAX_STOPS):
        if not kill_at(d, request, n):
            return n - 1
        d.check()
    raise t.Failure(f"a request takes more than {MAX_STOPS} stops")


def add_cases(make: Callable[[Daemon], Served], driver: str, names: list[str]) -> None:
    """A case for each method of the device that is named: NAME_killed_at_every_system_call."""
    for name in names:
        _add_case(make, driver, name)


def _add_case(make: Callable[[Daemon], Served], driver: str, name: str) -> None:
    def run() -> None:
        if os.geteuid():
            t.skip("a worker can be traced by root only")
        with Daemon() as daemon:
            daemon.umdev("parent", "add", "lab", f"driver={driver}")
            d = make(daemon)
            try:
                n = sweep(d, getattr(d, name))
                t.fact(f"{name}: {n}/{n} kills survived")
                t.check(n >= 6, f"only {n} stops: the request was not met")
            finally:
                d.close()
    run.__name__ = f"{name}_killed_at_every_system_call"
    t.case(run)
