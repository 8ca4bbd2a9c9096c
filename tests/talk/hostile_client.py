#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A client that breaks the rules: its own connection ends or its request is refused, one line says
why, nothing leaks, and another device goes on as if nothing had happened."""
from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, worker_of
from lib.vfio_user import Client, Ram

SCR = 7  # scratch register of a port
PAGE = 4096


def header(command: int, size: int, flags: int = 0, id: int = 1, error: int = 0) -> bytes:
    return struct.pack("<HHIII", id, command, size, flags, error)


@contextlib.contextmanager
def two_devices() -> Iterator[tuple[Daemon, str, Client]]:
    """A device to attack, and a client of another one, which must be well at the end."""
    with Daemon() as d:
        d.add_card()
        victim, other = d.create("card0", "mtty-1"), d.create("card0", "mtty-1")
        with Client(d.socket(other)) as witness:
            witness.write(0, SCR, b"\x42")
            yield d, victim, witness
            t.equal(witness.read(0, SCR, 1), b"\x42", "scratch register of the other device")
            t.check(witness.slowest < 0.5 * t.slowness(),
                    f"the other client waited {witness.slowest:.2f} s")
            with Client(d.socket(victim)) as next_client:
                next_client.write(0, SCR, b"\x24")
                t.equal(next_client.read(0, SCR, 1), b"\x24", "scratch register of the next client")


def closes(data: bytes, hello: bool = True) -> None:
    """Sent to a device, these bytes end the connection, with a line in the log."""
    with two_devices() as (d, victim, _):
        c = Client(d.socket(victim), hello=hello)
        c.send_raw(data)
        t.check(c.is_closed(), "the connection goes on")
        c.close()
        t.wait_for(lambda: victim in d.log() and "left" in d.log(), 5, "a line in the log")


@t.case
def a_message_shorter_than_a_header_closes() -> None:
    closes(header(vu.GET_INFO, 15))


@t.case
def a_message_longer_than_agreed_closes() -> None:
    closes(header(vu.REGION_WRITE, (1 << 20) + 4096))


@t.case
def a_message_of_four_gigabytes_closes() -> None:
    closes(header(vu.REGION_WRITE, 0xffffffff))


@t.case
def an_unknown_kind_of_message_closes() -> None:
    closes(header(vu.GET_INFO, 16, flags=0xf))


@t.case
def a_reply_to_nothing_closes() -> None:
    closes(header(vu.DMA_READ, 16, flags=vu.F_REPLY))


@t.case
def a_command_before_version_closes() -> None:
    closes(header(vu.GET_INFO, 32) + struct.pack("<IIII", 16, 0, 0, 0), hello=False)


@t.case
def a_wrong_major_version_is_refused() -> None:
    with two_devices() as (d, victim, _):
        c = Client(d.socket(victim), hello=False)
        with contextlib.suppress(EOFError):
            got = c.errno_of(vu.VERSION, struct.pack("<HH", 7, 0))
            t.check(got != 0, "version 7.0 was accepted")
        c.close()


@t.case
def capabilities_that_are_no_json_are_refused() -> None:
    for text in (b"{", b"[]\0", b'{"capabilities":3}\0', b"\xff\xfe\0", b"{}"):
        with two_devices() as (d, victim, _):
            c = Client(d.socket(victim), hello=False)
            with contextlib.suppress(EOFError):
                got = c.errno_of(vu.VERSION, struct.pack("<HH", 0, 0) + text)
                t.check(got != 0, f"{text!r} was accepted")
            c.close()


@t.case
def a_connection_that_says_nothing_is_closed() -> None:
    with two_devices() as (d, victim, witness):
        c = Client(d.socket(victim), hello=False)
        begin = time.monotonic()
        while time.monotonic() - begin < 2:
            witness.read(0, SCR, 1)
        t.check(c.is_closed(8), "a silent connection is kept for ever")
        c.close()


@t.case
def a_message_in_single_bytes_is_understood() -> None:
    with two_devices() as (d, victim, _), Client(d.socket(victim)) as c:
        message = header(vu.REGION_READ, 32, id=9) + struct.pack("<QII", 0, 7, 4)
        for i in range(len(message)):
            c.send_raw(message[i:i + 1])
            time.sleep(0.001)  # so that each byte is a receive of its own
        reply = c.receive()
        t.equal((reply.id, reply.command, reply.flags), (9, vu.REGION_READ, vu.F_REPLY), "reply")
        t.equal(reply.payload[16:], struct.pack("<I", 0x32534348), "vendor and device")


@t.case
def a_withheld_body_stalls_nobody_else() -> None:
    with two_devices() as (d, victim, witness):
        c = Client(d.socket(victim))
        c.send_raw(header(vu.REGION_WRITE, 33) + b"\0" * 8)
        for _ in range(100):
            witness.read(0, SCR, 1)
        t.equal(select.select([c.socket], [], [], 0)[0], [], "an answer to half a message")
        c.close()


@t.case
def many_requests_in_one_write_are_answered_in_order() -> None:
    with two_devices() as (d, victim, _), Client(d.socket(victim)) as c:
        one = struct.pack("<QII", 0, 7, 4)
        n = 500
        c.send_raw(b"".join(header(vu.REGION_READ, 32, id=i) + one for i in range(n)))
        t.equal([c.receive().id for _ in range(n)], list(range(n)), "ids of the replies")


@t.case
def a_client_that_does_not_read_stalls_only_itself() -> None:
    with two_devices() as (d, victim, witness):
        c = Client(d.socket(victim))
        c.socket.setblocking(False)
        message = header(vu.REGION_READ, 32) + struct.pack("<QII", 0, 7, 256)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100000):
                c.send_raw(message)
        for _ in range(100):
            witness.read(0, SCR, 1)
        c.close()


@t.case
def bad_requests_are_refused_and_the_session_goes_on() -> None:
    region = struct.Struct("<QII")
    irqs = struct.Struct("<IIIII")
    info = struct.Struct("<IIII")
    requests = [
        ("read of an unknown region", vu.REGION_READ, region.pack(0, 9, 4)),
        ("read of region 2^32-1", vu.REGION_READ, region.pack(0, 0xffffffff, 4)),
        ("read past the end", vu.REGION_READ, region.pack(8, 0, 1)),
        ("read across the end", vu.REGION_READ, region.pack(7, 0, 2)),
        ("read that wraps", vu.REGION_READ, region.pack((1 << 64) - 1, 7, 4)),
        ("read of 2^32-1 bytes", vu.REGION_READ, region.pack(0, 7, 0xffffffff)),
        ("short read request", vu.REGION_READ, region.pack(0, 7, 4)[:-1]),
        ("write without its data", vu.REGION_WRITE, region.pack(0, 0, 4)),
        ("info with a short payload", vu.GET_INFO, info.pack(16, 0, 0, 0)[:8]),
        ("region info of an unknown region", vu.GET_REGION_INFO,
         struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0)),
        ("interrupt info of an unknown kind", vu.GET_IRQ_INFO, info.pack(16, 0, 5, 0)),
        ("interrupts of an unknown kind", vu.SET_IRQS, irqs.pack(20, 0x21, 5, 0, 0)),
        ("interrupts past the end", vu.SET_IRQS, irqs.pack(20, 0x21, vu.INTX, 1, 1)),
        ("interrupts that wrap", vu.SET_IRQS, irqs.pack(20, 0x21, vu.INTX, 0xffffffff, 2)),
        ("interrupts, two kinds of data", vu.SET_IRQS, irqs.pack(20, 0x27, vu.INTX, 0, 1)),
        ("interrupts, two actions", vu.SET_IRQS, irqs.pack(20, 0x39, vu.INTX, 0, 1)),
        ("booleans that are missing", vu.SET_IRQS, irqs.pack(20, 0x22, vu.INTX, 0, 1)),
        ("short unmap", vu.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0, PAGE)[:9]),
        ("map of no bytes", vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0, 0)),
        ("map that wraps", vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, (1 << 64) - PAGE, 2 * PAGE)),
        ("map of half a page", vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x10001, PAGE)),
        ("map with unknown flags", vu.DMA_MAP, struct.pack("<IIQQQ", 32, 0xf0, 0, 0, PAGE)),
        ("unknown command", 14, b""),
        ("command 999", 999, b""),
    ]
    with two_devices() as (d, victim, _), Client(d.socket(victim)) as c:
        for name, command, payload in requests:
            t.check(c.errno_of(command, payload) != 0, f"{name}: was accepted")
            t.equal(c.config(0), 0x32534348, f"vendor and device after: {name}")
        t.equal(d.log().count(": refused "), 1, "lines in the log, a kind and connection each")


@t.case
def descriptors_that_do_not_fit_are_refused_and_closed() -> None:
    with two_devices() as (d, victim, _), Client(d.socket(victim)) as c, \
            contextlib.ExitStack() as stack:
        ram = stack.enter_context(contextlib.closing(Ram(PAGE)))
        pair = socket.socketpair()
        stack.callback(pair[0].close)
        stack.callback(pair[1].close)
        def descriptors() -> int:
            c.config(0)  # what was sent before is done
            if os.geteuid() != 0:
                return 0  # nobody else may look into a worker
            return len(os.listdir(f"/proc/{worker_of(d, victim)}/fd"))

        before = descriptors()
        one_map = struct.pack("<IIQQQ", 32, 3, 0, 0, 2 * PAGE)
        arm = struct.pack("<IIIII", 20, 0x24, vu.INTX, 0, 1)
        for name, command, payload, given in (
                ("a map longer than its file", vu.DMA_MAP, one_map, [ram.fd]),
                ("a map with two files", vu.DMA_MAP, one_map, [ram.fd, ram.fd]),
                ("a map of a socket", vu.DMA_MAP, one_map, [pair[0].fileno()]),
                ("an interrupt that is no eventfd", vu.SET_IRQS, arm, [ram.fd]),
                ("two eventfds for one interrupt", vu.SET_IRQS, arm, [ram.fd, ram.fd]),
                ("a descriptor with RESET", vu.RESET, b"", [ram.fd])):
            t.check(c.errno_of(command, payload, given) != 0, f"{name}: was accepted")
        for _ in range(50):
            c.errno_of(vu.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0), [ram.fd] * 3)
        t.equal(descriptors(), before, "descriptors of the worker")


@t.case
def maps_beyond_the_offered_number_are_refused() -> None:
    with two_devices() as (d, victim, _), Client(d.socket(victim)) as c:
        limit = int(str(c.capabilities.get("max_dma_maps", 65535)))
        tickets = []
        refused = 0
        for i in range(limit + 10):
            tickets.append(c.send(vu.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, i * 2 * PAGE, PAGE)))
            if len(tickets) == 64 or i == limit + 9:
                for ticket in tickets:
                    try:
                        c.wait(ticket)
                    except vu.VfioError as e:
                        refused += 1
                        t.check(e.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT),
                                f"errno of one map too many: {e}")
                tickets = []
        t.equal(refused, 10, "maps refused")
        t.fact(f"{limit} maps without a file; slowest answer {c.slowest * 1000:.1f} ms")


@t.case
def a_second_client_is_closed_at_once() -> None:
    with two_devices() as (d, victim, _), Client(d.socket(victim)) as c:
        begin = time.monotonic()
        second = Client(d.socket(victim), hello=False)
        t.check(second.is_closed(), "a second client is kept")
        t.check(time.monotonic() - begin < 1, "a second client waits for its refusal")
        second.close()
        c.write(0, SCR, b"\x31")
        t.equal(c.read(0, SCR, 1), b"\x31", "scratch register of the first client")


@t.case
def clients_that_come_and_go_leave_nothing() -> None:
    with two_devices() as (d, victim, _):
        def descriptors() -> int:
            assert d.process
            return len(os.listdir(f"/proc/{d.process.pid}/fd"))

        workers, before = len(d.workers()), descriptors()
        for i in range(20):
            c = Client(d.socket(victim))
            if i % 2:
                c.send_raw(header(vu.REGION_READ, 32))  # half a message is in flight
            c.close()
        t.wait_for(lambda: len(d.workers()) == workers, 5, "end of the attacked workers")
        t.wait_for(lambda: descriptors() == before, 5, "descriptors of umdevd as before")


t.main()
