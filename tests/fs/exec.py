#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""`umdev exec`: what its command sees, and that nobody else sees anything of it."""
from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import t
from lib.daemon import Daemon, program
from lib.vfio_user import Client

NOBODY = 65534
UMDEV = ("bus/mdev", "class/mdev_bus", "class/mtty", "class/umdev", "class/vfio", "class/vfio-dev",
         "devices/virtual/mtty", "devices/virtual/umdev", "devices/virtual/vfio",
         "kernel/iommu_groups")

# Prints all links of /sys/class and /sys/bus and where they lead, None for those that lead nowhere.
LINKS = """
import json, os
found = {}
for top in ("/sys/class", "/sys/bus"):
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[path] = os.path.realpath(path) if os.path.exists(path) else None
print(json.dumps(found))
"""


def inside(d: Daemon, *command: str, status: int = 0, **more: Any) -> str:
    """Output of a command under `umdev exec`."""
    p = subprocess.run([str(program("umdev")), "exec", "--", *command], text=True, timeout=60,
                       stdin=subprocess.DEVNULL, capture_output=True, **{"env": d.env, **more})
    t.equal(p.returncode, status, f"status of exec {' '.join(command)} ({p.stderr.strip()})")
    return p.stdout


def is_umdevs(path: str) -> bool:
    return path.removeprefix("/sys/").startswith(UMDEV)


@contextlib.contextmanager
def card() -> Iterator[Daemon]:
    with Daemon() as d:
        d.add_card()
        yield d


@t.case
def devices_are_below_sys() -> None:
    with card() as d:
        u = d.create("card0", "mtty-1")
        device = f"/sys/devices/virtual/mtty/card0/{u}"
        for link in (f"/sys/bus/mdev/devices/{u}",
                     f"/sys/class/mdev_bus/card0/mdev_supported_types/mtty-1/devices/{u}"):
            t.equal(inside(d, "readlink", "-e", link).strip(), device, link)
        t.equal(inside(d, "readlink", "-e", f"{device}/iommu_group").strip().rsplit("/", 1)[0],
                "/sys/kernel/iommu_groups", "group")


@t.case
def the_machines_own_entries_stay() -> None:
    def look() -> dict[str, str | None]:
        return json.loads(subprocess.run([sys.executable, "-c", LINKS], text=True, check=True,
                                         stdout=subprocess.PIPE).stdout)

    with card() as d:
        before = look()
        seen = json.loads(inside(d, sys.executable, "-c", LINKS))
        after = look()
        t.check(len(before) > 20, "this machine has no /sys to speak of")
        for path, target in before.items():
            if path.startswith("/sys/class/bdi/0:"):
                continue  # of mounts, which come and go beside this test under the same number
            if not is_umdevs(path) and after.get(path, "gone") == target:
                t.equal(seen.get(path, "missing"), target, path)
        for folder in ("", "/bus", "/class", "/devices", "/devices/virtual", "/kernel"):
            there = set(inside(d, "ls", f"/sys{folder}").split())
            missing = set(os.listdir(f"/sys{folder}")) - there
            t.equal(missing, set(), f"missing of /sys{folder}")
        t.equal(inside(d, "cat", "/sys/class/net/lo/mtu"),
                Path("/sys/class/net/lo/mtu").read_text(), "a file of the machine")
        t.equal(inside(d, "ls", f"{d.run}/hostsys").split(), sorted(os.listdir("/sys")), "hostsys")


@t.case
def devices_come_and_go_while_the_command_runs() -> None:
    with card() as d:
        u = str(uuid.uuid4())
        script = f"""set -e
            cd /sys/class/mdev_bus/card0/mdev_supported_types/mtty-2
            cat available_instances
            echo {u} > create
            cat available_instances
            ls devices
            echo 1 > /sys/bus/mdev/devices/{u}/remove
            cat available_instances"""
        t.equal(inside(d, "sh", "-c", script).split(), ["12", "11", u, "12"], "what the shell saw")


