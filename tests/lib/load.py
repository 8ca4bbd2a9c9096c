# SPDX-License-Identifier: MIT
"""Clients of the driver `test` that find out whether an access was lost, repeated or reordered."""
from __future__ import annotations

import random
import struct
import threading

from . import t
from .daemon import Daemon
from .vfio_user import Client

COUNTER, HASH, ECHO, GAPS, RESETS, GAIN = 0x10, 0x18, 0x20, 0x28, 0x30, 0x38
PRIME, MASK = 0x100000001b3, (1 << 64) - 1


def get(c: Client, register: int, size: int = 8) -> int:
    return int.from_bytes(c.read(0, register, size), "little")


class Load(threading.Thread):
    """A client whose every answer is checked: counters that count, a hash of all writes in order,
    posted writes, until stop()."""

    def __init__(self, d: Daemon, device: str) -> None:
        super().__init__()
        self.client = Client(d.socket(device))
        self.error: BaseException | None = None
        self.accesses = 0
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        rng, digest, count = random.Random(1), 0, 0
        try:
            while not self.stopping.is_set():
                value = rng.getrandbits(64)
                digest = (digest ^ value) * PRIME & MASK
                count += 1
                self.client.write(0, HASH, struct.pack("<Q", value), no_reply=count % 2 == 0)
                self.client.write(0, ECHO, struct.pack("<Q", count))
                t.equal(get(self.client, HASH), digest, "hash of all writes")
                t.equal(get(self.client, COUNTER), count - 1, "counter")
                self.accesses += 4
            t.equal(get(self.client, GAPS), 0, "writes lost or repeated")
            t.equal(get(self.client, RESETS, 4), 1, "resets, with that of the first open")
        except BaseException as e:  # told by stop()
            self.error = e

    def stop(self) -> Client:
        self.stopping.set()
        self.join(20)
        if self.error:
            raise self.error
        return self.client
