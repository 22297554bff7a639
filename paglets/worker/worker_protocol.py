"""The frames between a host and a warm worker: a process that runs jobs of one code bundle, one after the other.

They add to the frames of `worker.protocol`. The worker may get further `go` frames before its current job ends, and
runs the jobs in the order of these frames. With the first byte of each `go` come two descriptors, for the stdout and
stderr of its job. The host also sends:

- `{"withdraw": token}`: the job is not to run. If it has not started, the worker answers `withdrawn`.
- `{"finish": true}`, without the key `run`: the worker exits after its jobs.

Besides requests, the worker sends frames `{NAME: RECORD}` that have no reply. RECORDS lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.record import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """`began`: the job starts now. If the process ends before it sends `ended`, this job counts as the cause.

    `cpu_before`: the CPU seconds that the worker has used so far.
    """

    token: str
    cpu_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """`ended`: the job is over, and left nothing behind. `rss_bytes`: the peak memory of the process during the job."""

    token: str
    cpu_seconds: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLeaves:
    """`leaving`: the code of the job has returned, and the worker exits. The job is over when the process has ended.

    `difference`: the change that the job left, such as "left a thread"; "" if it only failed or exited.
    """

    token: str
    difference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """`withdrawn`: the job did not begin, and will not."""

    token: str


WorkerRecord = Began | JobEnded | WorkerLeaves | Withdrawn

RECORDS: dict[str, type[WorkerRecord]] = {
    "began": Began,
    "ended": JobEnded,
    "leaving": WorkerLeaves,
    "withdrawn": Withdrawn,
}
_NAMES = {cls: name for name, cls in RECORDS.items()}


def to_frame(record: WorkerRecord) -> dict[str, Any]:
    """Return the frame for a record."""
    return {_NAMES[type(record)]: to_json(record)}


def from_frame(frame: dict[str, Any]) -> WorkerRecord | None:
    """Return the record that a frame contains; None if the frame is a request. Raises Invalid."""
    name = next((name for name in frame if name in RECORDS), None)
    if name is None:
        return None
    if len(frame) != 1:
        raise Invalid(f"the frame {name} of a worker has further keys")
    return from_json(RECORDS[name], frame[name])
