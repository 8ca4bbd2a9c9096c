#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""umdevd: start and stop, what it keeps, who may connect, and workers that break the rules.

Its workers are tests/lib/umdev-fake-worker, so that what is seen is the manager's doing alone."""
from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

from lib import t
from lib.daemon import Daemon, program
from lib.varlink import VarlinkError
from lib.vfio_user import Client

FAKE = str(t.ROOT / "tests/lib/umdev-fake-worker")


def daemon(mode: str = "", **env: str) -> Daemon:
    return Daemon(env={"UMDEV_WORKER": FAKE, "FAKE_WORKER": mode, **env})


@contextlib.contextmanager
def device(mode: str = "", kind: str = "mtty-1", *settings: str) -> Iterator[tuple[Daemon, str]]:
    with daemon(mode) as d:
        d.add_card()
        yield d, d.create("card0", kind, *settings)


def connect(d: Daemon, uuid: str) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(15)
    s.connect(str(d.socket(uuid)))
    return s


def connected(d: Daemon, uuid: str) -> socket.socket:
    s = connect(d, uuid)
    t.wait_for(lambda: d.state_of(uuid) == "connected", 10, "state connected")
    return s


def is_closed(s: socket.socket) -> bool:
    """Waits for what the other side does: False means that it sent something."""
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def error_of(d: Daemon, uuid: str) -> str:
    with d.varlink() as v:
        return v.call("Show", name=uuid)["device"].get("error") or ""


def run_umdevd(*arguments: str, env: dict[str, str] | None = None) \
        -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program("umdevd")), *arguments], env=env, text=True, timeout=20,
                          stdin=subprocess.DEVNULL, capture_output=True)


# ---- start and stop ----

@t.case
def help_and_version_need_nothing() -> None:
    for option in ("--help", "--version"):
        p = run_umdevd(option, env={})
        t.equal((p.returncode, p.stderr), (0, ""), f"umdevd {option}")
        t.check("umdevd" in p.stdout, f"umdevd {option}: {p.stdout!r}")


@t.case
def a_wrong_command_line_is_refused_in_one_line() -> None:
    for arguments in (["what"], ["--what"], ["--socket", "/x"], ["--fd", "3"], ["--one"],
                      ["--one", "mtty", "1"], ["--one", "mtty", "1", "--fd", "x"],
                      ["--one", "mtty", "1", "--fd", "3", "--socket", "/x"]):
        p = run_umdevd(*arguments)
        t.equal(p.returncode, 2, f"status of umdevd {arguments}")
        t.equal(len(p.stderr.splitlines()), 1, f"lines about umdevd {arguments}: {p.stderr!r}")


@t.case
def without_any_directory_it_says_which_variable_to_set() -> None:
    if os.geteuid() == 0:
        p = run_umdevd(env={"UMDEV_RUN": "run"})
        t.check("must begin with" in p.stderr, f"about a relative path: {p.stderr!r}")
    else:
        p = run_umdevd(env={})
        t.check("UMDEV_RUN" in p.stderr, f"about no path: {p.stderr!r}")
    t.equal(p.returncode, 1, "status")


@t.case
def a_stop_leaves_nothing_but_the_lock() -> None:
    with daemon() as d:
        d.add_card()
        d.create("card0", "mtty-1")
        connected(d, d.create("card0", "mtty-2"))
        d.stop()
        t.equal([p.name for p in d.run.iterdir()], ["lock"], "left in $UMDEV_RUN")
        t.equal(d.workers(), [], "workers left")


@t.case
def a_stop_closes_clients_and_does_not_wait_for_a_deaf_worker_for_ever() -> None:
    with device("deaf") as (d, uuid):
        s = connected(d, uuid)
        begin = time.monotonic()
        d.stop()
        t.check(is_closed(s), "the client goes on")
        t.check(time.monotonic() - begin < 6, "it took longer than its deadline")


@t.case
def a_second_umdevd_on_the_same_directory_is_refused() -> None:
    with daemon() as d:
        p = run_umdevd(env=d.env)
        t.equal(p.returncode, 1, "status")
        t.check(f"pid {d.process.pid}" in p.stderr and "UMDEV_RUN" in p.stderr,
                f"who runs and what to do: {p.stderr!r}")
        with d.varlink() as v:
            v.call("List")


