#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Volumes: made, resized and deleted through the tree and the command; whose they are; what a fresh
one reads. Needs no root, but for devices that are block devices."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon
from lib.sysfs import write_result

UUID = "d0000000-0000-4000-8000-000000000001"
OTHER = "d0000000-0000-4000-8000-000000000002"
MIB = 1 << 20


class Rig:
    """A umdevd with a parent `p` of driver disk, in one of its kinds of store."""

    def __init__(self, d: Daemon, *settings: str) -> None:
        self.d = d
        self.parent = d.sys / "class/mdev_bus/p"
        self.volumes = self.parent / "volumes"
        self.type = self.parent / "mdev_supported_types/disk-nvme"
        with d.varlink() as v:
            v.call("ParentAdd", name="p", driver="disk", settings=list(settings))

    def write(self, path: str, text: str) -> str:
        """errno's name, or "ok"."""
        r = write_result(self.parent / path, text)
        return "ok" if r.isdigit() else r

    def read(self, path: str) -> str:
        return (self.parent / path).read_text().removesuffix("\n")

    def names(self) -> list[str]:
        return sorted(n for n in os.listdir(self.volumes) if n != "create")

    def create(self, device: str = UUID, *settings: str) -> str:
        return self.write("mdev_supported_types/disk-nvme/create", ",".join([device, *settings]))

    def settled(self, names: list[str]) -> None:
        """What nobody waited for is done."""
        t.wait_for(lambda: self.names() == names and all(
            self.read(f"volumes/{n}/state") in ("ready", "broken") for n in names), 10,
            f"volumes {names}, not {self.names()}")


@contextlib.contextmanager
def store(**env: str) -> Iterator[tuple[Rig, Path]]:
    """A directory."""
    with Daemon(env=env) as d:
        path = d.dir / "store"
        path.mkdir()
        yield Rig(d, f"store={path}"), path


@contextlib.contextmanager
def device_files(n: int, size: int) -> Iterator[list[Path]]:
    """Block devices where we may have some, else files that stand for them; full of a pattern."""
    with t.TempDir() as folder, contextlib.ExitStack() as stack:
        paths = []
        for i in range(n):
            path = folder / f"disk{i}"
            path.write_bytes(b"\xa5" * size)
            paths.append(path)
            if os.geteuid() == 0 and shutil.which("losetup"):
                p = subprocess.run(["losetup", "--find", "--show", path], capture_output=True,
                                   text=True)
                if p.returncode == 0:
                    paths[-1] = Path(p.stdout.strip())
                    stack.callback(subprocess.run, ["losetup", "--detach", paths[-1]], check=True)
        yield paths


def content(path: Path, size: int, offset: int = 0) -> bytes:
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(size)


# ---- the tree and the command ----

@t.case
def a_volume_comes_grows_shrinks_and_goes() -> None:
    with store() as (r, path):
        t.equal(r.write("volumes/create", "data,size=16M"), "ok", "create")
        t.equal(r.names(), ["data"], "volumes")
        wanted = {"size": str(16 * MIB), "allocated": str(16 * MIB), "attached": "", "device": "",
                  "owner": "nobody", "progress": "100", "state": "ready", "thin": "no"}
        t.equal({f: r.read(f"volumes/data/{f}") for f in wanted}, wanted, "files")
        t.equal(sorted(os.listdir(path)), ["data.raw", "data.volume"], "store")
        t.equal(content(path / "data.raw", 17 * MIB), bytes(16 * MIB), "bytes")
        t.equal(r.write("volumes/data/size", "32M\n"), "ok", "grow")
        t.equal(r.read("volumes/data/size"), str(32 * MIB), "size")
        t.equal(r.write("volumes/data/size", "4096"), "ok", "shrink")
        t.equal((path / "data.raw").stat().st_size, 4096, "bytes")
        t.equal(r.write("volumes/data/delete", "1"), "ok", "delete")
        t.equal((r.names(), os.listdir(path)), ([], []), "volumes, store")
        t.equal(r.write("volumes/create", "thin,size=1G,thin=yes"), "ok", "create")
        t.equal((r.read("volumes/thin/allocated"), r.read("volumes/thin/size")), ("0", str(1 << 30)),
                "of a thin one")


