#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Bytes of a serial port with the worker killed at every system call."""
from __future__ import annotations

import os
import random
import select

from lib import t
from lib.daemon import Daemon
from lib.survive import add_cases
from lib.vfio_user import Client

RBR = THR = 0
FCR, MCR, LSR, SCR = 2, 4, 5, 7
DATA_READY, THR_EMPTY = 1, 0x20
CHUNK = 8


class Port:
    """A client of an mtty-1 device and the host end of its port, a pty."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.uuid = daemon.create("lab", "mtty-1", "backend=pty")
        self.client = Client(daemon.socket(self.uuid))
        self.random = random.Random(4)
        self._start()
        self.host = os.open(daemon.device_dir(self.uuid) / "tty0", os.O_RDWR | os.O_NOCTTY)
        os.set_blocking(self.host, False)

    def _start(self) -> None:
        self._put(FCR, 1)
        self._put(MCR, 3)

    def _put(self, register: int, value: int) -> None:
        self.client.write(0, register, bytes([value]))

    def _get(self, register: int) -> int:
        return self.client.read(0, register, 1)[0]

    def wake(self) -> None:
        self._get(SCR)

    def check(self) -> None:
        t.check(not self._get(LSR) & DATA_READY, "a byte too many for the guest")
        t.check(not select.select([self.host], [], [], 0)[0], "a byte too many for the host")

    def close(self) -> None:
        os.close(self.host)
        self.client.close()

    def host_to_guest(self) -> None:
        data = self.random.randbytes(CHUNK)
        t.equal(os.write(self.host, data), CHUNK, "bytes written")
        got = bytearray()

        def more() -> bool:
            while self._get(LSR) & DATA_READY:
                got.append(self._get(RBR))
            return len(got) >= CHUNK
        t.wait_for(more, 5, f"{CHUNK} bytes in the guest")
        t.equal(bytes(got), data, "bytes in the guest")

    def guest_to_host(self) -> None:
        data = self.random.randbytes(CHUNK)
        for byte in data:
            t.wait_for(lambda: self._get(LSR) & THR_EMPTY, 5, "room")
            self._put(THR, byte)
        got = b""
        while len(got) < CHUNK:
            t.check(select.select([self.host], [], [], 5)[0], f"{len(got)} of {CHUNK} bytes")
            got += os.read(self.host, CHUNK)
        t.equal(got, data, "bytes at the host")


add_cases(Port, "mtty", ["host_to_guest", "guest_to_host"])

t.main()
