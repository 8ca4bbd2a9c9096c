#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The Debian package: built as Debian builds it, judged by lintian, installed in the root of a clean
Debian, used there, and taken away again without leaving anything."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from lib import t
from lib.varlink import Varlink
from lib.vfio_user import Client

ROOT = t.CACHE / "cleanroot/root.tar.zst"
_debs: dict[str, Path] = {}


def run(*command: str, cwd: Path | None = None, seconds: int = 240) -> str:
    p = subprocess.run(command, cwd=cwd, text=True, stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=seconds, env={**os.environ, "LC_ALL": "C.UTF-8",
                                             "DEB_BUILD_OPTIONS": "nocheck noautodbgsym"})
    if p.returncode:
        raise t.Failure(f"{' '.join(command)[:200]}: status {p.returncode}: "
                        f"{(p.stdout + p.stderr)[-3000:]}")
    return p.stdout


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            t.skip(f"{tool} is not installed: tools/setup test")


def copy_sources(to: Path) -> None:
    """What belongs to the project, without what was built."""
    def skip(folder: str, names: list[str]) -> set[str]:
        built = {n for n in names if n.startswith("build") and folder == str(t.ROOT)}
        return built | {n for n in names if n in (".git", "__pycache__", "corpus", "oracle")}
    shutil.copytree(t.ROOT, to, symlinks=True, ignore=skip)
    shutil.copytree(t.ROOT / "packaging/debian", to / "debian")


@t.case(seconds=280)
def it_builds_and_lintian_has_nothing_to_say() -> None:
    need("dpkg-buildpackage", "dh", "lintian")
    _dir.mkdir(exist_ok=True)
    source = _dir / "umdev"
    copy_sources(source)
    begin = time.monotonic()
    run("dpkg-buildpackage", "-b", "-uc", "-us", cwd=source)
    for deb in _dir.glob("*.deb"):
        _debs[deb.name.split("_")[0]] = deb
    t.equal(sorted(_debs), ["umdev", "umdev-dev"], "packages")
    said = run("lintian", "--allow-root", "--fail-on", "error,warning", "--info",
               *map(str, _dir.glob("*.changes")))
    t.equal(said, "", "what lintian says")
    t.fact(f"package built and judged in {time.monotonic() - begin:.0f} s")


def contents(name: str) -> list[str]:
    lines = run("dpkg-deb", "-c", str(_debs[name])).splitlines()
    return [line.split()[5].removeprefix(".") for line in lines if not line.endswith("/")]


@t.case
def everything_is_in_it() -> None:
    if not _debs:
        t.skip("no package was built")
    files = "\n".join(contents("umdev")) + "\n"
    for wanted in ("/usr/bin/umdev", "/usr/sbin/umdevd", "/usr/libexec/umdev/umdev-worker",
                   "/systemd/system/umdevd.service", "/systemd/system/umdevd.socket",
                   "/sysusers.d/umdev.conf", "/tmpfiles.d/umdev.conf", "/etc/umdev/umdev.conf",
                   "/etc/apparmor.d/abstractions/libvirt-qemu.d/umdev",
                   "/usr/share/bash-completion/completions/umdev"):
        t.check(f"{wanted}\n" in files, f"{wanted} is missing in {files}")
    manuals = {p.name for p in (t.ROOT / "src").rglob("*.[1-8]")} - {"test.7"}
    for name in manuals:
        t.check(f"/{name}.gz\n" in files, f"{name} is missing")
    headers = contents("umdev-dev")
    for header in (t.ROOT / "include/umdev").glob("*.h"):
        t.check(f"/usr/include/umdev/{header.name}" in headers, f"{header.name} is missing")
    t.check(any(x.endswith("pkgconfig/umdev.pc") for x in headers), "umdev.pc is missing")


@t.case
def apparmor_takes_the_snippet() -> None:
    need("apparmor_parser")
    with t.TempDir() as top:
        profile = top / "profile"
        profile.write_text("#include <tunables/global>\nprofile umdev-test {\n"
                           f'#include "{t.ROOT}/packaging/apparmor/libvirt-qemu"\n}}\n')
        run("apparmor_parser", "--skip-kernel-load", "--skip-cache", "--base", "/etc/apparmor.d",
            str(profile))
        rules = run("apparmor_parser", "--skip-kernel-load", "--skip-cache", "--base",
                    "/etc/apparmor.d", "--debug", str(profile))
        t.check(re.search(r"Mode:\s+rw.*umdev/dev/", rules), f"rules: {rules}")


