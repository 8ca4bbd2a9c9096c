#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What `umdev attach` prints, used exactly as it is printed: by QEMU, by the monitor of a QEMU that
runs, by libvirt, by podman."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from pathlib import Path

from lib import t
from lib.daemon import Daemon, program
from lib.qemu import RAM, Qemu
from lib.qemu import program as qemu_program

Q35 = ["-accel", "qtest", "-M", "q35"]


def connected(d: Daemon, *uuids: str) -> None:
    for u in uuids:
        t.wait_for(lambda u=u: d.state_of(u) == "connected", 10, f"{u} connected")


def two_devices(d: Daemon) -> tuple[str, str]:
    d.umdev("parent", "add", "lab", "driver=test")
    return d.create("lab", "test-dma"), d.create("lab", "test-regs")


def in_namespace(script: str, env: dict[str, str], seconds: int = 60) \
        -> subprocess.CompletedProcess[str]:
    """As root, where mounts may be changed without anybody else seeing it."""
    if os.geteuid() != 0:
        t.skip("needs root to make a mount namespace")
    return subprocess.run(["unshare", "-m", "sh", "-ec", script], env=env, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)


@t.case
def qemu_takes_the_words() -> None:
    with Daemon() as d:
        a, b = two_devices(d)
        words = d.umdev("attach", a, b, "-m", "64").stdout
        line = " ".join(["exec", qemu_program(), *Q35, "-nodefaults -display none -m 64M -S",
                         words.strip()])
        p = subprocess.Popen(["sh", "-c", line], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            connected(d, a, b)
            t.equal(p.poll(), None, "QEMU runs")
            with d.varlink() as v:
                t.equal(v.call("Show", name=a)["attach"]["owner"], p.pid, "who has it")
        finally:
            p.kill()
            p.communicate()


@t.case
def a_running_qemu_takes_the_lines() -> None:
    ports = [x for n in (1, 2) for x in ("-device", f"pcie-root-port,id=rp{n},chassis={n}")]
    with t.TempDir() as top, Daemon() as d, \
            Qemu([*Q35, *RAM, "-S", *ports], top) as q:
        a, b = two_devices(d)
        q.qmp("query-status")
        for u, bus in ((a, "rp1"), (b, "rp2")):
            line = d.umdev("attach", u, "--for", "qmp", "--bus", bus).stdout
            t.equal(line.count("\n"), 1, "lines of a device")
            q._qmp.sendall(line.encode())
            answer = q._read_qmp()
            t.equal(answer, {"return": {}}, f"answer to {line}")
        connected(d, a, b)
        listed = q.qmp("qom-list", path="/machine/peripheral")
        t.check({f"umdev-{a}", f"umdev-{b}"} <= {x["name"] for x in listed}, str(listed))
        q.qmp("device_del", id=f"umdev-{a}")


@t.case
def libvirt_takes_the_domain() -> None:
    """Its QEMU driver, without a daemon; the only QEMU that it finds in $PATH is the tests' own
    (it asks each for all that it can). Its user is not there where only the driver is installed."""
    for tool in ("virsh", "virt-xml-validate"):
        if not shutil.which(tool):
            t.skip(f"{tool} is not installed: tools/setup test")
    with t.TempDir() as top, Daemon() as d:
        a, b = two_devices(d)
        (top / "bin").mkdir()
        qemu = top / "bin/qemu-system-x86_64"
        qemu.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\nexec {qemu_program()} "$@"\n')
        qemu.chmod(0o755)
        (top / "etc").mkdir()
        (top / "etc/qemu.conf").write_text(textwrap.dedent("""\
            user = "root"
            group = "root"
            security_driver = "none"
            cgroup_controllers = []
            namespaces = []
            remember_owner = 0
            stdio_handler = "file"
            """))
        script = f"""
            # No KVM: what a CI machine offers under this name is not always one.
            if [ -e /dev/kvm ]; then
                touch {top}/none
                mount --bind {top}/none /dev/kvm
                mount -o remount,bind,ro /dev/kvm
            fi
            for f in passwd group; do
                cp /etc/$f {top}/$f
                grep -q ^libvirt-qemu: {top}/$f || echo libvirt-qemu:x:64055:64055::/: >>{top}/$f
                mount --bind {top}/$f /etc/$f
            done
            {program('umdev')} attach {a} {b} --for libvirt -m 64 >{top}/domain.xml
            virt-xml-validate {top}/domain.xml
            {program('umdev')} attach {a} {b} --for libvirt -m 64 |
                PATH={top}/bin $(command -v virsh) -q -c 'qemu:///embed?root={top}' 'define /dev/stdin; start umdev-{a[:8]};
                    qemu-monitor-command umdev-{a[:8]} {{\\"execute\\":\\"query-pci\\"}};
                    destroy umdev-{a[:8]}; undefine umdev-{a[:8]}'
            """
        p = in_namespace(script, d.env)
        t.check(p.returncode == 0, f"status {p.returncode}: {p.stderr[-3000:]}")
        t.check("validates" in p.stderr, p.stderr)
        answer = next(json.loads(x) for x in p.stdout.splitlines() if x.startswith('{"return"'))
        ids = {(x["id"]["vendor"], x["id"]["device"])
               for bus in answer["return"] for x in bus["devices"]}
        t.check({(0x1234, 0x7e57), (0x1234, 0x7e58)} <= ids, f"devices of the guest: {ids}")


CONTAINER = """
import sys
from pathlib import Path
sys.path.insert(0, "/tests")
from lib.vfio_user import Client
for directory in sys.argv[1:]:
    with Client(Path(directory) / "socket") as c:
        print(hex(int.from_bytes(c.read(7, 0, 4), "little")), flush=True)
"""


def podman(top: Path, verb: str, words: str, command: str) -> str:
    """A container without an image: its /usr is the host's."""
    root = top / "rootfs"
    if not root.exists():
        for name in ("usr", "tests", "tmp"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
    return (f"podman --root {top}/root --runroot {top}/run --tmpdir {top}/tmp "
            "--storage-driver vfs --cgroup-manager cgroupfs --events-backend none "
            f"{verb} --network none --cgroups=disabled --log-driver none "
            "--ulimit nofile=1024:1024 --ulimit nproc=1000:1000 "
            f"-v /usr:/usr:ro -v {t.ROOT}/tests:/tests:ro {words} --rootfs {root} {command}\n")


# Where two kinds of control groups are mounted beside each other podman wants to see one only.
ONE_CGROUP = """
if [ -d /sys/fs/cgroup/unified ]; then
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
"""


@t.case
def podman_takes_the_words() -> None:
    if not shutil.which("podman"):
        t.skip("podman is not installed: tools/setup test")
    with t.TempDir() as top, Daemon() as d:
        a, b = two_devices(d)
        words = d.umdev("attach", a, b, "--for", "podman").stdout.strip()
        (top / "c.py").write_text(CONTAINER)
        dirs = f"{d.device_dir(a)} {d.device_dir(b)}"
        client = podman(top, "run --rm", f"-v {top}/c.py:/c.py {words}", f"/usr/bin/python3 /c.py {dirs}")
        able = in_namespace(ONE_CGROUP + podman(top, "run --rm", "", "/usr/bin/true"), d.env)
        if able.returncode == 0:
            p = in_namespace(ONE_CGROUP + client, d.env)
            t.equal(p.stdout.split(), ["0x7e581234", "0x7e571234"],
                    f"ids that a client in the container reads: {p.stderr[-2000:]}")
            t.fact("podman: a client in a container used two devices")
            return
        # No container can be started here: that podman understands the words, and mounts what
        # they say, is what can be seen.
        p = in_namespace(ONE_CGROUP + podman(top, "create --name x", words, "/usr/bin/true") +
                         f"podman --root {top}/root --runroot {top}/run --tmpdir {top}/tmp "
                         "--storage-driver vfs inspect x", d.env)
        t.check(p.returncode == 0, f"podman create: {p.stderr[-2000:]}")
        mounts = json.loads(p.stdout[p.stdout.index("["):])[0]["Mounts"]
        for u in (a, b):
            path = str(d.device_dir(u))
            t.check((path, path) in [(m["Source"], m["Destination"]) for m in mounts], str(mounts))
        t.fact(f"podman starts no container here ({able.stderr.strip()[-100:]}): words were checked")


t.main()
