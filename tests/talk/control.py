#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The control socket: Varlink as its clients rely on it, clients that break it, who may what."""
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from typing import Any

from lib import t
from lib.daemon import Daemon
from lib.varlink import Varlink, VarlinkError

FAKE = str(t.ROOT / "tests/lib/umdev-fake-worker")
TYPE1 = "/class/mdev_bus/card0/mdev_supported_types/mtty-1"


def daemon(mode: str = "") -> Daemon:
    return Daemon(env={"UMDEV_WORKER": FAKE, "FAKE_WORKER": mode})


def error(v: Varlink, method: str, **parameters: Any) -> VarlinkError:
    try:
        v.call(method, **parameters)
    except VarlinkError as e:
        return e
    raise t.Failure(f"{method} {parameters} was accepted")


def connect(d: Daemon, uuid: str) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(15)
    s.connect(str(d.socket(uuid)))
    t.wait_for(lambda: d.state_of(uuid) == "connected", 10, "state connected")
    return s


# ---- the protocol ----

@t.case
def it_describes_itself() -> None:
    with daemon() as d, d.varlink() as v:
        info = v.call("org.varlink.service.GetInfo")
        t.equal(info["interfaces"], ["org.varlink.service", "io.umdev"], "interfaces")
        text = v.call("org.varlink.service.GetInterfaceDescription", interface="io.umdev")
        file = t.ROOT / "src/wire/io.umdev.varlink"
        t.equal(text["description"], file.read_text(), "description of io.umdev")
        for name in info["interfaces"]:
            v.call("org.varlink.service.GetInterfaceDescription", interface=name)


@t.case
def the_description_is_true_to_the_code() -> None:
    """Same methods; of each, the same parameters with the same types, and no other."""
    plain = {"string": ("x", 1), "bool": (False, "x"), "int": (1, "x"), "[]string": (["x"], [1]),
             "[]Change": ([], ["x"])}
    with daemon() as d, d.varlink() as v:
        text = v.call("org.varlink.service.GetInterfaceDescription",
                      interface="io.umdev")["description"]
        methods = dict(re.findall(r"^method (\w+)\((.*?)\)", text, re.M | re.S))
        code = (t.ROOT / "src/manager/control_methods.c").read_text()
        t.equal(sorted(methods), sorted(re.findall(r'\{ "io\.umdev\.(\w+)"', code)), "methods")
        for name, words in methods.items():
            fields = dict(f.split(": ") for f in re.split(r",\s+", words.strip())) if words else {}
            required = {f: plain[k][0] for f, k in fields.items() if k[0] != "?"}
            e = error(v, name, **required, nosuch=1)
            t.equal(e.parameters, {"parameter": "nosuch"}, f"{name} with an unknown word")
            for f, kind in fields.items():
                e = error(v, name, **{**required, f: plain[kind.lstrip("?")][1]})
                t.equal(e.parameters, {"parameter": f}, f"{name} with {f} of a wrong type")
                if f in required:
                    e = error(v, name, **{k: x for k, x in required.items() if k != f})
                    t.equal(e.parameters, {"parameter": f}, f"{name} without {f}")


@t.case
def what_is_unknown_or_wrong_is_named() -> None:
    service = "org.varlink.service."
    with daemon() as d, d.varlink() as v:
        e = error(v, "io.umdev.Nosuch")
        t.equal((e.name, e.parameters), (service + "MethodNotFound", {"method": "io.umdev.Nosuch"}),
                "an unknown method")
        e = error(v, "a.b.C")
        t.equal((e.name, e.parameters), (service + "InterfaceNotFound", {"interface": "a.b.C"}),
                "an unknown interface")
        for parameters, bad in (({}, "name"), ({"name": 1}, "name"), ({"name": None}, "name"),
                                ({"name": "a", "x": 1}, "x")):
            e = error(v, "Show", **parameters)
            t.equal((e.name, e.parameters), (service + "InvalidParameter", {"parameter": bad}),
                    f"Show with {parameters}")
        t.equal(error(v, "Monitor").name, service + "ExpectedMore", "Monitor without more")


