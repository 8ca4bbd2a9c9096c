#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The real client without a guest: QEMU under -accel qtest drives a serial card as a processor
would. Every access must be answered within a second; QEMU gives up after five."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import qemu, serial, t
from lib.daemon import Daemon, program, worker_of
from lib.qtest import Function, Qtest

IO = 0xc000  # where the ports go; nothing else decodes there without firmware
RBR = THR = 0
IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 1, 2, 2, 3, 4, 5, 6, 7
SLOWEST = 1.0
slowest = 0.0


@contextlib.contextmanager
def machine(sockets: list[Path], directory: Path, name: str = "qtest", **more: str) \
        -> Iterator[tuple[Qtest, list[Function]]]:
    """QEMU with a card per socket, from slot 3 on: placed and enabled."""
    global slowest
    devices = [qemu.vfio_user(s, addr=f"{3 + i:#x}") for i, s in enumerate(sockets)]
    with Qtest(devices, directory, name=name, **more) as q:
        cards = [q.pci(3 + i) for i in range(len(sockets))]
        for i, card in enumerate(cards):
            card.place(0, IO + 0x100 * i)
            card.place(1, IO + 0x100 * i + 8)
            card.enable()
        yield q, cards
        slowest = max(slowest, q.slowest)
        t.check(q.slowest < SLOWEST, f"an access took {q.slowest:.2f} s")


@contextlib.contextmanager
def one_card(kind: str = "mtty-2") -> Iterator[tuple[Daemon, str, Qtest, Function]]:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", kind)
        with machine([d.socket(device)], d.dir) as (q, cards):
            yield d, device, q, cards[0]


@t.case
def the_configuration_space_is_that_of_the_card() -> None:
    with one_card() as (_, _, _, card):
        t.equal(card.config(0x00), 0x32534348, "vendor and device")
        t.equal(card.config(0x08) >> 8, 0x070002, "class: 16550 serial")
        t.equal(card.config(0x2c), 0x32534348, "subsystem")
        t.equal(card.config(0x0e, 1), 0, "header type")
        t.equal([card.bar_size(i) for i in range(6)], [8, 8, 0, 0, 0, 0], "sizes of BARs")
        t.equal(card.config(0x10) & 1, 1, "BAR0 is I/O")
        t.equal(card.config(0x3d, 1), 1, "interrupt pin")
        card.set_config(0x00, 0)
        t.equal(card.config(0x00), 0x32534348, "vendor and device after a write")


@t.case
def a_one_port_card_has_one_bar() -> None:
    with one_card("mtty-1") as (_, _, _, card):
        t.equal([card.bar_size(i) for i in range(6)], [8, 0, 0, 0, 0, 0], "sizes of BARs")


@t.case
def a_card_is_made_of_as_many_ports_as_its_aggregation_says() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-1", "aggregate=2", "backend=none")
        types = d.sys / "class/mdev_bus/card0/mdev_supported_types"
        t.equal((types / "mtty-2/available_instances").read_text(), "11\n", "cards of two left")
        for ports in (2, 1, 2):
            d.umdev("param", "set", device, f"aggregation={ports}")
            t.equal((d.sys / "bus/mdev/devices" / device / "mdev/num_ports/value").read_text(),
                    f"{ports}\n", "num_ports")
            with Qtest([qemu.vfio_user(d.socket(device), addr="0x3")], d.dir,
                       name=f"ports{ports}") as q:
                card = q.pci(3)
                t.equal([card.bar_size(i) for i in range(6)], [8, 8 * (ports - 1), 0, 0, 0, 0],
                        "sizes of BARs")
                card.place(0, IO)
                card.place(1, IO + 8)
                card.enable()
                q.outb(IO + 8 + SCR, 0x5a)
                t.equal(q.inb(IO + 8 + SCR) == 0x5a, ports == 2, "the second port is there")
                t.equal(d.umdev("param", "set", device, "aggregation=1", ok=False).returncode,
                        0 if ports == 1 else 4, "a change while it is used")
            t.wait_for(lambda: d.state_of(device) == "idle", 5, "idle")


@t.case
def registers_of_the_ports_are_apart() -> None:
    with one_card() as (_, _, q, _):
        q.outb(IO + SCR, 0x5a)
        q.outb(IO + 8 + SCR, 0xa5)
        t.equal((q.inb(IO + SCR), q.inb(IO + 8 + SCR)), (0x5a, 0xa5), "scratch registers")
        t.equal(q.inb(IO + LSR) & 0x60, 0x60, "transmitter empty")


@t.case
def bytes_reach_the_host_and_come_back() -> None:
    with one_card() as (d, device, q, _):
        q.outb(IO + FCR, 7)
        q.outb(IO + MCR, 2)  # RTS: ready to receive
        with serial.HostPort(d.device_dir(device) / "tty0") as end:
            for byte in b"hello":
                q.outb(IO + THR, byte)
            t.equal(read_exactly(end.fd, 5), b"hello", "bytes at the host")
            os.write(end.fd, b"world")
            got = bytearray()
            while len(got) < 5:
                t.wait_for(lambda: q.inb(IO + LSR) & 1, 5, "data ready")
                got.append(q.inb(IO + RBR))
            t.equal(bytes(got), b"world", "bytes at the card")
            t.equal(q.inb(IO + LSR) & 1, 0, "data ready when all was read")


