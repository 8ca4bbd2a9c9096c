#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""One umdevd after the other: killed or replaced while devices are idle, failed, half made, or in
use by clients that check every answer.

    restart.py                 about a minute
    UMDEV_KILLS=200 restart.py the_manager_is_killed_under_load     figures for docs/reliability.md
"""
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator

from lib import t
from lib import vfio_user as vu
from lib.daemon import Daemon, parent_of, worker_of
from lib.load import COUNTER, GAIN, RESETS, Load, get
from lib.sysfs import probe
from lib.varlink import VarlinkError
from lib.vfio_user import Client

KILLS = int(os.environ.get("UMDEV_KILLS", "20"))


def tree(d: Daemon) -> list[str]:
    if not os.path.ismount(d.sys):
        t.skip("the tree is not mounted here")
    return probe(d.sys, "/sys")


@contextlib.contextmanager
def daemon(*settings: str, env: dict[str, str] | None = None) -> Iterator[Daemon]:
    with Daemon(env=env) as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="t0", driver="test", settings=list(settings))
        yield d


def restart(d: Daemon) -> None:
    d.kill()
    d.start()


def set_param(d: Daemon, device: str, name: str, value: str) -> None:
    with d.varlink() as v:
        v.call("ParamSet", name=device, param=name, value=value)


def param(d: Daemon, device: str, name: str) -> str:
    with d.varlink() as v:
        return next(p["value"] for p in v.call("Show", name=device)["params"] if p["name"] == name)


def write(d: Daemon, path: str, text: str) -> None:
    with d.varlink() as v:
        v.call("Write", path=path, value=text)


def error_of(d: Daemon, device: str) -> str:
    with d.varlink() as v:
        return v.call("Show", name=device)["device"].get("error") or ""


def list_devices(d: Daemon) -> list[dict[str, object]]:
    with d.varlink() as v:
        return v.call("List")["devices"]


def devices_of_every_kind(d: Daemon) -> dict[str, str]:
    """Numbers have gaps, values are not the defaults, one is unbound, one failed, two share."""
    d.add_card("card0", "params=off")
    d.add_card("card1")
    gap = [d.create("t0", "test-regs"), d.create("card1", "mtty-2")]
    kinds = {
        "idle": d.create("t0", "test-regs", "label=one", "gain=7", "aggregation=3"),
        "plain": d.create("card0", "mtty-1"),
        "unbound": d.create("card1", "mtty-2", "backend=file"),
        "shared1": d.create("t0", "test-dma"),
        "failed": d.create("t0", "test-regs", "label=failed"),
        "started": d.create("t0", "test-regs", "label=started"),
    }
    peer = param(d, kinds["shared1"], "peer_to_peer_resource_uuid")
    kinds["shared2"] = d.create("t0", "test-dma", f"peer_to_peer_resource_uuid={peer}")
    set_param(d, kinds["idle"], "note", "caf\u00e9 au lait")
    set_param(d, kinds["idle"], "color", "blue")
    for uuid in gap:
        d.umdev("remove", uuid)
    d.umdev("commit", kinds["started"])
    write(d, "/bus/mdev/drivers/mtty/unbind", kinds["unbound"])
    with Client(d.socket(kinds["failed"])):
        os.kill(parent_of(worker_of(d, kinds["failed"])), signal.SIGKILL)
        t.wait_for(lambda: d.state_of(kinds["failed"]) == "failed", 5, "state failed")
    return kinds


@t.case
def drivers_autoprobe_stays_as_it_was_set() -> None:
    with daemon() as d, d.varlink() as v:
        path = "/bus/mdev/drivers_autoprobe"
        v.call("Write", path=path, value="0")
        v.call("List")  # what is written down is written before the next call
        for end in (d.kill, d.leave):
            end()
            d.start()
            with d.varlink() as w:
                t.equal(w.call("Read", path=path)["value"], "0\n", "after a restart")
        write(d, path, "1")
        with d.varlink() as w:
            w.call("List")
        restart(d)
        with d.varlink() as w:
            t.equal(w.call("Read", path=path)["value"], "1\n", "set back")


@t.case
def whatever_is_not_in_use_is_the_same_after_a_kill() -> None:
    with daemon() as d:
        kinds = devices_of_every_kind(d)
        os.chmod(d.socket(kinds["plain"]), 0o666)
        before, listed = tree(d), list_devices(d)
        why = error_of(d, kinds["failed"])
        keeper = parent_of(worker_of(d, kinds["started"]))
        for end in (d.kill, d.leave):
            end()
            d.start()
            t.equal(tree(d), before, "the tree")
            t.equal(list_devices(d), listed, "what List says")
            t.equal(error_of(d, kinds["failed"]), why, "why it failed")
            t.equal((d.state_of(kinds["started"]), parent_of(worker_of(d, kinds["started"]))),
                    ("started", keeper), "a started device, and its keeper")
        t.equal(stat.S_IMODE(d.socket(kinds["plain"]).stat().st_mode), 0o666, "mode of a socket")
        with Client(d.socket(kinds["idle"])) as c:
            t.equal(get(c, GAIN, 4), 7, "a value that the worker was given")
        write(d, "/bus/mdev/drivers/mtty/bind", kinds["unbound"])
        t.equal(param(d, kinds["unbound"], "backend"), "file", "a value of an unbound device")
        new = d.create("t0", "test-regs")
        t.check(all(x["group"] != y["group"] for x, y in
                    [(list_devices(d)[-1], o) for o in listed if o["uuid"] != kinds["unbound"]]),
                "a new device has the group of an old one")
        t.equal(list_devices(d)[-1]["uuid"], new, "the last one listed")


@t.case
def changed_modes_and_owners_of_the_tree_are_kept_as_long_as_what_they_belong_to() -> None:
    with daemon() as d:
        tree(d)
        device = d.create("t0", "test-regs")
        create = d.sys / "class/mdev_bus/t0/mdev_supported_types/test-regs/create"
        remove = d.sys / "bus/mdev/devices" / device / "remove"
        gain = d.sys / "bus/mdev/devices" / device / "vendor/gain/value"
        os.chmod(create, 0o222)
        os.chmod(remove, 0o220)
        if os.geteuid() == 0:
            os.chown(gain, 12345, 54321)
        before = gain.stat()

        def is_written() -> bool:  # it is when nothing else is to be done
            path = d.run / "state/.owners"
            wanted = "gain" if os.geteuid() == 0 else "remove"
            return path.exists() and wanted in path.read_text()

        for end in (d.kill, d.leave):
            t.wait_for(is_written, 5, "the lines in the file")
            end()
            d.start()
            t.equal([stat.S_IMODE(p.stat().st_mode) for p in (create, remove)], [0o222, 0o220],
                    "modes")
            t.equal((gain.stat().st_uid, gain.stat().st_gid), (before.st_uid, before.st_gid),
                    "owner")
        d.umdev("remove", device)
        with d.varlink() as v:
            v.call("Create", parent="t0", type="test-regs", uuid=device, settings=[])
        for _ in range(2):
            t.equal((stat.S_IMODE(remove.stat().st_mode), gain.stat().st_uid),
                    (0o200, os.geteuid()), "mode and owner of a new device with the old name")
            restart(d)
        d.kill()
        with open(d.run / "state/.owners", "a") as f:
            f.write("x\n644 0 0 relative\n644 0 0 /no/such/path\n" + "7" * 5000)
        d.start()
        t.check(".owners has lines" in d.log(), "a line about what it cannot use")
        t.equal(stat.S_IMODE(create.stat().st_mode), 0o222, "mode")


@t.case(seconds=600)
def the_manager_is_killed_under_load() -> None:
    with daemon() as d:
        used = [d.create("t0", "test-regs"), d.create("t0", "test-dma")]
        idle = d.create("t0", "test-regs", "aggregation=2")
        loads = [Load(d, u) for u in used]
        t.wait_for(lambda: [d.state_of(u) for u in used] == ["connected"] * 2, 5, "connected")
        before, workers, pauses = tree(d), d.workers(), []
        for i in range(KILLS):
            begin = time.monotonic()
            if i % 3 == 2:
                d.leave()
                d.start()
            else:
                restart(d)
            pauses.append(time.monotonic() - begin)
            t.equal(tree(d), before, "the tree")
            if i % 5 == 0:
                time.sleep(0.1)  # else it may be killed before it has met its workers
                t.equal(d.workers(), workers, "workers")
                with socket.socket(socket.AF_UNIX) as s:
                    s.settimeout(5)
                    s.connect(str(d.socket(used[0])))
                    t.equal(s.recv(1), b"", "what a second client gets")
        clients = [load.stop() for load in loads]
        for n, (device, c) in enumerate(zip(used, clients)):
            set_param(d, device, "gain", str(20 + n))
            t.equal(get(c, GAIN, 4), 20 + n, "a live value, through the new manager")
            c.close()
        t.wait_for(lambda: not d.workers(), 5, "the end of workers without clients")
        t.equal({d.state_of(u) for u in (*used, idle)}, {"idle"}, "states at the end")
        t.fact(f"{KILLS} managers ended under load of 2 clients: "
               f"{sum(load.accesses for load in loads)} accesses, 0 wrong; slowest answer "
               f"{max(c.slowest for c in clients) * 1000:.1f} ms; without a manager "
               f"{sorted(pauses)[len(pauses) // 2] * 1000:.0f} ms (median)")


@t.case
def manager_and_worker_are_killed_together() -> None:
    with daemon() as d:
        device = d.create("t0", "test-regs")
        load = Load(d, device)
        before = tree(d) if d.state_of(device) == "connected" else []
        for i in range(10):
            victims = [worker_of(d, device), d.process.pid]
            if i % 2:
                victims.reverse()
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            d.process.wait()
            d.start()
            t.wait_for(lambda: d.state_of(device) == "connected", 5, "state connected")
        if before:
            t.equal(tree(d), before, "the tree")
        load.stop().close()
        t.fact(f"10 managers and workers killed together: {load.accesses} accesses, 0 wrong")


@t.case
def a_device_whose_keeper_died_too_is_idle_and_fresh() -> None:
    with daemon() as d:
        d.add_card()
        devices = [d.create("t0", "test-regs"), d.create("card0", "mtty-1")]
        clients = [Client(d.socket(u)) for u in devices]
        t.wait_for(lambda: len(d.workers()) == 4, 5, "two keepers and two workers")
        pids = d.workers()
        d.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        d.start()
        for device, c in zip(devices, clients):
            t.wait_for(lambda u=device: d.state_of(u) == "idle", 5, "idle")
            with contextlib.suppress(ConnectionResetError):
                t.equal(c.socket.recv(1), b"", "what the old client gets")
            c.close()
        t.equal([p.name for p in d.device_dir(devices[1]).iterdir()], ["socket"],
                "what is left in a device's directory")
        t.equal(list((d.run / "worker").iterdir()), [], "rendezvous sockets left")
        with Client(d.socket(devices[0])) as c:
            t.equal(get(c, COUNTER), 0, "counter of a fresh device")
        t.check("its worker ended while no umdevd ran" in d.log(), "a line in the log")


def as_of_another_version(d: Daemon, uuid: str) -> None:
    """The next umdevd finds that the worker was started by one that speaks other messages."""
    path = d.run / "state" / uuid
    text = path.read_text()
    t.check('"messages":1,' in text, f"no worker in {text}")
    path.write_text(text.replace('"messages":1,', '"messages":77,'))


@t.case
def a_worker_of_another_version_serves_on_and_is_not_spoken_to() -> None:
    with daemon() as d:
        device, removed = d.create("t0", "test-regs"), d.create("t0", "test-regs")
        gone = Client(d.socket(removed))
        with Client(d.socket(device)) as c:
            get(c, GAIN, 4)
            keeper = parent_of(worker_of(d, device))
            d.kill()
            for uuid in (device, removed):
                as_of_another_version(d, uuid)
            d.start()
            lines = [x for x in d.log().splitlines() if "speaks version 77" in x]
            t.equal([len(lines), "this umdevd 1" in lines[0]], [2, True], f"lines: {lines}")
            t.check("77" in error_of(d, device), f"error: {error_of(d, device)}")
            t.equal(d.state_of(device), "connected", "state")
            get(c, GAIN, 4)
            p = d.umdev("param", "set", device, "gain=9", ok=False, timeout=5)
            t.check(p.returncode != 0 and "another version" in p.stderr, p.stderr)
            t.equal(param(d, device, "gain"), "1", "gain")
            t.check(d.umdev("remove", device, ok=False).returncode != 0, "it was removed")
            t.check(os.path.exists(f"/proc/{keeper}"), "the worker was ended")
        t.wait_for(lambda: d.state_of(device) == "idle", 5, "the end of the old worker")
        t.equal(error_of(d, device), "", "error afterwards")
        with Client(d.socket(device)) as c:
            get(c, GAIN, 4)
        d.umdev("remove", "--force", removed)
        t.equal(gone.socket.recv(1), b"", "what the client of a device hears that was removed")
        gone.close()


@t.case
def a_client_that_left_meanwhile_is_gone() -> None:
    with daemon() as d:
        one, two = (d.create("t0", "test-regs") for _ in range(2))
        c1, c2 = Client(d.socket(one)), Client(d.socket(two))
        t.wait_for(lambda: d.state_of(two) == "connected", 5, "state connected")
        d.kill()
        c1.close()
        t.wait_for(lambda: len(d.workers()) == 2, 5, "the end of the worker without a client")
        d.start()
        t.wait_for(lambda: d.state_of(one) == "idle", 5, "state idle")
        t.equal(d.state_of(two), "connected", "state of the other")
        with Client(d.socket(one)) as c:
            t.equal(get(c, RESETS, 4), 1, "resets of a new worker's device")
        c2.close()
        t.wait_for(lambda: d.state_of(two) == "idle", 5, "state idle after an adopted end")


@t.case
def a_member_of_a_group_that_left_meanwhile_may_come_back() -> None:
    with daemon() as d:
        one = d.create("t0", "test-dma")
        peer = param(d, one, "peer_to_peer_resource_uuid")
        two = d.create("t0", "test-dma", f"peer_to_peer_resource_uuid={peer}")
        with Client(d.socket(one)) as c1:
            c2 = Client(d.socket(two))
            t.equal(get(c1, COUNTER), 0, "counter")
            d.kill()
            c2.close()
            d.start()
            for _ in range(3):
                with Client(d.socket(two)) as c2:  # by the same process: the group's owner
                    t.equal(get(c2, COUNTER), 0, "counter after a new connection")
                restart(d)
            t.equal(get(c1, COUNTER), 1, "counter of the one who stayed")
            t.equal(d.state_of(one), "connected", "state")
        t.wait_for(lambda: not d.workers(), 5, "the end of the worker")


@t.case
def the_owner_is_known_to_the_next_manager() -> None:
    with daemon() as d:
        one = d.create("t0", "test-dma")
        peer = param(d, one, "peer_to_peer_resource_uuid")
        two = d.create("t0", "test-dma", f"peer_to_peer_resource_uuid={peer}")
        with Client(d.socket(one)):
            t.wait_for(lambda: d.state_of(one) == "connected", 5, "state connected")
            restart(d)
            pid = os.fork()
            if pid == 0:
                with socket.socket(socket.AF_UNIX) as s:
                    s.settimeout(5)
                    s.connect(str(d.socket(two)))
                    os._exit(0 if s.recv(1) == b"" else 1)
            t.equal(os.waitpid(pid, 0)[1], 0, "status of another process that was refused")
            with Client(d.socket(two)):
                t.equal(d.state_of(two), "connected", "state of the owner's second device")


def go_on(worker: int) -> None:
    """Of a stopped one. The end of its manager may have made it go on, and end, already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)


