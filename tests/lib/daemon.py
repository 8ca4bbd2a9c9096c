# SPDX-License-Identifier: MIT
"""A private umdevd in a directory of its own, and the programs that talk to it."""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import t
from .varlink import Varlink

SANITIZER = re.compile(r"(AddressSanitizer|LeakSanitizer|runtime error:)")


def program(name: str) -> Path:
    """A program of the build, or a skip when it was not built."""
    for folder in ("manager", "worker", "cli"):
        path = t.BUILD / "src" / folder / name
        if path.is_file():
            return path
    t.skip(f"{name} is not built in {t.BUILD}")


def is_sanitized() -> bool:
    return b"__asan_init" in program("umdevd").read_bytes()


class Daemon:
    """Use it as a context: at the end it must still be alive, stop at once, and have left neither
    a sanitizer report nor a process, mount or file behind."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None,
                 directory: Path | None = None, user: int | None = None,
                 below: Sequence[str] = ()) -> None:
        """user: runs it, for tests that are root. below: a command that becomes it."""
        self._own = None if directory else t.TempDir()
        self.dir = directory or self._own.path
        self.run, self.config, self.state = (self.dir / n for n in ("run", "config", "state"))
        self.arguments = arguments
        self.user = user
        self.below = below
        self.env = os.environ | {"UMDEV_RUN": str(self.run), "UMDEV_CONFIG": str(self.config),
                                 "UMDEV_STATE": str(self.state), "UMDEV_DRIVERS": ""} | (env or {})
        self.env.pop("JOURNAL_STREAM", None)
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = self.dir / "umdevd.log"

    @property
    def sys(self) -> Path:
        """Where the tree is mounted."""
        return self.run / "sys"

    @property
    def control(self) -> Path:
        return self.run / "control"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Returns when umdevd has told READY=1."""
        for d in (self.run, self.config, self.state):
            d.mkdir(parents=True, exist_ok=True)
        for d in (self.dir, self.run, self.config, self.state):
            if self.user is not None:
                os.chown(d, self.user, self.user)
        notify_path = self.dir / "notify"
        notify_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, \
                open(self.log_path, "ab") as log:
            notify.bind(str(notify_path))
            if self.user is not None:
                notify_path.chmod(0o666)
            notify.settimeout(0.1)
            self.process = subprocess.Popen(
                [*self.below, str(program("umdevd")), *self.arguments], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=dict(self.env, NOTIFY_SOCKET=str(notify_path)), user=self.user,
                group=self.user, extra_groups=None if self.user is None else [])
            t.wait_for(lambda: self._ready(notify), 20, "READY=1 of umdevd")

    def _ready(self, notify: socket.socket) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise t.Failure(f"umdevd ended with {self.process.returncode}: {self.log()[-2000:]}")
        try:
            return b"READY=1" in notify.recv(4096)
        except TimeoutError:
            return False

    def stop(self) -> None:
        """SIGINT, and what must be true of a umdevd that ends well and takes everything along."""
        process, self.process = self.process, None
        if not process:
            return
        died = process.poll()
        if died is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise t.Failure("umdevd did not stop within 10 s of SIGINT") from None
        report = SANITIZER.search(self.log())
        if report:
            raise t.Failure(f"sanitizer report: {self.log()[report.start():][:3000]}")
        t.check(died is None, f"umdevd died with {died}: {self.log()[-2000:]}")
        t.equal(process.returncode, 0, "exit status of umdevd after SIGINT")
        t.check(not os.path.ismount(self.sys), "the tree is still mounted after the end of umdevd")

    def kill(self) -> None:
        """SIGKILL: for tests of what stays behind."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.process = None

    def leave(self) -> None:
        """SIGTERM: devices and workers stay for the next start."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        t.equal(self.process.wait(10), 0, "exit status of umdevd after SIGTERM")
        self.process = None

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind:
                print(f"log of umdevd:\n{self.log()[-6000:]}")
            try:
                self.stop()
            except t.Failure as e:
                if not kind:  # the first failure is the one to tell
                    raise
                print(e)
        finally:
            self._clean()

    def _clean(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill()
        for pid in workers_below(self.dir):
            os.kill(pid, signal.SIGKILL)
        self.unmount()
        if self._own:
            self._own.__exit__()

    def unmount(self) -> None:
        """What a umdevd that was killed has left mounted."""
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        for path in (self.sys, self.run / "vfio"):
            if os.path.ismount(path) or _dead_mount(path):
                subprocess.run([*command, str(path)], check=False, capture_output=True)

    def varlink(self, timeout: float = 20.0) -> Varlink:
        return Varlink(self.control, timeout)

    def umdev(self, *arguments: str, ok: bool = True, timeout: float = 30) \
            -> subprocess.CompletedProcess[str]:
        """The CLI against this daemon."""
        p = subprocess.run([str(program("umdev")), *arguments], env=self.env, text=True,
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        if ok and p.returncode != 0:
            raise t.Failure(f"umdev {' '.join(arguments)}: status {p.returncode}: {p.stderr}")
        return p

    def create(self, parent: str, kind: str, *settings: str) -> str:
        with self.varlink() as v:
            return v.call("Create", parent=parent, type=kind, settings=list(settings))["uuid"]

    def add_card(self, name: str = "card0", *settings: str) -> None:
        """A parent with 24 serial ports."""
        with self.varlink() as v:
            v.call("ParentAdd", name=name, driver="mtty", settings=list(settings))

    def state_of(self, uuid: str) -> str:
        with self.varlink() as v:
            return v.call("Show", name=uuid)["device"]["state"]

    def device_dir(self, uuid: str) -> Path:
        return self.run / "dev" / uuid

    def socket(self, uuid: str) -> Path:
        return self.device_dir(uuid) / "socket"

    def workers(self) -> list[int]:
        """Pids of keepers and workers of this daemon."""
        return workers_below(self.dir)


def _dead_mount(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError as e:
        return e.errno not in (2, 13)
    return False


def workers_below(directory: Path) -> list[int]:
    """Processes of umdev-worker whose environment names this directory: nobody else's."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if (proc / "comm").read_text().strip().startswith("umdev-") and \
                    f"={directory}/run\0".encode() in (proc / "environ").read_bytes() + b"\0":
                found.append(int(proc.name))
        except OSError:
            continue
    return sorted(found)


def parent_of(pid: int) -> int:
    return int(re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def worker_of(daemon: Daemon, device: str) -> int:
    """The process that serves a device now: the child of the keeper, which holds its group's
    rendezvous socket. (A worker shows its descriptors to root only.)"""
    with daemon.varlink() as v:
        group = v.call("Show", name=device)["device"]["group"]
    path = str(daemon.run / "worker" / str(group))
    inodes = [line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()
              if line.endswith(f" {path}")]
    pids = [p for p in daemon.workers() if _link(p, 4) in {f"socket:[{i}]" for i in inodes}]
    serving = [int(c) for p in pids
               for c in Path(f"/proc/{p}/task/{p}/children").read_text().split()]
    if len(serving) != 1:
        raise t.Failure(f"{len(serving)} workers serve group {group} (of {pids}), wanted one")
    return serving[0]


def _link(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""