class Clean:
    """A clean Debian, in a mount namespace that lives as long as this object."""

    def __init__(self, top: Path) -> None:
        self.root = top / "root"
        self.root.mkdir()
        run("tar", "--zstd", "-xf", str(ROOT), "-C", str(self.root), "--exclude=./dev/*")

    def command(self, script: str, **more: str) -> subprocess.Popen[str]:
        """In the root, with /proc and /dev, seen by nobody else."""
        inner = (f"mount --bind {self.root} {self.root}; mount -t proc proc {self.root}/proc; "
                 f"mount --rbind /dev {self.root}/dev; exec chroot {self.root} /bin/sh -ec "
                 f"'{script}'")
        return subprocess.Popen(["unshare", "-m", "sh", "-ec", inner], text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT,
                                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                                     "DEBIAN_FRONTEND": "noninteractive", **more})

    def run(self, script: str) -> str:
        p = self.command(script)
        out = p.communicate(timeout=120)[0]
        t.check(p.returncode == 0, f"{script}: status {p.returncode}: {out[-2000:]}")
        return out

    def files(self) -> set[str]:
        return {str(p.relative_to(self.root)) for p in self.root.rglob("*")
                if not str(p.relative_to(self.root)).startswith(("var/cache", "var/log", "var/lib/dpkg",
                                                                 "proc", "dev", "run", "tmp"))}


@t.case(seconds=200)
def it_is_installed_used_and_removed() -> None:
    if os.geteuid() != 0:
        t.skip("needs root to enter the root of a clean Debian")
    if not _debs:
        t.skip("no package was built")
    if not ROOT.exists():
        t.skip("no root of a clean Debian here: tools/get-cleanroot")
    with t.TempDir() as top:
        clean = Clean(top)
        before = clean.files()
        for deb in _debs.values():
            shutil.copy(deb, clean.root / "tmp" / f"{deb.name.split('_')[0]}.deb")
        clean.run("dpkg -i /tmp/umdev.deb /tmp/umdev-dev.deb")
        t.equal(clean.run("dpkg --audit"), "", "what dpkg complains about")
        t.check(re.search(r"^umdev:", (clean.root / "etc/group").read_text(), re.M), "no group umdev")
        for name in ("etc/umdev/mdevctl.d", "run/umdev", "var/lib/umdev"):
            t.check((clean.root / name).is_dir(), f"/{name} was not made")
        add_driver(clean, top)
        use(clean)
        clean.run("dpkg --purge umdev-dev umdev")
        left = clean.files() - before
        allowed = {"etc/group-", "etc/gshadow-", "etc/passwd-", "etc/shadow-"}
        drivers = {x for x in left if "/umdev/drivers" in x or x.endswith("-linux-gnu/umdev")}
        t.equal(left - allowed - drivers - {"etc/.pwd.lock"}, set(), "what is left")


def add_driver(clean: Clean, top: Path) -> None:
    """One of the examples, built with the headers of the package only."""
    need("gcc")
    pc = next((clean.root / "usr/lib").glob("*/pkgconfig/umdev.pc")).read_text()
    t.check("driverdir=" in pc, pc)
    target = next((clean.root / "usr/lib").glob("*/umdev/drivers"))
    sources = [str(p) for p in (t.ROOT / "examples/minimal").glob("*.c")]
    run("gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{clean.root}/usr/include", "-o",
        str(target / "minimal.so"), *sources)


def use(clean: Clean) -> None:
    daemon = clean.command("exec umdevd")
    control = clean.root / "run/umdev/control"
    try:
        t.wait_for(lambda: daemon.poll() is not None or control.exists(), 20, "umdevd")
        t.equal(daemon.poll(), None, "umdevd runs")
        clean.run("umdev parent add card0 driver=mtty")
        u = clean.run("umdev create -p card0 -t mtty-1 label=installed").strip()
        drivers = json.loads(clean.run("umdev drivers -j"))["drivers"]
        t.check("minimal" in [x["name"] for x in drivers], f"drivers: {drivers}")
        t.check("installed" in clean.run("umdev list"), "not listed")
        with Client(clean.root / "run/umdev/dev" / u / "socket") as c:
            t.equal(int.from_bytes(c.read(7, 0, 2), "little"), 0x4348, "vendor of the card")
            with Varlink(control) as v:
                t.equal(v.call("Show", name=u)["device"]["state"], "connected", "state")
        offered = clean.run("umdev --help")
        t.check("umdev" in offered, "help")
    finally:
        daemon.send_signal(2)
        out = daemon.communicate(timeout=30)[0]
    t.check(daemon.returncode == 0, f"umdevd ended with {daemon.returncode}: {out}")


if __name__ == "__main__":
    with t.TempDir() as _top:
        _dir = _top / "package"
        t.main()
