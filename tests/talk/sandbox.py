#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A worker whose device half is in the hands of its guest: it tries what an exploit would, from
inside a hook. Nothing succeeds, the device lives, and its neighbours do not notice.

The numbers are those of x86-64.
"""
from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, parent_of, worker_of
from lib.vfio_user import Client, Ram

# Registers, src/drivers/test/evil.h.
CALL, ARG, POINTERS, RESULT, ADDRESS, GO, BUFFER = 0, 8, 0x38, 0x40, 0x48, 0x50, 0x800
UNTOUCHED = 0x7fff_0000_0000_0000
SCR = 7  # a register of the witness
AT_FDCWD, O_CREAT = -100, 0o100
CHANNEL, STATE = 3, 5  # descriptors that every worker has

NR = dict(
    read=0, write=1, open=2, mmap=9, mprotect=10, ioctl=16, shmget=29, getpid=39, socket=41,
    connect=42, bind=49, socketpair=53, clone=56, fork=57, vfork=58, execve=59, kill=62, fcntl=72,
    truncate=76, rename=82, mkdir=83, creat=85, link=86, unlink=87, symlink=88, chmod=90, fchmod=91,
    chown=92, fchown=93, ptrace=101, setuid=105, mknod=133, personality=135, prctl=157, chroot=161,
    mount=165, umount2=166, init_module=175, tkill=200, io_submit=209, io_uring_enter=426,
    rt_sigqueueinfo=129, tgkill=234, mq_open=240, add_key=248, keyctl=250, inotify_init1=294,
    openat=257, unshare=272, perf_event_open=298, prlimit64=302, open_by_handle_at=304, setns=308,
    process_vm_readv=310, process_vm_writev=311, finit_module=313, seccomp=317, memfd_create=319,
    bpf=321, execveat=322, userfaultfd=323, pkey_mprotect=329, pidfd_send_signal=424,
    pread64=17, pwrite64=18, readlink=89, io_uring_setup=425, io_uring_register=427, open_tree=428, fsopen=430, pidfd_open=434, clone3=435,
    openat2=437, pidfd_getfd=438, process_madvise=440, quotactl_fd=443)

REFUSED = {errno.EPERM, errno.EACCES}


class Exploit:
    """Code that runs inside a worker."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def _set(self, register: int, value: int) -> None:
        self.client.write(0, register, struct.pack("<Q", value & (1 << 64) - 1))

    def _get(self, register: int) -> int:
        return struct.unpack("<q", self.client.read(0, register, 8))[0]

    def address(self) -> int:
        """Of the buffer, in the life that answers."""
        return self._get(ADDRESS)

    def put(self, offset: int, data: bytes) -> None:
        data += b"\0" * (-len(data) % 8)
        for i in range(0, len(data), 8):
            self.client.write(0, BUFFER + offset + i, data[i:i + 8])

    def get(self, offset: int, size: int) -> bytes:
        return b"".join(self.client.read(0, BUFFER + offset + i, 8) for i in range(0, size, 8))[:size]

    def call(self, name: str, *arguments: int | bytes) -> int:
        """What the call gave (-errno), or UNTOUCHED when the worker died of it. Bytes are passed
        by address."""
        pointers, at = 0, 1024
        for i in range(6):
            value = arguments[i] if i < len(arguments) else 0
            if isinstance(value, bytes):
                self.put(at, value)
                pointers |= 1 << i
                at, value = at + len(value) + 8 & ~7, at
            self._set(ARG + 8 * i, value)
        self._set(CALL, NR[name])
        self._set(POINTERS, pointers)
        self._set(RESULT, UNTOUCHED)
        self._set(GO, 1)
        return self._get(RESULT)