@t.case
def a_killed_one_does_not_keep_the_next_from_starting() -> None:
    with daemon() as d:
        d.add_card()
        uuid = d.create("card0", "mtty-1")
        mounted = os.path.ismount(d.sys)
        d.kill()
        t.check(d.socket(uuid).exists(), "a SIGKILL leaves the socket")
        d.start()
        # What was left of the mount answers everything with ENOTCONN.
        t.check(not mounted or (d.sys / "bus/mdev").is_dir(), "the dead mount is in the way")
        connected(d, uuid).close()


# ---- what is kept ----

@t.case
def parents_come_back_with_their_settings() -> None:
    with daemon() as d:
        d.add_card("card0", "remove=wait", "p2p_domain=x")
        d.add_card("card1")
        with d.varlink() as v:
            before = v.call("ParentList")
        d.stop()
        d.start()
        with d.varlink() as v:
            t.equal(v.call("ParentList"), before, "parents after a new start")
            v.call("ParentRemove", name="card0")
        d.stop()
        d.start()
        with d.varlink() as v:
            t.equal([p["name"] for p in v.call("ParentList")["parents"]], ["card1"], "parents")


@t.case
def a_file_that_is_no_parent_is_named_and_the_others_are_taken() -> None:
    bad = {"half.json": '{"driver": "mt', "array.json": "[1]", "empty.json": "",
           "driver.json": '{"driver": "nosuch"}', "number.json": '{"driver": "mtty", "settings": '
           '{"params": 1}}', "key.json": '{"driver": "mtty", "settings": {"nosuch": "1"}}',
           "twice.json": '{"driver": "mtty", "driver": "mtty"}'}
    with daemon() as d:
        d.add_card("good")
        d.stop()
        folder = d.config / "parents.d"
        for name, text in bad.items():
            (folder / name).write_text(text)
        (folder / "dir.json").mkdir()
        (folder / ".good.tmp").write_text("{")
        os.mkfifo(folder / "fifo.json")
        d.start()
        with d.varlink() as v:
            t.equal([p["name"] for p in v.call("ParentList")["parents"]], ["good"], "parents")
        for name in (*bad, "dir.json", "fifo.json"):
            lines = [x for x in d.log().splitlines() if f"/{name} skipped: " in x]
            t.equal(len(lines), 1, f"lines about {name}")


@t.case
def a_parent_that_cannot_be_kept_is_not_made() -> None:
    with daemon() as d:
        (d.config / "parents.d").write_text("in the way")
        with d.varlink() as v:
            try:
                v.call("ParentAdd", name="card0", driver="mtty", settings=[])
                raise t.Failure("it was added")
            except VarlinkError as e:
                t.check("parents.d" in str(e), f"the text names the file: {e}")
            t.equal(v.call("ParentList")["parents"], [], "parents")


# ---- who may connect ----

@t.case
def a_client_starts_a_worker_and_its_end_ends_it() -> None:
    with device() as (d, uuid):
        t.equal(d.workers(), [], "workers of an idle device")
        with connected(d, uuid):
            t.equal(len(d.workers()), 1, "workers of a connected device")
            tty = os.readlink(d.device_dir(uuid) / "tty0")
            t.check(tty.startswith("/dev/pts/"), f"link to the pty: {tty}")
            with d.varlink() as v:
                t.equal(v.call("Show", name=uuid)["attach"]["owner"], os.getpid(), "owner")
        t.wait_for(lambda: d.state_of(uuid) == "idle", 5, "state idle")
        t.wait_for(lambda: not d.workers(), 5, "end of the worker")
        t.wait_for(lambda: not (d.device_dir(uuid) / "tty0").is_symlink(), 5, "end of the link")


@t.case
def a_worker_gets_only_the_devices_of_its_group() -> None:
    with t.TempDir() as folder:
        log = folder / "frames"
        with daemon(FAKE_WORKER_LOG=str(log)) as d:
            d.add_card()
            one, two = d.create("card0", "mtty-2"), d.create("card0", "mtty-1", "backend=none")
            with connected(d, one), connected(d, two):
                t.equal(len(d.workers()), 2, "workers")
        frames: dict[str, list[str]] = {}
        for text in log.read_text().splitlines():
            pid, rest = text.split(" ", 1)
            frames.setdefault(pid, []).append(rest)
        t.equal(sorted(f[:2] for f in frames.values()), [["1 0 0", "2 0 1"], ["1 0 2", "2 0 1"]],
                "CONFIG (with no and with two ptys) and CONNECT of each worker")


