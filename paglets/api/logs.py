"""Requests and replies of the routes for logs and attempts of jobs."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import HostRef

MAX_LOG_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAttempts:
    """A request for the attempts of a job: `POST /v1/jobs/attempts`. `job`: GROUP/KEY, or the id of a paglet."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """An attempt that ran or runs on `host`.

    `ended`: True if no process of the attempt is left. `status`: RUNNING, or the status of the job after the attempt
    (WAITING_FOR_SLOT or PLACING: the job is retried), or "" if only the log is left. `cause`: why the attempt ended
    without a result. `remark`: more about its end. `kept`: True if the log exists, or the attempt printed nothing.
    `scratch`: the scratch directory if it was kept because the result could not be sent. `scratch_removed_at`: epoch
    seconds, null while that directory exists. `no_template`: the reason why the attempt imported its module itself,
    although it could have shared the import with other attempts; "" if it shared the import or needs no template.
    `isolation`: `worker` if the attempt was a job of a warm worker. `worker_ended`: why that worker ended after the
    attempt, such as "left a thread"; "" if it did not end.
    """

    agent_id: str
    group_id: str | None
    job_key: str
    generation: int
    attempt: int
    status: str
    ended: bool
    kept: bool
    host: HostRef
    runtime_seconds: float | None = None
    cause: str = ""
    remark: str = ""
    scratch: str = ""
    scratch_removed_at: float | None = None
    no_template: str = ""
    isolation: str = "process"
    worker_ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedJob:
    """An unfinished copy of a job on `host`, and the reason why it waits. `never`: True if waiting is useless."""

    agent_id: str
    generation: int
    attempt: int
    status: str
    residence: str
    reason: str
    reason_text: str
    never: bool
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The reply to `AskAttempts`: the attempts that one host knows, oldest first, and unfinished copies of the job."""

    attempts: tuple[AttemptView, ...]
    unfinished: tuple[UnfinishedJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of a log: `GET /v1/jobs/ID/log?generation=&attempt=&stream=out|err&offset=&limit=`.

    `data`: bytes as base64. `offset`: the start of the piece, later than requested if earlier bytes were deleted.
    `next`: the offset of the next piece. `size_bytes`: the number of bytes printed so far. `ended`: the attempt had
    ended before the log was read. If it had, and `next` equals `size_bytes`, no more bytes follow.
    """

    offset: int
    data: str
    next: int
    size_bytes: int
    ended: bool
