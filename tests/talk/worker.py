#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""umdev-worker by itself: this test is its manager. Deaths, hangs, orphans, adoption, stop."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lib import t
from lib.daemon import program
from lib.installed import Installed, variant
from lib import vfio_user
from lib.vfio_user import Client

CONFIG, CONNECT, PARAM_SET, RES_ADD, RES_DEL, STOP, PING, RESTART, HOLD, RES_SIZE = range(1, 11)
READY, CLOSED, PARAM_DONE, STATE, RESUMED, PONG, RESTARTED, RES_DONE = range(32, 40)
ALL = 0xFFFF
STREAM = 1 | 2 | 4  # readable, writable, a stream
RBR = THR = 0
FCR, MCR, LSR, SCR = 2, 4, 5, 7
DTR_RTS = 3
BLK_CHANGE = 0x30
SCRATCH, COUNTER, HASH, ECHO, GAPS, RESETS, GAIN, CRASH = 8, 16, 24, 32, 40, 48, 56, 72


def text(s: str) -> bytes:
    return struct.pack("<H", len(s)) + s.encode()


def member(kind: str, streams: list[str], params: list[tuple[str, int, int, str]]) -> bytes:
    driver = "test" if kind in ("regs", "dma", "blk") else "mtty"
    out = uuid.uuid4().bytes + text(driver) + text(kind) + text("vfio-user")
    out += struct.pack("<HH", len(params), len(streams))
    for name, number, value, canonical in params:
        out += text(name) + struct.pack("<BQ", number, value) + text(canonical)
    for name in streams:
        out += text(name) + struct.pack("<IQQ", STREAM, 0, 0)
    return out


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Frame:
    def __init__(self, data: bytes) -> None:
        _, self.type, self.member, self.serial, _ = struct.unpack_from("<IHHII", data)
        self.payload = data[16:]

    def numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}I", self.payload)

    def line(self) -> str:
        return self.payload[6:].decode()


class Channel:
    """Frames over a socket to a worker."""

    def __init__(self, s: socket.socket) -> None:
        self.socket = s
        self.socket.settimeout(10)
        self._buffer = b""

    def send(self, kind: int, payload: bytes = b"", member: int = 0, serial: int = 0,
             fds: tuple[int, ...] = ()) -> None:
        frame = struct.pack("<IHHII", 16 + len(payload), kind, member, serial, 0) + payload
        socket.send_fds(self.socket, [frame], list(fds))

    def get(self) -> Frame | None:
        """None: the worker closed the channel."""
        while len(self._buffer) < 4 or len(self._buffer) < self._size():
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                t.equal(self._buffer, b"", "bytes of a frame that was never finished")
                return None
            self._buffer += data
        size = self._size()
        frame, self._buffer = Frame(self._buffer[:size]), self._buffer[size:]
        return frame

    def _size(self) -> int:
        return struct.unpack_from("<I", self._buffer)[0]

    def expect(self, kind: int) -> Frame:
        frame = self.expect_any()
        t.equal(frame.type, kind, "type of frame")
        return frame

    def expect_any(self) -> Frame:
        frame = self.get()
        t.check(frame, "the worker is gone")
        assert frame
        return frame

    def silent(self) -> bool:
        return not self._buffer and not select.select([self.socket], [], [], 0.05)[0]


