#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The worker killed at every system call of every kind of request, before and after it, once each:
the client gets the right answer, once, and what the request does happens once.

A kind of request is one function below; a new driver joins by a row in a table of its own."""
from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lib import t, vfio_user
from lib.daemon import Daemon, worker_of
from lib.vfio_user import Client, Ram

SCRATCH, COUNTER, HASH, ECHO, GAPS = 0x08, 0x10, 0x18, 0x20, 0x28
RAISE, DMA_IOVA, DMA_OFFSET, DMA_LEN = 0x44, 0x80, 0x88, 0x8c
DMA_COMMAND, DMA_STATUS, DMA_DONE, DMA_VECTOR = 0x90, 0x94, 0x98, 0x9c
FROM_GUEST, TO_GUEST, ASK, TELL = 1, 2, 3, 4
BAR_REGS, BAR_MEM, CONFIG, MSIX = 0, 2, 7, 2
HASH_PRIME = 0x100000001b3
MESSAGE_IOVA, RAM_IOVA, PAGE = 0x7000_0000, 0x1_0000_0000, 4096
KILLS_IN_FLIGHT = int(os.environ.get("UMDEV_TEST_KILLS", "2000"))
MAX_STOPS = 400


class Device:
    """A client of a test-dma device, and what its registers must hold."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.uuid = daemon.create("lab", "test-dma")
        self.client = Client(daemon.socket(self.uuid))
        self.counter = self.hash = self.echo = self.done = 0
        self.random = random.Random(1)
        self.ram = Ram(16 * PAGE)
        self.client.dma_map(RAM_IOVA, self.ram.size, self.ram.fd)
        self.client.dma_map(MESSAGE_IOVA, PAGE)
        self.client.memory[MESSAGE_IOVA] = bytearray(PAGE)
        self.client.set_config(4, 2, 6)
        self.vector = self.client.arm(MSIX, 3)
        self.client.set_config(self.client.capability(0x11) + 2, 2, 0x8000)
        self.client.write(4, 16 * 3 + 12, bytes(4))

    def worker(self) -> int:
        return t.wait_for(lambda: _worker(self.daemon, self.uuid), 5, "a worker")

    def get(self, register: int, size: int = 8) -> int:
        return int.from_bytes(self.client.read(BAR_REGS, register, size), "little")

    def put(self, register: int, value: int, size: int = 4, no_reply: bool = False) -> None:
        self.client.write(BAR_REGS, register, value.to_bytes(size, "little"), no_reply)

    def check(self) -> None:
        """Everything that a lost, repeated or torn access would have changed."""
        t.equal(self.get(COUNTER), self.counter, "reads of the counter")
        self.counter += 1
        t.equal(self.get(HASH), self.hash, "hash of all writes in their order")
        t.equal((self.get(ECHO), self.get(GAPS)), (self.echo, 0), "sequence of posted writes")
        t.equal(self.get(DMA_DONE, 4), self.done, "DMA commands that ended")

    def command(self, command: int, iova: int, length: int) -> None:
        self.client.write(BAR_REGS, DMA_IOVA, struct.pack("<QII", iova, 0, length)[:8])
        self.put(DMA_OFFSET, 0)
        self.put(DMA_LEN, length)
        self.put(DMA_COMMAND, command)


def _worker(daemon: Daemon, uuid: str) -> int:
    try:
        return worker_of(daemon, uuid)
    except (t.Failure, OSError, ValueError):
        return 0


def read_register(d: Device) -> None:
    t.equal(d.get(COUNTER), d.counter, "counter")
    d.counter += 1


def write_register(d: Device) -> None:
    value = d.random.getrandbits(64)
    d.put(HASH, value, 8)
    d.hash = (d.hash ^ value) * HASH_PRIME % 2**64


def posted_write(d: Device) -> None:
    d.echo += 1
    d.put(ECHO, d.echo, 8, no_reply=True)
    t.equal(d.get(GAPS), 0, "gaps")