@t.case
def the_first_parent_may_be_made_inside() -> None:
    if not shutil.which("mdevctl"):
        t.skip("no mdevctl here: run tools/setup")
    with Daemon() as d:
        t.equal(inside(d, "mdevctl", "types").strip(), "", "types without a parent")
        script = f"{program('umdev')} parent add card0 driver=mtty && mdevctl types --dumpjson"
        (parents,) = json.loads(inside(d, "sh", "-c", script))
        t.equal(list(parents), ["card0"], "parents")


def mount_points(*below: str) -> list[str]:
    """Others may mount elsewhere at the same time."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [path for path in (line.split()[4] for line in lines) if path.startswith(below)]


@t.case
def nothing_is_seen_outside() -> None:
    with card() as d:
        before = mount_points("/sys", str(d.dir))
        script = "echo; read x; test -e /sys/bus/mdev"
        with subprocess.Popen([str(program("umdev")), "exec", "sh", "-c", script], env=d.env,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
            t.equal(p.stdout.readline(), b"\n", "the command runs")
            t.equal(mount_points("/sys", str(d.dir)), before, "mounts outside")
            t.equal(list((d.run / "hostsys").iterdir()), [], "hostsys outside")
            p.stdin.write(b"\n")
            p.stdin.close()
            t.equal(p.wait(10), 0, "the command's own view")


@t.case
def the_status_is_the_commands() -> None:
    with card() as d:
        inside(d, "true")
        inside(d, "sh", "-c", "exit 3", status=3)
        inside(d, "sh", "-c", "kill -KILL $$", status=-signal.SIGKILL)
        inside(d, "/etc/passwd", status=126)
        inside(d, "no-such-command", status=127, env=dict(d.env, PATH="/usr/bin:/bin"))


@t.case
def options_behind_the_command_are_its_own() -> None:
    with card() as d:
        p = d.umdev("exec", "printf", "%s.", "--help", "-j", "--", "x")
        t.equal(p.stdout, "--help.-j.--.x.", "arguments of the command")


@t.case
def the_caller_stays_who_it_is() -> None:
    with card() as d:
        t.equal(inside(d, "id", "-u").strip(), str(os.geteuid()), "user")
        t.equal(inside(d, "id", "-g").strip(), str(os.getegid()), "group")
        found = json.loads(inside(d, sys.executable, "-c",
                                  "import os, json; print(json.dumps(dict(os.environ)))"))
        t.equal([found[n] for n in ("UMDEV_RUN", "UMDEV_CONFIG", "SYSTEMD_DEVICE_VERIFY_SYSFS")],
                [str(d.run), str(d.config), "0"], "environment")


@t.case
def the_working_directory_stays() -> None:
    with card() as d, t.TempDir() as here:
        t.equal(inside(d, "pwd", cwd=here).strip(), str(here), "elsewhere")
        t.check("mdev" in inside(d, "ls", cwd="/sys/bus").split(), "the new one of /sys")


@t.case
def sys_takes_no_new_entries() -> None:
    with card() as d:
        inside(d, "mkdir", "/sys/class/new", status=1)
        t.equal(inside(d, "sh", "-c", "echo x 2>/dev/null > /sys/new || echo refused").strip(),
                "refused", "a file in /sys")


@t.case
def exec_works_inside_exec() -> None:
    with card() as d:
        u = d.create("card0", "mtty-1")
        t.equal(inside(d, str(program("umdev")), "exec", "ls", "/sys/bus/mdev/devices").strip(), u,
                "devices")


@t.case
def a_group_in_use_cannot_be_opened() -> None:
    """/dev/vfio/<n>, as libvirt asks it; and the machine's other devices stay."""
    with card() as d:
        a, b = d.create("card0", "mtty-1"), d.create("card0", "mtty-1")
        with d.varlink() as v:
            first, second = (v.call("Show", name=x)["device"]["group"] for x in (a, b))

        def look() -> list[str]:
            script = f"""ls -d /dev/vfio/{first} /dev/vfio/{second} | wc -l
                for n in {first} {second} 99999; do
                    ( : < /dev/vfio/$n ) 2>&1 | sed 's/.*: //' | grep . || echo opened
                done"""
            return inside(d, "bash", "-c", script).splitlines()

        t.equal(look(), ["2", "opened", "opened", "No such file or directory"], "idle")
        with Client(d.socket(b)):
            t.equal(look(), ["2", "opened", "Device or resource busy",
                             "No such file or directory"], "the second one is in use")
        t.wait_for(lambda: d.state_of(b) == "idle", 5, "the end of the client")
        t.equal(look()[2], "opened", "after its end")
        d.umdev("remove", a)
        t.equal(inside(d, "ls", f"{d.run}/vfio").split(), [str(second)]
                + sorted(os.listdir("/dev/vfio") if os.path.isdir("/dev/vfio") else []), "groups")
        script = "echo x > /dev/null; head -c 4 /dev/urandom | wc -c; ls /dev/pts /dev/shm > /dev/null"
        t.equal(inside(d, "sh", "-ec", script).strip(), "4", "other devices")
        there = set(inside(d, "ls", "/dev").split())
        t.equal(set(os.listdir("/dev")) - there, set(), "missing of /dev")