@t.case
def a_live_change_under_way_agrees_everywhere() -> None:
    with daemon() as d:
        device = d.create("t0", "test-regs", "gain=3")
        with Client(d.socket(device)) as c:
            for value in ("4", "14"):  # 14 is refused by the device half
                worker = worker_of(d, device)
                os.kill(worker, signal.SIGSTOP)
                with d.varlink() as v:
                    v.send("ParamSet", {"name": device, "param": "gain", "value": value})
                    state = d.run / "state" / device
                    t.wait_for(lambda: json.loads(state.read_text()).get("pending"), 5,
                               "the change in the state file")
                    d.kill()
                go_on(worker)
                d.start()
                t.wait_for(lambda: not json.loads(state.read_text()).get("pending"), 5,
                           "the end of the change")
                t.equal(param(d, device, "gain"), "4", "value in the model")
                t.equal(get(c, GAIN, 4), 4, "value in the device")


@t.case
def a_removal_that_waits_goes_on() -> None:
    for force in (False, True):
        with daemon("remove=wait") as d:
            device = d.create("t0", "test-regs")
            with Client(d.socket(device)) as c:
                t.wait_for(lambda: d.state_of(device) == "connected", 5, "state connected")
                worker = worker_of(d, device)
                os.kill(worker, signal.SIGSTOP)
                with d.varlink() as v:
                    v.send("Remove", {"name": device, "force": force})
                    t.wait_for(lambda: d.state_of(device) == "removing", 5, "state removing")
                    d.kill()
                go_on(worker)
                d.start()
                if not force:
                    t.equal(d.state_of(device), "removing", "state")
                    t.equal(get(c, COUNTER), 0, "counter")
            t.wait_for(lambda: not list_devices(d), 5, "the end of the device")
            t.equal(list((d.run / "state").glob("[!.]*")), [], "state files")
            with d.varlink() as v:
                t.equal({x["available_instances"] for x in v.call("Types", parent="t0")["types"]},
                        {64, 32}, "units that are free")


