#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""I/O queues, served by the control thread or by queue threads: what they do besides the requests that
survive/blk.py asks of them, too."""
from __future__ import annotations

import mmap
import os
import struct
import time

from lib import t
from lib.daemon import Daemon, worker_of
from lib.slow_disk import SlowDisk
from lib.test_blk import (BLOCK, DATA_IOVA, DEPTH, DONE, ERROR, FLUSH, HEAD, QUEUE, READ, THREAD,
                          WRITE, Disk, Kind, QueueDisk, children_of_keeper, content, disk, kill_all)

ZEROES, DISCARD, CRASH = 4, 5, 99
FUA, UNMAP = 1, 2
BROKEN = 1 << 31
MAPPED = Kind("mapped", QueueDisk, ("doorbells=mapped",))


def put_entry(d: Disk, op: int, block: int = 0, n: int = 0, flags: int = 0, number: int = 7,
              shift: int = 0) -> None:
    struct.pack_into("<IIQQII", d.rings.map, d.tail % DEPTH * 32, op, number, block,
                     DATA_IOVA + shift, n, flags)
    d.tail += 1


def completion(d: Disk) -> tuple[int, int]:
    """The next one: id and status."""
    at = 4096 + d.done % DEPTH * 16
    t.wait_for(lambda: struct.unpack_from("<I", d.rings.map, at + 8)[0] == d.done + 1, 5,
               "a completion")
    d.done += 1
    return struct.unpack_from("<Ii", d.rings.map, at)


def run(d: Disk, op: int, block: int = 0, n: int = 0, flags: int = 0) -> int:
    put_entry(d, op, block, n, flags)
    d.ring()
    return completion(d)[1]


def _add(kind: Kind, function) -> None:  # type: ignore[no-untyped-def]
    def case() -> None:
        function(kind)
    case.__name__ = f"{kind.name}_{function.__name__}"
    t.case(case, seconds=60)


def of_each_kind(function):  # type: ignore[no-untyped-def]
    for kind in (QUEUE, THREAD):
        _add(kind, function)
    return function


@of_each_kind
def zeroes_and_discards_read_as_zeros(kind: Kind) -> None:
    for medium in ("memory", "file"):
        with disk(medium, 1 << 20, kind=kind) as d:
            for op, flags in ((ZEROES, 0), (ZEROES, UNMAP), (ZEROES, FUA), (DISCARD, 0)):
                with d.buffer(0, 8) as data:
                    data[:] = b"\xa5" * (8 * BLOCK)
                t.equal(run(d, WRITE, 16, 8, FUA), 0, "status of a write")
                t.equal(run(d, op, 18, 3, flags), 0, f"status of {op} with flags {flags}")
                t.equal(run(d, READ, 16, 8), 0, "status of a read")
                with d.buffer(0, 8) as data:
                    t.check(bytes(data) == b"\xa5" * 2 * BLOCK + bytes(3 * BLOCK) +
                            b"\xa5" * 3 * BLOCK, f"content after {op} with flags {flags}")


@of_each_kind
def memory_of_any_alignment_reaches_a_disk(kind: Kind) -> None:
    """O_DIRECT takes aligned memory only."""
    with disk("direct", 1 << 20, kind=kind) as d:
        for shift in (1, 4, 511, 512, 3000):
            data = memoryview(d.data.map)
            data[:] = b"\x11" * d.data.size
            data[shift:shift + 3 * BLOCK] = b"".join(content(i, shift) for i in range(3))
            put_entry(d, WRITE, 5, 3, FUA, shift=shift)
            d.ring()
            t.equal(completion(d)[1], 0, f"status of a write from {shift}")
            data[:] = b"\x22" * d.data.size
            put_entry(d, READ, 5, 3, shift=shift + 8)
            d.ring()
            t.equal(completion(d)[1], 0, f"status of a read to {shift + 8}")
            t.check(bytes(data[:4 * BLOCK]) ==
                    b"\x22" * (shift + 8) + b"".join(content(i, shift) for i in range(3)) +
                    b"\x22" * (BLOCK - shift - 8), f"content around {shift + 8}")
            data.release()


@of_each_kind
def what_cannot_be_done_is_told(kind: Kind) -> None:
    with disk("memory", 1 << 20, kind=kind) as d:
        for op, block, n in ((0, 0, 1), (6, 0, 1), (READ, 0, 0), (READ, 0, 33), (WRITE, 256, 1),
                             (WRITE, 255, 2), (READ, 2**64 - 1, 1), (ZEROES, 255, 2),
                             (DISCARD, 0, 257)):
            t.equal(run(d, op, block, n), -22, f"status of {op, block, n}")
        d.client.dma_unmap(DATA_IOVA, d.data.size)
        t.equal(run(d, READ, 0, 1), -14, "status of a read to nowhere")
        d.map_data()
        d.client.set_config(4, 2, 2)  # no bus mastering: not even the ring can be read
        head = d.get(HEAD)
        put_entry(d, FLUSH)
        d.ring()
        t.wait_for(lambda: d.get(ERROR) == 14, 5, "an error of the ring")
        t.equal(d.get(HEAD), head, "entries fetched without bus mastering")


@of_each_kind
def a_stop_drains_or_drops(kind: Kind) -> None:
    with disk("direct", kind=kind) as d:
        assert isinstance(d, QueueDisk)
        for stop, restart in ((d.DRAIN, d.RESTART), (d.DROP, d.START), (d.DRAIN, d.START)):
            stops = d.get(d.STOPS)
            for block in range(0, 16 * 32, 32):
                d.queue(READ, block, 32)
            d.ring()
            d.wait_fetched()
            d.put(d.COMMAND, stop)
            t.wait_for(lambda n=stops: d.get(d.STOPS) == n + 1, 5, "the stop")
            t.equal(d.get(d.STATE), 0, "state")
            if stop == d.DRAIN:
                d.drain()
            else:  # nothing of it comes any more
                done, data = d.rings.map[4096:], d.data.map[:]
                time.sleep(0.05)
                t.check(done == d.rings.map[4096:] and data == d.data.map[:],
                        "memory changed after a drop")
            if restart == d.START:
                d.start()
            else:
                d.put(d.COMMAND, restart)
            d.queue(FLUSH)
            d.ring()
            d.drain()
        d.put(d.COMMAND, d.START)
        t.equal(d.get(ERROR), 16, "errno of a start of what runs")


@of_each_kind
def a_stop_survives(kind: Kind) -> None:
    with disk("direct", kind=kind) as d:
        assert isinstance(d, QueueDisk)
        children = children_of_keeper(d)
        for i in range(1, 11):
            for block in range(0, 16 * 32, 32):
                d.queue(READ, block, 32)
            d.ring()
            d.wait_fetched()
            d.put(d.COMMAND, d.DRAIN)
            kill_all(children())
            t.wait_for(lambda n=i: d.get(d.STOPS) == n, 5, "the stop")
            d.drain()
            d.start()


@of_each_kind
def a_queue_that_crashes_is_stopped_and_the_others_go_on(kind: Kind) -> None:
    with disk("memory", 1 << 20, kind=kind) as d:
        assert isinstance(d, QueueDisk)
        t.equal(run(d, FLUSH), 0, "status of a flush")
        put_entry(d, CRASH)
        d.ring()
        t.wait_for(lambda: d.get(d.EVENTS) == BROKEN, 10, "the news that it is broken")
        d.QUEUE = 2
        d.start()
        t.equal(run(d, FLUSH), 0, "status of a flush of another queue")
        d.QUEUE = 1
        d.put(d.COMMAND, d.DROP)
        t.wait_for(lambda: d.get(d.STOPS) == 1, 5, "the stop of the broken one")
        d.start()
        t.equal(run(d, FLUSH), 0, "status of a flush after a new start")
        t.equal(d.daemon.state_of(d.uuid), "connected", "state of the device")


@of_each_kind
def work_is_done_in_steps_over_deaths(kind: Kind) -> None:
    with disk("memory", 1 << 20, kind=kind) as d:
        assert isinstance(d, QueueDisk)
        children = children_of_keeper(d)
        for i in range(1, 11):
            d.put(d.COMMAND, d.WORK)
            kill_all(children())
            t.wait_for(lambda n=8 * i: d.get(d.WORKS) == n, 5, f"{8 * i} steps")


@of_each_kind
def an_idle_queue_costs_no_cpu(kind: Kind) -> None:
    for medium in ("memory", "null"):
        with disk(medium, kind=kind) as d:
            for _ in range(50):
                d.queue(FLUSH)
                d.ring()
                d.drain()
            worker = worker_of(d.daemon, d.uuid)
            time.sleep(0.2)
            before = switches(worker)
            time.sleep(1)
            t.equal(switches(worker) - before, 0, "context switches while idle")


def switches(pid: int) -> int:
    """Of all threads: who does not run, is not switched to."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
    return total


