#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The tree of a parent `mtty` with params=off against the record of a real kernel with mtty.ko.

Paths, modes, sizes, link counts, contents, link texts and errnos are compared line by line; what
is left out is listed with its reason in docs/abi.md. The second half runs with params=on, where
our own additions (listed there, too) are taken away first: any other extra fails.
"""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import oracle, sysfs, t
from lib.daemon import Daemon
from lib.sysfs import open_result, write_result

NIL = "00000000-0000-0000-0000-000000000000"
FIRST = "a0000000-0000-4000-8000-000000000001"
THREE = [FIRST, "a0000000-0000-4000-8000-00000000000a", "a0000000-0000-4000-8000-00000000000b"]
GROUP = re.compile(r"(?<=/iommu_groups/)(\d+)|(?<=/class/vfio/)(\d+)|(?<=/virtual/vfio/)(\d+)")
WRITE = re.compile(r'  write\((\w+), "(.*)"\) \d+ms -> (\w+)$')
WRITE_LONG = re.compile(r"  write\(create,(\d+) bytes\) -> (\w+)$")
OPEN = re.compile(r"  (?:open\((RO) |(OPEN) )(\S+?)\)? -> (\w+)$")


@contextlib.contextmanager
def card(*settings: str) -> Iterator[Daemon]:
    with Daemon() as d:
        d.add_card("mtty", *settings)
        yield d


def types(d: Daemon) -> Path:
    return d.sys / "class/mdev_bus/mtty/mdev_supported_types"


def bus(d: Daemon, uuid: str) -> Path:
    return d.sys / "bus/mdev/devices" / uuid


def available(d: Daemon) -> tuple[int, int]:
    one, two = (int((types(d) / k / "available_instances").read_text())
                for k in ("mtty-1", "mtty-2"))
    return one, two


def group_base() -> int:
    """Our group numbers begin above the host's."""
    try:
        numbers = [int(n) for n in os.listdir("/sys/kernel/iommu_groups")]
    except OSError:
        numbers = []
    return max(numbers, default=-1) + 1


def is_host_group(line: str, base: int) -> bool:
    """A link to a group of the machine itself."""
    above, _, number = oracle.path_of(line).rpartition("/")
    return line.startswith("L ") and above == "/sys/kernel/iommu_groups" and int(number) < base


def tree(d: Daemon, *names: str) -> list[str]:
    """Lines of these directories, with group numbers that begin at 0."""
    base = group_base()
    lines = [line for name in names for line in sysfs.probe(d.sys, name)]
    return [GROUP.sub(lambda m: str(int(m[0]) - base), line) for line in lines
            if not is_host_group(line, base)]


def same(got: list[str], wanted: list[str]) -> None:
    text = oracle.difference(got, wanted)
    t.check(not text, text)


def replay(d: Daemon, lines: list[str], create: Path, uuid: str) -> int:
    """Does what the lines of a record say was done, and wants the recorded answers."""
    n = 0
    for line in lines:
        if m := WRITE.match(line):
            path = create if m[1] == "create" else bus(d, uuid) / m[1]
            text = m[2].replace("\\n", "\n")
            t.equal(write_result(path, text), m[3], f"write of {m[2]!r} to {m[1]}")
        elif m := WRITE_LONG.match(line):
            text = (FIRST + "," + "x" * 5000)[:int(m[1])]
            t.equal(write_result(create, text), m[2], f"write of {m[1]} bytes to create")
        elif m := OPEN.match(line):
            flags = os.O_RDONLY if m[1] else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            path = d.sys / m[3].removeprefix("/sys/")
            t.equal(open_result(path, flags), m[4], f"open of {m[3]}")
        else:
            continue
        n += 1
    return n


def additions() -> list[str]:
    return oracle.listed("abi-additions") + oracle.listed("abi-additions-by-type")


def make_three(d: Daemon) -> None:
    """What the record had made when it shows the tree with devices."""
    for uuid in THREE:
        t.equal(write_result(types(d) / "mtty-1/create", uuid), "36", "create")


@t.case
def without_a_parent_the_bus_is_that_of_a_kernel() -> None:
    with Daemon() as d:
        same(tree(d, "/sys/bus/mdev"), oracle.recorded_tree("bus before any parent"))
        for name in ("/sys/class/mdev_bus", "/sys/class/vfio", "/sys/kernel/iommu_groups"):
            t.equal(tree(d, name), [f"D 0755 nlink=2 {name}/"], name)


@t.case
def a_card_looks_as_after_loading_mtty() -> None:
    with card("params=off") as d:
        same(tree(d, "/sys/class/mdev_bus", "/sys/devices/virtual/mtty", "/sys/bus/mdev",
                  "/sys/class/mtty"), oracle.recorded_tree("load mtty"))


@t.case
def three_devices_look_as_those_of_mtty() -> None:
    with card("params=off") as d:
        make_three(d)
        same(tree(d, "/sys/devices/virtual/mtty", "/sys/bus/mdev", "/sys/kernel/iommu_groups",
                  "/sys/class/vfio"), oracle.recorded_tree("tree with devices"))


@t.case
def create_answers_as_the_kernel() -> None:
    with card("params=off") as d:
        n = replay(d, oracle.section("create errors"), types(d) / "mtty-1/create", NIL)
        t.check(n >= 18, f"only {n} steps of the record were understood")
        t.equal(sorted(os.listdir(d.sys / "bus/mdev/devices")), THREE, "devices")
        # the same UUID through the other type
        t.equal(write_result(types(d) / "mtty-2/create", FIRST), "EEXIST", "create")


