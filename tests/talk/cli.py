#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The umdev command: what it prints, its exit statuses, and that each failure is one line that
names the thing."""
from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import t
from lib.daemon import Daemon, program
from lib.vfio_user import Client

FAILURE, USAGE, NOT_FOUND, BUSY, REFUSED, NO_DAEMON = 1, 2, 3, 4, 5, 6
NOBODY = "00000000-0000-4000-8000-000000000000"


def run(*arguments: str, env: dict[str, str] | None = None, **more: Any) \
        -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program("umdev")), *arguments], env={**os.environ, **(env or {})},
                          text=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=30,
                          **{"stdout": subprocess.PIPE, **more})


def check_failure(p: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    what = " ".join(p.args[1:])
    t.equal(p.returncode, status, f"status of umdev {what} ({p.stderr.strip()})")
    t.equal(p.stdout, "", f"output of umdev {what}")
    t.check(p.stderr.startswith("umdev: ") and p.stderr.count("\n") == 1,
            f"umdev {what}: not one line: {p.stderr!r}")
    for word in words:
        t.check(word in p.stderr, f"umdev {what}: {p.stderr!r} does not say {word!r}")


def commands() -> list[str]:
    """The names that --help lists."""
    text = run("--help").stdout.split("\ncommands:\n")[1].split("\n\n")[0]
    return re.findall(r"^  (\S+(?: \S+)?)  ", text, re.M)


@contextlib.contextmanager
def card() -> Iterator[Daemon]:
    with Daemon() as d:
        d.umdev("parent", "add", "card0", "driver=mtty")
        yield d


# ---- no umdevd is needed for these ----


@t.case
def the_manual_has_every_command_and_option() -> None:
    manual = (t.ROOT / "src/cli/umdev.1").read_text().replace("\\-", "-")
    documented = re.findall(r"^\.B (umdev [a-z].*)$", manual, re.M)
    synopses = []
    for name in commands():
        text = run(*name.split(), "--help").stdout
        synopses.append(text.splitlines()[0].removeprefix("usage: "))
        for option in re.findall(r"^  .{4}--(\S+)", text, re.M):
            t.check(re.search(rf"^\.BR? .*--{option}\b", manual, re.M),
                    f"umdev.1 does not describe --{option} of {name}")
    t.equal(documented, synopses, "commands of umdev.1")


@t.case
def help_works_for_every_command() -> None:
    t.check(len(commands()) > 10, "commands of --help")
    for name in commands():
        for option in ("--help", "-h"):
            p = run(*name.split(), option)
            t.equal((p.returncode, p.stderr), (0, ""), f"{name} {option}")
            t.check(p.stdout.startswith(f"usage: umdev {name}"), f"{name} {option}: {p.stdout}")


@t.case
def the_version_is_that_of_the_build() -> None:
    version = re.search(r"version: '(.*?)'", (t.ROOT / "meson.build").read_text())[1]
    t.equal(run("--version").stdout, f"umdev {version}\n", "umdev --version")


@t.case
def wrong_command_lines_are_told_from_failures() -> None:
    for line in ("", "parent", "parent -j", "parent list x", "-j list", "list a b", "list --bogus",
                 "list -x", "list --json=yes", "create -t mtty-1", "create -p card0", "create -p",
                 "create --parent=card0 --type", "create -p card0 -t mtty-1 nokey",
                 "create -p card0 -t mtty-1 =value", f"create -p a -t b -u {NOBODY} {NOBODY}",
                 f"create -p a -t b {NOBODY} a=b,c=d {NOBODY}", "remove", "set a", "set a b",
                 "parent add", "parent add card0", "parent add card0 ports=3", "attach",
                 "attach x --for xen", "attach x --for podman -m 1G",
                 "attach x --for qmp -m 1G", "attach x --for podman --bus b", "attach x -m 1K", "attach x --memory 0", "exec", "exec -j x"):
        check_failure(run(*line.split()), USAGE, "--help")


@t.case
def near_misses_are_named() -> None:
    for line, near in (("lst", '"list"'), ("parent ad x", '"parent add"'), ("craete", '"create"'),
                       ("remove --froce x", '"--force"'), ("list --jsno", '"--json"'),
                       ("create --tpye x", '"--type"')):
        check_failure(run(*line.split()), USAGE, "did you mean", near)
    t.check("did you mean" not in run("frobnicate").stderr, "a word that is near to nothing")


@t.case
def without_umdevd_the_status_says_so() -> None:
    with t.TempDir() as d:
        env = {"UMDEV_RUN": str(d), "UMDEV_CONFIG": str(d)}
        for line in ("list", "parent list", "types", "drivers", "show x", "remove x", "monitor",
                     "param set x a=b", "create -p a -t b", "attach x", "exec true",
                     "parent add a driver=b"):
            check_failure(run(*line.split(), env=env), NO_DAEMON, str(d), "UMDEV_RUN")
        if os.geteuid() != 0:
            unset = {"UMDEV_RUN": "", "XDG_RUNTIME_DIR": ""}
            check_failure(run("list", env=unset), NO_DAEMON, "UMDEV_RUN", "XDG_RUNTIME_DIR")


@t.case
def a_place_that_cannot_be_is_a_usage_error() -> None:
    check_failure(run("list", env={"UMDEV_RUN": "run"}), USAGE, "UMDEV_RUN", '"/"')


@t.case
def output_that_is_lost_is_a_failure() -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        p = run("--help", stdout=full)
    t.equal(p.returncode, FAILURE, "status")
    t.check("standard output" in p.stderr, p.stderr)


@t.case
def what_answers_but_is_no_umdevd_is_a_failure() -> None:
    foreign = {"error": "org.example.Strange", "parameters": {"parameter": "x"}}
    with t.TempDir() as d, socket.socket(socket.AF_UNIX) as s:
        s.bind(f"{d}/control")
        s.listen()
        for answer, status, word in ((b"HTTP/1.1 400 Bad Request\r\n\0", FAILURE, "not Varlink"),
                                     (b"[]\0", FAILURE, "not Varlink"),
                                     (json.dumps(foreign).encode() + b"\0", FAILURE, "Strange"),
                                     (b"x" * (5 << 20), FAILURE, "longer"),
                                     (b'{"parameters":', NO_DAEMON, "hung up")):
            p = subprocess.Popen([str(program("umdev")), "list"], text=True, stdin=subprocess.DEVNULL,
                                 env={**os.environ, "UMDEV_RUN": str(d)}, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
            c = s.accept()[0]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                c.sendall(answer)
                c.recv(65536)
            c.close()
            out, err = p.communicate(timeout=20)
            check_failure(subprocess.CompletedProcess(p.args, p.returncode, out, err), status, word)


# ---- with umdevd ----


@t.case
def a_device_lives_and_dies() -> None:
    with card() as d:
        u = d.umdev("create", "-p", "card0", "-t", "mtty-2").stdout.strip()
        t.equal(str(uuid.UUID(u)), u, "what create prints")
        t.check((d.sys / "bus/mdev/devices" / u).exists(), "not in the tree")
        t.check(u in d.umdev("list").stdout, "not listed")
        t.check(u in d.umdev("list", "card0").stdout, "not listed with its parent")
        shown = d.umdev("show", u).stdout
        t.check(f"{d.sys}/devices/virtual/mtty/card0/{u}" in shown, f"no path: {shown}")
        t.check(str(d.socket(u)) in shown, f"no socket: {shown}")
        t.check("idle" in shown, f"no state: {shown}")
        d.umdev("remove", u)
        t.equal(d.umdev("list").stdout, "", "list after remove")
        d.umdev("parent", "remove", "card0")
        t.equal(d.umdev("parent", "list").stdout, "", "parents after remove")


@t.case
def a_named_device_has_that_name() -> None:
    with card() as d:
        u = str(uuid.uuid4())
        p = d.umdev("create", "--parent=card0", "--type=mtty-1", "-u", u.upper())
        t.equal(p.stdout, f"{u}\n", "what create prints")


@t.case
def tables_have_a_line_for_each_thing() -> None:
    with card() as d:
        types = d.umdev("types").stdout.splitlines()
        t.equal([line.split()[:3] for line in types[1:]],
                [["card0", "mtty-1", "24"], ["card0", "mtty-2", "12"]], "types")
        t.check("backend1" in d.umdev("types", "card0", "mtty-2").stdout, "parameters of a type")
        t.check("mtty" in d.umdev("drivers").stdout, "drivers")
        t.check("remove" in d.umdev("drivers", "mtty").stdout, "settings of a driver")
        (line,) = d.umdev("parent", "list").stdout.splitlines()[1:]
        t.equal(line.split()[:4], ["card0", "mtty", "mtty", "0"], "parents")


@t.case
def the_tree_shows_who_has_what() -> None:
    with card() as d:
        d.umdev("parent", "add", "lab", "driver=test")
        left = d.create("card0", "mtty-1", "label=left")
        idle = d.create("card0", "mtty-2")
        with Client(d.socket(left)):
            text = d.umdev("tree").stdout
            worker = d.workers()[0]
            everything = json.loads(d.umdev("tree", "-j").stdout)
        rows = {re.sub(r"^[ |`-]*", "", line).split()[0]: line for line in text.splitlines()}
        t.check(rows["mtty-1"].split()[-4:] == ["[#.........]", "1", "of", "22"], rows["mtty-1"])
        t.check(rows["mtty-2"].split()[-4:] == ["[#.........]", "1", "of", "11"], rows["mtty-2"])
        t.check(rows["test-dma"].split()[-3:] == ["0", "of", "32"], rows["test-dma"])
        comm = Path("/proc/self/comm").read_text().strip()
        t.equal(rows[left].split()[2:],
                ["left", "connected", "0", str(worker), str(os.getpid()), comm], text)
        t.equal(rows[idle].split()[-2:], ["idle", "1"], text)
        t.equal([p["name"] for p in everything["parents"]], ["card0", "lab"], "parents of -j")
        types = everything["parents"][0]["types"]
        t.equal([(x["name"], x["used"], x["available_instances"], len(x["devices"]))
                 for x in types], [("mtty-1", 1, 21, 1), ("mtty-2", 1, 10, 1)], "types of -j")
        t.equal(types[0]["devices"][0]["client"], os.getpid(), "client of -j")
        t.check("test-dma" not in d.umdev("tree", "card0").stdout, "tree of one parent")
        check_failure(d.umdev("tree", "crad0", ok=False), NOT_FOUND, "crad0")


@t.case
def a_list_has_the_columns_that_are_wanted() -> None:
    with card() as d:
        u = d.create("card0", "mtty-2", "label=left", "backend=none")
        help_text = " ".join(d.umdev("list", "--help").stdout.split())
        columns = re.search(r"Columns: (.*?)\.", help_text)[1].split(", ")
        t.check(len(columns) > 10, f"columns: {columns}")
        manual = (t.ROOT / "src/cli/umdev.1").read_text()
        manual = manual.split(".B umdev list")[1].split(".TP")[0]
        t.equal(re.findall(r"([a-z]+)", "".join(re.findall(r"^\.BR ([a-z].*?)\.?$", manual, re.M)))
                , columns, "columns of umdev.1")
        for name in columns:
            head = d.umdev("list", "-o", name).stdout.splitlines()[0]
            t.equal(head.strip(), name.upper(), "title")
        t.equal(d.umdev("list", "--output=settings,Group").stdout.splitlines()[1].split(),
                ["label=left", "backend=none", "0"], "two columns")
        t.equal(d.umdev("list", "-o", "+path").stdout.splitlines()[1].split()[-1],
                f"/devices/virtual/mtty/card0/{u}", "one more")
        t.equal(json.loads(d.umdev("list", "-o", "uuid,client", "-j").stdout),
                {"devices": [{"uuid": u}]}, "columns of --json")
        check_failure(d.umdev("list", "-o", "uuid,stat", ok=False), USAGE, "stat", "STATE")
        check_failure(d.umdev("list", "-o", "", ok=False), USAGE, "settings")


@t.case
def json_is_what_umdevd_answers() -> None:
    def answer(*arguments: str) -> Any:
        return json.loads(d.umdev(*arguments, "-j").stdout)

    with card() as d, d.varlink() as v:
        u = answer("create", "-p", "card0", "-t", "mtty-1", "backend=none")["uuid"]
        t.equal(answer("list"), v.call("List"), "list")
        t.equal(answer("show", u), v.call("Show", name=u), "show")
        t.equal(answer("types"), v.call("Types"), "types")
        t.equal(answer("types", "card0", "mtty-2"), v.call("Types")["types"][1], "one type")
        t.equal(answer("parent", "list"), v.call("ParentList"), "parent list")
        t.equal(answer("drivers"), v.call("Drivers"), "drivers")
        t.equal(answer("drivers", "mtty")["name"], "mtty", "one driver")
        t.equal(answer("attach", u)["devices"],
                [{**v.call("Show", name=u)["attach"], "uuid": u}], "attach")
        t.equal(answer("param", "set", u, "backend=file"), {}, "set")
        t.equal(answer("remove", u), {}, "remove")
        t.equal(answer("parent", "add", "card1", "driver=mtty"), {}, "parent add")
        t.equal(answer("parent", "remove", "card1"), {}, "parent remove")


@t.case
def parameters_are_set_at_create_and_later() -> None:
    def value(name: str) -> str:
        return (d.sys / "bus/mdev/devices" / u / name).read_text().strip()

    with card() as d:
        u = d.umdev("create", "-p", "card0", "-t", "mtty-2", "label=left", "backend=none") \
            .stdout.strip()
        t.equal(value("mdev/label/value"), "left", "label")
        t.equal(value("mdev/backend/value"), "none", "backend")
        d.umdev("param", "set", "left", "backend=socket", "label=right")
        t.equal(value("mdev/backend/value"), "socket", "backend")
        check_failure(d.umdev("show", "left", ok=False), NOT_FOUND, "left")
        t.check(u in d.umdev("show", "right").stdout, "not found by its label")


@t.case
def what_is_wrong_in_a_value_is_a_usage_error() -> None:
    with card() as d:
        make = ("create", "-p", "card0", "-t", "mtty-1")
        check_failure(d.umdev(*make, "backend=ptty", ok=False), USAGE, "backend", "pty")
        check_failure(d.umdev(*make, "bakcend=pty", ok=False), USAGE, "bakcend", "backend")
        check_failure(d.umdev(*make, "-u", "1234", ok=False), USAGE, "1234")
        t.equal(d.umdev("list").stdout, "", "devices after refused creates")
        check_failure(d.umdev("parent", "add", "Card", "driver=mtty", ok=False), USAGE, "Card")
        check_failure(d.umdev("parent", "add", "card1", "driver=mtty", "remvoe=wait", ok=False),
                      USAGE, "remvoe", "remove")
        check_failure(d.umdev("parent", "add", "card1", "driver=mtty", "a=1", "a=2", ok=False),
                      USAGE)


@t.case
def what_does_not_exist_is_not_found() -> None:
    with card() as d:
        for line, near in ((f"show {NOBODY}", NOBODY), (f"remove {NOBODY}", NOBODY),
                           (f"param set {NOBODY} label=x", NOBODY), (f"attach {NOBODY}", NOBODY),
                           ("create -p crad0 -t mtty-1", "crad0"),
                           ("create -p card0 -t mtty-3", "mtty-"), ("types crad0", "crad0"),
                           ("types card0 mtty-3", "mtty-"), ("drivers mtt", "mtty"),
                           ("list crad0", "crad0"), ("parent remove crad0", "crad0"),
                           ("parent add card1 driver=mttty", "mtty")):
            check_failure(d.umdev(*line.split(), ok=False), NOT_FOUND, near)


@t.case
def what_is_taken_or_used_up_is_busy() -> None:
    with card() as d:
        make = ("create", "-p", "card0", "-t", "mtty-2")
        u = d.umdev(*make).stdout.strip()
        check_failure(d.umdev(*make, "-u", u, ok=False), BUSY, u)
        check_failure(d.umdev("parent", "add", "card0", "driver=mtty", ok=False), BUSY, "card0")
        for _ in range(11):
            d.umdev(*make)
        check_failure(d.umdev(*make, ok=False), BUSY, "card0", "ports")


@t.case
def a_device_in_use_goes_only_by_force() -> None:
    with card() as d:
        u = d.umdev("create", "-p", "card0", "-t", "mtty-1").stdout.strip()
        with Client(d.socket(u)) as c:
            check_failure(d.umdev("remove", u, ok=False), BUSY, u)
            check_failure(d.umdev("parent", "remove", "card0", ok=False), BUSY, u)
            check_failure(d.umdev("param", "set", u, "backend=none", ok=False), BUSY, u)
            shown = json.loads(d.umdev("show", u, "-j").stdout)
            t.equal(shown["device"]["state"], "connected", "state")
            t.equal(shown["attach"]["owner"], os.getpid(), "owner")
            d.umdev("remove", "--force", u)
            t.check(c.is_closed(), "the client is still connected")
        t.equal(d.umdev("list").stdout, "", "list after remove --force")


@t.case
def what_is_never_allowed_is_refused() -> None:
    with card() as d:
        u = d.umdev("create", "-p", "card0", "-t", "mtty-1").stdout.strip()
        check_failure(d.umdev("param", "set", u, "num_ports=2", ok=False), REFUSED, "num_ports")


@t.case
def another_user_is_refused() -> None:
    if os.geteuid() != 0:
        t.skip("needs root to become another user")
    with card() as d:
        os.chmod(d.dir, 0o755)
        with t.TempDir() as copy:  # the build may be where nobody may go
            os.chmod(copy, 0o755)
            tool = Path(copy) / "umdev"
            tool.write_bytes(program("umdev").read_bytes())
            tool.chmod(0o755)
            p = subprocess.run([str(tool), "list"], env=d.env, text=True, capture_output=True,
                               user=65534, group=65534, extra_groups=[], cwd="/", timeout=30)
        check_failure(p, REFUSED, str(d.control))


@t.case
def attach_prints_words_for_a_shell() -> None:
    with t.TempDir() as top:
        odd = top / "it's a \"run\" $HOME"
        odd.mkdir()
        with Daemon(directory=odd) as d:
            d.add_card()
            a, b = d.create("card0", "mtty-1"), d.create("card0", "mtty-1")
            line = d.umdev("attach", a, b, "--for", "qemu", "-m", "512").stdout
            words = shlex.split(line)
            echoed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], text=True, check=True,
                                    capture_output=True).stdout.splitlines()
            t.equal(echoed, words, "words that a shell sees")
            t.equal(words, json.loads(d.umdev("attach", a, b, "-m", "512M", "-j").stdout)
                    ["arguments"], "words of --json")
            t.equal(words[:4], ["-object", "memory-backend-memfd,id=umdev-memory,size=512M,share=on",
                                "-machine", "memory-backend=umdev-memory"], "memory")
            for flag, device, u in ((words[4], words[5], a), (words[6], words[7], b)):
                t.equal(flag, "-device", "word before the device")
                t.equal(json.loads(device), {"driver": "vfio-user-pci", "socket": {
                    "type": "unix", "path": str(d.socket(u))}}, "device")


def read_line(p: subprocess.Popen[str], stream: Any) -> str:
    """One line, which must come within 10 s."""
    if not select.select([stream], [], [], 10)[0]:
        raise t.Failure(f"{' '.join(p.args)}: nothing came")
    return stream.readline()


@contextlib.contextmanager
def monitor(d: Daemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    p = subprocess.Popen([str(program("umdev")), "monitor", *arguments], env=d.env, bufsize=1,
                         text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        t.check("monitoring" in read_line(p, p.stderr), "monitor does not say that it runs")
        yield p
    finally:
        p.kill()
        p.communicate()


@t.case
def monitor_prints_events_as_they_come() -> None:
    with card() as d, monitor(d) as text, monitor(d, "-j") as lines:
        u = d.create("card0", "mtty-1")
        t.check(re.fullmatch(rf"\d\d:\d\d:\d\d added card0 {u}\n", read_line(text, text.stdout)),
                "line of a new device")
        event = json.loads(read_line(lines, lines.stdout))
        t.equal((event["what"], event["parent"], event["uuid"]), ("added", "card0", u), "event")


@t.case
def monitor_ends_with_umdevd() -> None:
    with card() as d, monitor(d) as p:
        d.stop()
        t.equal(p.wait(10), NO_DAEMON, "status of monitor")
        t.check("hung up" in read_line(p, p.stderr), "no reason")


t.main()