@t.case
def the_command_does_the_same() -> None:
    with store() as (r, path):
        umdev = r.d.umdev
        umdev("volume", "create", "p", "data", "size=1M")
        umdev("volume", "create", "p", "thin", "size=1G", "thin=yes")
        umdev("volume", "resize", "p", "data", "2M")
        rows = json.loads(umdev("volume", "list", "-j").stdout)["volumes"]
        t.equal([(v["parent"], v["name"], v["size"], v["thin"], v["owner"], v["attached"])
                 for v in rows],
                [("p", "data", 2 * MIB, False, "nobody", []), ("p", "thin", 1 << 30, True, "nobody", [])],
                "list")
        lines = umdev("volume", "list", "p").stdout.splitlines()
        t.equal(lines[1].split(), ["p", "data", "2M", "2M", "no", "ready", "nobody", "-"], "table")
        t.equal(umdev("volume", "orphans").stdout.splitlines()[1:], [], "orphans")
        umdev("volume", "delete", "p", "data")
        p = umdev("volume", "delete", "p", "data", ok=False)
        t.equal(p.returncode, 3, "status of deleting what is not there")
        t.equal(r.names(), ["thin"], "volumes")


@t.case
def what_is_wrong_is_an_errno_and_a_line() -> None:
    with store() as (r, path):
        t.equal(r.write("volumes/create", "data,size=1M"), "ok", "create")
        t.equal(r.create(UUID, "volume=data"), "ok", "device")
        (path / "alien.raw").write_bytes(b"x")
        for file, text, wanted, line in (
                ("volumes/create", "data,size=1M", "EEXIST", "volume data exists already"),
                ("volumes/create", "x", "EINVAL", "size=SIZE is missing"),
                ("volumes/create", "x,size=1000", "EINVAL", "a size is a multiple of 4096"),
                ("volumes/create", "x,size=0", "EINVAL", "a size is a multiple of 4096"),
                ("volumes/create", "x,size=many", "EINVAL", "expected bytes"),
                ("volumes/create", "x,colour=red", "EINVAL", "NAME,size=SIZE[,thin=yes]"),
                ("volumes/create", "../x,size=1M", "EINVAL", "letters a-z"),
                ("volumes/create", f"{OTHER},size=1M", "EINVAL", "is a device's own"),
                ("volumes/create", "alien,size=1M", "EEXIST", "has files of a volume alien"),
                ("volumes/create", "x,size=900T", "ENOSPC", "has no room"),
                ("volumes/data/size", "1000", "EINVAL", "a size is a multiple of 4096"),
                ("volumes/data/size", "4096", "EBUSY", f"is attached to {UUID}"),
                ("volumes/data/delete", "1", "EBUSY", f"is attached to {UUID}"),
                ("volumes/data/delete", "yes", "EINVAL", "expected 1"),
                ("mdev_supported_types/disk-nvme/create", f"{OTHER},volume=data", "EBUSY",
                 f"is attached to {UUID}"),
                ("mdev_supported_types/disk-nvme/create", f"{OTHER},volume=none", "ENOENT",
                 "has no volume none"),
                ("mdev_supported_types/disk-nvme/create", f"{OTHER},capacity=1000", "EINVAL",
                 "a size is a multiple of 4096"),
                ("mdev_supported_types/disk-nvme/create", f"{OTHER},capacity=900T", "ENOSPC",
                 "has no room"),
                (f"{UUID}/vendor/assign_namespace", "none", "ENOENT", "has no volume none"),
                (f"{UUID}/vendor/assign_namespace", "data", "EBUSY", f"is attached to {UUID}"),
                (f"{UUID}/vendor/unassign_namespace", "none", "ENOENT", "is no namespace")):
            before = len(r.d.log())
            t.equal(r.write(file, text), wanted, f"{text!r} to {file}")
            said = r.d.log()[before:]
            t.check(line in said, f"{text!r} to {file}: {line!r} is not in {said!r}")
            t.equal(said.count("\n"), 1, f"lines of log for {text!r} to {file}")
        t.equal(r.names(), ["data"], "volumes")
        t.equal(sorted(os.listdir(path)), ["alien.raw", "data.raw", "data.volume"], "store")