@of_each_kind
def a_disk_that_hangs_does_not_hold_an_unmap_for_ever(kind: Kind) -> None:
    """The device fails after 3 s, before QEMU gives up at 5; others are not concerned."""
    with SlowDisk(1 << 20) as slow, \
            Daemon(env={"UMDEV_TEST_MEDIUM": str(slow.path)}) as daemon:
        daemon.umdev("parent", "add", "lab", "driver=test")
        d = kind.make(daemon, "named", 1 << 20, *kind.parameters)
        other = kind.make(daemon, "memory", 1 << 20, *kind.parameters)
        slow.hold()
        d.queue(READ, 0, 8)
        d.ring()
        t.wait_for(lambda: slow.under_way() > 0, 5, "the read")
        began = time.monotonic()
        try:
            d.client.dma_unmap(DATA_IOVA, d.data.size)
        except (ConnectionError, EOFError):
            pass
        else:
            raise t.Failure("memory of a read that is under way was unmapped")
        t.check(2.5 < time.monotonic() - began < 4.5, f"{time.monotonic() - began:.1f} s")
        other.queue(WRITE, 0, 8)
        other.ring()
        other.drain()
        t.check(other.client.slowest < 1, f"the other waited {other.client.slowest} s")
        slow.go()
        t.wait_for(lambda: daemon.state_of(d.uuid) == "idle", 5, "the end of the connection")
        other.close()
        d.close()


