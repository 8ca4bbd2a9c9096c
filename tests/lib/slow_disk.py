# SPDX-License-Identifier: MIT
"""A file whose reads and writes take as long as they are told to, whoever dies meanwhile."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

from . import t


class SlowDisk:
    """Use it as a context. `path` is the file; it is in memory, and gone at the end."""

    def __init__(self, size: int) -> None:
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            t.skip("no FUSE here")
        self._dir = t.TempDir()
        self.path = Path(self._dir.path) / "disk"
        self._process = subprocess.Popen(
            [t.BUILD / "tests/survive/slow-disk", self._dir.path, str(size)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
        if self._read() != "ready":
            raise t.Failure("slow-disk did not start")

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def _tell(self, command: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def delay(self, seconds: float) -> None:
        """Of each request that comes from now on."""
        self._tell(f"delay {round(seconds * 1000)}")

    def hold(self) -> None:
        """No request ends any more, until go()."""
        self._tell("hold")

    def go(self) -> None:
        self._tell("go")

    def under_way(self) -> int:
        return int(self._tell("count"))

    def __enter__(self) -> SlowDisk:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        if os.path.ismount(self._dir.path):
            subprocess.run(["umount", "-l", self._dir.path], check=False)
        self._dir.__exit__()
