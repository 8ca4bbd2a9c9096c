# SPDX-License-Identifier: MIT
"""A worker's program file that changes as a package manager changes it."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import t
from .daemon import program


class Installed:
    """A program file that can be replaced as a package manager does it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "umdev-worker"
        self.install(program("umdev-worker"))

    def install(self, source: Path) -> None:
        new = self.path.with_suffix(".new")
        shutil.copy2(source, new)
        new.rename(self.path)

    def runs(self, pid: int) -> bool:
        """Is that process made from the file that is installed now?"""
        return os.path.samefile(f"/proc/{pid}/exe", self.path)


def variant(name: str) -> Path:
    """A worker that is like ours but for one thing (tests/survive/meson.build)."""
    return t.BUILD / "tests/survive" / f"umdev-worker-{name}"
