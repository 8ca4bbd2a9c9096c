#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""System calls of umdevd and of its workers fail, one after the other: in a start, while parents and
devices are made, used, changed and removed.

strace lets the nth call of one kind fail. What was asked for then either succeeds or names that
errno, and leaves nothing behind; a removal cannot fail.
"""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import t, vfio_user
from lib.daemon import Daemon, is_sanitized, program
from lib.sysfs import probe, write_result
from lib.varlink import VarlinkError
from lib.vfio_user import Client

UUID = "f0000000-0000-4000-8000-000000000001"
SCRATCH, GAIN = 0x08, 0x38  # registers of test-regs
ERROR = "EDQUOT"  # nothing here returns it by itself
# What making a device's directory and socket may call; not those of the loop and the FUSE door.
CALLS = ("mkdir", "mkdirat", "open", "openat", "socket", "bind", "listen", "fchmodat", "chmod",
         "epoll_ctl", "newfstatat", "fstat", "rename", "renameat", "symlinkat", "unlinkat", "rmdir")
CONNECT_CALLS = ("accept4", "socketpair", "socket", "bind", "listen", "memfd_create", "fcntl",
                 "openat", "clone3", "pidfd_open", "epoll_ctl", "sendmsg", "symlinkat")
# LeakSanitizer does not end well under a tracer.
TRACED = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
vfio_user.ANSWER_SECONDS = 4.0  # who cannot watch the end of a group looks again after 3 s
MOST = 12  # calls of one kind for one request
# What umdevd calls from its first line to READY, but for the loader's, and for telling that it is.
START_CALLS = ("epoll_create1", "epoll_ctl", "signalfd4", "flock", "mkdir", "bind", "listen",
               "chmod", "mount", "umount2", "getdents64", "unlink", "fchmod", "vfork",
               "clone3", "pidfd_open", "waitid", "wait4", "poll", "statfs", "prctl")
PARENT_CALLS = ("mkdir", "openat", "write", "fsync", "fdatasync", "rename", "renameat", "fchmod",
                "close", "fstat", "newfstatat")
PARAM_CALLS = ("openat", "write", "renameat", "rename", "sendmsg", "recvfrom", "fstat")
# What keeper and worker call from their exec to the end of a session.
WORKER_CALLS = ("mmap", "openat", "fcntl", "fstat", "newfstatat", "epoll_create1", "epoll_ctl",
                "eventfd2", "recvmmsg", "sendmmsg", "prctl", "capset", "seccomp", "prlimit64",
                "setrlimit", "getrlimit", "clone", "clone3", "io_uring_setup", "io_uring_register",
                "pipe2", "landlock_create_ruleset", "landlock_restrict_self", "memfd_create",
                "rt_sigaction", "pidfd_open", "close_range", "read", "pread64", "poll", "epoll_wait",
                "accept4", "getsockopt", "close", "munmap", "ftruncate", "mprotect")

# A sanitizer makes these itself, and does not go on when they fail.
SANITIZERS_OWN = {"mmap", "munmap", "mprotect", "prctl", "rt_sigaction", "openat", "read", "close",
                  "clone", "prlimit64", "fstat", "newfstatat"}


@contextlib.contextmanager
def injected(pid: int, call: str, n: int, log: Path, error: str = ERROR) -> Iterator[None]:
    """The nth of these calls from now fails, once."""
    p = subprocess.Popen(["strace", "-q", "-o", str(log), "-p", str(pid), "-e", f"trace={call}",
                          "-e", f"inject={call}:error={error}:when={n}"],
                         stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{pid}/status")
    try:
        t.wait_for(lambda: p.poll() is not None or f"TracerPid:\t{p.pid}" in status.read_text(), 5,
                   "strace")
        if p.poll() is not None:
            t.skip(f"strace cannot attach: {p.stderr.read().strip()}")
        yield
    finally:
        p.send_signal(signal.SIGTERM)
        p.wait()


@contextlib.contextmanager
def card() -> Iterator[Daemon]:
    if not shutil.which("strace"):
        t.skip("no strace here: run tools/setup")
    with Daemon(env=TRACED) as d:
        d.add_card("card0")
        yield d


def create(d: Daemon) -> str:
    path = d.sys / "class/mdev_bus/card0/mdev_supported_types/mtty-2/create"
    return write_result(path, UUID)


def remove(d: Daemon) -> str:
    return write_result(d.sys / "bus/mdev/devices" / UUID / "remove", "1")


def hits(log: Path) -> int:
    return log.read_text(errors="replace").count("(INJECTED)")


def descriptors(d: Daemon) -> int:
    return len(os.listdir(f"/proc/{d.process.pid}/fd"))


@t.case
def a_device_is_made_or_says_why_not() -> None:
    refused = []
    with card() as d:
        log = d.dir / "strace"
        before = probe(d.sys, "/sys")
        for call in CALLS:
            for n in range(1, MOST):
                with injected(d.process.pid, call, n, log):
                    answer = create(d)
                if not hits(log):
                    t.equal(answer, "36", "create")
                elif answer != "36":
                    t.equal(answer, ERROR, f"create with {call} {n} failing")
                    t.equal(probe(d.sys, "/sys"), before, f"tree after {call} {n} failed")
                    t.check(not d.device_dir(UUID).exists(), f"{call} {n} left the directory")
                    refused.append(f"{call}:{n}")
                    t.equal(create(d), "36", f"create after {call} {n} failed")
                t.equal(remove(d), "1", "remove")
                if not hits(log):
                    break
    t.fact(f"refused: {' '.join(refused)}")
    t.check(len(refused) >= 5, "hardly a call was refused")


@t.case
def a_removal_succeeds_whatever_fails() -> None:
    with card() as d:
        log = d.dir / "strace"
        for call in CALLS:
            for n in range(1, MOST):
                t.equal(create(d), "36", f"create before {call} {n}")
                with injected(d.process.pid, call, n, log):
                    t.equal(remove(d), "1", f"remove with {call} {n} failing")
                t.equal(os.listdir(d.sys / "bus/mdev/devices"), [], "devices")
                if not hits(log):
                    break


def connect(d: Daemon) -> str:
    try:
        with Client(d.socket(UUID)) as c:
            c.info()
    except (EOFError, ConnectionError):
        return "refused"
    finally:
        t.wait_for(lambda: not d.workers(), 10, "the end of the worker")
    return "served"


@t.case
def a_client_is_served_or_refused() -> None:
    """With a shortage, which passes: the next client is served."""
    program("umdev-worker")
    refused = []
    with card() as d:
        log = d.dir / "strace"
        t.equal(create(d), "36", "create")
        for call in CONNECT_CALLS:
            for n in range(1, MOST):
                with injected(d.process.pid, call, n, log, "ENOMEM"):
                    answer = connect(d)
                if answer == "refused":
                    t.check(hits(log), f"refused, and no {call} failed")
                    t.equal(connect(d), "served", f"the next client after {call} {n} failed")
                    refused.append(f"{call}:{n}")
                if not hits(log):
                    break
        t.equal(d.state_of(UUID), "idle", "state")
    t.fact(f"refused: {' '.join(refused)}")
    t.check(len(refused) >= 4, "hardly a call was refused")


# ---- a start ----

@t.case
def a_start_succeeds_or_says_why_not() -> None:
    if not shutil.which("strace"):
        t.skip("no strace here: run tools/setup")
    refused, tried = [], 0
    with t.TempDir() as directory:
        log = directory / "strace"
        for call in START_CALLS:
            for n in range(1, MOST):
                # -D: the tracer is a grandchild, umdevd the process that was started.
                d = Daemon(directory=directory, env=TRACED, below=(
                    "strace", "-D", "-qq", "-o", str(log), "-e", f"trace={call}",
                    "-e", f"inject={call}:error=ENOMEM:when={n}"))
                tried += 1
                try:
                    d.start()
                except t.Failure as e:
                    t.check("umdevd ended with 1:" in str(e), f"{call} {n}: {e}")
                    t.check(d.log().strip(), f"{call} {n}: not a word")
                    t.check(hits(log), f"{call} {n} did not fail, and the start did")
                    refused.append(f"{call}:{n}")
                    d.process = None
                    t.check(not os.path.ismount(d.sys), f"{call} {n} left the mount")
                d.stop()
                d.log_path.unlink()
                if not hits(log):
                    break
        with Daemon(directory=directory) as d:
            d.add_card()
    t.fact(f"{tried} starts, refused: {' '.join(refused)}")
    t.check(len(refused) >= 5, "hardly a call was refused")


# ---- parents and parameters, in umdevd ----

def error_of(d: Daemon, method: str, **arguments: object) -> str:
    try:
        with d.varlink() as v:
            v.call(method, **arguments)
    except VarlinkError as e:
        return e.errno or e.name
    except (EOFError, ConnectionError):
        return "lost"
    return ""


@t.case
def a_parent_is_added_or_says_why_not() -> None:
    refused = []
    with card() as d:
        log, before = d.dir / "strace", probe(d.sys, "/sys")
        files = sorted(d.config.rglob("*"))
        for call in PARENT_CALLS:
            for n in range(1, MOST):
                with injected(d.process.pid, call, n, log):
                    answer = error_of(d, "ParentAdd", name="card1", driver="mtty", settings=[])
                if answer:
                    t.check(hits(log), f"refused, and no {call} failed: {answer}")
                    t.equal(answer, ERROR, f"ParentAdd with {call} {n} failing")
                    t.equal(probe(d.sys, "/sys"), before, f"tree after {call} {n} failed")
                    t.equal(sorted(d.config.rglob("*")), files, f"files after {call} {n} failed")
                    refused.append(f"{call}:{n}")
                    t.equal(error_of(d, "ParentAdd", name="card1", driver="mtty", settings=[]), "",
                            f"ParentAdd after {call} {n} failed")
                t.equal(error_of(d, "ParentRemove", name="card1"), "", "ParentRemove")
                if not hits(log):
                    break
    t.fact(f"refused: {' '.join(refused)}")
    t.check(len(refused) >= 2, "hardly a call was refused")


@contextlib.contextmanager
def device_in_use() -> Iterator[tuple[Daemon, str, Client]]:
    if not shutil.which("strace"):
        t.skip("no strace here: run tools/setup")
    with Daemon(env=TRACED) as d:
        d.umdev("parent", "add", "lab", "driver=test")
        uuid = d.create("lab", "test-regs")
        with Client(d.socket(uuid)) as c:
            yield d, uuid, c


def gains(d: Daemon, uuid: str, c: Client) -> tuple[int, int]:
    """As the tree and as the device have it."""
    text = (d.sys / "bus/mdev/devices" / uuid / "vendor/gain/value").read_text()
    return int(text), int.from_bytes(c.read(0, GAIN, 4), "little")


@t.case
def a_live_parameter_is_changed_or_says_why_not() -> None:
    refused = []
    with device_in_use() as (d, uuid, c):
        log = d.dir / "strace"
        t.equal(error_of(d, "ParamSet", name=uuid, param="gain", value="11"), "", "gain 11")
        for call in PARAM_CALLS:
            for n in range(1, MOST):
                with injected(d.process.pid, call, n, log, "ENOMEM"):
                    answer = error_of(d, "ParamSet", name=uuid, param="gain", value="7")
                t.check(answer in ("", "ENOMEM", "lost"), f"answer with {call} {n} failing: {answer}")
                wanted = {"": (7, 7), "ENOMEM": (11, 11)}.get(answer, gains(d, uuid, c))
                t.equal(gains(d, uuid, c), wanted, f"gain after {call} {n} failed")
                if answer:
                    refused.append(f"{call}:{n}")
                t.equal(error_of(d, "ParamSet", name=uuid, param="gain", value="11"), "", "gain 11")
                if not hits(log):
                    break
    t.fact(f"refused: {' '.join(refused)}")


# ---- workers ----

@contextlib.contextmanager
def faulty_workers() -> Iterator[tuple[dict[str, str], Path]]:
    """The environment of a umdevd whose workers run below strace, and the file with its options:
    empty, and they do not. Counted in each process by itself, so keeper and worker both fail."""
    with t.TempDir() as directory:
        wrapper, options = directory / "worker", directory / "options"
        wrapper.write_text(f"""#!/bin/sh
