#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The I/O queues of disk-nvme: random commands on many queues against a model; each error; rings
and doorbells as no good host has them."""
from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterator

from lib import nvme, t
from lib.daemon import Daemon
from lib.nvme import (ASYNC, CSTS, DATASET, DELETE_CQ, DELETE_SQ, FLUSH, FUA, IOVA, PAGE, READ,
                      SET_FEATURES, WRITE, WRITE_ZEROES, Host, Sq, command, disk, host, rw)
from lib.nvme_load import Load
from lib.vfio_user import INTX

SIZE = 4 << 20


def load(*settings: str, pairs: int = 8, commands: int = 1500, depth: int = 8, block: int = 512,
         shadow: bool = False, entries: int = 64) -> None:
    with host(f"capacity={SIZE}", f"aggregation={pairs}", f"blk_size={block}", *settings) as h:
        sqs = [h.pair(i + 1, entries) for i in range(pairs)]
        if shadow:
            h.use_shadow()
        work = Load(h, sqs, SIZE // block, block)
        work.run(commands, depth)
        work.check_all()
        t.check(not h.is_failed(), "the controller has failed")
        if shadow:
            t.fact(f"{h.shadow_writes} shadow doorbells, {h.register_writes} registers")
            t.check(h.register_writes < h.shadow_writes, "shadow doorbells saved nothing")


@t.case
def random_commands_on_eight_queues_give_what_a_model_says() -> None:
    load()


@t.case
def random_commands_with_blocks_of_4096() -> None:
    load(block=4096, pairs=3)


@t.case
def random_commands_with_shadow_doorbells() -> None:
    load(shadow=True, pairs=2, commands=2000)


@t.case
def random_commands_on_queues_of_two_entries() -> None:
    load(pairs=2, commands=300, entries=2)


@t.case
def random_commands_served_by_queue_threads() -> None:
    load("queue_threads=2", pairs=6, shadow=True)


@t.case
def all_of_sixty_four_queue_pairs_work_at_once() -> None:
    with host(f"capacity={SIZE}", "aggregation=64") as h:
        h.arm(0)
        sqs = [h.pair(i, 16, i) for i in range(1, 65)]
        work = Load(h, sqs, SIZE // 512, 512, most_bytes=16384)
        work.run(1500, 4)
        work.check_all()


@t.case
def queues_of_4096_entries_wrap() -> None:
    with host("media=null", f"capacity={SIZE}") as h:
        sq = h.pair(1, 4096)
        for _ in range(3):
            for _ in range(3000):
                h.submit(sq, rw(READ, 0, 1, prp1=IOVA), ring=False)
            h.doorbell(2, sq.tail)
            done = h.wait(sq.cq, 3000)
            t.equal({c.status for c in done}, {0}, "status")
        t.equal(done[-1].sq_head, sq.tail, "head of the submission queue")


@t.case
def one_completion_queue_serves_many_submission_queues() -> None:
    with host(f"capacity={SIZE}", "aggregation=64") as h:
        cq = h.create_cq(7, 64)
        sqs = []
        work = Load(h, sqs, SIZE // 512, 512, most_bytes=8192)
        for id in (7, 1, 64, *range(20, 40)):
            sqs.append(h.create_sq(id, cq, 16))
            work.run(40, 2)
        work.run(500, 3)
        while len(sqs) > 1:  # deleted one by one while the others go on
            sq = sqs.pop(0)
            for other in sqs[:8]:
                work.submit(other)
            h.admin(DELETE_SQ, cdw10=sq.id)
            work.drain()
        work.check_all()


@t.case
def every_submission_queue_may_share_one_completion_queue() -> None:
    with host(f"capacity={SIZE}", "aggregation=64") as h:
        cq = h.create_cq(1, 256)
        sqs = [h.create_sq(i, cq, 4) for i in range(1, 65)]
        for sq in sqs:
            h.submit(sq, command(FLUSH, 1))
        t.equal({c.sq_id for c in h.wait(cq, 64)}, set(range(1, 65)), "queues that answered")


@t.case
def queues_that_are_deleted_and_created_again_begin_at_their_beginning() -> None:
    with host(f"capacity={SIZE}", "aggregation=2") as h:
        for i in range(12):
            sq = h.pair(1 + i % 2, 8)
            for _ in range(5 + i):
                t.equal(h.call(sq, command(FLUSH, 1)).status, 0, "flush")
            h.admin(DELETE_SQ, cdw10=sq.id)
            if i % 3 == 0:  # the completion queue stays, at whatever place it is
                sq = h.create_sq(sq.id, sq.cq, 4)
                t.equal(h.call(sq, command(FLUSH, 1)).status, 0, "flush")
                h.admin(DELETE_SQ, cdw10=sq.id)
            h.admin(DELETE_CQ, cdw10=sq.cq.id)
            del h.sqs[sq.id]


@t.case
def a_full_completion_queue_loses_nothing() -> None:
    with host(f"capacity={SIZE}") as h:
        cq = h.create_cq(1, 4)
        sq = h.create_sq(1, cq, 512)
        cids = [h.submit(sq, command(FLUSH, 1), ring=False) for _ in range(400)]
        h.doorbell(2, sq.tail)
        seen: list[int] = []
        while len(seen) < len(cids):
            seen += [c.cid for c in h.wait(cq)]
        t.equal(sorted(seen), sorted(cids), "commands that ended")


@t.case
def the_pin_tells_of_completions_of_all_queues() -> None:
    for shadow in (False, True):
        with host(f"capacity={SIZE}", "aggregation=2") as h:
            pin = h.client.arm(INTX)
            if shadow:
                h.use_shadow()
            sqs = [h.pair(i, 16, 0) for i in (1, 2)]
            for i in range(20):
                sq = sqs[i % 2]
                pin.clear()
                h.client.set_irqs(INTX, 1 | 0x10)
                t.equal(pin.wait(0.01), 0, f"the pin before command {i}")
                h.submit(sq, command(FLUSH, 1))
                t.check(pin.wait() > 0, f"no interrupt for command {i}")
                t.equal(len(h.wait(sq.cq)), 1, "completions")
                h.reg(CSTS)


@t.case
def r_a_guest_with_a_pin_is_given_no_shadow_doorbells() -> None:
    """QEMU takes the next access to a register for the end of the interrupt: without one, the guest
    was interrupted for ever."""
    with host(f"capacity={SIZE}") as h:
        sq = h.pair(1, 16, 0)
        a, b = h.page(), h.page()
        h.admin(nvme.DOORBELL_BUFFER, prp1=a, prp2=b, want=nvme.SEQUENCE)
        h.submit(sq, command(FLUSH, 1))
        h.wait(sq.cq)
        h.arm(0)
        h.admin(nvme.DOORBELL_BUFFER, prp1=a, prp2=b)


@t.case
def each_queue_has_its_vector() -> None:
    with host(f"capacity={SIZE}", "aggregation=4") as h:
        vectors = [h.arm(v) for v in range(5)]
        sqs = [h.pair(i, 16, 5 - i) for i in (1, 2, 3, 4)]
        for v in vectors:
            v.clear()
        for sq in sqs:
            h.submit(sq, command(FLUSH, 1))
            t.check(vectors[5 - sq.id].wait() > 0, f"no interrupt of queue {sq.id}")
            h.wait(sq.cq)
            t.equal([v.wait(0) for v in vectors], [0] * 5, "other interrupts")


# ---- errors ----

def status(h: Host, sq: Sq, sqe: bytes, want: int, what: str) -> None:
    c = h.call(sq, sqe)
    t.equal(hex(c.code), hex(want), what)
    t.equal(bool(c.status & nvme.MORE), want != 0, f"{what}: is it in the error log?")


@t.case
def every_error_of_an_io_command() -> None:
    with host(f"capacity={SIZE}") as h:
        sq = h.pair()
        a, b = h.page(), h.page()
        blocks = SIZE // 512
        for opcode in (3, 4, 5, 0xa, 0xc, 0xd, 0x7f, 0x80, 0xff):
            status(h, sq, command(opcode, 1, a), nvme.INVALID_OPCODE, f"opcode {opcode:#x}")
        for op in (FLUSH, READ, WRITE, WRITE_ZEROES, DATASET):
            sqe = command(op, 1, a, b, cdw11=4 if op == DATASET else 0)
            for nsid, want in ((0, nvme.INVALID_NAMESPACE), (99, nvme.INVALID_NAMESPACE),
                               (2**32 - 1, nvme.INVALID_NAMESPACE), (2, nvme.INVALID_FIELD)):
                status(h, sq, sqe[:4] + struct.pack("<I", nsid) + sqe[8:], want,
                       f"command {op} of namespace {nsid}")
            for flags in (1, 2, 0x40, 0x80):
                status(h, sq, sqe[:1] + bytes([flags]) + sqe[2:], nvme.INVALID_FIELD,
                       f"command {op} with flags {flags:#x}")
        for op in (READ, WRITE, WRITE_ZEROES):
            for slba, n in ((blocks, 1), (blocks - 1, 2), (2**64 - 1, 1), (2**63, 65536),
                            (2**55, 1)):
                status(h, sq, rw(op, slba, n, prp1=a, prp2=b), nvme.LBA_RANGE,
                       f"command {op} of {n} blocks at {slba}")
        for op in (READ, WRITE):
            status(h, sq, rw(op, 0, 8, prp1=a + 1), nvme.PRP_OFFSET, "odd address")
            status(h, sq, rw(op, 0, 8, prp1=a + 8, prp2=b + 8), nvme.PRP_OFFSET, "second page")
            status(h, sq, rw(op, 0, 24, prp1=a, prp2=b + 4), nvme.PRP_OFFSET, "address of a list")
            h.put(b, struct.pack("<QQ", a, a + 8))
            status(h, sq, rw(op, 0, 24, prp1=a, prp2=b), nvme.PRP_OFFSET, "entry of a list")
            status(h, sq, rw(op, 0, 32, prp1=a, prp2=b + PAGE - 16), nvme.DATA_TRANSFER,
                   "a list that goes on at address 0")
            status(h, sq, rw(op, 0, 1, prp1=1 << 40), nvme.DATA_TRANSFER, "memory")
            status(h, sq, rw(op, 0, 24, prp1=a, prp2=1 << 40), nvme.DATA_TRANSFER, "list")
            h.put(b, struct.pack("<QQ", a, 1 << 40))
            status(h, sq, rw(op, 0, 24, prp1=a, prp2=b), nvme.DATA_TRANSFER, "memory in a list")
            status(h, sq, rw(op, 0, 1, prp1=2**64 - 4), nvme.DATA_TRANSFER, "the last address")
            status(h, sq, rw(op, 0, 2049, prp1=a), nvme.INVALID_FIELD, "more than 1 MiB")
        status(h, sq, rw(WRITE, 0, 1, prp1=a, dw12=1 << 20), nvme.INVALID_FIELD, "a directive")
        # Dataset Management: ranges are judged one by one.
        h.put(a, struct.pack("<IIQIIQ", 0, 1, 0, 0, 2, blocks - 1))
        status(h, sq, command(DATASET, 1, a, cdw10=1, cdw11=4), nvme.LBA_RANGE, "second range")
        status(h, sq, command(DATASET, 1, a, cdw10=1, cdw11=3), 0, "nothing to deallocate")
        status(h, sq, command(DATASET, 1, a + 2, cdw11=4), nvme.PRP_OFFSET, "list of ranges")
        status(h, sq, command(DATASET, 1, 1 << 40, cdw11=4), nvme.DATA_TRANSFER, "list of ranges")
        status(h, sq, rw(READ, 0, 1, prp1=a), 0, "a read after all that")


@t.case
def transfers_of_one_mebibyte_at_any_offset() -> None:
    with host(f"capacity={SIZE}") as h:
        sq = h.pair()
        data = os.urandom(1 << 20)
        for offset in (0, 4, 4092):
            pages = [h.page() for _ in range(257 if offset else 256)]
            prp1, prp2 = h.prps(pages, offset)
            h.scatter(pages, offset, data)
            status(h, sq, rw(WRITE, 100, 2048, prp1=prp1, prp2=prp2, dw12=FUA), 0, "write")
            h.scatter(pages, offset, bytes(1 << 20))
            status(h, sq, rw(READ, 100, 2048, prp1=prp1, prp2=prp2, dw12=FUA), 0, "read")
            t.check(h.gather(pages, offset, 1 << 20) == data, f"data at offset {offset}")
            h.free += [p - IOVA for p in pages]


@t.case
def a_disk_that_is_read_only_says_so_and_stays_as_it_is() -> None:
    with host(f"capacity={SIZE}", "read_only=yes") as h:
        t.equal(h.identify(0, 1)[99], 1, "namespace attributes")
        sq = h.pair()
        a = h.page()
        h.put(a, struct.pack("<IIQ", 0, 1, 0))
        for sqe in (rw(WRITE, 0, 1, prp1=a), rw(WRITE_ZEROES, 0, 1),
                    command(DATASET, 1, a, cdw11=4)):
            status(h, sq, sqe, nvme.WRITE_PROTECTED, f"command {sqe[0]}")
        status(h, sq, rw(READ, 0, 1, prp1=a), 0, "read")
        t.equal(h.get(a, 512), bytes(512), "what was read")


@contextlib.contextmanager
def small_store(size: str) -> Iterator[tuple[Daemon, str]]:
    """A thin volume of 4 MiB on a file system that is smaller."""
    if os.geteuid():
        t.skip("only root can mount")
    with Daemon() as d:
        folder = d.dir / "store"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                       check=True)
        try:
            d.umdev("parent", "add", "pool", "driver=disk", f"store={folder}")
            yield d, d.create("pool", "disk-nvme", f"capacity={SIZE}", "thin=yes")
            d.umdev("parent", "remove", "pool", "--force", ok=False)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)


@t.case
def a_store_that_is_full_and_a_volume_that_was_cut_off_are_told_as_what_they_are() -> None:
    with small_store("1m") as (d, uuid), Host(d, uuid) as h:
        sq = h.pair()
        pages = [h.page() for _ in range(256)]
        prp1, prp2 = h.prps(pages)
        write = [h.call(sq, rw(WRITE, 2048 * i, 2048, prp1=prp1, prp2=prp2)).code
                 for i in range(2)]
        t.equal(hex(write[1]), hex(nvme.CAPACITY), "status of a write that does not fit")
        status(h, sq, rw(READ, 0, 1, prp1=prp1), 0, "read")
        volumes = [f for f in (d.dir / "store").rglob("*") if f.is_file() and
                   f.stat().st_size >= SIZE]
        t.equal(len(volumes), 1, "files of volumes")
        os.truncate(volumes[0], 4096)
        status(h, sq, rw(READ, 8, 8, prp1=prp1), nvme.READ_ERROR, "read behind the end")
        t.equal(int.from_bytes(h.log(2, 512)[160:168], "little"), 1, "media errors")
        status(h, sq, rw(READ, 0, 8, prp1=prp1), 0, "read before it")


@t.case
def counters_tell_what_was_done_also_by_queues_that_are_gone() -> None:
    with host(f"capacity={SIZE}", "aggregation=3") as h:
        totals = {READ: 0, WRITE: 0, 512: 0, 513: 0}
        for i in range(4):
            sqs = [h.pair(k, 16) for k in (1, 2, 3)]
            work = Load(h, sqs, SIZE // 512, 512, seed=i)
            work.model[:] = bytes(SIZE)
            t.equal(h.call(sqs[0], rw(WRITE_ZEROES, 0, SIZE // 512)).status, 0, "zeroes")
            work.run(60, 4)
            for op in (READ, WRITE):
                totals[op] += work.commands[op]
                totals[op + 511] += work.sectors[op]
            if i == 1:
                h.disable()
                h.enable()
            else:
                for sq in sqs:
                    h.admin(DELETE_SQ, cdw10=sq.id)
                    h.admin(DELETE_CQ, cdw10=sq.id)
        page = h.log(2, 512)
        got = [int.from_bytes(page[at:at + 8], "little") for at in (64, 80, 32, 48)]
        t.equal(got, [totals[READ], totals[WRITE], -(-totals[READ + 511] // 1000),
                      -(-totals[WRITE + 511] // 1000)], "commands and data units")


@t.case
def the_write_cache_can_be_switched_off_under_load() -> None:
    with host(f"capacity={SIZE}", "aggregation=2") as h:
        work = Load(h, [h.pair(1), h.pair(2)], SIZE // 512, 512)
        for i in range(6):
            for sq in work.sqs * 4:
                work.submit(sq)
            h.admin(SET_FEATURES, cdw10=6, cdw11=i % 2)
            work.drain()
        work.check_all()


# ---- memory that comes and goes ----

@t.case
def rings_may_lie_in_several_maps() -> None:
    with host(f"capacity={SIZE}") as h:
        at = h.page(8) - IOVA
        h.client.dma_unmap(IOVA, h.ram.size)
        for page in range(0, h.ram.size, 1 << 20):
            if not page <= at < page + (1 << 20):
                h.client.dma_map(IOVA + page, 1 << 20, h.ram.fd, page)
        first = at & ~((1 << 20) - 1)
        for page in range(first, first + (1 << 20), PAGE):
            h.client.dma_map(IOVA + page, PAGE, h.ram.fd, page)
        h.free += range(at, at + 8 * PAGE, PAGE)
        sq = h.pair(1, 512)
        work = Load(h, [sq], SIZE // 512, 512)
        work.run(700, 64)
        work.check_all()


@t.case
def all_memory_may_go_and_come_between_commands() -> None:
    for shadow in (False, True):
        with host(f"capacity={SIZE}", "aggregation=2") as h:
            work = Load(h, [h.pair(1), h.pair(2)], SIZE // 512, 512)
            if shadow:
                h.use_shadow()
            for _ in range(30):
                work.run(10, 4)
                h.client.dma_unmap(IOVA, h.ram.size)
                h.client.dma_map(IOVA, h.ram.size, h.ram.fd)
            work.check_all()


def broken(h: Host, what: str) -> None:
    t.wait_for(h.is_failed, 3, f"CSTS.CFS after {what}")
    t.equal(h.daemon.log().count("the controller has failed"), 1, "lines in the log")
    h.disable()
    h.enable()
    t.equal(h.call(h.pair(), command(FLUSH, 1)).status, 0, "flush after a reset")


@t.case
def a_ring_that_is_not_in_memory_breaks_the_controller_with_one_line() -> None:
    def no_sq(h: Host) -> None:
        h.pair()
        h.sqs[2] = Sq(2, IOVA, 64, h.create_cq(2))
        h.admin(nvme.CREATE_SQ, prp1=1 << 40, cdw10=2 | 63 << 16, cdw11=1 | 2 << 16)
        h.doorbell(4, 5)

    def no_cq(h: Host) -> None:
        cq = h.create_cq(2)
        h.admin(DELETE_CQ, cdw10=2)
        h.admin(nvme.CREATE_CQ, prp1=1 << 40, cdw10=2 | 63 << 16, cdw11=1)
        h.submit(h.create_sq(2, cq), command(FLUSH, 1))

    def unmapped(h: Host) -> None:
        sq = h.pair()
        h.submit(sq, command(FLUSH, 1), ring=False)
        h.client.dma_unmap(IOVA, h.ram.size)
        h.doorbell(2, 1)
        t.wait_for(h.is_failed, 3, "CSTS.CFS")
        h.client.dma_map(IOVA, h.ram.size, h.ram.fd)

    def no_shadow(h: Host) -> None:
        h.pair()
        h.admin(nvme.DOORBELL_BUFFER, prp1=1 << 40, prp2=h.page())
        h.doorbell(2, 0)

    def truncated(h: Host) -> None:
        sq = h.pair()
        keep = h.ram.map[:]
        h.submit(sq, command(FLUSH, 1), ring=False)
        os.ftruncate(h.ram.fd, PAGE)
        h.doorbell(2, 1)
        t.wait_for(h.is_failed, 3, "CSTS.CFS")
        os.ftruncate(h.ram.fd, len(keep))

    for breaks in (no_sq, no_cq, unmapped, no_shadow, truncated):
        with host(f"capacity={SIZE}", "aggregation=2") as h:
            breaks(h)
            broken(h, breaks.__name__)


@t.case
def shadow_doorbells_that_are_no_index_are_told_and_do_no_harm() -> None:
    with host(f"capacity={SIZE}", "aggregation=2") as h:
        sq, other = h.pair(1, 16), h.pair(2, 16)
        h.use_shadow()
        h.submit(h.admin_sq, command(ASYNC))
        for value in (16, 4096, 2**32 - 1):
            h.put(h.shadow + 8, struct.pack("<I", value))
            h.set_reg(nvme.DOORBELLS + 8, 0)
            t.equal(h.call(other, command(FLUSH, 1)).status, 0, "the other queue")
        done = h.wait(h.admin_cq)
        t.equal([hex(c.result) for c in done], [hex(0x010100)], "event")
        h.put(h.shadow + 8, struct.pack("<I", 0))
        h.call(sq, command(FLUSH, 1))
        t.check(not h.is_failed(), "the controller has failed")


@t.case
def a_reset_under_load_ends_everything_and_disturbs_nothing_after_it() -> None:
    with host(f"capacity={SIZE}", "aggregation=4") as h:
        for i in range(20):
            work = Load(h, [h.pair(k) for k in (1, 2, 3, 4)], SIZE // 512, 512, seed=i)
            for sq in work.sqs * 8:
                work.submit(sq)
            if i % 3 == 0:
                h.client.reset()
                h.client.set_config(4, 2, 6)
            elif i % 3 == 1:
                h.client.set_config(h.client.capability(0x10) + 8, 2, 1 << 15)
                h.client.set_config(4, 2, 6)
            else:
                h.disable()
            memory = h.ram.map[:]
            h.reg(CSTS)
            t.wait_for(lambda: not h.reg(CSTS), 5, "the end of a reset")
            if i % 3 == 2:
                memory = h.ram.map[:]
            t.check(h.ram.map[:] == memory, "memory changed after the reset")
            h.free = list(range(0, h.ram.size, PAGE))[::-1]
            h.enable()


t.main()
