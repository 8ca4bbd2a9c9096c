#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Rules of docs/abi.md, errno by errno, through system calls on the mounted tree of umdevd."""
from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from lib import t, vfio_user
from lib.daemon import Daemon, program
from lib.sysfs import open_result, result, write_result
from lib.vfio_user import Client

UUID = "c0000000-0000-4000-8000-000000000001"
OTHER = "c0000000-0000-4000-8000-000000000002"
KINDS = ("mtty-1", "mtty-2")


@contextlib.contextmanager
def card(*settings: str) -> Iterator[Daemon]:
    with Daemon() as d:
        d.add_card("card0", *settings)
        yield d


@contextlib.contextmanager
def device(*settings: str) -> Iterator[tuple[Daemon, Path]]:
    """A device with one port, and D."""
    with card(*settings) as d:
        t.equal(write_result(type_dir(d) / "create", UUID), "36", "create")
        yield d, (d.sys / "bus/mdev/devices" / UUID).resolve()


def type_dir(d: Daemon, kind: str = "mtty-1") -> Path:
    return d.sys / "devices/virtual/mtty/card0/mdev_supported_types" / kind


def link(d: Daemon) -> Path:
    return d.sys / "bus/mdev/devices" / UUID


def available(d: Daemon) -> int:
    return int((type_dir(d) / "available_instances").read_text())


def devices(d: Daemon) -> list[str]:
    return os.listdir(d.sys / "bus/mdev/devices")


@contextlib.contextmanager
def client(d: Daemon) -> Iterator[Client]:
    """Holds the device."""
    program("umdev-worker")
    with Client(d.socket(UUID)) as c:
        t.wait_for(lambda: d.state_of(UUID) == "connected", 5, "the client")
        yield c