class Scene:
    """A daemon, a witness in another group, and its processes as targets."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.secret = daemon.dir / "secret"
        self.secret.write_text("secret")
        self.witness_id = daemon.create("card0", "mtty-1")
        self.witness = Client(daemon.socket(self.witness_id))
        self.witness.write(0, SCR, b"\x42")
        assert daemon.process
        other = worker_of(daemon, self.witness_id)
        self.targets = {"umdevd": daemon.process.pid, "the other worker": other,
                        "the other keeper": parent_of(other)}

    @contextlib.contextmanager
    def exploit(self, *settings: str) -> Iterator[tuple[Exploit, str]]:
        device = self.daemon.create("lab", "test-evil", *settings)
        with Client(self.daemon.socket(device)) as c:
            yield Exploit(c), device

    def check(self) -> None:
        t.equal(self.witness.read(0, SCR, 1), b"\x42", "scratch register of the witness")
        t.equal(worker_of(self.daemon, self.witness_id), self.targets["the other worker"],
                "pid of the worker of the witness")
        t.equal(self.secret.read_text(), "secret", "the file")
        t.equal(self.secret.stat().st_mode & 0o777, 0o644, "mode of the file")


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    if platform.machine() != "x86_64":
        t.skip("the numbers of system calls are those of x86-64")
    old = os.umask(0o022)
    try:
        with Daemon(env={"UMDEV_TEST_EVIL": "1"}) as d:
            with d.varlink() as v:
                v.call("ParentAdd", name="lab", driver="test", settings=[])
            d.add_card()
            s = Scene(d)
            with s.witness:
                yield s
                s.check()
    finally:
        os.umask(old)


def path(p: Path | str) -> bytes:
    return os.fsencode(p) + b"\0"


def unix_address(p: Path) -> bytes:
    return struct.pack("<H", socket.AF_UNIX) + path(p)


def refused(e: Exploit, name: str, *arguments: int | bytes) -> None:
    result = e.call(name, *arguments)
    t.check(-result in REFUSED, f"{name}{arguments}: gave {result}, not EPERM")


@t.case
def evil_is_made_for_tests_only() -> None:
    with Daemon() as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="lab", driver="test", settings=[])
        p = d.umdev("create", "-p", "lab", "-t", "test-evil", ok=False)
        t.check(p.returncode != 0 and "UMDEV_TEST_EVIL" in p.stderr, f"said: {p.stderr!r}")


@t.case
def the_stand_in_can_make_calls() -> None:
    with scene() as s, s.exploit() as (e, device):
        t.equal(e.call("getpid"), worker_of(s.daemon, device), "getpid()")
        t.equal(e.call("write", 9999, b"x", 1), -errno.EBADF, "write() to nowhere")
        t.equal(e.call("memfd_create", b"x\0", 1) >= 0, True, "memfd_create()")


@t.case
def no_path_is_opened_made_or_changed() -> None:
    with scene() as s, s.exploit() as (e, _):
        new = path(s.daemon.dir / "new")
        for p in ("/etc/passwd", s.secret, "/dev/null", "/proc/self/mem", "/proc/self/fd/5", "/",
                  *(f"/proc/{pid}/mem" for pid in s.targets.values())):
            for name, arguments in (("open", ()), ("openat", None)):
                for flags in (0, 2):
                    if arguments is None:
                        refused(e, name, AT_FDCWD, path(p), flags)
                    else:
                        refused(e, name, path(p), flags)
        refused(e, "openat", AT_FDCWD, new, O_CREAT | 1, 0o600)
        refused(e, "openat2", AT_FDCWD, path(s.secret), b"\0" * 24, 24)
        refused(e, "creat", new, 0o600)
        refused(e, "mkdir", new, 0o700)
        refused(e, "mknod", new, 0o010600, 0)
        refused(e, "truncate", path(s.secret), 0)
        for name in ("rename", "link", "symlink"):
            refused(e, name, path(s.secret), new)
        refused(e, "unlink", path(s.secret))
        refused(e, "chmod", path(s.secret), 0o777)
        refused(e, "chown", path(s.secret), 1, 1)
        refused(e, "fchmod", STATE, 0o777)
        refused(e, "fchown", STATE, 1, 1)
        refused(e, "inotify_init1", 0)
        t.check(not (s.daemon.dir / "new").exists(), "something was made")


@t.case
def no_socket_is_made_or_connected() -> None:
    with scene() as s, s.exploit() as (e, _):
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
            for kind in (1, 2, 3):
                refused(e, "socket", family, kind, 0)
        refused(e, "socketpair", socket.AF_UNIX, 1, 0, b"\0" * 8)
        for p in (s.daemon.control, s.daemon.socket(s.witness_id), *s.daemon.run.glob("worker/*")):
            address = unix_address(p)
            refused(e, "connect", CHANNEL, address, len(address) - 1)
        refused(e, "bind", CHANNEL, unix_address(s.daemon.dir / "new"), 20)
        refused(e, "mq_open", b"/x\0", O_CREAT | 2, 0o600, 0)
        refused(e, "shmget", 42, 4096, 0o1600)


@t.case
def no_other_process_is_signalled() -> None:
    with scene() as s, s.exploit() as (e, device):
        mine = worker_of(s.daemon, device)
        for pid in (*s.targets.values(), parent_of(mine), os.getpid(), -1, 1):
            for name, arguments in (("kill", (pid, 9)), ("tkill", (pid, 9)), ("tgkill", (pid, pid, 9)),
                                    ("rt_sigqueueinfo", (pid, 9, b"\0" * 128))):
                refused(e, name, *arguments)
            refused(e, "pidfd_open", pid, 0)
            refused(e, "prlimit64", pid, 7, b"\0" * 16, 0)
            refused(e, "fcntl", CHANNEL, 8, pid)  # F_SETOWN: signals by input
        refused(e, "pidfd_send_signal", CHANNEL, 9, 0, 0)
        refused(e, "tgkill", -1, mine, 9)


@t.case
def no_process_and_no_code_is_made() -> None:
    with scene() as s, s.exploit() as (e, _):
        refused(e, "clone", 17)
        refused(e, "clone", 0x10f00, e.address())
        refused(e, "clone3", b"\0" * 88, 88)
        for prot in (4, 5, 7):
            refused(e, "mmap", 0, 4096, prot, 0x22, -1, 0)
            refused(e, "mmap", 0, 4096, prot, 1, STATE, 0)
            refused(e, "mprotect", e.address() & ~4095, 4096, prot)
            refused(e, "pkey_mprotect", e.address() & ~4095, 4096, prot, -1)


@t.case
def no_right_is_taken_back() -> None:
    with scene() as s, s.exploit() as (e, _):
        refused(e, "setuid", 0)
        for option in (4, 8, 22, 23, 24, 38, 47):  # dumpable, keep caps, seccomp, ...
            refused(e, "prctl", option, 1, 0, 0, 0)
        refused(e, "seccomp", 1, 0, b"\0" * 16)
        refused(e, "ioctl", CHANNEL, 0x5412, b"x")  # TIOCSTI
        refused(e, "io_uring_setup", 8, b"\0" * 120)
        refused(e, "io_submit", 0, 1, e.address())
        refused(e, "quotactl_fd", STATE, 0, 0, 0)
        t.equal(e.call("io_uring_enter", CHANNEL, 1, 0, 0, 0, 0) < 0, True, "ring of no ring")


@t.case
def what_only_an_exploit_does_ends_the_worker() -> None:
    program = path(sys.executable)
    with scene() as s:
        other = s.targets["the other worker"]
        for name, arguments in {
                "execve": (program, 0, 0), "execveat": (STATE, b"\0", 0, 0, 0x1000),
                "fork": (), "vfork": (), "ptrace": (16, other, 0, 0),
                "process_vm_readv": (other, b"\0" * 16, 1, b"\0" * 16, 1, 0),
                "process_vm_writev": (s.targets["umdevd"], b"\0" * 16, 1, b"\0" * 16, 1, 0),
                "process_madvise": (CHANNEL, b"\0" * 16, 1, 4, 0), "pidfd_getfd": (CHANNEL, 3, 0),
                "mount": (b"x\0", path(s.daemon.dir), b"tmpfs\0", 0, 0),
                "umount2": (path(s.daemon.sys), 2), "setns": (STATE, 0), "unshare": (0x10000000,),
                "chroot": (path(s.daemon.dir),), "open_tree": (AT_FDCWD, b"/\0", 0),
                "fsopen": (b"tmpfs\0", 0), "open_by_handle_at": (AT_FDCWD, b"\0" * 16, 0),
                "bpf": (0, b"\0" * 72, 72), "init_module": (b"x", 1, b"\0"),
                "finit_module": (STATE, b"\0", 0), "userfaultfd": (1,),
                "perf_event_open": (b"\0" * 128, 0, -1, -1, 0),
                "add_key": (b"user\0", b"x\0", b"x", 1, -3), "keyctl": (0, -3, 0),
                "personality": (0x0400000,)}.items():
            with s.exploit() as (e, device):
                first = worker_of(s.daemon, device)
                t.equal(e.call(name, *arguments), UNTOUCHED, f"result of {name}()")
                t.check(worker_of(s.daemon, device) != first, f"the worker survived {name}()")
                t.equal(e.call("getpid"), worker_of(s.daemon, device), f"getpid() after {name}()")
            s.check()
        t.check(f"signal {signal.SIGSYS:d}" in s.daemon.log(), "SIGSYS is not in the log")


@t.case
def memory_of_an_own_program_is_not_run() -> None:
    """memfd and execveat, in one life."""
    with scene() as s, s.exploit() as (e, device):
        fd = e.call("memfd_create", b"x\0", 0)
        t.check(fd >= 0, "memfd_create()")
        script = b"#!/bin/sh\ntouch " + os.fsencode(s.daemon.dir / "ran") + b"\n"
        t.equal(e.call("write", fd, script, len(script)), len(script), "write()")
        t.equal(e.call("execveat", fd, b"\0", 0, 0, 0x1000), UNTOUCHED, "execveat()")
        t.check(not (s.daemon.dir / "ran").exists(), "it ran")


# ---- the ring ----

class Ring:
    """The io_uring of a worker, in the hands of an exploit: it maps the ring, for which it has the
    descriptor, and writes submissions as the kernel reads them. Memory is written and read through
    a memfd, by pread and pwrite."""
    SQES, ENTRIES, ENDS, RINGS = 0x10000000, 256, 512, 16384

    def __init__(self, e: Exploit) -> None:
        # A ring of our own tells where this kernel has the parts of one of that size.
        params = ctypes.create_string_buffer(120)
        fd = ctypes.CDLL(None).syscall(NR["io_uring_setup"], self.ENTRIES, params)
        if fd < 0:
            t.skip("io_uring is not allowed here")
        os.close(fd)
        self.sq_tail, self.sq_array = struct.unpack_from("<4xI16xI", params, 40)
        self.cq_tail, self.cqes = struct.unpack_from("<4xI12xI", params, 80)
        self.e = e
        self.scratch = e.call("memfd_create", b"scratch\0", 1)
        self.fd = next(fd for fd in range(256) if self.link(fd) == b"anon_inode:[io_uring]")
        self.rings = e.call("mmap", 0, self.RINGS, 3, 1, self.fd, 0)
        self.sqes = e.call("mmap", 0, self.ENTRIES * 64, 3, 1, self.fd, self.SQES)
        t.check(self.rings > 0 and self.sqes > 0, "the ring is not mapped")

    def link(self, fd: int) -> bytes:
        n = self.e.call("readlink", f"/proc/self/fd/{fd}\0".encode(), self.e.address(), 64)
        return self.e.get(0, n) if n > 0 else b""

    def poke(self, address: int, data: bytes) -> None:
        t.equal(self.e.call("pwrite64", self.scratch, data, len(data), 0), len(data), "pwrite")
        t.equal(self.e.call("pread64", self.scratch, address, len(data), 0), len(data), "pread")

    def peek(self, address: int, size: int) -> bytes:
        t.equal(self.e.call("pwrite64", self.scratch, address, size, 0), size, "pwrite")
        t.equal(self.e.call("pread64", self.scratch, self.e.address(), size, 0), size, "pread")
        return self.e.get(0, size)

    def number(self, place: int) -> int:
        return struct.unpack("<I", self.peek(self.rings + place, 4))[0]

    def submit(self, op: int, fd: int = -1, address: int = 0, length: int = 0, flags: int = 0,
               offset: int = 0) -> int:
        """The result of one submission, as the ring tells it."""
        tail, ends = self.number(self.sq_tail), self.number(self.cq_tail)
        sqe = struct.pack("<BBHiQQI", op, flags, 0, fd, offset, address, length)
        self.poke(self.sqes + tail % self.ENTRIES * 64, sqe.ljust(64, b"\0"))
        self.poke(self.rings + self.sq_array + tail % self.ENTRIES * 4,
                  struct.pack("<I", tail % self.ENTRIES))
        self.poke(self.rings + self.sq_tail, struct.pack("<I", tail + 1))
        n = self.e.call("io_uring_enter", self.fd, 1, 1, 1, 0, 0)  # and wait for its end
        t.equal(n, 1, f"submission of operation {op}")
        t.equal(self.number(self.cq_tail), ends + 1, f"ends after operation {op}")
        return struct.unpack("<i", self.peek(self.rings + self.cqes + ends % self.ENDS * 16 + 8, 4))[0]


@contextlib.contextmanager
def scene_with_ring() -> Iterator[tuple[Scene, Exploit, Ring]]:
    with scene() as s:
        group = "peer_to_peer_resource_uuid=a0000000-0000-4000-8000-00000000000a"
        s.daemon.create("lab", "test-blk", group, "medium=memory")
        with s.exploit(group) as (e, _):
            yield s, e, Ring(e)


NOP, READ, FIXED_FILE = 0, 22, 1
# What a medium needs, src/media/ring.c: NOP, READV, WRITEV, FSYNC, POLL_ADD, POLL_REMOVE,
# ASYNC_CANCEL, FALLOCATE, READ, WRITE, MSG_RING.
ALLOWED_OPS = {0, 1, 2, 3, 6, 7, 14, 17, 22, 23, 40}


@t.case
def the_ring_does_nothing_but_media() -> None:
    with scene_with_ring() as (s, e, ring):
        t.equal(ring.submit(NOP), 0, "NOP")
        t.equal(ring.submit(READ, ring.scratch, e.address(), 4), 4, "READ of what it has")
        control, new = path(s.daemon.control), path(s.daemon.dir / "new")
        e.put(0, path(s.secret))
        e.put(256, unix_address(s.daemon.control))
        e.put(512, new)
        at = e.address()
        for name, result in {
                "OPENAT": ring.submit(18, AT_FDCWD, at, 0),
                "OPENAT2": ring.submit(28, AT_FDCWD, at, 24, offset=at + 1024),
                "CONNECT": ring.submit(16, CHANNEL, at + 256, offset=2 + len(control)),
                "SOCKET": ring.submit(45, socket.AF_UNIX, 0, 0, offset=socket.SOCK_STREAM),
                "UNLINKAT": ring.submit(36, AT_FDCWD, at),
                "MKDIRAT": ring.submit(37, AT_FDCWD, at + 512, 0o700),
                "RENAMEAT": ring.submit(35, AT_FDCWD, at, AT_FDCWD & 0xffffffff, offset=at + 512),
                "the tombstone": ring.submit(READ, 0, at, 1, FIXED_FILE)}.items():
            t.equal(result, -errno.EACCES, name)
        for op in set(range(256)) - ALLOWED_OPS:
            t.check(ring.submit(op, CHANNEL, at, 8) in (-errno.EACCES, -errno.EINVAL), f"op {op}")
        t.check(ring.submit(40, CHANNEL) < 0, "MSG_RING to what is no ring")
        t.check(not (s.daemon.dir / "new").exists(), "something was made")


@t.case
def no_other_ring_is_made_and_this_one_is_not_changed() -> None:
    with scene_with_ring() as (_, e, ring):
        refused(e, "io_uring_setup", 8, b"\0" * 120)
        for what in range(40):  # buffers, files, eventfd, restrictions, another task, ...
            refused(e, "io_uring_register", ring.fd, what, e.address(), 1)
        refused(e, "io_uring_register", ring.fd, 1 << 31 | 2, e.address(), 1)
        refused(e, "io_uring_register", -1, 31, e.address(), 1)
        t.equal(ring.submit(18, AT_FDCWD, e.address()), -errno.EACCES, "OPENAT afterwards")


# ---- what it has from the start ----

def files_of(pid: int) -> set[tuple[int, int]]:
    """Sockets, memory and pipes that a process has open."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            st = os.stat(f"/proc/{pid}/fd/{fd}")
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue  # closed meanwhile
        if link.startswith(("socket:", "pipe:", "/memfd:")):
            found.add((st.st_dev, st.st_ino))
    return found


