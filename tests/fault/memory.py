#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Each allocation of umdevd in turn fails, while it starts and devices are made, used and removed;
and each of the workers that it starts.

What is asked then either succeeds or is refused with ENOMEM; a refusal leaves the tree as it was,
and the same request succeeds right afterwards.
"""
from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon, is_sanitized, program
from lib.sysfs import probe, result, write_result
from lib.varlink import VarlinkError
from lib.vfio_user import Client

UUID = "e0000000-0000-4000-8000-000000000001"
MOST = 400  # allocations of one request; more means that something does not end


class Countdown:
    """Arms the failure of the nth allocation in a process (fail_alloc.c)."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        self.path = path
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8)

    def arm(self, n: int, pid: int) -> None:
        struct.pack_into("<ii", self.map, 0, n, pid)

    def arm_all_but(self, n: int, pid: int) -> None:
        self.arm(n, -pid)

    def disarm(self) -> bool:
        """Had the allocation come?"""
        left, = struct.unpack_from("<i", self.map)
        struct.pack_into("<i", self.map, 0, 0)
        return left == 0


@contextlib.contextmanager
def preload() -> Iterator[tuple[dict[str, str], Countdown]]:
    """The environment of a program whose allocations can fail."""
    library = t.BUILD / "tests/fault/libfail_alloc.so"
    if not library.exists():
        t.skip(f"{library} is not built")
    if is_sanitized():
        t.skip("a sanitizer has its own allocator")
    with t.TempDir() as directory:
        countdown = Countdown(directory / "count")
        yield {"LD_PRELOAD": str(library), "FAIL_ALLOC_FILE": str(countdown.path)}, countdown


@contextlib.contextmanager
def card() -> Iterator[tuple[Daemon, Countdown]]:
    with preload() as (env, countdown), Daemon(env=env) as d:
        d.add_card("card0")
        yield d, countdown


def types(d: Daemon) -> Path:
    return d.sys / "class/mdev_bus/card0/mdev_supported_types"


def device(d: Daemon) -> Path:
    return d.sys / "bus/mdev/devices" / UUID


def failing(d: Daemon, countdown: Countdown, request: Callable[[], str], good: str,
            undo: Callable[[], object]) -> int:
    """Lets each allocation of request fail; number of those that were refused."""
    before = probe(d.sys, "/sys")
    refused = 0
    for n in range(1, MOST):
        countdown.arm(n, d.process.pid)
        answer = request()
        came = countdown.disarm()
        if answer != good:
            t.equal(answer, "ENOMEM", f"answer with allocation {n} failing")
            t.check(came, "ENOMEM without a failed allocation")
            t.equal(probe(d.sys, "/sys"), before, f"tree after allocation {n} failed")
            t.equal(request(), good, f"the same again after allocation {n}")
            refused += 1
        undo()
        if not came:
            t.fact(f"{n - 1} allocations, {refused} refusals")
            return refused
    raise t.Failure(f"more than {MOST} allocations")


def answer_of(call: Callable[[], str]) -> str:
    """Its answer, or the errno of what it needed before."""
    try:
        return call()
    except OSError as e:
        return errno.errorcode[e.errno]


def opened_write(path: Path, text: str) -> str:
    """Of open and write: whichever says no."""
    return answer_of(lambda: write_result(path, text))


@t.case
def a_device_is_made_or_not() -> None:
    with card() as (d, countdown):
        for settings in ("", ",label=web,backend=none"):
            n = failing(d, countdown,
                        lambda s=settings: opened_write(types(d) / "mtty-2/create", UUID + s),
                        str(len(UUID + settings)),
                        lambda: t.equal(write_result(device(d) / "remove", "1"), "1", "remove"))
            t.check(n >= 10, f"only {n} allocations were refused")


@t.case
def a_device_is_removed_or_not() -> None:
    with card() as (d, countdown):
        t.equal(opened_write(types(d) / "mtty-2/create", UUID), "36", "create")
        failing(d, countdown, lambda: opened_write(device(d) / "remove", "1"), "1",
                lambda: t.equal(opened_write(types(d) / "mtty-2/create", UUID), "36", "create"))


