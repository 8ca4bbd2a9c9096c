#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What happens to a card in the life of a guest: reboot, driver unbound, hot plug, its process
killed, two of them in one machine."""
from __future__ import annotations

import json
import os
import signal

from lib import qemu, serial, t
from lib.daemon import Daemon, worker_of
from lib.guest import Guest


def exchange(d: Daemon, g: Guest, devices: list[str], n: int = 4096, **more: object) -> float:
    """Bytes through all ports of all cards, which the guest lists in the order of `devices`."""
    cards = serial.cards_of(g)
    t.equal(len(cards), len(devices), "cards in the guest")
    ends = {}
    try:
        for device, card in zip(devices, cards, strict=True):
            names = serial.ports_of(g, card)
            t.check(names, f"card {card} has no ports")
            for i, name in enumerate(names):
                ends[name] = serial.HostPort(d.device_dir(device) / f"tty{i}")
        return serial.exchange(g, ends, n, **more)
    finally:
        for end in ends.values():
            os.close(end.fd)


@t.case
def a_card_works_again_after_reboot() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        with Guest([qemu.vfio_user(d.socket(device))], d.dir) as g:
            g.wait_boot()
            exchange(d, g, [device])
            g.reboot()
            exchange(d, g, [device])


@t.case
def a_card_works_again_after_its_driver_was_unbound() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-1")
        with Guest([qemu.vfio_user(d.socket(device))], d.dir) as g:
            g.wait_boot()
            card = serial.cards_of(g)[0]
            for _ in range(3):
                g.sh(f"echo {card} >/sys/bus/pci/drivers/serial/unbind")
                t.equal(serial.ports_of(g, card), [], "ports while unbound")
                g.sh(f"echo {card} >/sys/bus/pci/drivers/serial/bind")
                exchange(d, g, [device])


@t.case
def two_cards_and_a_killed_worker_lose_no_byte() -> None:
    with Daemon() as d:
        d.add_card()
        devices = [d.create("card0", "mtty-2"), d.create("card0", "mtty-2")]
        with Guest([qemu.vfio_user(d.socket(u)) for u in devices], d.dir) as g:
            g.wait_boot()
            before = [worker_of(d, u) for u in devices]

            def kill() -> None:
                os.kill(before[0], signal.SIGKILL)

            seconds = exchange(d, g, devices, 65536, halfway=kill)
            t.fact(f"4 ports x 2 x 64 KiB in {seconds:.1f} s, with one worker killed half way")
            after = [worker_of(d, u) for u in devices]
            t.check(after[0] != before[0], "the killed worker still runs")
            t.equal(after[1], before[1], "worker of the other card")
            t.equal([d.state_of(u) for u in devices], ["connected"] * 2, "states after the kill")
            exchange(d, g, devices)


@t.case
def a_card_can_be_plugged_while_the_guest_runs() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        with Guest([], d.dir, machine="pc") as g:
            g.wait_boot()
            t.equal(serial.cards_of(g), [], "cards before")
            for _ in range(2):
                arguments = json.loads(qemu.vfio_user(d.socket(device), id="hot", bus="pci.0"))
                g.qmp("device_add", **arguments)
                t.wait_for(lambda: serial.cards_of(g), 10, "the card in the guest")
                exchange(d, g, [device])
                g.qmp("device_del", id="hot")
                g.wait_event("DEVICE_DELETED")
                t.equal(serial.cards_of(g), [], "cards after it was unplugged")
                t.wait_for(lambda: d.state_of(device) == "idle", 5, "idle when unplugged")


t.main()