@t.case
def a_second_client_is_refused_at_once_and_the_first_goes_on() -> None:
    with device() as (d, uuid), connected(d, uuid) as first:
        begin = time.monotonic()
        for _ in range(5):
            with connect(d, uuid) as second:
                t.check(is_closed(second), "the second client was let in")
        t.check(time.monotonic() - begin < 1, "being refused took more than 1 s")
        t.equal(d.log().count("refused"), 1, "lines about the refused (one per second)")
        first.setblocking(False)
        try:
            t.check(first.recv(1), "the first client was closed")
        except BlockingIOError:
            pass
        t.equal(d.state_of(uuid), "connected", "state")


@t.case
def another_process_is_refused_while_the_owner_holds_the_device() -> None:
    with device() as (d, uuid), connected(d, uuid):
        code = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
                "s.settimeout(10); sys.exit(len(s.recv(1)))")
        p = subprocess.Popen(["/usr/bin/python3", "-c", code, str(d.socket(uuid))])
        t.equal(p.wait(15), 0, "the other process was let in")
        t.check(f"connection of pid {p.pid}" in d.log(), "the log names it")


@t.case
def whoever_comes_right_after_the_last_one_has_left_is_let_in() -> None:
    with device() as (d, uuid):
        for _ in range(10):
            with connect(d, uuid) as s:
                t.wait_for(lambda: d.state_of(uuid) == "connected", 10, "state connected")
                s.setblocking(False)
                try:
                    t.check(s.recv(1), "it was refused")
                except BlockingIOError:
                    pass
        t.equal(d.log().count("refused"), 0, "refusals")


@t.case
def a_worker_that_does_not_see_a_hang_up_keeps_the_next_one_waiting_for_a_second() -> None:
    with device("blind") as (d, uuid):
        connected(d, uuid).close()
        begin = time.monotonic()
        with connect(d, uuid) as s:
            t.check(is_closed(s), "the next client was let in")
        t.check(0.5 < time.monotonic() - begin < 5, "time until it was refused")
        t.check("does not let go" in d.log(), "a line says why")


@t.case
def a_device_that_is_removed_while_its_worker_starts_takes_it_along() -> None:
    with device() as (d, uuid):
        with connect(d, uuid) as s, d.varlink() as v:
            v.call("Remove", name=uuid, force=False)
            t.check(is_closed(s), "its client goes on")
        t.wait_for(lambda: not d.workers(), 5, "end of the worker")
        t.check(not d.device_dir(uuid).exists(), "its directory is still there")


@t.case
def surprise_removal_does_not_wait_for_a_deaf_worker() -> None:
    with device("deaf") as (d, uuid), connected(d, uuid) as s, d.varlink() as v:
        try:
            v.call("Remove", name=uuid, force=False)
            raise t.Failure("a device in use was removed")
        except VarlinkError as e:
            t.equal(e.errno, "EBUSY", "removal of a device in use")
        begin = time.monotonic()
        v.call("Remove", name=uuid, force=True)
        t.check(time.monotonic() - begin < 4, "it took longer than its deadline")
        t.check(is_closed(s), "its client goes on")
        t.equal(v.call("List")["devices"], [], "devices")


@t.case
def the_socket_is_for_the_user_of_umdevd_only() -> None:
    with device() as (d, uuid):
        t.equal(d.socket(uuid).stat().st_mode & 0o777, 0o600, "mode of a device's socket")
        t.equal(d.control.stat().st_mode & 0o777, 0o660, "mode of the control socket")


# ---- host ends of ports ----

@t.case
def each_back_end_is_there_while_the_device_is_connected() -> None:
    for backend, name in (("pty", "tty0"), ("socket", "port0.sock"), ("file", "port0.log")):
        with device("", "mtty-2", f"backend={backend}", "backend1=none") as (d, uuid):
            path = d.device_dir(uuid) / name
            t.check(not path.exists(), f"{name} of an idle device")
            with connected(d, uuid):
                t.check(path.exists(), f"{name} of a connected device")
                t.equal(path.stat().st_mode & 0o777, 0o600, f"mode of {name}")
                left = {p.name for p in d.device_dir(uuid).iterdir()} - {"socket", name}
                t.equal(left, set(), "other files")


@t.case
def a_back_end_changes_while_the_device_is_idle_only() -> None:
    with device("", "mtty-2") as (d, uuid), d.varlink() as v:
        v.call("ParamSet", name=uuid, param="backend1", value="socket")
        with connected(d, uuid):
            t.check((d.device_dir(uuid) / "port1.sock").is_socket(), "port1.sock")
            t.check((d.device_dir(uuid) / "tty0").is_symlink(), "tty0")
            try:
                v.call("ParamSet", name=uuid, param="backend", value="none")
                raise t.Failure("it changed while connected")
            except VarlinkError as e:
                t.equal(e.errno, "EBUSY", "a change while connected")


