#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Host ends of serial ports as a card's client and a user of the host see them."""
from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import stat
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon
from lib.vfio_user import Client

RBR = THR = 0
FCR, MCR, LSR = 2, 4, 5
DATA_READY, THR_EMPTY = 1, 0x20
DTR_RTS_OUT2 = 0x0b


@contextlib.contextmanager
def port(*settings: str) -> Iterator[tuple[Daemon, Client, Path]]:
    """A one-port card whose driver has opened it, and the device's directory."""
    with Daemon() as d:
        d.add_card()
        uuid = d.create("card0", "mtty-1", *settings)
        with Client(d.socket(uuid)) as c:
            open_port(c)
            yield d, c, d.device_dir(uuid)


def open_port(c: Client) -> None:
    c.write(0, FCR, b"\x07")
    c.write(0, MCR, bytes([DTR_RTS_OUT2]))


def send(c: Client, data: bytes, seconds: float = 10) -> int:
    """As a guest does it; returns how many bytes went before the port was full for that long."""
    for n, byte in enumerate(data):
        deadline = time.monotonic() + seconds
        while not c.read(0, LSR, 1)[0] & THR_EMPTY:
            if time.monotonic() > deadline:
                return n
            time.sleep(0.001)
        c.write(0, THR, bytes([byte]))
    return len(data)


def receive(c: Client, n: int, seconds: float = 10) -> bytes:
    got = bytearray()
    deadline = time.monotonic() + seconds
    while len(got) < n and time.monotonic() < deadline:
        if c.read(0, LSR, 1)[0] & DATA_READY:
            got += c.read(0, RBR, 1)
        else:
            time.sleep(0.001)
    return bytes(got)


def drain(fd: int, n: int, seconds: float = 10) -> bytes:
    got = b""
    while len(got) < n and select.select([fd], [], [], seconds)[0]:
        got += os.read(fd, 65536)
    return got


def peer(directory: Path) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(10)
    s.connect(str(directory / "port0.sock"))
    return s


@t.case
def a_pty_is_raw_before_anybody_set_it_up() -> None:
    with port() as (_, c, directory):
        fd = os.open(directory / "tty0", os.O_RDWR | os.O_NOCTTY)
        iflag, oflag, _, lflag = termios.tcgetattr(fd)[:4]
        t.equal(lflag & (termios.ECHO | termios.ICANON | termios.ISIG), 0, "echo, lines, signals")
        t.equal((iflag & termios.ICRNL, oflag & termios.OPOST), (0, 0), "translations")
        every = bytes(range(256))
        t.equal(send(c, every), 256, "bytes that the card took")
        t.equal(drain(fd, 256), every, "bytes at the pty")
        os.write(fd, every)
        t.equal(receive(c, 256), every, "bytes at the card")
        os.close(fd)


@t.case
def a_pty_outlives_the_programs_that_open_it() -> None:
    with port() as (_, c, directory):
        for word in (b"one", b"two"):
            fd = os.open(directory / "tty0", os.O_RDWR | os.O_NOCTTY)
            send(c, word)
            t.equal(drain(fd, 3), word, "bytes at the pty")
            os.close(fd)


@t.case
def a_pty_that_nobody_reads_stops_the_guest_and_not_the_machine() -> None:
    with port() as (d, c, directory):
        sent = send(c, b"x" * 100_000, seconds=0.5)
        t.check(4096 < sent < 100_000, f"the guest was stopped after {sent} bytes")
        before = cpu(d)
        time.sleep(1)
        t.check(cpu(d) - before < 0.2, f"{cpu(d) - before:.2f} s of CPU while nothing moves")
        fd = os.open(directory / "tty0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        t.equal(len(drain(fd, sent, 2)), sent, "bytes that came out after all")
        t.equal(send(c, b"more"), 4, "the guest goes on")
        os.close(fd)


def cpu(d: Daemon) -> float:
    total = 0
    for pid in [d.process.pid, *d.workers()]:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@t.case
def a_socket_carries_both_ways_without_loss() -> None:
    data = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(1024))
    with port("backend=socket") as (_, c, directory), peer(directory) as s:
        out = b""
        for at in range(0, len(data), 4096):
            t.equal(send(c, data[at:at + 4096]), 4096, "bytes that the card took")
            out += drain(s.fileno(), 4096)
        t.equal(out, data, "bytes at the socket")
        s.setblocking(False)
        back, rest = b"", data
        while len(back) < len(data):
            with contextlib.suppress(BlockingIOError):
                rest = rest[s.send(rest):] if rest else rest
            piece = receive(c, 64, 5)
            t.check(piece, f"nothing came after {len(back)} bytes")
            back += piece
        t.equal(back, data, "bytes at the card")


@t.case
def a_socket_has_one_peer_at_a_time_and_then_the_next() -> None:
    with port("backend=socket") as (_, c, directory):
        for word in (b"first", b"other"):
            with peer(directory) as s:
                s.sendall(word)
                t.equal(receive(c, 5), word, "bytes at the card")
                send(c, word)
                t.equal(drain(s.fileno(), 5), word, "bytes at the socket")


@t.case
def a_file_is_appended_to_by_one_client_after_the_other() -> None:
    with Daemon() as d:
        d.add_card()
        uuid = d.create("card0", "mtty-1", "backend=file")
        log = d.device_dir(uuid) / "port0.log"
        for text in (b"boot\r\n", b"again\r\n"):
            with Client(d.socket(uuid)) as c:
                open_port(c)
                send(c, text)
                t.wait_for(lambda x=text: log.read_bytes().endswith(x), 5, f"{text!r} in the file")
            t.wait_for(lambda: d.state_of(uuid) == "idle" and not d.workers(), 5, "its end")
        t.equal(log.read_bytes(), b"boot\r\nagain\r\n", "the file")
        t.equal(stat.S_IMODE(log.stat().st_mode), 0o600, "its mode")


@t.case
def without_a_host_end_what_a_guest_sends_is_thrown_away() -> None:
    with port("backend=none") as (_, c, directory):
        t.equal(send(c, b"x" * 20_000), 20_000, "bytes that the card took")
        t.equal([p.name for p in directory.iterdir()], ["socket"], "files of the device")


t.main()
