# SPDX-License-Identifier: MIT
"""A vfio-user client written from the protocol alone, shared with nothing in src/.

It keeps the invariants of every session: each command is answered, in order, with its own id and
command number, within ANSWER_SECONDS; `slowest` is the longest answer seen. Messages that the
device sends (DMA_READ, DMA_WRITE) are answered from `memory` while waiting for a reply.
"""
from __future__ import annotations

import array
import collections
import errno
import json
import mmap
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import t

ANSWER_SECONDS = 1.0  # QEMU gives up after 5; none of ours may come near

(VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, GET_REGION_IO_FDS, GET_IRQ_INFO, SET_IRQS,
 REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET) = range(1, 14)
REGION_WRITE_MULTI, DEVICE_FEATURE = 15, 16

F_REPLY, F_NO_REPLY, F_ERROR = 1, 0x10, 0x20
REGION_CONFIG = 7
INTX, MSI, MSIX, ERR, REQ = range(5)
IRQ_NONE, IRQ_BOOL, IRQ_EVENTFD, IRQ_MASK, IRQ_UNMASK, IRQ_TRIGGER = 1, 2, 4, 8, 0x10, 0x20
DMA_R, DMA_W = 1, 2

_HEADER = struct.Struct("<HHIII")


class VfioError(OSError):
    """An error reply."""


@dataclass
class Message:
    id: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list[int] = field(default_factory=list)


@dataclass
class RegionInfo:
    flags: int
    size: int
    offset: int
    fds: list[int]
    caps: bytes


class Ram:
    """Guest memory: a memfd, mapped here too."""

    def __init__(self, size: int, name: str = "ram") -> None:
        self.size = size
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