@t.case
def files_are_read_listed_and_changed_or_not() -> None:
    with card() as (d, countdown):
        t.equal(opened_write(types(d) / "mtty-2/create", UUID), "36", "create")
        label = device(d) / "mdev/label/value"

        def read_slowly() -> int:
            fd = os.open(types(d) / "mtty-1/name", os.O_RDONLY)
            try:
                return len(os.read(fd, 3) + os.read(fd, 100))
            finally:
                os.close(fd)

        for request, good in ((lambda: result(read_slowly), "19"),
                              (lambda: result(lambda: len(os.listdir(d.sys / "bus"))), "1"),
                              (lambda: result(lambda: os.chmod(label, 0o640)), "ok")):
            failing(d, countdown, request, good, lambda: os.chmod(label, 0o644))
        failing(d, countdown, lambda: opened_write(label, "web"), "3",
                lambda: t.equal(write_result(label, "\n"), "1", "label"))


@t.case
def a_parent_comes_and_goes_or_not() -> None:
    with card() as (d, countdown):
        def call(method: str, **arguments: object) -> str:
            try:
                with d.varlink() as v:
                    v.call(method, **arguments)
            except VarlinkError:
                return "ENOMEM"  # or another refusal: JSON that found no memory is no call
            except (EOFError, ConnectionError):
                # the connection ends where there is no memory for it: before the call or after it
                return "ok" if (d.sys / "class/mdev_bus/card1").exists() else "ENOMEM"
            return "ok"

        def remove() -> None:
            t.equal(call("ParentRemove", name="card1"), "ok", "ParentRemove")

        failing(d, countdown,
                lambda: call("ParentAdd", name="card1", driver="mtty", settings=["params=off"]),
                "ok", remove)


def control_call(d: Daemon, wanted: str, method: str, **arguments: object) -> str:
    """"ok", "lost" (no memory for the connection), or the errno; wanted: a word of the answer."""
    try:
        with d.varlink() as v:
            t.check(wanted in str(v.call(method, **arguments)), f"{method} is not whole")
    except VarlinkError as e:
        return e.errno or e.name
    except (EOFError, ConnectionError):
        return "lost"
    return "ok"


@t.case
def the_control_socket_answers_whole_or_not_at_all() -> None:
    # Text that ends early, or has lost a letter, would be worse than no answer.
    with card() as (d, countdown):
        for method, wanted in (("Types", "backend1"), ("Drivers", "p2p_domain")):
            answers = set()
            for n in range(1, MOST):
                countdown.arm(n, d.process.pid)
                answers.add(control_call(d, wanted, method))
                if not countdown.disarm():
                    break
            t.check(answers <= {"ok", "lost", "ENOMEM"}, f"answers of {method}: {answers}")
            t.equal(control_call(d, wanted, method), "ok", "the same again")


@t.case
def a_device_made_by_the_control_socket_is_there_when_it_says_so() -> None:
    with card() as (d, countdown):
        for n in range(1, MOST):
            countdown.arm(n, d.process.pid)
            answer = control_call(d, UUID, "Create", parent="card0", type="mtty-2", uuid=UUID,
                                  settings=["label=web"])
            came = countdown.disarm()
            there = device(d).exists()
            t.check(answer in ("ok", "lost", "ENOMEM"), f"allocation {n}: {answer}")
            t.check(answer == "lost" or there == (answer == "ok"),
                    f"allocation {n}: {answer}, and the device is there: {there}")
            if there:
                t.equal(control_call(d, "", "Remove", name=UUID, force=False), "ok", "remove")
            if not came:
                return
        raise t.Failure(f"more than {MOST} allocations")


@t.case
def a_client_is_served_or_refused() -> None:
    program("umdev-worker")
    with card() as (d, countdown):
        t.equal(opened_write(types(d) / "mtty-2/create", UUID), "36", "create")

        def connect() -> str:
            try:
                c = Client(d.socket(UUID), hello=False)
                with contextlib.closing(c):
                    c.version()
                    c.info()
            except (EOFError, ConnectionError):
                return "ENOMEM"
            finally:
                # armed or not: what follows the hang-up is part of the request
                t.wait_for(lambda: not d.workers(), 10, "the end of the worker")
            return "ok"

        failing(d, countdown, connect, "ok", lambda: None)
        t.equal(d.state_of(UUID), "idle", "state")