@t.case
def files_that_are_no_state_are_named_and_left_alone() -> None:
    with daemon() as d:
        good = d.create("t0", "test-regs")
        text = (d.run / "state" / good).read_text()
        d.kill()
        names = iter(f"{i:08x}-0000-4000-8000-000000000000" for i in range(1, 100))
        bad = {}
        for content in ("", "{", "[]", "null", "{}", text[:-1], text + "x", "\0" * 100, "[" * 5000,
                        text.replace('"version":1', '"version":2'),
                        text.replace('"t0"', '"t1"'), text.replace('"t0"', '"../t0"'),
                        text.replace("test-regs", "test-no"),
                        text.replace('"order":', '"order":-'),
                        text.replace('"order":', '"order":1e3,"x":'),
                        text.replace('"parameters":{', '"parameters":{"gain":"x",'),
                        text.replace('"parameters":{', '"parameters":{"gain":"13",'),
                        text.replace('"parameters":{', '"parameters":{"aggregation":"64",'),
                        text.replace('"parameters":{', '"parameters":{"what":"1",'),
                        text.replace('"group":0', '"group":-1'),
                        text.replace('}}', '},"owner":{"pid":1,"uid":0,"start":1}}'),
                        *(text.replace('}}', '},"worker":{%s}}' % worker) for worker in (
                            '"messages":1,"group":0,"pid":1,"start":1,"member":0',
                            '"messages":1,"group":0,"pid":9,"start":1,"member":32',
                            '"group":0,"pid":9,"start":1,"member":0')),
                        " " * (1 << 20)):
            bad[next(names)] = content
        for name, content in bad.items():
            (d.run / "state" / name).write_text(content)
        fifo, folder, link = (next(names) for _ in range(3))
        os.mkfifo(d.run / "state" / fifo)
        (d.run / "state" / folder).mkdir()
        (d.run / "state" / link).symlink_to("/etc/passwd")
        (d.run / "state" / "no-uuid").write_text(text)
        # Numbers that another one has, or nobody can have, are replaced; strange ones do no harm.
        twins = {next(names): text, next(names): text.replace('"group":0', '"group":4000000000')
                 .replace('"vfio":0', '"vfio":4000000000')
                 .replace('"parameters":{', '"pending":{"what":"1"},"parameters":{')}
        lost = next(names)
        twins[lost] = text.replace('}}', '},"opened":true,"owner":{"pid":1,"uid":0,"start":1},'
                                   '"worker":{"messages":1,"group":0,"pid":%d,"start":1,'
                                   '"member":0}}' % os.getpid())
        for name, content in twins.items():
            (d.run / "state" / name).write_text(content)
        d.start()
        t.equal({x["uuid"] for x in list_devices(d)}, {good, *twins}, "devices")
        t.equal(len({x["group"] for x in list_devices(d)}), 4, "groups")
        t.equal(d.state_of(lost), "idle", "state of one whose worker is not the recorded process")
        for name in (*bad, fifo, folder, link, "no-uuid"):
            t.check(f"state/{name} skipped: " in d.log(), f"no line about {name}: {bad.get(name)}")
            t.check(os.path.lexists(d.run / "state" / name), f"{name} was removed")
        for uuid in (good, *twins):
            d.umdev("remove", uuid)
        for name in bad:
            (d.run / "state" / name).unlink()
        for name in (fifo, link, "no-uuid"):
            (d.run / "state" / name).unlink()
        (d.run / "state" / folder).rmdir()