class Group(Channel):
    """A keeper with its worker, the devices of CONFIG, and the host ends of their ports."""

    def __init__(self, *kinds: str, params: list[tuple[str, int, int, str]] | None = None,
                 raw: bytes | None = None, worker: Path | None = None) -> None:
        self._dir = t.TempDir()
        self.rendezvous = self._dir.path / "rendezvous"
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.rendezvous))
        listener.listen()
        state = os.memfd_create("state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._log = self._dir.path / "log"
        actions: list[tuple[object, ...]] = [
            (os.POSIX_SPAWN_OPEN, 2, str(self._log), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)]
        grave = os.pipe()
        for target, fd in ((3, theirs.fileno()), (4, listener.fileno()), (5, state), (6, grave[1])):
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)
            actions.append((os.POSIX_SPAWN_DUP2, high, target))
        path = str(worker or program("umdev-worker"))
        # A sanitizer would make an exit of the crashes that are sent here.
        env = dict(os.environ, ASAN_OPTIONS=":".join(
            [os.environ.get("ASAN_OPTIONS", ""), "handle_segv=0", "handle_sigill=0"]).lstrip(":"))
        self.keeper = os.posix_spawn(path, [path], env, file_actions=actions,
                                     setpgroup=0)
        for fd in (*grave, *(high for _, high, _ in actions[1:])):
            os.close(fd)
        theirs.close()
        listener.close()
        self.state = state
        self.status: int | None = None
        self.ports: list[socket.socket] = []
        self._configure(kinds, params or [], raw)

    def _configure(self, kinds: tuple[str, ...], params: list[tuple[str, int, int, str]],
                   raw: bytes | None) -> None:
        fds = []
        payload = struct.pack("<III", 1, 7, len(kinds))
        for kind in kinds:
            host, worker = socket.socketpair()
            host.settimeout(10)
            self.ports.append(host)
            fds.append(worker.detach())
            payload += member(kind, ["port0"], params)
        self.send(CONFIG, payload if raw is None else raw, fds=tuple(fds))
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            print(f"log of the worker:\n{self.log()[-4000:]}")
        self.socket.close()
        os.close(self.state)
        for s in self.ports:
            s.close()
        if self.status is None:
            os.kill(self.keeper, signal.SIGKILL)
            os.waitpid(self.keeper, 0)
        self._dir.__exit__()

    def wait(self) -> int:
        """Exit status of the keeper."""
        def ended() -> bool:
            pid, status = os.waitpid(self.keeper, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            return bool(pid)
        t.wait_for(ended, 10, "the end of the keeper")
        assert self.status is not None
        return self.status

    def worker(self) -> int:
        """The child of the keeper that lives; a dead one may not be reaped yet."""
        path = Path(f"/proc/{self.keeper}/task/{self.keeper}/children")

        def living() -> list[int]:
            return [int(p) for p in path.read_text().split() if is_alive(int(p))]
        return t.wait_for(living, 5, "a worker")[0]

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends this life; returns when it is over, which is before the next one tells."""
        pid = self.worker()
        fd = os.pidfd_open(pid)
        os.kill(pid, number)
        select.select([fd], [], [], 5)
        os.close(fd)

    def connect(self, member: int = 0) -> Client:
        ours, theirs = socket.socketpair()
        self.send(CONNECT, member=member, fds=(theirs.fileno(),))
        theirs.close()
        return Client(fd=ours.detach())


@contextlib.contextmanager
def ready(*kinds: str) -> Iterator[Group]:
    with Group(*(kinds or ("1",))) as g:
        g.expect(READY)
        yield g


def number(c: Client, register: int, size: int = 8) -> int:
    return int.from_bytes(c.read(0, register, size), "little")


def put(c: Client, register: int, value: int) -> None:
    c.write(0, register, bytes([value]))


def get(c: Client, register: int) -> int:
    return c.read(0, register, 1)[0]


@contextlib.contextmanager
def killed_at_random(g: Group, progress: Callable[[], int]) -> Iterator[None]:
    """Workers of g die every few ms, at any moment, but each one after some progress: on a busy
    machine a life needs longer than this to begin."""
    stop = threading.Event()

    def killer() -> None:
        seen = -1
        while not stop.wait(random.uniform(0.0005, 0.008)):
            if progress() != seen:
                seen = progress()
                with contextlib.suppress(ProcessLookupError, ValueError, IndexError, t.Failure):
                    os.kill(g.worker(), signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@t.case
def by_hand_it_says_who_starts_it() -> None:
    p = subprocess.run([program("umdev-worker")], capture_output=True, text=True, timeout=5,
                       stdin=subprocess.DEVNULL)
    t.equal((p.returncode, p.stdout, p.stderr.count("\n")), (2, "", 1), "status and lines")
    t.check("umdevd starts this program" in p.stderr, p.stderr)
    p = subprocess.run([program("umdev-worker"), "--version"], capture_output=True, text=True,
                       timeout=5)
    t.check(p.returncode == 0 and p.stdout.startswith("umdev-worker "), p.stdout)


@t.case
def rights_are_gone_before_ready() -> None:
    with ready() as g:
        status = Path(f"/proc/{g.worker()}/status").read_text()
        for line in ("NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
                     "Seccomp:\t2"):
            t.check(line in status, f"{line} is not in {status}")


@t.case
def killed_worker_goes_on_and_says_so() -> None:
    with ready() as g, g.connect() as c:
        put(c, SCR, 0x5A)
        g.kill()
        t.equal(get(c, SCR), 0x5A, "scratch register")
        t.equal(g.expect(RESUMED).numbers(2), (signal.SIGKILL, 2), "signal and lives")
        g.kill(signal.SIGSEGV)
        t.equal(get(c, SCR), 0x5A, "scratch register")
        t.equal(g.expect(RESUMED).numbers(2), (signal.SIGSEGV, 3), "signal and lives")


@contextlib.contextmanager
def installed(*kinds: str) -> Iterator[tuple[Group, Installed]]:
    with t.TempDir() as folder:
        i = Installed(folder)
        with Group(*(kinds or ("1",)), worker=i.path) as g:
            g.expect(READY)
            yield g, i


def versions() -> dict[str, Any]:
    p = subprocess.run([program("umdev-worker"), "--state-versions"], capture_output=True,
                       timeout=5, check=True)
    return json.loads(p.stdout)


def restart(g: Group, v: dict[str, Any], serial: int = 5) -> None:
    payload = struct.pack("<IIH", v["worker"], v["vfio"], len(v["types"]))
    for name, number in v["types"].items():
        payload += text(name) + struct.pack("<I", number)
    g.send(RESTART, payload, serial=serial)


@t.case
def restart_runs_the_installed_program() -> None:
    with installed() as (g, i), g.connect() as c:
        put(c, SCR, 0x5A)
        i.install(program("umdev-worker"))
        t.check(not i.runs(g.keeper), "the file was not replaced")
        restart(g, versions())
        f = g.expect(RESTARTED)
        t.equal((f.serial, f.numbers(1)), (5, (0,)), "serial and result")
        t.check(i.runs(g.keeper) and i.runs(g.worker()), "the old program runs")
        t.equal(get(c, SCR), 0x5A, "scratch register")
        g.kill()
        t.equal(get(c, SCR), 0x5A, "scratch register after a death in the new program")
        t.equal(g.expect(RESUMED).numbers(2), (signal.SIGKILL, 3), "signal and lives")


@t.case
def restart_leaves_no_descriptor_behind() -> None:
    def open_files() -> list[str]:
        names = (os.readlink(f) for f in Path(f"/proc/{g.keeper}/fd").iterdir())
        return sorted(re.sub(r"^/proc/\d+", "/proc/PID", name) for name in names)

    with installed() as (g, _), g.connect() as c:
        ram = vfio_user.Ram(1 << 20)
        c.dma_map(0, ram.size, fd=ram.fd)
        get(c, SCR)
        before = open_files()
        for serial in range(1, 6):
            restart(g, versions(), serial)
            t.equal(g.expect(RESTARTED).numbers(1), (0,), "result")
            get(c, SCR)
        t.equal(open_files(), before, "open files of keeper and worker")
        flags = [Path(f"/proc/{g.keeper}/fdinfo/{f.name}").read_text()
                 for f in Path(f"/proc/{g.keeper}/fd").iterdir() if int(f.name) > 2]
        t.check(all(int(line.split()[1], 8) & os.O_CLOEXEC for text in flags
                    for line in text.splitlines() if line.startswith("flags:")),
                "a descriptor would be passed on by accident")
        ram.close()


@t.case
def restart_is_refused_before_anything_is_touched() -> None:
    good = versions()
    with installed() as (g, _), g.connect() as c:
        pid = g.worker()
        for part, key, what in ((good, "worker", "the group's state"),
                                (good, "vfio", "the vfio-user state"),
                                (good["types"], "mtty-1", "the state of type mtty-1")):
            part[key] += 41
            restart(g, good)
            f = g.expect(RESTARTED)
            t.equal(f.numbers(1), (errno.EPROTO,), "errno")
            t.check(f"version {part[key]} of {what}" in f.line() and
                    f"version {part[key] - 41}:" in f.line(), f.line())
            part[key] -= 41
        del good["types"]["mtty-1"]
        restart(g, good)
        t.check("has no type mtty-1" in g.expect(RESTARTED).line(), "type that is gone")
        t.equal(g.worker(), pid, "pid of the worker")
        get(c, SCR)


@t.case
def old_program_serves_on_when_the_new_one_cannot() -> None:
    def refused(why: str) -> None:
        restart(g, versions())
        f = g.expect(RESTARTED)
        t.check(f.numbers(1) != (0,) and why in f.line() and "serves on" in f.line(), f.line())
        t.equal(get(c, SCR), 0x5A, "scratch register")
        t.equal(os.readlink(f"/proc/{g.keeper}/exe"), exe, "program of the keeper")
        t.equal(os.readlink(f"/proc/{g.worker()}/exe"), exe, "program of the worker")

    with installed() as (g, i), g.connect() as c:
        put(c, SCR, 0x5A)
        i.path.unlink()
        exe = os.readlink(f"/proc/{g.keeper}/exe")
        refused("No such file")
        i.path.write_text("no program")
        refused("Permission denied")
        i.path.chmod(0o755)
        refused("Exec format error")
        i.install(variant("group"))  # the keeper in it finds that it cannot
        refused("Structure needs cleaning")
        i.install(variant("device"))  # the worker that this one clones does
        refused("Structure needs cleaning")
        i.install(variant("crash"))
        refused("Structure needs cleaning")
        i.install(program("umdev-worker"))
        restart(g, versions())
        t.equal(g.expect(RESTARTED).numbers(1), (0,), "result")
        t.check(i.runs(g.keeper), "the old program runs")
        t.equal(get(c, SCR), 0x5A, "scratch register")


@t.case
def bytes_pass_once_over_restarts_and_deaths() -> None:
    with installed() as (g, i), g.connect() as c:
        put(c, FCR, 7)
        put(c, MCR, DTR_RTS)
        data = os.urandom(2000)
        back = bytearray()
        numbers, sent, serial, done = versions(), 0, 0, 0
        for n, byte in enumerate(data):
            if n % 50 == 0:
                g.ports[0].sendall(data[sent:sent + 50])
                sent += 50
                i.install(program("umdev-worker"))
                serial += 1
                restart(g, numbers, serial)
            if n % 75 == 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(g.worker(), signal.SIGKILL)
            while not get(c, LSR) & 1:
                pass
            back.append(get(c, RBR))
            put(c, THR, byte)
        t.check(back == data, "what the guest read is not what was sent")
        got = b""
        while len(got) < len(data):
            got += g.ports[0].recv(4096)
        t.check(got == data, "what the guest wrote is not what arrived")
        while done < serial:
            f = g.expect_any()
            if f.type == RESTARTED:
                done += 1
                t.equal(f.serial, done, "serial")
        t.fact(f"{len(data)} bytes each way over {serial} restarts; slowest answer "
               f"{c.slowest * 1000:.1f} ms")


@t.case
def no_frame_is_lost_repeated_or_torn() -> None:
    with ready() as g:
        sent = expected = lives = 0
        end = time.monotonic() + 2
        while time.monotonic() < end or expected < sent:
            if time.monotonic() < end:
                for _ in range(50):
                    g.send(PING, serial=sent)
                    sent += 1
                if sent % 500 == 0:
                    os.kill(g.worker(), signal.SIGKILL)
            while expected < sent - (200 if time.monotonic() < end else 0):
                f = g.expect_any()
                if f.type == RESUMED:
                    lives += 1
                else:
                    t.equal((f.type, f.serial), (PONG, expected), "next answer")
                    expected += 1
        while not g.silent():
            g.expect(RESUMED)  # and not one answer more
            lives += 1
        t.check(lives > 20, f"only {lives} deaths were told")
        t.fact(f"{sent} frames over {lives} deaths")


@t.case
def bytes_pass_once_over_many_deaths() -> None:
    with ready() as g, g.connect() as c:
        put(c, FCR, 7)
        put(c, MCR, DTR_RTS)
        data = os.urandom(3000)
        back = bytearray()
        sent = 0
        for i, byte in enumerate(data):
            if i % 64 == 0:
                g.ports[0].sendall(data[sent:sent + 64])
                sent += 64
                os.kill(g.worker(), signal.SIGKILL)
            while not get(c, LSR) & 1:
                pass
            back.append(get(c, RBR))
            put(c, THR, byte)
        t.check(back == data, "what the guest read is not what was sent")
        got = b""
        while len(got) < len(data):
            got += g.ports[0].recv(4096)
        t.check(got == data, "what the guest wrote is not what arrived")
        t.fact(f"{len(data)} bytes each way; slowest answer {c.slowest * 1000:.1f} ms")


@t.case
def every_access_takes_effect_once() -> None:
    """Kills at random moments, not between two calls of ours."""
    with ready("regs") as g, g.connect() as c:
        counter = order = posted = 0
        with killed_at_random(g, lambda: c.answered):
            end = time.monotonic() + 3
            while time.monotonic() < end:
                value = random.getrandbits(64)
                c.write(0, HASH, struct.pack("<Q", value))
                order = (order ^ value) * 0x100000001B3 & (1 << 64) - 1
                for _ in range(20):
                    posted += 1
                    c.write(0, ECHO, struct.pack("<Q", posted), no_reply=True)
                t.equal(number(c, COUNTER), counter, "fetch and add")
                counter += 1
        t.equal(number(c, HASH), order, "hash of all writes in order")
        t.equal((number(c, ECHO), number(c, GAPS)), (posted, 0), "posted writes and gaps")
        lives = 1
        while not g.silent():
            lives = g.expect(RESUMED).numbers(2)[1]
        t.check(lives > 50, f"only {lives} lives")
        t.fact(f"{c.answered} answers, {posted} posted writes over {lives} lives; slowest "
               f"{c.slowest * 1000:.1f} ms")


@t.case
def ready_comes_once_whatever_dies_before_it() -> None:
    deaths = 0
    for i in range(60):
        with Group("regs", "1") as g:
            for _ in range(3):
                time.sleep(random.uniform(0, 0.003))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(g.worker(), signal.SIGKILL)
            seen = []
            while READY not in seen:
                seen.append(g.expect_any().type)
            with g.connect(0) as c:
                c.write(0, SCRATCH, struct.pack("<Q", i))
                t.equal(number(c, SCRATCH), i, "scratch register")
            while seen[-1] != CLOSED:
                seen.append(g.expect_any().type)
            deaths += seen.count(RESUMED)
            t.equal([k for k in seen if k != RESUMED], [READY, CLOSED], "frames")
    t.check(deaths > 60, f"only {deaths} deaths")


@t.case
def connections_come_and_go_over_deaths() -> None:
    """Each CONNECT has one CLOSED, each client a device that was reset once more."""
    with ready("regs") as g:
        done = lives = 0
        with killed_at_random(g, lambda: done + lives):
            end = time.monotonic() + 2
            while time.monotonic() < end:
                with g.connect() as c:
                    done += 1
                    resets = number(c, RESETS, 4)
                    t.equal(resets, 2 * done - 1, "resets: one by each open, one by each close")
                    done_frame = None
                while done_frame != CLOSED:
                    done_frame = g.expect_any().type
                    lives += done_frame == RESUMED
                    t.check(done_frame in (RESUMED, CLOSED), f"frame {done_frame}")
        while not g.silent():
            g.expect(RESUMED)
        t.check(lives > 30, f"only {lives} deaths")
        t.fact(f"{done} connections over {lives} deaths")


@t.case
def request_that_crashes_is_answered_unexecuted() -> None:
    with ready("regs", "regs") as g, g.connect(0) as c, g.connect(1) as neighbour:
        c.write(0, SCRATCH, b"12345678")
        neighbour.write(0, SCRATCH, b"abcdefgh")
        c.write(0, CRASH, struct.pack("<I", 1))
        t.equal(c.read(0, SCRATCH, 8), b"12345678", "its scratch register")
        t.equal(neighbour.read(0, SCRATCH, 8), b"abcdefgh", "the neighbour's")
        for life in (2, 3, 4):
            t.equal(g.expect(RESUMED).numbers(2), (signal.SIGILL, life), "signal and lives")
        f = g.expect(STATE)
        t.equal((f.member, f.numbers(1)), (0, (1,)), "member and state")
        c.socket.close()
        t.equal(g.expect(CLOSED).member, 0, "member")
        with g.connect(0) as again:
            t.equal(again.read(0, SCRATCH, 8), bytes(8), "register of the next client")
        t.equal(g.expect(STATE).numbers(1), (0,), "state of a device that was opened again")


@t.case
def request_that_hangs_is_answered_unexecuted() -> None:
    with ready("regs") as g, g.connect() as c:
        c.socket.settimeout(15)  # QEMU waits 5 s, which is enough unless the machine is overloaded
        vfio_user.ANSWER_SECONDS = 15
        try:
            c.write(0, CRASH, struct.pack("<I", 2))
        finally:
            vfio_user.ANSWER_SECONDS = 1.0
        t.equal(c.read(0, SCRATCH, 8), bytes(8), "scratch register")
        t.fact(f"answered after {c.slowest:.2f} s")
        c.slowest = 0


@t.case
def parameter_survives_its_worker() -> None:
    with Group("regs", params=[("gain", 0, 5, "5")]) as g:
        g.expect(READY)
        with g.connect() as c:
            t.equal(number(c, GAIN, 4), 5, "gain of CONFIG")
            for serial, gain, wanted in ((1, 42, 0), (2, 14, errno.ERANGE)):
                g.send(PARAM_SET, text("gain") + struct.pack("<BQ", 0, gain) + text(str(gain)),
                       serial=serial)
                f = g.expect(PARAM_DONE)
                t.equal((f.serial, f.numbers(1)), (serial, (wanted,)), "answer")
                g.kill()
                t.equal(g.expect(RESUMED).numbers(1), (signal.SIGKILL,), "signal")
                t.equal(number(c, GAIN, 4), 42, "gain")


@t.case
def hung_worker_is_replaced() -> None:
    with ready() as g, g.connect() as c:
        put(c, SCR, 0x77)
        os.kill(g.worker(), signal.SIGSTOP)
        t.equal(g.expect(RESUMED).numbers(2), (signal.SIGKILL, 2), "signal and lives")
        t.equal(get(c, SCR), 0x77, "scratch register")
        # In the middle of a request: the first life that had it may be the one that hangs.
        os.kill(g.worker(), signal.SIGSTOP)
        vfio_user.ANSWER_SECONDS = 2.5
        t.equal(get(c, SCR), 0x77, "scratch register, asked while it hung")
        vfio_user.ANSWER_SECONDS = 1.0
        t.fact(f"answered after {c.slowest:.2f} s")
        t.equal(g.expect(RESUMED).numbers(2), (signal.SIGKILL, 3), "signal and lives")


@t.case
def hang_after_a_long_sleep_is_noticed() -> None:
    """The keeper sleeps with an idle worker: the filter of system calls once kept the worker from
    waking it."""
    with ready("regs") as g, g.connect() as c:
        c.write(0, SCRATCH, bytes([0x55] * 8))
        time.sleep(1.5)
        vfio_user.ANSWER_SECONDS = 15
        c.write(0, CRASH, (2).to_bytes(4, "little"))
        vfio_user.ANSWER_SECONDS = 1.0
        t.equal(g.expect(RESUMED).numbers(1), (signal.SIGKILL,), "signal")
        t.equal(c.read(0, SCRATCH, 8), bytes([0x55] * 8), "scratch register")
        c.slowest = 0


@t.case
def too_many_crashes_end_the_group_with_a_reason() -> None:
    with ready("1", "2") as g, g.connect(1):
        for life in range(2, 14):
            g.kill(signal.SIGSEGV)
            t.equal(g.expect(RESUMED).numbers(2), (signal.SIGSEGV, life), "signal and lives")
        g.kill(signal.SIGSEGV)
        for m in range(2):
            f = g.expect(STATE)
            t.equal((f.member, f.numbers(1)), (m, (1,)), "member and state")
            t.check("crashed again and again" in f.line() and "signal 11" in f.line(), f.line())
        t.equal(g.get(), None, "frame after the last words")
        t.equal(g.wait(), 1, "exit status")


@t.case
def type_without_device_half_is_refused_by_name() -> None:
    with Group("nine") as g:
        f = g.expect(STATE)
        t.check("nine" in f.line() and "mtty" in f.line(), f.line())
        t.equal(g.get(), None, "frame after the reason")
        t.equal(g.wait(), 1, "exit status")


@t.case
def manager_that_breaks_the_rules_ends_it() -> None:
    for kind, m in ((CONFIG, 0), (CONNECT, 0), (PONG, 0), (99, 0), (RES_DEL, 5)):
        with ready() as g:
            g.send(kind, struct.pack("<III", 1, 7, 0) if kind == CONFIG else b"", member=m)
            f = g.expect(STATE)
            t.check("broke the rules" in f.line(), f.line())
            t.equal(g.wait(), 1, "exit status")
    with Group(raw=b"\xff" * 40) as g:
        t.equal(g.get(), None, "answer to a damaged CONFIG")
        t.equal(g.wait(), 1, "exit status")


@t.case
def stop_closes_clients_and_ends_with_status_0() -> None:
    with ready("1", "2") as g, g.connect(0) as a, g.connect(1) as b:
        get(a, SCR)
        g.send(STOP, struct.pack("<II", 0, 2000), member=0)
        f = g.expect(CLOSED)
        t.equal((f.member, f.numbers(1)), (0, (2,)), "member and reason")
        t.equal(a.socket.recv(1), b"", "what the stopped client sees")
        t.equal(get(b, SCR), 0, "the other client's register")
        with g.connect(0) as again:
            get(again, SCR)
            g.send(STOP, struct.pack("<II", 0, 2000), member=ALL)
            t.equal({g.expect(CLOSED).member, g.expect(CLOSED).member}, {0, 1}, "members")
        t.equal(g.get(), None, "frame after the stop")
        t.equal(g.wait(), 0, "exit status")


@t.case
def closed_is_said_once_per_connection() -> None:
    with ready() as g:
        for i in range(10):
            with g.connect() as c:
                get(c, SCR)
            if i % 2:
                g.kill()
            frames = [g.expect(CLOSED) if not i % 2 else g.get()]
            while frames[-1] and frames[-1].type != CLOSED:
                t.equal(frames[-1].type, RESUMED, "type of frame")
                frames.append(g.get())
            t.check(frames[-1], "the worker is gone")
            while not g.silent():
                g.expect(RESUMED)


@t.case
def orphan_serves_on_and_is_adopted() -> None:
    with ready("1", "2") as g, g.connect(1) as c:
        put(c, SCR, 0x11)
        g.socket.close()
        t.equal(get(c, SCR), 0x11, "register of an orphan's client")
        g.kill()
        t.equal(get(c, SCR), 0x11, "register of an orphan's client after a death")
        for scratch in (0x22, 0x33):
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(g.rendezvous))
            new = Channel(s)
            new.expect(READY)
            f = new.expect(CLOSED)
            t.equal(f.member, 0, "the member without a client")
            new.send(PING, serial=scratch)
            f = new.expect(PONG)
            t.equal(f.serial, scratch, "serial")
            put(c, SCR, scratch)
            if scratch == 0x22:
                new.socket.close()
        t.equal(get(c, SCR), 0x33, "register after adoption")
        second = socket.socket(socket.AF_UNIX)
        second.connect(str(g.rendezvous))
        t.equal(second.recv(1), b"", "what a second manager hears")
        second.close()
        new.send(STOP, struct.pack("<II", 0, 2000), member=ALL)
        t.equal(new.expect(CLOSED).member, 1, "member")
        t.equal(g.wait(), 0, "exit status")
        new.socket.close()


@t.case
def managers_come_and_go_over_deaths() -> None:
    with ready("regs", "1") as g, g.connect(0) as c:
        g.socket.close()
        adopted = refused = count = 0
        with killed_at_random(g, lambda: count):
            end = time.monotonic() + 2
            while time.monotonic() < end:
                s = socket.socket(socket.AF_UNIX)
                s.connect(str(g.rendezvous))
                new = Channel(s)
                first = new.get()
                if first:
                    t.equal(first.type, READY, "first frame")
                    f = new.expect_any()
                    while f.type == RESUMED:
                        f = new.expect_any()
                    t.equal((f.type, f.member), (CLOSED, 1), "the member without a client")
                    new.send(PING, serial=count)
                    f = new.expect_any()
                    while f.type == RESUMED:
                        f = new.expect_any()
                    t.equal((f.type, f.serial), (PONG, count), "answer")
                    adopted += 1
                else:
                    refused += 1  # it died with our connection in its hands: we come again
                s.close()
                t.equal(number(c, COUNTER), count, "fetch and add")
                count += 1
        t.check(adopted > 50, f"{adopted} adopted, {refused} refused")
        t.fact(f"{adopted} managers, {refused} turned away")


@t.case
def orphan_ends_with_its_last_client() -> None:
    with ready() as g:
        with g.connect() as c:
            get(c, SCR)
            g.socket.close()
            get(c, SCR)
        t.equal(g.wait(), 0, "exit status")


def damage(state: int, r: random.Random) -> None:
    """Changes some bytes, mostly among those in use."""
    size = os.fstat(state).st_size
    data = os.pread(state, size, 0)
    used = [at for at in range(0, size, 8) if data[at:at + 8] != bytes(8)]
    for _ in range(r.choice((1, 1, 2, 5))):
        at = r.choice(used) + r.randrange(8) if r.random() < 0.8 else r.randrange(8192)
        os.pwrite(state, r.choice((b"\xff", b"\x01", b"\x80", b"\xff" * 4, bytes(8))), at)


@t.case
def successor_of_a_worker_gone_mad_serves_or_ends() -> None:
    """Its state is untrusted: whatever stands there, nobody waits for ever."""
    r = random.Random(1)
    served = 0
    for i in range(40):
        with ready("regs", "2") as g, contextlib.closing(g.connect(0)) as c:
            number(c, SCRATCH)
            os.kill(g.worker(), signal.SIGSTOP)
            damage(g.state, r)
            os.kill(g.worker(), signal.SIGKILL)
            try:
                c.socket.send(struct.pack("<HHIIIQII", 77, vfio_user.REGION_READ, 32, 0, 0,
                                          SCRATCH, 0, 8))
                reply = c.socket.recv(100)
            except ConnectionError:
                reply = b""
            t.check(reply[:2] in (b"", b"\x4d\0"), f"round {i}: reply {reply!r}")
            t.check("Sanitizer" not in g.log() and "runtime error" not in g.log(), g.log())
            served += bool(reply)
    t.check(10 < served < 40, f"{served} of 40 served: the damage is of the wrong kind")


@t.case
def worker_dies_with_its_keeper() -> None:
    with ready() as g, g.connect() as c:
        os.kill(g.keeper, signal.SIGKILL)
        t.equal(c.socket.recv(1), b"", "what the client sees")
        t.equal(g.get(), None, "what the manager sees")


@t.case
def deaths_leave_no_descriptor_behind() -> None:
    if os.geteuid():
        t.skip("needs root to look into a worker")
    with ready() as g, g.connect() as c:
        def names() -> list[str]:
            get(c, SCR)
            path = Path(f"/proc/{g.worker()}/fd")
            return sorted(os.readlink(p) for p in path.iterdir())
        before = [n for n in names() if not n.startswith("/proc/")]
        for _ in range(20):
            g.kill()
            get(c, SCR)  # the dead one is reaped before the next answers
        t.equal([n for n in names() if not n.startswith("/proc/")], before, "open descriptors")


@t.case
def parameter_is_answered_with_its_errno() -> None:
    with Group("1", params=[("backend", 7, 2, "pty")]) as g:
        g.expect(READY)
        for name, kind, wanted in (("backend", 7, 0), ("backend", 0, errno.EINVAL),
                                   ("colour", 7, errno.ENOENT)):
            value = text(name) + struct.pack("<BQ", kind, 1) + text("x")
            g.send(PARAM_SET, value, serial=wanted)
            f = g.expect(PARAM_DONE)
            t.equal((f.serial, f.numbers(1)), (wanted, (wanted,)), f"answer for {name}")


@t.case
def resource_comes_and_goes_while_it_serves() -> None:
    with ready() as g, g.connect() as c:
        r, w = os.pipe()
        for _ in range(3):
            g.send(RES_ADD, text("extra") + struct.pack("<IQQ", 2, 0, 0), serial=1, fds=(w,))
            g.kill()
            g.send(RES_DEL, text("extra"), serial=2)
        g.send(PING, serial=1)
        done = []
        while (f := g.expect_any()).type != PONG:
            if f.type == RES_DONE:
                done.append((f.serial, f.numbers(1)))
        t.equal(done, [(1, (0,)), (2, (0,))] * 3, "answers")
        os.close(w)
        t.equal(os.read(r, 1), b"", "who still holds the resource")
        os.close(r)
        t.equal(get(c, SCR), 0, "scratch register")


@t.case
def media_come_grow_and_go_while_they_are_served() -> None:
    medium = 1 | 2 | 32  # read, write, medium
    with ready("blk") as g, g.connect() as c:
        serial = 0

        def change(kind: int, payload: bytes, wanted: int, fds: tuple[int, ...] = ()) -> None:
            nonlocal serial
            serial += 1
            g.send(kind, payload, serial=serial, fds=fds)
            if random.random() < 0.5:
                g.kill()
            while (f := g.expect_any()).type == RESUMED:
                pass
            t.equal((f.type, f.serial, f.numbers(1)), (RES_DONE, serial, (wanted,)), "answer")

        for _ in range(8):
            r, w = os.pipe()  # not a disk: who holds it can be seen
            change(RES_ADD, text("medium") + struct.pack("<IQQ", medium, 0, 1 << 20), 0, (w,))
            change(RES_ADD, text("medium") + struct.pack("<IQQ", medium, 0, 1 << 20), 0, (w,))
            t.equal((number(c, 0), number(c, BLK_CHANGE, 4)), (256, 0x100), "blocks, hook")
            change(RES_SIZE, text("medium") + struct.pack("<Q", 1 << 21), 0)
            change(RES_SIZE, text("medium") + struct.pack("<Q", 1 << 20), errno.EINVAL)
            change(RES_SIZE, text("other") + struct.pack("<Q", 1 << 20), errno.ENOENT)
            t.equal((number(c, 0), number(c, BLK_CHANGE, 4)), (512, 0x102), "blocks, hook")
            os.close(w)
            t.check(not select.select([r], [], [], 0)[0], "the worker holds the medium")
            change(RES_DEL, text("medium"), 0)
            t.equal(os.read(r, 1), b"", "who still holds the medium")
            os.close(r)
            t.equal((number(c, 0), number(c, BLK_CHANGE, 4)), (0, 0x101), "blocks, hook")


t.main()
