#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The same operations through the tree, the control socket and the command: the same result, the same
errno, the same values afterwards. First a table, then operations by chance, against a model, with
clients connected."""
from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from lib import t
from lib.daemon import Daemon
from lib.doors import Door, all_doors
from lib.sysfs import probe
from lib.vfio_user import Client

U = "d0000000-0000-4000-8000-00000000000{}"
A, B, C, D, E = (U.format(i) for i in "abcde")
GROUP = "peer_to_peer_resource_uuid"
G1, G2, G3 = (f"e0000000-0000-4000-8000-00000000000{i}" for i in "123")
KINDS, PARENT = "test-kinds", "p"
UNITS, BYTES = 64, 1 << 20

# What is done, and what comes of it. "connect" and "disconnect" are a client's.
TABLE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("create", "nobody", KINDS, A), "ENOENT"),
    (("create", PARENT, "test-kidns", A), "ENOENT"),
    (("create", PARENT, KINDS, "d0000000"), "EINVAL"),
    (("create", PARENT, KINDS, A, "nmuber=10"), "EINVAL"),
    (("create", PARENT, KINDS, A, "number=10", "number=10"), "EINVAL"),
    (("create", PARENT, KINDS, A, "number=many"), "EINVAL"),
    (("create", PARENT, KINDS, A, "number=11"), "ERANGE"),
    (("create", PARENT, KINDS, A, "number=105"), "ERANGE"),
    (("create", PARENT, KINDS, A, "letter=1"), "EACCES"),
    (("create", PARENT, KINDS, A, "pace=faster"), "ERANGE"),
    (("create", PARENT, KINDS, A, "memory=1028K"), "ERANGE"),
    (("create", PARENT, KINDS, A, "memory=1M", "aggregation=2"), "ENOSPC"),
    (("create", PARENT, "test-regs", A, "gain=13"), "EDOM"),
    (("create", PARENT, KINDS, A, "serial=S1", "memory=8K", f"{GROUP}={G1}"), "ok"),
    (("create", PARENT, KINDS, A), "EEXIST"),
    (("create", PARENT, KINDS, A, "number=11"), "EEXIST"),
    (("create", PARENT, KINDS, B, "aggregate=3", "port=52:54:00:00:00:01"), "ok"),
    (("create", PARENT, KINDS, C, "port=52:54:00:00:00:01"), "EADDRINUSE"),
    (("set", "d0000000-0000-4000-8000-0000000000ff", "pace", "fast"), "ENOENT"),
    (("set", A, "paec", "fast"), "ENOENT"),
    (("set", A, "letter", "100"), "EACCES"),
    (("set", A, "letter", "nonsense"), "EACCES"),
    (("set", A, "serial", "S1"), "EACCES"),
    (("set", A, "pace", "f\x01st"), "EINVAL"),
    (("set", A, "flag", "maybe"), "EINVAL"),
    (("set", A, "tag", "1234"), "EINVAL"),
    (("set", A, "port", "52:54:00"), "EINVAL"),
    (("set", A, "memory", "8 K"), "EINVAL"),
    (("set", A, "memory", "99999999999999999999"), "ERANGE"),
    (("set", A, "memory", "5000"), "ERANGE"),
    (("set", A, "number", "20"), "ok"),
    (("set", A, "number", "25"), "EBUSY"),
    (("set", A, "number", "0x14"), "ok"),
    (("set", A, "flag", "yes"), "ok"),
    (("set", A, "port", "52:54:00:00:00:01"), "EADDRINUSE"),
    (("set", A, "key", "sesame"), "ok"),
    (("set", A, "aggregation", "9"), "ERANGE"),
    (("set", A, "aggregation", "8"), "ok"),
    (("set", B, GROUP, "nonsense"), "EINVAL"),
    (("set", B, GROUP, G1), "ok"),
    (("connect", A), "ok"),
    (("set", A, "flag", "no"), "EBUSY"),
    (("set", A, "flag", "on"), "ok"),
    (("set", A, "pace", "fast"), "EBUSY"),
    (("set", A, "pace", "slow"), "ok"),
    (("set", A, "pace", "nonsense"), "EBUSY"),
    (("set", A, "aggregation", "1"), "EBUSY"),
    (("set", A, GROUP, G2), "EBUSY"),
    (("set", A, GROUP, G1), "ok"),
    (("set", B, GROUP, G2), "EBUSY"),
    (("set", B, "pace", "fast"), "EBUSY"),
    (("set", A, "memory", "64K"), "ok"),
    (("set", B, "memory", "64K"), "ok"),
    (("set", A, "memory", "1M"), "ENOSPC"),
    (("set", A, "label", "first"), "ok"),
    (("create", PARENT, KINDS, C, f"{GROUP}={G1}"), "EBUSY"),
    (("remove", A), "EBUSY"),
    (("disconnect", A), "ok"),
    (("set", A, "flag", "no"), "EBUSY"),
    (("set", A, "pace", "fast"), "ok"),
    (("set", A, "aggregation", "1"), "ok"),
    (("create", PARENT, KINDS, C, f"{GROUP}={G1}"), "ok"),
    (("create", PARENT, KINDS, D, f"{GROUP}={G1}"), "ENOSPC"),
    (("create", PARENT, KINDS, D), "ok"),
    (("set", D, GROUP, G1), "ENOSPC"),
    (("create", "q", KINDS, E, f"{GROUP}={G1}"), "EXDEV"),
    (("create", "q", KINDS, E), "ok"),
    (("set", E, GROUP, G1), "EXDEV"),
    (("remove", B), "ok"),
    (("remove", B), "ENOENT"),
    (("set", B, "pace", "fast"), "ENOENT"),
    (("set", D, GROUP, G1), "ok"),
)
LOOKED_AT = ("number", "flag", "memory", "serial", "tag", "pace", "port", "letter", "key", "label",
             "aggregation", GROUP)


@contextlib.contextmanager
def lab() -> Iterator[Daemon]:
    with Daemon() as d:
        for name in (PARENT, "q"):
            d.umdev("parent", "add", name, "driver=test")
        yield d


def connect(d: Daemon, uuid: str) -> Client:
    c = Client(d.socket(uuid))
    t.wait_for(lambda: d.state_of(uuid) == "connected", 5, "the client")
    return c


def disconnect(d: Daemon, uuid: str, c: Client) -> None:
    c.close()
    t.wait_for(lambda: d.state_of(uuid) == "idle", 5, "the client's end")


def available(d: Daemon) -> dict[str, int]:
    with d.varlink() as v:
        return {x["name"]: x["available_instances"] for x in v.call("Types", parent=PARENT)["types"]}


def through(d: Daemon, door: Door, clients: dict[str, Client], words: tuple[str, ...]) -> str:
    if words[0] == "connect":
        clients[words[1]] = connect(d, words[1])
        return "ok"
    if words[0] == "disconnect":
        disconnect(d, words[1], clients.pop(words[1]))
        return "ok"
    return getattr(door, words[0])(*words[1:])


def walk_table(number: int) -> list[object]:
    """The whole table through one door; what was left behind."""
    with lab() as d, contextlib.ExitStack() as stack:
        doors = all_doors(d)
        door = doors[number]
        clients: dict[str, Client] = {}
        for one in doors:
            stack.callback(one.close)
        left: list[object] = []
        for i, (words, wanted) in enumerate(TABLE):
            got = through(d, door, clients, words)
            if words[0] in ("connect", "disconnect"):
                t.equal(got, wanted, f"{words}")
            else:
                t.check(door.is_right(got, wanted),
                        f"row {i}, {' '.join(words)} through {door.name}: {got}, wanted {wanted}")
            left.append(available(d))
        for uuid in (A, C, D, E):
            values = {}
            for param in LOOKED_AT:
                seen = {one.name: one.get(uuid, param) for one in doors}
                t.equal(len(set(seen.values())), 1, f"{param} of {uuid}, door by door: {seen}")
                values[param] = seen[door.name]
            if uuid == E:
                del values[GROUP]  # given by chance
            left.append(values)
        return left


@t.case
def every_door_gives_the_same_answers_and_leaves_the_same() -> None:
    first = walk_table(0)
    for number in (1, 2):
        for i, (one, other) in enumerate(zip(first, walk_table(number))):
            t.equal(other, one, f"what was left at {i}")


@t.case
def a_wrong_name_is_answered_with_the_nearest_and_a_wrong_value_with_its_range() -> None:
    with lab() as d:
        with d.varlink() as v:
            v.call("Create", parent=PARENT, type=KINDS, uuid=A, settings=[])
        for arguments, words in (
                (("create", "-p", PARENT, "-t", "test-kidns"), ("test-kidns", "test-kinds")),
                (("create", "-p", PARENT, "-t", KINDS, "nmuber=10"), ("nmuber", "number")),
                (("param", "set", A, "memroy=4K"), ("memroy", "memory")),
                (("param", "show", A, "memroy"), ("memroy", "memory")),
                (("param", "show", PARENT, KINDS, "memroy"), ("memroy", "memory")),
                (("param", "list", PARENT, "test-kidns"), ("test-kidns", "test-kinds")),
                (("param", "set", A, "number=5"), ("5", "10 .. 100")),
                (("param", "set", A, "number=11"), ("11", "10", "multiple of 5")),
                (("param", "set", A, "pace=fats"), ("fats", "fast", "slow fast")),
                (("param", "set", A, "aggregation=9"), ("9", "1 .. 8")),
                (("param", "set", A, "flag=perhaps"), ("perhaps", "yes or no"))):
            p = d.umdev(*arguments, ok=False)
            t.check(p.returncode in (2, 3), f"{arguments}: status {p.returncode}")
            for word in words:
                t.check(word in p.stderr, f"{arguments}: no {word!r} in {p.stderr!r}")


# ---- the command ----

@t.case
def the_command_shows_what_the_directory_of_a_parameter_shows() -> None:
    with lab() as d:
        d.create(PARENT, KINDS, "memory=8K")
        uuid = os.listdir(d.sys / "bus/mdev/devices")[0]
        device = d.sys / "bus/mdev/devices" / uuid
        of_type = d.sys / "class/mdev_bus" / PARENT / "mdev_supported_types" / KINDS / "params"
        folders = [*(device / "vendor").iterdir(), *(x for x in (device / "mdev").iterdir()
                                                     if x.is_dir()), *of_type.iterdir()]
        for folder in folders:
            words = (PARENT, KINDS) if folder.parent == of_type else (uuid,)
            shown = json.loads(d.umdev("param", "show", "-j", *words, folder.name).stdout)
            t.equal(shown.pop("name"), folder.name, "the parameter")
            shown["required"] = "1" if shown["required"] else "0"
            if "choices" in shown:
                shown["choices"] = " ".join(shown["choices"])
            t.equal(shown, {f.name: f.read_text().rstrip("\n") for f in folder.iterdir()},
                    f"files of {folder}")
        lines = d.umdev("param", "show", uuid, "memory").stdout.splitlines()
        t.check(["max", "1048576"] in [x.split() for x in lines], f"for people: {lines}")
        head, *rows = d.umdev("param", "list", uuid).stdout.splitlines()
        t.equal(head.split()[:3], ["PARAMETER", "VALUE", "TYPE"], "titles")
        t.check(["memory", "8192", "size"] in [r.split()[:3] for r in rows], "row of memory")
        head, *rows = d.umdev("param", "list", PARENT, KINDS).stdout.splitlines()
        t.equal(head.split()[:3], ["PARAMETER", "DEFAULT", "TYPE"], "titles of a type")
        t.check(["memory", "4096", "size"] in [r.split()[:3] for r in rows], "row of a type")


# ---- by chance ----

SLOTS = [U.format(i) for i in range(8)]


@dataclass
class Slot:
    group: str
    aggregation: int = 1
    memory: int = 4096
    number: int = 10
    number_given: bool = False
    flag: str = "no"
    opened: bool = False
    client: Client | None = None


class Model:
    """Devices of test-kinds, and what each operation must say."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.slots: dict[str, Slot] = {}

    def units(self) -> int:
        return sum(2 + s.aggregation - 1 for s in self.slots.values())

    def bytes(self) -> int:
        return sum(s.memory + 1024 * (s.aggregation - 1) for s in self.slots.values())

    def group_busy(self, group: str) -> bool:
        return any(s.client for s in self.slots.values() if s.group == group)

    def members(self, group: str) -> int:
        return sum(s.group == group for s in self.slots.values())

    def fits(self, units: int, n_bytes: int) -> bool:
        return self.units() + units <= UNITS and self.bytes() + n_bytes <= BYTES

    def available(self) -> int:
        return min((UNITS - self.units()) // 2, (BYTES - self.bytes()) // 4096)

    def create(self, uuid: str) -> tuple[tuple[str, ...], str]:
        rng = self.rng
        new = Slot(rng.choice((G1, G2, G3)), rng.randint(1, 9), 4096 * rng.choice((1, 2, 64, 128)),
                   rng.choice((10, 15, 17)), rng.random() < 0.5)
        settings = [f"aggregation={new.aggregation}", f"memory={new.memory}",
                    f"{GROUP}={new.group}"]
        if new.number_given:
            settings.append(f"number={new.number}")
        else:
            new.number = 10
        if uuid in self.slots:
            wanted = "EEXIST"
        elif new.aggregation > 8 or new.number == 17:
            wanted = "ERANGE"
        elif self.group_busy(new.group):
            wanted = "EBUSY"
        elif self.members(new.group) == 3 or \
                not self.fits(1 + new.aggregation, new.memory + 1024 * (new.aggregation - 1)):
            wanted = "ENOSPC"
        else:
            wanted = "ok"
            self.slots[uuid] = new
        return ("create", PARENT, KINDS, uuid, *settings), wanted

    def set_aggregation(self, s: Slot) -> tuple[str, str, str]:
        n = self.rng.randint(1, 9)
        more = n - s.aggregation
        if more == 0:
            return "aggregation", str(n), "ok"
        if self.group_busy(s.group):
            return "aggregation", str(n), "EBUSY"
        if n > 8:
            return "aggregation", str(n), "ERANGE"
        if more > 0 and not self.fits(more, 1024 * more):
            return "aggregation", str(n), "ENOSPC"
        s.aggregation = n
        return "aggregation", str(n), "ok"

    def set_memory(self, s: Slot) -> tuple[str, str, str]:
        n = self.rng.choice((1, 3, 32, 100, 257)) * 4096
        if n == s.memory:
            return "memory", str(n), "ok"
        if n > BYTES:
            return "memory", str(n), "ERANGE"
        if n > s.memory and not self.fits(0, n - s.memory):
            return "memory", str(n), "ENOSPC"
        s.memory = n
        return "memory", hex(n), "ok"

    def set_number(self, s: Slot) -> tuple[str, str, str]:
        n = self.rng.choice((10, 50, 99))
        if n == s.number:
            return "number", str(n), "ok"
        if s.number_given or s.opened or self.group_busy(s.group):
            return "number", str(n), "EBUSY"
        if n == 99:
            return "number", str(n), "ERANGE"
        s.number, s.number_given = n, True
        return "number", str(n), "ok"

    def set_flag(self, s: Slot) -> tuple[str, str, str]:
        text = self.rng.choice(("yes", "no", "many"))
        if text == "many":
            return "flag", text, "EINVAL"
        if text == s.flag:
            return "flag", text, "ok"
        if s.opened or self.group_busy(s.group):
            return "flag", text, "EBUSY"
        s.flag = text
        return "flag", text, "ok"

    def set_group(self, s: Slot) -> tuple[str, str, str]:
        group = self.rng.choice((G1, G2, G3))
        if group == s.group:
            return GROUP, group, "ok"
        if self.group_busy(s.group) or self.group_busy(group):
            return GROUP, group, "EBUSY"
        if self.members(group) == 3:
            return GROUP, group, "ENOSPC"
        s.group = group
        return GROUP, group, "ok"

    def step(self, uuid: str) -> tuple[tuple[str, ...], str]:
        """The next operation with this device, and what must come of it."""
        s = self.slots.get(uuid)
        what = self.rng.randrange(10)
        if not s or what == 0:
            return self.create(uuid)
        if what == 1:
            if s.client:
                return ("remove", uuid), "EBUSY"
            del self.slots[uuid]
            return ("remove", uuid), "ok"
        if what in (2, 3):
            return ("disconnect" if s.client else "connect", uuid), "ok"
        way = (self.set_aggregation, self.set_memory, self.set_number, self.set_flag,
               self.set_group, self.set_memory)[what - 4]
        param, value, wanted = way(s)
        return ("set", uuid, param, value), wanted


def check_model(d: Daemon, model: Model, doors: list[Door]) -> None:
    t.equal(available(d)[KINDS], model.available(), "available_instances")
    t.equal(available(d)["test-regs"], UNITS - model.units(), "available_instances of test-regs")
    for uuid, s in model.slots.items():
        door = model.rng.choice(doors)
        for param, value in (("aggregation", s.aggregation), ("memory", s.memory),
                             ("number", s.number), ("flag", s.flag), (GROUP, s.group)):
            t.equal(door.get(uuid, param), str(value), f"{param} of {uuid} through {door.name}")
        members = os.listdir(d.sys / "bus/mdev/devices" / uuid / "iommu_group/devices")
        t.equal(sorted(members), sorted(u for u, x in model.slots.items() if x.group == s.group),
                f"devices of the group of {uuid}")


def tree(d: Daemon) -> list[str]:
    return probe(d.sys, "/sys")


@t.case
def operations_by_chance_follow_the_model_through_all_doors() -> None:
    seed = int(os.environ.get("UMDEV_TEST_SEED", "0")) or random.randrange(1 << 30)
    t.fact(f"UMDEV_TEST_SEED={seed}")
    model = Model(random.Random(seed))
    with lab() as d, contextlib.ExitStack() as stack:
        doors = all_doors(d)
        for one in doors:
            stack.callback(one.close)
        before = tree(d)
        deadline = time.monotonic() + 12
        n = refused = 0
        while time.monotonic() < deadline and n < 1500:
            uuid = model.rng.choice(SLOTS)
            words, wanted = model.step(uuid)
            n += 1
            refused += wanted != "ok"
            if words[0] == "connect":
                model.slots[uuid].client = connect(d, uuid)
                model.slots[uuid].opened = True
            elif words[0] == "disconnect":
                client = model.slots[uuid].client
                model.slots[uuid].client = None
                assert client
                disconnect(d, uuid, client)
            else:
                door = model.rng.choice(doors)
                got = getattr(door, words[0])(*words[1:])
                t.check(door.is_right(got, wanted), f"step {n}: {' '.join(words)} through "
                        f"{door.name}: {got}, wanted {wanted}")
            if n % 20 == 0:
                check_model(d, model, doors)
        check_model(d, model, doors)
        for uuid, s in list(model.slots.items()):
            if s.client:
                disconnect(d, uuid, s.client)
            t.equal(doors[0].remove(uuid), "ok", "remove at the end")
        t.equal(tree(d), before, "the tree when all devices are gone")
        t.fact(f"{n} operations, {refused} of them refused")
        t.check(n > 200 and refused > 30, f"only {n} operations")


def one_of_many(d: Daemon, door: Door, uuids: list[str], seed: int, seconds: float,
                left: dict[str, tuple[int, int]], failures: list[str]) -> None:
    """Works on devices of its own, with what it is told; units are everybody's."""
    rng = random.Random(seed)
    have: dict[str, tuple[int, int]] = {}  # aggregation, memory
    deadline = time.monotonic() + seconds

    def wrong(got: str, *allowed: str) -> None:
        if not any(door.is_right(got, a) for a in allowed):
            failures.append(f"{door.name}: {got}, wanted one of {allowed}")

    while time.monotonic() < deadline and not failures:
        uuid = rng.choice(uuids)
        n, size = rng.randint(1, 8), 4096 * rng.randint(1, 64)
        if uuid not in have:
            got = door.create(PARENT, KINDS, uuid, f"aggregation={n}", f"memory={size}")
            wrong(got, "ok", "ENOSPC")
            if door.is_right(got, "ok"):
                have[uuid] = n, size
        elif rng.random() < 0.3:
            wrong(door.remove(uuid), "ok")
            del have[uuid]
        else:
            param, value = rng.choice((("aggregation", n), ("memory", size)))
            got = door.set(uuid, param, str(value))
            wrong(got, "ok", "ENOSPC")
            if door.is_right(got, "ok"):
                have[uuid] = (n, have[uuid][1]) if param == "aggregation" else (have[uuid][0], size)
    left.update(have)


@t.case
def units_are_kept_with_all_doors_in_use_at_once() -> None:
    seed = int(os.environ.get("UMDEV_TEST_SEED", "0")) or random.randrange(1 << 30)
    t.fact(f"UMDEV_TEST_SEED={seed}")
    with lab() as d, contextlib.ExitStack() as stack:
        before = tree(d)
        doors = all_doors(d)
        left: dict[str, tuple[int, int]] = {}
        failures: list[str] = []
        threads = []
        for i, door in enumerate(doors):
            stack.callback(door.close)
            uuids = [f"d0000000-0000-4000-8000-0000000{i}000{k:x}" for k in range(10)]
            threads.append(threading.Thread(
                target=one_of_many, args=(d, door, uuids, seed + i, 3, left, failures)))
        # And a client that comes and goes, whose device nobody else touches.
        with d.varlink() as v:
            v.call("Create", parent=PARENT, type=KINDS, uuid=A, settings=[])
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            disconnect(d, A, connect(d, A))
        for thread in threads:
            thread.join()
        t.equal(failures, [], "answers that were wrong")
        left[A] = 1, 4096
        units = sum(1 + n for n, _ in left.values())
        n_bytes = sum(size + 1024 * (n - 1) for n, size in left.values())
        t.equal(available(d)[KINDS], min((UNITS - units) // 2, (BYTES - n_bytes) // 4096), "left")
        t.equal(available(d)["test-regs"], UNITS - units, "units left")
        for uuid, (n, size) in left.items():
            t.equal((doors[0].get(uuid, "aggregation"), doors[0].get(uuid, "memory")),
                    (str(n), str(size)), f"values of {uuid}")
            t.equal(doors[0].remove(uuid), "ok", "remove at the end")
        t.equal(tree(d), before, "the tree when all devices are gone")


t.main()