@t.case
def ports_run_out_as_in_the_record() -> None:
    with card("params=off") as d:
        make_three(d)
        lines = oracle.section("mtty exhaustion")
        dual, single = lines[:-1], lines[-1:]
        n = replay(d, dual, types(d) / "mtty-2/create", "")
        t.equal(n, 14, "steps of the record")
        t.equal([str(x) for x in available(d)], [x for x in dual if x.isdigit()], "available")
        t.equal(replay(d, single, types(d) / "mtty-1/create", ""), 1, "steps of the record")
        t.equal(available(d), (0, 0), "available")


@t.case
def remove_answers_as_the_kernel() -> None:
    with card("params=off") as d:
        make_three(d)
        n = replay(d, oracle.section("remove"), types(d) / "mtty-1/create", FIRST)
        t.check(n >= 8, f"only {n} steps of the record were understood")
        for text in ("0", "+0\n", "00"):
            t.equal(write_result(bus(d, FIRST) / "remove", text), str(len(text)), text)
        t.check(bus(d, FIRST).exists(), "a zero removed the device")
        t.equal(write_result(bus(d, FIRST) / "remove", "0x2\n"), "4", "remove")
        t.check(not os.path.lexists(bus(d, FIRST)), "the device is still there")


@t.case
def after_the_last_device_the_tree_is_as_before() -> None:
    with card("params=off") as d:
        before = tree(d, "/sys")
        make_three(d)
        for uuid in THREE:
            t.equal(write_result(bus(d, uuid) / "remove", "1"), "1", "remove")
        same(tree(d, "/sys"), before)


@t.case
def the_lowest_free_numbers_are_used_again() -> None:
    with card("params=off") as d:
        make_three(d)
        t.equal(write_result(bus(d, THREE[1]) / "remove", "1"), "1", "remove")
        t.equal(write_result(types(d) / "mtty-2/create", NIL), "36", "create")
        base = group_base()
        group = os.path.basename(os.readlink(bus(d, NIL) / "iommu_group"))
        t.equal(int(group) - base, 1, "group")
        t.equal(os.listdir(bus(d, NIL) / "vfio-dev"), ["vfio1"], "vfio-dev")


@t.case
def the_bus_answers_as_recorded() -> None:
    """Section "driver bind/unbind", except that bind works again (docs/abi.md)."""
    with card("params=off") as d:
        make_three(d)
        drivers = d.sys / "bus/mdev/drivers/mtty"
        wanted = [line for line in oracle.section("driver bind") if line.startswith("mdev_type")]
        t.equal(write_result(drivers / "unbind", FIRST), "36", "unbind")
        t.equal(sorted(os.listdir(bus(d, FIRST))), sorted(wanted[0].split()), "what is left")
        t.equal((bus(d, FIRST) / "uevent").read_text(), "", "uevent")
        t.equal(write_result(d.sys / "bus/mdev/drivers_probe", FIRST), "36", "drivers_probe")
        t.equal(write_result(drivers / "unbind", "nosuch"), "ENODEV", "unbind")
        t.equal(write_result(bus(d, FIRST) / "uevent", "add"), "3", "uevent")
        t.equal(write_result(bus(d, FIRST) / "uevent", "bogus"), "EINVAL", "uevent")
        t.equal(write_result(bus(d, FIRST) / "uevent", f"change {FIRST} X=1"), "47", "uevent")
        t.equal(write_result(drivers / "bind", FIRST), "36", "bind")
        same(tree(d, "/sys/devices/virtual/mtty"),
             [line for line in oracle.recorded_tree("tree with devices")
              if oracle.path_of(line).startswith("/sys/devices/")])


@t.case
def everything_is_recorded_or_listed() -> None:
    """The whole tree with params on, minus our additions, holds nothing that a kernel has not."""
    with card("params=on") as d:
        make_three(d)
        recorded = {oracle.path_of(line) for title in ("load mtty", "tree with devices")
                    for line in oracle.recorded_tree(title)}
        directories = {os.path.dirname(p) for p in recorded}
        while "/" not in directories:
            directories |= {os.path.dirname(p) for p in directories}
        ours = oracle.without(tree(d, "/sys"),
                              additions() + oracle.listed("abi-not-recorded"))
        extra = [line for line in ours if oracle.path_of(line) not in recorded | directories]
        t.check(not extra, "neither recorded nor listed in docs/abi.md:\n" + "\n".join(extra))


@t.case
def parameters_only_add() -> None:
    """What a kernel shows is the same with params on; each listed addition exists."""
    with card("params=on") as d:
        make_three(d)
        everything = tree(d, "/sys")
        same(oracle.without(tree(d, "/sys/devices/virtual/mtty", "/sys/bus/mdev",
                                 "/sys/kernel/iommu_groups", "/sys/class/vfio"), additions()),
             oracle.recorded_tree("tree with devices"))
        paths = [oracle.path_of(line) for line in everything]
        unused = [a for a in oracle.listed("abi-additions")
                  if not any(oracle.matches(p, [a]) for p in paths)]
        t.equal(unused, [], "listed in docs/abi.md but not there")


@t.case
def an_ordinary_user_sees_the_same() -> None:
    """This file once more, as nobody, through fusermount3."""
    if os.geteuid() != 0:
        return  # this is that run
    if not shutil.which("fusermount3") or not shutil.which("setpriv"):
        t.skip("no fusermount3 or setpriv here: run tools/setup")
    p = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                        "/usr/bin/python3", __file__], text=True, capture_output=True,
                       env=dict(os.environ, HOME="/nonexistent"), timeout=100)
    print("\n".join(f"  as nobody: {line}" for line in (p.stdout + p.stderr).splitlines()))
    t.equal(p.returncode, 0, "status of the run as nobody")


t.main()
