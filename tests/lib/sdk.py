# SPDX-License-Identifier: MIT
"""Drivers built as strangers build them: with what `meson install` leaves, found by pkg-config."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import t

EXAMPLES = t.ROOT / "examples"
WARNINGS = "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter"


def _run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    p = subprocess.run([str(c) for c in command], env=env, text=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode != 0:
        raise t.Failure(f"{' '.join(str(c) for c in command)}: {p.stdout[-3000:]}")
    return p.stdout


class Sdk:
    """An installation below `directory`; built drivers are in `drivers`."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.root = directory / "root"
        self.drivers = directory / "drivers"
        self.drivers.mkdir()
        _run("meson", "install", "-C", t.BUILD, "--no-rebuild", "--quiet",
             env=dict(os.environ, DESTDIR=str(self.root)))
        found = list(self.root.rglob("umdev.pc"))
        t.equal(len(found), 1, "umdev.pc files installed")
        self.env = dict(os.environ, PKG_CONFIG_SYSROOT_DIR=str(self.root),
                        PKG_CONFIG_LIBDIR=str(found[0].parent))
        for name in ("CFLAGS", "LDFLAGS", "DESTDIR"):
            self.env.pop(name, None)

    def pkg_config(self, *arguments: str) -> str:
        return _run("pkg-config", *arguments, "umdev", env=self.env).strip()

    def source(self, example: str) -> Path:
        """A copy of an example's folder, to build in or to spoil."""
        copy = self.dir / f"{example}-{len(list(self.dir.iterdir()))}"
        shutil.copytree(EXAMPLES / example, copy, ignore=shutil.ignore_patterns("build", "*.so"))
        return copy

    def build_minimal(self) -> Path:
        """By its Makefile."""
        _run("make", "-C", self.source("minimal"), f"CFLAGS={WARNINGS}",
             f"DRIVERDIR={self.drivers}", "install", env=self.env)
        return self.drivers / "minimal.so"

    def build_engine(self) -> Path:
        """By its meson.build."""
        source = self.source("dma-engine")
        _run("meson", "setup", "-Dwerror=true", source / "build", source, env=self.env)
        _run("ninja", "-C", source / "build", env=self.env)
        shutil.copy(source / "build/dma-engine.so", self.drivers)
        return self.drivers / "dma-engine.so"

    def compile(self, ret: Path, *sources: Path, flags: str = "") -> Path:
        _run("cc", *WARNINGS.split(), *self.pkg_config("--cflags").split(), *flags.split(),
             "-fPIC", "-fvisibility=hidden", "-shared", "-o", ret, *sources)
        return ret

    def spoiled(self, ret: Path, *changes: tuple[str, str, str], flags: str = "") -> Path:
        """minimal with (file, old text, new text) changed."""
        folder = self.source("minimal")
        for name, old, new in changes:
            text = (folder / name).read_text()
            t.check(old in text, f"{name} has no {old!r}")
            (folder / name).write_text(text.replace(old, new))
        return self.compile(ret, folder / "minimal_parent.c", folder / "minimal_device.c",
                            flags=flags)
