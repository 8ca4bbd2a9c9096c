#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Namespaces of a disk-nvme that come, go and grow while its guest runs."""
from __future__ import annotations

import struct

from lib import nvme, t
from lib.daemon import Daemon
from lib.nvme import ASYNC, READ, SET_FEATURES, WRITE, Host, command, host, rw
from lib.nvme_load import Load

SIZE = 4 << 20
CHANGED = 0x040002


def write(h: Host, attribute: str, text: str) -> None:
    """To a file of the device, as a shell would."""
    path = h.daemon.sys / "bus/mdev/devices" / h.uuid / "vendor" / attribute
    path.write_text(text)


def watch(h: Host) -> None:
    h.submit(h.admin_sq, command(ASYNC))


def changed(h: Host) -> list[int]:
    """Waits for the event, and says which namespaces it is about."""
    done = h.wait(h.admin_cq)
    t.equal([hex(c.result) for c in done], [hex(CHANGED)], "event")
    found = [n for n in struct.unpack("<1024I", h.log(4, 4096)) if n]
    t.equal(h.log(4, 4096), bytes(4096), "the list after it was read")
    return found


def active(h: Host) -> list[int]:
    return [n for n in struct.unpack("<1024I", h.identify(2)) if n]


def size_of(h: Host, nsid: int) -> int:
    return int.from_bytes(h.identify(0, nsid)[:8], "little") * 512


@t.case
def a_volume_that_is_attached_or_detached_is_an_event() -> None:
    with host(f"capacity={SIZE}") as h:
        h.admin(SET_FEATURES, cdw10=0xb, cdw11=1 << 8)
        h.daemon.umdev("volume", "create", "pool", "data", f"size={2 * SIZE}")
        sq = h.pair()
        page = h.page()
        t.equal(active(h), [1], "namespaces at first")
        for _ in range(3):
            watch(h)
            write(h, "assign_namespace", "data")
            t.equal(changed(h), [2], "namespaces that changed")
            t.equal(active(h), [1, 2], "namespaces")
            t.equal(size_of(h, 2), 2 * SIZE, "its size")
            t.equal(h.call(sq, rw(WRITE, 9000, 1, 2, prp1=page)).status, 0, "write")
            watch(h)
            write(h, "unassign_namespace", "data")
            t.equal(changed(h), [2], "namespaces that changed")
            t.equal(active(h), [1], "namespaces")
            t.equal(h.call(sq, rw(READ, 0, 1, 2, prp1=page)).code, nvme.INVALID_FIELD,
                    "status of a read of what is gone")
            t.equal(h.call(sq, rw(READ, 0, 1, 1, prp1=page)).status, 0, "read of the other one")


@t.case
def who_has_not_asked_is_told_by_the_log_only() -> None:
    with host(f"capacity={SIZE}") as h:
        h.daemon.umdev("volume", "create", "pool", "data", f"size={SIZE}")
        watch(h)
        write(h, "assign_namespace", "data")
        t.wait_for(lambda: active(h) == [1, 2], 2, "the namespace")
        t.equal(struct.unpack("<2I", h.log(4, 8, retain=True)), (2, 0), "changed namespaces")
        t.equal(struct.unpack("<2I", h.log(4, 8)), (2, 0), "the same, retained")
        t.equal(len(h.admin_sq.flying), 1, "event requests that wait")


def grow(h: Host) -> None:
    h.admin(SET_FEATURES, cdw10=0xb, cdw11=1 << 8)
    sq, page = h.pair(), h.page()
    t.equal(h.call(sq, rw(READ, SIZE // 512, 1, prp1=page)).code, nvme.LBA_RANGE, "beyond")
    watch(h)
    h.daemon.umdev("volume", "resize", "pool", "data", str(2 * SIZE))
    t.equal(changed(h), [1], "namespaces that changed")
    t.equal(size_of(h, 1), 2 * SIZE, "its size")
    t.equal(h.call(sq, rw(WRITE, 2 * SIZE // 512 - 1, 1, prp1=page)).status, 0, "its last block")
    t.equal(h.call(sq, rw(READ, 2 * SIZE // 512, 1, prp1=page)).code, nvme.LBA_RANGE, "beyond")


@t.case
def a_volume_that_grows_is_an_event_and_can_be_used_to_its_new_end() -> None:
    with Daemon() as d:
        folder = d.dir / "store"
        folder.mkdir()
        d.umdev("parent", "add", "pool", "driver=disk", f"store={folder}")
        d.umdev("volume", "create", "pool", "data", f"size={SIZE}")
        with Host(d, d.create("pool", "disk-nvme", "volume=data")) as h:
            grow(h)


@t.case
def changes_disturb_no_command_in_flight() -> None:
    with host(f"capacity={SIZE}", "aggregation=3") as h:
        h.daemon.umdev("volume", "create", "pool", "data", f"size={SIZE}")
        work = Load(h, [h.pair(i) for i in (1, 2, 3)], SIZE // 512, 512)
        for i in range(8):
            for sq in work.sqs * 10:
                work.submit(sq)
            write(h, ("assign_namespace", "unassign_namespace")[i % 2], "data")
            work.drain()
        # Commands to the one that goes end with one of two statuses, and none is lost.
        page = h.page()
        write(h, "assign_namespace", "data")
        t.wait_for(lambda: active(h) == [1, 2], 2, "the namespace")
        sq = work.sqs[0]
        for _ in range(40):
            h.submit(sq, rw(READ, 0, 8, 2, prp1=page))
        write(h, "unassign_namespace", "data")
        done = h.wait(sq.cq, 40)
        t.check({c.code for c in done} <= {0, nvme.INVALID_FIELD, nvme.INVALID_NAMESPACE},
                f"statuses {({hex(c.code) for c in done})}")
        work.check_all()


t.main()
