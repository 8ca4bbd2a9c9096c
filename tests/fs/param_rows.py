#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""docs/abi.md, "Parameters", row by row: the files of a parameter, when it can be written, what a write
answers and in which order, what the classes have in common, aggregation, create, groups."""
from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from lib import t
from lib.daemon import Daemon
from lib.sysfs import open_result, result, write_result
from lib.vfio_user import Client

UUID, OTHER, THIRD, FOURTH = (f"d0000000-0000-4000-8000-00000000000{i}" for i in "1234")
G1, G2 = (f"e0000000-0000-4000-8000-00000000000{i}" for i in "12")
GROUP = "peer_to_peer_resource_uuid"
SOMEBODY = 61234


class Lab:
    def __init__(self, d: Daemon) -> None:
        self.d = d
        self.p = d.sys / "class/mdev_bus/p"

    def type(self, kind: str = "test-kinds") -> Path:
        return self.p / "mdev_supported_types" / kind

    def device(self, uuid: str = UUID) -> Path:
        return self.d.sys / "bus/mdev/devices" / uuid

    def param(self, name: str, uuid: str = UUID) -> Path:
        own = self.device(uuid) / "vendor" / name
        return own if own.exists() else self.device(uuid) / "mdev" / name

    def create(self, uuid: str = UUID, settings: str = "", kind: str = "test-kinds") -> None:
        line = uuid + ("," + settings if settings else "")
        t.equal(write_result(self.type(kind) / "create", line), str(len(line)), f"create {line}")

    def set(self, name: str, value: str, uuid: str = UUID) -> str:
        """"ok" or the errno of one write."""
        r = write_result(self.param(name, uuid) / "value", value)
        return "ok" if r == str(len(value)) else r

    def get(self, name: str, uuid: str = UUID, file: str = "value") -> str:
        return (self.param(name, uuid) / file).read_text()

    @contextlib.contextmanager
    def client(self, uuid: str = UUID) -> Iterator[Client]:
        with Client(self.d.socket(uuid)) as c:
            t.wait_for(lambda: self.d.state_of(uuid) == "connected", 5, "the client")
            yield c
        t.wait_for(lambda: self.d.state_of(uuid) == "idle", 5, "the client's end")


@contextlib.contextmanager
def lab(*settings: str) -> Iterator[Lab]:
    with Daemon() as d:
        d.umdev("parent", "add", "p", "driver=test", *settings)
        yield Lab(d)


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# ---- the files of a parameter ----

ALWAYS = {"value", "type", "default", "writable", "required", "description"}
NUMERIC = {"min", "max", "step"}
FILES: dict[str, tuple[set[str], dict[str, str]]] = {
    # name: files besides ALWAYS, contents
    "number": (NUMERIC | {"unit"}, {"value": "10\n", "type": "u64\n", "min": "10\n", "max": "100\n",
                                   "step": "5\n", "default": "10\n", "unit": "apples\n",
                                   "writable": "once\n", "required": "0\n",
                                   "description": "a number that is changed once\n"}),
    "flag": (set(), {"value": "no\n", "type": "bool\n", "default": "no\n", "writable": "fresh\n"}),
    "memory": (NUMERIC | {"unit", "available"},
               {"value": "4096\n", "type": "size\n", "min": "4096\n", "max": "1048576\n",
                "step": "4096\n", "available": "1048576\n", "unit": "bytes\n",
                "writable": "live\n"}),
    "serial": (set(), {"value": "\n", "type": "string\n", "default": "\n", "writable": "create\n"}),
    "tag": (set(), {"type": "uuid\n", "value": "00000000-0000-0000-0000-000000000000\n",
                    "writable": "idle\n"}),
    "pace": ({"choices"}, {"type": "enum\n", "choices": "slow fast\n", "value": "slow\n",
                           "default": "slow\n"}),
    "port": (set(), {"type": "mac\n", "writable": "idle\n"}),
    "letter": (NUMERIC, {"type": "u32\n", "value": f"{ord('d')}\n", "writable": "never\n",
                         "step": "1\n", "max": f"{2**32 - 1}\n"}),
    "key": (set(), {"type": "string\n", "writable": "idle\n"}),
    "aggregation": (NUMERIC | {"unit", "available"},
                    {"value": "1\n", "type": "u32\n", "min": "1\n", "max": "8\n", "step": "1\n",
                     "default": "1\n", "available": "8\n", "unit": "units\n",
                     "writable": "idle\n", "required": "0\n"}),
    "label": (set(), {"type": "string\n", "writable": "live\n", "value": "\n"}),
}


@t.case
def files_of_a_device_are_those_of_the_table() -> None:
    with lab() as one:
        one.create()
        for name, (more, contents) in FILES.items():
            folder = one.param(name)
            t.equal(mode(folder), 0o755, f"mode of {name}/")
            t.equal(set(os.listdir(folder)), ALWAYS | more, f"files of {name}")
            for file, text in contents.items():
                t.equal((folder / file).read_text(), text, f"{name}/{file}")
            for file in os.listdir(folder):
                if file != "value":
                    t.equal(mode(folder / file), 0o444, f"mode of {name}/{file}")


@t.case
def files_of_a_type_are_there_before_a_device_but_for_value_and_available() -> None:
    with lab() as one:
        for name, (more, contents) in FILES.items():
            folder = one.type() / "params" / name
            t.equal(set(os.listdir(folder)), (ALWAYS | more) - {"value", "available"},
                    f"files of {name}")
            for file, text in contents.items():
                if file not in ("value", "available"):
                    t.equal((folder / file).read_text(), text, f"{name}/{file}")
                    t.equal(mode(folder / file), 0o444, f"mode of {name}/{file}")


@t.case
def value_has_a_mode_for_never_for_private_and_for_others() -> None:
    with lab() as one:
        one.create()
        for name, wanted in (("letter", 0o444), ("serial", 0o444), ("number", 0o644),
                             ("memory", 0o644), ("label", 0o644), ("key", 0o600)):
            t.equal(mode(one.param(name) / "value"), wanted, f"mode of {name}/value")
        t.equal(open_result(one.param("letter") / "value", os.O_WRONLY), "EACCES", "never")
        t.equal(open_result(one.param("serial") / "value", os.O_WRONLY), "EACCES", "create")


@t.case
def value_is_canonical_text_and_a_line_end() -> None:
    with lab() as one:
        one.create()
        for name, text, canonical in (
                ("memory", "8K", "8192"), ("memory", "0x4000\n", "16384"), ("flag", "on", "yes"),
                ("flag", "0\n", "no"), ("pace", "fast\n", "fast"), ("number", "0x14", "20"),
                ("tag", "A0000000-0000-4000-8000-00000000000B",
                 "a0000000-0000-4000-8000-00000000000b"),
                ("port", "52:54:00:AB:cd:01\n", "52:54:00:ab:cd:01"), ("label", "a b", "a b")):
            t.equal(one.set(name, text), "ok", f"{name} {text!r}")
            t.equal(one.get(name), canonical + "\n", f"{name} after {text!r}")


@t.case
def available_is_the_largest_value_that_can_be_had_now() -> None:
    with lab() as one:
        one.create()
        one.create(OTHER, "memory=512K,aggregation=3")
        # 1 MiB less 512 KiB and 2 KiB is what UUID can have; in steps of 4 KiB
        most = ((1 << 20) - (512 << 10) - 2048) // 4096 * 4096
        t.equal(one.get("memory", file="available"), f"{most}\n", "memory/available")
        t.equal(one.set("memory", str(most + 4096)), "ENOSPC", "more than that")
        t.equal(one.set("memory", str(most)), "ok", "that")
        t.equal(one.get("aggregation", OTHER, "available"), "5\n", "aggregation/available")


@t.case
def required_keeps_clients_out_until_it_was_set() -> None:
    with lab() as one:
        one.create(kind="test-needy")
        t.equal(one.get("backend", file="required"), "1\n", "required")
        with Client(one.d.socket(UUID), hello=False) as c:
            t.check(c.is_closed(5), "a client before it was set")
        t.equal(one.set("backend", "any"), "ok", "set")
        with one.client():
            pass


# ---- writable ----

def _refused(one: Lab, name: str, value: str, wanted: str, when: str) -> None:
    before = one.get(name)
    t.equal(one.set(name, value), wanted, f"{name}={value} {when}")
    t.equal(one.get(name), before, f"{name} {when}")


@t.case
def writable_never() -> None:
    with lab() as one:
        one.create()
        t.equal(open_result(one.param("letter") / "value", os.O_WRONLY), "EACCES", "a write")
        t.equal(write_result(one.type() / "create", f"{OTHER},letter=100"), "EACCES", "create")


@t.case
def writable_create() -> None:
    with lab() as one:
        one.create(settings="serial=S1")
        t.equal(one.get("serial"), "S1\n", "given to create")
        t.equal(open_result(one.param("serial") / "value", os.O_WRONLY), "EACCES", "a write")


@t.case
def writable_once() -> None:
    with lab() as one:
        one.create()
        _refused(one, "number", "13", "ERANGE", "a failure is no change")
        t.equal(one.set("number", "15"), "ok", "the first change")
        _refused(one, "number", "20", "EBUSY", "the second change")
        one.create(OTHER, "number=20")
        t.equal(one.set("number", "25", OTHER), "EBUSY", "when it was given to create")
        one.create(THIRD)
        with one.client(THIRD):
            pass
        t.equal(one.set("number", "25", THIRD), "EBUSY", "after the first use")


@t.case
def writable_fresh() -> None:
    with lab() as one:
        one.create()
        t.equal(one.set("flag", "yes"), "ok", "before the first use")
        t.equal(one.set("flag", "no"), "ok", "and again")
        with one.client():
            _refused(one, "flag", "yes", "EBUSY", "while used")
        _refused(one, "flag", "yes", "EBUSY", "after the first use")
        one.create(OTHER)
        one.d.umdev("commit", OTHER)
        one.d.umdev("release", OTHER)
        t.equal(one.set("flag", "yes", OTHER), "EBUSY", "after it was started once")


@t.case
def writable_idle() -> None:
    with lab() as one:
        one.create()
        t.equal(one.set("pace", "fast"), "ok", "before")
        with one.client():
            _refused(one, "pace", "slow", "EBUSY", "while used")
        t.equal(one.set("pace", "slow"), "ok", "between uses")
        one.d.umdev("commit", UUID)
        _refused(one, "pace", "fast", "EBUSY", "while started")
        one.d.umdev("release", UUID)
        t.equal(one.set("pace", "fast"), "ok", "afterwards")


@t.case
def writable_live() -> None:
    with lab() as one:
        one.create()
        t.equal(one.set("memory", "8K"), "ok", "before")
        with one.client():
            t.equal(one.set("memory", "16K"), "ok", "while used")
            t.equal(one.get("memory"), "16384\n", "while used")
        one.d.umdev("commit", UUID)
        t.equal(one.set("memory", "32K"), "ok", "while started")
        one.d.umdev("release", UUID)


# ---- a write to value, in the order of its checks ----

@t.case
def write_to_a_device_that_is_gone() -> None:
    with lab() as one:
        one.create()
        fd = os.open(one.param("pace") / "value", os.O_WRONLY)
        t.equal(write_result(one.device() / "remove", "1"), "1", "remove")
        t.equal(result(lambda: os.write(fd, b"nonsense")), "ENODEV", "before its form is judged")
        os.close(fd)
        t.equal(open_result(one.device() / "vendor/pace/value", os.O_WRONLY), "ENOENT", "its path")


@t.case
def write_to_a_device_that_is_being_removed() -> None:
    with lab("remove=wait") as one:
        one.create()
        with Client(one.d.socket(UUID)) as c:
            t.wait_for(lambda: one.d.state_of(UUID) == "connected", 5, "the client")
            device = os.path.realpath(one.device())
            writer = threading.Thread(target=write_result, args=(one.device() / "remove", "1"))
            writer.start()
            t.wait_for(lambda: not one.device().exists(), 5, "the removal")
            for name in ("mdev/label", "vendor/pace"):
                t.equal(write_result(Path(device) / name / "value", "x"), "ENODEV", name)
            t.equal(write_result(Path(device) / GROUP, G1), "ENODEV", GROUP)
            c.close()
            writer.join()


@t.case
def write_of_a_wrong_form_comes_before_the_state() -> None:
    with lab() as one:
        one.create()
        with one.client():
            for name, text in (("pace", "f\x01"), ("tag", "x"), ("port", "5"), ("flag", "maybe"),
                               ("number", " 10"), ("number", "10\n\n"), ("number", ""),
                               ("memory", "4K "), ("memory", "-4096"), ("label", "a,b")):
                _refused(one, name, text, "EINVAL" if text else "ok", f"{text!r}")
            _refused(one, "memory", "99999999999999999999", "ERANGE", "more than 64 bits")


@t.case
def write_of_the_value_that_it_has_is_no_change_in_any_state() -> None:
    with lab() as one:
        one.create(settings="number=15,flag=yes,pace=fast,memory=8K,aggregation=2")
        with one.client():
            for name, text in (("number", "0xf"), ("flag", "1"), ("pace", "fast\n"),
                               ("memory", "8192"), ("aggregation", "2")):
                t.equal(one.set(name, text), "ok", f"{name}={text} while used")


@t.case
def write_in_the_wrong_state_comes_before_the_range() -> None:
    with lab() as one:
        one.create(settings="number=15")
        with one.client():
            for name, text in (("pace", "none"), ("aggregation", "100"), ("number", "1"),
                               (GROUP, G1)):
                _refused(one, name, text, "EBUSY", "while used")


@t.case
def write_outside_of_min_max_step_and_choices() -> None:
    with lab() as one:
        one.create()
        for name, text in (("number", "9"), ("number", "105"), ("number", "11"),
                           ("memory", "4095"), ("memory", "1052672"), ("memory", "5000"),
                           ("pace", "faster"), ("aggregation", "0"), ("aggregation", "9")):
            _refused(one, name, text, "ERANGE", "")


@t.case
def write_of_more_than_the_pool_has_comes_behind_the_range() -> None:
    with lab() as one:
        one.create()
        one.create(OTHER, "memory=900K")
        _refused(one, "memory", "200K", "ENOSPC", "with 124 KiB left")
        _refused(one, "memory", "200001", "ERANGE", "with 124 KiB left")


@t.case
def write_of_an_address_that_another_device_has() -> None:
    with lab() as one:
        one.create(settings="port=52:54:00:00:00:01")
        one.create(OTHER, "mac_addr=52:54:00:00:00:02", "test-net")
        _refused(one, "port", "52:54:00:00:00:02", "EADDRINUSE", "")
        t.equal(one.set("mac_addr", "52:54:00:00:00:01", OTHER), "EADDRINUSE", "the other way")
        t.equal(one.set("port", "00:00:00:00:00:00"), "ok", "none")
        t.equal(one.set("mac_addr", "52:54:00:00:00:01", OTHER), "ok", "when it is free")


@t.case
def write_that_the_driver_or_the_device_refuses() -> None:
    with lab() as one:
        one.create(kind="test-regs")
        _refused(one, "gain", "13", "EDOM", "by the parent half")
        with one.client():
            _refused(one, "gain", "14", "ERANGE", "by the device half")
            t.equal(one.set("gain", "15"), "ok", "accepted by both")


@t.case
def write_that_is_done_is_told_and_one_that_is_not_is_not() -> None:
    with lab() as one, one.d.varlink() as v:
        events = v.stream("Monitor")
        next(events)
        one.create()
        for name, text in (("pace", "none"), ("pace", "slow"), ("pace", "fast"), ("key", "x")):
            one.set(name, text)
        one.d.umdev("remove", UUID)
        told = []
        for reply in events:
            event = reply["event"]
            if event["what"] == "param":
                told.append((event["detail"],
                             [e for u in event["uevents"] for e in u["env"] if "PARAM" in e]))
            if event["what"] == "removed":
                break
        t.equal(told, [("pace=fast", ["MDEV_PARAM=pace"]), ("key", ["MDEV_PARAM=key"])], "events")


# ---- private values ----

@t.case
def a_private_value_is_told_to_those_who_may_read_its_file() -> None:
    if os.geteuid():
        t.skip("needs a second user")

    def value(one: Lab, user: int | None) -> object:
        code = ("import json,socket,sys\ns=socket.socket(socket.AF_UNIX)\n"
                f"s.connect({str(one.d.control)!r})\n"
                f"s.sendall(json.dumps({{'method':'io.umdev.Show','parameters':"
                f"{{'name':'{UUID}'}}}}).encode()+b'\\0')\n"
                "b=b''\nwhile b'\\0' not in b: b+=s.recv(65536)\n"
                "p=json.loads(b[:-1])['parameters']['params']\n"
                "print(json.dumps([x.get('value') for x in p if x['name']=='key'][0]))")
        p = subprocess.run(["python3", "-c", code], user=user, capture_output=True, text=True,
                           timeout=20, check=False)
        t.equal(p.returncode, 0, p.stderr)
        return p.stdout.strip()

    with lab() as one:
        one.create(settings="key=sesame,port=52:54:00:00:00:01")
        os.chmod(one.d.dir, 0o755)
        os.chmod(one.d.run, 0o755)
        os.chmod(one.d.control, 0o666)
        t.equal(value(one, None), '"sesame"', "root")
        t.equal(value(one, SOMEBODY), "null", "somebody")
        os.chown(one.param("key") / "value", SOMEBODY, -1)
        t.equal(value(one, SOMEBODY), '"sesame"', "its owner")
        t.check("sesame" not in one.d.log(), "the value in the log")
        t.check("sesame" not in one.d.umdev("list", "-j").stdout, "the value in a list")


@t.case
def mac_addr_is_private_unless_the_driver_says_else() -> None:
    with lab() as one:
        one.create(kind="test-net")
        t.equal(mode(one.param("mac_addr") / "value"), 0o600, "mac_addr")


# ---- classes ----

COMMON = {"class", "label", "uid", "gid", "mode"}  # of every type of the driver `test`

CLASSES: dict[str, dict[str, tuple[str, str | None]]] = {
    # class: name: type, unit
    "block": {"capacity": ("size", "bytes"), "blk_size": ("u32", "bytes"),
              "num_queues": ("u32", "queues"), "seg_max": ("u32", "segments"),
              "read_only": ("bool", None), "device_features": ("u64", None),
              "numa_node": ("u32", None)},
    "nvme": {"capacity": ("size", "bytes"), "blk_size": ("u32", "bytes"),
             "read_only": ("bool", None), "num_io_queues": ("u32", "queue-pairs")},
    "net": {"mac_addr": ("mac", None), "mtu": ("u32", "bytes"), "max_vqp": ("u32", "queue-pairs"),
            "device_features": ("u64", None)},
    "serial": {"num_ports": ("u32", "ports"), "backend": ("enum", None)},
    "display": {"xres": ("u32", "pixels"), "yres": ("u32", "pixels"), "vram": ("size", "bytes")},
}


def _add_class(name: str) -> None:
    def run() -> None:
        with lab() as one:
            kind = f"test-{name}"
            one.create(kind=kind)
            t.equal((one.type(kind) / "class").read_text(), f"{name}\n", "class of the type")
            t.equal((one.device() / "mdev/class").read_text(), f"{name}\n", "class of the device")
            found = set(os.listdir(one.device() / "mdev")) - COMMON - {"aggregation"}
            t.equal(found, set(CLASSES[name]), "parameters in mdev/")
            for param, (kind_of, unit) in CLASSES[name].items():
                t.equal(one.get(param, file="type"), f"{kind_of}\n", f"type of {param}")
                path = one.param(param) / "unit"
                t.equal(path.read_text().rstrip("\n") if path.exists() else None, unit,
                        f"unit of {param}")
                t.check(one.get(param, file="description").strip(), f"description of {param}")
    run.__name__ = f"class_{name}"
    t.case(run)


for _name in CLASSES:
    _add_class(_name)


@t.case
def class_misc_has_its_own_in_vendor() -> None:
    with lab() as one:
        one.create()
        t.equal((one.device() / "mdev/class").read_text(), "misc\n", "class")
        t.equal(set(os.listdir(one.device() / "mdev")), COMMON | {"aggregation", GROUP},
                "mdev/")
        t.check({"number", "flag", "memory"} <= set(os.listdir(one.device() / "vendor")), "vendor/")


@t.case
def num_io_queues_is_the_aggregation() -> None:
    with lab() as one:
        one.create(settings="aggregate=3", kind="test-nvme")
        t.equal(one.get("num_io_queues"), "3\n", "at create")
        t.equal(one.set("aggregation", "5"), "ok", "more")
        t.equal(one.get("num_io_queues"), "5\n", "after it")
        t.equal(mode(one.param("num_io_queues") / "value"), 0o444, "its mode")
        t.equal(one.get("num_io_queues", file="max"), "16\n", "its max")


@t.case
def a_label_finds_the_device_while_it_is_the_only_one() -> None:
    with lab() as one:
        one.create(settings="label=disk of web")
        t.check(UUID in one.d.umdev("show", "disk of web").stdout, "by its label")
        with one.client():
            t.equal(one.set("label", "web"), "ok", "a change while used")
        t.check(UUID in one.d.umdev("show", "web").stdout, "by its new label")
        one.create(OTHER, "label=web")
        p = one.d.umdev("show", "web", ok=False)
        t.equal(p.returncode, 2, f"of two devices: {p.stderr}")


# ---- aggregation ----

@t.case
def aggregation_of_a_type_says_the_most_and_what_it_takes() -> None:
    with lab() as one:
        t.equal((one.type() / "aggregation").read_text(), "8\n", "aggregation")
        t.equal((one.type() / "params/aggregation/description").read_text(),
                "how many instances of the type this device is made of; scales units (1 each), "
                "bytes (1024 each)\n", "description")
        for kind in ("test-needy", "test-serial"):
            t.check(not (one.type(kind) / "aggregation").exists(), f"aggregation of {kind}")


@t.case
def aggregation_grows_and_shrinks_between_uses() -> None:
    def left() -> tuple[int, int]:
        return tuple(int((one.type(k) / "available_instances").read_text())  # type: ignore
                     for k in ("test-kinds", "test-regs"))

    with lab() as one:
        one.create(settings="aggregate=8")
        t.equal(left(), ((64 - 9) // 2, 55), "after create")
        t.equal((one.device() / "aggregated_instances").read_text(), "8\n", "aggregated_instances")
        t.equal(mode(one.device() / "aggregated_instances"), 0o444, "its mode")
        t.equal(one.set("aggregation", "1"), "ok", "smaller")
        t.equal(left(), (31, 62), "units come back at once")
        one.create(OTHER, "aggregation=60", "test-regs")
        t.equal(left(), (1, 2), "what is left")
        t.equal(one.set("aggregation", "4"), "ENOSPC", "more than there is")
        t.equal(left(), (1, 2), "nothing was taken")
        t.equal(one.set("aggregation", "3"), "ok", "what there is")
        t.equal(left(), (0, 0), "nothing is left")
        with one.client():
            t.equal(one.set("aggregation", "1"), "EBUSY", "while used")
        t.equal(one.set("aggregation", "2"), "ok", "between uses")
        t.equal((one.device() / "aggregated_instances").read_text(), "2\n", "aggregated_instances")


@t.case
def aggregation_of_a_driver_that_cannot_resize_says_so() -> None:
    with lab() as one:
        one.create(kind="test-block")
        t.equal(one.get("aggregation", file="writable"), "once\n", "of test-block")
        t.equal(one.set("aggregation", "2"), "ok", "the first change")
        t.equal(one.set("aggregation", "1"), "EBUSY", "the second")
        one.create(OTHER, kind="test-net")
        t.equal(one.get("aggregation", OTHER, "writable"), "fresh\n", "of test-net")
        t.equal(one.set("aggregation", "3", OTHER), "ok", "before the first use")
        with one.client(OTHER):
            pass
        t.equal(one.set("aggregation", "1", OTHER), "EBUSY", "after it")


# ---- create ----

@t.case
def create_takes_parameters_all_or_nothing_and_tells_once() -> None:
    with lab() as one, one.d.varlink() as v:
        events = v.stream("Monitor")
        next(events)
        before = one.type().joinpath("available_instances").read_text()
        for settings, error in (("number=10,pace=none", "ERANGE"), ("memory=1M,aggregation=8", "ENOSPC"),
                                ("letter=1", "EACCES"), ("pace", "EINVAL"), ("pace=slow,", "EINVAL"),
                                ("pace=slow,pace=slow", "EINVAL"), ("=1", "EINVAL"),
                                ("aggregate=2,aggregation=2", "EINVAL"), ("paec=slow", "EINVAL"),
                                ("pace=slow\n,flag=1", "EINVAL"), ("label=" + "x" * 4096, "EINVAL")):
            t.equal(write_result(one.type() / "create", f"{UUID},{settings}"), error, settings[:40])
        t.equal(one.type().joinpath("available_instances").read_text(), before, "units")
        t.equal(os.listdir(one.d.sys / "bus/mdev/devices"), [], "devices")
        one.create(settings="number=15,flag=yes,memory=8K,pace=fast,serial=S,aggregate=2,label=a b")
        told = [next(events)["event"]["what"] for _ in range(3)]
        t.equal(told, ["added", "bound", "state"], "events")


@t.case
def create_without_parameters_is_a_kernels() -> None:
    with lab("params=off") as one:
        for text, wanted in ((f"{UUID},aggregate=2", "EINVAL"), (f"{UUID},pace=fast", "EINVAL"),
                             (UUID + ",", "37"), (OTHER, "36")):
            t.equal(write_result(one.type() / "create", text), wanted, text)
        t.check(not (one.device() / "mdev").exists(), "parameters")
        t.check(not (one.type() / "params").exists(), "parameters of the type")


# ---- groups ----

def group_of(one: Lab, uuid: str = UUID) -> int:
    return int(os.path.basename(os.readlink(one.device(uuid) / "iommu_group")))


def members(one: Lab, number: int) -> list[str]:
    return sorted(os.listdir(one.d.sys / f"kernel/iommu_groups/{number}/devices"))


@t.case
def group_value_is_a_uuid_of_its_own_at_first() -> None:
    with lab() as one:
        for uuid in (UUID, OTHER):
            one.create(uuid)
        texts = [(one.device(u) / GROUP).read_text() for u in (UUID, OTHER)]
        t.equal([len(x) for x in texts], [37, 37], "lengths")
        t.check(texts[0] != texts[1] and group_of(one) != group_of(one, OTHER), "apart")
        t.equal(mode(one.device() / GROUP), 0o644, "its mode")
        t.equal((one.param(GROUP) / "value").read_text(), texts[0], "as a parameter")
        one.create(THIRD, kind="test-regs")
        t.check(not (one.device(THIRD) / GROUP).exists(), "of a type without peers")


@t.case
def group_write_of_no_uuid() -> None:
    with lab() as one:
        one.create()
        for text in ("nonsense", G1[:-1], G1 + "0", ""):
            if text:
                t.equal(write_result(one.device() / GROUP, text), "EINVAL", text)


@t.case
def group_write_of_the_same_value_also_while_used() -> None:
    with lab() as one:
        one.create(settings=f"{GROUP}={G1}")
        with one.client():
            t.equal(write_result(one.device() / GROUP, G1.upper() + "\n"), "37", "the same")


@t.case
def group_write_while_its_own_group_is_used() -> None:
    with lab() as one:
        one.create(settings=f"{GROUP}={G1}")
        one.create(OTHER, f"{GROUP}={G1}")
        with one.client():
            for uuid in (UUID, OTHER):
                t.equal(write_result(one.device(uuid) / GROUP, G2), "EBUSY", uuid)
        t.equal(write_result(one.device(OTHER) / GROUP, G2), "36", "afterwards")


@t.case
def group_write_while_the_target_group_is_used() -> None:
    with lab() as one:
        one.create(settings=f"{GROUP}={G1}")
        one.create(OTHER)
        with one.client():
            t.equal(write_result(one.device(OTHER) / GROUP, G1), "EBUSY", "a write")
            t.equal(write_result(one.type() / "create", f"{THIRD},{GROUP}={G1}"), "EBUSY", "create")
        t.equal(write_result(one.device(OTHER) / GROUP, G1), "36", "afterwards")


@t.case
def group_of_another_domain() -> None:
    with lab() as one:
        for name, domain in (("q", "q"), ("r", "p")):
            one.d.umdev("parent", "add", name, "driver=test", f"p2p_domain={domain}")
        one.create(settings=f"{GROUP}={G1}")
        for parent, uuid, wanted in (("q", OTHER, "EXDEV"), ("r", THIRD, "36")):
            with one.d.varlink() as v:
                v.call("Create", parent=parent, type="test-dma", uuid=uuid, settings=[])
            t.equal(write_result(one.device(uuid) / GROUP, G1), wanted, f"from {parent}")


@t.case
def group_that_is_full() -> None:
    with lab() as one:
        for uuid in (UUID, OTHER, THIRD):
            one.create(uuid, f"{GROUP}={G1}")
        t.equal(write_result(one.type() / "create", f"{FOURTH},{GROUP}={G1}"), "ENOSPC", "create")
        one.create(FOURTH)
        t.equal(write_result(one.device(FOURTH) / GROUP, G1), "ENOSPC", "a write")
        one.create(FOURTH[:-1] + "5", kind="test-dma")
        t.equal(write_result(one.device(FOURTH[:-1] + "5") / GROUP, G1), "ENOSPC",
                "of a type without a limit of its own")


@t.case
def group_change_is_one_step_with_the_lowest_free_number() -> None:
    with lab() as one, one.d.varlink() as v:
        for uuid in (UUID, OTHER, THIRD):
            one.create(uuid)
        first, second, third = (group_of(one, u) for u in (UUID, OTHER, THIRD))
        events = v.stream("Monitor")
        next(events)
        t.equal(write_result(one.device(OTHER) / GROUP, (one.device() / GROUP).read_text()), "37",
                "joining")
        t.equal(group_of(one, OTHER), first, "the link")
        t.equal(members(one, first), sorted((UUID, OTHER)), "devices of the group")
        t.check(not (one.d.sys / f"kernel/iommu_groups/{second}").exists(), "the group it left")
        env = [e for u in next(events)["event"]["uevents"] for e in u["env"] if "GROUP" in e]
        t.equal(env, [f"IOMMU_GROUP={first}"], "the event")
        t.equal(write_result(one.device(OTHER) / GROUP, G2), "36", "splitting")
        t.equal(group_of(one, OTHER), min(second, third + 1), "the lowest free number")
        t.equal(members(one, second), [OTHER], "devices of its new group")
        t.equal(members(one, first), [UUID], "devices of the old one")


@t.case
def group_has_one_owner_and_one_worker() -> None:
    with lab() as one:
        for uuid in (UUID, OTHER):
            one.create(uuid, f"{GROUP}={G1}")
        with one.client():
            workers = one.d.workers()
            with one.client(OTHER):
                t.equal(one.d.workers(), workers, "workers with two clients")
            code = ("import socket\ns=socket.socket(socket.AF_UNIX)\n"
                    f"s.connect({str(one.d.socket(OTHER))!r})\ns.settimeout(10)\n"
                    "try:\n print(s.recv(1))\nexcept ConnectionResetError:\n print(b'')")
            p = subprocess.run(["python3", "-c", code], capture_output=True, text=True, timeout=20)
            t.equal(p.stdout.strip(), "b''", "what another process gets")
        t.wait_for(lambda: not one.d.workers(), 5, "the end of the worker")
        p = subprocess.run(["python3", "-c", code.replace("s.recv(1)", "'in'")],
                           capture_output=True, text=True, timeout=20, check=False)
        t.equal(p.stdout.strip(), "in", "and afterwards")


@t.case
def group_member_that_is_idle_may_be_removed() -> None:
    with lab() as one:
        for uuid in (UUID, OTHER):
            one.create(uuid, f"{GROUP}={G1}")
        with one.client() as c:
            t.equal(write_result(one.device(OTHER) / "remove", "1"), "1", "remove")
            t.equal(members(one, group_of(one)), [UUID], "devices of the group")
            t.check(c.info()[1] > 0, "the other one is served on")


t.main()
