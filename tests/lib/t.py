# SPDX-License-Identifier: MIT
"""Cases of a test file: one line of result each, in the form that tools/run-tests counts.

    from lib import t

    @t.case
    def a_removed_device_is_gone() -> None:
        ...

    t.main()
"""
from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UMDEV_BUILD", ROOT / "build")).resolve()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umdev"
CASE_SECONDS = 120
T = TypeVar("T")


class Failure(AssertionError):
    """What was expected did not happen; the text says both."""


class Skip(Exception):
    """Something this machine lacks."""


class TimedOut(Failure):
    pass


_cases: list[tuple[Callable[[], None], int]] = []


def case(function: Callable[[], None] | None = None, *, seconds: int = CASE_SECONDS) -> Any:
    """Marks a case; it runs in order of definition and is killed after `seconds`."""
    def add(f: Callable[[], None]) -> Callable[[], None]:
        _cases.append((f, seconds))
        return f
    return add(function) if function else add


def skip(why: str) -> NoReturn:
    raise Skip(why)


def check(condition: object, text: str) -> None:
    if not condition:
        raise Failure(text)


def equal(got: object, wanted: object, what: str) -> None:
    if got != wanted:
        raise Failure(f"{what}: got {got!r}, wanted {wanted!r}")


def fact(text: str) -> None:
    """A line that the runner shows even when all is well."""
    print(f"# {text}", flush=True)


def slowness() -> float:
    """How much longer than on an idle machine anything may take: 1 to 4, by its load."""
    return max(1.0, min(4.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def wait_for(question: Callable[[], T], seconds: float, what: str) -> T:
    """Asks until the answer is true; only where no event tells."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimedOut(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


class TempDir:
    """A short path (sockets allow 107 bytes), gone at the end."""

    def __init__(self, below: str = "/tmp") -> None:
        self.path = Path(tempfile.mkdtemp(prefix="umd-", dir=below))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _run(f: Callable[[], None], seconds: int) -> str:
    name = f.__name__
    signal.alarm(seconds)
    try:
        f()
    except Skip as e:
        return f"skip {name}: {e}"
    except Exception as e:
        traceback.print_exc(file=sys.stdout)
        return f"not ok {name}: {' '.join(str(e).split()) or type(e).__name__}"
    finally:
        signal.alarm(0)
    return f"ok {name}"


def main() -> NoReturn:
    """Runs the cases, or those named on the command line."""
    def on_alarm(*_: object) -> NoReturn:
        raise TimedOut("the case ran too long")

    def on_term(*_: object) -> NoReturn:
        sys.exit(1)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_term)  # so that with-blocks stop what they started
    wanted = sys.argv[1:]
    failed = False
    for f, seconds in _cases:
        if wanted and f.__name__ not in wanted:
            continue
        line = _run(f, seconds)
        failed |= line.startswith("not ok")
        print(line, flush=True)
    sys.exit(1 if failed else 0)