def memory_of(pid: int) -> set[str]:
    """Numbers of the memfds that a process has mapped."""
    return {line.split()[4] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
            if "/memfd:" in line}


@t.case
def nothing_of_another_group_is_in_a_worker() -> None:
    if os.geteuid():
        t.skip("needs root: a worker's descriptors are hidden from its user")
    with scene() as s, s.exploit() as (e, device):
        mine = worker_of(s.daemon, device)
        t.check(len(files_of(mine)) >= 4, "its sockets and its state memory are not seen")
        for name, pid in s.targets.items():
            if name != "umdevd":  # which holds each group's connections, to ask for a hang-up
                t.equal(files_of(mine) & files_of(pid), set(), f"files of {name} in the worker")
            t.equal(memory_of(mine) & memory_of(pid), set(), f"memory of {name} in the worker")
        t.check(memory_of(mine), "its state memory is not mapped")


PAGE = 4096
CALL_LINE = re.compile(r"^(\d+)\s+(?:<\.\.\. )?(\w+)\b.*\) += (.*)$")


def use_everything(d: Daemon) -> None:
    """Ports, interrupts, guest memory, engines, parameters, kills, resets, a crash."""
    with d.varlink() as v:
        v.call("ParentAdd", name="lab", driver="test", settings=[])
    d.add_card()
    card, engine = d.create("card0", "mtty-2"), d.create("lab", "test-dma")
    listening = d.create("card0", "mtty-1", "backend=socket")
    logged = d.create("card0", "mtty-1", "backend=file")
    for _ in range(2):
        with Client(d.socket(card)) as c, contextlib.closing(Ram(16 * PAGE)) as ram:
            line = c.arm(vu.INTX)
            c.dma_map(0, 16 * PAGE, ram.fd)
            c.dma_map(1 << 32, PAGE)
            tty = os.open(d.device_dir(card) / "tty0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            c.write(0, 2, b"\x07")
            c.write(0, 4, b"\x0a")
            c.write(0, 1, b"\x02")
            for i in range(40):
                c.write(0, 0, bytes([0x40 + i % 20]))
                os.write(tty, b"y")
                c.read(0, 5, 1)
                c.read(0, 0, 1)
                if i % 10 == 5:
                    os.kill(worker_of(d, card), signal.SIGKILL)
            t.check(line.wait() > 0, "no interrupt")
            os.close(tty)
            c.reset()
            c.dma_unmap(0, 0, 2)
    with Client(d.socket(engine)) as c, contextlib.closing(Ram(16 * PAGE)) as ram:
        c.set_config(4, 2, 6)
        c.dma_map(0, 16 * PAGE, ram.fd)
        c.region_info(2)
        for register, value in ((0x80, 0), (0x8c, 4096), (0x90, 1), (0x90, 2)):
            c.write(0, register, struct.pack("<I", value))
        with d.varlink() as v:
            v.call("ParamSet", name=engine, param="gain", value="9")
        t.equal(c.read(0, 0x38, 4), struct.pack("<I", 9), "gain")
        os.ftruncate(ram.fd, 0)  # SIGBUS in the copy
        c.write(0, 0x90, struct.pack("<I", 2))
        c.write(0, 0x48, struct.pack("<I", 1))  # crash
        c.read(0, 0, 4)
    with Client(d.socket(listening)) as c, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(d.device_dir(listening) / "port0.sock"))
        c.write(0, 2, b"\x07")
        c.write(0, 0, b"x")
        t.equal(peer.recv(1), b"x", "byte at the socket")
    with Client(d.socket(logged)) as c:
        c.write(0, 0, b"x")
        c.read(0, 0, 1)


