# SPDX-License-Identifier: MIT
"""What a real kernel said (tests/oracle), in lines as lib.sysfs.probe makes them of any tree, and
the lists of docs/abi.md that say what may differ."""
from __future__ import annotations

import fnmatch
import os
import re

from . import t

ORACLE = t.ROOT / "tests/oracle"
ABI = t.ROOT / "docs/abi.md"
ENTRY = re.compile(r"^[DFL] \d{4} (?:nlink=\d+ |sz=\d+ )?(/\S+)")
NLINK = re.compile(r"nlink=(\d+)")


def section(title: str, number: int = 1) -> list[str]:
    """Lines of the section whose title begins so."""
    lines = (ORACLE / f"kernel-6.1-oracle-{number}.txt").read_text().splitlines()
    found: list[str] | None = None
    for line in lines:
        head = re.match(r"#{2,} (.*)", line)
        if head and found is not None:
            return found
        if head and head[1].startswith(title):
            found = []
        elif found is not None:
            found.append(line)
    if found is None:
        raise t.Failure(f"no section {title!r} in the record")
    return found


def path_of(line: str) -> str:
    return ENTRY.match(line)[1].rstrip("/")


def listed(block: str) -> list[str]:
    """Path patterns of a list in docs/abi.md: a fenced block of that name, "pattern  # reason"."""
    found = re.search(rf"^```{block}\n(.*?)^```", ABI.read_text(), re.M | re.S)
    if not found:
        raise t.Failure(f"docs/abi.md has no list {block}")
    rows = [r.partition("  # ") for r in found[1].splitlines()]
    missing = [r[0] for r in rows if not r[2].strip()]
    t.check(not missing, f"no reason in docs/abi.md, {block}: {missing}")
    return [r[0].strip() for r in rows]


def matches(path: str, patterns: list[str]) -> bool:
    """A pattern speaks of what it matches and of everything below; '*' stays in one component."""
    parts = path.split("/")
    for pattern in patterns:
        wanted = pattern.split("/")
        if len(parts) >= len(wanted) and \
                all(fnmatch.fnmatchcase(p, w) for p, w in zip(parts, wanted)):
            return True
    return False


def without(lines: list[str], patterns: list[str]) -> list[str]:
    """Lines of a tree without those matched, as if they had never been: links are counted."""
    dropped = [line for line in lines if matches(path_of(line), patterns)]
    gone: dict[str, int] = {}
    for line in dropped:
        if line.startswith("D "):
            above = os.path.dirname(path_of(line))
            gone[above] = gone.get(above, 0) + 1
    kept = []
    for line in lines:
        if line in dropped:
            continue
        n = gone.get(path_of(line), 0)
        if n and line.startswith("D "):
            line = NLINK.sub(lambda m, n=n: f"nlink={int(m[1]) - n}", line)
        kept.append(line)
    return kept


def recorded_tree(title: str) -> list[str]:
    """The tree of a section, without what docs/abi.md says we do not render."""
    lines = [line for line in section(title) if ENTRY.match(line)]
    return without(lines, listed("abi-not-rendered"))


def difference(got: list[str], wanted: list[str]) -> str:
    """A text for the first differences, "" when there is none. Order is not an ABI."""
    more = [f"+{line}" for line in got if line not in wanted]
    less = [f"-{line}" for line in wanted if line not in got]
    if sorted(got) == sorted(wanted):
        return ""
    text = "\n".join(less[:20] + more[:20])
    return f"{len(less)} recorded lines are missing, {len(more)} are not recorded:\n{text}"
