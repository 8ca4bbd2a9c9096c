#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The manual pages are true: what they list is what there is, and the other way round. umdev(1) is
compared with --help by cli.py."""
from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from pathlib import Path

from lib import t
from lib.daemon import Daemon, program

PAGES = sorted(p for p in (t.ROOT / "src").rglob("*.[1-8]"))


def page(name: str) -> str:
    path = next(p for p in PAGES if p.name == name)
    return path.read_text().replace("\\-", "-")


def entries(text: str, section: str) -> dict[str, str]:
    """name: mode or kind of the .TP items of a section."""
    body = text.split(f".SH {section}\n")[1].split("\n.SH ")[0]
    return dict(re.findall(r'^\.TP\n\.BR (\S+) " (\S+)"$', body, re.M))


def kind_of(path: Path) -> str:
    if path.is_symlink():
        return "link"
    return "directory" if path.is_dir() else f"{path.stat().st_mode & 0o7777:04o}"


@t.case
def pages_are_well_formed() -> None:
    t.check(len(PAGES) >= 7, f"pages: {PAGES}")
    for path in PAGES:
        text = path.read_text()
        name, section = path.stem, path.suffix[1:]
        head = re.search(r'^\.TH (\S+) (\d)', text, re.M)
        t.equal((head[1].lower(), head[2]), (name, section), f"title of {path.name}")
        t.check(f".SH NAME\n{name} - " in text.replace("\\-", "-"), f"NAME of {path.name}")
        for other, number in re.findall(r"^\.BR (umdev\S*|mtty) \((\d)\)", text.replace("\\-", "-"),
                                        re.M):
            t.check(any(p.name == f"{other}.{number}" for p in PAGES),
                    f"{path.name} refers to {other}({number}), which is not there")


@t.case
def the_tree_has_what_umdev_sysfs_lists() -> None:
    text = page("umdev-sysfs.7")
    with Daemon() as d:
        if not os.path.ismount(d.sys):
            t.skip("the tree cannot be mounted here")
        d.add_card()
        d.umdev("parent", "add", "lab", "driver=test")
        devices = [d.create("card0", "mtty-2"), d.create("lab", "test-dma")]
        found: dict[str, set[str]] = {"T": set(), "D": set(), "param": set()}
        kinds: dict[str, dict[str, set[str]]] = {k: {} for k in found}

        def see(where: str, path: Path) -> None:
            found[where].add(path.name)
            kinds[where].setdefault(path.name, set()).add(kind_of(path))

        for u in devices:
            device = d.sys / "bus/mdev/devices" / u
            for path in device.iterdir():
                see("D", path)
            for path in (device / "mdev_type").resolve().iterdir():
                see("T", path)
            for folder in (device / "mdev", device / "vendor",
                           (device / "mdev_type").resolve() / "params"):
                for path in folder.glob("*/*"):
                    see("param", path)
        for where, section in (("T", "A TYPE"), ("D", "A DEVICE"), ("param", "A PARAMETER")):
            listed = {name.removeprefix(f"{where}/"): kind
                      for name, kind in entries(text, section).items()}
            t.equal(set(listed), found[where], f"entries of {section}")
            for name, kind in listed.items():
                t.check(kind in kinds[where][name],
                        f"{section}: {name} is {kinds[where][name]}, the page says {kind}")


@t.case
def umdev_conf_lists_the_keys_that_are_read() -> None:
    code = (t.ROOT / "src/manager/settings.c").read_text()
    keys = re.findall(r'^\t\{ "(\w+)", set_', code, re.M)
    t.check(len(keys) >= 2, f"keys of settings.c: {keys}")
    listed = re.findall(r'^\.TP\n\.BI (\w+) "', page("umdev.conf.5"), re.M)
    t.equal(sorted(listed), sorted(keys), "keys of umdev.conf(5)")
    example = re.search(r"\.SH EXAMPLE\n\.nf\n(.*?)\.fi", page("umdev.conf.5"), re.S)[1]
    with Daemon() as d:
        d.leave()
        # The group of the example is the package's.
        (d.config / "umdev.conf").write_text(example.replace("= umdev", f"= {os.getegid()}"))
        d.start()
        t.equal(d.control.stat().st_mode & 0o777, 0o666, "mode of the socket by the example")


@t.case
def a_definition_is_what_umdev_device_shows() -> None:
    text = page("umdev-device.5")
    example = re.search(r"\.SH EXAMPLE\n\.nf\n(.*?)\.fi", text, re.S)[1]
    members = re.findall(r"^\.TP\n\.B (\w+)$", text, re.M)
    t.equal(sorted(members), sorted(json.loads(example)), "members")
    with Daemon() as d:
        d.add_card()
        u = str(uuid.uuid4())
        folder = d.config / "mdevctl.d/card0"
        folder.mkdir(parents=True)
        (folder / u).write_text(example)
        d.umdev("start", "-u", u)
        with d.varlink() as v:
            shown = v.call("Show", name="console")
        t.equal((shown["device"]["uuid"], shown["device"]["type"]), (u, "mtty-2"), "the device")
        values = {p["name"]: p["value"] for p in shown["params"]}
        t.equal((values["label"], values["backend"]), ("console", "socket"), "its values")


@t.case
def umdevd_has_the_options_of_its_page() -> None:
    text = page("umdevd.8")
    options = set(re.findall(r"--[a-z][a-z-]*", subprocess.run(
        [str(program("umdevd")), "--help"], text=True, capture_output=True, check=True).stdout))
    t.check(len(options) >= 4, f"options of umdevd: {options}")
    for option in options:
        t.check(option in text, f"umdevd(8) does not describe {option}")


t.main()
