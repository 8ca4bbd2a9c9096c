#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What umdevd and a service manager tell each other, and the units that are installed for it."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import program
from lib.varlink import Varlink

# $LISTEN_PID must be the pid of umdevd itself: a shell that becomes it knows.
AS_SERVICE = 'LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0"'


class Service:
    """umdevd started as a service manager does it."""

    def __init__(self, folder: Path, listen: list[socket.socket], **env: str) -> None:
        self.control = folder / "run" / "control"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(10)
        self.log_path = folder / "log"
        (folder / "run").mkdir(exist_ok=True)

        def place() -> None:
            for i, s in enumerate(listen):
                os.dup2(s.fileno(), 3 + i, inheritable=True)

        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", AS_SERVICE, str(program("umdevd"))], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=place, pass_fds=range(3, 3 + len(listen)),
                env={**os.environ, "UMDEV_RUN": str(folder / "run"),
                     "UMDEV_CONFIG": str(folder / "config"),
                     "UMDEV_STATE": str(folder / "state"),
                     "NOTIFY_SOCKET": str(folder / "notify"), **env})

    def told(self) -> str:
        return self.notify.recv(4096).decode()


@contextlib.contextmanager
def service(listen: list[socket.socket], **env: str) -> Iterator[Service]:
    with t.TempDir() as folder:
        s = Service(folder, listen, **env)
        try:
            yield s
        finally:
            if s.process.poll() is None:
                s.process.send_signal(signal.SIGINT)
            s.process.wait(10)
            s.notify.close()


@t.case
def ready_and_stopping_are_told() -> None:
    with service([]) as s:
        t.equal(s.told(), "READY=1", "first word")
        s.process.send_signal(signal.SIGINT)
        t.equal(s.told(), "STOPPING=1", "second word")


@t.case
def a_watchdog_hears_twice_per_interval() -> None:
    with service([], WATCHDOG_USEC="400000") as s:
        t.equal([s.told() for _ in range(4)], ["READY=1"] + ["WATCHDOG=1"] * 3, "words")


@t.case
def an_inherited_control_socket_is_served_and_left_in_place() -> None:
    with t.TempDir() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path = folder / "control"
        listener.bind(str(path))
        listener.listen()
        with service([listener], LISTEN_FDS="1") as s:
            t.equal(s.told(), "READY=1", "first word")
            t.check(not s.control.exists(), "umdevd made a socket of its own")
            with Varlink(path, 10) as v:
                t.equal(v.call("ParentList"), {"parents": []}, "answer")
        t.check(stat.S_ISSOCK(path.stat().st_mode), "the name belongs to the service manager")


@t.case
def something_else_in_its_place_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, \
            service([other], LISTEN_FDS="1") as s:
        t.equal(s.process.wait(10), 1, "exit status")
        t.check("umdevd.socket" in s.log_path.read_text(), "the line names the way out")


@t.case
def descriptors_for_another_process_are_not_taken() -> None:
    with t.TempDir() as folder:
        run = folder / "run"
        run.mkdir()
        p = subprocess.Popen([str(program("umdevd"))], stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL,
                             env={**os.environ, "UMDEV_RUN": str(run),
                                  "UMDEV_CONFIG": str(folder / "c"),
                                  "UMDEV_STATE": str(folder / "s"),
                                  "LISTEN_FDS": "1", "LISTEN_PID": "1"})
        try:
            t.wait_for(lambda: (run / "control").exists(), 10, "a control socket of its own")
        finally:
            p.send_signal(signal.SIGINT)
            t.equal(p.wait(10), 0, "exit status")


@t.case
def installed_units_are_valid() -> None:
    if not shutil.which("systemd-analyze"):
        t.skip("systemd-analyze is not installed")
    with t.TempDir() as folder:
        units = folder / "units"
        units.mkdir()
        source = t.ROOT / "packaging" / "systemd"
        text = (t.BUILD / "packaging" / "systemd" / "umdevd.service").read_text()
        lines = [f"ExecStart={program('umdevd')}" if line.startswith("ExecStart=") else line
                 for line in text.splitlines()]
        # systemd-analyze looks manual pages up in the installed system.
        (units / "umdevd.service").write_text(
            "\n".join(line for line in lines if not line.startswith("Documentation=")) + "\n")
        (units / "umdevd.socket").write_text(
            "\n".join(line for line in (source / "umdevd.socket").read_text().splitlines()
                      if not line.startswith("Documentation=")) + "\n")
        p = subprocess.run(["systemd-analyze", "verify", "--man=no", str(units / "umdevd.service"),
                            str(units / "umdevd.socket")], capture_output=True, text=True,
                           timeout=60, check=False)
        ours = [line for line in p.stderr.splitlines() if "umdevd" in line]
        t.equal(ours, [], "complaints")


t.main()
