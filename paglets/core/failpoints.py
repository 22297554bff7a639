"""Failpoints: named places in a host where a test makes its process die, fail or wait.

`PAGLETS_FAIL=point:kill|raise|delay:SECONDS[,point:...]` arms failpoints at the start of a host. `@N` after the action
limits it to the N-th time that the failpoint is reached, as in `after-report-before-ack:kill@3`. All failpoints are in
the process of the host, which removes the variable from its environment so that no child process inherits it.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from paglets.core.clock import system_pause
from paglets.core.errors import InternalError, Invalid

VARIABLE = "PAGLETS_FAIL"

POINTS: dict[str, str] = {
    "after-accept-before-commit": "a group, posts or envelopes are written in a transaction that is not committed",
    "after-commit-before-reply": "a group or envelopes are committed, and the sender has no reply",
    "after-grant-before-spawn": "a job has its lease, but no process",
    "after-spawn-before-record": "a process waits for `go`, and its pid is not stored",
    "after-exit-before-report": "a process tree has ended, and the end is not stored",
    "mid-artifact": "a piece of a blob is in its partial file, and the sender has no reply",
    "after-artifact-before-rename": "a blob is complete and synced, but not renamed to its final name",
    "after-report-before-ack": "posts are committed, and the sender has no reply",
    "after-ack-before-release": "posts are acknowledged, and still in the outbox",
    "mid-return-home": "a paglet is at the target of its move, and the source has not stored the acknowledgement",
}
"""The failpoints, each with the state of the host when it is reached."""

_SPEC = re.compile(
    r"(?P<point>[a-z-]+):(?P<act>kill|raise|delay:(?P<seconds>[0-9]+(\.[0-9]+)?))(@(?P<nth>[1-9][0-9]*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Armed:
    """An armed failpoint. It acts when it is reached for the `nth` time; None means every time."""

    act: Callable[[str], None]
    nth: int | None
    passings: Iterator[int] = field(default_factory=lambda: itertools.count(1))


_armed: dict[str, _Armed] = {}


def arm(text: str) -> None:
    """Arm the failpoints in `text`, the value of PAGLETS_FAIL, and disarm all others. Raises Invalid."""
    armed = dict(_read(spec) for spec in text.split(",")) if text else {}
    _armed.clear()
    _armed.update(armed)


def reach(point: str) -> None:
    """Perform the action of this failpoint if it is armed. Raises InternalError if the action is `raise`."""
    if _armed:
        _pass(point)


def _pass(point: str) -> None:
    armed = _armed.get(point)
    if armed is None:
        return
    passing = next(armed.passings)  # this call is atomic, so no two threads get the same number
    if armed.nth in (None, passing):
        armed.act(point)


def _read(spec: str) -> tuple[str, _Armed]:
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise Invalid(
            f"{VARIABLE}: {spec!r} is not valid: write POINT:kill, POINT:raise or POINT:delay:SECONDS. To act only the "
            "N-th time that POINT is reached, add @N"
        )
    point = found["point"]
    if point not in POINTS:
        raise Invalid(f"{VARIABLE}: unknown failpoint {point!r}; the failpoints are {', '.join(POINTS)}")
    return point, _Armed(act=_act(found), nth=None if found["nth"] is None else int(found["nth"]))


def _act(found: re.Match[str]) -> Callable[[str], None]:
    if found["seconds"] is not None:
        seconds = float(found["seconds"])
        return lambda point: system_pause(seconds)
    return {"kill": _kill, "raise": _fail}[found["act"]]


def _kill(point: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(point: str) -> None:
    """Raise InternalError. Also print a line on stderr, because the caller may catch the error without logging it."""
    os.write(2, f"failpoint {point}\n".encode())
    raise InternalError(f"failpoint {point}")