@t.case
def calls_may_be_sent_ahead_and_are_answered_in_order() -> None:
    with daemon() as d, d.varlink() as v:
        d.add_card()
        call = json.dumps({"method": "io.umdev.Read", "parameters":
                           {"path": TYPE1 + "/available_instances"}}).encode() + b"\0"
        other = json.dumps({"method": "io.umdev.Read", "parameters":
                            {"path": TYPE1 + "/device_api"}}).encode() + b"\0"
        v.send_raw((call + other) * 200)
        for _ in range(200):
            t.equal(v.receive()["parameters"]["value"], "24\n", "the first of two answers")
            t.equal(v.receive()["parameters"]["value"], "vfio-pci\n", "the second of two answers")


@t.case
def a_call_may_come_in_single_bytes() -> None:
    with daemon() as d, d.varlink() as v:
        for byte in b'{"method":"io.umdev.List"}\0':
            v.send_raw(bytes([byte]))
        t.equal(v.receive(), {"parameters": {"devices": []}}, "the answer")


@t.case
def a_oneway_call_is_done_and_not_answered() -> None:
    with daemon() as d, d.varlink() as v:
        v.send("ParentAdd", {"name": "card0", "driver": "mtty", "settings": []}, oneway=True)
        v.send("ParentAdd", {"name": "card0", "driver": "mtty", "settings": []}, oneway=True)
        v.send("Nosuch", {}, oneway=True)
        t.equal([p["name"] for p in v.call("ParentList")["parents"]], ["card0"], "parents")


def drops(data: bytes) -> None:
    """Whoever sends that is dropped; others are not."""
    with daemon() as d, d.varlink() as witness:
        with d.varlink() as v:
            v.send_raw(data)
            try:
                t.check(False, f"{data[:40]!r} was answered: {v.receive()}")
            except (EOFError, ConnectionResetError):
                pass
        t.check("control: client" in d.log(), "a line says why")
        witness.call("List")


@t.case
def what_is_no_call_closes_the_connection() -> None:
    for data in (b"\0", b"x\0", b"[]\0", b"{}\0", b'{"method":1}\0', b"\xff\xfe\0",
                 b'{"method":"io.umdev.List","parameters":[]}\0', b"GET / HTTP/1.1\r\n\r\n\0",
                 b'{"method":"io.umdev.List","upgrade":true}\0', b"[" * 5000 + b"\0"):
        drops(data)


@t.case
def a_call_without_end_is_dropped_at_the_limit() -> None:
    drops(b"{" * 65536)


@t.case
def answers_before_a_broken_call_still_arrive() -> None:
    with daemon() as d, d.varlink() as v:
        v.send_raw(b'{"method":"io.umdev.List"}\0{"method"\0')
        t.equal(v.receive(), {"parameters": {"devices": []}}, "the answer")
        try:
            t.check(False, f"the broken call was answered: {v.receive()}")
        except EOFError:
            pass


@t.case
def a_client_that_does_not_read_holds_up_nobody() -> None:
    with daemon() as d, d.varlink() as witness:
        d.add_card()
        with d.varlink() as v:
            v.socket.setblocking(False)
            call = b'{"method":"io.umdev.Types"}\0'
            sent = 0
            try:
                while sent < 4 << 20:
                    sent += v.socket.send(call * 100)
            except BlockingIOError:
                pass
            t.check(sent < 4 << 20, "it takes calls without end")
            witness.call("List")
            v.socket.settimeout(20)
            t.check("types" in v.receive()["parameters"], "the first answer")


# ---- answers that come later ----

