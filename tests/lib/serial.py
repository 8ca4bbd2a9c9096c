# SPDX-License-Identifier: MIT
"""Bytes through a serial port of a guest, both ways at once, with checksums on both sides."""
from __future__ import annotations

import hashlib
import os
import select
import time
from pathlib import Path

from . import t
from .guest import Guest

PCI_ID = "0x4348:0x3253"


def ports_of(guest: Guest, address: str) -> list[str]:
    """Names ("ttyS4") of the ports that the guest's driver gave to a PCI function."""
    names = guest.sh(f"ls /sys/bus/pci/devices/{address}/tty 2>/dev/null", ok=False).split()
    return sorted(names, key=lambda n: int(n.removeprefix("ttyS")))


def cards_of(guest: Guest) -> list[str]:
    """PCI addresses of the serial cards that the guest sees, in order."""
    out = guest.sh("for d in /sys/bus/pci/devices/*; do "
                   "echo ${d##*/} $(cat $d/vendor):$(cat $d/device); done")
    return sorted(line.split()[0] for line in out.splitlines() if line.endswith(PCI_ID))


class HostPort:
    """The host end of a port: its pty."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def __enter__(self) -> HostPort:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def start(guest: Guest, tty: str, n: int) -> None:
    """The guest opens the port and begins to send n random bytes and to receive n; returns when it
    listens. Hardware handshake: without RTS a UART has no way to say "too fast"."""
    guest.sh(
        f"cd /tmp; rm -f {tty}.up; mkfifo {tty}.up; head -c {n} /dev/urandom >{tty}.out; "
        f"( exec 4<>/dev/{tty}; stty 115200 raw -echo -iexten crtscts <&4; echo up >{tty}.up; "
        f"head -c {n} <&4 >{tty}.in & cat {tty}.out >&4; wait; rm -f {tty}.end; mkfifo {tty}.end; "
        f"echo end >{tty}.end ) >/dev/null 2>&1 & read x <{tty}.up")


def exchange(guest: Guest, pairs: dict[str, HostPort], n: int = 65536, seconds: float = 120,
             halfway: object = None) -> float:
    """n bytes each way through every port of `pairs` (guest's name -> host end) at the same time.
    `halfway` is called once, when half of all bytes have arrived here. Compares the checksums that
    both sides computed. Returns the seconds it took."""
    out = {tty: os.urandom(n) for tty in pairs}
    into = {tty: bytearray() for tty in pairs}
    left = {tty: memoryview(out[tty]) for tty in pairs}
    begin = time.monotonic()
    for tty in pairs:
        start(guest, tty, n)
    while any(len(into[tty]) < n or left[tty] for tty in pairs):
        poll = select.poll()
        by_fd = {}
        for tty, port in pairs.items():
            wanted = (select.POLLIN if len(into[tty]) < n else 0) | \
                (select.POLLOUT if left[tty] else 0)
            if wanted:
                poll.register(port.fd, wanted)
                by_fd[port.fd] = tty
        ready = poll.poll(max(0, seconds - (time.monotonic() - begin)) * 1000)
        if not ready:
            state = ", ".join(f"{tty}: {len(into[tty])} came, {len(left[tty])} left to send"
                              for tty in pairs)
            raise t.TimedOut(f"bytes stopped: {state}; guest: "
                             f"{guest.sh('cat /proc/tty/driver/serial | grep -v unknown')}")
        for fd, events in ready:
            tty = by_fd[fd]
            if events & select.POLLIN:
                into[tty] += os.read(fd, 65536)
            if events & select.POLLOUT and left[tty]:
                left[tty] = left[tty][os.write(fd, left[tty][:4096]):]
        if callable(halfway) and sum(map(len, into.values())) * 2 >= n * len(pairs):
            halfway()
            halfway = None
    for tty in pairs:
        _compare(guest, tty, bytes(into[tty]), out[tty], n)
    return time.monotonic() - begin


def _compare(guest: Guest, tty: str, received: bytes, sent: bytes, n: int) -> None:
    # The guest's receiver ends by itself when it has n bytes.
    sums, status = guest.try_sh(f"cd /tmp; while [ ! -p {tty}.end ]; do sleep 0.05; done; "
                                f"read x <{tty}.end; rm {tty}.end; "
                                f"sha256sum <{tty}.out; sha256sum <{tty}.in", 60)
    t.equal(status, 0, f"{tty}: checksums in the guest")
    guest_sent, guest_received = (line.split()[0] for line in sums.splitlines())
    t.equal(len(received), n, f"{tty}: bytes from the guest")
    t.equal(hashlib.sha256(received).hexdigest(), guest_sent, f"{tty}: checksum guest to host")
    t.equal(guest_received, hashlib.sha256(sent).hexdigest(), f"{tty}: checksum host to guest")