# Listens as libudev does, runs a command, prints what it heard until the last line's event.
LISTEN = """
import json, socket, struct, subprocess, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
s.bind((0, 2))
s.settimeout(5)
subprocess.run(["sh", "-ec", sys.argv[1]], check=True)
while True:
    m = s.recv(65536)
    prefix, magic, size, at, n, subsystem = struct.unpack_from("=8s4sIIII", m)
    assert prefix == b"libudev\\0" and magic == b"\\xfe\\xed\\xca\\xfe" and at == size == 40, m
    pairs = m[at:at + n].decode().split("\\0")
    assert len(m) == at + n and pairs.pop() == "", m
    print(json.dumps([subsystem, pairs]))
    if pairs[:2] == ["ACTION=remove", "DEVPATH=/devices/virtual/mtty/mtty"]:
        break
"""
DEVICE = "a0000000-0000-4000-8000-000000000001"


def recorded_uevents() -> list[list[str]]:
    """What a kernel said of a parent and a device that came and went. MAJOR and MINOR are of a node
    that we do not have; the parent that went in the record was another one."""
    text = (t.ROOT / "tests/oracle/kernel-6.1-oracle-1.txt").read_text()
    record = [[p for p in line.split("|")[1:] if not p.startswith(("MAJOR=", "MINOR=", "SEQNUM="))]
              for line in re.findall(r"^UEVENT: (.*)\|$", text, re.M)]

    def at(action: str, path: str) -> int:
        return next(i for i, e in enumerate(record)
                    if e[:2] == [f"ACTION={action}", f"DEVPATH=/devices/virtual/{path}"])

    came, made = at("add", "mtty/mtty"), at("add", f"mtty/mtty/{DEVICE}")
    removed, gone = at("remove", f"mtty/mtty/{DEVICE}/vfio-dev/vfio0"), at("remove", "mdpy/mdpy")
    return [*record[came:came + 2], *record[made:made + 4], *record[removed:removed + 4],
            *([x.replace("mdpy", "mtty") for x in e] for e in record[gone - 1:gone + 1])]


@t.case
def listeners_of_udev_hear_what_a_kernel_says() -> None:
    """The first device of the record and its parent, event by event; not seen outside."""
    with Daemon() as d, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as outside:
        outside.bind((0, 2))
        outside.setblocking(False)
        umdev = program("umdev")
        script = f"""{umdev} parent add mtty driver=mtty params=off
            echo {DEVICE} > /sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1/create
            echo 1 > /sys/devices/virtual/mtty/mtty/{DEVICE}/remove
            {umdev} parent remove mtty"""
        p = subprocess.run([str(umdev), "exec", "-e", "--", sys.executable, "-c", LISTEN, script],
                           env=d.env, text=True, capture_output=True, timeout=60, check=False)
        t.equal(p.returncode, 0, f"status ({p.stderr})")
        heard = [json.loads(line) for line in p.stdout.splitlines()]
        t.equal([pairs[-1] for _, pairs in heard],
                [f"SEQNUM={n}" for n in range(1, len(heard) + 1)], "sequence")
        t.equal([pairs[:-1] for _, pairs in heard], recorded_uevents(), "events")
        # What a listener's socket filter compares: MurmurHash2 of the subsystem's name.
        t.equal({s for s, pairs in heard if "SUBSYSTEM=mdev" in pairs}, {0xc71152bb}, "hash")
        try:
            t.check(DEVICE.encode() not in outside.recv(65536), "the event is heard outside")
        except BlockingIOError:
            pass