@t.case
def a_mapped_doorbell_is_seen_without_a_message() -> None:
    with disk("memory", kind=MAPPED) as d:
        assert isinstance(d, QueueDisk)
        info = d.client.region_info(d.DOORBELLS)
        with mmap.mmap(info.fds[0], 4096) as page:
            def ring() -> None:
                struct.pack_into("<I", page, 4 * d.QUEUE, d.tail % 2**32)
            d.ring = ring  # type: ignore[method-assign]
            for _ in range(200):
                d.queue_any()
                d.ring()
                d.drain()
            kill_all(children_of_keeper(d)())
            for _ in range(20):
                d.queue_any()
                d.ring()
                d.drain()


@t.case
def trapped_doorbells_are_not_offered() -> None:
    with disk("memory", kind=QUEUE) as d:
        assert isinstance(d, QueueDisk)
        t.equal(d.client.region_info(d.DOORBELLS).fds, [], "descriptors of the doorbells")


@t.case
def several_queues_of_a_device_do_not_mix() -> None:
    for kind in (QUEUE, THREAD):
        with disk("memory", 1 << 20, kind=kind) as d:
            assert isinstance(d, QueueDisk)
            for block in range(4):
                with d.buffer(0, 1) as data:
                    data[:] = content(block, 9)
                t.equal(run(d, WRITE, block, 1), 0, "status")
            for queue in (0, 2, 3):
                d.QUEUE = queue
                d.start()
                t.equal(run(d, READ, queue, 1), 0, f"status of a read by queue {queue}")
                with d.buffer(0, 1) as data:
                    t.equal(bytes(data), content(queue, 9), f"what queue {queue} read")
                t.equal(d.get(DONE), 1, f"requests of queue {queue}")


t.main()
