#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The control socket with a client that is not ours: systemd's varlinkctl."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from lib import t
from lib.daemon import Daemon

CACHED = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "umdev/varlinkctl"


def program() -> str:
    path = shutil.which("varlinkctl") or str(CACHED / "varlinkctl")
    if not Path(path).exists():
        t.skip("varlinkctl is not here: tools/get-varlinkctl")
    return path


def varlinkctl(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([program(), *arguments], text=True, input=lines, capture_output=True,
                          timeout=30)


def output(*arguments: str, lines: str = "") -> str:
    p = varlinkctl(*arguments, lines=lines)
    t.equal((p.returncode, p.stderr), (0, ""), f"varlinkctl {' '.join(arguments)}")
    return p.stdout


def call(d: Daemon, method: str, **parameters: Any) -> dict[str, Any]:
    return json.loads(output("call", "-j", str(d.control), f"io.umdev.{method}",
                             json.dumps(parameters)))


@t.case
def it_introspects() -> None:
    with Daemon() as d:
        info = json.loads(output("info", "-j", str(d.control)))
        t.equal((info["vendor"], info["product"]), ("umdev", "umdevd"), "info")
        t.equal(output("list-interfaces", str(d.control)).split(),
                ["io.umdev", "org.varlink.service"], "interfaces")
        methods = set(output("list-methods", str(d.control)).split())
        t.check({"io.umdev.CreateMany", "org.varlink.service.GetInfo"} <= methods, str(methods))
        text = output("introspect", str(d.control))
        t.equal(set(re.findall(r"^method (\w+)", text, re.M)) |
                {"GetInfo", "GetInterfaceDescription"},
                {m.rsplit(".", 1)[1] for m in methods}, "methods of the description")


@t.case
def it_takes_the_descriptions_for_valid() -> None:
    output("validate-idl", lines=(t.ROOT / "src/wire/io.umdev.varlink").read_text())
    with Daemon() as d, d.varlink() as v:
        service = v.call("org.varlink.service.GetInterfaceDescription",
                         interface="org.varlink.service")["description"]
        output("validate-idl", lines=service)


@t.case
def it_manages_devices() -> None:
    with Daemon() as d:
        call(d, "ParentAdd", name="lab", driver="test", settings=["remove=wait"])
        u = call(d, "Create", parent="lab", type="test-regs", settings=["gain=3"])["uuid"]
        many = [str(uuid.uuid4()) for _ in range(10)]
        t.equal(call(d, "CreateMany", parent="lab", type="test-regs", specs=many, all=True),
                {"failed": []}, "CreateMany")
        call(d, "ParamSet", name=u, param="gain", value="4")
        params = {p["name"]: p["value"] for p in call(d, "Show", name=u)["params"]}
        t.equal(params["gain"], "4", "gain")
        t.equal(len(call(d, "List", parent="lab")["devices"]), 11, "devices")
        call(d, "RemoveMany", names=many, force=False, all=True)
        call(d, "Remove", name=u, force=False)
        t.equal(call(d, "List")["devices"], [], "devices at the end")


@t.case
def it_is_told_why() -> None:
    with Daemon() as d:
        p = varlinkctl("call", "-j", str(d.control), "io.umdev.Show", '{"name": "nosuch"}')
        t.check(p.returncode != 0 and "io.umdev.Error" in p.stderr, f"an error: {p.stderr}")
        t.equal(json.loads(p.stdout)["errno"], "ENOENT", "errno")
        for method, error in (("io.umdev.Nosuch", "MethodNotFound"),
                              ("io.umdev.Monitor", "ExpectedMore"),
                              ("a.b.C", "InterfaceNotFound")):
            p = varlinkctl("call", "-j", str(d.control), method, "{}")
            t.check(p.returncode != 0 and f"org.varlink.service.{error}" in p.stderr,
                    f"{method}: {p.stderr}")


@t.case
def it_monitors() -> None:
    with Daemon() as d:
        d.add_card()
        p = subprocess.Popen([program(), "call", "--more", "--json=short", str(d.control),
                              "io.umdev.Monitor", "{}"], text=True, stdout=subprocess.PIPE)
        try:
            assert p.stdout
            t.equal(p.stdout.readline(), "\x1e{}\n", "the first reply")
            u = d.create("card0", "mtty-1")
            line = ""
            while '"added"' not in line:
                line = p.stdout.readline()
                t.check(line != "", "the stream ended")
            t.equal(json.loads(line.lstrip("\x1e"))["event"]["uuid"], u, "whose event")
        finally:
            p.kill()
            p.wait()


t.main()
