#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The unmodified mdevctl of Debian under `umdev exec`: what its users do with a kernel's /sys."""
from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator

from lib import t
from lib.daemon import Daemon


@contextlib.contextmanager
def card(*settings: str) -> Iterator[Daemon]:
    if not shutil.which("mdevctl") and not shutil.which("mdevctl", path="/usr/sbin"):
        t.skip("no mdevctl here: run tools/setup")
    with Daemon() as d:
        d.add_card("card0", *settings)
        yield d


def mdevctl(d: Daemon, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    return d.umdev("exec", "--", "mdevctl", *arguments, ok=ok)


def mdevctl_json(d: Daemon, *arguments: str) -> object:
    return json.loads(mdevctl(d, *arguments, "--dumpjson").stdout)


def available(d: Daemon) -> int:
    path = d.sys / "class/mdev_bus/card0/mdev_supported_types/mtty-2/available_instances"
    return int(path.read_text())


@t.case
def types_are_listed() -> None:
    with card() as d:
        (parents,) = mdevctl_json(d, "types")
        kinds = {k: v for kind in parents["card0"] for k, v in kind.items()}
        t.equal(sorted(kinds), ["mtty-1", "mtty-2"], "types")
        t.equal(kinds["mtty-1"]["available_instances"], 24, "mtty-1")
        t.equal(kinds["mtty-2"]["available_instances"], 12, "mtty-2")
        t.equal(kinds["mtty-2"]["device_api"], "vfio-pci", "device_api")


@t.case
def a_device_is_started_listed_and_stopped() -> None:
    with card() as d:
        u = str(uuid.uuid4())
        t.equal(mdevctl(d, "list").stdout.strip(), "", "list of none")
        mdevctl(d, "start", "-u", u, "-p", "card0", "--type", "mtty-2")
        t.equal(available(d), 11, "mtty-2 available")
        t.check(u in mdevctl(d, "list").stdout, "the device is not listed")
        t.equal(d.state_of(u), "idle", "state")
        t.check(d.socket(u).is_socket(), "no socket")
        again = mdevctl(d, "start", "-u", u, "-p", "card0", "--type", "mtty-2", ok=False)
        t.check(again.returncode != 0, "started twice")
        mdevctl(d, "stop", "-u", u)
        t.equal(available(d), 12, "mtty-2 available after stop")
        t.equal(mdevctl(d, "list").stdout.strip(), "", "list after stop")


@t.case
def definitions_stay_and_start_by_uuid() -> None:
    with card() as d:
        u = str(uuid.uuid4())
        mdevctl(d, "define", "-u", u, "-p", "card0", "--type", "mtty-1")
        kept = d.config / "mdevctl.d/card0" / u
        t.equal(json.loads(kept.read_text())["mdev_type"], "mtty-1", "definition on disk")
        t.check(u in mdevctl(d, "list", "--defined").stdout, "the definition is not listed")
        mdevctl(d, "start", "-u", u)
        t.equal(d.state_of(u), "idle", "state")
        mdevctl(d, "stop", "-u", u)
        mdevctl(d, "undefine", "-u", u)
        t.check(not kept.exists(), "the definition is still there")


@t.case
def an_attribute_is_written_at_start() -> None:
    with card() as d:
        u = str(uuid.uuid4())
        mdevctl(d, "define", "-u", u, "-p", "card0", "--type", "mtty-2")
        mdevctl(d, "modify", "-u", u, "--addattr=mdev/backend/value", "--value=none")
        mdevctl(d, "start", "-u", u)
        value = (d.sys / "bus/mdev/devices" / u / "mdev/backend/value").read_text()
        t.equal(value, "none\n", "backend")


@t.case
def a_refused_attribute_unwinds_the_start() -> None:
    with card() as d:
        u = str(uuid.uuid4())
        mdevctl(d, "define", "-u", u, "-p", "card0", "--type", "mtty-2")
        mdevctl(d, "modify", "-u", u, "--addattr=mdev/backend/value", "--value=telepathy")
        p = mdevctl(d, "start", "-u", u, ok=False)
        t.check(p.returncode != 0, "start with a refused attribute succeeded")
        t.check("telepathy" in p.stderr, f"mdevctl says not why: {p.stderr}")
        t.check(not (d.sys / "bus/mdev/devices" / u).exists(), "the device is still there")
        t.equal(available(d), 12, "mtty-2 available")


@t.case
def the_last_instance_is_refused_by_mdevctl_itself() -> None:
    with card() as d:
        for _ in range(12):
            mdevctl(d, "start", "-u", str(uuid.uuid4()), "-p", "card0", "--type", "mtty-2")
        p = mdevctl(d, "start", "-u", str(uuid.uuid4()), "-p", "card0", "--type", "mtty-2",
                    ok=False)
        t.check(p.returncode != 0, "a thirteenth device was started")


t.main()
