#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A guest that moves bytes through its ports while whatever serves them is killed, or becomes another
program, every second."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from lib import qemu, serial, t
from lib.daemon import Daemon, parent_of, worker_of
from lib.guest import Guest

BYTES = 32768


@contextlib.contextmanager
def every_second(kill: Callable[[], None]) -> Iterator[list[int]]:
    """Calls kill again and again meanwhile; the list holds how often."""
    over, times = threading.Event(), [0]

    def run() -> None:
        while not over.wait(1):
            kill()
            times[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def exchange(d: Daemon, g: Guest, device: str) -> float:
    names = serial.ports_of(g, serial.cards_of(g)[0])
    ends = {name: serial.HostPort(d.device_dir(device) / f"tty{i}")
            for i, name in enumerate(names)}
    try:
        return serial.exchange(g, ends, BYTES)
    finally:
        for end in ends.values():
            os.close(end.fd)


@t.case
def a_transfer_does_not_notice_that_its_worker_is_killed_or_restarted_every_second() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        with Guest([qemu.vfio_user(d.socket(device))], d.dir) as g:
            g.wait_boot()
            keeper = parent_of(worker_of(d, device))

            def kill() -> None:
                with open(f"/proc/{keeper}/task/{keeper}/children") as f:
                    for pid in f.read().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)

            with every_second(kill) as times:
                seconds = exchange(d, g, device)
            t.check(times[0] > 3, f"only {times[0]} kills")
            t.fact(f"2 ports x 2 x {BYTES} bytes in {seconds:.1f} s over {times[0]} kills")

            def restart() -> None:
                t.equal(d.umdev("restart", "--all").stdout.split(), [device], "devices that moved")

            with every_second(restart) as times:
                seconds = exchange(d, g, device)
            t.check(times[0] > 3, f"only {times[0]} restarts")
            t.fact(f"2 ports x 2 x {BYTES} bytes in {seconds:.1f} s over {times[0]} restarts")
            t.equal(parent_of(worker_of(d, device)), keeper, "keeper")
            t.equal(d.state_of(device), "connected", "state")


@t.case
def a_transfer_does_not_notice_that_umdevd_is_killed_every_second() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        with Guest([qemu.vfio_user(d.socket(device))], d.dir) as g:
            g.wait_boot()

            def kill() -> None:
                d.kill()
                d.start()

            with every_second(kill) as times:
                seconds = exchange(d, g, device)
            t.check(times[0] > 3, f"only {times[0]} kills")
            t.fact(f"2 ports x 2 x {BYTES} bytes in {seconds:.1f} s over {times[0]} managers")
            t.equal(d.state_of(device), "connected", "state")


t.main()
