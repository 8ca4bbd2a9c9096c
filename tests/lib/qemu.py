# SPDX-License-Identifier: MIT
"""A QEMU process with QMP. Always killed at the end; never KVM."""
from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from . import t

# As `umdev attach --for qemu` prints it: memory that the devices' process can map.
RAM = ["-object", "memory-backend-memfd,id=m0,size=256M,share=on", "-machine", "memory-backend=m0"]


def program() -> str:
    """As tools/get-qemu finds it."""
    own = t.CACHE / "qemu/qemu-system-x86_64"
    for p in (os.environ.get("UMDEV_QEMU"), str(own) if own.exists() else None,
              shutil.which("qemu-system-x86_64")):
        if p:
            return p
    t.skip("no QEMU here: run tools/get-qemu")


def vfio_user(socket_path: Path, **more: Any) -> str:
    """The argument of -device; QEMU takes only the JSON form."""
    return json.dumps({"driver": "vfio-user-pci",
                       "socket": {"type": "unix", "path": str(socket_path)}, **more})


class Qemu:
    def __init__(self, arguments: list[str], directory: Path, name: str = "qemu") -> None:
        self.log_path = directory / f"{name}.log"
        self._qmp_path = directory / f"{name}.qmp"
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        self._qmp: socket.socket | None = None
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [program(), "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
                 "-m", "256M", "-qmp", f"unix:{self._qmp_path},server=on,wait=off", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """As a crash would: SIGKILL."""
        self.process.kill()
        self.process.wait()
        if self._qmp:
            self._qmp.close()
            self._qmp = None

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            print(f"log of QEMU:\n{self.log()[-3000:]}")
        self.kill()

    def must_run(self) -> None:
        if not self.is_running():
            raise t.Failure(f"QEMU ended with {self.process.returncode}: {self.log()[-2000:]}")

    def connect(self, path: Path, seconds: float = 10) -> socket.socket:
        """To a socket that QEMU makes at its start."""
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + seconds
        while True:
            try:
                s.connect(str(path))
                s.settimeout(30)
                return s
            except OSError:
                self.must_run()
                if time.monotonic() > deadline:
                    raise t.TimedOut(f"QEMU made no {path.name}: {self.log()[-1000:]}") from None
                time.sleep(0.01)

    def _read_qmp(self) -> dict[str, Any]:
        assert self._qmp
        while b"\n" not in self._buffer:
            chunk = self._qmp.recv(65536)
            if not chunk:
                raise t.Failure(f"QEMU ended: {self.log()[-2000:]}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Its return value; Failure on an error."""
        if not self._qmp:
            self._qmp = self.connect(self._qmp_path)
            self._read_qmp()  # greeting
            self.qmp("qmp_capabilities")
        self._qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            m = self._read_qmp()
            if "event" in m:
                self.events.append(m)
            elif "error" in m:
                raise t.Failure(f"QMP {command}: {m['error']['desc']}")
            else:
                return m["return"]

    def wait_event(self, name: str, seconds: float = 10) -> dict[str, Any]:
        """An event that was not yet taken by this call."""
        self.qmp("query-status")
        assert self._qmp
        deadline = time.monotonic() + seconds
        while True:
            for e in self.events:
                if e["event"] == name:
                    self.events.remove(e)
                    return e
            self._qmp.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                m = self._read_qmp()
            except TimeoutError:
                raise t.TimedOut(f"QEMU sent no {name} within {seconds} s") from None
            finally:
                self._qmp.settimeout(30)
            if "event" in m:
                self.events.append(m)