@t.case
def a_parent_without_a_store_measures_only() -> None:
    with Daemon() as d:
        r = Rig(d)
        t.equal(r.write("volumes/create", "x,size=1M"), "ENOTSUP", "create")
        t.equal(r.create(UUID, "capacity=1M"), "EINVAL", "a volume of its own")
        t.equal(r.create(UUID, "capacity=1G", "media=null"), "ok", "null")
        t.equal(r.create(OTHER), "ok", "without namespaces")
        t.equal(r.write(f"{OTHER}/mdev/capacity/value", "1M"), "EINVAL", "capacity")
        for bad, line in (("store=/nonexistent", "store /nonexistent: No such file"),
                          ("devices=relative", "devices: at most 32 absolute paths"),
                          ("devices=/dev/null", "device /dev/null: Block device required")):
            p = d.umdev("parent", "add", "q", "driver=disk", bad, ok=False)
            t.check(p.returncode and line in p.stderr, f"{bad}: {p.stderr}")


# ---- whose they are ----

@t.case
def a_device_takes_its_volume_along() -> None:
    with store() as (r, path):
        t.equal(r.create(UUID, "capacity=1M"), "ok", "device")
        t.equal(r.read(f"volumes/{UUID}/owner"), "device", "owner")
        t.equal(r.read(f"{UUID}/vendor/namespaces"), f"1 {UUID} {MIB} idle", "namespaces")
        t.equal(r.write(f"volumes/{UUID}/size", "2M"), "ok", "grow")
        t.equal(r.read(f"{UUID}/mdev/capacity/value"), str(2 * MIB), "capacity")
        t.equal(r.write(f"{UUID}/mdev/capacity/value", "4M"), "ok", "capacity")
        t.equal(r.read(f"volumes/{UUID}/size"), str(4 * MIB), "size")
        t.equal(r.write(f"{UUID}/mdev/capacity/value", "1M"), "EBUSY", "shrink")
        t.equal(r.write(f"{UUID}/vendor/unassign_namespace", UUID), "EPERM", "unassign")
        t.equal(r.write(f"{UUID}/remove", "1"), "ok", "remove")
        r.settled([])
        t.equal(os.listdir(path), [], "store")
        # Given later, as a definition does.
        t.equal(r.create(UUID), "ok", "device")
        t.equal(r.write(f"{UUID}/mdev/capacity/value", "1M"), "ok", "capacity")
        t.equal(r.read(f"{UUID}/vendor/namespaces"), f"1 {UUID} {MIB} idle", "namespaces")
        t.equal(r.write(f"{UUID}/mdev/capacity/value", "900T"), "ENOSPC", "capacity")
        t.equal(r.read(f"{UUID}/mdev/capacity/value"), str(MIB), "capacity")
    t.equal(path.exists() and os.listdir(path), False, "store after SIGINT")


@t.case
def a_definition_keeps_its_volume() -> None:
    with store() as (r, path):
        umdev = r.d.umdev
        umdev("define", "-u", UUID, "-p", "p", "-t", "disk-nvme")
        umdev("modify", "-u", UUID, "--addattr=mdev/capacity/value", "--value=1M")
        umdev("start", "-u", UUID)
        t.equal(r.read(f"volumes/{UUID}/owner"), "definition", "owner")
        with open(path / f"{UUID}.raw", "r+b") as f:
            f.write(b"kept")
        umdev("stop", "-u", UUID)
        r.settled([UUID])
        t.equal(r.write(f"volumes/{UUID}/delete", "1"), "EBUSY", "delete")
        t.equal(r.write(f"volumes/{UUID}/size", "2M"), "ok", "grow")
        umdev("start", "-u", UUID)
        t.equal(r.read(f"{UUID}/mdev/capacity/value"), str(2 * MIB), "capacity")
        t.equal(content(path / f"{UUID}.raw", 4), b"kept", "bytes")
        umdev("stop", "-u", UUID)
        umdev("undefine", "-u", UUID)
        r.settled([])
        t.equal(os.listdir(path), [], "store")


