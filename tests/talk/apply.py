#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`umdev apply`: many changes, all or none."""
from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

from lib import t
from lib.daemon import Daemon
from lib.load import GAIN, get
from lib.sysfs import probe
from lib.varlink import VarlinkError
from lib.vfio_user import Client

Change = dict[str, Any]


@contextlib.contextmanager
def host(env: dict[str, str] | None = None) -> Iterator[Daemon]:
    with Daemon(env=env) as d:
        d.add_card("card0")
        with d.varlink() as v:
            v.call("ParentAdd", name="t0", driver="test", settings=[])
        yield d


def create(kind: str, *settings: str, name: str = "", parent: str = "card0") -> Change:
    return {"verb": "create", "name": name or str(uuid.uuid4()), "parent": parent, "type": kind,
            "settings": list(settings)}


def change(verb: str, name: str, *settings: str) -> Change:
    return {"verb": verb, "name": name} | ({"settings": list(settings)} if settings else {})


def apply(d: Daemon, *changes: Change, dry: bool = False) -> None:
    with d.varlink() as v:
        v.call("Apply", changes=list(changes), dry_run=dry)


def refused(d: Daemon, errno: str, *changes: Change, dry: bool = True) -> str:
    """By the check and in earnest; neither leaves a trace."""
    before = everything(d)
    for only_check in ((True, False) if dry else (False,)):
        try:
            apply(d, *changes, dry=only_check)
        except VarlinkError as e:
            t.equal(e.parameters["errno"], errno, f"{changes}: {e.parameters['text']}")
            text = e.parameters["text"]
        else:
            raise t.Failure(f"accepted: {changes}")
        t.equal(everything(d), before, f"after {changes}")
    return text


def everything(d: Daemon) -> list[Any]:
    with d.varlink() as v:
        return [v.call("List")["devices"], v.call("Types")["types"],
                probe(d.sys, "/sys/bus/mdev") if os.path.ismount(d.sys) else []]


def state(d: Daemon, device: str) -> str:
    return d.state_of(device)


@t.case
def a_file_changes_everything_at_once() -> None:
    with host() as d, t.TempDir() as tmp:
        old, kept = d.create("card0", "mtty-2"), d.create("t0", "test-regs", "label=kept")
        new = [create("mtty-2", f"label=n{i}") for i in range(3)]
        file = tmp / "change.json"
        file.write_text(json.dumps([
            change("remove", old), *new, change("set", "kept", "gain=7", "label=other"),
            change("set", new[0]["name"], "backend=none"), change("commit", kept),
            change("commit", new[1]["name"])]))
        before = everything(d)
        d.umdev("apply", "--dry-run", str(file))
        t.equal(everything(d), before, "after the dry run")
        d.umdev("apply", str(file))
        with d.varlink() as v:
            found = {x["uuid"]: x for x in v.call("List")["devices"]}
        t.equal(set(found), {kept} | {x["name"] for x in new}, "devices")
        t.equal(found[kept]["settings"], ["label=other", "gain=7"], "values")
        t.equal(found[new[0]["name"]]["settings"], ["label=n0", "backend=none"], "new values")
        t.equal([found[x]["state"] for x in (kept, new[0]["name"], new[1]["name"])],
                ["started", "idle", "started"], "states")


