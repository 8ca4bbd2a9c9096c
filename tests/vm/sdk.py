#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The example drivers, loaded from files, in a real guest: found on its bus, their BARs mapped, DMA
from its memory and to a peer."""
from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from lib import qemu, t
from lib.daemon import Daemon, worker_of
from lib.guest import Guest, initramfs
from lib.sdk import Sdk

GROUP = "peer_to_peer_resource_uuid=11111111-2222-3333-4444-555555555555"


def guest_program(folder: Path) -> bytes:
    path = folder / "pci"
    subprocess.run(["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(path),
                    str(t.ROOT / "tests/vm/pci.c")], check=True, timeout=60)
    return path.read_bytes()


def devices_of(g: Guest, device: str) -> list[str]:
    """Addresses on the guest's bus of what has this number."""
    out = g.sh("cd /sys/bus/pci/devices; grep -l 0x1234 */vendor | while read f; do d=${f%/*}; "
               f"[ $(cat $d/device) = {device} ] && echo $d; done; true")
    return out.split()


def pci(g: Guest, arguments: str) -> str:
    return g.sh(f"pci {arguments}").strip()


@t.case
def a_guest_uses_devices_of_drivers_from_files() -> None:
    with t.TempDir() as folder:
        s = Sdk(folder)
        s.build_minimal()
        s.build_engine()
        with Daemon(env={"UMDEV_DRIVERS": str(s.drivers)}) as d:
            (d.dir / "initramfs").write_bytes(initramfs({"pci": guest_program(folder)}))
            d.umdev("parent", "add", "m0", "driver=minimal")
            d.umdev("parent", "add", "dma0", "driver=dma-engine")
            small = d.create("m0", "minimal-1")
            engines = [d.create("dma0", "dma-engine-1", GROUP) for _ in range(2)]
            cards = [qemu.vfio_user(d.socket(u)) for u in (small, *engines)]
            with Guest(cards, d.dir) as g:
                g.wait_boot()
                registers_and_a_kill(d, g, small)
                engine(g)


def registers_and_a_kill(d: Daemon, g: Guest, device: str) -> None:
    found = devices_of(g, "0xe001")
    t.equal(len(found), 1, "minimal devices in the guest")
    for n in range(1, 4):
        pci(g, f"write {found[0]} 0 0 {0xcafe0000 + n}")
        t.equal(pci(g, f"read {found[0]} 0 0"), f"{0xcafe0000 + n:#x}", "SCRATCH")
        t.equal(pci(g, f"read {found[0]} 0 4"), f"{n:#x}", "COUNTER")
        os.kill(worker_of(d, device), signal.SIGKILL)


def engine(g: Guest) -> None:
    found = devices_of(g, "0xe002")
    t.equal(len(found), 2, "engines in the guest")
    a, b = found
    for one in found:
        t.equal(pci(g, f"dma {one}").split("\n"),
                ["load 0, memory equal", "store 0, memory equal"], f"DMA of {one}")
    pci(g, f"write {a} 2 0x10 0x12345678")
    target = g.sh(f"sed -n 3p /sys/bus/pci/devices/{b}/resource").split()[0]
    t.equal(pci(g, f"peer {a} {target}"), "0", "status of the copy to the peer")
    t.equal(pci(g, f"read {b} 2 0x10"), "0x12345678", "memory of the peer")


t.main()