class Eventfd:
    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wait(self, seconds: float = 2.0) -> int:
        """Count of signals; 0 when none came."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return 0
        return os.eventfd_read(self.fd)

    def clear(self) -> int:
        return self.wait(0)

    def close(self) -> None:
        os.close(self.fd)


class Client:
    def __init__(self, path: Path | None = None, fd: int | None = None, hello: bool = True) -> None:
        if fd is not None:
            self.socket = socket.socket(fileno=fd)
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(5)
            self.socket.connect(str(path))
        self.socket.settimeout(5)
        self.slowest = 0.0
        self.answered = 0
        self.max_data = 1 << 20
        self.capabilities: dict[str, object] = {}
        # What the device may reach by message: IOVA -> bytes. Messages seen: (command, IOVA, len).
        self.memory: dict[int, bytearray] = {}
        self.device_messages: list[tuple[int, int, int]] = []
        self._buffer = b""
        self._fds: list[int] = []
        self._next_id = 1
        self._pending: collections.deque[tuple[int, int, float]] = collections.deque()
        self._replies: dict[int, Message] = {}
        if hello:
            self.version()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        unanswered = len(self._pending)
        self.close()
        if not kind:
            t.equal(unanswered, 0, "commands never answered")

    def close(self) -> None:
        self.socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    # ---- messages ----

    def send_raw(self, data: bytes, fds: list[int] | None = None) -> None:
        """Bytes as they are: for malformed messages. Not expected to be answered."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], ancillary)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def send(self, command: int, payload: bytes = b"", fds: list[int] | None = None,
             no_reply: bool = False, id: int | None = None) -> int:
        """Sends without waiting; returns a ticket for wait()."""
        ticket = self._next_id
        self._next_id += 1
        wire_id = (ticket if id is None else id) & 0xffff
        if not no_reply:
            self._pending.append((ticket, wire_id | command << 16, time.monotonic()))
        self.send_raw(_HEADER.pack(wire_id, command, 16 + len(payload),
                                   F_NO_REPLY if no_reply else 0, 0) + payload, fds)
        return ticket

    def _fill(self, n: int) -> None:
        while len(self._buffer) < n:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 253))
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._fds += array.array("i", value[:len(value) & ~3])
            if not data:
                raise EOFError("the device hung up")
            self._buffer += data

    def receive(self) -> Message:
        """The next message from the device, whatever it is. EOFError when it hung up."""
        self._fill(16)
        wire_id, command, size, flags, error = _HEADER.unpack_from(self._buffer)
        t.check(16 <= size <= 1 << 24, f"the device sent a message of {size} bytes")
        self._fill(size)
        payload, self._buffer = self._buffer[16:size], self._buffer[size:]
        fds, self._fds = self._fds, []
        return Message(wire_id, command, flags, error, payload, fds)

    def _answer_device(self, m: Message) -> None:
        address, count = struct.unpack_from("<QQ", m.payload)
        self.device_messages.append((m.command, address, count))
        for base, data in self.memory.items():
            if base <= address and address + count <= base + len(data):
                at = address - base
                reply = m.payload[:16]
                if m.command == DMA_READ:
                    reply += bytes(data[at:at + count])
                else:
                    data[at:at + count] = m.payload[16:16 + count]
                flags, error = F_REPLY, 0
                break
        else:
            flags, error, reply = F_REPLY | F_ERROR, errno.EFAULT, b""
        self.send_raw(_HEADER.pack(m.id, m.command, 16 + len(reply), flags, error) + reply)

    def poll_device(self, seconds: float) -> bool:
        """Waits for one message of the device and answers it."""
        if not self._buffer and not select.select([self.socket], [], [], seconds)[0]:
            return False
        self._handle(self.receive())
        return True

    def _handle(self, m: Message) -> None:
        if not m.flags & F_REPLY:
            t.check(m.command in (DMA_READ, DMA_WRITE), f"the device sent command {m.command}")
            self._answer_device(m)
            return
        t.check(self._pending, f"a reply to nothing: command {m.command}, id {m.id}")
        ticket, wanted, begin = self._pending.popleft()
        t.equal((m.id, m.command), (wanted & 0xffff, wanted >> 16),
                "id and command of a reply (answers come in order)")
        took = time.monotonic() - begin
        self.slowest = max(self.slowest, took)
        self.answered += 1
        t.check(took < ANSWER_SECONDS * t.slowness(),
                f"command {m.command} was answered after {took:.2f} s")
        self._replies[ticket] = m

    def wait(self, ticket: int) -> Message:
        """The reply; VfioError when it is an error."""
        while ticket not in self._replies:
            self._handle(self.receive())
        m = self._replies.pop(ticket)
        if m.flags & F_ERROR:
            t.equal(len(m.payload), 0, "payload of an error reply")
            t.check(m.error > 0, f"error reply with errno {m.error}")
            raise VfioError(m.error, os.strerror(m.error))
        return m

    def call(self, command: int, payload: bytes = b"", fds: list[int] | None = None) -> Message:
        return self.wait(self.send(command, payload, fds))

    def errno_of(self, command: int, payload: bytes = b"", fds: list[int] | None = None) -> int:
        """0, or the errno of the error reply."""
        try:
            self.call(command, payload, fds)
        except VfioError as e:
            return e.errno or 0
        return 0

    def is_closed(self, seconds: float = 2.0) -> bool:
        """Does the device hang up within this time? Its messages until then are ignored."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return False
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionResetError:
                return True

    # ---- commands ----

    def version(self, capabilities: dict[str, object] | None = None, minor: int = 0) -> None:
        caps = capabilities or {"max_msg_fds": 16, "max_data_xfer_size": 1 << 20,
                                "pgsizes": 4096, "write_multiple": True}
        text = json.dumps({"capabilities": caps}).encode() + b"\0"
        m = self.call(VERSION, struct.pack("<HH", 0, minor) + text)
        major, got_minor = struct.unpack_from("<HH", m.payload)
        t.equal(major, 0, "major version")
        t.check(got_minor <= minor, f"minor version {got_minor}, we asked for {minor}")
        if len(m.payload) > 4:
            self.capabilities = json.loads(m.payload[4:].rstrip(b"\0"))["capabilities"]
            self.max_data = int(str(self.capabilities.get("max_data_xfer_size", self.max_data)))

    def dma_map(self, iova: int, size: int, fd: int | None = None, offset: int = 0,
                flags: int = DMA_R | DMA_W) -> None:
        self.call(DMA_MAP, struct.pack("<IIQQQ", 32, flags, offset, iova, size),
                  [] if fd is None else [fd])

    def dma_unmap(self, iova: int, size: int, flags: int = 0) -> None:
        m = self.call(DMA_UNMAP, struct.pack("<IIQQ", 24, flags, iova, size))
        t.equal(len(m.payload), 24, "payload of the reply to DMA_UNMAP")

    def info(self) -> tuple[int, int, int]:
        """flags, number of regions, number of interrupt kinds."""
        m = self.call(GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
        return struct.unpack("<IIII", m.payload)[1:]

    def region_info(self, index: int, argsz: int = 4096) -> RegionInfo:
        m = self.call(GET_REGION_INFO, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0))
        _, flags, _, _, size, offset = struct.unpack_from("<IIIIQQ", m.payload)
        return RegionInfo(flags, size, offset, m.fds, m.payload[32:])

    def irq_info(self, index: int) -> tuple[int, int]:
        """flags, count."""
        m = self.call(GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))
        _, flags, _, count = struct.unpack("<IIII", m.payload)
        return flags, count

    def set_irqs(self, index: int, flags: int, start: int = 0, count: int = 1, data: bytes = b"",
                 fds: list[int] | None = None) -> None:
        self.call(SET_IRQS, struct.pack("<IIIII", 20 + len(data), flags, index, start, count)
                  + data, fds)

    def arm(self, index: int, vector: int = 0) -> Eventfd:
        """An eventfd that this interrupt signals from now on."""
        e = Eventfd()
        self.set_irqs(index, IRQ_EVENTFD | IRQ_TRIGGER, vector, 1, fds=[e.fd])
        return e

    def read(self, region: int, offset: int, count: int) -> bytes:
        m = self.call(REGION_READ, struct.pack("<QII", offset, region, count))
        t.equal(struct.unpack_from("<QII", m.payload), (offset, region, count),
                "what a REGION_READ reply repeats")
        t.equal(len(m.payload), 16 + count, "payload of the reply to REGION_READ")
        return m.payload[16:]

    def write(self, region: int, offset: int, data: bytes, no_reply: bool = False) -> None:
        ticket = self.send(REGION_WRITE, struct.pack("<QII", offset, region, len(data)) + data,
                           no_reply=no_reply)
        if not no_reply:
            self.wait(ticket)

    def write_multi(self, writes: list[tuple[int, int, bytes]]) -> None:
        """(region, offset, up to 8 bytes) each; sent as QEMU does, without a reply."""
        body = b"".join(struct.pack("<QII", o, r, len(d)) + d.ljust(8, b"\0") for r, o, d in writes)
        self.send(REGION_WRITE_MULTI, struct.pack("<Q", len(writes)) + body, no_reply=True)

    def reset(self) -> None:
        self.call(RESET)

    def feature(self, flags: int, data: bytes = b"") -> bytes:
        m = self.call(DEVICE_FEATURE, struct.pack("<II", 8 + len(data), flags) + data)
        return m.payload[8:]

    # ---- PCI ----

    def config(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.read(REGION_CONFIG, offset, size), "little")

    def set_config(self, offset: int, size: int, value: int) -> None:
        self.write(REGION_CONFIG, offset, value.to_bytes(size, "little"))

    def capability(self, wanted: int) -> int:
        """Its offset in configuration space, or 0."""
        at = self.config(0x34, 1)
        for _ in range(48):
            if not at:
                return 0
            if self.config(at, 1) == wanted:
                return at
            at = self.config(at + 1, 1)
        raise t.Failure("the capability list has a loop")