# ---- parameters of a served device ----

def set_gain(d: Daemon, uuid: str, value: str) -> tuple[str, float]:
    """"" or the errno, and how long it took."""
    begin = time.monotonic()
    with d.varlink() as v:
        try:
            v.call("ParamSet", name=uuid, param="gain", value=value)
            errno = ""
        except VarlinkError as e:
            errno = e.errno or e.name
    return errno, time.monotonic() - begin


def gain_of(d: Daemon, uuid: str) -> str:
    with d.varlink() as v:
        return next(p["value"] for p in v.call("Show", name=uuid)["params"] if p["name"] == "gain")


@contextlib.contextmanager
def test_device(mode: str) -> Iterator[tuple[Daemon, str]]:
    with daemon(mode) as d:
        with d.varlink() as v:
            v.call("ParentAdd", name="p", driver="test", settings=[])
        yield d, d.create("p", "test-regs", "gain=1")


@t.case
def a_live_parameter_is_asked_of_the_worker() -> None:
    with test_device("") as (d, uuid), connected(d, uuid):
        t.equal(set_gain(d, uuid, "7")[0], "", "a change that the worker accepts")
        t.equal(gain_of(d, uuid), "7", "value")
    with test_device("refuses") as (d, uuid):
        t.equal(set_gain(d, uuid, "7")[0], "", "a change while nobody serves it")
        with connected(d, uuid):
            t.equal(set_gain(d, uuid, "8")[0], "EINVAL", "a change that the worker refuses")
            t.equal(gain_of(d, uuid), "7", "value")
            t.equal(set_gain(d, uuid, "13")[0], "EDOM", "a change that the parent half refuses")


@t.case
def a_change_while_the_worker_starts_reaches_it_before_the_client_does() -> None:
    with t.TempDir() as folder:
        log = folder / "frames"
        with daemon("slow", FAKE_WORKER_LOG=str(log)) as d:
            with d.varlink() as v:
                v.call("ParentAdd", name="p", driver="test", settings=[])
            uuid = d.create("p", "test-regs", "gain=1")
            with connect(d, uuid):
                t.wait_for(log.exists, 5, "a worker that starts")
                t.equal(set_gain(d, uuid, "7")[0], "", "a change while the worker starts")
                t.equal(gain_of(d, uuid), "7", "value")
                t.wait_for(lambda: d.state_of(uuid) == "connected", 5, "state connected")
        frames = [x.split()[1] for x in log.read_text().splitlines()]
        t.equal(frames[:3], ["1", "3", "2"], "CONFIG, PARAM_SET, CONNECT")


@t.case
def a_worker_that_does_not_answer_a_change_is_ended_and_the_old_value_stays() -> None:
    with test_device("mute") as (d, uuid), connected(d, uuid) as s:
        errno, seconds = set_gain(d, uuid, "7")
        t.equal(errno, "EIO", "the writer's errno")
        t.check(1.5 < seconds < 5, f"answered after {seconds:.1f} s")
        t.equal(gain_of(d, uuid), "1", "value")
        t.check(is_closed(s), "its client goes on")
        t.check("parameter change" in error_of(d, uuid), f"reason: {error_of(d, uuid)!r}")


@t.case
def a_change_under_way_ends_with_its_device() -> None:
    with test_device("mute") as (d, uuid), connected(d, uuid), d.varlink() as v:
        v.send("ParamSet", {"name": uuid, "param": "gain", "value": "7"})
        t.wait_for(lambda: d.workers(), 5, "a worker")
        for pid in d.workers():
            os.kill(pid, signal.SIGKILL)
        t.equal(v.receive()["parameters"]["errno"], "EIO", "the writer's errno")


# ---- workers that cannot be trusted ----

@t.case
def a_program_that_cannot_be_run_fails_the_device_and_nothing_else() -> None:
    with Daemon(env={"UMDEV_WORKER": "/nonexistent/worker"}) as d:
        d.add_card()
        uuid = d.create("card0", "mtty-1")
        with connect(d, uuid) as s:
            t.check(is_closed(s), "a client was let in")
        t.equal(d.state_of(uuid), "failed", "state")
        t.check("/nonexistent/worker" in error_of(d, uuid), f"why: {error_of(d, uuid)!r}")
        t.check("/nonexistent/worker" in d.log(), "a line in the log")
        with d.varlink() as v:
            v.call("Remove", name=uuid, force=False)
        t.equal(list((d.run / "dev").iterdir()), [], "directories of devices")