@t.case
def the_first_that_is_not_possible_is_named_and_nothing_changes() -> None:
    with host() as d:
        a, b = d.create("card0", "mtty-2", "label=a"), d.create("t0", "test-regs")
        u = str(uuid.uuid4())
        made = create("mtty-2", name=u)
        for errno, changes in (
                ("EINVAL", [made, change("shrink", a)]),
                ("EINVAL", [made, {"verb": "create", "name": a}]),
                ("EINVAL", [made, change("remove", a) | {"more": "1"}]),
                ("ENOENT", [made, create("mtty-3")]),
                ("ENOENT", [made, create("mtty-1", parent="card9")]),
                ("EEXIST", [made, made]),
                ("EEXIST", [made, create("mtty-1", name=a)]),
                ("ERANGE", [made, create("mtty-1", "backend=telepathy")]),
                ("ENOSPC", [create("mtty-2") for _ in range(12)]),
                ("ENOENT", [made, change("set", "nobody", "label=x")]),
                ("ENOENT", [made, change("set", a, "label=x", "nosuch=1")]),
                ("ENOENT", [made, change("set", u, "label=x", "nosuch=1")]),
                ("ERANGE", [made, change("set", a, "label=x"), change("set", b, "gain=1000")]),
                ("ERANGE", [made, change("set", b, "aggregation=10000")]),
                ("ENOENT", [made, change("commit", "nobody")]),
                ("EINVAL", [made, change("remove", u)])):
            refused(d, errno, *changes)
        text = refused(d, "ENOENT", made, change("remove", a), change("remove", "nobody"))
        t.check(text.startswith("change 3, remove nobody: "), f"which one: {text}")
        text = refused(d, "ENOENT", made, create("mtty2"))
        t.check("mtty-2" in text, f"the nearest type: {text}")
        with Client(d.socket(b)):
            refused(d, "EBUSY", made, change("remove", b))
        with Client(d.socket(a)):
            refused(d, "EBUSY", made, change("set", a, "backend=none"))


@t.case
def what_a_worker_refuses_undoes_what_was_done() -> None:
    """Live values in a worker and devices that are there are as before; others were not made."""
    fake = str(t.ROOT / "tests/lib/umdev-fake-worker")
    with host() as d:
        a, b = d.create("t0", "test-regs"), d.create("t0", "test-regs", "gain=3")
        # 13 is refused by the driver's half in umdevd, 14 by the one in the worker.
        made = create("mtty-1")
        refused(d, "EDOM", made, change("set", b, "gain=9", "gain=13"), dry=False)
        with Client(d.socket(a)) as c:
            refused(d, "ERANGE", made, change("set", a, "gain=9"), change("set", a, "gain=14"),
                    change("commit", b), dry=False)
            t.equal(get(c, GAIN, 4), 1, "gain of the running device")
        t.wait_for(lambda: state(d, a) == "idle", 5, "the end of the client")
        d.umdev("commit", b)
    with t.TempDir() as tmp, host({"UMDEV_WORKER": fake, "FAKE_WORKER": "only-first",
                                   "FAKE_WORKER_LOG": f"{tmp}/log"}) as d:
        a, b, c = (d.create("t0", "test-regs", "gain=3") for _ in range(3))
        d.umdev("commit", c)
        made = create("mtty-1")
        try:
            apply(d, made, change("set", a, "gain=5", "label=new"), change("commit", a),
                  change("commit", b), change("commit", c), change("remove", a))
        except VarlinkError as e:
            t.equal(e.parameters["errno"], "EIO", e.parameters["text"])
        else:
            raise t.Failure("a worker that exits was accepted")
        with d.varlink() as v:
            found = {x["uuid"]: x for x in v.call("List")["devices"]}
            values = {p["name"]: p["value"] for p in v.call("Show", name=a)["params"]}
        t.equal(set(found), {a, b, c}, "devices")
        t.equal((values["gain"], values["label"]), ("3", ""), "values")
        t.equal(found[c]["state"], "started", "what was started before stays so")


@t.case
def files_that_are_wrong_are_told() -> None:
    with host() as d, t.TempDir() as tmp:
        file = tmp / "x.json"
        for text, words in (("[\n{]", "line 2"), ("{}", "list of changes"), ("[1]", "list of changes"),
                            ('[{"verb": "creat", "name": "x"}]', "did you mean create")):
            file.write_text(text)
            p = d.umdev("apply", str(file), ok=False)
            t.equal((p.returncode, len(p.stderr.splitlines())), (2, 1), f"{text}: {p.stderr}")
            t.check(words in p.stderr, f"{text}: {p.stderr}")
        t.equal(d.umdev("apply", str(tmp / "no"), ok=False).returncode, 3, "no file")
        file.write_text("[]")
        d.umdev("apply", str(file))


t.main()
