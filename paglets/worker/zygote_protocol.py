"""What a launcher and its zygote say to each other, as frames `{name: record}` over a Unix socket pair.

Launcher to zygote: `start` (a `LaunchSpec`; the child's end of its socket comes with its first byte, as a
descriptor) and `end`. Zygote to launcher: `ready` once, then for each start `started` and `exited`, or
`failed` alone. A `ping` is answered by a `pong`. End of file from the launcher means that the host is gone: the
zygote ends everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.errors import BadRequest
from paglets.core.record import from_json, to_json
from paglets.worker.launch import LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """`end`: SIGTERM, and SIGKILL for what is there after a short grace."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteReady:
    """`ready`: modules are loaded. `preload_errors`: those that could not be."""

    preload_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """`started`. `start_time` as in `process.ProcessInfo`; 0 where the zygote cannot tell."""

    token: str
    pid: int
    start_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitedRun:
    """`exited`: nothing of the tree is left. `status` as `os.waitpid` gives it, of the first process."""

    token: str
    status: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """`failed`: there is no process, and why."""

    token: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """`ping`: does the zygote still work?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """`pong`: it does, and has read everything that was sent before the ping."""


RECORDS: dict[str, type[Any]] = {
    "start": LaunchSpec,
    "end": EndRun,
    "ready": ZygoteReady,
    "started": StartedRun,
    "exited": ExitedRun,
    "failed": FailedRun,
    "ping": Ping,
    "pong": Pong,
}
_NAMES = {cls: name for name, cls in RECORDS.items()}


def to_frame(record: Any) -> dict[str, Any]:
    """The frame that carries `record`."""
    return {_NAMES[type(record)]: to_json(record)}


def from_frame(frame: dict[str, Any]) -> Any:
    """The record in a frame. Raises BadRequest or Invalid."""
    if len(frame) != 1:
        raise BadRequest("a control frame has one key")
    ((name, tree),) = frame.items()
    cls = RECORDS.get(name)
    if cls is None:
        raise BadRequest(f"unknown control frame {name[:60]!r}")
    return from_json(cls, tree)