@t.case
def a_removal_that_waits_is_answered_when_the_client_has_left() -> None:
    with daemon() as d, d.varlink() as v:
        d.add_card("card0", "remove=wait")
        uuid = d.create("card0", "mtty-1")
        s = connect(d, uuid)
        v.send("Remove", {"name": uuid, "force": False})
        v.send("List", {})
        t.wait_for(lambda: d.log().count(f"device {uuid}") >= 2, 5, "the removal")
        s.close()
        t.equal(v.receive(), {"parameters": {}}, "the answer of Remove")
        t.equal(v.receive(), {"parameters": {"devices": []}}, "the answer of List behind it")


@t.case
def a_client_that_vanishes_cancels_the_wait_not_the_change() -> None:
    with daemon("deaf") as d, d.varlink() as v:
        d.add_card("card0", "remove=wait")
        uuid = d.create("card0", "mtty-1")
        s = connect(d, uuid)
        with d.varlink() as gone:
            gone.send("Remove", {"name": uuid, "force": False})
            t.wait_for(lambda: not list(d.sys.glob(f"bus/mdev/devices/{uuid}"))
                       if os.path.ismount(d.sys) else
                       not v.call("List")["devices"] or
                       v.call("List")["devices"][0]["state"] == "removing", 5, "the removal")
        v.call("ParentList")
        s.close()
        t.wait_for(lambda: not v.call("List")["devices"], 5, "the end of the device")


# ---- monitor ----

@t.case
def a_monitor_sees_the_life_of_a_device_from_the_first_reply_on() -> None:
    with daemon() as d, d.varlink() as v:
        d.add_card()
        events = v.stream("Monitor")
        t.equal(next(events), {}, "the first reply")
        uuid = d.create("card0", "mtty-1")
        with d.varlink() as other:
            other.call("ParamSet", name=uuid, param="label", value="x")
            connect(d, uuid).close()
            t.wait_for(lambda: d.state_of(uuid) == "idle", 5, "state idle")
            other.call("Remove", name="x", force=False)
        seen = []
        while not seen or seen[-1][0] != "removed":
            e = next(events)["event"]
            t.equal((e["uuid"], e["parent"]), (uuid, "card0"), "whose event")
            seen.append((e["what"], e.get("detail")))
        for wanted in (("added", None), ("param", "label=x"), ("state", "connected"),
                       ("state", "idle"), ("removed", None)):
            t.check(wanted in seen, f"{wanted} is missing in {seen}")


@t.case
def a_monitor_is_told_what_a_kernel_would_tell_udev() -> None:
    with daemon() as d, d.varlink() as v:
        d.add_card()
        events = v.stream("Monitor")
        next(events)
        uuid = d.create("card0", "mtty-1")
        with d.varlink() as other:
            group = other.call("Show", name=uuid)["device"]["group"]
            other.call("Remove", name=uuid, force=False)
        seen = []
        while not seen or seen[-1][0:2] != ["remove", "mdev"]:
            for u in next(events)["event"]["uevents"]:
                seen.append([u["action"], u["subsystem"], u["devpath"], *u["env"]])
        path = f"/devices/virtual/mtty/card0/{uuid}"
        vfio = ["vfio", f"/devices/virtual/vfio/{group}", f"DEVNAME=vfio/{group}"]
        t.equal(seen, [["add", "mdev", path], ["add", *vfio],
                       ["add", "vfio-dev", path + "/vfio-dev/vfio0"],
                       ["bind", "mdev", path, "DRIVER=mtty"],
                       ["remove", "vfio-dev", path + "/vfio-dev/vfio0"], ["remove", *vfio],
                       ["unbind", "mdev", path], ["remove", "mdev", path]], "uevents")


@t.case
def a_monitor_that_does_not_read_is_dropped_with_a_word() -> None:
    with daemon() as d, d.varlink() as v, d.varlink(timeout=60) as worker:
        d.add_card()
        uuid = d.create("card0", "mtty-1")
        events = v.stream("Monitor")
        next(events)
        call = {"name": uuid, "param": "label"}
        for n in range(200):
            for m in range(40):
                worker.send("ParamSet", {**call, "value": f"{n}-{m}-" + "x" * 200})
            for _ in range(40):
                worker.receive()
            if "does not read" in d.log():
                break
        t.check("does not read" in d.log(), "it was not dropped")
        try:
            for _ in events:
                pass
            raise t.Failure("no word was said")
        except VarlinkError as e:
            t.equal(e.errno, "ENOBUFS", "the last reply")