@t.case
def listeners_of_the_machine_hear_when_they_should() -> None:
    """`uevents = yes` in umdev.conf, in a network namespace that stands for the machine's."""
    if os.geteuid() != 0:
        t.skip("needs root to send")
    with t.TempDir() as top:
        env = dict(os.environ, UMDEV_RUN=f"{top}/run", UMDEV_CONFIG=f"{top}/config",
                   UMDEV_STATE=f"{top}/state")
        (top / "config").mkdir()
        (top / "config/umdev.conf").write_text("uevents = yes\n")
        umdev = program("umdev")
        script = f"""{program("umdevd")} 2> {top}/log & trap 'kill -INT $!; wait' EXIT
            until grep -q ready {top}/log; do kill -0 $!; sleep 0.02; done
            {umdev} parent add mtty driver=mtty params=off
            {umdev} create -p mtty -t mtty-1 -u {DEVICE} > /dev/null
            {umdev} remove {DEVICE}
            {umdev} parent remove mtty"""
        p = subprocess.run(["unshare", "-n", sys.executable, "-c", LISTEN, script], env=env,
                           text=True, capture_output=True, timeout=60, check=False)
        t.equal(p.returncode, 0, f"status ({p.stderr})")
        heard = [json.loads(line)[1][:-1] for line in p.stdout.splitlines()]
        ours = [e for e in heard if e[2] not in ("SUBSYSTEM=drivers", "SUBSYSTEM=class")]
        t.equal(ours, recorded_uevents(), "events")


@t.case
def mdevctls_files_are_those_of_umdev() -> None:
    with card() as d:
        t.equal(inside(d, "ls", "/etc/mdevctl.d/scripts.d").split(), ["callouts", "notifiers"],
                "folders of scripts")
        inside(d, "sh", "-c", "mkdir /etc/mdevctl.d/card0 && echo {} > /etc/mdevctl.d/card0/x")
        t.equal((d.config / "mdevctl.d/card0/x").read_text(), "{}\n", "a definition")


@t.case
def a_machine_without_mdevctls_folder_gets_one() -> None:
    """/etc is covered then, and every other entry must still be there."""
    if os.geteuid() != 0:
        t.skip("needs root to hide /etc/mdevctl.d")
    with card() as d, t.TempDir() as copy:
        shutil.copytree("/etc", copy / "etc", symlinks=True,
                        ignore=shutil.ignore_patterns("mdevctl.d", "ssl"))
        script = f"""mount --bind {copy}/etc /etc && ! test -e /etc/mdevctl.d &&
            exec {program('umdev')} exec sh -c 'ls /etc/mdevctl.d; cat /etc/passwd; ls /etc/apt;
                ls -d /etc/mtab; touch /etc/new || echo refused'"""
        p = subprocess.run(["unshare", "-m", "sh", "-c", script], env=d.env, text=True, timeout=60,
                           capture_output=True, check=False)
        t.equal(p.returncode, 0, f"status ({p.stderr})")
        lines = p.stdout.splitlines()
        t.equal((lines[0], lines[-1]), ("scripts.d", "refused"), "first and last line")
        t.check(set(Path("/etc/passwd").read_text().splitlines()) < set(lines), "/etc/passwd")
        t.check(set(os.listdir("/etc/apt")) < set(lines), "/etc/apt")


