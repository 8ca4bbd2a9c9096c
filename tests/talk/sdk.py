#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Drivers outside the tree: the examples, built against the installed headers, at work and
spoiled."""
from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, parent_of, program, worker_of
from lib.sdk import Sdk
from lib.varlink import VarlinkError
from lib.vfio_user import Client, Ram

PARENT, DEVICE = "minimal_parent.c", "minimal_device.c"
ABI = int(re.findall(r"#define UMDEV_ABI (\d+)", (t.ROOT / "include/umdev/abi.h").read_text())[0])
SCRATCH, COUNTER, INTX_LIMIT = 0, 4, 8  # minimal
# dma-engine, as dma_engine.h has it
LIMIT, LENGTH, SOURCE, TARGET, COMMAND, STATUS, ENDED = 0, 4, 8, 0x10, 0x18, 0x1c, 0x20
LOAD, STORE, COPY = 1, 2, 3
MEMORY, MSIX_CAP = 2, 0x11
GUEST, PEER = 0x100000, 0x80000000


@functools.cache
def sdk() -> Sdk:
    folder = t.TempDir()
    atexit.register(folder.__exit__)
    s = Sdk(folder.path)
    s.build_minimal()
    s.build_engine()
    return s


@contextlib.contextmanager
def daemon(drivers: Path | None = None) -> Iterator[Daemon]:
    with Daemon("--debug", env={"UMDEV_DRIVERS": str(drivers or sdk().drivers)}) as d:
        yield d


@contextlib.contextmanager
def minimal(drivers: Path | None = None) -> Iterator[tuple[Daemon, str, Client]]:
    with daemon(drivers) as d:
        d.umdev("parent", "add", "m0", "driver=minimal")
        device = d.create("m0", "minimal-1")
        with Client(d.socket(device)) as c:
            yield d, device, c


@contextlib.contextmanager
def engine(*settings: str) -> Iterator[tuple[Daemon, str, Client]]:
    with daemon() as d:
        d.umdev("parent", "add", "dma0", "driver=dma-engine")
        device = d.create("dma0", "dma-engine-1", *settings)
        with Client(d.socket(device)) as c:
            master(c)
            yield d, device, c


def get(c: Client, offset: int, size: int = 4) -> int:
    return int.from_bytes(c.read(0, offset, size), "little")


def put(c: Client, offset: int, value: int, size: int = 4) -> None:
    c.write(0, offset, value.to_bytes(size, "little"))


def kill_worker(d: Daemon, device: str) -> None:
    """As the kernel out of memory would; returns when another one serves."""
    old = worker_of(d, device)
    keeper = parent_of(old)
    os.kill(old, signal.SIGKILL)
    children = Path(f"/proc/{keeper}/task/{keeper}/children")
    t.wait_for(lambda: children.read_text().split() not in ([], [str(old)]), 5, "a new worker")


# ---- headers and building ----

@t.case
def each_installed_header_compiles_alone_in_c11_and_later() -> None:
    s = sdk()
    headers = sorted((s.root).rglob("include/umdev/*.h"))
    wanted = sorted(h.name for h in (t.ROOT / "include/umdev").glob("*.h"))
    t.equal([h.name for h in headers], wanted, "installed headers")
    for h in headers:
        for standard in ("c11", "gnu17"):
            source = s.dir / "alone.c"
            source.write_text(f"#include <umdev/{h.name}>\n"
                              "extern int alone;\nint alone;\n")
            s.compile(s.dir / "alone.so", source, flags=f"-std={standard}")


@t.case
def pkg_config_tells_the_directory_that_umdevd_looks_in() -> None:
    folder = sdk().pkg_config("--variable=driverdir")
    folder = folder.removeprefix(str(sdk().root))  # some pkg-configs put it before variables, too
    t.check(folder.startswith("/"), f"driverdir {folder}")
    t.check(folder.encode() + b"\0" in program("umdevd").read_bytes(), f"umdevd knows {folder}")


@t.case
def umdev_lists_drivers_with_their_files() -> None:
    with daemon() as d:
        rows = {r["name"]: r for r in json.loads(d.umdev("drivers", "--json").stdout)["drivers"]}
        t.equal(rows["minimal"].get("file"), str(sdk().drivers / "minimal.so"), "file of minimal")
        t.equal(rows["mtty"].get("file"), None, "file of a driver that is built in")
        text = d.umdev("drivers").stdout
        t.check(str(sdk().drivers / "dma-engine.so") in text, f"umdev drivers: {text}")
        one = d.umdev("drivers", "dma-engine").stdout
        t.check("channels" in one and "1..64" in one, f"umdev drivers dma-engine: {one}")


# ---- the minimal device ----

@t.case
def the_minimal_device_has_its_registers_and_its_interrupt() -> None:
    with minimal() as (_, _, c):
        t.equal((c.config(0, 2), c.config(2, 2)), (0x1234, 0xe001), "vendor and device")
        line = c.arm(vu.INTX)
        put(c, INTX_LIMIT, 3)
        for n in range(1, 4):
            t.equal(line.clear(), 0, f"interrupts before write {n}")
            put(c, SCRATCH, 0x1000 + n)
            t.equal((get(c, SCRATCH), get(c, COUNTER)), (0x1000 + n, n), "SCRATCH and COUNTER")
        t.equal(line.wait(), 1, "interrupts at the limit")
        t.equal(get(c, 12), 0, "behind the registers")
        t.equal(c.read(0, 1, 1), b"\0", "a byte of a register")
        c.reset()
        t.equal(get(c, COUNTER), 0, "COUNTER after a reset")


@t.case
def a_killed_worker_of_a_loaded_driver_is_continued() -> None:
    with minimal() as (d, device, c):
        for n in range(1, 6):
            put(c, SCRATCH, n)
            kill_worker(d, device)
            t.equal((get(c, SCRATCH), get(c, COUNTER)), (n, n), f"after kill {n}")


@t.case
def a_successor_runs_the_code_that_its_keeper_loaded_whatever_became_of_the_file() -> None:
    with t.TempDir() as folder:
        shutil.copy(sdk().drivers / "minimal.so", folder)
        with minimal(folder) as (d, device, c):
            put(c, SCRATCH, 7)
            (folder / "minimal.so").unlink()
            kill_worker(d, device)
            put(c, SCRATCH, 8)
            t.equal((get(c, SCRATCH), get(c, COUNTER)), (8, 2), "SCRATCH and COUNTER")


@t.case
def a_umdevd_that_is_killed_finds_the_driver_again() -> None:
    with minimal() as (d, device, c):
        put(c, SCRATCH, 7)
        d.kill()
        d.start()
        t.wait_for(lambda: d.state_of(device) == "connected", 5, "adoption")
        put(c, SCRATCH, 8)
        t.equal((get(c, SCRATCH), get(c, COUNTER)), (8, 2), "SCRATCH and COUNTER")


def replace(path: Path, *changes: tuple[str, str, str]) -> None:
    """As a new version of the package would: by rename."""
    sdk().spoiled(path.with_suffix(".new"), *changes).rename(path)


@t.case
def a_restart_moves_a_device_to_the_drivers_new_file_and_refuses_another_state() -> None:
    with t.TempDir() as folder:
        path = folder / "minimal.so"
        shutil.copy(sdk().drivers / "minimal.so", path)
        with minimal(folder) as (d, device, c):
            put(c, SCRATCH, 7)
            replace(path, (DEVICE, "s->reg[COUNTER]++", "s->reg[COUNTER] += 10"))
            t.equal(d.umdev("restart", device).stdout.split(), [device], "devices that moved")
            put(c, SCRATCH, 8)
            t.equal((get(c, SCRATCH), get(c, COUNTER)), (8, 11), "by the new code")
            replace(path, (DEVICE, ".state_version = 1", ".state_version = 2"))
            p = d.umdev("restart", device, ok=False)
            t.check(p.returncode and "minimal-1" in p.stderr and "version 2" in p.stderr,
                    f"another state: {p.stderr}")
            put(c, SCRATCH, 9)
            t.equal((get(c, SCRATCH), get(c, COUNTER)), (9, 21), "by the code before")


@t.case
def umdevd_one_serves_a_driver_from_a_file() -> None:
    with t.TempDir() as folder:
        path = folder / "socket"
        p = subprocess.Popen([program("umdevd"), "--one", "minimal", "1", "--socket", path],
                             env=dict(os.environ, UMDEV_DRIVERS=str(sdk().drivers),
                                      XDG_RUNTIME_DIR=str(folder)), stderr=subprocess.DEVNULL)
        try:
            t.wait_for(path.exists, 10, "the socket")
            with Client(path) as c:
                put(c, SCRATCH, 5)
                t.equal(get(c, COUNTER), 1, "COUNTER")
        finally:
            p.terminate()
            t.equal(p.wait(10), 0, "status")


@t.case
def a_worker_loads_the_files_of_its_own_group_only() -> None:
    with minimal() as (d, device, _):
        keeper = parent_of(worker_of(d, device))
        maps = Path(f"/proc/{keeper}/maps").read_text()
        t.check("minimal.so" in maps and "dma-engine.so" not in maps, f"mapped files: {maps}")


# ---- the engine ----

def master(c: Client) -> None:
    """Memory space and bus master on, MSI-X on."""
    c.set_config(4, 2, 6)
    c.set_config(c.capability(MSIX_CAP) + 2, 2, 0x8000)


def command(c: Client, what: int, source: int, target: int, length: int) -> None:
    put(c, SOURCE, source, 8)
    put(c, TARGET, target, 8)
    put(c, LENGTH, length)
    put(c, COMMAND, what)


@contextlib.contextmanager
def ram_of(c: Client) -> Iterator[Ram]:
    ram = Ram(1 << 20)
    c.dma_map(GUEST, ram.size, ram.fd)
    yield ram
    ram.close()


@t.case
def the_engine_copies_between_guest_memory_and_its_own() -> None:
    with engine() as (_, _, c), ram_of(c) as ram:
        done, failed = c.arm(vu.MSIX, 0), c.arm(vu.MSIX, 1)
        data = os.urandom(4096)
        ram.map[0x5003:0x6003] = data
        command(c, LOAD, GUEST + 0x5003, 0x7000, 4096)
        t.equal((get(c, STATUS), get(c, ENDED), done.wait()), (0, 1, 1), "status, ended, MSI-X")
        t.equal(c.read(MEMORY, 0x7000, 4096), data, "memory by messages")
        info = c.region_info(MEMORY)
        t.equal(len(info.fds), 1, "descriptors of the memory BAR")
        with mmap.mmap(info.fds[0], 65536, offset=info.offset) as bar:
            t.equal(bar[0x7000:0x8000], data, "memory as it is mapped")
            bar[0x7010:0x7014] = b"host"
        os.close(info.fds[0])
        command(c, STORE, 0x7010, GUEST + 0x100, 4)
        t.equal((done.wait(), ram.map[0x100:0x104]), (1, b"host"), "store")
        command(c, COPY, GUEST + 0x5003, GUEST + 0x9000, 2048)
        t.equal((done.wait(), ram.map[0x9000:0x9800]), (1, data[:2048]), "copy")
        t.equal((get(c, ENDED), failed.clear()), (3, 0), "ended, failed")


@t.case
def what_the_engine_cannot_copy_ends_with_an_errno_and_the_other_vector() -> None:
    with engine("max_transfer=1024") as (_, _, c), ram_of(c):
        done, failed = c.arm(vu.MSIX, 0), c.arm(vu.MSIX, 1)
        t.equal(get(c, LIMIT), 1024, "LIMIT")
        for what, source, target, length, error in (
                (LOAD, GUEST, 0, 1025, errno.EINVAL), (LOAD, GUEST, 0, 0, errno.EINVAL),
                (9, GUEST, 0, 4, errno.EINVAL), (LOAD, 0x10, 0, 4, errno.EFAULT),
                (LOAD, GUEST, 65533, 4, errno.EFAULT), (STORE, 1 << 63, GUEST, 4, errno.EFAULT),
                (STORE, 65536, GUEST, 1, errno.EFAULT),
                (COPY, GUEST, GUEST + (1 << 20) - 2, 4, errno.EFAULT)):
            command(c, what, source, target, length)
            t.equal((get(c, STATUS), failed.wait()), (error, 1), f"{what} {source:#x} {target:#x}")
        t.equal(done.clear(), 0, "commands that ended well")
        command(c, LOAD, GUEST, 65535, 1)
        t.equal(get(c, STATUS), 0, "the last byte")
        c.set_config(4, 2, 2)
        command(c, LOAD, GUEST, 0, 4)
        t.equal(get(c, STATUS), errno.EPERM, "without bus mastering")


@t.case
def memory_without_a_file_is_reached_through_the_client_also_over_a_kill() -> None:
    with engine() as (d, device, c):
        done = c.arm(vu.MSIX, 0)
        c.dma_map(GUEST, 1 << 16)
        c.memory[GUEST] = bytearray(os.urandom(1 << 16))
        command(c, COPY, GUEST + 0x10, GUEST + 0x8000, 1000)
        kill_worker(d, device)
        for what in ("read", "write"):
            t.check(c.poll_device(5), f"no message to {what}")
        t.equal((done.wait(), get(c, STATUS), get(c, ENDED)), (1, 0, 1), "MSI-X, status, ended")
        t.equal(bytes(c.memory[GUEST][0x8000:0x83e8]), bytes(c.memory[GUEST][0x10:0x3f8]), "copy")


@t.case
def a_busy_engine_ignores_registers_and_refuses_a_new_limit() -> None:
    with engine() as (d, device, c):
        c.dma_map(GUEST, 1 << 16)
        c.memory[GUEST] = bytearray(b"x" * 65536)
        command(c, LOAD, GUEST, 0, 64)
        # Answered in order: the client answers nothing of the device's before this reply came.
        with d.varlink() as v, fails_with("EBUSY"):
            v.call("ParamSet", name=device, param="max_transfer", value="64")
        put(c, LENGTH, 1)
        t.wait_for(lambda: get(c, ENDED) == 1, 5, "the end of the command")
        t.equal((get(c, STATUS), get(c, LENGTH)), (0, 64), "STATUS, LENGTH")
        t.equal(c.read(MEMORY, 0, 64), b"x" * 64, "memory")


@contextlib.contextmanager
def fails_with(name: str) -> Iterator[None]:
    try:
        yield
    except VarlinkError as e:
        t.equal(e.errno, name, f"errno of '{e}'")
        return
    raise t.Failure(f"no {name}")


@t.case
def a_live_parameter_is_judged_by_both_halves_and_seen_by_the_guest() -> None:
    with engine() as (d, device, c):
        d.umdev("param", "set", device, "max_transfer=256")
        t.equal(get(c, LIMIT), 256, "LIMIT")
        for value, word in (("192", "power of two"), ("100", "64"), ("8192", "4096")):
            p = d.umdev("param", "set", device, f"max_transfer={value}", ok=False)
            t.check(p.returncode and word in p.stderr, f"max_transfer={value}: {p.stderr}")
        kill_worker(d, device)
        t.equal(get(c, LIMIT), 256, "LIMIT in the next life")


@t.case
def a_parents_setting_is_the_size_of_its_pool() -> None:
    with daemon() as d:
        d.umdev("parent", "add", "dma0", "driver=dma-engine", "channels=1")
        d.create("dma0", "dma-engine-1")
        with fails_with("ENOSPC"):
            d.create("dma0", "dma-engine-1")


@t.case
def a_peers_memory_is_reached_as_guest_memory_is() -> None:
    with daemon() as d:
        d.umdev("parent", "add", "dma0", "driver=dma-engine")
        group = "peer_to_peer_resource_uuid=11111111-2222-3333-4444-555555555555"
        a, b = (d.create("dma0", "dma-engine-1", group) for _ in range(2))
        with Client(d.socket(a)) as ca, Client(d.socket(b)) as cb:
            master(ca)
            info = cb.region_info(MEMORY)
            ca.dma_map(PEER, 65536, info.fds[0], info.offset)
            os.close(info.fds[0])
            ca.write(MEMORY, 0x40, b"from one to the other")
            command(ca, STORE, 0x40, PEER + 0x1234, 21)
            t.equal(get(ca, STATUS), 0, "STATUS")
            t.equal(cb.read(MEMORY, 0x1234, 21), b"from one to the other", "memory of the peer")


# ---- files that are refused ----

def bad_files(s: Sdk, folder: Path) -> dict[str, tuple[str, ...]]:
    """Makes each file; what its line in the log must name."""
    wrong = ("UMDEV_ABI", "(UMDEV_ABI + 6)")
    s.spoiled(folder / "abi.so", (PARENT, *wrong), (DEVICE, *wrong))
    s.spoiled(folder / "abi-device.so", (DEVICE, *wrong))
    s.spoiled(folder / "no-device.so", (DEVICE, "umdev_device_driver umdev_device_driver",
                                        "umdev_device_driver other_name"))
    s.spoiled(folder / "no-parent.so", (PARENT, "umdev_parent_driver umdev_parent_driver",
                                        "umdev_parent_driver other_name"))
    s.spoiled(folder / "no-half.so", (DEVICE, '.name = "1"', '.name = "2"'))
    s.spoiled(folder / "names.so", (DEVICE, '.name = "minimal"', '.name = "maximal"'))
    s.spoiled(folder / "taken.so", (PARENT, '.name = "minimal"', '.name = "mtty"'),
              (DEVICE, '.name = "minimal"', '.name = "mtty"'))
    s.spoiled(folder / "tables.so", (PARENT, '"misc"', '"nonsense"'))
    s.spoiled(folder / "undefined.so", (DEVICE, "umdev_intx_set(dev, false);",
                                        "umdev_no_such_call();"),
              (DEVICE, "#define N_REGS", "void umdev_no_such_call(void);\n#define N_REGS"))
    whole = (s.drivers / "minimal.so").read_bytes()
    (folder / "empty.so").write_bytes(b"")
    (folder / "text.so").write_text("no ELF at all\n" * 100)
    (folder / "half.so").write_bytes(whole[:len(whole) // 4])
    (folder / "zeroes.so").write_bytes(whole[:64] + bytes(len(whole) - 64))
    (folder / "folder.so").mkdir()
    os.mkfifo(folder / "fifo.so")
    (folder / "nowhere.so").symlink_to("/nonexistent")
    return {
        "abi.so": (f" {ABI + 6},", f" {ABI}:"),
        "abi-device.so": (f" {ABI + 6},", f" {ABI}:", "umdev_device_driver"),
        "no-device.so": ("umdev_device_driver",), "no-parent.so": ("umdev_parent_driver",),
        "no-half.so": ("'1'", "device half"), "names.so": ("'minimal'",),
        "taken.so": ("'mtty'", "built in"), "tables.so": ("minimal-1", "class"),
        "undefined.so": ("umdev_no_such_call",), "empty.so": ("shared object",),
        "text.so": ("shared object",), "half.so": ("not all of one",), "zeroes.so": (),
        "folder.so": ("regular file",), "fifo.so": ("regular file",),
        "nowhere.so": ("No such file",)}


@t.case
def files_that_cannot_be_used_are_named_with_the_reason_and_skipped() -> None:
    with t.TempDir() as folder:
        bad = bad_files(sdk(), folder)
        shutil.copy(sdk().drivers / "minimal.so", folder / "zz.so")
        shutil.copy(sdk().drivers / "minimal.so", folder / "zzz.so")
        bad["zzz.so"] = ("'minimal'", "zz.so")
        (folder / "readme.txt").write_text("not looked at")
        with minimal(folder) as (d, _, c):
            put(c, SCRATCH, 1)
            lines = [line for line in d.log().splitlines() if "skipped" in line]
            t.equal(len(lines), len(bad), f"files that were skipped: {lines}")
            for name, words in bad.items():
                mine = [line for line in lines if f"{folder}/{name} skipped: " in line]
                t.equal(len(mine), 1, f"lines about {name}")
                for word in words:
                    t.check(word in mine[0], f"{name}: no {word!r} in {mine[0]!r}")
            with d.varlink() as v:
                rows = v.call("Drivers")["drivers"]
            t.equal([r["file"] for r in rows if r.get("file")], [str(folder / "zz.so")], "files")


@t.case
def directories_are_searched_in_order_and_those_missing_are_no_matter() -> None:
    with t.TempDir() as folder:
        (folder / "a").mkdir()
        shutil.copy(sdk().drivers / "minimal.so", folder / "a/other-name.so")
        paths = f"{folder}/missing::{folder}/a:{sdk().drivers}"
        with Daemon("--debug", env={"UMDEV_DRIVERS": paths}) as d, d.varlink() as v:
            files = {r["name"]: r.get("file") for r in v.call("Drivers")["drivers"]}
            t.equal(files["minimal"], f"{folder}/a/other-name.so", "the first one")
            t.equal(files["dma-engine"], str(sdk().drivers / "dma-engine.so"), "the other driver")
            t.equal(d.log().count("skipped"), 1, f"skipped files: {d.log()}")


@t.case
def a_file_that_is_gone_when_a_client_comes_fails_the_device_until_it_is_back() -> None:
    with t.TempDir() as folder:
        good, path = sdk().drivers / "minimal.so", folder / "minimal.so"
        shutil.copy(good, path)
        with daemon(folder) as d:
            d.umdev("parent", "add", "m0", "driver=minimal")
            device = d.create("m0", "minimal-1")
            path.unlink()
            with Client(d.socket(device), hello=False) as c:
                t.check(c.is_closed(5), "the client is turned away")
            t.wait_for(lambda: d.state_of(device) == "failed", 5, "failed")
            with d.varlink() as v:
                text = v.call("Show", name=device)["device"]["error"]
            t.check("type 1 of driver minimal" in text, f"why: {text}")
            t.check(re.search(rf"umdev-worker: driver file {path} skipped: .*No such", d.log()),
                    f"log: {d.log()}")
            shutil.copy(good, path)
            for name in ("unbind", "bind"):
                with d.varlink() as v:
                    v.call("Write", path=f"/bus/mdev/drivers/minimal/{name}", value=device)
            with Client(d.socket(device)) as c:
                put(c, SCRATCH, 1)
                t.equal(get(c, COUNTER), 1, "COUNTER")


# ---- two halves in one file ----

@t.case
def a_file_that_binds_all_calls_at_once_loads_in_both_processes() -> None:
    with t.TempDir() as folder:
        source = t.ROOT / "examples/minimal"
        sdk().compile(folder / "minimal.so", source / PARENT, source / DEVICE,
                      flags="-Wl,-z,now -Wl,-z,relro -fno-plt")
        with minimal(folder) as (_, _, c):
            put(c, SCRATCH, 1)
            t.equal(get(c, COUNTER), 1, "COUNTER")


@t.case
def a_half_that_calls_the_other_halfs_functions_is_named() -> None:
    with t.TempDir() as folder:
        path = sdk().spoiled(
            folder / "confused.so",
            (PARENT, "#include <umdev/parent.h>",
             "#include <umdev/parent.h>\n#include <umdev/vfio.h>\n"
             "static int add(struct umdev_parent *p)\n"
             "{\n\tumdev_intx_set((struct umdev_device *)p, true);\n\treturn 0;\n}\n"),
            (PARENT, ".types = types", ".types = types, .add = add"))
        p = subprocess.run([program("umdevd"), "--one", "minimal", "1", "--socket", folder / "s"],
                           env=dict(os.environ, UMDEV_DRIVERS=str(folder),
                                    XDG_RUNTIME_DIR=str(folder)), text=True, capture_output=True,
                           timeout=20)
        t.equal(p.returncode, -signal.SIGABRT, "status")
        t.check(f"{path} calls in the wrong process what is for device halves" in p.stderr,
                f"the line: {p.stderr}")


# ---- the tutorial ----

@t.case
def code_in_the_tutorial_is_the_examples_code() -> None:
    text = (t.ROOT / "docs/writing-a-driver.md").read_text()
    sources = {p: p.read_text() for p in (t.ROOT / "examples").rglob("*") if p.is_file()}
    blocks = re.findall(r"^```(c|make|meson)\n(.*?)^```$", text, re.M | re.S)
    t.check(len(blocks) >= 8, f"only {len(blocks)} blocks of code")
    for _, block in blocks:
        t.check(any(block in s for s in sources.values()), f"in no example:\n{block}")
    for name in re.findall(r"\]\(\.\./(\S+?)\)", text):
        t.check((t.ROOT / name).exists(), f"link to {name}")


t.main()