# ---- errors ----

@t.case
def errors_have_the_errno_and_a_line_for_people() -> None:
    with daemon() as d, d.varlink() as v:
        d.add_card()
        uuid = d.create("card0", "mtty-1", "label=only")
        for method, parameters, errno, word in (
                ("ParentAdd", {"name": "card0", "driver": "mtty", "settings": []}, "EEXIST", "card0"),
                ("ParentAdd", {"name": "A_b", "driver": "mtty", "settings": []}, "EINVAL", "A_b"),
                ("ParentAdd", {"name": "c", "driver": "mtyt", "settings": []}, "ENOENT", "mtty"),
                ("ParentAdd", {"name": "c", "driver": "mtty", "settings": ["x"]}, "EINVAL",
                 "key=value"),
                ("ParentAdd", {"name": "c", "driver": "mtty", "settings": ["remvoe=wait"]},
                 "EINVAL", "remove"),
                ("ParentRemove", {"name": "nosuch"}, "ENOENT", "nosuch"),
                ("Types", {"parent": "nosuch"}, "ENOENT", "nosuch"),
                ("List", {"parent": "nosuch"}, "ENOENT", "nosuch"),
                ("Create", {"parent": "card0", "type": "mtty-3", "settings": []}, "ENOENT", "mtty-"),
                ("Create", {"parent": "card0", "type": "mtty-1", "uuid": "x", "settings": []},
                 "EINVAL", "x"),
                ("Create", {"parent": "card0", "type": "mtty-1", "uuid": uuid, "settings": []},
                 "EEXIST", uuid),
                ("Create", {"parent": "card0", "type": "mtty-1", "settings": ["label=a,b=c"]},
                 "EINVAL", "comma"),
                ("Create", {"parent": "card0", "type": "mtty-1", "settings": ["bakcend=pty"]},
                 "EINVAL", "backend"),
                ("Show", {"name": "nosuch"}, "ENOENT", "nosuch"),
                ("ParamSet", {"name": "only", "param": "num_ports", "value": "2"}, "EACCES",
                 "num_ports"),
                ("ParamSet", {"name": "only", "param": "backend", "value": "x"}, "ERANGE", "pty"),
                ("Read", {"path": "/nosuch"}, "ENOENT", "/nosuch"),
                ("Read", {"path": "bus"}, "EINVAL", "bus"),
                ("Read", {"path": "/bus"}, "EISDIR", "/bus"),
                ("Read", {"path": TYPE1 + "/create"}, "EACCES", "create"),
                ("Write", {"path": TYPE1 + "/name", "value": "x"}, "EACCES", "name"),
                ("Write", {"path": TYPE1 + "/create", "value": "x"}, "EINVAL", ""),
                ("ListDir", {"path": TYPE1 + "/name"}, "ENOTDIR", "name")):
            e = error(v, method, **parameters)
            t.equal(e.errno, errno, f"{method} {parameters}: {e}")
            t.check(word in str(e) and "\n" not in str(e), f"{method} {parameters}: {e}")
        t.equal(len(v.call("List")["devices"]), 1, "devices at the end")
        t.equal(len(v.call("ParentList")["parents"]), 1, "parents at the end")


@t.case
def a_used_up_card_says_so() -> None:
    with daemon() as d, d.varlink() as v:
        d.add_card()
        for _ in range(12):
            d.create("card0", "mtty-2")
        t.equal(error(v, "Create", parent="card0", type="mtty-1", settings=[]).errno, "ENOSPC",
                "one more")
        t.equal([x["available_instances"] for x in v.call("Types")["types"]], [0, 0], "available")


# ---- the tree ----

