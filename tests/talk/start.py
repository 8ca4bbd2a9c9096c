#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""mdev_start and mdev_stop on real workers: what is committed stays committed over clients, over
the death of a worker and over the end of umdevd."""
from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

from lib import t
from lib.daemon import Daemon, is_sanitized, parent_of, worker_of
from lib.load import GAIN, get
from lib.varlink import VarlinkError
from lib.vfio_user import Client

START, STOP = "/class/mdev/mdev_start", "/class/mdev/mdev_stop"


@contextlib.contextmanager
def daemon(env: dict[str, str] | None = None) -> Iterator[Daemon]:
    with Daemon(env=env) as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="t0", driver="test", settings=[])
        yield d


def write(d: Daemon, path: str, text: str) -> None:
    with d.varlink() as v:
        v.call("Write", path=path, value=text)


def refused(d: Daemon, path: str, text: str, error: int) -> str:
    try:
        write(d, path, text)
    except VarlinkError as e:
        t.equal(e.parameters.get("errno"), errno.errorcode[error], f"{path} <- {text}")
        return e.parameters["text"]
    raise t.Failure(f"{path} <- {text}: accepted")


def started(d: Daemon, device: str) -> str:
    with d.varlink() as v:
        return v.call("Read", path=f"/bus/mdev/devices/{device}/mdev_started")["value"]


def keeper_of(d: Daemon, device: str) -> int:
    return parent_of(worker_of(d, device))


@t.case
def a_client_meets_the_worker_that_was_started_for_it() -> None:
    with daemon() as d:
        a, b = d.create("t0", "test-regs", "gain=7"), d.create("t0", "test-regs")
        write(d, START, f"{a} {b}\n")
        t.equal([d.state_of(a), d.state_of(b), started(d, a)], ["started", "started", "1\n"], "both")
        keepers = [keeper_of(d, a), keeper_of(d, b)]
        t.equal(len(d.workers()), 4, "keepers and workers of two groups")
        with Client(d.socket(a)) as c:
            t.equal(get(c, GAIN, 4), 7, "a value that the worker was given")
            t.equal(keeper_of(d, a), keepers[0], "the keeper that serves")
            t.check("disconnect" in refused(d, STOP, f"{a} {b}", errno.EBUSY), "why it is busy")
            t.equal(d.state_of(b), "started", "state of the other one")
        t.wait_for(lambda: d.state_of(a) == "started", 5, "the end of the client")
        # The next owner meets nothing of this one.
        t.wait_for(lambda: set(d.workers()) and keeper_of_or_none(d, a) not in (None, keepers[0]),
                   5, "a new worker")
        with Client(d.socket(a)) as c:
            t.equal(get(c, GAIN, 4), 7, "for the next owner")
        t.wait_for(lambda: d.state_of(a) == "started", 5, "the end of the second client")
        write(d, STOP, f"{b} {a}")
        t.equal([d.state_of(a), started(d, b)], ["idle", "0\n"], "after mdev_stop")
        t.wait_for(lambda: not d.workers(), 5, "the end of the workers")


def keeper_of_or_none(d: Daemon, device: str) -> int | None:
    try:
        return keeper_of(d, device)
    except (t.Failure, OSError, TypeError):
        return None


def worker_or_none(d: Daemon, device: str) -> int | None:
    try:
        return worker_of(d, device)
    except (t.Failure, OSError, ValueError):
        return None  # between two lives


@t.case
def a_group_is_started_by_its_name() -> None:
    with daemon() as d:
        a = d.create("t0", "test-dma")
        with d.varlink() as v:
            group = v.call("Read", path=f"/bus/mdev/devices/{a}/peer_to_peer_resource_uuid")
        group = group["value"].strip()
        b = d.create("t0", "test-dma", f"peer_to_peer_resource_uuid={group}")
        write(d, START, group)
        t.equal([d.state_of(a), d.state_of(b)], ["started", "started"], "the members")
        t.equal(keeper_of(d, a), keeper_of(d, b), "their one keeper")
        d.umdev("release", a)
        t.equal(len(d.workers()), 2, "keeper and worker while one member is started")
        d.umdev("release", group)
        t.wait_for(lambda: not d.workers(), 5, "the end of the worker")
        d.umdev("commit", a, b)
        # One member is taken away by force, the other one stays.
        d.umdev("remove", "--force", a)
        t.equal(d.state_of(b), "started", "the other member")
        d.umdev("remove", "--force", b)
        t.wait_for(lambda: not d.workers(), 5, "the end of the worker")


@t.case
def death_of_a_worker_or_of_umdevd_does_not_end_it() -> None:
    if is_sanitized():
        t.fact("not with sanitizers: it tells lives apart by time")
        return
    with daemon() as d:
        a = d.create("t0", "test-regs")
        write(d, START, a)
        keeper, worker = keeper_of(d, a), worker_of(d, a)
        os.kill(worker, signal.SIGKILL)
        t.wait_for(lambda: worker_or_none(d, a) not in (None, worker), 5, "the next life")
        t.equal(keeper_of(d, a), keeper, "its keeper")
        t.equal(d.state_of(a), "started", "state after the death of its worker")
        for end in (d.kill, d.leave):
            end()
            t.check(os.path.exists(f"/proc/{keeper}"), "an unmanaged worker went")
            d.start()
            t.equal([d.state_of(a), started(d, a)], ["started", "1\n"], "after a restart")
            t.equal(keeper_of(d, a), keeper, "its keeper")
        # Both gone: a new worker.
        d.kill()
        os.kill(keeper, signal.SIGKILL)
        t.wait_for(lambda: not d.workers(), 5, "the end of keeper and worker")
        d.start()
        t.wait_for(lambda: keeper_of_or_none(d, a), 5, "a new worker")
        t.equal(d.state_of(a), "started", "state with a new worker")
        with Client(d.socket(a)) as c:
            get(c, GAIN, 4)
            write(d, "/bus/mdev/devices/" + a + "/mdev/label/value", "served")
        # A worker that is taken away is a failure, with a reason.
        t.wait_for(lambda: d.state_of(a) == "started" and keeper_of_or_none(d, a), 5, "started")
        os.kill(keeper_of(d, a), signal.SIGKILL)
        t.wait_for(lambda: d.state_of(a) == "failed", 20, "the failure")
        t.equal(started(d, a), "0\n", "mdev_started of a failed one")
        write(d, START, a)
        t.equal(d.state_of(a), "started", "started anew")


@t.case
def released_while_no_umdevd_ran_cannot_be_but_unheld_workers_go() -> None:
    with daemon() as d:
        a = d.create("t0", "test-regs")
        write(d, START, a)
        with Client(d.socket(a)) as c:
            get(c, GAIN, 4)
            d.leave()
        t.check(len(d.workers()) == 2, "a started device keeps its worker without its client")
        d.start()
        t.wait_for(lambda: d.state_of(a) == "started", 5, "state started")
        write(d, STOP, a)
        t.wait_for(lambda: not d.workers(), 5, "the end of the worker")


@t.case
def all_or_none() -> None:
    if is_sanitized():
        t.fact("not with sanitizers: it tells lives apart by time")
        return
    fake = str(t.ROOT / "tests/lib/umdev-fake-worker")
    with t.TempDir() as tmp, \
            daemon({"UMDEV_WORKER": fake, "FAKE_WORKER": "only-first",
                    "FAKE_WORKER_LOG": f"{tmp}/log"}) as d:
        a, b = d.create("t0", "test-regs"), d.create("t0", "test-regs")
        text = refused(d, START, f"{a} {b}", errno.EIO)
        t.check("status 3" in text, f"the reason is told: {text}")
        t.equal([started(d, a), started(d, b)], ["0\n", "0\n"], "nothing was started")
        t.equal(sorted([d.state_of(a), d.state_of(b)]), ["failed", "idle"], "states")
    with daemon() as d:
        a, b = d.create("t0", "test-regs"), d.create("t0", "test-regs")
        refused(d, START, f"{a} {b} 00000000-0000-4000-8000-000000000000", errno.ENODEV)
        write(d, "/bus/mdev/drivers/test/unbind", b)
        refused(d, START, f"{a} {b}", errno.ENODEV)
        t.equal(d.workers(), [], "workers")


t.main()
