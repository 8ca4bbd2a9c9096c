# SPDX-License-Identifier: MIT
"""An NVMe host over vfio-user, written from NVM Express 1.4 alone: registers, queues, commands.

All memory of the host is one memfd, mapped at IOVA. `Host.page()` hands it out.
"""
from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import t
from .daemon import Daemon
from .vfio_user import MSIX, Client, Eventfd, Ram

CAP, VS, INTMS, INTMC, CC, CSTS, AQA, ASQ, ACQ = 0, 8, 0xc, 0x10, 0x14, 0x1c, 0x24, 0x28, 0x30
DOORBELLS = 0x1000
PAGE = 4096
IOVA = 0x1_0000_0000
RAM = 24 << 20
ENABLE = 4 << 20 | 6 << 16 | 1  # entries of 16 and 64 bytes, EN
RDY, CFS = 1, 2

DELETE_SQ, CREATE_SQ, GET_LOG, DELETE_CQ, CREATE_CQ, IDENTIFY = 0, 1, 2, 4, 5, 6
ABORT, SET_FEATURES, GET_FEATURES, ASYNC, DOORBELL_BUFFER = 8, 9, 0xa, 0xc, 0x7c
FLUSH, WRITE, READ, WRITE_ZEROES, DATASET = 0, 1, 2, 8, 9
FUA = 1 << 30
DNR, MORE = 1 << 14, 1 << 13

OK, INVALID_OPCODE, INVALID_FIELD, DATA_TRANSFER, INTERNAL, ABORT_REQUESTED = 0, 1, 2, 4, 6, 7
INVALID_NAMESPACE, SEQUENCE, PRP_OFFSET, WRITE_PROTECTED, LBA_RANGE = 0xb, 0xc, 0x13, 0x20, 0x80
CAPACITY = 0x81
CQ_INVALID, INVALID_QID, INVALID_SIZE, ASYNC_LIMIT, INVALID_VECTOR, INVALID_LOG = (
    0x100, 0x101, 0x102, 0x105, 0x108, 0x109)
INVALID_DELETION, NOT_SAVEABLE, NOT_NAMESPACE = 0x10c, 0x10d, 0x10f
WRITE_FAULT, READ_ERROR = 0x280, 0x281


def command(opcode: int, nsid: int = 0, prp1: int = 0, prp2: int = 0, flags: int = 0, cid: int = 0,
            **dwords: int) -> bytes:
    """dwords: cdw10=... to cdw15=..."""
    d = [dwords.pop(f"cdw{i}", 0) for i in range(10, 16)]
    assert not dwords, dwords
    return struct.pack("<BBHIQQQQ6I", opcode, flags, cid, nsid, 0, 0, prp1, prp2, *d)


def rw(opcode: int, slba: int, blocks: int, nsid: int = 1, dw12: int = 0, prp1: int = 0,
       prp2: int = 0) -> bytes:
    return command(opcode, nsid, prp1, prp2, cdw10=slba & 0xffffffff, cdw11=slba >> 32,
                   cdw12=(blocks - 1) | dw12)


@dataclass
class Completion:
    result: int
    sq_head: int
    sq_id: int
    cid: int
    status: int  # without the phase tag

    @property
    def code(self) -> int:
        return self.status & 0x7ff


@dataclass
class Cq:
    id: int
    at: int
    entries: int
    head: int = 0
    phase: int = 1


@dataclass
class Sq:
    id: int
    at: int
    entries: int
    cq: Cq
    tail: int = 0
    next_cid: int = 0
    flying: set[int] = field(default_factory=set)


