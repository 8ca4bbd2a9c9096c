#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The whole of umdev inside a guest: what a take-over leans on is the kernel's behaviour, so it is
tried on the kernels that people run."""
from __future__ import annotations

import re

from lib import t
from lib.daemon import program
from lib.guest import Guest, initramfs, linked_with

KILLS = 200
DEVICE = "11111111-2222-3333-4444-555555555555"
ENV = "export UMDEV_RUN=/tmp/run UMDEV_CONFIG=/tmp/config UMDEV_STATE=/tmp/state; " \
    "export UMDEV_WORKER=/bin/umdev-worker; mkdir -p /tmp/run; "


def survives(release: str, version: str) -> None:
    files = [program(n) for n in ("umdevd", "umdev-worker", "umdev")]
    files += [t.BUILD / "bench/bench-takeover", t.BUILD / "tests/unit/test-conn-kill"]
    with t.TempDir() as folder:
        (folder / "initramfs").write_bytes(
            initramfs({f.name: f.read_bytes() for f in files}, linked_with(*files)))
        with Guest([], folder, release=release) as g:
            g.wait_boot()
            kernel = g.sh("uname -r").strip()
            t.check(kernel.startswith(version), f"kernel {kernel}, wanted {version}")
            g.sh(ENV + "(umdevd >/tmp/log 2>&1 &); "
                 "for i in $(seq 100); do [ -S /tmp/run/control ] && break; sleep 0.1; done; "
                 f"umdev parent add lab driver=test && umdev create -p lab -t test-dma -u {DEVICE}")
            # The keeper is umdevd's child, and there when the client is connected.
            out = g.sh("p=$(pidof umdevd); (until grep . /proc/$p/task/$p/children; "
                       f"do sleep 0.2; done) | bench-takeover /tmp/run/dev/{DEVICE}/socket {KILLS} 2>&1 || "
                       "{ tail /tmp/log; false; }", 120)
            pause = re.search(r"takeover-pause: value=(\S+)", out)
            t.check(pause, out)
            g.sh("test-conn-kill", 100)
            t.fact(f"Linux {kernel}: {KILLS} kills survived, 0 accesses lost or repeated; pause "
                   f"{pause[1]} ms (median, without KVM)")
            t.check("goes on (life" in g.sh("cat /tmp/log"), "umdevd heard of the kills")


@t.case
def workers_are_replaced_on_linux_6_1() -> None:
    survives("bookworm", "6.1.")


@t.case
def workers_are_replaced_on_linux_6_12() -> None:
    survives("trixie", "6.12.")


t.main()
