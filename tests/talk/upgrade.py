#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""umdev restart: workers go on in the program that is installed now, their clients do not notice."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

from lib import t
from lib.daemon import Daemon, parent_of, program, worker_of
from lib.installed import Installed, variant
from lib.load import COUNTER, Load, get
from lib.vfio_user import Client

RBR = THR = 0
FCR, MCR, LSR = 2, 4, 5
RESTARTS = int(os.environ.get("UMDEV_RESTARTS", "40"))


@contextlib.contextmanager
def daemon() -> Iterator[tuple[Daemon, Installed]]:
    """A umdevd whose worker's program can be replaced, with a card and a test parent."""
    with t.TempDir() as folder:
        i = Installed(folder)
        with Daemon(env={"UMDEV_WORKER": str(i.path)}) as d:
            d.add_card()
            with d.varlink() as v:
                v.call("ParentAdd", name="t0", driver="test", settings=[])
            yield d, i


def restart(d: Daemon, *arguments: str) -> list[str]:
    return d.umdev("restart", *arguments).stdout.split()


def refused(d: Daemon, *arguments: str, status: int = 1) -> str:
    p = d.umdev("restart", *arguments, ok=False)
    t.equal((p.returncode, p.stdout, p.stderr.count("\n")), (status, "", 1), "status and lines")
    return p.stderr


def layout() -> int:
    """Of the state memory, which the worker of this build reads and writes."""
    p = subprocess.run([program("umdev-worker"), "--state-versions"], capture_output=True,
                       timeout=5, check=True)
    return json.loads(p.stdout)["worker"]


def runs_installed(d: Daemon, i: Installed, device: str) -> bool:
    worker = worker_of(d, device)
    return i.runs(worker) and i.runs(parent_of(worker))


@t.case
def clients_lose_nothing_over_restarts() -> None:
    with daemon() as (d, i):
        device = d.create("t0", "test-regs")
        load = Load(d, device)
        keeper = parent_of(worker_of(d, device))
        namespace = os.readlink(f"/proc/{keeper}/ns/user")
        for _ in range(RESTARTS):
            i.install(program("umdev-worker"))
            t.check(not i.runs(keeper), "the file was not replaced")
            t.equal(restart(d, device), [device], "devices that moved")
            t.check(runs_installed(d, i, device), "the old program runs")
            t.equal(d.state_of(device), "connected", "state")
        t.equal(parent_of(worker_of(d, device)), keeper, "pid of the keeper")
        # One in the other, they would end at the 32nd: the next program would have none.
        t.equal(os.readlink(f"/proc/{keeper}/ns/user"), namespace, "user namespace")
        client = load.stop()
        t.fact(f"{RESTARTS} restarts, {load.accesses} accesses, 0 wrong; slowest answer "
               f"{client.slowest * 1000:.1f} ms")
        client.close()
        t.wait_for(lambda: not d.workers(), 5, "end of the worker")


def pump(c: Client, data: bytes) -> bytes:
    """The guest's end of a port: sends data and returns as many bytes that came."""
    back = bytearray()
    sent = 0
    while sent < len(data) or len(back) < len(data):
        status = c.read(0, LSR, 1)[0]
        if status & 1:
            back += c.read(0, RBR, 1)
        elif status & 0x20 and sent < len(data):
            c.write(0, THR, data[sent:sent + 1])
            sent += 1
        else:
            time.sleep(0.001)
    return bytes(back)


def exchange(fd: int, data: bytes, got: bytearray) -> None:
    """The host's end."""
    sent = 0
    while len(got) < len(data):
        ready = select.select([fd], [fd] if sent < len(data) else [], [], 20)
        if not ready[0] and not ready[1]:
            return
        if ready[0]:
            got += os.read(fd, 4096)
        if ready[1]:
            sent += os.write(fd, data[sent:sent + 64])


@t.case
def a_pty_loses_no_byte_over_restarts_and_deaths() -> None:
    with daemon() as (d, i):
        device = d.create("card0", "mtty-1")
        stop = threading.Event()
        n = [0]

        def disturb() -> None:
            while not stop.is_set():
                i.install(program("umdev-worker"))
                d.umdev("restart", "--all")
                n[0] += 1
                if n[0] % 3 == 0:
                    os.kill(worker_of(d, device), signal.SIGKILL)

        with Client(d.socket(device)) as c:
            c.write(0, FCR, b"\x07")
            c.write(0, MCR, b"\x0b")
            fd = os.open(d.device_dir(device) / "tty0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            down, up, got = os.urandom(6000), os.urandom(6000), bytearray()
            host = threading.Thread(target=exchange, args=(fd, down, got))
            disturber = threading.Thread(target=disturb)
            host.start()
            disturber.start()
            back = pump(c, up)
            host.join(20)
            stop.set()
            disturber.join(20)
            os.close(fd)
            t.equal(hashlib.sha256(back).hexdigest(), hashlib.sha256(down).hexdigest(),
                    "checksum of what the guest received")
            t.equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(up).hexdigest(),
                    "checksum of what the host received")
        t.check(n[0] >= 3, f"only {n[0]} restarts")
        t.fact(f"{len(up)} bytes each way over {n[0]} restarts")