@t.case
def groups_of_the_machine_are_seen_beside_ours() -> None:
    """Few test machines have iommu groups; two are made up in a mount namespace."""
    groups = "/sys/kernel/iommu_groups"
    if os.geteuid() != 0:
        t.skip("needs root to mount")
    with t.TempDir() as top:
        env = dict(os.environ, UMDEV_RUN=f"{top}/run", UMDEV_CONFIG=f"{top}/config",
                   UMDEV_STATE=f"{top}/state")
        script = f"""set -e
            mount -t tmpfs none {groups}
            mkdir -p {groups}/0/devices {groups}/7/devices/0000:00:02.0
            {program("umdevd")} 2> {top}/log & trap 'kill $!; wait' EXIT
            until grep -q ready {top}/log; do kill -0 $!; sleep 0.02; done
            umdev={program("umdev")}
            $umdev parent add card0 driver=mtty
            u=$($umdev create -p card0 -t mtty-1)
            $umdev exec sh -ec "ls {groups}; ls {groups}/7/devices
                readlink -e /sys/bus/mdev/devices/$u/iommu_group" """
        p = subprocess.run(["unshare", "-m", "sh", "-c", script], env=env, text=True, timeout=60,
                           capture_output=True, check=False)
        t.equal(p.returncode, 0, f"status ({p.stderr})")
        t.equal(p.stdout.split(), ["0", "7", "8", "0000:00:02.0", f"{groups}/8"], "groups")


@contextlib.contextmanager
def daemon_of_nobody() -> Iterator[dict[str, str]]:
    """umdevd run by an ordinary user; gives the environment of its clients, PATH included."""
    if os.geteuid() != 0:
        t.skip("the other cases run as an ordinary user already")
    with t.TempDir() as top:
        for name in ("umdevd", "umdev"):  # the build may be where that user may not go
            shutil.copy(program(name), top / name)
        os.chown(top, NOBODY, NOBODY)
        env = {"PATH": f"{top}:/usr/sbin:/usr/bin:/sbin:/bin", "UMDEV_RUN": f"{top}/run",
               "UMDEV_CONFIG": f"{top}/config", "UMDEV_STATE": f"{top}/state"}
        p = subprocess.Popen([str(top / "umdevd")], env=env, stderr=subprocess.PIPE, text=True,
                             user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
        try:
            t.check("ready" in p.stderr.readline(), "umdevd is not ready")
            if not os.path.ismount(top / "run/sys") and as_nobody(
                    env, "test", "-d", f"{top}/run/sys/bus").returncode != 0:
                t.skip("an ordinary user cannot mount FUSE here")
            yield env
        finally:
            p.terminate()
            p.communicate(timeout=10)


def as_nobody(env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=60, cwd="/",
                          user=NOBODY, group=NOBODY, extra_groups=[], check=False)


@t.case
def an_ordinary_user_needs_no_root() -> None:
    with daemon_of_nobody() as env:
        u = str(uuid.uuid4())
        script = f"""set -e
            umdev parent add card0 driver=mtty
            umdev exec sh -ec '
                id -u
                grep CapEff /proc/self/status | cut -f2
                echo {u} > /sys/class/mdev_bus/card0/mdev_supported_types/mtty-1/create
                readlink -e /sys/bus/mdev/devices/{u}
                cat /sys/class/net/lo/mtu'"""
        p = as_nobody(env, "sh", "-c", script)
        t.equal(p.returncode, 0, f"status ({p.stderr})")
        t.equal(p.stdout.split(), [str(NOBODY), "0" * 16, f"/sys/devices/virtual/mtty/card0/{u}",
                                   Path("/sys/class/net/lo/mtu").read_text().strip()], "output")


@t.case
def an_ordinary_user_runs_mdevctl() -> None:
    if not shutil.which("mdevctl"):
        t.skip("no mdevctl here: run tools/setup")
    with daemon_of_nobody() as env:
        u = str(uuid.uuid4())
        script = f"""set -e
            umdev parent add card0 driver=mtty
            umdev exec mdevctl define -u {u} -p card0 -t mtty-2
            umdev exec mdevctl start -u {u}
            umdev exec mdevctl list
            umdev exec mdevctl stop -u {u}"""
        p = as_nobody(env, "sh", "-c", script)
        t.equal(p.returncode, 0, f"status ({p.stderr})")
        t.check(f"{u} card0 mtty-2" in p.stdout, f"list: {p.stdout}")


t.main()
