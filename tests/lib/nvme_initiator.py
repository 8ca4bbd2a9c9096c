# SPDX-License-Identifier: MIT
"""An NVMe host in user space that polls: its doorbells are stores to a page that it has mapped, and
its session is the shortest that is possible."""
from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path

from . import nvme, t
from .daemon import Daemon
from .nvme import PAGE, Host
from .vfio_user import DMA_MAP, GET_INFO, GET_REGION_INFO, VERSION, Client, Message, Ram

PAYLOAD = 4064  # what fits into its buffer of 4 KiB behind header and padding


class Initiator(Host):
    """The same queues; another way to connect, to map memory and to ring."""

    def __init__(self, socket: Path, daemon: Daemon, uuid: str) -> None:
        self.daemon, self.uuid = daemon, uuid
        self.client = Client(socket, hello=False)
        self.vectors = {}
        self.written = {}
        self.shadow = self.event_index = self.shadow_writes = self.register_writes = 0
        # No JSON, and one number for all messages.
        m = self.client.wait(self.client.send(VERSION, struct.pack("<HH", 0, 1), id=0))
        t.equal(struct.unpack_from("<H", m.payload)[0], 0, "major version")
        self.ask(GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
        self.map_doorbells()
        # Its memory is where it is in its own address space, aligned to small pages.
        self.ram = Ram(nvme.RAM)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.ram.map))
        self.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, self.base, nvme.RAM), self.ram.fd)
        self.free = list(range(0, nvme.RAM, PAGE))[::-1]
        self.client.set_config(4, 2, 6)

    def ask(self, what: int, payload: bytes, fd: int | None = None) -> Message:
        ticket = self.client.send(what, payload, [] if fd is None else [fd], id=0)
        return self.client.wait(ticket)

    def map_doorbells(self) -> None:
        request = struct.pack("<IIIIQQ", PAYLOAD, 0, 0, 0, 0, 0).ljust(PAYLOAD, b"\0")
        m = self.ask(GET_REGION_INFO, request)
        argsz, flags, index, caps, size, offset = struct.unpack_from("<IIIIQQ", m.payload)
        t.equal((flags & 15, index, len(m.fds)), (15, 0, 1), "flags and descriptors of BAR 0")
        t.check(argsz <= PAYLOAD and len(m.payload) == argsz, f"{argsz} bytes in one piece")
        kind, version, following, areas, _, at, length = struct.unpack_from(
            "<HHIIIQQ", m.payload, caps)
        t.equal((kind, version, following, areas, at, length), (1, 1, 0, 1, 0x1000, 0x1000),
                "what can be mapped")
        self.page_map = mmap.mmap(m.fds[0], length, offset=offset + at)
        self.words = (ctypes.c_uint32 * (PAGE // 4)).from_buffer(self.page_map)

    def doorbell(self, word: int, value: int) -> None:
        self.words[word] = value

    def page(self, n: int = 1) -> int:
        return super().page(n) - nvme.IOVA + self.base

    def give_back(self, iova: int, n: int = 1) -> None:
        super().give_back(iova - self.base + nvme.IOVA, n)

    def get(self, iova: int, n: int) -> bytes:
        return self.ram.map[iova - self.base:iova - self.base + n]

    def put(self, iova: int, data: bytes) -> None:
        self.ram.map[iova - self.base:iova - self.base + len(data)] = data
