# SPDX-License-Identifier: MIT
"""Verified I/O on an NVMe namespace: random commands on several queues, against a model.

No two commands in flight overlap, so what a read must return is always known. Each command has its
own layout in memory: an offset in its first page, pages in random order, lists anywhere.
"""
from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from . import nvme, t
from .nvme import DATASET, FLUSH, FUA, PAGE, READ, WRITE, WRITE_ZEROES, Host, Sq

MOST_BYTES = 64 << 10


@dataclass
class Flight:
    op: int
    ranges: list[tuple[int, int]]  # block, number
    pages: list[int]
    lists: list[int]
    offset: int
    data: bytes  # of a write


class Load:
    def __init__(self, host: Host, sqs: list[Sq], blocks: int, block: int, seed: int = 1,
                 most_bytes: int = MOST_BYTES) -> None:
        self.host, self.sqs, self.blocks, self.block = host, sqs, blocks, block
        self.random = random.Random(seed)
        self.most = most_bytes // block
        self.model = bytearray(blocks * block)
        self.busy: set[int] = set()
        self.flying: dict[tuple[int, int], Flight] = {}
        self.n = 0
        self.sectors = {READ: 0, WRITE: 0}
        self.commands = {READ: 0, WRITE: 0}

    def _range(self, most: int) -> tuple[int, int]:
        while True:
            n = self.random.choice([1, 1, 2, 3, 8, most, self.random.randint(1, most)])
            at = self.random.randrange(self.blocks - n + 1)
            if self.busy.isdisjoint(range(at, at + n)):
                self.busy.update(range(at, at + n))
                return at, n

    def _memory(self, size: int) -> tuple[list[int], list[int], int, int, int]:
        """Pages, pages of lists, offset, prp1, prp2."""
        h, r = self.host, self.random
        offset = r.choice([0, 0, 4, 512, PAGE - 4, 4 * r.randrange(PAGE // 4)])
        pages = [h.page() for _ in range((offset + size + PAGE - 1) // PAGE)]
        r.shuffle(pages)
        lists: list[int] = []
        list_offset = 0
        if len(pages) > 2:
            lists = [h.page(), h.page()]
            # Often so near to the end of its page that the list goes on in another one.
            list_offset = r.choice([0, 8 * r.randrange(PAGE // 8), PAGE - 16])
        prp1, prp2 = h.prps(pages, offset, lists, list_offset)
        return pages, lists, offset, prp1, prp2

    def submit(self, sq: Sq, op: int | None = None, ring: bool = True) -> None:
        r = self.random
        op = op if op is not None else r.choices([READ, WRITE, FLUSH, WRITE_ZEROES, DATASET],
                                                 [40, 45, 4, 6, 5])[0]
        f = Flight(op, [], [], [], 0, b"")
        if op == FLUSH:
            sqe = nvme.command(FLUSH, 1)
        elif op == DATASET:
            f.ranges = [self._range(self.most) for _ in range(r.choice([1, 1, 3, 17]))]
            raw = b"".join(struct.pack("<IIQ", 0, n, at) for at, n in f.ranges)
            f.pages, f.lists, f.offset, prp1, prp2 = self._memory(len(raw))
            self.host.scatter(f.pages, f.offset, raw)
            sqe = nvme.command(DATASET, 1, prp1, prp2, cdw10=len(f.ranges) - 1, cdw11=4)
        else:
            at, n = self._range(self.most if op != WRITE_ZEROES else min(self.blocks // 4, 4096))
            f.ranges = [(at, n)]
            prp1 = prp2 = 0
            if op != WRITE_ZEROES:
                f.pages, f.lists, f.offset, prp1, prp2 = self._memory(n * self.block)
            if op == WRITE:
                f.data = r.randbytes(n * self.block)
                self.host.scatter(f.pages, f.offset, f.data)
            dw12 = r.choice([0, 0, 0, FUA]) | (1 << 25 if op == WRITE_ZEROES and r.random() < .5
                                               else 0)
            sqe = nvme.rw(op, at, n, 1, dw12, prp1, prp2)
        cid = self.host.submit(sq, sqe, ring=ring)
        self.flying[sq.id, cid] = f

    def _judge(self, f: Flight) -> None:
        b = self.block
        for at, n in f.ranges:
            self.busy.difference_update(range(at, at + n))
            if f.op == WRITE:
                self.model[at * b:(at + n) * b] = f.data
            elif f.op in (WRITE_ZEROES, DATASET):
                self.model[at * b:(at + n) * b] = bytes(n * b)
            else:
                got = self.host.gather(f.pages, f.offset, n * b)
                if got != self.model[at * b:(at + n) * b]:
                    bad = next(i for i in range(n * b) if got[i] != self.model[at * b + i])
                    raise t.Failure(f"read of blocks {at} to {at + n}: byte {bad} is wrong")
            if f.op in self.sectors:
                self.sectors[f.op] += n * b // 512
                self.commands[f.op] += 1

    def reap(self) -> int:
        n = 0
        for cq in {sq.cq.id: sq.cq for sq in self.sqs}.values():
            for c in self.host.reap(cq):
                f = self.flying.pop((c.sq_id, c.cid))
                t.equal(hex(c.status), hex(0), f"status of command {f.op} {f.ranges}")
                self._judge(f)
                for page in f.pages + f.lists:
                    self.host.give_back(page)
                n += 1
        self.n += n
        return n

    def drain(self, seconds: float = 10) -> None:
        def over() -> bool:
            self.reap()
            return not self.flying
        t.wait_for(over, seconds * t.slowness(), f"the end of {len(self.flying)} commands")

    def run(self, commands: int, depth: int) -> None:
        """Keeps up to `depth` in flight on each queue; half of the doorbells are for several."""
        end = self.n + commands
        while self.n < end:
            for sq in self.sqs:
                while len(sq.flying) < min(depth, sq.entries - 1):
                    self.submit(sq, ring=False)
                    if self.random.random() < 0.5:
                        break
                self.ring(sq)
            self.reap()
        self.drain()

    def ring(self, sq: Sq) -> None:
        self.host.doorbell(2 * sq.id, sq.tail)

    def check_all(self) -> None:
        """Reads everything."""
        step = self.most
        at = 0
        while at < self.blocks:
            n = min(step, self.blocks - at)
            pages = [self.host.page() for _ in range(n * self.block // PAGE + 1)]
            prp1, prp2 = self.host.prps(pages[:(n * self.block + PAGE - 1) // PAGE])
            c = self.host.call(self.sqs[0], nvme.rw(READ, at, n, 1, 0, prp1, prp2))
            t.equal(c.status, 0, "status of a read")
            t.check(self.host.gather(pages, 0, n * self.block) ==
                    self.model[at * self.block:(at + n) * self.block],
                    f"blocks {at} to {at + n} are wrong")
            for page in pages:
                self.host.give_back(page)
            at += n
