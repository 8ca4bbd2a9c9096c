#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""umdevd --one: one device without a daemon, in the form that QEMU expects of back-end programs."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import program
from lib.vfio_user import Client

SCR = 7  # scratch register of a port


class One:
    """A running umdevd --one with its private files below `dir`."""

    def __init__(self, folder: Path, *arguments: str, fd: int = -1) -> None:
        self.dir = folder
        self.log_path = folder / "log"
        fds = [fd] if fd >= 0 else []
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [str(program("umdevd")), "--one", *arguments], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, pass_fds=fds,
                env={**os.environ, "XDG_RUNTIME_DIR": str(folder)})

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def private(self) -> list[Path]:
        """What it made for itself."""
        return list(self.dir.glob("umdevd-one.*"))

    def end(self) -> int:
        """Its status; what is left of it is a failure."""
        status = self.process.wait(10)
        t.equal(self.private(), [], "left behind")
        return status


@contextlib.contextmanager
def listening(*arguments: str) -> Iterator[tuple[One, Path]]:
    with t.TempDir() as folder:
        path = folder / "socket"
        one = One(folder, *arguments, "--socket", str(path))
        try:
            t.wait_for(lambda: "ready" in one.log() or one.process.poll() is not None, 10, "start")
            yield one, path
        finally:
            if one.process.poll() is None:
                one.process.terminate()
            one.end()


@contextlib.contextmanager
def adopted(*arguments: str) -> Iterator[tuple[One, socket.socket]]:
    with t.TempDir() as folder:
        ours, theirs = socket.socketpair()
        one = One(folder, *arguments, "--fd", str(theirs.fileno()), fd=theirs.fileno())
        theirs.close()
        try:
            yield one, ours
        finally:
            ours.close()
            if one.process.poll() is None:
                one.process.terminate()
            one.process.wait(10)


@t.case
def it_serves_one_client_after_the_other_at_its_socket() -> None:
    with listening("mtty", "2") as (one, path):
        for value in (b"\x17", b"\x42"):
            with Client(path) as c:
                t.equal(c.read(0, SCR, 1), b"\x00", "scratch register of a fresh device")
                c.write(0, SCR, value)
                t.equal(c.read(0, SCR, 1), value, "scratch register")
        one.process.send_signal(signal.SIGTERM)
        t.equal(one.end(), 0, "status after SIGTERM")
        t.check(not path.exists(), "the socket is still there")


@t.case
def with_a_descriptor_it_ends_with_its_client() -> None:
    with adopted("mtty", "mtty-1") as (one, s):
        with Client(fd=s.detach()) as c:
            c.write(0, SCR, b"\x42")
            t.equal(c.read(0, SCR, 1), b"\x42", "scratch register")
        t.equal(one.end(), 0, "status")


@t.case
def its_settings_go_to_the_device_or_to_the_parent() -> None:
    with listening("mtty", "2", "backend=socket", "backend1=none", "remove=wait", "label=x") as \
            (one, path):
        with Client(path):
            sockets = [p.name for p in one.dir.glob("umdevd-one.*/dev/*/*")]
            t.equal(sockets, ["port0.sock"], "files of the device")
        t.check(str(one.private()[0]) in one.log(), "the log says where its directory is")


@t.case
def what_it_cannot_make_is_named_and_nothing_stays() -> None:
    for arguments, word in ((["mtyt", "1"], "mtty"), (["mtty", "3"], "mtty-"),
                            (["mtty", "1", "bakcend=pty"], "backend"),
                            (["mtty", "1", "backend=x"], "backend"),
                            (["mtty", "1", "label=a,b"], "comma"), (["mtty", "1", "x"], "key=value")):
        with t.TempDir() as folder:
            one = One(folder, *arguments, "--socket", str(folder / "socket"))
            t.equal(one.end(), 1, f"status of {arguments}")
            t.check(word in one.log(), f"{arguments}: {one.log()!r}")
            t.equal(len(one.log().splitlines()), 1, f"lines about {arguments}: {one.log()!r}")


@t.case
def a_descriptor_that_is_no_socket_is_refused() -> None:
    with t.TempDir() as folder, open("/dev/null") as null:
        one = One(folder, "mtty", "1", "--fd", str(null.fileno()), fd=null.fileno())
        t.equal(one.end(), 1, "status")
        t.check("--fd" in one.log(), f"the log names it: {one.log()!r}")


@t.case
def a_worker_that_cannot_be_run_ends_it_with_the_reason() -> None:
    with t.TempDir() as folder:
        ours, theirs = socket.socketpair()
        os.environ["UMDEV_WORKER"] = "/nonexistent/worker"
        try:
            one = One(folder, "mtty", "1", "--fd", str(theirs.fileno()), fd=theirs.fileno())
        finally:
            del os.environ["UMDEV_WORKER"]
        theirs.close()
        t.equal(one.end(), 1, "status")
        t.check("/nonexistent/worker" in one.log(), f"the reason: {one.log()!r}")
        ours.close()


@t.case
def it_prints_what_it_can_do() -> None:
    p = subprocess.run([str(program("umdevd")), "--one", "--print-capabilities"], text=True,
                       capture_output=True, timeout=10)
    t.equal((p.returncode, p.stderr), (0, ""), "status and errors")
    c = json.loads(p.stdout)
    t.equal(c["type"], "vfio-user", "type")
    t.check({"mtty-1", "mtty-2"} <= set(c["devices"]), f"devices: {c['devices']}")


t.main()
