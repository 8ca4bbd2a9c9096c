# SPDX-License-Identifier: MIT
"""Managers of mediated devices, unmodified, as tools/get-clients fetched them: libvirt's daemon with
its driver for node devices, and mdevctl of Debian 13."""
from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import t
from .daemon import Daemon, program

CLIENTS = t.CACHE / "clients"

# libvirtd writes below these; what it finds and leaves there must not be the machine's.
PRIVATE = """set -e
mount -t tmpfs none /run; mount -t tmpfs none /var/lib; mount -t tmpfs none /var/cache
# Where udevd runs, libudev listens whatever /dev is.
mkdir /run/udev; : > /run/udev/control
cp -a /etc "$0/etc"; mount --bind "$0/etc" /etc
exec "$@"
"""


def client(name: str) -> str:
    path = CLIENTS / name
    if not path.exists():
        t.skip(f"no {name} of ours here: run tools/get-clients")
    return str(path)


class Libvirt:
    """A libvirtd that sees umdev's tree as /sys."""

    def __init__(self, virsh: str, socket: Path) -> None:
        self.uri = f"nodedev:///system?socket={socket}"
        self.virsh = virsh

    def run(self, *words: str, ok: bool = True) -> str:
        """Output of virsh, or what it complains of."""
        p = subprocess.run([self.virsh, "-c", self.uri, *words], text=True, capture_output=True,
                           timeout=60, check=False)
        t.equal(p.returncode == 0, ok, f"virsh {' '.join(words)} succeeds: {p.stderr}")
        return p.stdout if ok else p.stderr


@contextlib.contextmanager
def libvirt(d: Daemon) -> Iterator[Libvirt]:
    if os.geteuid() != 0:
        t.skip("libvirtd needs root to be sent uevents")
    top = d.dir / "libvirt"
    for name in ("drivers", "sock"):
        (top / name).mkdir(parents=True)
    driver = CLIENTS / "libvirt.root/usr/lib/x86_64-linux-gnu/libvirt/connection-driver"
    daemon = client("libvirtd")
    (top / "drivers/libvirt_driver_nodedev.so").symlink_to(driver / "libvirt_driver_nodedev.so")
    (top / "conf").write_text(f'unix_sock_dir = "{top}/sock"\nauth_unix_rw = "none"\n'
                              f'log_outputs = "2:stderr"\n')
    command = ["unshare", "-m", "sh", "-c", PRIVATE, str(top), str(program("umdev")), "exec",
               "--uevents", "--", daemon, "--config", str(top / "conf"), "--pid-file",
               str(top / "pid")]
    with open(top / "log", "wb") as log, subprocess.Popen(
            command, env=d.env | {"LIBVIRT_DRIVER_DIR": str(top / "drivers")}, stderr=log,
            stdin=subprocess.DEVNULL, stdout=log) as p:
        try:
            socket = top / "sock/libvirt-sock"
            t.wait_for(lambda: socket.is_socket() or p.poll() is not None, 20, "libvirtd's socket")
            t.equal(p.poll(), None, f"libvirtd: {(top / 'log').read_text()[-2000:]}")
            yield Libvirt(client("virsh"), socket)
            t.equal(p.poll(), None, f"libvirtd ended: {(top / 'log').read_text()[-2000:]}")
        finally:
            p.kill()
