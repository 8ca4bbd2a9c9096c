#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A display in a Linux guest: bochs-drm drives it, and the picture that is taken of it is what the
guest has on its console."""
from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import time
from pathlib import Path

from lib import qemu, t
from lib.daemon import Daemon
from lib.guest import Guest, initramfs, modules
from lib.rfb import Rfb

RELEASES = ("bookworm", "trixie")
CELL = (8, 16)  # of the console's font, in pixels


def shot(d: Daemon, uuid: str) -> tuple[int, int, bytes]:
    """Width, height, pixels."""
    with Rfb(d.device_dir(uuid) / "vnc.sock") as v:
        return v.width, v.height, v.picture()


def load(g: Guest) -> None:
    g.sh("for m in /lib/drm/*.ko; do insmod $m || exit 1; done")
    g.sh("i=0; while [ ! -e /dev/fb0 ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; ls /dev/fb0")


def cell(picture: tuple[int, int, bytes], column: int, row: int) -> bytes:
    width, _, pixels = picture
    out = b""
    for y in range(CELL[1]):
        at = ((row * CELL[1] + y) * width + column * CELL[0]) * 4
        out += pixels[at:at + CELL[0] * 4]
    return out


def text_is_shown(g: Guest, d: Daemon, uuid: str) -> None:
    """A word with letters that come again: the same letter is the same glyph everywhere, different
    ones are not, and nothing else is on the line. No font needed."""
    word = "hallo welt, hello world"
    g.sh("printf '\\033[?25l\\033[2J\\033[5;1H" + word + "' >/dev/tty0")

    def right() -> bool:
        picture = shot(d, uuid)
        glyphs: dict[str, bytes] = {}
        for column, letter in enumerate(word.ljust(40)):
            if glyphs.setdefault(letter, cell(picture, column, 4)) != cell(picture, column, 4):
                return False
        return len(set(glyphs.values())) == len(set(word)) and \
            not any(cell(picture, 0, 6)) and cell(picture, 1, 6) == glyphs[" "]

    t.wait_for(right, 10, "the text on the screen")


def fb_is_the_picture(g: Guest, d: Daemon, uuid: str) -> None:
    width, height, pixels = shot(d, uuid)
    inside = g.sh(f"head -c {len(pixels)} /dev/fb0 | sha256sum").split()[0]
    t.equal(inside, hashlib.sha256(pixels).hexdigest(), "what the guest reads of its screen")
    path = d.dir / "shot.png"
    d.umdev("screenshot", uuid, str(path))
    t.equal(struct.unpack(">II", path.read_bytes()[16:24]), (width, height), "size of the PNG")


def modeset(directory: Path) -> bytes:
    path = directory / "modeset"
    flags = subprocess.run(["pkg-config", "--cflags", "libdrm"], check=True, capture_output=True,
                           text=True).stdout.split()
    subprocess.run(["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-o", str(path),
                    str(t.ROOT / "tests/vm/modeset.c")], check=True)
    return path.read_bytes()


def drawn(width: int, height: int) -> bytes:
    return b"".join(struct.pack("<I", n * 2654435761 & 0xffffff) for n in range(width * height))


def modes_change(g: Guest, d: Daemon, uuid: str, card: int) -> None:
    for width, height in ((1024, 768), (640, 480)):
        g.sh(f"modeset /dev/dri/card{card} {width} {height} >/tmp/said 2>&1 & echo $! >/tmp/pid")
        g.sh("i=0; until grep -q shown /tmp/said || [ $i = 100 ]; do sleep 0.1; i=$((i+1)); done; "
             "cat /tmp/said; grep -q shown /tmp/said")
        t.check(shot(d, uuid) == (width, height, drawn(width, height)), f"{width}x{height}")
        g.sh("kill $(cat /tmp/pid)")


def boots(release: str) -> None:
    with Daemon() as d:
        d.umdev("parent", "add", "gpu", "driver=display")
        first = d.create("gpu", "display-16m", "xres=800", "yres=600")
        second = d.create("gpu", "display-16m")
        (d.dir / "initramfs").write_bytes(initramfs({"modeset": modeset(d.dir)}, modules(release)))
        with Guest([qemu.vfio_user(d.socket(u)) for u in (first, second)], d.dir,
                   release=release, drm=True) as g:
            g.wait_boot()
            began = time.monotonic()
            load(g)
            t.fact(f"{release}: screens after {time.monotonic() - began:.1f} s")
            t.equal(g.sh("cat /sys/class/graphics/fb0/virtual_size").strip(), "800,600", "size of fb0")
            t.equal(g.sh("cat /sys/class/graphics/fb1/virtual_size").strip(), "1024,768", "size of fb1")
            t.equal(shot(d, first)[:2], (800, 600), "size of the first screen")
            # Nobody uses the second one until it is given a mode.
            modes_change(g, d, second, 1)
            text_is_shown(g, d, first)
            fb_is_the_picture(g, d, first)
            g.reboot()
            t.check(not any(shot(d, first)[2]), "the screen is dark after a reboot")
            load(g)
            text_is_shown(g, d, first)


@t.case
def a_screen_of_debian_12_is_seen() -> None:
    boots("bookworm")


@t.case
def a_screen_of_debian_13_is_seen() -> None:
    boots("trixie")


@t.case
def a_display_is_plugged_under_a_root_port_while_the_guest_runs() -> None:
    with Daemon() as d:
        d.umdev("parent", "add", "gpu", "driver=display")
        uuid = d.create("gpu", "display-32m")
        with Guest(["pcie-root-port,id=port0,chassis=1,pref64-reserve=64M"], d.dir, drm=True,
                   release="bookworm") as g:
            g.wait_boot()
            g.sh("for m in /lib/drm/*.ko; do insmod $m || exit 1; done")
            for _ in range(2):
                g.qmp("device_add", **json.loads(qemu.vfio_user(d.socket(uuid), id="screen",
                                                                bus="port0")))
                g.sh("i=0; while [ ! -e /dev/fb0 ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); "
                     "done; ls /dev/fb0")
                text_is_shown(g, d, uuid)
                g.qmp("device_del", id="screen")
                g.wait_event("DEVICE_DELETED")
                t.wait_for(lambda: d.state_of(uuid) == "idle", 5, "idle when unplugged")


t.main()
