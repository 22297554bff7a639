"""The frames between a launcher and its zygote: objects `{NAME: RECORD}` over a Unix socket pair.

The launcher sends `start` with a `LaunchSpec`, `end`, and `ping`. The descriptor of the child's socket travels with the
first byte of `start`. The zygote sends `ready` once. It answers each `start` with `started` and later `exited`, or with
`failed`, and each `ping` with `pong`. When the launcher closes the socket, or its host has ended, the zygote ends its
runs and exits.

A *warm worker* is a run whose `start` has `is_worker`. It runs jobs one after the other, and each job has its own
logs. For each job the launcher sends `output`, with the reading ends of two pipes, before the worker gets their writing
ends. The zygote answers `output_ended` once every process has closed the writing ends, at the latest just before
`exited` of the worker.

A *template* is a zygote that has imported the module of a job. The launcher sends `template` to the shared zygote, with
the descriptor of the template's own control socket. The zygote answers as for a run. Over its control socket, the
template waits for `import`, answers `imported`, and then gets and sends the same frames as other zygotes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.errors import BadRequest
from paglets.core.record import from_json, to_json
from paglets.worker.launch import LaunchSpec, TemplateSource


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """`end`: send SIGTERM to the processes of a run, and SIGKILL to those that are left after a grace period."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteReady:
    """`ready`: the zygote can start runs. `preload_errors`: an error for each module that could not be imported."""

    preload_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """`started`: the process of a run has started. `start_time`: as in `processes.ProcessInfo`; 0 if unknown."""

    token: str
    pid: int
    start_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitedRun:
    """`exited`: all processes of a run have ended. `status`: the status of its first process, as from `os.waitpid`."""

    token: str
    status: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """`failed`: the process of a run could not be started."""

    token: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTemplate:
    """`template`: fork a template. `environment` and `threads`: as in LaunchSpec, for the import and all runs."""

    token: str
    environment: dict[str, str]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOutput:
    """`output`: copy the output of a job in a warm worker to its logs. The reading ends of two pipes come with it.

    `worker`: the token of the warm worker. `token`: that of the job's run.
    """

    worker: str
    token: str
    stdout_path: str
    stderr_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEnded:
    """`output_ended`: the output of a job is complete in its logs."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportModule:
    """`import`: import the module of a template. Sent after the host has stored the process of the template."""

    source: TemplateSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """`imported`: the template can start runs if `refusal` is "". Otherwise it exits for the reason `refusal`.

    `has_failed`: True if the import raised an error, so that a later import may succeed.
    """

    refusal: str = ""
    has_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """`ping`: the launcher asks whether the zygote still works. The zygote answers with `pong`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """`pong`: the zygote works, and has read all frames that were sent before the `ping`."""


RECORDS: dict[str, type[Any]] = {
    "start": LaunchSpec,
    "template": StartTemplate,
    "output": CopyOutput,
    "output_ended": OutputEnded,
    "import": ImportModule,
    "imported": Imported,
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
    """Return the frame for a record of one of the classes in RECORDS."""
    return {_NAMES[type(record)]: to_json(record)}


def from_frame(frame: dict[str, Any]) -> Any:
    """Return the record that a frame contains. Raises BadRequest for an unknown name, and Invalid for a bad record."""
    if len(frame) != 1:
        raise BadRequest(f"a zygote frame must have one key, got {len(frame)}")
    ((name, tree),) = frame.items()
    cls = RECORDS.get(name)
    if cls is None:
        raise BadRequest(f"unknown zygote frame {name[:60]!r}")
    return from_json(cls, tree)