@t.case
def all_moves_every_device_in_use_and_no_other() -> None:
    with daemon() as (d, i):
        idle = d.create("t0", "test-regs")
        used = [d.create("t0", "test-regs") for _ in range(3)] + [d.create("card0", "mtty-2")]
        shared = "peer_to_peer_resource_uuid=7b1a4c7e-0d0c-4a2b-9a55-3d2f7e6f5a10"
        pair = [d.create("t0", "test-dma", shared) for _ in range(2)]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(d.socket(u))) for u in used + pair[:1]]
            for c in clients[:3]:
                t.equal(get(c, COUNTER), 0, "counter")
            i.install(program("umdev-worker"))
            t.equal(sorted(restart(d, "--all")), sorted(used + pair), "devices that moved")
            for u in used + pair[:1]:
                t.check(runs_installed(d, i, u), f"{u} is served by the old program")
            t.equal([get(c, COUNTER) for c in clients[:3]], [1, 1, 1], "counters")
            with d.varlink() as v:
                t.equal(sorted(v.call("Restart")["devices"]), sorted(used + pair), "again")
        t.equal(d.state_of(idle), "idle", "state of the idle one")


@t.case
def nothing_in_use_is_nothing_to_do() -> None:
    with daemon() as (d, i):
        device = d.create("t0", "test-regs")
        i.path.unlink()  # nobody even asks it
        for arguments, words in (((device,), "the device is not in use"),
                                 (("--all",), "devices are not in use")):
            p = d.umdev("restart", *arguments)
            t.check(p.stdout == "" and words in p.stderr, p.stderr)
        t.equal(json.loads(d.umdev("restart", "--all", "-j").stdout), {"devices": []}, "JSON")
        t.check("no mdev" in refused(d, "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", status=3), "line")
        for arguments in ((), (device, "--all")):
            t.check("--all" in refused(d, *arguments, status=2), "line")


@t.case
def a_program_that_cannot_go_on_is_refused_before_anything_is_touched() -> None:
    with daemon() as (d, i):
        device = d.create("t0", "test-regs")
        with Client(d.socket(device)) as c:
            t.equal(get(c, COUNTER), 0, "counter")
            worker = worker_of(d, device)
            i.install(variant("layout"))
            line = refused(d, "--all")
            t.check("version 99" in line and f"version {layout()}:" in line, line)
            for text, words in (("#!/bin/sh\nexit 1\n", "--state-versions failed"),
                                ("#!/bin/sh\necho hello\n", "does not say which state it reads"),
                                ('#!/bin/sh\necho \'{"messages": 9, "worker": 2, "vfio": 1, '
                                 '"types": {}}\'\n', "version 9"),
                                ("no program", "cannot run")):
                new = i.path.with_suffix(".new")
                new.write_text(text)
                new.chmod(0o755)
                new.rename(i.path)
                line = refused(d, device)
                t.check(words in line, line)
            t.equal(worker_of(d, device), worker, "the worker")
            t.equal(get(c, COUNTER), 1, "counter")


@t.case
def the_old_program_serves_on_when_the_new_one_fails() -> None:
    with daemon() as (d, i):
        device = d.create("t0", "test-regs")
        with Client(d.socket(device)) as c:
            t.equal(get(c, COUNTER), 0, "counter")
            keeper = parent_of(worker_of(d, device))
            before = os.stat(f"/proc/{keeper}/exe")
            for name in ("group", "device", "crash"):
                i.install(variant(name))
                t.check("the old one serves on" in refused(d, device), "line")
                now = os.stat(f"/proc/{worker_of(d, device)}/exe")
                t.equal((now.st_dev, now.st_ino), (before.st_dev, before.st_ino), "program")
                t.equal(d.state_of(device), "connected", "state")
            i.install(program("umdev-worker"))
            t.equal(restart(d, device), [device], "devices that moved")
            t.equal(get(c, COUNTER), 1, "counter")


@t.case
def a_program_that_hangs_is_ended() -> None:
    with daemon() as (d, i):
        device = d.create("t0", "test-regs")
        with Client(d.socket(device)) as c:
            new = i.path.with_suffix(".new")
            new.write_text("#!/bin/sh\nexec sleep 60\n")
            new.chmod(0o755)
            new.rename(i.path)
            answers: list[tuple[int, str]] = []

            def call() -> None:
                p = d.umdev("restart", device, ok=False)
                answers.append((p.returncode, p.stderr))

            calls = [threading.Thread(target=call) for _ in range(2)]
            for thread in calls:
                thread.start()
            t.wait_for(lambda: answers, 4, "the call that came second")
            t.check(answers[0][0] == 4 and "being restarted already" in answers[0][1], f"{answers}")
            get(c, COUNTER)
            for thread in calls:
                thread.join(20)
            t.check(answers[1][0] == 1 and "--state-versions failed" in answers[1][1], f"{answers}")
            i.install(program("umdev-worker"))
            t.equal(restart(d, device), [device], "devices that moved")


@t.case
def an_adopted_worker_is_restarted_too() -> None:
    """The umdevd that started it is gone, and with it what it knew of the group."""
    with daemon() as (d, i):
        shared = "peer_to_peer_resource_uuid=7b1a4c7e-0d0c-4a2b-9a55-3d2f7e6f5a10"
        gone, device = (d.create("t0", "test-dma", shared) for _ in range(2))
        with Client(d.socket(device)) as c:
            d.umdev("remove", gone)
            d.kill()
            i.install(program("umdev-worker"))
            d.start()
            t.wait_for(lambda: "goes on with" in d.log(), 10, "adoption")
            t.equal(restart(d, "--all"), [device], "devices that moved")
            t.check(runs_installed(d, i, device), "the old program runs")
            get(c, 0, 4)


t.main()