@t.case
def a_leftover_is_listed_and_nothing_else() -> None:
    """The machine goes down: the device is gone, its volume is nobody's and stays."""
    with store() as (r, path):
        t.equal(r.create(UUID, "capacity=1M"), "ok", "device")
        with open(path / f"{UUID}.raw", "r+b") as f:
            f.write(b"secret")
        r.d.kill()
        r.d.unmount()
        shutil.rmtree(r.d.run)
        r.d.start()
        t.equal(r.read(f"volumes/{UUID}/owner"), "orphan", "owner")
        rows = json.loads(r.d.umdev("volume", "orphans", "-j").stdout)["volumes"]
        t.equal([v["name"] for v in rows], [UUID], "orphans")
        t.equal(r.create(UUID, "capacity=1M"), "EEXIST", "another device of that UUID")
        t.check("umdev volume delete" in r.d.log(), "the way out is told")
        t.equal(r.create(OTHER, f"volume={UUID}"), "ok", "attached by name")
        t.equal(content(path / f"{UUID}.raw", 6), b"secret", "bytes")
        t.equal(r.write(f"{OTHER}/remove", "1"), "ok", "remove")
        r.settled([UUID])
        t.equal(r.write(f"volumes/{UUID}/delete", "1"), "ok", "delete")
        t.equal(os.listdir(path), [], "store")


@t.case
def named_volumes_come_and_go_and_stay() -> None:
    with store() as (r, path):
        for name in ("one", "two"):
            t.equal(r.write("volumes/create", f"{name},size=1M"), "ok", "create")
        t.equal(r.create(UUID, "capacity=1M", "volume=one"), "ok", "device")
        t.equal(r.write(f"{UUID}/vendor/assign_namespace", "two\n"), "ok", "assign")
        t.equal(r.read("volumes/two/attached"), f"{UUID} 3", "attached")
        t.equal(r.read(f"{UUID}/vendor/volume/value"), f"{UUID}:one:two", "volume")
        t.equal(r.write(f"{UUID}/vendor/unassign_namespace", "one"), "ok", "unassign")
        t.equal(r.read(f"{UUID}/vendor/volume/value"), f"{UUID}::two", "volume: numbers stay")
        r.d.kill()
        r.d.start()
        t.equal(r.read(f"{UUID}/vendor/namespaces").splitlines(),
                [f"1 {UUID} {MIB} idle", f"3 two {MIB} idle"], "after a restart of umdevd")
        t.equal(r.write(f"{UUID}/vendor/assign_namespace", "one"), "ok", "assign")
        t.equal(r.read("volumes/one/attached"), f"{UUID} 2", "attached")
        t.equal(r.write(f"{UUID}/vendor/volume/value", f"{UUID}:two"), "ok", "all at once")
        t.equal(r.read("volumes/one/attached"), "", "attached")
        t.equal(r.write(f"{UUID}/vendor/volume/value", "two"), "EINVAL", "without its own")
        t.equal(r.read(f"{UUID}/vendor/namespaces").splitlines(),
                [f"1 {UUID} {MIB} idle", f"2 two {MIB} idle"], "namespaces")
        t.equal(r.write(f"{UUID}/remove", "1"), "ok", "remove")
        r.settled(["one", "two"])


@t.case
def readers_share_a_volume() -> None:
    with store() as (r, path):
        t.equal(r.write("volumes/create", "data,size=1M"), "ok", "create")
        for device in (UUID, OTHER):
            t.equal(r.create(device, "volume=data", "read_only=yes"), "ok", "device")
        t.equal(sorted(r.read("volumes/data/attached").splitlines()), [f"{UUID} 1", f"{OTHER} 1"],
                "attached")
        t.equal(r.write(f"{UUID}/mdev/read_only/value", "no"), "EBUSY", "a writer among them")
        t.equal(r.write(f"{OTHER}/remove", "1"), "ok", "remove")
        t.equal(r.write(f"{UUID}/mdev/read_only/value", "no"), "ok", "alone")
        t.equal(r.create(OTHER, "volume=data", "incoming=yes"), "ok", "one that waits")


# ---- old blocks ----

