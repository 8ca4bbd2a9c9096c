#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""libvirt's driver for node devices, unmodified, under `umdev exec --uevents`."""
from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator

from lib import t
from lib.clients import Libvirt, libvirt
from lib.daemon import Daemon
from lib.vfio_user import Client

DEVICE = """<device>
  <parent>{parent}</parent>
  <capability type='mdev'>
    <type id='{kind}'/>
    <uuid>{device}</uuid>
    {attrs}
  </capability>
</device>
"""


@contextlib.contextmanager
def host() -> Iterator[tuple[Daemon, Libvirt]]:
    with Daemon() as d:
        d.add_card("card0")
        with d.varlink() as v:
            v.call("ParentAdd", name="t0", driver="test", settings=["libvirt_compat=yes"])
            v.call("ParentAdd", name="t1", driver="test", settings=[])
        with libvirt(d) as virt:
            yield d, virt


def describe(d: Daemon, device: str, parent: str = "mtty_card0", kind: str = "mtty-2",
             **attrs: str) -> str:
    path = d.dir / f"{device}.xml"
    path.write_text(DEVICE.format(
        parent=parent, kind=kind, device=device,
        attrs="".join(f"<attr name='mdev/{k}/value' value='{v}'/>" for k, v in attrs.items())))
    return str(path)


def node(device: str, parent: str = "card0") -> str:
    return f"mdev_{device.replace('-', '_')}_{parent}"


def is_active(virt: Libvirt, name: str) -> bool:
    return re.search(r"^Active: +yes$", virt.run("nodedev-info", name), re.M) is not None


@t.case
def parents_and_their_types_are_node_devices() -> None:
    with host() as (d, virt):
        t.equal(sorted(virt.run("nodedev-list", "--cap", "mdev_types").split()),
                ["mtty_card0", "mtty_t0"], "parents, that of class umdev is none for libvirt")
        xml = virt.run("nodedev-dumpxml", "mtty_card0")
        t.equal(re.findall(r"<type id='(.*)'>", xml), ["mtty-1", "mtty-2"], "types")
        t.equal(re.findall(r"<availableInstances>(\d+)<", xml), ["24", "12"], "instances")
        # New parents are told of.
        d.add_card("card1")
        t.wait_for(lambda: "mtty_card1" in virt.run("nodedev-list", "--cap", "mdev_types"), 5,
                   "the new parent")


@t.case
def a_device_is_defined_started_destroyed_and_undefined() -> None:
    with host() as (d, virt):
        u = str(uuid.uuid4())
        name = node(u)
        virt.run("nodedev-define", describe(d, u, label="by libvirt"))
        kept = d.config / "mdevctl.d/card0" / u
        t.equal(json.loads(kept.read_text())["attrs"], [{"mdev/label/value": "by libvirt"}],
                "attributes of the definition")
        t.wait_for(lambda: name in virt.run("nodedev-list", "--inactive"), 10, "the definition")
        virt.run("nodedev-autostart", name)
        t.equal(json.loads(kept.read_text())["start"], "auto", "autostart")
        virt.run("nodedev-start", name)
        t.wait_for(lambda: is_active(virt, name), 5, "the device, by its uevents")
        xml = virt.run("nodedev-dumpxml", name)
        with d.varlink() as v:
            device = v.call("Show", name=u)["device"]
        t.equal(device["label"], "by libvirt", "label")
        for text in (f"<iommuGroup number='{device['group']}'/>", "<type id='mtty-2'/>",
                     "<name>mtty</name>", f"<path>/sys{device['path']}</path>",
                     f"<uuid>{u}</uuid>", "value='by libvirt'"):
            t.check(text in xml, f"no {text} in {xml}")
        virt.run("nodedev-destroy", name)
        with d.varlink() as v:
            t.equal(v.call("List")["devices"], [], "devices")
        t.wait_for(lambda: not is_active(virt, name), 5, "the end of the device")
        virt.run("nodedev-undefine", name)
        t.check(not kept.exists(), "the definition is there")


@t.case
def a_transient_device_lives_and_dies() -> None:
    with host() as (d, virt):
        u = str(uuid.uuid4())
        virt.run("nodedev-create", describe(d, u, "mtty_t0", "test-regs", label="short"))
        t.equal(d.state_of(u), "idle", "state")
        t.check(is_active(virt, node(u, "t0")), "libvirt knows it when create returns")
        with Client(d.socket(u)):
            said = virt.run("nodedev-destroy", node(u, "t0"), ok=False)
            t.check("in use" in said, f"why not: {said}")
            t.equal(d.state_of(u), "connected", "state after the refusal")
        t.wait_for(lambda: d.state_of(u) == "idle", 5, "the end of the client")
        virt.run("nodedev-destroy", node(u, "t0"))
        bad = str(uuid.uuid4())
        said = virt.run("nodedev-create", describe(d, bad, backend="telepathy"), ok=False)
        t.check("telepathy" in said, f"what was refused: {said}")
        with d.varlink() as v:
            t.equal(v.call("List")["devices"], [], "devices")


@t.case
def what_others_make_is_seen() -> None:
    with host() as (d, virt):
        u = d.create("card0", "mtty-1")
        t.wait_for(lambda: node(u) in virt.run("nodedev-list", "--cap", "mdev"), 5, "the device")
        d.umdev("remove", u)
        t.wait_for(lambda: node(u) not in virt.run("nodedev-list", "--cap", "mdev"), 5, "its end")


t.main()
