# SPDX-License-Identifier: MIT
"""A Linux guest under TCG: Debian's cloud kernel, busybox, and a shell that this side drives.

The first UART of the machine is the kernel's console (a log file); on the second one the guest's
init reads a line "<number> <length> <shell command>", runs it and prints "##<number> <status>", or
"##? 0" when the command is not that long: then it is sent again. Cards under test come after those: ttyS4 and up (the four ISA names are always there).
"""
from __future__ import annotations

import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

from . import t
from .qemu import RAM, Qemu

INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec 3<>/dev/ttyS1
stty raw -echo -iexten <&3
echo '##0 0' >&3
while read -r number length command <&3; do
	if [ "${#command}" != "$length" ]; then # a busy guest's UART loses a byte at times
		echo "
##? 0" >&3
		continue
	fi
	( eval "$command" ) </dev/null >&3 2>&1
	echo "
##$number $?" >&3
done
"""


def _cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the newc format: name -> (mode, content)."""
    out = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(),
                                                      ("TRAILER!!!", (0, b""))], 1):
        raw = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0]
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + raw
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(programs: dict[str, bytes] | None = None,
              libraries: dict[str, bytes] | None = None) -> bytes:
    """programs: more files for /bin; libraries: path -> content of what those are linked with."""
    cached = t.CACHE / "guest/busybox"
    busybox = cached if cached.exists() else Path(shutil.which("busybox") or cached)
    if not busybox.exists():
        t.skip("no busybox for the guest here: run tools/get-guest")
    return _cpio({"bin": (0o40755, b""), "dev": (0o40755, b""),
                  "bin/busybox": (0o100755, busybox.read_bytes()),
                  "init": (0o100755, INIT.encode()),
                  **{f"bin/{n}": (0o100755, content) for n, content in (programs or {}).items()},
                  **_with_folders(libraries or {})})


def _with_folders(files: dict[str, bytes]) -> dict[str, tuple[int, bytes]]:
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    return {**{f: (0o40755, b"") for f in sorted(folders)},
            **{name: (0o100755, content) for name, content in files.items()}}


def linked_with(*programs: Path) -> dict[str, bytes]:
    """What the dynamic linker loads for them, by path without the first slash."""
    found: dict[str, bytes] = {}
    for program in programs:
        out = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
        for path in re.findall(r"(/\S+) \(0x", out.stdout):
            found[path.lstrip("/")] = Path(path).read_bytes()
    return found


def place_of(release: str, drm: bool) -> Path:
    """Where tools/get-guest leaves a kernel."""
    other = release and release != platform.freedesktop_os_release().get("VERSION_CODENAME")
    return t.CACHE / ("guest" + (f"-{release}" if other else "") + ("-drm" if drm else ""))


def modules(release: str) -> dict[str, bytes]:
    """Of the kernel with graphics: what drives a bochs display."""
    return {f"lib/drm/{m.name}": m.read_bytes() for m in place_of(release, True).glob("*.ko")}


class Guest(Qemu):
    """Boots at once; wait_boot() returns when the shell answers. `ram`: arguments that give it
    memory. `release`: a Debian other than this one, for its kernel. `drm`: the kernel that has
    graphics, with its modules in /lib/drm, to be loaded in the order of their names.
    `append`: for the kernel."""

    def __init__(self, devices: list[str], directory: Path, *more: str, name: str = "guest",
                 machine: str = "q35", ram: list[str] | None = None, release: str = "",
                 drm: bool = False, append: str = "") -> None:
        place = place_of(release, drm)
        kernel = place / "kernel"
        if not kernel.exists():
            t.skip("no kernel for the guest here: run tools/get-guest "
                   f"{release} {'drm' if drm else ''}")
        ramdisk = directory / "initramfs"
        if not ramdisk.exists():
            ramdisk.write_bytes(initramfs(libraries=modules(release) if drm else None))
        self.console = directory / f"{name}.console"
        shell = directory / f"{name}.shell"
        arguments = [
            "-machine", machine, "-accel", "tcg", "-smp", "1", *(RAM if ram is None else ram),
            "-kernel", str(kernel), "-initrd", str(ramdisk),
            "-append", "console=ttyS0 quiet panic=-1 8250.nr_uarts=16 random.trust_cpu=on "
                       + append,
            "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=shell,path={shell},server=on,wait=off",
            "-serial", "chardev:shell", *more]
        for d in devices:
            arguments += ["-device", d]
        super().__init__(arguments, directory, name)
        self._number = 0
        self._text = b""
        try:
            self._shell = self.connect(shell)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind and self.console.exists():
            print(f"console of the guest:\n{self.console.read_text(errors='replace')[-3000:]}")
        super().__exit__(kind, *rest)

    def _wait_mark(self, number: int, seconds: float) -> tuple[str, int | None]:
        """What was printed before the mark, and its status; None: the line was not understood."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(rb"##(%d|\?) (\d+)\n" % number, self._text)
            if found:
                break
            self._shell.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                chunk = self._shell.recv(65536)
            except TimeoutError:
                raise t.TimedOut(f"the guest did not answer within {seconds:g} s; so far: "
                                 f"{self._text[-500:]!r}") from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise t.Failure(f"QEMU ended: {self.log()[-2000:]}")
            self._text += chunk
        output, self._text = self._text[:found.start()], self._text[found.end():]
        return (output.decode(errors="replace").removesuffix("\n"),
                None if found[1] == b"?" else int(found[2]))

    def wait_boot(self, seconds: float = 60) -> None:
        """After the start and after every reboot."""
        self._wait_mark(0, seconds)

    def sh(self, command: str, seconds: float = 30, ok: bool = True) -> str:
        """Runs one line in the guest; its output without the last newline."""
        output, status = self.try_sh(command, seconds)
        if ok and status != 0:
            raise t.Failure(f"guest: '{command}': status {status}: {output}")
        return output

    def try_sh(self, command: str, seconds: float = 30) -> tuple[str, int]:
        command = command.strip()
        assert "\n" not in command and len(command) < 4000
        self._number += 1
        line = f"{self._number} {len(command)} {command}\n".encode()
        for _ in range(3):
            self._shell.sendall(line)
            output, status = self._wait_mark(self._number, seconds)
            if status is not None:
                return output, status
        raise t.Failure(f"the guest does not understand: {command}")

    def reboot(self) -> None:
        """Asks for it and waits until the guest is up again."""
        self._number += 1
        self._shell.sendall(f"{self._number} 9 reboot -f\n".encode())
        self._text = b""
        self.wait_boot()