def read_exactly(fd: int, n: int) -> bytes:
    out = b""

    def more() -> bool:
        nonlocal out
        with contextlib.suppress(BlockingIOError):
            out += os.read(fd, n - len(out))
        return len(out) == n
    t.wait_for(more, 5, f"{n} bytes at the host")
    return out


@t.case
def intx_follows_the_uart() -> None:
    with one_card() as (_, _, q, _):
        q.command("irq_intercept_in ioapic")
        t.check(not any(q.irqs.values()), "an interrupt before it was asked for")
        q.outb(IO + MCR, 0x08)  # OUT2 gates the line on a PC
        q.outb(IO + IER, 2)     # transmitter empty
        t.wait_for(lambda: (q.inb(0x80), any(q.irqs.values()))[1], 5, "INTx")
        t.equal(q.inb(IO + IIR) & 0x0f, 2, "cause")
        t.wait_for(lambda: (q.inb(IO + IIR), not any(q.irqs.values()))[1], 5, "end of INTx")
        t.equal(q.inb(IO + IIR) & 1, 1, "no cause is left")


@t.case
def an_msi_arrives_in_memory() -> None:
    with one_card() as (_, _, q, card):
        at = card.capability(0x05)
        t.check(at, "no MSI capability")
        wide = bool(card.config(at + 2, 2) & 0x80)
        card.set_config(at + 4, 0x200000)
        if wide:
            card.set_config(at + 8, 0)
        card.set_config(at + (12 if wide else 8), 0x4321, 2)
        card.set_config(at + 2, card.config(at + 2, 2) | 1, 2)
        t.equal(q.readl(0x200000), 0, "memory before")
        q.outb(IO + MCR, 0x08)
        q.outb(IO + IER, 2)
        t.wait_for(lambda: q.readl(0x200000) == 0x4321, 5, "the message in memory")


@t.case
def a_machine_reset_resets_the_card() -> None:
    with one_card() as (_, _, q, card):
        q.outb(IO + IER, 5)
        q.outb(IO + SCR, 0x77)
        q.qmp("system_reset")
        q.wait_event("RESET")
        t.equal(card.config(0x04, 2) & 7, 0, "command register")
        t.equal(card.config(0x10), 1, "BAR0")
        card.place(0, IO)
        card.enable()
        t.equal(q.inb(IO + IER), 0, "interrupt enable register")


@t.case
def two_cards_do_not_share_registers() -> None:
    with Daemon() as d:
        d.add_card()
        devices = [d.create("card0", "mtty-1") for _ in range(2)]
        with machine([d.socket(u) for u in devices], d.dir) as (q, _):
            q.outb(IO + SCR, 0x11)
            q.outb(IO + 0x100 + SCR, 0x22)
            t.equal((q.inb(IO + SCR), q.inb(IO + 0x100 + SCR)), (0x11, 0x22), "scratch registers")


@t.case
def a_new_qemu_is_served_at_once_after_a_kill() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        for life in range(5):
            with machine([d.socket(device)], d.dir, f"life{life}") as (q, _):
                t.check(q.inb(IO + SCR) != 0x5a, "the register of the last owner is seen")
                q.outb(IO + SCR, 0x5a)
                t.equal(q.inb(IO + SCR), 0x5a, "scratch register")
                q.kill()


@t.case
def a_second_qemu_is_turned_away_at_once() -> None:
    with one_card() as (d, device, q, _):
        q.outb(IO + SCR, 0x5a)
        second = subprocess.run(
            [qemu.program(), "-nodefaults", "-display", "none", "-machine", "q35,accel=qtest",
             "-device", qemu.vfio_user(d.socket(device))],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=4, check=False)
        t.check(second.returncode != 0, "the second QEMU started")
        t.equal(q.inb(IO + SCR), 0x5a, "scratch register of the first")


@t.case
def a_killed_worker_keeps_the_registers() -> None:
    with one_card() as (d, device, q, _):
        q.outb(IO + SCR, 0x3c)
        for _ in range(10):
            os.kill(worker_of(d, device), signal.SIGKILL)
            t.equal(q.inb(IO + SCR), 0x3c, "scratch register after a kill")
        t.fact(f"slowest access with 10 kills: {q.slowest * 1000:.1f} ms")


@t.case
def one_device_can_be_served_without_a_manager() -> None:
    with t.TempDir() as directory:
        env = dict(os.environ, UMDEV_RUN=str(directory / "run"))
        path = directory / "socket"
        p = subprocess.Popen([str(program("umdevd")), "--one", "mtty", "2", "--socket", str(path)],
                             env=env, stdin=subprocess.DEVNULL)
        try:
            t.wait_for(path.exists, 5, "the socket")
            with machine([path], directory) as (q, _):
                q.outb(IO + SCR, 0x66)
                t.equal(q.inb(IO + SCR), 0x66, "scratch register")
            p.terminate()
            t.equal(p.wait(5), 0, "exit status of umdevd --one")
        finally:
            p.kill()
            p.wait()


@t.case
def the_slowest_access_is_far_below_qemus_limit() -> None:
    t.fact(f"slowest access of all cases: {slowest * 1000:.1f} ms")
    t.check(0 < slowest < SLOWEST, f"slowest access: {slowest:.3f} s")


t.main()
