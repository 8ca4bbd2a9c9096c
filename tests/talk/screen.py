#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The screen of a display, seen by VNC: what is shown is what the guest drew, and a viewer that
misbehaves is alone in that."""
from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, program, worker_of
from lib.rfb import RAW, ZRLE, DESKTOP_SIZE, Rfb
from lib.vfio_user import Client

VIDEO, REGISTERS = 0, 2


class Guest:
    """What a guest's driver does."""

    def __init__(self, d: Daemon, uuid: str) -> None:
        self.d, self.uuid = d, uuid
        self.c = Client(d.socket(uuid))
        info = self.c.region_info(VIDEO)
        self.video = mmap.mmap(info.fds[0], info.size)

    def close(self) -> None:
        self.video.close()
        self.c.close()

    def dispi(self, index: int, value: int) -> None:
        self.c.write(REGISTERS, 0x500 + 2 * index, struct.pack("<H", value))

    def mode(self, width: int, height: int) -> None:
        for index, value in ((4, 0), (3, 32), (1, width), (2, height), (6, width), (4, 0x41)):
            self.dispi(index, value)

    def draw(self, width: int, height: int, at: int = 0, seed: int = 1) -> bytes:
        """Something with tiles of one colour, of few, and of many."""
        rows = []
        for y in range(height):
            row = bytearray()
            for x in range(width):
                if y < 64:
                    row += struct.pack("<I", 0x203040)
                elif y < 128:
                    row += struct.pack("<I", 0xffffff if (x ^ y) & seed else 0x000080)
                else:
                    row += struct.pack("<I", (x * 0x10305 + y * 0x501 * seed) & 0xffffff)
            rows.append(bytes(row))
        picture = b"".join(rows)
        self.video[at:at + len(picture)] = picture
        return picture

    @property
    def socket(self) -> Path:
        return self.d.device_dir(self.uuid) / "vnc.sock"


@contextlib.contextmanager
def guest(*settings: str) -> Iterator[Guest]:
    with Daemon() as d:
        d.umdev("parent", "add", "gpu", "driver=display")
        g = Guest(d, d.create("gpu", "display-16m", *settings))
        try:
            yield g
        finally:
            g.close()


@t.case
def what_the_guest_drew_is_what_is_seen() -> None:
    with guest("label=den") as g:
        g.mode(320, 200)
        picture = g.draw(320, 200)
        for version in (b"003.003", b"003.007", b"003.008"):
            for encodings in ((RAW,), (ZRLE, RAW)):
                with Rfb(g.socket, version=version, encodings=encodings) as v:
                    t.equal((v.width, v.height, v.name), (320, 200, "den"), "what it is told")
                    t.check(v.picture() == picture, f"picture by {version!r} {encodings}")


@t.case
def changes_arrive_and_nothing_else_does() -> None:
    with guest() as g, contextlib.ExitStack() as stack:
        g.mode(640, 480)
        picture = bytearray(g.draw(640, 480))
        viewers = [stack.enter_context(Rfb(g.socket, encodings=e)) for e in ((RAW,), (ZRLE,))]
        for v in viewers:
            t.check(v.picture() == picture, "first picture")
            v.request(incremental=True)
        time.sleep(0.3)
        at = (100 * 640 + 100) * 4
        g.video[at:at + 4] = picture[at:at + 4] = b"\1\2\3\0"
        for v in viewers:
            t.equal(v.update(), 1, "rectangles of a change of one pixel")
            t.check(v.pixels == picture, "picture after it")


@t.case
def flips_and_sizes_are_followed() -> None:
    with guest() as g, Rfb(g.socket, encodings=(ZRLE, DESKTOP_SIZE)) as v:
        t.equal((v.width, v.height), (640, 480), "size of a screen without a mode")
        t.check(v.picture() == bytes(640 * 480 * 4), "it is dark")
        g.mode(320, 240)
        first = g.draw(320, 240)
        second = g.draw(320, 240, at=320 * 240 * 4, seed=7)
        t.check(v.picture() == first, "first page")
        t.equal((v.width, v.height, v.sizes), (320, 240, 1), "size")
        g.dispi(9, 240)
        t.check(v.picture() == second, "second page")
        g.dispi(4, 0)
        t.check(v.picture() == bytes(len(second)), "it is dark again")