def breaks(mode: str, why: str) -> None:
    """Such a worker fails its device, with that reason; a device beside it never notices."""
    with device(mode) as (d, uuid):
        with connect(d, uuid) as s:
            t.check(is_closed(s), "its client goes on")
        t.wait_for(lambda: d.state_of(uuid) == "failed", 5, "state failed")
        t.check(why in error_of(d, uuid), f"reason: {error_of(d, uuid)!r}")
        t.check(why in d.log(), f"the log tells: {d.log()}")
        t.wait_for(lambda: not d.workers(), 5, "end of the worker")
        t.check(not (d.device_dir(uuid) / "tty0").is_symlink(), "the link to its pty stays")
        with connect(d, uuid) as s:
            t.check(is_closed(s), "a client of a failed device was let in")
        with d.varlink() as v:
            v.call("Remove", name=uuid, force=False)


@t.case
def a_worker_that_never_gets_ready_is_ended() -> None:
    breaks("silent", "not ready within 5 s")


@t.case
def a_worker_that_exits_is_noticed_at_once() -> None:
    breaks("exits", "exited with status 3")
    breaks("dies", "exited with status 3")


@t.case
def a_worker_that_sends_no_frame_is_ended() -> None:
    breaks("garbage", "broke the rules")


@t.case
def a_worker_that_says_what_its_state_does_not_allow_is_ended() -> None:
    breaks("early", "broke the rules: PONG")
    breaks("ready-twice", "broke the rules: READY")


@t.case
def a_worker_that_says_what_only_we_may_is_ended() -> None:
    breaks("wrong-way", "broke the rules")
    breaks("unknown", "broke the rules")


@t.case
def a_worker_that_answers_what_nobody_asked_is_ended() -> None:
    breaks("unasked-param", "broke the rules: PARAM_DONE")
    breaks("no-member", "broke the rules: STATE")


@t.case
def a_worker_that_talks_too_much_is_ended() -> None:
    breaks("flood", "broke the rules: PONG")


@t.case
def a_faulty_device_stays_connected_and_says_why() -> None:
    with device("faulty") as (d, uuid), connected(d, uuid):
        t.wait_for(lambda: error_of(d, uuid), 5, "the reason")
        t.equal(error_of(d, uuid), "a request crashes it", "the reason")
        t.equal(d.state_of(uuid), "connected", "state")


@t.case
def a_take_over_is_seen_by_who_monitors_and_by_nobody_else() -> None:
    with device("resumed") as (d, uuid), d.varlink() as v:
        events = v.stream("Monitor")
        next(events)
        with connect(d, uuid):
            states = []
            while len(states) < 3:
                event = next(events)["event"]
                if event["what"] == "state":
                    states.append(event["detail"])
            t.equal(states, ["connected", "takeover", "connected"], "states")
            t.check("killed by signal 9 and goes on (life 2)" in d.log(), "a line in the log")


@t.case
def a_killed_worker_fails_its_device_alone() -> None:
    with daemon() as d:
        d.add_card()
        one, two = d.create("card0", "mtty-1"), d.create("card0", "mtty-1")
        with connected(d, one) as s:
            victims = d.workers()
            with connected(d, two):
                os.kill(victims[0], signal.SIGKILL)
                t.check(is_closed(s), "the client of the dead worker goes on")
                t.wait_for(lambda: d.state_of(one) == "failed", 5, "state failed")
                t.check("signal 9" in error_of(d, one), f"reason: {error_of(d, one)!r}")
                t.equal(d.state_of(two), "connected", "state of the other device")


@t.case
def who_joins_a_group_whose_worker_ends_is_served() -> None:
    """Its listener was not told when that worker was gone, and its client waited for ever."""
    group = "peer_to_peer_resource_uuid=77777777-0000-4000-8000-000000000000"
    with Daemon() as d:
        d.umdev("parent", "add", "lab", "driver=test")
        for _ in range(60):
            first = d.create("lab", "test-dma", group)
            Client(d.socket(first)).close()
            t.wait_for(lambda u=first: d.state_of(u) == "idle", 5, "idle")
            second = d.create("lab", "test-dma", group)
            with Client(d.socket(second)):
                pass
            t.wait_for(lambda u=second: d.state_of(u) == "idle", 5, "idle")
            d.umdev("remove", first, second)


t.main()