@t.case
def what_was_half_made_or_half_removed_is_cleared_away() -> None:
    with daemon() as d:
        device = d.create("t0", "test-regs")
        d.kill()
        state = d.run / "state"
        (state / ".tmp").write_text('{"version":1,')
        half = d.run / "dev" / "00000001-0000-4000-8000-000000000000"
        half.mkdir()
        (half / "tty0").symlink_to("/dev/pts/99")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(half / "socket"))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(d.run / "worker" / "77"))
        other = d.run / "dev" / "not-ours"
        other.mkdir()
        # The kill came between the end of the device and that of its file.
        text = json.loads((state / device).read_text())
        (state / device).write_text(json.dumps({**text, "removing": True}))
        d.start()
        t.equal(list_devices(d), [], "devices")
        t.equal([p.name for p in (d.run / "dev").iterdir()], ["not-ours"], "device directories")
        t.equal(list((d.run / "worker").iterdir()), [], "rendezvous sockets")
        t.equal([p.name for p in state.iterdir() if p.name != ".tmp"], [], "state files")
        d.create("t0", "test-regs")
        other.rmdir()


@t.case
def a_parent_that_does_not_come_back_keeps_its_devices_waiting() -> None:
    with daemon() as d:
        device = d.create("t0", "test-regs")
        with Client(d.socket(device)) as c:
            t.wait_for(lambda: d.state_of(device) == "connected", 5, "state connected")
            description = d.config / "parents.d" / "t0.json"
            text = description.read_text()
            d.kill()
            description.write_text("{")
            d.start()
            t.equal(list_devices(d), [], "devices")
            t.equal(get(c, COUNTER), 0, "counter")
            d.kill()
            description.write_text(text)
            d.start()
            t.equal(d.state_of(device), "connected", "state")
            t.equal(get(c, COUNTER), 1, "counter")


