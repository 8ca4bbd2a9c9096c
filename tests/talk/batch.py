#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Many devices in one call: each as if it had been made or removed alone, or all or none."""
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

from lib import t
from lib.daemon import Daemon, program
from lib.varlink import Varlink, VarlinkError
from lib.vfio_user import Client


def names(n: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(n)]


@contextlib.contextmanager
def memory_daemon() -> Iterator[Daemon]:
    """On a tmpfs, as /run is: thousands of files on a busy disk would be what is tested."""
    with t.TempDir("/dev/shm") as place, Daemon(directory=place) as d:
        yield d


def parent(d: Daemon, *settings: str) -> None:
    with d.varlink() as v:
        v.call("ParentAdd", name="lab", driver="test", settings=list(settings))


def create(v: Varlink, specs: list[str], all: bool = False) -> list[Any]:
    return v.call("CreateMany", parent="lab", type="test-regs", specs=specs, all=all)["failed"]


def remove(v: Varlink, devices: list[str], force: bool = False, all: bool = False) -> list[Any]:
    return v.call("RemoveMany", names=devices, force=force, all=all)["failed"]


def refusal(v: Varlink, method: str, **arguments: Any) -> VarlinkError:
    try:
        v.call(method, **arguments)
    except VarlinkError as e:
        return e
    raise t.Failure(f"{method} was accepted")


def listed(v: Varlink) -> list[str]:
    return [x["uuid"] for x in v.call("List")["devices"]]


def available(v: Varlink) -> int:
    return next(x["available_instances"] for x in v.call("Types")["types"]
                if x["name"] == "test-regs")


@t.case
def a_batch_is_there_when_it_is_answered() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d, "units=300")
        us = names(300)
        t.equal(create(v, us), [], "failed")
        t.equal(listed(v), us, "devices, in the order of the call")
        t.equal(available(v), 0, "free units")
        for u in us:
            t.check(d.socket(u).is_socket(), f"no socket of {u}")
            t.check((d.run / "state" / u).is_file(), f"no state of {u}")
        t.equal(remove(v, us), [], "failed to be removed")
        t.equal((listed(v), available(v)), ([], 300), "devices and units afterwards")
        t.equal(os.listdir(d.run / "dev"), [], "directories of devices")
        t.equal(list((d.run / "state").glob("[!.]*")), [], "state files")


@t.case
def items_have_parameters_of_their_own() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d)
        a, b = names(2)
        t.equal(create(v, [f"{a},gain=3,label=left", f"{b},aggregation=7\n"]), [], "failed")
        values = {p["name"]: p["value"] for p in v.call("Show", name="left")["params"]}
        t.equal(values["gain"], "3", "gain")
        t.equal(available(v), 64 - 8, "units")


@t.case
def what_fails_is_told_and_the_rest_is_made() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d)
        a, b = names(2)
        failed = create(v, [a, "nonsense", f"{b},gian=3", a, f"{b},gain=13", f"{b},gain=101", b,
                            f"{names(1)[0]},aggregation=63"])
        t.equal([(f["index"], f["errno"], f["number"]) for f in failed],
                [(1, "EINVAL", 22), (2, "EINVAL", 22), (3, "EEXIST", 17), (4, "EDOM", 33),
                 (5, "ERANGE", 34), (7, "ENOSPC", 28)], "failed")
        for f, word in zip(failed, ("nonsense", "gain", a, "13", "100", "units")):
            t.check(word in f["text"] and "\n" not in f["text"], f"text: {f['text']}")
        t.equal(listed(v), [a, b], "devices")
        t.equal(available(v), 62, "units")


@t.case
def all_or_nothing_makes_nothing() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d)
        us = names(20)
        e = refusal(v, "CreateMany", parent="lab", type="test-regs", all=True,
                    specs=[*us, f"{us[3]},gain=2"])
        t.equal(e.errno, "EEXIST", "errno")
        for word in ("item 20", us[3], "nothing"):
            t.check(word in str(e), f"{e} does not say {word!r}")
        t.equal((listed(v), available(v)), ([], 64), "devices and units")
        t.equal(os.listdir(d.run / "dev"), [], "directories")
        t.equal(create(v, us, all=True), [], "failed")
        t.equal(listed(v), us, "devices of a second try")


@t.case
def all_or_nothing_removes_nothing() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d)
        us = names(5)
        create(v, us)
        for bad, errno in ((names(1)[0], "ENOENT"), (us[0], "EINVAL")):
            e = refusal(v, "RemoveMany", names=[*us, bad], force=False, all=True)
            t.equal((e.errno, listed(v)), (errno, us), f"removal with {bad}")
        with Client(d.socket(us[2])) as c:
            e = refusal(v, "RemoveMany", names=us, force=False, all=True)
            t.equal((e.errno, listed(v)), ("EBUSY", us), "removal with one in use")
            t.check("item 2" in str(e), str(e))
            failed = remove(v, us)
            t.equal([(f["index"], f["errno"]) for f in failed], [(2, "EBUSY")], "each for itself")
            t.equal(remove(v, [us[2]], force=True, all=True), [], "by force")
            t.check(c.is_closed(), "the client is still connected")
        t.equal(listed(v), [], "devices at the end")


