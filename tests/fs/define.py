#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`umdev define, undefine, modify, start, stop` mean what mdevctl means by them: the same steps are
done by both, and leave the same files."""
from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon

U, V = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
BACKEND, LABEL = "mdev/backend/value", "mdev/label/value"


@contextlib.contextmanager
def card(*settings: str) -> Iterator[Daemon]:
    with Daemon() as d:
        d.add_card("card0", *settings)
        yield d


def kept(d: Daemon, device: str = U, parent: str = "card0") -> Path:
    return d.config / "mdevctl.d" / parent / device


def fails(d: Daemon, status: int, *command: str) -> str:
    p = d.umdev(*command, ok=False)
    t.equal((p.returncode, len(p.stderr.splitlines())), (status, 1), f"{command}: {p.stderr}")
    return p.stderr


# The rest of a command line of both, and whether it is accepted.
STEPS = [
    (["define", "-u", U, "-p", "card0", "-t", "mtty-2"], True),
    (["define", "-u", U, "-p", "card0", "-t", "mtty-2"], False),
    (["modify", "-u", U, f"--addattr={BACKEND}", "--value=none"], True),
    (["modify", "-u", U, f"--addattr={LABEL}", "--value", "b = c"], True),
    (["modify", "-u", U, f"--addattr={LABEL}", "--value=first", "--index=0"], True),
    (["modify", "-u", U, f"--addattr={LABEL}", "--value=last", "--index", "3"], True),
    (["modify", "-u", U, f"--addattr={LABEL}", "--value=x", "--index=5"], False),
    (["modify", "-u", U, "--delattr", "--index=1"], True),
    (["modify", "-u", U, "--delattr", "--index=3"], False),
    (["modify", "-u", U, "--auto"], True),
    (["modify", "-u", U, "-p", "card0", "--delattr", "-m"], True),
    (["modify", "-u", U, "-a", "-t", "mtty-1"], True),
    (["modify", "-u", V, "-a"], False),
    (["define", "-u", V, "-p", "card1", "-t", "mtty-1", "-a"], True),
    (["define", "-u", V, "-p", "card0", "-t", "mtty-1"], True),
    (["undefine", "-u", V, "-p", "card1"], True),
    (["undefine", "-u", V], True),
    (["undefine", "-u", V], False),
]


@t.case
def each_step_leaves_what_mdevctl_leaves() -> None:
    if not shutil.which("mdevctl"):
        t.skip("no mdevctl here: run tools/setup")
    with card() as ours, card() as theirs:
        for words, good in STEPS:
            p = theirs.umdev("exec", "mdevctl", *words, ok=False)
            q = ours.umdev(*words, ok=False)
            t.equal((q.returncode == 0, p.returncode == 0), (good, good),
                    f"{words} by us and by mdevctl: {q.stderr} {p.stderr}")
            files = [{str(f.relative_to(d.config)): json.loads(f.read_text())
                      for f in (d.config / "mdevctl.d").glob("card*/*")} for d in (ours, theirs)]
            t.equal(files[0], files[1], f"after {words}")
        dumps = [json.loads(p.stdout) for p in
                 (ours.umdev("list", "-d", "--dumpjson"),
                  theirs.umdev("exec", "mdevctl", "list", "-d", "--dumpjson"))]
        t.equal(dumps[0], dumps[1], "list --dumpjson")


@t.case
def a_device_is_started_with_its_attributes_and_stopped() -> None:
    with card() as d:
        u = d.umdev("define", "-p", "card0", "-t", "mtty-2").stdout.strip()
        d.umdev("modify", "-u", u, "--addattr", LABEL, "--value", "a")
        d.umdev("modify", "-u", u, "--addattr", LABEL, "--value", "b")
        t.check(" no " in d.umdev("list", "--defined").stdout, "it is not active")
        d.umdev("start", "-u", u)
        t.equal((d.sys / "bus/mdev/devices" / u / LABEL).read_text(), "b\n", "the last value")
        t.check(f"{LABEL}=a" in d.umdev("list", "--defined").stdout, "its attributes")
        t.check(" yes " in d.umdev("list", "--defined").stdout, "it is active")
        t.check("exists" in fails(d, 4, "start", "-u", u), "started twice")
        # The device of a definition that is not there yet gives its parent and type.
        d.umdev("undefine", "-u", u)
        d.umdev("define", "-u", u)
        t.equal(json.loads(kept(d, u).read_text())["mdev_type"], "mtty-2", "its type")
        d.umdev("stop", "-u", u)
        t.check(kept(d, u).exists(), "the definition went")
        fails(d, 3, "stop", "-u", u)


@t.case
def the_first_attribute_that_is_refused_leaves_no_device() -> None:
    with card() as d:
        d.umdev("define", "-u", U, "-p", "card0", "-t", "mtty-2")
        for name, value in ((LABEL, "a"), (BACKEND, "telepathy"), (LABEL, "b")):
            d.umdev("modify", "-u", U, f"--addattr={name}", f"--value={value}")
        text = fails(d, 2, "start", "-u", U)
        t.check(BACKEND in text and "telepathy" in text, f"what was refused: {text}")
        t.check(not (d.sys / "bus/mdev/devices" / U).exists(), "the device stayed")
        for path in ("mdev/none/value", "mdev"):
            d.umdev("modify", "-u", U, "--delattr", "--index=1")
            d.umdev("modify", "-u", U, "--addattr", path, "--value=x", "--index=1")
            t.check(path in fails(d, 3 if "none" in path else 1, "start", "-u", U), path)
        with d.varlink() as v:
            t.equal(v.call("List")["devices"], [], "devices, failed ones included")


@t.case
def a_file_defines_and_starts() -> None:
    with card() as d, t.TempDir() as tmp:
        file = tmp / "one.json"
        file.write_text(json.dumps({"mdev_type": "mtty-2", "start": "auto", "x": 1,
                                    "attrs": [{LABEL: "f"}]}))
        u = d.umdev("start", "-p", "card0", "--jsonfile", str(file)).stdout.strip()
        t.equal((d.sys / "bus/mdev/devices" / u / LABEL).read_text(), "f\n", "label")
        t.check(not kept(d, u).exists(), "a transient device is defined")
        d.umdev("define", "-u", U, "-p", "card0", "--jsonfile", str(file), "--manual")
        t.equal(json.loads(kept(d).read_text()),
                {"mdev_type": "mtty-2", "start": "manual", "x": 1, "attrs": [{LABEL: "f"}]},
                "what was kept")
        p = subprocess.run(["sh", "-c", 'exec "$0" modify -u "$1" --jsonfile /dev/stdin',
                            str(t.BUILD / "src/cli/umdev"), U], env=d.env, text=True,
                           input='{"mdev_type": "mtty-1", "start": "auto"}', check=False)
        t.equal(p.returncode, 0, "modify by standard input")
        t.equal(json.loads(kept(d).read_text()), {"mdev_type": "mtty-1", "start": "auto"}, "new")
        d.umdev("start", "-p", "card0", "-t", "mtty-1", "-u", V)


@t.case
def what_is_wrong_is_named() -> None:
    with card() as d, t.TempDir() as tmp:
        file = tmp / "bad.json"
        define = ("define", "-u", U, "-p", "card0")
        for text, words in (('{\n"mdev_type": "mtty-1",\n}', [f"{file}: line 3: "]),
                            ('{\n\n"mdev_type": 1, "start": "auto"}', ["line 3", "mdev_type"]),
                            ('{"mdev_type": "mtty-1", "start": "x"}', ["start", "manual"]),
                            ('{"mdev_type": "mtty-1", "start": "auto", "attrs": [{"../x": "1"}]}',
                             ["../x"])):
            file.write_text(text)
            said = fails(d, 2, *define, "--jsonfile", str(file))
            t.check(all(w in said for w in words), f"{text}: {said}")
        t.check("no such" in fails(d, 3, *define, "--jsonfile", str(tmp / "no")).lower(), "no file")
        t.check("mtty-2" in fails(d, 3, *define, "-t", "mtty2"), "the nearest type")
        t.check(not kept(d).exists(), "something was kept")
        fails(d, 2, "define", "-u", U)
        fails(d, 2, "define", "-u", "x", "-p", "card0", "-t", "mtty-1")
        fails(d, 2, "define", "-u", U, "-p", "../x", "-t", "mtty-1")
        fails(d, 2, "start", "-t", "mtty-1")
        fails(d, 3, "start", "-u", U)
        d.umdev(*define, "-t", "mtty-1")
        fails(d, 2, "modify", "-u", U, "--addattr", "x")
        fails(d, 2, "modify", "-u", U, "--index", "0")
        fails(d, 2, "modify", "-u", U, "--addattr", "/etc/passwd", "--value", "1")
        fails(d, 2, "modify", "-u", U, "--delattr")
        fails(d, 2, "modify", "-u", U, "-a", "-m")
        d.umdev("define", "-u", U, "-p", "card1", "-t", "other-1")
        t.check("2 parents" in fails(d, 2, "start", "-u", U), "which one")
        t.check("card1" in fails(d, 3, "start", "-u", U, "-p", "card1"), "no such parent")
        # Files of others: what is half written is told, hidden ones are not read.
        kept(d).write_text('{"mdev_type": "mtty-1",\n')
        kept(d).with_name(f".{U}.tmp").write_text("{")
        said = fails(d, 2, "start", "-u", U, "-p", "card0")
        t.check(f"{kept(d)}: line " in said, f"file, line, reason: {said}")
        shown = d.umdev("list", "-d").stdout
        t.check("card1" in shown and "card0" not in shown, f"the others are listed: {shown}")


t.main()