@t.case
def nobody_reads_what_was_there_before_in_a_directory() -> None:
    with store() as (r, path):
        for round_ in range(2):
            t.equal(r.write("volumes/create", "data,size=8M"), "ok", "create")
            t.equal(content(path / "data.raw", 8 * MIB), bytes(8 * MIB), "a fresh volume")
            (path / "data.raw").write_bytes(b"\x5a" * 8 * MIB)
            t.equal(r.write("volumes/data/size", "4M"), "ok", "shrink")
            t.equal(r.write("volumes/data/size", "8M"), "ok", "grow")
            t.equal(content(path / "data.raw", 4 * MIB, 4 * MIB), bytes(4 * MIB), "what came")
            t.equal(r.write("volumes/data/delete", "1"), "ok", "delete")


@t.case
def nobody_reads_what_was_there_before_on_a_device() -> None:
    size = 8 * MIB
    with device_files(2, size) as devices, Daemon() as d:
        r = Rig(d, "devices=" + ":".join(map(str, devices)))
        t.fact(f"devices {', '.join(map(str, devices))}")
        for thin in ("no", "yes", "no"):
            t.equal(r.write("volumes/create", f"a,size=4M,thin={thin}"), "ok", "create")
            device = Path(r.read("volumes/a/device"))
            t.check(device in devices, f"{device} is one of ours")
            t.equal(content(device, 4 * MIB), bytes(4 * MIB), "a fresh volume")
            t.check(any(content(device, 4 * MIB, 4 * MIB)), "what is behind it is not touched")
            with open(device, "r+b") as f:
                f.write(b"\x5a" * size)
            t.equal(r.write("volumes/a/size", "8M"), "ok", "grow")
            t.equal(content(device, 4 * MIB, 4 * MIB), bytes(4 * MIB), "what came")
            t.equal(content(device, 4 * MIB), b"\x5a" * 4 * MIB, "what was there")
            with open(device, "r+b") as f:
                f.write(b"\x5a" * size)
            t.equal(r.write("volumes/a/size", "16M"), "ENOSPC", "beyond the device")
            t.equal(r.write("volumes/a/delete", "1"), "ok", "delete")
        t.equal(r.write("volumes/create", "a"), "ok", "all of one")
        t.equal(r.create(UUID, "capacity=8M"), "ok", "the other")
        t.equal(r.write("volumes/create", "c"), "ENOSPC", "no third")
        r.d.kill()
        r.d.start()
        t.equal([(n, r.read(f"volumes/{n}/state")) for n in r.names()],
                [("a", "ready"), (UUID, "ready")], "after a restart")
        t.equal(r.write(f"{UUID}/remove", "1"), "ok", "remove")
        r.settled(["a"])
        t.equal(r.write("volumes/create", "c"), "ok", "its device is free again")


# ---- slow work ----

def slow(folder: Path) -> str:
    """A umdev-store that begins when a file `go` is there."""
    real = t.BUILD / "src/store/umdev-store"
    script = folder / "umdev-store"
    script.write_text(f"#!/bin/sh\nwhile ! [ -e {folder}/go ]; do sleep 0.02; done\n"
                      f"exec {real} \"$@\"\n")
    script.chmod(0o755)
    return str(script)


class Writer(threading.Thread):
    """Somebody who waits for the answer."""

    def __init__(self, r: Rig, path: str, text: str) -> None:
        super().__init__()
        self.call = lambda: r.write(path, text)
        self.said = ""
        self.start()

    def run(self) -> None:
        self.said = self.call()


