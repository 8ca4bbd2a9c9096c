# SPDX-License-Identifier: MIT
"""QEMU without a guest (-accel qtest): a real vfio-user client whose vCPU is this script."""
from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from . import t
from .qemu import RAM, Qemu


class Qtest(Qemu):
    """slowest: the longest register access or configuration access of the session."""

    def __init__(self, devices: list[str], directory: Path, *more: str, name: str = "qtest",
                 machine: str = "q35") -> None:
        path = directory / f"{name}.qtest"
        arguments = ["-machine", f"{machine},accel=qtest", *RAM,
                     "-qtest", f"unix:{path},server=on,wait=off", *more]
        for d in devices:
            arguments += ["-device", d]
        super().__init__(arguments, directory, name)
        try:
            self._socket = self.connect(path, 20)
        except BaseException:
            self.kill()
            raise
        self._text = b""
        self.irqs: dict[int, bool] = {}
        self.slowest = 0.0
        self.inb(0x80)  # answered when the machine is made: QEMU's own start is none of our time
        self.slowest = 0.0

    def __enter__(self) -> Qtest:
        return self

    def command(self, text: str) -> list[str]:
        """Sends a line, returns the words after OK; "IRQ raise 11" lines are noted."""
        begin = time.monotonic()
        self._socket.sendall(text.encode() + b"\n")
        while True:
            while b"\n" not in self._text:
                chunk = self._socket.recv(65536)
                if not chunk:
                    raise t.Failure(f"QEMU ended at '{text}': {self.log()[-2000:]}")
                self._text += chunk
            line, _, self._text = self._text.partition(b"\n")
            words = line.decode().split()
            if words[0] == "IRQ":
                self.irqs[int(words[2])] = words[1] == "raise"
                continue
            if words[0] != "OK":
                raise t.Failure(f"qtest '{text}': {line.decode()}")
            self.slowest = max(self.slowest, time.monotonic() - begin)
            return words[1:]

    def _number(self, text: str) -> int:
        return int(self.command(text)[0], 0)

    def outl(self, port: int, value: int) -> None:
        self.command(f"outl {port:#x} {value:#x}")

    def outb(self, port: int, value: int) -> None:
        self.command(f"outb {port:#x} {value:#x}")

    def inl(self, port: int) -> int:
        return self._number(f"inl {port:#x}")

    def inb(self, port: int) -> int:
        return self._number(f"inb {port:#x}")

    def readl(self, address: int) -> int:
        return self._number(f"readl {address:#x}")

    def writel(self, address: int, value: int) -> None:
        self.command(f"writel {address:#x} {value:#x}")

    def read(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self.command(f"read {address:#x} {size:#x}")[0][2:])

    def write(self, address: int, data: bytes) -> None:
        self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def pci(self, slot: int, function: int = 0, bus: int = 0) -> Function:
        return Function(self, bus << 16 | slot << 11 | function << 8)


@dataclass
class Function:
    """A PCI function, seen through the ports 0xcf8 and 0xcfc."""

    q: Qtest
    address: int

    def config(self, offset: int, size: int = 4) -> int:
        self.q.outl(0xcf8, 0x80000000 | self.address | (offset & 0xfc))
        letter = {1: "b", 2: "w", 4: "l"}[size]
        return self.q._number(f"in{letter} {0xcfc + (offset & 3):#x}")

    def set_config(self, offset: int, value: int, size: int = 4) -> None:
        self.q.outl(0xcf8, 0x80000000 | self.address | (offset & 0xfc))
        letter = {1: "b", 2: "w", 4: "l"}[size]
        self.q.command(f"out{letter} {0xcfc + (offset & 3):#x} {value:#x}")

    def bar_size(self, index: int) -> int:
        """By the book: write ones, read, restore. 0: not implemented."""
        at = 0x10 + 4 * index
        old = self.config(at)
        self.set_config(at, 0xffffffff)
        got = self.config(at)
        self.set_config(at, old)
        mask = 0xfffffffc if got & 1 else 0xfffffff0
        return (~(got & mask) & 0xffffffff) + 1 if got & mask else 0

    def place(self, index: int, address: int) -> None:
        self.set_config(0x10 + 4 * index, address)

    def enable(self) -> None:
        """Ports, memory, bus master."""
        self.set_config(0x04, self.config(0x04, 2) | 7, 2)

    def capability(self, wanted: int) -> int:
        at = self.config(0x34, 1)
        while at:
            word = self.config(at, 2)
            if word & 0xff == wanted:
                return at
            at = word >> 8
        return 0
