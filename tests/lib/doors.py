# SPDX-License-Identifier: MIT
"""The doors to the same model: the tree, the control socket, the command. Each takes the same operations
and says what became of them: "ok" or the name of the errno; the command says its exit status, which
status_of() makes of an errno."""
from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from . import t
from .daemon import Daemon
from .varlink import Varlink, VarlinkError

_STATUS = {2: ("EINVAL", "ERANGE", "E2BIG", "ENAMETOOLONG"), 3: ("ENOENT", "ENODEV"),
           4: ("EBUSY", "EEXIST", "EADDRINUSE", "EAGAIN", "ENOSPC", "EUSERS"),
           5: ("EACCES", "EPERM", "EXDEV", "EROFS")}


def status_of(result: str) -> str:
    """Exit status of the command for what the other doors answer."""
    if result == "ok":
        return "0"
    return next((str(s) for s, names in _STATUS.items() if result in names), "1")


def errno_name(e: OSError) -> str:
    return errno.errorcode[e.errno or 0]


class Door:
    name = ""

    def create(self, parent: str, kind: str, uuid: str, *settings: str) -> str:
        raise NotImplementedError

    def remove(self, uuid: str) -> str:
        raise NotImplementedError

    def set(self, uuid: str, param: str, value: str) -> str:
        raise NotImplementedError

    def get(self, uuid: str, param: str) -> str:
        """Its value, or the errno."""
        raise NotImplementedError

    def is_right(self, got: str, wanted: str) -> bool:
        return got == wanted

    def close(self) -> None:
        pass


class TreeDoor(Door):
    name = "the tree"

    def __init__(self, d: Daemon) -> None:
        self.sys = d.sys

    def _write(self, path: Path, text: str) -> str:
        try:
            fd = os.open(path, os.O_WRONLY)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as e:
            return errno_name(e)
        return "ok"

    def _value(self, uuid: str, param: str) -> Path:
        device = self.sys / "bus/mdev/devices" / uuid
        own = device / "vendor" / param / "value"
        return own if own.exists() else device / "mdev" / param / "value"

    def create(self, parent: str, kind: str, uuid: str, *settings: str) -> str:
        path = self.sys / "class/mdev_bus" / parent / "mdev_supported_types" / kind / "create"
        return self._write(path, ",".join((uuid, *settings)))

    def remove(self, uuid: str) -> str:
        return self._write(self.sys / "bus/mdev/devices" / uuid / "remove", "1")

    def set(self, uuid: str, param: str, value: str) -> str:
        return self._write(self._value(uuid, param), value + "\n")

    def get(self, uuid: str, param: str) -> str:
        try:
            return self._value(uuid, param).read_text().rstrip("\n")
        except OSError as e:
            return errno_name(e)


class SocketDoor(Door):
    name = "the control socket"

    def __init__(self, d: Daemon) -> None:
        self.v: Varlink = d.varlink()

    def close(self) -> None:
        self.v.socket.close()

    def _call(self, method: str, **parameters: object) -> str:
        try:
            self.v.call(method, **parameters)
        except VarlinkError as e:
            return e.errno or str(e)
        return "ok"

    def create(self, parent: str, kind: str, uuid: str, *settings: str) -> str:
        return self._call("Create", parent=parent, type=kind, uuid=uuid, settings=list(settings))

    def remove(self, uuid: str) -> str:
        return self._call("Remove", name=uuid, force=False)

    def set(self, uuid: str, param: str, value: str) -> str:
        return self._call("ParamSet", name=uuid, param=param, value=value)

    def get(self, uuid: str, param: str) -> str:
        try:
            params = self.v.call("Show", name=uuid)["params"]
        except VarlinkError as e:
            return e.errno or str(e)
        return next((p["value"] for p in params if p["name"] == param), "ENOENT")


class CommandDoor(Door):
    name = "the command"

    def __init__(self, d: Daemon) -> None:
        self.d = d

    def _run(self, *arguments: str) -> str:
        p = self.d.umdev(*arguments, ok=False)
        t.equal(len(p.stderr.splitlines()), 1 if p.returncode else 0,
                f"lines of {arguments} about {p.returncode}: {p.stderr}")
        return str(p.returncode)

    def create(self, parent: str, kind: str, uuid: str, *settings: str) -> str:
        return self._run("create", "-p", parent, "-t", kind, "-u", uuid, *settings)

    def remove(self, uuid: str) -> str:
        return self._run("remove", uuid)

    def set(self, uuid: str, param: str, value: str) -> str:
        return self._run("param", "set", uuid, f"{param}={value}")

    def get(self, uuid: str, param: str) -> str:
        p = self.d.umdev("param", "show", "-j", uuid, param, ok=False)
        return str(json.loads(p.stdout)["value"]) if p.returncode == 0 else str(p.returncode)

    def is_right(self, got: str, wanted: str) -> bool:
        return got == status_of(wanted)


def all_doors(d: Daemon) -> list[Door]:
    return [TreeDoor(d), SocketDoor(d), CommandDoor(d)]