@t.case
def a_batch_removal_waits_for_every_client() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d, "remove=wait")
        us = names(4)
        create(v, us)
        with Client(d.socket(us[1])), d.varlink() as other:
            with Client(d.socket(us[2])):
                v.send("RemoveMany", {"names": [*us, us[1]], "force": False, "all": False})
                t.wait_for(lambda: {x["state"] for x in other.call("List")["devices"]}
                           <= {"removing"}, 5, "the removal of all")
            t.wait_for(lambda: us[2] not in str(os.listdir(d.run / "dev")), 5, "the first to leave")
            v.socket.settimeout(0.2)
            try:
                raise t.Failure(f"answered while a client is there: {v.receive()}")
            except TimeoutError:
                v.socket.settimeout(20)
        failed = v.receive()["parameters"]["failed"]
        t.equal([(f["index"], f["errno"]) for f in failed], [(4, "ENODEV")], "failed")
        t.equal(listed(v), [], "devices")


@t.case
def a_client_of_a_batch_that_vanishes_ends_its_wait_only() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d, "remove=wait")
        us = names(2)
        create(v, us)
        with Client(d.socket(us[0])):
            with d.varlink() as gone:
                gone.send("RemoveMany", {"names": us, "force": False, "all": True})
                t.wait_for(lambda: us[1] not in str(v.call("List")), 5, "the removal of the other")
            v.call("ParentList")
        t.wait_for(lambda: not v.call("List")["devices"], 5, "the end of the first")


@t.case
def devices_that_take_time_are_awaited() -> None:
    """Each gets a volume, which another process makes."""
    with t.TempDir() as top, Daemon() as d, d.varlink() as v:
        (top / "store").mkdir()
        v.call("ParentAdd", name="lab", driver="disk", settings=[f"store={top}/store"])
        us = names(5)
        specs = [f"{u},capacity=1M" for u in us]

        def make(specs: list[str], all: bool) -> list[int]:
            answer = v.call("CreateMany", parent="lab", type="disk-nvme", specs=specs, all=all)
            return sorted(f["index"] for f in answer["failed"])
        t.equal(make([*specs, f"{us[0]},capacity=1M", specs[4] + ",nosuch=1"], False), [5, 6],
                "failed of each for itself")
        t.equal({x["uuid"]: x["state"] for x in v.call("List")["devices"]},
                {u: "idle" for u in us}, "devices")
        t.equal(remove(v, us), [], "removed")
        more = [f"{u},capacity=1M" for u in names(5)]
        e = refusal(v, "CreateMany", parent="lab", type="disk-nvme", specs=[*more, more[2]],
                    all=True)
        t.equal((e.errno, listed(v)), ("EEXIST", []), f"all or nothing: {e}")
        t.equal(make([f"{u},capacity=1M" for u in names(5)], True), [], "all of them")
        t.equal(len(listed(v)), 5, "devices of a second try")


@t.case
def a_batch_is_bounded() -> None:
    with memory_daemon() as d, d.varlink() as v:
        parent(d, "units=2000")
        t.equal(create(v, []), [], "none at all")
        e = refusal(v, "CreateMany", parent="lab", type="test-regs", specs=["x"] * 1001, all=False)
        t.equal(e.errno, "E2BIG", "one too many to create")
        t.equal(refusal(v, "RemoveMany", names=["x"] * 1001, force=False, all=True).errno, "E2BIG",
                "one too many to remove")
        t.equal(len(create(v, ["x"] * 1000)), 1000, "failures of the largest batch")
        t.equal(create(v, names(1000), all=True), [], "the largest batch")
        for arguments, errno in (({"parent": "lba", "type": "test-regs"}, "ENOENT"),
                                 ({"parent": "lab", "type": "test-rgs"}, "ENOENT")):
            t.equal(refusal(v, "CreateMany", specs=names(1), all=False, **arguments).errno, errno,
                    str(arguments))


@t.case
def a_batch_survives_umdevd() -> None:
    with Daemon() as d:
        parent(d, "units=100")
        us = names(100)
        with d.varlink() as v:
            create(v, us, all=True)
        d.kill()
        d.start()
        with d.varlink() as v:
            t.equal((listed(v), available(v)), (us, 0), "devices and units after a restart")


