#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""NVMe controllers in a Linux guest: file systems, discards, resets, nvme-cli; and as what SeaBIOS
boots from. Memory is a memfd of 4 KiB pages."""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

from lib import nvme, qemu, t
from lib.daemon import Daemon, worker_of
from lib.guest import Guest, initramfs, linked_with
from lib.nvme import FLUSH, Host, command

MIB = 1 << 20
DISK = 192 * MIB
FILES = 64  # of 1 MiB


def host_program(name: str) -> Path:
    path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not path:
        t.skip(f"no {name} here: run tools/setup")
    return Path(path)


def tools() -> bytes:
    """An initial file system with mkfs.ext4 and nvme-cli in it."""
    found = {name: host_program(name) for name in ("mkfs.ext4", "nvme")}
    return initramfs({name: p.read_bytes() for name, p in found.items()},
                     linked_with(*found.values()))


def volume(d: Daemon, size: int) -> Path:
    files = [f for f in (d.dir / "store").rglob("*") if f.is_file() and f.stat().st_size == size]
    t.equal(len(files), 1, f"volumes of {size} bytes")
    return files[0]


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


class Machine:
    """Two controllers in one guest: 512-byte blocks and two queue pairs, 4096 and one."""

    def __init__(self) -> None:
        self.d = Daemon()

    def __enter__(self) -> Machine:
        self.stack = contextlib.ExitStack()
        d = self.stack.enter_context(self.d)
        folder = d.dir / "store"
        folder.mkdir()
        d.umdev("parent", "add", "pool", "driver=disk", f"store={folder}")
        self.first = d.create("pool", "disk-nvme", f"capacity={DISK}", "thin=yes",
                              "aggregation=2", "serial=first")
        self.second = d.create("pool", "disk-nvme", f"capacity={64 * MIB}", "blk_size=4096",
                               "serial=second")
        (d.dir / "initramfs").write_bytes(tools())
        self.g = self.stack.enter_context(Guest(
            [qemu.vfio_user(d.socket(u)) for u in (self.first, self.second)], d.dir))
        self.g.wait_boot()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind:
            print(f"log of umdevd:\n{self.d.log()[-3000:]}")
        self.stack.__exit__(kind, *rest)


# ---- what the guest does with them ----

def names(g: Guest) -> dict[str, str]:
    """Serial number -> name of the controller."""
    out = g.sh("for c in /sys/class/nvme/nvme*; do echo $(cat $c/serial) ${c##*/}; done")
    return dict(line.split() for line in out.splitlines())


def bound(m: Machine) -> None:
    found = names(m.g)
    t.equal(sorted(found), ["first", "second"], "controllers in the guest")
    for serial, size, block in (("first", DISK, 512), ("second", 64 * MIB, 4096)):
        disk = f"/sys/block/{found[serial]}n1"
        t.equal(int(m.g.sh(f"cat {disk}/size")), size // 512, f"sectors of {serial}")
        t.equal(int(m.g.sh(f"cat {disk}/queue/logical_block_size")), block, f"block of {serial}")
        t.equal(m.g.sh(f"cat {disk}/queue/write_cache").strip(), "write back", "write cache")
        t.check(int(m.g.sh(f"cat {disk}/queue/max_hw_sectors_kb")) >= 1024, "largest transfer")


def file_systems(m: Machine) -> None:
    """64 MiB of files, with a worker killed half way, and what their checksums are."""
    g, disk = m.g, {s: f"/dev/{n}n1" for s, n in names(m.g).items()}
    g.sh(f"mkdir -p /a /b; mkfs.ext4 -q {disk['first']}", 60)
    g.sh(f"mkfs.ext4 -q {disk['second']}", 60)
    g.sh(f"mount -t ext4 {disk['first']} /a && mount -t ext4 {disk['second']} /b")
    g.sh(f"for i in $(seq {FILES // 2}); do dd if=/dev/urandom of=/a/$i bs=1M count=1 2>/dev/null; "
         "done", 60)
    os.kill(worker_of(m.d, m.first), signal.SIGKILL)
    g.sh(f"for i in $(seq {FILES // 2 + 1} {FILES}); do dd if=/dev/urandom of=/a/$i bs=1M count=1 "
         "2>/dev/null; done; sync", 60)
    g.sh("cp /a/1 /a/2 /a/3 /b")
    g.sh("cd /a; sha256sum * 2>/dev/null > sums; cp sums /b; cd /; umount /a; umount /b", 60)


def verified_after_reboot(m: Machine) -> None:
    g = m.g
    g.reboot()
    disk = {s: f"/dev/{n}n1" for s, n in names(g).items()}
    g.sh(f"mkdir -p /a /b; mount -t ext4 {disk['first']} /a && mount -t ext4 {disk['second']} /b")
    out = g.sh("cd /a; sha256sum -c sums | grep -c OK; grep -v sums sums | wc -l", 60)
    t.equal(out.split(), [str(FILES), str(FILES)], "files with the right checksum")
    out = g.sh("cd /b; grep -E ' [123]$' sums | sha256sum -c | grep -c OK")
    t.equal(out.strip(), "3", "files with the right checksum on the second disk")


def discard_frees_space(m: Machine) -> None:
    path = volume(m.d, DISK)
    before = used(path)
    t.check(before >= FILES * MIB, f"{before} bytes of host space")
    m.g.sh("rm /a/[0-9]*; sync; fstrim /a", 60)
    after = used(path)
    t.fact(f"fstrim: {before >> 20} MiB of host space became {after >> 20}")
    t.check(after < before - (FILES - 4) * MIB, f"fstrim left {after} of {before} bytes")
    m.g.sh("umount /a; umount /b")


def nvme_cli(m: Machine) -> None:
    name = f"/dev/{names(m.g)['first']}"

    def ask(what: str) -> dict[str, object]:
        return json.loads(m.g.sh(f"nvme {what} -o json"))

    c = ask(f"id-ctrl {name}")
    t.equal([str(c[k]).strip() for k in ("sn", "mn")], ["first", "umdev NVMe controller"], "names")
    t.equal([c["ver"], c["mdts"], c["vwc"]], [0x10400, 8, 5], "version, MDTS, write cache")
    ns = ask(f"id-ns {name}n1")
    t.equal([ns["nsze"], ns["lbafs"][0]["ds"], ns["dlfeat"]], [DISK // 512, 9, 9], "namespace")
    t.equal([n["nsid"] for n in ask(f"list-ns {name}")["nsid_list"]], [1], "namespaces")
    smart = ask(f"smart-log {name}")
    for key in ("data_units_read", "data_units_written", "host_read_commands",
                "host_write_commands"):
        t.check(int(smart[key]) > 0, f"{key}: {smart[key]}")
    t.check(int(smart["data_units_written"]) * 512000 >= FILES * MIB, "data units written")
    t.equal([int(smart["media_errors"]), smart["critical_warning"]], [0, 0], "errors")
    m.g.try_sh(f"nvme admin-passthru {name} --opcode=0x7f")
    errors = ask(f"error-log {name}")["errors"]
    t.check(errors[0]["error_count"] >= 1, "the error log is empty")
    out = m.g.sh(f"nvme effects-log {name} -c 0")  # without -c it asks a register it cannot reach
    t.check("Dataset Management" in out and "Doorbell Buffer Config" in out, f"effects: {out}")
    t.check("Compare" not in out, "effects of a command that does not exist")
    m.g.sh(f"nvme fw-log {name}")
    m.g.sh(f"nvme get-feature {name} -f 7")


def resets_under_load(m: Machine) -> None:
    found = names(m.g)
    name = found["first"]
    m.g.sh(f"(while :; do dd if=/dev/{name}n1 of=/dev/null bs=64k count=512 iflag=direct "
           f"2>/dev/null; done) & echo $! > /tmp/load")
    for _ in range(5):
        m.g.sh(f"echo 1 > /sys/class/nvme/{name}/reset_controller", 30)
        t.equal(m.g.sh(f"cat /sys/class/nvme/{name}/state").strip(), "live", "state after a reset")
    m.g.sh("kill $(cat /tmp/load)")
    m.g.sh(f"dd if=/dev/{name}n1 of=/dev/null bs=1M count=4 iflag=direct 2>/dev/null")


def qemu_killed_under_load(m: Machine) -> None:
    g, d = m.g, m.d
    disk = {s: f"/dev/{n}n1" for s, n in names(g).items()}
    wanted = g.sh(f"mount -t ext4 {disk['first']} /a; dd if=/dev/urandom of=/a/kept bs=1M "
                  "count=4 2>/dev/null; sync; sha256sum /a/kept").split()[0]
    g.sh("(while :; do dd if=/dev/zero of=/a/load bs=1M count=16 2>/dev/null; sync; done) & :")
    time.sleep(0.5)
    g.kill()
    for u in (m.first, m.second):
        t.wait_for(lambda u=u: d.state_of(u) == "idle", 5, "idle after the end of QEMU")
    with Host(d, m.first) as h:
        t.equal(h.call(h.pair(), command(FLUSH, 1)).status, 0, "flush of the next client")
    path = volume(d, DISK)
    p = subprocess.run([host_program("e2fsck"), "-p", str(path)], capture_output=True, text=True,
                       check=False)
    t.check(p.returncode in (0, 1), f"e2fsck: {p.stdout} {p.stderr}")
    subprocess.run([host_program("debugfs"), "-R", f"dump /kept {d.dir}/kept", str(path)],
                   check=True, capture_output=True)
    got = subprocess.run(["sha256sum", f"{d.dir}/kept"], check=True, capture_output=True,
                         text=True).stdout.split()[0]
    t.equal(got, wanted, "checksum of what was synced before QEMU was killed")


@t.case(seconds=200)
def two_controllers_in_one_guest() -> None:
    with Machine() as m:
        for part in (bound, file_systems, verified_after_reboot, discard_frees_space, nvme_cli,
                     resets_under_load, qemu_killed_under_load):
            begin = time.monotonic()
            part(m)
            t.fact(f"{part.__name__}: {time.monotonic() - begin:.1f} s")
            t.check("the controller has failed" not in m.d.log(), "a controller has failed")


@t.case(seconds=60)
def r_a_guest_without_message_interrupts_is_not_interrupted_for_ever() -> None:
    with nvme.disk(f"capacity={16 * MIB}") as (d, device), \
            Guest([qemu.vfio_user(d.socket(device))], d.dir, append="pci=nomsi") as g:
        g.wait_boot()
        for op in ("of=/dev/nvme0n1 if=/dev/zero oflag=direct",
                   "if=/dev/nvme0n1 of=/dev/null iflag=direct"):
            g.sh(f"dd {op} bs=16k count=200 2>/dev/null")
        line = g.sh("grep nvme0q /proc/interrupts").split()
        t.fact(f"{line[1]} interrupts of the pin")
        t.check("nvme0q1" in line and "IO-APIC" in line, f"not the pin: {line}")
        # One too many is thousands: without KVM, QEMU keeps the pin up until a register is touched.
        t.check(400 <= int(line[1]) < 90000, f"{line[1]} interrupts for 400 commands")
        t.equal(g.try_sh("dmesg | grep -i 'nobody cared'")[0], "", "what the kernel says")


# ---- SeaBIOS ----

# Reads 8 blocks from block 1 on to 0x8000 through INT 13h, writes them to the first serial port up
# to a NUL, and stops.
BOOT = bytes.fromhex(
    "fa 31c0 8ed8 8ec0 8ed0 bc007c fb"  # cli; segments = 0; sp = 0x7c00; sti
    "be407c b442 cd13 721a"             # si = packet; ah = 0x42; int 0x13; jc stop
    "be0080"                            # si = 0x8000
    "ac 84c0 7412 88c4"                 # next: lodsb; test al; jz stop; ah = al
    "bafd03 ec a820 74fb"               # dx = 0x3fd; wait: in al, dx; test al, 0x20; jz wait
    "baf803 88e0 ee ebe9"               # dx = 0x3f8; al = ah; out; jmp next
    "f4 ebfd")                          # stop: hlt; jmp stop


def boot_disk(text: bytes) -> bytes:
    packet = struct.pack("<BBHHHQ", 16, 0, 8, 0x8000, 0, 1)
    sector = BOOT.ljust(0x40, b"\0") + packet
    assert len(BOOT) <= 0x40 and len(text) < 8 * 512
    return sector.ljust(510, b"\0") + b"\x55\xaa" + text.ljust(8 * 512, b"\0")


@t.case(seconds=60)
def seabios_boots_from_a_controller() -> None:
    text = ("umdev " + " ".join(str(i) for i in range(600))).encode() + b" end\n"
    with Daemon() as d:
        folder = d.dir / "store"
        folder.mkdir()
        d.umdev("parent", "add", "pool", "driver=disk", f"store={folder}")
        device = d.create("pool", "disk-nvme", f"capacity={16 * MIB}")
        with open(volume(d, 16 * MIB), "r+b") as f:
            f.write(boot_disk(text))
        console = d.dir / "console"
        with qemu.Qemu(["-machine", "q35", "-accel", "tcg", *qemu.RAM, "-serial",
                        f"file:{console}", "-device",
                        qemu.vfio_user(d.socket(device), bootindex=0)], d.dir) as q:
            t.wait_for(lambda: console.exists() and console.read_bytes().endswith(b"end\n"), 20,
                       "what was loaded from the disk")
            t.equal(console.read_bytes(), text, "what the boot sector loaded")
            q.must_run()


t.main()
