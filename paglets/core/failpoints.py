"""Failpoints: named places in a host where a test makes its process die, fail or wait.

`PAGLETS_FAIL=point:kill|raise|delay:SECONDS[,point:...]` arms them as a host starts. `@N` behind an act means: only at
the N-th passing since then, as in `after-report-before-ack:kill@3`. The host takes the variable out of its environment,
so that no process of a paglet inherits it: all points are in the host's own process. They belong to the process and not
to one of its parts, hence a table of this module, which is empty but in tests.
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
    "after-accept-before-commit": "a group, posts or envelopes are written in a transaction that is not yet committed",
    "after-commit-before-reply": "a group or envelopes are committed, and who sent them does not know",
    "after-grant-before-spawn": "a job has its lease, and no process yet",
    "after-spawn-before-record": "a process waits for `go`, and its pid is not yet stored",
    "after-exit-before-report": "a process tree has ended, and this is not yet stored",
    "mid-artifact": "a piece of a blob is in its partial file, and who sent it does not know",
    "after-artifact-before-rename": "a blob is whole and synced, and has not its name yet",
    "after-report-before-ack": "posts are committed, and who sent them does not know",
    "after-ack-before-release": "posts are acknowledged, and still in the outbox",
    "mid-return-home": "a paglet that was asked to move is at its target, and its source has not stored that",
}
"""Each point, and what is so when it is reached."""

_SPEC = re.compile(
    r"(?P<point>[a-z-]+):(?P<act>kill|raise|delay:(?P<seconds>[0-9]+(\.[0-9]+)?))(@(?P<nth>[1-9][0-9]*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Armed:
    """`nth`: the passing at which it acts; None: each."""

    act: Callable[[str], None]
    nth: int | None
    passings: Iterator[int] = field(default_factory=lambda: itertools.count(1))


_armed: dict[str, _Armed] = {}


def arm(text: str) -> None:
    """Arm what `text`, the value of the variable, names, and nothing else. Raises Invalid."""
    armed = dict(_read(spec) for spec in text.split(",")) if text else {}
    _armed.clear()
    _armed.update(armed)


def reach(point: str) -> None:
    """Pass this point. Raises InternalError where that was asked for."""
    if _armed:
        _pass(point)


def _pass(point: str) -> None:
    armed = _armed.get(point)
    if armed is None:
        return
    passing = next(armed.passings)  # one step for all threads
    if armed.nth in (None, passing):
        armed.act(point)


def _read(spec: str) -> tuple[str, _Armed]:
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise Invalid(f"{VARIABLE}: {spec!r} is not point:kill, point:raise or point:delay:SECONDS, perhaps with @N")
    point = found["point"]
    if point not in POINTS:
        raise Invalid(f"{VARIABLE}: there is no point {point!r}; there are {', '.join(POINTS)}")
    return point, _Armed(act=_act(found), nth=None if found["nth"] is None else int(found["nth"]))


def _act(found: re.Match[str]) -> Callable[[str], None]:
    if found["seconds"] is not None:
        seconds = float(found["seconds"])
        return lambda point: system_pause(seconds)
    return {"kill": _kill, "raise": _fail}[found["act"]]


def _kill(point: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(point: str) -> None:
    """Said as well: who gets an error of ours may answer it, or try again, without a word."""
    os.write(2, f"failpoint {point}\n".encode())
    raise InternalError(f"failpoint {point}")