def many_posted_writes(d: Device) -> None:
    d.client.write_multi([(BAR_REGS, ECHO, (d.echo + 1 + i).to_bytes(8, "little"))
                          for i in range(8)])
    d.echo += 8
    t.equal(d.get(ECHO), d.echo, "the last of them")


def pipelined_reads(d: Device) -> None:
    body = struct.pack("<QII", COUNTER, BAR_REGS, 8)
    tickets = [d.client.send(vfio_user.REGION_READ, body) for _ in range(16)]
    values = [int.from_bytes(d.client.wait(x).payload[16:], "little") for x in tickets]
    t.equal(values, list(range(d.counter, d.counter + 16)), "counters")
    d.counter += 16


def large_read(d: Device) -> None:
    t.equal(d.client.read(BAR_MEM, 0, 65536)[:4], d.client.read(BAR_MEM, 0, 4), "memory")


def map_use_unmap(d: Device) -> None:
    data = d.random.randbytes(64)
    extra = Ram(PAGE)
    try:
        extra.map[:64] = data
        d.client.dma_map(RAM_IOVA + 2**32, PAGE, extra.fd)
        d.command(FROM_GUEST, RAM_IOVA + 2**32, 64)
        t.equal(d.get(DMA_STATUS, 4), 0, "status")
        d.done += 1
        t.equal(d.client.read(BAR_MEM, 0, 64), data, "bytes")
        d.client.dma_unmap(RAM_IOVA + 2**32, PAGE)
        d.put(DMA_COMMAND, FROM_GUEST)
        d.done += 1
        t.check(d.get(DMA_STATUS, 4) != 0, "unmapped memory was read")
    finally:
        extra.close()


def write_guest_memory(d: Device) -> None:
    data = d.random.randbytes(256)
    d.client.write(BAR_MEM, 0, data)
    d.command(TO_GUEST, RAM_IOVA + PAGE - 128, 256)
    t.equal(d.get(DMA_STATUS, 4), 0, "status")
    d.done += 1
    t.equal(d.ram.map[PAGE - 128:PAGE + 128], data, "guest memory")


def set_up_interrupt(d: Device) -> None:
    d.vector.close()
    d.vector = d.client.arm(MSIX, 3)
    d.put(RAISE, 3)
    t.check(d.vector.wait() > 0, "the interrupt did not come")


def release_interrupt(d: Device) -> None:
    d.client.set_irqs(MSIX, vfio_user.IRQ_EVENTFD | vfio_user.IRQ_TRIGGER, 3, 1)
    d.vector.clear()
    d.put(RAISE, 3)
    d.get(SCRATCH)
    t.equal(d.vector.wait(0), 0, "signals of a released vector")
    d.vector.close()
    d.vector = d.client.arm(MSIX, 3)
    d.vector.clear()


def ask_client_for_memory(d: Device) -> None:
    data = d.random.randbytes(128)
    d.client.memory[MESSAGE_IOVA][:128] = data
    d.command(ASK, MESSAGE_IOVA, 128)
    _wait_done(d)
    t.equal(d.client.read(BAR_MEM, 0, 128), data, "bytes")


def tell_client_memory(d: Device) -> None:
    data = d.random.randbytes(128)
    d.client.write(BAR_MEM, 0, data)
    d.command(TELL, MESSAGE_IOVA + 512, 128)
    _wait_done(d)
    t.equal(bytes(d.client.memory[MESSAGE_IOVA][512:640]), data, "bytes")


def _wait_done(d: Device) -> None:
    d.done += 1
    t.wait_for(lambda: (d.client.poll_device(0), d.get(DMA_DONE, 4) == d.done)[1], 5,
               "the end of a message DMA")
    t.equal(d.get(DMA_STATUS, 4), 0, "status")


def machine_reset(d: Device) -> None:
    resets = d.get(0x30, 4)
    d.client.reset()
    t.equal(d.get(0x30, 4), resets + 1, "resets")
    d.counter = d.hash = d.echo = d.done = 0
    d.client.set_config(4, 2, 6)
    d.client.set_config(d.client.capability(0x11) + 2, 2, 0x8000)
    d.client.write(4, 16 * 3 + 12, bytes(4))