class Writer(threading.Thread):
    """One write(2) that may sleep."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(daemon=True)
        self.path, self.text, self.answer = path, text, ""
        self.start()

    def run(self) -> None:
        self.answer = write_result(self.path, self.text)

    def wait(self) -> str:
        self.join(10)
        t.check(not self.is_alive(), "the write sleeps on")
        return self.answer


# ---- common rules ----

@t.case
def files_open_only_as_their_mode_says() -> None:
    with device() as (d, path):
        kind = type_dir(d)
        for f in (kind / "create", path / "remove"):
            for flags in (os.O_RDONLY, os.O_RDWR):
                t.equal(open_result(f, flags), "EACCES", f"open of {f.name} for reading")
            t.equal(open_result(f, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "ok", f.name)
        for f in (kind / "name", kind / "available_instances"):
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
                t.equal(open_result(f, flags), "EACCES", f"open of {f.name} for writing")
        t.equal(open_result(kind / "nosuch", os.O_WRONLY | os.O_CREAT), "EACCES", "O_CREAT")
        t.equal(open_result(kind / "nosuch", os.O_WRONLY), "ENOENT", "open")
        t.equal(open_result(kind, os.O_WRONLY), "EISDIR", "open of a directory")


@t.case
def nothing_can_be_made_or_unmade() -> None:
    with device() as (d, path):
        new = path / "new"
        for what, call in {
                "mkdir": lambda: os.mkdir(new), "rmdir": lambda: os.rmdir(path / "power"),
                "unlink": lambda: os.unlink(path / "mdev_type"),
                "unlink of a file": lambda: os.unlink(path / "remove"),
                "symlink": lambda: os.symlink("x", new),
                "link": lambda: os.link(path / "uevent", new),
                "rename": lambda: os.rename(path / "uevent", new),
                "mkfifo": lambda: os.mkfifo(new)}.items():
            t.equal(result(call), "EPERM", what)
        t.equal(result(lambda: os.rmdir(path / "mdev_type")), "ENOTDIR", "rmdir of a link")
        t.equal(result(lambda: os.mkdir(path / "power")), "EEXIST", "mkdir")


@t.case
def sizes_are_4096_for_ever() -> None:
    with device() as (d, path):
        fd = os.open(type_dir(d) / "create", os.O_WRONLY | os.O_TRUNC)
        os.ftruncate(fd, 7)
        t.equal(os.fstat(fd).st_size, 4096, "size after ftruncate")
        os.close(fd)
        os.truncate(path / "uevent", 0)
        st = os.stat(path / "uevent")
        t.equal((st.st_size, st.st_blocks, st.st_blksize, st.st_nlink), (4096, 0, 4096, 1), "stat")
        if os.geteuid() == 0:  # the record: root may "truncate" a 0444 file
            os.truncate(type_dir(d) / "name", 0)
        t.equal(os.listxattr(path / "uevent"), [], "extended attributes")


@t.case
def a_read_gives_out_pieces_of_one_text() -> None:
    with card() as d:
        fd = os.open(type_dir(d) / "name", os.O_RDONLY)
        t.equal(os.read(fd, 3), b"Sin", "first bytes")
        t.equal(os.read(fd, 100), b"gle port serial\n", "the rest")
        t.equal(os.read(fd, 100), b"", "end")
        t.equal(os.pread(fd, 100, 7), b"port serial\n", "pread")
        t.equal(os.pread(fd, 100, 4000), b"", "pread behind the end")
        t.equal(result(lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)), "ENODEV",
                "mmap")
        os.close(fd)


@t.case
def a_text_is_made_anew_at_offset_0() -> None:
    with card() as d:
        fd = os.open(type_dir(d) / "available_instances", os.O_RDONLY)
        t.equal(os.read(fd, 1), b"2", "first byte")
        t.equal(write_result(type_dir(d) / "create", UUID), "36", "create")
        t.equal(os.read(fd, 9), b"4\n", "the rest of the text of then")
        t.equal(os.pread(fd, 9, 0), b"23\n", "from the beginning")
        os.close(fd)


@t.case
def one_write_is_one_value() -> None:
    with card() as d:
        fd = os.open(type_dir(d) / "create", os.O_WRONLY)
        t.equal(os.pwrite(fd, UUID.encode(), 10), 36, "pwrite at an offset")
        t.equal(result(lambda: os.write(fd, OTHER[:20].encode())), "EINVAL", "first half")
        t.equal(result(lambda: os.write(fd, OTHER[20:].encode())), "EINVAL", "second half")
        t.equal(os.write(fd, b""), 0, "nothing")
        t.equal(result(lambda: os.write(fd, b"x" * 70000)), "EINVAL", "70000 bytes")
        t.equal(devices(d), [UUID], "devices")
        os.close(fd)


@t.case
def descriptors_of_what_is_gone_are_ENODEV() -> None:
    with device() as (d, path):
        uevent = os.open(path / "uevent", os.O_RDWR)
        remove = os.open(path / "remove", os.O_WRONLY)
        create = os.open(type_dir(d) / "create", os.O_WRONLY)
        left = os.open(type_dir(d) / "available_instances", os.O_RDONLY)
        t.equal(os.write(remove, b"1"), 1, "remove")
        t.equal(result(lambda: os.read(uevent, 10)), "ENODEV", "read")
        t.equal(result(lambda: os.write(uevent, b"add")), "ENODEV", "write")
        t.equal(result(lambda: os.write(remove, b"1")), "ENODEV", "second remove")
        t.equal(open_result(path / "uevent", os.O_RDONLY), "ENOENT", "open")
        with d.varlink() as v:
            v.call("ParentRemove", name="card0")
        t.equal(result(lambda: os.write(create, UUID.encode())), "ENODEV", "create")
        t.equal(result(lambda: os.read(left, 10)), "ENODEV", "available_instances")
        for fd in (uevent, remove, create, left):
            os.close(fd)


@t.case
def create_can_be_given_to_a_user() -> None:
    if os.geteuid() != 0:
        t.skip("needs root: it gives files away")
    with card() as d:
        create = type_dir(d) / "create"
        d.dir.chmod(0o755)
        os.chown(create, 1000, -1)
        create.chmod(0o220)
        st = os.stat(create)
        t.equal((st.st_mode & 0o777, st.st_uid), (0o220, 1000), "mode and owner")

        def as_user(uid: int, path: Path, text: str) -> str:
            command = ("import os,sys; fd = os.open(sys.argv[1], os.O_WRONLY);"
                       "os.write(fd, sys.argv[2].encode())")
            p = subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
                                "/usr/bin/python3", "-c", command, str(path), text],
                               capture_output=True, text=True, timeout=20)
            return p.stderr.strip().splitlines()[-1].split(":")[0] if p.returncode else "ok"

        t.equal(as_user(1001, create, UUID), "PermissionError", "create by another")
        t.equal(as_user(1000, create, UUID), "ok", "create by the owner")
        t.equal(as_user(1000, link(d) / "remove", "1"), "PermissionError", "remove")
        t.equal(write_result(link(d) / "remove", "1"), "1", "remove by root")


# ---- create ----

@t.case
def a_uuid_is_unique_in_the_whole_tree() -> None:
    with device() as (d, _):
        d.add_card("card1")
        for parent in ("card0", "card1"):
            for kind in KINDS:
                create = d.sys / f"class/mdev_bus/{parent}/mdev_supported_types/{kind}/create"
                t.equal(write_result(create, UUID.upper()), "EEXIST", f"{parent} {kind}")


@t.case
def what_is_refused_at_create_leaves_nothing() -> None:
    wanted = {"nosuch=1": "EINVAL", "label": "EINVAL", "label=a,label=b": "EINVAL", "": "EINVAL",
              "=x": "EINVAL", "backend=nosuch": "ERANGE", "num_ports=1": "EACCES",
              "aggregate=3": "ERANGE", "label=a\nb": "EINVAL", "label=" + "x" * 300: "EINVAL",
              "label=" + "x" * 4100: "EINVAL"}
    with card() as d:
        for settings, error in wanted.items():
            got = write_result(type_dir(d) / "create", f"{UUID},{settings} "[:-1])
            t.equal(got, error if settings else "37", f"create with {settings[:20]!r}")
            if not settings:  # a 37th byte is not looked at, even if it is a comma
                t.equal(write_result(link(d) / "remove", "1"), "1", "remove")
            t.equal((devices(d), available(d)), ([], 24), f"after {settings[:20]!r}")
        text = f"{UUID},label=web,backend=none\n"
        t.equal(write_result(type_dir(d) / "create", text), str(len(text)), "create")
        t.equal((link(d) / "mdev/label/value").read_text(), "web\n", "label")


@t.case
def parameters_off_knows_no_settings() -> None:
    with card("params=off") as d:
        for settings in ("label=a", "aggregate=2"):
            t.equal(write_result(type_dir(d) / "create", f"{UUID},{settings}"), "EINVAL", settings)
        t.equal(devices(d), [], "devices")


# ---- parameters ----

@t.case
def a_value_is_judged_in_the_order_of_the_sheet() -> None:
    with device() as (d, path):
        backend = path / "mdev/backend/value"
        for text, wanted in {"none": "4", "none\n": "5", "nosuch": "ERANGE", "no\nne": "EINVAL",
                             "none\n\n": "EINVAL"}.items():
            t.equal(write_result(backend, text), wanted, f"write of {text!r}")
        t.equal(backend.read_text(), "none\n", "value")
        t.equal(open_result(path / "mdev/num_ports/value", os.O_WRONLY), "EACCES", "num_ports")
        with client(d):
            t.equal(write_result(backend, "pty"), "EBUSY", "write while connected")
            t.equal(write_result(backend, "nosuch"), "EBUSY", "a busy device says so first")
            t.equal(write_result(backend, "none\n"), "5", "the same value while connected")
            t.equal(write_result(path / "mdev/label/value", "web"), "3", "a live parameter")
        t.wait_for(lambda: d.state_of(UUID) == "idle", 5, "the end of the client")
        t.equal(write_result(backend, "pty"), "3", "write afterwards")


# ---- remove ----

@t.case
def a_device_in_use_is_EBUSY() -> None:
    with device() as (d, path):
        with client(d):
            t.equal(write_result(path / "remove", "1"), "EBUSY", "remove")
            t.equal(write_result(path / "remove", "0"), "1", "remove with 0")
            unbind = d.sys / "bus/mdev/drivers/mtty/unbind"
            t.equal(write_result(unbind, UUID), "EBUSY", "unbind")
            t.equal((devices(d), available(d)), ([UUID], 23), "devices")
        t.wait_for(lambda: d.state_of(UUID) == "idle", 5, "the end of the client")
        t.equal(write_result(path / "remove", "1"), "1", "remove")
        t.equal((devices(d), available(d)), ([], 24), "devices")


@t.case
def a_removal_that_waits_is_that_of_new_kernels() -> None:
    with device("remove=wait", "params=off") as (d, path):
        second = os.open(path / "remove", os.O_WRONLY)
        group = (path / "iommu_group").resolve()
        with client(d) as c:
            please_go = c.arm(vfio_user.REQ)
            writer = Writer(path / "remove", "1")
            t.wait_for(lambda: not os.path.lexists(link(d)), 5, "the end of the bus link")
            t.equal(open_result(path / "remove", os.O_WRONLY), "ENOENT", "remove")
            t.equal(os.listdir(type_dir(d) / "devices"), [], "links of the type")
            t.equal(available(d), 23, "available_instances")
            t.check(group.is_dir(), "the group is gone")
            t.equal(write_result(type_dir(d) / "create", UUID), "EEXIST", "create")
            t.equal(result(lambda: os.write(second, b"1")), "ENODEV", "a second writer")
            t.equal(please_go.wait(), 1, "requests to release the device")
            please_go.close()
            c.info()  # it is served on
            t.check(writer.is_alive(), "the write did not wait")
        t.equal(writer.wait(), "1", "remove")
        t.check(not path.exists() and not group.exists(), "something is left")
        t.equal(available(d), 24, "available_instances")
        t.equal(result(lambda: os.write(second, b"1")), "ENODEV", "a late writer")
        os.close(second)
        t.equal(write_result(type_dir(d) / "create", UUID), "36", "create")


@t.case
def a_signal_ends_the_wait_and_not_the_removal() -> None:
    with device("remove=wait") as (d, path):
        with client(d):
            p = subprocess.Popen(["/bin/sh", "-c", "echo 1 > $0", str(path / "remove")])
            t.wait_for(lambda: not os.path.lexists(link(d)), 5, "the end of the bus link")
            p.send_signal(signal.SIGKILL)
            p.wait(5)
            t.check(path.is_dir(), "the device went with its writer")
        t.wait_for(lambda: not path.exists(), 5, "the removal")


# ---- events ----

@t.case
def events_come_in_the_order_of_the_kernel() -> None:
    with Daemon() as d, d.varlink() as v:
        events = v.stream("Monitor")
        t.equal(next(events).get("event"), None, "first reply")
        d.add_card("card0", "params=off")
        t.equal(write_result(type_dir(d) / "create", UUID), "36", "create")
        t.equal(write_result(link(d) / "uevent", f"change {OTHER} A=b"), "47", "uevent")
        t.equal(write_result(link(d) / "remove", "1"), "1", "remove")
        with d.varlink() as other:
            other.call("ParentRemove", name="card0")
        seen = []
        while not seen or seen[-1][0] != "parent_removed":
            e = next(events)["event"]
            if e["what"] != "state":
                seen.append((e["what"], e.get("uuid"), e["path"]))
        parent = "/devices/virtual/mtty/card0"
        path = f"{parent}/{UUID}"
        t.equal(seen, [("parent_added", None, parent), ("added", UUID, path),
                       ("bound", UUID, path), ("uevent", UUID, path), ("unbound", UUID, path),
                       ("removed", UUID, path), ("parent_removed", None, parent)], "events")


t.main()