@t.case
def a_parameter_of_a_device_in_use_is_changed_or_not() -> None:
    """In umdevd, then in its worker: all three agree on the value whatever fails."""
    program("umdev-worker")
    with preload() as (env, countdown), Daemon(env=env) as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="lab", driver="test", settings=[])
        device_id = d.create("lab", "test-regs")
        path = d.sys / "bus/mdev/devices" / device_id / "vendor/gain/value"
        with Client(d.socket(device_id)) as c:
            def value() -> tuple[str, int]:
                return path.read_text(), struct.unpack("<I", c.read(0, 0x38, 4))[0]

            def undo() -> None:
                t.equal(opened_write(path, "11"), "2", "gain 11")
                t.equal(value(), ("11\n", 11), "gain in the tree and in the device")

            undo()
            failing(d, countdown, lambda: opened_write(path, "7"), "1", undo)
            for n in range(1, MOST):
                countdown.arm_all_but(n, d.process.pid)
                answer = opened_write(path, "7")
                came = countdown.disarm()
                wanted = {"1": ("7\n", 7), "ENOMEM": ("11\n", 11)}
                t.check(answer in wanted, f"answer with allocation {n} of the worker failing: {answer}")
                t.equal(value(), wanted[answer], f"gain after allocation {n} of the worker failed")
                undo()
                if not came:
                    t.fact(f"{n - 1} allocations of the worker")
                    return
        raise t.Failure(f"more than {MOST} allocations of the worker")


def descriptors(d: Daemon) -> int:
    return len(os.listdir(f"/proc/{d.process.pid}/fd"))


@t.case
def a_worker_gets_ready_or_its_device_says_why_not() -> None:
    """Allocations of keeper and worker, from their start to the end of a session: each of the first,
    then ever fewer (the filter of system calls alone makes thousands)."""
    program("umdev-worker")
    n, tried, refused = 1, 0, 0
    with card() as (d, countdown):
        free = types(d) / "mtty-2/available_instances"
        before_fds = descriptors(d)
        while tried < MOST:
            tried += 1
            before = free.read_text()
            t.equal(opened_write(types(d) / "mtty-2/create", UUID), "36", "create")
            countdown.arm_all_but(n, d.process.pid)
            try:
                c = Client(d.socket(UUID), hello=False)
                with contextlib.closing(c):
                    # libseccomp goes round for ever in one case: umdevd ends that after 5 s.
                    c.socket.settimeout(15)
                    c.version()
                    c.write(0, 7, b"\x42")
                    t.equal(c.read(0, 7, 1), b"\x42", "scratch register")
            except (EOFError, ConnectionError):
                refused += 1
            came = countdown.disarm()
            t.wait_for(lambda: not d.workers(), 10, "the end of the worker")
            t.wait_for(lambda: d.state_of(UUID) in ("idle", "failed"), 5, "state")
            t.equal(opened_write(device(d) / "remove", "1"), "1", "remove")
            t.wait_for(lambda: descriptors(d) <= before_fds, 5, f"descriptors as before {n}")
            t.equal(free.read_text(), before, "units")
            if not came:
                t.fact(f"fewer than {n} allocations, {tried - 1} tried, {refused} refusals")
                return
            n += 1 + n // 12
    raise t.Failure("allocations without end")


@t.case
def a_start_succeeds_or_says_why_not() -> None:
    with preload() as (env, countdown), t.TempDir() as directory:
        refused = 0
        env["UMDEV_WORKER"] = "/nonexistent"  # is asked at the start, and would be counted too
        for n in range(1, MOST):
            d = Daemon(env=env, directory=directory)
            countdown.arm_all_but(n, os.getpid())
            try:
                d.start()
            except t.Failure as e:
                t.check("umdevd ended with 1:" in str(e), f"allocation {n}: {e}")
                t.check(d.log(), f"allocation {n}: not a word")
                refused += 1
                d.process = None
                t.check(not os.path.ismount(d.sys), f"allocation {n} left the mount")
            came = countdown.disarm()
            d.stop()
            d.log_path.unlink()
            if not came:
                t.fact(f"{n - 1} allocations, {refused} refusals")
                t.check(refused >= 5, "hardly an allocation was needed")
                return
        raise t.Failure(f"more than {MOST} allocations")


t.main()
