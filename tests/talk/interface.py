#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What umdevd answers is what io.umdev.varlink says: every reply, event and error is checked
against the description that umdevd itself gives."""
from __future__ import annotations

import re
import uuid
from typing import Any

from lib import t
from lib.daemon import Daemon
from lib.varlink import Varlink, VarlinkError
from lib.vfio_user import Client

TYPE = "/class/mdev_bus/card0/mdev_supported_types/mtty-1"
TOKEN = re.compile(r"\s*(->|\?|\[\]|\[string\]|[(),:]|[A-Za-z][A-Za-z0-9_.]*)")


class Interface:
    """The grammar of varlink.org/Interface-Definition, as far as types go: a type is a name, or
    ("?", type), ("[]", type), ("enum", names), ("struct", {field: type})."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"#.*", "", text)
        self.words = TOKEN.findall(text)
        t.equal("".join(self.words), re.sub(r"\s", "", text), "words of the interface")
        self.types: dict[str, Any] = {}
        self.methods: dict[str, tuple[Any, Any]] = {}
        self.errors: dict[str, Any] = {}
        t.equal(self.take(), "interface", "first word")
        self.name = self.take()
        while self.words:
            kind, name = self.take(), self.take()
            if kind == "type":
                self.types[name] = self.struct()
            elif kind == "error":
                self.errors[f"{self.name}.{name}"] = self.struct()
            else:
                t.equal(kind, "method", f"word before {name}")
                arguments = self.struct()
                t.equal(self.take(), "->", f"word behind the arguments of {name}")
                self.methods[name] = arguments, self.struct()

    def take(self) -> str:
        return self.words.pop(0)

    def struct(self) -> Any:
        """"(" fields or names of an enum ")"."""
        fields, names = {}, []
        t.equal(self.take(), "(", "first word of a struct")
        while self.words[0] != ")":
            name = self.take()
            if self.words[0] == ":":
                self.take()
                fields[name] = self.type()
            else:
                names.append(name)
            if self.words[0] == ",":
                self.take()
        self.take()
        return ("enum", names) if names else ("struct", fields)

    def type(self) -> Any:
        if self.words[0] in ("?", "[]"):
            return self.take(), self.type()
        return self.struct() if self.words[0] == "(" else self.take()

    def check(self, value: Any, kind: Any, where: str) -> None:
        """Raises unless the value is of that type."""
        plain = {"string": str, "bool": bool, "int": int}
        if isinstance(kind, str) and kind in plain:
            t.check(type(value) is plain[kind], f"{where}: {value!r} is no {kind}")
        elif isinstance(kind, str):
            self.check(value, self.types[kind], where)
        elif kind[0] == "[]":
            t.check(isinstance(value, list), f"{where}: {value!r} is no array")
            for i, item in enumerate(value):
                self.check(item, kind[1], f"{where}[{i}]")
        elif kind[0] == "enum":
            t.check(value in kind[1], f"{where}: {value!r} is none of {kind[1]}")
        elif kind[0] == "?":
            if value is not None:
                self.check(value, kind[1], where)
        else:
            self.check_struct(value, kind[1], where)

    def check_struct(self, value: Any, fields: dict[str, Any], where: str) -> None:
        t.check(isinstance(value, dict), f"{where}: {value!r} is no object")
        t.check(value.keys() <= fields.keys(), f"{where}: {value.keys() - fields.keys()} unknown")
        for name, kind in fields.items():
            t.check(name in value or kind[0] == "?", f"{where}: {name} is missing")
            self.check(value.get(name), kind, f"{where}.{name}")


class Checked:
    """Calls whose arguments and replies are both held against the interface."""

    def __init__(self, v: Varlink) -> None:
        self.varlink = v
        text = v.call("org.varlink.service.GetInterfaceDescription", interface="io.umdev")
        self.interface = Interface(text["description"])
        self.called: set[str] = set()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        wanted, answer = self.interface.methods[method]
        self.called.add(method)
        self.interface.check(arguments, wanted, method)
        reply = self.varlink.call(method, **arguments)
        self.interface.check(reply, answer, f"reply of {method}")
        return reply

    def fails(self, method: str, **arguments: Any) -> dict[str, Any]:
        try:
            self.call(method, **arguments)
        except VarlinkError as e:
            self.interface.check(e.parameters, self.interface.errors[e.name], e.name)
            return e.parameters
        raise t.Failure(f"{method} {arguments} was accepted")


