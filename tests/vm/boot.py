#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A Linux guest boots with a two-port card and uses it; what firmware does to memory on the way."""
from __future__ import annotations

import re

from lib import qemu, serial, t
from lib.daemon import Daemon
from lib.guest import Guest


@t.case
def a_guest_boots_and_bytes_flow_both_ways() -> None:
    with Daemon() as d:
        d.add_card()
        device = d.create("card0", "mtty-2")
        trace = d.dir / "trace"
        with Guest([qemu.vfio_user(d.socket(device))], d.dir, "-D", str(trace),
                   "-trace", "vfio_user_*") as g:
            g.wait_boot()
            cards = serial.cards_of(g)
            t.equal(len(cards), 1, "cards in the guest")
            names = serial.ports_of(g, cards[0])
            t.equal(len(names), 2, "ports of the card")
            table = g.sh("cat /proc/tty/driver/serial")
            for n in names:
                line = re.search(rf"^{n.removeprefix('ttyS')}: uart:(\S+)", table, re.M)
                t.check(line, f"{n} is missing in {table}")
                t.equal(line[1], "16550A", f"UART that the guest's driver found at {n}")
            with serial.HostPort(d.device_dir(device) / "tty0") as a, \
                    serial.HostPort(d.device_dir(device) / "tty1") as b:
                seconds = serial.exchange(g, {names[0]: a, names[1]: b})
            t.fact(f"2 ports x 2 x 64 KiB in {seconds:.1f} s")
            firmware_storm(trace.read_text(errors="replace"))
        t.wait_for(lambda: d.state_of(device) == "idle", 5, "idle after QEMU's end")


def firmware_storm(trace: str) -> None:
    """SeaBIOS moves memory around: whole RAM comes and goes several times before Linux runs."""
    maps = len(re.findall(r"^vfio_user_dma_map ", trace, re.M))
    unmaps = len(re.findall(r"^vfio_user_dma_unmap ", trace, re.M))
    t.fact(f"one boot: {maps} maps, {unmaps} unmaps")
    t.check(maps > 10 and unmaps > 5, f"no storm: {maps} maps, {unmaps} unmaps")


t.main()