@t.case
def slow_work_holds_up_nobody() -> None:
    with t.TempDir() as folder, store(UMDEV_STORE=slow(folder)) as (r, path):
        writer = Writer(r, "volumes/create", "data,size=1M")
        t.wait_for(lambda: r.names() == ["data"], 5, "the volume that is being made")
        t.equal((r.read("volumes/data/state"), r.read("volumes/data/progress")), ("making", "0"),
                "state, progress")
        start = time.monotonic()
        t.equal(r.write("volumes/data/delete", "1"), "EBUSY", "delete")
        t.equal(r.create(UUID, "volume=data"), "EBUSY", "attach")
        t.equal(r.create(UUID, "media=null", "capacity=1M"), "ok", "another device")
        t.check(time.monotonic() - start < 2, "umdevd answers meanwhile")
        t.check(writer.is_alive(), "its writer waits")
        second = Writer(r, "mdev_supported_types/disk-nvme/create", f"{OTHER},capacity=1M")
        t.wait_for(lambda: OTHER in r.names(), 5, "its own volume")
        t.equal((r.parent / OTHER).exists(), False, "a device that is not complete")
        t.equal(r.create(OTHER), "EEXIST", "its UUID is taken")
        with r.d.varlink() as v:
            t.equal([x["uuid"] for x in v.call("List")["devices"]], [UUID], "list")
        (folder / "go").touch()
        for w in (writer, second):
            w.join(20)
            t.equal(w.said, "ok", "answer")
        t.equal(r.read(f"{OTHER}/vendor/namespaces"), f"1 {OTHER} {MIB} idle", "namespaces")


@t.case
def who_stops_waiting_does_not_stop_the_work() -> None:
    with t.TempDir() as folder, store(UMDEV_STORE=slow(folder)) as (r, path):
        p = subprocess.Popen([str(t.BUILD / "src/cli/umdev"), "volume", "create", "p", "data",
                              "size=1M"], env=r.d.env)
        t.wait_for(lambda: r.names() == ["data"], 5, "the volume that is being made")
        p.terminate()
        p.wait(5)
        (folder / "go").touch()
        r.settled(["data"])


@t.case
def work_that_is_killed_leaves_nothing() -> None:
    with t.TempDir() as folder, store(UMDEV_STORE=slow(folder)) as (r, path):
        writer = Writer(r, "volumes/create", "data,size=1M")
        t.wait_for(lambda: r.names() == ["data"], 5, "the volume that is being made")
        children = Path(f"/proc/{r.d.process.pid}/task/{r.d.process.pid}/children")
        for pid in children.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        (folder / "go").touch()
        writer.join(10)
        t.equal(writer.said, "EIO", "answer")
        r.settled([])
        t.equal(os.listdir(path), [], "store")


@t.case
def what_a_umdevd_left_half_made_is_cleaned() -> None:
    with t.TempDir() as folder, store(UMDEV_STORE=slow(folder)) as (r, path):
        (folder / "go").touch()
        t.equal(r.write("volumes/create", "data,size=1M"), "ok", "create")
        (folder / "go").unlink()
        for name in ("half", "going"):
            (path / f"{name}.raw").write_bytes(b"x" * 4096)
        (path / "half.making").touch()
        (path / "going.deleting").touch()
        (path / "lost.raw").write_bytes(b"x")  # of nobody that we know
        (path / "empty.volume").touch()
        r.d.kill()
        r.d.start()
        t.equal([(n, r.read(f"volumes/{n}/state")) for n in r.names()],
                [("data", "ready"), ("empty", "broken"), ("going", "deleting"),
                 ("half", "deleting"), ("lost", "broken")], "volumes")
        (folder / "go").touch()
        r.settled(["data", "empty", "lost"])
        rows = json.loads(r.d.umdev("volume", "orphans", "-j").stdout)["volumes"]
        t.equal([v["name"] for v in rows], ["empty", "lost"], "orphans")
        t.equal(r.create(UUID, "volume=lost"), "EIO", "attach")
        for name in ("empty", "lost", "data"):
            t.equal(r.write(f"volumes/{name}/delete", "1"), "ok", "delete")
        t.equal(os.listdir(path), [], "store")


@t.case
def another_program_that_has_the_volume_keeps_it() -> None:
    with store() as (r, path):
        t.equal(r.write("volumes/create", "data,size=1M"), "ok", "create")
        with open(path / "data.raw", "r+b") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            t.equal(r.write("volumes/data/delete", "1"), "EBUSY", "delete")
            t.equal(r.write("volumes/data/size", "4096"), "EBUSY", "shrink")
            t.equal(r.read("volumes/data/state"), "ready", "state")
        t.equal(r.write("volumes/data/delete", "1"), "ok", "delete")


t.main()