@t.case
def what_a_worker_does_is_allowed() -> None:
    """Sessions of every kind under a tracer: no call of a worker behind its filter is refused."""
    if os.geteuid():
        t.skip("needs root: what a worker does cannot be traced by its user")
    if not shutil.which("strace"):
        t.skip("no strace here: run tools/setup")
    # LeakSanitizer does not end well under a tracer.
    with Daemon(env={"ASAN_OPTIONS": "detect_leaks=0"}) as d, t.TempDir() as tmp:
        trace = tmp / "trace"
        assert d.process
        p = subprocess.Popen(["strace", "-f", "-qq", "-o", str(trace), "-p", str(d.process.pid)],
                             stderr=subprocess.DEVNULL)
        try:
            t.wait_for(lambda: "TracerPid:\t0" not in Path(f"/proc/{d.process.pid}/status").read_text(),
                       5, "the tracer")
            use_everything(d)
        finally:
            p.terminate()
            p.wait(10)
        behind: set[str] = set()
        calls, refused_calls = set(), []
        for line in trace.read_text(errors="replace").splitlines():
            m = CALL_LINE.match(line)
            if not m:
                t.check("SIGSYS" not in line, line)
            elif m[2] == "seccomp":
                if "SECCOMP_SET_MODE_FILTER" in line and m[3] == "0":
                    behind.add(m[1])
            elif m[1] in behind:
                calls.add(m[2])
                # The kernel's own answer for a file, which cannot be polled: epoll_ctl is allowed.
                if m[2] != "epoll_ctl" and re.search("EPERM|EACCES", m[3]):
                    refused_calls.append(line)
        t.equal(refused_calls, [], "refused calls")
        t.check(len(behind) > 8, f"only {len(behind)} lives were seen")
        t.fact(f"{len(behind)} lives, {len(calls)} kinds of calls: {' '.join(sorted(calls))}")


@t.case(seconds=240)
def an_ordinary_user_is_as_safe() -> None:
    """This file once more, as nobody."""
    if os.geteuid() != 0:
        t.skip("is one already")
    if not shutil.which("fusermount3") or not shutil.which("setpriv"):
        t.skip("no fusermount3 or setpriv here: run tools/setup")
    p = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                        "/usr/bin/python3", __file__], capture_output=True, text=True, timeout=200,
                       env={**os.environ, "PYTHONPATH": str(t.ROOT / "tests")}, check=False)
    print("\n".join(f"  as nobody: {line}" for line in (p.stdout + p.stderr).splitlines()))
    t.equal(p.returncode, 0, "status of the run as nobody")


t.main()
