#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The worker killed at every system call of every kind of request, before and after it, once each:
the client gets the right answer, once, and what the request does happens once.

A kind of request is a method of Device; another driver joins with a class of its own."""
from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import threading
import time

from lib import t, vfio_user
from lib.daemon import Daemon
from lib.survive import add_cases, living_worker
from lib.vfio_user import Client, Ram

SCRATCH, COUNTER, HASH, ECHO, GAPS = 0x08, 0x10, 0x18, 0x20, 0x28
RAISE, DMA_IOVA, DMA_OFFSET, DMA_LEN = 0x44, 0x80, 0x88, 0x8c
DMA_COMMAND, DMA_STATUS, DMA_DONE, DMA_VECTOR = 0x90, 0x94, 0x98, 0x9c
FROM_GUEST, TO_GUEST, ASK, TELL = 1, 2, 3, 4
BAR_REGS, BAR_MEM, MSIX = 0, 2, 2
HASH_PRIME = 0x100000001b3
MESSAGE_IOVA, RAM_IOVA, PAGE = 0x7000_0000, 0x1_0000_0000, 4096
KILLS_IN_FLIGHT = int(os.environ.get("UMDEV_KILLS", "2000"))


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

    def wake(self) -> None:
        self.get(SCRATCH)

    def close(self) -> None:
        self.client.close()

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

    def read_register(self) -> None:
        t.equal(self.get(COUNTER), self.counter, "counter")
        self.counter += 1

    def write_register(self) -> None:
        value = self.random.getrandbits(64)
        self.put(HASH, value, 8)
        self.hash = (self.hash ^ value) * HASH_PRIME % 2**64

    def posted_write(self) -> None:
        self.echo += 1
        self.put(ECHO, self.echo, 8, no_reply=True)
        t.equal(self.get(GAPS), 0, "gaps")

    def many_posted_writes(self) -> None:
        self.client.write_multi([(BAR_REGS, ECHO, (self.echo + 1 + i).to_bytes(8, "little"))
                              for i in range(8)])
        self.echo += 8
        t.equal(self.get(ECHO), self.echo, "the last of them")

    def pipelined_reads(self) -> None:
        body = struct.pack("<QII", COUNTER, BAR_REGS, 8)
        tickets = [self.client.send(vfio_user.REGION_READ, body) for _ in range(16)]
        values = [int.from_bytes(self.client.wait(x).payload[16:], "little") for x in tickets]
        t.equal(values, list(range(self.counter, self.counter + 16)), "counters")
        self.counter += 16

    def large_read(self) -> None:
        t.equal(self.client.read(BAR_MEM, 0, 65536)[:4], self.client.read(BAR_MEM, 0, 4), "memory")

    def map_use_unmap(self) -> None:
        data = self.random.randbytes(64)
        extra = Ram(PAGE)
        try:
            extra.map[:64] = data
            self.client.dma_map(RAM_IOVA + 2**32, PAGE, extra.fd)
            self.command(FROM_GUEST, RAM_IOVA + 2**32, 64)
            t.equal(self.get(DMA_STATUS, 4), 0, "status")
            self.done += 1
            t.equal(self.client.read(BAR_MEM, 0, 64), data, "bytes")
            self.client.dma_unmap(RAM_IOVA + 2**32, PAGE)
            self.put(DMA_COMMAND, FROM_GUEST)
            self.done += 1
            t.check(self.get(DMA_STATUS, 4) != 0, "unmapped memory was read")
        finally:
            extra.close()

    def write_guest_memory(self) -> None:
        data = self.random.randbytes(256)
        self.client.write(BAR_MEM, 0, data)
        self.command(TO_GUEST, RAM_IOVA + PAGE - 128, 256)
        t.equal(self.get(DMA_STATUS, 4), 0, "status")
        self.done += 1
        t.equal(self.ram.map[PAGE - 128:PAGE + 128], data, "guest memory")

    def set_up_interrupt(self) -> None:
        self.vector.close()
        self.vector = self.client.arm(MSIX, 3)
        self.put(RAISE, 3)
        t.check(self.vector.wait() > 0, "the interrupt did not come")

    def release_interrupt(self) -> None:
        self.client.set_irqs(MSIX, vfio_user.IRQ_EVENTFD | vfio_user.IRQ_TRIGGER, 3, 1)
        self.vector.clear()
        self.put(RAISE, 3)
        self.get(SCRATCH)
        t.equal(self.vector.wait(0), 0, "signals of a released vector")
        self.vector.close()
        self.vector = self.client.arm(MSIX, 3)
        self.vector.clear()

    def ask_client_for_memory(self) -> None:
        data = self.random.randbytes(128)
        self.client.memory[MESSAGE_IOVA][:128] = data
        self.command(ASK, MESSAGE_IOVA, 128)
        self._wait_done()
        t.equal(self.client.read(BAR_MEM, 0, 128), data, "bytes")

    def tell_client_memory(self) -> None:
        data = self.random.randbytes(128)
        self.client.write(BAR_MEM, 0, data)
        self.command(TELL, MESSAGE_IOVA + 512, 128)
        self._wait_done()
        t.equal(bytes(self.client.memory[MESSAGE_IOVA][512:640]), data, "bytes")

    def _wait_done(self) -> None:
        self.done += 1
        t.wait_for(lambda: (self.client.poll_device(0), self.get(DMA_DONE, 4) == self.done)[1], 5,
                   "the end of a message DMA")
        t.equal(self.get(DMA_STATUS, 4), 0, "status")

    def machine_reset(self) -> None:
        resets = self.get(0x30, 4)
        self.client.reset()
        t.equal(self.get(0x30, 4), resets + 1, "resets")
        self.counter = self.hash = self.echo = self.done = 0
        self.client.set_config(4, 2, 6)
        self.client.set_config(self.client.capability(0x11) + 2, 2, 0x8000)
        self.client.write(4, 16 * 3 + 12, bytes(4))

    def change_parameter(self) -> None:
        value = self.random.randrange(20, 101)
        self.daemon.umdev("param", "set", self.uuid, f"gain={value}")
        t.equal(self.get(0x38, 4), value, "gain")


REQUESTS = [
    "read_register", "write_register", "posted_write",
    "many_posted_writes", "pipelined_reads", "large_read",
    "map_use_unmap", "write_guest_memory", "set_up_interrupt",
    "release_interrupt", "ask_client_for_memory", "tell_client_memory",
    "machine_reset", "change_parameter"]
add_cases(Device, "test", REQUESTS)


@t.case
def random_kills_under_load_lose_nothing() -> None:
    with Daemon() as daemon:
        daemon.umdev("parent", "add", "lab", "driver=test")
        d = Device(daemon)
        stop = threading.Event()
        kills = [0]

        def killer() -> None:
            rng = random.Random(2)
            keeper = int([line for line in open(f"/proc/{living_worker(d)}/status")
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
        requests = [getattr(d, r) for r in REQUESTS if r not in ("change_parameter", "machine_reset")]
        try:
            while thread.is_alive():
                rng.choice(requests)()
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
        d.close()


t.main()
