#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""disk-nvme and an initiator in user space that polls (tests/lib/nvme_initiator.py)."""
from __future__ import annotations

import struct
import time

from lib import nvme, t
from lib.nvme import CSTS, FLUSH, RDY, command, disk
from lib.nvme_initiator import Initiator
from lib.nvme_load import Load
from lib.vfio_user import DMA_UNMAP

SIZE = 4 << 20


@t.case
def an_initiator_that_polls_is_served_through_its_doorbell_page() -> None:
    with disk(f"capacity={SIZE}", "aggregation=4", "doorbells=mapped") as (d, uuid):
        h = Initiator(d.device_dir(uuid) / "cntrl", d, uuid)
        h.enable()
        t.equal(h.identify(1)[256:258], b"\0\0", "optional admin commands: no shadow doorbells")
        h.admin(nvme.DOORBELL_BUFFER, prp1=h.page(), prp2=h.page(), want=nvme.INVALID_OPCODE)
        sqs = [h.pair(i) for i in (1, 2, 3, 4)]
        work = Load(h, sqs, SIZE // 512, 512)
        work.run(600, 8)
        # Values that are no index do no harm.
        h.words[2 + 200] = 7
        h.words[2 * 4] = 0xffffffff
        t.equal(h.call(sqs[0], command(FLUSH, 1)).status, 0, "flush")
        h.words[2 * 4] = sqs[3].tail
        work.run(100, 4)
        work.check_all()
        h.disable()
        h.enable()
        t.equal(h.call(h.pair(1), command(FLUSH, 1)).status, 0, "flush after a reset")
        h.ask(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, h.base, nvme.RAM), h.ram.fd)
        t.equal(h.reg(CSTS) & RDY, RDY, "CSTS")
        h.client.close()


@t.case
def queues_beyond_the_one_that_watches_are_refused() -> None:
    with disk(f"capacity={SIZE}", "aggregation=64", "doorbells=mapped") as (d, uuid):
        h = Initiator(d.socket(uuid), d, uuid)
        h.enable()
        t.equal(h.admin(nvme.GET_FEATURES, cdw10=7), 62 << 16 | 62, "queues, counted from 0")
        h.admin(nvme.CREATE_CQ, prp1=h.page(), cdw10=64 | 7 << 16, cdw11=1,
                want=nvme.INVALID_QID)
        t.equal(h.call(h.pair(63), command(FLUSH, 1)).status, 0, "flush on the last one")
        h.client.close()


@t.case
def an_idle_doorbell_page_costs_little() -> None:
    with disk(f"capacity={SIZE}", "doorbells=mapped") as (d, uuid):
        h = Initiator(d.socket(uuid), d, uuid)
        h.enable()
        h.call(h.pair(), command(FLUSH, 1))

        def ticks() -> int:
            n = 0
            for pid in d.workers():
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rpartition(")")[2].split()
                n += int(fields[11]) + int(fields[12])
            return n

        before = ticks()
        time.sleep(1)
        t.check(ticks() - before <= 10, f"{ticks() - before} ticks in a second")
        h.client.close()


t.main()
