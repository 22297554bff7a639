"""Frames between a launcher and its zygote: `{name: record}` over a Unix socket pair.

Launcher to zygote: `start` with a `LaunchSpec`, and `end`. The first byte of `start` carries the descriptor of the
child's socket. Zygote to launcher: `ready` once; then for each start `started` and `exited`, or only `failed`.
The zygote answers `ping` with `pong`. End of file from the launcher means that the host is gone: the zygote ends all
its runs and itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.errors import BadRequest
from paglets.core.record import from_json, to_json
from paglets.worker.launch import LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """`end`: send SIGTERM to a run, and SIGKILL to the processes that are left after a grace period."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteReady:
    """`ready`: the modules are loaded. `preload_errors`: an error for each module that could not be imported."""

    preload_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """`started`: the child runs. `start_time`: as in `processes.ProcessInfo`, or 0 if the zygote cannot read it."""

    token: str
    pid: int
    start_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitedRun:
    """`exited`: the process tree of a run is gone. `status`: that of its first process, as `os.waitpid` returns it."""

    token: str
    status: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """`failed`: no process was started."""

    token: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """`ping`: a request for a `pong`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """`pong`: the zygote works, and has read all frames that were sent before the ping."""


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
    """Return the frame that carries `record`."""
    return {_NAMES[type(record)]: to_json(record)}


def from_frame(frame: dict[str, Any]) -> Any:
    """Return the record in a frame. Raises BadRequest for an unknown name, and Invalid for a bad record."""
    if len(frame) != 1:
        raise BadRequest("a zygote frame has exactly one key")
    ((name, tree),) = frame.items()
    cls = RECORDS.get(name)
    if cls is None:
        raise BadRequest(f"unknown zygote frame {name[:60]!r}")
    return from_json(cls, tree)