@t.case
def bytes_in_the_other_order_are_shown_right() -> None:
    with guest() as g, Rfb(g.socket) as v:
        g.mode(64, 64)
        g.video[0:4 * 4096] = b"\0\x11\x22\x33" * 4096
        g.c.write(REGISTERS, 0x604, struct.pack("<I", 0xbebebebe))
        t.equal(v.picture()[:4], b"\x33\x22\x11\0", "a pixel")


@t.case
def other_pixels_are_converted() -> None:
    with guest() as g:
        g.mode(64, 64)
        g.video[0:4 * 4096] = struct.pack("<I", 0xff8000) * 4096
        for bits, big, maxima, shifts, wanted in (
                (16, 0, (31, 63, 31), (11, 5, 0), struct.pack("<H", 31 << 11 | 32 << 5)),
                (32, 1, (255, 255, 255), (24, 16, 8), b"\xff\x80\0\0"),
                (8, 0, (7, 7, 3), (0, 3, 6), bytes([7 | 4 << 3]))):
            with Rfb(g.socket) as v:
                v.s.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, bits, 24, big, 1, *maxima,
                                        *shifts))
                v.request()
                v.take(16)
                t.equal(v.take(bits // 8), wanted, f"a pixel of {bits} bits")


@t.case
def the_picture_survives_a_killed_worker() -> None:
    with guest() as g, Rfb(g.socket) as v:
        g.mode(320, 200)
        picture = g.draw(320, 200)
        os.kill(worker_of(g.d, g.uuid), signal.SIGKILL)
        g.c.read(REGISTERS, 0x500, 2)
        t.check(v.picture() == picture, "picture")
        g.mode(320, 100)
        t.check(v.picture() == picture[:320 * 100 * 4], "picture in another mode")


@t.case
def the_screen_ends_with_the_client_and_with_its_memory() -> None:
    with guest() as g:
        g.mode(64, 64)
        g.video[0:4] = b"priv"
        with Rfb(g.socket) as v:
            v.picture()
            g.close()
            t.check(v.is_closed(), "the viewer is not told")
        t.wait_for(lambda: g.d.state_of(g.uuid) == "idle", 5, "idle")
        t.wait_for(lambda: not g.socket.exists(), 5, "the end of the socket")
        g.__init__(g.d, g.uuid)
        g.mode(64, 64)
        with Rfb(g.socket) as v:
            t.check(v.picture() == bytes(64 * 64 * 4), "what the owner before had drawn is seen")


def des(key: bytes, data: bytes) -> bytes:
    p = subprocess.run(["openssl", "enc", "-des-ecb", "-nopad", "-K", key.hex(), "-provider",
                        "legacy", "-provider", "default"], input=data, capture_output=True)
    t.equal(p.returncode, 0, p.stderr.decode())
    return p.stdout


@t.case
def a_port_wants_the_password() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with Daemon() as d:
        d.umdev("parent", "add", "gpu", "driver=display")
        p = d.umdev("create", "-p", "gpu", "-t", "display-16m", f"vnc_port={port}", ok=False)
        t.check(p.returncode and "vnc_password" in p.stderr, p.stderr)
        uuid = d.create("gpu", "display-16m", f"vnc_port={port}", "vnc_password=tomato")
        g = Guest(d, uuid)
        g.mode(64, 64)
        for password, right in ((b"tomato", True), (b"potato", False), (b"", False)):
            with Rfb(port=port, hello=False) as v:
                v.take(12)
                v.s.sendall(b"RFB 003.008\n")
                t.equal(v.take(2), b"\1\2", "kinds of security")
                v.s.sendall(b"\2")
                key = bytes(int(f"{b:08b}"[::-1], 2) for b in password.ljust(8, b"\0"))
                v.s.sendall(des(key, v.take(16)))
                t.equal(v.take(4), bytes(3) + bytes([not right]), "the answer")
                if right:
                    v.init()
                    v.set_encodings((RAW,))
                    t.equal(len(v.picture()), 64 * 64 * 4, "picture")
                else:
                    t.check(v.is_closed(), "it may go on")
        t.check("tomato" not in d.log() + d.umdev("list", "-j").stdout, "the password is told")
        g.close()


def png_pixels(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and rows of r g b."""
    t.equal(data[:8], b"\x89PNG\r\n\x1a\n", "signature")
    at, packed, width, height, size = 8, b"", 0, 0, 3
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + n]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            t.check(depth == 8 and colour in (2, 6), "kind of pixels")
            size = 4 if colour == 6 else 3
        packed += body if kind == b"IDAT" else b""
        at += 12 + n
    raw = zlib.decompress(packed)
    rows: list[bytes] = []
    before = bytes(size * width)
    for y in range(height):
        at = y * (size * width + 1)
        kind, row = raw[at], bytearray(raw[at + 1:at + 1 + size * width])
        for i in range(len(row) if kind else 0):
            left = row[i - size] if i >= size else 0
            corner = before[i - size] if i >= size else 0
            p = left + before[i] - corner
            row[i] = row[i] + (0, left, before[i], (left + before[i]) // 2, min(
                (left, before[i], corner), key=lambda c: abs(p - c)))[kind] & 255
        before = bytes(row)
        rows.append(b"".join(before[i:i + 3] for i in range(0, len(before), size)))
    return width, height, b"".join(rows)


def as_rgb(picture: bytes) -> bytes:
    rgb = bytearray(len(picture) // 4 * 3)
    for i in range(3):
        rgb[i::3] = picture[2 - i::4]
    return bytes(rgb)


@t.case
def a_screenshot_is_the_picture() -> None:
    with guest("label=den") as g:
        g.mode(320, 200)
        wanted = as_rgb(g.draw(320, 200))
        path = g.d.dir / "shot.png"
        g.d.umdev("screenshot", "den", str(path))
        t.check(png_pixels(path.read_bytes()) == (320, 200, wanted), "picture in the file")
        p = subprocess.run([str(program("umdev")), "screenshot", g.uuid, "-"], env=g.d.env,
                           capture_output=True)
        t.check(png_pixels(p.stdout) == (320, 200, wanted), "picture on standard output")
        p = g.d.umdev("screenshot", "den", "/nonexistent/x.png", ok=False)
        t.check(p.returncode == 1 and "No such file" in p.stderr, p.stderr)
    with Daemon() as d:
        d.add_card()
        for uuid in (d.create("card0", "mtty-1"), ):
            p = d.umdev("screenshot", uuid, "x.png", ok=False)
            t.check(p.returncode == 3 and "has no screen now" in p.stderr, p.stderr)


@t.case
def a_terminal_shows_the_picture() -> None:
    with guest() as g:
        g.mode(64, 64)
        g.video[0:4 * 64 * 32] = struct.pack("<I", 0xff0000) * (64 * 32)
        p = g.d.umdev("screen", "--text", g.uuid)
        lines = p.stdout.splitlines()
        t.check(len(lines) <= 24, "it scrolls away")
        t.check("\x1b[38;2;255;0;0m\x1b[48;2;255;0;0m\u2580" in lines[0], lines[0][:80])
        t.check("\x1b[38;2;0;0;0m\x1b[48;2;0;0;0m\u2580" in lines[-1], lines[-1][:80])


@t.case
def a_terminal_that_knows_sixels_gets_them() -> None:
    with guest() as g:
        g.mode(64, 64)
        g.video[0:4 * 64 * 64] = struct.pack("<I", 0x00ff00) * (64 * 64)
        master, slave = os.openpty()
        p = subprocess.Popen([str(program("umdev")), "screen", g.uuid], stdin=slave, stdout=slave,
                             env={k: v for k, v in g.d.env.items() if "DISPLAY" not in k})
        os.close(slave)
        got = b""
        while b"\x1b\\" not in got:
            got += os.read(master, 65536)
            if got == b"\x1b[c":
                os.write(master, b"\x1b[?62;4;22c")
        t.equal(p.wait(10), 0, "status")
        os.close(master)
        # Full green is register 5 * 6; a band of six rows in it is a line of '~'.
        t.check(b"\x1bPq" in got and b"#30" + b"~" * 64 + b"$-" in got, repr(got[-200:]))


def forward(listener: socket.socket, path: Path) -> None:
    """One connection at a TCP port goes to a UNIX socket."""
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(path))

    def pump(a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pump, args=(server, client))
    back.start()
    pump(client, server)
    back.join()


@t.case
def gvnccapture_takes_the_same_picture() -> None:
    if not shutil.which("gvnccapture"):
        t.skip("gvnccapture (Debian package gvncviewer) is not installed")
    with guest() as g, socket.socket() as listener:
        g.mode(320, 200)
        wanted = as_rgb(g.draw(320, 200))
        for display in range(40, 90):
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", 5900 + display))
                break
        listener.listen()
        thread = threading.Thread(target=forward, args=(listener, g.socket))
        thread.start()
        path = g.d.dir / "shot.png"
        p = subprocess.run(["gvnccapture", "-q", f"127.0.0.1:{display}", str(path)],
                           capture_output=True, timeout=30, env=g.d.env | {"HOME": str(g.d.dir)})
        thread.join(10)
        t.equal(p.returncode, 0, p.stderr.decode())
        t.check(png_pixels(path.read_bytes()) == (320, 200, wanted), "picture")


HOSTILE = {
    "another protocol": b"GET / HTTP/1.0\r\n\r\n",
    "security that was not offered": b"RFB 003.008\n\x05",
    "a message that does not exist": b"RFB 003.008\n\1\1\xc8",
    "pixels of 24 bits": b"RFB 003.008\n\1\1" + struct.pack(
        ">BxxxBBBBHHHBBBxxx", 0, 24, 24, 0, 1, 255, 255, 255, 16, 8, 0),
    "pixels without colour": b"RFB 003.008\n\1\1" + struct.pack(
        ">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 0, 255, 255, 16, 8, 0),
    "shifts out of the pixel": b"RFB 003.008\n\1\1" + struct.pack(
        ">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 200, 8, 0),
}


@t.case
def a_viewer_that_breaks_a_rule_is_sent_away_with_one_line() -> None:
    with guest() as g, Rfb(g.socket) as good:
        g.mode(320, 200)
        for what, data in HOSTILE.items():
            lines = g.d.log().count("a viewer was sent away")
            with Rfb(g.socket, hello=False) as v:
                v.s.sendall(data)
                t.check(v.is_closed(), what)
            t.wait_for(lambda n=lines: g.d.log().count("a viewer was sent away") == n + 1, 5, what)
        good.picture()
        t.equal(g.d.state_of(g.uuid), "connected", "state of the device")


@t.case
def long_and_slow_viewers_cost_nobody_anything() -> None:
    with guest() as g, contextlib.ExitStack() as stack:
        g.mode(1024, 768)
        g.draw(64, 64)
        slow = stack.enter_context(Rfb(g.socket))
        for _ in range(200):
            slow.request()  # and never reads
        clip = stack.enter_context(Rfb(g.socket))
        clip.s.sendall(struct.pack(">BxxxI", 6, 100000) + b"x" * 100000)
        clip.set_encodings(tuple(range(1000)))
        clip.set_encodings((RAW,))
        clip.s.sendall(struct.pack(">BBxxI", 4, 1, 65) + struct.pack(">BBHH", 5, 1, 9, 9))
        t.equal(len(clip.picture()), 1024 * 768 * 4, "picture after all that")
        for _ in range(14):
            stack.enter_context(Rfb(g.socket))
        with Rfb(g.socket, hello=False) as v:
            t.check(v.is_closed(), "the 17th viewer")
        t.check("16 look already" in g.d.log(), "the reason is not told")


t.main()