set -- {program("umdev-worker")} "$@"
[ -s {options} ] && [ $# = 1 ] && set -- strace -D -f -qq $(cat {options}) "$@"
exec "$@"
""")
        wrapper.chmod(0o755)
        options.touch()
        yield TRACED | {"UMDEV_WORKER": str(wrapper)}, options


def session(d: Daemon, uuid: str) -> str:
    """A client's, with a live change of a parameter."""
    try:
        with Client(d.socket(uuid), hello=False) as c:
            c.version()
            c.write(0, SCRATCH, b"\x42")
            t.equal(c.read(0, SCRATCH, 1), b"\x42", "scratch register")
            answer = error_of(d, "ParamSet", name=uuid, param="gain", value="7")
            if not answer:
                t.equal(gains(d, uuid, c), (7, 7), "gain")
            return "served" if not answer else f"gain: {answer}"
    except (EOFError, ConnectionError):
        return "refused"


@t.case
def a_worker_serves_or_its_device_says_why_not() -> None:
    """Each call fails once per process; a device whose worker did not come up is made anew."""
    results: dict[str, list[str]] = {}
    calls = set(WORKER_CALLS) - (SANITIZERS_OWN if is_sanitized() else set())
    with faulty_workers() as (env, options), Daemon(env=env) as d:
        if not shutil.which("strace"):
            t.skip("no strace here: run tools/setup")
        d.umdev("parent", "add", "lab", "driver=test")
        free = d.sys / "class/mdev_bus/lab/mdev_supported_types/test-regs/available_instances"
        log, units, fds = options.with_name("strace"), free.read_text(), descriptors(d)
        for call in sorted(calls):
            n = 1
            while n < 80:
                options.write_text(f"-o {log} -e trace={call} "
                                   f"-e inject={call}:error=ENOMEM:when={n}")
                log.write_text("")
                uuid = d.create("lab", "test-regs")
                result = session(d, uuid)
                t.wait_for(lambda: not d.workers(), 10, f"the end of the worker, {call} {n}")
                t.wait_for(lambda u=uuid: d.state_of(u) in ("idle", "failed"), 5, "state")
                t.check(result != "refused" or hits(log), f"refused, and no {call} failed")
                t.equal(error_of(d, "Remove", name=uuid, force=False), "", f"remove, {call} {n}")
                t.equal(free.read_text(), units, f"units after {call} {n} failed")
                t.wait_for(lambda: descriptors(d) <= fds, 5, f"descriptors as before {call} {n}")
                if not hits(log):
                    break
                results.setdefault(result, []).append(f"{call}:{n}")
                n += 1 + n // 3
        options.write_text("")
        t.equal(session(d, d.create("lab", "test-regs")), "served", "without a fault")
    for result, calls in results.items():
        t.fact(f"{result}: {' '.join(calls)}")
    t.check(len(results.get("refused", [])) >= 5, "hardly a call was refused")
    t.check(len(results.get("served", [])) >= 5, "hardly a call may fail")


t.main()