@t.case
def the_socket_and_the_mounted_tree_say_the_same() -> None:
    with daemon() as d, d.varlink() as v:
        if not os.path.ismount(d.sys):
            t.skip("the tree cannot be mounted here")
        d.add_card()
        uuid = d.create("card0", "mtty-2")

        def compare(path: str) -> int:
            n = 0
            entries = v.call("ListDir", path=path or "/")["entries"]
            t.equal(sorted(e["name"] for e in entries), sorted(os.listdir(f"{d.sys}{path}")), path)
            for e in entries:
                full = f"{path}/{e['name']}"
                st = os.lstat(f"{d.sys}{full}")
                t.equal(e["mode"], st.st_mode & 0o7777, f"mode of {full}")
                if e["kind"] == "link":
                    t.equal(e["target"], os.readlink(f"{d.sys}{full}"), full)
                elif e["kind"] == "directory":
                    n += compare(full)
                elif e["mode"] & 0o444 and not e["name"].startswith("autosuspend"):
                    with open(f"{d.sys}{full}") as f:
                        t.equal(v.call("Read", path=full)["value"], f.read(), full)
                    n += 1
            return n

        t.check(compare("") > 30, "files compared")
        v.call("Write", path=f"/bus/mdev/devices/{uuid}/remove", value="1")
        t.equal(v.call("List")["devices"], [], "devices after a write to remove")


# ---- who may what ----

@t.case
def another_user_may_look_and_not_touch() -> None:
    if os.geteuid() != 0:
        t.skip("needs root to become another user")
    with daemon() as d:
        d.add_card()
        uuid = d.create("card0", "mtty-1")
        os.chmod(d.dir, 0o755)
        os.chmod(d.control, 0o666)
        code = f"""
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.path.insert(0, {str(t.ROOT / 'tests')!r})
from pathlib import Path
from lib.varlink import Varlink, VarlinkError
v = Varlink(Path({str(d.control)!r}))
assert len(v.call("List")["devices"]) == 1
assert v.call("Read", path={TYPE1 + '/available_instances'!r})["value"] == "23\\n"
for method, p in (("ParentAdd", dict(name="x", driver="mtty", settings=[])),
                  ("ParentRemove", dict(name="card0")),
                  ("Create", dict(parent="card0", type="mtty-1", settings=[])),
                  ("Remove", dict(name={uuid!r}, force=True)),
                  ("ParamSet", dict(name={uuid!r}, param="label", value="x")),
                  ("Write", dict(path="/bus/mdev/devices/{uuid}/remove", value="1"))):
    try:
        v.call(method, **p)
        print(method, "was accepted")
    except VarlinkError as e:
        if e.errno != ("EPERM" if method.startswith("Parent") else "EACCES"):
            print(method, e.name, e)
"""
        p = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True,
                           timeout=30)
        t.equal((p.returncode, p.stdout, p.stderr), (0, "", ""), "what another user may do")
        t.equal(len(d.varlink().call("List")["devices"]), 1, "devices at the end")


@t.case
def other_users_cannot_take_every_connection() -> None:
    if os.geteuid() != 0:
        t.skip("needs root to become another user")
    with daemon() as d:
        os.chmod(d.dir, 0o755)
        os.chmod(d.control, 0o666)
        code = f"""
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held = []
for _ in range(100):
    s = socket.socket(socket.AF_UNIX); s.settimeout(10)
    s.connect({str(d.control)!r})
    try:
        s.send(b'{{"method":"io.umdev.List"}}\\0')
        if s.recv(10): held.append(s)
    except OSError: pass
print(len(held), flush=True)
sys.stdin.read()
"""
        p = subprocess.Popen(["/usr/bin/python3", "-c", code], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        t.equal(p.stdout.readline(), "64\n", "connections that another user got")
        with d.varlink() as v:
            v.call("List")
        p.communicate()
        t.equal(d.log().count("no room"), 1, "lines about it (one per second)")


t.main()