@t.case
def nobody_else_is_let_in_while_one_lives() -> None:
    with daemon() as d:
        device = d.create("t0", "test-regs")
        with Client(d.socket(device)) as c:
            t.equal(get(c, COUNTER), 0, "counter")
            second = Daemon(directory=d.dir)
            try:
                second.start()
                t.check(False, "a second umdevd started")
            except t.Failure as e:
                t.check("runs on" in str(e), f"why it did not start: {e}")
            t.equal(get(c, COUNTER), 1, "counter")
            with contextlib.suppress(VarlinkError):
                t.equal(d.state_of(device), "connected", "state")


@t.case
def making_many_devices_is_not_slowed_down() -> None:
    """And all of them are back: the figures are for docs."""
    n = 1000
    with Daemon() as d, d.varlink(60) as v:
        for i in range(16):
            v.call("ParentAdd", name=f"t{i}", driver="test", settings=[])
        begin = time.monotonic()
        for i in range(n):
            v.call("Create", parent=f"t{i % 16}", type="test-regs", settings=[])
        made = time.monotonic() - begin
        d.kill()
        begin = time.monotonic()
        d.start()
        back = time.monotonic() - begin
        with d.varlink(60) as again:
            t.equal(len(again.call("List")["devices"]), n, "devices after a restart")
        t.fact(f"{n} devices made in {made:.2f} s, back {back:.2f} s after a kill")


t.main()
