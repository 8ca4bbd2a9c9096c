# SPDX-License-Identifier: MIT
"""A Varlink client: JSON objects ended by a NUL byte on a UNIX stream socket."""
from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class VarlinkError(Exception):
    """An error reply. name: its full name; errno: "EBUSY" and so on of io.umdev.Error."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        super().__init__(parameters.get("text") or f"{name} {parameters}")
        self.name = name
        self.parameters = parameters
        self.errno: str | None = parameters.get("errno")


class Varlink:
    def __init__(self, path: Path, timeout: float = 20.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self._buffer = b""

    def __enter__(self) -> Varlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> dict[str, Any]:
        """One message; EOFError when the other side hung up."""
        while b"\0" not in self._buffer:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError("the control socket was closed")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _reply(self) -> dict[str, Any]:
        reply = self.receive()
        if "error" in reply:
            raise VarlinkError(reply["error"], reply.get("parameters") or {})
        return reply

    def send(self, method: str, parameters: dict[str, Any], **flags: bool) -> None:
        full = method if "." in method else f"io.umdev.{method}"
        self.send_raw(json.dumps({"method": full, "parameters": parameters, **flags}).encode()
                      + b"\0")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The reply's parameters. "Create" is short for "io.umdev.Create"."""
        self.send(method, parameters)
        return self._reply().get("parameters") or {}

    def stream(self, method: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """A call with `more`: the parameters of each reply."""
        self.send(method, parameters, more=True)
        while True:
            reply = self._reply()
            yield reply.get("parameters") or {}
            if not reply.get("continues"):
                return