def change_parameter(d: Device) -> None:
    value = d.random.randrange(20, 101)
    d.daemon.umdev("set", d.uuid, f"gain={value}")
    t.equal(d.get(0x38, 4), value, "gain")


REQUESTS: list[Callable[[Device], None]] = [
    read_register, write_register, posted_write, many_posted_writes, pipelined_reads, large_read,
    map_use_unmap, write_guest_memory, set_up_interrupt, release_interrupt, ask_client_for_memory,
    tell_client_memory, machine_reset, change_parameter]


@dataclass
class Sweep:
    kills: int = 0
    calls: int = 0


def kill_at(d: Device, request: Callable[[Device], None], n: int) -> bool:
    """One request with the worker killed at stop n. False: it was over before."""
    worker = d.worker()
    tracer = subprocess.Popen([str(t.BUILD / "tests/survive/kill-at"), str(worker), str(n)],
                              stdout=subprocess.PIPE, text=True)
    assert tracer.stdout
    try:
        # The worker sleeps: something must wake it for the first two stops.
        while not select.select([tracer.stdout], [], [], 0.02)[0]:
            d.get(SCRATCH)
        t.equal(tracer.stdout.readline(), "ready\n", "kill-at")
        request(d)
        d.check()
        return bool(select.select([tracer.stdout], [], [], 0.05)[0]) and \
            tracer.stdout.readline().startswith("killed")
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()


def sweep(d: Device, request: Callable[[Device], None]) -> int:
    for n in range(1, MAX_STOPS):
        if not kill_at(d, request, n):
            return n - 1
        d.check()
    raise t.Failure(f"{request.__name__} takes more than {MAX_STOPS} system calls")


def _add_sweep(request: Callable[[Device], None]) -> None:
    def run() -> None:
        if os.geteuid():
            t.skip("a worker can be traced by root only")
        with Daemon() as daemon:
            daemon.umdev("parent", "add", "lab", "driver=test")
            d = Device(daemon)
            try:
                n = sweep(d, request)
                t.fact(f"{request.__name__}: {n}/{n} kills survived; slowest answer "
                       f"{d.client.slowest * 1000:.1f} ms")
                t.check(n >= 6, f"only {n} stops: the request was not met")
            finally:
                d.client.close()
    run.__name__ = f"{request.__name__}_killed_at_every_system_call"
    t.case(run)


for _request in REQUESTS:
    _add_sweep(_request)


@t.case
def random_kills_under_load_lose_nothing() -> None:
    with Daemon() as daemon:
        daemon.umdev("parent", "add", "lab", "driver=test")
        d = Device(daemon)
        stop = threading.Event()
        kills = [0]

        def killer() -> None:
            rng = random.Random(2)
            keeper = int([line for line in open(f"/proc/{d.worker()}/status")
                          if line.startswith("PPid")][0].split()[1])
            children = f"/proc/{keeper}/task/{keeper}/children"
            while not stop.is_set() and kills[0] < KILLS_IN_FLIGHT:
                time.sleep(rng.expovariate(1 / 0.004))
                with open(children) as f:
                    pids = f.read().split()
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):  # dead already, not yet reaped
                        os.kill(int(pid), signal.SIGKILL)
                        kills[0] += 1

        thread = threading.Thread(target=killer)
        thread.start()
        rng = random.Random(3)
        n = 0
        requests = [r for r in REQUESTS if r not in (change_parameter, machine_reset)]
        try:
            while thread.is_alive():
                rng.choice(requests)(d)
                n += 1
                if n % 50 == 0:
                    d.check()
        finally:
            stop.set()
            thread.join()
        d.check()
        t.fact(f"{kills[0]} kills during {n} requests, 0 lost or repeated; slowest answer "
               f"{d.client.slowest * 1000:.1f} ms")
        t.check(n > 100, f"only {n} requests")
        d.client.close()


t.main()
