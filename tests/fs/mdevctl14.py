#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""mdevctl 1.4.0 of Debian 13, unmodified and without a namespace: MDEVCTL_ENV_ROOT=$UMDEV_RUN. And the
callout that umdev ships, with it and with the mdevctl of this machine."""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

from lib import t
from lib.clients import client
from lib.daemon import Daemon, program
from lib.varlink import VarlinkError

CALLOUT = t.ROOT / "packaging/mdevctl/umdev"
LABEL, BACKEND = "mdev/label/value", "mdev/backend/value"


@contextlib.contextmanager
def card() -> Iterator[Daemon]:
    with Daemon() as d:
        d.env["PATH"] = f"{program('umdev').parent}:{os.environ['PATH']}"
        d.add_card("card0")
        yield d


def mdevctl(d: Daemon, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    if not os.path.ismount(d.sys):
        t.skip("the tree is not mounted here")
    p = subprocess.run([client("mdevctl"), *words], env=d.env | {"MDEVCTL_ENV_ROOT": str(d.run)},
                       text=True, capture_output=True, timeout=30, check=False)
    t.equal(p.returncode == 0, ok, f"mdevctl {' '.join(words)} succeeds: {p.stderr}")
    return p


def add_callout(d: Daemon) -> None:
    folder = d.run / "usr/lib/mdevctl/scripts.d/callouts"
    if not (folder / "umdev").exists():  # else it is installed, and the folder is the machine's
        shutil.copy(CALLOUT, folder)


def attributes(d: Daemon, device: str) -> list[dict[str, str]]:
    return json.loads(mdevctl(d, "list", "-u", device, "--dumpjson").stdout).get("attrs", [])


@t.case
def it_needs_no_namespace() -> None:
    with card() as d:
        (parents,) = json.loads(mdevctl(d, "types", "--dumpjson").stdout)
        t.equal(list(parents), ["card0"], "parents")
        u = str(uuid.uuid4())
        mdevctl(d, "define", "-u", u, "-p", "card0", "-t", "mtty-2")
        mdevctl(d, "modify", "-u", u, f"--addattr={LABEL}", "--value=a")
        t.equal(d.umdev("list", "-d", "-j").stdout.count(u), 1, "umdev sees the definition")
        mdevctl(d, "start", "-u", u)
        t.equal((d.sys / "bus/mdev/devices" / u / LABEL).read_text(), "a\n", "label")
        t.check(u in mdevctl(d, "list").stdout, "the device is not listed")
        mdevctl(d, "stop", "-u", u)
        mdevctl(d, "modify", "-u", u, f"--addattr={BACKEND}", "--value=telepathy")
        said = mdevctl(d, "start", "-u", u, ok=False).stderr
        t.check("telepathy" in said, f"what was refused: {said}")
        t.equal(mdevctl(d, "list").stdout.strip(), "", "devices")
        mdevctl(d, "undefine", "-u", u)


@t.case
def attributes_of_a_device_are_told_and_changed() -> None:
    with card() as d, t.TempDir() as tmp:
        u = d.create("card0", "mtty-2", 'label=it\'s "it"')
        add_callout(d)
        t.equal(attributes(d, u), [{LABEL: 'it\'s "it"'}], "attributes")
        change = tmp / "change.json"

        def modify(*attrs: tuple[str, str], ok: bool = True) -> str:
            change.write_text(json.dumps({"mdev_type": "mtty-2", "start": "manual",
                                          "attrs": [{n: v} for n, v in attrs]}))
            return mdevctl(d, "modify", "-u", u, "-p", "card0", "--live", "--jsonfile",
                           str(change), ok=ok).stderr

        modify((LABEL, "new"), (BACKEND, "none"))
        t.equal(attributes(d, u), [{LABEL: "new"}, {BACKEND: "none"}], "attributes")
        said = modify((LABEL, "newer"), (BACKEND, "telepathy"), ok=False)
        t.check(said, "mdevctl says nothing")
        t.equal(attributes(d, u), [{LABEL: "new"}, {BACKEND: "none"}], "after the refusal")
        # A definition of it is the device again.
        mdevctl(d, "define", "-u", u)
        mdevctl(d, "stop", "-u", u)
        mdevctl(d, "start", "-u", u)
        t.equal(attributes(d, u), [{LABEL: "new"}, {BACKEND: "none"}], "the device made anew")


@t.case
def the_older_mdevctl_shows_them_too() -> None:
    if not shutil.which("mdevctl"):
        t.skip("no mdevctl here: run tools/setup")
    with card() as d:
        u = d.create("card0", "mtty-2", "label=old")
        folder = d.config / "mdevctl.d/scripts.d/callouts"
        folder.mkdir(parents=True)
        (folder / "umdev").symlink_to(CALLOUT)
        shown = d.umdev("exec", "mdevctl", "list", "-v", "-u", u).stdout
        t.check(json.dumps({LABEL: "old"}, separators=(",", ":")) in shown, f"list -v: {shown}")


@t.case
def live_changes_are_all_or_nothing() -> None:
    """The same by umdev itself, and the definition only when it is asked for."""
    with card() as d:
        u = d.create("card0", "mtty-2")
        d.umdev("define", "-u", u)
        kept = d.config / "mdevctl.d/card0" / u
        modify = ("modify", "-u", u, "--live", "--addattr")
        d.umdev(*modify, LABEL, "--value", "a")
        t.equal(json.loads(kept.read_text())["attrs"], [], "the definition")
        d.umdev(*modify, LABEL, "--value", "b", "--defined")
        t.equal(json.loads(kept.read_text())["attrs"], [{LABEL: "b"}], "the definition")
        t.equal(json.loads(d.umdev("show", "--attributes", u).stdout), [{LABEL: "b"}], "device")
        with d.varlink() as v:
            for bad in (f"{BACKEND}=telepathy", "nosuch=1", "remove", "../x=1", "mdev=1"):
                try:
                    v.call("SetAttrs", name=u, attrs=[f"{LABEL}=c", f"{BACKEND}=file", bad])
                except VarlinkError:
                    pass
                else:
                    raise t.Failure(f"{bad} was accepted")
                t.equal(v.call("Attrs", name=u)["attrs"], [f"{LABEL}=b"], f"after {bad}")


t.main()
