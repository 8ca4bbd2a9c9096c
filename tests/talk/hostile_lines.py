#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Whatever a client does wrong, and however often: one line of the log says it, and no more.

A table of clients. Each does its wrong several times over one connection to a device of its own.
`ends`: the connection ends, and the one line is that of its end. `refused`: the connection goes on
and one line is there besides that of its end. `fine`: it is allowed, and nothing is said."""
from __future__ import annotations

import array
import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon
from lib.vfio_user import Client, Ram

PAGE, FAR = 4096, 0x1_0000_0000
TIMES = 3
PLAIN_END = "client left: the client is gone"
Act = Callable[[Client, Daemon, str], None]


def head(command: int, size: int, flags: int = 0) -> bytes:
    return struct.pack("<HHIII", 1, command, size, flags, 0)


def raw(data: bytes) -> Act:
    def act(c: Client, *_: object) -> None:
        c.send_raw(data)
        t.check(c.is_closed(), "the connection goes on")
    return act


def asks(command: int, payload: bytes = b"", files: int = 0) -> Act:
    """A request that is refused, each time."""
    def act(c: Client, *_: object) -> None:
        with contextlib.closing(Ram(PAGE)) as ram:
            for _ in range(TIMES):
                t.check(c.errno_of(command, payload, [ram.fd] * files) != 0, "it was accepted")
    return act


def a_map(iova: int, size: int, flags: int = 3, offset: int = 0) -> bytes:
    return struct.pack("<IIQQQ", 32, flags, offset, iova, size)


def irqs(flags: int, index: int, start: int, count: int, data: bytes = b"") -> Act:
    return asks(vu.SET_IRQS, struct.pack("<IIIII", 20 + len(data), flags, index, start, count)
                + data)


def access(region: int, offset: int, count: int) -> Act:
    return asks(vu.REGION_READ, struct.pack("<QII", offset, region, count))


def version(payload: bytes) -> Act:
    """Without the hello that all others say first."""
    act = asks(vu.VERSION, payload)
    act.hello = False  # type: ignore[attr-defined]
    return act


def unheard(data: bytes) -> Act:
    act = raw(data)
    act.hello = False  # type: ignore[attr-defined]
    return act


def silent(c: Client, *_: object) -> None:
    t.check(c.is_closed(10), "a silent connection is kept for ever")


silent.hello = False  # type: ignore[attr-defined]


def split_message(c: Client, *_: object) -> None:
    message = head(vu.REGION_READ, 32) + struct.pack("<QII", 0, 7, 4)
    for at in (8, 20):  # in the header, in the body
        c.send_raw(message[:at])
        time.sleep(0.01)
        c.send_raw(message[at:])
        t.equal(c.receive().command, vu.REGION_READ, "answer")


def withheld_body(c: Client, *_: object) -> None:
    c.send_raw(head(vu.REGION_WRITE, 33) + b"\0" * 8)


def does_not_read(c: Client, *_: object) -> None:
    c.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            c.send_raw(head(vu.REGION_READ, 32) + struct.pack("<QII", 0, 7, 256))


def descriptors_with_each_byte(c: Client, *_: object) -> None:
    with contextlib.suppress(ConnectionError), contextlib.closing(Ram(PAGE)) as ram:
        for byte in head(vu.GET_INFO, 32):
            c.socket.sendmsg([bytes([byte])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                                array.array("i", [ram.fd] * 253))])
    t.check(c.is_closed(), "the connection goes on")


def interrupt_that_is_no_eventfd(c: Client, *_: object) -> None:
    with contextlib.closing(Ram(PAGE)) as ram:
        for _ in range(TIMES):
            t.check(c.errno_of(vu.SET_IRQS, struct.pack("<IIIII", 20, 0x24, vu.MSIX, 0, 1),
                               [ram.fd]) != 0, "it was accepted")


def release_of_vector_5(c: Client, *_: object) -> None:
    c.arm(vu.MSIX, 5)
    c.set_irqs(vu.MSIX, vu.IRQ_EVENTFD | vu.IRQ_TRIGGER, 5, 1)


def engine(c: Client, command: int, iova: int) -> None:
    c.write(0, 0x80, struct.pack("<Q", iova))
    for register, value in ((0x88, 0), (0x8c, 64), (0x90, command)):
        c.write(0, register, struct.pack("<I", value))


def memory_cut_off(c: Client, *_: object) -> None:
    c.set_config(4, 2, 6)
    with contextlib.closing(Ram(4 * PAGE)) as ram:
        c.dma_map(FAR, 4 * PAGE, ram.fd)
        engine(c, 1, FAR)
        os.ftruncate(ram.fd, 0)
        for i in range(TIMES):
            engine(c, 1, FAR + i * PAGE)  # the device is told
            t.check(c.read(0, 0x94, 4) != bytes(4), "memory was read that is gone")
            engine(c, 2, FAR + i * PAGE)  # posted: the log is


def too_many_maps(c: Client, *_: object) -> None:
    one = [struct.pack("<HHIII", i & 0xffff, vu.DMA_MAP, 48, vu.F_NO_REPLY, 0)
           + a_map(i * 2 * PAGE, PAGE) for i in range(65535 + TIMES)]
    c.send_raw(b"".join(one))
    c.config(0)


def dies_in_an_unmap_that_waits(c: Client, *_: object) -> None:
    c.set_config(4, 2, 6)
    c.dma_map(FAR, PAGE)
    engine(c, 3, FAR)
    c.send(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 2, 0, 0))


def asked_by_message_while_it_asks(c: Client, *_: object) -> None:
    c.set_config(4, 2, 6)
    c.memory[FAR] = bytearray(PAGE)
    c.dma_map(FAR, PAGE)
    for _ in range(TIMES):
        engine(c, 3, FAR)
        for _ in range(5):
            c.config(0)


def a_second_client(c: Client, d: Daemon, uuid: str) -> None:
    for _ in range(TIMES):
        second = Client(d.socket(uuid), hello=False)
        t.check(second.is_closed(), "a second client is kept")
        second.close()


def connects_again(c: Client, d: Daemon, uuid: str) -> None:
    c.config(0)


REGION_INFO = struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0)
HELLO = struct.pack("<HH", 0, 0)
ROWS: list[tuple[str, str, str, Act]] = [
    # what it does, what comes of it, a word of the line
    ("size of 15", "ends", "malformed|framing", raw(head(vu.GET_INFO, 15))),
    ("size of 2 MiB", "ends", "malformed|framing", raw(head(vu.REGION_WRITE, 2 << 20))),
    ("size of 4 GiB", "ends", "malformed|framing", raw(head(vu.REGION_WRITE, 0xffffffff))),
    ("type that is none", "ends", "malformed", raw(head(vu.GET_INFO, 16, 0xf))),
    ("answer to nothing", "ends", "reply", raw(head(vu.DMA_READ, 16, vu.F_REPLY))),
    ("command before VERSION", "ends", "before VERSION",
     unheard(head(vu.GET_INFO, 32) + struct.pack("<IIII", 16, 0, 0, 0))),
    ("silence", "ends", "VERSION in time", silent),
    ("unknown command", "refused", "a command", asks(999)),
    ("the unused command", "refused", "a command", asks(14)),
    ("empty payload", "refused", "GET_INFO|info", asks(vu.GET_INFO)),
    ("header and body in pieces", "fine", "", split_message),
    ("body that never comes", "ends", "is gone", withheld_body),
    ("answers that are not read", "ends", "is gone", does_not_read),
    ("short VERSION", "refused", "VERSION|version", version(b"\0")),
    ("major version 7", "refused", "VERSION|version", version(struct.pack("<HH", 7, 0))),
    ("VERSION, bad JSON", "refused", "VERSION|version", version(HELLO + b"{")),
    ("VERSION, wrong types", "refused", "VERSION|version",
     version(HELLO + b'{"capabilities":3}\0')),
    ("file with RESET", "refused", "", asks(vu.RESET, b"", 1)),
    ("253 files with RESET", "refused", "", asks(vu.RESET, b"", 253)),
    ("253 files with each byte", "ends", "", descriptors_with_each_byte),
    ("short unmap", "refused", "", asks(vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0, PAGE)[:9])),
    ("map that wraps", "refused", "", asks(vu.DMA_MAP, a_map((1 << 64) - PAGE, 2 * PAGE))),
    ("map of nothing", "refused", "", asks(vu.DMA_MAP, a_map(0, 0))),
    ("map that is not aligned", "refused", "", asks(vu.DMA_MAP, a_map(0x10001, PAGE))),
    ("map longer than its file", "refused", "", asks(vu.DMA_MAP, a_map(0, 2 * PAGE), 1)),
    ("map with two files", "refused", "", asks(vu.DMA_MAP, a_map(0, PAGE), 2)),
    ("66,000 maps", "refused", "ENOSPC", too_many_maps),
    ("memory that is cut off", "refused", "is gone", memory_cut_off),
    ("interrupt of unknown kind", "refused", "", irqs(0x21, 5, 0, 0)),
    ("interrupts past the end", "refused", "", irqs(0x21, vu.MSIX, 15, 99)),
    ("interrupts that wrap", "refused", "", irqs(0x21, vu.MSIX, 0xffffffff, 2)),
    ("interrupts, wrong flags", "refused", "", irqs(0x27, vu.MSIX, 0, 1)),
    ("interrupt that is no eventfd", "refused", "", interrupt_that_is_no_eventfd),
    ("release of vector 5", "fine", "", release_of_vector_5),
    ("end in an unmap that waits", "ends", "is gone", dies_in_an_unmap_that_waits),
    ("messages that cross", "fine", "", asked_by_message_while_it_asks),
    ("second client", "refused", "pid", a_second_client),
    ("one client after the other", "fine", "", connects_again),
    ("unknown region", "refused", "", access(9, 0, 4)),
    ("access across the end", "refused", "", access(0, 0xffe, 4)),
    ("access that wraps", "refused", "", access(7, (1 << 64) - 1, 4)),
    ("access of 4 GiB", "refused", "", access(7, 0, 0xffffffff)),
    ("info of an unknown region", "refused", "", asks(vu.GET_REGION_INFO, REGION_INFO)),
    ("migration", "refused", "", asks(vu.DEVICE_FEATURE, struct.pack("<IIII", 16, 0x20002, 1, 0))),
]


def lines_about(d: Daemon, uuid: str) -> list[str]:
    """From the connection on."""
    return [line for line in d.log().splitlines() if uuid in line
            and ": made, test-dma of" not in line and ": connected by pid" not in line]


def play(d: Daemon, uuid: str, act: Act) -> list[str]:
    c = Client(d.socket(uuid), hello=getattr(act, "hello", True))
    try:
        act(c, d, uuid)
    finally:
        c.close()
    t.wait_for(lambda: any("client left" in line for line in lines_about(d, uuid)), 5, "the end")
    return lines_about(d, uuid)


@t.case
def whatever_is_wrong_is_told_in_exactly_one_line() -> None:
    with Daemon() as d:
        for lab in ("lab0", "lab1"):
            d.umdev("parent", "add", lab, "driver=test")
        # The slow one begins first.
        rows = sorted(ROWS, key=lambda row: row[3] is not silent)
        uuids = [d.create(f"lab{i % 2}", "test-dma") for i in range(len(rows))]
        with ThreadPoolExecutor(3) as pool:
            told = [pool.submit(play, d, uuid, act)
                    for uuid, (_, _, _, act) in zip(uuids, rows, strict=True)]
        for (name, result, word, _), future in zip(rows, told, strict=True):
            try:
                lines = future.result()
            except (OSError, t.Failure) as e:
                raise t.Failure(f"{name}: {e}") from e
            if result != "ends":
                t.check(PLAIN_END in lines[-1], f"{name}: the last of {lines}")
                lines = lines[:-1]
            t.equal(len(lines), result != "fine", f"{name}: number of lines: {lines}")
            t.check(not lines or re.search(word, lines[0]), f"{name}: not told: {lines}")
    t.fact(f"{len(rows)} kinds of clients")


t.main()
