#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""bash completion, with the names of a umdevd that runs."""
from __future__ import annotations

import shutil
import subprocess

from lib import t
from lib.daemon import Daemon, program

# As readline does: the line broken into words, the function called, what it offers printed.
HARNESS = """
source "$1/packaging/completion/umdev"
COMP_WORDS=() COMP_CWORD=0 COMP_LINE=$3
read -ra parts <<<"$(sed 's/=/ = /g' <<<"$3")"
COMP_WORDS=("$2" "${parts[@]:1}")
[[ $3 != *' ' ]] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_umdev "$2" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(d: Daemon, line: str) -> list[str]:
    if not shutil.which("bash"):
        t.skip("bash is not installed")
    p = subprocess.run(["bash", "-c", HARNESS, "bash", str(t.ROOT), str(program("umdev")), line],
                       env=d.env, text=True, capture_output=True, timeout=30)
    t.equal(p.stderr, "", f"errors of {line!r}")
    return sorted(p.stdout.split())


@t.case
def what_can_stand_there_is_offered() -> None:
    with Daemon() as d:
        d.umdev("parent", "add", "card0", "driver=mtty")
        d.umdev("parent", "add", "lab", "driver=test")
        u = d.create("card0", "mtty-2", "label=left")
        for line, wanted in (
                ("umdev par", ["param", "parent"]),
                ("umdev parent ", ["add", "list", "remove"]),
                ("umdev parent a", ["add"]),
                ("umdev parent remove ", ["card0", "lab"]),
                ("umdev parent remove card0 ", []),
                ("umdev parent add x driver=m", ["mtty"]),
                ("umdev parent add x driver=mtty rem", ["remove="]),
                ("umdev types ", ["card0", "lab"]),
                ("umdev types card0 ", ["mtty-1", "mtty-2"]),
                ("umdev create -p ", ["card0", "lab"]),
                ("umdev create -p card0 -t ", ["mtty-1", "mtty-2"]),
                ("umdev create --parent=l", ["lab"]),
                ("umdev create --type mtty-2 -p card0 backend", ["backend1=", "backend="]),
                ("umdev create --a", ["--all"]),
                ("umdev remove ", [u, "left"]),
                ("umdev remove left ", [u, "left"]),
                ("umdev remove --f", ["--force"]),
                ("umdev show le", ["left"]),
                ("umdev show left ", []),
                ("umdev param set left back", ["backend1=", "backend="]),
                ("umdev param show left lab", ["label"]),
                ("umdev list -o s", ["settings", "state"]),
                ("umdev attach left --for ", ["libvirt", "podman", "qemu", "qmp"]),
                ("umdev attach --for qmp ", [u, "left"]),
                ("umdev drivers t", ["test"]),
                ("umdev nosuch ", [])):
            offered = complete(d, line)
            t.equal(sorted(set(offered)), sorted(wanted), f"completion of {line!r}")


@t.case
def every_command_is_offered() -> None:
    with Daemon() as d:
        listed = {line.split("  ")[1].split()[0]
                  for line in d.umdev("--help").stdout.split("\ncommands:\n")[1]
                  .split("\n\n")[0].splitlines()}
        t.equal(set(complete(d, "umdev ")), listed, "commands")
        for name in listed:
            offered = complete(d, f"umdev {name} --")
            t.check(offered == [] or "--help" in offered, f"options of {name}: {offered}")


@t.case
def without_umdevd_it_is_silent() -> None:
    with t.TempDir() as top:
        d = Daemon(directory=top)
        for line in ("umdev remove ", "umdev create -p ", "umdev create -p x -t y "):
            t.equal(complete(d, line), [], line)


t.main()