@t.case
def a_list_comes_in_parts_for_those_who_take_more() -> None:
    with memory_daemon() as d, d.varlink() as v:
        parent(d, "units=1201")
        us = names(1201)
        create(v, us[:1000])
        create(v, us[1000:])
        parts = [[x["uuid"] for x in p["devices"]] for p in v.stream("List")]
        t.equal([len(p) for p in parts], [500, 500, 201], "parts")
        t.equal(sum(parts, []), us, "devices of all parts")
        t.equal([p["devices"] for p in v.stream("List", parent="lab")][0][0]["uuid"], us[0],
                "the first one of a parent")
        t.equal(len(v.call("List")["devices"]), 1201, "devices without more")
        # Calls that are sent ahead wait for the last part; who hangs up in the middle is forgotten.
        v.send("List", {}, more=True)
        v.send("ParentList", {})
        t.equal([sorted(v.receive()["parameters"]) for _ in range(4)],
                [["devices"]] * 3 + [["parents"]], "answers in order")
        remove(v, us[:1000])
        remove(v, us[1000:])
        t.equal([p["devices"] for p in v.stream("List")], [[]], "one part, empty")
        for _ in range(20):
            with d.varlink() as gone:
                gone.send("List", {}, more=True)


# ---- the command ----

def umdev(d: Daemon, *arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program("umdev")), *arguments], env=d.env, text=True, input=lines,
                          capture_output=True, timeout=60)


MAKE = ("create", "-p", "lab", "-t", "test-regs")


@t.case
def several_uuids_share_their_settings() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d)
        us = names(3)
        p = umdev(d, *MAKE, us[0].upper(), *us[1:], "gain=5", "note=n")
        t.equal((p.stdout.split(), p.stderr, p.returncode), (us, "", 0), "what create prints")
        for u in us:
            values = {x["name"]: x["value"] for x in v.call("Show", name=u)["params"]}
            t.equal((values["gain"], values["note"]), ("5", "n"), "settings")
        p = umdev(d, *MAKE, us[0], names(1)[0], "gain=1,note=x")
        t.equal((p.returncode, "comma" in p.stderr), (2, True), f"a comma: {p.stderr}")
        p = umdev(d, "remove", *us)
        t.equal((p.stdout, p.stderr, p.returncode), ("", "", 0), "remove")
        t.equal(listed(v), [], "devices")


@t.case
def lines_of_standard_input_are_devices() -> None:
    with memory_daemon() as d, d.varlink() as v:
        parent(d, "units=3000")
        us = names(2500)
        lines = "".join(f"{u}\n" for u in us[:2499]) + f"\n{us[2499]},gain=9"
        p = umdev(d, *MAKE, "-", "note=n", lines=lines)
        t.equal((p.stdout.split(), p.stderr, p.returncode), (us, "", 0), "what create prints")
        t.equal(len(listed(v)), 2500, "devices")
        values = {x["name"]: x["value"] for x in v.call("Show", name=us[2499])["params"]}
        t.equal((values["gain"], values["note"]), ("9", "n"), "settings of the last")
        p = umdev(d, "remove", "-", lines=lines.replace(",gain=9", ""))
        t.equal((p.stdout, p.stderr, p.returncode, listed(v)), ("", "", 0, []), "remove")


@t.case
def a_call_holds_what_fits_into_a_message() -> None:
    with memory_daemon() as d:
        parent(d, "units=3000")
        us = names(600)
        p = umdev(d, *MAKE, "-", lines="".join(f"{u},note={'x' * 200}\n" for u in us))
        t.equal((p.stdout.split(), p.stderr, p.returncode), (us, "", 0), "what create prints")
        p = umdev(d, *MAKE, "-a", "-", lines="".join(f"{u}\n" for u in names(1001)))
        t.equal((p.stdout, p.returncode, "1000" in p.stderr), ("", 2, True), f"--all: {p.stderr}")


@t.case
def each_failure_is_a_line_and_the_first_is_the_status() -> None:
    with Daemon() as d, d.varlink() as v:
        parent(d)
        us = names(3)
        create(v, [us[1]])
        p = umdev(d, *MAKE, *us, "-j")
        t.equal(p.returncode, 4, f"status: {p.stderr}")
        t.equal([us[1] in line for line in p.stderr.splitlines()], [True], p.stderr)
        answer = json.loads(p.stdout)
        t.equal(answer["uuids"], [us[0], us[2]], "made")
        t.equal([(f["index"], f["errno"]) for f in answer["failed"]], [(1, "EEXIST")], "failed")
        p = umdev(d, *MAKE, "--all", *names(2), us[1])
        t.equal((p.stdout, p.returncode, p.stderr.count("\n")), ("", 4, 1), p.stderr)
        t.equal(len(listed(v)), 3, "devices")
        p = umdev(d, "remove", "--all", *us, names(1)[0])
        t.equal((p.returncode, len(listed(v))), (3, 3), f"remove --all: {p.stderr}")
        p = umdev(d, "remove", "nosuch", *us, "-j")
        t.equal((p.returncode, listed(v)), (3, []), f"remove: {p.stderr}")
        t.equal([f["index"] for f in json.loads(p.stdout)["failed"]], [0], "failed removals")


t.main()
