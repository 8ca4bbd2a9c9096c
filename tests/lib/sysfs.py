# SPDX-License-Identifier: MIT
"""What a sysfs, or a tree like it, answers: the result of one open, one write, and a prober.

A line of a probed tree is one of
    D 0755 nlink=4 /sys/bus/mdev/
    F 0644 sz=4096 /sys/bus/mdev/drivers_autoprobe = "1\\n"
    F 0200 sz=4096 /sys/bus/mdev/uevent
    F 0644 sz=4096 /sys/devices/.../autosuspend_delay_ms read:EIO
    L 0777 /sys/class/mtty/mtty -> ../../devices/virtual/mtty/mtty
"""
from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path


def result(call: Callable[[], object]) -> str:
    """What a system call said: the name of the errno, a count, or "ok"."""
    try:
        r = call()
    except OSError as e:
        return errno.errorcode[e.errno]
    return str(r) if isinstance(r, int) else "ok"


def open_result(path: Path, flags: int) -> str:
    return result(lambda: os.close(os.open(path, flags, 0o666)))


def write_result(path: Path, data: str | bytes) -> str:
    """Of one write(2) to a file that is opened for it."""
    fd = os.open(path, os.O_WRONLY)
    try:
        return result(lambda: os.write(fd, data.encode() if isinstance(data, str) else data))
    finally:
        os.close(fd)


def _quoted(data: bytes) -> str:
    return data.decode().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _content(path: Path) -> str:
    try:
        with open(path, "rb", buffering=0) as f:
            return f' = "{_quoted(f.read(65536))}"'
    except OSError as e:
        return f" read:{errno.errorcode[e.errno]}"


def probe(root: Path, name: str) -> list[str]:
    """Lines of /sys/... `name` and all below it; root: what stands for /sys."""
    path = root / name.removeprefix("/sys").lstrip("/")
    st = os.lstat(path)
    mode = f"{stat.S_IMODE(st.st_mode):04o}"
    if stat.S_ISLNK(st.st_mode):
        return [f"L {mode} {name} -> {os.readlink(path)}"]
    if not stat.S_ISDIR(st.st_mode):
        content = _content(path) if st.st_mode & 0o444 else ""
        return [f"F {mode} sz={st.st_size} {name}{content}"]
    lines = [f"D {mode} nlink={st.st_nlink} {name}/"]
    for entry in sorted(os.listdir(path)):
        lines += probe(root, f"{name}/{entry}")
    return lines