class Host:
    """One controller. Doorbells are written to registers unless use_shadow() was called, or to
    `page`, the doorbell page where that is mapped."""

    def __init__(self, daemon: Daemon, uuid: str, ram: int = RAM, enable: bool = True) -> None:
        self.daemon, self.uuid = daemon, uuid
        self.client = Client(daemon.socket(uuid))
        self.ram = Ram(ram)
        self.free = list(range(0, ram, PAGE))[::-1]
        self.client.dma_map(IOVA, ram, self.ram.fd)
        self.client.set_config(4, 2, 6)  # memory space, bus master
        self.vectors: dict[int, Eventfd] = {}
        self.written: dict[int, int] = {}  # doorbell word -> what it was set to last
        self.shadow = self.event_index = 0
        self.shadow_writes = self.register_writes = 0
        if enable:
            self.enable()

    def close(self) -> None:
        self.client.close()
        for e in self.vectors.values():
            e.close()
        self.ram.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- memory ----

    def page(self, n: int = 1) -> int:
        """IOVA of n zeroed pages in a row."""
        if n == 1:
            at = self.free.pop()
        else:
            at = min(self.free)
            want = set(range(at, at + n * PAGE, PAGE))
            while not want <= set(self.free):
                at += PAGE
                t.check(at < self.ram.size, "the host is out of memory")
                want = set(range(at, at + n * PAGE, PAGE))
            self.free = [p for p in self.free if p not in want]
        self.ram.map[at:at + n * PAGE] = bytes(n * PAGE)
        return IOVA + at

    def give_back(self, iova: int, n: int = 1) -> None:
        self.free += [iova - IOVA + i * PAGE for i in range(n)]

    def get(self, iova: int, n: int) -> bytes:
        return self.ram.map[iova - IOVA:iova - IOVA + n]

    def put(self, iova: int, data: bytes) -> None:
        self.ram.map[iova - IOVA:iova - IOVA + len(data)] = data

    # ---- registers ----

    def reg(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.client.read(0, offset, size), "little")

    def set_reg(self, offset: int, value: int, size: int = 4) -> None:
        self.client.write(0, offset, value.to_bytes(size, "little"))

    def is_failed(self) -> bool:
        return bool(self.reg(CSTS) & CFS)

    def arm(self, vector: int) -> Eventfd:
        """MSI-X vector; the first one enables MSI-X."""
        if not self.vectors:
            self.client.set_config(self.client.capability(0x11) + 2, 2, 0x8000)
        e = self.vectors[vector] = self.client.arm(MSIX, vector)
        self.client.write(4, 16 * vector + 12, bytes(4))
        return e

    def enable(self, entries: int = 64) -> None:
        self.admin_cq = Cq(0, self.page(), entries)
        self.admin_sq = Sq(0, self.page(), entries, self.admin_cq)
        self.cqs, self.sqs = {0: self.admin_cq}, {0: self.admin_sq}
        self.set_reg(AQA, (entries - 1) << 16 | (entries - 1))
        self.set_reg(ASQ, self.admin_sq.at, 8)
        self.set_reg(ACQ, self.admin_cq.at, 8)
        self.set_reg(CC, ENABLE)
        t.wait_for(lambda: self.reg(CSTS) & RDY, 10, "CSTS.RDY")

    def disable(self) -> None:
        self.set_reg(CC, ENABLE & ~1)
        t.wait_for(lambda: not self.reg(CSTS) & RDY, 10, "CSTS.RDY to fall")
        self.shadow = self.event_index = 0

    # ---- queues ----

    def doorbell(self, word: int, value: int) -> None:
        old = self.written.get(word, 0)
        self.written[word] = value
        if self.shadow and word > 1:
            if old == value:
                return
            self.put(self.shadow + 4 * word, struct.pack("<I", value))
            self.shadow_writes += 1
            event = struct.unpack("<I", self.get(self.event_index + 4 * word, 4))[0]
            if (value - event - 1) & 0xffff >= (value - old) & 0xffff:
                return
        self.register_writes += 1
        self.set_reg(DOORBELLS + 4 * word, value)

    def submit(self, sq: Sq, sqe: bytes, cid: int | None = None, ring: bool = True) -> int:
        """cid: 0 to 65535; the next free one unless it is given."""
        if cid is None:
            while sq.next_cid in sq.flying:
                sq.next_cid = (sq.next_cid + 1) & 0xffff
            cid = sq.next_cid
            sq.next_cid = (cid + 1) & 0xffff
        self.put(sq.at + 64 * sq.tail, sqe[:2] + struct.pack("<H", cid) + sqe[4:])
        sq.flying.add(cid)
        sq.tail = (sq.tail + 1) % sq.entries
        if ring:
            self.doorbell(2 * sq.id, sq.tail)
        return cid

    def reap(self, cq: Cq, most: int = 1 << 20) -> list[Completion]:
        """What is there now. Each must be of a command that is in flight."""
        found: list[Completion] = []
        while len(found) < most:
            raw = self.get(cq.at + 16 * cq.head, 16)
            if raw[14] & 1 != cq.phase:
                break
            result, _, sq_head, sq_id, cid, status = struct.unpack(
                "<IIHHHH", self.get(cq.at + 16 * cq.head, 16))
            sq = self.sqs.get(sq_id)
            t.check(sq and sq.cq is cq, f"completion queue {cq.id}: one of queue {sq_id}")
            assert sq
            t.check(cid in sq.flying, f"queue {sq_id}: command {cid} ended and was not in flight")
            t.check(sq_head < sq.entries, f"queue {sq_id}: its head is {sq_head}")
            sq.flying.remove(cid)
            found.append(Completion(result, sq_head, sq_id, cid, status >> 1))
            cq.head += 1
            if cq.head == cq.entries:
                cq.head, cq.phase = 0, cq.phase ^ 1
        if found:
            self.doorbell(2 * cq.id + 1, cq.head)
        return found

    def wait(self, cq: Cq, n: int = 1, seconds: float = 5) -> list[Completion]:
        """At least n completions."""
        found: list[Completion] = []
        deadline = time.monotonic() + seconds * t.slowness()
        while len(found) < n:
            found += self.reap(cq)
            if len(found) < n:
                t.check(time.monotonic() < deadline,
                        f"completion queue {cq.id}: {len(found)} of {n} completions came, "
                        f"CSTS {self.reg(CSTS):#x}")
                time.sleep(0.0005)
        return found

    def call(self, sq: Sq, sqe: bytes) -> Completion:
        """One command and its completion; nothing else may be in flight there."""
        cid = self.submit(sq, sqe)
        done = self.wait(sq.cq)
        t.equal([c.cid for c in done], [cid], "commands that ended")
        return done[0]

    def admin(self, opcode: int, nsid: int = 0, prp1: int = 0, prp2: int = 0, want: int = OK,
              flags: int = 0, **dwords: int) -> int:
        """Dword 0 of the completion."""
        c = self.call(self.admin_sq, command(opcode, nsid, prp1, prp2, flags, **dwords))
        t.equal(hex(c.code), hex(want), f"status of admin command {opcode:#x} {dwords}")
        t.equal(bool(c.status & MORE), want != OK, "is it in the error log?")
        return c.result

    def identify(self, cns: int, nsid: int = 0, want: int = OK, cntid: int = 0) -> bytes:
        at = self.page()
        self.admin(IDENTIFY, nsid, at, want=want, cdw10=cns | cntid << 16)
        self.give_back(at)
        return self.get(at, PAGE)

    def log(self, page: int, size: int, retain: bool = False, offset: int = 0,
            want: int = OK) -> bytes:
        at = self.page(2)
        self.admin(GET_LOG, 0xffffffff, at, at + PAGE, want,
                   cdw10=page | retain << 15 | (size // 4 - 1) << 16, cdw12=offset)
        self.give_back(at, 2)
        return self.get(at, size)

    def create_cq(self, id: int, entries: int = 64, vector: int | None = None) -> Cq:
        pages = (entries * 16 + PAGE - 1) // PAGE
        cq = Cq(id, self.page(pages), entries)
        self.admin(CREATE_CQ, prp1=cq.at, cdw10=id | (entries - 1) << 16,
                   cdw11=1 | (0 if vector is None else 2 | vector << 16))
        self.cqs[id] = cq
        self.written[2 * id + 1] = 0
        return cq

    def create_sq(self, id: int, cq: Cq, entries: int = 64) -> Sq:
        pages = (entries * 64 + PAGE - 1) // PAGE
        sq = Sq(id, self.page(pages), entries, cq)
        self.written[2 * id] = 0
        self.sqs[id] = sq  # a command may end before the creation does
        self.admin(CREATE_SQ, prp1=sq.at, cdw10=id | (entries - 1) << 16, cdw11=1 | cq.id << 16)
        return sq

    def pair(self, id: int = 1, entries: int = 64, vector: int | None = None) -> Sq:
        return self.create_sq(id, self.create_cq(id, entries, vector), entries)

    def use_shadow(self) -> None:
        shadow, event_index = self.page(), self.page()
        for sq in self.sqs.values():
            self.put(shadow + 8 * sq.id, struct.pack("<I", sq.tail))
        for cq in self.cqs.values():
            self.put(shadow + 8 * cq.id + 4, struct.pack("<I", cq.head))
        self.admin(DOORBELL_BUFFER, prp1=shadow, prp2=event_index)
        self.shadow, self.event_index = shadow, event_index

    # ---- data ----

    def prps(self, pages: list[int], offset: int = 0, lists: list[int] | None = None,
             list_offset: int = 0) -> tuple[int, int]:
        """prp1 and prp2 of a transfer over these pages; the first `offset` bytes are left out.
        lists: pages for the list, as many as it takes; its first entry is at list_offset."""
        first = pages[0] + offset
        if len(pages) == 1:
            return first, 0
        if len(pages) == 2:
            return first, pages[1]
        lists = lists or [self.page() for _ in range(len(pages) // 511 + 1)]
        rest, at = pages[1:], list_offset
        head = lists[0] + list_offset
        for i, where in enumerate(lists):
            room = (PAGE - at) // 8
            last = len(rest) <= room
            entries = rest if last else rest[:room - 1] + [lists[i + 1]]
            self.put(where + at, struct.pack(f"<{len(entries)}Q", *entries))
            if last:
                break
            rest, at = rest[room - 1:], 0
        return first, head

    def gather(self, pages: list[int], offset: int, n: int) -> bytes:
        return b"".join(self.get(p, PAGE) for p in pages)[offset:offset + n]

    def scatter(self, pages: list[int], offset: int, data: bytes) -> None:
        at = offset
        while data:
            n = min(PAGE - at, len(data))
            self.put(pages[0] + at, data[:n])
            pages, data, at = pages[1:], data[n:], 0


@contextlib.contextmanager
def disk(*settings: str, store: tuple[str, ...] = (), env: dict[str, str] | None = None) \
        -> Iterator[tuple[Daemon, str]]:
    """A daemon with a store of its own and a controller on it."""
    with Daemon(env=env) as d:
        folder = d.dir / "store"
        folder.mkdir()
        d.umdev("parent", "add", "pool", "driver=disk", f"store={folder}", *store)
        yield d, d.create("pool", "disk-nvme", *settings)


@contextlib.contextmanager
def host(*settings: str, store: tuple[str, ...] = ()) -> Iterator[Host]:
    with disk(*settings, store=store) as (d, uuid), Host(d, uuid) as h:
        yield h
