#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The controller of disk-nvme, by its registers and its admin queue: each command, and each error
that NVM Express 1.4 specifies for it."""
from __future__ import annotations

import struct
import uuid as uuids

from lib import nvme, t
from lib.nvme import (ABORT, ACQ, AQA, ASQ, ASYNC, CAP, CC, CFS, CREATE_CQ, CREATE_SQ, CSTS,
                      DELETE_CQ, DELETE_SQ, DOORBELL_BUFFER, ENABLE, GET_FEATURES, GET_LOG,
                      IDENTIFY, INTMC, INTMS, IOVA, OK, PAGE, RDY, SET_FEATURES, VS, Host, command,
                      host)
from lib.vfio_user import INTX

ALL = 0xffffffff
SIZE = 8 << 20


def u(page: bytes, at: int, n: int) -> int:
    return int.from_bytes(page[at:at + n], "little")


# ---- registers ----

@t.case
def registers_are_those_of_version_1_4() -> None:
    with host(f"capacity={SIZE}") as h:
        h.disable()
        cap = h.reg(CAP, 8)
        t.equal(cap & 0xffff, 4095, "CAP.MQES")
        t.equal(cap >> 16 & 1, 1, "CAP.CQR")
        t.equal(cap >> 32 & 15, 0, "CAP.DSTRD")
        t.equal(cap >> 37 & 1, 1, "CAP.CSS, NVM")
        t.equal(cap >> 38, 0, "CAP: other command sets, boot partitions, page sizes, memory")
        t.equal(h.reg(VS), 0x10400, "VS")
        # In halves, whole and in pieces.
        h.set_reg(ASQ, 0x1234567, 4)
        h.set_reg(ASQ + 4, 0x89, 4)
        t.equal(h.reg(ASQ, 8), 0x89_01234000, "ASQ, without its reserved bits")
        h.set_reg(ACQ, 0x1122334455667788, 8)
        t.equal([h.reg(ACQ), h.reg(ACQ + 4)], [0x55667000, 0x11223344], "ACQ in halves")
        t.equal(h.reg(CAP + 1, 1), 0xf, "a byte of CAP")
        h.set_reg(AQA, 0xffffffff)
        t.equal(h.reg(AQA), 0xfff0fff, "AQA, without its reserved bits")
        h.set_reg(INTMS, 5)
        h.set_reg(INTMC, 4)
        t.equal([h.reg(INTMS), h.reg(INTMC)], [1, 1], "interrupt mask")
        for offset in (CAP, VS, CSTS):
            before = h.reg(offset)
            h.set_reg(offset, 0xffffffff)
            t.equal(h.reg(offset), before, f"read-only register {offset:#x}")
        h.set_reg(ACQ, 0xff, 1)
        t.equal(h.reg(ACQ), 0x55667000, "ACQ after the write of one byte")


@t.case
def a_controller_that_is_enabled_wrongly_fails_with_one_line_until_it_is_reset() -> None:
    with host(f"capacity={SIZE}") as h:
        for what, aqa, cc in (("page size", 0x3f003f, ENABLE | 1 << 7),
                              ("command set", 0x3f003f, ENABLE | 1 << 4),
                              ("arbitration", 0x3f003f, ENABLE | 1 << 11),
                              ("admin queue", 0x3f, ENABLE)):
            h.disable()
            lines = h.daemon.log().count("the controller has failed")
            h.set_reg(AQA, aqa)
            h.set_reg(CC, cc)
            t.equal(h.reg(CSTS), CFS, f"CSTS after a wrong {what}")
            t.equal(h.daemon.log().count("the controller has failed") - lines, 1,
                    f"lines about a wrong {what}")
        h.disable()
        h.enable()
        h.identify(1)


@t.case
def an_admin_queue_that_is_not_in_memory_fails_the_controller() -> None:
    with host(f"capacity={SIZE}", ) as h:
        for asq, acq in ((1 << 40, IOVA), (IOVA, 1 << 40)):
            h.disable()
            h.set_reg(AQA, 0x30003)
            h.set_reg(ASQ, asq, 8)
            h.set_reg(ACQ, acq, 8)
            h.set_reg(CC, ENABLE)
            h.doorbell(0, 1)
            t.wait_for(h.is_failed, 2, "CSTS.CFS")
        h.disable()
        h.enable()
        h.client.set_config(4, 2, 2)  # no bus mastering
        h.doorbell(0, 1)
        t.wait_for(h.is_failed, 2, "CSTS.CFS without bus mastering")
        h.client.set_config(4, 2, 6)
        h.disable()
        h.enable()
        h.identify(1)


@t.case
def a_shutdown_ends_and_a_reset_begins_anew() -> None:
    with host(f"capacity={SIZE}") as h:
        for kind in (1, 2):
            sq = h.pair()
            h.call(sq, command(nvme.FLUSH, 1))
            h.set_reg(CC, ENABLE | kind << 14)
            t.wait_for(lambda: h.reg(CSTS) >> 2 & 3 == 2, 5, "CSTS.SHST")
            h.disable()
            t.equal(h.reg(CSTS), 0, "CSTS after a reset")
            t.check(h.reg(ASQ, 8) and h.reg(AQA), "a controller reset keeps the admin registers")
            h.enable()
            h.identify(1)


@t.case
def every_way_to_reset_ends_the_controller() -> None:
    def function_level(h: Host) -> None:
        express = h.client.capability(0x10)
        h.client.set_config(express + 8, 2, 1 << 15)

    with host(f"capacity={SIZE}", "aggregation=4") as h:
        for reset in (lambda x: x.client.reset(), function_level):
            sqs = [h.pair(i) for i in (1, 2, 3, 4)]
            for sq in sqs:
                h.call(sq, command(nvme.FLUSH, 1))
            reset(h)
            t.equal([h.reg(r) for r in (CC, CSTS, AQA)], [0, 0, 0], "CC, CSTS and AQA")
            t.equal(h.reg(ASQ, 8), 0, "ASQ")
            h.client.set_config(4, 2, 6)
            h.enable()
        # What a reset forgets, it forgets altogether.
        h.pair(4)
        h.set_reg(CC, 0)
        t.wait_for(lambda: not h.reg(CSTS), 5, "the end of a reset")
        h.enable()
        h.admin(DELETE_SQ, cdw10=4, want=nvme.INVALID_QID)


@t.case
def the_pin_follows_the_admin_queue_and_its_mask() -> None:
    with host(f"capacity={SIZE}") as h:
        pin = h.client.arm(INTX)
        at = h.page()

        def one(reap: bool) -> None:
            h.submit(h.admin_sq, command(IDENTIFY, 0, at, cdw10=1))
            t.wait_for(lambda: h.get(h.admin_cq.at + 16 * h.admin_cq.head + 14, 1)[0] & 1
                       == h.admin_cq.phase, 2, "a completion")
            if reap:
                h.reap(h.admin_cq)

        one(False)
        t.check(pin.wait() > 0, "no interrupt")
        h.reap(h.admin_cq)
        h.client.set_irqs(INTX, 1 | 0x10)  # unmask: is the level still there?
        t.equal(pin.wait(0.05), 0, "the pin after the head was written")
        h.set_reg(INTMS, 1)
        one(True)
        t.equal(pin.wait(0.05), 0, "the pin while it is masked")
        one(False)
        h.set_reg(INTMC, 1)
        t.check(pin.wait() > 0, "no interrupt after the mask was taken away")
        h.reap(h.admin_cq)


# ---- Identify ----

@t.case
def identify_controller() -> None:
    with host(f"capacity={SIZE}", "serial=abc 1") as h:
        page = h.identify(1)
        t.equal(page[4:24], b"abc 1".ljust(20), "serial number")
        t.equal(page[24:64].rstrip(), b"umdev NVMe controller", "model")
        t.check(page[64:72].strip(), "firmware revision")
        t.check(page[77] >= 8, "MDTS of 1 MiB or more")
        t.equal(u(page, 80, 4), 0x10400, "version")
        t.equal(u(page, 92, 4), 1 << 8, "optional events")
        t.equal(page[111], 1, "controller type")
        t.equal(u(page, 256, 2), 1 << 8, "optional admin commands")
        t.equal(page[261], 6, "log page attributes")
        t.equal([page[512], page[513]], [0x66, 0x44], "entry sizes")
        t.check(u(page, 516, 4) >= 8, "number of namespaces")
        t.equal(u(page, 520, 2), 0x1c, "optional commands")
        t.equal(page[525] & 1, 1, "volatile write cache")
        t.equal(page[768:1024].rstrip(b"\0").decode(),
                f"nqn.2014-08.org.nvmexpress:uuid:{h.uuid}", "subsystem")
        t.equal(u(h.identify(0x13), 0, 4), 0x10001, "controller list")
        t.equal(u(h.identify(0x13, cntid=2), 0, 2), 0, "controller list from 2 on")
    with host(f"capacity={SIZE}") as h:
        t.equal(h.identify(1)[4:24].decode(), h.uuid.replace("-", "")[:20], "serial by default")


@t.case
def identify_namespace() -> None:
    for block in (512, 4096):
        with host(f"capacity={SIZE}", f"blk_size={block}") as h:
            page = h.identify(0, 1)
            t.equal([u(page, i, 8) for i in (0, 8, 16)], [SIZE // block] * 3, "sizes in blocks")
            t.equal([page[25], page[26]], [0, 0], "formats")
            t.equal(page[33], 9, "what is deallocated")
            t.equal(u(page, 48, 16), SIZE, "bytes")
            t.equal(page[99], 0, "attributes")
            t.equal(u(page, 128, 4), (block.bit_length() - 1) << 16, "format 0")
            t.equal(h.identify(0, 2), bytes(PAGE), "a namespace that is not there")
            t.equal(h.identify(0x11, 1), page, "the same as allocated one")
            d = h.identify(3, 1)
            t.equal([d[0], d[1]], [3, 16], "descriptor: UUID")
            t.equal(uuids.UUID(bytes=d[4:20]).version, 8, "version of that UUID")
            t.equal(d[20:], bytes(PAGE - 20), "behind it")
            for cns in (2, 0x10):
                t.equal(u(h.identify(cns, 0), 0, 8), 1, f"list {cns:#x}")
                t.equal(u(h.identify(cns, 1), 0, 8), 0, f"list {cns:#x} above 1")
                h.identify(cns, ALL, nvme.INVALID_NAMESPACE)
                h.identify(cns, ALL - 1, nvme.INVALID_NAMESPACE)
            t.equal(u(h.identify(0x12, 1), 0, 4), 0x10001, "controllers of namespace 1")
            h.identify(0, 0, nvme.INVALID_NAMESPACE)
            h.identify(0, 99, nvme.INVALID_NAMESPACE)
            h.identify(0, ALL, nvme.INVALID_NAMESPACE)
            h.identify(3, 2, nvme.INVALID_NAMESPACE)
            h.identify(0x77, 0, nvme.INVALID_FIELD)


@t.case
def data_of_admin_commands_goes_where_prp_says() -> None:
    with host(f"capacity={SIZE}") as h:
        whole = h.identify(1)
        a, b = h.page(), h.page()
        for offset in (4, 512, 4092):
            h.admin(IDENTIFY, 0, a + offset, b, cdw10=1)
            t.equal(h.get(a, PAGE)[offset:] + h.get(b, offset), whole, f"offset {offset}")
        h.admin(IDENTIFY, 0, a + 1, b, nvme.PRP_OFFSET, cdw10=1)
        h.admin(IDENTIFY, 0, a + 4, b + 8, nvme.PRP_OFFSET, cdw10=1)
        h.admin(IDENTIFY, 0, 1 << 40, cdw10=1, want=nvme.DATA_TRANSFER)
        h.admin(IDENTIFY, 0, a + 4, 1 << 40, nvme.DATA_TRANSFER, cdw10=1)
        h.admin(IDENTIFY, 0, a, cdw10=1, flags=0x40, want=nvme.INVALID_FIELD)  # SGL
        h.admin(IDENTIFY, 0, a, cdw10=1, flags=1, want=nvme.INVALID_FIELD)  # fused
        # A long log: the second page is in a list.
        pages = [h.page() for _ in range(4)]
        prp1, prp2 = h.prps(pages, 8)
        h.put(pages[1], b"\xff" * 8)
        h.admin(GET_LOG, 0, prp1, prp2, cdw10=5 | 0xdff << 16)
        t.equal(u(h.gather(pages, 8, PAGE), 4 * IDENTIFY, 4), 1, "effects of Identify")
        t.equal(h.get(pages[1], 8), bytes(8), "its last bytes, on the second page")
        h.admin(GET_LOG, 0, prp1, prp2 + 4, nvme.PRP_OFFSET, cdw10=5 | 0xdff << 16)
        h.admin(GET_LOG, 0, prp1, 1 << 40, nvme.DATA_TRANSFER, cdw10=5 | 0xdff << 16)


# ---- queues ----

@t.case
def every_error_of_queue_creation_and_deletion() -> None:
    with host(f"capacity={SIZE}", "aggregation=4") as h:
        at = h.page(16)

        def create_cq(want: int, id: int, size: int = 64, prp1: int = at, dw11: int = 1) -> None:
            h.admin(CREATE_CQ, prp1=prp1, cdw10=id | (size - 1) << 16, cdw11=dw11, want=want)

        def create_sq(want: int, id: int, cq: int, size: int = 64, prp1: int = at,
                      dw11: int = 1) -> None:
            h.admin(CREATE_SQ, prp1=prp1, cdw10=id | (size - 1) << 16, cdw11=dw11 | cq << 16,
                    want=want)

        for id in (0, 5, 65, 0xffff):
            create_cq(nvme.INVALID_QID, id)
        create_cq(nvme.INVALID_SIZE, 1, 1)
        create_cq(nvme.INVALID_SIZE, 1, 4097)
        create_cq(nvme.PRP_OFFSET, 1, prp1=at + 512)
        create_cq(nvme.INVALID_FIELD, 1, dw11=0)  # not contiguous
        create_cq(nvme.INVALID_VECTOR, 1, dw11=3 | 1 << 16)  # there is one pin
        create_cq(OK, 1, 4096)
        create_cq(nvme.INVALID_QID, 1)
        create_sq(nvme.INVALID_QID, 0, 1)
        create_sq(nvme.INVALID_QID, 5, 1)
        create_sq(nvme.INVALID_QID, 1, 0)
        create_sq(nvme.INVALID_QID, 1, 5)
        create_sq(nvme.CQ_INVALID, 1, 2)
        create_sq(nvme.INVALID_SIZE, 1, 1, 1)
        create_sq(nvme.INVALID_SIZE, 1, 1, 4097)
        create_sq(nvme.PRP_OFFSET, 1, 1, prp1=at + 64)
        create_sq(nvme.INVALID_FIELD, 1, 1, dw11=0)
        create_sq(OK, 1, 1, 4096)
        create_sq(nvme.INVALID_QID, 1, 1)
        create_sq(OK, 2, 1)
        for id in (0, 3, 99):
            h.admin(DELETE_SQ, cdw10=id, want=nvme.INVALID_QID)
            h.admin(DELETE_CQ, cdw10=id, want=nvme.INVALID_QID)
        h.admin(DELETE_CQ, cdw10=1, want=nvme.INVALID_DELETION)
        h.admin(DELETE_SQ, cdw10=1)
        h.admin(DELETE_CQ, cdw10=1, want=nvme.INVALID_DELETION)
        h.admin(DELETE_SQ, cdw10=2)
        h.admin(DELETE_SQ, cdw10=2, want=nvme.INVALID_QID)
        h.admin(DELETE_CQ, cdw10=1)
        h.admin(DELETE_CQ, cdw10=1, want=nvme.INVALID_QID)
        h.arm(0)
        create_cq(nvme.INVALID_VECTOR, 1, dw11=3 | 65 << 16)
        create_cq(OK, 1, dw11=3 | 64 << 16)
        # Sizes of entries that were never said.
        h.disable()
        h.enable()
        h.set_reg(CC, 1)
        create_cq(nvme.INVALID_FIELD, 1)
        h.set_reg(CC, 4 << 20 | 1)
        create_cq(OK, 1)
        create_sq(nvme.INVALID_FIELD, 1, 1)


@t.case
def doorbells_that_are_none_are_told_as_events() -> None:
    with host(f"capacity={SIZE}", "aggregation=2") as h:
        h.pair(1)

        def expect(event: int) -> None:
            done = h.wait(h.admin_cq)
            t.equal([hex(c.result) for c in done], [hex(event)], "event")
            h.log(1, 64)

        for word, value, event in ((2 * 2, 1, 0x010000), (2 * 99, 1, 0x010000), (2, 64, 0x010100),
                                   (3, 64, 0x010100), (3, 2**32 - 1, 0x010100),
                                   (0, 64, 0x010100), (1, 99, 0x010100)):
            h.submit(h.admin_sq, command(ASYNC))
            h.doorbell(word, value)
            expect(event)
        # One that nobody has asked for waits; the second of a kind does until the log was read.
        h.doorbell(6, 1)
        h.doorbell(6, 1)
        h.submit(h.admin_sq, command(ASYNC))
        h.submit(h.admin_sq, command(ASYNC))
        t.equal(len(h.wait(h.admin_cq)), 1, "events of a kind")
        h.doorbell(6, 1)
        h.reg(CSTS)
        t.equal(h.reap(h.admin_cq), [], "events before the log was read")


# ---- features ----

@t.case
def features_keep_what_is_set_and_know_their_defaults() -> None:
    with host(f"capacity={SIZE}", "aggregation=3") as h:
        def get(id: int, select: int = 0, dw11: int = 0, want: int = OK, nsid: int = 0) -> int:
            return h.admin(GET_FEATURES, nsid, cdw10=id | select << 8, cdw11=dw11, want=want)

        def put(id: int, value: int, want: int = OK, nsid: int = 0, save: int = 0) -> int:
            return h.admin(SET_FEATURES, nsid, cdw10=id | save << 31, cdw11=value, want=want)

        for id, value, default in ((1, 0x01020304, 0), (2, 0x20, 0), (6, 0, 1), (8, 0x1234, 0),
                                   (0xa, 1, 0), (0xb, 0x102, 0)):
            t.equal(get(id), default, f"feature {id:#x} at first")
            put(id, value)
            t.equal([get(id, s) for s in (0, 1, 2)], [value, default, default], f"feature {id:#x}")
            t.equal(get(id, 3), 4, f"capabilities of feature {id:#x}")
            put(id, value, nvme.NOT_SAVEABLE, save=1)
            put(id, value, nvme.NOT_NAMESPACE, nsid=1)
            put(id, value, nvme.INVALID_NAMESPACE, nsid=1000)
            h.disable()
            h.enable()
            t.equal(get(id), default, f"feature {id:#x} after a reset")
        # Temperature: of the whole, over and under.
        t.equal([get(4), get(4, 1), get(4, dw11=1 << 20)], [343, 343, 0], "thresholds")
        put(4, 350)
        put(4, 250 | 1 << 20)
        t.equal([get(4), get(4, dw11=1 << 20)], [350, 250], "thresholds")
        put(4, 2 << 20, nvme.INVALID_FIELD)
        put(4, 1 << 16, nvme.INVALID_FIELD)
        get(4, dw11=1 << 16, want=nvme.INVALID_FIELD)
        # Error recovery is a namespace's own.
        put(5, 7, nsid=1)
        put(5, 9, nsid=2)
        t.equal([get(5, nsid=1), get(5, nsid=2), get(5, 1, nsid=1)], [7, 9, 0], "error recovery")
        put(5, 3, nsid=ALL)
        t.equal([get(5, nsid=1), get(5, nsid=8)], [3, 3], "error recovery of all")
        put(5, 1 << 16, nvme.INVALID_FIELD, nsid=1)
        put(5, 1, nvme.INVALID_NAMESPACE)
        get(5, nsid=ALL, want=nvme.INVALID_NAMESPACE)
        t.equal(get(5, 3), 6, "capabilities of error recovery")
        # Queues: as many as units were bought.
        t.equal(put(7, 0xfffefffe), 0x20002, "queues that were asked for")
        t.equal(get(7), 0x20002, "queues")
        put(7, 0xffff0000, nvme.INVALID_FIELD)
        put(7, 0x0000ffff, nvme.INVALID_FIELD)
        h.create_cq(1)
        put(7, 0, nvme.SEQUENCE)
        # Vectors.
        t.equal(get(9, dw11=3), 3, "vector 3")
        put(9, 3 | 1 << 16)
        t.equal([get(9, dw11=3), get(9, dw11=2), get(9, 1, 3)], [3 | 1 << 16, 2, 3], "vectors")
        put(9, 4, nvme.INVALID_FIELD)
        get(9, dw11=4, want=nvme.INVALID_FIELD)
        # And what there is not.
        for id in (0, 3, 0xc, 0x10, 0x80, 0xff):
            get(id, want=nvme.INVALID_FIELD)
            put(id, 0, nvme.INVALID_FIELD)
        get(1, 4, want=nvme.INVALID_FIELD)
        put(2, 1, nvme.INVALID_FIELD)  # a power state that is not there
        put(6, 2, nvme.INVALID_FIELD)
        put(0xb, 1 << 9, nvme.INVALID_FIELD)


# ---- logs, events, the rest ----

@t.case
def the_error_log_tells_what_failed_newest_first() -> None:
    with host(f"capacity={SIZE}") as h:
        t.equal(h.log(1, 64), bytes(64), "the log of a controller without errors")
        sq = h.pair()
        wanted = []
        for i in range(20):
            h.admin(0x99, nsid=i, want=nvme.INVALID_OPCODE)
            wanted.append((0, nvme.INVALID_OPCODE, i, 0))
        blocks = SIZE // 512
        for i in range(5):
            c = h.call(sq, nvme.rw(nvme.READ, blocks + i, 1))
            t.equal(c.code, nvme.LBA_RANGE, "status of a read beyond the end")
            wanted.append((1, nvme.LBA_RANGE, 1, blocks + i))
        entries = [struct.unpack_from("<QHHHHQI", h.log(1, 1024), 64 * i) for i in range(16)]
        t.equal([e[0] for e in entries], list(range(25, 9, -1)), "error counts")
        t.equal([(e[1], e[3] >> 1 & 0x7ff, e[6], e[5]) for e in entries], wanted[:8:-1],
                "queue, status, namespace and block of the errors")
        t.equal(u(h.log(2, 512), 176, 8), 25, "number of errors in the SMART log")
        t.equal(h.log(1, 64, offset=64), h.log(1, 128)[64:], "the second entry")


@t.case
def logs_have_their_sizes_and_refuse_others() -> None:
    with host(f"capacity={SIZE}") as h:
        smart = h.log(2, 512)
        t.equal([smart[0], smart[3]], [0, 100], "warnings and spares")
        firmware = h.log(3, 512)
        t.equal([firmware[0], firmware[8:16]], [1, h.identify(1)[64:72]], "firmware slot 1")
        t.equal(h.log(4, 4096), bytes(4096), "changed namespaces")
        effects = h.log(5, 4096)
        found = {i for i in range(512) if u(effects, 4 * i, 4)}
        t.equal(found, {0, 1, 2, 4, 5, 6, 8, 9, 0xa, 0xc, 0x7c, 256, 257, 258, 264, 265},
                "commands that have effects")
        changing = {i for i in range(512) if u(effects, 4 * i, 4) & 2}
        t.equal(changing, {257, 264, 265}, "commands that change what is stored")
        for i in sorted(set(range(256)) - found):
            h.admin(i, want=nvme.INVALID_OPCODE)
        for page in (0, 6, 0x70, 0xff):
            h.log(page, 64, want=nvme.INVALID_LOG)
        h.log(2, 512, offset=512, want=nvme.INVALID_FIELD)
        h.log(2, 512, offset=2, want=nvme.INVALID_FIELD)
        t.equal(h.log(2, 4, offset=508), bytes(4), "the end of the SMART log")
        h.admin(GET_LOG, 1, h.page(), cdw10=2 | 127 << 16, want=nvme.INVALID_FIELD)


@t.case
def a_threshold_that_is_crossed_is_an_event_and_a_warning() -> None:
    with host(f"capacity={SIZE}") as h:
        h.admin(SET_FEATURES, cdw10=0xb, cdw11=2)
        h.submit(h.admin_sq, command(ASYNC))
        h.submit(h.admin_sq, command(SET_FEATURES, cdw10=4, cdw11=200))
        t.equal(sorted(c.result for c in h.wait(h.admin_cq, 2)), [0, 0x020101], "results")
        t.equal(h.log(2, 512)[0], 2, "critical warning")
        h.admin(SET_FEATURES, cdw10=4, cdw11=343)
        t.equal(h.log(2, 512)[0], 0, "critical warning")


@t.case
def event_requests_are_counted_and_can_be_aborted() -> None:
    with host(f"capacity={SIZE}") as h:
        limit = h.identify(1)[259] + 1
        cids = [h.submit(h.admin_sq, command(ASYNC)) for _ in range(limit)]
        extra = h.submit(h.admin_sq, command(ASYNC))
        done = h.wait(h.admin_cq)
        t.equal([(c.cid, c.code) for c in done], [(extra, nvme.ASYNC_LIMIT)], "one too many")
        h.submit(h.admin_sq, command(ABORT, cdw10=cids[1] << 16))
        done = h.wait(h.admin_cq, 2)
        t.equal(sorted((c.code, c.result) for c in done), [(0, 0), (nvme.ABORT_REQUESTED, 0)],
                "Abort and what it aborted")
        t.check(cids[1] in {c.cid for c in done}, "the wrong one was aborted")
        t.equal(h.admin(ABORT, cdw10=cids[1] << 16), 1, "Abort of what is not there any more")
        t.equal(h.admin(ABORT, cdw10=1 | 77 << 16), 1, "Abort of an I/O command")
        h.disable()  # forgets them
        h.enable()
        for _ in range(limit):
            h.submit(h.admin_sq, command(ASYNC))
        h.reg(CSTS)
        t.equal(h.reap(h.admin_cq), [], "event requests after a reset")


@t.case
def shadow_doorbells_need_two_pages() -> None:
    with host(f"capacity={SIZE}") as h:
        a, b = h.page(), h.page()
        for prp1, prp2 in ((0, b), (a, 0), (a + 8, b), (a, b + 2048)):
            h.admin(DOORBELL_BUFFER, prp1=prp1, prp2=prp2, want=nvme.INVALID_FIELD)
        h.admin(DOORBELL_BUFFER, prp1=a, prp2=b)


@t.case
def a_full_admin_completion_queue_holds_commands_back_and_loses_none() -> None:
    with host(f"capacity={SIZE}", "aggregation=1") as h:
        h.disable()
        h.enable(4)
        sqes = [command(GET_FEATURES, cdw10=7), command(0x99), command(IDENTIFY, 0, h.page(),
                                                                       cdw10=1)]
        for sqe in sqes:
            h.submit(h.admin_sq, sqe)
        t.wait_for(lambda: h.get(h.admin_cq.at + 2 * 16 + 14, 1)[0] & 1, 2, "three completions")
        for sqe in sqes:
            h.submit(h.admin_sq, sqe)
        t.equal(len(h.reap(h.admin_cq)), 3, "completions that fit")
        t.equal([c.code for c in h.wait(h.admin_cq, 3)], [0, 1, 0], "those that did not")


t.main()