@t.case
def every_reply_is_as_described() -> None:
    with Daemon() as d, d.varlink() as v:
        c = Checked(v)
        t.equal(c.call("ParentList"), {"parents": []}, "parents of a new umdevd")
        names = [driver["name"] for driver in c.call("Drivers")["drivers"]]
        t.check("mtty" in names, f"drivers {names}")
        c.call("ParentAdd", name="card0", driver="mtty", settings=["remove=wait"])
        t.equal(c.call("ParentList")["parents"][0]["settings"], ["remove=wait"], "settings")
        c.call("ParentAdd", name="card1", driver="mtty", settings=[])
        t.equal(len(c.call("Types")["types"]), 4, "types of two parents")
        t.equal(len(c.call("Types", parent="card1")["types"]), 2, "types of one")
        u = c.call("Create", parent="card0", type="mtty-2", settings=["label=a"])["uuid"]
        c.call("Create", parent="card1", type="mtty-1", uuid=str(uuid.uuid4()), settings=[])
        t.equal(len(c.call("List")["devices"]), 2, "devices")
        t.equal([x["uuid"] for x in c.call("List", parent="card0")["devices"]], [u], "of one parent")
        shown = c.call("Show", name="a")
        t.equal((shown["device"]["uuid"], shown["device"]["label"]), (u, "a"), "found by its label")
        c.call("ParamSet", name=u, param="backend", value="none")
        path = shown["device"]["path"]
        t.equal(c.call("Read", path=f"{path}/mdev/backend/value"), {"value": "none\n"}, "value")
        c.call("Write", path=f"{path}/mdev/label/value", value="b")
        kinds = {e["name"]: e["kind"] for e in c.call("ListDir", path=path)["entries"]}
        t.equal([kinds[n] for n in ("mdev", "remove", "driver")], ["directory", "file", "link"],
                "kinds")
        n = c.call("Define", parent="card0", type="mtty-1")["uuid"]
        c.call("Modify", uuid=n, auto=True, add="mdev/label/value=x", index=0)
        t.equal(c.call("Definitions", uuid=n)["definitions"],
                [{"uuid": n, "parent": "card0", "type": "mtty-1", "start": "auto",
                  "attrs": ["mdev/label/value=x"], "active": False}], "definitions")
        t.equal(c.call("Start", uuid=n), {"uuid": n}, "started")
        c.call("Remove", name="x", force=False)
        c.call("Undefine", uuid=n)
        c.call("SetAttrs", name=u, attrs=["mdev/backend/value=file"])
        t.equal(c.call("Attrs", name=u)["attrs"], ["mdev/label/value=b", "mdev/backend/value=file"],
                "attributes")
        c.call("Apply", changes=[{"verb": "set", "name": u, "settings": ["label=b"]}], dry_run=True)
        c.call("Commit", names=["b"])
        c.call("Release", names=[u])
        t.equal(c.call("Restart", name="b"), {"devices": []}, "devices in use that were moved")
        with Client(d.socket(u)):
            t.equal(c.call("Restart"), {"devices": [u]}, "all of them")
        t.wait_for(lambda: d.state_of(u) == "idle", 5, "the client's leaving")
        c.call("Remove", name="b", force=False)
        many = [str(uuid.uuid4()) for _ in range(3)]
        made = c.call("CreateMany", parent="card0", type="mtty-1", specs=[*many, "x"], all=False)
        t.equal([f["index"] for f in made["failed"]], [3], "failed of many")
        left = c.call("RemoveMany", names=[*many, "x"], force=False, all=False)
        t.equal([f["errno"] for f in left["failed"]], ["ENOENT"], "failed to be removed of many")
        c.call("ParentRemove", name="card1")
        t.equal(c.called | {"Monitor"}, set(c.interface.methods), "methods that were called")


@t.case
def errors_are_as_described() -> None:
    with Daemon() as d, d.varlink() as v:
        c = Checked(v)
        none = str(uuid.uuid4())
        c.call("ParentAdd", name="card0", driver="mtty", settings=[])
        for errno, number, method, arguments in (
                ("ENOENT", 2, "Show", {"name": none}),
                ("ENOENT", 2, "Remove", {"name": none, "force": True}),
                ("ENOENT", 2, "Read", {"path": "/none"}),
                ("ENOENT", 2, "ListDir", {"path": "/bus/none"}),
                ("EACCES", 13, "Read", {"path": "/bus/mdev/drivers_probe"}),
                ("ENOENT", 2, "Write", {"path": "/bus/none", "value": "1"}),
                ("EACCES", 13, "Write", {"path": f"{TYPE}/name", "value": "x"}),
                ("EEXIST", 17, "ParentAdd", {"name": "card0", "driver": "mtty", "settings": []}),
                ("EINVAL", 22, "ParentAdd", {"name": "a b", "driver": "mtty", "settings": []}),
                ("EINVAL", 22, "Create", {"parent": "card0", "type": "mtty-1", "uuid": "x",
                                          "settings": []})):
            e = c.fails(method, **arguments)
            t.equal((e["errno"], e["number"]), (errno, number), f"{method} {arguments}")
            t.check(e["text"] and "\n" not in e["text"], f"{method}: text {e['text']!r}")


@t.case
def events_are_as_described() -> None:
    with Daemon() as d, d.varlink() as v, d.varlink() as other:
        c = Checked(v)
        answer = c.interface.methods["Monitor"][1]
        stream = v.stream("Monitor")
        t.equal(next(stream).get("event"), None, "first reply")
        other.call("ParentAdd", name="card0", driver="mtty", settings=[])
        u = other.call("Create", parent="card0", type="mtty-1", settings=[])["uuid"]
        other.call("ParamSet", name=u, param="label", value="x")
        other.call("Remove", name=u, force=False)
        other.call("ParentRemove", name="card0")
        seen = []
        while not seen or seen[-1]["what"] != "parent_removed":
            reply = next(stream)
            c.interface.check(reply, answer, "event")
            seen.append(reply["event"])
        t.equal([e["what"] for e in seen if e["what"] in ("parent_added", "added", "param", "removed",
                                                          "parent_removed")],
                ["parent_added", "added", "param", "removed", "parent_removed"], "events")
        t.equal([e["detail"] for e in seen if e["what"] == "param"], ["label=x"], "detail")


t.main()
