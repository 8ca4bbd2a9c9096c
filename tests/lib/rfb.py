# SPDX-License-Identifier: MIT
"""A client of RFB 3.8: enough to look at a screen, and to misbehave."""
from __future__ import annotations

import socket
import struct
import zlib
from pathlib import Path

RAW, ZRLE, DESKTOP_SIZE = 0, 16, -223


class Rfb:
    """The picture is kept as rows of 4-byte pixels, b g r x."""

    def __init__(self, path: Path | None = None, port: int = 0, version: bytes = b"003.008",
                 encodings: tuple[int, ...] = (RAW, DESKTOP_SIZE), hello: bool = True) -> None:
        if path:
            self.s = socket.socket(socket.AF_UNIX)
            self.s.connect(str(path))
        else:
            self.s = socket.create_connection(("127.0.0.1", port))
        self.s.settimeout(10)
        self.width = self.height = 0
        self.pixels = bytearray()
        self.inflate = zlib.decompressobj()
        self.sizes = 0  # how often it was told a new size
        if hello:
            self.hello(version)
            self.set_encodings(encodings)

    def __enter__(self) -> Rfb:
        return self

    def __exit__(self, *_: object) -> None:
        self.s.close()

    def take(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            if not more:
                raise EOFError("the server hung up")
            data += more
        return data

    def hello(self, version: bytes = b"003.008") -> None:
        assert self.take(12) == b"RFB 003.008\n"
        self.s.sendall(b"RFB " + version + b"\n")
        if version == b"003.003":
            assert self.take(4) == b"\0\0\0\1"
        else:
            assert self.take(self.take(1)[0]) == b"\1"
            self.s.sendall(b"\1")
        if version == b"003.008":
            assert self.take(4) == bytes(4)
        self.init()

    def init(self) -> None:
        self.s.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.format = self.take(16)
        self.name = self.take(struct.unpack(">I", self.take(4))[0]).decode()
        self.pixels = bytearray(self.width * self.height * 4)

    def set_encodings(self, encodings: tuple[int, ...]) -> None:
        self.s.sendall(struct.pack(">BxH", 2, len(encodings)) +
                       b"".join(struct.pack(">i", e) for e in encodings))

    def request(self, incremental: bool = False) -> None:
        self.s.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self) -> int:
        """Takes one update; the number of its rectangles."""
        kind, n = struct.unpack(">BxH", self.take(4))
        assert kind == 0, kind
        for _ in range(n):
            x, y, w, h, encoding = struct.unpack(">HHHHi", self.take(12))
            if encoding == DESKTOP_SIZE:
                self.width, self.height = w, h
                self.pixels = bytearray(w * h * 4)
                self.sizes += 1
            elif encoding == RAW:
                self.put(x, y, w, h, self.take(w * h * 4))
            elif encoding == ZRLE:
                data = self.take(struct.unpack(">I", self.take(4))[0])
                self.put_zrle(x, y, w, h, self.inflate.decompress(data))
            else:
                raise AssertionError(f"encoding {encoding}")
        return n

    def put(self, x: int, y: int, w: int, h: int, data: bytes) -> None:
        for i in range(h):
            at = ((y + i) * self.width + x) * 4
            self.pixels[at:at + 4 * w] = data[4 * w * i:4 * w * (i + 1)]

    def put_zrle(self, x: int, y: int, w: int, h: int, data: bytes) -> None:
        at = 0
        for ty in range(y, y + h, 64):
            for tx in range(x, x + w, 64):
                tw, th = min(64, x + w - tx), min(64, y + h - ty)
                kind = data[at]
                at += 1
                if kind == 0:
                    n = tw * th
                    rgb = [data[at + 3 * i:at + 3 * i + 3] for i in range(n)]
                    at += 3 * n
                else:
                    assert kind <= 16, kind
                    palette = [data[at + 3 * i:at + 3 * i + 3] for i in range(kind)]
                    at += 3 * kind
                    bits = 0 if kind == 1 else 1 if kind == 2 else 2 if kind <= 4 else 4
                    stride = (tw * bits + 7) // 8
                    rgb = []
                    for row in range(th):
                        line = data[at + stride * row:at + stride * (row + 1)]
                        for col in range(tw):
                            index = line[col * bits // 8] >> (8 - bits - col * bits % 8) & \
                                ((1 << bits) - 1) if bits else 0
                            rgb.append(palette[index])
                    at += stride * th
                self.put(tx, ty, tw, th, b"".join(p + b"\0" for p in rgb))
        assert at == len(data), "bytes left in a rectangle"

    def picture(self) -> bytes:
        """All of the screen, as often as it says that it has another size."""
        sizes = -1
        while sizes != self.sizes:
            sizes = self.sizes
            self.request()
            self.update()
        return bytes(self.pixels)

    def is_closed(self) -> bool:
        try:
            while self.s.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True
