#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Who may do what: one table of users and operations, through the tree and through the control
socket, with the same answers; delegation by chown and chmod; owners of devices' sockets."""
from __future__ import annotations

import errno
import os
import socket
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from lib import t
from lib.daemon import Daemon, program
from lib.varlink import Varlink, VarlinkError

ADMINS, TEAM = 2001, 3001  # groups
# name: (uid, gid, further groups)
USERS = {
    "root": (0, 0, []),
    "nobody": (65534, 65534, []),
    "admin": (1001, 1001, [ADMINS]),       # of control_group
    "delegate": (1002, 1002, []),          # owns `create` of mtty-1 and the label of a device
    "colleague": (1003, 1003, [TEAM, 17]),  # the group of `create` of mtty-1
}


def as_user(name: str, act: Callable[[], None]) -> str:
    """Runs act in a child of that user: "" or the name of the errno with which it failed."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        answer = "died"
        try:
            uid, gid, groups = USERS[name]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            act()
            answer = ""
        except VarlinkError as e:
            answer = e.errno or e.name
        except OSError as e:
            answer = errno.errorcode[e.errno]
        finally:
            os.write(write, answer.encode() + b"\n")
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        answer = f.readline().strip()
    os.waitpid(pid, 0)
    return answer


def need_root() -> None:
    if os.geteuid() != 0:
        t.skip("needs root to become another user")


def daemon(conf: str) -> Daemon:
    d = Daemon()
    d.config.mkdir()
    (d.config / "umdev.conf").write_text(conf)
    os.chmod(d.dir, 0o755)
    return d


class Doors:
    """The same operation through each door."""

    def __init__(self, d: Daemon) -> None:
        self.d = d
        self.type = "devices/virtual/mtty/card0/mdev_supported_types"

    def write(self, path: str, text: str) -> None:
        with open(self.d.sys / path, "w", encoding="ascii") as f:
            f.write(text)

    def call(self, method: str, **parameters: object) -> None:
        with self.d.varlink() as v:
            v.call(method, **parameters)

    def create(self, kind: str) -> list[Callable[[], None]]:
        new = lambda: str(uuid.uuid4())  # noqa: E731
        return [lambda: self.write(f"{self.type}/{kind}/create", new()),
                lambda: self.call("Write", path=f"/{self.type}/{kind}/create", value=new()),
                lambda: self.call("Create", parent="card0", type=kind, settings=[]),
                lambda: self.call("CreateMany", parent="card0", type=kind, specs=[new()], all=True)]

    def label(self, u: str, value: str) -> list[Callable[[], None]]:
        path = f"bus/mdev/devices/{u}/mdev/label/value"
        return [lambda: self.write(path, value),
                lambda: self.call("Write", path=f"/{path}", value=value),
                lambda: self.call("ParamSet", name=u, param="label", value=value)]

    def remove(self, make: Callable[[], str]) -> list[Callable[[], None]]:
        def many() -> None:
            with self.d.varlink() as v:
                v.call("RemoveMany", names=[u], force=False, all=True)
        u = make()
        path = f"bus/mdev/devices/{u}/remove"
        return [lambda: self.write(path, "1"),
                lambda: self.call("Write", path=f"/{path}", value="1"),
                lambda: self.call("Remove", name=u, force=False), many]


# operation: user -> "" or errno; whoever is not named gets EACCES. tree: what differs there, since
# control_group is of the socket.
TABLE = {
    "create mtty-1": {"root": "", "admin": "", "delegate": "", "colleague": ""},
    "create mtty-2": {"root": "", "admin": ""},
    "label": {"root": "", "admin": "", "delegate": ""},
    "remove": {"admin": ""},
}


@t.case
def the_doors_agree_on_who_may_what() -> None:
    need_root()
    with daemon(f"control_mode = 0666\ncontrol_group = {ADMINS}\n") as d:
        if not os.path.ismount(d.sys):
            t.skip("the tree cannot be mounted here")
        d.add_card()
        doors = Doors(d)
        make = lambda: d.create("card0", "mtty-1")  # noqa: E731
        u = make()
        create = d.sys / doors.type / "mtty-1/create"
        os.chown(create, USERS["delegate"][0], TEAM)
        os.chmod(create, 0o220)
        os.chown(d.sys / f"bus/mdev/devices/{u}/mdev/label/value", USERS["delegate"][0], 0)
        for restarted in (False, True):
            check_table(d, doors, u, make, restarted)
            if not restarted:
                d.leave()
                d.start()


def check_table(d: Daemon, doors: Doors, u: str, make: Callable[[], str], again: bool) -> None:
    n = 0
    for operation, wanted in TABLE.items():
        for user in USERS:
            if operation == "remove":
                if user == "root":
                    continue
                ways = doors.remove(make)
            elif operation == "label":
                ways = doors.label(u, f"{user}{again}")
            else:
                ways = doors.create(operation.split()[1])
            for i, way in enumerate(ways):
                answer = wanted.get(user, "EACCES")
                if i == 0 and user == "admin":
                    answer = "EACCES"  # the tree knows owners and modes only
                if operation == "remove" and user == "admin" and i > 1:
                    continue  # it is gone
                t.equal(as_user(user, way), answer, f"{operation} by {user}, way {i}, {again}")
                n += 1
            with d.varlink() as v:
                names = [x["uuid"] for x in v.call("List")["devices"] if x["uuid"] != u]
                v.call("RemoveMany", names=names, force=False, all=True)
    t.check(n > 60, f"only {n} combinations")


@t.case
def what_is_no_file_is_for_the_trusted() -> None:
    need_root()
    with daemon(f"control_mode = 0666\ncontrol_group = {ADMINS}\n") as d:
        d.add_card()
        u = d.create("card0", "mtty-1")
        doors = Doors(d)
        for user, answer in (("nobody", "EPERM"), ("delegate", "EPERM"), ("admin", "")):
            for method, parameters in (
                    ("ParentAdd", {"name": f"p-{user}", "driver": "mtty", "settings": []}),
                    ("ParentRemove", {"name": f"p-{user}"}),
                    ("Restart", {"name": u})):
                t.equal(as_user(user, lambda m=method, p=parameters: doors.call(m, **p)), answer,
                        f"{method} by {user}")
        for user in USERS:
            t.equal(as_user(user, lambda: doors.call("List")), "", f"List by {user}")
            t.equal(as_user(user, lambda: doors.call("Show", name=u)), "", f"Show by {user}")


@t.case
def the_socket_has_the_mode_and_group_that_are_configured() -> None:
    need_root()
    for conf, mode, gid, may_look in (
            ("", 0o660, 0, {"root"}),
            (f"control_group={ADMINS} # comment\n\n", 0o660, ADMINS, {"root", "admin"}),
            (f"control_group={TEAM}\n", 0o660, TEAM, {"root", "colleague"}),
            ("control_mode=0600", 0o600, 0, {"root"}),
            ("control_mode=666\n", 0o666, 0, set(USERS))):
        with daemon(conf) as d:
            st = d.control.stat()
            t.equal((st.st_mode & 0o777, st.st_gid), (mode, gid), f"socket with {conf!r}")
            for user in USERS:
                answer = as_user(user, lambda: Varlink(d.control).call("List"))
                t.equal(answer, "" if user in may_look else "EACCES", f"{user} with {conf!r}")


@t.case
def what_is_configured_wins_over_what_was_given() -> None:
    need_root()
    with daemon("") as d:
        os.chmod(d.control, 0o666)
        d.leave()
        d.start()
        t.equal(d.control.stat().st_mode & 0o777, 0o666, "given to the socket before")
        d.leave()
        (d.config / "umdev.conf").write_text("control_mode = 0600\n")
        d.start()
        t.equal(d.control.stat().st_mode & 0o777, 0o600, "configured")


@t.case
def a_line_that_is_wrong_keeps_umdevd_from_starting() -> None:
    with t.TempDir() as top:
        env = os.environ | {f"UMDEV_{n}": f"{top}/{n.lower()}" for n in ("RUN", "CONFIG", "STATE")}
        Path(env["UMDEV_CONFIG"]).mkdir()
        conf = Path(env["UMDEV_CONFIG"]) / "umdev.conf"
        for text, words in (("control_mode\n", ["line 1", "key = value"]),
                            ("# fine\ncontrol_mdoe = 0600\n", ["line 2", "control_mode"]),
                            ("control_mode = rw\n", ["line 1", "0660"]),
                            ("control_mode = 0770\n", ["line 1", "0770"]),
                            ("control_mode =\n", ["line 1"]),
                            ("\n\ncontrol_group = nosuchgroup\n", ["line 3", "nosuchgroup"]),
                            ("x" * 600 + "\n", ["line 1", "long"]),
                            ("frobnicate = 1\n", ["line 1", "umdev.conf(5)"])):
            conf.write_text(text)
            p = subprocess.run([str(program("umdevd"))], env=env, text=True, capture_output=True,
                               timeout=20)
            t.equal((p.returncode, p.stderr.count("\n")), (1, 1), f"{text!r}: {p.stderr}")
            for word in [str(conf), *words]:
                t.check(word in p.stderr, f"{text!r}: {p.stderr!r} does not say {word!r}")


def connects(path: Path) -> Callable[[], None]:
    def act() -> None:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
    return act


@t.case
def a_device_belongs_to_whom_it_was_made_for() -> None:
    need_root()
    with daemon("") as d, d.varlink() as v:
        d.add_card()
        u = d.create("card0", "mtty-1", "uid=1002", f"gid={TEAM}", "mode=0660")
        plain = d.create("card0", "mtty-1")

        def check(who: set[str], when: str, device: str = u) -> None:
            for user in USERS:
                t.equal(as_user(user, connects(d.socket(device))),
                        "" if user in who else "EACCES", f"{user} connects {when}")
                t.wait_for(lambda: d.state_of(device) == "idle", 5, "idle")

        check({"root", "delegate", "colleague"}, "as made")
        check({"root"}, "to one made without", plain)
        v.call("ParamSet", name=u, param="mode", value="0600")
        check({"root", "delegate"}, "with another mode")
        v.call("ParamSet", name=u, param="uid", value=str(USERS["nobody"][0]))
        check({"root", "nobody"}, "with another owner")
        path = f"/bus/mdev/drivers/mtty"
        v.call("Write", path=f"{path}/unbind", value=u)
        v.call("ParamSet", name=u, param="mode", value="0660")
        v.call("Write", path=f"{path}/bind", value=u)
        check({"root", "nobody", "colleague"}, "when it was unbound and bound")
        os.chown(d.socket(plain), 1002, 0)
        d.leave()
        d.start()
        check({"root", "nobody", "colleague"}, "after a restart")
        check({"root", "delegate"}, "to one that was given away by hand, after a restart", plain)
        with d.varlink() as v2:
            values = {p["name"]: p["value"] for p in v2.call("Show", name=u)["params"]}
        t.equal((values["uid"], values["gid"], values["mode"]), ("65534", str(TEAM), "0660"),
                "values")


@t.case
def an_ordinary_user_gives_nothing_away() -> None:
    need_root()
    with t.TempDir() as top:
        os.chmod(top, 0o777)
        programs = top / "bin"
        programs.mkdir(0o755)
        for name in ("umdevd", "umdev-worker"):
            (programs / name).write_bytes(program(name).read_bytes())
            (programs / name).chmod(0o755)
        env = os.environ | {f"UMDEV_{n}": f"{top}/{n.lower()}" for n in ("RUN", "CONFIG", "STATE")}
        p = subprocess.Popen([str(programs / "umdevd")], env=env, cwd="/", user=1002, group=1002,
                             extra_groups=[], stderr=subprocess.PIPE, text=True)
        try:
            assert p.stderr
            while "ready" not in (line := p.stderr.readline()):
                t.check(line != "", "umdevd of an ordinary user ended")
            with Varlink(top / "run/control") as v:
                v.call("ParentAdd", name="card0", driver="mtty", settings=[])
                try:
                    v.call("Create", parent="card0", type="mtty-1", settings=["uid=0"])
                    raise t.Failure("it gave a socket to root")
                except VarlinkError as e:
                    t.equal(e.errno, "EPERM", str(e))
                u = v.call("Create", parent="card0", type="mtty-1", settings=["mode=0666"])["uuid"]
                path = top / "run/dev" / u / "socket"
                try:
                    v.call("ParamSet", name=u, param="uid", value="0")
                    raise t.Failure("it gave a socket to root")
                except VarlinkError as e:
                    t.equal(e.errno, "EPERM", str(e))
                t.equal((path.stat().st_mode & 0o777, path.stat().st_uid), (0o666, 1002),
                        "the socket after the refusal")
                t.equal(len(v.call("List")["devices"]), 1, "devices")
        finally:
            p.send_signal(2)
            p.communicate(timeout=20)


t.main()
